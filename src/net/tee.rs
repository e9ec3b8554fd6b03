//! Keeps a copy of the bytes below the WebSocket decoder until they have come out of it as whole messages.
//!
//! The decoder's errors carry no bytes, so what broke it would be lost. The copy begins with the first
//! frame of the first message that was not delivered, frame headers included; control frames between
//! the fragments of a message stand in it as they came. What was delivered is dropped at the next read,
//! when at most one unfinished message is left: so dropping moves few bytes, whatever the rate.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// Longest frame header (RFC 6455, section 5.2).
pub(super) const FRAME_HEADER_BYTES_MAX: usize = 14;

/// A buffer that grew beyond this for one message is given back after it.
const KEPT_CAPACITY_MAX: usize = 1 << 20;

/// The first bytes of a frame, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameHead {
    pub(super) fin: bool,
    pub(super) rsv: u8,
    pub(super) opcode: u8,
    pub(super) masked: bool,
    pub(super) header_bytes: usize,
    pub(super) payload_bytes: u64,
}

impl FrameHead {
    /// Reads a header; `None` when it is not whole yet.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let (&first, &second) = (bytes.first()?, bytes.get(1)?);
        let (length_bytes, payload_bytes) = match second & 0x7f {
            126 => (2, u64::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?))),
            127 => (8, u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)),
            short => (0, u64::from(short)),
        };
        let masked = second & 0x80 != 0;
        let header_bytes = 2 + length_bytes + if masked { 4 } else { 0 };
        Some(Self { fin: first & 0x80 != 0, rsv: first & 0x70, opcode: first & 0x0f, masked, header_bytes, payload_bytes })
    }

    pub(super) fn is_control(self) -> bool {
        self.opcode & 0x08 != 0
    }

    /// Length with the header.
    pub(super) fn frame_bytes(self) -> u64 {
        self.payload_bytes.saturating_add(self.header_bytes as u64)
    }

    /// Whether a decoder may take this frame without giving anything out.
    fn is_silent_fragment(self, continues: bool) -> bool {
        let opcode_fits = if continues { self.opcode == 0 } else { self.opcode == 1 || self.opcode == 2 };
        !self.fin && self.rsv == 0 && !self.masked && opcode_fits
    }
}

/// The unfinished message takes more room on the wire than any allowed message could.
#[derive(Debug)]
pub(super) struct Overfull;

impl fmt::Display for Overfull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("too many bytes without a whole message")
    }
}

impl std::error::Error for Overfull {}

/// A stream that remembers what was read from it.
pub(super) struct Tee<S> {
    io: S,
    /// Bytes that came with the answer to the upgrade.
    early: Bytes,
    raw: Vec<u8>,
    /// Where the first message that was not delivered begins.
    start: usize,
    /// Where the first frame begins of which nothing was delivered.
    at: usize,
    /// Whether fragments stand between `start` and `at`.
    unfinished: bool,
    /// Bytes after which an unfinished message is given up.
    capacity: usize,
    since: Instant,
    last_read: Instant,
}

impl<S> Tee<S> {
    /// Wraps a stream; `capacity` bounds the copy (and is exceeded by less than one read).
    pub(super) fn new(io: S, early: Bytes, capacity: usize) -> Self {
        let now = Instant::now();
        Self { io, early, raw: Vec::new(), start: 0, at: 0, unfinished: false, capacity, since: now, last_read: now }
    }

    /// The decoder gave out a text or binary message.
    pub(super) fn message_delivered(&mut self) {
        while let Some(head) = self.step() {
            if !head.is_control() && head.fin {
                break;
            }
        }
        self.unfinished = false;
        self.start = self.at;
    }

    /// The decoder gave out a control frame; returns its payload.
    pub(super) fn control_delivered(&mut self) -> &[u8] {
        let mut payload = 0..0;
        while let Some(head) = self.step() {
            if head.is_control() {
                payload = self.at - usize::try_from(head.payload_bytes).unwrap_or(0)..self.at;
                break;
            }
            self.unfinished = true;
        }
        if !self.unfinished {
            self.start = self.at;
        }
        self.raw.get(payload).unwrap_or_default()
    }

    /// Steps over a whole frame.
    fn step(&mut self) -> Option<FrameHead> {
        let head = FrameHead::parse(self.raw.get(self.at..)?)?;
        let end = self.at.checked_add(usize::try_from(head.frame_bytes()).ok()?)?;
        if end > self.raw.len() {
            return None;
        }
        self.at = end;
        Some(head)
    }

    /// Since when bytes of an unfinished message wait here, if any do.
    pub(super) fn waiting_since(&self) -> Option<Instant> {
        match () {
            () if self.raw.len() == self.start => None,
            () if self.start > 0 => Some(self.last_read),
            () => Some(self.since),
        }
    }

    /// The frame at which the decoder stopped: where it ends in [`kept`](Self::kept), and its announced payload.
    ///
    /// `payload_bytes_max` is the limit for a whole message; a frame that exceeds it together with
    /// its predecessors is the one. `None` while not even its header is here.
    pub(super) fn failing(&self, payload_bytes_max: usize) -> Option<(u64, u64)> {
        let (mut at, mut continues, mut sum) = (self.start, false, 0_u64);
        loop {
            let head = FrameHead::parse(self.raw.get(at..)?)?;
            let end = (at as u64).saturating_add(head.frame_bytes());
            if !head.is_control() {
                sum = sum.saturating_add(head.payload_bytes);
            }
            // Control frames between fragments before `at` were delivered, so they are not the culprit.
            let passed = head.is_control() && at < self.at;
            let silent = passed || head.is_silent_fragment(continues);
            if !silent || sum > payload_bytes_max as u64 || end > self.raw.len() as u64 {
                return Some((end - self.start as u64, sum));
            }
            continues |= !head.is_control();
            at = usize::try_from(end).ok()?;
        }
    }

    /// The bytes as they came, from the start of the first message that was not delivered.
    pub(super) fn kept(&self) -> &[u8] {
        &self.raw[self.start..]
    }

    fn drop_delivered(&mut self) {
        if self.start > 0 {
            self.raw.drain(..self.start);
            self.at -= self.start;
            self.start = 0;
            self.since = self.last_read;
        }
        if self.raw.is_empty() && self.raw.capacity() > KEPT_CAPACITY_MAX {
            self.raw = Vec::new();
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Tee<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.drop_delivered();
        if this.raw.len() >= this.capacity {
            return Poll::Ready(Err(io::Error::other(Overfull)));
        }
        let before = buf.filled().len();
        if this.early.is_empty() {
            ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
        } else {
            let n = this.early.len().min(buf.remaining());
            buf.put_slice(&this.early[..n]);
            this.early.advance(n);
        }
        let now = Instant::now();
        if this.raw.is_empty() {
            this.since = now;
        }
        this.last_read = now;
        this.raw.extend_from_slice(&buf.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Tee<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::AsyncReadExt;

    use super::*;

    fn frame(fin: bool, opcode: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = vec![opcode | if fin { 0x80 } else { 0 }];
        match payload.len() {
            n @ 0..=125 => out.push(n as u8),
            n @ 126..=65_535 => {
                out.push(126);
                out.extend_from_slice(&(n as u16).to_be_bytes());
            }
            n => {
                out.push(127);
                out.extend_from_slice(&(n as u64).to_be_bytes());
            }
        }
        out.extend_from_slice(payload);
        out
    }

    #[test]
    fn reads_headers() {
        assert_eq!(FrameHead::parse(&[0x81]), None);
        assert_eq!(FrameHead::parse(&[0x81, 126, 1]), None);
        let head = FrameHead::parse(&frame(true, 1, &[0; 70_000])).unwrap();
        assert_eq!((head.header_bytes, head.payload_bytes, head.fin, head.opcode), (10, 70_000, true, 1));
        let head = FrameHead::parse(&[0xf9, 0x83]).unwrap();
        assert_eq!((head.rsv, head.masked, head.is_control(), head.frame_bytes()), (0x70, true, true, 9));
        let head = FrameHead::parse(&[0x82, 127, 255, 255, 255, 255, 255, 255, 255, 255]).unwrap();
        assert_eq!(head.frame_bytes(), u64::MAX, "an absurd length does not overflow");
    }

    proptest! {
        /// Any messages in any fragments with any pings between, read in any chunks: after the decoder
        /// delivered some of them, exactly the rest is kept.
        #[test]
        fn keeps_what_was_not_delivered(
            messages in prop::collection::vec(prop::collection::vec((0_usize..300, any::<bool>()), 1..4), 1..8),
            chunk in 1_usize..400,
            delivered in 0_usize..40,
        ) {
            // Each message is its fragments, some followed by a ping.
            let mut wire = Vec::new();
            let mut units = Vec::new();
            for fragments in &messages {
                let start = wire.len();
                for (idx, &(size, ping)) in fragments.iter().enumerate() {
                    let last = idx + 1 == fragments.len();
                    wire.extend(frame(last, if idx == 0 { 1 } else { 0 }, &vec![b'x'; size]));
                    if ping && !last {
                        wire.extend(frame(true, 9, b"ping"));
                        units.push((false, start, wire.len()));
                    }
                }
                units.push((true, wire.len(), wire.len()));
            }
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let mut tee = Tee::new(&wire[..], Bytes::new(), usize::MAX);
                let (mut read, mut buf) = (0, vec![0; chunk]);
                let mut kept_from = 0;
                for &(is_message, kept, needs) in units.iter().take(delivered) {
                    while read < needs {
                        read += tee.read(&mut buf).await.unwrap();
                    }
                    if is_message {
                        tee.message_delivered();
                    } else {
                        assert_eq!(tee.control_delivered(), b"ping");
                    }
                    kept_from = kept;
                    assert_eq!(tee.kept(), &wire[kept_from..read]);
                }
                while read < wire.len() {
                    read += tee.read(&mut buf).await.unwrap();
                }
                assert_eq!(tee.kept(), &wire[kept_from..]);
            });
        }
    }
}
