//! What is on the tape already, as far as one gap is concerned.

use std::collections::{BTreeSet, HashSet};
use std::ops::Range;
use std::time::Duration;

use crate::archive::{ArchiveError, Record, Span, Tape};
use crate::model::{EventId, EventKind, IntervalSet, Provider, RecordKind, Seq, TweetId, UnixMicros};
use crate::provider::decode_record;
use crate::provider::history::{Known, Proof, Verdict};

/// An id says when its post was published, to the millisecond.
const ONE_ID: Duration = Duration::from_millis(1);

/// The posts of a window that are on the tape, and everything that came while it was filled.
///
/// The tape's index knows ids and not what was said about them: a post whose `meta` alone is there counts as known. That its
/// content is missing is remembered, and goes into the verdict.
#[derive(Debug, Default)]
pub(super) struct Held {
    posts: HashSet<u64>,
    others: HashSet<(EventKind, EventId)>,
    /// Posts of the gap that something was said about and whose content is nowhere on the tape.
    bare: BTreeSet<u64>,
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
        let window = ids(from, to);
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
        Ok(Self { posts, ..Self::default() })
    }

    /// Looks for posts published in `[from, to)` that were spoken of and whose content never came. Only TweetStream speaks of
    /// a post beside its content.
    pub(super) fn look_for_bare(
        &mut self,
        tape: &Tape,
        source: &str,
        from: UnixMicros,
        to: UnixMicros,
    ) -> Result<(), ArchiveError> {
        let provider = tape.source(source)?.provider.parse();
        let Ok(provider @ Provider::Tweetstream) = provider else { return Ok(()) };
        let window = ids(from, to);
        let (mut spoken_of, mut came) = (BTreeSet::new(), HashSet::new());
        let mut look = |record: &Record| {
            for event in decode_record(provider, record.via, &record.body).events {
                match event.id {
                    EventId::Tweet(id) if !window.contains(&id.0) => {}
                    EventId::Tweet(id) if event.kind == EventKind::Tweet => drop(came.insert(id.0)),
                    EventId::Tweet(id) => drop(spoken_of.insert(id.0)),
                    EventId::Text(_) => {}
                }
            }
        };
        // In this order, as above.
        tape.unindexed(source, |record| look(&record))?;
        for run in runs(tape, source, &window)? {
            let mut records = tape.records(source, Span { from_n: Some(Seq(run.start)), ..Span::default() })?;
            while let Some(record) = records.next()?.filter(|record| record.n.0 < run.end) {
                if matches!(record.kind, RecordKind::Frame | RecordKind::Http) {
                    look(&record);
                }
            }
        }
        self.bare = spoken_of;
        self.bare.retain(|id| !came.contains(id));
        Ok(())
    }

    /// What history was to bring and did not is not proven, whatever its pages look like.
    pub(super) fn amend(&self, verdict: &mut Verdict) {
        let Some(first) = self.bare.first() else { return };
        let Some((_, proof)) = verdict.kinds.iter_mut().find(|(kind, _)| *kind == EventKind::Tweet) else { return };
        let more = if self.bare.len() > 1 { format!(" and {} more were", self.bare.len() - 1) } else { " was".to_owned() };
        let lack = format!(
            "post {first}{more} spoken of, and neither the stream nor the history has the content: deleted, or by an account that \
             is not tracked any more"
        );
        let mut missing = IntervalSet::new();
        for at in self.bare.iter().filter_map(|id| TweetId(*id).published_at()) {
            missing.insert(at, at.plus(ONE_ID));
        }
        match proof {
            Proof::Filled => *proof = Proof::Partial { rest: missing.iter().collect(), why: lack },
            Proof::Partial { rest, why } => {
                rest.iter().for_each(|(from, to)| missing.insert(*from, *to));
                *rest = missing.iter().collect();
                *why = if why.is_empty() { lack } else { format!("{why}; {lack}") };
            }
            Proof::Unfillable { .. } => {}
        }
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
            EventId::Tweet(id) => {
                self.posts.insert(id.0);
                if kind == EventKind::Tweet {
                    self.bare.remove(&id.0);
                }
            }
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

/// Ids of posts published in `[from, to)`.
fn ids(from: UnixMicros, to: UnixMicros) -> Range<u64> {
    TweetId::first_at(from).0..TweetId::first_at(to).0
}

/// Numbers of records in whose blocks such ids are, as far as blocks have an index; neighbours are one run.
fn runs(tape: &Tape, source: &str, window: &Range<u64>) -> Result<Vec<Range<u64>>, ArchiveError> {
    let mut runs: Vec<Range<u64>> = Vec::new();
    for segment in tape.catalog().segments(source)? {
        for block in tape.catalog().blocks(source, segment.first_n)? {
            if !block.ids.iter().any(|id| window.contains(&id)) {
                continue;
            }
            match runs.last_mut().filter(|run| run.end == block.first_n) {
                Some(run) => run.end = block.last_n + 1,
                None => runs.push(block.first_n..block.last_n + 1),
            }
        }
    }
    Ok(runs)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::archive::{ALL, Archive, Options, RealDisk};
    use crate::model::{Body, ConnId, Draft, SourceName, Via};
    use crate::provider::decode;

    fn second(s: i64) -> UnixMicros {
        UnixMicros(1_767_614_400_000_000 + s * 1_000_000)
    }

    /// A post that was published then.
    fn post(s: i64) -> TweetId {
        TweetId(TweetId::first_at(second(s)).0 + 7)
    }

    #[test]
    fn a_post_that_was_spoken_of_is_not_proven_without_its_content() {
        let (dir, name) = (tempfile::tempdir().unwrap(), SourceName::from(Provider::Tweetstream));
        // Small blocks, so that what is said later stands in another one.
        let options = Options { block_bytes: 300, ..Options::default() };
        let disk = Arc::new(RealDisk);
        let mut archive = Archive::open(dir.path(), disk.clone(), options, decode_record, "a test", second(0)).unwrap();
        archive.add_source(&name, Provider::Tweetstream).unwrap();
        archive.live(&name, ALL, Duration::from_secs(60), second(0), "a frame").unwrap();
        let says = [
            (1, "content", 1),
            (2, "meta", 1),
            (3, "meta", 2),
            (4, "delete", -500),
            (60, "content", 50),
            (900, "delete", 3),
            (901, "update", 4),
            (902, "content", 4),
        ];
        for (received, op, published) in says {
            let id = post(published);
            let text = format!(r#"{{"v":1,"t":"tweet","op":"{op}","d":{{"tweetId":"{id}","text":"{}"}}}}"#, "x".repeat(100));
            let draft = Draft {
                received_at: second(received),
                kind: RecordKind::Frame,
                via: Via::Ws,
                conn: ConnId(1),
                info: None,
                body: Body::Bytes(text.clone().into()),
            };
            archive.append(&name, &draft, Some(&decode(Provider::Tweetstream, text.as_bytes()))).unwrap();
            archive.commit(second(received)).unwrap();
        }
        let bare = |tape: &Tape| {
            let mut held = Held::of(tape, name.as_str(), Provider::Tweetstream, second(0), second(40)).unwrap();
            held.look_for_bare(tape, name.as_str(), second(0), second(40)).unwrap();
            held
        };
        // Beside a recorder, and afterwards.
        let missing = [post(2).0, post(3).0];
        assert!(bare(&Tape::open(dir.path(), disk.clone()).unwrap()).bare.into_iter().eq(missing));
        archive.close(second(1_000)).unwrap();
        let mut held = bare(&Tape::open(dir.path(), disk).unwrap());
        assert!(held.bare.iter().copied().eq(missing));

        let says = |held: &Held, proof: Proof| {
            let mut verdict = Verdict { kinds: vec![(EventKind::Tweet, proof)], evidence: String::new() };
            held.amend(&mut verdict);
            verdict.kinds.remove(0).1
        };
        let Proof::Partial { rest, why } = says(&held, Proof::Filled) else { panic!("it is called filled") };
        let at = |s: i64| (second(s), second(s).plus(ONE_ID));
        assert_eq!(rest, [at(2), at(3)]);
        assert!(why.starts_with(&format!("post {} and 1 more were spoken of", post(2))), "{why}");
        let half = Proof::Partial { rest: vec![(second(3), second(9))], why: "a page was lost".to_owned() };
        let Proof::Partial { rest, why } = says(&held, half) else { panic!("it is called filled") };
        assert_eq!(rest, [at(2), (second(3), second(9))]);
        assert!(why.starts_with("a page was lost; post "), "{why}");

        // History brings the one, and of the other only what was said about it again.
        held.note(EventKind::Tweet, &EventId::Tweet(post(2)));
        held.note(EventKind::Meta, &EventId::Tweet(post(3)));
        assert!(held.bare.iter().copied().eq([post(3).0]));
        held.note(EventKind::Tweet, &EventId::Tweet(post(3)));
        assert_eq!(says(&held, Proof::Filled), Proof::Filled);
    }
}
