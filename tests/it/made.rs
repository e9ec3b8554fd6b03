//! Small tapes that are made at once, with every kind of row in the ledger: to be damaged.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use birdtape::archive::{
    ALL, Archive, ArchiveError, Closed, Disk, Fact, Filling, KindResult, Lost, MemDisk, Opened, Options, Selected, Spent,
    Stretch, Tape,
};
use birdtape::catalog::{Catalog, CatalogError};
use birdtape::model::{Body, Cause, ConnId, Draft, GapState, Provider, RecordKind, SourceName, TweetId, UnixMicros, Via};
use birdtape::provider::{decode, decode_record};
use bytes::Bytes;
use tempfile::TempDir;

const HORIZON: Duration = Duration::from_secs(30);

/// 2026-11-02T08:00:00Z and so many seconds.
pub(crate) fn second(at: i64) -> UnixMicros {
    UnixMicros(1_793_606_400_000_000 + at * 1_000_000)
}

/// A directory that costs no disk, where there is one.
pub(crate) fn directory() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

/// A tape whose segments are in memory and whose catalog is a file.
pub(crate) struct Made {
    pub(crate) dir: TempDir,
    pub(crate) disk: MemDisk,
    pub(crate) options: Options,
}

impl Made {
    pub(crate) fn new(options: Options) -> Self {
        Self { dir: directory(), disk: MemDisk::default(), options }
    }

    /// The same tape once more, in a place of its own.
    pub(crate) fn copy(&self) -> Self {
        let copy = Self::new(self.options.clone());
        for (path, data) in self.disk.files() {
            let path = copy.dir.path().join(path.strip_prefix(self.dir.path()).unwrap());
            copy.disk.create(&path).unwrap();
            copy.disk.overwrite(&path, data);
        }
        for entry in std::fs::read_dir(self.dir.path()).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), copy.dir.path().join(entry.file_name())).unwrap();
        }
        copy
    }

    pub(crate) fn disk(&self) -> Arc<dyn Disk> {
        Arc::new(self.disk.clone())
    }

    pub(crate) fn open(&self, at: i64) -> Result<Archive, ArchiveError> {
        Archive::open(self.dir.path(), self.disk(), self.options.clone(), decode_record, "test", second(at))
    }

    pub(crate) fn tape(&self) -> Result<Tape, ArchiveError> {
        Tape::open(self.dir.path(), self.disk())
    }

    pub(crate) fn catalog(&self) -> PathBuf {
        self.dir.path().join("catalog.sqlite")
    }

    /// Every row of the catalog.
    pub(crate) fn rows(&self) -> Result<Vec<String>, CatalogError> {
        Catalog::open_read_only(&self.catalog())?.dump(|_, _, _| true)
    }

    /// Paths of segments, sealed or open.
    pub(crate) fn segments(&self, suffix: &str) -> Vec<PathBuf> {
        let files = self.disk.files().into_iter().map(|(path, _)| path);
        files.filter(|path| path.to_str().is_some_and(|name| name.ends_with(suffix))).collect()
    }
}

pub(crate) fn source(name: &str) -> SourceName {
    SourceName::new(name).unwrap()
}

/// An envelope of TwitterAPI.io; `words` is what it is worth to a compressor.
pub(crate) fn envelope(n: u64, at: UnixMicros, words: &str) -> Bytes {
    let id = TweetId::first_at(at).0 + n;
    let (rule, stamp) = (n % 3, at.millis());
    Bytes::from(format!(
        r#"{{"event_type":"tweet","rule_id":"r{rule}","tweets":[{{"id":"{id}","text":"the {n}th {words}"}}],"timestamp":{stamp}}}"#
    ))
}

/// One life of a recorder with `n` envelopes, a drop in the middle, and a ledger with a row of every table, committed every
/// seven envelopes. What it leaves open at the end is the caller's.
pub(crate) fn live(archive: &mut Archive, name: &SourceName, n: u64, begin: i64, words: impl FnMut(u64) -> String) -> i64 {
    let commit = |nth: u64, at: i64, archive: &mut Archive, _: &Bytes| {
        if nth % 7 == 6 {
            archive.commit(second(at)).unwrap();
        }
    };
    let now = live_with(archive, name, n, begin, words, commit);
    archive.commit(second(now)).unwrap();
    now
}

/// The same; what is done after an envelope was appended is the caller's, too.
pub(crate) fn live_with(
    archive: &mut Archive,
    name: &SourceName,
    n: u64,
    begin: i64,
    mut words: impl FnMut(u64) -> String,
    mut appended: impl FnMut(u64, i64, &mut Archive, &Bytes),
) -> i64 {
    archive.add_source(name, Provider::TwitterapiIo).unwrap();
    archive.start_source(name, HORIZON, ("boot".to_owned(), HORIZON), second(begin)).unwrap();
    let mut now = begin;
    let mut conn = ConnId(0);
    for nth in 0..n {
        if nth == 0 || nth == n / 2 {
            if nth > 0 {
                archive.close_connection(name, conn, second(now), &Closed { code: Some(1006), ..Closed::default() }).unwrap();
                let lost = Lost { scope: ALL, cause: Cause::ConnectionLost, detail: "reset" };
                let gap = archive.lost(name, second(now), lost).unwrap().unwrap();
                now += 100;
                archive.live(name, ALL, HORIZON, second(now), "opened").unwrap();
                let rest = vec![Stretch { from: second(now - 90), to: second(now - 80) }];
                let state = GapState::Partial.name().to_owned();
                let kinds = [KindResult { kind: "tweet".to_owned(), state, why: "cut".to_owned(), rest }];
                let spent = Spent { requests: 2, rows: 9, micro_usd: 300 };
                let filling = Filling { state: GapState::Partial, detail: "some", cursor: None, kinds: &kinds, spent };
                archive.fill(name, second(now), gap, filling).unwrap();
            } else {
                archive.live(name, ALL, HORIZON, second(now), "opened").unwrap();
            }
            conn = archive.next_conn(name);
            let opened = serde_json::to_string(&Opened { url: "ws://x/".to_owned(), ..Opened::default() }).unwrap();
            let draft = Draft { kind: RecordKind::Open, via: Via::Ws, ..Draft::note(second(now), conn, opened) };
            archive.open_connection(name, &draft).unwrap();
            let rule = Selected { scope: "r1", text: Some(if nth == 0 { "one" } else { "two" }), detail: "a rule" };
            archive.select(name, HORIZON, &[rule], second(now)).unwrap();
        }
        now += 1;
        let bytes = envelope(nth, second(now), &words(nth));
        let decoded = decode(Provider::TwitterapiIo, &bytes);
        let draft = Draft {
            received_at: second(now),
            kind: RecordKind::Frame,
            via: Via::Ws,
            conn,
            info: None,
            body: Body::Bytes(bytes.clone()),
        };
        archive.append(name, &draft, Some(&decoded)).unwrap();
        appended(nth, now, archive, &bytes);
    }
    let (from, to) = (second(begin + 1), second(begin + 3));
    archive.remark(name, second(now), &Fact::Audit { scope: ALL.to_owned(), from, to, asked: 3, missed: 0 }).unwrap();
    now
}

/// Ends it in good order.
pub(crate) fn end(mut archive: Archive, names: &[&SourceName], now: i64) {
    for name in names {
        let conn = ConnId(archive.next_conn(name).0 - 1);
        archive.close_connection(name, conn, second(now), &Closed::default()).unwrap();
        archive.stop_source(name, second(now), "enough").unwrap();
    }
    archive.close(second(now)).unwrap();
}
