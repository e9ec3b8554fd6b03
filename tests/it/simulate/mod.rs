//! The simulator: seeded worlds on virtual time, in process, from the provider's socket to the ledger's verdict.
//!
//! Each world has a truth (posts, what selects them, edits of that), a provider made of the real fake peers behind pipes
//! in memory, and a list of what goes wrong: the line drops, stalls, is refused, says things late, twice, in the wrong
//! order or never; the recorder is stopped, killed, cut off from its disk; its machine sleeps, its clock is put; history refuses, fails, breaks off, leaves rows
//! out, doubles and shuffles them, repeats pages, loops, claims more than there is. Operators edit rules, and between two
//! recorders they compact, prune and export, and are cut off at it. The recorder and the backfiller are the real ones, on a clock that jumps to the next timer and on a disk that forgets what was not synced. In the end gaps
//! are filled until nothing gets better, at last from an honest history, and the [`oracle`] looks:
//!
//! - live coverage and gaps together are the whole timeline since the scope began, and no instant is in both;
//! - whatever the provider would have told a client that was always there is on the tape or in a gap that admits loss;
//! - a stretch that is called filled misses nothing;
//! - nothing is on the tape that was not sent, nor more often; numbers are dense; `verify` finds no fault;
//! - a record that could be read once is the same ever after, unless it was pruned; an export has every post;
//! - when the faults are over, recording goes on to the end.
//!
//! | file | holds |
//! | --- | --- |
//! | `world.rs` | what is true and what goes wrong, drawn from the seed |
//! | `stage.rs` | the provider: pipes, the fake peers, chance between them and the client |
//! | `schedule.rs` | the lives of the recorder and the backfiller |
//! | `house.rs` | what operators do between them |
//! | `oracle.rs` | what must hold |
//! | `dice.rs`, `table.rs` | chance; what happened how often |
//!
//! What no client can know is counted by itself, in the table: a delivery that was swallowed without a sign (the audit's
//! matter), posts that did not fit on the first full page of a rule, a history that has a post only after the gap was
//! filled, posts deleted before history was asked, and what was selected by a text or an account that neither the tape
//! around the gap nor the provider's list shows any more. Of three providers: X's history has nothing that could be missed.
//!
//! Times, faults and order are the seed's. The libraries below throw dice of their own (masks and keys of WebSockets, the
//! order in which a `select` looks), so that a world that is run again may differ in records of one and the same instant.
//!
//! # What was run
//!
//! Worlds of days to months are as full as the others, with so much more time between what happens: pings and keepalives are
//! rarer by a tenth of that factor, lists are read once an hour, and a clock that is not put is not looked at; a year takes
//! some 15 s. One in 1,139 of them broke a promise (100224: a row was left out, and the second look was answered with another
//! question's empty page, and believed); before that 1011 (a row that was told twice took the place of one left out).
//!
//! Worlds 0 to 999 on one and the same code, before operators kept house: none broke a promise (444 s, one thread). While the mending went on, thirteen did.
//! Seven showed a fault of ours; six of them are in the gate for ever: 17, 49, 103, 325, 765 and 996 (462, where an empty page hid
//! that the next one was another search's, needs a chance that does not come again). Six showed
//! one of the simulator: 895 and 967 (a recorder whose disk is full cannot write down that a connection stood), 43 and 216
//! (history had a post only after it was asked, by a walk that was cut off and went on much later), 113 (an edit that fell into a sleep came at its end), 999 (a history that said four times in a row that a page is
//! empty, which no client can tell from the truth). In 686 a monitor came and went that nothing ever named.
//!
//! # Negative controls
//!
//! Each was broken on purpose, one at a time, in the worlds of the gate.
//!
//! | broken | red |
//! | --- | --- |
//! | a gap ends at the first evidence | 45, where the clock was put back |
//! | nothing new on a page ends the search | 3, 42, 45; the slow rule, 0 and 5; the crowded pages, 0 and 1 |
//! | a cursor is stored before its page | the fillings that are cut off, 1 |
//! | what envelopes say between two readings of the lists does not count | 103 |
//! | a second pass counts that is shorter than the first one | 325 |
//! | the accounts of a monitor that was deleted are not searched for | 17 |
//!
//! These were tried before machines slept, clocks were put by seconds, pages had other sizes and fillings were cut off on
//! purpose; the numbers are of the worlds as they were then.
//!
//! | broken | red |
//! | --- | --- |
//! | a gap begins at the newest post that was seen (`since_id = max`) | all 60; the slow rule, all 12 |
//! | a gap begins at the last evidence, without the horizon | all 60; the slow rule, all 12 |
//! | a kill opens no gap | 2, 3, 6, 11, 12, 13 and 26 more |
//! | a gap does not take its window out of the coverage | 1, 10, 19, 22, 25 and 8 more |
//! | a walk asks for 30 s less at both edges of a gap | 5, 10, 19, 22, 25 and 8 more |
//! | every verdict is "filled" | 1, 11, 13, 17, 19, 49 |
//! | only the last text of a rule is searched for, accounts that were taken off the list are forgotten | 0, 1, 3, 12, 13 and 8 more |
//! | a last page is asked for once | 42, 48 |
//!
//! These stayed green, and why: no margin around a walk (it only proves the edges, and without them looks again), an empty
//! page that claims more taken for the last one (a search that met nothing known at one end looks there again), a sleep that
//! is not told (the line breaks, or it held and nothing is missing), a post that was only spoken of taken for whole, and only
//! the text before a stretch asked by (in world 49 the one now stands in for the other; each has a test of its own).

pub(crate) mod dice;
mod house;
mod oracle;
mod schedule;
mod stage;
pub(crate) mod table;
mod world;

use std::time::{Duration, Instant};

use birdtape::model::Provider;

use schedule::Outcome;
use table::Table;
use world::{Wish, World};

/// How long worlds lasted, on their own clock, from the first life of a recorder to the end of all filling.
const MINUTES: &str = "minutes that passed in them";

/// Of 365 days.
const MINUTES_OF_A_YEAR: u64 = 365 * 24 * 60;

/// Worlds of the gate.
const GATE: std::ops::Range<u64> = 0..60;

/// Worlds that once showed a fault of ours, and stay in the gate whatever its range becomes.
const ONCE_BROKEN: [(u64, &str); 11] = [
    (0, "a rule's text was changed in a gap, and only the last one was searched for"),
    (1, "an account was taken off the list in a gap, which then counted as filled"),
    (17, "a monitor was deleted, and the delivery log without it was taken for everything"),
    (42, "a row was left out of a last page, once"),
    (48, "the same"),
    (49, "a post of which only its meta came counted as filled without its content"),
    (103, "an account came and went between two readings of the list, and its gap counted as filled"),
    (325, "a second pass over a page that lacked a row was answered with the page before, and believed"),
    (765, "an empty page that claimed more was asked for again and answered with another search's, and believed"),
    (816, "what one pass through a history that was caught proved in part was believed without another"),
    (996, "a short page lacked its oldest row, and what it lacked was looked for no further than its oldest row"),
];

/// What must have happened somewhere in the gate's worlds: a fault that never comes tests nothing.
const SOMETIMES: [&str; 43] = [
    "backfill: ended by the disk",
    "backfill: killed",
    "broken frames kept",
    "compact: segments smaller",
    "edit",
    "export: posts",
    "gap: filled",
    "gap: partial",
    "history: 429",
    "history: 5xx",
    "history: cursor loop",
    "history: cut",
    "history: doubled row",
    "history: empty page that claims more",
    "history: full page",
    "history: missing row",
    "history: repeated page",
    "history: shuffled",
    "house: compacted",
    "house: cut off",
    "house: exported",
    "house: pruned",
    "line: close",
    "line: duplicate",
    "line: refused",
    "line: reset",
    "line: stall",
    "line: unreachable",
    "lost without a sign: swallowed",
    "machine: slept, and was cut off",
    "machine: slept, not connected",
    "machine: slept, the line held",
    "missing, in a gap that says so",
    "missing, in a gap: live only",
    "nobody was there",
    "promised",
    "prune: segments removed",
    "recorder: ended by the disk",
    "recorder: killed",
    "recorder: stopped",
    "swallowed",
    "told, covered",
    "told, in a gap's window",
];

/// Runs worlds and says what happened in them, and in which of them a promise is broken.
fn run(worlds: impl IntoIterator<Item = (u64, Wish)>) -> Table {
    run_for(worlds, u64::MAX)
}

/// The same until so much time has passed in them.
fn run_for(worlds: impl IntoIterator<Item = (u64, Wish)>, minutes: u64) -> Table {
    let started = Instant::now();
    let (mut table, mut broken) = (Table::default(), Vec::new());
    for (seed, wish) in worlds {
        if table.get(MINUTES) >= minutes {
            break;
        }
        table.note("worlds");
        let Outcome { table: one, violations } = schedule::run(World::new(seed, wish));
        table.merge(&one);
        if !violations.is_empty() {
            let again = if wish.stretch.is_some() { "--years 1" } else { "--count 1" };
            println!("seed {seed}: {} violations; again: scripts/simulate --from {seed} {again}", violations.len());
            violations.iter().take(5).for_each(|violation| println!("  {violation}"));
            broken.push(seed);
        }
    }
    println!(
        "{table}  {} of {} worlds break a promise, {:.3} years passed in them, {:.1} s",
        broken.len(),
        table.get("worlds"),
        table.get(MINUTES) as f64 / MINUTES_OF_A_YEAR as f64,
        started.elapsed().as_secs_f64()
    );
    assert!(broken.is_empty(), "{} worlds break a promise: {broken:?}", broken.len());
    table
}

/// A world of days, weeks or months, where a recorder is away for hours, days or weeks.
fn long(seed: u64) -> Wish {
    Wish { stretch: Some([20, 100, 400, 2_000][(seed / 3 % 4) as usize]), ..Wish::default() }
}

#[test]
fn promises_hold_in_every_world() {
    let seeds = GATE.chain(ONCE_BROKEN.map(|(seed, _)| seed).into_iter().filter(|seed| !GATE.contains(seed)));
    let table = run(seeds.map(|seed| (seed, Wish::default())));
    for fact in SOMETIMES {
        assert!(table.get(fact) > 0, "this never happened: {fact}");
    }
}

#[test]
fn promises_hold_for_five_years() {
    let table = run_for((0..).map(|seed| (seed, long(seed))), 5 * MINUTES_OF_A_YEAR);
    for fact in ["gap: filled", "gap: partial", "gap: pruned", "recorder: killed", "house: cut off", "nobody was there"] {
        assert!(table.get(fact) > 0, "this never happened: {fact}");
    }
}

/// Ids come out of order by seconds at both edges of each hole, and a rule is polled every ten minutes: a horizon or a
/// margin that is too short, or a walk that begins at the newest id it knows, loses what this finds again.
#[test]
fn a_slow_rule_with_ids_out_of_order_loses_nothing() {
    let poll = Some(Duration::from_secs(600));
    let wish = Wish { provider: Some(Provider::TwitterapiIo), poll, only_drops: true, ..Wish::default() };
    let table = run((0..12).map(|seed| (seed, wish)));
    assert!(table.get("gap: filled") > 12 && table.get("told, in a gap's window") > 100, "{table}");
    for never in ["missing, in a gap that says so", "gap: partial", "gap: open", "in a gap called filled: history had it later"] {
        assert_eq!(table.get(never), 0, "{never}\n{table}");
    }
}

/// An edge of a gap holds more posts than a page, so that the first pages bring only what came live.
#[test]
fn a_gap_behind_pages_of_what_is_known_is_filled() {
    for provider in [Provider::TwitterapiIo, Provider::Scrapebadger] {
        let wish = Wish { provider: Some(provider), only_drops: true, is_crowded: true, ..Wish::default() };
        let table = run((0..2).map(|seed| (seed, wish)));
        assert!(table.get("told, in a gap's window") > 100, "{table}");
        assert!(table.get("gap: filled") > 0, "{table}");
    }
}

/// Each filling goes a little further than the one before and dies, and nothing is asked for twice.
#[test]
fn a_filling_that_is_cut_off_anywhere_loses_nothing() {
    for provider in [Provider::TwitterapiIo, Provider::Tweetstream, Provider::Scrapebadger] {
        let wish = Wish { provider: Some(provider), only_drops: true, is_cut: true, ..Wish::default() };
        let table = run((0..2).map(|seed| (seed, wish)));
        assert!(table.get("backfill: ended by the disk") > 20 && table.get("gap: filled") > 0, "{table}");
    }
}

#[test]
#[ignore = "scripts/simulate runs it"]
fn many_worlds() {
    let number = |name: &str, default: u64| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let from = number("SIMULATE_FROM", 0);
    let table = match number("SIMULATE_YEARS", 0) {
        0 => run((from..from + number("SIMULATE_SEEDS", 1_000)).map(|seed| (seed, Wish::default()))),
        years => run_for((from..).map(|seed| (seed, long(seed))), years.saturating_mul(MINUTES_OF_A_YEAR)),
    };
    if table.get("worlds") >= GATE.end - GATE.start {
        for fact in SOMETIMES {
            assert!(table.get(fact) > 0, "this never happened: {fact}");
        }
    }
}
