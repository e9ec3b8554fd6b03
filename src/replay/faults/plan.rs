//! Who misbehaves when: state without I/O or a clock.
//!
//! Chance is a hash of seed, fault, provider, attempt and message: it depends on no order in which tasks run, and
//! another fault in the script changes nothing about this one. Only `times` is shared by connections side by side.

use std::collections::HashMap;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::super::player::lock;
use super::check::who;
use super::report::Row;
use super::script::{Effect, Fault, Live, Opening, RestFault, Script, Swallowed};
use crate::model::{EventId, Provider, TweetId, UnixMicros};
use crate::provider::decode;

/// A script at work.
#[derive(Debug)]
pub(in crate::replay) struct Plan {
    script: Script,
    /// The first envelope of all.
    start: UnixMicros,
    state: Mutex<State>,
    /// How often topics of X were asked for on an open stream.
    refreshes: AtomicU64,
    /// The last instant that a provider's connections have seen.
    reached: [AtomicI64; 4],
}

#[derive(Debug)]
struct State {
    fired: Vec<u64>,
    attempts: [u64; 4],
    /// Requests that a fault of history was asked about, by fault and provider.
    requests: HashMap<(usize, Provider), u64>,
    /// The last page of each listing, for `repeat_page`.
    pages: HashMap<String, Value>,
}

/// Listings whose last page is remembered; more than that is nobody's test.
const LISTINGS_MAX: usize = 256;

/// A fault of history that may strike a request, and its roll.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Due {
    pub(super) fault: usize,
    pub(super) does: RestFault,
    pub(super) roll: u64,
}

impl Plan {
    pub(in crate::replay) fn new(script: Script, start: UnixMicros) -> Self {
        let fired = vec![0; script.faults.len()];
        let state = State { fired, attempts: [0; 4], requests: HashMap::new(), pages: HashMap::new() };
        let reached = [const { AtomicI64::new(i64::MIN) }; 4];
        Self { script, start, state: Mutex::new(state), refreshes: AtomicU64::new(0), reached }
    }

    /// Counts an attempt to connect: its number, and what becomes of it unless it goes well.
    pub(in crate::replay) fn attempt(&self, provider: Provider, at: UnixMicros) -> (u64, Option<Opening>) {
        let number = {
            let mut state = lock(&self.state);
            state.attempts[provider as usize] += 1;
            state.attempts[provider as usize]
        };
        let due = self.script.faults.iter().enumerate().find_map(|(idx, fault)| {
            let Effect::Opening(opening) = &fault.effect else { return None };
            let may = who(fault).contains(&provider) && self.is_within(fault, at) && has_attempt(fault, number);
            (may && self.chance(fault, provider, number, 0) && self.fire(idx)).then(|| opening.clone())
        });
        (number, due)
    }

    /// What watches over that connection; `None` when nothing can happen to it.
    pub(in crate::replay) fn watch(self: &Arc<Self>, provider: Provider, attempt: u64) -> Option<Watch> {
        let may = |fault: &Fault| {
            matches!(fault.effect, Effect::Live(_)) && who(fault).contains(&provider) && has_attempt(fault, attempt)
        };
        let faults: Vec<_> = self.script.faults.iter().enumerate().filter(|(_, fault)| may(fault)).map(|(idx, _)| idx).collect();
        // Attempts and requests go by what the connections have reached.
        let is_timed =
            |fault: &Fault| !matches!(fault.effect, Effect::Live(_)) && (fault.when.from.is_some() || fault.when.until.is_some());
        (!faults.is_empty() || self.script.faults.iter().any(is_timed)).then(|| Watch {
            plan: Arc::clone(self),
            provider,
            attempt,
            faults,
            n_messages: 0,
            to_swallow: 0,
            swallow_until: None,
            lapsed_at: None,
        })
    }

    /// Topics were asked for on an open stream of X.
    pub(in crate::replay) fn refreshed(&self) {
        self.refreshes.fetch_add(1, Relaxed);
    }

    /// The last instant that a provider's connections have seen.
    pub(in crate::replay) fn reached(&self, provider: Provider) -> UnixMicros {
        UnixMicros(self.reached[provider as usize].load(Relaxed)).max(self.start)
    }

    pub(in crate::replay) fn report(&self) -> Vec<Row> {
        let state = lock(&self.state);
        let row = |(fault, fired): (&Fault, &u64)| Row {
            name: fault.name.clone(),
            does: fault.does,
            fired: *fired,
            expected: fault.expect,
        };
        self.script.faults.iter().zip(&state.fired).map(row).collect()
    }

    /// Faults of history that may strike a request of that path; each counts when [`fire`](Self::fire) says so.
    pub(super) fn due(&self, provider: Provider, path: &str, at: UnixMicros) -> Vec<Due> {
        let mut due = Vec::new();
        for (idx, fault) in self.script.faults.iter().enumerate() {
            let Effect::Rest(does) = &fault.effect else { continue };
            let on_path = fault.when.path.as_ref().is_none_or(|prefix| path.starts_with(prefix.as_str()));
            if !on_path || !who(fault).contains(&provider) || !self.is_within(fault, at) {
                continue;
            }
            let number = {
                let mut state = lock(&self.state);
                let count = state.requests.entry((idx, provider)).or_insert(0);
                *count += 1;
                *count
            };
            let is_chosen = fault.when.requests.as_ref().is_none_or(|requests| requests.hold(number));
            if is_chosen && self.chance(fault, provider, number, 0) {
                let roll = self.roll(fault, provider, number, 1);
                due.push(Due { fault: idx, does: does.clone(), roll });
            }
        }
        due
    }

    /// Remembers a listing's page and gives the one before, if some fault may want it.
    pub(super) fn turn_page(&self, listing: &str, page: &Value) -> Option<Value> {
        let wanted = self.script.faults.iter().any(|fault| fault.effect == Effect::Rest(RestFault::RepeatPage));
        if !wanted {
            return None;
        }
        let mut state = lock(&self.state);
        if state.pages.len() >= LISTINGS_MAX {
            state.pages.clear();
        }
        state.pages.insert(listing.to_owned(), page.clone())
    }

    /// Whether a fault may fire once more; if so it is counted.
    pub(super) fn fire(&self, fault: usize) -> bool {
        let mut state = lock(&self.state);
        let may = state.fired[fault] < self.script.faults[fault].times;
        state.fired[fault] += u64::from(may);
        may
    }

    fn is_within(&self, fault: &Fault, at: UnixMicros) -> bool {
        let from = fault.when.from.is_none_or(|from| at >= from.given(self.start));
        from && fault.when.until.is_none_or(|until| at < until.given(self.start))
    }

    fn chance(&self, fault: &Fault, provider: Provider, attempt: u64, n: u64) -> bool {
        // 53 bits make a fraction that is exact.
        fault.chance >= 1.0 || (self.roll(fault, provider, attempt, n << 1) >> 11) as f64 / ((1_u64 << 53) as f64) < fault.chance
    }

    fn roll(&self, fault: &Fault, provider: Provider, attempt: u64, n: u64) -> u64 {
        let mut key = fault.name.clone().into_bytes();
        key.push(0);
        key.extend_from_slice(provider.name().as_bytes());
        key.extend_from_slice(&attempt.to_le_bytes());
        key.extend_from_slice(&n.to_le_bytes());
        xxh3_64_with_seed(&key, self.script.seed)
    }
}

fn has_attempt(fault: &Fault, attempt: u64) -> bool {
    fault.when.attempts.as_ref().is_none_or(|attempts| attempts.hold(attempt))
}

/// What to do before an envelope, in order.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Act {
    Do(Live),
    /// Keep it back until so many others have gone before it.
    Hold(u64),
    /// It does not go out at all.
    Skip,
}

/// Watches over one connection.
#[derive(Debug)]
pub(in crate::replay) struct Watch {
    plan: Arc<Plan>,
    provider: Provider,
    attempt: u64,
    faults: Vec<usize>,
    n_messages: u64,
    to_swallow: u64,
    swallow_until: Option<UnixMicros>,
    /// How often topics had been refreshed when the subscription lapsed.
    lapsed_at: Option<u64>,
}

impl Watch {
    /// What happens before the connection's next envelope.
    pub(super) fn before(&mut self, at: UnixMicros, envelope: &[u8]) -> Vec<Act> {
        self.n_messages += 1;
        self.plan.reached[self.provider as usize].fetch_max(at.0, Relaxed);
        let plan = Arc::clone(&self.plan);
        let mut skips = self.is_skipped(at);
        let mut acts = Vec::new();
        for idx in self.faults.clone() {
            let fault = &plan.script.faults[idx];
            let Effect::Live(live) = &fault.effect else { continue };
            let ends = matches!(
                live,
                Live::Close { .. } | Live::Reset | Live::Replaced | Live::ErrorFrame { .. } | Live::Stall { lasts: None, .. }
            );
            // What nobody would notice on an envelope that is left out is kept for the next one.
            if (skips && !ends) || !self.is_due(fault, at, envelope) || !plan.fire(idx) {
                continue;
            }
            match live {
                Live::Reorder { within } => {
                    let roll = plan.roll(fault, self.provider, self.attempt, (self.n_messages << 1) + 1);
                    acts.push(Act::Hold(1 + roll % within));
                }
                Live::Swallow(Swallowed::Count(count)) => {
                    self.to_swallow = count - 1;
                    skips = true;
                }
                Live::Swallow(Swallowed::For(lasts)) => {
                    self.swallow_until = Some(at.plus(*lasts));
                    skips = true;
                }
                Live::Lapse => {
                    self.lapsed_at = Some(plan.refreshes.load(Relaxed));
                    skips = true;
                }
                _ => acts.push(Act::Do(live.clone())),
            }
            if ends {
                return acts;
            }
        }
        if skips {
            acts.push(Act::Skip);
        }
        acts
    }

    fn is_skipped(&mut self, at: UnixMicros) -> bool {
        if self.swallow_until.is_some_and(|until| at >= until) {
            self.swallow_until = None;
        }
        // Elsewhere only a new connection brings the subscription back.
        let is_back = |lapsed_at: u64| self.provider == Provider::XLive && self.plan.refreshes.load(Relaxed) > lapsed_at;
        if self.lapsed_at.is_some_and(is_back) {
            self.lapsed_at = None;
        }
        if self.to_swallow > 0 {
            self.to_swallow -= 1;
            return true;
        }
        self.swallow_until.is_some() || self.lapsed_at.is_some()
    }

    fn is_due(&self, fault: &Fault, at: UnixMicros, envelope: &[u8]) -> bool {
        let when = &fault.when;
        self.plan.is_within(fault, at)
            && when.message.is_none_or(|message| message == self.n_messages)
            && when.tweet.is_none_or(|tweet| holds(self.provider, envelope, tweet))
            && self.plan.chance(fault, self.provider, self.attempt, self.n_messages)
    }
}

/// Whether that post stands in the envelope.
fn holds(provider: Provider, envelope: &[u8], tweet: TweetId) -> bool {
    // Most envelopes do not even hold the digits.
    if memchr::memmem::find(envelope, tweet.to_string().as_bytes()).is_none() {
        return false;
    }
    decode(provider, envelope).events.iter().any(|event| event.id == EventId::Tweet(tweet))
}
