//! The opening of a live connection, and requests beside it: one HTTP/1.1 exchange over its own connection, unless the network
//! has a better way for a request.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, HOST, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::{HeaderMap, StatusCode, Uri, Version};
use hyper_util::rt::TokioIo;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::network::place;
use super::redact::Keys;
use super::{BoxedIo, Failure, Live, Network, OpenError};
use crate::model::{Endpoint, NetFault, Opening, Request, Response, Secret, Transport};

/// Bounds of what a peer may make us keep or wait for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a live message; more is [`NetFault::Oversized`].
    pub message_bytes_max: usize,
    /// Bytes asked from the socket at once.
    pub read_buffer_bytes: usize,
    /// Bytes of an answer's headers.
    pub header_bytes_max: usize,
    /// Bytes kept of the body of a refusal.
    pub refusal_bytes_max: usize,
    /// Bytes of the answer to [`request`]; more is [`NetFault::Oversized`].
    pub response_bytes_max: usize,
    /// From the connection to the headers of the answer; where connections are kept, from the asking.
    pub handshake_timeout: Duration,
    /// For the body of a refusal; what came until then is taken.
    pub refusal_timeout: Duration,
    /// For a whole [`request`].
    pub request_timeout: Duration,
    /// From the first to the last byte of a live message.
    pub message_timeout: Duration,
    /// For the rest of a frame that is refused, to keep its bytes.
    pub salvage_timeout: Duration,
    /// For the socket to take a message of ours.
    pub send_timeout: Duration,
    /// For the farewell, and then for the answer to it.
    pub close_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes_max: 16 << 20,
            read_buffer_bytes: 128 << 10,
            header_bytes_max: 64 << 10,
            refusal_bytes_max: 64 << 10,
            response_bytes_max: 16 << 20,
            handshake_timeout: Duration::from_secs(15),
            refusal_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30),
            message_timeout: Duration::from_secs(60),
            salvage_timeout: Duration::from_secs(5),
            send_timeout: Duration::from_secs(10),
            close_timeout: Duration::from_secs(2),
        }
    }
}

/// A live connection and what the server said when it opened.
#[derive(Debug)]
pub struct Opened {
    /// The subprotocol the server selected; `***` when that would show a key.
    pub subprotocol: Option<String>,
    /// Headers of the answer, names in lower case; values that echo a key are `***`.
    pub headers: Vec<(String, String)>,
    /// The connection.
    pub live: Live,
}

/// Opens a live connection: an upgrade to WebSocket, or a response that does not end.
///
/// # Errors
///
/// [`OpenError::Refused`] with the whole answer when it was anything but what was asked for (redirects
/// are not followed), else [`OpenError::Unreachable`]. Keys that come back in the answer are blanked.
pub async fn open(network: &dyn Network, opening: &Opening, limits: &Limits) -> Result<Opened, OpenError> {
    let keys = Keys::of(&opening.headers, &opening.target, &opening.shown);
    let key = generate_key();
    let mut own = Vec::new();
    if opening.transport == Transport::WebSocket {
        own.push((CONNECTION, HeaderValue::from_static("Upgrade")));
        own.push((UPGRADE, HeaderValue::from_static("websocket")));
        own.push((SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13")));
        own.push((SEC_WEBSOCKET_KEY, header_value(&key, "sec-websocket-key")?));
    }
    let question = Question {
        method: "GET",
        endpoint: &opening.endpoint,
        target: &opening.target,
        headers: &opening.headers,
        own,
        body: Bytes::new(),
    };
    let Exchange { response, connection } = exchange(network, question, limits).await?;

    let place = place(&opening.endpoint);
    let shown = shown_headers(response.headers(), &keys);
    match (opening.transport, response.status()) {
        (Transport::WebSocket, StatusCode::SWITCHING_PROTOCOLS) => {
            check_upgrade(&response, &key).map_err(|what| (NetFault::Handshake, format!("{place}: {what}")))?;
            let subprotocol = response.headers().get(SEC_WEBSOCKET_PROTOCOL).map(|value| keys.hide(&lossy(value)));
            let upgraded = timeout(limits.handshake_timeout, hyper::upgrade::on(response))
                .await
                .map_err(|_| (NetFault::Timeout, format!("{place}: the upgrade did not finish")))?
                .map_err(|error| http_failure(&error, &place))?;
            let parts = upgraded
                .downcast::<TokioIo<BoxedIo>>()
                .map_err(|_| (NetFault::Handshake, format!("{place}: the upgraded connection is not ours")))?;
            let live = Live::web_socket(parts.io.into_inner(), parts.read_buf, limits).await;
            Ok(Opened { subprotocol, headers: shown, live })
        }
        (Transport::Stream, StatusCode::OK) => {
            let live = Live::stream(response.into_body(), connection, limits);
            Ok(Opened { subprotocol: None, headers: shown, live })
        }
        (_, status) => {
            let body = read_refusal(response.into_body(), limits).await;
            Err(OpenError::Refused(Response { status: status.as_u16(), headers: shown, body: keys.hide_in_body(body) }))
        }
    }
}

/// Headers of an answer that matter afterwards.
pub const TELLING_HEADERS: [&str; 12] = [
    "content-type",
    "date",
    "retry-after",
    "server",
    "x-rate-limit-limit",
    "x-rate-limit-remaining",
    "x-rate-limit-reset",
    "x-request-id",
    "x-credits-used",
    "x-ratelimit-remaining",
    "x-ratelimit-reset",
    "x-transaction-id",
];

/// Makes one request; any status is an answer, redirects included.
///
/// Keys that come back in headers or body are blanked; otherwise the body is as it came.
///
/// # Errors
///
/// A fault and a sentence without secrets, when no whole answer came in time and under the limit.
pub async fn request(network: &dyn Network, request: &Request, limits: &Limits) -> Result<Response, Failure> {
    let answer = timeout(limits.request_timeout, network.exchange(request, limits)).await.unwrap_or_else(|_| {
        let seconds = limits.request_timeout.as_secs_f32();
        Err((NetFault::Timeout, format!("{}: no whole answer within {seconds} s", place(&request.endpoint))))
    })?;
    let keys = Keys::of(&request.headers, &request.target, &request.shown);
    let (status, headers) = (answer.status().as_u16(), shown_headers(answer.headers(), &keys));
    Ok(Response { status, headers, body: keys.hide_in_body(answer.into_body()) })
}

/// Makes a request over a connection that is for it alone.
pub(super) async fn over_own_connection<N: Network + ?Sized>(
    network: &N,
    request: &Request,
    limits: &Limits,
) -> Result<hyper::Response<Bytes>, Failure> {
    let mut own = own_headers(request);
    own.push((CONNECTION, HeaderValue::from_static("close")));
    let question = Question {
        method: request.method,
        endpoint: &request.endpoint,
        target: &request.target,
        headers: &request.headers,
        own,
        body: Bytes::copy_from_slice(request.body.as_bytes()),
    };
    let Exchange { response, connection: _connection } = exchange(network, question, limits).await?;
    read_answer(response, limits, &place(&request.endpoint)).await
}

/// Headers of a request that nobody has to think of.
pub(super) fn own_headers(request: &Request) -> Vec<(HeaderName, HeaderValue)> {
    // A length of nought is said only where a body is expected.
    let says_length = !request.body.is_empty() || !matches!(request.method, "GET" | "HEAD" | "DELETE");
    says_length.then(|| (CONTENT_LENGTH, HeaderValue::from(request.body.len()))).into_iter().collect()
}

/// Reads an answer to its end, within the bounds.
pub(super) async fn read_answer<B>(
    answer: hyper::Response<B>,
    limits: &Limits,
    place: &str,
) -> Result<hyper::Response<Bytes>, Failure>
where
    B: hyper::body::Body<Data = Bytes, Error: std::error::Error + 'static> + Unpin,
{
    let (head, mut incoming) = answer.into_parts();
    let header_bytes: usize = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if header_bytes > limits.header_bytes_max {
        return Err(too_many_headers(place));
    }
    let oversized = || {
        let detail = format!("{place}: the answer is longer than the limit of {} bytes", limits.response_bytes_max);
        (NetFault::Oversized, detail)
    };
    let promised = usize::try_from(incoming.size_hint().lower()).unwrap_or(usize::MAX);
    if promised > limits.response_bytes_max {
        return Err(oversized());
    }
    let mut body = BytesMut::with_capacity(promised);
    while let Some(frame) = incoming.frame().await {
        let frame = frame.map_err(|error| {
            let words = hyper_error(&error).map_or_else(|| "the connection failed".to_owned(), ToString::to_string);
            (NetFault::Reset, format!("{place}: the answer broke off after {} bytes of its body ({words})", body.len()))
        })?;
        let Ok(chunk) = frame.into_data() else { continue };
        if body.len() + chunk.len() > limits.response_bytes_max {
            return Err(oversized());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(hyper::Response::from_parts(head, body.freeze()))
}

/// The innermost error whose words may be passed on.
fn hyper_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a hyper::Error> {
    error.downcast_ref().or_else(|| hyper_error(error.source()?))
}

/// Ends the task that drives a connection together with the one who uses it.
#[derive(Debug)]
pub(super) struct Connection(JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What is asked. Has no `Debug`, because everything in it may be a key.
struct Question<'a> {
    method: &'static str,
    endpoint: &'a Endpoint,
    target: &'a Secret,
    headers: &'a [(&'static str, Secret)],
    own: Vec<(HeaderName, HeaderValue)>,
    body: Bytes,
}

struct Exchange {
    response: hyper::Response<hyper::body::Incoming>,
    connection: Connection,
}

async fn exchange<N: Network + ?Sized>(network: &N, question: Question<'_>, limits: &Limits) -> Result<Exchange, Failure> {
    let place = place(question.endpoint);
    let request = build(&question)?;
    let io = timeout(limits.handshake_timeout, network.connect(question.endpoint))
        .await
        .unwrap_or_else(|_| Err((NetFault::Timeout, format!("{place}: no connection in time"))))?;
    let answer = async {
        let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
            .max_buf_size(limits.header_bytes_max.max(8192))
            .max_header_size(limits.header_bytes_max)
            .handshake::<_, Full<Bytes>>(TokioIo::new(io))
            .await
            .map_err(|error| http_failure(&error, &place))?;
        let driver = connection.with_upgrades();
        let connection = Connection(tokio::spawn(async move {
            if let Err(error) = driver.await {
                tracing::debug!(%error, "connection ended");
            }
        }));
        let response = sender.send_request(request).await.map_err(|error| http_failure(&error, &place))?;
        Ok(Exchange { response, connection })
    };
    timeout(limits.handshake_timeout, answer).await.unwrap_or_else(|_| {
        let seconds = limits.handshake_timeout.as_secs_f32();
        Err((NetFault::Timeout, format!("{place}: connected, but no answer within {seconds} s")))
    })
}

fn build(question: &Question<'_>) -> Result<hyper::Request<Full<Bytes>>, Failure> {
    let place = place(question.endpoint);
    let unfit = |what: &str| (NetFault::Handshake, format!("{place}: {what} holds characters that cannot be sent"));
    // The parser's own words are left out: they may quote the target.
    let uri = Uri::try_from(question.target.expose()).map_err(|_| unfit("the path or query"))?;
    let mut request = hyper::Request::new(Full::new(question.body.clone()));
    *request.method_mut() = question.method.parse().map_err(|_| unfit("the method"))?;
    *request.uri_mut() = uri;
    let headers = request.headers_mut();
    headers.insert(HOST, header_value(&question.endpoint.authority(), "the host")?);
    add_headers(headers, &question.own, question.headers, &place)?;
    Ok(request)
}

/// Puts headers of ours and of the caller's into a request.
pub(super) fn add_headers(
    headers: &mut HeaderMap,
    own: &[(HeaderName, HeaderValue)],
    asked: &[(&'static str, Secret)],
    place: &str,
) -> Result<(), Failure> {
    for (name, value) in own {
        headers.insert(name, value.clone());
    }
    for (name, value) in asked {
        let value = header_value(value.expose(), name)?;
        let unfit = |_| (NetFault::Handshake, format!("{place}: the name of a header holds characters that cannot be sent"));
        headers.append(HeaderName::from_bytes(name.as_bytes()).map_err(unfit)?, value);
    }
    Ok(())
}

fn header_value(value: &str, name: &str) -> Result<HeaderValue, Failure> {
    let mut value = HeaderValue::from_str(value).map_err(|_| {
        (NetFault::Handshake, format!("the value of {name} holds characters that cannot be sent; check for stray line ends"))
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// Checks the answer to an upgrade (RFC 6455, section 4.1); says what is wrong with it.
fn check_upgrade(response: &hyper::Response<hyper::body::Incoming>, key: &str) -> Result<(), &'static str> {
    let headers = response.headers();
    let says = |name: HeaderName, word: &str| {
        let mut tokens = headers.get_all(name).iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(','));
        tokens.any(|token| token.trim().eq_ignore_ascii_case(word))
    };
    if response.version() != Version::HTTP_11 {
        return Err("the upgrade was not answered in HTTP/1.1");
    }
    if !says(UPGRADE, "websocket") || !says(CONNECTION, "upgrade") {
        return Err("status 101, but not for WebSocket");
    }
    if headers.get(SEC_WEBSOCKET_ACCEPT).map(HeaderValue::as_bytes) != Some(derive_accept_key(key.as_bytes()).as_bytes()) {
        return Err("Sec-WebSocket-Accept is wrong; a cache or proxy may stand between");
    }
    if headers.get(SEC_WEBSOCKET_EXTENSIONS).is_some_and(|value| !value.is_empty()) {
        return Err("the server switched on an extension that was not offered");
    }
    Ok(())
}

fn lossy(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

/// Headers as they may be shown and recorded. A cookie the server sets is a credential whatever it holds.
fn shown_headers(headers: &HeaderMap, keys: &Keys) -> Vec<(String, String)> {
    let show = |name: &HeaderName, value: &HeaderValue| match name.as_str() {
        "set-cookie" => "***".to_owned(),
        _ => keys.hide(&lossy(value)),
    };
    headers.iter().map(|(name, value)| (name.as_str().to_owned(), show(name, value))).collect()
}

/// The body of a refusal as far as it came in time, cut at the limit.
async fn read_refusal(mut incoming: hyper::body::Incoming, limits: &Limits) -> Bytes {
    let deadline = Instant::now() + limits.refusal_timeout;
    let mut body = BytesMut::new();
    while body.len() < limits.refusal_bytes_max {
        let Ok(Some(Ok(frame))) = timeout_at(deadline, incoming.frame()).await else { break };
        if let Ok(chunk) = frame.into_data() {
            body.extend_from_slice(&chunk);
        }
    }
    body.truncate(limits.refusal_bytes_max);
    body.freeze()
}

/// hyper's errors name kinds, not content, so their words may be passed on.
pub(super) fn http_failure(error: &hyper::Error, place: &str) -> Failure {
    if error.is_parse_too_large() {
        too_many_headers(place)
    } else if error.is_parse() {
        (NetFault::Handshake, format!("{place}: the answer is not HTTP/1.1 ({error}); check the address"))
    } else {
        (NetFault::Reset, format!("{place}: the connection ended before an answer ({error})"))
    }
}

fn too_many_headers(place: &str) -> Failure {
    (NetFault::Handshake, format!("{place}: the headers of the answer are over the limit"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::testing::{Far, PLANTED, opened, opening, secret, server};
    use crate::net::{SystemNetwork, TlsOptions};

    async fn says(transport: Transport, answer: impl Into<String>) -> Result<Opened, OpenError> {
        let answer = answer.into();
        opened(transport, &Limits::default(), |mut far: Far| async move { far.say(answer.as_bytes()).await }).await
    }

    fn unreachable(result: Result<Opened, OpenError>) -> (NetFault, String) {
        match result {
            Err(OpenError::Unreachable { fault, detail }) => (fault, detail),
            other => panic!("{other:?}"),
        }
    }

    fn refused(result: Result<Opened, OpenError>) -> Response {
        match result {
            Err(OpenError::Refused(response)) => response,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_subprotocol_may_be_absent_chosen_or_the_key_itself() {
        let token = format!("tweetstream.auth.token.{PLANTED}");
        let cases = [
            (String::new(), None),
            ("Sec-WebSocket-Protocol: tweetstream.v1\r\n".to_owned(), Some("tweetstream.v1")),
            (format!("Sec-WebSocket-Protocol: {token}\r\nX-Echo: {PLANTED}!\r\nSet-Cookie: session=1\r\n"), Some("***")),
        ];
        for (lines, want) in cases {
            let echoes = lines.contains("X-Echo");
            let opened = opened(Transport::WebSocket, &Limits::default(), |mut far| async move {
                assert!(far.head.starts_with(&format!("GET /ws?api_key={PLANTED}&topic=tweets HTTP/1.1\r\n")));
                assert_eq!(far.asked("host"), Some("stream.test"));
                assert_eq!(far.asked("x-api-key"), Some(PLANTED));
                assert_eq!(far.asked("sec-websocket-version"), Some("13"));
                assert_eq!(far.asked("sec-websocket-extensions"), None, "no compression is offered");
                far.upgrade(&lines, b"").await;
                far.rest().await;
            })
            .await
            .unwrap();
            assert_eq!(opened.subprotocol.as_deref(), want);
            let header = |name: &str| opened.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
            assert_eq!(header("upgrade"), Some("websocket"));
            assert_eq!(header("x-echo"), echoes.then_some("***"));
            assert_eq!(header("set-cookie"), echoes.then_some("***"));
        }
    }

    #[tokio::test]
    async fn refusals_come_whole() {
        for transport in [Transport::WebSocket, Transport::Stream] {
            let answer = format!(
                "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 90\r\nContent-Length: {}\r\n\r\nslow down, {PLANTED}",
                11 + PLANTED.len()
            );
            let response = refused(says(transport, answer).await);
            assert_eq!((response.status, response.retry_after()), (429, Some(Duration::from_secs(90))));
            assert_eq!(&response.body[..], b"slow down, [redacted: 16 bytes]");

            let response = refused(says(transport, "HTTP/1.1 401 Unauthorized\r\n\r\n{\"error\":\"key\"}").await);
            assert_eq!((response.status, &response.body[..]), (401, &b"{\"error\":\"key\"}"[..]));

            let answer = "HTTP/1.0 503 Service Unavailable\r\nRetry-After: 5\r\n\r\nold";
            let response = refused(says(transport, answer).await);
            assert_eq!((response.status, &response.body[..]), (503, &b"old"[..]));

            // Not followed: the script serves one connection only.
            let answer =
                format!("HTTP/1.1 301 Moved\r\nLocation: https://elsewhere.test/?k={PLANTED}\r\nContent-Length: 0\r\n\r\n");
            let response = refused(says(transport, answer).await);
            assert_eq!((response.status, response.header("location")), (301, Some("***")));
        }
        let response = refused(says(Transport::WebSocket, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi").await);
        assert_eq!((response.status, &response.body[..]), (200, &b"hi"[..]), "200 is no upgrade");
        let response = refused(says(Transport::Stream, "HTTP/1.1 204 No Content\r\n\r\n").await);
        assert_eq!(response.status, 204);
    }

    #[tokio::test]
    async fn long_and_slow_refusals_are_cut() {
        let limits = Limits { refusal_timeout: Duration::from_millis(20), ..Limits::default() };
        let result = opened(Transport::WebSocket, &limits, |mut far| async move {
            far.say(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 1000000\r\n\r\nbeginning").await;
            far.rest().await;
        });
        assert_eq!(&refused(result.await).body[..], b"beginning");

        let limits = Limits { refusal_bytes_max: 1000, ..Limits::default() };
        let result = opened(Transport::WebSocket, &limits, |mut far| async move {
            far.say(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 5000\r\n\r\n").await;
            far.say(&[b'x'; 5000]).await;
        });
        assert_eq!(refused(result.await).body.len(), 1000);
    }

    #[tokio::test]
    async fn bad_upgrades_are_handshake_faults() {
        let lines = "Upgrade: websocket\r\nConnection: Upgrade\r\n";
        let cases = [
            ("HTTP/1.1 101 Switching\r\n".to_owned() + lines + "Sec-WebSocket-Accept: AAAA\r\n\r\n", "Sec-WebSocket-Accept"),
            ("HTTP/1.1 101 Switching\r\n".to_owned() + lines + "\r\n", "Sec-WebSocket-Accept"),
            ("HTTP/1.1 101 Switching\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n".to_owned(), "not for WebSocket"),
            ("HTTP/1.0 101 Switching\r\n".to_owned() + lines + "\r\n", "HTTP/1.1"),
            ("SSH-2.0-OpenSSH_9.6\r\n\r\n".to_owned(), "not HTTP/1.1"),
            ("HTTP/1.1 200 OK\r\n".to_owned() + &"x: 0123456789\r\n".repeat(6000) + "\r\n", "over the limit"),
        ];
        for (answer, word) in cases {
            let (fault, detail) = unreachable(says(Transport::WebSocket, answer).await);
            assert_eq!(fault, NetFault::Handshake, "{detail}");
            assert!(detail.contains(word) && detail.starts_with("stream.test:80: "), "{detail}");
        }
        let result = opened(Transport::WebSocket, &Limits::default(), |mut far| async move {
            far.upgrade("Sec-WebSocket-Extensions: permessage-deflate\r\n", b"").await;
        });
        assert!(unreachable(result.await).1.contains("not offered"));
    }

    #[tokio::test]
    async fn silence_and_hanging_up_have_names() {
        let (fault, _) = unreachable(says(Transport::WebSocket, "").await);
        assert_eq!(fault, NetFault::Reset);
        let (fault, _) = unreachable(says(Transport::Stream, "HTTP/1.1 20").await);
        assert_eq!(fault, NetFault::Reset);
        let limits = Limits { handshake_timeout: Duration::from_millis(20), ..Limits::default() };
        let result = opened(Transport::WebSocket, &limits, |mut far| async move {
            far.rest().await;
        });
        assert_eq!(unreachable(result.await).0, NetFault::Timeout);
    }

    #[tokio::test]
    async fn what_cannot_be_sent_is_refused_without_showing_it() {
        let mut opening = opening(Transport::WebSocket);
        opening.headers.push(("x-other", secret(&format!("{PLANTED}\nx: y"))));
        let error = open(&server(|_| async {}), &opening, &Limits::default()).await.unwrap_err();
        assert!(error.to_string().contains("x-other") && !format!("{error:?}{error}").contains(PLANTED), "{error}");
        opening.headers.pop();
        opening.target = secret(&format!("/ws?{PLANTED} {PLANTED}"));
        let error = open(&server(|_| async {}), &opening, &Limits::default()).await.unwrap_err();
        assert!(error.to_string().contains("query") && !format!("{error:?}{error}").contains(PLANTED), "{error}");
    }

    fn post(body: &str) -> Request {
        Request {
            method: "POST",
            endpoint: Endpoint { tls: false, host: "::1".to_owned(), port: 8080 },
            target: secret(&format!("/rules?key={PLANTED}")),
            headers: vec![("content-type", secret("application/json"))],
            body: body.to_owned(),
            shown: "http://[::1]:8080/rules?key=***".to_owned(),
        }
    }

    #[tokio::test]
    async fn a_request_is_answered() {
        let network = server(|mut far| async move {
            assert!(far.head.starts_with(&format!("POST /rules?key={PLANTED} HTTP/1.1\r\n")));
            assert_eq!((far.asked("host"), far.asked("content-length")), (Some("[::1]:8080"), Some("7")));
            far.say(
                b"HTTP/1.1 201 Created\r\nX-Left: 4\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{\"a\r\n4\r\n\":1}\r\n0\r\n\r\n",
            )
            .await;
        });
        let response = request(&network, &post("{\"b\":2}"), &Limits::default()).await.unwrap();
        assert_eq!((response.status, response.header("x-left"), &response.body[..]), (201, Some("4"), &b"{\"a\":1}"[..]));

        let network = server(|mut far| async move {
            assert_eq!(far.asked("content-length"), Some("0"));
            far.say(b"HTTP/1.1 302 Found\r\nLocation: http://elsewhere.test/\r\n\r\n").await;
        });
        assert_eq!(request(&network, &post(""), &Limits::default()).await.unwrap().status, 302);
    }

    #[tokio::test]
    async fn a_request_is_bounded() {
        let limits = Limits { response_bytes_max: 10, request_timeout: Duration::from_millis(20), ..Limits::default() };
        let cases: [(&[u8], NetFault); 4] = [
            (b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n01234567890", NetFault::Oversized),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n012", NetFault::Reset),
            (b"nonsense\r\n\r\n", NetFault::Handshake),
            (b"", NetFault::Reset),
        ];
        for (answer, want) in cases {
            let network = server(move |mut far| async move { far.say(answer).await });
            let (fault, detail) = request(&network, &post(""), &limits).await.unwrap_err();
            assert_eq!(fault, want, "{detail}");
            assert!(!detail.contains(PLANTED));
        }
        let network = server(|mut far| async move {
            far.say(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n012").await;
            far.rest().await;
        });
        assert_eq!(request(&network, &post(""), &limits).await.unwrap_err().0, NetFault::Timeout);
    }

    #[test]
    fn futures_may_move_between_threads() {
        fn sends<T: Send>(_: &T) {}
        let (network, limits) = (SystemNetwork::new(TlsOptions::default()).unwrap(), Limits::default());
        let (opening, asked) = (opening(Transport::WebSocket), post(""));
        sends(&open(&network, &opening, &limits));
        sends(&request(&network, &asked, &limits));
    }
}
