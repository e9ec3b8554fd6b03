//! `birdtape merge`, and `birdtape backfill --from-tape`: another recorder's tape as history.

use std::path::PathBuf;
use std::sync::Arc;

use indicatif::ProgressBar;
use serde_json::{Value, json};

use super::args::{self, Common};
use super::backfill::filled_json;
use super::exit::{Exit, Outcome, usage};
use super::out::{self, Out, count, say, table};
use crate::archive::{self, Disk, RealDisk};
use crate::backfill::peer::{self, Brought, FillOptions, MergeOptions, PeerEvent, PeerOutcome, PeerPlan, PeerPlanned};
use crate::model::SourceName;
use crate::net::SystemClock;

/// Bring other recorders' tapes into one, with the union of their coverage
///
/// Fills the gaps of the tape from the others, and brings what it never promised: time before it began and after it ended, and
/// sources it does not have. The tape named by --tape is made if there is none. Sources are the same when their names are, or
/// when each tape has one of that provider. Envelopes are copied byte for byte, with a mark of where they came from; what is
/// here already is not copied again, so merging twice adds nothing. The others are never changed, and may be recorded meanwhile;
/// nobody may be recording on this one.
///
/// Where both tapes have a hole it stays a gap. Stopped in the middle, the same command goes on. Exit code 0; 3 when loss remains
/// on the tape.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  birdtape merge --tape here there                         what the other recorder has, too
  birdtape merge --tape both here there                    a new tape of two others
  birdtape merge there && birdtape certify --source alpha --from -1d --to -1h")]
pub(super) struct Args {
    /// Directories of the other tapes
    #[arg(value_name = "FROM", required = true)]
    from: Vec<PathBuf>,
}

pub(super) fn run(common: &Common, args: &Args) -> Outcome {
    let options = MergeOptions {
        tape: common.tape_dir()?,
        archive: archive::Options::default(),
        from: args.from.clone(),
        holder: args::holder("merge"),
    };
    let mut telling = Telling::new(common.json);
    let outcome = peer::merge(&options, &SystemClock::new(), &disk(), &mut |event| telling.tell(&event))?;
    summarise(common, &outcome, &telling)
}

/// What `backfill --from-tape` was told.
pub(super) struct Peer {
    pub(super) gaps: Vec<(SourceName, u64)>,
    pub(super) sources: Vec<String>,
    pub(super) from: PathBuf,
    pub(super) from_source: Option<String>,
    pub(super) dry_run: bool,
}

/// `backfill --from-tape`: only the gaps.
pub(super) fn fill(common: &Common, peer: Peer) -> Outcome {
    let (tape, archive, holder) = (common.tape_dir()?, archive::Options::default(), args::holder("backfill"));
    let Peer { gaps, sources, from, from_source, dry_run } = peer;
    if from.as_os_str().is_empty() {
        return Err(usage("--from-tape names no directory", "name the directory of another recorder's tape"));
    }
    let options = FillOptions { tape, archive, from, from_source, gaps, sources, holder };
    let mut telling = Telling::new(common.json);
    if dry_run {
        let plan = peer::plan(&options, &disk(), &mut |event| telling.tell(&event))?;
        telling.finish();
        return show(common, &plan);
    }
    let outcome = peer::fill(&options, &SystemClock::new(), &disk(), &mut |event| telling.tell(&event))?;
    summarise(common, &outcome, &telling)
}

/// What the other tape would bring.
fn show(common: &Common, plan: &PeerPlan) -> Outcome {
    let mut out = Out::new();
    let id = |planned: &PeerPlanned| format!("{}-{}", planned.gap.source, planned.gap.n);
    if common.json {
        for planned in &plan.gaps {
            out.json(&json!({
                "gap": id(planned), "scope": planned.gap.scope, "cause": planned.gap.cause, "state": planned.state.name(),
                "detail": planned.detail, "envelopes": planned.envelopes, "pages": planned.pages,
            }))?;
        }
    } else if plan.gaps.is_empty() {
        out.line("nothing to fill from it")?;
    } else {
        let row = |planned: &PeerPlanned| {
            let (cause, state, detail) = (planned.gap.cause.clone(), planned.state.name().to_owned(), planned.detail.clone());
            vec![id(planned), cause, state, planned.envelopes.to_string(), planned.pages.to_string(), detail]
        };
        out.lines(&table(&["gap", "cause", "would be", "new envelopes", "new pages", "why"], plan.gaps.iter().map(row)))?;
    }
    out.flush()?;
    say_left(&plan.left);
    Ok(if plan.gaps.is_empty() && plan.left.is_empty() { Exit::Done } else { Exit::KnownLoss })
}

fn say_left(left: &[(String, String)]) {
    left.iter().for_each(|(what, why)| say(&format!("left out: {what}: {why}")));
}

fn disk() -> Arc<dyn Disk> {
    Arc::new(RealDisk)
}

struct Telling {
    is_json: bool,
    progress: Option<ProgressBar>,
}

impl Telling {
    fn new(is_json: bool) -> Self {
        Self { is_json, progress: out::live_line() }
    }

    fn finish(&self) {
        if let Some(line) = &self.progress {
            line.finish_and_clear();
        }
    }

    fn tell(&mut self, event: &PeerEvent) {
        if self.is_json {
            let mut out = Out::new();
            // Who reads no more has seen enough.
            out.json(&event_json(event)).and_then(|()| out.flush()).ok();
            return;
        }
        match event {
            PeerEvent::Read { source, records, of, copied } => {
                if let Some(line) = &self.progress {
                    line.set_message(format!("{source}: {records} of {of} records read, {copied} copied"));
                }
            }
            PeerEvent::Ended(filled) => say(&format!("{}: {}: {}", filled.gap, filled.state.name(), filled.detail)),
            PeerEvent::Source(brought) => say(&words(brought)),
        }
    }
}

fn words(brought: &Brought) -> String {
    let (from, envelopes, pages) = (brought.from.display(), count(brought.envelopes, "envelope"), count(brought.pages, "page"));
    let name = if brought.source == brought.from_source { String::new() } else { format!(" (there {})", brought.from_source) };
    let mut words = format!("{}{name} from {from}: {envelopes} and {pages} of history copied", brought.source);
    for damage in &brought.damage {
        words.push_str(&format!("; {from} is damaged: {damage}"));
    }
    words
}

fn event_json(event: &PeerEvent) -> Value {
    match event {
        PeerEvent::Read { source, records, of, copied } => {
            json!({ "event": "read", "source": source, "records": records, "of": of, "copied": copied })
        }
        PeerEvent::Ended(filled) => filled_json(filled),
        PeerEvent::Source(brought) => json!({
            "event": "source", "source": brought.source, "from": brought.from, "from_source": brought.from_source,
            "records": brought.records, "envelopes": brought.envelopes, "pages": brought.pages, "promised": brought.promised,
            "damage": brought.damage,
        }),
    }
}

fn summarise(common: &Common, outcome: &PeerOutcome, telling: &Telling) -> Outcome {
    telling.finish();
    say_left(&outcome.left);
    if outcome.added_nothing() {
        say("nothing was added: everything is here already");
    }
    say(&format!("{} still open", count(outcome.still_open, "gap")));
    let exit = if outcome.still_open > 0 { Exit::KnownLoss } else { Exit::Done };
    if common.json {
        let left = outcome.left.iter().map(|(what, why)| json!({ "what": what, "why": why }));
        let mut out = Out::new();
        out.json(&json!({
            "event": "done", "added": !outcome.added_nothing(), "left": left.collect::<Vec<_>>(),
            "still_open": outcome.still_open, "exit": exit.code(),
        }))?;
        out.flush()?;
    }
    Ok(exit)
}
