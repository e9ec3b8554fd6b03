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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::provider::Auth;
    use crate::provider::Server as AnyServer;
    use crate::provider::script::{Player, settings_with_key};
    use expect_test::expect;

    fn server(key: Option<&str>) -> Server {
        Server::new(ServerSettings { key: key.and_then(Secret::new), max_connections: None, ..ServerSettings::default() })
    }

    fn ask(server: &mut Server, peer: PeerId, path: &str, query: &str, key: Option<&str>, wants_upgrade: bool) -> String {
        let headers: Vec<_> = key.iter().map(|key| ("x-api-key".to_owned(), (*key).to_owned())).collect();
        let asked = Asked { method: "GET", path, query, headers: &headers, body: b"", wants_upgrade };
        match server.asked(peer, &asked, Instant::now()) {
            Answer::Http(response) => format!("{} {}", response.status, std::str::from_utf8(&response.body).unwrap()),
            other => format!("{other:?}"),
        }
    }

    const LIVE: &str = "/v1/twitter/stream";

    #[test]
    fn who_may_come_in() {
        let mut server = server(Some("ri ght"));
        let table = [
            ask(&mut server, 1, "/v1/twitter", "", Some("ri ght"), true),
            ask(&mut server, 1, LIVE, "", Some("ri ght"), false),
            ask(&mut server, 1, LIVE, "", None, true),
            ask(&mut server, 1, LIVE, "api_key=wrong", None, true),
            ask(&mut server, 1, LIVE, "api_key=ri%20ght", Some("wrong"), true),
            ask(&mut server, 1, LIVE, "api_key=ri%20ght", None, true),
            ask(&mut server, 2, LIVE, "", Some("ri ght"), true),
        ];
        expect![[r#"
            404 {"detail":"Not Found"}
            426 {"detail":"WebSocket upgrade required"}
            WebSocketThenClose { messages: [b"{\"type\":\"error\",\"code\":4001,\"message\":\"Invalid or missing API key\"}"], code: 4001, reason: "Invalid or missing API key" }
            WebSocketThenClose { messages: [b"{\"type\":\"error\",\"code\":4001,\"message\":\"Invalid or missing API key\"}"], code: 4001, reason: "Invalid or missing API key" }
            WebSocketThenClose { messages: [b"{\"type\":\"error\",\"code\":4001,\"message\":\"Invalid or missing API key\"}"], code: 4001, reason: "Invalid or missing API key" }
            WebSocket { subprotocol: None }
            WebSocket { subprotocol: None }"#]].assert_eq(&table.join("\n"));
        for peer in 3..6 {
            assert_eq!(ask(&mut server, peer, LIVE, "", Some("ri ght"), true), "WebSocket { subprotocol: None }");
        }
        expect![[r#"WebSocketThenClose { messages: [b"{\"type\":\"error\",\"code\":4003,\"message\":\"Connection limit reached for this API key\"}"], code: 4003, reason: "Connection limit reached for this API key" }"#]].assert_eq(&ask(&mut server, 6, LIVE, "", Some("ri ght"), true));
        server.gone(3);
        assert_eq!(ask(&mut server, 6, LIVE, "", Some("ri ght"), true), "WebSocket { subprotocol: None }");
    }

    #[test]
    fn what_clients_say_is_taken_silently() {
        let mut server = server(None);
        for message in [&br#"{"type":"pong"}"#[..], b"{}", b"", b"\xff"] {
            assert_eq!(server.heard(1, message, Instant::now()), []);
        }
        assert!(server.greeting(1, Some(b"{}")).is_empty() && server.wants(1, b"{}"));
    }

    #[test]
    fn client_and_server_joined() {
        let mut server = AnyServer::Scrapebadger(Server::new(ServerSettings {
            key: Secret::new("right"),
            max_connections: Some(2),
            ..ServerSettings::default()
        }));
        let header = settings_with_key(Provider::Scrapebadger, "right", Auth::Header);
        let query = settings_with_key(Provider::Scrapebadger, "right", Auth::Query);
        let wrong = settings_with_key(Provider::Scrapebadger, "wrong", Auth::Query);
        let mut all = String::new();
        for (peer, settings) in [header.clone(), query, header, wrong].into_iter().enumerate() {
            let mut player = Player::new(settings);
            player.play("0s start");
            player.dial(&mut server, peer as PeerId);
            player.play(r#"1s frame {"type":"ping"}"#);
            all += &format!("-- {peer}\n{}", player.take());
        }
        expect![[r#"
            -- 0
            0s dial not before 0s
            1s send {"type":"pong"}
            -- 1
            0s dial not before 0s
            1s send {"type":"pong"}
            -- 2
            0s dial not before 0s
            0s lost * refused (the provider sent error 4003 "Connection limit reached for this API key": this key has as many connections as it may have; end another one)
            0s say Error: the provider sent error 4003 "Connection limit reached for this API key": this key has as many connections as it may have; end another one; dialling again in 15m
            0s dial not before 900s
            -- 3
            0s dial not before 0s
            0s lost * auth (the provider sent error 4001 "Invalid or missing API key": the API key is missing or wrong; set the right one and start again)
            0s stop Credentials: the provider sent error 4001 "Invalid or missing API key": the API key is missing or wrong; set the right one and start again; this source is given up
        "#]].assert_eq(&all);
    }
}
