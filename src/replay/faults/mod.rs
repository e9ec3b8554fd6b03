//! Fault scripts: a fake provider that misbehaves on purpose, by a plan that can be repeated.
//!
//! Owns the script's words, what of it can never fire, when each fault has its chance, and the count at the end.
//! What a provider's pages and refusals look like is `provider::tamper`'s affair. A connection that no fault can
//! touch does not come here at all.
//!
//! | file | holds |
//! | --- | --- |
//! | `script.rs` | [`Script`]: reading |
//! | `check.rs` | what can never fire |
//! | `plan.rs` | who misbehaves when; state without I/O |
//! | `line.rs` | what it looks like on an open connection |
//! | `rest.rs` | what it looks like in history and management |
//! | `report.rs` | [`Row`]: fired and expected |
//!
//! # The format
//!
//! ```toml
//! seed = 7                          # what chance begins with; 1 when left out
//!
//! [[fault]]
//! name = "deploy"                   # for the report; `close 1` and so on when left out
//! provider = "tweetstream"          # or a list; left out: everybody it can happen to
//! do = "close"                      # the fault
//! code = 1012                       # … and its own keys
//! reason = "service restart"
//! after = "10s"                     # from that much recorded time after the first envelope of all on; or `at`, an instant
//! until = "5m"                      # up to then (not included), measured alike, or an instant
//! messages = 100                    # only before the 100th envelope of a connection
//! attempt = 2                       # only on that attempt to connect at the provider: a number, a list, "2.." or "2..5"
//! tweet = "2064689031777615872"     # only before an envelope with that post
//! chance = 0.01                     # of each opportunity; 1 when left out
//! times = 1                         # how often at most over the whole run (1 when left out), or "always"
//! expect = 1                        # how often at least (1 when left out); 0: it may stay away
//! ```
//!
//! On an open connection an opportunity is an envelope about to be sent, and its own `received_at` is the time that
//! `after`, `at` and `until` are about; so a run does not depend on how fast it is played. `for` and `by` are real
//! time, because they are about a client's patience; only the `for` of `swallow` is recorded time.
//!
//! | `do`, on an open connection | keys | what the client sees |
//! | --- | --- | --- |
//! | `close` | `code` (1000), `reason` | a close frame; X's stream ends in order |
//! | `reset` | | a TCP reset; X's stream breaks off |
//! | `stall` | `for`, `client` = `ignored` or `unread` | nothing more, not even pongs. Without `for` that is the end, and envelopes are lost; its bytes are read and ignored, or not even read. With `for` everything comes later |
//! | `delay` | `by` | this envelope and all behind it later; keepalives go on |
//! | `duplicate` | | the envelope twice |
//! | `reorder` | `within` (1) | the envelope after 1 to `within` later ones, or after a second of silence |
//! | `swallow` | `count` (1) or `for` | these envelopes are missing; history has them |
//! | `garbage` | `kind` = `json`, `utf8`, `frame`, `binary`; `bytes` (64) | before the envelope: broken JSON, text that is not UTF-8, a frame of a reserved kind, binary noise |
//! | `oversize` | `bytes` | before the envelope: one message of that length |
//! | `drip` | `bytes_per_second`, `for` | envelopes in small pieces |
//! | `replaced` | | TwitterAPI.io: the `replaced` event and close code 4001 |
//! | `lapse` | | no more envelopes while keepalives go on; a new connection gets them, X's also after topics were refreshed |
//! | `error_frame` | `code` (4001) or 4003 | ScrapeBadger: an error frame and the close code |
//!
//! | `do`, on an attempt to connect | keys | what the client sees |
//! | --- | --- | --- |
//! | `refuse` | `status`, `retry_after`, `body` | that status, in the provider's words unless `body` is given |
//! | `bad_handshake` | `kind` = `accept`, `subprotocol`, `http10`, `page`, `garbage` | 101 with a wrong accept value, a subprotocol nobody offered, HTTP/1.0; a web page; bytes that are no HTTP |
//! | `hang` | `for` | no answer; after `for` the connection is closed |
//! | `drop` | | the connection is closed without an answer |
//!
//! | `do`, in history and management | keys | what the client sees |
//! | --- | --- | --- |
//! | `status` | `status`, `retry_after`, `body` | that status instead of the answer |
//! | `truncate` | | half of the body, and then the end of the connection |
//! | `not_json` | | status 200 and a proxy's web page |
//! | `slow` | `by` | the answer later |
//! | `repeat_page` | | the rows of the page before |
//! | `cursor_loop` | | the cursor that was asked with as the next one |
//! | `missing_row`, `duplicate_row` | `row`, else by chance | a row less, a row twice |
//! | `lying_next` | | no rows, and the claim that there are more |
//! | `shuffle` | | the rows in another order |
//!
//! There `path` (how it begins) and `request` (like `attempt`, counted per fault and provider) choose the requests.
//! A fault that cannot be applied to an answer, such as a missing row of an empty page, waits for the next one.

mod check;
mod line;
mod plan;
mod report;
mod rest;
mod script;
#[cfg(test)]
mod tests;

pub(super) use self::check::{Known, Lane, against};
pub(super) use self::line::{Line, play};
pub(super) use self::plan::{Plan, Watch};
pub use self::report::Row;
pub use self::script::Script;
pub(super) use self::script::{Handshake, Opening};

/// Why a script cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}{}: {what}", fault.as_ref().map(|name| format!(", fault `{name}`")).unwrap_or_default())]
pub struct ScriptError {
    /// The script's file.
    pub file: String,
    /// The fault's name, or its number.
    pub fault: Option<String>,
    /// What is wrong.
    pub what: String,
    /// What can be done.
    pub cure: String,
}

impl ScriptError {
    fn new(file: &str, fault: Option<&str>, what: String, cure: &str) -> Self {
        Self { file: file.to_owned(), fault: fault.map(str::to_owned), what, cure: cure.to_owned() }
    }
}
