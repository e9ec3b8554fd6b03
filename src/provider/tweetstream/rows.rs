//! TweetStream's envelopes and rows of history as rows.
//!
//! `op` says how `d` is read; where it stands behind `d`, or in a row of history `messageType` behind `content`, the payload
//! is passed over first and read at the end.
//!
//! Catalogue: tweetstream.io docs, "Payloads, detections and OCR" and "History API", and the SDKs' types 1.1.

use std::borrow::Cow;

use super::page::{self, Raw};
use super::wire::{self, Op};
use crate::model::json::{Bad, Json, Kind};
use crate::model::{
    Account, Change, Event, EventId, EventKind, Follow, Link, Media, Mention, Message, Nested, Platform, Post, PostKind,
    ProfileChange, Row, Said, Token, TweetId, UnixMicros,
};
use crate::provider::history::one_value;
use crate::provider::rows::{Beside, RowSink, Told, Type, Unclosed, walk, whole};

/// Reads an envelope.
pub(in crate::provider) fn read_rows(text: &str, sink: &mut dyn RowSink) -> Told {
    let mut envelope = Envelope::new(sink.keeps_known());
    let Some(json) = walk(text, |key, json| envelope.field(key, json)) else { return Told::nothing() };
    match envelope.tell(sink) {
        Ok(told) => Told { json, ..told },
        Err(_) => Told::nothing(),
    }
}

/// What the walk has found so far.
struct Envelope<'a> {
    op: Option<Op>,
    id: Option<Cow<'a, str>>,
    ts: Option<i64>,
    family: Option<Cow<'a, str>>,
    payload: Payload<'a>,
    around: Beside<'a>,
    beside: Beside<'a>,
}

impl<'a> Envelope<'a> {
    fn new(keeps_known: bool) -> Self {
        Self {
            op: None,
            id: None,
            ts: None,
            family: None,
            payload: Payload::default(),
            around: Beside::new("", keeps_known),
            beside: Beside::new("d", keeps_known),
        }
    }

    fn field(&mut self, key: &str, json: &mut Json<'a>) -> Result<(), Bad> {
        let around = &mut self.around;
        match key {
            "op" => self.op = around.text(key, json)?.and_then(|op| Op::parse(&op)),
            "id" => self.id = around.text(key, json)?,
            "ts" => self.ts = around.integer(key, json)?,
            "t" => self.family = around.text(key, json)?,
            "v" => match json.raw()? {
                "1" => {}
                version => around.put(key, version)?,
            },
            "d" if json.kind() == Kind::Object => self.payload.take(self.op.map(Shape::of), &mut self.beside, json)?,
            "d" => around.retyped(key, json, Type::Object)?,
            _ => around.other(key, json, None)?,
        }
        Ok(())
    }

    fn tell(mut self, sink: &mut dyn RowSink) -> Result<Told, Bad> {
        let provider_at = self.ts.map(UnixMicros::from_millis);
        let (message, kind) = match self.op {
            None => (Message::Unknown, None),
            Some(Op::HandlesResult | Op::AuthPong) => (Message::Other, None),
            Some(Op::AuthPing) => (Message::AuthPing, None),
            Some(Op::Tweet(kind) | Op::Account(kind)) => (Message::Data, Some(kind)),
            Some(Op::Callout) => (Message::Data, Some(EventKind::Callout)),
        };
        let (Some(kind), Some(op)) = (kind, self.op) else {
            // A control message or one nobody has seen: nothing in it has a catalogue.
            return Ok(Told { json: false, message, provider_at });
        };
        self.payload.settle(Shape::of(op), &mut self.beside)?;
        let Identity { tweet_id, created_at, observed_at, is_truth, .. } = self.payload.identity;
        let event = match op {
            Op::Tweet(kind) => wire::tweet_event(kind, tweet_id, created_at, is_truth),
            Op::Account(kind) => wire::text_event(kind, self.payload.identity.event_id.clone(), observed_at),
            _ => wire::text_event(EventKind::Callout, self.id.clone(), created_at),
        };
        let message = if event.is_some() { Message::Data } else { Message::Unknown };
        if let Some(event) = event {
            self.around_of(&event);
            self.payload.finish(kind, &event, &mut self.beside)?;
            let around = self.around.take();
            let extra = self.beside.take();
            sink.row(self.payload.row(event, extra, &around));
        }
        self.around.tell(sink);
        self.beside.tell(sink);
        Ok(Told { json: false, message, provider_at })
    }

    /// Keeps what the envelope says apart from its event.
    fn around_of(&mut self, event: &Event) {
        let digits;
        let id = match &event.id {
            EventId::Tweet(id) => {
                digits = id.to_string();
                &digits
            }
            EventId::Text(text) => text.strip_prefix("truth_social:").unwrap_or(text),
        };
        if let Some(told) = self.id.as_deref().filter(|told| *told != id) {
            self.around.put_text("id", told);
        }
        let is_account = matches!(self.op, Some(Op::Account(_) | Op::Callout));
        let family = if is_account { "account" } else { "tweet" };
        if let Some(told) = self.family.as_deref().filter(|told| *told != family) {
            self.around.put_text("t", told);
        }
    }
}

/// How a payload is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Post,
    Profile,
    Follow,
    /// Kept as it is.
    Whole,
}

impl Shape {
    const fn of(op: Op) -> Self {
        match op {
            Op::Tweet(kind) | Op::Account(kind) => Self::of_kind(kind),
            _ => Self::Whole,
        }
    }

    const fn of_kind(kind: EventKind) -> Self {
        match kind {
            EventKind::Profile => Self::Profile,
            EventKind::Follow | EventKind::Unfollow => Self::Follow,
            _ => Self::Post,
        }
    }
}

/// What identifies the event, as `wire.rs` and `page.rs` read it.
#[derive(Clone, Default)]
struct Identity<'a> {
    tweet_id: Option<u64>,
    event_id: Option<Cow<'a, str>>,
    created_at: Option<i64>,
    observed_at: Option<i64>,
    /// Whichever of these two came last.
    at: Option<i64>,
    /// By the author's platform.
    is_truth: bool,
    /// By the author's or the actor's, whichever came last.
    is_any_truth: bool,
}

/// A `d` or a `content`.
#[derive(Default)]
struct Payload<'a> {
    /// All that were there: a doubled key adds to the first.
    raws: Vec<&'a str>,
    read_as: Option<Shape>,
    identity: Identity<'a>,
    platform: Option<Platform>,
    /// Whether the author is on a platform nobody knows.
    is_elsewhere: bool,
    post: Box<Post<'a>>,
    kind_of_ref: Option<PostKind>,
    actor: Account<'a>,
    target: Account<'a>,
    changes: Vec<Change<'a>>,
    kind: Option<Cow<'a, str>>,
}

impl<'a> Payload<'a> {
    /// Takes an object, and reads it if it is known how.
    fn take(&mut self, shape: Option<Shape>, beside: &mut Beside<'a>, json: &mut Json<'a>) -> Result<(), Bad> {
        let start = json.position();
        match shape {
            Some(shape) if self.raws.is_empty() || self.read_as == Some(shape) => {
                self.read_as = Some(shape);
                self.read(shape, beside, json)?;
            }
            _ => {
                self.read_as = None;
                json.skip()?;
            }
        }
        self.raws.push(json.since(start));
        Ok(())
    }

    /// Reads everything, now that it is certain how.
    fn settle(&mut self, shape: Shape, beside: &mut Beside<'a>) -> Result<(), Bad> {
        if self.read_as == Some(shape) {
            return Ok(());
        }
        let raws = std::mem::take(&mut self.raws);
        *self = Self::default();
        beside.forget();
        self.read_as = Some(shape);
        for raw in &raws {
            self.read(shape, beside, &mut Json::new(raw))?;
        }
        self.raws = raws;
        Ok(())
    }

    fn read(&mut self, shape: Shape, beside: &mut Beside<'a>, json: &mut Json<'a>) -> Result<(), Bad> {
        json.object(|key, json| match shape {
            Shape::Post => self.post_field(beside, key, json),
            Shape::Profile | Shape::Follow => self.account_field(shape, beside, key, json),
            Shape::Whole => {
                if key == "createdAt" {
                    self.identity.created_at = json.integer()?;
                }
                Ok(())
            }
        })
    }

    fn post_field(&mut self, beside: &mut Beside<'a>, key: &str, json: &mut Json<'a>) -> Result<(), Bad> {
        let post = &mut *self.post;
        match key {
            "tweetId" => self.identity.tweet_id = beside.number(key, json)?,
            "kind" => match beside.text(key, json)? {
                Some(word) => match post_kind(&word) {
                    None => beside.put_text(key, &word),
                    kind => post.kind = kind,
                },
                None => post.kind = None,
            },
            "text" => post.text = beside.text(key, json)?,
            "createdAt" => {
                self.identity.created_at = beside.integer(key, json)?;
                self.identity.at = self.identity.created_at.or(self.identity.at);
            }
            "receivedAt" => post.detected_at = beside.millis(key, json)?,
            "author" => account(beside, "author", json, &mut post.author, |word| {
                self.identity.is_truth = word == Some("truth_social");
                self.identity.is_any_truth = self.identity.is_truth;
                self.platform = platform(word);
                self.is_elsewhere = word.is_some() && self.platform.is_none();
                self.platform.is_some()
            })?,
            "link" => post.url = beside.text(key, json)?,
            "media" => media(beside, json, &mut post.media)?,
            "ref" => self.kind_of_ref = reference(beside, json, post)?,
            "mentions" => {
                beside.objects("mentions", json, &mut post.mentions, |beside, mention: &mut Mention<'a>, key, json| {
                    match key {
                        "handle" => mention.handle = beside.handle(key, json)?,
                        "id" => mention.id = beside.number(key, json)?,
                        "name" => mention.name = beside.text(key, json)?,
                        _ => beside.other(key, json, None)?,
                    }
                    Ok(())
                })?
            }
            "urls" => beside.objects("urls", json, &mut post.urls, link_field)?,
            "ocr" => beside.object("ocr", json, |beside, key, json| {
                match key {
                    "text" => post.ocr_text = beside.text(key, json)?,
                    _ => beside.other(key, json, None)?,
                }
                Ok(())
            })?,
            "detected" => beside.object("detected", json, |beside, key, json| match key {
                "tokens" => tokens(beside, "tokens", "token", json, &mut post.tokens),
                "cex" => tokens(beside, "cex", "cex", json, &mut post.tokens),
                "prediction" => tokens(beside, "prediction", "prediction", json, &mut post.tokens),
                _ => beside.other(key, json, None),
            })?,
            _ => self.foreign(beside, key, json)?,
        }
        Ok(())
    }

    fn account_field(&mut self, shape: Shape, beside: &mut Beside<'a>, key: &str, json: &mut Json<'a>) -> Result<(), Bad> {
        match key {
            "kind" => self.kind = beside.text(key, json)?,
            "eventId" => self.identity.event_id = beside.text(key, json)?,
            "observedAt" => {
                self.identity.observed_at = beside.integer(key, json)?;
                self.identity.at = self.identity.observed_at.or(self.identity.at);
            }
            "actor" => account(beside, "actor", json, &mut self.actor, |word| {
                self.identity.is_any_truth = word == Some("truth_social");
                self.platform = platform(word);
                self.platform.is_some()
            })?,
            // Its platform has no column; it need not be the actor's.
            "target" if shape == Shape::Follow => account(beside, "target", json, &mut self.target, |_| false)?,
            "changes" if shape == Shape::Profile => changes(beside, "changes", json, &mut self.changes)?,
            "previous" if shape == Shape::Profile => changes(beside, "previous", json, &mut self.changes)?,
            _ => self.foreign(beside, key, json)?,
        }
        Ok(())
    }

    /// A field that belongs to another shape, or to none. Some of them are looked at all the same by `page.rs`.
    fn foreign(&mut self, beside: &mut Beside<'a>, key: &str, json: &mut Json<'a>) -> Result<(), Bad> {
        let raw = json.raw()?;
        match key {
            "createdAt" | "observedAt" => self.identity.at = Json::new(raw).integer()?.or(self.identity.at),
            "author" | "actor" => Json::new(raw).object(|key, json| {
                if key == "platform" {
                    self.identity.is_any_truth = json.text()?.as_deref() == Some("truth_social");
                }
                Ok(())
            })?,
            _ => {}
        }
        beside.other(key, &mut Json::new(raw), None)
    }

    /// What can be said only of the whole.
    fn finish(&mut self, kind: EventKind, event: &Event, beside: &mut Beside<'a>) -> Result<(), Bad> {
        match self.read_as.unwrap_or(Shape::Whole) {
            Shape::Post => {
                self.post.kind = self.post.kind.or(self.kind_of_ref);
                // Content names its platform or is X's.
                let otherwise = (kind == EventKind::Tweet && !self.is_elsewhere).then_some(Platform::X);
                self.platform = self.platform.or(otherwise);
                self.post.platform = self.platform;
                let told = self.identity.created_at;
                if let Some(ms) = told.filter(|ms| event.published_at != Some(UnixMicros::from_millis(*ms))) {
                    beside.put("createdAt", &ms.to_string())?;
                }
            }
            Shape::Profile | Shape::Follow => {
                let name = event.kind.name();
                if let Some(word) = self.kind.as_deref().filter(|word| !word.eq_ignore_ascii_case(name)) {
                    beside.put_text("kind", word);
                }
            }
            Shape::Whole => {}
        }
        Ok(())
    }

    fn row(self, event: Event, extra: Unclosed, around: &Unclosed) -> Row<'a> {
        let observed_at = self.identity.observed_at.map(UnixMicros::from_millis);
        let said = match self.read_as.unwrap_or(Shape::Whole) {
            Shape::Post => {
                let mut post = self.post;
                post.extra = extra.close(around);
                Said::Post(post)
            }
            Shape::Profile => {
                let (platform, account, mut changes) = (self.platform, self.actor, self.changes);
                for change in changes.iter_mut().filter(|change| change.after.is_none()) {
                    change.after = now(&account, &change.field);
                }
                let extra = extra.close(around);
                Said::Profile(Box::new(ProfileChange { platform, observed_at, account, changes, extra }))
            }
            Shape::Follow => {
                let (platform, actor, target) = (self.platform, self.actor, self.target);
                let extra = extra.close(around);
                Said::Follow(Box::new(Follow { platform, observed_at, actor, target, extra }))
            }
            Shape::Whole => Said::Other(whole(self.raws.last().copied().unwrap_or_default(), around)),
        };
        Row { event, selector_name: None, said }
    }
}

fn platform(word: Option<&str>) -> Option<Platform> {
    match word {
        Some("twitter") => Some(Platform::X),
        Some("truth_social") => Some(Platform::TruthSocial),
        _ => None,
    }
}

fn post_kind(word: &str) -> Option<PostKind> {
    Some(match word {
        "post" => PostKind::Post,
        "reply" => PostKind::Reply,
        "quote" => PostKind::Quote,
        "retweet" => PostKind::Repost,
        _ => return None,
    })
}

/// Reads an account; `on_platform` is told each word for its platform, and says whether it has a column.
fn account<'a>(
    beside: &mut Beside<'a>,
    name: &'static str,
    json: &mut Json<'a>,
    account: &mut Account<'a>,
    mut on_platform: impl FnMut(Option<&str>) -> bool,
) -> Result<(), Bad> {
    beside.object(name, json, |beside, key, json| {
        match key {
            "id" => account.id = beside.number(key, json)?,
            "handle" => account.handle = beside.handle(key, json)?,
            "name" => account.name = beside.text(key, json)?,
            "platform" => {
                let word = beside.text(key, json)?;
                let has_column = on_platform(word.as_deref());
                if let Some(word) = word.filter(|_| !has_column) {
                    beside.put_text(key, &word);
                }
            }
            "profileImage" => account.picture_url = beside.text(key, json)?,
            "bio" => account.bio = beside.text(key, json)?,
            "location" => account.location = beside.text(key, json)?,
            "followersCount" => account.followers = beside.number(key, json)?,
            "followingCount" => account.following = beside.number(key, json)?,
            "joinedAt" => account.created_at = beside.millis(key, json)?,
            "metrics" => beside.object("metrics", json, |beside, key, json| {
                match key {
                    "tweets" => account.posts = beside.number(key, json)?,
                    _ => beside.other(key, json, (key == "likes").then_some(Type::Number))?,
                }
                Ok(())
            })?,
            "verifiedType" => account.verified_type = beside.text(key, json)?,
            _ => beside.other(key, json, account_type(key))?,
        }
        Ok(())
    })
}

/// The type of an account's field; `None` for one that nobody has seen.
fn account_type(key: &str) -> Option<Type> {
    Some(match key {
        "banner" | "url" | "websiteUrl" | "id" | "handle" | "name" | "platform" | "profileImage" | "bio" | "location"
        | "verifiedType" => Type::Text,
        "followersCount" | "followingCount" | "joinedAt" => Type::Number,
        "verifiedLabel" | "metrics" => Type::Object,
        _ => return None,
    })
}

/// Documented: `url` leads to the page, `name` is shown, `tco` stands in the text. Observed: X's own names, where `url` is
/// what stands in the text.
fn link_field<'a>(beside: &mut Beside<'a>, link: &mut Link<'a>, key: &str, json: &mut Json<'a>) -> Result<(), Bad> {
    match key {
        "url" if link.expanded_url.is_none() => link.expanded_url = beside.text(key, json)?,
        "url" | "tco" => {
            let told = beside.text(key, json)?;
            beside.fill(key, &mut link.url, told);
        }
        "expanded_url" => {
            if let Some(told) = beside.text(key, json)? {
                let url = link.expanded_url.replace(told).filter(|url| link.expanded_url.as_ref() != Some(url));
                beside.fill("url", &mut link.url, url);
            }
        }
        "name" | "display_url" => {
            let told = beside.text(key, json)?;
            beside.fill(key, &mut link.display_url, told);
        }
        _ => beside.other(key, json, (key == "indices").then_some(Type::List))?,
    }
    Ok(())
}

fn media<'a>(beside: &mut Beside<'a>, json: &mut Json<'a>, into: &mut Vec<Media<'a>>) -> Result<(), Bad> {
    beside.objects("media", json, into, |beside, media: &mut Media<'a>, key, json| {
        match key {
            "url" => media.url = beside.text(key, json)?,
            "thumbnail" => media.preview_url = beside.text(key, json)?,
            "type" => {
                let kind = beside.text(key, json)?;
                media.kind = if kind.as_deref() == Some("image") { Some("photo".into()) } else { kind };
            }
            _ => beside.other(key, json, None)?,
        }
        Ok(())
    })
}

/// What a post refers to, and what kind of post that makes it. A reference of another sort is kept as it is.
fn reference<'a>(beside: &mut Beside<'a>, json: &mut Json<'a>, post: &mut Post<'a>) -> Result<Option<PostKind>, Bad> {
    let (mark, start) = (beside.mark(), json.position());
    if json.kind() != Kind::Object {
        return beside.retyped("ref", json, Type::Object).map(|()| None);
    }
    let (mut word, mut nested) = (None, Nested::default());
    beside.enter("ref");
    json.object(|key, json| {
        match key {
            "type" => word = beside.text(key, json)?,
            "tweetId" => nested.tweet_id = beside.number(key, json)?,
            "text" => nested.text = beside.text(key, json)?,
            "author" => beside.object("author", json, |beside, key, json| {
                match key {
                    "id" => nested.author_id = beside.number(key, json)?,
                    "handle" => nested.author_handle = beside.handle(key, json)?,
                    _ => beside.other(key, json, account_type(key))?,
                }
                Ok(())
            })?,
            "media" => beside.other(key, json, Some(Type::List))?,
            _ => beside.other(key, json, None)?,
        }
        Ok(())
    })?;
    let kind = word.as_deref().and_then(post_kind);
    match kind {
        Some(PostKind::Reply) => {
            post.in_reply_to_tweet_id = nested.tweet_id;
            post.in_reply_to_user_id = nested.author_id;
            post.in_reply_to_handle = nested.author_handle;
            if let Some(text) = nested.text {
                beside.put_text("text", &text);
            }
            beside.leave();
        }
        Some(PostKind::Quote) => {
            post.quoted = Some(Box::new(nested));
            beside.leave();
        }
        Some(PostKind::Repost) => {
            post.reposted = Some(Box::new(nested));
            beside.leave();
        }
        Some(PostKind::Post) | None => {
            beside.leave();
            beside.rewind(mark);
            beside.put("ref", json.since(start))?;
        }
    }
    Ok(kind.filter(|kind| *kind != PostKind::Post))
}

fn tokens<'a>(
    beside: &mut Beside<'a>,
    name: &'static str,
    kind: &'static str,
    json: &mut Json<'a>,
    into: &mut Vec<Token<'a>>,
) -> Result<(), Bad> {
    let first = into.len();
    beside.objects(name, json, into, |beside, token: &mut Token<'a>, key, json| {
        match (kind, key) {
            (_, "priceUsd") => token.price_usd = beside.fraction(key, json)?,
            (_, "sources") => beside.list("sources", json, |beside, idx, json| {
                if json.kind() != Kind::String {
                    return beside.odd_item(idx, json, Type::Text);
                }
                token.found_in.extend(json.text()?);
                Ok(())
            })?,
            ("token" | "cex", "symbol") | ("prediction", "marketId") => token.symbol = beside.text(key, json)?,
            ("token", "name") | ("prediction", "title") => token.name = beside.text(key, json)?,
            ("token", "contract") => token.contract = beside.text(key, json)?,
            ("token", "chain") | ("cex" | "prediction", "exchange") => token.chain = beside.text(key, json)?,
            ("token", "networkId") => beside.other(key, json, Some(Type::Number))?,
            ("cex", "baseAsset" | "quoteAsset" | "url") | ("prediction", "url") => {
                beside.other(key, json, Some(Type::Text))?;
            }
            _ => beside.other(key, json, None)?,
        }
        Ok(())
    })?;
    into.iter_mut().skip(first).for_each(|token| token.kind = kind.into());
    Ok(())
}

/// Fields that changed: an object of new or of old values, or a list with a field in each. Documented: the object.
/// Observed: the list.
fn changes<'a>(beside: &mut Beside<'a>, name: &'static str, json: &mut Json<'a>, into: &mut Vec<Change<'a>>) -> Result<(), Bad> {
    let is_old = name == "previous";
    if json.kind() == Kind::Array && !is_old {
        return beside.objects(name, json, into, |beside, change: &mut Change<'a>, key, json| {
            match key {
                "field" => change.field = beside.text(key, json)?.unwrap_or_default(),
                "before" => change.before = beside.text(key, json)?,
                "after" => change.after = beside.text(key, json)?,
                _ => beside.other(key, json, None)?,
            }
            Ok(())
        });
    }
    beside.object(name, json, |beside, key, json| {
        let value = if key == "handle" { beside.handle(key, json)? } else { beside.text(key, json)? };
        let at = into.iter().position(|change| change.field == key).unwrap_or_else(|| {
            into.push(Change { field: field_name(key), ..Change::default() });
            into.len() - 1
        });
        if let Some(change) = into.get_mut(at) {
            let side = if is_old { &mut change.before } else { &mut change.after };
            *side = value;
        }
        Ok(())
    })
}

fn field_name<'a>(key: &str) -> Cow<'a, str> {
    let known = ["name", "handle", "bio", "avatar", "banner", "location"].into_iter().find(|known| *known == key);
    known.map_or_else(|| Cow::Owned(key.to_owned()), Cow::Borrowed)
}

/// What an account shows in a field that changed.
fn now<'a>(account: &Account<'a>, field: &str) -> Option<Cow<'a, str>> {
    match field {
        "name" => account.name.clone(),
        "handle" => account.handle.clone(),
        "bio" => account.bio.clone(),
        "avatar" => account.picture_url.clone(),
        "location" => account.location.clone(),
        _ => None,
    }
}

/// Reads an answer of history.
pub(in crate::provider) fn read_page_rows(text: &str, sink: &mut dyn RowSink) -> Told {
    let inner = text.trim_matches([' ', '\t', '\r', '\n']);
    let mut json = Json::new(inner);
    let mut page = Page { has_data: false, has_metadata: false, rows: Vec::new(), besides: Besides::new(sink.keeps_known()) };
    let read = json.object(|key, json| page.field(key, json)).and_then(|()| json.finish());
    if read.is_ok() && page.has_data && page.has_metadata {
        page.rows.into_iter().for_each(|row| sink.row(row));
        page.besides.tell(sink);
        return Told { json: !json.is_multi_line() && inner.len() == text.len(), message: Message::Data, provider_at: None };
    }
    match one_value(text.as_bytes()) {
        Some(json) => Told { json, message: Message::Other, provider_at: None },
        None => Told::nothing(),
    }
}

struct Page<'a> {
    has_data: bool,
    has_metadata: bool,
    rows: Vec<Row<'a>>,
    besides: Besides<'a>,
}

/// What has no column in the parts of a page.
struct Besides<'a> {
    page: Beside<'a>,
    row: Beside<'a>,
    content: Beside<'a>,
    meta: Beside<'a>,
}

impl<'a> Besides<'a> {
    fn new(keeps_known: bool) -> Self {
        let new = |base| Beside::new(base, keeps_known);
        Self { page: new(""), row: new("data[]"), content: new("data[].content"), meta: new("data[].meta") }
    }

    fn tell(self, sink: &mut dyn RowSink) {
        for beside in [self.page, self.row, self.content, self.meta] {
            beside.tell(sink);
        }
    }
}

impl<'a> Page<'a> {
    fn field(&mut self, key: &str, json: &mut Json<'a>) -> Result<(), Bad> {
        match key {
            "data" => {
                self.has_data = json.kind() == Kind::Array;
                self.rows.clear();
                let (rows, besides) = (&mut self.rows, &mut self.besides);
                if !self.has_data {
                    return besides.page.retyped(key, json, Type::List);
                }
                json.array(|json| {
                    let mut row = Stored::default();
                    json.object(|key, json| row.field(besides, key, json))?;
                    row.tell(besides, rows)
                })
            }
            "metadata" => {
                self.has_metadata = json.kind() == Kind::Object;
                self.besides.page.other(key, json, Some(Type::Object))
            }
            _ => self.besides.page.other(key, json, None),
        }
    }
}

/// A row of history.
#[derive(Default)]
struct Stored<'a> {
    kind: Option<EventKind>,
    kind_word: Option<Cow<'a, str>>,
    row_id: Option<Cow<'a, str>>,
    author_id: Option<u64>,
    handle: Option<Cow<'a, str>>,
    body: Option<Cow<'a, str>>,
    link: Option<Cow<'a, str>>,
    time: Option<Cow<'a, str>>,
    received_time: Option<Cow<'a, str>>,
    content: Payload<'a>,
    meta: Payload<'a>,
    has_meta: bool,
}

impl<'a> Stored<'a> {
    fn field(&mut self, besides: &mut Besides<'a>, key: &str, json: &mut Json<'a>) -> Result<(), Bad> {
        let beside = &mut besides.row;
        match key {
            "tweetId" if json.kind() == Kind::Number => self.row_id = beside.number(key, json)?.map(|id| id.to_string().into()),
            "tweetId" => self.row_id = beside.text(key, json)?,
            "twitterId" => self.author_id = beside.number(key, json)?,
            "twitterHandle" => self.handle = beside.handle(key, json)?,
            "body" => self.body = beside.text(key, json)?,
            "link" => self.link = beside.text(key, json)?,
            "time" => self.time = beside.text(key, json)?,
            "receivedTime" => self.received_time = beside.text(key, json)?,
            "messageType" => {
                self.kind_word = beside.text(key, json)?;
                self.kind = self.kind_word.as_deref().and_then(page::kind);
            }
            "content" if json.kind() == Kind::Object => {
                self.content.take(self.kind.map(Shape::of_kind), &mut besides.content, json)?;
            }
            "meta" => {
                self.has_meta = json.kind() == Kind::Object;
                if !self.has_meta {
                    return beside.retyped(key, json, Type::Object);
                }
                self.meta.take(Some(Shape::Post), &mut besides.meta, json)?;
            }
            "content" => beside.retyped(key, json, Type::Object)?,
            _ => beside.other(key, json, None)?,
        }
        Ok(())
    }

    fn tell(mut self, besides: &mut Besides<'a>, into: &mut Vec<Row<'a>>) -> Result<(), Bad> {
        let Some(kind) = self.kind else {
            [&mut besides.row, &mut besides.content, &mut besides.meta].into_iter().for_each(|beside| beside.forget());
            return Ok(());
        };
        self.content.settle(Shape::of_kind(kind), &mut besides.content)?;
        let identity = &self.content.identity;
        let raw = Raw {
            kind: self.kind,
            row_id: self.row_id.clone(),
            tweet_id: identity.tweet_id,
            event_id: identity.event_id.clone(),
            at: identity.at,
            truth_social: identity.is_any_truth,
            has_meta: self.has_meta,
            time: self.time.clone(),
            ..Raw::default()
        };
        let row = raw.row();
        if let Some(event) = &row.event {
            self.around_of(event, besides);
            self.content.finish(kind, event, &mut besides.content)?;
        }
        let platform = self.content.platform;
        match (&row.meta, self.meta.raws.last()) {
            (Some(event), _) => {
                // Of another post than the row, as nobody should write it.
                if let Some(id) = self.meta.identity.tweet_id.filter(|id| event.id != EventId::Tweet(TweetId(*id))) {
                    besides.meta.put("tweetId", &id.to_string())?;
                }
                self.meta.finish(EventKind::Meta, event, &mut besides.meta)?;
            }
            // Only a post has one that is a row.
            (None, Some(raw)) => besides.row.put("meta", raw)?,
            (None, None) => {}
        }
        let (around, extra, meta_extra) = (besides.row.take(), besides.content.take(), besides.meta.take());
        into.extend(row.event.map(|event| self.content.row(event, extra, &around)));
        if let Some(event) = row.meta {
            self.meta.post.platform = platform;
            into.push(self.meta.row(event, meta_extra, &Unclosed::default()));
        }
        Ok(())
    }

    /// A row says much twice; what its content does not say fills the columns, what it says otherwise is kept.
    fn around_of(&mut self, event: &Event, besides: &mut Besides<'a>) {
        let beside = &mut besides.row;
        let (account, post) = match self.content.read_as {
            Some(Shape::Post) => (&mut self.content.post.author, true),
            _ => (&mut self.content.actor, false),
        };
        match self.author_id {
            Some(id) if account.id.is_some_and(|known| known != id) => beside.put_text("twitterId", &id.to_string()),
            id => account.id = account.id.or(id),
        }
        beside.fill("twitterHandle", &mut account.handle, self.handle.take());
        if post {
            let post = &mut self.content.post;
            beside.fill("body", &mut post.text, self.body.take());
            beside.fill("link", &mut post.url, self.link.take());
            let received = self.received_time.as_deref().and_then(UnixMicros::parse_rfc3339);
            post.detected_at = post.detected_at.or(received);
            if received == post.detected_at && received.is_some() {
                self.received_time = None;
            }
        }
        for (name, told) in [("body", self.body.take()), ("link", self.link.take()), ("receivedTime", self.received_time.take())]
        {
            if let Some(told) = told {
                beside.put_text(name, &told);
            }
        }
        if let Some(time) = self.time.as_deref() {
            let at = UnixMicros::parse_rfc3339(time);
            if at.is_none() || at != event.published_at {
                beside.put_text("time", time);
            }
        }
        let is_same = |told: &str| match &event.id {
            EventId::Tweet(id) => told == id.to_string(),
            EventId::Text(text) => text.strip_prefix("truth_social:").unwrap_or(text) == told,
        };
        if let Some(id) = self.row_id.as_deref().filter(|id| !is_same(id)) {
            beside.put_text("tweetId", id);
        }
    }
}
