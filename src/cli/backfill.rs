//! `birdtape backfill`: fills gaps from the providers' history.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::args::{self, Common};
use super::exit::{Exit, Outcome};
use super::out::{self, Out, count, length, say, table};
use super::{merge, signal};
use crate::archive::{RealDisk, Spent, Tape};
use crate::backfill::{self, Budget, Budgets, Event, Filled, Options, Planned, Source};
use crate::config::{self, Config};
use crate::model::{GapState, SourceName};
use crate::net::{SystemClock, SystemNetwork, TlsOptions};

/// Fill gaps from the providers' history
///
/// Asks the provider of each open gap for what was published in its window, keeps every answer on the tape byte for byte, and
/// writes into the ledger what that proves: filled, partial or unfillable, with the evidence and for each kind of event. It
/// goes on where it was stopped, whatever stopped it. Keys are those of `birdtape record`, which fills gaps by itself: this
/// command is for tapes that nobody is recording on.
///
/// With --from-tape another recorder's tape is the history: nobody is asked and nothing is spent. Its envelopes are copied byte
/// for byte, and what its coverage proves is filled for every kind of event, which is the only cure for typing, deletes and the
/// steps of counters. It is only read, and may be recorded meanwhile.
///
/// History costs money at some providers: --dry-run shows what it can cost and asks nobody. Budgets are for the run, or for a day
/// (UTC), of which the ledger knows what was spent; when one is used up, the next run or day goes on from there. Exit code 0; 3
/// when loss remains in these sources.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  birdtape backfill --dry-run                              which gaps, and the least they cost
  birdtape backfill                                        every open gap of the configured sources
  birdtape backfill alpha-17 --max-usd 0.50                one gap, for half a dollar at most
  birdtape backfill --from-tape /mnt/other/tape            what another recorder has of every gap
  birdtape backfill alpha-17 --from-tape there --from-source beta
  birdtape backfill --source alpha --from-tape there --dry-run
  birdtape backfill --max-requests-per-day 500             a little every day
  birdtape backfill --provider tweetstream --base-url http://127.0.0.1:8080")]
pub(super) struct Args {
    /// Gaps, as `birdtape gaps` lists them [default: all open ones]
    #[arg(value_name = "GAP")]
    gaps: Vec<String>,
    #[command(flatten)]
    histories: args::Histories,
    /// Fill from another recorder's tape instead
    #[arg(long, value_name = "DIR", conflicts_with_all = ["provider", "max_requests", "max_items", "max_usd", "max_requests_per_day", "max_items_per_day", "max_usd_per_day", "pace", "look_twice"])]
    from_tape: Option<PathBuf>,
    /// Source of the other tape [default: the one of the same name, else the only one of the same provider]
    #[arg(long, value_name = "NAME", requires = "from_tape")]
    from_source: Option<String>,
    /// Show what would be filled, what it can cost, and what is left of today's budget, or with --from-tape what that would bring;
    /// ask nobody and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Requests at most
    #[arg(long, value_name = "N", value_parser = args::number, allow_negative_numbers = true)]
    max_requests: Option<u64>,
    /// Rows of history at most
    #[arg(long, value_name = "N", value_parser = args::number, allow_negative_numbers = true)]
    max_items: Option<u64>,
    /// US dollars at most, by the provider's list
    #[arg(long, value_name = "USD", value_parser = usd, allow_negative_numbers = true)]
    max_usd: Option<u64>,
    #[command(flatten)]
    day: DayBudget,
    /// Shortest time between two requests [default: the configuration's, else what the provider documents]
    #[arg(long, value_name = "SECONDS", value_parser = args::duration, allow_negative_numbers = true)]
    pace: Option<Duration>,
    /// Ask everything a second time, against a history that leaves rows out now and then [default: the configuration's]
    #[arg(long)]
    look_twice: bool,
}

/// What each source may spend in a day.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct DayBudget {
    /// Requests to history at most, for each source and day (UTC) [default: the configuration's]
    #[arg(long, value_name = "N", value_parser = args::number, allow_negative_numbers = true)]
    max_requests_per_day: Option<u64>,
    /// Rows of history at most, for each source and day (UTC) [default: the configuration's]
    #[arg(long, value_name = "N", value_parser = args::number, allow_negative_numbers = true)]
    max_items_per_day: Option<u64>,
    /// US dollars at most, for each source and day (UTC) [default: the configuration's]
    #[arg(long, value_name = "USD", value_parser = usd, allow_negative_numbers = true)]
    max_usd_per_day: Option<u64>,
}

impl DayBudget {
    /// Lays the flags over what the file says.
    pub(super) fn lay_over(self, backfill: &mut config::Backfill) {
        let flags = Budget { requests: self.max_requests_per_day, rows: self.max_items_per_day, micro_usd: self.max_usd_per_day };
        backfill.day = flags.or(backfill.day);
    }
}

/// Reads dollars as millionths.
pub(super) fn usd(text: &str) -> Result<u64, String> {
    let micro = text.trim_start_matches('$').parse::<f64>().ok().filter(|usd| (0.0..1e9).contains(usd)).map(|usd| usd * 1e6);
    micro.map(|micro| micro as u64).ok_or_else(|| "an amount of dollars is wanted, as 0.50".to_owned())
}

pub(super) fn run(common: &Common, args: &Args) -> Outcome {
    if let Some(from) = &args.from_tape {
        let gaps = gap_ids(&args.gaps)?;
        let (sources, from_source) = (args.histories.source.clone(), args.from_source.clone());
        return merge::fill(common, merge::Peer { gaps, sources, from: from.clone(), from_source, dry_run: args.dry_run });
    }
    let config = args.histories.configuration(common)?;
    let options = options(args, config)?;
    if args.dry_run {
        return dry_run(common, &options);
    }
    let json = common.json;
    let progress = out::live_line();
    let mut tell = move |event: Event| tell(json, progress.as_ref(), &event);
    let (clock, disk) = (Arc::new(SystemClock::new()), Arc::new(RealDisk));
    let outcome =
        signal::block_on(async |stop| Ok(backfill::run(options, clock, disk, &mut tell, signal::stopped(stop)).await?))?;
    summarise(common, &outcome)
}

/// The sources of a configuration, as history is asked for them.
pub(super) fn sources(config: &Config) -> Result<Vec<Source>> {
    let sources = config.sources.iter().map(|source| {
        let tls = TlsOptions { ca_file: source.ca_file.clone(), allow_plain: source.allow_plain };
        let network = SystemNetwork::new(tls).with_context(|| format!("source {} cannot be reached", source.name))?;
        let (name, settings, look_twice) = (source.name.clone(), source.settings.clone(), config.backfill.look_twice);
        Ok(Source { name, settings, network: Arc::new(network), look_twice })
    });
    sources.collect()
}

fn gap_ids(texts: &[String]) -> Result<Vec<(SourceName, u64)>> {
    texts.iter().map(|text| args::gap_id(text)).collect()
}

fn options(args: &Args, mut config: Config) -> Result<Options> {
    let gaps = gap_ids(&args.gaps)?;
    args.day.lay_over(&mut config.backfill);
    config.backfill.look_twice |= args.look_twice;
    let run = Budget { requests: args.max_requests, rows: args.max_items, micro_usd: args.max_usd };
    Ok(Options {
        sources: sources(&config)?,
        tape: config.tape,
        archive: config.archive,
        gaps,
        budgets: config.backfill.budgets(run),
        pace: args.pace.or(config.backfill.pace),
        holder: args::holder("backfill"),
    })
}

/// A gap as it stands in the plan, with how many items it may have.
type Estimated = (Planned, Option<u64>);

fn dry_run(common: &Common, options: &Options) -> Outcome {
    let now = args::now();
    let (planned, left) = backfill::plan(options, Arc::new(RealDisk), now)?;
    let tape = Tape::open(&options.tape, Arc::new(RealDisk))?;
    let estimate = |planned: Planned| backfill::items(&tape, &planned).map(|items| (planned, items));
    let planned: Vec<Estimated> = planned.into_iter().map(estimate).collect::<Result<_, _>>()?;
    let today = backfill::spent_today(&tape, now)?;
    let mut out = Out::new();
    if common.json {
        planned.iter().try_for_each(|estimated| out.json(&planned_json(estimated)))?;
        out.json(&total_json(&planned, options, &today))?;
    } else if planned.is_empty() {
        out.line("nothing to fill")?;
    } else {
        let head = ["gap", "cause", "length", "requests, at least", "items, about", "USD, at least", "USD, about"];
        let mut rows: Vec<_> = planned.iter().map(row).collect();
        let sum = |of: &dyn Fn(&Estimated) -> u64| planned.iter().map(of).sum::<u64>();
        let (requests, least) = (sum(&|(planned, _)| planned.price.requests), sum(&|(planned, _)| planned.price.micro_usd));
        let (items, about) = (sum(&|(_, items)| items.unwrap_or(0)), sum(&about_micro_usd));
        let none = String::new;
        rows.push(vec![
            "total".to_owned(),
            none(),
            none(),
            requests.to_string(),
            items.to_string(),
            dollars(least),
            dollars(about),
        ]);
        out.lines(&table(&head, rows))?;
        out.line("items are an estimate: the rate at which posts came on either side of a gap, times its length")?;
        for source in &options.sources {
            out.line(&left_today(source, &options.budgets, &today))?;
        }
    }
    out.flush()?;
    for (gap, why) in left {
        say(&format!("left out: {gap}: {why}"));
    }
    Ok(if planned.is_empty() { Exit::Done } else { Exit::KnownLoss })
}

fn row((planned, items): &Estimated) -> Vec<String> {
    let gap = &planned.gap;
    let long = length(planned.wanted.to.since(planned.wanted.from));
    let items_text = items.map_or("unknown".to_owned(), |items| items.to_string());
    let about = dollars(about_micro_usd(&(planned.clone(), *items)));
    let (requests, least) = (planned.price.requests.to_string(), dollars(planned.price.micro_usd));
    vec![format!("{}-{}", gap.source, gap.n), gap.cause.clone(), long, requests, items_text, least, about]
}

/// What the estimated items cost, where that is more than the least.
fn about_micro_usd((planned, items): &Estimated) -> u64 {
    planned.price.micro_usd.max(items.unwrap_or(0) * planned.price.micro_usd_per_thousand / 1_000)
}

/// What a source has spent today, and what is left of its budget.
fn left_today(source: &Source, budgets: &Budgets, today: &BTreeMap<String, Spent>) -> String {
    let spent = today.get(source.name.as_str()).copied().unwrap_or_default();
    let day = budgets.day;
    let left = |bound: Option<u64>, spent: u64| bound.map(|bound| bound.saturating_sub(spent));
    let each = [
        left(day.requests, spent.requests).map(|left| count(left, "request")),
        left(day.rows, spent.rows).map(|left| count(left, "item")),
        left(day.micro_usd, spent.micro_usd).map(|left| format!("{} USD", dollars(left))),
    ];
    let each: Vec<String> = each.into_iter().flatten().collect();
    let left = if each.is_empty() { "no budget of a day is set".to_owned() } else { format!("{} left", each.join(", ")) };
    format!("{}: {} spent today (UTC); {left}", source.name, spent_words(&spent))
}

/// Requests, rows and dollars in words.
pub(super) fn spent_words(spent: &Spent) -> String {
    let usd = if spent.micro_usd > 0 { format!(", {} USD", dollars(spent.micro_usd)) } else { String::new() };
    format!("{}, {}{usd}", count(spent.requests, "request"), count(spent.rows, "item"))
}

pub(super) fn spent_json(spent: &Spent) -> Value {
    json!({ "requests": spent.requests, "items": spent.rows, "usd": spent.micro_usd as f64 / 1e6 })
}

pub(super) fn dollars(micro: u64) -> String {
    format!("{:.4}", micro as f64 / 1e6)
}

fn planned_json(estimated: &Estimated) -> Value {
    let (planned, items) = estimated;
    json!({
        "gap": format!("{}-{}", planned.gap.source, planned.gap.n), "scope": planned.gap.scope, "cause": planned.gap.cause,
        "from": planned.wanted.from.to_string(), "to": planned.wanted.to.to_string(),
        "requests_at_least": planned.price.requests, "usd_at_least": planned.price.micro_usd as f64 / 1e6,
        "items_estimate": items, "usd_estimate": about_micro_usd(estimated) as f64 / 1e6,
        "usd_per_1000_rows": planned.price.micro_usd_per_thousand as f64 / 1e6, "resumes": planned.cursor.is_some(),
    })
}

fn total_json(planned: &[Estimated], options: &Options, today: &BTreeMap<String, Spent>) -> Value {
    let sum = |of: &dyn Fn(&Estimated) -> u64| planned.iter().map(of).sum::<u64>();
    let day = options.budgets.day;
    let sources = options.sources.iter().map(|source| {
        let spent = today.get(source.name.as_str()).copied().unwrap_or_default();
        let left = |bound: Option<u64>, spent: u64| bound.map(|bound| bound.saturating_sub(spent));
        json!({
            "source": source.name.as_str(), "spent_today": spent_json(&spent),
            "left_today": {
                "requests": left(day.requests, spent.requests), "items": left(day.rows, spent.rows),
                "usd": left(day.micro_usd, spent.micro_usd).map(|micro| micro as f64 / 1e6),
            },
        })
    });
    json!({
        "total": {
            "gaps": planned.len(), "requests_at_least": sum(&|(planned, _)| planned.price.requests),
            "usd_at_least": sum(&|(planned, _)| planned.price.micro_usd) as f64 / 1e6,
            "items_estimate": sum(&|(_, items)| items.unwrap_or(0)), "usd_estimate": sum(&about_micro_usd) as f64 / 1e6,
        },
        "sources": sources.collect::<Vec<_>>(),
    })
}

fn tell(is_json: bool, progress: Option<&indicatif::ProgressBar>, event: &Event) {
    if is_json {
        let mut out = Out::new();
        // Who reads no more has seen enough.
        out.json(&event_json(event)).and_then(|()| out.flush()).ok();
        return;
    }
    match event {
        Event::Page { .. } => {
            if let Some(line) = progress {
                line.set_message(words_of(event));
            }
        }
        Event::Began { .. } | Event::Waits { .. } | Event::Ended(_) | Event::Rests { .. } => say(&words_of(event)),
    }
}

/// An event in a sentence; none for what only moves a line on.
pub(super) fn words_of(event: &Event) -> String {
    match event {
        Event::Began { gap, price } => format!("{gap}: is being filled, at least {}", count(price.requests, "request")),
        Event::Page { gap, rows, new } => format!("{gap}: {rows} rows, {new} new"),
        Event::Waits { gap, lasts, why } => format!("{gap}: waits {:.0} s: {why}", lasts.as_secs_f64().ceil()),
        Event::Ended(filled) => words(filled),
        Event::Rests { source, until, why } => {
            let whose = source.as_ref().map_or("all sources".to_owned(), ToString::to_string);
            let until = until.map_or("for this run".to_owned(), |until| format!("until {}", out::stamp(until)));
            format!("{whose}: gaps are not filled {until}: {why}")
        }
    }
}

fn words(filled: &Filled) -> String {
    let (requests, rows) = (count(filled.requests, "request"), count(filled.rows, "row"));
    let cost = if filled.micro_usd > 0 { format!(", {} USD", dollars(filled.micro_usd)) } else { String::new() };
    format!("{}: {} ({requests}, {rows}, {} new{cost}): {}", filled.gap, filled.state.name(), filled.new, filled.detail)
}

pub(super) fn event_json(event: &Event) -> Value {
    match event {
        Event::Began { gap, price } => json!({ "event": "began", "gap": gap, "requests_at_least": price.requests }),
        Event::Page { gap, rows, new } => json!({ "event": "page", "gap": gap, "rows": rows, "new": new }),
        Event::Waits { gap, lasts, why } => json!({ "event": "waits", "gap": gap, "ms": lasts.as_millis() as u64, "why": why }),
        Event::Ended(filled) => filled_json(filled),
        Event::Rests { source, until, why } => json!({
            "event": "rests", "source": source.as_ref().map(SourceName::as_str), "until": until.map(|at| at.to_string()), "why": why,
        }),
    }
}

pub(super) fn filled_json(filled: &Filled) -> Value {
    json!({
        "event": "ended", "gap": filled.gap, "state": filled.state.name(), "detail": filled.detail, "requests": filled.requests,
        "rows": filled.rows, "new": filled.new, "usd": filled.micro_usd as f64 / 1e6,
    })
}

fn summarise(common: &Common, outcome: &backfill::Outcome) -> Outcome {
    for (gap, why) in &outcome.left {
        say(&format!("left out: {gap}: {why}"));
    }
    if outcome.gaps.is_empty() && outcome.left.is_empty() {
        say("nothing to fill");
    }
    let n_filled = outcome.gaps.iter().filter(|gap| gap.state == GapState::Filled).count();
    if outcome.stopped {
        say("stopped before the end; the next run goes on from here");
    }
    say(&format!("{} filled, {} still open", count(n_filled as u64, "gap"), outcome.still_open));
    let exit = if outcome.still_open > 0 { Exit::KnownLoss } else { Exit::Done };
    if common.json {
        let mut out = Out::new();
        out.json(&json!({ "event": "done", "filled": n_filled, "still_open": outcome.still_open, "stopped": outcome.stopped, "exit": exit.code() }))?;
        out.flush()?;
    }
    Ok(exit)
}
