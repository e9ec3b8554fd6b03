//! What is true in a world: posts, what selects them, when a provider would say what, and what goes wrong on the way.
//!
//! Everything is drawn from the seed before anything runs. A [`Promise`] is something that a client which was always
//! connected would have been told; its mark stands in the envelope's text, so that it is found again without a decoder.

use std::time::Duration;

use birdtape::archive::Unsynced;
use birdtape::model::{Provider, TweetId, UnixMicros};
use birdtape::provider::past::{Index, Past};
use birdtape::provider::{Asked, Rest, RestSettings};
use bytes::Bytes;
use serde_json::{Value, json};

use super::dice::Dice;

/// 2026-11-02T08:00:00Z.
pub(super) const BEGIN: UnixMicros = UnixMicros(1_793_606_400_000_000);

/// Latest before the horizon is over that something comes, so that clocks may differ.
const MARGIN: Duration = Duration::from_secs(8);

/// Points at which a filling is cut off, where each is tried.
const CUTS: usize = 40;

/// Furthest that the recorder's clock is beside the provider's.
const SKEW_MS: u64 = 6_000;

const HANDLES: [&str; 6] = ["ann", "bob", "cyd", "dan", "eve", "fay"];
const WORDS: [&str; 5] = ["alpha", "beta", "gamma", "delta", "omega"];

/// The rule id of what only history holds; no client ever sees it.
pub(super) const INDEX: &str = "index";

const ADD_RULE: &str = "/oapi/tweet_filter/add_rule";

/// Posts that fit on a page of a poll.
const PAGE: usize = 20;

pub(super) struct World {
    pub(super) seed: u64,
    pub(super) provider: Provider,
    pub(super) horizon: Duration,
    /// Faults end here; then recording goes on undisturbed.
    pub(super) quiet_at: Duration,
    /// Recording ends here.
    pub(super) end: Duration,
    pub(super) promises: Vec<Promise>,
    /// By time.
    pub(super) happenings: Vec<(Duration, Happening)>,
    pub(super) lives: Vec<Life>,
    /// How runs of the backfiller end that come after the recorder's last one, each after so long.
    pub(super) cut_fills: Vec<(Duration, End)>,
    /// Milliseconds the recorder's wall clock is ahead, from when on.
    pub(super) skews: Vec<(Duration, i64)>,
    /// How many answers of history in a thousand are wrong, by kind.
    pub(super) lies: Lies,
    /// Whether the backfiller asks for everything twice.
    pub(super) looks_twice: bool,
    /// What is done when all gaps were filled.
    pub(super) last_chores: Vec<(Chore, End)>,
    /// How many times as rare as usual pings and keepalives are.
    pub(super) beats: u32,
    /// Rows that TweetStream gives at once, if it is not the documented number.
    pub(super) cap: Option<usize>,
    /// Each rule's text at the end.
    last_texts: Vec<(String, String)>,
    lags: bool,
    /// An account that was taken off the list.
    pub(super) removed: Option<&'static str>,
}

/// Something a client would be told.
#[derive(Clone, Debug)]
pub(super) struct Promise {
    pub(super) mark: String,
    /// Published, or for what is said about a post later: when it was said.
    pub(super) at: UnixMicros,
    pub(super) selectors: Vec<String>,
    /// A live-only thing beside the post: history need not have it.
    pub(super) is_side: bool,
    pub(super) due: Duration,
    /// Why it can be missing without any sign, if it can.
    pub(super) unseen: Option<Unseen>,
    /// Text of the rule that selected it, while it did.
    pub(super) rule: Option<(String, String)>,
    /// From when on history has it.
    pub(super) known_from: Duration,
    pub(super) handle: &'static str,
    /// From when on it is deleted, and history hides it.
    pub(super) deleted_at: Option<Duration>,
}

/// Loss that no client can see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Unseen {
    /// The provider never sent it.
    Swallowed,
    /// It did not fit on a rule's page.
    Truncated,
}

#[derive(Clone, Debug)]
pub(super) enum Happening {
    /// History learns of an envelope.
    Known(Bytes),
    /// An envelope goes to whoever is connected, again after so long.
    Due { envelope: Bytes, again: Option<Duration>, swallowed: bool },
    /// A connection suffers.
    Line(Trouble),
    /// The recorder's machine sleeps; its connections may not outlive it.
    Sleep { lasts: Duration, is_cut: bool },
    /// The customer changes what is delivered.
    Edit { method: &'static str, path: String, body: Value },
}

#[derive(Clone, Debug)]
pub(super) enum Trouble {
    Close(u16),
    Reset,
    /// Nothing more comes, and nobody says so.
    Stall,
    /// Openings are answered with this.
    Refuse {
        status: u16,
        retry_after: Option<Duration>,
        lasts: Duration,
    },
    /// Nobody can be reached, history neither.
    Unreachable {
        lasts: Duration,
    },
}

/// One run of the recorder.
#[derive(Clone, Debug)]
pub(super) struct Life {
    pub(super) lasts: Duration,
    pub(super) end: End,
    pub(super) down: Duration,
    /// Gaps are filled meanwhile, until it is ended like this.
    pub(super) fills: Option<End>,
    /// What is done before that.
    pub(super) chores: Vec<(Chore, End)>,
}

/// What an operator does while no recorder is there.
#[derive(Clone, Copy, Debug)]
pub(super) enum Chore {
    Compact,
    Prune { older_than: Duration },
    PruneTo { bytes: u64 },
    Export,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    /// In good order.
    Stop,
    /// At any moment; this is what the disk kept.
    Kill(Unsynced),
    /// At a named point of the archive's.
    Crash { nth: usize, kept: Unsynced },
    /// A write fails.
    DiskError { nth: u64, kept: Unsynced },
}

/// Of a thousand answers.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lies {
    pub(super) refused: u64,
    pub(super) failed: u64,
    pub(super) cut: u64,
    pub(super) missing_row: u64,
    pub(super) double_row: u64,
    pub(super) shuffled: u64,
    pub(super) repeated_page: u64,
    pub(super) cursor_loop: u64,
    pub(super) lying_next: u64,
}

struct Post {
    number: usize,
    id: u64,
    at: Duration,
    handle: &'static str,
    words: Vec<&'static str>,
    /// When history has it.
    known_from: Duration,
}

impl Post {
    fn text(&self) -> String {
        format!("{} {}", self.words.join(" "), mark('q', self.number))
    }

    fn published(&self) -> UnixMicros {
        BEGIN.plus(self.at)
    }
}

fn mark(kind: char, number: usize) -> String {
    format!("{kind}{number:06}{kind}")
}

fn ms(at: Duration) -> i64 {
    BEGIN.plus(at).millis()
}

/// What a world is to be, where it is not left to chance.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wish {
    pub(super) provider: Option<Provider>,
    /// TwitterAPI.io: how often rules are polled.
    pub(super) poll: Option<Duration>,
    /// No rule edits, lies or deaths: the known case.
    pub(super) only_drops: bool,
    /// So many posts that a page holds less than an edge of a gap.
    pub(super) is_crowded: bool,
    /// Filling is cut off at each of the archive's first points in turn.
    pub(super) is_cut: bool,
    /// So many times as long, with as many posts and faults; nobody is there for so many times as long.
    pub(super) stretch: Option<u32>,
}

/// A long world's pings and keepalives are so many times as rare for each so many times it is as long.
const BEATS: u32 = 10;

impl Wish {
    /// How often as long as usual.
    fn times(&self) -> u32 {
        self.stretch.unwrap_or(1)
    }

    /// How many times as rare as usual pings and keepalives are: most of what they do in a quiet year is the same.
    fn beats(&self) -> u32 {
        (self.times() / BEATS).max(1)
    }
}

impl World {
    pub(super) fn new(seed: u64, wish: Wish) -> Self {
        let mut dice = Dice::new(seed, 1);
        let providers = [Provider::TwitterapiIo, Provider::Tweetstream, Provider::Scrapebadger];
        let provider = wish.provider.unwrap_or(providers[(seed % 3) as usize]);
        let poll = wish.poll.unwrap_or_else(|| match provider {
            Provider::TwitterapiIo if dice.chance(150) => Duration::from_secs(600),
            Provider::TwitterapiIo => Duration::from_secs(100),
            _ => Duration::from_secs(60),
        });
        let horizon = match provider {
            Provider::TwitterapiIo => poll + Duration::from_secs(80),
            Provider::Tweetstream => Duration::from_secs(60),
            _ => Duration::from_secs(120),
        };
        let quiet_at = dice.secs(2_400, 5_400).max(poll * 12) * wish.times();
        // Whoever is refused for good asks again after a quarter of an hour, and may be refused until then.
        let end = quiet_at + horizon * 3 + Duration::from_secs(4_000) + Duration::from_secs(120) * (wish.beats() - 1);
        let posts = posts(&mut dice, end, wish);
        let mut world = Self {
            seed,
            provider,
            horizon,
            quiet_at,
            end,
            promises: Vec::new(),
            happenings: Vec::new(),
            lives: Vec::new(),
            cut_fills: Vec::new(),
            skews: Vec::new(),
            lies: if wish.only_drops { Lies::default() } else { lies(&mut dice) },
            looks_twice: !wish.is_crowded && !wish.is_cut,
            last_chores: Vec::new(),
            beats: wish.beats(),
            cap: None,
            last_texts: Vec::new(),
            removed: None,
            lags: posts.iter().any(|post| post.known_from > post.at + Duration::from_secs(30)),
        };
        match provider {
            Provider::TwitterapiIo => world.rules_and_accounts(&mut dice, &posts, poll, wish),
            Provider::Tweetstream => world.watchlist(&mut dice, &posts, wish),
            _ => world.monitors(&mut dice, &posts, poll, wish),
        }
        world.troubles(&mut dice, wish);
        world.deaths(&mut dice, wish);
        let mut skew = dice.between(0, 2_000) as i64 - 1_000;
        world.skews.push((Duration::ZERO, skew));
        for _ in 0..dice.below(3) {
            skew = (skew + dice.between(0, 2_000) as i64 - 1_000).clamp(-1_500, 1_500);
            world.skews.push((dice.ms(0, world.quiet_at.as_millis() as u64), skew));
        }
        if wish.is_cut {
            let cut = |nth| (Duration::from_secs(600), End::Crash { nth, kept: Unsynced::Lost });
            world.cut_fills = (0..CUTS).map(cut).collect();
        }
        if !wish.only_drops {
            world.oddities(&mut Dice::new(seed, 3), wish);
            world.housekeeping(&mut Dice::new(seed, 4));
        }
        world.skews.sort_by_key(|(at, _)| *at);
        world.happenings.sort_by_key(|(at, _)| *at);
        world
    }

    /// Whether its history is late with some posts.
    pub(super) fn lies_by_lag(&self) -> bool {
        self.lags
    }

    /// Whether an honest history has all that a gap can lack, so that each must be filled in the end.
    pub(super) fn is_fillable(&self) -> bool {
        match self.provider {
            Provider::TwitterapiIo => true,
            Provider::Tweetstream => self.removed.is_none(),
            // A rule's query is not on the tape, and its logs prove nothing where the tape has nothing beside the gap.
            _ => false,
        }
    }

    /// Whether a rule's list shows that text in the end.
    pub(super) fn is_last_text(&self, rule: &(String, String)) -> bool {
        self.last_texts.contains(rule)
    }

    fn known(&mut self, at: Duration, envelope: &Value) {
        self.happenings.push((at, Happening::Known(Bytes::from(envelope.to_string()))));
    }

    /// An envelope is on its way; chance has a say in when it comes, how often, and whether at all.
    fn due(&mut self, dice: &mut Dice, at: Duration, latest: Duration, envelope: &Value) -> (Duration, bool) {
        let in_trouble = at < self.quiet_at;
        let late = if in_trouble && dice.chance(120) { dice.ms(0, 600_000) } else { Duration::ZERO };
        let at = (at + late).min(latest.max(at));
        let again = (in_trouble && dice.chance(60)).then(|| dice.ms(1, 20_000));
        let swallowed = in_trouble && dice.chance(15);
        self.happenings.push((at, Happening::Due { envelope: Bytes::from(envelope.to_string()), again, swallowed }));
        (at, swallowed)
    }

    fn promise(&mut self, post: &Post, selector: &str, (due, swallowed): (Duration, bool), rule: Option<(String, String)>) {
        let mark = mark('q', post.number);
        let unseen = swallowed.then_some(Unseen::Swallowed);
        if let Some(known) = self.promises.iter_mut().rev().find(|promise| promise.mark == mark) {
            // What one rule's page does not say another's may.
            known.unseen = known.unseen.and(unseen);
            known.selectors.push(selector.to_owned());
            known.due = known.due.min(due);
            known.rule = known.rule.take().and(rule);
            return;
        }
        let (at, selectors) = (post.published(), vec![selector.to_owned()]);
        let known_from = post.known_from;
        self.promises.push(Promise {
            mark,
            at,
            selectors,
            is_side: false,
            due,
            unseen,
            rule,
            known_from,
            handle: post.handle,
            deleted_at: None,
        });
    }

    // TwitterAPI.io: rules are polled, accounts are told of at once.

    fn rules_and_accounts(&mut self, dice: &mut Dice, posts: &[Post], poll: Duration, wish: Wish) {
        for post in posts {
            let envelope =
                json!({ "event_type": "tweet", "rule_id": INDEX, "timestamp": ms(post.known_from), "tweets": [tweet(post)] });
            self.known(post.known_from, &envelope);
        }
        let ids = rule_ids(dice.between(1, 3) as usize);
        for (nth, id) in ids.iter().enumerate() {
            self.edit(Duration::ZERO, "POST", ADD_RULE, new_rule(nth));
            self.rule(dice, posts, poll, (nth, id), wish);
        }
        if !wish.only_drops && dice.chance(500) {
            let handle = HANDLES[0];
            let body = json!({ "x_user_name": handle });
            self.edit(Duration::ZERO, "POST", "/oapi/x_user_stream/add_user_to_monitor_tweet", body);
            for post in posts.iter().filter(|post| post.handle == handle) {
                let at = post.at + dice.ms(300, 4_000);
                let envelope = json!({ "event_type": "tweet", "tweets": [tweet(post)], "timestamp": ms(at) });
                let due = self.due(dice, at, post.at + self.horizon - MARGIN, &envelope);
                self.promise(post, "", due, None);
            }
        }
    }

    fn rule(&mut self, dice: &mut Dice, posts: &[Post], poll: Duration, (nth, id): (usize, &str), wish: Wish) {
        // From when on which text is in force; an empty one is a rule that is switched off.
        let mut texts = vec![(Duration::ZERO, WORDS[nth].to_owned())];
        let mut at = Duration::ZERO;
        for _ in 0..if wish.only_drops { 0 } else { dice.below(3) } {
            at += dice.secs(300, self.quiet_at.as_secs() / 2);
            let text = match dice.below(4) {
                0 => String::new(),
                1 => format!("{} OR {}", dice.pick(&WORDS), dice.pick(&WORDS)),
                _ => (*dice.pick(&WORDS)).to_owned(),
            };
            texts.push((at, text));
        }
        self.last_texts.extend(texts.last().map(|(_, text)| (id.to_owned(), text.clone())));
        for (at, text) in &texts {
            let value = if text.is_empty() { "nothing" } else { text };
            let is_effect = u8::from(!text.is_empty());
            let body = json!({ "rule_id": id, "tag": "t", "value": value, "interval_seconds": 100, "is_effect": is_effect });
            self.edit(*at, "POST", "/oapi/tweet_filter/update_rule", body);
        }
        // Each post is found by the provider some seconds after it was published, so pages are out of order at their edges.
        let found: Vec<_> = posts.iter().map(|post| (post.at + dice.ms(0, 25_000), post)).collect();
        let mut at = dice.ms(1, poll.as_millis() as u64);
        while at < self.end {
            let text = &texts.iter().rev().find(|(from, _)| *from <= at).expect("the first is in force from the start").1;
            let wanted: Vec<_> = text.split(" OR ").collect();
            let within = |found: &Duration| *found <= at && *found + poll > at;
            let matching = |post: &Post| wanted.iter().any(|word| post.words.contains(word));
            let mut page: Vec<&Post> =
                found.iter().filter(|(found, post)| within(found) && matching(post)).map(|(_, post)| *post).collect();
            page.sort_by_key(|post| std::cmp::Reverse(post.id));
            if !page.is_empty() {
                let rule = Some((id.to_owned(), text.clone()));
                for post in page.drain(page.len().min(PAGE)..) {
                    self.promise(post, id, (at, false), rule.clone());
                    if let Some(promise) = self.promises.iter_mut().rev().find(|p| p.mark == mark('q', post.number)) {
                        promise.unseen = promise.unseen.or(Some(Unseen::Truncated));
                    }
                }
                if dice.chance(200) {
                    page.reverse();
                }
                let tweets: Vec<_> = page.iter().map(|post| tweet(post)).collect();
                let said = at + dice.ms(50, 900);
                let envelope = json!({
                    "event_type": "tweet", "rule_id": id, "rule_tag": "t", "rule_value": text, "tweets": tweets, "timestamp": ms(said),
                });
                let latest = page.iter().map(|post| post.at).min().unwrap_or(said) + self.horizon - MARGIN;
                let due = self.due(dice, said, latest, &envelope);
                for post in page {
                    self.promise(post, id, due, rule.clone());
                }
            }
            at += poll;
        }
    }

    fn edit(&mut self, at: Duration, method: &'static str, path: &str, body: Value) {
        self.happenings.push((at, Happening::Edit { method, path: path.to_owned(), body }));
    }

    // TweetStream: accounts, and more is said about a post after it.

    fn watchlist(&mut self, dice: &mut Dice, posts: &[Post], wish: Wish) {
        let removed = (!wish.only_drops && dice.chance(250)).then(|| (dice.secs(600, self.quiet_at.as_secs()), HANDLES[5]));
        self.removed = removed.map(|(_, handle)| handle);
        if let Some((at, handle)) = removed {
            self.edit(at, "DELETE", "/api/remove-account", json!({ "accounts": handle }));
        }
        for post in posts {
            if removed.is_some_and(|(at, handle)| post.handle == handle && post.at >= at) {
                continue;
            }
            let first = post.at + dice.ms(200, 2_000);
            let content = content(post, first);
            self.known(post.known_from, &content);
            let due = self.due(dice, first, post.at + self.horizon - MARGIN, &content);
            self.promise(post, "", due, None);
            let side = |world: &mut Self, dice: &mut Dice, kind: char, op: &str, at: Duration| {
                let mark = mark(kind, post.number);
                let id = post.id.to_string();
                let envelope = json!({
                    "v": 1, "t": "tweet", "op": op, "id": id, "ts": ms(at), "d": { "tweetId": id, "note": { "text": mark } },
                });
                world.known(at, &envelope);
                world.happenings.push((
                    at,
                    Happening::Due {
                        envelope: Bytes::from(envelope.to_string()),
                        again: dice.chance(30).then(|| dice.ms(1, 5_000)),
                        swallowed: false,
                    },
                ));
                let (at_wall, selectors) = (BEGIN.plus(at), vec![String::new()]);
                world.promises.push(Promise {
                    mark,
                    at: at_wall,
                    selectors,
                    is_side: true,
                    due: at,
                    unseen: None,
                    rule: None,
                    known_from: at,
                    handle: post.handle,
                    deleted_at: None,
                });
            };
            // What is said after the account was taken off the list is not said at all.
            let until = removed.filter(|(_, handle)| *handle == post.handle).map_or(self.end, |(at, _)| at);
            let says = [('m', "meta", 700, 8), ('u', "update", 150, 60), ('d', "delete", 60, 1_200)];
            for (kind, op, chance, within) in says {
                let at = first + dice.ms(300, within * 1_000);
                if dice.chance(chance) && at < until {
                    let own = self.promises.iter_mut().rev().find(|promise| promise.mark == mark('q', post.number));
                    if let (Some(own), "delete") = (own, op) {
                        own.deleted_at = Some(at);
                    }
                    side(self, dice, kind, op, at);
                }
            }
        }
    }

    // ScrapeBadger: monitors and rules, each post by itself, all in the provider's logs.

    fn monitors(&mut self, dice: &mut Dice, posts: &[Post], poll: Duration, wish: Wish) {
        let gone = (!wish.only_drops && dice.chance(200)).then(|| dice.secs(900, self.quiet_at.as_secs()));
        let pause = (!wish.only_drops && dice.chance(300)).then(|| {
            let at = dice.secs(600, self.quiet_at.as_secs());
            (at, at + dice.secs(60, 1_200))
        });
        if let Some(at) = gone {
            self.edit(at, "DELETE", "/v1/twitter/stream/monitors/mon-2", json!({}));
        }
        if let Some((from, to)) = pause {
            let path = "/v1/twitter/stream/filter-rules/rule-1";
            self.edit(from, "PATCH", path, json!({ "status": "paused" }));
            self.edit(to, "PATCH", path, json!({ "status": "active" }));
        }
        let phase = dice.ms(1, poll.as_millis() as u64);
        for post in posts {
            let monitors = [("mon-1", &HANDLES[..2]), ("mon-2", &HANDLES[2..3])];
            for (id, _) in monitors.iter().filter(|(_, handles)| handles.contains(&post.handle)) {
                let at = post.at + dice.ms(100, 2_500);
                if *id == "mon-2" && gone.is_some_and(|gone| at >= gone) {
                    continue;
                }
                self.detected(dice, post, id, at, false);
            }
            for (id, word) in [("rule-1", WORDS[0]), ("rule-2", WORDS[1])] {
                if !post.words.contains(&word) {
                    continue;
                }
                let found = post.at + dice.ms(0, 15_000);
                let n = (found.as_millis().saturating_sub(phase.as_millis())).div_ceil(poll.as_millis());
                let at = phase + poll * u32::try_from(n).expect("a world is short") + dice.ms(0, 300);
                if id == "rule-1" && pause.is_some_and(|(from, to)| at >= from && at < to) {
                    continue;
                }
                self.detected(dice, post, id, at, true);
            }
        }
    }

    fn detected(&mut self, dice: &mut Dice, post: &Post, selector: &str, at: Duration, is_rule: bool) {
        let id = post.id.to_string();
        let (detected, latency) = (BEGIN.plus(at).to_string(), (at - post.at).as_millis() as u64);
        let envelope = if is_rule {
            json!({
                "type": "new_tweet", "source": "filter_rule", "rule_id": selector, "rule_tag": selector, "tweet_id": id,
                "author_username": post.handle, "tweet_text": post.text(), "tweet_type": "original", "latency_ms": latency,
                "detected_at": detected,
            })
        } else {
            json!({
                "event": "tweet.detected", "monitor_id": selector, "monitor_name": selector, "tweet_id": id,
                "author_username": post.handle, "tweet_text": post.text(), "tweet_published_at": post.published().to_string(),
                "detected_at": detected, "latency_ms": latency,
            })
        };
        self.known(at, &envelope);
        let due = self.due(dice, at, post.at + self.horizon - MARGIN, &envelope);
        self.promise(post, selector, due, None);
    }

    // What goes wrong.

    fn troubles(&mut self, dice: &mut Dice, wish: Wish) {
        // Some kinds are off in a world, so that others come together more often.
        let mut kinds: Vec<u8> = (0..5).filter(|_| dice.chance(650)).collect();
        if wish.only_drops || kinds.is_empty() {
            kinds = vec![0, 1, 2];
        }
        for _ in 0..dice.between(1, 7) {
            let at = dice.ms(30_000, self.quiet_at.as_millis() as u64 - 1);
            let trouble = match dice.pick(&kinds) {
                0 => Trouble::Close(*dice.pick(&[1000, 1001, 1006, 1011, 1012, 1013, 1008, 4000])),
                1 => Trouble::Reset,
                2 => Trouble::Stall,
                3 => {
                    let status = *dice.pick(&[429, 500, 502, 503, 402]);
                    let retry_after = dice.chance(500).then(|| dice.secs(1, 200));
                    Trouble::Refuse { status, retry_after, lasts: dice.secs(5, 400) }
                }
                _ => Trouble::Unreachable { lasts: dice.secs(5, 900) },
            };
            // Refusing and being away matter only to who has to come back.
            if matches!(trouble, Trouble::Refuse { .. } | Trouble::Unreachable { .. }) {
                self.happenings.push((at, Happening::Line(Trouble::Reset)));
            }
            self.happenings.push((at, Happening::Line(trouble)));
        }
    }

    /// What is seldom: sleeps, clocks that are put, pages of another size, fillings that end in the middle.
    fn oddities(&mut self, dice: &mut Dice, wish: Wish) {
        let upto = self.quiet_at.as_millis() as u64;
        for _ in 0..if dice.chance(300) { dice.between(1, 2) } else { 0 } {
            let lasts = if dice.chance(300) { dice.ms(600, 5_000) } else { dice.secs(5, 1_800) * wish.times() };
            self.happenings.push((dice.ms(30_000, upto), Happening::Sleep { lasts, is_cut: dice.chance(500) }));
        }
        for _ in 0..if dice.chance(300) { dice.between(1, 3) } else { 0 } {
            self.skews.push((dice.ms(0, upto), dice.between(0, 2 * SKEW_MS) as i64 - SKEW_MS as i64));
        }
        // Rows that are left out of a page leave no trace but in a second look.
        self.looks_twice = self.lies.missing_row > 0 || dice.chance(500);
        // Otherwise the fake's list has those it heard of, as if each were added a moment before it is first heard of.
        if self.provider == Provider::Tweetstream && dice.chance(500) {
            self.edit(Duration::ZERO, "POST", "/api/add-account", json!({ "accounts": HANDLES }));
        }
        self.cap = dice.chance(300).then(|| dice.between(20, 200) as usize);
        for _ in 0..if dice.chance(400) { dice.between(1, 4) } else { 0 } {
            let end = match dice.below(2) {
                0 => End::Kill(kept(dice)),
                _ => End::Crash { nth: dice.between(0, 150) as usize, kept: kept(dice) },
            };
            self.cut_fills.push((dice.secs(1, 60), end));
        }
    }

    /// Half of the operators keep house, each time in one way or more.
    fn housekeeping(&mut self, dice: &mut Dice) {
        if !dice.chance(500) {
            return;
        }
        let upto = self.quiet_at.as_millis() as u64;
        let n_lives = self.lives.len();
        for at in 0..=n_lives {
            for _ in 0..dice.below(3) {
                let chore = match dice.below(6) {
                    0 | 1 => Chore::Compact,
                    2 => Chore::Prune { older_than: dice.ms(upto / 20, upto) },
                    3 => Chore::PruneTo { bytes: dice.between(20, 400) << 10 },
                    _ => Chore::Export,
                };
                let end = match dice.below(3) {
                    0 => End::Crash { nth: dice.between(0, 60) as usize, kept: kept(dice) },
                    1 => End::DiskError { nth: dice.between(1, 40), kept: kept(dice) },
                    _ => End::Stop,
                };
                let chores = if at < n_lives { &mut self.lives[at].chores } else { &mut self.last_chores };
                chores.push((chore, end));
            }
        }
    }

    fn deaths(&mut self, dice: &mut Dice, wish: Wish) {
        let end = |dice: &mut Dice| match dice.below(5) {
            0 => End::Stop,
            1 | 2 => End::Kill(kept(dice)),
            3 => End::Crash { nth: dice.between(0, 400) as usize, kept: kept(dice) },
            _ => End::DiskError { nth: dice.between(1, 900), kept: kept(dice) },
        };
        for _ in 0..if wish.only_drops { 0 } else { dice.below(5) } {
            let lasts = dice.ms(500, self.quiet_at.as_millis() as u64 / 2);
            let down = if dice.chance(300) { dice.ms(0, 3_000) } else { dice.secs(3, 900) * wish.times() };
            let fills = dice.chance(500).then(|| match dice.below(3) {
                0 => End::Stop,
                1 => End::Kill(kept(dice)),
                _ => End::Crash { nth: dice.between(0, 60) as usize, kept: kept(dice) },
            });
            self.lives.push(Life { lasts, end: end(dice), down, fills, chores: Vec::new() });
        }
    }
}

/// What a disk may keep of what was not synced.
fn kept(dice: &mut Dice) -> Unsynced {
    *dice.pick(&[Unsynced::Lost, Unsynced::Kept, Unsynced::Torn, Unsynced::Removed])
}

fn new_rule(nth: usize) -> Value {
    json!({ "tag": "t", "value": WORDS[nth], "interval_seconds": 100 })
}

/// The names that the fake gives to the first rules somebody adds: it makes them from what is added.
fn rule_ids(n: usize) -> Vec<String> {
    let mut rest = Rest::new(Provider::TwitterapiIo, RestSettings { rate_limits: false, ..RestSettings::default() });
    let (mut index, mut shelf) = (Index::default(), Vec::<Bytes>::new());
    let headers = [("x-api-key".to_owned(), "k".to_owned())];
    let mut add = |nth: usize| {
        let body = new_rule(nth).to_string();
        let asked =
            Asked { method: "POST", path: ADD_RULE, query: "", headers: &headers, body: body.as_bytes(), wants_upgrade: false };
        let mut past = Past::new(Provider::TwitterapiIo, &mut index, &mut shelf, BEGIN);
        let answer: Value = serde_json::from_slice(&rest.asked(&asked, &mut past, std::time::Instant::now()).body).unwrap();
        answer["rule_id"].as_str().unwrap().to_owned()
    };
    (0..n).map(&mut add).collect()
}

fn posts(dice: &mut Dice, end: Duration, wish: Wish) -> Vec<Post> {
    // Milliseconds from one post to the next.
    let every = if wish.is_crowded { 2_000 } else { dice.between(6, 45) * 1_000 } * u64::from(wish.times());
    let lags = !wish.only_drops && dice.chance(150);
    let mut at = Duration::ZERO;
    let mut posts = Vec::new();
    let mut burst = 0;
    while at < end {
        if burst == 0 && dice.chance(8) {
            burst = dice.between(15, 45);
        }
        at += if burst > 0 { dice.ms(100, 1_500) } else { dice.ms(0, every * 2) };
        burst = burst.saturating_sub(1);
        let words: Vec<&str> = WORDS.into_iter().filter(|_| dice.chance(300)).collect();
        let number = posts.len();
        // An index that lags behind: no client can tell it from the truth.
        let lag = if lags && dice.chance(30) { dice.secs(60, 3_600) } else { dice.ms(0, 2_000) };
        posts.push(Post {
            number,
            id: TweetId::first_at(BEGIN.plus(at)).0 + dice.below(1 << 20),
            at,
            handle: HANDLES[dice.below(6) as usize],
            words,
            known_from: at + lag,
        });
    }
    posts
}

fn lies(dice: &mut Dice) -> Lies {
    let some = |dice: &mut Dice, most: u64| if dice.chance(500) { dice.between(1, most) } else { 0 };
    Lies {
        refused: some(dice, 100),
        failed: some(dice, 100),
        cut: some(dice, 100),
        missing_row: some(dice, 250),
        double_row: some(dice, 250),
        shuffled: some(dice, 250),
        repeated_page: some(dice, 150),
        cursor_loop: some(dice, 150),
        lying_next: some(dice, 150),
    }
}

/// A post as TwitterAPI.io writes it.
fn tweet(post: &Post) -> Value {
    json!({
        "type": "tweet", "id": post.id.to_string(), "text": post.text(), "lang": "en", "likeCount": 0, "isReply": false,
        "author": { "type": "user", "userName": post.handle, "id": handle_id(post.handle), "name": post.handle },
    })
}

/// A post as TweetStream writes it.
fn content(post: &Post, at: Duration) -> Value {
    let id = post.id.to_string();
    json!({
        "v": 1, "t": "tweet", "op": "content", "id": id, "ts": ms(at),
        "d": {
            "tweetId": id, "text": post.text(), "createdAt": post.published().millis(),
            "author": { "id": handle_id(post.handle), "handle": format!("@{}", post.handle), "name": post.handle },
        },
    })
}

fn handle_id(handle: &str) -> String {
    (1_000 + HANDLES.iter().position(|known| *known == handle).unwrap_or(0)).to_string()
}
