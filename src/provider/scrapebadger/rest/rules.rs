//! Filter rules.

use serde_json::{Value, json};

use super::fields::{Body, Change, Params};
use super::monitors;
use super::stream::{State, Stream, check_credits};
use super::{Failure, Outcome, Reply};
use crate::model::UnixMicros;
use crate::provider::Asked;
use crate::provider::search::Query;

/// Rules of an account. Documented: 50 for a key (docs.scrapebadger.com, "Streams").
pub(super) const RULES_MAX: usize = 50;

/// How often a rule of the tape is taken to be polled; the tape does not say.
const TAPE_SECONDS: f64 = 60.0;

/// Results of a poll. Documented: 20.
const RESULTS: u64 = 20;

/// Credits for a rule and a day, by how often it is polled. Documented: "Pricing" of streams; the OpenAPI text of
/// August 2026 has prices for each poll instead, without numbers.
const TIERS: [(f64, u64, &str); 5] = [
    (0.5, 30_000, "up to every 0.5 s"),
    (5.0, 10_000, "up to every 5 s"),
    (60.0, 1_500, "up to every minute"),
    (600.0, 500, "up to every 10 minutes"),
    (86_400.0, 100, "up to every day"),
];

/// A search that is repeated.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) id: String,
    pub(super) tag: String,
    query: String,
    interval_seconds: f64,
    max_results: u64,
    pub(super) state: State,
    webhook_url: Option<String>,
    created_at: UnixMicros,
    updated_at: UnixMicros,
}

impl Rule {
    pub(super) fn from_tape(id: String, tag: Option<&str>, at: UnixMicros) -> Self {
        Self {
            tag: tag.map_or_else(|| format!("rule {id}"), str::to_owned),
            id,
            query: String::new(),
            interval_seconds: TAPE_SECONDS,
            max_results: RESULTS,
            state: State::new(true, at),
            webhook_url: None,
            created_at: at,
            updated_at: at,
        }
    }

    fn tier(interval_seconds: f64) -> (u64, &'static str) {
        let tier = TIERS.iter().find(|(up_to, ..)| interval_seconds <= *up_to);
        tier.map_or((0, ""), |(_, credits, label)| (*credits, label))
    }

    fn per_hour(interval_seconds: f64) -> f64 {
        Self::tier(interval_seconds).0 as f64 / 24.0
    }

    /// The fields of the OpenAPI text, and those the vendor's packages read.
    fn show(&self) -> Value {
        let (per_day, tier) = Self::tier(self.interval_seconds);
        json!({
            "id": self.id,
            "tag": self.tag,
            "query": self.query,
            "interval_seconds": self.interval_seconds,
            "max_results_per_poll": self.max_results,
            "status": self.state.word(),
            "status_reason": null,
            "webhook_url": self.webhook_url,
            "webhook_secret_set": self.webhook_url.is_some(),
            "total_credits_burned": 0,
            "credits_per_rule_per_day": per_day,
            "pricing_tier": tier,
            "created_at": self.created_at.to_string(),
            "updated_at": self.updated_at.to_string(),
        })
    }
}

/// What a body says about a rule.
struct Given {
    tag: Option<String>,
    query: Option<String>,
    interval_seconds: Option<f64>,
    max_results: Option<u64>,
    url: Change<String>,
}

impl Given {
    fn of(body: &mut Body) -> Self {
        let query = body.text("query", 1..=1_024);
        if let Some(Err(error)) = query.as_deref().map(Query::parse) {
            body.complain("value_error", "query", &error.to_string());
        }
        body.secret("webhook_secret");
        Self {
            tag: body.text("tag", 1..=100),
            query,
            interval_seconds: body.number("interval_seconds", 0.1..=86_400.0),
            max_results: body.integer("max_results_per_poll", 1..=100),
            url: body.url("webhook_url"),
        }
    }
}

impl Stream {
    pub(super) fn create_rule(&mut self, asked: &Asked<'_>, left: Option<u64>, at: UnixMicros) -> Outcome {
        let mut body = Body::of(asked)?;
        body.need(&["tag", "query", "interval_seconds"]);
        let given = Given::of(&mut body);
        body.checked()?;
        let tag = given.tag.unwrap_or_default();
        if self.rules.iter().any(|other| other.tag == tag) {
            return Err(taken(&tag));
        }
        if self.rules.len() >= RULES_MAX {
            return Err(Failure::words(403, format!("Filter rule limit of {RULES_MAX} reached")));
        }
        let interval_seconds = given.interval_seconds.unwrap_or(TAPE_SECONDS);
        check_credits(left, Rule::per_hour(interval_seconds))?;
        let rule = Rule {
            id: self.new_id("rule"),
            tag,
            query: given.query.unwrap_or_default(),
            interval_seconds,
            max_results: given.max_results.unwrap_or(RESULTS),
            state: State::new(false, at),
            webhook_url: given.url.given(),
            created_at: at,
            updated_at: at,
        };
        let shown = rule.show();
        self.rules.push(rule);
        Ok(Reply::created(shown))
    }

    pub(super) fn list_rules(&self, asked: &Asked<'_>) -> Outcome {
        let mut params = Params::of(asked);
        let window = params.window();
        let status = params.word("status", &["", "active", "paused", "suspended", "error", "inactive"]);
        params.checked()?;
        let wanted = self.rules.iter().filter(|rule| status.is_empty() || rule.state.word() == status);
        let n_total = wanted.clone().count();
        let rows = wanted.skip(window.offset).take(window.limit).map(Rule::show).collect();
        Ok(Reply::free(window.around("rules", rows, n_total)))
    }

    pub(super) fn show_rule(&self, id: &str) -> Outcome {
        Ok(Reply::free(self.rules[self.rule_at(id)?].show()))
    }

    pub(super) fn change_rule(&mut self, id: &str, asked: &Asked<'_>, left: Option<u64>, now: UnixMicros) -> Outcome {
        let at = self.rule_at(id)?;
        let mut body = Body::of(asked)?;
        let given = Given::of(&mut body);
        let status = body.word("status", &["active", "paused", "inactive"]);
        body.checked()?;
        if let Some(tag) = &given.tag
            && self.rules.iter().any(|other| other.id != id && other.tag == *tag)
        {
            return Err(taken(tag));
        }
        let rule = &mut self.rules[at];
        let interval_seconds = given.interval_seconds.unwrap_or(rule.interval_seconds);
        if status == Some("active") && !rule.state.is_active() {
            check_credits(left, Rule::per_hour(interval_seconds))?;
        }
        rule.interval_seconds = interval_seconds;
        rule.max_results = given.max_results.unwrap_or(rule.max_results);
        if let Some(tag) = given.tag {
            rule.tag = tag;
        }
        if let Some(query) = given.query {
            rule.query = query;
        }
        match given.url {
            Change::Keep => {}
            Change::Clear => rule.webhook_url = None,
            Change::Set(url) => rule.webhook_url = Some(url),
        }
        if let Some(status) = status {
            rule.state.set(status, now);
        }
        rule.updated_at = now;
        Ok(Reply::free(rule.show()))
    }

    pub(super) fn delete_rule(&mut self, id: &str) -> Outcome {
        let at = self.rule_at(id)?;
        let rule = self.rules.remove(at);
        self.was_deleted(rule.id, &rule.state);
        Ok(Reply::gone())
    }

    pub(super) fn rule_at(&self, id: &str) -> Result<usize, Failure> {
        let at = self.rules.iter().position(|rule| rule.id == id);
        at.ok_or_else(|| Failure::words(404, "Filter rule not found"))
    }
}

/// `POST /filter-rules/validate`: looks at the form only. The packages read `sample_results` as well.
pub(super) fn validate(asked: &Asked<'_>) -> Outcome {
    let mut body = Body::of(asked)?;
    body.need(&["query"]);
    let query = body.text("query", 1..=1_024);
    body.checked()?;
    let query = query.unwrap_or_default();
    let mut said = json!({"valid": true, "query": query, "sample_results": 0});
    if let Err(error) = Query::parse(&query) {
        said["valid"] = json!(false);
        said["error"] = json!(error.to_string());
    }
    Ok(Reply::free(said))
}

/// Both documented forms: tiers for a day, and prices for each poll (their numbers are those of a search; the
/// provider's own are not published).
pub(super) fn pricing() -> Value {
    let tiers = TIERS.iter().enumerate().map(|(at, (up_to, credits, label))| {
        json!({
            "id": monitors::uuid(&format!("tier {at}")),
            "tier_label": label,
            "max_interval_seconds": up_to,
            "credits_per_rule_per_day": credits,
            "display_order": at + 1,
        })
    });
    json!({"tiers": tiers.collect::<Value>(), "credits_per_empty_call": 1, "credits_per_tweet_returned": 1})
}

fn taken(tag: &str) -> Failure {
    Failure::words(409, format!("A filter rule with tag '{tag}' already exists"))
}
