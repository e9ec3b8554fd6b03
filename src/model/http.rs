//! Openings, requests and answers as plain data: made by providers, carried by the network, shown to nobody whole.

use std::time::Duration;

use bytes::Bytes;

use super::Secret;
use super::time::parse_http_date;

/// Why a connection could not be made or did not last, below the provider's protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetFault {
    /// The host has no address, or nobody answered for it.
    Dns,
    /// Nobody listens, or no way leads there.
    Connect,
    /// The certificate or the TLS handshake was refused.
    Tls,
    /// No answer in time.
    Timeout,
    /// The answer was not HTTP, or not the upgrade that was asked for.
    Handshake,
    /// A frame broke the WebSocket protocol (RFC 6455) or the stream's framing.
    Malformed,
    /// A text frame that is not UTF-8.
    InvalidUtf8,
    /// A frame or message over the limit.
    Oversized,
    /// The connection was reset or ended without a farewell.
    Reset,
}

impl NetFault {
    /// The word in segments and output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::Handshake => "handshake",
            Self::Malformed => "malformed",
            Self::InvalidUtf8 => "invalid_utf8",
            Self::Oversized => "oversized",
            Self::Reset => "reset",
        }
    }
}

/// Where a connection goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Whether TLS is spoken.
    pub tls: bool,
    /// Host name or address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl Endpoint {
    /// `host` or `host:port` as the `Host` header wants it.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        let usual = if self.tls { 443 } else { 80 };
        if self.port == usual { host } else { format!("{host}:{}", self.port) }
    }
}

/// How live envelopes travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// WebSocket messages.
    WebSocket,
    /// A response body that never ends, as server-sent events or JSON lines.
    Stream,
}

/// Framing of a [`Transport::Stream`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// `data: {…}` and an empty line; a comment `:` keeps alive.
    Sse,
    /// One JSON value a line; an empty line keeps alive.
    Lines,
}

/// A live connection to be opened.
///
/// Every value that could carry a key is a [`Secret`]; [`shown`](Self::shown) is the only printable address.
#[derive(Clone, Debug)]
pub struct Opening {
    /// WebSocket or endless response.
    pub transport: Transport,
    /// Where to.
    pub endpoint: Endpoint,
    /// Path and query as sent.
    pub target: Secret,
    /// Headers beyond `Host` and the upgrade's own; a subprotocol offer stands here as `sec-websocket-protocol`.
    pub headers: Vec<(&'static str, Secret)>,
    /// The address without secrets.
    pub shown: String,
}

/// A request beside the live connection.
#[derive(Clone, Debug)]
pub struct Request {
    /// `GET`, `POST` …
    pub method: &'static str,
    /// Where to.
    pub endpoint: Endpoint,
    /// Path and query as sent.
    pub target: Secret,
    /// Headers beyond `Host` and `Content-Length`.
    pub headers: Vec<(&'static str, Secret)>,
    /// The body; recorded, so it must hold no key.
    pub body: String,
    /// The address without secrets.
    pub shown: String,
}

/// An answer, whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    /// HTTP status.
    pub status: u16,
    /// Headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
}

impl Response {
    /// An answer with a JSON body.
    pub fn json(status: u16, body: impl Into<String>) -> Self {
        let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
        Self { status, headers, body: Bytes::from(body.into()) }
    }

    /// The first header of that name (lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// `Retry-After`, in seconds or as a date; rubbish is `None`, more than a day is a day, a date that has passed is no wait.
    ///
    /// A date counts from the answer's own `Date`, so that no clock of ours has to agree with the server's; without one it is
    /// `None`.
    pub fn retry_after(&self) -> Option<Duration> {
        let text = self.header("retry-after")?.trim();
        let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let seconds = if is_number {
            // Too long for a number is too long for a wait.
            text.parse().unwrap_or(u64::MAX)
        } else {
            let (until, said) = (parse_http_date(text)?, parse_http_date(self.header("date")?)?);
            u64::try_from(until.since(said) / 1_000_000).unwrap_or(0)
        };
        Some(Duration::from_secs(seconds.min(86_400)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_read_in_every_form() {
        let wait = |retry_after: &str, date: Option<&str>| {
            let mut response = Response::json(503, "");
            response.headers.push(("retry-after".to_owned(), retry_after.to_owned()));
            response.headers.extend(date.map(|date| ("date".to_owned(), date.to_owned())));
            response.retry_after().map(|wait| wait.as_secs())
        };
        let noon = Some("Mon, 02 Nov 2026 12:00:00 GMT");
        for (text, wanted) in [
            ("0", Some(0)),
            (" 90 ", Some(90)),
            ("1000000000", Some(86_400)),
            ("99999999999999999999999", Some(86_400)),
            ("Mon, 02 Nov 2026 12:02:00 GMT", Some(120)),
            ("Mon, 02 Nov 2026 11:00:00 GMT", Some(0)),
            ("Thu, 02 Nov 2051 12:00:00 GMT", Some(86_400)),
            ("", None),
            ("-5", None),
            ("+5", None),
            ("1.5", None),
            ("soon", None),
            ("2026-11-02T12:02:00Z", None),
            ("Mon, 02 Nov 2026 25:61:00 GMT", None),
        ] {
            assert_eq!(wait(text, noon), wanted, "{text:?}");
        }
        assert_eq!(wait("Mon, 02 Nov 2026 12:02:00 GMT", None), None);
        assert_eq!(wait("Mon, 02 Nov 2026 12:02:00 GMT", Some("yesterday")), None);
        assert_eq!(wait("7", None), Some(7));
    }
}
