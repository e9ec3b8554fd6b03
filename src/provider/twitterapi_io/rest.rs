//! The fake TwitterAPI.io beside the live connection: who may ask, what it costs, and who answers.
//!
//! | file | answers |
//! | --- | --- |
//! | `history.rs` | `/twitter/…`: searches, timelines, single posts |
//! | `rules.rs` | `/oapi/tweet_filter/…`: filter rules |
//! | `accounts.rs` | `/oapi/x_user_stream/…`: monitored accounts |
//! | `post.rs` | nobody: finds a post in its envelope and reads it |
//!
//! | status | when | source |
//! | --- | --- | --- |
//! | 200 with `status: "error"` | nobody and nothing of that name | docs.twitterapi.io, "Errors" |
//! | 400 `detail` | a parameter is missing or makes no sense, a query can never match | the same |
//! | 401 / 403 | the key is wrong / there is none (not the usual way round) | the same |
//! | 402 | the credits are used up | the same |
//! | 404 / 405 `detail` | no such path / another verb | the same; 405 observed (public client, 2026-09) |
//! | 429 | more requests in a second than the plan allows | "Rate limits"; its text observed |
//! | 500 | the tape cannot be read | – |
//!
//! Rules, accounts and the balance belong to one customer: all keys that are let in share them.

use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::accounts::Accounts;
use super::history;
use super::rules::Rules;
use crate::model::{Provider, Response};
use crate::provider::past::{Past, Unreadable};
use crate::provider::rest::RateLimit;
use crate::provider::{Asked, RestSettings, same_key};

/// What a read costs for each post it gives, and at the least.
///
/// Documented: 15 credits a tweet, 15 for a call that gives none (docs.twitterapi.io, "Pricing").
const CREDITS_PER_TWEET: u64 = 15;

/// What is shown as the balance where it never ends.
const ENDLESS: u64 = 1_000_000_000;

/// History and management.
#[derive(Debug)]
pub struct Rest {
    settings: RestSettings,
    limit: RateLimit,
    /// Credits used so far.
    spent: u64,
    rules: Rules,
    accounts: Accounts,
}

/// What a successful call says and costs.
pub(super) struct Answered {
    pub(super) body: String,
    pub(super) credits: u64,
}

/// Why a call is not answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The request makes no sense.
    Bad(String),
    /// It makes sense, but there is nothing of that name.
    Nothing(String),
    /// The tape cannot be read.
    Broken(String),
    WrongKey,
    NoKey,
    NoCredits,
    NoPath,
    WrongVerb(&'static str),
    TooFast(String),
}

impl From<Unreadable> for Refusal {
    fn from(unreadable: Unreadable) -> Self {
        Self::Broken(unreadable.to_string())
    }
}

impl Refusal {
    fn response(self) -> Response {
        let detail = |status: u16, detail: &str| Response::json(status, json!({ "detail": detail }).to_string());
        let error = |status: u16, error: &str, message: &str| {
            #[derive(Serialize)]
            struct Error<'a> {
                error: &'a str,
                message: &'a str,
            }
            Response::json(status, serde_json::to_string(&Error { error, message }).unwrap_or_default())
        };
        match self {
            Self::Bad(why) => detail(400, &why),
            Self::Nothing(why) => Response::json(200, status_body("error", &why)),
            Self::Broken(why) => {
                tracing::warn!("history cannot be served: {why}");
                detail(500, "Internal Server Error")
            }
            Self::WrongKey => error(401, "Unauthorized", "API key is invalid"),
            Self::NoKey => error(403, "Forbidden", "API key required. Please include x-api-key in the request headers"),
            // Documented: the word says Unauthorized, the status 402, and no space stands before Please.
            Self::NoCredits => error(402, "Unauthorized", "Credits is not enough.Please recharge"),
            Self::NoPath => detail(404, "Not Found"),
            Self::WrongVerb(right) => {
                let mut response = detail(405, "Method Not Allowed");
                response.headers.push(("allow".to_owned(), right.to_owned()));
                response
            }
            Self::TooFast(message) => error(429, "Too Many Requests", &message),
        }
    }
}

/// `{"status":…,"msg":…}`
pub(super) fn status_body(status: &str, msg: &str) -> String {
    #[derive(Serialize)]
    struct Body<'a> {
        status: &'a str,
        msg: &'a str,
    }
    serde_json::to_string(&Body { status, msg }).unwrap_or_default()
}

/// Writes a body of an answer.
pub(super) fn body_of(value: &impl Serialize) -> Result<String, Refusal> {
    serde_json::to_string(value).map_err(|error| Refusal::Broken(error.to_string()))
}

/// What is asked for, by path.
#[derive(Clone, Copy, Debug)]
pub(super) enum Call {
    History(history::Call),
    UserInfo,
    MyInfo,
    Rule(RuleCall),
    Account(AccountCall),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum RuleCall {
    Add,
    Get,
    Update,
    Delete,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum AccountCall {
    Add,
    Remove,
    Get,
}

/// Documented: docs.twitterapi.io, "API reference", and the provider's own agent skill (2026-04).
pub(super) const CALLS: [(&str, &str, Call); 20] = [
    ("/twitter/tweet/advanced_search", "GET", Call::History(history::Call::Search)),
    ("/twitter/tweet/bulk_advanced_search", "POST", Call::History(history::Call::BulkSearch)),
    ("/twitter/user/last_tweets", "GET", Call::History(history::Call::LastTweets)),
    ("/twitter/user/last_tweets/v2", "GET", Call::History(history::Call::LastTweetsV2)),
    ("/twitter/user/tweet_timeline", "GET", Call::History(history::Call::Timeline)),
    ("/twitter/user/mentions", "GET", Call::History(history::Call::Mentions)),
    ("/twitter/tweets", "GET", Call::History(history::Call::Tweets)),
    ("/twitter/tweet/replies", "GET", Call::History(history::Call::Replies)),
    ("/twitter/tweet/replies/v2", "GET", Call::History(history::Call::RepliesV2)),
    ("/twitter/tweet/quotes", "GET", Call::History(history::Call::Quotes)),
    ("/twitter/user/info", "GET", Call::UserInfo),
    ("/oapi/my/info", "GET", Call::MyInfo),
    ("/oapi/tweet_filter/add_rule", "POST", Call::Rule(RuleCall::Add)),
    ("/oapi/tweet_filter/get_rules", "GET", Call::Rule(RuleCall::Get)),
    ("/oapi/tweet_filter/update_rule", "POST", Call::Rule(RuleCall::Update)),
    ("/oapi/tweet_filter/delete_rule", "DELETE", Call::Rule(RuleCall::Delete)),
    ("/oapi/x_user_stream/add_user_to_monitor_tweet", "POST", Call::Account(AccountCall::Add)),
    ("/oapi/x_user_stream/remove_user_to_monitor_tweet", "POST", Call::Account(AccountCall::Remove)),
    ("/oapi/x_user_stream/get_user_to_monitor_tweet", "GET", Call::Account(AccountCall::Get)),
    // Its shape is not documented; it is given the same one.
    ("/oapi/x_user_stream/get_user_monitor_account", "GET", Call::Account(AccountCall::Get)),
];

impl Rest {
    /// Before anybody asked for anything.
    pub fn new(settings: RestSettings) -> Self {
        let (limit, window) = match settings.switches.number(Provider::TwitterapiIo, "plan_qps") {
            // Documented: one request in five seconds for who never paid (docs.twitterapi.io, "Rate limits").
            0 => (1, Duration::from_secs(5)),
            per_second => (usize::try_from(per_second).unwrap_or(usize::MAX), Duration::from_secs(1)),
        };
        let rules = Rules::new(&settings.switches);
        let accounts = Accounts::new(&settings.switches);
        Self { settings, limit: RateLimit::new(limit, window), spent: 0, rules, accounts }
    }

    /// Answers a request.
    pub fn asked(&mut self, asked: &Asked<'_>, past: &mut Past<'_>, now: Instant) -> Response {
        match self.answer(asked, past, now) {
            Ok(answered) => {
                self.spent = self.spent.saturating_add(answered.credits);
                Response::json(200, answered.body)
            }
            Err(refusal) => refusal.response(),
        }
    }

    /// Ids of the rules that were switched off or deleted, or never switched on: the live side owes nothing for them.
    pub fn paused(&self) -> impl Iterator<Item = &str> {
        self.rules.paused()
    }

    fn answer(&mut self, asked: &Asked<'_>, past: &mut Past<'_>, now: Instant) -> Result<Answered, Refusal> {
        let (_, verb, call) = CALLS.iter().find(|(path, ..)| *path == asked.path).ok_or(Refusal::NoPath)?;
        if asked.method != *verb {
            return Err(Refusal::WrongVerb(verb));
        }
        self.admit(asked, now)?;
        let free = |body: String| Answered { body, credits: 0 };
        match call {
            Call::History(_) | Call::UserInfo if self.is_broke() => Err(Refusal::NoCredits),
            Call::History(call) => {
                if matches!(call, history::Call::Search | history::Call::BulkSearch) {
                    self.rules.learn(past)?;
                }
                history::answer(*call, asked, past, &self.rules, &self.settings.switches)
            }
            Call::UserInfo => history::user_info(asked, past),
            Call::MyInfo => Ok(free(self.my_info()?)),
            Call::Rule(call) => {
                self.rules.learn(past)?;
                let at = past.now();
                Ok(free(match call {
                    RuleCall::Add => self.rules.add(&Fields::read(asked)?, at)?,
                    RuleCall::Get => self.rules.list()?,
                    RuleCall::Update => self.rules.update(&Fields::read(asked)?)?,
                    RuleCall::Delete => self.rules.delete(&Fields::read(asked)?)?,
                }))
            }
            Call::Account(call) => {
                self.accounts.learn(past)?;
                Ok(free(match call {
                    AccountCall::Add => self.accounts.add(&Fields::read(asked)?, past)?,
                    AccountCall::Remove => self.accounts.remove(&Fields::read(asked)?)?,
                    AccountCall::Get => self.accounts.list(&Params(asked), past.now())?,
                }))
            }
        }
    }

    fn admit(&mut self, asked: &Asked<'_>, now: Instant) -> Result<(), Refusal> {
        let key = asked.header("x-api-key").map(str::trim).unwrap_or_default();
        if key.is_empty() {
            return Err(Refusal::NoKey);
        }
        if self.settings.key.as_ref().is_some_and(|right| !same_key(right.expose(), key)) {
            return Err(Refusal::WrongKey);
        }
        if self.settings.rate_limits && !self.limit.ask(key, now).allowed {
            return Err(Refusal::TooFast(match self.settings.switches.number(Provider::TwitterapiIo, "plan_qps") {
                // Observed, by several public clients.
                0 => "For free-tier users, the QPS limit is one request every 5 seconds.".to_owned(),
                // What other plans are told is not known.
                n => format!("The QPS limit is {n} requests every second."),
            }));
        }
        Ok(())
    }

    fn is_broke(&self) -> bool {
        self.settings.credits.is_some_and(|credits| self.spent >= credits)
    }

    /// Documented: both names; observed: the balance can fall below zero, as the last call is paid in full.
    fn my_info(&self) -> Result<String, Refusal> {
        let credits = self.settings.credits.unwrap_or(ENDLESS);
        body_of(&json!({ "recharge_credits": i128::from(credits) - i128::from(self.spent), "total_bonus_credits": 0 }))
    }
}

/// What a read that gives so many posts costs.
pub(super) fn price(n_tweets: usize) -> u64 {
    CREDITS_PER_TWEET * (n_tweets as u64).max(1)
}

/// The parameters of a request.
pub(super) struct Params<'a>(pub(super) &'a Asked<'a>);

impl Params<'_> {
    /// A text that is not empty.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.0.query_value(name).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
    }

    /// A text that must be there.
    pub(super) fn required(&self, name: &str) -> Result<String, Refusal> {
        // Documented: these words (docs.twitterapi.io, "Errors").
        self.text(name).ok_or_else(|| Refusal::Bad(format!("{name} is required")))
    }

    /// A whole number.
    pub(super) fn number(&self, name: &str) -> Result<Option<i64>, Refusal> {
        let number = |text: String| text.parse().map_err(|_| Refusal::Bad(format!("{name} must be a whole number")));
        self.text(name).map(number).transpose()
    }

    /// Yes or no.
    pub(super) fn flag(&self, name: &str, default: bool) -> Result<bool, Refusal> {
        match self.text(name).map(|text| text.to_ascii_lowercase()).as_deref() {
            None => Ok(default),
            Some("true" | "1") => Ok(true),
            Some("false" | "0") => Ok(false),
            Some(_) => Err(Refusal::Bad(format!("{name} must be true or false"))),
        }
    }
}

/// The fields of a request's JSON body.
pub(super) struct Fields(Map<String, Value>);

impl Fields {
    pub(super) fn read(asked: &Asked<'_>) -> Result<Self, Refusal> {
        match serde_json::from_slice(asked.body) {
            Ok(Value::Object(fields)) => Ok(Self(fields)),
            _ => Err(Refusal::Bad("the body must be a JSON object".to_owned())),
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    /// A text that must be there.
    pub(super) fn required(&self, name: &str) -> Result<&str, Refusal> {
        match self.get(name) {
            Some(Value::String(text)) if !text.trim().is_empty() => Ok(text.trim()),
            None | Some(Value::String(_)) => Err(Refusal::Bad(format!("{name} is required"))),
            Some(_) => Err(Refusal::Bad(format!("{name} must be a text"))),
        }
    }
}
