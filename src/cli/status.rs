//! `birdtape status`: what is on a tape, and what is missing.

use std::fs::{File, TryLockError};
use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use super::args::{self, Common};
use super::backfill::{spent_json, spent_words};
use super::exit::{Exit, Outcome};
use super::gaps;
use super::out::{Out, count, length, size, stamp, table};
use crate::archive::{Spent, Tape};
use crate::backfill;
use crate::catalog::{ConnectionRow, GapRow, LastSeenRow, SourceRow};
use crate::model::{GapState, UnixMicros};

/// Gaps that are told of one by one; `birdtape gaps` has them all.
const MOST_GAPS: usize = 10;

/// Show what is on a tape, and what is missing
///
/// Per source: how much was recorded, when the last of it was received, how large it is, how many gaps are open, how far those
/// are that are being filled, and what that cost today. And whether somebody is recording now. --json adds the last seen ids, the
/// gaps themselves, and when each is tried again.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  birdtape status
  birdtape status --json | jq '.sources[].open_gaps | length'")]
pub(super) struct Args {}

pub(super) fn run(common: &Common, _: &Args) -> Outcome {
    let tape = common.open_tape()?;
    let index_delay = common.index_delay()?;
    let sources = tape.sources()?.into_iter().map(|row| Source::read(&tape, row, index_delay)).collect::<Result<Vec<_>>>()?;
    let recorder = recorder(tape.layout().dir());
    let catalog_bytes = tape.catalog().bytes()?;
    let mut out = Out::new();
    if common.json {
        let info = tape.info();
        out.json(&json!({
            "tape": tape.layout().dir().display().to_string(),
            "id": info.tape,
            "format": info.format,
            "created": info.created,
            "recording": recorder.is_some(),
            "holder": recorder,
            "catalog_bytes": catalog_bytes,
            "segment_bytes": sources.iter().map(|s| s.bytes).sum::<u64>(),
            "sources": sources.iter().map(Source::to_json).collect::<Vec<_>>(),
        }))?;
    } else {
        print(&mut out, &tape, &sources, recorder.as_deref(), catalog_bytes)?;
    }
    out.flush()?;
    Ok(Exit::Done)
}

struct Source {
    row: SourceRow,
    segments: usize,
    open_segments: usize,
    bytes: u64,
    raw_bytes: u64,
    connections: Vec<ConnectionRow>,
    last_seen: Vec<LastSeenRow>,
    open_gaps: Vec<OpenGap>,
    spent_today: Spent,
}

/// A gap through which loss is possible, with when a recorder fills it by itself and how far that is.
struct OpenGap {
    row: GapRow,
    tried_again: Option<UnixMicros>,
    progress: Option<String>,
}

impl OpenGap {
    fn read(tape: &Tape, row: GapRow, index_delay: Duration) -> Result<Self> {
        let began = row.state != GapState::Open.name();
        let last = if began { tape.catalog().gap_steps(&row.source, row.n)?.pop() } else { None };
        let tried_again = gaps::tried_again(tape, &row, index_delay)?;
        Ok(Self { tried_again, progress: last.map(|step| step.detail), row })
    }

    fn to_json(&self) -> Value {
        let mut value = gaps::to_json(&self.row);
        value["tried_again_at"] = self.tried_again.map(|at| at.to_string()).into();
        value["progress"] = self.progress.clone().into();
        value
    }

    /// In a line, where there is more to say than that it is open.
    fn words(&self) -> Option<String> {
        let progress = self.progress.as_ref()?;
        Some(format!("{}-{}: {}: {progress}", self.row.source, self.row.n, self.row.state))
    }
}

impl Source {
    fn read(tape: &Tape, row: SourceRow, index_delay: Duration) -> Result<Self> {
        let catalog = tape.catalog();
        let segments = catalog.segments(&row.name)?;
        let mut open_gaps = catalog.gaps(Some(&row.name))?;
        open_gaps.retain(|gap| gaps::is_open(&gap.state));
        Ok(Self {
            spent_today: backfill::spent_on_day(tape, &row.name, args::now())?,
            segments: segments.len(),
            open_segments: segments.iter().filter(|segment| segment.state == "open").count(),
            bytes: segments.iter().map(|segment| segment.bytes).sum(),
            raw_bytes: segments.iter().map(|segment| segment.raw_bytes).sum(),
            connections: catalog.connections(&row.name)?,
            last_seen: catalog.last_seen(&row.name)?,
            open_gaps: open_gaps.into_iter().map(|gap| OpenGap::read(tape, gap, index_delay)).collect::<Result<_>>()?,
            row,
        })
    }

    fn n_connected(&self) -> usize {
        self.connections.iter().filter(|connection| connection.closed_us.is_none()).count()
    }

    fn last_received(&self) -> Option<UnixMicros> {
        (self.row.last_n > 0).then_some(UnixMicros(self.row.last_us))
    }

    fn ratio(&self) -> f64 {
        if self.bytes == 0 { 0.0 } else { self.raw_bytes as f64 / self.bytes as f64 }
    }

    fn to_json(&self) -> Value {
        let last_seen = self.last_seen.iter().map(|seen| {
            json!({
                "scope": seen.scope, "kind": seen.kind, "id": seen.id, "n": seen.n, "events": seen.events,
                "published_at": seen.published_us.map(|at| UnixMicros(at).to_string()),
                "received_at": UnixMicros(seen.received_us).to_string(),
            })
        });
        json!({
            "source": self.row.name,
            "provider": self.row.provider,
            "records": self.row.last_n,
            "last_received_at": self.last_received().map(|at| at.to_string()),
            "segments": self.segments,
            "open_segments": self.open_segments,
            "bytes": self.bytes,
            "raw_bytes": self.raw_bytes,
            "ratio": (self.ratio() * 100.0).round() / 100.0,
            "connections": self.connections.len(),
            "connected": self.n_connected(),
            "last_seen": last_seen.collect::<Vec<_>>(),
            "spent_today": spent_json(&self.spent_today),
            "open_gaps": self.open_gaps.iter().map(OpenGap::to_json).collect::<Vec<_>>(),
        })
    }
}

fn print(out: &mut Out, tape: &Tape, sources: &[Source], recorder: Option<&str>, catalog_bytes: u64) -> Result<()> {
    out.line(&format!("tape:      {}, format {}", tape.layout().dir().display(), tape.info().format))?;
    let recording = recorder.map_or("nobody".to_owned(), str::to_owned);
    out.line(&format!("recording: {recording}"))?;
    let bytes: u64 = sources.iter().map(|source| source.bytes).sum();
    let share = if bytes == 0 { String::new() } else { format!(" ({:.1} %)", catalog_bytes as f64 * 100.0 / bytes as f64) };
    out.line(&format!("on disk:   {} of segments, catalog {}{share}", size(bytes), size(catalog_bytes)))?;
    if sources.is_empty() {
        return out.line("no sources yet");
    }
    let now = args::now();
    let rows = sources.iter().map(|source| {
        let last = source.last_received().map_or("never".to_owned(), |at| age(now, at));
        let on_disk = format!("{} (1:{:.1})", size(source.bytes), source.ratio());
        let connections = match source.n_connected() {
            0 => source.connections.len().to_string(),
            open if recorder.is_some() => format!("{} ({open} open)", source.connections.len()),
            open => format!("{} ({open} without a farewell)", source.connections.len()),
        };
        vec![
            source.row.name.clone(),
            source.row.provider.clone(),
            source.row.last_n.to_string(),
            last,
            source.segments.to_string(),
            on_disk,
            connections,
            if source.open_gaps.is_empty() { "none".to_owned() } else { source.open_gaps.len().to_string() },
        ]
    });
    let head = ["source", "provider", "records", "last received", "segments", "on disk", "connections", "open gaps"];
    out.line("")?;
    out.lines(&table(&head, rows))?;
    for source in sources.iter().filter(|source| source.spent_today != Spent::default()) {
        out.line(&format!("{}: {} on filling gaps today (UTC)", source.row.name, spent_words(&source.spent_today)))?;
    }
    for words in sources.iter().flat_map(|source| &source.open_gaps).filter_map(OpenGap::words).take(MOST_GAPS) {
        out.line(&words)?;
    }
    let n_open: usize = sources.iter().map(|source| source.open_gaps.len()).sum();
    if n_open > 0 {
        out.line("")?;
        out.line(&format!("{}: see `birdtape gaps --open`", count(n_open as u64, "open gap")))?;
    }
    Ok(())
}

fn age(now: UnixMicros, at: UnixMicros) -> String {
    let us = now.since(at);
    if us < 0 { stamp(at) } else { format!("{} ago", length(us)) }
}

/// Who holds the tape's lock, if somebody does.
///
/// Asks with a shared lock on a file opened for reading, so nothing is changed.
pub(super) fn recorder(dir: &Path) -> Option<String> {
    let mut file = File::open(dir.join("lock")).ok()?;
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            file.by_ref().take(4_096).read_to_string(&mut holder).ok()?;
            Some(holder.trim().to_owned())
        }
        Ok(()) | Err(TryLockError::Error(_)) => None,
    }
}
