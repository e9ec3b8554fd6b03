//! The strict reader of JSON, against serde_json.

use birdtape::model::TweetId;
use birdtape::model::json::{Bad, Json, Kind, unescape, write_escaped, write_string};
use serde_json::{Map, Value};

/// Deepest nesting that both readers take.
const DEEPEST: usize = 126;

/// What we take, serde_json takes, and reads as the same values; what it takes and we do not has white space around it.
pub(super) fn read(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    escapes(text);
    if text.matches(['[', '{']).count() > DEEPEST {
        return passes(text);
    }
    let theirs = serde_json::from_str::<Value>(text);
    let taken = passes(text);
    if !taken {
        let is_tight = text.trim_matches([' ', '\t', '\r', '\n']).len() == text.len();
        assert!(!is_tight || theirs.is_err(), "refused, and serde_json reads {theirs:?}");
        return false;
    }
    let theirs = theirs.expect("what we take, serde_json takes");
    assert_eq!(value(&mut Json::new(text)).expect("it was taken before"), theirs);
    said(text);
    true
}

fn passes(text: &str) -> bool {
    let mut json = Json::new(text);
    json.skip().and_then(|()| json.finish()).is_ok()
}

/// Walks all of it in the way readers of envelopes do.
fn value(json: &mut Json<'_>) -> Result<Value, Bad> {
    let start = json.position();
    let read = match json.kind() {
        Kind::Object => {
            let mut map = Map::new();
            json.object(|key, json| {
                map.insert(key.to_owned(), value(json)?);
                Ok(())
            })?;
            Value::Object(map)
        }
        Kind::Array => {
            let mut all = Vec::new();
            json.array(|json| {
                all.push(value(json)?);
                Ok(())
            })?;
            Value::Array(all)
        }
        Kind::String => Value::String(json.text()?.expect("a text").into_owned()),
        Kind::Number => {
            let raw = json.raw()?;
            assert_eq!(Json::new(raw).integer()?, raw.parse().ok(), "{raw}");
            assert_eq!(Json::new(raw).id()?, TweetId::parse(raw).map(|id| id.0), "{raw}");
            serde_json::from_str(raw).expect("a number")
        }
        Kind::Other => serde_json::from_str(json.raw()?).expect("a word"),
    };
    let mut again = Json::new(json.since(start));
    again.skip()?;
    again.finish()?;
    Ok(read)
}

/// What is copied without empty members is JSON still, and has no more of them.
fn said(text: &str) {
    let copy = |text: &str| {
        let mut out = String::new();
        let is_said = Json::new(text).copy_said(&mut out).expect("it was taken before");
        assert_eq!(is_said, !out.is_empty());
        out
    };
    let first = copy(text);
    if !first.is_empty() {
        serde_json::from_str::<Value>(&first).expect("a copy is JSON");
        assert_eq!(copy(&first), first, "a copy's copy");
        assert!(first.len() <= text.len());
    }
}

/// Any text, written by us, is read by everybody.
fn escapes(text: &str) {
    let mut written = Vec::new();
    write_string(&mut written, text);
    assert_eq!(serde_json::from_slice::<String>(&written).expect("a text"), text);
    let inside = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
    assert_eq!(Json::new(&inside(&written)).text(), Ok(Some(text.into())));
    written.clear();
    write_escaped(&mut written, text);
    assert_eq!(unescape(&inside(&written)).as_deref(), Some(text));
    if let Some(plain) = unescape(text) {
        let quoted = format!("\"{text}\"");
        if let Ok(theirs) = serde_json::from_str::<String>(&quoted) {
            assert_eq!(plain, theirs, "escapes of {quoted}");
        }
    }
}
