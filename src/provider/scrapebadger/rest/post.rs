//! A post in the flat, snake-case form of the REST interface, made from any of the printed dialects.
//!
//! Dialect C brings most of it; A and B have little more than the text, and what they do not say is `null`, zero or
//! empty. Traps of the real replies are kept: three counts are texts although the description calls them integers
//! (observed in a reply quoted in the vendor's tests), and dates have Twitter's old form.

use serde_json::{Map, Value, json};

use crate::model::{TweetId, UnixMicros};
use crate::provider::past::Item;
use crate::provider::search::Candidate;

/// How long a post can be edited, and how often: X's own help page, "Edit Post".
const EDITABLE_MS: i64 = 3_600_000;
const EDITS: &str = "5";

/// Fields that are `null` where the tape is silent.
const NULL: [&str; 28] = [
    "lang",
    "user_id",
    "user_name",
    "user_profile_image_url",
    "user_description",
    "user_location",
    "user_url",
    "user_followers_count",
    "user_following_count",
    "user_tweet_count",
    "user_verified",
    "user_is_blue_verified",
    "user_created_at",
    "possibly_sensitive",
    "conversation_id",
    "in_reply_to_status_id",
    "in_reply_to_user_id",
    "in_reply_to_screen_name",
    "display_text_range",
    "poll",
    "place",
    "quoted_status_id",
    "retweeted_status_id",
    "has_card",
    "thumbnail_url",
    "thumbnail_title",
    "has_community_notes",
    "source",
];
/// Fields that are zero there.
const ZERO: [&str; 5] = ["favorite_count", "retweet_count", "reply_count", "quote_count", "bookmark_count"];
/// Fields that are false there.
const FALSE: [&str; 5] = ["favorited", "retweeted", "bookmarked", "is_quote_status", "is_retweet"];
/// Fields that hold ids: always texts here, however they came.
const IDS: [&str; 6] =
    ["user_id", "conversation_id", "in_reply_to_status_id", "in_reply_to_user_id", "quoted_status_id", "retweeted_status_id"];

/// A post, and what is asked about it.
#[derive(Clone, Debug)]
pub(super) struct Post {
    pub(super) id: TweetId,
    pub(super) published_at: UnixMicros,
    /// The fields of the reply.
    pub(super) fields: Map<String, Value>,
    is_reply: bool,
}

impl Post {
    /// From the envelope it came in; `id` is what the reader of envelopes found there.
    pub(super) fn of(id: TweetId, item: &Item) -> Self {
        let envelope: Value = serde_json::from_slice(&item.envelope).unwrap_or_default();
        let none = Map::new();
        let nested = envelope.get("tweet").and_then(Value::as_object).unwrap_or(&none);
        let outer = |name: &str| envelope.get(name).and_then(Value::as_str);
        let inner = |name: &str| nested.get(name).and_then(Value::as_str);
        let text = inner("full_text").or_else(|| inner("text")).or_else(|| outer("tweet_text")).unwrap_or_default();
        let username = inner("username").or_else(|| outer("author_username")).unwrap_or_default();
        let kind = outer("tweet_type").unwrap_or_default();

        let mut fields = Map::new();
        let mut put = |name: &str, value: Value| {
            fields.insert(name.to_owned(), value);
        };
        for (names, empty) in [(&NULL[..], Value::Null), (&ZERO[..], json!(0)), (&FALSE[..], json!(false))] {
            for name in names {
                put(name, nested.get(*name).filter(|value| !value.is_null()).cloned().unwrap_or_else(|| empty.clone()));
            }
        }
        for name in IDS {
            put(name, nested.get(name).and_then(id_text).map_or(Value::Null, Value::from));
        }
        for (name, found) in [("media", None), ("urls", Some(links(text))), ("hashtags", Some(tags(text, '#', "text")))] {
            put(name, list(nested, name).or(found).unwrap_or_else(|| json!([])));
        }
        put("user_mentions", list(nested, "user_mentions").unwrap_or_else(|| tags(text, '@', "username")));
        put("id", Value::from(id.to_string()));
        put("text", inner("text").unwrap_or(text).into());
        put("full_text", text.into());
        put("username", username.into());
        put("created_at", legacy_date(item.published_at).into());
        put("view_count", counted(nested.get("view_count"), || "0".to_owned()));
        put(
            "editable_until_msecs",
            counted(nested.get("editable_until_msecs"), || item.published_at.millis().saturating_add(EDITABLE_MS).to_string()),
        );
        put("edits_remaining", counted(nested.get("edits_remaining"), || EDITS.to_owned()));
        put("edit_tweet_ids", list(nested, "edit_tweet_ids").unwrap_or_else(|| json!([id.to_string()])));
        put("is_edit_eligible", json!(nested.get("is_edit_eligible").and_then(Value::as_bool).unwrap_or(false)));
        let retweet = kind == "retweet" || text.starts_with("RT @");
        for (name, holds) in [("is_retweet", retweet), ("is_quote_status", kind == "quote")] {
            if holds && !nested.contains_key(name) {
                put(name, json!(true));
            }
        }
        let is_reply = kind == "reply" || nested.get("in_reply_to_status_id").is_some_and(|id| !id.is_null());
        Self { id, published_at: item.published_at, fields, is_reply }
    }

    pub(super) fn into_json(self) -> Value {
        Value::Object(self.fields)
    }

    pub(super) fn text_of(&self, name: &str) -> &str {
        self.fields.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    fn count_of(&self, name: &str) -> u64 {
        let field = self.fields.get(name);
        field.and_then(|field| field.as_u64().or_else(|| field.as_str()?.parse().ok())).unwrap_or(0)
    }

    fn is(&self, name: &str) -> bool {
        self.fields.get(name).and_then(Value::as_bool).unwrap_or(false)
    }

    /// What a search can know about it.
    pub(super) fn candidate(&self) -> Candidate<'_> {
        let id = |name: &str| TweetId::parse(self.text_of(name));
        let media = self.each_of("media", "type");
        let mut urls = self.each_of("urls", "expanded_url");
        urls.extend(self.each_of("urls", "url"));
        Candidate {
            handle: self.text_of("username"),
            text: self.text_of("full_text"),
            lang: self.text_of("lang"),
            is_reply: self.is_reply,
            in_reply_to: Some(self.text_of("in_reply_to_screen_name")).filter(|name| !name.is_empty()),
            in_reply_to_id: id("in_reply_to_status_id"),
            conversation_id: id("conversation_id"),
            is_retweet: self.is("is_retweet"),
            is_quote: self.is("is_quote_status"),
            quoted_id: id("quoted_status_id"),
            mentions: self.each_of("user_mentions", "username"),
            hashtags: self.each_of("hashtags", "text"),
            urls,
            has_images: media.contains(&"photo"),
            has_videos: media.iter().any(|kind| *kind != "photo"),
            is_verified: self.is("user_verified"),
            is_blue_verified: self.is("user_is_blue_verified"),
            n_faves: self.count_of("favorite_count"),
            n_retweets: self.count_of("retweet_count"),
            n_replies: self.count_of("reply_count"),
            ..Candidate::new(self.id, self.published_at)
        }
    }

    /// One text of each item of a list of objects.
    pub(super) fn each_of(&self, name: &str, part: &str) -> Vec<&str> {
        let items = self.fields.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        items.iter().filter_map(|item| item.get(part)?.as_str()).collect()
    }

    pub(super) fn has_media(&self) -> bool {
        self.fields.get("media").and_then(Value::as_array).is_some_and(|media| !media.is_empty())
    }

    pub(super) fn mentions(&self, name: &str) -> bool {
        self.each_of("user_mentions", "username").iter().any(|other| other.eq_ignore_ascii_case(name))
    }

    /// What people did with it, for the order of `Top`; the provider's own order is not published.
    pub(super) fn weight(&self) -> u64 {
        let counts = ["favorite_count", "retweet_count", "reply_count", "quote_count"];
        counts.iter().fold(0, |sum: u64, name| sum.saturating_add(self.count_of(name)))
    }
}

/// An id as text, from a text or a whole number; a number that lost digits is none.
fn id_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => number.as_u64().map(|id| id.to_string()),
        _ => None,
    }
}

fn list(nested: &Map<String, Value>, name: &str) -> Option<Value> {
    nested.get(name).filter(|value| value.is_array()).cloned()
}

/// A count that is a text on the wire.
fn counted(given: Option<&Value>, otherwise: impl FnOnce() -> String) -> Value {
    Value::from(given.and_then(id_text).unwrap_or_else(otherwise))
}

/// Twitter's old date form in UTC.
fn legacy_date(at: UnixMicros) -> String {
    let stamp = jiff::Timestamp::from_microsecond(at.0).unwrap_or_default();
    stamp.to_zoned(jiff::tz::TimeZone::UTC).strftime("%a %b %d %H:%M:%S %z %Y").to_string()
}

/// The words behind a mark in a text, with their place in characters, as X finds hashtags and mentions.
fn tags(text: &str, mark: char, part: &str) -> Value {
    let letters: Vec<char> = text.chars().collect();
    let belongs = |c: char| c == '_' || if mark == '@' { c.is_ascii_alphanumeric() } else { c.is_alphanumeric() };
    let mut found = Vec::new();
    let mut at = 0;
    while at < letters.len() {
        let starts = letters[at] == mark && (at == 0 || !belongs(letters[at - 1]));
        let end = (at + 1..letters.len()).find(|&end| !belongs(letters[end])).unwrap_or(letters.len());
        if starts && end > at + 1 {
            let word: String = letters[at + 1..end].iter().collect();
            found.push(json!({ part: word, "indices": [at, end] }));
            at = end;
        } else {
            at += 1;
        }
    }
    Value::Array(found)
}

/// Links in a text; where they lead is not known.
fn links(text: &str) -> Value {
    let words = text.split_whitespace().filter(|word| word.starts_with("https://") || word.starts_with("http://"));
    let links = words.map(|url| json!({"url": url, "expanded_url": null, "display_url": null, "unwound_url": null}));
    links.collect()
}
