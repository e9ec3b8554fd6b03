//! TweetStream's list of what selects: the tracked accounts.
//!
//! They are one scope together, [`WATCHLIST`]: envelopes do not name what selected them. Its text is the handles, without `@`,
//! in lower case and in order. Source: tweetstream.io docs, "Tracked account management".

use std::collections::BTreeSet;

use serde_json::Value;

use super::watchlist::normalized;
use crate::model::{Endpoint, Request, Secret};
use crate::provider::lists::Listed;
use crate::provider::{Scope, Settings};

/// Host of history and management. Documented: tweetstream.io docs, "History API".
const HOST: &str = "api.tweetstream.io";

/// The scope of all tracked accounts.
pub(super) const WATCHLIST: &str = "watchlist";

/// Asks for the list.
pub(crate) fn ask(settings: &Settings) -> Request {
    get(settings, "/api/me")
}

/// Reads it; `None` if it is none, or names fewer accounts than it counts.
pub(crate) fn take(answer: &Value) -> Option<Listed> {
    let accounts = &answer["trackedAccounts"];
    let rows = accounts["handles"].as_array()?;
    if accounts["count"].as_u64().is_some_and(|count| count > rows.len() as u64) {
        return None;
    }
    let handles: BTreeSet<_> =
        rows.iter().filter_map(Value::as_str).map(normalized).filter(|handle| !handle.is_empty()).collect();
    let text = handles.into_iter().collect::<Vec<_>>().join(" ");
    let scope = Scope { id: WATCHLIST.to_owned(), text: Some(text), detail: "the tracked accounts".to_owned() };
    Some(Listed { scopes: vec![scope], next: None })
}

/// A `GET` with the key as bearer.
pub(super) fn get(settings: &Settings, target: &str) -> Request {
    let base = settings.base.as_ref();
    let own = || Endpoint { tls: true, host: HOST.to_owned(), port: 443 };
    let endpoint = base.map_or_else(own, |base| base.endpoint.clone());
    let target = format!("{}{target}", base.map_or("", |base| base.prefix.as_str()));
    let key = settings.credentials.key.as_ref().and_then(|key| Secret::new(format!("Bearer {}", key.expose())));
    // Observed: an early commit of the vendor's SDK names itself as a fix.
    let agent = Secret::new(concat!("birdtape/", env!("CARGO_PKG_VERSION")));
    let accept = Secret::new("application/json");
    let headers = [("authorization", key), ("user-agent", agent), ("accept", accept)];
    Request {
        method: "GET",
        shown: format!("{}://{}{target}", if endpoint.tls { "https" } else { "http" }, endpoint.authority()),
        target: Secret::new(target).expect("a path of ours is never empty"),
        endpoint,
        headers: headers.into_iter().filter_map(|(name, value)| Some((name, value?))).collect(),
        body: String::new(),
    }
}
