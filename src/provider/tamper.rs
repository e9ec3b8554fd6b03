//! How a provider's answers look when they are wrong: refusals, farewells, and pages that do not add up.
//!
//! Owns where each provider's rows and cursors stand on a page. Everything here is a function from a page to a page;
//! who is given a wrong one, and when, is decided in `replay`. A changed page is written anew, so the order of its
//! keys is not the provider's; its rows stay what they were.
//!
//! | provider | rows | next page |
//! | --- | --- | --- |
//! | TwitterAPI.io | `tweets` or `replies`, at the top or in `data`; `data` itself | `has_next_page`, `next_cursor`, at the top or in `data` |
//! | TweetStream | `data`, counted in `metadata.count` | none: the window is moved |
//! | ScrapeBadger | `data`; delivery logs in `logs` | `next_cursor`; logs by `page`, `page_size` and `total` |
//! | X | `entries`, mostly in `conversation_timeline` | `status`, `min_entry_id` |

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::{Provider, form_values};
use crate::model::Response;

/// A cursor for a page that has none, where one must be claimed.
const MADE_UP_CURSOR: &str = "birdtape-more";

/// Where rows may stand, likelier places first.
fn places(provider: Provider) -> &'static [&'static str] {
    match provider {
        Provider::TwitterapiIo => &["/tweets", "/data/tweets", "/replies", "/data/replies", "/data"],
        Provider::Tweetstream => &["/data"],
        Provider::Scrapebadger => &["/data", "/logs"],
        Provider::XLive => {
            &["/conversation_timeline/entries", "/entries", "/user_events/entries", "/inbox_initial_state/entries"]
        }
    }
}

fn place(provider: Provider, page: &Value) -> Option<&'static str> {
    places(provider).iter().copied().find(|place| page.pointer(place).is_some_and(Value::is_array))
}

fn rows(provider: Provider, page: &mut Value) -> Option<&mut Vec<Value>> {
    let place = place(provider, page)?;
    page.pointer_mut(place)?.as_array_mut()
}

/// The object that holds the rows and, at X, what is said about the next page.
fn around_rows(provider: Provider, page: &mut Value) -> Option<&mut Map<String, Value>> {
    let (above, _) = place(provider, page)?.rsplit_once('/')?;
    page.pointer_mut(above)?.as_object_mut()
}

/// TweetStream counts its rows on the page.
fn recount(provider: Provider, page: &mut Value) {
    let n = rows(provider, page).map(|rows| rows.len());
    if let (Provider::Tweetstream, Some(n), Some(count)) = (provider, n, page.pointer_mut("/metadata/count")) {
        *count = json!(n);
    }
}

/// Position of a row: the given one, counted from 1, or one by chance; `None` when there is no such row.
pub fn row(provider: Provider, page: &Value, given: Option<u64>, roll: u64) -> Option<usize> {
    let n = page.pointer(place(provider, page)?)?.as_array()?.len();
    let at = match given {
        Some(number) => usize::try_from(number).ok()?.checked_sub(1)?,
        None => usize::try_from(roll % u64::try_from(n).ok().filter(|n| *n > 0)?).ok()?,
    };
    (at < n).then_some(at)
}

/// Leaves a row out. Whether there was one.
pub fn missing_row(provider: Provider, page: &mut Value, row: usize) -> bool {
    let Some(rows) = rows(provider, page).filter(|rows| row < rows.len()) else { return false };
    rows.remove(row);
    recount(provider, page);
    true
}

/// Says a row twice. Whether there was one.
pub fn duplicate_row(provider: Provider, page: &mut Value, row: usize) -> bool {
    let Some(rows) = rows(provider, page).filter(|rows| row < rows.len()) else { return false };
    let again = rows[row].clone();
    rows.insert(row, again);
    recount(provider, page);
    true
}

/// Puts the rows into another order. Whether there are two that can change places.
pub fn shuffle(provider: Provider, page: &mut Value, roll: u64) -> bool {
    let Some(rows) = rows(provider, page).filter(|rows| rows.len() > 1) else { return false };
    let before = rows.clone();
    let mut state = roll;
    for at in (1..rows.len()).rev() {
        // The step and the mixing of splitmix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let other = ((u128::from(mixed ^ (mixed >> 31)) * (at as u128 + 1)) >> 64) as usize;
        rows.swap(at, other);
    }
    if *rows == before {
        rows.rotate_left(1);
    }
    *rows != before
}

/// Gives the rows of the page before, and otherwise this page. Whether both have rows.
pub fn repeat_page(provider: Provider, page: &mut Value, before: &Value) -> bool {
    let Some(old) = place(provider, before).and_then(|place| before.pointer(place)).and_then(Value::as_array) else {
        return false;
    };
    let Some(rows) = rows(provider, page) else { return false };
    rows.clone_from(old);
    recount(provider, page);
    true
}

/// The cursor a request was made with.
pub fn cursor_asked(provider: Provider, query: &str) -> Option<String> {
    let names: &[&str] = match provider {
        Provider::TwitterapiIo | Provider::Scrapebadger => &["cursor"],
        Provider::Tweetstream => &[],
        Provider::XLive => &["max_id", "cursor"],
    };
    form_values(query).find(|(name, value)| names.contains(&name.as_str()) && !value.is_empty()).map(|(_, value)| value)
}

/// Says that the next page is the one that was asked for. Whether such a page knows a cursor.
pub fn cursor_loop(provider: Provider, page: &mut Value, asked: &str) -> bool {
    claim_more(provider, page, Some(asked))
}

/// Gives no rows and claims that there are more. Whether such a page can claim that.
pub fn lying_next(provider: Provider, page: &mut Value) -> bool {
    if !claim_more(provider, page, None) {
        return false;
    }
    rows(provider, page).map(Vec::clear).is_some()
}

/// Claims another page behind that cursor, or behind the page's own.
fn claim_more(provider: Provider, page: &mut Value, cursor: Option<&str>) -> bool {
    match provider {
        Provider::TwitterapiIo => {
            let Some(paging) = paging(page, "next_cursor") else { return false };
            paging.insert("has_next_page".to_owned(), json!(true));
            set_cursor(paging, "next_cursor", cursor);
            true
        }
        Provider::Tweetstream => false,
        Provider::Scrapebadger => match page.get("logs") {
            Some(_) => claim_more_logs(page, cursor),
            None => {
                let Some(paging) = page.as_object_mut().filter(|page| page.contains_key("data")) else { return false };
                set_cursor(paging, "next_cursor", cursor);
                true
            }
        },
        Provider::XLive => {
            let Some(timeline) = around_rows(provider, page) else { return false };
            timeline.insert("status".to_owned(), json!("HAS_MORE"));
            set_cursor(timeline, "min_entry_id", cursor);
            true
        }
    }
}

/// The object that holds that key: the page, or its `data`.
fn paging<'a>(page: &'a mut Value, key: &str) -> Option<&'a mut Map<String, Value>> {
    let at = ["", "/data"].into_iter().find(|at| page.pointer(at).is_some_and(|object| object.get(key).is_some()));
    page.pointer_mut(at.unwrap_or(""))?.as_object_mut()
}

fn set_cursor(paging: &mut Map<String, Value>, key: &str, cursor: Option<&str>) {
    let own = paging.get(key).and_then(Value::as_str).filter(|own| !own.is_empty());
    let cursor = cursor.or(own).unwrap_or(MADE_UP_CURSOR).to_owned();
    paging.insert(key.to_owned(), Value::String(cursor));
}

/// Logs are counted, not linked: a page can only claim a larger total.
fn claim_more_logs(page: &mut Value, cursor: Option<&str>) -> bool {
    let number = |key: &str| page.get(key).and_then(Value::as_u64);
    if cursor.is_some() {
        return false;
    }
    let (page_number, size) = (number("page").unwrap_or(1), number("page_size").unwrap_or(20));
    let total = number("total").unwrap_or(0).max(page_number.saturating_mul(size)).saturating_add(size);
    page["total"] = json!(total);
    true
}

/// A refusal as that provider words it, unless a body is given.
pub fn refusal(provider: Provider, status: u16, retry_after: Option<Duration>, body: Option<&str>) -> Response {
    let body = body.map_or_else(|| refusal_body(provider, status), str::to_owned);
    let mut response = Response::json(status, body);
    if let Some(wait) = retry_after {
        // Whole seconds travel here; a fraction is rounded up, so that nobody comes too early.
        let secs = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        response.headers.push(("retry-after".to_owned(), secs.to_string()));
    }
    response
}

fn refusal_body(provider: Provider, status: u16) -> String {
    let reason = match status {
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Error",
    };
    let value = match (provider, status) {
        (Provider::TwitterapiIo, 400) => json!({ "detail": "userName is required" }),
        (Provider::TwitterapiIo, 401) => json!({ "error": reason, "message": "API key is invalid" }),
        // Documented: the word for 402 is that of 401.
        (Provider::TwitterapiIo, 402) => {
            json!({ "error": "Unauthorized", "message": "Credits is not enough.Please recharge" })
        }
        (Provider::TwitterapiIo, 403) => {
            json!({ "error": reason, "message": "API key required. Please include x-api-key in the request headers" })
        }
        (Provider::TwitterapiIo, _) => json!({ "error": reason, "message": reason }),
        (Provider::Tweetstream, 401) => json!({ "error": "invalid API key" }),
        (Provider::Tweetstream, 429) => json!({ "error": "connection limit reached" }),
        (Provider::Tweetstream, _) => json!({ "error": reason.to_lowercase() }),
        (Provider::Scrapebadger, 401) => json!({ "detail": "Invalid or missing API key" }),
        (Provider::Scrapebadger, 429) => json!({ "detail": "Rate limit exceeded", "remaining": 0 }),
        (Provider::Scrapebadger, _) => json!({ "detail": reason }),
        (Provider::XLive, _) => {
            let (code, message) = match status {
                401 => (32, "Could not authenticate you."),
                404 => (34, "Sorry, that page does not exist."),
                429 => (88, "Rate limit exceeded"),
                503 => (130, "Over capacity"),
                500.. => (131, "Internal error"),
                _ => (214, reason),
            };
            json!({ "errors": [{ "code": code, "message": message }] })
        }
    };
    value.to_string()
}

/// TwitterAPI.io's farewell to a connection that was taken over: message, close code, reason.
pub fn replaced() -> (Bytes, u16, &'static str) {
    (Bytes::from_static(br#"{"event_type":"replaced"}"#), 4001, "replaced by a newer connection")
}

/// ScrapeBadger's farewell with an error frame: message, close code, reason.
pub fn error_frame(code: u16) -> (Bytes, u16, &'static str) {
    let words = match code {
        4003 => "Connection limit reached for this API key",
        _ => "Invalid or missing API key",
    };
    (Bytes::from(format!(r#"{{"type":"error","code":{code},"message":"{words}"}}"#)), code, words)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn pages() -> Vec<(Provider, Value)> {
        let rows = json!([{ "id": "3" }, { "id": "2" }, { "id": "1" }]);
        vec![
            (Provider::TwitterapiIo, json!({ "tweets": rows, "has_next_page": false, "next_cursor": "" })),
            (Provider::TwitterapiIo, json!({ "data": { "tweets": rows }, "has_next_page": true, "next_cursor": "c" })),
            (Provider::TwitterapiIo, json!({ "data": { "tweets": rows, "has_next_page": false, "next_cursor": "" } })),
            (Provider::Tweetstream, json!({ "data": rows, "metadata": { "count": 3 } })),
            (Provider::Scrapebadger, json!({ "data": rows, "next_cursor": null })),
            (Provider::Scrapebadger, json!({ "logs": rows, "page": 2, "page_size": 3, "total": 6 })),
            (Provider::XLive, json!({ "conversation_timeline": { "entries": rows, "status": "AT_END", "min_entry_id": "1" } })),
            (Provider::XLive, json!({ "entries": rows, "status": "AT_END", "min_entry_id": "1" })),
        ]
    }

    fn ids(provider: Provider, page: &Value) -> String {
        let rows = page.pointer(place(provider, page).unwrap()).unwrap().as_array().unwrap();
        rows.iter().map(|row| row["id"].as_str().unwrap()).collect()
    }

    #[test]
    fn rows_of_every_shape() {
        for (provider, page) in pages() {
            let mut missing = page.clone();
            assert!(missing_row(provider, &mut missing, 1));
            assert_eq!(ids(provider, &missing), "31", "{page}");
            assert!(!missing_row(provider, &mut missing, 2), "there are two rows now");

            let mut double = page.clone();
            assert!(duplicate_row(provider, &mut double, 2));
            assert_eq!(ids(provider, &double), "3211");
            if provider == Provider::Tweetstream {
                assert_eq!((&missing["metadata"]["count"], &double["metadata"]["count"]), (&json!(2), &json!(4)));
            }

            for roll in 0..20 {
                let mut shuffled = page.clone();
                assert!(shuffle(provider, &mut shuffled, roll));
                let mut sorted: Vec<_> = ids(provider, &shuffled).chars().collect();
                assert_ne!(ids(provider, &shuffled), "321");
                sorted.sort_unstable();
                assert_eq!(sorted, ['1', '2', '3']);
            }

            let mut repeated = page.clone();
            assert!(repeat_page(provider, &mut repeated, &missing));
            assert_eq!(ids(provider, &repeated), "31");
        }
    }

    #[test]
    fn chooses_a_row_that_is_there() {
        let page = json!({ "data": [1, 2, 3] });
        let at = |given, roll| row(Provider::Tweetstream, &page, given, roll);
        assert_eq!([at(Some(1), 9), at(Some(3), 9), at(Some(4), 9), at(Some(0), 9)], [Some(0), Some(2), None, None]);
        assert!((0..9).all(|roll| at(None, roll).is_some_and(|row| row < 3)));
        assert_eq!(row(Provider::Tweetstream, &json!({ "data": [] }), None, 1), None);
        assert_eq!(row(Provider::XLive, &json!({ "data": [1] }), None, 1), None);
    }

    #[test]
    fn claims_of_more() {
        let mut said = String::new();
        for (provider, page) in pages() {
            let mut lying = page.clone();
            let lies = lying_next(provider, &mut lying);
            let mut looping = page.clone();
            let loops = cursor_loop(provider, &mut looping, "asked");
            said += &format!("{provider}\n  {lies} {lying}\n  {loops} {looping}\n");
        }
        expect_test::expect![[r#"
            twitterapi_io
              true {"has_next_page":true,"next_cursor":"birdtape-more","tweets":[]}
              true {"has_next_page":true,"next_cursor":"asked","tweets":[{"id":"3"},{"id":"2"},{"id":"1"}]}
            twitterapi_io
              true {"data":{"tweets":[]},"has_next_page":true,"next_cursor":"c"}
              true {"data":{"tweets":[{"id":"3"},{"id":"2"},{"id":"1"}]},"has_next_page":true,"next_cursor":"asked"}
            twitterapi_io
              true {"data":{"has_next_page":true,"next_cursor":"birdtape-more","tweets":[]}}
              true {"data":{"has_next_page":true,"next_cursor":"asked","tweets":[{"id":"3"},{"id":"2"},{"id":"1"}]}}
            tweetstream
              false {"data":[{"id":"3"},{"id":"2"},{"id":"1"}],"metadata":{"count":3}}
              false {"data":[{"id":"3"},{"id":"2"},{"id":"1"}],"metadata":{"count":3}}
            scrapebadger
              true {"data":[],"next_cursor":"birdtape-more"}
              true {"data":[{"id":"3"},{"id":"2"},{"id":"1"}],"next_cursor":"asked"}
            scrapebadger
              true {"logs":[],"page":2,"page_size":3,"total":9}
              false {"logs":[{"id":"3"},{"id":"2"},{"id":"1"}],"page":2,"page_size":3,"total":6}
            x_live
              true {"conversation_timeline":{"entries":[],"min_entry_id":"1","status":"HAS_MORE"}}
              true {"conversation_timeline":{"entries":[{"id":"3"},{"id":"2"},{"id":"1"}],"min_entry_id":"asked","status":"HAS_MORE"}}
            x_live
              true {"entries":[],"min_entry_id":"1","status":"HAS_MORE"}
              true {"entries":[{"id":"3"},{"id":"2"},{"id":"1"}],"min_entry_id":"asked","status":"HAS_MORE"}
        "#]]
        .assert_eq(&said);
    }

    #[test]
    fn what_is_no_page_stays_as_it_is() {
        for provider in Provider::ALL {
            for other in [json!({ "status": "error" }), json!([]), json!("text"), json!({ "data": null })] {
                let mut page = other.clone();
                assert!(!missing_row(provider, &mut page, 0) && !shuffle(provider, &mut page, 1));
                assert!(!repeat_page(provider, &mut page, &other));
                assert_eq!(page, other);
            }
        }
        assert_eq!(cursor_asked(Provider::TwitterapiIo, "query=a&cursor=%3D1"), Some("=1".to_owned()));
        assert_eq!(cursor_asked(Provider::Scrapebadger, "cursor="), None);
        assert_eq!(cursor_asked(Provider::XLive, "max_id=7"), Some("7".to_owned()));
    }

    #[test]
    fn refusals_have_the_providers_shape() {
        for (provider, key) in Provider::ALL.into_iter().zip(["message", "error", "detail", "errors"]) {
            for status in [401, 402, 403, 429, 500, 503, 599] {
                let response = refusal(provider, status, Some(Duration::from_millis(1_500)), None);
                let body: Value = serde_json::from_slice(&response.body).unwrap();
                assert!(response.status == status && body.get(key).is_some(), "{provider} {status} {body}");
                assert_eq!(response.header("retry-after"), Some("2"));
            }
            assert_eq!(&refusal(provider, 400, None, Some("mine")).body[..], b"mine");
        }
    }
}
