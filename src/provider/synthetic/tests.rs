use std::collections::{HashMap, HashSet};
use std::path::Path;

use serde_json::Value;

use super::*;
use crate::model::json::Json;
use crate::provider::recognise;

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
    const GOLDEN: u64 = 5_481_294_618_772_142_919;
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
