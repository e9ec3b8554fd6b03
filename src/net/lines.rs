//! Splits an endless response into envelopes: server-sent events and JSON lines alike, told apart line by line.
//!
//! | line | meaning |
//! | --- | --- |
//! | empty | ends an event; otherwise a keepalive |
//! | `: …` | a comment, which keeps alive |
//! | `data: …` | part of an event; several are joined by a line feed (WHATWG HTML, "Interpreting an event stream") |
//! | `event`, `id`, `retry` | ignored |
//! | anything else | an envelope by itself |
//!
//! Lines end with LF or CRLF; a lone CR is content. Bytes are not checked to be UTF-8.

use std::ops::Range;

use bytes::{Buf, Bytes, BytesMut};

/// What stands next in the response.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// An envelope.
    Message(Bytes),
    /// A keepalive.
    Alive,
    /// A line or an event over the limit; the splitter is of no more use.
    Oversized,
}

enum Line {
    Empty,
    Comment,
    Data(Range<usize>),
    Field,
    Bare(Range<usize>),
}

/// Takes chunks in, gives pieces out.
pub(super) struct Splitter {
    /// The response from the start of the unfinished event or line.
    raw: BytesMut,
    /// Where the unfinished line starts.
    line: usize,
    /// Up to where no line end was found.
    searched: usize,
    /// The values of the event's `data` lines.
    data: Vec<Range<usize>>,
    limit: usize,
}

impl Splitter {
    /// A splitter for envelopes of at most `limit` bytes.
    pub(super) fn new(limit: usize) -> Self {
        Self { raw: BytesMut::new(), line: 0, searched: 0, data: Vec::new(), limit }
    }

    /// Takes a chunk of the response.
    pub(super) fn push(&mut self, chunk: &[u8]) {
        self.raw.extend_from_slice(chunk);
    }

    /// Whether bytes wait for the rest of their envelope.
    pub(super) fn is_partial(&self) -> bool {
        !self.raw.is_empty()
    }

    /// The response from the start of the unfinished event or line, cut at the limit.
    pub(super) fn kept(&self) -> Bytes {
        Bytes::copy_from_slice(&self.raw[..self.raw.len().min(self.limit)])
    }

    /// The next piece; `None` asks for another chunk.
    pub(super) fn next(&mut self) -> Option<Piece> {
        loop {
            let Some(end) = memchr::memchr(b'\n', &self.raw[self.searched..]).map(|at| self.searched + at) else {
                self.searched = self.raw.len();
                return (self.raw.len() > self.limit).then_some(Piece::Oversized);
            };
            if end > self.limit {
                return Some(Piece::Oversized);
            }
            match self.classify(end) {
                Line::Empty if self.data.is_empty() => {
                    self.forget_to(end + 1);
                    return Some(Piece::Alive);
                }
                Line::Empty => return Some(self.take_event(end + 1)),
                Line::Comment => {
                    self.pass(end + 1);
                    return Some(Piece::Alive);
                }
                Line::Field => self.pass(end + 1),
                Line::Data(value) => {
                    self.data.push(value);
                    self.step_to(end + 1);
                }
                // A bare line ends an event that lacks its empty line.
                Line::Bare(_) if !self.data.is_empty() => return Some(self.take_event(self.line)),
                Line::Bare(value) => {
                    let line = self.raw.split_to(end + 1).freeze();
                    self.step_to(0);
                    return Some(Piece::Message(line.slice(value)));
                }
            }
        }
    }

    fn classify(&self, end: usize) -> Line {
        let end = if end > self.line && self.raw[end - 1] == b'\r' { end - 1 } else { end };
        let line = &self.raw[self.line..end];
        let (name, value) = match memchr::memchr(b':', &line[..line.len().min(6)]) {
            Some(colon) => (&line[..colon], self.line + colon + 1..end),
            None => (line, end..end),
        };
        match (line, name) {
            ([], _) => Line::Empty,
            ([b':', ..], _) => Line::Comment,
            (_, b"data") => {
                let space = usize::from(self.raw.get(value.start) == Some(&b' ') && !value.is_empty());
                Line::Data(value.start + space..value.end)
            }
            (_, b"event" | b"id" | b"retry") => Line::Field,
            _ => Line::Bare(self.line..end),
        }
    }

    /// Leaves a line without content behind; inside an event it stays among the kept bytes.
    fn pass(&mut self, to: usize) {
        if self.data.is_empty() { self.forget_to(to) } else { self.step_to(to) }
    }

    fn step_to(&mut self, to: usize) {
        self.line = to;
        self.searched = to;
    }

    fn forget_to(&mut self, to: usize) {
        self.raw.advance(to);
        self.step_to(0);
    }

    /// Gives out the event; the next begins at `to`.
    fn take_event(&mut self, to: usize) -> Piece {
        let event = self.raw.split_to(to).freeze();
        self.step_to(0);
        let data = std::mem::take(&mut self.data);
        match &data[..] {
            [one] if one.is_empty() => Piece::Alive,
            [one] => Piece::Message(event.slice(one.clone())),
            many => {
                let lines: Vec<_> = many.iter().map(|range| &event[range.clone()]).collect();
                Piece::Message(Bytes::from(lines.join(&b'\n')))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(splitter: &mut Splitter) -> Vec<String> {
        let mut out = Vec::new();
        while let Some(piece) = splitter.next() {
            let stop = piece == Piece::Oversized;
            out.push(match piece {
                Piece::Message(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
                Piece::Alive => "<alive>".to_owned(),
                Piece::Oversized => "<oversized>".to_owned(),
            });
            if stop {
                break;
            }
        }
        out
    }

    fn split(wire: &[u8], limit: usize) -> Vec<String> {
        let mut splitter = Splitter::new(limit);
        splitter.push(wire);
        pieces(&mut splitter)
    }

    const SAMPLE: &[u8] = b"retry: 3000\n\nevent: x\r\ndata: {\"a\":1}\r\n\r\n: still here\ndata:two\ndata:  lines\ndata\n\n\
        {\"bare\":\"data: no\"}\r\n\r\nid: 7\ndata: [1]\n{\"next\":2}\n\ndata:\n\ndatabase\n\xff\xfe\n";

    const PIECES: [&str; 12] = [
        "<alive>",
        "{\"a\":1}",
        "<alive>",
        "two\n lines\n",
        "{\"bare\":\"data: no\"}",
        "<alive>",
        "[1]",
        "{\"next\":2}",
        "<alive>",
        "<alive>",
        "database",
        "\u{fffd}\u{fffd}",
    ];

    #[test]
    fn both_framings_at_every_split() {
        assert_eq!(split(SAMPLE, 1000), PIECES);
        for at in 0..=SAMPLE.len() {
            let mut splitter = Splitter::new(1000);
            splitter.push(&SAMPLE[..at]);
            let mut out = pieces(&mut splitter);
            splitter.push(&SAMPLE[at..]);
            out.extend(pieces(&mut splitter));
            assert_eq!(out, PIECES, "split at {at}");
            assert!(!splitter.is_partial());
        }
        let mut splitter = Splitter::new(1000);
        let mut out = Vec::new();
        for byte in SAMPLE {
            splitter.push(&[*byte]);
            out.extend(pieces(&mut splitter));
        }
        assert_eq!(out, PIECES, "byte by byte");
    }

    #[test]
    fn limits_hold_and_bytes_are_kept() {
        assert_eq!(split(b"12345678\n", 8), ["12345678"]);
        assert_eq!(split(b"123456789\n", 8), ["<oversized>"]);
        assert_eq!(split(b"1\n23456789abc", 8), ["1", "<oversized>"]);
        let mut splitter = Splitter::new(8);
        splitter.push(b"1\n23456789abc");
        assert_eq!(pieces(&mut splitter), ["1", "<oversized>"]);
        assert_eq!(&splitter.kept()[..], b"23456789");
        // An event of many short lines is bounded as well.
        assert_eq!(split(&b"data: 1\n".repeat(100), 64), ["<oversized>"]);
    }

    #[test]
    fn an_unfinished_event_is_kept_as_it_came() {
        let mut splitter = Splitter::new(100);
        splitter.push(b"{}\ndata: {\"a\":1}\nid: 3\nda");
        assert_eq!(pieces(&mut splitter), ["{}"]);
        assert!(splitter.is_partial());
        assert_eq!(&splitter.kept()[..], b"data: {\"a\":1}\nid: 3\nda");
    }
}
