//! `birdtape compact`: sealed segments packed harder.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use indicatif::ProgressBar;
use serde_json::{Value, json};

use super::args::{self, Common};
use super::exit::{Exit, Outcome};
use super::out::{self, Out, count, say, size, stamp, table};
use super::signal;
use crate::archive::{self, Disk, Packing, RealDisk, SegmentRow};
use crate::model::UnixMicros;
use crate::net::SystemClock;
use crate::upkeep::{self, CompactEvent, CompactOptions, CompactOutcome, PACKING};

/// Pack sealed segments harder, without changing a byte of what is in them
///
/// Rewrites each sealed segment in larger blocks and at a higher zstd level, reads the result back, compares the SHA-256 of
/// what both unpack to, and only then puts the new file in the place of the old one. A kill at any moment leaves the one or
/// the other. Stock tools read it as before, and certificates stay true: the digest `content` of a segment does not change,
/// and a note on the tape names the files' digests before and after.
///
/// Segments that were compacted before, that are tiny or damaged are left as they are. Ctrl-C stops between two blocks. Nobody
/// may be recording. Whoever looks a single post up unpacks a whole block, so larger blocks cost time and memory there.
/// Exit code 0, 3 when a segment is damaged, 1 when it was stopped.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  birdtape compact --dry-run
  birdtape compact --older-than 7d
  birdtape compact --level 19 --block-size 32MiB --source alpha")]
pub(super) struct Args {
    /// Only this source (repeatable) [default: all]
    #[arg(long, value_name = "NAME")]
    source: Vec<String>,
    /// Only segments in which everything is older than that: 7d, 12h
    #[arg(long, value_name = "AGE", value_parser = args::duration)]
    older_than: Option<Duration>,
    /// Level of zstd, 1 (quick) to 19 (a tenth smaller, and some twenty times slower)
    #[arg(long, value_name = "LEVEL", value_parser = clap::value_parser!(i32).range(1..=19), default_value_t = PACKING.level)]
    level: i32,
    /// Blocks are joined up to this size before compression, at most 32MiB
    #[arg(long, value_name = "SIZE", value_parser = block_size, default_value = "16MiB")]
    block_size: u64,
    /// Blocks that are packed side by side [default: one for each core]
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
    /// Also segments that were compacted before
    #[arg(long)]
    again: bool,
    /// Only list what would be packed, and change nothing
    #[arg(long)]
    dry_run: bool,
}

fn block_size(text: &str) -> Result<u64, String> {
    let allowed = (64 << 10)..=Packing::BLOCK_BYTES_MAX;
    let known = || format!("a size from 64KiB to {} is wanted, as 16MiB", size(Packing::BLOCK_BYTES_MAX));
    text.parse::<bytesize::ByteSize>().ok().map(|size| size.as_u64()).filter(|size| allowed.contains(size)).ok_or_else(known)
}

pub(super) fn run(common: &Common, args: &Args) -> Outcome {
    let cores = || std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let packing = Packing { level: args.level, block_bytes: args.block_size, threads: args.threads.unwrap_or_else(cores) };
    let options = CompactOptions {
        tape: common.tape_dir()?,
        archive: archive::Options::default(),
        sources: args.source.clone(),
        older_than: args.older_than,
        again: args.again,
        packing,
        holder: args::holder("compact"),
    };
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let plan = upkeep::plan_compact(&options, &disk, args::now())?;
    if args.dry_run {
        return show(common, &plan);
    }
    let is_json = common.json;
    let bar = out::progress(Some(plan.iter().map(|row| row.bytes).sum()), "compacting");
    let outcome = signal::block_on(async |stop| {
        let work = move || {
            let mut tell = |event| tell(is_json, &bar, &event);
            let done = upkeep::compact(&options, &SystemClock::new(), &disk, &mut tell, &|| *stop.borrow());
            bar.finish_and_clear();
            done
        };
        Ok(tokio::task::spawn_blocking(work).await.context("the work broke off")??)
    })?;
    summarise(common, &outcome)
}

fn show(common: &Common, plan: &[SegmentRow]) -> Outcome {
    let mut out = Out::new();
    if common.json {
        plan.iter().try_for_each(|row| out.json(&row_json(row)))?;
    } else if plan.is_empty() {
        out.line("nothing to compact")?;
    } else {
        let row = |row: &SegmentRow| {
            let ratio = format!("{:.1}", row.raw_bytes as f64 / row.bytes.max(1) as f64);
            let until = stamp(UnixMicros(row.last_us));
            vec![row.source.clone(), row.first_n.to_string(), row.last_n.to_string(), until, size(row.bytes), ratio]
        };
        out.lines(&table(&["source", "first", "last", "until", "on disk", "ratio"], plan.iter().map(row)))?;
        let bytes = plan.iter().map(|row| row.bytes).sum();
        out.line(&format!("{} of {} would be packed anew", count(plan.len() as u64, "segment"), size(bytes)))?;
    }
    out.flush()?;
    Ok(Exit::Done)
}

fn row_json(row: &SegmentRow) -> Value {
    json!({
        "source": row.source, "first_n": row.first_n, "last_n": row.last_n, "bytes": row.bytes, "raw_bytes": row.raw_bytes,
        "content": row.content,
    })
}

fn tell(is_json: bool, bar: &ProgressBar, event: &CompactEvent) {
    if let CompactEvent::Read(bytes) = event {
        return bar.inc(*bytes);
    }
    if is_json {
        let mut out = Out::new();
        // Who reads no more has seen enough.
        out.json(&event_json(event)).and_then(|()| out.flush()).ok();
        return;
    }
    if let CompactEvent::Damaged { segment, why } = event {
        bar.suspend(|| say(&format!("damaged, left as it is: {}, segment {}: {why}", segment.source, segment.first_n)));
    }
}

fn event_json(event: &CompactEvent) -> Value {
    let (name, row) = match event {
        CompactEvent::Read(_) => return Value::Null,
        CompactEvent::Smaller { segment, .. } => ("compacted", segment),
        CompactEvent::AsBefore(segment) => ("as_before", segment),
        CompactEvent::Damaged { segment, .. } => ("damaged", segment),
    };
    let mut value = row_json(row);
    value["event"] = name.into();
    match event {
        CompactEvent::Smaller { after, .. } => value["bytes_after"] = (*after).into(),
        CompactEvent::Damaged { why, .. } => value["why"] = why.as_str().into(),
        CompactEvent::Read(_) | CompactEvent::AsBefore(_) => {}
    }
    value
}

fn summarise(common: &Common, outcome: &CompactOutcome) -> Outcome {
    let CompactOutcome { smaller, as_before, damaged, bytes_before, bytes_after, raw_bytes, is_stopped } = *outcome;
    let exit = match (is_stopped, damaged) {
        (true, _) => Exit::Failed,
        (false, 1..) => Exit::KnownLoss,
        (false, 0) => Exit::Done,
    };
    let mut out = Out::new();
    if common.json {
        out.json(&json!({
            "event": "done", "compacted": smaller, "as_before": as_before, "damaged": damaged, "bytes_before": bytes_before,
            "bytes_after": bytes_after, "raw_bytes": raw_bytes, "stopped": is_stopped, "exit": exit.code(),
        }))?;
    } else if smaller + as_before + damaged == 0 {
        out.line(if is_stopped { "stopped; the tape is as it was" } else { "nothing to compact" })?;
    } else {
        let ratio = |bytes: u64| format!("{:.1}", raw_bytes as f64 / bytes.max(1) as f64);
        let (before, after) = (size(bytes_before), size(bytes_after));
        let saved = 100.0 * (1.0 - bytes_after as f64 / bytes_before.max(1) as f64);
        let words =
            format!("{before} became {after}, {saved:.0} % less (ratio {} -> {})", ratio(bytes_before), ratio(bytes_after));
        out.line(&format!("{}: {words}", count(smaller, "segment")))?;
        if as_before > 0 {
            out.line(&format!("{} would not be smaller", count(as_before, "segment")))?;
        }
        if damaged > 0 {
            out.line(&format!("{} damaged; `birdtape repair` says how far", count(damaged, "segment")))?;
        }
        if is_stopped {
            out.line("stopped; what is done stays, the rest is as it was")?;
        }
    }
    out.flush()?;
    Ok(exit)
}
