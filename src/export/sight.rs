//! From records to sightings: what an envelope says, cut into the rows of the tables and put into the spool.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::code::{Code, fields};
use super::drift::Drift;
use super::schema::Table;
use super::spool::{Key, Part, Runs, Spool};
use crate::archive::Record;
use crate::model::{
    Dm, Engagement, EventId, EventKind, Extra, Follow, Message, Platform, Post, ProfileChange, Provider, RecordKind, Row, Said,
    TweetId, UnixMicros, Via,
};
use crate::provider::shift::may_be_truth_social;
use crate::provider::{RowSink, Surprise, Told, read_rows};

/// Records whose dates are remembered together: what an export has to read again when one of their dates changes.
pub(super) const GRANULE: u64 = 1_024;

/// How a sighting came.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Came {
    pub(super) received_at: UnixMicros,
    pub(super) via: Via,
    pub(super) provider: Provider,
    /// Number of the gap that was being filled, in the same source.
    pub(super) gap: Option<u64>,
}

/// One envelope's words about one post.
#[derive(Debug)]
pub(super) struct PostSight<'a> {
    pub(super) came: Came,
    pub(super) kind: EventKind,
    pub(super) published_at: Option<UnixMicros>,
    pub(super) selector: Cow<'a, str>,
    pub(super) selector_name: Option<Cow<'a, str>>,
    pub(super) post: Post<'a>,
}

/// An event.
pub(super) struct EventSight<'a> {
    pub(super) provider_at: Option<UnixMicros>,
    pub(super) came: Came,
    pub(super) kind: EventKind,
    /// Its id, where it is not [`tweet_id`](Self::tweet_id) in digits.
    pub(super) id: Option<Cow<'a, str>>,
    pub(super) tweet_id: Option<u64>,
    pub(super) selector: Cow<'a, str>,
    pub(super) selector_name: Option<Cow<'a, str>>,
    pub(super) published_at: Option<UnixMicros>,
    pub(super) extra: Extra,
}

/// An envelope, or a page.
pub(super) struct EnvelopeSight<'a> {
    pub(super) came: Came,
    pub(super) is_page: bool,
    pub(super) conn: u64,
    pub(super) is_json: bool,
    pub(super) events: u64,
    pub(super) problem: Option<Cow<'a, str>>,
    pub(super) body: &'a [u8],
}

/// A change of a profile.
pub(super) struct ProfileSight<'a> {
    pub(super) came: Came,
    pub(super) id: Cow<'a, str>,
    pub(super) change: ProfileChange<'a>,
}

/// A follow or unfollow.
pub(super) struct FollowSight<'a> {
    pub(super) came: Came,
    pub(super) kind: EventKind,
    pub(super) id: Cow<'a, str>,
    pub(super) follow: Follow<'a>,
}

/// A reading of counters.
pub(super) struct EngagementSight<'a> {
    pub(super) came: Came,
    pub(super) tweet_id: Option<u64>,
    pub(super) published_at: Option<UnixMicros>,
    pub(super) engagement: Engagement<'a>,
}

/// Something in a conversation.
pub(super) struct DmSight<'a> {
    pub(super) came: Came,
    pub(super) kind: EventKind,
    pub(super) published_at: Option<UnixMicros>,
    pub(super) dm: Dm<'a>,
}

fields! {
    Came { received_at, via, provider, gap }
    PostSight<'a> { came, kind, published_at, selector, selector_name, post }
    EventSight<'a> { provider_at, came, kind, id, tweet_id, selector, selector_name, published_at, extra }
    EnvelopeSight<'a> { came, is_page, conn, is_json, events, problem, body }
    ProfileSight<'a> { came, id, change }
    FollowSight<'a> { came, kind, id, follow }
    EngagementSight<'a> { came, tweet_id, published_at, engagement }
    DmSight<'a> { came, kind, published_at, dm }
}

/// When a post was published, as its id says: the same for every sighting of it.
pub(super) fn published_at(platform: Platform, id: u64) -> Option<UnixMicros> {
    match platform {
        Platform::X => TweetId(id).published_at(),
        Platform::TruthSocial => may_be_truth_social(id).then(|| UnixMicros::from_millis((id >> 16) as i64)),
    }
}

/// A post's id and platform as one number, in the order of ids.
pub(super) fn name_post(platform: Platform, id: u64) -> u128 {
    u128::from(id) << 8 | platform as u128
}

/// What [`name_post`] made a number of.
pub(super) fn post_named(name: u128) -> (Platform, u64) {
    let platform = if name & 0xff == Platform::X as u128 { Platform::X } else { Platform::TruthSocial };
    (platform, (name >> 8) as u64)
}

/// Which post an event is about; `None` for an id that is no post's, or beyond 63 bits.
fn post_of(provider: Provider, kind: EventKind, id: &EventId, platform: Option<Platform>) -> Option<(Platform, u64)> {
    let (platform, id) = match id {
        EventId::Text(text) => (Platform::TruthSocial, TweetId::parse(text.strip_prefix("truth_social:")?)?.0),
        EventId::Tweet(id) => {
            // Only TweetStream has Truth Social's posts, and what is not content need not say whose post it is about.
            let is_theirs = provider == Provider::Tweetstream && kind != EventKind::Tweet && may_be_truth_social(id.0);
            (platform.unwrap_or(if is_theirs { Platform::TruthSocial } else { Platform::X }), id.0)
        }
    };
    i64::try_from(id).is_ok().then_some((platform, id))
}

/// What is wanted of the tape.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    /// By table.
    pub(super) tables: [bool; Table::ALL.len()],
    /// First instant, in the time by which a table is cut into dates.
    pub(super) from: Option<UnixMicros>,
    /// First instant no longer wanted.
    pub(super) to: Option<UnixMicros>,
    /// Whether known fields without a column are, too.
    pub(super) keeps_known: bool,
}

/// Which records in which source's numbers have something of a date: by source, then granule.
pub(super) type Days = BTreeMap<i64, BTreeSet<(u32, u64)>>;

/// What a worker has counted.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    /// Sightings put into the spool, by table.
    pub(super) sightings: [u64; Table::ALL.len()],
    /// Events about posts whose id no column can hold.
    pub(super) n_unplaced: u64,
    /// Envelopes that could not be read.
    pub(super) n_problems: u64,
    pub(super) records: u64,
    pub(super) days: Days,
    pub(super) drift: Drift,
}

/// Reads records, on one thread.
pub(super) struct Gatherer<'a> {
    wanted: &'a Wanted,
    only: Option<&'a HashSet<Part>>,
    spool: Spool<'a>,
    /// Of the record at hand.
    source: u32,
    source_name: &'a str,
    n: u64,
    came: Came,
    index: u32,
    /// Events of the record at hand: they wait for its stamp.
    events: Vec<(Key, std::ops::Range<usize>)>,
    waiting: Vec<u8>,
    gathered: Gathered,
    last_day: Option<(i64, u32, u64)>,
    failed: Option<io::Error>,
}

/// What stands beside a body.
#[derive(Default, Deserialize)]
struct Info {
    gap: Option<u64>,
    cause: Option<String>,
}

impl<'a> Gatherer<'a> {
    pub(super) fn new(wanted: &'a Wanted, only: Option<&'a HashSet<Part>>, runs: &'a Runs, bound: usize) -> Self {
        let came = Came { received_at: UnixMicros(0), via: Via::Own, provider: Provider::TwitterapiIo, gap: None };
        Self {
            wanted,
            only,
            spool: Spool::new(runs, bound),
            source: 0,
            source_name: "",
            n: 0,
            came,
            index: 0,
            events: Vec::new(),
            waiting: Vec::new(),
            gathered: Gathered::default(),
            last_day: None,
            failed: None,
        }
    }

    /// Ends the work.
    pub(super) fn finish(mut self) -> io::Result<Gathered> {
        self.spool.flush()?;
        Ok(self.gathered)
    }

    /// Takes a record of a source.
    pub(super) fn record(&mut self, (source, name, provider): (u32, &'a str, Provider), record: &Record) -> io::Result<()> {
        let is_page = record.kind == RecordKind::Http && matches!(record.via, Via::History | Via::Snapshot);
        if record.kind != RecordKind::Frame && !is_page {
            return Ok(());
        }
        let info: Info = record.info.as_deref().and_then(|info| serde_json::from_str(info).ok()).unwrap_or_default();
        (self.source, self.source_name, self.n, self.index) = (source, name, record.n.0, 0);
        self.came = Came { received_at: record.at, via: record.via, provider, gap: info.gap };
        self.gathered.records += 1;
        let told = read_rows(provider, record.via, &record.body, self);
        self.push_events(&told);
        let problem = problem(info.cause, &record.body, &told);
        self.gathered.n_problems += u64::from(problem.is_some());
        let (came, conn, is_json, events) = (self.came, record.conn.0, told.json, u64::from(self.index));
        self.put(Table::Envelopes, Some(record.at), 0, u32::MAX, |out| {
            EnvelopeSight { came, is_page, conn, is_json, events, problem, body: &record.body }.put(out);
        });
        self.failed.take().map_or(Ok(()), Err)
    }

    fn push_events(&mut self, told: &Told) {
        let (mut events, waiting) = (std::mem::take(&mut self.events), std::mem::take(&mut self.waiting));
        for (key, range) in events.drain(..) {
            let pushed = self.spool.push(key, |out| {
                told.provider_at.put(out);
                out.extend_from_slice(&waiting[range]);
            });
            self.keep(pushed);
        }
        (self.events, self.waiting) = (events, waiting);
        self.waiting.clear();
    }

    fn keep(&mut self, pushed: io::Result<()>) {
        if let Err(error) = pushed {
            self.failed.get_or_insert(error);
        }
    }

    /// The key of a sighting, counted; `None` when it is not wanted. Without `at` it has no date.
    fn key(&mut self, table: Table, at: Option<UnixMicros>, id: u128, index: u32) -> Option<Key> {
        let is_inside =
            |at: UnixMicros| self.wanted.from.is_none_or(|from| at >= from) && self.wanted.to.is_none_or(|to| at < to);
        let is_wanted = match at {
            Some(at) => is_inside(at),
            None => self.wanted.from.is_none() && self.wanted.to.is_none(),
        };
        if !is_wanted || !self.wanted.tables[table as usize] {
            return None;
        }
        let part = Part { table, day: at.map_or(Part::NO_DAY, Part::day_of) };
        if self.only.is_some_and(|only| !only.contains(&part)) {
            return None;
        }
        let place = (part.day, self.source, self.n / GRANULE);
        if self.last_day != Some(place) {
            self.last_day = Some(place);
            self.gathered.days.entry(part.day).or_default().insert((place.1, place.2));
        }
        self.gathered.sightings[table as usize] += 1;
        Some(Key { part, at: at.map_or(0, |at| at.0), id, source: self.source, n: self.n, index })
    }

    fn put(&mut self, table: Table, at: Option<UnixMicros>, id: u128, index: u32, write: impl FnOnce(&mut Vec<u8>)) {
        if let Some(key) = self.key(table, at, id, index) {
            let pushed = self.spool.push(key, write);
            self.keep(pushed);
        }
    }

    fn post(&mut self, post: Box<Post<'_>>, row: &Row<'_>, index: u32) {
        let Some((platform, id)) = post_of(self.came.provider, row.event.kind, &row.event.id, post.platform) else {
            self.gathered.n_unplaced += 1;
            return;
        };
        let sight = PostSight {
            came: self.came,
            kind: row.event.kind,
            published_at: row.event.published_at,
            selector: Cow::Borrowed(&row.event.selector),
            selector_name: row.selector_name.clone(),
            post: *post,
        };
        self.put(Table::Tweets, published_at(platform, id), name_post(platform, id), index, |out| sight.put(out));
    }
}

impl RowSink for Gatherer<'_> {
    fn keeps_known(&self) -> bool {
        self.wanted.keeps_known
    }

    fn row(&mut self, mut row: Row<'_>) {
        let index = self.index;
        self.index += 1;
        let came = self.came;
        let EventKindAnd { kind, id, tweet_id, published_at: stamp } = of_event(came.provider, &row);
        let at = stamp.unwrap_or(came.received_at);
        let about = |id: &Option<Cow<'_, str>>| xxhash_rust::xxh3::xxh3_128(id.as_deref().unwrap_or_default().as_bytes());
        let mut extra = Extra::default();
        match std::mem::replace(&mut row.said, Said::Other(Extra::default())) {
            Said::Post(post) => self.post(post, &row, index),
            Said::Profile(change) => {
                let (about, id) = (about(&id), id.clone().unwrap_or_default());
                let sight = ProfileSight { came, id, change: *change };
                self.put(Table::ProfileChanges, Some(at), about, index, |out| sight.put(out));
            }
            Said::Follow(follow) => {
                let about = about(&id) ^ u128::from(kind.code());
                let sight = FollowSight { came, kind, id: id.clone().unwrap_or_default(), follow: *follow };
                self.put(Table::Follows, Some(at), about, index, |out| sight.put(out));
            }
            Said::Engagement(engagement) => {
                let sight = EngagementSight { came, tweet_id, published_at: stamp, engagement: *engagement };
                self.put(Table::Engagement, Some(at), u128::from(tweet_id.unwrap_or(0)), index, |out| sight.put(out));
            }
            Said::Dm(dm) => {
                let sight = DmSight { came, kind, published_at: stamp, dm: *dm };
                self.put(Table::DmActivity, Some(at), 0, index, |out| sight.put(out));
            }
            Said::Other(said) => extra = said,
        }
        if let Some(key) = self.key(Table::Events, Some(at), 0, index) {
            let start = self.waiting.len();
            let (selector, selector_name) = (Cow::Borrowed(row.event.selector.as_str()), row.selector_name.take());
            let sight =
                EventSight { provider_at: None, came, kind, id, tweet_id, selector, selector_name, published_at: stamp, extra };
            // The stamp, which stands first, is known when all of the envelope is read.
            sight.came.put(&mut self.waiting);
            sight.put_rest(&mut self.waiting);
            self.events.push((key, start..self.waiting.len()));
        }
    }

    fn surprise(&mut self, surprise: Surprise<'_>) {
        let seen = (self.came.received_at, self.source_name, self.n);
        self.gathered.drift.note(self.came.provider, seen, &surprise);
    }
}

impl EventSight<'_> {
    /// All that follows `came`.
    fn put_rest(&self, out: &mut Vec<u8>) {
        self.kind.put(out);
        self.id.put(out);
        self.tweet_id.put(out);
        self.selector.put(out);
        self.selector_name.put(out);
        self.published_at.put(out);
        self.extra.put(out);
    }
}

/// What tables want to know of an event.
struct EventKindAnd<'a> {
    kind: EventKind,
    id: Option<Cow<'a, str>>,
    tweet_id: Option<u64>,
    published_at: Option<UnixMicros>,
}

fn of_event<'a>(provider: Provider, row: &Row<'_>) -> EventKindAnd<'a> {
    let platform = match &row.said {
        Said::Post(post) => post.platform,
        _ => None,
    };
    let kind = row.event.kind;
    let post = kind.names_a_tweet().then(|| post_of(provider, kind, &row.event.id, platform)).flatten();
    let id = match (&row.event.id, post) {
        (EventId::Tweet(_), Some(_)) => None,
        (EventId::Tweet(id), None) => Some(Cow::Owned(id.to_string())),
        (EventId::Text(text), _) => Some(Cow::Owned(text.clone())),
    };
    let by_id = post.and_then(|(platform, id)| published_at(platform, id));
    EventKindAnd { kind, id, tweet_id: post.map(|(_, id)| id), published_at: by_id.or(row.event.published_at) }
}

/// Why an envelope could not be read.
fn problem(cause: Option<String>, body: &[u8], told: &Told) -> Option<Cow<'static, str>> {
    if let Some(cause) = cause {
        return Some(cause.into());
    }
    if told.json {
        return (told.message == Message::Unknown).then(|| "no message that is known of this provider".into());
    }
    if std::str::from_utf8(body).is_err() {
        return Some("not UTF-8".into());
    }
    match serde_json::from_slice::<IgnoredAny>(body) {
        Err(error) => Some(format!("not JSON: {error}").into()),
        Ok(_) => Some("not one JSON object or array on one line".into()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_post_lies_under_one_date_whatever_was_said_of_it() {
        let (x, truth) = (TweetId(2_064_689_031_777_615_872), TweetId(116_334_902_567_890_770));
        let of = |kind, id: EventId, platform| post_of(Provider::Tweetstream, kind, &id, platform);
        let named = EventId::Text(format!("truth_social:{truth}"));
        assert_eq!(of(EventKind::Tweet, named, Some(Platform::TruthSocial)), Some((Platform::TruthSocial, truth.0)));
        assert_eq!(of(EventKind::Delete, EventId::Tweet(truth), None), Some((Platform::TruthSocial, truth.0)));
        assert_eq!(of(EventKind::Tweet, EventId::Tweet(truth), None), Some((Platform::X, truth.0)), "content says whose it is");
        assert_eq!(of(EventKind::Delete, EventId::Tweet(x), None), Some((Platform::X, x.0)));
        assert_eq!(
            post_of(Provider::TwitterapiIo, EventKind::Delete, &EventId::Tweet(truth), None),
            Some((Platform::X, truth.0))
        );
        assert_eq!(of(EventKind::Tweet, EventId::Tweet(TweetId(u64::MAX)), None), None, "no column holds it");
        assert_eq!(of(EventKind::Tweet, EventId::Text("note".to_owned()), None), None);
        assert_eq!(published_at(Platform::TruthSocial, truth.0), Some(UnixMicros::from_millis((truth.0 >> 16) as i64)));
        assert_eq!(published_at(Platform::X, 20), None);
    }
}
