//! `birdtape replay`: the fake providers.

use std::ffi::OsString;
use std::future::Future;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::json;

use super::args::{self, Common};
use super::exit::{Exit, Outcome, usage};
use super::out::{Out, count, say};
use super::synthetic::Synthetic;
use super::{command, log, signal};
use crate::model::{Provider, Secret, SourceName};
use crate::provider::{Switches, Values, switches_of};
use crate::replay::faults::{Row, Script, ScriptError};
use crate::replay::{self, Ended, Feed, Options, Place, ReplayError, SlowClients, Speed, Start, Stats};
use crate::segment::RealDisk;
use crate::testing::Fixture;

/// Play a tape as the providers would
///
/// One server on one port speaks the live protocols of all four providers. A client connects to it by changing host and port
/// only. When it is ready it prints one line of JSON with the addresses: {"base": …, "tweetstream": {"ws": …, "rest": …}, …}.
/// Envelopes are sent byte for byte; the clock starts with the first client. With --exit-when-done it ends when every provider
/// that somebody came for has played everything; exit code 3 when something of the tape could not be read.
///
/// With -- COMMAND it runs that program against the fake providers and ends with it and its exit code (128 and the signal's
/// number when a signal ended it, 127 when it cannot be started). The program finds the addresses in BIRDTAPE_BASE_URL,
/// TWITTERAPI_IO_WS_URL, TWEETSTREAM_WS_URL, SCRAPEBADGER_WS_URL, X_LIVE_URL, the same names with _BASE_URL for requests
/// (X_BASE_URL), and a key wherever none is set: TWITTERAPI_IO_API_KEY, TWEETSTREAM_API_KEY, SCRAPEBADGER_API_KEY,
/// X_AUTH_TOKEN, X_CT0. With --tls also SSL_CERT_FILE, CURL_CA_BUNDLE, REQUESTS_CA_BUNDLE, NODE_EXTRA_CA_CERTS and BIRDTAPE_CA_FILE. stdin
/// and stdout are the program's; the line with the addresses goes to stderr.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  birdtape replay --speed 10
  birdtape replay fixtures/synthetic/mixed-400.jsonl --speed max --exit-when-done
  birdtape replay fixtures/synthetic/mixed-400.jsonl --speed max -- pytest -q
  birdtape replay --faults fixtures/faults/bad_night.toml
  birdtape replay --synthetic --rate 500 --seed 7 --listen 127.0.0.1:8080
  birdtape replay --synthetic --burst 20x:10m:15s --day-curve --languages en=60,ja=20,ar=20 --edits 2%")]
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
    /// When the clock begins to run: first-client, now, or paused (until `birdtape control resume`)
    #[arg(long, value_name = "WHEN", default_value = "first-client", value_parser = start_when)]
    start: Start,
    /// Where to begin: a moment, a post's id, or end (nothing left to play, and history knows everything)
    #[arg(long, value_name = "PLACE", value_parser = place)]
    from: Option<Place>,
    /// Play it again so many times; without a number for ever
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "18446744073709551615", hide_default_value = true)]
    repeat: Option<u64>,
    /// Move all ids, dates and stamps so that the first envelope is of this moment [default: bytes stay as recorded]
    #[arg(long, value_name = "now|TIME", value_parser = args::when, allow_negative_numbers = true)]
    shift: Option<args::When>,
    /// Let recorded closes, breaks, stalls and refusals come back at their time
    #[arg(long)]
    as_happened: bool,
    /// Only this source of the tape (may be given several times)
    #[arg(long = "source", value_name = "NAME", value_parser = args::source_name)]
    sources: Vec<SourceName>,
    /// How long history needs to know of something new
    #[arg(long, value_name = "SECONDS", default_value = "0", value_parser = args::duration)]
    index_delay: Duration,
    /// Leave out the documented rate limits of history and management
    #[arg(long)]
    no_rate_limits: bool,
    /// What a key may spend on history, in the provider's own unit [default: without end]
    #[arg(long, value_name = "N")]
    credits: Option<u64>,
    /// Where a provider's pages disagree, play this way (see --switch list)
    #[arg(long = "switch", value_name = "PROVIDER.NAME=VALUE")]
    switches: Vec<String>,
    /// A client whose bytes are full is dropped, or all wait for it [default: wait at full speed, drop at a given pace]
    #[arg(long, value_name = "drop|wait", value_parser = slow_clients)]
    slow_clients: Option<SlowClients>,
    /// Bytes that may wait for one client
    #[arg(long, value_name = "BYTES", default_value = "1MiB", value_parser = bytes)]
    client_queue: usize,
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
    /// Speak TLS (https, wss), as a server that an authority made for this run vouches for; the line with the addresses names its file
    #[arg(long)]
    tls: bool,
    /// Where that authority's certificate is written [default: a temporary file, removed at the end]
    #[arg(long, value_name = "FILE", requires = "tls")]
    tls_ca: Option<PathBuf>,
    #[command(flatten)]
    world: Synthetic,
    /// A program to run against the fake providers, and its arguments
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

fn speed(text: &str) -> Result<Speed, String> {
    if text == "max" {
        return Ok(Speed::Max);
    }
    let times = text.parse().ok().filter(|times: &f64| times.is_finite() && *times > 0.0);
    times.map(Speed::Times).ok_or_else(|| "a speed is a number above 0, or max".to_owned())
}

fn start_when(text: &str) -> Result<Start, String> {
    match text {
        "first-client" => Ok(Start::FirstClient),
        "now" => Ok(Start::Now),
        "paused" => Ok(Start::Paused),
        _ => Err("known are first-client, now, paused".to_owned()),
    }
}

pub(super) fn place(text: &str) -> Result<Place, String> {
    text.parse().map_err(|_| "a place is a moment (2026-01-05T12:00:00Z), a post's id, or end".to_owned())
}

fn slow_clients(text: &str) -> Result<SlowClients, String> {
    match text {
        "drop" => Ok(SlowClients::Drop),
        "wait" => Ok(SlowClients::Wait),
        _ => Err("known are drop, wait".to_owned()),
    }
}

fn bytes(text: &str) -> Result<usize, String> {
    let size = text.parse::<bytesize::ByteSize>().ok().and_then(|size| usize::try_from(size.as_u64()).ok());
    size.filter(|bytes| *bytes > 0).ok_or_else(|| "a size is written as 65536, 512KiB or 4MiB".to_owned())
}

/// Switches as given; `list` is answered by printing all there are.
fn switches(given: &[String]) -> Result<Option<Switches>> {
    if given.iter().any(|text| text == "list") {
        return Ok(None);
    }
    let mut switches = Switches::default();
    for text in given {
        switches.set(text).map_err(|error| usage(error.to_string(), "`birdtape replay --switch list` shows all of them"))?;
    }
    Ok(Some(switches))
}

fn list_switches(common: &Common) -> Result<()> {
    let mut out = Out::new();
    for provider in Provider::ALL {
        for switch in switches_of(provider) {
            let (default, values) = match switch.values {
                Values::Words(words) => (words[0].to_owned(), words.join("|")),
                Values::Number { default, min, max } => (default.to_string(), format!("{min} to {max}")),
            };
            let name = format!("{provider}.{}", switch.name);
            if common.json {
                out.json(&json!({ "switch": name, "default": default, "values": values, "about": switch.about }))?;
            } else {
                out.line(&format!("{name}={default}  ({values})\n    {}", switch.about))?;
            }
        }
    }
    out.flush()?;
    Ok(())
}

pub(super) fn run(common: &Common, args: &Args) -> Outcome {
    // A variable of a script that holds nothing would otherwise be waited for without end.
    if args.command.is_empty() && std::env::args_os().any(|argument| argument == "--") {
        return Err(usage("no command stands behind --", "name the program to run, or leave -- out to serve until Ctrl-C"));
    }
    let key = match &args.key {
        Some(text) => Some(Secret::new(text).ok_or_else(|| usage("--key is empty", "leave it out to accept any key"))?),
        None => None,
    };
    log::start(key.iter().cloned().collect());
    let Some(switches) = switches(&args.switches)? else {
        list_switches(common)?;
        return Ok(Exit::Done);
    };
    let options = Options {
        speed: args.speed,
        start: args.start,
        from: args.from,
        repeat: args.repeat.unwrap_or(0),
        shift_to: args.shift.map(|when| when.instant(args::now())),
        as_happened: args.as_happened,
        sources: args.sources.iter().map(ToString::to_string).collect(),
        index_delay: args.index_delay,
        rate_limits: !args.no_rate_limits,
        credits: args.credits,
        switches,
        slow_clients: args.slow_clients,
        client_queue_bytes: args.client_queue,
        key,
        max_connections: args.max_connections,
        wait_for_clients: args.wait_for_clients,
        exit_when_done: args.exit_when_done,
        linger: args.linger,
        idle_cap: args.idle_cap,
        tls: args.tls,
        faults: args.faults.as_deref().map(Script::load).transpose().map_err(misfit)?,
        ..Options::new(feed(common, args)?)
    };
    let (outcome, code) = if args.command.is_empty() { alone(args, options) } else { around(args, options) }?;
    let report = tell(&outcome.stats, outcome.ended);
    if common.json && args.command.is_empty() {
        let mut out = Out::new();
        out.json(&report)?;
        out.flush()?;
    } else if common.json {
        say(&report.to_string());
    }
    let n_unfired_faults = outcome.stats.faults.iter().filter(|row| row.is_missed()).count();
    Ok(command::verdict(code, n_unfired_faults, !outcome.stats.damage.is_empty()))
}

/// How the replay ended, and the exit code of the command, if there was one.
type Played = (replay::Outcome, Option<u8>);

/// Plays until a signal or the end of the tape.
fn alone(args: &Args, options: Options) -> Result<Played> {
    signal::block_on(|stop| async {
        let (replay, ca) = start(args, options, signal::stopped(stop)).await?;
        let mut out = Out::new();
        out.exact(&[replay.urls().to_json(ca.path()).as_bytes()])?;
        out.flush()?;
        drop(out);
        Ok((replay.wait().await, None))
    })
}

/// Plays until the command ends, which gets all signals; stdout is the command's.
fn around(args: &Args, options: Options) -> Result<Played> {
    signal::block_on_and_hand_over(|signals| async {
        let key = options.key.clone();
        let (replay, ca) = start(args, options, std::future::pending()).await?;
        say(&replay.urls().to_json(ca.path()));
        let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let variables = command::environment(replay.urls(), key.as_ref(), ca.path(), is_set);
        let mut child = command::start(&args.command, variables)?;
        let code = command::wait(&mut child, signals).await?;
        replay.stop();
        Ok((replay.wait().await, Some(code)))
    })
}

async fn start(
    args: &Args,
    options: Options,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(replay::Replay, CaFile)> {
    let listener = replay::bind(args.listen).await?;
    let replay = match replay::start(options, listener, Arc::new(RealDisk), shutdown).await {
        Err(ReplayError::Faults(error)) => return Err(misfit(error)),
        started => started?,
    };
    let ca = CaFile::write(replay.ca_pem(), args.tls_ca.as_deref())?;
    Ok((replay, ca))
}

fn misfit(error: ScriptError) -> anyhow::Error {
    usage(error.to_string(), error.cure)
}

/// The file with the authority's certificate, as long as clients may need it.
enum CaFile {
    None,
    Temporary(tempfile::NamedTempFile),
    Kept(PathBuf),
}

impl CaFile {
    fn write(pem: Option<&str>, path: Option<&Path>) -> Result<Self> {
        let Some(pem) = pem else { return Ok(Self::None) };
        if let Some(path) = path {
            std::fs::write(path, pem).with_context(|| format!("cannot write the certificate to {}", path.display()))?;
            let path = std::path::absolute(path).context("cannot tell the current directory")?;
            return Ok(Self::Kept(path));
        }
        let write = || {
            let mut file = tempfile::Builder::new().prefix("birdtape-ca-").suffix(".pem").tempfile()?;
            file.write_all(pem.as_bytes())?;
            std::io::Result::Ok(file)
        };
        write().map(Self::Temporary).context("cannot write the certificate to a temporary file; name one with --tls-ca")
    }

    fn path(&self) -> Option<&Path> {
        match self {
            Self::None => None,
            Self::Temporary(file) => Some(file.path()),
            Self::Kept(path) => Some(path),
        }
    }
}

fn feed(common: &Common, args: &Args) -> Result<Feed> {
    // The rate is that of the world's own clock, which the speed then multiplies.
    if let Some(options) = args.world.options()? {
        return Ok(Feed::Synthetic { options, limit: args.world.count });
    }
    match &args.fixture {
        Some(path) => read(path),
        None => Ok(Feed::Tape { dir: common.tape_dir()? }),
    }
}

fn read(path: &Path) -> Result<Feed> {
    let fixture = Fixture::read(path)?;
    if let Some(first) = fixture.first_unrecognised {
        let n = count(fixture.n_unrecognised, "line");
        say(&format!("warning: {n} of no known provider (first at line {first}) go to the provider of the line before"));
    }
    Ok(fixture.feed)
}

/// Tells a person what was played, and gives the same for a script.
fn tell(stats: &Stats, ended: Ended) -> serde_json::Value {
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
    let faults: Vec<_> = stats.faults.iter().map(Row::to_json).collect();
    let why = if ended == Ended::Done { "done" } else { "stopped" };
    json!({ "event": "done", "ended": why, "providers": played, "damage": stats.damage, "faults": faults })
}
