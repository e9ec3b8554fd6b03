//! The durable order: stop at each named point, reopen, compare with a plain model.

mod rescue;
mod sealing;
mod upkeep;
mod verifying;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::catalog::{Catalog, SegmentRow};
use crate::model::{Body, Cause, ConnId, Draft, GapState, Provider, RecordKind, Seq, SourceName, UnixMicros, Via};
use crate::provider::{decode, decode_record};
use crate::segment::{self, Disk, MemDisk, RealDisk, Unsynced};

const START: i64 = 1_767_614_400_000_000;
const HORIZON: Duration = Duration::from_secs(60);

fn at(seconds: i64) -> UnixMicros {
    UnixMicros(START + seconds * 1_000_000)
}

fn options() -> Options {
    Options { commit_every: Duration::ZERO, block_bytes: 2_048, segment_bytes: 12_000, level: 3, seal_in_background: false }
}

fn alpha() -> SourceName {
    SourceName::new("alpha").unwrap()
}

fn beta() -> SourceName {
    SourceName::new("beta").unwrap()
}

fn envelope(n: u64) -> Bytes {
    let id = (at(n as i64).millis() as u64 - 1_288_834_974_657) << 22 | n;
    Bytes::from(format!(
        r#"{{"event_type":"tweet","rule_id":"r{}","tweets":[{{"id":"{id}","text":"the {n}th, with some words to fill it"}}],"timestamp":{}}}"#,
        n % 3,
        at(n as i64).millis()
    ))
}

fn frame(n: u64, second: i64) -> Draft {
    Draft {
        received_at: at(second),
        kind: RecordKind::Frame,
        via: Via::Ws,
        conn: ConnId(1),
        info: None,
        body: Body::Bytes(envelope(n)),
    }
}

/// What an error says of itself decides who waits, who rebuilds and who gives up; and what the person reads.
#[test]
fn each_error_is_of_its_kind_and_names_a_cure() {
    use std::io::Error;
    let path = || PathBuf::from("tape");
    let io = |number: i32| ArchiveError::Io { what: "cannot write", path: path(), source: Error::from_raw_os_error(number) };
    let of_segment =
        |number: i32| ArchiveError::Segment(SegmentError::io("cannot write", &path(), Error::from_raw_os_error(number)));
    let damaged = || SegmentError::Damaged { path: path(), offset: 1, why: "checksum".to_owned() };
    let newer = || CatalogError::Newer { path: path(), found: 9, known: 1 };
    let (full, refused) = (13, 10);
    // Full, out of files, of one file, asked wrongly; the cure.
    for (error, wanted, cure) in [
        (io(28), (true, false, false, false), Some("free some space")),
        (io(122), (true, false, false, false), Some("free some space")),
        (io(5), (false, false, true, false), None),
        (io(13), (false, false, false, false), Some("writable")),
        (io(30), (false, false, false, false), Some("writable")),
        (io(23), (false, true, false, false), None),
        (io(24), (false, true, false, false), None),
        (of_segment(28), (true, false, false, false), Some("free some space")),
        (of_segment(24), (false, true, false, false), None),
        (of_segment(5), (false, false, true, false), None),
        (CatalogError::of_code(full).into(), (true, false, false, false), Some("free some space")),
        (CatalogError::of_code(refused).into(), (false, false, true, false), None),
        (CatalogError::Migration { path: path(), number: 1 }.into(), (false, false, true, false), None),
        (newer().into(), (false, false, false, false), Some("newer birdtape")),
        (
            ArchiveError::NoCatalog { path: path(), source: CatalogError::of_code(full) },
            (true, false, false, false),
            Some("rebuild"),
        ),
        (ArchiveError::NoCatalog { path: path(), source: newer() }, (false, false, false, false), Some("rebuild")),
        (damaged().into(), (false, false, false, false), Some("recover")),
        (SegmentError::NewerFormat { path: path(), found: 9 }.into(), (false, false, false, false), Some("newer birdtape")),
        (ArchiveError::NewerFormat { path: path(), found: 9, known: 1 }, (false, false, false, false), Some("newer birdtape")),
        (ArchiveError::NotATape { path: path(), why: "empty".to_owned() }, (false, false, false, false), Some("--tape")),
        (ArchiveError::Locked { path: path(), holder: "pid 1".to_owned() }, (false, false, false, false), Some("wait")),
        (
            ArchiveError::OtherProvider { name: "a".to_owned(), found: "b".to_owned(), wanted: "c".to_owned() },
            (false, false, false, false),
            Some("another tape"),
        ),
        (ArchiveError::UnknownSource { name: "a".to_owned(), known: String::new() }, (false, false, false, true), None),
        (ArchiveError::Poisoned, (false, false, false, false), None),
    ] {
        let kinds = (error.is_full(), error.is_out_of_files(), error.is_of_one_file(), error.is_usage());
        assert_eq!(kinds, wanted, "{error:?}");
        let hint = error.hint();
        assert_eq!(hint.is_some(), cure.is_some(), "{error:?}: {hint:?}");
        assert!(hint.unwrap_or_default().contains(cure.unwrap_or_default()), "{error:?}: {hint:?}");
    }
    // SQLite says only that it cannot open a file: whether that passes, the directory tells.
    let disk = RealDisk;
    let dir = tempfile::tempdir().unwrap();
    assert!(io(24).is_passing(&disk, dir.path()) && io(28).is_passing(&disk, dir.path()));
    assert!(!io(5).is_passing(&disk, dir.path()) && !ArchiveError::from(CatalogError::of_code(14)).is_passing(&disk, dir.path()));
}

fn boot() -> (String, Duration) {
    ("boot".to_owned(), Duration::from_secs(5))
}

/// A tape whose segments live on a disk that forgets; the catalog is a real file, as SQLite wants it.
struct Bench {
    dir: tempfile::TempDir,
    disk: MemDisk,
    /// Bytes of the frames that were announced, by source.
    announced: BTreeMap<SourceName, Vec<Bytes>>,
    sent: BTreeMap<SourceName, Vec<Bytes>>,
    runs: i64,
}

impl Bench {
    fn new() -> Self {
        let (dir, disk) = (tempfile::tempdir().unwrap(), MemDisk::default());
        Self { dir, disk, announced: BTreeMap::new(), sent: BTreeMap::new(), runs: 0 }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    fn open(&self) -> Result<Archive> {
        Archive::open(self.dir.path(), Arc::new(self.disk.clone()), options(), decode_record, "test", at(self.runs * 10_000))
    }

    /// One life of a recorder: two sources, a drop, rotation, an end. Stops wherever the disk stops it.
    fn live(&mut self) -> Result<()> {
        self.runs += 1;
        let base = self.runs * 10_000;
        let mut archive = self.open()?;
        let names = [alpha(), beta()];
        for name in &names {
            archive.add_source(name, Provider::TwitterapiIo)?;
            archive.start_source(name, HORIZON, boot(), at(base))?;
            self.connect(&mut archive, name, base + 1)?;
        }
        let mut step = 0;
        for round in 0..30 {
            for name in &names {
                for _ in 0..3 {
                    step += 1;
                    let n_sent = self.sent.entry(name.clone()).or_default().len() as u64;
                    let conn = ConnId(archive.next_conn(name).0 - 1);
                    let body = Draft { conn, ..frame(n_sent, base + 2 + step) };
                    let Body::Bytes(bytes) = &body.body else { unreachable!() };
                    archive.append(name, &body, Some(&decode(Provider::TwitterapiIo, bytes)))?;
                    self.sent.get_mut(name).unwrap().push(bytes.clone());
                }
            }
            if round == 14 {
                let closed = Closed { code: Some(1006), by: "network".into(), ..Closed::default() };
                let conn = archive.next_conn(&alpha()).0 - 1;
                archive.close_connection(&alpha(), ConnId(conn), at(base + 3 + step), &closed)?;
                archive.lost(
                    &alpha(),
                    at(base + 3 + step),
                    Lost { scope: ALL, cause: Cause::ConnectionLost, detail: "reset" },
                )?;
                self.connect(&mut archive, &alpha(), base + 50 + step)?;
                step += 60;
            }
            self.commit(&mut archive, at(base + 4 + step))?;
        }
        for name in &names {
            let conn = archive.next_conn(name).0 - 1;
            archive.close_connection(name, ConnId(conn), at(base + 500), &Closed::default())?;
            archive.stop_source(name, at(base + 500), "the test is over")?;
        }
        self.commit(&mut archive, at(base + 501))?;
        archive.close(at(base + 502))?;
        Ok(())
    }

    fn connect(&self, archive: &mut Archive, name: &SourceName, second: i64) -> Result<()> {
        let conn = archive.next_conn(name);
        let opened = fact::to_json(&Opened { url: "ws://x/".into(), ..Opened::default() });
        archive
            .open_connection(name, &Draft { kind: RecordKind::Open, via: Via::Ws, ..Draft::note(at(second), conn, opened) })?;
        archive.live(name, ALL, HORIZON, at(second), "opened")
    }

    fn commit(&mut self, archive: &mut Archive, now: UnixMicros) -> Result<()> {
        archive.commit(now)?;
        self.announced = self.sent.clone();
        Ok(())
    }

    fn tape(&self) -> Tape {
        Tape::open(self.dir.path(), Arc::new(self.disk.clone())).unwrap()
    }

    /// The same tape once more, as somebody would have copied its directory.
    fn copy(&self) -> Self {
        let copy = Self::new();
        for (path, data) in self.disk.files() {
            let path = copy.dir.path().join(path.strip_prefix(self.dir.path()).unwrap());
            copy.disk.create(&path).unwrap();
            copy.disk.overwrite(&path, data);
        }
        std::fs::copy(self.dir.path().join("catalog.sqlite"), copy.dir.path().join("catalog.sqlite")).unwrap();
        copy
    }

    fn frames(&self, name: &SourceName) -> Vec<Bytes> {
        frames(&self.tape(), name)
    }

    /// What must hold after any crash, once the tape was opened again.
    fn check(&mut self, what: &str) {
        for (name, announced) in &self.announced {
            let kept = self.frames(name);
            assert!(kept.len() >= announced.len(), "{what}: {name} kept {} of {} announced", kept.len(), announced.len());
            assert_eq!(kept[..], self.sent[name][..kept.len()], "{what}: a prefix of what was sent, byte for byte");
        }
        let report = verify(self.dir.path(), &self.disk, decode_record, |_| {}).unwrap();
        assert!(report.is_whole(), "{what}: {report:?}");
        assert!(matches!(report.catalog, CatalogCheck::Equal(_)), "{what}: {:?}", report.catalog);
        // What was not announced may be gone; from here on the tape's content counts.
        let kept: BTreeMap<_, _> = self.sent.keys().map(|name| (name.clone(), self.frames(name))).collect();
        (self.sent, self.announced) = (kept.clone(), kept);
    }
}

fn frames(tape: &Tape, name: &SourceName) -> Vec<Bytes> {
    if tape.source(name.as_str()).is_err() {
        return Vec::new();
    }
    let mut records = tape.records(name.as_str(), Span::default()).unwrap();
    let mut found = Vec::new();
    while let Some(record) = records.next().unwrap() {
        if record.kind == RecordKind::Frame {
            found.push(record.body);
        }
    }
    assert_eq!(records.damage(), [""; 0]);
    found
}

fn rows(bench: &Bench, name: &SourceName) -> Vec<SegmentRow> {
    bench.tape().catalog().segments(name.as_str()).unwrap()
}

fn path_of(bench: &Bench, row: &SegmentRow) -> PathBuf {
    Layout::new(bench.path()).sealed(&row.source, &row.day, Seq(row.first_n))
}

fn data_of(disk: &MemDisk, path: &Path) -> Vec<u8> {
    disk.files().into_iter().find(|(there, _)| there == path).unwrap().1
}

fn dump(path: &Path) -> Vec<String> {
    Catalog::open_read_only(&path.join("catalog.sqlite")).unwrap().dump(|_, _, _| true).unwrap()
}

#[test]
fn a_whole_life_verifies_and_rebuilds_equal() {
    let mut bench = Bench::new();
    bench.live().unwrap();
    bench.live().unwrap();
    bench.check("two lives");
    assert_eq!(bench.sent[&alpha()].len(), 180);
    let before = dump(&bench.path());
    assert!(before.iter().any(|row| row.starts_with("gap:") && row.contains("stopped")), "{before:#?}");
    assert!(before.iter().filter(|row| row.starts_with("segment:")).count() > 4, "rotation happened");
    let options = options();
    rebuild(&bench.path(), Arc::new(bench.disk.clone()), options, decode_record, "test", at(0)).unwrap();
    assert_eq!(before, dump(&bench.path()));
}

#[test]
fn what_verifying_tells_adds_up() {
    let mut bench = Bench::new();
    bench.live().unwrap();
    let mut told = Vec::new();
    let report = verify(&bench.path(), &bench.disk, decode_record, |bytes| told.push(bytes)).unwrap();
    let files: Vec<_> =
        bench.disk.files().into_iter().filter(|(path, _)| path.to_string_lossy().contains("/segments/")).collect();
    let all: u64 = files.iter().map(|(_, data)| data.len() as u64).sum();
    assert_eq!((told.len(), told.is_sorted(), told.last()), (files.len(), true, Some(&all)), "{told:?}");
    let tape = bench.tape();
    for (source, name) in report.sources.iter().zip([alpha(), beta()]) {
        let of_it: Vec<_> = files.iter().filter(|(path, _)| path.to_string_lossy().contains(name.as_str())).collect();
        let catalog = Catalog::open_read_only(&bench.path().join("catalog.sqlite")).unwrap();
        let segments = catalog.segments(name.as_str()).unwrap();
        let raw_bytes = segments.iter().map(|segment| segment.raw_bytes).sum::<u64>();
        let mut records = tape.records(name.as_str(), Span::default()).unwrap();
        let mut n_records = 0;
        while records.next().unwrap().is_some() {
            n_records += 1;
        }
        let wanted = SourceReport {
            name: name.to_string(),
            provider: "twitterapi_io".to_owned(),
            segments: of_it.len() as u64,
            open_segments: of_it.iter().filter(|(path, _)| path.to_string_lossy().ends_with(".open")).count() as u64,
            records: n_records,
            envelopes: 90,
            bytes: of_it.iter().map(|(_, data)| data.len() as u64).sum(),
            raw_bytes,
            last_n: n_records,
            pruned: None,
        };
        assert_eq!(*source, wanted);
    }
}

/// What the catalog says of two lives, word for word: a rebuild that goes wrong as the first time did would be equal.
#[test]
fn the_catalog_of_two_lives_is_as_it_was_written_down() {
    let mut bench = Bench::new();
    bench.live().unwrap();
    bench.live().unwrap();
    // The sizes of segments and blocks hang on the tape's id, which is drawn.
    let is_told = |row: &String| !["meta: ", "segment: ", "block: "].iter().any(|table| row.starts_with(table));
    let told: Vec<_> = dump(&bench.path()).into_iter().filter(is_told).collect();
    expect_test::expect![[r#"
        connection: source=alpha conn=1 opened_us=1767624401000000 opened_n=2 url=ws://x/ subprotocol=NULL frames=45 evidence_us=1767624489000000 closed_us=1767624493000000 closed_n=49 code=1006 reason= closed_by=network
        connection: source=alpha conn=2 opened_us=1767624540000000 opened_n=51 url=ws://x/ subprotocol=NULL frames=45 evidence_us=1767624639000000 closed_us=1767624900000000 closed_n=98 code=NULL reason= closed_by=
        connection: source=alpha conn=3 opened_us=1767634401000000 opened_n=102 url=ws://x/ subprotocol=NULL frames=45 evidence_us=1767634489000000 closed_us=1767634493000000 closed_n=149 code=1006 reason= closed_by=network
        connection: source=alpha conn=4 opened_us=1767634540000000 opened_n=151 url=ws://x/ subprotocol=NULL frames=45 evidence_us=1767634639000000 closed_us=1767634900000000 closed_n=198 code=NULL reason= closed_by=
        connection: source=beta conn=1 opened_us=1767624401000000 opened_n=2 url=ws://x/ subprotocol=NULL frames=90 evidence_us=1767624642000000 closed_us=1767624900000000 closed_n=94 code=NULL reason= closed_by=
        connection: source=beta conn=2 opened_us=1767634401000000 opened_n=98 url=ws://x/ subprotocol=NULL frames=90 evidence_us=1767634642000000 closed_us=1767634900000000 closed_n=190 code=NULL reason= closed_by=
        coverage: source=alpha scope=* class=live from_us=1767624401000000 to_us=1767624429000000
        coverage: source=beta scope=* class=live from_us=1767624401000000 to_us=1767624582000000
        coverage: source=beta scope=* class=live from_us=1767634461000000 to_us=1767634582000000
        gap: source=alpha n=100 scope=* cause=stopped state=open from_us=1767624429000000 to_us=1767634461000000 opened_us=1767634400000000 detail=the recorder was stopped lost_first_n=NULL lost_last_n=NULL
        gap: source=alpha n=150 scope=* cause=connection_lost state=open from_us=1767624429000000 to_us=1767634600000000 opened_us=1767634493000000 detail=reset lost_first_n=NULL lost_last_n=NULL
        gap: source=alpha n=50 scope=* cause=connection_lost state=open from_us=1767624429000000 to_us=1767624600000000 opened_us=1767624493000000 detail=reset lost_first_n=NULL lost_last_n=NULL
        gap: source=beta n=96 scope=* cause=stopped state=open from_us=1767624582000000 to_us=1767634461000000 opened_us=1767634400000000 detail=the recorder was stopped lost_first_n=NULL lost_last_n=NULL
        gap_step: source=alpha n=100 gap_n=100 at_us=1767634400000000 state=open cause=stopped to_us=NULL detail=the recorder was stopped cursor=NULL requests=0 rows=0 micro_usd=0
        gap_step: source=alpha n=103 gap_n=100 at_us=1767634401000000 state=open cause=stopped to_us=1767634461000000 detail=opened cursor=NULL requests=0 rows=0 micro_usd=0
        gap_step: source=alpha n=150 gap_n=150 at_us=1767634493000000 state=open cause=connection_lost to_us=NULL detail=reset cursor=NULL requests=0 rows=0 micro_usd=0
        gap_step: source=alpha n=152 gap_n=150 at_us=1767634540000000 state=open cause=connection_lost to_us=1767634600000000 detail=opened cursor=NULL requests=0 rows=0 micro_usd=0
        gap_step: source=alpha n=50 gap_n=50 at_us=1767624493000000 state=open cause=connection_lost to_us=NULL detail=reset cursor=NULL requests=0 rows=0 micro_usd=0
        gap_step: source=alpha n=52 gap_n=50 at_us=1767624540000000 state=open cause=connection_lost to_us=1767624600000000 detail=opened cursor=NULL requests=0 rows=0 micro_usd=0
        gap_step: source=beta n=96 gap_n=96 at_us=1767634400000000 state=open cause=stopped to_us=NULL detail=the recorder was stopped cursor=NULL requests=0 rows=0 micro_usd=0
        gap_step: source=beta n=99 gap_n=96 at_us=1767634401000000 state=open cause=stopped to_us=1767634461000000 detail=opened cursor=NULL requests=0 rows=0 micro_usd=0
        last_seen: source=alpha scope=r0 kind=tweet id=2008147201225654449 published_us=1767614577000000 received_us=1767634637000000 n=195 events=60
        last_seen: source=alpha scope=r1 kind=tweet id=2008147205419958450 published_us=1767614578000000 received_us=1767634638000000 n=196 events=60
        last_seen: source=alpha scope=r2 kind=tweet id=2008147209614262451 published_us=1767614579000000 received_us=1767634639000000 n=197 events=60
        last_seen: source=beta scope=r0 kind=tweet id=2008147201225654449 published_us=1767614577000000 received_us=1767634640000000 n=187 events=60
        last_seen: source=beta scope=r1 kind=tweet id=2008147205419958450 published_us=1767614578000000 received_us=1767634641000000 n=188 events=60
        last_seen: source=beta scope=r2 kind=tweet id=2008147209614262451 published_us=1767614579000000 received_us=1767634642000000 n=189 events=60
        scope: source=alpha scope=* version=1 since_us=1767624401000000 until_us=NULL horizon_us=60000000 detail=everything the provider delivers on this source text=NULL n=3
        scope: source=beta scope=* version=1 since_us=1767624401000000 until_us=NULL horizon_us=60000000 detail=everything the provider delivers on this source text=NULL n=3
        source: name=alpha provider=twitterapi_io last_n=199 last_us=1767634900000000 running=0 listed_us=NULL
        source: name=beta provider=twitterapi_io last_n=191 last_us=1767634900000000 running=0 listed_us=NULL"#]].assert_eq(&told.join("\n"));
}

/// Ends the world at every named point of a life, in each way a disk can forget, and sometimes again while recovering.
#[test]
fn a_crash_at_any_named_point_loses_nothing_announced() {
    let mut probe = Bench::new();
    probe.live().unwrap();
    let points = probe.disk.points();
    let mut reached = 0;
    for (point, name) in points.iter().enumerate() {
        // Most points are the same commit again: take every one of the first rounds, then a sample.
        if point > 60 && point % 7 != 0 {
            continue;
        }
        for unsynced in [Unsynced::Lost, Unsynced::Kept, Unsynced::Torn, Unsynced::Removed] {
            let mut bench = Bench::new();
            bench.disk.crash_at(point);
            let ended = bench.live();
            assert!(ended.is_err() && bench.disk.is_down(), "point {point} was reached");
            reached += 1;
            bench.disk.restart(unsynced);
            // A crash is no damage; before tape.json is durable there is no tape to look at.
            if let Ok(report) = verify(&bench.path(), &bench.disk, decode_record, |_| {}) {
                assert!(report.is_whole(), "{name} ({unsynced:?}), before anybody mended it: {report:?}");
            }
            // Recovery may be killed too; it is simply done again.
            bench.disk.crash_at(point % 5);
            drop(bench.open());
            bench.disk.restart(unsynced);
            let what = format!("{name} ({unsynced:?})");
            let archive = bench.open().unwrap_or_else(|e| panic!("{what}: {e}"));
            archive.close(at(20_000)).unwrap();
            bench.check(&what);
            bench.live().unwrap_or_else(|e| panic!("{what}: recording goes on: {e}"));
            bench.check(&what);
            let gaps = bench.tape().catalog().gaps(Some("alpha")).unwrap();
            if bench.announced[&alpha()].len() > 90 {
                assert!(
                    gaps.iter().any(|g| g.cause == "killed" || g.cause == "stopped"),
                    "{what}: the crash is in the ledger: {gaps:?}"
                );
            }
        }
    }
    assert!(reached > 150, "{reached}");
}

/// Fails every writing operation in turn, with "disk full" and with an I/O error that stays.
#[test]
fn a_failed_write_stops_the_tape_and_loses_nothing_announced() {
    let mut probe = Bench::new();
    probe.live().unwrap();
    let ops = probe.disk.ops();
    for op in (1..ops).filter(|op| *op < 80 || op % 13 == 0) {
        for (kind, stays) in [(std::io::ErrorKind::StorageFull, true), (std::io::ErrorKind::Other, false)] {
            let mut bench = Bench::new();
            bench.disk.fail_at(op, kind, stays);
            // The reserve and the farewell are best effort: a fault there ends nothing.
            let ended = bench.live();
            bench.disk.restart(Unsynced::Lost);
            let what = format!("operation {op} of {ops}, {kind:?}, {ended:?}");
            bench.open().unwrap_or_else(|e| panic!("{what}: {e}")).close(at(20_000)).unwrap();
            bench.check(&what);
        }
    }
}

#[test]
fn after_a_failed_write_the_archive_refuses() {
    let bench = Bench::new();
    let mut archive = bench.open().unwrap();
    archive.add_source(&alpha(), Provider::TwitterapiIo).unwrap();
    archive.append(&alpha(), &frame(1, 1), None).unwrap();
    bench.disk.fail_at(1, std::io::ErrorKind::StorageFull, true);
    let error = archive.commit(at(1)).unwrap_err();
    assert_eq!(error.io_kind(), Some(std::io::ErrorKind::StorageFull));
    assert!(error.hint().unwrap().contains("free some space"));
    bench.disk.heal();
    assert!(matches!(archive.append(&alpha(), &frame(2, 2), None), Err(ArchiveError::Poisoned)));
    assert!(matches!(archive.commit(at(2)), Err(ArchiveError::Poisoned)));
}

#[test]
fn after_a_full_disk_the_archive_is_opened_anew() {
    let bench = Bench::new();
    let mut archive = bench.open().unwrap();
    let append = |archive: &mut Archive, n: u64| {
        let decoded = decode(Provider::TwitterapiIo, &envelope(n));
        archive.append(&alpha(), &frame(n, n as i64), Some(&decoded))
    };
    archive.add_source(&alpha(), Provider::TwitterapiIo).unwrap();
    append(&mut archive, 1).unwrap();
    archive.commit(at(1)).unwrap();
    append(&mut archive, 2).unwrap();
    bench.disk.fail_at(1, std::io::ErrorKind::StorageFull, true);
    archive.commit(at(2)).unwrap_err();
    assert!(archive.reopen(at(3)).unwrap_err().is_full() && archive.is_out_of_room());
    assert!(matches!(append(&mut archive, 2), Err(ArchiveError::Poisoned)));
    bench.disk.heal();
    // Nobody else gets at the tape in the meantime.
    assert!(matches!(bench.open().unwrap_err(), ArchiveError::Locked { .. }));
    archive.reopen(at(4)).unwrap();
    let words = archive.recovery().farewell.clone().unwrap();
    assert!(words.contains("no storage space"), "{words}");
    append(&mut archive, 3).unwrap();
    archive.close(at(5)).unwrap();
    let report = verify(&bench.path(), &bench.disk, decode_record, |_| {}).unwrap();
    assert!(report.is_whole() && report.sources[0].envelopes == 2, "{report:?}");
}

#[test]
fn a_reserve_that_was_cut_short_is_made_whole() {
    let bench = Bench::new();
    bench.open().unwrap().close(at(1)).unwrap();
    let reserve = bench.path().join("reserve");
    let whole = bench.disk.len(&reserve).unwrap();
    bench.disk.overwrite(&reserve, vec![0; 5]);
    bench.open().unwrap().close(at(2)).unwrap();
    assert_eq!(bench.disk.len(&reserve).unwrap(), whole);
}

#[test]
fn what_is_lost_of_an_open_segment_is_told_although_another_follows() {
    let bench = Bench::new();
    let mut archive = bench.open().unwrap();
    archive.add_source(&alpha(), Provider::TwitterapiIo).unwrap();
    let (layout, tape, day) = (archive.layout.clone(), archive.tape().to_owned(), at(1).date());
    let path = layout.open("alpha", &day, Seq(1));
    let mut kept = 0;
    for n in 1..=5 {
        let decoded = decode(Provider::TwitterapiIo, &envelope(n));
        archive.append(&alpha(), &frame(n, n as i64), Some(&decoded)).unwrap();
        archive.commit(at(n as i64)).unwrap();
        if n == 2 {
            kept = bench.disk.len(&path).unwrap().unwrap() as usize;
        }
    }
    drop(archive);
    // The one behind it, as a recorder leaves it that is killed while it seals.
    let (source, provider) = ("alpha".into(), Provider::TwitterapiIo.name().into());
    let header = segment::Header { n: Seq(5), at: at(6), format: segment::FORMAT, tape: tape.as_str().into(), source, provider };
    let mut behind = segment::Writer::create(&bench.disk, &layout.open("alpha", &day, Seq(6)), &header, 3, 2_048).unwrap();
    behind.append(Seq(6), &frame(6, 6), true).unwrap();
    behind.commit(at(6)).unwrap();
    let mut content = bench.disk.files().into_iter().find(|(file, _)| *file == path).unwrap().1;
    content.truncate(kept);
    bench.disk.overwrite(&path, content);
    let archive = bench.open().unwrap();
    let holes: Vec<_> = archive.recovery().holes.iter().map(|hole| (hole.first_n.0, hole.last_n.0)).collect();
    assert_eq!(holes, [(3, 5)]);
    archive.close(at(20)).unwrap();
    let report = verify(&bench.path(), &bench.disk, decode_record, |_| {}).unwrap();
    assert!(report.damage.iter().all(|damage| damage.known), "{report:#?}");
    assert!(matches!(report.catalog, CatalogCheck::Equal(_)), "{report:#?}");
}

/// Deletes, cuts, overwrites and swaps the catalog: each time it comes back equal, and recording goes on.
#[test]
fn a_damaged_catalog_is_made_again_equal() {
    let mut bench = Bench::new();
    bench.live().unwrap();
    let path = bench.path().join("catalog.sqlite");
    let old = std::fs::read(&path).unwrap();
    bench.live().unwrap();
    let whole = std::fs::read(&path).unwrap();
    let before = dump(&bench.path());
    let other = Bench::new();
    other.open().unwrap().close(at(0)).unwrap();
    let foreign = std::fs::read(other.path().join("catalog.sqlite")).unwrap();
    let mut bent = whole.clone();
    bent[100..4_096].fill(0x55);
    let mut page = whole.clone();
    let at_page = whole.len() / 2;
    page[at_page..at_page + 4_096].fill(0xAA);
    let cases: Vec<(&str, Option<Vec<u8>>)> = vec![
        ("deleted", None),
        ("empty", Some(Vec::new())),
        ("cut in the header", Some(whole[..50].to_vec())),
        ("cut in the middle", Some(whole[..whole.len() / 2].to_vec())),
        ("no database", Some(b"these are not the rows you are looking for".repeat(30))),
        ("bent schema", Some(bent)),
        ("another tape's", Some(foreign)),
        ("an older copy", Some(old)),
        ("a page overwritten", Some(page)),
    ];
    for (what, content) in cases {
        for suffix in ["-wal", "-shm"] {
            drop(std::fs::remove_file(bench.path().join(format!("catalog.sqlite{suffix}"))));
        }
        match content {
            Some(content) => std::fs::write(&path, content).unwrap(),
            None => std::fs::remove_file(&path).unwrap(),
        }
        bench.open().unwrap_or_else(|e| panic!("{what}: {e}")).close(at(30_000)).unwrap();
        assert_eq!(dump(&bench.path()), before, "{what}");
        bench.check(what);
    }
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    bench.open().unwrap().close(at(30_000)).unwrap();
    assert_eq!(dump(&bench.path()), before, "a directory in its place");
}

/// A segment whose first block is broken has no header any more. What is behind it is read when the catalog is made again,
/// where another header, or the catalog that was, says whose it is.
#[test]
fn what_lies_behind_a_header_that_is_gone_is_read() {
    for (is_alone, has_catalog) in [(false, false), (true, true)] {
        let bench = Bench::new();
        let mut archive = bench.open().unwrap();
        archive.add_source(&alpha(), Provider::TwitterapiIo).unwrap();
        for n in 1..=if is_alone { 20 } else { 120 } {
            archive.append(&alpha(), &frame(n, n as i64), None).unwrap();
            archive.commit(at(n as i64)).unwrap();
        }
        archive.close(at(200)).unwrap();
        let rows = bench.tape().catalog().segments("alpha").unwrap();
        let blocks = bench.tape().catalog().blocks("alpha", rows[0].first_n).unwrap();
        assert!(blocks.len() > 1 && (rows.len() == 1) == is_alone, "{} segments, {} blocks", rows.len(), blocks.len());
        let path = Layout::new(bench.path()).sealed("alpha", &rows[0].day, Seq(rows[0].first_n));
        let mut file = bench.disk.files().into_iter().find(|(there, _)| *there == path).unwrap().1;
        // Shorter than it was: it is looked at when the tape is opened.
        file.drain(..20);
        bench.disk.overwrite(&path, file);
        if !has_catalog {
            std::fs::remove_file(bench.path().join("catalog.sqlite")).unwrap();
        }
        let archive = bench.open().unwrap();
        assert!(archive.recovery().rebuilt.is_some());
        archive.close(at(300)).unwrap();
        let left: Vec<_> = collect(&bench.tape(), Span::default()).into_iter().map(|record| record.n.0).collect();
        let last = rows.last().unwrap().last_n;
        assert_eq!(left, (blocks[0].last_n + 1..=last).chain(left.iter().copied().filter(|n| *n > last)).collect::<Vec<_>>());
    }
}

#[test]
fn gaps_have_the_window_the_design_gives_them() {
    let mut bench = Bench::new();
    bench.live().unwrap();
    let tape = bench.tape();
    let gaps = tape.catalog().gaps(Some("alpha")).unwrap();
    assert_eq!(gaps.len(), 1, "{gaps:?}");
    let gap = &gaps[0];
    let mut records = tape.records("alpha", Span::default()).unwrap();
    let (mut last_before, mut first_after) = (None, None);
    while let Some(record) = records.next().unwrap() {
        match record.kind {
            RecordKind::Frame if record.n.0 < gap.n => last_before = Some(record.at),
            RecordKind::Open if record.n.0 > gap.n => first_after = first_after.or(Some(record.at)),
            _ => {}
        }
    }
    assert_eq!(gap.cause, "connection_lost");
    assert_eq!(
        UnixMicros(gap.from_us),
        last_before.unwrap().minus(HORIZON),
        "from the last evidence, not from when it was noticed"
    );
    assert_eq!(gap.to_us.map(UnixMicros), first_after.map(|a| a.plus(HORIZON)));
    let steps: Vec<_> = tape.catalog().gap_steps("alpha", gap.n).unwrap().into_iter().map(|s| s.state).collect();
    assert_eq!(steps, ["open", "open"]);
    assert_eq!(gap.state.parse(), Ok(GapState::Open));
}

/// A certificate speaks of its window to the microsecond, both ends alike.
#[test]
fn a_certificate_speaks_of_its_window_only() {
    let mut bench = Bench::new();
    bench.live().unwrap();
    let tape = bench.tape();
    let gap = &tape.catalog().gaps(Some("alpha")).unwrap()[0];
    let (from, to) = (gap.from_us, gap.to_us.unwrap());
    let of = |from: i64, to: i64| Certificate::of(&tape, "alpha", UnixMicros(from), UnixMicros(to)).unwrap();
    let cases = [
        ((from - 1, from), 0, [1, 0, 0]),
        ((from - 1, from + 1), 1, [1, 1, 0]),
        ((to - 1, to + 1), 1, [0, 1, 1]),
        ((to, to + 1), 0, [0, 0, 1]),
    ];
    for ((begin, end), n_gaps, us) in cases {
        let certificate = of(begin, end);
        let json: serde_json::Value = serde_json::from_str(&certificate.to_json()).unwrap();
        let found = ["live", "missing", "pending"].map(|class| json["scopes"][0][class]["us"].as_i64().unwrap());
        assert_eq!((json["gaps"].as_array().unwrap().len(), found), (n_gaps, us), "{json}");
        assert_eq!(certificate.is_whole(), us == [1, 0, 0]);
        let rest = certificate.to_json().replace(&format!(r#","digest":"{}""#, certificate.digest()), "");
        let mut content = segment::Content::default();
        content.update(rest.as_bytes());
        assert_eq!(certificate.digest(), content.hex());
    }
    let whole = of(from - 2_000_000, from);
    assert_eq!(whole.in_words(), "whole: 2.0 s of 1 scope(s): 2.0 s live");
    let torn = of(from - 2_000_000, from + 1_500_000);
    assert_eq!(torn.in_words(), "not whole: 3.5 s of 1 scope(s): 2.0 s live, 1.5 s missing");
    assert_eq!(torn.shares(), [(ALL.to_owned(), 1, 2_000_000, 3_500_000)]);
    // Before anything was promised nothing is whole.
    let early = of(at(0).0, at(10_001).0);
    assert_eq!((early.is_whole(), early.shares().len()), (false, 0), "{early:?}");
    assert_eq!(of(at(0).0, at(10_001).0 + 1).shares(), [(ALL.to_owned(), 1, 1, 1)]);
}

/// Bounded gaps behind the frontier, across it and beyond it: each is cut out of the coverage, and nothing else is.
#[test]
fn suspected_stretches_are_cut_out_of_the_coverage() {
    let mut bench = Bench::new();
    let windows = [(3, 4), (20, 30), (55, 62), (100, 101), (150, 151)];
    let mut archive = bench.open().unwrap();
    archive.add_source(&alpha(), Provider::TwitterapiIo).unwrap();
    bench.connect(&mut archive, &alpha(), 1).unwrap();
    for second in 2..200 {
        let bytes = envelope(second as u64);
        archive.append(&alpha(), &frame(second as u64, second), Some(&decode(Provider::TwitterapiIo, &bytes))).unwrap();
        bench.sent.entry(alpha()).or_default().push(bytes);
        // At second 110 the frontier is at 50: two windows lie behind it, one across, the others beyond.
        if second == 118 {
            for (from, to) in windows {
                let lost = Lost { scope: ALL, cause: Cause::Orphan, detail: "spoken of, never seen" };
                assert!(archive.suspect(&alpha(), at(second), (at(from), at(to)), lost).unwrap().is_some());
                assert_eq!(archive.suspect(&alpha(), at(second), (at(from), at(to)), lost).unwrap(), None, "told once");
            }
            let lost = Lost { scope: ALL, cause: Cause::Orphan, detail: "before the promise" };
            assert_eq!(archive.suspect(&alpha(), at(second), (at(-9), at(-8)), lost).unwrap(), None);
        }
        if second % 10 == 0 {
            bench.commit(&mut archive, at(second)).unwrap();
        }
        if second == 130 {
            archive.close(at(second)).unwrap();
            archive = bench.open().unwrap();
        }
    }
    archive.close(at(200)).unwrap();
    bench.announced = bench.sent.clone();
    let tape = bench.tape();
    let covered: Vec<_> =
        tape.catalog().coverage("alpha").unwrap().iter().map(|c| (UnixMicros(c.from_us), UnixMicros(c.to_us))).collect();
    let seconds = [(1, 3), (4, 20), (30, 55), (62, 100), (101, 139)];
    assert_eq!(covered, seconds.map(|(from, to)| (at(from), at(to))));
    bench.check("suspicions");
    let before = dump(&bench.path());
    rebuild(&bench.path(), Arc::new(bench.disk.clone()), options(), decode_record, "test", at(0)).unwrap();
    assert_eq!(before, dump(&bench.path()));
}

/// A gap that lies ahead of the frontier and is filled before evidence comes there leaves no hole behind it.
#[test]
fn a_gap_ahead_of_the_frontier_is_filled_without_a_hole() {
    let bench = Bench::new();
    let mut archive = bench.open().unwrap();
    archive.add_source(&alpha(), Provider::TwitterapiIo).unwrap();
    archive.start_source(&alpha(), HORIZON, boot(), at(0)).unwrap();
    bench.connect(&mut archive, &alpha(), 10).unwrap();
    archive.append(&alpha(), &frame(1, 100), None).unwrap();
    let full = Lost { scope: ALL, cause: Cause::FullPage, detail: "a page came full" };
    let gap = archive.suspect(&alpha(), at(100), (at(80), at(95)), full).unwrap().unwrap();
    let filling = Filling { state: GapState::Filled, detail: "", cursor: None, kinds: &[], spent: Spent::default() };
    archive.fill(&alpha(), at(101), gap, filling).unwrap();
    archive.append(&alpha(), &frame(2, 300), None).unwrap();
    archive.commit(at(300)).unwrap();
    let [of_all] = &bench.tape().coverage("alpha").unwrap()[..] else { panic!("one scope") };
    assert_eq!(of_all.silent_hole(), None, "{of_all:?}");
    let live: Vec<_> = of_all.classes.live.iter().collect();
    assert_eq!(live, [(at(10), at(80)), (at(95), at(240))]);
}

/// A gap of everything begins a horizon back, so a scope that counted with a longer one would have a hole before it.
#[test]
fn another_horizon_holds_for_every_scope() {
    let bench = Bench::new();
    let mut archive = bench.open().unwrap();
    archive.add_source(&alpha(), Provider::TwitterapiIo).unwrap();
    archive.start_source(&alpha(), HORIZON, boot(), at(0)).unwrap();
    bench.connect(&mut archive, &alpha(), 10).unwrap();
    let rule = [Selected { scope: "r1", text: Some("one"), detail: "a rule" }];
    archive.select(&alpha(), HORIZON, &rule, at(11)).unwrap();
    archive.append(&alpha(), &frame(1, 200), None).unwrap();
    archive.stop_source(&alpha(), at(200), "enough").unwrap();
    let short = Duration::from_secs(5);
    archive.start_source(&alpha(), short, boot(), at(300)).unwrap();
    archive.live(&alpha(), ALL, short, at(300), "opened").unwrap();
    for (n, second) in [(2, 310), (3, 400)] {
        archive.append(&alpha(), &frame(n, second), None).unwrap();
    }
    archive.lost(&alpha(), at(400), Lost { scope: ALL, cause: Cause::ConnectionLost, detail: "reset" }).unwrap();
    archive.live(&alpha(), ALL, short, at(500), "opened").unwrap();
    archive.append(&alpha(), &frame(4, 900), None).unwrap();
    archive.commit(at(900)).unwrap();
    for scope in bench.tape().coverage("alpha").unwrap() {
        assert_eq!((scope.silent_hole(), scope.horizon_us), (None, 5_000_000), "{scope:?}");
    }
}

/// A source that is connected from second 10 on, with evidence up to second 200.
fn up_to_200(bench: &Bench) -> Archive {
    let mut archive = bench.open().unwrap();
    archive.add_source(&alpha(), Provider::TwitterapiIo).unwrap();
    archive.start_source(&alpha(), HORIZON, boot(), at(0)).unwrap();
    bench.connect(&mut archive, &alpha(), 10).unwrap();
    archive.append(&alpha(), &frame(1, 200), None).unwrap();
    archive
}

/// Lets everything be served again, and evidence come up to second 400; what is then covered of each scope.
fn up_to_400(bench: &Bench, mut archive: Archive, again: i64) -> BTreeMap<String, Vec<(UnixMicros, UnixMicros)>> {
    archive.live(&alpha(), ALL, HORIZON, at(again), "opened").unwrap();
    archive.append(&alpha(), &frame(2, 400), None).unwrap();
    archive.commit(at(400)).unwrap();
    let kept = || bench.tape().catalog().coverage("alpha").unwrap();
    let before = kept();
    drop(archive);
    rebuild(&bench.path(), Arc::new(bench.disk.clone()), options(), decode_record, "test", at(0)).unwrap();
    assert_eq!(before, kept());
    let coverage = bench.tape().coverage("alpha").unwrap();
    coverage.iter().for_each(|of| assert_eq!(of.silent_hole(), None, "{of:?}"));
    coverage.into_iter().map(|of| (of.scope, of.classes.live.iter().collect())).collect()
}

const RESET: Lost<'_> = Lost { scope: ALL, cause: Cause::ConnectionLost, detail: "reset" };

/// The wall clock is put back and a scope begins: evidence has not yet reached it when everything is lost.
#[test]
fn a_gap_of_everything_begins_where_the_scope_furthest_behind_stands() {
    let bench = Bench::new();
    let mut archive = up_to_200(&bench);
    archive.live(&alpha(), "r1", HORIZON, at(120), "subscribed").unwrap();
    let gap = archive.lost(&alpha(), at(121), RESET).unwrap().unwrap();
    assert_eq!(archive.gap(&alpha(), gap).unwrap().from_us, at(120).0);
    let covered = up_to_400(&bench, archive, 250);
    assert_eq!(
        (&covered[ALL][..], &covered["r1"][..]),
        (&[(at(10), at(120)), (at(310), at(340))][..], &[(at(310), at(340))][..])
    );
}

/// Nothing is covered yet and a gap tells of everything up to second 90, but evidence has come to 100 only: what is lost by a
/// crash begins a horizon before that, where the frontier was, and not where the first gap ends.
#[test]
fn a_gap_begins_no_later_than_a_horizon_before_the_last_evidence() {
    let bench = Bench::new();
    let mut archive = bench.open().unwrap();
    archive.add_source(&alpha(), Provider::TwitterapiIo).unwrap();
    archive.start_source(&alpha(), HORIZON, boot(), at(0)).unwrap();
    bench.connect(&mut archive, &alpha(), 10).unwrap();
    archive.lost(&alpha(), at(20), RESET).unwrap().unwrap();
    archive.live(&alpha(), ALL, HORIZON, at(30), "opened").unwrap();
    archive.append(&alpha(), &frame(1, 100), None).unwrap();
    archive.commit(at(100)).unwrap();
    drop(archive);
    let open = bench.open().unwrap().open_gaps(&alpha());
    let began: Vec<_> = open.iter().map(|row| (UnixMicros(row.from_us), row.cause.as_str())).collect();
    assert_eq!(began, [(at(10), Cause::ConnectionLost.name()), (at(40), Cause::Killed.name())]);
}

/// Such a gap may even end before a scope did that is promised no more. What it took of that scope's coverage behind its own end
/// is told as lost; it does not fall out of the timeline.
#[test]
fn what_a_gap_took_from_a_scope_that_had_ended_is_told() {
    let bench = Bench::new();
    let mut archive = bench.open().unwrap();
    archive.add_source(&alpha(), Provider::TwitterapiIo).unwrap();
    archive.start_source(&alpha(), HORIZON, boot(), at(0)).unwrap();
    bench.connect(&mut archive, &alpha(), 10).unwrap();
    archive.live(&alpha(), "r1", HORIZON, at(10), "subscribed").unwrap();
    archive.live(&alpha(), "r2", HORIZON, at(10), "subscribed").unwrap();
    // This one is behind, so that a gap of everything begins early.
    archive.lost(&alpha(), at(30), Lost { scope: "r2", ..RESET }).unwrap().unwrap();
    archive.append(&alpha(), &frame(1, 400), None).unwrap();
    archive.live(&alpha(), "r2", HORIZON, at(400), "subscribed").unwrap();
    archive.end_scope(&alpha(), "r1", at(400)).unwrap();
    archive.commit(at(400)).unwrap();
    let until = bench.tape().catalog().scopes("alpha").unwrap().iter().find_map(|row| row.until_us).unwrap();
    // The wall clock is put back by more than a horizon.
    archive.lost(&alpha(), at(100), RESET).unwrap().unwrap();
    archive.live(&alpha(), ALL, HORIZON, at(110), "opened").unwrap();
    archive.close(at(120)).unwrap();
    let scopes = bench.tape().coverage("alpha").unwrap();
    let ended = &scopes.iter().find(|scope| scope.scope == "r1").unwrap().classes;
    let mut told = ended.live.clone();
    told.add(&ended.missing);
    assert_eq!(told.iter().collect::<Vec<_>>(), [(at(10), UnixMicros(until))]);
    let gaps = bench.tape().catalog().gaps(Some("alpha")).unwrap();
    let of_r1: Vec<_> = gaps.iter().filter(|gap| gap.scope == "r1").map(|gap| (gap.cause.as_str(), gap.to_us)).collect();
    assert_eq!(of_r1, [(Cause::ConnectionLost.name(), Some(until))]);
}

/// Such a gap may end before the others had come, and among gaps that were cut out there already.
#[test]
fn a_gap_that_ends_before_the_frontier_takes_coverage_back() {
    let bench = Bench::new();
    let mut archive = up_to_200(&bench);
    let full = Lost { scope: ALL, cause: Cause::FullPage, detail: "a page came full" };
    archive.suspect(&alpha(), at(200), (at(132), at(135)), full).unwrap().unwrap();
    archive.live(&alpha(), "r1", HORIZON, at(120), "subscribed").unwrap();
    archive.lost(&alpha(), at(121), RESET).unwrap().unwrap();
    let covered = up_to_400(&bench, archive, 70);
    assert_eq!(covered[ALL], [(at(10), at(120)), (at(130), at(132)), (at(135), at(340))]);
    assert_eq!(covered["r1"], [(at(130), at(132)), (at(135), at(340))]);
}

/// The wall clock is put back while everything is lost, to before that began, and a scope begins.
#[test]
fn a_scope_that_begins_before_what_is_being_lost_is_promised_from_there_on() {
    let bench = Bench::new();
    let mut archive = up_to_200(&bench);
    archive.lost(&alpha(), at(201), RESET).unwrap().unwrap();
    archive.live(&alpha(), "r1", HORIZON, at(100), "subscribed").unwrap();
    assert_eq!(up_to_400(&bench, archive, 250)["r1"], [(at(310), at(340))]);
}

/// A scope that ends and begins again between two commits: the catalog learns of both stretches.
#[test]
fn the_end_of_a_stretch_is_kept_when_another_begins_before_the_commit() {
    let bench = Bench::new();
    let mut archive = up_to_200(&bench);
    archive.live(&alpha(), "r1", HORIZON, at(200), "subscribed").unwrap();
    archive.append(&alpha(), &frame(3, 280), None).unwrap();
    archive.commit(at(280)).unwrap();
    archive.append(&alpha(), &frame(4, 290), None).unwrap();
    archive.end_scope(&alpha(), "r1", at(291)).unwrap();
    archive.live(&alpha(), "r1", HORIZON, at(300), "subscribed").unwrap();
    archive.append(&alpha(), &frame(5, 390), None).unwrap();
    up_to_400(&bench, archive, 395);
    let covered = bench.tape().catalog().coverage("alpha").unwrap();
    let of_r1: Vec<_> = covered.iter().filter(|row| row.scope == "r1").map(|row| (row.from_us, row.to_us)).collect();
    assert_eq!(of_r1, [(at(200).0, at(230).0), (at(300).0, at(340).0)]);
}

/// Bits of the block that is being written: who reads what the index does not have yet believes no more than others.
#[test]
fn a_flipped_bit_at_the_end_of_an_open_segment_is_not_believed() {
    let bench = Bench::new();
    let mut archive = bench.open().unwrap();
    archive.add_source(&alpha(), Provider::TwitterapiIo).unwrap();
    for n in 1..=40 {
        archive.append(&alpha(), &frame(n, n as i64), None).unwrap();
        archive.commit(at(n as i64)).unwrap();
    }
    drop(archive);
    let tape = bench.tape();
    let read = || {
        let mut found = BTreeMap::new();
        tape.unindexed("alpha", |record| drop(found.insert(record.n, record.line))).unwrap();
        found
    };
    let truth = read();
    assert!(!truth.is_empty());
    let (path, whole) = bench.disk.files().into_iter().find(|(path, _)| path.extension().is_some_and(|e| e == "open")).unwrap();
    for bit in (0..whole.len() * 8).step_by(5) {
        let mut bent = whole.clone();
        bent[bit / 8] ^= 1 << (bit % 8);
        bench.disk.overwrite(&path, bent);
        let found = read();
        assert!(found.iter().all(|(n, line)| truth.get(n) == Some(line)), "bit {bit}");
    }
}

/// After a power cut the length of a file may be durable where its last blocks are not: it ends in zeros. No more is lost than if
/// it had ended there, and it is taken as it is; of rubbish there no more, either.
#[test]
fn a_tail_of_zeros_costs_what_a_cut_there_does() {
    let bench = Bench::new();
    let mut archive = bench.open().unwrap();
    archive.add_source(&alpha(), Provider::TwitterapiIo).unwrap();
    for n in 1..=64 {
        archive.append(&alpha(), &frame(n, n as i64), None).unwrap();
        archive.commit(at(n as i64)).unwrap();
    }
    drop(archive);
    let is_open = |path: &Path| path.extension().is_some_and(|e| e == "open");
    let open_segment = |bench: &Bench| bench.disk.files().into_iter().find(|(path, _)| is_open(path)).unwrap();
    let kept = |from: usize, bend: fn(&mut Vec<u8>, usize)| {
        let bench = bench.copy();
        let (path, mut file) = open_segment(&bench);
        bend(&mut file, from);
        bench.disk.overwrite(&path, file);
        drop(bench.open().unwrap());
        let is_aside = bench.disk.files().iter().any(|(path, _)| path.extension().is_some_and(|e| e == "damaged"));
        // What was announced names the hashes of commits: they stay.
        let content = bench.tape().catalog().segments("alpha").unwrap().first().map(|row| (row.first_n, row.content.clone()));
        let frames = collect(&bench.tape(), Span::default()).into_iter().filter(|record| record.kind == RecordKind::Frame);
        let content = content.filter(|(first_n, _)| *first_n == 1);
        (is_aside, content, frames.map(|record| (record.n, record.line)).collect::<Vec<_>>())
    };
    let whole = open_segment(&bench).1;
    let mut counts = Vec::new();
    for from in (60..whole.len()).step_by(97) {
        // A zero that was one before is no damage.
        let from = from + whole[from..].iter().take_while(|byte| **byte == 0).count();
        let zeroed = kept(from, |file, from| file[from..].fill(0));
        let cut = kept(from, Vec::truncate);
        let n_left = zeroed.2.len();
        assert!(zeroed == cut, "from byte {from}: {n_left} of {} records are left, {:?}", cut.2.len(), (zeroed.0, zeroed.1));
        // What else stands there is damage. It is kept aside, and what was committed before it in a segment of its own.
        let spoilt = kept(from, |file, from| file[from..].fill(0x55));
        assert_eq!(spoilt.2.len(), n_left, "from byte {from}");
        counts.push(n_left);
    }
    counts.dedup();
    assert!(counts.len() > 5, "{counts:?}");
}

/// From any instant and any number on everything is found: in sealed segments, in the open one, and in its last block, of which
/// the index knows nothing yet.
#[test]
fn reading_begins_anywhere() {
    let bench = Bench::new();
    let mut archive = bench.open().unwrap();
    archive.add_source(&alpha(), Provider::TwitterapiIo).unwrap();
    for n in 1..=118 {
        archive.append(&alpha(), &frame(n, n as i64), None).unwrap();
        archive.commit(at(n as i64)).unwrap();
    }
    drop(archive);
    let tape = bench.tape();
    let rows = tape.catalog().segments("alpha").unwrap();
    let open = rows.iter().find(|row| row.state == "open").unwrap();
    let indexed = tape.catalog().blocks("alpha", open.first_n).unwrap().into_iter().map(|block| block.last_n).max();
    assert!(rows.len() > 1 && indexed < Some(open.last_n), "{rows:?}");
    let all = collect(&tape, Span::default());
    for (i, record) in all.iter().enumerate() {
        let numbers = |span: Span| collect(&tape, span).iter().map(|record| record.n).collect::<Vec<_>>();
        let wanted: Vec<_> = all[i..].iter().map(|record| record.n).collect();
        assert_eq!(numbers(Span { from_n: Some(record.n), ..Span::default() }), wanted, "from {}", record.n);
        if record.kind == RecordKind::Frame {
            assert_eq!(numbers(Span { from: Some(record.at), ..Span::default() }), wanted, "from {}", record.at);
        }
    }
}

#[test]
fn ids_and_times_find_their_records() {
    let mut bench = Bench::new();
    bench.live().unwrap();
    let tape = bench.tape();
    for n in [0, 41, 89] {
        let wanted = decode(Provider::TwitterapiIo, &envelope(n));
        let crate::model::EventId::Tweet(id) = wanted.events[0].id else { panic!("a tweet") };
        let found = tape.with_id(id.0, |_, record| record.body == envelope(n)).unwrap();
        let sources: Vec<_> = found.iter().map(|(source, _)| source.name.as_str()).collect();
        assert_eq!(sources, ["alpha", "beta"], "post {n} came over both");
    }
    assert!(tape.with_id(5, |_, _| true).unwrap().is_empty());
    let all: Vec<Record> = collect(&tape, Span::default());
    for from in [0, 17, 60, 140, 400] {
        let cut = at(10_000 + from);
        let late = collect(&tape, Span { from: Some(cut), ..Span::default() });
        assert_eq!(late, all.iter().filter(|r| r.at >= cut).cloned().collect::<Vec<_>>(), "from second {from}");
        let early = collect(&tape, Span { to: Some(cut), ..Span::default() });
        assert_eq!(early.len() + late.len(), all.len());
        let numbered = collect(&tape, Span { from_n: Some(Seq(from as u64)), ..Span::default() });
        assert_eq!(numbered, all.iter().filter(|r| r.n.0 >= from as u64).cloned().collect::<Vec<_>>());
    }
    let names = ["alpha".to_owned(), "beta".to_owned()];
    let mut merged = tape.merged(&names, Span::default()).unwrap();
    let (mut count, mut last) = (0, UnixMicros(0));
    while let Some((_, record)) = merged.next().unwrap() {
        assert!(record.at >= last, "merged by time");
        (count, last) = (count + 1, record.at);
    }
    assert!(count > all.len());
    assert!(matches!(tape.records("gamma", Span::default()), Err(ArchiveError::UnknownSource { .. })));
}

fn collect(tape: &Tape, span: Span) -> Vec<Record> {
    let mut records = tape.records("alpha", span).unwrap();
    std::iter::from_fn(|| records.next().unwrap()).collect()
}

#[test]
fn a_reader_beside_the_writer_sees_commits_only() {
    let dir = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let mut archive = Archive::open(dir.path(), Arc::clone(&disk), options(), decode_record, "test", at(0)).unwrap();
    archive.add_source(&alpha(), Provider::TwitterapiIo).unwrap();
    let mut sent = 0;
    for round in 1..=40 {
        for _ in 0..3 {
            archive.append(&alpha(), &frame(sent, sent as i64), Some(&decode(Provider::TwitterapiIo, &envelope(sent)))).unwrap();
            sent += 1;
        }
        let tape = Tape::open(dir.path(), Arc::clone(&disk)).unwrap();
        // Rotation commits in between; apart from that, what is not committed is not seen.
        assert!(frames(&tape, &alpha()).len() as u64 - (round - 1) * 3 < 3, "what was just appended is not seen");
        archive.commit(at(round as i64)).unwrap();
        let kept = frames(&tape, &alpha());
        assert_eq!(kept.len() as u64, round * 3);
        assert_eq!(kept.last(), Some(&envelope(sent - 1)));
        let crate::model::EventId::Tweet(id) = decode(Provider::TwitterapiIo, &envelope(sent - 1)).events[0].id else {
            panic!("a tweet")
        };
        assert_eq!(tape.with_id(id.0, |_, r| r.body == envelope(sent - 1)).unwrap().len(), 1, "found in the block being written");
    }
    let second = Archive::open(dir.path(), Arc::clone(&disk), options(), decode_record, "second", at(0));
    assert!(matches!(second, Err(ArchiveError::Locked { ref holder, .. }) if holder == "test"));
    let beside = verify(dir.path(), &*disk, decode_record, |_| {}).unwrap();
    assert!(beside.is_whole() && matches!(beside.catalog, CatalogCheck::Skipped(_)), "{beside:?}");
    archive.close(at(100)).unwrap();
    assert!(verify(dir.path(), &*disk, decode_record, |_| {}).unwrap().is_whole());
}

#[test]
fn damage_in_an_open_segment_is_salvaged_and_noted() {
    let mut bench = Bench::new();
    bench.runs = 1;
    let mut archive = bench.open().unwrap();
    archive.add_source(&alpha(), Provider::TwitterapiIo).unwrap();
    archive.start_source(&alpha(), HORIZON, boot(), at(10_000)).unwrap();
    bench.connect(&mut archive, &alpha(), 10_001).unwrap();
    for n in 0..50 {
        archive.append(&alpha(), &frame(n, 10_002 + n as i64), Some(&decode(Provider::TwitterapiIo, &envelope(n)))).unwrap();
        archive.commit(at(10_002 + n as i64)).unwrap();
    }
    drop(archive);
    bench.disk.restart(Unsynced::Kept);
    let (path, mut data) = bench.disk.files().into_iter().find(|(p, _)| p.extension().is_some_and(|e| e == "open")).unwrap();
    let middle = data.len() / 2;
    data[middle..middle + 20].fill(0);
    bench.disk.overwrite(&path, data);
    let archive = bench.open().unwrap();
    assert_eq!(archive.recovery().holes.len(), 1, "{:?}", archive.recovery());
    archive.close(at(20_000)).unwrap();
    let kept = bench.frames(&alpha());
    assert!(kept.len() > 20 && kept.len() < 50, "{}", kept.len());
    let report = verify(&bench.path(), &bench.disk, decode_record, |_| {}).unwrap();
    assert!(report.damage.iter().all(|d| d.known) && report.damage.len() == 1, "{report:?}");
    let gaps = bench.tape().catalog().gaps(Some("alpha")).unwrap();
    assert!(gaps.iter().any(|g| g.cause == "damaged" && g.to_us.is_some()), "{gaps:?}");
    assert!(bench.disk.files().iter().any(|(p, _)| p.to_string_lossy().ends_with(".damaged")), "the evidence stays");
    let before = dump(&bench.path());
    rebuild(&bench.path(), Arc::new(bench.disk.clone()), options(), decode_record, "test", at(0)).unwrap();
    assert_eq!(before, dump(&bench.path()));
}

#[test]
fn damage_in_a_sealed_segment_is_found_and_stays_local() {
    let mut bench = Bench::new();
    bench.live().unwrap();
    let all = bench.sent[&alpha()].len();
    let sealed: Vec<_> = bench.disk.files().into_iter().filter(|(p, _)| p.to_string_lossy().contains("alpha")).collect();
    let (path, whole) = sealed[1].clone();
    for at_byte in (0..whole.len()).step_by(97) {
        let mut bent = whole.clone();
        bent[at_byte] ^= 0x10;
        bench.disk.overwrite(&path, bent);
        let report = verify(&bench.path(), &bench.disk, decode_record, |_| {}).unwrap();
        assert!(!report.is_whole(), "byte {at_byte}");
        let tape = bench.tape();
        let mut records = tape.records("alpha", Span::default()).unwrap();
        let mut kept = 0;
        while let Some(record) = records.next().unwrap() {
            kept += usize::from(record.kind == RecordKind::Frame);
        }
        assert!(kept + 20 >= all, "byte {at_byte}: one block at most, kept {kept} of {all}");
    }
    bench.disk.overwrite(&path, whole[..whole.len() / 2].to_vec());
    assert!(!verify(&bench.path(), &bench.disk, decode_record, |_| {}).unwrap().is_whole(), "cut");
    bench.disk.overwrite(&path, whole);
    bench.check("put back");
}

/// Sealed segments that vanish, are cut or emptied: the loss is told, and no number is given a second time.
#[test]
fn records_that_were_durable_and_are_gone_are_told() {
    type Harm = fn(&Bench, &Path);
    let harms: [(&str, Harm); 4] = [
        ("removed", |bench, path| bench.disk.remove(path).unwrap()),
        ("emptied", |bench, path| bench.disk.overwrite(path, Vec::new())),
        ("garbage", |bench, path| bench.disk.overwrite(path, vec![7; 5_000])),
        ("cut", |bench, path| {
            let data = bench.disk.files().into_iter().find(|(p, _)| p == path).unwrap().1;
            bench.disk.overwrite(path, data[..data.len() / 2].to_vec());
        }),
    ];
    for (what, harm) in harms {
        for which in [0, 1, usize::MAX] {
            let mut bench = Bench::new();
            bench.live().unwrap();
            let ends = bench.tape().source("alpha").unwrap().last_n;
            let files: Vec<PathBuf> =
                bench.disk.files().into_iter().map(|(p, _)| p).filter(|p| p.to_string_lossy().contains("alpha")).collect();
            harm(&bench, &files[which.min(files.len() - 1)]);
            let what = format!("segment {which} of {} {what}", files.len());
            let archive = bench.open().unwrap_or_else(|e| panic!("{what}: {e}"));
            assert_eq!(archive.recovery().holes.len(), 1, "{what}: {:?}", archive.recovery());
            let hole = archive.recovery().holes[0].clone();
            archive.close(at(20_000)).unwrap();
            let tape = bench.tape();
            let gaps = tape.catalog().gaps(Some("alpha")).unwrap();
            assert!(
                gaps.iter().any(|g| g.cause == "damaged" && g.n > ends),
                "{what}: in the ledger, under a new number: {gaps:?}"
            );
            let report = verify(&bench.path(), &bench.disk, decode_record, |_| {}).unwrap();
            assert!(
                report.damage.iter().all(|d| d.known || d.what.contains("file ends") || d.what.contains("seek table")),
                "{what}: {report:?}"
            );
            assert!(
                report.damage.iter().any(|d| d.known && d.lost.as_ref().is_some_and(|l| l.first_n == hole.first_n)),
                "{what}: {report:?}"
            );
            let before = dump(&bench.path());
            rebuild(&bench.path(), Arc::new(bench.disk.clone()), options(), decode_record, "test", at(0)).unwrap();
            assert_eq!(before, dump(&bench.path()), "{what}: told once");
        }
    }
}

#[test]
fn a_recorder_that_died_is_in_the_ledger_whoever_opens_the_tape_next() {
    let mut bench = Bench::new();
    bench.live().unwrap();
    let mut archive = bench.open().unwrap();
    archive.start_source(&alpha(), HORIZON, boot(), at(30_000)).unwrap();
    bench.connect(&mut archive, &alpha(), 30_001).unwrap();
    archive.commit(at(30_002)).unwrap();
    archive.lost(&alpha(), at(30_003), Lost { scope: ALL, cause: Cause::ConnectionLost, detail: "reset" }).unwrap();
    archive.commit(at(30_004)).unwrap();
    drop(archive);
    bench.disk.restart(Unsynced::Kept);
    bench.open().unwrap().close(at(40_000)).unwrap();
    let causes = |bench: &Bench| -> Vec<String> {
        bench.tape().catalog().gaps(Some("alpha")).unwrap().into_iter().map(|g| g.cause).collect()
    };
    assert_eq!(causes(&bench), ["connection_lost", "stopped", "killed"], "the hole that was open says what came on top");
    bench.open().unwrap().close(at(50_000)).unwrap();
    assert_eq!(causes(&bench).len(), 3, "told once");
    let mut archive = bench.open().unwrap();
    archive.start_source(&alpha(), HORIZON, boot(), at(60_000)).unwrap();
    archive.close(at(60_001)).unwrap();
    assert_eq!(causes(&bench)[2], "killed", "a kill is never called a stop");
}

#[test]
fn what_is_no_tape_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let open = |path: &Path| Archive::open(path, Arc::clone(&disk), options(), decode_record, "test", at(0)).map(drop);
    assert!(matches!(Tape::open(dir.path(), Arc::clone(&disk)), Err(ArchiveError::NotATape { .. })));
    std::fs::write(dir.path().join("holiday.jpg"), b"x").unwrap();
    let refused = open(dir.path()).unwrap_err();
    assert!(refused.to_string().contains("holiday.jpg"), "{refused}");
    let newer = tempfile::tempdir().unwrap();
    std::fs::write(newer.path().join("tape.json"), r#"{"format":2,"tape":"x","created":"y"}"#).unwrap();
    assert!(matches!(open(newer.path()), Err(ArchiveError::NewerFormat { found: 2, .. })));
    std::fs::write(newer.path().join("tape.json"), "nonsense").unwrap();
    assert!(matches!(open(newer.path()), Err(ArchiveError::NotATape { .. })));
    let file = newer.path().join("tape.json");
    assert!(open(&file).is_err(), "a file is no directory");
}

#[test]
fn a_source_keeps_its_provider() {
    let bench = Bench::new();
    let mut archive = bench.open().unwrap();
    archive.add_source(&alpha(), Provider::TwitterapiIo).unwrap();
    archive.append(&alpha(), &frame(1, 1), None).unwrap();
    archive.close(at(2)).unwrap();
    let mut archive = bench.open().unwrap();
    assert!(matches!(archive.add_source(&alpha(), Provider::XLive), Err(ArchiveError::OtherProvider { .. })));
}

#[test]
fn a_page_and_its_step_are_in_one_commit_or_in_none() {
    let bench = Bench::new();
    let leaf = |gap: u64, bytes: usize| {
        let body = Body::Bytes(Bytes::from(vec![b'x'; bytes]));
        let draft = Draft { received_at: at(20), kind: RecordKind::Http, via: Via::History, conn: ConnId(0), info: None, body };
        Leaf {
            source: alpha(),
            gap: Some(gap),
            at: at(20),
            page: Some((draft, crate::model::Decoded::default())),
            state: GapState::Filling,
            detail: "a page".to_owned(),
            cursor: Some("{}".to_owned()),
            kinds: Vec::new(),
            spent: Spent { requests: 1, rows: 0, micro_usd: 0 },
        }
    };
    let mut archive = bench.open().unwrap();
    archive.add_source(&alpha(), Provider::TwitterapiIo).unwrap();
    archive.live(&alpha(), ALL, HORIZON, at(1), "a frame").unwrap();
    let gap = archive.lost(&alpha(), at(2), Lost { scope: ALL, cause: Cause::Killed, detail: "x" }).unwrap().unwrap();
    assert!(matches!(archive.keep(&leaf(77, 10)), Err(PenError::NoGap { gap: 77, .. })));
    archive.commit(at(3)).unwrap();
    // The page alone fills a segment.
    archive.keep(&leaf(gap, 20_000)).unwrap();
    drop(archive);
    let steps = |bench: &Bench| {
        let tape = Tape::open(&bench.path(), Arc::new(bench.disk.clone())).unwrap();
        let (mut records, mut pages) = (tape.records("alpha", Span::default()).unwrap(), 0);
        while let Some(record) = records.next().unwrap() {
            pages += usize::from(record.kind == RecordKind::Http);
        }
        (pages, tape.catalog().spent_since(Some("alpha"), 0).unwrap().0)
    };
    let mut archive = bench.open().unwrap();
    assert_eq!(steps(&bench), (0, 0));
    archive.keep(&leaf(gap, 20_000)).unwrap();
    archive.commit(at(21)).unwrap();
    drop(archive);
    bench.open().unwrap();
    assert_eq!(steps(&bench), (1, 1));
}

/// Scopes of the tape as `name version since until text`, in seconds.
fn scopes_of(catalog: &Catalog) -> Vec<String> {
    let second = |us: i64| (us - START) / 1_000_000;
    let rows = catalog.scopes("alpha").unwrap().into_iter();
    let shown = rows.map(|row| {
        let until = row.until_us.map_or("-".to_owned(), |us| second(us).to_string());
        format!("{} {} {} {until} {}", row.scope, row.version, second(row.since_us), row.text.unwrap_or_default())
    });
    shown.collect()
}

#[test]
fn what_selects_is_kept_as_versions_and_a_change_is_a_gap() {
    let bench = Bench::new();
    let mut archive = bench.open().unwrap();
    let name = alpha();
    archive.add_source(&name, Provider::TwitterapiIo).unwrap();
    archive.start_source(&name, HORIZON, boot(), at(0)).unwrap();
    archive.live(&name, ALL, HORIZON, at(10), "the first frame").unwrap();
    let select = |archive: &mut Archive, second: i64, all: &[(&str, &str)]| -> Vec<String> {
        archive.alive(&name, ConnId(1), at(second), "a pong").unwrap();
        let all: Vec<_> = all.iter().map(|(scope, text)| Selected { scope, text: Some(text), detail: "a rule" }).collect();
        let gaps = archive.select(&name, HORIZON, &all, at(second)).unwrap();
        archive.commit(at(second)).unwrap();
        let shown = |gap: GapRow| {
            format!(
                "{} {} {}..{}",
                gap.scope,
                gap.cause,
                (gap.from_us - START) / 1_000_000,
                (gap.to_us.unwrap() - START) / 1_000_000
            )
        };
        gaps.into_iter().map(shown).collect()
    };
    // The first reading is where the promise begins.
    assert_eq!(select(&mut archive, 10, &[("r1", "owl"), ("r2", "kite")]), [""; 0]);
    assert_eq!(select(&mut archive, 600, &[("r1", "owl"), ("r2", "kite")]), [""; 0], "nothing changed");
    assert_eq!(
        select(&mut archive, 1_200, &[("r1", "owls"), ("r3", "tide")]),
        ["r1 scope_changed 540..1260", "r3 scope_changed 540..1260", "r2 scope_changed 540..1200"]
    );
    assert_eq!(select(&mut archive, 1_800, &[("r1", "owls"), ("r2", "kite"), ("r3", "tide")]), ["r2 scope_changed 1140..1860"]);
    let want = ["* 1 10 - ", "r1 1 10 - owl", "r1 2 1200 - owls", "r2 1 10 1200 kite", "r2 2 1800 - kite", "r3 1 1200 - tide"];
    assert_eq!(scopes_of(&archive.catalog), want);
    archive.alive(&name, ConnId(1), at(3_000), "a pong").unwrap();
    archive.commit(at(3_000)).unwrap();
    let covered = |catalog: &Catalog, scope: &str| -> Vec<(i64, i64)> {
        let rows = catalog.coverage("alpha").unwrap().into_iter().filter(|row| row.scope == scope && row.class == "live");
        rows.map(|row| ((row.from_us - START) / 1_000_000, (row.to_us - START) / 1_000_000)).collect()
    };
    for (scope, want) in
        [("r1", vec![(10, 540), (1_260, 2_940)]), ("r2", vec![(10, 540), (1_860, 2_940)]), ("r3", vec![(1_260, 2_940)])]
    {
        assert_eq!(covered(&archive.catalog, scope), want, "{scope}");
    }
    archive.stop_source(&name, at(3_000), "the test ends").unwrap();
    archive.close(at(3_000)).unwrap();

    // The time of the last reading outlives the process.
    let mut archive =
        Archive::open(&bench.path(), Arc::new(bench.disk.clone()), options(), decode_record, "test", at(3_600)).unwrap();
    archive.start_source(&name, HORIZON, boot(), at(3_600)).unwrap();
    archive.live(&name, ALL, HORIZON, at(3_601), "a frame").unwrap();
    assert_eq!(select(&mut archive, 3_602, &[("r1", "owls"), ("r2", "kite")]), ["r3 scope_changed 1740..3602"]);
    archive.stop_source(&name, at(3_700), "the test ends").unwrap();
    archive.close(at(3_700)).unwrap();
    let before = Catalog::open_read_only(&Layout::new(bench.path()).catalog()).unwrap();
    let (scopes, coverage) = (scopes_of(&before), before.coverage("alpha").unwrap());
    let sources = before.sources().unwrap();
    drop(before);
    rebuild(&bench.path(), Arc::new(bench.disk.clone()), options(), decode_record, "test", at(3_800)).unwrap();
    let after = Catalog::open_read_only(&Layout::new(bench.path()).catalog()).unwrap();
    assert_eq!((scopes_of(&after), after.coverage("alpha").unwrap()), (scopes, coverage), "a rebuild knows it, too");
    assert_eq!(after.sources().unwrap(), sources);
}
