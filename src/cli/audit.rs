//! `birdtape audit`: asks history for what looked whole.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use super::args::{self, Common, When};
use super::exit::{Exit, Outcome, failed, usage};
use super::out::{self, Out, count, length, say, stamp, table};
use super::{backfill, signal};
use crate::archive::{ArchiveError, Disk, RealDisk};
use crate::backfill::{
    AuditEstimate, AuditEvent, AuditOptions, AuditPlan, Audited, AuditedWindow, BackfillError, Budget, CONFIDENCE, Event,
    Options, audit, estimate_audit, plan_audit,
};
use crate::net::SystemClock;

/// Ask history for what looked whole
///
/// Draws windows from what is covered live, more of them beside losses and where much came, and asks the provider's history for
/// the posts in them. Posts that history has and the tape has not are misses: each opens a gap of cause provider_dropped, which
/// the same answers settle. Windows without a miss are audited from then on (`birdtape gaps timeline`, `birdtape certify`).
/// Reports misses of posts asked, and the share of misses that this does not exclude with 95 % confidence.
///
/// The same seed draws the same windows from the same tape. History costs money at some providers: --dry-run shows what it costs
/// at least, and about; --max-requests and --max-usd are the bound. Exit code 0 when nothing was missed; 3 when something was, or
/// when not all could be asked or proven.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  birdtape audit --dry-run                                 which windows, and what they cost
  birdtape audit --window 5m --sample 20                   twenty windows of five minutes of every source
  birdtape audit --source alpha --from -7d --max-usd 0.20  of the last week, for twenty cents at most
  birdtape audit --report-only                             beside a running recorder: nothing is written")]
pub(super) struct Args {
    #[command(flatten)]
    histories: args::Histories,
    /// Length of a window
    #[arg(long, value_name = "DURATION", value_parser = args::duration, default_value = "5m", allow_negative_numbers = true)]
    window: Duration,
    /// Windows to draw, for each source
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..=100_000), allow_negative_numbers = true)]
    sample: u32,
    /// Draw from published time from here on [default: the beginning]
    #[arg(long, value_name = "TIME", value_parser = args::when, allow_hyphen_values = true)]
    from: Option<When>,
    /// And before this [default: what history can know by now]
    #[arg(long, value_name = "TIME", value_parser = args::when, allow_hyphen_values = true)]
    to: Option<When>,
    /// How long history may take to know a post [default: the configuration's]
    #[arg(long, value_name = "DURATION", value_parser = args::duration, allow_negative_numbers = true)]
    index_delay: Option<Duration>,
    /// Seed of the draw
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Show the windows and what they cost, at least and about; ask nobody
    #[arg(long)]
    dry_run: bool,
    /// Write nothing, not even the answers: for a tape that is being recorded on
    #[arg(long)]
    report_only: bool,
    /// Requests at most
    #[arg(long, value_name = "N", value_parser = args::number, allow_negative_numbers = true)]
    max_requests: Option<u64>,
    /// Rows of history at most
    #[arg(long, value_name = "N", value_parser = args::number, allow_negative_numbers = true)]
    max_items: Option<u64>,
    /// US dollars at most, by the provider's list
    #[arg(long, value_name = "USD", value_parser = backfill::usd, allow_negative_numbers = true)]
    max_usd: Option<u64>,
    /// Shortest time between two requests [default: the configuration's, else what the provider documents]
    #[arg(long, value_name = "SECONDS", value_parser = args::duration, allow_negative_numbers = true)]
    pace: Option<Duration>,
}

pub(super) fn run(common: &Common, args: &Args) -> Outcome {
    let options = options(common, args)?;
    let disk = Arc::new(RealDisk);
    if args.dry_run {
        let plans = plan_audit(&options, Arc::clone(&disk) as Arc<dyn Disk>, args::now())?;
        let about = |plan: AuditPlan| {
            let about = estimate_audit(&options, &plan, Arc::clone(&disk) as Arc<dyn Disk>)?;
            Ok((plan, about))
        };
        return dry_run(common, &plans.into_iter().map(about).collect::<Result<Vec<_>>>()?);
    }
    let json = common.json;
    let progress = out::live_line();
    let mut tell = |event: AuditEvent| match event {
        AuditEvent::Asking(event @ Event::Waits { .. }) => say(&backfill::words_of(&event)),
        AuditEvent::Asking(event) => {
            if let Some(line) = &progress {
                line.set_message(backfill::words_of(&event));
            }
        }
        AuditEvent::Window(source, window) if json => {
            let mut out = Out::new();
            // Who reads no more has seen enough.
            out.json(&window_json(source.as_str(), &window)).and_then(|()| out.flush()).ok();
        }
        AuditEvent::Window(source, window) => say(&in_words(source.as_str(), &window)),
    };
    let clock = Arc::new(SystemClock::new());
    let found = signal::block_on(async |stop| {
        let found = audit(options, clock, disk, &mut tell, signal::stopped(stop)).await;
        found.map_err(|error| match error {
            BackfillError::Archive(ArchiveError::Locked { .. }) => {
                failed(error.to_string(), "--report-only writes nothing and goes beside a recorder; or wait until it is done")
            }
            error => error.into(),
        })
    })?;
    report(common, &found)
}

fn options(common: &Common, args: &Args) -> Result<AuditOptions> {
    let now = args::now();
    let [from, to] = [args.from, args.to].map(|when| when.map(|when| when.instant(now)));
    if let (Some(from), Some(to)) = (from, to)
        && from >= to
    {
        return Err(usage(format!("the window from {from} to {to} is empty"), "--from must lie before --to"));
    }
    if args.window.is_zero() {
        return Err(usage("--window is nothing", "a window is a length of time, as 5m"));
    }
    if let Some(to) = to.filter(|to| *to > now) {
        return Err(usage(format!("--to {to} is in the future"), "leave it out: what history cannot know yet is not drawn"));
    }
    let config = args.histories.configuration(common)?;
    let run = Budget { requests: args.max_requests, rows: args.max_items, micro_usd: args.max_usd };
    Ok(AuditOptions {
        fill: Options {
            sources: backfill::sources(&config)?,
            tape: config.tape,
            archive: config.archive,
            gaps: Vec::new(),
            budgets: config.backfill.budgets(run),
            pace: args.pace.or(config.backfill.pace),
            holder: args::holder("audit"),
        },
        span: (from, to),
        window: args.window,
        sample: args.sample as usize,
        seed: args.seed,
        index_delay: args.index_delay.unwrap_or(config.backfill.index_delay),
        report_only: args.report_only,
    })
}

fn dry_run(common: &Common, plans: &[(AuditPlan, AuditEstimate)]) -> Outcome {
    let mut out = Out::new();
    if common.json {
        for (plan, about) in plans {
            let windows = plan.windows.iter().map(|window| json!([window.from.to_string(), window.to.to_string()]));
            out.json(&json!({
                "source": plan.source.name.as_str(), "windows": windows.collect::<Vec<_>>(), "left": plan.left,
                "requests_at_least": plan.price.requests, "usd_at_least": plan.price.micro_usd as f64 / 1e6,
                "requests_estimate": about.requests, "usd_estimate": about.micro_usd as f64 / 1e6,
                "windows_with_unknown_searches": about.n_unlisted,
                "usd_per_1000_rows": plan.price.micro_usd_per_thousand as f64 / 1e6,
            }))?;
        }
    } else {
        let row = |(plan, about): &(AuditPlan, AuditEstimate)| {
            let from = plan.windows.first().map_or(String::new(), |window| stamp(window.from));
            let to = plan.windows.last().map_or(String::new(), |window| stamp(window.to));
            let covered = length(plan.windows.iter().map(|window| window.to.since(window.from)).sum());
            let (least, least_usd) = (plan.price.requests.to_string(), backfill::dollars(plan.price.micro_usd));
            let (about, about_usd) = (about.requests.to_string(), backfill::dollars(about.micro_usd));
            let n_windows = plan.windows.len().to_string();
            vec![plan.source.name.to_string(), n_windows, covered, from, to, least, about, least_usd, about_usd]
        };
        let head = [
            "source",
            "windows",
            "together",
            "first",
            "last",
            "requests, at least",
            "requests, about",
            "USD, at least",
            "USD, about",
        ];
        out.lines(&table(&head, plans.iter().map(row)))?;
    }
    out.flush()?;
    if plans.iter().any(|(plan, _)| !plan.windows.is_empty()) {
        say("neither number is a bound: a history that is caught at something is asked again; --max-requests and --max-usd are");
    }
    for (plan, about) in plans {
        if about.n_unlisted > 0 {
            let (source, n) = (&plan.source.name, count(about.n_unlisted as u64, "window"));
            say(&format!(
                "{source}: of {n} the tape does not know all rules and accounts: the provider's lists are read first, and what \
                 else stands there is searched for, which can be many times as much"
            ));
        }
        if let Some(why) = &plan.left {
            say(&format!("{}: {why}", plan.source.name));
        }
    }
    Ok(Exit::Done)
}

fn in_words(source: &str, asked: &AuditedWindow) -> String {
    let AuditedWindow { window, missed, in_gaps, gap, .. } = asked;
    let missed = if missed.is_empty() { "none missed".to_owned() } else { format!("{} MISSED", missed.len()) };
    let in_gaps = if *in_gaps == 0 { String::new() } else { format!(", {in_gaps} more in known gaps of scopes") };
    let gap = gap.as_ref().map_or(String::new(), |(gap, state)| format!(", gap {gap} is {}", state.name()));
    let proven = if asked.proven { String::new() } else { format!("; not proven: {}", asked.detail) };
    let (from, long) = (stamp(window.from), length(window.to.since(window.from)));
    format!("{source}: {from} for {long}: {}, {missed}{in_gaps}{gap}{proven}", count(asked.asked, "post"))
}

fn window_json(source: &str, asked: &AuditedWindow) -> Value {
    let AuditedWindow { window, missed, in_gaps, gap, .. } = asked;
    json!({
        "event": "window", "source": source, "from": window.from.to_string(), "to": window.to.to_string(), "asked": asked.asked,
        "missed": missed.iter().map(u64::to_string).collect::<Vec<_>>(), "in_gaps": in_gaps, "proven": asked.proven, "detail": asked.detail,
        "gap": gap.as_ref().map(|(gap, _)| gap), "gap_state": gap.as_ref().map(|(_, state)| state.name()),
    })
}

fn report(common: &Common, found: &[Audited]) -> Outcome {
    let mut out = Out::new();
    if common.json {
        for of in found {
            out.json(&json!({
                "event": "audited", "source": of.source.as_str(), "windows": of.windows.len(), "unasked": of.unasked,
                "unproven": of.unproven(), "spent": backfill::spent_json(&of.spent), "asked": of.asked(), "missed": of.missed(), "share_at_most": of.bound(), "confidence": CONFIDENCE, "left": of.left,
            }))?;
        }
    } else {
        let row = |of: &Audited| {
            let at_most =
                if of.asked() == 0 { "nothing to tell from".to_owned() } else { format!("{:.3} %", of.bound() * 100.0) };
            let counts = [of.windows.len() as u64, of.unasked as u64, of.unproven() as u64, of.asked(), of.missed()];
            let counts = counts.map(|n| n.to_string());
            let requests = of.spent.requests.to_string();
            std::iter::once(of.source.to_string()).chain(counts).chain([at_most, requests]).collect()
        };
        let head = [
            "source",
            "windows",
            "not asked",
            "not proven",
            "posts in history",
            "missed",
            "share missed, at most (95 %)",
            "requests",
        ];
        out.lines(&table(&head, found.iter().map(row)))?;
    }
    out.flush()?;
    for of in found {
        if let Some(why) = &of.left {
            say(&format!("{}: {why}", of.source));
        }
        if of.unproven() > 0 {
            let n = count(of.unproven() as u64, "window");
            say(&format!("{}: {n} not proven: history did not answer for all of it, so more may be missing there", of.source));
        }
    }
    let is_clean = |of: &Audited| of.missed() == 0 && of.unasked == 0 && of.unproven() == 0;
    Ok(if found.iter().all(is_clean) { Exit::Done } else { Exit::KnownLoss })
}
