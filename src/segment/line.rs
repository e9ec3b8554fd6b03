//! Lines: encoding without a parse, decoding by slicing.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::model::json::{Json, unescape, write_escaped, write_string};
use crate::model::{Body, BodyRef, ConnId, Draft, RecordKind, Seq, UnixMicros, Via};

/// A line of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// First line of a segment.
    Header(Header<'a>),
    /// A record.
    Record(RecordRef<'a>),
    /// Proof for all bytes before it.
    Commit(Commit),
}

/// What a segment says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// One below the first record's number.
    pub n: Seq,
    /// When the segment was begun.
    pub at: UnixMicros,
    /// Format version.
    pub format: u32,
    /// Id of the tape.
    pub tape: Cow<'a, str>,
    /// Name of the source.
    pub source: Cow<'a, str>,
    /// Name of its provider.
    pub provider: Cow<'a, str>,
}

impl Header<'_> {
    /// Whose it is, where that is not who it is read for.
    pub(crate) fn of_another(&self, tape: &str, source: &str) -> Option<String> {
        (self.tape != tape || self.source != source)
            .then(|| format!("it says it belongs to source {} of tape {}", self.source, self.tape))
    }
}

/// A commit line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Last record before it.
    pub n: Seq,
    /// When it was made.
    pub at: UnixMicros,
    /// Uncompressed position of the line in its segment.
    pub bytes: u64,
    /// Hash of the chain up to here.
    pub hash: u64,
}

/// A record, borrowed from its line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordRef<'a> {
    /// Number in its source.
    pub n: Seq,
    /// received_at.
    pub at: UnixMicros,
    /// Sort.
    pub kind: RecordKind,
    /// Provenance.
    pub via: Via,
    /// Connection.
    pub conn: ConnId,
    /// Facts of ours about the body, a JSON object.
    pub info: Option<&'a str>,
    /// The content.
    pub body: BodyRef<'a>,
}

impl<'a> RecordRef<'a> {
    /// The body's bytes as they came off the wire; `None` when the form in the line is broken.
    pub fn bytes(&self) -> Option<Cow<'a, [u8]>> {
        match self.body {
            BodyRef::Raw(raw) => Some(Cow::Borrowed(raw)),
            BodyRef::Text(inside) if !inside.contains(&b'\\') => Some(Cow::Borrowed(inside)),
            BodyRef::Text(inside) => unescape(std::str::from_utf8(inside).ok()?).map(|t| Cow::Owned(t.into_bytes())),
            BodyRef::B64(inside) => STANDARD.decode(inside).ok().map(Cow::Owned),
        }
    }

    /// The body of a fact of ours; an envelope is none, so nobody reads it as one.
    pub fn fact(&self) -> Option<&'a str> {
        match (self.kind, self.body) {
            (RecordKind::Open | RecordKind::Close | RecordKind::Note, BodyRef::Raw(raw)) => std::str::from_utf8(raw).ok(),
            _ => None,
        }
    }
}

fn put_start(out: &mut Vec<u8>, n: Seq, at: UnixMicros) {
    let mut digits = [0u8; 20];
    let mut first = digits.len();
    let mut rest = n.0;
    loop {
        first -= 1;
        digits[first] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    let mut stamp = [0u8; 27];
    at.write_rfc3339(&mut stamp);
    out.extend_from_slice(b"{\"n\":");
    out.extend_from_slice(&digits[first..]);
    out.extend_from_slice(b",\"at\":\"");
    out.extend_from_slice(&stamp);
    out.extend_from_slice(b"\",\"kind\":\"");
}

/// Appends a segment's first line.
pub fn encode_header(out: &mut Vec<u8>, header: &Header<'_>) {
    put_start(out, header.n, header.at);
    out.extend_from_slice(format!("segment\",\"format\":{},\"tape\":", header.format).as_bytes());
    write_string(out, &header.tape);
    out.extend_from_slice(b",\"source\":");
    write_string(out, &header.source);
    out.extend_from_slice(b",\"provider\":");
    write_string(out, &header.provider);
    out.extend_from_slice(b"}\n");
}

/// Appends a commit line.
pub fn encode_commit(out: &mut Vec<u8>, commit: &Commit) {
    put_start(out, commit.n, commit.at);
    out.extend_from_slice(format!("commit\",\"bytes\":{},\"hash\":\"{:016x}\"}}\n", commit.bytes, commit.hash).as_bytes());
}

/// Appends a record's line.
///
/// `json` says that the body's bytes are one JSON object or array, strictly valid, on one line with nothing
/// around it; the caller has just read them. Facts of ours always are.
pub fn encode_record(out: &mut Vec<u8>, n: Seq, draft: &Draft, json: bool) {
    put_start(out, n, draft.received_at);
    out.extend_from_slice(draft.kind.name().as_bytes());
    out.extend_from_slice(b"\",\"via\":\"");
    out.extend_from_slice(draft.via.name().as_bytes());
    out.extend_from_slice(b"\",\"conn\":");
    out.extend_from_slice(draft.conn.0.to_string().as_bytes());
    if let Some(info) = &draft.info {
        out.extend_from_slice(b",\"info\":");
        out.extend_from_slice(info.as_bytes());
    }
    match &draft.body {
        Body::Fact(fact) => {
            out.extend_from_slice(b",\"raw\":");
            out.extend_from_slice(fact.as_bytes());
        }
        Body::Bytes(bytes) if json => {
            out.extend_from_slice(b",\"raw\":");
            out.extend_from_slice(bytes);
        }
        Body::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) if is_best_as_text(text) => {
                out.extend_from_slice(b",\"text\":\"");
                write_escaped(out, text);
                out.push(b'"');
            }
            _ => {
                out.extend_from_slice(b",\"b64\":\"");
                out.extend_from_slice(STANDARD.encode(bytes).as_bytes());
                out.push(b'"');
            }
        },
    }
    out.extend_from_slice(b"}\n");
}

/// Whether escapes make a text no longer than base64 would; a few do not matter. So a line is at most a third longer than what
/// it keeps, and no envelope makes a block that is too large for its readers.
fn is_best_as_text(text: &str) -> bool {
    let escapes = text.bytes().map(|byte| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' => 1,
        0..0x20 | 0x7f => 5,
        _ => 0,
    });
    escapes.sum::<usize>() <= text.len() / 3 + 64
}

impl<'a> Line<'a> {
    /// Reads one line without its line end; `None` when it is not in the form of the layout table.
    pub fn parse(line: &'a [u8]) -> Option<Self> {
        let rest = line.strip_prefix(b"{\"n\":")?;
        let (n, rest) = number(rest)?;
        let n = Seq(n);
        let rest = rest.strip_prefix(b",\"at\":\"")?;
        let at = UnixMicros::parse_fixed(rest.get(..27)?)?;
        let rest = rest[27..].strip_prefix(b"\",\"kind\":\"")?;
        let (kind, rest) = word(rest)?;
        match kind {
            b"commit" => {
                let rest = rest.strip_prefix(b",\"bytes\":")?;
                let (bytes, rest) = number(rest)?;
                let hex = rest.strip_prefix(b",\"hash\":\"")?.strip_suffix(b"\"}")?;
                let hash = u64::from_str_radix(std::str::from_utf8(hex).ok().filter(|h| h.len() == 16)?, 16).ok()?;
                Some(Self::Commit(Commit { n, at, bytes, hash }))
            }
            b"segment" => header(n, at, line),
            kind => {
                let kind = std::str::from_utf8(kind).ok()?.parse().ok()?;
                record(n, at, kind, rest).map(Self::Record)
            }
        }
    }
}

fn record<'a>(n: Seq, at: UnixMicros, kind: RecordKind, rest: &'a [u8]) -> Option<RecordRef<'a>> {
    let (via, rest) = word(rest.strip_prefix(b",\"via\":\"")?)?;
    let via = Via::parse(std::str::from_utf8(via).ok()?)?;
    let (conn, rest) = number(rest.strip_prefix(b",\"conn\":")?)?;
    let (info, rest) = match rest.strip_prefix(b",\"info\":") {
        Some(rest) => {
            let mut json = Json::new(std::str::from_utf8(rest).ok()?);
            json.skip().ok()?;
            let (info, rest) = rest.split_at(json.position());
            (Some(std::str::from_utf8(info).ok()?), rest)
        }
        None => (None, rest),
    };
    let rest = rest.strip_suffix(b"}")?;
    let body = if let Some(raw) = rest.strip_prefix(b",\"raw\":") {
        BodyRef::Raw(raw)
    } else if let Some(text) = rest.strip_prefix(b",\"text\":\"") {
        BodyRef::Text(text.strip_suffix(b"\"").filter(|text| ends_nowhere(text))?)
    } else {
        let inside = rest.strip_prefix(b",\"b64\":\"")?.strip_suffix(b"\"")?;
        // Base64 holds neither.
        BodyRef::B64(Some(inside).filter(|inside| memchr::memchr2(b'"', b'\\', inside).is_none())?)
    };
    Some(RecordRef { n, at, kind, via, conn: ConnId(conn), info, body })
}

/// Whether no quote ends the text before its end: what follows one would say something else to other readers of JSON.
fn ends_nowhere(text: &[u8]) -> bool {
    let mut rest = text;
    while let Some(at) = memchr::memchr2(b'"', b'\\', rest) {
        if rest[at] == b'"' || at + 1 == rest.len() {
            return false;
        }
        rest = &rest[at + 2..];
    }
    true
}

fn header(n: Seq, at: UnixMicros, line: &[u8]) -> Option<Line<'_>> {
    let mut json = Json::new(std::str::from_utf8(line).ok()?);
    let (mut format, mut tape, mut source, mut provider) = (None, None, None, None);
    json.object(|key, json| {
        match key {
            "format" => format = json.integer()?,
            "tape" => tape = json.text()?,
            "source" => source = json.text()?,
            "provider" => provider = json.text()?,
            _ => {}
        }
        Ok(())
    })
    .ok()?;
    json.finish().ok()?;
    let format = u32::try_from(format?).ok()?;
    Some(Line::Header(Header { n, at, format, tape: tape?, source: source?, provider: provider? }))
}

fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let digits = bytes.iter().take_while(|b| b.is_ascii_digit()).count();
    let value = std::str::from_utf8(&bytes[..digits]).ok()?.parse().ok()?;
    Some((value, &bytes[digits..]))
}

fn word(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr::memchr(b'"', bytes)?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use expect_test::expect;
    use proptest::prelude::*;

    fn draft(body: &[u8], info: Option<&str>) -> Draft {
        Draft {
            received_at: UnixMicros(1_795_216_680_123_456),
            kind: RecordKind::Frame,
            via: Via::Ws,
            conn: ConnId(7),
            info: info.map(str::to_owned),
            body: Body::Bytes(Bytes::copy_from_slice(body)),
        }
    }

    fn line_of(body: &[u8], info: Option<&str>, json: bool) -> Vec<u8> {
        let mut out = Vec::new();
        encode_record(&mut out, Seq(42), &draft(body, info), json);
        out
    }

    #[test]
    fn the_three_forms() {
        let mut all = Vec::new();
        all.extend(line_of(br#"{"a": 1.50}"#, None, true));
        all.extend(line_of(b"not \"json\"\n", None, false));
        all.extend(line_of(b"\xff\x00", Some(r#"{"cause":"invalid_utf8"}"#), false));
        encode_commit(&mut all, &Commit { n: Seq(42), at: UnixMicros(0), bytes: 99, hash: 0xabc });
        expect![[r#"
            {"n":42,"at":"2026-11-20T23:18:00.123456Z","kind":"frame","via":"ws","conn":7,"raw":{"a": 1.50}}
            {"n":42,"at":"2026-11-20T23:18:00.123456Z","kind":"frame","via":"ws","conn":7,"text":"not \"json\"\n"}
            {"n":42,"at":"2026-11-20T23:18:00.123456Z","kind":"frame","via":"ws","conn":7,"info":{"cause":"invalid_utf8"},"b64":"/wA="}
            {"n":42,"at":"1970-01-01T00:00:00.000000Z","kind":"commit","bytes":99,"hash":"0000000000000abc"}
        "#]]
        .assert_eq(std::str::from_utf8(&all).unwrap());
    }

    #[test]
    fn a_text_of_escapes_is_kept_in_base64() {
        for (escaped, limit) in
            [("\"", 96), ("\\", 96), ("\n", 96), ("\r", 96), ("\t", 96), ("\u{1}", 13), ("\u{1f}", 13), ("\u{7f}", 13)]
        {
            for (times, others, is_text) in [(limit, 0, true), (limit + 1, 0, false), (limit + 1, 300, true)] {
                let body = escaped.repeat(times) + &"é".repeat(others / 2);
                let line = line_of(body.as_bytes(), None, false);
                assert_eq!(memchr::memmem::find(&line, b",\"text\":\"").is_some(), is_text, "{escaped:?} {times} times");
                let Some(Line::Record(record)) = Line::parse(&line[..line.len() - 1]) else { panic!("no record") };
                assert_eq!(record.bytes().unwrap(), body.as_bytes());
            }
        }
    }

    #[test]
    fn a_body_that_ends_early_is_no_record() {
        let start = r#"{"n":1,"at":"2026-11-20T23:18:00.123456Z","kind":"frame","via":"ws","conn":7,"#;
        for (rest, is_record) in [
            (r#""text":"plain \" and \\"}"#, true),
            (r#""text":"one","text":"another"}"#, false),
            (r#""text":"\\","raw":{"a":"b"}"#, false),
            (r#""text":"cut \"}"#, false),
            (r#""b64":"/wA="}"#, true),
            (r#""b64":"/wA=","b64":"AAA="}"#, false),
            (r#""b64":"/wA\u003d"}"#, false),
        ] {
            assert_eq!(Line::parse(format!("{start}{rest}").as_bytes()).is_some(), is_record, "{rest}");
        }
    }

    proptest! {
        #[test]
        fn any_body_comes_back(body in prop::collection::vec(any::<u8>(), 0..200), with_info in any::<bool>()) {
            let info = with_info.then_some(r#"{"a":"}","b":{"raw":1}}"#);
            let line = line_of(&body, info, false);
            prop_assert!(serde_json::from_slice::<serde_json::Value>(&line).is_ok());
            let line = line.as_slice();
            let Some(Line::Record(record)) = Line::parse(&line[..line.len() - 1]) else { panic!("no record") };
            prop_assert_eq!(record.bytes().unwrap().into_owned(), body);
            prop_assert_eq!((record.n, record.conn, record.info), (Seq(42), ConnId(7), info));
        }

        #[test]
        fn any_text_comes_back(body in any::<String>()) {
            let line = line_of(body.as_bytes(), None, false);
            prop_assert_eq!(line.iter().filter(|b| **b == b'\n').count(), 1);
            let line = line.as_slice();
            let Some(Line::Record(record)) = Line::parse(&line[..line.len() - 1]) else { panic!("no record") };
            prop_assert_eq!(record.bytes().unwrap().into_owned(), body.into_bytes());
        }

        #[test]
        fn never_panics(line in prop::collection::vec(any::<u8>(), 0..200)) {
            drop(Line::parse(&line));
        }
    }

    #[test]
    fn headers_come_back() {
        let header = Header {
            n: Seq(0),
            at: UnixMicros(5),
            format: 1,
            tape: "t\"1".into(),
            source: "alpha".into(),
            provider: "x_live".into(),
        };
        let mut out = Vec::new();
        encode_header(&mut out, &header);
        assert_eq!(Line::parse(&out[..out.len() - 1]), Some(Line::Header(header)));
    }
}
