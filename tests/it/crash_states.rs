//! Every state that a power cut can leave of a recorded workload: what was announced is there, and nothing else.
//!
//! A recorder lives twice on a disk that writes down each operation. A name is durable once its directory was synced, bytes
//! once their file was. For every prefix of the operations a cut may have kept any of those that no sync made durable and lost
//! the others (an append, a new name, a rename, a removal), and one of the appends that it kept may be torn at any 512 bytes,
//! and end there or in zeros. The catalog is the one of any earlier commit, or gone: SQLite may lose its newest transactions.
//! Where more than [`ALL_OF`] operations are pending, it is all that lose or keep at most two of them, and a draw of the rest.
//!
//! Many states are the same files; those are opened once, as the next start would, and have to hold what the last of the
//! states had announced. Every announced envelope must be there, byte for byte and in order, nothing that was not sent,
//! `verify` must find no fault, and opening once more must find nothing to mend.
//!
//! | broken on purpose | red |
//! | --- | --- |
//! | half of the appends are lost, and syncs do not count (the control of each run) | announced envelopes are gone |

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use birdtape::archive::{Archive, Disk, DiskFile, DiskRead, LockRefused, MemDisk, Options, Span, verify};
use birdtape::model::RecordKind;
use birdtape::provider::decode_record;
use bytes::Bytes;
use xxhash_rust::xxh3::Xxh3;

use crate::made::{Made, directory, live_with, second, source};
use crate::simulate::table::Table;

/// Of so many pending operations every set may be lost.
const ALL_OF: usize = 10;
const SECTOR: usize = 512;

fn options() -> Options {
    Options { block_bytes: 1_500, segment_bytes: 6_000, level: 1, seal_in_background: false, ..Options::default() }
}

#[derive(Clone, Debug)]
enum Op {
    Create {
        file: usize,
        path: PathBuf,
    },
    Append {
        file: usize,
        offset: usize,
        bytes: Vec<u8>,
    },
    Sync {
        file: usize,
    },
    Rename {
        file: usize,
        from: PathBuf,
        to: PathBuf,
    },
    Remove {
        path: PathBuf,
    },
    SyncDir {
        dir: PathBuf,
    },
    /// So many envelopes are announced; the catalog is this one.
    Announced {
        envelopes: usize,
        catalog: usize,
    },
}

impl Op {
    /// Directories whose names it changes.
    fn names(&self) -> Vec<&Path> {
        match self {
            Self::Create { path, .. } | Self::Remove { path } => path.parent().into_iter().collect(),
            Self::Rename { from, to, .. } => [from.parent(), to.parent()].into_iter().flatten().collect(),
            _ => Vec::new(),
        }
    }
}

#[derive(Default)]
struct Log {
    ops: Vec<Op>,
    files: BTreeMap<PathBuf, usize>,
    lengths: Vec<usize>,
}

/// A disk that writes down what is done to it.
#[derive(Clone, Default)]
struct Recorder {
    disk: MemDisk,
    log: Arc<Mutex<Log>>,
}

struct RecordedFile {
    inner: Box<dyn DiskFile>,
    log: Arc<Mutex<Log>>,
    file: usize,
}

impl DiskFile for RecordedFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.inner.append(bytes)?;
        let mut log = self.log.lock().unwrap();
        let offset = log.lengths[self.file];
        log.lengths[self.file] += bytes.len();
        log.ops.push(Op::Append { file: self.file, offset, bytes: bytes.to_vec() });
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.inner.sync()?;
        self.log.lock().unwrap().ops.push(Op::Sync { file: self.file });
        Ok(())
    }
}

impl Disk for Recorder {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let inner = self.disk.create(path)?;
        let mut log = self.log.lock().unwrap();
        let file = log.lengths.len();
        log.lengths.push(0);
        log.files.insert(path.to_owned(), file);
        log.ops.push(Op::Create { file, path: path.to_owned() });
        Ok(Box::new(RecordedFile { inner, log: Arc::clone(&self.log), file }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskRead>> {
        self.disk.open(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)?;
        let mut log = self.log.lock().unwrap();
        let file = log.files.remove(from).unwrap();
        log.files.insert(to.to_owned(), file);
        log.ops.push(Op::Rename { file, from: from.to_owned(), to: to.to_owned() });
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)?;
        let mut log = self.log.lock().unwrap();
        log.files.remove(path);
        log.ops.push(Op::Remove { path: path.to_owned() });
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.sync_dir(dir)?;
        self.log.lock().unwrap().ops.push(Op::SyncDir { dir: dir.to_owned() });
        Ok(())
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.create_dir(dir)
    }

    fn remove_empty_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.remove_empty_dir(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.disk.list(dir)
    }

    fn is_link(&self, path: &Path) -> io::Result<bool> {
        self.disk.is_link(path)
    }

    fn len(&self, path: &Path) -> io::Result<Option<u64>> {
        self.disk.len(path)
    }

    fn lock(&self, path: &Path, holder: &str) -> Result<Box<dyn Send>, LockRefused> {
        self.disk.lock(path, holder)
    }
}

/// Everything that was done, and what was sent.
struct Trace {
    dir: PathBuf,
    ops: Vec<Op>,
    sent: Vec<Bytes>,
    /// The files that are segments.
    segments: BTreeSet<usize>,
    /// Files of the catalog, by suffix, at each announcement.
    catalogs: Vec<Vec<(&'static str, Vec<u8>)>>,
    end: i64,
}

/// Lives of a recorder with so many envelopes each, announced by threes; all but the last are killed in the middle, that one ends in good order.
fn record(lives: &[u64]) -> Trace {
    assert!(lives.iter().all(|n| n % 3 == 0), "what is not announced is not in the next life");
    let dir = directory();
    let recorder = Recorder::default();
    let name = source("alpha");
    let (mut sent, mut catalogs, mut now) = (Vec::new(), Vec::new(), 0);
    for (life, n) in lives.iter().copied().enumerate() {
        let disk = Arc::new(recorder.clone());
        let mut archive = Archive::open(dir.path(), disk, options(), decode_record, "test", second(now)).unwrap();
        let begin = now + 10;
        let (log, base) = (Arc::clone(&recorder.log), sent.len());
        let catalog = dir.path().join("catalog.sqlite");
        let words = |nth: u64| format!("of {nth}");
        now = live_with(&mut archive, &name, n, begin, words, |nth, at, archive, bytes| {
            sent.push(bytes.clone());
            if nth % 3 == 2 {
                archive.commit(second(at)).unwrap();
                let parts = ["", "-wal", "-shm"].into_iter();
                catalogs.push(
                    parts
                        .filter_map(|suffix| Some((suffix, std::fs::read(format!("{}{suffix}", catalog.display())).ok()?)))
                        .collect::<Vec<_>>(),
                );
                let announced = Op::Announced { envelopes: base + nth as usize + 1, catalog: catalogs.len() - 1 };
                log.lock().unwrap().ops.push(announced);
            }
        });
        if life + 1 < lives.len() {
            drop(archive);
        } else {
            archive.stop_source(&name, second(now), "enough").unwrap();
            archive.close(second(now)).unwrap();
        }
    }
    let ops = std::mem::take(&mut recorder.log.lock().unwrap().ops);
    let is_segment = |op: &Op| match op {
        Op::Create { file, path } => path.to_str().unwrap().contains(".jsonl.zst").then_some(*file),
        _ => None,
    };
    let segments = ops.iter().filter_map(is_segment).collect();
    Trace { dir: dir.path().to_owned(), ops, segments, sent, catalogs, end: now + 1_000 }
}

/// What a cut leaves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct State {
    /// So many operations were done.
    prefix: usize,
    /// Of those, these are lost.
    lost: BTreeSet<usize>,
    torn: Option<Tear>,
    /// Which of the announcements the catalog is of; none where it is gone.
    catalog: Option<usize>,
}

/// An append of which only the first bytes are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tear {
    op: usize,
    keep: usize,
    /// The file is as long as if all were there.
    with_zeros: bool,
}

impl Trace {
    /// Operations of a prefix that no sync makes durable.
    fn pending(&self, prefix: usize) -> BTreeSet<usize> {
        let mut pending = BTreeSet::new();
        for (at, op) in self.ops[..prefix].iter().enumerate() {
            match op {
                Op::Sync { file: synced } => {
                    pending.retain(|at: &usize| !matches!(&self.ops[*at], Op::Append { file, .. } if file == synced));
                }
                Op::SyncDir { dir } => pending.retain(|at: &usize| {
                    let names = self.ops[*at].names();
                    names.is_empty() || names.iter().any(|of| of != dir)
                }),
                Op::Announced { .. } => {}
                Op::Append { .. } | Op::Create { .. } | Op::Rename { .. } | Op::Remove { .. } => drop(pending.insert(at)),
            }
        }
        pending
    }

    /// The files of every state behind a prefix; the catalog is left to the caller.
    fn states(&self, prefix: usize) -> Vec<State> {
        let pending = self.pending(prefix);
        // What is lost or kept by itself: each operation on segments; room that is kept free, and what tries it, as one.
        let (of_segments, beside): (Vec<usize>, Vec<usize>) = pending.into_iter().partition(|op| self.is_of_segment(*op));
        let mut parts: Vec<Vec<usize>> = of_segments.into_iter().map(|op| vec![op]).collect();
        parts.extend((!beside.is_empty()).then_some(beside));
        assert!(parts.len() <= ALL_OF, "{} things are pending", parts.len());
        let mut states = Vec::new();
        for bits in 0..1_u64 << parts.len() {
            let chosen = |bits: u64| parts.iter().enumerate().filter(move |(at, _)| bits >> at & 1 == 1).flat_map(|(_, ops)| ops);
            let whole = State { prefix, lost: chosen(bits).copied().collect(), ..State::default() };
            for op in chosen(!bits).copied().filter(|op| self.is_of_segment(*op)) {
                let Op::Append { offset, bytes, .. } = &self.ops[op] else { continue };
                let cuts = (offset / SECTOR + 1..).map(|sector| sector * SECTOR - offset).take_while(|keep| *keep < bytes.len());
                states.extend(cuts.chain([0]).flat_map(|keep| {
                    let tear = |with_zeros| State { torn: Some(Tear { op, keep, with_zeros }), ..whole.clone() };
                    // An append of which nothing is kept, without zeros, is one that is lost.
                    [(keep > 0).then(|| tear(false)), Some(tear(true))].into_iter().flatten()
                }));
            }
            states.push(whole);
        }
        states
    }

    fn is_of_segment(&self, op: usize) -> bool {
        match &self.ops[op] {
            Op::Append { file, .. } => self.segments.contains(file),
            op => op.names().iter().any(|dir| *dir != self.dir),
        }
    }

    /// How many envelopes were announced, and how many times.
    fn announced(&self, prefix: usize) -> (usize, usize) {
        let of = |op: &Op| if let Op::Announced { envelopes, catalog } = op { Some((*envelopes, catalog + 1)) } else { None };
        self.ops[..prefix].iter().rev().find_map(of).unwrap_or_default()
    }

    /// The files that are left.
    fn files(&self, state: &State) -> BTreeMap<&Path, Vec<u8>> {
        let (mut data, mut names): (BTreeMap<usize, Vec<u8>>, BTreeMap<&Path, usize>) = Default::default();
        for (at, op) in self.ops[..state.prefix].iter().enumerate().filter(|(at, _)| !state.lost.contains(at)) {
            match op {
                Op::Create { file, path } => drop(names.insert(path, *file)),
                Op::Append { file, offset, bytes } => {
                    let (keep, len) = match state.torn {
                        Some(tear) if tear.op == at => (tear.keep, if tear.with_zeros { bytes.len() } else { tear.keep }),
                        _ => (bytes.len(), bytes.len()),
                    };
                    let data = data.entry(*file).or_default();
                    // What came later may be there before it.
                    data.resize(data.len().max(offset + len), 0);
                    data[*offset..offset + keep].copy_from_slice(&bytes[..keep]);
                }
                Op::Rename { file, from, to } => {
                    if names.get(from.as_path()) == Some(file) {
                        names.remove(from.as_path());
                    }
                    names.insert(to, *file);
                }
                Op::Remove { path } => drop(names.remove(path.as_path())),
                Op::Sync { .. } | Op::SyncDir { .. } | Op::Announced { .. } => {}
            }
        }
        names.into_iter().map(|(path, file)| (path, data.get(&file).cloned().unwrap_or_default())).collect()
    }

    /// Counts a state with each of so many catalogs.
    fn note(&self, state: &State, n_catalogs: u64, table: &mut Table) {
        table.add("states", n_catalogs);
        let is_append = |op: &usize| matches!(self.ops[*op], Op::Append { .. });
        let (appends, names): (Vec<usize>, Vec<usize>) = state.lost.iter().copied().partition(is_append);
        let sorts = [
            ("lost: nothing", state.lost.is_empty()),
            ("lost: an append", !appends.is_empty()),
            ("lost: a name", !names.is_empty()),
            ("torn: short", state.torn.is_some_and(|tear| !tear.with_zeros)),
            ("torn: zeros", state.torn.is_some_and(|tear| tear.with_zeros)),
        ];
        sorts.into_iter().filter(|(_, is)| *is).for_each(|(name, _)| table.add(name, n_catalogs));
        table.note("catalog: gone");
        table.add("catalog: of a commit", n_catalogs - 1);
    }

    /// Tells files apart.
    fn image(&self, state: &State) -> u128 {
        let mut hash = Xxh3::new();
        for (path, data) in self.files(state) {
            hash.update(path.as_os_str().as_encoded_bytes());
            hash.update(&(data.len() as u64).to_le_bytes());
            hash.update(&data);
        }
        hash.digest128()
    }

    /// Opens what is left, and says what is wrong.
    fn check(&self, state: &State, table: &mut Table) -> Option<String> {
        let (announced, _) = self.announced(state.prefix);
        let made = Made::new(options());
        for (path, data) in self.files(state) {
            let path = made.dir.path().join(path.strip_prefix(&self.dir).unwrap());
            made.disk.create(&path).unwrap();
            made.disk.overwrite(&path, data);
        }
        for (suffix, data) in state.catalog.into_iter().flat_map(|at| &self.catalogs[at]) {
            std::fs::write(format!("{}{suffix}", made.catalog().display()), data).unwrap();
        }
        for round in 0..2 {
            let archive = match made.open(self.end + round) {
                Ok(archive) => archive,
                Err(error) => return Some(format!("round {round}: it cannot be opened: {error}")),
            };
            let recovery = archive.recovery();
            if round == 1 && !(recovery.sealed.is_empty() && recovery.holes.is_empty() && recovery.rebuilt.is_none()) {
                return Some(format!("there is something to mend a second time: {recovery:?}"));
            }
            if round == 0 && !recovery.sealed.is_empty() {
                table.note("an open segment is sealed");
            }
            if let Err(error) = archive.close(second(self.end + round)) {
                return Some(format!("it cannot be closed: {error}"));
            }
            let kept = frames(&made);
            if kept.len() < announced {
                return Some(format!("round {round}: {} envelopes are left of {announced} that were announced", kept.len()));
            }
            if kept[..] != self.sent[..kept.len().min(self.sent.len())] {
                return Some(format!(
                    "round {round}: the {} envelopes that are left are not the first that were sent",
                    kept.len()
                ));
            }
            let report = verify(made.dir.path(), &made.disk, decode_record, |_| {}).unwrap();
            if !report.is_whole() {
                return Some(format!("round {round}: verify finds {:?}", report.damage.first()));
            }
        }
        None
    }
}

fn frames(made: &Made) -> Vec<Bytes> {
    let tape = made.tape().unwrap();
    if tape.source("alpha").is_err() {
        return Vec::new();
    }
    let mut records = tape.records("alpha", Span::default()).unwrap();
    let mut found = Vec::new();
    while let Some(record) = records.next().unwrap() {
        if record.kind == RecordKind::Frame {
            found.push(record.body);
        }
    }
    found
}

/// Works on each of some things, on all processors.
fn on_all<T: Sync>(things: &[T], one: impl Fn(&T) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, std::num::NonZero::get) {
            scope.spawn(|| {
                while let Some(thing) = things.get(next.fetch_add(1, Relaxed)) {
                    one(thing);
                }
            });
        }
    });
}

/// Files, told apart by a hash, and a catalog.
type Image = (u128, Option<usize>);

/// The states behind every so-manieth operation, with every so-manieth catalog.
fn check(lives: &[u64], step: usize) {
    let started = Instant::now();
    let trace = record(lives);
    // By their files and their catalog: the state that announced most, and how many there are.
    let images: Mutex<BTreeMap<Image, (State, u64)>> = Mutex::default();
    let all: Mutex<(Table, Vec<String>)> = Mutex::default();
    let prefixes: Vec<usize> = (0..=trace.ops.len()).rev().step_by(step).collect();
    on_all(&prefixes, |prefix| {
        let mut table = Table::default();
        let mut found: BTreeMap<u128, (State, u64)> = BTreeMap::new();
        let catalogs = || (0..trace.announced(*prefix).1).rev().step_by(step).map(Some).chain([None]);
        for state in trace.states(*prefix) {
            trace.note(&state, catalogs().count() as u64, &mut table);
            found.entry(trace.image(&state)).or_insert((state, 0)).1 += 1;
        }
        all.lock().unwrap().0.merge(&table);
        let mut images = images.lock().unwrap();
        for (image, (state, n)) in found {
            for catalog in catalogs() {
                let (most, n_states) = images.entry((image, catalog)).or_default();
                *n_states += n;
                if *n_states == n || most.prefix < state.prefix {
                    *most = State { catalog, ..state.clone() };
                }
            }
        }
    });
    let images: Vec<(State, u64)> = images.into_inner().unwrap().into_values().collect();
    let opened = AtomicUsize::new(0);
    on_all(&images, |(state, n)| {
        let nth = opened.fetch_add(1, Relaxed);
        if nth > 0 && nth.is_multiple_of(20_000) {
            println!("  {nth} of {} files and catalogs, {:.0} s", images.len(), started.elapsed().as_secs_f64());
        }
        let mut table = Table::default();
        table.note("files and catalog");
        table.add("states that were opened", *n);
        let why = trace.check(state, &mut table);
        let mut all = all.lock().unwrap();
        all.0.merge(&table);
        all.1.extend(why.map(|why| format!("{state:?}, and {} like it: {why}", n - 1)));
    });
    let (table, mut broken) = all.into_inner().unwrap();
    broken.sort();
    let appends = (0..trace.ops.len()).filter(|at| matches!(trace.ops[*at], Op::Append { .. }));
    let forgets = State { prefix: trace.ops.len(), lost: appends.skip(trace.ops.len() / 4).collect(), ..State::default() };
    let control = trace.check(&forgets, &mut Table::default());
    println!("{table}{} operations", trace.ops.len());
    broken.iter().take(20).for_each(|why| println!("{why}"));
    let line = serde_json::json!({
        "mode": "crash-states", "runs": table.get("states"), "reached": table.get("states that were opened"),
        "violations": broken.len(), "controls": { "forgets": control }, "seconds": started.elapsed().as_secs_f64(), "seed": 0,
    });
    println!("{line}");
    assert!(broken.is_empty(), "{} files and catalogs break a promise", broken.len());
    assert_eq!(table.get("states"), table.get("states that were opened"));
    for seen in ["lost: an append", "lost: a name", "torn: short", "torn: zeros", "an open segment is sealed", "catalog: gone"] {
        assert!(table.get(seen) > 0, "{seen}");
    }
    assert!(control.is_some_and(|why| why.contains("announced")), "a disk that forgets what was synced is seen");
}

#[test]
fn every_kind_of_cut_keeps_what_was_announced() {
    check(&[39, 27], 3);
}

#[test]
#[ignore = "scripts/simulate --only crash-states runs it"]
fn every_state_of_a_cut() {
    let step = std::env::var("CRASH_STEP").map_or(1, |text| text.parse().unwrap());
    check(&[72, 66, 72, 66], step);
}
