//! The fake providers: plays a tape, a file or a made-up world to clients of the live protocols, on one port.
//!
//! Owns pacing, the bounds of what waits for slow clients, and when a replay is done. What a provider says and
//! whom it lets in is the affair of `provider`'s fake peers; sockets are `net`'s. It never dials out.
//!
//! Played are the envelopes that came over a live connection, of all sources of a provider, byte for byte, merged
//! by the time they were received. Nothing is added but what a connection cannot do without (keepalives, X's first
//! `config`); frames that were malformed on the wire are skipped and counted.
//!
//! ```text
//! tape ─ thread ─ chunks ─ player ─ queue ─ connection ─ client
//!   │    unpack, frame     waits by  bounded  writes shared bytes
//!   │                      the clock
//!   └─ memory ─ past at the clock's instant ─ history, management
//! ```
//!
//! | file | holds |
//! | --- | --- |
//! | `mod.rs` | [`Options`], [`start`], the running [`Replay`] |
//! | `urls.rs` | [`Urls`] |
//! | `clock.rs` | the virtual clock: what is due when, without drift |
//! | `chunk.rs` | envelopes framed once for all clients |
//! | `feed.rs` | reading ahead, on a thread for each provider |
//! | `player.rs` | one provider's player |
//! | `queue.rs` | what waits for one client |
//! | `happening.rs` | what happened to connections while they were recorded |
//! | `house.rs` | requests, who is there, what is done |
//! | `memory.rs` | what history remembers |
//! | `control.rs` | pausing, seeking and so on, in Rust and over HTTP |
//! | `connection.rs` | one client from opening to end |
//! | `faults/` | what goes wrong on purpose |
//!
//! The clock goes by an anchor on the monotonic clock; all providers share it, so that what one says of a moment fits
//! what the others say of it.
//!
//! Memory: for each provider a few chunks of 128 KiB and a decoded block for each source; for each client a queue
//! ([`Options::client_queue_bytes`]) whose bytes it shares with the others; and once history was asked for, its
//! index (`memory.rs` says how much).

mod chunk;
mod clock;
mod connection;
mod control;
pub mod faults;
mod feed;
mod happening;
mod house;
mod memory;
mod player;
mod queue;
#[cfg(test)]
mod tests;
mod urls;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use self::clock::{Clock, Timeline};
pub use self::control::{Control, ControlError, State, Status};
use self::feed::{Origin, Remarks};
use self::house::{Booth, House};
use self::player::{Head, Player, Tally};
pub use self::urls::Urls;
use crate::archive::ArchiveError;
use crate::archive::Disk;
use crate::model::{Provider, Secret, TweetId, UnixMicros};
use crate::net::{self, Clock as _, ServerOptions, ServerTls, SetupError, SystemClock, serve};
use crate::provider::synthetic::{self, Envelope};
use crate::provider::{Rest, RestSettings, Server, ServerSettings, Switches};

/// Newcomers that wait for a player to notice them.
const NEWCOMERS: usize = 64;

/// What is played.
#[derive(Clone, Debug)]
pub enum Feed {
    /// A tape, as far as it was committed when the replay started.
    Tape {
        /// Its directory.
        dir: PathBuf,
    },
    /// Envelopes of a file, each recognised already, in their order.
    Lines {
        /// The envelopes.
        envelopes: Vec<Envelope>,
    },
    /// A made-up world.
    Synthetic {
        /// Its seed and shape.
        options: synthetic::Options,
        /// Envelopes over all providers; without a limit it never ends.
        limit: Option<u64>,
    },
}

/// How fast it is played.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Speed {
    /// So many times as fast as it was received.
    ///
    /// The clock of all providers runs on whoever listens; a
    /// provider whose first client comes later delivers at once what is overdue.
    Times(f64),
    /// As fast as the slowest client of a provider takes it. A provider without clients pauses.
    Max,
}

/// When the clock begins to run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// With the first client of any provider.
    #[default]
    FirstClient,
    /// At once, whoever listens.
    Now,
    /// When it is told to.
    Paused,
}

/// Where in the feed it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// At that moment, in the time that clients see.
    At(UnixMicros),
    /// At the envelope that first brought that post.
    Tweet(TweetId),
    /// Behind everything: nothing is left to play, and history knows all of it.
    End,
}

/// What becomes of a client that does not take what is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlowClients {
    /// It is sent away, as providers do.
    Drop,
    /// Everybody waits for it.
    Wait,
}

/// What is played, how, and to whom.
#[derive(Clone, Debug)]
pub struct Options {
    /// What is played.
    pub feed: Feed,
    /// Sources of a tape that are played; none is all.
    pub sources: Vec<String>,
    /// How fast.
    pub speed: Speed,
    /// When the clock begins to run.
    pub start: Start,
    /// Where it begins; without it at the first envelope.
    pub from: Option<Place>,
    /// Rounds after the first; `u64::MAX` is without end.
    pub repeat: u64,
    /// Moves ids, dates and stamps so that the first envelope is of this moment. Without it every byte is as recorded.
    pub shift_to: Option<UnixMicros>,
    /// Recorded closes, breaks, stalls and refusals come back at their time.
    pub as_happened: bool,
    /// What history needs to know of something new.
    pub index_delay: Duration,
    /// The only key accepted; without one any that is not empty.
    pub key: Option<Secret>,
    /// Connections per key; without it the provider's documented number.
    pub max_connections: Option<u32>,
    /// Whether the documented rate limits of history and management hold.
    pub rate_limits: bool,
    /// What a key may spend, in the provider's own unit; without it there is no end.
    pub credits: Option<u64>,
    /// Where providers' pages disagree.
    pub switches: Switches,
    /// Clients of a provider to wait for before its first envelope is played.
    pub wait_for_clients: usize,
    /// Whether to end when every provider that somebody came for has played everything.
    pub exit_when_done: bool,
    /// How long clients then have to leave by themselves.
    pub linger: Duration,
    /// Bytes that may wait for one client.
    pub client_queue_bytes: usize,
    /// What becomes of a client whose bytes are full; without it everybody waits at full speed, and at a given pace
    /// it is sent away (1008, or a reset where it takes not even that) after 10 s, once 16 times as much waits and
    /// it takes nothing for 1 s, or once 48 times as much waits.
    ///
    /// At a given pace others wait for it only as long as it takes something now and then, and only from 16 times as
    /// much on, or where what is played is late already; never for one that reads nothing.
    pub slow_clients: Option<SlowClients>,
    /// Longest pause between two envelopes at a given pace, in real time; longer ones are cut for all providers.
    pub idle_cap: Option<Duration>,
    /// Whether to speak TLS, as a server that an authority made for this run vouches for; see [`Replay::ca_pem`].
    pub tls: bool,
    /// What is to go wrong on purpose.
    pub faults: Option<faults::Script>,
}

impl Options {
    /// Plays `feed` as it was received, to anybody, until it is stopped.
    pub fn new(feed: Feed) -> Self {
        Self {
            feed,
            sources: Vec::new(),
            speed: Speed::Times(1.0),
            start: Start::default(),
            from: None,
            repeat: 0,
            shift_to: None,
            as_happened: false,
            index_delay: Duration::ZERO,
            key: None,
            max_connections: None,
            rate_limits: true,
            credits: None,
            switches: Switches::default(),
            wait_for_clients: 1,
            exit_when_done: false,
            linger: Duration::from_secs(5),
            client_queue_bytes: 1 << 20,
            slow_clients: None,
            idle_cap: None,
            tls: false,
            faults: None,
        }
    }
}

/// Why a replay cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}{}", if source.kind() == io::ErrorKind::AddrInUse { ": the port is in use" } else { "" })]
    Bind {
        /// The address asked for.
        address: SocketAddr,
        /// The system's answer.
        source: io::Error,
    },
    /// Others could reach it without a key.
    #[error("{address} can be reached from other machines, so the replay needs a key")]
    KeyNeeded {
        /// The address.
        address: SocketAddr,
    },
    /// A place that the feed does not have, or a speed that is none.
    #[error(transparent)]
    Place(#[from] ControlError),
    /// The fault script does not fit what is played.
    #[error(transparent)]
    Faults(#[from] faults::ScriptError),
    /// The tape cannot be read.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// TLS was asked for and cannot be had.
    #[error(transparent)]
    Tls(#[from] SetupError),
    /// The system refused a thread.
    #[error("cannot start a thread to read the tape")]
    Thread {
        /// Its answer.
        source: io::Error,
    },
}

impl ReplayError {
    /// What the person can do about it.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Bind { source, .. } => match source.kind() {
                io::ErrorKind::AddrInUse => Some("stop the other program, or listen on port 0 to get a free one"),
                io::ErrorKind::PermissionDenied => Some("ports below 1024 are for the system; take a higher one, or 0"),
                io::ErrorKind::AddrNotAvailable => Some("this machine has no such address; 127.0.0.1 is always there"),
                _ => None,
            },
            Self::KeyNeeded { .. } => Some("give it a key with --key, or listen on 127.0.0.1"),
            Self::Place(error) => error.hint(),
            Self::Faults(error) => Some(&error.cure),
            Self::Archive(error) => error.hint(),
            Self::Tls(_) | Self::Thread { .. } => None,
        }
    }
}

/// Counts of one provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderStats {
    /// Which.
    pub provider: Provider,
    /// Envelopes played, whoever listened.
    pub played: u64,
    /// Envelopes sent, added up over all clients.
    pub sent: u64,
    /// Frames left out because they were malformed on the wire.
    pub skipped: u64,
    /// Connections now.
    pub clients: usize,
    /// Connections so far.
    pub clients_ever: u64,
    /// Connections ended because the client was too slow.
    pub too_slow: u64,
    /// Requests to history and management.
    pub requests: u64,
    /// Envelopes given to clients by hand.
    pub injected: u64,
    /// Whether everything was played and has reached who is there; true for a provider with nothing to play.
    pub done: bool,
}

impl ProviderStats {
    fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "played": self.played, "sent": self.sent, "skipped": self.skipped, "clients": self.clients,
            "connections": self.clients_ever, "too_slow": self.too_slow, "requests": self.requests,
            "injected": self.injected, "done": self.done,
        })
    }
}

/// Counts of a replay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stats {
    /// In the order of [`Provider::ALL`].
    pub providers: [ProviderStats; 4],
    /// What of the tape could not be read, in words.
    pub damage: Vec<String>,
    /// What went wrong on purpose, in the order of the script; empty without one.
    pub faults: Vec<faults::Row>,
}

impl Stats {
    /// Counts of that provider.
    pub fn of(&self, provider: Provider) -> &ProviderStats {
        &self.providers[provider as usize]
    }
}

/// Why a replay ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Everything was played, as [`Options::exit_when_done`] asks.
    Done,
    /// It was stopped.
    Stopped,
}

/// How a replay ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Why.
    pub ended: Ended,
    /// Its last counts.
    pub stats: Stats,
}

/// A running replay; it stops when this is dropped.
pub struct Replay {
    house: Arc<House>,
    ca_pem: Option<String>,
    ended: watch::Receiver<Option<Ended>>,
}

impl Drop for Replay {
    fn drop(&mut self) {
        self.stop();
    }
}

impl std::fmt::Debug for Replay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replay").field("base", &self.house.urls.base()).finish_non_exhaustive()
    }
}

impl Replay {
    /// Where it is reached.
    pub fn urls(&self) -> &Urls {
        &self.house.urls
    }

    /// Pauses it, seeks in it and so on.
    pub fn control(&self) -> Control {
        Control::of(&self.house)
    }

    /// The authority that clients have to trust, as PEM, if [`Options::tls`] was asked for.
    pub fn ca_pem(&self) -> Option<&str> {
        self.ca_pem.as_deref()
    }

    /// Its counts up to now.
    pub fn stats(&self) -> Stats {
        self.house.stats()
    }

    /// Takes leave of all clients (1001) and ends; [`wait`](Self::wait) says when that is done.
    pub fn stop(&self) {
        self.house.stop.send_replace(true);
    }

    /// Waits for the end. May be dropped while it waits, and called again.
    pub async fn wait(&self) -> Outcome {
        let mut ended = self.ended.clone();
        // The task that tells only goes without a word when the whole program does.
        let ended = ended.wait_for(Option::is_some).await.ok().and_then(|ended| *ended).unwrap_or(Ended::Stopped);
        Outcome { ended, stats: self.stats() }
    }
}

/// Listens on an address; port 0 is any free one.
///
/// # Errors
/// When the port is in use or the address is not ours.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, ReplayError> {
    TcpListener::bind(address).await.map_err(|source| ReplayError::Bind { address, source })
}

/// Starts a replay; when this returns, clients may come.
///
/// It ends by [`Replay::stop`], when `shutdown` is ready, or by itself as [`Options::exit_when_done`] asks.
///
/// # Errors
/// When the tape cannot be read, the speed is none, or other machines could come in without a key.
pub async fn start(
    options: Options,
    listener: TcpListener,
    disk: Arc<dyn Disk>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<Replay, ReplayError> {
    start_with(options, listener, disk, shutdown, None).await
}

async fn start_with(
    options: Options,
    listener: TcpListener,
    disk: Arc<dyn Disk>,
    shutdown: impl Future<Output = ()> + Send + 'static,
    keepalive: Option<Duration>,
) -> Result<Replay, ReplayError> {
    let unbound = SocketAddr::from(([0, 0, 0, 0], 0));
    let address = listener.local_addr().map_err(|source| ReplayError::Bind { address: unbound, source })?;
    if options.key.is_none() && !address.ip().to_canonical().is_loopback() {
        return Err(ReplayError::KeyNeeded { address });
    }
    options.speed.checked()?;
    let tls = options.tls.then(|| ServerTls::throw_away(address.ip())).transpose()?;
    let remarks = Arc::new(Remarks::default());
    let origin = {
        let (feed, sources) = (options.feed.clone(), options.sources.clone());
        let (as_happened, shift_to) = (options.as_happened, options.shift_to);
        let open = move || {
            let mut origin = Origin::open(feed, disk, &sources, as_happened)?;
            if let Some(to) = shift_to {
                origin.shift_to(to);
            }
            Ok::<_, ReplayError>(Arc::new(origin))
        };
        tokio::task::spawn_blocking(open).await.map_err(broken_off)??
    };
    let from = match options.from {
        Some(place) => Some(control::moment(&origin, place, options.index_delay).await?),
        None => None,
    };
    let mut feeds = {
        let (origin, remarks) = (Arc::clone(&origin), Arc::clone(&remarks));
        let open = move || Provider::ALL.map(|provider| origin.play(provider, from, &remarks));
        tokio::task::spawn_blocking(open).await.map_err(broken_off)?
    }
    .into_iter()
    .collect::<Result<Vec<_>, _>>()?;
    let mut heads = Vec::with_capacity(4);
    for pieces in &mut feeds {
        heads.push(Head::of(pieces.recv().await));
    }
    let earliest = heads.iter().filter_map(Head::at).min();
    let start_at = from.or(earliest).unwrap_or(origin.first_at());
    let mut clock = Clock::new(start_at, options.speed, options.idle_cap);
    clock.repeat(options.repeat);
    match options.start {
        Start::FirstClient => {}
        Start::Now => clock.start(tokio::time::Instant::now()),
        Start::Paused => clock.pause(tokio::time::Instant::now()),
    }
    let timeline = Timeline::new(clock);
    let faults = match options.faults.clone() {
        Some(script) => Some(plan(script, earliest, origin.lanes(), heads.iter().map(|head| head.at().is_some()))?),
        None => None,
    };

    let (leave, leaving) = watch::channel(false);
    let (changed, _) = watch::channel(0);
    let mut players = JoinSet::new();
    let settings =
        ServerSettings { key: options.key.clone(), max_connections: options.max_connections, switches: options.switches.clone() };
    let rest = RestSettings {
        key: options.key.clone(),
        rate_limits: options.rate_limits,
        credits: options.credits,
        switches: options.switches.clone(),
        real_time: Some((net::now().into_std(), SystemClock::new().wall())),
    };
    let mut booths = Vec::with_capacity(4);
    for ((provider, pieces), head) in Provider::ALL.into_iter().zip(feeds).zip(heads) {
        let (newcomers, receiver) = mpsc::channel(NEWCOMERS);
        let tally = Arc::new(Tally { played_to: start_at.0.into(), ..Tally::default() });
        booths.push(Booth {
            provider,
            server: Mutex::new(Server::new(provider, settings.clone())),
            rest: Mutex::new(Rest::new(provider, rest.clone())),
            memory: Mutex::new(None),
            newcomers,
            tally: Arc::clone(&tally),
            has_feed: head.at().is_some() || (from.is_some() && origin.plays(provider)),
            peers: Mutex::default(),
            clients_ever: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            muted: Mutex::default(),
            has_muted: AtomicBool::new(false),
        });
        let player = Player {
            provider,
            timeline: timeline.clone(),
            origin: Arc::clone(&origin),
            remarks: Arc::clone(&remarks),
            pieces,
            newcomers: receiver,
            tally,
            changed: changed.clone(),
            wait_for_clients: if options.start == Start::Now { 0 } else { options.wait_for_clients.max(1) },
            slow_clients: options.slow_clients,
            start_at,
            head,
            clients: Vec::new(),
            is_giving: false,
            has_begun: false,
            epoch: 0,
        };
        players.spawn(player.run());
    }
    let (stop, stopped) = watch::channel(false);
    let house = Arc::new(House {
        booths: <[Booth; 4]>::try_from(booths).unwrap_or_else(|_| unreachable!("one for each of the four")),
        origin,
        timeline,
        index_delay: options.index_delay,
        remarks,
        urls: Urls::new(address, options.tls),
        leaving,
        changed,
        queue_bytes: options.client_queue_bytes,
        keepalive,
        last_peer: AtomicU64::new(0),
        stop,
        early: Once::new(),
        faults,
    });
    let (end, ended) = watch::channel(None);
    let ca_pem = tls.as_ref().map(|tls| tls.ca_pem().to_owned());
    let running = Running { house: Arc::clone(&house), tls, players, leave, stopped, end };
    tokio::spawn(running.run(listener, shutdown, options.exit_when_done.then_some(options.linger)));
    Ok(Replay { house, ca_pem, ended })
}

fn broken_off(error: tokio::task::JoinError) -> ReplayError {
    ReplayError::Thread { source: io::Error::other(error) }
}

fn plan(
    script: faults::Script,
    first: Option<UnixMicros>,
    mut lanes: [faults::Lane; 4],
    plays: impl Iterator<Item = bool>,
) -> Result<Arc<faults::Plan>, faults::ScriptError> {
    for (lane, plays) in lanes.iter_mut().zip(plays) {
        if !plays {
            lane.n_envelopes = Some(0);
        }
    }
    faults::against(&script, &faults::Known { first, lanes })?;
    Ok(Arc::new(faults::Plan::new(script, first.unwrap_or(UnixMicros(0)))))
}

/// What runs behind a [`Replay`].
struct Running {
    house: Arc<House>,
    tls: Option<ServerTls>,
    players: JoinSet<()>,
    leave: watch::Sender<bool>,
    stopped: watch::Receiver<bool>,
    end: watch::Sender<Option<Ended>>,
}

impl Running {
    async fn run(self, listener: TcpListener, shutdown: impl Future<Output = ()> + Send, linger: Option<Duration>) {
        let Self { house, tls, players, leave, mut stopped, end } = self;
        let mut leaving = house.leaving.clone();
        let over = async move {
            // A sender that is gone has left, too.
            drop(leaving.wait_for(|leaving| *leaving).await);
        };
        let serving = tokio::spawn(serve(listener, Arc::clone(&house), ServerOptions { tls, ..ServerOptions::default() }, over));
        let done = async {
            match linger {
                Some(linger) => house.all_done(linger).await,
                None => std::future::pending().await,
            }
        };
        let why = tokio::select! {
            () = shutdown => Ended::Stopped,
            _ = stopped.wait_for(|stopped| *stopped) => Ended::Stopped,
            () = done => Ended::Done,
        };
        leave.send_replace(true);
        match serving.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "the replay's server failed"),
            Err(error) => tracing::error!(%error, "the replay's server broke off"),
        }
        drop(players);
        end.send_replace(Some(why));
    }
}
