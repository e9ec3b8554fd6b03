//! A recorder that fills its own gaps: the real program against a replay server that misbehaves.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use birdtape::archive::{Archive, Lost, Options, Tape};
use birdtape::backfill::{self, Budget, Budgets};
use birdtape::config::{Config, ProviderFlags};
use birdtape::model::{Body, Cause, ConnId, Draft, Provider, RecordKind, SourceName, UnixMicros, Via};
use birdtape::net::{BootReading, Clock, SystemClock, SystemNetwork, TlsOptions};
use birdtape::provider::decode_record;
use birdtape::segment::RealDisk;
use serde_json::Value;

use crate::backfill::Scene;
use crate::program::Desk;
use crate::server::Replay;

/// The configuration of one source at a replay, with filling as fast as it gets.
fn configure(desk: &Desk, provider: Provider, base: &str, source: &str, backfill: &str) {
    let text = format!(
        "[backfill]\nindex_delay = \"0s\"\n{backfill}\n[source.{provider}]\nprovider = \"{provider}\"\nbase_url = \"{base}\"\n\
         reconnect_floor = \"300ms\"\nreconnect_cap = \"600ms\"\n{source}\n"
    );
    desk.write("birdtape.toml", text.as_bytes());
}

/// A recorder at work.
struct Recorder {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    seen: Vec<Value>,
}

impl Recorder {
    fn start(desk: &Desk, args: &[&str]) -> Self {
        let err = std::fs::File::create(desk.path("stderr")).unwrap();
        let args = [&["--json", "record", "--for", "120"], args].concat();
        let mut child = desk.command(args).stdout(Stdio::piped()).stderr(err).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines, seen: Vec::new() }
    }

    /// Waits for an event.
    #[track_caller]
    fn until(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        for line in self.lines.by_ref() {
            let event: Value = serde_json::from_str(&line.unwrap()).unwrap();
            self.seen.push(event.clone());
            if wanted(&event) {
                return event;
            }
        }
        let told = self.seen.iter().filter(|event| event["event"] != "commit").map(|event| format!("{event}\n"));
        panic!("waited in vain; seen: {}", told.collect::<String>());
    }

    fn event(&mut self, name: &str) -> Value {
        self.until(|event| event["event"] == name)
    }

    /// Sends a signal and gives the exit code with the last event.
    fn signal(mut self, signal: &str) -> (Option<i32>, Value) {
        assert!(Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap().success());
        let last = self.lines.map_while(Result::ok).last().and_then(|line| serde_json::from_str(&line).ok());
        (self.child.wait().unwrap().code(), last.unwrap_or_default())
    }
}

/// Questions that stand on the tape more than once, with how often.
fn asked_again(desk: &Desk) -> BTreeMap<String, usize> {
    let mut asked = BTreeMap::new();
    for line in desk.run(&["cat", "--kind", "http"]).expect(0).text().lines() {
        let record: Value = serde_json::from_str(line).unwrap();
        let url = record["info"]["url"].as_str().unwrap_or_default();
        // A walk that goes on makes sure that the accounts are still the same.
        if record["via"] == "history" && record["info"]["status"] == 200 && !url.ends_with("/api/me") {
            *asked.entry(url.to_owned()).or_insert(0) += 1;
        }
    }
    asked.retain(|_, times| *times > 1);
    asked
}

fn gaps(desk: &Desk) -> Vec<Value> {
    let listed = desk.run(&["gaps", "--json"]).expect(0);
    listed.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_recorder_fills_what_it_lost_and_ends_without_loss() {
    let desk = Desk::new();
    let faults = "[[fault]]\ndo = \"close\"\ncode = 1012\nafter = \"4s\"\n\n\
        [[fault]]\ndo = \"refuse\"\nstatus = 503\nattempt = \"2..4\"\ntimes = \"always\"\n";
    desk.write("faults.toml", faults.as_bytes());
    let args = ["--synthetic", "--rate", "20", "--seed", "5", "--mix", "tweetstream=1", "--deletes", "0", "--shift", "now"];
    let replay = Replay::start(&desk, &[&args[..], &["--no-rate-limits", "--faults", "faults.toml"]].concat());
    configure(&desk, Provider::Tweetstream, &replay.base, "lateness_horizon = \"2s\"", "");
    let mut recorder = Recorder::start(&desk, &[]);
    let gap = recorder.event("gap");
    assert_eq!(gap["cause"], "connection_lost", "{gap}");
    let ended = recorder.event("fill_ended");
    assert_eq!((&ended["gap"], &ended["state"]), (&gap["id"], &"filled".into()), "{ended}");
    assert!(ended["new"].as_u64().unwrap() > 0, "{ended}");

    let beside = desk.run(&["backfill"]);
    beside.fails(1, &["is being written by another process (birdtape record, ", "a recorder fills gaps by itself"]);
    let audit = desk.run(&["audit"]);
    audit.fails(1, &["is being written by another process (birdtape record, ", "hint: --report-only writes nothing"]);
    let shown = desk.run(&["gaps", "show", gap["id"].as_str().unwrap(), "--json"]).expect(0).json();
    assert_eq!(shown["spent"]["requests"], ended["requests"]);
    assert!(shown["tried_again_at"].is_null());
    let status = desk.run(&["status", "--json"]).expect(0).json();
    assert_eq!(status["sources"][0]["spent_today"]["requests"], ended["requests"]);

    let (code, done) = recorder.signal("-INT");
    assert_eq!(code, Some(0), "{done}");
    assert_eq!(done["filled"], serde_json::json!([gap["id"]]));
    let words = std::fs::read_to_string(desk.path("stderr")).unwrap();
    assert!(words.contains("gaps are filled from history, for at most 1000 requests, 1.0000 USD a day and source"), "{words}");
    let to = gaps(&desk)[0]["to"].as_str().unwrap().to_owned();
    desk.run(&["certify", "--source", "tweetstream", "--from", "-1h", "--to", &to]).expect(0);
    desk.run(&["verify"]).expect(0);
    desk.run(&["rebuild"]).expect(0);
    desk.run(&["certify", "--source", "tweetstream", "--from", "-1h", "--to", &to]).expect(0);
}

#[test]
fn each_of_two_sources_fills_its_own() {
    let desk = Desk::new();
    let faults = "[[fault]]\ndo = \"close\"\ncode = 1012\nafter = \"3s\"\ntimes = 2\nexpect = 2\n";
    desk.write("faults.toml", faults.as_bytes());
    let args = ["--synthetic", "--rate", "20", "--seed", "6", "--mix", "tweetstream=1", "--deletes", "0", "--shift", "now"];
    let more = ["--no-rate-limits", "--faults", "faults.toml", "--max-connections", "4"];
    let replay = Replay::start(&desk, &[&args[..], &more].concat());
    let source = |name: &str| {
        format!(
            "[source.{name}]\nprovider = \"tweetstream\"\nbase_url = \"{}\"\nlateness_horizon = \"2s\"\n\
             reconnect_floor = \"300ms\"\nreconnect_cap = \"600ms\"\n",
            replay.base
        )
    };
    // A budget that both share: their requests take turns.
    let text = format!("[backfill]\nindex_delay = \"0s\"\ntotal_items_per_day = 100000\n{}{}", source("alpha"), source("beta"));
    desk.write("birdtape.toml", text.as_bytes());
    let mut recorder = Recorder::start(&desk, &[]);
    let mut filled: Vec<Value> = (0..2).map(|_| recorder.event("fill_ended")).collect();
    assert!(filled.iter().all(|ended| ended["state"] == "filled"), "{filled:?}");
    filled.sort_by_key(|ended| ended["gap"].to_string());
    let of = |ended: &Value| ended["gap"].as_str().unwrap().rsplit_once('-').unwrap().0.to_owned();
    assert_eq!(filled.iter().map(of).collect::<Vec<_>>(), ["alpha", "beta"]);
    let (code, done) = recorder.signal("-INT");
    assert_eq!(code, Some(0), "{done}");
    desk.run(&["verify"]).expect(0);
}

#[test]
fn a_recorder_that_is_told_not_to_fills_nothing() {
    let scene = Scene::new(Provider::Tweetstream);
    let history = scene.history(&[]);
    configure(&scene.desk, scene.provider, &history.base, "", "automatic = false");
    scene.desk.run(&["record", "--for", "2"]).expect(3);
    configure(&scene.desk, scene.provider, &history.base, "", "");
    let run = scene.desk.run(&["record", "--for", "2", "--no-backfill"]).expect(3);
    assert!(run.err.contains("gaps are not filled"), "{}", run.err);
    assert_eq!(gaps(&scene.desk)[0]["state"], "open");
    assert!(asked_again(&scene.desk).is_empty());
}

#[test]
fn a_killed_filler_goes_on_from_its_cursor() {
    let scene = Scene::new(Provider::Tweetstream);
    let history = scene.history(&[]);
    configure(&scene.desk, scene.provider, &history.base, "", "pace = \"700ms\"");
    let mut first = Recorder::start(&scene.desk, &[]);
    first.event("fill_page");
    first.event("fill_page");
    first.signal("-KILL");
    assert_eq!(gaps(&scene.desk)[0]["state"], "filling", "it was killed in the middle");
    configure(&scene.desk, scene.provider, &history.base, "", "");
    let mut second = Recorder::start(&scene.desk, &[]);
    let ended = second.event("fill_ended");
    assert_eq!(ended["state"], "filled", "{ended}");
    second.signal("-INT");
    assert_eq!(scene.still_missing(), Vec::<i64>::new());
    let again = asked_again(&scene.desk);
    assert!(again.values().sum::<usize>() <= 2, "one page at most is asked for a second time: {again:?}");
    scene.desk.run(&["verify"]).expect(0);
}

#[test]
fn an_interrupted_filler_loses_nothing() {
    let scene = Scene::new(Provider::Tweetstream);
    let history = scene.history(&[]);
    configure(&scene.desk, scene.provider, &history.base, "", "pace = \"700ms\"");
    let mut recorder = Recorder::start(&scene.desk, &[]);
    recorder.event("fill_page");
    recorder.event("fill_page");
    let (code, done) = recorder.signal("-INT");
    assert_eq!(code, Some(3), "the gap is not filled: {done}");
    assert_eq!(done["ended"], "shutdown was asked for");
    scene.desk.run(&["verify"]).expect(0);
    assert_eq!(gaps(&scene.desk)[0]["state"], "filling");
    let id = gaps(&scene.desk)[0]["id"].as_str().unwrap().to_owned();
    scene.backfill(&history.base, &[&id]);
    assert_eq!(scene.still_missing(), Vec::<i64>::new());
    assert_eq!(asked_again(&scene.desk), BTreeMap::new(), "what was asked for was waited for");
}

#[test]
fn a_provider_that_wants_money_stops_filling_and_not_recording() {
    let scene = Scene::new(Provider::TwitterapiIo);
    let faults = "[[fault]]\ndo = \"status\"\nstatus = 402\ntimes = \"always\"\n";
    scene.desk.write("faults.toml", faults.as_bytes());
    let replay = Replay::start(&scene.desk, &["full.jsonl", "--no-rate-limits", "--faults", "faults.toml"]);
    configure(&scene.desk, scene.provider, &replay.base, "", "");
    let mut recorder = Recorder::start(&scene.desk, &[]);
    let rests = recorder.event("fill_rests");
    assert_eq!(rests["source"], "twitterapi_io");
    assert!(rests["why"].as_str().unwrap().contains("402") && rests["until"].is_string(), "{rests}");
    for _ in 0..3 {
        recorder.until(|event| event["event"] == "commit" && event["frames"].as_u64().unwrap() > 0);
    }
    let n_rests = recorder.seen.iter().filter(|event| event["event"] == "fill_rests").count();
    assert_eq!(n_rests, 1, "said once");
    let (code, _) = recorder.signal("-INT");
    assert_eq!(code, Some(3));
    let gap = &gaps(&scene.desk)[0];
    assert_eq!(gap["state"], "open");
    let shown = scene.desk.run(&["gaps", "show", gap["id"].as_str().unwrap(), "--json"]).expect(0).json();
    assert_eq!(shown["spent"]["requests"], 1, "a request that is refused counts: {shown}");
}

#[test]
fn a_page_that_is_no_json_is_asked_for_again_and_counts() {
    let scene = Scene::new(Provider::Tweetstream);
    scene.desk.write("faults.toml", b"[[fault]]\ndo = \"not_json\"\nrequest = 2\n");
    let history = scene.history(&["--faults", "faults.toml"]);
    configure(&scene.desk, scene.provider, &history.base, "", "");
    let mut recorder = Recorder::start(&scene.desk, &[]);
    recorder.event("fill_waits");
    let ended = recorder.event("fill_ended");
    assert_eq!(ended["state"], "filled", "{ended}");
    let pages = recorder.seen.iter().filter(|event| event["event"] == "fill_page").count() as u64;
    assert_eq!(ended["requests"], pages + 1);
    recorder.signal("-INT");
    assert_eq!(scene.still_missing(), Vec::<i64>::new());
    scene.desk.run(&["verify"]).expect(0);
}

/// A machine that is some days ahead.
struct Ahead(AtomicI64);

impl Clock for Ahead {
    fn wall(&self) -> UnixMicros {
        UnixMicros(SystemClock::new().wall().0 + self.0.load(Ordering::Relaxed) * 86_400_000_000)
    }

    fn boot(&self) -> BootReading {
        SystemClock::new().boot()
    }
}

#[test]
fn a_days_budget_ends_in_the_ledger_and_the_next_day_goes_on() {
    let scene = Scene::new(Provider::Tweetstream);
    let history = scene.history(&[]);
    let first = scene.backfill(&history.base, &["--max-requests-per-day", "2"]).expect(3);
    assert!(first.text().contains("today's budget of 2 requests is used up; the next day (UTC) goes on"), "{}", first.text());
    let shown = || scene.desk.run(&["gaps", "show", gaps(&scene.desk)[0]["id"].as_str().unwrap(), "--json"]).expect(0).json();
    let steps = shown()["steps"].as_array().unwrap().clone();
    let last = steps.last().unwrap();
    assert_eq!(last["state"], "planned");
    assert!(last["detail"].as_str().unwrap().contains("today's budget of 2 requests"), "{last}");
    // On the same day nothing is asked, and nothing new is written.
    scene.backfill(&history.base, &["--max-requests-per-day", "2"]).expect(3);
    assert_eq!((shown()["steps"].as_array().unwrap().len(), &shown()["spent"]["requests"]), (steps.len(), &2.into()));
    let dry = scene.backfill(&history.base, &["--dry-run", "--max-requests-per-day", "5"]).expect(3);
    let total: Value = serde_json::from_str(dry.text().lines().last().unwrap()).unwrap();
    assert_eq!(total["sources"][0]["left_today"]["requests"], 3, "{total}");
    assert!(total["total"]["items_estimate"].as_u64().unwrap() > 50, "{total}");

    let flags = ProviderFlags { base_url: Some(history.base.clone()), ..ProviderFlags::default() };
    let config = Config::for_provider(scene.provider, &flags, &|_| None).unwrap();
    let network = Arc::new(SystemNetwork::new(TlsOptions::default()).unwrap());
    let (name, settings) = (config.sources[0].name.clone(), config.sources[0].settings.clone());
    let day = Budget { requests: Some(1), ..Budget::default() };
    let options = backfill::Options {
        tape: scene.desk.path("tape"),
        archive: Options::default(),
        sources: vec![backfill::Source { name, settings, network, look_twice: false }],
        gaps: Vec::new(),
        budgets: Budgets { day, ..Budgets::default() },
        pace: None,
        holder: "a test".to_owned(),
    };
    let clock = Arc::new(Ahead(AtomicI64::new(0)));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut days = 0;
    loop {
        days += 1;
        clock.0.store(days, Ordering::Relaxed);
        let (clock, disk) = (Arc::clone(&clock) as Arc<dyn Clock>, Arc::new(RealDisk));
        let mut tell = |_| {};
        let run = backfill::run(options.clone(), clock, disk, &mut tell, std::future::pending());
        let outcome = runtime.block_on(run).unwrap();
        assert!(outcome.gaps[0].requests <= 1, "{outcome:?}");
        if outcome.still_open == 0 {
            break;
        }
        assert!(outcome.stopped && days < 10, "{outcome:?}");
    }
    assert!(days > 1);
    assert_eq!(scene.still_missing(), Vec::<i64>::new());
    assert_eq!(asked_again(&scene.desk), BTreeMap::new());
}

#[test]
fn a_budget_of_money_or_items_is_not_overrun_by_more_than_a_page() {
    let scene = Scene::new(Provider::TwitterapiIo);
    let history = scene.history(&[]);
    // A page of twenty posts costs 0.003 USD, and an empty one 0.00015.
    let run = scene.backfill(&history.base, &["--max-usd", "0.0001"]).expect(3);
    assert!(
        run.text().contains("the next page costs at least 0.0001 USD") || run.text().contains("is used up"),
        "{}",
        run.text()
    );
    let spent = |run: &crate::program::Run| {
        let mut events = run.text().lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        events.find(|event| event["event"] == "ended").unwrap()
    };
    assert_eq!(spent(&run)["usd"], 0.0, "no page that costs was asked for");
    let items = scene.backfill(&history.base, &["--max-items", "30"]).expect(3);
    let rows = spent(&items)["rows"].as_u64().unwrap();
    assert!((30..=50).contains(&rows), "{rows} rows");
}

/// A tape of one source whose last record came so many seconds after the present, with a gap that ended then.
fn tape_of(desk: &Desk, seconds: i64) {
    let name = SourceName::from(Provider::Tweetstream);
    let at = UnixMicros(SystemClock::new().wall().0 + seconds * 1_000_000);
    let mut archive =
        Archive::open(&desk.path("tape"), Arc::new(RealDisk), Options::default(), decode_record, "a test", at).unwrap();
    let horizon = std::time::Duration::from_secs(60);
    archive.add_source(&name, Provider::Tweetstream).unwrap();
    archive.live(&name, "*", horizon, at, "a frame").unwrap();
    archive.lost(&name, at, Lost { scope: "*", cause: Cause::ConnectionLost, detail: "the cable was out" }).unwrap();
    archive.live(&name, "*", horizon, at, "a frame").unwrap();
    let body = Body::Bytes(bytes::Bytes::from_static(b"{}"));
    let draft = Draft { received_at: at, kind: RecordKind::Frame, via: Via::Ws, conn: ConnId(1), info: None, body };
    archive.append(&name, &draft, None).unwrap();
    archive.close(at).unwrap();
}

#[test]
fn what_cannot_be_planned_is_refused_in_clear_words() {
    let base = ["backfill", "--provider", "tweetstream", "--base-url", "http://127.0.0.1:9"];
    let desk = Desk::new();
    tape_of(&desk, -10);
    let id = gaps(&desk)[0]["id"].as_str().unwrap().to_owned();
    desk.run(&[&base[..], &[&id]].concat()).fails(1, &["in the future of this machine's clock", "hint: set the clock right"]);
    desk.run(&[&base[..], &["tweetstream-77"]].concat()).fails(1, &["there is no gap tweetstream-77", "hint: "]);
    for flag in ["--max-requests-per-day", "--max-items-per-day", "--max-usd-per-day", "--max-usd", "--max-items"] {
        desk.run(&[&base[..], &[flag, "0"]].concat()).fails(2, &["a budget of 0 ", "hint: "]);
        desk.run(&[&base[..], &[flag, "-1"]].concat()).fails(2, &["invalid value '-1' for", "wanted"]);
    }
    // The gap is of another source than the one that is asked.
    let other = ["backfill", "--provider", "scrapebadger", "--base-url", "http://127.0.0.1:9"];
    let words = "left out: 1 gap of tweetstream: that source is not among those that are asked";
    desk.run(&[&other[..], &["--dry-run"]].concat()).fails(0, &[words]);
    desk.run(&[&other[..], &[&id]].concat()).fails(1, &["belongs to source tweetstream, which is not among", "hint: name it"]);
    // When it is tried is told by the delay that is configured.
    let again = || {
        let shown = desk.run(&["--json", "gaps", "show", &id]).expect(0).json();
        let status = desk.run(&["--json", "status"]).expect(0).json();
        assert_eq!(shown["tried_again_at"], status["sources"][0]["open_gaps"][0]["tried_again_at"]);
        UnixMicros::parse_rfc3339(shown["tried_again_at"].as_str().unwrap()).unwrap()
    };
    let usual = again();
    desk.write("birdtape.toml", b"[backfill]\nindex_delay = \"1h\"\n");
    assert_eq!(again(), usual.plus(std::time::Duration::from_secs(3_600 - 60)));
    std::fs::remove_file(desk.path("birdtape.toml")).unwrap();
    let record = ["record", "--provider", "tweetstream", "--base-url", "http://127.0.0.1:9", "--max-usd-per-day", "0"];
    desk.run(&record).fails(2, &["a budget of 0 a day fills nothing", "hint: leave it out, or say --no-backfill"]);
    let desk = Desk::new();
    tape_of(&desk, 3_600);
    for more in [&[][..], &["--dry-run"]] {
        let words = ["this machine's clock says", "source tweetstream was last recorded at", "hint: set the clock right"];
        desk.run(&[&base[..], more].concat()).fails(1, &words);
    }
    for (key, value) in
        [("max_requests_per_day", "0"), ("max_usd_per_day", "0.0"), ("max_usd_per_day", "-1"), ("pace", "\"soon\"")]
    {
        let text = format!(
            "[backfill]\n{key} = {value}\n[source.tweetstream]\nprovider = \"tweetstream\"\nbase_url = \"http://127.0.0.1:9\"\n"
        );
        desk.write("birdtape.toml", text.as_bytes());
        desk.run(&["backfill"]).fails(2, &["birdtape.toml line 2, [backfill]: `", key]);
    }
}

#[test]
fn a_tape_is_read_while_it_is_filled() {
    let scene = Scene::new(Provider::Tweetstream);
    let history = scene.history(&[]);
    configure(&scene.desk, scene.provider, &history.base, "", "pace = \"1s\"");
    let mut recorder = Recorder::start(&scene.desk, &[]);
    recorder.event("fill_page");
    let status = scene.desk.run(&["status"]).expect(0);
    assert!(status.text().contains("on filling gaps today (UTC)") && status.text().contains("rows so far"), "{}", status.text());
    let tape = Tape::open(&scene.desk.path("tape"), Arc::new(RealDisk)).unwrap();
    assert!(tape.catalog().spent_since(Some("tweetstream"), 0).unwrap().0 > 0);
    recorder.signal("-INT");
}
