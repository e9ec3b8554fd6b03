//! ScrapeBadger's lists of what selects: monitors, then filter rules, in numbered pages.
//!
//! A scope's id is the monitor's or the rule's id, which deliveries carry. Paused and suspended ones select nothing.
//! Source: docs.scrapebadger.com, "Streams", and the OpenAPI text of August 2026.

use serde_json::Value;

use super::walk::HOST;
use crate::model::Request;
use crate::provider::lists::{Listed, Place};
use crate::provider::sweep::get;
use crate::provider::{Scope, Settings};

pub(super) const MONITORS: &str = "/v1/twitter/stream/monitors";
pub(super) const RULES: &str = "/v1/twitter/stream/filter-rules";

/// What a monitor's text begins with: `accounts: a b`, and sorts of posts in brackets where it delivers only those.
const ACCOUNTS: &str = "accounts: ";

/// Rows of a page. Documented: at most 100.
const PAGE: u64 = 100;

/// Asks for a page of a list.
pub(crate) fn ask(settings: &Settings, place: Place) -> Request {
    let path = if place.list == 0 { MONITORS } else { RULES };
    get(settings, HOST, path, &[("page", &place.page.to_string()), ("page_size", &PAGE.to_string())])
}

/// Reads a page; `None` if it is none, or has fewer rows than it must.
pub(crate) fn take(place: Place, answer: &Value) -> Option<Listed> {
    let Place { list, page } = place;
    let rows = answer[if list == 0 { "monitors" } else { "rules" }].as_array()?;
    let total = answer["total"].as_u64().unwrap_or(rows.len() as u64);
    let before = (page - 1) * PAGE;
    if (rows.len() as u64) < total.saturating_sub(before).min(PAGE) {
        return None;
    }
    let next = match before + PAGE < total {
        true => Some(Place { list, page: page + 1 }),
        false => (list == 0).then_some(Place { list: 1, page: 1 }),
    };
    let is_on = |row: &&Value| row["status"].as_str().is_none_or(|status| status == "active");
    let scope = if list == 0 { monitor } else { rule };
    // A row without an id names nothing that deliveries could.
    Some(Listed { scopes: rows.iter().filter(is_on).filter_map(scope).collect(), next })
}

fn monitor(row: &Value) -> Option<Scope> {
    let texts = |name: &str| row[name].as_array().map(Vec::as_slice).unwrap_or_default().iter().filter_map(Value::as_str);
    let accounts: Vec<_> = texts("usernames").map(|handle| handle.trim_start_matches('@')).collect();
    let kinds: Vec<_> = texts("filter_types").collect();
    let only = if kinds.is_empty() { String::new() } else { format!(" ({})", kinds.join(" ")) };
    let text = (!accounts.is_empty()).then(|| format!("{ACCOUNTS}{}{only}", accounts.join(" ")));
    let detail = format!("monitor {}", row["name"].as_str().unwrap_or_default());
    Some(Scope { id: row["id"].as_str()?.to_owned(), text, detail })
}

/// The accounts of a monitor's text; `None` if it is no monitor's.
pub(super) fn accounts_of(text: &str) -> Option<impl Iterator<Item = &str>> {
    let accounts = text.strip_prefix(ACCOUNTS)?;
    Some(accounts.split(" (").next().unwrap_or_default().split_whitespace())
}

fn rule(row: &Value) -> Option<Scope> {
    let text = row["query"].as_str().map(str::trim).filter(|query| !query.is_empty()).map(str::to_owned);
    let detail = format!("filter rule {}", row["tag"].as_str().unwrap_or_default());
    Some(Scope { id: row["id"].as_str()?.to_owned(), text, detail })
}
