//! `birdtape record`: keeps what the providers send.

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};
use indicatif::ProgressBar;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::args::{self, Common, now};
use super::backfill::{self, DayBudget};
use super::exit::{Exit, Outcome, failed, usage};
use super::out::{self, Out, count, length, say, size};
use super::{log, scrub, signal};
use crate::archive::{RealDisk, Spent};
use crate::backfill::{Budget, Budgets, Event as FillEvent, Following};
use crate::config::{Config, PANIC_VARIABLE, ProviderFlags, WebhookSecret};
use crate::model::{Cause, GapState, PARTS, Provider, SourceName, UnixMicros, panic_point, rehearse_panic};
use crate::net::{SystemClock, SystemNetwork, TlsOptions};
use crate::provider::webhook::Webhook;
use crate::provider::{Fault, Loudness};
use crate::record::{self, Ending, Event, OVERLOAD_WAIT, Options, STOP_WITHIN, SourceOutcome, World};
use crate::upkeep::{ScrubEvent, ScrubOptions, Scrubbing};

/// Events that wait to be printed. Beyond that they are left out: a slow reader of ours must not slow the recorder.
const EVENTS: usize = 16 << 10;

/// How often the line on a terminal is written again.
const REFRESH: Duration = Duration::from_millis(500);

/// Said at the first Ctrl-C.
const STOPPING: &str = "stopping; once more to stop at once (what was not yet committed is then a gap)";

/// Record what providers send
///
/// Every envelope is kept byte for byte and safe on disk within the commit interval. Without arguments all sources of the
/// configuration are recorded, with names only those; with --provider no configuration is needed, and the source is named after
/// its provider. Keys: TWITTERAPI_IO_API_KEY, TWEETSTREAM_API_KEY, SCRAPEBADGER_API_KEY, X_AUTH_TOKEN and X_CT0.
///
/// Gaps are filled from the providers' history as it goes, slowly and within a budget of each day (UTC): 1,000 requests and
/// 1 USD for each source, unless the configuration or a flag says otherwise. --no-backfill leaves them open.
///
/// Sealed segments are read again once a week, at most 1 MB in a second, so that damage is found while it can be mended;
/// the configuration's [upkeep] says otherwise, --no-scrub leaves it.
///
/// What TwitterAPI.io and ScrapeBadger deliver by webhook is a second way in: it is answered when it is safe on disk, and says
/// nothing about gaps. TwitterAPI.io's carry the API key, ScrapeBadger's are signed with SCRAPEBADGER_WEBHOOK_SECRET.
///
/// It ends on Ctrl-C (twice: at once), after --for, when --until-idle is over, or when every source has given up. Exit code 0;
/// 3 when a gap of these sources is open or cannot be filled, or a source ended on a drop; 1 when a key was refused.
///
/// With --json each event is one line on stdout; a `commit` is told after its records are safe on disk.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  birdtape record
  birdtape record alpha beta --for 1h
  birdtape record --provider tweetstream
  birdtape record --provider x_live --topic /tweet_engagement/1727346512345678901
  birdtape record --provider scrapebadger --webhooks 127.0.0.1:8090
  birdtape record --provider scrapebadger --base-url http://127.0.0.1:8080 --until-idle 5")]
pub(super) struct Args {
    /// Sources of the configuration [default: all]
    #[arg(value_name = "SOURCE", conflicts_with = "provider")]
    source: Vec<String>,
    /// Record this provider without a configuration (repeatable): twitterapi_io, tweetstream, scrapebadger, x_live
    #[arg(long, value_name = "PROVIDER")]
    provider: Vec<Provider>,
    /// Another address than the provider's own, as `birdtape replay` prints it
    #[arg(long, value_name = "URL", requires = "provider")]
    base_url: Option<String>,
    /// Topic of X's live pipeline (repeatable)
    #[arg(long, value_name = "TOPIC", requires = "provider")]
    topic: Vec<String>,
    /// Accept an address without TLS that is not on this machine: your key travels readable
    #[arg(long, requires = "provider")]
    allow_plain: bool,
    /// End when no source had an envelope for so long: 5, 1.5, 2m
    #[arg(long, value_name = "SECONDS", value_parser = args::duration)]
    until_idle: Option<Duration>,
    /// End after so long: 60, 1h
    #[arg(long = "for", value_name = "SECONDS", value_parser = args::duration)]
    run_for: Option<Duration>,
    /// Longest time until an envelope is safe on disk; 0 commits each one [default: the configuration's, else 100ms]
    #[arg(long, value_name = "SECONDS", value_parser = args::duration)]
    commit_every: Option<Duration>,
    /// Do not dial again after a drop; then the exit code is 3
    #[arg(long)]
    no_reconnect: bool,
    /// Receive webhooks here, as `http://ADDRESS/SOURCE`; a proxy with TLS belongs before it [default: the configuration's]
    #[arg(long, value_name = "ADDRESS", value_parser = args::address)]
    webhooks: Option<SocketAddr>,
    /// Do not fill gaps from history
    #[arg(long)]
    no_backfill: bool,
    /// Do not read sealed segments again to find damage
    #[arg(long)]
    no_scrub: bool,
    #[command(flatten)]
    day: DayBudget,
}

pub(super) fn run(common: &Common, args: &Args) -> Outcome {
    let config = configuration(common, args)?;
    log::start(config.secrets());
    config.require_sources()?;
    rehearse()?;
    let key_sources: Vec<String> = config.sources.iter().map(|source| source.key_source.clone()).collect();
    let names = config.sources.iter().map(|source| source.name.to_string()).collect::<Vec<_>>().join(", ");
    let dir = config.tape.clone();
    let promise = promise(&config);
    let teller = Teller::start(common.json, format!("recording {names} to {}; {promise}", dir.display()))?;
    let options = options(args, config, &teller)?;
    let world = World { clock: Arc::new(SystemClock::new()), disk: Arc::new(RealDisk), writing: record::Writing::Thread };
    let sink = teller.sink();
    let recorded = signal::block_on_saying(STOPPING, async |stop| {
        let stopped = async {
            tokio::select! {
                () = signal::stopped(stop) => {}
                () = teller.gone() => {}
            }
        };
        Ok(record::run(options, world, sink, stopped).await?)
    });
    let filling = teller.filling();
    let told = teller.finish()?;
    let outcome = recorded?;
    let exit = exit(&outcome, &filling);
    summarise(&outcome, &filling, &key_sources);
    if common.json && told {
        let mut out = Out::new();
        out.json(&done(&outcome, &filling, exit))?;
        out.flush()?;
    }
    Ok(exit)
}

/// A part that is to panic, in a test.
fn rehearse() -> Result<()> {
    match std::env::var(PANIC_VARIABLE) {
        Ok(part) if !rehearse_panic(&part) => {
            Err(usage(format!("{PANIC_VARIABLE}: there is no part `{part}`"), format!("one of {}", PARTS.join(", "))))
        }
        _ => Ok(()),
    }
}

/// What is to be recorded: from flags alone, or from the file.
fn configuration(common: &Common, args: &Args) -> Result<Config> {
    let flags = ProviderFlags { base_url: args.base_url.clone(), topics: args.topic.clone(), allow_plain: args.allow_plain };
    let mut config = args::configuration(common, &args.source, &args.provider, &flags)?;
    if let Some(every) = args.commit_every {
        config.archive.commit_every = every;
    }
    if args.no_reconnect {
        config.sources.iter_mut().for_each(|source| source.settings.auto_reconnect = false);
    }
    if let Some(address) = args.webhooks {
        config.receive_webhooks_at(address)?;
    }
    config.settle_webhooks()?;
    config.backfill.automatic &= !args.no_backfill;
    config.scrub.automatic &= !args.no_scrub;
    args.day.lay_over(&mut config.backfill);
    let day = config.backfill.day;
    if [day.requests, day.rows, day.micro_usd].contains(&Some(0)) {
        return Err(usage("a budget of 0 a day fills nothing", "leave it out, or say --no-backfill"));
    }
    Ok(config)
}

/// What filling may cost, said before it can.
fn promise(config: &Config) -> String {
    if !config.backfill.automatic {
        return "gaps are not filled".to_owned();
    }
    let Budgets { day, day_in_all, .. } = config.backfill.automatic_budgets();
    let words = |budget: Budget| {
        let usd = |micro: u64| format!("{} USD", backfill::dollars(micro));
        let each =
            [budget.requests.map(|n| count(n, "request")), budget.rows.map(|n| count(n, "item")), budget.micro_usd.map(usd)];
        each.into_iter().flatten().collect::<Vec<_>>().join(", ")
    };
    let in_all = words(day_in_all);
    let in_all = if in_all.is_empty() { in_all } else { format!(", and {in_all} in all") };
    format!("gaps are filled from history, for at most {} a day and source{in_all} (--no-backfill leaves them)", words(day))
}

fn options(args: &Args, config: Config, teller: &Teller) -> Result<Options> {
    let filler = if config.backfill.automatic { Some(filler(&config, teller)?) } else { None };
    let beside = both(filler, config.scrub.automatic.then(|| scrubber(&config, teller)));
    let webhooks = config.webhooks.map(|address| {
        let listening = TcpListener::bind(address);
        listening.map_err(|error| {
            let hint = "name another address with --webhooks or in [webhooks]";
            usage(format!("webhooks cannot be received at {address}: {error}"), hint)
        })
    });
    let webhooks = webhooks.transpose()?;
    let takes_webhooks = webhooks.is_some();
    let sources = config.sources.into_iter().map(|source| {
        let webhook = match &source.webhook {
            WebhookSecret::Known(secret) if takes_webhooks => Webhook::new(source.settings.provider, secret),
            _ => None,
        };
        let tls = TlsOptions { ca_file: source.ca_file, allow_plain: source.allow_plain };
        let network = SystemNetwork::new(tls).with_context(|| format!("source {} cannot be reached", source.name))?;
        Ok(record::Source {
            name: source.name,
            settings: source.settings,
            connections: source.connections,
            lateness_horizon: source.lateness_horizon,
            network: Arc::new(network),
            webhook,
        })
    });
    Ok(Options {
        tape: config.tape,
        archive: config.archive,
        max_message: config.limits.max_message,
        queue_bytes: config.limits.queue_bytes,
        overload_wait: OVERLOAD_WAIT,
        stop_within: STOP_WITHIN,
        sources: sources.collect::<Result<Vec<_>>>()?,
        until_idle: args.until_idle,
        run_for: args.run_for,
        webhooks,
        holder: args::holder("record"),
        beside,
    })
}

/// Joins the two jobs: what fills gaps writes through the recorder.
fn filler(config: &Config, teller: &Teller) -> Result<record::Beside> {
    let following = Following {
        tape: config.tape.clone(),
        sources: backfill::sources(config)?,
        budgets: config.backfill.automatic_budgets(),
        pace: config.backfill.pace,
        index_delay: config.backfill.index_delay,
    };
    let tell = teller.filling_sink();
    Ok(Box::new(move |desk: record::Desk| {
        let (clock, disk) = (Arc::new(SystemClock::new()), Arc::new(RealDisk));
        let record::Desk { pen, ledger, leaving } = desk;
        Box::pin(crate::backfill::follow(following, pen, clock, disk, ledger, leaving, tell))
    }))
}

/// Looks at what was sealed, slowly; what it finds damaged is written down by the recorder.
fn scrubber(config: &Config, teller: &Teller) -> record::Beside {
    let ScrubOptions { bytes_per_second, every, .. } = config.scrub;
    let scrubbing = Scrubbing { tape: config.tape.clone(), bytes_per_second, every };
    let tell = teller.scrubbing_sink();
    Box::new(move |desk: record::Desk| {
        let (clock, disk) = (Arc::new(SystemClock::new()), Arc::new(RealDisk));
        let record::Desk { pen, leaving, .. } = desk;
        Box::pin(crate::upkeep::follow(scrubbing, pen, clock, disk, leaving, tell))
    })
}

/// Two jobs beside the recorder as one.
fn both(one: Option<record::Beside>, other: Option<record::Beside>) -> Option<record::Beside> {
    match (one, other) {
        (Some(one), Some(other)) => Some(Box::new(move |desk: record::Desk| {
            Box::pin(async move {
                tokio::join!(one(desk.clone()), other(desk));
            })
        })),
        (one, other) => one.or(other),
    }
}

/// What became of gaps in this run.
#[derive(Clone, Debug, Default)]
struct Filling {
    /// Ids of those that were filled, and of those that no history has.
    filled: Vec<String>,
    unfillable: Vec<String>,
    spent: Spent,
}

impl Filling {
    fn note(&mut self, event: &FillEvent) {
        let FillEvent::Ended(ended) = event else { return };
        self.spent.requests += ended.requests;
        self.spent.rows += ended.rows;
        self.spent.micro_usd += ended.micro_usd;
        match ended.state {
            GapState::Filled => self.filled.push(ended.gap.clone()),
            GapState::Unfillable => self.unfillable.push(ended.gap.clone()),
            _ => {}
        }
    }
}

/// A refused key beats everything: only the person can go on from there. Then any loss counts; a rule's full page is a
/// doubt that stands in the ledger, no known loss. A gap that was filled is none any more; one that no history has is.
fn exit(outcome: &record::Outcome, filling: &Filling) -> Exit {
    let sources = &outcome.sources;
    if sources.iter().any(|source| matches!(source.fault, Some(Fault::Credentials | Fault::Settings))) {
        return Exit::Failed;
    }
    let holes = |source: &SourceOutcome| source.open_gaps.iter().any(|gap| !gap.is_doubt());
    let lossy = |source: &SourceOutcome| source.fault.is_some() || source.dropped > 0 || holes(source);
    if sources.iter().any(lossy) || !filling.unfillable.is_empty() || outcome.ending == Ending::Cut {
        Exit::KnownLoss
    } else {
        Exit::Done
    }
}

// The end, for people and for scripts.

fn summarise(outcome: &record::Outcome, filling: &Filling, key_sources: &[String]) {
    for (source, key_source) in outcome.sources.iter().zip(key_sources) {
        let gaps = match source.open_gaps.len() {
            0 => "no open gaps".to_owned(),
            n => format!("{} (`birdtape gaps --open`)", count(n as u64, "open gap")),
        };
        let connections = count(source.connections, "connection");
        let (frames, bytes) = (count(source.frames, "envelope"), size(source.bytes));
        say(&format!("{}: {frames} ({bytes}) over {connections}, {gaps}", source.name));
        if source.dropped > 0 {
            say(&format!("{}: {} dropped, the disk was too slow or full", source.name, count(source.dropped, "envelope")));
        }
        let Some(fault) = source.fault else { continue };
        say(&format!("{}: gave up: {}", source.name, source.fault_text.as_deref().unwrap_or("no reason was given")));
        if fault == Fault::Credentials {
            say(&format!("hint: the key came from {key_source}; put a valid one there and start again"));
        }
    }
    if filling.spent != Spent::default() || !filling.unfillable.is_empty() {
        let (filled, unfillable) = (count(filling.filled.len() as u64, "gap"), filling.unfillable.len());
        let unfillable = if unfillable > 0 { format!(", {unfillable} that no history has") } else { String::new() };
        say(&format!("filled: {filled}{unfillable} ({})", backfill::spent_words(&filling.spent)));
    }
    let window = outcome.loss_window;
    if window.commits > 0 {
        let ms = |d: Duration| format!("{:.1} ms", d.as_secs_f64() * 1e3);
        let (p50, p99, max) = (ms(window.p50), ms(window.p99), ms(window.max));
        say(&format!("from socket to disk: {p50} (median), {p99} (p99), {max} (slowest)"));
    }
    match outcome.ending {
        Ending::Sealed => {}
        Ending::LeftOpen => say("the disk is slow: all is safe, and segments are left open; the next start seals them"),
        Ending::Cut => say(
            "the disk did not take everything in time: it is left as by a kill, all that was committed is safe, and the next start \
             opens a gap for the rest",
        ),
    }
    say(&format!("ended: {}", outcome.stopped_by.words()));
}

fn done(outcome: &record::Outcome, filling: &Filling, exit: Exit) -> Value {
    let sources = outcome.sources.iter().map(|s| {
        let gaps = s.open_gaps.iter().map(|gap| {
            let id = format!("{}-{}", s.name, gap.n);
            json!({ "id": id, "n": gap.n, "scope": gap.scope, "cause": gap.cause, "older": gap.older, "detail": gap.detail })
        });
        json!({
            "source": s.name.as_str(), "provider": s.provider.name(), "frames": s.frames, "bytes": s.bytes, "events": s.events,
            "repeated": s.repeated, "unknown": s.unknown, "faults": s.faults, "connections": s.connections,
            "dropped": s.dropped, "dropped_bytes": s.dropped_bytes, "last_n": s.last_n.0,
            "open_gaps": gaps.collect::<Vec<_>>(), "fault": s.fault.map(fault_name), "fault_text": s.fault_text,
        })
    });
    let (window, us) = (outcome.loss_window, |d: Duration| d.as_micros() as u64);
    json!({
        "event": "done",
        "exit": exit.code(),
        "tape": outcome.tape,
        "ended": outcome.stopped_by.words(),
        "left": outcome.ending.name(),
        "sources": sources.collect::<Vec<_>>(),
        "filled": filling.filled,
        "unfillable": filling.unfillable,
        "spent": backfill::spent_json(&filling.spent),
        "loss_window_us": { "commits": window.commits, "p50": us(window.p50), "p99": us(window.p99), "max": us(window.max) },
    })
}

const fn fault_name(fault: Fault) -> &'static str {
    match fault {
        Fault::Credentials => "credentials",
        Fault::Replaced => "replaced",
        Fault::Dropped => "dropped",
        Fault::Settings => "settings",
    }
}

const fn level(loudness: Loudness) -> &'static str {
    match loudness {
        Loudness::Info => "info",
        Loudness::Warn => "warn",
        Loudness::Error => "error",
    }
}

fn event_json(event: &Event) -> Value {
    match event {
        Event::Started { tape } => json!({ "event": "started", "tape": tape }),
        Event::Listening { source, url } => json!({ "event": "webhooks", "source": source.as_str(), "url": url }),
        Event::Connected { source, conn, url } => {
            json!({ "event": "connected", "source": source.as_str(), "conn": conn, "url": url })
        }
        Event::Disconnected { source, conn, detail } => {
            json!({ "event": "disconnected", "source": source.as_str(), "conn": conn, "detail": detail })
        }
        Event::Committed { source, n, hash, frames, bytes } => json!({
            "event": "commit", "source": source.as_str(), "n": n.0, "hash": format!("{hash:016x}"), "frames": frames, "bytes": bytes,
        }),
        Event::Gap { source, n, scope, cause, detail } => json!({
            "event": "gap", "source": source.as_str(), "n": n, "id": format!("{source}-{n}"), "scope": scope, "cause": cause,
            "detail": detail,
        }),
        Event::Said { source, loudness, text } => {
            json!({ "event": "said", "source": source.as_str(), "level": level(*loudness), "text": text })
        }
    }
}

// Telling while it runs.

enum News {
    Event(Event),
    Filling(FillEvent),
    Scrubbing(ScrubEvent),
    End,
}

/// Prints events on a thread of its own, so that neither a slow terminal nor a full pipe holds the recorder up.
struct Teller {
    sender: SyncSender<News>,
    left_out: Arc<AtomicU64>,
    filling: Arc<Mutex<Filling>>,
    thread: JoinHandle<bool>,
    /// Closed when the thread ends.
    alive: watch::Sender<()>,
}

impl Teller {
    fn start(json: bool, ready: String) -> Result<Self> {
        let (sender, receiver) = sync_channel(EVENTS);
        let mut voice = Voice::new(json, ready);
        let thread = std::thread::Builder::new().name("teller".to_owned());
        let (alive, here) = watch::channel(());
        let thread = thread.spawn(move || {
            let told = voice.run(&receiver);
            drop(here);
            told
        });
        let thread = thread.context("cannot start a thread")?;
        Ok(Self { sender, left_out: Arc::default(), filling: Arc::default(), thread, alive })
    }

    /// Ready when the thread has ended although nobody told it to: it has failed.
    async fn gone(&self) {
        self.alive.closed().await;
    }

    /// What became of gaps so far.
    fn filling(&self) -> Filling {
        self.filling.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn filling_sink(&self) -> crate::backfill::Sink {
        let (sender, left_out, filling) = (self.sender.clone(), Arc::clone(&self.left_out), Arc::clone(&self.filling));
        Arc::new(move |event| {
            filling.lock().unwrap_or_else(PoisonError::into_inner).note(&event);
            if sender.try_send(News::Filling(event)).is_err() {
                left_out.fetch_add(1, Ordering::Relaxed);
            }
        })
    }

    fn scrubbing_sink(&self) -> crate::upkeep::Sink {
        let (sender, left_out) = (self.sender.clone(), Arc::clone(&self.left_out));
        Arc::new(move |event| {
            // How far it is in between is nobody's news.
            if !matches!(event, ScrubEvent::Looked { .. }) && sender.try_send(News::Scrubbing(event)).is_err() {
                left_out.fetch_add(1, Ordering::Relaxed);
            }
        })
    }

    fn sink(&self) -> record::Sink {
        let (sender, left_out) = (self.sender.clone(), Arc::clone(&self.left_out));
        Arc::new(move |event| {
            if sender.try_send(News::Event(event)).is_err() {
                left_out.fetch_add(1, Ordering::Relaxed);
            }
        })
    }

    /// Says the rest, and whether somebody still reads stdout.
    ///
    /// # Errors
    /// When it had failed, which ended the recorder.
    fn finish(self) -> Result<bool> {
        // The thread only goes without being told when it panics.
        self.sender.send(News::End).ok();
        let Ok(reading) = self.thread.join() else {
            let what = "the part that tells what happens failed; this is a bug, its words are above, and recording has ended";
            return Err(failed(what, "start again; everything committed so far is safe"));
        };
        let left_out = self.left_out.load(Ordering::Relaxed);
        if left_out > 0 && reading {
            say(&format!("{} not told: the reader was too slow (all is recorded)", count(left_out, "event")));
        }
        Ok(reading)
    }
}

/// A gap of a rule, an account or a monitor that changed.
struct Changed {
    source: SourceName,
    n: u64,
    detail: String,
}

/// Gaps of scopes that changed, in a line.
fn words_of_changed(changed: &[Changed]) -> Option<String> {
    let (first, last) = (changed.first()?, changed.last()?);
    let Changed { source, n, detail } = first;
    let cause = Cause::ScopeChanged.name();
    if changed.len() == 1 {
        return Some(format!("{source}: gap {source}-{n} is open: {cause}: {detail}"));
    }
    Some(format!(
        "{source}: {} are open, {source}-{n} to {source}-{}: {cause}: as many rules, monitors or accounts changed; \
         `birdtape gaps --open --source {source}` lists them",
        count(changed.len() as u64, "gap"),
        last.n,
    ))
}

struct Voice {
    json: bool,
    ready: String,
    bar: Option<ProgressBar>,
    /// Whether somebody reads stdout.
    reading: bool,
    frames: u64,
    gaps: u64,
    filled: u64,
    /// Gaps of scopes that changed, not told yet: when many change at once, that is one line.
    changed: Vec<Changed>,
    last_commit: Option<UnixMicros>,
    /// When the rate was last taken, and how many envelopes there were.
    sample: (UnixMicros, u64),
    rate: f64,
}

impl Voice {
    fn new(json: bool, ready: String) -> Self {
        let bar = out::live_line();
        let sample = (now(), 0);
        let changed = Vec::new();
        Self { json, ready, bar, reading: true, frames: 0, gaps: 0, filled: 0, changed, last_commit: None, sample, rate: 0.0 }
    }

    fn run(&mut self, receiver: &Receiver<News>) -> bool {
        let mut out = self.json.then(Out::new);
        loop {
            match receiver.recv_timeout(REFRESH) {
                Ok(mut news) => {
                    // What has gathered goes out together.
                    loop {
                        match news {
                            News::Event(event) => self.event(&mut out, &event),
                            News::Filling(event) => self.filling(&mut out, &event),
                            News::Scrubbing(event) => self.scrubbing(&mut out, &event),
                            News::End => return self.end(out),
                        }
                        let Ok(next) = receiver.try_recv() else { break };
                        news = next;
                    }
                    self.flush(&mut out);
                }
                Err(RecvTimeoutError::Disconnected) => return self.end(out),
                Err(RecvTimeoutError::Timeout) => self.tell_changed(),
            }
            self.refresh();
        }
    }

    fn event(&mut self, out: &mut Option<Out>, event: &Event) {
        if let Some(out) = out.as_mut().filter(|_| self.reading) {
            self.reading = out.json(&event_json(event)).is_ok();
        }
        if let Event::Gap { source, n, cause, detail, .. } = event
            && cause == Cause::ScopeChanged.name()
        {
            if self.changed.first().is_some_and(|first| first.source != *source) {
                self.tell_changed();
            }
            self.gaps += 1;
            return self.changed.push(Changed { source: source.clone(), n: *n, detail: detail.clone() });
        }
        self.tell_changed();
        match event {
            Event::Started { .. } => {
                let ready = self.ready.clone();
                self.say(Loudness::Info, &ready);
            }
            Event::Committed { frames, .. } => {
                panic_point("teller");
                self.frames += frames;
                self.last_commit = Some(now());
            }
            Event::Gap { source, n, cause, detail, .. } => {
                self.gaps += 1;
                self.say(Loudness::Warn, &format!("{source}: gap {source}-{n} is open: {cause}: {detail}"));
            }
            Event::Listening { source, url } => {
                self.say(Loudness::Info, &format!("{source}: webhooks are received at {url}"));
            }
            Event::Connected { source, url, .. } => self.say(Loudness::Info, &format!("{source}: connected to {url}")),
            Event::Disconnected { source, detail, .. } => self.say(Loudness::Info, &format!("{source}: disconnected: {detail}")),
            Event::Said { source, loudness, text } => self.say(*loudness, &format!("{source}: {text}")),
        }
    }

    fn filling(&mut self, out: &mut Option<Out>, event: &FillEvent) {
        if let Some(out) = out.as_mut().filter(|_| self.reading) {
            let mut value = backfill::event_json(event);
            value["event"] = format!("fill_{}", value["event"].as_str().unwrap_or_default()).into();
            self.reading = out.json(&value).is_ok();
        }
        let loudness = match event {
            FillEvent::Page { .. } => return,
            FillEvent::Ended(ended) if ended.state == GapState::Filled => {
                self.filled += 1;
                Loudness::Info
            }
            FillEvent::Began { .. } => Loudness::Info,
            FillEvent::Waits { .. } | FillEvent::Ended(_) | FillEvent::Rests { .. } => Loudness::Warn,
        };
        self.tell_changed();
        self.say(loudness, &backfill::words_of(event));
    }

    fn scrubbing(&mut self, out: &mut Option<Out>, event: &ScrubEvent) {
        if let Some(out) = out.as_mut().filter(|_| self.reading) {
            let mut value = scrub::event_json(event);
            value["event"] = format!("scrub_{}", value["event"].as_str().unwrap_or_default()).into();
            self.reading = out.json(&value).is_ok();
        }
        if let Some(words) = scrub::words_of(event) {
            self.tell_changed();
            self.say(Loudness::Warn, &words);
        }
    }

    fn tell_changed(&mut self) {
        let changed = std::mem::take(&mut self.changed);
        if let Some(words) = words_of_changed(&changed) {
            self.say(Loudness::Warn, &words);
        }
    }

    fn say(&self, loudness: Loudness, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(log::visible(&log::redact(text))),
            None => match loudness {
                Loudness::Info => tracing::info!("{text}"),
                Loudness::Warn => tracing::warn!("{text}"),
                Loudness::Error => tracing::error!("{text}"),
            },
        }
    }

    fn refresh(&mut self) {
        let Some(bar) = &self.bar else { return };
        let now = now();
        let since = now.since(self.sample.0);
        if since >= 1_000_000 {
            self.rate = (self.frames - self.sample.1) as f64 * 1e6 / since as f64;
            self.sample = (now, self.frames);
        }
        let age = self.last_commit.map_or("none yet".to_owned(), |at| format!("{} ago", length(now.since(at))));
        let (total, rate) = (count(self.frames, "envelope"), self.rate);
        bar.set_message(format!(
            "{total}, {rate:.0}/s, last commit {age}, {}, {} filled",
            count(self.gaps, "new gap"),
            self.filled
        ));
        bar.tick();
    }

    fn flush(&mut self, out: &mut Option<Out>) {
        if let Some(out) = out.as_mut().filter(|_| self.reading) {
            self.reading = out.flush().is_ok();
        }
    }

    fn end(&mut self, mut out: Option<Out>) -> bool {
        self.tell_changed();
        self.flush(&mut out);
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        self.reading
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_scopes_that_change_at_once_are_one_line() {
        let mut voice = Voice::new(false, String::new());
        let gap = |n: u64, cause: Cause| Event::Gap {
            source: SourceName::new("alpha").unwrap(),
            n,
            scope: format!("rule-{n}"),
            cause: cause.name().to_owned(),
            detail: format!("its text changed, {n}"),
        };
        voice.event(&mut None, &gap(7, Cause::ScopeChanged));
        assert_eq!(words_of_changed(&voice.changed).unwrap(), "alpha: gap alpha-7 is open: scope_changed: its text changed, 7");
        (8..30).for_each(|n| voice.event(&mut None, &gap(n, Cause::ScopeChanged)));
        let words = words_of_changed(&voice.changed).unwrap();
        assert!(words.starts_with("alpha: 23 gaps are open, alpha-7 to alpha-29: scope_changed: "), "{words}");
        // What else happens is told after them.
        voice.event(&mut None, &gap(30, Cause::Silent));
        assert_eq!((voice.gaps, words_of_changed(&voice.changed)), (24, None));
    }
}
