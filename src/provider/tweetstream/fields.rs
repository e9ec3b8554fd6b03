//! Parts of an envelope as they were written: a history gives the live bytes again, so nothing is built anew.

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// Deepest object that an update is put into; below that it replaces what was there.
const MERGE_DEPTH_MAX: usize = 16;

/// The fields of an object in their order, each value as text.
#[derive(Debug)]
pub(super) struct Fields<'a>(Vec<(String, &'a str)>);

impl<'a> Fields<'a> {
    /// Reads an envelope; `None` if it is not an object.
    pub(super) fn read(envelope: &'a [u8]) -> Option<Self> {
        serde_json::from_slice(envelope).ok()
    }

    /// Reads an object; `None` if it is not one.
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// The value of that name; of several the last one, as the decoder has it.
    pub(super) fn get(&self, name: &str) -> Option<&'a str> {
        self.0.iter().rev().find(|(key, _)| key == name).map(|(_, value)| *value)
    }
}

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Each;
        impl<'de> Visitor<'de> for Each {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                while let Some((key, value)) = map.next_entry::<String, &'de RawValue>()? {
                    fields.push((key, value.get()));
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Each)
    }
}

/// The live `d` of an envelope, as it is.
pub(super) fn payload(envelope: &[u8]) -> Option<Box<RawValue>> {
    RawValue::from_string(Fields::read(envelope)?.get("d")?.to_owned()).ok()
}

/// What a JSON string says; `None` for other values.
pub(super) fn text_of(value: &str) -> Option<String> {
    serde_json::from_str(value).ok()
}

/// Whom a `d` is about: a post's author, or the actor of an account event.
pub(super) fn who(payload: &str) -> Option<Fields<'_>> {
    let fields = Fields::parse(payload)?;
    fields.get("author").or_else(|| fields.get("actor")).and_then(Fields::parse)
}

/// The handle of whom an envelope is about, as it is written.
pub(super) fn handle_of(envelope: &[u8]) -> Option<String> {
    let who = who(Fields::read(envelope)?.get("d")?)?;
    text_of(who.get("handle")?)
}

/// The account that an envelope is about, as handles are compared.
pub(crate) fn selected_by(envelope: &[u8]) -> Option<String> {
    handle_of(envelope).map(|handle| super::watchlist::normalized(&handle)).filter(|handle| !handle.is_empty())
}

/// An object with an update put in: objects field by field, anything else whole. New fields come last.
pub(super) fn merge(base: &str, update: &str) -> Option<Box<RawValue>> {
    RawValue::from_string(merged(base, update, MERGE_DEPTH_MAX)?).ok()
}

fn merged(base: &str, update: &str, depth: usize) -> Option<String> {
    if depth == 0 {
        return None;
    }
    let (base, update) = (Fields::parse(base)?, Fields::parse(update)?);
    let mut out = String::from("{");
    let known = base.0.iter().map(|(key, old)| (key, Some(*old), update.get(key)));
    let new = update.0.iter().filter(|(key, _)| base.get(key).is_none()).map(|(key, new)| (key, None, Some(*new)));
    for (key, old, new) in known.chain(new) {
        if out.len() > 1 {
            out.push(',');
        }
        out += &serde_json::to_string(key).ok()?;
        out.push(':');
        match (old, new) {
            (Some(old), Some(new)) => out += &merged(old, new, depth - 1).unwrap_or_else(|| new.to_owned()),
            (Some(one), None) | (None, Some(one)) => out += one,
            (None, None) => out += "null",
        }
    }
    out.push('}');
    Some(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn puts_an_update_in_and_leaves_the_rest_as_written() {
        let cases = [
            (r#"{"a": 1.50,"b":"\u0041"}"#, r#"{"c":2}"#, r#"{"a":1.50,"b":"\u0041","c":2}"#),
            (r#"{"a":{"x":1,"y":2}}"#, r#"{"a":{"y":3,"z":4}}"#, r#"{"a":{"x":1,"y":3,"z":4}}"#),
            (r#"{"a":[1,2]}"#, r#"{"a":[3]}"#, r#"{"a":[3]}"#),
            (r#"{"a":{"x":1}}"#, r#"{"a":null}"#, r#"{"a":null}"#),
            (r#"{"a":5}"#, r#"{"a":{"x":1}}"#, r#"{"a":{"x":1}}"#),
            ("{}", "{}", "{}"),
        ];
        for (base, update, want) in cases {
            assert_eq!(merge(base, update).unwrap().get(), want, "{base} {update}");
        }
        assert!(merge("[]", "{}").is_none() && merge("{}", "5").is_none());
        let deep = |end: &str| format!("{}{end}{}", r#"{"a":"#.repeat(60), "}".repeat(60));
        assert!(merge(&deep("1"), &deep("2")).unwrap().get().contains('2'));
    }

    #[test]
    fn reads_whom_an_envelope_is_about() {
        let cases: [(&str, Option<&str>); 6] = [
            (r#"{"d":{"author":{"handle":"@A"}}}"#, Some("@A")),
            (r#"{"d":{"actor":{"handle":"b"},"target":{"handle":"c"}}}"#, Some("b")),
            (r#"{"d":{"author":{"handle":"x"}},"d":{"author":{"handle":"y"}}}"#, Some("y")),
            (r#"{"d":{"author":{"handle":5}}}"#, None),
            (r#"{"d":[]}"#, None),
            ("noise", None),
        ];
        for (envelope, want) in cases {
            assert_eq!(handle_of(envelope.as_bytes()).as_deref(), want, "{envelope}");
        }
    }
}
