//! What a post's counters are by now, in the envelopes of X's GraphQL.
//!
//! The live pipeline names single counters with their new totals; a snapshot is the last total of each. A counter that
//! nobody named by now is not in it. Shapes: what d60/twikit 2.3.3 reads (`client.py`, `tweet.py`, `user.py`).

use std::ops::ControlFlow;

use serde_json::{Map, Value, json};

use super::rest::Refusal;
use crate::model::{EventId, EventKind, TweetId, UnixMicros};
use crate::provider::past::{Past, Unreadable};

/// Posts of one request. Ours: a bound on how long an answer takes.
const IDS_MAX: usize = 1_000;

/// Envelopes looked through for one post: a counter last named before them counts as not named.
const ENVELOPES_MAX: usize = 20_000;

/// Name in the snapshot, and the names the live pipeline has for it; the first that is there counts.
///
/// Observed: likes are `like_count` to most clients, `favorite_count` to some.
const COUNTERS: [(&str, &[&str]); 5] = [
    ("favorite_count", &["like_count", "favorite_count"]),
    ("retweet_count", &["retweet_count"]),
    ("reply_count", &["reply_count"]),
    ("quote_count", &["quote_count"]),
    ("bookmark_count", &["bookmark_count"]),
];

/// The last total of each counter.
#[derive(Debug, Default)]
struct Totals {
    counters: [Option<u64>; COUNTERS.len()],
    views: Option<u64>,
    views_state: Option<String>,
}

impl Totals {
    /// Takes what an older envelope says of counters that are still open.
    fn add_older(&mut self, engagement: &Value) {
        for (total, (_, names)) in self.counters.iter_mut().zip(COUNTERS) {
            *total = total.or_else(|| names.iter().find_map(|name| number(engagement.get(name)?)));
        }
        let info = engagement.get("view_count_info");
        let count = || info.and_then(|info| info.get("count")).or_else(|| engagement.get("view_count")).and_then(number);
        self.views = self.views.or_else(count);
        let state = || info.and_then(|info| info.get("state")).or_else(|| engagement.get("view_count_state"));
        let state = || state().and_then(Value::as_str).map(str::to_owned);
        self.views_state = self.views_state.take().or_else(state);
    }

    fn is_complete(&self) -> bool {
        self.counters.iter().all(Option::is_some) && self.views.is_some() && self.views_state.is_some()
    }
}

/// A counter is a number or digits in a text. Observed: both, in one envelope.
fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str().and_then(|digits| digits.parse().ok()))
}

/// `TweetResultsByRestIds`: a result for each id, in the order asked; an empty one for posts that are not known.
pub(super) fn of_many(variables: &Value, past: &mut Past<'_>, zero: bool) -> Result<Value, Refusal> {
    let ids = variables.get("tweetIds").ok_or(Refusal::Missing("tweetIds"))?;
    let ids = ids.as_array().filter(|ids| ids.len() <= IDS_MAX).ok_or(Refusal::Invalid("tweetIds"))?;
    let ids: Option<Vec<TweetId>> = ids.iter().map(tweet_id).collect();
    let mut results = Vec::new();
    for id in ids.ok_or(Refusal::Invalid("tweetIds"))? {
        results.push(result(id, past, zero)?.unwrap_or_else(|| json!({})));
    }
    Ok(json!({ "data": { "tweetResult": results } }))
}

/// `TweetResultByRestId`
pub(super) fn of_one(variables: &Value, past: &mut Past<'_>, zero: bool) -> Result<Value, Refusal> {
    let id = variables.get("tweetId").ok_or(Refusal::Missing("tweetId"))?;
    let id = tweet_id(id).ok_or(Refusal::Invalid("tweetId"))?;
    Ok(json!({ "data": { "tweetResult": result(id, past, zero)?.unwrap_or_else(|| json!({})) } }))
}

/// `TweetDetail`: the post alone in its thread.
///
/// Observed: a post that is not known has no data and an error in an answer that is HTTP 200; its words are cited in
/// public bug reports (dimdenGD/OldTwitter, issues 53 and 273). Documented: twikit looks for `errors` first.
pub(super) fn detail(variables: &Value, past: &mut Past<'_>, zero: bool) -> Result<Value, Refusal> {
    let id = variables.get("focalTweetId").ok_or(Refusal::Missing("focalTweetId"))?;
    let id = tweet_id(id).ok_or(Refusal::Invalid("focalTweetId"))?;
    let Some(result) = result(id, past, zero)? else {
        let path = ["threaded_conversation_with_injections_v2"];
        let error = json!({ "code": 144, "message": "_Missing: No status found with that ID.", "path": path });
        return Ok(json!({ "data": {}, "errors": [error] }));
    };
    let entry = json!({
        "entryId": format!("tweet-{id}"),
        "sortIndex": (!id.0 >> 1).to_string(),
        "content": {
            "entryType": "TimelineTimelineItem",
            "__typename": "TimelineTimelineItem",
            "itemContent": { "itemType": "TimelineTweet", "__typename": "TimelineTweet", "tweet_results": result },
        },
    });
    let instructions = json!([{ "type": "TimelineAddEntries", "entries": [entry] }]);
    Ok(json!({ "data": { "threaded_conversation_with_injections_v2": { "instructions": instructions } } }))
}

fn tweet_id(value: &Value) -> Option<TweetId> {
    match value {
        Value::String(digits) => TweetId::parse(digits),
        other => other.as_u64().map(TweetId),
    }
}

/// `{"result": …}` of a post, if anything was said of it by now.
fn result(id: TweetId, past: &mut Past<'_>, zero: bool) -> Result<Option<Value>, Unreadable> {
    let mut totals = Totals::default();
    let mut n_envelopes = 0;
    past.versions(EventKind::Engagement, &EventId::Tweet(id), |item| {
        let envelope: Option<Value> = serde_json::from_slice(&item.envelope).ok();
        if let Some(engagement) = envelope.as_ref().and_then(|envelope| envelope.pointer("/payload/tweet_engagement")) {
            totals.add_older(engagement);
        }
        n_envelopes += 1;
        if totals.is_complete() || n_envelopes == ENVELOPES_MAX { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    Ok((n_envelopes > 0).then(|| json!({ "result": tweet(id, &totals, zero) })))
}

fn tweet(id: TweetId, totals: &Totals, zero: bool) -> Value {
    let mut legacy = Map::new();
    for (total, (name, _)) in totals.counters.iter().zip(COUNTERS) {
        if let Some(total) = total.or(zero.then_some(0)) {
            legacy.insert(name.to_owned(), total.into());
        }
    }
    let unsaid = [
        ("id_str", json!(id.to_string())),
        ("full_text", json!("")),
        ("lang", json!("und")),
        ("entities", json!({})),
        ("is_quote_status", json!(false)),
        ("favorited", json!(false)),
        ("retweeted", json!(false)),
        ("bookmarked", json!(false)),
    ];
    legacy.extend(id.published_at().map(|at| ("created_at".to_owned(), legacy_date(at).into())));
    legacy.extend(unsaid.map(|(name, value)| (name.to_owned(), value)));
    let mut views = Map::new();
    if let Some(count) = totals.views {
        views.insert("count".to_owned(), count.to_string().into());
    }
    let state = totals.views_state.as_deref().unwrap_or(if totals.views.is_some() { "EnabledWithCount" } else { "Enabled" });
    views.insert("state".to_owned(), state.into());
    json!({
        "__typename": "Tweet",
        "rest_id": id.to_string(),
        "core": { "user_results": { "result": nobody() } },
        "edit_control": {},
        "views": views,
        "legacy": legacy,
    })
}

/// An author about whom nothing is known: every field that twikit 2.3.3 insists on, without content.
fn nobody() -> Value {
    json!({
        "__typename": "User",
        "rest_id": "0",
        "is_blue_verified": false,
        "legacy": {
            "created_at": legacy_date(UnixMicros(0)),
            "name": "",
            "screen_name": "",
            "profile_image_url_https": "",
            "location": "",
            "description": "",
            "entities": { "description": { "urls": [] } },
            "pinned_tweet_ids_str": [],
            "verified": false,
            "possibly_sensitive": false,
            "can_dm": false,
            "can_media_tag": false,
            "want_retweets": false,
            "default_profile": true,
            "default_profile_image": true,
            "has_custom_timelines": false,
            "followers_count": 0,
            "fast_followers_count": 0,
            "normal_followers_count": 0,
            "friends_count": 0,
            "favourites_count": 0,
            "listed_count": 0,
            "media_count": 0,
            "statuses_count": 0,
            "is_translator": false,
            "translator_type": "none",
            "withheld_in_countries": [],
        },
    })
}

/// Twitter's old form of a date, as in `Wed Sep 10 17:28:07 +0000 2025`.
fn legacy_date(at: UnixMicros) -> String {
    let stamp = jiff::Timestamp::from_microsecond(at.0).unwrap_or_default();
    stamp.strftime("%a %b %d %H:%M:%S +0000 %Y").to_string()
}
