//! History and management, asked as a client asks.

use std::time::{Duration, Instant};

use expect_test::{Expect, expect};
use serde_json::Value;

use super::Rest;
use crate::model::{Provider, Response, Secret, TweetId, UnixMicros};
use crate::provider::past::{self, Past};
use crate::provider::synthetic::{Options, World};
use crate::provider::{Asked, RestSettings, percent_encode};

macro_rules! fixture {
    ($name:literal) => {
        include_str!(concat!("../../../fixtures/twitterapi_io/", $name, ".json")).trim_end()
    };
}

/// 2026-11-02T08:00:00Z.
const EIGHT: i64 = 1_793_606_400;

fn at(seconds: i64) -> UnixMicros {
    UnixMicros((EIGHT + seconds) * 1_000_000)
}

/// The fixtures that hold posts, in the order they were received.
fn tape() -> Vec<(UnixMicros, &'static str)> {
    let envelopes = [
        fixture!("connected"),
        fixture!("rule_batch"),
        fixture!("stream_tweet"),
        fixture!("single_tweet"),
        fixture!("quoted_inside"),
        fixture!("fast_post"),
        fixture!("fast_like"),
    ];
    envelopes.into_iter().enumerate().map(|(n, envelope)| (at(100 + n as i64), envelope)).collect()
}

/// A peer and what it has to tell, for a client that asks one thing after another.
struct Desk<'a, 'b> {
    rest: Rest,
    past: &'a mut Past<'b>,
    now: Instant,
    key: Option<&'a str>,
}

impl Desk<'_, '_> {
    fn ask(&mut self, request: &str, body: &str) -> Response {
        let (method, target) = request.split_once(' ').unwrap();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let headers: Vec<_> = self.key.iter().map(|key| ("x-api-key".to_owned(), (*key).to_owned())).collect();
        let asked = Asked { method, path, query, headers: &headers, body: body.as_bytes(), wants_upgrade: false };
        self.rest.asked(&asked, self.past, self.now)
    }

    fn json(&mut self, request: &str) -> Value {
        serde_json::from_slice(&self.ask(request, "").body).unwrap()
    }

    /// One line for an answer; posts are shown by the last digits of their ids, cursors as `…`.
    fn line(&mut self, request: &str, body: &str) -> String {
        let response = self.ask(request, body);
        let mut value: Value = serde_json::from_slice(&response.body).unwrap();
        shorten(&mut value);
        let space = if body.is_empty() { "" } else { " " };
        format!("{request}{space}{body}\n    {} {value}\n", response.status)
    }
}

fn shorten(value: &mut Value) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(shorten),
        Value::Object(fields) => {
            if fields.get("type").is_some_and(|kind| kind == "tweet") {
                let id = fields["id"].as_str().unwrap();
                *value = Value::from(format!("…{}", &id[id.len().saturating_sub(4)..]));
                return;
            }
            for (name, field) in fields {
                match name.as_str() {
                    "next_cursor" if field != "" => *field = "…".into(),
                    _ => shorten(field),
                }
            }
        }
        _ => {}
    }
}

fn settings(switches: &[&str]) -> RestSettings {
    let mut settings = RestSettings { rate_limits: false, ..RestSettings::default() };
    for switch in switches {
        settings.switches.set(&format!("twitterapi_io.{switch}")).unwrap();
    }
    settings
}

fn with_desk<R>(settings: RestSettings, now: UnixMicros, ask: impl FnOnce(&mut Desk<'_, '_>) -> R) -> R {
    desk_over(&tape(), settings, now, ask)
}

fn desk_over<R>(
    envelopes: &[(UnixMicros, &str)],
    settings: RestSettings,
    now: UnixMicros,
    ask: impl FnOnce(&mut Desk<'_, '_>) -> R,
) -> R {
    past::with_past(Provider::TwitterapiIo, envelopes, now, |past| {
        ask(&mut Desk { rest: Rest::new(settings), past, now: Instant::now(), key: Some("key") })
    })
}

/// Asks over the fixtures, after all of them were received; a body stands behind ` << `.
fn check(switches: &[&str], requests: &[&str], want: Expect) {
    let lines = with_desk(settings(switches), at(1_000), |desk| {
        let ask = |request: &&str| {
            let (request, body) = request.split_once(" << ").unwrap_or((request, ""));
            desk.line(request, body)
        };
        requests.iter().map(ask).collect::<String>()
    });
    want.assert_eq(&lines);
}

#[test]
fn searches() {
    check(
        &[],
        &[
            "GET /twitter/tweet/advanced_search?query=from%3Afen_lantern",
            "GET /twitter/tweet/advanced_search?query=from:fen_lantern%20tide&queryType=Top",
            "GET /twitter/tweet/advanced_search?query=ferry&since_time=1893456000",
            "GET /twitter/tweet/advanced_search?query=lang:en+since_time:1793606401+until_time:1793606470",
            "GET /twitter/tweet/advanced_search?query=max_id:2117164813577617415",
            "GET /twitter/tweet/advanced_search?query=since_id:2117165102003126273",
            "GET /twitter/tweet/advanced_search?query=gulls",
            "GET /twitter/tweet/advanced_search?query=wick",
            "GET /twitter/tweet/advanced_search",
            "GET /twitter/tweet/advanced_search?query=a&queryType=Best",
            "GET /twitter/tweet/advanced_search?query=%22open",
            "GET /twitter/tweet/advanced_search?query=since_time:9+until_time:9",
            "GET /twitter/tweet/advanced_search?query=a&cursor=nonsense",
            "POST /twitter/tweet/advanced_search?query=a",
            r#"POST /twitter/tweet/bulk_advanced_search << {"queries":[{"query":"wick"},{"query":"(a"},{"query":"ferry","queryType":"Top"},7,{"query":"nobody"}]}"#,
            "POST /twitter/tweet/bulk_advanced_search << {}",
            "POST /twitter/tweet/bulk_advanced_search << {\"queries\":[]}",
            "POST /twitter/tweet/bulk_advanced_search << [",
        ],
        expect![[r#"
            GET /twitter/tweet/advanced_search?query=from%3Afen_lantern
                200 {"has_next_page":false,"next_cursor":"","tweets":["…6274","…6273","…6273","…6273","…7415"]}
            GET /twitter/tweet/advanced_search?query=from:fen_lantern%20tide&queryType=Top
                200 {"has_next_page":false,"next_cursor":"","tweets":["…7415"]}
            GET /twitter/tweet/advanced_search?query=ferry&since_time=1893456000
                200 {"has_next_page":false,"next_cursor":"","tweets":["…9875"]}
            GET /twitter/tweet/advanced_search?query=lang:en+since_time:1793606401+until_time:1793606470
                200 {"has_next_page":false,"next_cursor":"","tweets":["…6273","…7415"]}
            GET /twitter/tweet/advanced_search?query=max_id:2117164813577617415
                200 {"has_next_page":false,"next_cursor":"","tweets":["…7415","…9875"]}
            GET /twitter/tweet/advanced_search?query=since_id:2117165102003126273
                200 {"has_next_page":false,"next_cursor":"","tweets":["…6274","…6273"]}
            GET /twitter/tweet/advanced_search?query=gulls
                200 {"has_next_page":false,"next_cursor":"","tweets":[]}
            GET /twitter/tweet/advanced_search?query=wick
                200 {"has_next_page":false,"next_cursor":"","tweets":["…6274"]}
            GET /twitter/tweet/advanced_search
                400 {"detail":"query is required"}
            GET /twitter/tweet/advanced_search?query=a&queryType=Best
                400 {"detail":"queryType must be Latest or Top"}
            GET /twitter/tweet/advanced_search?query=%22open
                400 {"detail":"a quotation mark is never closed"}
            GET /twitter/tweet/advanced_search?query=since_time:9+until_time:9
                400 {"detail":"this query can never match: nothing is published since 1970-01-01T00:00:09.000000Z and until 1970-01-01T00:00:09.000000Z"}
            GET /twitter/tweet/advanced_search?query=a&cursor=nonsense
                400 {"detail":"cursor is invalid"}
            POST /twitter/tweet/advanced_search?query=a
                405 {"detail":"Method Not Allowed"}
            POST /twitter/tweet/bulk_advanced_search {"queries":[{"query":"wick"},{"query":"(a"},{"query":"ferry","queryType":"Top"},7,{"query":"nobody"}]}
                200 {"msg":"success","results":{"query_0":{"has_next_page":false,"next_cursor":"","tweets":["…6274"]},"query_1":{"error":"a bracket `(` is never closed"},"query_2":{"has_next_page":false,"next_cursor":"","tweets":["…9875"]},"query_3":{"error":"query is required"},"query_4":{"has_next_page":false,"next_cursor":"","tweets":[]}},"status":"success"}
            POST /twitter/tweet/bulk_advanced_search {}
                400 {"detail":"queries is required"}
            POST /twitter/tweet/bulk_advanced_search {"queries":[]}
                400 {"detail":"queries must be 1 to 50 searches"}
            POST /twitter/tweet/bulk_advanced_search [
                400 {"detail":"the body must be a JSON object"}
        "#]],
    );
}

#[test]
fn timelines_in_three_shapes() {
    let name = "GET /twitter/user/last_tweets?userName=@Grebe_Harbour";
    check(
        &[],
        &[
            name,
            "GET /twitter/user/last_tweets?userId=900100200300&userName=grebe_harbour",
            "GET /twitter/user/last_tweets?userName=nobody",
            "GET /twitter/user/last_tweets",
            "GET /twitter/user/last_tweets?userId=x",
            "GET /twitter/user/last_tweets?userName=a&includeReplies=maybe",
            "GET /twitter/user/last_tweets/v2?userId=900100200301",
            "GET /twitter/user/last_tweets/v2?userName=grebe_harbour",
            "GET /twitter/user/tweet_timeline?userId=900100200301&includeReplies=true&includeParentTweet=true",
        ],
        expect![[r#"
            GET /twitter/user/last_tweets?userName=@Grebe_Harbour
                200 {"code":0,"data":{"tweets":["…9875"]},"has_next_page":false,"msg":"success","next_cursor":"","status":"success"}
            GET /twitter/user/last_tweets?userId=900100200300&userName=grebe_harbour
                200 {"code":0,"data":{"tweets":["…6274","…6273","…6273","…6273","…7415"]},"has_next_page":false,"msg":"success","next_cursor":"","status":"success"}
            GET /twitter/user/last_tweets?userName=nobody
                200 {"msg":"user not found","status":"error"}
            GET /twitter/user/last_tweets
                400 {"detail":"userId or userName is required"}
            GET /twitter/user/last_tweets?userId=x
                400 {"detail":"userId must be digits"}
            GET /twitter/user/last_tweets?userName=a&includeReplies=maybe
                400 {"detail":"includeReplies must be true or false"}
            GET /twitter/user/last_tweets/v2?userId=900100200301
                200 {"data":{"has_next_page":false,"next_cursor":"","tweets":["…9875"]},"msg":"success","status":"success"}
            GET /twitter/user/last_tweets/v2?userName=grebe_harbour
                400 {"detail":"userId is required"}
            GET /twitter/user/tweet_timeline?userId=900100200301&includeReplies=true&includeParentTweet=true
                200 {"data":{"has_next_page":false,"next_cursor":"","tweets":["…9875"]},"msg":"success","status":"success"}
        "#]],
    );
    check(
        &["last_tweets=flat"],
        &[name],
        expect![[r#"
        GET /twitter/user/last_tweets?userName=@Grebe_Harbour
            200 {"has_next_page":false,"message":"success","next_cursor":"","status":"success","tweets":["…9875"]}
    "#]],
    );
    check(
        &["last_tweets=data"],
        &[name],
        expect![[r#"
        GET /twitter/user/last_tweets?userName=@Grebe_Harbour
            200 {"data":{"has_next_page":false,"next_cursor":"","tweets":["…9875"]},"msg":"success","status":"success"}
    "#]],
    );
}

/// A post as the provider writes it; `more` holds further fields, each with a comma behind.
fn post(seconds: i64, handle: &str, text: &str, more: &str) -> String {
    let id = TweetId::first_at(at(seconds));
    format!(
        r#"{{"type":"tweet","id":"{id}","text":"{text}",{more}"author":{{"type":"user","userName":"{handle}","id":"7","name":"N"}}}}"#
    )
}

fn batch(posts: &[String]) -> String {
    format!(r#"{{"tweets":[{}],"rule_id":"r1","rule_tag":"t","rule_value":"a","event_type":"tweet"}}"#, posts.join(","))
}

fn id(seconds: i64) -> TweetId {
    TweetId::first_at(at(seconds))
}

#[test]
fn conversations() {
    let (root, answer) = (id(1), id(2));
    let posts = [
        post(1, "root", "who is here", ""),
        post(
            2,
            "one",
            "@root me",
            &format!(
                r#""isReply":true,"likeCount":1,"inReplyToId":"{root}","inReplyToUsername":"root","conversationId":"{root}","#
            ),
        ),
        post(
            3,
            "two",
            "@one me too",
            &format!(r#""isReply":true,"likeCount":9,"inReplyToId":"{answer}","conversationId":"{root}","#),
        ),
        post(4, "three", "look", &format!(r#""quoted_tweet":{},"#, post(1, "root", "who is here", ""))),
        post(5, "four", "@root look", &format!(r#""isReply":true,"quoted_tweet":{},"#, post(1, "root", "who is here", ""))),
        post(6, "five", "RT @root: who", &format!(r#""retweeted_tweet":{},"#, post(1, "root", "who is here", ""))),
    ];
    let envelope = batch(&posts);
    let lines = desk_over(&[(at(50), &envelope)], settings(&["replies_list=replies"]), at(100), |desk| {
        let mut texts = |request: &str| {
            let answer = desk.json(request);
            let tweets = answer.get("tweets").or(answer.get("replies")).or(answer["data"].get("tweets"));
            let authors: Vec<_> = match tweets {
                Some(tweets) => tweets.as_array().unwrap().iter().map(|t| t["author"]["userName"].to_string()).collect(),
                None => vec![answer.to_string()],
            };
            let authors = if authors.is_empty() { "nobody".to_owned() } else { authors.join(" ") };
            format!("{request}: {authors}\n")
        };
        let early = EIGHT + 3;
        [
            texts(&format!("GET /twitter/tweet/replies?tweetId={root}")),
            texts(&format!("GET /twitter/tweet/replies?tweetId={root}&sinceTime={early}")),
            texts(&format!("GET /twitter/tweet/replies?tweetId={root}&untilTime={early}")),
            texts(&format!("GET /twitter/tweet/replies/v2?tweetId={root}&queryType=Likes")),
            texts(&format!("GET /twitter/tweet/replies/v2?tweetId={root}&queryType=Latest")),
            texts(&format!("GET /twitter/tweet/replies/v2?tweetId={root}&queryType=Best")),
            texts("GET /twitter/tweet/replies"),
            texts("GET /twitter/tweet/replies?tweetId=x"),
            texts("GET /twitter/tweet/replies?tweetId=1&sinceTime=soon"),
            texts(&format!("GET /twitter/tweet/quotes?tweetId={root}")),
            texts(&format!("GET /twitter/tweet/quotes?tweetId={root}&includeReplies=false")),
            texts("GET /twitter/user/mentions?userName=root"),
            texts(&format!("GET /twitter/user/mentions?userName=@root&untilTime={early}")),
            texts("GET /twitter/user/mentions?userName=root&queryType=Top"),
            texts("GET /twitter/user/mentions?userName=a,b"),
            texts("GET /twitter/user/mentions"),
            texts("GET /twitter/user/last_tweets?userName=one"),
            texts("GET /twitter/user/last_tweets?userName=one&includeReplies=true"),
            texts("GET /twitter/user/last_tweets?userName=five"),
            texts("GET /twitter/user/tweet_timeline?userId=7&includeReplies=true&includeParentTweet=true"),
            texts("GET /twitter/tweet/advanced_search?query=root+include:nativeretweets"),
        ]
        .concat()
    });
    expect![[r#"
        GET /twitter/tweet/replies?tweetId=2117164812596150272: "two" "one"
        GET /twitter/tweet/replies?tweetId=2117164812596150272&sinceTime=1793606403: "two"
        GET /twitter/tweet/replies?tweetId=2117164812596150272&untilTime=1793606403: "one"
        GET /twitter/tweet/replies/v2?tweetId=2117164812596150272&queryType=Likes: "two" "one"
        GET /twitter/tweet/replies/v2?tweetId=2117164812596150272&queryType=Latest: "two" "one"
        GET /twitter/tweet/replies/v2?tweetId=2117164812596150272&queryType=Best: {"detail":"queryType must be Relevance, Latest or Likes"}
        GET /twitter/tweet/replies: {"detail":"tweetId is required"}
        GET /twitter/tweet/replies?tweetId=x: {"detail":"tweetId must be digits"}
        GET /twitter/tweet/replies?tweetId=1&sinceTime=soon: {"detail":"sinceTime must be a whole number"}
        GET /twitter/tweet/quotes?tweetId=2117164812596150272: "four" "three"
        GET /twitter/tweet/quotes?tweetId=2117164812596150272&includeReplies=false: "three"
        GET /twitter/user/mentions?userName=root: "four" "one"
        GET /twitter/user/mentions?userName=@root&untilTime=1793606403: "one"
        GET /twitter/user/mentions?userName=root&queryType=Top: "one" "four"
        GET /twitter/user/mentions?userName=a,b: {"detail":"userName must be the name of an account"}
        GET /twitter/user/mentions: {"detail":"userName is required"}
        GET /twitter/user/last_tweets?userName=one: nobody
        GET /twitter/user/last_tweets?userName=one&includeReplies=true: "one"
        GET /twitter/user/last_tweets?userName=five: "five"
        GET /twitter/user/tweet_timeline?userId=7&includeReplies=true&includeParentTweet=true: "five" "four" "three" "two" "one" "root"
        GET /twitter/tweet/advanced_search?query=root+include:nativeretweets: "five" "four" "one"
    "#]].assert_eq(&lines);
}

#[test]
fn single_posts_come_as_they_were_recorded() {
    with_desk(settings(&[]), at(1_000), |desk| {
        let response =
            desk.ask("GET /twitter/tweets?tweet_ids=2117164812176719875,1,2117165185889206274,2117164812176719875", "");
        let text = std::str::from_utf8(&response.body).unwrap();
        let envelope = fixture!("rule_batch");
        let start = envelope.find(r#"{"type":"tweet","id":"2117164812176719875""#).unwrap();
        let end = envelope.find(r#"],"rule_id""#).unwrap();
        let (first, second) = text.strip_prefix(r#"{"tweets":["#).unwrap().split_once(r#",{"article":null"#).unwrap();
        assert_eq!(first, &envelope[start..end], "byte by byte");
        assert!(second.ends_with(r#"],"status":"success","msg":"success"}"#));
        let fast: Value = serde_json::from_slice(&response.body).unwrap();
        let want = expect![[r#"
            {
              "article": null,
              "author": {
                "id": "900100200300",
                "name": "Fen Lantern",
                "twitterUrl": "https://twitter.com/fen_lantern",
                "type": "user",
                "url": "https://x.com/fen_lantern",
                "userName": "fen_lantern"
              },
              "bookmarkCount": 0,
              "card": null,
              "conversationId": "2117165185889206274",
              "createdAt": "Mon Nov 02 08:01:30 +0000 2026",
              "entities": {
                "hashtags": [],
                "urls": [],
                "user_mentions": []
              },
              "extendedEntities": {
                "media": [
                  {
                    "media_url_https": "https://pbs.example.invalid/media/none.jpg",
                    "type": "photo"
                  }
                ]
              },
              "id": "2117165185889206274",
              "inReplyToId": null,
              "inReplyToUserId": null,
              "inReplyToUsername": null,
              "isLimitedReply": false,
              "isReply": false,
              "lang": "und",
              "likeCount": 0,
              "place": {},
              "quoteCount": 0,
              "quoted_tweet": null,
              "replyCount": 0,
              "retweetCount": 0,
              "retweeted_tweet": null,
              "source": "",
              "text": "wick trimmed",
              "twitterUrl": "https://twitter.com/fen_lantern/status/2117165185889206274",
              "type": "tweet",
              "url": "https://x.com/fen_lantern/status/2117165185889206274",
              "viewCount": null
            }
        "#]];
        want.assert_eq(&format!("{:#}\n", fast["tweets"][1]));
        let many = vec!["1"; 101].join(",");
        assert_eq!(desk.ask(&format!("GET /twitter/tweets?tweet_ids={many}"), "").status, 400);
    });
    check(
        &[],
        &[
            "GET /twitter/tweets?tweet_ids=1",
            "GET /twitter/tweets",
            "GET /twitter/tweets?tweet_ids=1,,2",
            "GET /twitter/tweets?tweet_ids=1e18",
            "GET /twitter/tweets?tweet_ids=2116802420536246274",
            "GET /twitter/user/info?userName=@fen_lantern",
            "GET /twitter/user/info?userName=nobody",
            "GET /twitter/user/info",
        ],
        expect![[r#"
            GET /twitter/tweets?tweet_ids=1
                200 {"msg":"success","status":"success","tweets":[]}
            GET /twitter/tweets
                400 {"detail":"tweet_ids is required"}
            GET /twitter/tweets?tweet_ids=1,,2
                400 {"detail":"tweet_ids must be ids with commas between them"}
            GET /twitter/tweets?tweet_ids=1e18
                400 {"detail":"tweet_ids must be ids with commas between them"}
            GET /twitter/tweets?tweet_ids=2116802420536246274
                200 {"msg":"success","status":"success","tweets":[]}
            GET /twitter/user/info?userName=@fen_lantern
                200 {"data":{"createdAt":"Wed May 01 00:00:00 +0000 2019","description":"","followers":12,"following":3,"id":"900100200300","isBlueVerified":false,"name":"Fen_Lantern","profile_bio":{"description":"keeps lighthouses","entities":{}},"type":"user","url":"https://x.com/fen_lantern","userName":"fen_lantern"},"msg":"success","status":"success"}
            GET /twitter/user/info?userName=nobody
                200 {"msg":"user not found","status":"error"}
            GET /twitter/user/info
                400 {"detail":"userName is required"}
        "#]],
    );
}

#[test]
fn nothing_is_told_before_its_time() {
    let at_that_time = |now: i64| {
        with_desk(settings(&[]), at(now), |desk| {
            let answer = desk.json("GET /twitter/tweet/advanced_search?query=from:fen_lantern+OR+from:grebe_harbour");
            answer["tweets"].as_array().unwrap().len()
        })
    };
    assert_eq!([-10, 0, 1, 60, 61, 200].map(at_that_time), [0, 0, 1, 3, 3, 6]);
}

#[test]
fn pages_do_not_shift_while_new_posts_come() {
    let posts =
        |span: std::ops::Range<i64>| batch(&span.rev().map(|n| post(n, "a", &format!("post {n}"), "")).collect::<Vec<_>>());
    let (old, new) = (posts(0..45), posts(45..50));
    let envelopes = [(at(45), old.as_str()), (at(50), new.as_str())];
    let page = |now: i64, request: &str, cursor: &str| -> (Vec<String>, String) {
        let answer = desk_over(&envelopes, settings(&["last_tweets=flat"]), at(now), |desk| {
            desk.json(&format!("GET {request}&cursor={cursor}"))
        });
        let tweets = answer["tweets"].as_array().unwrap_or_else(|| panic!("{answer}"));
        let texts = tweets.iter().map(|tweet| tweet["text"].as_str().unwrap().to_owned()).collect();
        let cursor = answer["next_cursor"].as_str().unwrap().to_owned();
        assert_eq!(answer["has_next_page"], Value::from(!cursor.is_empty()));
        (texts, cursor)
    };
    for request in [
        "/twitter/tweet/advanced_search?query=post",
        "/twitter/tweet/advanced_search?query=post&queryType=Top",
        "/twitter/user/last_tweets?userName=a",
    ] {
        let (first, cursor) = page(44, request, "");
        let (second, cursor) = page(50, request, &cursor);
        let (third, end) = page(55, request, &cursor);
        let all: Vec<_> = [first, second, third].concat();
        assert_eq!(all, (0..45).rev().map(|n| format!("post {n}")).collect::<Vec<_>>(), "{request}");
        assert_eq!(end, "");
        let status = |request: &str| {
            desk_over(&envelopes, settings(&[]), at(50), |desk| {
                let response = desk.ask(&format!("GET {request}&cursor={cursor}"), "");
                (response.status, String::from_utf8_lossy(&response.body).contains("cursor is invalid"))
            })
        };
        assert_eq!(status("/twitter/tweet/advanced_search?query=other"), (400, true), "a cursor of another list");
        assert_eq!(status("/twitter/user/mentions?userName=a"), (400, true));
    }
    let (best, _) = page(55, "/twitter/tweet/advanced_search?query=post", "");
    assert_eq!((best.len(), best[0].as_str()), (20, "post 49"));
}

#[test]
fn rules() {
    let long = "a".repeat(256);
    let long_tag = format!(r#"POST /oapi/tweet_filter/add_rule << {{"tag":"{long}","value":"a","interval_seconds":100}}"#);
    check(
        &[],
        &[
            "GET /oapi/tweet_filter/get_rules",
            r#"POST /oapi/tweet_filter/add_rule << {"tag":"owls","value":"owl OR búho","interval_seconds":100}"#,
            r#"POST /oapi/tweet_filter/update_rule << {"rule_id":"00112233445566778899aabbccddeeff","tag":"t","value":"v","interval_seconds":0.1,"is_effect":0}"#,
            r#"DELETE /oapi/tweet_filter/delete_rule << {"rule_id":"ffeeddccbbaa99887766554433221100"}"#,
            "GET /oapi/tweet_filter/get_rules",
            r#"DELETE /oapi/tweet_filter/delete_rule << {"rule_id":"ffeeddccbbaa99887766554433221100"}"#,
            r#"POST /oapi/tweet_filter/update_rule << {"rule_id":"none","tag":"t","value":"v","interval_seconds":100,"is_effect":1}"#,
            r#"POST /oapi/tweet_filter/update_rule << {"rule_id":"00112233445566778899aabbccddeeff","tag":"t","value":"v","is_effect":1}"#,
            r#"POST /oapi/tweet_filter/update_rule << {"rule_id":"00112233445566778899aabbccddeeff","tag":"t","value":"v","interval_seconds":100,"is_effect":2}"#,
            r#"POST /oapi/tweet_filter/add_rule << {"tag":"owls","interval_seconds":100}"#,
            r#"POST /oapi/tweet_filter/add_rule << {"tag":7,"value":"a","interval_seconds":100}"#,
            r#"POST /oapi/tweet_filter/add_rule << {"tag":"owls","value":"a","interval_seconds":99}"#,
            r#"POST /oapi/tweet_filter/add_rule << {"tag":"owls","value":"a","interval_seconds":86401}"#,
            r#"POST /oapi/tweet_filter/add_rule << {"tag":"owls","value":"a","interval_seconds":"100"}"#,
            r#"POST /oapi/tweet_filter/add_rule << {"tag":"owls","value":"a"}"#,
            r#"POST /oapi/tweet_filter/add_rule << {"tag":"owls","value":"(a","interval_seconds":100}"#,
            "POST /oapi/tweet_filter/add_rule << not json",
            "DELETE /oapi/tweet_filter/delete_rule",
            "POST /oapi/tweet_filter/delete_rule << {}",
            "POST /oapi/tweet_filter/get_rules",
            "GET /oapi/tweet_filter/add_rule",
            "GET /oapi/tweet_filter/",
        ],
        expect![[r#"
            GET /oapi/tweet_filter/get_rules
                200 {"msg":"success","rules":[{"cost_credit":0,"created_at":"2026-11-02T08:00:05.000000Z","interval_seconds":100,"is_delete":0,"is_effect":1,"rule_id":"00112233445566778899aabbccddeeff","tag":"harbour","value":"from:fen_lantern OR from:grebe_harbour"},{"cost_credit":0,"created_at":"2026-11-02T08:01:21.000000Z","interval_seconds":100,"is_delete":0,"is_effect":1,"rule_id":"ffeeddccbbaa99887766554433221100","tag":"","value":""}],"status":"success"}
            POST /oapi/tweet_filter/add_rule {"tag":"owls","value":"owl OR búho","interval_seconds":100}
                200 {"msg":"rule added","rule_id":"d428ea13458f61123a33f28c68b47b89","status":"success"}
            POST /oapi/tweet_filter/update_rule {"rule_id":"00112233445566778899aabbccddeeff","tag":"t","value":"v","interval_seconds":0.1,"is_effect":0}
                200 {"msg":"rule updated","status":"success"}
            DELETE /oapi/tweet_filter/delete_rule {"rule_id":"ffeeddccbbaa99887766554433221100"}
                200 {"msg":"rule deleted","status":"success"}
            GET /oapi/tweet_filter/get_rules
                200 {"msg":"success","rules":[{"cost_credit":0,"created_at":"2026-11-02T08:00:05.000000Z","interval_seconds":0.1,"is_delete":0,"is_effect":0,"rule_id":"00112233445566778899aabbccddeeff","tag":"t","value":"v"},{"cost_credit":0,"created_at":"2026-11-02T08:16:40.000000Z","interval_seconds":100,"is_delete":0,"is_effect":0,"rule_id":"d428ea13458f61123a33f28c68b47b89","tag":"owls","value":"owl OR búho"}],"status":"success"}
            DELETE /oapi/tweet_filter/delete_rule {"rule_id":"ffeeddccbbaa99887766554433221100"}
                200 {"msg":"rule not found","status":"error"}
            POST /oapi/tweet_filter/update_rule {"rule_id":"none","tag":"t","value":"v","interval_seconds":100,"is_effect":1}
                200 {"msg":"rule not found","status":"error"}
            POST /oapi/tweet_filter/update_rule {"rule_id":"00112233445566778899aabbccddeeff","tag":"t","value":"v","is_effect":1}
                400 {"detail":"interval_seconds is required"}
            POST /oapi/tweet_filter/update_rule {"rule_id":"00112233445566778899aabbccddeeff","tag":"t","value":"v","interval_seconds":100,"is_effect":2}
                400 {"detail":"is_effect must be 0 or 1"}
            POST /oapi/tweet_filter/add_rule {"tag":"owls","interval_seconds":100}
                400 {"detail":"value is required"}
            POST /oapi/tweet_filter/add_rule {"tag":7,"value":"a","interval_seconds":100}
                400 {"detail":"tag must be a text"}
            POST /oapi/tweet_filter/add_rule {"tag":"owls","value":"a","interval_seconds":99}
                400 {"detail":"interval_seconds must be a number from 100 to 86400"}
            POST /oapi/tweet_filter/add_rule {"tag":"owls","value":"a","interval_seconds":86401}
                400 {"detail":"interval_seconds must be a number from 100 to 86400"}
            POST /oapi/tweet_filter/add_rule {"tag":"owls","value":"a","interval_seconds":"100"}
                400 {"detail":"interval_seconds must be a number from 100 to 86400"}
            POST /oapi/tweet_filter/add_rule {"tag":"owls","value":"a"}
                400 {"detail":"interval_seconds is required"}
            POST /oapi/tweet_filter/add_rule {"tag":"owls","value":"(a","interval_seconds":100}
                400 {"detail":"value is no search: a bracket `(` is never closed"}
            POST /oapi/tweet_filter/add_rule not json
                400 {"detail":"the body must be a JSON object"}
            DELETE /oapi/tweet_filter/delete_rule
                400 {"detail":"the body must be a JSON object"}
            POST /oapi/tweet_filter/delete_rule {}
                405 {"detail":"Method Not Allowed"}
            POST /oapi/tweet_filter/get_rules
                405 {"detail":"Method Not Allowed"}
            GET /oapi/tweet_filter/add_rule
                405 {"detail":"Method Not Allowed"}
            GET /oapi/tweet_filter/
                404 {"detail":"Not Found"}
        "#]],
    );
    check(
        &[],
        &[&long_tag],
        expect![[r#"
        POST /oapi/tweet_filter/add_rule {"tag":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","value":"a","interval_seconds":100}
            400 {"detail":"tag must have at most 255 characters"}
    "#]],
    );
    check(
        &["rule_interval=0.05"],
        &[
            r#"POST /oapi/tweet_filter/add_rule << {"tag":"owls","value":"a"}"#,
            r#"POST /oapi/tweet_filter/add_rule << {"tag":"owls","value":"a","interval_seconds":0.05}"#,
            r#"POST /oapi/tweet_filter/add_rule << {"tag":"owls","value":"a","interval_seconds":0.01}"#,
        ],
        expect![[r#"
            POST /oapi/tweet_filter/add_rule {"tag":"owls","value":"a"}
                200 {"msg":"rule added","rule_id":"03784dfea17f87982d2617a80791f122","status":"success"}
            POST /oapi/tweet_filter/add_rule {"tag":"owls","value":"a","interval_seconds":0.05}
                200 {"msg":"rule added","rule_id":"6b5ac51867cf12a1b6533974ca373e2a","status":"success"}
            POST /oapi/tweet_filter/add_rule {"tag":"owls","value":"a","interval_seconds":0.01}
                400 {"detail":"interval_seconds must be a number from 0.05 to 86400"}
        "#]],
    );
}

#[test]
fn who_is_paused() {
    with_desk(settings(&[]), at(1_000), |desk| {
        let paused = |desk: &Desk<'_, '_>| desk.rest.paused().map(|id| id[..4].to_owned()).collect::<Vec<_>>();
        assert_eq!(paused(desk), [""; 0]);
        let update = |effect: u8| {
            format!(
                r#"{{"rule_id":"00112233445566778899aabbccddeeff","tag":"t","value":"v","interval_seconds":100,"is_effect":{effect}}}"#
            )
        };
        desk.ask("POST /oapi/tweet_filter/update_rule", &update(0));
        assert_eq!(paused(desk), ["0011"]);
        desk.ask("DELETE /oapi/tweet_filter/delete_rule", r#"{"rule_id":"ffeeddccbbaa99887766554433221100"}"#);
        assert_eq!(paused(desk), ["0011", "ffee"]);
        desk.ask("POST /oapi/tweet_filter/update_rule", &update(1));
        assert_eq!(paused(desk), ["ffee"]);
    });
}

#[test]
fn monitored_accounts() {
    let fen = with_desk(settings(&[]), at(1_000), |desk| {
        let list = desk.json("GET /oapi/x_user_stream/get_user_to_monitor_tweet");
        list["data"][0]["id_for_user"].as_str().unwrap().to_owned()
    });
    let remove = format!(r#"POST /oapi/x_user_stream/remove_user_to_monitor_tweet << {{"id_for_user":"{fen}"}}"#);
    check(
        &["stream_accounts=2"],
        &[
            "GET /oapi/x_user_stream/get_user_to_monitor_tweet",
            r#"POST /oapi/x_user_stream/add_user_to_monitor_tweet << {"x_user_name":"@Grebe_Harbour"}"#,
            r#"POST /oapi/x_user_stream/add_user_to_monitor_tweet << {"x_user_name":"grebe_harbour"}"#,
            r#"POST /oapi/x_user_stream/add_user_to_monitor_tweet << {"x_user_name":"somebody"}"#,
            &remove,
            &remove,
            "GET /oapi/x_user_stream/get_user_to_monitor_tweet?query_type=0",
            "GET /oapi/x_user_stream/get_user_to_monitor_tweet?query_type=2",
            "GET /oapi/x_user_stream/get_user_to_monitor_tweet?query_type=3",
            "GET /oapi/x_user_stream/get_user_monitor_account",
            r#"POST /oapi/x_user_stream/add_user_to_monitor_tweet << {"x_user_name":"somebody"}"#,
            r#"POST /oapi/x_user_stream/add_user_to_monitor_tweet << {"x_user_name":"no body"}"#,
            "POST /oapi/x_user_stream/add_user_to_monitor_tweet << {}",
            "GET /oapi/x_user_stream/add_user_to_monitor_tweet",
        ],
        expect![[r#"
            GET /oapi/x_user_stream/get_user_to_monitor_tweet
                200 {"data":[{"created_at":"2026-11-02T08:01:30.000000Z","id_for_user":"860ff3abbf17878d","is_monitor_profile":0,"is_monitor_tweet":1,"monitor_profile_config_status":0,"monitor_tweet_config_status":2,"x_user_id":900100200300,"x_user_name":"Fen Lantern","x_user_screen_name":"fen_lantern"}],"msg":"success","status":"success"}
            POST /oapi/x_user_stream/add_user_to_monitor_tweet {"x_user_name":"@Grebe_Harbour"}
                200 {"msg":"account added","status":"success"}
            POST /oapi/x_user_stream/add_user_to_monitor_tweet {"x_user_name":"grebe_harbour"}
                200 {"msg":"this account is monitored already","status":"error"}
            POST /oapi/x_user_stream/add_user_to_monitor_tweet {"x_user_name":"somebody"}
                200 {"msg":"the plan has room for 2 accounts","status":"error"}
            POST /oapi/x_user_stream/remove_user_to_monitor_tweet {"id_for_user":"860ff3abbf17878d"}
                200 {"msg":"account removed","status":"success"}
            POST /oapi/x_user_stream/remove_user_to_monitor_tweet {"id_for_user":"860ff3abbf17878d"}
                200 {"msg":"this account is not monitored","status":"error"}
            GET /oapi/x_user_stream/get_user_to_monitor_tweet?query_type=0
                200 {"data":[{"created_at":"2026-11-02T08:16:40.000000Z","id_for_user":"7f2e0791483ded68","is_monitor_profile":0,"is_monitor_tweet":1,"monitor_profile_config_status":0,"monitor_tweet_config_status":1,"x_user_id":900100200301,"x_user_name":"Grebe_Harbour","x_user_screen_name":"Grebe_Harbour"}],"msg":"success","status":"success"}
            GET /oapi/x_user_stream/get_user_to_monitor_tweet?query_type=2
                200 {"data":[],"msg":"success","status":"success"}
            GET /oapi/x_user_stream/get_user_to_monitor_tweet?query_type=3
                400 {"detail":"query_type must be 0, 1 or 2"}
            GET /oapi/x_user_stream/get_user_monitor_account
                200 {"data":[{"created_at":"2026-11-02T08:16:40.000000Z","id_for_user":"7f2e0791483ded68","is_monitor_profile":0,"is_monitor_tweet":1,"monitor_profile_config_status":0,"monitor_tweet_config_status":1,"x_user_id":900100200301,"x_user_name":"Grebe_Harbour","x_user_screen_name":"Grebe_Harbour"}],"msg":"success","status":"success"}
            POST /oapi/x_user_stream/add_user_to_monitor_tweet {"x_user_name":"somebody"}
                200 {"msg":"account added","status":"success"}
            POST /oapi/x_user_stream/add_user_to_monitor_tweet {"x_user_name":"no body"}
                400 {"detail":"x_user_name must be the name of an account"}
            POST /oapi/x_user_stream/add_user_to_monitor_tweet {}
                400 {"detail":"x_user_name is required"}
            GET /oapi/x_user_stream/add_user_to_monitor_tweet
                405 {"detail":"Method Not Allowed"}
        "#]],
    );
    check(
        &["stream_accounts=0"],
        &["GET /oapi/x_user_stream/get_user_to_monitor_tweet"],
        expect![[r#"
        GET /oapi/x_user_stream/get_user_to_monitor_tweet
            200 {"msg":"No active monitoring subscription","status":"error"}
    "#]],
    );
}

#[test]
fn keys_paths_and_verbs() {
    let settings = RestSettings { key: Secret::new("right"), ..RestSettings::default() };
    let lines = with_desk(settings, at(1_000), |desk| {
        let mut lines = String::new();
        for key in [None, Some(" "), Some("wrong"), Some("right")] {
            desk.key = key;
            lines += &desk.line("GET /oapi/my/info", "");
        }
        desk.key = None;
        lines += &desk.line("GET /twitter/nothing", "");
        lines += &desk.line("DELETE /twitter/tweets", "");
        assert_eq!(desk.ask("DELETE /twitter/tweets", "").header("allow"), Some("GET"));
        lines
    });
    expect![[r#"
        GET /oapi/my/info
            403 {"error":"Forbidden","message":"API key required. Please include x-api-key in the request headers"}
        GET /oapi/my/info
            403 {"error":"Forbidden","message":"API key required. Please include x-api-key in the request headers"}
        GET /oapi/my/info
            401 {"error":"Unauthorized","message":"API key is invalid"}
        GET /oapi/my/info
            200 {"recharge_credits":1000000000,"total_bonus_credits":0}
        GET /twitter/nothing
            404 {"detail":"Not Found"}
        DELETE /twitter/tweets
            405 {"detail":"Method Not Allowed"}
    "#]]
    .assert_eq(&lines);
}

#[test]
fn limits_by_the_plan() {
    let statuses = |switches: &[&str], after_ms: &[u64]| -> Vec<u16> {
        let settings = RestSettings { rate_limits: true, ..settings(switches) };
        with_desk(settings, at(1_000), |desk| {
            let start = desk.now;
            let mut ask = |after: &u64| {
                desk.now = start + Duration::from_millis(*after);
                desk.ask("GET /oapi/my/info", "").status
            };
            after_ms.iter().map(&mut ask).collect()
        })
    };
    assert_eq!(statuses(&["plan_qps=2"], &[0, 100, 200, 1_000, 1_050, 1_100]), [200, 200, 429, 200, 429, 200]);
    assert_eq!(statuses(&["plan_qps=0"], &[0, 4_999, 5_000]), [200, 429, 200]);
    assert_eq!(statuses(&[], &[0; 21]).iter().filter(|status| **status == 200).count(), 20);
    let lines = with_desk(RestSettings { rate_limits: true, ..settings(&["plan_qps=0"]) }, at(1_000), |desk| {
        desk.ask("GET /oapi/my/info", "");
        desk.line("GET /oapi/my/info", "")
    });
    expect![[r#"
        GET /oapi/my/info
            429 {"error":"Too Many Requests","message":"For free-tier users, the QPS limit is one request every 5 seconds."}
    "#]]
    .assert_eq(&lines);
}

#[test]
fn credits_are_used_up() {
    let settings = RestSettings { credits: Some(100), ..settings(&[]) };
    let lines = with_desk(settings, at(1_000), |desk| {
        [
            "GET /oapi/my/info",
            "GET /twitter/tweet/advanced_search?query=nobody",
            "GET /twitter/tweet/advanced_search?query=",
            "GET /twitter/user/last_tweets?userName=nobody",
            "GET /oapi/my/info",
            "GET /twitter/user/info?userName=fen_lantern",
            "GET /oapi/my/info",
            "GET /twitter/tweet/advanced_search?query=from:fen_lantern",
            "GET /oapi/my/info",
            "GET /twitter/tweet/advanced_search?query=nobody",
            "GET /oapi/tweet_filter/get_rules?",
        ]
        .map(|request| {
            let response = desk.ask(request, "");
            let body = String::from_utf8_lossy(&response.body);
            format!("{request}\n    {} {}\n", response.status, body.chars().take(80).collect::<String>())
        })
        .concat()
    });
    expect![[r#"
        GET /oapi/my/info
            200 {"recharge_credits":100,"total_bonus_credits":0}
        GET /twitter/tweet/advanced_search?query=nobody
            200 {"tweets":[],"has_next_page":false,"next_cursor":""}
        GET /twitter/tweet/advanced_search?query=
            400 {"detail":"query is required"}
        GET /twitter/user/last_tweets?userName=nobody
            200 {"status":"error","msg":"user not found"}
        GET /oapi/my/info
            200 {"recharge_credits":85,"total_bonus_credits":0}
        GET /twitter/user/info?userName=fen_lantern
            200 {"status":"success","msg":"success","data":{"createdAt":"Wed May 01 00:00:00 +00
        GET /oapi/my/info
            200 {"recharge_credits":67,"total_bonus_credits":0}
        GET /twitter/tweet/advanced_search?query=from:fen_lantern
            200 {"tweets":[{"article":null,"author":{"id":"900100200300","name":"Fen Lantern","t
        GET /oapi/my/info
            200 {"recharge_credits":-8,"total_bonus_credits":0}
        GET /twitter/tweet/advanced_search?query=nobody
            402 {"error":"Unauthorized","message":"Credits is not enough.Please recharge"}
        GET /oapi/tweet_filter/get_rules?
            200 {"rules":[{"rule_id":"00112233445566778899aabbccddeeff","tag":"harbour","value":
    "#]]
    .assert_eq(&lines);
}

#[test]
fn ids_bound_a_search_exactly() {
    let posts: Vec<_> = (0..9).rev().map(|n| post(n, "a", &format!("post {n}"), "")).collect();
    let envelope = batch(&posts);
    desk_over(&[(at(50), &envelope)], settings(&[]), at(100), |desk| {
        let mut found = |query: String| {
            let answer = desk.json(&format!("GET /twitter/tweet/advanced_search?query={query}"));
            let tweets = answer["tweets"].as_array().unwrap();
            tweets.iter().map(|tweet| tweet["text"].as_str().unwrap()[5..].to_owned()).collect::<String>()
        };
        assert_eq!(found(format!("since_id:{}", id(6))), "87");
        assert_eq!(found(format!("since_id:{}", id(6).0 - 1)), "876");
        assert_eq!(found(format!("max_id:{}", id(2))), "210");
        assert_eq!(found(format!("max_id:{}", id(2).0 - 1)), "10");
        assert_eq!(found(format!("since_id:{}+max_id:{}", id(2), id(4))), "43");
        assert_eq!(found(format!("since_id:7+max_id:{}", id(1))), "10");
        assert_eq!(found(format!("max_id:{}+until_time:{}", id(3), EIGHT + 2)), "10");
        assert_eq!(found(format!("max_id:{}+since_time:{}", id(3), EIGHT + 20)), "");
    });
}

/// What the generator makes can be searched in every way its own rules do.
#[test]
fn rules_of_the_generator_find_its_posts() {
    let options =
        Options { mix: Provider::ALL.map(|one| f64::from(u8::from(one == Provider::TwitterapiIo))), ..Options::default() };
    let envelopes: Vec<_> = World::new(options).take(3_000).collect();
    let texts: Vec<_> = envelopes.iter().map(|e| (e.at, std::str::from_utf8(&e.bytes).unwrap())).collect();
    let now = texts.last().unwrap().0;
    let searches = [
        "night OR train OR owl",
        "lang:en filter:replies",
        "lang:en -filter:replies",
        "filter:media",
        "filter:videos",
        "filter:links",
        "filter:hashtags",
        "filter:quote",
        "filter:nativeretweets",
        "url:example.org",
        "min_faves:1",
        "filter:mentions",
    ];
    desk_over(&texts, settings(&[]), now, |desk| {
        for search in searches {
            let query = percent_encode(search);
            let answer = desk.json(&format!("GET /twitter/tweet/advanced_search?query={query}"));
            assert!(!answer["tweets"].as_array().unwrap().is_empty(), "{search}");
        }
        let rules = desk.json("GET /oapi/tweet_filter/get_rules");
        for rule in rules["rules"].as_array().unwrap() {
            let body = serde_json::json!({
                "rule_id": rule["rule_id"], "tag": rule["tag"], "value": rule["value"], "interval_seconds": 100, "is_effect": 1,
            });
            let answer = desk.ask("POST /oapi/tweet_filter/update_rule", &body.to_string());
            assert_eq!(&answer.body[..], br#"{"status":"success","msg":"rule updated"}"#, "{rule}");
        }
    });
}

#[test]
fn a_torn_tape_is_a_500() {
    let mut index = past::Index::default();
    index.note(at(1), &super::decode(fixture!("rule_batch")), 0);
    let mut torn = past::Torn;
    let mut past = Past::new(Provider::TwitterapiIo, &mut index, &mut torn, at(1_000));
    let mut desk = Desk { rest: Rest::new(settings(&[])), past: &mut past, now: Instant::now(), key: Some("key") };
    for request in ["GET /twitter/tweet/advanced_search?query=a", "GET /oapi/tweet_filter/get_rules"] {
        let response = desk.ask(request, "");
        assert_eq!((response.status, &response.body[..]), (500, &br#"{"detail":"Internal Server Error"}"#[..]), "{request}");
    }
}

proptest::proptest! {
    #[test]
    fn no_request_panics(path in 0usize..20, query in "[a-zA-Z_=&%0-9:\"()-]{0,60}", body in "[ -~]{0,60}") {
        let (path, verb, _) = super::rest::CALLS[path];
        with_desk(settings(&[]), at(1_000), |desk| {
            for name in ["query", "tweet_ids", "userName", "userId", "tweetId", "cursor"] {
                desk.ask(&format!("{verb} {path}?{name}={query}"), &body);
            }
        });
    }
}
