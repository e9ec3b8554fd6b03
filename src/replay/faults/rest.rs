//! Faults of history and management: around the answer that would have been given.

use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;

use super::plan::Plan;
use super::script::RestFault;
use crate::model::{Provider, Response, UnixMicros};
use crate::net::Reply;
use crate::provider::{form_values, tamper};

/// What stands in the place of JSON: the page of a proxy that lost its backend.
const PAGE: &[u8] = b"<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>Bad Gateway</body>\r\n</html>\r\n";

impl Plan {
    /// Answers a request of history or management as the script wants it, and says how long to wait before that.
    ///
    /// `answer` gives what would have been said; it is not called when a status stands in its place.
    pub(in crate::replay) fn around(
        &self,
        provider: Provider,
        path: &str,
        query: &str,
        at: UnixMicros,
        answer: impl FnOnce() -> Response,
    ) -> (Duration, Reply) {
        let due = self.due(provider, path, at);
        let mut wait = Duration::ZERO;
        for due in &due {
            if let RestFault::Slow { by } = due.does
                && self.fire(due.fault)
            {
                wait += by;
            }
        }
        for due in &due {
            if let RestFault::Status { status, retry_after, body } = &due.does
                && self.fire(due.fault)
            {
                return (wait, Reply::Http(tamper::refusal(provider, *status, *retry_after, body.as_deref())));
            }
        }
        let mut response = answer();
        // A refusal has no rows.
        if response.status != 200 {
            return (wait, Reply::Http(response));
        }
        let listing = format!("{provider} {path}?{}", without_cursor(query));
        let mut page: Option<Value> = serde_json::from_slice(&response.body).ok();
        let before = page.as_ref().and_then(|page| self.turn_page(&listing, page));
        let mut is_changed = false;
        for due in &due {
            let Some(page) = &mut page else { break };
            let mut changed = page.clone();
            let asked = tamper::cursor_asked(provider, query);
            let row = |given: Option<u64>| tamper::row(provider, page, given, due.roll);
            let is_done = match &due.does {
                RestFault::RepeatPage => before.as_ref().is_some_and(|b| tamper::repeat_page(provider, &mut changed, b)),
                RestFault::CursorLoop => asked.is_some_and(|asked| tamper::cursor_loop(provider, &mut changed, &asked)),
                RestFault::MissingRow { row: given } => {
                    row(*given).is_some_and(|row| tamper::missing_row(provider, &mut changed, row))
                }
                RestFault::DuplicateRow { row: given } => {
                    row(*given).is_some_and(|row| tamper::duplicate_row(provider, &mut changed, row))
                }
                RestFault::LyingNext => tamper::lying_next(provider, &mut changed),
                RestFault::Shuffle => tamper::shuffle(provider, &mut changed, due.roll),
                RestFault::Status { .. } | RestFault::Slow { .. } | RestFault::Truncate | RestFault::NotJson => false,
            };
            if is_done && self.fire(due.fault) {
                *page = changed;
                is_changed = true;
            }
        }
        // A page nobody touched keeps its bytes.
        if let Some(page) = page.filter(|_| is_changed) {
            response.body = Bytes::from(page.to_string());
        }
        for due in &due {
            match due.does {
                RestFault::NotJson if self.fire(due.fault) => {
                    response.headers.retain(|(name, _)| name != "content-type");
                    response.headers.push(("content-type".to_owned(), "text/html".to_owned()));
                    response.body = Bytes::from_static(PAGE);
                }
                RestFault::Truncate if response.body.len() > 1 && self.fire(due.fault) => {
                    let n_bytes = response.body.len() / 2;
                    return (wait, Reply::Cut { response, n_bytes });
                }
                _ => {}
            }
        }
        (wait, Reply::Http(response))
    }
}

/// What names a listing whatever its page.
fn without_cursor(query: &str) -> String {
    let kept = form_values(query).filter(|(name, _)| !matches!(name.as_str(), "cursor" | "page" | "max_id"));
    kept.map(|(name, value)| format!("{name}={value}&")).collect()
}
