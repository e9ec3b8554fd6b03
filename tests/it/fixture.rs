//! Excerpts: cut out of a tape, redacted, played, and shrunk to what a command needs to fail.

use std::collections::BTreeSet;

use birdtape::model::{EventId, EventKind, Provider, TweetId};
use birdtape::provider::{decode, recognise};
use serde_json::Value;

use crate::program::{Desk, FIXTURE};
use crate::server::{Replay, have};

fn lines(bytes: &[u8]) -> Vec<&[u8]> {
    bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty()).collect()
}

fn all_lines() -> Vec<Vec<u8>> {
    lines(&std::fs::read(FIXTURE).unwrap()).into_iter().map(<[u8]>::to_vec).collect()
}

/// A post that TweetStream brought and that has an event of this kind later: id, place of the post, place of the event.
fn post_with(kind: EventKind) -> (TweetId, usize, usize) {
    let all = all_lines();
    let events = |place: usize| {
        let provider = recognise(&all[place]).unwrap();
        if provider == Provider::Tweetstream { decode(provider, &all[place]).events } else { Vec::new() }
    };
    for later in 0..all.len() {
        for event in events(later).into_iter().filter(|event| event.kind == kind) {
            let EventId::Tweet(id) = event.id else { continue };
            let is_post = |place: &usize| events(*place).iter().any(|e| e.kind == EventKind::Tweet && e.id == event.id);
            if let Some(post) = (0..later).find(is_post) {
                return (id, post, later);
            }
        }
    }
    panic!("no post with {kind:?}");
}

#[test]
fn around_a_post_with_all_it_needs() {
    let desk = Desk::with_fixture();
    let all = all_lines();
    let (id, post, meta) = post_with(EventKind::Meta);
    let args = ["fixture", "cut", "--json", "--around", &id.to_string(), "--before", "3", "--after", "4", "--out", "bug.jsonl"];
    let report = desk.run(&args).expect(0).json();
    let text = std::fs::read(desk.path("bug.jsonl")).unwrap();
    let cut = lines(&text);
    assert_eq!(report["envelopes"], cut.len());
    assert!(cut.contains(&&*all[post]) && cut.contains(&&*all[meta]), "the post and its meta");
    assert!(cut.len() <= 20, "{report}");
    let config = |line: &&&[u8]| line.starts_with(br#"{"topic":"/system/config""#);
    let of_x = cut.iter().filter(|line| recognise(line) == Some(Provider::XLive)).count();
    assert!(of_x == 0 || cut.iter().filter(config).count() == 1, "X's envelopes come with their config");
    assert!(cut.iter().all(|line| all.iter().any(|whole| whole == line)), "byte for byte");

    // A sample of all is all of those that carry events, in order.
    let stream: Vec<usize> = (0..all.len()).filter(|at| recognise(&all[*at]) == Some(Provider::Tweetstream)).collect();
    let packed = ["fixture", "cut", "--json", "--sample", "400", "--source", "tweetstream", "--out", "all.jsonl.zst"];
    let report = desk.run(&packed).expect(0).json();
    assert_eq!(report["envelopes"], stream.len());
    let text = zstd::decode_all(&std::fs::read(desk.path("all.jsonl.zst")).unwrap()[..]).unwrap();
    assert!(lines(&text) == stream.iter().map(|at| &*all[*at]).collect::<Vec<_>>(), "other lines, or in another order");
}

#[test]
fn a_delete_brings_the_post() {
    let desk = Desk::new();
    let post = r#"{"v":1,"t":"tweet","op":"content","id":"2102038470875676672","ts":1790000000323,"d":{"tweetId":"2102038470875676672","text":"x","createdAt":1790000000100,"author":{}}}"#;
    let delete = r#"{"v":1,"t":"tweet","op":"delete","id":"2102038470875676672","ts":1790000060000,"d":{"tweetId":"2102038470875676672"}}"#;
    let config =
        r#"{"topic":"/system/config","payload":{"config":{"session_id":"s","subscription_ttl_millis":1,"heartbeat_millis":1}}}"#;
    let other = r#"{"topic":"/tweet_engagement/2102038470875676672","payload":{"tweet_engagement":{"like_count":"7"}}}"#;
    desk.write("lines", [config, post, delete, other].join("\n").as_bytes());
    desk.run(&["import", "--provider", "auto", "lines"]).expect(0);
    let report =
        desk.run(&["fixture", "cut", "--json", "--from", "2026-09-21T14:14:00Z", "--out", "late.jsonl"]).expect(0).json();
    assert_eq!((&report["envelopes"], &report["companions"]), (&4.into(), &2.into()));
    let text = std::fs::read_to_string(desk.path("late.jsonl")).unwrap();
    assert_eq!(text.lines().collect::<BTreeSet<_>>(), [config, post, delete, other].into());
    let run = desk.run(&["fixture", "cut", "--from", "-1000000h", "--source", "x_live", "--out", "x.jsonl"]).expect(0);
    assert!(run.err.contains("X stamps nothing"), "{}", run.err);
}

#[test]
fn what_was_cut_can_be_played() {
    let desk = Desk::with_fixture();
    let (id, ..) = post_with(EventKind::Meta);
    let id = id.to_string();
    let around = ["fixture", "cut", "--around", &id, "--span", "4s"];
    for (out, form) in [("part.jsonl", "lines"), ("part", "tape")] {
        let mut args = around.to_vec();
        args.extend(["--json", "--out", out]);
        let report = desk.run(&args).expect(0).json();
        assert_eq!(report["form"], form);
        let sources = report["sources"].as_array().unwrap();
        assert_eq!(sources.len(), 4, "{report}");
        let replay = Replay::start(&desk, &[out, "--speed", "max"]);
        let kept = format!("kept-{form}");
        let mut record = vec!["record", "--tape", &kept, "--base-url", &replay.base, "--until-idle", "2"];
        Provider::ALL.iter().for_each(|p| record.extend(["--provider", p.name()]));
        desk.run(&record).expect(0);
        for source in sources {
            let name = source["source"].as_str().unwrap();
            let cat = desk.run(&["cat", "--tape", &kept, "--raw", "--source", name]).expect(0);
            assert_eq!(lines(&cat.out).len() as u64, source["envelopes"].as_u64().unwrap(), "{form} {name}");
        }
    }
    desk.run(&["verify", "--tape", "part"]).expect(0);
    let stamp = |tape: &str| {
        let run = desk.run(&["get", "--tape", tape, "--json", &id]).expect(0);
        let first: Value = serde_json::from_str(run.text().lines().next().unwrap()).unwrap();
        first["at"].clone()
    };
    assert_eq!(stamp("part"), stamp("tape"), "a tape keeps received_at");
}

#[test]
fn redacted_nothing_of_anybody_is_left() {
    let desk = Desk::with_fixture();
    let cut = |out: &str, more: &[&str]| {
        let mut args = vec!["fixture", "cut", "--from", "2026-01-01", "--redact", "all", "--out", out];
        args.extend(more);
        desk.run(&args).expect(0);
        std::fs::read_to_string(desk.path(out)).unwrap()
    };
    desk.write("secret", b"a key for this test\n");
    let with_key = |out: &str| cut(out, &["--redact-key", "secret"]);
    let text = with_key("a.jsonl");
    assert_eq!(text.lines().count(), 400);
    assert!(text == with_key("b.jsonl") && text != cut("c.jsonl", &[]), "one key, one outcome");
    let low = text.to_lowercase();
    let mut n_checked = 0;
    let handles = ["userName", "screen_name", "handle", "username", "author_username"];
    for line in all_lines() {
        let mut values = vec![serde_json::from_slice::<Value>(&line).unwrap()];
        while let Some(value) = values.pop() {
            match value {
                Value::Object(fields) => {
                    for (key, value) in fields {
                        if let (true, Some(handle)) = (handles.contains(&&*key), value.as_str()) {
                            let handle = handle.trim_start_matches('@').to_lowercase();
                            assert!(!low.contains(&handle), "{handle} is left");
                            n_checked += 1;
                        }
                        if let ("text" | "bio", Some(words)) = (&*key, value.as_str()) {
                            assert!(words.chars().count() < 6 || !text.contains(words), "{words} is left");
                        }
                        values.push(value);
                    }
                }
                Value::Array(items) => values.extend(items),
                _ => {}
            }
        }
    }
    assert!(n_checked > 300);
    desk.run(&["--tape", "again", "import", "--provider", "auto", "a.jsonl"]).expect(0);
    let run = desk.run(&["fixture", "cut", "--from", "2026-01-01", "--redact", "names,faces", "--out", "d.jsonl"]);
    run.fails(2, &["`faces` cannot be redacted", "handles, names"]);
    desk.write("empty", b" \n");
    let args = ["fixture", "cut", "--from", "2026-01-01", "--redact", "all", "--redact-key", "empty", "--out", "d.jsonl"];
    desk.run(&args).fails(2, &["the key in empty is empty"]);
}

#[test]
fn mistakes_are_named_and_leave_nothing() {
    let desk = Desk::with_fixture();
    let cut = |args: &[&str]| desk.run(&[&["fixture", "cut"], args].concat());
    cut(&["--around", "1727346512345678901", "--out", "x.jsonl"]).fails(1, &["about post 1727346512345678901", "hint: "]);
    cut(&["--around", "soon", "--out", "x.jsonl"]).fails(2, &["a post's id is a number"]);
    cut(&["--from", "2020-01-01", "--to", "2020-01-02", "--out", "x.jsonl"])
        .fails(1, &["no envelope was received from 2020-01-01"]);
    cut(&["--from", "2020-01-02", "--to", "2020-01-01", "--out", "x.jsonl"]).fails(2, &["is no stretch of time"]);
    cut(&["--sample", "0", "--out", "x.jsonl"]).fails(2, &["--sample 0 chooses nothing"]);
    cut(&["--sample", "5", "--source", "nobody", "--out", "x.jsonl"]).fails(2, &["nobody", "tweetstream"]);
    cut(&["--out", "x.jsonl"]).fails(2, &["--around"]);
    cut(&["--sample", "5"]).fails(2, &["--out"]);
    assert!(!desk.path("x.jsonl").exists());
    let full = desk.write("full.jsonl", b"mine\n");
    cut(&["--sample", "5", "--out", "full.jsonl"]).fails(1, &["full.jsonl is there already", "--force"]);
    assert_eq!(std::fs::read(&full).unwrap(), b"mine\n");
    cut(&["--sample", "5", "--out", "tape"]).fails(1, &["the directory tape is not empty"]);
    cut(&["--sample", "5", "--out", "full.jsonl", "--force"]).expect(0);
    let five = std::fs::read(&full).unwrap();
    cut(&["--sample", "5", "--out", "again.jsonl"]).expect(0);
    assert_eq!(five, std::fs::read(desk.path("again.jsonl")).unwrap(), "equal seeds choose equally");
    let help = desk.run(&["fixture", "cut", "--help"]).expect(0);
    assert!(help.text().contains("Examples:\n") && help.text().contains("BIRDTAPE_REDACT_KEY"));
}

#[test]
fn shrinks_to_the_line_to_blame() {
    if !have("grep") {
        return;
    }
    let desk = Desk::new();
    let all = all_lines();
    let (id, post, _) = post_with(EventKind::Meta);
    let needle = format!(r#""op":"content","id":"{id}""#);
    assert_eq!(all.iter().filter(|line| String::from_utf8_lossy(line).contains(&needle)).count(), 1);
    let script = format!("! grep -q -F '{needle}' \"$1\"");
    let args = ["fixture", "shrink", FIXTURE, "--json", "--out", "small.jsonl", "--", "sh", "-c", &script, "sh", "{}"];
    let run = desk.run(&args).expect(0);
    let report = run.json();
    assert_eq!((&report["envelopes"], &report["of"], &report["minimal"]), (&1.into(), &400.into(), &true.into()), "{}", run.err);
    assert_eq!(lines(&std::fs::read(desk.path("small.jsonl")).unwrap()), [&*all[post]]);
    let by_variable = "! grep -q connected \"$BIRDTAPE_FIXTURE\"";
    let args = ["fixture", "shrink", "small.jsonl", "--out", "none.jsonl", "--", "sh", "-c", by_variable];
    desk.run(&args).fails(1, &["the command does not fail on the whole file (1 envelope)"]);
    assert!(!desk.path("none.jsonl").exists());
}

#[test]
fn shrink_says_what_it_cannot_work_with() {
    let desk = Desk::new();
    desk.write("lines.jsonl", b"{\"event_type\":\"ping\"}\n{\"event_type\":\"connected\"}\n");
    desk.write("empty.jsonl", b"\n\n");
    let shrink = |args: &[&str]| desk.run(&[&["fixture", "shrink"], args].concat());
    shrink(&["lines.jsonl", "--out", "o.jsonl"]).fails(2, &["CMD"]);
    shrink(&["lines.jsonl", "--out", "o.jsonl", "--", "true"])
        .fails(1, &["does not fail on the whole file (2 envelopes)", "hint: "]);
    shrink(&["lines.jsonl", "--out", "o.jsonl", "--", "false"]).fails(1, &["fails on an empty file too"]);
    shrink(&["lines.jsonl", "--out", "o.jsonl", "--", "no-such-program"]).fails(1, &["cannot start no-such-program"]);
    shrink(&["lines.jsonl", "--out", "o", "--", "false"]).fails(2, &["o does not end in .jsonl"]);
    shrink(&["empty.jsonl", "--out", "o.jsonl", "--", "false"]).fails(1, &["empty.jsonl holds no envelope"]);
    shrink(&["none.jsonl", "--out", "o.jsonl", "--", "false"]).fails(1, &["cannot open none.jsonl"]);
    shrink(&[".", "--out", "o.jsonl", "--", "false"]).fails(2, &["shrink takes a file of lines"]);
    shrink(&["lines.jsonl", "--out", "lines.jsonl", "--", "false"]).fails(1, &["lines.jsonl is there already"]);
    let slow = ["lines.jsonl", "--out", "o.jsonl", "--timeout", "0.2", "--", "sh", "-c", "sleep 60; false"];
    shrink(&slow).fails(1, &["takes longer than 200ms", "--timeout"]);
    assert!(!desk.path("o.jsonl").exists());
}
