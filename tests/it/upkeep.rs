//! Upkeep by the real program: killed in the middle, refused beside a recorder, and damage on its way to being whole again.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use birdtape::archive::{Archive, CatalogCheck, Options, Span, Tape, verify};
use birdtape::model::{Body, ConnId, Draft, EventId, EventKind, Provider, RecordKind, SourceName, Via};
use birdtape::provider::synthetic::Envelope;
use birdtape::provider::{decode, decode_record, default_lateness_horizon};
use birdtape::segment::RealDisk;
use serde_json::Value;
use sha2::Digest as _;

use crate::backfill::{broadcast, posts, second};
use crate::program::{Desk, files_below, finished};
use crate::server::{Replay, have};

const PROVIDER: Provider = Provider::Tweetstream;

/// A tape of all that was sent, in small segments.
fn recorded(desk: &Desk, dir: &str) -> Vec<Envelope> {
    let envelopes = broadcast(PROVIDER);
    let (name, horizon) = (SourceName::from(PROVIDER), default_lateness_horizon(PROVIDER));
    let options = Options { block_bytes: 16 << 10, segment_bytes: 128 << 10, ..Options::default() };
    let mut archive = Archive::open(&desk.path(dir), Arc::new(RealDisk), options, decode_record, "a test", second(0)).unwrap();
    archive.add_source(&name, PROVIDER).unwrap();
    archive.start_source(&name, horizon, ("boot".to_owned(), Duration::ZERO), second(0)).unwrap();
    archive.live(&name, "*", horizon, second(0), "the first frame").unwrap();
    for envelope in &envelopes {
        let draft = Draft {
            received_at: envelope.at,
            kind: RecordKind::Frame,
            via: Via::Ws,
            conn: ConnId(1),
            info: None,
            body: Body::Bytes(envelope.bytes.clone()),
        };
        archive.append(&name, &draft, Some(&decode(PROVIDER, &envelope.bytes))).unwrap();
    }
    archive.stop_source(&name, second(1_200), "the test ends").unwrap();
    archive.close(second(1_200)).unwrap();
    envelopes
}

fn sealed(desk: &Desk, dir: &str) -> Vec<PathBuf> {
    let files = files_below(&desk.path(dir).join("segments")).into_iter();
    files.filter(|path| path.extension().is_some_and(|e| e == "zst") && !path.ends_with("pruned.jsonl.zst")).collect()
}

/// What each sealed segment unpacks to.
fn contents(desk: &Desk, dir: &str) -> BTreeMap<PathBuf, Vec<u8>> {
    let unpacked = |path: PathBuf| {
        let data = std::fs::read(&path).unwrap();
        (path, zstd::decode_all(&data[..]).unwrap())
    };
    sealed(desk, dir).into_iter().map(unpacked).collect()
}

fn copy_dir(from: &Path, to: &Path) {
    for file in files_below(from) {
        let to = to.join(file.strip_prefix(from).unwrap());
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(&file, to).unwrap();
    }
}

fn is_whole(desk: &Desk, dir: &str, what: &str) {
    let report = verify(&desk.path(dir), &RealDisk, decode_record, |_| {}).unwrap();
    assert!(report.is_whole(), "{what}: {report:?}");
}

fn dump(desk: &Desk, dir: &str) -> Vec<String> {
    let catalog = birdtape::catalog::Catalog::open_read_only(&desk.path(dir).join("catalog.sqlite")).unwrap();
    catalog.dump(|_, _, _| true).unwrap()
}

/// Mended, whole, and with a catalog that a rebuild gives back equal.
fn is_sound(desk: &Desk, dir: &str, what: &str) {
    desk.run(&["recover", "--tape", dir]).expect(0);
    let report = verify(&desk.path(dir), &RealDisk, decode_record, |_| {}).unwrap();
    assert!(report.is_whole() && matches!(report.catalog, CatalogCheck::Equal(_)), "{what}: {report:?}");
    let before = dump(desk, dir);
    desk.run(&["rebuild", "--tape", dir]).expect(0);
    assert_eq!(before, dump(desk, dir), "{what}");
}

fn frames(desk: &Desk, dir: &str) -> Vec<Vec<u8>> {
    let tape = Tape::open(&desk.path(dir), Arc::new(RealDisk)).unwrap();
    let mut records = tape.records(PROVIDER.name(), Span::default()).unwrap();
    let mut frames = Vec::new();
    while let Some(record) = records.next().unwrap() {
        if record.kind == RecordKind::Frame {
            frames.push(record.body.to_vec());
        }
    }
    frames
}

#[test]
fn a_killed_compaction_leaves_every_segment_old_or_new() {
    let desk = Desk::new();
    recorded(&desk, "tape");
    let before = contents(&desk, "tape");
    assert!(before.len() > 6, "{}", before.len());
    let planned = desk.run(&["compact", "--dry-run", "--json"]).expect(0).text().lines().count();
    assert!(planned > 6 && contents(&desk, "tape") == before, "{planned}");
    let mut kills = 0;
    for n_done in [0, 1, 2, 1, 0, 2] {
        let args = ["--json", "compact", "--tape", "tape", "--level", "19", "--threads", "1"];
        let mut compacting = desk.command(args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(compacting.stdout.take().unwrap()).lines().map(Result::unwrap);
        let done = lines.filter(|line| line.contains(r#""event":"compacted""#)).take(n_done).count();
        // At no special moment: what is being packed now is killed with it.
        compacting.kill().unwrap();
        let ended = compacting.wait().unwrap();
        kills += usize::from(!ended.success() && done == n_done);
        let what = format!("killed after {n_done} segments");
        is_whole(&desk, "tape", &what);
        for (path, content) in contents(&desk, "tape") {
            assert!(before.get(&path).is_none_or(|was| *was == content), "{what}: {}", path.display());
        }
        assert!(before.keys().all(|path| path.exists()), "{what}");
    }
    assert!(kills >= 3, "{kills}");
    let done = desk.run(&["--json", "compact", "--tape", "tape"]).expect(0);
    let done: Value = serde_json::from_str(done.text().lines().last().unwrap()).unwrap();
    assert!(done["bytes_after"].as_u64().unwrap() < done["bytes_before"].as_u64().unwrap(), "{done}");
    is_sound(&desk, "tape", "compacted");
    let after = contents(&desk, "tape");
    assert!(before.iter().all(|(path, content)| after.get(path) == Some(content)));
    desk.run(&["compact", "--dry-run"]).expect(0);
    if have("zstd") {
        assert!(Command::new("zstd").args(["--test", "--quiet"]).args(sealed(&desk, "tape")).status().unwrap().success());
    }
    let args = ["certify", "--source", PROVIDER.name(), "--from", "2026-01-05T12:00:00Z", "--to", "2026-01-05T12:10:00Z"];
    let certificate = desk.run(&args).expect(0).json();
    for segment in certificate["segments"].as_array().unwrap() {
        let path = sealed(&desk, "tape").into_iter().find(|path| {
            path.file_name().unwrap().to_str().unwrap().starts_with(&format!("{:020}", segment["first_n"].as_u64().unwrap()))
        });
        let content = sha2::Sha256::digest(&after[&path.unwrap()]);
        let content: String = content.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(segment["content"], content.as_str(), "{segment}");
    }
}

#[test]
fn a_killed_pruning_leaves_a_tape_that_opens() {
    let desk = Desk::new();
    let envelopes = recorded(&desk, "whole");
    let all = frames(&desk, "whole");
    assert_eq!(all.len(), envelopes.len());
    let total: u64 = sealed(&desk, "whole").iter().map(|path| path.metadata().unwrap().len()).sum();
    let half = format!("{}B", total / 2);
    let mut outcomes = BTreeSet::new();
    for millis in [0, 2, 4, 6, 8, 10, 12, 15, 20, 30, 40, 60] {
        let dir = format!("tape-{millis}");
        copy_dir(&desk.path("whole"), &desk.path(&dir));
        let args = ["--json", "prune", "--tape", &dir, "--max-size", &half];
        let mut pruning = desk.command(args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(pruning.stdout.take().unwrap()).lines().map(Result::unwrap);
        // It says what goes before it removes anything.
        assert!(lines.next().unwrap().contains(r#""event":"doomed""#));
        std::thread::sleep(Duration::from_millis(millis));
        pruning.kill().unwrap();
        pruning.wait().unwrap();
        let what = format!("killed after {millis} ms");
        is_whole(&desk, &dir, &what);
        is_sound(&desk, &dir, &what);
        let kept = frames(&desk, &dir);
        assert!(kept[..] == all[all.len() - kept.len()..], "{what}: a suffix is left");
        outcomes.insert(kept.len());
        desk.run(&["prune", "--tape", &dir, "--max-size", &half]).expect(0);
        is_sound(&desk, &dir, &format!("{what}, done again"));
    }
    assert!(outcomes.len() <= 2, "all or nothing: {outcomes:?}");
}

#[test]
fn what_was_pruned_is_said_everywhere() {
    let desk = Desk::new();
    let envelopes = recorded(&desk, "tape");
    let dry = desk.run(&["prune", "--older-than", "1d", "--dry-run"]).expect(0);
    assert!(dry.text().contains("to be removed"), "{}", dry.text());
    let total: u64 = sealed(&desk, "tape").iter().map(|path| path.metadata().unwrap().len()).sum();
    desk.run(&["prune"]).fails(2, &["--older-than"]);
    desk.run(&["prune", "--older-than", "0s"]).fails(2, &["would remove everything"]);
    desk.run(&["export", "parquet", "--out", "before"]).expect(0);
    desk.run(&["prune", "--max-size", &format!("{}B", total / 2)]).expect(0);
    let run = desk.run(&["verify"]).expect(0);
    assert!(run.text().contains("pruned on purpose: tweetstream, "), "{}", run.text());
    let verified = desk.run(&["verify", "--json", "--pace", "100MB/s"]).expect(0).json();
    assert_eq!((verified["damage"].as_array().unwrap().len(), &verified["ok"]), (0, &true.into()));
    let args = ["certify", "--source", PROVIDER.name(), "--from", "2026-01-05T12:00:00Z", "--to", "2026-01-05T12:01:00Z"];
    let certificate = desk.run(&args).expect(3).json();
    let scope = &certificate["scopes"][0];
    assert_eq!((scope["pruned"]["us"].as_i64(), scope["missing"]["us"].as_i64()), (Some(60_000_000), Some(0)), "{certificate}");
    assert_eq!(certificate["segments"][0]["state"], "pruned");
    assert!(desk.run(&["gaps", "timeline"]).expect(0).text().contains("· pruned"));
    // Files that hold what is gone are not made anew without it.
    let files = |dir: &str| -> Vec<_> {
        let files = files_below(&desk.path(dir)).into_iter().filter(|path| path.extension().is_some_and(|e| e == "parquet"));
        files.map(|path| std::fs::read(path).unwrap()).collect()
    };
    let before = files("before");
    let archive =
        Archive::open(&desk.path("tape"), Arc::new(RealDisk), Options::default(), decode_record, "a test", second(1_300));
    let mut archive = archive.unwrap();
    let (name, again) = (SourceName::from(PROVIDER), envelopes.last().unwrap());
    let body = Body::Bytes(again.bytes.clone());
    let draft = Draft { received_at: second(1_301), kind: RecordKind::Frame, via: Via::Ws, conn: ConnId(2), info: None, body };
    archive.append(&name, &draft, Some(&decode(PROVIDER, &again.bytes))).unwrap();
    archive.close(second(1_302)).unwrap();
    desk.run(&["export", "parquet", "--out", "before"]).fails(1, &["pruned from the tape since", "hint: what is there stays"]);
    assert!(files("before") == before, "they stay as they were");
    desk.run(&["export", "parquet", "--out", "lake"]).expect(0);
    let kept = desk.run(&["cat", "--raw"]).expect(0).text().lines().count();
    assert_eq!(kept, frames(&desk, "tape").len());
}

/// Flips a bit in the middle of a segment in the middle.
fn bend(desk: &Desk, dir: &str) -> (PathBuf, Vec<u8>) {
    let files = sealed(desk, dir);
    let path = files[files.len() / 2].clone();
    let sound = std::fs::read(&path).unwrap();
    let mut bent = sound.clone();
    bent[sound.len() / 2] ^= 0x20;
    std::fs::write(&path, bent).unwrap();
    (path, sound)
}

fn damaged_gap(desk: &Desk, dir: &str) -> Value {
    let listed = desk.run(&["gaps", "--json", "--tape", dir]).expect(0);
    let gaps: Vec<Value> = listed.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    gaps.into_iter().find(|gap| gap["cause"] == "damaged").expect("a gap of cause damaged")
}

#[test]
fn a_flipped_bit_is_found_and_brought_back_from_a_copy() {
    let desk = Desk::new();
    recorded(&desk, "tape");
    copy_dir(&desk.path("tape"), &desk.path("copy"));
    desk.run(&["scrub", "--pace", "max"]).expect(0);
    let (path, sound) = bend(&desk, "tape");
    let found = desk.run(&["scrub", "--pace", "max"]).expect(3);
    assert!(found.err.contains("damaged: ") && found.err.contains("; lost: records "), "{}", found.err);
    assert_eq!(damaged_gap(&desk, "tape")["state"], "open");
    let again = desk.run(&["scrub", "--pace", "max"]).expect(3);
    assert!(!again.err.contains("; lost: records "), "told once: {}", again.err);
    let verified = desk.run(&["verify", "--json"]).expect(3).json();
    let places: Vec<_> = verified["damage"].as_array().unwrap().iter().map(|damage| damage["what"].as_str().unwrap()).collect();
    assert!(places.iter().all(|what| what.contains("block at byte") || what.contains("are not there")), "{places:?}");
    desk.run(&["repair"]).expect(3);
    let run = desk.run(&["repair", "--from-tape", "copy"]).expect(0);
    assert!(run.text().contains("brought back from the copy, proven by its digest"), "{}", run.text());
    assert!(std::fs::read(&path).unwrap() == sound, "byte for byte");
    assert!(path.with_extension("zst.damaged").exists() && run.err.contains("1 damaged file kept"), "{}", run.err);
    assert_eq!(damaged_gap(&desk, "tape")["state"], "restored");
    is_sound(&desk, "tape", "restored");
    desk.run(&["scrub", "--pace", "max"]).expect(0);
    let args = ["certify", "--source", PROVIDER.name(), "--from", "2026-01-05T12:00:00Z", "--to", "2026-01-05T12:18:00Z"];
    desk.run(&args).expect(0);
}

#[test]
fn what_a_damaged_block_lost_comes_from_history() {
    let desk = Desk::new();
    let envelopes = recorded(&desk, "tape");
    let lines: Vec<u8> = envelopes.iter().flat_map(|envelope| [&envelope.bytes[..], b"\n"].concat()).collect();
    desk.write("full.jsonl", &lines);
    let sent = posts(PROVIDER, envelopes.iter());
    let on_tape = || {
        let tape = Tape::open(&desk.path("tape"), Arc::new(RealDisk)).unwrap();
        let mut records = tape.records(PROVIDER.name(), Span::default()).unwrap();
        let mut ids = BTreeSet::new();
        while let Some(record) = records.next().unwrap() {
            if record.speaks() {
                let events = decode_record(PROVIDER, record.via, &record.body).events.into_iter();
                ids.extend(events.filter(|event| event.kind == EventKind::Tweet).filter_map(|event| match event.id {
                    EventId::Tweet(id) => Some(id.0),
                    EventId::Text(_) => None,
                }));
            }
        }
        ids
    };
    assert_eq!(sent.difference(&on_tape()).count(), 0);
    let (path, sound) = bend(&desk, "tape");
    let bent = std::fs::read(&path).unwrap();
    assert!(sent.difference(&on_tape()).count() > 3, "the block held posts");
    desk.run(&["scrub", "--pace", "max"]).expect(3);
    let history = Replay::start(&desk, &["full.jsonl", "--from", "end", "--no-rate-limits"]);
    let mut filling = desk.command(["--json", "backfill", "--provider", PROVIDER.name(), "--pace", "0", "--base-url"]);
    let run = finished(filling.arg(&history.base).env("TWEETSTREAM_API_KEY", "k")).expect(0);
    assert_eq!(damaged_gap(&desk, "tape")["state"], "filled", "{}", run.text());
    assert_eq!(sent.difference(&on_tape()).count(), 0, "{}", run.text());
    assert!(std::fs::read(&path).unwrap() == bent && bent != sound, "the damaged file is not touched");
    let verified = desk.run(&["verify", "--json"]).expect(3).json();
    let lost = verified["damage"].as_array().unwrap().iter().filter(|damage| damage["known"] == true).count();
    assert_eq!(lost, 1, "{verified}");
}

#[test]
fn nobody_works_on_a_tape_that_is_recorded() {
    let desk = Desk::new();
    recorded(&desk, "tape");
    let _recorder = Archive::open(
        &desk.path("tape"),
        Arc::new(RealDisk),
        Options::default(),
        decode_record,
        "birdtape record",
        second(1_300),
    )
    .unwrap();
    for args in [&["compact"][..], &["prune", "--older-than", "1d"], &["scrub"], &["repair"]] {
        desk.run(args).fails(1, &["is being written by another process (birdtape record)", "hint: "]);
    }
    desk.run(&["compact", "--dry-run"]).expect(0);
    desk.run(&["prune", "--older-than", "1d", "--dry-run"]).expect(0);
}
