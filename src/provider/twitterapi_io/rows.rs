//! TwitterAPI.io's posts as rows.
//!
//! The full object and the fast lane's have few names in common, so one reader takes both. Which it was is decided at the
//! end of the envelope, where `event_type` may stand.
//!
//! Catalogue: docs.twitterapi.io, response schemas, seen 2025-12; keys that a captured delivery of 2025-09 has besides;
//! fast lane: public stream clients, 2026. Parts of media are X's own, of the old 1.1 interface.

use std::borrow::Cow;

use super::wire::{self, EventType};
use crate::model::json::{Bad, Json, Kind};
use crate::model::{
    Account, Media, Mention, Message, Nested, Platform, Post, PostKind, Row, Said, TweetId, UnixMicros, parse_legacy_date,
};
use crate::provider::rows::{Beside, RowSink, Told, Type, Unclosed, walk, whole, without_mark};

/// Reads an envelope.
pub(in crate::provider) fn read_rows(text: &str, sink: &mut dyn RowSink) -> Told {
    let mut envelope = Envelope::new(sink.keeps_known());
    let Some(json) = walk(text, |key, json| envelope.take(key, json)) else { return Told::nothing() };
    Told { json, ..envelope.tell(sink) }
}

/// What the walk has found so far.
struct Envelope<'a> {
    event_type: EventType,
    timestamp: Option<i64>,
    rule_id: Option<Cow<'a, str>>,
    rule_tag: Option<Cow<'a, str>>,
    posts: Vec<Found<'a>>,
    around: Beside<'a>,
    many: Beside<'a>,
    one: Beside<'a>,
}

impl<'a> Envelope<'a> {
    fn new(keeps_known: bool) -> Self {
        let new = |base| Beside::new(base, keeps_known);
        Self {
            event_type: EventType::Other,
            timestamp: None,
            rule_id: None,
            rule_tag: None,
            posts: Vec::new(),
            around: new(""),
            many: new("tweets[]"),
            one: new("tweet"),
        }
    }

    fn take(&mut self, key: &str, json: &mut Json<'a>) -> Result<(), Bad> {
        let around = &mut self.around;
        match key {
            "event_type" => self.event_type = EventType::of(around.text(key, json)?.as_deref()),
            "timestamp" => self.timestamp = around.integer(key, json)?,
            "rule_id" => self.rule_id = around.text(key, json)?,
            "rule_tag" => self.rule_tag = around.text(key, json)?,
            "tweets" => take_posts(around, &mut self.many, "tweets", json, &mut self.posts)?,
            "tweet" if json.kind() == Kind::Object => self.posts.extend(Found::read(&mut self.one, json)?),
            "tweet" => around.retyped(key, json, Type::Object)?,
            // Observed in a captured delivery, 2025-09.
            "rule_value" => around.keep(key, json)?,
            _ => around.other(key, json, None)?,
        }
        Ok(())
    }

    fn tell(mut self, sink: &mut dyn RowSink) -> Told {
        let lane = match self.event_type {
            EventType::FastTweet => Some(Lane::Fast),
            EventType::Tweet => Some(Lane::Full),
            _ => None,
        };
        let around = self.around.take();
        if let Some(lane) = lane {
            let selector = self.rule_id.as_deref().unwrap_or_default();
            for post in self.posts {
                sink.row(post.row(lane, selector, self.rule_tag.clone(), &around));
            }
        }
        for beside in [self.around, self.many, self.one] {
            beside.tell(sink);
        }
        Told { json: false, message: self.event_type.message(), provider_at: self.timestamp.map(UnixMicros::from_millis) }
    }
}

/// Reads a list of posts; what is no object in it holds no post.
fn take_posts<'a>(
    around: &mut Beside<'a>,
    beside: &mut Beside<'a>,
    key: &'static str,
    json: &mut Json<'a>,
    into: &mut Vec<Found<'a>>,
) -> Result<(), Bad> {
    around.list(key, json, |around, idx, json| {
        if json.kind() != Kind::Object {
            return around.odd_item(idx, json, Type::Object);
        }
        into.extend(Found::read(beside, json)?);
        Ok(())
    })
}

/// Reads an answer of history: posts stand at the top, in `data`, or by the name of a search in `results`.
pub(in crate::provider) fn read_page_rows(text: &str, sink: &mut dyn RowSink) -> Told {
    let inner = text.trim_matches([' ', '\t', '\r', '\n']);
    let mut json = Json::new(inner);
    let new = |base| Beside::new(base, sink.keeps_known());
    let mut page = Page { is_list: false, is_envelope: false, posts: Vec::new(), around: new(""), many: new("tweets[]") };
    if !inner.starts_with('{') || json.object(|key, json| page.take(key, json, true)).is_err() || json.finish().is_err() {
        return Told::nothing();
    }
    let is_list = page.is_list && !page.is_envelope;
    if is_list {
        // What stands around the posts is about the page.
        let around = Unclosed::default();
        for post in page.posts {
            sink.row(post.row(Lane::History, "", None, &around));
        }
        page.around.tell(sink);
        page.many.tell(sink);
    }
    let message = if is_list { Message::Data } else { Message::Other };
    Told { json: inner.len() == text.len() && !json.is_multi_line(), message, provider_at: None }
}

/// A page of history.
struct Page<'a> {
    is_list: bool,
    is_envelope: bool,
    posts: Vec<Found<'a>>,
    around: Beside<'a>,
    many: Beside<'a>,
}

impl<'a> Page<'a> {
    /// The places are those where `walk.rs` looks.
    fn take(&mut self, key: &str, json: &mut Json<'a>, at_top: bool) -> Result<(), Bad> {
        match key {
            "tweets" | "replies" => {
                self.is_list |= json.kind() == Kind::Array;
                take_posts(&mut self.around, &mut self.many, "tweets", json, &mut self.posts)
            }
            "event_type" if at_top => {
                self.is_envelope = true;
                json.skip()
            }
            "data" if at_top => json.object(|key, json| self.take(key, json, false)),
            "results" if at_top => json.object(|_, json| json.object(|key, json| self.take(key, json, false))),
            "has_next_page" => self.around.other(key, json, Some(Type::Flag)),
            "next_cursor" | "status" | "msg" | "message" | "error" => self.around.other(key, json, Some(Type::Text)),
            "code" => self.around.other(key, json, Some(Type::Any)),
            // Observed in answers about an account: its pinned post stands beside the list.
            "pin_tweet" | "unavailable" | "unavailableReason" => self.around.other(key, json, Some(Type::Any)),
            _ => self.around.other(key, json, None),
        }
    }
}

/// Where a post stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lane {
    Full,
    Fast,
    History,
}

/// A post, until it is known where it stands.
struct Found<'a> {
    id: TweetId,
    post: Box<Post<'a>>,
    /// What `type` says, unless that it is a post.
    word: Option<Cow<'a, str>>,
    /// The account as the fast lane names it.
    user_id: Option<u64>,
    created_ms: Option<i64>,
    created_at: Option<Cow<'a, str>>,
    raw: &'a str,
    extra: Unclosed,
}

impl<'a> Found<'a> {
    /// Reads a post; without an id it is none.
    fn read(beside: &mut Beside<'a>, json: &mut Json<'a>) -> Result<Option<Self>, Bad> {
        let start = json.position();
        let mut read = Reading::default();
        json.object(|key, json| read.field(beside, key, json))?;
        read.finish(beside)?;
        let extra = beside.take();
        let Reading { id, post, word, user_id, created_ms, created_at, .. } = read;
        let raw = json.since(start);
        Ok(id.map(|id| Self { id: TweetId(id), post, word, user_id, created_ms, created_at, raw, extra }))
    }

    fn row(mut self, lane: Lane, selector: &str, selector_name: Option<Cow<'a, str>>, around: &Unclosed) -> Row<'a> {
        let is_fast = lane == Lane::Fast;
        let action = wire::action_word(self.word.as_deref()).filter(|_| lane != Lane::History);
        let created_ms = self.created_ms.filter(|_| lane != Lane::History);
        let mut event = wire::event(self.id, action, created_ms, self.created_at.as_deref());
        event.selector = selector.to_owned();
        if !is_fast {
            wire::restore_tweet(&mut event);
        } else if let Some(action) = action {
            wire::turn_into_action(&mut event, action, self.user_id);
            return Row { event, selector_name, said: Said::Other(whole(self.raw, around)) };
        }
        match self.word.as_deref() {
            None => {}
            Some("post") if is_fast => self.post.kind = Some(PostKind::Post),
            Some("reply") if is_fast => self.post.kind = Some(PostKind::Reply),
            Some("repost") if is_fast => self.post.kind = Some(PostKind::Repost),
            Some("quote") if is_fast => self.post.kind = Some(PostKind::Quote),
            // Of a thread, or a full object that calls itself something else.
            Some(word) => self.extra.put_text("type", word),
        }
        self.post.platform = Some(Platform::X);
        self.post.extra = self.extra.close(around);
        Row { event, selector_name, said: Said::Post(self.post) }
    }
}

/// A post that is being read.
#[derive(Default)]
struct Reading<'a> {
    id: Option<u64>,
    post: Box<Post<'a>>,
    word: Option<Cow<'a, str>>,
    user_id: Option<u64>,
    created_ms: Option<i64>,
    created_at: Option<Cow<'a, str>>,
    /// The same as written.
    created_at_raw: &'a str,
    is_reply: Option<bool>,
}

impl<'a> Reading<'a> {
    fn field(&mut self, beside: &mut Beside<'a>, key: &str, json: &mut Json<'a>) -> Result<(), Bad> {
        let post = &mut *self.post;
        match key {
            "type" => self.word = beside.text(key, json)?.filter(|word| word != "tweet"),
            "id" => self.id = beside.number(key, json)?,
            "url" => post.url = beside.text(key, json)?,
            "text" => post.text = beside.text(key, json)?,
            "source" => post.client = beside.text(key, json)?,
            "lang" => post.lang = beside.text(key, json)?,
            "retweetCount" => post.counts.reposts = beside.number(key, json)?,
            "replyCount" => post.counts.replies = beside.number(key, json)?,
            "likeCount" => post.counts.likes = beside.number(key, json)?,
            "quoteCount" => post.counts.quotes = beside.number(key, json)?,
            "viewCount" => post.counts.views = beside.number(key, json)?,
            "bookmarkCount" => post.counts.bookmarks = beside.number(key, json)?,
            "createdAt" => {
                let start = json.position();
                self.created_at = beside.text(key, json)?;
                self.created_at_raw = json.since(start);
            }
            "isReply" => self.is_reply = beside.flag(key, json)?,
            "inReplyToId" => post.in_reply_to_tweet_id = beside.number(key, json)?,
            "inReplyToUserId" => post.in_reply_to_user_id = beside.number(key, json)?,
            "inReplyToUsername" => post.in_reply_to_handle = beside.handle(key, json)?,
            "conversationId" => post.conversation_id = beside.number(key, json)?,
            "author" => account(beside, json, &mut post.author)?,
            "entities" => entities(beside, json, post)?,
            "extendedEntities" => beside.object("extendedEntities", json, |beside, key, json| match key {
                "media" => media(beside, json, &mut post.media),
                _ => beside.other(key, json, None),
            })?,
            "quoted_tweet" => post.quoted = nested(beside, "quoted_tweet", json)?,
            "retweeted_tweet" => post.reposted = nested(beside, "retweeted_tweet", json)?,
            // The fast lane's.
            "screen_name" => post.author.handle = beside.handle(key, json)?,
            "display_name" => post.author.name = beside.text(key, json)?,
            "user_id" => self.user_id = beside.number(key, json)?,
            "created_ms" => self.created_ms = beside.integer(key, json)?,
            "snow_delay_ms" => self.delay(beside, key, json)?,
            "media" => beside.list("media", json, |beside, idx, json| match json.kind() {
                Kind::String => {
                    post.media.push(Media { url: json.text()?, ..Media::default() });
                    Ok(())
                }
                _ => beside.odd_item(idx, json, Type::Text),
            })?,
            "mentions" => beside.list("mentions", json, |beside, idx, json| {
                let mut mention = Mention::default();
                match json.kind() {
                    Kind::String => mention.handle = json.text()?.map(|name| without_mark(name, '@')),
                    Kind::Object => beside.item(idx, json, |beside, key, json| mention_field(beside, &mut mention, key, json))?,
                    _ => return beside.odd_item(idx, json, Type::Text),
                }
                post.mentions.push(mention);
                Ok(())
            })?,
            "hashtags" => beside.list("hashtags", json, |beside, idx, json| {
                let mut tag = None;
                match json.kind() {
                    Kind::String => tag = json.text()?.map(|tag| without_mark(tag, '#')),
                    Kind::Object => beside.item(idx, json, |beside, key, json| beside.tag_field(&mut tag, key, json))?,
                    _ => return beside.odd_item(idx, json, Type::Text),
                }
                post.hashtags.extend(tag);
                Ok(())
            })?,
            _ => beside.other(key, json, post_type(key))?,
        }
        Ok(())
    }

    /// From the post's time to when the provider had it.
    fn delay(&mut self, beside: &mut Beside<'a>, key: &str, json: &mut Json<'a>) -> Result<(), Bad> {
        let raw = json.raw()?;
        let delay = raw.parse::<i64>().ok();
        if let (Some(delay), Some(created)) = (delay, self.created_ms) {
            self.post.detected_at = Some(UnixMicros::from_millis(created.saturating_add(delay)));
        }
        if delay.is_some() { beside.put(key, raw) } else { beside.odd(key, raw, "number") }
    }

    /// What can be said only of the whole.
    fn finish(&mut self, beside: &mut Beside<'a>) -> Result<(), Bad> {
        let post = &mut *self.post;
        // Observed: nested objects are the only marks of quotes and retweets that can be trusted.
        post.kind = match self.is_reply {
            _ if post.reposted.is_some() => Some(PostKind::Repost),
            Some(true) => Some(PostKind::Reply),
            None if post.in_reply_to_tweet_id.is_some() => Some(PostKind::Reply),
            _ if post.quoted.is_some() => Some(PostKind::Quote),
            Some(false) => Some(PostKind::Post),
            None => None,
        };
        if let Some(is_reply) = self.is_reply.filter(|is_reply| *is_reply != (post.kind == Some(PostKind::Reply))) {
            beside.put("isReply", if is_reply { "true" } else { "false" })?;
        }
        if let Some(user_id) = self.user_id {
            match post.author.id {
                Some(id) if id != user_id => beside.put("user_id", &user_id.to_string())?,
                _ => post.author.id = Some(user_id),
            }
        }
        // Times that say no more than the id does are not kept.
        let from_id = self.id.and_then(|id| TweetId(id).published_at());
        let told = self.created_ms.map(UnixMicros::from_millis);
        if let Some(ms) = self.created_ms.filter(|_| from_id.is_some() && from_id != told) {
            beside.put("created_ms", &ms.to_string())?;
        }
        let published = from_id.or(told);
        match self.created_at.as_deref().map(parse_legacy_date) {
            Some(None) => beside.odd("createdAt", self.created_at_raw, "date")?,
            Some(Some(at)) if published.is_some_and(|published| published.0.div_euclid(1_000_000) * 1_000_000 != at.0) => {
                beside.put("createdAt", self.created_at_raw)?;
            }
            _ => {}
        }
        Ok(())
    }
}

fn account<'a>(beside: &mut Beside<'a>, json: &mut Json<'a>, account: &mut Account<'a>) -> Result<(), Bad> {
    if json.kind() != Kind::Object {
        return beside.retyped("author", json, Type::Object);
    }
    let (mut description, mut bio) = (None, None);
    beside.enter("author");
    json.object(|key, json| {
        match key {
            "type" => beside.constant(key, json, "user")?,
            // Observed in deliveries; the vendor's own sample has the other.
            "userName" => account.handle = beside.handle(key, json)?,
            "username" => match beside.handle(key, json)? {
                Some(handle) if account.handle.as_ref().is_some_and(|known| *known != handle) => beside.put_text(key, &handle),
                handle => account.handle = handle.or(account.handle.take()),
            },
            "id" => account.id = beside.number(key, json)?,
            "name" => account.name = beside.text(key, json)?,
            "isBlueVerified" => account.is_blue_verified = beside.flag(key, json)?,
            "verifiedType" => account.verified_type = beside.text(key, json)?,
            "profilePicture" => account.picture_url = beside.text(key, json)?,
            "description" => description = beside.text(key, json)?,
            "location" => account.location = beside.text(key, json)?,
            "followers" => account.followers = beside.number(key, json)?,
            "following" => account.following = beside.number(key, json)?,
            "statusesCount" => account.posts = beside.number(key, json)?,
            "createdAt" => account.created_at = beside.date(key, json, parse_legacy_date)?,
            // Observed: `description` is empty and the words are here.
            "profile_bio" => beside.object("profile_bio", json, |beside, key, json| {
                match key {
                    "description" => bio = beside.text(key, json)?,
                    _ => beside.other(key, json, (key == "entities").then_some(Type::Object))?,
                }
                Ok(())
            })?,
            _ => beside.other(key, json, author_type(key))?,
        }
        Ok(())
    })?;
    account.bio = match (bio, description) {
        (Some(bio), Some(description)) if !bio.is_empty() => {
            if description != bio {
                beside.put_text("description", &description);
            }
            Some(bio)
        }
        (bio, description) => description.or(bio),
    };
    beside.leave();
    Ok(())
}

fn entities<'a>(beside: &mut Beside<'a>, json: &mut Json<'a>, post: &mut Post<'a>) -> Result<(), Bad> {
    beside.object("entities", json, |beside, key, json| match key {
        "hashtags" => beside.tags("hashtags", json, &mut post.hashtags),
        "symbols" => beside.tags("symbols", json, &mut post.symbols),
        "urls" => beside.links(json, &mut post.urls, ("indices", Type::List)),
        "user_mentions" => beside.objects("user_mentions", json, &mut post.mentions, mention_field),
        "timestamps" | "media" => beside.other(key, json, Some(Type::List)),
        _ => beside.other(key, json, None),
    })
}

fn mention_field<'a>(beside: &mut Beside<'a>, mention: &mut Mention<'a>, key: &str, json: &mut Json<'a>) -> Result<(), Bad> {
    match key {
        "id_str" | "id" => match beside.number(key, json)? {
            Some(id) if mention.id.is_some_and(|known| known != id) => beside.put(key, &id.to_string())?,
            id => mention.id = id.or(mention.id),
        },
        "screen_name" => mention.handle = beside.handle(key, json)?,
        "name" => mention.name = beside.text(key, json)?,
        _ => beside.other(key, json, (key == "indices").then_some(Type::List))?,
    }
    Ok(())
}

fn media<'a>(beside: &mut Beside<'a>, json: &mut Json<'a>, into: &mut Vec<Media<'a>>) -> Result<(), Bad> {
    let first = into.len();
    beside.objects("media", json, into, |beside, media: &mut Media<'a>, key, json| {
        match key {
            "type" => {
                let kind = beside.text(key, json)?;
                media.kind = if kind.as_deref() == Some("animated_gif") { Some("gif".into()) } else { kind };
            }
            "media_url_https" => media.preview_url = beside.text(key, json)?,
            "ext_alt_text" => media.alt_text = beside.text(key, json)?,
            // All of it is kept, since a film comes in many sizes.
            "video_info" if json.kind() == Kind::Object => {
                let raw = json.raw()?;
                (media.url, media.duration_ms) = film(raw)?;
                beside.put(key, raw)?;
            }
            _ => beside.other(key, json, media_type(key))?,
        }
        Ok(())
    })?;
    for media in into.iter_mut().skip(first) {
        // The file, if it is told; else the picture, which is a film's small one, too.
        if media.url.is_none() {
            let is_film = matches!(media.kind.as_deref(), Some("video" | "gif"));
            media.url = if is_film { media.preview_url.clone() } else { media.preview_url.take() };
        }
    }
    Ok(())
}

/// The largest file of a film, and its length.
fn film(raw: &str) -> Result<(Option<Cow<'_, str>>, Option<u64>), Bad> {
    let (mut best, mut best_rate, mut duration) = (None, None, None);
    Json::new(raw).object(|key, json| match key {
        "duration_millis" => {
            duration = json.id()?;
            Ok(())
        }
        "variants" => json.array(|json| {
            let (mut url, mut rate) = (None, None);
            json.object(|key, json| {
                match key {
                    "url" => url = json.text()?,
                    "bitrate" => rate = json.id()?,
                    _ => {}
                }
                Ok(())
            })?;
            if url.is_some() && (best.is_none() || rate > best_rate) {
                (best, best_rate) = (url, rate);
            }
            Ok(())
        }),
        _ => Ok(()),
    })?;
    Ok((best, duration))
}

/// A post inside a post: little of it has a column.
fn nested<'a>(beside: &mut Beside<'a>, key: &'static str, json: &mut Json<'a>) -> Result<Option<Box<Nested<'a>>>, Bad> {
    if json.kind() != Kind::Object {
        return beside.retyped(key, json, Type::Object).map(|()| None);
    }
    let mut nested = Box::new(Nested::default());
    beside.object(key, json, |beside, key, json| {
        match key {
            "type" => beside.constant(key, json, "tweet")?,
            "id" => nested.tweet_id = beside.number(key, json)?,
            "text" => nested.text = beside.text(key, json)?,
            "author" => beside.object("author", json, |beside, key, json| {
                match key {
                    "type" => beside.constant(key, json, "user")?,
                    "id" => nested.author_id = beside.number(key, json)?,
                    "userName" | "username" => nested.author_handle = beside.handle(key, json)?,
                    _ => beside.other(key, json, author_type(key))?,
                }
                Ok(())
            })?,
            _ => beside.other(key, json, post_type(key))?,
        }
        Ok(())
    })?;
    Ok(Some(nested))
}

/// The type of a post's field; `None` for one that nobody has seen.
fn post_type(key: &str) -> Option<Type> {
    Some(match key {
        "twitterUrl" | "url" | "source" | "createdAt" | "lang" | "inReplyToUsername" | "article_url" => Type::Text,
        "retweetCount"
        | "replyCount"
        | "likeCount"
        | "quoteCount"
        | "viewCount"
        | "bookmarkCount"
        | "inReplyToId"
        | "inReplyToUserId"
        | "conversationId"
        | "snowflake_created_ms" => Type::Number,
        "isLimitedReply" | "isReply" | "isPinned" => Type::Flag,
        "displayTextRange" => Type::List,
        "card" | "article" | "place" | "entities" | "extendedEntities" | "quoted_tweet" | "retweeted_tweet" | "communityInfo" => {
            Type::Object
        }
        _ => return None,
    })
}

fn author_type(key: &str) -> Option<Type> {
    Some(match key {
        "url" | "twitterUrl" | "coverPicture" | "status" | "message" | "unavailableReason" | "automatedBy" | "userName"
        | "username" | "name" | "verifiedType" | "profilePicture" | "description" | "location" | "createdAt" => Type::Text,
        "fastFollowersCount" | "favouritesCount" | "mediaCount" | "followers" | "following" | "statusesCount" | "id" => {
            Type::Number
        }
        "isVerified" | "isBlueVerified" | "canDm" | "canMediaTag" | "hasCustomTimelines" | "isTranslator"
        | "possiblySensitive" | "isAutomated" | "unavailable" | "protected" => Type::Flag,
        "withheldInCountries" | "pinnedTweetIds" => Type::List,
        "entities" | "affiliatesHighlightedLabel" | "profile_bio" => Type::Object,
        _ => return None,
    })
}

fn media_type(key: &str) -> Option<Type> {
    Some(match key {
        "display_url"
        | "expanded_url"
        | "id_str"
        | "media_key"
        | "url"
        | "media_url"
        | "source_status_id_str"
        | "source_user_id_str" => Type::Text,
        "id" => Type::Number,
        "indices" => Type::List,
        "ext_media_availability"
        | "ext_media_color"
        | "features"
        | "sizes"
        | "original_info"
        | "video_info"
        | "allow_download_status"
        | "media_results"
        | "mediaStats"
        | "additional_media_info" => Type::Object,
        _ => return None,
    })
}
