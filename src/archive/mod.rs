//! Segments and catalog as one durable thing: append, commit, seal, rotate, recover, read.
//!
//! Owns the durable order: an envelope is written and synced in its segment, then its transaction is committed in
//! the catalog, and only then does anybody hear of it. Owns the gap ledger and coverage, which are computed from
//! records. Knows no provider's JSON (a [`Decode`] function is handed in), no socket and no clock (times are).
//!
//! ```text
//! tape/
//!   tape.json          format version, tape id
//!   lock               held by the one writer; says who
//!   reserve            1 MiB that is given up when the disk is full, so that the farewell can be written
//!   farewell.json      left by a writer that the disk stopped; read and removed by the next one
//!   scrub.json         how far the last look at all sealed segments has come
//!   catalog.sqlite     index, rebuildable
//!   segments/<source>/<UTC day>/<first n>.jsonl.zst[.open]
//!   segments/<source>/pruned.jsonl.zst    what is kept of segments that were removed on purpose
//! ```
//!
//! | file | holds |
//! | --- | --- |
//! | `layout.rs` | names of files, `tape.json`, the writer's lock |
//! | `fact.rs` | bodies of notes, opens and closes |
//! | `index.rs` | what records add up to: the one computation behind the catalog |
//! | `frontier.rs` | a scope's timeline, which only evidence moves |
//! | `coverage.rs` | [`ScopeCoverage`]: classes of instants, by scope, version and kind |
//! | `certificate.rs` | [`Certificate`], a statement of completeness |
//! | `pen.rs` | [`Pen`], through which a filler of gaps reaches whoever writes |
//! | `writer.rs` | [`Archive`], the one writer, and the gap ledger |
//! | `rescue.rs` | what happens to records whose file the disk refused |
//! | `recover.rs` | what opening does: leftovers, torn tails, catching up, rebuilding |
//! | `reader.rs` | [`Tape`], any number of readers, beside a writer |
//! | `verify.rs` | [`verify`], every byte and every row |
//! | `scrub.rs` | a look at one sealed segment, and what to write down of it |
//! | `compact.rs` | a sealed segment packed anew |
//! | `prune.rs` | the oldest segments removed on purpose |
//! | `remains.rs` | what is kept of those |
//! | `restore.rs` | a damaged segment brought back from a copy of the tape |
//!
//! One [`Archive`] a tape, moved between threads at will but used by one; any number of [`Tape`]s.

mod certificate;
mod compact;
mod coverage;
mod fact;
mod frontier;
mod index;
mod layout;
mod pen;
mod prune;
mod reader;
mod recover;
mod remains;
mod rescue;
mod restore;
mod scrub;
#[cfg(test)]
mod tests;
mod verify;
mod writer;

use std::path::PathBuf;
use std::time::Duration;

pub use certificate::Certificate;
pub use compact::Compacted;
pub use coverage::{Classes, ScopeCoverage};
pub use fact::{Closed, Fact, KindResult, Opened, Spent, Stretch};
pub use index::ALL;
pub use layout::{Layout, TapeInfo};
pub use pen::{Leaf, Pen, PenError, Writing};
pub use prune::Pruned;
pub use reader::{Merged, Piece, Pieces, Record, Records, Span, Tape};
pub use recover::{Hole, Recovery, SealedTail, rebuild};
pub use restore::{Refused, Restored, damaged_files};
pub use scrub::{Looked, ScrubPlace};
pub use verify::{CatalogCheck, Damage, PrunedReport, Report, SourceReport, verify};
pub use writer::{Archive, Committed, Filling, Lost, Selected};

use crate::catalog::CatalogError;
use crate::model::{Decoded, Provider, Via};
// Jobs name these without knowing the rooms below: the disk is handed in, gaps are handed out.
pub use crate::catalog::{GapKindRow, GapRow, GapStepRow, ScopeRow, SegmentRow, SourceRow};
pub use crate::segment::{
    Disk, DiskFile, DiskRead, LockRefused, MAX_BODY_BYTES, MemDisk, Packing, RealDisk, SegmentError, Unsynced,
};

/// Reads an envelope of a provider; handed in, because this room knows no provider's JSON.
pub type Decode = fn(Provider, Via, &[u8]) -> Decoded;

/// How a tape is written.
#[derive(Clone, Debug)]
pub struct Options {
    /// Longest wait between an envelope and its commit; zero commits every envelope.
    pub commit_every: Duration,
    /// Uncompressed bytes in a block; at most [`Packing::BLOCK_BYTES_MAX`].
    pub block_bytes: u64,
    /// Uncompressed bytes after which a segment is sealed.
    pub segment_bytes: u64,
    /// zstd level, of open and of sealed segments.
    pub level: i32,
    /// Whether sealing runs beside recording, on a thread of its own.
    pub seal_in_background: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            commit_every: Duration::from_millis(100),
            block_bytes: 4 << 20,
            segment_bytes: 256 << 20,
            level: 3,
            seal_in_background: true,
        }
    }
}

/// What can go wrong with a tape.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The directory is no tape.
    #[error("{} is not a tape: {why}", .path.display())]
    NotATape {
        /// The directory.
        path: PathBuf,
        /// What was looked for and not found.
        why: String,
    },
    /// Made by a newer birdtape.
    #[error("tape {} has format {found}; this birdtape reads up to {known}", .path.display())]
    NewerFormat {
        /// The directory.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// Somebody else writes to it.
    #[error("tape {} is being written by another process ({holder})", .path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
        /// What the holder wrote into the lock.
        holder: String,
    },
    /// A source of that name belongs to another provider.
    #[error("source {name} of this tape records {found}, not {wanted}")]
    OtherProvider {
        /// The source.
        name: String,
        /// On the tape.
        found: String,
        /// Asked for.
        wanted: String,
    },
    /// No source of that name.
    #[error("the tape has no source `{name}`; it has {}", if .known.is_empty() { "none" } else { .known })]
    UnknownSource {
        /// Asked for.
        name: String,
        /// There, comma separated.
        known: String,
    },
    /// The writer refused after an earlier failure.
    #[error("the tape takes no more records after a failed write")]
    Poisoned,
    /// A thread of ours ended as it must not.
    #[error("{part} failed; this is a bug, its words are above")]
    Panicked {
        /// Which.
        part: &'static str,
    },
    /// The operating system refused.
    #[error("{what} {}", .path.display())]
    Io {
        /// The operation, as "cannot read".
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A segment.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// The catalog.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The catalog is missing or broken, and only a reader looked at it.
    #[error("the catalog of tape {} cannot be read", .path.display())]
    NoCatalog {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: CatalogError,
    },
}

impl ArchiveError {
    /// The system's answer, if that is what failed.
    pub fn io_kind(&self) -> Option<std::io::ErrorKind> {
        match self {
            Self::Io { source, .. } => Some(source.kind()),
            Self::Segment(error) => error.io_kind(),
            _ => None,
        }
    }

    /// Whether there was no room: what takes space away now may give it back.
    pub fn is_full(&self) -> bool {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        match self {
            Self::Catalog(error) | Self::NoCatalog { source: error, .. } => error.is_full(),
            _ => matches!(self.io_kind(), Some(StorageFull | QuotaExceeded)),
        }
    }

    /// Whether another file may fare better: the system refused this one, and not for want of room or rights.
    fn is_of_one_file(&self) -> bool {
        use std::io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
        match self {
            Self::Catalog(error) => error.is_broken() || error.is_io(),
            _ if self.is_full() || self.is_out_of_files() => false,
            _ => self.io_kind().is_some_and(|kind| !matches!(kind, PermissionDenied | ReadOnlyFilesystem)),
        }
    }

    /// Whether no file could be opened because too many are open, here or in the whole system: that passes.
    pub fn is_out_of_files(&self) -> bool {
        match self {
            Self::Io { source, .. } | Self::Segment(SegmentError::Io { source, .. }) => too_many_files(source),
            _ => false,
        }
    }

    /// Whether it is over sooner or later without anybody doing something about the tape in that directory: there is no
    /// room, or too many files are open.
    pub fn is_passing(&self, disk: &dyn Disk, dir: &std::path::Path) -> bool {
        // SQLite says only that it cannot open a file.
        let is_unopened = || matches!(self, Self::Catalog(_)) && disk.list(dir).is_err_and(|error| too_many_files(&error));
        self.is_full() || self.is_out_of_files() || is_unopened()
    }

    /// Whether something was asked for that is not there.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::UnknownSource { .. })
    }

    /// What the person can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        use std::io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
        match self {
            Self::NotATape { .. } => {
                Some("name the tape's directory with --tape; `birdtape record` or `birdtape import` makes a new one")
            }
            Self::NewerFormat { .. } | Self::Segment(SegmentError::NewerFormat { .. }) => Some("use a newer birdtape"),
            Self::Catalog(CatalogError::Newer { .. }) => Some("use a newer birdtape"),
            Self::Locked { .. } => Some("wait until it is done or stop it, or name another tape with --tape"),
            Self::OtherProvider { .. } => Some("name the source differently, or record into another tape"),
            Self::NoCatalog { .. } => Some("`birdtape rebuild` makes it again from the segments; nothing is lost"),
            Self::Segment(SegmentError::Damaged { .. }) => {
                Some("`birdtape verify` says how far the damage goes; `birdtape recover` saves the rest")
            }
            _ if self.is_full() => Some("free some space and start again; everything committed so far is safe"),
            _ => match self.io_kind()? {
                ReadOnlyFilesystem | PermissionDenied => {
                    Some("make the tape's directory writable for this user, or name another with --tape")
                }
                _ => None,
            },
        }
    }
}

/// ENFILE and EMFILE, which the standard library has no kinds for.
fn too_many_files(error: &std::io::Error) -> bool {
    cfg!(unix) && matches!(error.raw_os_error(), Some(23 | 24))
}

type Result<T> = std::result::Result<T, ArchiveError>;
