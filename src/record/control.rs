//! Commands to a running recorder, over a socket in its tape's directory: one JSON line in, one out.
//!
//! ```text
//! {"source":null,"add":["/tweet_engagement/1"],"remove":[]}
//! {"ok":true,"sources":["x"]}      or      {"error":"…"}
//! ```

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::archive::{Layout, RealDisk};
use crate::model::SourceName;
use crate::net::{ControlListener, ControlStream, control_call};

/// Longest path that fits into a socket address everywhere.
const PATH_BYTES_MAX: usize = 100;

/// Topics in one command.
const TOPICS_MAX: usize = 1000;

/// For a connection to take a command.
const HAND_OVER: Duration = Duration::from_secs(3);

/// Changes the topics of a running recorder.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Which source; `None` is every one that has topics.
    #[serde(default)]
    pub source: Option<String>,
    /// To subscribe.
    #[serde(default)]
    pub add: Vec<String>,
    /// To unsubscribe.
    #[serde(default)]
    pub remove: Vec<String>,
}

/// What the recorder did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// Sources that took the command; what becomes of each topic is said by the recorder.
    pub sources: Vec<String>,
}

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Nobody records this tape.
    #[error("no recorder is running on tape {}", .tape.display())]
    NotRunning {
        /// The tape.
        tape: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The recorder did not answer.
    #[error("the recorder of tape {} did not answer", .tape.display())]
    NoAnswer {
        /// The tape.
        tape: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The recorder refuses.
    #[error("{why}")]
    Refused {
        /// In its words.
        why: String,
    },
}

impl ControlError {
    /// What the person can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NotRunning { .. } => Some("start `birdtape record` first, or put the topics into the configuration"),
            Self::NoAnswer { .. } | Self::Refused { .. } => None,
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Answer {
    Done { ok: bool, sources: Vec<String> },
    Refused { error: String },
}

/// Asks the recorder of a tape.
///
/// # Errors
/// Nobody records there, no answer came, or the recorder refuses.
pub async fn ask(tape: &Path, request: &Request) -> Result<Response, ControlError> {
    let not_running = |source| ControlError::NotRunning { tape: tape.to_owned(), source };
    let no_answer = |source| ControlError::NoAnswer { tape: tape.to_owned(), source };
    let info = Layout::new(tape).require_info(&RealDisk).map_err(|error| not_running(io::Error::other(error)))?;
    let question = serde_json::to_string(request).expect("three plain fields");
    let answer = control_call(&socket_path(tape, &info.tape), tape, &question).await.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => not_running(error),
        _ => no_answer(error),
    })?;
    match serde_json::from_str(&answer) {
        Ok(Answer::Done { sources, .. }) => Ok(Response { sources }),
        Ok(Answer::Refused { error }) => Err(ControlError::Refused { why: error }),
        Err(error) => Err(no_answer(io::Error::new(io::ErrorKind::InvalidData, error))),
    }
}

/// In the tape's directory; where that name is too long for a socket, in the directory for temporary files.
fn socket_path(tape: &Path, id: &str) -> PathBuf {
    let path = tape.join("control.sock");
    if path.as_os_str().len() <= PATH_BYTES_MAX {
        return path;
    }
    let id = id.get(..16).unwrap_or(id);
    std::env::temp_dir().join(format!("birdtape-{id}.sock"))
}

/// A command for one connection.
#[derive(Clone, Debug)]
pub(super) struct Topics {
    pub(super) add: Vec<String>,
    pub(super) remove: Vec<String>,
}

/// The recorder's side.
#[derive(Debug)]
pub(super) struct Door {
    listener: ControlListener,
    /// Every connection that has topics.
    inboxes: Vec<(SourceName, mpsc::Sender<Topics>)>,
}

impl Door {
    /// Listens; what was left there by another recorder is replaced, because we hold the tape's lock.
    pub(super) fn open(tape: &Path, id: &str, inboxes: Vec<(SourceName, mpsc::Sender<Topics>)>) -> Result<Self, String> {
        let path = socket_path(tape, id);
        let listener = ControlListener::bind(&path).map_err(|error| {
            format!("cannot listen for commands at {} ({error}); recording goes on without them", path.display())
        })?;
        Ok(Self { listener, inboxes })
    }

    pub(super) async fn serve(self) {
        crate::model::panic_point("control");
        loop {
            // One after the other: commands are rare, and each is bounded in time.
            match self.listener.accept().await {
                Ok(stream) => self.converse(stream).await,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a command");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }

    async fn converse(&self, mut stream: ControlStream) {
        let answer = match stream.read_line().await {
            Ok(line) => self.obey(&line).await,
            Err(error) => Err(format!("cannot read the command: {error}")),
        };
        let answer = match answer {
            Ok(sources) => Answer::Done { ok: true, sources },
            Err(error) => Answer::Refused { error },
        };
        let line = serde_json::to_string(&answer).expect("strings only");
        if let Err(error) = stream.write_line(&line).await {
            tracing::debug!(%error, "whoever asked has gone");
        }
    }

    async fn obey(&self, line: &str) -> Result<Vec<String>, String> {
        let request: Request = serde_json::from_str(line).map_err(|error| format!("this is no command: {error}"))?;
        let Request { source, add, remove } = request;
        if add.len() + remove.len() > TOPICS_MAX {
            return Err(format!("{} topics in one command; the limit is {TOPICS_MAX}", add.len() + remove.len()));
        }
        let wanted = |name: &SourceName| source.as_deref().is_none_or(|wanted| wanted == name.as_str());
        let inboxes: Vec<_> = self.inboxes.iter().filter(|(name, _)| wanted(name)).collect();
        if inboxes.is_empty() {
            return Err(match source {
                Some(source) => format!("`{source}` is no running source of provider x_live; only those have topics"),
                None => "no source of provider x_live is being recorded; only those have topics".to_owned(),
            });
        }
        let mut sources: Vec<String> = Vec::new();
        for (name, inbox) in inboxes {
            let topics = Topics { add: add.clone(), remove: remove.clone() };
            let handed = timeout(HAND_OVER, inbox.send(topics)).await;
            match handed {
                Ok(Ok(())) if sources.iter().all(|taken| taken != name.as_str()) => sources.push(name.to_string()),
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(format!("{name} has given up")),
                Err(_) => return Err(format!("{name} is too busy to take a command; try again")),
            }
        }
        Ok(sources)
    }
}
