//! What an envelope says, in words all providers share: the rows that an export is made of.
//!
//! A provider's reader borrows from the envelope and hands one [`Row`] to its caller for each identified thing; nothing
//! is merged here. Absent and `null` are `None`; a counter that is absent was not told, which is not zero.

use std::borrow::Cow;

use super::{Event, UnixMicros};

/// Where a post was written. An id is unique only together with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Platform {
    /// X, once Twitter.
    #[default]
    X,
    /// Truth Social.
    TruthSocial,
}

impl Platform {
    /// The word in output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::X => "x",
            Self::TruthSocial => "truth_social",
        }
    }
}

/// One identified thing inside an envelope, with what the envelope says about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Row<'a> {
    /// What identifies it: the same that the recorder's reader finds.
    pub event: Event,
    /// The human name of what selected it: a rule's tag, a monitor's name.
    pub selector_name: Option<Cow<'a, str>>,
    /// What it says.
    pub said: Said<'a>,
}

/// What a row tells of.
#[derive(Clone, Debug, PartialEq)]
pub enum Said<'a> {
    /// A post: its content, or something about it (meta, update, delete, pin, unpin); the event's kind says which.
    Post(Box<Post<'a>>),
    /// A profile changed.
    Profile(Box<ProfileChange<'a>>),
    /// An account follows another, or no longer does.
    Follow(Box<Follow<'a>>),
    /// Counters of a post, as the live pipeline or a snapshot gives them.
    Engagement(Box<Engagement<'a>>),
    /// Something happened in a conversation.
    Dm(Box<Dm<'a>>),
    /// An event without a table of its own (a call-out, a fast lane's action); its JSON.
    Other(Extra),
}

/// Fields without a column, as the text of one JSON object (`{"author":{"canDm":true}}`); empty when there are none.
///
/// Fields that are `null`, `""`, `[]` or `{}` are left out. Numbers and strings stand as the provider wrote them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extra(pub String);

/// What kind of post it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PostKind {
    /// Neither of the others.
    Post,
    /// Answers another.
    Reply,
    /// Quotes another.
    Quote,
    /// Repeats another unchanged (retweet).
    Repost,
}

impl PostKind {
    /// The word in output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Post => "post",
            Self::Reply => "reply",
            Self::Quote => "quote",
            Self::Repost => "repost",
        }
    }
}

/// What one envelope says about one post.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Post<'a> {
    /// Where it was written; `None` when the envelope does not say (a delete names the id only).
    pub platform: Option<Platform>,
    /// When the provider says that it noticed it.
    pub detected_at: Option<UnixMicros>,
    /// Kind of post.
    pub kind: Option<PostKind>,
    /// Its words, as the provider wrote them.
    pub text: Option<Cow<'a, str>>,
    /// BCP 47 or X's own code (`und`, `qme`).
    pub lang: Option<Cow<'a, str>>,
    /// Its address.
    pub url: Option<Cow<'a, str>>,
    /// The program it was written with.
    pub client: Option<Cow<'a, str>>,
    /// The conversation's first post.
    pub conversation_id: Option<u64>,
    /// The post it answers.
    pub in_reply_to_tweet_id: Option<u64>,
    /// The account it answers.
    pub in_reply_to_user_id: Option<u64>,
    /// That account's handle, without `@`.
    pub in_reply_to_handle: Option<Cow<'a, str>>,
    /// The post it quotes.
    pub quoted: Option<Box<Nested<'a>>>,
    /// The post it repeats.
    pub reposted: Option<Box<Nested<'a>>>,
    /// Whether the provider marks it as possibly sensitive.
    pub is_sensitive: Option<bool>,
    /// Who wrote it.
    pub author: Account<'a>,
    /// Counters, at the time of the envelope.
    pub counts: Counts,
    /// Without `#`.
    pub hashtags: Vec<Cow<'a, str>>,
    /// Cashtags, without `$`.
    pub symbols: Vec<Cow<'a, str>>,
    /// Accounts mentioned.
    pub mentions: Vec<Mention<'a>>,
    /// Links.
    pub urls: Vec<Link<'a>>,
    /// Pictures and films.
    pub media: Vec<Media<'a>>,
    /// Tokens that a provider detected.
    pub tokens: Vec<Token<'a>>,
    /// Text that a provider read out of pictures.
    pub ocr_text: Option<Cow<'a, str>>,
    /// Everything else.
    pub extra: Extra,
}

/// A post inside a post.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Nested<'a> {
    /// Its id; some providers leave it out at first.
    pub tweet_id: Option<u64>,
    /// Its author's id.
    pub author_id: Option<u64>,
    /// Its author's handle, without `@`.
    pub author_handle: Option<Cow<'a, str>>,
    /// Its words.
    pub text: Option<Cow<'a, str>>,
}

/// Counters of a post. They may fall as well as rise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Likes, once favorites.
    pub likes: Option<u64>,
    /// Reposts (retweets).
    pub reposts: Option<u64>,
    /// Replies.
    pub replies: Option<u64>,
    /// Quotes.
    pub quotes: Option<u64>,
    /// Bookmarks.
    pub bookmarks: Option<u64>,
    /// Views.
    pub views: Option<u64>,
}

/// An account, as an envelope shows it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Account<'a> {
    /// Its id.
    pub id: Option<u64>,
    /// Without `@`, in the provider's spelling.
    pub handle: Option<Cow<'a, str>>,
    /// The name shown.
    pub name: Option<Cow<'a, str>>,
    /// What it says about itself.
    pub bio: Option<Cow<'a, str>>,
    /// Where it says it is.
    pub location: Option<Cow<'a, str>>,
    /// Its picture.
    pub picture_url: Option<Cow<'a, str>>,
    /// Since when it exists.
    pub created_at: Option<UnixMicros>,
    /// How many follow it.
    pub followers: Option<u64>,
    /// How many it follows.
    pub following: Option<u64>,
    /// How many posts it wrote.
    pub posts: Option<u64>,
    /// Paid badge.
    pub is_blue_verified: Option<bool>,
    /// `blue`, `business`, `government`, `none`, or what else the provider says.
    pub verified_type: Option<Cow<'a, str>>,
}

/// An account that a post mentions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mention<'a> {
    /// Its id.
    pub id: Option<u64>,
    /// Without `@`.
    pub handle: Option<Cow<'a, str>>,
    /// The name shown.
    pub name: Option<Cow<'a, str>>,
}

/// A link in a post.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link<'a> {
    /// As it stands in the text (`https://t.co/…`).
    pub url: Option<Cow<'a, str>>,
    /// Where it leads.
    pub expanded_url: Option<Cow<'a, str>>,
    /// What is shown.
    pub display_url: Option<Cow<'a, str>>,
}

/// A picture or film of a post.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Media<'a> {
    /// `photo`, `video` or `gif`.
    pub kind: Option<Cow<'a, str>>,
    /// The file, or its picture when no file is told.
    pub url: Option<Cow<'a, str>>,
    /// A small picture of it.
    pub preview_url: Option<Cow<'a, str>>,
    /// Its description for those who cannot see it.
    pub alt_text: Option<Cow<'a, str>>,
    /// Length of a film, in milliseconds.
    pub duration_ms: Option<u64>,
}

/// A token, market or contract that a provider detected in a post.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Token<'a> {
    /// `token`, `cex` (an exchange's pair) or `prediction` (a market).
    pub kind: Cow<'a, str>,
    /// Ticker, pair or market id.
    pub symbol: Option<Cow<'a, str>>,
    /// Name or title.
    pub name: Option<Cow<'a, str>>,
    /// Contract's address.
    pub contract: Option<Cow<'a, str>>,
    /// Chain or exchange.
    pub chain: Option<Cow<'a, str>>,
    /// US dollars, at the time of the envelope.
    pub price_usd: Option<f64>,
    /// Where it was found: `text`, `ocr`.
    pub found_in: Vec<Cow<'a, str>>,
}

/// A profile that changed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProfileChange<'a> {
    /// Where.
    pub platform: Option<Platform>,
    /// When the provider saw it.
    pub observed_at: Option<UnixMicros>,
    /// The account as it is now.
    pub account: Account<'a>,
    /// What changed.
    pub changes: Vec<Change<'a>>,
    /// Everything else.
    pub extra: Extra,
}

/// A field of a profile that changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change<'a> {
    /// The provider's name of the field (`bio`, `name`, `handle`, `avatar`, `banner`, `location` …).
    pub field: Cow<'a, str>,
    /// What it was.
    pub before: Option<Cow<'a, str>>,
    /// What it is.
    pub after: Option<Cow<'a, str>>,
}

/// An account that follows another, or no longer does; the event's kind says which.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Follow<'a> {
    /// Where.
    pub platform: Option<Platform>,
    /// When the provider saw it.
    pub observed_at: Option<UnixMicros>,
    /// Who follows.
    pub actor: Account<'a>,
    /// Who is followed.
    pub target: Account<'a>,
    /// Everything else.
    pub extra: Extra,
}

/// Counters of a post. Live frames tell what changed, snapshots tell all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Engagement<'a> {
    /// New totals.
    pub counts: Counts,
    /// What X says of the view counter (`EnabledWithCount`).
    pub view_state: Option<Cow<'a, str>>,
    /// Everything else.
    pub extra: Extra,
}

/// Something in a conversation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dm<'a> {
    /// The conversation.
    pub conversation_id: Cow<'a, str>,
    /// Who did it.
    pub user_id: Option<u64>,
    /// The message, when history names it.
    pub message_id: Option<u64>,
    /// Its words, when history has them.
    pub text: Option<Cow<'a, str>>,
    /// Everything else.
    pub extra: Extra,
}
