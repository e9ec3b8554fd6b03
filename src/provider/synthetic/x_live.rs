//! X live pipeline envelopes: `config`, `subscriptions`, and partial absolute counters.
//!
//! Conversations (`dm_update`, `dm_typing`) are opt-in everywhere and never made here.

use std::sync::Arc;

use super::dice::Dice;
use super::out::{Digits, Out};
use super::people;
use super::tweets::Tweet;

/// A post whose counters are watched, with what was last said of them.
#[derive(Clone, Debug)]
pub(super) struct Watched {
    tweet: Arc<Tweet>,
    views: u64,
    likes: u64,
    retweets: u64,
    replies: u64,
    quotes: u64,
}

impl Watched {
    pub(super) fn new(tweet: Arc<Tweet>, now_ms: u64) -> Self {
        let now = tweet.counts(now_ms);
        Self { views: now.views, likes: now.likes, retweets: now.retweets, replies: now.replies, quotes: now.quotes, tweet }
    }
}

pub(super) fn config(out: &mut Out, dice: &mut Dice) {
    topic(out, &["/system/config"]);
    out.object("config");
    out.text("session_id", &people::uuid(dice));
    out.number("subscription_ttl_millis", 120_000);
    out.number("heartbeat_millis", 25_000);
    end(out);
}

pub(super) fn subscriptions(out: &mut Out) {
    topic(out, &["/system/subscriptions"]);
    out.object("subscriptions");
    out.raw("errors", b"[]");
    end(out);
}

/// One or a few counters that changed, with their new totals. Kinds of number vary as they do on the wire.
pub(super) fn engagement(out: &mut Out, dice: &mut Dice, watched: &mut Watched, now_ms: u64) {
    let now = watched.tweet.counts(now_ms);
    let (views, likes, retweets, replies, quotes) = match dice.below(100) {
        0..50 => (true, false, false, false, false),
        50..62 => (false, true, false, false, false),
        62..68 => (false, false, true, false, false),
        68..74 => (false, false, false, true, false),
        74..77 => (false, false, false, false, true),
        77..90 => (true, true, false, false, false),
        90..96 => (true, true, true, false, false),
        _ => (true, true, true, true, true),
    };
    topic(out, &["/tweet_engagement/", Digits::of(watched.tweet.id).as_str()]);
    out.object("tweet_engagement");
    if likes {
        out.digits("like_count", step(dice, &mut watched.likes, now.likes));
    }
    if retweets {
        out.digits("retweet_count", step(dice, &mut watched.retweets, now.retweets));
    }
    if replies {
        out.number("reply_count", step(dice, &mut watched.replies, now.replies));
    }
    if quotes {
        out.number("quote_count", step(dice, &mut watched.quotes, now.quotes));
    }
    if views {
        out.object("view_count_info");
        out.digits("count", step(dice, &mut watched.views, now.views));
        out.text("state", "EnabledWithCount");
        out.close();
    }
    end(out);
}

/// Moves a counter towards its curve, at least by one, and now and then back: people take likes back.
fn step(dice: &mut Dice, said: &mut u64, curve: u64) -> u64 {
    *said = match dice.below(100) {
        0..3 => said.saturating_sub(1),
        _ => curve.max(*said + 1),
    };
    *said
}

fn topic(out: &mut Out, parts: &[&str]) {
    out.open();
    out.joined("topic", parts);
    out.object("payload");
}

fn end(out: &mut Out) {
    out.close();
    out.close();
    out.close();
}
