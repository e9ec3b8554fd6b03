//! The fake ScrapeBadger beside the live connection: history and management.
//!
//! Owns what its REST interface answers at a virtual instant, and the little that management changes. Knows no socket
//! and no clock; one machine serves one replay, and every key that is let in sees the same account.
//!
//! | file | holds |
//! | --- | --- |
//! | `mod.rs` | [`Rest`]: who may ask, how often, at what price; which path is whose |
//! | `fields.rs` | parameters and bodies, checked; the list of what is wrong with them |
//! | `post.rs` | a post in the flat form of this interface, from any of the printed dialects |
//! | `history.rs` | search, timelines, mentions, posts by id, replies, quotes, versions |
//! | `stream.rs` | what monitors and rules have in common, and those that stand on the tape |
//! | `monitors.rs`, `rules.rs` | account monitors with their webhooks; filter rules |
//! | `logs.rs` | what was delivered when, row by row |
//!
//! | call (behind `/v1`) | answer | evidence |
//! | --- | --- | --- |
//! | `/account/me` | what is left to spend, free | docs.scrapebadger.com, OpenAPI |
//! | `/twitter/tweets/advanced_search`, `/twitter/users/{name}/latest_tweets`, `…/mentions` | a page of posts | the same |
//! | `/twitter/tweets/?tweets=`, `/twitter/tweets/tweet/{id}` | posts by id | the same; the second is a bare post in the vendor's packages |
//! | `…/{id}/replies`, `/quotes`, `/edit_history` | what the tape knows of them | the same |
//! | `…/{id}/retweeters` and all other calls | 404: a tape cannot know | – |
//! | `/twitter/stream/monitors`, `/webhooks`, `/filter-rules`, `/filter-rules-pricing` | management | the same; replies have the fields of the OpenAPI text and of the packages |
//! | `/twitter/stream/logs`, `/filter-rules/{id}/logs` | rows from the tape | the same |
//! | `/twitter/stream/billing-logs` | always empty: a replay bills nobody | – |
//!
//! Observed: the vendor's packages (PyPI `scrapebadger` 0.65.1, npm `scrapebadger` 0.11.0) read the replies
//! they have calls for; the first takes any 200 with a filled `error` for a failure, as a query that does not validate
//! has.

mod fields;
mod history;
mod logs;
mod monitors;
mod post;
mod rules;
mod stream;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests;

use std::borrow::Cow;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use self::stream::Stream;
use crate::model::{Provider, Response};
use crate::provider::past::{Past, Unreadable};
use crate::provider::rest::{Allowance, RateLimit};
use crate::provider::{Asked, RestSettings, same_key};

/// The window in which requests are counted.
///
/// Documented: requests in a minute, in a sliding window; calls that fail count (docs.scrapebadger.com, "Rate limits").
const RATE_WINDOW: Duration = Duration::from_secs(60);

/// What an account without end says it has.
const ENDLESS_CREDITS: u64 = 999_999_999;

/// History and management.
#[derive(Debug)]
pub struct Rest {
    settings: RestSettings,
    per_minute: u64,
    rate: RateLimit,
    /// What is left; `None` is without end.
    credits: Option<u64>,
    stream: Stream,
}

/// An answer that is not a failure.
#[derive(Debug)]
struct Reply {
    status: u16,
    /// `null` is no body at all.
    body: Value,
    credits: u64,
}

impl Reply {
    fn free(body: Value) -> Self {
        Self { status: 200, body, credits: 0 }
    }

    /// Documented: one credit for a call and one for each item of its answer; older pages say one for all.
    fn items(body: Value, n_items: usize) -> Self {
        Self { status: 200, body, credits: 1 + n_items as u64 }
    }

    fn created(body: Value) -> Self {
        Self { status: 201, body, credits: 0 }
    }

    fn gone() -> Self {
        Self { status: 204, body: Value::Null, credits: 0 }
    }
}

/// An answer that is one.
#[derive(Debug)]
enum Failure {
    /// Words under the key that the switch `error_key` names, and further fields.
    Words(u16, Cow<'static, str>, Map<String, Value>),
    /// What is wrong with the parameters or the body, thing by thing.
    Invalid(Vec<Value>),
}

impl Failure {
    fn words(status: u16, words: impl Into<Cow<'static, str>>) -> Self {
        Self::Words(status, words.into(), Map::new())
    }
}

impl From<Unreadable> for Failure {
    fn from(unreadable: Unreadable) -> Self {
        tracing::warn!(%unreadable, "a fake history cannot answer");
        Self::words(500, "Internal server error")
    }
}

type Outcome = Result<Reply, Failure>;

impl Rest {
    /// Before anybody asked for anything.
    pub fn new(settings: RestSettings) -> Self {
        let per_minute = settings.switches.number(Provider::Scrapebadger, "tier_per_minute");
        let limit = usize::try_from(per_minute).unwrap_or(usize::MAX);
        let credits = settings.credits;
        Self { settings, per_minute, rate: RateLimit::new(limit, RATE_WINDOW), credits, stream: Stream::default() }
    }

    /// Answers a request.
    pub fn asked(&mut self, asked: &Asked<'_>, past: &mut Past<'_>, now: Instant) -> Response {
        let path: Vec<&str> = asked.path.strip_prefix("/v1/").unwrap_or_default().split('/').collect();
        let methods = methods(&path);
        if !methods.contains(&asked.method) {
            return self.turned_away(methods);
        }
        let Some(key) = self.key_of(asked) else {
            return self.respond(Err(Failure::words(401, "Invalid or missing API key")));
        };
        let allowance = self.settings.rate_limits.then(|| self.rate.ask(&key, now));
        let resets_at = allowance.map_or(0, |allowance| {
            let at = self.settings.resets_at(past, now, allowance.resets_in).0.max(0);
            seconds_up(u128::from(at.unsigned_abs()))
        });
        let outcome = match allowance {
            Some(Allowance { allowed: false, .. }) => Err(self.too_many(resets_at)),
            _ => self.admit().and_then(|()| self.answer(&path, asked, past)),
        };
        let outcome = outcome.and_then(|reply| self.charge(reply));
        let spent = outcome.as_ref().map_or(0, |reply| reply.credits);
        let mut response = self.respond(outcome);
        let mut header = |name: &str, value: u64| response.headers.push((name.to_owned(), value.to_string()));
        header("x-credits-used", spent);
        if let Some(allowance) = allowance {
            header("x-ratelimit-limit", self.per_minute);
            header("x-ratelimit-remaining", allowance.remaining as u64);
            header("x-ratelimit-reset", resets_at);
            if !allowance.allowed {
                header("retry-after", seconds_up(allowance.resets_in.as_micros()).max(1));
            }
        }
        response
    }

    /// Monitors and rules of the tape that are paused or deleted by now: what they select is not to be delivered.
    ///
    /// Those made by a client are not among them: nothing on a tape belongs to them.
    pub fn paused(&self) -> impl Iterator<Item = &str> {
        self.stream.silent()
    }

    /// The key that lets in; the header counts first, as on the live connection.
    fn key_of(&self, asked: &Asked<'_>) -> Option<String> {
        let in_header = asked.header("x-api-key").map(|key| key.trim().to_owned()).filter(|key| !key.is_empty());
        let key = in_header.or_else(|| asked.query_value("api_key")).filter(|key| !key.is_empty())?;
        let right = self.settings.key.as_ref().is_none_or(|right| same_key(right.expose(), &key));
        right.then_some(key)
    }

    /// Documented: a disabled key and one whose scope leaves the call out get 403, the latter in the words of the
    /// vendor's Python package (0.65.1).
    fn admit(&self) -> Result<(), Failure> {
        match self.settings.switches.word(Provider::Scrapebadger, "key") {
            "disabled" => Err(Failure::words(403, "API key is disabled")),
            "out_of_scope" => {
                let mut more = Map::new();
                more.insert("error".to_owned(), json!("insufficient_scope"));
                more.insert("required_scope".to_owned(), json!("twitter"));
                more.insert("allowed_scopes".to_owned(), json!(["web"]));
                Err(Failure::Words(403, Cow::Borrowed("insufficient_scope"), more))
            }
            _ => Ok(()),
        }
    }

    fn answer(&mut self, path: &[&str], asked: &Asked<'_>, past: &mut Past<'_>) -> Outcome {
        match path {
            ["account", "me"] => Ok(Reply::free(self.account())),
            ["twitter", "tweets", "advanced_search"] => history::search(asked, past),
            ["twitter", "tweets"] | ["twitter", "tweets", ""] => history::by_ids(asked, past),
            ["twitter", "tweets", "tweet", id] => history::by_id(id, past),
            ["twitter", "tweets", "tweet", id, "replies"] => history::replies(id, asked, past),
            ["twitter", "tweets", "tweet", id, "quotes"] => history::quotes(id, asked, past),
            ["twitter", "tweets", "tweet", id, "edit_history"] => history::versions(id, past),
            ["twitter", "users", name, "latest_tweets"] => history::timeline(name, asked, past),
            ["twitter", "users", name, "mentions"] => history::mentions(name, asked, past),
            ["twitter", "stream", path @ ..] => self.manage(path, asked, past),
            _ => Err(Failure::words(404, "Not Found")),
        }
    }

    fn manage(&mut self, path: &[&str], asked: &Asked<'_>, past: &mut Past<'_>) -> Outcome {
        self.stream.catch_up(past)?;
        let (stream, left, at) = (&mut self.stream, self.credits, past.now());
        match (path, asked.method) {
            (["monitors"], "POST") => stream.create_monitor(asked, left, at),
            (["monitors"], _) => stream.list_monitors(asked),
            (["monitors", id], "PATCH") => stream.change_monitor(id, asked, left, at),
            (["monitors", id], "DELETE") => stream.delete_monitor(id),
            (["monitors", id], _) => stream.show_monitor(id),
            (["webhooks"], "POST") => stream.create_webhook(asked, at),
            (["webhooks"], _) => stream.list_webhooks(asked),
            (["webhooks", "test"], _) => stream.test_webhook(asked),
            (["webhooks", id], _) => stream.delete_webhook(id, at),
            (["filter-rules"], "POST") => stream.create_rule(asked, left, at),
            (["filter-rules"], _) => stream.list_rules(asked),
            (["filter-rules", "validate"], _) => rules::validate(asked),
            (["filter-rules", id], "PATCH") => stream.change_rule(id, asked, left, at),
            (["filter-rules", id], "DELETE") => stream.delete_rule(id),
            (["filter-rules", id], _) => stream.show_rule(id),
            (["filter-rules", id, "logs"], _) => {
                let words = logs::Words::of(&self.settings.switches);
                self.stream.rule_logs(id, asked, words, past)
            }
            (["filter-rules-pricing"], _) => Ok(Reply::free(rules::pricing())),
            (["logs"], _) => {
                let words = logs::Words::of(&self.settings.switches);
                self.stream.monitor_logs(asked, words, past)
            }
            (["billing-logs"], _) => logs::billing(asked),
            _ => Err(Failure::words(404, "Not Found")),
        }
    }

    fn account(&self) -> Value {
        let left = self.credits.unwrap_or(ENDLESS_CREDITS);
        json!({
            "credits_balance": left,
            "subscription_credits_balance": 0,
            "total_credits_balance": left,
            "tier": tier(self.per_minute),
            "rate_limit_per_minute": self.per_minute,
            "subscription": null,
        })
    }

    /// Takes what a reply costs; what costs more than is left is not given, and failures are free.
    fn charge(&mut self, reply: Reply) -> Outcome {
        let Some(left) = self.credits else { return Ok(reply) };
        let Some(rest) = left.checked_sub(reply.credits) else { return Err(broke(left)) };
        self.credits = Some(rest);
        Ok(reply)
    }

    fn too_many(&self, resets_at: u64) -> Failure {
        let mut more = Map::new();
        more.insert("limit".to_owned(), json!(self.per_minute));
        more.insert("remaining".to_owned(), json!(0));
        more.insert("reset_at".to_owned(), json!(resets_at));
        more.insert("tier".to_owned(), json!(tier(self.per_minute)));
        Failure::Words(429, Cow::Borrowed("Rate limit exceeded"), more)
    }

    /// No such path, or not with that method.
    fn turned_away(&self, methods: &[&str]) -> Response {
        if methods.is_empty() {
            return self.respond(Err(Failure::words(404, "Not Found")));
        }
        let mut response = self.respond(Err(Failure::words(405, "Method Not Allowed")));
        response.headers.push(("allow".to_owned(), methods.join(", ")));
        response
    }

    fn respond(&self, outcome: Outcome) -> Response {
        match outcome {
            Ok(Reply { status, body: Value::Null, .. }) => Response { status, ..Response::default() },
            Ok(Reply { status, body, .. }) => Response::json(status, body.to_string()),
            Err(Failure::Words(status, words, more)) => {
                let key = self.settings.switches.word(Provider::Scrapebadger, "error_key");
                let mut body = Map::new();
                body.insert(key.to_owned(), Value::from(words));
                body.extend(more);
                Response::json(status, Value::Object(body).to_string())
            }
            // The list is the web framework's own; both of the provider's descriptions have it under this key.
            Err(Failure::Invalid(problems)) => Response::json(422, json!({ "detail": problems }).to_string()),
        }
    }
}

/// Too little is left. Documented: 402; the vendor's Node package reads `credits_balance`.
fn broke(left: u64) -> Failure {
    let mut more = Map::new();
    more.insert("credits_balance".to_owned(), json!(left));
    Failure::Words(402, Cow::Borrowed("Insufficient credits"), more)
}

/// What may be done with a path behind `/v1/`; nothing when it is not served.
fn methods(path: &[&str]) -> &'static [&'static str] {
    match path {
        ["account", "me"] => &["GET"],
        ["twitter", "tweets"] | ["twitter", "tweets", "" | "advanced_search"] => &["GET"],
        ["twitter", "tweets", "tweet", _] => &["GET"],
        ["twitter", "tweets", "tweet", _, "replies" | "quotes" | "edit_history"] => &["GET"],
        ["twitter", "users", _, "latest_tweets" | "mentions"] => &["GET"],
        ["twitter", "stream", "webhooks", "test"] | ["twitter", "stream", "filter-rules", "validate"] => &["POST"],
        ["twitter", "stream", "monitors" | "webhooks" | "filter-rules"] => &["GET", "POST"],
        ["twitter", "stream", "monitors" | "filter-rules", _] => &["GET", "PATCH", "DELETE"],
        ["twitter", "stream", "webhooks", _] => &["DELETE"],
        ["twitter", "stream", "filter-rules-pricing" | "logs" | "billing-logs"] => &["GET"],
        ["twitter", "stream", "filter-rules", _, "logs"] => &["GET"],
        _ => &[],
    }
}

/// Documented: free 60, basic 300, pro 1,000, enterprise 5,000 requests in a minute ("Rate limits"); a number between
/// two of them has the name of the lower one.
fn tier(per_minute: u64) -> &'static str {
    match per_minute {
        0..300 => "free",
        300..1_000 => "basic",
        1_000..5_000 => "pro",
        _ => "enterprise",
    }
}

fn seconds_up(micros: u128) -> u64 {
    u64::try_from(micros.div_ceil(1_000_000)).unwrap_or(u64::MAX)
}
