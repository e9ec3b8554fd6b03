//! What can go wrong before bytes flow. Nothing here ever holds a key.

use std::path::PathBuf;

use crate::model::{NetFault, Response};

/// A fault and a sentence about it: names `host:port` and, where there is one, the cure; never a secret.
pub type Failure = (NetFault, String);

/// Why a live connection was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The server answered with something other than the opening that was asked for.
    #[error("refused with status {}", .0.status)]
    Refused(Response),
    /// No usable answer came.
    #[error("{detail}")]
    Unreachable {
        /// What failed.
        fault: NetFault,
        /// In words, without secrets.
        detail: String,
    },
}

impl From<Failure> for OpenError {
    fn from((fault, detail): Failure) -> Self {
        Self::Unreachable { fault, detail }
    }
}

/// Why the network could not be set up at all; only the operator can cure it.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The file with extra certificate authorities cannot be read as PEM.
    #[error("cannot read certificates from {}: {reason}", path.display())]
    CaFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The file with extra certificate authorities holds none.
    #[error("{} holds no certificate", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// The crypto provider refused its own defaults.
    #[error("TLS cannot be set up: {reason}")]
    Tls {
        /// In its words.
        reason: String,
    },
}

/// The peer is gone: nothing more can be sent to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the peer is gone")]
pub struct Gone;
