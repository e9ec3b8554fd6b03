//! Import, replay, record, cat: every envelope comes back byte for byte, in order, none missing, none extra.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use birdtape::model::Provider;
use birdtape::provider::{recognise, synthetic};
use serde_json::Value;

use crate::program::{Desk, FIXTURE, files_below};
use crate::server::Replay;

/// Sends the envelopes of a file through everything and compares.
fn round_trip(file: &Path, lines: &[u8]) {
    let desk = Desk::new();
    desk.run(&["import", "--tape", "sent", "--provider", "auto", file.to_str().unwrap()]).expect(0);
    let replay = Replay::start(&desk, &["sent", "--speed", "max"]);
    let mut record = vec!["record", "--tape", "kept", "--base-url", &replay.base, "--until-idle", "3"];
    Provider::ALL.iter().for_each(|p| record.extend(["--provider", p.name()]));
    desk.run(&record).expect(0);
    drop(replay);

    let mut wanted: BTreeMap<Provider, Vec<&[u8]>> = BTreeMap::new();
    for line in lines.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
        wanted.entry(recognise(line).expect("a provider's envelope")).or_default().push(line);
    }
    assert_eq!(wanted.len(), 4, "all four providers take part");
    for (provider, wanted) in wanted {
        for tape in ["sent", "kept"] {
            let cat = desk.run(&["cat", "--tape", tape, "--raw", "--source", provider.name()]).expect(0);
            let found: Vec<&[u8]> = cat.out.split(|b| *b == b'\n').collect();
            let (end, found) = found.split_last().unwrap();
            assert!(end.is_empty(), "the last line ends");
            assert_eq!(found.len(), wanted.len(), "{tape}: {provider}");
            if let Some(at) = (0..wanted.len()).find(|&at| found[at] != wanted[at]) {
                let [found, wanted] = [found[at], wanted[at]].map(String::from_utf8_lossy);
                panic!("{tape}: {provider}: envelope {at} is\n{found:.400}\ninstead of\n{wanted:.400}");
            }
        }
    }
    for tape in ["sent", "kept"] {
        let report = desk.run(&["verify", "--tape", tape, "--json"]).expect(0).json();
        assert_eq!((&report["ok"], &report["catalog"]), (&Value::Bool(true), &Value::from("equal")), "{report}");
    }
}

#[test]
fn the_projects_own_fixtures_come_back() {
    round_trip(Path::new(FIXTURE), &std::fs::read(FIXTURE).unwrap());
}

#[test]
fn a_larger_world_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("world.jsonl");
    let options = synthetic::Options { seed: 11, dialect: synthetic::Dialect::Merged, ..synthetic::Options::default() };
    let mut lines = Vec::new();
    for envelope in synthetic::World::new(options).take(6_000) {
        lines.extend_from_slice(&envelope.bytes);
        lines.push(b'\n');
    }
    std::fs::write(&file, &lines).unwrap();
    round_trip(&file, &lines);
}

/// Real tweets, when `BIRDTAPE_CORPUS` names a file or directory with `*.jsonl` or `*.jsonl.zst`.
#[test]
fn a_corpus_comes_back() {
    let Some(corpus) = std::env::var_os("BIRDTAPE_CORPUS").map(PathBuf::from) else {
        println!("skipped: BIRDTAPE_CORPUS is not set");
        return;
    };
    let mut files = if corpus.is_dir() { files_below(&corpus) } else { vec![corpus.clone()] };
    files.retain(|f| f.to_str().is_some_and(|name| name.ends_with(".jsonl") || name.ends_with(".jsonl.zst")));
    assert!(!files.is_empty(), "{} holds no *.jsonl or *.jsonl.zst", corpus.display());
    for file in files {
        let bytes = std::fs::read(&file).unwrap();
        let lines = if file.extension().is_some_and(|e| e == "zst") { zstd::decode_all(&bytes[..]).unwrap() } else { bytes };
        round_trip(&file, &lines);
    }
}

/// What is not an envelope of anybody still comes back: the bytes decide, not their meaning.
#[test]
fn odd_lines_come_back_too() {
    let desk = Desk::new();
    let lines: &[&[u8]] = &[
        b"{\"event_type\":\"tweet\",\"tweets\":[{\"id\":\"1\",\"n\":1.50}]}",
        b"{\"event_type\" : \"ping\" }",
        b"not json at all \\ \"quoted\" \x01",
        b"{\"cut\":",
        b"[1,2,3]",
        b"\xff\xfe not even text",
        b" {\"space\":\"before\"}",
        b"{\"lone\":\"\\ud800\"}",
        "{\"emoji\":\"🐦\",\"nul\":\"\\u0000\"}".as_bytes(),
        b"1e999",
    ];
    let text = [lines.join(&b'\n'), b"\n".to_vec()].concat();
    desk.write("odd.txt", &text);
    desk.run(&["import", "--provider", "twitterapi_io", "--source", "odd", "odd.txt"]).expect(0);
    assert_eq!(desk.run(&["cat", "--raw", "--source", "odd"]).expect(0).out, text);
    let cat = desk.run(&["cat", "--source", "odd"]).expect(0);
    let records: Vec<Value> = cat.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let form = |record: &Value| ["raw", "text", "b64"].into_iter().find(|form| record.get(form).is_some()).unwrap();
    let forms: Vec<&str> = records.iter().map(form).collect();
    assert_eq!(forms, ["raw", "raw", "text", "text", "raw", "b64", "text", "text", "raw", "text"]);
    let replay = Replay::start(&desk, &["tape", "--speed", "max"]);
    let record = ["record", "--tape", "again", "--provider", "twitterapi_io", "--base-url", &replay.base, "--until-idle", "3"];
    desk.run(&record).expect(0);
    assert_eq!(
        desk.run(&["cat", "--tape", "again", "--raw"]).expect(0).out,
        text,
        "binary frames and broken text over a WebSocket"
    );
    desk.run(&["verify", "--tape", "again"]).expect(0);
}
