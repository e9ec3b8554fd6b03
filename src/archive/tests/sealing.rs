//! Sealing beside recording: one segment at a time, and what waits for its turn is never forgotten.

use std::io;
use std::sync::{Condvar, Mutex};

use super::*;
use crate::segment::{DiskFile, DiskRead, LockRefused};

/// How long something may take that takes no time.
const PATIENCE: Duration = Duration::from_secs(30);

/// A disk before whose door every sealing waits until it is let through.
struct Gate(MemDisk, Arc<Door>);

#[derive(Default)]
struct Door {
    state: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    now: usize,
    most: usize,
    passes: usize,
}

impl Door {
    fn wait(&self) {
        let mut state = self.state.lock().unwrap();
        state.now += 1;
        state.most = state.most.max(state.now);
        self.changed.notify_all();
        let (mut state, waited) = self.changed.wait_timeout_while(state, PATIENCE, |state| state.passes == 0).unwrap();
        assert!(!waited.timed_out(), "nobody opens the door");
        state.now -= 1;
        state.passes -= 1;
    }

    /// Waits for somebody at the door, and lets one through.
    fn let_one_through(&self) {
        let state = self.state.lock().unwrap();
        let (mut state, waited) = self.changed.wait_timeout_while(state, PATIENCE, |state| state.now == 0).unwrap();
        assert!(!waited.timed_out(), "nobody comes to the door");
        state.passes += 1;
        self.changed.notify_all();
    }

    fn open(&self) {
        self.state.lock().unwrap().passes = usize::MAX / 2;
        self.changed.notify_all();
    }
}

impl Disk for Gate {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.0.create(path)
    }
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskRead>> {
        self.0.open(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.remove(path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.sync_dir(dir)
    }
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.create_dir(dir)
    }
    fn remove_empty_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.remove_empty_dir(dir)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.0.list(dir)
    }
    fn is_link(&self, path: &Path) -> io::Result<bool> {
        self.0.is_link(path)
    }
    fn len(&self, path: &Path) -> io::Result<Option<u64>> {
        self.0.len(path)
    }
    fn lock(&self, path: &Path, holder: &str) -> std::result::Result<Box<dyn Send>, LockRefused> {
        self.0.lock(path, holder)
    }
    fn reached(&self, point: &'static str) -> io::Result<()> {
        if point == "sealed written, not verified" {
            self.1.wait();
        }
        self.0.reached(point)
    }
}

/// Four sources that have just ended a segment each, because a day is over.
fn at_midnight() -> (Bench, Arc<Door>, Archive) {
    let (bench, door) = (Bench::new(), Arc::new(Door::default()));
    let gate = Arc::new(Gate(bench.disk.clone(), Arc::clone(&door)));
    let options = Options { seal_in_background: true, ..options() };
    let mut archive = Archive::open(bench.dir.path(), gate, options, decode_record, "test", at(0)).unwrap();
    for second in [1, 86_401] {
        for name in ["a", "b", "c", "d"].map(|name| SourceName::new(name).unwrap()) {
            archive.add_source(&name, Provider::TwitterapiIo).unwrap();
            append(&mut archive, &name, second);
        }
        archive.commit(at(second)).unwrap();
    }
    (bench, door, archive)
}

fn append(archive: &mut Archive, name: &SourceName, second: i64) {
    let decoded = decode(Provider::TwitterapiIo, &envelope(second as u64));
    archive.append(name, &frame(second as u64, second), Some(&decoded)).unwrap();
}

fn sealed(archive: &Archive) -> usize {
    let rows = archive.catalog.sources().unwrap().into_iter().flat_map(|row| archive.catalog.segments(&row.name).unwrap());
    rows.filter(|row| row.state == "sealed").count()
}

#[test]
fn one_segment_is_sealed_at_a_time() {
    let (_bench, door, mut archive) = at_midnight();
    for many in 1..=4 {
        door.let_one_through();
        // Each commit takes over what is done, and has the next one begun.
        while sealed(&archive) < many {
            archive.commit(at(86_402)).unwrap();
            std::thread::yield_now();
        }
    }
    assert_eq!(door.state.lock().unwrap().most, 1);
    door.open();
    archive.close(at(86_403)).unwrap();
}

#[test]
fn what_waits_to_be_sealed_is_sealed_at_the_end() {
    let (bench, door, archive) = at_midnight();
    door.open();
    archive.close(at(86_402)).unwrap();
    let report = verify(&bench.path(), &bench.disk, decode_record, |_| {}).unwrap();
    assert!(report.is_whole() && report.sources.iter().all(|source| source.open_segments == 0), "{report:?}");
}

#[test]
fn what_waits_to_be_sealed_is_sealed_by_mending() {
    let (bench, door, mut archive) = at_midnight();
    door.open();
    archive.reopen(at(86_402)).unwrap();
    append(&mut archive, &SourceName::new("a").unwrap(), 86_403);
    archive.close(at(86_404)).unwrap();
    let report = verify(&bench.path(), &bench.disk, decode_record, |_| {}).unwrap();
    assert!(report.is_whole() && report.sources.iter().all(|source| source.open_segments == 0), "{report:?}");
    assert_eq!(report.sources.iter().map(|source| source.envelopes).sum::<u64>(), 9);
}
