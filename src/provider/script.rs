//! Plays a written script to a client machine in virtual time, for tests.
//!
//! `0s start | 1s open | 5s close 1006` feeds three inputs and fires every deadline that falls between them. What the
//! machine wants is written one action a line, each with its second. An [`Action::Close`] is answered at once.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use super::{Action, Answer, Asked, Auth, Client, End, Input, PeerId, Server, Settings, decode, default_settings};
use crate::model::{Decoded, Event, EventId, Message, NetFault, Provider, Response, Secret, UnixMicros};

/// The wall clock at second 0 of a script: 2026-11-02T08:00:00Z.
pub(super) const WALL_START: UnixMicros = UnixMicros(1_793_606_400_000_000);

/// A machine, its clock and what it said so far.
pub(super) struct Player {
    pub(super) client: Client,
    provider: Provider,
    start: Instant,
    now: Instant,
    out: String,
}

/// A provider's defaults with a key that must show up nowhere, and without a look at what selects.
pub(super) fn settings_with_key(provider: Provider, key: &str, auth: Auth) -> Settings {
    let mut settings = Settings { auth, scopes_every: Duration::ZERO, ..default_settings(provider) };
    settings.credentials.key = Secret::new(key);
    settings
}

/// Plays a script to a new machine and gives what it did.
pub(super) fn play(settings: Settings, script: &str) -> String {
    let mut player = Player::new(settings);
    player.play(script);
    player.take()
}

impl Player {
    pub(super) fn new(settings: Settings) -> Self {
        let start = Instant::now();
        let provider = settings.provider;
        Self { client: Client::new(settings), provider, start, now: start, out: String::new() }
    }

    pub(super) fn take(&mut self) -> String {
        std::mem::take(&mut self.out)
    }

    pub(super) fn play(&mut self, script: &str) {
        for step in script.split('|').map(str::trim).filter(|step| !step.is_empty()) {
            let (when, what) = step.split_once(' ').unwrap();
            let at = self.start + Duration::from_secs_f64(when.strip_suffix('s').unwrap().parse().unwrap());
            self.run_until(at);
            self.step(what);
        }
    }

    /// Carries the machine's opening to a fake peer, and the answer back.
    pub(super) fn dial(&mut self, server: &mut Server, peer: PeerId) {
        let opening = self.client.opening();
        let (path, query) = opening.target.expose().split_once('?').unwrap_or((opening.target.expose(), ""));
        let headers: Vec<_> = opening.headers.iter().map(|(n, v)| ((*n).to_owned(), v.expose().to_owned())).collect();
        let asked = Asked { method: "GET", path, query, headers: &headers, body: b"", wants_upgrade: true };
        match server.asked(peer, &asked, self.now) {
            Answer::Http(response) => self.feed(Input::Refused { response: &response }),
            Answer::WebSocket { .. } => self.feed(Input::Opened { subprotocol: None }),
            Answer::Stream { .. } => panic!("a WebSocket was asked for"),
            Answer::WebSocketThenClose { messages, code, reason } => {
                self.feed(Input::Opened { subprotocol: None });
                for message in messages {
                    self.step(&format!("frame {}", std::str::from_utf8(&message).unwrap()));
                }
                self.feed(Input::Closed(End { code: Some(code), reason: &reason, ..End::default() }));
            }
        }
    }

    fn run_until(&mut self, at: Instant) {
        for _ in 0..10_000 {
            match self.client.deadline().filter(|due| *due <= at) {
                Some(due) => {
                    self.now = self.now.max(due);
                    self.feed(Input::Deadline);
                }
                None => {
                    self.now = at;
                    return;
                }
            }
        }
        panic!("the machine wants a deadline again and again: {}", self.out);
    }

    fn step(&mut self, what: &str) {
        let (verb, rest) = what.split_once(' ').unwrap_or((what, ""));
        let (first, more) = rest.split_once(' ').unwrap_or((rest, ""));
        match verb {
            "start" => self.feed(Input::Start),
            "open" => self.feed(Input::Opened { subprotocol: None }),
            "alive" => self.feed(Input::Alive),
            "wait" => {}
            "frame" => {
                let decoded = decode(self.provider, rest.as_bytes());
                let received_at = WALL_START.plus(self.now - self.start);
                self.feed(Input::Frame { decoded: &decoded, received_at });
            }
            "close" => self.feed(Input::Closed(End { code: first.parse().ok(), reason: more, ..End::default() })),
            "break" => self.feed(Input::Closed(End { fault: Some(fault(first)), ..End::default() })),
            "unreachable" => self.feed(Input::Unreachable { fault: fault(first), detail: more }),
            "refused" => {
                let mut response = Response::json(first.parse().unwrap(), "");
                for word in more.split(' ').filter(|w| !w.is_empty()) {
                    match word.split_once('=') {
                        Some((name, value)) if !word.starts_with('{') => {
                            response.headers.push((name.to_owned(), value.to_owned()));
                        }
                        _ => response.body = more[more.find('{').unwrap()..].to_owned().into(),
                    }
                }
                self.feed(Input::Refused { response: &response });
            }
            other => panic!("no such step: {other}"),
        }
    }

    fn feed(&mut self, input: Input<'_>) {
        self.client.on(self.now, input);
        while let Some(action) = self.client.next_action() {
            let second = seconds(self.now - self.start);
            let text = show_action(&action, self.start);
            writeln!(self.out, "{second} {text}").unwrap();
            if matches!(action, Action::Close { .. }) {
                self.client.on(self.now, Input::Closed(End { by_us: true, ..End::default() }));
            }
        }
    }
}

fn seconds(since: Duration) -> String {
    let tenths = (since.as_secs_f64() * 10.0).round() / 10.0;
    format!("{tenths}s")
}

fn fault(name: &str) -> NetFault {
    use NetFault::*;
    let all = [Dns, Connect, Tls, Timeout, Handshake, Malformed, InvalidUtf8, Oversized, Reset];
    all.into_iter().find(|f| f.name() == name).unwrap()
}

fn show_action(action: &Action, start: Instant) -> String {
    match action {
        Action::Dial { not_before } => format!("dial not before {}", seconds(*not_before - start)),
        Action::Send(text) => format!("send {text}"),
        Action::Ping => "ping".to_owned(),
        Action::Close { code, reason } => format!("close {code} {reason}"),
        Action::Lost { scope, cause, detail } => format!("lost {scope} {} ({detail})", cause.name()),
        Action::Say { loud, text } => format!("say {loud:?}: {text}"),
        Action::Stop { fault, text } => format!("stop {fault:?}: {text}"),
        other => format!("{other:?}"),
    }
}

/// A decoded envelope in few words.
pub(super) fn show_decoded(decoded: &Decoded) -> String {
    let message = match &decoded.message {
        Message::Error { code, text } => format!("error {code:?} {text:?}"),
        other => format!("{other:?}").to_lowercase(),
    };
    let mut out = format!("{}{message}", if decoded.json { "json " } else { "not json, " });
    if let Some(at) = decoded.provider_at {
        write!(out, " at {at}").unwrap();
    }
    for Event { kind, id, published_at, selector } in &decoded.events {
        let id = match id {
            EventId::Tweet(id) => id.to_string(),
            EventId::Text(text) => format!("\"{text}\""),
        };
        let published = published_at.map_or_else(|| "-".to_owned(), |at| at.to_string());
        write!(out, "\n{} {id} published {published} by [{selector}]", kind.name()).unwrap();
    }
    out
}
