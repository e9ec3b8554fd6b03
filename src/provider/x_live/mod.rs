//! X live pipeline: an endless HTTP response that carries `{topic, payload}`, in both roles.
//!
//! Owns X's topics, sessions and refreshing; knows no socket and no clock. The channel is undocumented, is
//! opened with the cookies of a browser session, and has no ids, no stamps and no resume.
//! `wire.rs` reads an envelope, `client.rs` is the recorder's machine, `server.rs` the fake peer of the endless
//! response, `rest.rs` the one beside it, with `totals.rs` for counters as of now and `dm.rs` for conversations.
//! `walk.rs` is who asks for what the stream did not bring, `page.rs` reads what comes.
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
//! | request | what the fake answers | evidence |
//! | --- | --- | --- |
//! | `…/graphql/<query id>/TweetResultsByRestIds`, `TweetResultByRestId`, `TweetDetail` | the counters last said of each post by now; an empty result for others | the shapes twikit 2.3.3 reads |
//! | `…/1.1/dm/conversation/<id>.json` | a page of messages, newest first, by `max_id` and `min_id` | twikit, mautrix-twitter |
//! | `…/1.1/dm/user_updates.json`, `inbox_initial_state.json` | messages after a cursor; the newest ones | mautrix-twitter, twikit |
//! | codes 32, 34, 38, 44, 86, 88, 131, 144 | `{"errors":[{"code","message"}]}` | X's page on response codes |
//!
//! The live pipeline carries no text of a message, so a tape has none: each `dm_update` becomes a message with an empty
//! text and an id made of the time it was received. Nor does it name a post's author or say a post's text: the answers
//! have empty ones, so that public clients can read them.
//!
//! A topic that is not refreshed within the ttl falls silent while keepalives go on, so liveness is per topic:
//! [`Action::Live`](super::Action) and [`Action::Lost`](super::Action) carry the topic as their scope.
//! Sources: X's own web bundle (LivePipeline module), d60/twikit 2.3.3, mautrix/twitter, XActions; all public.

mod client;
mod dm;
mod page;
mod rest;
mod rows;
mod server;
mod totals;
mod walk;
mod wire;

use std::time::Duration;

use super::{Auth, Credentials, Settings, Switch, Values};
use crate::model::{Framing, Provider};

pub use client::Client;
pub use page::decode_page;
pub use rest::Rest;
pub(super) use rows::{read_page_rows, read_rows};
pub use server::Server;
pub use walk::Walk;
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
    Switch {
        name: "unsaid_counters",
        values: Values::Words(&["absent", "zero"]),
        about: "how a snapshot shows a counter the tape never named: not at all (honest) or as 0 (X names every one)",
    },
    Switch {
        name: "dm_page",
        values: Values::Number { default: 20, min: 1, max: 50 },
        about: "messages of a page of a conversation (not documented)",
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
        scopes_every: Duration::ZERO,
        seed: 0,
    }
}
