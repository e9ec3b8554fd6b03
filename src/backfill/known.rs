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

/// So many posts at one end of a gap, none of which history has, are no accident: one may have been deleted.
const WITNESSES_MIN: usize = 3;

/// Posts that came live at both ends of a gap: a history that has none of them does not reach so far.
#[derive(Debug, Default)]
struct Witnesses {
    window: Range<u64>,
    at_beginning: BTreeSet<u64>,
    at_end: BTreeSet<u64>,
    /// Whether history gave one of them.
    has_beginning: bool,
    has_end: bool,
    /// The oldest post of the gap that it gave, and the newest.
    oldest: Option<u64>,
    newest: Option<u64>,
}

impl Witnesses {
    /// History gave a post.
    fn see(&mut self, id: u64) {
        self.has_beginning |= self.at_beginning.contains(&id);
        self.has_end |= self.at_end.contains(&id);
        if self.window.contains(&id) {
            self.oldest = Some(self.oldest.map_or(id, |oldest| oldest.min(id)));
            self.newest = Some(self.newest.map_or(id, |newest| newest.max(id)));
        }
    }

    /// What history does not reach, in published time, and how many posts say so.
    fn unreached(&self) -> Vec<(UnixMicros, UnixMicros, usize)> {
        let at = |id: u64| TweetId(id).published_at().unwrap_or(UnixMicros(0));
        let (from, to) = (at(self.window.start), at(self.window.end));
        let mut unreached = Vec::new();
        if !self.has_beginning && self.at_beginning.len() >= WITNESSES_MIN {
            unreached.push((from, self.oldest.map_or(to, at), self.at_beginning.len()));
        }
        if !self.has_end && self.at_end.len() >= WITNESSES_MIN {
            unreached.push((self.newest.map_or(from, |id| at(id).plus(ONE_ID)), to, self.at_end.len()));
        }
        unreached.retain(|(from, to, _)| from < to);
        unreached
    }
}

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
    witnesses: Witnesses,
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

    /// What came live within `edge` of the ends of `[from, to)` is looked for in what history gives.
    pub(super) fn expect(&mut self, from: UnixMicros, to: UnixMicros, edge: Duration) {
        // Ends that meet in the middle prove nothing of each other.
        let edge = edge.min(Duration::from_micros(u64::try_from(to.0.saturating_sub(from.0)).unwrap_or(0) / 2));
        let of = |window: Range<u64>| self.posts.iter().copied().filter(|id| window.contains(id)).collect();
        let (at_beginning, at_end) = (of(ids(from, from.plus(edge))), of(ids(to.minus(edge), to)));
        self.witnesses = Witnesses { window: ids(from, to), at_beginning, at_end, ..Witnesses::default() };
    }

    /// What history was to bring and did not is not proven, whatever its pages look like.
    pub(super) fn amend(&self, verdict: &mut Verdict) {
        let Some((_, proof)) = verdict.kinds.iter_mut().find(|(kind, _)| *kind == EventKind::Tweet) else { return };
        for (from, to, n) in self.witnesses.unreached() {
            let why = format!("the history has none of the {n} posts that came live at that end: it does not reach so far");
            lack(proof, [(from, to)], why);
        }
        let Some(first) = self.bare.first() else { return };
        let more = if self.bare.len() > 1 { format!(" and {} more were", self.bare.len() - 1) } else { " was".to_owned() };
        let why = format!(
            "post {first}{more} spoken of, and neither the stream nor the history has the content: deleted, or by an account that \
             is not tracked any more"
        );
        let published = self.bare.iter().filter_map(|id| TweetId(*id).published_at());
        lack(proof, published.map(|at| (at, at.plus(ONE_ID))), why);
    }

    /// Reads again what came since a walk began that is gone on with: of what is no post, the index knows nothing.
    pub(super) fn recall(&mut self, tape: &Tape, source: &str, provider: Provider, from_n: Seq) -> Result<(), ArchiveError> {
        let mut records = tape.records(source, Span { from_n: Some(from_n), ..Span::default() })?;
        while let Some(record) = records.next()? {
            if matches!(record.kind, RecordKind::Frame | RecordKind::Http) {
                let events = decode_record(provider, record.via, &record.body).events;
                for event in &events {
                    self.note(event.kind, &event.id);
                    if let (RecordKind::Http, EventId::Tweet(id)) = (record.kind, &event.id) {
                        self.witnesses.see(id.0);
                    }
                }
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
            EventId::Tweet(id) => {
                // Asked about it is what history gives.
                self.witnesses.see(id.0);
                self.posts.contains(&id.0)
            }
            EventId::Text(_) => self.others.contains(&(kind, id.clone())),
        }
    }
}

/// Takes stretches out of what is proven.
fn lack(proof: &mut Proof, stretches: impl IntoIterator<Item = (UnixMicros, UnixMicros)>, lack: String) {
    let mut missing = IntervalSet::new();
    stretches.into_iter().for_each(|(from, to)| missing.insert(from, to));
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

    #[test]
    fn a_history_without_what_came_live_does_not_reach_so_far() {
        let edge = Duration::from_secs(30);
        let proof = |came: &[i64], gave: &[i64]| {
            let mut held = Held { posts: came.iter().map(|s| post(*s).0).collect(), ..Held::default() };
            held.expect(second(100), second(900), edge);
            for s in gave {
                held.holds(EventKind::Tweet, &EventId::Tweet(post(*s)));
            }
            let mut verdict = Verdict { kinds: vec![(EventKind::Tweet, Proof::Filled)], evidence: String::new() };
            held.amend(&mut verdict);
            verdict.kinds.remove(0).1
        };
        let rest = |proof: Proof| match proof {
            Proof::Partial { rest, why } => {
                assert!(why.starts_with("the history has none of the 3 posts"), "{why}");
                rest
            }
            other => panic!("{other:?}"),
        };
        let published = |s: i64| post(s).published_at().unwrap();
        // At the beginning, at the end, at both.
        assert_eq!(rest(proof(&[101, 110, 120, 880], &[400, 500])), [(second(100), published(400))]);
        assert_eq!(rest(proof(&[101, 871, 880, 890], &[101, 500])), [(published(500).plus(ONE_ID), second(900))]);
        let both = [101, 110, 120, 871, 880, 890];
        assert_eq!(rest(proof(&both, &[])), [(second(100), second(900))]);
        // One of them is enough; two may have been deleted; what lies further inside says nothing.
        assert_eq!(proof(&both, &[110, 400, 890]), Proof::Filled);
        assert_eq!(proof(&[101, 110, 880, 890, 300, 400], &[]), Proof::Filled);
    }
}
