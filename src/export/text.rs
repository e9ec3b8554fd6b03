//! Rows as text: JSON lines and CSV, from a tape into a stream or into files.
//!
//! The rows are those of the Parquet files, in their order, made by the same spool within the same bound of memory, one
//! partition after the other. Nothing is added to: an export as text is always of the whole selection. A file appears under
//! its name when all files are whole and synced, and what stood there before is replaced only when that was asked for.
//!
//! | | JSON lines | CSV |
//! | --- | --- | --- |
//! | a row | one object; every column is a key, in the order of the schema | one record; a header line before them |
//! | null | `null` | nothing; an empty text is `""` |
//! | id | text, as 64 bits do not survive the floats of JavaScript and of many a `jq` | digits |
//! | other number | a number | a number |
//! | instant | RFC 3339, UTC, microseconds; outside the years 0 to 9999 the nearest inside | the same |
//! | bytes | base64 | base64 |
//! | `extra` | the object itself; as text where strict readers would refuse it | its text |
//! | list, struct | array, object | left out |

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use arrow_array::cast::AsArray as _;
use arrow_array::types::{Float64Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, ArrayRef, RecordBatch};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::part::{self, Batches, Rows, Tally, cannot_write};
use super::schema::{Column, Kind, Table};
use super::spool::{self, Runs};
use super::{ExportError, Options, Progress, Reading, Report, coverage};
use crate::archive::{Disk as _, RealDisk, Tape};
use crate::model::UnixMicros;

/// Bytes that are handed on at once.
const CHUNK: usize = 256 << 10;

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// One JSON object a line.
    Jsonl,
    /// A header line, then a record a row, quoted by RFC 4180; lines end in LF.
    Csv {
        /// Whether cells stay as they are that a spreadsheet would take for a formula; otherwise an apostrophe stands before.
        raw_cells: bool,
    },
}

impl Form {
    /// What its files' names end with, after the dot.
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::Jsonl => "jsonl",
            Self::Csv { .. } => "csv",
        }
    }
}

/// Where rows go.
pub enum Place<'a> {
    /// One table after the other.
    Stream(&'a mut dyn Write),
    /// Into a file; for one table.
    File(PathBuf),
    /// Into `<table>.jsonl` or `<table>.csv` in a directory, which is made when it is needed.
    Dir(PathBuf),
}

impl Place<'_> {
    /// Refuses what must not be replaced.
    fn check(&self, tables: &[Table], form: Form, replace: bool) -> Result<(), ExportError> {
        tables.iter().filter_map(|table| self.file(*table, form)).try_for_each(|file| check(&file, replace))
    }

    fn file(&self, table: Table, form: Form) -> Option<PathBuf> {
        match self {
            Self::Stream(_) => None,
            Self::File(path) => Some(path.clone()),
            Self::Dir(dir) => Some(dir.join(format!("{}.{}", table.name(), form.suffix()))),
        }
    }

    /// A directory for temporary files, from which renaming is cheap; it goes away with the value.
    fn scratch(&self) -> Result<tempfile::TempDir, ExportError> {
        let dir = match self {
            Self::Stream(_) => std::env::temp_dir(),
            Self::File(path) => above(path).to_owned(),
            Self::Dir(dir) => {
                let made = RealDisk.create_dir(dir);
                made.map_err(|source| ExportError::Io { what: "cannot create", path: dir.display().to_string(), source })?;
                dir.clone()
            }
        };
        let what = "cannot create temporary files in";
        let made = tempfile::Builder::new().prefix(".birdtape-").tempdir_in(&dir);
        made.map_err(|source| ExportError::Io { what, path: dir.display().to_string(), source })
    }
}

fn above(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn check(file: &Path, replace: bool) -> Result<(), ExportError> {
    let path = || file.display().to_string();
    match fs::symlink_metadata(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(ExportError::Io { what: "cannot read", path: path(), source }),
        Ok(there) if !there.is_file() => Err(ExportError::NoFile { path: path() }),
        Ok(_) if replace => Ok(()),
        Ok(_) => Err(ExportError::Exists { path: path() }),
    }
}

/// Writes a tape's rows as text. [`Options::replace`] is about files that are there already.
///
/// # Errors
/// When the destination cannot take it, or the tape cannot be read. Damage of the tape is no error.
pub fn run(
    tape: &Tape,
    mut place: Place<'_>,
    form: Form,
    options: &Options,
    tell: &(dyn Fn(Progress) + Sync),
) -> Result<Report, ExportError> {
    let reading = Reading::new(tape, options, tell)?;
    place.check(&reading.tables, form, options.replace)?;
    let scratch = place.scratch()?;
    let runs = Runs::new(scratch.path().to_owned());
    let mut report = Report::default();
    let tasks = reading.fresh(&|_| 0, &mut report.damage)?;
    let gathered = reading.gather(tasks, None, &runs, &mut report.damage)?;

    tell(Progress::ToWrite(reading.tables.len() as u64));
    let mut whole = Vec::new();
    for table in reading.tables.iter().copied() {
        let (tally, bytes) = match (place.file(table, form), &mut place) {
            (Some(target), _) => {
                let path = scratch.path().join(table.name());
                let written = write_file(&reading, &runs, table, form, &path).map_err(|error| renamed(error, &target))?;
                whole.push((path, target));
                written
            }
            (None, Place::Stream(out)) => write(&reading, &runs, table, form, &mut **out, Path::new("stdout"))?,
            (None, _) => continue,
        };
        let mut sum = match table {
            Table::Coverage => super::TableReport { sightings: tally.rows, rows: tally.rows, ..Default::default() },
            _ => reading.tally(table, &gathered, tally)?,
        };
        (sum.files, sum.bytes, sum.total_rows) = (1, bytes, sum.rows);
        report.tables.insert(table, sum);
        tell(Progress::Wrote);
    }
    report.n_written = whole.len() as u64;
    for (path, target) in whole {
        put(&path, &target, options.replace)?;
    }
    report.spilled_bytes = runs.spilled_bytes();
    report.damage.sort_unstable();
    report.damage.dedup();
    (report.n_records, report.n_unplaced, report.n_problems) = (gathered.records, gathered.n_unplaced, gathered.n_problems);
    report.drift = gathered.drift;
    Ok(report)
}

/// Tells of a file by the name that people know.
fn renamed(error: ExportError, target: &Path) -> ExportError {
    match error {
        ExportError::Io { what, source, .. } => ExportError::Io { what, path: target.display().to_string(), source },
        other => other,
    }
}

fn write_file(reading: &Reading<'_>, runs: &Runs, table: Table, form: Form, path: &Path) -> Result<(Tally, u64), ExportError> {
    let mut file = File::create_new(path).map_err(|source| cannot_write(path, source))?;
    let written = write(reading, runs, table, form, &mut file, path)?;
    file.sync_all().map_err(|source| cannot_write(path, source))?;
    Ok(written)
}

/// Gives a whole file its name.
fn put(path: &Path, target: &Path, replace: bool) -> Result<(), ExportError> {
    let cannot = |source| cannot_write(target, source);
    check(target, replace)?;
    if replace {
        fs::rename(path, target).map_err(cannot)?;
    } else {
        let file = tempfile::TempPath::try_from_path(path).map_err(cannot)?;
        // Somebody may have put another there in this very moment.
        file.persist_noclobber(target).map_err(|failed| match failed.error.kind() {
            io::ErrorKind::AlreadyExists => ExportError::Exists { path: target.display().to_string() },
            _ => cannot(failed.error),
        })?;
    }
    RealDisk.sync_dir(above(target)).map_err(cannot)
}

/// Writes a table; gives what became of its sightings, and the bytes.
fn write(
    reading: &Reading<'_>,
    runs: &Runs,
    table: Table,
    form: Form,
    out: &mut dyn Write,
    shown: &Path,
) -> Result<(Tally, u64), ExportError> {
    let mut text = Text { table, form, out: BufWriter::with_capacity(CHUNK, out), line: Vec::new(), bytes: 0, shown };
    text.head()?;
    let mut sum = Tally::default();
    if table == Table::Coverage {
        let mut rows = Rows::new(table, &mut text);
        coverage::fill(&mut rows, reading.tape, &reading.names(), reading.options)?;
        sum.rows = rows.finish()?;
    }
    let fan_in = part::MERGE_BYTES / spool::CURSOR_BYTES;
    for part in runs.parts().into_iter().filter(|part| part.table == table) {
        let merge = runs.merge(part, fan_in).map_err(ExportError::Spool)?;
        sum.add(part::fill(&mut text, table, merge, &reading.common)?);
    }
    text.out.flush().map_err(|source| cannot_write(shown, source))?;
    Ok((sum, text.bytes))
}

/// A table that is being written.
struct Text<'a> {
    table: Table,
    form: Form,
    out: BufWriter<&'a mut dyn Write>,
    line: Vec<u8>,
    bytes: u64,
    /// What errors call it.
    shown: &'a Path,
}

impl Text<'_> {
    fn head(&mut self) -> Result<(), ExportError> {
        if self.form == Form::Jsonl {
            return Ok(());
        }
        let names = self.table.columns().iter().filter(|column| column.is_flat()).map(|column| column.name);
        self.line.extend(names.collect::<Vec<_>>().join(",").bytes());
        self.end_line()
    }

    fn end_line(&mut self) -> Result<(), ExportError> {
        self.line.push(b'\n');
        self.bytes += self.line.len() as u64;
        self.out.write_all(&self.line).map_err(|source| cannot_write(self.shown, source))?;
        self.line.clear();
        Ok(())
    }
}

impl Batches for Text<'_> {
    fn batch(&mut self, batch: &RecordBatch) -> Result<(), ExportError> {
        for row in 0..batch.num_rows() {
            match self.form {
                Form::Jsonl => object(&mut self.line, self.table.columns(), batch.columns(), row),
                Form::Csv { raw_cells } => record(&mut self.line, self.table.columns(), batch.columns(), row, raw_cells),
            }
            self.end_line()?;
        }
        Ok(())
    }
}

/// Appends a row, or a struct in one, as a JSON object.
fn object(out: &mut Vec<u8>, columns: &[Column], arrays: &[ArrayRef], row: usize) {
    out.push(b'{');
    for (at, (column, array)) in columns.iter().zip(arrays).enumerate() {
        // Our own names need no escaping.
        out.extend_from_slice(if at == 0 { b"\"" } else { b",\"" });
        out.extend_from_slice(column.name.as_bytes());
        out.extend_from_slice(b"\":");
        value(out, column.kind, array, row);
    }
    out.push(b'}');
}

/// Appends a value as JSON.
fn value(out: &mut Vec<u8>, kind: Kind, array: &dyn Array, row: usize) {
    if array.is_null(row) {
        return out.extend_from_slice(b"null");
    }
    match kind {
        Kind::Id | Kind::Account | Kind::Time => {
            out.push(b'"');
            plain(out, kind, array, row);
            out.push(b'"');
        }
        Kind::Bool | Kind::Number | Kind::Count | Kind::Real => plain(out, kind, array, row),
        Kind::Word | Kind::Text => json(out, array.as_string::<i32>().value(row)),
        Kind::Json => inner(out, array.as_string::<i32>().value(row)),
        Kind::Bytes => json(out, &BASE64.encode(array.as_binary::<i32>().value(row))),
        Kind::Words(_) => elements(out, array, row, |out, words, at| json(out, words.as_string::<i32>().value(at))),
        Kind::Struct(columns) => object(out, columns, array.as_struct().columns(), row),
        Kind::List(_, columns) => {
            elements(out, array, row, |out, structs, at| object(out, columns, structs.as_struct().columns(), at));
        }
    }
}

/// Appends a list as a JSON array.
fn elements(out: &mut Vec<u8>, array: &dyn Array, row: usize, each: impl Fn(&mut Vec<u8>, &dyn Array, usize)) {
    let list = array.as_list::<i32>();
    let (first, end) = (list.value_offsets()[row] as usize, list.value_offsets()[row + 1] as usize);
    out.push(b'[');
    for at in first..end {
        if at > first {
            out.push(b',');
        }
        each(out, list.values(), at);
    }
    out.push(b']');
}

fn json<T: serde::Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(out, value).expect("texts and numbers are always JSON, and a vector takes everything");
}

/// Appends an object that a provider wrote, as it is. What a strict reader would refuse (half a surrogate pair, a number
/// beyond all floats, a hundred levels) would make the whole file unreadable: it stays text.
fn inner(out: &mut Vec<u8>, text: &str) {
    if serde_json::from_str::<serde_json::Value>(text).is_err() {
        return json(out, text);
    }
    // In valid JSON a line can end between tokens only.
    out.extend(text.bytes().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte }));
}

/// Appends what needs no quotes; instants and ids get theirs where they need them.
fn plain(out: &mut Vec<u8>, kind: Kind, array: &dyn Array, row: usize) {
    match kind {
        Kind::Bool => json(out, &array.as_boolean().value(row)),
        // JSON has no infinity; it is null there, and nothing in CSV.
        Kind::Real => json(out, &array.as_primitive::<Float64Type>().value(row)),
        Kind::Time => {
            let mut text = [0; 27];
            UnixMicros(array.as_primitive::<TimestampMicrosecondType>().value(row)).write_rfc3339(&mut text);
            out.extend_from_slice(&text);
        }
        _ => json(out, &array.as_primitive::<Int64Type>().value(row)),
    }
}

/// Appends a row's cells.
fn record(out: &mut Vec<u8>, columns: &[Column], arrays: &[ArrayRef], row: usize, raw_cells: bool) {
    for (at, (column, array)) in columns.iter().zip(arrays).filter(|(column, _)| column.is_flat()).enumerate() {
        if at > 0 {
            out.push(b',');
        }
        if array.is_null(row) {
            continue;
        }
        match column.kind {
            Kind::Real if !array.as_primitive::<Float64Type>().value(row).is_finite() => {}
            Kind::Word | Kind::Text | Kind::Json => cell(out, array.as_string::<i32>().value(row), raw_cells),
            Kind::Bytes => cell(out, &BASE64.encode(array.as_binary::<i32>().value(row)), raw_cells),
            kind => plain(out, kind, array, row),
        }
    }
}

/// What makes a spreadsheet compute a cell, also in its wide forms (OWASP, "CSV Injection").
const FORMULA: [char; 11] = ['=', '+', '-', '@', '\t', '\r', '\n', '\u{ff1d}', '\u{ff0b}', '\u{ff0d}', '\u{ff20}'];

/// Appends a cell of text, in quotes where it needs them. An empty one has them, so that it is not null.
pub fn cell(out: &mut Vec<u8>, text: &str, raw: bool) {
    let is_formula = !raw && text.starts_with(FORMULA);
    let is_plain = |byte: u8| !byte.is_ascii_control() && !matches!(byte, b'"' | b',');
    let is_bare = !text.is_empty() && text.bytes().all(is_plain) && !text.starts_with(' ') && !text.ends_with(' ');
    if !is_bare {
        out.push(b'"');
    }
    if is_formula {
        out.push(b'\'');
    }
    for (at, piece) in text.split('"').enumerate() {
        if at > 0 {
            out.extend_from_slice(b"\"\"");
        }
        out.extend_from_slice(piece.as_bytes());
    }
    if !is_bare {
        out.push(b'"');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_quoted_and_command_no_spreadsheet() {
        let written = |text: &str, raw: bool| {
            let mut out = Vec::new();
            cell(&mut out, text, raw);
            String::from_utf8_lossy(&out).into_owned()
        };
        for (text, wanted) in [
            ("plain words", "plain words"),
            ("", "\"\""),
            (" edge", "\" edge\""),
            ("a,b", "\"a,b\""),
            ("say \"hi\"", "\"say \"\"hi\"\"\""),
            ("two\r\nlines", "\"two\r\nlines\""),
            ("\0", "\"\0\""),
            ("=1+1", "'=1+1"),
            ("+1", "'+1"),
            ("-1", "'-1"),
            ("@SUM(A1),", "\"'@SUM(A1),\""),
            ("\t=1", "\"'\t=1\""),
            ("\r=1", "\"'\r=1\""),
            ("\n=1", "\"'\n=1\""),
            ("\u{ff1d}1+1", "'\u{ff1d}1+1"),
            ("\u{ff20}SUM(A1)", "'\u{ff20}SUM(A1)"),
            ("a=1", "a=1"),
        ] {
            assert_eq!(written(text, false), wanted);
            assert_eq!(written(text, true), wanted.replace('\'', ""), "{text:?} raw");
        }
    }

    #[test]
    fn what_strict_readers_refuse_stays_text() {
        let written = |text: &str| {
            let mut out = Vec::new();
            inner(&mut out, text);
            String::from_utf8_lossy(&out).into_owned()
        };
        let exact = r#"{"n":12345678901234567890123,"e":1.50,"s":"\u00e9\ud83d\ude00"}"#;
        assert_eq!(written(exact), exact);
        assert_eq!(written("{\"a\":\r\n1}"), "{\"a\":  1}");
        for odd in [r#"{"s":"\ud83d"}"#.to_owned(), r#"{"n":1e999}"#.to_owned(), "[".repeat(200) + &"]".repeat(200)] {
            assert_eq!(serde_json::from_str::<String>(&written(&odd)).ok(), Some(odd));
        }
    }
}
