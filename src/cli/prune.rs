//! `birdtape prune`: the oldest segments go, and the tape knows it.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::args::{self, Common};
use super::exit::{Exit, Outcome, usage};
use super::out::{self, Out, count, size, stamp, table};
use crate::archive::{self, ArchiveError, Disk, Pruned, RealDisk};
use crate::net::SystemClock;
use crate::upkeep::{self, Doomed, PruneEvent, PruneOptions, PrunePlan};

/// Remove the oldest segments, so that the tape knows it
///
/// Removes whole sealed segments, oldest first: those in which everything is older than --older-than, and beyond that the
/// oldest until the tape's segments fit into --max-size (the newest of each source stays). What they come to stays on the
/// tape: scopes, the ledger of gaps, coverage, and each segment's numbers and digests. So `gaps`, `certify` and `verify` say
/// `pruned` of that time, not damage; open gaps that lie in it are settled as `pruned`, and nobody pays for filling them.
///
/// Says what goes and asks nothing: look with --dry-run first. A kill in the middle leaves a tape that opens and finishes the
/// removal. Nobody may be recording. Export before you prune: what is gone cannot be exported any more.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  birdtape prune --older-than 90d --dry-run
  birdtape prune --older-than 90d
  birdtape prune --max-size 500GB --source alpha")]
pub(super) struct Args {
    /// Segments in which everything was received longer ago than that: 90d, 12h
    #[arg(long, value_name = "AGE", value_parser = args::duration, required_unless_present = "max_size")]
    older_than: Option<Duration>,
    /// The oldest segments, until all of these sources' together are no larger: 500GB, 20GiB
    #[arg(long, value_name = "SIZE")]
    max_size: Option<bytesize::ByteSize>,
    /// Only this source (repeatable) [default: all]
    #[arg(long, value_name = "NAME")]
    source: Vec<String>,
    /// Only list what would go, and remove nothing
    #[arg(long)]
    dry_run: bool,
}

impl Args {
    /// The rules as they were given.
    fn why(&self) -> String {
        let age = self.older_than.map(|age| format!("--older-than {}", humantime::format_duration(age)));
        let size = self.max_size.map(|size| format!("--max-size {}", size.display().si()));
        age.into_iter().chain(size).collect::<Vec<_>>().join(" ")
    }
}

pub(super) fn run(common: &Common, args: &Args) -> Outcome {
    if args.older_than.is_some_and(|age| age.is_zero()) {
        return Err(usage("--older-than 0 would remove everything", "name an age, as 90d; or remove the tape's directory"));
    }
    let options = PruneOptions {
        tape: common.tape_dir()?,
        archive: archive::Options::default(),
        sources: args.source.clone(),
        older_than: args.older_than,
        max_bytes: args.max_size.map(|size| size.as_u64()),
        why: args.why(),
        holder: args::holder("prune"),
    };
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let plan = upkeep::plan_prune(&options, &disk, args::now())?;
    let mut out = Out::new();
    if common.json {
        plan.doomed.iter().try_for_each(|doomed| out.json(&doomed_json(doomed)))?;
    } else {
        print(&mut out, &plan)?;
    }
    out.flush()?;
    if args.dry_run {
        return Ok(Exit::Done);
    }
    let bar = out::progress(Some(plan.doomed.iter().map(Doomed::bytes).sum()), "reading once more");
    let mut tell = |event: PruneEvent| {
        if let PruneEvent::Read(bytes) = event {
            bar.inc(bytes);
        }
    };
    let pruned = match upkeep::prune(&options, &SystemClock::new(), &disk, &mut tell) {
        // Opening finishes a removal that was killed; whoever has the tape open did that already.
        Err(ArchiveError::Locked { .. }) if plan.doomed.is_empty() => Vec::new(),
        pruned => pruned?,
    };
    bar.finish_and_clear();
    if pruned.is_empty() {
        return Ok(Exit::Done);
    }
    if common.json {
        pruned.iter().try_for_each(|pruned| out.json(&pruned_json(pruned)))?;
    } else {
        let (segments, bytes) = pruned.iter().fold((0, 0), |sum, one| (sum.0 + one.segments, sum.1 + one.bytes));
        out.line(&format!("removed {}, {}", count(segments, "segment"), size(bytes)))?;
    }
    out.flush()?;
    Ok(Exit::Done)
}

fn print(out: &mut Out, plan: &PrunePlan) -> anyhow::Result<()> {
    if plan.doomed.is_empty() {
        return out.line("nothing to prune");
    }
    let row = |doomed: &Doomed| {
        let numbers = [doomed.segments.len() as u64, doomed.records()].map(|n| n.to_string());
        let ends = [doomed.segments.first().map(|row| row.first_n), doomed.segments.last().map(|row| row.last_n)];
        let ends = ends.map(|n| n.unwrap_or_default().to_string());
        let rest = [stamp(doomed.until()), size(doomed.bytes()), doomed.open_gaps.to_string()];
        [vec![doomed.source.to_string()], numbers.to_vec(), ends.to_vec(), rest.to_vec()].concat()
    };
    let head = ["source", "segments", "records", "from", "to", "received until", "on disk", "open gaps"];
    out.lines(&table(&head, plan.doomed.iter().map(row)))?;
    let bytes = plan.doomed.iter().map(Doomed::bytes).sum();
    out.line(&format!("{} to be removed, {} left", size(bytes), size(plan.left_bytes)))
}

fn doomed_json(doomed: &Doomed) -> Value {
    json!({
        "event": "doomed",
        "source": doomed.source.as_str(),
        "segments": doomed.segments.len(),
        "first_n": doomed.segments.first().map(|row| row.first_n),
        "last_n": doomed.segments.last().map(|row| row.last_n),
        "records": doomed.records(),
        "bytes": doomed.bytes(),
        "until": doomed.until().to_string(),
        "open_gaps": doomed.open_gaps,
    })
}

fn pruned_json(pruned: &Pruned) -> Value {
    json!({
        "event": "pruned",
        "source": pruned.source.as_str(),
        "segments": pruned.segments,
        "first_n": pruned.first_n.0,
        "last_n": pruned.last_n.0,
        "records": pruned.records,
        "envelopes": pruned.envelopes,
        "bytes": pruned.bytes,
    })
}
