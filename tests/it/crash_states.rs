//! Every state that a power cut can leave of a recorded workload: what was announced is there, and nothing else.
//!
//! A recorder lives twice on a disk that writes down each operation. For every prefix of them a cut may have kept all that
//! was not synced, nothing of it, all but one operation (an append, a new name, a rename, a removal), or the last append
//! torn at 512 bytes or 4 KiB; a name is durable once its directory was synced, bytes once their file was. The catalog is
//! the one of the last commit, of an earlier one, or gone: SQLite may lose its newest transactions.
//!
//! Each state is opened, as the next start would. Every announced envelope must be there, byte for byte and in order,
//! nothing that was not sent, `verify` must find no fault, and opening once more must find nothing to mend.
//!
//! | broken on purpose | red |
//! | --- | --- |
//! | nothing of the unsynced is kept, and syncs do not count (the control of each run) | announced envelopes are gone |

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

use crate::made::{Made, directory, live_with, second, source};
use crate::simulate::table::Table;

/// The gate looks at every so-manieth state.
const GATE_STEP: usize = 37;

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
    /// Files of the catalog, by suffix, at each announcement.
    catalogs: Vec<Vec<(&'static str, Vec<u8>)>>,
    end: i64,
}

/// Two lives of a recorder; the first is killed in the middle, the second ends in good order.
fn record() -> Trace {
    let dir = directory();
    let recorder = Recorder::default();
    let name = source("alpha");
    let (mut sent, mut catalogs, mut now) = (Vec::new(), Vec::new(), 0);
    for n in [39, 27] {
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
        if n == 39 {
            drop(archive);
        } else {
            archive.stop_source(&name, second(now), "enough").unwrap();
            archive.close(second(now)).unwrap();
        }
    }
    let ops = std::mem::take(&mut recorder.log.lock().unwrap().ops);
    Trace { dir: dir.path().to_owned(), ops, sent, catalogs, end: now + 1_000 }
}

/// What a cut keeps of what was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Cut {
    All,
    Nothing,
    /// All but this operation.
    Without(usize),
    /// All, but the last append only up to a multiple of so many bytes.
    Torn(usize),
    /// Of the synced, too: no disk may do that.
    Forgets,
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

    fn cuts(&self, prefix: usize) -> Vec<Cut> {
        let pending = self.pending(prefix);
        if pending.is_empty() {
            return vec![Cut::All];
        }
        let without = pending.iter().map(|at| Cut::Without(*at));
        [Cut::All, Cut::Nothing, Cut::Torn(512), Cut::Torn(4_096)].into_iter().chain(without).collect()
    }

    /// The files that a cut behind a prefix leaves.
    fn files(&self, prefix: usize, cut: Cut) -> BTreeMap<PathBuf, Vec<u8>> {
        let pending = self.pending(prefix);
        let last_append = pending.iter().rev().find(|at| matches!(self.ops[**at], Op::Append { .. }));
        let (mut data, mut names): (BTreeMap<usize, Vec<u8>>, BTreeMap<PathBuf, usize>) = Default::default();
        for (at, op) in self.ops[..prefix].iter().enumerate() {
            let is_gone = match cut {
                Cut::All | Cut::Torn(_) => false,
                Cut::Nothing => pending.contains(&at),
                Cut::Without(gone) => gone == at,
                Cut::Forgets => matches!(op, Op::Append { .. }) && at * 2 > prefix,
            };
            if is_gone {
                continue;
            }
            match op {
                Op::Create { file, path } => drop(names.insert(path.clone(), *file)),
                Op::Append { file, offset, bytes } => {
                    let keep = match cut {
                        Cut::Torn(size) if last_append == Some(&at) => {
                            ((offset + bytes.len() - 1) / size * size).saturating_sub(*offset)
                        }
                        _ => bytes.len(),
                    };
                    let data = data.entry(*file).or_default();
                    // What came later may be there before it.
                    data.resize(data.len().max(offset + keep), 0);
                    data[*offset..offset + keep].copy_from_slice(&bytes[..keep]);
                }
                Op::Rename { file, from, to } => {
                    if names.get(from) == Some(file) {
                        names.remove(from);
                    }
                    names.insert(to.clone(), *file);
                }
                Op::Remove { path } => drop(names.remove(path)),
                Op::Sync { .. } | Op::SyncDir { .. } | Op::Announced { .. } => {}
            }
        }
        names.into_iter().map(|(path, file)| (path, data.get(&file).cloned().unwrap_or_default())).collect()
    }

    /// Opens what is left, and says what is wrong.
    fn check(&self, prefix: usize, cut: Cut, nth: usize, table: &mut Table) -> Option<String> {
        let (mut announced, mut catalogs) = (0, Vec::new());
        for op in &self.ops[..prefix] {
            if let Op::Announced { envelopes, catalog } = op {
                announced = *envelopes;
                catalogs.push(*catalog);
            }
        }
        let made = Made::new(options());
        for (path, data) in self.files(prefix, cut) {
            let path = made.dir.path().join(path.strip_prefix(&self.dir).unwrap());
            made.disk.create(&path).unwrap();
            made.disk.overwrite(&path, data);
        }
        let catalog = match nth % 3 {
            0 => catalogs.last(),
            1 => catalogs.iter().rev().nth(1),
            _ => None,
        };
        table.note(match (nth % 3, catalog) {
            (_, None) => "catalog: gone",
            (0, _) => "catalog: of the last commit",
            _ => "catalog: of an earlier commit",
        });
        for (suffix, data) in catalog.into_iter().flat_map(|at| &self.catalogs[*at]) {
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
            if recovery.sealed.iter().any(|sealed| sealed.torn_bytes > 0) {
                table.note("a torn tail");
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

fn check(step: usize) {
    let started = Instant::now();
    let trace = record();
    let states: Vec<(usize, Cut)> =
        (0..=trace.ops.len()).flat_map(|prefix| trace.cuts(prefix).into_iter().map(move |cut| (prefix, cut))).collect();
    let (next, all) = (AtomicUsize::new(0), Mutex::new((Table::default(), Vec::new())));
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let (mut table, mut broken) = (Table::default(), Vec::new());
                loop {
                    let nth = next.fetch_add(step, Relaxed);
                    let Some((prefix, cut)) = states.get(nth) else { break };
                    table.note("states");
                    table.note(match cut {
                        Cut::All => "cut: all is kept",
                        Cut::Nothing => "cut: nothing is kept",
                        Cut::Without(at) if trace.ops[*at].names().is_empty() => "cut: an append is missing",
                        Cut::Without(_) => "cut: a name is missing",
                        Cut::Torn(_) => "cut: torn",
                        Cut::Forgets => "cut: forgets",
                    });
                    // Each state with another catalog from round to round of a run.
                    let found = trace.check(*prefix, *cut, nth / step, &mut table);
                    broken.extend(found.map(|why| format!("state {nth}, {prefix} operations, {cut:?}: {why}")));
                }
                let mut all = all.lock().unwrap();
                all.0.merge(&table);
                all.1.extend(broken);
            });
        }
    });
    let (table, mut broken) = all.into_inner().unwrap();
    broken.sort();
    let control = trace.check(trace.ops.len(), Cut::Forgets, 2, &mut Table::default());
    println!("{table}{} operations, {} states", trace.ops.len(), states.len());
    broken.iter().take(20).for_each(|why| println!("{why}"));
    let line = serde_json::json!({
        "mode": "crash-states", "runs": table.get("states"), "reached": table.get("states"), "violations": broken.len(),
        "controls": { "Forgets": control }, "seconds": started.elapsed().as_secs_f64(), "seed": 0,
    });
    println!("{line}");
    assert!(broken.is_empty(), "{} states break a promise", broken.len());
    assert!(control.is_some_and(|why| why.contains("announced")), "a disk that forgets what was synced is seen");
}

#[test]
fn every_kind_of_cut_keeps_what_was_announced() {
    check(GATE_STEP);
}

#[test]
#[ignore = "scripts/simulate --only crash-states runs it"]
fn every_state_of_a_cut() {
    let number = |name: &str, default: usize| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    check(number("CRASH_STEP", 1));
}
