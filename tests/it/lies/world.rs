//! What is true in a world of walks: the events around one hole, what of them came live, and how history lies about them.

use std::time::Duration;

use birdtape::model::{EventId, EventKind, Provider, Secret, TweetId, UnixMicros};
use birdtape::provider::history::{Selector, Wanted};
use birdtape::provider::{Auth, Base, Credentials, Settings, default_settings};

use crate::simulate::dice::Dice;

/// 2026-11-02T08:00:00Z, in milliseconds.
const BEGIN_MS: u64 = 1_793_606_400_000;

pub(super) const HANDLES: [&str; 5] = ["ann", "bob", "cyd", "dan", "eve"];

/// Accounts of [`HANDLES`] that are watched; posts of the others are found by a word or not at all.
pub(super) const N_WATCHED: usize = 3;

/// Rules: id and text.
pub(super) const RULES: [(&str, &str); 2] = [("rule-1", "alpha"), ("rule-2", "beta")];

pub(super) const MONITOR: &str = "mon-1";
pub(super) const TALK: &str = "101-202";

/// Something that history has.
#[derive(Clone, Debug)]
pub(super) struct Thing {
    pub(super) kind: EventKind,
    /// A snowflake: its milliseconds are when it was published.
    pub(super) id: u64,
    pub(super) at: UnixMicros,
    /// When the provider says that it got it.
    pub(super) received: UnixMicros,
    /// Position in [`HANDLES`].
    pub(super) author: usize,
    /// By position in [`RULES`].
    pub(super) words: [bool; 2],
    /// Whether it came live.
    pub(super) came: bool,
}

impl Thing {
    pub(super) fn key(&self) -> (EventKind, EventId) {
        let id = match self.kind {
            EventKind::Tweet => EventId::Tweet(TweetId(self.id)),
            _ => EventId::Text(self.id.to_string()),
        };
        (self.kind, id)
    }

    /// Whether the source delivers it at all.
    pub(super) fn is_selected(&self, provider: Provider) -> bool {
        let is_watched = self.author < N_WATCHED;
        match provider {
            Provider::TwitterapiIo | Provider::Scrapebadger => is_watched || self.words.contains(&true),
            Provider::Tweetstream => is_watched,
            Provider::XLive => true,
        }
    }
}

/// A way in which history is wrong. The first group leaves a sign, the second none in a single answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Lie {
    /// The next page is the one that was asked for.
    CursorRepeats,
    /// The next page is one of the last five.
    CursorCycle,
    /// The rows of the page before, and this page's cursor.
    PageRepeats,
    /// No rows, and another page is claimed.
    Emptied,
    /// The same rows under a cursor that is always new.
    Standing,
    /// Rows are left out of a page that then is short.
    RowsMissing,
    Shuffled,
    Reversed,
    Doubled,
    /// New posts come at the top while pages are asked for, and pages are counted from there.
    Shifted,
    /// Rows from outside the stretch.
    Outside,
    /// Rows that nothing selected.
    Strangers,
    /// Other sizes of pages than asked for.
    PageSize,
    Limited,
    Fault,
    ErrorBody,
    Html,
    Cut,
    /// The lower bound is outside where it should be inside, or the upper one the other way round.
    Bounds,
    /// Bounds are rounded to whole seconds, or beyond.
    Rounded,
    /// The end is claimed though there is more.
    EndsEarly,
    /// Rows are left out and the page is filled up from below.
    RowsSwallowed,
    /// The next page is the one after the next.
    PageSwallowed,
    /// Rows that are not there until history was asked a few times.
    Late,
    /// The same rows are left out each time.
    Hidden,
    /// Nothing is older than that.
    Retention,
}

impl Lie {
    pub(super) const ALL: [Self; 26] = [
        Self::CursorRepeats,
        Self::CursorCycle,
        Self::PageRepeats,
        Self::Emptied,
        Self::Standing,
        Self::RowsMissing,
        Self::Shuffled,
        Self::Reversed,
        Self::Doubled,
        Self::Shifted,
        Self::Outside,
        Self::Strangers,
        Self::PageSize,
        Self::Limited,
        Self::Fault,
        Self::ErrorBody,
        Self::Html,
        Self::Cut,
        Self::Bounds,
        Self::Rounded,
        Self::EndsEarly,
        Self::RowsSwallowed,
        Self::PageSwallowed,
        Self::Late,
        Self::Hidden,
        Self::Retention,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::CursorRepeats => "lie: cursor repeats",
            Self::CursorCycle => "lie: cycle of cursors",
            Self::PageRepeats => "lie: page repeats",
            Self::Emptied => "lie: empty page that claims more",
            Self::Standing => "lie: same rows under new cursors",
            Self::RowsMissing => "lie: rows missing",
            Self::Shuffled => "lie: shuffled",
            Self::Reversed => "lie: reversed",
            Self::Doubled => "lie: rows doubled",
            Self::Shifted => "lie: pages shifted by new rows",
            Self::Outside => "lie: rows from outside the stretch",
            Self::Strangers => "lie: rows that nothing selected",
            Self::PageSize => "lie: another size of pages",
            Self::Limited => "trouble: 429",
            Self::Fault => "trouble: 5xx",
            Self::ErrorBody => "trouble: 200 with an error",
            Self::Html => "trouble: 200 with HTML",
            Self::Cut => "trouble: cut JSON",
            Self::Bounds => "lie: a bound is outside or inside",
            Self::Rounded => "lie: bounds are rounded",
            Self::EndsEarly => "lie: the end is claimed early",
            Self::RowsSwallowed => "lie: rows swallowed, page full",
            Self::PageSwallowed => "lie: page swallowed",
            Self::Late => "lie: rows come late",
            Self::Hidden => "lie: rows hidden for good",
            Self::Retention => "lie: nothing older",
        }
    }

    /// Whether it is the connection that fails and not history.
    pub(super) const fn is_trouble(self) -> bool {
        matches!(self, Self::Limited | Self::Fault | Self::ErrorBody | Self::Html | Self::Cut)
    }
}

/// A lie, and how often it is told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    pub(super) lie: Lie,
    /// In a thousand answers.
    pub(super) chance: u64,
}

pub(super) struct World {
    pub(super) seed: u64,
    pub(super) provider: Provider,
    /// Newest first.
    pub(super) things: Vec<Thing>,
    pub(super) wanted: Wanted,
    pub(super) settings: Settings,
    pub(super) lies: Vec<Told>,
    /// Whether everything is asked for twice.
    pub(super) doubt: bool,
    /// Rows that fit on a page.
    pub(super) page: usize,
    /// Chance in a thousand that the walk is cut off behind an answer and gone on with later.
    pub(super) cuts: u64,
    /// Cursors count rows from the newest one, or name the row before.
    pub(super) by_offset: bool,
    /// TweetStream: bounds compare with when a post was received. ScrapeBadger: what nobody was there for is logged, too.
    pub(super) other_way: bool,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed, 11);
        let provider = *dice.pick(&Provider::ALL);
        let page = match provider {
            Provider::TwitterapiIo => 20,
            Provider::Scrapebadger => 100,
            // The documented thousand, or what it comes to.
            Provider::Tweetstream => *dice.pick(&[1_000, 1_000, 12, 25, 60]),
            Provider::XLive => 20,
        };
        let horizon = dice.secs(3, 90);
        let lasts = if dice.chance(150) { dice.ms(200, 5_000) } else { dice.secs(5, 1_800) };
        let down = UnixMicros::from_millis(BEGIN_MS as i64 + dice.below(86_400_000) as i64);
        let up = down.plus(lasts);
        let (from, to) = (down.minus(horizon), up.plus(horizon));
        let lies = lies(&mut dice);
        let n = match dice.below(10) {
            0 => 0,
            1 => dice.between(1, 3),
            2 | 3 => dice.between(1, 7) * page.min(60) as u64,
            _ => dice.between(3, 4 * page.min(60) as u64),
        };
        let mut things = Vec::new();
        let around = horizon * 3 + Duration::from_secs(30);
        let (first, last) = (from.minus(around).millis(), to.plus(around).millis());
        let mut burst = (0, 0);
        while (things.len() as u64) < n {
            if burst.0 == 0 {
                let at = dice.between(first as u64, last as u64);
                burst = if dice.chance(20) { (dice.between(2, 2 * page.min(40) as u64), at / 1_000 * 1_000) } else { (1, at) };
                burst.1 = burst.1.max(first as u64);
            }
            burst.0 -= 1;
            let ms = if burst.0 > 0 { burst.1 + dice.below(999) } else { burst.1 };
            things.push(thing(&mut dice, provider, ms as i64, horizon, down..up));
        }
        things.sort_by_key(|thing| std::cmp::Reverse(thing.id));
        things.dedup_by_key(|thing| thing.id);
        let listed = dice.chance(800);
        let wanted = Wanted {
            scope: "*".to_owned(),
            from,
            to,
            margin: horizon,
            selectors: if provider == Provider::XLive || listed { selectors(provider) } else { Vec::new() },
            is_listed: listed && provider != Provider::XLive,
        };
        Self {
            seed,
            provider,
            things,
            wanted,
            settings: settings(provider, seed),
            lies,
            doubt: dice.chance(500),
            page,
            cuts: if dice.chance(300) { dice.between(50, 400) } else { 0 },
            by_offset: dice.chance(400),
            other_way: dice.chance(400),
        }
    }

    /// A thing by its place among all, the newest being 0, for people who look at a walk.
    pub(super) fn name(&self, id: &EventId) -> String {
        let number = match id {
            EventId::Tweet(id) => id.0.to_string(),
            EventId::Text(text) => text.clone(),
        };
        let at = self.things.iter().position(|thing| thing.id.to_string() == number);
        at.map_or_else(|| "?".to_owned(), |at| if self.things[at].came { format!("({at})") } else { at.to_string() })
    }

    pub(super) fn tells(&self, lie: Lie) -> bool {
        self.lies.iter().any(|told| told.lie == lie)
    }
}

fn thing(dice: &mut Dice, provider: Provider, ms: i64, horizon: Duration, down: std::ops::Range<UnixMicros>) -> Thing {
    let at = UnixMicros::from_millis(ms);
    let late = if dice.chance(30) {
        dice.ms(0, horizon.as_millis() as u64 - 1)
    } else {
        dice.ms(0, 1_500.min(horizon.as_millis() as u64 - 1))
    };
    let received = at.plus(late);
    let kind = match provider {
        Provider::Tweetstream => {
            *dice.pick(&[EventKind::Tweet, EventKind::Tweet, EventKind::Tweet, EventKind::Profile, EventKind::Follow])
        }
        Provider::XLive => EventKind::DmUpdate,
        _ => EventKind::Tweet,
    };
    let author = dice.below(HANDLES.len() as u64) as usize;
    let mut thing = Thing {
        kind,
        id: TweetId::first_at(at).0 + dice.below(1 << 20),
        at,
        received,
        author,
        words: [dice.chance(400), dice.chance(300)],
        came: false,
    };
    // What is said in a conversation never comes live by its own id.
    thing.came = kind != EventKind::DmUpdate && !down.contains(&received) && thing.is_selected(provider);
    thing
}

fn lies(dice: &mut Dice) -> Vec<Told> {
    let n = match dice.below(20) {
        0..3 => 0,
        3..14 => 1,
        14..18 => 2,
        _ => 3,
    };
    let chances = [1_000, 500, 200, 60];
    (0..n).map(|_| Told { lie: *dice.pick(&Lie::ALL), chance: *dice.pick(&chances) }).collect()
}

fn selectors(provider: Provider) -> Vec<Selector> {
    let one = |id: &str, text: String| Selector { id: id.to_owned(), texts: vec![text], sample: None };
    let watched = &HANDLES[..N_WATCHED];
    match provider {
        Provider::TwitterapiIo => {
            let rules = RULES.map(|(id, text)| one(id, text.to_owned()));
            rules.into_iter().chain(watched.iter().map(|handle| one(&format!("@{handle}"), format!("from:{handle}")))).collect()
        }
        Provider::Scrapebadger => {
            let rules = RULES.map(|(id, text)| one(id, text.to_owned()));
            rules.into_iter().chain([one(MONITOR, format!("accounts: {}", watched.join(" ")))]).collect()
        }
        Provider::Tweetstream => vec![one("watchlist", watched.join(" "))],
        Provider::XLive => vec![Selector { id: format!("/dm_update/{TALK}"), ..Selector::default() }],
    }
}

fn settings(provider: Provider, seed: u64) -> Settings {
    let key = Secret::new("k");
    let mut settings = default_settings(provider);
    settings.base = Some(Base::parse("http://history.test").unwrap());
    settings.credentials = Credentials { key: key.clone(), auth_token: key.clone(), ct0: key };
    settings.auth = if provider == Provider::Tweetstream { Auth::Bearer } else { Auth::Header };
    settings.direct_messages = true;
    settings.seed = seed;
    settings
}
