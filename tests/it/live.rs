//! Recording, as a script or a person meets it: exit codes, events, what bad peers and bad settings come to.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::program::{Desk, FIXTURE, finished};
use crate::server::{Replay, events};

const SOURCES: [&str; 4] = ["scrapebadger", "tweetstream", "twitterapi_io", "x_live"];

/// Every value of that event on a run's stdout.
fn of_kind(text: &str, event: &str) -> Vec<Value> {
    let all = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    all.filter(|value| value["event"] == event).collect()
}

#[test]
fn a_recording_tells_scripts_what_is_safe() {
    let desk = Desk::new();
    let replay = Replay::start(&desk, &[FIXTURE, "--speed", "max"]);
    let mut args = vec!["--json", "record", "--base-url", &replay.base, "--until-idle", "1.5"];
    SOURCES.iter().for_each(|source| args.extend(["--provider", source]));
    let run = desk.run(&args).expect(0);
    assert!(run.err.contains("recording twitterapi_io, tweetstream, scrapebadger, x_live to ./tape"), "{}", run.err);

    let started = of_kind(run.text(), "started");
    assert_eq!(started.len(), 1);
    let done = of_kind(run.text(), "done");
    assert_eq!((done.len(), &done[0]["exit"]), (1, &0.into()));
    assert!(run.text().lines().last().unwrap().contains("\"event\":\"done\""));
    let frames: u64 = done[0]["sources"].as_array().unwrap().iter().map(|s| s["frames"].as_u64().unwrap()).sum();
    assert!((400..=404).contains(&frames), "X may say its config twice: {frames}");

    let status = desk.run(&["status", "--json"]).expect(0).json();
    assert_eq!(status["id"], started[0]["tape"]);
    let commits = of_kind(run.text(), "commit");
    for source in status["sources"].as_array().unwrap() {
        let of_it = commits.iter().filter(|commit| commit["source"] == source["source"]);
        let mut last = 0;
        for commit in of_it {
            let (n, hash) = (commit["n"].as_u64().unwrap(), commit["hash"].as_str().unwrap());
            assert!(n > last && hash.len() == 16 && u64::from_str_radix(hash, 16).is_ok(), "{commit}");
            last = n;
        }
        assert!(last > 0 && last <= source["records"].as_u64().unwrap());
    }
    desk.run(&["verify"]).expect(0);
    assert_eq!(desk.run(&["gaps"]).expect(0).text(), "no gaps\n");

    // Starting again, the time between is a gap.
    let again = desk.run(&args).expect(3);
    let done = of_kind(again.text(), "done");
    let gaps: Vec<_> = done[0]["sources"].as_array().unwrap().iter().map(|s| s["open_gaps"][0]["cause"].clone()).collect();
    assert_eq!(gaps, ["stopped"; 4], "{}", again.text());
    assert_eq!(desk.run(&["gaps", "--open", "--json"]).expect(0).text().lines().count(), 4);
}

#[test]
fn a_host_that_cannot_be_reached_is_a_gap() {
    let desk = Desk::new();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let base = format!("http://127.0.0.1:{port}");
    let run = desk.run(&["record", "--provider", "tweetstream", "--base-url", &base, "--for", "1"]).expect(3);
    assert!(run.err.contains(&format!("127.0.0.1:{port}")), "{}", run.err);
    let gap = desk.run(&["gaps", "--open", "--json"]).expect(0).json();
    assert_eq!((&gap["cause"], &gap["source"]), (&"unreachable".into(), &"tweetstream".into()));
    desk.run(&["verify"]).expect(0);
}

#[test]
fn a_wrong_key_ends_the_recording_and_names_its_place() {
    let desk = Desk::new();
    let replay = Replay::start(&desk, &[FIXTURE, "--key", "the-right-one"]);
    for (provider, variable, code) in [
        ("twitterapi_io", "TWITTERAPI_IO_API_KEY", "401"),
        ("tweetstream", "TWEETSTREAM_API_KEY", "401"),
        ("scrapebadger", "SCRAPEBADGER_API_KEY", "4001"),
    ] {
        let args = ["--json", "--tape", provider, "record", "--provider", provider, "--base-url", &replay.base, "--for", "20"];
        let run = finished(desk.command(args).env(variable, "pl4nted-wrong-7c1e")).expect(1);
        assert!(run.err.contains(code) && run.err.contains(variable), "{provider}: {}", run.err);
        let done = of_kind(run.text(), "done");
        assert_eq!((&done[0]["exit"], &done[0]["sources"][0]["fault"]), (&1.into(), &"credentials".into()));
        assert!(!run.err.contains("pl4nted") && !run.text().contains("pl4nted"), "{}\n{}", run.err, run.text());
        let gap = desk.run(&["--tape", provider, "gaps", "--json"]).expect(0).json();
        assert_eq!(gap["cause"], "auth");
        for file in crate::program::files_below(&desk.path(provider)) {
            let bytes = std::fs::read(&file).unwrap();
            let bytes = if file.to_string_lossy().ends_with(".zst") { zstd::decode_all(&bytes[..]).unwrap() } else { bytes };
            assert!(!bytes.windows(7).any(|part| part == b"pl4nted"), "{}", file.display());
        }
    }
}

#[test]
fn a_recording_that_cannot_work_is_refused_at_once() {
    let desk = Desk::new();
    desk.run(&["record"]).fails(2, &["configuration file birdtape.toml does not exist", "hint: `birdtape init`"]);
    desk.run(&["init"]).expect(0);
    desk.run(&["record"]).fails(2, &["configures no source to record", "hint: "]);
    let key = ["source `tweetstream` has no key: environment variable TWEETSTREAM_API_KEY", "hint: `export "];
    desk.run(&["record", "--provider", "tweetstream"]).fails(2, &key);
    desk.run(&["record", "--provider", "twitter"]).fails(2, &["unknown provider `twitter`"]);
    desk.run(&["record", "--provider", "tweetstream", "--topic", "/x"]).fails(2, &["--topic goes with --provider x_live"]);
    desk.run(&["record", "--provider", "tweetstream", "--base-url", "ftp://x"]).fails(2, &["ftp://x"]);
    desk.run(&["record", "--for", "soon"]).fails(2, &["a length of time is written in seconds"]);
    desk.run(&["record", "--base-url", "http://127.0.0.1:9"]).fails(2, &["--provider"]);
    desk.run(&["record", "--key", "x"]).fails(2, &["--key"]);
    desk.write("birdtape.toml", b"[source.a]\nprovider = \"tweetstraem\"\n");
    desk.run(&["record"]).fails(2, &["birdtape.toml line 2, [source.a]: unknown provider `tweetstraem`", "hint: did you mean"]);
    desk.write("birdtape.toml", b"[source.a]\nprovider = \"tweetstream\"\nreconect = true\n");
    desk.run(&["record"])
        .fails(2, &["birdtape.toml line 3, [source.a]: unknown key `reconect`", "hint: did you mean `reconnect`?"]);
    assert!(!desk.path("tape").exists(), "what cannot work makes no tape");
}

#[test]
fn a_place_that_is_no_tape_is_refused() {
    let desk = Desk::new();
    desk.write("file", b"x");
    let record = ["record", "--provider", "tweetstream", "--base-url", "http://127.0.0.1:9", "--for", "5"];
    desk.run(&[&["--tape", "."], &record[..]].concat()).fails(1, &[". is not a tape", "other files such as `file`", "hint: "]);
    for place in ["file", "/proc/birdtape"] {
        let run = desk.run(&[&["--tape", place], &record[..]].concat()).expect(1);
        assert!(run.err.starts_with("error: ") && run.err.contains(place), "{}", run.err);
    }
    let newer = Desk::with_fixture();
    let info = std::fs::read_to_string(newer.path("tape/tape.json")).unwrap();
    newer.write("tape/tape.json", info.replace("\"format\":1", "\"format\":2").as_bytes());
    newer.run(&record).fails(1, &["has format 2", "hint: use a newer birdtape"]);
    newer.run(&["replay"]).fails(1, &["has format 2", "hint: use a newer birdtape"]);
}

/// A recorder as a child that has said it is ready.
struct Recorder {
    child: Child,
}

impl Recorder {
    /// Starts it and waits until all of it is connected.
    fn start(command: &mut Command, connections: usize) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let connected = events(child.stdout.take().unwrap()).filter(|event| event["event"] == "connected");
        assert_eq!(connected.take(connections).count(), connections);
        Self { child }
    }

    /// Asks it to end and gives its exit code with what it said on stderr.
    fn stop(mut self, signal: &str) -> (Option<i32>, String) {
        let killed = Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(killed.success());
        let said: Vec<String> = BufReader::new(self.child.stderr.take().unwrap()).lines().map_while(Result::ok).collect();
        (self.child.wait().unwrap().code(), said.join("\n"))
    }
}

#[test]
fn a_second_recorder_is_refused_and_the_first_ends_on_a_signal() {
    let desk = Desk::new();
    let replay = Replay::start(&desk, &[FIXTURE]);
    let record = ["--json", "record", "--provider", "tweetstream", "--base-url", &replay.base];
    for signal in ["-INT", "-TERM"] {
        let tape = format!("tape{signal}");
        let mut command = desk.command(["--tape", &tape].iter().chain(&record));
        let first = Recorder::start(&mut command, 1);
        let words = ["is being written by another process (birdtape record, process ", "hint: wait until it is done or stop it"];
        desk.run(&[&["--tape", &tape], &record[..]].concat()).fails(1, &words);
        let status = desk.run(&["--tape", &tape, "status", "--json"]).expect(0).json();
        assert_eq!(status["recording"], true);
        // Nobody reads its stdout any more; that must not end it before the signal does.
        let (code, said) = first.stop(signal);
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains("ended: shutdown was asked for"), "{said}");
        desk.run(&["--tape", &tape, "verify"]).expect(0);
    }
}

#[test]
fn topics_change_while_it_records() {
    let desk = Desk::new();
    let topics = ["topics", "add", "/tweet_engagement/1727346512345678901"];
    desk.run(&topics).fails(1, &["no recorder is running on tape ./tape", "hint: start `birdtape record` first"]);
    let replay = Replay::start(&desk, &[FIXTURE]);
    let args = ["--json", "record", "--provider", "x_live", "--base-url", &replay.base];
    let recorder = Recorder::start(&mut desk.command(args), 1);
    let run = desk.run(&topics).expect(0);
    assert!(run.err.contains("1 topic given to x_live to subscribe"), "{}", run.err);
    let remove = ["topics", "remove", "/tweet_engagement/1727346512345678901", "--json"];
    assert_eq!(desk.run(&remove).expect(0).json()["sources"], serde_json::json!(["x_live"]));
    desk.run(&["topics", "add", "/tweet_engagement/1", "--source", "nobody"]).fails(1, &["nobody"]);
    recorder.stop("-INT");
    desk.run(&["verify"]).expect(0);
}

#[test]
fn without_reconnecting_a_drop_ends_it_with_known_loss() {
    let desk = Desk::new();
    let args = [FIXTURE, "--speed", "max", "--exit-when-done", "--linger", "0"];
    let replay = Replay::start(&desk, &args);
    let args = ["--json", "record", "--provider", "tweetstream", "--base-url", &replay.base, "--no-reconnect"];
    let run = desk.run(&args).expect(3);
    let done = of_kind(run.text(), "done");
    assert_eq!((&done[0]["sources"][0]["fault"], &done[0]["exit"]), (&"dropped".into(), &3.into()));
}

#[test]
fn a_replay_ends_by_itself_and_says_what_it_played() {
    let desk = Desk::new();
    let mut command = desk.command(["--json", "replay", FIXTURE, "--speed", "max", "--exit-when-done", "--linger", "0.2"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let ready: Value = serde_json::from_str(&lines.next().unwrap()).unwrap();
    for source in SOURCES {
        assert!(ready[source]["ws"].is_string() && ready[source]["rest"].is_string(), "{ready}");
    }
    let base = ready["base"].as_str().unwrap();
    desk.run(&["record", "--provider", "tweetstream", "--base-url", base, "--until-idle", "1"]).expect(3);
    let done: Value = serde_json::from_str(&lines.next().unwrap()).unwrap();
    assert_eq!((&done["event"], &done["ended"]), (&"done".into(), &"done".into()));
    let played = done["providers"].as_array().unwrap().iter().find(|p| p["provider"] == "tweetstream").unwrap();
    assert_eq!(played["played"], 114);
    assert_eq!(child.wait().unwrap().code(), Some(0));

    desk.run(&["replay", "nowhere"]).fails(1, &["cannot open nowhere"]);
    desk.run(&["replay", FIXTURE, "--listen", "0.0.0.0:0"]).fails(1, &["so the replay needs a key", "hint: "]);
    desk.run(&["replay", FIXTURE, "--speed", "-1"]).fails(2, &["a speed is a number above 0, or max"]);
    desk.run(&["replay", "--seed", "7"]).fails(2, &["--synthetic"]);
}
