//! Making envelopes fit to be shown: the people and the words go, the shapes stay.
//!
//! Owns which fields hold what a person said, is called or is known by, for all four providers, and what is put in
//! their place. A stand-in is made from the thing itself with a secret key: the same handle becomes the same stand-in in
//! every field, text, address and topic of every provider, so that joins and searches still work, and without the key
//! nobody can try names out. Lengths in characters stay, so that positions of entities and sizes stay true.
//!
//! | class | stands in for |
//! | --- | --- |
//! | `handles` | account names, in fields, mentions, addresses of X and queries; also bare in texts, once [`learned`](Redactor::learn) |
//! | `names` | display names |
//! | `text` | words of posts, read pictures, hashtags, tokens |
//! | `urls` | addresses but those of posts |
//! | `media` | addresses and ids of pictures and films |
//! | `user_ids` | ids of accounts and conversations; digits of the same number |
//! | `post_ids` | the part of a post's id that does not tell its time |
//! | `bios` | descriptions and places of accounts |
//! | `rules` | what the operator watches: queries, tags, names of monitors |
//!
//! Ids of sessions, connections and keys always go. What stays tells something still: when, how much, how long, in which
//! language, with which punctuation. Equal words have equal stand-ins, so common words can be guessed by their frequency.
//! Only what is replaced is written anew; every other byte stays.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ops::Range;
use std::str::FromStr;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::Provider;
use super::shift::{self, Edits, Facts, Role, Scheme};
use crate::model::json::{self, Bad, Json, Kind};
use crate::model::{Secret, TweetId, UnixMicros, parse_legacy_date};

/// A sort of thing that can be redacted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Account names.
    Handles,
    /// Display names.
    Names,
    /// Words of posts.
    Text,
    /// Addresses.
    Urls,
    /// Pictures and films.
    Media,
    /// Ids of accounts.
    UserIds,
    /// Ids of posts, but their time.
    PostIds,
    /// What accounts say of themselves.
    Bios,
    /// What the operator watches.
    Rules,
}

impl Class {
    /// All classes.
    pub const ALL: [Self; 9] =
        [Self::Handles, Self::Names, Self::Text, Self::Urls, Self::Media, Self::UserIds, Self::PostIds, Self::Bios, Self::Rules];

    /// The word on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Handles => "handles",
            Self::Names => "names",
            Self::Text => "text",
            Self::Urls => "urls",
            Self::Media => "media",
            Self::UserIds => "user_ids",
            Self::PostIds => "post_ids",
            Self::Bios => "bios",
            Self::Rules => "rules",
        }
    }
}

/// What to redact.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Redaction(BTreeSet<Class>);

impl Redaction {
    /// Everything.
    pub fn all() -> Self {
        Self(Class::ALL.into())
    }

    /// The classes, in their order.
    pub fn classes(&self) -> impl Iterator<Item = Class> + '_ {
        self.0.iter().copied()
    }

    fn has(&self, class: Class) -> bool {
        self.0.contains(&class)
    }
}

/// A word that names no class.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{word}` cannot be redacted; known are handles, names, text, urls, media, user_ids, post_ids, bios, rules, or all")]
pub struct UnknownClass {
    /// What was written.
    pub word: String,
}

impl FromStr for Redaction {
    type Err = UnknownClass;

    /// Reads `all` or names of classes with commas between them.
    fn from_str(text: &str) -> Result<Self, UnknownClass> {
        let mut classes = BTreeSet::new();
        for word in text.split(',').map(str::trim) {
            if word == "all" {
                classes.extend(Class::ALL);
                continue;
            }
            let class = Class::ALL.into_iter().find(|class| class.name() == word);
            classes.insert(class.ok_or_else(|| UnknownClass { word: word.to_owned() })?);
        }
        Ok(Self(classes))
    }
}

/// Shorter handles are only known by an `@` or their field: as bare words they are too common.
const BARE_HANDLE: usize = 4;

/// Shorter numbers in addresses are pages and sizes, not ids.
const ID_DIGITS: usize = 5;

/// Redacts envelopes with one key.
#[derive(Debug)]
pub struct Redactor {
    redaction: Redaction,
    key: Secret,
    handles: BTreeSet<String>,
    user_ids: BTreeSet<String>,
}

impl Redactor {
    /// A redactor; who knows the key can test a guess, so it must be kept or forgotten, never published.
    pub fn new(redaction: Redaction, key: Secret) -> Self {
        Self { redaction, key, handles: BTreeSet::new(), user_ids: BTreeSet::new() }
    }

    /// Remembers the handles and account ids in an envelope's fields, so that they are found elsewhere without an `@`.
    ///
    /// What an envelope becomes depends on what was learned: learn all before redacting the first.
    pub fn learn(&mut self, provider: Provider, envelope: &Bytes) {
        let mut learn = |field: What, text: &str| match field {
            What::Handle => {
                let handle = text.trim_start_matches('@').to_lowercase();
                if handle.len() >= BARE_HANDLE && handle.bytes().all(is_ident) {
                    self.handles.insert(handle);
                }
            }
            What::UserId => {
                let runs = text.split(|c: char| !c.is_ascii_digit()).filter(|run| run.len() >= ID_DIGITS);
                self.user_ids.extend(runs.map(str::to_owned));
            }
            _ => {}
        };
        // What is broken has no fields.
        visit(provider, envelope, &mut |what, _, _, text| learn(what, text)).ok();
    }

    /// An envelope without what is to be redacted; bytes that are no JSON are emptied of letters and digits altogether.
    pub fn envelope(&self, provider: Provider, envelope: &Bytes) -> Bytes {
        let mut edits = Edits::default();
        let visited = visit(provider, envelope, &mut |what, at, quoted, text| {
            let new = if quoted { self.field(what, text) } else { self.number(what, text) };
            if new != text {
                let raw_is_ascii = quoted && envelope.get(at.clone()).is_some_and(<[u8]>::is_ascii);
                edits.push(at, if quoted { escaped(&new, raw_is_ascii) } else { new });
            }
        });
        let Ok(()) = visited else { return self.blanked(envelope) };
        let done = edits.apply(envelope, 0);
        if !self.redaction.has(Class::PostIds) {
            return done;
        }
        shift::map_post_ids(provider, &done, &|id, scheme| self.post_id(id, scheme))
    }

    /// The stand-in for a handle, without `@`: as long, of `a-z0-9`, the same for any writing of it.
    pub fn handle(&self, handle: &str) -> String {
        let folded = handle.to_lowercase();
        let mut chance = Chance::new(&self.key, "handle", &folded);
        let first = char::from(b'a' + chance.below(26));
        let rest =
            (1..handle.chars().count()).map(|_| char::from(b"abcdefghijklmnopqrstuvwxyz0123456789"[chance.below(36) as usize]));
        std::iter::once(first).chain(rest.collect::<Vec<_>>()).collect()
    }

    fn has(&self, class: Class) -> bool {
        self.redaction.has(class)
    }

    fn number(&self, what: What, digits: &str) -> String {
        match what {
            What::UserId if self.has(Class::UserIds) => self.id(digits),
            What::Born if self.has(Class::UserIds) => year_of_stamp(digits),
            _ => digits.to_owned(),
        }
    }

    fn field(&self, what: What, text: &str) -> String {
        match what {
            What::Handle if !self.has(Class::Handles) => text.to_owned(),
            What::Handle => self.handle_field(text),
            What::UserId if self.has(Class::UserIds) => self.digit_runs(text, 1),
            What::Born if self.has(Class::UserIds) => year_of_date(text),
            What::UserId | What::Born => text.to_owned(),
            What::MediaId if self.has(Class::Media) => self.digit_runs(text, ID_DIGITS),
            What::MediaId | What::Structure => text.to_owned(),
            What::Session => self.session(text),
            What::Media => self.address(text, self.has(Class::Media)),
            What::Url if looks_like_address(text) => self.address(text, self.has(Class::Urls)),
            What::Url => self.words(text, self.has(Class::Text), false),
            What::Name => self.words(text, self.has(Class::Names), false),
            What::Text => self.words(text, self.has(Class::Text), false),
            What::Bio => self.words(text, self.has(Class::Bios), false),
            What::Rule => self.words(text, self.has(Class::Rules), true),
            What::Topic if text.starts_with("/dm_") && self.has(Class::UserIds) => self.digit_runs(text, 1),
            What::Topic => text.to_owned(),
            What::Unknown if looks_like_address(text) && text.contains("://") => self.address(text, self.has(Class::Urls)),
            What::Unknown => self.words(text, false, false),
        }
    }

    fn handle_field(&self, text: &str) -> String {
        let bare = text.trim_start_matches('@');
        let at = &text[..text.len() - bare.len()];
        if bare.is_empty() || bare.contains(char::is_whitespace) {
            return self.words(text, true, false);
        }
        format!("{at}{}", self.handle(bare))
    }

    /// A text, word by word. `replace` says whether its words go; handles, addresses and ids in it go by their own classes.
    fn words(&self, text: &str, replace: bool, query: bool) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        let mut before = ' ';
        let mut after_operator = false;
        while let Some(c) = rest.chars().next() {
            let n = match () {
                () if rest.starts_with("http://") || rest.starts_with("https://") => {
                    let n = rest.find(|c: char| c.is_whitespace() || "\"<>".contains(c)).unwrap_or(rest.len());
                    out += &self.address(&rest[..n], self.has(Class::Urls));
                    n
                }
                () if c == '@' && !before.is_alphanumeric() && rest[1..].bytes().next().is_some_and(is_ident) => {
                    let n = ident(&rest[1..]);
                    let handle = &rest[1..=n];
                    out.push('@');
                    out += &if self.has(Class::Handles) { self.handle(handle) } else { handle.to_owned() };
                    n + 1
                }
                // The mark of a repeated post is no word of it.
                () if out.is_empty() && rest.starts_with("RT @") => {
                    out += "RT";
                    2
                }
                () if is_word(c) || c == '_' => {
                    let n = self.word(rest, (replace, query && after_operator), query, &mut out);
                    after_operator = is_operator(&rest[..n]) && rest[n..].starts_with(':');
                    n
                }
                () => {
                    out.push(c);
                    after_operator &= c == ':';
                    c.len_utf8()
                }
            };
            before = rest[..n].chars().next_back().unwrap_or(' ');
            rest = &rest[n..];
        }
        out
    }

    /// One word at the start of `rest`; gives its length.
    fn word(&self, rest: &str, (replace, names_account): (bool, bool), query: bool, out: &mut String) -> usize {
        let n = ident(rest);
        let whole = &rest[..n];
        // A run of ASCII that goes on in another script is no handle.
        let alone = n > 0 && !rest[n..].chars().next().is_some_and(is_word);
        if alone && self.has(Class::Handles) && (names_account || self.handles.contains(&whole.to_lowercase())) {
            *out += &self.handle(whole);
            return n;
        }
        if alone && self.has(Class::UserIds) && self.user_ids.contains(whole) {
            *out += &self.id(whole);
            return n;
        }
        if query && alone && (is_operator(whole) || matches!(whole, "OR" | "AND" | "NOT")) {
            *out += whole;
            return n;
        }
        let n = rest.find(|c: char| !is_word(c)).unwrap_or(rest.len());
        if n == 0 {
            // An underscore joins words and is none.
            out.push('_');
            return 1;
        }
        if replace {
            *out += &self.pseudo_word(&rest[..n]);
            return n;
        }
        // Kept: the whole run, so that a part of it is not taken for a handle.
        let n = n.max(ident(rest));
        *out += &rest[..n];
        n
    }

    /// As many characters, digits for digits, capitals for capitals, never the word itself.
    fn pseudo_word(&self, word: &str) -> String {
        const ROUND: &[u8] = b"aeiou";
        const HARD: &[u8] = b"bdfghjklmnprstvz";
        let folded = word.to_lowercase();
        for turn in 0..8u8 {
            let mut chance = Chance::new(&self.key, &format!("word {turn}"), &folded);
            let mut vowel = chance.below(2) == 0;
            let made: String = word
                .chars()
                .map(|c| {
                    vowel = !vowel;
                    let letters = if vowel { ROUND } else { HARD };
                    match c {
                        '0'..='9' => char::from(b'0' + chance.below(10)),
                        _ => {
                            let letter = char::from(letters[chance.below(letters.len() as u8) as usize]);
                            if c.is_uppercase() { letter.to_ascii_uppercase() } else { letter }
                        }
                    }
                })
                .collect();
            if made != word {
                return made;
            }
        }
        "x".repeat(word.chars().count())
    }

    /// An address, with or without scheme. With `hide` its host and path go too, unless they are X's own.
    fn address(&self, address: &str, hide: bool) -> String {
        let (scheme, rest) = address.split_once("://").map_or(("", address), |(scheme, rest)| (scheme, rest));
        let colon = if scheme.is_empty() { "" } else { "://" };
        let (host, path) = rest.find(['/', '?', '#']).map_or((rest, ""), |at| rest.split_at(at));
        let known = host.to_ascii_lowercase();
        let is = |name: &str| known == name || known.strip_suffix(name).is_some_and(|sub| sub.ends_with('.'));
        let path = match () {
            () if known.starts_with("pic.") => self.slugs(path, hide),
            () if is("x.com") || is("twitter.com") || is("truthsocial.com") => self.account_path(path, hide),
            () => self.slugs(path, hide),
        };
        let ours = ["x.com", "twitter.com", "twimg.com", "t.co", "truthsocial.com"];
        let host = if !hide || ours.into_iter().any(is) { self.slugs(host, false) } else { self.host(&known) };
        format!("{scheme}{colon}{host}{path}")
    }

    /// A host that leads nowhere, of the same length: below `.invalid` (RFC 2606), or, too short for that, a single label.
    fn host(&self, host: &str) -> String {
        let n = host.chars().count();
        let end = if n > ".invalid".len() { ".invalid" } else { "" };
        let mut chance = Chance::new(&self.key, "host", host);
        (end.len()..n).map(|_| char::from(b'a' + chance.below(26))).chain(end.chars()).collect()
    }

    /// `/handle/status/id`, `/handle`: the id stays, the handle goes by its class.
    fn account_path(&self, path: &str, hide: bool) -> String {
        const OWN_PAGES: [&str; 8] = ["i", "intent", "share", "hashtag", "search", "home", "explore", "web"];
        let (steps, query) = path.find(['?', '#']).map_or((path, ""), |at| path.split_at(at));
        let mut out = String::with_capacity(path.len());
        for (place, step) in steps.split('/').enumerate() {
            if place > 0 {
                out.push('/');
            }
            let bare = step.trim_start_matches('@');
            let is_account = place == 1 && !bare.is_empty() && bare.bytes().all(is_ident) && !OWN_PAGES.contains(&bare);
            match is_account && self.has(Class::Handles) {
                true => {
                    out += &step[..step.len() - bare.len()];
                    out += &self.handle(bare);
                }
                // Below an account stand words of X's own and ids of posts.
                false if place == 1 || step.bytes().all(|b| b.is_ascii_digit()) => out += step,
                false => out += &self.slugs(step, hide && !matches!(step, "status" | "statuses" | "posts" | "photo" | "video")),
            }
        }
        out + &self.slugs(query, hide)
    }

    /// Runs of letters and digits in a path; the words of X's own file store stay.
    fn slugs(&self, path: &str, hide: bool) -> String {
        const STORE: [&str; 21] = [
            "media", "profile", "images", "banners", "sticky", "default", "normal", "bigger", "ext", "tw", "video", "thumb",
            "pu", "vid", "tweet", "clip", "jpg", "png", "mp4", "m3u8", "gif",
        ];
        let mut out = String::with_capacity(path.len());
        let mut rest = path;
        while let Some(c) = rest.chars().next() {
            let whole = ident(rest);
            let known = &rest[..whole];
            if whole > 0 && self.has(Class::Handles) && self.handles.contains(&known.to_lowercase()) {
                out += &self.handle(known);
                rest = &rest[whole..];
                continue;
            }
            let n = rest.find(|c: char| !is_word(c)).unwrap_or(rest.len());
            if n == 0 {
                out.push(c);
                rest = &rest[c.len_utf8()..];
                continue;
            }
            let (run, after) = rest.split_at(n);
            let digits = run.bytes().all(|b| b.is_ascii_digit());
            let listed = digits && self.has(Class::UserIds) && self.user_ids.contains(run);
            match () {
                () if listed || digits && hide && n >= ID_DIGITS => out += &self.id(run),
                () if !hide || digits || STORE.contains(&run) => out += run,
                () => out += &self.slug(run),
            }
            rest = after;
        }
        out
    }

    fn slug(&self, run: &str) -> String {
        let mut chance = Chance::new(&self.key, "slug", run);
        let mut letter = |c: char| match c {
            '0'..='9' => char::from(b'0' + chance.below(10)),
            _ if c.is_uppercase() => char::from(b'A' + chance.below(26)),
            _ => char::from(b'a' + chance.below(26)),
        };
        run.chars().map(&mut letter).collect()
    }

    /// Ids of keys, connections and sessions: hexadecimal stays hexadecimal.
    fn session(&self, text: &str) -> String {
        let mut chance = Chance::new(&self.key, "session", text);
        let mut letter = |c: char| match c {
            '0'..='9' | 'a'..='f' => char::from(b"0123456789abcdef"[chance.below(16) as usize]),
            _ if c.is_alphanumeric() => char::from(b'g' + chance.below(20)),
            _ => c,
        };
        text.chars().map(&mut letter).collect()
    }

    fn digit_runs(&self, text: &str, shortest: usize) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while !rest.is_empty() {
            let n = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (run, after) = rest.split_at(n);
            out += &if n >= shortest && n > 0 { self.id(run) } else { run.to_owned() };
            let n = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
            out += &after[..n];
            rest = &after[n..];
        }
        out
    }

    /// Another id of as many digits. No two ids get the same one.
    fn id(&self, digits: &str) -> String {
        let Some(id) = TweetId::parse(digits).map(|id| id.0).filter(|_| !digits.starts_with('0')) else {
            return self.slug(digits);
        };
        let (first, last) = match digits.len() {
            20 => (10_000_000_000_000_000_000, u64::MAX),
            19 if id > i64::MAX as u64 => (i64::MAX as u64 + 1, 9_999_999_999_999_999_999),
            19 => (1_000_000_000_000_000_000, i64::MAX as u64),
            n => (10u64.pow(n as u32 - 1), 10u64.pow(n as u32) - 1),
        };
        (first + self.permuted("id", last - first, id - first)).to_string()
    }

    fn post_id(&self, id: u64, scheme: Scheme) -> u64 {
        let bits = scheme.low_bits();
        let time = id >> bits << bits;
        let low = (1u64 << bits) - 1;
        time | self.permuted(&format!("post {time}"), low, id & low)
    }

    /// A place among 0 to `last`, one to one: a Feistel network, walked until it lands inside.
    fn permuted(&self, domain: &str, last: u64, value: u64) -> u64 {
        let half = (64 - last.leading_zeros()).max(2).div_ceil(2);
        let mask = (1u64 << half) - 1;
        let mut value = value;
        // Ends, since a permutation of the larger range returns to where it began, which is inside.
        loop {
            let (mut left, mut right) = (value >> half, value & mask);
            for round in 0..6 {
                let made = Chance::new(&self.key, domain, &format!("{last} {round} {right}")).word();
                (left, right) = (right, left ^ made & mask);
            }
            value = left << half | right;
            if value <= last {
                return value;
            }
        }
    }

    /// Bytes that cannot be understood could hold anything.
    fn blanked(&self, bytes: &Bytes) -> Bytes {
        let blank = |b: &u8| if b.is_ascii_alphanumeric() || !b.is_ascii() { b'x' } else { *b };
        bytes.iter().map(blank).collect::<Vec<_>>().into()
    }
}

/// Bytes from a key and a thing, without end.
struct Chance {
    seed: [u8; 32],
    block: [u8; 32],
    at: usize,
    n_blocks: u64,
}

impl Chance {
    fn new(key: &Secret, domain: &str, thing: &str) -> Self {
        let mut inner = Sha256::new();
        for part in [key.expose(), domain, thing] {
            inner.update((part.len() as u64).to_le_bytes());
            inner.update(part.as_bytes());
        }
        // Hashed twice with the key, so that nothing can be appended to what was hashed.
        let mut outer = Sha256::new();
        outer.update(key.expose().as_bytes());
        outer.update(inner.finalize());
        let seed: [u8; 32] = outer.finalize().into();
        Self { seed, block: seed, at: 0, n_blocks: 0 }
    }

    fn byte(&mut self) -> u8 {
        if self.at == self.block.len() {
            self.n_blocks += 1;
            let mut next = Sha256::new();
            next.update(self.seed);
            next.update(self.n_blocks.to_le_bytes());
            (self.block, self.at) = (next.finalize().into(), 0);
        }
        self.at += 1;
        self.block[self.at - 1]
    }

    /// Below `n`, which is at least 1; two bytes make the favour to small numbers small.
    fn below(&mut self, n: u8) -> u8 {
        let drawn = u16::from_le_bytes([self.byte(), self.byte()]);
        (drawn % u16::from(n)) as u8
    }

    fn word(&mut self) -> u64 {
        u64::from_le_bytes(std::array::from_fn(|_| self.byte()))
    }
}

/// What a scalar field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Handle,
    Name,
    Text,
    Bio,
    Rule,
    Url,
    Media,
    MediaId,
    UserId,
    /// When an account was made: to the second, that names it.
    Born,
    Session,
    Topic,
    /// Words of the protocol, times, ids of others: stays.
    Structure,
    /// Nobody knows: addresses and learned handles in it go.
    Unknown,
}

fn what(role: Role, key: &str, follows: bool) -> What {
    match key {
        "api_key_id" | "connection_id" | "session_id" | "api_key" | "key_id" => What::Session,
        "topic" => What::Topic,
        "joinedAt" | "user_created_at" => What::Born,
        "createdAt" | "created_at" if role == Role::Person => What::Born,
        "userName"
        | "screen_name"
        | "handle"
        | "username"
        | "author_username"
        | "inReplyToUsername"
        | "automatedBy"
        | "in_reply_to_screen_name"
        | "in_reply_to_username"
        | "twitterHandle"
        | "normalizedHandle"
        | "x_user_screen_name"
        | "user_username"
        | "usernames"
        | "handles"
        | "mentions"
        | "input" => What::Handle,
        "display_name" | "user_name" | "x_user_name" => What::Name,
        "name" if role == Role::Person => What::Name,
        "name" | "display_url" | "tco" if role == Role::Link => What::Url,
        "text" | "tweet_text" | "full_text" | "body" | "title" | "symbol" | "name" | "contract" | "address" | "baseAsset"
        | "hashtags" | "alt_text" | "ext_alt_text" | "preview_text" | "string_value" | "label" | "marketId" => What::Text,
        "description" | "bio" | "location" | "full_name" => What::Bio,
        "rule_value" | "rule_tag" | "monitor_name" | "query" | "tag" => What::Rule,
        "media_url_https"
        | "media_url"
        | "thumbnail"
        | "profileImage"
        | "profilePicture"
        | "coverPicture"
        | "banner"
        | "avatar"
        | "preview_image_url"
        | "profile_image_url"
        | "profile_image_url_https"
        | "profile_banner_url"
        | "media" => What::Media,
        "media_key" => What::MediaId,
        "id" | "id_str" if role == Role::Media => What::MediaId,
        "expanded_url" | "display_url" => What::Url,
        "url" if role == Role::Media => What::Media,
        "url" | "twitterUrl" | "link" | "tweet_url" | "unwound_url" | "tco" | "websiteUrl" => What::Url,
        "id" | "id_str" | "rest_id" if role == Role::Person => What::UserId,
        "id" if follows && role == Role::Post => What::UserId,
        "userId" | "twitterId" | "author_id" | "authorId" | "sender_id" | "recipient_id" => What::UserId,
        "conversation_id" if role != Role::Post => What::UserId,
        _ if ["user_id", "UserId", "user_id_str"].iter().any(|end| key.ends_with(end)) => What::UserId,
        "type" | "event" | "event_type" | "op" | "t" | "kind" | "source" | "lang" | "platform" | "state" | "verifiedType"
        | "tweet_type" | "exchange" | "chain" | "action" | "quoteAsset" | "sources" | "id" | "id_str" | "tweetId"
        | "tweet_id" | "createdAt" | "created_at" | "detected_at" | "tweet_published_at" | "timestamp" | "rule_id"
        | "monitor_id" | "eventId" | "requestId" | "content_type" | "conversationId" | "inReplyToId" => What::Structure,
        _ => What::Unknown,
    }
}

/// The beginning of the year of a date in either of the providers' forms; another form goes altogether.
fn year_of_date(text: &str) -> String {
    let at = parse_legacy_date(text).or_else(|| UnixMicros::parse_rfc3339(text));
    let Some(year) = at.and_then(|at| at.date().get(..4)?.parse::<i16>().ok()) else { return String::new() };
    if !text.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return format!("{year:04}-01-01T00:00:00.000Z");
    }
    let first = jiff::civil::date(year, 1, 1);
    first.to_zoned(jiff::tz::TimeZone::UTC).map_or(String::new(), |first| first.strftime("%a %b %d %H:%M:%S %z %Y").to_string())
}

/// The beginning of the year of a stamp in milliseconds; a number that is none becomes 0.
fn year_of_stamp(digits: &str) -> String {
    let at = digits.parse().ok().map(UnixMicros::from_millis);
    let start = at.and_then(|at| UnixMicros::parse_rfc3339(&format!("{}-01-01T00:00:00Z", at.date().get(..4)?)));
    start.map_or(0, UnixMicros::millis).to_string()
}

/// Takes what a scalar is, where it stands in the bytes (without quotes), whether it is a string, and its text.
type Each<'e> = &'e mut dyn FnMut(What, Range<usize>, bool, &str);

/// Calls `each` with every string and number: what it is, where it stands in the bytes (without quotes), whether it is a
/// string, and its text without escapes.
fn visit(provider: Provider, bytes: &Bytes, each: Each<'_>) -> Result<(), Bad> {
    let not_json = Bad { at: 0, what: "not an object or array" };
    let (text, base) = shift::inner(bytes).ok_or(not_json)?;
    let follows = Facts::read(provider, text)?.follows();
    let mut walk = Walk { base, follows, each };
    let mut json = Json::new(text);
    walk.value(&mut json, Role::Envelope, "")?;
    json.finish()
}

struct Walk<'w> {
    base: usize,
    follows: bool,
    each: Each<'w>,
}

impl Walk<'_> {
    fn value(&mut self, json: &mut Json<'_>, role: Role, key: &str) -> Result<(), Bad> {
        match json.kind() {
            Kind::Object => {
                let role = role.entered(key);
                json.object(|key, json| self.value(json, role, key))
            }
            Kind::Array => json.array(|json| self.value(json, role, key)),
            Kind::String => {
                let start = json.position();
                let text = json.text()?.unwrap_or(Cow::Borrowed(""));
                let at = self.base + start + 1..self.base + json.position() - 1;
                (self.each)(what(role, key, self.follows), at, true, &text);
                Ok(())
            }
            Kind::Number => {
                let start = json.position();
                if let Some(id) = json.id()? {
                    let at = self.base + start..self.base + json.position();
                    (self.each)(what(role, key, self.follows), at, false, &id.to_string());
                }
                Ok(())
            }
            Kind::Other => json.skip(),
        }
    }
}

/// A string's inside; with nothing but ASCII where the original had nothing else.
fn escaped(text: &str, ascii: bool) -> String {
    let mut out = Vec::with_capacity(text.len());
    json::write_escaped(&mut out, text);
    let out = String::from_utf8(out).unwrap_or_default();
    if !ascii || out.is_ascii() {
        return out;
    }
    let mut plain = String::with_capacity(out.len());
    for c in out.chars() {
        if c.is_ascii() {
            plain.push(c);
        } else {
            c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| plain += &format!("\\u{unit:04x}"));
        }
    }
    plain
}

fn is_ident(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'_'
}

/// Length of the run of handle characters at the start.
fn ident(text: &str) -> usize {
    text.bytes().take_while(|b| is_ident(*b)).count()
}

/// Letters, digits, and what stands for words in other scripts or in pictures; punctuation and spaces stay.
fn is_word(c: char) -> bool {
    let punctuation =
        matches!(c, '\u{80}'..='\u{bf}' | '\u{2000}'..='\u{206f}' | '\u{3000}'..='\u{303f}' | '\u{ff00}'..='\u{ff0f}');
    c.is_alphanumeric() || !c.is_ascii() && !c.is_whitespace() && !punctuation
}

/// Words of X's search language that stand before a colon.
fn is_operator(word: &str) -> bool {
    matches!(
        word,
        "from" | "to" | "list" | "filter" | "lang" | "since_time" | "until_time" | "since" | "until" | "url" | "retweets_of"
    )
}

fn looks_like_address(text: &str) -> bool {
    let host = text.split_once("://").map_or(text, |(_, rest)| rest).split('/').next().unwrap_or_default();
    !text.contains(char::is_whitespace) && host.contains('.') && !host.starts_with('.')
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests;
