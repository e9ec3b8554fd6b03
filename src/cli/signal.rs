//! Ctrl-C and its relatives, and the runtime that listens for them.

use std::future::Future;

use anyhow::{Context as _, Result};
use tokio::sync::watch;

use super::out::say;

/// What shells give a program that Ctrl-C ended.
const INTERRUPTED: i32 = 130;

/// Runs an asynchronous command to its end. The first signal is passed on by the receiver, the second ends the process at once.
pub(super) fn block_on<T, F: Future<Output = Result<T>>>(command: impl FnOnce(watch::Receiver<bool>) -> F) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start threads")?;
    runtime.block_on(async {
        let (stop, stopped) = watch::channel(false);
        tokio::spawn(listen(stop));
        command(stopped).await
    })
}

/// Ready once a signal has come.
pub(super) async fn stopped(mut stop: watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        // Nobody listens any more, so no signal can come.
        std::future::pending().await
    }
}

async fn listen(stop: watch::Sender<bool>) {
    if signal().await.is_err() {
        // Without handlers the system ends us, as it does every program. The sender stays, so that nobody stops.
        std::future::pending().await
    }
    say("stopping; once more to stop at once (what was not yet committed is then a gap)");
    stop.send_replace(true);
    if signal().await.is_ok() {
        std::process::exit(INTERRUPTED);
    }
}

#[cfg(unix)]
async fn signal() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminated = signal(SignalKind::terminate())?;
    let mut hung_up = signal(SignalKind::hangup())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted,
        _ = terminated.recv() => Ok(()),
        _ = hung_up.recv() => Ok(()),
    }
}

#[cfg(not(unix))]
async fn signal() -> std::io::Result<()> {
    tokio::signal::ctrl_c().await
}
