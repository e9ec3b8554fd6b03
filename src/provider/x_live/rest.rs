//! The fake X beside the live connection: who may ask what, and how often.
//!
//! Owns the addresses, the cookies, the pace and the complaints. `totals.rs` answers what a post's counters are,
//! `dm.rs` what was said in a conversation.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::server::lets_in;
use super::{NOT_AUTHENTICATED, dm, totals};
use crate::model::{Provider, Response, Secret};
use crate::provider::past::{Past, Unreadable};
use crate::provider::rest::RateLimit;
use crate::provider::{Asked, RestSettings};

/// Span of every limit. Documented: twikit's `ratelimits.md`.
const WINDOW: Duration = Duration::from_secs(15 * 60);

/// Whose pace a request without cookies counts to.
const GUEST: &str = "guest";

/// What can be asked, with its limit in 15 minutes.
///
/// Documented: 150 for `TweetDetail`, 900 for a conversation, 450 for the inbox. Observed: 500 for both snapshots by
/// id. `user_updates` is taken to be like the inbox. Source: twikit's `ratelimits.md`, and a public toolkit's notes.
const ENDPOINTS: [(Endpoint, usize); 6] = [
    (Endpoint::Snapshots, 500),
    (Endpoint::Snapshot, 500),
    (Endpoint::Detail, 150),
    (Endpoint::Conversation, 900),
    (Endpoint::UserUpdates, 450),
    (Endpoint::Inbox, 450),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Endpoint {
    Snapshots,
    Snapshot,
    Detail,
    Conversation,
    UserUpdates,
    Inbox,
}

impl Endpoint {
    /// The endpoint of a path, with the conversation if it has one.
    fn of(path: &str) -> Option<(Self, &str)> {
        let path = path.strip_prefix("/i/api").unwrap_or(path);
        if let Some(rest) = path.strip_prefix("/graphql/") {
            // The id of a query changes with X's releases: any will do.
            let (query_id, operation) = rest.split_once('/')?;
            let endpoint = match operation {
                "TweetResultsByRestIds" => Self::Snapshots,
                "TweetResultByRestId" => Self::Snapshot,
                "TweetDetail" => Self::Detail,
                _ => return None,
            };
            return (!query_id.is_empty()).then_some((endpoint, ""));
        }
        match path.strip_prefix("/1.1/dm/")?.strip_suffix(".json")? {
            "user_updates" => Some((Self::UserUpdates, "")),
            "inbox_initial_state" => Some((Self::Inbox, "")),
            rest => {
                let conversation = rest.strip_prefix("conversation/")?;
                let is_plain = !conversation.is_empty() && !conversation.contains('/');
                is_plain.then_some((Self::Conversation, conversation))
            }
        }
    }
}

/// History and management.
#[derive(Debug)]
pub struct Rest {
    settings: RestSettings,
    limits: Vec<(Endpoint, usize, RateLimit)>,
}

/// Why a request gets no answer it wants.
#[derive(Debug)]
pub(super) enum Refusal {
    /// A parameter is not there.
    Missing(&'static str),
    /// A parameter is not what it should be.
    Invalid(&'static str),
    /// Ours: an envelope cannot be read.
    Unreadable(Unreadable),
}

impl From<Unreadable> for Refusal {
    fn from(error: Unreadable) -> Self {
        Self::Unreadable(error)
    }
}

impl Rest {
    /// Before anybody asked for anything.
    pub fn new(settings: RestSettings) -> Self {
        let limits = ENDPOINTS.map(|(endpoint, limit)| (endpoint, limit, RateLimit::new(limit, WINDOW))).into();
        Self { settings, limits }
    }

    /// Answers a request.
    pub fn asked(&mut self, asked: &Asked<'_>, past: &mut Past<'_>, now: Instant) -> Response {
        let Some((endpoint, conversation)) = Endpoint::of(asked.path) else {
            return complaint(404, 34, "Sorry, that page does not exist.");
        };
        let Some(token) = self.lets_in(endpoint, asked) else {
            return complaint(401, NOT_AUTHENTICATED, "Could not authenticate you.");
        };
        if asked.method != "GET" {
            return complaint(405, 86, "This method requires another HTTP method.");
        }
        let (headers, allowed) = self.count(endpoint, token.expose(), past, now);
        let mut response = if allowed {
            self.answer(endpoint, conversation, asked, past).unwrap_or_else(refuse)
        } else {
            complaint(429, 88, "Rate limit exceeded.")
        };
        response.headers.extend(headers);
        response
    }

    /// Documented: twikit's guest client asks for one post with a guest token and no cookies. Where a key is set, only
    /// that key comes in.
    fn lets_in(&self, endpoint: Endpoint, asked: &Asked<'_>) -> Option<Secret> {
        let guest = || {
            let open = self.settings.key.is_none() && endpoint == Endpoint::Snapshot;
            let token = asked.header("x-guest-token").filter(|token| open && !token.is_empty());
            token.and_then(|_| Secret::new(GUEST))
        };
        lets_in(self.settings.key.as_ref(), asked).or_else(guest)
    }

    /// Whether it is within the limit, and what X's headers say of that. Observed: the reset is in Unix seconds.
    fn count(&mut self, endpoint: Endpoint, token: &str, past: &Past<'_>, now: Instant) -> (Vec<(String, String)>, bool) {
        let known = self.limits.iter_mut().find(|(known, ..)| *known == endpoint);
        let Some((_, limit, counter)) = known.filter(|_| self.settings.rate_limits) else { return (Vec::new(), true) };
        let said = counter.ask(token, now);
        let reset = self.settings.resets_at(past, now, said.resets_in).millis().div_euclid(1_000).saturating_add(1);
        let headers = [
            ("x-rate-limit-limit", limit.to_string()),
            ("x-rate-limit-remaining", said.remaining.to_string()),
            ("x-rate-limit-reset", reset.to_string()),
        ];
        (headers.map(|(name, value)| (name.to_owned(), value)).into(), said.allowed)
    }

    fn answer(
        &self,
        endpoint: Endpoint,
        conversation: &str,
        asked: &Asked<'_>,
        past: &mut Past<'_>,
    ) -> Result<Response, Refusal> {
        let zero = self.settings.switches.word(Provider::XLive, "unsaid_counters") == "zero";
        let page = usize::try_from(self.settings.switches.number(Provider::XLive, "dm_page")).unwrap_or(1);
        let body = match endpoint {
            Endpoint::Snapshots => totals::of_many(&variables(asked)?, past, zero)?,
            Endpoint::Snapshot => totals::of_one(&variables(asked)?, past, zero)?,
            Endpoint::Detail => totals::detail(&variables(asked)?, past, zero)?,
            Endpoint::Conversation => dm::conversation(conversation, asked, past, page)?,
            Endpoint::UserUpdates => dm::user_updates(asked, past)?,
            Endpoint::Inbox => dm::inbox(past, page)?,
        };
        Ok(Response::json(200, body.to_string()))
    }
}

/// The variables of a GraphQL request: JSON in the query.
fn variables(asked: &Asked<'_>) -> Result<Value, Refusal> {
    let text = asked.query_value("variables").ok_or(Refusal::Missing("variables"))?;
    let variables: Value = serde_json::from_str(&text).map_err(|_| Refusal::Invalid("variables"))?;
    if variables.is_object() { Ok(variables) } else { Err(Refusal::Invalid("variables")) }
}

/// Documented: codes 38 and 44 are for a parameter that is missing or invalid, 131 is an error inside; X's page
/// "Response codes". That both are HTTP 400 is inferred.
fn refuse(refusal: Refusal) -> Response {
    match refusal {
        Refusal::Missing(name) => complaint(400, 38, &format!("{name} parameter is missing.")),
        Refusal::Invalid(name) => complaint(400, 44, &format!("{name} parameter is invalid.")),
        Refusal::Unreadable(problem) => {
            tracing::warn!(%problem, "the fake X cannot answer");
            complaint(500, 131, "Internal error.")
        }
    }
}

fn complaint(status: u16, code: i64, message: &str) -> Response {
    Response::json(status, json!({ "errors": [{ "code": code, "message": message }] }).to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::model::{TweetId, UnixMicros};
    use crate::provider::past::{Index, with_past};
    use crate::provider::{decode, percent_encode};
    use expect_test::{Expect, expect};

    const POST: &str = "2102038470875676672";
    const COOKIES: (&str, &str) = ("cookie", "auth_token=k; ct0=c");

    /// 2026-09-21T14:13:20Z and so many seconds.
    fn at(seconds: i64) -> UnixMicros {
        UnixMicros::from_millis(1_790_000_000_000 + seconds * 1_000)
    }

    macro_rules! fixture {
        ($case:literal) => {
            include_str!(concat!("../../../fixtures/x_live/", $case, ".json")).trim_ascii_end().to_owned()
        };
    }

    fn engagement(id: &str, body: &str) -> String {
        format!(r#"{{"topic":"/tweet_engagement/{id}","payload":{{"tweet_engagement":{body}}}}}"#)
    }

    fn dm(conversation: &str, user: &str) -> String {
        let body = format!(r#"{{"conversation_id":"{conversation}","user_id":"{user}"}}"#);
        format!(r#"{{"topic":"/dm_update/{conversation}","payload":{{"dm_update":{body}}}}}"#)
    }

    fn tape() -> Vec<(UnixMicros, String)> {
        vec![
            (at(0), fixture!("config")),
            (at(1), fixture!("tweet_engagement")),
            (at(2), fixture!("tweet_engagement_views")),
            (at(3), fixture!("engagement_and_unknown")),
            (at(4), engagement(POST, r#"{"like_count":"5","retweet_count":"18446744073709551615","reply_count":null}"#)),
            (at(5), engagement("20", r#"{"view_count":9,"quote_count":"x"}"#)),
            (at(10), dm("101-202", "101")),
            (at(10), dm("101-202", "202")),
            (at(11), fixture!("dm_typing")),
            (at(12), fixture!("dm_update")),
            (at(13), dm("101-202", "101")),
            (at(14), dm("101-202", "101").replace(r#","user_id":"101""#, "")),
        ]
    }

    fn rest(switches: &[&str]) -> Rest {
        let mut settings = RestSettings { key: Secret::new("k"), ..RestSettings::default() };
        for switch in switches {
            settings.switches.set(&format!("x_live.{switch}")).unwrap();
        }
        Rest::new(settings)
    }

    fn ask_with(rest: &mut Rest, tape: &[(UnixMicros, String)], seconds: i64, line: &str, header: (&str, &str)) -> Response {
        let headers = [(header.0.to_owned(), header.1.to_owned())];
        let (method, target) = line.split_once(' ').unwrap();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let asked = Asked { method, path, query, headers: &headers, body: b"", wants_upgrade: false };
        let tape: Vec<_> = tape.iter().map(|(at, text)| (*at, text.as_str())).collect();
        with_past(Provider::XLive, &tape, at(seconds), |past| rest.asked(&asked, past, Instant::now()))
    }

    fn ask(rest: &mut Rest, seconds: i64, line: &str) -> Response {
        ask_with(rest, &tape(), seconds, line, COOKIES)
    }

    fn shown(response: &Response) -> String {
        format!("{} {}", response.status, std::str::from_utf8(&response.body).unwrap())
    }

    fn json_of(response: &Response) -> Value {
        assert_eq!(response.status, 200, "{}", shown(response));
        serde_json::from_slice(&response.body).unwrap()
    }

    fn graphql(operation: &str, variables: &str) -> String {
        format!("GET /i/api/graphql/any-id/{operation}?variables={}&features=%7B%7D", percent_encode(variables))
    }

    /// The counters of a result, or what it is instead.
    fn counters(result: &Value) -> String {
        let Some(legacy) = result["result"]["legacy"].as_object() else { return result.to_string() };
        let counters: Vec<_> = legacy.iter().filter(|(name, _)| name.ends_with("_count")).collect();
        let counters: Vec<_> = counters.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        format!("{} {} {}", result["result"]["rest_id"], counters.join(" "), result["result"]["views"])
    }

    fn check(text: &str, expected: Expect) {
        expected.assert_eq(text);
    }

    #[test]
    fn a_snapshot_has_the_last_total_of_each_counter() {
        let mut all = String::new();
        let line = graphql("TweetResultByRestId", &format!(r#"{{"tweetId":"{POST}"}}"#));
        for (switch, seconds) in
            [("absent", 0), ("absent", 1), ("absent", 2), ("absent", 3), ("absent", 9), ("zero", 1), ("zero", 9)]
        {
            let response = ask(&mut rest(&[&format!("unsaid_counters={switch}")]), seconds, &line);
            all += &format!("{switch} at {seconds}: {}\n", counters(&json_of(&response)["data"]["tweetResult"]));
        }
        let many = graphql("TweetResultsByRestIds", &format!(r#"{{"tweetIds":["20","7",{POST},"20"],"withVoice":true}}"#));
        for result in json_of(&ask(&mut rest(&[]), 9, &many))["data"]["tweetResult"].as_array().unwrap() {
            all += &format!("{}\n", counters(result));
        }
        check(
            &all,
            expect![[r#"
            absent at 0: {}
            absent at 1: "2102038470875676672" favorite_count=7 {"state":"Enabled"}
            absent at 2: "2102038470875676672" favorite_count=7 quote_count=0 reply_count=3 {"count":"1204","state":"EnabledWithCount"}
            absent at 3: "2102038470875676672" bookmark_count=2 favorite_count=8 quote_count=0 reply_count=3 {"count":"1204","state":"EnabledWithCount"}
            absent at 9: "2102038470875676672" bookmark_count=2 favorite_count=5 quote_count=0 reply_count=3 retweet_count=18446744073709551615 {"count":"1204","state":"EnabledWithCount"}
            zero at 1: "2102038470875676672" bookmark_count=0 favorite_count=7 quote_count=0 reply_count=0 retweet_count=0 {"state":"Enabled"}
            zero at 9: "2102038470875676672" bookmark_count=2 favorite_count=5 quote_count=0 reply_count=3 retweet_count=18446744073709551615 {"count":"1204","state":"EnabledWithCount"}
            "20"  {"count":"9","state":"EnabledWithCount"}
            {}
            "2102038470875676672" bookmark_count=2 favorite_count=5 quote_count=0 reply_count=3 retweet_count=18446744073709551615 {"count":"1204","state":"EnabledWithCount"}
            "20"  {"count":"9","state":"EnabledWithCount"}
        "#]],
        );
    }

    #[test]
    fn a_detail_is_a_thread_of_one() {
        let line = graphql("TweetDetail", &format!(r#"{{"focalTweetId":"{POST}","withV2Timeline":true}}"#));
        check(
            &shown(&ask(&mut rest(&[]), 9, &line)),
            expect![[
                r#"200 {"data":{"threaded_conversation_with_injections_v2":{"instructions":[{"entries":[{"content":{"__typename":"TimelineTimelineItem","entryType":"TimelineTimelineItem","itemContent":{"__typename":"TimelineTweet","itemType":"TimelineTweet","tweet_results":{"result":{"__typename":"Tweet","core":{"user_results":{"result":{"__typename":"User","is_blue_verified":false,"legacy":{"can_dm":false,"can_media_tag":false,"created_at":"Thu Jan 01 00:00:00 +0000 1970","default_profile":true,"default_profile_image":true,"description":"","entities":{"description":{"urls":[]}},"fast_followers_count":0,"favourites_count":0,"followers_count":0,"friends_count":0,"has_custom_timelines":false,"is_translator":false,"listed_count":0,"location":"","media_count":0,"name":"","normal_followers_count":0,"pinned_tweet_ids_str":[],"possibly_sensitive":false,"profile_image_url_https":"","screen_name":"","statuses_count":0,"translator_type":"none","verified":false,"want_retweets":false,"withheld_in_countries":[]},"rest_id":"0"}}},"edit_control":{},"legacy":{"bookmark_count":2,"bookmarked":false,"created_at":"Mon Sep 21 14:13:20 +0000 2026","entities":{},"favorite_count":5,"favorited":false,"full_text":"","id_str":"2102038470875676672","is_quote_status":false,"lang":"und","quote_count":0,"reply_count":3,"retweet_count":18446744073709551615,"retweeted":false},"rest_id":"2102038470875676672","views":{"count":"1204","state":"EnabledWithCount"}}}}},"entryId":"tweet-2102038470875676672","sortIndex":"8172352801416937471"}],"type":"TimelineAddEntries"}]}}}"#
            ]],
        );
        check(
            &shown(&ask(&mut rest(&[]), 0, &line)),
            expect![[
                r#"200 {"data":{},"errors":[{"code":144,"message":"_Missing: No status found with that ID.","path":["threaded_conversation_with_injections_v2"]}]}"#
            ]],
        );
        let short = line.replace("/i/api/graphql", "/graphql");
        assert_eq!(ask(&mut rest(&[]), 9, &short), ask(&mut rest(&[]), 9, &line));
    }

    /// The ids of a page, and what the envelope says of it.
    fn page(rest: &mut Rest, tape: &[(UnixMicros, String)], query: &str) -> (Vec<String>, String) {
        let line = format!("GET /i/api/1.1/dm/conversation/101-202.json?{query}");
        let body = json_of(&ask_with(rest, tape, 1_000, &line, COOKIES));
        let timeline = &body["conversation_timeline"];
        let entries = timeline["entries"].as_array();
        let ids = entries.into_iter().flatten().map(|entry| entry["message"]["id"].as_str().unwrap().to_owned()).collect();
        (ids, timeline["status"].as_str().unwrap().to_owned())
    }

    #[test]
    fn a_conversation_is_one_message_for_each_update() {
        let mut all = String::new();
        for (seconds, target) in [
            (9, "/1.1/dm/conversation/101-202.json?context=FETCH_DM_CONVERSATION_HISTORY"),
            (10, "/1.1/dm/conversation/101-202.json?include_conversation_info=True"),
            (99, "/i/api/1.1/dm/conversation/9988776655443322110.json?include_conversation_info=true"),
            (99, "/i/api/1.1/dm/conversation/nobody.json"),
        ] {
            all += &format!("at {seconds} {target}\n  {}\n", shown(&ask(&mut rest(&[]), seconds, &format!("GET {target}"))));
        }
        check(
            &all,
            expect![[r#"
            at 9 /1.1/dm/conversation/101-202.json?context=FETCH_DM_CONVERSATION_HISTORY
              200 {"conversation_timeline":{"conversations":{},"status":"AT_END","users":{}}}
            at 10 /1.1/dm/conversation/101-202.json?include_conversation_info=True
              200 {"conversation_timeline":{"conversations":{"101-202":{"conversation_id":"101-202","name":"","participants":[{"user_id":"101"},{"user_id":"202"}],"type":"ONE_TO_ONE"}},"entries":[{"message":{"conversation_id":"101-202","id":"2102038512399286278","message_data":{"id":"2102038512399286278","recipient_id":"101","sender_id":"202","text":"","time":"1790000010000"},"time":"1790000010000"}},{"message":{"conversation_id":"101-202","id":"2102038512399286277","message_data":{"id":"2102038512399286277","recipient_id":"202","sender_id":"101","text":"","time":"1790000010000"},"time":"1790000010000"}}],"max_entry_id":"2102038512399286278","min_entry_id":"2102038512399286277","status":"AT_END","users":{}}}
            at 99 /i/api/1.1/dm/conversation/9988776655443322110.json?include_conversation_info=true
              200 {"conversation_timeline":{"conversations":{"9988776655443322110":{"conversation_id":"9988776655443322110","name":"","participants":[],"type":"GROUP_DM"}},"entries":[{"message":{"conversation_id":"9988776655443322110","id":"2102038520787894280","message_data":{"id":"2102038520787894280","sender_id":"101","text":"","time":"1790000012000"},"time":"1790000012000"}}],"max_entry_id":"2102038520787894280","min_entry_id":"2102038520787894280","status":"AT_END","users":{}}}
            at 99 /i/api/1.1/dm/conversation/nobody.json
              200 {"conversation_timeline":{"conversations":{},"status":"AT_END","users":{}}}
        "#]],
        );
        let last = ask(&mut rest(&["dm_page=1"]), 99, "GET /1.1/dm/conversation/101-202.json");
        let message = &json_of(&last)["conversation_timeline"]["entries"][0]["message"]["message_data"];
        assert_eq!((message["sender_id"].as_str(), message["time"].as_str()), (Some(""), Some("1790000014000")));
    }

    #[test]
    fn pages_go_back_by_max_id_and_stop_at_min_id() {
        // Several of one millisecond lie on both sides of a page's edge.
        let tape: Vec<_> = (0..45).map(|n| (at(n / 9), dm("101-202", "101"))).chain([(at(6), dm("8", "101"))]).collect();
        let mut rest = rest(&[]);
        let (mut seen, mut said, mut query) = (Vec::new(), Vec::new(), String::new());
        loop {
            let (ids, status) = page(&mut rest, &tape, &query);
            said.push(format!("{} {status}", ids.len()));
            query = format!("max_id={}", ids.last().unwrap());
            seen.extend(ids);
            if status == "AT_END" {
                break;
            }
        }
        assert_eq!(said, ["20 HAS_MORE", "20 HAS_MORE", "5 AT_END"]);
        let numbers: Vec<u64> = seen.iter().map(|id| id.parse().unwrap()).collect();
        assert!(numbers.is_sorted_by(|a, b| a > b) && numbers.len() == 45);
        assert_eq!(TweetId(numbers[44]).published_at(), Some(at(0)));
        let (ids, status) = page(&mut rest, &tape, &format!("min_id={}&max_id={}", seen[9], seen[4]));
        assert_eq!((ids.as_slice(), status.as_str()), (&seen[5..9], "AT_END"));
        let (none, status) = page(&mut rest, &tape, &format!("max_id={}", seen[44]));
        assert_eq!((none.len(), status.as_str()), (0, "AT_END"));
        assert_eq!(page(&mut rest, &tape, "max_id=5").0.len(), 0);
        assert_eq!(page(&mut rest, &tape, "max_id=18446744073709551615").0.len(), 20);
    }

    #[test]
    fn updates_go_on_from_the_inbox() {
        let mut rest = rest(&["dm_page=2"]);
        let inbox = ask(&mut rest, 12, "GET /i/api/1.1/dm/inbox_initial_state.json");
        check(
            &shown(&inbox),
            expect![[
                r#"200 {"inbox_initial_state":{"conversations":{"101-202":{"conversation_id":"101-202","name":"","participants":[{"user_id":"101"},{"user_id":"202"}],"type":"ONE_TO_ONE"},"9988776655443322110":{"conversation_id":"9988776655443322110","name":"","participants":[],"type":"GROUP_DM"}},"cursor":"2102038520787894280","entries":[{"message":{"conversation_id":"9988776655443322110","id":"2102038520787894280","message_data":{"id":"2102038520787894280","sender_id":"101","text":"","time":"1790000012000"},"time":"1790000012000"}},{"message":{"conversation_id":"101-202","id":"2102038512399286278","message_data":{"id":"2102038512399286278","recipient_id":"101","sender_id":"202","text":"","time":"1790000010000"},"time":"1790000010000"}}],"inbox_timelines":{"trusted":{"min_entry_id":"2102038512399286278","status":"HAS_MORE"},"untrusted":{"status":"AT_END"}},"users":{}}}"#
            ]],
        );
        let cursor = json_of(&inbox)["inbox_initial_state"]["cursor"].as_str().unwrap().to_owned();
        let none = ask(&mut rest, 12, &format!("GET /1.1/dm/user_updates.json?cursor={cursor}&active_conversation_id=1"));
        check(&shown(&none), expect![[r#"200 {"user_events":{"conversations":{},"cursor":"2102038520787894280","users":{}}}"#]]);
        let more = ask(&mut rest, 99, &format!("GET /1.1/dm/user_updates.json?cursor={cursor}"));
        check(
            &shown(&more),
            expect![[
                r#"200 {"user_events":{"conversations":{"101-202":{"conversation_id":"101-202","name":"","participants":[{"user_id":"101"},{"user_id":"202"}],"type":"ONE_TO_ONE"}},"cursor":"2102038529176502282","entries":[{"message":{"conversation_id":"101-202","id":"2102038524982198281","message_data":{"id":"2102038524982198281","recipient_id":"202","sender_id":"101","text":"","time":"1790000013000"},"time":"1790000013000"}},{"message":{"conversation_id":"101-202","id":"2102038529176502282","message_data":{"id":"2102038529176502282","recipient_id":"101","sender_id":"","text":"","time":"1790000014000"},"time":"1790000014000"}}],"users":{}}}"#
            ]],
        );
        check(
            &shown(&ask(&mut rest, 0, "GET /1.1/dm/inbox_initial_state.json")),
            expect![[
                r#"200 {"inbox_initial_state":{"conversations":{},"cursor":"0","entries":[],"inbox_timelines":{"trusted":{"status":"AT_END"},"untrusted":{"status":"AT_END"}},"users":{}}}"#
            ]],
        );
        let many: Vec<_> = (0..450).map(|n| (at(n / 9), dm("8", "1"))).collect();
        let (mut sizes, mut cursor) = (Vec::new(), "0".to_owned());
        for _ in 0..4 {
            let line = format!("GET /1.1/dm/user_updates.json?cursor={cursor}");
            let body = json_of(&ask_with(&mut rest, &many, 99, &line, COOKIES));
            sizes.push(body["user_events"]["entries"].as_array().map_or(0, Vec::len));
            cursor = body["user_events"]["cursor"].as_str().unwrap().to_owned();
        }
        assert_eq!(sizes, [200, 200, 50, 0]);
    }

    #[test]
    fn refuses() {
        let mut all = String::new();
        for line in [
            "GET /1.1/other.json",
            "GET /1.1/dm/conversation/.json",
            "GET /1.1/dm/conversation/a/b.json",
            "GET /1.1/dm/conversation/1",
            "GET /graphql/TweetDetail",
            "GET /graphql/id/Likes",
            "POST /1.1/dm/user_updates.json",
            "GET /graphql/id/TweetDetail",
            "GET /graphql/id/TweetDetail?variables=%7B",
            "GET /graphql/id/TweetDetail?variables=%5B%5D",
            "GET /graphql/id/TweetDetail?variables=%7B%7D",
            "GET /graphql/id/TweetDetail?variables=%7B%22focalTweetId%22%3A1e3%7D",
            "GET /graphql/id/TweetResultByRestId?variables=%7B%22focalTweetId%22%3A%221%22%7D",
            "GET /graphql/id/TweetResultsByRestIds?variables=%7B%22tweetIds%22%3A%221%22%7D",
            "GET /graphql/id/TweetResultsByRestIds?variables=%7B%22tweetIds%22%3A%5B%22-1%22%5D%7D",
            "GET /1.1/dm/conversation/1.json?max_id=x",
            "GET /1.1/dm/conversation/1.json?min_id=99999999999999999999",
            "GET /1.1/dm/user_updates.json?cursor=GRwmiICw",
        ] {
            all += &format!("{line}\n  {}\n", shown(&ask(&mut rest(&[]), 9, line)));
        }
        check(
            &all,
            expect![[r#"
            GET /1.1/other.json
              404 {"errors":[{"code":34,"message":"Sorry, that page does not exist."}]}
            GET /1.1/dm/conversation/.json
              404 {"errors":[{"code":34,"message":"Sorry, that page does not exist."}]}
            GET /1.1/dm/conversation/a/b.json
              404 {"errors":[{"code":34,"message":"Sorry, that page does not exist."}]}
            GET /1.1/dm/conversation/1
              404 {"errors":[{"code":34,"message":"Sorry, that page does not exist."}]}
            GET /graphql/TweetDetail
              404 {"errors":[{"code":34,"message":"Sorry, that page does not exist."}]}
            GET /graphql/id/Likes
              404 {"errors":[{"code":34,"message":"Sorry, that page does not exist."}]}
            POST /1.1/dm/user_updates.json
              405 {"errors":[{"code":86,"message":"This method requires another HTTP method."}]}
            GET /graphql/id/TweetDetail
              400 {"errors":[{"code":38,"message":"variables parameter is missing."}]}
            GET /graphql/id/TweetDetail?variables=%7B
              400 {"errors":[{"code":44,"message":"variables parameter is invalid."}]}
            GET /graphql/id/TweetDetail?variables=%5B%5D
              400 {"errors":[{"code":44,"message":"variables parameter is invalid."}]}
            GET /graphql/id/TweetDetail?variables=%7B%7D
              400 {"errors":[{"code":38,"message":"focalTweetId parameter is missing."}]}
            GET /graphql/id/TweetDetail?variables=%7B%22focalTweetId%22%3A1e3%7D
              400 {"errors":[{"code":44,"message":"focalTweetId parameter is invalid."}]}
            GET /graphql/id/TweetResultByRestId?variables=%7B%22focalTweetId%22%3A%221%22%7D
              400 {"errors":[{"code":38,"message":"tweetId parameter is missing."}]}
            GET /graphql/id/TweetResultsByRestIds?variables=%7B%22tweetIds%22%3A%221%22%7D
              400 {"errors":[{"code":44,"message":"tweetIds parameter is invalid."}]}
            GET /graphql/id/TweetResultsByRestIds?variables=%7B%22tweetIds%22%3A%5B%22-1%22%5D%7D
              400 {"errors":[{"code":44,"message":"tweetIds parameter is invalid."}]}
            GET /1.1/dm/conversation/1.json?max_id=x
              400 {"errors":[{"code":44,"message":"max_id parameter is invalid."}]}
            GET /1.1/dm/conversation/1.json?min_id=99999999999999999999
              400 {"errors":[{"code":44,"message":"min_id parameter is invalid."}]}
            GET /1.1/dm/user_updates.json?cursor=GRwmiICw
              400 {"errors":[{"code":44,"message":"cursor parameter is invalid."}]}
        "#]],
        );
    }

    #[test]
    fn lets_in_by_cookies_and_guests_to_one_thing() {
        let one = graphql("TweetResultByRestId", r#"{"tweetId":"1"}"#);
        let status = |rest: &mut Rest, line: &str, header| ask_with(rest, &[], 0, line, header).status;
        let refused = ask_with(&mut rest(&[]), &[], 0, &one, ("cookie", "auth_token=other; ct0=c"));
        check(&shown(&refused), expect![[r#"401 {"errors":[{"code":32,"message":"Could not authenticate you."}]}"#]]);
        for (header, want) in [(COOKIES, 200), (("cookie", "auth_token=k"), 401), (("x-guest-token", "5"), 401)] {
            assert_eq!(status(&mut rest(&[]), &one, header), want, "{header:?}");
        }
        let mut open = Rest::new(RestSettings::default());
        let detail = one.replace("TweetResultByRestId", "TweetDetail");
        assert_eq!(status(&mut open, &one, ("x-guest-token", "5")), 200);
        assert_eq!(status(&mut open, &detail, ("x-guest-token", "5")), 401);
        assert_eq!(status(&mut open, &one, ("cookie", "auth_token=any; ct0=c")), 200);
    }

    #[test]
    fn counts_requests_by_endpoint() {
        let mut rest_of = rest(&[]);
        let detail = graphql("TweetDetail", r#"{"focalTweetId":"1"}"#);
        let limits = |response: &Response| {
            let of = |name: &str| response.header(&format!("x-rate-limit-{name}")).unwrap_or("-").to_owned();
            format!("{} {} {} {}", response.status, of("limit"), of("remaining"), of("reset"))
        };
        let all: Vec<_> = (0..151).map(|_| limits(&ask(&mut rest_of, 9, &detail))).collect();
        let others = [
            graphql("TweetResultByRestId", "{}"),
            graphql("TweetResultsByRestIds", r#"{"tweetIds":[]}"#),
            "GET /1.1/dm/conversation/1.json".to_owned(),
            "GET /1.1/dm/inbox_initial_state.json".to_owned(),
            "GET /1.1/dm/user_updates.json".to_owned(),
        ];
        let others: Vec<_> = others.iter().map(|line| limits(&ask(&mut rest_of, 9, line))).collect();
        let short = |line: &String| line.rsplit_once(' ').unwrap().0.to_owned();
        let [first, last, over] = [&all[0], &all[149], &all[150]].map(short);
        check(
            &format!("{first} | {last} | {over} | {}", others.iter().map(short).collect::<Vec<_>>().join(" | ")),
            expect!["200 150 149 | 200 150 0 | 429 150 0 | 400 500 499 | 200 500 499 | 200 900 899 | 200 450 449 | 200 450 449"],
        );
        let reset: i64 = all[0].rsplit(' ').next().unwrap().parse().unwrap();
        assert_eq!(reset, at(9).millis() / 1_000 + 901);
        check(
            &shown(&ask(&mut rest_of, 9, &detail)),
            expect![[r#"429 {"errors":[{"code":88,"message":"Rate limit exceeded."}]}"#]],
        );
        let mut free = Rest::new(RestSettings { rate_limits: false, ..RestSettings::default() });
        assert!((0..200).all(|_| limits(&ask(&mut free, 9, &detail)) == "200 - - -"));
    }

    #[test]
    fn an_envelope_that_cannot_be_read_is_an_error_inside() {
        let mut index = Index::default();
        index.note(at(1), &decode(Provider::XLive, engagement("7", "{}").as_bytes()), 5);
        let mut shelf = crate::provider::past::Torn;
        let headers = [(COOKIES.0.to_owned(), COOKIES.1.to_owned())];
        for line in [graphql("TweetDetail", r#"{"focalTweetId":"7"}"#), graphql("TweetResultsByRestIds", r#"{"tweetIds":[7]}"#)] {
            let target = line.strip_prefix("GET ").unwrap();
            let (path, query) = target.split_once('?').unwrap_or((target, ""));
            let asked = Asked { method: "GET", path, query, headers: &headers, body: b"", wants_upgrade: false };
            let mut past = Past::new(Provider::XLive, &mut index, &mut shelf, at(9));
            assert_eq!(
                shown(&rest(&[]).asked(&asked, &mut past, Instant::now())),
                r#"500 {"errors":[{"code":131,"message":"Internal error."}]}"#,
                "{line}"
            );
        }
    }
}
