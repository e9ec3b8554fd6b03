//! `birdtape certify`: a statement of completeness.

use super::args::{self, Common, When};
use super::exit::{Exit, Outcome, usage};
use super::out::{Out, length, say};
use crate::archive::Certificate;
use crate::model::SourceName;

/// State what a tape holds of a window, and what it lacks
///
/// Prints one line of JSON: for each scope the stretches of published time that came live, that history was proven to have
/// filled, that are missing and that nobody can verify; the gaps with their states; the digests of the segments. The same tape
/// gives the same bytes, and `digest` is the SHA-256 of the line without it. Exit code 0 when all of the window is covered, else 3.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  birdtape certify --source alpha --from 2026-01-05T12:00:00Z --to 2026-01-05T13:00:00Z
  birdtape certify --source alpha --from -1d --to -1h > certificate.json")]
pub(super) struct Args {
    /// The source
    #[arg(long, value_name = "NAME", value_parser = args::source_name)]
    source: SourceName,
    /// First instant of published time
    #[arg(long, value_name = "TIME", value_parser = args::when, allow_hyphen_values = true)]
    from: When,
    /// First instant behind it
    #[arg(long, value_name = "TIME", value_parser = args::when, allow_hyphen_values = true)]
    to: When,
}

pub(super) fn run(common: &Common, args: &Args) -> Outcome {
    let now = args::now();
    let (from, to) = (args.from.instant(now), args.to.instant(now));
    if from >= to {
        return Err(usage(format!("the window from {from} to {to} is empty"), "--from must lie before --to"));
    }
    let tape = common.open_tape()?;
    let certificate = Certificate::of(&tape, args.source.as_str(), from, to)?;
    let mut out = Out::new();
    out.line(&certificate.to_json())?;
    out.flush()?;
    let shares = certificate.shares();
    for (scope, version, covered, whole) in &shares {
        let has_others = *version > 1 || shares.iter().filter(|(other, ..)| other == scope).count() > 1;
        let version = if has_others { format!(", version {version}") } else { String::new() };
        say(&format!("scope {scope}{version}: {} of {} covered", length(*covered), length(*whole)));
    }
    Ok(if certificate.is_whole() { Exit::Done } else { Exit::KnownLoss })
}
