//! One connection under a watch: everything a clean one does, envelope by envelope, and what goes wrong on purpose.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep, sleep_until};

use super::super::chunk::Slice;
use super::super::connection::{End, Peer, Signals, framed, hear, say, sign_of_life, wanted};
use super::super::queue::Item;
use super::plan::{Act, Watch};
use super::script::{Garbage, Live};
use crate::model::Framing;
use crate::net::{Gone, Incoming, ServerSocket, ServerStream};
use crate::provider::tamper;

/// How long an envelope that was kept back waits for the next one when nothing comes.
const HOLD: Duration = Duration::from_secs(1);

/// Pieces a second that a dripping connection sends.
const DRIPS: u64 = 50;

/// Made-up bytes that are in memory at one time.
const FILLER_BYTES: usize = 64 << 10;

/// FIN and opcode of a text, a binary and a reserved frame (RFC 6455, section 5.2).
const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
const RESERVED: u8 = 0x83;

/// A connection, whatever its transport.
pub(in crate::replay) enum Line<'a> {
    Socket(&'a mut ServerSocket),
    Stream(&'a mut ServerStream, Framing),
}

impl Line<'_> {
    /// A message of the fake peer's own.
    async fn message(&mut self, message: Bytes) -> Result<(), Gone> {
        match self {
            Self::Socket(socket) => say(socket, message).await,
            Self::Stream(stream, framing) => stream.send(framed(*framing, &message)).await,
        }
    }

    /// Bytes that are framed already, or are not meant to be.
    async fn raw(&mut self, bytes: Bytes) -> Result<(), Gone> {
        match self {
            Self::Socket(socket) => socket.send_raw(&bytes).await,
            Self::Stream(stream, _) => {
                stream.send(bytes).await?;
                stream.flush().await
            }
        }
    }

    async fn keep_alive(&mut self) -> Result<(), Gone> {
        match self {
            Self::Socket(socket) => socket.ping().await,
            Self::Stream(stream, framing) => stream.send(sign_of_life(*framing)).await,
        }
    }

    /// What the client says; `None` when it is gone. May be dropped while it waits.
    async fn heard(&mut self) -> Option<Incoming> {
        match self {
            Self::Socket(socket) => Some(socket.next().await),
            Self::Stream(stream, _) => {
                stream.gone().await;
                None
            }
        }
    }

    /// Answers nothing, until the client is gone. May be dropped while it waits.
    async fn ignore(&mut self, reads: bool) {
        match self {
            Self::Socket(socket) if reads => socket.ignore().await,
            // Who does not even read cannot see an end, either.
            Self::Socket(_) => std::future::pending().await,
            Self::Stream(stream, _) => stream.gone().await,
        }
    }

    fn text_parts(&self, opcode: u8, n_bytes: u64) -> (Bytes, &'static [u8]) {
        match self {
            Self::Socket(_) => (frame_header(opcode, n_bytes), b""),
            Self::Stream(_, Framing::Sse) => (Bytes::from_static(b"data: "), b"\n\n"),
            Self::Stream(_, Framing::Lines) => (Bytes::new(), b"\n"),
        }
    }
}

/// An envelope kept back.
struct Held {
    frames: Bytes,
    /// What it holds of the queue.
    n_bytes: usize,
    /// Others that have yet to go before it.
    others: u64,
}

struct Watched<'a> {
    peer: &'a Peer,
    line: Line<'a>,
    watch: Watch,
    signals: Signals,
    keepalive: Duration,
    last_sent: Instant,
    held: Vec<Held>,
    /// When the last of them came; what was silent before it does not count.
    held_at: Instant,
    /// Bytes a second, and until when.
    drip: Option<(u64, Option<Instant>)>,
}

/// Serves a connection to its end.
pub(in crate::replay) async fn play(peer: &Peer, line: Line<'_>, watch: Watch) -> Result<Infallible, End> {
    let mut signals = peer.signals();
    let greeting = tokio::select! {
        greeting = peer.begin() => greeting,
        end = signals.end() => return Err(end),
    };
    let (keepalive, last_sent) = (peer.keepalive(), Instant::now());
    let mut watched =
        Watched { peer, line, watch, signals, keepalive, last_sent, held: Vec::new(), held_at: last_sent, drip: None };
    for message in greeting {
        watched.say(message).await?;
    }
    loop {
        let silence = (!watched.held.is_empty()).then(|| watched.last_sent.max(watched.held_at) + HOLD);
        match watched.wait(silence, true).await? {
            Some(Item::Slice(slice)) => {
                for envelope in slice.each() {
                    watched.envelope(&envelope).await?;
                }
            }
            Some(Item::Message(message)) => watched.say(message).await?,
            Some(Item::Close { code, reason }) => return Err(End::Close { code, reason }),
            Some(Item::Reset) => return Err(End::Reset),
            Some(Item::Stall) => watched.stall(true).await?,
            None => watched.release(u64::MAX).await?,
        }
    }
}

impl Watched<'_> {
    /// Waits for something to do, or until an instant; hears the client and keeps the connection alive meanwhile.
    async fn wait(&mut self, until: Option<Instant>, takes_items: bool) -> Result<Option<Item>, End> {
        loop {
            let alive_until = self.last_sent + self.keepalive;
            tokio::select! {
                end = self.signals.end() => return Err(end),
                item = self.peer.queue.next(), if takes_items => return Ok(Some(item)),
                () = sleep_until(until.unwrap_or(alive_until)), if until.is_some() => return Ok(None),
                heard = self.line.heard() => hear(self.peer, heard.ok_or(End::Gone)?)?,
                () = sleep_until(alive_until) => {
                    self.signals.write(self.line.keep_alive()).await?;
                    self.last_sent = Instant::now();
                }
            }
        }
    }

    async fn say(&mut self, message: Bytes) -> Result<(), End> {
        self.signals.write(self.line.message(message)).await?;
        self.last_sent = Instant::now();
        Ok(())
    }

    async fn envelope(&mut self, envelope: &Slice) -> Result<(), End> {
        let n_bytes = envelope.framed().len();
        let (frames, n_wanted) = match self.line {
            Line::Socket(_) => (envelope.framed(), usize::from(!self.peer.booth().mutes(&envelope.body()))),
            Line::Stream(_, framing) => wanted(self.peer, envelope, framing),
        };
        if n_wanted == 0 {
            self.peer.sent(n_bytes, 0);
            return Ok(());
        }
        let (mut n_copies, mut others) = (1, 0);
        for act in self.watch.before(envelope.at(), &envelope.body()) {
            match act {
                Act::Skip => n_copies = 0,
                Act::Hold(n) => others = n,
                Act::Do(Live::Duplicate) => n_copies += 1,
                Act::Do(live) => self.misbehave(live).await?,
            }
        }
        if others > 0 && n_copies > 0 {
            self.held.push(Held { frames, n_bytes, others });
            self.held_at = Instant::now();
            return Ok(());
        }
        for _ in 0..n_copies {
            self.put(frames.clone()).await?;
        }
        self.peer.sent(n_bytes, n_copies);
        self.release(u64::from(n_copies > 0)).await
    }

    /// Sends what was kept back long enough, now that so many others have gone.
    async fn release(&mut self, n_gone: u64) -> Result<(), End> {
        let mut kept = Vec::new();
        for mut held in std::mem::take(&mut self.held) {
            held.others = held.others.saturating_sub(n_gone);
            if held.others == 0 {
                self.put(held.frames).await?;
                self.peer.sent(held.n_bytes, 1);
            } else {
                kept.push(held);
            }
        }
        self.held = kept;
        Ok(())
    }

    async fn misbehave(&mut self, live: Live) -> Result<(), End> {
        match live {
            Live::Close { code, reason } => Err(End::Close { code, reason }),
            Live::Reset => Err(End::Abort),
            Live::Replaced => self.farewell(tamper::replaced()).await,
            Live::ErrorFrame { code } => self.farewell(tamper::error_frame(code)).await,
            Live::Stall { lasts: Some(lasts), .. } => self.pause(lasts).await,
            Live::Stall { lasts: None, reads } => self.stall(reads).await,
            Live::Delay { by } => self.wait(Some(Instant::now() + by), false).await.map(drop),
            Live::Garbage { kind, n_bytes } => self.garbage(kind, n_bytes).await,
            Live::Oversize { n_bytes } => {
                let (head, tail) = (&br#"{"type":"oversize","filler":""#[..], &br#""}"#[..]);
                self.fill(TEXT, head, n_bytes - (head.len() + tail.len()) as u64, tail).await
            }
            Live::Drip { bytes_per_second, lasts } => {
                self.drip = Some((bytes_per_second, lasts.map(|lasts| Instant::now() + lasts)));
                Ok(())
            }
            // These are about the envelope itself and were seen to before.
            Live::Duplicate | Live::Reorder { .. } | Live::Swallow(_) | Live::Lapse => Ok(()),
        }
    }

    async fn farewell(&mut self, (message, code, reason): (Bytes, u16, &str)) -> Result<(), End> {
        self.say(message).await?;
        Err(End::Close { code, reason: reason.to_owned() })
    }

    /// Neither reads nor writes for a while.
    async fn pause(&mut self, lasts: Duration) -> Result<(), End> {
        tokio::select! {
            // Even a farewell would break the silence.
            _ = self.signals.end() => Err(End::Abort),
            () = sleep(lasts) => Ok(()),
        }
    }

    /// Never writes again. What comes for the client is thrown away, so that nobody waits for it.
    async fn stall(&mut self, reads: bool) -> Result<(), End> {
        // What came together with the envelope that met the stall is still in the queue's count.
        self.peer.queue.forget();
        self.peer.sent(0, 0);
        loop {
            tokio::select! {
                _ = self.signals.end() => return Err(End::Abort),
                () = self.line.ignore(reads) => return Err(End::Gone),
                item = self.peer.queue.next() => {
                    if let Item::Slice(slice) = item {
                        self.peer.sent(slice.framed().len(), 0);
                    }
                }
            }
        }
    }

    async fn garbage(&mut self, kind: Garbage, n_bytes: u64) -> Result<(), End> {
        let rest = |head: &[u8]| n_bytes - head.len() as u64;
        match kind {
            Garbage::Json => {
                let head = br#"{"garbage":"#;
                self.fill(TEXT, head, rest(head), b"").await
            }
            Garbage::Utf8 => {
                let head = b"{\"garbage\":\"\xff\xfe\x80";
                self.fill(TEXT, head, rest(head), b"").await
            }
            Garbage::Frame => self.fill(RESERVED, b"", n_bytes, b"").await,
            Garbage::Binary => {
                let head = b"\x00\xff\x01\xfe\xc0\xde\x02\xfd";
                self.fill(BINARY, head, rest(head), b"").await
            }
        }
    }

    /// One message made up of a head, so many bytes of filler and a tail, in pieces that fit into memory.
    async fn fill(&mut self, opcode: u8, head: &[u8], n_filler: u64, tail: &[u8]) -> Result<(), End> {
        let (before, behind) = self.line.text_parts(opcode, (head.len() + tail.len()) as u64 + n_filler);
        let line = &mut self.line;
        let filler = Bytes::from(vec![b'x'; FILLER_BYTES]);
        let writing = async {
            line.raw([&before, head].concat().into()).await?;
            let mut left = n_filler;
            while left > 0 {
                let n = left.min(FILLER_BYTES as u64) as usize;
                line.raw(filler.slice(..n)).await?;
                left -= n as u64;
            }
            line.raw([tail, behind].concat().into()).await
        };
        self.signals.write(writing).await?;
        self.last_sent = Instant::now();
        Ok(())
    }

    async fn put(&mut self, frames: Bytes) -> Result<(), End> {
        let rate = self.drip.filter(|(_, until)| until.is_none_or(|until| Instant::now() < until)).map(|(rate, _)| rate);
        let line = &mut self.line;
        match rate {
            None => self.signals.write(line.raw(frames)).await?,
            Some(rate) => {
                let n = (rate / DRIPS).max(1);
                let between = Duration::from_secs_f64(n as f64 / rate as f64);
                let writing = async {
                    for piece in frames.chunks(usize::try_from(n).unwrap_or(usize::MAX)) {
                        line.raw(frames.slice_ref(piece)).await?;
                        sleep(between).await;
                    }
                    Ok(())
                };
                self.signals.write(writing).await?;
            }
        }
        self.last_sent = Instant::now();
        Ok(())
    }
}

/// A server's frame has no mask.
fn frame_header(opcode: u8, n_bytes: u64) -> Bytes {
    let mut header = vec![opcode];
    match (u8::try_from(n_bytes), u16::try_from(n_bytes)) {
        (Ok(len @ ..126), _) => header.push(len),
        (_, Ok(len)) => {
            header.push(126);
            header.extend_from_slice(&len.to_be_bytes());
        }
        _ => {
            header.push(127);
            header.extend_from_slice(&n_bytes.to_be_bytes());
        }
    }
    header.into()
}
