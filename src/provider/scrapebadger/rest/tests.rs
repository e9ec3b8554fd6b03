//! Every call and every refusal, on a small tape.

use super::*;
use crate::model::{Secret, TweetId, UnixMicros};
use crate::provider::decode;
use crate::provider::past::{Index, Shelf, with_past};
use bytes::Bytes;
use expect_test::{Expect, expect};
use proptest::prelude::*;

/// 2026-01-05T12:00:00Z and so many seconds.
fn second(seconds: i64) -> UnixMicros {
    UnixMicros(1_767_614_400_000_000 + seconds * 1_000_000)
}

/// The id of a post that was published in that second.
fn id(seconds: i64) -> u64 {
    TweetId::first_at(second(seconds)).0
}

const MONITOR: &str = "5a5a5a5a-0000-4000-8000-000000000001";
const RULE: &str = "6b6b6b6b-0000-4000-8000-000000000002";

fn dialect_a(seconds: i64, author: &str, text: &str) -> (UnixMicros, String) {
    let (id, at) = (id(seconds), second(seconds + 1));
    let line = format!(
        r#"{{"event":"tweet.detected","monitor_id":"{MONITOR}","monitor_name":"Keepers","tweet_id":"{id}","author_username":"{author}","tweet_text":"{text}","tweet_url":"https://x.com/{author}/status/{id}","tweet_published_at":"{}","detected_at":"{at}","latency_ms":1000}}"#,
        second(seconds)
    );
    (at, line)
}

fn dialect_b(seconds: i64, late: i64, author: &str, text: &str, kind: &str) -> (UnixMicros, String) {
    let (id, at) = (id(seconds), second(seconds + late));
    let line = format!(
        r#"{{"type":"new_tweet","source":"filter_rule","rule_id":"{RULE}","rule_tag":"fog","tweet_id":"{id}","author_username":"{author}","tweet_text":"{text}","tweet_type":"{kind}","latency_ms":{},"detected_at":"{at}"}}"#,
        late * 1_000
    );
    (at, line)
}

fn dialect_c(seconds: i64, late: i64, author: &str, text: &str, more: &str) -> (UnixMicros, String) {
    let (id, at) = (id(seconds), second(seconds + late));
    let line = format!(
        r#"{{"type":"tweet","monitor_id":"m-2","tweet_id":"{id}","author_username":"{author}","tweet_published_at":"{}","detected_at":"{at}","latency_ms":{},"tweet":{{"id":{id},"text":"{text}","created_at":"Mon Jan 05 12:00:00 +0000 2026","user_id":900100200300400501,"username":"{author}","user_name":"{author} Lantern","media":[],"urls":[],"hashtags":[]{more}}}}}"#,
        second(seconds),
        late * 1_000
    );
    (at, line)
}

/// What happened; looked at from second 100, the last one has not.
fn tape() -> Vec<(UnixMicros, String)> {
    let answer = format!(r#","favorite_count":7,"retweet_count":2,"view_count":88,"in_reply_to_status_id":{}"#, id(10));
    let quote = format!(
        r#","favorite_count":30,"is_quote_status":true,"quoted_status_id":"{}","media":[{{"type":"photo","url":"https://pbs.twimg.com/media/x.jpg"}}]"#,
        id(10)
    );
    vec![
        dialect_a(10, "ann", "fog at six #fog @bob"),
        dialect_b(10, 2, "ann", "fog at six #fog @bob", "original"),
        dialect_b(20, 3, "bob", "RT @ann: fog at six", "retweet"),
        dialect_c(30, 1, "bob", "no fog here", &answer),
        dialect_c(40, 6, "cleo", "look, fog", &quote),
        dialect_c(40, 60, "cleo", "look, fog everywhere", &quote),
        dialect_a(99, "ann", "still fog"),
        dialect_a(200, "ann", "not yet"),
    ]
}

/// A desk with a clock: asks one thing after the other.
struct Desk {
    rest: Rest,
    start: Instant,
}

impl Desk {
    fn new(change: impl FnOnce(&mut RestSettings)) -> Self {
        let mut settings = RestSettings::default();
        change(&mut settings);
        Self { rest: Rest::new(settings), start: Instant::now() }
    }

    fn with(switch: &str) -> Self {
        Self::new(|settings| settings.switches.set(switch).unwrap())
    }

    fn response(&mut self, at: i64, line: &str, key: Option<&str>) -> Response {
        let tape = tape();
        let tape: Vec<_> = tape.iter().map(|(at, line)| (*at, line.as_str())).collect();
        let mut words = line.splitn(3, ' ');
        let (method, target, body) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap_or_default());
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let path = format!("/v1/{path}");
        let headers: Vec<_> = key.iter().map(|key| ("x-api-key".to_owned(), (*key).to_owned())).collect();
        let asked = Asked { method, path: &path, query, headers: &headers, body: body.as_bytes(), wants_upgrade: false };
        let now = self.start + Duration::from_secs(at as u64);
        with_past(Provider::Scrapebadger, &tape, second(at), |past| self.rest.asked(&asked, past, now))
    }

    /// Status and body.
    fn ask_at(&mut self, at: i64, line: &str) -> String {
        let response = self.response(at, line, Some("k"));
        format!("{} {}", response.status, String::from_utf8(response.body.to_vec()).unwrap())
    }

    fn ask(&mut self, line: &str) -> String {
        self.ask_at(100, line)
    }

    /// The body alone.
    fn body(&mut self, line: &str) -> Value {
        serde_json::from_slice(&self.response(100, line, Some("k")).body).unwrap()
    }

    fn check(&mut self, lines: &[&str], want: Expect) {
        let said: String = lines.iter().map(|line| format!("> {line}\n{}\n", self.ask(line))).collect();
        want.assert_eq(&said);
    }

    fn check_headers(&mut self, at: i64, line: &str, want: Expect) {
        let response = self.response(at, line, Some("k"));
        let said =
            response.headers.iter().fold(response.status.to_string(), |all, (name, value)| format!("{all}\n{name}: {value}"));
        want.assert_eq(&said);
    }

    /// Texts of a page and where it goes on.
    fn page(&mut self, line: &str) -> (Vec<String>, Option<String>) {
        let body = self.body(line);
        let texts = body["data"].as_array().unwrap().iter().map(|post| post["text"].as_str().unwrap().to_owned());
        (texts.collect(), body["next_cursor"].as_str().map(str::to_owned))
    }

    fn texts(&mut self, line: &str) -> Vec<String> {
        self.page(line).0
    }
}

fn desk() -> Desk {
    Desk::new(|settings| settings.rate_limits = false)
}

#[test]
fn a_post_from_every_dialect() {
    let of = |seconds: i64| format!("GET twitter/tweets/tweet/{}", id(seconds));
    desk().check(&[&of(99), &of(20), &of(30)], expect![[r#"
        > GET twitter/tweets/tweet/2008146874069942272
        200 {"bookmark_count":0,"bookmarked":false,"conversation_id":null,"created_at":"Mon Jan 05 12:01:39 +0000 2026","display_text_range":null,"edit_tweet_ids":["2008146874069942272"],"editable_until_msecs":"1767618099000","edits_remaining":"5","favorite_count":0,"favorited":false,"full_text":"still fog","has_card":null,"has_community_notes":null,"hashtags":[],"id":"2008146874069942272","in_reply_to_screen_name":null,"in_reply_to_status_id":null,"in_reply_to_user_id":null,"is_edit_eligible":false,"is_quote_status":false,"is_retweet":false,"lang":null,"media":[],"place":null,"poll":null,"possibly_sensitive":null,"quote_count":0,"quoted_status_id":null,"reply_count":0,"retweet_count":0,"retweeted":false,"retweeted_status_id":null,"source":null,"text":"still fog","thumbnail_title":null,"thumbnail_url":null,"urls":[],"user_created_at":null,"user_description":null,"user_followers_count":null,"user_following_count":null,"user_id":null,"user_is_blue_verified":null,"user_location":null,"user_mentions":[],"user_name":null,"user_profile_image_url":null,"user_tweet_count":null,"user_url":null,"user_verified":null,"username":"ann","view_count":"0"}
        > GET twitter/tweets/tweet/2008146542719926272
        200 {"bookmark_count":0,"bookmarked":false,"conversation_id":null,"created_at":"Mon Jan 05 12:00:20 +0000 2026","display_text_range":null,"edit_tweet_ids":["2008146542719926272"],"editable_until_msecs":"1767618020000","edits_remaining":"5","favorite_count":0,"favorited":false,"full_text":"RT @ann: fog at six","has_card":null,"has_community_notes":null,"hashtags":[],"id":"2008146542719926272","in_reply_to_screen_name":null,"in_reply_to_status_id":null,"in_reply_to_user_id":null,"is_edit_eligible":false,"is_quote_status":false,"is_retweet":true,"lang":null,"media":[],"place":null,"poll":null,"possibly_sensitive":null,"quote_count":0,"quoted_status_id":null,"reply_count":0,"retweet_count":0,"retweeted":false,"retweeted_status_id":null,"source":null,"text":"RT @ann: fog at six","thumbnail_title":null,"thumbnail_url":null,"urls":[],"user_created_at":null,"user_description":null,"user_followers_count":null,"user_following_count":null,"user_id":null,"user_is_blue_verified":null,"user_location":null,"user_mentions":[{"indices":[3,7],"username":"ann"}],"user_name":null,"user_profile_image_url":null,"user_tweet_count":null,"user_url":null,"user_verified":null,"username":"bob","view_count":"0"}
        > GET twitter/tweets/tweet/2008146584662966272
        200 {"bookmark_count":0,"bookmarked":false,"conversation_id":null,"created_at":"Mon Jan 05 12:00:30 +0000 2026","display_text_range":null,"edit_tweet_ids":["2008146584662966272"],"editable_until_msecs":"1767618030000","edits_remaining":"5","favorite_count":7,"favorited":false,"full_text":"no fog here","has_card":null,"has_community_notes":null,"hashtags":[],"id":"2008146584662966272","in_reply_to_screen_name":null,"in_reply_to_status_id":"2008146500776886272","in_reply_to_user_id":null,"is_edit_eligible":false,"is_quote_status":false,"is_retweet":false,"lang":null,"media":[],"place":null,"poll":null,"possibly_sensitive":null,"quote_count":0,"quoted_status_id":null,"reply_count":0,"retweet_count":2,"retweeted":false,"retweeted_status_id":null,"source":null,"text":"no fog here","thumbnail_title":null,"thumbnail_url":null,"urls":[],"user_created_at":null,"user_description":null,"user_followers_count":null,"user_following_count":null,"user_id":"900100200300400501","user_is_blue_verified":null,"user_location":null,"user_mentions":[],"user_name":"bob Lantern","user_profile_image_url":null,"user_tweet_count":null,"user_url":null,"user_verified":null,"username":"bob","view_count":"88"}
    "#]]);
}

#[test]
fn search_pages() {
    let mut desk = desk();
    let search = "GET twitter/tweets/advanced_search?query=fog";
    assert_eq!(
        desk.texts(&format!("{search}&query_type=Latest")),
        ["still fog", "look, fog everywhere", "no fog here", "fog at six #fog @bob"],
        "newest first, each as it was last received, without retweets"
    );
    let top = ["look, fog everywhere", "no fog here", "still fog", "fog at six #fog @bob"];
    assert_eq!(desk.texts(search), top, "Top is the default");
    assert_eq!(desk.texts(&format!("{search}&query_type=Media")), ["look, fog everywhere"]);
    for order in ["Latest", "Top"] {
        let whole = desk.texts(&format!("{search}&query_type={order}"));
        let (mut all, mut cursor, mut n_pages) = (Vec::new(), String::new(), 0);
        loop {
            let (texts, next) = desk.page(&format!("{search}&query_type={order}&count=3{cursor}"));
            all.extend(texts);
            n_pages += 1;
            let Some(next) = next else { break };
            cursor = format!("&cursor={next}");
        }
        assert_eq!((all, n_pages), (whole, 2), "{order}");
    }
    let (first, next) = desk.page(&format!("{search}&query_type=Latest&count=1"));
    let later = format!("{search}&query_type=Latest&count=10&cursor={}", next.unwrap());
    let said = desk.ask_at(300, &later);
    assert!(!said.contains(&first[0]) && !said.contains("not yet") && said.contains("no fog here"), "{said}");
    let from = |query: &str| format!("GET twitter/tweets/advanced_search?query_type=Latest&query={query}");
    assert_eq!(desk.texts(&from("from:ann%20%23fog")), ["fog at six #fog @bob"]);
    assert_eq!(desk.texts(&from("min_faves:10")), ["look, fog everywhere"]);
    assert_eq!(desk.texts(&from(&format!("fog%20since_time:{}", second(40).0 / 1_000_000))).len(), 2);
    assert_eq!(desk.texts(&from("nothing")), [""; 0]);
    desk.check(
        &[
            "GET twitter/tweets/advanced_search?query=nothing",
            "GET twitter/tweets/advanced_search",
            "GET twitter/tweets/advanced_search?query=a&query_type=Oldest&count=101&cursor=x",
            "GET twitter/tweets/advanced_search?query=a&count=few",
            "GET twitter/tweets/advanced_search?query=(a",
        ],
        expect![[r#"
            > GET twitter/tweets/advanced_search?query=nothing
            200 {"data":[],"next_cursor":null}
            > GET twitter/tweets/advanced_search
            422 {"detail":[{"loc":["query","query"],"msg":"Field required","type":"missing"}]}
            > GET twitter/tweets/advanced_search?query=a&query_type=Oldest&count=101&cursor=x
            422 {"detail":[{"loc":["query","query_type"],"msg":"Input should be one of Top, Latest, Media","type":"enum"},{"loc":["query","count"],"msg":"Input should be from 1 to 100","type":"out_of_range"},{"loc":["query","cursor"],"msg":"Invalid cursor","type":"value_error"}]}
            > GET twitter/tweets/advanced_search?query=a&count=few
            422 {"detail":[{"loc":["query","count"],"msg":"Input should be a valid integer","type":"int_parsing"}]}
            > GET twitter/tweets/advanced_search?query=(a
            422 {"detail":[{"loc":["query","query"],"msg":"a bracket `(` is never closed","type":"value_error"}]}
        "#]],
    );
}

#[test]
fn other_history() {
    let mut desk = desk();
    assert_eq!(desk.texts("GET twitter/users/ANN/latest_tweets"), ["still fog", "fog at six #fog @bob"]);
    assert_eq!(desk.texts("GET twitter/users/nobody/latest_tweets"), [""; 0]);
    assert_eq!(desk.texts("GET twitter/users/bob/mentions?count=5"), ["fog at six #fog @bob"]);
    assert_eq!(desk.texts(&format!("GET twitter/tweets/tweet/{}/replies", id(10))), ["no fog here"]);
    assert_eq!(desk.texts(&format!("GET twitter/tweets/tweet/{}/quotes", id(10))), ["look, fog everywhere"]);
    assert_eq!(desk.texts(&format!("GET twitter/tweets/tweet/{}/edit_history", id(40))), ["look, fog", "look, fog everywhere"]);
    assert_eq!(desk.texts(&format!("GET twitter/tweets/tweet/{}/edit_history", id(10))).len(), 1);
    for slash in ["", "/"] {
        let ids = format!("{},7,{}", id(99), id(200));
        assert_eq!(desk.texts(&format!("GET twitter/tweets{slash}?tweets={ids}")), ["still fog"]);
    }
    let many = format!("GET twitter/tweets/?tweets={}", "1,".repeat(101));
    assert!(desk.ask(&many).starts_with("422 "));
    desk.check(
        &[
            "GET twitter/tweets/?tweets=1,x",
            "GET twitter/tweets/",
            "GET twitter/tweets/tweet/7",
            "GET twitter/tweets/tweet/seven",
            "GET twitter/tweets/tweet/7/edit_history",
            "GET twitter/tweets/tweet/7/replies",
            "GET twitter/tweets/tweet/7/retweeters",
            "GET twitter/users/ann",
            "POST twitter/tweets/",
            "GET account/me",
        ],
        expect![[r#"
            > GET twitter/tweets/?tweets=1,x
            422 {"detail":[{"loc":["query","tweets"],"msg":"ids are decimal digits with commas between","type":"value_error"}]}
            > GET twitter/tweets/
            422 {"detail":[{"loc":["query","tweets"],"msg":"Field required","type":"missing"}]}
            > GET twitter/tweets/tweet/7
            404 {"detail":"Tweet not found"}
            > GET twitter/tweets/tweet/seven
            404 {"detail":"Tweet not found"}
            > GET twitter/tweets/tweet/7/edit_history
            404 {"detail":"Tweet not found"}
            > GET twitter/tweets/tweet/7/replies
            200 {"data":[],"next_cursor":null}
            > GET twitter/tweets/tweet/7/retweeters
            404 {"detail":"Not Found"}
            > GET twitter/users/ann
            404 {"detail":"Not Found"}
            > POST twitter/tweets/
            405 {"detail":"Method Not Allowed"}
            > GET account/me
            200 {"credits_balance":999999999,"rate_limit_per_minute":300,"subscription":null,"subscription_credits_balance":0,"tier":"basic","total_credits_balance":999999999}
        "#]],
    );
}

#[test]
fn who_may_ask() {
    let mut desk = Desk::new(|settings| settings.key = Secret::new("right"));
    let mut ask = |query: &str, key: Option<&str>| {
        let response = desk.response(100, &format!("GET account/me{query}"), key);
        response.status
    };
    assert_eq!(ask("", Some(" right ")), 200);
    assert_eq!(ask("?api_key=right", None), 200);
    assert_eq!(ask("?api_key=right", Some("wrong")), 401, "the header counts first");
    assert_eq!(ask("?api_key=wrong", None), 401);
    assert_eq!(ask("", None), 401);
    let mut desk = Desk::new(|settings| settings.key = Secret::new("right"));
    desk.check(
        &["GET account/me"],
        expect![[r#"
        > GET account/me
        401 {"detail":"Invalid or missing API key"}
    "#]],
    );
    let mut desk = Desk::new(|settings| {
        settings.key = Secret::new("right");
        settings.switches.set("scrapebadger.error_key=error").unwrap();
    });
    desk.check(
        &["GET account/me", "GET twitter/nothing"],
        expect![[r#"
        > GET account/me
        401 {"error":"Invalid or missing API key"}
        > GET twitter/nothing
        404 {"error":"Not Found"}
    "#]],
    );
    Desk::with("scrapebadger.key=disabled").check(
        &["GET account/me"],
        expect![[r#"
        > GET account/me
        403 {"detail":"API key is disabled"}
    "#]],
    );
    Desk::with("scrapebadger.key=out_of_scope").check(
        &["GET account/me"],
        expect![[r#"
        > GET account/me
        403 {"allowed_scopes":["web"],"detail":"insufficient_scope","error":"insufficient_scope","required_scope":"twitter"}
    "#]],
    );
}

#[test]
fn how_often_one_may_ask() {
    let mut desk = Desk::with("scrapebadger.tier_per_minute=2");
    desk.check_headers(
        100,
        "GET twitter/users/ann/latest_tweets",
        expect![[r#"
        200
        content-type: application/json
        x-credits-used: 3
        x-ratelimit-limit: 2
        x-ratelimit-remaining: 1
        x-ratelimit-reset: 1767614560"#]],
    );
    desk.check_headers(
        101,
        "GET twitter/tweets/tweet/7",
        expect![[r#"
        404
        content-type: application/json
        x-credits-used: 0
        x-ratelimit-limit: 2
        x-ratelimit-remaining: 0
        x-ratelimit-reset: 1767614560"#]],
    );
    desk.check_headers(
        102,
        "GET twitter/users/ann/latest_tweets",
        expect![[r#"
        429
        content-type: application/json
        x-credits-used: 0
        x-ratelimit-limit: 2
        x-ratelimit-remaining: 0
        x-ratelimit-reset: 1767614560
        retry-after: 58"#]],
    );
    desk.check(
        &["GET account/me"],
        expect![[r#"
        > GET account/me
        429 {"detail":"Rate limit exceeded","limit":2,"remaining":0,"reset_at":1767614560,"tier":"free"}
    "#]],
    );
    desk.check_headers(
        160,
        "GET account/me",
        expect![[r#"
        200
        content-type: application/json
        x-credits-used: 0
        x-ratelimit-limit: 2
        x-ratelimit-remaining: 0
        x-ratelimit-reset: 1767614561"#]],
    );
    let mut desk = Desk::new(|settings| settings.rate_limits = false);
    desk.check_headers(
        100,
        "GET account/me",
        expect![[r#"
        200
        content-type: application/json
        x-credits-used: 0"#]],
    );
}

#[test]
fn what_it_costs() {
    let mut desk = Desk::new(|settings| settings.credits = Some(6));
    desk.check_headers(
        100,
        "GET twitter/users/ann/latest_tweets",
        expect![[r#"
        200
        content-type: application/json
        x-credits-used: 3
        x-ratelimit-limit: 300
        x-ratelimit-remaining: 299
        x-ratelimit-reset: 1767614560"#]],
    );
    let ids = format!("GET twitter/tweets/?tweets={}", [id(10), id(20), id(30)].map(|id| id.to_string()).join(","));
    desk.check(
        &[
            "GET twitter/tweets/tweet/7",
            &ids,
            r#"POST twitter/stream/monitors {"name":"dear","usernames":["ann"]}"#,
            r#"POST twitter/stream/filter-rules {"tag":"dear","query":"fog","interval_seconds":60}"#,
            r#"POST twitter/stream/filter-rules {"tag":"cheap","query":"fog","interval_seconds":86400}"#,
            "GET twitter/users/bob/mentions",
            "GET twitter/users/bob/mentions",
            "GET account/me",
        ],
        expect![[r#"
            > GET twitter/tweets/tweet/7
            404 {"detail":"Tweet not found"}
            > GET twitter/tweets/?tweets=2008146500776886272,2008146542719926272,2008146584662966272
            402 {"credits_balance":3,"detail":"Insufficient credits"}
            > POST twitter/stream/monitors {"name":"dear","usernames":["ann"]}
            402 {"credits_balance":3,"detail":"Insufficient credits"}
            > POST twitter/stream/filter-rules {"tag":"dear","query":"fog","interval_seconds":60}
            402 {"credits_balance":3,"detail":"Insufficient credits"}
            > POST twitter/stream/filter-rules {"tag":"cheap","query":"fog","interval_seconds":86400}
            402 {"credits_balance":3,"detail":"Insufficient credits"}
            > GET twitter/users/bob/mentions
            200 {"data":[{"bookmark_count":0,"bookmarked":false,"conversation_id":null,"created_at":"Mon Jan 05 12:00:10 +0000 2026","display_text_range":null,"edit_tweet_ids":["2008146500776886272"],"editable_until_msecs":"1767618010000","edits_remaining":"5","favorite_count":0,"favorited":false,"full_text":"fog at six #fog @bob","has_card":null,"has_community_notes":null,"hashtags":[{"indices":[11,15],"text":"fog"}],"id":"2008146500776886272","in_reply_to_screen_name":null,"in_reply_to_status_id":null,"in_reply_to_user_id":null,"is_edit_eligible":false,"is_quote_status":false,"is_retweet":false,"lang":null,"media":[],"place":null,"poll":null,"possibly_sensitive":null,"quote_count":0,"quoted_status_id":null,"reply_count":0,"retweet_count":0,"retweeted":false,"retweeted_status_id":null,"source":null,"text":"fog at six #fog @bob","thumbnail_title":null,"thumbnail_url":null,"urls":[],"user_created_at":null,"user_description":null,"user_followers_count":null,"user_following_count":null,"user_id":null,"user_is_blue_verified":null,"user_location":null,"user_mentions":[{"indices":[16,20],"username":"bob"}],"user_name":null,"user_profile_image_url":null,"user_tweet_count":null,"user_url":null,"user_verified":null,"username":"ann","view_count":"0"}],"next_cursor":null}
            > GET twitter/users/bob/mentions
            402 {"credits_balance":1,"detail":"Insufficient credits"}
            > GET account/me
            200 {"credits_balance":1,"rate_limit_per_minute":300,"subscription":null,"subscription_credits_balance":0,"tier":"basic","total_credits_balance":1}
        "#]],
    );
}

#[test]
fn monitors_of_the_tape() {
    let mut desk = desk();
    desk.check(&["GET twitter/stream/monitors", "GET twitter/stream/filter-rules?limit=1"], expect![[r#"
        > GET twitter/stream/monitors
        200 {"limit":20,"monitors":[{"created_at":"2026-01-05T12:00:11.000000Z","credits_per_account_per_day":1667,"estimated_credits_per_day":1667,"estimated_credits_per_hour":69.45833333333333,"filter_types":null,"id":"5a5a5a5a-0000-4000-8000-000000000001","name":"Keepers","poll_interval_seconds":0.1,"pricing_tier":"1-10 accounts","status":"active","status_reason":null,"updated_at":"2026-01-05T12:00:11.000000Z","usernames":["ann"],"webhook_secret_set":false,"webhook_url":null},{"created_at":"2026-01-05T12:00:31.000000Z","credits_per_account_per_day":1667,"estimated_credits_per_day":3334,"estimated_credits_per_hour":138.91666666666666,"filter_types":null,"id":"m-2","name":"monitor m-2","poll_interval_seconds":0.1,"pricing_tier":"1-10 accounts","status":"active","status_reason":null,"updated_at":"2026-01-05T12:00:31.000000Z","usernames":["cleo","bob"],"webhook_secret_set":false,"webhook_url":null}],"offset":0,"page":1,"page_size":20,"total":2}
        > GET twitter/stream/filter-rules?limit=1
        200 {"limit":1,"offset":0,"page":1,"page_size":1,"rules":[{"created_at":"2026-01-05T12:00:12.000000Z","credits_per_rule_per_day":1500,"id":"6b6b6b6b-0000-4000-8000-000000000002","interval_seconds":60.0,"max_results_per_poll":20,"pricing_tier":"up to every minute","query":"","status":"active","status_reason":null,"tag":"fog","total_credits_burned":0,"updated_at":"2026-01-05T12:00:12.000000Z","webhook_secret_set":false,"webhook_url":null}],"total":1}
    "#]]);
    assert_eq!(desk.rest.paused().count(), 0);
    let pause = format!(r#"PATCH twitter/stream/monitors/{MONITOR} {{"status":"paused"}}"#);
    assert_eq!(desk.ask_at(50, &pause).split_at(3).0, "200");
    assert_eq!(desk.ask(&format!("DELETE twitter/stream/filter-rules/{RULE}")), "204 ");
    assert_eq!(desk.rest.paused().collect::<Vec<_>>(), [RULE, MONITOR]);
    let logged = desk.body("GET twitter/stream/logs");
    assert_eq!(logged["total"], 4, "what came while it was paused is not there: {logged}");
    assert_eq!(desk.ask(&format!("GET twitter/stream/filter-rules/{RULE}/logs")), r#"404 {"detail":"Filter rule not found"}"#);
    assert_eq!(desk.body("GET twitter/stream/monitors?status=paused")["total"], 1);
    let resume = format!(r#"PATCH twitter/stream/monitors/{MONITOR} {{"status":"active"}}"#);
    assert_eq!(desk.ask_at(101, &resume).split_at(3).0, "200");
    assert_eq!(desk.rest.paused().collect::<Vec<_>>(), [RULE]);
    assert_eq!(desk.body("GET twitter/stream/logs")["total"], 4, "and stays away");
    assert_eq!(desk.ask("DELETE twitter/stream/monitors/m-2"), "204 ");
    assert_eq!(desk.body("GET twitter/stream/logs")["total"], 1, "a monitor's logs go with it");
    assert_eq!(desk.rest.paused().collect::<Vec<_>>(), [RULE, "m-2"]);
}

#[test]
fn monitors_of_a_client() {
    let mut desk = desk();
    let made = desk.body(
        r#"POST twitter/stream/monitors {"name":"Mine","usernames":["@Ann","bob"],"poll_interval_seconds":5,"filter_types":["reply"],"webhook_url":"https://example.test/hook"}"#,
    );
    let id = made["id"].as_str().unwrap().to_owned();
    expect![[r#"{"created_at":"2026-01-05T12:01:40.000000Z","credits_per_account_per_day":1667,"estimated_credits_per_day":3334,"estimated_credits_per_hour":138.91666666666666,"filter_types":["reply"],"id":"30903565-85c7-4c69-816e-e89c9ef4526f","name":"Mine","poll_interval_seconds":5.0,"pricing_tier":"1-10 accounts","status":"active","status_reason":null,"updated_at":"2026-01-05T12:01:40.000000Z","usernames":["ann","bob"],"webhook_secret_set":true,"webhook_url":"https://example.test/hook"}"#]].assert_eq(&made.to_string());
    desk.check(
        &[
            &format!(r#"PATCH twitter/stream/monitors/{id} {{"status":"paused","webhook_url":null,"filter_types":null}}"#),
            &format!(r#"PATCH twitter/stream/monitors/{id} {{"status":"active","name":"Ours","usernames":["cleo"]}}"#),
            &format!("GET twitter/stream/monitors/{id}"),
            "GET twitter/stream/monitors?page=2&page_size=2",
            r#"POST twitter/stream/monitors {"name":"Ours","usernames":["ann"]}"#,
            &format!(r#"PATCH twitter/stream/monitors/{id} {{"name":"Keepers"}}"#),
            &format!(r#"PATCH twitter/stream/monitors/{id} {{"status":"suspended","usernames":null}}"#),
            "POST twitter/stream/monitors",
            "POST twitter/stream/monitors []",
            "POST twitter/stream/monitors {",
            "POST twitter/stream/monitors {}",
            r#"POST twitter/stream/monitors {"name":"","usernames":["a b"],"filter_types":["all"],"webhook_url":"http://x","webhook_secret":7,"poll_interval_seconds":0}"#,
            r#"POST twitter/stream/monitors {"name":7,"usernames":[],"filter_types":3,"poll_interval_seconds":"1"}"#,
            "GET twitter/stream/monitors?status=odd&page=0&page_size=1000",
            "GET twitter/stream/monitors/none",
            "PATCH twitter/stream/monitors/none {}",
            "DELETE twitter/stream/monitors/none",
            "PUT twitter/stream/monitors",
            &format!("DELETE twitter/stream/monitors/{id}"),
            &format!("DELETE twitter/stream/monitors/{id}"),
        ],
        expect![[r#"
            > PATCH twitter/stream/monitors/30903565-85c7-4c69-816e-e89c9ef4526f {"status":"paused","webhook_url":null,"filter_types":null}
            200 {"created_at":"2026-01-05T12:01:40.000000Z","credits_per_account_per_day":1667,"estimated_credits_per_day":3334,"estimated_credits_per_hour":138.91666666666666,"filter_types":null,"id":"30903565-85c7-4c69-816e-e89c9ef4526f","name":"Mine","poll_interval_seconds":5.0,"pricing_tier":"1-10 accounts","status":"paused","status_reason":null,"updated_at":"2026-01-05T12:01:40.000000Z","usernames":["ann","bob"],"webhook_secret_set":false,"webhook_url":null}
            > PATCH twitter/stream/monitors/30903565-85c7-4c69-816e-e89c9ef4526f {"status":"active","name":"Ours","usernames":["cleo"]}
            200 {"created_at":"2026-01-05T12:01:40.000000Z","credits_per_account_per_day":1667,"estimated_credits_per_day":1667,"estimated_credits_per_hour":69.45833333333333,"filter_types":null,"id":"30903565-85c7-4c69-816e-e89c9ef4526f","name":"Ours","poll_interval_seconds":5.0,"pricing_tier":"1-10 accounts","status":"active","status_reason":null,"updated_at":"2026-01-05T12:01:40.000000Z","usernames":["cleo"],"webhook_secret_set":false,"webhook_url":null}
            > GET twitter/stream/monitors/30903565-85c7-4c69-816e-e89c9ef4526f
            200 {"created_at":"2026-01-05T12:01:40.000000Z","credits_per_account_per_day":1667,"estimated_credits_per_day":1667,"estimated_credits_per_hour":69.45833333333333,"filter_types":null,"id":"30903565-85c7-4c69-816e-e89c9ef4526f","name":"Ours","poll_interval_seconds":5.0,"pricing_tier":"1-10 accounts","status":"active","status_reason":null,"updated_at":"2026-01-05T12:01:40.000000Z","usernames":["cleo"],"webhook_secret_set":false,"webhook_url":null}
            > GET twitter/stream/monitors?page=2&page_size=2
            200 {"limit":2,"monitors":[{"created_at":"2026-01-05T12:01:40.000000Z","credits_per_account_per_day":1667,"estimated_credits_per_day":1667,"estimated_credits_per_hour":69.45833333333333,"filter_types":null,"id":"30903565-85c7-4c69-816e-e89c9ef4526f","name":"Ours","poll_interval_seconds":5.0,"pricing_tier":"1-10 accounts","status":"active","status_reason":null,"updated_at":"2026-01-05T12:01:40.000000Z","usernames":["cleo"],"webhook_secret_set":false,"webhook_url":null}],"offset":2,"page":2,"page_size":2,"total":3}
            > POST twitter/stream/monitors {"name":"Ours","usernames":["ann"]}
            409 {"detail":"A monitor named 'Ours' already exists"}
            > PATCH twitter/stream/monitors/30903565-85c7-4c69-816e-e89c9ef4526f {"name":"Keepers"}
            409 {"detail":"A monitor named 'Keepers' already exists"}
            > PATCH twitter/stream/monitors/30903565-85c7-4c69-816e-e89c9ef4526f {"status":"suspended","usernames":null}
            422 {"detail":[{"loc":["body","usernames"],"msg":"Input should be a valid list","type":"list_type"},{"loc":["body","status"],"msg":"Input should be one of active, paused","type":"enum"}]}
            > POST twitter/stream/monitors
            422 {"detail":[{"loc":["body"],"msg":"Field required","type":"missing"}]}
            > POST twitter/stream/monitors []
            422 {"detail":[{"loc":["body"],"msg":"Input should be an object","type":"model_attributes_type"}]}
            > POST twitter/stream/monitors {
            422 {"detail":[{"loc":["body"],"msg":"JSON decode error","type":"json_invalid"}]}
            > POST twitter/stream/monitors {}
            422 {"detail":[{"loc":["body","name"],"msg":"Field required","type":"missing"},{"loc":["body","usernames"],"msg":"Field required","type":"missing"}]}
            > POST twitter/stream/monitors {"name":"","usernames":["a b"],"filter_types":["all"],"webhook_url":"http://x","webhook_secret":7,"poll_interval_seconds":0}
            422 {"detail":[{"loc":["body","usernames"],"msg":"an item of the list is not valid","type":"value_error"},{"loc":["body","webhook_secret"],"msg":"Input should be a valid string","type":"string_type"},{"loc":["body","name"],"msg":"String should have from 1 to 100 characters","type":"string_length"},{"loc":["body","filter_types"],"msg":"an item of the list is not valid","type":"value_error"},{"loc":["body","poll_interval_seconds"],"msg":"Input should be from 0.1 to 86400","type":"out_of_range"},{"loc":["body","webhook_url"],"msg":"Webhook URL must use HTTPS","type":"value_error"}]}
            > POST twitter/stream/monitors {"name":7,"usernames":[],"filter_types":3,"poll_interval_seconds":"1"}
            422 {"detail":[{"loc":["body","usernames"],"msg":"List should have from 1 to 100 items","type":"list_length"},{"loc":["body","name"],"msg":"Input should be a valid string","type":"string_type"},{"loc":["body","filter_types"],"msg":"Input should be a valid list","type":"list_type"},{"loc":["body","poll_interval_seconds"],"msg":"Input should be a valid number","type":"float_type"}]}
            > GET twitter/stream/monitors?status=odd&page=0&page_size=1000
            422 {"detail":[{"loc":["query","page"],"msg":"Input should be from 1 to 1099511627776","type":"out_of_range"},{"loc":["query","page_size"],"msg":"Input should be from 1 to 100","type":"out_of_range"},{"loc":["query","status"],"msg":"Input should be one of active, paused, suspended, error","type":"enum"}]}
            > GET twitter/stream/monitors/none
            404 {"detail":"Monitor not found"}
            > PATCH twitter/stream/monitors/none {}
            404 {"detail":"Monitor not found"}
            > DELETE twitter/stream/monitors/none
            404 {"detail":"Monitor not found"}
            > PUT twitter/stream/monitors
            405 {"detail":"Method Not Allowed"}
            > DELETE twitter/stream/monitors/30903565-85c7-4c69-816e-e89c9ef4526f
            204 
            > DELETE twitter/stream/monitors/30903565-85c7-4c69-816e-e89c9ef4526f
            404 {"detail":"Monitor not found"}
        "#]],
    );
    let names: Vec<String> = (0..101).map(|n| format!("a{n}")).collect();
    let body = json!({"name": "many", "usernames": names});
    assert!(desk.ask(&format!("POST twitter/stream/monitors {body}")).contains("from 1 to 100 items"));
    assert_eq!(desk.rest.paused().count(), 0, "nothing on the tape is a client's");
    for n in 0..monitors::MONITORS_MAX {
        let said = desk.ask(&format!(r#"POST twitter/stream/monitors {{"name":"n{n}","usernames":["a"]}}"#));
        assert!(said.starts_with("201 "), "{said}");
    }
    desk.check(
        &[r#"POST twitter/stream/monitors {"name":"last","usernames":["a"]}"#],
        expect![[r#"
        > POST twitter/stream/monitors {"name":"last","usernames":["a"]}
        403 {"detail":"Monitor limit of 100 reached"}
    "#]],
    );
}

#[test]
fn webhooks() {
    let mut desk = desk();
    let made = desk.ask(r#"POST twitter/stream/webhooks {"monitor_id":"m-2","url":"https://example.test/hook"}"#);
    expect![[r#"201 {"created_at":"2026-01-05T12:01:40.000000Z","id":"bcd3eeba-381b-43f0-872d-939689c146a0","monitor_id":"m-2","secret":"whsec_373d825cf0544c7c8d31f0c39c6b7ec1","url":"https://example.test/hook"}"#]].assert_eq(&made);
    let hook: Value = serde_json::from_str(&made[4..]).unwrap();
    let hook = hook["id"].as_str().unwrap();
    desk.check(
        &[
            r#"POST twitter/stream/webhooks {"monitor_id":"m-2","url":"https://example.test/other"}"#,
            r#"POST twitter/stream/webhooks {"monitor_id":"none","url":"https://example.test/other","secret":"s"}"#,
            r#"POST twitter/stream/webhooks {"monitor_id":"m-2","url":""}"#,
            "POST twitter/stream/webhooks {}",
            "GET twitter/stream/webhooks",
            "GET twitter/stream/webhooks?monitor_id=none",
            r#"POST twitter/stream/webhooks/test {"monitor_id":"m-2"}"#,
            &format!(r#"POST twitter/stream/webhooks/test {{"monitor_id":"{MONITOR}"}}"#),
            r#"POST twitter/stream/webhooks/test {"monitor_id":"none"}"#,
            "POST twitter/stream/webhooks/test {}",
            &format!("DELETE twitter/stream/webhooks/{hook}"),
            &format!("DELETE twitter/stream/webhooks/{hook}"),
        ],
        expect![[r#"
            > POST twitter/stream/webhooks {"monitor_id":"m-2","url":"https://example.test/other"}
            409 {"detail":"This monitor already has a webhook"}
            > POST twitter/stream/webhooks {"monitor_id":"none","url":"https://example.test/other","secret":"s"}
            404 {"detail":"Monitor not found"}
            > POST twitter/stream/webhooks {"monitor_id":"m-2","url":""}
            422 {"detail":[{"loc":["body","url"],"msg":"Webhook URL must use HTTPS","type":"value_error"}]}
            > POST twitter/stream/webhooks {}
            422 {"detail":[{"loc":["body","monitor_id"],"msg":"Field required","type":"missing"},{"loc":["body","url"],"msg":"Field required","type":"missing"}]}
            > GET twitter/stream/webhooks
            200 {"total":1,"webhooks":[{"created_at":"2026-01-05T12:01:40.000000Z","id":"bcd3eeba-381b-43f0-872d-939689c146a0","monitor_id":"m-2","monitor_name":"monitor m-2","secret_set":true,"url":"https://example.test/hook"}]}
            > GET twitter/stream/webhooks?monitor_id=none
            200 {"total":0,"webhooks":[]}
            > POST twitter/stream/webhooks/test {"monitor_id":"m-2"}
            200 {"error":"a replay calls nobody","response_time_ms":0,"status_code":null,"success":false}
            > POST twitter/stream/webhooks/test {"monitor_id":"5a5a5a5a-0000-4000-8000-000000000001"}
            404 {"detail":"This monitor has no webhook"}
            > POST twitter/stream/webhooks/test {"monitor_id":"none"}
            404 {"detail":"Monitor not found"}
            > POST twitter/stream/webhooks/test {}
            422 {"detail":[{"loc":["body","monitor_id"],"msg":"Field required","type":"missing"}]}
            > DELETE twitter/stream/webhooks/bcd3eeba-381b-43f0-872d-939689c146a0
            204 
            > DELETE twitter/stream/webhooks/bcd3eeba-381b-43f0-872d-939689c146a0
            404 {"detail":"Webhook not found"}
        "#]],
    );
}

#[test]
fn rules_of_a_client() {
    let mut desk = desk();
    let made = desk.body(
        r#"POST twitter/stream/filter-rules {"tag":"mine","query":"fog -rain","interval_seconds":0.5,"max_results_per_poll":5,"webhook_url":"https://example.test/hook","webhook_secret":"s"}"#,
    );
    expect![[r#"{"created_at":"2026-01-05T12:01:40.000000Z","credits_per_rule_per_day":30000,"id":"f7557a42-858f-44a0-8777-13fc0b4c0813","interval_seconds":0.5,"max_results_per_poll":5,"pricing_tier":"up to every 0.5 s","query":"fog -rain","status":"active","status_reason":null,"tag":"mine","total_credits_burned":0,"updated_at":"2026-01-05T12:01:40.000000Z","webhook_secret_set":true,"webhook_url":"https://example.test/hook"}"#]].assert_eq(&made.to_string());
    let id = made["id"].as_str().unwrap().to_owned();
    desk.check(
        &[
            &format!(r#"PATCH twitter/stream/filter-rules/{id} {{"status":"inactive","interval_seconds":601,"webhook_url":""}}"#),
            &format!(r#"PATCH twitter/stream/filter-rules/{id} {{"status":"active","tag":"ours","query":"rain","max_results_per_poll":null}}"#),
            &format!("GET twitter/stream/filter-rules/{id}"),
            "GET twitter/stream/filter-rules?limit=1&offset=1&status=active",
            r#"POST twitter/stream/filter-rules {"tag":"ours","query":"fog","interval_seconds":60}"#,
            &format!(r#"PATCH twitter/stream/filter-rules/{id} {{"tag":"fog"}}"#),
            "POST twitter/stream/filter-rules {}",
            r#"POST twitter/stream/filter-rules {"tag":"","query":"(","interval_seconds":86401,"max_results_per_poll":101}"#,
            "GET twitter/stream/filter-rules?limit=0&offset=-1&status=odd",
            "GET twitter/stream/filter-rules/none",
            "PATCH twitter/stream/filter-rules/none {}",
            "DELETE twitter/stream/filter-rules/none",
            "GET twitter/stream/filter-rules/none/logs",
            &format!("GET twitter/stream/filter-rules/{id}/logs"),
            &format!("DELETE twitter/stream/filter-rules/{id}"),
            r#"POST twitter/stream/filter-rules/validate {"query":"fog lang:en -is:retweet"}"#,
            r#"POST twitter/stream/filter-rules/validate {"query":"fog ("}"#,
            "POST twitter/stream/filter-rules/validate {}",
            "GET twitter/stream/filter-rules-pricing",
        ],
        expect![[r#"
            > PATCH twitter/stream/filter-rules/f7557a42-858f-44a0-8777-13fc0b4c0813 {"status":"inactive","interval_seconds":601,"webhook_url":""}
            200 {"created_at":"2026-01-05T12:01:40.000000Z","credits_per_rule_per_day":100,"id":"f7557a42-858f-44a0-8777-13fc0b4c0813","interval_seconds":601.0,"max_results_per_poll":5,"pricing_tier":"up to every day","query":"fog -rain","status":"inactive","status_reason":null,"tag":"mine","total_credits_burned":0,"updated_at":"2026-01-05T12:01:40.000000Z","webhook_secret_set":false,"webhook_url":null}
            > PATCH twitter/stream/filter-rules/f7557a42-858f-44a0-8777-13fc0b4c0813 {"status":"active","tag":"ours","query":"rain","max_results_per_poll":null}
            200 {"created_at":"2026-01-05T12:01:40.000000Z","credits_per_rule_per_day":100,"id":"f7557a42-858f-44a0-8777-13fc0b4c0813","interval_seconds":601.0,"max_results_per_poll":5,"pricing_tier":"up to every day","query":"rain","status":"active","status_reason":null,"tag":"ours","total_credits_burned":0,"updated_at":"2026-01-05T12:01:40.000000Z","webhook_secret_set":false,"webhook_url":null}
            > GET twitter/stream/filter-rules/f7557a42-858f-44a0-8777-13fc0b4c0813
            200 {"created_at":"2026-01-05T12:01:40.000000Z","credits_per_rule_per_day":100,"id":"f7557a42-858f-44a0-8777-13fc0b4c0813","interval_seconds":601.0,"max_results_per_poll":5,"pricing_tier":"up to every day","query":"rain","status":"active","status_reason":null,"tag":"ours","total_credits_burned":0,"updated_at":"2026-01-05T12:01:40.000000Z","webhook_secret_set":false,"webhook_url":null}
            > GET twitter/stream/filter-rules?limit=1&offset=1&status=active
            200 {"limit":1,"offset":1,"page":2,"page_size":1,"rules":[{"created_at":"2026-01-05T12:01:40.000000Z","credits_per_rule_per_day":100,"id":"f7557a42-858f-44a0-8777-13fc0b4c0813","interval_seconds":601.0,"max_results_per_poll":5,"pricing_tier":"up to every day","query":"rain","status":"active","status_reason":null,"tag":"ours","total_credits_burned":0,"updated_at":"2026-01-05T12:01:40.000000Z","webhook_secret_set":false,"webhook_url":null}],"total":2}
            > POST twitter/stream/filter-rules {"tag":"ours","query":"fog","interval_seconds":60}
            409 {"detail":"A filter rule with tag 'ours' already exists"}
            > PATCH twitter/stream/filter-rules/f7557a42-858f-44a0-8777-13fc0b4c0813 {"tag":"fog"}
            409 {"detail":"A filter rule with tag 'fog' already exists"}
            > POST twitter/stream/filter-rules {}
            422 {"detail":[{"loc":["body","tag"],"msg":"Field required","type":"missing"},{"loc":["body","query"],"msg":"Field required","type":"missing"},{"loc":["body","interval_seconds"],"msg":"Field required","type":"missing"}]}
            > POST twitter/stream/filter-rules {"tag":"","query":"(","interval_seconds":86401,"max_results_per_poll":101}
            422 {"detail":[{"loc":["body","query"],"msg":"a bracket `(` is never closed","type":"value_error"},{"loc":["body","tag"],"msg":"String should have from 1 to 100 characters","type":"string_length"},{"loc":["body","interval_seconds"],"msg":"Input should be from 0.1 to 86400","type":"out_of_range"},{"loc":["body","max_results_per_poll"],"msg":"Input should be an integer from 1 to 100","type":"out_of_range"}]}
            > GET twitter/stream/filter-rules?limit=0&offset=-1&status=odd
            422 {"detail":[{"loc":["query","limit"],"msg":"Input should be from 1 to 100","type":"out_of_range"},{"loc":["query","offset"],"msg":"Input should be a valid integer","type":"int_parsing"},{"loc":["query","status"],"msg":"Input should be one of active, paused, suspended, error, inactive","type":"enum"}]}
            > GET twitter/stream/filter-rules/none
            404 {"detail":"Filter rule not found"}
            > PATCH twitter/stream/filter-rules/none {}
            404 {"detail":"Filter rule not found"}
            > DELETE twitter/stream/filter-rules/none
            404 {"detail":"Filter rule not found"}
            > GET twitter/stream/filter-rules/none/logs
            404 {"detail":"Filter rule not found"}
            > GET twitter/stream/filter-rules/f7557a42-858f-44a0-8777-13fc0b4c0813/logs
            200 {"limit":20,"logs":[],"offset":0,"page":1,"page_size":20,"total":0}
            > DELETE twitter/stream/filter-rules/f7557a42-858f-44a0-8777-13fc0b4c0813
            204 
            > POST twitter/stream/filter-rules/validate {"query":"fog lang:en -is:retweet"}
            200 {"query":"fog lang:en -is:retweet","sample_results":0,"valid":true}
            > POST twitter/stream/filter-rules/validate {"query":"fog ("}
            200 {"error":"a bracket `(` is never closed","query":"fog (","sample_results":0,"valid":false}
            > POST twitter/stream/filter-rules/validate {}
            422 {"detail":[{"loc":["body","query"],"msg":"Field required","type":"missing"}]}
            > GET twitter/stream/filter-rules-pricing
            200 {"credits_per_empty_call":1,"credits_per_tweet_returned":1,"tiers":[{"credits_per_rule_per_day":30000,"display_order":1,"id":"f054204a-4536-4b34-8280-ab2dff33731d","max_interval_seconds":0.5,"tier_label":"up to every 0.5 s"},{"credits_per_rule_per_day":10000,"display_order":2,"id":"12a734df-fa89-4ada-80ee-e42c15f5dad8","max_interval_seconds":5.0,"tier_label":"up to every 5 s"},{"credits_per_rule_per_day":1500,"display_order":3,"id":"f20b708d-3ee5-4116-892b-b5c84c3bd57f","max_interval_seconds":60.0,"tier_label":"up to every minute"},{"credits_per_rule_per_day":500,"display_order":4,"id":"f6e1e88a-17d0-4c99-8a40-fc8563c5d19b","max_interval_seconds":600.0,"tier_label":"up to every 10 minutes"},{"credits_per_rule_per_day":100,"display_order":5,"id":"63bc491b-d226-4834-85b7-56768794e543","max_interval_seconds":86400.0,"tier_label":"up to every day"}]}
        "#]],
    );
    for n in 1..rules::RULES_MAX {
        let said = desk.ask(&format!(r#"POST twitter/stream/filter-rules {{"tag":"n{n}","query":"a","interval_seconds":1}}"#));
        assert!(said.starts_with("201 "), "{said}");
    }
    desk.check(
        &[r#"POST twitter/stream/filter-rules {"tag":"last","query":"a","interval_seconds":1}"#],
        expect![[r#"
        > POST twitter/stream/filter-rules {"tag":"last","query":"a","interval_seconds":1}
        403 {"detail":"Filter rule limit of 50 reached"}
    "#]],
    );
}

#[test]
fn delivery_logs() {
    let mut desk = desk();
    desk.check(
        &["GET twitter/stream/logs?page_size=2", &format!("GET twitter/stream/filter-rules/{RULE}/logs?limit=1")],
        expect![[r#"
            > GET twitter/stream/logs?page_size=2
            200 {"limit":2,"logs":[{"author_username":"ann","delivery_status":"websocket_delivered","detected_at":"2026-01-05T12:01:40.000000Z","id":"00000000-0000-4000-8000-000000000006","latency_badge":"yellow","latency_ms":1000,"monitor_id":"5a5a5a5a-0000-4000-8000-000000000001","monitor_name":"Keepers","tweet_id":"2008146874069942272","tweet_published_at":"2026-01-05T12:01:39.000000Z","tweet_text":"still fog","tweet_text_preview":"still fog","tweet_type":null,"tweet_url":"https://x.com/ann/status/2008146874069942272","webhook_attempts":0,"webhook_status_code":null},{"author_username":"cleo","delivery_status":"websocket_delivered","detected_at":"2026-01-05T12:01:40.000000Z","id":"00000000-0000-4000-8000-000000000005","latency_badge":"red","latency_ms":60000,"monitor_id":"m-2","monitor_name":"monitor m-2","tweet_id":"2008146626606006272","tweet_published_at":"2026-01-05T12:00:40.000000Z","tweet_text":"look, fog everywhere","tweet_text_preview":"look, fog everywhere","tweet_type":null,"tweet_url":"https://x.com/cleo/status/2008146626606006272","webhook_attempts":0,"webhook_status_code":null}],"offset":0,"page":1,"page_size":2,"total":5}
            > GET twitter/stream/filter-rules/6b6b6b6b-0000-4000-8000-000000000002/logs?limit=1
            200 {"limit":1,"logs":[{"author_username":"bob","delivery_status":"websocket_delivered","detected_at":"2026-01-05T12:00:23.000000Z","id":"00000000-0000-4000-8000-000000000002","latency_badge":"yellow","latency_ms":3000,"rule_id":"6b6b6b6b-0000-4000-8000-000000000002","rule_tag":"fog","tweet_id":"2008146542719926272","tweet_published_at":"2026-01-05T12:00:20.000000Z","tweet_text":"RT @ann: fog at six","tweet_text_preview":"RT @ann: fog at six","tweet_type":"retweet","tweet_url":"https://x.com/bob/status/2008146542719926272","webhook_attempts":0,"webhook_status_code":null}],"offset":0,"page":1,"page_size":1,"total":2}
        "#]],
    );
    let mut rows = |line: &str| -> Vec<String> {
        let body = desk.body(line);
        let logs = body["logs"].as_array().unwrap().iter();
        let shown = logs.map(|row| {
            let id = row["id"].as_str().unwrap();
            format!(
                "{} {} {}",
                &id[id.len() - 2..],
                row["author_username"].as_str().unwrap(),
                row["latency_badge"].as_str().unwrap()
            )
        });
        shown.chain([body["total"].to_string()]).collect()
    };
    let newest = ["06 ann yellow", "05 cleo red", "04 cleo red", "03 bob yellow", "00 ann yellow", "5"];
    assert_eq!(rows("GET twitter/stream/logs"), newest);
    assert_eq!(rows("GET twitter/stream/logs?sort=asc&page=2&page_size=2"), ["04 cleo red", "05 cleo red", "5"]);
    assert_eq!(rows("GET twitter/stream/logs?limit=2&offset=1"), ["05 cleo red", "04 cleo red", "5"]);
    assert_eq!(rows("GET twitter/stream/logs?monitor_id=m-2&author_username=@Cleo"), ["05 cleo red", "04 cleo red", "2"]);
    assert_eq!(rows("GET twitter/stream/logs?monitor_id=none"), ["0"]);
    assert_eq!(rows("GET twitter/stream/logs?delivery_status=webhook_failed"), ["0"]);
    assert_eq!(rows("GET twitter/stream/logs?delivery_status=websocket_delivered&page_size=1"), ["06 ann yellow", "5"]);
    assert_eq!(rows(&format!("GET twitter/stream/filter-rules/{RULE}/logs?sort=asc")), ["01 ann yellow", "02 bob yellow", "2"]);
    let earlier: Value = serde_json::from_str(&desk.ask_at(45, "GET twitter/stream/logs")[4..]).unwrap();
    assert_eq!(earlier["total"], 2, "the ledger knows more than has happened by then");
    let later: Value = serde_json::from_str(&desk.ask_at(500, "GET twitter/stream/logs")[4..]).unwrap();
    assert_eq!(later["total"], 6);
    desk.check(&["GET twitter/stream/logs?sort=up&limit=x", "GET twitter/stream/billing-logs?monitor_id=m-2"], expect![[r#"
        > GET twitter/stream/logs?sort=up&limit=x
        422 {"detail":[{"loc":["query","limit"],"msg":"Input should be a valid integer","type":"int_parsing"},{"loc":["query","sort"],"msg":"Input should be one of desc, asc","type":"enum"}]}
        > GET twitter/stream/billing-logs?monitor_id=m-2
        200 {"limit":20,"logs":[],"offset":0,"page":1,"page_size":20,"total":0}
    "#]]);
    let guide = Desk::with("scrapebadger.log_words=guide").body("GET twitter/stream/logs?page_size=1&delivery_status=delivered");
    assert_eq!(
        (&guide["logs"][0]["latency_badge"], &guide["logs"][0]["delivery_status"]),
        (&json!("normal"), &json!("delivered"))
    );
}

/// Envelopes that went missing.
struct Empty;

impl Shelf for Empty {
    fn fetch(&mut self, place: u64) -> Result<Option<Bytes>, Unreadable> {
        Err(Unreadable(format!("{place} is gone")))
    }
}

#[test]
fn an_envelope_that_cannot_be_read() {
    let mut index = Index::default();
    for (place, (at, line)) in tape().iter().enumerate() {
        index.note(*at, &decode(Provider::Scrapebadger, line.as_bytes()), place as u64);
    }
    let mut rest = Rest::new(RestSettings::default());
    let headers = [("x-api-key".to_owned(), "k".to_owned())];
    for path in ["/v1/twitter/users/ann/latest_tweets", "/v1/twitter/stream/monitors", "/v1/twitter/stream/logs"] {
        let mut shelf = Empty;
        let mut past = Past::new(Provider::Scrapebadger, &mut index, &mut shelf, second(100));
        let asked = Asked { method: "GET", path, query: "", headers: &headers, body: b"", wants_upgrade: false };
        let response = rest.asked(&asked, &mut past, Instant::now());
        assert_eq!((response.status, &response.body[..]), (500, &br#"{"detail":"Internal server error"}"#[..]), "{path}");
    }
}

#[test]
fn every_fixture_makes_a_post() {
    let fixtures = [
        include_str!("../../../../fixtures/scrapebadger/merged.json"),
        include_str!("../../../../fixtures/scrapebadger/number_ids.json"),
        include_str!("../../../../fixtures/scrapebadger/old_id.json"),
        include_str!("../../../../fixtures/scrapebadger/wrong_types.json"),
    ];
    let mut shown = String::new();
    for fixture in fixtures {
        let at = UnixMicros::parse_rfc3339("2026-11-02T08:00:05Z").unwrap();
        let mut rest = Rest::new(RestSettings::default());
        let headers = [("x-api-key".to_owned(), "k".to_owned())];
        let path = "/v1/twitter/tweets/advanced_search";
        let query = "query=-nothing&query_type=Latest";
        let asked = Asked { method: "GET", path, query, headers: &headers, body: b"", wants_upgrade: false };
        let response =
            with_past(Provider::Scrapebadger, &[(at, fixture.trim_end())], at, |past| rest.asked(&asked, past, Instant::now()));
        let body: Value = serde_json::from_slice(&response.body).unwrap();
        for post in body["data"].as_array().unwrap() {
            shown += &format!("{} {} {} {}\n", post["id"], post["created_at"], post["username"], post["full_text"]);
        }
    }
    expect![[r#"
        "2117164812596150276" "Mon Nov 02 08:00:01 +0000 2026" "fen_lantern" "fog \"lifting\" at seven"
        "2117164812596150276" "Mon Nov 02 08:00:01 +0000 2026" "" "digits only"
        "4711" "Tue Mar 03 10:11:12 +0000 2009" "" ""
    "#]]
    .assert_eq(&shown);
}

proptest! {
    /// Whatever is asked, there is an answer with a status.
    #[test]
    fn never_panics(
        method in prop::sample::select(vec!["GET", "POST", "PATCH", "DELETE"]),
        path in prop::sample::select(vec![
            "twitter/tweets/advanced_search", "twitter/tweets/", "twitter/users/%/mentions", "twitter/tweets/tweet/99999999999999999999",
            "twitter/stream/monitors", "twitter/stream/monitors/m-2", "twitter/stream/webhooks", "twitter/stream/webhooks/test",
            "twitter/stream/filter-rules", "twitter/stream/filter-rules/validate", "twitter/stream/logs",
        ]),
        query in "((query|tweets|count|page|page_size|limit|offset|cursor|sort|status)=[-0-9a-z%.]{0,24}&){0,4}",
        body in r#"\{("(name|usernames|tag|query|interval_seconds|url|monitor_id|status|filter_types)":("[a-z(]{0,5}"|-?[0-9]{1,25}|null|\[1\]|\["a"\]),){0,4}"x":0\}"#,
    ) {
        let said = desk().ask(&format!("{method} {path}?{query} {body}"));
        prop_assert!(!said.starts_with("500"), "{}", said);
    }
}
