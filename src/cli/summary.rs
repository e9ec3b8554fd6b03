//! A record in one line, for people.

use std::collections::VecDeque;

use serde_json::{Map, Value};

use super::out::stamp;
use crate::archive::Record;
use crate::model::{EventId, Provider, RecordKind, TweetId};
use crate::provider;

/// Characters of text that are shown.
const LONGEST_TEXT: usize = 100;
/// Ids that are shown.
const MOST_IDS: usize = 3;
/// How many values of an envelope are looked at in search of its text.
const MOST_VALUES: usize = 2_000;
/// Fields by which providers' rows name the post they are about.
const ID_FIELDS: [&str; 5] = ["id", "id_str", "rest_id", "tweet_id", "tweetId"];

/// When, source, number, kind, ids and text. The caller makes control characters visible.
pub(super) fn line(source: &str, provider: &str, record: &Record) -> String {
    if record.kind != RecordKind::Frame {
        return format!("{}  {}", head(source, record), cut(&String::from_utf8_lossy(&record.body)));
    }
    let (what, ids) = events(provider, record, None);
    joined(&[head(source, record), what, ids, cut(&text(&record.body))])
}

/// As [`line`]; of a page of history only what it says about one post.
pub(super) fn line_about(source: &str, provider: &str, record: &Record, id: TweetId) -> String {
    if record.kind == RecordKind::Frame {
        return line(source, provider, record);
    }
    let (what, ids) = events(provider, record, Some(id));
    let page = serde_json::from_slice::<Value>(&record.body).ok();
    let text = page.as_ref().and_then(|page| row_about(page, id)).and_then(text_of).unwrap_or_default();
    joined(&[head(source, record), what, ids, cut(&text)])
}

fn head(source: &str, record: &Record) -> String {
    format!("{}  {source} {}  {}", stamp(record.at), record.n, record.kind.name())
}

fn joined(parts: &[String]) -> String {
    parts.iter().filter(|part| !part.is_empty()).map(String::as_str).collect::<Vec<_>>().join("  ")
}

/// Sorts of the events in a record, or of those about one post, and their ids.
fn events(provider: &str, record: &Record, about: Option<TweetId>) -> (String, String) {
    let Ok(provider) = provider.parse::<Provider>() else { return Default::default() };
    let (mut kinds, mut ids) = (Vec::new(), Vec::new());
    let mut events = provider::decode_record(provider, record.via, &record.body).events;
    events.retain(|event| about.is_none_or(|id| event.id == EventId::Tweet(id)));
    for event in events {
        let id = match event.id {
            EventId::Tweet(id) => id.to_string(),
            EventId::Text(text) => text,
        };
        if !kinds.contains(&event.kind.name()) {
            kinds.push(event.kind.name());
        }
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    let more = ids.len().saturating_sub(MOST_IDS);
    ids.truncate(MOST_IDS);
    if more > 0 {
        ids.push(format!("+{more}"));
    }
    (kinds.join("+"), ids.join(" "))
}

/// What an envelope says to people: its nearest `text`, otherwise all of it.
fn text(body: &[u8]) -> String {
    let all = || String::from_utf8_lossy(&body[..body.len().min(4 * LONGEST_TEXT)]).into_owned();
    serde_json::from_slice::<Value>(body).ok().and_then(|value| text_of(&value)).unwrap_or_else(all)
}

/// The nearest `text` that is not empty.
fn text_of(value: &Value) -> Option<String> {
    let said = |map: &Map<String, Value>| {
        let mut texts = ["text", "full_text"].into_iter().filter_map(|name| map.get(name).and_then(Value::as_str));
        texts.find(|text| !text.is_empty()).map(str::to_owned)
    };
    objects(value).take(MOST_VALUES).find_map(said)
}

/// The outermost object that is about a post: of a page, its row.
fn row_about(page: &Value, id: TweetId) -> Option<&Value> {
    let names = |value: &Value| value.as_u64().or_else(|| value.as_str()?.parse().ok()) == Some(id.0);
    let is_about = |map: &Map<String, Value>| ID_FIELDS.iter().filter_map(|name| map.get(*name)).any(names);
    values(page).find(|value| value.as_object().is_some_and(is_about))
}

/// Objects within a value, the outer ones first.
fn objects(value: &Value) -> impl Iterator<Item = &Map<String, Value>> {
    values(value).filter_map(Value::as_object)
}

/// Objects and lists within a value and itself, the outer ones first.
fn values(value: &Value) -> impl Iterator<Item = &Value> {
    let mut queue = VecDeque::from([value]);
    std::iter::from_fn(move || {
        let value = queue.pop_front()?;
        let has_parts = |value: &&Value| value.is_object() || value.is_array();
        match value {
            Value::Object(map) => queue.extend(map.values().filter(has_parts)),
            Value::Array(list) => queue.extend(list.iter().filter(has_parts)),
            _ => {}
        }
        Some(value)
    })
}

fn cut(text: &str) -> String {
    let mut chars = text.chars();
    let mut short: String = chars.by_ref().take(LONGEST_TEXT).collect();
    if chars.next().is_some() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_words_of_an_envelope() {
        assert_eq!(text(br#"{"event_type":"tweet","tweets":[{"id":"1","text":"hello"}]}"#), "hello");
        assert_eq!(text(br#"{"d":{"author":{"name":"x"},"text":"near"}}"#), "near");
        assert_eq!(text(b"not json"), "not json");
        assert_eq!(text(br#"{"event_type":"ping"}"#), r#"{"event_type":"ping"}"#);
        assert_eq!(cut(&"é".repeat(101)).chars().count(), 101);
    }

    #[test]
    fn finds_the_row_of_a_page_that_is_about_a_post() {
        let page =
            r#"{"tweets":[{"id":"8","text":"about it","quoted_tweet":{"id":"7","text":"quoted"}},{"id":7,"text":"itself"}]}"#;
        let page: Value = serde_json::from_str(page).unwrap();
        let said = |id| row_about(&page, TweetId(id)).and_then(text_of);
        assert_eq!([said(7), said(8), said(9)], [Some("itself".to_owned()), Some("about it".to_owned()), None]);
    }
}
