//! Account monitors and their webhooks.

use serde_json::{Value, json};

use super::fields::{Body, Change, Params};
use super::stream::{Hook, State, Stream, check_credits};
use super::{Failure, Outcome, Reply};
use crate::model::UnixMicros;
use crate::provider::{Asked, key_digest};

/// Monitors that clients can make; the provider names no number, this one is ours.
pub(super) const MONITORS_MAX: usize = 100;

/// Accounts of one monitor. Documented: 100 (docs.scrapebadger.com, "Streams").
const ACCOUNTS_MAX: usize = 100;

/// How often accounts are polled. Documented: 100 ms for all; the vendor's packages want it said for each.
const POLL_SECONDS: f64 = 0.1;

/// Credits for an account and a day, by the number of accounts. Documented: "Pricing" of streams.
const TIERS: [(usize, u64, &str); 4] = [
    (10, 1_667, "1-10 accounts"),
    (50, 1_333, "11-50 accounts"),
    (100, 1_000, "51-100 accounts"),
    (usize::MAX, 833, "101+ accounts"),
];

const KINDS: [&str; 4] = ["original", "reply", "retweet", "quote"];

/// Accounts whose posts are delivered.
#[derive(Debug)]
pub(super) struct Monitor {
    pub(super) id: String,
    pub(super) name: String,
    usernames: Vec<String>,
    /// Whether a client said which accounts; then the tape's do not count.
    accounts_given: bool,
    pub(super) state: State,
    hook: Option<Hook>,
    filter_types: Option<Vec<&'static str>>,
    poll_seconds: f64,
    created_at: UnixMicros,
    updated_at: UnixMicros,
}

impl Monitor {
    pub(super) fn from_tape(id: String, name: Option<&str>, at: UnixMicros) -> Self {
        Self {
            name: name.map_or_else(|| format!("monitor {id}"), str::to_owned),
            id,
            usernames: Vec::new(),
            accounts_given: false,
            state: State::new(true, at),
            hook: None,
            filter_types: None,
            poll_seconds: POLL_SECONDS,
            created_at: at,
            updated_at: at,
        }
    }

    /// It delivered a post of that author.
    pub(super) fn saw(&mut self, author: &str) {
        let is_new = !author.is_empty() && !self.usernames.iter().any(|known| known == author);
        if is_new && !self.accounts_given && self.usernames.len() < ACCOUNTS_MAX {
            self.usernames.push(author.to_owned());
        }
    }

    fn tier(n_accounts: usize) -> (u64, &'static str) {
        let tier = TIERS.iter().find(|(up_to, ..)| n_accounts <= *up_to);
        tier.map_or((0, ""), |(_, credits, label)| (*credits, label))
    }

    fn per_day(n_accounts: usize) -> u64 {
        Self::tier(n_accounts).0 * n_accounts as u64
    }

    fn per_hour(n_accounts: usize) -> f64 {
        Self::per_day(n_accounts) as f64 / 24.0
    }

    /// The fields of the OpenAPI text, and those the vendor's packages cannot do without.
    fn show(&self) -> Value {
        let n = self.usernames.len();
        let (per_account, tier) = Self::tier(n);
        json!({
            "id": self.id,
            "name": self.name,
            "usernames": self.usernames,
            "status": self.state.word(),
            "status_reason": null,
            "webhook_url": self.hook.as_ref().map(|hook| &hook.url),
            "webhook_secret_set": self.hook.is_some(),
            "filter_types": self.filter_types,
            "poll_interval_seconds": self.poll_seconds,
            "credits_per_account_per_day": per_account,
            "estimated_credits_per_day": Self::per_day(n),
            "estimated_credits_per_hour": Self::per_hour(n),
            "pricing_tier": tier,
            "created_at": self.created_at.to_string(),
            "updated_at": self.updated_at.to_string(),
        })
    }

    fn show_hook(&self, hook: &Hook) -> Value {
        json!({
            "id": hook.id,
            "monitor_id": self.id,
            "monitor_name": self.name,
            "url": hook.url,
            "secret_set": true,
            "created_at": hook.created_at.to_string(),
        })
    }
}

/// What a body says about a monitor.
struct Given {
    name: Option<String>,
    usernames: Change<Vec<String>>,
    filter_types: Change<Vec<&'static str>>,
    poll_seconds: Option<f64>,
    url: Change<String>,
}

impl Given {
    fn of(body: &mut Body) -> Self {
        let kind = |text: &str| KINDS.iter().find(|kind| **kind == text).copied();
        let usernames = body.texts("usernames", 1..=ACCOUNTS_MAX, username);
        if usernames == Change::Clear {
            body.complain("list_type", "usernames", "Input should be a valid list");
        }
        body.secret("webhook_secret");
        Self {
            name: body.text("name", 1..=100),
            usernames,
            filter_types: body.texts("filter_types", 0..=KINDS.len(), kind),
            poll_seconds: body.number("poll_interval_seconds", 0.1..=86_400.0),
            url: body.url("webhook_url"),
        }
    }
}

/// An account's name in lower case, without the `@` that the packages let people write.
fn username(text: &str) -> Option<String> {
    let name = text.trim().trim_start_matches('@');
    let fits = (1..=15).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    fits.then(|| name.to_ascii_lowercase())
}

impl Stream {
    pub(super) fn create_monitor(&mut self, asked: &Asked<'_>, left: Option<u64>, at: UnixMicros) -> Outcome {
        let mut body = Body::of(asked)?;
        body.need(&["name", "usernames"]);
        let given = Given::of(&mut body);
        body.checked()?;
        let (name, usernames) = (given.name.unwrap_or_default(), given.usernames.given().unwrap_or_default());
        if self.monitors.iter().any(|other| other.name == name) {
            return Err(taken(&name));
        }
        if self.monitors.iter().filter(|monitor| !monitor.state.from_tape).count() >= MONITORS_MAX {
            return Err(Failure::words(403, format!("Monitor limit of {MONITORS_MAX} reached")));
        }
        check_credits(left, Monitor::per_hour(usernames.len()))?;
        let mut monitor = Monitor {
            id: self.new_id("monitor"),
            name,
            usernames,
            accounts_given: true,
            state: State::new(false, at),
            hook: None,
            filter_types: given.filter_types.given(),
            poll_seconds: given.poll_seconds.unwrap_or(POLL_SECONDS),
            created_at: at,
            updated_at: at,
        };
        self.hook_on(&mut monitor, given.url, at);
        let shown = monitor.show();
        self.monitors.push(monitor);
        Ok(Reply::created(shown))
    }

    pub(super) fn list_monitors(&self, asked: &Asked<'_>) -> Outcome {
        let mut params = Params::of(asked);
        let window = params.window();
        let status = params.word("status", &["", "active", "paused", "suspended", "error"]);
        params.checked()?;
        let wanted = self.monitors.iter().filter(|monitor| status.is_empty() || monitor.state.word() == status);
        let n_total = wanted.clone().count();
        let rows = wanted.skip(window.offset).take(window.limit).map(Monitor::show).collect();
        Ok(Reply::free(window.around("monitors", rows, n_total)))
    }

    pub(super) fn show_monitor(&self, id: &str) -> Outcome {
        Ok(Reply::free(self.monitors[self.monitor_at(id)?].show()))
    }

    pub(super) fn change_monitor(&mut self, id: &str, asked: &Asked<'_>, left: Option<u64>, now: UnixMicros) -> Outcome {
        let at = self.monitor_at(id)?;
        let mut body = Body::of(asked)?;
        let given = Given::of(&mut body);
        let status = body.word("status", &["active", "paused"]);
        body.checked()?;
        if let Some(name) = &given.name
            && self.monitors.iter().any(|other| other.id != id && other.name == *name)
        {
            return Err(taken(name));
        }
        if status == Some("active") && !self.monitors[at].state.is_active() {
            check_credits(left, Monitor::per_hour(self.monitors[at].usernames.len()))?;
        }
        // Taken out while it changes, so that a new webhook can have a name of the stream's.
        let mut monitor = self.monitors.remove(at);
        if let Some(name) = given.name {
            monitor.name = name;
        }
        if let Change::Set(usernames) = given.usernames {
            (monitor.usernames, monitor.accounts_given) = (usernames, true);
        }
        match given.filter_types {
            Change::Keep => {}
            Change::Clear => monitor.filter_types = None,
            Change::Set(kinds) => monitor.filter_types = Some(kinds),
        }
        if let Some(status) = status {
            monitor.state.set(status, now);
        }
        monitor.poll_seconds = given.poll_seconds.unwrap_or(monitor.poll_seconds);
        monitor.updated_at = now;
        self.hook_on(&mut monitor, given.url, now);
        let shown = monitor.show();
        self.monitors.insert(at, monitor);
        Ok(Reply::free(shown))
    }

    pub(super) fn delete_monitor(&mut self, id: &str) -> Outcome {
        let at = self.monitor_at(id)?;
        let monitor = self.monitors.remove(at);
        self.was_deleted(monitor.id, &monitor.state);
        Ok(Reply::gone())
    }

    pub(super) fn create_webhook(&mut self, asked: &Asked<'_>, now: UnixMicros) -> Outcome {
        let mut body = Body::of(asked)?;
        body.need(&["monitor_id", "url"]);
        let id = body.text("monitor_id", 1..=256);
        let url = body.url("url");
        if url == Change::Clear {
            body.complain("value_error", "url", "Webhook URL must use HTTPS");
        }
        let secret = body.secret("secret");
        body.checked()?;
        let at = self.monitor_at(&id.unwrap_or_default())?;
        if self.monitors[at].hook.is_some() {
            return Err(Failure::words(409, "This monitor already has a webhook"));
        }
        let hook_id = self.new_id("webhook");
        // Documented: without one, the provider makes a secret and tells it this once.
        let secret = secret.unwrap_or_else(|| format!("whsec_{}", uuid(&format!("secret {hook_id}")).replace('-', "")));
        let hook = Hook { id: hook_id, url: url.given().unwrap_or_default(), created_at: now };
        let monitor = &mut self.monitors[at];
        let shown = json!({
            "id": hook.id,
            "monitor_id": monitor.id,
            "url": hook.url,
            "secret": secret,
            "created_at": now.to_string(),
        });
        (monitor.hook, monitor.updated_at) = (Some(hook), now);
        Ok(Reply::created(shown))
    }

    pub(super) fn list_webhooks(&self, asked: &Asked<'_>) -> Outcome {
        let params = Params::of(asked);
        let id = params.text("monitor_id");
        let wanted = self.monitors.iter().filter(|monitor| id.is_none_or(|id| monitor.id == id));
        let hooks: Vec<Value> = wanted.filter_map(|monitor| Some(monitor.show_hook(monitor.hook.as_ref()?))).collect();
        Ok(Reply::free(json!({"total": hooks.len(), "webhooks": hooks})))
    }

    /// Says that it failed: a replay never dials out.
    pub(super) fn test_webhook(&self, asked: &Asked<'_>) -> Outcome {
        let mut body = Body::of(asked)?;
        body.need(&["monitor_id"]);
        let id = body.text("monitor_id", 1..=256);
        body.checked()?;
        if self.monitors[self.monitor_at(&id.unwrap_or_default())?].hook.is_none() {
            return Err(Failure::words(404, "This monitor has no webhook"));
        }
        Ok(Reply::free(json!({
            "success": false,
            "status_code": null,
            "response_time_ms": 0,
            "error": "a replay calls nobody",
        })))
    }

    pub(super) fn delete_webhook(&mut self, id: &str, now: UnixMicros) -> Outcome {
        let with_it = |monitor: &&mut Monitor| monitor.hook.as_ref().is_some_and(|hook| hook.id == id);
        let Some(monitor) = self.monitors.iter_mut().find(with_it) else {
            return Err(Failure::words(404, "Webhook not found"));
        };
        (monitor.hook, monitor.updated_at) = (None, now);
        Ok(Reply::gone())
    }

    fn monitor_at(&self, id: &str) -> Result<usize, Failure> {
        let at = self.monitors.iter().position(|monitor| monitor.id == id);
        at.ok_or_else(|| Failure::words(404, "Monitor not found"))
    }

    /// Changes where a monitor sends to.
    fn hook_on(&mut self, monitor: &mut Monitor, url: Change<String>, now: UnixMicros) {
        match (url, &mut monitor.hook) {
            (Change::Clear, hook) => *hook = None,
            (Change::Set(url), Some(hook)) => hook.url = url,
            (Change::Set(url), hook) => {
                *hook = Some(Hook { id: self.new_id("webhook"), url, created_at: now });
            }
            (Change::Keep, _) => {}
        }
    }
}

fn taken(name: &str) -> Failure {
    Failure::words(409, format!("A monitor named '{name}' already exists"))
}

/// An id in the shape the provider's have, from a text.
pub(super) fn uuid(of: &str) -> String {
    let d = key_digest(of);
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let (a, b, c, e) = (hex(&d[0..4]), hex(&d[4..6]), hex(&d[6..8]), hex(&d[8..14]));
    format!("{a}-{b}-4{}-8{}-{e}", &c[1..], &hex(&d[14..16])[1..])
}
