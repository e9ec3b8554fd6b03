//! The server's side of TLS: a certificate authority that lives as long as the server, and the stream underneath HTTP.
//!
//! Owns making the keys, which never leave memory, the handshake with its bounds, and [`ServerIo`], the one type that
//! HTTP and WebSockets see whether there is TLS or not. The client's side is in `network.rs`.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::{BoxedIo, Clock, SetupError, SystemClock};

/// Clocks of clients may be behind ours.
const BACKDATED: Duration = Duration::from_secs(24 * 3600);

/// Longer than any replay; some TLS libraries refuse certificates that are valid for more than 398 days.
const VALID_FOR: Duration = Duration::from_secs(390 * 24 * 3600);

/// The first byte of every TLS connection: the record type "handshake".
const TLS_HANDSHAKE: u8 = 0x16;

/// What somebody gets who speaks HTTP to the TLS port.
const NOT_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: 44\r\nconnection: close\r\n\r\nthis port speaks TLS; ask with https or wss\n";

/// A server's identity, vouched for by an authority that was made for it alone.
///
/// Both private keys are in memory only, and the authority's is gone once this is made.
#[derive(Clone)]
pub struct ServerTls {
    config: Arc<ServerConfig>,
    ca_pem: Arc<str>,
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls").finish_non_exhaustive()
    }
}

impl ServerTls {
    /// Makes an authority, and with it a certificate for `localhost`, `127.0.0.1`, `::1` and that address.
    ///
    /// # Errors
    ///
    /// The crypto library refused its own defaults.
    pub fn throw_away(address: IpAddr) -> Result<Self, SetupError> {
        let fail = |reason: String| SetupError::Tls { reason };
        let (ca_pem, chain, key) = issue(address).map_err(|error| fail(error.to_string()))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| fail(error.to_string()))?
            .with_no_client_auth()
            .with_single_cert(vec![chain], key)
            .map_err(|error| fail(error.to_string()))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { config: Arc::new(config), ca_pem: ca_pem.into() })
    }

    #[cfg(test)]
    pub(super) fn config(&self) -> &ServerConfig {
        &self.config
    }

    /// The authority's certificate as PEM: what clients have to trust.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }
}

type Issued = (String, rustls::pki_types::CertificateDer<'static>, PrivateKeyDer<'static>);

fn issue(address: IpAddr) -> Result<Issued, rcgen::Error> {
    let mut params = dated(CertificateParams::new(Vec::new())?);
    params.distinguished_name.push(DnType::CommonName, "birdtape replay, throw-away authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;

    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    let address = address.to_canonical();
    if !address.is_unspecified() && !names.contains(&address.to_string()) {
        names.push(address.to_string());
    }
    let mut params = dated(CertificateParams::new(names)?);
    params.distinguished_name.push(DnType::CommonName, "birdtape replay");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    // Strict checkers, Python's since 3.13, want to see whose key signed.
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, &authority)?;
    Ok((authority.pem(), certificate.der().clone(), PrivatePkcs8KeyDer::from(key.serialize_der()).into()))
}

fn dated(mut params: CertificateParams) -> CertificateParams {
    let since_epoch = Duration::from_micros(u64::try_from(SystemClock::new().wall().0).unwrap_or(0));
    let now = rcgen::date_time_ymd(1970, 1, 1) + since_epoch;
    params.not_before = now - BACKDATED;
    params.not_after = now + VALID_FOR;
    params
}

/// A client's connection, with TLS or without, or no socket at all.
pub(super) enum ServerIo {
    Plain(TcpStream),
    Pipe(BoxedIo),
    Tls { stream: Box<TlsStream<TcpStream>>, says_farewell: bool },
}

/// Shakes hands if there is TLS. Who speaks plain HTTP to it is told so in HTTP; `None` when nothing came of it.
pub(super) async fn accept(tcp: TcpStream, tls: Option<&ServerTls>, patience: Duration) -> Option<ServerIo> {
    let Some(tls) = tls else { return Some(ServerIo::Plain(tcp)) };
    let acceptor = TlsAcceptor::from(Arc::clone(&tls.config));
    let shaking = async move {
        let mut first = [0];
        if tcp.peek(&mut first).await? == 1 && first[0] != TLS_HANDSHAKE {
            tell_plain_http(tcp).await?;
            return Err(io::Error::other("the client does not speak TLS"));
        }
        acceptor.accept(tcp).await
    };
    match timeout(patience, shaking).await {
        Ok(Ok(stream)) => Some(ServerIo::Tls { stream: Box::new(stream), says_farewell: true }),
        Ok(Err(error)) => {
            tracing::debug!(%error, "no TLS handshake");
            None
        }
        Err(_) => {
            tracing::debug!("the TLS handshake took too long");
            None
        }
    }
}

/// Answers, and reads what is there already: unread bytes would turn the end into a reset that overtakes the answer.
async fn tell_plain_http(mut tcp: TcpStream) -> io::Result<()> {
    drop(tcp.try_read(&mut [0; 8192]));
    tcp.write_all(NOT_TLS).await?;
    tcp.shutdown().await
}

impl ServerIo {
    /// Makes the end of this connection a TCP reset, without a farewell of TLS before it.
    pub(super) fn reset_at_end(&mut self) {
        let tcp = match self {
            Self::Plain(tcp) => tcp,
            // Its end is its reset.
            Self::Pipe(_) => return,
            Self::Tls { stream, says_farewell } => {
                *says_farewell = false;
                stream.get_ref().0
            }
        };
        if let Err(error) = tcp.set_zero_linger() {
            tracing::debug!(%error, "closed instead of reset");
        }
    }
}

impl Drop for ServerIo {
    /// TLS libraries take an end without `close_notify` for an attack, so it is sent however a connection ends.
    fn drop(&mut self) {
        if let Self::Tls { stream, says_farewell: true } = self {
            let (tcp, session) = stream.get_mut();
            session.send_close_notify();
            // As much as the socket takes at once; a client that takes nothing learns of the end from TCP.
            while session.wants_write() && session.write_tls(&mut AtOnce(tcp)).is_ok_and(|n| n > 0) {}
        }
    }
}

/// Writes without waiting.
struct AtOnce<'a>(&'a TcpStream);

impl io::Write for AtOnce<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsyncRead for ServerIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Pipe(io) => Pin::new(io).poll_read(cx, buf),
            Self::Tls { stream, .. } => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for ServerIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Self::Pipe(io) => Pin::new(io).poll_write(cx, bytes),
            Self::Tls { stream, .. } => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write_vectored(cx, slices),
            Self::Pipe(io) => Pin::new(io).poll_write_vectored(cx, slices),
            Self::Tls { stream, .. } => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(tcp) => tcp.is_write_vectored(),
            Self::Pipe(io) => io.is_write_vectored(),
            Self::Tls { stream, .. } => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Pipe(io) => Pin::new(io).poll_flush(cx),
            Self::Tls { stream, .. } => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Pipe(io) => Pin::new(io).poll_shutdown(cx),
            Self::Tls { stream, .. } => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
