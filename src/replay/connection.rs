//! One client's connection, from its opening to its end.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Semaphore, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout};

use super::chunk::Slice;
use super::faults::{self, Line, Watch};
use super::house::{Booth, House};
use super::player::lock;
use super::queue::{Item, Queue};
use crate::model::{Framing, NetFault, Provider};
use crate::net::{Gone, Incoming, ServerSocket, ServerStream};
use crate::provider::PeerId;

/// For the client to take what is on its way and to answer our farewell.
const FAREWELL: Duration = Duration::from_secs(1);

/// A client's place; it is free again when this is dropped, however the connection ended.
pub(super) struct Peer {
    pub(super) house: Arc<House>,
    pub(super) provider: Provider,
    pub(super) id: PeerId,
    pub(super) queue: Arc<Queue>,
    /// Where something is to go wrong on purpose.
    pub(super) watch: Option<Watch>,
}

impl Peer {
    pub(super) fn booth(&self) -> &Booth {
        self.house.booth(self.provider)
    }

    pub(super) fn keepalive(&self) -> Duration {
        self.house.keepalive.unwrap_or_else(|| lock(&self.booth().server).keepalive())
    }

    /// Subscribes, and gives what the connection cannot do without.
    pub(super) async fn begin(&self) -> Vec<Bytes> {
        let first = self.house.subscribe(self).await;
        lock(&self.booth().server).greeting(self.id, first.as_deref())
    }

    /// Envelopes have reached the client, as far as we can tell.
    pub(super) fn sent(&self, bytes: usize, n_envelopes: usize) {
        let tally = &self.booth().tally;
        tally.sent.fetch_add(n_envelopes as u64, Relaxed);
        if self.queue.sent(bytes, Instant::now()) && tally.finished.load(Relaxed) {
            self.house.change();
        }
    }

    pub(super) fn signals(&self) -> Signals {
        Signals { leaving: self.house.leaving.clone(), queue: Arc::clone(&self.queue) }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.queue.leave();
        lock(&self.booth().server).gone(self.id);
        lock(&self.booth().peers).remove(&self.id);
        self.house.change();
    }
}

/// Why a connection ends.
#[derive(Debug)]
pub(super) enum End {
    /// We take leave.
    Close { code: u16, reason: String },
    /// There is nobody left to take leave of.
    Gone,
    /// The client takes nothing, not even a farewell.
    Abort,
    /// It breaks off, as it happened.
    Reset,
}

impl End {
    fn close(code: u16, reason: &str) -> Self {
        Self::Close { code, reason: reason.to_owned() }
    }
}

/// What ends a connection from outside.
pub(super) struct Signals {
    leaving: watch::Receiver<bool>,
    queue: Arc<Queue>,
}

impl Signals {
    pub(super) async fn end(&mut self) -> End {
        tokio::select! {
            // A sender that is gone has left, too.
            _ = self.leaving.wait_for(|leaving| *leaving) => End::close(1001, "the replay ends"),
            () = self.queue.given_up() => End::close(1008, "too slow"),
        }
    }

    /// Writes as long as nothing ends the connection. What has begun is then given a moment, because a close
    /// frame can only stand behind a whole message.
    pub(super) async fn write(&mut self, writing: impl Future<Output = Result<(), Gone>>) -> Result<(), End> {
        let mut writing = pin!(writing);
        let end = tokio::select! {
            biased;
            written = &mut writing => return written.map_err(|Gone| End::Gone),
            end = self.end() => end,
        };
        match timeout(FAREWELL, writing).await {
            Ok(Ok(())) => Err(end),
            Ok(Err(Gone)) => Err(End::Gone),
            Err(_) => Err(End::Abort),
        }
    }
}

/// Serves a WebSocket client.
pub(super) async fn socket(mut peer: Peer, mut socket: ServerSocket) {
    let Err(end) = match peer.watch.take() {
        None => play_to_socket(&peer, &mut socket).await,
        Some(watch) => faults::play(&peer, Line::Socket(&mut socket), watch).await,
    };
    match end {
        End::Gone => {}
        End::Abort | End::Reset => abort(socket).await,
        End::Close { code, reason } => farewell(&mut socket, code, &reason).await,
    }
}

/// What the system holds for a client that reads nothing are megabytes, and to throw them away takes it milliseconds:
/// that happens beside the tasks, for one client after the other.
async fn abort(socket: ServerSocket) {
    static ABORTING: Semaphore = Semaphore::const_new(1);
    let _aborting = ABORTING.acquire().await;
    drop(spawn_blocking(move || socket.abort()).await);
}

/// Says a refusal that comes after the upgrade.
pub(super) async fn turn_away(mut socket: ServerSocket, messages: Vec<Bytes>, code: u16, reason: String) {
    let say = async {
        for message in messages {
            socket.feed(message).await?;
        }
        socket.flush().await
    };
    if let Ok(Ok(())) = timeout(FAREWELL, say).await {
        farewell(&mut socket, code, &reason).await;
    }
}

async fn farewell(socket: &mut ServerSocket, code: u16, reason: &str) {
    let close = async {
        socket.close(code, reason).await?;
        while !matches!(socket.next().await, Incoming::Closed { .. } | Incoming::Broken { .. }) {}
        Ok::<_, Gone>(())
    };
    // A client that does not answer is left without one.
    drop(timeout(FAREWELL, close).await);
}

async fn play_to_socket(peer: &Peer, socket: &mut ServerSocket) -> Result<std::convert::Infallible, End> {
    let mut signals = peer.signals();
    let greeting = tokio::select! {
        greeting = peer.begin() => greeting,
        end = signals.end() => return Err(end),
    };
    for message in greeting {
        signals.write(say(socket, message)).await?;
    }
    let keepalive = peer.keepalive();
    let mut idle_until = pin!(sleep(keepalive));
    let mut last_sent = Instant::now();
    loop {
        tokio::select! {
            end = signals.end() => return Err(end),
            item = peer.queue.next() => {
                match item {
                    Item::Slice(slice) if !peer.booth().has_muted.load(Relaxed) => {
                        let framed = slice.framed();
                        signals.write(socket.send_raw(&framed)).await?;
                        peer.sent(framed.len(), slice.len());
                    }
                    Item::Slice(slice) => {
                        for envelope in slice.each() {
                            let (framed, is_sent) = (envelope.framed(), !peer.booth().mutes(&envelope.body()));
                            if is_sent {
                                signals.write(socket.send_raw(&framed)).await?;
                            }
                            peer.sent(framed.len(), usize::from(is_sent));
                        }
                    }
                    Item::Message(message) => signals.write(say(socket, message)).await?,
                    Item::Close { code, reason } => return Err(End::Close { code, reason }),
                    Item::Reset => return Err(End::Reset),
                    Item::Stall => return Err(stall(socket, &mut signals).await),
                }
                last_sent = Instant::now();
            }
            incoming = socket.next() => hear(peer, incoming)?,
            () = &mut idle_until => {
                if last_sent.elapsed() >= keepalive {
                    signals.write(socket.ping()).await?;
                    last_sent = Instant::now();
                }
                idle_until.as_mut().reset(last_sent + keepalive);
            }
        }
    }
}

/// Says nothing more and hears nothing, until the client gives up or the replay ends.
async fn stall(socket: &mut ServerSocket, signals: &mut Signals) -> End {
    tokio::select! {
        end = signals.end() => end,
        () = socket.ignore() => End::Gone,
    }
}

async fn stall_stream(stream: &mut ServerStream, signals: &mut Signals) -> End {
    tokio::select! {
        end = signals.end() => end,
        () = stream.gone() => End::Gone,
    }
}

pub(super) async fn say(socket: &mut ServerSocket, message: Bytes) -> Result<(), Gone> {
    socket.feed(message).await?;
    socket.flush().await
}

/// What the client said, or how it ended.
pub(super) fn hear(peer: &Peer, incoming: Incoming) -> Result<(), End> {
    match incoming {
        Incoming::Message(message) => {
            let actions = lock(&peer.booth().server).heard(peer.id, &message, Instant::now().into_std());
            peer.booth().act(actions);
            Ok(())
        }
        Incoming::Alive => Ok(()),
        Incoming::Closed { .. } => Err(End::Gone),
        Incoming::Broken { fault, detail, .. } => Err(match fault {
            NetFault::InvalidUtf8 => End::close(1007, "a text message must be UTF-8"),
            NetFault::Oversized => End::close(1009, "the message is too large"),
            NetFault::Malformed => {
                tracing::debug!(detail, "a client broke the WebSocket protocol");
                End::close(1002, "this is not WebSocket")
            }
            _ => End::Gone,
        }),
    }
}

/// Serves a client of an endless response.
pub(super) async fn stream(mut peer: Peer, mut stream: ServerStream, framing: Framing) {
    let Err(end) = match peer.watch.take() {
        None => play_to_stream(&peer, &mut stream, framing).await,
        Some(watch) => faults::play(&peer, Line::Stream(&mut stream, framing), watch).await,
    };
    if let End::Abort | End::Reset = end {
        drop(timeout(FAREWELL, stream.abort()).await);
    }
    // Otherwise the response ends in order when the stream is dropped.
}

async fn play_to_stream(peer: &Peer, stream: &mut ServerStream, framing: Framing) -> Result<std::convert::Infallible, End> {
    let mut signals = peer.signals();
    let greeting = tokio::select! {
        greeting = peer.begin() => greeting,
        end = signals.end() => return Err(end),
    };
    for message in greeting {
        signals.write(stream.send(framed(framing, &message))).await?;
    }
    let keepalive = peer.keepalive();
    let mut idle_until = pin!(sleep(keepalive));
    let mut last_sent = Instant::now();
    loop {
        tokio::select! {
            end = signals.end() => return Err(end),
            item = peer.queue.next() => {
                match item {
                    Item::Slice(slice) => {
                        let (chunk, n_envelopes) = wanted(peer, &slice, framing);
                        signals.write(stream.send(chunk)).await?;
                        signals.write(stream.flush()).await?;
                        peer.sent(slice.framed().len(), n_envelopes);
                    }
                    Item::Message(message) => signals.write(stream.send(framed(framing, &message))).await?,
                    Item::Close { code, reason } => return Err(End::Close { code, reason }),
                    Item::Reset => return Err(End::Reset),
                    Item::Stall => return Err(stall_stream(stream, &mut signals).await),
                }
                last_sent = Instant::now();
            }
            () = stream.gone() => return Err(End::Gone),
            () = &mut idle_until => {
                if last_sent.elapsed() >= keepalive {
                    signals.write(stream.send(sign_of_life(framing))).await?;
                    last_sent = Instant::now();
                }
                idle_until.as_mut().reset(last_sent + keepalive);
            }
        }
    }
}

/// The envelopes of that slice this client subscribed to.
pub(super) fn wanted(peer: &Peer, slice: &Slice, framing: Framing) -> (Bytes, usize) {
    let mut server = lock(&peer.booth().server);
    slice.stream(framing, |envelope| server.wants(peer.id, envelope))
}

/// What an idle response gets.
pub(super) fn sign_of_life(framing: Framing) -> Bytes {
    match framing {
        Framing::Sse => Bytes::from_static(b":\n\n"),
        Framing::Lines => Bytes::from_static(b"\n"),
    }
}

/// A message of the fake peer's own, which is one line.
pub(super) fn framed(framing: Framing, message: &[u8]) -> Bytes {
    match framing {
        Framing::Sse => [b"data: ", message, b"\n\n"].concat().into(),
        Framing::Lines => [message, b"\n"].concat().into(),
    }
}
