//! TwitterAPI.io: filter rules and monitored accounts on one WebSocket.
//!
//! Knows the envelopes, how long to wait before coming back, and how the provider's server behaves towards clients.
//! Knows no socket, no file and no clock. Anybody may use it; each connection has a machine of its own.
//!
//! | file | holds |
//! | --- | --- |
//! | `wire.rs` | [`decode`]: envelopes to events |
//! | `rows.rs` | what envelopes and pages say, as rows of an export |
//! | `client.rs` | [`Client`]: dial, ping, wait, give up |
//! | `delay.rs` | [`Delay`]: how late tweets come |
//! | `server.rs` | [`Server`]: the fake peer |
//! | `rest.rs` | [`Rest`]: the fake peer beside the connection: keys, limits, credits, errors |
//! | `history.rs`, `post.rs` | searches, timelines, single posts; a post found in its envelope |
//! | `rules.rs`, `accounts.rs` | filter rules; monitored accounts |
//!
//! | message | role | what we do | evidence |
//! | --- | --- | --- | --- |
//! | `connected` | greeting | proof of life | blog, "Using WebSocket for Real-Time Twitter Data"; `connected.json` |
//! | `ping` | heartbeat, about every 40 s, no answer owed | once seen twice, its absence is silence | the same; period observed; `ping.json` |
//! | `tweet` with `tweets[]` | a rule's batch, or the standard lane (no `rule_id`) | an event a tweet | the same; `rule_batch.json`, `stream_tweet.json` |
//! | `tweet` with `tweet` | seen in public clients only | as a batch of one | `single_tweet.json` |
//! | `fast_tweet` | fast lane: a post, or an action of the account | post or action by its `type` | blog, 2026-04; `fast_*.json` |
//! | `replaced` | a newer connection took over | loss told, then stop | docs, "WebSocket stream"; `replaced.json` |
//! | others | – | kept, counted, passed on | `unknown_event.json` |
//! | protocol ping | the server's, unanswered for about 50 s ends the connection | answered by the shell | docs, "WebSocket stream" |
//! | close codes | see `judge_close` in `client.rs` | wait, or give up | both pages |
//!
//! | request | what the fake does | evidence |
//! | --- | --- | --- |
//! | `/twitter/tweet/advanced_search`, `bulk_advanced_search` | X's search language, `Latest` or `Top`, 20 a page | docs, "Advanced search"; agent skill |
//! | `/twitter/user/last_tweets`, `/v2`, `tweet_timeline`, `mentions` | an account's posts, and those that name it | docs; envelopes differ, see `last_tweets` |
//! | `/twitter/tweets`, `/twitter/tweet/replies`, `/v2`, `quotes` | single posts, answers, quotes | docs; the vendor's SDK for 100 ids |
//! | `/twitter/user/info`, `/oapi/my/info` | an author as last seen; the balance | docs |
//! | `/oapi/tweet_filter/…` | rules of the tape are there and active; new ones are not | docs, "Filter rules" |
//! | `/oapi/x_user_stream/…` | accounts the tape has without a rule are monitored | docs, "Stream" |
//!
//! Delivery is at least once: a takeover, a reconnect and every further rule that matches bring a tweet again, and a
//! rule that starts pushes about 20 old ones. A batch of 20 may be a full search page, so more may have matched.

mod accounts;
mod client;
mod delay;
mod history;
pub(super) mod lists;
mod post;
mod rest;
mod rows;
mod rules;
mod server;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test may panic and look at the clock")]
mod tests;
mod walk;
mod wire;

use std::time::Duration;

pub use client::Client;
pub use delay::{Delay, Spread};
pub use rest::Rest;
pub(super) use rows::{read_page_rows, read_rows};
pub use server::{Server, Takeover};
pub(crate) use walk::{Listing, PAGE, read_page, selected_by};
pub use walk::{Walk, decode_page};
pub use wire::decode;

use super::{Auth, Credentials, Provider, Settings, Switch, Values};
use crate::model::Framing;

/// Where TwitterAPI.io's pages disagree.
pub const SWITCHES: &[Switch] = &[
    Switch {
        name: "takeover",
        values: Values::Words(&["reject", "replace"]),
        about: "second connection of a key: refused with 1008 (blog, 2026-04), or wins and the older one gets 4001 (docs)",
    },
    Switch {
        name: "last_tweets",
        values: Values::Words(&["half", "flat", "data"]),
        about: "an account's posts: in `data` with the cursor outside (observed 2026-04), all flat (docs), all in `data` (agent skill)",
    },
    Switch {
        name: "replies_list",
        values: Values::Words(&["tweets", "replies"]),
        about: "replies to a post stand in `tweets` (agent skill, 2026-04) or in `replies` (docs)",
    },
    Switch {
        name: "rule_interval",
        values: Values::Words(&["100", "0.1", "0.05"]),
        about: "shortest interval of a rule in seconds: 100 to add and 0.1 to update (docs), 0.1 (blog), 0.05 and 60 if absent (agent skill)",
    },
    Switch {
        name: "plan_qps",
        values: Values::Number { default: 20, min: 0, max: 1_000 },
        about: "requests a second and key: 20 once paid, 50 and 500 on larger plans; 0 is one in 5 s for who never paid (docs)",
    },
    Switch {
        name: "stream_accounts",
        values: Values::Number { default: 2_000, min: 0, max: 2_000 },
        about: "accounts the plan may monitor: 6 to 500 (docs), 2,000 (observed); 0 is no subscription",
    },
];

/// How late a rule's tweets may come: a poll of 100 s, the provider's own delay, and a margin.
///
/// Documented: a rule is polled every `interval_seconds`, 100 and more when it is added (docs.twitterapi.io, "Add
/// rule"). A rule with a longer interval needs its own horizon. The monitored accounts' lane is far faster.
pub const LATENESS_HORIZON: Duration = Duration::from_secs(180);

/// Shortest wait between a drop and the next dial.
///
/// Documented: clients wait at least 90 s before reconnecting (twitterapi.io blog, "Using WebSocket for Real-Time
/// Twitter Data", Best Practices, seen 2025-12-13). The newer page asks for 5 s only (docs.twitterapi.io, "WebSocket
/// stream"); 90 s is safe under both.
const RECONNECT_FLOOR: Duration = Duration::from_secs(90);

/// How often we ping, and how long an answer may take.
///
/// Documented: `ping_interval=40, ping_timeout=30` in the provider's own sample (same blog page).
const PING_EVERY: Duration = Duration::from_secs(40);
const PONG_WITHIN: Duration = Duration::from_secs(30);

/// What the provider's pages suggest.
pub fn default_settings() -> Settings {
    Settings {
        provider: Provider::TwitterapiIo,
        base: None,
        credentials: Credentials::default(),
        // Documented: the header is the only way in; a token in the query is not described.
        auth: Auth::Header,
        reconnect_floor: RECONNECT_FLOOR,
        reconnect_cap: Duration::from_secs(300),
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
