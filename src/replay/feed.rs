//! Where envelopes come from: read, unpacked and framed on a thread of its own for each provider, a little ahead.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::chunk::{Chunk, Filling};
use super::faults::Lane;
use super::happening::{self, Happening};
use super::{Feed, ReplayError};
use crate::archive::Disk;
use crate::archive::{Merged, Record, Span, Tape};
use crate::model::{EventId, Provider, RecordKind, TweetId, UnixMicros, Via};
use crate::provider::decode;
use crate::provider::shift::Shift;
use crate::provider::synthetic::{self, Envelope, World};

/// Framed bytes after which a chunk is given on.
const CHUNK_BYTES: usize = 128 << 10;

/// The first chunk is smaller, so that the first message does not wait for it.
const FIRST_CHUNK_BYTES: usize = 8 << 10;

/// Chunks read ahead.
const CHUNKS_AHEAD: usize = 4;

/// Envelopes of a made-up world, all providers together, that are made in one go to find one provider's next.
const WORLD_SLICE: u64 = 4_096;

/// What could not be read or cannot be played, told by the threads.
#[derive(Debug, Default)]
pub(super) struct Remarks {
    skipped: [AtomicU64; 4],
    damage: Mutex<Vec<String>>,
}

impl Remarks {
    pub(super) fn skipped(&self, provider: Provider) -> u64 {
        self.skipped[provider as usize].load(Relaxed)
    }

    pub(super) fn skip(&self, provider: Provider, n: u64) {
        self.skipped[provider as usize].fetch_add(n, Relaxed);
    }

    pub(super) fn damage(&self) -> Vec<String> {
        self.damage.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The same place may be read more than once; it is told once.
    pub(super) fn damaged(&self, words: String) {
        let mut damage = self.damage.lock().unwrap_or_else(PoisonError::into_inner);
        if !damage.contains(&words) {
            tracing::warn!("{words}");
            damage.push(words);
        }
    }
}

/// What a player is given.
#[derive(Debug)]
pub(super) enum Piece {
    /// Envelopes.
    Chunk(Chunk),
    /// Something that happened to the connection.
    Happening(UnixMicros, Happening),
}

/// One provider's pieces, in order; the channel ends where the feed does.
pub(super) type Pieces = mpsc::Receiver<Piece>;

/// An envelope to be played.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Played {
    /// When it was received.
    pub(super) at: UnixMicros,
    /// The envelope.
    pub(super) body: Bytes,
    /// Names it for [`Origin::fetch`]; 0 where that cannot be done.
    pub(super) place: u64,
}

/// What is played, ready to be read from any moment on.
pub(super) struct Origin {
    feed: Feed,
    disk: Arc<dyn Disk>,
    /// Of a tape: the sources of each provider.
    sources: [Vec<String>; 4],
    shift: Shift,
    as_happened: bool,
    first_at: UnixMicros,
    /// `None` where there is no end.
    last_at: Option<UnixMicros>,
}

impl std::fmt::Debug for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Origin").field("sources", &self.sources).field("shift", &self.shift).finish_non_exhaustive()
    }
}

impl Origin {
    /// Looks at the feed: who plays, from when to when. `only` names the sources of a tape that are wanted; none is all.
    pub(super) fn open(feed: Feed, disk: Arc<dyn Disk>, only: &[String], as_happened: bool) -> Result<Self, ReplayError> {
        let mut origin = Self {
            feed,
            disk,
            sources: [const { Vec::new() }; 4],
            shift: Shift::default(),
            as_happened,
            first_at: UnixMicros(0),
            last_at: Some(UnixMicros(0)),
        };
        match &origin.feed {
            Feed::Tape { dir } => {
                let tape = Tape::open(dir, Arc::clone(&origin.disk))?;
                let mut extent: Option<(i64, i64)> = None;
                for name in only {
                    tape.source(name)?;
                }
                for source in tape.sources()?.into_iter().filter(|source| only.is_empty() || only.contains(&source.name)) {
                    let Ok(provider) = source.provider.parse::<Provider>() else { continue };
                    for segment in tape.catalog().segments(&source.name).map_err(crate::archive::ArchiveError::from)? {
                        let (first, last) = extent.unwrap_or((i64::MAX, i64::MIN));
                        extent = Some((first.min(segment.first_us), last.max(segment.last_us)));
                    }
                    origin.sources[provider as usize].push(source.name);
                }
                let (first, last) = extent.unwrap_or_default();
                (origin.first_at, origin.last_at) = (UnixMicros(first), Some(UnixMicros(last)));
            }
            Feed::Lines { envelopes } => {
                let at = envelopes.iter().map(|envelope| envelope.at);
                origin.first_at = at.clone().min().unwrap_or_default();
                origin.last_at = at.max().or(Some(UnixMicros(0)));
            }
            Feed::Synthetic { options, .. } => (origin.first_at, origin.last_at) = (options.start, None),
        }
        Ok(origin)
    }

    /// Moves everything in time so that the first moment becomes `to`.
    pub(super) fn shift_to(&mut self, to: UnixMicros) {
        let shift = Shift::by_millis(to.millis() - self.first_at.millis());
        (self.first_at, self.last_at) = (shift.instant(self.first_at), self.last_at.map(|at| shift.instant(at)));
        self.shift = shift;
    }

    /// First moment of the feed.
    pub(super) fn first_at(&self) -> UnixMicros {
        self.first_at
    }

    /// Last moment of the feed; `None` where there is no end.
    pub(super) fn last_at(&self) -> Option<UnixMicros> {
        self.last_at
    }

    /// Whether there may be something to play.
    pub(super) fn plays(&self, provider: Provider) -> bool {
        match &self.feed {
            Feed::Tape { .. } => !self.sources[provider as usize].is_empty(),
            Feed::Lines { envelopes } => envelopes.iter().any(|envelope| envelope.provider == provider),
            // Without a share there is nothing to wait for; without any share all are equal.
            Feed::Synthetic { options, .. } => {
                let is_share = |provider: Provider| {
                    let share = options.mix[provider as usize];
                    share.is_finite() && share > 0.0
                };
                is_share(provider) || !Provider::ALL.into_iter().any(is_share)
            }
        }
    }

    /// How many envelopes each provider has and when the last one came, where that costs nothing to know.
    pub(super) fn lanes(&self) -> [Lane; 4] {
        let mut lanes = [Lane::default(); 4];
        match &self.feed {
            Feed::Tape { .. } => lanes = [Lane { n_envelopes: None, last: self.last_at }; 4],
            Feed::Lines { envelopes } => {
                lanes = [Lane { n_envelopes: Some(0), last: None }; 4];
                for envelope in envelopes {
                    let lane = &mut lanes[envelope.provider as usize];
                    lane.n_envelopes = lane.n_envelopes.map(|n| n + 1);
                    lane.last = lane.last.max(Some(self.shift.instant(envelope.at)));
                }
            }
            Feed::Synthetic { .. } => {}
        }
        lanes
    }

    /// Envelopes of a provider received at or after that moment, in order.
    pub(super) fn reader(&self, provider: Provider, from: Option<UnixMicros>) -> Result<Reader, ReplayError> {
        let back = Shift::by_millis(-self.shift.millis());
        let from = from.map(|from| back.instant(from));
        let source = match &self.feed {
            Feed::Tape { dir } => {
                let tape = Tape::open(dir, Arc::clone(&self.disk))?;
                let records = tape.merged(&self.sources[provider as usize], Span { from, ..Span::default() })?;
                Source::Tape { records: Box::new(records), told: 0 }
            }
            Feed::Lines { envelopes } => {
                let own = envelopes
                    .iter()
                    .enumerate()
                    .filter(|(_, envelope)| envelope.provider == provider && from.is_none_or(|from| envelope.at >= from));
                let own: Vec<_> = own.map(|(place, envelope)| (place as u64, envelope.clone())).collect();
                Source::Given(own.into_iter())
            }
            Feed::Synthetic { options, limit } => {
                let rest = if self.plays(provider) { limit.unwrap_or(u64::MAX) } else { 0 };
                Source::World { world: Box::new(World::new(options.clone())), rest, from }
            }
        };
        let names: Vec<Arc<str>> = self.sources[provider as usize].iter().map(|name| name.as_str().into()).collect();
        let happenings = self.as_happened.then(|| happening::Watch::new(provider));
        Ok(Reader { source, provider, names, shift: self.shift, happenings })
    }

    /// Begins to read a provider's envelopes on a thread of its own, which ends when the feed does or the player has
    /// gone.
    pub(super) fn play(
        &self,
        provider: Provider,
        from: Option<UnixMicros>,
        remarks: &Arc<Remarks>,
    ) -> Result<Pieces, ReplayError> {
        let (sender, receiver) = mpsc::channel(CHUNKS_AHEAD);
        if self.plays(provider) {
            let reader = self.reader(provider, from)?;
            let remarks = Arc::clone(remarks);
            let thread = thread::Builder::new().name(format!("feed-{provider}"));
            thread.spawn(move || read(reader, &sender, &remarks)).map_err(|source| ReplayError::Thread { source })?;
        }
        Ok(receiver)
    }

    /// The envelope at a place a [`Reader`] named, for a past that does not hold it: the ones that were read with it
    /// come, too, from that place on.
    pub(super) fn fetch(&self, provider: Provider, place: u64, n: usize) -> Result<Vec<Bytes>, ReplayError> {
        let Feed::Tape { dir } = &self.feed else { return Ok(Vec::new()) };
        let (source, from_n) = unplace(place);
        let Some(name) = self.sources[provider as usize].get(source) else { return Ok(Vec::new()) };
        let tape = Tape::open(dir, Arc::clone(&self.disk))?;
        let mut records = tape.records(name, Span { from_n: Some(crate::model::Seq(from_n)), ..Span::default() })?;
        let mut bodies = Vec::with_capacity(n);
        while bodies.len() < n
            && let Some(record) = records.next()?
        {
            // Damage leaves holes in the numbers.
            let idx = (record.n.0 - from_n) as usize;
            if idx >= n {
                break;
            }
            bodies.resize(idx, Bytes::new());
            bodies.push(self.shift.envelope(provider, &Bytes::copy_from_slice(&record.body)));
        }
        Ok(bodies)
    }

    /// When that post was first received; `None` if it never was.
    pub(super) fn find(&self, id: TweetId) -> Result<Option<UnixMicros>, ReplayError> {
        let id = self.shift.back().tweet_id(id);
        let wanted = EventId::Tweet(id);
        let holds = |provider: Provider, body: &[u8]| decode(provider, body).events.iter().any(|event| event.id == wanted);
        let at = match &self.feed {
            Feed::Tape { dir } => {
                let tape = Tape::open(dir, Arc::clone(&self.disk))?;
                let found = tape.with_id(id.0, |source, record| {
                    let provider = source.provider.parse::<Provider>();
                    matches!(playable(record), Playable::Yes)
                        && provider.is_ok_and(|provider| {
                            self.sources[provider as usize].contains(&source.name) && holds(provider, &record.body)
                        })
                })?;
                found.into_iter().map(|(_, record)| record.at).min()
            }
            Feed::Lines { envelopes } => {
                envelopes.iter().filter(|envelope| holds(envelope.provider, &envelope.bytes)).map(|envelope| envelope.at).min()
            }
            Feed::Synthetic { .. } => None,
        };
        Ok(at.map(|at| self.shift.instant(at)))
    }

    /// Whether envelopes are fetched again when somebody asks for them; otherwise a past keeps them.
    pub(super) fn can_fetch(&self) -> bool {
        matches!(self.feed, Feed::Tape { .. })
    }

    /// Options of the made-up world, if it is one.
    pub(super) fn world(&self) -> Option<&synthetic::Options> {
        match &self.feed {
            Feed::Synthetic { options, .. } => Some(options),
            _ => None,
        }
    }
}

/// Source in the upper 16 bits, number in the lower 48.
fn place(source: usize, n: u64) -> u64 {
    (source as u64) << 48 | n
}

fn unplace(place: u64) -> (usize, u64) {
    ((place >> 48) as usize, place & ((1 << 48) - 1))
}

enum Source {
    Tape { records: Box<Merged>, told: usize },
    Given(std::vec::IntoIter<(u64, Envelope)>),
    World { world: Box<World>, rest: u64, from: Option<UnixMicros> },
}

/// Reads one provider's envelopes in order.
pub(super) struct Reader {
    source: Source,
    provider: Provider,
    names: Vec<Arc<str>>,
    shift: Shift,
    happenings: Option<happening::Watch>,
}

/// What a [`Reader`] found next.
pub(super) enum Found {
    /// Something to play.
    Envelope(Played),
    /// Something that happened to the connection.
    Happening(UnixMicros, Happening),
    /// Nothing of concern.
    Nothing,
    /// Nothing more.
    End,
}

impl Reader {
    /// The next thing; what cannot be read or played goes to the remarks, if somebody takes them.
    pub(super) fn next(&mut self, remarks: Option<&Remarks>) -> Found {
        let provider = self.provider;
        match &mut self.source {
            Source::Tape { records, told } => {
                let next = match records.next() {
                    Ok(next) => next,
                    Err(error) => {
                        if let Some(remarks) = remarks {
                            remarks.damaged(format!("{provider}: cannot be read any further: {error}"));
                        }
                        None
                    }
                };
                for (source, words) in records.damage().skip(*told) {
                    if let Some(remarks) = remarks {
                        remarks.damaged(format!("source {source}: {words}"));
                    }
                    *told += 1;
                }
                let Some((name, record)) = next else { return Found::End };
                match playable(&record) {
                    Playable::Yes => {
                        let source = self.names.iter().position(|known| *known == name).unwrap_or_default();
                        if let Some(watch) = &mut self.happenings {
                            watch.heard(record.at);
                        }
                        let body = self.shift.envelope(provider, &record.body);
                        Found::Envelope(Played { at: self.shift.instant(record.at), body, place: place(source, record.n.0) })
                    }
                    Playable::Broken => {
                        if let Some(remarks) = remarks {
                            remarks.skip(provider, 1);
                        }
                        Found::Nothing
                    }
                    Playable::No => match self.happenings.as_mut().and_then(|watch| watch.look(&record)) {
                        Some((at, happening)) => Found::Happening(self.shift.instant(at), happening),
                        None => Found::Nothing,
                    },
                }
            }
            Source::Given(envelopes) => match envelopes.next() {
                Some((place, Envelope { at, bytes, .. })) => {
                    let body = self.shift.envelope(provider, &bytes);
                    Found::Envelope(Played { at: self.shift.instant(at), body, place })
                }
                None => Found::End,
            },
            Source::World { world, rest, from } => {
                if *rest == 0 {
                    return Found::End;
                }
                // A slice of what is left, so that a reader nobody needs any more notices.
                let slice = (*rest).min(WORLD_SLICE);
                let mut budget = slice;
                let next = world.next_of(provider, &mut budget);
                *rest -= slice - budget;
                let Some(envelope) = next.filter(|envelope| from.is_none_or(|from| envelope.at >= from)) else {
                    return Found::Nothing;
                };
                let body = self.shift.envelope(provider, &envelope.bytes);
                Found::Envelope(Played { at: self.shift.instant(envelope.at), body, place: 0 })
            }
        }
    }
}

pub(super) enum Playable {
    Yes,
    /// Facts of ours, and what did not come over the live connection.
    No,
    /// Bytes of the wire that no decoder took for a message.
    Broken,
}

pub(super) fn playable(record: &Record) -> Playable {
    let live = match record.via {
        Via::Ws | Via::Sse | Via::Lines | Via::Webhook | Via::Import => true,
        // What another recorder received came over a connection that this tape knows nothing of: its heartbeats, its closes and
        // its order beside ours are on the other tape.
        Via::History | Via::Snapshot | Via::Peer | Via::Own => false,
    };
    if record.kind != RecordKind::Frame || !live {
        return Playable::No;
    }
    match &record.info {
        Some(info) if has_cause(info) => Playable::Broken,
        _ => Playable::Yes,
    }
}

fn has_cause(info: &str) -> bool {
    let info: Result<serde_json::Map<String, serde_json::Value>, _> = serde_json::from_str(info);
    info.is_ok_and(|facts| facts.contains_key("cause"))
}

fn read(mut reader: Reader, pieces: &mpsc::Sender<Piece>, remarks: &Remarks) {
    let mut filling = Filling::new(reader.provider);
    let mut enough = FIRST_CHUNK_BYTES;
    while !pieces.is_closed() {
        let happening = match reader.next(Some(remarks)) {
            Found::Envelope(played) => {
                filling.push(played.at, &played.body);
                None
            }
            Found::Happening(at, happening) => Some(Piece::Happening(at, happening)),
            Found::Nothing => continue,
            Found::End => break,
        };
        if filling.n_bytes() >= enough || (happening.is_some() && !filling.is_empty()) {
            enough = CHUNK_BYTES;
            if pieces.blocking_send(Piece::Chunk(filling.take())).is_err() {
                return;
            }
        }
        if let Some(piece) = happening
            && pieces.blocking_send(piece).is_err()
        {
            return;
        }
    }
    if !filling.is_empty() {
        // A player that has gone needs nothing more.
        drop(pieces.blocking_send(Piece::Chunk(filling.take())));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_broken_frames_by_their_cause() {
        assert!(has_cause(r#"{"cause":"malformed"}"#));
        assert!(!has_cause(r#"{"because":"cause"}"#) && !has_cause("cause") && !has_cause("[]"));
    }

    #[test]
    fn places_name_source_and_number() {
        for (source, n) in [(0, 1), (3, 7), (65_535, (1 << 48) - 1)] {
            assert_eq!(unplace(place(source, n)), (source, n));
        }
    }
}
