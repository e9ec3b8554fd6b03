//! The recorder's pen: pages of history on their way to the one who writes the tape.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::queue::{Entry, Item, Queue};
use crate::archive::{self, Hole, Leaf, PenError, Writing};
use crate::model::UnixMicros;
use crate::net;

/// Writes through a running recorder: each leaf is one entry of its queue, behind what comes live.
#[derive(Clone, Debug)]
pub struct Pen(Arc<Queue>);

impl Pen {
    pub(super) fn new(queue: &Arc<Queue>) -> Self {
        Self(Arc::clone(queue))
    }
}

impl archive::Pen for Pen {
    fn write(&mut self, leaf: Leaf) -> Writing<'_> {
        Box::pin(async move {
            let (told, heard) = oneshot::channel();
            let (at, arrived) = (leaf.at, net::now().into_std());
            let entry = Entry { slot: 0, at, arrived, item: Item::Leaf(Box::new(leaf), told) };
            if self.0.push_behind(entry).await.is_err() {
                return Err(PenError::Gone);
            }
            // A writer that ends drops what it did not commit.
            heard.await.unwrap_or(Err(PenError::Gone))
        })
    }

    fn lose(&mut self, hole: Hole, at: UnixMicros) -> Writing<'_> {
        Box::pin(async move {
            let (told, heard) = oneshot::channel();
            let entry = Entry { slot: 0, at, arrived: net::now().into_std(), item: Item::Hole(Box::new(hole), told) };
            if self.0.push_behind(entry).await.is_err() {
                return Err(PenError::Gone);
            }
            heard.await.unwrap_or(Err(PenError::Gone))
        })
    }
}
