//! `birdtape recover`: mends what a crash left.

use std::sync::Arc;

use anyhow::Result;
use serde_json::json;

use super::args::{self, Common};
use super::exit::{Exit, Outcome};
use super::out::{Out, count};
use super::verify;
use crate::archive::{self, Archive, Fact, Layout, Recovery};
use crate::provider;
use crate::segment::RealDisk;

/// Mend a tape after a crash
///
/// Seals what a killed recorder left open, up to its last good commit, saves what can be saved around damage, and lets the
/// catalog catch up. Every recorder does this when it starts; this command does it without recording. Exit code 0, or 3 when
/// records are lost: they stand in the gap ledger from now on.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  birdtape recover
  birdtape recover && birdtape verify")]
pub(super) struct Args {}

pub(super) fn run(common: &Common, _: &Args) -> Outcome {
    let dir = common.tape_dir()?;
    // A writer makes a tape where there is none; mending must not.
    Layout::new(&dir).require_info(&RealDisk)?;
    let (disk, options) = (Arc::new(RealDisk), archive::Options::default());
    let mut archive = Archive::open(&dir, disk, options, provider::decode_record, &args::holder("recover"), args::now())?;
    let mut recovery = archive.recovery().clone();
    // Sealed segments are not read on opening; here somebody asked for it.
    let report = verify::prove(&dir)?;
    for hole in report.damage.into_iter().filter(|damage| !damage.known).filter_map(|damage| damage.lost) {
        archive.note_loss(&hole, args::now())?;
        recovery.holes.push(hole);
    }
    archive.close(args::now())?;
    let mut out = Out::new();
    if common.json {
        print_json(&mut out, &recovery)?
    } else {
        print(&mut out, &recovery)?
    }
    out.flush()?;
    Ok(if recovery.holes.is_empty() { Exit::Done } else { Exit::KnownLoss })
}

fn print(out: &mut Out, recovery: &Recovery) -> Result<()> {
    if *recovery == Recovery::default() {
        return out.line("nothing to mend");
    }
    for tail in &recovery.sealed {
        let torn = if tail.torn_bytes > 0 {
            format!("; {} behind its last commit were never announced and are cut off", count(tail.torn_bytes, "byte"))
        } else {
            String::new()
        };
        out.line(&format!("sealed {} from record {} to {}{torn}", tail.source, tail.first_n, tail.last_n))?;
    }
    for hole in &recovery.holes {
        out.line(&format!("lost {} records {} to {}: {}", hole.source, hole.first_n, hole.last_n, hole.why))?;
    }
    if recovery.caught_up > 0 {
        out.line(&format!("the catalog learnt of {}", count(recovery.caught_up, "segment")))?;
    }
    for (source, fact) in &recovery.settled {
        let what = match fact {
            Fact::Pruned { last_n, .. } => format!("pruning up to record {last_n}"),
            Fact::Compacted { segment, .. } => format!("compacting segment {segment}"),
            _ => continue,
        };
        out.line(&format!("finished what was begun: {source}, {what}"))?;
    }
    if let Some(why) = &recovery.rebuilt {
        out.line(&format!("the catalog was made again: {why}"))?;
    }
    if let Some(words) = &recovery.farewell {
        out.line(&format!("the last recorder was stopped by the disk: {words}"))?;
    }
    Ok(())
}

fn print_json(out: &mut Out, recovery: &Recovery) -> Result<()> {
    let sealed = recovery.sealed.iter().map(|tail| {
        json!({ "source": tail.source.as_str(), "first_n": tail.first_n.0, "last_n": tail.last_n.0, "torn_bytes": tail.torn_bytes })
    });
    let holes = recovery.holes.iter().map(
        |hole| json!({ "source": hole.source.as_str(), "first_n": hole.first_n.0, "last_n": hole.last_n.0, "why": hole.why }),
    );
    out.json(&json!({
        "sealed": sealed.collect::<Vec<_>>(),
        "holes": holes.collect::<Vec<_>>(),
        "caught_up": recovery.caught_up,
        "settled": recovery.settled.len(),
        "rebuilt": recovery.rebuilt,
        "farewell": recovery.farewell,
    }))
}
