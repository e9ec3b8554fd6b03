//! What cannot work is refused by name, with what to do; nothing recorded is lost by it.

use std::sync::Arc;

use birdtape::archive::{Archive, Options};
use birdtape::model::UnixMicros;
use birdtape::provider;
use birdtape::segment::RealDisk;

use crate::program::{Desk, FIXTURE, finished};

const READERS: [&[&str]; 8] =
    [&["cat"], &["tail"], &["get", "42"], &["status"], &["gaps"], &["verify"], &["recover"], &["rebuild"]];

#[test]
fn a_directory_that_is_no_tape() {
    let desk = Desk::new();
    desk.write("letters", b"dear diary");
    for args in READERS {
        desk.run(&[&["--tape", "."], args].concat()).fails(1, &["error: . is not a tape", "hint: name the tape's directory"]);
        desk.run(args).fails(1, &["./tape is not a tape", "hint: "]);
    }
    assert!(!desk.path("tape").exists() && !desk.path("catalog.sqlite").exists(), "looking makes nothing");
    let import = ["--tape", ".", "import", "--provider", "auto", FIXTURE];
    desk.run(&import).fails(1, &[". is not a tape", "other files such as `letters`"]);
    assert!(!desk.path("segments").exists());
}

#[test]
fn a_tape_of_a_newer_format() {
    let desk = Desk::with_fixture();
    let info = std::fs::read_to_string(desk.path("tape/tape.json")).unwrap();
    desk.write("tape/tape.json", info.replace("\"format\":1", "\"format\":2").as_bytes());
    let import = ["import", "--provider", "auto", FIXTURE];
    for args in READERS.iter().copied().chain([&import[..]]) {
        let words = ["tape ./tape has format 2; this birdtape reads up to 1", "hint: use a newer birdtape"];
        desk.run(args).fails(1, &words);
    }
    desk.write("tape/tape.json", info.as_bytes());
    desk.run(&["verify"]).expect(0);
}

#[test]
fn a_second_writer() {
    let desk = Desk::with_fixture();
    let at = UnixMicros(1_767_614_400_000_000);
    let dir = desk.path("tape");
    let first =
        Archive::open(&dir, Arc::new(RealDisk), Options::default(), provider::decode_record, "the first one", at).unwrap();
    let import = ["import", "--provider", "auto", FIXTURE];
    for args in [&import[..], &["recover"], &["rebuild"]] {
        desk.run(args)
            .fails(1, &["is being written by another process (the first one)", "hint: wait until it is done or stop it"]);
    }
    assert_eq!(desk.run(&["status", "--json"]).expect(0).json()["holder"], "the first one");
    assert_eq!(desk.run(&["cat"]).expect(0).text().lines().count(), 400, "reading beside a writer is fine");
    assert_eq!(desk.run(&["verify", "--json"]).expect(0).json()["catalog"], "skipped");
    first.close(at).unwrap();
    desk.run(&import).expect(0);
}

#[test]
fn a_place_that_cannot_be_written() {
    let desk = Desk::new();
    desk.write("file", b"x");
    let import = ["import", "--provider", "auto", FIXTURE];
    for place in ["file", "file/tape", "/proc/birdtape"] {
        let run = desk.run(&[&["--tape", place], &import[..]].concat()).expect(1);
        assert!(run.err.contains(place) && run.err.starts_with("error: "), "{place}: {}", run.err);
    }
    let check = desk.run(&["--tape", "/proc/birdtape", "check", "--offline"]).expect(1);
    assert!(check.text().contains("fail  writable: cannot write to /proc"), "{}", check.text());
}

#[test]
fn files_that_cannot_be_imported() {
    let desk = Desk::new();
    desk.write("empty", b"");
    desk.write("blank", b"\n\r\n\n");
    desk.write("words.zst", b"these are just words\n");
    desk.write("stub.zst", &zstd::encode_all(&b"{\"v\":1}\n"[..], 3).unwrap()[..7]);
    desk.write("binary", b"\x7fELF\x00\x01\x02");
    let cases = [
        ("empty", "nothing to import from empty: it is empty"),
        ("blank", "nothing to import from blank: it holds only empty lines"),
        ("words.zst", "words.zst is not zstd, although its name says so"),
        ("stub.zst", "nothing to import from stub.zst: it breaks off before its first line ends"),
        ("binary", "binary does not hold lines of text: it is a program"),
        ("nowhere", "cannot open nowhere"),
    ];
    for (file, words) in cases {
        desk.run(&["import", "--provider", "tweetstream", file]).fails(1, &[&format!("error: {words}")]);
    }
    desk.run_with_stdin(&["import", "--provider", "auto", "-"], b"").fails(1, &["nothing to import from stdin: it is empty"]);
    desk.run(&["import", "--provider", "auto", "."]).fails(2, &[". is a directory"]);
    desk.run(&["import", "--provider", "twitter", "empty"]).fails(2, &["unknown provider `twitter`; known are", "auto"]);
    desk.run(&["import", "--provider", "x_live", "--source", "../up", "empty"]).fails(2, &["source name `../up`"]);
    assert!(!desk.path("tape").exists());
}

#[test]
fn variables_and_files_that_mean_nothing() {
    let desk = Desk::with_fixture();
    let run = finished(desk.command(["status"]).env("BIRDTAPE_TAPES", "x"));
    run.fails(2, &["unknown environment variable BIRDTAPE_TAPES", "hint: did you mean `BIRDTAPE_TAPE`?"]);
    desk.run(&["--config", "nowhere.toml", "status"]).fails(2, &["configuration file nowhere.toml does not exist", "hint: "]);
    desk.write("birdtape.toml", b"tapes = \"./tape\"\n");
    desk.run(&["status"]).fails(2, &["birdtape.toml line 1: unknown key `tapes`", "hint: did you mean `tape`?"]);
    desk.run(&["--tape", "tape", "status"]).expect(0);
    desk.write("birdtape.toml", b"[source.a]\nprovider = \"tweetstraem\"\n");
    let check = desk.run(&["check", "--offline"]).expect(1);
    assert!(
        check.text().contains("fail  configuration: birdtape.toml line 2, [source.a]: unknown provider `tweetstraem`"),
        "{}",
        check.text()
    );
    assert!(check.text().contains("hint: did you mean `tweetstream`?"), "{}", check.text());
    desk.run(&["statsu"]).fails(2, &["status"]);
    desk.run(&["cat", "--raw", "--json"]).fails(2, &["cannot be used with"]);
}
