use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::provider::synthetic::{Dialect, Options, World};
use crate::provider::{decode, recognise};

fn redactor(classes: &str) -> Redactor {
    Redactor::new(classes.parse().unwrap(), Secret::new("a secret for tests").unwrap())
}

fn redacted(redactor: &Redactor, provider: Provider, text: &str) -> String {
    String::from_utf8(redactor.envelope(provider, &Bytes::copy_from_slice(text.as_bytes())).to_vec()).unwrap()
}

fn fixtures() -> Vec<(Provider, Bytes)> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let mut all = Vec::new();
    for provider in Provider::ALL {
        for entry in std::fs::read_dir(root.join(provider.name())).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|e| e == "json") {
                all.push((provider, std::fs::read_to_string(&path).unwrap().trim_end().to_owned().into()));
            }
        }
    }
    all
}

fn world(dialect: Dialect) -> Vec<(Provider, Bytes)> {
    let world = World::new(Options { seed: 21, dialect, authors: 80, ..Options::default() });
    world.take(400).map(|envelope| (envelope.provider, envelope.bytes)).collect()
}

/// All strings below a value with the key they stand under.
fn strings<'v>(key: &'v str, value: &'v Value, found: &mut Vec<(&'v str, &'v str)>) {
    match value {
        Value::String(text) => found.push((key, text)),
        Value::Array(items) => items.iter().for_each(|item| strings(key, item, found)),
        Value::Object(fields) => fields.iter().for_each(|(key, value)| strings(key, value, found)),
        _ => {}
    }
}

const HANDLES: [&str; 8] =
    ["userName", "screen_name", "handle", "username", "author_username", "inReplyToUsername", "mentions", "input"];
const WORDS: [&str; 5] = ["text", "tweet_text", "description", "bio", "display_name"];

fn long_words(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_alphanumeric()).map(str::to_lowercase);
    words.filter(|word| word.chars().count() >= 5).collect()
}

#[test]
fn nothing_of_anybody_survives() {
    let mut worlds = vec![fixtures()];
    worlds.extend([Dialect::A, Dialect::B, Dialect::C, Dialect::Merged].map(world));
    for envelopes in worlds {
        let mut redactor = redactor("all");
        envelopes.iter().for_each(|(provider, bytes)| redactor.learn(*provider, bytes));
        let done: Vec<_> = envelopes.iter().map(|(provider, bytes)| redactor.envelope(*provider, bytes)).collect();
        let everything = done.iter().map(|bytes| String::from_utf8_lossy(bytes).to_lowercase()).collect::<Vec<_>>().join("\n");
        for ((provider, before), after) in envelopes.iter().zip(&done) {
            let (old, new): (Value, Value) = (serde_json::from_slice(before).unwrap(), serde_json::from_slice(after).unwrap());
            let (mut olds, mut news) = (Vec::new(), Vec::new());
            strings("", &old, &mut olds);
            strings("", &new, &mut news);
            assert_eq!(olds.len(), news.len());
            for ((key, old), (_, new)) in olds.into_iter().zip(news) {
                if HANDLES.contains(&key) {
                    let handle = old.trim_start_matches('@').to_lowercase();
                    assert!(handle.len() < 4 || !everything.contains(&handle), "{handle} survives");
                }
                if WORDS.contains(&key) {
                    assert_eq!(old.chars().count(), new.chars().count(), "{old}\n{new}");
                    let kept: Vec<_> = long_words(old).intersection(&long_words(new)).cloned().collect();
                    assert!(kept.is_empty() || kept == ["https"], "{kept:?} of {old} in {new}");
                }
                if ["user_id", "twitterId", "api_key_id", "session_id", "rule_value", "monitor_name"].contains(&key) {
                    assert_ne!(old, new, "{key}");
                    assert_eq!(old.chars().count(), new.chars().count(), "{key}");
                }
            }
            let (old, new) = (decode(*provider, before), decode(*provider, after));
            let shape = |decoded: &crate::model::Decoded| {
                let events = decoded.events.iter().map(|event| (event.kind, event.published_at, event.selector.is_empty()));
                (decoded.json, decoded.provider_at, std::mem::discriminant(&decoded.message), events.collect::<Vec<_>>())
            };
            assert_eq!(shape(&old), shape(&new), "{}", String::from_utf8_lossy(after));
            assert_eq!(recognise(before), recognise(after));
        }
    }
}

#[test]
fn the_same_thing_becomes_the_same_everywhere() {
    let mut redactor = redactor("handles,text,user_ids");
    let full = r#"{"event_type":"tweet","tweets":[{"id":"2117164813577617415","url":"https://x.com/Fen_Lantern/status/2117164813577617415","text":"fog by Fen_Lantern, @fen_lantern! http://t.co/fen_lantern","author":{"userName":"Fen_Lantern","id":"900100200300"}}],"rule_value":"from:fen_lantern OR fog"}"#;
    let other = r#"{"type":"tweet","author_username":"fen_lantern","tweet_text":"FOG","tweet":{"user_id":900100200300}}"#;
    let stream = r#"{"v":1,"t":"account","op":"follow","d":{"actor":{"id":"900100200300","handle":"@Fen_Lantern"}}}"#;
    redactor.learn(Provider::TwitterapiIo, &Bytes::from(full));
    let name = redactor.handle("FEN_LANTERN");
    assert_eq!(name.len(), 11);
    let full = redacted(&redactor, Provider::TwitterapiIo, full);
    let value: Value = serde_json::from_str(&full).unwrap();
    let tweet = &value["tweets"][0];
    assert_eq!(tweet["author"]["userName"], name);
    assert_eq!(tweet["url"], format!("https://x.com/{name}/status/2117164813577617415"));
    let text = tweet["text"].as_str().unwrap();
    let fog = text.split(' ').next().unwrap();
    assert!(text.contains(&format!("{name}, @{name}! http://t.co/{name}")) && fog != "fog", "{text}");
    assert_eq!(value["rule_value"], format!("from:{name} OR fog"));
    let other: Value = serde_json::from_str(&redacted(&redactor, Provider::Scrapebadger, other)).unwrap();
    assert_eq!((&other["author_username"], &other["tweet_text"]), (&name.clone().into(), &fog.to_uppercase().into()));
    let id = tweet["author"]["id"].as_str().unwrap();
    assert_eq!(other["tweet"]["user_id"].to_string(), id);
    let stream: Value = serde_json::from_str(&redacted(&redactor, Provider::Tweetstream, stream)).unwrap();
    assert_eq!((&stream["d"]["actor"]["handle"], &stream["d"]["actor"]["id"]), (&format!("@{name}").into(), &id.into()));
    assert_eq!(redacted(&redactor, Provider::XLive, r#"{"topic":"/dm_typing/900100200300-7"}"#).find(id), Some(21));
}

#[test]
fn one_key_one_world() {
    let text = r#"{"type":"tweet","author_username":"fen_lantern"}"#;
    let other = Redactor::new(Redaction::all(), Secret::new("another").unwrap());
    let all = redactor("all");
    assert_eq!(redacted(&all, Provider::Scrapebadger, text), redacted(&redactor("all"), Provider::Scrapebadger, text));
    assert_ne!(redacted(&all, Provider::Scrapebadger, text), redacted(&other, Provider::Scrapebadger, text));
}

#[test]
fn only_what_was_asked_for() {
    let text = r#"{ "type" : "tweet", "author_username":"a_b", "tweet_text":"Gr\u00fc\u00dfe \u2014 an @a_b, 12 \ud83c\udf2b \u4f60\u597d x", "tweet":{"id":2117164812596150276,"user_id":"42"}, "tweet_url":"https:\/\/x.com\/a_b\/status\/2117164812596150276"}"#;
    let none = Redactor::new(Redaction::default(), Secret::new("k").unwrap());
    assert_eq!(redacted(&none, Provider::Scrapebadger, text), text);
    let done = redacted(&redactor("handles"), Provider::Scrapebadger, text);
    let name = redactor("handles").handle("a_b");
    let want = text.replace("\"a_b\"", &format!("\"{name}\"")).replace("@a_b", &format!("@{name}"));
    let want = want.replace(r"https:\/\/x.com\/a_b\/status\/", &format!("https://x.com/{name}/status/"));
    let value = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    assert_eq!(value(&done), value(&want));
    let posts = redacted(&redactor("post_ids"), Provider::Scrapebadger, text);
    let id = value(&posts)["tweet"]["id"].as_u64().unwrap();
    assert!(id != 2_117_164_812_596_150_276 && id >> 22 == 2_117_164_812_596_150_276 >> 22);
    assert!(value(&posts)["tweet_url"].as_str().unwrap().ends_with(&id.to_string()), "{posts}");
    assert!(text.starts_with("{ \"type\" : ") && posts.starts_with("{ \"type\" : "));
    let words = redacted(&redactor("text"), Provider::Scrapebadger, text);
    assert!(words.contains("\\u2014") && words.contains("@a_b") && !words.contains("\\u4f60"), "{words}");
}

#[test]
fn what_is_not_json_is_blanked() {
    assert_eq!(redacted(&redactor("text"), Provider::XLive, "call me: +1 {\"a\"").as_str(), "xxxx xx: +x {\"x\"");
}

#[test]
fn reads_lists_of_classes() {
    assert_eq!("all".parse(), Ok(Redaction::all()));
    assert_eq!("text, handles".parse::<Redaction>().unwrap().classes().collect::<Vec<_>>(), [Class::Handles, Class::Text]);
    for class in Class::ALL {
        assert!(
            class.name().parse::<Redaction>().is_ok() && "x".parse::<Redaction>().unwrap_err().to_string().contains(class.name())
        );
    }
    assert!("".parse::<Redaction>().is_err() && "text,".parse::<Redaction>().is_err());
}

#[test]
fn no_two_ids_become_one() {
    let redactor = redactor("user_ids");
    for range in [1..10, 10..100, 100..1_000u64] {
        let mut seen = BTreeMap::new();
        for id in range {
            let new = redactor.id(&id.to_string());
            assert_eq!(new.len(), id.to_string().len());
            assert_eq!(seen.insert(new, id), None);
        }
    }
    for id in ["9223372036854775807", "9223372036854775808", "18446744073709551615", "1000000000000000000"] {
        let new = redactor.id(id);
        assert_eq!((new.len(), new.parse::<i64>().is_ok()), (id.len(), id.parse::<i64>().is_ok()), "{id} {new}");
    }
}

proptest! {
    #[test]
    fn any_text_keeps_its_length_and_stays_json(text in any::<String>()) {
        let all = redactor("text,handles,user_ids");
        let done = all.words(&text, true, false);
        prop_assert_eq!(text.chars().count(), done.chars().count());
        let envelope = serde_json::json!({ "type": "tweet", "tweet_text": text, "url": text, "media": [text], "topic": text, "username": text });
        for provider in Provider::ALL {
            let done = redacted(&redactor("all"), provider, &envelope.to_string());
            prop_assert!(decode(provider, done.as_bytes()).json, "{}", done);
        }
    }
}

#[test]
fn when_an_account_was_made_is_told_by_the_year() {
    assert_eq!(year_of_date("Wed Sep 10 17:28:07 +0000 2014"), "Wed Jan 01 00:00:00 +0000 2014");
    assert_eq!(year_of_date("2014-09-10T17:28:07.123Z"), "2014-01-01T00:00:00.000Z");
    assert_eq!((year_of_date("long ago"), year_of_stamp("1410370087123")), (String::new(), "1388534400000".to_owned()));
    let line = br#"{"v":1,"t":"account","op":"follow","id":"e","ts":1,"d":{"kind":"FOLLOW","eventId":"e","observedAt":1410370087123,"actor":{"id":"7","handle":"@ann","joinedAt":1410370087123},"target":{"id":"8","handle":"@bob","joinedAt":1410370087124}}}"#;
    let envelope = Bytes::from_static(line);
    let redaction: Redaction = "all".parse().unwrap();
    let mut redactor = Redactor::new(redaction, Secret::new("k").unwrap());
    redactor.learn(Provider::Tweetstream, &envelope);
    let text = String::from_utf8(redactor.envelope(Provider::Tweetstream, &envelope).to_vec()).unwrap();
    assert_eq!(text.matches("1388534400000").count(), 2, "{text}");
    assert!(!text.contains("\"joinedAt\":1410370087"), "{text}");
}
