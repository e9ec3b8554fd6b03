//! The program that `birdtape replay FIXTURE -- COMMAND` runs against the fake providers.
//!
//! Owns its environment, its signals and what its end means for our exit code.

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::path::Path;
use std::process::ExitStatus;

use anyhow::{Context as _, Result};
use tokio::process::{Child, Command};
use tokio::sync::mpsc::UnboundedReceiver;

use super::exit::{Exit, failed_as};
use super::signal::Signal;
use crate::model::{Provider, Secret};
use crate::replay::Urls;

/// What shells give for a program that cannot be started.
const NOT_STARTED: u8 = 127;

/// What shells add to the number of the signal that ended a program.
const BY_SIGNAL: u8 = 128;

/// The key that the command is given where neither it nor we were told one.
const ANY_KEY: &str = "replay";

/// Variables for keys. A key that is set already is left alone: it may be the one under test.
const KEYS: [&str; 5] = ["TWITTERAPI_IO_API_KEY", "TWEETSTREAM_API_KEY", "SCRAPEBADGER_API_KEY", "X_AUTH_TOKEN", "X_CT0"];

/// Variables by which OpenSSL, curl, Python's requests, Node, and we ourselves learn of an authority. curl has one of its
/// own because it goes before OpenSSL's, where a system sets it.
const CA_FILES: [&str; 5] = ["SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "BIRDTAPE_CA_FILE"];

/// Variables for the command: where the fake providers are, and what opens them.
pub(super) fn environment(
    urls: &Urls,
    key: Option<&Secret>,
    ca_file: Option<&Path>,
    is_set: impl Fn(&str) -> bool,
) -> Vec<(&'static str, OsString)> {
    let ws = |provider| OsString::from(urls.ws(provider));
    let rest = |provider| OsString::from(urls.rest(provider));
    let mut variables = vec![
        ("BIRDTAPE_BASE_URL", urls.base().into()),
        ("TWITTERAPI_IO_WS_URL", ws(Provider::TwitterapiIo)),
        ("TWITTERAPI_IO_BASE_URL", rest(Provider::TwitterapiIo)),
        ("TWEETSTREAM_WS_URL", ws(Provider::Tweetstream)),
        ("TWEETSTREAM_BASE_URL", rest(Provider::Tweetstream)),
        ("SCRAPEBADGER_WS_URL", ws(Provider::Scrapebadger)),
        ("SCRAPEBADGER_BASE_URL", rest(Provider::Scrapebadger)),
        ("X_LIVE_URL", ws(Provider::XLive)),
        ("X_BASE_URL", rest(Provider::XLive)),
    ];
    let key = key.map_or(ANY_KEY, Secret::expose);
    variables.extend(KEYS.into_iter().filter(|name| !is_set(name)).map(|name| (name, key.into())));
    variables.extend(ca_file.into_iter().flat_map(|path| CA_FILES.map(|name| (name, path.into()))));
    variables
}

/// Starts it with our stdin, stdout and stderr.
pub(super) fn start(command: &[OsString], variables: Vec<(&'static str, OsString)>) -> Result<Child> {
    let [program, arguments @ ..] = command else { anyhow::bail!("no command was given") };
    let started = Command::new(program).args(arguments).envs(variables).spawn();
    started.map_err(|error| {
        let what = format!("cannot start `{}`: {error}", program.to_string_lossy());
        let hint = "everything after -- is a program and its arguments; for pipes and variables let a shell do it: -- sh -c '…'";
        failed_as(Exit::OfCommand(NOT_STARTED), what, hint)
    })
}

/// Waits for its end, and hands on to it the signals that come to us.
pub(super) async fn wait(child: &mut Child, mut signals: UnboundedReceiver<Signal>) -> Result<u8> {
    loop {
        tokio::select! {
            ended = child.wait() => return ended.map(code).context("cannot wait for the command"),
            Some(signal) = signals.recv() => hand_on(child, signal),
        }
    }
}

/// A terminal gives Ctrl-C to all its programs, so the command has it already; twice may cut its clearing up short.
fn hand_on(child: &Child, signal: Signal) {
    let is_at_a_terminal = io::stdin().is_terminal() || io::stdout().is_terminal() || io::stderr().is_terminal();
    if signal != Signal::Interrupt || !is_at_a_terminal {
        send(child, signal);
    }
}

#[cfg(unix)]
fn send(child: &Child, signal: Signal) {
    use rustix::process::{Pid, Signal as Number, kill_process};
    let number = match signal {
        Signal::Interrupt => Number::INT,
        Signal::Terminate => Number::TERM,
        Signal::HangUp => Number::HUP,
    };
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(Err(error)) = pid.map(|pid| kill_process(pid, number)) {
        tracing::debug!(%error, "the command was not told");
    }
}

#[cfg(not(unix))]
fn send(_child: &Child, _signal: Signal) {}

fn code(status: ExitStatus) -> u8 {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return BY_SIGNAL.saturating_add(u8::try_from(signal).unwrap_or(u8::MAX));
    }
    // Elsewhere than on unix a code may be larger than any we can give; it is no success in any case.
    status.code().map_or(1, |code| u8::try_from(code).unwrap_or(u8::MAX))
}

/// How we end: as the command did, unless it knows nothing of what went wrong on our side.
pub(super) fn verdict(command: Option<u8>, n_unfired_faults: usize, has_damage: bool) -> Exit {
    match command {
        Some(code @ 1..) => Exit::OfCommand(code),
        Some(0) | None if n_unfired_faults > 0 => Exit::Failed,
        Some(0) | None if has_damage => Exit::KnownLoss,
        Some(0) | None => Exit::Done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_own_failure_comes_first() {
        let codes = [(Some(0), 0, false), (None, 0, true), (Some(0), 1, true), (Some(7), 1, true), (Some(143), 0, false)]
            .map(|(command, n_unfired, damage)| verdict(command, n_unfired, damage).code());
        assert_eq!(codes, [0, 3, 1, 7, 143]);
    }
}
