//! Envelopes framed once for everybody: a server's WebSocket frames carry no mask, so the same bytes serve all clients.
//!
//! Copying them out of the tape's block, once, also lets go of the block.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use bytes::{Bytes, BytesMut};

use crate::model::{Framing, Provider, UnixMicros};

/// FIN and opcode of a text message (RFC 6455, section 5.2).
const TEXT: u8 = 0x81;
/// FIN and opcode of a binary message.
const BINARY: u8 = 0x82;

/// Some envelopes of one provider, in order, framed one behind the other.
#[derive(Debug)]
pub(super) struct Chunk {
    /// WebSocket frames, or for X the bodies with a line feed behind each: JSON lines.
    framed: Bytes,
    marks: Vec<Mark>,
    /// The same as server-sent events, when somebody wants them.
    events: OnceLock<(Bytes, Vec<usize>)>,
}

#[derive(Clone, Copy, Debug)]
struct Mark {
    at: UnixMicros,
    /// Where the body lies; its frame ends `tail` bytes behind it.
    body: (usize, usize),
    tail: usize,
}

/// Fills a chunk.
#[derive(Debug)]
pub(super) struct Filling {
    provider: Provider,
    framed: BytesMut,
    marks: Vec<Mark>,
}

impl Filling {
    pub(super) fn new(provider: Provider) -> Self {
        Self { provider, framed: BytesMut::new(), marks: Vec::new() }
    }

    pub(super) fn push(&mut self, at: UnixMicros, body: &[u8]) {
        let tail = match self.provider {
            Provider::XLive => 1,
            _ => {
                self.frame_header(body);
                0
            }
        };
        let start = self.framed.len();
        self.framed.extend_from_slice(body);
        self.framed.extend_from_slice(&b"\n"[..tail]);
        self.marks.push(Mark { at, body: (start, start + body.len()), tail });
    }

    /// A payload that is not UTF-8 goes out as a binary message: its bytes arrive, which a text message's would not.
    fn frame_header(&mut self, body: &[u8]) {
        let opcode = if std::str::from_utf8(body).is_ok() { TEXT } else { BINARY };
        match (u8::try_from(body.len()), u16::try_from(body.len())) {
            (Ok(len @ ..126), _) => self.framed.extend_from_slice(&[opcode, len]),
            (_, Ok(len)) => {
                self.framed.extend_from_slice(&[opcode, 126]);
                self.framed.extend_from_slice(&len.to_be_bytes());
            }
            _ => {
                self.framed.extend_from_slice(&[opcode, 127]);
                self.framed.extend_from_slice(&(body.len() as u64).to_be_bytes());
            }
        }
    }

    pub(super) fn n_bytes(&self) -> usize {
        self.framed.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }

    /// Gives the chunk; the filling is empty again.
    pub(super) fn take(&mut self) -> Chunk {
        let framed = std::mem::take(&mut self.framed).freeze();
        // The next one is about as large.
        self.framed.reserve(framed.len());
        Chunk { framed, marks: std::mem::take(&mut self.marks), events: OnceLock::new() }
    }
}

impl Chunk {
    pub(super) fn len(&self) -> usize {
        self.marks.len()
    }

    pub(super) fn at(&self, idx: usize) -> UnixMicros {
        self.marks[idx].at
    }

    pub(super) fn body(&self, idx: usize) -> Bytes {
        let (start, end) = self.marks[idx].body;
        self.framed.slice(start..end)
    }

    /// Where the frames before `idx` end.
    fn start(&self, idx: usize) -> usize {
        idx.checked_sub(1).map_or(0, |before| self.marks[before].body.1 + self.marks[before].tail)
    }

    fn events(&self) -> &(Bytes, Vec<usize>) {
        self.events.get_or_init(|| {
            let mut events = BytesMut::with_capacity(self.framed.len() + 8 * self.marks.len());
            let ends = (0..self.len()).map(|idx| {
                let (start, end) = self.marks[idx].body;
                push_event(&mut events, &self.framed[start..end]);
                events.len()
            });
            let ends = ends.collect();
            (events.freeze(), ends)
        })
    }
}

/// A line feed in the body is carried by a second `data` line (WHATWG HTML, "Interpreting an event stream").
fn push_event(events: &mut BytesMut, body: &[u8]) {
    for line in body.split(|b| *b == b'\n') {
        events.extend_from_slice(b"data: ");
        events.extend_from_slice(line);
        events.extend_from_slice(b"\n");
    }
    events.extend_from_slice(b"\n");
}

/// Envelopes next to each other in a chunk: what is due together.
#[derive(Clone, Debug)]
pub(super) struct Slice {
    chunk: Arc<Chunk>,
    range: Range<usize>,
}

impl Slice {
    pub(super) fn new(chunk: &Arc<Chunk>, range: Range<usize>) -> Self {
        Self { chunk: Arc::clone(chunk), range }
    }

    /// Number of envelopes.
    pub(super) fn len(&self) -> usize {
        self.range.len()
    }

    /// Each of them by itself.
    pub(super) fn each(&self) -> impl Iterator<Item = Self> + use<> {
        let chunk = Arc::clone(&self.chunk);
        self.range.clone().map(move |idx| Self { chunk: Arc::clone(&chunk), range: idx..idx + 1 })
    }

    /// The first of them, as it was received.
    pub(super) fn body(&self) -> Bytes {
        self.chunk.body(self.range.start)
    }

    /// When the first of them was received.
    pub(super) fn at(&self) -> UnixMicros {
        self.chunk.at(self.range.start)
    }

    /// When the last of them was received.
    pub(super) fn last_at(&self) -> UnixMicros {
        self.chunk.at(self.range.end - 1)
    }

    /// WebSocket frames, or JSON lines.
    pub(super) fn framed(&self) -> Bytes {
        self.chunk.framed.slice(self.chunk.start(self.range.start)..self.chunk.start(self.range.end))
    }

    /// Those envelopes that `wants` takes, framed for an endless response, and their number.
    ///
    /// What the framing cannot carry exactly is left out: an empty envelope, a line feed in JSON lines, a carriage
    /// return in an event.
    pub(super) fn stream(&self, framing: Framing, mut wants: impl FnMut(&[u8]) -> bool) -> (Bytes, usize) {
        let unfit = match framing {
            Framing::Sse => b'\r',
            Framing::Lines => b'\n',
        };
        let mut fits = |idx: usize| {
            let (start, end) = self.chunk.marks[idx].body;
            let body = &self.chunk.framed[start..end];
            wants(body) && !body.is_empty() && !body.contains(&unfit)
        };
        let wanted: Vec<usize> = self.range.clone().filter(|idx| fits(*idx)).collect();
        let cut = |range: Range<usize>| match framing {
            Framing::Lines => self.chunk.framed.slice(self.chunk.start(range.start)..self.chunk.start(range.end)),
            Framing::Sse => {
                let (events, ends) = self.chunk.events();
                let until = |idx: usize| idx.checked_sub(1).map_or(0, |before| ends[before]);
                events.slice(until(range.start)..until(range.end))
            }
        };
        if wanted.len() == self.len() {
            return (cut(self.range.clone()), wanted.len());
        }
        let mut chosen = BytesMut::new();
        for &idx in &wanted {
            chosen.extend_from_slice(&cut(idx..idx + 1));
        }
        (chosen.freeze(), wanted.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(provider: Provider, bodies: &[&[u8]]) -> Arc<Chunk> {
        let mut filling = Filling::new(provider);
        assert!(filling.is_empty());
        for (at, body) in (0_i64..).zip(bodies) {
            filling.push(UnixMicros(at), body);
        }
        Arc::new(filling.take())
    }

    #[test]
    fn frames_for_a_web_socket() {
        let long = vec![b'x'; 126];
        let longer = vec![b'y'; 70_000];
        let chunk = chunk(Provider::Tweetstream, &[b"{}", b"\xff", &long, &longer, b""]);
        let of = |idx: usize| Slice::new(&chunk, idx..idx + 1).framed();
        assert_eq!(&of(0)[..], b"\x81\x02{}");
        assert_eq!(&of(1)[..], b"\x82\x01\xff");
        assert_eq!((&of(2)[..4], of(2).len()), (&b"\x81\x7e\x00\x7e"[..], 130));
        assert_eq!((&of(3)[..10], of(3).len()), (&b"\x81\x7f\0\0\0\0\0\x01\x11\x70"[..], 70_010));
        assert_eq!(&of(4)[..], b"\x81\x00");
        assert_eq!((chunk.body(1), chunk.at(3), chunk.len()), (Bytes::from_static(b"\xff"), UnixMicros(3), 5));
        assert_eq!(Slice::new(&chunk, 0..2).framed(), Bytes::from_static(b"\x81\x02{}\x82\x01\xff"));
        assert_eq!(Slice::new(&chunk, 0..5).framed().len(), 4 + 3 + 130 + 70_010 + 2);
    }

    #[test]
    fn frames_for_an_endless_response() {
        let chunk = chunk(Provider::XLive, &[b"{1}", b"{\n2}", b"{\r3}", b"", b"{4}"]);
        let all = Slice::new(&chunk, 0..5);
        let stream = |framing| all.stream(framing, |_| true);
        assert_eq!(stream(Framing::Lines), (Bytes::from_static(b"{1}\n{\r3}\n{4}\n"), 3));
        assert_eq!(stream(Framing::Sse), (Bytes::from_static(b"data: {1}\n\ndata: {\ndata: 2}\n\ndata: {4}\n\n"), 3));
        let some = Slice::new(&chunk, 1..5).stream(Framing::Lines, |body| body == b"{4}");
        assert_eq!(some, (Bytes::from_static(b"{4}\n"), 1));
        assert_eq!(Slice::new(&chunk, 0..1).stream(Framing::Sse, |_| false), (Bytes::new(), 0));
    }
}
