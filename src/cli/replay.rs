//! `birdtape replay`: the fake providers.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::json;

use super::args::{self, Common};
use super::exit::{Exit, Outcome, failed, usage};
use super::out::{Out, count, say};
use super::{log, signal};
use crate::import::{self, Lines};
use crate::model::{Provider, Secret, UnixMicros};
use crate::provider::synthetic::{self, Dialect};
use crate::replay::faults::{Row, Script, ScriptError};
use crate::replay::{self, Ended, Feed, Options, ReplayError, Speed, Stats};
use crate::segment::RealDisk;

/// Play a tape as the providers would
///
/// One server on one port speaks the live protocols of all four providers. A client connects to it by changing host and port
/// only. When it is ready it prints one line of JSON with the addresses: {"base": …, "tweetstream": {"ws": …, "rest": …}, …}.
/// Envelopes are sent byte for byte; the clock starts with the first client. With --exit-when-done it ends when every provider
/// that somebody came for has played everything; exit code 3 when something of the tape could not be read.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  birdtape replay --speed 10
  birdtape replay fixtures/synthetic/mixed-400.jsonl --speed max --exit-when-done
  birdtape replay --synthetic --rate 500 --seed 7 --listen 127.0.0.1:8080")]
pub(super) struct Args {
    /// A tape's directory, or a file of envelope lines (plain, gzip, zstd) [default: --tape]
    #[arg(value_name = "FIXTURE", conflicts_with = "synthetic")]
    fixture: Option<PathBuf>,
    /// Address to listen on; port 0 is any free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// How many times as fast as it was received, or max: as fast as the slowest client takes it
    #[arg(long, value_name = "N|max", default_value = "1", value_parser = speed, allow_negative_numbers = true)]
    speed: Speed,
    /// Longest pause between two envelopes; longer ones are cut
    #[arg(long, value_name = "SECONDS", value_parser = args::duration)]
    idle_cap: Option<Duration>,
    /// End when everything was played
    #[arg(long)]
    exit_when_done: bool,
    /// How long clients then have to leave by themselves
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = args::duration)]
    linger: Duration,
    /// Clients of a provider to wait for before its first envelope
    #[arg(long, value_name = "N", default_value_t = 1)]
    wait_for_clients: usize,
    /// Connections allowed per key [default: what the provider documents]
    #[arg(long, value_name = "N")]
    max_connections: Option<u32>,
    /// A script of what goes wrong on purpose; exit code 1 when a fault of it fired less often than expected
    #[arg(long, value_name = "FILE")]
    faults: Option<PathBuf>,
    /// The only key this fake server accepts (its own, never a provider's) [default: any that is not empty]
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// Make envelopes up instead of playing a tape
    #[arg(long)]
    synthetic: bool,
    /// Made up: envelopes a second, over all providers [default: 50]
    #[arg(long, value_name = "N")]
    rate: Option<f64>,
    /// Made up: what chance begins with; equal seeds make equal worlds [default: 1]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Made up: how many envelopes [default: without end]
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Made up: ScrapeBadger's dialect: A, B, C or merged [default: C]
    #[arg(long, value_name = "NAME", value_parser = dialect)]
    dialect: Option<Dialect>,
}

fn speed(text: &str) -> Result<Speed, String> {
    if text == "max" {
        return Ok(Speed::Max);
    }
    let times = text.parse().ok().filter(|times: &f64| times.is_finite() && *times > 0.0);
    times.map(Speed::Times).ok_or_else(|| "a speed is a number above 0, or max".to_owned())
}

fn dialect(text: &str) -> Result<Dialect, String> {
    match text {
        "A" | "a" => Ok(Dialect::A),
        "B" | "b" => Ok(Dialect::B),
        "C" | "c" => Ok(Dialect::C),
        "merged" => Ok(Dialect::Merged),
        _ => Err("known are A, B, C, merged".to_owned()),
    }
}

pub(super) fn run(common: &Common, args: &Args) -> Outcome {
    let key = match &args.key {
        Some(text) => Some(Secret::new(text).ok_or_else(|| usage("--key is empty", "leave it out to accept any key"))?),
        None => None,
    };
    log::start(key.iter().cloned().collect());
    let options = Options {
        speed: args.speed,
        key,
        max_connections: args.max_connections,
        wait_for_clients: args.wait_for_clients,
        exit_when_done: args.exit_when_done,
        linger: args.linger,
        idle_cap: args.idle_cap,
        faults: args.faults.as_deref().map(Script::load).transpose().map_err(misfit)?,
        ..Options::new(feed(common, args)?)
    };
    let outcome = signal::block_on(|stop| async {
        let listener = replay::bind(args.listen).await?;
        let replay = match replay::start(options, listener, Arc::new(RealDisk), signal::stopped(stop)).await {
            Err(ReplayError::Faults(error)) => return Err(misfit(error)),
            started => started?,
        };
        let mut out = Out::new();
        out.exact(&[replay.urls().to_json().as_bytes()])?;
        out.flush()?;
        drop(out);
        Ok(replay.wait().await)
    })?;
    tell(common, &outcome.stats, outcome.ended)?;
    let missed = outcome.stats.faults.iter().any(Row::is_missed);
    Ok(match outcome.stats.damage.is_empty() {
        _ if missed => Exit::Failed,
        true => Exit::Done,
        false => Exit::KnownLoss,
    })
}

fn misfit(error: ScriptError) -> anyhow::Error {
    usage(error.to_string(), error.cure)
}

fn feed(common: &Common, args: &Args) -> Result<Feed> {
    if args.synthetic {
        // The rate is that of the world's own clock, which the speed then multiplies.
        let usual = synthetic::Options::default();
        let options = synthetic::Options {
            seed: args.seed.unwrap_or(usual.seed),
            rate: args.rate.unwrap_or(usual.rate),
            dialect: args.dialect.unwrap_or(usual.dialect),
            ..usual
        };
        return Ok(Feed::Synthetic { options, limit: args.count });
    }
    if args.rate.is_some() || args.seed.is_some() || args.count.is_some() || args.dialect.is_some() {
        let what = "--rate, --seed, --count and --dialect shape a made-up world";
        return Err(usage(what, "add --synthetic, or leave them out to play a tape"));
    }
    match &args.fixture {
        Some(path) if !path.is_dir() => lines(path),
        Some(dir) => Ok(Feed::Tape { dir: dir.clone() }),
        None => Ok(Feed::Tape { dir: common.tape_dir()? }),
    }
}

fn lines(path: &Path) -> Result<Feed> {
    let name = path.display().to_string();
    let file = File::open(path).with_context(|| format!("cannot open {name}"))?;
    let options = import::Options { provider: None, source: None, first_at: UnixMicros(0) };
    let (envelopes, report) = import::envelopes(Lines::new(&name, file)?, &options)?;
    if let Some(cut) = &report.cut {
        let what = format!("{name} breaks off in line {}: {}", cut.line, cut.why);
        return Err(failed(what, "get a whole copy of it, or `birdtape import` what is there and replay the tape"));
    }
    if let Some(first) = report.unrecognised.first() {
        let n = count(report.n_unrecognised, "line");
        say(&format!("warning: {n} of no known provider (first at line {first}) go to the provider of the line before"));
    }
    Ok(Feed::Lines { envelopes })
}

fn tell(common: &Common, stats: &Stats, ended: Ended) -> Result<()> {
    for words in &stats.damage {
        say(&format!("damage: {words}"));
    }
    let mut played = Vec::new();
    for provider in Provider::ALL {
        let of = stats.of(provider);
        if of.clients_ever > 0 || of.played > 0 {
            let (n, clients) = (count(of.played, "envelope"), count(of.clients_ever, "connection"));
            say(&format!("{provider}: {n} to {clients}"));
        }
        if of.skipped > 0 {
            say(&format!("{provider}: {} left out, malformed on the wire", count(of.skipped, "frame")));
        }
        if of.too_slow > 0 {
            say(&format!("{provider}: {} sent away, too slow", count(of.too_slow, "client")));
        }
        played.push(json!({
            "provider": provider.name(), "played": of.played, "sent": of.sent, "skipped": of.skipped,
            "connections": of.clients_ever, "too_slow": of.too_slow,
        }));
    }
    for row in &stats.faults {
        say(&row.words());
    }
    if common.json {
        let faults: Vec<_> = stats.faults.iter().map(Row::to_json).collect();
        let why = if ended == Ended::Done { "done" } else { "stopped" };
        let mut out = Out::new();
        out.json(&json!({ "event": "done", "ended": why, "providers": played, "damage": stats.damage, "faults": faults }))?;
        out.flush()?;
    }
    Ok(())
}
