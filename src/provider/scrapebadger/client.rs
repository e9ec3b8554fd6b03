//! The client machine: dial, answer heartbeats, ping, wait, know when to give up.

use std::time::{Duration, Instant};

use crate::model::{Cause, Message, Opening};
use crate::provider::session::{self, Heartbeat, Next, Session, Verdict};
use crate::provider::{Action, Auth, Fault, Input, Loudness, Settings};

/// Host of the WebSocket.
///
/// Documented: `wss://scrapebadger.com/v1/twitter/stream` (docs.scrapebadger.com, "Streams").
const HOST: &str = "scrapebadger.com";

/// The answer owed to the application's `ping`.
///
/// Observed: what the vendor's packages send (PyPI `scrapebadger` 0.65.1, npm `scrapebadger` 0.11.0); without it the
/// server closes with 1001.
const PONG: &str = r#"{"type":"pong"}"#;

/// When the absence of `ping` is death: two heartbeats of 30 s and a margin.
///
/// Documented: the 30 s (docs.scrapebadger.com, "Streams"). Dialect A describes no heartbeat message, so one must
/// have come on a connection before the next can be missed.
const HEARTBEAT: Heartbeat = Heartbeat { silence: Duration::from_secs(70), trusted_after: 1 };

/// Complaints of the provider are passed on at most once in this time.
const COMPLAINT_EVERY: Duration = Duration::from_secs(60);

/// The client side of one connection.
#[derive(Debug)]
pub struct Client {
    session: Session,
    complained_at: Option<Instant>,
}

impl Client {
    /// A machine at rest.
    pub fn new(settings: Settings) -> Self {
        Self { session: Session::new(settings, HEARTBEAT), complained_at: None }
    }

    /// Tells the machine what happened.
    pub fn on(&mut self, now: Instant, input: Input<'_>) {
        let session = &mut self.session;
        match input {
            Input::Start => session.start(now, &[Auth::Header, Auth::Query]),
            Input::Opened { .. } => session.opened(now),
            Input::Refused { response } => session.refused(now, response, judge_status(response.status)),
            Input::Unreachable { fault, detail } => session.unreachable(now, fault, detail),
            Input::Frame { decoded, .. } => self.frame(now, &decoded.message),
            Input::Alive => session.alive(),
            Input::Closed(end) => session.closed(now, end, judge_close),
            Input::Deadline => session.deadline_came(now),
            Input::Answered { .. } | Input::Topics { .. } => {}
        }
    }

    fn frame(&mut self, now: Instant, message: &Message) {
        let session = &mut self.session;
        session.message(now, *message == Message::Ping);
        match message {
            Message::Ping if session.is_open() => session.push(Action::Send(PONG.to_owned())),
            Message::Error { code, text } if session.is_open() => self.error(now, *code, text),
            _ => {}
        }
    }

    /// 4001 and 4003 end the connection in a moment; the loss is told now, with the better cause.
    fn error(&mut self, now: Instant, code: Option<u16>, text: &str) {
        let text = self.session.clean(text);
        if let Some(code @ (4001 | 4003)) = code {
            return self.session.condemn(now, judge_close(code), format!("the provider sent error {code} \"{text}\""));
        }
        if self.complained_at.is_some_and(|at| now.duration_since(at) < COMPLAINT_EVERY) {
            return;
        }
        self.complained_at = Some(now);
        let code = code.map_or_else(|| "an error".to_owned(), |code| format!("error {code}"));
        self.session
            .say(Loudness::Warn, format!("the provider sent {code} \"{text}\"; the connection stands and recording goes on"));
    }

    /// The next thing to do, if any.
    pub fn next_action(&mut self) -> Option<Action> {
        self.session.next_action()
    }

    /// When the machine wants [`Input::Deadline`] if nothing else happens.
    pub fn deadline(&self) -> Option<Instant> {
        self.session.deadline()
    }

    /// How to open the connection.
    pub fn opening(&self) -> Opening {
        self.session.opening(HOST)
    }
}

/// What a close code means; 4001 and 4003 are also the codes of the `error` message that comes first.
///
/// Documented: 4001 key, 4003 connection limit, as codes of `error` (scrapebadger.com/docs/twitter-streams). Assumed:
/// the close carries the same number. Observed: 1001 when no pong came (vendor's packages).
fn judge_close(code: u16) -> Verdict {
    match code {
        1001 => Verdict { meaning: "the provider is restarting, or a pong of ours did not arrive", ..session::judge_close(1001) },
        4001 => Verdict::new(
            Cause::Auth,
            Next::Stop(Fault::Credentials),
            "the API key is missing or wrong; set the right one and start again",
        ),
        4003 => Verdict::new(Cause::Refused, Next::Slow, "this key has as many connections as it may have; end another one"),
        _ => session::judge_close(code),
    }
}

/// What a refusal before the upgrade means.
///
/// Documented: 401 missing or invalid key, 403 disabled key or a missing right, 402 no credits, 429 with
/// `Retry-After` (docs.scrapebadger.com, "Errors"). 401 and 403 are not tried again.
fn judge_status(status: u16) -> Verdict {
    let stop = Next::Stop(Fault::Credentials);
    match status {
        401 => Verdict::new(Cause::Auth, stop, "the API key is missing or wrong; set the right one and start again"),
        403 => Verdict::new(Cause::Auth, stop, "the API key is disabled or not allowed here; check it and start again"),
        _ => session::judge_status(status),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::model::Provider;
    use crate::provider::script::{play, settings_with_key};
    use crate::provider::{Base, Client as AnyClient};
    use expect_test::{Expect, expect};

    fn settings() -> Settings {
        settings_with_key(Provider::Scrapebadger, "sb_live_hunter/2", Auth::Header)
    }

    fn check(script: &str, want: Expect) {
        let out = play(settings(), script);
        assert!(!out.contains("hunter"), "{out}");
        want.assert_eq(&out);
    }

    #[test]
    fn answers_the_heartbeat_and_notices_when_it_stops() {
        let ping = r#"frame {"type":"ping","timestamp":"2026-11-02T08:00:00Z"}"#;
        check(
            &format!("0s start | 0s open | 1s {ping} | 29s alive | 59s alive | 80s wait"),
            expect![[r#"
            0s dial not before 0s
            1s send {"type":"pong"}
            30s ping
            60s ping
            71s lost * silent (no message for 1m 10s: the provider's heartbeats have stopped although the link answers)
            71s close 1011 keepalive ping timeout
            71s say Warn: no message for 1m 10s: the provider's heartbeats have stopped although the link answers; dialling again in 6s
            71s dial not before 76.2s
        "#]],
        );
        // A dialect without heartbeats: the link answering is all there is to go by.
        check(
            "0s start | 0s open | 31s alive | 61s alive | 91s alive | 119s wait",
            expect![[r#"
            0s dial not before 0s
            30s ping
            60s ping
            90s ping
        "#]],
        );
        check(
            "0s start | 0s open | 70s wait",
            expect![[r#"
            0s dial not before 0s
            30s ping
            60s lost * silent (no answer to a ping for 30s: the link is dead although nobody closed it)
            60s close 1011 keepalive ping timeout
            60s say Warn: no answer to a ping for 30s: the link is dead although nobody closed it; dialling again in 6s
            60s dial not before 65.2s
        "#]],
        );
    }

    #[test]
    fn errors_that_end_it_and_errors_that_do_not() {
        let error = |code: u16| format!(r#"frame {{"type":"error","code":{code},"message":"no sb_live_hunter/2"}}"#);
        check(
            &format!("0s start | 0s open | 1s {} | 1.1s close 4001", error(4001)),
            expect![[r#"
            0s dial not before 0s
            1s lost * auth (the provider sent error 4001 "no ***": the API key is missing or wrong; set the right one and start again)
            1.1s stop Credentials: the provider sent error 4001 "no ***": the API key is missing or wrong; set the right one and start again; this source is given up
        "#]],
        );
        check(
            &format!("0s start | 0s open | 1s {} | 1.1s close 4003", error(4003)),
            expect![[r#"
            0s dial not before 0s
            1s lost * refused (the provider sent error 4003 "no ***": this key has as many connections as it may have; end another one)
            1.1s say Error: the provider sent error 4003 "no ***": this key has as many connections as it may have; end another one; dialling again in 15m
            1.1s dial not before 901.1s
        "#]],
        );
        check(
            &format!("0s start | 0s open | 1s {} | 10s wait", error(4003)),
            expect![[r#"
            0s dial not before 0s
            1s lost * refused (the provider sent error 4003 "no ***": this key has as many connections as it may have; end another one)
            6s close 1000 leaving
            6s say Error: the provider sent error 4003 "no ***": this key has as many connections as it may have; end another one; dialling again in 15m
            6s dial not before 906s
        "#]],
        );
        check(
            &format!("0s start | 0s open | 1s {} | 2s {} | 29s wait", error(4042), error(4042)),
            expect![[r#"
            0s dial not before 0s
            1s say Warn: the provider sent error 4042 "no ***"; the connection stands and recording goes on
        "#]],
        );
    }

    #[test]
    fn every_close_code() {
        let table: String = (1000..=1015)
            .chain([3000, 4000, 4001, 4003, 4009])
            .map(|code| {
                let out = play(settings(), &format!("0s start | 1s open | 5s close {code}"));
                assert_eq!(out.matches(" lost * ").count(), 1, "{code}: {out}");
                let verdict = judge_close(code);
                format!("{code} {} {:?}: {}\n", verdict.cause.name(), verdict.next, verdict.meaning)
            })
            .collect();
        expect![[r#"
            1000 connection_lost Soon: the provider ended it in good order
            1001 connection_lost Soon: the provider is restarting, or a pong of ours did not arrive
            1002 protocol Soon: the provider says we broke the WebSocket protocol, which is a bug on one side
            1003 protocol Soon: the provider does not take what we sent, which is a bug on one side
            1004 protocol Soon: this code may not stand in a close frame, which is a bug of the provider
            1005 connection_lost Soon: the provider ended it without saying why
            1006 connection_lost Soon: the link broke without a farewell
            1007 protocol Soon: the provider could not read a message of ours, which is a bug on one side
            1008 refused Slow: the provider's policy does not allow this connection; check key and plan
            1009 protocol Soon: a message was over somebody's limit
            1010 protocol Soon: an extension was missing that we never offer
            1011 connection_lost NotWithin(5s): the provider had an internal error
            1012 connection_lost Soon: the provider is restarting
            1013 connection_lost NotWithin(60s): the provider is overloaded and asks for patience
            1014 connection_lost NotWithin(5s): a gateway of the provider got no sense from behind it
            1015 protocol Soon: this code may not stand in a close frame, which is a bug of the provider
            3000 refused Slow: the provider gave a reason of its own that birdtape does not know
            4000 refused Slow: the provider gave a reason of its own that birdtape does not know
            4001 auth Stop(Credentials): the API key is missing or wrong; set the right one and start again
            4003 refused Slow: this key has as many connections as it may have; end another one
            4009 refused Slow: the provider gave a reason of its own that birdtape does not know
        "#]]
        .assert_eq(&table);
    }

    #[test]
    fn every_status() {
        let table: String = [101, 200, 301, 400, 401, 402, 403, 404, 409, 422, 429, 500, 503]
            .map(|status| {
                let verdict = judge_status(status);
                format!("{status} {} {:?}: {}\n", verdict.cause.name(), verdict.next, verdict.meaning)
            })
            .concat();
        expect![[r#"
            101 protocol Soon: the answer was not the WebSocket upgrade that was asked for
            200 refused Soon: something answered that does not speak WebSocket, perhaps a proxy
            301 refused Slow: redirects are never followed with a key in hand; correct the base address
            400 refused Slow: the provider does not accept the request as it is
            401 auth Stop(Credentials): the API key is missing or wrong; set the right one and start again
            402 credits Slow: the account has no credits; the stream returns after a top-up
            403 auth Stop(Credentials): the API key is disabled or not allowed here; check it and start again
            404 refused Slow: there is no stream at this address; check the base address
            409 refused Slow: the provider does not accept the request as it is
            422 refused Slow: the provider does not accept the request as it is
            429 rate_limited NotWithin(60s): too many attempts
            500 refused Soon: the provider has trouble of its own
            503 refused Soon: the provider has trouble of its own
        "#]]
        .assert_eq(&table);
    }

    #[test]
    fn refusals() {
        check(
            r#"0s start | 1s refused 401 {"detail":"Invalid or missing API key"}"#,
            expect![[r#"
            0s dial not before 0s
            1s lost * auth (connection refused with HTTP status 401 "Invalid or missing API key": the API key is missing or wrong; set the right one and start again)
            1s stop Credentials: connection refused with HTTP status 401 "Invalid or missing API key": the API key is missing or wrong; set the right one and start again; this source is given up
        "#]],
        );
        check(
            r#"0s start | 1s refused 403 {"error":"ip_not_allowed","client_ip":"192.0.2.1"}"#,
            expect![[r#"
            0s dial not before 0s
            1s lost * auth (connection refused with HTTP status 403 "ip_not_allowed": the API key is disabled or not allowed here; check it and start again)
            1s stop Credentials: connection refused with HTTP status 403 "ip_not_allowed": the API key is disabled or not allowed here; check it and start again; this source is given up
        "#]],
        );
        check(
            r#"0s start | 1s refused 429 retry-after=33 {"detail":"Rate limit exceeded","limit":60}"#,
            expect![[r#"
            0s dial not before 0s
            1s lost * rate_limited (connection refused with HTTP status 429 "Rate limit exceeded": too many attempts)
            1s say Warn: connection refused with HTTP status 429 "Rate limit exceeded": too many attempts; dialling again in 33s
            1s dial not before 34s
        "#]],
        );
        check(
            "0s start | 1s refused 500 | 20s unreachable dns lookup of sb_live_hunter/2 failed",
            expect![[r#"
            0s dial not before 0s
            1s lost * refused (connection refused with HTTP status 500: the provider has trouble of its own)
            1s say Warn: connection refused with HTTP status 500: the provider has trouble of its own; dialling again in 6s
            1s dial not before 6.2s
            20s lost * unreachable (no connection (dns: lookup of *** failed): the host's name has no address right now)
            20s say Warn: no connection (dns: lookup of *** failed): the host's name has no address right now; dialling again in 7s
            20s dial not before 26.8s
        "#]],
        );
        check(
            "0s start | 1s refused 301 location=https://else.test/?api_key=sb_live_hunter%2F2",
            expect![[r#"
            0s dial not before 0s
            1s lost * refused (connection refused with HTTP status 301 "to https://else.test/": redirects are never followed with a key in hand; correct the base address)
            1s say Error: connection refused with HTTP status 301 "to https://else.test/": redirects are never followed with a key in hand; correct the base address; dialling again in 15m
            1s dial not before 901s
        "#]],
        );
    }

    #[test]
    fn the_key_goes_where_it_should_and_is_shown_nowhere() {
        let shown = |auth, base: Option<&str>| {
            let base = base.map(|b| Base::parse(b).unwrap());
            let settings = settings_with_key(Provider::Scrapebadger, "sb_live_hunter/2", auth);
            let opening = AnyClient::new(Settings { base, ..settings }).opening();
            assert!(!format!("{opening:?}").contains("hunter"));
            format!("{} | {} | {} headers\n", opening.shown, opening.target.expose(), opening.headers.len())
        };
        let all = [
            shown(Auth::Header, None),
            shown(Auth::Query, None),
            shown(Auth::Query, Some("http://127.0.0.1:8080/x")),
            shown(Auth::Header, Some("ws://127.0.0.1:8080/own")),
        ];
        expect![[r#"
            wss://scrapebadger.com/v1/twitter/stream | /v1/twitter/stream | 1 headers
            wss://scrapebadger.com/v1/twitter/stream?api_key=*** | /v1/twitter/stream?api_key=sb_live_hunter%2F2 | 0 headers
            ws://127.0.0.1:8080/x/v1/twitter/stream?api_key=*** | /x/v1/twitter/stream?api_key=sb_live_hunter%2F2 | 0 headers
            ws://127.0.0.1:8080/own | /own | 1 headers
        "#]]
        .assert_eq(&all.concat());
    }

    #[test]
    fn settings_that_cannot_work() {
        let bearer = play(settings_with_key(Provider::Scrapebadger, "k", Auth::Bearer), "0s start");
        let no_key = play(crate::provider::scrapebadger::default_settings(), "0s start");
        expect![[r#"
            0s stop Settings: scrapebadger does not take its key this way; change `auth` of the source
            0s stop Credentials: no key for scrapebadger; put it into the environment and start again
        "#]]
        .assert_eq(&format!("{bearer}{no_key}"));
    }
}
