//! TweetStream's envelope, read once.

use crate::model::json::{Bad, Json, Kind};
use crate::model::{Decoded, Event, EventId, EventKind, Message, TweetId, UnixMicros};

/// Reads an envelope.
///
/// Dispatches on `op` alone, as the vendor's SDKs do. An `op` of the catalogue without the id it must have is
/// reported as [`Message::Unknown`], so that a changed format is counted and not taken for a quiet hour.
pub fn decode(text: &str) -> Decoded {
    // A frame padded with white space still says what it says; only `json` must be about the exact bytes.
    let trimmed = text.trim_matches([' ', '\t', '\r', '\n']);
    let mut json = Json::new(trimmed);
    let container = matches!(json.kind(), Kind::Object | Kind::Array);
    let mut envelope = Envelope::default();
    let read = json.object(|key, json| envelope.field(key, json)).and_then(|()| json.finish());
    if read.is_err() || !container {
        return Decoded { message: Message::Unknown, ..Decoded::default() };
    }
    let (message, event) = envelope.meaning();
    Decoded {
        json: !json.is_multi_line() && trimmed.len() == text.len(),
        message,
        provider_at: envelope.ts.map(UnixMicros::from_millis),
        events: event.into_iter().collect(),
    }
}

/// The `op`s of the catalogue.
///
/// Documented: tweetstream.io docs, "Payloads, detections and OCR", and the SDK's type union; `callout` is
/// observed in a public consumer only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Tweet(EventKind),
    Account(EventKind),
    Callout,
    HandlesResult,
    AuthPing,
    AuthPong,
}

impl Op {
    pub(super) fn parse(op: &str) -> Option<Self> {
        Some(match op {
            "content" => Self::Tweet(EventKind::Tweet),
            "update" => Self::Tweet(EventKind::Update),
            "meta" => Self::Tweet(EventKind::Meta),
            "delete" => Self::Tweet(EventKind::Delete),
            "pin" => Self::Tweet(EventKind::Pin),
            "unpin" => Self::Tweet(EventKind::Unpin),
            "profile_update" => Self::Account(EventKind::Profile),
            "follow" => Self::Account(EventKind::Follow),
            "unfollow" => Self::Account(EventKind::Unfollow),
            "callout" => Self::Callout,
            "twitter_handles_result" => Self::HandlesResult,
            "auth_ping" => Self::AuthPing,
            "auth_pong" => Self::AuthPong,
            _ => return None,
        })
    }
}

/// What is taken from an envelope; `op` may stand behind `d`, so the fields of every `op` are gathered first.
#[derive(Default)]
struct Envelope<'a> {
    op: Option<Op>,
    id: Option<std::borrow::Cow<'a, str>>,
    ts: Option<i64>,
    tweet_id: Option<u64>,
    event_id: Option<std::borrow::Cow<'a, str>>,
    created_at: Option<i64>,
    observed_at: Option<i64>,
    truth_social: bool,
}

impl<'a> Envelope<'a> {
    fn field(&mut self, key: &str, json: &mut Json<'a>) -> Result<(), Bad> {
        match key {
            "op" => self.op = json.text()?.and_then(|op| Op::parse(&op)),
            "id" => self.id = json.text()?,
            "ts" => self.ts = json.integer()?,
            "d" => json.object(|key, json| self.payload_field(key, json))?,
            _ => {}
        }
        Ok(())
    }

    fn payload_field(&mut self, key: &str, json: &mut Json<'a>) -> Result<(), Bad> {
        match key {
            "tweetId" => self.tweet_id = json.id()?,
            "eventId" => self.event_id = json.text()?,
            "createdAt" => self.created_at = json.integer()?,
            "observedAt" => self.observed_at = json.integer()?,
            "author" => json.object(|key, json| {
                if key == "platform" {
                    self.truth_social = json.text()?.is_some_and(|platform| platform == "truth_social");
                }
                Ok(())
            })?,
            _ => {}
        }
        Ok(())
    }

    fn meaning(&mut self) -> (Message, Option<Event>) {
        let event = match self.op {
            None => None,
            Some(Op::HandlesResult | Op::AuthPong) => return (Message::Other, None),
            Some(Op::AuthPing) => return (Message::AuthPing, None),
            Some(Op::Tweet(kind)) => tweet_event(kind, self.tweet_id, self.created_at, self.truth_social),
            Some(Op::Account(kind)) => text_event(kind, self.event_id.take(), self.observed_at),
            Some(Op::Callout) => text_event(EventKind::Callout, self.id.take(), self.created_at),
        };
        (if event.is_some() { Message::Data } else { Message::Unknown }, event)
    }
}

/// An event of a post.
pub(super) fn tweet_event(kind: EventKind, id: Option<u64>, created_at: Option<i64>, truth_social: bool) -> Option<Event> {
    let id = TweetId(id?);
    let written_at = created_at.map(UnixMicros::from_millis);
    let (id, published_at) = match truth_social {
        true => (EventId::Text(format!("truth_social:{id}")), written_at),
        // Content names its platform or is X's; the others carry no author, so their id may be either's.
        false if kind != EventKind::Tweet && may_be_truth_social(id) => (EventId::Tweet(id), written_at),
        false => (EventId::Tweet(id), id.published_at().or(written_at)),
    };
    Some(Event { kind, id, published_at, selector: String::new() })
}

/// An event that has an id in words.
pub(super) fn text_event(kind: EventKind, id: Option<std::borrow::Cow<'_, str>>, at: Option<i64>) -> Option<Event> {
    let id = id.filter(|id| !id.is_empty())?;
    let published_at = at.map(UnixMicros::from_millis);
    Some(Event { kind, id: EventId::Text(id.into_owned()), published_at, selector: String::new() })
}

/// Whether an id, read as Truth Social's, lies between 2022 (when it opened) and 2040.
///
/// Observed: its ids are Mastodon's, `id >> 16` is Unix milliseconds (SDK test fixture 116334902567890770).
/// As a snowflake such an id would be from the second half of 2011, so an X post that old has no time either.
fn may_be_truth_social(id: TweetId) -> bool {
    (1_640_995_200_000..2_208_988_800_000).contains(&(id.0 >> 16))
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
        if let Some(at) = decoded.provider_at {
            out += &format!(" at {at}");
        }
        for Event { kind, id, published_at, selector } in &decoded.events {
            let id = match id {
                EventId::Tweet(id) => id.to_string(),
                EventId::Text(text) => format!("{text:?}"),
            };
            let at = published_at.map_or("-".to_owned(), |at| at.to_string());
            out += &format!("\n  {} {id} published {at} {selector:?}", kind.name());
        }
        out
    }

    fn check(text: &str, expected: Expect) {
        expected.assert_eq(&shown(text));
    }

    macro_rules! fixture {
        ($case:literal) => {
            include_str!(concat!("../../../fixtures/tweetstream/", $case, ".json")).trim_ascii_end()
        };
    }

    const FIXTURES: &[(&str, &str)] = &[
        ("auth_ping", fixture!("auth_ping")),
        ("auth_pong", fixture!("auth_pong")),
        ("callout", fixture!("callout")),
        ("content", fixture!("content")),
        ("content_bare", fixture!("content_bare")),
        ("content_keys_reversed", fixture!("content_keys_reversed")),
        ("content_truth_social", fixture!("content_truth_social")),
        ("content_without_id", fixture!("content_without_id")),
        ("delete", fixture!("delete")),
        ("follow", fixture!("follow")),
        ("meta", fixture!("meta")),
        ("meta_truth_social", fixture!("meta_truth_social")),
        ("pin", fixture!("pin")),
        ("profile_update", fixture!("profile_update")),
        ("profile_update_list", fixture!("profile_update_list")),
        ("twitter_handles_result", fixture!("twitter_handles_result")),
        ("unfollow", fixture!("unfollow")),
        ("unknown_op", fixture!("unknown_op")),
        ("unpin", fixture!("unpin")),
        ("update", fixture!("update")),
    ];

    #[test]
    fn reads_every_op() {
        let mut all = String::new();
        for (case, text) in FIXTURES {
            all += &format!("{case}: {}\n", shown(text));
        }
        expect![[r#"
            auth_ping: json=true AuthPing at 2026-09-21T14:13:20.000000Z
            auth_pong: json=true Other at 2026-09-21T14:13:20.005000Z
            callout: json=true Data at 2026-09-21T14:13:21.200000Z
              callout "call-0001.teal" published 2026-09-21T14:13:21.000000Z ""
            content: json=true Data at 2026-09-21T14:13:20.323000Z
              tweet 2102038470875676672 published 2026-09-21T14:13:20.100000Z ""
            content_bare: json=true Data
              tweet 2102038470875676672 published 2026-09-21T14:13:20.100000Z ""
            content_keys_reversed: json=true Data at 2026-09-21T14:13:20.400000Z
              tweet 2102038470875676673 published 2026-09-21T14:13:20.100000Z ""
            content_truth_social: json=true Data at 2026-09-21T14:13:22.250000Z
              tweet "truth_social:117309440131073234" published 2026-09-21T14:13:22.000000Z ""
            content_without_id: json=true Unknown at 2026-09-21T14:13:23.000000Z
            delete: json=true Data at 2026-09-21T14:14:20.000000Z
              delete 2102038470875676672 published 2026-09-21T14:13:20.100000Z ""
            follow: json=true Data at 2026-09-21T14:14:30.050000Z
              follow "ev-follow-1" published 2026-09-21T14:14:30.000000Z ""
            meta: json=true Data at 2026-09-21T14:13:20.540000Z
              meta 2102038470875676672 published 2026-09-21T14:13:20.100000Z ""
            meta_truth_social: json=true Data at 2026-09-21T14:13:22.450000Z
              meta 117309440131073234 published - ""
            pin: json=true Data at 2026-09-21T14:14:40.000000Z
              pin 2102038470875676672 published 2026-09-21T14:13:20.100000Z ""
            profile_update: json=true Data at 2026-09-21T14:14:50.050000Z
              profile "ev-profile-1" published 2026-09-21T14:14:50.000000Z ""
            profile_update_list: json=true Data at 2026-09-21T14:14:51.050000Z
              profile "ev-profile-2" published 2026-09-21T14:14:51.000000Z ""
            twitter_handles_result: json=true Other at 2026-09-21T14:15:00.000000Z
            unfollow: json=true Data at 2026-09-21T14:15:10.050000Z
              unfollow "ev-unfollow-1" published 2026-09-21T14:15:10.000000Z ""
            unknown_op: json=true Unknown at 2026-09-21T14:15:20.000000Z
            unpin: json=true Data at 2026-09-21T14:14:41.000000Z
              unpin 2102038470875676672 published 2026-09-21T14:13:20.100000Z ""
            update: json=true Data at 2026-09-21T14:13:20.700000Z
              update 2102038470875676672 published 2026-09-21T14:13:20.100000Z ""
        "#]]
        .assert_eq(&all);
    }

    #[test]
    fn odd_texts_are_not_kept_as_raw_json() {
        for text in [
            "",
            " ",
            "x",
            "5",
            "\"op\"",
            "null",
            "{",
            "{\"op\":\"content\"",
            "{}{}",
            "{\"op\":\"content\",}",
            "\u{feff}{}",
            "{\"d\":{\"tweetId\":\"1\\ud800\"}}",
            "[1",
        ] {
            let decoded = decode(text);
            assert!(!decoded.json && decoded.message == Message::Unknown && decoded.events.is_empty(), "{text:?}");
        }
        for text in ["{}", "[]", "[{\"op\":\"content\"}]", "{\"op\":5,\"d\":[],\"ts\":{}}"] {
            let decoded = decode(text);
            assert!(decoded.json && decoded.message == Message::Unknown, "{text:?}");
        }
    }

    #[test]
    fn a_padded_or_broken_line_is_understood_but_not_verbatim() {
        for text in [
            "{\"op\":\"delete\",\"d\":{\"tweetId\":\"7\"}}\n",
            " {\"op\":\"delete\",\"d\":{\"tweetId\":\"7\"}}",
            "{\"op\":\"delete\",\n\"d\":{\"tweetId\":\"7\"}}",
        ] {
            let decoded = decode(text);
            assert!(!decoded.json && decoded.events.len() == 1, "{text:?}");
        }
    }

    #[test]
    fn ids_never_pass_through_a_float() {
        check(
            r#"{"op":"content","d":{"tweetId":18446744073709551615,"createdAt":1.5}}"#,
            expect![[r#"
                json=true Data
                  tweet 18446744073709551615 published 2150-03-18T09:18:05.760000Z """#]],
        );
        check(r#"{"op":"content","d":{"tweetId":1e3}}"#, expect!["json=true Unknown"]);
        check(
            r#"{"op":"content","ts":-1,"d":{"tweetId":"20","createdAt":1142974214000}}"#,
            expect![[r#"
            json=true Data at 1969-12-31T23:59:59.999000Z
              tweet 20 published 2006-03-21T20:50:14.000000Z """#]],
        );
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
