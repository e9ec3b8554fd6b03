//! The fake peer: who may come in, and in which words the others are turned away.

use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::model::{Provider, Response, Secret};
use crate::provider::{Answer, Asked, PeerAction, PeerId, ServerSettings, key_digest, live_path, same_key};

/// Connections a key may have.
///
/// Documented: one (twitterapi.io blog, "Using WebSocket for Real-Time Twitter Data", 2026-04).
const MAX_CONNECTIONS: u32 = 1;

/// How often an idle connection gets a protocol ping.
///
/// Documented: the server pings, and drops a peer that has not answered for about 50 s (docs.twitterapi.io,
/// "WebSocket stream"). The period is not documented; 20 s leaves a peer two chances.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// What happens to the second connection of a key; the provider's pages disagree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Takeover {
    /// It is refused with 1008 (blog, 2026-04).
    #[default]
    Reject,
    /// It wins; the older one gets `replaced` and 4001 (docs, "WebSocket stream").
    Replace,
}

/// The provider's side of all its connections.
#[derive(Debug)]
pub struct Server {
    /// Which of the two published policies is played.
    pub takeover: Takeover,
    key: Option<Secret>,
    max_connections: u32,
    /// Who is connected, and with the digest of which key; oldest first.
    peers: Vec<(PeerId, [u8; 32])>,
    pending: Vec<PeerAction>,
}

impl Server {
    /// A peer without connections, which turns the second connection of a key away.
    pub fn new(settings: ServerSettings) -> Self {
        let max_connections = settings.max_connections.unwrap_or(MAX_CONNECTIONS);
        let takeover = match settings.switches.word(Provider::TwitterapiIo, "takeover") {
            "replace" => Takeover::Replace,
            _ => Takeover::Reject,
        };
        Self { takeover, key: settings.key, max_connections, peers: Vec::new(), pending: Vec::new() }
    }

    /// Answers a request.
    ///
    /// Documented: the bodies of 401 and 403 (docs.twitterapi.io, "Errors"), where 401 is a wrong key and 403 none.
    pub fn asked(&mut self, peer: PeerId, asked: &Asked<'_>, _now: Instant) -> Answer {
        if asked.path != live_path(Provider::TwitterapiIo) {
            return Answer::Http(Response::json(404, r#"{"detail":"Not Found"}"#));
        }
        if asked.method != "GET" {
            return Answer::Http(Response::json(405, r#"{"detail":"Method Not Allowed"}"#));
        }
        if !asked.wants_upgrade {
            let mut response = Response::json(426, r#"{"detail":"this address speaks WebSocket only"}"#);
            response.headers.push(("upgrade".to_owned(), "websocket".to_owned()));
            return Answer::Http(response);
        }
        let key = asked.header("x-api-key").map(str::trim).unwrap_or_default();
        if key.is_empty() {
            let body = r#"{"error":"Forbidden","message":"API key required. Please include x-api-key in the request headers"}"#;
            return Answer::Http(Response::json(403, body));
        }
        if self.key.as_ref().is_some_and(|right| !same_key(right.expose(), key)) {
            return Answer::Http(Response::json(401, r#"{"error":"Unauthorized","message":"API key is invalid"}"#));
        }
        self.admit(peer, key)
    }

    fn admit(&mut self, peer: PeerId, key: &str) -> Answer {
        let digest = key_digest(key);
        let same = |&&(_, other): &&(PeerId, [u8; 32])| other == digest;
        let n_open = self.peers.iter().filter(same).count();
        if n_open >= self.max_connections as usize {
            match (self.takeover, self.peers.iter().find(same).map(|&(oldest, _)| oldest)) {
                (Takeover::Replace, Some(oldest)) => self.replace(oldest),
                _ => return refuse_second(),
            }
        }
        self.peers.push((peer, digest));
        Answer::WebSocket { subprotocol: None }
    }

    fn replace(&mut self, oldest: PeerId) {
        self.peers.retain(|&(peer, _)| peer != oldest);
        self.pending.push(PeerAction::Send(oldest, Bytes::from_static(br#"{"event_type":"replaced"}"#)));
        self.pending.push(PeerAction::Close { peer: oldest, code: 4001, reason: "replaced by a newer connection".to_owned() });
    }

    /// What a takeover wants done to other connections; to be asked for after [`asked`](Self::asked).
    pub fn take_actions(&mut self) -> Vec<PeerAction> {
        std::mem::take(&mut self.pending)
    }

    /// Nothing: clean replay adds no greeting, the tape has its own.
    pub fn greeting(&mut self, _peer: PeerId, _next: Option<&[u8]>) -> Vec<Bytes> {
        Vec::new()
    }

    /// Every connection gets everything.
    pub fn wants(&mut self, _peer: PeerId, _envelope: &[u8]) -> bool {
        true
    }

    /// Clients have nothing to say here; what they say is ignored.
    pub fn heard(&mut self, _peer: PeerId, _message: &[u8], _now: Instant) -> Vec<PeerAction> {
        self.take_actions()
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

/// Documented: the code 1008 (blog, 2026-04); its words are ours.
fn refuse_second() -> Answer {
    let reason = "only one connection per API key is allowed".to_owned();
    Answer::WebSocketThenClose { messages: Vec::new(), code: 1008, reason }
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

    fn ask(server: &mut Server, peer: PeerId, method: &str, path: &str, key: Option<&str>, wants_upgrade: bool) -> String {
        let headers: Vec<_> = key.iter().map(|key| ("x-api-key".to_owned(), (*key).to_owned())).collect();
        let asked = Asked { method, path, query: "api_key=right", headers: &headers, body: b"", wants_upgrade };
        match server.asked(peer, &asked, Instant::now()) {
            Answer::Http(response) => format!("{} {}", response.status, std::str::from_utf8(&response.body).unwrap()),
            other => format!("{other:?}"),
        }
    }

    const LIVE: &str = "/twitter/tweet/websocket";

    #[test]
    fn who_may_come_in() {
        let mut server = server(Some("right"));
        let table = [
            ask(&mut server, 1, "GET", "/", Some("right"), true),
            ask(&mut server, 1, "POST", LIVE, Some("right"), true),
            ask(&mut server, 1, "GET", LIVE, Some("right"), false),
            ask(&mut server, 1, "GET", LIVE, None, true),
            ask(&mut server, 1, "GET", LIVE, Some(" "), true),
            ask(&mut server, 1, "GET", LIVE, Some("wrong"), true),
            ask(&mut server, 1, "GET", LIVE, Some("right"), true),
            ask(&mut server, 2, "GET", LIVE, Some("right"), true),
        ];
        expect![[r#"
            404 {"detail":"Not Found"}
            405 {"detail":"Method Not Allowed"}
            426 {"detail":"this address speaks WebSocket only"}
            403 {"error":"Forbidden","message":"API key required. Please include x-api-key in the request headers"}
            403 {"error":"Forbidden","message":"API key required. Please include x-api-key in the request headers"}
            401 {"error":"Unauthorized","message":"API key is invalid"}
            WebSocket { subprotocol: None }
            WebSocketThenClose { messages: [], code: 1008, reason: "only one connection per API key is allowed" }"#]]
        .assert_eq(&table.join("\n"));
        server.gone(2);
        assert!(ask(&mut server, 3, "GET", LIVE, Some("right"), true).contains("1008"), "a refused peer held no place");
        server.gone(1);
        assert_eq!(ask(&mut server, 3, "GET", LIVE, Some("right"), true), "WebSocket { subprotocol: None }");
        assert!(!format!("{server:?}").contains("right"));
        assert!(same_key("a", "a") && !same_key("a", "ab") && !same_key("a", ""));
    }

    #[test]
    fn any_key_has_its_own_place() {
        let mut server = server(None);
        for (peer, key) in [(1, "a"), (2, "b")] {
            assert_eq!(ask(&mut server, peer, "GET", LIVE, Some(key), true), "WebSocket { subprotocol: None }");
        }
        assert!(ask(&mut server, 3, "GET", LIVE, Some("a"), true).contains("1008"));
    }

    #[test]
    fn the_newer_policy_replaces_the_older_connection() {
        let mut server = server(None);
        server.takeover = Takeover::Replace;
        for peer in [1, 2] {
            assert_eq!(ask(&mut server, peer, "GET", LIVE, Some("a"), true), "WebSocket { subprotocol: None }");
        }
        expect![[r#"[Send(1, b"{\"event_type\":\"replaced\"}"), Close { peer: 1, code: 4001, reason: "replaced by a newer connection" }]"#]].assert_eq(&format!("{:?}", server.take_actions()));
        assert_eq!(server.take_actions(), []);
    }

    #[test]
    fn client_and_server_joined() {
        let mut server = AnyServer::TwitterapiIo(server(Some("right")));
        let mut first = Player::new(settings_with_key(Provider::TwitterapiIo, "right", Auth::Header));
        let mut second = Player::new(settings_with_key(Provider::TwitterapiIo, "right", Auth::Header));
        let mut stranger = Player::new(settings_with_key(Provider::TwitterapiIo, "wrong", Auth::Header));
        for (peer, player) in [&mut first, &mut second, &mut stranger].into_iter().enumerate() {
            player.play("0s start");
            player.dial(&mut server, peer as PeerId);
        }
        server.gone(0);
        second.play("1000s wait");
        second.dial(&mut server, 1);
        second.play(r#"1001s frame {"event_type":"connected"} | 1002s close 1001"#);
        expect![[r#"
            0s dial not before 0s
        "#]]
        .assert_eq(&first.take());
        expect![[r#"
            0s dial not before 0s
            0s lost * refused (connection closed with code 1008 "only one connection per API key is allowed": another connection with this key is open and only one is allowed, or the key is bad)
            0s say Error: connection closed with code 1008 "only one connection per API key is allowed": another connection with this key is open and only one is allowed, or the key is bad; dialling again in 15m
            0s dial not before 900s
            1002s lost * connection_lost (connection closed with code 1001: the provider is going away, probably restarting)
            1002s say Warn: connection closed with code 1001: the provider is going away, probably restarting; dialling again in 1m 34s
            1002s dial not before 1095.1s
        "#]].assert_eq(&second.take());
        expect![[r#"
            0s dial not before 0s
            0s lost * auth (connection refused with HTTP status 401 "Unauthorized: API key is invalid": the API key is wrong; set the right one and start again)
            0s stop Credentials: connection refused with HTTP status 401 "Unauthorized: API key is invalid": the API key is wrong; set the right one and start again; this source is given up
        "#]].assert_eq(&stranger.take());
    }
}
