//! Ctrl-C and its relatives, and the runtime that listens for them.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result};
use tokio::sync::{mpsc, watch};

use super::out::say;
use crate::model::panic_point;

/// What shells give a program that Ctrl-C ended.
pub(super) const INTERRUPTED: u8 = 130;

/// Runs an asynchronous command to its end. The first signal is passed on by the receiver, the second ends the process at once.
pub(super) fn block_on<T, F: Future<Output = Result<T>>>(command: impl FnOnce(watch::Receiver<bool>) -> F) -> Result<T> {
    block_on_saying("stopping; once more to stop at once", command)
}

/// As [`block_on`], with the words for the first signal.
pub(super) fn block_on_saying<T, F: Future<Output = Result<T>>>(
    words: &'static str,
    command: impl FnOnce(watch::Receiver<bool>) -> F,
) -> Result<T> {
    runtime()?.block_on(async {
        let (stop, stopped) = watch::channel(false);
        tokio::spawn(listen(stop, words));
        command(stopped).await
    })
}

/// Runs an asynchronous command that decides itself what each signal means; none of them ends the process.
pub(super) fn block_on_and_hand_over<T, F: Future<Output = Result<T>>>(
    command: impl FnOnce(mpsc::UnboundedReceiver<Signal>) -> F,
) -> Result<T> {
    runtime()?.block_on(async {
        // Signals come one by one from a person's fingers, so they need no bound.
        let (hand_over, signals) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            // Without handlers the system ends us, as it does every program; the receiver then hears nothing.
            let Ok(mut listener) = Listener::new() else { return hand_over.closed().await };
            while hand_over.send(listener.next().await).is_ok() {}
        });
        command(signals).await
    })
}

/// For work that does not listen: the first signal runs the last act and ends the process, the second ends it at once.
pub(super) fn on_the_way_out(last_act: impl FnOnce() + Send + 'static) -> Result<()> {
    on_the_first(move || {
        last_act();
        std::process::exit(INTERRUPTED.into());
    })
}

/// For work that looks at a flag: the first signal sets it, the second ends the process.
pub(super) fn set_on_the_first(flag: &Arc<AtomicBool>) -> Result<()> {
    let flag = Arc::clone(flag);
    on_the_first(move || flag.store(true, Ordering::Relaxed))
}

/// The first signal is acted on, the second ends the process.
fn on_the_first(act: impl FnOnce() + Send + 'static) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start threads")?;
    let inside = runtime.enter();
    let mut listener = Listener::new().context("cannot listen for signals")?;
    drop(inside);
    std::thread::spawn(move || {
        runtime.block_on(async {
            listener.next().await;
            say("stopping; once more to stop at once");
            drop(tokio::task::spawn_blocking(act));
            listener.next().await;
            std::process::exit(INTERRUPTED.into());
        })
    });
    Ok(())
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start threads")
}

/// Ready once a signal has come, or nobody listens any more: what cannot be told to stop must not go on.
pub(super) async fn stopped(mut stop: watch::Receiver<bool>) {
    drop(stop.wait_for(|stop| *stop).await);
}

async fn listen(stop: watch::Sender<bool>, words: &str) {
    let Ok(mut listener) = Listener::new() else {
        // Without handlers the system ends us, as it does every program. The sender stays, so that nobody stops.
        return std::future::pending().await;
    };
    panic_point("signals");
    listener.next().await;
    say(words);
    stop.send_replace(true);
    listener.next().await;
    std::process::exit(INTERRUPTED.into());
}

/// What a person or the system wants of us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    /// Ctrl-C.
    Interrupt,
    /// The polite way to end a program.
    Terminate,
    /// The terminal has gone.
    HangUp,
}

#[cfg(unix)]
struct Listener {
    interrupted: tokio::signal::unix::Signal,
    terminated: tokio::signal::unix::Signal,
    hung_up: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Listener {
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupted: signal(SignalKind::interrupt())?,
            terminated: signal(SignalKind::terminate())?,
            hung_up: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupted.recv() => Signal::Interrupt,
            _ = self.terminated.recv() => Signal::Terminate,
            _ = self.hung_up.recv() => Signal::HangUp,
        }
    }
}

#[cfg(not(unix))]
struct Listener;

#[cfg(not(unix))]
impl Listener {
    fn new() -> std::io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) -> Signal {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
        Signal::Interrupt
    }
}
