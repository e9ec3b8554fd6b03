//! `birdtape get`: everything that was recorded about one post.

use super::args::{self, Common};
use super::exit::{Exit, Outcome, failed};
use super::out::Out;
use super::{cat, summary};
use crate::model::{EventId, Provider, TweetId};
use crate::provider;

/// Print every record about one post
///
/// Looks into all sources, by the id that stands in the post's address. The post itself, its meta, updates, deletes and counters
/// are found, in the order they were recorded, and the pages of history that have it: of those the row about the post is shown,
/// with --json and --raw the whole page. Without such a record the exit code is 1.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  birdtape get 1727346512345678901
  birdtape get 1727346512345678901 --raw | jq .")]
pub(super) struct Args {
    /// The post's id
    #[arg(value_name = "TWEET_ID", value_parser = args::tweet_id)]
    id: TweetId,
    /// Print only the bytes of the envelopes and pages
    #[arg(long, conflicts_with = "json")]
    raw: bool,
}

pub(super) fn run(common: &Common, args: &Args) -> Outcome {
    let tape = common.open_tape()?;
    let id = EventId::Tweet(args.id);
    let found = tape.with_id(args.id.0, |source, record| {
        let provider: Option<Provider> = source.provider.parse().ok();
        let about =
            |provider| provider::decode_record(provider, record.via, &record.body).events.iter().any(|event| event.id == id);
        record.speaks() && provider.is_some_and(about)
    })?;
    if found.is_empty() {
        let what = format!("no record of tape {} is about post {}", tape.layout().dir().display(), args.id);
        return Err(failed(what, "check the id; `birdtape status` says what the tape holds"));
    }
    let mut out = Out::new();
    for (source, record) in &found {
        if args.raw {
            out.exact(&[&record.body])?;
        } else if common.json {
            cat::whole(&mut out, &cat::head(&source.name), record)?;
        } else {
            out.line(&summary::line_about(&source.name, &source.provider, record, args.id))?;
        }
    }
    out.flush()?;
    Ok(Exit::Done)
}
