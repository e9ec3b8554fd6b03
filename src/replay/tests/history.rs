//! Live connections and requests side by side: history goes by the clock, and both tell of one world.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::*;
use crate::model::TweetId;
use crate::provider::{percent_encode, recognise};
use crate::replay::faults::Script;

const TIO: Provider = Provider::TwitterapiIo;
const SB: Provider = Provider::Scrapebadger;
const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/synthetic/mixed-400.jsonl");

/// What the fixture holds, at the providers' own stamps; a line without one comes with the line before.
fn fixture() -> Vec<Envelope> {
    let text = std::fs::read(FIXTURE).unwrap();
    let mut at = UnixMicros(0);
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let read = lines.map(|line| {
        let provider = recognise(line).unwrap();
        at = decode(provider, line).provider_at.unwrap_or(at);
        Envelope { provider, at, bytes: Bytes::copy_from_slice(line) }
    });
    read.collect()
}

fn value(envelope: &Envelope) -> Value {
    serde_json::from_slice(&envelope.bytes).unwrap()
}

fn only(envelopes: &[Envelope], provider: Provider) -> Vec<Envelope> {
    envelopes.iter().filter(|envelope| envelope.provider == provider).cloned().collect()
}

/// The answer to a request with every provider's credentials; a body that breaks off is `null`.
struct Answer {
    status: u16,
    now: Option<String>,
    body: Value,
}

async fn ask(replay: &Replay, method: &str, target: &str, body: &str) -> Answer {
    let asked = format!(
        "{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nx-api-key: {KEY}\r\nCookie: auth_token={KEY}; ct0=c\r\nx-csrf-token: c\r\nAuthorization: Bearer {KEY}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = raw(replay, asked.as_bytes()).await;
    let end = answer.windows(4).position(|part| part == b"\r\n\r\n").expect("headers");
    let head = std::str::from_utf8(&answer[..end]).unwrap();
    let now = head.lines().find_map(|line| line.strip_prefix("x-birdtape-now: ")).map(str::to_owned);
    let body = serde_json::from_slice(&answer[end + 4..]).unwrap_or_default();
    Answer { status: head[9..12].parse().unwrap(), now, body }
}

async fn get(replay: &Replay, target: &str) -> Value {
    let answer = ask(replay, "GET", target, "").await;
    assert_eq!(answer.status, 200, "{target}: {}", answer.body);
    answer.body
}

/// A page of a search: ids, and the cursor of the next.
async fn page(replay: &Replay, provider: Provider, query: &str, cursor: Option<&str>) -> (Vec<u64>, Option<String>) {
    let (path, rows) = match provider {
        Provider::TwitterapiIo => ("/twitter/tweet/advanced_search?queryType=Latest", "tweets"),
        _ => ("/v1/twitter/tweets/advanced_search?query_type=Latest", "data"),
    };
    let cursor = cursor.map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
    let page = get(replay, &format!("{path}&query={}{cursor}", percent_encode(query))).await;
    let ids = page[rows].as_array().unwrap_or(&Vec::new()).iter().map(|post| number(&post["id"])).collect();
    let has_next = page.get("has_next_page") != Some(&Value::Bool(false));
    (ids, page["next_cursor"].as_str().filter(|cursor| has_next && !cursor.is_empty()).map(str::to_owned))
}

/// A search to its end, newest first.
async fn search(replay: &Replay, provider: Provider, query: &str) -> Vec<u64> {
    let (mut all, mut cursor) = (Vec::new(), None::<String>);
    loop {
        let (ids, next) = page(replay, provider, query, cursor.as_deref()).await;
        all.extend(ids);
        cursor = match next {
            None => return all,
            next => next,
        };
    }
}

fn number(id: &Value) -> u64 {
    id.as_str().unwrap().parse().unwrap()
}

const ALL: &str = "-from:nobody include:nativeretweets";

/// Until the clock stands behind all that this provider has.
async fn finished(replay: &Replay, provider: Provider) {
    while !replay.stats().of(provider).done {
        tokio::task::yield_now().await;
    }
}

/// Ids of posts that a provider's history gives.
async fn told(replay: &Replay, provider: Provider) -> BTreeSet<u64> {
    match provider {
        Provider::TwitterapiIo | Provider::Scrapebadger => {
            let ids = search(replay, provider, ALL).await;
            assert!(ids.is_sorted_by(|one, other| one > other), "each once, newest first");
            ids.into_iter().collect()
        }
        _ => {
            let page = get(replay, &format!("/api/history?apiKey={KEY}&type=TWEET&limit=1000")).await;
            page["data"].as_array().unwrap().iter().map(|row| number(&row["content"]["tweetId"])).collect()
        }
    }
}

/// Ids of posts in an envelope, read without the code under test.
fn posts_in(envelope: &Envelope) -> Vec<u64> {
    let value = value(envelope);
    match envelope.provider {
        Provider::TwitterapiIo => {
            let many = value["tweets"].as_array().cloned().unwrap_or_default();
            many.iter().chain(value.get("tweet")).map(|post| number(&post["id"])).collect()
        }
        Provider::Scrapebadger => value.get("tweet_id").map(number).into_iter().collect(),
        Provider::Tweetstream if value["op"] == "content" => vec![number(&value["d"]["tweetId"])],
        _ => Vec::new(),
    }
}

/// When a post with that id was published, in milliseconds: Twitter's ids say so.
fn published_ms(id: u64) -> i64 {
    (id >> 22) as i64 + 1_288_834_974_657
}

/// Posts that exist at an instant: published, or received if that was earlier.
fn existing(envelopes: &[Envelope], provider: Provider, at: UnixMicros) -> BTreeSet<u64> {
    let of_it = envelopes.iter().filter(|envelope| envelope.provider == provider);
    let all = of_it.flat_map(|envelope| posts_in(envelope).into_iter().map(|id| (id, envelope.at)));
    all.filter(|(id, received_at)| published_ms(*id) * 1_000 <= at.0 || *received_at <= at).map(|(id, _)| id).collect()
}

/// The last `like_count` of each post on X that was received by then.
fn likes(envelopes: &[Envelope], at: UnixMicros) -> BTreeMap<String, u64> {
    let mut likes = BTreeMap::new();
    for envelope in envelopes.iter().filter(|e| e.provider == Provider::XLive && e.at <= at) {
        let value = value(envelope);
        let count = &value["payload"]["tweet_engagement"]["like_count"];
        let Some(count) = count.as_u64().or_else(|| count.as_str()?.parse().ok()) else { continue };
        likes.insert(value["topic"].as_str().unwrap().rsplit_once('/').unwrap().1.to_owned(), count);
    }
    likes
}

async fn told_likes(replay: &Replay, ids: &[&String]) -> BTreeMap<String, u64> {
    let variables = percent_encode(&json!({ "tweetIds": ids }).to_string());
    let body = get(replay, &format!("/graphql/q/TweetResultsByRestIds?variables={variables}")).await;
    let results = body["data"]["tweetResult"].as_array().unwrap();
    let like = |result: &Value| {
        let post = result.get("result")?;
        Some((post["rest_id"].as_str()?.to_owned(), post["legacy"]["favorite_count"].as_u64()?))
    };
    results.iter().filter_map(like).collect()
}

#[tokio::test]
async fn history_follows_the_clock() {
    let envelopes = fixture();
    let (first, last) = (envelopes[0].at, envelopes.iter().map(|envelope| envelope.at).max().unwrap());
    let delay = Duration::from_millis(1_500);
    let all_likes = likes(&envelopes, last);
    let rated: Vec<_> = all_likes.keys().collect();
    assert!(rated.len() > 5);
    for index_delay in [Duration::ZERO, delay] {
        let options = Options { start: Start::Paused, rate_limits: false, index_delay, ..Options::new(lines(&envelopes)) };
        let replay = play(options).await;
        // Forward and back.
        for share in [30, 80, 55, 0, 100] {
            let at = UnixMicros(first.0 + last.since(first) * share / 100);
            replay.control().seek(Place::At(at)).await.unwrap();
            let known = at.minus(index_delay);
            for provider in [TIO, SB, Provider::Tweetstream] {
                let want = existing(&envelopes, provider, known);
                assert_eq!(told(&replay, provider).await, want, "{provider} at {share} % and {index_delay:?}");
            }
            assert_eq!(told_likes(&replay, &rated).await, likes(&envelopes, known), "X at {share} % and {index_delay:?}");
            for path in ["/oapi/my/info", "/v1/account/me", "/api/me?apiKey=k", "/1.1/dm/inbox_initial_state.json"] {
                let answer = ask(&replay, "GET", path, "").await;
                assert_eq!((answer.status, answer.now), (200, Some(at.to_string())), "{path}");
            }
        }
        drop(replay);
        let options = Options { from: Some(Place::End), rate_limits: false, index_delay, ..Options::new(lines(&envelopes)) };
        let replay = play(options).await;
        for provider in [TIO, SB, Provider::Tweetstream] {
            let want: BTreeSet<_> = only(&envelopes, provider).iter().flat_map(posts_in).collect();
            assert!(want.len() > 40 && told(&replay, provider).await == want, "{provider} at the end");
        }
        assert_eq!(told_likes(&replay, &rated).await, all_likes);
    }
}

#[tokio::test]
async fn history_has_what_the_live_connection_lost() {
    let envelopes = only(&fixture(), SB);
    let script = "[[fault]]\ndo = \"swallow\"\nmessages = 5\ncount = 2";
    let faults = Some(Script::parse("test.toml", script).unwrap());
    let replay = play(Options { faults, rate_limits: false, ..at_max(lines(&envelopes)) }).await;
    let mut client = connect(&replay, SB).await;
    let got = take(&mut client, envelopes.len() - 2).await;
    let want = [&envelopes[..4], &envelopes[6..]].concat();
    assert!(got == of(&want, SB));
    let lost: BTreeSet<_> = envelopes[4..6].iter().flat_map(posts_in).collect();
    let live: BTreeSet<_> = want.iter().flat_map(posts_in).collect();
    assert_eq!(lost.len(), 2);
    finished(&replay, SB).await;
    assert_eq!(&told(&replay, SB).await - &live, lost);
}

#[tokio::test]
async fn pages_that_do_not_add_up() {
    let envelopes = fixture();
    for (provider, path) in [(TIO, "/twitter/tweet/advanced_search"), (SB, "/v1/twitter/tweets/advanced_search")] {
        let script = [
            ("missing_row", "request = 1\nrow = 2"),
            ("repeat_page", "request = 3"),
            ("cursor_loop", "request = 4"),
            ("lying_next", "request = 5"),
            ("truncate", "request = 6"),
        ];
        let script: String = script
            .map(|(fault, more)| format!("[[fault]]\ndo = \"{fault}\"\nprovider = \"{provider}\"\npath = \"{path}\"\n{more}\n"))
            .concat();
        let faults = Some(Script::parse("test.toml", &script).unwrap());
        let options = |faults| Options { from: Some(Place::End), rate_limits: false, faults, ..Options::new(lines(&envelopes)) };
        let (right, wrong) = (play(options(None)).await, play(options(faults)).await);
        let (first, next) = page(&right, provider, ALL, None).await;
        let cursor = next.expect("two pages");
        let (second, third) = page(&right, provider, ALL, Some(&cursor)).await;

        let (got, next) = page(&wrong, provider, ALL, None).await;
        assert_eq!(got, [&first[..1], &first[2..]].concat(), "the second row is missing");
        assert_eq!(next.as_deref(), Some(&*cursor));
        assert_eq!(page(&wrong, provider, ALL, None).await, (first, Some(cursor.clone())), "right");
        let (got, _) = page(&wrong, provider, ALL, Some(&cursor)).await;
        assert!(got != second && got.len() == 20, "the page before");
        let (got, next) = page(&wrong, provider, ALL, Some(&cursor)).await;
        assert_eq!((got, next.as_deref()), (second.clone(), Some(&*cursor)), "in circles");
        let (got, next) = page(&wrong, provider, ALL, Some(&cursor)).await;
        assert!(got.is_empty() && next.is_some(), "nothing, and more of it");
        let target = format!("{path}?query={}&cursor={cursor}", percent_encode(ALL));
        assert_eq!(ask(&wrong, "GET", &target, "").await.body, Value::Null, "half of it");
        assert_eq!(page(&wrong, provider, ALL, Some(&cursor)).await, (second, third), "right again");
        assert!(wrong.stats().faults.iter().all(|row| !row.is_missed()), "{:?}", wrong.stats().faults);
    }
}

/// Everything that is played in steps before and after a rule is switched off, and on again.
#[tokio::test]
async fn what_a_request_switches_off_is_not_delivered() {
    for provider in [TIO, SB] {
        let envelopes = only(&fixture(), provider);
        let key = if provider == TIO { "rule_id" } else { "monitor_id" };
        let rule = |envelope: &Envelope| value(envelope)[key].as_str().unwrap_or_default().to_owned();
        let mut counts = BTreeMap::<String, usize>::new();
        envelopes.iter().map(rule).filter(|rule| !rule.is_empty()).for_each(|rule| *counts.entry(rule).or_default() += 1);
        let (muted, _) = counts.into_iter().max_by_key(|(_, n)| *n).unwrap();
        // A step ends with something that arrives, so that nothing of it is still on its way.
        let third = envelopes.len() / 3;
        let ends = [third, 2 * third].map(|from| (from..).find(|at| rule(&envelopes[*at - 1]) != muted).unwrap());
        let steps = [&envelopes[..ends[0]], &envelopes[ends[0]..ends[1]], &envelopes[ends[1]..]];
        let kept: Vec<_> = steps[1].iter().filter(|envelope| rule(envelope) != muted).cloned().collect();
        assert!(kept.len() < steps[1].len() && steps[2].iter().any(|envelope| rule(envelope) == muted));

        let replay = play(Options { start: Start::Paused, ..at_max(lines(&envelopes)) }).await;
        let mut client = connect(&replay, provider).await;
        let switch = async |on: bool| {
            let (method, path, body) = match provider {
                Provider::TwitterapiIo => {
                    let rules = get(&replay, "/oapi/tweet_filter/get_rules").await;
                    let mine = rules["rules"].as_array().unwrap().iter().find(|of| of["rule_id"] == muted).unwrap().clone();
                    let mut body = json!({ "rule_id": muted, "interval_seconds": 100, "is_effect": u8::from(on) });
                    (body["tag"], body["value"]) = (mine["tag"].clone(), mine["value"].clone());
                    ("POST", "/oapi/tweet_filter/update_rule".to_owned(), body)
                }
                _ => {
                    let body = json!({ "status": if on { "active" } else { "paused" } });
                    ("PATCH", format!("/v1/twitter/stream/monitors/{muted}"), body)
                }
            };
            let answer = ask(&replay, method, &path, &body.to_string()).await;
            assert_eq!(answer.status, 200, "{}", answer.body);
        };
        let control = replay.control();
        control.step(steps[0].len() as u64).unwrap();
        assert!(take(&mut client, steps[0].len()).await == of(steps[0], provider), "{provider}");
        switch(false).await;
        control.step(steps[1].len() as u64).unwrap();
        assert!(take(&mut client, kept.len()).await == of(&kept, provider), "{provider}, switched off");
        switch(true).await;
        control.step(steps[2].len() as u64).unwrap();
        assert!(take(&mut client, steps[2].len()).await == of(steps[2], provider), "{provider}, on again");
    }
}

#[tokio::test]
async fn a_shifted_world_is_shifted_everywhere() {
    let envelopes = fixture();
    let first = envelopes.iter().map(|envelope| envelope.at).min().unwrap();
    let to = UnixMicros::parse_rfc3339("2027-01-01T00:00:00Z").unwrap();
    for shift_to in [Some(to), None] {
        let by_ms = shift_to.map_or(0, |to| to.since(first) / 1_000);
        let replay = play(Options { shift_to, rate_limits: false, ..at_max(lines(&envelopes)) }).await;
        let moved = |id: u64| published_ms(id) + by_ms;
        for provider in [TIO, SB, Provider::Tweetstream] {
            let own = only(&envelopes, provider);
            let mut client = connect(&replay, provider).await;
            let got = take(&mut client, own.len()).await;
            if shift_to.is_none() {
                assert!(got == of(&own, provider), "{provider}: not a byte is changed");
            }
            let mut live = BTreeSet::new();
            for (bytes, was) in got.iter().zip(&own) {
                let envelope = Envelope { provider, at: was.at, bytes: bytes.clone() };
                let (now, before) = (value(&envelope), value(was));
                let (ids, ids_before) = (posts_in(&envelope), posts_in(was));
                assert_eq!(ids.len(), ids_before.len());
                for (id, id_before) in ids.iter().zip(ids_before) {
                    assert_eq!(published_ms(*id), moved(id_before), "{provider}: an id tells the shifted time");
                    assert_eq!(TweetId(*id).0 & 0x3f_ffff, id_before & 0x3f_ffff, "and stays as different from others");
                }
                for stamp in ["timestamp", "ts"] {
                    let moved = before[stamp].as_i64().map(|stamp| stamp + by_ms);
                    assert_eq!(now[stamp].as_i64(), moved, "{provider}: {stamp}");
                }
                for date in ["detected_at", "tweet_published_at"] {
                    let ms = |value: &Value| value[date].as_str().map(|date| UnixMicros::parse_rfc3339(date).unwrap().millis());
                    assert_eq!(ms(&now), ms(&before).map(|ms| ms + by_ms), "{provider}: {date}");
                }
                live.extend(ids);
            }
            finished(&replay, provider).await;
            assert_eq!(told(&replay, provider).await, live, "{provider}: history has the ids of the live connection");
            if provider == Provider::Tweetstream {
                continue;
            }
            // Whole seconds: the first that begins in the middle of the recording.
            let since = (shift_to.unwrap_or(first).millis() + 4_000) / 1_000;
            let want: Vec<_> = live.iter().rev().copied().filter(|id| published_ms(*id) >= since * 1_000).collect();
            assert!(want.len() > 5 && want.len() < live.len());
            assert_eq!(search(&replay, provider, &format!("{ALL} since_time:{since}")).await, want, "{provider}");
            let until = search(&replay, provider, &format!("{ALL} until_time:{since}")).await;
            assert_eq!(until.len() + want.len(), live.len(), "{provider}");
        }
        let now = ask(&replay, "GET", "/oapi/my/info", "").await.now.unwrap();
        assert!(now.starts_with(if shift_to.is_some() { "2027-01-01T00:00:0" } else { "2026-01-05T12:00:0" }), "{now}");
    }
}

#[tokio::test]
async fn a_client_that_never_reads_is_dropped_or_waited_for() {
    // Together many times what buffers take.
    let large = |n: i64| {
        let bytes = Bytes::from(format!("{{\"n\":{n},\"x\":\"{}\"}}", "x".repeat(200_000)));
        Envelope { provider: Provider::Tweetstream, at: UnixMicros(n * 1_000), bytes }
    };
    let envelopes: Vec<_> = (0..400).map(large).collect();
    let want = of(&envelopes, Provider::Tweetstream);
    for speed in [Speed::Max, Speed::Times(1.0)] {
        for slow in [SlowClients::Drop, SlowClients::Wait] {
            let options = Options {
                speed,
                slow_clients: Some(slow),
                client_queue_bytes: 100_000,
                max_connections: Some(2),
                wait_for_clients: 2,
                ..Options::new(lines(&envelopes))
            };
            let replay = play(options).await;
            let stats = || replay.stats().of(Provider::Tweetstream).clone();
            let stuck = connect(&replay, Provider::Tweetstream).await;
            let mut reading = connect(&replay, Provider::Tweetstream).await;
            if slow == SlowClients::Drop {
                assert!(take(&mut reading, 400).await == want, "{speed:?}");
                assert_eq!(stats().too_slow, 1, "{speed:?}");
                // Its farewell is not taken either, and is given up.
                while stats().clients > 1 {
                    tokio::task::yield_now().await;
                }
                drop(stuck);
                continue;
            }
            // What the sockets hold is all that the one who reads is ahead.
            assert!(take(&mut reading, 2).await == want[..2], "{speed:?}");
            assert!(stats().played < 200, "{:?}", stats());
            drop(stuck);
            assert!(take(&mut reading, 398).await == want[2..], "{speed:?}");
            assert_eq!(stats().too_slow, 0, "{speed:?}");
        }
    }
}
