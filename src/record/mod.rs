//! The job that records: provider machines and the network on one side, the tape on the other.
//!
//! Owns the shell around each [`Client`](crate::provider::Client) machine, the queue to the disk, the decision when a
//! whole source is lost or live, and the end of a run. Knows no provider's JSON and no file format. Clock, disk and
//! networks are handed in.
//!
//! ```text
//! connection task ─┐
//! connection task ─┼─> queue (bounded by bytes) ─> writer (a thread): append, group commit, then tell
//! connection task ─┘        order in the queue = order of facts on the tape
//! ```
//!
//! | file | holds |
//! | --- | --- |
//! | `mod.rs` | [`run`], what goes in and what comes out |
//! | `connection.rs` | the shell of one connection: act, wait, keep, feed the machine |
//! | `queue.rs` | the queue: its bound, its two ways to be full |
//! | `suspicion.rs` | losses that a living connection betrays: full pages, posts that never came |
//! | `writer.rs` | the one that owns the archive; gaps and coverage of sources with several connections |
//! | `board.rs` | what the writer has made safe, for whoever cannot wait for its end |
//! | `latency.rs` | socket-to-commit times |
//! | `control.rs` | commands to a running recorder |
//! | `pen.rs` | how another job writes through the recorder |
//! | `webhooks.rs` | the second way in: deliveries by webhook, answered when they are durable |
//!
//! An envelope is queued before its machine sees it: kept before it is understood. Nothing is told to the outside
//! before the commit that made it durable has returned. When the queue is full a connection stops reading for
//! [`Options::overload_wait`], then drops what comes, counts it, and puts the count and a gap on the tape.
//!
//! One [`run`] a tape; the archive's lock sees to it.

mod board;
mod connection;
pub mod control;
mod latency;
mod pen;
mod queue;
mod suspicion;
#[cfg(test)]
mod tests;
mod webhooks;
mod writer;

use std::future::Future;
use std::net::TcpListener;
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::archive::{self, ArchiveError, Disk};
use crate::model::{Cause, Provider, Seq, SourceName};
use crate::net::{self, Clock, Network};
use crate::provider::webhook::Webhook;
use crate::provider::{self, Fault, Loudness};

pub use pen::Pen;

use board::Board;
use connection::{Activity, Ended, Shell};
use control::Door;
use queue::Queue;
use writer::Written;

/// For the farewells of all connections together, and for the last answer that a job beside them waits for.
const FAREWELL: Duration = Duration::from_secs(3);

/// Commands that wait for one connection.
const COMMANDS: usize = 16;

/// A source to record.
#[derive(Clone)]
pub struct Source {
    /// Its name on the tape.
    pub name: SourceName,
    /// What its machines need to know.
    pub settings: provider::Settings,
    /// Connections held at one time; more than one is redundant recording.
    pub connections: u32,
    /// How late its events may come.
    pub lateness_horizon: Duration,
    /// The way to it.
    pub network: Arc<dyn Network>,
    /// Knows what comes by webhook, if that is to be taken.
    pub webhook: Option<Webhook>,
}

/// What to record, where to, and for how long.
pub struct Options {
    /// Directory of the tape.
    pub tape: PathBuf,
    /// How it is written.
    pub archive: archive::Options,
    /// Bytes of an envelope; a longer one breaks its connection, and its beginning is kept.
    pub max_message: usize,
    /// Bytes that may wait for the disk.
    pub queue_bytes: usize,
    /// How long a connection stops reading when the queue is full, before it drops envelopes.
    pub overload_wait: Duration,
    /// How long the end may take once it is asked for. A disk that has not taken everything by then is left to itself.
    pub stop_within: Duration,
    /// The sources.
    pub sources: Vec<Source>,
    /// Ends when no source had an envelope for so long, also at the beginning.
    pub until_idle: Option<Duration>,
    /// Ends after so long.
    pub run_for: Option<Duration>,
    /// Where webhooks are received; only of sources that have one.
    pub webhooks: Option<TcpListener>,
    /// What another recorder is told about who holds the tape.
    pub holder: String,
    /// Another job that works on the tape meanwhile.
    pub beside: Option<Beside>,
}

/// A job beside the recorder, begun when the tape is open. It ends when its desk says so, at the latest with the run.
pub type Beside = Box<dyn FnOnce(Desk) -> BoxFuture<'static, ()> + Send>;

/// What a job beside the recorder works with.
#[derive(Clone, Debug)]
pub struct Desk {
    /// Writes to the tape.
    pub pen: Pen,
    /// Changes whenever a gap may have got its end, after that is durable.
    pub ledger: watch::Receiver<()>,
    /// Whether the run is about to end.
    pub leaving: watch::Receiver<bool>,
}

/// [`Options::overload_wait`] where nobody says otherwise: the peer's pings wait as long, and must not take us for dead.
pub const OVERLOAD_WAIT: Duration = Duration::from_millis(500);

/// [`Options::stop_within`] where nobody says otherwise.
pub const STOP_WITHIN: Duration = Duration::from_millis(4_500);

/// What stands in for the machine's clock and disk in a test.
#[derive(Clone)]
pub struct World {
    /// The clocks.
    pub clock: Arc<dyn Clock>,
    /// The disk below the segments.
    pub disk: Arc<dyn Disk>,
    /// What the writer runs as.
    pub writing: Writing,
}

/// What the writer runs as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Writing {
    /// A thread of its own: a slow disk holds nothing up. When [`run`] is dropped it still writes what is queued.
    #[default]
    Thread,
    /// A task of the runtime: its timers are the runtime's, so it runs on virtual time, and when [`run`] is dropped it
    /// ends where it stands, as by a kill.
    Task,
}

/// What happens while recording. Everything but [`Said`](Self::Said) is told after it is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The tape is open.
    Started {
        /// Its id.
        tape: String,
    },
    /// What a source's provider delivers by webhook is received.
    Listening {
        /// Whose.
        source: SourceName,
        /// Where.
        url: String,
    },
    /// A connection stands.
    Connected {
        /// Whose.
        source: SourceName,
        /// Its number.
        conn: u64,
        /// Its address without secrets.
        url: String,
    },
    /// A connection ended.
    Disconnected {
        /// Whose.
        source: SourceName,
        /// Its number.
        conn: u64,
        /// How, in words.
        detail: String,
    },
    /// Records are durable.
    Committed {
        /// Whose.
        source: SourceName,
        /// The last of them.
        n: Seq,
        /// Hash of the commit line.
        hash: u64,
        /// Envelopes made durable since the commit before.
        frames: u64,
        /// Their bytes.
        bytes: u64,
    },
    /// A gap was opened.
    Gap {
        /// Whose.
        source: SourceName,
        /// Its number.
        n: u64,
        /// `*` or a topic.
        scope: String,
        /// Why, by name.
        cause: String,
        /// In words.
        detail: String,
    },
    /// A sentence for the person.
    Said {
        /// About whom.
        source: SourceName,
        /// How loud.
        loudness: Loudness,
        /// The sentence.
        text: String,
    },
}

/// Takes events; called from tasks and from the writer's thread, so it must be quick and must not block.
pub type Sink = Arc<dyn Fn(Event) + Send + Sync>;

/// Why a run ended in good order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoppedBy {
    /// The caller asked for it.
    Shutdown,
    /// [`Options::run_for`] is over.
    RunFor,
    /// [`Options::until_idle`] is over.
    Idle,
    /// Every source has given up.
    Sources,
}

impl StoppedBy {
    /// In words, for the tape and the person.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Shutdown => "shutdown was asked for",
            Self::RunFor => "the time given with the start is over",
            Self::Idle => "no source had an envelope for the time given with the start",
            Self::Sources => "every source has given up",
        }
    }
}

/// A gap through which loss is still possible.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenGap {
    /// Its number in its source.
    pub n: u64,
    /// `*` or a topic.
    pub scope: String,
    /// Why, by name.
    pub cause: String,
    /// Whether this run found it there.
    pub older: bool,
    /// In words.
    pub detail: String,
}

impl OpenGap {
    /// Whether it is a doubt about one rule's page rather than a hole in what the source promises: it stands in the
    /// ledger, but a run with nothing worse has lost nothing that is known.
    pub fn is_doubt(&self) -> bool {
        self.cause == Cause::FullPage.name()
    }
}

/// What became of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceOutcome {
    /// Its name.
    pub name: SourceName,
    /// Its provider.
    pub provider: Provider,
    /// Envelopes kept, broken ones included.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Events in them, each counted once even when several connections brought it.
    pub events: u64,
    /// Events that another connection had brought before.
    pub repeated: u64,
    /// Envelopes of the provider's that nobody could read, kept like all others.
    pub unknown: u64,
    /// Broken frames among the envelopes: malformed, oversized, torn.
    pub faults: u64,
    /// Connections that were opened.
    pub connections: u64,
    /// Envelopes dropped because the disk was too slow, or full.
    pub dropped: u64,
    /// Their bytes.
    pub dropped_bytes: u64,
    /// Its last record.
    pub last_n: Seq,
    /// Gaps that are open now.
    pub open_gaps: Vec<OpenGap>,
    /// Why it gave up, if all its connections did: the last one's reason.
    pub fault: Option<Fault>,
    /// The same in words.
    pub fault_text: Option<String>,
}

/// Time from the socket to the commit, of the oldest record of each commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LossWindow {
    /// Commits that were measured.
    pub commits: u64,
    /// Half of them were faster (to one part in eight).
    pub p50: Duration,
    /// All but one in a hundred were faster (to one part in eight).
    pub p99: Duration,
    /// The slowest.
    pub max: Duration,
}

/// In which state a tape was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// All is written and sealed.
    Sealed,
    /// All is written; for want of time some segments are left open, which whoever opens the tape next seals.
    LeftOpen,
    /// The disk did not take everything in time. What was not committed counts as dropped, and whoever opens the tape next
    /// finds it as after a kill, with a gap. The writer's thread holds the tape until its disk lets go of it.
    Cut,
}

impl Ending {
    /// By name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sealed => "sealed",
            Self::LeftOpen => "left_open",
            Self::Cut => "cut",
        }
    }
}

/// What a run has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Id of the tape.
    pub tape: String,
    /// Each source, in the order given.
    pub sources: Vec<SourceOutcome>,
    /// The measured loss window; of a run that was cut nothing is known.
    pub loss_window: LossWindow,
    /// Why it ended.
    pub stopped_by: StoppedBy,
    /// How it left the tape.
    pub ending: Ending,
}

/// Why a run ended in bad order. What was committed is safe.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The tape.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// A part of the recorder failed, so none of it goes on.
    #[error("{part} failed: {why}; this is a bug, and recording has ended so that nobody takes it for alive")]
    Panicked {
        /// Which.
        part: String,
        /// The panic's words.
        why: String,
    },
    /// It was told to end before it had begun, and the disk did not let it.
    #[error("the tape was still being opened when the end was asked for, and is left as it is")]
    StillOpening,
}

impl RecordError {
    /// What the person can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Archive(error) => error.hint(),
            Self::Panicked { .. } => Some("start again; everything committed so far is safe"),
            Self::StillOpening => Some("the next start goes on with what this one began to mend"),
        }
    }
}

/// Records until `shutdown` is ready or the options say so.
///
/// # Errors
/// The tape cannot be opened, its disk refuses, or a part of the recorder panics.
pub async fn run(
    mut options: Options,
    world: World,
    events: Sink,
    shutdown: impl Future<Output = ()>,
) -> Result<Outcome, RecordError> {
    let started = net::now();
    let run_until = options.run_for.map(|wait| started + wait);
    let queue = Arc::new(Queue::new(options.queue_bytes, world.writing));
    // However this future ends, the thread hears of it.
    let _close = CloseOnDrop(Arc::clone(&queue));
    let (ready, opened) = oneshot::channel();
    let (moved, ledger) = watch::channel(());
    let mut writing = writer::spawn(&options, &world, &queue, &events, moved, ready);
    let mut shutdown = pin!(shutdown);
    let mut opened = pin!(opened);
    let unopened = tokio::select! {
        biased;
        tape = &mut opened => Err(tape),
        () = &mut shutdown => Ok(StoppedBy::Shutdown),
        () = maybe_until(run_until) => Ok(StoppedBy::RunFor),
    };
    let tape = match unopened {
        Err(Ok(tape)) => tape,
        Err(Err(_)) => return Err(writing.failure().await),
        Ok(stopped_by) => {
            let board = Arc::clone(writing.board());
            let out_of_patience = out_of_patience(stopped_by, shutdown, &board, options.stop_within);
            return leave_unopened(&queue, writing, opened, stopped_by, out_of_patience).await;
        }
    };
    events(Event::Started { tape: tape.clone() });

    let activity = Arc::new(Activity::new(started));
    let (leave, leaving) = watch::channel(false);
    let mut shells = JoinSet::new();
    let mut doors = Vec::new();
    let mut slot = 0;
    let mut slots = Vec::new();
    for (at, source) in options.sources.iter().enumerate() {
        slots.push(slot..slot + source.connections.max(1) as usize);
        for nth in 0..source.connections.max(1) {
            let (commands, inbox) = mpsc::channel(COMMANDS);
            if source.settings.provider == Provider::XLive {
                doors.push((source.name.clone(), commands));
            }
            let shell = Shell::new(slot as u32, nth, source, &options, &world, &queue, &events, &activity, leaving.clone());
            shells.spawn(async move { (at, shell.run(inbox).await) });
            slot += 1;
        }
    }
    let mut helpers = JoinSet::new();
    match Door::open(&options.tape, &tape, doors) {
        Ok(door) => drop(helpers.spawn(door.serve())),
        // Recording is worth more than being steered.
        Err(text) => options.sources.iter().take(1).for_each(|source| {
            events(Event::Said { source: source.name.clone(), loudness: Loudness::Warn, text: text.clone() });
        }),
    }
    if let Some(listener) = options.webhooks.take() {
        let receiver = webhooks::Receiver::new(&options, &world, &queue, &events, &activity);
        helpers.spawn(receiver.serve(listener));
    }
    let mut beside = JoinSet::new();
    if let Some(job) = options.beside.take() {
        beside.spawn(job(Desk { pen: Pen::new(&queue), ledger, leaving }));
    }

    let mut faults: Vec<Option<(Fault, String)>> = vec![None; options.sources.len()];
    let mut running: Vec<u32> = options.sources.iter().map(|s| s.connections.max(1)).collect();
    let stopped_by = loop {
        let idle_at = options.until_idle.map(|wait| activity.last() + wait);
        tokio::select! {
            () = &mut shutdown => break StoppedBy::Shutdown,
            () = maybe_until(run_until) => break StoppedBy::RunFor,
            () = maybe_until(idle_at) => {
                if options.until_idle.is_some_and(|wait| activity.last() + wait <= net::now()) {
                    break StoppedBy::Idle;
                }
            }
            failure = writing.failure() => return Err(failure),
            Some(joined) = helpers.join_next() => if let Err(error) = joined {
                break_off(&queue, &mut writing, options.stop_within).await;
                return Err(panicked("the control socket", error));
            },
            Some(joined) = beside.join_next() => if let Err(error) = joined {
                break_off(&queue, &mut writing, options.stop_within).await;
                return Err(panicked("the job beside the recorder", error));
            },
            joined = shells.join_next() => match joined {
                None => break StoppedBy::Sources,
                Some(Err(error)) => {
                    break_off(&queue, &mut writing, options.stop_within).await;
                    return Err(panicked("a connection", error));
                }
                Some(Ok((_, Ended::WriterGone))) => return Err(writing.failure().await),
                Some(Ok((_, Ended::Left))) => {}
                Some(Ok((at, Ended::GaveUp(fault, text)))) => {
                    running[at] -= 1;
                    if running[at] == 0 {
                        faults[at] = Some((fault, text));
                    }
                }
            },
        }
    };
    let board = Arc::clone(writing.board());
    let out_of_patience = out_of_patience(stopped_by, shutdown.as_mut(), &board, options.stop_within);
    let ended = async {
        // Deliveries that are being written now are tried again by their provider, if nobody hears that they are safe.
        helpers.shutdown().await;
        leave.send_replace(true);
        let deadline = net::now() + FAREWELL;
        let mut failed = None;
        while let Ok(Some(joined)) = timeout_at(deadline, shells.join_next()).await {
            if let Err(error) = joined {
                failed = Some(panicked("a connection", error));
            }
        }
        // Before the queue is closed: what it has asked for is still written.
        while let Ok(Some(joined)) = timeout_at(deadline, beside.join_next()).await {
            if let Err(error) = joined {
                failed = Some(panicked("the job beside the recorder", error));
            }
        }
        // Those that have not left by now are cut off; their farewell is written for them.
        beside.shutdown().await;
        shells.shutdown().await;
        queue.close(stopped_by.words());
        let written = writing.finish().await?;
        failed.map_or(Ok(written), Err)
    };
    let written = tokio::select! {
        biased;
        written = ended => written?,
        () = out_of_patience => board.written().unwrap_or_else(|| {
            let taken = |nth: usize| queue.envelopes(slots[nth].clone());
            Written { sources: board.cut_off(taken), loss_window: LossWindow::default(), ending: Ending::Cut }
        }),
    };
    let Written { mut sources, loss_window, ending } = written;
    for (source, fault) in sources.iter_mut().zip(faults) {
        (source.fault, source.fault_text) = fault.unzip();
    }
    Ok(Outcome { tape, sources, loss_window, stopped_by, ending })
}

/// A part has failed: what is queued is still written, if the disk takes it; the failure is the error that counts.
async fn break_off(queue: &Queue, writing: &mut writer::Handle, within: Duration) {
    queue.close("a part of the recorder failed");
    drop(timeout_at(net::now() + within, writing.finish()).await);
}

/// Ready when the end has been waited for long enough. That counts from when somebody asks for it: whoever only said when
/// to end does not mean a slow disk.
async fn out_of_patience(
    stopped_by: StoppedBy,
    shutdown: Pin<&mut impl Future<Output = ()>>,
    board: &Board,
    stop_within: Duration,
) {
    if stopped_by != StoppedBy::Shutdown {
        shutdown.await;
    }
    let until = net::now() + stop_within;
    board.stop_by(until.into_std());
    sleep_until(until).await;
}

/// The end comes while the tape is still being opened, or waits for room.
async fn leave_unopened(
    queue: &Queue,
    mut writing: writer::Handle,
    mut opened: Pin<&mut oneshot::Receiver<String>>,
    stopped_by: StoppedBy,
    out_of_patience: impl Future<Output = ()>,
) -> Result<Outcome, RecordError> {
    queue.close(stopped_by.words());
    let written = tokio::select! {
        biased;
        written = writing.finish() => written?,
        () = out_of_patience => return Err(RecordError::StillOpening),
    };
    let Written { sources, loss_window, ending } = written;
    let tape = opened.try_recv().unwrap_or_default();
    Ok(Outcome { tape, sources, loss_window, stopped_by, ending })
}

/// Never ready without an instant.
async fn maybe_until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

struct CloseOnDrop(Arc<Queue>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close("the recorder was ended from inside the program");
    }
}

fn panicked(part: &str, error: JoinError) -> RecordError {
    let why = error.try_into_panic().map_or_else(|error| error.to_string(), |panic| words_of(&*panic));
    RecordError::Panicked { part: part.to_owned(), why }
}

fn words_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no words".to_owned())
}
