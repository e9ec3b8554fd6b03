//! Two recorders of one stream, by the real program: their tapes become one.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use birdtape::archive::Tape;
use birdtape::catalog::Catalog;
use birdtape::model::UnixMicros;
use birdtape::segment::RealDisk;

use crate::program::{Desk, Run, finished};
use crate::server::{Replay, events};

const HORIZON: &str = "300ms";

/// Writes a configuration that records one fake provider.
fn configure(desk: &Desk, base: &str) {
    let config = format!(
        "[source.tweetstream]\nprovider = \"tweetstream\"\nbase_url = \"{base}\"\nlateness_horizon = \"{HORIZON}\"\nscopes_every = \"0s\"\n"
    );
    desk.write("birdtape.toml", config.as_bytes());
}

fn recorder(desk: &Desk, tape: &str, more: &[&str]) -> Command {
    let mut command = desk.command(["--json", "--tape", tape, "record"].iter().chain(more));
    command.env("TWEETSTREAM_API_KEY", "k");
    command
}

/// A recorder beside the test; it goes when this is dropped.
struct Beside(Child);

impl Beside {
    /// Starts it and waits until it has committed envelopes a few times.
    fn start(desk: &Desk, tape: &str) -> Self {
        let mut child = recorder(desk, tape, &[]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut told = events(child.stdout.take().unwrap());
        let n_commits = told.by_ref().filter(|event| event["event"] == "commit").take(5).count();
        assert_eq!(n_commits, 5, "it records");
        std::thread::spawn(move || told.count());
        Self(child)
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        // Gone already is as good.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// First and last instant that a tape covers.
fn covered(desk: &Desk, tape: &str) -> (UnixMicros, UnixMicros) {
    let tape = Tape::open(&desk.path(tape), Arc::new(RealDisk)).unwrap();
    let mut covered = birdtape::model::IntervalSet::new();
    tape.coverage("tweetstream").unwrap().iter().for_each(|scope| covered.add(&scope.every_kind.covered()));
    (covered.iter().next().unwrap().0, covered.iter().last().unwrap().1)
}

fn certify(desk: &Desk, tape: &str, (from, to): (UnixMicros, UnixMicros)) -> Run {
    let window = ["--from", &from.to_string(), "--to", &to.to_string()];
    desk.run(&[&["--tape", tape, "certify", "--source", "tweetstream"][..], &window].concat())
}

fn dump(desk: &Desk, tape: &str) -> Vec<String> {
    Catalog::open_read_only(&desk.path(tape).join("catalog.sqlite")).unwrap().dump(|_, _, _| true).unwrap()
}

#[test]
fn two_recorders_become_one_whole_tape() {
    let desk = Desk::new();
    let world = ["--synthetic", "--mix", "tweetstream=1", "--rate", "200", "--seed", "3", "--shift", "now", "--start", "now"];
    let replay = Replay::start(&desk, &[&world[..], &["--max-connections", "8"]].concat());
    configure(&desk, &replay.base);
    // One is stopped and started again, while the other goes on and is killed in the end.
    let other = Beside::start(&desk, "there");
    finished(recorder(&desk, "here", &["--for", "2"]).stderr(Stdio::null())).expect(0);
    finished(recorder(&desk, "here", &["--for", "2"]).stderr(Stdio::null())).expect(3);
    assert_eq!(certify(&desk, "here", covered(&desk, "here")).code, 3, "it was stopped in between");

    // While it is still recorded. First only what it would bring.
    let before = dump(&desk, "here");
    let from_there = ["--tape", "here", "--json", "backfill", "--from-tape", "there", "--source", "tweetstream", "--dry-run"];
    let dry = desk.run(&from_there).expect(3);
    let would: Vec<serde_json::Value> = dry.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let would: Vec<_> = would.iter().filter(|line| line["gap"].is_string()).collect();
    assert!(!would.is_empty() && would.iter().all(|gap| gap["state"] == "filled"), "{would:?}");
    assert!(would.iter().any(|gap| gap["envelopes"].as_u64().unwrap() > 0), "{would:?}");
    assert_eq!(dump(&desk, "here"), before, "a dry run writes nothing");
    let fill = desk.run(&["--tape", "here", "backfill", "--from-tape", "there"]).expect(0);
    assert!(fill.err.contains("filled: source tweetstream of tape"), "{}", fill.err);
    certify(&desk, "here", covered(&desk, "here")).expect(0);
    desk.run(&["--tape", "there", "merge", "here"]).fails(1, &["is being written by another process", "hint: wait until"]);
    let merged = desk.run(&["--tape", "here", "--json", "merge", "there"]).expect(0);
    let last: serde_json::Value = serde_json::from_str(merged.text().lines().last().unwrap()).unwrap();
    assert_eq!((&last["event"], &last["added"], &last["still_open"]), (&"done".into(), &true.into(), &0.into()));
    drop(other);

    let run = desk.run(&["--tape", "both", "merge", "there", "here"]).expect(0);
    assert!(run.err.contains("tweetstream from there: ") && run.err.contains("0 gaps still open"), "{}", run.err);
    for tape in ["here", "both"] {
        let whole = covered(&desk, tape);
        assert!(whole.0 <= covered(&desk, "there").0, "it begins with the first of them");
        certify(&desk, tape, whole).expect(0);
        desk.run(&["--tape", tape, "verify"]).expect(0);
        let before = dump(&desk, tape);
        desk.run(&["--tape", tape, "rebuild"]).expect(0);
        assert_eq!(before, dump(&desk, tape), "{tape} rebuilds equal");
    }
    let before = dump(&desk, "both");
    let again = desk.run(&["--tape", "both", "merge", "there", "here"]).expect(0);
    assert!(again.err.contains("nothing was added: everything is here already"), "{}", again.err);
    assert_eq!(before, dump(&desk, "both"), "merging twice adds nothing");
    // Every envelope says whence it came.
    let peer = desk.run(&["--tape", "both", "cat", "--source", "tweetstream", "--kind", "frame"]).expect(0);
    let is_marked = |line: &str| line.contains("\"via\":\"peer\"") && line.contains("\"peer\":{\"");
    assert!(peer.text().lines().count() > 100 && peer.text().lines().all(is_marked), "{:?}", peer.text().lines().next());
}

#[test]
fn what_cannot_be_merged_is_said_in_clear_words() {
    let desk = Desk::with_fixture();
    desk.run(&["--tape", "x", "import", "--provider", "x_live", crate::program::FIXTURE]).expect(0);
    desk.run(&["--tape", "odd", "import", "--provider", "x_live", "--source", "tweetstream", crate::program::FIXTURE]).expect(0);
    desk.run(&["merge", "tape"]).fails(1, &["tape is the tape itself", "hint: name the directory of another"]);
    desk.run(&["merge", "nowhere"])
        .fails(1, &["nowhere is not a tape: it has no tape.json", "hint: name the directory of a tape"]);
    desk.run(&["merge", crate::program::FIXTURE])
        .fails(1, &["is not a tape: it is a file", "hint: name the directory", "import"]);
    assert!(!desk.path("nowhere").exists(), "nothing is made of a name that was mistyped");
    desk.run(&["--tape", "fresh", "merge", "nowhere"]).fails(1, &["nowhere is not a tape"]);
    assert!(!desk.path("fresh").exists(), "nor a new tape for nothing");
    let words = "source tweetstream records tweetstream, and source tweetstream of tape odd records x_live";
    desk.run(&["merge", "odd"]).fails(1, &[words, "hint: "]);
    desk.run(&["--tape", "x", "backfill", "--from-tape", "odd"]).expect(0);
    desk.run(&["--tape", "odd", "backfill", "--from-tape", "tape"]).fails(1, &["source tweetstream records x_live"]);
    desk.run(&["backfill", "--from-tape", "tape"]).fails(1, &["is the tape itself"]);
    desk.run(&["backfill", "tweetstream-99", "--from-tape", "x"]).fails(1, &["there is no gap tweetstream-99"]);
    desk.run(&["backfill", "--from-tape", "x", "--from-source", "gone"]).fails(2, &["the tape has no source `gone`"]);
    desk.run(&["backfill", "--from-tape", "x", "--source", "gone"]).fails(2, &["the tape has no source `gone`"]);
    desk.run(&["backfill", "--from-tape", "x", "--max-usd", "1"]).fails(2, &["cannot be used with"]);
    let newer = r#"{"format":99,"tape":"00000000000000000000000000000000","created":"2026-01-05T12:00:00.000000Z"}"#;
    std::fs::create_dir(desk.path("newer")).unwrap();
    desk.write("newer/tape.json", newer.as_bytes());
    desk.run(&["merge", "newer"]).fails(1, &["has format 99", "hint: use a newer birdtape"]);

    // A copy of a tape has nothing that it does not.
    std::fs::create_dir(desk.path("copy")).unwrap();
    for file in crate::program::files_below(&desk.path("tape")) {
        let to = desk.path("copy").join(file.strip_prefix(desk.path("tape")).unwrap());
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(&file, to).unwrap();
    }
    let run = desk.run(&["merge", "copy"]).expect(0);
    assert!(run.err.contains("it is this tape, or a copy of it") && run.err.contains("nothing was added"), "{}", run.err);
    // Tapes that were imported promise nothing; their envelopes come all the same, once.
    let brought = |run: &Run| run.err.lines().find(|line| line.contains("x_live from x:")).unwrap().to_owned();
    let first = desk.run(&["--tape", "new", "merge", "x"]).expect(0);
    assert!(!brought(&first).contains(": 0 envelopes"), "{}", first.err);
    let second = desk.run(&["--tape", "new", "merge", "x"]).expect(0);
    assert!(brought(&second).contains(": 0 envelopes") && second.err.contains("nothing was added"), "{}", second.err);
    desk.run(&["--tape", "new", "verify"]).expect(0);
}
