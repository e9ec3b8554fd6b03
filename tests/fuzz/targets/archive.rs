//! A tape that was killed, cut, bent or made by somebody else: it is mended, nothing is invented, and mended twice is mended
//! once.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use birdtape::archive::{
    ALL, Archive, Closed, Disk, Fact, Filling, Lost, MemDisk, Opened, Options, Selected, Span, Spent, Stretch, Tape, verify,
};
use birdtape::model::{Body, Cause, ConnId, Draft, GapState, Provider, RecordKind, SourceName, TweetId, UnixMicros, Via};
use birdtape::provider::{decode, decode_record};
use bytes::Bytes;

/// 2026-11-02T08:00:00Z and so many seconds.
pub(super) fn second(at: i64) -> UnixMicros {
    UnixMicros(1_793_606_400_000_000 + at * 1_000_000)
}

pub(super) fn options() -> Options {
    Options { block_bytes: 1_200, segment_bytes: 1 << 30, level: 1, seal_in_background: false, ..Options::default() }
}

/// A tape as files: those of the disk by their place on the tape, and the catalog.
pub(super) struct Files {
    disk: Vec<(String, Vec<u8>)>,
    pub(super) catalog: Vec<u8>,
}

impl Files {
    /// Forty envelopes, a drop, a gap that is filled in part; still being written, or ended in good order.
    fn make(is_ended: bool) -> Self {
        let dir = super::scratch();
        let disk = MemDisk::default();
        let open = Archive::open(dir.path(), Arc::new(disk.clone()), options(), decode_record, "fuzz", second(0));
        let mut archive = open.expect("a new tape");
        let name = SourceName::new("alpha").expect("a name");
        record(&mut archive, &name).expect("memory takes everything");
        if is_ended {
            archive.close_connection(&name, ConnId(2), second(300), &Closed::default()).expect("memory");
            archive.stop_source(&name, second(300), "enough").expect("memory");
            archive.close(second(300)).expect("memory");
        } else {
            drop(archive);
        }
        let place = |path: &Path| path.strip_prefix(dir.path()).expect("on the tape").to_str().expect("a name").to_owned();
        let files = disk.files().into_iter().map(|(path, data)| (place(&path), data)).collect();
        Self { disk: files, catalog: std::fs::read(dir.path().join("catalog.sqlite")).expect("a catalog") }
    }

    pub(super) fn ended() -> &'static Self {
        static ENDED: OnceLock<Files> = OnceLock::new();
        ENDED.get_or_init(|| Self::make(true))
    }

    fn open() -> &'static Self {
        static OPEN: OnceLock<Files> = OnceLock::new();
        OPEN.get_or_init(|| Self::make(false))
    }

    /// Puts them on a disk, each changed by `bend`, and the catalog into the directory.
    pub(super) fn lay(&self, dir: &Path, catalog: Option<&[u8]>, bend: impl Fn(&str, &[u8]) -> Option<Vec<u8>>) -> MemDisk {
        let disk = MemDisk::default();
        for (place, data) in &self.disk {
            if let Some(data) = bend(place, data) {
                put(&disk, &dir.join(place), data);
            }
        }
        for name in ["catalog.sqlite-wal", "catalog.sqlite-shm", "catalog.sqlite.new", "catalog.sqlite"] {
            std::fs::remove_file(dir.join(name)).ok();
        }
        if let Some(catalog) = catalog {
            std::fs::write(dir.join("catalog.sqlite"), catalog).expect("a file");
        }
        disk
    }

    fn segment(&self) -> &[u8] {
        &self.disk.iter().find(|(place, _)| place.ends_with(".open")).expect("it is being written").1
    }
}

fn put(disk: &MemDisk, path: &Path, data: Vec<u8>) {
    disk.create(path).expect("a new file");
    disk.overwrite(path, data);
}

fn envelope(n: u64, at: UnixMicros) -> Bytes {
    let (id, stamp) = (TweetId::first_at(at).0 + n, at.millis());
    Bytes::from(format!(
        r#"{{"event_type":"tweet","rule_id":"r1","tweets":[{{"id":"{id}","text":"the {n}th"}}],"timestamp":{stamp}}}"#
    ))
}

fn record(archive: &mut Archive, name: &SourceName) -> Result<(), birdtape::archive::ArchiveError> {
    const HORIZON: Duration = Duration::from_secs(30);
    archive.add_source(name, Provider::TwitterapiIo)?;
    archive.start_source(name, HORIZON, ("boot".to_owned(), HORIZON), second(1))?;
    for life in 0..2 {
        let now = 10 + life * 150;
        archive.live(name, ALL, HORIZON, second(now), "opened")?;
        let conn = archive.next_conn(name);
        let opened = serde_json::to_string(&Opened { url: "ws://x/".to_owned(), ..Opened::default() }).expect("JSON");
        archive
            .open_connection(name, &Draft { kind: RecordKind::Open, via: Via::Ws, ..Draft::note(second(now), conn, opened) })?;
        let rule = Selected { scope: "r1", text: Some(if life == 0 { "one" } else { "two" }), detail: "a rule" };
        archive.select(name, HORIZON, &[rule], second(now))?;
        for n in 1..=20 {
            let at = second(now + n);
            let bytes = envelope(n as u64, at);
            let decoded = decode(Provider::TwitterapiIo, &bytes);
            let (kind, via, body) = (RecordKind::Frame, Via::Ws, Body::Bytes(bytes));
            archive.append(name, &Draft { received_at: at, kind, via, conn, info: None, body }, Some(&decoded))?;
            if n % 5 == 0 {
                archive.commit(at)?;
            }
        }
        if life == 0 {
            let closed = Closed { code: Some(1006), ..Closed::default() };
            archive.close_connection(name, conn, second(now + 21), &closed)?;
            let lost = Lost { scope: ALL, cause: Cause::ConnectionLost, detail: "reset" };
            if let Some(gap) = archive.lost(name, second(now + 21), lost)? {
                let rest = vec![Stretch { from: second(40), to: second(50) }];
                let state = GapState::Partial.name().to_owned();
                let kinds = [birdtape::archive::KindResult { kind: "tweet".to_owned(), state, why: "cut".to_owned(), rest }];
                let spent = Spent { requests: 2, rows: 9, micro_usd: 300 };
                let filling = Filling { state: GapState::Partial, detail: "some", cursor: None, kinds: &kinds, spent };
                archive.fill(name, second(now + 22), gap, filling)?;
            }
        }
    }
    let fact = Fact::Audit { scope: ALL.to_owned(), from: second(12), to: second(14), asked: 3, missed: 0 };
    archive.remark(name, second(290), &fact)?;
    archive.commit(second(290)).map(drop)
}

/// The envelopes on a tape, each with its number.
fn frames(tape: &Tape) -> Vec<(u64, Bytes)> {
    let Ok(mut records) = tape.records("alpha", Span::default()) else { return Vec::new() };
    let mut found = Vec::new();
    while let Ok(Some(record)) = records.next() {
        if record.kind == RecordKind::Frame {
            found.push((record.n.0, record.body));
        }
    }
    found
}

/// The first byte says what is not as it was: the open segment is the input (0), has bits flipped (1) or is cut (2), `tape.json`
/// (3) or the remains of pruning (4) are the input, or a sealed segment is (5). The second: whether the catalog is gone.
pub(super) fn recovery(data: &[u8]) -> bool {
    static DIR: OnceLock<tempfile::TempDir> = OnceLock::new();
    let [mode, catalog, rest @ ..] = data else { return false };
    let dir = DIR.get_or_init(super::scratch).path().join(format!("{:?}", std::thread::current().id()));
    std::fs::create_dir_all(&dir).expect("a directory");
    let (files, mode) = (Files::open(), mode % 6);
    let known = catalog.is_multiple_of(2).then_some(&files.catalog[..]);
    let bent = |segment: &[u8]| -> Vec<u8> {
        let mut bent = segment.to_vec();
        match mode {
            0 => bent = rest.to_vec(),
            1 => {
                for three in rest.chunks_exact(3) {
                    let at = usize::from(u16::from_le_bytes([three[0], three[1]])) % segment.len();
                    bent[at] ^= three[2];
                }
            }
            _ => bent.truncate(rest.iter().fold(0, |sum, byte| (sum * 256 + usize::from(*byte)) % segment.len())),
        }
        bent
    };
    let disk = files.lay(&dir, known, |place, data| match mode {
        0..=2 if place.ends_with(".open") => Some(bent(data)),
        3 if place == "tape.json" => Some(rest.to_vec()),
        5 if place.ends_with(".open") => None,
        _ => Some(data.to_vec()),
    });
    let open = &files.disk.iter().find(|(place, _)| place.ends_with(".open")).expect("there is one").0;
    match mode {
        4 => put(&disk, &dir.join("segments/alpha/pruned.jsonl.zst"), rest.to_vec()),
        5 => put(&disk, &dir.join(open.strip_suffix(".open").expect("it is open")), rest.to_vec()),
        _ => {}
    }
    let disk: Arc<dyn Disk> = Arc::new(disk);
    let mend = |at: i64| Archive::open(&dir, Arc::clone(&disk), options(), decode_record, "fuzz", second(at));
    drop(verify(&dir, &*disk, decode_record, |_| {}));
    let Ok(archive) = mend(1_000) else { return false };
    let is_news = !archive.recovery().holes.is_empty() || !archive.recovery().sealed.is_empty();
    archive.close(second(1_000)).expect("memory takes everything");
    let tape = Tape::open(&dir, Arc::clone(&disk)).expect("it was mended");
    let first = frames(&tape);
    drop(tape);
    if let 1 | 2 = mode {
        let sent: Vec<_> = sent().collect();
        assert!(first.len() <= sent.len());
        assert!(first.iter().all(|(n, bytes)| sent.contains(&(*n, bytes.clone()))), "something is invented");
        let report = verify(&dir, &*disk, decode_record, |_| {}).expect("it can be read");
        let unknown: Vec<_> = report.damage.iter().filter(|damage| !damage.known).collect();
        assert!(unknown.is_empty(), "mended, and still damaged: {unknown:?}");
    }
    let again = mend(2_000).expect("what is mended can be opened");
    let (holes, sealed) = (&again.recovery().holes, &again.recovery().sealed);
    assert!(holes.is_empty() && sealed.is_empty(), "mended again: {holes:?} {sealed:?}");
    again.close(second(2_000)).expect("memory takes everything");
    let second = frames(&Tape::open(&dir, disk).expect("it was mended"));
    assert_eq!(first, second, "mended twice");
    is_news
}

/// What was recorded.
fn sent() -> impl Iterator<Item = (u64, Bytes)> {
    static SENT: OnceLock<Vec<(u64, Bytes)>> = OnceLock::new();
    let sent = SENT.get_or_init(|| {
        let disk = MemDisk::default();
        put(&disk, Path::new("s/1.jsonl.zst.open"), Files::open().segment().to_vec());
        let mut reader = birdtape::segment::Reader::open(&disk, Path::new("s/1.jsonl.zst.open")).expect("it is there");
        let mut walk = birdtape::segment::Walk::new(birdtape::segment::Trust::Chain);
        let mut sent = Vec::new();
        while let Some(block) = reader.next_block().expect("memory can be read") {
            let proven = walk.block(&block, |line, _| {
                if let birdtape::segment::Line::Record(record) = line
                    && record.kind == RecordKind::Frame
                {
                    sent.push((record.n.0, Bytes::from(record.bytes().expect("our own").into_owned())));
                }
                Ok::<_, ()>(())
            });
            proven.expect("nobody refuses");
        }
        assert_eq!(sent.len(), 40);
        sent
    });
    sent.iter().cloned()
}
