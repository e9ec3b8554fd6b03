//! The corpus of the fuzzer, through its targets: what was once a finding is none any more.
//!
//! `scripts/fuzz` looks for more.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::Once;

#[path = "../fuzz/targets/mod.rs"]
mod targets;

thread_local! {
    static PANICS: Cell<u32> = const { Cell::new(0) };
}

/// Counts panics of this thread, also those that a task's runtime takes for itself.
fn count_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANICS.set(PANICS.get() + 1);
            usual(info);
        }));
    });
}

fn corpus(name: &str) -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(name);
    let mut files: Vec<_> = std::fs::read_dir(dir).into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn the_corpus_is_no_finding_and_reaches_both_sides() {
    count_panics();
    for target in &targets::ALL {
        let (mut taken, mut refused) = (0, 0);
        for file in corpus(target.name) {
            let data = std::fs::read(&file).unwrap();
            let before = PANICS.get();
            let found = std::panic::catch_unwind(|| (target.run)(&data));
            assert!(PANICS.get() == before, "{} is a finding", file.display());
            *(if found.unwrap() { &mut taken } else { &mut refused }) += 1;
        }
        assert!(taken > 0 && refused > 0, "{}: {taken} inputs are taken, {refused} refused", target.name);
        assert!(taken + refused <= 60, "{}: a corpus is small", target.name);
    }
}
