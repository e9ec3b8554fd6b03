//! TwitterAPI.io's lists of what selects: filter rules, then monitored accounts.
//!
//! A scope's id is the rule's id, which deliveries carry, or `@handle` of an account, whose deliveries say no selector.
//! Source: docs.twitterapi.io, "API reference" (seen 2025-12); the numbers of a status are observed (public client, 2026).

use serde_json::Value;

use super::walk::HOST;
use crate::model::Request;
use crate::provider::lists::{Listed, Place};
use crate::provider::sweep::get;
use crate::provider::{Scope, Settings};

const RULES: &str = "/oapi/tweet_filter/get_rules";
const ACCOUNTS: &str = "/oapi/x_user_stream/get_user_to_monitor_tweet";

/// Observed: 0 waiting, 1 configuring, 2 active, 3 failed. One that is still configured may deliver already.
const FAILED: u64 = 3;

/// A row of the list of rules.
pub(super) struct Rule {
    pub(super) id: String,
    pub(super) text: String,
    tag: String,
    pub(super) is_on: bool,
}

/// Asks for a list.
pub(crate) fn ask(settings: &Settings, place: Place) -> Request {
    if place.list == 0 { ask_rules(settings) } else { ask_accounts(settings) }
}

pub(super) fn ask_rules(settings: &Settings) -> Request {
    get(settings, HOST, RULES, &[])
}

pub(super) fn ask_accounts(settings: &Settings) -> Request {
    // Documented: 1 is those that are monitored for posts.
    get(settings, HOST, ACCOUNTS, &[("query_type", "1")])
}

/// Reads a list; `None` if it is none.
pub(crate) fn take(place: Place, answer: &Value) -> Option<Listed> {
    if place.list == 0 {
        let rules = rules(answer)?.into_iter().filter(|rule| rule.is_on);
        let scopes = rules.map(|rule| {
            let detail = if rule.tag.is_empty() { "a filter rule".to_owned() } else { format!("filter rule {}", rule.tag) };
            Scope { id: rule.id, text: Some(rule.text), detail }
        });
        return Some(Listed { scopes: scopes.collect(), next: Some(Place { list: 1, page: 1 }) });
    }
    let accounts = if has_no_plan(answer) { Vec::new() } else { accounts(answer)? };
    let scopes = accounts.into_iter().map(|handle| Scope {
        id: format!("@{}", handle.to_ascii_lowercase()),
        text: Some(format!("from:{handle}")),
        detail: "a monitored account".to_owned(),
    });
    Some(Listed { scopes: scopes.collect(), next: None })
}

/// The rules of a list, as far as they have a text.
pub(super) fn rules(answer: &Value) -> Option<Vec<Rule>> {
    let rules = answer["rules"].as_array()?.iter().filter_map(|rule| {
        let text = |name: &str| rule[name].as_str().map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned);
        // Documented: `is_effect` 1 is active; where it is missing the rule is taken for active.
        let is_off = rule["is_effect"].as_u64() == Some(0) || rule["is_delete"].as_u64() == Some(1);
        Some(Rule { id: text("rule_id")?, text: text("value")?, tag: text("tag").unwrap_or_default(), is_on: !is_off })
    });
    Some(rules.collect())
}

/// Handles of a list of accounts that are monitored, or will be at once.
pub(super) fn accounts(answer: &Value) -> Option<Vec<String>> {
    let is_on = |row: &&Value| {
        let status = row["monitor_tweet_config_status"].as_u64();
        row["is_monitor_tweet"].as_u64() != Some(0) && status != Some(FAILED)
    };
    let rows = answer["data"].as_array()?.iter().filter(is_on);
    Some(rows.map(|row| row["x_user_screen_name"].as_str().unwrap_or_default().trim_start_matches('@').to_owned()).collect())
}

/// Documented: these words where there is no plan for accounts (agent skill, 2026-04).
fn has_no_plan(answer: &Value) -> bool {
    answer["status"] == "error" && answer["msg"].as_str().is_some_and(says_no_plan)
}

pub(super) fn says_no_plan(words: &str) -> bool {
    words.contains("No active monitoring subscription")
}
