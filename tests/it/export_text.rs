//! Rows as JSON lines and CSV are those of the Parquet, and other people's tools read them.

use std::io::Read as _;
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use birdtape::export::Table;
use birdtape::export::schema::{Column, Kind};
use birdtape::model::UnixMicros;
use parquet::record::{Field, Row};

use crate::export::{a_post, rows};
use crate::program::{Desk, FIXTURE, files_below, finished};
use crate::server::have;

fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap()
}

/// A value of a Parquet file as it has to stand in JSON.
fn as_json(column: Kind, field: &Field) -> String {
    match (column, field) {
        (_, Field::Null) => "null".to_owned(),
        (Kind::Id | Kind::Account, Field::Long(id)) => format!("\"{id}\""),
        (_, Field::Long(n)) => n.to_string(),
        (_, Field::Bool(yes)) => yes.to_string(),
        (_, Field::Double(real)) => serde_json::to_string(real).unwrap(),
        (_, Field::TimestampMicros(at)) => format!("\"{}\"", UnixMicros(*at)),
        (Kind::Json, Field::Str(text)) => text.clone(),
        (_, Field::Str(text)) => quoted(text),
        (_, Field::Bytes(bytes)) => quoted(&BASE64.encode(bytes.data())),
        (Kind::Struct(columns), Field::Group(row)) => object(columns, row),
        (Kind::List(_, columns), Field::ListInternal(list)) => {
            list_of(list.elements(), |element| as_json(Kind::Struct(columns), element))
        }
        (Kind::Words(_), Field::ListInternal(list)) => list_of(list.elements(), |word| as_json(Kind::Word, word)),
        other => panic!("{other:?}"),
    }
}

fn list_of(elements: &[Field], each: impl Fn(&Field) -> String) -> String {
    format!("[{}]", elements.iter().map(each).collect::<Vec<_>>().join(","))
}

fn object(columns: &[Column], row: &Row) -> String {
    let fields = columns.iter().zip(row.get_column_iter()).map(|(column, (name, field))| {
        assert_eq!(column.name, name);
        format!("\"{name}\":{}", as_json(column.kind, field))
    });
    format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
}

/// Every line, with its keys in order, its ids, its lists and what has no column.
#[test]
fn json_lines_are_the_rows_of_the_parquet() {
    let desk = Desk::with_fixture();
    desk.run(&["import", "--provider", "auto", FIXTURE]).expect(0);
    desk.write("odd.jsonl", b"\xff\xfe no text\n");
    desk.run(&["import", "--provider", "tweetstream", "odd.jsonl"]).expect(0);
    desk.run(&["export", "parquet", "--out", "lake"]).expect(0);
    let report = desk.run(&["--json", "export", "jsonl", "--out", "rows"]).expect(0).json();
    desk.run(&["export", "jsonl", "--out", "small", "--memory", "1KiB"]).expect(0);
    let mut nested = 0;
    for table in Table::ALL {
        let name = table.name();
        let text = std::fs::read_to_string(desk.path(&format!("rows/{name}.jsonl"))).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let wanted: Vec<String> = rows(&desk.path("lake"), name).iter().map(|row| object(table.columns(), row)).collect();
        assert_eq!(lines.len(), wanted.len(), "{name}");
        for (line, wanted) in lines.iter().zip(&wanted) {
            assert_eq!(line, wanted, "{name}");
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            nested += usize::from(value["extra"].is_object() && value["media"].get(0).is_some());
        }
        assert_eq!(report["tables"][name]["rows"], wanted.len(), "{name}");
        assert!(
            std::fs::read_to_string(desk.path(&format!("small/{name}.jsonl"))).unwrap() == text,
            "{name}: memory changes nothing"
        );
    }
    assert!(nested > 0 && report["tables"]["tweets"]["merged"].as_u64() > Some(0), "{report}");
    assert_eq!(report["files_written"], Table::ALL.len());
    assert_eq!(files_below(&desk.path("rows")).len(), Table::ALL.len(), "nothing temporary is left");
    let run = desk.run(&["export", "jsonl", "--table", "tweets"]).expect(0);
    assert_eq!(run.out, std::fs::read(desk.path("rows/tweets.jsonl")).unwrap());
    assert!(run.err.contains("rows of tweets"), "{}", run.err);
}

#[test]
fn jq_reads_json_lines() {
    if !have("jq") {
        return;
    }
    let desk = Desk::with_fixture();
    desk.run(&["export", "parquet", "--out", "lake"]).expect(0);
    desk.run(&["export", "jsonl", "--out", "rows"]).expect(0);
    for table in ["tweets", "engagement"] {
        let file = desk.path(&format!("rows/{table}.jsonl"));
        let run = finished(Command::new("jq").args(["--raw-output", ".tweet_id"]).arg(file)).expect(0);
        let ids = rows(&desk.path("lake"), table).into_iter().map(|row| {
            let id = row.get_column_iter().find(|(name, _)| *name == "tweet_id").unwrap().1.to_string();
            id + "\n"
        });
        assert_eq!(run.text(), ids.collect::<String>(), "{table}");
    }
    let all = "all(inputs; .extra == null or (.extra | type) == \"object\")";
    let run = finished(Command::new("jq").args(["--null-input", all]).arg(desk.path("rows/tweets.jsonl"))).expect(0);
    assert_eq!(run.text(), "true\n");
}

#[test]
fn duckdb_reads_json_lines_and_csv() {
    let Some(python) = std::env::var_os("BIRDTAPE_TEST_PYTHON").filter(|path| !path.is_empty()) else {
        println!("skipped: BIRDTAPE_TEST_PYTHON names no Python with DuckDB");
        return;
    };
    let desk = Desk::with_fixture();
    desk.run(&["export", "parquet", "--out", "lake"]).expect(0);
    desk.run(&["export", "jsonl", "--out", "rows"]).expect(0);
    desk.run(&["export", "csv", "--out", "rows", "--raw-cells"]).expect(0);
    let script = r#"
import duckdb, sys
desk = sys.argv[1]
columns = "CAST(tweet_id AS BIGINT), CAST(author_id AS BIGINT), CAST(like_count AS BIGINT), text, epoch_us(CAST(published_at AS TIMESTAMPTZ)), epoch_us(CAST(first_received_at AS TIMESTAMPTZ))"
parquet = duckdb.sql(f"SELECT {columns} FROM '{desk}/lake/tweets/*/*.parquet' ORDER BY ALL").fetchall()
for source in [f"read_json('{desk}/rows/tweets.jsonl')", f"read_csv('{desk}/rows/tweets.csv', quote = '\"', escape = '\"', delim = ',')"]:
    print(len(parquet) > 0, duckdb.sql(f"SELECT {columns} FROM {source} ORDER BY ALL").fetchall() == parquet)
"#;
    let run = finished(Command::new(python).arg("-c").arg(script).arg(desk.path(""))).expect(0);
    assert_eq!(run.text(), "True True\nTrue True\n");
}

/// Texts that quoting, spreadsheets and terminals stumble over.
const AWKWARD: [&str; 9] =
    ["say \"hi\", she said", "two\nlines\r\nand more", "=1+1", "@SUM(A1:A9)", "\t=2", "🦜 👩‍👩‍👧 é", "a\0b\u{1b}[2J", " edge ", ""];

/// A tape with a post for each of the texts, in order.
fn awkward() -> Desk {
    let desk = Desk::new();
    let mut lines = String::new();
    for (at, text) in AWKWARD.iter().enumerate() {
        let mut post = a_post();
        let id = (post["id"].as_str().unwrap().parse::<u64>().unwrap() + at as u64).to_string();
        (post["id"], post["text"]) = (id.into(), (*text).into());
        let envelope = serde_json::json!({ "event_type": "tweet", "tweets": [post], "timestamp": 1_767_614_400_000_u64 });
        lines += &format!("{envelope}\n");
    }
    desk.write("awkward.jsonl", lines.as_bytes());
    desk.run(&["import", "--provider", "twitterapi_io", "awkward.jsonl"]).expect(0);
    desk
}

#[test]
fn awkward_texts_go_through_csv() {
    let desk = awkward();
    let run = desk.run(&["export", "csv", "--table", "tweets", "--out", "safe.csv"]).expect(0);
    assert!(run.err.contains("left out of tweets, as no cell holds a list: quoted, reposted, hashtags"), "{}", run.err);
    desk.run(&["export", "csv", "--table", "tweets", "--out", "raw.csv", "--raw-cells"]).expect(0);
    let safe = std::fs::read_to_string(desk.path("safe.csv")).unwrap();
    let head = safe.lines().next().unwrap();
    let flat = Table::Tweets.columns().iter().filter(|column| column.is_flat()).map(|column| column.name);
    assert_eq!(head, flat.collect::<Vec<_>>().join(","));
    assert!(safe.contains("\0b\u{1b}[2J") && safe.contains(",'=1+1,"), "{safe}");
    assert!(safe.starts_with("published_at,tweet_id,") && safe.contains("\n2026-01-05T"), "{safe}");
    let ids: Vec<&str> = safe.lines().filter_map(|line| line.strip_prefix("2026-01-05T")?.split(',').nth(1)).collect();
    assert_eq!((ids.len(), ids[0]), (AWKWARD.len(), a_post()["id"].as_str().unwrap()), "ids are digits");

    if !have("python3") {
        return;
    }
    let script = r#"
import csv, json, sys
with open(sys.argv[1], newline="", encoding="utf-8") as file:
    print(json.dumps([row["text"] for row in csv.DictReader(file, strict=True)]))
"#;
    let texts = |file: &str| -> Vec<String> {
        let run = finished(Command::new("python3").args(["-c", script]).arg(desk.path(file)));
        serde_json::from_slice(&run.expect(0).out).unwrap()
    };
    assert_eq!(texts("raw.csv"), AWKWARD);
    let guarded = AWKWARD.map(|text| if text.starts_with(['=', '@', '\t']) { format!("'{text}") } else { text.to_owned() });
    assert_eq!(texts("safe.csv"), guarded);
}

#[test]
fn awkward_texts_go_through_json_lines() {
    let desk = awkward();
    let run = desk.run(&["export", "jsonl", "--table", "tweets"]).expect(0);
    let read = run.text().lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["text"].clone());
    assert_eq!(read.collect::<Vec<_>>(), AWKWARD);
}

#[test]
fn a_reader_that_leaves_ends_it_quietly() {
    let desk = Desk::with_fixture();
    for form in ["jsonl", "csv"] {
        let args = ["export", form, "--table", "envelopes"];
        let whole = desk.run(&args).expect(0).out;
        assert!(whole.len() > 512 << 10, "more than pipes and buffers hold");
        let mut child = desk.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut some = [0; 100];
        child.stdout.take().unwrap().read_exact(&mut some).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), String::from_utf8(output.stderr).unwrap().as_str()), (Some(0), ""), "{form}");
        assert!(whole.starts_with(&some));
    }
}

#[test]
fn what_is_there_stays_unless_it_is_forced() {
    let desk = Desk::with_fixture();
    let one = ["export", "jsonl", "--table", "follows", "--out"];
    let with = |out: &str, more: &[&str]| desk.run(&[&one[..], &[out], more].concat());
    desk.write("mine.jsonl", b"dear diary");
    with("mine.jsonl", &[])
        .fails(1, &["mine.jsonl is there already", "hint: name another with --out, or replace it with --force"]);
    assert_eq!(std::fs::read(desk.path("mine.jsonl")).unwrap(), b"dear diary");
    with("mine.jsonl", &["--force"]).expect(0);
    let rows = std::fs::read(desk.path("mine.jsonl")).unwrap();
    assert!(rows.starts_with(b"{\"event_id\":"));

    std::fs::create_dir(desk.path("dir")).unwrap();
    desk.write("dir/coverage.jsonl", b"dear diary");
    let several = ["export", "jsonl", "--table", "follows", "--table", "coverage", "--out", "dir"];
    desk.run(&several).fails(1, &["dir/coverage.jsonl is there already"]);
    assert_eq!(files_below(&desk.path("dir")).len(), 1, "all or nothing");
    desk.run(&[&several[..], &["--force"]].concat()).expect(0);
    assert_eq!(std::fs::read(desk.path("dir/follows.jsonl")).unwrap(), rows);
    with("dir", &["--force"]).expect(0);
    with("new/", &[]).expect(0);
    assert_eq!(std::fs::read(desk.path("new/follows.jsonl")).unwrap(), rows);

    std::os::unix::fs::symlink("mine.jsonl", desk.path("link")).unwrap();
    with("link", &["--force"]).fails(1, &["link is not a regular file", "--out -"]);
    with("/dev/null", &["--force"]).fails(1, &["/dev/null is not a regular file"]);
    with("nowhere/rows.jsonl", &[]).fails(1, &["cannot create temporary files in nowhere"]);
}

#[test]
fn what_cannot_work_is_refused() {
    let desk = Desk::with_fixture();
    desk.run(&["export", "jsonl"]).fails(2, &["several tables need a directory", "hint: "]);
    desk.run(&["export", "csv", "--out", "-"]).fails(2, &["stdout takes one table", "hint: "]);
    desk.run(&["export", "csv", "--table", "tweets", "--json"]).fails(2, &["no room for --json", "hint: "]);
    desk.run(&["export", "jsonl", "--table", "tweets", "--from", "2026-01-06", "--to", "2026-01-05"])
        .fails(2, &["is not before --to"]);
    desk.run(&["export", "jsonl", "--table", "tweets", "--source", "nobody"]).fails(1, &["the tape has no source `nobody`"]);
    desk.write("file", b"x");
    desk.run(&["export", "csv", "--out", "file"]).fails(2, &["file is a file", "several tables need a directory"]);
}

#[test]
fn damage_is_told_and_parts_can_be_chosen() {
    let desk = Desk::with_fixture();
    let lines = |more: &[&str]| desk.run(&[&["export", "jsonl", "--table", "tweets"][..], more].concat()).expect(0);
    let all = lines(&[]);
    let published =
        |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["published_at"].as_str().map(str::to_owned);
    let middle = published(all.text().lines().nth(50).unwrap()).unwrap();
    let (first, second) = (lines(&["--to", &middle]), lines(&["--from", &middle]));
    assert_eq!([first.text(), second.text()].concat(), all.text());

    let segment = files_below(&desk.path("tape/segments/tweetstream")).remove(0);
    let mut bytes = std::fs::read(&segment).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 0x55;
    std::fs::write(&segment, &bytes).unwrap();
    let run = desk.run(&["export", "jsonl", "--table", "envelopes"]).expect(3);
    assert!(run.err.contains("damage: tweetstream: "), "{}", run.err);
    assert!(!run.out.is_empty() && run.text().lines().count() < 400);
}
