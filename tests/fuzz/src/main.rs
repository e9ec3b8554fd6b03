//! libFuzzer around one of the targets, which `FUZZ_TARGET` names; `scripts/fuzz` starts it.
//!
//! A finding is a panic, more than a second of processor time for one input, or more than 512 MiB of memory at once. That
//! these are found is itself tried out, with the planted faults below.

#![no_main]

#[path = "../targets/mod.rs"]
mod targets;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Processor time for one input.
const LONGEST: Duration = Duration::from_secs(1);

/// Bytes that may be taken at once.
const MOST: usize = 512 << 20;

/// The system's allocator, with a bound.
struct Bounded;

static TAKEN: AtomicUsize = AtomicUsize::new(0);

impl Bounded {
    fn take(bytes: usize) {
        let before = TAKEN.fetch_add(bytes, Relaxed);
        if before < MOST && before + bytes >= MOST {
            eprintln!("more than {MOST} bytes of memory at once");
            std::process::abort();
        }
    }
}

// SAFETY: everything is handed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Bounded {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::take(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Self::take(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        Self::take(size);
        TAKEN.fetch_sub(layout.size(), Relaxed);
        unsafe { System.realloc(at, layout, size) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        TAKEN.fetch_sub(layout.size(), Relaxed);
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Bounded = Bounded;

/// Faults for the fuzzer to find: each behind words that no corpus holds.
const PLANTED: [(&str, fn(&[u8]) -> bool); 3] =
    [("planted-panic", planted_panic), ("planted-hang", planted_hang), ("planted-memory", planted_memory)];

/// A count of the input's is believed.
fn planted_panic(data: &[u8]) -> bool {
    data.starts_with(b"tape") && data.len() > 8 && data[5 + usize::from(data[4])] == 0
}

fn planted_hang(data: &[u8]) -> bool {
    let (is_there, begun) = (data.starts_with(b"loop"), processor_time());
    while is_there && processor_time() - begun < 2 * LONGEST {}
    is_there
}

fn planted_memory(data: &[u8]) -> bool {
    data.starts_with(b"more") && std::hint::black_box(vec![0u8; MOST]).is_empty()
}

static RUN: LazyLock<fn(&[u8]) -> bool> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    let planted = PLANTED.iter().find(|(planted, _)| *planted == name).map(|(_, run)| *run);
    let target = targets::ALL.iter().find(|target| target.name == name).map(|target| target.run);
    planted.or(target).unwrap_or_else(|| {
        let known: Vec<_> = targets::ALL.iter().map(|target| target.name).collect();
        panic!("FUZZ_TARGET is one of {}", known.join(", "));
    })
});

fn processor_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let run = *RUN;
    let before = processor_time();
    std::hint::black_box(run(data));
    let took = processor_time() - before;
    assert!(took <= LONGEST, "took {} ms of processor time", took.as_millis());
});
