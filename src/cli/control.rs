//! `birdtape control`: the buttons of a running replay.

use std::path::PathBuf;

use anyhow::Result;
use serde_json::{Value, json};

use super::args::Common;
use super::exit::{Exit, Outcome, failed, usage};
use super::out::{Out, count, say};
use super::signal;
use crate::model::{Provider, Request, Secret};
use crate::net::{self, Limits, SystemNetwork, TlsOptions};
use crate::provider::Base;

/// Pause, seek and steer a running replay
///
/// Speaks to `birdtape replay` on this machine, over the address it printed as "base". Without a button it tells where the
/// replay stands. The same buttons are there for any program: POST BASE/_birdtape/pause and so on.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  birdtape control http://127.0.0.1:8080
  birdtape control http://127.0.0.1:8080 pause
  birdtape control http://127.0.0.1:8080 step 3
  birdtape control http://127.0.0.1:8080 seek 2026-01-05T12:00:30Z
  birdtape control http://127.0.0.1:8080 speed max
  birdtape control http://127.0.0.1:8080 inject tweetstream '{\"v\":1,\"t\":\"tweet\",\"op\":\"delete\",\"ts\":1,\"d\":{\"tweetId\":\"7\"}}'")]
pub(super) struct Args {
    /// Address of the replay, as it printed it
    #[arg(value_name = "BASE", env = "BIRDTAPE_BASE_URL", hide_env_values = true)]
    base: String,
    /// Certificate of the authority that a replay with --tls made, as it printed it
    #[arg(long, value_name = "FILE", env = "BIRDTAPE_CA_FILE", hide_env_values = true)]
    ca_file: Option<PathBuf>,
    #[command(subcommand)]
    button: Option<Button>,
}

#[derive(Debug, clap::Subcommand)]
enum Button {
    /// Hold the clock
    Pause,
    /// Let the clock run
    Resume,
    /// Change the pace
    Speed {
        /// A number above 0, or max
        #[arg(value_name = "N|max")]
        to: String,
    },
    /// Go somewhere else
    Seek {
        /// A moment (2026-01-05T12:00:00Z), a post's id, or end
        #[arg(value_name = "PLACE")]
        to: String,
    },
    /// While paused: play so many envelopes
    Step {
        /// How many
        #[arg(value_name = "N", default_value_t = 1)]
        n: u64,
    },
    /// Give a provider's clients an envelope that is in no tape
    Inject {
        /// Which provider
        provider: Provider,
        /// The envelope, as it goes over the wire
        envelope: String,
    },
    /// End the replay
    Stop,
}

pub(super) fn run(common: &Common, args: &Args) -> Outcome {
    let base = Base::parse(&args.base).map_err(|error| usage(error.to_string(), "take the `base` that the replay printed"))?;
    let (method, path, body) = match &args.button {
        None => ("GET", "/_birdtape", Value::Null),
        Some(Button::Pause) => ("POST", "/_birdtape/pause", Value::Null),
        Some(Button::Resume) => ("POST", "/_birdtape/resume", Value::Null),
        Some(Button::Stop) => ("POST", "/_birdtape/stop", Value::Null),
        Some(Button::Speed { to }) => ("POST", "/_birdtape/speed", json!({ "to": to })),
        Some(Button::Seek { to }) => ("POST", "/_birdtape/seek", json!({ "to": to })),
        Some(Button::Step { n }) => ("POST", "/_birdtape/step", json!({ "n": n })),
        Some(Button::Inject { provider, envelope }) => {
            ("POST", "/_birdtape/inject", json!({ "provider": provider.name(), "text": envelope }))
        }
    };
    let request = Request {
        method,
        endpoint: base.endpoint,
        target: Secret::new(path).ok_or_else(|| failed("no path", ""))?,
        headers: Vec::new(),
        body: if body.is_null() { String::new() } else { body.to_string() },
        shown: args.base.clone(),
    };
    // An empty variable names no file, as in the configuration.
    let ca_file = args.ca_file.clone().filter(|path| !path.as_os_str().is_empty());
    let network = SystemNetwork::new(TlsOptions { ca_file, ..TlsOptions::default() })?;
    let answer = signal::block_on(async |_| Ok(net::request(&network, &request, &Limits::default()).await))?;
    let answer = answer.map_err(|(_, detail)| {
        let hint = match detail.contains("TLS failed") {
            true => "give the file of its authority with --ca-file, as `birdtape replay --tls` printed it",
            false => "is `birdtape replay` running, and is this its address?",
        };
        failed(format!("{} does not answer: {detail}", args.base), hint)
    })?;
    let said: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    if answer.status != 200 {
        let what = said["error"].as_str().unwrap_or("this is no replay of birdtape").to_owned();
        return Err(failed(what, said["hint"].as_str().unwrap_or("take the `base` that the replay printed")));
    }
    tell(common, &said)?;
    Ok(Exit::Done)
}

fn tell(common: &Common, status: &Value) -> Result<()> {
    if common.json {
        let mut out = Out::new();
        out.json(status)?;
        out.flush()?;
        return Ok(());
    }
    let text = |name: &str| status[name].as_str().unwrap_or("-").to_owned();
    let speed = status["speed"].as_f64().map_or_else(|| text("speed"), |times| format!("{times}x"));
    say(&format!("{} at {} ({speed})", text("state"), text("now")));
    for (provider, of) in status["providers"].as_object().into_iter().flatten() {
        let n = |name: &str| of[name].as_u64().unwrap_or_default();
        if n("played") + n("clients") + n("requests") > 0 {
            say(&format!(
                "{provider}: {} played, {}, {}",
                n("played"),
                count(n("clients"), "client"),
                count(n("requests"), "request")
            ));
        }
    }
    Ok(())
}
