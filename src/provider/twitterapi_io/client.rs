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
    meter: Meter,
}

impl Client {
    /// A machine at rest.
    pub fn new(settings: Settings) -> Self {
        Self { session: Session::new(settings, HEARTBEAT), meter: Meter::default() }
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
        4003 => Verdict::new(Cause::Auth, Next::Stop(Fault::Credentials), "the API key is wrong; set the right one and start again"),
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
