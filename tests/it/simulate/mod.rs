//! The simulator: seeded worlds on virtual time, in process, from the provider's socket to the ledger's verdict.

mod dice;
mod oracle;
mod schedule;
mod stage;
mod table;
mod world;

use std::time::Instant;

use schedule::Outcome;
use table::Table;
use world::{Wish, World};

/// Worlds of the gate.
const GATE: std::ops::Range<u64> = 0..60;

fn check(seeds: impl IntoIterator<Item = u64>) {
    let started = Instant::now();
    let (mut table, mut bad) = (Table::default(), Vec::new());
    for seed in seeds {
        table.note("worlds");
        let Outcome { table: one, violations, records } = schedule::run(World::new(seed, Wish::default()));
        if let Ok(path) = std::env::var("SIMULATE_RECORDS") {
            std::fs::write(path, records.join("\n")).unwrap();
        }
        table.merge(&one);
        if !violations.is_empty() {
            println!("seed {seed} has {} violations:", violations.len());
            violations.iter().take(5).for_each(|violation| println!("  {violation}"));
            bad.push(seed);
        }
    }
    println!("{table}  in {:.1} s", started.elapsed().as_secs_f64());
    assert!(bad.is_empty(), "{} worlds break a promise: {bad:?}; see one by scripts/simulate --from SEED --seeds 1", bad.len());
}

#[test]
fn promises_hold_in_every_world() {
    check(GATE);
}

#[test]
#[ignore = "scripts/simulate runs it"]
fn many_worlds() {
    let number = |name: &str, default: u64| std::env::var(name).ok().map_or(default, |text| text.parse().unwrap());
    let from = number("SIMULATE_FROM", 0);
    check(from..from + number("SIMULATE_SEEDS", 1_000));
}
