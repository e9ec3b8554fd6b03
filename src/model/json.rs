//! One pass over a JSON text: strict validation and the few fields somebody asks for.
//!
//! Why our own: an envelope must be proven to be one valid JSON value before it may stand verbatim in a
//! segment, and its ids must be read; doing both in one pass without building a tree is the largest single
//! saving in the recorder (the `scan` bench compares it with `serde_json`). It is stricter than
//! `serde_json::IgnoredAny`, because everything it accepts must also be accepted by `jq`, DuckDB and Polars:
//! no lone surrogate escapes, no number beyond a double's range, at most [`MAX_DEPTH`] levels.
//!
//! A reader asks for fields by walking: [`Json::object`] calls back per key, and what the callback does not
//! take is skipped. A field of an unexpected type reads as `None`; only broken syntax is an error.

use std::borrow::Cow;

/// Deepest nesting accepted; jq 1.6 stops at 256 and a record adds two levels.
pub const MAX_DEPTH: usize = 128;

/// Where and why a text is not the JSON we accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not JSON at byte {at}: {what}")]
pub struct Bad {
    /// Byte position.
    pub at: usize,
    /// What was wrong.
    pub what: &'static str,
}

/// A position in a JSON text.
#[derive(Debug)]
pub struct Json<'a> {
    source: &'a str,
    text: &'a [u8],
    at: usize,
    depth: usize,
    multi_line: bool,
}

/// Sort of the value at a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `{`
    Object,
    /// `[`
    Array,
    /// `"`
    String,
    /// digit or minus
    Number,
    /// true, false, null, or broken
    Other,
}

impl<'a> Json<'a> {
    /// Stands at the start of `text`.
    pub fn new(text: &'a str) -> Self {
        Self { source: text, text: text.as_bytes(), at: 0, depth: 0, multi_line: false }
    }

    /// Whether a line break stood between tokens so far.
    pub fn is_multi_line(&self) -> bool {
        self.multi_line
    }

    /// Byte position in the text.
    pub fn position(&self) -> usize {
        self.at
    }

    /// Sort of the value that comes next; no white space may stand before it.
    pub fn kind(&self) -> Kind {
        match self.text.get(self.at) {
            Some(b'{') => Kind::Object,
            Some(b'[') => Kind::Array,
            Some(b'"') => Kind::String,
            Some(b'-' | b'0'..=b'9') => Kind::Number,
            _ => Kind::Other,
        }
    }

    /// Ends the walk: nothing, not even white space, may follow.
    ///
    /// # Errors
    /// When something does.
    pub fn finish(&self) -> Result<(), Bad> {
        if self.at == self.text.len() { Ok(()) } else { Err(self.bad("something after the value")) }
    }

    /// Walks an object, calling `each` with every key; the callback may read the value or leave it.
    ///
    /// A value of another type is skipped and the callback is not called.
    ///
    /// # Errors
    /// On broken syntax, or when the callback gives an error.
    pub fn object(&mut self, mut each: impl FnMut(&str, &mut Self) -> Result<(), Bad>) -> Result<(), Bad> {
        if self.kind() != Kind::Object {
            return self.skip();
        }
        self.enter()?;
        self.blank();
        if self.take(b'}') {
            self.depth -= 1;
            return Ok(());
        }
        loop {
            let key = self.string()?;
            self.blank();
            self.expect(b':')?;
            self.blank();
            let before = self.at;
            each(&key, self)?;
            if self.at == before {
                self.skip()?;
            }
            self.blank();
            if self.take(b'}') {
                self.depth -= 1;
                return Ok(());
            }
            self.expect(b',')?;
            self.blank();
        }
    }

    /// Walks an array, calling `each` at every element; the callback may read it or leave it.
    ///
    /// A value of another type is skipped and the callback is not called.
    ///
    /// # Errors
    /// On broken syntax, or when the callback gives an error.
    pub fn array(&mut self, mut each: impl FnMut(&mut Self) -> Result<(), Bad>) -> Result<(), Bad> {
        if self.kind() != Kind::Array {
            return self.skip();
        }
        self.enter()?;
        self.blank();
        if self.take(b']') {
            self.depth -= 1;
            return Ok(());
        }
        loop {
            let before = self.at;
            each(self)?;
            if self.at == before {
                self.skip()?;
            }
            self.blank();
            if self.take(b']') {
                self.depth -= 1;
                return Ok(());
            }
            self.expect(b',')?;
            self.blank();
        }
    }

    /// Reads a string; another type is skipped and reads as `None`.
    ///
    /// # Errors
    /// On broken syntax.
    pub fn text(&mut self) -> Result<Option<Cow<'a, str>>, Bad> {
        if self.kind() == Kind::String { self.string().map(Some) } else { self.skip().map(|()| None) }
    }

    /// Reads an integer, written as a number or as a string of digits; anything else reads as `None`.
    ///
    /// # Errors
    /// On broken syntax.
    pub fn integer(&mut self) -> Result<Option<i64>, Bad> {
        let kind = self.kind();
        let start = self.at;
        self.skip()?;
        Ok(self.digits_since(start, kind).and_then(|digits| digits.parse().ok()))
    }

    /// Reads an unsigned 64-bit id, written as a number or as a string of digits; anything else reads as `None`.
    ///
    /// # Errors
    /// On broken syntax.
    pub fn id(&mut self) -> Result<Option<u64>, Bad> {
        if let Some(id) = self.take_natural() {
            return Ok(Some(id));
        }
        let kind = self.kind();
        let start = self.at;
        self.skip()?;
        Ok(self.digits_since(start, kind).and_then(super::TweetId::parse).map(|id| id.0))
    }

    /// Passes over a whole number without a sign and of at most 19 digits, or a text of such digits, and reads it. When
    /// another value comes, `None`, and nothing was passed over: the quick way to what [`id`](Self::id) reads.
    pub fn take_natural(&mut self) -> Option<u64> {
        let quoted = self.text.get(self.at) == Some(&b'"');
        let start = self.at + usize::from(quoted);
        let digits = self.text.get(start..)?;
        let digits = &digits[..digits.len().min(20)];
        let (mut value, mut length) = (0_u64, 0);
        while let Some(digit @ b'0'..=b'9') = digits.get(length).filter(|_| length < 19) {
            value = value * 10 + u64::from(digit - b'0');
            length += 1;
        }
        if length == 0 {
            return None;
        }
        let is_whole = match digits.get(length) {
            Some(after) if quoted => *after == b'"',
            after => !quoted && (length == 1 || digits[0] != b'0') && !matches!(after, Some(b'0'..=b'9' | b'.' | b'e' | b'E')),
        };
        if !is_whole {
            return None;
        }
        self.at = start + length + usize::from(quoted);
        Some(value)
    }

    /// A number that was passed over, or the inside of a text.
    fn digits_since(&self, start: usize, kind: Kind) -> Option<&'a str> {
        match kind {
            Kind::String => self.source.get(start + 1..self.at - 1),
            Kind::Number => self.source.get(start..self.at),
            _ => None,
        }
    }

    /// The first byte of the value that comes next; 0 at the end.
    pub fn peek(&self) -> u8 {
        self.text.get(self.at).copied().unwrap_or(0)
    }

    /// The text from an earlier position to here; empty if that is no earlier one.
    pub fn since(&self, start: usize) -> &'a str {
        self.source.get(start..self.at).unwrap_or_default()
    }

    /// Whether the value that comes next is `null`, `""`, `[]` or `{}`, written so.
    pub fn says_nothing(&self) -> bool {
        matches!(self.text.get(self.at..), Some([b'n', ..] | [b'"', b'"', ..] | [b'[', b']', ..] | [b'{', b'}', ..]))
    }

    /// Passes over one value and gives its text as written.
    ///
    /// # Errors
    /// On broken syntax.
    pub fn raw(&mut self) -> Result<&'a str, Bad> {
        let start = self.at;
        self.skip()?;
        // A value begins and ends with ASCII, so this cannot fail.
        self.source.get(start..self.at).ok_or_else(|| self.bad("invalid UTF-8"))
    }

    /// Passes over one value and appends it to `out` without white space between its parts and without members of
    /// objects that say nothing: `null`, `""`, `[]`, `{}`. A value that itself says nothing is not appended, and the
    /// answer is no. Elements of arrays keep their places.
    ///
    /// # Errors
    /// On broken syntax.
    pub fn copy_said(&mut self, out: &mut String) -> Result<bool, Bad> {
        let start = out.len();
        match self.kind() {
            Kind::Object => {
                self.enter()?;
                self.blank();
                out.push('{');
                let mut open = !self.take(b'}');
                while open {
                    let before = out.len();
                    if before > start + 1 {
                        out.push(',');
                    }
                    let key = self.at;
                    self.raw_string()?;
                    out.push_str(self.source.get(key..self.at).unwrap_or_default());
                    out.push(':');
                    self.blank();
                    self.expect(b':')?;
                    self.blank();
                    if !self.copy_said(out)? {
                        out.truncate(before);
                    }
                    open = self.goes_on(b'}')?;
                }
                self.depth -= 1;
                out.push('}');
                if out.len() == start + 2 {
                    out.truncate(start);
                }
            }
            Kind::Array => {
                self.enter()?;
                self.blank();
                out.push('[');
                let mut open = !self.take(b']');
                while open {
                    if out.len() > start + 1 {
                        out.push(',');
                    }
                    let first = self.peek();
                    if !self.copy_said(out)? {
                        out.push_str(match first {
                            b'{' => "{}",
                            b'[' => "[]",
                            b'"' => "\"\"",
                            _ => "null",
                        });
                    }
                    open = self.goes_on(b']')?;
                }
                self.depth -= 1;
                out.push(']');
                if out.len() == start + 2 {
                    out.truncate(start);
                }
            }
            _ => {
                let raw = self.raw()?;
                if !matches!(raw, "null" | "\"\"") {
                    out.push_str(raw);
                }
            }
        }
        Ok(out.len() > start)
    }

    /// After a member or an element: whether another comes.
    fn goes_on(&mut self, end: u8) -> Result<bool, Bad> {
        self.blank();
        if self.take(end) {
            return Ok(false);
        }
        self.expect(b',')?;
        self.blank();
        Ok(true)
    }

    /// Passes over one value, validating all of it; the nesting costs no recursion.
    ///
    /// # Errors
    /// On broken syntax.
    pub fn skip(&mut self) -> Result<(), Bad> {
        // One bit a level: set for an object, clear for an array.
        let mut levels: u128 = 0;
        let floor = self.depth;
        loop {
            match self.text.get(self.at) {
                Some(b'{') => {
                    self.enter()?;
                    self.blank();
                    if !self.take(b'}') {
                        levels = levels << 1 | 1;
                        self.key()?;
                        continue;
                    }
                    self.depth -= 1;
                }
                Some(b'[') => {
                    self.enter()?;
                    self.blank();
                    if !self.take(b']') {
                        levels <<= 1;
                        continue;
                    }
                    self.depth -= 1;
                }
                Some(b'"') => self.raw_string().map(|_| ())?,
                Some(b'-' | b'0'..=b'9') => self.number()?,
                Some(b't') => self.word(*b"true")?,
                Some(b'f') => self.word(*b"false")?,
                Some(b'n') => self.word(*b"null")?,
                Some(_) => return Err(self.bad("expected a value")),
                None => return Err(self.bad("the text ends in the middle")),
            }
            // A value is complete: close what closes, step to the next sibling.
            loop {
                if self.depth == floor {
                    return Ok(());
                }
                self.blank();
                let in_object = levels & 1 == 1;
                if self.take(if in_object { b'}' } else { b']' }) {
                    self.depth -= 1;
                    levels >>= 1;
                    continue;
                }
                self.expect(b',')?;
                self.blank();
                if in_object {
                    self.key()?;
                }
                break;
            }
        }
    }

    #[inline]
    fn key(&mut self) -> Result<(), Bad> {
        self.raw_string()?;
        self.blank();
        self.expect(b':')?;
        self.blank();
        Ok(())
    }

    #[inline]
    fn enter(&mut self) -> Result<(), Bad> {
        if self.depth == MAX_DEPTH {
            return Err(self.bad("nested deeper than 128 levels"));
        }
        self.depth += 1;
        self.at += 1;
        Ok(())
    }

    fn string(&mut self) -> Result<Cow<'a, str>, Bad> {
        let start = self.at + 1;
        let escaped = self.raw_string()?;
        // Cut at quotes, which are never inside a character, so this cannot fail.
        let inside = self.source.get(start..self.at - 1).ok_or_else(|| self.bad("invalid UTF-8"))?;
        if !escaped {
            return Ok(Cow::Borrowed(inside));
        }
        unescape(inside).map(Cow::Owned).ok_or_else(|| self.bad("bad escape"))
    }

    /// Passes over a string and says whether it holds an escape.
    #[inline]
    fn raw_string(&mut self) -> Result<bool, Bad> {
        if !self.take(b'"') {
            return Err(self.bad("expected a string"));
        }
        let mut escaped = false;
        loop {
            self.at += plain_run(&self.text[self.at..]);
            match self.text.get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(escaped);
                }
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                Some(_) => return Err(self.bad("control character in a string")),
                None => return Err(self.bad("the text ends inside a string")),
            }
        }
    }

    fn escape(&mut self) -> Result<(), Bad> {
        match self.text.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 2,
            Some(b'u') => match self.hex4(self.at + 2)? {
                0xD800..=0xDBFF => {
                    let pair = self.text.get(self.at + 6..self.at + 8) == Some(b"\\u")
                        && (0xDC00..=0xDFFF).contains(&self.hex4(self.at + 8)?);
                    if !pair {
                        return Err(self.bad("lone surrogate escape"));
                    }
                    self.at += 12;
                }
                0xDC00..=0xDFFF => return Err(self.bad("lone surrogate escape")),
                _ => self.at += 6,
            },
            _ => return Err(self.bad("unknown escape")),
        }
        Ok(())
    }

    fn hex4(&self, at: usize) -> Result<u32, Bad> {
        let digits = self.text.get(at..at + 4).ok_or_else(|| self.bad("short escape"))?;
        digits.iter().try_fold(0, |sum, &b| (b as char).to_digit(16).map(|d| sum * 16 + d)).ok_or_else(|| self.bad("bad escape"))
    }

    fn number(&mut self) -> Result<(), Bad> {
        let start = self.at;
        self.take(b'-');
        match self.text.get(self.at) {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits(),
            _ => return Err(self.bad("expected a digit")),
        }
        if self.take(b'.') {
            self.some_digits()?;
        }
        let exponent = matches!(self.text.get(self.at), Some(b'e' | b'E'));
        if exponent {
            self.at += 1;
            if matches!(self.text.get(self.at), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.some_digits()?;
        }
        if exponent || self.at - start > 300 {
            let finite = std::str::from_utf8(&self.text[start..self.at])
                .ok()
                .and_then(|n| n.parse::<f64>().ok())
                .is_some_and(f64::is_finite);
            if !finite {
                return Err(self.bad("number beyond the range of a double"));
            }
        }
        Ok(())
    }

    fn some_digits(&mut self) -> Result<(), Bad> {
        let before = self.at;
        self.digits();
        if self.at == before { Err(self.bad("expected a digit")) } else { Ok(()) }
    }

    #[inline]
    fn digits(&mut self) {
        while matches!(self.text.get(self.at), Some(b'0'..=b'9')) {
            self.at += 1;
        }
    }

    #[inline]
    fn word<const N: usize>(&mut self, word: [u8; N]) -> Result<(), Bad> {
        if self.text[self.at..].first_chunk() == Some(&word) {
            self.at += N;
            return Ok(());
        }
        Err(self.bad("expected a value"))
    }

    #[inline]
    fn blank(&mut self) {
        // Most providers write compact JSON: one comparison settles it.
        if self.text.get(self.at).is_some_and(|&b| b <= b' ') {
            self.long_blank();
        }
    }

    #[cold]
    fn long_blank(&mut self) {
        while let Some(b @ (b' ' | b'\t' | b'\n' | b'\r')) = self.text.get(self.at) {
            self.multi_line |= matches!(b, b'\n' | b'\r');
            self.at += 1;
        }
    }

    #[inline]
    fn take(&mut self, wanted: u8) -> bool {
        let there = self.text.get(self.at) == Some(&wanted);
        self.at += usize::from(there);
        there
    }

    #[inline]
    fn expect(&mut self, wanted: u8) -> Result<(), Bad> {
        if self.take(wanted) { Ok(()) } else { Err(self.bad("expected , : ] or }")) }
    }

    fn bad(&self, what: &'static str) -> Bad {
        Bad { at: self.at, what }
    }
}

/// Length of the run at the start that holds no quote, backslash or control character; eight bytes a step.
#[inline]
fn plain_run(bytes: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    // A byte of `x` that is zero sets its high bit; bytes above a borrow may be wrong, the lowest never is.
    let zero_bytes = |x: u64| x.wrapping_sub(ONES) & !x & HIGHS;
    let mut run = 0;
    while let Some(chunk) = bytes[run..].first_chunk::<8>() {
        let word = u64::from_le_bytes(*chunk);
        let slash = zero_bytes(word ^ (ONES * u64::from(b'\\')));
        // With the second bit turned, a quote is 0x20, and it and the control characters are all below 0x21.
        let quote_or_control = (word ^ (ONES * 2)).wrapping_sub(ONES * 0x21) & !word & HIGHS;
        let stop = slash | quote_or_control;
        if stop != 0 {
            return run + stop.trailing_zeros() as usize / 8;
        }
        run += 8;
    }
    run + bytes[run..].iter().take_while(|&&b| b >= 0x20 && b != b'"' && b != b'\\').count()
}

/// Undoes JSON escapes; `None` when one is broken.
pub fn unescape(inside: &str) -> Option<String> {
    let mut out = String::with_capacity(inside.len());
    let mut rest = inside;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let code = *rest.as_bytes().get(at + 1)?;
        let mut used = 2;
        match code {
            b'"' | b'\\' | b'/' => out.push(code as char),
            b'b' => out.push('\u{8}'),
            b'f' => out.push('\u{c}'),
            b'n' => out.push('\n'),
            b'r' => out.push('\r'),
            b't' => out.push('\t'),
            b'u' => {
                let high = u32::from_str_radix(rest.get(at + 2..at + 6)?, 16).ok()?;
                used = 6;
                let scalar = if (0xD800..0xDC00).contains(&high) {
                    let low = u32::from_str_radix(rest.get(at + 8..at + 12)?, 16).ok()?;
                    used = 12;
                    0x10000 + ((high - 0xD800) << 10) + low.checked_sub(0xDC00)?
                } else {
                    high
                };
                out.push(char::from_u32(scalar)?);
            }
            _ => return None,
        }
        rest = &rest[at + used..];
    }
    out.push_str(rest);
    Some(out)
}

/// Whether a text stands in a JSON string as it is: there is nothing in it that [`write_escaped`] would escape.
pub fn is_plain(text: &str) -> bool {
    plain_run(text.as_bytes()) == text.len() && memchr::memchr(0x7f, text.as_bytes()).is_none()
}

/// Appends `text` to `out` as a JSON string with its quotes; every control character and no other is escaped.
pub fn write_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    write_escaped(out, text);
    out.push(b'"');
}

/// Appends the inside of a JSON string.
pub fn write_escaped(out: &mut Vec<u8>, text: &str) {
    for &b in text.as_bytes() {
        match b {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0..0x20 | 0x7f => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[HEX[usize::from(b >> 4)], HEX[usize::from(b & 15)]]);
            }
            _ => out.push(b),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TweetId;
    use proptest::prelude::*;

    fn valid(text: &str) -> bool {
        let mut json = Json::new(text);
        json.skip().is_ok() && json.finish().is_ok()
    }

    /// The quick way reads what the slow one reads, and stands where it stands, whatever follows.
    #[test]
    fn whole_numbers_are_read_the_same_either_way() {
        let inside = [
            "0",
            "7",
            "10",
            "007",
            "00",
            "-1",
            "1.5",
            "1e3",
            "12E1",
            "",
            " 1",
            "1 ",
            "a",
            "1a",
            "9999999999999999999",
            "18446744073709551615",
            "18446744073709551616",
            "10000000000000000000",
            "99999999999999999999999",
            "1\\u0030",
        ];
        for text in inside.iter().flat_map(|inside| [(*inside).to_owned(), format!("\"{inside}\"")]) {
            for after in ["", ",", "]", "}", " ", ":", "\""] {
                let whole = format!("{text}{after}");
                let (mut quick, mut slow) = (Json::new(&whole), Json::new(&whole));
                let kind = slow.kind();
                let wanted = slow.skip().ok().and_then(|()| slow.digits_since(0, kind)).and_then(TweetId::parse);
                match quick.take_natural() {
                    Some(read) => assert_eq!((Some(TweetId(read)), quick.at), (wanted, slow.at), "{whole}"),
                    None => assert_eq!(quick.at, 0, "{whole}"),
                }
            }
        }
        assert_eq!(Json::new("1234567890123456789,").take_natural(), Some(1_234_567_890_123_456_789));
        assert_eq!(Json::new("\"1234567890123456789\"").take_natural(), Some(1_234_567_890_123_456_789));
    }

    #[test]
    fn refuses_what_some_stock_tool_would_refuse() {
        let deep = "[".repeat(200) + &"]".repeat(200);
        for text in [
            "",
            " ",
            "{",
            "}",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "[1,]",
            "[1 2]",
            "01",
            "1.",
            "-",
            "+1",
            "1e",
            ".5",
            "NaN",
            "Infinity",
            "nul",
            "truefalse",
            "\"\\x\"",
            "\"\\u12\"",
            "\"\\ud800\"",
            "\"\\udc00\"",
            "\"\\ud800\\u0041\"",
            "\"a\nb\"",
            "\"",
            "1e999",
            "{} ",
            " {}",
            "{}{}",
            "{\"a\":1}x",
            "{1:2}",
            "\u{feff}{}",
            &deep,
        ] {
            assert!(!valid(text), "{text:.40}");
        }
    }

    #[test]
    fn accepts_all_of_json() {
        for text in [
            "{}",
            "[]",
            "{\"a\":[1,-2.50e-3,{\"b\":null}],\"c\":\"\\ud83d\\ude00 \\u0000 é\"}",
            "{ \"a\" : [ true , false ] }",
            "0",
            "-0.0",
            "\"\"",
            "18446744073709551616",
            "{\"a\":1,\"a\":2}",
            "1e-999",
        ] {
            assert!(valid(text), "{text}");
        }
        let deep = "[".repeat(128) + &"]".repeat(128);
        assert!(valid(&deep));
    }

    #[test]
    fn reads_fields_and_skips_the_rest() {
        let text = r#"{"x":[{"id":"1"},{"id":2}],"id":"18446744073709551615","na\u006de":"a\"b","n":-5,"s":"7","odd":{"id":9}}"#;
        let (mut ids, mut name, mut numbers) = (Vec::new(), None, Vec::new());
        let mut json = Json::new(text);
        json.object(|key, json| {
            match key {
                "x" => json.array(|json| {
                    json.object(|key, json| {
                        if key == "id" {
                            ids.push(json.id()?);
                        }
                        Ok(())
                    })
                })?,
                "id" => ids.push(json.id()?),
                "name" => name = json.text()?.map(Cow::into_owned),
                "n" | "s" | "odd" => numbers.push(json.integer()?),
                _ => {}
            }
            Ok(())
        })
        .unwrap();
        json.finish().unwrap();
        assert_eq!(ids, [Some(1), Some(2), Some(u64::MAX)]);
        assert_eq!((name.as_deref(), numbers), (Some("a\"b"), vec![Some(-5), Some(7), None]));
    }

    #[test]
    fn copies_what_says_something() {
        let cases = [
            (r#"{"a": null, "b" : "", "c":[ ],"d":{}, "e":{"f":{"g":null}}}"#, ""),
            (
                r#"{"a": 1.50, "b" : [null, "", [], {}, {"c":null}, {"d": "\u0041"}]}"#,
                r#"{"a":1.50,"b":[null,"",[],{},{},{"d":"\u0041"}]}"#,
            ),
            ("[ 1 ,\n2 ]", "[1,2]"),
            (r#""é""#, r#""é""#),
            ("null", ""),
            ("false", "false"),
        ];
        for (text, want) in cases {
            let mut out = String::from("kept");
            let mut json = Json::new(text);
            assert_eq!(json.copy_said(&mut out), Ok(!want.is_empty()), "{text}");
            json.finish().unwrap();
            assert_eq!(out, format!("kept{want}"));
        }
        let deep = "[".repeat(129);
        assert!(Json::new(&deep).copy_said(&mut String::new()).is_err());
    }

    #[test]
    fn knows_what_says_nothing() {
        for text in ["null", "\"\"", "[]", "{}", "[],1"] {
            assert!(Json::new(text).says_nothing(), "{text}");
        }
        for text in ["", "0", "false", "\"a\"", "[1]", "{\"a\":1}"] {
            assert!(!Json::new(text).says_nothing(), "{text}");
        }
    }

    #[test]
    fn notices_a_second_line() {
        let mut json = Json::new("{\n}");
        json.skip().unwrap();
        assert!(json.is_multi_line());
    }

    #[test]
    fn a_run_ends_where_it_has_to() {
        for byte in 0..=u8::MAX {
            let is_plain = byte >= 0x20 && !matches!(byte, b'"' | b'\\');
            for at in 0..11 {
                // What stands before must not hide it, nor what stands behind be taken for it.
                for around in [b'a', 0x20, 0x21, 0x23, 0x7f, 0x80, 0xff] {
                    let mut bytes = [around; 11];
                    bytes[at] = byte;
                    assert_eq!(plain_run(&bytes), if is_plain { 11 } else { at }, "{byte:#x} at {at} in {around:#x}");
                }
            }
        }
    }

    fn any_json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<f64>().prop_map(Into::into),
            any::<String>().prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
                prop::collection::vec((any::<String>(), inner), 0..6)
                    .prop_map(|pairs| serde_json::Value::Object(pairs.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn agrees_with_serde_on_valid_text(value in any_json()) {
            prop_assert!(valid(&value.to_string()));
            prop_assert!(valid(&serde_json::to_string_pretty(&value).unwrap()));
        }

        /// One changed byte: whatever we accept, serde must accept too.
        #[test]
        fn accepts_nothing_that_serde_refuses(value in any_json(), at in any::<prop::sample::Index>(), byte in 0u8..128) {
            let mut text = value.to_string().into_bytes();
            let at = at.index(text.len());
            text[at] = byte;
            if let Ok(text) = String::from_utf8(text) && valid(&text) {
                prop_assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok(), "{}", text);
            }
        }

        /// What is copied is JSON and says the same again.
        #[test]
        fn copies_are_json(value in any_json()) {
            let text = serde_json::to_string_pretty(&value).unwrap();
            let (mut once, mut twice) = (String::new(), String::new());
            let said = Json::new(&text).copy_said(&mut once).unwrap();
            prop_assert_eq!(said, !once.is_empty());
            if said {
                prop_assert!(valid(&once), "{}", once);
                Json::new(&once).copy_said(&mut twice).unwrap();
                prop_assert_eq!(once, twice);
            }
        }

        #[test]
        fn strings_come_back(text in any::<String>()) {
            let mut out = Vec::new();
            write_string(&mut out, &text);
            let out = String::from_utf8(out).unwrap();
            prop_assert_eq!(is_plain(&text), out == format!("\"{text}\""));
            let read = Json::new(&out).text().unwrap().unwrap().into_owned();
            prop_assert_eq!(read, text);
        }

        #[test]
        fn never_panics(text in any::<String>()) {
            let _ = valid(&text);
        }
    }
}
