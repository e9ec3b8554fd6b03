//! A record in one line, for people.

use std::collections::VecDeque;

use serde_json::Value;

use super::out::stamp;
use crate::archive::Record;
use crate::model::{EventId, Provider, RecordKind};
use crate::provider;

/// Characters of text that are shown.
const LONGEST_TEXT: usize = 100;
/// Ids that are shown.
const MOST_IDS: usize = 3;
/// How many values of an envelope are looked at in search of its text.
const MOST_VALUES: usize = 2_000;

/// When, source, number, kind, ids and text. The caller makes control characters visible.
pub(super) fn line(source: &str, provider: &str, record: &Record) -> String {
    let head = format!("{}  {source} {}  {}", stamp(record.at), record.n, record.kind.name());
    if record.kind != RecordKind::Frame {
        return format!("{head}  {}", cut(&String::from_utf8_lossy(&record.body)));
    }
    let (what, ids) = events(provider, &record.body);
    let text = cut(&text(&record.body));
    [head, what, ids, text].iter().filter(|part| !part.is_empty()).map(String::as_str).collect::<Vec<_>>().join("  ")
}

/// Sorts of the events in an envelope, and their ids.
fn events(provider: &str, body: &[u8]) -> (String, String) {
    let Ok(provider) = provider.parse::<Provider>() else { return Default::default() };
    let (mut kinds, mut ids) = (Vec::new(), Vec::new());
    for event in provider::decode(provider, body).events {
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
    let Ok(value) = serde_json::from_slice::<Value>(body) else { return all() };
    let mut queue = VecDeque::from([&value]);
    for _ in 0..MOST_VALUES {
        match queue.pop_front() {
            Some(Value::Object(map)) => {
                for name in ["text", "full_text"] {
                    if let Some(text) = map.get(name).and_then(Value::as_str).filter(|text| !text.is_empty()) {
                        return text.to_owned();
                    }
                }
                queue.extend(map.values().filter(|value| value.is_object() || value.is_array()));
            }
            Some(Value::Array(list)) => queue.extend(list),
            Some(_) => {}
            None => break,
        }
    }
    all()
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
}
