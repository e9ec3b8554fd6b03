//! What an envelope says: the identified things inside it.

use super::{TweetId, UnixMicros};

/// Sort of an event; with its id and selector it makes the event key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventKind {
    /// A post's content.
    Tweet,
    /// What was found out about a post: OCR, tokens.
    Meta,
    /// A partial enrichment of a post.
    Update,
    /// A post was deleted.
    Delete,
    /// A post was pinned.
    Pin,
    /// A post was unpinned.
    Unpin,
    /// A profile changed.
    Profile,
    /// An account follows another.
    Follow,
    /// An account no longer follows another.
    Unfollow,
    /// A call-out of a token.
    Callout,
    /// An action of a watched account that is no post of its own (like, mention, follow on a fast lane).
    Action,
    /// Counters of a post.
    Engagement,
    /// Something happened in a conversation.
    DmUpdate,
    /// Somebody is typing in a conversation.
    DmTyping,
}

impl EventKind {
    /// All kinds, in the order of [`code`](Self::code).
    pub const ALL: [Self; 14] = [
        Self::Tweet,
        Self::Meta,
        Self::Update,
        Self::Delete,
        Self::Pin,
        Self::Unpin,
        Self::Profile,
        Self::Follow,
        Self::Unfollow,
        Self::Callout,
        Self::Action,
        Self::Engagement,
        Self::DmUpdate,
        Self::DmTyping,
    ];

    /// The word in the catalog and in output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tweet => "tweet",
            Self::Meta => "meta",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Pin => "pin",
            Self::Unpin => "unpin",
            Self::Profile => "profile",
            Self::Follow => "follow",
            Self::Unfollow => "unfollow",
            Self::Callout => "callout",
            Self::Action => "action",
            Self::Engagement => "engagement",
            Self::DmUpdate => "dm_update",
            Self::DmTyping => "dm_typing",
        }
    }

    /// A small stable number for packed sets.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// Whether the id of such an event is a post's id.
    pub const fn names_a_tweet(self) -> bool {
        matches!(self, Self::Tweet | Self::Meta | Self::Update | Self::Delete | Self::Pin | Self::Unpin | Self::Engagement)
    }
}

/// What identifies an event within its kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventId {
    /// A post's id.
    Tweet(TweetId),
    /// Any other text: an event id, a conversation.
    Text(String),
}

/// One identified thing inside an envelope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its sort.
    pub kind: EventKind,
    /// Its id.
    pub id: EventId,
    /// The author's time, from the snowflake id or the provider's field.
    pub published_at: Option<UnixMicros>,
    /// What selected it: a rule id, a monitor id, a topic; empty when the provider does not say.
    pub selector: String,
}

/// What a message means for the connection, apart from the events in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Message {
    /// Carries events.
    #[default]
    Data,
    /// The provider's greeting.
    Connected,
    /// A heartbeat of the application protocol; `answer` says whether one is owed.
    Ping,
    /// Another connection took this one's place.
    Replaced,
    /// The provider complains; `code` as it gave it.
    Error {
        /// The provider's code, if it sent one.
        code: Option<u16>,
        /// Its words.
        text: String,
    },
    /// X live pipeline: the session's settings.
    Config {
        /// Names the session in requests.
        session_id: String,
        /// How long a subscription lives, in milliseconds.
        subscription_ttl_ms: u64,
        /// How often a keepalive comes, in milliseconds.
        heartbeat_ms: u64,
    },
    /// X live pipeline: topics that were refused, with the reason.
    Subscriptions {
        /// (topic, code, message)
        refused: Vec<(String, i64, String)>,
    },
    /// TweetStream asks for an application pong.
    AuthPing,
    /// Understood, and of no consequence for the connection (results, acknowledgements).
    Other,
    /// Not in the provider's catalogue: kept, counted, passed on.
    Unknown,
}

/// An envelope read once, for everybody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decoded {
    /// The bytes are exactly one JSON object or array, strictly valid, on one line, with nothing around it.
    pub json: bool,
    /// What it means for the connection.
    pub message: Message,
    /// The provider's stamp.
    pub provider_at: Option<UnixMicros>,
    /// The identified things inside.
    pub events: Vec<Event>,
}
