//! The fake TwitterAPI.io's filter rules: those of the tape, and those somebody adds.
//!
//! A rule of the tape is there from the beginning and active. What a rule is set to changes nothing about history; the
//! live side asks [`Rules::paused`] which ones it owes nothing. Polls of active rules are not charged here.
//!
//! Source of bodies and limits: docs.twitterapi.io, "API reference" (seen 2025-12), fields `is_effect`, `is_delete` and
//! `created_at` of a row from the provider's own agent skill (2026-04), `cost_credit` observed to be always 0.

use std::collections::HashSet;
use std::ops::Range;

use serde::Serialize;
use serde_json::{Number, Value};
use xxhash_rust::xxh3::xxh3_128;

use super::rest::{Fields, Refusal, body_of, status_body};
use crate::model::{Provider, UnixMicros};
use crate::provider::past::Past;
use crate::provider::search::Query;
use crate::provider::{Switches, decode};

/// Documented: longest tag and longest value, in characters.
const TEXT_MAX: usize = 255;

/// Documented: longest interval of a rule, in seconds.
const INTERVAL_MAX: f64 = 86_400.0;

/// What a rule of the tape is said to be polled at; its true interval stands nowhere.
const TAPE_INTERVAL: u64 = 100;

/// All rules, in the order they became known.
#[derive(Debug)]
pub(super) struct Rules {
    rules: Vec<Rule>,
    known: HashSet<String>,
    /// Ids of the tape's rules with the bare text they had there.
    recorded: Vec<(String, String)>,
    added: u64,
    /// Shortest intervals to add and to update with, in seconds.
    interval_min: (f64, f64),
    /// What a rule that is added without an interval gets, where that is allowed.
    interval_default: Option<u64>,
}

/// A row of the list.
#[derive(Debug, Serialize)]
struct Rule {
    rule_id: String,
    tag: String,
    value: String,
    interval_seconds: Number,
    is_effect: u8,
    is_delete: u8,
    created_at: String,
    cost_credit: u8,
}

impl Rules {
    pub(super) fn new(switches: &Switches) -> Self {
        let (interval_min, interval_default) = match switches.word(Provider::TwitterapiIo, "rule_interval") {
            "0.1" => ((0.1, 0.1), None),
            "0.05" => ((0.05, 0.05), Some(60)),
            _ => ((100.0, 0.1), None),
        };
        Self { rules: Vec::new(), known: HashSet::new(), recorded: Vec::new(), added: 0, interval_min, interval_default }
    }

    /// Takes in the rules of the tape that are not known yet.
    pub(super) fn learn(&mut self, past: &mut Past<'_>) -> Result<(), Refusal> {
        for (rule_id, envelope) in past.selectors(|name| self.known.contains(name))? {
            self.known.insert(rule_id.clone());
            let said: Value = serde_json::from_slice(&envelope).unwrap_or_default();
            let text = |name: &str| said[name].as_str().unwrap_or_default().to_owned();
            self.recorded.push((rule_id.clone(), bare(&text("rule_value"))));
            let at = decode(Provider::TwitterapiIo, &envelope).provider_at.unwrap_or_else(|| past.now());
            self.rules.push(Rule {
                tag: text("rule_tag"),
                value: text("rule_value"),
                interval_seconds: TAPE_INTERVAL.into(),
                is_effect: 1,
                is_delete: 0,
                created_at: at.to_string(),
                cost_credit: 0,
                rule_id,
            });
        }
        Ok(())
    }

    /// Ids of the posts that rules of exactly this text have brought: the provider found that they match, whatever we
    /// would find.
    pub(super) fn brought(&self, query: &str, span: &Range<UnixMicros>, past: &Past<'_>) -> HashSet<u64> {
        let query = bare(query);
        let same = self.recorded.iter().filter(|(_, text)| *text == query);
        same.flat_map(|(rule_id, _)| past.selected_by(rule_id, span.clone())).collect()
    }

    /// Ids of rules that are not active.
    pub(super) fn paused(&self) -> impl Iterator<Item = &str> {
        self.rules.iter().filter(|rule| rule.is_effect == 0 || rule.is_delete == 1).map(|rule| rule.rule_id.as_str())
    }

    /// Documented: a new rule is not active until it is updated.
    pub(super) fn add(&mut self, fields: &Fields, at: UnixMicros) -> Result<String, Refusal> {
        #[derive(Serialize)]
        struct Added<'a> {
            rule_id: &'a str,
            status: &'a str,
            msg: &'a str,
        }
        let (tag, value) = texts(fields)?;
        let interval_seconds = match (fields.get("interval_seconds"), self.interval_default) {
            (None, Some(default)) => default.into(),
            _ => interval(fields, self.interval_min.0)?,
        };
        self.added += 1;
        let rule_id = format!("{:032x}", xxh3_128(format!("{} {tag} {value}", self.added).as_bytes()));
        let body = body_of(&Added { rule_id: &rule_id, status: "success", msg: "rule added" })?;
        self.known.insert(rule_id.clone());
        let created_at = at.to_string();
        self.rules.push(Rule { rule_id, tag, value, interval_seconds, is_effect: 0, is_delete: 0, created_at, cost_credit: 0 });
        Ok(body)
    }

    pub(super) fn list(&self) -> Result<String, Refusal> {
        #[derive(Serialize)]
        struct List<'a> {
            rules: Vec<&'a Rule>,
            status: &'a str,
            msg: &'a str,
        }
        let rules = self.rules.iter().filter(|rule| rule.is_delete == 0).collect();
        body_of(&List { rules, status: "success", msg: "success" })
    }

    /// Documented: every field must be sent, whatever changes.
    pub(super) fn update(&mut self, fields: &Fields) -> Result<String, Refusal> {
        let interval_min = self.interval_min.1;
        let rule_id = fields.required("rule_id")?;
        let (tag, value) = texts(fields)?;
        let interval_seconds = interval(fields, interval_min)?;
        let is_effect = match fields.get("is_effect").map(Value::as_u64) {
            Some(Some(0)) => 0,
            Some(Some(1)) => 1,
            // Documented: the default is 0.
            None => 0,
            _ => return Err(Refusal::Bad("is_effect must be 0 or 1".to_owned())),
        };
        let rule = self.find(rule_id)?;
        (rule.tag, rule.value, rule.interval_seconds, rule.is_effect) = (tag, value, interval_seconds, is_effect);
        Ok(status_body("success", "rule updated"))
    }

    pub(super) fn delete(&mut self, fields: &Fields) -> Result<String, Refusal> {
        self.find(fields.required("rule_id")?)?.is_delete = 1;
        Ok(status_body("success", "rule deleted"))
    }

    fn find(&mut self, rule_id: &str) -> Result<&mut Rule, Refusal> {
        let rule = self.rules.iter_mut().find(|rule| rule.rule_id == rule_id && rule.is_delete == 0);
        rule.ok_or_else(|| Refusal::Nothing("rule not found".to_owned()))
    }
}

/// Tag and value; documented: a value the search refuses is refused here, too.
fn texts(fields: &Fields) -> Result<(String, String), Refusal> {
    let short = |name: &str| match fields.required(name)? {
        text if text.chars().count() > TEXT_MAX => Err(Refusal::Bad(format!("{name} must have at most {TEXT_MAX} characters"))),
        text => Ok(text.to_owned()),
    };
    let (tag, value) = (short("tag")?, short("value")?);
    Query::parse(&value).map_err(|error| Refusal::Bad(format!("value is no search: {error}")))?;
    Ok((tag, value))
}

fn interval(fields: &Fields, min: f64) -> Result<Number, Refusal> {
    match fields.get("interval_seconds") {
        None => Err(Refusal::Bad("interval_seconds is required".to_owned())),
        Some(Value::Number(n)) if n.as_f64().is_some_and(|n| (min..=INTERVAL_MAX).contains(&n)) => Ok(n.clone()),
        Some(_) => Err(Refusal::Bad(format!("interval_seconds must be a number from {min} to {INTERVAL_MAX}"))),
    }
}

/// A search without its limits of time and id, in single spaces.
fn bare(query: &str) -> String {
    const LIMITS: [&str; 5] = ["since_time:", "until_time:", "since_id:", "max_id:", "include:nativeretweets"];
    let words = query.split_whitespace().filter(|word| !LIMITS.iter().any(|limit| word.starts_with(limit)));
    let text = words.collect::<Vec<_>>().join(" ");
    let inside = text.strip_prefix('(').and_then(|text| text.strip_suffix(')'));
    // Only a pair that encloses all of it.
    let encloses = |inside: &str| {
        let mut depth = 0_i32;
        inside.chars().all(|c| {
            depth += i32::from(c == '(') - i32::from(c == ')');
            depth >= 0
        })
    };
    inside.filter(|inside| encloses(inside)).map_or_else(|| text.clone(), |inside| inside.trim().to_owned())
}
