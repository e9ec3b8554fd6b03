//! `birdtape repair`: damaged segments brought back, or their loss told.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use serde_json::{Value, json};

use super::args::{self, Common};
use super::exit::{Exit, Outcome};
use super::merge::{self, Peer};
use super::out::{self, Out, count, say};
use crate::archive::{self, Disk, RealDisk};
use crate::net::SystemClock;
use crate::upkeep::{self, Became, Hurt, RepairEvent, RepairOptions, RepairOutcome};

/// Bring damaged segments back from a copy of the tape, or say what is lost
///
/// Reads every sealed segment. What is damaged goes into the ledger as a gap of cause `damaged`, which `birdtape backfill` asks
/// the provider's history for as for any other; the damaged file is not touched by that.
///
/// With --from-tape a copy of this tape (the same id: a backup, an rsync) gives the segment back exactly. The copy must prove
/// itself: whole to the last byte, and the same content by its digest, or by every record that can still be read here. Then
/// its file takes the place of the damaged one, which is kept beside it as NAME.damaged. Where the other tape is another
/// recorder's, the gaps of the damaged blocks are filled from it, as by `birdtape backfill --from-tape`.
///
/// Nobody may be recording. Exit code 0 when nothing is damaged any more, 3 when something is.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  birdtape repair
  birdtape repair --from-tape /mnt/backup/tape
  birdtape repair --from-tape /mnt/other-recorder/tape --source alpha")]
pub(super) struct Args {
    /// A copy of this tape, or another recorder's
    #[arg(long, value_name = "DIR")]
    from_tape: Option<PathBuf>,
    /// Only this source (repeatable) [default: all]
    #[arg(long, value_name = "NAME")]
    source: Vec<String>,
    /// Do not keep the damaged file beside the one that was brought back
    #[arg(long, requires = "from_tape")]
    discard_damaged: bool,
}

pub(super) fn run(common: &Common, args: &Args) -> Outcome {
    let options = RepairOptions {
        tape: common.tape_dir()?,
        archive: archive::Options::default(),
        sources: args.source.clone(),
        from: args.from_tape.clone(),
        keep: !args.discard_damaged,
        holder: args::holder("repair"),
    };
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let bar = out::progress(None, "reading");
    let mut tell = |RepairEvent::Read(bytes)| bar.inc(bytes);
    let outcome = upkeep::repair(&options, &SystemClock::new(), &disk, &mut tell)?;
    bar.finish_and_clear();
    let kept = archive::damaged_files(&options.tape, &*disk)?;
    let mut out = Out::new();
    if common.json {
        outcome.hurt.iter().try_for_each(|hurt| out.json(&hurt_json(hurt)))?;
        out.json(&json!({ "event": "done", "damaged": left(&outcome), "rebuilt": outcome.is_rebuilt, "kept": kept }))?;
    } else {
        print(&mut out, &outcome, &kept)?;
    }
    out.flush()?;
    if let Some(from) = args.from_tape.clone().filter(|_| outcome.is_other_recorders) {
        let gaps = outcome.open_gaps(&common.open_tape()?)?;
        if !gaps.is_empty() {
            say("that tape is another recorder's: the gaps are filled from it");
            return merge::fill(common, Peer { gaps, sources: Vec::new(), from, from_source: None, dry_run: false });
        }
    }
    let is_mended = outcome.hurt.iter().all(|hurt| matches!(hurt.became, Became::Restored(_)));
    Ok(if is_mended { Exit::Done } else { Exit::KnownLoss })
}

fn left(outcome: &RepairOutcome) -> usize {
    outcome.hurt.iter().filter(|hurt| !matches!(hurt.became, Became::Restored(_))).count()
}

fn print(out: &mut Out, outcome: &RepairOutcome, kept: &[PathBuf]) -> Result<()> {
    for hurt in &outcome.hurt {
        let gaps: Vec<_> = hurt.gaps.iter().map(|n| format!("{}-{n}", hurt.segment.source)).collect();
        let told = if gaps.is_empty() { "no record is lost".to_owned() } else { format!("in the ledger as {}", gaps.join(", ")) };
        out.line(&format!("damaged: {}: {}; {told}", hurt.path.display(), hurt.flaws.join("; ")))?;
        match &hurt.became {
            Became::Found => {}
            Became::Refused(why) => out.line(&format!("  not brought back: the copy is of no use: {why}"))?,
            Became::Restored(restored) => {
                let by = if restored.is_known { "its digest" } else { "every record that was left" };
                out.line(&format!("  brought back from the copy, proven by {by}"))?;
                restored.kept.iter().try_for_each(|kept| out.line(&format!("  the damaged file is {}", kept.display())))?;
            }
        }
    }
    match (outcome.hurt.len(), left(outcome)) {
        (0, _) => out.line("nothing is damaged")?,
        (_, 0) => out.line("nothing is damaged any more")?,
        (_, left) => {
            out.line(&format!("{} still damaged", count(left as u64, "segment")))?;
            say(
                "hint: `birdtape backfill` asks history for what they lost; a copy of the tape (--from-tape) gives it back exactly",
            );
        }
    }
    if !kept.is_empty() {
        say(&format!("{} kept from repairs; remove them when you are sure", count(kept.len() as u64, "damaged file")));
    }
    Ok(())
}

fn hurt_json(hurt: &Hurt) -> Value {
    let lost = hurt.lost.iter().map(|hole| json!([hole.first_n.0, hole.last_n.0])).collect::<Vec<_>>();
    let (became, why, kept) = match &hurt.became {
        Became::Found => ("found", None, None),
        Became::Refused(why) => ("refused", Some(why.to_string()), None),
        Became::Restored(restored) => ("restored", None, restored.kept.clone()),
    };
    let gaps: Vec<_> = hurt.gaps.iter().map(|n| format!("{}-{n}", hurt.segment.source)).collect();
    json!({
        "event": "segment", "source": hurt.segment.source, "first_n": hurt.segment.first_n, "path": hurt.path, "flaws": hurt.flaws,
        "lost": lost, "gaps": gaps, "became": became, "why": why, "kept": kept,
    })
}
