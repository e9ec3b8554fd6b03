//! `birdtape fixture`: small replayable excerpts of tapes.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use rand::Rng as _;
use serde_json::json;
use tokio::sync::watch;

use super::args::{self, Common, When};
use super::exit::{Exit, Outcome, failed, usage};
use super::out::{self, Out, count, say};
use super::signal;
use crate::fixture::{self, Excerpt, FixtureError, Options, Verdict, Which, Written};
use crate::import::{Lines, Next};
use crate::model::{Provider, Secret, SourceName, TweetId};
use crate::provider::redact::{Class, Redaction, Redactor};
use crate::segment::RealDisk;

/// Names the file under trial to the command of `shrink`.
const FIXTURE_VARIABLE: &str = "BIRDTAPE_FIXTURE";

/// The secret of the stand-ins.
const KEY_VARIABLE: &str = "BIRDTAPE_REDACT_KEY";

/// Make small replayable excerpts of a tape
///
/// cut takes a few envelopes out of a tape, with what a client needs to understand them, redacted if asked. shrink takes such a
/// file and leaves out of it whatever a failing command does not need to fail.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  birdtape fixture cut --around 1727346512345678901 --out bug.jsonl
  birdtape fixture cut --sample 200 --redact all --out tests/day.jsonl.zst
  birdtape fixture shrink bug.jsonl --out small.jsonl -- ./reproduce.sh {}")]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Cut(Cut),
    Shrink(Shrink),
}

/// Cut an excerpt out of a tape
///
/// Chooses around a post, between two times, or by chance. Along come the greeting of each connection (X's config among them)
/// and the posts that chosen metas, updates, deletes and pins are about.
///
/// A FILE holds one envelope a line and no times of receipt: replay dates each line by its provider's stamp or the line before,
/// so X's own pace is lost. A directory becomes a sealed tape that keeps them. `birdtape replay` plays both.
///
/// With --redact, handles, words, addresses and ids get stand-ins made with a secret key: the same thing becomes the same
/// stand-in everywhere, so joins and searches still work. The key comes from BIRDTAPE_REDACT_KEY or a file; without one it is
/// made up, used once and forgotten. It is written nowhere.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("which").required(true).multiple(true).args(["around", "from", "to", "sample"]), after_help = "\
Examples:
  birdtape fixture cut --around 1727346512345678901 --before 5 --after 20 --out bug.jsonl
  birdtape fixture cut --around 1727346512345678901 --span 30s --out bug-tape
  birdtape fixture cut --from 2026-01-05T12:00:00Z --to 2026-01-05T12:00:10Z --source alpha --out ten-seconds.jsonl.zst
  birdtape fixture cut --sample 200 --seed 7 --redact handles,names,text --out sample.jsonl")]
struct Cut {
    /// Where to: FILE.jsonl, FILE.jsonl.zst, or a directory for a tape
    #[arg(long, value_name = "PATH")]
    out: PathBuf,
    /// Everything about this post, and what came around it
    #[arg(long, value_name = "TWEET_ID", value_parser = args::tweet_id, conflicts_with_all = ["from", "to", "sample"])]
    around: Option<TweetId>,
    /// Envelopes before it [default: 10]
    #[arg(long, value_name = "N", requires = "around")]
    before: Option<usize>,
    /// Envelopes after it [default: 10]
    #[arg(long, value_name = "N", requires = "around")]
    after: Option<usize>,
    /// Instead of numbers: how long a stretch, half of it before the post and half after
    #[arg(long, value_name = "SECONDS", value_parser = args::duration, requires = "around", conflicts_with_all = ["before", "after"])]
    span: Option<Duration>,
    /// Received at or after this time
    #[arg(long, value_name = "TIME", value_parser = args::when, allow_hyphen_values = true)]
    from: Option<When>,
    /// Received before this time
    #[arg(long, value_name = "TIME", value_parser = args::when, allow_hyphen_values = true)]
    to: Option<When>,
    /// So many envelopes by chance, of those that carry events
    #[arg(long, value_name = "N", conflicts_with_all = ["from", "to"])]
    sample: Option<usize>,
    /// What chance begins with; equal seeds choose equally [default: 1]
    #[arg(long, value_name = "N", requires = "sample")]
    seed: Option<u64>,
    /// Only this source; may be given several times [default: all]
    #[arg(long, value_name = "NAME", value_parser = args::source_name)]
    source: Vec<SourceName>,
    /// What to redact: handles, names, text, urls, media, user_ids, post_ids, bios, rules, or all
    #[arg(long, value_name = "CLASS,…", value_parser = redaction)]
    redact: Option<Redaction>,
    /// File with the secret for the stand-ins [default: the variable BIRDTAPE_REDACT_KEY, else one that is forgotten]
    #[arg(long, value_name = "FILE", requires = "redact")]
    redact_key: Option<PathBuf>,
    /// Replace a file that is there
    #[arg(long)]
    force: bool,
}

/// Leave out whatever a failing command does not need to fail
///
/// Runs the command again and again on ever fewer envelopes, with {} replaced by the path of the file to look at (also in the
/// variable BIRDTAPE_FIXTURE), and keeps what still makes it fail: an exit code other than 0. A run that takes longer than
/// --timeout is ended and counts as no failure. The command must fail on the whole file and must not fail on an empty one.
/// What it prints is thrown away. Ctrl-C keeps the smallest found so far.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  birdtape fixture shrink bug.jsonl --out small.jsonl -- ./reproduce.sh {}
  birdtape fixture shrink day.jsonl.zst --out small.jsonl --timeout 20 -- sh -c 'birdtape replay {} --speed max -- pytest'")]
struct Shrink {
    /// The file: one envelope a line, plain, gzip or zstd
    #[arg(value_name = "FIXTURE")]
    fixture: PathBuf,
    /// Where to: FILE.jsonl or FILE.jsonl.zst
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Longest run of the command
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = args::duration)]
    timeout: Duration,
    /// Replace a file that is there
    #[arg(long)]
    force: bool,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

fn redaction(text: &str) -> Result<Redaction, String> {
    text.parse().map_err(|error: crate::provider::redact::UnknownClass| error.to_string())
}

pub(super) fn run(common: &Common, args: &Args) -> Outcome {
    match &args.command {
        Command::Cut(args) => cut(common, args),
        Command::Shrink(args) => shrink(common, args),
    }
}

/// What a path is to become, by its name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Lines,
    Tape,
}

impl Form {
    fn of(path: &Path) -> Self {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is_file = [".jsonl", ".jsonl.zst"].iter().any(|end| name.ends_with(end));
        if is_file { Self::Lines } else { Self::Tape }
    }
}

/// Stops before anything is overwritten.
fn check_free(path: &Path, form: Form, force: bool) -> Result<()> {
    let shown = path.display();
    let Ok(meta) = std::fs::symlink_metadata(path) else { return Ok(()) };
    match form {
        Form::Lines if meta.is_dir() => Err(usage(format!("{shown} is a directory"), "name a file with --out")),
        Form::Lines if force => Ok(()),
        Form::Lines => Err(failed(format!("{shown} is there already"), "--force replaces it; or name another file with --out")),
        Form::Tape if !meta.is_dir() => {
            Err(usage(format!("{shown} is a file, and its name does not end in .jsonl or .jsonl.zst"), "name another with --out"))
        }
        Form::Tape if std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none()) => Ok(()),
        // What lies in a directory may be somebody's only tape: that much is not for a flag.
        Form::Tape => {
            Err(failed(format!("the directory {shown} is not empty"), "remove it yourself, or name another with --out"))
        }
    }
}

fn cut(common: &Common, args: &Cut) -> Outcome {
    let which = which(args)?;
    let form = Form::of(&args.out);
    check_free(&args.out, form, args.force)?;
    let key = key(args)?;
    let tape = common.open_tape()?;
    let named: Vec<String> = args.source.iter().map(ToString::to_string).collect();
    let sources = args::sources(&tape, &named)?;
    let mut excerpt = fixture::cut(&tape, &Options { which, sources })?;
    if let (Some(redaction), Some(key)) = (&args.redact, key) {
        redact(&mut excerpt, redaction.clone(), key);
    }
    let written = match form {
        Form::Lines => fixture::write_lines(&args.out, excerpt.envelopes.iter().map(|picked| &*picked.bytes))?,
        Form::Tape => {
            let holder = args::holder("fixture cut");
            fixture::write_tape(&args.out, Arc::new(RealDisk), &excerpt.envelopes, &holder, args::now())?
        }
    };
    tell_cut(common, args, form, &excerpt, written)?;
    let whole = excerpt.damage.is_empty() && written.n_left_out == 0;
    Ok(if whole { Exit::Done } else { Exit::KnownLoss })
}

fn which(args: &Cut) -> Result<Which> {
    let now = args::now();
    let (from, to) = (args.from.map(|when| when.instant(now)), args.to.map(|when| when.instant(now)));
    match (args.around, args.span, args.sample) {
        (Some(id), Some(span), _) => Ok(Which::Near { id, span }),
        (Some(id), None, _) => Ok(Which::Around { id, before: args.before.unwrap_or(10), after: args.after.unwrap_or(10) }),
        (None, _, Some(0)) => Err(usage("--sample 0 chooses nothing", "say how many envelopes, as in --sample 200")),
        (None, _, Some(n)) => Ok(Which::Sample { n, seed: args.seed.unwrap_or(1) }),
        (None, _, None) => match (from, to) {
            (Some(from), Some(to)) if from >= to => {
                Err(usage(format!("from {from} to {to} is no stretch of time"), "--from is the earlier one, --to the later"))
            }
            _ => Ok(Which::Between { from, to }),
        },
    }
}

/// The secret of the stand-ins: file, environment, or one that nobody will know.
fn key(args: &Cut) -> Result<Option<Secret>> {
    if args.redact.is_none() {
        return Ok(None);
    }
    let empty = |origin: &str| usage(format!("the key in {origin} is empty"), "leave it out to use one that is forgotten");
    if let Some(path) = &args.redact_key {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read the key from {name}"))?;
        return Secret::new(text).ok_or_else(|| empty(&name)).map(Some);
    }
    if let Some(text) = args::env(KEY_VARIABLE) {
        return Secret::new(text).ok_or_else(|| empty(KEY_VARIABLE)).map(Some);
    }
    let made_up: u128 = rand::rng().random();
    Ok(Secret::new(format!("{made_up:032x}")))
}

fn redact(excerpt: &mut Excerpt, redaction: Redaction, key: Secret) {
    let mut redactor = Redactor::new(redaction, key);
    for picked in &excerpt.envelopes {
        redactor.learn(picked.provider, &picked.bytes);
    }
    for picked in &mut excerpt.envelopes {
        picked.bytes = redactor.envelope(picked.provider, &picked.bytes);
    }
}

fn tell_cut(common: &Common, args: &Cut, form: Form, excerpt: &Excerpt, written: Written) -> Result<()> {
    for words in &excerpt.damage {
        say(&format!("damage: {words}"));
    }
    let shown = args.out.display();
    if written.n_left_out > 0 {
        let n = count(written.n_left_out as u64, "envelope");
        say(&format!("warning: {n} left out, as no line can hold them; name a directory with --out to keep them"));
    }
    let all_x = excerpt.envelopes.iter().all(|picked| picked.provider == Provider::XLive);
    if form == Form::Lines && all_x {
        say("warning: X stamps nothing, so as lines these have no times; name a directory with --out to keep the pace");
    }
    let (n, size) = (count(written.n_envelopes as u64, "envelope"), out::size(written.body_bytes));
    let along =
        if excerpt.n_companions > 0 { format!(", {} of them needed by others", excerpt.n_companions) } else { String::new() };
    say(&format!("{n} ({size}{along}) in {shown}"));
    if !common.json {
        return Ok(());
    }
    let mut sources: Vec<(&str, Provider, u64)> = Vec::new();
    for picked in &excerpt.envelopes {
        match sources.iter_mut().find(|(name, ..)| *name == picked.source) {
            Some((.., n)) => *n += 1,
            None => sources.push((&picked.source, picked.provider, 1)),
        }
    }
    sources.sort_unstable();
    let sources: Vec<_> = sources
        .into_iter()
        .map(|(source, provider, n)| json!({ "source": source, "provider": provider.name(), "envelopes": n }))
        .collect();
    let redacted: Vec<&str> = args.redact.iter().flat_map(Redaction::classes).map(Class::name).collect();
    let mut out = Out::new();
    out.json(&json!({
        "out": shown.to_string(),
        "form": if form == Form::Lines { "lines" } else { "tape" },
        "envelopes": written.n_envelopes,
        "companions": excerpt.n_companions,
        "bytes": written.body_bytes,
        "left_out": written.n_left_out,
        "sources": sources,
        "redacted": redacted,
        "damage": excerpt.damage,
    }))?;
    out.flush()
}

fn shrink(common: &Common, args: &Shrink) -> Outcome {
    if Form::of(&args.out) == Form::Tape {
        let what = format!("{} does not end in .jsonl or .jsonl.zst", args.out.display());
        return Err(usage(what, "shrink writes lines; name a file so with --out"));
    }
    check_free(&args.out, Form::Lines, args.force)?;
    let lines = read_lines(&args.fixture)?;
    let desk = TrialDesk::new()?;
    let (n, n_runs, shrunk) = signal::block_on(|stop| async {
        let trials =
            Trials { lines, command: args.command.clone(), timeout: args.timeout, file: desk.0.join("candidate.jsonl"), stop };
        let (out, handle) = (args.out.clone(), tokio::runtime::Handle::current());
        // The search asks and waits, so it has a thread of its own.
        tokio::task::spawn_blocking(move || search(trials, &out, &handle)).await.context("the search broke off")?
    })?;
    let left = shrunk.kept.len();
    let (of, runs) = (count(n as u64, "envelope"), count(n_runs, "run"));
    let how = if shrunk.minimal { "none of them can be left out" } else { "stopped early, perhaps fewer would do" };
    say(&format!("{left} of {of} left after {runs} in {}: {how}", args.out.display()));
    if common.json {
        let mut out = Out::new();
        out.json(&json!({
            "out": args.out.display().to_string(), "envelopes": left, "of": n, "runs": n_runs, "minimal": shrunk.minimal,
        }))?;
        out.flush()?;
    }
    Ok(Exit::Done)
}

fn read_lines(path: &Path) -> Result<Vec<Bytes>> {
    let name = path.display().to_string();
    if path.is_dir() {
        let hint = "cut lines out of it first: birdtape --tape DIR fixture cut --out FILE.jsonl …";
        return Err(usage(format!("{name} is a directory; shrink takes a file of lines"), hint));
    }
    let file = File::open(path).with_context(|| format!("cannot open {name}"))?;
    let mut input = Lines::new(&name, file)?;
    let mut lines = Vec::new();
    loop {
        match input.next()? {
            Next::Line(b"") => {}
            Next::Line(line) => lines.push(Bytes::copy_from_slice(line)),
            Next::TooLong => {
                return Err(failed(format!("{name} has a line too long to be an envelope"), "cut it anew from its tape"));
            }
            Next::Cut(cut) => {
                return Err(failed(format!("{name} breaks off in line {}: {}", cut.line, cut.why), "get a whole copy of it"));
            }
            Next::End => break,
        }
    }
    if lines.is_empty() {
        return Err(failed(format!("{name} holds no envelope"), "there is nothing to leave out"));
    }
    Ok(lines)
}

/// A directory of its own for the files under trial, gone in the end.
struct TrialDesk(PathBuf);

impl TrialDesk {
    fn new() -> Result<Self> {
        let name: u64 = rand::rng().random();
        let dir = std::env::temp_dir().join(format!("birdtape-shrink-{name:016x}"));
        std::fs::create_dir(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        Ok(Self(dir))
    }
}

impl Drop for TrialDesk {
    fn drop(&mut self) {
        // A directory left behind in the place for such is no reason to fail.
        std::fs::remove_dir_all(&self.0).ok();
    }
}

/// What is asked again and again.
struct Trials {
    lines: Vec<Bytes>,
    command: Vec<OsString>,
    timeout: Duration,
    file: PathBuf,
    stop: watch::Receiver<bool>,
}

/// How a run ended.
enum Ran {
    Status(ExitStatus),
    TimedOut,
    Stopped,
}

fn search(trials: Trials, out: &Path, handle: &tokio::runtime::Handle) -> Result<(usize, u64, fixture::Shrunk)> {
    let n = trials.lines.len();
    let all: Vec<usize> = (0..n).collect();
    let run = |choice: &[usize]| handle.block_on(trials.run(choice));
    trials.check_whole(&run(&all)?)?;
    trials.check_nothing(&run(&[])?)?;
    say(&format!("the command fails on all {} and not on none: leaving out", count(n as u64, "envelope")));
    let line = out::live_line();
    let mut n_runs = 2;
    let ask = |choice: &[usize]| -> Result<Verdict> {
        n_runs += 1;
        if let Some(line) = &line {
            line.set_message(format!("run {n_runs}: {}", count(choice.len() as u64, "envelope")));
        }
        Ok(match run(choice)? {
            Ran::Status(status) if !status.success() => Verdict::Fails,
            Ran::Status(_) | Ran::TimedOut => Verdict::Passes,
            Ran::Stopped => Verdict::Stop,
        })
    };
    let save = |kept: &[usize]| -> Result<()> {
        trials.save(out, kept)?;
        if line.is_none() {
            say(&format!("{} still fail", count(kept.len() as u64, "envelope")));
        }
        Ok(())
    };
    let shrunk = fixture::shrink(n, ask, save)?;
    if let Some(line) = &line {
        line.finish_and_clear();
    }
    // Where nothing could be left out, nothing was saved yet.
    trials.save(out, &shrunk.kept)?;
    Ok((n, n_runs, shrunk))
}

impl Trials {
    fn save(&self, path: &Path, choice: &[usize]) -> Result<(), FixtureError> {
        fixture::write_lines(path, choice.iter().map(|place| &*self.lines[*place])).map(drop)
    }

    async fn run(&self, choice: &[usize]) -> Result<Ran> {
        if *self.stop.borrow() {
            return Ok(Ran::Stopped);
        }
        self.save(&self.file, choice)?;
        let path = self.file.to_string_lossy();
        let filled = |argument: &OsString| match argument.to_str() {
            Some(text) => OsString::from(text.replace("{}", &path)),
            None => argument.clone(),
        };
        let mut words = self.command.iter().map(filled);
        let program = words.next().unwrap_or_default();
        let mut command = tokio::process::Command::new(&program);
        command.args(words).env(FIXTURE_VARIABLE, &self.file).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // A group of its own: Ctrl-C is for us, and what it started ends with it.
        #[cfg(unix)]
        command.process_group(0);
        let mut child = command.spawn().map_err(|error| {
            let hint = "the command after -- is a program and its arguments; for a shell's line, write sh -c '…'";
            failed(format!("cannot start {}: {error}", program.to_string_lossy()), hint)
        })?;
        let ran = tokio::select! {
            status = child.wait() => return Ok(Ran::Status(status.context("cannot wait for the command")?)),
            () = tokio::time::sleep(self.timeout) => Ran::TimedOut,
            () = signal::stopped(self.stop.clone()) => Ran::Stopped,
        };
        end(&child);
        child.kill().await.ok();
        Ok(ran)
    }

    fn check_whole(&self, ran: &Ran) -> Result<()> {
        let n = count(self.lines.len() as u64, "envelope");
        match ran {
            Ran::Status(status) if !status.success() => Ok(()),
            Ran::Status(_) => {
                let hint =
                    "shrink looks for what makes it fail: it must end with a code other than 0; `! command` in sh -c turns it";
                Err(failed(format!("the command does not fail on the whole file ({n})"), hint))
            }
            Ran::TimedOut => {
                let what = format!("the command takes longer than {:?} on the whole file ({n})", self.timeout);
                Err(failed(what, "give it more with --timeout; a run that is ended counts as no failure"))
            }
            Ran::Stopped => Err(failed("stopped before anything was left out", "start again")),
        }
    }

    fn check_nothing(&self, ran: &Ran) -> Result<()> {
        match ran {
            Ran::Status(status) if !status.success() => {
                let hint = "then no envelope is to blame: is the program there, and does {} stand where it reads the file?";
                Err(failed("the command fails on an empty file too", hint))
            }
            Ran::Stopped => Err(failed("stopped before anything was left out", "start again")),
            Ran::Status(_) | Ran::TimedOut => Ok(()),
        }
    }
}

/// Ends the command with everything it started.
#[cfg(unix)]
fn end(child: &tokio::process::Child) {
    use rustix::process::{Pid, Signal, kill_process_group};
    let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(group) = group {
        // Gone already is as good.
        kill_process_group(group, Signal::KILL).ok();
    }
}

#[cfg(not(unix))]
fn end(_: &tokio::process::Child) {}
