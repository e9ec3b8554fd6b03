//! TweetStream's fake peer: who may come in.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{KEY_PARAMETER, SUBPROTOCOL, TOKEN_SUBPROTOCOL};
use crate::model::{Provider, Response, Secret};
use crate::provider::{Answer, Asked, PeerAction, PeerId, ServerSettings, live_path, same_key};

/// Connections a key may hold where the settings do not say.
///
/// Observed: ten on the plan now called Pro (three on the smallest), in a public comparison of the vendor's page.
const MAX_CONNECTIONS: u32 = 10;

/// How often an idle connection gets a protocol ping.
///
/// Undocumented at the provider; the vendor's SDK pings every 20 s from its side.
const PING_EVERY: Duration = Duration::from_secs(20);

/// The fake peer.
#[derive(Debug)]
pub struct Server {
    settings: ServerSettings,
    /// The key each live connection came with: slots are counted by key.
    peers: HashMap<PeerId, Secret>,
}

impl Server {
    /// A peer without connections.
    pub fn new(settings: ServerSettings) -> Self {
        Self { settings, peers: HashMap::new() }
    }

    /// Answers a handshake.
    pub fn asked(&mut self, peer: PeerId, asked: &Asked<'_>, _now: Instant) -> Answer {
        if asked.path != live_path(Provider::Tweetstream) {
            return refuse(404, "not found");
        }
        if asked.method != "GET" {
            return refuse(400, "the stream is opened with GET");
        }
        if !asked.wants_upgrade {
            let mut response = error(426, "this address speaks WebSocket only");
            response.headers.push(("upgrade".to_owned(), "websocket".to_owned()));
            return Answer::Http(response);
        }
        let Some(key) = key_of(asked) else { return refuse(401, "missing API key") };
        if self.settings.key.as_ref().is_some_and(|wanted| !same_key(wanted.expose(), key.expose())) {
            return refuse(401, "invalid API key");
        }
        let in_use = self.peers.values().filter(|held| same_key(held.expose(), key.expose())).count();
        if in_use >= self.settings.max_connections.unwrap_or(MAX_CONNECTIONS) as usize {
            return refuse(429, "connection limit reached");
        }
        self.peers.insert(peer, key);
        // The token subprotocol is never selected: that would send the key back.
        let offered = offers(asked).any(|offer| offer == SUBPROTOCOL);
        Answer::WebSocket { subprotocol: offered.then(|| SUBPROTOCOL.to_owned()) }
    }

    /// Nothing: an open socket is the greeting.
    pub fn greeting(&mut self, _peer: PeerId, _next: Option<&[u8]>) -> Vec<Bytes> {
        Vec::new()
    }

    /// Every connection gets everything: the watchlist belongs to the key.
    pub fn wants(&mut self, _peer: PeerId, _envelope: &[u8]) -> bool {
        true
    }

    /// No command over the socket is documented, so none is answered.
    pub fn heard(&mut self, _peer: PeerId, _message: &[u8], _now: Instant) -> Vec<PeerAction> {
        Vec::new()
    }

    /// A live connection ended: its slot is free.
    pub fn gone(&mut self, peer: PeerId) {
        self.peers.remove(&peer);
    }

    /// How often an idle connection gets a protocol ping.
    pub fn keepalive(&self) -> Duration {
        PING_EVERY
    }
}

/// The key, by subprotocol, bearer or query; the first way that is used decides.
pub(super) fn key_of(asked: &Asked<'_>) -> Option<Secret> {
    let offered = offers(asked).find_map(|offer| offer.strip_prefix(TOKEN_SUBPROTOCOL));
    if let Some(token) = offered {
        return Secret::new(token);
    }
    if let Some(header) = asked.header("authorization") {
        let (scheme, token) = header.split_once(' ')?;
        return scheme.eq_ignore_ascii_case("bearer").then(|| Secret::new(token)).flatten();
    }
    Secret::new(asked.query_value(KEY_PARAMETER)?)
}

/// The offered subprotocols; the header may stand several times (RFC 6455, section 11.3.4).
fn offers<'a>(asked: &'a Asked<'_>) -> impl Iterator<Item = &'a str> {
    let lines = asked.headers.iter().filter(|(name, _)| name == "sec-websocket-protocol");
    lines.flat_map(|(_, value)| value.split(',')).map(str::trim)
}

fn refuse(status: u16, why: &str) -> Answer {
    Answer::Http(error(status, why))
}

/// Documented: the SDKs read `error`, else `message`, from an error's body.
fn error(status: u16, why: &str) -> Response {
    Response::json(status, format!(r#"{{"error":"{why}"}}"#))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::model::UnixMicros;
    use crate::provider::{Action, Auth, Client, Input, Settings, tweetstream};

    /// Query, headers, answer.
    type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str);

    fn ask(server: &mut Server, peer: PeerId, query: &str, headers: &[(&str, &str)]) -> String {
        ask_any(server, peer, ("GET", "/ws", true), query, headers)
    }

    fn ask_any(
        server: &mut Server,
        peer: PeerId,
        (method, path, wants_upgrade): (&str, &str, bool),
        query: &str,
        headers: &[(&str, &str)],
    ) -> String {
        let headers: Vec<_> = headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let asked = Asked { method, path, query, headers: &headers, body: b"", wants_upgrade };
        shown(&server.asked(peer, &asked, Instant::now()))
    }

    fn shown(answer: &Answer) -> String {
        match answer {
            Answer::Http(r) => format!("{} {}", r.status, std::str::from_utf8(&r.body).unwrap()),
            Answer::WebSocket { subprotocol } => format!("101 {subprotocol:?}"),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn takes_the_key_in_every_way() {
        let mut server =
            Server::new(ServerSettings { key: Secret::new("k"), max_connections: None, ..ServerSettings::default() });
        let proto = "sec-websocket-protocol";
        let v1 = r#"101 Some("tweetstream.v1")"#;
        let wrong = r#"401 {"error":"invalid API key"}"#;
        let missing = r#"401 {"error":"missing API key"}"#;
        let cases: &[Case] = &[
            ("", &[(proto, "tweetstream.v1, tweetstream.auth.token.k")], v1),
            ("", &[(proto, "tweetstream.auth.token.k,tweetstream.v1")], v1),
            ("", &[(proto, "tweetstream.auth.token.k"), (proto, "tweetstream.v1")], v1),
            ("", &[(proto, "tweetstream.auth.token.k")], "101 None"),
            ("", &[("authorization", "Bearer k")], "101 None"),
            ("", &[("authorization", "bearer  k"), (proto, "tweetstream.v1")], v1),
            ("apiKey=k", &[], "101 None"),
            ("x=1&apiKey=%6b", &[(proto, "tweetstream.v1")], v1),
            ("", &[(proto, "tweetstream.v1, tweetstream.auth.token.kk")], wrong),
            ("apiKey=K", &[], wrong),
            ("apiKey=", &[], missing),
            ("apikey=k", &[], missing),
            ("", &[("authorization", "Basic k")], missing),
            ("", &[("authorization", "Bearer")], missing),
            ("", &[(proto, "tweetstream.v1")], missing),
            ("", &[], missing),
        ];
        for (peer, (query, headers, want)) in cases.iter().enumerate() {
            assert_eq!(ask(&mut server, peer as PeerId, query, headers), *want, "{query} {headers:?}");
        }
    }

    #[test]
    fn any_key_will_do_when_none_is_set() {
        let mut server = Server::new(ServerSettings::default());
        assert_eq!(ask(&mut server, 1, "apiKey=whatever", &[]), "101 None");
        assert!(ask(&mut server, 2, "", &[]).starts_with("401"));
    }

    #[test]
    fn other_requests_are_refused() {
        let mut server = Server::new(ServerSettings::default());
        let mut of = |what| ask_any(&mut server, 1, what, "apiKey=k", &[])[..3].to_owned();
        assert_eq!([of(("GET", "/ws", false)), of(("POST", "/ws", true)), of(("GET", "/other", true))], ["426", "400", "404"]);
    }

    #[test]
    fn counts_connections_by_key_and_frees_slots() {
        let mut server = Server::new(ServerSettings { key: None, max_connections: Some(2), ..ServerSettings::default() });
        let full = r#"429 {"error":"connection limit reached"}"#;
        assert_eq!(ask(&mut server, 1, "apiKey=a", &[]), "101 None");
        assert_eq!(ask(&mut server, 2, "apiKey=a", &[]), "101 None");
        assert_eq!(ask(&mut server, 3, "apiKey=a", &[]), full);
        assert_eq!(ask(&mut server, 4, "apiKey=b", &[]), "101 None");
        server.gone(1);
        assert_eq!(ask(&mut server, 5, "apiKey=a", &[]), "101 None");
        let mut server = Server::new(ServerSettings::default());
        let open = (0..12).filter(|&peer| ask(&mut server, peer, "apiKey=a", &[]) != full).count();
        assert_eq!(open, 10);
    }

    #[test]
    fn keys_are_not_in_debug_output() {
        let mut server =
            Server::new(ServerSettings { key: Secret::new("hunter2"), max_connections: None, ..ServerSettings::default() });
        ask(&mut server, 1, "apiKey=hunter2", &[]);
        assert!(!format!("{server:?}").contains("hunter2"));
    }

    /// Our client against our peer: every way to carry the key, and a wrong key that is not tried twice.
    #[test]
    fn client_and_server_meet() {
        for auth in [Auth::Subprotocol, Auth::Bearer, Auth::Query] {
            for (key, comes_in) in [("right", true), ("wrong", false)] {
                let mut server =
                    Server::new(ServerSettings { key: Secret::new("right"), max_connections: None, ..ServerSettings::default() });
                let mut settings = Settings { auth, scopes_every: Duration::ZERO, ..tweetstream::default_settings() };
                settings.credentials.key = Secret::new(key);
                let mut client = Client::new(settings);
                let now = Instant::now();
                client.on(now, Input::Start);
                assert!(matches!(client.next_action(), Some(Action::Dial { .. })));
                let opening = client.opening();
                let headers: Vec<_> = opening.headers.iter().map(|(n, v)| ((*n).to_owned(), v.expose().to_owned())).collect();
                let (path, query) = opening.target.expose().split_once('?').unwrap_or((opening.target.expose(), ""));
                let asked = Asked { method: "GET", path, query, headers: &headers, body: b"", wants_upgrade: true };
                match server.asked(1, &asked, now) {
                    Answer::WebSocket { subprotocol } => {
                        client.on(now, Input::Opened { subprotocol: subprotocol.as_deref() });
                        assert!(comes_in && client.next_action().is_none());
                    }
                    Answer::Http(response) => {
                        client.on(now, Input::Refused { response: &response });
                        assert!(!comes_in && matches!(client.next_action(), Some(Action::Lost { .. })));
                        assert!(matches!(client.next_action(), Some(Action::Stop { .. })));
                    }
                    other => panic!("{other:?}"),
                }
                let frame = include_str!("../../../fixtures/tweetstream/content.json").trim_end();
                assert!(server.wants(1, frame.as_bytes()));
                client.on(now, Input::Frame { decoded: &tweetstream::decode(frame), received_at: UnixMicros(0) });
                assert!(client.next_action().is_none() && server.greeting(1, None).is_empty());
            }
        }
    }
}
