use proptest::prelude::*;

use super::*;
use crate::model::{Decoded, EventId, EventKind, parse_legacy_date};
use crate::provider::synthetic::{Dialect, Options, World};
use crate::provider::{decode, recognise};

const HOUR: i64 = 3_600_000;

/// Ten years either way keep every id inside its scheme.
const FAR: i64 = 10 * 365 * 24 * HOUR;

fn moved(provider: Provider, text: &str, by_ms: i64) -> String {
    let bytes = Bytes::copy_from_slice(text.as_bytes());
    String::from_utf8(Shift::by_millis(by_ms).envelope(provider, &bytes).to_vec()).unwrap()
}

#[track_caller]
fn check(provider: Provider, text: &str, by_ms: i64, want: &str) {
    assert_eq!(moved(provider, text, by_ms), want);
    assert_eq!(moved(provider, want, -by_ms), text, "the way back");
}

fn fixtures() -> Vec<(Provider, String, String)> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let mut all = Vec::new();
    for provider in Provider::ALL {
        for entry in std::fs::read_dir(root.join(provider.name())).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|e| e == "json") {
                let text = std::fs::read_to_string(&path).unwrap();
                all.push((provider, path.display().to_string(), text.trim_end().to_owned()));
            }
        }
    }
    for line in std::fs::read_to_string(root.join("synthetic/mixed-400.jsonl")).unwrap().lines() {
        all.push((recognise(line.as_bytes()).unwrap(), "mixed-400".to_owned(), line.to_owned()));
    }
    assert!(all.len() > 450);
    all
}

/// What a decoded envelope should say after the move.
fn expected(decoded: &Decoded, by_ms: i64) -> Decoded {
    let shift = Shift::by_millis(by_ms);
    let mut want = decoded.clone();
    // Stamps below 1973 are no stamps.
    want.provider_at = want.provider_at.map(|at| if at.millis() < 100_000_000_000 { at } else { shift.instant(at) });
    for event in &mut want.events {
        let old = event.id.clone();
        match &mut event.id {
            EventId::Tweet(id) => {
                let scheme = match event.kind {
                    EventKind::Tweet | EventKind::Engagement => Scheme::Snowflake,
                    _ if may_be_truth_social(id.0) => Scheme::Mastodon,
                    _ => Scheme::Snowflake,
                };
                if let Moved::To(new) = scheme.moved(id.0, by_ms) {
                    id.0 = new;
                }
            }
            EventId::Text(text) => {
                if let Some(id) = text.strip_prefix("truth_social:") {
                    let Moved::To(new) = Scheme::Mastodon.moved(id.parse().unwrap(), by_ms) else { panic!("{text}") };
                    *text = format!("truth_social:{new}");
                } else if event.kind == EventKind::Action && !text.starts_with("follow:") {
                    let (head, id) = text.rsplit_once(':').unwrap();
                    let Moved::To(new) = Scheme::Snowflake.moved(id.parse().unwrap(), by_ms) else { panic!("{text}") };
                    *text = format!("{head}:{new}");
                }
            }
        }
        if let (EventId::Tweet(old), EventId::Tweet(new)) = (old, &event.id) {
            event.selector = event.selector.replace(&old.to_string(), &new.to_string());
        }
        event.published_at = event.published_at.map(|at| shift.instant(at));
    }
    want
}

fn check_whole(provider: Provider, name: &str, text: &str, by_ms: i64) {
    let there = moved(provider, text, by_ms);
    assert_eq!(moved(provider, &there, -by_ms), text, "{name} by {by_ms}: the way back");
    let (before, after) = (decode(provider, text.as_bytes()), decode(provider, there.as_bytes()));
    assert_eq!(after, expected(&before, by_ms), "{name} by {by_ms}:\n{text}\n{there}");
}

#[test]
fn every_fixture_moves_there_and_back() {
    for (provider, name, text) in fixtures() {
        assert_eq!(moved(provider, &text, 0), text);
        // Whole seconds, so that dates without milliseconds move by exactly as much as ids.
        for by_ms in [1_000, -1_000, HOUR, -36 * HOUR, 90 * 24 * HOUR, FAR] {
            check_whole(provider, &name, &text, by_ms);
        }
        let there = moved(provider, &text, 12_345_678);
        assert_eq!(moved(provider, &there, -12_345_678), text, "{name}");
    }
}

#[test]
fn the_date_of_a_post_follows_its_id() {
    // 08:00:01.234 and 900 ms more is in the next second; the other way round likewise.
    let text = |id: u64, date: &str| format!(r#"{{"event_type":"tweet","tweets":[{{"createdAt":"{date}","id":"{id}"}}]}}"#);
    let one = 2_117_164_813_577_617_415;
    let early = text(one, "Mon Nov 02 08:00:01 +0000 2026");
    let late = text(one + (900 << 22), "Mon Nov 02 08:00:02 +0000 2026");
    check(Provider::TwitterapiIo, &early, 900, &late);
    for by_ms in [1, 765, 766, 86_400_000, -235, -1_234] {
        let there = moved(Provider::TwitterapiIo, &early, by_ms);
        let value: serde_json::Value = serde_json::from_str(&there).unwrap();
        let tweet = &value["tweets"][0];
        let id = TweetId::parse(tweet["id"].as_str().unwrap()).unwrap();
        let date = parse_legacy_date(tweet["createdAt"].as_str().unwrap()).unwrap();
        assert_eq!(id.published_at().unwrap().millis().div_euclid(1_000), date.millis() / 1_000, "{by_ms}");
        assert_eq!(id.0 & 0x3f_ffff, one & 0x3f_ffff, "{by_ms}: what tells posts apart stays");
    }
}

#[test]
fn moves_what_names_posts_and_nothing_else() {
    let [a, b, c, d] =
        [2_117_164_813_577_617_415_u64, 2_117_149_708_907_446_281, 2_102_038_470_875_676_672, 1_990_000_000_000_000_001];
    let tweet = |[a, b, c, d]: [u64; 4], date: &str, ms: i64| {
        format!(
            r#"{{ "type":"tweet", "tweet":{{"id":{a},"created_at":"{date}","conversation_id":"{b}","in_reply_to_status_id":"{b}","in_reply_to_user_id":"1463049654937066281","quoted_status_id_str":"{c}","edit_tweet_ids":["{d}", {a}],"editable_until_msecs":"{ms}","user_id":"1463049654937066281","user_created_at":"Tue Nov 23 08:00:00 +0000 2021","user":{{"id":"1463049654937066281","created_at":"Tue Nov 23 08:00:00 +0000 2021","pinned_tweet_ids":["{c}"]}},"media":[{{"id_str":"2117164813577617415","source_status_id_str":"{b}"}}],"text":"see https://x.com/a/status/{d}?s=20 and http:\/\/mobile.twitter.com\/b\/status\/{c}, not https://example.org/x/status/1990000000000000002 \u2603"}}, "latency_ms": 1700000000000 }}"#
        )
    };
    let by = 24 * HOUR;
    let far = [a, b, c, d].map(|id| id + ((by as u64) << 22));
    let want = tweet(far, "Tue Nov 03 08:00:01 +0000 2026", 1_700_086_400_000);
    check(Provider::Scrapebadger, &tweet([a, b, c, d], "Mon Nov 02 08:00:01 +0000 2026", 1_700_000_000_000), by, &want);
}

#[test]
fn accounts_keep_their_dates() {
    let text = r#"{"event_type":"tweet","tweets":[{"id":"2117164813577617415","author":{"id":"2117164813577617415","createdAt":"Wed May 01 00:00:00 +0000 2019","pinnedTweetIds":["2117164813577617415"]}}],"rule_id":"2117164813577617415","timestamp":1793606405000}"#;
    let want = r#"{"event_type":"tweet","tweets":[{"id":"2117164817771921415","author":{"id":"2117164813577617415","createdAt":"Wed May 01 00:00:00 +0000 2019","pinnedTweetIds":["2117164817771921415"]}}],"rule_id":"2117164813577617415","timestamp":1793606406000}"#;
    check(Provider::TwitterapiIo, text, 1_000, want);
    let follow = r#"{"v":1,"t":"account","op":"follow","id":"2117164813577617415","ts":1790000070050,"d":{"eventId":"e","observedAt":1790000070000,"actor":{"id":"11","joinedAt":1500000000000},"target":{"id":"12"}}}"#;
    check(Provider::Tweetstream, follow, 50, &follow.replace("070050", "070100").replace("070000", "070050"));
}

#[test]
fn topics_and_truths() {
    let topic = |id: u64| {
        format!(
            r#"{{"payload":{{"tweet_engagement":{{"view_count_info":{{"count":"1790000001204"}}}}}},"topic":"\/tweet_engagement\/{id}"}}"#
        )
    };
    check(Provider::XLive, &topic(2_102_038_470_875_676_672), 5, &topic(2_102_038_470_875_676_672 + (5 << 22)));
    let dm = r#"{"topic":"/dm_update/2102038470875676672","payload":{"dm_update":{"conversation_id":"2102038470875676672"}}}"#;
    check(Provider::XLive, dm, HOUR, dm);
    let meta = |id: u64, ts: i64| format!(r#"{{"v":1,"t":"tweet","op":"meta","id":"{id}","ts":{ts},"d":{{"tweetId":"{id}"}}}}"#);
    let truth = 117_309_440_131_073_234;
    check(Provider::Tweetstream, &meta(truth, 1_790_000_002_450), 7, &meta(truth + (7 << 16), 1_790_000_002_457));
}

#[test]
fn every_form_of_a_time() {
    let forms = [
        ("1790000000123", 1_500, "1790000001623"),
        ("1790000000", 1_500, "1790000001"),
        ("1790000000123456", 1_500, "1790000001623456"),
        ("17", 1_500, "17"),
        ("soon", 1_500, "soon"),
        ("2026-11-02T23:59:59Z", 1_500, "2026-11-03T00:00:00Z"),
        ("2026-11-02T23:59:59.9+05:30", 1_500, "2026-11-03T00:00:01.4+05:30"),
        ("2026-11-02T23:59:59.123456789Z", 1, "2026-11-02T23:59:59.124456789Z"),
        ("2026-11-02 23:59:59.123-0800", 1, "2026-11-02 23:59:59.124-0800"),
        ("2026-02-30T00:00:00Z", 1_500, "2026-02-30T00:00:00Z"),
        ("2026-11-02T23:59:59 maybe", 1_500, "2026-11-02T23:59:59 maybe"),
        ("Thu Dec 31 23:59:59 +0000 2026", 1_500, "Fri Jan 01 00:00:00 +0000 2027"),
        ("Mon Dec 31 23:59:59 +0000 2026", 1_500, "Mon Dec 31 23:59:59 +0000 2026"),
    ];
    for (from, by_ms, to) in forms {
        let envelope = |time: &str| format!(r#"{{"type":"tweet","detected_at":"{time}"}}"#);
        check(Provider::Scrapebadger, &envelope(from), by_ms, &envelope(to));
    }
}

#[test]
fn the_ends_of_time() {
    // From before ids told the time.
    let old = r#"{"type":"tweet","tweet_id":"4711","tweet":{"id":4711,"created_at":"Tue Mar 03 10:11:12 +0000 2009"}}"#;
    check(Provider::Scrapebadger, old, 1_000, &old.replace("10:11:12", "10:11:13"));
    // A post that cannot go there keeps its date as well, and the envelope goes on.
    let post = r#"{"type":"tweet","detected_at":"2026-11-02T08:00:02Z","tweet":{"id":"2117164812596150276","created_at":"Mon Nov 02 08:00:01 +0000 2026"}}"#;
    let year = 365 * 24 * HOUR;
    assert_eq!(moved(Provider::Scrapebadger, post, -20 * year), post.replace("2026-11-02T", "2006-11-07T"));
    assert_eq!(moved(Provider::Scrapebadger, post, 100 * year), post.replace("2026-11-02T", "2126-10-09T"));
    for by_ms in [i64::MAX, i64::MIN] {
        assert_eq!(moved(Provider::Scrapebadger, post, by_ms), post);
        assert_eq!(moved(Provider::TwitterapiIo, r#"{"timestamp":1793606405000}"#, by_ms), r#"{"timestamp":1793606405000}"#);
        for (provider, _, text) in fixtures() {
            moved(provider, &text, by_ms);
        }
    }
    let last = r#"{"type":"tweet","tweet_id":18446744073709551615}"#;
    assert_eq!(moved(Provider::Scrapebadger, last, -1), last, "beyond 63 bits nothing moves");
}

#[test]
fn what_is_not_json_passes() {
    for text in
        ["", "ping", "{", "{}", "[]", "7", "{\"timestamp\":1793606405000", "{\"timestamp\":1793606405000}{}", "\u{feff}{}"]
    {
        for provider in Provider::ALL {
            assert_eq!(moved(provider, text, HOUR), text);
        }
    }
    let bytes = Bytes::from_static(b"\xff{\"ts\":1793606405000}");
    assert_eq!(Shift::by_millis(1).envelope(Provider::Tweetstream, &bytes), bytes);
    check(Provider::TwitterapiIo, " {\"timestamp\":\n1793606405000}\n", 1, " {\"timestamp\":\n1793606405001}\n");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn worlds_move_there_and_back(seed in any::<u64>(), seconds in -FAR / 1_000..FAR / 1_000, odd in -999i64..1_000) {
        for dialect in [Dialect::A, Dialect::B, Dialect::C, Dialect::Merged] {
            for envelope in World::new(Options { seed, dialect, authors: 50, ..Options::default() }).take(60) {
                let text = std::str::from_utf8(&envelope.bytes).unwrap();
                check_whole(envelope.provider, "world", text, seconds * 1_000);
                let by_ms = seconds * 1_000 + odd;
                let there = moved(envelope.provider, text, by_ms);
                prop_assert_eq!(moved(envelope.provider, &there, -by_ms), text);
            }
        }
    }

    #[test]
    fn never_panics(text in any::<String>(), by_ms in any::<i64>()) {
        for provider in Provider::ALL {
            moved(provider, &text, by_ms);
            moved(provider, &format!("{{\"timestamp\":{text:?},\"tweet_id\":\"{text}\",\"text\":\"x.com/a/status/{text}\"}}"), by_ms);
        }
    }
}
