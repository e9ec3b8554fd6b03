//! The recorder's machine for TweetStream.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::{KEY_PARAMETER, REDIAL_BASE, SUBPROTOCOL, TOKEN_SUBPROTOCOL};
use crate::model::{Cause, Endpoint, Message, NetFault, Opening, Provider, Response, Secret, Transport, UnixMicros};
use crate::provider::redial::Redial;
use crate::provider::{Action, Auth, End, Fault, Input, Loudness, Settings, live_path, percent_encode};

/// The provider's host. Documented: tweetstream.io docs, "WebSocket quickstart".
const HOST: &str = "ws.tweetstream.io";

/// Wait after close code 1012. Documented: vendor SDKs reconnect after 100 ms on a server restart.
const RESTART_WAIT: Duration = Duration::from_millis(100);

/// Shortest and longest wait for a connection slot to free itself.
///
/// Observed: a public consumer waits 45 s at its start and 60 to 180 s after a 429, because a closed
/// connection's slot is not free at once.
const SLOT_WAIT: (Duration, Duration) = (Duration::from_secs(45), Duration::from_secs(180));

/// Least wait after 1011 and 1014: the server has a fault of its own. Ours.
const FAULT_WAIT: Duration = Duration::from_secs(5);

/// Least wait after 1013, "try again later". Ours.
const LATER_WAIT: Duration = Duration::from_secs(15);

/// Connections in a row that ended with a broken protocol before we ask only seldom. Ours.
const PROTOCOL_PATIENCE: u32 = 5;

/// The client machine of one TweetStream connection.
#[derive(Debug)]
pub struct Client {
    settings: Settings,
    link: Link,
    actions: VecDeque<Action>,
    redial: Redial,
    slot: Redial,
    slow: Redial,
    /// Causes told since the last good connection, so that a refusal repeated for hours is one entry.
    told: Option<Cause>,
    /// Whether the short wait after 1012 was used since the last sign of life.
    restarted: bool,
    broken_in_a_row: u32,
}

#[derive(Debug)]
enum Link {
    Idle,
    /// A dial was asked for and is not answered yet.
    Dialing,
    Open {
        ping_at: Option<Instant>,
        pong_by: Option<Instant>,
    },
    /// We asked to close and have told why.
    Closing,
    Stopped,
}

/// What to do after a connection ended or was refused.
enum Next {
    Backoff,
    AtLeast(Duration),
    Restart,
    Slot(Option<Duration>),
    Slow,
    Stop(Fault),
}

/// How an end is understood.
struct Verdict {
    cause: Cause,
    next: Next,
    meaning: &'static str,
}

impl Client {
    /// A machine at rest; feed it [`Input::Start`].
    pub fn new(settings: Settings) -> Self {
        let seed = settings.seed;
        let redial = Redial::new(settings.reconnect_floor, REDIAL_BASE, settings.reconnect_cap, seed);
        let slot = Redial::new(SLOT_WAIT.0, SLOT_WAIT.0, SLOT_WAIT.1, seed.wrapping_add(1));
        let slow = Redial::new(settings.slow_retry, settings.slow_retry, settings.slow_retry, seed.wrapping_add(2));
        Self {
            settings,
            link: Link::Idle,
            actions: VecDeque::new(),
            redial,
            slot,
            slow,
            told: None,
            restarted: false,
            broken_in_a_row: 0,
        }
    }

    /// Tells the machine what happened.
    pub fn on(&mut self, now: Instant, input: Input<'_>) {
        if matches!(self.link, Link::Stopped) {
            return;
        }
        match input {
            Input::Start => self.start(now),
            Input::Opened { subprotocol } => self.opened(now, subprotocol),
            Input::Refused { response } => self.refused(now, response),
            Input::Unreachable { fault, detail } => self.unreachable(now, fault, detail),
            Input::Frame { decoded, received_at } => {
                self.alive();
                if decoded.message == Message::AuthPing {
                    self.auth_ping(received_at);
                }
            }
            Input::Alive => self.alive(),
            Input::Closed(end) => self.closed(now, end),
            Input::Deadline => self.tick(now),
            // This protocol has neither topics nor requests beside the socket.
            Input::Answered { .. } | Input::Topics { .. } => {}
        }
    }

    /// The next thing to do, if any; ask until there is none.
    pub fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When the machine wants [`Input::Deadline`] if nothing else happens.
    pub fn deadline(&self) -> Option<Instant> {
        match self.link {
            Link::Open { ping_at, pong_by } => ping_at.into_iter().chain(pong_by).min(),
            _ => None,
        }
    }

    /// How to open the connection.
    pub fn opening(&self) -> Opening {
        let key = self.settings.credentials.key.as_ref().map_or("", Secret::expose);
        let base = self.settings.base.as_ref();
        let path = match base {
            Some(base) => base.live_path.clone().unwrap_or_else(|| base.prefix.clone() + live_path(Provider::Tweetstream)),
            None => live_path(Provider::Tweetstream).to_owned(),
        };
        let endpoint = base.map_or_else(|| Endpoint { tls: true, host: HOST.to_owned(), port: 443 }, |b| b.endpoint.clone());
        let scheme = if endpoint.tls { "wss" } else { "ws" };
        let mut shown = format!("{scheme}://{}{path}", endpoint.authority());
        let mut target = path;
        // Whether the version must be offered beside a header or query key is not documented; offering it is harmless.
        let mut headers = vec![("sec-websocket-protocol", SUBPROTOCOL.to_owned())];
        match self.settings.auth {
            Auth::Query => {
                target = format!("{target}?{KEY_PARAMETER}={}", percent_encode(key));
                shown += &format!("?{KEY_PARAMETER}=***");
            }
            Auth::Bearer => headers.push(("authorization", format!("Bearer {key}"))),
            Auth::Subprotocol | Auth::Header | Auth::Cookies => {
                headers[0].1 = format!("{SUBPROTOCOL}, {TOKEN_SUBPROTOCOL}{key}");
            }
        }
        let secret = |text: String| Secret::new(text).expect("a path or a header of ours is never empty");
        Opening {
            transport: Transport::WebSocket,
            endpoint,
            target: secret(target),
            headers: headers.into_iter().map(|(name, value)| (name, secret(value))).collect(),
            shown,
        }
    }

    fn start(&mut self, now: Instant) {
        if !matches!(self.link, Link::Idle) {
            return;
        }
        let Some(key) = &self.settings.credentials.key else {
            return self.stop(Fault::Credentials, "tweetstream.io needs an API key and none is configured".to_owned());
        };
        let as_token = !matches!(self.settings.auth, Auth::Query | Auth::Bearer);
        let fits = |b: u8| if as_token { is_token_byte(b) } else { b.is_ascii_graphic() };
        if !key.expose().bytes().all(fits) {
            let hint = if as_token { "; set auth to \"bearer\" or check the key" } else { "; check the key" };
            let text = format!("the tweetstream.io key holds characters that cannot travel in a handshake{hint}");
            return self.stop(Fault::Settings, text);
        }
        self.link = Link::Dialing;
        self.actions.push_back(Action::Dial { not_before: now });
    }

    fn opened(&mut self, now: Instant, subprotocol: Option<&str>) {
        if !matches!(self.link, Link::Dialing) {
            return;
        }
        let ping_at = (!self.settings.ping_every.is_zero()).then(|| now + self.settings.ping_every);
        self.link = Link::Open { ping_at, pong_by: None };
        match subprotocol {
            Some(SUBPROTOCOL) | None => {}
            // The page leaves open which one is selected, so we stay; the text is not repeated, it holds the key.
            // Whoever opened the connection has hidden it already.
            Some(token) if token == "***" || token.starts_with(TOKEN_SUBPROTOCOL) => self.say(
                Loudness::Warn,
                "the server sent the API key back as the chosen subprotocol: proxies and logs on the way may hold it now; \
                 recording goes on, think of changing the key"
                    .to_owned(),
            ),
            Some(_) => {
                self.say(Loudness::Warn, format!("the server chose a subprotocol other than {SUBPROTOCOL}; recording goes on"))
            }
        }
    }

    /// A frame or a pong: the connection is good, so waits start small again.
    ///
    /// The SDKs reset at the open; a server that opens and drops at once would then be dialled every second.
    fn alive(&mut self) {
        if let Link::Open { pong_by, .. } = &mut self.link {
            *pong_by = None;
            self.redial.reset();
            self.slot.reset();
            self.told = None;
            self.restarted = false;
            self.broken_in_a_row = 0;
        }
    }

    fn auth_ping(&mut self, received_at: UnixMicros) {
        // Which side owes this to the other is not documented, so silence is the default.
        if self.settings.answer_auth_ping && matches!(self.link, Link::Open { .. }) {
            let ts = received_at.millis();
            let answer = format!(r#"{{"v":1,"t":"control","op":"auth_pong","ts":{ts},"d":{{}}}}"#);
            self.actions.push_back(Action::Send(answer));
        }
    }

    fn tick(&mut self, now: Instant) {
        let Link::Open { ping_at, pong_by } = &mut self.link else { return };
        if pong_by.is_some_and(|by| by <= now) {
            let detail = format!("no pong within {}", in_words(self.settings.pong_within));
            self.say(
                Loudness::Warn,
                format!("tweetstream.io has gone silent ({detail}): closing the connection and dialling again"),
            );
            self.lost(Cause::Silent, detail.clone());
            // 1011 is what the SDK's WebSocket library sends on a missed pong.
            self.actions.push_back(Action::Close { code: 1011, reason: detail });
            self.link = Link::Closing;
            return;
        }
        if ping_at.is_some_and(|at| at <= now) {
            *ping_at = Some(now + self.settings.ping_every);
            *pong_by = pong_by.or(Some(now + self.settings.pong_within));
            self.actions.push_back(Action::Ping);
        }
    }

    fn closed(&mut self, now: Instant, end: End<'_>) {
        let already_told = match self.link {
            Link::Open { .. } => false,
            Link::Closing => true,
            _ => return,
        };
        let (what, verdict) = match (already_told && end.by_us, end.code, end.fault) {
            (true, ..) => ("the connection is closed".to_owned(), verdict(Cause::Silent, Next::Backoff, "")),
            (_, Some(code), _) => {
                // A server may name the key it refuses; the person and the ledger must not read it.
                let reason = self.settings.credentials.hidden_in(end.reason);
                (with_reason(format!("close code {code}"), &reason), self.verdict_of_close(code))
            }
            (_, None, Some(fault)) => (format!("the connection broke ({})", fault.name()), self.verdict_of_fault(fault)),
            (_, None, None) => (
                "the connection ended without a close code".to_owned(),
                verdict(Cause::ConnectionLost, Next::Backoff, "the link was cut"),
            ),
        };
        if !already_told {
            self.lost(verdict.cause, what.clone());
        }
        self.go_on(now, what, verdict);
    }

    fn refused(&mut self, now: Instant, response: &Response) {
        if !matches!(self.link, Link::Dialing) {
            return;
        }
        let verdict = verdict_of_status(response);
        self.lost_once(verdict.cause, format!("HTTP {} instead of an upgrade", response.status));
        self.go_on(now, format!("HTTP {}", response.status), verdict);
    }

    fn unreachable(&mut self, now: Instant, fault: NetFault, detail: &str) {
        if !matches!(self.link, Link::Dialing) {
            return;
        }
        let (cause, meaning) = match fault {
            NetFault::Dns => (Cause::Unreachable, "the host name has no address here"),
            NetFault::Connect => (Cause::Unreachable, "nobody answers at that address"),
            NetFault::Tls => (Cause::Unreachable, "the certificate or the TLS handshake failed"),
            NetFault::Timeout => (Cause::Unreachable, "no answer in time"),
            NetFault::Reset => (Cause::Unreachable, "the connection was cut before an answer came"),
            _ => (Cause::Protocol, "the answer was not a WebSocket upgrade"),
        };
        self.lost_once(cause, with_reason(format!("unreachable ({})", fault.name()), detail));
        let what = with_reason(format!("no connection ({})", fault.name()), detail);
        self.go_on(now, what, verdict(cause, Next::Backoff, meaning));
    }

    fn verdict_of_close(&mut self, code: u16) -> Verdict {
        match code {
            // The SDKs read 1000 as their own farewell; from the server it only means that the stream is over.
            1000 => verdict(Cause::ConnectionLost, Next::Backoff, "the server ended the connection normally"),
            1001 => verdict(Cause::ConnectionLost, Next::Backoff, "the server is going away"),
            1002 | 1003 | 1005 | 1006 | 1007 | 1009 | 1010 | 1015 => self.broken("one side broke the WebSocket protocol"),
            1008 => verdict(Cause::Refused, Next::Slow, "the server's policy does not allow this connection"),
            1011 | 1014 => verdict(Cause::ConnectionLost, Next::AtLeast(FAULT_WAIT), "the server has an internal fault"),
            1012 => verdict(Cause::ConnectionLost, Next::Restart, "the server restarts"),
            1013 => {
                verdict(Cause::ConnectionLost, Next::AtLeast(LATER_WAIT), "the server is overloaded and asks to come back later")
            }
            4001 => verdict(Cause::Auth, Next::Stop(Fault::Credentials), "the API key is not valid"),
            4003 => verdict(Cause::Credits, Next::Slow, "the plan or subscription does not allow the stream"),
            4029 => verdict(
                Cause::RateLimited,
                Next::Slot(None),
                "the plan's connections are all in use; a slot frees itself after a while",
            ),
            4401 => verdict(Cause::Auth, Next::Slow, "the server does not accept the credentials"),
            4403 => verdict(Cause::Credits, Next::Slow, "the server does not permit the stream"),
            3000.. => verdict(Cause::Refused, Next::Slow, "a code of the provider's own that no page explains"),
            _ => self.broken("this code may not stand in a close frame"),
        }
    }

    fn verdict_of_fault(&mut self, fault: NetFault) -> Verdict {
        match fault {
            NetFault::Malformed | NetFault::InvalidUtf8 | NetFault::Handshake => {
                self.broken("a frame broke the WebSocket protocol")
            }
            NetFault::Oversized => self.broken("a message was larger than the limit"),
            NetFault::Timeout => verdict(Cause::Silent, Next::Backoff, "the link went silent"),
            _ => verdict(Cause::ConnectionLost, Next::Backoff, "the link was cut"),
        }
    }

    fn broken(&mut self, meaning: &'static str) -> Verdict {
        self.broken_in_a_row = self.broken_in_a_row.saturating_add(1);
        let next = if self.broken_in_a_row < PROTOCOL_PATIENCE { Next::Backoff } else { Next::Slow };
        verdict(Cause::Protocol, next, meaning)
    }

    /// Says what happened, what it means and what comes next, and does it.
    fn go_on(&mut self, now: Instant, what: String, verdict: Verdict) {
        let what = match verdict.meaning {
            "" => what,
            meaning => format!("{what}: {meaning}"),
        };
        let (wait, loud) = match verdict.next {
            Next::Stop(fault) => {
                return self.stop(fault, format!("{what}; giving this source up, correct the key and start again"));
            }
            _ if !self.settings.auto_reconnect => {
                return self.stop(Fault::Dropped, format!("{what}; reconnecting is switched off, so this source ends here"));
            }
            Next::Restart if !self.restarted => {
                self.restarted = true;
                (RESTART_WAIT.max(self.settings.reconnect_floor), Loudness::Warn)
            }
            Next::Backoff | Next::Restart => (self.redial.wait(), Loudness::Warn),
            Next::AtLeast(least) => (self.redial.wait().max(least), Loudness::Warn),
            // Without or with too small a `Retry-After`, our own knowledge of slots decides.
            Next::Slot(asked) => (asked.unwrap_or_else(|| self.slot.wait()).max(self.redial.wait()), Loudness::Warn),
            Next::Slow => (self.slow.wait(), Loudness::Error),
        };
        self.say(loud, format!("{what}; next try in {}", in_words(wait)));
        self.link = Link::Dialing;
        self.actions.push_back(Action::Dial { not_before: now + wait });
    }

    fn lost(&mut self, cause: Cause, detail: String) {
        self.told = Some(cause);
        self.actions.push_back(Action::Lost { scope: "*".to_owned(), cause, detail });
    }

    /// While nothing is open the gap is known already; only a new cause is news.
    fn lost_once(&mut self, cause: Cause, detail: String) {
        if self.told != Some(cause) {
            self.lost(cause, detail);
        }
    }

    fn say(&mut self, loud: Loudness, text: String) {
        self.actions.push_back(Action::Say { loud, text });
    }

    fn stop(&mut self, fault: Fault, text: String) {
        self.link = Link::Stopped;
        self.actions.push_back(Action::Stop { fault, text });
    }
}

/// Reads the answer to a handshake.
///
/// Documented: SDKs 1.1 stop on 400, 401, 403 and 429; what each means is inferred, 429 is observed as the
/// plan's connection limit.
fn verdict_of_status(response: &Response) -> Verdict {
    match response.status {
        200..300 => verdict(Cause::Refused, Next::Backoff, "the server answered but did not switch to WebSocket"),
        300..400 => verdict(Cause::Refused, Next::Slow, "a redirect, which is never followed with a key; check the address"),
        400 => verdict(Cause::Refused, Next::Slow, "the server calls the handshake malformed"),
        401 => verdict(Cause::Auth, Next::Stop(Fault::Credentials), "the API key is missing or not valid"),
        402 | 403 => verdict(Cause::Credits, Next::Slow, "the plan or subscription does not allow the stream"),
        429 => verdict(
            Cause::RateLimited,
            Next::Slot(response.retry_after()),
            "the plan's connections are all in use; a slot frees itself after a while",
        ),
        503 if response.retry_after().is_some() => {
            let wait = response.retry_after().unwrap_or_default();
            verdict(Cause::Refused, Next::AtLeast(wait), "the service is unavailable and says when to come back")
        }
        408 | 425 => verdict(Cause::Refused, Next::Backoff, "the server wants the request again"),
        404..500 => verdict(Cause::Refused, Next::Slow, "the server does not accept the request as it is"),
        500..600 => verdict(Cause::Refused, Next::Backoff, "the server has a fault"),
        _ => verdict(Cause::Refused, Next::Backoff, "the server would not open the stream"),
    }
}

fn verdict(cause: Cause, next: Next, meaning: &'static str) -> Verdict {
    Verdict { cause, next, meaning }
}

fn with_reason(what: String, reason: &str) -> String {
    // A reason is the peer's text and may be of any length.
    let reason: String = reason.chars().filter(|c| !c.is_control()).take(200).collect();
    if reason.is_empty() { what } else { format!("{what} \"{reason}\"") }
}

/// A wait for people: tenths of a second below ten seconds, whole seconds above.
fn in_words(wait: Duration) -> String {
    let step = if wait < Duration::from_secs(10) { 100 } else { 1_000 };
    let millis = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).div_ceil(step).saturating_mul(step);
    humantime::format_duration(Duration::from_millis(millis)).to_string()
}

/// Bytes of an HTTP token, which a subprotocol must be (RFC 9110, section 5.6.2).
fn is_token_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::provider::{Base, tweetstream};
    use bytes::Bytes;
    use expect_test::{Expect, expect};

    const KEY: &str = "0123456789abcdef-made-up";

    fn settings() -> Settings {
        let mut settings = tweetstream::default_settings();
        settings.credentials.key = Secret::new(KEY);
        settings
    }

    /// Runs `3.5s close 1006 | …`; `until` fires deadlines as they come, up to its time.
    fn run(settings: Settings, script: &str) -> String {
        let start = Instant::now();
        let mut client = Client::new(settings);
        let mut out = String::new();
        for step in script.split('|').map(str::trim) {
            let (at, step) = step.split_once("s ").unwrap();
            let now = start + Duration::from_secs_f64(at.parse().unwrap());
            let (word, rest) = step.split_once(' ').unwrap_or((step, ""));
            if word == "until" {
                while let Some(due) = client.deadline().filter(|due| *due <= now) {
                    client.on(due, Input::Deadline);
                    drain(&mut client, start, due, &mut out);
                }
                continue;
            }
            feed(&mut client, now, word, rest);
            drain(&mut client, start, now, &mut out);
        }
        assert!(!out.contains(KEY), "{out}");
        out
    }

    fn feed(client: &mut Client, now: Instant, word: &str, rest: &str) {
        let end = End::default();
        match word {
            "start" => client.on(now, Input::Start),
            "open" => client.on(now, Input::Opened { subprotocol: (!rest.is_empty()).then_some(rest) }),
            "frame" => {
                let decoded = tweetstream::decode(rest);
                client.on(now, Input::Frame { decoded: &decoded, received_at: UnixMicros(1_790_000_000_000_000) });
            }
            "alive" => client.on(now, Input::Alive),
            "close" => {
                let (code, reason) = rest.split_once(' ').unwrap_or((rest, ""));
                client.on(now, Input::Closed(End { code: code.parse().ok(), reason, ..end }));
            }
            "broke" => client.on(now, Input::Closed(End { fault: Some(fault(rest)), ..end })),
            "closed-by-us" => client.on(now, Input::Closed(End { code: Some(1011), by_us: true, ..end })),
            "refused" => {
                let (status, after) = rest.split_once(' ').unwrap_or((rest, ""));
                let headers = if after.is_empty() { vec![] } else { vec![("retry-after".to_owned(), after.to_owned())] };
                let response = Response { status: status.parse().unwrap(), headers, body: Bytes::new() };
                client.on(now, Input::Refused { response: &response });
            }
            "unreachable" => client.on(now, Input::Unreachable { fault: fault(rest), detail: "made up" }),
            other => panic!("no step {other}"),
        }
    }

    fn fault(name: &str) -> NetFault {
        use NetFault::*;
        [Dns, Connect, Tls, Timeout, Handshake, Malformed, InvalidUtf8, Oversized, Reset]
            .into_iter()
            .find(|f| f.name() == name)
            .unwrap()
    }

    fn drain(client: &mut Client, start: Instant, now: Instant, out: &mut String) {
        while let Some(action) = client.next_action() {
            let line = match action {
                Action::Dial { not_before } => format!("dial at {:.3}s", (not_before - start).as_secs_f64()),
                Action::Lost { scope, cause, detail } => format!("lost {scope} {}: {detail}", cause.name()),
                Action::Say { loud, text } => format!("say {loud:?}: {text}"),
                Action::Stop { fault, text } => format!("stop {fault:?}: {text}"),
                other => format!("{other:?}"),
            };
            out.push_str(&format!("{:.1}s {line}\n", (now - start).as_secs_f64()));
        }
    }

    fn check(script: &str, expected: Expect) {
        expected.assert_eq(&run(settings(), script));
    }

    #[test]
    fn dials_at_once_and_pings() {
        check(
            "0s start | 0.2s open tweetstream.v1 | 20.5s until | 20.7s alive | 60s until",
            expect![[r#"
            0.0s dial at 0.000s
            20.2s Ping
            40.2s Ping
            55.2s say Warn: tweetstream.io has gone silent (no pong within 15s): closing the connection and dialling again
            55.2s lost * silent: no pong within 15s
            55.2s Close { code: 1011, reason: "no pong within 15s" }
        "#]],
        );
    }

    #[test]
    fn a_frame_is_as_good_as_a_pong() {
        check(
            r#"0s start | 0s open | 20s until | 30s frame {"op":"auth_ping"} | 39s until"#,
            expect![[r#"
            0.0s dial at 0.000s
            20.0s Ping
        "#]],
        );
    }

    #[test]
    fn silence_closes_and_is_told_once() {
        check(
            "0s start | 0s open | 35s until | 36s closed-by-us",
            expect![[r#"
            0.0s dial at 0.000s
            20.0s Ping
            35.0s say Warn: tweetstream.io has gone silent (no pong within 15s): closing the connection and dialling again
            35.0s lost * silent: no pong within 15s
            35.0s Close { code: 1011, reason: "no pong within 15s" }
            36.0s say Warn: the connection is closed; next try in 700ms
            36.0s dial at 36.668s
        "#]],
        );
        check(
            "0s start | 0s open | 35s until | 36s close 4001 late",
            expect![[r#"
            0.0s dial at 0.000s
            20.0s Ping
            35.0s say Warn: tweetstream.io has gone silent (no pong within 15s): closing the connection and dialling again
            35.0s lost * silent: no pong within 15s
            35.0s Close { code: 1011, reason: "no pong within 15s" }
            36.0s stop Credentials: close code 4001 "late": the API key is not valid; giving this source up, correct the key and start again
        "#]],
        );
    }

    #[test]
    fn never_pings_when_told_so() {
        let settings = Settings { ping_every: Duration::ZERO, ..settings() };
        expect![[r#"
            0.0s dial at 0.000s
        "#]]
        .assert_eq(&run(settings, "0s start | 0s open | 9999s until"));
    }

    #[test]
    fn a_key_in_a_reason_is_not_repeated() {
        check(
            &format!("0s start | 0s open | 1s close 4001 no such key {KEY}!"),
            expect![[r#"
            0.0s dial at 0.000s
            1.0s lost * auth: close code 4001 "no such key ***!"
            1.0s stop Credentials: close code 4001 "no such key ***!": the API key is not valid; giving this source up, correct the key and start again
        "#]],
        );
    }

    #[test]
    fn every_close_code() {
        let mut all = String::new();
        let codes = [
            1000, 1001, 1002, 1003, 1005, 1006, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 1015, 3000, 4000, 4001, 4003,
            4029, 4401, 4403, 4999, 0,
        ];
        for code in codes {
            all += &run(settings(), &format!("0s start | 0s open | 1s close {code} why")).replace("0.0s dial at 0.000s\n", "");
        }
        expect![[r#"
            1.0s lost * connection_lost: close code 1000 "why"
            1.0s say Warn: close code 1000 "why": the server ended the connection normally; next try in 700ms
            1.0s dial at 1.668s
            1.0s lost * connection_lost: close code 1001 "why"
            1.0s say Warn: close code 1001 "why": the server is going away; next try in 700ms
            1.0s dial at 1.668s
            1.0s lost * protocol: close code 1002 "why"
            1.0s say Warn: close code 1002 "why": one side broke the WebSocket protocol; next try in 700ms
            1.0s dial at 1.668s
            1.0s lost * protocol: close code 1003 "why"
            1.0s say Warn: close code 1003 "why": one side broke the WebSocket protocol; next try in 700ms
            1.0s dial at 1.668s
            1.0s lost * protocol: close code 1005 "why"
            1.0s say Warn: close code 1005 "why": one side broke the WebSocket protocol; next try in 700ms
            1.0s dial at 1.668s
            1.0s lost * protocol: close code 1006 "why"
            1.0s say Warn: close code 1006 "why": one side broke the WebSocket protocol; next try in 700ms
            1.0s dial at 1.668s
            1.0s lost * protocol: close code 1007 "why"
            1.0s say Warn: close code 1007 "why": one side broke the WebSocket protocol; next try in 700ms
            1.0s dial at 1.668s
            1.0s lost * refused: close code 1008 "why"
            1.0s say Error: close code 1008 "why": the server's policy does not allow this connection; next try in 15m 10s
            1.0s dial at 910.252s
            1.0s lost * protocol: close code 1009 "why"
            1.0s say Warn: close code 1009 "why": one side broke the WebSocket protocol; next try in 700ms
            1.0s dial at 1.668s
            1.0s lost * protocol: close code 1010 "why"
            1.0s say Warn: close code 1010 "why": one side broke the WebSocket protocol; next try in 700ms
            1.0s dial at 1.668s
            1.0s lost * connection_lost: close code 1011 "why"
            1.0s say Warn: close code 1011 "why": the server has an internal fault; next try in 5s
            1.0s dial at 6.000s
            1.0s lost * connection_lost: close code 1012 "why"
            1.0s say Warn: close code 1012 "why": the server restarts; next try in 100ms
            1.0s dial at 1.100s
            1.0s lost * connection_lost: close code 1013 "why"
            1.0s say Warn: close code 1013 "why": the server is overloaded and asks to come back later; next try in 15s
            1.0s dial at 16.000s
            1.0s lost * connection_lost: close code 1014 "why"
            1.0s say Warn: close code 1014 "why": the server has an internal fault; next try in 5s
            1.0s dial at 6.000s
            1.0s lost * protocol: close code 1015 "why"
            1.0s say Warn: close code 1015 "why": one side broke the WebSocket protocol; next try in 700ms
            1.0s dial at 1.668s
            1.0s lost * refused: close code 3000 "why"
            1.0s say Error: close code 3000 "why": a code of the provider's own that no page explains; next try in 15m 10s
            1.0s dial at 910.252s
            1.0s lost * refused: close code 4000 "why"
            1.0s say Error: close code 4000 "why": a code of the provider's own that no page explains; next try in 15m 10s
            1.0s dial at 910.252s
            1.0s lost * auth: close code 4001 "why"
            1.0s stop Credentials: close code 4001 "why": the API key is not valid; giving this source up, correct the key and start again
            1.0s lost * credits: close code 4003 "why"
            1.0s say Error: close code 4003 "why": the plan or subscription does not allow the stream; next try in 15m 10s
            1.0s dial at 910.252s
            1.0s lost * rate_limited: close code 4029 "why"
            1.0s say Warn: close code 4029 "why": the plan's connections are all in use; a slot frees itself after a while; next try in 46s
            1.0s dial at 46.309s
            1.0s lost * auth: close code 4401 "why"
            1.0s say Error: close code 4401 "why": the server does not accept the credentials; next try in 15m 10s
            1.0s dial at 910.252s
            1.0s lost * credits: close code 4403 "why"
            1.0s say Error: close code 4403 "why": the server does not permit the stream; next try in 15m 10s
            1.0s dial at 910.252s
            1.0s lost * refused: close code 4999 "why"
            1.0s say Error: close code 4999 "why": a code of the provider's own that no page explains; next try in 15m 10s
            1.0s dial at 910.252s
            1.0s lost * protocol: close code 0 "why"
            1.0s say Warn: close code 0 "why": this code may not stand in a close frame; next try in 700ms
            1.0s dial at 1.668s
        "#]].assert_eq(&all);
    }

    #[test]
    fn every_refusal() {
        let mut all = String::new();
        let answers = [
            "200",
            "204",
            "301",
            "302",
            "307",
            "308",
            "400",
            "401",
            "402",
            "403",
            "404",
            "407",
            "408",
            "426",
            "429",
            "429 7",
            "429 0",
            "429 -1",
            "429 1000000000",
            "429 Wed, 21 Oct 2026 07:28:00 GMT",
            "500",
            "502",
            "503",
            "503 120",
            "599",
            "999",
        ];
        for answer in answers {
            let out = run(settings(), &format!("0s start | 0s refused {answer}"));
            all += &format!("{answer}\n{}", out.replace("0.0s dial at 0.000s\n", ""));
        }
        expect![[r#"
            200
            0.0s lost * refused: HTTP 200 instead of an upgrade
            0.0s say Warn: HTTP 200: the server answered but did not switch to WebSocket; next try in 700ms
            0.0s dial at 0.668s
            204
            0.0s lost * refused: HTTP 204 instead of an upgrade
            0.0s say Warn: HTTP 204: the server answered but did not switch to WebSocket; next try in 700ms
            0.0s dial at 0.668s
            301
            0.0s lost * refused: HTTP 301 instead of an upgrade
            0.0s say Error: HTTP 301: a redirect, which is never followed with a key; check the address; next try in 15m 10s
            0.0s dial at 909.252s
            302
            0.0s lost * refused: HTTP 302 instead of an upgrade
            0.0s say Error: HTTP 302: a redirect, which is never followed with a key; check the address; next try in 15m 10s
            0.0s dial at 909.252s
            307
            0.0s lost * refused: HTTP 307 instead of an upgrade
            0.0s say Error: HTTP 307: a redirect, which is never followed with a key; check the address; next try in 15m 10s
            0.0s dial at 909.252s
            308
            0.0s lost * refused: HTTP 308 instead of an upgrade
            0.0s say Error: HTTP 308: a redirect, which is never followed with a key; check the address; next try in 15m 10s
            0.0s dial at 909.252s
            400
            0.0s lost * refused: HTTP 400 instead of an upgrade
            0.0s say Error: HTTP 400: the server calls the handshake malformed; next try in 15m 10s
            0.0s dial at 909.252s
            401
            0.0s lost * auth: HTTP 401 instead of an upgrade
            0.0s stop Credentials: HTTP 401: the API key is missing or not valid; giving this source up, correct the key and start again
            402
            0.0s lost * credits: HTTP 402 instead of an upgrade
            0.0s say Error: HTTP 402: the plan or subscription does not allow the stream; next try in 15m 10s
            0.0s dial at 909.252s
            403
            0.0s lost * credits: HTTP 403 instead of an upgrade
            0.0s say Error: HTTP 403: the plan or subscription does not allow the stream; next try in 15m 10s
            0.0s dial at 909.252s
            404
            0.0s lost * refused: HTTP 404 instead of an upgrade
            0.0s say Error: HTTP 404: the server does not accept the request as it is; next try in 15m 10s
            0.0s dial at 909.252s
            407
            0.0s lost * refused: HTTP 407 instead of an upgrade
            0.0s say Error: HTTP 407: the server does not accept the request as it is; next try in 15m 10s
            0.0s dial at 909.252s
            408
            0.0s lost * refused: HTTP 408 instead of an upgrade
            0.0s say Warn: HTTP 408: the server wants the request again; next try in 700ms
            0.0s dial at 0.668s
            426
            0.0s lost * refused: HTTP 426 instead of an upgrade
            0.0s say Error: HTTP 426: the server does not accept the request as it is; next try in 15m 10s
            0.0s dial at 909.252s
            429
            0.0s lost * rate_limited: HTTP 429 instead of an upgrade
            0.0s say Warn: HTTP 429: the plan's connections are all in use; a slot frees itself after a while; next try in 46s
            0.0s dial at 45.309s
            429 7
            0.0s lost * rate_limited: HTTP 429 instead of an upgrade
            0.0s say Warn: HTTP 429: the plan's connections are all in use; a slot frees itself after a while; next try in 7s
            0.0s dial at 7.000s
            429 0
            0.0s lost * rate_limited: HTTP 429 instead of an upgrade
            0.0s say Warn: HTTP 429: the plan's connections are all in use; a slot frees itself after a while; next try in 700ms
            0.0s dial at 0.668s
            429 -1
            0.0s lost * rate_limited: HTTP 429 instead of an upgrade
            0.0s say Warn: HTTP 429: the plan's connections are all in use; a slot frees itself after a while; next try in 46s
            0.0s dial at 45.309s
            429 1000000000
            0.0s lost * rate_limited: HTTP 429 instead of an upgrade
            0.0s say Warn: HTTP 429: the plan's connections are all in use; a slot frees itself after a while; next try in 1day
            0.0s dial at 86400.000s
            429 Wed, 21 Oct 2026 07:28:00 GMT
            0.0s lost * rate_limited: HTTP 429 instead of an upgrade
            0.0s say Warn: HTTP 429: the plan's connections are all in use; a slot frees itself after a while; next try in 46s
            0.0s dial at 45.309s
            500
            0.0s lost * refused: HTTP 500 instead of an upgrade
            0.0s say Warn: HTTP 500: the server has a fault; next try in 700ms
            0.0s dial at 0.668s
            502
            0.0s lost * refused: HTTP 502 instead of an upgrade
            0.0s say Warn: HTTP 502: the server has a fault; next try in 700ms
            0.0s dial at 0.668s
            503
            0.0s lost * refused: HTTP 503 instead of an upgrade
            0.0s say Warn: HTTP 503: the server has a fault; next try in 700ms
            0.0s dial at 0.668s
            503 120
            0.0s lost * refused: HTTP 503 instead of an upgrade
            0.0s say Warn: HTTP 503: the service is unavailable and says when to come back; next try in 2m
            0.0s dial at 120.000s
            599
            0.0s lost * refused: HTTP 599 instead of an upgrade
            0.0s say Warn: HTTP 599: the server has a fault; next try in 700ms
            0.0s dial at 0.668s
            999
            0.0s lost * refused: HTTP 999 instead of an upgrade
            0.0s say Warn: HTTP 999: the server would not open the stream; next try in 700ms
            0.0s dial at 0.668s
        "#]].assert_eq(&all);
    }

    #[test]
    fn every_fault() {
        let mut all = String::new();
        for name in ["dns", "connect", "tls", "timeout", "handshake", "malformed", "invalid_utf8", "oversized", "reset"] {
            for script in [format!("0s start | 0s unreachable {name}"), format!("0s start | 0s open | 0s broke {name}")] {
                all += &run(settings(), &script).replace("0.0s dial at 0.000s\n", "");
            }
        }
        all += &run(settings(), "0s start | 0s open | 0s close none");
        expect![[r#"
            0.0s lost * unreachable: unreachable (dns) "made up"
            0.0s say Warn: no connection (dns) "made up": the host name has no address here; next try in 700ms
            0.0s dial at 0.668s
            0.0s lost * connection_lost: the connection broke (dns)
            0.0s say Warn: the connection broke (dns): the link was cut; next try in 700ms
            0.0s dial at 0.668s
            0.0s lost * unreachable: unreachable (connect) "made up"
            0.0s say Warn: no connection (connect) "made up": nobody answers at that address; next try in 700ms
            0.0s dial at 0.668s
            0.0s lost * connection_lost: the connection broke (connect)
            0.0s say Warn: the connection broke (connect): the link was cut; next try in 700ms
            0.0s dial at 0.668s
            0.0s lost * unreachable: unreachable (tls) "made up"
            0.0s say Warn: no connection (tls) "made up": the certificate or the TLS handshake failed; next try in 700ms
            0.0s dial at 0.668s
            0.0s lost * connection_lost: the connection broke (tls)
            0.0s say Warn: the connection broke (tls): the link was cut; next try in 700ms
            0.0s dial at 0.668s
            0.0s lost * unreachable: unreachable (timeout) "made up"
            0.0s say Warn: no connection (timeout) "made up": no answer in time; next try in 700ms
            0.0s dial at 0.668s
            0.0s lost * silent: the connection broke (timeout)
            0.0s say Warn: the connection broke (timeout): the link went silent; next try in 700ms
            0.0s dial at 0.668s
            0.0s lost * protocol: unreachable (handshake) "made up"
            0.0s say Warn: no connection (handshake) "made up": the answer was not a WebSocket upgrade; next try in 700ms
            0.0s dial at 0.668s
            0.0s lost * protocol: the connection broke (handshake)
            0.0s say Warn: the connection broke (handshake): a frame broke the WebSocket protocol; next try in 700ms
            0.0s dial at 0.668s
            0.0s lost * protocol: unreachable (malformed) "made up"
            0.0s say Warn: no connection (malformed) "made up": the answer was not a WebSocket upgrade; next try in 700ms
            0.0s dial at 0.668s
            0.0s lost * protocol: the connection broke (malformed)
            0.0s say Warn: the connection broke (malformed): a frame broke the WebSocket protocol; next try in 700ms
            0.0s dial at 0.668s
            0.0s lost * protocol: unreachable (invalid_utf8) "made up"
            0.0s say Warn: no connection (invalid_utf8) "made up": the answer was not a WebSocket upgrade; next try in 700ms
            0.0s dial at 0.668s
            0.0s lost * protocol: the connection broke (invalid_utf8)
            0.0s say Warn: the connection broke (invalid_utf8): a frame broke the WebSocket protocol; next try in 700ms
            0.0s dial at 0.668s
            0.0s lost * protocol: unreachable (oversized) "made up"
            0.0s say Warn: no connection (oversized) "made up": the answer was not a WebSocket upgrade; next try in 700ms
            0.0s dial at 0.668s
            0.0s lost * protocol: the connection broke (oversized)
            0.0s say Warn: the connection broke (oversized): a message was larger than the limit; next try in 700ms
            0.0s dial at 0.668s
            0.0s lost * unreachable: unreachable (reset) "made up"
            0.0s say Warn: no connection (reset) "made up": the connection was cut before an answer came; next try in 700ms
            0.0s dial at 0.668s
            0.0s lost * connection_lost: the connection broke (reset)
            0.0s say Warn: the connection broke (reset): the link was cut; next try in 700ms
            0.0s dial at 0.668s
            0.0s dial at 0.000s
            0.0s lost * connection_lost: the connection ended without a close code
            0.0s say Warn: the connection ended without a close code: the link was cut; next try in 700ms
            0.0s dial at 0.668s
        "#]]
        .assert_eq(&all);
    }

    #[test]
    fn a_refusal_for_hours_is_one_loss() {
        check(
            "0s start | 0s refused 500 | 1s refused 500 | 3s unreachable dns | 9s refused 403",
            expect![[r#"
            0.0s dial at 0.000s
            0.0s lost * refused: HTTP 500 instead of an upgrade
            0.0s say Warn: HTTP 500: the server has a fault; next try in 700ms
            0.0s dial at 0.668s
            1.0s say Warn: HTTP 500: the server has a fault; next try in 1s 400ms
            1.0s dial at 2.352s
            3.0s lost * unreachable: unreachable (dns) "made up"
            3.0s say Warn: no connection (dns) "made up": the host name has no address here; next try in 2s 400ms
            3.0s dial at 5.303s
            9.0s lost * credits: HTTP 403 instead of an upgrade
            9.0s say Error: HTTP 403: the plan or subscription does not allow the stream; next try in 15m 10s
            9.0s dial at 918.252s
        "#]],
        );
    }

    #[test]
    fn back_off_doubles_to_the_cap_and_starts_again_after_life() {
        let waits = |n: usize| "0s refused 500 | ".repeat(n);
        let out = run(settings(), &format!("0s start | {} 0s open | 0s alive | 0s close 1006", waits(9)));
        let dials: Vec<_> = out.lines().filter_map(|line| line.strip_prefix("0.0s dial at ")).collect();
        expect!["0.000s 0.668s 1.352s 2.303s 4.129s 8.119s 21.068s 25.729s 28.065s 21.086s 0.811s"].assert_eq(&dials.join(" "));
    }

    #[test]
    fn a_restart_is_quick_once() {
        check(
            "0s start | 0s open | 5s close 1012 | 5.1s open | 5.2s close 1012 | 6s open | 6s alive | 7s close 1012",
            expect![[r#"
            0.0s dial at 0.000s
            5.0s lost * connection_lost: close code 1012
            5.0s say Warn: close code 1012: the server restarts; next try in 100ms
            5.0s dial at 5.100s
            5.2s lost * connection_lost: close code 1012
            5.2s say Warn: close code 1012: the server restarts; next try in 700ms
            5.2s dial at 5.868s
            7.0s lost * connection_lost: close code 1012
            7.0s say Warn: close code 1012: the server restarts; next try in 100ms
            7.0s dial at 7.100s
        "#]],
        );
    }

    #[test]
    fn broken_frames_again_and_again_become_rare_dials() {
        let out = run(settings(), &format!("0s start {}", "| 0s open | 0s broke malformed ".repeat(6)));
        let last: Vec<_> = out.lines().filter(|line| line.contains("say Error")).collect();
        expect![[r#"
            0.0s say Error: the connection broke (malformed): a frame broke the WebSocket protocol; next try in 15m 10s
            0.0s say Error: the connection broke (malformed): a frame broke the WebSocket protocol; next try in 15m 14s"#]]
        .assert_eq(&last.join("\n"));
    }

    #[test]
    fn a_wrong_key_never_loops() {
        check(
            "0s start | 0s refused 401 | 1s open | 9999s until",
            expect![[r#"
            0.0s dial at 0.000s
            0.0s lost * auth: HTTP 401 instead of an upgrade
            0.0s stop Credentials: HTTP 401: the API key is missing or not valid; giving this source up, correct the key and start again
        "#]],
        );
        let settings = Settings { credentials: Default::default(), ..settings() };
        expect![[r#"
            0.0s stop Credentials: tweetstream.io needs an API key and none is configured
        "#]]
        .assert_eq(&run(settings, "0s start | 1s open | 2s close 1000"));
    }

    #[test]
    fn keys_that_cannot_travel_are_settings_faults() {
        for (auth, key) in [(Auth::Subprotocol, "a,b"), (Auth::Bearer, "a b"), (Auth::Query, "a\nb")] {
            let mut settings = Settings { auth, ..settings() };
            settings.credentials.key = Secret::new(key);
            assert!(run(settings, "0s start").starts_with("0.0s stop Settings"), "{key:?}");
        }
    }

    #[test]
    fn can_be_told_not_to_reconnect() {
        let settings = Settings { auto_reconnect: false, ..settings() };
        expect![[r#"
            0.0s dial at 0.000s
            5.0s lost * protocol: close code 1006
            5.0s stop Dropped: close code 1006: one side broke the WebSocket protocol; reconnecting is switched off, so this source ends here
        "#]].assert_eq(&run(settings, "0s start | 0s open | 5s close 1006 | 6s open"));
    }

    #[test]
    fn answers_auth_ping_only_when_asked_to() {
        let script = r#"0s start | 0s open | 1s frame {"v":1,"t":"control","op":"auth_ping","ts":1,"d":{}}"#;
        check(
            script,
            expect![[r#"
            0.0s dial at 0.000s
        "#]],
        );
        let settings = Settings { answer_auth_ping: true, ..settings() };
        expect![[r#"
            0.0s dial at 0.000s
            1.0s Send("{\"v\":1,\"t\":\"control\",\"op\":\"auth_pong\",\"ts\":1790000000000,\"d\":{}}")
        "#]]
        .assert_eq(&run(settings, script));
    }

    #[test]
    fn an_echoed_token_is_told_without_the_key() {
        for echo in ["***", &format!("{TOKEN_SUBPROTOCOL}{KEY}")] {
            check(
                &format!("0s start | 0s open {echo} | 1s alive"),
                expect![[r#"
                0.0s dial at 0.000s
                0.0s say Warn: the server sent the API key back as the chosen subprotocol: proxies and logs on the way may hold it now; recording goes on, think of changing the key
            "#]],
            );
        }
        check(
            "0s start | 0s open something.else",
            expect![[r#"
            0.0s dial at 0.000s
            0.0s say Warn: the server chose a subprotocol other than tweetstream.v1; recording goes on
        "#]],
        );
    }

    #[test]
    fn the_key_travels_as_told_and_is_never_shown() {
        let mut all = String::new();
        let bases = [None, Some("http://localhost:9/x"), Some("ws://localhost:9/live/here")];
        for auth in [Auth::Subprotocol, Auth::Bearer, Auth::Query] {
            for base in bases {
                let base = base.map(|b| Base::parse(b).unwrap());
                let opening = Client::new(Settings { auth, base, ..settings() }).opening();
                assert!(!opening.shown.contains(KEY) && !format!("{opening:?}").contains(KEY));
                let headers: Vec<_> = opening.headers.iter().map(|(n, v)| format!("{n}: {}", v.expose())).collect();
                all += &format!("{} -> {} {headers:?}\n", opening.shown, opening.target.expose());
            }
        }
        expect![[r#"
            wss://ws.tweetstream.io/ws -> /ws ["sec-websocket-protocol: tweetstream.v1, tweetstream.auth.token.0123456789abcdef-made-up"]
            ws://localhost:9/x/ws -> /x/ws ["sec-websocket-protocol: tweetstream.v1, tweetstream.auth.token.0123456789abcdef-made-up"]
            ws://localhost:9/live/here -> /live/here ["sec-websocket-protocol: tweetstream.v1, tweetstream.auth.token.0123456789abcdef-made-up"]
            wss://ws.tweetstream.io/ws -> /ws ["sec-websocket-protocol: tweetstream.v1", "authorization: Bearer 0123456789abcdef-made-up"]
            ws://localhost:9/x/ws -> /x/ws ["sec-websocket-protocol: tweetstream.v1", "authorization: Bearer 0123456789abcdef-made-up"]
            ws://localhost:9/live/here -> /live/here ["sec-websocket-protocol: tweetstream.v1", "authorization: Bearer 0123456789abcdef-made-up"]
            wss://ws.tweetstream.io/ws?apiKey=*** -> /ws?apiKey=0123456789abcdef-made-up ["sec-websocket-protocol: tweetstream.v1"]
            ws://localhost:9/x/ws?apiKey=*** -> /x/ws?apiKey=0123456789abcdef-made-up ["sec-websocket-protocol: tweetstream.v1"]
            ws://localhost:9/live/here?apiKey=*** -> /live/here?apiKey=0123456789abcdef-made-up ["sec-websocket-protocol: tweetstream.v1"]
        "#]].assert_eq(&all);
    }
}
