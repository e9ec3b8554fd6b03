//! Everything that was said of one post, merged into one row.
//!
//! Versions are ordered: content with words and counters before content with words before content without before what is
//! no content (meta, updates, deletes); among equals the later received, then the later by source and number. Each column
//! about the post takes the first version in that order that says something, so a field that only a poorer version has is
//! not lost. What is about our seeing it (first and last, rules, ways) is summed up over all.

use std::ops::Range;

use super::code::Code;
use super::sheet::Cells;
use super::sight::{PostSight, post_named, published_at};
use super::spool::Key;
use crate::model::{Counts, EventKind, Nested, Post, Provider, UnixMicros, Via};

/// Versions held at once. More are melted into one, which keeps the rank of the richest.
pub(super) const MOST_VERSIONS: usize = 256;

/// In which order versions are asked: the greatest first.
type Rank = (u8, UnixMicros, u32, u64, u32);

/// When, by which record: orders sightings in time.
type When = (UnixMicros, u32, u64, u32);

/// One post that has more sightings than are held at once.
#[derive(Default)]
pub(super) struct Merging {
    key: Option<Key>,
    bytes: Vec<u8>,
    versions: Vec<(Key, Range<usize>)>,
    /// Rank and key of what the first version was melted from.
    melted: Option<(Rank, Key)>,
    seen: Seen,
}

/// What is summed up over all sightings.
#[derive(Default)]
struct Seen {
    count: u64,
    first: Option<(When, Option<(u32, u64)>)>,
    last: Option<UnixMicros>,
    live: Option<UnixMicros>,
    detected: Option<UnixMicros>,
    first_counts: Option<(When, Counts)>,
    last_counts: Option<(When, Counts)>,
    deleted: Option<UnixMicros>,
    is_deleted: bool,
    /// The last pin or unpin, and since when it is pinned.
    pinned: Option<(When, Option<UnixMicros>)>,
    rules: Vec<(u32, String, Option<String>)>,
    sources: Vec<u32>,
    providers: Vec<Provider>,
    via: Vec<Via>,
}

fn rank(key: &Key, sight: &PostSight<'_>) -> Rank {
    let post = &sight.post;
    let richness = match (sight.kind == EventKind::Tweet, post.text.is_some(), post.counts != Counts::default()) {
        (true, true, true) => 3,
        (true, true, false) => 2,
        (true, false, _) => 1,
        (false, ..) => 0,
    };
    (richness, sight.came.received_at, key.source, key.n, key.index)
}

fn keep<T: PartialEq>(list: &mut Vec<T>, value: T) {
    if !list.contains(&value) {
        list.push(value);
    }
}

impl Seen {
    fn add(&mut self, key: &Key, sight: &PostSight<'_>) {
        let came = &sight.came;
        let when = (came.received_at, key.source, key.n, key.index);
        self.count += 1;
        if self.first.is_none_or(|(first, _)| when < first) {
            self.first = Some((when, came.gap.map(|gap| (key.source, gap))));
        }
        self.last = self.last.max(Some(came.received_at));
        if matches!(came.via, Via::Ws | Via::Sse | Via::Lines | Via::Webhook) {
            self.live = earlier(self.live, Some(came.received_at));
        }
        if sight.post.counts != Counts::default() {
            if self.first_counts.is_none_or(|(first, _)| when < first) {
                self.first_counts = Some((when, sight.post.counts));
            }
            if self.last_counts.is_none_or(|(last, _)| when > last) {
                self.last_counts = Some((when, sight.post.counts));
            }
        }
        let noticed = sight.post.detected_at.unwrap_or(came.received_at);
        match sight.kind {
            EventKind::Tweet => self.detected = earlier(self.detected, sight.post.detected_at),
            EventKind::Delete => {
                self.is_deleted = true;
                self.deleted = earlier(self.deleted, Some(noticed));
            }
            EventKind::Pin | EventKind::Unpin if self.pinned.is_none_or(|(last, _)| when > last) => {
                self.pinned = Some((when, (sight.kind == EventKind::Pin).then_some(noticed)));
            }
            _ => {}
        }
        if !sight.selector.is_empty() {
            self.rule(key.source, &sight.selector, sight.selector_name.as_deref());
        }
        keep(&mut self.sources, key.source);
        keep(&mut self.providers, came.provider);
        keep(&mut self.via, came.via);
    }

    fn rule(&mut self, source: u32, id: &str, name: Option<&str>) {
        let known = self.rules.iter_mut().find(|(of, known, _)| (*of, known.as_str()) == (source, id));
        match known {
            // A name that changed: the last by number counts, as sightings of a source come in its order.
            Some((_, _, known)) => {
                if let Some(name) = name.filter(|name| known.as_deref() != Some(name)) {
                    *known = Some(name.to_owned());
                }
            }
            None => self.rules.push((source, id.to_owned(), name.map(str::to_owned))),
        }
    }
}

fn earlier(one: Option<UnixMicros>, other: Option<UnixMicros>) -> Option<UnixMicros> {
    one.into_iter().chain(other).min()
}

/// Takes from a poorer version what the richer one does not say.
fn fill<'a>(post: &mut Post<'a>, from: Post<'a>) {
    macro_rules! fields {
        ($to:expr, $from:expr, $($field:ident),+) => { $(if $to.$field.is_none() { $to.$field = $from.$field; })+ };
    }
    macro_rules! lists {
        ($($field:ident),+) => { $(if post.$field.is_empty() { post.$field = from.$field; })+ };
    }
    fields!(
        post,
        from,
        kind,
        text,
        lang,
        url,
        client,
        conversation_id,
        in_reply_to_tweet_id,
        in_reply_to_user_id,
        in_reply_to_handle,
        is_sensitive,
        ocr_text
    );
    fields!(
        post.author,
        from.author,
        id,
        handle,
        name,
        bio,
        location,
        picture_url,
        created_at,
        followers,
        following,
        posts,
        is_blue_verified,
        verified_type
    );
    lists!(hashtags, symbols, mentions, urls, media, tokens);
    nested(&mut post.quoted, from.quoted);
    nested(&mut post.reposted, from.reposted);
    if post.extra.0.is_empty() {
        post.extra = from.extra;
    }
}

fn nested<'a>(to: &mut Option<Box<Nested<'a>>>, from: Option<Box<Nested<'a>>>) {
    match (to, from) {
        // Another post in its place is another version, not more of the same.
        (Some(to), Some(from)) if to.tweet_id.is_none() || from.tweet_id.is_none() || to.tweet_id == from.tweet_id => {
            to.tweet_id = to.tweet_id.or(from.tweet_id);
            to.author_id = to.author_id.or(from.author_id);
            to.author_handle = to.author_handle.take().or(from.author_handle);
            to.text = to.text.take().or(from.text);
        }
        (Some(_), _) => {}
        (to @ None, from) => *to = from,
    }
}

/// The row that came of it, with the key of its richest version.
struct Merged<'a> {
    rank: Rank,
    key: Key,
    sight: PostSight<'a>,
}

impl Merging {
    /// Whether a sighting belongs to the post at hand, or there is none yet.
    pub(super) fn is_of(&self, key: &Key) -> bool {
        self.key.is_none_or(|mine| mine.is_of(key))
    }

    /// Takes a sighting; `None` when its bytes are not whole.
    pub(super) fn add(&mut self, key: Key, bytes: &[u8]) -> Option<()> {
        self.key.get_or_insert(key);
        if self.versions.len() >= MOST_VERSIONS {
            self.melt()?;
        }
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        self.versions.push((key, start..self.bytes.len()));
        Some(())
    }

    fn melt(&mut self) -> Option<()> {
        let mut bytes = Vec::new();
        let mut seen = std::mem::take(&mut self.seen);
        let merged = merge(&self.versions, &self.bytes, self.melted, &mut seen)?;
        merged.sight.put(&mut bytes);
        let (rank, key) = (merged.rank, merged.key);
        self.seen = seen;
        self.melted = Some((rank, key));
        self.versions.clear();
        self.versions.push((key, 0..bytes.len()));
        self.bytes = bytes;
        Some(())
    }

    /// Writes the row. Gives how many sightings were merged into it, or `None` when their bytes are not whole.
    pub(super) fn row(mut self, cells: &mut Cells<'_>, sources: &[String]) -> Option<u64> {
        let Merged { key, sight, .. } = merge(&self.versions, &self.bytes, self.melted, &mut self.seen)?;
        write(cells, sources, &key, &sight, &mut self.seen);
        Some(self.seen.count)
    }
}

/// Writes the row of a post whose sightings are all there, by their places in `bytes`; as [`Merging::row`].
pub(super) fn row(cells: &mut Cells<'_>, sources: &[String], versions: &[(Key, Range<usize>)], bytes: &[u8]) -> Option<u64> {
    let mut seen = Seen::default();
    let Merged { key, sight, .. } = merge(versions, bytes, None, &mut seen)?;
    write(cells, sources, &key, &sight, &mut seen);
    Some(seen.count)
}

fn merge<'a>(
    versions: &[(Key, Range<usize>)],
    bytes: &'a [u8],
    melted: Option<(Rank, Key)>,
    seen: &mut Seen,
) -> Option<Merged<'a>> {
    // Most posts are seen once: nothing is to be sorted then, nor moved about.
    if let ([(key, range)], None) = (versions, melted) {
        let sight = PostSight::get(&mut &bytes[range.clone()])?;
        seen.add(key, &sight);
        return Some(Merged { rank: rank(key, &sight), key: *key, sight });
    }
    let mut all = Vec::with_capacity(versions.len());
    for (at, (key, range)) in versions.iter().enumerate() {
        let sight = PostSight::get(&mut &bytes[range.clone()])?;
        match melted.filter(|_| at == 0) {
            // It was counted when it was melted.
            Some((rank, key)) => all.push(Merged { rank, key, sight }),
            None => {
                seen.add(key, &sight);
                all.push(Merged { rank: rank(key, &sight), key: *key, sight });
            }
        }
    }
    all.sort_unstable_by_key(|one| std::cmp::Reverse(one.rank));
    let mut all = all.into_iter();
    let mut best = all.next()?;
    for other in all {
        best.sight.published_at = best.sight.published_at.or(other.sight.published_at);
        fill(&mut best.sight.post, other.sight.post);
    }
    Some(best)
}

fn write(cells: &mut Cells<'_>, sources: &[String], key: &Key, sight: &PostSight<'_>, seen: &mut Seen) {
    let ((platform, id), post) = (post_named(key.id), &sight.post);
    let published = published_at(platform, id).or(sight.published_at);
    let name = |source: u32| sources.get(source as usize).map(String::as_str).unwrap_or_default();
    cells.time("published_at", published);
    cells.int("tweet_id", Some(id));
    cells.text("platform", Some(platform.name()));
    cells.text("kind", post.kind.map(|kind| kind.name()));
    author(cells, post);
    cells.text("text", post.text.as_ref());
    cells.text("lang", post.lang.as_ref());
    cells.text("url", post.url.as_ref());
    cells.text("client", post.client.as_ref());
    cells.int("conversation_id", post.conversation_id);
    cells.int("in_reply_to_tweet_id", post.in_reply_to_tweet_id);
    cells.int("in_reply_to_user_id", post.in_reply_to_user_id);
    cells.text("in_reply_to_handle", post.in_reply_to_handle.as_ref());
    cells.nested("quoted", post.quoted.as_deref(), |cells, nested| inner(cells, nested.copied()));
    cells.nested("reposted", post.reposted.as_deref(), |cells, nested| inner(cells, nested.copied()));
    cells.bool("is_sensitive", post.is_sensitive);
    lists(cells, post);
    cells.text("ocr_text", post.ocr_text.as_ref());
    let first = seen.first_counts.map(|(_, counts)| counts).unwrap_or_default();
    counts(cells, COUNTS_FIRST, &first);
    cells.time("counts_first_at", seen.first_counts.map(|((at, ..), _)| at));
    counts(cells, COUNTS, &seen.last_counts.map(|(_, counts)| counts).unwrap_or_default());
    cells.time("counts_last_at", seen.last_counts.map(|((at, ..), _)| at));
    cells.time("first_received_at", seen.first.map(|((at, ..), _)| at));
    cells.time("last_received_at", seen.last);
    let latency = seen.live.zip(published).map(|(live, published)| live.since(published).div_euclid(1_000));
    cells.signed("latency_ms", latency);
    cells.time("detected_at", seen.detected);
    seen.rules.sort_unstable();
    cells.list("rules", &seen.rules, |cells, (source, id, rule_name)| {
        cells.text("source", Some(name(*source)));
        cells.text("id", Some(id));
        cells.text("name", rule_name.as_ref());
    });
    seen.sources.sort_unstable();
    seen.providers.sort_unstable();
    seen.via.sort_unstable();
    cells.words("sources", seen.sources.iter().map(|source| name(*source)));
    cells.words("providers", seen.providers.iter().map(|provider| provider.name()));
    cells.words("via", seen.via.iter().map(|via| via.name()));
    let gap = seen.first.and_then(|(_, gap)| gap);
    cells.text("gap_id", gap.map(|(source, n)| format!("{}-{n}", name(source))));
    cells.int("seen_count", Some(seen.count));
    cells.bool("is_deleted", Some(seen.is_deleted));
    cells.time("deleted_at", seen.deleted);
    cells.time("pinned_at", seen.pinned.and_then(|(_, at)| at));
    cells.text("extra", Some(&post.extra.0).filter(|extra| !extra.is_empty()));
    cells.text("envelope_source", Some(name(key.source)));
    cells.int("envelope_n", Some(key.n));
}

fn author(cells: &mut Cells<'_>, post: &Post<'_>) {
    let author = &post.author;
    cells.int("author_id", author.id);
    cells.text("author_handle", author.handle.as_ref());
    cells.text("author_name", author.name.as_ref());
    cells.text("author_bio", author.bio.as_ref());
    cells.text("author_location", author.location.as_ref());
    cells.text("author_picture_url", author.picture_url.as_ref());
    cells.time("author_created_at", author.created_at);
    cells.int("author_followers", author.followers);
    cells.int("author_following", author.following);
    cells.int("author_posts", author.posts);
    cells.bool("author_is_blue_verified", author.is_blue_verified);
    cells.text("author_verified_type", author.verified_type.as_ref());
}

fn inner(cells: &mut Cells<'_>, nested: Option<&Nested<'_>>) {
    cells.int("tweet_id", nested.and_then(|nested| nested.tweet_id));
    cells.int("author_id", nested.and_then(|nested| nested.author_id));
    cells.text("author_handle", nested.and_then(|nested| nested.author_handle.as_ref()));
    cells.text("text", nested.and_then(|nested| nested.text.as_ref()));
}

fn lists(cells: &mut Cells<'_>, post: &Post<'_>) {
    cells.words("hashtags", &post.hashtags);
    cells.words("symbols", &post.symbols);
    cells.list("mentions", &post.mentions, |cells, mention| {
        cells.int("id", mention.id);
        cells.text("handle", mention.handle.as_ref());
        cells.text("name", mention.name.as_ref());
    });
    cells.list("urls", &post.urls, |cells, link| {
        cells.text("url", link.url.as_ref());
        cells.text("expanded_url", link.expanded_url.as_ref());
        cells.text("display_url", link.display_url.as_ref());
    });
    cells.list("media", &post.media, |cells, media| {
        cells.text("kind", media.kind.as_ref());
        cells.text("url", media.url.as_ref());
        cells.text("preview_url", media.preview_url.as_ref());
        cells.text("alt_text", media.alt_text.as_ref());
        cells.int("duration_ms", media.duration_ms);
    });
    cells.list("tokens", &post.tokens, |cells, token| {
        cells.text("kind", Some(&token.kind));
        cells.text("symbol", token.symbol.as_ref());
        cells.text("name", token.name.as_ref());
        cells.text("contract", token.contract.as_ref());
        cells.text("chain", token.chain.as_ref());
        cells.real("price_usd", token.price_usd);
        cells.words("found_in", &token.found_in);
    });
}

const COUNTS_FIRST: [&str; 6] = [
    "first_like_count",
    "first_repost_count",
    "first_reply_count",
    "first_quote_count",
    "first_bookmark_count",
    "first_view_count",
];

pub(super) const COUNTS: [&str; 6] = ["like_count", "repost_count", "reply_count", "quote_count", "bookmark_count", "view_count"];

/// Fills the columns of six counters.
pub(super) fn counts(cells: &mut Cells<'_>, names: [&str; 6], counts: &Counts) {
    let values = [counts.likes, counts.reposts, counts.replies, counts.quotes, counts.bookmarks, counts.views];
    names.into_iter().zip(values).for_each(|(name, value)| cells.int(name, value));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::export::Table;
    use crate::export::sight::{Came, name_post};
    use crate::export::spool::Part;
    use crate::model::{Account, Extra, Platform};

    const ID: u64 = 2_064_689_031_777_615_872;

    fn key(source: u32, n: u64) -> Key {
        let at = published_at(Platform::X, ID).unwrap();
        let part = Part { table: Table::Tweets, day: Part::day_of(at) };
        Key { part, at: at.0, id: name_post(Platform::X, ID), source, n, index: 0 }
    }

    fn sight(kind: EventKind, received: i64, via: Via, post: Post<'static>) -> PostSight<'static> {
        let came = Came { received_at: UnixMicros(received), via, provider: Provider::Tweetstream, gap: None };
        PostSight { came, kind, published_at: None, selector: "r1".into(), selector_name: None, post }
    }

    fn words(text: &'static str) -> Post<'static> {
        Post { text: Some(text.into()), ..Post::default() }
    }

    fn counted(text: &'static str, likes: u64) -> Post<'static> {
        Post { counts: Counts { likes: Some(likes), ..Counts::default() }, ..words(text) }
    }

    /// Merges sightings in the order of their keys and hands over what came of it.
    fn merged<T>(sights: &[(Key, PostSight<'static>)], look: impl FnOnce(&Merged<'_>, &Seen) -> T) -> T {
        let mut merging = Merging::default();
        for (key, sight) in sights {
            let mut bytes = Vec::new();
            sight.put(&mut bytes);
            assert!(merging.is_of(key));
            merging.add(*key, &bytes).unwrap();
        }
        let mut seen = std::mem::take(&mut merging.seen);
        let merged = merge(&merging.versions, &merging.bytes, merging.melted, &mut seen).unwrap();
        look(&merged, &seen)
    }

    #[test]
    fn the_richest_version_wins_and_the_others_fill_in() {
        let meta = Post { ocr_text: Some("seen".into()), text: Some("not the words".into()), ..Post::default() };
        let full = Post { author: Account { handle: Some("a".into()), ..Account::default() }, ..counted("full", 3) };
        let notice = Post {
            author: Account { handle: Some("b".into()), bio: Some("hi".into()), ..Account::default() },
            ..Post::default()
        };
        let fast = Post { lang: Some("en".into()), extra: Extra("{}".to_owned()), ..words("fast") };
        let all = [
            (key(0, 1), sight(EventKind::Tweet, 10, Via::Ws, notice)),
            (key(0, 2), sight(EventKind::Tweet, 20, Via::Ws, full)),
            (key(0, 3), sight(EventKind::Meta, 40, Via::Ws, meta)),
            (key(1, 1), sight(EventKind::Tweet, 30, Via::History, fast)),
        ];
        merged(&all, |merged, seen| {
            let post = &merged.sight.post;
            assert_eq!(
                (post.text.as_deref(), post.ocr_text.as_deref(), post.lang.as_deref()),
                (Some("full"), Some("seen"), Some("en"))
            );
            assert_eq!((post.author.handle.as_deref(), post.author.bio.as_deref()), (Some("a"), Some("hi")));
            assert_eq!((merged.key.source, merged.key.n), (0, 2));
            assert_eq!((seen.count, seen.last, seen.live), (4, Some(UnixMicros(40)), Some(UnixMicros(10))));
            assert_eq!((seen.sources.as_slice(), seen.via.as_slice()), (&[0, 1][..], &[Via::Ws, Via::History][..]));
            assert_eq!(seen.rules.len(), 2, "the same rule of two sources");
        });
    }

    #[test]
    fn among_equals_the_later_wins_and_counts_go_by_time() {
        let all = [
            (key(0, 1), sight(EventKind::Tweet, 30, Via::Ws, counted("third", 9))),
            (key(0, 2), sight(EventKind::Tweet, 20, Via::Ws, counted("second", 5))),
            (key(1, 1), sight(EventKind::Tweet, 10, Via::Ws, counted("first", 7))),
        ];
        merged(&all, |merged, seen| {
            assert_eq!(merged.sight.post.text.as_deref(), Some("third"));
            let likes = |counts: Option<(When, Counts)>| counts.unwrap().1.likes;
            assert_eq!((likes(seen.first_counts), likes(seen.last_counts)), (Some(7), Some(9)));
        });
    }

    #[test]
    fn deletes_and_pins() {
        let noticed = Post { detected_at: Some(UnixMicros(25)), ..Post::default() };
        let all = [
            (key(0, 1), sight(EventKind::Pin, 10, Via::Ws, Post::default())),
            (key(0, 2), sight(EventKind::Unpin, 20, Via::Ws, Post::default())),
            (key(0, 3), sight(EventKind::Delete, 30, Via::Ws, noticed)),
        ];
        let states = |all: &[_]| merged(all, |_, seen| (seen.pinned.unwrap().1, seen.is_deleted, seen.deleted));
        assert_eq!(states(&all), (None, true, Some(UnixMicros(25))));
        assert_eq!(states(&all[..1]), (Some(UnixMicros(10)), false, None));
    }

    #[test]
    fn a_post_seen_ten_thousand_times_stays_small() {
        let mut merging = Merging::default();
        let mut bytes = Vec::new();
        for n in 0..10_000u64 {
            let text = if n == 4_711 { counted("full", 1) } else { words("fast") };
            bytes.clear();
            sight(EventKind::Tweet, n as i64, Via::Ws, text).put(&mut bytes);
            merging.add(key(0, n), &bytes).unwrap();
            assert!(merging.bytes.len() < 2 * MOST_VERSIONS * bytes.len() + 4_096);
        }
        let mut seen = std::mem::take(&mut merging.seen);
        let merged = merge(&merging.versions, &merging.bytes, merging.melted, &mut seen).unwrap();
        assert_eq!((merged.sight.post.text.as_deref(), merged.key.n, seen.count), (Some("full"), 4_711, 10_000));
    }
}
