//! A tape becomes tables, and other people's tools read them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use birdtape::archive::{self, Archive};
use birdtape::model::{Body, Cause, ConnId, Draft, GapState, Provider, RecordKind, SourceName, UnixMicros, Via};
use birdtape::provider;
use birdtape::segment::RealDisk;
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::record::{Field, Row};

use crate::program::{Desk, FIXTURE, files_below, finished};

/// All files of an export but the lock, with their bytes.
fn content(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = if dir.exists() { files_below(dir) } else { Vec::new() };
    let files = files.into_iter().filter(|file| !file.ends_with("_birdtape/lock"));
    let name = |file: &PathBuf| file.strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
    files.map(|file| (name(&file), std::fs::read(&file).unwrap())).collect()
}

#[track_caller]
fn assert_same(one: &Path, other: &Path) {
    let (one, other) = (content(one), content(other));
    assert_eq!(one.keys().collect::<Vec<_>>(), other.keys().collect::<Vec<_>>());
    let differ: Vec<_> = one.iter().filter(|(name, bytes)| other[*name] != **bytes).map(|(name, _)| name).collect();
    assert!(differ.is_empty(), "{differ:?}");
}

pub(crate) fn rows(dir: &Path, table: &str) -> Vec<Row> {
    let dir = dir.join(table);
    let files = if dir.exists() { files_below(&dir) } else { Vec::new() };
    let read = |file: PathBuf| SerializedFileReader::new(File::open(file).unwrap()).unwrap().into_iter().map(Result::unwrap);
    files.into_iter().flat_map(read).collect()
}

fn field<'a>(row: &'a Row, name: &str) -> &'a Field {
    row.get_column_iter().find(|(column, _)| *column == name).unwrap_or_else(|| panic!("no column {name}")).1
}

fn number(row: &Row, name: &str) -> Option<i64> {
    match field(row, name) {
        Field::Long(n) | Field::TimestampMicros(n) => Some(*n),
        Field::Null => None,
        other => panic!("{name}: {other:?}"),
    }
}

fn word<'a>(row: &'a Row, name: &str) -> Option<&'a str> {
    match field(row, name) {
        Field::Str(text) => Some(text),
        Field::Null => None,
        other => panic!("{name}: {other:?}"),
    }
}

const EXPORT: [&str; 4] = ["export", "parquet", "--out", "lake"];

#[test]
fn every_envelope_and_event_is_in_its_table() {
    let desk = Desk::with_fixture();
    let lake = desk.path("lake");
    let report = desk.run(&[&EXPORT[..], &["--json", "--drift", "drift.json"]].concat()).expect(0).json();
    let envelopes = rows(&lake, "envelopes");
    assert_eq!(envelopes.len(), 400);
    let raw = desk.run(&["cat", "--raw"]).expect(0);
    let mut on_tape: Vec<&str> = raw.text().lines().collect();
    let mut in_table: Vec<&str> = envelopes.iter().map(|row| word(row, "raw").unwrap()).collect();
    on_tape.sort_unstable();
    in_table.sort_unstable();
    assert_eq!(on_tape, in_table);

    let mut events = 0;
    for (name, source) in [("twitterapi_io", 0), ("tweetstream", 1), ("scrapebadger", 2), ("x_live", 3)] {
        let decode = |raw: &str| provider::decode(Provider::ALL[source], raw.as_bytes());
        let mine = envelopes.iter().filter(|row| word(row, "source") == Some(name));
        events += mine.map(|row| decode(word(row, "raw").unwrap()).events.len()).sum::<usize>();
    }
    assert_eq!(rows(&lake, "events").len(), events);
    assert_eq!(report["tables"]["events"]["rows"], events);

    let tweets = rows(&lake, "tweets");
    let mut keys: Vec<_> = tweets.iter().map(|row| (word(row, "platform").unwrap(), number(row, "tweet_id").unwrap())).collect();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), tweets.len(), "one row a post");
    let seen: i64 = tweets.iter().map(|row| number(row, "seen_count").unwrap()).sum();
    assert_eq!(report["tables"]["tweets"]["sightings"], seen);
    assert_eq!(report["tables"]["tweets"]["rows"], tweets.len());
    for row in &tweets {
        let (published, id) = (number(row, "published_at").unwrap(), number(row, "tweet_id").unwrap() as u64);
        let by_id = birdtape::model::TweetId(id).published_at().unwrap().0;
        assert!(word(row, "platform") != Some("x") || published == by_id, "{id}");
    }
    for table in ["engagement", "dm_activity", "follows", "profile_changes"] {
        assert_eq!(report["tables"][table]["rows"], rows(&lake, table).len(), "{table}");
    }
    assert!(desk.path("drift.json").is_file());
}

#[test]
fn the_second_run_touches_nothing() {
    let desk = Desk::with_fixture();
    desk.run(&EXPORT).expect(0);
    let stamps = |dir: &Path| -> Vec<_> {
        let files = files_below(dir).into_iter().filter(|file| !file.ends_with("lock"));
        files.map(|file| (std::fs::metadata(&file).unwrap().modified().unwrap(), file)).collect()
    };
    let before = stamps(&desk.path("lake"));
    let report = desk.run(&[&EXPORT[..], &["--json"]].concat()).expect(0).json();
    assert_eq!(report["files_written"], 0, "{report}");
    assert_eq!(stamps(&desk.path("lake")), before);
    let gone = before.iter().find(|(_, file)| file.to_str().unwrap().contains("/tweets/")).unwrap();
    let bytes = std::fs::read(&gone.1).unwrap();
    std::fs::remove_file(&gone.1).unwrap();
    let report = desk.run(&[&EXPORT[..], &["--json"]].concat()).expect(0).json();
    assert_eq!(report["files_written"], 1, "a file that is gone is made again: {report}");
    assert!(std::fs::read(&gone.1).unwrap() == bytes);
}

/// Imports a made-up broadcast in pieces and exports after each: the end is that of a new export.
#[test]
fn added_to_or_made_anew_it_is_the_same() {
    let desk = Desk::new();
    let text = std::fs::read_to_string(FIXTURE).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    for (at, piece) in lines.chunks(90).enumerate() {
        desk.write(&format!("{at}.jsonl"), (piece.join("\n") + "\n").as_bytes());
        desk.run(&["import", "--provider", "auto", &format!("{at}.jsonl")]).expect(0);
        desk.run(&EXPORT).expect(0);
    }
    // Seen again: rows of old partitions change.
    desk.run(&["import", "--provider", "auto", "1.jsonl"]).expect(0);
    let report = desk.run(&[&EXPORT[..], &["--json"]].concat()).expect(0).json();
    assert!(report["tables"]["tweets"]["merged"].as_u64() > Some(0), "{report}");
    desk.run(&["export", "parquet", "--out", "fresh"]).expect(0);
    assert_same(&desk.path("lake"), &desk.path("fresh"));
}

#[test]
fn little_memory_gives_the_same_bytes() {
    let desk = Desk::with_fixture();
    desk.run(&["import", "--provider", "auto", FIXTURE]).expect(0);
    desk.run(&EXPORT).expect(0);
    let small = desk.run(&["--json", "export", "parquet", "--out", "small", "--memory", "1KiB"]).expect(0).json();
    assert!(small["spilled_bytes"].as_u64() > Some(0));
    assert_same(&desk.path("lake"), &desk.path("small"));
}

#[cfg(unix)]
#[test]
fn a_signal_leaves_nothing_half_done() {
    let desk = Desk::with_fixture();
    let tmp = desk.path("tmp");
    std::fs::create_dir(&tmp).unwrap();
    let stopped = |args: &[&str], has_begun: &dyn Fn(&Path) -> bool| {
        for round in 0..200 {
            let out = desk.path(&format!("out-{round}"));
            let mut command = desk.command(args);
            command.arg("--out").arg(&out).env("TMPDIR", &tmp).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = command.spawn().unwrap();
            while !has_begun(&out) && child.try_wait().unwrap().is_none() {
                std::thread::yield_now();
            }
            // One that has ended already is not waited for yet, so its number is still its own.
            finished(Command::new("kill").arg("-INT").arg(child.id().to_string()));
            let ended = child.wait_with_output().unwrap();
            let err = String::from_utf8(ended.stderr).unwrap();
            let left: Vec<_> = [&out, &tmp].into_iter().filter(|dir| dir.is_dir()).flat_map(|dir| files_below(dir)).collect();
            if ended.status.code() == Some(130) {
                assert!(err.contains("stopping; once more") && err.contains("stopped; nothing is half done"), "{err}");
                assert!(left.iter().all(|file| file.ends_with("_birdtape/lock") || file.ends_with("part-0.parquet")), "{left:?}");
                let named =
                    |dir: &Path| std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();
                let hidden =
                    named(&desk.path("")).into_iter().chain(named(&tmp)).find(|name| name.to_string_lossy().starts_with('.'));
                assert_eq!(hidden, None);
                return;
            }
            assert_eq!(ended.status.code(), Some(0), "{err}");
            drop(std::fs::remove_dir_all(&out).or_else(|_| std::fs::remove_file(&out)));
        }
        panic!("every export ended before the signal came");
    };
    let of_directory = |out: &Path| {
        let ours = std::fs::read_dir(out.join("_birdtape"));
        ours.is_ok_and(|all| all.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("tmp-")))
    };
    stopped(&["export", "parquet", "--memory", "1KiB"], &of_directory);
    let of_text = |_: &Path| {
        let dir = std::fs::read_dir(desk.path("")).unwrap();
        dir.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with(".birdtape-"))
    };
    stopped(&["export", "jsonl", "--table", "events", "--memory", "1KiB"], &of_text);
}

/// Exports into a small disk of its own, as the first argument says, and lists what is left there.
const ON_A_SMALL_DISK: &str =
    r#"mount -t tmpfs -o size="$1" birdtape lake && shift && { "$@"; code=$?; find lake -type f; exit $code; }"#;

#[test]
fn a_destination_that_is_full_is_told_and_left_clean() {
    let desk = Desk::with_fixture();
    std::fs::create_dir(desk.path("lake")).unwrap();
    let on_disk = |size: &str| {
        let mut export = Command::new("unshare");
        export.args(["--mount", "--map-root-user", "sh", "-c", ON_A_SMALL_DISK, "sh", size]);
        export.arg(env!("CARGO_BIN_EXE_birdtape")).args(EXPORT).current_dir(desk.path(""));
        export
    };
    if !on_disk("64m").output().is_ok_and(|output| output.status.success()) {
        println!("skipped: no disk of a chosen size can be mounted here");
        return;
    }
    let (mut n_full, mut n_parquet) = (0, 0);
    for kib in (32..).step_by(32) {
        let run = finished(&mut on_disk(&format!("{kib}k")));
        if run.code == 0 {
            break;
        }
        let left: Vec<_> = run.text().lines().filter(|file| !file.contains("/date=")).collect();
        assert!(left.is_empty() || left == ["lake/_birdtape/lock"], "{kib} KiB: {left:?}");
        n_full += 1;
        n_parquet += usize::from(run.err.contains(".parquet"));
        run.fails(1, &["cannot write", "No space left on device", "hint: free some space"]);
    }
    assert!(n_full > 4 && n_parquet > 0, "{n_full} disks were too small, {n_parquet} for a file of Parquet");
}

#[test]
fn two_at_once_and_what_does_not_belong_together() {
    let desk = Desk::with_fixture();
    desk.run(&EXPORT).expect(0);
    let lock = File::open(desk.path("lake/_birdtape/lock")).unwrap();
    lock.lock().unwrap();
    desk.run(&EXPORT).fails(1, &["another export writes to lake", "hint: wait until it has ended"]);
    drop(lock);
    let only = [&EXPORT[..], &["--table", "tweets"]].concat();
    desk.run(&only).fails(1, &["lake holds an export of another selection", "--force"]);
    let lean = [&EXPORT[..], &["--extra", "unexpected"]].concat();
    desk.run(&lean).fails(1, &["of another selection", "with unexpected fields only"]);
    desk.run(&["--tape", "second", "import", "--provider", "auto", FIXTURE]).expect(0);
    desk.run(&[&["--tape", "second"], &EXPORT[..]].concat()).fails(1, &["lake holds an export of another tape", "hint: "]);
    desk.run(&[&only[..], &["--force"]].concat()).expect(0);
    assert!(!desk.path("lake/events").exists() && !desk.path("lake/coverage").exists(), "what it replaces is gone");
    desk.write("lake/diary", b"dear diary");
    desk.run(&only).expect(0);
    std::fs::create_dir(desk.path("desk")).unwrap();
    desk.write("desk/diary", b"dear diary");
    desk.run(&["export", "parquet", "--out", "desk"]).fails(1, &["desk holds other files, such as `diary`", "hint: "]);
}

#[test]
fn what_cannot_work_is_refused() {
    let desk = Desk::with_fixture();
    let with = |more: &[&str]| desk.run(&[&EXPORT[..], more].concat());
    with(&["--from", "2026-01-06", "--to", "2026-01-05"]).fails(2, &["is not before --to", "hint: "]);
    with(&["--table", "birds"]).fails(2, &["unknown table `birds`; known are tweets, events"]);
    with(&["--source", "nobody"]).fails(1, &["the tape has no source `nobody`"]);
    desk.write("file", b"x");
    desk.run(&["export", "parquet", "--out", "file"]).fails(2, &["file is a file"]);
    desk.run(&["export", "parquet", "--out", "/proc/lake"]).fails(1, &["error: cannot create /proc/lake"]);
    assert!(!desk.path("lake").exists() || content(&desk.path("lake")).is_empty());
}

#[test]
fn a_damaged_block_costs_its_rows_only() {
    let desk = Desk::with_fixture();
    let segment = files_below(&desk.path("tape/segments/tweetstream")).remove(0);
    let mut bytes = std::fs::read(&segment).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x55;
    std::fs::write(&segment, &bytes).unwrap();
    let run = desk.run(&[&EXPORT[..], &["--json"]].concat()).expect(3);
    assert!(run.err.contains("damage: tweetstream: "), "{}", run.err);
    let envelopes = rows(&desk.path("lake"), "envelopes");
    assert!(!envelopes.is_empty() && envelopes.len() < 400);
    desk.run(&EXPORT).expect(3);
}

/// SIGKILL at any moment leaves old or new files, never halves; run again it is as if nothing had happened.
#[test]
fn killed_and_run_again() {
    let desk = Desk::with_fixture();
    desk.run(&["export", "parquet", "--out", "fresh"]).expect(0);
    let fresh = content(&desk.path("fresh"));
    for round in 0..12u32 {
        let mut child = desk.command(EXPORT).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        // As soon as so many files are there; an export that ends before is no harm.
        let wanted = round as usize;
        while child.try_wait().unwrap().is_none() {
            let there = files_now(&desk.path("lake"));
            if there.iter().filter(|file| file.ends_with(".parquet")).count() >= wanted {
                break;
            }
        }
        child.kill().ok();
        child.wait().unwrap();
        for (name, bytes) in content(&desk.path("lake")) {
            assert!(name.contains("/tmp-") || fresh.get(&name) == Some(&bytes), "{name} is neither old nor new");
        }
        if round % 2 == 1 {
            desk.run(&EXPORT).expect(0);
            assert_same(&desk.path("lake"), &desk.path("fresh"));
            std::fs::remove_dir_all(desk.path("lake")).unwrap();
        }
    }
}

/// Names below a directory in which somebody is at work.
fn files_now(dir: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if path.is_dir() && !name.starts_with("tmp-") { names.extend(files_now(&path)) } else { names.push(name) }
    }
    names
}

#[test]
fn duckdb_reads_the_tables() {
    let Some(python) = std::env::var_os("BIRDTAPE_TEST_PYTHON").filter(|path| !path.is_empty()) else {
        println!("skipped: BIRDTAPE_TEST_PYTHON names no Python with DuckDB");
        return;
    };
    let desk = Desk::with_fixture();
    desk.run(&EXPORT).expect(0);
    let script = r#"
import duckdb, sys
lake = sys.argv[1]
one = lambda query: duckdb.sql(query).fetchall()
tweets = f"read_parquet('{lake}/tweets/*/*.parquet', hive_partitioning = true)"
print(one(f"SELECT typeof(any_value(tweet_id)), typeof(any_value(published_at)), typeof(any_value(rules)), typeof(any_value(date)) FROM {tweets}")[0])
print(one(f"SELECT count(*) FROM {tweets} WHERE published_at IS NOT NULL AND date <> CAST(published_at AT TIME ZONE 'UTC' AS DATE)")[0][0])
print(one(f"SELECT count(*) = count(DISTINCT (platform, tweet_id)) FROM {tweets}")[0][0])
print(one(f"SELECT count(*) FROM read_parquet('{lake}/envelopes/*/*.parquet')")[0][0])
print(one(f"SELECT count(*) FROM {tweets} t ANTI JOIN read_parquet('{lake}/envelopes/*/*.parquet') e ON t.envelope_source = e.source AND t.envelope_n = e.n")[0][0])
print(one(f"SELECT count(*) FROM read_parquet('{lake}/coverage/coverage.parquet')")[0][0] >= 0)
"#;
    let run = finished(Command::new(python).arg("-c").arg(script).arg(desk.path("lake"))).expect(0);
    let types = "('BIGINT', 'TIMESTAMP WITH TIME ZONE', 'STRUCT(source VARCHAR, id VARCHAR, name VARCHAR)[]', 'DATE')";
    // Which names it quotes depends on its version.
    assert_eq!(run.text().trim().replace('"', ""), format!("{types}\n0\nTrue\n400\n0\nTrue"));
}

/// The query of the README, over two hours of which a quarter is missing; coverage ends with the last post before each end.
#[test]
fn a_rate_is_divided_by_covered_time() {
    let Some(python) = std::env::var_os("BIRDTAPE_TEST_PYTHON").filter(|path| !path.is_empty()) else {
        println!("skipped: BIRDTAPE_TEST_PYTHON names no Python with DuckDB");
        return;
    };
    let desk = Desk::new();
    let at = |minute: i64| UnixMicros(1_767_614_400_000_000 + minute * 60_000_000);
    let source = SourceName::new("tweetstream").unwrap();
    let open = archive::Options::default();
    let mut recorder =
        Archive::open(&desk.path("tape"), Arc::new(RealDisk), open, provider::decode_record, "a test", at(0)).unwrap();
    recorder.add_source(&source, Provider::Tweetstream).unwrap();
    let (horizon, is_missing) = (Duration::ZERO, 60..90);
    recorder.live(&source, archive::ALL, horizon, at(0), "a frame").unwrap();
    for minute in 0..120 {
        let lost = archive::Lost { scope: archive::ALL, cause: Cause::Killed, detail: "it fell" };
        if minute == is_missing.start {
            recorder.lost(&source, at(minute), lost).unwrap();
        } else if minute == is_missing.end {
            recorder.live(&source, archive::ALL, horizon, at(minute), "a frame").unwrap();
        }
        if is_missing.contains(&minute) {
            continue;
        }
        let id = (u64::try_from(at(minute).0 / 1_000).unwrap() - 1_288_834_974_657) << 22;
        let content = serde_json::json!({ "tweetId": id.to_string(), "text": "a bird", "createdAt": at(minute).0 / 1_000 });
        let envelope = serde_json::json!({ "v": 1, "t": "tweet", "op": "content", "ts": at(minute).0 / 1_000, "d": content });
        let envelope = envelope.to_string();
        let decoded = provider::decode_record(Provider::Tweetstream, Via::Ws, envelope.as_bytes());
        let (kind, via, conn, body) = (RecordKind::Frame, Via::Ws, ConnId(1), Body::Bytes(envelope.into()));
        recorder.append(&source, &Draft { received_at: at(minute), kind, via, conn, info: None, body }, Some(&decoded)).unwrap();
    }
    recorder.stop_source(&source, at(120), "the end").unwrap();
    recorder.close(at(120)).unwrap();
    desk.run(&EXPORT).expect(0);
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let query = readme.split("```sql\n").nth(1).unwrap().split("```").next().unwrap();
    let query = query.replace("'lake/", &format!("'{}/", desk.path("lake").display())).replace("2026-11-20", "2026-01-05");
    let script = "
import duckdb, sys
duckdb.sql(\"SET TimeZone = 'UTC'\")
query = sys.stdin.read().strip().rstrip(';')
for row in duckdb.sql(f'SELECT hour(hour), round(share, 2), posts, round(posts_per_covered_hour) FROM ({query})').fetchall():
    print(*row)
";
    let mut child = Command::new(python).args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(query.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "12 0.98 60 61.0\n13 0.48 30 62.0\n");
}

/// Exports while somebody records: up to the last commit; when the segment is sealed, its digest comes into its files.
#[test]
fn beside_a_recorder() {
    let desk = Desk::new();
    let at = |n: usize| UnixMicros(1_767_614_400_000_000 + n as i64 * 1_000_000);
    let text = std::fs::read_to_string(FIXTURE).unwrap();
    let lines: Vec<&str> =
        text.lines().filter(|line| provider::recognise(line.as_bytes()) == Some(Provider::Tweetstream)).collect();
    let options = archive::Options { block_bytes: 4_096, ..archive::Options::default() };
    let source = SourceName::from(Provider::Tweetstream);
    let open =
        || Archive::open(&desk.path("tape"), Arc::new(RealDisk), options.clone(), provider::decode_record, "a test", at(0));
    let mut recorder = open().unwrap();
    recorder.add_source(&source, Provider::Tweetstream).unwrap();
    let record = |recorder: &mut Archive, lines: &[&str], from: usize| {
        for (n, line) in lines.iter().enumerate() {
            let body = Body::Bytes(line.as_bytes().to_vec().into());
            let (received_at, kind, via, conn) = (at(from + n), RecordKind::Frame, Via::Ws, ConnId(1));
            let draft = Draft { received_at, kind, via, conn, info: None, body };
            let decoded = provider::decode(Provider::Tweetstream, line.as_bytes());
            recorder.append(&source, &draft, Some(&decoded)).unwrap();
        }
        recorder.commit(at(from + lines.len())).unwrap();
    };
    let half = lines.len() / 2;
    record(&mut recorder, &lines[..half], 0);
    desk.run(&EXPORT).expect(0);
    assert_eq!(rows(&desk.path("lake"), "envelopes").len(), half);
    record(&mut recorder, &lines[half..], half);
    desk.run(&EXPORT).expect(0);
    desk.run(&["export", "parquet", "--out", "open"]).expect(0);
    assert_same(&desk.path("lake"), &desk.path("open"));
    recorder.close(at(2 * lines.len())).unwrap();
    desk.run(&EXPORT).expect(0);
    desk.run(&["export", "parquet", "--out", "sealed"]).expect(0);
    assert_same(&desk.path("lake"), &desk.path("sealed"));
    assert_eq!(rows(&desk.path("lake"), "envelopes").len(), lines.len());
}

/// What is named here is in the metadata of every file, so that it can be traced to its tape.
#[test]
fn files_say_what_they_were_made_from() {
    let desk = Desk::with_fixture();
    desk.run(&EXPORT).expect(0);
    let file = files_below(&desk.path("lake/tweets")).remove(0);
    let reader = SerializedFileReader::new(File::open(file).unwrap()).unwrap();
    let facts = reader.metadata().file_metadata().key_value_metadata().unwrap();
    let fact = |name: &str| facts.iter().find(|fact| fact.key == name).unwrap().value.clone().unwrap();
    let tape: serde_json::Value = serde_json::from_slice(&std::fs::read(desk.path("tape/tape.json")).unwrap()).unwrap();
    assert_eq!(fact("birdtape.tape"), tape["tape"].as_str().unwrap());
    assert_eq!(fact("birdtape.schema"), "1");
    let segments: serde_json::Value = serde_json::from_str(&fact("birdtape.segments")).unwrap();
    assert!(segments[0]["sha256"].as_str().is_some_and(|digest| digest.len() == 64), "{segments}");
    let column = |name: &str| {
        let group = reader.metadata().row_group(0);
        let mut columns = group.columns().iter();
        columns.find(|column| column.column_path().string() == name).unwrap().clone()
    };
    let id = column("tweet_id");
    assert!(id.bloom_filter_offset().is_some() && id.statistics().is_some());
    assert_eq!(id.column_descr().self_type().get_basic_info().id(), 2, "the field's id");
}

/// A post of a TwitterAPI.io envelope of the fixture, as JSON.
pub(crate) fn a_post() -> serde_json::Value {
    let text = std::fs::read_to_string(FIXTURE).unwrap();
    let lines = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut posts = lines.filter(|line| line["event_type"] == "tweet").map(|line| line["tweets"][0].clone());
    posts.next().unwrap()
}

#[test]
fn what_fills_a_gap_is_named_and_a_gap_that_changes_touches_coverage_only() {
    let desk = Desk::new();
    let at = |n: i64| UnixMicros(1_767_614_400_000_000 + n * 1_000_000);
    let source = SourceName::new("alpha").unwrap();
    let open = archive::Options::default();
    let mut recorder =
        Archive::open(&desk.path("tape"), Arc::new(RealDisk), open, provider::decode_record, "a test", at(0)).unwrap();
    recorder.add_source(&source, Provider::TwitterapiIo).unwrap();
    recorder.live(&source, archive::ALL, Duration::from_secs(5), at(1), "a frame").unwrap();
    let lost = archive::Lost { scope: archive::ALL, cause: Cause::Killed, detail: "it fell" };
    let gap = recorder.lost(&source, at(60), lost).unwrap().unwrap();
    let page = serde_json::json!({ "tweets": [a_post()], "has_next_page": false, "next_cursor": "" }).to_string();
    let decoded = provider::decode_record(Provider::TwitterapiIo, Via::History, page.as_bytes());
    assert_eq!(decoded.events.len(), 1);
    let (kind, via, conn, body) = (RecordKind::Http, Via::History, ConnId(0), Body::Bytes(page.into()));
    let draft = Draft { received_at: at(100), kind, via, conn, info: Some(format!("{{\"gap\":{gap}}}")), body };
    let leaf = |page, state| archive::Leaf {
        source: source.clone(),
        gap: Some(gap),
        at: at(101),
        page,
        state,
        detail: "a page".to_owned(),
        cursor: None,
        kinds: Vec::new(),
        spent: archive::Spent { requests: 1, rows: 1, micro_usd: 0 },
    };
    recorder.keep(&leaf(Some((draft, decoded)), GapState::Filling)).unwrap();
    recorder.commit(at(101)).unwrap();
    desk.run(&EXPORT).expect(0);
    let lake = desk.path("lake");
    let tweets = rows(&lake, "tweets");
    let id = format!("alpha-{gap}");
    assert_eq!((tweets.len(), word(&tweets[0], "gap_id"), number(&tweets[0], "latency_ms")), (1, Some(id.as_str()), None));
    let states = || -> Vec<_> {
        let rows = rows(&lake, "coverage");
        let of_gap = rows.iter().filter(|row| word(row, "gap_id") == Some(&id));
        of_gap.map(|row| (word(row, "class").unwrap().to_owned(), word(row, "gap_state").unwrap().to_owned())).collect()
    };
    let is = |class: &str, state: &str| states().iter().all(|(c, s)| c == class && s == state) && !states().is_empty();
    assert!(is("missing", "filling"), "{:?}", states());

    recorder.keep(&leaf(None, GapState::Ignored)).unwrap();
    recorder.commit(at(102)).unwrap();
    let report = desk.run(&[&EXPORT[..], &["--json"]].concat()).expect(0).json();
    assert_eq!(
        (report["files_written"].as_u64(), report["tables"]["coverage"]["files"].as_u64()),
        (Some(1), Some(1)),
        "{report}"
    );
    assert!(is("unverifiable", "ignored"), "{:?}", states());
    recorder.close(at(103)).unwrap();
}

#[test]
fn what_nobody_expected_and_what_nobody_can_read() {
    let desk = Desk::new();
    let mut post = a_post();
    post["brandNew"] = 7.into();
    let odd = serde_json::json!({ "event_type": "tweet", "tweets": [post], "timestamp": 1_767_614_400_000_u64 }).to_string();
    let lines = format!("{odd}\n{{\"event_type\":\n{{\"event_type\":\"moon\"}}\n");
    desk.write("odd.jsonl", lines.as_bytes());
    desk.run(&["import", "--provider", "twitterapi_io", "odd.jsonl"]).expect(0);
    let run = desk.run(&[&EXPORT[..], &["--json", "--drift", "drift.json"]].concat()).expect(0);
    assert!(run.err.contains("2 envelopes could not be read"), "{}", run.err);
    let drift: serde_json::Value = serde_json::from_slice(&std::fs::read(desk.path("drift.json")).unwrap()).unwrap();
    let surprise = &drift["surprises"][0];
    assert!(surprise["path"].as_str().unwrap().ends_with("brandNew"), "{drift}");
    assert_eq!((surprise["provider"].as_str(), surprise["example"].as_str()), (Some("twitterapi_io"), Some("7")));
    let envelopes = rows(&desk.path("lake"), "envelopes");
    let problems: Vec<_> = envelopes.iter().filter_map(|row| word(row, "problem")).collect();
    assert_eq!((envelopes.len(), problems.len()), (3, 2));
    assert!(problems[0].starts_with("not JSON: ") && problems[1].starts_with("no message"), "{problems:?}");
    assert!(word(&rows(&desk.path("lake"), "tweets")[0], "extra").unwrap().contains("\"brandNew\":7"));
}

#[test]
fn two_halves_make_the_whole() {
    let desk = Desk::with_fixture();
    desk.run(&EXPORT).expect(0);
    let mut times: Vec<i64> = rows(&desk.path("lake"), "tweets").iter().filter_map(|row| number(row, "published_at")).collect();
    times.sort_unstable();
    let middle = UnixMicros(times[times.len() / 2]).to_string();
    desk.run(&["export", "parquet", "--out", "first", "--to", &middle]).expect(0);
    desk.run(&["export", "parquet", "--out", "second", "--from", &middle]).expect(0);
    for table in ["tweets", "events", "envelopes", "engagement", "follows", "profile_changes"] {
        let [all, first, second] = ["lake", "first", "second"].map(|dir| rows(&desk.path(dir), table).len());
        assert_eq!(first + second, all, "{table}");
        assert!(table != "tweets" || (first > 0 && second > 0));
    }
    let late = rows(&desk.path("second"), "tweets");
    assert!(late.iter().all(|row| number(row, "published_at").unwrap() >= times[times.len() / 2]));
    desk.run(&["export", "parquet", "--out", "first", "--from", &middle]).fails(1, &["of another selection"]);
    desk.run(&["--json", "export", "parquet", "--out", "one", "--source", "tweetstream"]).expect(0);
    assert!(rows(&desk.path("one"), "envelopes").iter().all(|row| word(row, "source") == Some("tweetstream")));
}
