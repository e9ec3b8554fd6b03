use std::collections::{HashMap, HashSet};
use std::path::Path;

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::model::json::Json;
use crate::model::{EventId, EventKind};
use crate::provider::{decode, recognise};

const N: usize = 5_000;

fn world(seed: u64) -> World {
    World::new(Options { seed, ..Options::default() })
}

fn taken_from(options: Options, n: usize) -> Vec<(Envelope, Value)> {
    World::new(options)
        .take(n)
        .map(|e| {
            let value = serde_json::from_slice(&e.bytes).unwrap();
            (e, value)
        })
        .collect()
}

fn hash(envelopes: impl Iterator<Item = Envelope>) -> u64 {
    let mut hasher = xxhash_rust::xxh3::Xxh3::new();
    for envelope in envelopes {
        hasher.update(envelope.provider.name().as_bytes());
        hasher.update(&envelope.at.0.to_le_bytes());
        hasher.update(&envelope.bytes);
    }
    hasher.digest()
}

/// (id, author's id or handle, text) of the posts an envelope delivers.
fn posts(provider: Provider, value: &Value) -> Vec<(u64, String, String)> {
    let post = |v: &Value, id: &str, author: &str, text: &str| {
        let text_at = |pointer| v.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        Some((TweetId::parse(&text_at(id)?)?.0, text_at(author)?, text_at(text)?))
    };
    match provider {
        Provider::TwitterapiIo => {
            let batch = value["tweets"].as_array().into_iter().flatten().filter_map(|t| post(t, "/id", "/author/id", "/text"));
            batch.chain(post(value, "/tweet/id", "/tweet/user_id", "/tweet/text")).collect()
        }
        Provider::Tweetstream if value["op"] == "content" => {
            post(value, "/d/tweetId", "/d/author/id", "/d/text").into_iter().collect()
        }
        Provider::Scrapebadger => post(value, "/tweet/id", "/tweet/user_id", "/tweet/text").into_iter().collect(),
        _ => Vec::new(),
    }
}

#[test]
fn the_same_seed_gives_the_same_bytes_on_every_machine() {
    const GOLDEN: u64 = 17_727_351_138_991_984_722;
    assert_eq!(hash(world(1).take(N)), GOLDEN, "a change of the generator is a change of every fixture made by it");
    assert_ne!(hash(world(2).take(N)), GOLDEN);
}

#[test]
fn every_envelope_is_one_strict_object_of_its_provider() {
    for dialect in [Dialect::A, Dialect::B, Dialect::C, Dialect::Merged] {
        let mut at = UnixMicros(0);
        for envelope in World::new(Options { dialect, seed: 11, ..Options::default() }).take(N) {
            let text = str::from_utf8(&envelope.bytes).unwrap();
            let mut json = Json::new(text);
            json.skip().and_then(|()| json.finish()).unwrap_or_else(|bad| panic!("{bad:?}: {text}"));
            assert!(!json.is_multi_line() && !text.contains('\n') && text.starts_with('{'), "{text}");
            assert!(serde_json::from_str::<Value>(text).is_ok(), "{text}");
            assert_eq!(recognise(&envelope.bytes), Some(envelope.provider), "{text}");
            assert!(envelope.at >= at, "{} after {at}", envelope.at);
            assert!(envelope.provider != Provider::Scrapebadger || text.is_ascii() && text.contains("\": "), "{text}");
            at = envelope.at;
        }
    }
}

#[test]
fn ids_are_unique_and_near_their_arrival_but_out_of_order() {
    let mut seen: HashMap<u64, (String, String)> = HashMap::new();
    let mut deliveries: HashMap<(Provider, u64), u32> = HashMap::new();
    let (mut before, mut n_posts, mut n_late) = (0, 0, 0);
    for (envelope, value) in taken_from(Options { seed: 5, ..Options::default() }, N) {
        for (id, author, text) in posts(envelope.provider, &value) {
            let published_at = TweetId(id).published_at().unwrap();
            let age_ms = envelope.at.since(published_at) / 1_000;
            assert!((0..30_000).contains(&age_ms), "{id} came {age_ms} ms after it was published");
            if envelope.provider == Provider::Tweetstream {
                n_posts += 1;
                n_late += u32::from(id < before);
                before = id;
            }
            *deliveries.entry((envelope.provider, id)).or_default() += 1;
            let first = seen.entry(id).or_insert_with(|| (author.clone(), text.clone()));
            assert_eq!((&first.0, &first.1), (&author, &text), "one id is one post");
        }
    }
    assert!((100..450).contains(&(n_late * 1_000 / n_posts)), "{n_late} of {n_posts} out of order");
    let twice = deliveries.iter().filter(|((provider, _), n)| *provider == Provider::TwitterapiIo && **n > 1).count();
    assert!((5..400).contains(&twice), "{twice} posts came twice on TwitterAPI.io");
}

#[test]
fn a_good_part_is_seen_on_two_providers() {
    let mut on: HashMap<Provider, HashSet<u64>> = HashMap::new();
    for (envelope, value) in taken_from(Options { seed: 3, ..Options::default() }, 20_000) {
        on.entry(envelope.provider).or_default().extend(posts(envelope.provider, &value).into_iter().map(|post| post.0));
    }
    for provider in [Provider::Tweetstream, Provider::Scrapebadger] {
        let elsewhere = |id: &&u64| on.iter().any(|(other, ids)| *other != provider && ids.contains(*id));
        let (shared, all) = (on[&provider].iter().filter(elsewhere).count(), on[&provider].len());
        let share = shared * 1_000 / all;
        assert!((250..=350).contains(&share), "{provider}: {share} per mille of {all}");
    }
}

#[test]
fn what_follows_a_post_follows_it() {
    let mut contents = HashMap::new();
    let mut n = HashMap::<String, u32>::new();
    for (envelope, value) in taken_from(Options { seed: 4, ..Options::default() }, 20_000) {
        if envelope.provider != Provider::Tweetstream || value["t"] != "tweet" {
            continue;
        }
        let (op, id) = (value["op"].as_str().unwrap(), value["d"]["tweetId"].as_str().unwrap().to_owned());
        *n.entry(op.to_owned()).or_default() += 1;
        assert_eq!(value["id"], id.as_str());
        if op == "content" {
            assert_eq!(contents.insert(id, envelope.at), None, "content comes once");
        } else {
            let wait_ms = envelope.at.since(contents[&id]) / 1_000;
            assert!(op != "meta" || (150..=2_500).contains(&wait_ms), "meta after {wait_ms} ms");
            assert!(op != "update" || (0..=1_100).contains(&wait_ms), "update after {wait_ms} ms");
        }
    }
    let share = n["meta"] * 100 / n["content"];
    assert!((38..50).contains(&share), "{n:?}");
    assert!(["update", "delete", "pin"].iter().all(|op| n[*op] > 5), "{n:?}");
}

#[test]
fn counters_mostly_rise() {
    let mut last: HashMap<(String, String), i64> = HashMap::new();
    let (mut up, mut down) = (0, 0);
    let only_x = Options { mix: [0.0, 0.0, 0.0, 1.0], ..Options::default() };
    for (_, value) in taken_from(only_x, N) {
        let topic = value["topic"].as_str().unwrap().to_owned();
        for (field, count) in value["payload"]["tweet_engagement"].as_object().into_iter().flatten() {
            let count = count.get("count").unwrap_or(count);
            let count = count.as_str().map_or_else(|| count.as_i64().unwrap(), |digits| digits.parse().unwrap());
            match last.insert((topic.clone(), field.clone()), count) {
                Some(before) if count > before => up += 1,
                Some(_) => down += 1,
                None => {}
            }
        }
    }
    assert!(up > 2_000 && down > 20 && up > 15 * down, "{up} up, {down} down");
}

#[test]
fn a_changed_profile_shows_later() {
    // What an author was last said to have: (field of a change, field of later objects).
    let fields = [("name", "name"), ("avatar", "profileImage"), ("handle", "handle")];
    let mut changed: HashMap<(String, &str), Value> = HashMap::new();
    let mut n_shown = 0;
    for (_, value) in taken_from(Options { seed: 6, authors: 100, ..Options::default() }, N) {
        let d = &value["d"];
        match value["op"].as_str() {
            Some("profile_update") => {
                assert_ne!(d["changes"], d["previous"]);
                let id = d["actor"]["id"].as_str().unwrap();
                for (change, shown) in fields.iter().filter(|(change, _)| d["changes"].get(change).is_some()) {
                    changed.insert((id.to_owned(), shown), d["changes"][change].clone());
                }
            }
            Some("content") => {
                for ((_, shown), want) in changed.iter().filter(|((id, _), _)| d["author"]["id"] == id.as_str()) {
                    assert_eq!(&d["author"][*shown], want);
                    n_shown += 1;
                }
            }
            _ => {}
        }
        for tweet in value["tweets"].as_array().into_iter().flatten() {
            let author = &tweet["author"];
            if let Some(want) = author["id"].as_str().and_then(|id| changed.get(&(id.to_owned(), "name"))) {
                assert_eq!(&author["name"], want);
                n_shown += 1;
            }
        }
    }
    assert!(n_shown > 100, "{n_shown}");
}

#[test]
fn rate_mix_and_sizes_are_as_asked() {
    let options = Options { rate: 500.0, ..Options::default() };
    let mut of: HashMap<Provider, Vec<usize>> = HashMap::new();
    let mut last = options.start;
    for envelope in World::new(options.clone()).take(20_000) {
        last = envelope.at;
        of.entry(envelope.provider).or_default().push(envelope.bytes.len());
    }
    let rate = 20_000.0 * 1e6 / last.since(options.start) as f64;
    assert!((475.0..525.0).contains(&rate), "{rate} a second");
    let bounds = [(3_000, 6_000), (400, 800), (400, 900), (110, 180)];
    for ((provider, share), (low, high)) in Provider::ALL.into_iter().zip(options.mix).zip(bounds) {
        let sizes = of.get_mut(&provider).unwrap();
        let got = sizes.len() as f64 / 20_000.0;
        assert!((got - share).abs() < 0.02, "{provider}: {got} instead of {share}");
        sizes.sort_unstable();
        let (mean, median) = (sizes.iter().sum::<usize>() / sizes.len(), sizes[sizes.len() / 2]);
        assert!((low..high).contains(&median), "{provider}: median {median}, mean {mean}");
    }
    let mean = of.values().flatten().sum::<usize>() / 20_000;
    assert!((1_500..3_200).contains(&mean), "mean of all {mean}");
}

#[test]
fn heartbeats_come_on_time_even_in_a_quiet_world() {
    for rate in [0.01, 50.0] {
        let mut ping_at = HashMap::new();
        for envelope in
            World::new(Options { rate, ..Options::default() }).take_while(|e| e.at.0 < 1_767_614_400_000_000 + 300_000_000)
        {
            let text = str::from_utf8(&envelope.bytes).unwrap();
            let period_ms = match envelope.provider {
                Provider::TwitterapiIo if text.starts_with(r#"{"event_type":"ping""#) => 40_000,
                Provider::Scrapebadger if text.starts_with(r#"{"type": "ping""#) => 30_000,
                _ => continue,
            };
            if let Some(before) = ping_at.insert(envelope.provider, envelope.at) {
                assert!((envelope.at.since(before) / 1_000 - period_ms).abs() <= 1, "{} {text}", envelope.provider);
            }
        }
        assert_eq!(ping_at.len(), 2);
    }
}

#[test]
fn odd_options_make_a_world_too() {
    for mix in [[0.0; 4], [f64::NAN, -1.0, f64::INFINITY, 0.0], [0.0, 7.0, 0.0, 0.0], [0.0, 0.0, 1e-9, 0.0], [f64::MAX; 4]] {
        for (rate, start, authors) in [(f64::NAN, i64::MIN, 0), (f64::INFINITY, i64::MAX, 1), (-1.0, 0, 3), (1e9, 1 << 50, 2)] {
            let options = Options { mix, rate, authors, start: UnixMicros(start), ..Options::default() };
            assert_eq!(World::new(options.clone()).take(300).count(), 300, "{options:?}");
        }
    }
    let only: HashSet<_> =
        World::new(Options { mix: [0.0, 7.0, 0.0, 0.0], ..Options::default() }).take(500).map(|e| e.provider).collect();
    assert_eq!(only, HashSet::from([Provider::Tweetstream]));
}

/// `UPDATE_FIXTURES=1` writes the file anew.
#[test]
fn the_fixture_is_what_the_generator_makes() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/synthetic/mixed-400.jsonl");
    let mut made = Vec::new();
    for envelope in world(7).take(400) {
        made.extend_from_slice(&envelope.bytes);
        made.push(b'\n');
    }
    if std::env::var_os("UPDATE_FIXTURES").is_some_and(|value| value == "1") {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &made).unwrap();
    }
    let kept = std::fs::read(&path).unwrap();
    let differs = kept.split(|b| *b == b'\n').zip(made.split(|b| *b == b'\n')).position(|(a, b)| a != b);
    assert!(kept == made, "line {differs:?} (from 0) differs; lengths {} and {}", kept.len(), made.len());
}

fn burst(times: u32, every_ms: u64, lasts_ms: u64) -> Option<Burst> {
    Some(Burst { times, every: Duration::from_millis(every_ms), lasts: Duration::from_millis(lasts_ms) })
}

fn languages(shares: &[(&str, f64)]) -> Vec<(Language, f64)> {
    shares.iter().map(|(code, share)| (Language::from_code(code).unwrap(), *share)).collect()
}

/// Everything that may be asked for.
fn rich() -> Options {
    Options {
        rate: 200.0,
        burst: burst(20, 10_000, 1_000),
        day_curve: true,
        languages: languages(&[("en", 3.0), ("ja", 1.0), ("ar", 1.0), ("he", 1.0), ("th", 1.0), ("vi", 1.0), ("und", 1.0)]),
        edits: 0.05,
        deletes: Some(0.05),
        dms: 0.2,
        truth_social: 0.1,
        ..Options::default()
    }
}

#[test]
fn every_set_of_options_has_its_bytes() {
    let usual = Options::default;
    let sets = [
        ("usual", usual()),
        ("mix", Options { mix: [50.0, 30.0, 0.0, 20.0], ..usual() }),
        ("burst", Options { burst: burst(20, 10_000, 1_000), ..usual() }),
        ("day curve", Options { day_curve: true, ..usual() }),
        ("languages", Options { languages: languages(&[("en", 60.0), ("ja", 15.0), ("ar", 5.0)]), ..usual() }),
        ("edits", Options { edits: 0.05, ..usual() }),
        ("deletes", Options { deletes: Some(0.05), ..usual() }),
        ("direct messages", Options { dms: 0.2, ..usual() }),
        ("Truth Social", Options { truth_social: 0.2, ..usual() }),
        ("all", rich()),
        ("absurd rate", Options { rate: 1_000_000.0, ..rich() }),
    ];
    let mut found = String::new();
    for (name, options) in sets {
        let once = hash(World::new(options.clone()).take(3_000));
        assert_eq!(once, hash(World::new(options).take(3_000)), "{name}");
        found += &format!("{name}: {once:016x}\n");
    }
    expect_test::expect![[r#"
        usual: 92e2e72b3496784a
        mix: 9dfa1de54e12db74
        burst: 5827d5227a535a65
        day curve: a251923846072497
        languages: d9d20f3989ae512d
        edits: ddda3b14ce946f0f
        deletes: 88e1830faf8c3026
        direct messages: ce636b5db599635c
        Truth Social: 969469bc16d80a35
        all: 9d5e4c1e6f422a83
        absurd rate: e381095635c688b5
    "#]]
    .assert_eq(&found);
}

#[test]
fn what_was_not_asked_for_changes_nothing() {
    let silent = Options { deletes: None, dms: 0.0, edits: f64::NAN, truth_social: -1.0, ..Options::default() };
    assert_eq!(hash(World::new(silent).take(N)), hash(world(1).take(N)));
}

#[test]
fn one_provider_alone_hears_what_it_would_hear_among_all() {
    for options in [Options::default(), rich()] {
        let all: Vec<_> = World::new(options.clone()).take(N).collect();
        for provider in Provider::ALL {
            let (mut world, mut budget) = (World::new(options.clone()), N as u64);
            let own: Vec<_> = std::iter::from_fn(|| world.next_of(provider, &mut budget)).collect();
            assert_eq!(budget, 0);
            assert!(own.iter().eq(all.iter().filter(|envelope| envelope.provider == provider)), "{provider}");
        }
    }
}

#[test]
fn every_envelope_of_a_rich_world_is_understood() {
    let mut kinds: HashMap<String, u32> = HashMap::new();
    for dialect in [Dialect::A, Dialect::B, Dialect::C, Dialect::Merged] {
        for envelope in World::new(Options { dialect, seed: 9, ..rich() }).take(2 * N) {
            let text = str::from_utf8(&envelope.bytes).unwrap();
            assert_eq!(recognise(&envelope.bytes), Some(envelope.provider), "{text}");
            let decoded = decode(envelope.provider, &envelope.bytes);
            assert!(decoded.json, "{text}");
            let says_nothing =
                ["\"connected\"", "\"ping\"", "/system/"].iter().any(|word| text[..60.min(text.len())].contains(word));
            assert_eq!(decoded.events.is_empty(), says_nothing, "{text}");
            for event in decoded.events {
                *kinds.entry(format!("{:?}", event.kind)).or_default() += 1;
                let Some(published_at) = event.published_at else { continue };
                let age_ms = envelope.at.since(published_at) / 1_000;
                let late = if event.kind == EventKind::Engagement { i64::MAX } else { 130_000 };
                assert!((0..late).contains(&age_ms), "{age_ms} ms: {text}");
                if let (EventId::Tweet(id), EventKind::Tweet) = (event.id, event.kind) {
                    assert_eq!(id.published_at().map(UnixMicros::millis), Some(published_at.millis()), "{text}");
                }
            }
        }
    }
    for kind in ["Tweet", "Update", "Delete", "Meta", "DmUpdate", "DmTyping", "Engagement"] {
        assert!(kinds.get(kind).is_some_and(|n| *n > 20), "{kind}: {kinds:?}");
    }
}

#[test]
fn a_burst_is_about_one_thing() {
    let options = Options { rate: 20.0, burst: burst(30, 60_000, 5_000), ..Options::default() };
    let mut world = World::new(options);
    let (mut texts, mut authors, mut about) = (Vec::new(), HashSet::new(), HashMap::<u64, u32>::new());
    while texts.len() < 1_000 {
        let slot = world.burst;
        let envelope = world.next().unwrap();
        let value: Value = serde_json::from_slice(&envelope.bytes).unwrap();
        if slot != Some(1) || world.burst != Some(1) {
            if world.burst > Some(1) {
                break;
            }
            continue;
        }
        for (_, author, text) in posts(envelope.provider, &value) {
            texts.push(text);
            authors.insert(author);
        }
        for tweet in value["tweets"].as_array().into_iter().flatten() {
            let other =
                ["/inReplyToId", "/quoted_tweet/id", "/retweeted_tweet/id"].iter().find_map(|path| tweet.pointer(path)?.as_str());
            if let Some(other) = other {
                *about.entry(other.parse().unwrap()).or_default() += 1;
            }
        }
    }
    let theme = world.rush.as_ref().unwrap().theme;
    let sign = match theme {
        rush::Theme::Token(token) => ["$", words::TOKENS[token].0].concat(),
        rush::Theme::Match { tag, .. } | rush::Theme::News { tag } => ["#", tag].concat(),
    };
    let themed = texts.iter().filter(|text| text.contains(&sign)).count();
    assert!(texts.len() > 800 && themed * 100 > texts.len() * 65, "{themed} of {} say {sign}", texts.len());
    let (hottest, n) = about.iter().max_by_key(|(_, n)| **n).unwrap();
    assert_eq!(*hottest, world.rush.as_ref().unwrap().hot.as_ref().unwrap().id);
    assert!(*n * 100 > about.values().sum::<u32>() * 60, "{n} of {about:?}");
}

#[test]
fn languages_are_as_asked() {
    let wanted = [("en", 50.0), ("ja", 20.0), ("ar", 15.0), ("he", 10.0), ("und", 5.0), ("es", 0.0)];
    let options = Options { languages: languages(&wanted), ..Options::default() };
    let mut n: HashMap<String, f64> = HashMap::new();
    for (envelope, value) in taken_from(options, 20_000) {
        let said: Vec<_> = match envelope.provider {
            Provider::TwitterapiIo => value["tweets"].as_array().into_iter().flatten().map(|tweet| &tweet["lang"]).collect(),
            Provider::Scrapebadger if value["type"] == "tweet" => vec![&value["tweet"]["lang"]],
            _ => continue,
        };
        for lang in said {
            *n.entry(lang.as_str().unwrap().to_owned()).or_default() += 1.0;
        }
    }
    let all: f64 = n.values().sum();
    for (code, share) in wanted {
        let found = n.get(code).copied().unwrap_or_default() * 100.0 / all;
        assert!((found - share).abs() < 4.0, "{code}: {found} instead of {share}");
    }
    for language in Language::all() {
        let options = Options { languages: vec![(language, 1.0)], seed: 3, ..Options::default() };
        assert_eq!(World::new(options).take(500).count(), 500, "{}", language.code());
        assert_eq!(Language::from_code(language.code()), Some(language));
    }
}

#[test]
fn words_go_right_to_left_and_beyond_the_first_plane() {
    let text: String = taken_from(rich(), N).into_iter().map(|(_, value)| value.to_string()).collect();
    let has = |range: std::ops::RangeInclusive<char>| text.contains(|c| range.contains(&c));
    assert!(
        has('\u{590}'..='\u{5ff}') && has('\u{600}'..='\u{6ff}') && has('\u{3040}'..='\u{30ff}') && has('\u{4e00}'..='\u{9fff}')
    );
    assert!(has('\u{300}'..='\u{36f}') && has('\u{e00}'..='\u{e7f}') && has('\u{1f000}'..='\u{1ffff}'));
    let scrapebadger = World::new(rich()).take(N).filter(|envelope| envelope.provider == Provider::Scrapebadger);
    let escaped: String = scrapebadger.map(|envelope| String::from_utf8(envelope.bytes.to_vec()).unwrap()).collect();
    assert!(escaped.is_ascii() && escaped.contains("\\ud83") && escaped.contains("\\udc"));
}

#[test]
fn edits_bring_the_same_id_with_more_text() {
    let options = Options { edits: 0.1, ..Options::default() };
    let mut first: HashMap<(Provider, u64), String> = HashMap::new();
    let mut edited: HashMap<Provider, HashSet<u64>> = HashMap::new();
    for (envelope, value) in taken_from(options, 30_000) {
        let mut said = posts(envelope.provider, &value);
        if value["op"] == "update" && value["d"]["text"].is_string() {
            let text = |v: &Value| v.as_str().unwrap().to_owned();
            said.push((text(&value["id"]).parse().unwrap(), String::new(), text(&value["d"]["text"])));
        }
        for (id, _, text) in said {
            let before = first.entry((envelope.provider, id)).or_insert_with(|| text.clone());
            let is_edited = edited.get(&envelope.provider).is_some_and(|ids| ids.contains(&id));
            assert!(*before != text || !is_edited, "{id} is as it was before its edit");
            if *before != text {
                assert!(text.starts_with(before.as_str()) && text.contains('✎'), "{before} became {text}");
                edited.entry(envelope.provider).or_default().insert(id);
                if envelope.provider == Provider::Scrapebadger {
                    assert_eq!(value["tweet"]["edit_tweet_ids"][0], value["tweet_id"]);
                    let edit_id: u64 = value["tweet"]["edit_tweet_ids"][1].as_str().unwrap().parse().unwrap();
                    let wait_ms = (edit_id >> 22) - (id >> 22);
                    assert!((10_000..=50_000).contains(&wait_ms), "{wait_ms}");
                }
            }
        }
    }
    for provider in [Provider::TwitterapiIo, Provider::Tweetstream, Provider::Scrapebadger] {
        let of = first.keys().filter(|(by, _)| *by == provider).count();
        let share = edited[&provider].len() * 1_000 / of;
        // Repeats are not edited, and the last edits have not come yet.
        assert!((65..105).contains(&share), "{provider}: {share} per mille of {of}");
    }
}

#[test]
fn deletes_direct_messages_and_truth_social_are_as_many_as_asked() {
    let options = Options { deletes: Some(0.1), dms: 0.25, truth_social: 0.2, ..Options::default() };
    let (mut contents, mut truths, mut deletes, mut dms, mut of_x) = (0, HashSet::new(), 0, 0, 0);
    for (envelope, value) in taken_from(options, 40_000) {
        match value["op"].as_str() {
            Some("content") if value["d"]["author"]["platform"] == "truth_social" => {
                let id: u64 = value["id"].as_str().unwrap().parse().unwrap();
                assert_eq!(Some(id >> 16), value["d"]["createdAt"].as_u64());
                assert!(truths.insert(id), "{id} twice");
            }
            Some("content") => contents += 1,
            Some("delete") => deletes += 1,
            _ => {}
        }
        of_x += u32::from(envelope.provider == Provider::XLive);
        dms += u32::from(value["topic"].as_str().is_some_and(|topic| topic.starts_with("/dm_")));
    }
    assert!((8..12).contains(&(deletes * 100 / contents)), "{deletes} of {contents}");
    assert!((23..27).contains(&(dms * 100 / of_x)), "{dms} of {of_x}");
    let all = contents + truths.len() as i32;
    assert!((18..22).contains(&(truths.len() as i32 * 100 / all)), "{} of {all}", truths.len());
}

prop_compose! {
    fn any_burst()(times: u32, every in 0_u64..100_000, lasts in 0_u64..100_000) -> Option<Burst> {
        burst(times % 50, every, lasts)
    }
}

prop_compose! {
    fn any_options()(
        seed: u64,
        start: i64,
        rate in prop_oneof![any::<f64>(), 0.001..1e6, 10.0..1e4],
        mix in prop::array::uniform4(prop_oneof![Just(0.0), 0.0..10.0, any::<f64>()]),
        authors in 0_usize..300,
        burst in prop_oneof![Just(None), any_burst()],
        day_curve: bool,
        languages in prop::collection::vec((0..words::TONGUES.len(), prop_oneof![0.0..5.0, any::<f64>()]), 0..6),
        shares in prop::array::uniform4(prop_oneof![Just(0.0), 0.0..1.0, any::<f64>()]),
        dialect in prop::sample::select(&[Dialect::A, Dialect::B, Dialect::C, Dialect::Merged]),
    ) -> Options {
        let languages = languages.into_iter().map(|(place, share)| (Language(place), share)).collect();
        let [edits, deletes, dms, truth_social] = shares;
        let deletes = Some(deletes).filter(|share| *share != 0.0);
        let start = UnixMicros(start);
        Options { seed, start, rate, mix, dialect, authors, burst, day_curve, languages, edits, deletes, dms, truth_social }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_options_make_a_world(options in any_options()) {
        let mut at = UnixMicros(i64::MIN);
        for envelope in World::new(options).take(300) {
            prop_assert!(envelope.at >= at, "{} after {at}", envelope.at);
            at = envelope.at;
            prop_assert!(decode(envelope.provider, &envelope.bytes).json);
            prop_assert_eq!(recognise(&envelope.bytes), Some(envelope.provider));
        }
    }

    #[test]
    fn any_mix_holds_roughly(seed: u64, mix in prop::array::uniform4(0.1..10.0_f64)) {
        let options = Options { seed, mix, authors: 50, ..rich() };
        let mut n = [0.0; 4];
        for envelope in World::new(options).take(3_000) {
            n[envelope.provider as usize] += 1.0 / 3_000.0;
        }
        let sum: f64 = mix.iter().sum();
        for (found, share) in n.iter().zip(mix) {
            prop_assert!((found - share / sum).abs() < 0.06, "{n:?} for {mix:?}");
        }
    }
}
