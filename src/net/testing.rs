//! A network in memory whose far end follows a script, and a stream that tells text from binary messages.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::tee::FrameHead;
use super::{BoxedIo, Connecting, Limits, Network, OpenError, Opened, open};
use crate::model::{Endpoint, NetFault, Opening, Secret, Transport};

/// The key in all tests: it must show up nowhere.
pub(super) const PLANTED: &str = "planted-key-7f3a";

/// Hands out one end of a pipe, once.
pub(super) struct Memory(Mutex<Option<BoxedIo>>);

impl Network for Memory {
    fn connect<'a>(&'a self, _: &'a Endpoint) -> Connecting<'a> {
        let end = self.0.lock().unwrap().take();
        Box::pin(async move { end.ok_or((NetFault::Connect, "connected twice".to_owned())) })
    }
}

/// A network whose only server reads a request and then follows the script.
pub(super) fn server<F, Fut>(script: F) -> Memory
where
    F: FnOnce(Far) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let (near, far) = tokio::io::duplex(1 << 16);
    tokio::spawn(async move {
        let mut far = Far { io: far, head: String::new() };
        far.read_head().await;
        script(far).await;
    });
    Memory(Mutex::new(Some(Box::new(near))))
}

/// The far end, after it has read a request.
pub(super) struct Far {
    pub(super) io: DuplexStream,
    /// The request's line and headers.
    pub(super) head: String,
}

impl Far {
    async fn read_head(&mut self) {
        while !self.head.ends_with("\r\n\r\n") {
            let Ok(byte) = self.io.read_u8().await else { return };
            self.head.push(char::from(byte));
        }
    }

    /// Value of a header of the request.
    pub(super) fn asked(&self, name: &str) -> Option<&str> {
        self.head.lines().filter_map(|line| line.split_once(": ")).find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v)
    }

    /// The right answer to an upgrade, with more header lines and then more bytes.
    pub(super) async fn upgrade(&mut self, lines: &str, then: &[u8]) {
        let accept = derive_accept_key(self.asked("sec-websocket-key").unwrap().as_bytes());
        let head = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n{lines}\r\n"
        );
        let mut answer = head.into_bytes();
        answer.extend_from_slice(then);
        self.say(&answer).await;
    }

    pub(super) async fn say(&mut self, bytes: &[u8]) {
        self.io.write_all(bytes).await.unwrap();
    }

    /// Everything the client says until it hangs up.
    pub(super) async fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        self.io.read_to_end(&mut rest).await.unwrap();
        rest
    }
}

pub(super) fn secret(text: &str) -> Secret {
    Secret::new(text).unwrap()
}

pub(super) fn opening(transport: Transport) -> Opening {
    Opening {
        transport,
        endpoint: Endpoint { tls: false, host: "stream.test".to_owned(), port: 80 },
        target: secret(&format!("/ws?api_key={PLANTED}&topic=tweets")),
        headers: vec![
            ("sec-websocket-protocol", secret(&format!("tweetstream.v1, tweetstream.auth.token.{PLANTED}"))),
            ("x-api-key", secret(PLANTED)),
            ("accept", secret("text/event-stream")),
        ],
        shown: "ws://stream.test/ws?api_key=***&topic=tweets".to_owned(),
    }
}

/// Opens against a script; whatever comes out must not show the key.
pub(super) fn opened<F, Fut>(
    transport: Transport,
    limits: &Limits,
    script: F,
) -> impl Future<Output = Result<Opened, OpenError>> + use<F, Fut>
where
    F: FnOnce(Far) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let limits = limits.clone();
    async move {
        let opening = opening(transport);
        let result = open(&server(script), &opening, &limits).await;
        let shown = match &result {
            Ok(opened) => format!("{opened:?}{opening:?}"),
            Err(error) => format!("{error:?}{error}{opening:?}"),
        };
        assert!(!shown.contains(PLANTED), "{shown}");
        result
    }
}

/// Whether the messages that came over a [`Watched`] are binary, in their order.
#[derive(Clone, Default)]
pub(super) struct Watch(Arc<Mutex<VecDeque<bool>>>);

impl Watch {
    /// Of the next message that was given out.
    pub(super) fn is_binary(&self) -> bool {
        self.0.lock().unwrap().pop_front().expect("a message was seen before it was given out")
    }
}

/// A stream whose reader's frames are looked at: what comes out of a connection no longer says how it was sent.
pub(super) struct Watched<S> {
    io: S,
    watch: Watch,
    /// Bytes of a head, of HTTP or of a frame, that is not whole yet.
    begun: Vec<u8>,
    is_upgraded: bool,
    /// Bytes of a payload still to come.
    payload: u64,
}

impl<S> Watched<S> {
    pub(super) fn new(io: S, watch: Watch) -> Self {
        Self { io, watch, begun: Vec::new(), is_upgraded: false, payload: 0 }
    }

    fn look(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.payload > 0 {
                let n = bytes.len().min(usize::try_from(self.payload).unwrap_or(usize::MAX));
                bytes = &bytes[n..];
                self.payload -= n as u64;
                continue;
            }
            self.begun.push(bytes[0]);
            bytes = &bytes[1..];
            if !self.is_upgraded {
                self.is_upgraded = self.begun.ends_with(b"\r\n\r\n");
            } else if let Some(head) = FrameHead::parse(&self.begun).filter(|head| self.begun.len() >= head.header_bytes) {
                if let 1 | 2 = head.opcode {
                    self.watch.0.lock().unwrap().push_back(head.opcode == 2);
                }
                self.payload = head.payload_bytes;
            } else {
                continue;
            }
            if self.is_upgraded {
                self.begun.clear();
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        self.look(&buf.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
