//! What happened to a connection while it was recorded, so that it can happen again.
//!
//! A tape knows how each connection ended, who refused one and with which answer, and when the next one was open. It
//! does not know of attempts that nobody answered: those are left out.

use std::time::Duration;

use bytes::Bytes;

use crate::archive::{Closed, Record};
use crate::model::{Provider, RecordKind, Response, UnixMicros};
use crate::provider::{is_live_path, provider_of_path};

/// A recorder that hung up after so long without an envelope did so because of the silence.
const SILENCE: Duration = Duration::from_secs(15);

/// Something that happened to the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Happening {
    /// A connection was open.
    Opened,
    /// The provider closed it.
    Closed {
        /// WebSocket close code; an endless response has none.
        code: Option<u16>,
        /// Its reason.
        reason: String,
    },
    /// It broke off.
    Reset,
    /// Nothing came any more, not even a sign of life.
    Stalled,
    /// An attempt was refused with this answer.
    Refused(Response),
}

/// Follows the records of a provider's connections.
#[derive(Debug)]
pub(super) struct Watch {
    provider: Provider,
    heard_at: Option<UnixMicros>,
}

impl Watch {
    pub(super) fn new(provider: Provider) -> Self {
        Self { provider, heard_at: None }
    }

    /// An envelope was received.
    pub(super) fn heard(&mut self, at: UnixMicros) {
        self.heard_at = Some(at);
    }

    /// What a record that is no envelope says, and when that was.
    pub(super) fn look(&mut self, record: &Record) -> Option<(UnixMicros, Happening)> {
        match record.kind {
            RecordKind::Open => Some((record.at, Happening::Opened)),
            RecordKind::Close => self.closed(record),
            RecordKind::Http => self.refused(record).map(|refused| (record.at, refused)),
            RecordKind::Frame | RecordKind::Sent | RecordKind::Note => None,
        }
    }

    fn closed(&self, record: &Record) -> Option<(UnixMicros, Happening)> {
        let closed: Closed = serde_json::from_slice(&record.body).ok()?;
        let silent_since = self.heard_at.filter(|heard_at| heard_at.plus(SILENCE) <= record.at);
        match (closed.by.as_str(), closed.fault.as_deref(), silent_since) {
            ("peer", ..) => Some((record.at, Happening::Closed { code: closed.code, reason: closed.reason })),
            ("us", _, Some(heard_at)) | ("network", Some("timeout"), Some(heard_at)) => Some((heard_at, Happening::Stalled)),
            ("network", ..) => Some((record.at, Happening::Reset)),
            // The recorder was stopped; the provider would have gone on.
            _ => None,
        }
    }

    /// An attempt to open the live connection that got an answer other than that.
    fn refused(&self, record: &Record) -> Option<Happening> {
        let info: serde_json::Value = serde_json::from_str(record.info.as_deref()?).ok()?;
        let url = info["url"].as_str()?;
        let path = url.split_once("://").map_or(url, |(_, rest)| rest.find('/').map_or("/", |at| &rest[at..]));
        let path = path.split('?').next().unwrap_or_default();
        let is_attempt = info["method"] == "GET" && is_live_path(path) && provider_of_path(path) == Some(self.provider);
        let status = info["status"].as_u64().and_then(|status| u16::try_from(status).ok()).filter(|status| *status >= 300)?;
        let headers = info["headers"].as_object().into_iter().flatten();
        let headers = headers.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())));
        // Its length is told anew.
        let headers = headers.filter(|(name, _)| !matches!(name.as_str(), "content-length" | "transfer-encoding" | "connection"));
        let body = Bytes::copy_from_slice(&record.body);
        is_attempt.then(|| Happening::Refused(Response { status, headers: headers.collect(), body }))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::model::{ConnId, Seq, Via};

    fn record(kind: RecordKind, second: i64, info: Option<&str>, body: &str) -> Record {
        let body = Bytes::copy_from_slice(body.as_bytes());
        let at = UnixMicros(second * 1_000_000);
        let info = info.map(str::to_owned);
        Record { line: Bytes::new(), n: Seq(1), at, kind, via: Via::Own, conn: ConnId(1), info, body, verbatim: true }
    }

    #[test]
    fn reads_how_connections_ended() {
        let close = |second: i64, body: &str| {
            let mut watch = Watch::new(Provider::Tweetstream);
            watch.heard(UnixMicros(10_000_000));
            watch.look(&record(RecordKind::Close, second, None, body)).map(|(at, what)| (at.0 / 1_000_000, what))
        };
        let closed = |code, reason: &str| Happening::Closed { code, reason: reason.to_owned() };
        assert_eq!(close(11, r#"{"code":1012,"reason":"restart","by":"peer"}"#), Some((11, closed(Some(1012), "restart"))));
        assert_eq!(close(11, r#"{"by":"peer"}"#), Some((11, closed(None, ""))));
        assert_eq!(close(11, r#"{"by":"network","fault":"reset"}"#), Some((11, Happening::Reset)));
        assert_eq!(close(70, r#"{"by":"network","fault":"timeout"}"#), Some((10, Happening::Stalled)));
        assert_eq!(close(70, r#"{"code":1000,"by":"us"}"#), Some((10, Happening::Stalled)), "from the last envelope on");
        assert_eq!(close(11, r#"{"code":1000,"by":"us"}"#), None);
        assert_eq!(close(11, "nonsense"), None);
    }

    #[test]
    fn reads_refusals_of_the_live_connection_only() {
        let look =
            |info: &str| Watch::new(Provider::Tweetstream).look(&record(RecordKind::Http, 5, Some(info), r#"{"error":"full"}"#));
        let refused = r#"{"method":"GET","url":"wss://ws.tweetstream.io/ws?apiKey=***","status":429,"headers":{"retry-after":"60","content-length":"16"}}"#;
        let Some((_, Happening::Refused(response))) = look(refused) else { panic!("not refused") };
        assert_eq!((response.status, response.headers.as_slice()), (429, &[("retry-after".to_owned(), "60".to_owned())][..]));
        for other in [
            r#"{"method":"GET","url":"https://api.tweetstream.io/api/history","status":429}"#,
            r#"{"method":"GET","url":"wss://ws.twitterapi.io/twitter/tweet/websocket","status":401}"#,
            r#"{"method":"GET","url":"wss://ws.tweetstream.io/ws","status":0,"fault":"connect"}"#,
        ] {
            assert!(look(other).is_none(), "{other}");
        }
    }
}
