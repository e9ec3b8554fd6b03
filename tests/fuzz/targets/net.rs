//! What comes over a connection: requests to the fake providers, and answers and frames from a provider.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use birdtape::model::{Endpoint, Opening, Request, Secret, Transport, UnixMicros};
use birdtape::net::{
    BoxedIo, Connecting, Incoming, Limits, Network, Reply, ServerOptions, ServerRequest, ServerSocket, open, request, serve_pipe,
};
use birdtape::provider::past::{Index, Past};
use birdtape::provider::{
    Answer, Asked, Provider, Rest, RestSettings, Server, ServerSettings, decode, is_live_path, provider_of_path,
};
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// A virtual clock: nothing waits.
fn run<T>(work: impl Future<Output = T>) -> T {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    }
    RUNTIME.with(|runtime| runtime.block_on(work))
}

/// A peer that says what it was given, in pieces of some length, and then no more.
struct Peer {
    said: Vec<u8>,
    at: usize,
    piece: usize,
    /// What came so far of a request that is waited for before anything is said.
    heard: Option<Vec<u8>>,
    /// Whether that is answered with an upgrade first.
    is_upgrading: bool,
    waits: Option<Waker>,
}

impl Peer {
    fn new(said: &[u8], piece: usize) -> Self {
        Self { said: said.to_vec(), at: 0, piece: piece.max(1), heard: None, is_upgrading: false, waits: None }
    }

    /// Waits for a request.
    fn answering(said: &[u8], piece: usize) -> Self {
        Self { heard: Some(Vec::new()), ..Self::new(said, piece) }
    }

    /// Accepts an upgrade first, whose answer depends on the request.
    fn upgrading(said: &[u8], piece: usize) -> Self {
        Self { is_upgrading: true, ..Self::answering(said, piece) }
    }

    /// The upgrade, when the request is whole; nothing, when it is another.
    fn upgrade(&self, heard: &[u8]) -> Option<String> {
        let text = std::str::from_utf8(heard).ok().filter(|text| text.ends_with("\r\n\r\n"))?;
        if !self.is_upgrading {
            return Some(String::new());
        }
        let key = text.lines().find_map(|line| line.strip_prefix("sec-websocket-key: "))?;
        let accept = derive_accept_key(key.as_bytes());
        Some(format!(
            "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: {accept}\r\n\r\n"
        ))
    }
}

impl AsyncRead for Peer {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.heard.is_some() {
            self.waits = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let end = self.said.len().min(self.at + self.piece.min(buf.remaining()));
        buf.put_slice(&self.said[self.at..end]);
        self.at = end;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Peer {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if let Some(mut heard) = self.heard.take() {
            heard.extend_from_slice(bytes);
            let upgrade = self.upgrade(&heard);
            self.heard = upgrade.is_none().then_some(heard);
            if let Some(answer) = upgrade {
                let said = [answer.as_bytes(), &self.said].concat();
                self.said = said;
                if let Some(waker) = self.waits.take() {
                    waker.wake();
                }
            }
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A network that leads to one peer.
struct Way(Mutex<Option<Peer>>);

impl Network for Way {
    fn connect<'a>(&'a self, _: &'a Endpoint) -> Connecting<'a> {
        let peer = self.0.lock().expect("one thread").take().expect("one connection");
        Box::pin(async move { Ok(Box::new(peer) as BoxedIo) })
    }
}

const MESSAGE_BYTES_MAX: usize = 600;

fn limits() -> Limits {
    Limits { message_bytes_max: MESSAGE_BYTES_MAX, header_bytes_max: 8 << 10, response_bytes_max: 4 << 10, ..Limits::default() }
}

fn opening(transport: Transport) -> Opening {
    let endpoint = Endpoint { tls: false, host: "127.0.0.1".to_owned(), port: 80 };
    let target = Secret::new("/live?key=planted-key-1234").expect("it is not empty");
    Opening { transport, endpoint, target, headers: Vec::new(), shown: "ws://127.0.0.1/live".to_owned() }
}

/// Everything that comes, and how it ends: without what depends on how the bytes were cut, as the words of a refusal.
fn received(peer: Peer, transport: Transport) -> Option<(Vec<Bytes>, String)> {
    let way = Way(Mutex::new(Some(peer)));
    run(async {
        let mut opened = open(&way, &opening(transport), &limits()).await.ok()?;
        let mut messages = Vec::new();
        loop {
            match opened.live.next().await {
                Incoming::Message(bytes) => {
                    assert!(bytes.len() <= MESSAGE_BYTES_MAX);
                    messages.push(bytes);
                }
                Incoming::Alive => {}
                Incoming::Closed { code, reason } => return Some((messages, format!("closed {code:?} {reason}"))),
                Incoming::Broken { fault, .. } => return Some((messages, format!("broken {}", fault.name()))),
            }
        }
    })
}

/// A provider's answer, and what follows it. The first byte chooses what is asked for, the second how the bytes are cut; that
/// must make no difference.
pub(super) fn client(data: &[u8]) -> bool {
    let [mode, piece, said @ ..] = data else { return false };
    let head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
    let piece = usize::from(*piece);
    let peer = |piece: usize| match mode % 5 {
        0 => (Peer::answering(&[head, said].concat(), piece), Transport::Stream),
        1 => (Peer::upgrading(said, piece), Transport::WebSocket),
        2 => (Peer::answering(said, piece), Transport::Stream),
        _ => (Peer::answering(said, piece), Transport::WebSocket),
    };
    if mode % 5 == 4 {
        let Opening { endpoint, target, shown, .. } = opening(Transport::Stream);
        let asked = Request { method: "GET", endpoint, target, headers: Vec::new(), body: String::new(), shown };
        let answer = |piece| {
            let way = Way(Mutex::new(Some(Peer::answering(said, piece))));
            run(request(&way, &asked, &limits()))
        };
        let (whole, cut) = (answer(1 << 20), answer(piece));
        assert_eq!(whole.as_ref().ok(), cut.as_ref().ok());
        return whole.is_ok_and(|response| response.body.len() <= limits().response_bytes_max);
    }
    let heard = |piece| {
        let (peer, transport) = peer(piece);
        received(peer, transport)
    };
    let (whole, cut) = (heard(1 << 20), heard(piece));
    assert_eq!(whole, cut, "in one piece, and in pieces of {piece} bytes");
    if mode % 5 == 0 {
        let (messages, _) = whole.as_ref().expect("the head is ours");
        let (mine, is_over) = split(said);
        assert!(is_over || *messages == mine, "{messages:?} instead of {mine:?}");
    }
    whole.is_some_and(|(messages, _)| !messages.is_empty())
}

/// Envelopes of an endless response, by the table of `lines.rs`; and whether something was over the limit.
fn split(said: &[u8]) -> (Vec<Bytes>, bool) {
    let (mut messages, mut event, mut is_over) = (Vec::new(), None::<Vec<&[u8]>>, false);
    let whole = said.iter().rposition(|byte| *byte == b'\n').map_or(&[][..], |end| &said[..=end]);
    let end_event = |event: &mut Option<Vec<&[u8]>>, messages: &mut Vec<Bytes>| {
        if let Some(lines) = event.take().filter(|lines| lines.len() > 1 || !lines[0].is_empty()) {
            messages.push(Bytes::from(lines.join(&b'\n')));
        }
    };
    is_over |= said.len() > MESSAGE_BYTES_MAX;
    for line in whole.split_inclusive(|byte| *byte == b'\n') {
        let line = &line[..line.len() - 1];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let (name, value) = match line.iter().position(|byte| *byte == b':') {
            Some(at) => (&line[..at], &line[at + 1..]),
            None => (line, &[][..]),
        };
        match (line, name) {
            ([], _) => end_event(&mut event, &mut messages),
            ([b':', ..], _) | (_, b"event" | b"id" | b"retry") => {}
            (_, b"data") => event.get_or_insert_default().push(value.strip_prefix(b" ").unwrap_or(value)),
            _ => {
                end_event(&mut event, &mut messages);
                messages.push(Bytes::copy_from_slice(line));
            }
        }
    }
    (messages, is_over)
}

/// What the fake providers know and remember.
struct World {
    servers: BTreeMap<&'static str, Server>,
    rests: BTreeMap<&'static str, (Rest, Index, Vec<Bytes>)>,
    n_asked: u64,
}

const NOW: UnixMicros = UnixMicros(1_793_606_400_000_000);

impl World {
    fn new(started: Instant) -> Self {
        let settings = RestSettings { rate_limits: false, real_time: Some((started, NOW)), ..RestSettings::default() };
        let mut world = Self { servers: BTreeMap::new(), rests: BTreeMap::new(), n_asked: 0 };
        for provider in Provider::ALL {
            world.servers.insert(provider.name(), Server::new(provider, ServerSettings::default()));
            world.rests.insert(provider.name(), (Rest::new(provider, settings.clone()), Index::default(), Vec::new()));
        }
        let all = include_str!("../../../fixtures/synthetic/mixed-400.jsonl");
        for envelope in all.lines().take(120) {
            let bytes = Bytes::from(envelope);
            let Some(provider) = birdtape::provider::recognise(&bytes) else { continue };
            let Some((_, index, shelf)) = world.rests.get_mut(provider.name()) else { continue };
            let decoded = decode(provider, &bytes);
            let at = decoded.provider_at.unwrap_or(NOW.minus(Duration::from_secs(3_600)));
            index.note(at, &decoded, shelf.len() as u64);
            shelf.push(bytes);
        }
        world
    }

    fn answer(&mut self, asked: &ServerRequest, now: Instant) -> Reply {
        let provider = provider_of_path(&asked.path).unwrap_or(Provider::TwitterapiIo);
        let question = Asked {
            method: &asked.method,
            path: &asked.path,
            query: &asked.query,
            headers: &asked.headers,
            body: &asked.body,
            wants_upgrade: asked.wants_upgrade,
        };
        self.n_asked += 1;
        if is_live_path(&asked.path) {
            let server = self.servers.get_mut(provider.name()).expect("there are four");
            let answer = server.asked(self.n_asked, &question, now);
            server.greeting(self.n_asked, None);
            server.gone(self.n_asked);
            return match answer {
                Answer::Http(response) => Reply::Http(response),
                Answer::WebSocket { subprotocol } => Reply::WebSocket { subprotocol, run: Box::new(|ws| Box::pin(listen(ws))) },
                Answer::WebSocketThenClose { .. } => Reply::Nothing,
                Answer::Stream { headers, .. } => Reply::Stream { headers, run: Box::new(|_| Box::pin(async {})) },
            };
        }
        let (rest, index, shelf) = self.rests.get_mut(provider.name()).expect("there are four");
        Reply::Http(rest.asked(&question, &mut Past::new(provider, index, shelf, NOW), now))
    }
}

/// Hears a client out.
async fn listen(mut socket: ServerSocket) {
    let started = now();
    let mut servers = Provider::ALL.map(|provider| Server::new(provider, ServerSettings::default()));
    loop {
        match socket.next().await {
            Incoming::Message(bytes) => {
                assert!(bytes.len() <= options().message_bytes_max);
                servers.iter_mut().for_each(|server| drop(server.heard(1, &bytes, started)));
            }
            Incoming::Alive => {}
            Incoming::Closed { .. } | Incoming::Broken { .. } => break,
        }
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

fn options() -> ServerOptions {
    ServerOptions { header_bytes_max: 8 << 10, body_bytes_max: 2 << 10, message_bytes_max: 1 << 10, ..ServerOptions::default() }
}

/// What a client sends: requests one after the other, and frames after an upgrade. The first byte says how it is cut.
pub(super) fn server(data: &[u8]) -> bool {
    let Some((piece, said)) = data.split_first() else { return false };
    let n_asked = Arc::new(Mutex::new(0));
    let peer = Box::new(Peer::new(said, usize::from(*piece)));
    let counted = Arc::clone(&n_asked);
    run(async move {
        let started = now();
        let world = Arc::new(Mutex::new(World::new(started)));
        let handler = move |asked: ServerRequest| {
            assert!(asked.body.len() <= options().body_bytes_max);
            let reply = world.lock().expect("one thread").answer(&asked, now());
            if let Reply::Http(response) = &reply {
                assert!((100..600).contains(&response.status), "{}", response.status);
            }
            *counted.lock().expect("one thread") += 1;
            std::future::ready(reply)
        };
        serve_pipe(peer, ([127, 0, 0, 1], 9).into(), Arc::new(handler), options()).await;
    });
    let n_asked = *n_asked.lock().expect("one thread");
    n_asked > 0
}
