//! A post as history gives it out: found in its envelope and left as it is written there.
//!
//! The fast lane's object has less in it, and other names; it is written anew as a whole post with what is known.

use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::wire;
use crate::model::json::Json;
use crate::model::{EventId, TweetId, UnixMicros};
use crate::provider::past::Item;
use crate::provider::search::Candidate;

/// A post with its JSON.
#[derive(Debug)]
pub(super) struct Post {
    pub(super) id: TweetId,
    pub(super) published_at: UnixMicros,
    /// Whether only the fast lane told of it.
    pub(super) is_fast: bool,
    /// What is given out.
    pub(super) raw: Box<RawValue>,
    value: Value,
    is_retweet: bool,
    is_quote: bool,
}

impl Post {
    /// The post an event of the past speaks of; `None` when its envelope does not hold it in a readable form.
    pub(super) fn of(item: &Item) -> Option<Self> {
        let EventId::Tweet(id) = item.id else { return None };
        let (text, is_fast) = find(std::str::from_utf8(&item.envelope).ok()?, id)?;
        let value: Value = serde_json::from_str(text).ok()?;
        if is_fast {
            return Self::of_fast(id, item.published_at, &value);
        }
        let raw = RawValue::from_string(text.to_owned()).ok()?;
        // Observed: nested objects are the only marks of quotes and retweets that can be trusted.
        let (is_retweet, is_quote) = (value["retweeted_tweet"].is_object(), value["quoted_tweet"].is_object());
        Some(Self { id, published_at: item.published_at, is_fast, raw, value, is_retweet, is_quote })
    }

    fn of_fast(id: TweetId, published_at: UnixMicros, fast: &Value) -> Option<Self> {
        let action = fast["type"].as_str().unwrap_or_default();
        let value = whole(id, published_at, fast);
        let raw = serde_json::value::to_raw_value(&value).ok()?;
        Some(Self { id, published_at, is_fast: true, raw, value, is_retweet: action == "repost", is_quote: action == "quote" })
    }

    /// The author's object.
    pub(super) fn author(&self) -> &Value {
        &self.value["author"]
    }

    /// The author's id, when it says.
    pub(super) fn author_id(&self) -> Option<u64> {
        number_of(&self.author()["id"])
    }

    /// What a search sees of it.
    pub(super) fn candidate(&self) -> Candidate<'_> {
        let post = &self.value;
        let author = self.author();
        let media = list(&post["extendedEntities"]["media"]);
        let has = |kinds: &[&str]| media.iter().any(|media| media["type"].as_str().is_some_and(|kind| kinds.contains(&kind)));
        let entities = |name: &str, part: &str| -> Vec<&str> {
            list(&post["entities"][name]).iter().filter_map(|entity| entity[part].as_str()).collect()
        };
        let mut urls = entities("urls", "expanded_url");
        urls.extend(entities("urls", "display_url"));
        Candidate {
            handle: author["userName"].as_str().or(author["username"].as_str()).unwrap_or_default(),
            text: post["text"].as_str().unwrap_or_default(),
            lang: post["lang"].as_str().unwrap_or_default(),
            is_reply: post["isReply"].as_bool().unwrap_or_default(),
            in_reply_to: post["inReplyToUsername"].as_str(),
            in_reply_to_id: number_of(&post["inReplyToId"]).map(TweetId),
            conversation_id: number_of(&post["conversationId"]).map(TweetId),
            is_retweet: self.is_retweet,
            is_quote: self.is_quote,
            quoted_id: number_of(&post["quoted_tweet"]["id"]).map(TweetId),
            mentions: entities("user_mentions", "screen_name"),
            hashtags: entities("hashtags", "text"),
            urls,
            has_images: has(&["photo"]),
            has_videos: has(&["video", "animated_gif"]),
            is_verified: author["isVerified"] == true || author["verifiedType"].is_string(),
            is_blue_verified: author["isBlueVerified"] == true,
            n_faves: post["likeCount"].as_u64().unwrap_or_default(),
            n_retweets: post["retweetCount"].as_u64().unwrap_or_default(),
            n_replies: post["replyCount"].as_u64().unwrap_or_default(),
            ..Candidate::new(self.id, self.published_at)
        }
    }
}

/// A 64-bit id, written as digits or as a number.
pub(super) fn number_of(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| TweetId::parse(value.as_str()?).map(|id| id.0))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// The text of the post with that id, and whether it is the fast lane's. Nested posts are not looked at.
///
/// The walk is that of `wire.rs`, so that what was counted as an event there is found here, doubled keys and all.
fn find(envelope: &str, id: TweetId) -> Option<(&str, bool)> {
    let envelope = envelope.trim_matches([' ', '\t', '\r', '\n']);
    let mut found = None;
    let mut is_fast = false;
    let mut take = |json: &mut Json<'_>| {
        let start = json.position();
        let mut own = None;
        json.object(|key, json| {
            if key == "id" {
                own = json.id()?;
            }
            Ok(())
        })?;
        if own == Some(id.0) && found.is_none() {
            found = envelope.get(start..json.position());
        }
        Ok(())
    };
    Json::new(envelope)
        .object(|key, json| match key {
            "event_type" => {
                is_fast = wire::is_fast(json.text()?.as_deref());
                Ok(())
            }
            "tweets" => json.array(&mut take),
            "tweet" => take(json),
            _ => Ok(()),
        })
        .ok()?;
    found.map(|text| (text, is_fast))
}

/// The fast lane's object as a whole post: counts that nobody told are 0, texts that nobody told are missing or null.
fn whole(id: TweetId, published_at: UnixMicros, fast: &Value) -> Value {
    let handle = fast["screen_name"].as_str().unwrap_or_default();
    let id = id.to_string();
    let texts = |name: &str| list(&fast[name]).iter().filter_map(Value::as_str).collect::<Vec<_>>();
    let media: Vec<_> =
        texts("media").into_iter().map(|url| json!({ "media_url_https": url, "type": media_type(url) })).collect();
    let hashtags: Vec<_> = texts("hashtags").into_iter().map(|tag| json!({ "text": tag.trim_start_matches('#') })).collect();
    let mentions: Vec<_> =
        texts("mentions").into_iter().map(|name| json!({ "screen_name": name.trim_start_matches('@') })).collect();
    let is_reply = fast["type"] == "reply";
    json!({
        "type": "tweet",
        "id": id,
        "url": format!("https://x.com/{handle}/status/{id}"),
        "twitterUrl": format!("https://twitter.com/{handle}/status/{id}"),
        "text": fast["text"],
        "source": "",
        "retweetCount": 0,
        "replyCount": 0,
        "likeCount": 0,
        "quoteCount": 0,
        "viewCount": null,
        "bookmarkCount": 0,
        "createdAt": legacy_date(published_at),
        "lang": "und",
        "isReply": is_reply,
        "inReplyToId": null,
        "inReplyToUserId": null,
        "inReplyToUsername": null,
        // What a reply answers is not told.
        "conversationId": if is_reply { Value::Null } else { Value::from(id.as_str()) },
        "author": {
            "type": "user",
            "userName": handle,
            "url": format!("https://x.com/{handle}"),
            "twitterUrl": format!("https://twitter.com/{handle}"),
            "id": fast["user_id"],
            "name": fast["display_name"],
        },
        "entities": { "hashtags": hashtags, "urls": [], "user_mentions": mentions },
        "extendedEntities": { "media": media },
        "card": null,
        "place": {},
        "quoted_tweet": null,
        "retweeted_tweet": null,
        "isLimitedReply": false,
        "article": null,
    })
}

/// Observed: pictures are addresses below `/media/`, videos show a thumbnail from another folder.
fn media_type(url: &str) -> &'static str {
    if url.contains("video_thumb") || url.contains("video.") { "video" } else { "photo" }
}

/// `Wed Sep 10 17:28:07 +0000 2025`.
fn legacy_date(at: UnixMicros) -> String {
    const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut fixed = [0u8; 27];
    at.write_rfc3339(&mut fixed);
    let part = |range: std::ops::Range<usize>| std::str::from_utf8(&fixed[range]).unwrap_or_default();
    let month = part(5..7).parse::<usize>().ok().and_then(|month| MONTHS.get(month.wrapping_sub(1))).unwrap_or(&"Jan");
    let day = DAYS[(at.day() + 4).rem_euclid(7) as usize];
    format!("{day} {month} {} {} +0000 {}", part(8..10), part(11..19), part(0..4))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::parse_legacy_date;

    #[test]
    fn dates_read_back() {
        for seconds in [0, 951_782_400, 1_757_525_287, 1_793_606_490] {
            let at = UnixMicros(seconds * 1_000_000);
            assert_eq!(parse_legacy_date(&legacy_date(at)), Some(at));
        }
    }

    #[test]
    fn finds_the_outer_post_as_it_is_written() {
        let envelope = r#" {"tweets": [ 7, {"id":"1","quoted_tweet":{"id":"9"}}, {"text" : "é","id":2}],"tweet":{"id":3},"event_type":"fast_tweet"}"#;
        let found = |id: u64| find(envelope, TweetId(id));
        assert_eq!(found(2), Some((r#"{"text" : "é","id":2}"#, true)));
        assert_eq!(found(3), Some((r#"{"id":3}"#, true)));
        assert_eq!(found(9), None, "what is quoted is not the envelope's own");
        assert_eq!(find("[]", TweetId(1)), None);
        assert_eq!(find("nonsense", TweetId(1)), None);
    }
}
