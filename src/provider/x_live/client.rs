//! The recorder's machine for the X live pipeline.
//!
//! Three things run at once while the stream is open: the watchdog over silence, the refresh of every topic
//! before its ttl, and at most one change of topics in flight. All of them are instants in one [`Session`].

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::{
    DEFAULT_HEARTBEAT, DEFAULT_TTL, NOT_AUTHENTICATED, REDIAL_BASE, SESSION_MISSING, SESSION_NOT_FOUND, UPDATE_PATH, decode,
    is_direct_message,
};
use crate::model::{
    Cause, Decoded, Endpoint, Framing, Message, NetFault, Opening, Provider, Request, Response, Secret, Transport,
};
use crate::provider::redial::Redial;
use crate::provider::{Action, End, Fault, Input, Loudness, Settings, live_path, percent_encode};

/// The provider's host. Documented: twikit, X's web bundle; `api.twitter.com` before.
const HOST: &str = "api.x.com";

/// Topics that fit into the address. Documented: X's web bundle puts at most 20 there and posts the rest.
const MAX_URL_TOPICS: usize = 20;

/// How long the first frame may take. Ours; a public client waits 30 s for the connection.
const CONFIG_WITHIN: Duration = Duration::from_secs(30);

/// How long before the ttl all topics are posted again. Documented: X's web bundle, every `ttl − 20 s`.
const REFRESH_MARGIN: Duration = Duration::from_secs(20);

/// Least time between two posts. Documented: X's web bundle throttles to one a second.
const POST_EVERY: Duration = Duration::from_secs(1);

/// After this long a post counts as unanswered, whatever the shell says later. Ours.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// Longest wait between two tries of a failed post, well inside the default ttl's margin. Ours.
const POST_RETRY_CAP: Duration = Duration::from_secs(15);

/// Streams in a row that ended with broken framing before we ask only seldom. Ours.
const PROTOCOL_PATIENCE: u32 = 5;

/// Wait after HTTP 429 without `Retry-After`.
///
/// Observed: 180 openings per 15 minutes in a rate-limit dump of 2023; a minute's wait keeps far below.
const LIMITED_WAIT: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(15 * 60));

/// The client machine of one live pipeline connection.
#[derive(Debug)]
pub struct Client {
    settings: Settings,
    link: Link,
    topics: Vec<Topic>,
    /// Topics taken off the list that the session does not know about yet.
    unsubscribe: Vec<String>,
    /// The post under way. It outlives its session: its answer comes all the same.
    in_flight: Option<Post>,
    actions: VecDeque<Action>,
    redial: Redial,
    limited: Redial,
    slow: Redial,
    post_retry: Redial,
    /// Cause last told since the last good connection: a refusal repeated for hours is one entry.
    told: Option<Cause>,
    broken_in_a_row: u32,
}

#[derive(Debug)]
enum Link {
    Idle,
    Dialing,
    Open(Box<Session>),
    /// We asked to close and have told why.
    Closing,
    Stopped,
}

#[derive(Debug)]
struct Session {
    last_heard: Instant,
    config_by: Instant,
    config: Option<Config>,
    post_not_before: Instant,
}

#[derive(Debug)]
struct Config {
    session_id: Secret,
    ttl: Duration,
    silence: Duration,
    refresh_at: Instant,
}

/// A wanted topic and what this session knows of it.
#[derive(Debug)]
struct Topic {
    name: String,
    /// Stands in the address of this session.
    in_address: bool,
    /// Must be in the next post.
    due: bool,
    /// We have said that it is served.
    live: bool,
    /// Its loss is told; once is enough until it is served again.
    lost: bool,
    valid_until: Option<Instant>,
}

#[derive(Debug)]
struct Post {
    session_id: Secret,
    sub: Vec<String>,
    unsub: Vec<String>,
    sent_at: Instant,
}

/// What to do after a connection ended or was refused.
enum Next {
    Backoff,
    AtLeast(Duration),
    Limited(Option<Duration>),
    Slow,
    Stop(Fault),
}

/// How an end is understood.
struct Verdict {
    cause: Cause,
    next: Next,
    meaning: &'static str,
}

impl Client {
    /// A machine at rest; feed it [`Input::Start`].
    pub fn new(settings: Settings) -> Self {
        let seed = settings.seed;
        let mut client = Self {
            link: Link::Idle,
            topics: Vec::new(),
            unsubscribe: Vec::new(),
            in_flight: None,
            actions: VecDeque::new(),
            redial: Redial::new(settings.reconnect_floor, REDIAL_BASE, settings.reconnect_cap, seed),
            limited: Redial::new(LIMITED_WAIT.0, LIMITED_WAIT.0, LIMITED_WAIT.1, seed.wrapping_add(1)),
            slow: Redial::new(settings.slow_retry, settings.slow_retry, settings.slow_retry, seed.wrapping_add(2)),
            post_retry: Redial::new(POST_EVERY, POST_EVERY, POST_RETRY_CAP, seed.wrapping_add(3)),
            told: None,
            broken_in_a_row: 0,
            settings,
        };
        for topic in std::mem::take(&mut client.settings.topics) {
            client.want(&topic);
        }
        client.fill_address();
        client
    }

    /// Tells the machine what happened.
    pub fn on(&mut self, now: Instant, input: Input<'_>) {
        if matches!(self.link, Link::Stopped) {
            return;
        }
        match input {
            Input::Start => self.start(now),
            Input::Opened { .. } => self.opened(now),
            Input::Refused { response } => self.refused(now, response),
            Input::Unreachable { fault, detail } => self.unreachable(now, fault, detail),
            Input::Frame { decoded, .. } => self.frame(now, decoded),
            Input::Alive => self.heard(now),
            Input::Closed(end) => self.closed(now, end),
            Input::Answered { response } => self.answered(now, response),
            Input::Topics { add, remove } => self.change_topics(add, remove),
            Input::Deadline => {}
        }
        self.tick(now);
    }

    /// The next thing to do, if any; ask until there is none.
    pub fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When the machine wants [`Input::Deadline`] if nothing else happens.
    pub fn deadline(&self) -> Option<Instant> {
        let Link::Open(session) = &self.link else { return None };
        let Some(config) = &session.config else { return Some(session.config_by) };
        let answer = self.in_flight.as_ref().map(|post| post.sent_at + ANSWER_WITHIN);
        let post = (self.in_flight.is_none() && self.has_something_to_post()).then_some(session.post_not_before);
        let refresh = (!self.topics.is_empty()).then_some(config.refresh_at);
        let lapse = self.topics.iter().filter(|t| t.live).filter_map(|t| t.valid_until).min();
        [Some(session.last_heard + config.silence), answer, post, refresh, lapse].into_iter().flatten().min()
    }

    /// How to open the stream, as of now (topics may have changed).
    pub fn opening(&self) -> Opening {
        let path = match &self.settings.base {
            Some(base) => base.live_path.clone().unwrap_or_else(|| base.prefix.clone() + live_path(Provider::XLive)),
            None => live_path(Provider::XLive).to_owned(),
        };
        let topics: Vec<_> = self.topics.iter().filter(|topic| topic.in_address).map(|topic| topic.name.as_str()).collect();
        let encoded = topics.iter().map(|topic| percent_encode(topic)).collect::<Vec<_>>().join(",");
        let readable = topics.iter().map(|topic| shown_topic(topic)).collect::<Vec<_>>().join(",");
        let (query, shown_query) = if topics.is_empty() {
            (String::new(), String::new())
        } else {
            (format!("?topic={encoded}"), format!("?topic={readable}"))
        };
        let endpoint = self.endpoint();
        let mut headers = session_headers(&self.settings);
        let accept = match self.settings.framing {
            Framing::Sse => "text/event-stream",
            Framing::Lines => "*/*",
        };
        headers.push(("accept", accept.to_owned()));
        Opening {
            transport: Transport::Stream,
            shown: format!("{}{path}{shown_query}", origin(&endpoint)),
            endpoint,
            target: secret(format!("{path}{query}")),
            headers: headers.into_iter().filter_map(|(name, value)| Some((name, Secret::new(value)?))).collect(),
        }
    }

    fn endpoint(&self) -> Endpoint {
        let own = || Endpoint { tls: true, host: HOST.to_owned(), port: 443 };
        self.settings.base.as_ref().map_or_else(own, |base| base.endpoint.clone())
    }

    /// Chooses what stands in the address, once per dial: only what stood there may count as served.
    ///
    /// Conversations come first, they can be had in no other way. A topic added later is posted.
    fn fill_address(&mut self) {
        let mut room = MAX_URL_TOPICS;
        for private in [true, false] {
            for topic in self.topics.iter_mut().filter(|topic| is_direct_message(&topic.name) == private) {
                topic.in_address = room > 0;
                room = room.saturating_sub(1);
            }
        }
    }

    fn start(&mut self, now: Instant) {
        if !matches!(self.link, Link::Idle) {
            return;
        }
        let credentials = &self.settings.credentials;
        let (Some(auth_token), Some(ct0)) = (&credentials.auth_token, &credentials.ct0) else {
            let text = "the live pipeline needs the cookies auth_token and ct0 of a logged-in browser session, and they are not configured";
            return self.stop(Fault::Credentials, text.to_owned());
        };
        let fits = |secret: &Secret| secret.expose().bytes().all(|b| b.is_ascii_graphic() && !b"\",;\\".contains(&b));
        if ![Some(auth_token), Some(ct0), credentials.key.as_ref()].into_iter().flatten().all(fits) {
            let text =
                "a configured cookie or key of x_live holds characters that cannot stand in a header; copy the bare values";
            return self.stop(Fault::Settings, text.to_owned());
        }
        self.dial(now);
    }

    fn dial(&mut self, not_before: Instant) {
        self.link = Link::Dialing;
        self.unsubscribe.clear();
        for topic in &mut self.topics {
            *topic = Topic::new(std::mem::take(&mut topic.name), topic.lost);
        }
        self.fill_address();
        self.actions.push_back(Action::Dial { not_before });
    }

    fn opened(&mut self, now: Instant) {
        if matches!(self.link, Link::Dialing) {
            let (config_by, post_not_before) = (now + CONFIG_WITHIN, now);
            self.link = Link::Open(Box::new(Session { last_heard: now, config_by, config: None, post_not_before }));
        }
    }

    /// Proof of life; once it comes after the config, the waits start small again.
    ///
    /// X's web bundle resets at the config itself. A server that greets and then knows no session would be
    /// dialled every second that way.
    fn heard(&mut self, now: Instant) {
        let Link::Open(session) = &mut self.link else { return };
        session.last_heard = now;
        if session.config.is_some() {
            self.redial.reset();
            self.limited.reset();
            self.broken_in_a_row = 0;
        }
    }

    fn frame(&mut self, now: Instant, decoded: &Decoded) {
        if !matches!(self.link, Link::Open(_)) {
            return;
        }
        self.heard(now);
        match &decoded.message {
            Message::Config { session_id, subscription_ttl_ms, heartbeat_ms } => {
                self.configured(now, session_id, *subscription_ttl_ms, *heartbeat_ms);
            }
            Message::Subscriptions { refused } => self.topics_refused(refused),
            Message::Error { code, text } if !self.complaint(code.map_or(0, i64::from), text) => {
                let text = printable(text);
                self.say(Loudness::Warn, format!("the live pipeline complains on the stream (\"{text}\"); recording goes on"));
            }
            _ => {}
        }
    }

    fn configured(&mut self, now: Instant, session_id: &str, ttl_ms: u64, heartbeat_ms: u64) {
        let Link::Open(session) = &mut self.link else { return };
        let Some(session_id) = Secret::new(session_id) else { return };
        let ttl = sane(ttl_ms).unwrap_or(DEFAULT_TTL);
        let heartbeat = sane(heartbeat_ms).unwrap_or(DEFAULT_HEARTBEAT);
        let silence = self.settings.pong_within.max(heartbeat * 3);
        // A repeated config must not put the refresh off.
        let refresh_at = now + refresh_after(ttl);
        let refresh_at = session.config.as_ref().map_or(refresh_at, |before| before.refresh_at.min(refresh_at));
        let before = session.config.replace(Config { session_id, ttl, silence, refresh_at });
        let changed = match (&before, &session.config) {
            (Some(before), Some(after)) => before.session_id != after.session_id,
            _ => false,
        };
        if changed {
            // A session in the middle of a stream knows nothing of our topics as far as anybody can tell.
            self.say(
                Loudness::Info,
                "the live pipeline began another session on the same stream; asking for all topics again".to_owned(),
            );
            self.topics.iter_mut().for_each(|topic| topic.due = !is_direct_message(&topic.name));
            return;
        }
        self.told = None;
        if before.is_some() {
            return;
        }
        let mut not_asked = Vec::new();
        for topic in &mut self.topics {
            if topic.in_address {
                topic.served_until(now + ttl, &mut self.actions);
            } else if is_direct_message(&topic.name) {
                not_asked.push((topic.name.clone(), 0, format!("only {MAX_URL_TOPICS} topics fit into the address")));
            } else {
                topic.due = true;
            }
        }
        self.topics_refused(&not_asked);
    }

    fn has_something_to_post(&self) -> bool {
        !self.unsubscribe.is_empty() || self.topics.iter().any(|topic| topic.due)
    }

    /// Whatever is due at `now`: death by silence, lapsed topics, the refresh, the next post.
    fn tick(&mut self, now: Instant) {
        let Link::Open(session) = &mut self.link else { return };
        let Some(config) = &mut session.config else {
            if session.config_by <= now {
                self.silent(format!("no config frame within {}", in_words(CONFIG_WITHIN)));
            }
            return;
        };
        if session.last_heard + config.silence <= now {
            let detail = format!("nothing heard for {}", in_words(config.silence));
            return self.silent(detail);
        }
        if config.refresh_at <= now {
            config.refresh_at = now + refresh_after(config.ttl);
            self.topics.iter_mut().for_each(|topic| topic.due = true);
        }
        self.lapse(now);
        if self.in_flight.as_ref().is_some_and(|post| post.sent_at + ANSWER_WITHIN <= now) {
            self.answered(now, None);
        }
        self.post(now);
    }

    fn silent(&mut self, detail: String) {
        self.say(Loudness::Warn, format!("the live pipeline has gone silent ({detail}): closing the stream and opening another"));
        self.close(Cause::Silent, detail);
    }

    fn close(&mut self, cause: Cause, detail: String) {
        self.lost(cause, detail.clone());
        self.actions.push_back(Action::Close { code: 1000, reason: detail });
        self.link = Link::Closing;
    }

    fn lapse(&mut self, now: Instant) {
        let mut lapsed = Vec::new();
        for topic in self.topics.iter_mut().filter(|t| t.live && t.valid_until.is_some_and(|until| until <= now)) {
            topic.live = false;
            lapsed.push(shown_topic(&topic.name));
            let detail = "not refreshed within its ttl";
            topic.tell_lost(Cause::SubscriptionLapsed, detail.to_owned(), &mut self.actions);
        }
        if !lapsed.is_empty() {
            let topics = shortened(&lapsed);
            self.say(
                Loudness::Warn,
                format!(
                    "the subscription of {topics} has lapsed: refreshing it failed; trying on, what comes meanwhile is missed"
                ),
            );
        }
    }

    fn post(&mut self, now: Instant) {
        if self.in_flight.is_some() || !self.has_something_to_post() {
            return;
        }
        let Link::Open(session) = &mut self.link else { return };
        let Some(config) = &session.config else { return };
        if session.post_not_before > now {
            return;
        }
        session.post_not_before = now + POST_EVERY;
        let sub: Vec<_> = self.topics.iter().filter(|topic| topic.due).map(|topic| topic.name.clone()).collect();
        let unsub = std::mem::take(&mut self.unsubscribe);
        self.topics.iter_mut().for_each(|topic| topic.due = false);
        let post = Post { session_id: config.session_id.clone(), sub, unsub, sent_at: now };
        let request = self.request(&post);
        self.in_flight = Some(post);
        self.actions.push_back(Action::Request(request));
    }

    fn request(&self, post: &Post) -> Request {
        let prefix = self.settings.base.as_ref().map_or("", |base| base.prefix.as_str());
        let endpoint = self.endpoint();
        let mut headers = session_headers(&self.settings);
        headers.push(("content-type", "application/x-www-form-urlencoded".to_owned()));
        headers.push(("livepipeline-session", post.session_id.expose().to_owned()));
        let list = |topics: &[String]| percent_encode(&topics.join(","));
        Request {
            method: "POST",
            shown: format!("{}{prefix}{UPDATE_PATH}", origin(&endpoint)),
            endpoint,
            target: secret(format!("{prefix}{UPDATE_PATH}")),
            headers: headers.into_iter().filter_map(|(name, value)| Some((name, Secret::new(value)?))).collect(),
            // Documented: both keys are always sent, empty when unused.
            body: format!("sub_topics={}&unsub_topics={}", list(&post.sub), list(&post.unsub)),
        }
    }

    fn answered(&mut self, now: Instant, response: Option<&Response>) {
        let Some(post) = self.in_flight.take() else { return };
        let Link::Open(session) = &self.link else { return };
        let Some(config) = &session.config else { return };
        // The answer of a session that is gone says nothing about this one.
        if config.session_id != post.session_id {
            return;
        }
        let ttl = config.ttl;
        let Some(response) = response else {
            return self.post_failed(now, post, None, "no answer");
        };
        let message = std::str::from_utf8(&response.body).map(|body| decode(body).message).unwrap_or(Message::Unknown);
        match (response.status, message) {
            (200..300, Message::Subscriptions { refused }) => self.post_succeeded(&post, &refused, post.sent_at + ttl),
            (_, Message::Error { code: Some(code), text }) if self.complaint(i64::from(code), &text) => {}
            (401 | 403, _) => self.credentials_rejected(format!("HTTP {} to a change of topics", response.status)),
            (429, _) => {
                let wait = response.retry_after();
                self.post_failed(now, post, wait, "HTTP 429, too many requests");
            }
            (status, Message::Error { text, .. }) => {
                let why = format!("HTTP {status} \"{}\"", printable(&text));
                self.post_failed(now, post, response.retry_after(), &why);
            }
            (status, _) => {
                let why = format!("HTTP {status} without a word about subscriptions");
                self.post_failed(now, post, response.retry_after(), &why);
            }
        }
    }

    fn post_succeeded(&mut self, post: &Post, refused: &[(String, i64, String)], valid_until: Instant) {
        self.post_retry.reset();
        for topic in self.topics.iter_mut().filter(|topic| post.sub.contains(&topic.name)) {
            if !refused.iter().any(|(name, ..)| *name == topic.name) {
                topic.served_until(valid_until, &mut self.actions);
            }
        }
        self.topics_refused(refused);
    }

    fn post_failed(&mut self, now: Instant, post: Post, asked: Option<Duration>, why: &str) {
        let wait = self.post_retry.wait().max(asked.unwrap_or_default());
        for topic in self.topics.iter_mut().filter(|topic| post.sub.contains(&topic.name)) {
            topic.due = true;
        }
        let gone = post.unsub.into_iter().filter(|name| !self.topics.iter().any(|topic| topic.name == *name));
        self.unsubscribe.extend(gone.collect::<Vec<_>>());
        if let Link::Open(session) = &mut self.link {
            session.post_not_before = now + wait;
        }
        self.say(Loudness::Warn, format!("changing or refreshing topics failed: {why}; next try in {}", in_words(wait)));
    }

    /// Topics the server will not serve; they are asked for again with every refresh.
    fn topics_refused(&mut self, refused: &[(String, i64, String)]) {
        let mut news = Vec::new();
        for (name, code, message) in refused {
            let Some(topic) = self.topics.iter_mut().find(|topic| topic.name == *name) else { continue };
            if topic.live || !topic.lost {
                news.push(shown_topic(name));
            }
            topic.live = false;
            topic.valid_until = None;
            let detail = format!("refused with code {code} \"{}\"", printable(message));
            topic.tell_lost(Cause::SubscriptionRefused, detail, &mut self.actions);
        }
        if !news.is_empty() {
            let topics = shortened(&news);
            self.say(Loudness::Warn, format!("the live pipeline does not serve {topics}; asking again with every refresh"));
        }
    }

    /// Acts on an error code that ends the session or the source; says whether it was one.
    fn complaint(&mut self, code: i64, text: &str) -> bool {
        let text = printable(text);
        match code {
            SESSION_NOT_FOUND | SESSION_MISSING => {
                let text =
                    format!("the live pipeline has forgotten the session (code {code} \"{text}\"): opening another stream");
                self.say(Loudness::Warn, text);
                self.close(Cause::SubscriptionLapsed, format!("session gone, code {code}"));
                true
            }
            NOT_AUTHENTICATED => {
                self.credentials_rejected(format!("code {code} \"{text}\""));
                true
            }
            _ => false,
        }
    }

    fn credentials_rejected(&mut self, what: String) {
        self.close(Cause::Auth, what.clone());
        let text = format!("{what}: X rejects the session's cookies; log in again, copy auth_token and ct0, and start again");
        self.stop(Fault::Credentials, text);
    }

    /// Takes a topic onto the list; `false` if it is there already or cannot be.
    fn want(&mut self, name: &str) -> bool {
        if self.topics.iter().any(|topic| topic.name == name) {
            return false;
        }
        // A comma would be read as two topics, a control character cannot travel.
        let sound = name.len() > 1 && name.starts_with('/') && name.bytes().all(|b| b.is_ascii_graphic() && b != b',');
        if !sound {
            self.say(
                Loudness::Error,
                format!("`{}` is not a topic such as /tweet_engagement/1; it is left out", printable(name)),
            );
            return false;
        }
        if is_direct_message(name) && !self.settings.direct_messages {
            let text =
                format!("{} is left out: direct messages are private and must be switched on for this source", shown_topic(name));
            self.say(Loudness::Warn, text);
            return false;
        }
        self.topics.push(Topic::new(name.to_owned(), false));
        true
    }

    fn change_topics(&mut self, add: &[String], remove: &[String]) {
        let opened = matches!(self.link, Link::Open(_) | Link::Dialing);
        for name in remove {
            let Some(at) = self.topics.iter().position(|topic| topic.name == *name) else { continue };
            self.topics.remove(at);
            self.actions.push_back(Action::Dropped { scope: name.clone() });
            if opened {
                self.unsubscribe.push(name.clone());
            }
        }
        for name in add {
            if !self.want(name) || !opened {
                continue;
            }
            self.unsubscribe.retain(|gone| gone != name);
            if is_direct_message(name) {
                let text = format!(
                    "{} cannot be added to an open stream; it is asked for when the stream is opened next",
                    shown_topic(name)
                );
                self.say(Loudness::Warn, text);
            } else if let Some(topic) = self.topics.last_mut() {
                topic.due = true;
            }
        }
        if !opened {
            self.fill_address();
        }
    }

    fn closed(&mut self, now: Instant, end: End<'_>) {
        let (already_told, had_config) = match &self.link {
            Link::Open(session) => (false, session.config.is_some()),
            Link::Closing => (true, true),
            _ => return,
        };
        let verdict = match end.fault {
            Some(NetFault::Malformed | NetFault::InvalidUtf8 | NetFault::Handshake) => {
                self.broken("the stream's framing is broken")
            }
            Some(NetFault::Oversized) => self.broken("a frame was larger than the limit"),
            Some(NetFault::Timeout) => verdict(Cause::Silent, Next::Backoff, "the link went silent"),
            Some(_) => verdict(Cause::ConnectionLost, Next::Backoff, "the link was cut"),
            None if had_config => {
                verdict(Cause::ConnectionLost, Next::Backoff, "the server ended the stream, as it does now and then")
            }
            None => verdict(Cause::ConnectionLost, Next::Backoff, "the server ended the stream before its first frame"),
        };
        let what = end.fault.map_or("the stream ended".to_owned(), |fault| format!("the stream broke ({})", fault.name()));
        if already_told {
            let meaning = if end.by_us { "" } else { verdict.meaning };
            return self.go_on(now, what, Verdict { meaning, ..verdict });
        }
        self.lost(verdict.cause, what.clone());
        self.go_on(now, what, verdict);
    }

    fn broken(&mut self, meaning: &'static str) -> Verdict {
        self.broken_in_a_row = self.broken_in_a_row.saturating_add(1);
        let next = if self.broken_in_a_row < PROTOCOL_PATIENCE { Next::Backoff } else { Next::Slow };
        verdict(Cause::Protocol, next, meaning)
    }

    fn refused(&mut self, now: Instant, response: &Response) {
        if !matches!(self.link, Link::Dialing) {
            return;
        }
        let verdict = verdict_of_status(response);
        self.lost_once(verdict.cause, format!("HTTP {} instead of a stream", response.status));
        self.go_on(now, format!("HTTP {}", response.status), verdict);
    }

    fn unreachable(&mut self, now: Instant, fault: NetFault, detail: &str) {
        if !matches!(self.link, Link::Dialing) {
            return;
        }
        let (cause, meaning) = match fault {
            NetFault::Dns => (Cause::Unreachable, "the host name has no address here"),
            NetFault::Connect => (Cause::Unreachable, "nobody answers at that address"),
            NetFault::Tls => (Cause::Unreachable, "the certificate or the TLS handshake failed"),
            NetFault::Timeout => (Cause::Unreachable, "no answer in time"),
            NetFault::Reset => (Cause::Unreachable, "the connection was cut before an answer came"),
            _ => (Cause::Protocol, "the answer was not HTTP"),
        };
        let what = format!("no connection ({}) \"{}\"", fault.name(), printable(detail));
        self.lost_once(cause, what.clone());
        self.go_on(now, what, verdict(cause, Next::Backoff, meaning));
    }

    /// Says what happened, what it means and what comes next, and does it.
    fn go_on(&mut self, now: Instant, what: String, verdict: Verdict) {
        let what = match verdict.meaning {
            "" => what,
            meaning => format!("{what}: {meaning}"),
        };
        let (wait, loud) = match verdict.next {
            Next::Stop(fault) => {
                return self.stop(fault, format!("{what}; giving this source up, log in again and copy the cookies anew"));
            }
            _ if !self.settings.auto_reconnect => {
                return self.stop(Fault::Dropped, format!("{what}; reconnecting is switched off, so this source ends here"));
            }
            Next::Backoff => (self.redial.wait(), Loudness::Warn),
            Next::AtLeast(least) => (self.redial.wait().max(least), Loudness::Warn),
            Next::Limited(asked) => (asked.unwrap_or_else(|| self.limited.wait()).max(self.redial.wait()), Loudness::Warn),
            Next::Slow => (self.slow.wait(), Loudness::Error),
        };
        self.say(loud, format!("{what}; next try in {}", in_words(wait)));
        self.dial(now + wait);
    }

    fn lost(&mut self, cause: Cause, detail: String) {
        self.told = Some(cause);
        self.actions.push_back(Action::Lost { scope: "*".to_owned(), cause, detail });
    }

    fn lost_once(&mut self, cause: Cause, detail: String) {
        if self.told != Some(cause) {
            self.lost(cause, detail);
        }
    }

    fn say(&mut self, loud: Loudness, text: String) {
        self.actions.push_back(Action::Say { loud, text });
    }

    fn stop(&mut self, fault: Fault, text: String) {
        self.link = Link::Stopped;
        self.actions.push_back(Action::Stop { fault, text });
    }
}

impl Topic {
    fn new(name: String, lost: bool) -> Self {
        Self { name, in_address: false, due: false, live: false, lost, valid_until: None }
    }

    fn served_until(&mut self, valid_until: Instant, actions: &mut VecDeque<Action>) {
        self.valid_until = Some(valid_until);
        self.lost = false;
        if !std::mem::replace(&mut self.live, true) {
            actions.push_back(Action::Live { scope: self.name.clone() });
        }
    }

    fn tell_lost(&mut self, cause: Cause, detail: String, actions: &mut VecDeque<Action>) {
        if !std::mem::replace(&mut self.lost, true) {
            actions.push_back(Action::Lost { scope: self.name.clone(), cause, detail });
        }
    }
}

/// Reads the answer to an opening.
///
/// Documented: XActions and a public desktop client give up on 401 and 403; observed: a guest is told 401.
fn verdict_of_status(response: &Response) -> Verdict {
    match response.status {
        200..300 => verdict(Cause::Refused, Next::Backoff, "the server answered, but not with a stream"),
        300..400 => verdict(Cause::Refused, Next::Slow, "a redirect, which is never followed with cookies; check the address"),
        400 => verdict(Cause::Refused, Next::Slow, "the server calls the request malformed; check the topics"),
        401 | 403 => verdict(Cause::Auth, Next::Stop(Fault::Credentials), "X rejects the session's cookies"),
        402 => verdict(Cause::Credits, Next::Slow, "the account may not use the stream"),
        404 | 410 => verdict(Cause::Refused, Next::Slow, "there is no live pipeline at this address; it may have moved"),
        429 => verdict(Cause::RateLimited, Next::Limited(response.retry_after()), "too many openings"),
        503 if response.retry_after().is_some() => {
            let wait = response.retry_after().unwrap_or_default();
            verdict(Cause::Refused, Next::AtLeast(wait), "the service is unavailable and says when to come back")
        }
        408 | 425 => verdict(Cause::Refused, Next::Backoff, "the server wants the request again"),
        405..500 => verdict(Cause::Refused, Next::Slow, "the server does not accept the request as it is"),
        500..600 => verdict(Cause::Refused, Next::Backoff, "the server has a fault"),
        _ => verdict(Cause::Refused, Next::Backoff, "the server would not open the stream"),
    }
}

fn verdict(cause: Cause, next: Next, meaning: &'static str) -> Verdict {
    Verdict { cause, next, meaning }
}

/// A time the server gave, if it lies between one second and one day.
///
/// Documented: a public desktop client takes 120 s for a ttl outside these bounds.
fn sane(millis: u64) -> Option<Duration> {
    (1_000..=86_400_000).contains(&millis).then(|| Duration::from_millis(millis))
}

/// When to refresh: 20 s before the ttl as X's web bundle, or at 80 % as XActions where that is later.
fn refresh_after(ttl: Duration) -> Duration {
    ttl.saturating_sub(REFRESH_MARGIN).max(ttl * 4 / 5)
}

/// What a browser session sends with every request.
///
/// Documented: twikit. Its bearer is a public constant of the web client, which no page vouches for: it is
/// sent when it is configured. X's web bundle and mautrix-twitter open the stream with the cookies alone.
pub(super) fn session_headers(settings: &Settings) -> Vec<(&'static str, String)> {
    let credentials = &settings.credentials;
    let text = |part: &Option<Secret>| part.as_ref().map_or("", Secret::expose).to_owned();
    let (auth_token, ct0) = (text(&credentials.auth_token), text(&credentials.ct0));
    let mut headers = vec![
        ("cookie", format!("auth_token={auth_token}; ct0={ct0}")),
        ("x-csrf-token", ct0),
        ("x-twitter-auth-type", "OAuth2Session".to_owned()),
        ("x-twitter-active-user", "yes".to_owned()),
        ("x-twitter-client-language", "en".to_owned()),
        ("referer", "https://x.com/".to_owned()),
    ];
    if let Some(key) = &credentials.key {
        headers.push(("authorization", format!("Bearer {}", key.expose())));
    }
    headers
}

/// A conversation's id names its members: it is not shown.
fn shown_topic(topic: &str) -> String {
    match topic.rsplit_once('/') {
        Some((kind, _)) if is_direct_message(topic) => format!("{kind}/***"),
        _ => topic.to_owned(),
    }
}

fn shortened(topics: &[String]) -> String {
    match topics {
        [first, second, third, rest @ ..] if !rest.is_empty() => format!("{first}, {second}, {third} and {} more", rest.len()),
        _ => topics.join(", "),
    }
}

/// The peer's words, of bounded length and without control characters.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

fn origin(endpoint: &Endpoint) -> String {
    format!("{}://{}", if endpoint.tls { "https" } else { "http" }, endpoint.authority())
}

/// A path and query, which never is empty.
fn secret(text: String) -> Secret {
    Secret::new(text).expect("a path of ours is never empty")
}

/// A wait for people: tenths of a second below ten seconds, whole seconds above.
fn in_words(wait: Duration) -> String {
    let step = if wait < Duration::from_secs(10) { 100 } else { 1_000 };
    let millis = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).div_ceil(step).saturating_mul(step);
    humantime::format_duration(Duration::from_millis(millis)).to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::model::UnixMicros;
    use crate::provider::{Base, x_live};
    use bytes::Bytes;
    use expect_test::{Expect, expect};

    const COOKIE: &str = "made-up-auth-token";
    const CSRF: &str = "made-up-ct0";
    const CONFIG: &str = r#"{"topic":"/system/config","payload":{"config":{"session_id":"hush-1","subscription_ttl_millis":120000,"heartbeat_millis":25000}}}"#;

    fn settings(topics: &[&str]) -> Settings {
        let mut settings = x_live::default_settings();
        settings.credentials.auth_token = Secret::new(COOKIE);
        settings.credentials.ct0 = Secret::new(CSRF);
        settings.topics = topics.iter().map(|&topic| topic.to_owned()).collect();
        settings
    }

    /// Runs `3.5s end | …`; `until` fires deadlines as they come, with a keepalive every 20 s when it says `alive`.
    fn run(settings: Settings, script: &str) -> String {
        let start = Instant::now();
        let mut client = Client::new(settings);
        let mut out = String::new();
        for step in script.split(" | ").map(str::trim) {
            let (at, step) = step.split_once("s ").unwrap();
            let now = start + Duration::from_secs_f64(at.parse().unwrap());
            let (word, rest) = step.split_once(' ').unwrap_or((step, ""));
            if word == "until" {
                let mut alive = (rest == "alive").then(|| client.deadline().unwrap_or(start).min(now));
                loop {
                    let due = client.deadline().into_iter().chain(alive).min().filter(|due| *due <= now);
                    let Some(due) = due else { break };
                    if alive == Some(due) {
                        client.on(due, Input::Alive);
                        alive = Some(due + Duration::from_secs(20));
                    } else {
                        client.on(due, Input::Deadline);
                    }
                    drain(&mut client, start, due, &mut out);
                }
                continue;
            }
            feed(&mut client, now, word, rest);
            drain(&mut client, start, now, &mut out);
        }
        for secret in [COOKIE, CSRF, "hush"] {
            assert!(!out.contains(secret), "{out}");
        }
        out
    }

    fn feed(client: &mut Client, now: Instant, word: &str, rest: &str) {
        let end = End::default();
        match word {
            "start" => client.on(now, Input::Start),
            "open" => client.on(now, Input::Opened { subprotocol: None }),
            "config" => frame(client, now, CONFIG),
            "frame" => frame(client, now, rest),
            "alive" => client.on(now, Input::Alive),
            "end" => client.on(now, Input::Closed(end)),
            "broke" => client.on(now, Input::Closed(End { fault: Some(fault(rest)), ..end })),
            "closed-by-us" => client.on(now, Input::Closed(End { by_us: true, ..end })),
            "ok" => answer(client, now, r#"200 {"subscriptions":{"errors":[]}}"#),
            "answer" => answer(client, now, rest),
            "no-answer" => client.on(now, Input::Answered { response: None }),
            "refused" => client.on(now, Input::Refused { response: &response(rest) }),
            "unreachable" => client.on(now, Input::Unreachable { fault: fault(rest), detail: "made up" }),
            "topics" => {
                let of = |sign| rest.split(' ').filter_map(|t| t.strip_prefix(sign)).map(str::to_owned).collect::<Vec<_>>();
                client.on(now, Input::Topics { add: &of('+'), remove: &of('-') });
            }
            other => panic!("no step {other}"),
        }
    }

    fn frame(client: &mut Client, now: Instant, text: &str) {
        client.on(now, Input::Frame { decoded: &decode(text), received_at: UnixMicros(0) });
    }

    fn answer(client: &mut Client, now: Instant, text: &str) {
        client.on(now, Input::Answered { response: Some(&response(text)) });
    }

    /// `429 @7 {body}`
    fn response(text: &str) -> Response {
        let (status, rest) = text.split_once(' ').unwrap_or((text, ""));
        let (after, body) = match rest.strip_prefix('@') {
            Some(rest) => rest.split_once(' ').unwrap_or((rest, "")),
            None => ("", rest),
        };
        let headers = if after.is_empty() { vec![] } else { vec![("retry-after".to_owned(), after.to_owned())] };
        Response { status: status.parse().unwrap(), headers, body: Bytes::from(body.to_owned()) }
    }

    fn fault(name: &str) -> NetFault {
        use NetFault::*;
        let all = [Dns, Connect, Tls, Timeout, Handshake, Malformed, InvalidUtf8, Oversized, Reset];
        all.into_iter().find(|f| f.name() == name).unwrap()
    }

    fn drain(client: &mut Client, start: Instant, now: Instant, out: &mut String) {
        while let Some(action) = client.next_action() {
            let line = match action {
                Action::Dial { not_before } => format!("dial at {:.3}s", (not_before - start).as_secs_f64()),
                Action::Lost { scope, cause, detail } => format!("lost {scope} {}: {detail}", cause.name()),
                Action::Live { scope } => format!("live {scope}"),
                Action::Dropped { scope } => format!("dropped {scope}"),
                Action::Say { loud, text } => format!("say {loud:?}: {text}"),
                Action::Stop { fault, text } => format!("stop {fault:?}: {text}"),
                Action::Request(request) => format!("{} {}", request.method, request.body),
                other => format!("{other:?}"),
            };
            out.push_str(&format!("{:.1}s {line}\n", (now - start).as_secs_f64()));
        }
    }

    fn check(topics: &[&str], script: &str, expected: Expect) {
        expected.assert_eq(&run(settings(topics), script));
    }

    #[test]
    fn topics_of_the_address_are_live_with_the_config_and_refreshed() {
        let script = "0s start | 0.2s open | 0.3s config | 99s until alive | 110s until alive | 110s ok | 230s until alive";
        check(
            &["/tweet_engagement/1", "/tweet_engagement/2"],
            script,
            expect![[r#"
            0.0s dial at 0.000s
            0.3s live /tweet_engagement/1
            0.3s live /tweet_engagement/2
            100.3s POST sub_topics=%2Ftweet_engagement%2F1%2C%2Ftweet_engagement%2F2&unsub_topics=
            200.3s POST sub_topics=%2Ftweet_engagement%2F1%2C%2Ftweet_engagement%2F2&unsub_topics=
            220.3s lost /tweet_engagement/1 subscription_lapsed: not refreshed within its ttl
            220.3s lost /tweet_engagement/2 subscription_lapsed: not refreshed within its ttl
            220.3s say Warn: the subscription of /tweet_engagement/1, /tweet_engagement/2 has lapsed: refreshing it failed; trying on, what comes meanwhile is missed
        "#]],
        );
    }

    #[test]
    fn small_and_absurd_ttls() {
        let mut all = String::new();
        for ttl in ["500", "5000", "86400001", "-1", "null", "\"60000\""] {
            let config = format!(
                r#"{{"payload":{{"config":{{"session_id":"hush","subscription_ttl_millis":{ttl},"heartbeat_millis":600000}}}}}}"#
            );
            let out = run(settings(&["/tweet_engagement/1"]), &format!("0s start | 0s open | 0s frame {config} | 115s until"));
            let first = out.lines().find(|line| line.contains("POST")).unwrap_or("nothing");
            all += &format!("{ttl}: {first}\n");
        }
        expect![[r#"
            500: 100.0s POST sub_topics=%2Ftweet_engagement%2F1&unsub_topics=
            5000: 4.0s POST sub_topics=%2Ftweet_engagement%2F1&unsub_topics=
            86400001: 100.0s POST sub_topics=%2Ftweet_engagement%2F1&unsub_topics=
            -1: 100.0s POST sub_topics=%2Ftweet_engagement%2F1&unsub_topics=
            null: 100.0s POST sub_topics=%2Ftweet_engagement%2F1&unsub_topics=
            "60000": 48.0s POST sub_topics=%2Ftweet_engagement%2F1&unsub_topics=
        "#]]
        .assert_eq(&all);
    }

    #[test]
    fn no_config_is_no_stream() {
        check(
            &["/tweet_engagement/1"],
            "0s start | 0s open | 29s alive | 40s until | 40s closed-by-us",
            expect![[r#"
            0.0s dial at 0.000s
            30.0s say Warn: the live pipeline has gone silent (no config frame within 30s): closing the stream and opening another
            30.0s lost * silent: no config frame within 30s
            30.0s Close { code: 1000, reason: "no config frame within 30s" }
            40.0s say Warn: the stream ended; next try in 700ms
            40.0s dial at 40.668s
        "#]],
        );
    }

    #[test]
    fn silence_closes_and_is_told_once() {
        check(
            &[],
            "0s start | 0s open | 1s config | 70s alive | 150s until | 151s closed-by-us",
            expect![[r#"
            0.0s dial at 0.000s
            145.0s say Warn: the live pipeline has gone silent (nothing heard for 1m 15s): closing the stream and opening another
            145.0s lost * silent: nothing heard for 1m 15s
            145.0s Close { code: 1000, reason: "nothing heard for 1m 15s" }
            151.0s say Warn: the stream ended; next try in 700ms
            151.0s dial at 151.668s
        "#]],
        );
        let quick = r#"{"payload":{"config":{"session_id":"hush","heartbeat_millis":1000}}}"#;
        check(
            &[],
            &format!("0s start | 0s open | 1s frame {quick} | 20s until | 21s broke reset"),
            expect![[r#"
            0.0s dial at 0.000s
            16.0s say Warn: the live pipeline has gone silent (nothing heard for 15s): closing the stream and opening another
            16.0s lost * silent: nothing heard for 15s
            16.0s Close { code: 1000, reason: "nothing heard for 15s" }
            21.0s say Warn: the stream broke (reset): the link was cut; next try in 700ms
            21.0s dial at 21.668s
        "#]],
        );
    }

    #[test]
    fn the_rest_is_posted_after_the_config() {
        let topics: Vec<_> = (1..=22).map(|n| format!("/tweet_engagement/{n}")).collect();
        let topics: Vec<_> = topics.iter().map(String::as_str).collect();
        let out = run(settings(&topics), "0s start | 0s open | 0s config | 1s ok");
        let tail: Vec<_> = out.lines().skip(19).collect();
        expect![[r#"
            0.0s live /tweet_engagement/19
            0.0s live /tweet_engagement/20
            0.0s POST sub_topics=%2Ftweet_engagement%2F21%2C%2Ftweet_engagement%2F22&unsub_topics=
            1.0s live /tweet_engagement/21
            1.0s live /tweet_engagement/22"#]]
        .assert_eq(&tail.join("\n"));
        let opening = Client::new(settings(&topics)).opening();
        assert_eq!(opening.target.expose().split(',').count(), 20);
    }

    #[test]
    fn a_refused_topic_is_told_once_and_asked_for_again() {
        let no = r#"{"subscriptions":{"errors":[{"topic":"/tweet_engagement/2","code":7,"message":"no"},{"topic":"/other","code":7}]}}"#;
        let script = format!(
            "0s start | 0s open | 0s config | 100s until alive | 100s answer 200 {no} | 201s until alive | 201s answer 200 {no} \
             | 301s until alive | 301s ok"
        );
        check(
            &["/tweet_engagement/1", "/tweet_engagement/2"],
            &script,
            expect![[r#"
            0.0s dial at 0.000s
            0.0s live /tweet_engagement/1
            0.0s live /tweet_engagement/2
            100.0s POST sub_topics=%2Ftweet_engagement%2F1%2C%2Ftweet_engagement%2F2&unsub_topics=
            100.0s lost /tweet_engagement/2 subscription_refused: refused with code 7 "no"
            100.0s say Warn: the live pipeline does not serve /tweet_engagement/2; asking again with every refresh
            200.0s POST sub_topics=%2Ftweet_engagement%2F1%2C%2Ftweet_engagement%2F2&unsub_topics=
            300.0s POST sub_topics=%2Ftweet_engagement%2F1%2C%2Ftweet_engagement%2F2&unsub_topics=
            301.0s live /tweet_engagement/2
        "#]],
        );
    }

    #[test]
    fn a_refusal_on_the_stream_counts_too() {
        let no = r#"{"topic":"/system/subscriptions","payload":{"subscriptions":{"errors":[{"topic":"/tweet_engagement/1","code":7,"message":"no"}]}}}"#;
        check(
            &["/tweet_engagement/1"],
            &format!("0s start | 0s open | 0s config | 1s frame {no}"),
            expect![[r#"
            0.0s dial at 0.000s
            0.0s live /tweet_engagement/1
            1.0s lost /tweet_engagement/1 subscription_refused: refused with code 7 "no"
            1.0s say Warn: the live pipeline does not serve /tweet_engagement/1; asking again with every refresh
        "#]],
        );
    }

    #[test]
    fn failed_refreshes_lapse_once_and_recover() {
        let script = "0s start | 0s open | 0s config | 100s until alive | 100s answer 500 oops | 103s until alive | 103s no-answer \
                      | 110s until alive | 110s answer 429 @20 | 125s until alive | 131s until alive | 132s ok | 140s until alive";
        check(
            &["/tweet_engagement/1"],
            script,
            expect![[r#"
            0.0s dial at 0.000s
            0.0s live /tweet_engagement/1
            100.0s POST sub_topics=%2Ftweet_engagement%2F1&unsub_topics=
            100.0s say Warn: changing or refreshing topics failed: HTTP 500 without a word about subscriptions; next try in 1s 100ms
            101.0s POST sub_topics=%2Ftweet_engagement%2F1&unsub_topics=
            103.0s say Warn: changing or refreshing topics failed: no answer; next try in 1s 800ms
            104.7s POST sub_topics=%2Ftweet_engagement%2F1&unsub_topics=
            110.0s say Warn: changing or refreshing topics failed: HTTP 429, too many requests; next try in 20s
            120.0s lost /tweet_engagement/1 subscription_lapsed: not refreshed within its ttl
            120.0s say Warn: the subscription of /tweet_engagement/1 has lapsed: refreshing it failed; trying on, what comes meanwhile is missed
            130.0s POST sub_topics=%2Ftweet_engagement%2F1&unsub_topics=
            132.0s live /tweet_engagement/1
        "#]],
        );
    }

    #[test]
    fn an_answer_that_never_comes_is_given_up() {
        check(
            &["/tweet_engagement/1"],
            "0s start | 0s open | 0s config | 170s until alive",
            expect![[r#"
            0.0s dial at 0.000s
            0.0s live /tweet_engagement/1
            100.0s POST sub_topics=%2Ftweet_engagement%2F1&unsub_topics=
            120.0s lost /tweet_engagement/1 subscription_lapsed: not refreshed within its ttl
            120.0s say Warn: the subscription of /tweet_engagement/1 has lapsed: refreshing it failed; trying on, what comes meanwhile is missed
            160.0s say Warn: changing or refreshing topics failed: no answer; next try in 1s 100ms
            161.0s POST sub_topics=%2Ftweet_engagement%2F1&unsub_topics=
        "#]],
        );
    }

    #[test]
    fn answers_to_a_post() {
        let mut all = String::new();
        for answer in [
            r#"404 {"errors":[{"code":392,"message":"Session not found."}]}"#,
            r#"200 {"errors":[{"code":392,"message":"Session not found."}]}"#,
            r#"400 {"errors":[{"code":38,"message":"missing"}]}"#,
            r#"400 {"errors":[{"code":130,"message":"Over capacity"}]}"#,
            r#"429 @30 {"errors":[{"code":88,"message":"Rate limit"}]}"#,
            r#"401 {"errors":[{"code":32,"message":"Could not authenticate you."}]}"#,
            "401",
            "403 {}",
            "200 {}",
            "200 <html>",
            "302",
            "500",
        ] {
            let script = format!("0s start | 0s open | 0s config | 1s topics +/tweet_engagement/1 | 2s answer {answer}");
            let out = run(settings(&[]), &script);
            let tail: Vec<_> = out.lines().skip(2).collect();
            all += &format!("{answer}\n{}\n", tail.join("\n"));
        }
        expect![[r#"
            404 {"errors":[{"code":392,"message":"Session not found."}]}
            2.0s say Warn: the live pipeline has forgotten the session (code 392 "Session not found."): opening another stream
            2.0s lost * subscription_lapsed: session gone, code 392
            2.0s Close { code: 1000, reason: "session gone, code 392" }
            200 {"errors":[{"code":392,"message":"Session not found."}]}
            2.0s say Warn: the live pipeline has forgotten the session (code 392 "Session not found."): opening another stream
            2.0s lost * subscription_lapsed: session gone, code 392
            2.0s Close { code: 1000, reason: "session gone, code 392" }
            400 {"errors":[{"code":38,"message":"missing"}]}
            2.0s say Warn: the live pipeline has forgotten the session (code 38 "missing"): opening another stream
            2.0s lost * subscription_lapsed: session gone, code 38
            2.0s Close { code: 1000, reason: "session gone, code 38" }
            400 {"errors":[{"code":130,"message":"Over capacity"}]}
            2.0s say Warn: changing or refreshing topics failed: HTTP 400 "Over capacity"; next try in 1s 100ms
            429 @30 {"errors":[{"code":88,"message":"Rate limit"}]}
            2.0s say Warn: changing or refreshing topics failed: HTTP 429, too many requests; next try in 30s
            401 {"errors":[{"code":32,"message":"Could not authenticate you."}]}
            2.0s lost * auth: code 32 "Could not authenticate you."
            2.0s Close { code: 1000, reason: "code 32 \"Could not authenticate you.\"" }
            2.0s stop Credentials: code 32 "Could not authenticate you.": X rejects the session's cookies; log in again, copy auth_token and ct0, and start again
            401
            2.0s lost * auth: HTTP 401 to a change of topics
            2.0s Close { code: 1000, reason: "HTTP 401 to a change of topics" }
            2.0s stop Credentials: HTTP 401 to a change of topics: X rejects the session's cookies; log in again, copy auth_token and ct0, and start again
            403 {}
            2.0s lost * auth: HTTP 403 to a change of topics
            2.0s Close { code: 1000, reason: "HTTP 403 to a change of topics" }
            2.0s stop Credentials: HTTP 403 to a change of topics: X rejects the session's cookies; log in again, copy auth_token and ct0, and start again
            200 {}
            2.0s say Warn: changing or refreshing topics failed: HTTP 200 without a word about subscriptions; next try in 1s 100ms
            200 <html>
            2.0s say Warn: changing or refreshing topics failed: HTTP 200 without a word about subscriptions; next try in 1s 100ms
            302
            2.0s say Warn: changing or refreshing topics failed: HTTP 302 without a word about subscriptions; next try in 1s 100ms
            500
            2.0s say Warn: changing or refreshing topics failed: HTTP 500 without a word about subscriptions; next try in 1s 100ms
        "#]].assert_eq(&all);
    }

    #[test]
    fn a_server_that_forgets_every_session_is_not_hammered() {
        let topics: Vec<_> = (1..=21).map(|n| format!("/tweet_engagement/{n}")).collect();
        let topics: Vec<_> = topics.iter().map(String::as_str).collect();
        let cycle = r#" | 0s open | 0s config | 0s answer 404 {"errors":[{"code":392}]} | 0s closed-by-us"#;
        let out = run(settings(&topics), &format!("0s start{}", cycle.repeat(9)));
        let dials: Vec<_> = out.lines().filter_map(|line| line.strip_prefix("0.0s dial at ")).collect();
        expect!["0.000s 0.668s 1.352s 2.303s 4.129s 8.119s 22.472s 51.458s 56.130s 42.171s"].assert_eq(&dials.join(" "));
    }

    #[test]
    fn a_late_answer_says_nothing_about_the_next_session() {
        let second = CONFIG.replace("hush-1", "hush-2");
        let script = format!(
            "0s start | 0s open | 0s config | 1s topics +/tweet_engagement/1 | 1.5s end | 3s open | 3s frame {second} \
             | 3.5s topics +/tweet_engagement/2 | 4s ok | 5s until | 5s ok"
        );
        check(
            &[],
            &script,
            expect![[r#"
            0.0s dial at 0.000s
            1.0s POST sub_topics=%2Ftweet_engagement%2F1&unsub_topics=
            1.5s lost * connection_lost: the stream ended
            1.5s say Warn: the stream ended: the server ended the stream, as it does now and then; next try in 700ms
            1.5s dial at 2.168s
            3.0s live /tweet_engagement/1
            4.0s POST sub_topics=%2Ftweet_engagement%2F2&unsub_topics=
            5.0s live /tweet_engagement/2
        "#]],
        );
    }

    #[test]
    fn topics_come_and_go() {
        let script = "0s start | 0s open | 0s config | 1s topics +/tweet_engagement/2 -/tweet_engagement/1 -/nowhere | 1.1s ok \
                      | 1.2s topics +/tweet_engagement/3 +/tweet_engagement/3 | 1.3s topics -/tweet_engagement/2 | 3s until | 3s ok \
                      | 4s end | 4s topics +/tweet_engagement/4 | 5s open | 5s config | 5s ok";
        check(
            &["/tweet_engagement/1"],
            script,
            expect![[r#"
            0.0s dial at 0.000s
            0.0s live /tweet_engagement/1
            1.0s dropped /tweet_engagement/1
            1.0s POST sub_topics=%2Ftweet_engagement%2F2&unsub_topics=%2Ftweet_engagement%2F1
            1.1s live /tweet_engagement/2
            1.3s dropped /tweet_engagement/2
            2.0s POST sub_topics=%2Ftweet_engagement%2F3&unsub_topics=%2Ftweet_engagement%2F2
            3.0s live /tweet_engagement/3
            4.0s lost * connection_lost: the stream ended
            4.0s say Warn: the stream ended: the server ended the stream, as it does now and then; next try in 700ms
            4.0s dial at 4.668s
            5.0s live /tweet_engagement/3
            5.0s POST sub_topics=%2Ftweet_engagement%2F4&unsub_topics=
            5.0s live /tweet_engagement/4
        "#]],
        );
    }

    #[test]
    fn direct_messages_are_private_and_only_for_the_opening() {
        check(
            &["/dm_update/101-202", "/tweet_engagement/1"],
            "0s start | 0s open | 0s config | 1s topics +/dm_typing/101-202",
            expect![[r#"
                0.0s say Warn: /dm_update/*** is left out: direct messages are private and must be switched on for this source
                0.0s dial at 0.000s
                0.0s live /tweet_engagement/1
                1.0s say Warn: /dm_typing/*** is left out: direct messages are private and must be switched on for this source
            "#]],
        );
        let on = Settings { direct_messages: true, ..settings(&["/tweet_engagement/1", "/dm_update/101-202"]) };
        let mut client = Client::new(on.clone());
        assert!(!client.opening().shown.contains("101"));
        expect!["https://api.x.com/live_pipeline/events?topic=/tweet_engagement/1,/dm_update/***"]
            .assert_eq(&client.opening().shown);
        expect!["/live_pipeline/events?topic=%2Ftweet_engagement%2F1,%2Fdm_update%2F101-202"]
            .assert_eq(client.opening().target.expose());
        assert!(client.next_action().is_none());
        let script = "0s start | 0s open | 0s config | 1s topics +/dm_typing/101-202 | 3s until | 4s end | 5s open | 5s config";
        expect![[r#"
            0.0s dial at 0.000s
            0.0s live /tweet_engagement/1
            0.0s live /dm_update/101-202
            1.0s say Warn: /dm_typing/*** cannot be added to an open stream; it is asked for when the stream is opened next
            4.0s lost * connection_lost: the stream ended
            4.0s say Warn: the stream ended: the server ended the stream, as it does now and then; next try in 700ms
            4.0s dial at 4.668s
            5.0s live /tweet_engagement/1
            5.0s live /dm_update/101-202
            5.0s live /dm_typing/101-202
        "#]]
        .assert_eq(&run(on, script));
    }

    #[test]
    fn what_is_no_topic_is_left_out() {
        check(
            &["", "/", "tweet", "/a,b", "/a b", "/a\nb", "/é", "/x/1", "/x/1"],
            "0s start",
            expect![[r#"
            0.0s say Error: `` is not a topic such as /tweet_engagement/1; it is left out
            0.0s say Error: `/` is not a topic such as /tweet_engagement/1; it is left out
            0.0s say Error: `tweet` is not a topic such as /tweet_engagement/1; it is left out
            0.0s say Error: `/a,b` is not a topic such as /tweet_engagement/1; it is left out
            0.0s say Error: `/a b` is not a topic such as /tweet_engagement/1; it is left out
            0.0s say Error: `/ab` is not a topic such as /tweet_engagement/1; it is left out
            0.0s say Error: `/é` is not a topic such as /tweet_engagement/1; it is left out
            0.0s dial at 0.000s
        "#]],
        );
    }

    #[test]
    fn another_session_on_the_same_stream_is_asked_again() {
        let second = CONFIG.replace("hush-1", "hush-2");
        let script = format!("0s start | 0s open | 0s config | 0s config | 5s frame {second} | 5s ok | 106s until alive");
        check(
            &["/tweet_engagement/1"],
            &script,
            expect![[r#"
            0.0s dial at 0.000s
            0.0s live /tweet_engagement/1
            5.0s say Info: the live pipeline began another session on the same stream; asking for all topics again
            5.0s POST sub_topics=%2Ftweet_engagement%2F1&unsub_topics=
            100.0s POST sub_topics=%2Ftweet_engagement%2F1&unsub_topics=
        "#]],
        );
    }

    #[test]
    fn complaints_on_the_stream() {
        for (code, want) in [(392, "opening another"), (32, "stop Credentials"), (130, "recording goes on")] {
            let script = format!(r#"0s start | 0s open | 0s config | 1s frame {{"errors":[{{"code":{code},"message":"x"}}]}}"#);
            let out = run(settings(&[]), &script);
            assert!(out.contains(want), "{out}");
        }
    }

    #[test]
    fn every_refusal() {
        let mut all = String::new();
        let answers = "200 204 301 302 307 308 400 401 402 403 404 410 429,@7 429,@0 429,@rubbish 429,@1000000000 429 500 502 503 503,@120 999";
        for answer in answers.split(' ').map(|answer| answer.replace(',', " ")) {
            let out = run(settings(&[]), &format!("0s start | 0s refused {answer}"));
            all += &format!("{answer}\n{}", out.replace("0.0s dial at 0.000s\n", ""));
        }
        expect![[r#"
            200
            0.0s lost * refused: HTTP 200 instead of a stream
            0.0s say Warn: HTTP 200: the server answered, but not with a stream; next try in 700ms
            0.0s dial at 0.668s
            204
            0.0s lost * refused: HTTP 204 instead of a stream
            0.0s say Warn: HTTP 204: the server answered, but not with a stream; next try in 700ms
            0.0s dial at 0.668s
            301
            0.0s lost * refused: HTTP 301 instead of a stream
            0.0s say Error: HTTP 301: a redirect, which is never followed with cookies; check the address; next try in 15m 10s
            0.0s dial at 909.252s
            302
            0.0s lost * refused: HTTP 302 instead of a stream
            0.0s say Error: HTTP 302: a redirect, which is never followed with cookies; check the address; next try in 15m 10s
            0.0s dial at 909.252s
            307
            0.0s lost * refused: HTTP 307 instead of a stream
            0.0s say Error: HTTP 307: a redirect, which is never followed with cookies; check the address; next try in 15m 10s
            0.0s dial at 909.252s
            308
            0.0s lost * refused: HTTP 308 instead of a stream
            0.0s say Error: HTTP 308: a redirect, which is never followed with cookies; check the address; next try in 15m 10s
            0.0s dial at 909.252s
            400
            0.0s lost * refused: HTTP 400 instead of a stream
            0.0s say Error: HTTP 400: the server calls the request malformed; check the topics; next try in 15m 10s
            0.0s dial at 909.252s
            401
            0.0s lost * auth: HTTP 401 instead of a stream
            0.0s stop Credentials: HTTP 401: X rejects the session's cookies; giving this source up, log in again and copy the cookies anew
            402
            0.0s lost * credits: HTTP 402 instead of a stream
            0.0s say Error: HTTP 402: the account may not use the stream; next try in 15m 10s
            0.0s dial at 909.252s
            403
            0.0s lost * auth: HTTP 403 instead of a stream
            0.0s stop Credentials: HTTP 403: X rejects the session's cookies; giving this source up, log in again and copy the cookies anew
            404
            0.0s lost * refused: HTTP 404 instead of a stream
            0.0s say Error: HTTP 404: there is no live pipeline at this address; it may have moved; next try in 15m 10s
            0.0s dial at 909.252s
            410
            0.0s lost * refused: HTTP 410 instead of a stream
            0.0s say Error: HTTP 410: there is no live pipeline at this address; it may have moved; next try in 15m 10s
            0.0s dial at 909.252s
            429 @7
            0.0s lost * rate_limited: HTTP 429 instead of a stream
            0.0s say Warn: HTTP 429: too many openings; next try in 7s
            0.0s dial at 7.000s
            429 @0
            0.0s lost * rate_limited: HTTP 429 instead of a stream
            0.0s say Warn: HTTP 429: too many openings; next try in 700ms
            0.0s dial at 0.668s
            429 @rubbish
            0.0s lost * rate_limited: HTTP 429 instead of a stream
            0.0s say Warn: HTTP 429: too many openings; next try in 1m 1s
            0.0s dial at 60.413s
            429 @1000000000
            0.0s lost * rate_limited: HTTP 429 instead of a stream
            0.0s say Warn: HTTP 429: too many openings; next try in 1day
            0.0s dial at 86400.000s
            429
            0.0s lost * rate_limited: HTTP 429 instead of a stream
            0.0s say Warn: HTTP 429: too many openings; next try in 1m 1s
            0.0s dial at 60.413s
            500
            0.0s lost * refused: HTTP 500 instead of a stream
            0.0s say Warn: HTTP 500: the server has a fault; next try in 700ms
            0.0s dial at 0.668s
            502
            0.0s lost * refused: HTTP 502 instead of a stream
            0.0s say Warn: HTTP 502: the server has a fault; next try in 700ms
            0.0s dial at 0.668s
            503
            0.0s lost * refused: HTTP 503 instead of a stream
            0.0s say Warn: HTTP 503: the server has a fault; next try in 700ms
            0.0s dial at 0.668s
            503 @120
            0.0s lost * refused: HTTP 503 instead of a stream
            0.0s say Warn: HTTP 503: the service is unavailable and says when to come back; next try in 2m
            0.0s dial at 120.000s
            999
            0.0s lost * refused: HTTP 999 instead of a stream
            0.0s say Warn: HTTP 999: the server would not open the stream; next try in 700ms
            0.0s dial at 0.668s
        "#]].assert_eq(&all);
    }

    #[test]
    fn every_fault() {
        let mut all = String::new();
        for name in ["dns", "connect", "tls", "timeout", "handshake", "malformed", "invalid_utf8", "oversized", "reset"] {
            for script in [format!("0s start | 0s unreachable {name}"), format!("0s start | 0s open | 0s broke {name}")] {
                all += &run(settings(&[]), &script).replace("0.0s dial at 0.000s\n", "");
            }
        }
        expect![[r#"
            0.0s lost * unreachable: no connection (dns) "made up"
            0.0s say Warn: no connection (dns) "made up": the host name has no address here; next try in 700ms
            0.0s dial at 0.668s
            0.0s lost * connection_lost: the stream broke (dns)
            0.0s say Warn: the stream broke (dns): the link was cut; next try in 700ms
            0.0s dial at 0.668s
            0.0s lost * unreachable: no connection (connect) "made up"
            0.0s say Warn: no connection (connect) "made up": nobody answers at that address; next try in 700ms
            0.0s dial at 0.668s
            0.0s lost * connection_lost: the stream broke (connect)
            0.0s say Warn: the stream broke (connect): the link was cut; next try in 700ms
            0.0s dial at 0.668s
            0.0s lost * unreachable: no connection (tls) "made up"
            0.0s say Warn: no connection (tls) "made up": the certificate or the TLS handshake failed; next try in 700ms
            0.0s dial at 0.668s
            0.0s lost * connection_lost: the stream broke (tls)
            0.0s say Warn: the stream broke (tls): the link was cut; next try in 700ms
            0.0s dial at 0.668s
            0.0s lost * unreachable: no connection (timeout) "made up"
            0.0s say Warn: no connection (timeout) "made up": no answer in time; next try in 700ms
            0.0s dial at 0.668s
            0.0s lost * silent: the stream broke (timeout)
            0.0s say Warn: the stream broke (timeout): the link went silent; next try in 700ms
            0.0s dial at 0.668s
            0.0s lost * protocol: no connection (handshake) "made up"
            0.0s say Warn: no connection (handshake) "made up": the answer was not HTTP; next try in 700ms
            0.0s dial at 0.668s
            0.0s lost * protocol: the stream broke (handshake)
            0.0s say Warn: the stream broke (handshake): the stream's framing is broken; next try in 700ms
            0.0s dial at 0.668s
            0.0s lost * protocol: no connection (malformed) "made up"
            0.0s say Warn: no connection (malformed) "made up": the answer was not HTTP; next try in 700ms
            0.0s dial at 0.668s
            0.0s lost * protocol: the stream broke (malformed)
            0.0s say Warn: the stream broke (malformed): the stream's framing is broken; next try in 700ms
            0.0s dial at 0.668s
            0.0s lost * protocol: no connection (invalid_utf8) "made up"
            0.0s say Warn: no connection (invalid_utf8) "made up": the answer was not HTTP; next try in 700ms
            0.0s dial at 0.668s
            0.0s lost * protocol: the stream broke (invalid_utf8)
            0.0s say Warn: the stream broke (invalid_utf8): the stream's framing is broken; next try in 700ms
            0.0s dial at 0.668s
            0.0s lost * protocol: no connection (oversized) "made up"
            0.0s say Warn: no connection (oversized) "made up": the answer was not HTTP; next try in 700ms
            0.0s dial at 0.668s
            0.0s lost * protocol: the stream broke (oversized)
            0.0s say Warn: the stream broke (oversized): a frame was larger than the limit; next try in 700ms
            0.0s dial at 0.668s
            0.0s lost * unreachable: no connection (reset) "made up"
            0.0s say Warn: no connection (reset) "made up": the connection was cut before an answer came; next try in 700ms
            0.0s dial at 0.668s
            0.0s lost * connection_lost: the stream broke (reset)
            0.0s say Warn: the stream broke (reset): the link was cut; next try in 700ms
            0.0s dial at 0.668s
        "#]]
        .assert_eq(&all);
    }

    #[test]
    fn back_off_doubles_to_the_cap_and_starts_again_after_life() {
        let script = format!("0s start | {} 0s open | 0s config | 0s alive | 0s end", "0s refused 500 | ".repeat(10));
        let out = run(settings(&[]), &script);
        let dials: Vec<_> = out.lines().filter_map(|line| line.strip_prefix("0.0s dial at ")).collect();
        expect!["0.000s 0.668s 1.352s 2.303s 4.129s 8.119s 22.472s 51.458s 56.130s 42.171s 48.669s 0.711s"]
            .assert_eq(&dials.join(" "));
        assert_eq!(out.lines().filter(|line| line.contains("lost * refused")).count(), 1);
    }

    #[test]
    fn can_be_told_not_to_reconnect() {
        let settings = Settings { auto_reconnect: false, ..settings(&[]) };
        expect![[r#"
            0.0s dial at 0.000s
            5.0s lost * connection_lost: the stream ended
            5.0s stop Dropped: the stream ended: the server ended the stream, as it does now and then; reconnecting is switched off, so this source ends here
        "#]].assert_eq(&run(settings, "0s start | 0s open | 0s config | 5s end | 6s open"));
    }

    #[test]
    fn needs_sound_cookies() {
        let mut none = settings(&[]);
        none.credentials.ct0 = None;
        expect![[r#"
            0.0s stop Credentials: the live pipeline needs the cookies auth_token and ct0 of a logged-in browser session, and they are not configured
        "#]].assert_eq(&run(none, "0s start | 1s open"));
        let mut odd = settings(&[]);
        odd.credentials.auth_token = Secret::new("a; b=c");
        expect![[r#"
            0.0s stop Settings: a configured cookie or key of x_live holds characters that cannot stand in a header; copy the bare values
        "#]].assert_eq(&run(odd, "0s start"));
    }

    #[test]
    fn the_address_and_headers() {
        let mut all = String::new();
        let bases = [None, Some("http://localhost:9/x"), Some("ws://localhost:9/live/here")];
        for (base, framing) in bases.into_iter().zip([Framing::Sse, Framing::Lines, Framing::Sse]) {
            let base = base.map(|b| Base::parse(b).unwrap());
            let mut settings = Settings { base, framing, ..settings(&["/tweet_engagement/1", "/tweet_engagement/2"]) };
            settings.credentials.key = (framing == Framing::Lines).then(|| Secret::new("public-bearer").unwrap());
            let mut client = Client::new(settings);
            let opening = client.opening();
            assert!(!format!("{opening:?}").contains("made-up"));
            let headers: Vec<_> = opening.headers.iter().map(|(n, v)| format!("{n}: {}", v.expose())).collect();
            all += &format!("{}\n{}\n  {}\n", opening.shown, opening.target.expose(), headers.join("\n  "));
            let now = Instant::now();
            ["start", "open", "config"].into_iter().for_each(|word| feed(&mut client, now, word, ""));
            feed(&mut client, now, "topics", "+/tweet_engagement/3");
            let request = std::iter::from_fn(|| client.next_action()).find_map(|action| match action {
                Action::Request(request) => Some(request),
                _ => None,
            });
            let request = request.unwrap();
            let headers: Vec<_> = request.headers.iter().map(|(n, v)| format!("{n}: {}", v.expose())).collect();
            all += &format!("POST {}\n{}\n  {}\n", request.shown, request.target.expose(), headers[6..].join("\n  "));
        }
        expect![[r#"
            https://api.x.com/live_pipeline/events?topic=/tweet_engagement/1,/tweet_engagement/2
            /live_pipeline/events?topic=%2Ftweet_engagement%2F1,%2Ftweet_engagement%2F2
              cookie: auth_token=made-up-auth-token; ct0=made-up-ct0
              x-csrf-token: made-up-ct0
              x-twitter-auth-type: OAuth2Session
              x-twitter-active-user: yes
              x-twitter-client-language: en
              referer: https://x.com/
              accept: text/event-stream
            POST https://api.x.com/1.1/live_pipeline/update_subscriptions
            /1.1/live_pipeline/update_subscriptions
              content-type: application/x-www-form-urlencoded
              livepipeline-session: hush-1
            http://localhost:9/x/live_pipeline/events?topic=/tweet_engagement/1,/tweet_engagement/2
            /x/live_pipeline/events?topic=%2Ftweet_engagement%2F1,%2Ftweet_engagement%2F2
              cookie: auth_token=made-up-auth-token; ct0=made-up-ct0
              x-csrf-token: made-up-ct0
              x-twitter-auth-type: OAuth2Session
              x-twitter-active-user: yes
              x-twitter-client-language: en
              referer: https://x.com/
              authorization: Bearer public-bearer
              accept: */*
            POST http://localhost:9/x/1.1/live_pipeline/update_subscriptions
            /x/1.1/live_pipeline/update_subscriptions
              authorization: Bearer public-bearer
              content-type: application/x-www-form-urlencoded
              livepipeline-session: hush-1
            http://localhost:9/live/here?topic=/tweet_engagement/1,/tweet_engagement/2
            /live/here?topic=%2Ftweet_engagement%2F1,%2Ftweet_engagement%2F2
              cookie: auth_token=made-up-auth-token; ct0=made-up-ct0
              x-csrf-token: made-up-ct0
              x-twitter-auth-type: OAuth2Session
              x-twitter-active-user: yes
              x-twitter-client-language: en
              referer: https://x.com/
              accept: text/event-stream
            POST http://localhost:9/1.1/live_pipeline/update_subscriptions
            /1.1/live_pipeline/update_subscriptions
              content-type: application/x-www-form-urlencoded
              livepipeline-session: hush-1
        "#]]
        .assert_eq(&all);
    }
}
