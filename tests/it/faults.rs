//! Fault scripts from the command line: what a script or a person meets.

use std::process::Stdio;

use serde_json::Value;

use crate::program::{Desk, FIXTURE, Run, finished};

const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/faults/");

/// Plays the fixture under a script to one recorder of TweetStream, until everything was played.
fn play_to_a_recorder(desk: &Desk, script: &str) -> (Run, Value) {
    let args = ["--json", "replay", FIXTURE, "--speed", "max", "--exit-when-done", "--linger", "0", "--faults", script];
    let mut replay = desk.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut ready = String::new();
    let mut out = std::io::BufReader::new(replay.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut out, &mut ready).unwrap();
    let ready: Value = serde_json::from_str(&ready).unwrap();
    let base = ready["base"].as_str().unwrap();
    finished(&mut desk.command(["record", "--provider", "tweetstream", "--base-url", base, "--until-idle", "1.5"]));
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut out, &mut rest).unwrap();
    let output = replay.wait_with_output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    let done = serde_json::from_str(rest.lines().last().unwrap()).unwrap();
    (Run { code: output.status.code().unwrap(), out: rest.into_bytes(), err }, done)
}

#[test]
fn a_fault_that_never_fires_fails_the_run() {
    let desk = Desk::new();
    let script = "[[fault]]\nname = \"twice\"\ndo = \"duplicate\"\nmessages = 3\n\n[[fault]]\nname = \"second try\"\ndo = \"reset\"\nattempt = 99\n";
    desk.write("faults.toml", script.as_bytes());
    let (run, done) = play_to_a_recorder(&desk, "faults.toml");
    let run = run.expect(1);
    assert!(run.err.contains("fault twice (duplicate): fired 1, expected 1\n"), "{}", run.err);
    assert!(run.err.contains("fault second try (reset): fired 0, expected 1 - it never fired\n"), "{}", run.err);
    let want = serde_json::json!([
        { "name": "twice", "do": "duplicate", "fired": 1, "expected": 1, "missed": false },
        { "name": "second try", "do": "reset", "fired": 0, "expected": 1, "missed": true },
    ]);
    assert_eq!(done["faults"], want);
}

#[test]
fn a_run_whose_faults_all_fired_is_done() {
    let desk = Desk::new();
    desk.write("faults.toml", b"[[fault]]\nname = \"twice\"\ndo = \"duplicate\"\nmessages = 3\n");
    let (run, done) = play_to_a_recorder(&desk, "faults.toml");
    run.expect(0);
    assert_eq!(done["faults"][0]["fired"], 1);
}

#[test]
fn bad_scripts_are_told_before_anything_is_played() {
    let desk = Desk::new();
    desk.write("unknown.toml", b"[[fault]]\nname = \"boom\"\ndo = \"explode\"\n");
    let words = ["unknown.toml, fault `boom`: there is no fault `explode`", "hint: known are on a connection: close, reset"];
    desk.run(&["replay", FIXTURE, "--faults", "unknown.toml"]).fails(2, &words);
    desk.run(&["replay", FIXTURE, "--faults", "nowhere.toml"]).fails(2, &["nowhere.toml: cannot be read", "hint: "]);
    desk.write("late.toml", b"[[fault]]\nname = \"late\"\ndo = \"reset\"\nafter = \"900h\"\n");
    let words = ["late.toml, fault `late`: begins at", "after the last envelope of", "hint: begin earlier"];
    desk.run(&["replay", FIXTURE, "--faults", "late.toml"]).fails(2, &words);
}

#[test]
fn ready_scripts_are_accepted() {
    let desk = Desk::new();
    for entry in std::fs::read_dir(SCRIPTS).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let mut child =
            desk.command(["replay", FIXTURE, "--faults", path.to_str().unwrap()]).stdout(Stdio::piped()).spawn().unwrap();
        let mut ready = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut ready).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(ready.starts_with("{\"base\":"), "{}: {ready}", path.display());
    }
}

/// What a tape tells of its connection: how each ended at the provider's hand, and what refused it.
fn troubles(desk: &Desk, tape: &str) -> Vec<Value> {
    let cat = desk.run(&["--tape", tape, "cat", "--kind", "close", "--kind", "http"]).expect(0);
    let records = cat.text().lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    records
        .filter_map(|record| {
            let (body, info) = (&record["raw"], &record["info"]);
            match record["kind"].as_str().unwrap() {
                "close" if body["by"] == "peer" => Some(serde_json::json!([body["code"], body["reason"]])),
                // Not the lists of what selects, which were answered.
                "http" if info["status"] != 200 => {
                    Some(serde_json::json!([info["status"], info["headers"]["retry-after"], body]))
                }
                _ => None,
            }
        })
        .collect()
}

#[test]
fn what_a_recorder_met_is_met_again() {
    let desk = Desk::new();
    let script = "[[fault]]\ndo = \"close\"\ncode = 1012\nreason = \"service restart\"\nmessages = 30\n\n\
        [[fault]]\ndo = \"refuse\"\nstatus = 429\nretry_after = 1\nattempt = 2\n";
    desk.write("faults.toml", script.as_bytes());
    let record = |tape: &str, args: &[&str]| {
        let replay = crate::server::Replay::start(&desk, &[args, &["--exit-when-done"]].concat());
        let config = format!(
            "[source.tweetstream]\nprovider = \"tweetstream\"\nbase_url = \"{}\"\nreconnect_floor = \"20ms\"\nreconnect_cap = \"100ms\"\n",
            replay.base
        );
        desk.write("birdtape.toml", config.as_bytes());
        let args = ["--tape", tape, "record", "--until-idle", "2"];
        finished(desk.command(args).env("TWEETSTREAM_API_KEY", "replay")).expect(3);
        let raw = desk.run(&["--tape", tape, "cat", "--raw"]).expect(0);
        (troubles(&desk, tape), raw.out)
    };
    // Seven seconds in three; what is played during the outage reaches nobody.
    let (met, bytes) = record("first", &[FIXTURE, "--faults", "faults.toml", "--speed", "2.5"]);
    assert_eq!(met[0], serde_json::json!([1012, "service restart"]), "{met:?}");
    assert_eq!((&met[1][0], &met[1][1]), (&429.into(), &"1".into()), "{met:?}");
    let n = bytes.iter().filter(|byte| **byte == b'\n').count();
    assert!((30..114).contains(&n), "{n} envelopes, some of them behind the outage");

    let (again, bytes_again) = record("second", &["first", "--as-happened", "--speed", "max"]);
    assert_eq!(again[..2], met[..2]);
    assert!(bytes_again == bytes, "the same envelopes around it");
}
