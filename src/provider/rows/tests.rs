//! What must hold for every provider: the events are the decoder's, no value is lost, no text makes it panic.

mod pages;

use std::collections::HashSet;
use std::path::Path;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use serde_json::{Map, Value, json};

use super::*;
use crate::model::{Decoded, EventId, EventKind, Said};
use crate::provider::decode_record;
use crate::provider::synthetic::{Dialect, Options, World};

/// What was handed out.
#[derive(Default)]
struct Heard {
    unexpected_only: bool,
    events: Vec<crate::model::Event>,
    /// Each row in Rust's words, without its extra.
    shown: Vec<String>,
    extras: Vec<String>,
    /// The same, without known fields.
    lean_extras: Vec<String>,
    surprises: Vec<(String, Option<&'static str>, &'static str, String)>,
}

impl RowSink for Heard {
    fn keeps_known(&self) -> bool {
        !self.unexpected_only
    }

    fn row(&mut self, mut row: Row<'_>) {
        let extra = match &mut row.said {
            Said::Post(said) => std::mem::take(&mut said.extra),
            Said::Profile(said) => std::mem::take(&mut said.extra),
            Said::Follow(said) => std::mem::take(&mut said.extra),
            Said::Engagement(said) => std::mem::take(&mut said.extra),
            Said::Dm(said) => std::mem::take(&mut said.extra),
            Said::Other(extra) => std::mem::take(extra),
        };
        self.extras.push(extra.0);
        self.shown.push(format!("{row:?}"));
        self.events.push(row.event);
    }

    fn surprise(&mut self, surprise: Surprise<'_>) {
        let Surprise { path, expected, found, example } = surprise;
        self.surprises.push((path.to_owned(), expected, found, example.to_owned()));
    }
}

/// Reads, and compares with what the recorder's reader says.
fn read(provider: Provider, via: Via, bytes: &[u8]) -> Heard {
    let mut heard = Heard::default();
    let told = read_rows(provider, via, bytes, &mut heard);
    let Decoded { json, message, provider_at, events } = decode_record(provider, via, bytes);
    let text = String::from_utf8_lossy(bytes);
    assert_eq!(heard.events, events, "{text}");
    assert_eq!(told, Told { json, message, provider_at }, "{text}");
    for extra in heard.extras.iter().filter(|extra| !extra.is_empty()) {
        let value: Value = serde_json::from_str(extra).unwrap_or_else(|error| panic!("{error}: {extra}\n{text}"));
        assert!(value.as_object().is_some_and(|all| !all.is_empty()), "{extra}\n{text}");
        says_something(&value, extra);
    }
    let mut lean = Heard { unexpected_only: true, ..Heard::default() };
    assert_eq!(read_rows(provider, via, bytes, &mut lean), told, "{text}");
    assert_eq!(
        (lean.events, lean.shown, lean.surprises),
        (heard.events.clone(), heard.shown.clone(), heard.surprises.clone()),
        "{text}"
    );
    heard.lean_extras = lean.extras;
    heard
}

/// Whether all that the one says is said by the other.
fn is_part(lean: &Value, full: &Value) -> bool {
    match (lean, full) {
        (Value::Object(lean), Value::Object(full)) => {
            lean.iter().all(|(key, lean)| full.get(key).is_some_and(|full| is_part(lean, full)))
        }
        (Value::Array(lean), Value::Array(full)) => {
            lean.len() <= full.len() && lean.iter().zip(full).all(|(lean, full)| is_part(lean, full))
        }
        _ => lean == full,
    }
}

/// For fakes that want to know how fast they are asked.
fn instant() -> std::time::Instant {
    std::time::Instant::now()
}

/// So many cases, the same ones each time; `PROPTEST_RNG_SEED=N` makes others.
fn cases(n: u32) -> ProptestConfig {
    let usual = ProptestConfig::default();
    let rng_seed = if usual.rng_seed == RngSeed::Random { RngSeed::Fixed(1) } else { usual.rng_seed };
    ProptestConfig { cases: n, rng_seed, failure_persistence: None, ..usual }
}

/// Members that say nothing are left out, however deep.
fn says_something(value: &Value, all: &str) {
    match value {
        Value::Object(members) => members.iter().for_each(|(key, value)| {
            let is_empty = match value {
                Value::Null => true,
                Value::String(text) => text.is_empty(),
                Value::Array(items) => items.is_empty(),
                Value::Object(members) => members.is_empty(),
                _ => false,
            };
            assert!(!is_empty, "{key} of {all}");
            says_something(value, all);
        }),
        Value::Array(items) => items.iter().for_each(|value| says_something(value, all)),
        _ => {}
    }
}

/// Words of the envelope that a column says in our own words, or that say only what sort of object it is.
const SAID_OTHERWISE: [&str; 26] = [
    "tweet",
    "TWEET",
    "Tweet",
    "user",
    "animated_gif",
    "image",
    "fast_tweet",
    "content",
    "update",
    "meta",
    "delete",
    "pin",
    "unpin",
    "profile_update",
    "follow",
    "unfollow",
    "callout",
    "account",
    "PROFILE",
    "FOLLOW",
    "UNFOLLOW",
    "twitter",
    "truth_social",
    "new_tweet",
    "tweet.detected",
    "original",
];
const KINDS: [&str; 5] = ["post", "reply", "quote", "retweet", "repost"];

/// Checks that every value of the envelope is in a column or in an extra.
fn nothing_is_lost(provider: Provider, via: Via, bytes: &[u8]) {
    let heard = read(provider, via, bytes);
    for (lean, full) in heard.lean_extras.iter().zip(&heard.extras) {
        let [lean, full] = [lean, full].map(|extra| serde_json::from_str(extra).unwrap_or_else(|_| json!({})));
        assert!(is_part(&lean, &full), "{lean} is no part of {full}");
    }
    let value: Value = serde_json::from_slice(bytes).unwrap();
    let mut texts = HashSet::new();
    let mut numbers = HashSet::new();
    for extra in heard.extras.iter().filter(|extra| !extra.is_empty()) {
        leaves(&serde_json::from_str(extra).unwrap(), &mut |leaf| match leaf {
            Value::String(text) => {
                texts.insert(text.clone());
            }
            other => {
                numbers.insert(other.to_string());
            }
        });
    }
    let shown = heard.shown.join("\n");
    let in_columns: HashSet<&str> = shown.split(|c: char| !(c.is_ascii_alphanumeric() || "._-".contains(c))).collect();
    let in_micros = |at: UnixMicros| in_columns.contains(at.0.to_string().as_str());
    let has_second = |at: UnixMicros| {
        heard.events.iter().filter_map(|e| e.published_at).any(|p| p.0.div_euclid(1_000_000) == at.0.div_euclid(1_000_000))
    };
    for part in spoken(provider, via, value) {
        leaves(&part, &mut |leaf| {
            let is_there = match leaf {
                Value::String(text) => {
                    let quoted = format!("{text:?}");
                    let bare = format!("{:?}", text.trim_start_matches(['@', '#']));
                    let date = UnixMicros::parse_rfc3339(text).or_else(|| crate::model::parse_legacy_date(text));
                    text.is_empty()
                        || texts.contains(text)
                        || texts.contains(text.trim_start_matches('@'))
                        || shown.contains(&quoted)
                        || shown.contains(&bare)
                        || text.strip_prefix(['@', '#']).is_some_and(|bare| texts.contains(bare) || shown.contains(&format!("{bare:?}")))
                        // ScrapeBadger writes handles in lower case beside the account's own spelling.
                        || (provider == Provider::Scrapebadger && shown.to_ascii_lowercase().contains(&quoted))
                        || SAID_OTHERWISE.contains(&text.as_str())
                        || (KINDS.contains(&text.as_str()) && shown.contains("kind: Some("))
                        || text.parse::<i128>().is_ok_and(|n| {
                            let n = n.to_string();
                            in_columns.contains(n.as_str()) || numbers.contains(&n) || texts.contains(&n)
                        })
                        || text.parse().is_ok_and(|ms| in_micros(UnixMicros::from_millis(ms)))
                        || text.parse::<f64>().is_ok_and(|n| in_columns.contains(format!("{n:?}").as_str()))
                        || date.is_some_and(|at| in_micros(at) || has_second(at))
                        // Truth Social's ids, and those of actions.
                        || heard.events.iter().any(|e| matches!(&e.id, EventId::Text(id) if id.contains(text.as_str())))
                }
                Value::Number(number) => {
                    let n = number.to_string();
                    in_columns.contains(n.as_str())
                        || numbers.contains(&n)
                        || texts.contains(&n)
                        || number.as_i64().is_some_and(|ms| in_micros(UnixMicros::from_millis(ms)))
                        || number.as_f64().is_some_and(|n| in_columns.contains(format!("{n:?}").as_str()))
                }
                // Too many things are true to tell one from another.
                _ => true,
            };
            assert!(
                is_there,
                "{leaf} is lost\n{}\n{}\n{}",
                String::from_utf8_lossy(bytes),
                heard.shown.join("\n"),
                heard.extras.join("\n")
            );
        });
    }
}

fn leaves(value: &Value, each: &mut impl FnMut(&Value)) {
    match value {
        Value::Object(members) => members.values().for_each(|value| leaves(value, each)),
        Value::Array(items) => items.iter().for_each(|value| leaves(value, each)),
        leaf => each(leaf),
    }
}

/// The parts of an envelope that its rows must tell: without stamps and versions of the envelope itself, which are told
/// beside the rows, and without what is no event.
fn spoken(provider: Provider, via: Via, mut value: Value) -> Vec<Value> {
    if decode_record(provider, via, value.to_string().as_bytes()).events.is_empty() {
        return Vec::new();
    }
    let Some(members) = value.as_object_mut() else { return Vec::new() };
    match provider {
        Provider::TwitterapiIo => {
            members.retain(|key, _| !["timestamp", "event_type"].contains(&key.as_str()));
            let has_id = |post: &Value| {
                let digits = post.get("id").map(Value::to_string).unwrap_or_default();
                !post.is_object() || TweetId::parse(digits.trim_matches('"')).is_some()
            };
            if let Some(Value::Array(posts)) = members.get_mut("tweets") {
                posts.retain(has_id);
            }
            members.retain(|key, value| key != "tweet" || has_id(value));
        }
        Provider::Tweetstream => members.retain(|key, _| !["ts", "v", "op"].contains(&key.as_str())),
        Provider::Scrapebadger if !members.contains_key("detected_at") => {
            members.retain(|key, _| key != "timestamp");
        }
        Provider::XLive => {
            if let Some(payload) = members.get_mut("payload").and_then(Value::as_object_mut) {
                payload.retain(|kind, _| {
                    let one: Map<String, Value> = [(kind.clone(), json!({}))].into_iter().collect();
                    !["config", "subscriptions"].contains(&kind.as_str()) && !one.is_empty()
                });
            }
        }
        Provider::Scrapebadger => {}
    }
    vec![value]
}

fn worlds() -> impl Iterator<Item = Options> {
    let all = [Dialect::A, Dialect::B, Dialect::C, Dialect::Merged].into_iter().enumerate();
    all.map(|(at, dialect)| Options {
        seed: 40 + at as u64,
        dialect,
        edits: 0.1,
        deletes: Some(0.1),
        dms: 0.3,
        truth_social: 0.2,
        languages: if at % 2 == 0 { Vec::new() } else { crate::provider::synthetic::Language::all().map(|l| (l, 1.0)).collect() },
        ..Options::default()
    })
}

#[test]
fn worlds_are_read_whole() {
    let mut n_rows = 0;
    for options in worlds() {
        for envelope in World::new(options).take(2_000) {
            nothing_is_lost(envelope.provider, Via::Ws, &envelope.bytes);
            let heard = read(envelope.provider, Via::Ws, &envelope.bytes);
            assert_eq!(heard.surprises, [], "{}", String::from_utf8_lossy(&envelope.bytes));
            n_rows += heard.events.len();
        }
    }
    assert!(n_rows > 8_000, "{n_rows}");
}

fn fixtures(provider: Provider) -> Vec<(String, String)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(provider.name());
    let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut all: Vec<_> = files
        .filter(|path| path.extension().is_some_and(|e| e == "json"))
        .map(|path| {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            (name, std::fs::read_to_string(&path).unwrap().trim_end().to_owned())
        })
        .collect();
    all.sort();
    all
}

#[test]
fn fixtures_are_read_whole() {
    for provider in Provider::ALL {
        for (_, text) in fixtures(provider) {
            nothing_is_lost(provider, Via::Ws, text.as_bytes());
            for via in [Via::History, Via::Snapshot] {
                read(provider, via, text.as_bytes());
            }
            for at in (0..text.len()).filter(|&at| text.is_char_boundary(at)).step_by(7) {
                read(provider, Via::Ws, &text.as_bytes()[..at]);
            }
            read(provider, Via::Ws, format!(" {text}\n").as_bytes());
        }
    }
}

#[test]
fn what_is_no_json_has_no_rows() {
    for provider in Provider::ALL {
        for bytes in [&b""[..], b" ", b"\xff{}", b"null", b"[]", b"{}", b"{", b"5", b"{\"tweets\":[{\"id\":1}]", b"[[[[", b"{}{}"]
        {
            for via in [Via::Ws, Via::History] {
                assert!(read(provider, via, bytes).events.is_empty());
            }
        }
    }
}

/// A value of any type, to stand where another is expected.
fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        Just(json!(1.5)),
        Just(json!(1e300)),
        (0u64..10_000_000_000).prop_map(|n| n.to_string().into()),
        "[a-zé\"\\\\@#\u{1}]{0,8}".prop_map(Value::from),
        Just(json!("truth_social")),
        Just(json!([])),
        Just(json!({})),
        Just(json!([null, 7001, "x7002", {"seven": 7003, "none": null}])),
        Just(json!({"a7004": 7005, "b": [7006], "id": "7007", "text": "7008", "c": {"d": {}}})),
    ]
}

/// Puts a value somewhere into another.
fn put_somewhere(value: &mut Value, path: &mut impl Iterator<Item = usize>, new: Value) {
    let n = match value {
        Value::Object(members) => members.len(),
        Value::Array(items) => items.len(),
        _ => 0,
    };
    // Now and then it stops on the way.
    let at = path.next().unwrap_or(0);
    if n == 0 || at % 11 == 10 {
        *value = new;
        return;
    }
    match value {
        Value::Object(members) => {
            if at % 11 == 9 {
                members.insert(format!("new{at}"), new);
            } else if let Some(member) = members.values_mut().nth(at % n) {
                put_somewhere(member, path, new);
            }
        }
        Value::Array(items) => put_somewhere(&mut items[at % n], path, new),
        _ => {}
    }
}

/// Envelopes and fixtures to change.
fn material() -> Vec<(Provider, Via, Value)> {
    let mut all = Vec::new();
    for options in worlds() {
        for envelope in World::new(options).take(300) {
            all.push((envelope.provider, Via::Ws, serde_json::from_slice(&envelope.bytes).unwrap()));
        }
    }
    for provider in Provider::ALL {
        for (_, text) in fixtures(provider) {
            all.push((provider, Via::Ws, serde_json::from_str(&text).unwrap()));
        }
    }
    all
}

#[test]
fn types_swapped_at_random_lose_nothing() {
    let material = material();
    let changes = prop::collection::vec((prop::collection::vec(0usize..1_000, 8), any_value()), 1..4);
    let strategy = (any::<prop::sample::Index>(), changes);
    proptest!(cases(4_000), |((at, changes) in strategy)| {
        let (provider, via, mut value) = material[at.index(material.len())].clone();
        for (path, new) in changes {
            put_somewhere(&mut value, &mut path.into_iter(), new);
        }
        nothing_is_lost(provider, via, value.to_string().as_bytes());
    });
}

#[test]
fn doubled_keys_and_broken_bytes_are_read_as_the_decoder_does() {
    let material = material();
    let strategy = (any::<prop::sample::Index>(), any::<prop::sample::Index>(), any_value(), any::<u8>(), any::<bool>());
    proptest!(cases(4_000), |((which, place, new, byte, history) in strategy)| {
        let (provider, _, value) = &material[which.index(material.len())];
        let via = if history { Via::History } else { Via::Ws };
        double_and_break(*provider, via, &value.to_string(), place, &new, byte);
    });
}

/// Reads a text with a key doubled, with another byte in it, and cut off there.
fn double_and_break(provider: Provider, via: Via, text: &str, place: prop::sample::Index, new: &Value, byte: u8) {
    let places: Vec<usize> = text.match_indices(",\"").map(|(at, _)| at).collect();
    if !places.is_empty() {
        let at = places[place.index(places.len())];
        let key = text[at + 1..].split(':').next().unwrap();
        read(provider, via, format!("{},{key}:{new}{}", &text[..at], &text[at..]).as_bytes());
        read(provider, via, format!("{{{key}:{new},{}", &text[1..]).as_bytes());
    }
    let mut bytes = text.as_bytes().to_vec();
    let at = place.index(bytes.len());
    bytes[at] = byte;
    read(provider, via, &bytes);
    bytes.truncate(at);
    read(provider, via, &bytes);
}

#[test]
fn known_fields_may_be_left_out_of_extra_and_surprises_never() {
    let text = r#"{"event_type":"tweet","rule_value":"birds","tweets":[{"id":"2117164813577617415","twitterUrl":"https://twitter.com/a/status/1","likeCount":"many","newField":1,"author":{"id":"5","canDm":true,"mood":"ok"},"entities":{"hashtags":[{"text":"a","indices":[0,1]},{"text":"b","indices":[2,3],"weight":2}]}}]}"#;
    let mut lean = Heard { unexpected_only: true, ..Heard::default() };
    read_rows(Provider::TwitterapiIo, Via::Ws, text.as_bytes(), &mut lean);
    let kept = r#"{"likeCount":"many","newField":1,"author":{"mood":"ok"},"entities":{"hashtags":[{},{"weight":2}]}}"#;
    assert_eq!(lean.extras, [kept]);
    assert_eq!(lean.surprises.len(), 4, "{:?}", lean.surprises);
}

#[test]
fn a_surprise_is_told_where_it_is_and_kept() {
    let heard = read(
        Provider::TwitterapiIo,
        Via::Ws,
        r#"{"event_type":"tweet","shard":3,"rule_id":"r","rule_tag":"t","tweets":[7,{"type":"tweet","id":"2117164813577617415","text":"é","likeCount":"many","newField":{"a":[],"b":1},"author":{"id":"5","canDm":"yes","mood":"ok","name":null},"entities":{"hashtags":[{"text":"a"},{"text":"b","weight":2}]}}]}"#.as_bytes(),
    );
    let found: Vec<_> = heard
        .surprises
        .iter()
        .map(|(path, expected, found, example)| (path.as_str(), *expected, *found, example.as_str()))
        .collect();
    assert_eq!(
        found,
        [
            ("shard", None, "number", "3"),
            ("tweets[]", Some("object"), "number", "7"),
            ("tweets[].likeCount", Some("number"), "string", "\"many\""),
            ("tweets[].newField", None, "object", r#"{"a":[],"b":1}"#),
            ("tweets[].author.canDm", Some("boolean"), "string", "\"yes\""),
            ("tweets[].author.mood", None, "string", "\"ok\""),
            ("tweets[].entities.hashtags[].weight", None, "number", "2"),
        ]
    );
    assert_eq!(
        heard.extras,
        [
            r#"{"likeCount":"many","newField":{"b":1},"author":{"canDm":"yes","mood":"ok"},"entities":{"hashtags":[{},{"weight":2}]},"envelope":{"shard":3,"tweets":[7]}}"#
        ]
    );
    assert!(heard.shown[0].contains(r#"selector_name: Some("t")"#), "{}", heard.shown[0]);
    assert!(heard.events[0].kind == EventKind::Tweet);
}

#[test]
fn an_example_is_cut_between_characters() {
    let text = format!(r#"{{"event_type":"tweet","odd":"x{}"}}"#, "é".repeat(500));
    let heard = read(Provider::TwitterapiIo, Via::Ws, text.as_bytes());
    let (path, _, found, example) = &heard.surprises[0];
    assert_eq!((path.as_str(), *found), ("odd", "string"));
    assert!(example.len() <= EXAMPLE_MAX && example.len() > EXAMPLE_MAX - 4, "{}", example.len());
}

/// Not a test: how fast it is, beside a reader that only passes over the same bytes.
#[test]
#[ignore = "a measurement: run it alone, with --release and --nocapture"]
#[allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a measurement")]
fn speed() {
    struct Nobody(usize);
    impl RowSink for Nobody {
        fn row(&mut self, row: Row<'_>) {
            self.0 += 1;
            std::hint::black_box(&row);
        }
        fn surprise(&mut self, _: Surprise<'_>) {}
    }
    for (at, provider) in Provider::ALL.into_iter().enumerate() {
        let mut mix = [0.0; 4];
        mix[at] = 1.0;
        let envelopes: Vec<_> = World::new(Options { mix, ..Options::default() }).take(10_000).map(|e| e.bytes).collect();
        let n_bytes: usize = envelopes.iter().map(|bytes| bytes.len()).sum();
        let timed = |what: &str, each: &mut dyn FnMut(&[u8])| {
            let best = (0..7)
                .map(|_| {
                    let start = std::time::Instant::now();
                    envelopes.iter().for_each(|bytes| each(bytes));
                    start.elapsed()
                })
                .min();
            println!("{} {what}: {:.0} MB/s", provider.name(), n_bytes as f64 / best.unwrap().as_secs_f64() / 1e6);
        };
        let mut nobody = Nobody(0);
        timed("rows", &mut |bytes| {
            read_rows(provider, Via::Ws, bytes, &mut nobody);
        });
        timed("decode", &mut |bytes| {
            std::hint::black_box(decode_record(provider, Via::Ws, bytes));
        });
        timed("serde_json::IgnoredAny", &mut |bytes| {
            serde_json::from_slice::<serde::de::IgnoredAny>(bytes).unwrap();
        });
    }
}
