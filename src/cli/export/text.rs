//! `birdtape export jsonl` and `birdtape export csv`: rows as text.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::{Bar, Chosen, exit, summary};
use crate::cli::args::Common;
use crate::cli::exit::{Outcome, usage};
use crate::cli::out::{Closed, Out, count, say};
use crate::cli::signal;
use crate::export::text::{self, Form, Place};
use crate::export::{ExportError, Options, Progress, Report, Table};

/// Write rows as JSON lines, one object a row
///
/// The rows are those of `export parquet`, merged and sorted alike, with every column as a key, in one order; the README lists
/// them. Unknown values are null. Ids are texts, as JavaScript and some versions of jq bend numbers of 64 bits; counts and the
/// numbers of records are numbers. Instants are RFC 3339, UTC, with microseconds. `extra` is the object itself.
///
/// One table goes to stdout unless --out names a file, several go into a directory, <table>.jsonl each. A file gets its name
/// when all is whole and on disk; one that is there is replaced with --force only. Damage is passed over, told on stderr, and
/// makes the exit code 3.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  birdtape export jsonl --table tweets --from -1d | jq -r 'select(.like_count > 100) | .url'
  birdtape export jsonl --table tweets --table coverage --out rows
  duckdb -c \"SELECT * FROM read_json('rows/tweets.jsonl')\"")]
pub(super) struct Jsonl {
    #[command(flatten)]
    text: Text,
}

/// Write rows as CSV, those columns that are no lists
///
/// The rows are those of `export parquet`, merged and sorted alike, after a line with the columns' names. Ids are digits,
/// instants RFC 3339, UTC, with microseconds; an unknown value is nothing, an empty text is "". Lines end in LF, and cells are
/// quoted by RFC 4180: a text may go on over several lines.
///
/// A text that a spreadsheet would take for a formula (it begins with = + - @, also in their wide forms, a tab or a line end)
/// gets an apostrophe before it. Control characters stand in a file as they came; on a terminal they are made visible.
///
/// One table goes to stdout unless --out names a file, several go into a directory, <table>.csv each. A file gets its name when
/// all is whole and on disk; one that is there is replaced with --force only. Damage is passed over, told on stderr, and makes
/// the exit code 3.
#[derive(Debug, clap::Args)]
#[command(after_help = csv_help())]
pub(super) struct Csv {
    #[command(flatten)]
    text: Text,
    /// Write texts exactly, also those that look like a formula
    #[arg(long)]
    raw_cells: bool,
}

/// What both share.
#[derive(Debug, clap::Args)]
struct Text {
    /// A file, a directory, or - for stdout [default: - with one table]
    #[arg(long, value_name = "PATH")]
    out: Option<PathBuf>,
    #[command(flatten)]
    chosen: Chosen,
    /// Replace files that are there
    #[arg(long)]
    force: bool,
}

fn csv_help() -> String {
    let mut help = "\
Examples:
  birdtape export csv --table tweets --out tweets.csv
  birdtape export csv --table coverage --from -1d

Columns left out (`export jsonl` has them):
"
    .to_owned();
    for table in Table::ALL {
        let columns = left_out(table);
        if !columns.is_empty() {
            help += &format!("  {}: {columns}\n", table.name());
        }
    }
    help.trim_end().to_owned()
}

/// Columns that no cell holds.
fn left_out(table: Table) -> String {
    let names = table.columns().iter().filter(|column| !column.is_flat()).map(|column| column.name);
    names.collect::<Vec<_>>().join(", ")
}

pub(super) fn jsonl(common: &Common, args: &Jsonl) -> Outcome {
    run(common, &args.text, Form::Jsonl)
}

pub(super) fn csv(common: &Common, args: &Csv) -> Outcome {
    run(common, &args.text, Form::Csv { raw_cells: args.raw_cells })
}

fn run(common: &Common, args: &Text, form: Form) -> Outcome {
    let mut options = args.chosen.options(args.force)?;
    options.tables.sort_unstable();
    options.tables.dedup();
    let is_one = options.tables.len() == 1;
    match args.out.as_deref() {
        None if !is_one => {
            Err(usage("several tables need a directory", "name it with --out, or one table with --table: --table tweets"))
        }
        None => stream(common, args, form, &options),
        Some(path) if path == Path::new("-") => {
            if !is_one {
                return Err(usage("stdout takes one table", "name one with --table, or a directory with --out"));
            }
            stream(common, args, form, &options)
        }
        Some(path) => files(common, args, form, &options, path),
    }
}

/// Rows on stdout, talk on stderr.
fn stream(common: &Common, args: &Text, form: Form, options: &Options) -> Outcome {
    if common.json && form != Form::Jsonl {
        return Err(usage("CSV on stdout leaves no room for --json", "name a file with --out, or leave --json away"));
    }
    let tape = common.open_tape()?;
    signal::set_on_the_first(&options.stop)?;
    let (bar, mut out) = (Bar::default(), Out::new());
    // As soon as rows come, the terminal is theirs.
    let tell = |progress| match progress {
        Progress::ToWrite(_) => bar.finish(),
        Progress::Wrote => {}
        reading => bar.tell(reading),
    };
    let done = text::run(&tape, Place::Stream(&mut out.lines_of_a_job()), form, options, &tell);
    bar.finish();
    let report = done.map_err(|error| match &error {
        ExportError::Io { source, .. } if source.kind() == ErrorKind::BrokenPipe => anyhow::Error::from(Closed),
        _ => error.into(),
    })?;
    out.flush()?;
    args.chosen.tell(&report)?;
    tell_left_out(form, options);
    for (table, sum) in &report.tables {
        say(&format!("{} of {}", count(sum.rows, "row"), table.name()));
    }
    Ok(exit(&report))
}

/// Rows in files, the summary on stdout.
fn files(common: &Common, args: &Text, form: Form, options: &Options, path: &Path) -> Outcome {
    let is_one = options.tables.len() == 1;
    if !is_one && path.is_file() {
        return Err(usage(format!("{} is a file", path.display()), "several tables need a directory: name one with --out"));
    }
    // As `cp` does: into a directory where there is one, or where the path says so.
    let is_dir = !is_one || path.is_dir() || path.as_os_str().to_string_lossy().ends_with('/');
    let place = if is_dir { Place::Dir(path.to_owned()) } else { Place::File(path.to_owned()) };
    let tape = common.open_tape()?;
    signal::set_on_the_first(&options.stop)?;
    let bar = Bar::default();
    let report: Report = text::run(&tape, place, form, options, &|progress| bar.tell(progress))?;
    bar.finish();
    args.chosen.tell(&report)?;
    tell_left_out(form, options);
    say(&format!("{} written: {}", count(report.n_written, "file"), path.display()));
    summary(common, &report)
}

fn tell_left_out(form: Form, options: &Options) {
    if form == Form::Jsonl {
        return;
    }
    for table in &options.tables {
        let columns = left_out(*table);
        if !columns.is_empty() {
            say(&format!("left out of {}, as no cell holds a list: {columns}; `export jsonl` has them", table.name()));
        }
    }
}
