//! `birdtape export`: tables for analysts.

mod text;

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};
use indicatif::ProgressBar;
use serde_json::{Value, json};

use super::args::{self, Common, When};
use super::destination;
use super::exit::{Exit, Outcome, usage};
use super::out::{self, Out, count, say, table};
use crate::export::{self, ExtraFields, Options, Progress, Report, Table};

/// Turn a tape into tables
///
/// Posts merged into one row each, events, raw envelopes, profiles, follows, counters, direct messages, and the holes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  birdtape export parquet --out lake
  birdtape export parquet --out posts --table tweets --table coverage
  birdtape export jsonl --table tweets | jq .text
  birdtape export csv --table follows --out follows.csv")]
pub(super) struct Args {
    #[command(subcommand)]
    form: Form,
}

#[derive(Debug, clap::Subcommand)]
enum Form {
    Parquet(Parquet),
    Jsonl(text::Jsonl),
    Csv(text::Csv),
}

/// Write Parquet, a file for each table and date
///
/// Tables: tweets (one row a post, merged from everything that was said of it), events, envelopes (the raw bytes),
/// profile_changes, follows, engagement, dm_activity, and coverage, which says where the tape has holes. They lie in
/// DIR/<table>/date=YYYY-MM-DD/part-0.parquet by published date (UTC), sorted; the README lists their columns.
///
/// Run again it writes only what the tape's new records touch, and the result is the same, byte for byte, as that of a new
/// export. Killed and run again, too. A tape may be exported while it is recorded, up to its last commit. Damage is passed over,
/// told on stderr, and makes the exit code 3.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{}", destination::LONG))]
struct Parquet {
    /// The destination: a directory, or s3://BUCKET/PREFIX
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    chosen: Chosen,
    /// Replace an export of another tape or selection that stands there
    #[arg(long)]
    force: bool,
    /// Take a store from an export that was killed without waiting for its hold to end
    #[arg(long)]
    break_lock: bool,
}

/// What is exported, and how.
#[derive(Debug, clap::Args)]
struct Chosen {
    /// Only this table (repeatable) [default: all]
    #[arg(long, value_name = "TABLE")]
    table: Vec<Table>,
    /// Published at or after (envelopes: received): 2026-11-20, 2026-11-20T23:18:00Z, -1h
    #[arg(long, value_name = "TIME", value_parser = args::when, allow_hyphen_values = true)]
    from: Option<When>,
    /// Published before
    #[arg(long, value_name = "TIME", value_parser = args::when, allow_hyphen_values = true)]
    to: Option<When>,
    /// Only this source (repeatable) [default: all]
    #[arg(long, value_name = "NAME")]
    source: Vec<String>,
    /// How much memory to use, at least about 64MiB; less makes it slower and changes nothing else
    #[arg(long, value_name = "SIZE", default_value = "128MiB")]
    memory: bytesize::ByteSize,
    /// Which fields without a column are kept in `extra`: all, or those that nobody expected (half the size, faster)
    #[arg(long, value_enum, value_name = "WHICH", default_value = "all")]
    extra: Extra,
    /// Write down which fields nobody expected, as JSON
    #[arg(long, value_name = "FILE")]
    drift: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Extra {
    All,
    Unexpected,
}

impl Chosen {
    fn options(&self, replace: bool) -> Result<Options> {
        let now = args::now();
        let instant = |when: Option<When>| when.map(|when| when.instant(now));
        let (from, to) = (instant(self.from), instant(self.to));
        if let Some((from, to)) = from.zip(to).filter(|(from, to)| from >= to) {
            return Err(usage(format!("--from {from} is not before --to {to}"), "--to is the first instant that is left out"));
        }
        Ok(Options {
            tables: if self.table.is_empty() { Table::ALL.to_vec() } else { self.table.clone() },
            from,
            to,
            sources: self.source.clone(),
            memory: usize::try_from(self.memory.as_u64()).unwrap_or(usize::MAX),
            threads: std::thread::available_parallelism().map_or(1, Into::into),
            extra: match self.extra {
                Extra::All => ExtraFields::All,
                Extra::Unexpected => ExtraFields::Unexpected,
            },
            replace,
            stop: Arc::default(),
        })
    }

    /// Says what was odd, and writes down what was not expected.
    fn tell(&self, report: &Report) -> Result<()> {
        if let Some(file) = &self.drift {
            let mut text = serde_json::to_string_pretty(&report.drift.to_json()).context("cannot print the drift")?;
            text.push('\n');
            fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
        }
        tell(self, report);
        Ok(())
    }
}

const EXAMPLES: &str = "\
Examples:
  birdtape export parquet --out lake
  birdtape export parquet --out s3://bucket/lake
  birdtape export parquet --out posts --table tweets --table coverage --from 2026-11-01
  duckdb -c \"SELECT date, count(*) FROM 'lake/tweets/*/*.parquet' GROUP BY date\"";

pub(super) fn run(common: &Common, args: &Args) -> Outcome {
    match &args.form {
        Form::Jsonl(args) => text::jsonl(common, args),
        Form::Csv(args) => text::csv(common, args),
        Form::Parquet(args) => parquet(common, args),
    }
}

fn parquet(common: &Common, args: &Parquet) -> Outcome {
    let options = args.chosen.options(args.force)?;
    let tape = common.open_tape()?;
    let store = destination::open(&args.out, args.break_lock, &options.stop)?;
    let bar = Bar::default();
    let report = export::run(&tape, store.as_ref(), &options, &destination::holder(), &|progress| bar.tell(progress))?;
    bar.finish();
    args.chosen.tell(&report)?;
    let kept = if report.n_kept > 0 { format!(", {} as before", report.n_kept) } else { String::new() };
    say(&format!("{} written{kept} in {}", count(report.n_written, "file"), args.out.display()));
    summary(common, &report)
}

/// Prints what came of each table, and gives the exit code.
fn summary(common: &Common, report: &Report) -> Outcome {
    let mut out = Out::new();
    if common.json {
        out.json(&to_json(report))?;
    } else {
        print(&mut out, report)?;
    }
    out.flush()?;
    Ok(exit(report))
}

fn exit(report: &Report) -> Exit {
    if report.damage.is_empty() { Exit::Done } else { Exit::KnownLoss }
}

/// First the bytes read, then the files written.
#[derive(Default)]
struct Bar(Mutex<Option<ProgressBar>>);

impl Bar {
    fn tell(&self, progress: Progress) {
        let mut bar = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match (progress, bar.as_ref()) {
            (Progress::ToRead(bytes), _) => *bar = Some(out::progress(Some(bytes), "reading")),
            (Progress::ToWrite(files), _) => {
                if let Some(reading) = bar.take() {
                    reading.finish_and_clear();
                }
                *bar = Some(out::steps(files, "writing"));
            }
            (Progress::Read(bytes), Some(bar)) => bar.inc(bytes),
            (Progress::Wrote, Some(bar)) => bar.inc(1),
            (_, None) => {}
        }
    }

    fn finish(&self) {
        if let Some(bar) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            bar.finish_and_clear();
        }
    }
}

fn print(out: &mut Out, report: &Report) -> Result<()> {
    let rows = report.tables.iter().map(|(table, sum)| {
        let numbers = [sum.sightings, sum.merged, sum.rows, sum.files].map(|n| n.to_string());
        [vec![table.name().to_owned()], numbers.to_vec(), vec![out::size(sum.bytes), sum.total_rows.to_string()]].concat()
    });
    let head = ["table", "read", "merged", "rows written", "files", "size", "rows in all"];
    out.lines(&table(&head, rows))
}

fn tell(chosen: &Chosen, report: &Report) {
    for words in &report.damage {
        say(&format!("damage: {words}"));
    }
    if report.n_problems > 0 {
        let n = count(report.n_problems, "envelope");
        say(&format!("{n} could not be read; the table envelopes has them, with the reason"));
    }
    if report.n_unplaced > 0 {
        say(&format!("{} without an id that a column can hold: in the table events only", count(report.n_unplaced, "post")));
    }
    if report.drift.count() > 0 {
        let n = count(report.drift.count(), "surprise");
        let hint = if chosen.drift.is_some() { "" } else { "; --drift FILE lists them" };
        say(&format!(
            "{n} in {}: fields that are not in a provider's catalogue{hint}",
            count(report.drift.places() as u64, "place")
        ));
    }
}

fn to_json(report: &Report) -> Value {
    let tables = report.tables.iter().map(|(table, sum)| {
        let value = json!({
            "sightings": sum.sightings, "merged": sum.merged, "rows": sum.rows, "files": sum.files, "bytes": sum.bytes,
            "rows_in_all": sum.total_rows,
        });
        (table.name().to_owned(), value)
    });
    json!({
        "tables": tables.collect::<serde_json::Map<_, _>>(),
        "envelopes_read": report.n_records, "problems": report.n_problems, "unplaced": report.n_unplaced,
        "files_written": report.n_written, "files_kept": report.n_kept, "spilled_bytes": report.spilled_bytes,
        "surprises": report.drift.count(), "damage": report.damage,
    })
}
