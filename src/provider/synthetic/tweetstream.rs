//! TweetStream envelopes: `{v,t,op,id,ts,d}`.

use super::dice::Dice;
use super::out::{Digits, Out};
use super::people::{self, Author, Change, Slug};
use super::tweets::{Kind, Media, MediaKind, Tweet};
use super::twitterapi_io::picture;
use super::words;

/// Opens the envelope and its `d`.
fn envelope(out: &mut Out, family: &str, op: &str, id: &str, now_ms: u64) {
    out.open();
    out.number("v", 1);
    out.text("t", family);
    out.text("op", op);
    out.text("id", id);
    out.number("ts", now_ms);
    out.object("d");
}

fn end(out: &mut Out) {
    out.close();
    out.close();
}

/// A post; `op` is `content` or `pin`. A reply may come without the id it answers: an `update` brings it later.
pub(super) fn content(out: &mut Out, authors: &[Author], tweet: &Tweet, op: &str, ref_known: bool, now_ms: u64) {
    let author = &authors[tweet.author];
    let id = Digits::of(tweet.id);
    envelope(out, "tweet", op, id.as_str(), now_ms);
    out.text("tweetId", id.as_str());
    out.text("kind", kind(tweet.kind));
    out.text("text", &tweet.text);
    out.number("createdAt", tweet.created_ms);
    out.number("receivedAt", now_ms.saturating_sub(15).max(tweet.created_ms));
    out.object("author");
    face(out, author);
    if author.id.is_multiple_of(4) {
        out.text("bio", &author.bio);
    }
    out.number("followersCount", author.followers);
    out.text("verifiedType", author.verified_type());
    out.close();
    out.joined("link", &["https://x.com/", &author.handle, "/status/", id.as_str()]);
    media(out, &tweet.media);
    if let Some(other) = &tweet.refers {
        reference(out, authors, tweet.kind, other, ref_known);
    }
    if !tweet.mentions.is_empty() && tweet.kind != Kind::Retweet {
        out.array("mentions");
        for mention in &tweet.mentions {
            out.open();
            out.joined("handle", &["@", tweet.slice(&mention.span)]);
            out.digits("id", authors[mention.author].id);
            out.close();
        }
        out.end_array();
    }
    urls(out, tweet);
    end(out);
}

/// A partial enrichment: what the post refers to, or its links.
pub(super) fn update(out: &mut Out, authors: &[Author], tweet: &Tweet, now_ms: u64) {
    let id = Digits::of(tweet.id);
    envelope(out, "tweet", "update", id.as_str(), now_ms);
    out.text("tweetId", id.as_str());
    match &tweet.refers {
        Some(other) => reference(out, authors, tweet.kind, other, true),
        None => urls(out, tweet),
    }
    end(out);
}

/// An edit as an `update`: the new text and its links.
///
/// Documented is only that an update is partial; that an edit comes this way is assumed.
pub(super) fn edit(out: &mut Out, tweet: &Tweet, now_ms: u64) {
    let id = Digits::of(tweet.id);
    envelope(out, "tweet", "update", id.as_str(), now_ms);
    out.text("tweetId", id.as_str());
    out.text("text", &tweet.text);
    urls(out, tweet);
    end(out);
}

/// A post on Truth Social, which refers to nothing; its `tweet.author` is one of `authors` there.
pub(super) fn truth_social(out: &mut Out, authors: &[Author], tweet: &Tweet, now_ms: u64) {
    let author = &authors[tweet.author];
    let id = Digits::of(tweet.id);
    envelope(out, "tweet", "content", id.as_str(), now_ms);
    out.text("tweetId", id.as_str());
    out.text("text", &tweet.text);
    out.number("createdAt", tweet.created_ms);
    out.number("receivedAt", now_ms.saturating_sub(15).max(tweet.created_ms));
    out.object("author");
    out.digits("id", author.id);
    out.joined("handle", &["@", &author.handle]);
    out.text("name", &author.name);
    out.text("platform", "truth_social");
    out.number("followersCount", author.followers);
    out.close();
    out.joined("link", &["https://truthsocial.com/@", &author.handle, "/posts/", id.as_str()]);
    urls(out, tweet);
    end(out);
}

/// What was found in the text and in pictures.
pub(super) fn meta(out: &mut Out, dice: &mut Dice, tweet: &Tweet, now_ms: u64) {
    let id = Digits::of(tweet.id);
    envelope(out, "tweet", "meta", id.as_str(), now_ms);
    out.text("tweetId", id.as_str());
    let picture = tweet.media.iter().any(|m| m.kind == MediaKind::Photo);
    if picture && dice.per_mille(600) {
        let tongue = &words::TONGUES[dice.below(3)];
        out.object("ocr");
        let (subject, act) = (dice.pick(tongue.subjects), dice.pick(tongue.acts));
        out.joined("text", &[subject, "\n", act, "\n", Digits::of(dice.between(1, 9_999)).as_str(), " %"]);
        out.close();
    }
    let guess = dice.per_mille(60);
    if !tweet.tokens.is_empty() || guess {
        out.object("detected");
        detected(out, dice, tweet, guess);
        out.close();
    }
    end(out);
}

fn detected(out: &mut Out, dice: &mut Dice, tweet: &Tweet, guess: bool) {
    if !tweet.tokens.is_empty() {
        out.array("tokens");
        for &token in &tweet.tokens {
            let (symbol, name, chain, contract) = words::TOKENS[token];
            out.open();
            out.text("symbol", symbol);
            out.text("name", name);
            out.text("contract", contract);
            out.text("chain", chain);
            price(out, dice);
            sources(out, !tweet.media.is_empty());
            out.close();
        }
        out.end_array();
        if dice.per_mille(350) {
            let symbol = words::TOKENS[tweet.tokens[0]].0;
            out.array("cex");
            out.open();
            out.text("exchange", dice.pick(&["bybit", "binance", "hyperliquid"]));
            out.joined("symbol", &[symbol, "USDT"]);
            out.text("baseAsset", symbol);
            out.text("quoteAsset", "USDT");
            price(out, dice);
            sources(out, false);
            out.close();
            out.end_array();
        }
    }
    if guess {
        out.array("prediction");
        out.open();
        out.text("exchange", dice.pick(&["polymarket", "kalshi"]));
        out.joined("marketId", &["made-up-", Digits::of(dice.between(100, 999)).as_str()]);
        out.text("title", "Will the harbour crane get a name this year?");
        out.decimal("priceUsd", dice.between(0, 9) * 10 + dice.between(1, 9), 2);
        sources(out, false);
        out.close();
        out.end_array();
    }
}

/// The last digit is never 0, since serialisers do not write such a one.
fn price(out: &mut Out, dice: &mut Dice) {
    out.decimal("priceUsd", dice.magnitude(90_000) * 10 + dice.between(1, 9), 4);
}

fn sources(out: &mut Out, picture: bool) {
    out.raw("sources", if picture { br#"["text","ocr"]"# } else { br#"["text"]"# });
}

pub(super) fn delete(out: &mut Out, tweet_id: u64, now_ms: u64) {
    let id = Digits::of(tweet_id);
    envelope(out, "tweet", "delete", id.as_str(), now_ms);
    out.text("tweetId", id.as_str());
    end(out);
}

/// `author` is already changed; `change` holds what was there before.
pub(super) fn profile_update(out: &mut Out, dice: &mut Dice, author: &Author, change: &Change, now_ms: u64) {
    let event = ["profile-", &people::hex(dice, 16)].concat();
    envelope(out, "account", "profile_update", &event, now_ms);
    out.text("kind", "PROFILE");
    out.text("eventId", &event);
    out.number("observedAt", now_ms - 50);
    actor(out, "actor", author);
    out.object("changes");
    match change {
        Change::Name(_) => out.text("name", &author.name),
        Change::Handle(_) => out.joined("handle", &["@", &author.handle]),
        Change::Bio(_) => out.text("bio", &author.bio),
        Change::Location(_) => out.text("location", &author.location),
        Change::Avatar(_) => out.joined("avatar", &picture(author.avatar, &Slug::of(author.avatar))),
        Change::Banner(_) => banner(out, "banner", author.id, author.banner),
    }
    out.close();
    out.object("previous");
    match change {
        Change::Name(old) => out.text("name", old),
        Change::Handle(old) => out.joined("handle", &["@", old]),
        Change::Bio(old) => out.text("bio", old),
        Change::Location(old) => out.text("location", old),
        Change::Avatar(old) => out.joined("avatar", &picture(*old, &Slug::of(*old))),
        Change::Banner(old) => banner(out, "banner", author.id, *old),
    }
    out.close();
    end(out);
}

pub(super) fn follow(out: &mut Out, dice: &mut Dice, who: &Author, whom: &Author, now_ms: u64) {
    let event = ["follow-", &people::hex(dice, 16)].concat();
    envelope(out, "account", "follow", &event, now_ms);
    out.text("kind", "FOLLOW");
    out.text("eventId", &event);
    out.number("observedAt", now_ms - 50);
    actor(out, "actor", who);
    actor(out, "target", whom);
    end(out);
}

/// The part of an author that every envelope shows.
fn face(out: &mut Out, author: &Author) {
    out.digits("id", author.id);
    out.joined("handle", &["@", &author.handle]);
    out.text("name", &author.name);
    out.text("platform", "twitter");
    out.joined("profileImage", &picture(author.avatar, &Slug::of(author.avatar)));
}

fn actor(out: &mut Out, name: &str, author: &Author) {
    out.object(name);
    face(out, author);
    if author.banner != 0 {
        banner(out, "banner", author.id, author.banner);
    }
    out.text("bio", &author.bio);
    if !author.location.is_empty() {
        out.text("location", &author.location);
    }
    out.number("followersCount", author.followers);
    out.number("followingCount", author.following);
    out.number("joinedAt", author.joined_ms);
    out.text("verifiedType", author.verified_type());
    out.close();
}

fn banner(out: &mut Out, name: &str, id: u64, seed: u64) {
    let (id, stamp) = (Digits::of(id), Digits::of(seed >> 30));
    match seed {
        0 => out.text(name, ""),
        _ => out.joined(name, &["https://pbs.twimg.com/profile_banners/", id.as_str(), "/", stamp.as_str()]),
    }
}

fn reference(out: &mut Out, authors: &[Author], kind_of: Kind, other: &Tweet, ref_known: bool) {
    let author = &authors[other.author];
    out.object("ref");
    out.text("type", kind(kind_of));
    if ref_known {
        out.digits("tweetId", other.id);
        if kind_of != Kind::Reply {
            out.text("text", &other.text);
        }
    }
    out.object("author");
    out.digits("id", author.id);
    out.joined("handle", &["@", &author.handle]);
    out.text("name", &author.name);
    out.close();
    if ref_known {
        media(out, &other.media);
    }
    out.close();
}

fn media(out: &mut Out, media: &[Media]) {
    if media.is_empty() {
        return;
    }
    out.array("media");
    for item in media {
        let slug = Slug::of(item.seed);
        out.open();
        match item.kind {
            MediaKind::Photo => out.text("type", "image"),
            MediaKind::Video => out.text("type", "video"),
            MediaKind::Gif => out.text("type", "gif"),
        }
        match item.kind {
            MediaKind::Photo => out.joined("url", &["https://pbs.twimg.com/media/", slug.letters(15), ".jpg"]),
            _ => {
                out.joined("url", &["https://video.twimg.com/tweet_video/", slug.letters(15), ".mp4"]);
                out.joined("thumbnail", &["https://pbs.twimg.com/tweet_video_thumb/", slug.letters(15), ".jpg"]);
            }
        }
        out.close();
    }
    out.end_array();
}

fn urls(out: &mut Out, tweet: &Tweet) {
    if tweet.links.is_empty() {
        return;
    }
    out.array("urls");
    for link in &tweet.links {
        out.open();
        out.joined("url", &["https://", link.host, link.path]);
        out.joined("name", &[link.host, link.path]);
        out.text("tco", tweet.slice(&link.span));
        out.close();
    }
    out.end_array();
}

const fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Post => "post",
        Kind::Reply => "reply",
        Kind::Quote => "quote",
        Kind::Retweet => "retweet",
    }
}
