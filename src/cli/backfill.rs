//! `birdtape backfill`: fills gaps from the providers' history.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::args::{self, Common};
use super::exit::{Exit, Outcome};
use super::out::{self, Out, count, length, say, table};
use super::{log, merge, signal};
use crate::archive::RealDisk;
use crate::backfill::{self, Budget, Event, Filled, Options, Planned, Source};
use crate::config::{Config, ProviderFlags};
use crate::model::{GapState, Provider, SourceName};
use crate::net::{SystemClock, SystemNetwork, TlsOptions};

/// Fill gaps from the providers' history
///
/// Asks the provider of each open gap for what was published in its window, keeps every answer on the tape byte for byte, and
/// writes into the ledger what that proves: filled, partial or unfillable, with the evidence and for each kind of event. It
/// goes on where it was stopped, whatever stopped it. Keys are those of `birdtape record`.
///
/// With --from-tape another recorder's tape is the history: nobody is asked and nothing is spent. Its envelopes are copied byte
/// for byte, and what its coverage proves is filled for every kind of event, which is the only cure for typing, deletes and the
/// steps of counters. It is only read, and may be recorded meanwhile.
///
/// History costs money at some providers: --dry-run shows the least it can cost and asks nobody. Nobody may be recording on the
/// tape meanwhile. Exit code 0; 3 when loss remains in these sources.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  birdtape backfill --dry-run                              which gaps, and the least they cost
  birdtape backfill                                        every open gap of the configured sources
  birdtape backfill alpha-17 --max-usd 0.50                one gap, for half a dollar at most
  birdtape backfill --from-tape /mnt/other/tape            what another recorder has of every gap
  birdtape backfill alpha-17 --from-tape there --from-source beta
  birdtape backfill --provider tweetstream --base-url http://127.0.0.1:8080")]
pub(super) struct Args {
    /// Gaps, as `birdtape gaps` lists them [default: all open ones]
    #[arg(value_name = "GAP")]
    gaps: Vec<String>,
    /// Only this source of the configuration (repeatable)
    #[arg(long, value_name = "NAME", conflicts_with = "provider")]
    source: Vec<String>,
    /// Ask this provider without a configuration (repeatable): twitterapi_io, tweetstream, scrapebadger, x_live
    #[arg(long, value_name = "PROVIDER")]
    provider: Vec<Provider>,
    /// Another address than the provider's own, as `birdtape replay` prints it
    #[arg(long, value_name = "URL", requires = "provider")]
    base_url: Option<String>,
    /// Accept an address without TLS that is not on this machine: your key travels readable
    #[arg(long, requires = "provider")]
    allow_plain: bool,
    /// Fill from another recorder's tape instead
    #[arg(long, value_name = "DIR", conflicts_with_all = ["source", "provider", "dry_run", "max_requests", "max_items", "max_usd", "pace"])]
    from_tape: Option<PathBuf>,
    /// Source of the other tape [default: the one of the same name, else the only one of the same provider]
    #[arg(long, value_name = "NAME", requires = "from_tape")]
    from_source: Option<String>,
    /// Show what would be filled, and the least it costs; ask nobody
    #[arg(long)]
    dry_run: bool,
    /// Requests at most
    #[arg(long, value_name = "N")]
    max_requests: Option<u64>,
    /// Rows of history at most
    #[arg(long, value_name = "N")]
    max_items: Option<u64>,
    /// US dollars at most, by the provider's list
    #[arg(long, value_name = "USD", value_parser = usd)]
    max_usd: Option<u64>,
    /// Shortest time between two requests [default: what the provider documents]
    #[arg(long, value_name = "SECONDS", value_parser = args::duration)]
    pace: Option<Duration>,
}

/// Reads dollars as millionths.
fn usd(text: &str) -> Result<u64, String> {
    let micro = text.trim_start_matches('$').parse::<f64>().ok().filter(|usd| (0.0..1e9).contains(usd)).map(|usd| usd * 1e6);
    micro.map(|micro| micro as u64).ok_or_else(|| "an amount is written as 0.50".to_owned())
}

pub(super) fn run(common: &Common, args: &Args) -> Outcome {
    if let Some(from) = &args.from_tape {
        return merge::fill(common, &args.gaps, from.clone(), args.from_source.clone());
    }
    let flags = ProviderFlags { base_url: args.base_url.clone(), topics: Vec::new(), allow_plain: args.allow_plain };
    let config = args::configuration(common, &args.source, &args.provider, &flags)?;
    log::start(config.secrets());
    config.require_sources()?;
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

fn options(args: &Args, config: Config) -> Result<Options> {
    let gaps = args.gaps.iter().map(|text| args::gap_id(text)).collect::<Result<Vec<(SourceName, u64)>>>()?;
    let sources = config.sources.into_iter().map(|source| {
        let tls = TlsOptions { ca_file: source.ca_file, allow_plain: source.allow_plain };
        let network = SystemNetwork::new(tls).with_context(|| format!("source {} cannot be reached", source.name))?;
        Ok(Source { name: source.name, settings: source.settings, network: Arc::new(network) })
    });
    Ok(Options {
        tape: config.tape,
        archive: config.archive,
        sources: sources.collect::<Result<_>>()?,
        gaps,
        budget: Budget { requests: args.max_requests, rows: args.max_items, micro_usd: args.max_usd },
        pace: args.pace,
        holder: args::holder("backfill"),
    })
}

fn dry_run(common: &Common, options: &Options) -> Outcome {
    let (planned, left) = backfill::plan(options, Arc::new(RealDisk), args::now())?;
    let mut out = Out::new();
    if common.json {
        for planned in &planned {
            out.json(&planned_json(planned))?;
        }
    } else if planned.is_empty() {
        out.line("nothing to fill")?;
    } else {
        let rows = planned.iter().map(|planned| {
            let gap = &planned.gap;
            let long = length(planned.wanted.to.since(planned.wanted.from));
            let (least, rows) = (dollars(planned.price.micro_usd), dollars(planned.price.micro_usd_per_thousand));
            vec![format!("{}-{}", gap.source, gap.n), gap.cause.clone(), long, planned.price.requests.to_string(), least, rows]
        });
        out.lines(&table(&["gap", "cause", "length", "requests, at least", "USD, at least", "USD per 1000 rows"], rows))?;
    }
    out.flush()?;
    for (gap, why) in left {
        say(&format!("left out: {gap}: {why}"));
    }
    Ok(if planned.is_empty() { Exit::Done } else { Exit::KnownLoss })
}

fn dollars(micro: u64) -> String {
    format!("{:.4}", micro as f64 / 1e6)
}

fn planned_json(planned: &Planned) -> Value {
    json!({
        "gap": format!("{}-{}", planned.gap.source, planned.gap.n), "scope": planned.gap.scope, "cause": planned.gap.cause,
        "from": planned.wanted.from.to_string(), "to": planned.wanted.to.to_string(),
        "requests_at_least": planned.price.requests, "usd_at_least": planned.price.micro_usd as f64 / 1e6,
        "usd_per_1000_rows": planned.price.micro_usd_per_thousand as f64 / 1e6, "resumes": planned.cursor.is_some(),
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
        Event::Began { gap, price } => say(&format!("{gap}: at least {}", count(price.requests, "request"))),
        Event::Page { gap, rows, new } => {
            if let Some(line) = progress {
                line.set_message(format!("{gap}: {rows} rows, {new} new"));
            }
        }
        Event::Waits { gap, lasts, why } => say(&format!("{gap}: waits {:.0} s: {why}", lasts.as_secs_f64().ceil())),
        Event::Ended(filled) => say(&words(filled)),
    }
}

fn words(filled: &Filled) -> String {
    let (requests, rows) = (count(filled.requests, "request"), count(filled.rows, "row"));
    let cost = if filled.micro_usd > 0 { format!(", {} USD", dollars(filled.micro_usd)) } else { String::new() };
    format!("{}: {} ({requests}, {rows}, {} new{cost}): {}", filled.gap, filled.state.name(), filled.new, filled.detail)
}

fn event_json(event: &Event) -> Value {
    match event {
        Event::Began { gap, price } => json!({ "event": "began", "gap": gap, "requests_at_least": price.requests }),
        Event::Page { gap, rows, new } => json!({ "event": "page", "gap": gap, "rows": rows, "new": new }),
        Event::Waits { gap, lasts, why } => json!({ "event": "waits", "gap": gap, "ms": lasts.as_millis() as u64, "why": why }),
        Event::Ended(filled) => filled_json(filled),
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
