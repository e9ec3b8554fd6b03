//! Walks through histories that lie: no sockets, no tape, hundreds of worlds a second.
//!
//! One seed is one hole of one provider, with what really happened around it (`world.rs`), and a history that is wrong
//! about it in up to three ways, once or always (`peer.rs`). The real [`Walk`] asks it, as the backfiller would: an answer
//! that is no page is asked for again a few times, and where a walk is cut off, another one goes on from its cursor. Then:
//!
//! - what a verdict calls whole misses nothing that happened there and did not come live;
//! - a truthful history ends as filled, every kind of it;
//! - each walk ends by itself, long before [`REQUESTS_MAX`].
//!
//! # What no client can know
//!
//! The peer notes what it keeps back in an answer on which nothing is wrong, and a thing that is missing is a fault of ours
//! only if a client could have known:
//!
//! | kept back | fault of ours |
//! | --- | --- |
//! | never, because it was never asked for, or only by answers with a sign: a cursor that was seen, a page that is short, empty or the last one again and claims more, a number that does not fit, bounds by a second | yes |
//! | once, behind rows that were said to be the last, and no edge of the stretch proves that | yes: that is looked at again |
//! | once, on a last page of a search, where a walk was told to doubt; TweetStream's anywhere then | yes: that is asked twice |
//! | always, whatever is asked | no |
//! | by a page that is short and claims more, and by another one that is that or looks right: it was looked for a second time | no |
//! | otherwise on pages that look right: left out and filled up from below, passed over, hidden for good, not there yet | no |
//!
//! No sign is the page before where the question is the one before, a page that nothing but foreign rows made full, and, where no
//! document says how many rows fit, a page shorter than one that was lost before anybody kept it.
//! What is excused is in the table, by name; there too how often history kept back even what is on the tape.
//!
//! # Negative controls
//!
//! [`Mutant`]s stand between the history and the walk, or behind it, and do what a worse walk would; each must be caught.
//! What was once so, and red in seeds 0 to 1,999:
//!
//! | what was once so | red |
//! | --- | --- |
//! | an empty page that claims more was taken for the end after a few looks | 89, 333, 784 and more |
//! | TweetStream's rows that are counted and not there were taken for none | 1065 |
//! | a conversation's end was believed at once, stray rows moved where it goes on, entries of others counted | 168, 174, 177, 506, 1434 and more |
//! | what TweetStream's history did not answer was asked for again only by way of what it had answered | 1361 |
//! | a page of another search was believed when it came again, or its search found the same | 520 and, beyond, 22105, 6885 |
//! | a cursor that another search had been given was followed | 3253, 16590 and more |
//! | a second look whose limit by id was ignored went on for ever | 12640, 32383 and more |
//! | strays on a page of TweetStream's moved the ends of the next look | 16987 |
//! | what a short page lacked was looked for no further than its own oldest row | 28564 |
//! | strays from before the window were its oldest row, and a window ended there | 9050, 52578, 69664, 87965 and more |
//! | rows that nothing selected were the oldest of a page whose cursor is not followed | 9782, 67784, 97813 |
//! | a history that was caught at something was believed though it had said it once only | 3864, 18646, 29156, 33809 and more |
//! | another search's page was believed where it happened to fit | 20522, 21307, 29310, 43831 and more |
//! | what one pass through a history that was caught proved in part was believed | 56 of a million |
//! | a look into TweetStream's history lacked the row it begins with, as rows were left out or bounds rounded, and was believed | 340506, 401162, 604002 |
//! | what lies below a short page of TweetStream's hung on one look | 37996, 507122 |
//! | rows of a page of X were missing, and only a longer page behind it shows that | 868423 |
//! | rows of ScrapeBadger's log moved from the first page to the second | 19316, 45261, 404895 |
//! | a page of TweetStream's was given for another question, no more than half of its rows were from outside, and it was believed | 82302, 227703, 442847 |
//! | what was given up was tried again in as many pieces as it was in, and each of those in more | 331138, 621506 |
//! | two searches were given one page, told apart by other strays on it, or because the second had been given it before | 120865, 403861, 622849, 859000 and more |
//! | a second pass of TweetStream's asked the same again, and a page that came again fitted | 489592, 555841, 749896, 911811 and more |
//! | the one row there is came again, and nothing below it was asked for | 487364, 918739 |
//! | TweetStream gave twelve rows of one instant, and never more at once | 370812 |
//! | rows a millisecond beyond a window of TweetStream's made it ask for that window again, without an end | 8161 |
//! | a row from outside, or one told twice, took the place of one that was left out, and the page passed for full | 407777, 484530, 888210 |
//!
//! | X's last page came again, and the entry at its bound passed for what lies below | 145772, 428191 |
//! | a page of X's that lacked rows was called the end, which it was not | 83277, 824995 |
//! | the one row of TweetStream's came again and fitted by the earlier of its times | 12457, 95462, 167022 and more |
//! | rows that stood on the page before, where cursors count rows, took the place of others | 622609 |
//! | a few rows from before the window, on a page that claims more, passed for its end | 633122, 799095 |
//! | a row of the second at which a window ends took the place of one that is in it | 2131135 |
//!
//! # What is still so
//!
//! Of worlds 0 to 999,999 none breaks a promise: the walks were mended with them. Of the 1,500,000 behind them seven do
//! (0.0005 %; nine before the last row above), all in searches, where two or three lies at once hide each other: 1356999, 1485526,
//! 1562270, 1968366, 2116493, 2149580, 2230589. In 1485526 three strays stand on another search's page of seven rows.

mod peer;
mod world;

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Mutex;
use std::time::Instant;

use birdtape::model::{EventId, EventKind, Provider, Response, UnixMicros};
use birdtape::provider::history::{Known, Next, Proof, Trouble, Verdict, Walk, read_page};
use serde_json::Value;

use crate::simulate::dice::Dice;
use crate::simulate::table::Table;

use peer::Peer;
use world::{Lie, World};

/// Worlds of the gate.
const GATE: u64 = 2_000;

/// Worlds beyond those that once showed a fault of ours, of the table above; they stay in the gate.
const ONCE_BROKEN: [u64; 82] = [
    3_253, 3_864, 6_885, 8_161, 9_050, 9_782, 12_457, 12_640, 16_590, 16_987, 18_646, 19_316, 20_522, 21_307, 22_105, 28_564,
    29_156, 29_310, 32_383, 33_809, 37_996, 43_831, 45_261, 52_578, 61_919, 67_784, 69_664, 82_302, 83_277, 87_965, 95_462,
    97_813, 120_865, 127_127, 145_772, 167_022, 176_671, 227_703, 256_205, 274_211, 283_377, 293_546, 328_531, 331_138, 340_506,
    370_812, 382_686, 401_162, 403_861, 404_895, 407_777, 428_191, 442_847, 484_530, 487_364, 489_592, 507_122, 516_748, 553_912,
    555_841, 558_434, 567_545, 604_002, 621_506, 622_609, 622_849, 633_122, 659_617, 662_712, 737_024, 749_896, 799_095, 824_995,
    825_736, 859_000, 868_423, 876_491, 876_825, 888_210, 911_811, 918_739, 2_131_135,
];

/// No walk needs so many requests; one that makes them would go on for ever.
const REQUESTS_MAX: usize = 3_000;

/// As the backfiller: attempts at one page.
const TRIES: u32 = 8;

/// What must have happened in the gate's worlds, besides every lie.
const SOMETIMES: [&str; 12] = [
    "truthful",
    "only trouble",
    "filled",
    "partial",
    "left as it is",
    "cut off, page kept",
    "cut off, page lost",
    "asked in bulk",
    "excused: kept back among other rows",
    "excused: history never gives it",
    "missing, and the verdict says so",
    "brought",
];

/// Of what is excused: history gave nothing of the stretch's beginning, not even what came live there. A client could know
/// that such a history does not reach so far, if it looked for what it has and does not get.
const KEPT_ALL_BACK: &str = "excused, and nothing that came live was given there";

/// A worse walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mutant {
    /// A cursor that was seen before ends the search.
    RepeatedCursorEnds,
    /// An empty page ends the search, whatever it claims.
    EmptyPageEnds,
    /// The first page is all there is, full or not.
    FirstPageIsAll,
    /// A second look is believed to bring what the first one brought.
    LooksOnce,
    /// The cursor is stored before its page.
    CursorBeforePage,
    /// Whatever was not proven is called filled.
    AlwaysFilled,
    /// Nothing is ever proven.
    NeverFilled,
    /// Goes on and on.
    NeverEnds,
}

impl Mutant {
    const ALL: [Self; 8] = [
        Self::RepeatedCursorEnds,
        Self::EmptyPageEnds,
        Self::FirstPageIsAll,
        Self::LooksOnce,
        Self::CursorBeforePage,
        Self::AlwaysFilled,
        Self::NeverFilled,
        Self::NeverEnds,
    ];
}

/// What is on the tape.
struct Held(HashSet<(EventKind, EventId)>);

impl Known for Held {
    fn holds(&mut self, kind: EventKind, id: &EventId) -> bool {
        self.0.contains(&(kind, id.clone()))
    }
}

struct Run<'w> {
    world: &'w World,
    peer: Peer<'w>,
    dice: Dice,
    mutant: Option<Mutant>,
    held: Held,
    /// What history gave.
    given: HashSet<(EventKind, EventId)>,
    table: Table,
    /// What mutants remember.
    cursors: HashSet<String>,
    answers: HashMap<String, Response>,
    n_asked: usize,
}

/// Walks through one world; what is wrong, in words.
fn run(world: &World, mutant: Option<Mutant>) -> (Table, Vec<String>) {
    let came = world.things.iter().filter(|thing| thing.came).map(world::Thing::key).collect();
    let mut run = Run {
        world,
        peer: Peer::new(world),
        dice: Dice::new(world.seed, 13),
        mutant,
        held: Held(came),
        given: HashSet::new(),
        table: Table::default(),
        cursors: HashSet::new(),
        answers: HashMap::new(),
        n_asked: 0,
    };
    let verdict = run.walk();
    let violations = run.judge(verdict);
    let Run { mut table, peer, .. } = run;
    table.merge(&peer.table);
    (table, violations)
}

impl Run<'_> {
    fn begin(&self, cursor: Option<&str>) -> Walk {
        let mut walk = Walk::new(&self.world.settings, self.world.wanted.clone(), cursor);
        if self.world.doubt {
            walk.doubt();
        }
        walk
    }

    /// To the verdict; `Ok(None)` if it is left for another day.
    fn walk(&mut self) -> Result<Option<Verdict>, String> {
        let mut walk = self.begin(None);
        let mut tries = 0;
        loop {
            let request = match walk.next() {
                Next::Ask(request) => request,
                Next::Done(verdict) => return Ok(Some(verdict)),
            };
            self.n_asked += 1;
            if self.n_asked > REQUESTS_MAX {
                return Err(format!("no end after {REQUESTS_MAX} requests: {}", request.shown));
            }
            if !request.body.is_empty() {
                self.table.note("asked in bulk");
            }
            let before = walk.cursor();
            let response = self.peer.answer(&request);
            let response = self.bend(request.target.expose(), &request.body, response);
            if self.mutant == Some(Mutant::NeverEnds) {
                continue;
            }
            let decoded = walk.has_read(read_page(self.world.provider, &response.body));
            if self.mutant.is_none() && talks() {
                let ids: Vec<_> = decoded.events.iter().map(|event| self.world.name(&event.id)).collect();
                println!("{} {} -> {} {}", request.shown, request.body, response.status, ids.join(" "));
                println!("    {}", said(&response));
            }
            let answered = walk.answered(&response, &mut self.held);
            let is_cut = self.world.cuts > 0 && self.dice.chance(self.world.cuts);
            if is_cut && self.dice.chance(500) {
                // It died before the page was durable: neither the page nor where the walk stood is on the tape.
                self.table.note("cut off, page lost");
                self.peer.was_lost();
                let cursor = if self.mutant == Some(Mutant::CursorBeforePage) { walk.cursor() } else { before };
                walk = self.begin(Some(&cursor));
                continue;
            }
            for event in decoded.events {
                self.given.insert((event.kind, event.id.clone()));
                self.held.0.insert((event.kind, event.id));
            }
            match answered {
                Ok(_) => tries = 0,
                Err(Trouble::Again { .. }) => {
                    tries += 1;
                    if tries >= TRIES {
                        return Ok(None);
                    }
                }
                Err(Trouble::Stop { why }) => return Err(format!("stopped: {why}")),
            }
            if is_cut {
                self.table.note("cut off, page kept");
                walk = self.begin(Some(&walk.cursor()));
            }
        }
    }

    /// What a mutant makes of an answer before the walk sees it.
    fn bend(&mut self, target: &str, body: &str, response: Response) -> Response {
        match self.mutant {
            Some(Mutant::LooksOnce) => {
                let question = format!("{target} {body}");
                if response.status != 200 {
                    return response;
                }
                self.answers.entry(question).or_insert(response).clone()
            }
            Some(Mutant::RepeatedCursorEnds | Mutant::EmptyPageEnds | Mutant::FirstPageIsAll) => {
                let Ok(mut page) = serde_json::from_slice::<Value>(&response.body) else { return response };
                self.end_page(&mut page);
                if let Some(pages) = page.get_mut("results").and_then(Value::as_object_mut) {
                    let mut pages: Vec<_> = std::mem::take(pages).into_iter().collect();
                    pages.iter_mut().for_each(|(_, page)| self.end_page(page));
                    page["results"] = pages.into_iter().collect::<serde_json::Map<_, _>>().into();
                }
                Response { body: page.to_string().into(), ..response }
            }
            _ => response,
        }
    }

    fn end_page(&mut self, page: &mut Value) {
        let rows = page.get("tweets").or(page.get("data")).and_then(Value::as_array).map(Vec::len);
        let Some(cursor) = page["next_cursor"].as_str().map(str::to_owned).filter(|cursor| !cursor.is_empty()) else { return };
        let ends = match self.mutant {
            Some(Mutant::RepeatedCursorEnds) => !self.cursors.insert(cursor),
            Some(Mutant::EmptyPageEnds) => rows == Some(0),
            _ => true,
        };
        if ends {
            page["next_cursor"] = Value::Null;
            if page.get("has_next_page").is_some() {
                page["has_next_page"] = false.into();
            }
        }
    }

    /// Compares the verdict with what is true.
    fn judge(&mut self, verdict: Result<Option<Verdict>, String>) -> Vec<String> {
        let is_truthful = self.world.lies.iter().all(|told| self.peer.table.get(told.lie.name()) == 0)
            && self.peer.table.get(Lie::PageSize.name()) == 0;
        let is_trouble = self.world.lies.iter().all(|told| told.lie.is_trouble() || self.peer.table.get(told.lie.name()) == 0);
        let is_trouble = is_trouble && self.peer.table.get(Lie::PageSize.name()) == 0;
        self.table.note(match (is_truthful, is_trouble) {
            (true, _) => "truthful",
            (false, true) => "only trouble",
            (false, false) => "lied to",
        });
        let verdict = match verdict {
            Ok(Some(verdict)) => verdict,
            Ok(None) => {
                self.table.note("left as it is");
                return if is_truthful { vec!["a truthful history was given up".to_owned()] } else { Vec::new() };
            }
            Err(why) => return vec![why],
        };
        let mut violations = Vec::new();
        let (from, to) = (self.world.wanted.from, self.world.wanted.to);
        for (kind, proof) in &verdict.kinds {
            let rest: Vec<(UnixMicros, UnixMicros)> = match (self.mutant, proof) {
                (_, Proof::Unfillable { .. }) => continue,
                (Some(Mutant::AlwaysFilled), _) => Vec::new(),
                (Some(Mutant::NeverFilled), _) => vec![(from, to)],
                (_, Proof::Filled) => Vec::new(),
                (_, Proof::Partial { rest, .. }) => rest.clone(),
            };
            let is_filled = rest.is_empty();
            self.table.note(if is_filled { "filled" } else { "partial" });
            if !is_filled && is_truthful {
                violations.push(format!("{} is partial, and history is truthful: {proof:?}", kind.name()));
            }
            self.missing(*kind, from..to, &rest, &mut violations);
        }
        violations
    }

    /// Looks for what is called whole and is not on the tape.
    fn missing(
        &mut self,
        kind: EventKind,
        stretch: Range<UnixMicros>,
        rest: &[(UnixMicros, UnixMicros)],
        violations: &mut Vec<String>,
    ) {
        let World { provider, doubt, .. } = *self.world;
        let edge = self.world.wanted.margin;
        let mine = |thing: &&(usize, &world::Thing)| {
            thing.1.kind == kind && stretch.contains(&thing.1.at) && thing.1.is_selected(provider)
        };
        for (at, thing) in self.world.things.iter().enumerate().collect::<Vec<_>>().iter().filter(mine) {
            if self.held.0.contains(&thing.key()) {
                self.table.add("brought", u64::from(!thing.came));
                continue;
            }
            if rest.iter().any(|(from, to)| (*from..*to).contains(&thing.at)) {
                self.table.note("missing, and the verdict says so");
                continue;
            }
            let denied = self.peer.denied[*at];
            let is_at_edge = thing.at < stretch.start.plus(edge);
            let n_silent = denied.among + denied.behind;
            let excuse = match () {
                () if self.peer.never_gives(*at) => Some("excused: history never gives it"),
                () if denied.short > 0 && denied.short + n_silent > 1 => Some("excused: kept back on short pages, twice"),
                () if n_silent == 0 => None,
                () if doubt && provider == Provider::Tweetstream && n_silent == 1 => None,
                () if doubt
                    && provider != Provider::XLive
                    && denied.among == 1
                    && denied.among_last == 1
                    && denied.behind == 0 =>
                {
                    None
                }
                () if denied.among > 0 => Some("excused: kept back among other rows"),
                () if denied.behind == 1 && !is_at_edge => None,
                () => Some("excused: kept back behind a claimed end"),
            };
            match excuse {
                Some(excuse) => {
                    self.table.note(excuse);
                    let is_beginning = |of: &&world::Thing| of.came && (stretch.start..stretch.start.plus(edge)).contains(&of.at);
                    let mut beginning = self.world.things.iter().filter(is_beginning).peekable();
                    if beginning.peek().is_some() && !beginning.any(|of| self.given.contains(&of.key())) {
                        self.table.note(KEPT_ALL_BACK);
                    }
                }
                None => violations.push(format!(
                    "{} {} of {} is missing and called whole ({denied:?})",
                    kind.name(),
                    thing.id,
                    thing.at
                )),
            }
        }
    }
}

/// Whether every request is told, with the rows of its answer.
fn talks() -> bool {
    std::env::var_os("SIMULATE_TALK").is_some()
}

/// An answer without its rows, as far as it is one.
fn said(response: &Response) -> String {
    let Ok(mut page) = serde_json::from_slice::<Value>(&response.body) else { return "no JSON".to_owned() };
    for rows in ["tweets", "data", "logs", "conversation_timeline"] {
        if let Some(rows) = page.get_mut(rows) {
            *rows = rows.as_array().map_or(0, Vec::len).into();
        }
    }
    page.to_string().chars().take(300).collect()
}

/// What came of many worlds.
#[derive(Default)]
struct Batch {
    table: Table,
    broken: Vec<(u64, String)>,
}

fn batch(seeds: Range<u64>, mutant: Option<Mutant>) -> Batch {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as u64;
    let all = Mutex::new(Batch::default());
    std::thread::scope(|scope| {
        for nth in 0..threads {
            let (all, seeds) = (&all, seeds.clone());
            scope.spawn(move || {
                let mut mine = Batch::default();
                for seed in seeds.skip(nth as usize).step_by(threads as usize) {
                    let world = World::new(seed);
                    let (table, violations) = run(&world, mutant);
                    mine.table.merge(&table);
                    mine.table.note(world.provider.name());
                    if let Some(first) = violations.into_iter().next() {
                        mine.broken
                            .push((seed, format!("{} {:?} doubt {}: {first}", world.provider.name(), world.lies, world.doubt)));
                    }
                }
                let mut all = all.lock().unwrap();
                all.table.merge(&mine.table);
                all.broken.extend(mine.broken);
            });
        }
    });
    let mut all = all.into_inner().unwrap();
    all.broken.sort();
    all
}

/// Runs the worlds and the controls, prints what happened, and says so in a line of JSON.
fn check(from: u64, count: u64) {
    let started = Instant::now();
    let found = batch(from..from + count, None);
    // One world of a walk without an end takes as long as hundreds of others.
    let n_worlds = |mutant: Mutant| if mutant == Mutant::NeverEnds { 4 } else { 500 };
    let caught = Mutant::ALL.map(|mutant| (format!("{mutant:?}"), batch(0..n_worlds(mutant), Some(mutant)).broken.len()));
    println!("{}", found.table);
    let n_shown = if std::env::var_os("SIMULATE_LIST").is_some() { usize::MAX } else { 20 };
    for (seed, what) in found.broken.iter().take(n_shown) {
        println!("seed {seed}: {what}; again: scripts/simulate --only history-lies --from {seed} --count 1");
    }
    let controls: serde_json::Map<String, Value> = caught.iter().map(|(name, n)| (name.clone(), (*n).into())).collect();
    let line = serde_json::json!({
        "mode": "history-lies", "runs": count, "reached": count, "violations": found.broken.len(), "controls": controls,
        "seconds": started.elapsed().as_secs_f64(), "seed": from,
    });
    println!("{line}");
    assert_eq!(found.broken.len(), 0, "worlds of {count} that break a promise");
    for (name, n) in caught {
        assert!(n > 0, "this mutant was not caught: {name}");
    }
    if count >= GATE {
        for fact in Lie::ALL.map(Lie::name).into_iter().chain(SOMETIMES) {
            assert!(found.table.get(fact) > 0, "this never happened: {fact}");
        }
    }
}

#[test]
fn what_is_called_filled_misses_nothing() {
    check(0, GATE);
}

#[test]
fn worlds_that_once_broke_a_promise_keep_it() {
    let broken: Vec<_> = ONCE_BROKEN.into_iter().flat_map(|seed| batch(seed..seed + 1, None).broken).collect();
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
#[ignore = "scripts/simulate --only history-lies runs it"]
fn many_histories() {
    let number = |name: &str, default: u64| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    check(number("SIMULATE_FROM", 0), number("SIMULATE_SEEDS", 1_000_000));
}
