//! What looked whole, asked for again by the real program.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use birdtape::archive::{Archive, Lost, Options};
use birdtape::model::{Cause, EventId, EventKind, Provider, SourceName, TweetId};
use birdtape::provider::synthetic::Envelope;
use birdtape::provider::{decode, decode_record};
use birdtape::segment::RealDisk;
use serde_json::Value;

use crate::backfill::{broadcast, on_tape, posts, recorded_but_for, second, selects};
use crate::program::{Desk, Run, files_below};
use crate::server::Replay;

/// A recorder that was alive all the time, and a provider that never sent it some of the posts.
struct Scene {
    desk: Desk,
    provider: Provider,
    dropped: BTreeSet<u64>,
}

impl Scene {
    fn new(provider: Provider) -> Self {
        let desk = Desk::new();
        let envelopes = broadcast(provider);
        let lines: Vec<u8> = envelopes.iter().flat_map(|envelope| [&envelope.bytes[..], b"\n"].concat()).collect();
        desk.write("full.jsonl", &lines);
        let all = posts(provider, envelopes.iter());
        let deleted: BTreeSet<_> = envelopes
            .iter()
            .flat_map(|envelope| decode(provider, &envelope.bytes).events)
            .filter(|event| event.kind == EventKind::Delete)
            .map(|event| event.id)
            .collect();
        let middle = posts(provider, envelopes.iter().filter(|of| (second(400)..second(800)).contains(&of.at)));
        // No history has what was deleted.
        let is_there = |id: &u64| !deleted.contains(&EventId::Tweet(TweetId(*id)));
        let middle: Vec<u64> = middle.into_iter().filter(is_there).collect();
        let unlucky = [middle[middle.len() / 3], middle[middle.len() / 2]];
        let names = |envelope: &Envelope| {
            let ids = decode(provider, &envelope.bytes).events.into_iter().map(|event| event.id);
            ids.into_iter().any(|id| matches!(id, EventId::Tweet(id) if unlucky.contains(&id.0)))
        };
        let (_, sent): (Vec<_>, Vec<_>) = envelopes.into_iter().partition(names);
        recorded_but_for(&desk, ("tape", provider), &sent, &(second(0)..second(0)), &[]);
        let have = on_tape(&desk, provider);
        let dropped: BTreeSet<u64> = all.difference(&have).copied().collect();
        assert!(dropped.len() >= 2, "{provider}: {dropped:?}");
        Self { desk, provider, dropped }
    }

    fn history(&self) -> Replay {
        Replay::start(&self.desk, &["full.jsonl", "--from", "end", "--no-rate-limits"])
    }

    fn audit(&self, base: &str, more: &[&str]) -> Run {
        let mut command = self.desk.command(["--json", "audit", "--provider", self.provider.name(), "--base-url", base]);
        for key in ["TWITTERAPI_IO_API_KEY", "TWEETSTREAM_API_KEY", "SCRAPEBADGER_API_KEY", "X_AUTH_TOKEN", "X_CT0"] {
            command.env(key, "k");
        }
        for (flag, value) in [("--window", "4m"), ("--sample", "1000"), ("--pace", "0")] {
            if !more.contains(&flag) {
                command.args([flag, value]);
            }
        }
        crate::program::finished(command.args(more))
    }

    fn certificate(&self) -> Value {
        let command =
            ["certify", "--source", self.provider.name(), "--from", "2026-01-05T12:00:00Z", "--to", "2026-01-05T12:15:00Z"];
        let run = self.desk.run(&command).expect(0);
        serde_json::from_str(run.text().trim()).unwrap()
    }
}

/// A fake provider that knows the whole broadcast.
fn full_history(desk: &Desk, provider: Provider) -> Replay {
    let lines = broadcast(provider).into_iter().flat_map(|envelope| [&envelope.bytes[..], b"\n"].concat());
    desk.write("full.jsonl", &lines.collect::<Vec<u8>>());
    Replay::start(desk, &["full.jsonl", "--from", "end", "--no-rate-limits"])
}

/// Every segment with its bytes.
fn segments(desk: &Desk) -> Vec<(PathBuf, Vec<u8>)> {
    let files = files_below(&desk.path("tape/segments"));
    files.into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

fn lines(run: &Run) -> Vec<Value> {
    run.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn missed(run: &Run) -> BTreeSet<u64> {
    let windows = lines(run).into_iter().filter(|line| line["event"] == "window");
    windows.flat_map(|line| line["missed"].as_array().unwrap().clone()).map(|id| id.as_str().unwrap().parse().unwrap()).collect()
}

#[test]
fn what_the_provider_dropped_is_found_and_settled() {
    for provider in [Provider::TwitterapiIo, Provider::Tweetstream, Provider::Scrapebadger] {
        let scene = Scene::new(provider);
        let history = scene.history();
        let before = segments(&scene.desk);
        let only_told = scene.audit(&history.base, &["--report-only"]).expect(3);
        assert_eq!(missed(&only_told), scene.dropped, "{provider}: {}", only_told.text());
        assert!(segments(&scene.desk) == before, "{provider}: nothing may be written");

        let found = scene.audit(&history.base, &[]).expect(3);
        assert_eq!(missed(&found), scene.dropped, "{provider}");
        let sum = lines(&found).into_iter().find(|line| line["event"] == "audited").unwrap();
        let (asked, missed) = (sum["asked"].as_u64().unwrap(), sum["missed"].as_u64().unwrap());
        let share = missed as f64 / asked as f64;
        let bound = sum["share_at_most"].as_f64().unwrap();
        assert!(missed == scene.dropped.len() as u64 && asked > 200 && bound > share && bound < share + 0.05, "{sum}");
        assert!(on_tape(&scene.desk, provider).is_superset(&scene.dropped), "{provider}");
        let gaps = lines(&scene.desk.run(&["--json", "gaps"]).expect(0));
        let gaps: Vec<_> = gaps.iter().map(|gap| (gap["cause"].as_str().unwrap(), gap["state"].as_str().unwrap())).collect();
        assert!(!gaps.is_empty() && gaps.iter().all(|gap| *gap == ("provider_dropped", "filled")), "{provider}: {gaps:?}");

        let certificate = scene.certificate();
        let us = |class: &str| certificate["scopes"][0][class]["us"].as_i64().unwrap();
        assert!(us("audited") > 400_000_000 && us("backfilled") == 240_000_000 * gaps.len() as i64, "{certificate}");
        // What was audited is not drawn again.
        assert!(scene.audit(&history.base, &[]).expect(0).err.contains("not audited yet"), "{provider}");
        scene.desk.run(&["verify"]).expect(0);
        scene.desk.run(&["rebuild"]).expect(0);
        assert_eq!(scene.certificate(), certificate, "{provider}: a rebuild says the same");
    }
}

#[test]
fn the_same_seed_draws_the_same_and_a_budget_ends_it() {
    let scene = Scene::new(Provider::Tweetstream);
    let history = scene.history();
    let draw = |seed: &str| {
        scene.audit(&history.base, &["--dry-run", "--window", "30s", "--sample", "3", "--seed", seed]).expect(0).text().to_owned()
    };
    assert_eq!(draw("1"), draw("1"));
    assert_ne!(draw("1"), draw("2"));
    let stopped = scene.audit(&history.base, &["--window", "1m", "--max-requests", "2"]).expect(3);
    let sum = lines(&stopped).into_iter().find(|line| line["event"] == "audited").unwrap();
    assert!(sum["unasked"].as_u64().unwrap() > 0 && sum["left"].as_str().unwrap().contains("2 requests"), "{sum}");
}

#[test]
fn what_lies_in_the_known_gap_of_an_account_is_no_miss() {
    let (desk, provider) = (Desk::new(), Provider::TwitterapiIo);
    let (envelopes, history) = (broadcast(provider), full_history(&desk, provider));
    let selects = selects(provider, &history.base);
    // One account's posts of a minute were not delivered, and the tape knows it.
    let gap = second(500)..second(560);
    let ids = |envelope: &Envelope| decode(provider, &envelope.bytes).events.into_iter().map(|event| event.id);
    let author = |envelope: &Envelope| {
        let value: Value = serde_json::from_slice(&envelope.bytes).unwrap();
        value.pointer("/tweet/screen_name").map(|name| format!("@{}", name.as_str().unwrap().to_lowercase()))
    };
    let in_gap = || envelopes.iter().filter(|of| gap.contains(&of.at));
    let is_monitored = |name: &String| selects.iter().any(|(scope, _)| scope == name);
    let account = in_gap().filter_map(author).find(is_monitored).unwrap();
    let lost: BTreeSet<_> = in_gap().filter(|of| author(of).as_ref() == Some(&account)).flat_map(ids).collect();
    let (_, sent): (Vec<_>, Vec<_>) = envelopes.iter().cloned().partition(|of| ids(of).any(|id| lost.contains(&id)));
    recorded_but_for(&desk, ("tape", provider), &sent, &(second(0)..second(0)), &selects);
    let scene = Scene { desk, provider, dropped: BTreeSet::new() };
    // One window around it.
    let around = ["--from", "2026-01-05T12:07:00Z", "--to", "2026-01-05T12:11:00Z"];
    let missing = scene.audit(&history.base, &[&around[..], &["--report-only"]].concat()).expect(3);
    assert!(!missed(&missing).is_empty(), "{}", missing.text());

    let (name, dir) = (SourceName::from(provider), scene.desk.path("tape"));
    let mut archive =
        Archive::open(&dir, Arc::new(RealDisk), Options::default(), decode_record, "a test", second(1_300)).unwrap();
    let lost = Lost { scope: &account, cause: Cause::Suspended, detail: "it was switched off" };
    assert!(archive.suspect(&name, second(1_300), (second(490), second(570)), lost).unwrap().is_some());
    archive.close(second(1_300)).unwrap();
    let found = scene.audit(&history.base, &around).expect(0);
    assert_eq!(missed(&found), BTreeSet::new(), "{}", found.text());
    let in_gaps: u64 = lines(&found).iter().filter_map(|line| line["in_gaps"].as_u64()).sum();
    assert!(in_gaps > 0, "{}", found.text());
    scene.desk.run(&["verify"]).expect(0);
}

#[test]
fn a_dry_run_tells_about_what_small_windows_cost() {
    for provider in [Provider::TwitterapiIo, Provider::Tweetstream, Provider::Scrapebadger] {
        let desk = Desk::new();
        let (envelopes, history) = (broadcast(provider), full_history(&desk, provider));
        recorded_but_for(&desk, ("tape", provider), &envelopes, &(second(0)..second(0)), &selects(provider, &history.base));
        let scene = Scene { desk, provider, dropped: BTreeSet::new() };
        let windows = ["--window", "10s", "--sample", "12"];
        let dry = scene.audit(&history.base, &[&windows[..], &["--dry-run"]].concat()).expect(0);
        assert!(dry.err.contains("neither number is a bound"), "{}", dry.err);
        let plan = lines(&dry).remove(0);
        let of = |name: &str| plan[name].as_u64().unwrap();
        let audited = scene.audit(&history.base, &windows);
        let sum = lines(&audited).into_iter().find(|line| line["event"] == "audited").unwrap();
        let spent = sum["spent"]["requests"].as_u64().unwrap();
        assert!((of("requests_at_least")..=of("requests_estimate")).contains(&spent), "{provider}: {plan} {sum}");
        assert_eq!(of("windows_with_unknown_searches"), 0, "{provider}: {plan}");
    }
    // Without the provider's lists nobody knows how many searches there are.
    let scene = Scene::new(Provider::TwitterapiIo);
    let dry = scene.audit("http://127.0.0.1:9", &["--window", "10s", "--sample", "2", "--dry-run"]).expect(0);
    assert!(dry.err.contains("of 2 windows the tape does not know all rules and accounts"), "{}", dry.err);
}

#[test]
fn windows_that_are_not_proven_are_counted() {
    let scene = Scene::new(Provider::TwitterapiIo);
    // The key of somebody else, who has other rules.
    scene.desk.write("other.jsonl", include_bytes!("../../fixtures/synthetic/mixed-400.jsonl"));
    let other = Replay::start(&scene.desk, &["other.jsonl", "--from", "end", "--no-rate-limits"]);
    let audited = scene.audit(&other.base, &["--sample", "2"]).expect(3);
    let sum = lines(&audited).into_iter().find(|line| line["event"] == "audited").unwrap();
    assert_eq!((&sum["windows"], &sum["unproven"]), (&2.into(), &2.into()), "{sum}");
    assert!(audited.err.contains("2 windows not proven: "), "{}", audited.err);
}

#[test]
fn bad_input_has_clear_words() {
    let scene = Scene::new(Provider::Tweetstream);
    let base = "http://127.0.0.1:9";
    for (args, words) in [
        (&["--window", "0s"][..], "--window is nothing"),
        (&["--from", "-1h", "--to", "-2h"], "is empty"),
        (&["--to", "2999-01-01"], "future"),
        (&["--sample", "0"], "0 is not in 1..=100000"),
        (&["--sample", "-3"], "-3 is not in 1..=100000"),
        (&["--max-usd", "-1"], "an amount of dollars is wanted, as 0.50"),
        (&["--window", "-5"], "a length of time is written in seconds"),
    ] {
        scene.audit(base, args).fails(2, &[words]);
    }
    scene.audit(base, &["--max-requests", "0"]).fails(2, &["a budget of 0 requests"]);
    let other = Scene { provider: Provider::Scrapebadger, ..scene };
    other.audit(base, &[]).fails(2, &["no source `scrapebadger`"]);
}
