//! An open live connection, as messages.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt, SinkExt, StreamExt};
use http_body_util::BodyExt;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until, timeout, timeout_at};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::{Error, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use super::client::Connection;
use super::lines::{Piece, Splitter};
use super::tee::{FRAME_HEADER_BYTES_MAX, Overfull, Tee};
use super::{BoxedIo, Failure, Limits};
use crate::model::NetFault;

/// Room for a close frame's reason (RFC 6455, section 5.5: 125 bytes with the code).
const CLOSE_REASON_BYTES_MAX: usize = 123;

/// What came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// A text or binary message, or an envelope of an endless response: its exact bytes.
    ///
    /// The bytes share the read buffer, so whoever keeps them for long should copy them.
    Message(Bytes),
    /// A ping, a pong, an empty line or a comment: proof of life. Pings are answered by [`Live::next`] itself.
    Alive,
    /// The peer took leave, or ended the response in order; nothing follows.
    Closed {
        /// The code of its close frame, if it sent one.
        code: Option<u16>,
        /// Its reason, or ours in words when there was no close frame.
        reason: String,
    },
    /// The connection is of no more use; nothing follows.
    Broken {
        /// What broke.
        fault: NetFault,
        /// In words, without content.
        detail: String,
        /// What had come and was not delivered, exactly as it came.
        ///
        /// On a WebSocket these are raw bytes of the wire, frame headers included, from the first frame
        /// of the message at fault to the last byte read (so frames behind it may follow, and control
        /// frames may stand between its fragments). An oversized message is kept up to the limit and a
        /// frame header. On an endless response it is the unfinished line or event, up to the limit.
        kept: Bytes,
    },
}

/// An open WebSocket, or a response that does not end.
pub struct Live(Kind);

enum Kind {
    Socket(Box<Socket>),
    Stream(Box<Stream>),
}

impl Live {
    /// Waits for what comes next.
    ///
    /// May be dropped while it waits without losing anything. Must be called again and again, because
    /// pings are answered in here. After `Closed` or `Broken` it says `Broken` for ever.
    pub async fn next(&mut self) -> Incoming {
        match &mut self.0 {
            Kind::Socket(socket) => socket.next().await,
            Kind::Stream(stream) => stream.next().await,
        }
    }

    /// Sends a text message.
    ///
    /// # Errors
    ///
    /// The connection cannot be used any more; [`next`](Self::next) tells what it still holds. An
    /// endless response takes nothing.
    pub async fn send_text(&mut self, text: &str) -> Result<(), Failure> {
        self.socket()?.send(Message::text(text)).await
    }

    /// Sends a ping.
    ///
    /// # Errors
    ///
    /// As [`send_text`](Self::send_text).
    pub async fn ping(&mut self) -> Result<(), Failure> {
        self.socket()?.send(Message::Ping(Bytes::new())).await
    }

    /// Takes leave; waits at most two seconds for the socket to take the close frame.
    ///
    /// Nothing is lost: [`next`](Self::next) gives what still comes, and then `Closed` with the peer's
    /// answer, or without a code when there was none within two seconds more.
    pub async fn close(&mut self, code: u16, reason: &str) {
        match &mut self.0 {
            Kind::Socket(socket) => socket.close(code, reason).await,
            Kind::Stream(stream) => stream.end = End::ByUs,
        }
    }

    pub(super) async fn web_socket(io: BoxedIo, early: Bytes, limits: &Limits) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(limits.read_buffer_bytes)
            .max_message_size(Some(limits.message_bytes_max))
            .max_frame_size(Some(limits.message_bytes_max));
        let whole = limits.message_bytes_max.saturating_add(FRAME_HEADER_BYTES_MAX);
        // Room for the headers of fragments and for what was read along with them.
        let tee = Tee::new(io, early, whole.saturating_add(limits.read_buffer_bytes));
        let ws = WebSocketStream::from_raw_socket(tee, Role::Client, Some(config)).await;
        let patience = Box::pin(sleep_until(Instant::now()));
        Self(Kind::Socket(Box::new(Socket { ws, state: State::Open, patience, limits: limits.clone() })))
    }

    pub(super) fn stream(body: hyper::body::Incoming, connection: Connection, limits: &Limits) -> Self {
        let lines = Splitter::new(limits.message_bytes_max);
        let stream = Stream {
            body,
            lines,
            end: End::Open,
            since: Instant::now(),
            last_read: Instant::now(),
            message_timeout: limits.message_timeout,
            _connection: connection,
        };
        Self(Kind::Stream(Box::new(stream)))
    }

    fn socket(&mut self) -> Result<&mut Socket, Failure> {
        match &mut self.0 {
            Kind::Socket(socket) => Ok(socket),
            Kind::Stream(_) => Err((NetFault::Reset, "an endless response takes no messages".to_owned())),
        }
    }
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Kind::Socket(_) => "Live(WebSocket)",
            Kind::Stream(_) => "Live(Stream)",
        })
    }
}

/// A close frame with the reason cut to what fits.
pub(super) fn close_frame(code: u16, reason: &str) -> CloseFrame {
    let mut end = reason.len().min(CLOSE_REASON_BYTES_MAX);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    CloseFrame { code: CloseCode::from(code), reason: Utf8Bytes::from(&reason[..end]) }
}

/// Whether a close frame may hold this code (RFC 6455, section 7.4, and the IANA registry, which has 1012 to 1014 since).
fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

fn ended() -> Incoming {
    let detail = "the connection has ended before".to_owned();
    Incoming::Broken { fault: NetFault::Reset, detail, kept: Bytes::new() }
}

struct Socket {
    ws: WebSocketStream<Tee<BoxedIo>>,
    state: State,
    /// Reset to whatever deadline holds at the moment.
    patience: Pin<Box<Sleep>>,
    limits: Limits,
}

enum State {
    Open,
    /// We took leave and wait for the answer.
    Leaving {
        deadline: Instant,
    },
    /// The decoder failed; the rest of the frame is still read, to be kept.
    Failing {
        fault: NetFault,
        detail: String,
        deadline: Instant,
    },
    Ended,
}

/// One turn of the decoder.
enum Turn {
    Decoded(Option<Result<Message, Error>>),
    Late,
}

impl Socket {
    async fn next(&mut self) -> Incoming {
        loop {
            match &self.state {
                State::Ended => return ended(),
                State::Failing { .. } => return self.salvage().await,
                State::Open | State::Leaving { .. } => {}
            }
            let turn = poll_fn(|cx| self.poll_turn(cx)).await;
            if let Some(incoming) = self.take(turn) {
                return incoming;
            }
        }
    }

    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<Turn> {
        if let Poll::Ready(decoded) = self.ws.poll_next_unpin(cx) {
            return Poll::Ready(Turn::Decoded(decoded));
        }
        let deadline = match self.state {
            State::Leaving { deadline } => Some(deadline),
            _ => self.ws.get_ref().waiting_since().map(|since| since + self.limits.message_timeout),
        };
        let Some(deadline) = deadline else { return Poll::Pending };
        if self.patience.deadline() != deadline {
            self.patience.as_mut().reset(deadline);
        }
        ready!(self.patience.as_mut().poll(cx));
        Poll::Ready(Turn::Late)
    }

    /// What a turn means; `None` when the frame at fault must be read to its end first.
    fn take(&mut self, turn: Turn) -> Option<Incoming> {
        let by_us = matches!(self.state, State::Leaving { .. });
        let incoming = match turn {
            Turn::Decoded(Some(Ok(Message::Text(text)))) => self.message(Bytes::from(text)),
            Turn::Decoded(Some(Ok(Message::Binary(bytes)))) => self.message(bytes),
            Turn::Decoded(Some(Ok(Message::Close(_)))) => self.closed(),
            Turn::Decoded(Some(Ok(_))) => {
                self.ws.get_mut().control_delivered();
                Incoming::Alive
            }
            Turn::Decoded(Some(Err(error))) => match verdict(&error, self.limits.message_bytes_max) {
                Some((fault, detail)) => {
                    let deadline = Instant::now() + self.limits.salvage_timeout;
                    self.state = State::Failing { fault, detail, deadline };
                    return None;
                }
                None if by_us => self.unanswered(),
                None => self.broken(NetFault::Reset, lost(&error)),
            },
            Turn::Decoded(None) | Turn::Late if by_us => self.unanswered(),
            Turn::Decoded(None) => self.broken(NetFault::Reset, "the connection ended without a farewell".to_owned()),
            Turn::Late => {
                let seconds = self.limits.message_timeout.as_secs_f32();
                self.broken(NetFault::Timeout, format!("a message was not whole after {seconds} s"))
            }
        };
        Some(incoming)
    }

    fn message(&mut self, bytes: Bytes) -> Incoming {
        self.ws.get_mut().message_delivered();
        Incoming::Message(bytes)
    }

    fn closed(&mut self) -> Incoming {
        // The decoder has queued the answer; the socket takes so small a frame at once or not at all.
        self.say_now();
        let tee = self.ws.get_mut();
        let kept = Bytes::copy_from_slice(tee.kept());
        // The decoder replaces codes that it does not know, so the wire is asked.
        let said = tee.control_delivered();
        let code = said.first_chunk().map(|code| u16::from_be_bytes(*code));
        let reason = said.get(2..).map(|reason| String::from_utf8_lossy(reason).into_owned()).unwrap_or_default();
        self.state = State::Ended;
        match code {
            Some(code) if !may_be_sent(code) => {
                let detail = format!("close code {code} must not be sent (RFC 6455, section 7.4)");
                Incoming::Broken { fault: NetFault::Malformed, detail, kept }
            }
            code => Incoming::Closed { code, reason },
        }
    }

    fn unanswered(&mut self) -> Incoming {
        self.state = State::Ended;
        Incoming::Closed { code: None, reason: "closed by us; no answer".to_owned() }
    }

    fn broken(&mut self, fault: NetFault, detail: String) -> Incoming {
        self.state = State::Ended;
        Incoming::Broken { fault, detail, kept: Bytes::copy_from_slice(self.ws.get_ref().kept()) }
    }

    fn say_now(&mut self) {
        if let Some(Err(error)) = self.ws.flush().now_or_never() {
            tracing::debug!(%error, "farewell not sent");
        }
    }

    /// Reads the frame at fault to its end or the limit, answers with a close frame, gives out what was kept.
    async fn salvage(&mut self) -> Incoming {
        let mut buffer = vec![0; 16 << 10];
        let announced = poll_fn(|cx| self.poll_salvage(cx, &mut buffer)).await;
        let State::Failing { fault, detail, .. } = std::mem::replace(&mut self.state, State::Ended) else { return ended() };
        let limit = self.limits.message_bytes_max;
        let (code, detail) = match (fault, announced) {
            (NetFault::Oversized, Some(bytes)) if bytes > limit as u64 => {
                (1009, format!("a message of {bytes} announced bytes or more is over the limit of {limit}"))
            }
            (NetFault::Oversized, _) => (1009, detail),
            (NetFault::InvalidUtf8, _) => (1007, detail),
            _ => (1002, detail),
        };
        let kept = self.ws.get_ref().kept();
        let end = match fault {
            NetFault::Oversized => kept.len().min(limit.saturating_add(FRAME_HEADER_BYTES_MAX)),
            _ => kept.len(),
        };
        let kept = Bytes::copy_from_slice(&kept[..end]);
        let farewell = self.ws.send(Message::Close(Some(close_frame(code, "")))).now_or_never();
        if let Some(Err(error)) = farewell {
            tracing::debug!(%error, "farewell not sent");
        }
        Incoming::Broken { fault, detail, kept }
    }

    /// Ready when the frame at fault is whole, or nothing more of it can or may be had; its announced length.
    fn poll_salvage(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<Option<u64>> {
        let limit = self.limits.message_bytes_max;
        let deadline = match self.state {
            // Only a text that was read to its end is found not to be UTF-8.
            State::Failing { fault: NetFault::InvalidUtf8, .. } => return Poll::Ready(None),
            State::Failing { deadline, .. } => deadline,
            _ => return Poll::Ready(None),
        };
        loop {
            let tee = self.ws.get_mut();
            let (end, announced) = tee.failing(limit).unzip();
            let want = end.unwrap_or(u64::MAX).min(limit.saturating_add(FRAME_HEADER_BYTES_MAX) as u64);
            if tee.kept().len() as u64 >= want {
                return Poll::Ready(announced);
            }
            let mut buffer = ReadBuf::new(buffer);
            match Pin::new(tee).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {}
                Poll::Ready(_) => return Poll::Ready(announced),
                Poll::Pending => {
                    if self.patience.deadline() != deadline {
                        self.patience.as_mut().reset(deadline);
                    }
                    ready!(self.patience.as_mut().poll(cx));
                    return Poll::Ready(announced);
                }
            }
        }
    }

    async fn send(&mut self, message: Message) -> Result<(), Failure> {
        if !matches!(self.state, State::Open) {
            return Err((NetFault::Reset, "the connection is closing or closed".to_owned()));
        }
        match timeout(self.limits.send_timeout, self.ws.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err((NetFault::Reset, lost(&error))),
            Err(_) => {
                let seconds = self.limits.send_timeout.as_secs_f32();
                Err((NetFault::Timeout, format!("the peer took no message for {seconds} s")))
            }
        }
    }

    async fn close(&mut self, code: u16, reason: &str) {
        if !matches!(self.state, State::Open) {
            return;
        }
        let limit = self.limits.close_timeout;
        self.state = State::Leaving { deadline: Instant::now() + limit };
        let farewell = self.ws.send(Message::Close(Some(close_frame(code, reason))));
        match timeout(limit, farewell).await {
            Ok(Ok(())) => self.state = State::Leaving { deadline: Instant::now() + limit },
            Ok(Err(error)) => tracing::debug!(%error, "farewell not sent"),
            Err(_) => tracing::debug!("the peer does not read; farewell not sent"),
        }
    }
}

/// Which fault an error of the decoder is; `None` when the connection itself was lost.
fn verdict(error: &Error, limit: usize) -> Option<Failure> {
    match error {
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => None,
        Error::Protocol(error) => Some((NetFault::Malformed, format!("the server broke the WebSocket protocol: {error}"))),
        // The error's own words quote the payload.
        Error::Utf8(_) => Some((NetFault::InvalidUtf8, "a text frame is not UTF-8".to_owned())),
        Error::Capacity(_) => Some((NetFault::Oversized, format!("a message is over the limit of {limit} bytes"))),
        Error::Io(error) if error.get_ref().is_some_and(|cause| cause.is::<Overfull>()) => {
            Some((NetFault::Oversized, format!("the frames of a message are over the limit of {limit} bytes")))
        }
        _ => None,
    }
}

fn lost(error: &Error) -> String {
    match error {
        Error::Io(error) => format!("the connection was lost: {error}"),
        _ => "the connection ended without a farewell".to_owned(),
    }
}

struct Stream {
    body: hyper::body::Incoming,
    lines: Splitter,
    end: End,
    /// When the unfinished line or event began, if there is one.
    since: Instant,
    last_read: Instant,
    message_timeout: Duration,
    _connection: Connection,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Open,
    ByUs,
    Told,
}

impl Stream {
    async fn next(&mut self) -> Incoming {
        loop {
            match self.end {
                End::Told => return ended(),
                End::ByUs => {
                    self.end = End::Told;
                    return Incoming::Closed { code: None, reason: "closed by us".to_owned() };
                }
                End::Open => {}
            }
            if let Some(piece) = self.lines.next() {
                // Whatever is left behind this piece came with the last chunk.
                self.since = self.last_read;
                return match piece {
                    Piece::Message(bytes) => Incoming::Message(bytes),
                    Piece::Alive => Incoming::Alive,
                    Piece::Oversized => self.broken(NetFault::Oversized, "a line or event is over the limit".to_owned()),
                };
            }
            if let Some(end) = self.read().await {
                return end;
            }
        }
    }

    /// Reads a chunk; `Some` when there is no more.
    async fn read(&mut self) -> Option<Incoming> {
        let frame = if self.lines.is_partial() {
            match timeout_at(self.since + self.message_timeout, self.body.frame()).await {
                Ok(frame) => frame,
                Err(_) => {
                    let detail = format!("a line or event was not whole after {} s", self.message_timeout.as_secs_f32());
                    return Some(self.broken(NetFault::Timeout, detail));
                }
            }
        } else {
            let frame = self.body.frame().await;
            self.since = Instant::now();
            frame
        };
        self.last_read = Instant::now();
        match frame {
            Some(Ok(frame)) => {
                if let Some(chunk) = frame.data_ref() {
                    self.lines.push(chunk);
                }
                None
            }
            Some(Err(error)) => Some(self.broken(body_fault(&error), format!("the response broke off: {error}"))),
            None if self.lines.is_partial() => {
                Some(self.broken(NetFault::Reset, "the response ended inside a line or event".to_owned()))
            }
            None => {
                self.end = End::Told;
                Some(Incoming::Closed { code: None, reason: "the response ended".to_owned() })
            }
        }
    }

    fn broken(&mut self, fault: NetFault, detail: String) -> Incoming {
        self.end = End::Told;
        Incoming::Broken { fault, detail, kept: self.lines.kept() }
    }
}

/// Broken chunk headers are malformed; everything else is a lost connection.
fn body_fault(error: &hyper::Error) -> NetFault {
    use std::io::ErrorKind::{InvalidData, InvalidInput};
    let io = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<std::io::Error>());
    if io.is_some_and(|io| matches!(io.kind(), InvalidData | InvalidInput)) { NetFault::Malformed } else { NetFault::Reset }
}

#[cfg(test)]
mod conformance;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Transport;
    use crate::net::testing::opened;

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = vec![first];
        match u16::try_from(payload.len()) {
            Ok(n) if n < 126 => out.push(payload.len() as u8),
            Ok(n) => {
                out.push(126);
                out.extend_from_slice(&n.to_be_bytes());
            }
            Err(_) => {
                out.push(127);
                out.extend_from_slice(&(payload.len() as u64).to_be_bytes());
            }
        }
        out.extend_from_slice(payload);
        out
    }

    fn small() -> Limits {
        Limits { message_bytes_max: 1000, salvage_timeout: Duration::from_millis(50), ..Limits::default() }
    }

    /// What comes of these bytes from the server, which then hangs up; in chunks of that size.
    async fn receive(wire: &[u8], chunk: usize, limits: &Limits) -> Vec<Incoming> {
        let wire = wire.to_vec();
        let opened = opened(Transport::WebSocket, limits, move |mut far| async move {
            far.upgrade("", b"").await;
            for chunk in wire.chunks(chunk) {
                far.say(chunk).await;
                tokio::task::yield_now().await;
            }
        });
        drain(opened.await.unwrap().live).await
    }

    async fn drain(mut live: Live) -> Vec<Incoming> {
        let mut out = Vec::new();
        loop {
            out.push(live.next().await);
            if matches!(out.last(), Some(Incoming::Closed { .. } | Incoming::Broken { .. })) {
                assert_eq!(live.next().await, ended());
                assert!(live.send_text("late").await.is_err());
                return out;
            }
        }
    }

    fn message(text: &str) -> Incoming {
        Incoming::Message(Bytes::copy_from_slice(text.as_bytes()))
    }

    #[tokio::test]
    async fn what_breaks_the_decoder_is_kept_and_what_came_before_is_whole() {
        let two = |a: Vec<u8>, b: Vec<u8>| [a, b].concat();
        let invalid = b"caf\xe9";
        let masked = vec![0x81, 0x82, 1, 2, 3, 4, b'h' ^ 1, b'i' ^ 2];
        let mut announced = vec![0x81, 127];
        announced.extend_from_slice(&(1_u64 << 40).to_be_bytes());
        announced.extend_from_slice(&[b'z'; 500]);
        let cases: Vec<(&str, Vec<u8>, NetFault)> = vec![
            ("rsv1", frame(0xc1, b"compressed?"), NetFault::Malformed),
            ("rsv2", frame(0xa1, b"x"), NetFault::Malformed),
            ("rsv3 on a ping", frame(0x99, b"x"), NetFault::Malformed),
            ("unknown data opcode", frame(0x83, b"what"), NetFault::Malformed),
            ("unknown control opcode", frame(0x8b, b"what"), NetFault::Malformed),
            ("masked from the server", masked, NetFault::Malformed),
            ("long control", frame(0x89, &[b'p'; 126]), NetFault::Malformed),
            ("fragmented control", frame(0x09, b"p"), NetFault::Malformed),
            ("orphan continuation", frame(0x80, b"rest"), NetFault::Malformed),
            ("text inside a message", two(frame(0x01, b"one"), frame(0x81, b"two")), NetFault::Malformed),
            ("close of one byte", frame(0x88, b"x"), NetFault::Malformed),
            ("close that must not be sent", frame(0x88, &1006_u16.to_be_bytes()), NetFault::Malformed),
            ("not utf-8", frame(0x81, invalid), NetFault::InvalidUtf8),
            ("not utf-8 over two frames", two(frame(0x01, b"caf\xc3"), frame(0x80, b"caf")), NetFault::InvalidUtf8),
            ("frame over the limit", frame(0x81, &[b'z'; 1001]), NetFault::Oversized),
            ("fragments over the limit", two(frame(0x02, &[b'z'; 600]), frame(0x80, &[b'z'; 401])), NetFault::Oversized),
            ("absurd length", announced, NetFault::Oversized),
            ("cut inside a frame", frame(0x81, b"hello")[..4].to_vec(), NetFault::Reset),
            ("cut between fragments", frame(0x01, b"hello"), NetFault::Reset),
            ("cut inside a header", vec![0x81], NetFault::Reset),
            ("cut between messages", Vec::new(), NetFault::Reset),
        ];
        for (what, bad, want) in cases {
            for chunk in [1, 7, 1 << 14] {
                let good = [frame(0x81, b"first"), frame(0x89, b"ping"), frame(0x82, b"\xff\x00")].concat();
                let mut out = receive(&[good, bad.clone()].concat(), chunk, &small()).await;
                let last = out.pop().unwrap();
                let before = [message("first"), Incoming::Alive, Incoming::Message(Bytes::from_static(b"\xff\x00"))];
                assert_eq!(out, before, "{what}, chunks of {chunk}");
                let Incoming::Broken { fault, kept, detail } = last else { panic!("{what}: {last:?}") };
                assert_eq!(fault, want, "{what}, chunks of {chunk}: {detail}");
                assert_eq!(kept, bad, "{what}, chunks of {chunk}: {detail}");
            }
        }
    }

    #[tokio::test]
    async fn codes_of_the_wire() {
        let mut n_cells = 0;
        for code in (990..1030_u16).chain([0, 1, 999, 1100, 2000, 2999, 3000, 3003, 3999, 4000, 4001, 4029, 4999, 5000, 65_535]) {
            let wire = frame(0x88, &[&code.to_be_bytes()[..], b"why"].concat());
            let out = receive(&wire, 1 << 14, &small()).await;
            match (&out[..], code) {
                ([Incoming::Closed { code: found, reason }], 1000..=1003 | 1007..=1014 | 3000..=4999) => {
                    assert_eq!((*found, reason.as_str()), (Some(code), "why"));
                }
                ([Incoming::Broken { fault: NetFault::Malformed, kept, .. }], 0..=999 | 1004..=2999 | 5000..) => {
                    assert_eq!(kept[..], wire[..], "{code}");
                }
                _ => panic!("{code}: {out:?}"),
            }
            n_cells += 1;
        }
        println!("cells {n_cells}");
    }

    #[tokio::test]
    async fn an_oversized_message_is_kept_up_to_the_limit() {
        let wire = frame(0x81, &[b'z'; 50_000]);
        for chunk in [100, 1 << 16] {
            let out = receive(&wire, chunk, &small()).await;
            let [Incoming::Broken { fault: NetFault::Oversized, detail, kept }] = &out[..] else { panic!("{out:?}") };
            assert_eq!(&kept[..], &wire[..1014]);
            assert!(detail.contains("50000 announced"), "{detail}");
        }
        let at_limit = receive(&frame(0x81, &[b'z'; 1000]), 64, &small()).await;
        assert_eq!(at_limit[0], message(&"z".repeat(1000)));
    }

    #[tokio::test]
    async fn endless_fragments_and_pings_are_bounded() {
        let limits = Limits { read_buffer_bytes: 1024, ..small() };
        let mut wire = frame(0x01, b"");
        for _ in 0..10_000 {
            wire.extend(frame(0x00, b""));
            wire.extend(frame(0x89, b""));
        }
        let out = receive(&wire, 1 << 12, &limits).await;
        let Some(Incoming::Broken { fault: NetFault::Oversized, kept, .. }) = out.last() else { panic!("{:?}", out.last()) };
        assert_eq!(&kept[..], &wire[..1014]);
        assert!(out[..out.len() - 1].iter().all(|incoming| *incoming == Incoming::Alive));
    }

    #[tokio::test]
    async fn a_broken_frame_is_answered_with_the_right_code() {
        for (bad, code) in [(frame(0x83, b""), 1002_u16), (frame(0x81, b"\xff"), 1007), (frame(0x81, &[0; 2000]), 1009)] {
            let (tell, told) = tokio::sync::oneshot::channel();
            let opened = opened(Transport::WebSocket, &small(), move |mut far| async move {
                far.upgrade("", &bad).await;
                tell.send(far.rest().await).unwrap();
            });
            drain(opened.await.unwrap().live).await;
            let said = told.await.unwrap();
            let [0x88, 0x82, m0, m1, _, _, c0, c1] = said[..] else { panic!("{said:?}") };
            assert_eq!(u16::from_be_bytes([c0 ^ m0, c1 ^ m1]), code);
        }
    }

    #[tokio::test]
    async fn fragments_with_pings_between_come_out_whole() {
        let long = "ü".repeat(200);
        let mut wire = Vec::new();
        for part in long.as_bytes().chunks(7) {
            wire.extend(frame(if wire.is_empty() { 0x01 } else { 0x00 }, part));
            wire.extend(frame(0x89, b"still there?"));
        }
        wire.extend(frame(0x80, b""));
        wire.extend(frame(0x81, b""));
        wire.extend(frame(0x88, &[&4001_u16.to_be_bytes()[..], b"bye"].concat()));
        for chunk in [1, 5, 1 << 14] {
            let out = receive(&wire, chunk, &small()).await;
            let alive = out.iter().filter(|incoming| **incoming == Incoming::Alive).count();
            let rest: Vec<_> = out.into_iter().filter(|incoming| *incoming != Incoming::Alive).collect();
            let closed = Incoming::Closed { code: Some(4001), reason: "bye".to_owned() };
            assert_eq!(rest, [message(&long), message(""), closed]);
            assert_eq!(alive, 400_usize.div_ceil(7));
        }
    }

    #[tokio::test]
    async fn waiting_may_be_dropped_at_any_point() {
        let bad = frame(0x81, &[b'z'; 1001]);
        let wire = [frame(0x01, b"fir"), frame(0x89, b""), frame(0x80, b"st"), frame(0x81, b"second"), bad.clone()].concat();
        let opened = opened(Transport::WebSocket, &small(), move |mut far| async move {
            far.upgrade("", b"").await;
            for byte in wire {
                far.say(&[byte]).await;
                tokio::task::yield_now().await;
            }
            far.rest().await;
        });
        let mut live = opened.await.unwrap().live;
        let mut out = Vec::new();
        // Each wait is dropped after one look; the frame over the limit is read on the same way.
        while !matches!(out.last(), Some(Incoming::Broken { .. })) {
            out.extend(live.next().now_or_never());
            tokio::task::yield_now().await;
        }
        let Some(Incoming::Broken { fault: NetFault::Oversized, kept, .. }) = out.pop() else { panic!("{out:?}") };
        assert_eq!(kept, bad);
        assert_eq!(out, [Incoming::Alive, message("first"), message("second")]);
    }

    #[tokio::test]
    async fn bytes_that_came_with_the_answer_are_not_lost() {
        let wire = [frame(0x81, b"early"), frame(0x81, b"\xff")].concat();
        let opened = opened(Transport::WebSocket, &small(), move |mut far| async move { far.upgrade("", &wire).await });
        let out = drain(opened.await.unwrap().live).await;
        assert_eq!(out[0], message("early"));
        let Incoming::Broken { fault: NetFault::InvalidUtf8, kept, .. } = &out[1] else { panic!("{out:?}") };
        assert_eq!(&kept[..], b"\x81\x01\xff");
    }

    #[tokio::test]
    async fn after_our_farewell_nothing_is_lost() {
        let opened = opened(Transport::WebSocket, &small(), move |mut far| async move {
            far.upgrade("", b"").await;
            // A masked close frame of ours: 2 + 4 + 2 + 3 bytes.
            let mut farewell = [0; 11];
            tokio::io::AsyncReadExt::read_exact(&mut far.io, &mut farewell).await.unwrap();
            assert_eq!(farewell[..2], [0x88, 0x85]);
            far.say(&[frame(0x81, b"on its way"), frame(0x88, &1000_u16.to_be_bytes())].concat()).await;
        });
        let mut live = opened.await.unwrap().live;
        live.close(1000, "bye").await;
        assert!(live.send_text("too late").await.is_err());
        let out = drain(live).await;
        assert_eq!(out, [message("on its way"), Incoming::Closed { code: Some(1000), reason: String::new() }]);
    }

    #[tokio::test]
    async fn waits_are_bounded() {
        let limits = Limits { close_timeout: Duration::from_millis(20), message_timeout: Duration::from_millis(20), ..small() };
        let silent = |wire: Vec<u8>| {
            let limits = limits.clone();
            async move {
                let opened = opened(Transport::WebSocket, &limits, move |mut far| async move {
                    far.upgrade("", &wire).await;
                    far.rest().await;
                });
                opened.await.unwrap().live
            }
        };
        let mut live = silent(Vec::new()).await;
        live.close(1000, "").await;
        assert!(matches!(live.next().await, Incoming::Closed { code: None, .. }), "no answer to our farewell");

        let mut live = silent([frame(0x81, b"whole"), frame(0x81, b"never ends")[..5].to_vec()].concat()).await;
        assert_eq!(live.next().await, message("whole"));
        let Incoming::Broken { fault: NetFault::Timeout, kept, .. } = live.next().await else { panic!("not late") };
        assert_eq!(&kept[..], &frame(0x81, b"never ends")[..5]);
    }

    #[tokio::test]
    async fn an_endless_response_is_split() {
        let (head, chunked) = ("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n", "Transfer-Encoding: chunked\r\n\r\n");
        let cases: [(String, Vec<Incoming>); 4] = [
            (
                format!("{head}{chunked}7\r\ndata: {{\r\n5\r\n}}\n\n\n[\r\n3\r\n1]\n\r\n0\r\n\r\n"),
                vec![
                    message("{}"),
                    Incoming::Alive,
                    message("[1]"),
                    Incoming::Closed { code: None, reason: "the response ended".to_owned() },
                ],
            ),
            (
                format!("{head}{chunked}8\r\n{{}}\n{{\"a\":\r\n"),
                vec![
                    message("{}"),
                    Incoming::Broken { fault: NetFault::Reset, detail: String::new(), kept: Bytes::from_static(b"{\"a\":") },
                ],
            ),
            (
                format!("{head}{chunked}3\r\n{{}}\n\r\nnonsense\r\n"),
                vec![message("{}"), Incoming::Broken { fault: NetFault::Malformed, detail: String::new(), kept: Bytes::new() }],
            ),
            (
                format!("HTTP/1.0 200 OK\r\n\r\n{{}}\n{}", "x".repeat(2000)),
                vec![
                    message("{}"),
                    Incoming::Broken { fault: NetFault::Oversized, detail: String::new(), kept: Bytes::from(vec![b'x'; 1000]) },
                ],
            ),
        ];
        for (wire, want) in cases {
            let shown = wire.clone();
            let opened =
                opened(Transport::Stream, &small(), move |mut far| async move { far.say(wire.as_bytes()).await }).await.unwrap();
            let mut out = drain(opened.live).await;
            if let Some(Incoming::Broken { detail, .. }) = out.last_mut() {
                detail.clear();
            }
            assert_eq!(out, want, "{shown}");
        }
    }
}
