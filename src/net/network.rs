//! The seam to the operating system's network, and the real thing behind it: names, TCP, TLS.
//! Its requests are `pool.rs`'s.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;

use super::client::over_own_connection;
use super::pool::Pool;
use super::{Failure, Limits, SetupError};
use crate::model::{Endpoint, NetFault, Request};

/// Time for name, TCP and TLS together.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A two-way stream of bytes.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connection, whatever it is made of.
pub type BoxedIo = Box<dyn Io>;

/// What [`Network::connect`] returns.
pub type Connecting<'a> = Pin<Box<dyn Future<Output = Result<BoxedIo, Failure>> + Send + 'a>>;

/// What [`Network::exchange`] returns.
pub type Exchanging<'a> = Pin<Box<dyn Future<Output = Result<hyper::Response<Bytes>, Failure>> + Send + 'a>>;

/// The way to the outside; a test puts something in memory here.
pub trait Network: Send + Sync {
    /// Connects, TLS included when the endpoint asks for it.
    ///
    /// # Errors
    ///
    /// A fault and a sentence that names `host:port` and the cure.
    fn connect<'a>(&'a self, endpoint: &'a Endpoint) -> Connecting<'a>;

    /// Makes one request and reads the whole answer, whatever its status; unless somebody knows better, over a connection of
    /// its own.
    ///
    /// The answer is as it came. [`request`](super::request) is for callers: it bounds the time, and blanks keys.
    ///
    /// # Errors
    ///
    /// A fault and a sentence without secrets.
    fn exchange<'a>(&'a self, request: &'a Request, limits: &'a Limits) -> Exchanging<'a> {
        Box::pin(over_own_connection(self, request, limits))
    }
}

/// How far TLS is trusted and where it may be missing.
#[derive(Clone, Debug, Default)]
pub struct TlsOptions {
    /// A PEM file with certificate authorities trusted besides the built-in roots.
    pub ca_file: Option<PathBuf>,
    /// Allows `ws://` and `http://` beyond loopback, where everyone on the way can read the key.
    pub allow_plain: bool,
}

/// The network of this machine.
///
/// Roots are the built-in ones of Mozilla, so nothing depends on certificate files of the system.
pub struct SystemNetwork {
    tls: TlsConnector,
    pool: Pool,
    allow_plain: bool,
}

impl fmt::Debug for SystemNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SystemNetwork").field("allow_plain", &self.allow_plain).finish_non_exhaustive()
    }
}

impl SystemNetwork {
    /// Prepares TLS once for all connections.
    ///
    /// # Errors
    ///
    /// The file with certificate authorities cannot be used.
    pub fn new(options: TlsOptions) -> Result<Self, SetupError> {
        let mut config = client_config(options.ca_file.as_deref())?;
        let pool = Pool::new(&config, options.allow_plain)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { tls: TlsConnector::from(Arc::new(config)), pool, allow_plain: options.allow_plain })
    }

    async fn dial(&self, endpoint: &Endpoint, deadline: Instant, stage: &mut &'static str) -> Result<BoxedIo, Failure> {
        let place = place(endpoint);
        *stage = "looking up the name";
        let mut addresses = look_up(&endpoint.host, endpoint.port).await.map_err(|missing| missing.at(&place))?;
        // Keys travel in the request, so without TLS only loopback addresses are left.
        if !endpoint.tls && !self.allow_plain {
            addresses = here_only(addresses).map_err(|missing| missing.at(&place))?;
        }
        *stage = "connecting";
        let tcp = connect_any(&addresses, deadline, &place).await?;
        if !endpoint.tls {
            return Ok(Box::new(tcp));
        }
        *stage = "shaking hands over TLS";
        let name = ServerName::try_from(endpoint.host.clone())
            .map_err(|_| (NetFault::Tls, format!("{place}: the host is not a name a certificate can be for")))?;
        let tls = self.tls.connect(name, tcp).await.map_err(|error| tls_failure(&error, &place))?;
        Ok(Box::new(tls))
    }
}

/// Trust, without protocols on top.
pub(super) fn client_config(ca_file: Option<&Path>) -> Result<rustls::ClientConfig, SetupError> {
    let mut roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(path) = ca_file {
        for certificate in read_certificates(path)? {
            roots.add(certificate).map_err(|error| SetupError::CaFile { path: path.to_owned(), reason: error.to_string() })?;
        }
    }
    // The provider is named here, so it cannot depend on what another crate has installed.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| SetupError::Tls { reason: error.to_string() })?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}

impl Network for SystemNetwork {
    fn connect<'a>(&'a self, endpoint: &'a Endpoint) -> Connecting<'a> {
        Box::pin(async move {
            let deadline = Instant::now() + CONNECT_TIMEOUT;
            let mut stage = "";
            let result = timeout_at(deadline, self.dial(endpoint, deadline, &mut stage)).await;
            result.unwrap_or_else(|_| {
                let place = place(endpoint);
                Err((NetFault::Timeout, format!("{place}: no answer within {} s while {stage}", CONNECT_TIMEOUT.as_secs())))
            })
        })
    }

    fn exchange<'a>(&'a self, request: &'a Request, limits: &'a Limits) -> Exchanging<'a> {
        Box::pin(self.pool.request(request, limits))
    }
}

/// `host:port`, always with the port: what errors name.
pub(crate) fn place(endpoint: &Endpoint) -> String {
    if endpoint.host.contains(':') {
        format!("[{}]:{}", endpoint.host, endpoint.port)
    } else {
        format!("{}:{}", endpoint.host, endpoint.port)
    }
}

/// Why a name leads nowhere.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotFound {
    #[error("the name has no address{0}; check the spelling and the resolver")]
    NoAddress(String),
    #[error("no address of it is on this machine")]
    NotHere,
}

impl NotFound {
    pub(super) fn at(&self, place: &str) -> Failure {
        match self {
            Self::NoAddress(_) => (NetFault::Dns, format!("{place}: {self}")),
            Self::NotHere => refused_plain(place),
        }
    }
}

/// What is said instead of sending a key in the clear.
pub(super) fn refused_plain(place: &str) -> Failure {
    let detail = format!(
        "{place}: refused, because without TLS everyone on the way can read the key; use wss:// or https://, or allow plain connections on purpose"
    );
    (NetFault::Tls, detail)
}

pub(super) async fn look_up(host: &str, port: u16) -> Result<Vec<SocketAddr>, NotFound> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let found = tokio::net::lookup_host((host, port)).await;
    let addresses: Vec<_> = found.map_err(|error| NotFound::NoAddress(format!(" ({error})")))?.collect();
    if addresses.is_empty() { Err(NotFound::NoAddress(String::new())) } else { Ok(addresses) }
}

/// The addresses that lead to this machine.
pub(super) fn here_only(mut addresses: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, NotFound> {
    addresses.retain(|address| address.ip().to_canonical().is_loopback());
    if addresses.is_empty() { Err(NotFound::NotHere) } else { Ok(addresses) }
}

/// Tries every address; each gets its share of the time that is left, so that one silent address cannot use it up.
async fn connect_any(addresses: &[SocketAddr], deadline: Instant, place: &str) -> Result<TcpStream, Failure> {
    let mut last = (NetFault::Connect, format!("{place}: no address to connect to"));
    for (idx, address) in addresses.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        let share = left / u32::try_from(addresses.len() - idx).unwrap_or(1).max(1);
        last = match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(tcp)) => {
                // Small messages must not wait for more; a socket that cannot do it still works.
                let nodelay = tcp.set_nodelay(true);
                if let Err(error) = nodelay {
                    tracing::debug!(%error, "no nodelay");
                }
                return Ok(tcp);
            }
            Ok(Err(error)) => connect_failure(&error, place),
            Err(_) => (NetFault::Timeout, format!("{place}: no answer; a firewall may drop the packets")),
        };
    }
    Err(last)
}

pub(super) fn connect_failure(error: &io::Error, place: &str) -> Failure {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            (NetFault::Connect, format!("{place}: nobody listens there (connection refused); check the port and the server"))
        }
        io::ErrorKind::TimedOut => (NetFault::Timeout, format!("{place}: no answer; a firewall may drop the packets")),
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable => {
            (NetFault::Connect, format!("{place}: no way leads there ({error}); check the network"))
        }
        _ => (NetFault::Connect, format!("{place}: {error}")),
    }
}

pub(super) fn tls_failure(error: &io::Error, place: &str) -> Failure {
    let cure = match tls_cause(error) {
        Some(rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer)) => {
            "; for a private authority set ca_file"
        }
        Some(rustls::Error::InvalidCertificate(_)) => "; check the host name and this machine's date",
        Some(rustls::Error::InvalidMessage(_)) => "; the server does not seem to speak TLS on this port",
        _ => "",
    };
    (NetFault::Tls, format!("{place}: TLS failed: {error}{cure}"))
}

/// The library's own error, which may be wrapped more than once.
fn tls_cause(error: &io::Error) -> Option<&rustls::Error> {
    let inner = error.get_ref()?;
    inner.downcast_ref::<rustls::Error>().or_else(|| tls_cause(inner.downcast_ref::<io::Error>()?))
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, SetupError> {
    let fail = |reason: String| SetupError::CaFile { path: path.to_owned(), reason };
    let pem = std::fs::read(path).map_err(|error| fail(error.to_string()))?;
    let certificates: Vec<_> =
        CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().map_err(|error| fail(error.to_string()))?;
    if certificates.is_empty() {
        return Err(SetupError::NoCertificate { path: path.to_owned() });
    }
    Ok(certificates)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    fn endpoint(tls: bool, host: &str, port: u16) -> Endpoint {
        Endpoint { tls, host: host.to_owned(), port }
    }

    async fn fails(endpoint: &Endpoint) -> Failure {
        let network = SystemNetwork::new(TlsOptions::default()).unwrap();
        network.connect(endpoint).await.map(|_| ()).expect_err("must fail")
    }

    #[tokio::test]
    async fn a_name_without_address_is_a_dns_fault() {
        let (fault, detail) = fails(&endpoint(true, "nobody.invalid", 443)).await;
        assert_eq!(fault, NetFault::Dns, "{detail}");
        assert!(detail.starts_with("nobody.invalid:443: "), "{detail}");
    }

    #[tokio::test]
    async fn a_closed_port_is_a_connect_fault() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let (fault, detail) = fails(&endpoint(false, "127.0.0.1", port)).await;
        assert_eq!(fault, NetFault::Connect);
        assert!(detail.contains("nobody listens"), "{detail}");
    }

    #[tokio::test]
    async fn a_server_without_tls_is_a_tls_fault() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(async move {
            let (mut tcp, _) = listener.accept().await.unwrap();
            let mut hello = [0; 64];
            let n = tcp.read(&mut hello).await.unwrap();
            assert!(n > 0);
            tcp.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        });
        let (fault, detail) = fails(&endpoint(true, "localhost", port)).await;
        assert_eq!(fault, NetFault::Tls, "{detail}");
        assert!(detail.contains("does not seem to speak TLS"), "{detail}");
        server.await.unwrap();
    }

    #[tokio::test]
    async fn keys_do_not_leave_the_machine_without_tls() {
        // 192.0.2.0/24 is for documentation (RFC 5737): were it dialled, the fault would be another.
        let (fault, detail) = fails(&endpoint(false, "192.0.2.1", 80)).await;
        assert_eq!(fault, NetFault::Tls);
        assert!(detail.contains("allow plain"), "{detail}");
    }

    /// A TLS server with this certificate, which vouches for itself, and the file to trust it by.
    async fn certified(params: rcgen::CertificateParams) -> (u16, tempfile::NamedTempFile) {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), certificate.pem()).unwrap();
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = builder.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key).unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                // Whoever is refused has nothing to say.
                drop(acceptor.accept(tcp).await);
            }
        });
        (port, file)
    }

    #[tokio::test]
    async fn certificates_that_must_not_be_trusted() {
        let named = |name: &str| rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        let mut expired = named("localhost");
        (expired.not_before, expired.not_after) = (rcgen::date_time_ymd(2020, 1, 1), rcgen::date_time_ymd(2021, 1, 1));
        let mut early = named("localhost");
        (early.not_before, early.not_after) = (rcgen::date_time_ymd(2090, 1, 1), rcgen::date_time_ymd(2091, 1, 1));
        // Name, certificate, whether the file that vouches for it is given, and what is said.
        let cases = [
            ("good", named("localhost"), true, None),
            ("nobody vouches for it", named("localhost"), false, Some("set ca_file")),
            ("expired", expired, true, Some("this machine's date")),
            ("not valid yet", early, true, Some("this machine's date")),
            ("for another host", named("elsewhere.test"), true, Some("check the host name")),
        ];
        for (what, params, is_trusted, words) in cases {
            let (port, file) = certified(params).await;
            let options = TlsOptions { ca_file: is_trusted.then(|| file.path().to_owned()), allow_plain: false };
            let network = SystemNetwork::new(options).unwrap();
            let tried = network.connect(&endpoint(true, "localhost", port)).await.map(|_| ());
            match (tried, words) {
                (Ok(()), None) => {}
                (Err((NetFault::Tls, detail)), Some(words)) => assert!(detail.contains(words), "{what}: {detail}"),
                other => panic!("{what}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_bad_ca_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        let make = || SystemNetwork::new(TlsOptions { ca_file: Some(path.clone()), allow_plain: false });
        assert!(matches!(make(), Err(SetupError::CaFile { .. })), "missing file");
        std::fs::write(&path, "no certificate in here\n").unwrap();
        let error = make().unwrap_err();
        assert!(error.to_string().contains("ca.pem"), "{error}");
    }
}
