//! The commands that read, prove and mend a tape, as a script or a person meets them.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use birdtape::archive::{Archive, Lost, Options};
use birdtape::model::{Body, Cause, ConnId, Draft, Provider, RecordKind, SourceName, UnixMicros, Via};
use birdtape::provider;
use birdtape::segment::RealDisk;

use crate::program::{Desk, FIXTURE, files_below};

/// The fixture's lines by the provider that sent them.
fn expected() -> BTreeMap<&'static str, Vec<u8>> {
    let mut expected = BTreeMap::<_, Vec<u8>>::new();
    for line in std::fs::read(FIXTURE).unwrap().split_inclusive(|b| *b == b'\n') {
        let provider = provider::recognise(line.strip_suffix(b"\n").unwrap()).unwrap();
        expected.entry(provider.name()).or_default().extend_from_slice(line);
    }
    assert_eq!(expected.len(), 4);
    expected
}

#[test]
fn help_of_every_command_is_enough_on_its_own() {
    let desk = Desk::new();
    let help = desk.run(&["--help"]).expect(0);
    let (_, commands) = help.text().split_once("Commands:\n").unwrap();
    let names = commands.lines().take_while(|line| !line.is_empty()).map(|line| line.split_whitespace().next().unwrap());
    let names: Vec<_> = names.filter(|name| *name != "help").collect();
    assert!(names.len() >= 11, "{names:?}");
    for name in names {
        let help = desk.run(&[name, "--help"]).expect(0);
        let (_, examples) = help.text().split_once("Examples:\n").unwrap_or_else(|| panic!("{name} has no example"));
        assert!(examples.contains("birdtape ") && examples.contains(name), "{name}: {examples}");
        let first = help.text().lines().next().unwrap();
        assert!(first.starts_with(char::is_uppercase) && !first.ends_with('.'), "{name}: {first}");
        for expected in ["--tape", "BIRDTAPE_TAPE", "--config", "BIRDTAPE_CONFIG", "--json"] {
            assert!(help.text().contains(expected), "{name} says nothing of {expected}");
        }
    }
}

#[test]
fn versions_are_told() {
    let desk = Desk::new();
    let own = concat!("birdtape ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!(desk.run(&["--version"]).expect(0).text(), own);
    assert_eq!(desk.run(&["-V"]).expect(0).text(), own);
    let run = desk.run(&["--version", "--verbose"]).expect(0);
    let all = run.text();
    let version = |name: &str| {
        let line = all.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name} in {all}"));
        line.split('.').map(|part| part.parse().unwrap()).collect::<Vec<u32>>()
    };
    assert!(version("SQLite ") >= vec![3, 51, 3] && version("zstd ") >= vec![1, 5] && version("rustls ") >= vec![0, 23]);
    let json = desk.run(&["--json", "--version", "--verbose"]).expect(0).json();
    assert!(["birdtape", "sqlite", "zstd", "rustls"].iter().all(|name| json[name].is_string()), "{json}");
    desk.run(&["--verbose", "status"]).fails(2, &["--version"]);
    desk.run(&["--json"]).fails(2, &["no command is given", "birdtape --help"]);
}

#[test]
fn what_was_imported_comes_back_byte_for_byte() {
    let text = std::fs::read(FIXTURE).unwrap();
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(&text).unwrap();
    let desk = Desk::new();
    desk.write("lines", &text);
    desk.write("lines.gz", &gz.finish().unwrap());
    desk.write("misnamed", &zstd::encode_all(&text[..], 3).unwrap());
    let zst = zstd::encode_all(&text[..], 3).unwrap();
    for (tape, file) in [("a", "lines"), ("b", "lines.gz"), ("c", "misnamed"), ("d", "-")] {
        let args = ["--tape", tape, "import", "--json", "--provider", "auto", file];
        let run = if file == "-" { desk.run_with_stdin(&args, &zst) } else { desk.run(&args) };
        let report = run.expect(0).json();
        assert_eq!((&report["envelopes"], &report["unrecognised"]), (&400.into(), &0.into()));
        for (source, lines) in expected() {
            let printed = desk.run(&["--tape", tape, "cat", "--raw", "--source", source]).expect(0);
            assert!(printed.out == lines, "{file}: {source} comes back changed");
        }
        desk.run(&["--tape", tape, "verify"]).expect(0);
        let open = files_below(&desk.path(tape)).into_iter().filter(|file| file.to_string_lossy().contains("zst.open"));
        assert_eq!(open.count(), 0, "all is sealed");
    }
}

#[test]
fn a_named_provider_keeps_every_line_whatever_it_is() {
    let desk = Desk::new();
    desk.write("odd", b"{\"v\":1}\r\n\n\xff\xfe not utf-8\nplain \"words\"\n[1,2]\n{\"torn\":");
    let args = ["import", "--json", "--provider", "tweetstream", "--source", "odd", "odd"];
    let report = desk.run(&args).expect(0).json();
    assert_eq!((&report["envelopes"], &report["empty_lines"]), (&5.into(), &1.into()));
    let raw = desk.run(&["cat", "--raw"]).expect(0);
    assert_eq!(raw.out, b"{\"v\":1}\n\xff\xfe not utf-8\nplain \"words\"\n[1,2]\n{\"torn\":\n");
    let lines = desk.run(&["cat"]).expect(0);
    assert!(lines.text().lines().all(|line| line.starts_with("{\"source\":\"odd\",\"n\":")), "{}", lines.text());
    for line in lines.text().lines() {
        let record: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!((&record["via"], &record["conn"]), (&"import".into(), &0.into()));
    }
    desk.run(&args).expect(0);
    assert_eq!(desk.run(&["cat", "--raw"]).expect(0).out.len(), 2 * raw.out.len(), "importing again appends again");
    desk.run(&["verify"]).expect(0);
}

#[test]
fn lines_of_no_provider_are_kept_counted_and_told() {
    let desk = Desk::new();
    desk.write("mixed", b"what is this\n{\"event_type\":\"connected\",\"timestamp\":1767614399984}\n{\"odd\":1}\n");
    let run = desk.run(&["import", "--provider", "auto", "mixed"]).expect(3);
    assert!(run.err.contains("2 lines were not recognised (first at line 1; lines 1, 3)"), "{}", run.err);
    let raw = desk.run(&["cat", "--raw", "--source", "twitterapi_io"]).expect(0);
    assert_eq!(raw.out, std::fs::read(desk.path("mixed")).unwrap());
    let first = desk.run(&["cat"]).expect(0).text().lines().next().unwrap().to_owned();
    assert!(first.contains("\"at\":\"2026-01-05T11:59:59.984000Z\""), "dated like the first stamp: {first}");

    desk.write("none", b"what\nis\nthis\n");
    let hint = "hint: say whose they are with --provider";
    desk.run(&["--tape", "no", "import", "--provider", "auto", "none"]).fails(1, &["none of the first 3 line(s)", hint]);
    assert!(!desk.path("no").exists(), "a mistaken file leaves no tape");
    let both = ["import", "--provider", "auto", "--source", "x", "mixed"];
    desk.run(&both).fails(2, &["--source does not go with --provider auto"]);
}

#[test]
fn a_torn_file_is_imported_as_far_as_it_goes() {
    let text = std::fs::read(FIXTURE).unwrap();
    let whole = zstd::encode_all(&text[..], 3).unwrap();
    let desk = Desk::new();
    desk.write("torn.zst", &whole[..whole.len() / 2]);
    let run = desk.run(&["import", "--json", "--provider", "auto", "torn.zst"]).expect(3);
    assert!(run.err.contains("torn.zst breaks off in line "), "{}", run.err);
    let report = run.json();
    let n = report["envelopes"].as_u64().unwrap();
    assert!(n > 10 && n < 400, "{n}");
    assert_eq!(report["cut"]["line"], n + 1);
    desk.run(&["verify"]).expect(0);
    assert_eq!(desk.run(&["cat", "--raw"]).expect(0).text().lines().count() as u64, n);
}

#[test]
fn verify_tells_scripts_what_holds() {
    let desk = Desk::with_fixture();
    let report = desk.run(&["verify", "--json"]).expect(0).json();
    assert_eq!((&report["ok"], &report["catalog"], &report["damage"]), (&true.into(), &"equal".into(), &serde_json::json!([])));
    let sources = report["sources"].as_array().unwrap();
    assert_eq!(sources.iter().map(|s| s["envelopes"].as_u64().unwrap()).sum::<u64>(), 400);
    assert!(desk.run(&["verify"]).expect(0).text().ends_with("whole: ./tape\n"));
}

#[test]
fn a_segment_that_is_damaged_truncated_empty_or_no_zstd_is_told() {
    type Harm = fn(&mut Vec<u8>);
    let cases: [(&str, Harm); 4] = [
        ("flipped", |bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        }),
        ("truncated", |bytes| bytes.truncate(bytes.len() / 2)),
        ("empty", Vec::clear),
        ("no zstd", |bytes| *bytes = b"these are just words\n".repeat(20)),
    ];
    for (what, damage) in cases {
        let desk = Desk::with_fixture();
        let segments = files_below(&desk.path("tape/segments"));
        let hit = segments.iter().find(|file| file.to_string_lossy().contains("twitterapi_io")).unwrap();
        let mut bytes = std::fs::read(hit).unwrap();
        damage(&mut bytes);
        std::fs::write(hit, bytes).unwrap();

        let run = desk.run(&["verify", "--json"]).expect(3);
        let report = run.json();
        assert_eq!(report["ok"], false, "{what}");
        let places: Vec<_> = report["damage"].as_array().unwrap().iter().map(|d| d["place"].as_str().unwrap()).collect();
        let name = hit.file_name().unwrap().to_str().unwrap();
        assert!(places.iter().any(|place| place.contains(name)), "{what}: {places:?}");
        assert!(desk.run(&["verify"]).expect(3).text().contains(name), "{what}");
        // The others are still read.
        assert_eq!(desk.run(&["cat", "--raw", "--source", "tweetstream"]).expect(0).out, expected()["tweetstream"], "{what}");
    }
}

#[test]
fn get_finds_every_record_about_a_post() {
    let desk = Desk::with_fixture();
    let wanted = "2008146453515055360";
    let raw = desk.run(&["get", wanted, "--raw"]).expect(0);
    assert!(raw.text().lines().count() >= 1);
    assert!(raw.text().lines().all(|line| line.contains(wanted)));
    let json = desk.run(&["get", wanted, "--json"]).expect(0);
    let first: serde_json::Value = serde_json::from_str(json.text().lines().next().unwrap()).unwrap();
    assert_eq!(first["source"], "twitterapi_io");
    assert!(desk.run(&["get", wanted]).expect(0).text().contains("twitterapi_io 2  frame  tweet"));
    desk.run(&["get", "42"]).fails(1, &["no record of tape ./tape is about post 42", "hint: "]);
    for bad in ["abc", "1e5", "99999999999999999999999"] {
        desk.run(&["get", bad]).fails(2, &["a post's id is a number"]);
    }
}

#[test]
fn status_says_what_is_there() {
    let desk = Desk::with_fixture();
    let text = desk.run(&["status"]).expect(0);
    for expected in ["recording: nobody", "tweetstream", "114", "open gaps"] {
        assert!(text.text().contains(expected), "{expected}: {}", text.text());
    }
    let status = desk.run(&["status", "--json"]).expect(0).json();
    assert_eq!((&status["recording"], &status["format"]), (&false.into(), &1.into()));
    let source = status["sources"].as_array().unwrap().iter().find(|s| s["source"] == "tweetstream").unwrap();
    assert_eq!((&source["records"], &source["segments"]), (&114.into(), &1.into()));
    let kinds: Vec<_> = source["last_seen"].as_array().unwrap().iter().map(|seen| seen["kind"].as_str().unwrap()).collect();
    assert!(kinds.contains(&"tweet") && kinds.contains(&"meta"), "{kinds:?}");
}

/// A tape with one gap that has ended and one that is still growing.
fn with_gaps(desk: &Desk) -> SourceName {
    let name = SourceName::new("alpha").unwrap();
    let at = |second: i64| UnixMicros(1_767_614_400_000_000 + second * 1_000_000);
    let (horizon, boot) = (Duration::from_secs(60), || ("boot".to_owned(), Duration::from_secs(9)));
    let dir = desk.path("tape");
    let mut archive =
        Archive::open(&dir, Arc::new(RealDisk), Options::default(), provider::decode_record, "a test", at(0)).unwrap();
    archive.add_source(&name, Provider::Tweetstream).unwrap();
    archive.start_source(&name, horizon, boot(), at(0)).unwrap();
    archive.live(&name, "*", horizon, at(1), "the first frame").unwrap();
    let draft = |second| Draft {
        received_at: at(second),
        kind: RecordKind::Frame,
        via: Via::Ws,
        conn: ConnId(1),
        info: None,
        body: Body::Bytes(bytes::Bytes::from_static(b"{\"v\":1}")),
    };
    let frame = |archive: &mut Archive, second| {
        let draft = draft(second);
        let Body::Bytes(body) = &draft.body else { unreachable!() };
        let decoded = provider::decode(Provider::Tweetstream, body);
        archive.append(&name, &draft, Some(&decoded)).unwrap();
    };
    frame(&mut archive, 2);
    archive.lost(&name, at(100), Lost { scope: "*", cause: Cause::ConnectionLost, detail: "the server went away" }).unwrap();
    archive.live(&name, "*", horizon, at(110), "a frame").unwrap();
    frame(&mut archive, 110);
    archive.lost(&name, at(400), Lost { scope: "*", cause: Cause::Unreachable, detail: "no \x1b[2Jroute" }).unwrap();
    archive.close(at(401)).unwrap();
    name
}

#[test]
fn the_ledger_is_listed_shown_and_answered() {
    let desk = Desk::new();
    with_gaps(&desk);
    let list = desk.run(&["gaps"]).expect(0);
    for expected in ["connection_lost", "unreachable", "still growing", "the server went away", "\\u{1b}[2Jroute"] {
        assert!(list.text().contains(expected), "{expected}: {}", list.text());
    }
    let lines = desk.run(&["gaps", "list", "--open", "--json"]).expect(0);
    let gaps: Vec<serde_json::Value> = lines.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(gaps.len(), 2);
    assert_eq!((&gaps[0]["cause"], &gaps[0]["scope"], &gaps[1]["to"]), (&"connection_lost".into(), &"*".into(), &().into()));
    let id = gaps[0]["id"].as_str().unwrap();

    let shown = desk.run(&["gaps", "show", id, "--json"]).expect(0).json();
    assert!(!shown["steps"].as_array().unwrap().is_empty());
    assert!(desk.run(&["gaps", "show", id]).expect(0).text().contains("window: "));
    desk.run(&["gaps", "ignore", id, "--reason", "only a test"]).expect(0);
    let shown = desk.run(&["gaps", "show", id]).expect(0);
    assert!(shown.text().contains("ignored") && shown.text().contains("only a test"), "{}", shown.text());
    assert_eq!(desk.run(&["gaps", "--open", "--json"]).expect(0).text().lines().count(), 1);
    desk.run(&["verify"]).expect(0);
    desk.run(&["rebuild"]).expect(0);
    assert_eq!(desk.run(&["gaps", "--open", "--json"]).expect(0).text().lines().count(), 1, "a rebuild knows the decision");

    desk.run(&["gaps", "show", "alpha-99999"]).fails(1, &["there is no gap alpha-99999", "hint: `birdtape gaps`"]);
    desk.run(&["gaps", "show", "nonsense"]).fails(2, &["`nonsense` is no gap's id"]);
    desk.run(&["gaps", "--source", "beta"]).fails(2, &["no source `beta`; it has alpha"]);
}

/// An envelope whose text tries to take a terminal over.
const HOSTILE: &str = r#"{"v":1,"t":"tweet","op":"content","id":"2008146453515055360","ts":1767614400000,"d":{"tweetId":"2008146453515055360","text":"\u001b]52;c;aGk=\u0007 \r\nforged line \u202egnp.exe \u009b2J"}}"#;

#[test]
fn tweets_command_no_terminal() {
    let desk = Desk::new();
    // Once escaped by JSON, once as they are.
    let bare = HOSTILE.replace("\\u001b", "\x1b").replace("\\u0007", "\x07").replace("\\u202e", "\u{202e}");
    desk.write("hostile", format!("{HOSTILE}\n{bare}\n").as_bytes());
    desk.run(&["import", "--provider", "tweetstream", "hostile"]).expect(0);
    for args in [&["tail"][..], &["get", "2008146453515055360"], &["gaps"], &["status"]] {
        let run = desk.run(args).expect(0);
        let bad = |c: char| (c.is_control() && c != '\n') || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        assert!(!run.text().contains(bad), "{args:?}: {:?}", run.text());
        assert!(!run.text().lines().any(|line| line.starts_with("forged")), "{}", run.text());
    }
    assert!(desk.run(&["tail"]).text().contains(r"\u{1b}]52;c;aGk=\u{7} \r\nforged line \u{202e}gnp.exe \u{9b}2J"));
    assert_eq!(desk.run(&["cat", "--raw"]).expect(0).out, std::fs::read(desk.path("hostile")).unwrap(), "a pipe gets the bytes");
}

#[test]
fn tail_shows_the_newest_and_follows() {
    let desk = Desk::with_fixture();
    assert_eq!(desk.run(&["tail", "-n", "3"]).expect(0).text().lines().count(), 3);
    assert_eq!(desk.run(&["tail", "-n", "1000"]).expect(0).text().lines().count(), 400);
    assert_eq!(desk.run(&["tail", "-n", "0"]).expect(0).text(), "");

    let mut command = desk.command(["tail", "-n", "1", "--follow", "--json", "--source", "tweetstream"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let n = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["n"].as_u64().unwrap();
    assert_eq!(n(&lines.next().unwrap().unwrap()), 114);
    desk.run(&["import", "--provider", "auto", FIXTURE]).expect(0);
    for expected in 115..=228 {
        assert_eq!(n(&lines.next().unwrap().unwrap()), expected);
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn cat_cuts_by_kind_and_time_and_ends_quietly() {
    let desk = Desk::with_fixture();
    let all = desk.run(&["cat"]).expect(0);
    assert_eq!(all.text().lines().count(), 400);
    let at = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["at"].as_str().unwrap().to_owned();
    let middle = at(all.text().lines().nth(200).unwrap());
    let count = |args: &[&str]| desk.run(&[&["cat"], args].concat()).expect(0).text().lines().count();
    assert_eq!(count(&["--from", &middle]) + count(&["--to", &middle]), 400);
    assert_eq!((count(&["--kind", "note"]), count(&["--kind", "frame"])), (0, 400));
    assert_eq!((count(&["--from", "-1h"]), count(&["--to", "2026-01-01"])), (0, 0));
    desk.run(&["cat", "--from", "yesterday"]).fails(2, &["a time is written as"]);
    desk.run(&["cat", "--kind", "dream"]).fails(2, &["unknown kind `dream`; known are frame"]);
    for command in [
        &["cat"][..],
        &["tail"],
        &["gaps"],
        &["certify", "--from", "-2h", "--to", "-1h"],
        &["fixture", "cut", "--sample", "1", "--out", "x"],
    ] {
        let run = desk.run(&[command, &["--source", "nobody"]].concat());
        run.fails(2, &["no source `nobody`; it has scrapebadger"]);
    }

    let mut child = desk.command(["cat"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut some = [0; 100];
    child.stdout.take().unwrap().read_exact(&mut some).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8(output.stderr).unwrap().as_str()), (Some(0), ""));
}

#[test]
fn the_catalog_comes_back_from_the_segments() {
    let desk = Desk::with_fixture();
    let before = desk.run(&["cat"]).expect(0);
    for name in ["catalog.sqlite", "catalog.sqlite-wal", "catalog.sqlite-shm"] {
        drop(std::fs::remove_file(desk.path("tape").join(name)));
    }
    desk.run(&["cat"]).fails(1, &["the catalog of tape ./tape cannot be read", "hint: `birdtape rebuild`"]);
    desk.run(&["verify"]).expect(3);
    let run = desk.run(&["rebuild"]).expect(0);
    assert!(run.text().starts_with("indexed 400 records; catalog: equal to the segments"), "{}", run.text());
    assert_eq!(desk.run(&["cat"]).expect(0).out, before.out);
    assert_eq!(desk.run(&["recover"]).expect(0).text(), "nothing to mend\n");
}

#[test]
fn init_and_check_lead_to_the_first_recording() {
    let desk = Desk::new();
    let run = desk.run(&["init"]).expect(0);
    assert!(run.err.contains("wrote birdtape.toml") && run.err.contains("next: "), "{}", run.err);
    desk.run(&["init"]).fails(1, &["birdtape.toml is there already", "--force"]);
    desk.run(&["init", "--force"]).expect(0);
    let check = desk.run(&["check"]).expect(0);
    for expected in
        ["warn  configuration: birdtape.toml: no source", "ok    tape: ./tape: not there yet", "ok    disk: ", "ok    clock: "]
    {
        assert!(check.text().contains(expected), "{expected}: {}", check.text());
    }
    desk.write("birdtape.toml", b"[source.alpha]\nprovider = \"tweetstream\"\n");
    let check = desk.run(&["check", "--offline"]).expect(1);
    assert!(check.text().contains("fail  configuration: source `alpha` has no key: environment variable TWEETSTREAM_API_KEY"));

    let mut command = desk.command(["check", "--offline", "--json"]);
    let check = crate::program::finished(command.env("TWEETSTREAM_API_KEY", "pl4nted-key-7c1e")).expect(0);
    assert!(check.text().contains("TWEETSTREAM_API_KEY") && !check.text().contains("pl4nted"), "{}", check.text());
    for line in check.text().lines() {
        assert_eq!(serde_json::from_str::<serde_json::Value>(line).unwrap()["verdict"], "ok", "{line}");
    }
    // Nobody listens where a listener has just gone.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = format!("[source.alpha]\nprovider = \"tweetstream\"\nbase_url = \"http://127.0.0.1:{port}\"\n");
    desk.write("birdtape.toml", config.as_bytes());
    let check = desk.run(&["check"]).expect(1);
    assert!(check.text().contains(&format!("fail  reach: alpha: 127.0.0.1:{port}")), "{}", check.text());
}

#[test]
fn an_import_under_the_wrong_provider_is_told() {
    let desk = Desk::new();
    let run = desk.run(&["import", "--provider", "x_live", FIXTURE]).expect(0);
    assert!(run.err.contains("have the shape of another provider"), "{}", run.err);
    let run = Desk::new().run(&["import", "--provider", "auto", FIXTURE]).expect(0);
    assert!(!run.err.contains("another provider"), "{}", run.err);
    desk.run(&["topics", "add", "foo"]).fails(2, &["a topic is a path such as /tweet_engagement/"]);
}

#[test]
fn a_made_up_world_is_shaped_by_flags() {
    let desk = Desk::new();
    let shape = "--synthetic --speed max --count 6000 --rate 200 --mix tweetstream=70,scrapebadger=30 --languages ar=1,he=1 \
                 --burst 20x:1s:100ms --day-curve --edits 2% --deletes 0.1 --truth-social 20%";
    let replay = crate::server::Replay::start(&desk, &shape.split_whitespace().collect::<Vec<_>>());
    let sources = ["--provider", "tweetstream", "--provider", "scrapebadger"];
    let base = ["record", "--base-url", &replay.base, "--until-idle", "1.5"];
    desk.run(&[&base[..], &sources[..]].concat()).expect(0);
    let mut n_lines = 0;
    for (source, holds) in [
        ("tweetstream", &["\"op\":\"delete\"", "\"platform\":\"truth_social\"", "\"op\":\"content\""][..]),
        ("scrapebadger", &["\"lang\": \"ar\"", "\"lang\": \"he\"", "\\u06"]),
    ] {
        let run = desk.run(&["cat", "--raw", "--source", source]).expect(0);
        n_lines += run.text().lines().count();
        assert!(holds.iter().all(|part| run.text().contains(part)), "{source} lacks one of {holds:?}");
    }
    assert_eq!(n_lines, 6_000);
}

#[test]
fn flags_of_a_made_up_world_say_what_they_take() {
    let desk = Desk::new();
    for (flag, value, words) in [
        ("--mix", "birds=1", &["`birds` is not known", "twitterapi_io, tweetstream, scrapebadger, x_live"][..]),
        ("--mix", "x_live", &["`x_live` is not written as name=number"]),
        ("--mix", "x_live=many", &["`many` is no share of x_live"]),
        ("--mix", "x_live=1,x_live=2", &["x_live stands there twice"]),
        ("--mix", "x_live=0", &["all shares are 0"]),
        ("--burst", "often", &["a burst is written as RATE:EVERY:FOR"]),
        ("--burst", "20x:10m:15", &["--synthetic"]),
        ("--burst", "0x:10m:15s", &["a whole number"]),
        ("--burst", "20x:soon:15s", &["a length of time is written in seconds"]),
        ("--burst", "20x:10s:1m", &["not longer than to the next"]),
        ("--languages", "tlh=1", &["`tlh` is not known", "en, ja, es"]),
        ("--edits", "200%", &["a share is 0 to 1"]),
        ("--deletes", "-1", &["a share is 0 to 1"]),
        ("--dms", "some", &["a share is 0 to 1"]),
        ("--truth-social", "NaN", &["a share is 0 to 1"]),
        ("--rate", "0", &["a rate is a number of envelopes a second"]),
        ("--rate", "500", &["--rate shapes a made-up world", "add --synthetic"]),
    ] {
        desk.run(&["replay", flag, value]).fails(2, words);
    }
    desk.run(&["replay", "--day-curve"]).fails(2, &["--day-curve shapes a made-up world"]);
}
