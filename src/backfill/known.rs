//! What is on the tape already, as far as one gap is concerned.

use std::collections::HashSet;

use crate::archive::{ArchiveError, Span, Tape};
use crate::model::{EventId, EventKind, Provider, RecordKind, Seq, TweetId, UnixMicros};
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
    /// Reads the index for posts published in `[from, to)`, and what a recorder has written since the index was.
    pub(super) fn of(
        tape: &Tape,
        source: &str,
        provider: Provider,
        from: UnixMicros,
        to: UnixMicros,
    ) -> Result<Self, ArchiveError> {
        let window = TweetId::first_at(from).0..TweetId::first_at(to).0;
        let mut posts = HashSet::new();
        // In this order: a block that is ended meanwhile is read twice rather than never.
        tape.unindexed(source, |record| {
            let events = decode_record(provider, record.via, &record.body).events;
            let ids = events.into_iter().filter(|event| event.kind.names_a_tweet()).filter_map(|event| match event.id {
                EventId::Tweet(id) => Some(id.0),
                EventId::Text(_) => None,
            });
            posts.extend(ids.filter(|id| window.contains(id)));
        })?;
        for segment in tape.catalog().segments(source)? {
            for block in tape.catalog().blocks(source, segment.first_n)? {
                posts.extend(block.ids.iter().filter(|id| window.contains(id)));
            }
        }
        Ok(Self { posts, others: HashSet::new() })
    }

    /// Reads again what came since a walk began that is gone on with: of what is no post, the index knows nothing.
    pub(super) fn recall(&mut self, tape: &Tape, source: &str, provider: Provider, from_n: Seq) -> Result<(), ArchiveError> {
        let mut records = tape.records(source, Span { from_n: Some(from_n), ..Span::default() })?;
        while let Some(record) = records.next()? {
            if matches!(record.kind, RecordKind::Frame | RecordKind::Http) {
                let events = decode_record(provider, record.via, &record.body).events;
                events.iter().for_each(|event| self.note(event.kind, &event.id));
            }
        }
        Ok(())
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

    /// How many posts there are.
    pub(super) fn len(&self) -> u64 {
        self.posts.len() as u64
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
