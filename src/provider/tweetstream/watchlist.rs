//! Whom the fake TweetStream tracks.
//!
//! A tape does not say who was on the watchlist, but only tracked accounts are ever heard of: so everybody heard of by
//! now is on it, less who was removed by request, plus who was added. Adding somebody makes no new events.

use std::collections::{BTreeSet, HashSet};
use std::ops::ControlFlow;

use serde::Serialize;
use serde_json::{Value, json};

use super::fields::handle_of;
use super::rest::Refusal;
use crate::model::{EventKind, Response, UnixMicros};
use crate::provider::key_digest;
use crate::provider::past::{Past, Unreadable};

/// Envelopes read at most to hear of new accounts in one request: a bound on how long an answer takes.
const SCAN_MAX: usize = 500_000;

/// Longest name of an account. X allows 15 characters, Truth Social 30.
const HANDLE_MAX: usize = 30;

/// The accounts of the key; handles without `@`, in lower case.
#[derive(Debug)]
pub(super) struct Watchlist {
    limit: Option<u64>,
    tracked: BTreeSet<String>,
    removed: HashSet<String>,
    /// Everything received before was looked through.
    scanned_to: UnixMicros,
    n_requests: u64,
}

/// What is done to the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// `POST /api/add-account`
    Add,
    /// `DELETE /api/remove-account`
    Remove,
}

/// What became of one handle. Documented: SDK types 1.1, `HandleOp`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Outcome {
    input: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    handle: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    normalized_handle: Option<String>,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'static str>,
}

impl Watchlist {
    /// Nobody heard of yet; at most so many may be added.
    pub(super) fn new(limit: Option<u64>) -> Self {
        let (tracked, removed) = (BTreeSet::new(), HashSet::new());
        Self { limit, tracked, removed, scanned_to: UnixMicros(i64::MIN), n_requests: 0 }
    }

    /// How many accounts there may be; `None` is without end.
    pub(super) fn limit(&self) -> Option<u64> {
        self.limit
    }

    /// All tracked handles.
    pub(super) fn handles(&mut self, past: &mut Past<'_>) -> Result<&BTreeSet<String>, Unreadable> {
        self.listen(past)?;
        Ok(&self.tracked)
    }

    /// Whether somebody was taken off the list: the history of such an account is no longer given.
    pub(super) fn is_removed(&self, handle: &str) -> bool {
        self.removed.contains(handle)
    }

    /// Hears of the accounts that came up since it last listened, or will in a little while.
    fn listen(&mut self, past: &mut Past<'_>) -> Result<(), Unreadable> {
        let mut past = past.to_come();
        let (tracked, removed) = (&mut self.tracked, &self.removed);
        let mut left = SCAN_MAX;
        let kinds = [EventKind::Tweet, EventKind::Profile, EventKind::Follow, EventKind::Unfollow];
        past.deliveries(&kinds, self.scanned_to..UnixMicros(i64::MAX), |_, item| {
            let handle = handle_of(&item.envelope).map(|handle| normalized(&handle));
            tracked.extend(handle.filter(|handle| !handle.is_empty() && !removed.contains(handle)));
            left -= 1;
            if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        self.scanned_to = self.scanned_to.max(past.now());
        Ok(())
    }

    /// Adds or removes the handles of a body, `{"accounts": "h"}` or `{"accounts": ["h", …]}`.
    ///
    /// Documented: both forms, an `@` in front is allowed, the states. Source: tweetstream.io docs, "Tracked account
    /// management". Observed: a public consumer takes 207 as done in part. That a request of which nothing succeeds is
    /// 400 is ours.
    pub(super) fn change(&mut self, change: Change, body: &[u8], past: &mut Past<'_>) -> Result<Response, Refusal> {
        let body: Value = serde_json::from_slice(body).map_err(|_| Refusal::bad("the body is not valid JSON"))?;
        let inputs: Vec<&Value> = match body.get("accounts") {
            Some(Value::Array(inputs)) if !inputs.is_empty() => inputs.iter().collect(),
            Some(one @ Value::String(_)) => vec![one],
            _ => return Err(Refusal::bad("accounts must be a handle or a list of handles")),
        };
        self.listen(past)?;
        let mut seen = HashSet::new();
        let results: Vec<Outcome> = inputs.into_iter().map(|input| self.change_one(change, input, &mut seen)).collect();
        let n_failed = results.iter().filter(|outcome| matches!(outcome.state, "invalid_input" | "failed")).count();
        let (status, error) = match n_failed {
            0 => (200, None),
            all if all == results.len() => (400, Some("no account could be changed")),
            _ => (207, None),
        };
        self.n_requests += 1;
        let body = json!({
            "action": if change == Change::Add { "follow" } else { "unfollow" },
            "requestId": request_id(self.n_requests),
            "error": error,
            "results": results,
            "summary": { "total": results.len(), "succeeded": results.len() - n_failed, "failed": n_failed },
        });
        Ok(Response::json(status, body.to_string()))
    }

    fn change_one(&mut self, change: Change, input: &Value, seen: &mut HashSet<String>) -> Outcome {
        let shown = input.as_str().map_or_else(|| input.to_string(), str::to_owned);
        let bare = shown.trim().trim_start_matches('@').to_owned();
        let plain = bare.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !input.is_string() || bare.is_empty() || bare.len() > HANDLE_MAX || !plain {
            let message = Some("not a handle");
            return Outcome { input: shown, handle: None, normalized_handle: None, state: "invalid_input", message };
        }
        let handle = normalized(&bare);
        let (state, message) = match change {
            _ if !seen.insert(handle.clone()) => ("duplicate", None),
            Change::Add => self.add(&handle),
            Change::Remove => (self.remove(&handle), None),
        };
        Outcome { input: shown, handle: Some(format!("@{bare}")), normalized_handle: Some(handle), state, message }
    }

    fn add(&mut self, handle: &str) -> (&'static str, Option<&'static str>) {
        if self.tracked.contains(handle) {
            return ("already_following", None);
        }
        if self.limit.is_some_and(|limit| self.tracked.len() as u64 >= limit) {
            return ("failed", Some("the plan's limit of tracked accounts is reached"));
        }
        self.removed.remove(handle);
        self.tracked.insert(handle.to_owned());
        ("added", None)
    }

    fn remove(&mut self, handle: &str) -> &'static str {
        if !self.tracked.remove(handle) {
            return "not_following";
        }
        self.removed.insert(handle.to_owned());
        "removed"
    }
}

/// A handle as handles are compared: without `@`, in lower case.
pub(super) fn normalized(handle: &str) -> String {
    handle.trim().trim_start_matches('@').to_ascii_lowercase()
}

/// A number in the shape of the UUIDs of the docs; the same for the same request of a run.
fn request_id(n: u64) -> String {
    let digest = key_digest(&format!("request {n}"));
    let hex: String = digest[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-4{}-8{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..32])
}
