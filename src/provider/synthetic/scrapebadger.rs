//! ScrapeBadger envelopes in any of the printed dialects, written as Python's `json.dumps` writes.

use super::Dialect;
use super::dice::Dice;
use super::out::{Digits, Out};
use super::people::{self, Author, Slug};
use super::tweets::{Kind, MediaKind, Tweet};
use super::words;

/// What a delivery was selected by.
#[derive(Clone, Debug)]
pub(super) struct Selector {
    id: String,
    name: &'static str,
    is_rule: bool,
}

/// Monitors first, then a few filter rules.
pub(super) fn selectors(dice: &mut Dice) -> Vec<Selector> {
    let monitors = words::MONITORS.map(|name| (name, false));
    let rules = words::RULES.iter().take(4).map(|&(tag, _)| (tag, true));
    monitors.into_iter().chain(rules).map(|(name, is_rule)| Selector { id: people::uuid(dice), name, is_rule }).collect()
}

pub(super) fn connected(out: &mut Out, dice: &mut Dice) {
    out.open();
    out.text("type", "connected");
    out.text("connection_id", &people::uuid(dice));
    out.text("api_key_id", &people::uuid(dice));
    out.close();
}

pub(super) fn ping(out: &mut Out, now_ms: u64) {
    out.open();
    out.text("type", "ping");
    out.iso_offset("timestamp", now_ms);
    out.close();
}

/// How deliveries are written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manner {
    pub(super) dialect: Dialect,
    /// Whether a nested post says its language.
    pub(super) lang: bool,
}

pub(super) fn detected(out: &mut Out, manner: Manner, authors: &[Author], tweet: &Tweet, by: &Selector, now_ms: u64) {
    let dialect = manner.dialect;
    let author = &authors[tweet.author];
    let (id, handle) = (Digits::of(tweet.id), author.handle.to_ascii_lowercase());
    let latency_ms = now_ms.saturating_sub(tweet.created_ms);
    out.open();
    match dialect {
        Dialect::A => out.text("event", "tweet.detected"),
        Dialect::B => out.text("type", "new_tweet"),
        Dialect::C => out.text("type", "tweet"),
        Dialect::Merged => {
            out.text("event", "tweet.detected");
            out.text("type", "tweet");
        }
    }
    match (dialect, by.is_rule) {
        (Dialect::B, false) => out.text("source", "monitor"),
        (Dialect::B, true) => {
            out.text("source", "filter_rule");
            out.text("rule_id", &by.id);
            out.text("rule_tag", by.name);
        }
        _ => {}
    }
    if dialect != Dialect::B || !by.is_rule {
        out.text("monitor_id", &by.id);
        if dialect != Dialect::C {
            out.text("monitor_name", by.name);
        }
    }
    out.text("tweet_id", id.as_str());
    out.text("author_username", &handle);
    match dialect {
        Dialect::A | Dialect::Merged => {
            out.text("tweet_text", &tweet.text);
            out.joined("tweet_url", &["https://x.com/", &handle, "/status/", id.as_str()]);
        }
        Dialect::B => {
            out.text("tweet_text", &tweet.text);
            out.text("tweet_type", kind(tweet.kind));
        }
        Dialect::C => {}
    }
    match dialect {
        Dialect::A => {
            out.iso_zulu("tweet_published_at", tweet.created_ms);
            out.iso_zulu("detected_at", now_ms);
            out.number("latency_ms", latency_ms);
        }
        Dialect::B => {
            out.number("latency_ms", latency_ms);
            out.iso_zulu("detected_at", now_ms);
        }
        Dialect::C | Dialect::Merged => {
            out.iso_offset("tweet_published_at", tweet.created_ms);
            out.iso_offset("detected_at", now_ms);
            out.number("latency_ms", latency_ms);
            snapshot(out, manner, author, tweet, now_ms);
        }
    }
    out.close();
}

/// The nested post of dialect C: flat and in snake case.
///
/// `lang`, `edit_tweet_ids` and `edits_remaining` are documented: class `Tweet` of the vendor's Python SDK, seen 2026-11-21.
/// That an edit comes again under the first id is assumed.
fn snapshot(out: &mut Out, manner: Manner, author: &Author, tweet: &Tweet, now_ms: u64) {
    let counts = tweet.counts(now_ms);
    out.object("tweet");
    out.digits("id", tweet.id);
    out.text("text", &tweet.text);
    out.legacy_date("created_at", tweet.created_ms);
    if manner.lang {
        out.text("lang", tweet.lang);
    }
    out.digits("user_id", author.id);
    out.text("username", &author.handle);
    out.text("user_name", &author.name);
    out.number("favorite_count", counts.likes);
    out.number("retweet_count", counts.retweets);
    out.number("reply_count", counts.replies);
    out.array("media");
    for media in &tweet.media {
        let slug = Slug::of(media.seed);
        out.open();
        out.text("type", if media.kind == MediaKind::Photo { "photo" } else { "video" });
        out.joined("url", &["https://pbs.twimg.com/media/", slug.letters(15), ".jpg"]);
        out.close();
    }
    out.end_array();
    out.array("urls");
    for link in &tweet.links {
        out.open();
        out.text("url", tweet.slice(&link.span));
        out.joined("expanded_url", &["https://", link.host, link.path]);
        out.close();
    }
    out.end_array();
    out.array("hashtags");
    for tag in &tweet.hashtags {
        out.open();
        out.text("text", tweet.slice(tag));
        out.close();
    }
    out.end_array();
    if let Some(edit_id) = tweet.edit_id {
        out.array("edit_tweet_ids");
        out.text_value(Digits::of(tweet.id).as_str());
        out.text_value(Digits::of(edit_id).as_str());
        out.end_array();
        out.number("edits_remaining", 4);
    }
    out.close();
}

const fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Post => "original",
        Kind::Reply => "reply",
        Kind::Quote => "quote",
        Kind::Retweet => "retweet",
    }
}
