//! What the account listens to: monitors, rules and the ledger of deliveries.
//!
//! Those that select something on the tape are there and active from the beginning, as far as the tape knows them: a
//! monitor's accounts are those it was seen to deliver, a rule's query is not known and empty. What a client makes is
//! kept until the replay ends, and delivers nothing. Bounds: [`RULES_MAX`](super::rules::RULES_MAX) and
//! [`MONITORS_MAX`](super::monitors::MONITORS_MAX) for what clients make, the tape itself for the rest.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::logs::Ledger;
use super::monitors::{self, Monitor};
use super::rules::Rule;
use super::{Failure, broke};
use crate::model::{IntervalSet, UnixMicros};
use crate::provider::past::{Past, Unreadable};
use crate::provider::{Provider, decode};

/// How often one thing may be paused before the ledger stops leaving its pauses out.
const PAUSES_MAX: usize = 1_000;

/// Everything the account listens to.
#[derive(Debug, Default)]
pub(super) struct Stream {
    pub(super) monitors: Vec<Monitor>,
    pub(super) rules: Vec<Rule>,
    pub(super) ledger: Ledger,
    /// Monitors and rules of the tape that were deleted.
    pub(super) deleted: BTreeSet<String>,
    /// Monitors and rules of the tape that were met.
    known: BTreeSet<String>,
    n_made: u64,
}

/// Whether a monitor or rule is at work.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) from_tape: bool,
    word: &'static str,
    since: UnixMicros,
    pauses: IntervalSet,
    n_pauses: usize,
}

impl State {
    pub(super) fn new(from_tape: bool, at: UnixMicros) -> Self {
        Self { from_tape, word: "active", since: at, pauses: IntervalSet::new(), n_pauses: 0 }
    }

    pub(super) fn word(&self) -> &'static str {
        self.word
    }

    pub(super) fn is_active(&self) -> bool {
        self.word == "active"
    }

    pub(super) fn set(&mut self, word: &'static str, at: UnixMicros) {
        let was_active = self.is_active();
        self.word = word;
        if was_active != self.is_active() {
            if self.is_active() && self.n_pauses < PAUSES_MAX {
                self.n_pauses += 1;
                self.pauses.insert(self.since, at);
            }
            self.since = at;
        }
    }

    /// Whether nothing was delivered then.
    pub(super) fn was_silent(&self, at: UnixMicros) -> bool {
        (!self.is_active() && at >= self.since) || self.pauses.contains(at)
    }
}

/// Where a monitor sends to besides the WebSocket. A replay never dials out: the address is only kept, and of the secret
/// (documented: there always is one) nothing.
#[derive(Clone, Debug)]
pub(super) struct Hook {
    pub(super) id: String,
    pub(super) url: String,
    pub(super) created_at: UnixMicros,
}

impl Stream {
    /// Learns what the tape delivered since it was last asked, and by which monitors and rules.
    pub(super) fn catch_up(&mut self, past: &mut Past<'_>) -> Result<(), Unreadable> {
        for (id, envelope) in past.selectors(|id| self.known.contains(id))? {
            self.known.insert(id.clone());
            self.add_from_tape(id, &envelope, past.now());
        }
        let Self { monitors, ledger, .. } = self;
        ledger.catch_up(past, |selector, author| {
            if let Some(monitor) = monitors.iter_mut().find(|monitor| monitor.id == selector) {
                monitor.saw(author);
            }
        })
    }

    fn add_from_tape(&mut self, id: String, envelope: &[u8], now: UnixMicros) {
        let first_at = decode(Provider::Scrapebadger, envelope).provider_at.unwrap_or(now);
        let created_at = first_at.min(now);
        let envelope: Value = serde_json::from_slice(envelope).unwrap_or_default();
        let text = |name: &str| envelope.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        if envelope.get("rule_id").is_some_and(|rule| !rule.is_null() && *rule != json!("")) {
            self.rules.push(Rule::from_tape(id, text("rule_tag"), created_at));
        } else {
            self.monitors.push(Monitor::from_tape(id, text("monitor_name"), created_at));
        }
    }

    /// Monitors and rules of the tape that deliver nothing any more.
    pub(super) fn silent(&self) -> impl Iterator<Item = &str> {
        let monitors = self.monitors.iter().map(|monitor| (&monitor.id, &monitor.state));
        let rules = self.rules.iter().map(|rule| (&rule.id, &rule.state));
        let paused = monitors.chain(rules).filter(|(_, state)| state.from_tape && !state.is_active());
        self.deleted.iter().chain(paused.map(|(id, _)| id)).map(String::as_str)
    }

    /// A name that nothing else has, the same in every replay with the same calls.
    pub(super) fn new_id(&mut self, sort: &str) -> String {
        self.n_made += 1;
        monitors::uuid(&format!("{sort} {}", self.n_made))
    }

    pub(super) fn was_deleted(&mut self, id: String, state: &State) {
        if state.from_tape {
            self.deleted.insert(id);
        }
    }
}

/// Whether an hour can be paid. Documented: the balance is checked when something starts, and again when it is
/// resumed (docs.scrapebadger.com, "Streams"). That running ones are suspended later is not played.
pub(super) fn check_credits(left: Option<u64>, per_hour: f64) -> Result<(), Failure> {
    match left {
        Some(left) if (left as f64) < per_hour => Err(broke(left)),
        _ => Ok(()),
    }
}
