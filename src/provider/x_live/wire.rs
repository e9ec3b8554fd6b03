//! The live pipeline's envelope, read once.

use std::borrow::Cow;

use crate::model::json::{Bad, Json, Kind};
use crate::model::{Decoded, Event, EventId, EventKind, Message, TweetId};

/// Reads an envelope, or the answer to a change of topics (the same without `payload`).
///
/// A kind of the catalogue without the id it must have counts as unknown, so that a changed format is noticed.
pub fn decode(text: &str) -> Decoded {
    // A padded line still says what it says; only `json` must be about the exact bytes.
    let trimmed = text.trim_matches([' ', '\t', '\r', '\n']);
    let mut json = Json::new(trimmed);
    let container = matches!(json.kind(), Kind::Object | Kind::Array);
    let mut envelope = Envelope::default();
    let read = json.object(|key, json| envelope.field(key, json)).and_then(|()| json.finish());
    if read.is_err() || !container {
        return Decoded { message: Message::Unknown, ..Decoded::default() };
    }
    let events = envelope.events();
    Decoded {
        json: !json.is_multi_line() && trimmed.len() == text.len(),
        message: envelope.message(!events.is_empty()),
        provider_at: None,
        events,
    }
}

/// The topic of an envelope, if it is an object that has one.
pub(super) fn topic(text: &str) -> Option<Cow<'_, str>> {
    let mut found = None;
    let mut json = Json::new(text);
    json.object(|key, json| {
        if key == "topic" {
            found = json.text()?;
        }
        Ok(())
    })
    .ok()?;
    found
}

/// What is taken from an envelope; `topic` may stand behind `payload`.
#[derive(Default)]
pub(super) struct Envelope<'a> {
    pub(super) topic: Option<Cow<'a, str>>,
    config: Option<Config<'a>>,
    subscriptions: Option<Vec<(String, i64, String)>>,
    error: Option<(i64, Cow<'a, str>)>,
    pub(super) engagement: bool,
    pub(super) dm_update: Option<Conversation<'a>>,
    pub(super) dm_typing: Option<Conversation<'a>>,
}

#[derive(Default)]
struct Config<'a> {
    session_id: Cow<'a, str>,
    ttl_ms: u64,
    heartbeat_ms: u64,
}

/// `conversation_id` of a direct-message kind.
pub(super) type Conversation<'a> = Option<Cow<'a, str>>;

impl<'a> Envelope<'a> {
    pub(super) fn field(&mut self, key: &str, json: &mut Json<'a>) -> Result<(), Bad> {
        match key {
            "topic" => self.topic = json.text()?,
            "payload" => json.object(|key, json| self.kind(key, json))?,
            // Documented: the answer to a POST has no wrapper.
            "subscriptions" => self.kind(key, json)?,
            "errors" => json.array(|json| self.complaint(json))?,
            _ => {}
        }
        Ok(())
    }

    pub(super) fn kind(&mut self, kind: &str, json: &mut Json<'a>) -> Result<(), Bad> {
        if json.kind() != Kind::Object {
            return Ok(());
        }
        match kind {
            "config" => self.config = Some(config(json)?),
            "subscriptions" => self.subscriptions = Some(refused(json)?),
            "tweet_engagement" => self.engagement = true,
            "dm_update" => self.dm_update = Some(conversation(json)?),
            "dm_typing" => self.dm_typing = Some(conversation(json)?),
            _ => {}
        }
        Ok(())
    }

    /// Only the first complaint is taken; observed answers have one.
    fn complaint(&mut self, json: &mut Json<'a>) -> Result<(), Bad> {
        let (mut code, mut message) = (None, None);
        json.object(|key, json| {
            match key {
                "code" => code = json.integer()?,
                "message" => message = json.text()?,
                _ => {}
            }
            Ok(())
        })?;
        if self.error.is_none() && (code.is_some() || message.is_some()) {
            self.error = Some((code.unwrap_or(0), message.unwrap_or_default()));
        }
        Ok(())
    }

    pub(super) fn events(&mut self) -> Vec<Event> {
        let topic = self.topic.as_deref().unwrap_or("");
        let mut events = Vec::new();
        let mut add = |kind, id: Option<EventId>| {
            // Counters and wake-ups have no author's time: the post's own age says nothing about theirs.
            events.extend(id.map(|id| Event { kind, id, published_at: None, selector: topic.to_owned() }));
        };
        if self.engagement {
            // The body has no id: it stands in the topic only.
            let id = topic.strip_prefix("/tweet_engagement/").and_then(TweetId::parse);
            add(EventKind::Engagement, id.map(EventId::Tweet));
        }
        for (kind, conversation) in [(EventKind::DmUpdate, self.dm_update.take()), (EventKind::DmTyping, self.dm_typing.take())] {
            let id = conversation.flatten().filter(|id| !id.is_empty());
            add(kind, id.map(|id| EventId::Text(id.into_owned())));
        }
        events
    }

    pub(super) fn message(self, has_events: bool) -> Message {
        match self {
            Self { config: Some(config), .. } if !config.session_id.is_empty() => Message::Config {
                session_id: config.session_id.into_owned(),
                subscription_ttl_ms: config.ttl_ms,
                heartbeat_ms: config.heartbeat_ms,
            },
            Self { subscriptions: Some(refused), .. } => Message::Subscriptions { refused },
            _ if has_events => Message::Data,
            Self { error: Some((code, text)), .. } => Message::Error { code: u16::try_from(code).ok(), text: text.into_owned() },
            _ => Message::Unknown,
        }
    }
}

/// A missing or impossible number reads as 0: the client knows what to take then.
fn config<'a>(json: &mut Json<'a>) -> Result<Config<'a>, Bad> {
    let mut config = Config::default();
    json.object(|key, json| {
        match key {
            "session_id" => config.session_id = json.text()?.unwrap_or_default(),
            "subscription_ttl_millis" => config.ttl_ms = json.id()?.unwrap_or(0),
            "heartbeat_millis" => config.heartbeat_ms = json.id()?.unwrap_or(0),
            _ => {}
        }
        Ok(())
    })?;
    Ok(config)
}

fn refused(json: &mut Json<'_>) -> Result<Vec<(String, i64, String)>, Bad> {
    let mut refused = Vec::new();
    json.object(|key, json| {
        if key != "errors" {
            return Ok(());
        }
        json.array(|json| {
            let (mut topic, mut code, mut message) = (None, None, None);
            json.object(|key, json| {
                match key {
                    "topic" => topic = json.text()?,
                    "code" => code = json.integer()?,
                    "message" => message = json.text()?,
                    _ => {}
                }
                Ok(())
            })?;
            let owned = |text: Option<Cow<'_, str>>| text.map(Cow::into_owned).unwrap_or_default();
            refused.push((owned(topic), code.unwrap_or(0), owned(message)));
            Ok(())
        })
    })?;
    Ok(refused)
}

fn conversation<'a>(json: &mut Json<'a>) -> Result<Conversation<'a>, Bad> {
    let mut id = None;
    json.object(|key, json| {
        if key == "conversation_id" {
            id = json.text()?;
        }
        Ok(())
    })?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    fn shown(text: &str) -> String {
        let decoded = decode(text);
        let mut out = format!("json={} {:?}", decoded.json, decoded.message);
        for Event { kind, id, published_at, selector } in &decoded.events {
            assert!(published_at.is_none());
            out += &format!("\n  {} {id:?} {selector:?}", kind.name());
        }
        out
    }

    fn check(text: &str, expected: Expect) {
        expected.assert_eq(&shown(text));
    }

    macro_rules! fixture {
        ($case:literal) => {
            ($case, include_str!(concat!("../../../fixtures/x_live/", $case, ".json")).trim_ascii_end())
        };
    }

    const FIXTURES: &[(&str, &str)] = &[
        fixture!("config"),
        fixture!("config_keys_reversed"),
        fixture!("config_without_numbers"),
        fixture!("dm_typing"),
        fixture!("dm_update"),
        fixture!("empty_payload"),
        fixture!("engagement_and_unknown"),
        fixture!("engagement_elsewhere"),
        fixture!("errors_392"),
        fixture!("subscriptions_on_stream"),
        fixture!("subscriptions_refused"),
        fixture!("subscriptions_reply"),
        fixture!("tweet_engagement"),
        fixture!("tweet_engagement_views"),
        fixture!("two_kinds"),
        fixture!("unknown_kind"),
    ];

    #[test]
    fn reads_every_kind() {
        let mut all = String::new();
        for (case, text) in FIXTURES {
            all += &format!("{case}: {}\n", shown(text));
        }
        expect![[r#"
            config: json=true Config { session_id: "made-up-session-1", subscription_ttl_ms: 120000, heartbeat_ms: 25000 }
            config_keys_reversed: json=true Config { session_id: "made-up-session-2", subscription_ttl_ms: 120000, heartbeat_ms: 25000 }
            config_without_numbers: json=true Config { session_id: "made-up-session-3", subscription_ttl_ms: 0, heartbeat_ms: 0 }
            dm_typing: json=true Data
              dm_typing Text("101-202") "/dm_typing/101-202"
            dm_update: json=true Data
              dm_update Text("9988776655443322110") "/dm_update/9988776655443322110"
            empty_payload: json=true Unknown
            engagement_and_unknown: json=true Data
              engagement Tweet(TweetId(2102038470875676672)) "/tweet_engagement/2102038470875676672"
            engagement_elsewhere: json=true Unknown
            errors_392: json=true Error { code: Some(392), text: "Session not found." }
            subscriptions_on_stream: json=true Subscriptions { refused: [] }
            subscriptions_refused: json=true Subscriptions { refused: [("/dm_update/101-202", 403, "not \"here\""), ("/tweet_engagement/1", 7, ""), ("", 0, "")] }
            subscriptions_reply: json=true Subscriptions { refused: [] }
            tweet_engagement: json=true Data
              engagement Tweet(TweetId(2102038470875676672)) "/tweet_engagement/2102038470875676672"
            tweet_engagement_views: json=true Data
              engagement Tweet(TweetId(2102038470875676672)) "/tweet_engagement/2102038470875676672"
            two_kinds: json=true Data
              dm_update Text("101-202") "/dm_update/101-202"
              dm_typing Text("101-202") "/dm_update/101-202"
            unknown_kind: json=true Unknown
        "#]].assert_eq(&all);
    }

    #[test]
    fn odd_texts() {
        for text in ["", " ", ":", "5", "data: {}", "{", "{\"payload\":{\"config\":{}}", "{}{}", "[1", "\u{feff}{}"] {
            let decoded = decode(text);
            assert!(!decoded.json && decoded.message == Message::Unknown && decoded.events.is_empty(), "{text:?}");
        }
        for text in
            ["{}", "[]", r#"{"topic":5,"payload":[]}"#, r#"{"payload":{"config":[],"dm_update":null}}"#, r#"{"errors":[5,{}]}"#]
        {
            let decoded = decode(text);
            assert!(decoded.json && decoded.message == Message::Unknown, "{text:?}");
        }
        check("{\"subscriptions\":{}}\r\n", expect!["json=false Subscriptions { refused: [] }"]);
        check(r#"{"errors":[{"code":99999,"message":"far"}]}"#, expect![[r#"json=true Error { code: None, text: "far" }"#]]);
        check(r#"{"payload":{"config":{"session_id":"","subscription_ttl_millis":-5}}}"#, expect!["json=true Unknown"]);
    }

    #[test]
    fn finds_the_topic_anywhere() {
        assert_eq!(topic(r#"{"payload":{"topic":"/no"},"topic":"/yes"}"#).as_deref(), Some("/yes"));
        assert_eq!(topic(r#"{"topic":null}"#), None);
        assert_eq!(topic("[]"), None);
        assert_eq!(topic("noise"), None);
    }

    #[test]
    fn every_cut_is_survived() {
        for (case, text) in FIXTURES {
            for at in (0..text.len()).filter(|&at| text.is_char_boundary(at)) {
                assert!(!decode(&text[..at]).json, "{case} cut at {at}");
            }
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in any::<String>()) {
            topic(&text);
            if decode(&text).json {
                prop_assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok());
            }
        }

        /// One changed byte in a real shape: what we call JSON, serde reads too.
        #[test]
        fn json_means_json(case in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), byte in 0u8..128) {
            let mut bytes = FIXTURES[case.index(FIXTURES.len())].1.as_bytes().to_vec();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Ok(text) = String::from_utf8(bytes) && decode(&text).json {
                let value = serde_json::from_str::<serde_json::Value>(&text);
                prop_assert!(value.is_ok_and(|v| v.is_object() || v.is_array()), "{}", text);
            }
        }
    }
}
