//! ScrapeBadger's envelopes, read in one pass: three printed dialects and their union.
//!
//! | dialect | mark | published in |
//! | --- | --- | --- |
//! | A | `event: "tweet.detected"`, flat | docs.scrapebadger.com, 2026-03-13 |
//! | B | `type: "new_tweet"` with `source`, flat | scrapebadger.com/docs/twitter-streams |
//! | C | `type: "tweet"`, nested `tweet{…}` | the vendor's Python and Node packages |
//! | merged | keys of A and C in one object | made here; three published clients accept it |
//!
//! Which one is live cannot be told without a key, so one reader takes them all: their keys do not contradict
//! each other, and no branch is needed to tell them apart.

use std::borrow::Cow;

use crate::model::json::{Bad, Json, Kind};
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
    sort: Sort,
    monitor_id: Option<Cow<'a, str>>,
    rule_id: Option<Cow<'a, str>>,
    tweet_id: Option<u64>,
    nested_id: Option<u64>,
    tweet_published_at: Option<Cow<'a, str>>,
    created_at: Option<Cow<'a, str>>,
    detected_at: Option<Cow<'a, str>>,
    timestamp: Option<Cow<'a, str>>,
    code: Option<i64>,
    message: Option<Cow<'a, str>>,
}

/// What `event` or `type` says.
///
/// Documented: `tweet.detected` (docs.scrapebadger.com, "Streams"); `new_tweet`, `connected`, `error`
/// (scrapebadger.com/docs/twitter-streams); `tweet` and `test` as the webhook's `type` (the published OpenAPI text).
/// `ping` stands in the vendor's packages only.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Sort {
    Tweet,
    Connected,
    Ping,
    Error,
    Test,
    #[default]
    Other,
}

impl<'a> Envelope<'a> {
    fn take(&mut self, key: &str, json: &mut Json<'a>) -> Result<(), Bad> {
        match key {
            "type" | "event" => {
                // The merged form has both; whichever is understood counts.
                let sort = sort(json.text()?.as_deref());
                self.sort = if sort == Sort::Other { self.sort } else { sort };
            }
            "monitor_id" => self.monitor_id = name(json)?,
            "rule_id" => self.rule_id = name(json)?,
            "tweet_id" => self.tweet_id = json.id()?,
            "tweet_published_at" => self.tweet_published_at = json.text()?,
            "detected_at" => self.detected_at = json.text()?,
            "timestamp" => self.timestamp = json.text()?,
            "code" => self.code = json.integer()?,
            "message" => self.message = json.text()?,
            "tweet" => json.object(|key, json| {
                match key {
                    "id" => self.nested_id = json.id()?,
                    "created_at" => self.created_at = json.text()?,
                    _ => {}
                }
                Ok(())
            })?,
            _ => {}
        }
        Ok(())
    }

    fn decide(self) -> Decoded {
        let stamp = self.detected_at.as_deref().or(self.timestamp.as_deref());
        let provider_at = stamp.and_then(UnixMicros::parse_rfc3339);
        let mut events = Vec::new();
        if self.sort == Sort::Tweet {
            events.extend(self.event());
        }
        Decoded { json: false, message: message(self.sort, self.code, self.message), provider_at, events }
    }

    /// The tweet, if the envelope names one.
    fn event(&self) -> Option<Event> {
        let id = self.tweet_id.or(self.nested_id).map(TweetId)?;
        let selector = self.rule_id.as_deref().or(self.monitor_id.as_deref());
        Some(event(id, self.tweet_published_at.as_deref(), self.created_at.as_deref(), selector))
    }
}

/// What an envelope means for the connection.
pub(super) fn message(sort: Sort, code: Option<i64>, text: Option<Cow<'_, str>>) -> Message {
    match sort {
        Sort::Tweet => Message::Data,
        Sort::Connected => Message::Connected,
        Sort::Ping => Message::Ping,
        Sort::Error => Message::Error {
            code: code.and_then(|code| u16::try_from(code).ok()),
            text: text.map(Cow::into_owned).unwrap_or_default(),
        },
        Sort::Test => Message::Other,
        Sort::Other => Message::Unknown,
    }
}

/// A post as an event.
///
/// As its selector a rule's id goes before a monitor's: under dialect C a rule's event still has to carry some
/// `monitor_id` to please the vendor's Python package.
pub(super) fn event(id: TweetId, published_at: Option<&str>, created_at: Option<&str>, selector: Option<&str>) -> Event {
    let published_at = id
        .published_at()
        .or_else(|| published_at.and_then(UnixMicros::parse_rfc3339))
        .or_else(|| created_at.and_then(parse_legacy_date));
    let selector = selector.unwrap_or_default().to_owned();
    Event { kind: EventKind::Tweet, id: EventId::Tweet(id), published_at, selector }
}

pub(super) fn sort(word: Option<&str>) -> Sort {
    match word {
        Some("tweet" | "new_tweet" | "tweet.detected") => Sort::Tweet,
        Some("ping") => Sort::Ping,
        Some("connected") => Sort::Connected,
        Some("error") => Sort::Error,
        Some("test") => Sort::Test,
        _ => Sort::Other,
    }
}

/// A rule's or monitor's id: text, or a number; empty counts as absent.
fn name<'a>(json: &mut Json<'a>) -> Result<Option<Cow<'a, str>>, Bad> {
    let read = match json.kind() {
        Kind::Number => json.id()?.map(|id| Cow::Owned(id.to_string())),
        _ => json.text()?,
    };
    Ok(read.filter(|name| !name.is_empty()))
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
            include_str!(concat!("../../../fixtures/scrapebadger/", $name, ".json")).trim_end()
        };
    }

    #[test]
    fn control_messages() {
        check(fixture!("connected"), expect!["json connected"]);
        check(fixture!("ping"), expect!["json ping at 2026-11-02T08:00:30.000000Z"]);
        check(fixture!("error_4001"), expect![[r#"json error Some(4001) "Invalid or missing API key""#]]);
        check(fixture!("error_4003"), expect![[r#"json error Some(4003) "too many open sockets for this key""#]]);
        check(fixture!("test"), expect!["json other"]);
    }

    #[test]
    fn every_dialect() {
        check(
            fixture!("a_detected"),
            expect![[r#"
            json data at 2026-11-02T08:00:01.150000Z
            tweet 2117164812596150276 published 2026-11-02T08:00:01.000000Z by [5a5a5a5a-0000-4000-8000-000000000001]"#]],
        );
        check(
            fixture!("b_monitor"),
            expect![[r#"
            json data at 2026-11-02T08:00:02.000000Z
            tweet 2117164812596150276 published 2026-11-02T08:00:01.000000Z by [5a5a5a5a-0000-4000-8000-000000000001]"#]],
        );
        check(
            fixture!("b_rule"),
            expect![[r#"
            json data at 2026-11-02T08:00:02.000000Z
            tweet 2117164812596150276 published 2026-11-02T08:00:01.000000Z by [6b6b6b6b-0000-4000-8000-000000000002]"#]],
        );
        check(
            fixture!("c_tweet"),
            expect![[r#"
            json data at 2026-11-02T08:00:04.333000Z
            tweet 2117164812596150276 published 2026-11-02T08:00:01.000000Z by [5a5a5a5a-0000-4000-8000-000000000001]"#]],
        );
        check(
            fixture!("merged"),
            expect![[r#"
            json data at 2026-11-02T08:00:01.450000Z
            tweet 2117164812596150276 published 2026-11-02T08:00:01.000000Z by [6b6b6b6b-0000-4000-8000-000000000002]"#]],
        );
    }

    #[test]
    fn surprising_messages() {
        check(
            fixture!("number_ids"),
            expect![[r#"
            json data at 2026-11-02T08:00:02.000000Z
            tweet 2117164812596150276 published 2026-11-02T08:00:01.000000Z by [42]"#]],
        );
        check(
            fixture!("old_id"),
            expect![[r#"
            json data at 2026-11-02T08:00:02.000000Z
            tweet 4711 published 2009-03-03T10:11:12.000000Z by [5a5a5a5a-0000-4000-8000-000000000001]"#]],
        );
        check(fixture!("unknown_type"), expect!["json unknown"]);
        check(fixture!("wrong_types"), expect!["json data"]);
        check("[]", expect!["json unknown"]);
        check("{}", expect!["json unknown"]);
        check(r#"{"type":"tweet"}"#, expect!["json data"]);
        check(
            r#"{"event":"something.else","type":"tweet","tweet_id":"1990000000000000001"}"#,
            expect![[r#"
            json data
            tweet 1990000000000000001 published 2025-11-16T10:12:27.069000Z by []"#]],
        );
        check(r#"{"type":"error","code":"4001"}"#, expect![[r#"json error Some(4001) """#]]);
        check(r#"{"type":"error","code":70000,"message":"\u0041"}"#, expect![[r#"json error None "A""#]]);
        check(
            r#"{"type":"tweet","rule_id":"","monitor_id":"m","tweet_id":"1990000000000000001"}"#,
            expect![[r#"
            json data
            tweet 1990000000000000001 published 2025-11-16T10:12:27.069000Z by [m]"#]],
        );
    }

    #[test]
    fn not_exactly_one_line_of_json() {
        for text in ["", " ", "ping", "\"ping\"", "7", "null", "{", "{\"type\":\"ping\"", "\u{feff}{}", "{}{}", "{},", "\u{0}{}"]
        {
            let decoded = decode(text);
            assert!(!decoded.json && decoded.events.is_empty() && decoded.message == Message::Unknown, "{text:?}");
        }
        // Understood, but the bytes cannot stand verbatim in a line.
        for text in ["{\"type\":\"ping\"}\n", " {\"type\":\"ping\"}", "{\"type\":\n\"ping\"}"] {
            let decoded = decode(text);
            assert!(!decoded.json && decoded.message == Message::Ping, "{text:?}");
        }
        let whole = fixture!("merged");
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
            let mut text = fixture!("merged").to_owned().into_bytes();
            let at = at.index(text.len());
            text[at] = byte;
            if let Ok(text) = String::from_utf8(text) && decode(&text).json {
                prop_assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok(), "{}", text);
                prop_assert!(!text.contains(['\n', '\r']));
            }
        }
    }
}
