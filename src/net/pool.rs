//! Requests of this machine's network: over connections that are kept for the next one, HTTP/2 where a server offers it.
//!
//! The proxies of the environment (`HTTPS_PROXY` and so on) are used, except for what stays on this machine. No redirect
//! is followed, no cookie kept, and no compression offered, so none has to be bounded.

use std::collections::VecDeque;
use std::error::Error as StdError;
use std::io;
use std::iter::successors;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use hyper::Method;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpInfo;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use reqwest::{Client, Url};
use tokio::time::timeout;

use super::client::{add_headers, http_failure, own_headers, read_answer};
use super::network::{
    CONNECT_TIMEOUT, NotFound, client_config, connect_failure, here_only, look_up, place, refused_plain, tls_failure,
};
use super::{Failure, Limits, SetupError, TlsOptions};
use crate::model::{NetFault, Request};

/// Connections to one server that are kept while nobody asks. Ours.
const IDLE_MAX: usize = 8;

/// Bytes of an HTTP/2 answer's headers that are read at all; [`Limits::header_bytes_max`] is looked at then.
const HEADER_LIST_BYTES: u32 = 64 << 10;

/// Connections remembered as such that an answer has come over.
const PROVEN_MAX: usize = 64;

/// Connections that are kept, to this machine and to others.
pub(super) struct Pool {
    /// Reaches loopback addresses only, whatever a name says, and past every proxy.
    here: Client,
    outside: Client,
    allow_plain: bool,
    /// Our ends of connections that have brought an answer: what breaks on one of them may just have been idle for too long.
    proven: Mutex<VecDeque<SocketAddr>>,
}

impl Pool {
    pub(super) fn new(tls: &rustls::ClientConfig, allow_plain: bool) -> Result<Self, SetupError> {
        let mut tls = tls.clone();
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let make = |here_only: bool| {
            let client = Client::builder()
                .tls_backend_preconfigured(tls.clone())
                .redirect(Policy::none())
                .referer(false)
                .connect_timeout(CONNECT_TIMEOUT)
                .pool_max_idle_per_host(IDLE_MAX)
                .http2_max_header_list_size(HEADER_LIST_BYTES)
                .dns_resolver(Names { here_only });
            let client = if here_only { client.no_proxy() } else { client.https_only(!allow_plain) };
            client.build().map_err(|error| SetupError::Tls { reason: error.to_string() })
        };
        Ok(Self { here: make(true)?, outside: make(false)?, allow_plain, proven: Mutex::default() })
    }

    /// Makes a request and reads the whole answer.
    ///
    /// A server may close a connection just when it is used again. Then a request that may be made twice is made once more.
    pub(super) async fn request(&self, request: &Request, limits: &Limits) -> Result<hyper::Response<Bytes>, Failure> {
        let place = place(&request.endpoint);
        let client = self.client_for(request, &place)?;
        let answer = async {
            let first = match self.send(client, request, &place).await {
                Err(broken) if broken.was_idle && matches!(request.method, "GET" | "HEAD") => {
                    tracing::debug!(place, "asked again: the connection was closed while nobody used it");
                    self.send(client, request, &place).await
                }
                other => other,
            };
            first.map_err(|broken| broken.failure)
        };
        let answer = timeout(limits.handshake_timeout, answer).await.unwrap_or_else(|_| {
            let seconds = limits.handshake_timeout.as_secs_f32();
            Err((NetFault::Timeout, format!("{place}: no answer within {seconds} s")))
        })?;
        read_answer(answer.into(), limits, &place).await
    }

    /// Keys travel in the request, so without TLS it stays on this machine unless that is allowed.
    fn client_for(&self, request: &Request, place: &str) -> Result<&Client, Failure> {
        let url = url(request, place)?;
        // The address as it will be dialled: `http://3221225985/` is one, too.
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let is_here = match host.parse::<IpAddr>() {
            Ok(ip) => Some(ip.to_canonical().is_loopback()),
            Err(_) if host == "localhost" => Some(true),
            Err(_) => None,
        };
        match (is_here, request.endpoint.tls || self.allow_plain) {
            (Some(true), _) | (None, false) => Ok(&self.here),
            (Some(false) | None, true) => Ok(&self.outside),
            (Some(false), false) => Err(refused_plain(place)),
        }
    }

    async fn send(&self, client: &Client, request: &Request, place: &str) -> Result<reqwest::Response, Broken> {
        match client.execute(build(request, place)?).await {
            Ok(response) => {
                if let Some(info) = response.extensions().get::<HttpInfo>() {
                    self.note(info.local_addr());
                }
                Ok(response)
            }
            Err(error) => {
                let failure = failure(&error, request, place);
                let was_idle = failure.0 == NetFault::Reset && our_end(&error).is_some_and(|end| self.is_proven(end));
                Err(Broken { failure, was_idle })
            }
        }
    }

    fn note(&self, end: SocketAddr) {
        let mut proven = self.proven.lock().unwrap_or_else(PoisonError::into_inner);
        if !proven.contains(&end) {
            if proven.len() == PROVEN_MAX {
                proven.pop_front();
            }
            proven.push_back(end);
        }
    }

    fn is_proven(&self, end: SocketAddr) -> bool {
        self.proven.lock().unwrap_or_else(PoisonError::into_inner).contains(&end)
    }
}

/// A client for a library that makes its own requests: HTTP/1.1, no redirects, `patience` for each request as a whole.
///
/// What goes where is the library's affair. With [`TlsOptions::allow_plain`] it is for addresses without TLS, past every proxy;
/// without, it speaks nothing but TLS.
///
/// # Errors
///
/// The file with certificate authorities cannot be used.
pub fn bare_client(options: &TlsOptions, patience: Duration) -> Result<Client, SetupError> {
    let mut tls = client_config(options.ca_file.as_deref())?;
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    let client = Client::builder()
        .tls_backend_preconfigured(tls)
        .http1_only()
        .redirect(Policy::none())
        .referer(false)
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(patience);
    let client = if options.allow_plain { client.no_proxy() } else { client.https_only(true) };
    client.build().map_err(|error| SetupError::Tls { reason: error.to_string() })
}

/// No answer came.
struct Broken {
    failure: Failure,
    /// The connection had served before.
    was_idle: bool,
}

impl From<Failure> for Broken {
    fn from(failure: Failure) -> Self {
        Self { failure, was_idle: false }
    }
}

/// Looks up names in our words, and for requests that must not leave this machine drops every address beyond it.
struct Names {
    here_only: bool,
}

impl Resolve for Names {
    fn resolve(&self, name: Name) -> Resolving {
        let here_only_wanted = self.here_only;
        Box::pin(async move {
            // The port is the address's affair: 0 is replaced by the one that was asked for.
            let mut found = look_up(name.as_str(), 0).await?;
            if here_only_wanted {
                found = here_only(found)?;
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// The address as a whole. It has to be the one that was asked for to the letter: what is signed or recorded must not differ.
fn url(request: &Request, place: &str) -> Result<Url, Failure> {
    let unfit = || (NetFault::Handshake, format!("{place}: the path or query holds characters that cannot be sent"));
    let scheme = if request.endpoint.tls { "https" } else { "http" };
    let target = request.target.expose();
    // The parser's own words are left out: they may quote the target.
    let url = Url::parse(&format!("{scheme}://{}{target}", request.endpoint.authority())).map_err(|_| unfit())?;
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let is_same = url.path() == path && url.query() == query && url.fragment().is_none() && url.username().is_empty();
    if is_same { Ok(url) } else { Err(unfit()) }
}

fn build(request: &Request, place: &str) -> Result<reqwest::Request, Failure> {
    let unfit = |_| (NetFault::Handshake, format!("{place}: the method holds characters that cannot be sent"));
    let method = request.method.parse::<Method>().map_err(unfit)?;
    let mut built = reqwest::Request::new(method, url(request, place)?);
    add_headers(built.headers_mut(), &own_headers(request), &request.headers, place)?;
    if !request.body.is_empty() {
        *built.body_mut() = Some(request.body.clone().into());
    }
    Ok(built)
}

fn chain<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    successors(Some(error), |&error| error.source())
}

/// Our end of the connection that an error came from.
fn our_end(error: &reqwest::Error) -> Option<SocketAddr> {
    let connected = chain(error).find_map(|error| error.downcast_ref::<legacy::Error>())?.connect_info()?;
    let mut extras = hyper::http::Extensions::new();
    connected.get_extras(&mut extras);
    extras.get::<HttpInfo>().map(HttpInfo::local_addr)
}

/// The cause in our words. The error itself is never shown: it quotes the address, and with it the key.
fn failure(error: &reqwest::Error, request: &Request, place: &str) -> Failure {
    if error.is_timeout() {
        let seconds = CONNECT_TIMEOUT.as_secs();
        return (NetFault::Timeout, format!("{place}: no answer within {seconds} s while connecting"));
    }
    for cause in chain(error) {
        if let Some(missing) = cause.downcast_ref::<NotFound>() {
            return missing.at(place);
        }
        if let Some(error) = cause.downcast_ref::<hyper::Error>() {
            return http_failure(error, place);
        }
        if let Some(error) = cause.downcast_ref::<io::Error>() {
            let is_tcp = matches!(
                error.kind(),
                io::ErrorKind::ConnectionRefused
                    | io::ErrorKind::TimedOut
                    | io::ErrorKind::NetworkUnreachable
                    | io::ErrorKind::HostUnreachable
            );
            // TCP that was there and breaks breaks in the handshake.
            let is_tls = request.endpoint.tls && !is_tcp;
            return if is_tls { tls_failure(error, place) } else { connect_failure(error, place) };
        }
    }
    let last = chain(error).skip(1).last().map_or_else(|| "no cause given".to_owned(), ToString::to_string);
    (NetFault::Connect, format!("{place}: cannot be reached ({last}); check the proxy, if there is one"))
}

#[cfg(test)]
mod tests;
