//! The client machine: dial, listen, ping, wait long enough, know when to give up.
//!
//! It sends no application message at all; the provider asks for none.

use std::time::{Duration, Instant};

use super::delay::{Delay, Meter};
use crate::model::{Cause, Message, Opening};
use crate::provider::session::{self, Heartbeat, Next, Session, Verdict};
use crate::provider::{Action, Auth, Fault, Input, Loudness, Settings};

/// Host of the WebSocket.
///
/// Documented: `wss://ws.twitterapi.io/twitter/tweet/websocket` (docs.twitterapi.io, "WebSocket stream").
const HOST: &str = "ws.twitterapi.io";

/// When the absence of `ping` is death.
///
/// Documented is the event, observed its period of about 40 s (public client notes, 2026-09). Because the period is
/// not promised, two must have come on a connection before a third may be missed: 3 x 40 s and a margin.
const HEARTBEAT: Heartbeat = Heartbeat { silence: Duration::from_secs(130), trusted_after: 2 };

/// The client side of one connection.
#[derive(Debug)]
pub struct Client {
    session: Session,
    // Boxed, because its windows would make every `provider::Client` two kilobytes large.
    meter: Box<Meter>,
}

impl Client {
    /// A machine at rest.
    pub fn new(settings: Settings) -> Self {
        Self { session: Session::new(settings, HEARTBEAT), meter: Box::default() }
    }

    /// Tells the machine what happened.
    pub fn on(&mut self, now: Instant, input: Input<'_>) {
        let session = &mut self.session;
        match input {
            Input::Start => session.start(now, &[Auth::Header]),
            Input::Opened { .. } => session.opened(now),
            Input::Refused { response } => session.refused(now, response, judge_status(response.status)),
            Input::Unreachable { fault, detail } => session.unreachable(now, fault, detail),
            Input::Frame { decoded, received_at } => {
                session.message(now, decoded.message == Message::Ping);
                if decoded.message == Message::Replaced {
                    session.condemn(now, REPLACED, "the provider sent `replaced`".to_owned());
                }
                self.meter.note(decoded, received_at);
                if let Some(text) = self.meter.warning(now) {
                    session.say(Loudness::Warn, text);
                }
            }
            Input::Alive => session.alive(),
            Input::Closed(end) => session.closed(now, end, judge_close),
            Input::Deadline => session.deadline_came(now),
            Input::Answered { .. } | Input::Topics { .. } => {}
        }
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

    /// How late tweets come, over the last fresh ones; `None` before the first.
    pub fn delay(&self) -> Option<Delay> {
        self.meter.delay()
    }
}

const REPLACED: Verdict =
    Verdict::new(Cause::Replaced, Next::Stop(Fault::Replaced), "a newer connection with the same key took this one's place");

/// What a close code means.
///
/// Documented: 1000, 1001, 1002, 1003, 1006, 1011, 1013 (twitterapi.io blog, "Using WebSocket for Real-Time Twitter
/// Data", 2025-12) and 1008 (same page, 2026-04): there the second connection of a key is the one refused.
/// Documented: 4001, 4003, 4009 must not reconnect, 4029 waits (docs.twitterapi.io, "WebSocket stream"): there the
/// first connection is the one that goes. Where 4029's `Retry-After` travels is not said.
fn judge_close(code: u16) -> Verdict {
    match code {
        1008 => Verdict::new(
            Cause::Refused,
            Next::Slow,
            "another connection with this key is open and only one is allowed, or the key is bad",
        ),
        4001 => REPLACED,
        4003 => {
            Verdict::new(Cause::Auth, Next::Stop(Fault::Credentials), "the API key is wrong; set the right one and start again")
        }
        4009 => Verdict::new(Cause::Replaced, Next::Stop(Fault::Replaced), "another client uses this key"),
        4029 => Verdict { meaning: "too many attempts", ..session::judge_status(429) },
        _ => session::judge_close(code),
    }
}

/// What a refusal before the upgrade means.
///
/// Documented for the REST calls, assumed for the handshake, whose own table is not public: 401 wrong key, 403 no key
/// (docs.twitterapi.io, "Errors"). Neither is tried again.
fn judge_status(status: u16) -> Verdict {
    let stop = Next::Stop(Fault::Credentials);
    match status {
        401 => Verdict::new(Cause::Auth, stop, "the API key is wrong; set the right one and start again"),
        403 => Verdict::new(Cause::Auth, stop, "the API key did not arrive or is not allowed here; check it and start again"),
        _ => session::judge_status(status),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::model::Provider;
    use crate::provider::script::{Player, WALL_START, play, settings_with_key};
    use crate::provider::{Base, Client as AnyClient};
    use expect_test::{Expect, expect};

    fn settings() -> Settings {
        settings_with_key(Provider::TwitterapiIo, "hunter2", Auth::Header)
    }

    fn check(script: &str, want: Expect) {
        let out = play(settings(), script);
        assert!(!out.contains("hunter2"), "{out}");
        want.assert_eq(&out);
    }

    #[test]
    fn dials_at_once_and_then_not_before_the_floor() {
        check(
            "0s start | 1s open | 5s close 1006",
            expect![[r#"
            0s dial not before 0s
            5s lost * connection_lost (connection closed with code 1006: the link broke without a farewell)
            5s say Warn: connection closed with code 1006: the link broke without a farewell; dialling again in 1m 34s
            5s dial not before 98.8s
        "#]],
        );
    }

    #[test]
    fn every_close_code() {
        for code in [
            1000, 1001, 1002, 1003, 1004, 1005, 1006, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 1015, 2999, 3000, 4000,
            4001, 4003, 4009, 4029, 4999,
        ] {
            let out = play(settings(), &format!("0s start | 1s open | 5s close {code} why"));
            assert_eq!(out.matches(" lost * ").count(), 1, "{code}: {out}");
            assert_eq!(out.matches(" dial ").count() + out.matches(" stop ").count(), 2, "{code}: {out}");
        }
        let table: String = (1000..=1015).chain([3000, 4000, 4001, 4003, 4009, 4029]).map(one_close).collect();
        expect![[r#"
            1000 connection_lost Soon: the provider ended it in good order
            1001 connection_lost Soon: the provider is going away, probably restarting
            1002 protocol Soon: the provider says we broke the WebSocket protocol, which is a bug on one side
            1003 protocol Soon: the provider does not take what we sent, which is a bug on one side
            1004 protocol Soon: this code may not stand in a close frame, which is a bug of the provider
            1005 connection_lost Soon: the provider ended it without saying why
            1006 connection_lost Soon: the link broke without a farewell
            1007 protocol Soon: the provider could not read a message of ours, which is a bug on one side
            1008 refused Slow: another connection with this key is open and only one is allowed, or the key is bad
            1009 protocol Soon: a message was over somebody's limit
            1010 protocol Soon: an extension was missing that we never offer
            1011 connection_lost NotWithin(5s): the provider had an internal error
            1012 connection_lost Soon: the provider is restarting
            1013 connection_lost NotWithin(60s): the provider is overloaded and asks for patience
            1014 connection_lost NotWithin(5s): a gateway of the provider got no sense from behind it
            1015 protocol Soon: this code may not stand in a close frame, which is a bug of the provider
            3000 refused Slow: the provider gave a reason of its own that birdtape does not know
            4000 refused Slow: the provider gave a reason of its own that birdtape does not know
            4001 replaced Stop(Replaced): a newer connection with the same key took this one's place
            4003 auth Stop(Credentials): the API key is wrong; set the right one and start again
            4009 replaced Stop(Replaced): another client uses this key
            4029 rate_limited NotWithin(60s): too many attempts
        "#]]
        .assert_eq(&table);
    }

    fn one_close(code: u16) -> String {
        let verdict = judge_close(code);
        format!("{code} {} {:?}: {}\n", verdict.cause.name(), verdict.next, verdict.meaning)
    }

    #[test]
    fn every_status() {
        let table: String =
            [101, 200, 301, 302, 307, 308, 400, 401, 402, 403, 404, 408, 409, 418, 422, 425, 426, 429, 500, 502, 503, 520]
                .map(|status| {
                    let verdict = judge_status(status);
                    format!("{status} {} {:?}: {}\n", verdict.cause.name(), verdict.next, verdict.meaning)
                })
                .concat();
        expect![[r#"
            101 protocol Soon: the answer was not the WebSocket upgrade that was asked for
            200 refused Soon: something answered that does not speak WebSocket, perhaps a proxy
            301 refused Slow: redirects are never followed with a key in hand; correct the base address
            302 refused Slow: redirects are never followed with a key in hand; correct the base address
            307 refused Slow: redirects are never followed with a key in hand; correct the base address
            308 refused Slow: redirects are never followed with a key in hand; correct the base address
            400 refused Slow: the provider does not accept the request as it is
            401 auth Stop(Credentials): the API key is wrong; set the right one and start again
            402 credits Slow: the account has no credits; the stream returns after a top-up
            403 auth Stop(Credentials): the API key did not arrive or is not allowed here; check it and start again
            404 refused Slow: there is no stream at this address; check the base address
            408 refused Soon: the provider wants the request again
            409 refused Slow: the provider does not accept the request as it is
            418 refused Slow: the provider does not accept the request as it is
            422 refused Slow: the provider does not accept the request as it is
            425 refused Soon: the provider wants the request again
            426 refused Slow: the provider does not accept the request as it is
            429 rate_limited NotWithin(60s): too many attempts
            500 refused Soon: the provider has trouble of its own
            502 refused Soon: the provider has trouble of its own
            503 refused Soon: the provider has trouble of its own
            520 refused Soon: the provider has trouble of its own
        "#]]
        .assert_eq(&table);
    }

    #[test]
    fn a_refusal_never_loops() {
        check(
            r#"0s start | 1s refused 401 {"error":"Unauthorized","message":"API key is invalid"} | 2s refused 401 | 3s close 1000"#,
            expect![[r#"
                0s dial not before 0s
                1s lost * auth (connection refused with HTTP status 401 "Unauthorized: API key is invalid": the API key is wrong; set the right one and start again)
                1s stop Credentials: connection refused with HTTP status 401 "Unauthorized: API key is invalid": the API key is wrong; set the right one and start again; this source is given up
            "#]],
        );
        check(
            r#"0s start | 1s refused 403 {"error":"Forbidden","message":"key hunter2 required"}"#,
            expect![[r#"
            0s dial not before 0s
            1s lost * auth (connection refused with HTTP status 403 "Forbidden: key *** required": the API key did not arrive or is not allowed here; check it and start again)
            1s stop Credentials: connection refused with HTTP status 403 "Forbidden: key *** required": the API key did not arrive or is not allowed here; check it and start again; this source is given up
        "#]],
        );
        check(
            r#"0s start | 1s refused 402 {"error":"Unauthorized","message":"Credits is not enough"}"#,
            expect![[r#"
            0s dial not before 0s
            1s lost * credits (connection refused with HTTP status 402 "Unauthorized: Credits is not enough": the account has no credits; the stream returns after a top-up)
            1s say Error: connection refused with HTTP status 402 "Unauthorized: Credits is not enough": the account has no credits; the stream returns after a top-up; dialling again in 15m
            1s dial not before 901s
        "#]],
        );
        check(
            "0s start | 1s refused 302 location=https://else.test/x?api_key=hunter2",
            expect![[r#"
            0s dial not before 0s
            1s lost * refused (connection refused with HTTP status 302 "to https://else.test/x": redirects are never followed with a key in hand; correct the base address)
            1s say Error: connection refused with HTTP status 302 "to https://else.test/x": redirects are never followed with a key in hand; correct the base address; dialling again in 15m
            1s dial not before 901s
        "#]],
        );
    }

    #[test]
    fn retry_after_is_obeyed() {
        check(
            "0s start | 1s refused 429 retry-after=700",
            expect![[r#"
            0s dial not before 0s
            1s lost * rate_limited (connection refused with HTTP status 429: too many attempts)
            1s say Warn: connection refused with HTTP status 429: too many attempts; dialling again in 11m 40s
            1s dial not before 701s
        "#]],
        );
        check(
            "0s start | 1s refused 429 retry-after=1",
            expect![[r#"
            0s dial not before 0s
            1s lost * rate_limited (connection refused with HTTP status 429: too many attempts)
            1s say Warn: connection refused with HTTP status 429: too many attempts; dialling again in 1m 34s
            1s dial not before 94.8s
        "#]],
        );
        check(
            "0s start | 1s refused 429 retry-after=tomorrow",
            expect![[r#"
            0s dial not before 0s
            1s lost * rate_limited (connection refused with HTTP status 429: too many attempts)
            1s say Warn: connection refused with HTTP status 429: too many attempts; dialling again in 1m 34s
            1s dial not before 94.8s
        "#]],
        );
        check(
            "0s start | 1s refused 503 retry-after=999999999",
            expect![[r#"
            0s dial not before 0s
            1s lost * refused (connection refused with HTTP status 503: the provider has trouble of its own)
            1s say Warn: connection refused with HTTP status 503: the provider has trouble of its own; dialling again in 1day
            1s dial not before 86401s
        "#]],
        );
    }

    #[test]
    fn a_dead_link_is_noticed() {
        check(
            "0s start | 0s open | 41s alive | 200s wait",
            expect![[r#"
            0s dial not before 0s
            40s ping
            80s ping
            110s lost * silent (no answer to a ping for 30s: the link is dead although nobody closed it)
            110s close 1011 keepalive ping timeout
            110s say Warn: no answer to a ping for 30s: the link is dead although nobody closed it; dialling again in 1m 34s
            110s dial not before 203.8s
        "#]],
        );
        // A message is as good as a pong.
        check(
            r#"0s start | 0s open | 45s frame {"event_type":"x"} | 79s wait"#,
            expect![[r#"
            0s dial not before 0s
            40s ping
        "#]],
        );
    }

    #[test]
    fn missing_heartbeats_count_once_they_are_known() {
        let ping = r#"frame {"event_type":"ping"}"#;
        let alive: String = (1..9).map(|n| format!("| {}s alive ", n * 40)).collect();
        let lines = play(settings(), &format!("0s start | 0s open | 1s {ping} {alive} | 330s alive"));
        assert!(!lines.contains("lost"), "one ping promises nothing: {lines}");
        check(
            &format!("0s start | 0s open | 1s {ping} | 39s {ping} | 40s alive | 80s alive | 120s alive | 160s alive | 170s wait"),
            expect![[r#"
                0s dial not before 0s
                40s ping
                80s ping
                120s ping
                160s ping
                169s lost * silent (no message for 2m 10s: the provider's heartbeats have stopped although the link answers)
                169s close 1011 keepalive ping timeout
                169s say Warn: no message for 2m 10s: the provider's heartbeats have stopped although the link answers; dialling again in 1m 34s
                169s dial not before 262.8s
            "#]],
        );
    }

    #[test]
    fn replaced_is_told_once() {
        let replaced = r#"frame {"event_type":"replaced"}"#;
        check(
            &format!("0s start | 0s open | 9s {replaced} | 10s close 4001 | 11s start | 12s open"),
            expect![[r#"
            0s dial not before 0s
            9s lost * replaced (the provider sent `replaced`: a newer connection with the same key took this one's place)
            10s stop Replaced: the provider sent `replaced`: a newer connection with the same key took this one's place; this source is given up
        "#]],
        );
        check(
            &format!("0s start | 0s open | 9s {replaced} | 9.1s {replaced} | 30s wait"),
            expect![[r#"
            0s dial not before 0s
            9s lost * replaced (the provider sent `replaced`: a newer connection with the same key took this one's place)
            14s close 1000 leaving
            14s stop Replaced: the provider sent `replaced`: a newer connection with the same key took this one's place; this source is given up
        "#]],
        );
    }

    #[test]
    fn the_back_off_grows_and_a_good_connection_resets_it() {
        let mut script = "0s start".to_owned();
        (0..7).for_each(|n| script += &format!(" | {}s unreachable connect", n * 1000));
        script += r#" | 9000s open | 9001s frame {"event_type":"connected"} | 9041s alive | 9065s break reset"#;
        let floor_of_1s = Settings { reconnect_floor: Duration::from_secs(1), ..settings() };
        let dials: Vec<String> = play(floor_of_1s, &script).lines().filter(|l| l.contains(" dial ")).map(str::to_owned).collect();
        expect![[r#"
            0s dial not before 0s
            0s dial not before 3.3s
            1000s dial not before 1006.8s
            2000s dial not before 2011.5s
            3000s dial not before 3020.6s
            4000s dial not before 4040.6s
            5000s dial not before 5112.4s
            6000s dial not before 6257.3s
            9065s dial not before 9069.7s"#]]
        .assert_eq(&dials.join("\n"));
    }

    #[test]
    fn a_day_of_refusals_is_few_attempts() {
        for step in ["refused 402", "refused 400", "refused 302", "open", "refused 404"] {
            let mut player = Player::new(settings());
            player.play("0s start");
            let (mut at, mut n_dials) = (0.0, 0);
            while at < 86_400.0 {
                player.take();
                player.play(&format!("{at}s {step}"));
                if step == "open" {
                    player.play(&format!("{at}s close 1008"));
                }
                at = player.take().rsplit_once("before ").unwrap().1.trim().trim_end_matches('s').parse().unwrap();
                n_dials += 1;
            }
            assert!(n_dials <= 100, "{step}: {n_dials}");
        }
    }

    proptest::proptest! {
        /// Whatever happens in whatever order: no dial below the floor, nothing after a stop, no endless deadlines.
        #[test]
        fn manners_hold_in_any_order(steps in proptest::collection::vec((0u32..200, 0usize..STEPS.len()), 0..40)) {
            let (mut at, mut script) = (0, "0s start".to_owned());
            for (wait, step) in steps {
                at += wait;
                script += &format!(" | {at}s {}", STEPS[step]);
            }
            let out = play(settings(), &script);
            let mut stopped = false;
            for line in out.lines().skip(1) {
                proptest::prop_assert!(!stopped, "{}", out);
                stopped = line.contains(" stop ");
                if let Some((when, not_before)) = line.split_once(" dial not before ") {
                    let secs = |text: &str| text.trim_end_matches('s').parse::<f64>().unwrap();
                    proptest::prop_assert!(secs(not_before) - secs(when) > 89.9, "{}", out);
                }
            }
        }
    }

    const STEPS: [&str; 16] = [
        "open",
        "alive",
        "wait",
        "close 1000",
        "close 1013",
        "close 1002",
        "close 4001",
        "close",
        "break malformed",
        "unreachable dns",
        "refused 429",
        "refused 401",
        "refused 500 retry-after=3",
        r#"frame {"event_type":"ping"}"#,
        r#"frame {"event_type":"replaced"}"#,
        "frame {",
    ];

    #[test]
    fn a_storm_of_short_connections_keeps_the_floor() {
        let mut player = Player::new(settings());
        player.play("0s start");
        player.take();
        let mut at = 0.0;
        for _ in 0..1000 {
            player.play(&format!(r#"{at}s open | {at}s frame {{"event_type":"connected"}} | {}s close 1001"#, at + 1.0));
            let out = player.take();
            let next: f64 = out.rsplit_once("before ").unwrap().1.trim().trim_end_matches('s').parse().unwrap();
            assert!(next - at - 1.0 >= 89.9 && next - at < 400.0, "{out}");
            at = next;
        }
    }

    #[test]
    fn protocol_faults_in_a_row_end_in_the_slow_retry() {
        check(
            "0s start | 1s open | 2s break malformed | 200s open | 201s close 1002 | 400s open | 401s break oversized",
            expect![[r#"
                0s dial not before 0s
                2s lost * protocol (connection broke (malformed): a frame broke the WebSocket protocol; its bytes are kept)
                2s say Warn: connection broke (malformed): a frame broke the WebSocket protocol; its bytes are kept; dialling again in 1m 34s
                2s dial not before 95.8s
                201s lost * protocol (connection closed with code 1002: the provider says we broke the WebSocket protocol, which is a bug on one side)
                201s say Warn: connection closed with code 1002: the provider says we broke the WebSocket protocol, which is a bug on one side; dialling again in 1m 34s
                201s dial not before 294.1s
                401s lost * protocol (connection broke (oversized): a message was over the limit; its beginning is kept)
                401s say Error: connection broke (oversized): a message was over the limit; its beginning is kept; dialling again in 15m
                401s dial not before 1301s
            "#]],
        );
    }

    #[test]
    fn without_reconnecting_a_drop_is_the_end() {
        let out = play(Settings { auto_reconnect: false, ..settings() }, "0s start | 1s open | 2s close 1001 | 3s open");
        expect![[r#"
            0s dial not before 0s
            2s lost * connection_lost (connection closed with code 1001: the provider is going away, probably restarting)
            2s stop Dropped: connection closed with code 1001: the provider is going away, probably restarting; reconnecting is switched off, so this source is given up
        "#]].assert_eq(&out);
    }

    #[test]
    fn settings_that_cannot_work() {
        let no_key = play(crate::provider::twitterapi_io::default_settings(), "0s start");
        let query = play(settings_with_key(Provider::TwitterapiIo, "hunter2", Auth::Query), "0s start");
        let broken = play(settings_with_key(Provider::TwitterapiIo, "hunter\u{e9}", Auth::Header), "0s start");
        expect![[r#"
            0s stop Credentials: no key for twitterapi_io; put it into the environment and start again
            0s stop Settings: twitterapi_io does not take its key this way; change `auth` of the source
            0s stop Credentials: the key for twitterapi_io holds characters that no key has; check it
        "#]]
        .assert_eq(&format!("{no_key}{query}{broken}"));
    }

    #[test]
    fn the_address_shows_no_key() {
        let shown = |base: Option<&str>| {
            let base = base.map(|b| Base::parse(b).unwrap());
            let opening = AnyClient::new(Settings { base, ..settings() }).opening();
            assert_eq!(opening.headers[0].1.expose(), "hunter2");
            assert!(!format!("{opening:?}").contains("hunter2"));
            format!("{} {} {}\n", opening.shown, opening.target.expose(), opening.headers[0].0)
        };
        let all = [None, Some("http://127.0.0.1:8080"), Some("https://x.test/p/"), Some("ws://x.test/own")].map(shown);
        expect![[r#"
            wss://ws.twitterapi.io/twitter/tweet/websocket /twitter/tweet/websocket x-api-key
            ws://127.0.0.1:8080/twitter/tweet/websocket /twitter/tweet/websocket x-api-key
            wss://x.test/p/twitter/tweet/websocket /p/twitter/tweet/websocket x-api-key
            ws://x.test/own /own x-api-key
        "#]]
        .assert_eq(&all.concat());
    }

    #[test]
    fn late_tweets_are_measured_and_told_now_and_then() {
        let mut client = Client::new(settings());
        let now = Instant::now();
        client.on(now, Input::Start);
        client.on(now, Input::Opened { subprotocol: None });
        assert_eq!(client.delay(), None);
        let mut said = Vec::new();
        for n in 0..200u32 {
            let received_at = WALL_START.plus(Duration::from_secs(u64::from(n)));
            let ms = if n < 100 { 900 } else { 4_000 + u64::from(n) };
            let id = crate::model::TweetId::first_at(received_at.minus(Duration::from_millis(ms)));
            let text = format!(
                r#"{{"event_type":"tweet","tweets":[{{"id":"{id}"}},{{"id":"1900000000000000000"}}],"timestamp":{}}}"#,
                received_at.millis() - 30
            );
            let decoded = super::super::decode(&text);
            client.on(now + Duration::from_secs(u64::from(n)), Input::Frame { decoded: &decoded, received_at });
            while let Some(action) = client.next_action() {
                if let Action::Say { text, .. } = action {
                    said.push(format!("{n}: {text}"));
                }
            }
        }
        expect!["143: tweets of monitored accounts come late: median 4111 ms, worst 4143 ms over the last 64, usual is under 2000 ms; recording goes on"].assert_eq(&said.join("\n"));
        expect!["Delay { stream: Spread { n_samples: 64, median_ms: 4167, max_ms: 4199 }, rules: Spread { n_samples: 0, median_ms: 0, max_ms: 0 }, transit: Spread { n_samples: 64, median_ms: 30, max_ms: 30 } }"].assert_eq(&format!("{:?}", client.delay().unwrap()));
    }
}
