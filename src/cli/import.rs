//! `birdtape import`: lines of raw envelopes to a sealed tape.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use anyhow::{Context as _, Result};

use super::args::{self, Common};
use super::exit::{Exit, Outcome, usage};
use super::out::{self, Out, count, say};
use crate::archive::{self, Archive};
use crate::import::{self, Lines, Report};
use crate::model::{Provider, SourceName, UnixMicros};
use crate::net::SystemClock;
use crate::provider;
use crate::segment::RealDisk;

/// Turn lines of raw envelopes into a sealed tape
///
/// The file holds one envelope a line, plain or packed with gzip or zstd (told by its bytes, not its name). Each line is kept
/// byte for byte, without its line end (LF or CRLF); empty lines are passed over and counted. received_at is the provider's
/// stamp where there is one, else that of the line before; lines before the first stamp are dated like it, and a file without
/// any by its own time.
///
/// With `--provider auto` each line is recognised by its shape and goes to a source named after its provider. A line of no
/// known shape is kept in the source of the line before it, counted, and makes the exit code 3. So does a packed file that
/// breaks off: what could be read is imported. Importing a file again appends it again.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  birdtape import --provider tweetstream day.jsonl.zst
  birdtape --tape old import --provider auto mixed.jsonl.gz
  curl … | birdtape import --provider scrapebadger --source badger -")]
pub(super) struct Args {
    /// Whose envelopes these are: twitterapi_io, tweetstream, scrapebadger, x_live, or auto
    #[arg(long, value_name = "PROVIDER", value_parser = provider)]
    provider: Which,
    /// The source they go to [default: the provider's name]
    #[arg(long, value_name = "NAME", value_parser = args::source_name)]
    source: Option<SourceName>,
    /// The file; - is stdin
    file: PathBuf,
}

#[derive(Clone, Copy, Debug)]
enum Which {
    One(Provider),
    Auto,
}

fn provider(text: &str) -> Result<Which, String> {
    if text == "auto" {
        return Ok(Which::Auto);
    }
    text.parse().map(Which::One).map_err(|error: crate::model::UnknownProvider| format!("{error}, auto"))
}

pub(super) fn run(common: &Common, args: &Args) -> Outcome {
    let provider = match args.provider {
        Which::One(provider) => Some(provider),
        Which::Auto if args.source.is_some() => {
            let hint = "with auto, sources are named after their providers; leave --source out, or name one provider";
            return Err(usage("--source does not go with --provider auto", hint));
        }
        Which::Auto => None,
    };
    let (name, input, bytes, changed_at) = open(args)?;
    let options = import::Options { provider, source: args.source.clone(), first_at: changed_at.unwrap_or_else(args::now) };
    let dir = common.tape_dir()?;
    let bar = out::progress(bytes, "importing");
    let lines = Lines::new(&name, input)?;
    let open = || {
        let (disk, at) = (Arc::new(RealDisk), args::now());
        Archive::open(&dir, disk, archive::Options::default(), provider::decode_record, &args::holder("import"), at)
    };
    let report = import::run(lines, &options, &SystemClock::new(), open, |lines| bar.set_position(lines.consumed()))?;
    bar.finish_and_clear();
    tell(&name, &report);
    if common.json {
        print_json(&report)?;
    }
    Ok(if report.has_loss() { Exit::KnownLoss } else { Exit::Done })
}

type Input = (String, Box<dyn Read>, Option<u64>, Option<UnixMicros>);

/// The input with its name, and for a file its length and the time of its last change.
fn open(args: &Args) -> Result<Input> {
    if args.file.as_os_str() == "-" {
        return Ok(("stdin".to_owned(), Box::new(io::stdin().lock()), None, None));
    }
    let name = args.file.display().to_string();
    let file = File::open(&args.file).with_context(|| format!("cannot open {name}"))?;
    let meta = file.metadata().with_context(|| format!("cannot look at {name}"))?;
    if meta.is_dir() {
        return Err(usage(format!("{name} is a directory"), "name a file of lines"));
    }
    let changed = meta.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    let changed = changed.map(|since| UnixMicros(0).plus(since));
    Ok((name, Box::new(file), Some(meta.len()), changed))
}

fn tell(name: &str, report: &Report) {
    for (source, provider, n) in &report.sources {
        say(&format!("{source} ({provider}): {}", count(*n, "envelope")));
    }
    let empty = if report.n_empty > 0 { format!(", {}", count(report.n_empty, "empty line")) } else { String::new() };
    let size = out::size(report.body_bytes);
    say(&format!("imported {} ({size}) from {name}{empty}", count(report.n_lines(), "envelope")));
    if let Some(first) = report.unrecognised.first() {
        let all = report.unrecognised.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
        let more = if report.n_unrecognised > report.unrecognised.len() as u64 { ", …" } else { "" };
        say(&format!(
            "warning: {} not recognised (first at line {first}; lines {all}{more}): kept in the source of the line before",
            if report.n_unrecognised == 1 { "1 line was".to_owned() } else { format!("{} lines were", report.n_unrecognised) },
        ));
    }
    if report.n_foreign > 0 {
        let n = count(report.n_foreign, "line");
        say(&format!("warning: {n} at the beginning have the shape of another provider; is --provider right?"));
    }
    if let Some(first) = report.too_long.first() {
        let n = count(report.too_long.len() as u64, "line");
        say(&format!("warning: {n} longer than {} left out (first at line {first})", out::size(import::MAX_LINE as u64)));
    }
    if let Some(cut) = &report.cut {
        let (line, offset, why) = (cut.line, cut.offset, &cut.why);
        say(&format!(
            "warning: {name} breaks off in line {line}, {offset} unpacked bytes from its start ({why}): all before is imported"
        ));
    }
}

fn print_json(report: &Report) -> Result<()> {
    let mut out = Out::new();
    let sources = report.sources.iter().map(
        |(source, provider, n)| serde_json::json!({ "source": source.as_str(), "provider": provider.name(), "envelopes": n }),
    );
    let sources: Vec<_> = sources.collect();
    let cut = report.cut.as_ref().map(|cut| serde_json::json!({ "line": cut.line, "offset": cut.offset, "why": cut.why }));
    out.json(&serde_json::json!({
        "sources": sources,
        "envelopes": report.n_lines(),
        "bytes": report.body_bytes,
        "empty_lines": report.n_empty,
        "unrecognised": report.n_unrecognised,
        "foreign": report.n_foreign,
        "unrecognised_lines": report.unrecognised,
        "too_long_lines": report.too_long,
        "cut": cut,
    }))?;
    out.flush()
}
