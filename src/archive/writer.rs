//! The one writer of a tape, and the gap ledger.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::thread::{JoinHandle, available_parallelism};
use std::time::Duration;

use rand::Rng;

use super::fact::{Closed, Fact, KindResult, Spent, to_json};
use super::index::{ALL, Indexed, SourceIndex};
use super::layout::Layout;
use super::recover::Index;
use super::rescue::{Rescue, Unannounced};
use super::{ArchiveError, Decode, Hole, Options, Recovery, Result};
use crate::catalog::{Catalog, Change, GapRow, ScopeRow, SegmentRow};
use crate::model::{
    Body, Cause, ConnId, Decoded, Draft, GapState, Provider, RecordKind, Seq, SourceName, UnixMicros, panic_point,
};
use crate::segment::{self, Commit, Disk, FORMAT, Header, Sealed, SegmentError, Writer};

/// Given up when the disk is full, so that the farewell can be written.
const RESERVE_BYTES: usize = 1 << 20;

/// A disk that was full has room again when so much fits: the reserve, and something to go on with.
const ROOM_BYTES: usize = 3 * RESERVE_BYTES;

/// Without so much room a tape is not opened.
const SOME_BYTES: usize = 256 << 10;

/// A step in the filling of a gap.
#[derive(Clone, Copy, Debug)]
pub struct Filling<'a> {
    /// Its state from now on.
    pub state: GapState,
    /// In words: the price, the progress, the evidence.
    pub detail: &'a str,
    /// Where the walk stands.
    pub cursor: Option<&'a str>,
    /// What is known now of each kind of event.
    pub kinds: &'a [KindResult],
    /// What was spent since the last step.
    pub spent: Spent,
}

/// What a commit made durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The source.
    pub source: SourceName,
    /// Its last durable record.
    pub n: Seq,
    /// Hash of the segment's commit line.
    pub hash: u64,
}

/// A loss to be written into the ledger.
#[derive(Clone, Copy, Debug)]
pub struct Lost<'a> {
    /// `*` or a topic.
    pub scope: &'a str,
    /// Why.
    pub cause: Cause,
    /// In words, without secrets.
    pub detail: &'a str,
}

/// Something that selects a source's events, as its provider lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Selected<'a> {
    /// What its events name it by.
    pub scope: &'a str,
    /// What selects, where the provider says it.
    pub text: Option<&'a str>,
    /// What it is, in words.
    pub detail: &'a str,
}

/// The one writer of a tape.
pub struct Archive {
    pub(super) layout: Layout,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) catalog: Catalog,
    pub(super) options: Options,
    pub(super) decode: Decode,
    pub(super) tape: String,
    pub(super) index: BTreeMap<SourceName, SourceIndex>,
    pub(super) changes: Vec<Change>,
    recording: BTreeMap<SourceName, Recording>,
    /// Made durable and not told yet: the last commit of each source.
    committed: Vec<Committed>,
    pub(super) unannounced: Unannounced,
    pub(super) rescue: Rescue,
    to_seal: VecDeque<Box<dyn FnOnce() -> SealedOr + Send>>,
    sealing: Vec<JoinHandle<SealedOr>>,
    pub(super) recovery: Recovery,
    /// What is appended now belongs into one commit with what was appended before it.
    pub(super) is_mid_leaf: bool,
    /// Why it takes nothing more.
    poisoned: Option<String>,
    _lock: Box<dyn Send>,
}

/// A version of a scope.
#[derive(Clone, Copy)]
struct Promise<'a> {
    version: u32,
    since: UnixMicros,
    until: Option<UnixMicros>,
    horizon: Duration,
    text: Option<&'a str>,
    detail: &'a str,
}

struct Recording {
    writer: Writer,
    first_n: Seq,
    day: String,
    day_number: i64,
    first_at: UnixMicros,
    last_at: UnixMicros,
    dirty: bool,
}

type SealedOr = std::result::Result<Done, SegmentError>;

/// A segment that was sealed, with the packed ids of its blocks unchanged.
struct Done {
    source: SourceName,
    first_n: Seq,
    day: String,
    sealed: Sealed,
}

impl std::fmt::Debug for Archive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Archive").field("dir", &self.layout.dir()).finish_non_exhaustive()
    }
}

impl Archive {
    /// Opens a tape for writing, making it if there is none: takes the lock, clears what a crash left, seals open
    /// segments up to their last good commit, and lets the catalog catch up (or makes it again).
    ///
    /// `holder` is what another recorder will be told, `at` the present.
    ///
    /// # Errors
    /// When it is locked, of a newer format, not a tape, or the disk refuses.
    pub fn open(dir: &Path, disk: Arc<dyn Disk>, options: Options, decode: Decode, holder: &str, at: UnixMicros) -> Result<Self> {
        Self::open_with(dir, disk, options, decode, holder, Index::Keep, at)
    }

    pub(super) fn open_with(
        dir: &Path,
        disk: Arc<dyn Disk>,
        options: Options,
        decode: Decode,
        holder: &str,
        keep: Index,
        at: UnixMicros,
    ) -> Result<Self> {
        let layout = Layout::new(dir);
        let io = |source| ArchiveError::Io { what: "cannot create", path: dir.to_owned(), source };
        disk.create_dir(dir).map_err(io)?;
        let lock = layout.lock(&*disk, holder)?;
        let id: u128 = rand::rng().random();
        let info = layout.create(&*disk, &format!("{id:032x}"), at)?;
        has_some_room(&layout, &*disk)?;
        let recovered = super::recover::recover(&layout, &*disk, &options, decode, &info.tape, keep, at)?;
        let mut archive = Self {
            layout,
            disk,
            catalog: recovered.catalog,
            options,
            decode,
            tape: info.tape,
            index: recovered.index,
            changes: Vec::new(),
            recording: BTreeMap::new(),
            committed: Vec::new(),
            unannounced: Unannounced::default(),
            rescue: Rescue::default(),
            to_seal: VecDeque::new(),
            sealing: Vec::new(),
            recovery: recovered.recovery,
            is_mid_leaf: false,
            poisoned: None,
            _lock: lock,
        };
        archive.make_reserve();
        archive.write_recovery_notes(at)?;
        Ok(archive)
    }

    /// Takes the tape up again after the disk refused, without letting go of it: everything that was not committed is lost,
    /// and what was recorded is mended as [`open`](Self::open) does. Sources are to be started again.
    ///
    /// # Errors
    /// When the disk still refuses, or there is hardly any room; it can be tried again.
    pub fn reopen(&mut self, at: UnixMicros) -> Result<()> {
        let why = self.poisoned.clone().unwrap_or_else(|| "it was opened anew".to_owned());
        self.poisoned = Some(why.clone());
        self.probe()?;
        self.committed.clear();
        self.unannounced.clear();
        self.is_mid_leaf = false;
        self.mend(at)?;
        // The disk may have had no room for the farewell either.
        self.recovery.farewell.get_or_insert(why);
        self.poisoned = None;
        self.make_reserve();
        let noted = self.write_recovery_notes(at);
        self.guard(noted)
    }

    /// Lets go of what is being written, and does what opening does.
    pub(super) fn mend(&mut self, at: UnixMicros) -> Result<()> {
        // Whoever seals beside us must not meet the one that mends. What became of it, and what still waits, mending finds.
        self.to_seal.clear();
        self.sealing.drain(..).for_each(|sealing| drop(sealing.join()));
        self.recording.clear();
        self.changes.clear();
        // The file may be put aside.
        self.catalog = Catalog::in_memory()?;
        let recovered =
            super::recover::recover(&self.layout, &*self.disk, &self.options, self.decode, &self.tape, Index::Keep, at)?;
        (self.catalog, self.index, self.recovery) = (recovered.catalog, recovered.index, recovered.recovery);
        Ok(())
    }

    /// What opening had to mend.
    pub fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    /// Records of all sources.
    pub fn records(&self) -> u64 {
        self.index.values().map(|source| source.last_n().0).sum()
    }

    /// Id of the tape.
    pub fn tape(&self) -> &str {
        &self.tape
    }

    /// Makes a source known; one that is there keeps its provider.
    ///
    /// # Errors
    /// When it is there and records another provider.
    pub fn add_source(&mut self, name: &SourceName, provider: Provider) -> Result<()> {
        let index = self.index.entry(name.clone()).or_insert_with(|| SourceIndex::new(name.as_str(), provider.name()));
        if index.provider() != provider.name() {
            let (name, found, wanted) = (name.to_string(), index.provider().to_owned(), provider.to_string());
            return Err(ArchiveError::OtherProvider { name, found, wanted });
        }
        Ok(())
    }

    /// Appends a record; it is durable after the next [`commit`](Self::commit).
    ///
    /// `decoded` is what its envelope says; `None` is for records that are not envelopes, or that nobody could read.
    /// Where the disk refuses a file, what is not durable is written again to a new one, once in a while.
    ///
    /// # Errors
    /// When the disk refuses; the archive is then poisoned and must be opened again.
    ///
    /// # Panics
    /// When the source was never added.
    pub fn append(&mut self, source: &SourceName, draft: &Draft, decoded: Option<&Decoded>) -> Result<Seq> {
        self.check()?;
        let (at, day) = (draft.received_at, draft.received_at.day());
        let full = |r: &Recording| r.writer.raw_bytes() >= self.options.segment_bytes || r.day_number < day;
        if !self.is_mid_leaf && self.recording.get(source).is_some_and(full) {
            let rotated = self.try_commit(at).and_then(|()| self.rotate(source, at));
            self.or_rescued(rotated, at)?;
        }
        let n = self.index.get(source).expect("a source is added before it records").last_n().next();
        self.unannounced.keep(source, n, draft, decoded.is_some_and(|decoded| decoded.json));
        let appended = self.try_append(source, n, draft, decoded);
        self.or_rescued(appended, at)?;
        Ok(n)
    }

    fn try_append(&mut self, source: &SourceName, n: Seq, draft: &Draft, decoded: Option<&Decoded>) -> Result<()> {
        if !self.recording.contains_key(source) {
            self.begin(source, n, draft.received_at)?;
        }
        let recording = self.recording.get_mut(source).expect("just begun");
        let json = decoded.is_some_and(|d| d.json);
        let ended = recording.writer.append(n, draft, json)?;
        recording.last_at = recording.last_at.max(draft.received_at);
        recording.first_at = recording.first_at.min(draft.received_at);
        recording.dirty = true;
        let fact = match &draft.body {
            Body::Fact(fact) => Some(fact.as_str()),
            Body::Bytes(_) => None,
        };
        let events = decoded.map_or(&[][..], |d| &d.events);
        let (kind, via, conn) = (draft.kind, draft.via, draft.conn.0);
        let index = self.index.get_mut(source).expect("its number came from there");
        index.record(Indexed { n, at: draft.received_at, kind, via, conn, fact, events });
        if let Some(span) = ended {
            let row = index.end_block(recording.first_n.0, &span);
            self.changes.extend(row.map(Change::Block));
        }
        Ok(())
    }

    fn begin(&mut self, source: &SourceName, n: Seq, at: UnixMicros) -> Result<()> {
        let day = at.date();
        let dir = self.layout.day(source.as_str(), &day);
        self.disk.create_dir(&dir).map_err(|source| ArchiveError::Io { what: "cannot create", path: dir, source })?;
        let path = self.layout.open(source.as_str(), &day, n);
        let header = Header {
            n: Seq(n.0 - 1),
            at,
            format: FORMAT,
            tape: self.tape.as_str().into(),
            source: source.as_str().into(),
            provider: self.index[source].provider().to_owned().into(),
        };
        let writer = Writer::create(&*self.disk, &path, &header, self.options.level, self.options.block_bytes)?;
        let recording = Recording { writer, first_n: n, day, day_number: at.day(), first_at: at, last_at: at, dirty: false };
        self.recording.insert(source.clone(), recording);
        Ok(())
    }

    /// Makes everything appended so far durable: segments first, then the catalog; what it returns may be announced.
    ///
    /// # Errors
    /// When the disk refuses; the archive is then poisoned and must be opened again.
    pub fn commit(&mut self, at: UnixMicros) -> Result<Vec<Committed>> {
        self.check()?;
        let committed = self.try_commit(at);
        if committed.is_err() {
            self.or_rescued(committed, at)?;
            let again = self.try_commit(at);
            self.guard(again)?;
        }
        Ok(std::mem::take(&mut self.committed))
    }

    fn try_commit(&mut self, at: UnixMicros) -> Result<()> {
        for (source, recording) in self.recording.iter_mut().filter(|(_, r)| r.dirty) {
            let Commit { n, hash, .. } = recording.writer.commit(at)?;
            recording.dirty = false;
            self.unannounced.forget(source);
            self.committed.retain(|before| before.source != *source);
            self.committed.push(Committed { source: source.clone(), n, hash });
            self.changes.push(Change::Segment(SegmentRow {
                source: source.to_string(),
                first_n: recording.first_n.0,
                last_n: n.0,
                state: "open".to_owned(),
                day: recording.day.clone(),
                first_us: recording.first_at.0,
                last_us: recording.last_at.0,
                records: n.0 + 1 - recording.first_n.0,
                bytes: recording.writer.bytes(),
                raw_bytes: recording.writer.raw_bytes(),
                sha256: String::new(),
                content: String::new(),
            }));
        }
        self.unannounced.clear();
        self.reached("segments durable, catalog behind")?;
        self.collect_sealed(false)?;
        for index in self.index.values_mut() {
            index.take_changes(&mut self.changes);
        }
        if !self.changes.is_empty() {
            self.catalog.apply(&self.changes)?;
            self.changes.clear();
        }
        self.reached("catalog committed, not announced")
    }

    /// Ends a source's open segment and has it sealed.
    fn rotate(&mut self, source: &SourceName, at: UnixMicros) -> Result<()> {
        let Some(recording) = self.recording.remove(source) else { return Ok(()) };
        let (first_n, day) = (recording.first_n, recording.day);
        if let (Some(span), Some(index)) = (recording.writer.finish(at)?, self.index.get_mut(source)) {
            self.changes.extend(index.end_block(first_n.0, &span).map(Change::Block));
        }
        self.reached("segment finished, not sealed")?;
        let name = source.as_str();
        let open = self.layout.open(name, &day, first_n);
        let partial = self.layout.partial(name, &day, first_n);
        let sealed = self.layout.sealed(name, &day, first_n);
        let (disk, level, source) = (Arc::clone(&self.disk), self.options.level, source.clone());
        let work = move || {
            panic_point("sealer");
            let sealed = segment::seal(&*disk, &open, &partial, &sealed, level)?;
            Ok(Done { source, first_n, day, sealed })
        };
        if self.options.seal_in_background {
            self.to_seal.push_back(Box::new(work));
        } else {
            let done = work()?;
            self.note_sealed(&done);
        }
        Ok(())
    }

    /// Takes over what was sealed beside us, and has the next one sealed; all of them, when they are waited for.
    ///
    /// One at a time: sources that began together rotate together, and what a thread has needed stays with the process long
    /// after. At the end, or when more wait than there are sources, it must be fast.
    fn collect_sealed(&mut self, wait: bool) -> Result<()> {
        loop {
            let is_urgent = wait || self.to_seal.len() > self.index.len();
            let at_once = if is_urgent { available_parallelism().map_or(1, usize::from) } else { 1 };
            let room = at_once.saturating_sub(self.sealing.len()).min(self.to_seal.len());
            self.sealing.extend(self.to_seal.drain(..room).map(std::thread::spawn));
            if self.sealing.is_empty() {
                return Ok(());
            }
            let (done, running): (Vec<_>, Vec<_>) = self.sealing.drain(..).partition(|handle| wait || handle.is_finished());
            self.sealing = running;
            if done.is_empty() {
                return Ok(());
            }
            for handle in done {
                let done = handle.join().map_err(|_| ArchiveError::Panicked { part: "the part that seals segments" })??;
                self.note_sealed(&done);
            }
        }
    }

    fn note_sealed(&mut self, done: &Done) {
        let (source, segment_n) = (done.source.to_string(), done.first_n.0);
        self.changes.push(Change::Segment(segment_row(&source, done.first_n, &done.day, &done.sealed)));
        for block in &done.sealed.blocks {
            let (raw_offset, offset, bytes) = (block.raw_offset, block.offset, block.bytes);
            self.changes.push(Change::PlaceBlock { source: source.clone(), segment_n, raw_offset, offset, bytes });
        }
    }

    /// Commits, seals every open segment and lets go of the tape.
    ///
    /// # Errors
    /// When the disk refuses; what was committed before stays.
    pub fn close(self, at: UnixMicros) -> Result<()> {
        self.close_while(at, || true).map(drop)
    }

    /// As [`close`](Self::close), but seals only as long as there is time for it, which is asked before each segment. What
    /// is left open is sound: whoever opens the tape next seals it. Gives whether all is sealed.
    ///
    /// # Errors
    /// When the disk refuses; what was committed before stays.
    pub fn close_while(mut self, at: UnixMicros, mut has_time: impl FnMut() -> bool) -> Result<bool> {
        self.commit(at)?;
        let sources: Vec<SourceName> = self.recording.keys().cloned().collect();
        for source in sources {
            if !has_time() {
                self.to_seal.clear();
                self.catalog.leave_log()?;
                break;
            }
            let rotated = self.rotate(&source, at);
            self.guard(rotated)?;
        }
        let is_sealed = self.recording.is_empty();
        let collected = self.collect_sealed(true);
        self.guard(collected)?;
        self.commit(at)?;
        Ok(is_sealed)
    }

    // The ledger.

    fn note(&mut self, source: &SourceName, conn: ConnId, at: UnixMicros, fact: &Fact) -> Result<Seq> {
        self.append(source, &Draft::note(at, conn, to_json(fact)), None)
    }

    /// Begins to record a source: opens the gap since it was last recorded, and notes the start. Gives the number of the
    /// gap that is open now.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn start_source(
        &mut self,
        source: &SourceName,
        horizon: Duration,
        boot: (String, Duration),
        at: UnixMicros,
    ) -> Result<Option<u64>> {
        let known = self.index[source].scopes.get(ALL).map(|scope| scope.open_gap);
        let gap = match known {
            Some(None) => {
                self.lost(source, at, Lost { scope: ALL, cause: Cause::Stopped, detail: "the recorder was stopped" })?
            }
            // A hole that is open already goes on; stopping in good order added nothing to it.
            Some(open) => open,
            None => None,
        };
        let (boot_id, since_boot) = boot;
        let since_boot_us = u64::try_from(since_boot.as_micros()).unwrap_or(u64::MAX);
        let birdtape = env!("CARGO_PKG_VERSION").to_owned();
        self.note(source, ConnId(0), at, &Fact::Start { birdtape, boot_id, since_boot_us })?;
        // A gap of everything begins one horizon back: no scope may count with another one.
        let is_other = |row: &ScopeRow| row.until_us.is_none() && row.horizon_us != horizon.as_micros() as i64;
        let others: Vec<_> =
            self.index[source].scopes.values().map(|scope| &scope.row).filter(|row| is_other(row)).cloned().collect();
        for row in others {
            let (version, since, until) = (row.version + 1, UnixMicros(row.since_us), None);
            let promise = Promise { version, since, until, horizon, text: row.text.as_deref(), detail: &row.detail };
            self.promise_note(source, &row.scope, promise, at)?;
        }
        Ok(gap)
    }

    /// Notes the end of recording a source in good order.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn stop_source(&mut self, source: &SourceName, at: UnixMicros, reason: &str) -> Result<()> {
        self.note(source, ConnId(0), at, &Fact::Stop { reason: reason.to_owned() }).map(drop)
    }

    /// The number for the next connection of a source.
    pub fn next_conn(&mut self, source: &SourceName) -> ConnId {
        ConnId(self.index.get(source).map_or(1, |index| index.next_conn))
    }

    /// Ends a connection.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn close_connection(&mut self, source: &SourceName, conn: ConnId, at: UnixMicros, closed: &Closed) -> Result<Seq> {
        let draft = Draft { kind: RecordKind::Close, ..Draft::note(at, conn, to_json(closed)) };
        self.append(source, &draft, None)
    }

    /// Begins a connection.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn open_connection(&mut self, source: &SourceName, draft: &Draft) -> Result<Seq> {
        self.append(source, draft, None)
    }

    /// Notes proof of life that is no envelope.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn alive(&mut self, source: &SourceName, conn: ConnId, at: UnixMicros, evidence: &str) -> Result<()> {
        self.note(source, conn, at, &Fact::Alive { evidence: evidence.to_owned() }).map(drop)
    }

    /// Notes any other fact.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn remark(&mut self, source: &SourceName, at: UnixMicros, fact: &Fact) -> Result<()> {
        self.note(source, ConnId(0), at, fact).map(drop)
    }

    /// A scope's stream may be missing from the last evidence on: opens a gap there, or tells the gap that is still
    /// growing its newest cause. Gives the number of a new gap.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn lost(&mut self, source: &SourceName, at: UnixMicros, lost: Lost<'_>) -> Result<Option<u64>> {
        let Lost { scope, cause, detail } = lost;
        let known = self.index[source].scopes.contains_key(scope);
        if !known {
            // Nothing was ever covered: the promise begins now, and is broken now.
            let horizon = self.horizon(source);
            self.scope_note(source, scope, 1, horizon, at)?;
        }
        let open = self.index[source].scopes[scope].open_gap;
        if let Some(gap) = open {
            // That nobody answers while the link is down adds nothing to why it went down.
            let is_told = |row: &GapRow| cause == Cause::Unreachable || (row.cause == cause.name() && row.detail == detail);
            if !self.index[source].gap(gap).is_some_and(is_told) {
                self.step(source, at, gap, GapState::Open, Some(cause), None, detail)?;
            }
            return Ok(None);
        }
        let frontier = self.index.get_mut(source).and_then(|index| index.frontier(scope)).unwrap_or(at);
        let (scope, detail, cause) = (scope.to_owned(), detail.to_owned(), cause.name().to_owned());
        let gap = Fact::Gap { scope, cause, from: frontier, to: None, detail, lost_n: None };
        self.note(source, ConnId(0), at, &gap).map(|n| Some(n.0))
    }

    /// A scope is served, proven by evidence of `at`: its timeline begins, or its growing gap gets its end.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn live(&mut self, source: &SourceName, scope: &str, horizon: Duration, at: UnixMicros, evidence: &str) -> Result<()> {
        let known = self.index[source].scopes.get(scope).map(|s| (s.row.version, s.row.until_us, s.open_gap, s.row.horizon_us));
        match known {
            None => self.scope_note(source, scope, 1, horizon, at),
            Some((version, Some(_), ..)) => self.scope_note(source, scope, version + 1, horizon, at),
            Some((_, None, Some(gap), horizon_us)) => {
                let to = at.plus(Duration::from_micros(horizon_us.max(0) as u64));
                // Where the wall clock was put back, the gap began later than it ends: it is empty, not negative.
                let row = self.gap(source, gap).cloned();
                let to = row.as_ref().map_or(to, |row| to.max(UnixMicros(row.from_us)));
                self.step(source, at, gap, GapState::Open, None, Some(to), evidence)?;
                let untold = if scope == ALL { self.index[source].untold_behind(to) } else { Vec::new() };
                for (scope, from, to) in untold {
                    let detail =
                        "the wall clock was put back: what had been covered here was lost with the gap before it".to_owned();
                    let cause = row.as_ref().map(|row| row.cause.clone()).unwrap_or_default();
                    let lost = Fact::Gap { scope, cause, from, to: Some(to), detail, lost_n: None };
                    self.note(source, ConnId(0), at, &lost)?;
                }
                Ok(())
            }
            Some((_, None, None, _)) => Ok(()),
        }
    }

    /// A scope is no longer wanted: its timeline ends.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn end_scope(&mut self, source: &SourceName, scope: &str, at: UnixMicros) -> Result<()> {
        let until = self.index.get_mut(source).and_then(|index| index.frontier(scope)).unwrap_or(at);
        self.end_scope_at(source, scope, until, at)
    }

    fn end_scope_at(&mut self, source: &SourceName, scope: &str, until: UnixMicros, at: UnixMicros) -> Result<()> {
        let Some(row) = self.index[source].scopes.get(scope).map(|s| s.row.clone()) else { return Ok(()) };
        let horizon = Duration::from_micros(row.horizon_us.max(0) as u64);
        let (since, until) = (UnixMicros(row.since_us), Some(until));
        let (text, detail) = (row.text.as_deref(), row.detail.as_str());
        self.promise_note(source, scope, Promise { version: row.version, since, until, horizon, text, detail }, at)
    }

    /// All that selects a source's events was read from its provider: scopes that are new begin now, those with another
    /// text get another version, and those that are gone end. Where it was read before, nobody knows when in between a
    /// scope changed: the time between the readings, and a horizon around it, is a gap of that scope. Gives those gaps.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn select(
        &mut self,
        source: &SourceName,
        horizon: Duration,
        all: &[Selected<'_>],
        at: UnixMicros,
    ) -> Result<Vec<GapRow>> {
        let before = self.index[source].listed;
        self.note(source, ConnId(0), at, &Fact::Listed { scopes: all.len() as u64 })?;
        let known: Vec<_> =
            self.index[source].scopes.iter().filter(|(name, _)| *name != ALL).map(|(_, s)| s.row.clone()).collect();
        let mut gaps = Vec::new();
        for selected in all.iter().filter(|selected| selected.scope != ALL) {
            let row = known.iter().find(|row| row.scope == selected.scope);
            let (version, what) = match row {
                Some(row) if row.until_us.is_none() && row.text.as_deref() == selected.text => continue,
                Some(row) if row.until_us.is_none() => (row.version + 1, "its text changed"),
                Some(row) => (row.version + 1, "it is there again"),
                None => (1, "it is new"),
            };
            let Selected { scope, text, detail } = *selected;
            let goes_on = row.is_some_and(|row| row.until_us.is_none());
            let since = if goes_on { at } else { self.begins(source, at) };
            let promise = Promise { version, since, until: None, horizon, text, detail };
            self.promise_note(source, scope, promise, at)?;
            // After the note: a gap takes away only from scopes that are there.
            gaps.extend(self.scope_changed(source, selected.scope, before, at, (horizon, at.plus(horizon)), what)?);
        }
        for row in known.iter().filter(|row| row.until_us.is_none() && !all.iter().any(|one| one.scope == row.scope)) {
            gaps.extend(self.scope_changed(source, &row.scope, before, at, (horizon, at), "it is gone or switched off")?);
            self.end_scope_at(source, &row.scope, at, at)?;
        }
        Ok(gaps.into_iter().filter_map(|gap| self.gap(source, gap).cloned()).collect())
    }

    /// Opens the gap of a scope that changed since `before`, up to `to`.
    fn scope_changed(
        &mut self,
        source: &SourceName,
        scope: &str,
        before: Option<UnixMicros>,
        at: UnixMicros,
        (horizon, to): (Duration, UnixMicros),
        what: &str,
    ) -> Result<Option<u64>> {
        let Some(before) = before else { return Ok(None) };
        // Evidence may be older than the reading before.
        let frontier = self.index.get_mut(source).and_then(|index| index.frontier(scope)).unwrap_or(before);
        let from = before.minus(horizon).min(frontier);
        if from >= to {
            return Ok(None);
        }
        let detail = format!("{what} since {before}, when the provider's lists were read before; nobody knows from when on");
        let (scope, cause) = (scope.to_owned(), Cause::ScopeChanged.name().to_owned());
        let gap = Fact::Gap { scope, cause, from, to: Some(to), detail, lost_n: None };
        self.note(source, ConnId(0), at, &gap).map(|n| Some(n.0))
    }

    /// A bounded loss that is over already (an overflow, a damaged block): a gap with both ends.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn lost_until(&mut self, source: &SourceName, at: UnixMicros, lost: Lost<'_>) -> Result<()> {
        self.lost_between(source, at, at, lost)
    }

    /// As [`lost_until`](Self::lost_until), where other connections may have moved the frontier since the loss began at
    /// `since`: the gap reaches back to a horizon before that.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn lost_between(&mut self, source: &SourceName, since: UnixMicros, at: UnixMicros, lost: Lost<'_>) -> Result<()> {
        let Lost { scope, cause, detail } = lost;
        let horizon = self.horizon(source);
        let frontier = self.index.get_mut(source).and_then(|index| index.frontier(scope)).unwrap_or(since);
        let began = self.index[source].scopes.get(scope).map_or(since, |known| UnixMicros(known.row.since_us));
        let from = frontier.min(since.minus(horizon).max(began));
        let to = Some(at.plus(horizon).max(from));
        let (scope, detail, cause) = (scope.to_owned(), detail.to_owned(), cause.name().to_owned());
        self.note(source, ConnId(0), at, &Fact::Gap { scope, cause, from, to, detail, lost_n: None }).map(drop)
    }

    /// A stretch of published time, known from both ends, in which something may be missing although the connection was
    /// alive: a page that came full, a post that was spoken of and never came. Of a scope this archive keeps coverage of, a
    /// stretch that is not promised, or that a gap already tells of, is no news. Gives the gap's number.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn suspect(
        &mut self,
        source: &SourceName,
        at: UnixMicros,
        (from, to): (UnixMicros, UnixMicros),
        lost: Lost<'_>,
    ) -> Result<Option<u64>> {
        let index = &self.index[source];
        if from >= to || (index.scopes.contains_key(lost.scope) && !index.is_unsuspected(lost.scope, from, to)) {
            return Ok(None);
        }
        let (scope, detail, cause) = (lost.scope.to_owned(), lost.detail.to_owned(), lost.cause.name().to_owned());
        let gap = Fact::Gap { scope, cause, from, to: Some(to), detail, lost_n: None };
        self.note(source, ConnId(0), at, &gap).map(|n| Some(n.0))
    }

    /// Gives a gap another state.
    ///
    /// # Errors
    /// When the disk refuses.
    ///
    /// # Panics
    /// When there is no such gap; ask [`gap`](Self::gap) first.
    #[allow(clippy::too_many_arguments, reason = "each is a column of the ledger")]
    pub fn step(
        &mut self,
        source: &SourceName,
        at: UnixMicros,
        gap: u64,
        state: GapState,
        cause: Option<Cause>,
        to: Option<UnixMicros>,
        detail: &str,
    ) -> Result<()> {
        let row = self.index[source].gap(gap).expect("the caller looked the gap up");
        let cause = cause.map_or_else(|| row.cause.clone(), |c| c.name().to_owned());
        let (state, detail) = (state.name().to_owned(), detail.to_owned());
        let fact = Fact::GapStep { gap, state, cause, to, detail, cursor: None, kinds: Vec::new(), spent: Spent::default() };
        self.note(source, ConnId(0), at, &fact).map(drop)
    }

    /// Tells how far the filling of a gap has come, or what came of it.
    ///
    /// # Errors
    /// When the disk refuses.
    ///
    /// # Panics
    /// When there is no such gap; ask [`gap`](Self::gap) first.
    pub fn fill(&mut self, source: &SourceName, at: UnixMicros, gap: u64, filling: Filling<'_>) -> Result<()> {
        let row = self.index[source].gap(gap).expect("the caller looked the gap up");
        let fact = Fact::GapStep {
            gap,
            state: filling.state.name().to_owned(),
            cause: row.cause.clone(),
            to: row.to_us.map(UnixMicros),
            detail: filling.detail.to_owned(),
            cursor: filling.cursor.map(str::to_owned),
            kinds: filling.kinds.to_vec(),
            spent: filling.spent,
        };
        self.note(source, ConnId(0), at, &fact).map(drop)
    }

    /// A gap of a source.
    pub fn gap(&self, source: &SourceName, n: u64) -> Option<&GapRow> {
        self.index.get(source)?.gap(n)
    }

    /// Gaps of a source through which loss is still possible.
    pub fn open_gaps(&self, source: &SourceName) -> Vec<GapRow> {
        self.index.get(source).map_or_else(Vec::new, |index| index.open_gaps().cloned().collect())
    }

    /// How far a scope's timeline is told; a gap would begin there. `None` when there is no such scope.
    pub fn frontier(&mut self, source: &SourceName, scope: &str) -> Option<UnixMicros> {
        self.index.get_mut(source)?.frontier(scope)
    }

    /// Topics of a source whose timeline has not ended, in order.
    pub fn open_topics(&self, source: &SourceName) -> Vec<String> {
        let scopes = self.index.get(source).map(|index| &index.scopes);
        let open = scopes.into_iter().flatten().filter(|(name, scope)| *name != ALL && scope.row.until_us.is_none());
        open.map(|(name, _)| name.clone()).collect()
    }

    /// Last record of a source.
    pub fn last_n(&self, source: &SourceName) -> Seq {
        self.index.get(source).map_or(Seq(0), SourceIndex::last_n)
    }

    pub(super) fn horizon(&self, source: &SourceName) -> Duration {
        let us = self.index[source].scopes.get(ALL).map_or(60_000_000, |scope| scope.row.horizon_us);
        Duration::from_micros(us.max(0) as u64)
    }

    /// From when on a scope that is new at `at` is promised. While everything is being lost the wall clock may have been put
    /// back to before that began: what is between is nobody's, and is not promised.
    fn begins(&self, source: &SourceName, at: UnixMicros) -> UnixMicros {
        let index = &self.index[source];
        let growing = index.scopes.get(ALL).and_then(|all| index.gap(all.open_gap?));
        growing.map_or(at, |gap| at.max(UnixMicros(gap.from_us)))
    }

    fn scope_note(&mut self, source: &SourceName, scope: &str, version: u32, horizon: Duration, at: UnixMicros) -> Result<()> {
        let detail = if scope == ALL { "everything the provider delivers on this source" } else { "one topic" };
        let since = self.begins(source, at);
        self.promise_note(source, scope, Promise { version, since, until: None, horizon, text: None, detail }, at)
    }

    fn promise_note(&mut self, source: &SourceName, scope: &str, promise: Promise<'_>, at: UnixMicros) -> Result<()> {
        let Promise { version, since, until, horizon, text, detail } = promise;
        let horizon_us = u64::try_from(horizon.as_micros()).unwrap_or(u64::MAX);
        let (scope, detail, text) = (scope.to_owned(), detail.to_owned(), text.map(str::to_owned));
        self.note(source, ConnId(0), at, &Fact::Scope { scope, version, since, until, horizon_us, detail, text }).map(drop)
    }

    /// Writes into the tape what opening found, so that a rebuild finds it too.
    fn write_recovery_notes(&mut self, at: UnixMicros) -> Result<()> {
        let settled = self.recovery.settled.clone();
        for (source, fact) in &settled {
            self.remark(source, at, fact)?;
        }
        let is_settled = self.settle_pruned(at)? || !settled.is_empty();
        let is_mended = self.note_recovery(at)?;
        let buried = self.bury(at)?;
        if buried || is_settled || is_mended {
            self.commit(at)?;
        }
        let path = self.layout.farewell();
        let io = |source| ArchiveError::Io { what: "cannot remove", path: path.clone(), source };
        if self.disk.len(&path).map_err(io)?.is_some() {
            self.disk.remove(&path).map_err(io)?;
        }
        Ok(())
    }

    /// Segments that were sealed, and records that were found lost; whether there were any.
    pub(super) fn note_recovery(&mut self, at: UnixMicros) -> Result<bool> {
        let Recovery { sealed, holes, .. } = self.recovery.clone();
        for sealed in &sealed {
            let fact = Fact::Recovered { segment: sealed.first_n.0, kept_n: sealed.last_n.0, torn_bytes: sealed.torn_bytes };
            self.remark(&sealed.source, at, &fact)?;
        }
        for hole in &holes {
            self.note_hole(hole, at)?;
        }
        Ok(!sealed.is_empty() || !holes.is_empty())
    }

    /// Writes into the ledger that records are lost.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn note_hole(&mut self, hole: &Hole, at: UnixMicros) -> Result<()> {
        let horizon = self.horizon(&hole.source);
        let (from, to) = (hole.after.minus(horizon), Some(hole.before.max(hole.after).plus(horizon)));
        let detail = format!("records {} to {} are lost: {}", hole.first_n, hole.last_n, hole.why);
        let lost_n = Some((hole.first_n.0, hole.last_n.0));
        let fact = Fact::Gap { scope: ALL.to_owned(), cause: Cause::Damaged.name().to_owned(), from, to, detail, lost_n };
        self.remark(&hole.source, at, &fact)
    }

    /// Says farewell in the name of recorders that could not, and opens the gaps that their ends left.
    fn bury(&mut self, at: UnixMicros) -> Result<bool> {
        let dead: Vec<SourceName> = self.index.iter().filter(|(_, index)| index.running).map(|(name, _)| name.clone()).collect();
        let farewell = self.recovery.farewell.clone();
        let (cause, words) = match &farewell {
            Some(words) => (Cause::Disk, words.as_str()),
            None => (Cause::Killed, "the recorder ended without a farewell"),
        };
        for source in &dead {
            for conn in self.index[source].unclosed() {
                let closed = Closed { by: "unknown".to_owned(), detail: words.to_owned(), ..Closed::default() };
                self.close_connection(source, ConnId(conn), at, &closed)?;
            }
            if self.index[source].scopes.contains_key(ALL) {
                self.lost(source, at, Lost { scope: ALL, cause, detail: words })?;
            }
            self.stop_source(source, at, words)?;
        }
        Ok(!dead.is_empty())
    }

    // Failing.

    pub(super) fn check(&self) -> Result<()> {
        if self.poisoned.is_some() { Err(ArchiveError::Poisoned) } else { Ok(()) }
    }

    pub(super) fn reached(&self, point: &'static str) -> Result<()> {
        let path = self.layout.dir().to_owned();
        self.disk.reached(point).map_err(|source| ArchiveError::Io { what: "cannot write", path, source })
    }

    /// What failed is done again in a new file where that is possible, else it is the end.
    fn or_rescued(&mut self, done: Result<()>, at: UnixMicros) -> Result<()> {
        let done = done.or_else(|error| self.rescue(error, at));
        self.guard(done)
    }

    /// After a failed write nothing more is written but the farewell.
    pub(super) fn guard<T>(&mut self, result: Result<T>) -> Result<T> {
        if let Err(error) = &result
            && self.poisoned.is_none()
        {
            let why = in_full(error);
            self.farewell(&why);
            self.poisoned = Some(why);
        }
        result
    }

    /// Leaves word of why recording ended, on the space that was kept for it. Best effort: the next start opens the
    /// gap in any case, only its cause would be "killed".
    fn farewell(&self, why: &str) {
        drop(self.disk.remove(&self.layout.reserve()));
        let text = to_json(&serde_json::json!({ "cause": "disk", "detail": why }));
        drop(self.layout.write_whole(&*self.disk, &self.layout.farewell(), text.as_bytes()));
    }

    /// The reserve is a convenience: where there is no room for it there is none for recording either.
    pub(super) fn make_reserve(&self) {
        let path = self.layout.reserve();
        match self.disk.len(&path) {
            Ok(Some(bytes)) if bytes == RESERVE_BYTES as u64 => return,
            // A kill, or a full disk, came in between.
            Ok(Some(_)) => drop(self.disk.remove(&path)),
            Ok(None) => {}
            Err(_) => return,
        }
        if self.fill_up(&path, RESERVE_BYTES).is_err() {
            drop(self.disk.remove(&path));
        }
    }

    /// Whether a refusal is over sooner or later, see [`ArchiveError::is_passing`].
    pub fn is_passing(&self, error: &ArchiveError) -> bool {
        error.is_passing(&*self.disk, self.layout.dir())
    }

    /// Whether there is hardly any room on the disk.
    pub fn is_out_of_room(&self) -> bool {
        self.probe().is_err_and(|error| error.is_full())
    }

    /// Whether there is room, found out by taking it: nothing else tells of quotas.
    fn probe(&self) -> Result<()> {
        let path = self.layout.reserve();
        let io = |source| ArchiveError::Io { what: "cannot write", path: path.clone(), source };
        if self.disk.len(&path).map_err(io)?.is_some() {
            self.disk.remove(&path).map_err(io)?;
        }
        let filled = self.fill_up(&path, ROOM_BYTES);
        let removed = self.disk.remove(&path);
        filled.and(removed).map_err(io)
    }

    fn fill_up(&self, path: &Path, bytes: usize) -> std::io::Result<()> {
        let mut file = self.disk.create(path)?;
        file.append(&vec![0x5a; bytes])?;
        file.sync()
    }
}

/// Whether SQLite may map its shared memory: where that finds no room, there is no error but SIGBUS.
fn has_some_room(layout: &Layout, disk: &dyn Disk) -> Result<()> {
    let path = layout.probe();
    let io = |source| ArchiveError::Io { what: "cannot write", path: path.clone(), source };
    if disk.len(&path).map_err(io)?.is_some() {
        disk.remove(&path).map_err(io)?;
    }
    let filled = disk.create(&path).and_then(|mut file| file.append(&[0x5a; SOME_BYTES]));
    let removed = disk.len(&path).and_then(|len| if len.is_some() { disk.remove(&path) } else { Ok(()) });
    filled.and(removed).map_err(io)
}

/// An error with its causes, in one line.
pub(super) fn in_full(error: &ArchiveError) -> String {
    let mut words = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let more = error.to_string();
        // A transparent error repeats the words of what it wraps.
        if !words.ends_with(&more) {
            words = format!("{words}: {more}");
        }
        cause = error.source();
    }
    words
}

/// Row of a sealed segment.
pub(super) fn segment_row(source: &str, first_n: Seq, day: &str, sealed: &Sealed) -> SegmentRow {
    let with_records = || sealed.blocks.iter().filter(|b| b.records > 0);
    SegmentRow {
        source: source.to_owned(),
        first_n: first_n.0,
        last_n: sealed.last_n().0,
        state: "sealed".to_owned(),
        day: day.to_owned(),
        first_us: with_records().map(|b| b.first_at.0).min().unwrap_or(0),
        last_us: with_records().map(|b| b.last_at.0).max().unwrap_or(0),
        records: sealed.records(),
        bytes: sealed.bytes,
        raw_bytes: sealed.raw_bytes,
        sha256: sealed.sha256.clone(),
        content: sealed.content.clone(),
    }
}
