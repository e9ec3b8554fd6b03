//! What a tape keeps: a record is an envelope or a fact of ours.

use std::str::FromStr;

use super::{ConnId, UnixMicros};

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RecordKind {
    /// A provider's message, byte for byte.
    Frame,
    /// A message we sent.
    Sent,
    /// A connection was opened: url without secrets, subprotocol, clock reading.
    Open,
    /// A connection ended: code, reason, who closed.
    Close,
    /// A request of ours without secrets, and the answer with its body.
    Http,
    /// A fact of ours: gap opened or filled, scope version, clock step, recovery, proof of life.
    Note,
}

impl RecordKind {
    /// All kinds.
    pub const ALL: [Self; 6] = [Self::Frame, Self::Sent, Self::Open, Self::Close, Self::Http, Self::Note];

    /// The word in a segment.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Frame => "frame",
            Self::Sent => "sent",
            Self::Open => "open",
            Self::Close => "close",
            Self::Http => "http",
            Self::Note => "note",
        }
    }
}

impl FromStr for RecordKind {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let known = || Self::ALL.map(Self::name).join(", ");
        Self::ALL.into_iter().find(|k| k.name() == name).ok_or_else(|| format!("unknown kind `{name}`; known are {}", known()))
    }
}

/// The way a record came: its provenance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Via {
    /// A WebSocket message.
    Ws,
    /// A server-sent event.
    Sse,
    /// A line of a JSON-lines stream.
    Lines,
    /// An incoming webhook call.
    Webhook,
    /// A page of a provider's history.
    History,
    /// A snapshot of current state.
    Snapshot,
    /// Another tape.
    Peer,
    /// A file given to `import`.
    Import,
    /// Ourselves.
    Own,
}

impl Via {
    /// All ways.
    pub const ALL: [Self; 9] =
        [Self::Ws, Self::Sse, Self::Lines, Self::Webhook, Self::History, Self::Snapshot, Self::Peer, Self::Import, Self::Own];

    /// The word in a segment.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ws => "ws",
            Self::Sse => "sse",
            Self::Lines => "lines",
            Self::Webhook => "webhook",
            Self::History => "history",
            Self::Snapshot => "snapshot",
            Self::Peer => "peer",
            Self::Import => "import",
            Self::Own => "own",
        }
    }

    /// The way named by `name`, if it is one of ours.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|v| v.name() == name)
    }
}

/// A record's content, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Bytes as they came; the writer chooses the form (`raw`, `text` or `b64`) that keeps them exactly.
    Bytes(bytes::Bytes),
    /// A JSON object of our own making, on one line.
    Fact(String),
}

/// A record's content as read from a segment, borrowed from the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyRef<'a> {
    /// One JSON object or array, verbatim.
    Raw(&'a [u8]),
    /// Other UTF-8, still escaped as a JSON string's inside.
    Text(&'a [u8]),
    /// Any other bytes, in base64.
    B64(&'a [u8]),
}

/// A record before it has a sequence number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// When it reached us.
    pub received_at: UnixMicros,
    /// What it is.
    pub kind: RecordKind,
    /// How it came.
    pub via: Via,
    /// The connection it belongs to.
    pub conn: ConnId,
    /// Facts of ours about the body (the cause of a bad frame, a request's line), one JSON object on one line.
    pub info: Option<String>,
    /// The content.
    pub body: Body,
}

impl Draft {
    /// A note: a fact of ours, as a JSON object on one line.
    pub fn note(received_at: UnixMicros, conn: ConnId, fact: String) -> Self {
        Self { received_at, kind: RecordKind::Note, via: Via::Own, conn, info: None, body: Body::Fact(fact) }
    }
}
