//! Moving what a provider said to another time: ids, dates and stamps by one and the same delta.
//!
//! Owns the knowledge of which fields name posts and which tell times, for all four providers at once: their names do
//! not contradict each other, and where one word means two things (`id`, `createdAt`, `conversation_id`) the object
//! around it decides (its role). Only the tokens that move are written anew; every other byte, key order, spaces and
//! escapes stay.
//!
//! | moves | stays |
//! | --- | --- |
//! | ids of posts, also inside topics and addresses of posts | ids of accounts, rules, monitors, media, sessions, conversations |
//! | dates and stamps of posts and envelopes, in the form they are written in | when an account was opened |
//!
//! What cannot be moved rightly stays as it is: an id from before ids told the time, a time beyond the end of its form.
//! A post whose own id or date cannot move keeps all its own fields, so that they still agree.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ops::Range;

use bytes::Bytes;

use super::Provider;
use crate::model::json::{Bad, Json, Kind};
use crate::model::{TweetId, UnixMicros};

/// A move in time by whole milliseconds, the unit of post ids.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shift {
    by_ms: i64,
}

impl Shift {
    /// A move by so many milliseconds; 0 leaves every byte as it is.
    pub fn by_millis(by_ms: i64) -> Self {
        Self { by_ms }
    }

    /// By how many milliseconds.
    pub fn millis(self) -> i64 {
        self.by_ms
    }

    /// The move that undoes this one.
    #[must_use]
    pub fn back(self) -> Self {
        Self { by_ms: self.by_ms.saturating_neg() }
    }

    /// A post's id, moved; one that does not tell its time, or would leave the range, stays.
    pub fn tweet_id(self, id: TweetId) -> TweetId {
        let moved = i128::from(id.0) + (i128::from(self.by_ms) << 22);
        let moved = u64::try_from(moved).ok().map(TweetId).filter(|moved| moved.published_at().is_some());
        moved.filter(|_| id.published_at().is_some()).unwrap_or(id)
    }

    /// Where an instant is moved to.
    pub fn instant(self, at: UnixMicros) -> UnixMicros {
        UnixMicros(at.0.saturating_add(self.by_ms.saturating_mul(1_000)))
    }

    /// An envelope, moved; what is not JSON, and what holds nothing that moves, comes back as it is.
    ///
    /// The way back gives the same bytes, unless something could not be moved there, or had zeros in front.
    pub fn envelope(self, provider: Provider, envelope: &Bytes) -> Bytes {
        if self.by_ms == 0 {
            return envelope.clone();
        }
        rewrite(provider, envelope, Some(self.by_ms), &|id, scheme| scheme.moved(id, self.by_ms))
    }
}

/// Writes the ids of posts anew, wherever they stand; times stay.
pub(super) fn map_post_ids(provider: Provider, envelope: &Bytes, map: &dyn Fn(u64, Scheme) -> u64) -> Bytes {
    rewrite(provider, envelope, None, &|id, scheme| match scheme.millis(id) {
        Some(_) => Moved::To(map(id, scheme)),
        None => Moved::Stays,
    })
}

/// How a post's id tells its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    /// X: milliseconds since its own zero, above 22 bits.
    Snowflake,
    /// Truth Social: Unix milliseconds above 16 bits.
    Mastodon,
}

/// What becomes of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Moved<T> {
    To(T),
    /// It tells no time.
    Stays,
    /// It does, but where it should go cannot be written.
    Beyond,
}

impl Scheme {
    /// Bits that only tell posts of one millisecond apart.
    pub(super) const fn low_bits(self) -> u32 {
        match self {
            Self::Snowflake => 22,
            Self::Mastodon => 16,
        }
    }

    /// Unix milliseconds of an id of this scheme.
    fn millis(self, id: u64) -> Option<i64> {
        match self {
            Self::Snowflake => TweetId(id).published_at().map(UnixMicros::millis),
            Self::Mastodon => may_be_truth_social(id).then_some((id >> 16) as i64),
        }
    }

    fn moved(self, id: u64, by_ms: i64) -> Moved<u64> {
        if self.millis(id).is_none() {
            return Moved::Stays;
        }
        let moved = i128::from(id) + (i128::from(by_ms) << self.low_bits());
        // Readers keep ids in signed 64 bits: further than that no id goes.
        let fits = u64::try_from(moved).ok().filter(|id| i64::try_from(*id).is_ok() && self.millis(*id).is_some());
        fits.map_or(Moved::Beyond, Moved::To)
    }
}

/// Whether an id, read as Truth Social's, lies between 2022 (when it opened) and 2040; the decoder asks the same.
pub fn may_be_truth_social(id: u64) -> bool {
    (1_640_995_200_000..2_208_988_800_000).contains(&(id >> 16))
}

/// What an object is, as far as its fields' names do not say it themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// The envelope, or what only wraps others.
    Envelope,
    /// A post whose `id` is a post's.
    Post,
    /// TweetStream's payload, or what a post refers to: `tweetId` is the post, times are its own.
    Message,
    /// An account.
    Person,
    /// Pictures and films.
    Media,
    /// Links of a post.
    Link,
    /// Anything else: `id` and `created_at` are its own affair.
    Thing,
}

impl Role {
    /// What the value of a field is, inside an object of this role.
    pub(super) fn inside(self, key: &str) -> Self {
        match key {
            "tweets" | "tweet" | "quoted_tweet" | "retweeted_tweet" | "replies" | "tweet_data" | "pinned_tweet"
            | "quoted_status" | "retweeted_status" => Self::Post,
            "author" | "user" | "actor" | "target" | "caller" | "user_mentions" | "mentions" | "changes" | "previous" => {
                Self::Person
            }
            "d" | "ref" | "content" => Self::Message,
            "media" | "video_info" | "variants" => Self::Media,
            "urls" => Self::Link,
            // Pages of history hold their posts so.
            "data" => Self::Post,
            "payload" => Self::Envelope,
            _ if matches!(self, Self::Person | Self::Media) => self,
            _ => Self::Thing,
        }
    }

    const fn tells_times(self) -> bool {
        matches!(self, Self::Envelope | Self::Post | Self::Message)
    }
}

/// What a scalar field is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    /// Id of the post the object is about.
    OwnId,
    /// Id of another post.
    OtherId,
    /// TweetStream's envelope id: a post's if the payload names the same one.
    EnvelopeId,
    /// When the object's post was published.
    OwnDate,
    /// Any other time.
    Stamp,
    /// X's topic.
    Topic,
    /// Anything else; strings may still hold addresses of posts.
    Other,
}

fn field(provider: Provider, role: Role, key: &str) -> Field {
    let about_time = role.tells_times();
    match key {
        "topic" => Field::Topic,
        "tweetId" | "tweet_id" => Field::OwnId,
        "id" | "id_str" if role == Role::Post => Field::OwnId,
        "id" if role == Role::Envelope && provider == Provider::Tweetstream => Field::EnvelopeId,
        "conversationId" | "conversation_id" | "conversation_id_str" if role == Role::Post => Field::OtherId,
        "inReplyToId" | "in_reply_to_id" => Field::OtherId,
        "createdAt" | "created_at" | "tweet_published_at" | "time" if about_time => Field::OwnDate,
        "timestamp"
        | "timestamp_ms"
        | "ts"
        | "created_ms"
        | "receivedAt"
        | "received_at"
        | "receivedTime"
        | "observedAt"
        | "observed_at"
        | "detected_at"
        | "detectedAt"
        | "editable_until_msecs"
        | "delivered_at"
            if about_time =>
        {
            Field::Stamp
        }
        _ if ["_status_id", "_status_id_str", "_tweet_id", "_tweet_ids", "TweetId", "TweetIds"]
            .iter()
            .any(|end| key.ends_with(end)) =>
        {
            Field::OtherId
        }
        _ => Field::Other,
    }
}

/// What has to be known before the first field is read, since keys come in any order.
#[derive(Debug, Default)]
pub(super) struct Facts<'a> {
    /// TweetStream: whether it is content, whose platform is X unless it says otherwise.
    content: bool,
    /// TweetStream: the post of the payload.
    tweet_id: Option<u64>,
    /// TweetStream: platforms of the author and of the one referred to.
    truth: Option<bool>,
    ref_truth: Option<bool>,
    /// TwitterAPI.io's fast lane: what the account did.
    action: Option<Cow<'a, str>>,
    fast: bool,
}

impl<'a> Facts<'a> {
    pub(super) fn read(provider: Provider, text: &'a str) -> Result<Self, Bad> {
        let mut facts = Self::default();
        let mut json = Json::new(text);
        match provider {
            Provider::Tweetstream => json.object(|key, json| facts.tweetstream(key, json))?,
            Provider::TwitterapiIo => json.object(|key, json| facts.twitterapi_io(key, json))?,
            Provider::Scrapebadger | Provider::XLive => {}
        }
        Ok(facts)
    }

    fn tweetstream(&mut self, key: &str, json: &mut Json<'a>) -> Result<(), Bad> {
        match key {
            "op" => self.content = json.text()?.is_some_and(|op| op == "content"),
            "d" => json.object(|key, json| {
                match key {
                    "tweetId" => self.tweet_id = json.id()?,
                    "author" => self.truth = platform(json)?,
                    "ref" => json.object(|key, json| {
                        if key == "author" {
                            self.ref_truth = platform(json)?;
                        }
                        Ok(())
                    })?,
                    _ => {}
                }
                Ok(())
            })?,
            _ => {}
        }
        Ok(())
    }

    fn twitterapi_io(&mut self, key: &str, json: &mut Json<'a>) -> Result<(), Bad> {
        match key {
            "event_type" => self.fast = json.text()?.is_some_and(|word| word == "fast_tweet"),
            "tweet" => json.object(|key, json| {
                if key == "type" {
                    self.action = json.text()?;
                }
                Ok(())
            })?,
            _ => {}
        }
        Ok(())
    }

    /// A follow has an id of no post.
    pub(super) fn follows(&self) -> bool {
        self.fast && self.action.as_deref() == Some("follow")
    }

    fn scheme(&self, id: u64, in_ref: bool) -> Scheme {
        let own = self.truth.or(self.content.then_some(false));
        let said = if in_ref { self.ref_truth.or(own) } else { own };
        match said {
            Some(true) => Scheme::Mastodon,
            Some(false) => Scheme::Snowflake,
            // Meta, updates and deletes do not say whose post it is.
            None if may_be_truth_social(id) => Scheme::Mastodon,
            None => Scheme::Snowflake,
        }
    }
}

fn platform(json: &mut Json<'_>) -> Result<Option<bool>, Bad> {
    let mut truth = None;
    json.object(|key, json| {
        if key == "platform" {
            truth = json.text()?.map(|platform| platform == "truth_social");
        }
        Ok(())
    })?;
    Ok(truth)
}

/// Replacements of ranges of a text; applied in order of place.
#[derive(Debug, Default)]
pub(super) struct Edits(Vec<(Range<usize>, String)>);

impl Edits {
    pub(super) fn push(&mut self, range: Range<usize>, text: String) {
        self.0.push((range, text));
    }

    /// The bytes with all replacements made; `base` is where the text stands in them.
    pub(super) fn apply(mut self, bytes: &Bytes, base: usize) -> Bytes {
        if self.0.is_empty() {
            return bytes.clone();
        }
        self.0.sort_by_key(|(range, _)| range.start);
        let mut out = Vec::with_capacity(bytes.len() + 64);
        let mut at = 0;
        for (range, text) in self.0 {
            out.extend_from_slice(&bytes[at..base + range.start]);
            out.extend_from_slice(text.as_bytes());
            at = base + range.end;
        }
        out.extend_from_slice(&bytes[at..]);
        out.into()
    }
}

/// The JSON text inside bytes, without the white space around it, and where it begins.
pub(super) fn inner(bytes: &Bytes) -> Option<(&str, usize)> {
    let text = std::str::from_utf8(bytes).ok()?;
    let begun = text.trim_start_matches([' ', '\t', '\r', '\n']);
    let inner = begun.trim_end_matches([' ', '\t', '\r', '\n']);
    inner.starts_with(['{', '[']).then_some((inner, text.len() - begun.len()))
}

type MapId<'a> = &'a dyn Fn(u64, Scheme) -> Moved<u64>;

fn rewrite(provider: Provider, bytes: &Bytes, by_ms: Option<i64>, ids: MapId<'_>) -> Bytes {
    let Some((text, base)) = inner(bytes) else { return bytes.clone() };
    let walked = Facts::read(provider, text).and_then(|facts| {
        let mut walk =
            Walk { provider, text, facts, by_ms, ids, edits: Edits::default(), moved: BTreeSet::new(), links: Vec::new() };
        let mut json = Json::new(text);
        walk.value(&mut json, Role::Envelope, "", false, &mut Scope::default())?;
        json.finish()?;
        walk.follow_links();
        Ok(walk.edits)
    });
    walked.map_or_else(|_| bytes.clone(), |edits| edits.apply(bytes, base))
}

/// Fields of one object that move together or not at all.
#[derive(Debug, Default)]
struct Scope {
    id: Option<(u64, Scheme)>,
    ids: Vec<Range<usize>>,
    dates: Vec<Range<usize>>,
}

struct Walk<'a> {
    provider: Provider,
    text: &'a str,
    facts: Facts<'a>,
    by_ms: Option<i64>,
    ids: MapId<'a>,
    edits: Edits,
    /// Ids that moved.
    moved: BTreeSet<u64>,
    /// Ids in addresses on hosts that are not X's: they move with the post they name.
    links: Vec<(Range<usize>, u64)>,
}

impl<'a> Walk<'a> {
    fn value(&mut self, json: &mut Json<'a>, role: Role, key: &str, in_ref: bool, scope: &mut Scope) -> Result<(), Bad> {
        match json.kind() {
            Kind::Object => self.object(json, role.entered(key), in_ref || key == "ref"),
            Kind::Array => json.array(|json| self.value(json, role, key, in_ref, scope)),
            Kind::String | Kind::Number => {
                let start = json.position();
                let quoted = usize::from(json.kind() == Kind::String);
                json.skip()?;
                self.scalar(role, key, in_ref, start + quoted..json.position() - quoted, quoted == 1, scope);
                Ok(())
            }
            Kind::Other => json.skip(),
        }
    }

    fn object(&mut self, json: &mut Json<'a>, role: Role, in_ref: bool) -> Result<(), Bad> {
        let mut scope = Scope::default();
        json.object(|key, json| self.value(json, role, key, in_ref, &mut scope))?;
        self.settle(scope);
        Ok(())
    }

    fn scalar(&mut self, role: Role, key: &str, in_ref: bool, at: Range<usize>, quoted: bool, scope: &mut Scope) {
        let token = &self.text[at.clone()];
        let id = || TweetId::parse(token).map(|id| id.0);
        match field(self.provider, role, key) {
            Field::OwnId => {
                let Some(id) = id().filter(|_| !self.facts.follows()) else { return };
                scope.id = scope.id.or(Some((id, self.facts.scheme(id, in_ref))));
                scope.ids.push(at);
            }
            Field::EnvelopeId if id().is_some() && id() == self.facts.tweet_id => self.id(at, in_ref),
            Field::OtherId => self.id(at, in_ref),
            Field::OwnDate => scope.dates.push(at),
            Field::Stamp => self.stamp(at),
            Field::Topic => self.topic(at),
            Field::EnvelopeId => {}
            Field::Other if quoted => self.addresses(at),
            Field::Other => {}
        }
    }

    /// Moves what an object says of its own post, all or nothing.
    fn settle(&mut self, scope: Scope) {
        let millis = scope.id.and_then(|(id, scheme)| scheme.millis(id));
        let mut edits = Vec::new();
        for at in scope.ids {
            let Some(id) = TweetId::parse(&self.text[at.clone()]) else { continue };
            let scheme = scope.id.map_or(Scheme::Snowflake, |(_, scheme)| scheme);
            match (self.ids)(id.0, scheme) {
                Moved::To(new) => edits.push((at, new.to_string(), Some(id.0))),
                Moved::Stays => {}
                Moved::Beyond => return,
            }
        }
        for at in scope.dates.into_iter().filter(|_| self.by_ms.is_some()) {
            match moved_time(&self.text[at.clone()], self.by_ms.unwrap_or(0), millis) {
                Moved::To(new) => edits.push((at, new, None)),
                Moved::Stays => {}
                Moved::Beyond => return,
            }
        }
        for (at, new, id) in edits {
            self.moved.extend(id);
            self.edits.push(at, new);
        }
    }

    fn id(&mut self, at: Range<usize>, in_ref: bool) {
        let Some(id) = TweetId::parse(&self.text[at.clone()]) else { return };
        if let Moved::To(new) = (self.ids)(id.0, self.facts.scheme(id.0, in_ref)) {
            self.moved.insert(id.0);
            self.edits.push(at, new.to_string());
        }
    }

    fn stamp(&mut self, at: Range<usize>) {
        if let Some(by_ms) = self.by_ms
            && let Moved::To(new) = moved_time(&self.text[at.clone()], by_ms, None)
        {
            self.edits.push(at, new);
        }
    }

    /// `/tweet_engagement/<id>`; the slashes may be escaped.
    fn topic(&mut self, at: Range<usize>) {
        let topic = &self.text[at.clone()];
        if topic.contains("tweet_engagement") {
            let digits = topic.len() - topic.trim_end_matches(|c: char| c.is_ascii_digit()).len();
            self.id(at.end - digits..at.end, false);
        }
    }

    fn addresses(&mut self, at: Range<usize>) {
        let text = self.text;
        for found in post_addresses(&text[at.clone()]) {
            let place = at.start + found.digits.start..at.start + found.digits.end;
            let Some(id) = TweetId::parse(&text[place.clone()]) else { continue };
            match found.host {
                Host::X => {
                    if let Moved::To(new) = (self.ids)(id.0, Scheme::Snowflake) {
                        self.edits.push(place, new.to_string());
                    }
                }
                Host::TruthSocial => {
                    if let Moved::To(new) = (self.ids)(id.0, Scheme::Mastodon) {
                        self.edits.push(place, new.to_string());
                    }
                }
                Host::Other => self.links.push((place, id.0)),
            }
        }
    }

    fn follow_links(&mut self) {
        for (at, id) in std::mem::take(&mut self.links) {
            if self.moved.contains(&id)
                && let Moved::To(new) = (self.ids)(id, self.facts.scheme(id, false))
            {
                self.edits.push(at, new.to_string());
            }
        }
    }
}

impl Role {
    /// Entering the value of `key`; the top of the text has no key.
    pub(super) fn entered(self, key: &str) -> Self {
        if key.is_empty() { self } else { self.inside(key) }
    }
}

/// Whose pages an address leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Host {
    X,
    TruthSocial,
    Other,
}

/// An address of a post inside a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) host: Host,
    /// Where its id stands.
    pub(super) digits: Range<usize>,
}

/// Addresses of posts (`…/status/<digits>`, `…/statuses/…`, `…/posts/…`) in a text whose slashes may be escaped.
pub(super) fn post_addresses(text: &str) -> Vec<Address> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    for word in ["status", "posts"] {
        for (start, _) in text.match_indices(word) {
            let mut at = start + word.len();
            if word == "status" && bytes[at..].starts_with(b"es") {
                at += 2;
            }
            at += usize::from(bytes.get(at) == Some(&b'\\'));
            if start == 0 || bytes[start - 1] != b'/' || bytes.get(at) != Some(&b'/') {
                continue;
            }
            let digits = at + 1..at + 1 + bytes[at + 1..].iter().take_while(|b| b.is_ascii_digit()).count();
            let host = host_before(&text[..start]);
            if !digits.is_empty() && (word == "status" || host == Host::TruthSocial) {
                found.push(Address { host, digits });
            }
        }
    }
    found
}

/// The host of an address that ends here, at most three steps up.
fn host_before(path: &str) -> Host {
    let address = path.rsplit(|c: char| c.is_whitespace() || "\"'()<>,".contains(c)).next().unwrap_or_default();
    let steps = address.split('/').map(|step| step.trim_end_matches('\\'));
    let host = steps.rev().skip(1).take(4).find(|step| step.contains('.') && !step.starts_with('@'));
    let host = host.unwrap_or_default().to_ascii_lowercase();
    let is = |name: &str| host == name || host.strip_suffix(name).is_some_and(|sub| sub.ends_with('.'));
    match () {
        () if is("x.com") || is("twitter.com") => Host::X,
        () if is("truthsocial.com") => Host::TruthSocial,
        () => Host::Other,
    }
}

/// A time in any form that providers write, moved; `id_ms` is what the post's id says.
///
/// Forms that cannot tell milliseconds follow the id, if they agree with it now. Otherwise they move by the whole units
/// in the delta, rounded towards zero, so that the way back ends where it began.
fn moved_time(token: &str, by_ms: i64, id_ms: Option<i64>) -> Moved<String> {
    if !token.is_empty() && token.bytes().all(|b| b.is_ascii_digit()) {
        return moved_number(token, by_ms, id_ms);
    }
    match token.as_bytes() {
        [b'0'..=b'9', ..] => moved_iso(token, by_ms, id_ms),
        [b'A'..=b'Z', ..] => moved_legacy(token, by_ms, id_ms),
        _ => Moved::Stays,
    }
}

/// A count of units of `unit_ms` since 1970.
fn moved_units(units: i64, unit_ms: i64, by_ms: i64, id_ms: Option<i64>) -> Option<i64> {
    match id_ms.filter(|id_ms| unit_ms > 1 && id_ms.div_euclid(unit_ms) == units) {
        Some(id_ms) => Some(id_ms.checked_add(by_ms)?.div_euclid(unit_ms)),
        None => units.checked_add(by_ms / unit_ms),
    }
}

/// Unix seconds, milliseconds or microseconds, told apart by their size: years 1973 to 5138.
fn moved_number(token: &str, by_ms: i64, id_ms: Option<i64>) -> Moved<String> {
    const SECONDS: Range<i64> = 100_000_000..100_000_000_000;
    const MILLIS: Range<i64> = 100_000_000_000..100_000_000_000_000;
    const MICROS: Range<i64> = 100_000_000_000_000..100_000_000_000_000_000;
    let Ok(value) = token.parse::<i64>() else { return Moved::Stays };
    let (moved, range) = match value {
        v if SECONDS.contains(&v) => (moved_units(v, 1_000, by_ms, id_ms), SECONDS),
        v if MILLIS.contains(&v) => (v.checked_add(by_ms), MILLIS),
        v if MICROS.contains(&v) => (by_ms.checked_mul(1_000).and_then(|by| v.checked_add(by)), MICROS),
        _ => return Moved::Stays,
    };
    moved
        .filter(|moved| range.contains(moved) && !token.starts_with('0'))
        .map_or(Moved::Beyond, |moved| Moved::To(moved.to_string()))
}

/// The years that a calendar date can be written in.
const CALENDAR: Range<i64> = -62_167_219_200_000_000..253_402_300_800_000_000;

/// `2025-09-10T17:28:07[.digits][offset]`: the clock on the wall moves, the offset and the number of digits stay.
fn moved_iso(token: &str, by_ms: i64, id_ms: Option<i64>) -> Moved<String> {
    if !token.is_ascii() || token.len() < 19 || !matches!(token.as_bytes()[10], b'T' | b't' | b' ') {
        return Moved::Stays;
    }
    let (clock, rest) = token.split_at(19);
    let digits = rest.strip_prefix('.').map_or("", |rest| {
        let n = rest.bytes().take_while(u8::is_ascii_digit).count();
        &rest[..n]
    });
    let after = &rest[if digits.is_empty() { 0 } else { digits.len() + 1 }..];
    let is_offset = |text: &str| {
        text.starts_with(['+', '-'])
            && text[1..].bytes().all(|b| b.is_ascii_digit() || b == b':')
            && (3..=6).contains(&text.len())
    };
    if !(after.is_empty() || after.eq_ignore_ascii_case("z") || is_offset(after)) {
        return Moved::Stays;
    }
    let kept = digits.len().min(6);
    let fixed = format!("{}T{}.{:0<6}Z", &clock[..10], &clock[11..], &digits[..kept]);
    let Some(wall) = UnixMicros::parse_fixed(fixed.as_bytes()) else { return Moved::Stays };
    let utc = matches!(after, "" | "Z" | "z" | "+00:00" | "+0000" | "+00" | "-00:00");
    let Some(moved) = moved_wall(wall, kept, by_ms, id_ms.filter(|_| utc)) else { return Moved::Beyond };
    let mut text = [0; 27];
    moved.write_rfc3339(&mut text);
    let part = |range: Range<usize>| std::str::from_utf8(&text[range]).unwrap_or_default();
    let point = if digits.is_empty() { "" } else { "." };
    Moved::To([part(0..10), &clock[10..11], part(11..19), point, part(20..20 + kept), &digits[kept..], after].concat())
}

/// A clock on the wall that shows so many digits after the second.
fn moved_wall(wall: UnixMicros, digits: usize, by_ms: i64, id_ms: Option<i64>) -> Option<UnixMicros> {
    let unit_ms = match digits {
        0 => 1_000,
        1 => 100,
        2 => 10,
        _ => 1,
    };
    let moved = match unit_ms {
        1 => wall.0.checked_add(by_ms.checked_mul(1_000)?)?,
        _ => moved_units(wall.0.div_euclid(unit_ms * 1_000), unit_ms, by_ms, id_ms)?.checked_mul(unit_ms * 1_000)?,
    };
    CALENDAR.contains(&moved).then_some(UnixMicros(moved))
}

const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

fn weekday(at: UnixMicros) -> &'static str {
    DAYS[(at.day() + 4).rem_euclid(7) as usize]
}

/// `Wed Sep 10 17:28:07 +0000 2025`
fn moved_legacy(token: &str, by_ms: i64, id_ms: Option<i64>) -> Moved<String> {
    let parts: Vec<&str> = token.split(' ').collect();
    let [day, month, date, clock, offset, year] = parts[..] else { return Moved::Stays };
    let Some(number) = MONTHS.iter().position(|name| *name == month) else { return Moved::Stays };
    let fixed = format!("{year}-{:02}-{date}T{clock}.000000Z", number + 1);
    let Some(wall) = UnixMicros::parse_fixed(fixed.as_bytes()) else { return Moved::Stays };
    // A date that contradicts itself could not be found again on the way back.
    if weekday(wall) != day {
        return Moved::Stays;
    }
    let Some(moved) = moved_wall(wall, 0, by_ms, id_ms.filter(|_| offset == "+0000")) else { return Moved::Beyond };
    let mut text = [0; 27];
    moved.write_rfc3339(&mut text);
    let part = |range: Range<usize>| std::str::from_utf8(&text[range]).unwrap_or_default();
    let month = MONTHS[part(5..7).parse::<usize>().map_or(0, |month| month - 1)];
    Moved::To(format!("{} {month} {} {} {offset} {}", weekday(moved), part(8..10), part(11..19), part(0..4)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests;
