//! X live pipeline envelopes: `config`, `subscriptions`, partial absolute counters, and conversations.
//!
//! Conversations (`dm_update`, `dm_typing`) are opt-in everywhere, here too; they hold no words, only who and where.

use std::sync::Arc;

use super::dice::Dice;
use super::out::{Digits, Out};
use super::people::{self, Author};
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

/// A conversation of the one account whose stream this is.
#[derive(Clone, Debug)]
pub(super) struct Conversation {
    id: String,
    others: Vec<u64>,
    /// Who has been typing.
    typing: Option<u64>,
}

/// Conversations of two, named after both, and every fourth a group with a number of its own.
pub(super) fn conversations(dice: &mut Dice, authors: &[Author]) -> Vec<Conversation> {
    const N: usize = 24;
    let own = authors[0].id;
    let mut conversation = |place: usize| {
        let is_group = place % 4 == 3;
        let n_others = if is_group { dice.between(2, 6) } else { 1 };
        let others: Vec<_> = (0..n_others).map(|_| authors[1 + dice.below(authors.len() - 1)].id).collect();
        let (low, high) = (own.min(others[0]), own.max(others[0]));
        let id = match is_group {
            true => Digits::of(dice.between(1 << 60, 1 << 61)).as_str().to_owned(),
            false => [Digits::of(low).as_str(), "-", Digits::of(high).as_str()].concat(),
        };
        Conversation { id, others, typing: None }
    };
    (0..N).map(&mut conversation).collect()
}

/// Somebody types, or what was typed arrives.
pub(super) fn direct_message(out: &mut Out, dice: &mut Dice, conversation: &mut Conversation) {
    let arrives = conversation.typing.take().filter(|_| dice.per_mille(700));
    let (kind, who) = match arrives {
        Some(who) => ("dm_update", who),
        None => {
            let who = dice.pick(&conversation.others);
            conversation.typing = Some(who);
            ("dm_typing", who)
        }
    };
    topic(out, &["/", kind, "/", &conversation.id]);
    out.object(kind);
    out.text("conversation_id", &conversation.id);
    out.digits("user_id", who);
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
