#![allow(clippy::unwrap_used, reason = "a test may panic")]
//! Scripts, checks and plans without a socket.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::plan::{Act, Watch};
use super::script::Live;
use super::*;
use crate::model::{EventId, Provider, Response, UnixMicros};
use crate::net::Reply;

const TS: Provider = Provider::Tweetstream;

fn script(text: &str) -> Script {
    Script::parse("a.toml", text).unwrap()
}

fn plan(text: &str) -> Arc<Plan> {
    Arc::new(Plan::new(script(text), UnixMicros(0)))
}

fn at(secs: i64) -> UnixMicros {
    UnixMicros(secs * 1_000_000)
}

fn fault(words: &str) -> String {
    format!("[[fault]]\n{}", words.replace("; ", "\n"))
}

#[test]
fn bad_scripts_name_the_place_and_the_cure() {
    let whole = ["", "seed = -1", "sed = 7", "[[fault]\n", "seed = 7\nfault = 3"];
    let faults = [
        "name = \"x\"",
        "do = \"explode\"",
        "do = 3",
        "do = \"close\"; bytes = 3",
        "do = \"reset\"; path = \"/api/history\"",
        "do = \"status\"; status = 500; messages = 3",
        "do = \"close\"; code = 1005",
        "do = \"close\"; code = 70000",
        "do = \"close\"; code = 2000; name = \"odd\"",
        "do = \"delay\"",
        "do = \"delay\"; by = \"soon\"",
        "do = \"delay\"; by = \"900years\"",
        "do = \"delay\"; by = 0",
        "do = \"stall\"; client = \"asleep\"",
        "do = \"swallow\"; count = 1; for = \"1s\"",
        "do = \"swallow\"; count = 0",
        "do = \"garbage\"; kind = \"soup\"",
        "do = \"garbage\"; kind = \"frame\"; provider = \"x_live\"",
        "do = \"oversize\"; bytes = 3",
        "do = \"drip\"; bytes_per_second = 0",
        "do = \"replaced\"; provider = [\"tweetstream\"]",
        "do = \"error_frame\"; code = 4002",
        "do = \"refuse\"; status = 200",
        "do = \"refuse\"",
        "do = \"bad_handshake\"; provider = \"x_live\"",
        "do = \"reset\"; provider = \"twitter\"",
        "do = \"reset\"; provider = []",
        "do = \"reset\"; attempt = 0",
        "do = \"reset\"; attempt = \"3..2\"",
        "do = \"reset\"; messages = 0",
        "do = \"reset\"; messages = 1; tweet = \"1\"",
        "do = \"reset\"; tweet = 2064689031777615872",
        "do = \"reset\"; chance = 0",
        "do = \"reset\"; chance = 1.5",
        "do = \"reset\"; times = 0",
        "do = \"reset\"; times = 2; expect = 3",
        "do = \"reset\"; after = \"5s\"; at = \"2026-01-05T12:00:00Z\"",
        "do = \"reset\"; after = \"5s\"; until = \"5s\"",
        "do = \"reset\"; at = \"yesterday\"",
        "do = \"shuffle\"; path = \"/nowhere\"",
        "do = \"shuffle\"; path = \"/v1/\"; provider = \"x_live\"",
        "do = \"cursor_loop\"; provider = \"tweetstream\"",
        "do = \"missing_row\"; row = 0",
    ];
    let mut said = String::new();
    let twins = format!("{}\n{}", fault("do = \"reset\"; name = \"x\""), fault("do = \"reset\"; name = \"x\""));
    let all = whole.into_iter().map(str::to_owned).chain(faults.into_iter().map(fault)).chain([twins]);
    for text in all {
        let error = Script::parse("a.toml", &text).expect_err(&text);
        said += &format!("{error}\n    {}\n", error.cure);
    }
    expect_test::expect![[r#"
        a.toml: holds no faults
            add a table [[fault]] with do = "…", or leave the script out
        a.toml: line 1: invalid value: integer `-1`, expected u64
            a script holds `seed = 7` and tables `[[fault]]`
        a.toml: line 1: unknown field `sed`, expected `seed` or `fault`
            a script holds `seed = 7` and tables `[[fault]]`
        a.toml: line 1: unclosed array table, expected `]`
            a script holds `seed = 7` and tables `[[fault]]`
        a.toml: line 2: invalid type: integer `3`, expected a sequence
            a script holds `seed = 7` and tables `[[fault]]`
        a.toml, fault `x`: `do` is missing
            add do = "close", or another of the faults
        a.toml, fault `explode 1`: there is no fault `explode`
            known are on a connection: close, reset, stall, delay, duplicate, reorder, swallow, garbage, oversize, drip, replaced, lapse, error_frame; when it is opened: refuse, bad_handshake, hang, drop; in history: status, truncate, not_json, slow, repeat_page, cursor_loop, missing_row, lying_next, shuffle, duplicate_row
        a.toml, fault `number 1`: `do` is 3, not a text
            write do = "…"
        a.toml, fault `close 1`: `close` takes no `bytes`
            it takes name, do, code, reason, after, at, until, messages, attempt, tweet, provider, times, expect, chance
        a.toml, fault `reset 1`: `reset` takes no `path`
            it takes name, do, after, at, until, messages, attempt, tweet, provider, times, expect, chance
        a.toml, fault `status 1`: `status` takes no `messages`
            it takes name, do, status, retry_after, body, after, at, until, path, request, provider, times, expect, chance
        a.toml, fault `close 1`: close code 1005 cannot be sent
            take 1000 to 1003, 1007 to 1014, or 3000 to 4999
        a.toml, fault `close 1`: `code` is 70000
            it is at most 65535
        a.toml, fault `odd`: close code 2000 cannot be sent
            take 1000 to 1003, 1007 to 1014, or 3000 to 4999
        a.toml, fault `delay 1`: `by` is missing
            add by = "2s"
        a.toml, fault `delay 1`: `by` is "soon", not a length of time
            write by = "10s", "250ms", "5m", or a number of seconds, up to a year
        a.toml, fault `delay 1`: `by` is "900years", not a length of time
            write by = "10s", "250ms", "5m", or a number of seconds, up to a year
        a.toml, fault `delay 1`: `by` is no time at all
            write by = "2s"
        a.toml, fault `stall 1`: `client` is "asleep"
            known are ignored, unread
        a.toml, fault `swallow 1`: has both `count` and `for`
            keep one of them
        a.toml, fault `swallow 1`: swallows 0 envelopes
            write count = 1 or more
        a.toml, fault `garbage 1`: `kind` is "soup"
            known are json, utf8, frame, binary
        a.toml, fault `garbage 1`: `garbage` cannot happen at x_live
            it can at twitterapi_io, tweetstream, scrapebadger
        a.toml, fault `oversize 1`: `bytes` is 3
            it is from 32 to 4294967296
        a.toml, fault `drip 1`: drips 0 bytes a second
            that is do = "stall"
        a.toml, fault `replaced 1`: `replaced` cannot happen at tweetstream
            it can at twitterapi_io
        a.toml, fault `error_frame 1`: there is no error frame 4002
            4001 is a bad key, 4003 too many connections
        a.toml, fault `refuse 1`: status 200 refuses nothing
            it is from 400 to 599
        a.toml, fault `refuse 1`: `status` is missing
            add status = 503
        a.toml, fault `bad_handshake 1`: `bad_handshake` cannot happen at x_live
            it can at twitterapi_io, tweetstream, scrapebadger
        a.toml, fault `reset 1`: there is no provider "twitter"
            known are twitterapi_io, tweetstream, scrapebadger, x_live
        a.toml, fault `reset 1`: `provider` is an empty list
            leave it out for all, or name one
        a.toml, fault `reset 1`: `attempt` is 0, not a number from 1 up, a list of them, or a range
            write attempt = 2, [1, 3], "2.." or "2..5" (both ends included)
        a.toml, fault `reset 1`: `attempt` is "3..2", not a number from 1 up, a list of them, or a range
            write attempt = 2, [1, 3], "2.." or "2..5" (both ends included)
        a.toml, fault `reset 1`: `messages` is 0
            messages are counted from 1
        a.toml, fault `reset 1`: has both `messages` and `tweet`
            keep one: a post and a number seldom meet
        a.toml, fault `reset 1`: `tweet` is 2064689031777615872, not a post's id in quotes
            write tweet = "2064689031777615872"
        a.toml, fault `reset 1`: a chance of 0 cannot be
            it is above 0 and at most 1
        a.toml, fault `reset 1`: a chance of 1.5 cannot be
            it is above 0 and at most 1
        a.toml, fault `reset 1`: `times` is 0, so it never fires
            write times = 1 or more, or times = "always"; leave the fault out to switch it off
        a.toml, fault `reset 1`: is expected 3 times but may fire 2 times at most
            raise `times`, or lower `expect`
        a.toml, fault `reset 1`: has both `after` and `at`
            keep one of them
        a.toml, fault `reset 1`: `until` is not after its start
            it is the end of the window, measured from the first envelope, too
        a.toml, fault `reset 1`: `at` is "yesterday", not an instant
            write at = "2026-11-20T23:18:00Z", with its zone
        a.toml, fault `shuffle 1`: nobody answers at /nowhere
            paths begin with /twitter/, /oapi/, /api/, /v1/, /1.1/, /i/api/ or /graphql/
        a.toml, fault `shuffle 1`: /v1/ is scrapebadger's, to whom it cannot happen here
            set `provider` and `path` to the same one
        a.toml, fault `cursor_loop 1`: `cursor_loop` cannot happen at tweetstream
            it can at twitterapi_io, scrapebadger, x_live
        a.toml, fault `missing_row 1`: `row` is 0
            rows are counted from 1
        a.toml, fault `x`: the name is taken
            give each fault a name of its own; the report calls it so
    "#]].assert_eq(&said);
    let error = Script::load(Path::new("no/such.toml")).unwrap_err();
    assert!(error.to_string().starts_with("no/such.toml: cannot be read: "), "{error}");
}

#[test]
fn what_the_feed_makes_impossible() {
    let lane = |n, last| Lane { n_envelopes: Some(n), last: Some(at(last)) };
    let known = Known { first: Some(at(100)), lanes: [lane(9, 110), lane(20, 160), Lane::default(), lane(0, 0)] };
    let mut said = String::new();
    for words in [
        "do = \"reset\"",
        "do = \"reset\"; provider = \"x_live\"",
        "do = \"reset\"; provider = [\"x_live\", \"tweetstream\"]",
        "do = \"reset\"; messages = 21; provider = [\"x_live\", \"tweetstream\"]",
        "do = \"reset\"; messages = 21",
        "do = \"reset\"; messages = 20; provider = \"tweetstream\"",
        "do = \"replaced\"; after = \"11s\"",
        "do = \"replaced\"; after = \"10s\"",
        "do = \"replaced\"; at = 1970-01-01T00:01:51Z",
        "do = \"reset\"; until = \"1970-01-01T00:01:40Z\"",
        "do = \"reset\"; after = \"5s\"; until = \"1970-01-01T00:01:45Z\"",
        "do = \"refuse\"; status = 503; provider = \"x_live\"",
        "do = \"shuffle\"; provider = \"x_live\"",
    ] {
        let found = against(&script(&fault(words)), &known);
        let found = found.map_or_else(|error| format!("{error}\n    {}", error.cure), |()| "can fire".to_owned());
        said += &format!("{words}\n  {found}\n");
    }
    expect_test::expect![[r#"
        do = "reset"
          can fire
        do = "reset"; provider = "x_live"
          a.toml, fault `reset 1`: can never fire: there is nothing of x_live to play
            name a provider that is played, or leave `provider` out
        do = "reset"; provider = ["x_live", "tweetstream"]
          can fire
        do = "reset"; messages = 21; provider = ["x_live", "tweetstream"]
          a.toml, fault `reset 1`: waits for message 21, but there are 20 of tweetstream
            write messages = 20 or less
        do = "reset"; messages = 21
          can fire
        do = "reset"; messages = 20; provider = "tweetstream"
          can fire
        do = "replaced"; after = "11s"
          a.toml, fault `replaced 1`: begins at 1970-01-01T00:01:51.000000Z, after the last envelope of twitterapi_io at 1970-01-01T00:01:50.000000Z
            begin earlier
        do = "replaced"; after = "10s"
          can fire
        do = "replaced"; at = 1970-01-01T00:01:51Z
          a.toml, fault `replaced 1`: begins at 1970-01-01T00:01:51.000000Z, after the last envelope of twitterapi_io at 1970-01-01T00:01:50.000000Z
            begin earlier
        do = "reset"; until = "1970-01-01T00:01:40Z"
          a.toml, fault `reset 1`: ends at 1970-01-01T00:01:40.000000Z, before anything can happen (the first envelope is of 1970-01-01T00:01:40.000000Z)
            end later
        do = "reset"; after = "5s"; until = "1970-01-01T00:01:45Z"
          a.toml, fault `reset 1`: ends at 1970-01-01T00:01:45.000000Z, before anything can happen (the first envelope is of 1970-01-01T00:01:40.000000Z)
            end later
        do = "refuse"; status = 503; provider = "x_live"
          can fire
        do = "shuffle"; provider = "x_live"
          can fire
    "#]].assert_eq(&said);
    against(&script(&fault("do = \"reset\"; messages = 9")), &Known::default()).unwrap();
}

/// Places of a connection's messages, a second apart, at which something happens.
fn places(watch: &mut Watch, n: u64) -> Vec<u64> {
    let happens = |n: &u64| !watch.before(at(*n as i64), format!("{{\"n\":{n}}}").as_bytes()).is_empty();
    (1..=n).filter(happens).collect()
}

#[test]
fn who_fires_when() {
    let cases: [(&str, &[u64]); 9] = [
        ("do = \"duplicate\"; messages = 3", &[3]),
        ("do = \"duplicate\"; after = \"4s\"", &[4]),
        ("do = \"duplicate\"; after = \"4s\"; until = \"7s\"; times = \"always\"", &[4, 5, 6]),
        ("do = \"duplicate\"; at = \"1970-01-01T00:00:08Z\"; times = 2", &[8, 9]),
        ("do = \"duplicate\"; attempt = [2, 4]", &[]),
        ("do = \"duplicate\"; provider = \"x_live\"", &[]),
        ("do = \"swallow\"; count = 3; messages = 2", &[2, 3, 4]),
        ("do = \"swallow\"; for = \"2s\"; messages = 2", &[2, 3]),
        ("do = \"lapse\"; after = \"8s\"", &[8, 9, 10]),
    ];
    for (words, want) in cases {
        let plan = plan(&fault(words));
        let got = plan.watch(TS, 1).map(|mut watch| places(&mut watch, 10)).unwrap_or_default();
        assert_eq!(got, want, "{words}");
    }
    let refuse = plan(&fault("do = \"refuse\"; status = 503; after = \"4s\""));
    assert_eq!(refuse.attempt(TS, refuse.reached(TS)).1, None);
    assert_eq!(places(&mut refuse.watch(TS, 1).unwrap(), 5), [0; 0]);
    assert!(refuse.attempt(TS, refuse.reached(TS)).1.is_some(), "its connections have come so far");
    let plan = plan(&fault("do = \"duplicate\"; attempt = [2, \"4..5\"]; times = \"always\""));
    let watched: Vec<_> = (1..9).filter(|attempt| plan.watch(TS, *attempt).is_some()).collect();
    assert_eq!(watched, [2, 4, 5]);
}

#[test]
fn chance_depends_on_nothing_but_its_place() {
    let words = "name = \"a\"; do = \"duplicate\"; chance = 0.1; times = \"always\"";
    let of = |text: &str, provider, attempt| places(&mut plan(text).watch(provider, attempt).unwrap(), 2_000);
    let alone = of(&format!("seed = 7\n{}", fault(words)), TS, 1);
    assert!((140..260).contains(&alone.len()), "{}", alone.len());
    let other = fault("name = \"b\"; do = \"delay\"; by = 1; messages = 9999");
    assert_eq!(of(&format!("seed = 7\n{other}\n{}", fault(words)), TS, 1), alone);
    assert_ne!(of(&format!("seed = 8\n{}", fault(words)), TS, 1), alone);
    assert_ne!(of(&format!("seed = 7\n{}", fault(words)), TS, 2), alone);
    assert_ne!(of(&format!("seed = 7\n{}", fault(words)), Provider::XLive, 1), alone);

    // Connections side by side do not move each other's chances.
    let plan = plan(&format!("seed = 7\n{}", fault(words)));
    let (mut one, mut two) = (plan.watch(TS, 1).unwrap(), plan.watch(TS, 2).unwrap());
    let mut got = Vec::new();
    for n in 1..=2_000 {
        if !one.before(at(n), b"{}").is_empty() {
            got.push(n as u64);
        }
        two.before(at(n), b"{}");
    }
    assert_eq!(got, alone);
}

#[test]
fn what_ends_a_connection_comes_last() {
    let text = format!(
        "{}\n{}\n{}\n{}",
        fault("do = \"duplicate\"; messages = 1"),
        fault("do = \"reset\"; messages = 1"),
        fault("do = \"delay\"; by = 1; messages = 1"),
        fault("do = \"swallow\"; messages = 2")
    );
    let plan = plan(&text);
    let mut watch = plan.watch(TS, 1).unwrap();
    assert_eq!(watch.before(at(0), b"{}"), [Act::Do(Live::Duplicate), Act::Do(Live::Reset)]);
    let fired: Vec<_> = plan.report().iter().map(|row| (row.fired, row.is_missed())).collect();
    assert_eq!(fired, [(1, false), (1, false), (0, true), (0, true)]);
    assert_eq!(plan.report()[2].words(), "fault delay 3 (delay): fired 0, expected 1 - it never fired");
}

#[test]
fn a_post_is_found_in_its_envelope() {
    let envelope = include_bytes!("../../../fixtures/tweetstream/content.json");
    let events = crate::provider::decode(TS, envelope).events;
    let EventId::Tweet(id) = events[0].id else { panic!("no post") };
    let plan = plan(&fault(&format!("do = \"swallow\"; tweet = \"{id}\"")));
    let mut watch = plan.watch(TS, 1).unwrap();
    assert!(watch.before(at(1), format!("{{\"other\":\"{id}\"}}").as_bytes()).is_empty(), "digits are no post");
    assert_eq!(watch.before(at(1), envelope), [Act::Skip]);
}

#[test]
fn attempts_are_counted_for_each_provider() {
    let plan = plan(&fault("do = \"refuse\"; status = 503; attempt = \"2..3\"; times = 3; expect = 3"));
    let mut said = Vec::new();
    for provider in [TS, TS, TS, TS, Provider::XLive, Provider::XLive, Provider::XLive] {
        let (number, opening) = plan.attempt(provider, at(0));
        said.push((number, opening.is_some()));
    }
    assert_eq!(said, [(1, false), (2, true), (3, true), (4, false), (1, false), (2, true), (3, false)]);
    assert!(!plan.report()[0].is_missed());
}

fn page(rows: &[u32], cursor: &str) -> Response {
    let rows: Vec<_> = rows.iter().map(|id| json!({ "id": id })).collect();
    Response::json(200, json!({ "tweets": rows, "has_next_page": true, "next_cursor": cursor }).to_string())
}

/// What a client of TwitterAPI.io's search gets: status, ids and cursor.
fn search(plan: &Plan, query: &str, answer: Response) -> String {
    let path = "/twitter/tweet/advanced_search";
    let (wait, reply) = plan.around(Provider::TwitterapiIo, path, query, at(5), || answer);
    let wait = if wait.is_zero() { String::new() } else { format!("{wait:?} ") };
    match reply {
        Reply::Http(response) => match serde_json::from_slice::<Value>(&response.body) {
            Ok(page) if response.status == 200 => {
                let ids: Vec<_> = page["tweets"].as_array().unwrap().iter().map(|row| row["id"].to_string()).collect();
                format!("{wait}{} {}", ids.join(" "), page["next_cursor"])
            }
            _ => format!("{wait}{} {}", response.status, String::from_utf8_lossy(&response.body).lines().next().unwrap()),
        },
        Reply::Cut { response, n_bytes } => format!("{wait}cut at {n_bytes} of {}", response.body.len()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn history_that_cannot_be_trusted() {
    let ask = |words: &str| {
        let plan = plan(&fault(words));
        let first = search(&plan, "query=a", page(&[4, 3], "c1"));
        let second = search(&plan, "query=a&cursor=c1", page(&[2, 1], "c2"));
        format!("{first} | {second} | {}", plan.report()[0].fired)
    };
    let mut said = String::new();
    for words in [
        "do = \"status\"; status = 402; request = 1",
        "do = \"status\"; status = 429; times = \"always\"; body = \"mine\"",
        "do = \"truncate\"; request = 2",
        "do = \"not_json\"",
        "do = \"slow\"; by = \"2s\"; times = 2",
        "do = \"repeat_page\"",
        "do = \"cursor_loop\"",
        "do = \"missing_row\"; row = 2; request = \"2..\"",
        "do = \"missing_row\"; row = 3",
        "do = \"duplicate_row\"; row = 1",
        "do = \"lying_next\"; times = 2",
        "do = \"shuffle\"; times = \"always\"",
        "do = \"shuffle\"; path = \"/twitter/user/\"",
        "do = \"shuffle\"; provider = \"x_live\"",
        "do = \"shuffle\"; after = \"6s\"",
    ] {
        said += &format!("{words}\n  {}\n", ask(words));
    }
    expect_test::expect![[r#"
        do = "status"; status = 402; request = 1
          402 {"error":"Unauthorized","message":"Credits is not enough.Please recharge"} | 2 1 "c2" | 1
        do = "status"; status = 429; times = "always"; body = "mine"
          429 mine | 429 mine | 2
        do = "truncate"; request = 2
          4 3 "c1" | cut at 35 of 70 | 1
        do = "not_json"
          200 <html> | 2 1 "c2" | 1
        do = "slow"; by = "2s"; times = 2
          2s 4 3 "c1" | 2s 2 1 "c2" | 2
        do = "repeat_page"
          4 3 "c1" | 4 3 "c2" | 1
        do = "cursor_loop"
          4 3 "c1" | 2 1 "c1" | 1
        do = "missing_row"; row = 2; request = "2.."
          4 3 "c1" | 2 "c2" | 1
        do = "missing_row"; row = 3
          4 3 "c1" | 2 1 "c2" | 0
        do = "duplicate_row"; row = 1
          4 4 3 "c1" | 2 1 "c2" | 1
        do = "lying_next"; times = 2
           "c1" |  "c2" | 2
        do = "shuffle"; times = "always"
          3 4 "c1" | 1 2 "c2" | 2
        do = "shuffle"; path = "/twitter/user/"
          4 3 "c1" | 2 1 "c2" | 0
        do = "shuffle"; provider = "x_live"
          4 3 "c1" | 2 1 "c2" | 0
        do = "shuffle"; after = "6s"
          4 3 "c1" | 2 1 "c2" | 0
    "#]]
    .assert_eq(&said);
}

#[test]
fn answers_nobody_touched_keep_their_bytes() {
    let plan = plan(&fault("do = \"missing_row\"; row = 9"));
    let odd = "{ \"tweets\" : [ {\"b\":1,  \"a\":1.0} ] }";
    let (_, reply) = plan.around(Provider::TwitterapiIo, "/twitter/x", "", at(0), || Response::json(200, odd));
    let Reply::Http(response) = reply else { panic!("{reply:?}") };
    assert_eq!(&response.body[..], odd.as_bytes());
    let (_, reply) = plan.around(Provider::TwitterapiIo, "/twitter/x", "", at(0), || Response::json(404, "{}"));
    assert!(matches!(reply, Reply::Http(response) if response.status == 404));
}

#[test]
fn flaky_history_fires_what_it_promises() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/faults/flaky_history.toml");
    let plan = Plan::new(Script::load(&path).unwrap(), UnixMicros(0));
    let mut slowest = Duration::ZERO;
    for number in 1..=60_u32 {
        let query = format!("query=a&cursor=c{number}");
        let answer = || page(&[number * 3, number * 3 + 1, number * 3 + 2], &format!("c{}", number + 1));
        let (wait, _) = plan.around(Provider::TwitterapiIo, "/twitter/tweet/advanced_search", &query, at(0), answer);
        slowest = slowest.max(wait);
    }
    assert_eq!(slowest, Duration::from_millis(200));
    for row in plan.report() {
        assert!(row.fired > 0, "{}", row.words());
    }
}
