//! What the fake providers' history remembers: the same envelopes as the player's, read for themselves.
//!
//! It reads on as far as somebody asks, up to a little after the virtual instant, because a post exists from when it
//! was published and that is before it was received. A tape's envelopes are fetched again when they are wanted; a
//! made-up world's newest are kept.
//!
//! Memory: the index (see [`past`](crate::provider::past)), [`SHELF_BYTES`] of envelopes at hand, and for a made-up
//! world [`KEPT_BYTES`] in all, beyond which the oldest are forgotten.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::ReplayError;
use super::feed::{Found, Origin, Played, Reader};
use crate::model::{Provider, UnixMicros};
use crate::provider::decode;
use crate::provider::past::{Index, Past, Shelf, Unreadable};

/// A post is known to history this long before it was received, if it was published then.
const AHEAD: Duration = Duration::from_secs(900);

/// Envelopes of a tape that are fetched together: those near each other are asked for together.
const TOGETHER: u64 = 1_024;

/// Envelopes of a tape kept at hand.
const SHELF_BYTES: usize = 64 << 20;

/// Envelopes of a made-up world that are remembered.
const KEPT_BYTES: usize = 256 << 20;

/// One provider's memory.
pub(super) struct Memory {
    provider: Provider,
    reader: Option<Reader>,
    /// Read, and later than was asked for.
    next: Option<Played>,
    last_at: UnixMicros,
    index: Index,
    envelopes: Envelopes,
}

impl Memory {
    /// Remembers nothing yet.
    pub(super) fn new(origin: &Arc<Origin>, provider: Provider) -> Result<Self, ReplayError> {
        let reader = origin.plays(provider).then(|| origin.reader(provider, None)).transpose()?;
        let envelopes = if origin.can_fetch() {
            let origin = Arc::clone(origin);
            Envelopes::Fetched(Fetched { origin, provider, groups: VecDeque::new(), bytes: 0 })
        } else {
            Envelopes::Kept(Kept::default())
        };
        Ok(Self { provider, reader, next: None, last_at: UnixMicros(i64::MIN), index: Index::default(), envelopes })
    }

    /// The past at that instant.
    pub(super) fn at(&mut self, now: UnixMicros) -> Past<'_> {
        self.read_to(now.plus(AHEAD));
        Past::new(self.provider, &mut self.index, &mut self.envelopes, now)
    }

    fn read_to(&mut self, until: UnixMicros) {
        loop {
            if self.next.is_none() {
                let Some(reader) = &mut self.reader else { return };
                match reader.next(None) {
                    Found::Envelope(played) => self.next = Some(played),
                    Found::Happening(..) | Found::Nothing => continue,
                    Found::End => {
                        self.reader = None;
                        return;
                    }
                }
            }
            let Some(played) = self.next.take_if(|played| played.at <= until) else { return };
            let place = match &mut self.envelopes {
                Envelopes::Kept(kept) => kept.keep(played.body.clone()),
                Envelopes::Fetched(_) => played.place,
            };
            // Stamps of imported envelopes may go back a little; the order is the tape's.
            self.last_at = self.last_at.max(played.at);
            self.index.note(self.last_at, &decode(self.provider, &played.body), place);
        }
    }
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Memory").field("provider", &self.provider).field("n_events", &self.index.len()).finish_non_exhaustive()
    }
}

/// Where the envelopes are.
enum Envelopes {
    /// On a tape.
    Fetched(Fetched),
    /// Here.
    Kept(Kept),
}

impl Shelf for Envelopes {
    fn fetch(&mut self, place: u64) -> Result<Option<Bytes>, Unreadable> {
        match self {
            Self::Fetched(fetched) => fetched.fetch(place),
            Self::Kept(kept) => Ok(kept.get(place)),
        }
    }
}

/// The newest envelopes.
#[derive(Debug, Default)]
struct Kept {
    envelopes: VecDeque<Bytes>,
    n_forgotten: u64,
    bytes: usize,
}

impl Kept {
    fn keep(&mut self, envelope: Bytes) -> u64 {
        self.bytes += envelope.len();
        self.envelopes.push_back(envelope);
        while self.bytes > KEPT_BYTES
            && let Some(oldest) = self.envelopes.pop_front()
        {
            self.bytes -= oldest.len();
            self.n_forgotten += 1;
        }
        self.n_forgotten + self.envelopes.len() as u64 - 1
    }

    fn get(&self, place: u64) -> Option<Bytes> {
        let at = place.checked_sub(self.n_forgotten).and_then(|at| usize::try_from(at).ok())?;
        self.envelopes.get(at).cloned()
    }
}

/// Fetches from a tape, some envelopes at a time.
struct Fetched {
    origin: Arc<Origin>,
    provider: Provider,
    /// First place of each, and its envelopes; the last used stands last.
    groups: VecDeque<(u64, Vec<Bytes>)>,
    bytes: usize,
}

impl Fetched {
    fn fetch(&mut self, place: u64) -> Result<Option<Bytes>, Unreadable> {
        let first = place / TOGETHER * TOGETHER;
        match self.groups.iter().position(|(known, _)| *known == first) {
            Some(at) => {
                if let Some(group) = self.groups.remove(at) {
                    self.groups.push_back(group);
                }
            }
            None => {
                let envelopes = self.origin.fetch(self.provider, first, TOGETHER as usize);
                let envelopes = envelopes.map_err(|error| Unreadable(error.to_string()))?;
                self.bytes += size(&envelopes);
                self.groups.push_back((first, envelopes));
                while self.bytes > SHELF_BYTES
                    && self.groups.len() > 1
                    && let Some((_, dropped)) = self.groups.pop_front()
                {
                    self.bytes -= size(&dropped);
                }
            }
        }
        let group = self.groups.back().map(|(_, envelopes)| envelopes);
        let envelope = group.and_then(|envelopes| envelopes.get((place - first) as usize)).cloned();
        Ok(envelope.filter(|envelope| !envelope.is_empty()))
    }
}

fn size(envelopes: &[Bytes]) -> usize {
    envelopes.iter().map(Bytes::len).sum()
}
