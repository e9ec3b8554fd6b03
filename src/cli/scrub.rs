//! `birdtape scrub`: every sealed byte read again, slowly.

use std::sync::Arc;
use std::time::Duration;

use indicatif::ProgressBar;
use serde_json::{Value, json};

use super::args::{self, Common};
use super::exit::{Exit, Outcome};
use super::out::{self, Out, count, say, size};
use super::signal;
use crate::archive::{self, RealDisk};
use crate::model::Seq;
use crate::net::SystemClock;
use crate::upkeep::{self, Passed, ScrubEvent, Scrubbing};

/// Read every sealed segment again, slowly, and write damage into the ledger
///
/// Goes on where the last one was stopped, and reads no faster than --pace. A damaged block becomes a gap of cause `damaged`
/// over the time of the records it lost, and so work for `birdtape backfill`, or for `birdtape repair --from-tape` where there
/// is a copy of the tape. `birdtape record` does this by itself, beside recording; this command is for a tape at rest.
/// Exit code 0, 3 when something is damaged, 1 when it was stopped.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  birdtape scrub
  birdtape scrub --pace 50MB/s
  birdtape scrub --pace max --json")]
pub(super) struct Args {
    /// Bytes of files read in a second at most: 500KB/s, 20MB/s, or max
    #[arg(long, value_name = "RATE", value_parser = args::rate, default_value = "20MB/s")]
    pace: u64,
}

pub(super) fn run(common: &Common, args: &Args) -> Outcome {
    let scrubbing = Scrubbing { tape: common.tape_dir()?, bytes_per_second: args.pace, every: Duration::ZERO };
    let (clock, disk, holder) = (Arc::new(SystemClock::new()), Arc::new(RealDisk), args::holder("scrub"));
    let (is_json, mut bar) = (common.json, None);
    let mut tell = |event: ScrubEvent| tell(is_json, &mut bar, &event);
    let passed = signal::block_on(async |stop| {
        Ok(upkeep::scrub(scrubbing, archive::Options::default(), &holder, clock, disk, stop, &mut tell).await?)
    })?;
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    summarise(common, passed)
}

fn tell(is_json: bool, bar: &mut Option<ProgressBar>, event: &ScrubEvent) {
    match event {
        ScrubEvent::Began { bytes, .. } => *bar = Some(out::progress(Some(*bytes), "reading")),
        ScrubEvent::Looked { bytes, .. } => bar.iter().for_each(|bar| bar.inc(*bytes)),
        _ => {}
    }
    if is_json {
        let mut out = Out::new();
        // Who reads no more has seen enough.
        out.json(&event_json(event)).and_then(|()| out.flush()).ok();
    } else if let Some(words) = words_of(event) {
        match bar {
            Some(bar) => bar.suspend(|| say(&words)),
            None => say(&words),
        }
    }
}

/// What is worth a line.
pub(super) fn words_of(event: &ScrubEvent) -> Option<String> {
    match event {
        ScrubEvent::Began { .. } | ScrubEvent::Looked { .. } => None,
        ScrubEvent::Damaged { path, flaws, lost, .. } => {
            let numbers = |first: Seq, last: Seq| if first == last { first.to_string() } else { format!("{first} to {last}") };
            let lost: Vec<_> = lost.iter().map(|hole| numbers(hole.first_n, hole.last_n)).collect();
            let lost = if lost.is_empty() { String::new() } else { format!("; lost: records {}", lost.join(", ")) };
            Some(format!("damaged: {}: {}{lost}", path.display(), flaws.join("; ")))
        }
        ScrubEvent::Passed(passed) if passed.damaged > 0 => {
            Some(format!("of {} read again, {} damaged", count(passed.segments, "segment"), passed.damaged))
        }
        ScrubEvent::Passed(_) => None,
        ScrubEvent::Rests { why } => Some(format!("sealed segments are not read again for now: {why}")),
    }
}

pub(super) fn event_json(event: &ScrubEvent) -> Value {
    match event {
        ScrubEvent::Began { segments, bytes } => json!({ "event": "began", "segments": segments, "bytes": bytes }),
        ScrubEvent::Looked { source, first_n, bytes } => {
            json!({ "event": "looked", "source": source, "first_n": first_n, "bytes": bytes })
        }
        ScrubEvent::Damaged { source, path, flaws, lost } => {
            let lost = lost.iter().map(|hole| json!([hole.first_n.0, hole.last_n.0]));
            json!({ "event": "damaged", "source": source, "path": path, "flaws": flaws, "lost": lost.collect::<Vec<_>>() })
        }
        ScrubEvent::Passed(Passed { segments, bytes, damaged }) => {
            json!({ "event": "passed", "segments": segments, "bytes": bytes, "damaged": damaged })
        }
        ScrubEvent::Rests { why } => json!({ "event": "rests", "why": why }),
    }
}

fn summarise(common: &Common, passed: Option<Passed>) -> Outcome {
    let mut out = Out::new();
    let exit = match passed {
        None => {
            if !common.json {
                out.line("stopped; the next one goes on from here")?;
            }
            Exit::Failed
        }
        Some(Passed { segments, bytes, damaged }) => {
            if !common.json {
                let whole = if damaged == 0 { "all whole".to_owned() } else { format!("{damaged} damaged") };
                out.line(&format!("read {}, {}: {whole}", count(segments, "segment"), size(bytes)))?;
            }
            if damaged > 0 {
                say("hint: `birdtape repair --from-tape COPY` brings records back; `birdtape backfill` asks history for them");
            }
            if damaged > 0 { Exit::KnownLoss } else { Exit::Done }
        }
    };
    out.flush()?;
    Ok(exit)
}
