//! SIGKILL of a recorder under load, at random moments: what was announced is there, and each kill is in the ledger.
//!
//! The gate kills 100 times; `BIRDTAPE_KILLS` says another number.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use birdtape::archive::{CatalogCheck, Tape, verify};
use birdtape::model::Provider;
use birdtape::provider::decode_record;
use birdtape::segment::RealDisk;
use rand::{Rng, SeedableRng};

use crate::program::{Desk, files_below};
use crate::server::{Replay, events, have};

/// Commits of every source that are waited for before a kill may come.
const WARM_UP: usize = 3;

/// Starts a recorder, kills it after a random number of announcements, and gives the last announced record by source.
///
/// Only what was read before the kill was ordered counts as announced.
fn record_and_kill(desk: &Desk, base: &str, commits: usize) -> BTreeMap<String, u64> {
    let mut command = desk.command(["--json", "record", "--tape", "tape", "--base-url", base, "--commit-every", "10ms"]);
    for provider in Provider::ALL {
        command.args(["--provider", provider.name()]);
    }
    let mut recorder = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let (mut announced, mut seen) = (BTreeMap::new(), BTreeMap::<String, usize>::new());
    let mut left = commits;
    for event in events(recorder.stdout.take().unwrap()) {
        if event["event"] != "commit" {
            continue;
        }
        let source = event["source"].as_str().unwrap().to_owned();
        announced.insert(source.clone(), event["n"].as_u64().unwrap());
        *seen.entry(source).or_default() += 1;
        if seen.len() == 4 && seen.values().all(|n| *n >= WARM_UP) {
            if left == 0 {
                break;
            }
            left -= 1;
        }
    }
    recorder.kill().unwrap();
    recorder.wait().unwrap();
    assert_eq!(announced.len(), 4, "all four sources recorded before the kill");
    announced
}

/// The stock tool reads what a killed recorder left open, up to what it announced.
fn stock_zstd_reads(tape: &Path, announced: &BTreeMap<String, u64>) {
    for open in files_below(&tape.join("segments")).iter().filter(|p| p.extension().is_some_and(|e| e == "open")) {
        let out = Command::new("zstd").args(["--decompress", "--stdout", "--quiet"]).arg(open).output().unwrap().stdout;
        let whole = &out[..out.iter().rposition(|b| *b == b'\n').map_or(0, |end| end + 1)];
        let last = whole.split(|b| *b == b'\n').rev().find(|line| !line.is_empty()).unwrap();
        let last: serde_json::Value = serde_json::from_slice(last).unwrap();
        let source = open.strip_prefix(tape.join("segments")).unwrap().iter().next().unwrap().to_str().unwrap();
        let n = last["n"].as_u64().unwrap();
        assert!(n >= announced[source], "{}: zstd reads up to record {n}, announced was {}", open.display(), announced[source]);
    }
}

#[test]
fn a_killed_recorder_keeps_what_it_announced() {
    let kills: usize = std::env::var("BIRDTAPE_KILLS").ok().map_or(100, |n| n.parse().unwrap());
    let desk = Desk::new();
    let tape = desk.path("tape");
    // A dead recorder's connection may not have been noticed yet when the next one comes.
    let replay = Replay::start(&desk, &["--synthetic", "--rate", "2000", "--seed", "7", "--max-connections", "8"]);
    let mut rng = rand_pcg::Pcg64Mcg::seed_from_u64(7);
    for kill in 0..kills {
        let announced = record_and_kill(&desk, &replay.base, rng.random_range(0..40));
        let report = verify(&tape, &RealDisk, decode_record, |_| {}).unwrap();
        assert!(report.is_whole(), "kill {kill}: {:?}", report.damage);
        for (source, &n) in &announced {
            let kept = report.sources.iter().find(|s| s.name == *source).map_or(0, |s| s.last_n);
            assert!(kept >= n, "kill {kill}: {source} announced record {n}, the tape ends at {kept}");
        }
        if kill % 10 == 0 && have("zstd") {
            stock_zstd_reads(&tape, &announced);
        }
    }
    desk.run(&["recover", "--tape", "tape"]).expect(0);
    let report = verify(&tape, &RealDisk, decode_record, |_| {}).unwrap();
    assert!(report.is_whole() && matches!(report.catalog, CatalogCheck::Equal(_)), "{report:?}");
    let gaps = Tape::open(&tape, std::sync::Arc::new(RealDisk)).unwrap().catalog().gaps(None).unwrap();
    for provider in Provider::ALL {
        let noted = gaps.iter().filter(|g| g.source == provider.name() && g.cause == "killed").count();
        assert_eq!(noted, kills, "{provider}: every kill is in the ledger");
    }
    if have("zstd") {
        let sealed = files_below(&tape.join("segments"));
        assert!(sealed.iter().all(|p| p.extension().is_some_and(|e| e == "zst")), "{sealed:?}");
        let tested = Command::new("zstd").args(["--test", "--quiet"]).args(&sealed).status().unwrap();
        assert!(tested.success(), "the stock zstd reads every file");
    }
    let dump = |path: &Path| {
        birdtape::catalog::Catalog::open_read_only(&path.join("catalog.sqlite")).unwrap().dump(|_, _, _| true).unwrap()
    };
    let before = dump(&tape);
    desk.run(&["rebuild", "--tape", "tape"]).expect(0);
    assert_eq!(before, dump(&tape), "the catalog rebuilds equal");
}

/// Processes whose command line names this directory.
#[cfg(target_os = "linux")]
fn processes_at(dir: &std::path::Path) -> Vec<String> {
    let all = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let lines = all.filter_map(|entry| std::fs::read_to_string(entry.path().join("cmdline")).ok());
    lines.filter(|line| line.contains(dir.to_str().unwrap())).map(|line| line.replace('\0', " ")).collect()
}

#[test]
#[cfg(target_os = "linux")]
fn a_demo_that_is_stopped_leaves_nothing_behind() {
    let desk = Desk::new();
    let dir = desk.path("demo");
    let mut command = desk.command(["demo", "--speed", "10", "--dir"]);
    let mut demo = command.arg(&dir).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    use std::io::BufRead as _;
    let mut said = std::io::BufReader::new(demo.stderr.take().unwrap()).lines().map(Result::unwrap);
    said.find(|line| line.contains("the server goes away")).unwrap();
    assert!(processes_at(&dir).iter().any(|line| line.contains(" record")), "{:?}", processes_at(&dir));
    // To it alone, as no terminal does.
    assert!(Command::new("kill").args(["-INT", &demo.id().to_string()]).status().unwrap().success());
    let rest: Vec<String> = said.collect();
    assert_eq!(demo.wait().unwrap().code(), Some(1), "{rest:?}");
    assert!(rest.iter().any(|line| line.contains("the demo was stopped before its end")), "{rest:?}");
    assert_eq!(processes_at(&dir), Vec::<String>::new());
    assert!(!dir.exists());
}
