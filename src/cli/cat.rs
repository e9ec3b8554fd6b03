//! `birdtape cat`: records out of a tape, exactly.

use anyhow::Result;

use super::args::{self, Common, When};
use super::exit::{Exit, Outcome};
use super::out::{Out, count, say};
use crate::archive::{Record, Span, Tape};
use crate::model::RecordKind;

/// Print records as JSON lines, or the envelopes' bytes
///
/// Each line is the record as it stands on the tape, with its `source` as first key. With --raw it is an envelope's bytes as
/// they came off the wire, one a line. Several sources are merged by received_at. A tape that is being recorded is read up
/// to its last commit. Damage is passed over, told on stderr, and makes the exit code 3.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  birdtape cat --source alpha --raw | jq .
  birdtape cat --kind note --from -1h
  birdtape cat --from 2026-11-20 --to 2026-11-21T06:00:00Z | zstd > part.jsonl.zst")]
pub(super) struct Args {
    /// Only this source (repeatable) [default: all]
    #[arg(long, value_name = "NAME")]
    source: Vec<String>,
    /// Only this kind: frame, sent, open, close, http, note (repeatable) [default: all, with --raw: frame]
    #[arg(long, value_name = "KIND", value_parser = args::kind)]
    kind: Vec<RecordKind>,
    /// Received at or after: 2026-11-20, 2026-11-20T23:18:00Z, -1h
    #[arg(long, value_name = "TIME", value_parser = args::when, allow_hyphen_values = true)]
    from: Option<When>,
    /// Received before
    #[arg(long, value_name = "TIME", value_parser = args::when, allow_hyphen_values = true)]
    to: Option<When>,
    /// Print only the envelopes' bytes
    #[arg(long, conflicts_with = "json")]
    raw: bool,
}

pub(super) fn run(common: &Common, args: &Args) -> Outcome {
    let tape = common.open_tape()?;
    let sources = args::sources(&tape, &args.source)?;
    let now = args::now();
    let instant = |when: Option<When>| when.map(|when| when.instant(now));
    let span = Span { from_n: None, from: instant(args.from), to: instant(args.to) };
    let print = Print::new(args);
    let damage = match sources.as_slice() {
        [one] => print.one(&tape, one, span)?,
        many => print.merged(&tape, many, span)?,
    };
    for words in &damage {
        say(&format!("damage: {words}"));
    }
    if damage.is_empty() {
        return Ok(Exit::Done);
    }
    say(&format!("{} passed over; `birdtape verify` says more", count(damage.len() as u64, "damaged place")));
    Ok(Exit::KnownLoss)
}

struct Print {
    raw: bool,
    kinds: Vec<RecordKind>,
}

impl Print {
    fn new(args: &Args) -> Self {
        let kinds = if args.raw && args.kind.is_empty() { vec![RecordKind::Frame] } else { args.kind.clone() };
        Self { raw: args.raw, kinds }
    }

    fn one(&self, tape: &Tape, source: &str, span: Span) -> Result<Vec<String>> {
        let mut out = Out::new();
        let head = head(source);
        let mut records = tape.records(source, span)?;
        while let Some(record) = records.next()? {
            self.record(&mut out, &head, &record)?;
        }
        out.flush()?;
        Ok(records.damage().iter().map(|words| format!("{source}: {words}")).collect())
    }

    fn merged(&self, tape: &Tape, sources: &[String], span: Span) -> Result<Vec<String>> {
        let mut out = Out::new();
        let mut records = tape.merged(sources, span)?;
        while let Some((source, record)) = records.next()? {
            self.record(&mut out, &head(&source), &record)?;
        }
        out.flush()?;
        Ok(records.damage().map(|(source, words)| format!("{source}: {words}")).collect())
    }

    fn record(&self, out: &mut Out, head: &[u8], record: &Record) -> Result<()> {
        if !self.kinds.is_empty() && !self.kinds.contains(&record.kind) {
            return Ok(());
        }
        if self.raw { out.exact(&[&record.body]) } else { whole(out, head, record) }
    }
}

/// How a printed record of a source begins.
pub(super) fn head(source: &str) -> Vec<u8> {
    // A source's name needs no escaping: letters, digits, `_` and `-`.
    format!("{{\"source\":\"{source}\",").into_bytes()
}

/// Prints a record's line with its source as first key, otherwise as it stands on the tape.
pub(super) fn whole(out: &mut Out, head: &[u8], record: &Record) -> Result<()> {
    out.exact(&[head, record.line.get(1..).unwrap_or_default()])
}
