//! `birdtape topics`: what a running recorder subscribes to.

use serde_json::json;

use super::args::{self, Common};
use super::exit::{Exit, Outcome};
use super::out::{Out, count, say};
use super::signal;
use crate::model::SourceName;
use crate::record::control::{self, Request};

/// Change the topics of a running recorder
///
/// Only X's live pipeline has topics, such as /tweet_engagement/1727346512345678901. The change lasts until the recorder ends;
/// topics for good belong into the configuration. Topics of direct messages are only taken at the start.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  birdtape topics add /tweet_engagement/1727346512345678901
  birdtape topics remove /tweet_engagement/1727346512345678901 --source counters")]
pub(super) struct Args {
    #[command(subcommand)]
    command: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Subscribe topics
    #[command(after_help = "Examples:\n  birdtape topics add /tweet_engagement/1727346512345678901")]
    Add(Change),
    /// Unsubscribe topics
    #[command(after_help = "Examples:\n  birdtape topics remove /tweet_engagement/1727346512345678901")]
    Remove(Change),
}

/// Reads a topic: a path such as X's own.
fn topic(text: &str) -> Result<String, String> {
    let good = text.len() > 1 && text.starts_with('/') && !text.contains([',', ' ']) && text.chars().all(|c| !c.is_control());
    if good { Ok(text.to_owned()) } else { Err("a topic is a path such as /tweet_engagement/1727346512345678901".to_owned()) }
}

#[derive(Debug, clap::Args)]
struct Change {
    /// The topics
    #[arg(required = true, value_name = "TOPIC", value_parser = topic)]
    topics: Vec<String>,
    /// Only this source [default: every source that has topics]
    #[arg(long, value_name = "NAME", value_parser = args::source_name)]
    source: Option<SourceName>,
}

pub(super) fn run(common: &Common, args: &Args) -> Outcome {
    let dir = common.tape_dir()?;
    let (change, added) = match &args.command {
        What::Add(change) => (change, true),
        What::Remove(change) => (change, false),
    };
    let topics = || change.topics.clone();
    let (add, remove) = if added { (topics(), Vec::new()) } else { (Vec::new(), topics()) };
    let request = Request { source: change.source.as_ref().map(ToString::to_string), add, remove };
    let response = signal::block_on(async |_| Ok(control::ask(&dir, &request).await?))?;
    let (n, sources) = (count(change.topics.len() as u64, "topic"), response.sources.join(", "));
    say(&format!("{n} given to {sources} to {}", if added { "subscribe" } else { "unsubscribe" }));
    if common.json {
        let mut out = Out::new();
        out.json(&json!({ "sources": response.sources }))?;
        out.flush()?;
    }
    Ok(Exit::Done)
}
