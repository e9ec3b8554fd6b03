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
//!        unpack, frame     waits    bounded  writes shared bytes
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
//! | `house.rs` | requests, who is there, what is done |
//! | `connection.rs` | one client from opening to end |
//! | `faults/` | what goes wrong on purpose |
//!
//! Memory: for each provider a few chunks of 128 KiB and a decoded block for each source; for each client a queue
//! ([`Options::client_queue_bytes`]) whose bytes it shares with the others.

mod chunk;
mod clock;
mod connection;
pub mod faults;
mod feed;
mod house;
mod player;
mod queue;
#[cfg(test)]
mod tests;
mod urls;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use self::clock::Clock;
use self::feed::Remarks;
use self::house::{Booth, House};
use self::player::{Pacing, Player, Tally};
pub use self::urls::Urls;
use crate::archive::ArchiveError;
use crate::archive::Disk;
use crate::model::{Provider, Secret, UnixMicros};
use crate::net::{ServerOptions, serve};
use crate::provider::synthetic::{self, Envelope};
use crate::provider::{Server, ServerSettings};

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
    /// The clock of all providers starts with the first client of any of them, and runs on whoever listens; a
    /// provider whose first client comes later delivers at once what is overdue.
    Times(f64),
    /// As fast as the slowest client of a provider takes it. A provider without clients pauses.
    Max,
}

/// What is played, how, and to whom.
#[derive(Clone, Debug)]
pub struct Options {
    /// What is played.
    pub feed: Feed,
    /// How fast.
    pub speed: Speed,
    /// The only key accepted; without one any that is not empty.
    pub key: Option<Secret>,
    /// Connections per key; without it the provider's documented number.
    pub max_connections: Option<u32>,
    /// Clients of a provider to wait for before its first envelope is played.
    pub wait_for_clients: usize,
    /// Whether to end when every provider that somebody came for has played everything.
    pub exit_when_done: bool,
    /// How long clients then have to leave by themselves.
    pub linger: Duration,
    /// Bytes that may wait for one client.
    ///
    /// At full speed everybody waits for a client whose queue is full. At a given pace it is sent away (1008, or a
    /// reset where it takes not even that) after 10 s, or once 16 times as much waits and it takes nothing for 1 s.
    pub client_queue_bytes: usize,
    /// Longest pause between two envelopes at a given pace, in real time; longer ones are cut for all providers.
    pub idle_cap: Option<Duration>,
    /// What is to go wrong on purpose.
    pub faults: Option<faults::Script>,
}

impl Options {
    /// Plays `feed` as it was received, to anybody, until it is stopped.
    pub fn new(feed: Feed) -> Self {
        Self {
            feed,
            speed: Speed::Times(1.0),
            key: None,
            max_connections: None,
            wait_for_clients: 1,
            exit_when_done: false,
            linger: Duration::from_secs(5),
            client_queue_bytes: 1 << 20,
            idle_cap: None,
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
    /// No speed.
    #[error("a speed of {given} cannot be played; it must be a number above 0 and up to 1000000")]
    Speed {
        /// What was asked for.
        given: f64,
    },
    /// The fault script does not fit what is played.
    #[error(transparent)]
    Faults(#[from] faults::ScriptError),
    /// The tape cannot be read.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
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
            Self::Speed { .. } => Some("give `max` to play as fast as clients take it"),
            Self::Faults(error) => Some(&error.cure),
            Self::Archive(error) => error.hint(),
            Self::Thread { .. } => None,
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
    /// Whether everything was played and has reached who is there; true for a provider with nothing to play.
    pub done: bool,
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
    stop: watch::Sender<bool>,
    ended: watch::Receiver<Option<Ended>>,
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

    /// Its counts up to now.
    pub fn stats(&self) -> Stats {
        self.house.stats()
    }

    /// Takes leave of all clients (1001) and ends; [`wait`](Self::wait) says when that is done.
    pub fn stop(&self) {
        self.stop.send_replace(true);
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
    if let Speed::Times(given) = options.speed
        && !(given > 0.0 && given <= 1e6)
    {
        return Err(ReplayError::Speed { given });
    }
    let lanes = lanes(&options.feed);
    let remarks = Arc::new(Remarks::default());
    let feed = options.feed.clone();
    let mut chunks = {
        let remarks = Arc::clone(&remarks);
        tokio::task::spawn_blocking(move || feed::open(feed, disk, &remarks))
            .await
            .map_err(|error| ReplayError::Thread { source: io::Error::other(error) })??
    };
    let mut first = Vec::with_capacity(4);
    for chunks in &mut chunks {
        first.push(chunks.recv().await.map(|chunk| (Arc::new(chunk), 0)));
    }
    let earliest = first.iter().flatten().map(|(chunk, _)| chunk.at(0)).min();
    let faults = match options.faults.clone() {
        Some(script) => Some(plan(script, earliest, lanes, first.iter().map(Option::is_some))?),
        None => None,
    };
    let pacing = pacing(&options, earliest.unwrap_or(UnixMicros(0)));

    let (leave, leaving) = watch::channel(false);
    let (changed, _) = watch::channel(0);
    let mut players = JoinSet::new();
    let settings =
        ServerSettings { key: options.key.clone(), max_connections: options.max_connections, ..ServerSettings::default() };
    let mut booths = Vec::with_capacity(4);
    for ((provider, chunks), current) in Provider::ALL.into_iter().zip(chunks).zip(first) {
        let (newcomers, receiver) = mpsc::channel(NEWCOMERS);
        let tally = Arc::new(Tally::default());
        booths.push(Booth {
            provider,
            server: Mutex::new(Server::new(provider, settings.clone())),
            newcomers,
            tally: Arc::clone(&tally),
            has_feed: current.is_some(),
            peers: Mutex::default(),
            clients_ever: AtomicU64::new(0),
        });
        let player = Player {
            provider,
            pacing: pacing.clone(),
            chunks,
            newcomers: receiver,
            tally,
            changed: changed.clone(),
            wait_for_clients: options.wait_for_clients,
            current,
            clients: Vec::new(),
            is_giving: false,
        };
        players.spawn(player.run());
    }
    let house = Arc::new(House {
        booths: <[Booth; 4]>::try_from(booths).unwrap_or_else(|_| unreachable!("one for each of the four")),
        remarks,
        urls: Urls::new(address),
        leaving,
        changed,
        queue_bytes: options.client_queue_bytes,
        keepalive,
        last_peer: AtomicU64::new(0),
        faults,
    });
    let (stop, stopped) = watch::channel(false);
    let (end, ended) = watch::channel(None);
    let running = Running { house: Arc::clone(&house), players, leave, stopped, end };
    tokio::spawn(running.run(listener, shutdown, options.exit_when_done.then_some(options.linger)));
    Ok(Replay { house, stop, ended })
}

/// How many envelopes each provider has and when the last one came, where that costs nothing to know.
fn lanes(feed: &Feed) -> [faults::Lane; 4] {
    let mut lanes = [faults::Lane::default(); 4];
    if let Feed::Lines { envelopes } = feed {
        lanes = [faults::Lane { n_envelopes: Some(0), last: None }; 4];
        for envelope in envelopes {
            let lane = &mut lanes[envelope.provider as usize];
            lane.n_envelopes = lane.n_envelopes.map(|n| n + 1);
            lane.last = lane.last.max(Some(envelope.at));
        }
    }
    lanes
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

fn pacing(options: &Options, earliest: UnixMicros) -> Pacing {
    match options.speed {
        Speed::Max => Pacing::Max,
        Speed::Times(rate) => {
            Pacing::Clock { clock: Arc::new(Mutex::new(Clock::new(earliest, rate, options.idle_cap))), cuts: watch::channel(0).0 }
        }
    }
}

/// What runs behind a [`Replay`].
struct Running {
    house: Arc<House>,
    players: JoinSet<()>,
    leave: watch::Sender<bool>,
    stopped: watch::Receiver<bool>,
    end: watch::Sender<Option<Ended>>,
}

impl Running {
    async fn run(self, listener: TcpListener, shutdown: impl Future<Output = ()> + Send, linger: Option<Duration>) {
        let Self { house, players, leave, mut stopped, end } = self;
        let mut leaving = house.leaving.clone();
        let over = async move {
            // A sender that is gone has left, too.
            drop(leaving.wait_for(|leaving| *leaving).await);
        };
        let serving = tokio::spawn(serve(listener, Arc::clone(&house), ServerOptions::default(), over));
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
