//! The fake providers for tests written in Rust: a few lines start one, dropping it ends it.
//!
//! Owns the short way to a running [`replay`] and nothing that a replay does. Tests in other languages
//! use the program: `birdtape replay FIXTURE -- COMMAND`.
//!
//! ```
//! use birdtape::model::Provider;
//! use birdtape::testing::Replay;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let fake = Replay::of("fixtures/synthetic/mixed-400.jsonl").at_max_speed().key("only-this-one").start_blocking()?;
//! assert!(fake.url(Provider::Tweetstream).starts_with("ws://127.0.0.1:"));
//! // … hand the address to the client under test, and look at what it did:
//! assert_eq!(fake.stats().of(Provider::Tweetstream).clients_ever, 0);
//! # Ok(())
//! # }
//! ```
//!
//! It can be held, moved and made to misbehave:
//!
//! ```
//! use birdtape::replay::{Place, Start, State};
//! use birdtape::testing::Replay;
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let fake = Replay::of("fixtures/synthetic/mixed-400.jsonl")
//!     .at_max_speed()
//!     .from("2026-01-05T12:00:03Z".parse()?)
//!     .faults("fixtures/faults/flaky_history.toml")?
//!     .with(|options| options.start = Start::Paused)
//!     .start()
//!     .await?;
//! let control = fake.control();
//! assert_eq!(control.status().state, State::Paused);
//! // … the client under test connects, and gets one envelope, and then everything:
//! control.step(1)?;
//! control.resume();
//! // All of it is history now.
//! control.seek(Place::End).await?;
//! # Ok(())
//! # }
//! ```
//!
//! Where tokio runs already, `start().await` gives a [`Running`] in its place. Either listens on a free port of
//! 127.0.0.1 and accepts any key unless it is given one.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::import::{self, ImportError, Lines};
use crate::model::{Provider, Secret, UnixMicros};
use crate::replay::faults::{Script, ScriptError};
use crate::replay::{self, Control, Feed, Options, Outcome, Place, ReplayError, Speed, Stats};
use crate::segment::RealDisk;

/// Why there is no fake provider.
#[derive(Debug, thiserror::Error)]
pub enum TestingError {
    /// There is no such file, or it cannot be opened.
    #[error("cannot open {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The file does not hold lines of envelopes.
    #[error(transparent)]
    Lines(#[from] ImportError),
    /// The file breaks off.
    #[error("{} breaks off in line {line}: {why}", path.display())]
    CutOff {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: u64,
        /// What is wrong.
        why: String,
    },
    /// A key of no characters.
    #[error("the key is empty")]
    EmptyKey,
    /// The fault script cannot be read, or makes no sense.
    #[error(transparent)]
    Faults(#[from] ScriptError),
    /// The replay cannot start.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// The system refused a thread.
    #[error("cannot start a thread for the replay")]
    Thread {
        /// Its answer.
        source: io::Error,
    },
}

impl TestingError {
    /// What the person can do about it.
    pub fn hint(&self) -> Option<&str> {
        match self {
            // A replay has no flag for the provider; an import has.
            Self::Lines(ImportError::Unrecognised { .. }) => {
                Some("`birdtape import --provider …` makes a tape of it whose lines are kept as they are; replay that")
            }
            Self::Lines(error) => error.hint(),
            Self::CutOff { .. } => Some("get a whole copy of it, or `birdtape import` what is there and replay the tape"),
            Self::EmptyKey => Some("leave it out to accept any key"),
            Self::Faults(error) => Some(&error.cure),
            Self::Replay(error) => error.hint(),
            Self::Open { .. } | Self::Thread { .. } => None,
        }
    }
}

/// What a path holds, ready to be played.
#[derive(Clone, Debug)]
pub struct Fixture {
    /// For [`Options::new`].
    pub feed: Feed,
    /// Lines of no provider's shape; they go to the provider of the line before.
    pub n_unrecognised: u64,
    /// The first of these lines, counted from 1.
    pub first_unrecognised: Option<u64>,
}

impl Fixture {
    /// Reads a file of envelope lines (plain, gzip or zstd) whole; a directory is taken for a tape, and read later.
    ///
    /// # Errors
    ///
    /// The file is not there, breaks off, or holds no provider's envelopes.
    pub fn read(path: &Path) -> Result<Self, TestingError> {
        if path.is_dir() {
            return Ok(Self { feed: Feed::Tape { dir: path.to_owned() }, n_unrecognised: 0, first_unrecognised: None });
        }
        let file = File::open(path).map_err(|source| TestingError::Open { path: path.to_owned(), source })?;
        let options = import::Options { provider: None, source: None, first_at: UnixMicros(0) };
        let (envelopes, report) = import::envelopes(Lines::new(&path.display().to_string(), file)?, &options)?;
        if let Some(cut) = report.cut {
            return Err(TestingError::CutOff { path: path.to_owned(), line: cut.line, why: cut.why });
        }
        let first_unrecognised = report.unrecognised.first().copied();
        Ok(Self { feed: Feed::Lines { envelopes }, n_unrecognised: report.n_unrecognised, first_unrecognised })
    }
}

/// A fake provider to be started.
#[derive(Clone, Debug)]
pub struct Replay {
    fixture: PathBuf,
    /// Everything else; its feed is only a place for the one to be read.
    options: Options,
    key: Option<String>,
}

impl Replay {
    /// Plays a file of envelope lines or a tape, at the speed it was received.
    pub fn of(fixture: impl Into<PathBuf>) -> Self {
        let fixture = fixture.into();
        let options = Options::new(Feed::Tape { dir: fixture.clone() });
        Self { fixture, options, key: None }
    }

    /// Plays it so many times as fast.
    #[must_use]
    pub fn speed(mut self, times: f64) -> Self {
        self.options.speed = Speed::Times(times);
        self
    }

    /// Plays it as fast as the slowest client of a provider takes it.
    #[must_use]
    pub fn at_max_speed(mut self) -> Self {
        self.options.speed = Speed::Max;
        self
    }

    /// Accepts this key only; for X it is the cookie `auth_token`.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Waits for so many clients of a provider before its first envelope.
    #[must_use]
    pub fn wait_for_clients(mut self, n: usize) -> Self {
        self.options.wait_for_clients = n;
        self
    }

    /// Ends when everything was played, after clients had so long to leave by themselves.
    #[must_use]
    pub fn exit_when_done(mut self, linger: Duration) -> Self {
        self.options.exit_when_done = true;
        self.options.linger = linger;
        self
    }

    /// Begins somewhere else than at the first envelope; [`Place::End`] plays nothing, and history knows everything.
    #[must_use]
    pub fn from(mut self, place: Place) -> Self {
        self.options.from = Some(place);
        self
    }

    /// Lets go wrong what this script says.
    ///
    /// # Errors
    ///
    /// It cannot be read, or makes no sense.
    pub fn faults(mut self, script: impl AsRef<Path>) -> Result<Self, TestingError> {
        self.options.faults = Some(Script::load(script.as_ref())?);
        Ok(self)
    }

    /// Speaks TLS; [`Running::ca_pem`] is the authority to trust.
    #[must_use]
    pub fn tls(mut self) -> Self {
        self.options.tls = true;
        self
    }

    /// Changes what the shorter methods do not reach.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Options)) -> Self {
        change(&mut self.options);
        self
    }

    /// Starts it on tokio's running runtime; when this returns, clients may come.
    ///
    /// # Errors
    ///
    /// The fixture cannot be read, or the replay cannot start.
    pub async fn start(mut self) -> Result<Running, TestingError> {
        if let Some(key) = &self.key {
            self.options.key = Some(Secret::new(key).ok_or(TestingError::EmptyKey)?);
        }
        self.options.feed = Fixture::read(&self.fixture)?.feed;
        let listener = replay::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?;
        let replay = replay::start(self.options, listener, Arc::new(RealDisk), std::future::pending()).await?;
        Ok(Running { replay })
    }

    /// Starts it on a thread of its own, for tests without tokio.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start), and when the system refuses the thread.
    ///
    /// # Panics
    ///
    /// Inside a runtime of tokio, which must not be blocked; use [`start`](Self::start) there.
    pub fn start_blocking(self) -> Result<Blocking, TestingError> {
        let threads = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = threads.map_err(|source| TestingError::Thread { source })?;
        let running = runtime.block_on(self.start())?;
        Ok(Blocking { running, runtime: Some(runtime) })
    }
}

/// A running fake provider; it stops when this is dropped.
#[derive(Debug)]
pub struct Running {
    replay: replay::Replay,
}

impl Running {
    /// Its address, as `http://127.0.0.1:PORT`: base of all requests.
    pub fn base(&self) -> String {
        self.replay.urls().base()
    }

    /// A provider's live connection: `ws://…`, for X the `http://…` of its endless response.
    pub fn url(&self, provider: Provider) -> String {
        self.replay.urls().ws(provider)
    }

    /// The authority to trust, as PEM, when it speaks TLS.
    pub fn ca_pem(&self) -> Option<&str> {
        self.replay.ca_pem()
    }

    /// What was played, to how many.
    pub fn stats(&self) -> Stats {
        self.replay.stats()
    }

    /// Pauses it, seeks in it and so on.
    pub fn control(&self) -> Control {
        self.replay.control()
    }

    /// Waits for the end, which only comes by itself after [`Replay::exit_when_done`].
    pub async fn wait(&self) -> Outcome {
        self.replay.wait().await
    }

    /// Takes leave of all clients (1001), and gives the last counts.
    pub async fn stop(self) -> Outcome {
        self.replay.stop();
        self.replay.wait().await
    }
}

/// A running fake provider with a thread of its own; it stops when this is dropped.
#[derive(Debug)]
pub struct Blocking {
    running: Running,
    // Taken only where this ends.
    runtime: Option<tokio::runtime::Runtime>,
}

impl Blocking {
    /// As [`Running::base`].
    pub fn base(&self) -> String {
        self.running.base()
    }

    /// As [`Running::url`].
    pub fn url(&self, provider: Provider) -> String {
        self.running.url(provider)
    }

    /// As [`Running::ca_pem`].
    pub fn ca_pem(&self) -> Option<&str> {
        self.running.ca_pem()
    }

    /// As [`Running::stats`].
    pub fn stats(&self) -> Stats {
        self.running.stats()
    }

    /// As [`Running::control`].
    pub fn control(&self) -> Control {
        self.running.control()
    }

    /// As [`Running::stop`].
    ///
    /// # Panics
    ///
    /// Inside a runtime of tokio.
    pub fn stop(self) -> Outcome {
        self.running.replay.stop();
        let wait = self.running.wait();
        self.runtime.as_ref().expect("taken only when this is dropped").block_on(wait)
    }
}

impl Drop for Blocking {
    fn drop(&mut self) {
        // An ordinary drop would wait for the threads, and panic inside another runtime.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Endpoint, Request};
    use crate::net::{Limits, SystemNetwork, TlsOptions, request};
    use crate::replay::Ended;

    const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/synthetic/mixed-400.jsonl");

    #[test]
    fn it_runs_without_tokio() {
        let fake = Replay::of(FIXTURE).at_max_speed().start_blocking().unwrap();
        let authority = fake.base().strip_prefix("http://").unwrap().to_owned();
        assert_eq!(fake.url(Provider::Tweetstream), format!("ws://{authority}/ws"));
        assert!(std::net::TcpStream::connect(&authority).is_ok());
        let outcome = fake.stop();
        assert_eq!((outcome.ended, outcome.stats.of(Provider::XLive).clients_ever), (Ended::Stopped, 0));
        assert!(std::net::TcpStream::connect(&authority).is_err());
    }

    #[tokio::test]
    async fn dropping_it_ends_it_and_its_authority_is_trusted_until_then() {
        let fake = Replay::of(FIXTURE).speed(2.0).key("k").tls().start().await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let ca_file = dir.path().join("ca.pem");
        std::fs::write(&ca_file, fake.ca_pem().unwrap()).unwrap();
        let port = fake.base().rsplit_once(':').unwrap().1.parse().unwrap();
        let asked = Request {
            method: "GET",
            endpoint: Endpoint { tls: true, host: "localhost".to_owned(), port },
            target: Secret::new("/").unwrap(),
            headers: Vec::new(),
            body: String::new(),
            shown: String::new(),
        };
        let network = SystemNetwork::new(TlsOptions { ca_file: Some(ca_file), allow_plain: false }).unwrap();
        assert_eq!(request(&network, &asked, &Limits::default()).await.unwrap().status, 200);
        drop(fake);
        // The listener goes when the task that held it has noticed.
        while request(&network, &asked, &Limits::default()).await.is_ok() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn what_cannot_be_played_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let said = |error: TestingError| (error.to_string(), error.hint().is_some());
        let (words, _) = said(Replay::of(dir.path().join("no.jsonl")).start().await.unwrap_err());
        assert!(words.contains("no.jsonl"), "{words}");
        assert!(said(Replay::of(FIXTURE).key("").start().await.unwrap_err()).1);
        let (words, has_hint) = said(Replay::of(FIXTURE).faults(dir.path().join("no.toml")).unwrap_err());
        assert!(words.contains("no.toml") && has_hint, "{words}");
        let strange = dir.path().join("strange.txt");
        std::fs::write(&strange, "root:x:0:0\n").unwrap();
        let error = Replay::of(strange).start().await.unwrap_err();
        assert!(error.hint().unwrap().contains("birdtape import"), "{error}: {:?}", error.hint());
    }
}
