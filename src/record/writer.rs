//! The one that owns the archive: appends in the order of the queue, commits in groups, then tells.
//!
//! It is a thread of its own, because a disk may take its time; as a task it runs on virtual time.
//!
//! Also decides what several connections to one source mean together: the source is lost when none of them serves it,
//! and an event that two of them bring counts once.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use super::board::Board;
use super::latency::Latency;
use super::queue::{Delivered, Entry, Item, Queue, Taken};
use super::suspicion::{Suspicion, Suspicions};
use super::{Ending, Event, LossWindow, OpenGap, Options, RecordError, Sink, SourceOutcome, World, Writing, panicked, words_of};
use crate::archive::{self, ALL, Archive, ArchiveError, Closed, Fact, GapRow, Hole, Leaf, Lost, PenError, Selected};
use crate::model::{
    Body, Cause, ConnId, Decoded, Draft, Message, Provider, RecordKind, Seq, SourceName, UnixMicros, Via, panic_point,
};
use crate::net::{self, Clock};
use crate::provider::{self, Loudness, Scope};

/// How long the writer lets entries gather, where commits are far enough apart.
const LINGER: Duration = Duration::from_millis(5);

/// Entries appended between two looks at the commit's deadline.
const LOOK_EVERY: usize = 64;

/// The first and the longest wait before a disk that was full is tried again.
const FULL_WAIT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(2));

/// Sealing a segment takes so many times as long as a commit, where syncs are what takes long.
const SEALS_AS_COMMITS: u32 = 4;

/// In the place of a connection's slot, for what came by webhook.
const BY_WEBHOOK: usize = usize::MAX;

/// Events remembered to count those that several connections bring once.
const RECENT_EVENTS: usize = 65_536;

/// The writer as seen from outside.
pub(super) struct Handle {
    done: oneshot::Receiver<Result<Written, ArchiveError>>,
    runs: Runs,
    board: Arc<Board>,
}

enum Runs {
    /// It ends by itself when its queue is closed.
    Thread(Option<JoinHandle<()>>),
    /// It ends with this handle, where it stands.
    Task(JoinSet<()>),
}

/// What the writer has to say at its end.
#[derive(Clone, Debug)]
pub(super) struct Written {
    pub(super) sources: Vec<SourceOutcome>,
    pub(super) loss_window: LossWindow,
    pub(super) ending: Ending,
}

impl Handle {
    /// Waits for the end of a writer that was told to end.
    pub(super) async fn finish(&mut self) -> Result<Written, RecordError> {
        match (&mut self.done).await {
            Ok(written) => Ok(written?),
            Err(_) => Err(self.panic().await),
        }
    }

    /// What it has made safe so far.
    pub(super) fn board(&self) -> &Arc<Board> {
        &self.board
    }

    /// Waits for a writer that ends although nobody told it to. May be dropped while it waits.
    pub(super) async fn failure(&mut self) -> RecordError {
        match self.finish().await {
            Err(error) => error,
            Ok(_) => RecordError::Panicked { part: "the writer".to_owned(), why: "it ended too early".to_owned() },
        }
    }

    async fn panic(&mut self) -> RecordError {
        let part = "the writer";
        let why = match &mut self.runs {
            Runs::Thread(thread) => match thread.take().map(JoinHandle::join) {
                Some(Err(panic)) => words_of(&*panic),
                _ => "it ended without a word".to_owned(),
            },
            Runs::Task(task) => match task.join_next().await {
                Some(Err(error)) => return panicked(part, error),
                _ => "it ended without a word".to_owned(),
            },
        };
        RecordError::Panicked { part: part.to_owned(), why }
    }
}

/// Starts it; the tape's id comes over `ready` when the tape is open.
pub(super) fn spawn(
    options: &Options,
    world: &World,
    queue: &Arc<Queue>,
    events: &Sink,
    ledger: watch::Sender<()>,
    ready: oneshot::Sender<String>,
) -> Handle {
    let board = Arc::new(Board::default());
    let plan = Plan {
        board: Arc::clone(&board),
        tape: options.tape.clone(),
        archive: options.archive.clone(),
        holder: options.holder.clone(),
        sources: options.sources.iter().map(Planned::of).collect(),
        world: world.clone(),
        queue: Arc::clone(queue),
        events: Arc::clone(events),
        ledger,
    };
    let (tell, done) = oneshot::channel();
    let broken = BreakOff(Arc::clone(queue));
    let runs = match world.writing {
        Writing::Thread => {
            let thread = std::thread::Builder::new().name("birdtape-writer".to_owned()).spawn(move || {
                let result = write(plan, ready);
                drop(broken);
                // Nobody listens when the job itself was dropped.
                drop(tell.send(result));
            });
            // Without a thread the sender is gone, which reads as a failure.
            Runs::Thread(thread.ok())
        }
        Writing::Task => {
            let mut task = JoinSet::new();
            task.spawn(async move {
                let result = write_as_task(plan, ready).await;
                drop(broken);
                drop(tell.send(result));
            });
            Runs::Task(task)
        }
    };
    Handle { done, runs, board }
}

/// However the writer ends, nobody waits for room that never comes.
struct BreakOff(Arc<Queue>);

impl Drop for BreakOff {
    fn drop(&mut self) {
        self.0.break_off();
    }
}

struct Plan {
    tape: PathBuf,
    archive: archive::Options,
    holder: String,
    sources: Vec<Planned>,
    world: World,
    queue: Arc<Queue>,
    events: Sink,
    ledger: watch::Sender<()>,
    board: Arc<Board>,
}

struct Planned {
    name: SourceName,
    provider: Provider,
    connections: u32,
    horizon: Duration,
    topics: Vec<String>,
    /// Whether what selects is read from the provider.
    reads_scopes: bool,
    /// Whether its events come by webhook, too.
    has_webhook: bool,
}

impl Planned {
    fn of(source: &super::Source) -> Self {
        Self {
            name: source.name.clone(),
            provider: source.settings.provider,
            connections: source.connections.max(1),
            horizon: source.lateness_horizon,
            topics: source.settings.topics.clone(),
            reads_scopes: !source.settings.scopes_every.is_zero(),
            has_webhook: source.webhook.is_some(),
        }
    }
}

fn write(plan: Plan, ready: oneshot::Sender<String>) -> Result<Written, ArchiveError> {
    let queue = Arc::clone(&plan.queue);
    let mut wait = Duration::ZERO;
    let archive = loop {
        match plan.open(&mut wait)? {
            Opened::Archive(archive) => break *archive,
            Opened::Full(error) if queue.closes_within(wait) => return Err(error),
            Opened::Full(_) => {}
        }
    };
    let mut writer = Writer::begin(plan, archive, ready)?;
    let (linger, mut entries) = (writer.linger(), Vec::new());
    loop {
        let taken = queue.take(&mut entries, writer.due(), now, linger);
        let mut turned = writer.turn(taken, &mut entries);
        while let Err(error) = turned {
            let mut stall = writer.stall(error)?;
            while !writer.is_going_on(&mut stall)? {
                if queue.closes_within(stall.wait) {
                    return Err(stall.error);
                }
            }
            turned = writer.append_all(&mut entries).map(ControlFlow::Continue);
        }
        if turned?.is_break() {
            return writer.finish(&queue.reason());
        }
    }
}

async fn write_as_task(plan: Plan, ready: oneshot::Sender<String>) -> Result<Written, ArchiveError> {
    let queue = Arc::clone(&plan.queue);
    let mut wait = Duration::ZERO;
    let archive = loop {
        match plan.open(&mut wait)? {
            Opened::Archive(archive) => break *archive,
            Opened::Full(error) if queue.closed_within(wait).await => return Err(error),
            Opened::Full(_) => {}
        }
    };
    let mut writer = Writer::begin(plan, archive, ready)?;
    let mut entries = Vec::new();
    loop {
        let taken = queue.taken(&mut entries, writer.due().map(Into::into)).await;
        let mut turned = writer.turn(taken, &mut entries);
        while let Err(error) = turned {
            let mut stall = writer.stall(error)?;
            while !writer.is_going_on(&mut stall)? {
                if queue.closed_within(stall.wait).await {
                    return Err(stall.error);
                }
            }
            turned = writer.append_all(&mut entries).map(ControlFlow::Continue);
        }
        if turned?.is_break() {
            return writer.finish(&queue.reason());
        }
    }
}

/// What came of opening the tape.
enum Opened {
    Archive(Box<Archive>),
    /// There is no room now.
    Full(ArchiveError),
}

impl Plan {
    /// Opens the tape. A disk that is full at the start is waited for like one that runs full later.
    fn open(&self, wait: &mut Duration) -> Result<Opened, ArchiveError> {
        let (disk, at) = (Arc::clone(&self.world.disk), self.world.clock.wall());
        let opened = Archive::open(&self.tape, disk, self.archive.clone(), provider::decode_record, &self.holder, at);
        match opened {
            Ok(archive) if wait.is_zero() => Ok(Opened::Archive(Box::new(archive))),
            Ok(archive) => {
                self.say(Loudness::Warn, "there is room on the disk again; recording begins");
                Ok(Opened::Archive(Box::new(archive)))
            }
            Err(error) if error.is_passing(&*self.world.disk, &self.tape) => {
                let is_first = wait.is_zero();
                *wait = if is_first { FULL_WAIT.0 } else { FULL_WAIT.1 };
                if is_first {
                    self.say(Loudness::Error, &format!("{}: recording begins when that is over", why_not(&error)));
                }
                Ok(Opened::Full(error))
            }
            Err(error) => Err(error),
        }
    }

    /// About the disk, which all sources share.
    fn say(&self, loudness: Loudness, text: &str) {
        if let Some(first) = self.sources.first() {
            (self.events)(Event::Said { source: first.name.clone(), loudness, text: text.to_owned() });
        }
    }
}

/// Of a refusal that passes.
fn why_not(error: &ArchiveError) -> &'static str {
    match error {
        ArchiveError::Catalog(refusal) if !refusal.is_full() && !refusal.is_io() => "too many files are open",
        error if error.is_out_of_files() => "too many files are open",
        _ => "the disk is full",
    }
}

struct Writer {
    archive: Archive,
    queue: Arc<Queue>,
    board: Arc<Board>,
    clock: Arc<dyn Clock>,
    events: Sink,
    /// Changes whenever a gap may have got its end.
    ledger: watch::Sender<()>,
    is_ledger_changed: bool,
    /// Those who wait for the next commit.
    owed: Vec<oneshot::Sender<Result<(), PenError>>>,
    sources: Vec<SourceState>,
    slots: Vec<Slot>,
    commit_every: Duration,
    /// Arrival of the oldest record that is not durable.
    oldest: Option<Instant>,
    last_at: UnixMicros,
    latency: Latency,
}

/// The disk is full. Nothing is taken from the queue meanwhile: it fills, and what does not fit is dropped and counted.
struct Stall {
    error: ArchiveError,
    since: Instant,
    /// Before the next try; none before the first.
    wait: Duration,
}

struct SourceState {
    outcome: SourceOutcome,
    horizon: Duration,
    reads_scopes: bool,
    slots: std::ops::Range<usize>,
    /// Nothing is covered: no connection has proven itself since the last loss, or ever.
    is_lost: bool,
    /// Topics the archive knows, with the connections that serve them.
    topics: BTreeMap<String, BTreeSet<usize>>,
    /// Events seen lately; only where several connections bring them.
    recent: Option<Recent>,
    suspicions: Suspicions,
    /// What selects, read while no connection had proven itself: it counts from the first proof on.
    listed: Option<Vec<Scope>>,
    older_gaps: BTreeSet<u64>,
    /// Envelopes since the last commit, and their bytes.
    fresh: (u64, u64),
    /// Told after the commit.
    news: Vec<Event>,
}

struct Slot {
    source: usize,
    conn: ConnId,
    /// What was said of the connection that is open.
    opened: Option<archive::Opened>,
    /// Stamp of its newest entry.
    last_at: UnixMicros,
    state: SlotState,
    /// The next loss that is told is the end of a connection that was given up because the machine slept.
    slept: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum SlotState {
    /// Has never been open nor told why not.
    Fresh,
    Open {
        proven: bool,
    },
    Down,
}

impl Writer {
    /// Begins to record the sources, and says that the tape is open.
    fn begin(plan: Plan, archive: Archive, ready: oneshot::Sender<String>) -> Result<Self, ArchiveError> {
        let mut writer = Self {
            archive,
            queue: plan.queue,
            board: plan.board,
            clock: Arc::clone(&plan.world.clock),
            events: plan.events,
            ledger: plan.ledger,
            is_ledger_changed: false,
            owed: Vec::new(),
            sources: Vec::new(),
            slots: Vec::new(),
            commit_every: plan.archive.commit_every,
            oldest: None,
            last_at: UnixMicros(i64::MIN),
            latency: Latency::new(),
        };
        for planned in plan.sources {
            writer.start(planned)?;
        }
        writer.commit()?;
        if ready.send(writer.archive.tape().to_owned()).is_err() {
            // The job was dropped in the meantime; the queue is closed, so this ends at once.
            tracing::debug!("nobody waits for the tape any more");
        }
        Ok(writer)
    }

    fn start(&mut self, planned: Planned) -> Result<(), ArchiveError> {
        let Planned { name, provider, connections, horizon, topics, reads_scopes, has_webhook } = planned;
        let at = self.now();
        let is_wanted = |topic: &str| topics.iter().any(|wanted| wanted == topic);
        let (row, known) = self.begin_source(&name, provider, horizon, (reads_scopes, &is_wanted), at)?;
        let known = known.into_iter().map(|topic| (topic, BTreeSet::new())).collect();
        let news = row.map(|row| gap_event(&name, row)).into_iter().collect();
        let older_gaps = self.archive.open_gaps(&name).iter().map(|gap| gap.n).collect();
        let first = self.slots.len();
        let slots = first..first + connections as usize;
        let fresh = |_| Slot {
            source: self.sources.len(),
            conn: ConnId(0),
            opened: None,
            last_at: at,
            state: SlotState::Fresh,
            slept: false,
        };
        self.slots.extend(slots.clone().map(fresh));
        let outcome = SourceOutcome {
            name,
            provider,
            frames: 0,
            bytes: 0,
            events: 0,
            repeated: 0,
            unknown: 0,
            faults: 0,
            connections: 0,
            dropped: 0,
            dropped_bytes: 0,
            last_n: Seq(0),
            open_gaps: Vec::new(),
            fault: None,
            fault_text: None,
        };
        let recent = (connections > 1 || has_webhook).then(Recent::default);
        self.board.add(&outcome);
        let state = SourceState {
            outcome,
            horizon,
            reads_scopes,
            slots,
            is_lost: true,
            topics: known,
            recent,
            suspicions: Suspicions::default(),
            listed: None,
            older_gaps,
            fresh: (0, 0),
            news,
        };
        self.sources.push(state);
        self.oldest.get_or_insert_with(now);
        Ok(())
    }

    /// Tells the tape that a source is recorded from now on. Gives the gap that is open, and the topics that are known and wanted.
    fn begin_source(
        &mut self,
        name: &SourceName,
        provider: Provider,
        horizon: Duration,
        (reads_scopes, is_wanted): (bool, &dyn Fn(&str) -> bool),
        at: UnixMicros,
    ) -> Result<(Option<GapRow>, Vec<String>), ArchiveError> {
        self.archive.add_source(name, provider)?;
        let boot = self.clock.boot();
        let gap = self.archive.start_source(name, horizon, (boot.boot_id, boot.since_boot), at)?;
        let row = gap.and_then(|gap| self.archive.gap(name, gap)).cloned();
        let mut known = Vec::new();
        // Scopes that are read go with the whole source until the next reading.
        let open = if reads_scopes { Vec::new() } else { self.archive.open_topics(name) };
        for topic in open {
            if is_wanted(&topic) {
                // Each topic waits for its own proof.
                let cause = row.as_ref().and_then(|row| row.cause.parse().ok()).unwrap_or(Cause::Stopped);
                let detail = row.as_ref().map_or("the recorder was stopped", |row| &row.detail);
                self.archive.lost(name, at, Lost { scope: &topic, cause, detail })?;
                known.push(topic);
            } else {
                self.archive.live(name, &topic, horizon, at, "no longer wanted")?;
                self.archive.end_scope(name, &topic, at)?;
            }
        }
        Ok((row, known))
    }

    /// The wall clock, never before a stamp that is on the tape already.
    fn now(&mut self) -> UnixMicros {
        self.last_at = self.last_at.max(self.clock.wall());
        self.last_at
    }

    /// How long entries may gather.
    fn linger(&self) -> Duration {
        if self.commit_every >= LINGER * 4 { LINGER } else { Duration::ZERO }
    }

    /// When the next commit is due.
    fn due(&self) -> Option<Instant> {
        self.oldest.map(|oldest| oldest + self.commit_every)
    }

    /// Does what the queue gave; a break is its end.
    fn turn(&mut self, taken: Taken, entries: &mut Vec<Entry>) -> Result<ControlFlow<()>, ArchiveError> {
        match taken {
            Taken::Ended => return Ok(ControlFlow::Break(())),
            Taken::Late => self.commit()?,
            Taken::Entries => self.append_all(entries)?,
        }
        Ok(ControlFlow::Continue(()))
    }

    fn append_all(&mut self, entries: &mut Vec<Entry>) -> Result<(), ArchiveError> {
        // Taken one by one, so that those behind one that the disk refuses are still there.
        entries.reverse();
        let appended = self.append_reversed(entries);
        entries.reverse();
        appended
    }

    fn append_reversed(&mut self, entries: &mut Vec<Entry>) -> Result<(), ArchiveError> {
        let mut nth = 0;
        // What gathered while the disk was slow is old already: it goes into one commit, not each handful into its own.
        let mut since = now();
        while let Some(entry) = entries.pop() {
            nth += 1;
            self.oldest.get_or_insert(entry.arrived);
            self.append(entry)?;
            let looks = self.commit_every.is_zero() || nth % LOOK_EVERY == 0;
            if looks && self.oldest.is_some_and(|oldest| oldest.max(since) + self.commit_every <= now()) {
                self.commit()?;
                since = now();
            }
        }
        // At the end the farewell is in the same commit.
        if !self.queue.is_closed() && self.oldest.is_some_and(|oldest| oldest + self.commit_every <= now()) {
            self.commit()?;
        }
        Ok(())
    }

    fn commit(&mut self) -> Result<(), ArchiveError> {
        let at = self.now();
        let committed = self.archive.commit(at)?;
        if let Some(oldest) = self.oldest.take() {
            self.latency.note(now().saturating_duration_since(oldest));
        }
        // Whoever has gone meanwhile needs no answer.
        self.owed.drain(..).for_each(|told| drop(told.send(Ok(()))));
        if std::mem::take(&mut self.is_ledger_changed) {
            self.ledger.send_replace(());
        }
        for done in committed {
            let mut all = self.sources.iter_mut().enumerate();
            let Some((nth, source)) = all.find(|(_, source)| source.outcome.name == done.source) else { continue };
            source.news.drain(..).for_each(|event| (self.events)(event));
            let (frames, bytes) = std::mem::take(&mut source.fresh);
            self.board.settle(nth, &source.outcome, (frames, bytes));
            (self.events)(Event::Committed { source: done.source, n: done.n, hash: done.hash, frames, bytes });
        }
        Ok(())
    }

    fn append(&mut self, entry: Entry) -> Result<(), ArchiveError> {
        let Entry { slot, at, item, .. } = entry;
        let slot = slot as usize;
        self.last_at = self.last_at.max(at);
        if item.is_of_connection() {
            self.slots[slot].last_at = at;
        }
        match item {
            Item::Frame { bytes, decoded, via, info } => self.frame(slot, at, (bytes, info), &decoded, via)?,
            Item::Broken { bytes, decoded, via, info } => {
                self.source(slot).outcome.faults += 1;
                self.frame(slot, at, (bytes, Some(info)), &decoded, via)?;
            }
            Item::Alive(evidence) => {
                let (name, conn) = self.whose(slot);
                self.archive.alive(&name, conn, at, evidence)?;
                self.evidence(slot, at, evidence)?;
            }
            Item::Sent(text) => self.own(slot, at, RecordKind::Sent, None, Body::Bytes(Bytes::from(text)))?,
            Item::Http { info, body } => self.own(slot, at, RecordKind::Http, Some(info), Body::Bytes(body))?,
            Item::Opened(opened) => self.opened(slot, at, &opened)?,
            Item::Closed(closed) => self.closed(slot, at, &closed)?,
            Item::Lost { scope, cause, detail } if scope == ALL => {
                if !std::mem::take(&mut self.slots[slot].slept) {
                    self.all_lost(slot, at, cause, &detail)?;
                }
            }
            Item::Slept { detail } => {
                self.all_lost(slot, at, Cause::Suspended, &detail)?;
                self.slots[slot].slept = true;
            }
            Item::Lost { scope, cause, detail } => self.topic_lost(slot, at, &scope, cause, &detail)?,
            Item::Live { scope } => self.topic_live(slot, at, scope)?,
            Item::Dropped { scope } => self.topic_dropped(slot, at, &scope)?,
            Item::Scopes { all } => match self.source(slot) {
                source if source.is_lost => source.listed = Some(all),
                _ => self.scopes(slot, at, &all)?,
            },
            Item::ClockStep { step_us } => {
                let (name, _) = self.whose(slot);
                self.archive.remark(&name, at, &Fact::Clock { step_us })?;
            }
            Item::Overflow { since, envelopes, bytes } => self.overflow(slot, since, at, envelopes, bytes)?,
            Item::Leaf(leaf, told) => self.leaf(&leaf, told)?,
            Item::Delivery(delivered, told) => self.delivery(slot, at, *delivered, told)?,
            Item::Hole(hole, told) => self.hole(&hole, at, told)?,
        }
        Ok(())
    }

    /// What a filler of gaps hands over; that it cannot be written is the filler's affair, unless the disk refuses.
    fn leaf(&mut self, leaf: &Leaf, told: oneshot::Sender<Result<(), PenError>>) -> Result<(), ArchiveError> {
        match self.archive.keep(leaf) {
            Ok(()) => self.owed.push(told),
            Err(PenError::Archive(error)) => {
                self.owed.push(told);
                return Err(error);
            }
            Err(refusal) => drop(told.send(Err(refusal))),
        }
        Ok(())
    }

    /// What came by webhook. It moves no frontier.
    fn delivery(
        &mut self,
        slot: usize,
        at: UnixMicros,
        delivered: Delivered,
        told: oneshot::Sender<Result<(), PenError>>,
    ) -> Result<(), ArchiveError> {
        let Delivered { bytes, decoded, info } = delivered;
        self.owed.push(told);
        self.envelope(slot, (at, ConnId(0), Via::Webhook), (bytes, info), &decoded, BY_WEBHOOK)
    }

    /// Records of a sealed segment, perhaps of a source that is not recorded now, are lost.
    fn hole(&mut self, hole: &Hole, at: UnixMicros, told: oneshot::Sender<Result<(), PenError>>) -> Result<(), ArchiveError> {
        let opened = self.archive.note_loss(hole, at)?;
        self.owed.push(told);
        self.is_ledger_changed |= opened.is_some();
        let source = self.sources.iter_mut().find(|source| source.outcome.name == hole.source);
        if let (Some(n), Some(source)) = (opened, source)
            && let Some(row) = self.archive.gap(&hole.source, n)
        {
            let (scope, cause, detail) = (row.scope.clone(), row.cause.clone(), row.detail.clone());
            source.news.push(Event::Gap { source: hole.source.clone(), n, scope, cause, detail });
        }
        Ok(())
    }

    fn source(&mut self, slot: usize) -> &mut SourceState {
        &mut self.sources[self.slots[slot].source]
    }

    fn whose(&self, slot: usize) -> (SourceName, ConnId) {
        let Slot { source, conn, .. } = &self.slots[slot];
        (self.sources[*source].outcome.name.clone(), *conn)
    }

    fn frame(
        &mut self,
        slot: usize,
        at: UnixMicros,
        (bytes, info): (Bytes, Option<String>),
        decoded: &Decoded,
        via: Via,
    ) -> Result<(), ArchiveError> {
        panic_point("writer");
        let Slot { conn, state, .. } = self.slots[slot];
        self.envelope(slot, (at, conn, via), (bytes, info), decoded, slot)?;
        let source = self.source(slot);
        let suspicions = source.suspicions.look(source.outcome.provider, decoded, at, source.horizon);
        if source.is_lost || state == (SlotState::Open { proven: false }) {
            self.evidence(slot, at, "an envelope")?;
        }
        suspicions.into_iter().try_for_each(|suspicion| self.suspect(slot, at, suspicion))
    }

    /// Keeps and counts an envelope; `way` tells those that may bring the same events apart.
    fn envelope(
        &mut self,
        slot: usize,
        (at, conn, via): (UnixMicros, ConnId, Via),
        (bytes, info): (Bytes, Option<String>),
        decoded: &Decoded,
        way: usize,
    ) -> Result<(), ArchiveError> {
        let source = &mut self.sources[self.slots[slot].source];
        let n_bytes = bytes.len() as u64;
        let draft = Draft { received_at: at, kind: RecordKind::Frame, via, conn, info, body: Body::Bytes(bytes) };
        // Also when the disk refuses it: then it is among those that are lost.
        source.fresh = (source.fresh.0 + 1, source.fresh.1 + n_bytes);
        self.archive.append(&source.outcome.name, &draft, Some(decoded))?;
        let outcome = &mut source.outcome;
        (outcome.frames, outcome.bytes) = (outcome.frames + 1, outcome.bytes + n_bytes);
        outcome.unknown += u64::from(decoded.message == Message::Unknown);
        match &mut source.recent {
            None => outcome.events += decoded.events.len() as u64,
            Some(recent) => {
                let fresh = decoded.events.iter().filter(|event| recent.is_fresh(way, event)).count() as u64;
                outcome.events += fresh;
                outcome.repeated += decoded.events.len() as u64 - fresh;
            }
        }
        Ok(())
    }

    fn suspect(&mut self, slot: usize, at: UnixMicros, suspicion: Suspicion) -> Result<(), ArchiveError> {
        let Suspicion { scope, cause, from, to, detail } = suspicion;
        let (name, _) = self.whose(slot);
        let opened = self.archive.suspect(&name, at, (from, to), Lost { scope: &scope, cause, detail: &detail })?;
        self.is_ledger_changed |= opened.is_some();
        let news = opened.map(|n| Event::Gap { source: name, n, scope, cause: cause.name().to_owned(), detail });
        self.source(slot).news.extend(news);
        Ok(())
    }

    fn own(
        &mut self,
        slot: usize,
        at: UnixMicros,
        kind: RecordKind,
        info: Option<String>,
        body: Body,
    ) -> Result<(), ArchiveError> {
        let (name, conn) = self.whose(slot);
        let decoded = match &body {
            // Only tells whether the body may stand verbatim.
            Body::Bytes(bytes) => {
                let provider = self.source(slot).outcome.provider;
                Some(Decoded { json: provider::decode(provider, bytes).json, ..Decoded::default() })
            }
            Body::Fact(_) => None,
        };
        let draft = Draft { received_at: at, kind, via: Via::Own, conn, info, body };
        self.archive.append(&name, &draft, decoded.as_ref()).map(drop)
    }

    fn opened(&mut self, slot: usize, at: UnixMicros, opened: &archive::Opened) -> Result<(), ArchiveError> {
        let (name, _) = self.whose(slot);
        // Before the disk can refuse: the connection is there in any case.
        self.slots[slot].opened = Some(opened.clone());
        let conn = self.archive.next_conn(&name);
        let body = serde_json::to_string(opened).expect("facts are made of strings and numbers only");
        let draft = Draft { received_at: at, kind: RecordKind::Open, via: Via::Own, conn, info: None, body: Body::Fact(body) };
        self.archive.open_connection(&name, &draft)?;
        let place = &mut self.slots[slot];
        (place.conn, place.state, place.slept) = (conn, SlotState::Open { proven: false }, false);
        let source = self.source(slot);
        source.outcome.connections += 1;
        source.news.push(Event::Connected { source: name, conn: conn.0, url: opened.url.clone() });
        Ok(())
    }

    fn closed(&mut self, slot: usize, at: UnixMicros, closed: &Closed) -> Result<(), ArchiveError> {
        let (name, conn) = self.whose(slot);
        if conn == ConnId(0) {
            return Ok(());
        }
        self.slots[slot].opened = None;
        self.archive.close_connection(&name, conn, at, closed)?;
        self.slots[slot].conn = ConnId(0);
        let code = closed.code.map_or(String::new(), |code| format!(" with code {code}"));
        let words = [&closed.reason, &closed.detail].into_iter().find(|words| !words.is_empty());
        let words = words.map_or(String::new(), |words| format!(": {words}"));
        let detail = format!("ended by {}{code}{words}", closed.by);
        self.source(slot).news.push(Event::Disconnected { source: name, conn: conn.0, detail });
        Ok(())
    }

    // A full disk.

    /// Any refusal but a full disk is the end; that one is told, and what was not committed counts as dropped.
    fn stall(&mut self, error: ArchiveError) -> Result<Stall, ArchiveError> {
        // SQLite does not always say that it is for want of room.
        let is_out_of_room = || matches!(error, ArchiveError::Catalog(_)) && self.archive.is_out_of_room();
        if !self.archive.is_passing(&error) && !is_out_of_room() {
            return Err(error);
        }
        self.oldest = None;
        self.owed.drain(..).for_each(|told| drop(told.send(Err(PenError::Full))));
        for (nth, source) in self.sources.iter_mut().enumerate() {
            let (frames, bytes) = std::mem::take(&mut source.fresh);
            source.outcome = self.board.durable(nth);
            source.outcome.dropped += frames;
            source.outcome.dropped_bytes += bytes;
            self.board.settle(nth, &source.outcome, (frames, bytes));
            source.news.clear();
        }
        let words = "nothing is recorded until there is room again; this will be a gap";
        self.say(Loudness::Error, format!("{}: {words}", why_not(&error)));
        Ok(Stall { error, since: now(), wait: Duration::ZERO })
    }

    /// Tries to go on, unless it is the first time: room does not come back within an instant.
    fn is_going_on(&mut self, stall: &mut Stall) -> Result<bool, ArchiveError> {
        if stall.wait.is_zero() {
            stall.wait = FULL_WAIT.0;
            return Ok(false);
        }
        match self.resume() {
            Ok(()) => {}
            Err(error) if self.archive.is_passing(&error) => {
                stall.wait = (stall.wait * 2).min(FULL_WAIT.1);
                return Ok(false);
            }
            Err(error) => return Err(error),
        }
        let waited = humantime::format_duration(Duration::from_secs(now().saturating_duration_since(stall.since).as_secs()));
        self.say(Loudness::Warn, format!("there is room on the disk again; recording goes on after {waited}"));
        Ok(true)
    }

    /// Takes the tape up again. The connections are still there; on the tape they begin anew.
    fn resume(&mut self) -> Result<(), ArchiveError> {
        let at = self.now();
        self.archive.reopen(at)?;
        self.oldest = Some(now());
        for nth in 0..self.sources.len() {
            let SourceState { outcome, horizon, reads_scopes, topics, .. } = &mut self.sources[nth];
            let (name, provider, horizon, reads_scopes) = (outcome.name.clone(), outcome.provider, *horizon, *reads_scopes);
            let topics = std::mem::take(topics);
            let begun = self.begin_source(&name, provider, horizon, (reads_scopes, &|topic| topics.contains_key(topic)), at);
            let source = &mut self.sources[nth];
            (source.topics, source.is_lost) = (topics, true);
            source.news = begun?.0.map(|row| gap_event(&name, row)).into_iter().collect();
        }
        for slot in 0..self.slots.len() {
            self.slots[slot].conn = ConnId(0);
            if let Some(opened) = self.slots[slot].opened.clone() {
                // It was open when the newest entry came, and those behind it have later stamps.
                self.opened(slot, self.slots[slot].last_at, &opened)?;
            }
        }
        self.commit()
    }

    /// About the disk, which all sources share.
    fn say(&self, loudness: Loudness, text: String) {
        if let Some(first) = self.sources.first() {
            (self.events)(Event::Said { source: first.outcome.name.clone(), loudness, text });
        }
    }

    // The ledger of sources with several connections.

    fn evidence(&mut self, slot: usize, at: UnixMicros, words: &str) -> Result<(), ArchiveError> {
        // What still comes over a connection whose loss is told proves nothing any more.
        let SlotState::Open { .. } = self.slots[slot].state else { return Ok(()) };
        self.slots[slot].state = SlotState::Open { proven: true };
        let source = &mut self.sources[self.slots[slot].source];
        if std::mem::take(&mut source.is_lost) {
            self.archive.live(&source.outcome.name, ALL, source.horizon, at, words)?;
            self.is_ledger_changed = true;
            // Those it served already, before the disk was full.
            for (topic, _) in source.topics.iter().filter(|(_, served_by)| served_by.contains(&slot)) {
                self.archive.live(&source.outcome.name, topic, source.horizon, at, words)?;
            }
        }
        match source.listed.take() {
            Some(all) => self.scopes(slot, at, &all),
            None => Ok(()),
        }
    }

    fn all_lost(&mut self, slot: usize, at: UnixMicros, cause: Cause, detail: &str) -> Result<(), ArchiveError> {
        self.slots[slot].state = SlotState::Down;
        let source = &mut self.sources[self.slots[slot].source];
        let mut others = source.slots.clone().filter(|other| *other != slot).map(|other| self.slots[other].state);
        // Once something was covered only a proven connection carries it on; before that, one that may still succeed.
        let carried = others.any(|state| match state {
            SlotState::Open { proven: true } => true,
            SlotState::Fresh | SlotState::Open { proven: false } => source.is_lost,
            SlotState::Down => false,
        });
        if !carried {
            source.is_lost = true;
            // It will be read again.
            source.listed = None;
            self.lost(slot, at, ALL, cause, detail)?;
        }
        let source = self.source(slot);
        let mut orphans = Vec::new();
        for (topic, served_by) in &mut source.topics {
            if served_by.remove(&slot) && served_by.is_empty() {
                orphans.push(topic.clone());
            }
        }
        orphans.into_iter().try_for_each(|topic| self.lost(slot, at, &topic, cause, detail))
    }

    fn topic_lost(&mut self, slot: usize, at: UnixMicros, topic: &str, cause: Cause, detail: &str) -> Result<(), ArchiveError> {
        let served_by = self.source(slot).topics.entry(topic.to_owned()).or_default();
        served_by.remove(&slot);
        if served_by.is_empty() { self.lost(slot, at, topic, cause, detail) } else { Ok(()) }
    }

    fn topic_live(&mut self, slot: usize, at: UnixMicros, topic: String) -> Result<(), ArchiveError> {
        let source = &mut self.sources[self.slots[slot].source];
        source.topics.entry(topic.clone()).or_default().insert(slot);
        self.is_ledger_changed = true;
        self.archive.live(&source.outcome.name, &topic, source.horizon, at, "the subscription is served")
    }

    fn topic_dropped(&mut self, slot: usize, at: UnixMicros, topic: &str) -> Result<(), ArchiveError> {
        let source = &mut self.sources[self.slots[slot].source];
        // The first connection that drops it ends it; the others say the same.
        if source.topics.remove(topic).is_none() {
            return Ok(());
        }
        self.archive.live(&source.outcome.name, topic, source.horizon, at, "no longer wanted")?;
        self.archive.end_scope(&source.outcome.name, topic, at)
    }

    fn scopes(&mut self, slot: usize, at: UnixMicros, all: &[Scope]) -> Result<(), ArchiveError> {
        let source = &mut self.sources[self.slots[slot].source];
        let all: Vec<_> =
            all.iter().map(|Scope { id, text, detail }| Selected { scope: id, text: text.as_deref(), detail }).collect();
        let gaps = self.archive.select(&source.outcome.name, source.horizon, &all, at)?;
        let source_name = &source.outcome.name;
        source.news.extend(gaps.into_iter().map(|gap| gap_event(source_name, gap)));
        Ok(())
    }

    fn lost(&mut self, slot: usize, at: UnixMicros, scope: &str, cause: Cause, detail: &str) -> Result<(), ArchiveError> {
        let (name, _) = self.whose(slot);
        let opened = self.archive.lost(&name, at, Lost { scope, cause, detail })?;
        let (scope, cause, detail) = (scope.to_owned(), cause.name().to_owned(), detail.to_owned());
        let news = opened.map(|n| Event::Gap { source: name, n, scope, cause, detail });
        self.source(slot).news.extend(news);
        Ok(())
    }

    fn overflow(
        &mut self,
        slot: usize,
        since: UnixMicros,
        at: UnixMicros,
        envelopes: u64,
        bytes: u64,
    ) -> Result<(), ArchiveError> {
        let (name, _) = self.whose(slot);
        self.archive.remark(&name, at, &Fact::Dropped { envelopes, bytes })?;
        let detail = format!("{envelopes} envelopes, {bytes} bytes dropped: the disk was too slow");
        let cause = Cause::Overload;
        self.archive.lost_between(&name, since, at, Lost { scope: ALL, cause, detail: &detail })?;
        self.is_ledger_changed = true;
        let n = self.archive.last_n(&name).0;
        let source = self.source(slot);
        source.outcome.dropped += envelopes;
        source.outcome.dropped_bytes += bytes;
        source.news.push(Event::Gap { source: name, n, scope: ALL.to_owned(), cause: cause.name().to_owned(), detail });
        Ok(())
    }

    // The end.

    fn finish(mut self, reason: &str) -> Result<Written, ArchiveError> {
        for slot in 0..self.slots.len() {
            let closed = Closed {
                by: "us".to_owned(),
                reason: reason.to_owned(),
                detail: "the peer did not answer the farewell in time".to_owned(),
                ..Closed::default()
            };
            let at = self.now();
            self.closed(slot, at, &closed)?;
        }
        for source in 0..self.sources.len() {
            let at = self.now();
            self.archive.stop_source(&self.sources[source].outcome.name, at, reason)?;
        }
        let begun = now();
        self.commit()?;
        let took = now().saturating_duration_since(begun);
        for source in &mut self.sources {
            let name = &source.outcome.name;
            source.outcome.last_n = self.archive.last_n(name);
            let gaps = self.archive.open_gaps(name).into_iter();
            let open = |gap: crate::archive::GapRow| {
                let older = source.older_gaps.contains(&gap.n);
                OpenGap { n: gap.n, scope: gap.scope, cause: gap.cause, older, detail: gap.detail }
            };
            source.outcome.open_gaps = gaps.map(open).collect();
        }
        let at = self.now();
        let sources = self.sources.into_iter().map(|source| source.outcome).collect();
        let written = Written { sources, loss_window: self.latency.window(), ending: Ending::LeftOpen };
        // Whoever is in a hurry need not wait for the rest.
        self.board.write_down(written.clone());
        let board = Arc::clone(&self.board);
        let has_time = || board.must_stop_by().is_none_or(|by| now() + took * SEALS_AS_COMMITS <= by);
        let is_sealed = self.archive.close_while(at, has_time)?;
        Ok(Written { ending: if is_sealed { Ending::Sealed } else { Ending::LeftOpen }, ..written })
    }
}

fn gap_event(source: &SourceName, row: GapRow) -> Event {
    Event::Gap { source: source.clone(), n: row.n, scope: row.scope, cause: row.cause, detail: row.detail }
}

/// The monotonic clock, the same that stamps arrivals.
fn now() -> Instant {
    net::now().into_std()
}

/// Events lately seen and the connection that brought them first.
#[derive(Default)]
struct Recent {
    first: HashMap<u64, usize>,
    order: VecDeque<u64>,
}

impl Recent {
    /// Whether an event counts: new, or again from the connection that brought it first, which means it happened again.
    fn is_fresh(&mut self, slot: usize, event: &crate::model::Event) -> bool {
        let mut hasher = DefaultHasher::new();
        (event.kind, &event.id, &event.selector).hash(&mut hasher);
        let key = hasher.finish();
        if let Some(first) = self.first.get(&key) {
            return *first == slot;
        }
        if self.order.len() == RECENT_EVENTS
            && let Some(oldest) = self.order.pop_front()
        {
            self.first.remove(&oldest);
        }
        self.first.insert(key, slot);
        self.order.push_back(key);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{EventId, EventKind, TweetId};

    #[test]
    fn an_event_is_another_if_its_kind_its_id_or_its_rule_is() {
        let mut recent = Recent::default();
        let event = |kind, id, selector: &str| crate::model::Event {
            kind,
            id: EventId::Tweet(TweetId(id)),
            published_at: None,
            selector: selector.to_owned(),
        };
        assert!(recent.is_fresh(0, &event(EventKind::Tweet, 1, "a")));
        assert!(recent.is_fresh(0, &event(EventKind::Tweet, 1, "a")), "it happened again");
        assert!(!recent.is_fresh(1, &event(EventKind::Tweet, 1, "a")), "a second connection brought the same");
        for other in [event(EventKind::Delete, 1, "a"), event(EventKind::Tweet, 2, "a"), event(EventKind::Tweet, 1, "b")] {
            assert!(recent.is_fresh(1, &other), "{other:?}");
            assert!(!recent.is_fresh(0, &other), "{other:?}");
        }
    }
}
