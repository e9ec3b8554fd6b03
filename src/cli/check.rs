//! `birdtape check`: is everything ready to record?

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::Result;
use serde_json::json;

use super::args::{self, Common};
use super::exit::{Exit, Outcome};
use super::out::{Out, length, size, stamp};
use super::{log, status};
use crate::archive::{ArchiveError, Layout, Tape};
use crate::config::{Config, ConfigError, Source};
use crate::model::UnixMicros;
use crate::net::{Clock, Network, SystemClock, SystemNetwork, TlsOptions};
use crate::provider::Client;
use crate::segment::RealDisk;

/// Below this a recorder would soon stand still.
const LEAST_FREE: u64 = 64 << 20;
/// Below this somebody should look after the disk.
const FEW_FREE: u64 = 1 << 30;
/// The file system's clock and ours may differ by that much.
const CLOCK_APART: Duration = Duration::from_secs(5);
/// No clock that is right shows a time before 2026: there was no birdtape.
const EARLIEST: UnixMicros = UnixMicros(1_767_225_600_000_000);

/// Check that everything is ready to record
///
/// Reads the configuration, looks for keys (which are named, never shown), tries the tape's directory, the free space and the
/// clock, and connects to each source's address without sending anything. Exit code 1 when something is not ready.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  birdtape check
  birdtape check alpha --offline")]
pub(super) struct Args {
    /// Only these sources of the configuration [default: all]
    source: Vec<String>,
    /// Leave the network alone
    #[arg(long)]
    offline: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Ok,
    Warn,
    Fail,
}

impl Verdict {
    const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// One line of the answer.
struct Finding {
    verdict: Verdict,
    what: &'static str,
    words: String,
    hint: Option<String>,
}

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, verdict: Verdict, what: &'static str, words: impl Into<String>) {
        self.0.push(Finding { verdict, what, words: log::redact(&words.into()), hint: None });
    }

    fn hinted(&mut self, verdict: Verdict, what: &'static str, words: impl Into<String>, hint: Option<impl Into<String>>) {
        self.0.push(Finding { verdict, what, words: log::redact(&words.into()), hint: hint.map(Into::into) });
    }
}

pub(super) fn run(common: &Common, args: &Args) -> Outcome {
    let mut findings = Findings::default();
    let sources = configuration(common, args, &mut findings);
    let clock = SystemClock::new();
    match common.tape_dir() {
        Ok(dir) => tape(&dir, &clock, &mut findings),
        Err(error) => findings.add(Verdict::Fail, "tape", error.to_string()),
    }
    if !args.offline && !sources.is_empty() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        for source in &sources {
            runtime.block_on(reach(source, &mut findings));
        }
    }
    print(common.json, &findings)?;
    let failed = findings.0.iter().any(|finding| finding.verdict == Verdict::Fail);
    Ok(if failed { Exit::Failed } else { Exit::Done })
}

fn print(json: bool, findings: &Findings) -> Result<()> {
    let mut out = Out::new();
    for Finding { verdict, what, words, hint } in &findings.0 {
        if json {
            out.json(&json!({ "verdict": verdict.name(), "what": what, "detail": words, "hint": hint }))?;
            continue;
        }
        out.line(&format!("{:<4}  {what}: {words}", verdict.name()))?;
        if let Some(hint) = hint {
            out.line(&format!("      hint: {hint}"))?;
        }
    }
    out.flush()
}

/// Configuration and keys.
fn configuration(common: &Common, args: &Args, findings: &mut Findings) -> Vec<Source> {
    let file = common.config_file();
    match Config::load_only(&file, &args::env, &args.source) {
        Ok(mut config) => {
            log::start(config.secrets());
            let n = config.sources.len();
            let names = config.sources.iter().map(|source| source.name.as_str()).collect::<Vec<_>>().join(", ");
            let words = if n == 0 { "no source is switched on".to_owned() } else { names };
            findings.add(
                if n == 0 { Verdict::Warn } else { Verdict::Ok },
                "configuration",
                format!("{}: {words}", file.display()),
            );
            for source in &config.sources {
                findings.add(Verdict::Ok, "key", format!("{}: from {}", source.name, source.key_source));
            }
            match config.settle_webhooks().map(|()| config.webhooks) {
                Err(error) => findings.hinted(Verdict::Fail, "webhooks", error.to_string(), error.hint()),
                Ok(Some(address)) => findings.add(Verdict::Ok, "webhooks", format!("received at http://{address}/SOURCE")),
                Ok(None) => {}
            }
            config.sources
        }
        Err(error @ ConfigError::NoFile { .. }) if common.config.is_none() && args.source.is_empty() => {
            findings.hinted(Verdict::Warn, "configuration", error.to_string(), error.hint());
            Vec::new()
        }
        Err(error) => {
            findings.hinted(Verdict::Fail, "configuration", error.to_string(), error.hint());
            Vec::new()
        }
    }
}

/// The tape's directory, its format, its disk, and the clock.
fn tape(dir: &Path, clock: &SystemClock, findings: &mut Findings) {
    let shown = dir.display();
    let exists = match Layout::new(dir).info(&RealDisk) {
        Ok(Some(info)) => {
            let words = format!("{shown}: format {}, made {}", info.format, info.created.get(..10).unwrap_or_default());
            findings.add(Verdict::Ok, "tape", words);
            true
        }
        Ok(None) if dir.read_dir().is_ok_and(|mut entries| entries.next().is_some()) => {
            let hint = "name an empty or new directory with --tape";
            findings.hinted(Verdict::Fail, "tape", format!("{shown} is not a tape and not empty"), Some(hint));
            return;
        }
        Ok(None) => {
            findings.add(Verdict::Ok, "tape", format!("{shown}: not there yet, `record` makes it"));
            false
        }
        Err(error) => return findings.hinted(Verdict::Fail, "tape", chain(&error), error.hint()),
    };
    if let Some(holder) = status::recorder(dir) {
        findings.add(Verdict::Warn, "tape", format!("{shown} is being written by {holder}"));
    }
    let place = nearest_directory(dir);
    match write_aside(&place) {
        Ok(changed_at) => {
            findings.add(Verdict::Ok, "writable", place.display().to_string());
            clocks(clock, changed_at, findings);
        }
        Err(error) => {
            let hint = "make the directory writable for this user, or name another with --tape";
            findings.hinted(Verdict::Fail, "writable", format!("cannot write to {}: {error}", place.display()), Some(hint));
        }
    }
    free_space(&place, findings);
    if exists {
        order(dir, clock, findings);
    }
}

/// The directory itself, or the first one above it that is there.
fn nearest_directory(dir: &Path) -> PathBuf {
    let there = dir.ancestors().find(|path| path.is_dir());
    there.filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned()
}

/// Writes a small file and removes it; gives its time of change as the file system saw it.
fn write_aside(dir: &Path) -> io::Result<Option<UnixMicros>> {
    let path = dir.join(format!(".birdtape-check-{}", std::process::id()));
    let mut file = OpenOptions::new().write(true).create_new(true).open(&path)?;
    let written = file.write_all(b"check\n").and_then(|()| file.sync_all()).and_then(|()| file.metadata());
    fs::remove_file(&path)?;
    let changed = written?.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    Ok(changed.map(|since| UnixMicros(0).plus(since)))
}

fn clocks(clock: &SystemClock, changed_at: Option<UnixMicros>, findings: &mut Findings) {
    let now = clock.wall();
    if now < EARLIEST {
        let hint = Some("set the clock, best by NTP: every record is stamped with it");
        return findings.hinted(Verdict::Fail, "clock", format!("it says {}", stamp(now)), hint);
    }
    let apart = changed_at.map_or(0, |at| now.since(at));
    if apart.unsigned_abs() > CLOCK_APART.as_micros() as u64 {
        let words = format!("{} apart from that of the file system", length(apart));
        return findings.hinted(Verdict::Warn, "clock", words, Some("synchronise both machines, best by NTP"));
    }
    let boot = clock.boot();
    if boot.since_boot.is_zero() || boot.boot_id.is_empty() {
        findings.add(Verdict::Warn, "clock", format!("{}; the system does not name its boots", stamp(now)));
    } else {
        let up = i64::try_from(boot.since_boot.as_micros()).unwrap_or(i64::MAX);
        findings.add(Verdict::Ok, "clock", format!("{}, up since {}", stamp(now), length(up)));
    }
}

fn free_space(place: &Path, findings: &mut Findings) {
    let free = match rustix::fs::statvfs(place) {
        Ok(stat) => stat.f_bavail.saturating_mul(stat.f_frsize),
        Err(error) => {
            return findings.add(Verdict::Warn, "disk", format!("free space of {} is unknown: {error}", place.display()));
        }
    };
    let verdict = match free {
        ..LEAST_FREE => Verdict::Fail,
        LEAST_FREE..FEW_FREE => Verdict::Warn,
        _ => Verdict::Ok,
    };
    let hint = (verdict != Verdict::Ok).then_some("free some space, or name another directory with --tape");
    findings.hinted(verdict, "disk", format!("{} free at {}", size(free), place.display()), hint);
}

/// The tape's catalog, and whether its newest record lies in the future.
fn order(dir: &Path, clock: &SystemClock, findings: &mut Findings) {
    let newest = Tape::open(dir, Arc::new(RealDisk)).and_then(|tape| tape.sources());
    match newest {
        Ok(sources) => {
            let newest = sources.iter().map(|source| source.last_us).max().unwrap_or(0);
            let ahead = newest - clock.wall().0;
            if ahead > CLOCK_APART.as_micros() as i64 {
                let words = format!("it is {} behind the tape's newest record", length(ahead));
                findings.hinted(Verdict::Warn, "clock", words, Some("set the clock, best by NTP"));
            }
        }
        Err(error) => findings.hinted(Verdict::Warn, "catalog", chain(&error), error.hint()),
    }
}

/// Name, TCP and TLS of a source's address; nothing is sent.
async fn reach(source: &Source, findings: &mut Findings) {
    let endpoint = Client::new(source.settings.clone()).opening().endpoint;
    let place = format!("{}: {}{}", source.name, endpoint.authority(), if endpoint.tls { " over TLS" } else { "" });
    let options = TlsOptions { ca_file: source.ca_file.clone(), allow_plain: source.allow_plain };
    let network = match SystemNetwork::new(options) {
        Ok(network) => network,
        Err(error) => return findings.add(Verdict::Fail, "reach", format!("{place}: {error}")),
    };
    match network.connect(&endpoint).await {
        Ok(connection) => {
            drop(connection);
            findings.add(Verdict::Ok, "reach", place);
        }
        Err((_, detail)) => findings.add(Verdict::Fail, "reach", format!("{}: {detail}", source.name)),
    }
}

fn chain(error: &ArchiveError) -> String {
    let mut words = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        words.push_str(&format!(": {error}"));
        cause = error.source();
    }
    words
}
