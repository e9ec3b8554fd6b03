//! Where envelopes come from: read, unpacked and framed on a thread of its own for each provider, a little ahead.

use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use tokio::sync::mpsc;

use super::chunk::{Chunk, Filling};
use super::{Feed, ReplayError};
use crate::archive::Disk;
use crate::archive::{Merged, Record, Span, Tape};
use crate::model::{Provider, RecordKind, Via};
use crate::provider::synthetic::{Envelope, World};

/// Framed bytes after which a chunk is given on.
const CHUNK_BYTES: usize = 128 << 10;

/// The first chunk is smaller, so that the first message does not wait for it.
const FIRST_CHUNK_BYTES: usize = 8 << 10;

/// Chunks read ahead.
const CHUNKS_AHEAD: usize = 4;

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

    fn damaged(&self, words: String) {
        tracing::warn!("{words}");
        self.damage.lock().unwrap_or_else(PoisonError::into_inner).push(words);
    }
}

/// One provider's chunks, in order; the channel ends where the feed does.
pub(super) type Chunks = mpsc::Receiver<Chunk>;

/// Opens the feed; in the order of [`Provider::ALL`].
pub(super) fn open(feed: Feed, disk: Arc<dyn Disk>, remarks: &Arc<Remarks>) -> Result<[Chunks; 4], ReplayError> {
    let mut readers: [Option<Reader>; 4] = [const { None }; 4];
    match feed {
        Feed::Tape { dir } => open_tape(dir, disk, &mut readers)?,
        Feed::Lines { envelopes } => {
            for provider in Provider::ALL {
                let own: Vec<_> = envelopes.iter().filter(|envelope| envelope.provider == provider).cloned().collect();
                readers[provider as usize] = Some(Reader::Given(own.into_iter()));
            }
        }
        Feed::Synthetic { options, limit } => {
            let share = |provider: Provider| options.mix[provider as usize];
            let is_share = |share: f64| share.is_finite() && share > 0.0;
            let any = Provider::ALL.into_iter().any(|provider| is_share(share(provider)));
            // Without a share there is nothing to wait for; without any share all are equal.
            for provider in Provider::ALL.into_iter().filter(|provider| !any || is_share(share(*provider))) {
                let world = World::new(options.clone());
                let rest = limit.unwrap_or(u64::MAX);
                readers[provider as usize] = Some(Reader::World { world: Box::new(world), provider, rest });
            }
        }
    }
    let mut all = Vec::with_capacity(4);
    for (provider, reader) in Provider::ALL.into_iter().zip(readers) {
        let (sender, receiver) = mpsc::channel(CHUNKS_AHEAD);
        if let Some(reader) = reader {
            let remarks = Arc::clone(remarks);
            let thread = thread::Builder::new().name(format!("feed-{provider}"));
            // Ends when the feed does, or when the player has gone.
            thread.spawn(move || read(reader, provider, &sender, &remarks)).map_err(|source| ReplayError::Thread { source })?;
        }
        all.push(receiver);
    }
    Ok(<[Chunks; 4]>::try_from(all).unwrap_or_else(|_| unreachable!("one for each of the four")))
}

fn open_tape(dir: PathBuf, disk: Arc<dyn Disk>, readers: &mut [Option<Reader>; 4]) -> Result<(), ReplayError> {
    let tape = Tape::open(&dir, disk)?;
    let sources = tape.sources()?;
    for provider in Provider::ALL {
        let own = sources.iter().filter(|source| source.provider == provider.name());
        let names: Vec<String> = own.map(|source| source.name.clone()).collect();
        if !names.is_empty() {
            readers[provider as usize] = Some(Reader::Tape { records: Box::new(tape.merged(&names, Span::default())?), told: 0 });
        }
    }
    Ok(())
}

enum Reader {
    Tape { records: Box<Merged>, told: usize },
    Given(std::vec::IntoIter<Envelope>),
    World { world: Box<World>, provider: Provider, rest: u64 },
}

impl Reader {
    /// Adds the next envelope; `false` at the end.
    fn read(&mut self, provider: Provider, filling: &mut Filling, remarks: &Remarks) -> bool {
        match self {
            Self::Tape { records, told } => {
                let next = match records.next() {
                    Ok(next) => next,
                    Err(error) => {
                        remarks.damaged(format!("{provider}: cannot be read any further: {error}"));
                        None
                    }
                };
                for (source, words) in records.damage().skip(*told) {
                    remarks.damaged(format!("source {source}: {words}"));
                    *told += 1;
                }
                let Some((_, record)) = next else { return false };
                match playable(&record) {
                    Playable::Yes => filling.push(record.at, &record.body),
                    Playable::Broken => remarks.skip(provider, 1),
                    Playable::No => {}
                }
                true
            }
            Self::Given(envelopes) => match envelopes.next() {
                Some(envelope) => {
                    filling.push(envelope.at, &envelope.bytes);
                    true
                }
                None => false,
            },
            Self::World { world, provider, rest } => {
                let Some(less) = rest.checked_sub(1) else { return false };
                *rest = less;
                let Some(envelope) = world.next() else { return false };
                if envelope.provider == *provider {
                    filling.push(envelope.at, &envelope.bytes);
                }
                true
            }
        }
    }
}

enum Playable {
    Yes,
    /// Facts of ours, and what did not come over the live connection.
    No,
    /// Bytes of the wire that no decoder took for a message.
    Broken,
}

fn playable(record: &Record) -> Playable {
    let live = match record.via {
        Via::Ws | Via::Sse | Via::Lines | Via::Webhook | Via::Import => true,
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

fn read(mut reader: Reader, provider: Provider, chunks: &mpsc::Sender<Chunk>, remarks: &Remarks) {
    let mut filling = Filling::new(provider);
    let mut enough = FIRST_CHUNK_BYTES;
    while !chunks.is_closed() && reader.read(provider, &mut filling, remarks) {
        if filling.n_bytes() >= enough {
            enough = CHUNK_BYTES;
            if chunks.blocking_send(filling.take()).is_err() {
                return;
            }
        }
    }
    if !filling.is_empty() {
        // A player that has gone needs nothing more.
        drop(chunks.blocking_send(filling.take()));
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
}
