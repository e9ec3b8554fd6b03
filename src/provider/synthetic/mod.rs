//! A seeded world of plausible envelopes, for demo, fixtures, tests, load and replay without a tape.
//!
//! Owns its own words, people and posts, and how each provider would word them; nothing in it was captured.
//! Knows no clock, no socket and no tape: time is `start` plus what the dice say, and the same [`Options`]
//! give the same bytes on every machine. Chance is whole numbers from a generator with a fixed output;
//! floats stand only in the pace and in shares, where `+ - * /` are exact by IEEE 754. What was not asked for rolls no
//! dice, or dice of its own, so an option that is left alone changes nothing.
//!
//! | file | holds |
//! | --- | --- |
//! | `mod.rs` | [`Options`], [`World`] and its queue of what is due |
//! | `dice.rs` | choices in whole numbers |
//! | `pace.rs` | when something arrives: rate, day curve, bursts |
//! | `rush.rs` | what a burst is about |
//! | `out.rs` | JSON writer, compact or as Python writes |
//! | `words.rs` | own word lists in sixteen languages, made-up tokens, rules, links |
//! | `people.rs` | authors and their changing profiles |
//! | `tweets.rs` | posts, their entities and growing counters |
//! | `twitterapi_io.rs`, `tweetstream.rs`, `scrapebadger.rs`, `x_live.rs` | one provider's envelopes each |
//!
//! What is modelled: ids that rise with time and arrive slightly out of order; a few authors who write most;
//! replies, quotes and repeats of hot posts; about three in ten TweetStream and ScrapeBadger posts also seen on
//! another provider; some posts twice by a second rule; `meta`, `update`, `delete` and `pin` after their content;
//! profiles that change and show so later; counters that mostly rise.
//! When asked for: bursts about one thing by a few authors, with replies and quotes of one post; the curve of a day;
//! chosen languages, right to left and without spaces among them; edits, deletes, direct messages, Truth Social.
//!
//! An edit brings the same id again with more text: on TwitterAPI.io and ScrapeBadger as a post, on TweetStream as an
//! `update`, on each that had brought the first version. A delete is told by TweetStream only; the other three
//! announce none, so a post that is gone stays there as it was. A post's language shows in `lang` of TwitterAPI.io and,
//! when languages are chosen, of ScrapeBadger's dialects with a nested post; the other shapes have no such field.
//!
//! Not modelled: reconnects and faults, which replay adds; threads deeper than one reply; polls, cards, articles,
//! communities; edits and deletes of Truth Social posts; more than one edit of a post; suspended accounts; unfollows and
//! unpins.
//!
//! Memory is bounded: authors, some thousands of recent posts, and what is due within some minutes.
//! A [`World`] belongs to one thread at a time and may be sent to another.

mod dice;
mod out;
mod pace;
mod people;
mod rush;
mod scrapebadger;
mod tweets;
mod tweetstream;
mod twitterapi_io;
mod words;
mod x_live;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use self::dice::{Chance, Dice};
use self::out::{Out, Style};
use self::pace::Pace;
use self::people::Author;
use self::rush::Rush;
use self::tweets::{Kind, Tweet};
use crate::model::{Provider, TweetId, UnixMicros};

/// Which of ScrapeBadger's printed dialects the world speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// `"event": "tweet.detected"`, flat, without `connected` and `ping`.
    A,
    /// `"type": "new_tweet"`, flat, with `source`.
    B,
    /// `"type": "tweet"` with a nested `tweet`; the likeliest on the wire.
    #[default]
    C,
    /// The keys of A and C in one object, which clients of both understand.
    Merged,
}

/// What a world is made of; equal options make equal worlds.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Chooses everything that is left to chance.
    pub seed: u64,
    /// When the first envelope arrives; held within the years 2012 to 2078, where ids of posts can be made.
    pub start: UnixMicros,
    /// Envelopes a second over all providers; held within 0.001 and 1,000,000. Heartbeats come on top.
    pub rate: f64,
    /// Shares of the providers in the order of [`Provider::ALL`]; any scale. A share of 0 leaves that one silent.
    ///
    /// What is not a share (negative, infinite) counts as 0, and when none is left all are equal.
    pub mix: [f64; 4],
    /// How ScrapeBadger speaks.
    pub dialect: Dialect,
    /// Number of accounts; held within 2 and 1,000,000.
    pub authors: usize,
    /// Whether and how it bursts. Bursts come on top of the rate.
    pub burst: Option<Burst>,
    /// Whether the rate follows a day's shape by the hour of UTC; its mean over the day is the rate.
    pub day_curve: bool,
    /// Languages of posts with their shares on any scale; empty is the usual mixture of eleven, half of it English.
    pub languages: Vec<(Language, f64)>,
    /// Share of posts whose author changes them 10 to 50 s later, 0 to 1.
    pub edits: f64,
    /// Share of TweetStream's posts that are deleted within a minute, 0 to 1; `None` is eight in a thousand.
    pub deletes: Option<f64>,
    /// Share of direct messages and of typing in what X's live pipeline sends, 0 to 1.
    pub dms: f64,
    /// Share of Truth Social in TweetStream's posts, 0 to 1.
    pub truth_social: f64,
}

/// Times when much is said about one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Burst {
    /// How many times the usual rate; held within 1 and 10,000.
    pub times: u32,
    /// From the beginning of one to that of the next, give or take half; at least a second.
    pub every: Duration,
    /// How long one lasts; at least a tenth of a second.
    pub lasts: Duration,
}

/// A language the world has words of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Language(usize);

impl Language {
    /// The language of a code as it stands in a post's `lang`: `en`, `ja`, …, and `und` for signs only.
    pub fn from_code(code: &str) -> Option<Self> {
        Self::all().find(|language| language.code() == code)
    }

    /// As in a post's `lang`.
    pub fn code(self) -> &'static str {
        words::TONGUES[self.0].code
    }

    /// All there are.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..words::TONGUES.len()).map(Self)
    }
}

impl Default for Options {
    /// Seed 1, from 2026-01-05T12:00:00Z, 50 a second, 45/30/12/13 %, dialect C, 2,000 accounts, and nothing optional.
    fn default() -> Self {
        Self {
            seed: 1,
            start: UnixMicros(1_767_614_400_000_000),
            rate: 50.0,
            mix: [0.45, 0.30, 0.12, 0.13],
            dialect: Dialect::C,
            authors: 2_000,
            burst: None,
            day_curve: false,
            languages: Vec::new(),
            edits: 0.0,
            deletes: None,
            dms: 0.0,
            truth_social: 0.0,
        }
    }
}

/// One message as a recorder would receive it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Who says it.
    pub provider: Provider,
    /// When it arrives.
    pub at: UnixMicros,
    /// One strictly valid JSON object on one line.
    pub bytes: Bytes,
}

/// Four providers talking without end, in order of arrival.
///
/// An iterator of [`Envelope`]s that never ends; `at` never falls.
#[derive(Clone, Debug)]
pub struct World {
    dice: Dice,
    /// For what is only rolled when it was asked for.
    aside: Dice,
    pace: Pace,
    manner: scrapebadger::Manner,
    /// The one provider whose envelopes are written out, if not all are.
    only: Option<Provider>,
    /// Upper bounds of the shares on a scale of 2³².
    shares: Vec<u64>,
    /// Envelopes that came on their own account and are paid for by slots left empty.
    debt: [u32; 4],
    due: BTreeMap<(i64, u64), Due>,
    n_due_ever: u64,
    n_tweets: u64,
    authors: Vec<Author>,
    speakers: Speakers,
    /// Accounts of Truth Social.
    truthers: Vec<Author>,
    conversations: Vec<x_live::Conversation>,
    /// Which burst the present slot lies in.
    burst: Option<u64>,
    /// What the present burst is about, or the last one was.
    rush: Option<Rush>,
    chances: Chances,
    faces: twitterapi_io::Faces,
    rules: Vec<twitterapi_io::Rule>,
    selectors: Vec<scrapebadger::Selector>,
    /// What others react to, the hottest first.
    hot: Vec<Arc<Tweet>>,
    /// Posts another provider may still bring, newest last.
    recent: VecDeque<Sighting>,
    /// Posts that TwitterAPI.io will bring after another provider did.
    promised: VecDeque<Sighting>,
    watched: Vec<x_live::Watched>,
    compact: Out,
    python: Out,
}

/// Who writes in which language, when languages were chosen.
#[derive(Clone, Debug, Default)]
struct Speakers {
    /// Upper bounds of the languages' shares on a scale of 2³²; empty when they were not chosen.
    bounds: Vec<u64>,
    /// Indices of the authors of each, the busiest first.
    of: Vec<Vec<usize>>,
}

/// How likely what may be asked for is.
#[derive(Clone, Copy, Debug)]
struct Chances {
    edit: Chance,
    delete: Option<Chance>,
    dm: Chance,
    truth_social: Chance,
}

/// A post and who has brought it so far.
#[derive(Clone, Debug)]
struct Sighting {
    tweet: Arc<Tweet>,
    seen: [bool; 4],
}

/// What comes at its own time and not in a slot of the pace.
#[derive(Clone, Debug)]
enum Due {
    Greeting(Provider),
    Heartbeat(Provider),
    Subscriptions,
    Meta(Arc<Tweet>),
    Update(Arc<Tweet>),
    Delete(u64),
    Pin(Arc<Tweet>),
    /// A second rule matches.
    Again(Arc<Tweet>),
    /// What a post has become, for somebody who brought it before.
    Edit(Provider, Arc<Tweet>),
}

impl Due {
    const fn provider(&self) -> Provider {
        match self {
            Self::Greeting(provider) | Self::Heartbeat(provider) | Self::Edit(provider, _) => *provider,
            Self::Subscriptions => Provider::XLive,
            Self::Meta(_) | Self::Update(_) | Self::Delete(_) | Self::Pin(_) => Provider::Tweetstream,
            Self::Again(_) => Provider::TwitterapiIo,
        }
    }
}

/// How many hot posts there are to react to.
const N_HOT: usize = 256;
/// How many posts another provider may still bring.
const N_RECENT: usize = 256;
/// How many posts wait for TwitterAPI.io, which is the slower one.
const N_PROMISED: usize = 8_192;
/// How many posts have their counters watched.
const N_WATCHED: usize = 64;
/// Beyond this much to come, nothing optional is added: the bound on memory at absurd rates.
const N_DUE_MAX: usize = 100_000;
/// The most slots left empty in a row for what came on its own account.
const DEBT_MAX: u32 = 256;

/// How many write on Truth Social.
const N_TRUTHERS: usize = 200;

const TWITTERAPI_IO_PING_MS: u64 = 40_000;
const SCRAPEBADGER_PING_MS: u64 = 30_000;

impl World {
    /// A world at its first instant.
    pub fn new(options: Options) -> Self {
        const EARLIEST: i64 = 1_325_376_000_000_000;
        const LATEST: i64 = 3_408_220_800_000_000;
        let mut dice = Dice::new(options.seed);
        let start = options.start.0.clamp(EARLIEST, LATEST);
        let start_ms = UnixMicros(start).millis() as u64;
        let n_authors = options.authors.clamp(2, 1_000_000);
        let rate = if options.rate.is_nan() { 1.0 } else { options.rate.clamp(0.001, 1_000_000.0) };
        let mut aside = Dice::aside(options.seed, 1);
        let (languages, asked): (Vec<_>, Vec<_>) = options.languages.iter().copied().unzip();
        let mut speakers = Speakers { bounds: bounds(&asked), of: vec![Vec::new(); asked.len()] };
        let authors: Vec<_> = (0..n_authors)
            .map(|rank| {
                let place = speakers.welcome(&mut aside, rank);
                Author::new(&mut dice, rank, start_ms, place.map(|place| languages[place].0))
            })
            .collect();
        let chances = Chances {
            edit: Chance::of(options.edits),
            delete: options.deletes.map(Chance::of),
            dm: Chance::of(options.dms),
            truth_social: Chance::of(options.truth_social),
        };
        let truthers = match options.truth_social > 0.0 {
            true => (0..N_TRUTHERS).map(|rank| truther(&mut aside, rank, start_ms)).collect(),
            false => Vec::new(),
        };
        let conversations = match options.dms > 0.0 {
            true => x_live::conversations(&mut aside, &authors),
            false => Vec::new(),
        };
        let mut world = Self {
            pace: Pace::new(start, rate, options.day_curve, options.burst, Dice::aside(options.seed, 2)),
            manner: scrapebadger::Manner { dialect: options.dialect, lang: !options.languages.is_empty() },
            only: None,
            shares: bounds(&options.mix),
            debt: [0; 4],
            due: BTreeMap::new(),
            n_due_ever: 0,
            n_tweets: 0,
            authors,
            speakers,
            truthers,
            conversations,
            burst: None,
            rush: None,
            chances,
            aside,
            faces: twitterapi_io::Faces::new(n_authors),
            rules: twitterapi_io::rules(&mut dice),
            selectors: scrapebadger::selectors(&mut dice),
            hot: Vec::with_capacity(N_HOT),
            recent: VecDeque::with_capacity(N_RECENT),
            promised: VecDeque::new(),
            watched: Vec::with_capacity(N_WATCHED),
            compact: Out::new(Style::Compact),
            python: Out::new(Style::Python),
            dice,
        };
        world.remember_the_past(start_ms);
        world.greet(start);
        world
    }

    /// Posts from before the start, so that the first replies have something to answer.
    fn remember_the_past(&mut self, start_ms: u64) {
        const SIX_HOURS_MS: u64 = 6 * 3_600_000;
        for _ in 0..N_HOT {
            let created_ms = start_ms - self.dice.between(60_000, SIX_HOURS_MS);
            let author = self.author();
            let old = self.write(author, created_ms, (Kind::Post, None), None);
            self.hot.push(old);
        }
        for place in 0..N_WATCHED {
            self.watched.push(x_live::Watched::new(self.hot[place].clone(), start_ms));
        }
    }

    fn greet(&mut self, start: i64) {
        for (place, provider) in Provider::ALL.into_iter().enumerate() {
            let at = start + place as i64 * 1_500;
            let greets = match provider {
                Provider::Tweetstream => false,
                Provider::Scrapebadger => self.manner.dialect != Dialect::A,
                _ => true,
            };
            if greets && self.is_active(provider) {
                self.schedule(at, Due::Greeting(provider));
            }
        }
        // The first content comes after the greetings.
        self.pace.begin_after(6_000);
    }

    fn is_active(&self, provider: Provider) -> bool {
        let place = provider as usize;
        self.shares[place] > place.checked_sub(1).map_or(0, |before| self.shares[before])
    }

    fn schedule(&mut self, at: i64, due: Due) {
        self.due.insert((at, self.n_due_ever), due);
        self.n_due_ever += 1;
    }

    /// Schedules a consequence of something, unless there is too much to come already.
    fn follow_up(&mut self, now_ms: u64, (low_ms, high_ms): (u64, u64), due: Due) {
        if self.due.len() < N_DUE_MAX {
            let wait = self.dice.between(low_ms * 1_000, high_ms * 1_000) as i64;
            self.schedule(now_ms as i64 * 1_000 + 1_000 + wait, due);
        }
    }

    /// When the provider stamped what arrives at `at`.
    fn stamp(&mut self, at: i64) -> u64 {
        at.div_euclid(1_000) as u64 - self.dice.between(3, 60)
    }

    /// What comes at its own time.
    fn render_due(&mut self, at: i64, due: Due) -> Bytes {
        let now_ms = at.div_euclid(1_000) as u64;
        let stamp = self.stamp(at);
        match due {
            Due::Greeting(provider) => return self.render_greeting(provider, now_ms, stamp),
            Due::Heartbeat(provider) => return self.render_heartbeat(provider, now_ms, stamp),
            Due::Subscriptions => {
                let wait = self.dice.between(45_000, 75_000);
                self.schedule((now_ms + wait) as i64 * 1_000, Due::Subscriptions);
                x_live::subscriptions(&mut self.compact);
            }
            Due::Meta(tweet) => tweetstream::meta(&mut self.compact, &mut self.dice, &tweet, stamp),
            Due::Update(tweet) => tweetstream::update(&mut self.compact, &self.authors, &tweet, stamp),
            Due::Delete(tweet) => tweetstream::delete(&mut self.compact, tweet, stamp),
            Due::Pin(tweet) => tweetstream::content(&mut self.compact, &self.authors, tweet.as_of(stamp), "pin", true, stamp),
            Due::Again(tweet) => {
                let rule = self.dice.below(self.rules.len());
                self.write_batch(&[tweet.as_of(stamp).clone()], Some(rule), stamp);
            }
            Due::Edit(Provider::Scrapebadger, tweet) => {
                let selector = self.aside.zipf(self.selectors.len());
                return self.write_detected(&tweet, selector, stamp);
            }
            Due::Edit(Provider::Tweetstream, tweet) => tweetstream::edit(&mut self.compact, &tweet, stamp),
            Due::Edit(_, tweet) => {
                let rule = self.aside.zipf(self.rules.len());
                self.write_batch(&[tweet], Some(rule), stamp);
            }
        }
        taken(&mut self.compact)
    }

    fn render_greeting(&mut self, provider: Provider, now_ms: u64, stamp: u64) -> Bytes {
        match provider {
            Provider::XLive => {
                self.schedule((now_ms + 2_000) as i64 * 1_000, Due::Subscriptions);
                x_live::config(&mut self.compact, &mut self.dice);
            }
            Provider::Scrapebadger => {
                self.schedule((now_ms + SCRAPEBADGER_PING_MS) as i64 * 1_000, Due::Heartbeat(provider));
                scrapebadger::connected(&mut self.python, &mut self.dice);
                return taken(&mut self.python);
            }
            _ => {
                self.schedule((now_ms + TWITTERAPI_IO_PING_MS) as i64 * 1_000, Due::Heartbeat(provider));
                twitterapi_io::connected(&mut self.compact, stamp);
            }
        }
        taken(&mut self.compact)
    }

    fn render_heartbeat(&mut self, provider: Provider, now_ms: u64, stamp: u64) -> Bytes {
        let scrapebadger = provider == Provider::Scrapebadger;
        let period_ms = if scrapebadger { SCRAPEBADGER_PING_MS } else { TWITTERAPI_IO_PING_MS };
        self.schedule((now_ms + period_ms) as i64 * 1_000, Due::Heartbeat(provider));
        if scrapebadger {
            scrapebadger::ping(&mut self.python, stamp);
            taken(&mut self.python)
        } else {
            twitterapi_io::ping(&mut self.compact, stamp);
            taken(&mut self.compact)
        }
    }

    /// What a slot of the pace brings.
    fn render_slot(&mut self, at: i64, provider: Provider) -> Bytes {
        let stamp = self.stamp(at);
        match provider {
            Provider::TwitterapiIo if self.dice.per_mille(70) => self.fast_tweet(stamp),
            Provider::TwitterapiIo => self.batch(stamp),
            Provider::Tweetstream => self.tweetstream(stamp),
            Provider::Scrapebadger => self.scrapebadger(stamp),
            Provider::XLive => self.engagement(stamp),
        }
    }

    fn fast_tweet(&mut self, now_ms: u64) -> Bytes {
        let age_ms = self.dice.between(200, 1_400);
        let tweet = self.mint(now_ms - age_ms);
        if self.writes(Provider::TwitterapiIo) {
            twitterapi_io::fast(&mut self.compact, &self.authors, &tweet, now_ms);
        }
        self.edit_later(Provider::TwitterapiIo, &tweet, now_ms);
        // Some come again as a full object; one place only may hand a post on, or it would be handed on twice.
        if self.dice.per_mille(400) {
            self.promise(&tweet, Provider::TwitterapiIo);
        } else {
            self.sighted(tweet, Provider::TwitterapiIo, [false; 4]);
        }
        taken(&mut self.compact)
    }

    fn batch(&mut self, now_ms: u64) -> Bytes {
        const SETTLED_MS: u64 = 700;
        let n_tweets = match self.dice.below(1_000) {
            0..550 => 1,
            550..790 => 2,
            790..890 => 3,
            890..985 => self.dice.between(4, 8),
            _ => self.dice.between(9, 20),
        } as usize;
        let mut batch = Vec::with_capacity(n_tweets);
        while batch.len() < n_tweets.min(3) && self.promised.front().is_some_and(|p| p.tweet.created_ms + SETTLED_MS <= now_ms) {
            batch.extend(self.promised.pop_front());
        }
        while batch.len() < n_tweets {
            let age_ms = self.dice.between(800, 1_300) + self.dice.magnitude(4_000);
            batch.push(Sighting { tweet: self.mint(now_ms - age_ms), seen: [false; 4] });
        }
        batch.sort_by_key(|sighting| std::cmp::Reverse(sighting.tweet.id));
        let tweets: Vec<_> = batch.iter().map(|sighting| sighting.tweet.as_of(now_ms).clone()).collect();
        let rule = if self.dice.per_mille(920) { Some(self.dice.zipf(self.rules.len())) } else { None };
        self.write_batch(&tweets, rule, now_ms);
        if self.dice.per_mille(14) {
            self.follow_up(now_ms, (200, 5_000), Due::Again(batch[0].tweet.clone()));
        }
        for Sighting { tweet, seen } in batch {
            if !seen[Provider::TwitterapiIo as usize] {
                self.edit_later(Provider::TwitterapiIo, &tweet, now_ms);
            }
            self.sighted(tweet, Provider::TwitterapiIo, seen);
        }
        taken(&mut self.compact)
    }

    fn write_batch(&mut self, tweets: &[Arc<Tweet>], rule: Option<usize>, now_ms: u64) {
        if self.writes(Provider::TwitterapiIo) {
            let rule = rule.map(|place| &self.rules[place]);
            twitterapi_io::batch(&mut self.compact, &mut self.faces, &self.authors, tweets, rule, now_ms);
        }
    }

    fn tweetstream(&mut self, now_ms: u64) -> Bytes {
        match self.dice.below(100) {
            0..5 => {
                let author = self.dice.zipf(self.authors.len());
                let change = self.authors[author].change(&mut self.dice);
                self.faces.forget(author);
                tweetstream::profile_update(&mut self.compact, &mut self.dice, &self.authors[author], &change, now_ms);
            }
            5..9 => {
                let who = self.dice.zipf(self.authors.len());
                let whom = self.dice.zipf(self.authors.len());
                let whom = if who == whom { (whom + 1) % self.authors.len() } else { whom };
                self.authors[who].following += 1;
                self.authors[whom].followers += 1;
                self.faces.forget(who);
                self.faces.forget(whom);
                let (who, whom) = (&self.authors[who], &self.authors[whom]);
                tweetstream::follow(&mut self.compact, &mut self.dice, who, whom, now_ms);
            }
            _ => self.tweetstream_content(now_ms),
        }
        taken(&mut self.compact)
    }

    fn tweetstream_content(&mut self, now_ms: u64) {
        if self.chances.truth_social.hits(&mut self.aside) {
            return self.truth_social(now_ms);
        }
        let age_ms = self.dice.between(120, 200) + self.dice.magnitude(1_500);
        let tweet = self.shared_or_new(Provider::Tweetstream, now_ms, age_ms);
        let ref_known = tweet.kind != Kind::Reply || self.dice.per_mille(800);
        if self.writes(Provider::Tweetstream) {
            tweetstream::content(&mut self.compact, &self.authors, tweet.as_of(now_ms), "content", ref_known, now_ms);
        }
        self.edit_later(Provider::Tweetstream, &tweet, now_ms);
        if !ref_known || (tweet.refers.is_none() && !tweet.links.is_empty() && self.dice.per_mille(60)) {
            self.follow_up(now_ms + 60, (40, 900), Due::Update(tweet.clone()));
        }
        // The stamp lies up to 60 ms before the arrival, so the wait is counted from the latest arrival.
        if self.dice.per_mille(440) {
            self.follow_up(now_ms + 60, (150, 2_400), Due::Meta(tweet.clone()));
        }
        match self.dice.below(1_000) {
            0..8 if self.chances.delete.is_none() => self.follow_up(now_ms + 60, (3_000, 60_000), Due::Delete(tweet.id)),
            8..14 => self.follow_up(now_ms + 60, (1_000, 30_000), Due::Pin(tweet.clone())),
            _ => {}
        }
        if self.chances.delete.is_some_and(|chance| chance.hits(&mut self.aside)) {
            self.follow_up(now_ms + 60, (3_000, 60_000), Due::Delete(tweet.id));
        }
    }

    fn truth_social(&mut self, now_ms: u64) {
        let created_ms = now_ms - self.aside.between(200, 2_000);
        let author = self.aside.zipf(self.truthers.len());
        // Ids there are Mastodon's: milliseconds, and sixteen bits that tell posts apart.
        let id = created_ms << 16 | self.n_tweets.wrapping_mul(40_503) & 0xffff;
        self.n_tweets += 1;
        let tweet = Tweet::compose(&mut self.aside, &self.truthers, author, (id, created_ms), (Kind::Post, None), None);
        tweetstream::truth_social(&mut self.compact, &self.truthers, &tweet, now_ms);
        if self.aside.per_mille(300) {
            self.follow_up(now_ms + 60, (150, 2_400), Due::Meta(Arc::new(tweet)));
        }
    }

    fn scrapebadger(&mut self, now_ms: u64) -> Bytes {
        let age_ms = self.dice.between(150, 350) + self.dice.magnitude(3_000);
        let tweet = self.shared_or_new(Provider::Scrapebadger, now_ms, age_ms);
        let selector = self.dice.zipf(self.selectors.len());
        self.edit_later(Provider::Scrapebadger, &tweet, now_ms);
        self.write_detected(tweet.as_of(now_ms), selector, now_ms)
    }

    fn write_detected(&mut self, tweet: &Tweet, selector: usize, now_ms: u64) -> Bytes {
        if self.writes(Provider::Scrapebadger) {
            let selector = &self.selectors[selector];
            scrapebadger::detected(&mut self.python, self.manner, &self.authors, tweet, selector, now_ms);
        }
        taken(&mut self.python)
    }

    fn engagement(&mut self, now_ms: u64) -> Bytes {
        if self.chances.dm.hits(&mut self.aside) {
            let place = self.aside.zipf(self.conversations.len());
            x_live::direct_message(&mut self.compact, &mut self.aside, &mut self.conversations[place]);
            return taken(&mut self.compact);
        }
        let place = self.dice.zipf(self.watched.len());
        if self.dice.per_mille(20) {
            let tweet = self.hot[self.dice.below(N_HOT)].clone();
            self.watched[place] = x_live::Watched::new(tweet, now_ms);
        }
        x_live::engagement(&mut self.compact, &mut self.dice, &mut self.watched[place], now_ms);
        taken(&mut self.compact)
    }

    /// A post another provider brought a moment ago, or a new one, which another provider may then bring.
    fn shared_or_new(&mut self, provider: Provider, now_ms: u64, age_ms: u64) -> Arc<Tweet> {
        const FRESH_MS: u64 = 20_000;
        let teller = if self.is_active(Provider::TwitterapiIo) { Provider::TwitterapiIo } else { Provider::Tweetstream };
        // With TwitterAPI.io in the world half of what is shared comes here first, and half there.
        let echoes = if teller == Provider::TwitterapiIo { 150 } else { 300 };
        if self.dice.per_mille(echoes) {
            for _ in 0..8 {
                let n_recent = self.recent.len();
                if n_recent == 0 {
                    break;
                }
                let place = n_recent - 1 - self.dice.below(n_recent);
                let Sighting { tweet, seen } = &mut self.recent[place];
                let age_ms = now_ms.saturating_sub(tweet.created_ms);
                if !seen[provider as usize] && (150..FRESH_MS).contains(&age_ms) {
                    seen[provider as usize] = true;
                    return tweet.clone();
                }
            }
        }
        let tweet = self.mint(now_ms - age_ms);
        if teller == Provider::TwitterapiIo {
            if self.dice.per_mille(180) {
                self.promise(&tweet, provider);
            }
        } else if provider == teller {
            self.sighted(tweet.clone(), provider, [false; 4]);
        }
        tweet
    }

    fn promise(&mut self, tweet: &Arc<Tweet>, by: Provider) {
        if self.promised.len() < N_PROMISED {
            let mut seen = [false; 4];
            seen[by as usize] = true;
            self.promised.push_back(Sighting { tweet: tweet.clone(), seen });
        }
    }

    fn sighted(&mut self, tweet: Arc<Tweet>, by: Provider, mut seen: [bool; 4]) {
        seen[by as usize] = true;
        if self.recent.len() == N_RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(Sighting { tweet, seen });
    }

    /// Whether envelopes of that provider are written out, or only what they roll is rolled.
    fn writes(&self, provider: Provider) -> bool {
        self.only.is_none_or(|only| only == provider)
    }

    /// Lets an edit to come show on a provider that has just brought the first version.
    fn edit_later(&mut self, provider: Provider, tweet: &Tweet, now_ms: u64) {
        if let Some((at_ms, after)) = &tweet.edited
            && *at_ms > now_ms
            && self.due.len() < N_DUE_MAX
        {
            let at_ms = at_ms + 60 + self.aside.between(200, 4_000);
            self.schedule(at_ms as i64 * 1_000, Due::Edit(provider, after.clone()));
        }
    }

    /// Somebody, by how much they write.
    fn author(&mut self) -> usize {
        match self.speakers.roll(&mut self.aside) {
            Some(author) => author,
            None => self.dice.zipf(self.authors.len()),
        }
    }

    /// A new post by somebody, perhaps about a hot one.
    fn mint(&mut self, created_ms: u64) -> Arc<Tweet> {
        const IN_A_RUSH: u64 = 800;
        if let Some(n) = self.burst
            && self.aside.per_mille(IN_A_RUSH)
        {
            return self.rush(n, created_ms);
        }
        let author = self.author();
        let kind = match self.dice.below(100) {
            0..55 => Kind::Post,
            55..76 => Kind::Reply,
            76..88 => Kind::Quote,
            _ => Kind::Retweet,
        };
        let other = &self.hot[self.dice.zipf(N_HOT)];
        let is_older = other.created_ms + 1_000 < created_ms;
        let about = if kind == Kind::Post || !is_older { (Kind::Post, None) } else { (kind, Some(other.clone())) };
        let tweet = self.write(author, created_ms, about, None);
        if tweet.kind == Kind::Post && self.dice.per_mille(80) {
            let place = self.dice.zipf(N_HOT);
            self.hot[place] = tweet.clone();
        }
        tweet
    }

    /// A post about what the burst is about; the first one is what the others react to.
    fn rush(&mut self, n: u64, created_ms: u64) -> Arc<Tweet> {
        let mut rush = match self.rush.take() {
            Some(rush) if rush.n == n => rush,
            _ => {
                let cast = (0..Rush::CAST).map(|_| self.author()).collect();
                Rush::new(&mut self.aside, n, cast)
            }
        };
        let author = rush.cast[self.aside.zipf(rush.cast.len())];
        let kind = match self.aside.below(100) {
            0..35 => Kind::Post,
            35..65 => Kind::Reply,
            65..88 => Kind::Quote,
            _ => Kind::Retweet,
        };
        // A post may arrive before an older one, but answers nothing that was not written yet.
        let about = match &rush.hot {
            Some(hot) if kind != Kind::Post && hot.created_ms < created_ms => (kind, Some(hot.clone())),
            _ => (Kind::Post, None),
        };
        let tweet = self.write(author, created_ms, about, Some(rush.theme));
        if rush.hot.is_none() {
            rush.hot = Some(tweet.clone());
            // All look at it: its counters are watched, and those who are not in the cast react to it, too.
            self.hot[0] = tweet.clone();
            self.watched[0] = x_live::Watched::new(tweet.clone(), created_ms);
        }
        self.rush = Some(rush);
        tweet
    }

    fn write(
        &mut self,
        author: usize,
        created_ms: u64,
        about: (Kind, Option<Arc<Tweet>>),
        theme: Option<rush::Theme>,
    ) -> Arc<Tweet> {
        let id = self.next_id(created_ms);
        let who = &mut self.authors[author];
        who.posts += 1;
        // Copies of the author object lag a little, as a provider's cache does.
        if who.posts.is_multiple_of(16) {
            self.faces.forget(author);
        }
        let mut tweet = Tweet::compose(&mut self.dice, &self.authors, author, (id, created_ms), about, theme);
        if tweet.kind != Kind::Retweet && self.chances.edit.hits(&mut self.aside) {
            let at_ms = created_ms + self.aside.between(10_000, 50_000);
            let edit_id = self.next_id(at_ms);
            let after = tweet.corrected(&mut self.aside, &self.authors, edit_id);
            tweet.edited = Some((at_ms, Arc::new(after)));
        }
        Arc::new(tweet)
    }

    fn next_id(&mut self, created_ms: u64) -> u64 {
        // An odd factor permutes the low 22 bits, so ids of one millisecond differ for four million posts.
        let noise = self.n_tweets.wrapping_mul(2_654_435_761) & 0x3f_ffff;
        self.n_tweets += 1;
        TweetId::first_at(UnixMicros::from_millis(created_ms as i64)).0 | noise
    }

    /// The next envelope of one provider among the next `budget` ones of all, which sinks by as many as have passed;
    /// `None` when it is used up.
    ///
    /// It is the very envelope that [`World::next`] would come to, for less work: the same dice are rolled, but the
    /// others' envelopes are not written out. Keep to one provider in one world: what a provider's cache still knows of
    /// an author depends on when it was written last.
    pub fn next_of(&mut self, provider: Provider, budget: &mut u64) -> Option<Envelope> {
        self.only = Some(provider);
        while *budget > 0 {
            *budget -= 1;
            let envelope = self.following();
            if envelope.provider == provider {
                return Some(envelope);
            }
        }
        None
    }

    /// The next envelope; empty when its provider is not written out.
    fn following(&mut self) -> Envelope {
        loop {
            let slot = self.pace.slot();
            if let Some(entry) = self.due.first_entry().filter(|entry| entry.key().0 <= slot) {
                let ((at, _), due) = entry.remove_entry();
                let provider = due.provider();
                if !matches!(due, Due::Greeting(_) | Due::Heartbeat(_) | Due::Subscriptions) {
                    let debt = &mut self.debt[provider as usize];
                    *debt = (*debt + 1).min(DEBT_MAX);
                }
                return Envelope { provider, at: UnixMicros(at), bytes: self.render_due(at, due) };
            }
            self.burst = self.pace.burst();
            self.pace.advance(&mut self.dice);
            let roll = self.dice.bits() >> 32;
            let place = self.shares.iter().position(|&bound| roll < bound).unwrap_or(3);
            if self.debt[place] > 0 {
                self.debt[place] -= 1;
                continue;
            }
            let provider = Provider::ALL[place];
            return Envelope { provider, at: UnixMicros(slot), bytes: self.render_slot(slot, provider) };
        }
    }
}

impl Speakers {
    /// Finds a language for an author to come: the first few authors have one each, so that none is without a voice.
    fn welcome(&mut self, dice: &mut Dice, author: usize) -> Option<usize> {
        let place = if author < self.of.len() { author } else { roll(&self.bounds, dice)? };
        self.of[place].push(author);
        Some(place)
    }

    /// An author by the shares of the languages; `None` when they were not chosen.
    fn roll(&self, dice: &mut Dice) -> Option<usize> {
        let speakers = &self.of[roll(&self.bounds, dice)?];
        // With fewer authors than languages some have nobody.
        if speakers.is_empty() { None } else { Some(speakers[dice.zipf(speakers.len())]) }
    }
}

/// Which share is hit; `None` when there are none.
fn roll(bounds: &[u64], dice: &mut Dice) -> Option<usize> {
    if bounds.is_empty() {
        return None;
    }
    let roll = dice.bits() >> 32;
    bounds.iter().position(|&bound| roll < bound)
}

/// An account of Truth Social, which opened in 2022 and counts accounts as it counts posts.
fn truther(dice: &mut Dice, rank: usize, start_ms: u64) -> Author {
    const OPENED_MS: u64 = 1_645_401_600_000;
    let mut author = Author::new(dice, rank, start_ms, None);
    author.joined_ms = author.joined_ms.max(OPENED_MS);
    author.id = author.joined_ms << 16 | rank as u64;
    author
}

impl Iterator for World {
    type Item = Envelope;

    fn next(&mut self) -> Option<Envelope> {
        self.only = None;
        Some(self.following())
    }
}

/// Upper bounds of shares on a scale of 2³²; the last one with a share ends the scale, and without any all are equal.
fn bounds(shares: &[f64]) -> Vec<u64> {
    const WHOLE: f64 = 4_294_967_296.0;
    let mut shares: Vec<_> =
        shares.iter().map(|&share| if share.is_finite() && share > 0.0 { share.min(1e9) } else { 0.0 }).collect();
    if shares.iter().all(|share| *share == 0.0) {
        shares.fill(1.0);
    }
    let sum: f64 = shares.iter().sum();
    let last = shares.iter().rposition(|share| *share > 0.0).unwrap_or_default();
    let mut so_far = 0.0;
    let mut bound = |(place, share): (usize, &f64)| {
        so_far += share;
        if place >= last { WHOLE as u64 } else { (so_far / sum * WHOLE) as u64 }
    };
    shares.iter().enumerate().map(&mut bound).collect()
}

/// The envelope just written, leaving the writer empty.
fn taken(out: &mut Out) -> Bytes {
    let bytes = Bytes::copy_from_slice(&out.bytes);
    out.clear();
    bytes
}

#[cfg(test)]
mod tests;
