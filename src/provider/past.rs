//! What has happened so far: the fake providers' memory, looked up by their history at one virtual instant.
//!
//! An [`Index`] notes which events stand in which envelope and never holds an envelope itself; a [`Shelf`] fetches
//! one when somebody asks. A [`Past`] is both of them at an instant: what is later does not exist in it.
//!
//! Memory: about 130 bytes for each event, and what the shelf keeps at hand.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::{ControlFlow, Range};

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use super::{Provider, decode};
use crate::model::{Decoded, Event, EventId, EventKind, UnixMicros};

/// An envelope could not be fetched; in words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an envelope cannot be read: {0}")]
pub struct Unreadable(pub String);

/// Where the envelopes are.
pub trait Shelf {
    /// The envelope at a place that [`Index::note`] was given; `None` when it was forgotten or lost.
    ///
    /// # Errors
    /// When it cannot be read.
    fn fetch(&mut self, place: u64) -> Result<Option<Bytes>, Unreadable>;
}

/// Envelopes in memory: the place is the position.
impl Shelf for Vec<Bytes> {
    fn fetch(&mut self, place: u64) -> Result<Option<Bytes>, Unreadable> {
        Ok(usize::try_from(place).ok().and_then(|place| self.get(place)).cloned())
    }
}

/// An event of the past, with the envelope it came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// What it is, its id, its selector.
    pub kind: EventKind,
    /// Its id.
    pub id: EventId,
    /// What selected it in this envelope: a rule id, a monitor id, a topic; may be empty.
    pub selector: String,
    /// The author's time; where nobody says, the time it was first received.
    pub published_at: UnixMicros,
    /// When this envelope was received.
    pub received_at: UnixMicros,
    /// The provider's stamp on this envelope.
    pub provider_at: Option<UnixMicros>,
    /// The envelope; other events may stand in it, too.
    pub envelope: Bytes,
}

/// Which events stand where.
#[derive(Clone, Debug, Default)]
pub struct Index {
    entries: Vec<Entry>,
    /// Every time an event was received, in that order.
    sightings: Vec<Sighting>,
    by_key: HashMap<(u8, u64), u32>,
    /// Entries by (published_at, key); only the first `n_sorted` of them are in order.
    by_time: Vec<u32>,
    is_sorted: bool,
    selectors: BTreeMap<String, Selector>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    published_at: i64,
    key: u64,
    kind: EventKind,
    first: u32,
    last: u32,
}

#[derive(Clone, Copy, Debug)]
struct Sighting {
    received_at: i64,
    place: u64,
    entry: u32,
    /// The one before of the same event; itself for the first.
    before: u32,
    /// Number of what selected it, from 1; 0 is nothing.
    selector: u32,
}

#[derive(Clone, Copy, Debug)]
struct Selector {
    /// Names it in sightings.
    number: u32,
    /// Where it stands first and last.
    first: u64,
    last: u64,
}

/// Ids in a form of fixed size: a post's number, or a text's hash.
fn key_of(id: &EventId) -> u64 {
    match id {
        EventId::Tweet(id) => id.0,
        EventId::Text(text) => xxh3_64(text.as_bytes()),
    }
}

impl Index {
    /// Notes the events of an envelope; envelopes are given in the order they were received. A time before that of the
    /// envelope before (a clock was set back, a file is dated by stamps) counts as the same time.
    pub fn note(&mut self, received_at: UnixMicros, decoded: &Decoded, place: u64) {
        // Deliveries are searched by time, and the player sends none before the one before it either.
        let before = self.sightings.last().map_or(received_at.0, |sighting| sighting.received_at);
        let received_at = UnixMicros(received_at.0.max(before));
        for event in &decoded.events {
            self.note_event(received_at, decoded.provider_at, event, place);
        }
    }

    fn note_event(&mut self, received_at: UnixMicros, provider_at: Option<UnixMicros>, event: &Event, place: u64) {
        // More than four thousand million events would need half a terabyte of memory before this is reached.
        let Ok(sighting) = u32::try_from(self.sightings.len()) else { return };
        // A clock may have been set back, and stamps stand in for it in files: what came later is not earlier for that.
        let received_at = self.sightings.last().map_or(received_at, |last| received_at.max(UnixMicros(last.received_at)));
        let selector = self.note_selector(&event.selector, place);
        let key = key_of(&event.id);
        let n_entries = self.entries.len() as u32;
        let entry = *self.by_key.entry((event.kind.code(), key)).or_insert(n_entries);
        let before = match self.entries.get_mut(entry as usize) {
            Some(known) => std::mem::replace(&mut known.last, sighting),
            None => {
                let published_at = event.published_at.or(provider_at).unwrap_or(received_at).0;
                self.entries.push(Entry { published_at, key, kind: event.kind, first: sighting, last: sighting });
                self.is_sorted = false;
                self.by_time.push(entry);
                sighting
            }
        };
        self.sightings.push(Sighting { received_at: received_at.0, place, entry, before, selector });
    }

    fn note_selector(&mut self, selector: &str, place: u64) -> u32 {
        if let Some(known) = self.selectors.get_mut(selector) {
            known.last = place;
            return known.number;
        }
        if selector.is_empty() {
            return 0;
        }
        let number = self.selectors.len() as u32 + 1;
        self.selectors.insert(selector.to_owned(), Selector { number, first: place, last: place });
        number
    }

    /// Number of different events.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing was noted.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn sort(&mut self) {
        if !self.is_sorted {
            let entries = &self.entries;
            self.by_time.sort_by_key(|at| (entries[*at as usize].published_at, entries[*at as usize].key));
            self.is_sorted = true;
        }
    }
}

/// The past of one provider at an instant.
pub struct Past<'a> {
    provider: Provider,
    index: &'a mut Index,
    shelf: &'a mut dyn Shelf,
    now: UnixMicros,
}

impl std::fmt::Debug for Past<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Past").field("provider", &self.provider).field("now", &self.now).finish_non_exhaustive()
    }
}

impl<'a> Past<'a> {
    /// The past at `now`: the virtual instant, less what the provider needs to index what is new.
    pub fn new(provider: Provider, index: &'a mut Index, shelf: &'a mut dyn Shelf, now: UnixMicros) -> Self {
        index.sort();
        Self { provider, index, shelf, now }
    }

    /// The instant it is looked at from.
    pub fn now(&self) -> UnixMicros {
        self.now
    }

    /// Events of those kinds that were published within the span and exist by now, newest first (by time, then by id),
    /// each once, as it was last received by now. A post exists from when it was published, everything else from when
    /// it was received. `visit` says whether to go on.
    ///
    /// # Errors
    /// When an envelope cannot be read.
    pub fn newest(
        &mut self,
        kinds: &[EventKind],
        published: Range<UnixMicros>,
        mut visit: impl FnMut(&Item) -> ControlFlow<()>,
    ) -> Result<(), Unreadable> {
        let entries = &self.index.entries;
        let end = self.index.by_time.partition_point(|at| entries[*at as usize].published_at < published.end.0);
        for place in (0..end).rev() {
            let at = self.index.by_time[place];
            let entry = self.index.entries[at as usize];
            if entry.published_at < published.start.0 {
                break;
            }
            if !kinds.contains(&entry.kind) {
                continue;
            }
            if let Some(item) = self.latest(entry)?
                && visit(&item).is_break()
            {
                break;
            }
        }
        Ok(())
    }

    /// One event as it was last received by now, if it exists by now.
    ///
    /// # Errors
    /// When its envelope cannot be read.
    pub fn get(&mut self, kind: EventKind, id: &EventId) -> Result<Option<Item>, Unreadable> {
        match self.index.by_key.get(&(kind.code(), key_of(id))) {
            Some(&at) => self.latest(self.index.entries[at as usize]),
            None => Ok(None),
        }
    }

    /// One event as it was received each time by now, newest first; `visit` says whether to go on.
    ///
    /// # Errors
    /// When an envelope cannot be read.
    pub fn versions(
        &mut self,
        kind: EventKind,
        id: &EventId,
        mut visit: impl FnMut(&Item) -> ControlFlow<()>,
    ) -> Result<(), Unreadable> {
        let Some(&at) = self.index.by_key.get(&(kind.code(), key_of(id))) else { return Ok(()) };
        let entry = self.index.entries[at as usize];
        let mut at = entry.last;
        loop {
            let sighting = self.index.sightings[at as usize];
            if sighting.received_at <= self.now.0
                && let Some(item) = self.item(entry, sighting)?
                && visit(&item).is_break()
            {
                return Ok(());
            }
            if at == entry.first {
                return Ok(());
            }
            at = sighting.before;
        }
    }

    /// Ids of the posts published within the span that this rule or monitor ever brought; reads no envelope.
    pub fn selected_by(&self, selector: &str, published: Range<UnixMicros>) -> HashSet<u64> {
        let Some(Selector { number, .. }) = self.index.selectors.get(selector) else { return HashSet::new() };
        let entries = &self.index.entries;
        let until = |at: UnixMicros| self.index.by_time.partition_point(|place| entries[*place as usize].published_at < at.0);
        let (start, end) = (until(published.start), until(published.end));
        let within = self.index.by_time.get(start..end).unwrap_or_default().iter();
        let posts = within.map(|place| entries[*place as usize]).filter(|entry| entry.kind == EventKind::Tweet);
        posts.filter(|entry| self.was_selected(*entry, *number)).map(|entry| entry.key).collect()
    }

    fn was_selected(&self, entry: Entry, selector: u32) -> bool {
        let mut at = entry.last;
        loop {
            let sighting = self.index.sightings[at as usize];
            if sighting.selector == selector || at == entry.first {
                return sighting.selector == selector;
            }
            at = sighting.before;
        }
    }

    /// Whether such an event exists by now; reads no envelope.
    pub fn has(&self, kind: EventKind, id: &EventId) -> bool {
        let at = self.index.by_key.get(&(kind.code(), key_of(id)));
        at.is_some_and(|at| self.exists(self.index.entries[*at as usize]))
    }

    /// Every time an event of those kinds was received within the span and by now, newest first. The number given with
    /// it stays the same for all times. `visit` says whether to go on.
    ///
    /// # Errors
    /// When an envelope cannot be read.
    pub fn deliveries(
        &mut self,
        kinds: &[EventKind],
        received: Range<UnixMicros>,
        mut visit: impl FnMut(u64, &Item) -> ControlFlow<()>,
    ) -> Result<(), Unreadable> {
        let end = received.end.0.min(self.now.0.saturating_add(1));
        let end = self.index.sightings.partition_point(|sighting| sighting.received_at < end);
        for at in (0..end).rev() {
            let sighting = self.index.sightings[at];
            if sighting.received_at < received.start.0 {
                break;
            }
            let entry = self.index.entries[sighting.entry as usize];
            if kinds.contains(&entry.kind)
                && let Some(item) = self.item(entry, sighting)?
                && visit(at as u64, &item).is_break()
            {
                break;
            }
        }
        Ok(())
    }

    /// The same with what is still to come a little later: who is watched is watched before he says anything.
    pub fn to_come(&mut self) -> Past<'_> {
        let last = self.index.sightings.last().map_or(self.now, |sighting| UnixMicros(sighting.received_at));
        Past { provider: self.provider, index: self.index, shelf: self.shelf, now: self.now.max(last) }
    }

    /// Selectors that are news to the caller, each with the first envelope that has it; also those of envelopes that are
    /// still to come a little later, since rules and monitors are there before what they select.
    ///
    /// # Errors
    /// When an envelope cannot be read.
    pub fn selectors(&mut self, is_known: impl Fn(&str) -> bool) -> Result<Vec<(String, Bytes)>, Unreadable> {
        let mut named = Vec::new();
        for (selector, Selector { first, last, .. }) in self.index.selectors.iter().filter(|(name, _)| !is_known(name)) {
            // A shelf may forget old envelopes.
            let envelope = match self.shelf.fetch(*first)? {
                None => self.shelf.fetch(*last)?,
                found => found,
            };
            named.extend(envelope.map(|envelope| (selector.clone(), envelope)));
        }
        Ok(named)
    }

    fn exists(&self, entry: Entry) -> bool {
        let first_received = self.index.sightings[entry.first as usize].received_at;
        let since = if entry.kind == EventKind::Tweet { entry.published_at.min(first_received) } else { first_received };
        since <= self.now.0
    }

    fn latest(&mut self, entry: Entry) -> Result<Option<Item>, Unreadable> {
        if !self.exists(entry) {
            return Ok(None);
        }
        let mut at = entry.last;
        while at != entry.first && self.index.sightings[at as usize].received_at > self.now.0 {
            at = self.index.sightings[at as usize].before;
        }
        self.item(entry, self.index.sightings[at as usize])
    }

    fn item(&mut self, entry: Entry, sighting: Sighting) -> Result<Option<Item>, Unreadable> {
        let Some(envelope) = self.shelf.fetch(sighting.place)? else { return Ok(None) };
        let decoded = decode(self.provider, &envelope);
        let provider_at = decoded.provider_at;
        let mut events = decoded.events.into_iter();
        let event = events.find(|event| event.kind == entry.kind && key_of(&event.id) == entry.key);
        Ok(event.map(|event| Item {
            kind: entry.kind,
            id: event.id,
            selector: event.selector,
            published_at: UnixMicros(entry.published_at),
            received_at: UnixMicros(sighting.received_at),
            provider_at,
            envelope,
        }))
    }
}

/// A shelf for tests that cannot be read.
#[cfg(test)]
pub(crate) struct Torn;

#[cfg(test)]
impl Shelf for Torn {
    fn fetch(&mut self, place: u64) -> Result<Option<Bytes>, Unreadable> {
        Err(Unreadable(format!("place {place}")))
    }
}

/// A past for tests: envelopes with the time they were received, looked at from `now`.
#[cfg(test)]
pub(crate) fn with_past<R>(
    provider: Provider,
    envelopes: &[(UnixMicros, &str)],
    now: UnixMicros,
    look: impl FnOnce(&mut Past<'_>) -> R,
) -> R {
    let mut index = Index::default();
    let mut shelf = Vec::new();
    for (received_at, envelope) in envelopes {
        index.note(*received_at, &decode(provider, envelope.as_bytes()), shelf.len() as u64);
        shelf.push(Bytes::copy_from_slice(envelope.as_bytes()));
    }
    look(&mut Past::new(provider, &mut index, &mut shelf, now))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::model::TweetId;

    const ALL_TIME: Range<UnixMicros> = UnixMicros(i64::MIN)..UnixMicros(i64::MAX);

    fn second(seconds: i64) -> UnixMicros {
        UnixMicros(1_767_614_400_000_000 + seconds * 1_000_000)
    }

    /// The id of a post that was published in that second.
    fn id(seconds: i64) -> u64 {
        TweetId::first_at(second(seconds)).0
    }

    fn content(seconds: i64, text: &str) -> String {
        let (id, at) = (id(seconds), second(seconds).millis());
        format!(
            r#"{{"v":1,"t":"tweet","op":"content","id":"{id}","ts":{at},"d":{{"tweetId":"{id}","text":"{text}","createdAt":{at},"author":{{"handle":"@a"}}}}}}"#
        )
    }

    fn meta(seconds: i64) -> String {
        let id = id(seconds);
        format!(r#"{{"v":1,"t":"tweet","op":"meta","id":"{id}","ts":1,"d":{{"tweetId":"{id}"}}}}"#)
    }

    fn texts(past: &mut Past<'_>, published: Range<UnixMicros>) -> Vec<String> {
        let mut texts = Vec::new();
        past.newest(&[EventKind::Tweet], published, |item| {
            let value: serde_json::Value = serde_json::from_slice(&item.envelope).unwrap();
            texts.push(value["d"]["text"].as_str().unwrap().to_owned());
            ControlFlow::Continue(())
        })
        .unwrap();
        texts
    }

    #[test]
    fn knows_what_exists_and_in_which_version() {
        // Out of order, late, changed later, and one received before it says it was published.
        let envelopes = [
            (second(3), content(2, "two")),
            (second(4), content(1, "one")),
            (second(5), meta(1)),
            (second(20), content(10, "ten")),
            (second(30), content(1, "one again")),
            (second(31), content(40, "early")),
        ];
        let envelopes: Vec<_> = envelopes.iter().map(|(at, text)| (*at, text.as_str())).collect();
        let at = |now: i64, span: Range<UnixMicros>| {
            with_past(Provider::Tweetstream, &envelopes, second(now), |past| texts(past, span))
        };
        assert_eq!(at(0, ALL_TIME), [""; 0]);
        assert_eq!(at(1, ALL_TIME), ["one"], "it exists from when it was published");
        assert_eq!(at(4, ALL_TIME), ["two", "one"]);
        assert_eq!(at(29, ALL_TIME), ["ten", "two", "one"]);
        assert_eq!(at(31, ALL_TIME), ["early", "ten", "two", "one again"]);
        assert_eq!(at(50, second(1)..second(10)), ["two", "one again"], "from is inside, to is not");
        with_past(Provider::Tweetstream, &envelopes, second(4), |past| {
            let one = EventId::Tweet(TweetId(id(1)));
            assert!(past.has(EventKind::Tweet, &one) && !past.has(EventKind::Meta, &one), "meta exists when received");
            let item = past.get(EventKind::Tweet, &one).unwrap().unwrap();
            assert_eq!((item.published_at, item.received_at), (second(1), second(4)));
            assert!(past.get(EventKind::Tweet, &EventId::Tweet(TweetId(7))).unwrap().is_none());
        });
        with_past(Provider::Tweetstream, &envelopes, second(30), |past| {
            let mut seen = Vec::new();
            for (id, kind) in [(id(1), EventKind::Tweet), (id(40), EventKind::Tweet), (7, EventKind::Meta)] {
                past.versions(kind, &EventId::Tweet(TweetId(id)), |item| {
                    seen.push(item.received_at);
                    ControlFlow::Continue(())
                })
                .unwrap();
            }
            assert_eq!(seen, [second(30), second(4)], "only what was received by now");
        });
    }

    #[test]
    fn lists_deliveries_newest_first() {
        let rule = |id: u64, rule: &str| {
            format!(
                r#"{{"type":"new_tweet","source":"filter_rule","rule_id":"{rule}","rule_tag":"t","tweet_id":"{id}","detected_at":"2026-01-05T12:00:00Z"}}"#
            )
        };
        let envelopes = [(second(1), rule(id(0), "a")), (second(2), rule(id(0), "b")), (second(9), rule(id(8), "a"))];
        let envelopes: Vec<_> = envelopes.iter().map(|(at, text)| (*at, text.as_str())).collect();
        with_past(Provider::Scrapebadger, &envelopes, second(5), |past| {
            let mut seen = Vec::new();
            past.deliveries(&[EventKind::Tweet], ALL_TIME, |n, item| {
                seen.push((n, item.selector.clone()));
                ControlFlow::Continue(())
            })
            .unwrap();
            assert_eq!(seen, [(1, "b".to_owned()), (0, "a".to_owned())]);
            let selectors: Vec<_> = past.selectors(|_| false).unwrap().into_iter().map(|(name, _)| name).collect();
            assert_eq!(selectors, ["a", "b"]);
        });
        // The clock went back between: none is lost, each is found by the instant it is told with.
        let envelopes = [
            (second(3), rule(id(0), "a")),
            (second(1), rule(id(1), "b")),
            (second(2), rule(id(2), "c")),
            (second(4), rule(id(3), "d")),
        ];
        let envelopes: Vec<_> = envelopes.iter().map(|(at, text)| (*at, text.as_str())).collect();
        with_past(Provider::Scrapebadger, &envelopes, second(5), |past| {
            let mut seen = Vec::new();
            let mut look = |n: u64, item: &Item| {
                seen.push((n, item.received_at));
                ControlFlow::Continue(())
            };
            past.deliveries(&[EventKind::Tweet], ALL_TIME, &mut look).unwrap();
            past.deliveries(&[EventKind::Tweet], second(3)..second(4), &mut look).unwrap();
            let all = [(3, second(4)), (2, second(3)), (1, second(3)), (0, second(3))];
            assert_eq!(seen, [&all[..], &all[1..]].concat());
        });
    }

    #[test]
    fn lists_every_delivery_although_a_time_goes_back() {
        let rule = |id: u64| format!(r#"{{"type":"new_tweet","source":"monitor","monitor_id":"a","tweet_id":"{id}"}}"#);
        let envelopes = [(second(2), rule(id(0))), (second(9), rule(id(1))), (second(3), rule(id(2)))];
        let envelopes: Vec<_> = envelopes.iter().map(|(at, text)| (*at, text.as_str())).collect();
        let numbers = |now: i64, span: Range<UnixMicros>| {
            with_past(Provider::Scrapebadger, &envelopes, second(now), |past| {
                let mut seen = Vec::new();
                past.deliveries(&[EventKind::Tweet], span, |n, item| {
                    seen.push((n, item.received_at));
                    ControlFlow::Continue(())
                })
                .unwrap();
                seen
            })
        };
        assert_eq!(numbers(5, ALL_TIME), [(0, second(2))], "what is played later is not there yet");
        assert_eq!(numbers(9, ALL_TIME), [(2, second(9)), (1, second(9)), (0, second(2))]);
        assert_eq!(numbers(9, second(9)..second(10)), [(2, second(9)), (1, second(9))]);
    }
}
