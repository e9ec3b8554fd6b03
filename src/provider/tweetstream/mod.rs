//! TweetStream: a WebSocket that carries `{v,t,op,id,ts,d}`, in both roles.
//!
//! Owns TweetStream's JSON, its close codes and its ways to carry a key. Knows no socket and no clock.
//! `wire.rs` reads an envelope, `client.rs` is the recorder's machine, `server.rs` the fake peer of the live
//! connection, `rest.rs` the one beside it, with `history.rs` for what happened, `watchlist.rs` for who is tracked and `fields.rs` for
//! parts of envelopes as they were written. `walk.rs` is who asks for history, `page.rs` reads what comes.
//!
//! | message | role | what we do | evidence |
//! | --- | --- | --- | --- |
//! | `tweet/content` | a post | event `tweet`; Truth Social ids are kept apart | `fixtures/tweetstream/content*.json` |
//! | `tweet/update` | partial enrichment, not an edit | event `update` | `update.json` |
//! | `tweet/meta` | OCR and detections | event `meta`; shares its envelope `id` with `content` | `meta*.json` |
//! | `tweet/delete`, `pin`, `unpin` | what became of a post; live only | events of the same names | `delete.json`, `pin.json`, `unpin.json` |
//! | `account/profile_update`, `follow`, `unfollow` | a watched account | events by `eventId` | `profile_update*.json`, `follow.json`, `unfollow.json` |
//! | `account/callout` | call-out of a token | event by the envelope's `id` | `callout.json`; seen only in a public consumer's code |
//! | `control/twitter_handles_result` | answer to a watchlist command | nothing | `twitter_handles_result.json` |
//! | `control/auth_ping`, `auth_pong` | named in the SDK's types, never explained | kept; answered only when asked to | `auth_ping.json`, `auth_pong.json` |
//! | anything else | – | kept, counted as unknown | `unknown_op.json` |
//!
//! | request | what the fake answers | evidence |
//! | --- | --- | --- |
//! | `GET /api/history` | rows of one type, newest first, at most 1000, no cursor | docs, "History API"; SDK types 1.1 |
//! | `POST /api/add-account`, `DELETE /api/remove-account` | a state for each handle; 207 when some failed | docs, "Tracked account management"; 207 seen in a public consumer |
//! | `GET /api/me` | plan, tracked accounts, open connections; never to be stored | the same page |
//! | 400, 401, 403, 404, 405, 429, 500 | `{"error": …}` | the SDKs read `error`; which status means what is inferred |
//!
//! There is no greeting, no sequence number, no resume and no application heartbeat: an open socket is the
//! greeting, and only protocol pings of our own tell a quiet hour from a dead link.
//! Source: tweetstream.io docs, "WebSocket quickstart" and "Payloads, detections and OCR"; the vendor's
//! Python and TypeScript SDKs 1.1.0.

mod client;
mod fields;
mod history;
pub(super) mod lists;
mod page;
mod rest;
mod rows;
mod server;
mod walk;
mod watchlist;
mod wire;

use std::time::Duration;

use super::{Auth, Credentials, Settings, Switch, Values};
use crate::model::{Framing, Provider};

pub use client::Client;
pub use page::decode_page;
pub(crate) use page::{Page, read_page};
pub use rest::Rest;
pub(super) use rows::{read_page_rows, read_rows};
pub use server::Server;
pub(crate) use walk::PAGE_MAX;
pub use walk::Walk;
pub use wire::decode;

/// Where TweetStream's pages disagree.
pub const SWITCHES: &[Switch] = &[
    Switch {
        name: "history_bounds",
        values: Values::Words(&["time", "received"]),
        about: "what startDate and endDate of /api/history compare with: the event's time or the time of receipt (not documented)",
    },
    Switch {
        name: "history_edges",
        values: Values::Words(&["included", "excluded"]),
        about: "whether a row at the very millisecond of startDate or endDate is given (not documented)",
    },
    Switch {
        name: "history_updates",
        values: Values::Words(&["plain", "merged"]),
        about: "whether a row's content is what was sent first or has later updates in it (not documented)",
    },
    Switch {
        name: "history_deleted",
        values: Values::Words(&["kept", "gone"]),
        about: "whether a post that was deleted since stays in the history (not documented)",
    },
    Switch {
        name: "plan",
        values: Values::Words(&["pro", "basic", "scale"]),
        about: "the key's plan: pro and scale have history, basic has none (docs, History API)",
    },
    Switch {
        name: "accounts_limit",
        values: Values::Number { default: 0, min: 0, max: 1_000_000 },
        about: "accounts the key may track; 0 is the plan's number: 50 for basic, 250 for pro, no end for scale",
    },
    Switch {
        name: "history_per_minute",
        values: Values::Number { default: 60, min: 1, max: 1_000_000 },
        about: "requests for history a minute before 429 (inferred: the docs name no number)",
    },
];

/// How late an event may come.
///
/// Documented: `content` follows the post within a second or so, `meta` "shortly after" (217 ms in the landing
/// page's sample). Observed: a public consumer still receives `update`s for replies seconds later. One minute
/// is also the margin that public consumers use around history windows.
pub const LATENESS_HORIZON: Duration = Duration::from_secs(60);

/// Step of the first wait between a drop and the next dial.
///
/// Documented: `min(1 s × 2^n, 30 s)` with jitter. Source: vendor SDKs 1.0 and 1.1.
pub(crate) const REDIAL_BASE: Duration = Duration::from_secs(1);

/// Longest wait of the ordinary back-off. Documented: 30 s, as above.
const REDIAL_CAP: Duration = Duration::from_secs(30);

/// Wait after a refusal that does not pass by itself. Ours: the SDKs stop for ever, a recorder asks again seldom.
const SLOW_RETRY: Duration = Duration::from_secs(15 * 60);

/// How often we ping.
///
/// Documented only by the SDK's choice of library: Python `websockets` pings every 20 s by default.
const PING_EVERY: Duration = Duration::from_secs(20);

/// How long a pong may take. Ours; the same library allows 20 s.
const PONG_WITHIN: Duration = Duration::from_secs(15);

/// Settings the provider's pages and SDKs suggest.
pub fn default_settings() -> Settings {
    Settings {
        provider: Provider::Tweetstream,
        base: None,
        credentials: Credentials::default(),
        auth: Auth::Subprotocol,
        reconnect_floor: Duration::ZERO,
        reconnect_cap: REDIAL_CAP,
        slow_retry: SLOW_RETRY,
        auto_reconnect: true,
        ping_every: PING_EVERY,
        pong_within: PONG_WITHIN,
        topics: Vec::new(),
        direct_messages: false,
        framing: Framing::Sse,
        answer_auth_ping: false,
        scopes_every: crate::provider::SCOPES_EVERY,
        seed: 0,
    }
}

/// The account that an envelope is about.
pub fn account_of(envelope: &[u8]) -> Option<String> {
    fields::handle_of(envelope).map(|handle| watchlist::normalized(&handle)).filter(|handle| !handle.is_empty())
}

/// The scope of all tracked accounts.
pub const WATCHLIST: &str = lists::WATCHLIST;

/// Subprotocol that names the protocol's version.
///
/// Documented: tweetstream.io docs, "WebSocket quickstart".
const SUBPROTOCOL: &str = "tweetstream.v1";

/// Prefix of the subprotocol that carries the key.
///
/// Documented: tweetstream.io docs, "WebSocket quickstart"; both SDKs offer it first, the docs second.
const TOKEN_SUBPROTOCOL: &str = "tweetstream.auth.token.";

/// Query parameter that may carry the key. Documented: the same page, later text.
const KEY_PARAMETER: &str = "apiKey";
