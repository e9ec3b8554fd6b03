//! The fake peer: who may come in, and in which words the others are turned away.

use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::model::{Provider, Response, Secret};
use crate::provider::{Answer, Asked, PeerAction, PeerId, ServerSettings, key_digest, live_path, same_key};

/// Connections a key may have.
///
/// Documented: five, the sixth gets error 4003 (scrapebadger.com/docs/twitter-streams).
const MAX_CONNECTIONS: u32 = 5;

/// How often an idle connection gets a protocol ping; nothing is documented, so one that suits every proxy.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// The provider's side of all its connections.
#[derive(Debug)]
pub struct Server {
    key: Option<Secret>,
    max_connections: u32,
    /// Who is connected, and with the digest of which key.
    peers: Vec<(PeerId, [u8; 32])>,
}

impl Server {
    /// A peer without connections.
    pub fn new(settings: ServerSettings) -> Self {
        let max_connections = settings.max_connections.unwrap_or(MAX_CONNECTIONS);
        Self { key: settings.key, max_connections, peers: Vec::new() }
    }

    /// Answers a request; the key may stand in the header or in the query, the header counts first.
    ///
    /// Observed (vendor's packages): a wrong key is turned away after the upgrade, by an `error` message and a close.
    pub fn asked(&mut self, peer: PeerId, asked: &Asked<'_>, _now: Instant) -> Answer {
        if asked.path != live_path(Provider::Scrapebadger) {
            return Answer::Http(Response::json(404, r#"{"detail":"Not Found"}"#));
        }
        if asked.method != "GET" {
            return Answer::Http(Response::json(405, r#"{"detail":"Method Not Allowed"}"#));
        }
        if !asked.wants_upgrade {
            let mut response = Response::json(426, r#"{"detail":"WebSocket upgrade required"}"#);
            response.headers.push(("upgrade".to_owned(), "websocket".to_owned()));
            return Answer::Http(response);
        }
        let in_header = asked.header("x-api-key").map(|key| key.trim().to_owned()).filter(|key| !key.is_empty());
        let key = in_header.or_else(|| asked.query_value("api_key")).unwrap_or_default();
        let right = !key.is_empty() && self.key.as_ref().is_none_or(|right| same_key(right.expose(), &key));
        if !right {
            return turn_away(4001, "Invalid or missing API key");
        }
        let digest = key_digest(&key);
        let n_open = self.peers.iter().filter(|(_, other)| *other == digest).count();
        if n_open >= self.max_connections as usize {
            return turn_away(4003, "Connection limit reached for this API key");
        }
        self.peers.push((peer, digest));
        Answer::WebSocket { subprotocol: None }
    }

    /// Nothing: clean replay adds no greeting, the tape has its own.
    pub fn greeting(&mut self, _peer: PeerId, _next: Option<&[u8]>) -> Vec<Bytes> {
        Vec::new()
    }

    /// Every connection gets everything: monitors and rules of a key share all its connections.
    pub fn wants(&mut self, _peer: PeerId, _envelope: &[u8]) -> bool {
        true
    }

    /// `pong` is taken silently; what else clients say is ignored.
    ///
    /// A missing pong is not punished here: clean replay adds no close of its own.
    pub fn heard(&mut self, _peer: PeerId, _message: &[u8], _now: Instant) -> Vec<PeerAction> {
        Vec::new()
    }

    /// A connection ended: its place is free.
    pub fn gone(&mut self, peer: PeerId) {
        self.peers.retain(|&(other, _)| other != peer);
    }

    /// How often an idle connection gets a protocol ping.
    pub fn keepalive(&self) -> Duration {
        KEEPALIVE
    }
}

/// The `error` message and the close with the same number; the words are fixed ASCII without quotes.
fn turn_away(code: u16, words: &str) -> Answer {
    let message = format!(r#"{{"type":"error","code":{code},"message":"{words}"}}"#);
    Answer::WebSocketThenClose { messages: vec![Bytes::from(message)], code, reason: words.to_owned() }
}
