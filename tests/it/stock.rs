//! Other people's tools read a tape; each test says so and ends where its tool is not there.

use std::path::PathBuf;
use std::process::Command;

use crate::program::{Desk, files_below, finished};
use crate::server::have;

fn segments(desk: &Desk) -> Vec<PathBuf> {
    let files = files_below(&desk.path("tape/segments"));
    assert!(files.len() >= 4 && files.iter().all(|file| file.to_string_lossy().ends_with(".jsonl.zst")), "{files:?}");
    files
}

#[test]
fn zstd_and_jq_read_sealed_segments() {
    if !have("zstd") || !have("jq") {
        return;
    }
    let desk = Desk::with_fixture();
    let mut envelopes = 0;
    for file in segments(&desk) {
        let name = file.to_str().unwrap();
        finished(Command::new("zstd").args(["-q", "-t", name])).expect(0);
        let script = r#"set -o pipefail; zstd -dc "$1" | jq -c 'select(.kind == "frame") | .raw'"#;
        let run = finished(Command::new("bash").args(["-c", script, "-", name])).expect(0);
        envelopes += run.text().lines().count();
    }
    assert_eq!(envelopes, 400);
}

/// A segment that is being written ends in the middle of a zstd frame: the tool says so, and prints all that is there.
#[test]
fn zstd_and_jq_read_an_open_segment() {
    if !have("zstd") || !have("jq") {
        return;
    }
    let open = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/segment/v1-open.jsonl.zst.open");
    let script = r#"zstd --decompress --stdout --quiet "$1" 2>/dev/null | jq --compact-output 'select(.kind == "frame") | .n'"#;
    let run = finished(Command::new("bash").args(["-c", script, "-", open])).expect(0);
    assert_eq!(run.text().lines().count(), 12);
}

#[test]
fn duckdb_reads_sealed_segments() {
    let Some(python) = std::env::var_os("BIRDTAPE_TEST_PYTHON").filter(|path| !path.is_empty()) else {
        println!("skipped: BIRDTAPE_TEST_PYTHON names no Python with DuckDB");
        return;
    };
    let desk = Desk::with_fixture();
    let script = r#"
import duckdb, sys
files = sys.argv[1:]
count = lambda where: duckdb.execute(
    f"SELECT count(*) FROM read_json(?, format='newline_delimited', columns={{'n': 'BIGINT', 'at': 'TIMESTAMP', 'kind': 'VARCHAR', 'raw': 'JSON'}}) WHERE {where}",
    [files]).fetchone()[0]
print(count("kind = 'frame'"), count("kind = 'frame' AND raw IS NULL"), count("kind = 'segment'"))
"#;
    let files = segments(&desk);
    let run = finished(Command::new(python).arg("-c").arg(script).args(&files)).expect(0);
    assert_eq!(run.text().trim(), format!("400 0 {}", files.len()));
}
