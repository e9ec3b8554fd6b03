//! What is on the tape already, as far as one gap is concerned.

use std::collections::HashSet;

use crate::archive::{ArchiveError, Span, Tape};
use crate::model::{EventId, EventKind, Provider, RecordKind, TweetId, UnixMicros};
use crate::provider::decode_record;
use crate::provider::history::Known;

/// The posts of a window that are on the tape, and everything that came while it was filled.
///
/// The tape's index knows ids and not what was said about them: a post whose `meta` alone is there counts as known.
#[derive(Debug, Default)]
pub(super) struct Held {
    posts: HashSet<u64>,
    others: HashSet<(EventKind, EventId)>,
}

impl Held {
    /// Reads the index for posts published in `[from, to)`.
    pub(super) fn of(tape: &Tape, source: &str, from: UnixMicros, to: UnixMicros) -> Result<Self, ArchiveError> {
        let (first, end) = (TweetId::first_at(from).0, TweetId::first_at(to).0);
        let mut posts = HashSet::new();
        for segment in tape.catalog().segments(source)? {
            for block in tape.catalog().blocks(source, segment.first_n)? {
                posts.extend(block.ids.iter().filter(|id| (first..end).contains(id)));
            }
        }
        Ok(Self { posts, others: HashSet::new() })
    }

    /// Hears of events whose ids the index does not have (profiles, follows, conversations): reads what was received in
    /// `[from, to)`.
    pub(super) fn hear(&mut self, tape: &Tape, source: &str, from: UnixMicros, to: UnixMicros) -> Result<(), ArchiveError> {
        let provider = tape.source(source)?.provider.parse();
        let Ok(provider @ (Provider::Tweetstream | Provider::XLive)) = provider else { return Ok(()) };
        let mut records = tape.records(source, Span { from: Some(from), to: Some(to), ..Span::default() })?;
        while let Some(record) = records.next()? {
            if matches!(record.kind, RecordKind::Frame | RecordKind::Http) {
                let events = decode_record(provider, record.via, &record.body).events;
                let texts = events.into_iter().filter(|event| matches!(event.id, EventId::Text(_)));
                self.others.extend(texts.map(|event| (event.kind, event.id)));
            }
        }
        Ok(())
    }

    /// An event is on the tape from now on.
    pub(super) fn note(&mut self, kind: EventKind, id: &EventId) {
        match id {
            EventId::Tweet(id) => drop(self.posts.insert(id.0)),
            EventId::Text(_) => drop(self.others.insert((kind, id.clone()))),
        }
    }
}

impl Known for Held {
    fn holds(&mut self, kind: EventKind, id: &EventId) -> bool {
        match id {
            EventId::Tweet(id) => self.posts.contains(&id.0),
            EventId::Text(_) => self.others.contains(&(kind, id.clone())),
        }
    }
}
