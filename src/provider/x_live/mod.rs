//! X live pipeline: an endless HTTP response that carries `{topic, payload}`, in both roles.
//!
//! Owns X's topics, sessions and refreshing; knows no socket and no clock. The channel is undocumented, is
//! opened with the cookies of a browser session, and has no ids, no stamps and no resume.
//! `wire.rs` reads an envelope, `client.rs` is the recorder's machine, `server.rs` the fake peer.
//!
//! | message | role | what we do | evidence |
//! | --- | --- | --- | --- |
//! | `config` | first frame: session id, ttl, heartbeat | starts refreshing; topics of the address are live | `fixtures/x_live/config.json`; twikit `streaming.py` |
//! | `subscriptions` | answer to a change of topics | a refused topic is a loss of that topic | `subscriptions*.json`; twikit, mautrix-twitter |
//! | `tweet_engagement` | some counters of a post, absolute | event `engagement`; the post's id stands in the topic only | `tweet_engagement*.json` |
//! | `dm_update`, `dm_typing` | a wake-up, no text | events by conversation | `dm_update.json`, `dm_typing.json` |
//! | `errors` | a complaint without a payload | 392 reopens, 32 stops, others are told | `errors_392.json` |
//! | anything else | – | kept, counted as unknown | `unknown_kind.json` |
//!
//! A topic that is not refreshed within the ttl falls silent while keepalives go on, so liveness is per topic:
//! [`Action::Live`](super::Action) and [`Action::Lost`](super::Action) carry the topic as their scope.
//! Sources: X's own web bundle (LivePipeline module), d60/twikit 2.3.3, mautrix/twitter, XActions; all public.

mod client;
mod rest;
mod server;
mod wire;

use std::time::Duration;

use super::{Auth, Credentials, Settings, Switch, Values};
use crate::model::{Framing, Provider};

pub use client::Client;
pub use rest::Rest;
pub use server::Server;
pub use wire::decode;

/// Where public clients of X disagree.
pub const SWITCHES: &[Switch] = &[
    Switch {
        name: "ttl_ms",
        values: Values::Number { default: 120_000, min: 1, max: 86_400_000 },
        about: "how long a subscription lives, in milliseconds (observed: two minutes)",
    },
    Switch {
        name: "dm_topics",
        values: Values::Words(&["at_opening", "any_time"]),
        about: "whether direct-message topics can be added later: no (twikit) or yes (mautrix-twitter)",
    },
];

/// How late an event may come. Ours: the stream is push-only and nothing in it has a time to be late by.
pub const LATENESS_HORIZON: Duration = Duration::from_secs(60);

/// Step of the first wait between a drop and the next dial. Documented: X's web bundle doubles from 1 s.
const REDIAL_BASE: Duration = Duration::from_secs(1);

/// Longest wait of the ordinary back-off. Documented: X's web bundle stops doubling at 60 s.
const REDIAL_CAP: Duration = Duration::from_secs(60);

/// Wait after a refusal that does not pass by itself. Ours.
const SLOW_RETRY: Duration = Duration::from_secs(15 * 60);

/// Least silence that means death. Documented: XActions waits for `max(15 s, 3 × heartbeat)`.
const SILENCE_FLOOR: Duration = Duration::from_secs(15);

/// Life of a subscription where the server's word is missing or absurd.
///
/// Documented: X's web bundle takes 120 s if the field is absent. Observed: 120000.
const DEFAULT_TTL: Duration = Duration::from_secs(120);

/// Time between keepalives where the server's word is missing or absurd. Observed: 25000.
const DEFAULT_HEARTBEAT: Duration = Duration::from_secs(25);

/// Path of the request that changes topics. Documented: twikit, mautrix-twitter, XActions.
const UPDATE_PATH: &str = "/1.1/live_pipeline/update_subscriptions";

/// Error code "Session not found". Documented: X's web bundle drops the stream and opens another.
const SESSION_NOT_FOUND: i64 = 392;

/// Error code for a missing session header. Observed: HTTP 400 with this code.
const SESSION_MISSING: i64 = 38;

/// Error code "Could not authenticate you". Documented: textshq's client.
const NOT_AUTHENTICATED: i64 = 32;

/// Whether a topic belongs to a conversation: private, and not to be added to an open session.
fn is_direct_message(topic: &str) -> bool {
    topic.starts_with("/dm_update/") || topic.starts_with("/dm_typing/")
}

/// Settings the public clients suggest.
pub fn default_settings() -> Settings {
    Settings {
        provider: Provider::XLive,
        base: None,
        credentials: Credentials::default(),
        auth: Auth::Cookies,
        reconnect_floor: Duration::ZERO,
        reconnect_cap: REDIAL_CAP,
        slow_retry: SLOW_RETRY,
        auto_reconnect: true,
        ping_every: Duration::ZERO,
        pong_within: SILENCE_FLOOR,
        topics: Vec::new(),
        direct_messages: false,
        framing: Framing::Sse,
        answer_auth_ping: false,
        seed: 0,
    }
}
