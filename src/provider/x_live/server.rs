//! The live pipeline's fake peer: who may come in, which session wants which topics.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{
    DEFAULT_HEARTBEAT, NOT_AUTHENTICATED, SESSION_MISSING, SESSION_NOT_FOUND, UPDATE_PATH, decode, is_direct_message, wire,
};
use crate::model::json::write_string;
use crate::model::{Framing, Message, Provider, Response, Secret};
use crate::provider::{Answer, Asked, PeerAction, PeerId, ServerSettings, form_values, live_path, same_key};

/// Code in a refusal of a single topic. Ours: only the shape of the item is documented (mautrix-twitter).
const TOPIC_REFUSED: i64 = 403;

/// The fake peer.
#[derive(Debug)]
pub struct Server {
    settings: ServerSettings,
    ttl: Duration,
    refuse_direct_messages: bool,
    peers: HashMap<PeerId, Peer>,
}

/// One endless response.
#[derive(Debug, Default)]
struct Peer {
    /// Our own greeting's, or those of the recorded configs that went by.
    sessions: HashSet<String>,
    /// It opened without topics, so it gets everything.
    everything: bool,
    /// Topic, and when it was last asked for.
    topics: HashMap<String, Instant>,
    /// What the last config told the client; a recorded config may say another number than ours.
    ttl: Duration,
}

impl Server {
    /// A peer without connections.
    pub fn new(settings: ServerSettings) -> Self {
        let ttl = Duration::from_millis(settings.switches.number(Provider::XLive, "ttl_ms"));
        let refuse_direct_messages = settings.switches.word(Provider::XLive, "dm_topics") == "at_opening";
        Self { settings, ttl, refuse_direct_messages, peers: HashMap::new() }
    }

    /// Answers an opening or a change of topics.
    pub fn asked(&mut self, peer: PeerId, asked: &Asked<'_>, now: Instant) -> Answer {
        self.expire(now);
        // Both spellings are in use: today's clients open without the version, an older one with it.
        let path = asked.path.strip_prefix("/1.1").unwrap_or(asked.path);
        let is_update = Some(path) == UPDATE_PATH.strip_prefix("/1.1");
        if !is_update && path != live_path(Provider::XLive) {
            return refuse(404, 34, "Sorry, that page does not exist.");
        }
        if lets_in(self.settings.key.as_ref(), asked).is_none() {
            return refuse(401, NOT_AUTHENTICATED, "Could not authenticate you.");
        }
        match (is_update, asked.method) {
            (false, "GET") => self.open(peer, asked, now),
            (true, "POST") => self.update(asked, now),
            _ => refuse(405, 86, "This method requires another HTTP method."),
        }
    }

    /// The config a connection cannot do without, unless the tape itself begins with one.
    pub fn greeting(&mut self, peer: PeerId, next: Option<&[u8]>) -> Vec<Bytes> {
        let recorded = next.and_then(config_of);
        let ttl = self.ttl;
        let Some(entry) = self.peers.get_mut(&peer) else { return Vec::new() };
        if recorded.is_some() {
            return Vec::new();
        }
        let session_id = format!("birdtape-session-{peer}");
        let (ttl_ms, heartbeat_ms) = (ttl.as_millis(), DEFAULT_HEARTBEAT.as_millis());
        let envelope = format!(
            r#"{{"topic":"/system/config","payload":{{"config":{{"session_id":"{session_id}","subscription_ttl_millis":{ttl_ms},"heartbeat_millis":{heartbeat_ms}}}}}}}"#
        );
        entry.sessions.insert(session_id);
        vec![Bytes::from(envelope)]
    }

    /// Whether that connection gets that envelope: by topic, unless it opened without any.
    ///
    /// Envelopes without a topic belong to nobody and go to everybody, as do those about the system.
    pub fn wants(&mut self, peer: PeerId, envelope: &[u8]) -> bool {
        let Some(peer) = self.peers.get_mut(&peer) else { return false };
        let topic = std::str::from_utf8(envelope).ok().and_then(wire::topic);
        match topic.as_deref() {
            Some(topic) if !topic.starts_with("/system/") => peer.everything || peer.topics.contains_key(topic),
            _ => {
                if let Some((session_id, ttl_ms)) = config_of(envelope) {
                    peer.sessions.insert(session_id);
                    peer.ttl = if ttl_ms == 0 { peer.ttl } else { Duration::from_millis(ttl_ms) };
                }
                true
            }
        }
    }

    /// Nothing is said upstream on an endless response.
    pub fn heard(&mut self, _peer: PeerId, _message: &[u8], _now: Instant) -> Vec<PeerAction> {
        Vec::new()
    }

    /// A live connection ended, and its sessions with it.
    pub fn gone(&mut self, peer: PeerId) {
        self.peers.remove(&peer);
    }

    /// How often an idle response gets a blank line or a comment.
    pub fn keepalive(&self) -> Duration {
        DEFAULT_HEARTBEAT
    }

    fn open(&mut self, peer: PeerId, asked: &Asked<'_>, now: Instant) -> Answer {
        // Clients write `topic` or `topics`, once or repeated, with literal or encoded commas.
        let named = form_values(asked.query).filter(|(name, _)| name == "topic" || name == "topics");
        let topics: HashMap<_, _> = named.flat_map(|(_, value)| list(&value)).map(|topic| (topic, now)).collect();
        let entry = Peer { everything: topics.is_empty(), topics, ttl: self.ttl, ..Peer::default() };
        self.peers.insert(peer, entry);
        // Inferred from what the public clients ask for and parse: the framing follows `Accept`.
        let sse = asked.header("accept").is_some_and(|accept| accept.contains("text/event-stream"));
        let (framing, media) = if sse {
            (Framing::Sse, "text/event-stream; charset=utf-8")
        } else {
            (Framing::Lines, "application/json; charset=utf-8")
        };
        let headers = [("content-type", media), ("cache-control", "no-cache, no-store")];
        Answer::Stream { framing, headers: headers.map(|(n, v)| (n.to_owned(), v.to_owned())).to_vec() }
    }

    fn update(&mut self, asked: &Asked<'_>, now: Instant) -> Answer {
        let Some(session_id) = asked.header("livepipeline-session").filter(|id| !id.is_empty()) else {
            return refuse(400, SESSION_MISSING, "LivePipeline-Session header is missing.");
        };
        let refuse_direct_messages = self.refuse_direct_messages;
        // Two replays of one tape share the recorded session: both are meant.
        let mut holders = self.peers.values_mut().filter(|peer| peer.sessions.contains(session_id)).peekable();
        if holders.peek().is_none() {
            return refuse(404, SESSION_NOT_FOUND, "Session not found.");
        }
        let body = String::from_utf8_lossy(asked.body);
        let of = |key: &str| form_values(&body).filter(|(name, _)| name == key).flat_map(|(_, v)| list(&v)).collect::<Vec<_>>();
        let (sub, unsub) = (of("sub_topics"), of("unsub_topics"));
        let mut refused = Vec::new();
        for peer in holders {
            for topic in &sub {
                let late = is_direct_message(topic) && !peer.topics.contains_key(topic) && !peer.everything;
                if !topic.starts_with('/') || (late && refuse_direct_messages) {
                    refused.push(topic.clone());
                } else {
                    peer.topics.insert(topic.clone(), now);
                }
            }
            peer.topics.retain(|topic, _| !unsub.contains(topic));
        }
        refused.sort_unstable();
        refused.dedup();
        Answer::Http(Response::json(200, String::from_utf8_lossy(&subscriptions(&refused))))
    }

    /// Forgets subscriptions that were not refreshed in time; the stream itself goes on, as at X.
    fn expire(&mut self, now: Instant) {
        for peer in self.peers.values_mut() {
            let ttl = peer.ttl;
            peer.topics.retain(|_, asked_at| now.saturating_duration_since(*asked_at) < ttl);
        }
    }
}

/// The `auth_token` a request may come in with.
///
/// Documented: the cookies `auth_token` and `ct0` are both needed; observed: a guest is told 401.
pub(super) fn lets_in(key: Option<&Secret>, asked: &Asked<'_>) -> Option<Secret> {
    let (mut auth_token, mut ct0) = (None, None);
    let lines = asked.headers.iter().filter(|(name, _)| name == "cookie");
    for (name, value) in lines.flat_map(|(_, value)| value.split(';')).filter_map(|pair| pair.trim().split_once('=')) {
        match name {
            "auth_token" => auth_token = Secret::new(value),
            "ct0" => ct0 = Secret::new(value),
            _ => {}
        }
    }
    let token = auth_token.filter(|token| key.is_none_or(|key| same_key(key.expose(), token.expose())));
    ct0.and(token)
}

fn list(topics: &str) -> Vec<String> {
    topics.split(',').filter(|topic| !topic.is_empty()).map(str::to_owned).collect()
}

/// Session id and ttl of a config frame.
fn config_of(envelope: &[u8]) -> Option<(String, u64)> {
    match decode(std::str::from_utf8(envelope).ok()?).message {
        Message::Config { session_id, subscription_ttl_ms, .. } => Some((session_id, subscription_ttl_ms)),
        _ => None,
    }
}

fn subscriptions(refused: &[String]) -> Vec<u8> {
    let mut out = br#"{"subscriptions":{"errors":["#.to_vec();
    for (at, topic) in refused.iter().enumerate() {
        out.extend_from_slice(if at == 0 { br#"{"topic":"# } else { br#",{"topic":"# });
        write_string(&mut out, topic);
        out.extend_from_slice(format!(r#","code":{TOPIC_REFUSED},"message":"This topic cannot be subscribed."}}"#).as_bytes());
    }
    out.extend_from_slice(b"]}}");
    out
}

fn refuse(status: u16, code: i64, message: &str) -> Answer {
    Answer::Http(Response::json(status, format!(r#"{{"errors":[{{"code":{code},"message":"{message}"}}]}}"#)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::model::UnixMicros;
    use crate::provider::{Action, Client, End, Input, Settings, x_live};
    use expect_test::{Expect, expect};

    const COOKIES: (&str, &str) = ("cookie", "lang=en; auth_token=right;ct0=c");

    fn ask(server: &mut Server, peer: PeerId, line: &str, headers: &[(&str, &str)], body: &str) -> String {
        ask_at(server, peer, line, headers, body, Instant::now())
    }

    fn ask_at(server: &mut Server, peer: PeerId, line: &str, headers: &[(&str, &str)], body: &str, now: Instant) -> String {
        let headers: Vec<_> = headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let (method, target) = line.split_once(' ').unwrap();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let asked = Asked { method, path, query, headers: &headers, body: body.as_bytes(), wants_upgrade: false };
        match server.asked(peer, &asked, now) {
            Answer::Http(r) => format!("{} {}", r.status, std::str::from_utf8(&r.body).unwrap()),
            Answer::Stream { framing, headers } => format!("{framing:?} {}", headers[0].1),
            other => format!("{other:?}"),
        }
    }

    fn switched(switch: &str) -> Server {
        let mut settings = ServerSettings { key: Secret::new("right"), ..ServerSettings::default() };
        settings.switches.set(switch).unwrap();
        Server::new(settings)
    }

    fn server() -> Server {
        Server::new(ServerSettings { key: Secret::new("right"), max_connections: None, ..ServerSettings::default() })
    }

    fn engagement(id: u32) -> String {
        format!(r#"{{"topic":"/tweet_engagement/{id}","payload":{{"tweet_engagement":{{"like_count":"{id}"}}}}}}"#)
    }

    fn wanted(server: &mut Server, peer: PeerId) -> Vec<u32> {
        (1..=9).filter(|&id| server.wants(peer, engagement(id).as_bytes())).collect()
    }

    #[test]
    fn lets_in_by_cookies_and_frames_by_accept() {
        let mut all = String::new();
        let sse = ("accept", "text/event-stream");
        let cases: &[(&str, &[(&str, &str)])] = &[
            ("GET /live_pipeline/events?topic=%2Ftweet_engagement%2F1", &[COOKIES, sse]),
            ("GET /1.1/live_pipeline/events", &[COOKIES, ("accept", "*/*")]),
            ("GET /live_pipeline/events", &[("cookie", "auth_token=right"), ("cookie", "ct0=c")]),
            ("GET /live_pipeline/events", &[("cookie", "auth_token=wrong; ct0=c")]),
            ("GET /live_pipeline/events", &[("cookie", "auth_token=right")]),
            ("GET /live_pipeline/events", &[("cookie", "auth_token=right; ct0=")]),
            ("GET /live_pipeline/events", &[]),
            ("POST /live_pipeline/events", &[COOKIES]),
            ("GET /1.1/live_pipeline/update_subscriptions", &[COOKIES]),
            ("POST /1.1/live_pipeline/update_subscriptions", &[]),
            ("GET /live_pipeline/other", &[COOKIES]),
        ];
        let mut server = server();
        for (line, headers) in cases {
            all += &format!("{line} {headers:?}\n  {}\n", ask(&mut server, 1, line, headers, ""));
        }
        expect![[r#"
            GET /live_pipeline/events?topic=%2Ftweet_engagement%2F1 [("cookie", "lang=en; auth_token=right;ct0=c"), ("accept", "text/event-stream")]
              Sse text/event-stream; charset=utf-8
            GET /1.1/live_pipeline/events [("cookie", "lang=en; auth_token=right;ct0=c"), ("accept", "*/*")]
              Lines application/json; charset=utf-8
            GET /live_pipeline/events [("cookie", "auth_token=right"), ("cookie", "ct0=c")]
              Lines application/json; charset=utf-8
            GET /live_pipeline/events [("cookie", "auth_token=wrong; ct0=c")]
              401 {"errors":[{"code":32,"message":"Could not authenticate you."}]}
            GET /live_pipeline/events [("cookie", "auth_token=right")]
              401 {"errors":[{"code":32,"message":"Could not authenticate you."}]}
            GET /live_pipeline/events [("cookie", "auth_token=right; ct0=")]
              401 {"errors":[{"code":32,"message":"Could not authenticate you."}]}
            GET /live_pipeline/events []
              401 {"errors":[{"code":32,"message":"Could not authenticate you."}]}
            POST /live_pipeline/events [("cookie", "lang=en; auth_token=right;ct0=c")]
              405 {"errors":[{"code":86,"message":"This method requires another HTTP method."}]}
            GET /1.1/live_pipeline/update_subscriptions [("cookie", "lang=en; auth_token=right;ct0=c")]
              405 {"errors":[{"code":86,"message":"This method requires another HTTP method."}]}
            POST /1.1/live_pipeline/update_subscriptions []
              401 {"errors":[{"code":32,"message":"Could not authenticate you."}]}
            GET /live_pipeline/other [("cookie", "lang=en; auth_token=right;ct0=c")]
              404 {"errors":[{"code":34,"message":"Sorry, that page does not exist."}]}
        "#]].assert_eq(&all);
        let mut open = Server::new(ServerSettings::default());
        assert!(ask(&mut open, 1, "GET /live_pipeline/events", &[("cookie", "auth_token=any; ct0=c")], "").starts_with("Lines"));
        assert!(ask(&mut open, 1, "GET /live_pipeline/events", &[("cookie", "auth_token=; ct0=c")], "").starts_with("401"));
    }

    #[test]
    fn reads_topics_in_every_spelling() {
        let one = "%2Ftweet_engagement%2F1";
        for (query, want) in [
            (format!("?topic={one},%2Ftweet_engagement%2F2"), vec![1, 2]),
            (format!("?topics={one}%2C%2Ftweet_engagement%2F3"), vec![1, 3]),
            ("?topic=/tweet_engagement/4&topics=/tweet_engagement/5&topic=/tweet_engagement/6,".to_owned(), vec![4, 5, 6]),
            ("?topic=/other/1".to_owned(), vec![]),
            ("?topic=".to_owned(), (1..=9).collect()),
            (String::new(), (1..=9).collect()),
        ] {
            let mut server = server();
            ask(&mut server, 7, &format!("GET /live_pipeline/events{query}"), &[COOKIES], "");
            assert_eq!(wanted(&mut server, 7), want, "{query}");
            assert!(server.wants(7, b"noise") && server.wants(7, br#"{"topic":"/system/x"}"#) && !server.wants(8, b"noise"));
        }
    }

    #[test]
    fn greets_with_a_session_of_its_own_unless_the_tape_does() {
        let mut server = server();
        for peer in [1, 2] {
            ask(&mut server, peer, "GET /live_pipeline/events", &[COOKIES], "");
        }
        let config = include_bytes!("../../../fixtures/x_live/config.json");
        assert!(server.greeting(1, Some(config)).is_empty() && server.greeting(9, None).is_empty());
        let [one, two] = [1, 2].map(|peer| server.greeting(peer, Some(b"{}")).remove(0));
        assert_ne!(one, two);
        let decoded = decode(std::str::from_utf8(&one).unwrap());
        assert!(decoded.json);
        expect![[r#"Config { session_id: "birdtape-session-1", subscription_ttl_ms: 120000, heartbeat_ms: 25000 }"#]]
            .assert_eq(&format!("{:?}", decoded.message));
    }

    fn post(server: &mut Server, session: &str, body: &str) -> String {
        let path =
            if body.ends_with('=') { "/1.1/live_pipeline/update_subscriptions" } else { "/live_pipeline/update_subscriptions" };
        ask(server, 0, &format!("POST {path}"), &[COOKIES, ("livepipeline-session", session)], body)
    }

    #[test]
    fn changes_topics_by_session() {
        let mut server = server();
        ask(&mut server, 1, "GET /live_pipeline/events?topic=/tweet_engagement/1", &[COOKIES], "");
        server.greeting(1, None);
        let ours = "birdtape-session-1";
        let ok = r#"200 {"subscriptions":{"errors":[]}}"#;
        assert_eq!(
            post(
                &mut server,
                ours,
                "sub_topics=%2Ftweet_engagement%2F2%2C%2Ftweet_engagement%2F3&unsub_topics=%2Ftweet_engagement%2F1"
            ),
            ok
        );
        assert_eq!(wanted(&mut server, 1), [2, 3]);
        assert_eq!(post(&mut server, ours, "sub_topics=&unsub_topics="), ok);
        expect![[r#"200 {"subscriptions":{"errors":[{"topic":"/dm_update/1-2","code":403,"message":"This topic cannot be subscribed."},{"topic":"rubbish\"","code":403,"message":"This topic cannot be subscribed."}]}}"#]].assert_eq(&post(&mut server, ours, "sub_topics=/dm_update/1-2,rubbish\",/tweet_engagement/4&unsub_topics="));
        expect![[r#"404 {"errors":[{"code":392,"message":"Session not found."}]}"#]].assert_eq(&post(
            &mut server,
            "nobody",
            "sub_topics=",
        ));
        expect![[r#"400 {"errors":[{"code":38,"message":"LivePipeline-Session header is missing."}]}"#]].assert_eq(&post(
            &mut server,
            "",
            "sub_topics=",
        ));
        assert_eq!(wanted(&mut server, 1), [2, 3, 4]);
        // A recorded session becomes good when its config goes by, and ends with the stream.
        assert!(post(&mut server, "made-up-session-1", "sub_topics=").starts_with("404"));
        assert!(server.wants(1, include_bytes!("../../../fixtures/x_live/config.json")));
        assert_eq!(post(&mut server, "made-up-session-1", "sub_topics=/tweet_engagement/5"), ok);
        server.gone(1);
        assert!(post(&mut server, "made-up-session-1", "sub_topics=").starts_with("404"));
        let mut lenient = super::tests::switched("x_live.dm_topics=any_time");
        ask(&mut lenient, 1, "GET /live_pipeline/events?topic=/x", &[COOKIES], "");
        lenient.greeting(1, None);
        assert_eq!(post(&mut lenient, ours, "sub_topics=/dm_update/1-2"), ok);
    }

    /// Client and server in one memory: the script's shell is this struct, its network is a function call.
    struct Joined {
        client: Client,
        server: Server,
        start: Instant,
        now: Instant,
        peer: PeerId,
        log: String,
    }

    impl Joined {
        fn new(server: Server, topics: &[&str]) -> Self {
            let mut settings = Settings { topics: topics.iter().map(|&t| t.to_owned()).collect(), ..x_live::default_settings() };
            settings.credentials.auth_token = Secret::new("right");
            settings.credentials.ct0 = Secret::new("c");
            let start = Instant::now();
            let mut joined = Self { client: Client::new(settings), server, start, now: start, peer: 0, log: String::new() };
            joined.tell(Input::Start);
            joined
        }

        fn tell(&mut self, input: Input<'_>) {
            self.client.on(self.now, input);
            while let Some(action) = self.client.next_action() {
                self.act(action);
            }
        }

        fn note(&mut self, line: &str) {
            self.log += &format!("{:.0}s {line}\n", (self.now - self.start).as_secs_f64());
        }

        fn act(&mut self, action: Action) {
            match action {
                Action::Dial { not_before } => {
                    self.now = self.now.max(not_before);
                    self.dial();
                }
                Action::Request(request) => {
                    self.note(&format!("POST {}", request.body));
                    let headers: Vec<_> = request.headers.iter().map(|(n, v)| ((*n).to_owned(), v.expose().to_owned())).collect();
                    let path = request.target.expose();
                    let body = request.body.as_bytes();
                    let asked = Asked { method: "POST", path, query: "", headers: &headers, body, wants_upgrade: false };
                    let Answer::Http(response) = self.server.asked(99, &asked, self.now) else { panic!("no plain answer") };
                    self.tell(Input::Answered { response: Some(&response) });
                }
                Action::Close { .. } => {
                    self.server.gone(self.peer);
                    self.tell(Input::Closed(End { by_us: true, ..End::default() }));
                }
                Action::Live { scope } => self.note(&format!("live {scope}")),
                Action::Lost { scope, cause, .. } => self.note(&format!("lost {scope} {}", cause.name())),
                Action::Dropped { scope } => self.note(&format!("dropped {scope}")),
                Action::Stop { fault, .. } => self.note(&format!("stop {fault:?}")),
                Action::Say { .. } | Action::Send(_) | Action::Ping | Action::Scopes { .. } => {}
            }
        }

        fn dial(&mut self) {
            let opening = self.client.opening();
            let headers: Vec<_> = opening.headers.iter().map(|(n, v)| ((*n).to_owned(), v.expose().to_owned())).collect();
            let (path, query) = opening.target.expose().split_once('?').unwrap_or((opening.target.expose(), ""));
            let asked = Asked { method: "GET", path, query, headers: &headers, body: b"", wants_upgrade: false };
            self.peer += 1;
            match self.server.asked(self.peer, &asked, self.now) {
                Answer::Stream { .. } => {
                    self.note("opened");
                    self.tell(Input::Opened { subprotocol: None });
                    for envelope in self.server.greeting(self.peer, None) {
                        self.deliver(&envelope);
                    }
                }
                Answer::Http(response) => self.tell(Input::Refused { response: &response }),
                other => panic!("{other:?}"),
            }
        }

        fn deliver(&mut self, envelope: &[u8]) -> bool {
            let wanted = self.server.wants(self.peer, envelope);
            if wanted {
                let decoded = decode(std::str::from_utf8(envelope).unwrap());
                self.tell(Input::Frame { decoded: &decoded, received_at: UnixMicros(0) });
            }
            wanted
        }

        /// Lets time pass: keepalives on the server's schedule, deadlines on the client's.
        fn pass(&mut self, seconds: u64) {
            let until = self.now + Duration::from_secs(seconds);
            let mut keepalive = self.now + self.server.keepalive();
            loop {
                let deadline = self.client.deadline().unwrap_or(until);
                let next = deadline.min(keepalive);
                if next >= until {
                    break;
                }
                self.now = self.now.max(next);
                if next == keepalive {
                    keepalive += self.server.keepalive();
                    self.tell(Input::Alive);
                } else {
                    self.tell(Input::Deadline);
                }
            }
            self.now = until;
        }

        fn check(&self, expected: Expect) {
            expected.assert_eq(&self.log);
        }
    }

    #[test]
    fn joined_refreshes_keep_topics_alive() {
        let mut joined = Joined::new(server(), &["/tweet_engagement/1"]);
        for _ in 0..10 {
            joined.pass(60);
            assert!(joined.deliver(engagement(1).as_bytes()) && !joined.deliver(engagement(2).as_bytes()));
        }
        joined.check(expect![[r#"
            0s opened
            0s live /tweet_engagement/1
            100s POST sub_topics=%2Ftweet_engagement%2F1&unsub_topics=
            200s POST sub_topics=%2Ftweet_engagement%2F1&unsub_topics=
            300s POST sub_topics=%2Ftweet_engagement%2F1&unsub_topics=
            400s POST sub_topics=%2Ftweet_engagement%2F1&unsub_topics=
            500s POST sub_topics=%2Ftweet_engagement%2F1&unsub_topics=
            600s POST sub_topics=%2Ftweet_engagement%2F1&unsub_topics=
        "#]]);
    }

    #[test]
    fn joined_a_shorter_ttl_at_the_server_is_kept_too() {
        let mut joined = Joined::new(switched("x_live.ttl_ms=5000"), &["/tweet_engagement/1"]);
        joined.pass(30);
        assert!(joined.deliver(engagement(1).as_bytes()));
        joined.check(expect![[r#"
            0s opened
            0s live /tweet_engagement/1
            4s POST sub_topics=%2Ftweet_engagement%2F1&unsub_topics=
            8s POST sub_topics=%2Ftweet_engagement%2F1&unsub_topics=
            12s POST sub_topics=%2Ftweet_engagement%2F1&unsub_topics=
            16s POST sub_topics=%2Ftweet_engagement%2F1&unsub_topics=
            20s POST sub_topics=%2Ftweet_engagement%2F1&unsub_topics=
            24s POST sub_topics=%2Ftweet_engagement%2F1&unsub_topics=
            28s POST sub_topics=%2Ftweet_engagement%2F1&unsub_topics=
        "#]]);
    }

    #[test]
    fn joined_without_a_refresh_the_topic_lapses_on_both_sides() {
        let start = Instant::now();
        let mut server = server();
        ask_at(&mut server, 1, "GET /live_pipeline/events?topic=/tweet_engagement/1", &[COOKIES], "", start);
        assert_eq!(wanted(&mut server, 1), [1]);
        ask_at(&mut server, 2, "GET /nowhere", &[], "", start + Duration::from_secs(119));
        assert_eq!(wanted(&mut server, 1), [1]);
        ask_at(&mut server, 2, "GET /nowhere", &[], "", start + Duration::from_secs(120));
        assert_eq!(wanted(&mut server, 1), [0; 0]);
        assert!(server.wants(1, b"noise"), "the stream goes on");
    }

    #[test]
    fn joined_a_forgotten_session_is_opened_again() {
        let mut joined = Joined::new(server(), &["/tweet_engagement/1"]);
        joined.server.gone(joined.peer);
        joined.pass(101);
        assert!(joined.deliver(engagement(1).as_bytes()));
        joined.check(expect![[r#"
            0s opened
            0s live /tweet_engagement/1
            100s POST sub_topics=%2Ftweet_engagement%2F1&unsub_topics=
            100s lost * subscription_lapsed
            101s opened
            101s live /tweet_engagement/1
        "#]]);
    }

    #[test]
    fn joined_topics_come_and_go() {
        let mut joined = Joined::new(server(), &["/tweet_engagement/1"]);
        let of = |topics: &[&str]| topics.iter().map(|&t| t.to_owned()).collect::<Vec<_>>();
        joined.tell(Input::Topics { add: &of(&["/tweet_engagement/2"]), remove: &of(&["/tweet_engagement/1"]) });
        assert_eq!(wanted(&mut joined.server, joined.peer), [2]);
        joined.tell(Input::Topics { add: &of(&["/tweet_engagement/3"]), remove: &[] });
        joined.pass(2);
        assert_eq!(wanted(&mut joined.server, joined.peer), [2, 3]);
        joined.check(expect![[r#"
            0s opened
            0s live /tweet_engagement/1
            0s dropped /tweet_engagement/1
            0s POST sub_topics=%2Ftweet_engagement%2F2&unsub_topics=%2Ftweet_engagement%2F1
            0s live /tweet_engagement/2
            1s POST sub_topics=%2Ftweet_engagement%2F3&unsub_topics=
            1s live /tweet_engagement/3
        "#]]);
    }

    #[test]
    fn joined_wrong_cookies_are_tried_once() {
        let mut joined = Joined::new(
            Server::new(ServerSettings { key: Secret::new("other"), max_connections: None, ..ServerSettings::default() }),
            &[],
        );
        joined.pass(9_999);
        joined.check(expect![[r#"
            0s lost * auth
            0s stop Credentials
        "#]]);
    }
}
