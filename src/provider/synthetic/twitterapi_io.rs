//! TwitterAPI.io envelopes: `connected`, `ping`, `tweet` batches, `fast_tweet`.

use std::sync::Arc;

use super::dice::Dice;
use super::out::{Digits, Out, Style};
use super::people::{self, Author, Slug};
use super::tweets::{Kind, Media, MediaKind, Tweet};
use super::words;

/// A filter rule as its matches name it.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    id: String,
    tag: &'static str,
    value: &'static str,
}

/// Rules of the one key in this world.
pub(super) fn rules(dice: &mut Dice) -> Vec<Rule> {
    words::RULES.iter().map(|&(tag, value)| Rule { id: people::hex(dice, 32), tag, value }).collect()
}

pub(super) fn connected(out: &mut Out, now_ms: u64) {
    event(out, "connected", now_ms);
}

pub(super) fn ping(out: &mut Out, now_ms: u64) {
    event(out, "ping", now_ms);
}

fn event(out: &mut Out, name: &str, now_ms: u64) {
    out.open();
    out.text("event_type", name);
    out.number("timestamp", now_ms);
    out.close();
}

/// A batch by a rule, or without one by the stream's standard lane. `tweets` are newest first.
pub(super) fn batch(
    out: &mut Out,
    faces: &mut Faces,
    authors: &[Author],
    tweets: &[Arc<Tweet>],
    rule: Option<&Rule>,
    now_ms: u64,
) {
    out.open();
    if rule.is_none() {
        out.text("event_type", "tweet");
    }
    out.array("tweets");
    for tweet in tweets {
        full(out, faces, authors, tweet, now_ms, true);
    }
    out.end_array();
    if let Some(rule) = rule {
        out.text("rule_id", &rule.id);
        out.text("rule_tag", rule.tag);
        out.text("rule_value", rule.value);
        out.text("event_type", "tweet");
    }
    out.number("timestamp", now_ms);
    out.close();
}

/// The reduced object of the fast lane.
pub(super) fn fast(out: &mut Out, authors: &[Author], tweet: &Tweet, now_ms: u64) {
    let author = &authors[tweet.author];
    out.open();
    out.text("event_type", "fast_tweet");
    out.number("timestamp", now_ms);
    out.object("tweet");
    out.digits("id", tweet.id);
    out.text("screen_name", &author.handle);
    out.text("display_name", &author.name);
    out.digits("user_id", author.id);
    out.text("text", &tweet.text);
    out.text("type", action(tweet.kind));
    out.number("created_ms", tweet.created_ms);
    out.number("snow_delay_ms", now_ms.saturating_sub(tweet.created_ms + 5));
    out.array("media");
    for media in &tweet.media {
        out.joined_value(&media_url(media, &Slug::of(media.seed)));
    }
    out.end_array();
    out.array("mentions");
    for mention in &tweet.mentions {
        out.text_value(tweet.slice(&mention.span));
    }
    out.end_array();
    out.array("hashtags");
    for tag in &tweet.hashtags {
        out.text_value(tweet.slice(tag));
    }
    out.end_array();
    out.close();
    out.close();
}

const fn action(kind: Kind) -> &'static str {
    match kind {
        Kind::Post => "post",
        Kind::Reply => "reply",
        Kind::Quote => "quote",
        Kind::Retweet => "repost",
    }
}

fn full(out: &mut Out, faces: &mut Faces, authors: &[Author], tweet: &Tweet, now_ms: u64, outer: bool) {
    let author = &authors[tweet.author];
    let id = Digits::of(tweet.id);
    let counts = tweet.counts(now_ms);
    let parent = tweet.refers.as_deref().filter(|_| tweet.kind == Kind::Reply);
    out.open();
    out.text("type", "tweet");
    out.text("id", id.as_str());
    out.joined("url", &["https://x.com/", &author.handle, "/status/", id.as_str()]);
    out.joined("twitterUrl", &["https://twitter.com/", &author.handle, "/status/", id.as_str()]);
    out.text("text", &tweet.text);
    out.text("source", tweet.source);
    out.number("retweetCount", counts.retweets);
    out.number("replyCount", counts.replies);
    out.number("likeCount", counts.likes);
    out.number("quoteCount", counts.quotes);
    out.number("viewCount", counts.views);
    out.legacy_date("createdAt", tweet.created_ms);
    out.text("lang", tweet.lang);
    out.number("bookmarkCount", counts.bookmarks);
    out.flag("isReply", parent.is_some());
    match parent {
        Some(parent) => {
            out.digits("inReplyToId", parent.id);
            out.digits("conversationId", parent.id);
        }
        None => {
            out.raw("inReplyToId", b"null");
            out.text("conversationId", id.as_str());
        }
    }
    out.array("displayTextRange");
    out.number_value(0);
    out.number_value(tweet.n_chars);
    out.end_array();
    match parent {
        Some(parent) => {
            let to = &authors[parent.author];
            out.digits("inReplyToUserId", to.id);
            out.text("inReplyToUsername", &to.handle);
        }
        None => {
            out.raw("inReplyToUserId", b"null");
            out.raw("inReplyToUsername", b"null");
        }
    }
    out.key("author");
    faces.write(out, tweet.author, author);
    extended(out, tweet);
    out.raw("card", b"null");
    out.raw("place", b"{}");
    entities(out, authors, tweet);
    for (name, kind) in [("quoted_tweet", Kind::Quote), ("retweeted_tweet", Kind::Retweet)] {
        match &tweet.refers {
            Some(other) if outer && tweet.kind == kind => {
                out.key(name);
                full(out, faces, authors, other, now_ms, false);
            }
            _ => out.raw(name, b"null"),
        }
    }
    out.flag("isLimitedReply", false);
    out.raw("article", b"null");
    out.close();
}

fn extended(out: &mut Out, tweet: &Tweet) {
    if tweet.media.is_empty() {
        return out.raw("extendedEntities", b"{}");
    }
    out.object("extendedEntities");
    out.array("media");
    for media in &tweet.media {
        let slug = Slug::of(media.seed);
        out.open();
        out.joined("display_url", &["pic.x.com/", slug.letters(10)]);
        out.joined("expanded_url", &["https://x.com/i/status/", Digits::of(tweet.id).as_str(), "/photo/1"]);
        out.digits("id_str", media.seed >> 2);
        out.joined("media_key", &["3_", Digits::of(media.seed >> 2).as_str()]);
        out.joined("media_url_https", &media_url(media, &slug));
        out.text("type", media_type(media.kind));
        out.joined("url", &["https://t.co/", slug.letters(10)]);
        if media.kind != MediaKind::Photo {
            out.object("video_info");
            out.array("variants");
            out.open();
            out.number("bitrate", 2_176_000);
            out.text("content_type", "video/mp4");
            out.joined("url", &["https://video.twimg.com/ext_tw_video/", slug.letters(16), "/pu/vid/720x1280/clip.mp4"]);
            out.close();
            out.end_array();
            out.close();
        }
        out.close();
    }
    out.end_array();
    out.close();
}

fn entities(out: &mut Out, authors: &[Author], tweet: &Tweet) {
    out.object("entities");
    if !tweet.hashtags.is_empty() {
        out.array("hashtags");
        for tag in &tweet.hashtags {
            out.open();
            indices(out, tag.chars.start, tag.chars.end);
            out.text("text", tweet.slice(tag));
            out.close();
        }
        out.end_array();
    }
    if !tweet.links.is_empty() {
        out.array("urls");
        for link in &tweet.links {
            out.open();
            out.joined("display_url", &[link.host, link.path]);
            out.joined("expanded_url", &["https://", link.host, link.path]);
            indices(out, link.span.chars.start, link.span.chars.end);
            out.text("url", tweet.slice(&link.span));
            out.close();
        }
        out.end_array();
    }
    if !tweet.mentions.is_empty() {
        out.array("user_mentions");
        for mention in &tweet.mentions {
            let who = &authors[mention.author];
            out.open();
            out.digits("id_str", who.id);
            indices(out, mention.span.chars.start, mention.span.chars.end);
            out.text("name", &who.name);
            out.text("screen_name", tweet.slice(&mention.span));
            out.close();
        }
        out.end_array();
    }
    out.close();
}

fn indices(out: &mut Out, begin: u64, end: u64) {
    out.array("indices");
    out.number_value(begin);
    out.number_value(end);
    out.end_array();
}

fn media_url<'a>(media: &Media, slug: &'a Slug) -> [&'a str; 3] {
    let folder = match media.kind {
        MediaKind::Photo => "https://pbs.twimg.com/media/",
        MediaKind::Video => "https://pbs.twimg.com/ext_tw_video_thumb/",
        MediaKind::Gif => "https://pbs.twimg.com/tweet_video_thumb/",
    };
    [folder, slug.letters(15), ".jpg"]
}

const fn media_type(kind: MediaKind) -> &'static str {
    match kind {
        MediaKind::Photo => "photo",
        MediaKind::Video => "video",
        MediaKind::Gif => "animated_gif",
    }
}

/// Author objects of the busiest authors, written once and copied: they are half of all bytes.
#[derive(Clone, Debug)]
pub(super) struct Faces {
    written: Vec<Vec<u8>>,
}

impl Faces {
    /// Bounds the memory; authors beyond are written anew each time.
    const KEPT: usize = 4_096;

    pub(super) fn new(n_authors: usize) -> Self {
        Self { written: vec![Vec::new(); n_authors.min(Self::KEPT)] }
    }

    /// The author changed.
    pub(super) fn forget(&mut self, author: usize) {
        if let Some(face) = self.written.get_mut(author) {
            face.clear();
        }
    }

    fn write(&mut self, out: &mut Out, idx: usize, author: &Author) {
        match self.written.get_mut(idx) {
            Some(face) => {
                if face.is_empty() {
                    let mut fresh = Out::new(Style::Compact);
                    user(&mut fresh, author);
                    face.extend_from_slice(&fresh.bytes);
                }
                out.bytes.extend_from_slice(face);
            }
            None => user(out, author),
        }
    }
}

fn user(out: &mut Out, author: &Author) {
    out.open();
    out.text("type", "user");
    out.text("userName", &author.handle);
    out.joined("url", &["https://x.com/", &author.handle]);
    out.joined("twitterUrl", &["https://twitter.com/", &author.handle]);
    out.digits("id", author.id);
    out.text("name", &author.name);
    out.flag("isVerified", false);
    out.flag("isBlueVerified", author.blue);
    match author.verified_type() {
        "none" => out.raw("verifiedType", b"null"),
        other => out.text("verifiedType", other),
    }
    out.joined("profilePicture", &picture(author.avatar, &Slug::of(author.avatar)));
    let banner = Digits::of(author.banner >> 30);
    match author.banner {
        0 => out.text("coverPicture", ""),
        _ => {
            let id = Digits::of(author.id);
            out.joined("coverPicture", &["https://pbs.twimg.com/profile_banners/", id.as_str(), "/", banner.as_str()]);
        }
    }
    out.text("description", "");
    out.text("location", &author.location);
    out.number("followers", author.followers);
    out.number("following", author.following);
    out.text("status", "");
    out.flag("canDm", author.following.is_multiple_of(2));
    out.flag("canMediaTag", true);
    out.legacy_date("createdAt", author.joined_ms);
    out.raw("entities", br#"{"description":{"urls":[]},"url":{}}"#);
    out.number("fastFollowersCount", 0);
    out.number("favouritesCount", author.likes);
    out.flag("hasCustomTimelines", true);
    out.flag("isTranslator", false);
    out.number("mediaCount", author.media);
    out.number("statusesCount", author.posts);
    out.raw("withheldInCountries", b"[]");
    out.raw("affiliatesHighlightedLabel", b"{}");
    out.flag("possiblySensitive", false);
    out.raw("pinnedTweetIds", b"[]");
    out.flag("isAutomated", false);
    out.raw("automatedBy", b"null");
    out.object("profile_bio");
    out.text("description", &author.bio);
    out.object("entities");
    out.raw("description", b"{}");
    if author.has_site {
        out.object("url");
        out.array("urls");
        out.open();
        out.joined("display_url", &["example.org/~", &author.handle]);
        out.joined("expanded_url", &["https://example.org/~", &author.handle]);
        out.raw("indices", b"[0,23]");
        out.joined("url", &["https://t.co/", Slug::of(author.id).letters(10)]);
        out.close();
        out.end_array();
        out.close();
    }
    out.close();
    out.close();
    out.close();
}

/// Parts of the address of a profile picture; one in eight never chose one.
pub(super) fn picture(avatar: u64, slug: &Slug) -> [&str; 3] {
    match avatar & 7 {
        0 => ["https://abs.twimg.com/sticky/default_profile_images/", "default_profile", "_normal.png"],
        _ => ["https://pbs.twimg.com/profile_images/", slug.letters(16), "_normal.jpg"],
    }
}
