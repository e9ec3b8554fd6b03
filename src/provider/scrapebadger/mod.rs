//! ScrapeBadger: account monitors and filter rules on one WebSocket.
//!
//! Knows the envelopes in all the dialects in print, the pong that is owed, and how the provider's server behaves
//! towards clients. Knows no socket, no file and no clock. Anybody may use it; each connection has its own machine.
//!
//! | file | holds |
//! | --- | --- |
//! | `wire.rs` | [`decode`]: envelopes to events |
//! | `rows.rs` | what envelopes and pages say, as rows of an export |
//! | `client.rs` | [`Client`]: dial, answer, ping, wait, give up |
//! | `server.rs` | [`Server`]: the fake peer |
//! | `rest/` | [`Rest`]: the fake history and management, with its own table of calls |
//!
//! | message | role | what we do | evidence |
//! | --- | --- | --- | --- |
//! | `connected` | greeting | proof of life | scrapebadger.com/docs/twitter-streams; `connected.json` |
//! | `ping` | heartbeat, every 30 s, answer owed | `{"type":"pong"}` at once | vendor's Python and Node packages; `ping.json` |
//! | `tweet.detected`, `new_tweet`, `tweet` | a tweet, dialects A, B, C | one event, by rule or monitor | see `wire.rs`; `a_*`, `b_*`, `c_*`, `merged.json` |
//! | `error` 4001 | key missing or wrong | loss told, then stop | both doc sites and packages; `error_4001.json` |
//! | `error` 4003 | too many connections of the key | loss told, then the slow retry | the same; `error_4003.json` |
//! | `error`, other codes | a complaint | the person is told | assumed |
//! | `test` | a webhook's trial | nothing | published OpenAPI text; `test.json` |
//! | others | – | kept, counted, passed on | `unknown_type.json` |
//! | close codes | see `judge_close` in `client.rs` | wait, or give up | vendor's packages |
//!
//! A tweet in two monitors, or in a monitor and a rule, comes once for each. There is no sequence number and no
//! replay, but the delivery logs of the REST interface say what was sent.

mod client;
pub(super) mod lists;
mod rest;
mod rows;
mod server;
mod walk;
mod wire;

use std::time::Duration;

pub use client::Client;
pub use rest::Rest;
pub(super) use rows::{read_page_rows, read_rows};
pub use server::Server;
pub(crate) use walk::{Answer, PAGE, read_page};
pub use walk::{Walk, decode_page};
pub use wire::decode;

use super::{Auth, Credentials, Provider, Settings, Switch, Values};
use crate::model::Framing;

/// Where ScrapeBadger's pages disagree, and what a client may want to meet.
pub const SWITCHES: &[Switch] = &[
    Switch {
        name: "error_key",
        values: Values::Words(&["detail", "error"]),
        about: "the key of an error's words: detail (guide) or error (older API description)",
    },
    Switch {
        name: "tier_per_minute",
        values: Values::Number { default: 300, min: 1, max: 1_000_000 },
        about: "requests in a minute: free 60, basic 300, pro 1000, enterprise 5000 (guide, \"Rate limits\")",
    },
    Switch {
        name: "log_words",
        values: Values::Words(&["packages", "guide"]),
        about: "words of delivery logs: websocket_delivered and green (packages) or delivered and fast (guide)",
    },
    Switch {
        name: "key",
        values: Values::Words(&["good", "disabled", "out_of_scope"]),
        about: "whether a right key may ask: good, disabled (403) or out_of_scope (403 as the Python package reads it)",
    },
];

/// How late a rule's tweets may come: a poll of 60 s, the provider's own delay, and a margin.
///
/// Documented: rules are polled every `interval_seconds`, 0.1 to 86400; monitors at 100 ms (docs.scrapebadger.com,
/// "Streams"). A rule with a longer interval needs its own horizon.
pub const LATENESS_HORIZON: Duration = Duration::from_secs(120);

/// Shortest wait between a drop and the next dial.
///
/// Observed: the smallest delay the vendor's packages accept (PyPI `scrapebadger` 0.65.1, npm `scrapebadger` 0.11.0).
const RECONNECT_FLOOR: Duration = Duration::from_secs(5);

/// How often we ping, and how long an answer may take.
///
/// Documented: a heartbeat every 30 s, sent by the server (docs.scrapebadger.com, "Streams"). Protocol pings of our
/// own are our choice, so that a dead link is noticed where the dialect in use has no heartbeat.
const PING_EVERY: Duration = Duration::from_secs(30);
const PONG_WITHIN: Duration = Duration::from_secs(30);

/// What the provider's pages suggest.
pub fn default_settings() -> Settings {
    Settings {
        provider: Provider::Scrapebadger,
        base: None,
        credentials: Credentials::default(),
        // Documented: header or query; the header stays out of proxies' logs.
        auth: Auth::Header,
        reconnect_floor: RECONNECT_FLOOR,
        reconnect_cap: Duration::from_secs(120),
        slow_retry: Duration::from_secs(900),
        auto_reconnect: true,
        ping_every: PING_EVERY,
        pong_within: PONG_WITHIN,
        topics: Vec::new(),
        direct_messages: false,
        framing: Framing::Lines,
        answer_auth_ping: false,
        scopes_every: crate::provider::SCOPES_EVERY,
        seed: 0,
    }
}
