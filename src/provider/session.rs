//! What the WebSocket client machines share: phases, liveness, back-off and how a loss is told.
//!
//! A provider's `client.rs` brings its tables (what a close code or a status means) and its own messages; this file
//! brings everything that must be the same for all of them:
//!
//! - the first dial at once, every later one not before the floor, and never after a [`Next::Stop`];
//! - one [`Action::Lost`] per ended connection: a close that follows a loss already told adds no second cause;
//! - protocol pings with a deadline, and silence of an owed heartbeat;
//! - one sentence per loss for the person: what happened, what it means, what happens next and when.
//!
//! ```text
//! Idle --start--> Dialing --opened--> Open --closed--> Dialing ...
//!                    ^                 |                  |
//!                    |                 +--condemned--> Leaving --closed--> Dialing or Stopped
//!                    +--refused, unreachable (waits inside Dialing)
//! ```
//!
//! No text made here holds a key: whatever the provider or the network said is passed through [`Session::clean`].

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::redial::Redial;
use super::{Action, Auth, Base, End, Fault, Loudness, Settings, live_path, percent_encode};
use crate::model::json::Json;
use crate::model::{Cause, Endpoint, NetFault, Opening, Response, Secret, Transport};

/// First step of the back-off; the floor may lie above it.
///
/// Our choice: 1011, 1013 and 1014 back off from 5 s, and one number for all keeps the table short.
const FIRST_STEP: Duration = Duration::from_secs(5);

/// A connection that lasted this long and said something was good: the back-off starts small again.
const GOOD_AFTER: Duration = Duration::from_secs(60);

/// After so many protocol faults in a row only the slow retry is left: one side has a bug that redialling cannot cure.
const PROTOCOL_FAULTS_MAX: u32 = 3;

/// How long a peer that said farewell (an error message, `replaced`) may take to close before we do.
const FAREWELL: Duration = Duration::from_secs(5);

/// Shortest wait after 429 or "too many attempts" when the provider does not say how long.
const RATE_LIMITED_WAIT: Duration = Duration::from_secs(60);

/// Shortest wait after 1013 (try again later).
///
/// Observed (public client notes, 2026-09): TwitterAPI.io clients wait 60 s or more; RFC 6455's registry only says "later".
const TRY_AGAIN_LATER_WAIT: Duration = Duration::from_secs(60);

/// Longest piece of foreign text in a sentence, in bytes.
const QUOTE_BYTES_MAX: usize = 200;

/// What happens after a loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Dial when the back-off says so.
    Soon,
    /// As `Soon`, but not earlier than this.
    NotWithin(Duration),
    /// It does not pass by itself: the slow retry.
    Slow,
    /// Never again.
    Stop(Fault),
}

/// What a close code, a status or a silence means.
#[derive(Clone, Copy, Debug)]
pub(super) struct Verdict {
    pub(super) cause: Cause,
    pub(super) next: Next,
    /// For the person, as the second half of a sentence.
    pub(super) meaning: &'static str,
}

impl Verdict {
    pub(super) const fn new(cause: Cause, next: Next, meaning: &'static str) -> Self {
        Self { cause, next, meaning }
    }
}

/// A provider's promise of application heartbeats.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heartbeat {
    /// Without any message for so long the connection is dead.
    pub(super) silence: Duration,
    /// Heartbeats that must have been seen on this connection before their absence means anything.
    pub(super) trusted_after: u32,
}

/// The shared half of a client machine.
#[derive(Debug)]
pub(super) struct Session {
    settings: Settings,
    heartbeat: Heartbeat,
    redial: Redial,
    phase: Phase,
    protocol_faults: u32,
    actions: VecDeque<Action>,
}

#[derive(Debug)]
enum Phase {
    Idle,
    Dialing,
    Open(Open),
    /// The loss is told; only the close is awaited. `close_by`: then we close ourselves; `None` once we have.
    Leaving {
        verdict: Verdict,
        what: String,
        close_by: Option<Instant>,
    },
    Stopped,
}

#[derive(Debug)]
struct Open {
    since: Instant,
    n_messages: u64,
    n_heartbeats: u32,
    message_at: Instant,
    ping_at: Option<Instant>,
    pong_by: Option<Instant>,
}

impl Session {
    pub(super) fn new(settings: Settings, heartbeat: Heartbeat) -> Self {
        let redial = Redial::new(settings.reconnect_floor, FIRST_STEP, settings.reconnect_cap, settings.seed);
        Self { settings, heartbeat, redial, phase: Phase::Idle, protocol_faults: 0, actions: VecDeque::new() }
    }

    pub(super) fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    pub(super) fn push(&mut self, action: Action) {
        self.actions.push_back(action);
    }

    pub(super) fn say(&mut self, loud: Loudness, text: String) {
        self.push(Action::Say { loud, text });
    }

    /// Whether messages of the connection still count.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open(_))
    }

    /// The first dial, at once; with a key or a way to send it that cannot work there is none.
    pub(super) fn start(&mut self, now: Instant, ways: &[Auth]) {
        if !matches!(self.phase, Phase::Idle) {
            return;
        }
        match self.obstacle(ways) {
            Some((fault, text)) => self.stop(fault, text),
            None => {
                self.phase = Phase::Dialing;
                self.push(Action::Dial { not_before: now });
            }
        }
    }

    fn obstacle(&self, ways: &[Auth]) -> Option<(Fault, String)> {
        let provider = self.settings.provider;
        if !ways.contains(&self.settings.auth) {
            return Some((Fault::Settings, format!("{provider} does not take its key this way; change `auth` of the source")));
        }
        let Some(key) = &self.settings.credentials.key else {
            return Some((Fault::Credentials, format!("no key for {provider}; put it into the environment and start again")));
        };
        // A header takes visible ASCII only; anything else is a slip of the paste.
        let sendable = key.expose().bytes().all(|b| b.is_ascii_graphic());
        (!sendable).then(|| (Fault::Credentials, format!("the key for {provider} holds characters that no key has; check it")))
    }

    pub(super) fn opened(&mut self, now: Instant) {
        if matches!(self.phase, Phase::Stopped) {
            return;
        }
        let every = self.settings.ping_every;
        let ping_at = (!every.is_zero()).then(|| now + every);
        self.phase = Phase::Open(Open { since: now, n_messages: 0, n_heartbeats: 0, message_at: now, ping_at, pong_by: None });
    }

    /// A message came: the connection lives.
    pub(super) fn message(&mut self, now: Instant, is_heartbeat: bool) {
        if let Phase::Open(open) = &mut self.phase {
            open.n_messages += 1;
            open.n_heartbeats = open.n_heartbeats.saturating_add(u32::from(is_heartbeat));
            open.message_at = now;
            open.pong_by = None;
        }
    }

    /// A protocol ping or pong came. It proves the link, not the application behind it.
    pub(super) fn alive(&mut self) {
        if let Phase::Open(open) = &mut self.phase {
            open.pong_by = None;
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Open(open) => [open.ping_at, open.pong_by, self.silent_at(open)].into_iter().flatten().min(),
            Phase::Leaving { close_by, .. } => *close_by,
            Phase::Idle | Phase::Dialing | Phase::Stopped => None,
        }
    }

    fn silent_at(&self, open: &Open) -> Option<Instant> {
        (open.n_heartbeats >= self.heartbeat.trusted_after).then(|| open.message_at + self.heartbeat.silence)
    }

    pub(super) fn deadline_came(&mut self, now: Instant) {
        match &mut self.phase {
            Phase::Leaving { close_by, .. } if close_by.is_some_and(|at| at <= now) => {
                *close_by = None;
                self.push(Action::Close { code: 1000, reason: "leaving".to_owned() });
            }
            Phase::Open(_) => self.check_life(now),
            _ => {}
        }
    }

    fn check_life(&mut self, now: Instant) {
        let Phase::Open(open) = &self.phase else { return };
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if due(open.pong_by) {
            let what = format!("no answer to a ping for {}", shown(self.settings.pong_within));
            self.hang_up(now, what, "the link is dead although nobody closed it");
        } else if due(self.silent_at(open)) {
            let what = format!("no message for {}", shown(now.duration_since(open.message_at)));
            self.hang_up(now, what, "the provider's heartbeats have stopped although the link answers");
        } else if due(open.ping_at) {
            self.ping(now);
        }
    }

    fn ping(&mut self, now: Instant) {
        let (every, within) = (self.settings.ping_every, self.settings.pong_within);
        if let Phase::Open(open) = &mut self.phase {
            open.ping_at = Some(now + every);
            open.pong_by = open.pong_by.or(Some(now + within));
            self.push(Action::Ping);
        }
    }

    /// Closes a connection that is dead.
    ///
    /// 1011 with these words is what the widespread `websockets` library sends in the same place.
    fn hang_up(&mut self, now: Instant, what: String, meaning: &'static str) {
        self.condemn(now, Verdict::new(Cause::Silent, Next::Soon, meaning), what);
        if let Phase::Leaving { close_by, .. } = &mut self.phase {
            *close_by = None;
        }
        self.push(Action::Close { code: 1011, reason: "keepalive ping timeout".to_owned() });
    }

    /// Tells a loss while the connection still stands; its close then only decides when to dial.
    pub(super) fn condemn(&mut self, now: Instant, verdict: Verdict, what: String) {
        if !self.is_open() {
            return;
        }
        let verdict = self.settle(now, verdict);
        self.lost(verdict, &what);
        self.phase = Phase::Leaving { verdict, what, close_by: Some(now + FAREWELL) };
    }

    /// The connection ended; `judge` is the provider's table of close codes.
    pub(super) fn closed(&mut self, now: Instant, end: End<'_>, judge: impl Fn(u16) -> Verdict) {
        match std::mem::replace(&mut self.phase, Phase::Dialing) {
            Phase::Stopped => self.phase = Phase::Stopped,
            Phase::Leaving { verdict, what, .. } => self.go_on(now, verdict, &what),
            phase => {
                self.phase = phase;
                let (verdict, what) = self.judge_end(end, judge);
                let verdict = self.settle(now, verdict);
                self.lost(verdict, &what);
                self.go_on(now, verdict, &what);
            }
        }
    }

    fn judge_end(&self, end: End<'_>, judge: impl Fn(u16) -> Verdict) -> (Verdict, String) {
        let reason = self.clean(end.reason);
        let reason = if reason.is_empty() { reason } else { format!(" \"{reason}\"") };
        match (end.code, end.fault) {
            (Some(code), _) => (judge(code), format!("connection closed with code {code}{reason}")),
            (None, Some(fault)) => (judge_fault(fault), format!("connection broke ({}){reason}", fault.name())),
            (None, None) => (judge_close(1005), format!("connection ended without a close code{reason}")),
        }
    }

    /// The server answered the opening with something else than the upgrade.
    pub(super) fn refused(&mut self, now: Instant, response: &Response, verdict: Verdict) {
        let verdict = match (verdict.next, response.retry_after()) {
            (Next::Soon | Next::NotWithin(_), Some(wait)) => Verdict { next: Next::NotWithin(wait), ..verdict },
            _ => verdict,
        };
        let words = self.clean(&words_of(response));
        let words = if words.is_empty() { words } else { format!(" \"{words}\"") };
        self.fail(now, verdict, format!("connection refused with HTTP status {}{words}", response.status));
    }

    /// No answer came at all.
    pub(super) fn unreachable(&mut self, now: Instant, fault: NetFault, detail: &str) {
        let detail = self.clean(detail);
        let detail = if detail.is_empty() { fault.name().to_owned() } else { format!("{}: {detail}", fault.name()) };
        let verdict = match fault {
            NetFault::Reset => Verdict::new(Cause::Unreachable, Next::Soon, "somebody hung up before the connection stood"),
            fault => judge_fault(fault),
        };
        self.fail(now, verdict, format!("no connection ({detail})"));
    }

    fn fail(&mut self, now: Instant, verdict: Verdict, what: String) {
        if matches!(self.phase, Phase::Stopped) {
            return;
        }
        let verdict = self.settle(now, verdict);
        self.lost(verdict, &what);
        self.go_on(now, verdict, &what);
    }

    /// Counts what the ended connection was worth, and turns the third protocol fault in a row into a slow retry.
    fn settle(&mut self, now: Instant, verdict: Verdict) -> Verdict {
        if let Phase::Open(open) = &self.phase
            && open.n_messages > 0
            && now.duration_since(open.since) >= GOOD_AFTER
        {
            self.redial.reset();
            self.protocol_faults = 0;
        }
        if verdict.cause != Cause::Protocol {
            return verdict;
        }
        self.protocol_faults += 1;
        if self.protocol_faults < PROTOCOL_FAULTS_MAX || matches!(verdict.next, Next::Stop(_)) {
            return verdict;
        }
        Verdict { next: Next::Slow, ..verdict }
    }

    fn lost(&mut self, verdict: Verdict, what: &str) {
        let detail = format!("{what}: {}", verdict.meaning);
        self.push(Action::Lost { scope: "*".to_owned(), cause: verdict.cause, detail });
    }

    /// The link is down and the loss is told: dial again or give up, and say so.
    fn go_on(&mut self, now: Instant, verdict: Verdict, what: &str) {
        let told = format!("{what}: {}", verdict.meaning);
        let wait = match verdict.next {
            Next::Stop(fault) => return self.stop(fault, format!("{told}; this source is given up")),
            _ if !self.settings.auto_reconnect => {
                return self.stop(Fault::Dropped, format!("{told}; reconnecting is switched off, so this source is given up"));
            }
            Next::Soon => self.redial.wait(),
            Next::NotWithin(least) => self.redial.wait().max(least),
            Next::Slow => self.redial.wait().max(self.settings.slow_retry),
        };
        let loud = if verdict.next == Next::Slow { Loudness::Error } else { Loudness::Warn };
        self.say(loud, format!("{told}; dialling again in {}", shown(wait)));
        self.phase = Phase::Dialing;
        self.push(Action::Dial { not_before: now + wait });
    }

    fn stop(&mut self, fault: Fault, text: String) {
        self.phase = Phase::Stopped;
        self.push(Action::Stop { fault, text });
    }

    /// How to open the connection with the key in a header (`x-api-key`) or in the query (`api_key`).
    pub(super) fn opening(&self, host: &str) -> Opening {
        let own = || Endpoint { tls: true, host: host.to_owned(), port: 443 };
        let usual = live_path(self.settings.provider);
        let (endpoint, path) = match &self.settings.base {
            None => (own(), usual.to_owned()),
            Some(Base { endpoint, prefix, live_path }) => {
                (endpoint.clone(), live_path.clone().unwrap_or_else(|| format!("{prefix}{usual}")))
            }
        };
        let scheme = if endpoint.tls { "wss" } else { "ws" };
        let shown = format!("{scheme}://{}{path}", endpoint.authority());
        let key = self.settings.credentials.key.clone();
        let (target, headers, shown) = match (self.settings.auth, key) {
            (Auth::Query, Some(key)) => {
                (format!("{path}?api_key={}", percent_encode(key.expose())), Vec::new(), format!("{shown}?api_key=***"))
            }
            (_, Some(key)) => (path, vec![("x-api-key", key)], shown),
            (_, None) => (path, Vec::new(), shown),
        };
        let target = Secret::new(target).expect("a path begins with a slash and so is not empty");
        Opening { transport: Transport::WebSocket, endpoint, target, headers, shown }
    }

    /// Foreign words made fit for a log and the ledger: no key, no control characters, not long.
    pub(super) fn clean(&self, words: &str) -> String {
        let words = self.settings.credentials.hidden_in(words);
        let mut words: String = words.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        if words.len() > QUOTE_BYTES_MAX {
            let end = (0..=QUOTE_BYTES_MAX).rev().find(|&at| words.is_char_boundary(at)).unwrap_or(0);
            words.truncate(end);
            words.push('…');
        }
        words
    }
}

/// The words of a refusal: the text fields both providers put into error bodies, else where a redirect leads.
///
/// A redirect's query is left out, because a server may have copied ours, with the key, into it.
fn words_of(response: &Response) -> String {
    let (mut name, mut words) = (None, None);
    let mut json = Json::new(std::str::from_utf8(&response.body).unwrap_or_default());
    let read = json.object(|key, json| {
        match key {
            "error_code" | "error" => name = json.text()?.or(name.take()),
            "message" | "msg" | "detail" => words = json.text()?.or(words.take()),
            _ => {}
        }
        Ok(())
    });
    if read.is_ok() {
        let parts: Vec<_> = [name, words].into_iter().flatten().collect();
        if !parts.is_empty() {
            return parts.join(": ");
        }
    }
    let location = response.header("location").and_then(|l| l.split(['?', '#']).next()).unwrap_or_default();
    if location.is_empty() { String::new() } else { format!("to {location}") }
}

/// What a close code means where the provider says nothing of its own (RFC 6455, section 7.4, and the IANA registry).
pub(super) fn judge_close(code: u16) -> Verdict {
    use Cause::{ConnectionLost, Protocol, Refused};
    let (cause, next, meaning) = match code {
        1000 => (ConnectionLost, Next::Soon, "the provider ended it in good order"),
        1001 => (ConnectionLost, Next::Soon, "the provider is going away, probably restarting"),
        1002 => (Protocol, Next::Soon, "the provider says we broke the WebSocket protocol, which is a bug on one side"),
        1003 => (Protocol, Next::Soon, "the provider does not take what we sent, which is a bug on one side"),
        1005 => (ConnectionLost, Next::Soon, "the provider ended it without saying why"),
        1006 => (ConnectionLost, Next::Soon, "the link broke without a farewell"),
        1007 => (Protocol, Next::Soon, "the provider could not read a message of ours, which is a bug on one side"),
        1008 => (Refused, Next::Slow, "the provider's policy does not allow this connection; check key and plan"),
        1009 => (Protocol, Next::Soon, "a message was over somebody's limit"),
        1010 => (Protocol, Next::Soon, "an extension was missing that we never offer"),
        1011 => (ConnectionLost, Next::NotWithin(FIRST_STEP), "the provider had an internal error"),
        1012 => (ConnectionLost, Next::Soon, "the provider is restarting"),
        1013 => (ConnectionLost, Next::NotWithin(TRY_AGAIN_LATER_WAIT), "the provider is overloaded and asks for patience"),
        1014 => (ConnectionLost, Next::NotWithin(FIRST_STEP), "a gateway of the provider got no sense from behind it"),
        3000..=4999 => (Refused, Next::Slow, "the provider gave a reason of its own that birdtape does not know"),
        _ => (Protocol, Next::Soon, "this code may not stand in a close frame, which is a bug of the provider"),
    };
    Verdict::new(cause, next, meaning)
}

/// What a broken link means.
fn judge_fault(fault: NetFault) -> Verdict {
    use Cause::{ConnectionLost, Protocol, Unreachable};
    let (cause, meaning) = match fault {
        NetFault::Dns => (Unreachable, "the host's name has no address right now"),
        NetFault::Connect => (Unreachable, "nobody listens there, or no way leads there"),
        NetFault::Tls => (Unreachable, "the certificate or the encryption was not acceptable"),
        NetFault::Timeout => (Unreachable, "no answer came in time"),
        NetFault::Handshake => (Protocol, "the answer was not the WebSocket upgrade that was asked for"),
        NetFault::Malformed => (Protocol, "a frame broke the WebSocket protocol; its bytes are kept"),
        NetFault::InvalidUtf8 => (Protocol, "a text was not UTF-8; its bytes are kept"),
        NetFault::Oversized => (Protocol, "a message was over the limit; its beginning is kept"),
        NetFault::Reset => (ConnectionLost, "the link broke without a farewell"),
    };
    Verdict::new(cause, Next::Soon, meaning)
}

/// What a status means where the provider says nothing of its own.
pub(super) fn judge_status(status: u16) -> Verdict {
    let (cause, next, meaning) = match status {
        402 => (Cause::Credits, Next::Slow, "the account has no credits; the stream returns after a top-up"),
        404 => (Cause::Refused, Next::Slow, "there is no stream at this address; check the base address"),
        408 | 425 => (Cause::Refused, Next::Soon, "the provider wants the request again"),
        429 => (Cause::RateLimited, Next::NotWithin(RATE_LIMITED_WAIT), "too many attempts"),
        100..=199 => (Cause::Protocol, Next::Soon, "the answer was not the WebSocket upgrade that was asked for"),
        200..=299 => (Cause::Refused, Next::Soon, "something answered that does not speak WebSocket, perhaps a proxy"),
        300..=399 => (Cause::Refused, Next::Slow, "redirects are never followed with a key in hand; correct the base address"),
        400..=499 => (Cause::Refused, Next::Slow, "the provider does not accept the request as it is"),
        _ => (Cause::Refused, Next::Soon, "the provider has trouble of its own"),
    };
    Verdict::new(cause, next, meaning)
}

/// A wait for the person, in whole seconds, rounded up.
fn shown(wait: Duration) -> String {
    let secs = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    humantime::format_duration(Duration::from_secs(secs)).to_string()
}
