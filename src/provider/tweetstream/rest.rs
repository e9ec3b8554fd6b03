//! The fake TweetStream beside the live connection: who may ask what.
//!
//! Owns the addresses, the key, the plan and the pace. `history.rs` answers what happened, `watchlist.rs` knows which
//! accounts are tracked. There is one account, whatever the key.

use std::time::{Duration, Instant};

use serde_json::json;

use super::history;
use super::server::key_of;
use super::watchlist::{Change, Watchlist};
use crate::model::{Provider, Response};
use crate::provider::past::{Past, Unreadable};
use crate::provider::rest::RateLimit;
use crate::provider::{Asked, RestSettings, same_key};

/// Connections a plan allows.
///
/// Observed: three on the smallest plan and ten on the next, in a public comparison of the vendor's page. The largest is
/// by agreement; the number here is ours.
const CONNECTIONS: [(&str, u32); 3] = [("basic", 3), ("pro", 10), ("scale", 100)];

/// History and management.
#[derive(Debug)]
pub struct Rest {
    settings: RestSettings,
    limit: RateLimit,
    watchlist: Watchlist,
    n_open: u32,
}

/// Why a request gets no answer it wants.
#[derive(Debug)]
pub(super) enum Refusal {
    /// A status of the provider's and what it says.
    Status(u16, String),
    /// Ours: an envelope is missing.
    Unreadable(Unreadable),
}

impl Refusal {
    pub(super) fn bad(why: impl Into<String>) -> Self {
        Self::Status(400, why.into())
    }
}

impl From<Unreadable> for Refusal {
    fn from(error: Unreadable) -> Self {
        Self::Unreadable(error)
    }
}

impl Rest {
    /// Before anybody asked for anything.
    pub fn new(settings: RestSettings) -> Self {
        let per_minute = settings.switches.number(Provider::Tweetstream, "history_per_minute");
        let limit = RateLimit::new(usize::try_from(per_minute).unwrap_or(usize::MAX), Duration::from_secs(60));
        let watchlist = Watchlist::new(accounts_limit(&settings));
        Self { settings, limit, watchlist, n_open: 0 }
    }

    /// Says how many live connections are open: `/api/me` shows it.
    pub fn set_connections(&mut self, n_open: u32) {
        self.n_open = n_open;
    }

    /// Answers a request.
    pub fn asked(&mut self, asked: &Asked<'_>, past: &mut Past<'_>, now: Instant) -> Response {
        let wants = match asked.path {
            "/api/history" | "/api/me" => "GET",
            "/api/add-account" => "POST",
            "/api/remove-account" => "DELETE",
            _ => return error(404, "not found"),
        };
        if asked.method != wants {
            return with_header(error(405, "method not allowed"), "allow", wants);
        }
        let Some(key) = key_of(asked) else { return error(401, "missing API key") };
        if self.settings.key.as_ref().is_some_and(|wanted| !same_key(wanted.expose(), key.expose())) {
            return error(401, "invalid API key");
        }
        let answer = match asked.path {
            "/api/history" => self.history(asked, past, key.expose(), now),
            "/api/me" => self.me(past),
            "/api/add-account" => self.watchlist.change(Change::Add, asked.body, past),
            _ => self.watchlist.change(Change::Remove, asked.body, past),
        };
        answer.unwrap_or_else(|refusal| match refusal {
            Refusal::Status(status, why) => error(status, &why),
            Refusal::Unreadable(problem) => {
                tracing::warn!(%problem, "the fake TweetStream cannot answer");
                error(500, "internal server error")
            }
        })
    }

    fn history(&mut self, asked: &Asked<'_>, past: &mut Past<'_>, key: &str, now: Instant) -> Result<Response, Refusal> {
        // Documented: history belongs to the two larger plans. Source: tweetstream.io docs, "History API".
        if self.plan() == "basic" {
            return Err(Refusal::Status(403, "your plan does not include the history API".to_owned()));
        }
        if self.settings.rate_limits {
            let said = self.limit.ask(key, now);
            if !said.allowed {
                let seconds = said.resets_in.as_millis().div_ceil(1_000).max(1);
                return Ok(with_header(error(429, "rate limit exceeded"), "retry-after", &seconds.to_string()));
            }
        }
        history::answer(asked, past, &mut self.watchlist, &self.settings.switches)
    }

    /// Documented: plan, `trackedAccounts` and `websocket`, and that the answer is private and not to be stored. The page
    /// also names what is paid with, which a fake does not have. Observed: the number of connections is `count` to one
    /// public consumer and `active` to another.
    fn me(&mut self, past: &mut Past<'_>) -> Result<Response, Refusal> {
        let limit = self.watchlist.limit();
        let plan = self.plan().to_owned();
        let connections = CONNECTIONS.iter().find(|(name, _)| *name == plan).map(|(_, n)| *n);
        // The names on the wire are older than those on the site. Observed: BASIC, ELITE, ENTERPRISE.
        let plan = [("basic", "BASIC"), ("pro", "ELITE")].iter().find(|(name, _)| *name == plan).map_or("ENTERPRISE", |p| p.1);
        let handles = self.watchlist.handles(past)?;
        let body = json!({
            "plan": plan,
            "trackedAccounts": { "count": handles.len(), "limit": limit, "handles": handles },
            "websocket": { "count": self.n_open, "active": self.n_open, "limit": connections },
        });
        Ok(with_header(Response::json(200, body.to_string()), "cache-control", "private, no-store"))
    }

    fn plan(&self) -> &str {
        self.settings.switches.word(Provider::Tweetstream, "plan")
    }
}

/// Documented: 50 accounts on the smallest plan and 250 on the next; the largest is by agreement. Source: the vendor's
/// landing page and its article on prices.
fn accounts_limit(settings: &RestSettings) -> Option<u64> {
    match settings.switches.number(Provider::Tweetstream, "accounts_limit") {
        0 => match settings.switches.word(Provider::Tweetstream, "plan") {
            "basic" => Some(50),
            "pro" => Some(250),
            _ => None,
        },
        limit => Some(limit),
    }
}

/// Documented: the SDKs read `error`, else `message`, from an error's body.
fn error(status: u16, why: &str) -> Response {
    Response::json(status, json!({ "error": why }).to_string())
}

fn with_header(mut response: Response, name: &str, value: &str) -> Response {
    response.headers.push((name.to_owned(), value.to_owned()));
    response
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::model::{Secret, TweetId, UnixMicros};
    use crate::provider::decode;
    use crate::provider::past::{Index, with_past};
    use expect_test::{Expect, expect};

    /// Milliseconds: 2026-09-21T14:13:20.000Z.
    const START: i64 = 1_790_000_000_000;

    fn at(seconds: i64) -> UnixMicros {
        UnixMicros::from_millis(START + seconds * 1_000)
    }

    fn id(seconds: i64) -> u64 {
        TweetId::first_at(at(seconds)).0
    }

    fn tweet(op: &str, seconds: i64, sent: i64, rest: &str) -> (UnixMicros, String) {
        let (id, ts) = (id(seconds), START + sent * 1_000);
        (at(sent), format!(r#"{{"v":1,"t":"tweet","op":"{op}","id":"{id}","ts":{ts},"d":{{"tweetId":"{id}"{rest}}}}}"#))
    }

    fn content(seconds: i64, sent: i64, handle: &str, text: &str) -> (UnixMicros, String) {
        tweet("content", seconds, sent, &format!(r#","text":"{text}","author":{{"id":"7","handle":"@{handle}","name":"N"}}"#))
    }

    macro_rules! fixture {
        ($case:literal) => {
            include_str!(concat!("../../../fixtures/tweetstream/", $case, ".json")).trim_ascii_end().to_owned()
        };
    }

    /// What most tests ask about.
    fn tape() -> Vec<(UnixMicros, String)> {
        vec![
            content(0, 1, "Ann", "zero"),
            content(2, 3, "bob", "two"),
            tweet("update", 2, 4, r#","text":"two, more","author":{"followersCount":9}"#),
            tweet("meta", 2, 5, r#","ocr":{"text":"seen"}"#),
            tweet("update", 2, 6, r#","urls":[ 1.50 ]"#),
            content(10, 11, "ann", "ten"),
            tweet("delete", 10, 20, ""),
            content(8, 30, "ann", "late"),
            (at(95), fixture!("profile_update")),
            (at(96), fixture!("follow")),
            (at(97), fixture!("unfollow")),
            (at(98), fixture!("content_truth_social")),
            (at(99), fixture!("meta_truth_social")),
        ]
    }

    fn rest(switches: &[&str]) -> Rest {
        let mut settings = RestSettings { key: Secret::new("k"), ..RestSettings::default() };
        for switch in switches {
            settings.switches.set(&format!("tweetstream.{switch}")).unwrap();
        }
        Rest::new(settings)
    }

    fn ask_at(rest: &mut Rest, tape: &[(UnixMicros, String)], seconds: i64, line: &str, body: &str, now: Instant) -> Response {
        let headers = [("authorization".to_owned(), "Bearer k".to_owned())];
        let (method, target) = line.split_once(' ').unwrap();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let asked = Asked { method, path, query, headers: &headers, body: body.as_bytes(), wants_upgrade: false };
        let tape: Vec<_> = tape.iter().map(|(at, text)| (*at, text.as_str())).collect();
        with_past(Provider::Tweetstream, &tape, at(seconds), |past| rest.asked(&asked, past, now))
    }

    fn shown(response: &Response) -> String {
        format!("{} {}", response.status, std::str::from_utf8(&response.body).unwrap())
    }

    fn ask(rest: &mut Rest, line: &str, body: &str) -> String {
        shown(&ask_at(rest, &tape(), 200, line, body, Instant::now()))
    }

    /// Status, then each row's text or event, its times and whether it has a meta.
    fn rows(switches: &[&str], seconds: i64, query: &str) -> String {
        let response = ask_at(&mut rest(switches), &tape(), seconds, &format!("GET /api/history?{query}"), "", Instant::now());
        let body: serde_json::Value = serde_json::from_slice(&response.body).unwrap();
        let Some(data) = body["data"].as_array() else { return shown(&response) };
        assert_eq!(body["metadata"]["count"], data.len());
        let row = |row: &serde_json::Value| {
            let what = row["content"]["text"].as_str().or(row["tweetId"].as_str()).unwrap();
            let clock = |name: &str| row[name].as_str().unwrap()[17..19].to_owned();
            format!("{what}@{}/{}{}", clock("time"), clock("receivedTime"), if row["meta"].is_null() { "" } else { "+" })
        };
        if data.is_empty() { "nothing".to_owned() } else { data.iter().map(row).collect::<Vec<_>>().join(" ") }
    }

    fn check(text: &str, expected: Expect) {
        expected.assert_eq(text);
    }

    #[test]
    fn a_row_is_the_live_payload_and_what_is_known_of_it() {
        let rest_of =
            |switch: &str| ask(&mut rest(&[switch]), "GET /api/history?handle=@BOB&type=tweet&endDate=2027-01-01T00:00:00Z", "");
        check(
            &rest_of("history_updates=plain"),
            expect![[
                r#"200 {"data":[{"tweetId":"2102038478844854272","twitterId":"7","twitterHandle":"@bob","body":"two","link":"","time":"2026-09-21T14:13:22.000Z","receivedTime":"2026-09-21T14:13:23.000Z","messageType":"TWEET","content":{"tweetId":"2102038478844854272","text":"two","author":{"id":"7","handle":"@bob","name":"N"}},"meta":{"tweetId":"2102038478844854272","ocr":{"text":"seen"}}}],"metadata":{"count":1,"handle":"bob","endDate":"2027-01-01T00:00:00Z","type":"TWEET"}}"#
            ]],
        );
        check(
            &rest_of("history_updates=merged"),
            expect![[
                r#"200 {"data":[{"tweetId":"2102038478844854272","twitterId":"7","twitterHandle":"@bob","body":"two, more","link":"","time":"2026-09-21T14:13:22.000Z","receivedTime":"2026-09-21T14:13:23.000Z","messageType":"TWEET","content":{"tweetId":"2102038478844854272","text":"two, more","author":{"id":"7","handle":"@bob","name":"N","followersCount":9},"urls":[ 1.50 ]},"meta":{"tweetId":"2102038478844854272","ocr":{"text":"seen"}}}],"metadata":{"count":1,"handle":"bob","endDate":"2027-01-01T00:00:00Z","type":"TWEET"}}"#
            ]],
        );
        check(
            &ask(&mut rest(&[]), "GET /api/history?type=PROFILE&handles=a&handle=quietkettle", ""),
            expect![[r#"403 {"error":"@a is not a tracked account"}"#]],
        );
        check(
            &ask(&mut rest(&[]), "GET /api/history?type=Follow&limit=5", ""),
            expect![[
                r#"200 {"data":[{"tweetId":"ev-follow-1","twitterId":"11","twitterHandle":"@quietkettle","body":"","link":"","time":"2026-09-21T14:14:30.000Z","receivedTime":"2026-09-21T14:14:30.050Z","messageType":"FOLLOW","content":{"kind":"FOLLOW","eventId":"ev-follow-1","observedAt":1790000070000,"actor":{"id":"11","handle":"@quietkettle"},"target":{"id":"12","handle":"@slowpot"}}}],"metadata":{"count":1,"type":"FOLLOW"}}"#
            ]],
        );
        check(
            &ask(&mut rest(&[]), "GET /api/history?handle=porchswing&startDate=2026-01-01T01:00:00%2B01:00", ""),
            expect![[
                r#"200 {"data":[{"tweetId":"117309440131073234","twitterId":"","twitterHandle":"@porchswing","body":"a porch, a swing","link":"","time":"2026-09-21T14:13:22.000Z","receivedTime":"2026-09-21T14:13:22.250Z","messageType":"TWEET","content":{"tweetId":"117309440131073234","text":"a porch, a swing","createdAt":1790000002000,"author":{"handle":"@porchswing","platform":"truth_social"}},"meta":{"tweetId":"117309440131073234","ocr":{"text":"porch"}}}],"metadata":{"count":1,"handle":"porchswing","startDate":"2026-01-01T01:00:00+01:00","type":"TWEET"}}"#
            ]],
        );
    }

    #[test]
    fn an_author_may_be_nobody() {
        let tape = [(at(1), fixture!("content_bare")), (at(2), fixture!("content"))];
        let bare = ask_at(&mut rest(&[]), &tape, 1, "GET /api/history", "", Instant::now());
        check(
            &shown(&bare),
            expect![[
                r#"200 {"data":[{"tweetId":"2102038470875676672","twitterId":"","twitterHandle":null,"body":"bare","link":"","time":"2026-09-21T14:13:20.100Z","receivedTime":"2026-09-21T14:13:21.000Z","messageType":"TWEET","content":{"tweetId":"2102038470875676672","text":"bare","createdAt":1790000000100,"author":{}}}],"metadata":{"count":1,"type":"TWEET"}}"#
            ]],
        );
        // The same post again: the last version counts, and the provider's own time of receipt.
        let whole = ask_at(&mut rest(&[]), &tape, 2, "GET /api/history?handles[]=quietkettle,", "", Instant::now());
        let body: serde_json::Value = serde_json::from_slice(&whole.body).unwrap();
        let row = &body["data"][0];
        assert_eq!(
            (row["receivedTime"].as_str(), row["twitterId"].as_str()),
            (Some("2026-09-21T14:13:20.308Z"), Some("4400112233445566778"))
        );
        assert_eq!(body["metadata"], json!({"count": 1, "handle": "quietkettle", "type": "TWEET"}));
    }

    #[test]
    fn finds_by_time_and_by_receipt() {
        let second = |n: i64| format!("2026-09-21T14:13:{n:02}.000Z");
        let span = |from: i64, to: i64| format!("startDate={}&endDate={}", second(20 + from), second(20 + to));
        let mut all = String::new();
        let received = "history_bounds=received";
        let cases: &[(&[&str], i64, String)] = &[
            (&[], 200, String::new()),
            (&[], 4, String::new()),
            (&[], 5, String::new()),
            (&[], 29, String::new()),
            (&[], 200, "limit=2".to_owned()),
            (&[], 200, "limit=0".to_owned()),
            (&[], 200, "limit=-7".to_owned()),
            (&[], 200, "handle=ann&handle[]=bob".to_owned()),
            (&[], 200, "handles=Ann,%40bob&limit=9999".to_owned()),
            (&[], 200, span(2, 8)),
            (&["history_edges=excluded"], 200, span(2, 8)),
            (&[], 200, span(8, 2)),
            (&["history_deleted=gone"], 200, String::new()),
            (&["history_deleted=gone"], 200, "limit=2&handle=ann".to_owned()),
            (&["history_deleted=gone"], 19, String::new()),
            (&[received], 200, String::new()),
            (&[received], 200, span(3, 11)),
            (&[received, "history_edges=excluded"], 200, span(3, 11)),
            (&[received], 200, format!("limit=1&{}", span(0, 30))),
            (&[received, "history_deleted=gone"], 200, format!("limit=2&{}", span(0, 12))),
        ];
        for (switches, seconds, query) in cases {
            all += &format!("{switches:?} at {seconds}: {query}\n  {}\n", rows(switches, *seconds, query));
        }
        check(
            &all,
            expect![[r#"
                [] at 200: 
                  ten@30/31 late@28/50 a porch, a swing@22/22+ two@22/23+ zero@20/21
                [] at 4: 
                  a porch, a swing@22/22 two@22/23 zero@20/21
                [] at 5: 
                  a porch, a swing@22/22 two@22/23+ zero@20/21
                [] at 29: 
                  ten@30/31 late@28/50 a porch, a swing@22/22 two@22/23+ zero@20/21
                [] at 200: limit=2
                  ten@30/31 late@28/50
                [] at 200: limit=0
                  ten@30/31
                [] at 200: limit=-7
                  ten@30/31
                [] at 200: handle=ann&handle[]=bob
                  ten@30/31 late@28/50 two@22/23+ zero@20/21
                [] at 200: handles=Ann,%40bob&limit=9999
                  ten@30/31 late@28/50 two@22/23+ zero@20/21
                [] at 200: startDate=2026-09-21T14:13:22.000Z&endDate=2026-09-21T14:13:28.000Z
                  late@28/50 a porch, a swing@22/22+ two@22/23+
                ["history_edges=excluded"] at 200: startDate=2026-09-21T14:13:22.000Z&endDate=2026-09-21T14:13:28.000Z
                  nothing
                [] at 200: startDate=2026-09-21T14:13:28.000Z&endDate=2026-09-21T14:13:22.000Z
                  nothing
                ["history_deleted=gone"] at 200: 
                  late@28/50 a porch, a swing@22/22+ two@22/23+ zero@20/21
                ["history_deleted=gone"] at 200: limit=2&handle=ann
                  late@28/50 zero@20/21
                ["history_deleted=gone"] at 19: 
                  ten@30/31 late@28/50 a porch, a swing@22/22 two@22/23+ zero@20/21
                ["history_bounds=received"] at 200: 
                  late@28/50 ten@30/31 two@22/23+ a porch, a swing@22/22+ zero@20/21
                ["history_bounds=received"] at 200: startDate=2026-09-21T14:13:23.000Z&endDate=2026-09-21T14:13:31.000Z
                  ten@30/31 two@22/23+
                ["history_bounds=received", "history_edges=excluded"] at 200: startDate=2026-09-21T14:13:23.000Z&endDate=2026-09-21T14:13:31.000Z
                  nothing
                ["history_bounds=received"] at 200: limit=1&startDate=2026-09-21T14:13:20.000Z&endDate=2026-09-21T14:13:50.000Z
                  late@28/50
                ["history_bounds=received", "history_deleted=gone"] at 200: limit=2&startDate=2026-09-21T14:13:20.000Z&endDate=2026-09-21T14:13:32.000Z
                  two@22/23+ zero@20/21
            "#]],
        );
    }

    #[test]
    fn every_deleted_post_of_an_instant_is_skipped() {
        let mut tape: Vec<_> = (0..7)
            .map(|n| {
                let (at, text) = content(5, 6, "ann", "x");
                (at, text.replace(&id(5).to_string(), &(id(5) + n).to_string()))
            })
            .collect();
        for n in 1..7 {
            let (at, text) = tweet("delete", 5, 7, "");
            tape.push((at, text.replace(&id(5).to_string(), &(id(5) + n).to_string())));
        }
        for switch in ["history_bounds=time", "history_bounds=received"] {
            let mut rest = rest(&[switch, "history_deleted=gone"]);
            let response = ask_at(&mut rest, &tape, 9, "GET /api/history?limit=1", "", Instant::now());
            let body: serde_json::Value = serde_json::from_slice(&response.body).unwrap();
            assert_eq!(body["data"][0]["tweetId"], id(5).to_string(), "{switch}");
        }
    }

    #[test]
    fn refuses() {
        let mut all = String::new();
        for line in [
            "GET /api/other",
            "POST /api/history",
            "GET /api/add-account",
            "POST /api/remove-account",
            "PUT /api/me",
            "GET /api/history?limit=many",
            "GET /api/history?limit=",
            "GET /api/history?type=LIKE",
            "GET /api/history?startDate=yesterday",
            "GET /api/history?endDate=2026-02-30T00:00:00Z",
            "GET /api/history?handle=stranger",
            "GET /api/history?handles=ann,stranger",
            "GET /api/history?handle=%22%7b",
        ] {
            all += &format!("{line}\n  {}\n", ask(&mut rest(&[]), line, ""));
        }
        all += &ask(&mut rest(&["plan=basic"]), "GET /api/history", "");
        check(
            &all,
            expect![[r#"
            GET /api/other
              404 {"error":"not found"}
            POST /api/history
              405 {"error":"method not allowed"}
            GET /api/add-account
              405 {"error":"method not allowed"}
            POST /api/remove-account
              405 {"error":"method not allowed"}
            PUT /api/me
              405 {"error":"method not allowed"}
            GET /api/history?limit=many
              400 {"error":"limit must be a whole number"}
            GET /api/history?limit=
              400 {"error":"limit must be a whole number"}
            GET /api/history?type=LIKE
              400 {"error":"type must be TWEET, PROFILE or FOLLOW"}
            GET /api/history?startDate=yesterday
              400 {"error":"startDate must be an ISO 8601 date and time"}
            GET /api/history?endDate=2026-02-30T00:00:00Z
              400 {"error":"endDate must be an ISO 8601 date and time"}
            GET /api/history?handle=stranger
              403 {"error":"@stranger is not a tracked account"}
            GET /api/history?handles=ann,stranger
              403 {"error":"@stranger is not a tracked account"}
            GET /api/history?handle=%22%7b
              403 {"error":"@\"{ is not a tracked account"}
            403 {"error":"your plan does not include the history API"}"#]],
        );
        let allow = ask_at(&mut rest(&[]), &[], 0, "GET /api/remove-account", "", Instant::now());
        assert_eq!(allow.header("allow"), Some("DELETE"));
    }

    #[test]
    fn takes_the_key_by_header_or_query() {
        let mut rest = rest(&[]);
        let mut ask = |query: &str, headers: &[(&str, &str)]| {
            let headers: Vec<_> = headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
            let asked = Asked { method: "GET", path: "/api/me", query, headers: &headers, body: b"", wants_upgrade: false };
            with_past(Provider::Tweetstream, &[], at(0), |past| rest.asked(&asked, past, Instant::now()).status)
        };
        assert_eq!(ask("", &[("authorization", "Bearer k")]), 200);
        assert_eq!(ask("apiKey=k", &[]), 200);
        assert_eq!(ask("apiKey=other", &[]), 401);
        assert_eq!(ask("apiKey=k", &[("authorization", "Basic k")]), 401);
        assert_eq!(ask("", &[]), 401);
        assert!(!format!("{rest:?}").contains("\"k\""));
    }

    #[test]
    fn counts_requests_for_history() {
        let mut rest_of = rest(&["history_per_minute=2"]);
        let start = Instant::now();
        let mut ask = |after_ms: u64| {
            let response = ask_at(&mut rest_of, &[], 0, "GET /api/history", "", start + Duration::from_millis(after_ms));
            (response.status, response.retry_after().map(|wait| wait.as_secs()))
        };
        let said = [ask(0), ask(10_000), ask(20_500), ask(60_000)];
        assert_eq!(said, [(200, None), (200, None), (429, Some(40)), (200, None)]);
        let mut settings = RestSettings { rate_limits: false, ..RestSettings::default() };
        settings.switches.set("tweetstream.history_per_minute=1").unwrap();
        let mut free = Rest::new(settings);
        let n_ok = (0..9).filter(|_| ask_at(&mut free, &[], 0, "GET /api/history", "", start).status == 200).count();
        assert_eq!(n_ok, 9);
    }

    #[test]
    fn changes_the_watchlist() {
        let mut rest_of = rest(&["accounts_limit=6"]);
        let mut all = String::new();
        for (line, body) in [
            ("GET /api/me", ""),
            ("POST /api/add-account", r#"{"accounts":"@NewOne"}"#),
            ("POST /api/add-account", r#"{"accounts":["newone","bob",5,"a b","","one_more","@BOB"]}"#),
            ("GET /api/history?handle=newone", ""),
            ("POST /api/add-account", r#"{"accounts":["too_many"]}"#),
            ("DELETE /api/remove-account", r#"{"accounts":["ann","@Ann","nobody"]}"#),
            ("GET /api/history?handle=ann", ""),
            ("GET /api/me", ""),
            ("POST /api/add-account", r#"{"accounts":"Ann"}"#),
            ("GET /api/history?handle=ann&limit=1&startDate=2027-01-01T00:00:00Z", ""),
            ("POST /api/add-account", ""),
            ("POST /api/add-account", "[]"),
            ("POST /api/add-account", r#"{"accounts":[]}"#),
            ("DELETE /api/remove-account", r#"{"accounts":5}"#),
        ] {
            all += &format!("{line} {body}\n  {}\n", ask(&mut rest_of, line, body));
        }
        check(
            &all,
            expect![[r#"
            GET /api/me 
              200 {"plan":"ELITE","trackedAccounts":{"count":4,"handles":["ann","bob","porchswing","quietkettle"],"limit":6},"websocket":{"active":0,"count":0,"limit":10}}
            POST /api/add-account {"accounts":"@NewOne"}
              200 {"action":"follow","error":null,"requestId":"ad1b9de9-1051-4527-8407-147d7a055690","results":[{"handle":"@NewOne","input":"@NewOne","normalizedHandle":"newone","state":"added"}],"summary":{"failed":0,"succeeded":1,"total":1}}
            POST /api/add-account {"accounts":["newone","bob",5,"a b","","one_more","@BOB"]}
              207 {"action":"follow","error":null,"requestId":"ff14e14c-208d-4145-8055-8c2e333a73da","results":[{"handle":"@newone","input":"newone","normalizedHandle":"newone","state":"already_following"},{"handle":"@bob","input":"bob","normalizedHandle":"bob","state":"already_following"},{"input":"5","message":"not a handle","state":"invalid_input"},{"input":"a b","message":"not a handle","state":"invalid_input"},{"input":"","message":"not a handle","state":"invalid_input"},{"handle":"@one_more","input":"one_more","normalizedHandle":"one_more","state":"added"},{"handle":"@BOB","input":"@BOB","normalizedHandle":"bob","state":"duplicate"}],"summary":{"failed":3,"succeeded":4,"total":7}}
            GET /api/history?handle=newone 
              200 {"data":[],"metadata":{"count":0,"handle":"newone","type":"TWEET"}}
            POST /api/add-account {"accounts":["too_many"]}
              400 {"action":"follow","error":"no account could be changed","requestId":"66022684-83bd-4c7f-85dc-d1d1a3467612","results":[{"handle":"@too_many","input":"too_many","message":"the plan's limit of tracked accounts is reached","normalizedHandle":"too_many","state":"failed"}],"summary":{"failed":1,"succeeded":0,"total":1}}
            DELETE /api/remove-account {"accounts":["ann","@Ann","nobody"]}
              200 {"action":"unfollow","error":null,"requestId":"6e9f4381-3f86-4af1-879f-96ba064cd3b3","results":[{"handle":"@ann","input":"ann","normalizedHandle":"ann","state":"removed"},{"handle":"@Ann","input":"@Ann","normalizedHandle":"ann","state":"duplicate"},{"handle":"@nobody","input":"nobody","normalizedHandle":"nobody","state":"not_following"}],"summary":{"failed":0,"succeeded":3,"total":3}}
            GET /api/history?handle=ann 
              403 {"error":"@ann is not a tracked account"}
            GET /api/me 
              200 {"plan":"ELITE","trackedAccounts":{"count":5,"handles":["bob","newone","one_more","porchswing","quietkettle"],"limit":6},"websocket":{"active":0,"count":0,"limit":10}}
            POST /api/add-account {"accounts":"Ann"}
              200 {"action":"follow","error":null,"requestId":"dd56ba6c-bd56-451c-8a73-46def88b8fa8","results":[{"handle":"@Ann","input":"Ann","normalizedHandle":"ann","state":"added"}],"summary":{"failed":0,"succeeded":1,"total":1}}
            GET /api/history?handle=ann&limit=1&startDate=2027-01-01T00:00:00Z 
              200 {"data":[],"metadata":{"count":0,"handle":"ann","startDate":"2027-01-01T00:00:00Z","type":"TWEET"}}
            POST /api/add-account 
              400 {"error":"the body is not valid JSON"}
            POST /api/add-account []
              400 {"error":"accounts must be a handle or a list of handles"}
            POST /api/add-account {"accounts":[]}
              400 {"error":"accounts must be a handle or a list of handles"}
            DELETE /api/remove-account {"accounts":5}
              400 {"error":"accounts must be a handle or a list of handles"}
        "#]],
        );
    }

    #[test]
    fn hears_of_accounts_before_they_say_anything() {
        let mut rest = rest(&["plan=scale"]);
        rest.set_connections(2);
        let mut me = |seconds: i64| ask_at(&mut rest, &tape(), seconds, "GET /api/me", "", Instant::now());
        assert_eq!(me(0).header("cache-control"), Some("private, no-store"));
        check(
            &[shown(&me(0)), shown(&me(3)), shown(&me(96))].join("\n"),
            expect![[r#"
                200 {"plan":"ENTERPRISE","trackedAccounts":{"count":4,"handles":["ann","bob","porchswing","quietkettle"],"limit":null},"websocket":{"active":2,"count":2,"limit":100}}
                200 {"plan":"ENTERPRISE","trackedAccounts":{"count":4,"handles":["ann","bob","porchswing","quietkettle"],"limit":null},"websocket":{"active":2,"count":2,"limit":100}}
                200 {"plan":"ENTERPRISE","trackedAccounts":{"count":4,"handles":["ann","bob","porchswing","quietkettle"],"limit":null},"websocket":{"active":2,"count":2,"limit":100}}"#]],
        );
    }

    #[test]
    fn a_removed_account_is_not_in_the_history() {
        let mut rest = rest(&[]);
        ask(&mut rest, "DELETE /api/remove-account", r#"{"accounts":"ann"}"#);
        let answer = ask(&mut rest, "GET /api/history", "");
        assert!(answer.contains("\"two\"") && !answer.contains("\"ten\""), "{answer}");
    }

    #[test]
    fn an_envelope_that_cannot_be_read_is_an_error_inside() {
        let mut index = Index::default();
        index.note(at(1), &decode(Provider::Tweetstream, content(0, 1, "ann", "zero").1.as_bytes()), 5);
        let mut shelf = crate::provider::past::Torn;
        let headers = [("authorization".to_owned(), "Bearer k".to_owned())];
        for line in ["GET /api/history", "GET /api/me", "GET /api/history?handle=ann"] {
            let target = line.strip_prefix("GET ").unwrap();
            let (path, query) = target.split_once('?').unwrap_or((target, ""));
            let asked = Asked { method: "GET", path, query, headers: &headers, body: b"", wants_upgrade: false };
            let mut past = Past::new(Provider::Tweetstream, &mut index, &mut shelf, at(9));
            assert_eq!(
                shown(&rest(&[]).asked(&asked, &mut past, Instant::now())),
                r#"500 {"error":"internal server error"}"#,
                "{line}"
            );
        }
    }
}
