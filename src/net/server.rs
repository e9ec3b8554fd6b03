//! The HTTP server of replays and of webhooks: answers, WebSockets and endless responses on one port.
//!
//! What to answer is the [`Handler`]'s affair, TLS that of `tls.rs`; this file keeps the bounds: headers, bodies, waiting
//! times, connections, and that a replay on loopback is reached under a loopback name only, so that
//! no web page can reach it through the browser (DNS rebinding, cross-site WebSocket).

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, SinkExt, StreamExt};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Frame;
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderName, HeaderValue, ORIGIN, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper::{HeaderMap, Method, StatusCode, Version};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::{Error, ProtocolError};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use super::live::close_frame;
use super::tls::{self, ServerIo, ServerTls};
use super::{BoxedIo, Gone, Incoming};
use crate::model::{NetFault, Response};

/// Chunks of an endless response that wait for the socket.
const STREAM_QUEUE: usize = 4;

/// Files that are no connections: the program's own, the tape's, and those that are open for a moment.
const FILES_OF_OURS: usize = 24;

/// Wait after a failed `accept`, such as when file descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Bounds of the server.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Connections at one time; the next gets status 503.
    pub max_connections: usize,
    /// Connections of one address at one time, so that nobody takes them all; whoever is on this machine may.
    pub max_connections_of_peer: usize,
    /// Bytes of a request's headers.
    pub header_bytes_max: usize,
    /// Bytes of a request's body; more gets status 413.
    pub body_bytes_max: usize,
    /// Bytes of a message from a client.
    pub message_bytes_max: usize,
    /// For the TLS handshake, for a request's headers, and again for its body.
    pub read_timeout: Duration,
    /// Between the shutdown and the end of what still runs.
    pub grace: Duration,
    /// Speaks TLS, and nothing else, as this server.
    pub tls: Option<ServerTls>,
    /// Serves every `Host` and `Origin`, also on loopback: for one behind a proxy, whose requests prove themselves.
    pub any_host: bool,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            max_connections: 1024,
            max_connections_of_peer: 256,
            header_bytes_max: 64 << 10,
            body_bytes_max: 1 << 20,
            message_bytes_max: 1 << 20,
            read_timeout: Duration::from_secs(10),
            grace: Duration::from_secs(2),
            tls: None,
            any_host: false,
        }
    }
}

/// A request, whole.
#[derive(Clone)]
pub struct ServerRequest {
    /// `GET`, `POST` …
    pub method: String,
    /// Path without the query.
    pub path: String,
    /// Query without the question mark; may be empty. May hold a key.
    pub query: String,
    /// Headers, names in lower case. May hold a key.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
    /// Whether it asks for a WebSocket as RFC 6455 wants it.
    pub wants_upgrade: bool,
    /// Who asks.
    pub peer: SocketAddr,
}

impl fmt::Debug for ServerRequest {
    /// Without what may hold a key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("ServerRequest");
        debug.field("method", &self.method).field("path", &self.path).field("peer", &self.peer).finish_non_exhaustive()
    }
}

/// What a WebSocket does from its upgrade to its end.
pub type SocketRun = Box<dyn FnOnce(ServerSocket) -> BoxFuture<'static, ()> + Send>;

/// What an endless response does from its headers to its end.
pub type StreamRun = Box<dyn FnOnce(ServerStream) -> BoxFuture<'static, ()> + Send>;

/// What to do with a request.
pub enum Reply {
    /// A plain answer.
    Http(Response),
    /// Switch to WebSocket; a request that did not ask for it gets status 426.
    WebSocket {
        /// The subprotocol to select.
        subprotocol: Option<String>,
        /// Then.
        run: SocketRun,
    },
    /// Status 200 and a body that lasts as long as `run`.
    Stream {
        /// Headers of the answer.
        headers: Vec<(String, String)>,
        /// Then.
        run: StreamRun,
    },
    /// An answer that promises its whole body, of which only the first `n_bytes` come.
    Cut {
        /// The answer.
        response: Response,
        /// What comes of its body.
        n_bytes: usize,
    },
    /// An upgrade that no client should accept.
    Flawed(HandshakeFlaw),
    /// No answer: the connection is closed.
    Nothing,
}

/// What is wrong with an upgrade, on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeFlaw {
    /// The accept value belongs to another key.
    Accept,
    /// A subprotocol nobody offered is selected.
    Subprotocol,
    /// It speaks HTTP/1.0.
    Http10,
    /// A web page with status 200 instead.
    Page,
    /// Bytes that are no HTTP at all.
    Garbage,
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(response) => f.debug_tuple("Http").field(&response.status).finish(),
            Self::WebSocket { .. } => f.write_str("WebSocket"),
            Self::Stream { .. } => f.write_str("Stream"),
            Self::Cut { n_bytes, .. } => f.debug_tuple("Cut").field(n_bytes).finish(),
            Self::Flawed(flaw) => f.debug_tuple("Flawed").field(flaw).finish(),
            Self::Nothing => f.write_str("Nothing"),
        }
    }
}

/// Answers requests; a closure of `ServerRequest` to a future of [`Reply`] is one.
pub trait Handler: Send + Sync + 'static {
    /// Decides about a request. Bounds, upgrades and foreign origins were looked at before.
    fn handle(self: Arc<Self>, asked: ServerRequest) -> BoxFuture<'static, Reply>;
}

impl<F, Fut> Handler for F
where
    F: Fn(ServerRequest) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Reply> + Send + 'static,
{
    fn handle(self: Arc<Self>, asked: ServerRequest) -> BoxFuture<'static, Reply> {
        Box::pin(self(asked))
    }
}

/// Serves until `shutdown` is ready, then lets what runs end within [`ServerOptions::grace`] and stops the rest.
///
/// # Errors
///
/// The listener has no address. A connection that fails harms no other.
pub async fn serve<H: Handler>(
    listener: TcpListener,
    handler: Arc<H>,
    options: ServerOptions,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let loopback_only = !options.any_host && listener.local_addr()?.ip().to_canonical().is_loopback();
    let (stage, stages) = watch::channel(Stage::Serving);
    // Every task holds a sender; the channel ends when the last task has.
    let (alive, mut all_gone) = mpsc::channel(1);
    let limits = (options.max_connections.min(files_to_spare()), options.max_connections_of_peer);
    let room = Arc::new(Semaphore::new(limits.0));
    let crowd = Crowd::default();
    let grace = options.grace;
    let house = Arc::new(House { handler, options, loopback_only });
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            accepted = listener.accept() => accepted,
        };
        let (tcp, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let entered = match Arc::clone(&room).try_acquire_owned() {
            Err(_) => Err(format!("{} connections are open, which is the limit", limits.0)),
            Ok(permit) => match crowd.enter(peer.ip(), limits.1) {
                None => Err(format!("{} connections of your address are open, which is the limit", limits.1)),
                Some(place) => Ok((permit, place)),
            },
        };
        let entered = match entered {
            Ok(entered) => entered,
            Err(why) => {
                tracing::debug!(%peer, why, "turned away");
                // Without a handshake there is nothing that a TLS client would understand.
                if house.options.tls.is_none() {
                    turn_away(&tcp, &why);
                }
                continue;
            }
        };
        let tasks = Tasks { stages: stages.clone(), alive: alive.clone() };
        let connection = welcome(tcp, peer, Arc::clone(&house), tasks.clone());
        tasks.spawn(async move {
            connection.await;
            drop(entered);
        });
    }
    drop(listener);
    drop(alive);
    stage.send_replace(Stage::Leaving);
    if timeout(grace, all_gone.recv()).await.is_err() {
        stage.send_replace(Stage::Over);
        all_gone.recv().await;
    }
    Ok(())
}

/// Connections for which the system lets us have files, with some left for what they ask for.
fn files_to_spare() -> usize {
    #[cfg(unix)]
    {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX).saturating_sub(FILES_OF_OURS).max(1))
    }
    #[cfg(not(unix))]
    usize::MAX
}

/// Serves one connection that is there already, without TLS, to its end; dropped, it ends at once. For pipes in memory.
///
/// `peer` is whom [`ServerRequest`] will name. Every `Host` is served.
pub async fn serve_pipe<H: Handler>(io: BoxedIo, peer: SocketAddr, handler: Arc<H>, options: ServerOptions) {
    let (stage, stages) = watch::channel(Stage::Serving);
    let (alive, mut all_gone) = mpsc::channel(1);
    let house = Arc::new(House { handler, options, loopback_only: false });
    connection(ServerIo::Pipe(io), peer, house, Tasks { stages, alive }).await;
    // Endless responses run beside it, and see its end by themselves; without this end they end where they stand.
    all_gone.recv().await;
    drop(stage);
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Serving,
    Leaving,
    Over,
}

/// Starts tasks that end with the server.
#[derive(Clone)]
struct Tasks {
    stages: watch::Receiver<Stage>,
    alive: mpsc::Sender<()>,
}

impl Tasks {
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let Self { mut stages, alive } = self.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = task => {}
                // A sender that is gone is over, too.
                _ = stages.wait_for(|stage| *stage == Stage::Over) => {}
            }
            drop(alive);
        });
    }
}

struct House<H> {
    handler: Arc<H>,
    options: ServerOptions,
    loopback_only: bool,
}

/// How many connections each address has.
#[derive(Clone, Default)]
struct Crowd(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// A connection that is counted until this is dropped.
struct Place {
    crowd: Crowd,
    peer: IpAddr,
}

impl Crowd {
    /// Counts one more in; `None` when there are that many. On this machine everybody has the same address, so there nobody
    /// is counted.
    fn enter(&self, peer: IpAddr, most: usize) -> Option<Place> {
        let peer = peer.to_canonical();
        if !peer.is_loopback() {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let n_open = all.entry(peer).or_default();
            if *n_open >= most {
                return None;
            }
            *n_open += 1;
        }
        Some(Place { crowd: self.clone(), peer })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut all = self.crowd.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(n_open) = all.get_mut(&self.peer) {
            *n_open -= 1;
            if *n_open == 0 {
                all.remove(&self.peer);
            }
        }
    }
}

fn turn_away(tcp: &TcpStream, why: &str) {
    let head = "HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\nretry-after: 1\r\ncontent-type: text/plain";
    let answer = format!("{head}\r\ncontent-length: {}\r\n\r\n{why}\n", why.len() + 1);
    // Best effort: whoever cannot take these bytes at once is closed without them.
    if let Err(error) = tcp.try_write(answer.as_bytes()) {
        tracing::debug!(%error, "turned away without a word");
    }
}

/// An upgrade that was promised, to be fulfilled when HTTP has let go of the connection.
type Promised = Arc<Mutex<Option<(OnUpgrade, SocketRun)>>>;

/// Bytes that go out in the place of whatever HTTP says from then on.
type Instead = Arc<Mutex<Option<Bytes>>>;

/// A stream under HTTP whose words can be replaced, for answers that are no HTTP.
struct Replaceable<T> {
    io: T,
    instead: Instead,
}

impl<T: AsyncWrite + Unpin> Replaceable<T> {
    /// Writes what stands in the place of `n_said` bytes; `None` when nothing does.
    fn poll_instead(&mut self, cx: &mut Context<'_>, n_said: usize) -> Option<Poll<io::Result<usize>>> {
        let mut instead = self.instead.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = instead.as_mut()?;
        while !bytes.is_empty() {
            match Pin::new(&mut self.io).poll_write(cx, bytes) {
                Poll::Ready(Ok(n)) => bytes.advance(n),
                other => return Some(other),
            }
        }
        Some(Poll::Ready(Ok(n_said)))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Replaceable<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Replaceable<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.poll_instead(cx, buf.len()) {
            Some(written) => written,
            None => Pin::new(&mut self.io).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self.poll_instead(cx, bufs.iter().map(|buf| buf.len()).sum()) {
            Some(written) => written,
            None => Pin::new(&mut self.io).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

async fn welcome<H: Handler>(tcp: TcpStream, peer: SocketAddr, house: Arc<House<H>>, tasks: Tasks) {
    if let Err(error) = tcp.set_nodelay(true) {
        tracing::debug!(%error, "no nodelay");
    }
    let io = tls::accept(tcp, house.options.tls.as_ref(), house.options.read_timeout).await;
    if let Some(io) = io {
        connection(io, peer, house, tasks).await;
    }
}

/// One connection: HTTP first, and a WebSocket after it if that was agreed upon.
async fn connection<H: Handler>(io: ServerIo, peer: SocketAddr, house: Arc<House<H>>, tasks: Tasks) {
    let promised = Promised::default();
    let instead = Instead::default();
    let io = Replaceable { io, instead: Arc::clone(&instead) };
    let config = socket_config(&house.options);
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(house.options.read_timeout)
        .max_buf_size(house.options.header_bytes_max.max(8192))
        .max_header_size(house.options.header_bytes_max)
        .auto_date_header(false);
    let mut stages = tasks.stages.clone();
    let service = service_fn(|request| {
        answer(request, peer, Arc::clone(&house), tasks.clone(), Arc::clone(&promised), Arc::clone(&instead))
    });
    {
        let mut http = pin!(builder.serve_connection(TokioIo::new(io), service).with_upgrades());
        let mut leaving = false;
        loop {
            tokio::select! {
                ended = &mut http => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "connection ended");
                    }
                    break;
                }
                _ = stages.wait_for(|stage| *stage != Stage::Serving), if !leaving => {
                    leaving = true;
                    http.as_mut().graceful_shutdown();
                }
            }
        }
    }
    let agreed = promised.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some((upgrade, run)) = agreed {
        match upgrade.await.map(hyper::upgrade::Upgraded::downcast::<TokioIo<Replaceable<ServerIo>>>) {
            Ok(Ok(parts)) => run(ServerSocket::new(parts.io.into_inner().io, parts.read_buf.to_vec(), config).await).await,
            Ok(Err(_)) => tracing::error!("an upgraded connection is not the one that was accepted"),
            Err(error) => tracing::debug!(%error, "upgrade failed"),
        }
    }
}

type Body = BoxBody<Bytes, io::Error>;

/// Closes the connection without an answer.
#[derive(Debug, thiserror::Error)]
#[error("no answer on purpose")]
struct NoAnswer;

async fn answer<H: Handler>(
    mut request: hyper::Request<hyper::body::Incoming>,
    peer: SocketAddr,
    house: Arc<House<H>>,
    tasks: Tasks,
    promised: Promised,
    instead: Instead,
) -> Result<hyper::Response<Body>, NoAnswer> {
    if house.loopback_only && !is_from_here(request.headers()) {
        return Ok(words(StatusCode::FORBIDDEN, "this server answers to loopback names only; foreign Host or Origin"));
    }
    let upgrade = wants_upgrade(&request).then(|| hyper::upgrade::on(&mut request));
    let accept = request.headers().get(SEC_WEBSOCKET_KEY).map(|key| derive_accept_key(key.as_bytes()));
    let asked = match read_request(request, upgrade.is_some(), peer, &house.options).await {
        Ok(asked) => asked,
        Err((status, text)) => return Ok(words(status, text)),
    };
    match Arc::clone(&house.handler).handle(asked).await {
        Reply::Http(response) => Ok(plain(response)),
        Reply::Cut { response, n_bytes } => Ok(cut(response, n_bytes)),
        Reply::Flawed(flaw) => {
            if flaw == HandshakeFlaw::Garbage {
                let garbage = Bytes::from_static(b"SSH-2.0-OpenSSH_9.9\r\n");
                *instead.lock().unwrap_or_else(PoisonError::into_inner) = Some(garbage);
            }
            Ok(flawed(flaw, accept))
        }
        Reply::Nothing => Err(NoAnswer),
        Reply::Stream { headers, run } => {
            let (sender, receiver) = mpsc::channel(STREAM_QUEUE);
            tasks.spawn(run(ServerStream { sender }));
            let mut response = hyper::Response::new(ChannelBody { receiver, cut: None }.boxed());
            add_headers(response.headers_mut(), headers);
            Ok(response)
        }
        Reply::WebSocket { subprotocol, run } => {
            let (Some(upgrade), Some(accept)) = (upgrade, accept) else {
                let mut response = words(StatusCode::UPGRADE_REQUIRED, "this is a WebSocket; ask for an upgrade, version 13");
                response.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
                response.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
                return Ok(response);
            };
            *promised.lock().unwrap_or_else(PoisonError::into_inner) = Some((upgrade, run));
            let mut response = hyper::Response::new(empty());
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            let headers = response.headers_mut();
            headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
            let mut chosen = vec![(SEC_WEBSOCKET_ACCEPT.to_string(), accept)];
            chosen.extend(subprotocol.map(|name| (SEC_WEBSOCKET_PROTOCOL.to_string(), name)));
            add_headers(headers, chosen);
            Ok(response)
        }
    }
}

fn cut(mut response: Response, n_bytes: usize) -> hyper::Response<Body> {
    let whole = std::mem::take(&mut response.body);
    response.headers.push((CONTENT_LENGTH.to_string(), whole.len().to_string()));
    let (sender, receiver) = mpsc::channel(2);
    let broken = io::Error::from(io::ErrorKind::ConnectionAborted);
    for part in [Ok(whole.slice(..n_bytes.min(whole.len()))), Err(broken)] {
        // There is room for both.
        drop(sender.try_send(part));
    }
    plain(response).map(|_| ChannelBody { receiver, cut: None }.boxed())
}

/// After it the connection ends, because nobody has promised to run it.
fn flawed(flaw: HandshakeFlaw, accept: Option<String>) -> hyper::Response<Body> {
    if let HandshakeFlaw::Page | HandshakeFlaw::Garbage = flaw {
        let mut page = words(StatusCode::OK, "<!doctype html><title>Welcome</title><p>Please sign in to this network.");
        page.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        page.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html"));
        return page;
    }
    let accept = match flaw {
        HandshakeFlaw::Accept => derive_accept_key(b"the key of somebody else"),
        _ => accept.unwrap_or_default(),
    };
    let mut list = vec![
        (CONNECTION.to_string(), "Upgrade".to_owned()),
        (UPGRADE.to_string(), "websocket".to_owned()),
        (SEC_WEBSOCKET_ACCEPT.to_string(), accept),
    ];
    if flaw == HandshakeFlaw::Subprotocol {
        list.push((SEC_WEBSOCKET_PROTOCOL.to_string(), "nobody.offered.this".to_owned()));
    }
    let mut response = hyper::Response::new(empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    if flaw == HandshakeFlaw::Http10 {
        *response.version_mut() = Version::HTTP_10;
    }
    add_headers(response.headers_mut(), list);
    response
}

async fn read_request(
    request: hyper::Request<hyper::body::Incoming>,
    wants_upgrade: bool,
    peer: SocketAddr,
    options: &ServerOptions,
) -> Result<ServerRequest, (StatusCode, &'static str)> {
    let (head, body) = request.into_parts();
    let collected = timeout(options.read_timeout, Limited::new(body, options.body_bytes_max).collect())
        .await
        .map_err(|_| (StatusCode::REQUEST_TIMEOUT, "the body did not come in time"))?;
    let body = collected.map_err(|error| match error.downcast_ref::<LengthLimitError>() {
        Some(_) => (StatusCode::PAYLOAD_TOO_LARGE, "the body is over the limit"),
        None => (StatusCode::BAD_REQUEST, "the body broke off"),
    })?;
    let headers = head.headers.iter();
    Ok(ServerRequest {
        method: head.method.as_str().to_owned(),
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        headers: headers.map(|(n, v)| (n.as_str().to_owned(), String::from_utf8_lossy(v.as_bytes()).into_owned())).collect(),
        body: body.to_bytes(),
        wants_upgrade,
        peer,
    })
}

/// RFC 6455, section 4.2.1.
fn wants_upgrade(request: &hyper::Request<hyper::body::Incoming>) -> bool {
    let headers = request.headers();
    let says = |name: HeaderName, word: &str| {
        let mut tokens = headers.get_all(name).iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(','));
        tokens.any(|token| token.trim().eq_ignore_ascii_case(word))
    };
    request.method() == Method::GET
        && request.version() == Version::HTTP_11
        && says(UPGRADE, "websocket")
        && says(CONNECTION, "upgrade")
        && says(SEC_WEBSOCKET_VERSION, "13")
        && headers.contains_key(SEC_WEBSOCKET_KEY)
}

/// Whether `Host` and, if there is one, `Origin` are loopback names.
fn is_from_here(headers: &HeaderMap) -> bool {
    let host = headers.get(HOST).and_then(|v| v.to_str().ok()).is_some_and(is_loopback_authority);
    let mut origins = headers.get_all(ORIGIN).iter();
    host && origins.all(|origin| {
        let authority = origin.to_str().ok().and_then(|text| text.split_once("://")).map(|(_, authority)| authority);
        authority.is_some_and(is_loopback_authority)
    })
}

fn is_loopback_authority(authority: &str) -> bool {
    let host = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, _)) => host,
        None => authority.split_once(':').map_or(authority, |(host, _)| host),
    };
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

fn empty() -> Body {
    Full::new(Bytes::new()).map_err(|never: Infallible| match never {}).boxed()
}

fn words(status: StatusCode, text: &'static str) -> hyper::Response<Body> {
    plain(Response { status: status.as_u16(), headers: Vec::new(), body: Bytes::from_static(text.as_bytes()) })
}

fn plain(response: Response) -> hyper::Response<Body> {
    let body = Full::new(response.body).map_err(|never: Infallible| match never {}).boxed();
    let mut answer = hyper::Response::new(body);
    // A status below 200 is no end of a request; whoever asks for one gets an error.
    let status = StatusCode::from_u16(response.status).ok().filter(|status| status.as_u16() >= 200);
    *answer.status_mut() = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    add_headers(answer.headers_mut(), response.headers);
    answer
}

/// Adds what can be sent; replaces what hyper or this file would say, except for repeated names in the list.
fn add_headers(headers: &mut HeaderMap, list: Vec<(String, String)>) {
    let mut seen = HashSet::new();
    for (name, value) in list {
        let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(&value)) else {
            tracing::warn!(name, "a header that cannot be sent was left out");
            continue;
        };
        if seen.insert(name.clone()) {
            headers.insert(name, value);
        } else {
            headers.append(name, value);
        }
    }
}

struct ChannelBody {
    receiver: mpsc::Receiver<Result<Bytes, io::Error>>,
    cut: Option<io::Error>,
}

impl hyper::body::Body for ChannelBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = self.get_mut();
        if let Some(error) = this.cut.take() {
            return Poll::Ready(Some(Err(error)));
        }
        match ready!(this.receiver.poll_recv(cx)) {
            // hyper writes its buffer only while the body has nothing, and an error would throw it away.
            Some(Err(error)) => {
                this.cut = Some(error);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            chunk => Poll::Ready(chunk.map(|chunk| chunk.map(Frame::data))),
        }
    }
}

/// The sending side of an endless response; it ends in order when this is dropped.
#[derive(Debug)]
pub struct ServerStream {
    sender: mpsc::Sender<Result<Bytes, io::Error>>,
}

impl ServerStream {
    /// Sends one chunk, which may hold many envelopes; waits while the client is slow.
    ///
    /// # Errors
    ///
    /// The client is gone.
    pub async fn send(&mut self, chunk: Bytes) -> Result<(), Gone> {
        // An empty chunk would end the response.
        if chunk.is_empty() {
            return Ok(());
        }
        self.sender.send(Ok(chunk)).await.map_err(|_| Gone)
    }

    /// Waits until all chunks went into HTTP's own buffer, which is written at once when the socket takes it.
    ///
    /// # Errors
    ///
    /// The client is gone.
    pub async fn flush(&mut self) -> Result<(), Gone> {
        self.sender.reserve_many(STREAM_QUEUE).await.map(drop).map_err(|_| Gone)
    }

    /// Ready when the client is gone.
    pub async fn gone(&self) {
        self.sender.closed().await;
    }

    /// Cuts the response off without its end, after the chunks sent before.
    pub async fn abort(self) {
        // A client that is gone already needs no cut.
        drop(self.sender.send(Err(io::Error::from(io::ErrorKind::ConnectionAborted))).await);
    }
}

fn socket_config(options: &ServerOptions) -> WebSocketConfig {
    WebSocketConfig::default()
        // Per connection, so small: clients say little.
        .read_buffer_size(8 << 10)
        .write_buffer_size(128 << 10)
        .max_message_size(Some(options.message_bytes_max))
        .max_frame_size(Some(options.message_bytes_max))
}

/// The server's end of a WebSocket.
///
/// Reading and writing may take turns in one task: [`next`](Self::next) may be dropped while it waits.
pub struct ServerSocket {
    ws: WebSocketStream<ServerIo>,
    ended: bool,
}

impl fmt::Debug for ServerSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerSocket").field("ended", &self.ended).finish_non_exhaustive()
    }
}

impl ServerSocket {
    async fn new(io: ServerIo, early: Vec<u8>, config: WebSocketConfig) -> Self {
        let ws = WebSocketStream::from_partially_read(io, early, Role::Server, Some(config)).await;
        Self { ws, ended: false }
    }

    /// Queues a message; it goes out when 128 KiB are together or at [`flush`](Self::flush).
    ///
    /// A text message, except that a payload that is not UTF-8 goes out as a binary one: its bytes
    /// arrive all the same, which a text message's would not.
    ///
    /// # Errors
    ///
    /// The client is gone.
    pub async fn feed(&mut self, payload: Bytes) -> Result<(), Gone> {
        let message = match Utf8Bytes::try_from(payload.clone()) {
            Ok(text) => Message::Text(text),
            Err(_) => Message::Binary(payload),
        };
        self.ws.feed(message).await.map_err(gone)
    }

    /// Writes what is queued; waits while the client is slow.
    ///
    /// # Errors
    ///
    /// The client is gone.
    pub async fn flush(&mut self) -> Result<(), Gone> {
        self.ws.flush().await.map_err(gone)
    }

    /// Sends a ping, and what is queued before it.
    ///
    /// # Errors
    ///
    /// The client is gone.
    pub async fn ping(&mut self) -> Result<(), Gone> {
        self.ws.send(Message::Ping(Bytes::new())).await.map_err(gone)
    }

    /// Takes leave: sends what is queued and a close frame; [`next`](Self::next) gives the client's answer.
    ///
    /// # Errors
    ///
    /// The client is gone.
    pub async fn close(&mut self, code: u16, reason: &str) -> Result<(), Gone> {
        self.ws.send(Message::Close(Some(close_frame(code, reason)))).await.map_err(gone)
    }

    /// Sends bytes past the encoder, after what is queued: for faults on purpose.
    ///
    /// # Errors
    ///
    /// The client is gone.
    pub async fn send_raw(&mut self, bytes: &[u8]) -> Result<(), Gone> {
        self.flush().await?;
        let io = self.ws.get_mut();
        io.write_all(bytes).await.map_err(|_| Gone)?;
        // TLS keeps what the socket did not take at once.
        io.flush().await.map_err(|_| Gone)
    }

    /// Reads and throws away whatever comes, and answers nothing, until the client is gone. May be dropped while it
    /// waits; after it the connection can only be aborted, because the decoder has lost its place.
    pub async fn ignore(&mut self) {
        let mut scratch = [0; 4096];
        let tcp = self.ws.get_mut();
        while !matches!(tcp.read(&mut scratch).await, Ok(0) | Err(_)) {}
    }

    /// Resets the TCP connection: the client sees neither a close frame nor an end.
    pub fn abort(mut self) {
        self.ws.get_mut().reset_at_end();
    }

    /// Waits for what the client says; pings are answered in here.
    ///
    /// May be dropped while it waits without losing anything. `kept` is always empty.
    pub async fn next(&mut self) -> Incoming {
        let broken = |fault, detail: String| Incoming::Broken { fault, detail, kept: Bytes::new() };
        if self.ended {
            return broken(NetFault::Reset, "the connection has ended before".to_owned());
        }
        let incoming = match self.ws.next().await {
            Some(Ok(Message::Text(text))) => return Incoming::Message(Bytes::from(text)),
            Some(Ok(Message::Binary(bytes))) => return Incoming::Message(bytes),
            Some(Ok(Message::Close(frame))) => {
                let code = frame.as_ref().map(|frame| u16::from(frame.code));
                Incoming::Closed { code, reason: frame.map(|frame| frame.reason.as_str().to_owned()).unwrap_or_default() }
            }
            Some(Ok(_)) => return Incoming::Alive,
            Some(Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)) | Err(Error::Io(_))) | None => {
                broken(NetFault::Reset, "the client ended the connection without a farewell".to_owned())
            }
            Some(Err(Error::Utf8(_))) => broken(NetFault::InvalidUtf8, "a text frame is not UTF-8".to_owned()),
            Some(Err(Error::Capacity(error))) => broken(NetFault::Oversized, error.to_string()),
            Some(Err(error)) => broken(NetFault::Malformed, error.to_string()),
        };
        self.ended = true;
        if matches!(incoming, Incoming::Closed { .. }) {
            // The answer to the client's farewell is queued; the socket takes so small a frame at once or not at all.
            drop(self.ws.flush().now_or_never());
        }
        incoming
    }
}

fn gone(error: Error) -> Gone {
    tracing::debug!(%error, "client gone");
    Gone
}

#[cfg(test)]
mod conformance;

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::sync::oneshot;

    use super::*;
    use crate::model::{Endpoint, Opening, Request, Secret, Transport};
    use crate::net::{Limits, Live, OpenError, SystemNetwork, TlsOptions, open, request};

    struct Running {
        port: u16,
        ca: Option<tempfile::NamedTempFile>,
        stop: oneshot::Sender<()>,
        served: tokio::task::JoinHandle<io::Result<()>>,
    }

    impl Running {
        async fn start<H: Handler>(handler: H, options: ServerOptions) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let ca = options.tls.as_ref().map(|tls| {
                let file = tempfile::NamedTempFile::new().unwrap();
                std::fs::write(file.path(), tls.ca_pem()).unwrap();
                file
            });
            let (stop, stopped) = oneshot::channel();
            let shutdown = async move { drop(stopped.await) };
            let served = tokio::spawn(serve(listener, Arc::new(handler), options, shutdown));
            Self { port, ca, stop, served }
        }

        fn endpoint(&self) -> Endpoint {
            Endpoint { tls: self.ca.is_some(), host: "127.0.0.1".to_owned(), port: self.port }
        }

        fn network(&self) -> SystemNetwork {
            let ca_file = self.ca.as_ref().map(|file| file.path().to_owned());
            SystemNetwork::new(TlsOptions { ca_file, allow_plain: false }).unwrap()
        }

        async fn open(&self, transport: Transport) -> Result<Live, OpenError> {
            let opening = Opening {
                transport,
                endpoint: self.endpoint(),
                target: Secret::new("/live?x=1").unwrap(),
                headers: vec![("sec-websocket-protocol", Secret::new("a.v1").unwrap())],
                shown: String::new(),
            };
            open(&self.network(), &opening, &Limits::default()).await.map(|opened| opened.live)
        }

        async fn ask(&self, method: &'static str, headers: Vec<(&'static str, Secret)>, body: &str) -> Response {
            let asked = Request {
                method,
                endpoint: self.endpoint(),
                target: Secret::new("/path?query=1").unwrap(),
                headers,
                body: body.to_owned(),
                shown: String::new(),
            };
            request(&self.network(), &asked, &Limits::default()).await.unwrap()
        }

        /// The answer to raw bytes, until the server hangs up.
        async fn raw(&self, bytes: &[u8]) -> String {
            let mut tcp = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
            // Who refuses early does not read to the end.
            drop(tcp.write_all(bytes).await);
            let mut answer = Vec::new();
            // A reset after the answer is a hang-up as well.
            drop(tcp.read_to_end(&mut answer).await);
            String::from_utf8_lossy(&answer).into_owned()
        }

        async fn stop(self) {
            self.stop.send(()).unwrap();
            self.served.await.unwrap().unwrap();
        }
    }

    fn socket<F, Fut>(run: F) -> Reply
    where
        F: FnOnce(ServerSocket) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        Reply::WebSocket { subprotocol: Some("a.v1".to_owned()), run: Box::new(|socket| Box::pin(run(socket))) }
    }

    fn stream<F, Fut>(run: F) -> Reply
    where
        F: FnOnce(ServerStream) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let headers = vec![("content-type".to_owned(), "text/event-stream".to_owned())];
        Reply::Stream { headers, run: Box::new(|stream| Box::pin(run(stream))) }
    }

    const MANY: usize = 10_000;

    fn envelope(idx: usize) -> Bytes {
        Bytes::from(format!("{{\"n\":{idx},\"text\":\"ü{}\"}}", "x".repeat(idx % 300)))
    }

    #[tokio::test]
    async fn ten_thousand_messages_arrive_equal_and_in_order() {
        let handler = |asked: ServerRequest| async move {
            assert!(asked.wants_upgrade && asked.query == "x=1");
            socket(|mut socket| async move {
                for idx in 0..MANY {
                    socket.feed(envelope(idx)).await.unwrap();
                }
                socket.feed(Bytes::from_static(b"not utf-8 \xff")).await.unwrap();
                socket.ping().await.unwrap();
                let heard = socket.next().await;
                assert_eq!(heard, Incoming::Message(Bytes::from_static(b"enough")));
                socket.close(1012, "restart").await.unwrap();
                while !matches!(socket.next().await, Incoming::Closed { code: Some(1012), .. }) {}
            })
        };
        let running = Running::start(handler, ServerOptions::default()).await;
        let mut live = running.open(Transport::WebSocket).await.unwrap();
        for idx in 0..MANY {
            assert_eq!(live.next().await, Incoming::Message(envelope(idx)));
        }
        assert_eq!(live.next().await, Incoming::Message(Bytes::from_static(b"not utf-8 \xff")));
        assert_eq!(live.next().await, Incoming::Alive);
        live.send_text("enough").await.unwrap();
        assert_eq!(live.next().await, Incoming::Closed { code: Some(1012), reason: "restart".to_owned() });
        running.stop().await;
    }

    #[tokio::test]
    async fn ten_thousand_envelopes_arrive_on_a_stream() {
        let handler = |_| async {
            stream(|mut stream| async move {
                for idx in 0..MANY {
                    let frame = [b"data: ", &envelope(idx)[..], b"\n\n"].concat();
                    stream.send(Bytes::from(frame)).await.unwrap();
                }
                stream.flush().await.unwrap();
                stream.gone().await;
            })
        };
        let running = Running::start(handler, ServerOptions::default()).await;
        let mut live = running.open(Transport::Stream).await.unwrap();
        for idx in 0..MANY {
            assert_eq!(live.next().await, Incoming::Message(envelope(idx)));
        }
        assert!(live.send_text("no").await.is_err());
        drop(live);
        // The server ends only when the stream's task has noticed that the client is gone.
        running.stop().await;
    }

    #[tokio::test]
    async fn resets_and_cuts_reach_the_client() {
        let handler = |asked: ServerRequest| async move {
            if asked.wants_upgrade {
                return socket(|mut socket| async move {
                    socket.send_raw(&[0x81, 0x05, b'h', b'a']).await.unwrap();
                    assert_eq!(socket.next().await, Incoming::Message(Bytes::from_static(b"go")));
                    socket.abort();
                });
            }
            stream(|mut stream| async move {
                stream.send(Bytes::from_static(b"{}\n{\"half")).await.unwrap();
                stream.abort().await;
            })
        };
        let running = Running::start(handler, ServerOptions::default()).await;
        let mut live = running.open(Transport::WebSocket).await.unwrap();
        live.send_text("go").await.unwrap();
        let Incoming::Broken { fault: NetFault::Reset, detail, .. } = live.next().await else { panic!("not reset") };
        assert!(detail.contains("lost"), "{detail}");

        let mut live = running.open(Transport::Stream).await.unwrap();
        assert_eq!(live.next().await, Incoming::Message(Bytes::from_static(b"{}")));
        let Incoming::Broken { fault: NetFault::Reset, kept, .. } = live.next().await else { panic!("not cut") };
        assert_eq!(&kept[..], b"{\"half");
        running.stop().await;
    }

    #[tokio::test]
    async fn plain_requests_are_answered_within_bounds() {
        let handler = |asked: ServerRequest| async move {
            let text = format!("{} {}?{} {}", asked.method, asked.path, asked.query, asked.body.len());
            let mut response = Response::json(200, text);
            response.headers.push(("x-broken".to_owned(), "a\nb".to_owned()));
            Reply::Http(response)
        };
        let options = ServerOptions { body_bytes_max: 1000, ..ServerOptions::default() };
        let running = Running::start(handler, options).await;
        let response = running.ask("POST", Vec::new(), "hello").await;
        assert_eq!((response.status, &response.body[..]), (200, &b"POST /path?query=1 5"[..]));
        assert_eq!((response.header("content-type"), response.header("date")), (Some("application/json"), None));
        assert_eq!(running.ask("POST", Vec::new(), &"x".repeat(1000)).await.status, 200);
        assert_eq!(running.ask("POST", Vec::new(), &"x".repeat(1001)).await.status, 413);

        let here = format!("GET / HTTP/1.1\r\nHost: localhost:{}\r\nConnection: close\r\n", running.port);
        assert!(running.raw(format!("{here}\r\n").as_bytes()).await.starts_with("HTTP/1.1 200 "));
        assert!(running.raw(format!("{here}Origin: http://[::1]:8080\r\n\r\n").as_bytes()).await.starts_with("HTTP/1.1 200 "));
        let foreign = [
            "GET / HTTP/1.1\r\nConnection: close\r\n\r\n".to_owned(),
            "GET / HTTP/1.1\r\nHost: evil.test\r\nConnection: close\r\n\r\n".to_owned(),
            "GET / HTTP/1.1\r\nHost: localhost.evil.test\r\nConnection: close\r\n\r\n".to_owned(),
            "GET / HTTP/1.1\r\nHost: 127.0.0.1.evil.test:80\r\nConnection: close\r\n\r\n".to_owned(),
            format!("{here}Origin: https://evil.test\r\n\r\n"),
            format!("{here}Origin: null\r\n\r\n"),
        ];
        for asked in foreign {
            assert!(running.raw(asked.as_bytes()).await.starts_with("HTTP/1.1 403 "), "{asked}");
        }
        let long = format!("{here}x: {}\r\n\r\n", "y".repeat(70_000));
        let answer = running.raw(long.as_bytes()).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{answer}");
        running.stop().await;
    }

    /// A masked frame of a client.
    fn masked(payload: &[u8]) -> Vec<u8> {
        let length = (payload.len() as u64).to_be_bytes();
        [&[0x82, 0xff], &length[..], &[0; 4], payload].concat()
    }

    #[tokio::test]
    async fn bounds_hold_at_the_limit_one_beyond_it_and_far_beyond() {
        let handler = |asked: ServerRequest| async move {
            match asked.wants_upgrade {
                true => socket(|mut socket| async move {
                    let said = match socket.next().await {
                        Incoming::Message(bytes) => format!("whole {}", bytes.len()),
                        Incoming::Broken { fault, .. } => format!("{fault:?}"),
                        other => format!("{other:?}"),
                    };
                    // Past the encoder, which says nothing more after a fault.
                    socket.send_raw(said.as_bytes()).await.ok();
                    socket.abort();
                }),
                false => Reply::Http(Response::json(200, format!("whole {}", asked.body.len()))),
            }
        };
        let options = ServerOptions { body_bytes_max: 1000, message_bytes_max: 1000, ..ServerOptions::default() };
        let running = Running::start(handler, options).await;
        let head =
            |words: &str| format!("POST / HTTP/1.1\r\nHost: localhost:{}\r\nConnection: close\r\n{words}\r\n", running.port);
        let upgrade = head("Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n")
            .replace("POST", "GET")
            .replace("close", "upgrade");
        for (n_bytes, fits) in [(1000, true), (1001, false), (1_000_000, false)] {
            let body = vec![b'x'; n_bytes];
            let said = running.raw(&[head(&format!("Content-Length: {n_bytes}\r\n")).as_bytes(), &body].concat()).await;
            let wanted = if fits { "HTTP/1.1 200 " } else { "HTTP/1.1 413 " };
            assert!(said.starts_with(wanted) || (!fits && said.is_empty()), "{n_bytes}: {said}");
            // Without a length it is counted as it comes.
            let chunked =
                head("Transfer-Encoding: chunked\r\n") + &format!("{n_bytes:x}\r\n{}\r\n0\r\n\r\n", "x".repeat(n_bytes));
            let said = running.raw(chunked.as_bytes()).await;
            assert!(said.starts_with(wanted) || (!fits && said.is_empty()), "{n_bytes}: {said}");
            let said = running.raw(&[upgrade.as_bytes(), &masked(&body)].concat()).await;
            let wanted = if fits { "whole 1000" } else { "Oversized" };
            assert!(said.ends_with(wanted) || (!fits && said.is_empty()), "{n_bytes}: {said}");
        }
        // An announced length that nobody could hold costs nothing.
        let huge = [upgrade.as_bytes(), &[0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]].concat();
        assert!(running.raw(&huge).await.ends_with("Oversized"));
        // Headers: hyper's own bound is on the whole head.
        for (n_bytes, fits) in [(60_000, true), (66_000, false), (6_000_000, false)] {
            let said = running.raw(head(&format!("x: {}\r\nContent-Length: 0\r\n", "y".repeat(n_bytes))).as_bytes()).await;
            let refused = said.is_empty() || said.starts_with("HTTP/1.1 431 ");
            assert_eq!((said.starts_with("HTTP/1.1 200 "), refused), (fits, !fits), "{n_bytes}: {said}");
            let line = head("Content-Length: 0\r\n").replace("POST /", &format!("POST /{}", "y".repeat(n_bytes)));
            let said = running.raw(line.as_bytes()).await;
            let refused = said.is_empty() || said.starts_with("HTTP/1.1 4");
            assert_eq!((said.starts_with("HTTP/1.1 200 "), refused), (fits, !fits), "{n_bytes}: {said}");
        }
        running.stop().await;
    }

    #[tokio::test]
    async fn a_connection_serves_whoever_asks_for_more() {
        let handler = |asked: ServerRequest| async move {
            Reply::Http(Response::json(200, format!("<{} {}>", asked.path, String::from_utf8_lossy(&asked.body))))
        };
        let short = Duration::from_millis(50);
        let options = ServerOptions { body_bytes_max: 100, read_timeout: short, ..ServerOptions::default() };
        let running = Running::start(handler, options).await;
        let asked = |version: &str, path: &str, body: &str, more: &str| {
            let (port, length) = (running.port, body.len());
            format!("POST {path} HTTP/{version}\r\nHost: localhost:{port}\r\nContent-Length: {length}\r\n{more}\r\n{body}")
        };
        let bodies = |answer: &str| {
            let bodies = answer.split('<').skip(1).filter_map(|rest| rest.split_once('>'));
            bodies.map(|(body, _)| body.to_owned()).collect::<Vec<_>>()
        };
        // All at once, answered one after the other; the end is the server's, in time.
        let many: String = (0..50).map(|n| asked("1.1", &format!("/{n}"), "x", "")).collect();
        let want: Vec<_> = (0..50).map(|n| format!("/{n} x")).collect();
        assert_eq!(bodies(&running.raw(many.as_bytes()).await), want);
        // Who does not want more gets no more, and the old version wants none unless it says so.
        let two = |version, more| asked(version, "/1", "", more) + &asked(version, "/2", "", "");
        assert_eq!(bodies(&running.raw(two("1.1", "Connection: close\r\n").as_bytes()).await), ["/1 "]);
        assert_eq!(bodies(&running.raw(two("1.0", "").as_bytes()).await), ["/1 "]);
        assert_eq!(bodies(&running.raw(two("1.0", "Connection: keep-alive\r\n").as_bytes()).await), ["/1 ", "/2 "]);
        // What is left of a body that was refused is no request.
        let inner = asked("1.1", "/inner", "", "").repeat(2);
        let answer = running.raw(asked("1.1", "/outer", &inner, "").as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 413 ") && bodies(&answer).is_empty(), "{answer}");
        // The bounds hold for every request, not for the first alone.
        let long = asked("1.1", "/1", "", "") + &asked("1.1", "/2", "", &format!("x: {}\r\n", "y".repeat(70_000)));
        assert_eq!(bodies(&running.raw(long.as_bytes()).await), ["/1 "]);
        running.stop().await;
    }

    #[tokio::test]
    async fn a_connection_without_a_request_does_not_hold_up_the_end() {
        let options = ServerOptions { grace: Duration::from_secs(3_600), ..ServerOptions::default() };
        let running = Running::start(|_| async { Reply::Http(Response::json(200, "{}")) }, options).await;
        let mut tcp = TcpStream::connect(("127.0.0.1", running.port)).await.unwrap();
        let asked = format!("GET / HTTP/1.1\r\nHost: localhost:{}\r\n\r\n", running.port);
        tcp.write_all(asked.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"{}") {
            answer.push(tcp.read_u8().await.unwrap());
        }
        running.stop().await;
        assert_eq!(tcp.read(&mut [0; 8]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn who_does_not_ask_for_an_upgrade_gets_none() {
        let handler = |asked: ServerRequest| async move {
            match asked.method.as_str() {
                "GET" => socket(|_| async {}),
                "PUT" => Reply::Http(Response { status: 101, ..Response::default() }),
                _ => Reply::Nothing,
            }
        };
        let running = Running::start(handler, ServerOptions::default()).await;
        let response = running.ask("GET", Vec::new(), "").await;
        assert_eq!((response.status, response.header("sec-websocket-version")), (426, Some("13")));
        assert_eq!(running.ask("PUT", Vec::new(), "").await.status, 500);
        let asked = format!("POST / HTTP/1.1\r\nHost: localhost:{}\r\nContent-Length: 0\r\n\r\n", running.port);
        assert_eq!(running.raw(asked.as_bytes()).await, "");
        running.stop().await;
    }

    #[tokio::test]
    async fn a_full_house_turns_away_and_the_shutdown_is_bounded() {
        let handler = |_| async {
            socket(|mut socket| async move {
                socket.feed(Bytes::from_static(b"in")).await.unwrap();
                socket.flush().await.unwrap();
                std::future::pending::<()>().await;
            })
        };
        let options = ServerOptions { max_connections: 1, grace: Duration::from_millis(20), ..ServerOptions::default() };
        let running = Running::start(handler, options).await;
        let mut live = running.open(Transport::WebSocket).await.unwrap();
        assert_eq!(live.next().await, Incoming::Message(Bytes::from_static(b"in")));
        let refused = running.raw(b"").await;
        assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
        assert!(refused.ends_with("\r\n\r\n1 connections are open, which is the limit\n"), "{refused}");
        running.stop().await;
        assert!(matches!(live.next().await, Incoming::Broken { fault: NetFault::Reset, .. }));
    }

    #[test]
    fn one_address_does_not_take_all_places() {
        let crowd = Crowd::default();
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let (one, other, same) = (ip("192.0.2.1"), ip("2001:db8::1"), ip("::ffff:192.0.2.1"));
        let first = crowd.enter(one, 2).unwrap();
        let _second = crowd.enter(same, 2).unwrap();
        assert!(crowd.enter(one, 2).is_none() && crowd.enter(same, 2).is_none(), "two are the limit");
        let _third = crowd.enter(other, 2).unwrap();
        let _here: Vec<_> = (0..9).map(|_| crowd.enter(ip("127.0.0.1"), 2).unwrap()).collect();
        drop(first);
        drop(crowd.enter(one, 2).unwrap());
        drop((_second, _third));
        assert!(crowd.0.lock().unwrap().is_empty(), "nobody is counted for ever");
    }

    #[tokio::test]
    async fn flaws_on_purpose_reach_the_client() {
        let handler = |asked: ServerRequest| async move {
            match asked.path.as_str() {
                "/cut" => Reply::Cut { response: Response::json(200, "0123456789"), n_bytes: 4 },
                "/accept" => Reply::Flawed(HandshakeFlaw::Accept),
                "/subprotocol" => Reply::Flawed(HandshakeFlaw::Subprotocol),
                "/http10" => Reply::Flawed(HandshakeFlaw::Http10),
                "/page" => Reply::Flawed(HandshakeFlaw::Page),
                _ => Reply::Flawed(HandshakeFlaw::Garbage),
            }
        };
        let running = Running::start(handler, ServerOptions::default()).await;
        let mut said = String::new();
        for path in ["/cut", "/accept", "/subprotocol", "/http10", "/page", "/garbage"] {
            let upgrade = "Upgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
            let headers = if path == "/cut" || path == "/page" { "Connection: close\r\n" } else { upgrade };
            let asked = format!("GET {path} HTTP/1.1\r\nHost: localhost:{}\r\n{headers}\r\n", running.port);
            said += &format!("{path}\n{}\n", running.raw(asked.as_bytes()).await.replace('\r', ""));
        }
        expect_test::expect![[r#"
            /cut
            HTTP/1.1 200 OK
            content-type: application/json
            content-length: 10
            connection: close

            0123
            /accept
            HTTP/1.1 101 Switching Protocols
            connection: Upgrade
            upgrade: websocket
            sec-websocket-accept: he9dtWwNL9uhYqB1PaR81JknXd8=


            /subprotocol
            HTTP/1.1 101 Switching Protocols
            connection: Upgrade
            upgrade: websocket
            sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=
            sec-websocket-protocol: nobody.offered.this


            /http10
            HTTP/1.0 101 Switching Protocols
            connection: Upgrade
            upgrade: websocket
            sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=


            /page
            HTTP/1.1 200 OK
            connection: close
            content-type: text/html
            content-length: 71

            <!doctype html><title>Welcome</title><p>Please sign in to this network.
            /garbage
            SSH-2.0-OpenSSH_9.9

        "#]]
        .assert_eq(&said);
        running.stop().await;
    }

    #[tokio::test]
    async fn slow_headers_are_cut_off() {
        let options = ServerOptions { read_timeout: Duration::from_millis(20), ..ServerOptions::default() };
        let running = Running::start(|_| async { Reply::Nothing }, options).await;
        let answer = running.raw(b"GET / HTTP/1.1\r\nHost: local").await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408 "), "{answer}");
        let asked = format!("POST / HTTP/1.1\r\nHost: localhost:{}\r\nContent-Length: 5\r\n\r\nab", running.port);
        assert!(running.raw(asked.as_bytes()).await.starts_with("HTTP/1.1 408 "));
        running.stop().await;
    }

    #[tokio::test]
    async fn waiting_for_the_client_may_be_dropped() {
        let handler = |_| async {
            socket(|mut socket| async move {
                // Waits and writes in turns; what the client says comes out whole all the same.
                let mut heard = 0;
                while heard < 100 {
                    tokio::select! {
                        biased;
                        incoming = socket.next() => {
                            assert_eq!(incoming, Incoming::Message(Bytes::from(format!("message {heard}"))));
                            heard += 1;
                        }
                        () = tokio::task::yield_now() => socket.feed(Bytes::from_static(b"tick")).await.unwrap(),
                    }
                }
                socket.close(1000, "").await.unwrap();
                while !matches!(socket.next().await, Incoming::Closed { .. }) {}
            })
        };
        let running = Running::start(handler, ServerOptions::default()).await;
        let mut live = running.open(Transport::WebSocket).await.unwrap();
        for idx in 0..100 {
            live.send_text(&format!("message {idx}")).await.unwrap();
        }
        loop {
            match live.next().await {
                Incoming::Message(tick) => assert_eq!(&tick[..], b"tick"),
                incoming => break assert!(matches!(incoming, Incoming::Closed { code: Some(1000), .. }), "{incoming:?}"),
            }
        }
        running.stop().await;
    }

    fn over_tls() -> ServerOptions {
        let tls = Some(ServerTls::throw_away(IpAddr::from([192, 0, 2, 7])).unwrap());
        ServerOptions { tls, read_timeout: Duration::from_millis(500), ..ServerOptions::default() }
    }

    #[tokio::test]
    async fn everything_works_over_tls() {
        let handler = |asked: ServerRequest| async move {
            match asked.method.as_str() {
                "POST" => Reply::Http(Response { body: asked.body, status: 200, headers: Vec::new() }),
                _ if asked.wants_upgrade => socket(|mut socket| async move {
                    // More than a socket's buffers, past the encoder as well.
                    for idx in 0..MANY {
                        socket.feed(envelope(idx)).await.unwrap();
                    }
                    let text = [&[0x82, 127, 0, 0, 0, 0, 0, 0x30, 0, 0][..], &vec![b'x'; 3 << 20]].concat();
                    socket.send_raw(&text).await.unwrap();
                    assert_eq!(socket.next().await, Incoming::Message(Bytes::from_static(b"go")));
                    socket.abort();
                }),
                _ => stream(|mut stream| async move {
                    stream.send(Bytes::from_static(b"{}\n")).await.unwrap();
                    stream.flush().await.unwrap();
                }),
            }
        };
        let running = Running::start(handler, over_tls()).await;
        assert_eq!(&running.ask("POST", Vec::new(), "hello").await.body[..], b"hello");
        let mut live = running.open(Transport::WebSocket).await.unwrap();
        for idx in 0..MANY {
            assert_eq!(live.next().await, Incoming::Message(envelope(idx)));
        }
        assert_eq!(live.next().await, Incoming::Message(vec![b'x'; 3 << 20].into()));
        live.send_text("go").await.unwrap();
        assert!(matches!(live.next().await, Incoming::Broken { fault: NetFault::Reset, .. }));
        let mut live = running.open(Transport::Stream).await.unwrap();
        assert_eq!(live.next().await, Incoming::Message(Bytes::from_static(b"{}")));
        running.stop().await;
    }

    #[tokio::test]
    async fn a_failed_handshake_harms_nobody() {
        let running = Running::start(|_| async { Reply::Http(Response::json(200, "{}")) }, over_tls()).await;
        let endpoint = running.endpoint();
        let strangers = SystemNetwork::new(TlsOptions::default()).unwrap();
        let (fault, words) = crate::net::Network::connect(&strangers, &endpoint).await.map(|_| ()).unwrap_err();
        assert_eq!(fault, NetFault::Tls);
        assert!(words.contains("ca_file"), "{words}");
        let told = running.raw(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        assert!(told.starts_with("HTTP/1.1 400 ") && told.ends_with("wss\n"), "{told}");
        let (head, body) = told.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
        // Torn hellos, and silence: each ends, by itself or in time.
        running.raw(b"\x16\x03\x01\x02\x00\x01\x00 no hello at all").await;
        running.raw(b"\x16\x03").await;
        assert_eq!(running.raw(b"").await, "");
        assert_eq!(running.ask("GET", Vec::new(), "").await.status, 200);
        running.stop().await;
    }
}
