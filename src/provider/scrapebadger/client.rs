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
        self.session.say(Loudness::Warn, format!("the provider sent {code} \"{text}\"; the connection stands and recording goes on"));
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
