//! TwitterAPI.io's envelopes, read in one pass.
//!
//! Keys come in any order (in captured deliveries `event_type` comes after `tweets`), so the walk collects and the
//! end decides. A tweet costs one entry of `events` and no text; only a fast lane's action makes a string.

use std::borrow::Cow;

use crate::model::json::{Bad, Json};
use crate::model::{Decoded, Event, EventId, EventKind, Message, TweetId, UnixMicros, parse_legacy_date};

/// Reads one message: strict JSON check, meaning, stamp and events.
///
/// `json` is true exactly when the text is one object or array, valid, on one line, with nothing around it. A valid
/// envelope with white space around or line breaks inside is understood all the same; a broken one says nothing.
pub fn decode(text: &str) -> Decoded {
    let inner = text.trim_matches([' ', '\t', '\r', '\n']);
    let mut json = Json::new(inner);
    let mut envelope = Envelope::default();
    if !inner.starts_with(['{', '[']) || json.object(|key, json| envelope.take(key, json)).is_err() || json.finish().is_err() {
        return Decoded { message: Message::Unknown, ..Decoded::default() };
    }
    let exact = inner.len() == text.len() && !json.is_multi_line();
    Decoded { json: exact, ..envelope.decide() }
}

/// What the walk has found so far.
#[derive(Default)]
struct Envelope<'a> {
    event_type: EventType,
    timestamp: Option<i64>,
    rule_id: Option<Cow<'a, str>>,
    events: Vec<Event>,
    /// Events whose object called itself an action: position, word, acting account.
    actions: Vec<(usize, &'static str, Option<u64>)>,
}

/// The values of `event_type`.
///
/// Documented: `connected`, `ping`, `tweet` and `fast_tweet` (twitterapi.io blog, "Using WebSocket for Real-Time
/// Twitter Data"), `replaced` (docs.twitterapi.io, "WebSocket stream").
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum EventType {
    Connected,
    Ping,
    Tweet,
    FastTweet,
    Replaced,
    #[default]
    Other,
}

impl EventType {
    pub(super) fn of(word: Option<&str>) -> Self {
        match word {
            Some("tweet") => Self::Tweet,
            Some("fast_tweet") => Self::FastTweet,
            Some("ping") => Self::Ping,
            Some("connected") => Self::Connected,
            Some("replaced") => Self::Replaced,
            _ => Self::Other,
        }
    }

    pub(super) fn message(self) -> Message {
        match self {
            Self::Connected => Message::Connected,
            Self::Ping => Message::Ping,
            Self::Tweet | Self::FastTweet => Message::Data,
            Self::Replaced => Message::Replaced,
            Self::Other => Message::Unknown,
        }
    }
}

impl<'a> Envelope<'a> {
    fn take(&mut self, key: &str, json: &mut Json<'a>) -> Result<(), Bad> {
        match key {
            "event_type" => self.event_type = EventType::of(json.text()?.as_deref()),
            "timestamp" => self.timestamp = json.integer()?,
            "rule_id" => self.rule_id = json.text()?,
            "tweets" => json.array(|json| self.take_tweet(json))?,
            "tweet" => self.take_tweet(json)?,
            _ => {}
        }
        Ok(())
    }

    fn take_tweet(&mut self, json: &mut Json<'a>) -> Result<(), Bad> {
        let (mut id, mut user_id, mut created_at, mut created_ms, mut action) = (None, None, None, None, None);
        json.object(|key, json| {
            match key {
                "id" => id = json.id()?,
                "user_id" => user_id = json.id()?,
                "createdAt" => created_at = json.text()?,
                "created_ms" => created_ms = json.integer()?,
                "type" => action = action_word(json.text()?.as_deref()),
                _ => {}
            }
            Ok(())
        })?;
        let Some(id) = id.map(TweetId) else { return Ok(()) };
        if let Some(word) = action {
            self.actions.push((self.events.len(), word, user_id));
        }
        self.events.push(event(id, action, created_ms, created_at.as_deref()));
        Ok(())
    }

    fn decide(mut self) -> Decoded {
        let message = self.event_type.message();
        match self.event_type {
            EventType::FastTweet => {
                for &(at, word, user_id) in &self.actions {
                    turn_into_action(&mut self.events[at], word, user_id);
                }
            }
            // In the full object `type` names the object, never an action; a word there changes nothing but the time.
            EventType::Tweet => self.actions.iter().for_each(|&(at, ..)| restore_tweet(&mut self.events[at])),
            _ => self.events.clear(),
        }
        if let Some(rule_id) = self.rule_id {
            self.events.iter_mut().for_each(|event| event.selector = rule_id.as_ref().to_owned());
        }
        Decoded { json: false, message, provider_at: self.timestamp.map(UnixMicros::from_millis), events: self.events }
    }
}

/// A post as an event, as far as it is known before the end of its envelope.
pub(super) fn event(id: TweetId, action: Option<&'static str>, created_ms: Option<i64>, created_at: Option<&str>) -> Event {
    // What the id of an action names is not known, so its time is the stamp alone.
    let snowflake = if action.is_none() { id.published_at() } else { None };
    let published_at =
        snowflake.or_else(|| created_ms.map(UnixMicros::from_millis)).or_else(|| created_at.and_then(parse_legacy_date));
    Event { kind: EventKind::Tweet, id: EventId::Tweet(id), published_at, selector: String::new() }
}

/// An action's id is `word:account:id`, so that a like and a mention of one post stay two events.
pub(super) fn turn_into_action(event: &mut Event, word: &str, user_id: Option<u64>) {
    let EventId::Tweet(id) = event.id else { return };
    let user_id = user_id.map(|u| u.to_string()).unwrap_or_default();
    event.kind = EventKind::Action;
    event.id = EventId::Text(format!("{word}:{user_id}:{id}"));
}

/// What called itself an action was a post after all.
pub(super) fn restore_tweet(event: &mut Event) {
    if let EventId::Tweet(id) = event.id {
        event.published_at = id.published_at().or(event.published_at);
    }
}

/// Whether an `event_type` is the fast lane's.
pub(super) fn is_fast(word: Option<&str>) -> bool {
    EventType::of(word) == EventType::FastTweet
}

/// The word of an action that is no post; `None` for posts.
///
/// Observed (public stream clients, 2026-09): `post`, `reply`, `repost`, `quote`, `thread` are posts; `like`,
/// `mention`, `follow` are not. `tweet` is the full object's constant. A word nobody has seen is not called a post.
pub(super) fn action_word(word: Option<&str>) -> Option<&'static str> {
    match word {
        None | Some("post" | "reply" | "repost" | "quote" | "thread" | "tweet") => None,
        Some("like") => Some("like"),
        Some("mention") => Some("mention"),
        Some("follow") => Some("follow"),
        Some(_) => Some("other"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::provider::script::show_decoded;
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    fn check(text: &str, want: Expect) {
        want.assert_eq(&show_decoded(&decode(text)));
    }

    macro_rules! fixture {
        ($name:literal) => {
            include_str!(concat!("../../../fixtures/twitterapi_io/", $name, ".json")).trim_end()
        };
    }

    #[test]
    fn control_messages() {
        check(fixture!("connected"), expect![[r#"json connected at 2026-11-02T08:00:00.001000Z"#]]);
        check(fixture!("connected_bare"), expect![[r#"json connected"#]]);
        check(fixture!("ping"), expect![[r#"json ping at 2026-11-02T08:00:40.001000Z"#]]);
        check(fixture!("replaced"), expect![[r#"json replaced"#]]);
    }

    #[test]
    fn batches() {
        check(
            fixture!("rule_batch"),
            expect![[r#"
            json data at 2026-11-02T08:00:05.000000Z
            tweet 2117164813577617415 published 2026-11-02T08:00:01.234000Z by [00112233445566778899aabbccddeeff]
            tweet 2117164812176719875 published 2026-11-02T08:00:00.900000Z by [00112233445566778899aabbccddeeff]"#]],
        );
        check(
            fixture!("stream_tweet"),
            expect![[r#"
            json data at 2026-11-02T08:01:01.200000Z
            tweet 2117165060060086273 published 2026-11-02T08:01:00.000000Z by []"#]],
        );
        check(
            fixture!("single_tweet"),
            expect![[r#"
            json data at 2026-11-02T08:01:11.000000Z
            tweet 2117165102003126273 published 2026-11-02T08:01:10.000000Z by []"#]],
        );
        check(fixture!("empty_batch"), expect!["json data at 2026-11-02T08:01:12.000000Z"]);
        check(
            fixture!("quoted_inside"),
            expect![[r#"
            json data at 2026-11-02T08:01:21.000000Z
            tweet 2117165143946166273 published 2026-11-02T08:01:20.000000Z by [ffeeddccbbaa99887766554433221100]"#]],
        );
        check(
            fixture!("old_id"),
            expect![[r#"
            json data at 2026-11-02T08:01:22.000000Z
            tweet 4711 published 2009-03-03T10:11:12.000000Z by []"#]],
        );
    }

    #[test]
    fn fast_lane() {
        check(
            fixture!("fast_post"),
            expect![[r#"
            json data at 2026-11-02T08:01:30.600000Z
            tweet 2117165185889206274 published 2026-11-02T08:01:30.000000Z by []"#]],
        );
        check(
            fixture!("fast_like"),
            expect![[r#"
            json data at 2026-11-02T08:01:31.700000Z
            action "like:900100200300:2116802420536246274" published 2026-11-02T08:01:31.000000Z by []"#]],
        );
        check(
            fixture!("fast_follow"),
            expect![[r#"
            json data at 2026-11-02T08:01:32.700000Z
            action "follow::900100200555" published - by []"#]],
        );
        check(
            fixture!("fast_unheard_of"),
            expect![[r#"
            json data at 2026-11-02T08:01:33.700000Z
            action "other:900100200300:2117165198472118274" published 2026-11-02T08:01:33.004000Z by []"#]],
        );
        for (word, kind) in [
            ("post", EventKind::Tweet),
            ("reply", EventKind::Tweet),
            ("repost", EventKind::Tweet),
            ("quote", EventKind::Tweet),
            ("thread", EventKind::Tweet),
            ("tweet", EventKind::Tweet),
            ("like", EventKind::Action),
            ("mention", EventKind::Action),
            ("follow", EventKind::Action),
            ("poke", EventKind::Action),
        ] {
            let text = format!(r#"{{"tweet":{{"type":"{word}","id":"1990000000000000001"}},"event_type":"fast_tweet"}}"#);
            assert_eq!(decode(&text).events[0].kind, kind, "{word}");
        }
    }

    #[test]
    fn surprising_messages() {
        check(fixture!("unknown_event"), expect!["json unknown at 2026-11-02T08:01:34.000000Z"]);
        check(fixture!("wrong_types"), expect!["json data"]);
        check(fixture!("duplicate_keys"), expect!["json connected at 2026-11-02T08:01:35.000000Z"]);
        check("[]", expect!["json unknown"]);
        check("{}", expect!["json unknown"]);
        check(r#"{"event_type":"ping","timestamp":1.5e12}"#, expect!["json ping"]);
        check(r#"{"event\u005ftype":"pi\u006eg"}"#, expect!["json ping"]);
        check(
            r#"{"event_type":"tweet","tweets":[{"id":18446744073709551615,"type":"like"}]}"#,
            expect![[r#"
            json data
            tweet 18446744073709551615 published 2150-03-18T09:18:05.760000Z by []"#]],
        );
    }

    #[test]
    fn not_exactly_one_line_of_json() {
        for text in
            ["", " ", "ping", "\"ping\"", "7", "null", "{", "{\"event_type\":\"ping\"", "\u{feff}{}", "{}{}", "{},", "\u{0}{}"]
        {
            let decoded = decode(text);
            assert!(!decoded.json && decoded.events.is_empty() && decoded.message == Message::Unknown, "{text:?}");
        }
        // Understood, but the bytes cannot stand verbatim in a line.
        for text in ["{\"event_type\":\"ping\"}\n", " {\"event_type\":\"ping\"}", "{\"event_type\":\n\"ping\"}"] {
            let decoded = decode(text);
            assert!(!decoded.json && decoded.message == Message::Ping, "{text:?}");
        }
        let whole = fixture!("rule_batch");
        for end in (0..whole.len()).filter(|&end| whole.is_char_boundary(end)) {
            assert!(!decode(&whole[..end]).json, "cut at {end}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in any::<String>()) {
            let decoded = decode(&text);
            prop_assert!(!decoded.json || serde_json::from_str::<serde_json::Value>(&text).is_ok());
        }

        /// One byte of a real-looking envelope changed: what we call JSON, serde calls JSON.
        #[test]
        fn accepts_nothing_that_serde_refuses(at in any::<prop::sample::Index>(), byte in 0u8..128) {
            let mut text = fixture!("rule_batch").to_owned().into_bytes();
            let at = at.index(text.len());
            text[at] = byte;
            if let Ok(text) = String::from_utf8(text) && decode(&text).json {
                prop_assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok(), "{}", text);
                prop_assert!(!text.contains(['\n', '\r']));
            }
        }
    }
}
