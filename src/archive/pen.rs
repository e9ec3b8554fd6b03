//! The seam between who fills gaps and who writes the tape.
//!
//! A tape has one writer: the archive of a job that runs alone, or the queue of a running recorder. Whoever fills gaps
//! hands [`Leaf`]s to a [`Pen`] and does not know which of them it is.

use std::future::Future;
use std::pin::Pin;

use super::{Archive, ArchiveError, Filling, Hole, KindResult, Spent};
use crate::model::{Decoded, Draft, GapState, SourceName, UnixMicros};

/// What is written together: an answer of a provider's history, if one came, and the step it is for its gap. An answer
/// that is asked for without a gap, in an audit, stands alone.
#[derive(Clone, Debug)]
pub struct Leaf {
    /// The source.
    pub source: SourceName,
    /// Number of the gap, if it is about one.
    pub gap: Option<u64>,
    /// The present.
    pub at: UnixMicros,
    /// The answer, and what it says.
    pub page: Option<(Draft, Decoded)>,
    /// The gap's state from now on.
    pub state: GapState,
    /// In words: the price, the progress, the evidence.
    pub detail: String,
    /// Where the walk stands.
    pub cursor: Option<String>,
    /// What is proven of each kind.
    pub kinds: Vec<KindResult>,
    /// Spent since the step before.
    pub spent: Spent,
}

/// Why a leaf is not on the tape.
#[derive(Debug, thiserror::Error)]
pub enum PenError {
    /// The tape.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// There is no such gap.
    #[error("the tape's ledger has no gap {source_name}-{gap}, so nothing of it was written")]
    NoGap {
        /// Its source.
        source_name: SourceName,
        /// Its number.
        gap: u64,
    },
    /// The disk is full; the recorder waits for room.
    #[error("the disk is full; what was not yet committed is asked for again")]
    Full,
    /// Whoever wrote the tape has ended.
    #[error("the recorder that writes the tape has ended; what was not yet committed is asked for again")]
    Gone,
}

/// What [`Pen::write`] returns.
pub type Writing<'a> = Pin<Box<dyn Future<Output = Result<(), PenError>> + Send + 'a>>;

/// Writes leaves.
pub trait Pen: Send + Sync {
    /// Hands a leaf over and waits, without holding its thread up, until all of it is durable in one commit.
    ///
    /// # Errors
    /// When it cannot be written, or nobody writes any more.
    fn write(&mut self, leaf: Leaf) -> Writing<'_>;

    /// Hands records over that were found lost, and waits until the ledger tells of them, unless it did before.
    ///
    /// # Errors
    /// When it cannot be written, or nobody writes any more.
    fn lose(&mut self, hole: Hole, at: UnixMicros) -> Writing<'_>;
}

impl Archive {
    /// Appends a leaf; it is durable after the next [`commit`](Self::commit).
    ///
    /// # Errors
    /// When there is no such gap, which harms nobody, or the disk refuses.
    pub fn keep(&mut self, leaf: &Leaf) -> Result<(), PenError> {
        let Leaf { source, gap, at, page, state, detail, cursor, kinds, spent } = leaf;
        if let Some(gap) = gap.filter(|gap| self.gap(source, *gap).is_none()) {
            return Err(PenError::NoGap { source_name: source.clone(), gap });
        }
        if let Some((draft, decoded)) = page {
            self.append(source, draft, Some(decoded))?;
        }
        let Some(gap) = gap else { return Ok(()) };
        let filling = Filling { state: *state, detail, cursor: cursor.as_deref(), kinds, spent: *spent };
        // A segment that ends between the two would be committed with the one and without the other.
        self.is_mid_leaf = page.is_some();
        let filled = self.fill(source, *at, *gap, filling);
        self.is_mid_leaf = false;
        Ok(filled?)
    }
}
