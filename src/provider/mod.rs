//! Protocol adapters: machines and parsers, never a socket.
//!
//! Owns what the four providers say and how to speak with them, in both roles. A machine takes
//! [`Input`]s with the time handed in and gives [`Action`]s; it never sleeps, dials or asks the clock.
//! The shells are the recorder (client role) and the replay server (server role).
//!
//! | folder | provider | `wire.rs` reads | `client.rs` | `server.rs` |
//! | --- | --- | --- | --- | --- |
//! | `twitterapi_io/` | TwitterAPI.io | `event_type` envelopes | WebSocket, header key | fake peer |
//! | `tweetstream/` | TweetStream | `{v,t,op,id,ts,d}` | WebSocket, key in subprotocol, bearer or query | fake peer |
//! | `scrapebadger/` | ScrapeBadger | three printed dialects | WebSocket, key in header or query | fake peer |
//! | `x_live/` | X live pipeline | `topic` + `payload` | endless HTTP response, cookies | fake peer |
//! | `synthetic/` | all four | – | – | the seeded generator of plausible envelopes |
//!
//! `rows.rs`, here and in each provider's folder, reads the same envelopes and pages for an export.
//!
//! A frame is kept before it is understood: the shell hands it to the archive first, then here.
//! Unknown fields are ignored; unknown messages are kept, counted and passed on; neither is an error.

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod closes;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod drive;
pub mod history;
mod lists;
pub mod past;
pub mod redact;
pub mod redial;
mod rest;
mod rows;
mod said;
pub mod scrapebadger;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod script;
pub(crate) mod search;
mod session;
pub mod shift;
mod sweep;
mod switch;
pub mod synthetic;
pub mod tamper;
pub mod tweetstream;
mod twins;
pub mod twitterapi_io;
pub mod webhook;
pub mod x_live;

use std::time::{Duration, Instant};

use bytes::Bytes;

use self::lists::Lists;
pub use self::rest::{Rest, RestSettings};
pub use self::rows::{RowSink, Surprise, Told, read_page_rows, read_rows};
pub use self::said::{Said, said};
pub use self::switch::{Switch, SwitchError, Switches, Values, switches_of};
use crate::model::{Cause, Decoded, Endpoint, Framing, NetFault, Opening, Request, Response, Secret, Secrets, UnixMicros};
pub use crate::model::{Provider, percent_encode};

/// What a client machine is told.
#[derive(Debug)]
pub enum Input<'a> {
    /// The shell is up; the machine says when to dial.
    Start,
    /// The upgrade was accepted, or the endless response began with 200.
    Opened {
        /// What the server selected.
        subprotocol: Option<&'a str>,
    },
    /// The server answered the opening with something else.
    Refused {
        /// Its whole answer (body cut at 64 KiB).
        response: &'a Response,
    },
    /// No answer came at all.
    Unreachable {
        /// What failed.
        fault: NetFault,
        /// In words, without secrets.
        detail: &'a str,
    },
    /// A message came; it is already kept and decoded.
    Frame {
        /// What it says.
        decoded: &'a Decoded,
        /// When it came.
        received_at: UnixMicros,
    },
    /// A protocol-level ping, pong or keepalive came: proof of life without an envelope.
    Alive,
    /// The connection ended.
    Closed(End<'a>),
    /// The answer to [`Action::Request`]; `None` when there was none.
    Answered {
        /// The answer.
        response: Option<&'a Response>,
    },
    /// The operator changes the topics (X live pipeline).
    Topics {
        /// To subscribe.
        add: &'a [String],
        /// To unsubscribe.
        remove: &'a [String],
    },
    /// The instant given by [`Client::deadline`] has come.
    Deadline,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, Default)]
pub struct End<'a> {
    /// Close code of the WebSocket protocol, when a close frame came.
    pub code: Option<u16>,
    /// Its reason.
    pub reason: &'a str,
    /// What broke, when it was not a close frame.
    pub fault: Option<NetFault>,
    /// Whether we closed (because the machine asked for it).
    pub by_us: bool,
}

/// What a client machine wants done, in order.
#[derive(Clone, Debug)]
pub enum Action {
    /// Open a connection ([`Client::opening`] says how), not before that instant.
    Dial {
        /// Earliest moment.
        not_before: Instant,
    },
    /// Send a text message and keep it as `sent`.
    Send(String),
    /// Send a protocol-level ping.
    Ping,
    /// Make a request beside the connection, keep it as `http`, answer with [`Input::Answered`].
    Request(Request),
    /// Close the connection; an [`Input::Closed`] with `by_us` follows.
    Close {
        /// WebSocket close code (for an endless response it is only recorded).
        code: u16,
        /// Why, in words.
        reason: String,
    },
    /// The stream of a scope (`*` is everything on this source) may be missing from the last evidence on.
    Lost {
        /// `*` or a topic.
        scope: String,
        /// Why.
        cause: Cause,
        /// In words for the ledger, without secrets.
        detail: String,
    },
    /// A scope is served (again); the evidence is the input that led here.
    Live {
        /// A topic; `*` is the shell's own affair (first evidence on the connection).
        scope: String,
    },
    /// The scope is no longer wanted: its timeline ends here.
    Dropped {
        /// A topic.
        scope: String,
    },
    /// What selects this source's stream, all of it, as its provider lists it now.
    Scopes {
        /// In the order of their ids; empty when nothing selects.
        all: Vec<Scope>,
    },
    /// Tell the person.
    Say {
        /// How loud.
        loud: Loudness,
        /// A sentence: what happened and what happens next.
        text: String,
    },
    /// Give up this source.
    Stop {
        /// Why; the process's exit code follows from it.
        fault: Fault,
        /// A sentence for the person.
        text: String,
    },
}

/// Something that selects what a source delivers: a rule, a monitor, an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// What deliveries name it by; of an account its handle.
    pub id: String,
    /// What selects the events: a search, as history takes it; `None` where the provider does not say.
    pub text: Option<String>,
    /// What it is, in words.
    pub detail: String,
}

/// How loudly to tell the person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loudness {
    /// Good to know.
    Info,
    /// Data may be missing.
    Warn,
    /// Something must be done by the person.
    Error,
}

/// Why a source is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The key is wrong or missing.
    Credentials,
    /// Another client owns the connection now.
    Replaced,
    /// A drop, and reconnecting is switched off.
    Dropped,
    /// The settings cannot work.
    Settings,
}

/// How the key travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Auth {
    /// In the provider's header (`x-api-key`).
    Header,
    /// In the query.
    Query,
    /// As an offered WebSocket subprotocol (TweetStream).
    Subprotocol,
    /// As `Authorization: Bearer` (TweetStream).
    Bearer,
    /// As cookies with a csrf header (X).
    Cookies,
}

/// Keys of one source.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// API key.
    pub key: Option<Secret>,
    /// X: the `auth_token` cookie.
    pub auth_token: Option<Secret>,
    /// X: the `ct0` cookie, which is also the csrf token.
    pub ct0: Option<Secret>,
}

impl Credentials {
    /// All of them.
    pub fn secrets(&self) -> impl Iterator<Item = &Secret> {
        [&self.key, &self.auth_token, &self.ct0].into_iter().flatten()
    }

    /// Foreign words without any of them.
    pub(crate) fn hidden_in(&self, words: &str) -> String {
        Secrets::of(Secrets::IN_WORDS, self.secrets()).hide(words)
    }
}

/// Everything a client machine needs to know about its source.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which protocol.
    pub provider: Provider,
    /// Where; `None` is the provider's own address.
    pub base: Option<Base>,
    /// Keys.
    pub credentials: Credentials,
    /// How the key travels.
    pub auth: Auth,
    /// Shortest wait between a drop and the next dial.
    pub reconnect_floor: Duration,
    /// Longest wait between dials while the provider is merely down.
    pub reconnect_cap: Duration,
    /// Wait after a refusal that does not pass by itself (wrong plan, no credits, policy).
    pub slow_retry: Duration,
    /// Whether to dial again after a drop.
    pub auto_reconnect: bool,
    /// How often we send a protocol-level ping; zero is never.
    pub ping_every: Duration,
    /// How long after a ping (or, where the provider owes heartbeats, after the last one) silence is death.
    pub pong_within: Duration,
    /// X live pipeline: topics to subscribe.
    pub topics: Vec<String>,
    /// X live pipeline: whether `/dm_…` topics may be subscribed.
    pub direct_messages: bool,
    /// X live pipeline: framing to ask for.
    pub framing: Framing,
    /// TweetStream: whether to answer `auth_ping`.
    pub answer_auth_ping: bool,
    /// How often what selects the stream is read from the provider's management, besides at the opening; zero is never.
    pub scopes_every: Duration,
    /// Seed of the jitter.
    pub seed: u64,
}

/// A base address given instead of the provider's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    /// Host, port and whether TLS.
    pub endpoint: Endpoint,
    /// Path in front of the provider's paths, without a trailing slash; often empty.
    pub prefix: String,
    /// The whole path of the live connection, when a `ws://` or `wss://` address with a path was given.
    pub live_path: Option<String>,
}

/// An address that cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{given}` is not a usable address: {why}")]
pub struct BaseError {
    /// What was written, without user, password and query.
    pub given: String,
    /// What is wrong with it.
    pub why: &'static str,
}

impl Base {
    /// Reads `http://host[:port][/prefix]`, `https://…`, `ws://…` or `wss://…`.
    ///
    /// # Errors
    /// Another scheme, no host, a bad port, a user, a query or a fragment.
    pub fn parse(address: &str) -> Result<Self, BaseError> {
        let shown = address.split(['?', '#']).next().unwrap_or_default();
        let shown = shown.rsplit_once('@').map_or_else(|| shown.to_owned(), |(_, host)| format!("…@{host}"));
        let fail = |why| BaseError { given: shown.clone(), why };
        let (scheme, rest) = address.split_once("://").ok_or_else(|| fail("it has no scheme such as https://"))?;
        let (tls, live) = match scheme {
            "http" => (false, false),
            "https" => (true, false),
            "ws" => (false, true),
            "wss" => (true, true),
            _ => return Err(fail("the scheme must be http, https, ws or wss")),
        };
        if rest.contains(['?', '#', '@']) {
            return Err(fail("it must not carry a user, a query or a fragment; keys go into the environment"));
        }
        let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let bracketed = authority.strip_prefix('[').and_then(|a| a.split_once(']'));
        let (host, port) = match bracketed {
            Some((host, after)) => (host, after.strip_prefix(':')),
            None => authority.split_once(':').map_or((authority, None), |(h, p)| (h, Some(p))),
        };
        let port = match port {
            Some(port) => {
                port.parse().ok().filter(|p| *p != 0).ok_or_else(|| fail("the port is not a number from 1 to 65535"))?
            }
            None if tls => 443,
            None => 80,
        };
        if host.is_empty() || host.contains(char::is_whitespace) {
            return Err(fail("it has no host"));
        }
        let path = path.trim_end_matches('/').to_owned();
        let endpoint = Endpoint { tls, host: host.to_owned(), port };
        let live_path = (live && !path.is_empty()).then(|| path.clone());
        let prefix = if live { String::new() } else { path };
        Ok(Self { endpoint, prefix, live_path })
    }
}

/// Dispatches one operation to the machine of the right provider.
macro_rules! each {
    ($self:expr, $name:ident, $machine:ident => $call:expr) => {
        match $self {
            $name::TwitterapiIo($machine) => $call,
            $name::Tweetstream($machine) => $call,
            $name::Scrapebadger($machine) => $call,
            $name::XLive($machine) => $call,
        }
    };
}

/// Time between two readings of what selects, where nobody says otherwise. Ours: a rule that changes is noticed within it.
pub const SCOPES_EVERY: Duration = Duration::from_secs(600);

/// The client side of one connection: its machine, and the readings of what selects its stream.
#[derive(Debug)]
pub struct Client {
    machine: Machine,
    lists: Lists,
    /// What the readings want done.
    wanted: Option<Action>,
}

/// The machine of one provider.
#[derive(Debug)]
enum Machine {
    /// TwitterAPI.io
    TwitterapiIo(twitterapi_io::Client),
    /// TweetStream
    Tweetstream(tweetstream::Client),
    /// ScrapeBadger
    Scrapebadger(scrapebadger::Client),
    /// X live pipeline
    XLive(x_live::Client),
}

impl Client {
    /// A machine at rest; feed it [`Input::Start`].
    pub fn new(settings: Settings) -> Self {
        let lists = Lists::new(&settings);
        let machine = match settings.provider {
            Provider::TwitterapiIo => Machine::TwitterapiIo(twitterapi_io::Client::new(settings)),
            Provider::Tweetstream => Machine::Tweetstream(tweetstream::Client::new(settings)),
            Provider::Scrapebadger => Machine::Scrapebadger(scrapebadger::Client::new(settings)),
            Provider::XLive => Machine::XLive(x_live::Client::new(settings)),
        };
        Self { machine, lists, wanted: None }
    }

    /// Tells the machine what happened.
    pub fn on(&mut self, now: Instant, input: Input<'_>) {
        let wanted = match &input {
            Input::Opened { .. } => {
                self.lists.opened(now);
                self.lists.due(now)
            }
            Input::Closed(_) => {
                self.lists.closed();
                None
            }
            Input::Deadline => self.lists.due(now),
            Input::Answered { response } => self.lists.answered(now, *response),
            _ => None,
        };
        self.wanted = wanted.or(self.wanted.take());
        each!(&mut self.machine, Machine, machine => machine.on(now, input));
    }

    /// The next thing to do, if any; ask until there is none.
    pub fn next_action(&mut self) -> Option<Action> {
        each!(&mut self.machine, Machine, machine => machine.next_action()).or_else(|| self.wanted.take())
    }

    /// When the machine wants [`Input::Deadline`] if nothing else happens.
    pub fn deadline(&self) -> Option<Instant> {
        let machine = each!(&self.machine, Machine, machine => machine.deadline());
        [machine, self.lists.deadline()].into_iter().flatten().min()
    }

    /// How to open the connection, as of now (topics may have changed).
    pub fn opening(&self) -> Opening {
        each!(&self.machine, Machine, machine => machine.opening())
    }
}

/// Settings a provider's own pages suggest; a config file changes single ones.
pub fn default_settings(provider: Provider) -> Settings {
    match provider {
        Provider::TwitterapiIo => twitterapi_io::default_settings(),
        Provider::Tweetstream => tweetstream::default_settings(),
        Provider::Scrapebadger => scrapebadger::default_settings(),
        Provider::XLive => x_live::default_settings(),
    }
}

/// How late a scope's events may come where nothing better is known.
pub fn default_lateness_horizon(provider: Provider) -> Duration {
    match provider {
        Provider::TwitterapiIo => twitterapi_io::LATENESS_HORIZON,
        Provider::Tweetstream => tweetstream::LATENESS_HORIZON,
        Provider::Scrapebadger => scrapebadger::LATENESS_HORIZON,
        Provider::XLive => x_live::LATENESS_HORIZON,
    }
}

/// Reads an envelope once: strict JSON check, meaning, stamps and events.
///
/// Never fails: what cannot be read comes back with `json: false` or [`Message::Unknown`](crate::model::Message).
pub fn decode(provider: Provider, bytes: &[u8]) -> Decoded {
    let Ok(text) = std::str::from_utf8(bytes) else { return unread() };
    let parse = || match provider {
        Provider::TwitterapiIo => twitterapi_io::decode(text),
        Provider::Tweetstream => tweetstream::decode(text),
        Provider::Scrapebadger => scrapebadger::decode(text),
        Provider::XLive => x_live::decode(text),
    };
    survived(bytes, parse).unwrap_or_else(unread)
}

/// What a parser makes of bytes; `None` when it panics. That is a bug of ours and no reason to end, now or each time that a
/// catalog is made again: the bytes are kept as what nobody could read, and counted so. The panic's words go to the log.
fn survived<T>(bytes: &[u8], parse: impl FnOnce() -> T) -> Option<T> {
    // Whatever it has left half done nobody sees again.
    let parse = std::panic::AssertUnwindSafe(|| {
        crate::model::poison_point(bytes);
        parse()
    });
    std::panic::catch_unwind(parse).ok()
}

fn unread() -> Decoded {
    Decoded { message: crate::model::Message::Unknown, ..Decoded::default() }
}

/// Reads a record by the way it came: an envelope, or a page of history.
pub fn decode_record(provider: Provider, via: crate::model::Via, bytes: &[u8]) -> Decoded {
    match via {
        crate::model::Via::History | crate::model::Via::Snapshot => {
            survived(bytes, || history::decode_page(provider, bytes)).unwrap_or_else(unread)
        }
        _ => decode(provider, bytes),
    }
}

/// Tells by its shape which provider an envelope comes from, without trusting key order.
///
/// `event_type` is TwitterAPI.io, `v` with `t` and `op` TweetStream, `topic` or `payload` X, `event` or `type` ScrapeBadger.
pub fn recognise(bytes: &[u8]) -> Option<Provider> {
    let mut json = crate::model::json::Json::new(std::str::from_utf8(bytes).ok()?);
    let (mut event_type, mut v, mut op, mut topic, mut event) = (false, false, false, false, false);
    json.object(|key, _| {
        match key {
            "event_type" => event_type = true,
            "v" => v = true,
            "op" => op = true,
            "topic" | "payload" => topic = true,
            "event" | "type" => event = true,
            _ => {}
        }
        Ok(())
    })
    .ok()?;
    match () {
        () if event_type => Some(Provider::TwitterapiIo),
        () if v && op => Some(Provider::Tweetstream),
        () if topic => Some(Provider::XLive),
        () if event => Some(Provider::Scrapebadger),
        () => None,
    }
}

/// Names a connection in a fake peer.
pub type PeerId = u64;

/// A request as the fake peer sees it.
#[derive(Clone, Debug)]
pub struct Asked<'a> {
    /// `GET`, `POST` …
    pub method: &'a str,
    /// Path without the query.
    pub path: &'a str,
    /// Query without the question mark; may be empty.
    pub query: &'a str,
    /// Headers, names in lower case.
    pub headers: &'a [(String, String)],
    /// The body.
    pub body: &'a [u8],
    /// Whether it asks for a WebSocket.
    pub wants_upgrade: bool,
}

impl Asked<'_> {
    /// The first header of that name (lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// The first query parameter of that name, percent-decoded.
    pub fn query_value(&self, name: &str) -> Option<String> {
        form_values(self.query).find(|(n, _)| n == name).map(|(_, v)| v)
    }
}

/// Name and value pairs of a query or a form body, percent-decoded; `+` is a space.
pub fn form_values(text: &str) -> impl Iterator<Item = (String, String)> + '_ {
    text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (percent_decode(name), percent_decode(value))
    })
}

fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let code =
            bytes.get(at + 1..at + 3).and_then(|h| std::str::from_utf8(h).ok()).and_then(|h| u8::from_str_radix(h, 16).ok());
        match (bytes[at], code) {
            (b'%', Some(code)) => {
                out.push(code);
                at += 2;
            }
            (b'+', _) => out.push(b' '),
            (other, _) => out.push(other),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// What the fake peer answers.
#[derive(Clone, Debug)]
pub enum Answer {
    /// A plain answer; the connection stays an HTTP connection.
    Http(Response),
    /// Switch to WebSocket.
    WebSocket {
        /// Subprotocol to select.
        subprotocol: Option<String>,
    },
    /// Begin an endless response.
    Stream {
        /// How to frame envelopes on it.
        framing: Framing,
        /// Headers of the answer.
        headers: Vec<(String, String)>,
    },
    /// Switch to WebSocket, send these messages, then close: a refusal that comes after the upgrade.
    WebSocketThenClose {
        /// Messages before the close frame.
        messages: Vec<Bytes>,
        /// Close code.
        code: u16,
        /// Reason in the close frame.
        reason: String,
    },
}

/// What happens to connections when a message was looked at by the fake peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerAction {
    /// Send this envelope to that connection.
    Send(PeerId, Bytes),
    /// Close that connection.
    Close {
        /// Which.
        peer: PeerId,
        /// WebSocket close code.
        code: u16,
        /// Reason.
        reason: String,
    },
}

/// Settings of a fake peer.
#[derive(Clone, Debug, Default)]
pub struct ServerSettings {
    /// The only key accepted; `None` accepts any that is not empty.
    pub key: Option<Secret>,
    /// Connections per key; `None` is the provider's documented number.
    pub max_connections: Option<u32>,
    /// Where the provider's pages disagree.
    pub switches: Switches,
}

/// The fake peer of one provider: who may come in, what a connection cannot do without, what clients' messages mean.
#[derive(Debug)]
pub enum Server {
    /// TwitterAPI.io
    TwitterapiIo(twitterapi_io::Server),
    /// TweetStream
    Tweetstream(tweetstream::Server),
    /// ScrapeBadger
    Scrapebadger(scrapebadger::Server),
    /// X live pipeline
    XLive(x_live::Server),
}

impl Server {
    /// A peer without connections.
    pub fn new(provider: Provider, settings: ServerSettings) -> Self {
        match provider {
            Provider::TwitterapiIo => Self::TwitterapiIo(twitterapi_io::Server::new(settings)),
            Provider::Tweetstream => Self::Tweetstream(tweetstream::Server::new(settings)),
            Provider::Scrapebadger => Self::Scrapebadger(scrapebadger::Server::new(settings)),
            Provider::XLive => Self::XLive(x_live::Server::new(settings)),
        }
    }

    /// Answers a request; `peer` names the connection from now on if it becomes a live one.
    pub fn asked(&mut self, peer: PeerId, asked: &Asked<'_>, now: Instant) -> Answer {
        each!(self, Self, machine => machine.asked(peer, asked, now))
    }

    /// Envelopes to send before anything else, given the first envelope that will be played (if it is known).
    ///
    /// Clean replay adds only what a connection cannot do without: X's `config`, unless the tape itself begins with one.
    pub fn greeting(&mut self, peer: PeerId, next: Option<&[u8]>) -> Vec<Bytes> {
        each!(self, Self, machine => machine.greeting(peer, next))
    }

    /// Whether that connection gets that envelope (X: by topic, unless it opened without any); also notes session ids.
    pub fn wants(&mut self, peer: PeerId, envelope: &[u8]) -> bool {
        each!(self, Self, machine => machine.wants(peer, envelope))
    }

    /// A client sent a message.
    pub fn heard(&mut self, peer: PeerId, message: &[u8], now: Instant) -> Vec<PeerAction> {
        each!(self, Self, machine => machine.heard(peer, message, now))
    }

    /// A live connection ended.
    pub fn gone(&mut self, peer: PeerId) {
        each!(self, Self, machine => machine.gone(peer));
    }

    /// How often an idle live connection gets a keepalive that is no envelope (protocol ping, blank line).
    pub fn keepalive(&self) -> Duration {
        each!(self, Self, machine => machine.keepalive())
    }
}

/// SHA-256 of a key: what a fake peer remembers about who is connected.
pub(crate) fn key_digest(key: &str) -> [u8; 32] {
    use sha2::{Digest, Sha256};
    Sha256::digest(key.as_bytes()).into()
}

/// Whether two keys are equal, in a time that tells nothing about where they differ or how long they are.
pub(crate) fn same_key(a: &str, b: &str) -> bool {
    let (a, b) = (key_digest(a), key_digest(b));
    a.iter().zip(b).fold(0, |differs, (x, y)| differs | (x ^ y)) == 0
}

/// Which provider serves a path on the replay's one port; `None` is nobody.
pub fn provider_of_path(path: &str) -> Option<Provider> {
    let under = |prefixes: &[&str]| prefixes.iter().any(|prefix| path.starts_with(prefix));
    match path {
        "/ws" => Some(Provider::Tweetstream),
        _ if under(&["/twitter/", "/oapi/"]) => Some(Provider::TwitterapiIo),
        _ if under(&["/api/"]) => Some(Provider::Tweetstream),
        _ if under(&["/v1/"]) => Some(Provider::Scrapebadger),
        _ if under(&["/live_pipeline/", "/1.1/", "/i/api/", "/graphql/"]) => Some(Provider::XLive),
        _ => None,
    }
}

/// Whether a path is answered by a [`Server`]: the live connection, and what changes what it carries.
pub fn is_live_path(path: &str) -> bool {
    let live = Provider::ALL.iter().any(|provider| path == live_path(*provider));
    live || path.starts_with("/live_pipeline/") || path.starts_with("/1.1/live_pipeline/")
}

/// Path of a provider's live connection.
pub const fn live_path(provider: Provider) -> &'static str {
    match provider {
        Provider::TwitterapiIo => "/twitter/tweet/websocket",
        Provider::Tweetstream => "/ws",
        Provider::Scrapebadger => "/v1/twitter/stream",
        Provider::XLive => "/live_pipeline/events",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_addresses() {
        let base = Base::parse("http://127.0.0.1:8080/").unwrap();
        assert_eq!((base.endpoint.port, base.prefix.as_str(), base.live_path), (8080, "", None));
        let base = Base::parse("wss://example.test/a/b").unwrap();
        assert_eq!((base.endpoint.tls, base.endpoint.port, base.live_path.as_deref()), (true, 443, Some("/a/b")));
        let base = Base::parse("https://[::1]:9/x/").unwrap();
        assert_eq!(
            (base.endpoint.host.as_str(), base.endpoint.authority().as_str(), base.prefix.as_str()),
            ("::1", "[::1]:9", "/x")
        );
        for bad in
            ["", "localhost", "ftp://x", "http://", "http://x:0", "http://x:99999", "http://u:p@x", "http://x?key=1", "ws://"]
        {
            assert!(Base::parse(bad).is_err(), "{bad}");
        }
        let error = Base::parse("http://me:hunter2@host/?api_key=hunter3").unwrap_err().to_string();
        assert!(!error.contains("hunter"), "{error}");
    }

    #[test]
    fn tells_providers_apart_in_any_key_order() {
        let cases: [(&str, Option<Provider>); 8] = [
            (r#"{"tweets":[],"event_type":"tweet"}"#, Some(Provider::TwitterapiIo)),
            (r#"{"op":"content","t":"tweet","v":1}"#, Some(Provider::Tweetstream)),
            (r#"{"topic":null,"payload":{}}"#, Some(Provider::XLive)),
            (r#"{"monitor_id":"1","event":"tweet.detected"}"#, Some(Provider::Scrapebadger)),
            (r#"{"type":"ping"}"#, Some(Provider::Scrapebadger)),
            ("{}", None),
            ("[]", None),
            ("nonsense", None),
        ];
        for (text, want) in cases {
            assert_eq!(recognise(text.as_bytes()), want, "{text}");
        }
    }

    #[test]
    fn forms_decode() {
        let pairs: Vec<_> = form_values("a=%2Fx%2C1&b=&c+d=e%zz").collect();
        let want = [("a", "/x,1"), ("b", ""), ("c d", "e%zz")].map(|(n, v)| (n.to_owned(), v.to_owned()));
        assert_eq!(pairs, want);
        assert_eq!(percent_encode("/a b,é"), "%2Fa%20b%2C%C3%A9");
    }

    /// Other tests of this process never meet these bytes.
    #[test]
    fn an_envelope_that_makes_the_parser_panic_is_one_that_nobody_can_read() {
        use crate::model::{Message, Via, rehearse_panic};

        const POISON: &[u8] = br#"{"v":1,"t":"tweet","op":"content","rehearsed":"5b1f"}"#;
        let unread = Decoded { message: Message::Unknown, ..Decoded::default() };
        assert_ne!(decode(Provider::Tweetstream, POISON), unread);
        assert!(rehearse_panic("parser:\"rehearsed\":\"5b1f\""));
        for provider in Provider::ALL {
            assert_eq!(decode(provider, POISON), unread);
            assert_eq!(decode_record(provider, Via::History, POISON), unread);
        }
        assert_ne!(decode(Provider::Tweetstream, br#"{"v":1,"t":"tweet","op":"content"}"#), unread);
    }
}
