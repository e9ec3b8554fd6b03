//! A catalog of a stranger's: any bytes as a database, or rows that say what they like.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use birdtape::archive::{Archive, Certificate, Disk, Span, Tape, verify};
use birdtape::catalog::Catalog;
use birdtape::model::{Seq, UnixMicros};
use birdtape::provider::decode_record;

use super::archive::{Files, options, second};

/// The first byte chooses: the input is the file (0), edits rows as lines `table.column=value` (1), or is laid over the file at
/// the place that two bytes say (2). The second: whether the tape is opened for writing, too.
pub(super) fn opened(data: &[u8]) -> bool {
    static DIR: OnceLock<tempfile::TempDir> = OnceLock::new();
    let [mode, write, rest @ ..] = data else { return false };
    let dir = DIR.get_or_init(super::scratch).path().join(format!("{:?}", std::thread::current().id()));
    std::fs::create_dir_all(&dir).expect("a directory");
    let files = Files::ended();
    let mut file = files.catalog.clone();
    match (mode % 3, rest) {
        (0, _) => file = rest.to_vec(),
        (2, [a, b, over @ ..]) => {
            let at = usize::from(u16::from_le_bytes([*a, *b])) % file.len();
            let end = file.len().min(at + over.len());
            file[at..end].copy_from_slice(&over[..end - at]);
        }
        _ => {}
    }
    let disk: Arc<dyn Disk> = Arc::new(files.lay(&dir, Some(&file), |_, data| Some(data.to_vec())));
    if mode % 3 == 1 {
        edit(&dir.join("catalog.sqlite"), rest);
    }
    let is_read = read(&dir, &disk).is_some();
    if write % 2 == 1
        && let Ok(archive) = Archive::open(&dir, disk, options(), decode_record, "fuzz", second(1_000))
    {
        drop(archive.close(second(1_000)));
    }
    is_read
}

/// Says in rows what the lines say; what cannot be said is not.
fn edit(path: &Path, lines: &[u8]) {
    let conn = rusqlite::Connection::open(path).expect("our own catalog");
    for line in lines.split(|byte| *byte == b'\n').take(16) {
        let Some((place, value)) = std::str::from_utf8(line).ok().and_then(|line| line.split_once('=')) else { continue };
        let Some((table, column)) = place.split_once('.') else { continue };
        let is_name = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        if !is_name(table) || !is_name(column) {
            continue;
        }
        let sql = format!("UPDATE OR IGNORE \"{table}\" SET \"{column}\" = ?1");
        let done = match (value.parse::<i64>(), value.strip_prefix("x:")) {
            (Ok(number), _) => conn.execute(&sql, [number]),
            (_, Some(blob)) => conn.execute(&sql, [blob.as_bytes()]),
            _ if value.is_empty() => conn.execute(&sql, [rusqlite::types::Null]),
            _ => conn.execute(&sql, [value]),
        };
        drop(done);
    }
}

/// Everything that can be asked of a tape.
fn read(dir: &Path, disk: &Arc<dyn Disk>) -> Option<()> {
    drop(verify(dir, &**disk, decode_record, |_| {}));
    let catalog = Catalog::open_read_only(&dir.join("catalog.sqlite")).ok()?;
    drop((catalog.fault(), catalog.bytes(), catalog.tape(), catalog.gaps(None), catalog.spent_since(None, 0)));
    drop(catalog.dump(|_, _, _| true));
    drop(catalog);
    let tape = Tape::open(dir, Arc::clone(disk)).ok()?;
    drop(tape.contradiction());
    let sources = tape.sources().ok()?;
    for source in sources.iter().take(4) {
        let (name, catalog) = (source.name.as_str(), tape.catalog());
        drop((tape.coverage(name), catalog.scopes(name), catalog.connections(name), catalog.last_seen(name)));
        drop((catalog.gap_kinds(name), catalog.audits(name), catalog.pruned(name), catalog.blocks_with_id(1)));
        drop((catalog.gap_steps(name, 1), catalog.first_block_from(name, 0), catalog.spent_since(Some(name), 0)));
        for from in [UnixMicros(i64::MIN), second(20), UnixMicros(i64::MAX)] {
            drop(tape.first_n_from(name, from));
            drop(Certificate::of(&tape, name, from, second(100)).map(|c| (c.to_json(), c.in_words(), c.shares())));
        }
        for span in [Span::default(), Span { from_n: Some(Seq(30)), from: Some(second(20)), to: Some(second(200)) }] {
            if let Ok(mut records) = tape.records(name, span) {
                count(|| records.next());
            }
        }
        if let Ok(pieces) = tape.pieces(name, Seq(1)) {
            pieces.pieces.into_iter().take(50).for_each(|piece| drop(piece.read(|_| {})));
        }
        drop(tape.unindexed(name, |_| {}));
    }
    let names: Vec<_> = sources.into_iter().map(|source| source.name).collect();
    if let Ok(mut merged) = tape.merged(&names, Span::default()) {
        count(|| merged.next());
    }
    drop(tape.with_id(2_064_689_031_777_615_872, |_, _| true));
    Some(())
}

/// Takes all there is, which is not much: a reader that finds no end is a finding.
fn count<T, E>(mut next: impl FnMut() -> Result<Option<T>, E>) {
    let n = std::iter::from_fn(|| next().ok().flatten()).take(10_000).count();
    assert!(n < 10_000, "there are fewer records than that");
}
