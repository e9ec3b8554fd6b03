//! The fake TwitterAPI.io's monitored accounts: those of the tape, and those somebody adds.
//!
//! Whoever has a post on the tape that no rule selected was monitored when it was recorded, and is here from when that
//! post exists. Adding and removing changes the list only: the tape has no posts of others.
//!
//! Source of bodies and rows: docs.twitterapi.io, "API reference" (seen 2025-12); what the numbers of a status mean is
//! observed (public client, 2026).

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use xxhash_rust::xxh3::xxh3_64;

use super::history::author_of;
use super::post::{Post, number_of};
use super::rest::{Fields, Params, Refusal, body_of, status_body};
use crate::model::{EventKind, Provider, UnixMicros};
use crate::provider::Switches;
use crate::provider::past::Past;

/// How long it takes until a new account is monitored.
///
/// Documented: up to 20 minutes (twitterapi.io, "Twitter stream", seen 2025-12).
const CONFIGURED_AFTER: Duration = Duration::from_secs(20 * 60);

/// Observed: 0 waiting, 1 configuring, 2 active, 3 failed.
const CONFIGURING: u8 = 1;
const ACTIVE: u8 = 2;

/// All monitored accounts, in the order they became known.
#[derive(Debug)]
pub(super) struct Accounts {
    accounts: Vec<Account>,
    /// Handles in lower case, removed ones included: the tape does not bring those back.
    known: HashSet<String>,
    n_max: u64,
}

#[derive(Debug)]
struct Account {
    id_for_user: String,
    x_user_id: u64,
    name: String,
    handle: String,
    created_at: UnixMicros,
    /// From when it is monitored.
    active_at: UnixMicros,
}

/// A row of the list. Documented: the account's id is a number here, the row's own id a text.
#[derive(Serialize)]
struct Row<'a> {
    id_for_user: &'a str,
    x_user_id: u64,
    x_user_name: &'a str,
    x_user_screen_name: &'a str,
    is_monitor_tweet: u8,
    is_monitor_profile: u8,
    monitor_tweet_config_status: u8,
    monitor_profile_config_status: u8,
    created_at: String,
}

impl Accounts {
    pub(super) fn new(switches: &Switches) -> Self {
        let n_max = switches.number(Provider::TwitterapiIo, "stream_accounts");
        Self { accounts: Vec::new(), known: HashSet::new(), n_max }
    }

    /// Takes in the accounts of the tape that are not known yet.
    pub(super) fn learn(&mut self, past: &mut Past<'_>) -> Result<(), Refusal> {
        let (mut seen, now) = (Vec::new(), past.now());
        past.to_come().newest(&[EventKind::Tweet], UnixMicros(i64::MIN)..UnixMicros(i64::MAX), |item| {
            if item.selector.is_empty()
                && let Some(post) = Post::of(item)
            {
                let handle = post.candidate().handle.to_owned();
                if !handle.is_empty() && self.known.insert(handle.to_lowercase()) {
                    let since = post.published_at.min(now);
                    seen.push(account(handle, Some(post.author()), since, since));
                }
            }
            ControlFlow::Continue(())
        })?;
        self.accounts.extend(seen);
        Ok(())
    }

    pub(super) fn add(&mut self, fields: &Fields, past: &mut Past<'_>) -> Result<String, Refusal> {
        self.check_plan()?;
        let name = fields.required("x_user_name")?;
        // Documented: a leading @ is taken off.
        let handle = name.strip_prefix('@').unwrap_or(name);
        // X's own rule for handles: 15 letters, digits and underscores.
        let is_handle = (1..=15).contains(&handle.len()) && handle.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !is_handle {
            return Err(Refusal::Bad("x_user_name must be the name of an account".to_owned()));
        }
        if self.accounts.iter().any(|account| account.handle.eq_ignore_ascii_case(handle)) {
            return Err(Refusal::Nothing("this account is monitored already".to_owned()));
        }
        if self.accounts.len() as u64 >= self.n_max {
            return Err(Refusal::Nothing(format!("the plan has room for {} accounts", self.n_max)));
        }
        let author = author_of(handle, past)?;
        let now = past.now();
        self.known.insert(handle.to_lowercase());
        self.accounts.push(account(handle.to_owned(), author.as_ref(), now, now.plus(CONFIGURED_AFTER)));
        Ok(status_body("success", "account added"))
    }

    pub(super) fn remove(&mut self, fields: &Fields) -> Result<String, Refusal> {
        self.check_plan()?;
        let id = fields.required("id_for_user")?;
        let at = self.accounts.iter().position(|account| account.id_for_user == id);
        let at = at.ok_or_else(|| Refusal::Nothing("this account is not monitored".to_owned()))?;
        self.accounts.remove(at);
        Ok(status_body("success", "account removed"))
    }

    /// Documented: `query_type` 0 is all, 1 those monitored for posts (the default), 2 those for their profile.
    pub(super) fn list(&self, params: &Params<'_>, now: UnixMicros) -> Result<String, Refusal> {
        #[derive(Serialize)]
        struct List<'a> {
            status: &'a str,
            msg: &'a str,
            data: Vec<Row<'a>>,
        }
        self.check_plan()?;
        let data = match params.number("query_type")? {
            None | Some(0 | 1) => self.accounts.iter().map(|account| account.row(now)).collect(),
            // Nobody can be added for a profile here.
            Some(2) => Vec::new(),
            Some(_) => return Err(Refusal::Bad("query_type must be 0, 1 or 2".to_owned())),
        };
        body_of(&List { status: "success", msg: "success", data })
    }

    /// Documented: these words (agent skill, 2026-04).
    fn check_plan(&self) -> Result<(), Refusal> {
        match self.n_max {
            0 => Err(Refusal::Nothing("No active monitoring subscription".to_owned())),
            _ => Ok(()),
        }
    }
}

fn account(handle: String, author: Option<&Value>, created_at: UnixMicros, active_at: UnixMicros) -> Account {
    let name = author.and_then(|author| author["name"].as_str()).unwrap_or(&handle).to_owned();
    // An account the tape has nothing of has no id here.
    let x_user_id = author.and_then(|author| number_of(&author["id"])).unwrap_or_default();
    let id_for_user = format!("{:016x}", xxh3_64(handle.to_lowercase().as_bytes()));
    Account { id_for_user, x_user_id, name, handle, created_at, active_at }
}

impl Account {
    fn row(&self, now: UnixMicros) -> Row<'_> {
        Row {
            id_for_user: &self.id_for_user,
            x_user_id: self.x_user_id,
            x_user_name: &self.name,
            x_user_screen_name: &self.handle,
            is_monitor_tweet: 1,
            is_monitor_profile: 0,
            monitor_tweet_config_status: if now < self.active_at { CONFIGURING } else { ACTIVE },
            monitor_profile_config_status: 0,
            created_at: self.created_at.to_string(),
        }
    }
}
