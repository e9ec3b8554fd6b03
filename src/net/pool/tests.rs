use std::convert::Infallible;
use std::future::Future;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::model::{Endpoint, Response};
use crate::net::testing::{PLANTED, secret};
use crate::net::{Reply, ServerOptions, ServerRequest, ServerTls, SystemNetwork, TlsOptions, request, serve};

/// A server of scripted connections, with a count of them.
struct Scripted {
    port: u16,
    n_accepted: Arc<AtomicUsize>,
}

impl Scripted {
    async fn start<F, Fut>(script: F) -> Self
    where
        F: Fn(usize, TcpStream) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let n_accepted = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&n_accepted);
        tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                tokio::spawn(script(count.fetch_add(1, Ordering::SeqCst), tcp));
            }
        });
        Self { port, n_accepted }
    }

    /// Says the same to every request, whatever it is.
    async fn saying(answer: impl Into<Vec<u8>>) -> Self {
        let answer: Arc<[u8]> = answer.into().into();
        Self::start(move |_, mut tcp| {
            let answer = Arc::clone(&answer);
            async move { while head(&mut tcp).await.is_some() && tcp.write_all(&answer).await.is_ok() {} }
        })
        .await
    }

    fn n_accepted(&self) -> usize {
        self.n_accepted.load(Ordering::SeqCst)
    }
}

/// Reads the head of a request; `None` when the client is gone.
async fn head(tcp: &mut TcpStream) -> Option<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        head.push(char::from(tcp.read_u8().await.ok()?));
    }
    Some(head)
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";

fn network() -> SystemNetwork {
    SystemNetwork::new(TlsOptions::default()).unwrap()
}

fn asked(method: &'static str, tls: bool, host: &str, port: u16) -> Request {
    Request {
        method,
        endpoint: Endpoint { tls, host: host.to_owned(), port },
        target: secret(&format!("/page?api_key={PLANTED}&n=1")),
        headers: vec![("x-api-key", secret(PLANTED)), ("accept", secret("application/json"))],
        body: if method == "POST" { "{}".to_owned() } else { String::new() },
        shown: "/page?api_key=***&n=1".to_owned(),
    }
}

/// Asks; whatever comes out must not show the key.
async fn ask(network: &SystemNetwork, request_: &Request, limits: &Limits) -> Result<Response, Failure> {
    let answer = request(network, request_, limits).await;
    assert!(!format!("{answer:?}").contains(PLANTED), "{answer:?}");
    if let Ok(Response { body, .. }) = &answer {
        assert!(!String::from_utf8_lossy(body).contains(PLANTED));
    }
    answer
}

async fn get(network: &SystemNetwork, port: u16, limits: &Limits) -> Result<Response, Failure> {
    ask(network, &asked("GET", false, "127.0.0.1", port), limits).await
}

#[tokio::test]
async fn one_connection_serves_many_requests() {
    let scripted = Scripted::saying(OK).await;
    let network = network();
    for _ in 0..20 {
        assert_eq!(get(&network, scripted.port, &Limits::default()).await.unwrap().status, 200);
    }
    assert_eq!(scripted.n_accepted(), 1);
}

#[tokio::test]
async fn a_connection_that_was_closed_while_idle_costs_a_get_nothing() {
    // Serves one request a connection, and closes when the next one is on its way.
    let scripted = Scripted::start(|_, mut tcp| async move {
        if head(&mut tcp).await.is_some() && tcp.write_all(OK).await.is_ok() {
            head(&mut tcp).await;
        }
    })
    .await;
    let network = network();
    for n in 1..=3 {
        assert_eq!(get(&network, scripted.port, &Limits::default()).await.unwrap().status, 200);
        assert_eq!(scripted.n_accepted(), n);
    }
    // What is not to be done twice is not asked twice.
    let post = asked("POST", false, "127.0.0.1", scripted.port);
    let (fault, words) = ask(&network, &post, &Limits::default()).await.unwrap_err();
    assert_eq!((fault, scripted.n_accepted()), (NetFault::Reset, 3), "{words}");
    assert_eq!(ask(&network, &post, &Limits::default()).await.unwrap().status, 200);
}

#[tokio::test]
async fn a_server_that_hangs_up_at_once_is_asked_once() {
    let scripted = Scripted::start(|_, mut tcp| async move { drop(head(&mut tcp).await) }).await;
    let (fault, words) = get(&network(), scripted.port, &Limits::default()).await.unwrap_err();
    assert_eq!((fault, scripted.n_accepted()), (NetFault::Reset, 1), "{words}");
    assert!(words.starts_with(&format!("127.0.0.1:{}: the connection ended before an answer", scripted.port)), "{words}");
}

#[tokio::test]
async fn without_tls_keys_stay_on_this_machine() {
    // 192.0.2.0/24 is for documentation (RFC 5737): were it dialled, the fault would be another. The same in one number,
    // and mapped into IPv6, passes the look-up of names.
    for host in ["192.0.2.1", "3221225985", "0xc0000201", "::ffff:192.0.2.1", "2001:db8::1"] {
        let (fault, words) = ask(&network(), &asked("GET", false, host, 80), &Limits::default()).await.unwrap_err();
        assert_eq!(fault, NetFault::Tls, "{words}");
        assert!(words.contains("allow plain"), "{words}");
    }
    let scripted = Scripted::saying(OK).await;
    for host in ["127.0.0.1", "localhost", "127.1", "::ffff:127.0.0.1"] {
        let answer = ask(&network(), &asked("GET", false, host, scripted.port), &Limits::default()).await;
        assert_eq!(answer.unwrap().status, 200, "{host}");
    }
    let beyond = "192.0.2.1:80".parse().unwrap();
    let mixed = here_only(vec![beyond, "[::1]:80".parse().unwrap()]).unwrap();
    assert_eq!(mixed, ["[::1]:80".parse().unwrap()]);
    assert!(matches!(here_only(vec![beyond]), Err(NotFound::NotHere)));
}

#[tokio::test]
async fn what_fails_before_an_answer_has_its_name() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = listener.local_addr().unwrap().port();
    drop(listener);
    let plain = Scripted::start(|_, mut tcp| async move {
        tcp.read_u8().await.unwrap();
        tcp.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        drop(tcp.read_to_end(&mut Vec::new()).await);
    })
    .await;
    let silent = Scripted::start(|_, tcp| async move {
        std::future::pending::<()>().await;
        drop(tcp);
    })
    .await;
    let broken = Scripted::start(|_, mut tcp| async move { drop(tcp.read_u8().await) }).await;
    let cases = [
        (asked("GET", true, "nobody.invalid", 443), NetFault::Dns, "the name has no address"),
        (asked("GET", false, "nobody.invalid", 80), NetFault::Dns, "the name has no address"),
        (asked("GET", false, "127.0.0.1", closed), NetFault::Connect, "nobody listens"),
        (asked("GET", true, "127.0.0.1", closed), NetFault::Connect, "nobody listens"),
        (asked("GET", true, "localhost", plain.port), NetFault::Tls, "does not seem to speak TLS"),
        (asked("GET", true, "127.0.0.1", broken.port), NetFault::Tls, "TLS failed"),
        (asked("GET", false, "127.0.0.1", silent.port), NetFault::Timeout, "no answer within 0.1 s"),
    ];
    for (request, fault, word) in cases {
        let handshake_timeout = Duration::from_millis(if fault == NetFault::Timeout { 100 } else { 30_000 });
        let limits = Limits { handshake_timeout, ..Limits::default() };
        let (found, words) = ask(&network(), &request, &limits).await.unwrap_err();
        assert_eq!(found, fault, "{words}");
        assert!(words.starts_with(&place(&request.endpoint)) && words.contains(word), "{words}");
    }
}

#[tokio::test]
async fn an_answer_is_bounded() {
    let limits = Limits { response_bytes_max: 10, header_bytes_max: 10_000, ..Limits::default() };
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\n012345\r\n6\r\n012345\r\n0\r\n\r\n";
    let headers = |n: usize| format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: 0123456789\r\n".repeat(n));
    let cases = [
        ("HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n01234567890".to_owned(), NetFault::Oversized, "limit of 10 bytes"),
        // More than any memory has, promised.
        (format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n0", u64::MAX / 2), NetFault::Oversized, "limit of 10 bytes"),
        (chunked.to_owned(), NetFault::Oversized, "limit of 10 bytes"),
        (headers(1_000), NetFault::Handshake, "over the limit"),
        ("nonsense\r\n\r\n".to_owned(), NetFault::Handshake, "not HTTP/1.1"),
    ];
    for (answer, fault, word) in cases {
        let scripted = Scripted::saying(answer).await;
        let (found, words) = get(&network(), scripted.port, &limits).await.unwrap_err();
        assert_eq!(found, fault, "{words}");
        assert!(words.contains(word), "{words}");
    }
    let cut = Scripted::start(|_, mut tcp| async move {
        head(&mut tcp).await;
        tcp.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n012").await.unwrap();
    })
    .await;
    let (fault, words) = get(&network(), cut.port, &limits).await.unwrap_err();
    assert_eq!((fault, words.contains("after 3 bytes of its body")), (NetFault::Reset, true), "{words}");
}

#[tokio::test]
async fn a_body_that_does_not_end_is_given_up() {
    let scripted = Scripted::start(|_, mut tcp| async move {
        head(&mut tcp).await;
        tcp.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n012").await.unwrap();
        std::future::pending::<()>().await;
    })
    .await;
    let limits = Limits { request_timeout: Duration::from_millis(100), ..Limits::default() };
    let (fault, words) = get(&network(), scripted.port, &limits).await.unwrap_err();
    assert_eq!((fault, words.contains("no whole answer within 0.1 s")), (NetFault::Timeout, true), "{words}");
}

#[tokio::test]
async fn redirects_are_answers_and_keys_that_come_back_are_blanked() {
    let scripted = Scripted::start(|_, mut tcp| async move {
        while let Some(head) = head(&mut tcp).await {
            let location = head.split(' ').nth(1).unwrap();
            let answer = format!(
                "HTTP/1.1 302 Found\r\nLocation: {location}\r\nSet-Cookie: a=b\r\nContent-Length: {}\r\n\r\n{head}",
                head.len()
            );
            tcp.write_all(answer.as_bytes()).await.unwrap();
            assert!(!head.contains("cookie"), "{head}");
        }
    })
    .await;
    let network = network();
    for _ in 0..2 {
        let answer = get(&network, scripted.port, &Limits::default()).await.unwrap();
        assert_eq!((answer.status, answer.header("location"), answer.header("set-cookie")), (302, Some("***"), Some("***")));
        let text = String::from_utf8_lossy(&answer.body);
        assert!(text.contains("x-api-key: [redacted: 16 bytes]") && text.contains("accept: application/json"), "{text}");
    }
}

#[tokio::test]
async fn what_cannot_be_sent_as_it_is_is_refused() {
    for target in ["/a?b c", "/a/../b", "/a\\b", "/a?q='x'", "/a#b", "@elsewhere.test/"] {
        let mut request = asked("GET", false, "127.0.0.1", 9);
        request.target = secret(&format!("{target}{PLANTED}"));
        let (fault, words) = ask(&network(), &request, &Limits::default()).await.unwrap_err();
        assert_eq!(fault, NetFault::Handshake, "{target}: {words}");
    }
}

fn trusting(tls: &ServerTls) -> SystemNetwork {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(tls.ca_pem().as_bytes()).unwrap();
    SystemNetwork::new(TlsOptions { ca_file: Some(file.path().to_owned()), allow_plain: false }).unwrap()
}

#[tokio::test]
async fn an_authority_of_our_own_is_trusted_where_it_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let tls = ServerTls::throw_away("127.0.0.1".parse().unwrap()).unwrap();
    let options = ServerOptions { tls: Some(tls.clone()), ..ServerOptions::default() };
    let peers = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&peers);
    let handler = move |asked: ServerRequest| {
        seen.lock().unwrap().push(asked.peer);
        async { Reply::Http(Response::json(200, "{}")) }
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let served = tokio::spawn(serve(listener, Arc::new(handler), options, async move { drop(stopped.await) }));
    let request = asked("POST", true, "localhost", port);
    let network = trusting(&tls);
    for _ in 0..3 {
        assert_eq!(ask(&network, &request, &Limits::default()).await.unwrap().status, 200);
    }
    let (fault, words) = ask(&self::network(), &request, &Limits::default()).await.unwrap_err();
    assert_eq!((fault, words.contains("ca_file")), (NetFault::Tls, true), "{words}");
    let peers = peers.lock().unwrap().clone();
    assert!(peers.len() == 3 && peers.windows(2).all(|two| two[0] == two[1]), "{peers:?}");
    drop(stop);
    served.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_server_that_offers_http2_gets_it() {
    let tls = ServerTls::throw_away("127.0.0.1".parse().unwrap()).unwrap();
    let mut config = tls.config().clone();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let scripted = Scripted::start(move |_, tcp| {
        let acceptor = acceptor.clone();
        async move {
            let io = TokioIo::new(acceptor.accept(tcp).await.unwrap());
            let service = service_fn(|request: hyper::Request<hyper::body::Incoming>| async move {
                let words = format!("{:?} {}", request.version(), request.uri());
                Ok::<_, Infallible>(hyper::Response::new(http_body_util::Full::new(Bytes::from(words))))
            });
            let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            drop(http.serve_connection(io, service).await);
        }
    })
    .await;
    let network = trusting(&tls);
    for method in ["GET", "POST", "GET"] {
        let request = asked(method, true, "localhost", scripted.port);
        let answer = ask(&network, &request, &Limits::default()).await.unwrap();
        let want = format!("HTTP/2.0 https://localhost:{}/page?api_key=[redacted: 16 bytes]&n=1", scripted.port);
        assert_eq!(String::from_utf8_lossy(&answer.body), want);
    }
    assert_eq!(scripted.n_accepted(), 1);
}
