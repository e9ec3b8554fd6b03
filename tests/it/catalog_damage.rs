//! The catalog damaged in every way that a file can be: the next start makes it again, row by row what it was.
//!
//! A tape of two sources with a ledger of every kind, closed in good order or killed, has its catalog deleted, cut,
//! overwritten, exchanged, with and without the files that SQLite keeps beside it. Then it is read, which must not panic and
//! may be refused; opened for writing, which must not fail; and its rows are compared with those of a tape that lost its
//! whole catalog and was opened at the same instant. Recording goes on, and no record is lost.
//!
//! One kind cannot be noticed by opening: a page as it was somewhat earlier, in its place, as a disk leaves it that loses
//! a write. There `verify` must find it, and `rebuild` must bring the rows back.
//!
//! | what was once so | red |
//! | --- | --- |
//! | the catalog was not looked through when a tape was opened for writing | pages overwritten, zeroed, exchanged |
//! | a file that ends within its last page was taken for whole, as SQLite reads zeros there | cut by a few bytes |

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use birdtape::archive::{Options, Span, rebuild, verify};
use birdtape::catalog::Catalog;
use birdtape::model::{Body, ConnId, Draft, Provider, RecordKind, Via};
use birdtape::provider::{decode, decode_record, synthetic};

use crate::made::{Made, end, envelope, live, second, source};
use crate::simulate::dice::Dice;
use crate::simulate::table::Table;

/// Damages of the gate.
const GATE: u64 = 120;

/// When the damaged tape is opened.
const LATER: i64 = 50_000;

/// A write of one page that never came: the structure holds, and opening cannot tell.
const STALE: &str = "a page of an older copy";

const KINDS: [&str; 19] = [
    "deleted",
    "deleted, its log left",
    "log deleted",
    "shared memory deleted",
    "shared memory overwritten",
    "cut",
    "log cut",
    "log overwritten",
    "emptied",
    "rubbish in its place",
    "a directory in its place",
    "a directory in place of its log",
    "a page overwritten",
    "a page zeroed",
    "two pages exchanged",
    STALE,
    "an older copy",
    "an older copy, with the newer log",
    "another tape's",
];

fn options() -> Options {
    Options { block_bytes: 1_500, segment_bytes: 9_000, level: 3, seal_in_background: false, ..Options::default() }
}

/// A tape to be damaged, and what it must come to.
struct Target {
    made: Made,
    /// Files of the catalog as they are, and as they were somewhat earlier.
    files: BTreeMap<&'static str, Vec<u8>>,
    older: Vec<u8>,
    foreign: Vec<u8>,
    /// Rows of a tape that was opened at [`LATER`] without a catalog.
    rows: Vec<String>,
    records: [u64; 2],
}

const PARTS: [&str; 3] = ["", "-wal", "-shm"];

fn part(made: &Made, suffix: &str) -> PathBuf {
    let mut name = made.catalog().into_os_string();
    name.push(suffix);
    name.into()
}

fn files_of(made: &Made) -> BTreeMap<&'static str, Vec<u8>> {
    PARTS.into_iter().filter_map(|suffix| Some((suffix, std::fs::read(part(made, suffix)).ok()?))).collect()
}

impl Target {
    fn new(was_killed: bool) -> Self {
        let (alpha, beta) = (source("alpha"), source("beta"));
        let names = [&alpha, &beta];
        let mut made = Made::new(options());
        let words = |n: u64| format!("of {n}");
        let mut archive = made.open(0).unwrap();
        let mut now = live(&mut archive, &alpha, 120, 10, words).max(live(&mut archive, &beta, 80, 20, words));
        end(archive, &names, now + 1);
        let older = std::fs::read(made.catalog()).unwrap();
        let mut archive = made.open(now + 100).unwrap();
        now = live(&mut archive, &alpha, 90, now + 200, words).max(live(&mut archive, &beta, 140, now + 210, words));
        let mut files = files_of(&made);
        if was_killed {
            // What is on the disk while it is written to: the log is not folded back.
            let copy = Made::new(options());
            let disk = made.copy();
            drop(archive);
            files.iter().for_each(|(suffix, data)| std::fs::write(part(&copy, suffix), data).unwrap());
            for (path, data) in disk.disk.files() {
                let path = copy.dir.path().join(path.strip_prefix(disk.dir.path()).unwrap());
                birdtape::archive::Disk::create(&copy.disk, &path).unwrap();
                copy.disk.overwrite(&path, data);
            }
            made = copy;
        } else {
            end(archive, &names, now + 1);
            files = files_of(&made);
        }
        let other = Made::new(options());
        let mut archive = other.open(0).unwrap();
        let at = live(&mut archive, &alpha, 30, 10, words);
        end(archive, &[&alpha], at + 1);
        let foreign = std::fs::read(other.catalog()).unwrap();
        let reference = made.copy();
        PARTS.iter().for_each(|suffix| drop(std::fs::remove_file(part(&reference, suffix))));
        reference.open(LATER).unwrap().close(second(LATER + 1)).unwrap();
        let rows = reference.rows().unwrap();
        let again = reference.copy();
        rebuild(again.dir.path(), again.disk(), options(), decode_record, "test", second(LATER)).unwrap();
        assert_eq!(again.rows().unwrap(), rows, "a rebuild says the same");
        let tape = reference.tape().unwrap();
        let records = ["alpha", "beta"].map(|name| tape.source(name).unwrap().last_n);
        Self { made, files, older, foreign, rows, records }
    }

    /// Damages a copy; `None` when there is nothing to be damaged like that.
    fn damage(&self, kind: &str, dice: &mut Dice) -> Option<Made> {
        let copy = self.made.copy();
        let path = |suffix: &str| part(&copy, suffix);
        let main = &self.files[""];
        let log = self.files.get("-wal").filter(|log| !log.is_empty());
        let page = 4_096;
        let a_page = |dice: &mut Dice| dice.below(main.len() as u64 / page as u64) as usize * page;
        let put = |suffix: &str, data: &[u8]| std::fs::write(path(suffix), data).unwrap();
        let remove = |suffix: &str| drop(std::fs::remove_file(path(suffix)));
        match kind {
            "deleted" => PARTS.iter().for_each(|suffix| remove(suffix)),
            "deleted, its log left" => {
                log?;
                remove("");
            }
            "log deleted" => {
                log?;
                remove("-wal");
                if dice.chance(500) {
                    remove("-shm");
                }
            }
            "shared memory deleted" => {
                self.files.get("-shm")?;
                remove("-shm");
            }
            "shared memory overwritten" => {
                let mut data = self.files.get("-shm")?.clone();
                data.iter_mut().for_each(|byte| *byte = dice.roll() as u8);
                put("-shm", &data);
            }
            "cut" => {
                let within = if dice.chance(500) { main.len() as u64 } else { 64 };
                put("", &main[..main.len() - 1 - dice.below(within) as usize]);
            }
            "log cut" => put("-wal", &log?[..dice.below(log?.len() as u64) as usize]),
            "log overwritten" => {
                let mut data = log?.clone();
                let at = dice.below(data.len() as u64) as usize;
                let upto = (at + page).min(data.len());
                data[at..upto].iter_mut().for_each(|byte| *byte = dice.roll() as u8);
                put("-wal", &data);
            }
            "emptied" => put("", &[]),
            "rubbish in its place" => {
                let data: Vec<u8> = (0..dice.between(1, 20_000)).map(|_| dice.roll() as u8).collect();
                put("", &data);
            }
            "a directory in its place" => {
                remove("");
                std::fs::create_dir(path("")).unwrap();
                std::fs::write(path("").join("somebody's"), "file").unwrap();
            }
            "a directory in place of its log" => {
                remove("-wal");
                std::fs::create_dir(path("-wal")).unwrap();
            }
            "a page overwritten" | "a page zeroed" | STALE => {
                let mut data = main.clone();
                let at = a_page(dice);
                match kind {
                    "a page zeroed" => data[at..at + page].fill(0),
                    "a page overwritten" => data[at..at + page].iter_mut().for_each(|byte| *byte = dice.roll() as u8),
                    _ => data[at..at + page].copy_from_slice(self.older.get(at..at + page)?),
                }
                (data != *main).then(|| put("", &data))?;
            }
            "two pages exchanged" => {
                let mut data = main.clone();
                let (a, b) = (a_page(dice), a_page(dice));
                data[a..a + page].copy_from_slice(&main[b..b + page]);
                data[b..b + page].copy_from_slice(&main[a..a + page]);
                (data != *main).then(|| put("", &data))?;
            }
            "an older copy" => {
                ["-wal", "-shm"].iter().for_each(|suffix| remove(suffix));
                put("", &self.older);
            }
            "an older copy, with the newer log" => {
                log?;
                put("", &self.older);
            }
            _ => {
                put("", &self.foreign);
                if dice.chance(500) {
                    ["-wal", "-shm"].iter().for_each(|suffix| remove(suffix));
                }
            }
        }
        Some(copy)
    }

    /// Reads, opens, compares, goes on; in words what is wrong.
    fn check(&self, kind: &str, made: &Made, table: &mut Table) -> Option<String> {
        let read = || made.tape().and_then(|tape| Ok(tape.sources()?.len()));
        match catch_unwind(AssertUnwindSafe(read)) {
            Ok(Ok(_)) => table.note("read"),
            Ok(Err(_)) => table.note("not read"),
            Err(_) => return Some("reading panics".to_owned()),
        }
        let opened = catch_unwind(AssertUnwindSafe(|| made.open(LATER)));
        let archive = match opened {
            Ok(Ok(archive)) => archive,
            Ok(Err(error)) => return Some(format!("it cannot be opened: {error:?}")),
            Err(_) => return Some("opening panics".to_owned()),
        };
        table.note(if archive.recovery().rebuilt.is_some() { "made again" } else { "kept" });
        if let Err(error) = archive.close(second(LATER + 1)) {
            return Some(format!("it cannot be closed: {error:?}"));
        }
        let rows = match made.rows() {
            Ok(rows) => rows,
            Err(error) => return Some(format!("its rows cannot be read: {error:?}")),
        };
        if rows != self.rows && kind == STALE {
            // Each page is one of this catalog, in its place: only the segments know better.
            table.note("kept, and verify finds it");
            let report = verify(made.dir.path(), &made.disk, decode_record, |_| {}).unwrap();
            if report.is_whole() {
                return Some("verify finds nothing".to_owned());
            }
            rebuild(made.dir.path(), made.disk(), options(), decode_record, "test", second(LATER)).unwrap();
        } else if rows != self.rows {
            let missing = self.rows.iter().find(|row| rows.binary_search(row).is_err());
            let extra = rows.iter().find(|row| self.rows.binary_search(row).is_err());
            let short = |row: Option<&String>| row.map(|row| row.chars().take(160).collect::<String>());
            return Some(format!("rows differ: missing {:?}, too many {:?}", short(missing), short(extra)));
        }
        if made.rows().ok().as_ref() != Some(&self.rows) {
            return Some("a rebuild does not bring it back".to_owned());
        }
        let tape = match made.tape() {
            Ok(tape) => tape,
            Err(error) => return Some(format!("it cannot be read: {error:?}")),
        };
        for (name, last) in ["alpha", "beta"].into_iter().zip(self.records) {
            let mut records = tape.records(name, Span::default()).unwrap();
            let mut n = 0;
            while let Some(record) = records.next().unwrap() {
                n += u64::from(record.n.0 == n + 1);
            }
            if n != last {
                return Some(format!("{name} has {n} records of {last}"));
            }
        }
        drop(tape);
        // Recording goes on.
        let mut archive = made.open(LATER + 10).unwrap();
        let bytes = envelope(1, second(LATER + 11), "more");
        let decoded = decode(Provider::TwitterapiIo, &bytes);
        let draft = Draft {
            received_at: second(LATER + 11),
            kind: RecordKind::Frame,
            via: Via::Ws,
            conn: ConnId(1),
            info: None,
            body: Body::Bytes(bytes),
        };
        archive.append(&source("alpha"), &draft, Some(&decoded)).unwrap();
        archive.close(second(LATER + 12)).unwrap();
        let report = verify(made.dir.path(), &made.disk, decode_record, |_| {}).unwrap();
        (!report.is_whole()).then(|| format!("verify finds {:?}", report.damage.first()))
    }
}

fn run(n: u64) -> (Table, Vec<String>) {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let (next, all) = (AtomicU64::new(0), Mutex::new((Table::default(), Vec::new())));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let targets = [Target::new(false), Target::new(true)];
                let (mut table, mut broken) = (Table::default(), Vec::new());
                loop {
                    let seed = next.fetch_add(1, Relaxed);
                    if seed >= n {
                        break;
                    }
                    let mut dice = Dice::new(seed, 41);
                    let kind = KINDS[seed as usize % KINDS.len()];
                    // What has no log cannot lose it, and a page that is exchanged for itself is not damaged.
                    let first = dice.below(2) as usize;
                    let damaged = (first..first + 100).find_map(|at| Some((at % 2, targets[at % 2].damage(kind, &mut dice)?)));
                    let Some((at, made)) = damaged else { continue };
                    table.note(kind);
                    table.note(if at == 1 { "after a kill" } else { "closed in good order" });
                    broken.extend(
                        targets[at].check(kind, &made, &mut table).map(|why| format!("seed {seed}, {kind}, target {at}: {why}")),
                    );
                }
                let mut all = all.lock().unwrap();
                all.0.merge(&table);
                all.1.extend(broken);
            });
        }
    });
    let (table, mut broken) = all.into_inner().unwrap();
    broken.sort();
    (table, broken)
}

/// A catalog that does not come back to what was promised must be noticed.
fn control() -> u64 {
    let mut target = Target::new(false);
    target.rows[0].push('x');
    let made = target.damage("deleted", &mut Dice::new(0, 41)).unwrap();
    let found = target.check("deleted", &made, &mut Table::default());
    assert!(found.as_ref().is_some_and(|why| why.contains("rows differ")), "{found:?}");
    1
}

fn check(n: u64) {
    let started = Instant::now();
    let (table, broken) = run(n);
    println!("{table}");
    broken.iter().take(30).for_each(|why| println!("{why}"));
    let line = serde_json::json!({
        "mode": "catalog", "runs": n, "reached": KINDS.iter().map(|kind| table.get(kind)).sum::<u64>(), "violations": broken.len(),
        "controls": control(), "seconds": started.elapsed().as_secs_f64(), "seed": 0,
    });
    println!("{line}");
    assert!(broken.is_empty(), "{} of {n} damaged catalogs do not come back", broken.len());
    for kind in KINDS {
        assert!(table.get(kind) > 0, "this never happened: {kind}");
    }
}

#[test]
fn a_damaged_catalog_comes_back_row_by_row() {
    check(GATE);
}

#[test]
#[ignore = "scripts/catalog-damage runs it"]
fn many_damaged_catalogs() {
    let number = |name: &str, default: u64| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    check(number("CATALOG_DAMAGES", 10_000));
}

/// Envelopes of four providers, so many megabytes; the catalog is made again, and it says how fast.
#[test]
#[ignore = "scripts/catalog-damage runs it"]
fn how_fast_a_catalog_is_made_again() {
    let megabytes = std::env::var("CATALOG_MEGABYTES").map_or(512, |text| text.parse::<u64>().unwrap());
    let dir = tempfile::tempdir_in(Path::new(env!("CARGO_TARGET_TMPDIR"))).unwrap();
    let disk = std::sync::Arc::new(birdtape::archive::RealDisk);
    let open = || {
        let disk = std::sync::Arc::clone(&disk);
        birdtape::archive::Archive::open(dir.path(), disk, Options::default(), decode_record, "test", second(0)).unwrap()
    };
    let mut archive = open();
    let (mut bytes, mut n) = (0, 0u64);
    let mut last = second(0);
    for envelope in synthetic::World::new(synthetic::Options { rate: 2_000.0, ..synthetic::Options::default() }) {
        if bytes >= megabytes << 20 {
            break;
        }
        let name = source(envelope.provider.name());
        archive.add_source(&name, envelope.provider).unwrap();
        bytes += envelope.bytes.len() as u64;
        n += 1;
        last = envelope.at;
        let decoded = decode(envelope.provider, &envelope.bytes);
        let draft = Draft {
            received_at: envelope.at,
            kind: RecordKind::Frame,
            via: Via::Ws,
            conn: ConnId(1),
            info: None,
            body: Body::Bytes(envelope.bytes),
        };
        archive.append(&name, &draft, Some(&decoded)).unwrap();
        if n % 2_000 == 0 {
            archive.commit(envelope.at).unwrap();
        }
    }
    archive.close(last).unwrap();
    let rows = || Catalog::open_read_only(&dir.path().join("catalog.sqlite")).unwrap().dump(|_, _, _| true).unwrap();
    let before = rows();
    let catalog = std::fs::metadata(dir.path().join("catalog.sqlite")).unwrap().len();
    let started = Instant::now();
    rebuild(dir.path(), std::sync::Arc::clone(&disk) as _, Options::default(), decode_record, "test", last).unwrap();
    let rebuilt = started.elapsed().as_secs_f64();
    assert_eq!(rows(), before);
    let started = Instant::now();
    drop(open());
    let opened = started.elapsed().as_secs_f64();
    let rate = bytes as f64 / 1e6 / rebuilt;
    println!(
        "{}",
        serde_json::json!({
            "mode": "rebuild", "envelopes": n, "megabytes": bytes / 1_000_000, "seconds": rebuilt, "megabytes_per_second": rate,
            "catalog_bytes": catalog, "opened_in_seconds": opened,
        })
    );
}
