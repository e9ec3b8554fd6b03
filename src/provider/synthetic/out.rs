//! A JSON writer for bytes that are known to be well formed: no tree, no numbers through a float.

use crate::model::UnixMicros;
use crate::model::json;

/// How a provider's serialiser writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// UTF-8, no white space.
    Compact,
    /// As Python's `json.dumps` does by default: `", "`, `": "` and `\u` escapes for everything beyond ASCII.
    Python,
}

/// Text being written. Commas need no state: one is due unless a bracket or colon was just written.
#[derive(Clone, Debug)]
pub(super) struct Out {
    pub(super) bytes: Vec<u8>,
    style: Style,
}

impl Out {
    pub(super) fn new(style: Style) -> Self {
        Self { bytes: Vec::with_capacity(4096), style }
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
    }

    fn comma(&mut self) {
        match (self.bytes.last(), self.style) {
            (None | Some(b'{' | b'[' | b':' | b' '), _) => {}
            (_, Style::Compact) => self.bytes.push(b','),
            (_, Style::Python) => self.bytes.extend_from_slice(b", "),
        }
    }

    /// Writes `"name":`; names are plain ASCII.
    pub(super) fn key(&mut self, name: &str) {
        self.comma();
        self.bytes.push(b'"');
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.extend_from_slice(if self.style == Style::Compact { b"\":" } else { b"\": " });
    }

    /// Begins an object, as an element or after a key.
    pub(super) fn open(&mut self) {
        self.comma();
        self.bytes.push(b'{');
    }

    pub(super) fn close(&mut self) {
        self.bytes.push(b'}');
    }

    pub(super) fn object(&mut self, name: &str) {
        self.key(name);
        self.bytes.push(b'{');
    }

    pub(super) fn array(&mut self, name: &str) {
        self.key(name);
        self.bytes.push(b'[');
    }

    pub(super) fn end_array(&mut self) {
        self.bytes.push(b']');
    }

    pub(super) fn text(&mut self, name: &str, value: &str) {
        self.key(name);
        self.text_value(value);
    }

    /// A string as an element or after a key.
    pub(super) fn text_value(&mut self, value: &str) {
        self.comma();
        self.bytes.push(b'"');
        self.escaped(value);
        self.bytes.push(b'"');
    }

    /// A string put together from parts.
    pub(super) fn joined(&mut self, name: &str, parts: &[&str]) {
        self.key(name);
        self.joined_value(parts);
    }

    pub(super) fn joined_value(&mut self, parts: &[&str]) {
        self.comma();
        self.bytes.push(b'"');
        for part in parts {
            self.escaped(part);
        }
        self.bytes.push(b'"');
    }

    fn escaped(&mut self, text: &str) {
        match self.style {
            // Nearly all texts hold nothing to escape and are copied in one go.
            Style::Compact if is_plain(text) => self.bytes.extend_from_slice(text.as_bytes()),
            Style::Python if text.is_ascii() && is_plain(text) => self.bytes.extend_from_slice(text.as_bytes()),
            Style::Compact => json::write_escaped(&mut self.bytes, text),
            Style::Python => write_ascii(&mut self.bytes, text),
        }
    }

    pub(super) fn number(&mut self, name: &str, value: u64) {
        self.key(name);
        self.number_value(value);
    }

    pub(super) fn number_value(&mut self, value: u64) {
        self.comma();
        self.bytes.extend_from_slice(Digits::of(value).as_str().as_bytes());
    }

    /// `1.5` is `(15, 1)`: a decimal fraction without a float.
    pub(super) fn decimal(&mut self, name: &str, mantissa: u64, places: usize) {
        self.key(name);
        let digits = format!("{mantissa:0width$}", width = places + 1);
        let (whole, part) = digits.split_at(digits.len() - places);
        self.bytes.extend_from_slice(whole.as_bytes());
        if places > 0 {
            self.bytes.push(b'.');
            self.bytes.extend_from_slice(part.as_bytes());
        }
    }

    /// A number as a string of digits.
    pub(super) fn digits(&mut self, name: &str, value: u64) {
        self.text(name, Digits::of(value).as_str());
    }

    pub(super) fn flag(&mut self, name: &str, value: bool) {
        self.raw(name, if value { b"true" } else { b"false" });
    }

    /// A value that is JSON already.
    pub(super) fn raw(&mut self, name: &str, value: &[u8]) {
        self.key(name);
        self.bytes.extend_from_slice(value);
    }

    /// `Wed Sep 10 17:28:07 +0000 2025`, to the second.
    pub(super) fn legacy_date(&mut self, name: &str, millis: u64) {
        const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
        const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        let (at, fixed) = fixed(millis);
        let part = |range| str::from_utf8(&fixed[range]).unwrap_or_default();
        let month = usize::from(fixed[5] - b'0') * 10 + usize::from(fixed[6] - b'0');
        let day = DAYS[(at.day() + 4).rem_euclid(7) as usize];
        let month = MONTHS[month - 1];
        self.joined(name, &[day, " ", month, " ", part(8..10), " ", part(11..19), " +0000 ", part(0..4)]);
    }

    /// `2026-03-03T09:59:57.123000+00:00`, as Python's `isoformat` writes it.
    pub(super) fn iso_offset(&mut self, name: &str, millis: u64) {
        let (_, fixed) = fixed(millis);
        self.joined(name, &[str::from_utf8(&fixed[..26]).unwrap_or_default(), "+00:00"]);
    }

    /// `2026-03-13T12:00:00.150Z`.
    pub(super) fn iso_zulu(&mut self, name: &str, millis: u64) {
        let (_, fixed) = fixed(millis);
        self.joined(name, &[str::from_utf8(&fixed[..23]).unwrap_or_default(), "Z"]);
    }
}

fn fixed(millis: u64) -> (UnixMicros, [u8; 27]) {
    let at = UnixMicros::from_millis(millis as i64);
    let mut text = [0; 27];
    at.write_rfc3339(&mut text);
    (at, text)
}

/// Decimal digits without an allocation.
pub(super) struct Digits {
    text: [u8; 20],
    begin: usize,
}

impl Digits {
    pub(super) fn of(mut value: u64) -> Self {
        let mut digits = Self { text: [b'0'; 20], begin: 20 };
        loop {
            digits.begin -= 1;
            digits.text[digits.begin] = b'0' + (value % 10) as u8;
            value /= 10;
            if value == 0 {
                return digits;
            }
        }
    }

    pub(super) fn as_str(&self) -> &str {
        str::from_utf8(&self.text[self.begin..]).unwrap_or_default()
    }
}

/// Whether JSON takes a text as it is; looks at every byte, which is faster than to stop early.
fn is_plain(text: &str) -> bool {
    text.bytes().fold(true, |plain, b| plain & (b >= 0x20) & (b != b'"') & (b != b'\\') & (b != 0x7f))
}

/// The inside of a JSON string in ASCII only; what is beyond the first plane becomes a surrogate pair.
fn write_ascii(out: &mut Vec<u8>, text: &str) {
    for c in text.chars() {
        match c {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            '\n' => out.extend_from_slice(b"\\n"),
            '\r' => out.extend_from_slice(b"\\r"),
            '\t' => out.extend_from_slice(b"\\t"),
            ' '..='\x7f' => out.push(c as u8),
            _ => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let [a, b, c, d] = [12, 8, 4, 0].map(|shift| b"0123456789abcdef"[usize::from(*unit >> shift & 15)]);
                    out.extend_from_slice(&[b'\\', b'u', a, b, c, d]);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ascii_escapes_come_back_through_serde() {
        let text = "a\"b\\c\n\r\t\u{1}\u{7f}é漢🐦\u{301}";
        let mut out = Out::new(Style::Python);
        out.open();
        out.text("a", text);
        out.array("b");
        out.number_value(0);
        out.number_value(u64::MAX);
        out.end_array();
        out.decimal("c", 42, 4);
        out.legacy_date("d", 1_757_525_287_123);
        out.iso_offset("e", 1_757_525_287_123);
        out.iso_zulu("f", 1_757_525_287_123);
        out.close();
        let written = String::from_utf8(out.bytes).unwrap();
        let tail = r#""b": [0, 18446744073709551615], "c": 0.0042, "d": "Wed Sep 10 17:28:07 +0000 2025", "e": "2025-09-10T17:28:07.123000+00:00", "f": "2025-09-10T17:28:07.123Z"}"#;
        assert!(written.is_ascii() && written.ends_with(tail), "{written}");
        let back: serde_json::Value = serde_json::from_str(&written).unwrap();
        assert_eq!(back["a"], text);
    }
}
