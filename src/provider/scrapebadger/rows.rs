//! ScrapeBadger's posts as rows: of all dialects, and of history.
//!
//! The fields of the post's own object are the root of the extra; in dialects A and B the envelope has none, so all of its
//! own is under `envelope`, as in C.
//!
//! Catalogue: a real answer quoted in the tests of a public client (zemse/scrapebadger-rust), the vendor's OpenAPI text and
//! class `Tweet` of its Python package.

use std::borrow::Cow;

use super::wire::{self, Sort};
use crate::model::json::{Bad, Json, Kind};
use crate::model::{
    Event, EventId, Media, Mention, Message, Nested, Platform, Post, PostKind, Row, Said, TweetId, UnixMicros, parse_legacy_date,
};
use crate::provider::rows::{Beside, RowSink, Told, Type, Unclosed, walk};

/// Reads an envelope.
pub(in crate::provider) fn read_rows(text: &str, sink: &mut dyn RowSink) -> Told {
    let mut envelope = Envelope::new(sink.keeps_known());
    let Some(json) = walk(text, |key, json| envelope.take(key, json)) else { return Told::nothing() };
    envelope.tell(sink).map_or_else(|_| Told::nothing(), |told| Told { json, ..told })
}

/// What the walk has found so far.
struct Envelope<'a> {
    sort: Sort,
    monitor_id: Option<Cow<'a, str>>,
    monitor_name: Option<Cow<'a, str>>,
    rule_id: Option<Cow<'a, str>>,
    rule_tag: Option<Cow<'a, str>>,
    tweet_id: Option<u64>,
    published_at: Option<Cow<'a, str>>,
    detected_at: Option<Cow<'a, str>>,
    timestamp: Option<Cow<'a, str>>,
    author: Option<Cow<'a, str>>,
    text: Option<Cow<'a, str>>,
    url: Option<Cow<'a, str>>,
    tweet_type: Option<Cow<'a, str>>,
    code: Option<i64>,
    message: Option<Cow<'a, str>>,
    post: Flat<'a>,
    around: Beside<'a>,
    beside: Beside<'a>,
}

impl<'a> Envelope<'a> {
    fn new(keeps_known: bool) -> Self {
        Self {
            sort: Sort::Other,
            monitor_id: None,
            monitor_name: None,
            rule_id: None,
            rule_tag: None,
            tweet_id: None,
            published_at: None,
            detected_at: None,
            timestamp: None,
            author: None,
            text: None,
            url: None,
            tweet_type: None,
            code: None,
            message: None,
            post: Flat::default(),
            around: Beside::new("", keeps_known),
            beside: Beside::new("tweet", keeps_known),
        }
    }

    fn take(&mut self, key: &str, json: &mut Json<'a>) -> Result<(), Bad> {
        let around = &mut self.around;
        match key {
            "type" | "event" => {
                let word = around.text(key, json)?;
                match wire::sort(word.as_deref()) {
                    Sort::Other => word.iter().for_each(|word| around.put_text(key, word)),
                    sort => self.sort = sort,
                }
            }
            "monitor_id" => self.monitor_id = name(around, key, json)?,
            "monitor_name" => self.monitor_name = around.text(key, json)?,
            "rule_id" => self.rule_id = name(around, key, json)?,
            "rule_tag" => self.rule_tag = around.text(key, json)?,
            "tweet_id" => self.tweet_id = around.number(key, json)?,
            "tweet_published_at" => self.published_at = around.text(key, json)?,
            "detected_at" => self.detected_at = around.text(key, json)?,
            "timestamp" => self.timestamp = around.text(key, json)?,
            "author_username" => self.author = around.handle(key, json)?,
            "tweet_text" => self.text = around.text(key, json)?,
            "tweet_url" => self.url = around.text(key, json)?,
            "tweet_type" => self.tweet_type = around.text(key, json)?,
            "code" => self.code = around.integer(key, json)?,
            "message" => self.message = around.text(key, json)?,
            "tweet" if json.kind() == Kind::Object => {
                let (post, beside) = (&mut self.post, &mut self.beside);
                json.object(|key, json| post.field(beside, key, json))?;
            }
            "tweet" => around.retyped(key, json, Type::Object)?,
            "source" | "connection_id" | "api_key_id" => around.other(key, json, Some(Type::Text))?,
            "latency_ms" => around.other(key, json, Some(Type::Number))?,
            // Documented for webhooks only, and in another form than the description of posts.
            "tweet_data" => around.other(key, json, Some(Type::Object))?,
            _ => around.other(key, json, None)?,
        }
        Ok(())
    }

    fn tell(mut self, sink: &mut dyn RowSink) -> Result<Told, Bad> {
        let stamp = self.detected_at.as_deref().or(self.timestamp.as_deref());
        let provider_at = stamp.and_then(UnixMicros::parse_rfc3339);
        let id = self.tweet_id.or(self.post.id).map(TweetId).filter(|_| self.sort == Sort::Tweet);
        let message = wire::message(self.sort, self.code, self.message.clone());
        if let Some(id) = id {
            let selector = self.rule_id.as_deref().or(self.monitor_id.as_deref());
            let event = wire::event(id, self.published_at.as_deref(), self.post.created_at.as_deref(), selector);
            self.post.finish(&mut self.beside, &event)?;
            let row = self.row(event);
            sink.row(row);
        }
        self.around.tell(sink);
        self.beside.tell(sink);
        Ok(Told { json: false, message, provider_at })
    }

    /// The row, once everything that the envelope says beside its post has filled a column or is kept.
    fn row(&mut self, event: Event) -> Row<'a> {
        let around = &mut self.around;
        let mut post = std::mem::take(&mut self.post.post);
        post.detected_at = self.detected_at.as_deref().and_then(UnixMicros::parse_rfc3339);
        if post.detected_at.is_some() {
            self.detected_at = None;
        } else if self.detected_at.is_none() {
            // A stamp of the envelope alone is told beside the row.
            self.timestamp = None;
        }
        // In lower case; the nested post has the account's own spelling.
        match (&post.author.handle, self.author.take()) {
            (Some(known), Some(told)) if !known.eq_ignore_ascii_case(&told) => around.put_text("author_username", &told),
            (None, told) => post.author.handle = told,
            _ => {}
        }
        around.fill("tweet_text", &mut post.text, self.text.take());
        around.fill("tweet_url", &mut post.url, self.url.take());
        if let Some(word) = self.tweet_type.take() {
            let kind = match &*word {
                "original" => Some(PostKind::Post),
                "reply" => Some(PostKind::Reply),
                "quote" => Some(PostKind::Quote),
                "retweet" => Some(PostKind::Repost),
                _ => None,
            };
            post.kind = post.kind.or(kind);
            if kind.is_none() || post.kind != kind {
                around.put_text("tweet_type", &word);
            }
        }
        let published_at = self.published_at.take();
        let is_known = published_at.as_deref().and_then(UnixMicros::parse_rfc3339) == event.published_at;
        let by_rule = self.rule_id.is_some();
        let (selector_name, other_name) = match by_rule {
            true => (self.rule_tag.take(), self.monitor_name.take()),
            false => (self.monitor_name.take(), self.rule_tag.take()),
        };
        let rest = [
            ("tweet_published_at", published_at.filter(|_| !is_known)),
            ("detected_at", self.detected_at.take()),
            ("timestamp", self.timestamp.take()),
            ("monitor_id", self.monitor_id.take().filter(|_| by_rule)),
            (if by_rule { "monitor_name" } else { "rule_tag" }, other_name),
            ("code", self.code.map(|code| code.to_string().into())),
            ("message", self.message.take()),
        ];
        for (key, told) in rest {
            told.iter().for_each(|told| around.put_text(key, told));
        }
        post.extra = self.beside.take().close(&around.take());
        Row { event, selector_name, said: Said::Post(post) }
    }
}

/// As `wire.rs` reads a rule's or monitor's id.
fn name<'a>(beside: &mut Beside<'a>, key: &str, json: &mut Json<'a>) -> Result<Option<Cow<'a, str>>, Bad> {
    let read = match json.kind() {
        Kind::Number => beside.number(key, json)?.map(|id| Cow::Owned(id.to_string())),
        _ => beside.text(key, json)?,
    };
    Ok(read.filter(|name| !name.is_empty()))
}

/// Reads an answer of history.
pub(in crate::provider) fn read_page_rows(text: &str, sink: &mut dyn RowSink) -> Told {
    let inner = text.trim_matches([' ', '\t', '\r', '\n']);
    let mut json = Json::new(inner);
    let beside = |base| Beside::new(base, sink.keeps_known());
    let mut page = Page { has_posts: false, rows: Vec::new(), around: beside(""), beside: beside("data[]") };
    if !inner.starts_with('{') || json.object(|key, json| page.take(key, json)).is_err() || json.finish().is_err() {
        return Told::nothing();
    }
    let message = if page.has_posts { Message::Data } else { Message::Other };
    if page.has_posts {
        page.rows.into_iter().for_each(|row| sink.row(row));
        page.around.tell(sink);
        page.beside.tell(sink);
    }
    Told { json: inner.len() == text.len() && !json.is_multi_line(), message, provider_at: None }
}

struct Page<'a> {
    has_posts: bool,
    rows: Vec<Row<'a>>,
    around: Beside<'a>,
    beside: Beside<'a>,
}

impl<'a> Page<'a> {
    fn take(&mut self, key: &str, json: &mut Json<'a>) -> Result<(), Bad> {
        match key {
            "data" => {
                // Documented: `null` is no post at all.
                self.has_posts = matches!(json.peek(), b'[' | b'n');
                if json.kind() != Kind::Array {
                    return self.around.other(key, json, Some(Type::List));
                }
                json.array(|json| {
                    if json.kind() != Kind::Object {
                        return self.around.retyped("data[]", json, Type::Object);
                    }
                    let mut post = Flat::default();
                    json.object(|key, json| post.field(&mut self.beside, key, json))?;
                    let Some(id) = post.id.filter(|_| post.has_text) else {
                        self.beside.forget();
                        return Ok(());
                    };
                    let event = wire::event(TweetId(id), None, post.created_at.as_deref(), None);
                    post.finish(&mut self.beside, &event)?;
                    let mut post = post.post;
                    post.extra = self.beside.take().close(&Unclosed::default());
                    self.rows.push(Row { event, selector_name: None, said: Said::Post(post) });
                    Ok(())
                })
            }
            "next_cursor" | "error" | "status" | "detail" => self.around.other(key, json, Some(Type::Text)),
            // Of a delivery log, whose rows are no posts.
            "logs" => self.around.other(key, json, Some(Type::List)),
            "total" | "page" | "page_size" | "limit" | "offset" => self.around.other(key, json, Some(Type::Number)),
            _ => self.around.other(key, json, None),
        }
    }
}

/// A post in the flat form.
#[derive(Default)]
struct Flat<'a> {
    id: Option<u64>,
    created_at: Option<Cow<'a, str>>,
    /// The same as written.
    created_at_raw: &'a str,
    has_text: bool,
    /// The short one, where there is a full one.
    text: Option<Cow<'a, str>>,
    is_retweet: Option<bool>,
    is_quote: Option<bool>,
    post: Box<Post<'a>>,
}

impl<'a> Flat<'a> {
    fn field(&mut self, beside: &mut Beside<'a>, key: &str, json: &mut Json<'a>) -> Result<(), Bad> {
        let post = &mut *self.post;
        match key {
            "id" => self.id = beside.number(key, json)?,
            "text" => {
                self.text = beside.text(key, json)?;
                self.has_text |= self.text.is_some();
            }
            "full_text" => {
                post.text = beside.text(key, json)?;
                self.has_text |= post.text.is_some();
            }
            "created_at" => {
                let start = json.position();
                self.created_at = beside.text(key, json)?;
                self.created_at_raw = json.since(start);
            }
            "lang" => post.lang = beside.text(key, json)?,
            "source" => post.client = beside.text(key, json)?,
            "user_id" => post.author.id = beside.number(key, json)?,
            "username" => post.author.handle = beside.handle(key, json)?,
            "user_name" => post.author.name = beside.text(key, json)?,
            "user_description" => post.author.bio = beside.text(key, json)?,
            "user_location" => post.author.location = beside.text(key, json)?,
            "user_profile_image_url" => post.author.picture_url = beside.text(key, json)?,
            "user_created_at" => post.author.created_at = beside.date(key, json, parse_legacy_date)?,
            "user_followers_count" => post.author.followers = beside.number(key, json)?,
            "user_following_count" => post.author.following = beside.number(key, json)?,
            "user_tweet_count" => post.author.posts = beside.number(key, json)?,
            "user_is_blue_verified" => post.author.is_blue_verified = beside.flag(key, json)?,
            "favorite_count" => post.counts.likes = beside.number(key, json)?,
            "retweet_count" => post.counts.reposts = beside.number(key, json)?,
            "reply_count" => post.counts.replies = beside.number(key, json)?,
            "quote_count" => post.counts.quotes = beside.number(key, json)?,
            "bookmark_count" => post.counts.bookmarks = beside.number(key, json)?,
            "view_count" => post.counts.views = beside.number(key, json)?,
            "possibly_sensitive" => post.is_sensitive = beside.flag(key, json)?,
            "is_retweet" => self.is_retweet = beside.flag(key, json)?,
            "is_quote_status" => self.is_quote = beside.flag(key, json)?,
            "conversation_id" => post.conversation_id = beside.number(key, json)?,
            "in_reply_to_status_id" => post.in_reply_to_tweet_id = beside.number(key, json)?,
            "in_reply_to_user_id" => post.in_reply_to_user_id = beside.number(key, json)?,
            "in_reply_to_screen_name" => post.in_reply_to_handle = beside.handle(key, json)?,
            "quoted_status_id" => post.quoted = nested(beside.number(key, json)?),
            "retweeted_status_id" => post.reposted = nested(beside.number(key, json)?),
            "media" => media(beside, json, &mut post.media)?,
            "urls" => beside.links(json, &mut post.urls, ("unwound_url", Type::Text))?,
            "hashtags" => beside.tags("hashtags", json, &mut post.hashtags)?,
            "user_mentions" => {
                beside.objects("user_mentions", json, &mut post.mentions, |beside, mention: &mut Mention<'a>, key, json| {
                    match key {
                        "id" => mention.id = beside.number(key, json)?,
                        "username" => mention.handle = beside.handle(key, json)?,
                        "name" => mention.name = beside.text(key, json)?,
                        _ => beside.other(key, json, (key == "indices").then_some(Type::List))?,
                    }
                    Ok(())
                })?
            }
            _ => beside.other(key, json, post_type(key))?,
        }
        Ok(())
    }

    /// What can be said only of the whole.
    fn finish(&mut self, beside: &mut Beside<'a>, event: &Event) -> Result<(), Bad> {
        let post = &mut *self.post;
        post.platform = Some(Platform::X);
        match (&post.text, self.text.take()) {
            (None, text) => post.text = text,
            (Some(full), Some(text)) if *full != text => beside.put_text("text", &text),
            _ => {}
        }
        post.kind = match self.is_retweet {
            Some(true) => Some(PostKind::Repost),
            _ if post.reposted.is_some() => Some(PostKind::Repost),
            _ if post.in_reply_to_tweet_id.is_some() => Some(PostKind::Reply),
            _ if self.is_quote == Some(true) || post.quoted.is_some() => Some(PostKind::Quote),
            Some(false) => Some(PostKind::Post),
            None => None,
        };
        if self.is_quote == Some(true) && post.kind != Some(PostKind::Quote) && post.quoted.is_none() {
            beside.put("is_quote_status", "true")?;
        }
        if let Some(id) = self.id.filter(|id| event.id != EventId::Tweet(TweetId(*id))) {
            beside.put("id", &id.to_string())?;
        }
        let second = event.published_at.map(|at| at.0.div_euclid(1_000_000));
        match self.created_at.as_deref().map(parse_legacy_date) {
            Some(None) => beside.odd("created_at", self.created_at_raw, "date")?,
            Some(Some(at)) if second != Some(at.0 / 1_000_000) => beside.put("created_at", self.created_at_raw)?,
            _ => {}
        }
        Ok(())
    }
}

fn nested<'a>(id: Option<u64>) -> Option<Box<Nested<'a>>> {
    id.map(|id| Box::new(Nested { tweet_id: Some(id), ..Nested::default() }))
}

fn media<'a>(beside: &mut Beside<'a>, json: &mut Json<'a>, into: &mut Vec<Media<'a>>) -> Result<(), Bad> {
    beside.objects("media", json, into, |beside, media: &mut Media<'a>, key, json| {
        match key {
            "url" => media.url = beside.text(key, json)?,
            "preview_image_url" => media.preview_url = beside.text(key, json)?,
            "alt_text" => media.alt_text = beside.text(key, json)?,
            "duration_ms" => media.duration_ms = beside.number(key, json)?,
            "type" => {
                let kind = beside.text(key, json)?;
                media.kind = if kind.as_deref() == Some("animated_gif") { Some("gif".into()) } else { kind };
            }
            "media_key" => beside.other(key, json, Some(Type::Text))?,
            "width" | "height" | "view_count" => beside.other(key, json, Some(Type::Number))?,
            _ => beside.other(key, json, None)?,
        }
        Ok(())
    })
}

/// The type of a post's field without a column; `None` for one that nobody has seen.
fn post_type(key: &str) -> Option<Type> {
    Some(match key {
        "user_url" | "thumbnail_url" | "thumbnail_title" => Type::Text,
        "editable_until_msecs" | "edits_remaining" => Type::Number,
        "user_verified" | "favorited" | "retweeted" | "bookmarked" | "is_edit_eligible" | "has_card" | "has_community_notes" => {
            Type::Flag
        }
        "display_text_range" | "edit_tweet_ids" => Type::List,
        "poll" | "place" => Type::Object,
        _ => return None,
    })
}
