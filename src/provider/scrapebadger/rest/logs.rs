//! Delivery logs: what was sent when, and by which monitor or rule.
//!
//! The ledger has one row of about 32 bytes for every delivery on the tape by now, the newest [`ROWS_MAX`] of them,
//! and reads each envelope once to learn its author; a page fetches its own envelopes again. How long the provider
//! keeps rows is not published. What was received while its monitor or rule was paused is not in the logs, nor is
//! anything of a deleted one (documented for monitors).

use std::collections::{HashMap, VecDeque};
use std::ops::ControlFlow;

use serde_json::{Value, json};

use super::fields::{Params, Window};
use super::post::Post;
use super::stream::{State, Stream};
use super::{Failure, Outcome, Reply};
use crate::model::{EventId, EventKind, Provider, UnixMicros};
use crate::provider::past::{Item, Past, Unreadable};
use crate::provider::{Asked, Switches};

/// Rows that are kept; older ones go.
const ROWS_MAX: usize = 1_000_000;

/// Characters of a preview. Documented: about 100.
const PREVIEW: usize = 100;

/// Latencies from which a badge changes, in milliseconds; the provider's own are not published.
const SLOWER_MS: i64 = 1_000;
const SLOW_MS: i64 = 5_000;

/// The words of a row; the vendor's pages and packages disagree.
#[derive(Clone, Copy, Debug)]
pub(super) struct Words {
    delivered: &'static str,
    badges: [&'static str; 3],
}

impl Words {
    pub(super) fn of(switches: &Switches) -> Self {
        match switches.word(Provider::Scrapebadger, "log_words") {
            "guide" => Self { delivered: "delivered", badges: ["fast", "normal", "slow"] },
            _ => Self { delivered: "websocket_delivered", badges: ["green", "yellow", "red"] },
        }
    }

    fn badge(self, latency_ms: i64) -> &'static str {
        match latency_ms {
            ..SLOWER_MS => self.badges[0],
            SLOWER_MS..SLOW_MS => self.badges[1],
            _ => self.badges[2],
        }
    }
}

/// Every delivery by now.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    rows: VecDeque<Row>,
    /// Number of the first delivery that is not noted yet.
    next: u64,
    names: Vec<String>,
    by_name: HashMap<String, u32>,
}

#[derive(Clone, Copy, Debug)]
struct Row {
    number: u64,
    received_at: UnixMicros,
    selector: u32,
    author: u32,
}

impl Ledger {
    /// Notes what came since; `saw` is told selector and author of each.
    pub(super) fn catch_up(&mut self, past: &mut Past<'_>, mut saw: impl FnMut(&str, &str)) -> Result<(), Unreadable> {
        let since = self.rows.back().map_or(UnixMicros(i64::MIN), |row| row.received_at);
        let mut fresh = Vec::new();
        past.deliveries(&[EventKind::Tweet], since..UnixMicros(i64::MAX), |number, item| {
            if number < self.next || fresh.len() == ROWS_MAX {
                return ControlFlow::Break(());
            }
            let author = author(item);
            saw(&item.selector, &author);
            let (selector, author) = (self.name(&item.selector), self.name(&author));
            fresh.push(Row { number, received_at: item.received_at, selector, author });
            ControlFlow::Continue(())
        })?;
        self.next = fresh.first().map_or(self.next, |row| row.number + 1);
        self.rows.extend(fresh.into_iter().rev());
        let n_over = self.rows.len().saturating_sub(ROWS_MAX);
        self.rows.drain(..n_over);
        Ok(())
    }

    fn name(&mut self, name: &str) -> u32 {
        if let Some(at) = self.by_name.get(name) {
            return *at;
        }
        // There are no more names than rows of a tape, and those are counted in 32 bits.
        let at = self.names.len() as u32;
        self.names.push(name.to_owned());
        self.by_name.insert(name.to_owned(), at);
        at
    }

    fn name_at(&self, at: u32) -> &str {
        self.names.get(at as usize).map_or("", String::as_str)
    }
}

fn author(item: &Item) -> String {
    let envelope: Value = serde_json::from_slice(&item.envelope).unwrap_or_default();
    let nested = envelope.get("tweet").and_then(|tweet| tweet.get("username"));
    let name = envelope.get("author_username").or(nested).and_then(Value::as_str).unwrap_or_default();
    name.to_ascii_lowercase()
}

/// What a client wants to see of the ledger.
struct Ask {
    window: Window,
    oldest_first: bool,
    author: Option<String>,
    status: Option<String>,
}

impl Ask {
    fn of(params: &mut Params) -> Self {
        let author = params.text("author_username").map(|name| name.trim_start_matches('@').to_ascii_lowercase());
        Self {
            window: params.window(),
            oldest_first: params.word("sort", &["desc", "asc"]) == "asc",
            author,
            status: params.text("delivery_status").map(str::to_owned),
        }
    }
}

/// Who selected a row, as its columns say it.
struct Selector<'a> {
    id: &'a str,
    name: &'a str,
    state: Option<&'a State>,
    is_rule: bool,
}

impl Stream {
    /// `GET /logs`: what monitors delivered; a delivery that names neither monitor nor rule counts as one of theirs.
    pub(super) fn monitor_logs(&self, asked: &Asked<'_>, words: Words, past: &mut Past<'_>) -> Outcome {
        let mut params = Params::of(asked);
        let ask = Ask::of(&mut params);
        let id = params.text("monitor_id").map(str::to_owned);
        params.checked()?;
        let mut selectors: Vec<Selector<'_>> = self
            .monitors
            .iter()
            .map(|monitor| Selector { id: &monitor.id, name: &monitor.name, state: Some(&monitor.state), is_rule: false })
            .collect();
        selectors.push(Selector { id: "", name: "", state: None, is_rule: false });
        selectors.retain(|selector| id.as_deref().is_none_or(|id| selector.id == id));
        self.log(&ask, &selectors, words, past)
    }

    /// `GET /filter-rules/{id}/logs`
    pub(super) fn rule_logs(&self, id: &str, asked: &Asked<'_>, words: Words, past: &mut Past<'_>) -> Outcome {
        let rule = &self.rules[self.rule_at(id)?];
        let mut params = Params::of(asked);
        let ask = Ask::of(&mut params);
        params.checked()?;
        let selector = Selector { id: &rule.id, name: &rule.tag, state: Some(&rule.state), is_rule: true };
        self.log(&ask, &[selector], words, past)
    }

    fn log(&self, ask: &Ask, selectors: &[Selector<'_>], words: Words, past: &mut Past<'_>) -> Outcome {
        let ledger = &self.ledger;
        let by_number: HashMap<u32, &Selector<'_>> =
            selectors.iter().filter_map(|selector| Some((*ledger.by_name.get(selector.id)?, selector))).collect();
        let now = past.now();
        let wanted = |row: &Row| {
            let selector = by_number.get(&row.selector)?;
            let by_author = ask.author.as_deref().is_none_or(|author| ledger.name_at(row.author) == author);
            let silent = selector.state.is_some_and(|state| state.was_silent(row.received_at));
            (row.received_at <= now && by_author && !silent).then_some((*row, *selector))
        };
        // Everything was delivered on the WebSocket; a filter for anything else finds nothing.
        let any = ask.status.as_deref().is_none_or(|status| status == words.delivered);
        let rows = ledger.rows.iter().take(if any { usize::MAX } else { 0 });
        let found: Vec<(Row, &Selector<'_>)> = rows.filter_map(wanted).collect();
        let n_total = found.len();
        let (offset, limit) = (ask.window.offset, ask.window.limit);
        let page: Vec<_> = if ask.oldest_first {
            found.into_iter().skip(offset).take(limit).collect()
        } else {
            found.into_iter().rev().skip(offset).take(limit).collect()
        };
        let mut shown = Vec::with_capacity(page.len());
        for (row, selector) in page {
            shown.extend(show(row, selector, words, past)?);
        }
        Ok(Reply::free(ask.window.around("logs", shown, n_total)))
    }
}

/// A row with the columns of the OpenAPI text, and those of the packages.
fn show(row: Row, selector: &Selector<'_>, words: Words, past: &mut Past<'_>) -> Result<Option<Value>, Failure> {
    let span = row.received_at..UnixMicros(row.received_at.0.saturating_add(1));
    let mut shown = None;
    past.deliveries(&[EventKind::Tweet], span, |number, item| {
        if number != row.number {
            return ControlFlow::Continue(());
        }
        shown = columns(number, item, selector, words);
        ControlFlow::Break(())
    })?;
    Ok(shown)
}

fn columns(number: u64, item: &Item, selector: &Selector<'_>, words: Words) -> Option<Value> {
    let EventId::Tweet(id) = item.id else { return None };
    let post = Post::of(id, item);
    let envelope: Value = serde_json::from_slice(&item.envelope).unwrap_or_default();
    let author = author(item);
    let detected_at = item.provider_at.unwrap_or(item.received_at);
    let between = detected_at.since(item.published_at).max(0) / 1_000;
    let latency_ms = envelope.get("latency_ms").and_then(Value::as_i64).unwrap_or(between);
    let text = post.text_of("full_text");
    let preview: Option<String> = (!text.is_empty()).then(|| text.chars().take(PREVIEW).collect());
    let url = envelope.get("tweet_url").and_then(Value::as_str);
    let url = url.map_or_else(|| format!("https://x.com/{author}/status/{id}"), str::to_owned);
    let mut row = json!({
        "id": format!("00000000-0000-4000-8000-{number:012x}"),
        "tweet_id": id.to_string(),
        "author_username": author,
        "tweet_text": (!text.is_empty()).then_some(text),
        "tweet_text_preview": preview,
        "tweet_type": envelope.get("tweet_type").and_then(Value::as_str),
        "tweet_url": url,
        "tweet_published_at": item.published_at.to_string(),
        "detected_at": detected_at.to_string(),
        "latency_ms": latency_ms,
        "latency_badge": words.badge(latency_ms),
        "delivery_status": words.delivered,
        "webhook_status_code": null,
        "webhook_attempts": 0,
    });
    let (id_column, name_column) = if selector.is_rule { ("rule_id", "rule_tag") } else { ("monitor_id", "monitor_name") };
    row[id_column] = json!(selector.id);
    row[name_column] = json!(selector.name);
    Some(row)
}

/// `GET /billing-logs`: a replay bills nobody.
pub(super) fn billing(asked: &Asked<'_>) -> Outcome {
    let mut params = Params::of(asked);
    let window = params.window();
    params.checked()?;
    Ok(Reply::free(window.around("logs", Vec::new(), 0)))
}
