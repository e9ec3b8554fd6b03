//! How the program ends: the exit code, and what stderr says when something failed.

use std::fmt::Write as _;

use super::{out, signal};
use crate::archive::ArchiveError;
use crate::backfill::BackfillError;
use crate::backfill::peer::PeerError;
use crate::config::ConfigError;
use crate::export::ExportError;
use crate::fixture::FixtureError;
use crate::import::ImportError;
use crate::record::{RecordError, control::ControlError};
use crate::replay::ReplayError;
use crate::testing::TestingError;

/// The exit code; scripts depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Everything was done.
    Done,
    /// It could not be done.
    Failed,
    /// The command, the configuration or the environment cannot work as they are.
    Usage,
    /// Done, with loss that is known: a gap left open, damage found, lines not recognised.
    KnownLoss,
    /// A signal ended it.
    Interrupted,
    /// What another program gave that was run on request, by the customs of shells.
    OfCommand(u8),
}

impl Exit {
    /// The number that the system is given.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::KnownLoss => 3,
            Self::Interrupted => signal::INTERRUPTED,
            Self::OfCommand(code) => code,
        }
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// What a command gives back.
pub(super) type Outcome = anyhow::Result<Exit>;

/// A failure with advice, for causes that carry none of their own.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub(super) struct Advised {
    what: String,
    hint: String,
    exit: Exit,
}

/// A failure with a line of advice.
pub(super) fn failed(what: impl Into<String>, hint: impl Into<String>) -> anyhow::Error {
    Advised { what: what.into(), hint: hint.into(), exit: Exit::Failed }.into()
}

/// Wrong usage that the parser of arguments cannot see, with a line of advice.
pub(super) fn usage(what: impl Into<String>, hint: impl Into<String>) -> anyhow::Error {
    Advised { what: what.into(), hint: hint.into(), exit: Exit::Usage }.into()
}

/// A failure that has an exit code of its own, with a line of advice.
pub(super) fn failed_as(exit: Exit, what: impl Into<String>, hint: impl Into<String>) -> anyhow::Error {
    Advised { what: what.into(), hint: hint.into(), exit }.into()
}

/// Says what failed, why, and what can be done, and gives the exit code for it.
pub(super) fn report(error: &anyhow::Error) -> Exit {
    if error.is::<out::Closed>() {
        // The reader of our output has seen enough, as `head` does.
        return Exit::Done;
    }
    let mut text = format!("error: {error}");
    let mut last = error.to_string();
    for cause in error.chain().skip(1) {
        let words = cause.to_string();
        // A transparent error repeats the words of what it wraps.
        if words != last {
            write!(text, "\n  caused by: {words}").ok();
        }
        last = words;
    }
    text.lines().for_each(out::say);
    let hint = hint(error);
    if !hint.is_empty() {
        out::say(&format!("hint: {hint}"));
    }
    exit(error)
}

fn exit(error: &anyhow::Error) -> Exit {
    let code = |cause: &(dyn std::error::Error + 'static)| {
        if is_usage(cause) {
            return Some(Exit::Usage);
        }
        if matches!(cause.downcast_ref(), Some(ExportError::Stopped)) {
            return Some(Exit::Interrupted);
        }
        cause.downcast_ref::<Advised>().map(|advised| advised.exit)
    };
    error.chain().find_map(code).unwrap_or(Exit::Failed)
}

/// Whether something was asked for that cannot be, as a source that is not there: a transparent error shows no cause.
fn is_usage(cause: &(dyn std::error::Error + 'static)) -> bool {
    if let Some(error) = cause.downcast_ref::<BackfillError>() {
        return error.is_usage();
    }
    if let Some(error) = cause.downcast_ref::<PeerError>() {
        return error.is_usage();
    }
    let of_tape = match (cause.downcast_ref::<FixtureError>(), cause.downcast_ref::<ReplayError>()) {
        (Some(FixtureError::Archive(error)), _) | (_, Some(ReplayError::Archive(error))) => Some(error),
        _ => cause.downcast_ref::<ArchiveError>(),
    };
    cause.is::<ConfigError>() || of_tape.is_some_and(ArchiveError::is_usage)
}

fn hint(error: &anyhow::Error) -> String {
    let advice = |cause: &(dyn std::error::Error + 'static)| {
        if let Some(error) = cause.downcast_ref::<ArchiveError>() {
            return error.hint().map(str::to_owned);
        }
        if let Some(error) = cause.downcast_ref::<BackfillError>() {
            return error.hint().map(str::to_owned);
        }
        if let Some(error) = cause.downcast_ref::<ExportError>() {
            return error.hint().map(str::to_owned);
        }
        if let Some(error) = cause.downcast_ref::<PeerError>() {
            return error.hint().map(str::to_owned);
        }
        if let Some(error) = cause.downcast_ref::<TestingError>() {
            return error.hint().map(str::to_owned);
        }
        if let Some(error) = cause.downcast_ref::<FixtureError>() {
            return error.hint().map(str::to_owned);
        }
        if let Some(error) = cause.downcast_ref::<ImportError>() {
            return error.hint().map(str::to_owned);
        }
        if let Some(error) = cause.downcast_ref::<ReplayError>() {
            return error.hint().map(str::to_owned);
        }
        if let Some(error) = cause.downcast_ref::<RecordError>() {
            return error.hint().map(str::to_owned);
        }
        if let Some(error) = cause.downcast_ref::<ControlError>() {
            return error.hint().map(str::to_owned);
        }
        if let Some(error) = cause.downcast_ref::<ConfigError>() {
            return error.hint();
        }
        cause.downcast_ref::<Advised>().map(|advised| advised.hint.clone())
    };
    error.chain().find_map(advice).unwrap_or_default()
}
