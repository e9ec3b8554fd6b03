//! Posts: their text, what they refer to, and counters that grow with age.

use std::ops::Range;
use std::sync::Arc;

use super::dice::Dice;
use super::out::Digits;
use super::people::{Author, Slug};
use super::rush::Theme;
use super::words::{self, Tongue};

/// What a post is to another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Post,
    Reply,
    Quote,
    Retweet,
}

/// Where something stands in a text.
#[derive(Clone, Debug)]
pub(super) struct Span {
    /// In code points, as entities count.
    pub(super) chars: Range<u64>,
    /// In bytes.
    pub(super) bytes: Range<usize>,
}

#[derive(Clone, Debug)]
pub(super) struct Mention {
    /// Index of the author.
    pub(super) author: usize,
    pub(super) span: Span,
}

#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) host: &'static str,
    pub(super) path: &'static str,
    pub(super) span: Span,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MediaKind {
    Photo,
    Video,
    Gif,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Media {
    pub(super) kind: MediaKind,
    pub(super) seed: u64,
}

/// A post. Never changes once made: counters are worked out from its age, and an edit is a post of its own.
#[derive(Clone, Debug)]
pub(super) struct Tweet {
    pub(super) id: u64,
    pub(super) created_ms: u64,
    /// Index of the author.
    pub(super) author: usize,
    pub(super) kind: Kind,
    pub(super) text: String,
    pub(super) n_chars: u64,
    pub(super) lang: &'static str,
    pub(super) source: &'static str,
    pub(super) hashtags: Vec<Span>,
    pub(super) links: Vec<Link>,
    pub(super) mentions: Vec<Mention>,
    pub(super) media: Vec<Media>,
    /// Indices into [`words::TOKENS`], by their cashtags in the text.
    pub(super) tokens: Vec<usize>,
    /// What it answers, quotes or repeats; such a post refers to nothing itself, so chains end here.
    pub(super) refers: Option<Arc<Tweet>>,
    /// When its author will change it, and what it then is.
    pub(super) edited: Option<(u64, Arc<Tweet>)>,
    /// The id X gave the edit, if this is one; providers keep saying the first.
    pub(super) edit_id: Option<u64>,
    /// Views per second while fresh.
    heat: u64,
    /// Likes per thousand views.
    charm: u64,
}

/// Counters of a post at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) views: u64,
    pub(super) likes: u64,
    pub(super) retweets: u64,
    pub(super) replies: u64,
    pub(super) quotes: u64,
    pub(super) bookmarks: u64,
}

impl Tweet {
    /// Writes a post for that author; `refers` must fit `kind`.
    pub(super) fn compose(
        dice: &mut Dice,
        authors: &[Author],
        author: usize,
        (id, created_ms): (u64, u64),
        (kind, refers): (Kind, Option<Arc<Tweet>>),
        theme: Option<Theme>,
    ) -> Self {
        let who = &authors[author];
        let mut tweet = Self {
            id,
            created_ms,
            author,
            kind,
            text: String::with_capacity(200),
            n_chars: 0,
            lang: who.tongue().code,
            source: words::SOURCES[dice.zipf(words::SOURCES.len())],
            hashtags: Vec::new(),
            links: Vec::new(),
            mentions: Vec::new(),
            media: Vec::new(),
            tokens: Vec::new(),
            refers,
            edited: None,
            edit_id: None,
            heat: dice.magnitude((who.followers / 500).clamp(2, 4_000)),
            charm: dice.between(5, 60),
        };
        match (kind, tweet.refers.clone()) {
            (Kind::Retweet, Some(original)) => tweet.repeat(authors, &original),
            (Kind::Reply, Some(parent)) => {
                tweet.mention(authors, parent.author);
                tweet.push(" ");
                tweet.write(dice, authors, theme);
            }
            _ => tweet.write(dice, authors, theme),
        }
        tweet
    }

    /// What the author makes of it later: the same post with a correction behind it.
    pub(super) fn corrected(&self, dice: &mut Dice, authors: &[Author], edit_id: u64) -> Self {
        let mut after = Self { edit_id: Some(edit_id), ..self.clone() };
        after.push(" (✎ ");
        after.sentence(dice, authors[self.author].tongue());
        after.push(")");
        after
    }

    /// The post as it is at that moment.
    pub(super) fn as_of(self: &Arc<Self>, now_ms: u64) -> &Arc<Self> {
        match &self.edited {
            Some((at_ms, after)) if *at_ms <= now_ms => after,
            _ => self,
        }
    }

    fn write(&mut self, dice: &mut Dice, authors: &[Author], theme: Option<Theme>) {
        match theme {
            Some(theme) => self.rush(dice, &authors[self.author], theme),
            None => self.body(dice, authors, authors[self.author].tongue()),
        }
    }

    /// Short and loud, as people write while something happens.
    fn rush(&mut self, dice: &mut Dice, author: &Author, theme: Theme) {
        self.push(dice.pick(theme.lines(author.tongue)));
        match theme {
            Theme::Token(token) => {
                self.cashtag(token);
                let change = Digits::of(dice.between(2, 480));
                self.push(&[" +", change.as_str(), " %"].concat());
            }
            Theme::Match { goals: (ours, theirs), tag } => {
                let goals = [ours + dice.between(0, 1), theirs + dice.between(0, 1)].map(Digits::of);
                self.push(&[" ", goals[0].as_str(), ":", goals[1].as_str()].concat());
                self.hashtag(tag);
            }
            Theme::News { tag } => self.hashtag(tag),
        }
        if dice.per_mille(400) {
            self.push(" ");
            self.push(dice.pick(&words::EMOJI));
        }
        if dice.per_mille(150) {
            self.link(dice);
        }
        if dice.per_mille(200) {
            self.attach(dice);
        }
    }

    /// Counters at a moment: a saturating curve over age, so they only rise.
    pub(super) fn counts(&self, now_ms: u64) -> Counts {
        const HALF_MS: u64 = 3 * 3_600_000;
        let age_ms = now_ms.saturating_sub(self.created_ms).min(30 * 86_400_000);
        let fresh_ms = age_ms * HALF_MS / (age_ms + HALF_MS);
        let views = self.heat * fresh_ms / 1_000 + 1;
        let likes = views * self.charm / 1_000;
        Counts { views, likes, retweets: likes / 5, replies: likes / 8, quotes: likes / 40, bookmarks: likes / 12 }
    }

    /// The handle as it stands in the text of a mention, without `@`.
    pub(super) fn slice(&self, span: &Span) -> &str {
        &self.text[span.bytes.clone()]
    }

    /// A repeat carries the original's text, cut as X cuts it.
    fn repeat(&mut self, authors: &[Author], original: &Tweet) {
        const KEPT_CHARS: usize = 120;
        self.lang = original.lang;
        self.push("RT ");
        self.mention(authors, original.author);
        self.push(": ");
        match original.text.char_indices().nth(KEPT_CHARS) {
            Some((cut, _)) => {
                self.push(&original.text[..cut]);
                self.push("…");
            }
            None => self.push(&original.text),
        }
    }

    fn body(&mut self, dice: &mut Dice, authors: &[Author], tongue: &Tongue) {
        let n_sentences = match dice.below(100) {
            0..48 => 1,
            48..80 => 2,
            80..94 => 3,
            94..99 => 5,
            _ => dice.between(20, 60),
        };
        for sentence in 0..n_sentences {
            if sentence > 0 {
                self.push(if dice.per_mille(150) {
                    "\n\n"
                } else if tongue.glue.is_empty() {
                    ""
                } else {
                    " "
                });
            }
            self.sentence(dice, tongue);
        }
        let extras = dice.bits();
        let wanted = |bit: u32, of_16: u64| extras >> (bit * 4) & 15 < of_16;
        if wanted(0, 3) {
            self.push(" ");
            self.push(dice.pick(&words::EMOJI));
            if dice.per_mille(300) {
                self.push(dice.pick(&words::EMOJI));
            }
        }
        if wanted(1, 1) {
            self.push(if dice.per_mille(500) { "\n" } else { " " });
            self.push(dice.pick(&words::ODDITIES));
        }
        if wanted(2, 2) {
            self.push(" ");
            let other = dice.zipf(authors.len());
            self.mention(authors, other);
        }
        if wanted(3, 3) {
            self.cashtag(dice.zipf(words::TOKENS.len()));
        }
        if wanted(4, 4) {
            for _ in 0..dice.between(1, 3) {
                self.hashtag(dice.pick(tongue.tags));
            }
        }
        if wanted(5, 4) {
            self.link(dice);
        }
        if wanted(6, 5) {
            self.attach(dice);
        }
    }

    fn sentence(&mut self, dice: &mut Dice, tongue: &Tongue) {
        let mut first = dice.pick(tongue.subjects).chars();
        if let Some(initial) = first.next() {
            let initial = if dice.per_mille(700) { initial.to_ascii_uppercase() } else { initial };
            self.push(initial.encode_utf8(&mut [0; 4]));
        }
        self.push(first.as_str());
        self.push(tongue.glue);
        self.push(dice.pick(tongue.acts));
        if dice.per_mille(550) {
            self.push(tongue.glue);
            self.push(dice.pick(tongue.ends));
        }
        if dice.per_mille(200) {
            let (km, tenth) = (dice.between(0, 420), dice.between(0, 9));
            let (hour, minute) = (dice.between(10, 23), dice.between(10, 59));
            let parts = [km, tenth, hour, minute].map(Digits::of);
            let [km, tenth, hour, minute] = parts.each_ref().map(Digits::as_str);
            self.push(&[" (", km, ".", tenth, " km, ", hour, ":", minute, ")"].concat());
        }
        self.push(match dice.below(12) {
            0 => "!",
            1 => "…",
            2 => "?!",
            _ => tongue.stop,
        });
    }

    fn push(&mut self, part: &str) {
        self.text.push_str(part);
        self.n_chars += part.chars().count() as u64;
    }

    /// Appends `mark` + `rest` and says where `mark` and all of it stand; the span's bytes leave the mark out.
    fn marked(&mut self, mark: &str, rest: &str) -> Span {
        let begin = self.n_chars;
        self.push(mark);
        let byte = self.text.len();
        self.push(rest);
        Span { chars: begin..self.n_chars, bytes: byte..self.text.len() }
    }

    fn mention(&mut self, authors: &[Author], author: usize) {
        let span = self.marked("@", &authors[author].handle);
        self.mentions.push(Mention { author, span });
    }

    fn hashtag(&mut self, tag: &str) {
        self.push(" ");
        let span = self.marked("#", tag);
        self.hashtags.push(span);
    }

    fn cashtag(&mut self, token: usize) {
        self.push(" $");
        self.push(words::TOKENS[token].0);
        self.tokens.push(token);
    }

    fn link(&mut self, dice: &mut Dice) {
        self.push(" ");
        let span = self.marked("", &["https://t.co/", Slug::of(dice.bits()).letters(10)].concat());
        let (host, path) = dice.pick(&words::LINKS);
        self.links.push(Link { host, path, span });
    }

    fn attach(&mut self, dice: &mut Dice) {
        let kind = match dice.below(10) {
            0..7 => MediaKind::Photo,
            7..9 => MediaKind::Video,
            _ => MediaKind::Gif,
        };
        let n = if kind == MediaKind::Photo && dice.per_mille(250) { dice.between(2, 4) } else { 1 };
        for _ in 0..n {
            self.media.push(Media { kind, seed: dice.bits() });
        }
    }
}
