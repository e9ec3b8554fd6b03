//! Damage in segments: every single bit, and pieces of a larger one cut off, zeroed, put in each other's place.
//!
//! Each time what a reader hands out is compared with what was written, byte for byte: a record that differs, or is none of
//! the tape's, was accepted as good; one that is gone although it stands in a block that was not hit was lost with it. And
//! `verify` must find that something is wrong. In an open segment a flip can be without any effect, in bits that the
//! format does not use: where every record is read as it was, nothing needs to be found; that is counted apart.
//!
//! Every so often the damaged tape is opened for writing, too: what that keeps is compared in the same way, and what is
//! gone must be in the ledger.
//!
//! | what was once so | red |
//! | --- | --- |
//! | who reads what the index does not have yet believed a torn block without its commit lines | the open segment |
//! | a reader of a sealed segment went by checksums, and not by the chain of commits | blocks of another tape |
//! | an open segment whose header is gone could not be opened | the first bits of the open segment |

#![allow(clippy::single_range_in_vec_init, reason = "a list of places that were hit, often one")]

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use birdtape::archive::{Options, Record, Span, Tape, verify};
use birdtape::provider::decode_record;
use bytes::Bytes;

use crate::made::{Made, end, live, second, source};
use crate::simulate::dice::Dice;
use crate::simulate::table::Table;

/// Flips of the gate: each so-manieth, and a random number of other damages.
const GATE_STEP: usize = 211;
const GATE_DAMAGES: u64 = 60;

/// Every so-manieth damaged tape is opened for writing.
const MENDED: usize = 64;

fn options(block_bytes: u64) -> Options {
    Options { block_bytes, segment_bytes: 1 << 30, level: 3, seal_in_background: false, ..Options::default() }
}

/// What a compressor makes little of.
fn noise(seed: u64) -> impl FnMut(u64) -> String {
    let mut dice = Dice::new(seed, 31);
    move |_| format!("{:016x}{:016x}", dice.roll(), dice.roll())
}

/// A tape with one segment, and everything that was written to it.
struct Target {
    made: Made,
    path: PathBuf,
    whole: Vec<u8>,
    is_open: bool,
    records: BTreeMap<u64, Bytes>,
    /// Blocks: bytes of the file, and numbers of records.
    blocks: Vec<(Range<usize>, std::ops::RangeInclusive<u64>)>,
}

impl Target {
    fn new(n: u64, block_bytes: u64, is_open: bool, seed: u64) -> Self {
        let made = Made::new(options(block_bytes));
        let name = source("alpha");
        let mut archive = made.open(0).unwrap();
        let now = live(&mut archive, &name, n, 10, noise(seed));
        // A recorder that is killed leaves its segment as it is.
        if is_open {
            drop(archive)
        } else {
            end(archive, &[&name], now + 1)
        }
        let path = made.segments(if is_open { ".open" } else { ".zst" }).pop().unwrap();
        let whole = made.disk.files().into_iter().find(|(found, _)| *found == path).unwrap().1;
        let tape = made.tape().unwrap();
        let (records, damage) = read(&tape);
        assert!(damage.is_empty() && records.len() as u64 > n);
        let segment = tape.catalog().segments("alpha").unwrap().pop().unwrap();
        let rows = tape.catalog().blocks("alpha", segment.first_n).unwrap();
        let mut blocks: Vec<_> =
            rows.iter().map(|row| (row.offset as usize..(row.offset + row.bytes) as usize, row.first_n..=row.last_n)).collect();
        // The block that is being written has no row.
        let (bytes, numbers) = blocks.last().map_or((0, 0), |(bytes, numbers)| (bytes.end, *numbers.end()));
        if is_open {
            blocks.push((bytes..whole.len(), numbers + 1..=segment.last_n));
        }
        let records = records.into_iter().map(|record| (record.n.0, record.line)).collect();
        Self { made, path, whole, is_open, records, blocks }
    }

    /// A tape of its own for another thread.
    fn copy(&self) -> Self {
        let made = self.made.copy();
        let path = made.dir.path().join(self.path.strip_prefix(self.made.dir.path()).unwrap());
        let (whole, records, blocks) = (self.whole.clone(), self.records.clone(), self.blocks.clone());
        Self { made, path, whole, is_open: self.is_open, records, blocks }
    }

    /// Whether a record may be gone when these bytes are hit.
    fn may_lose(&self, n: u64, hit: &[Range<usize>]) -> bool {
        let is_hit = |bytes: &Range<usize>| hit.iter().any(|range| range.start < bytes.end && bytes.start < range.end);
        self.blocks.iter().any(|(bytes, numbers)| numbers.contains(&n) && is_hit(bytes))
    }

    /// Damages the segment and looks at what comes of it; in words what is wrong.
    fn check(&self, tape: &Tape, bent: Vec<u8>, hit: &[Range<usize>], is_mended: bool, table: &mut Table) -> Option<String> {
        self.made.disk.overwrite(&self.path, bent);
        let (records, damage) = read(tape);
        let mut wrong = self.compare(records.iter(), hit);
        let mut n_lost = self.records.len() - records.len().min(self.records.len());
        // What the index does not have yet is read in another way.
        let unindexed = Mutex::new(Vec::new());
        if tape.unindexed("alpha", |record| unindexed.lock().unwrap().push(record)).is_ok() {
            let unindexed = unindexed.into_inner().unwrap();
            let differs = unindexed.iter().find(|record| self.records.get(&record.n.0) != Some(&record.line));
            wrong = wrong
                .or(differs.map(|record| format!("record {} is accepted from the end of the segment, and differs", record.n)));
        }
        let report = verify(self.made.dir.path(), &self.made.disk, decode_record, |_| {}).unwrap();
        if report.is_whole() {
            match self.is_open && n_lost == 0 && damage.is_empty() {
                true => table.note("without effect"),
                false => wrong = wrong.or(Some(format!("verify finds nothing, and {n_lost} records are gone"))),
            }
        } else {
            table.note("found");
        }
        if is_mended {
            table.note("opened for writing");
            let copy = self.made.copy();
            match copy.open(100_000).and_then(|archive| archive.close(second(100_001))) {
                Ok(_) => {
                    let tape = copy.tape().unwrap();
                    let (records, _) = read(&tape);
                    // Notes of the recovery come behind.
                    let last = self.records.keys().next_back().copied().unwrap_or(0);
                    let kept: Vec<_> = records.iter().filter(|record| record.n.0 <= last).collect();
                    wrong = wrong.or(self.compare(kept.iter().copied(), hit).map(|why| format!("once mended: {why}")));
                    n_lost = self.records.len() - kept.len().min(self.records.len());
                    let gaps = tape.catalog().gaps(Some("alpha")).unwrap();
                    let is_told = gaps.iter().any(|gap| gap.cause == "damaged");
                    if n_lost > 0 && self.is_open && !is_told {
                        wrong = wrong.or(Some(format!("once mended {n_lost} records are gone, and the ledger says nothing")));
                    }
                }
                Err(error) => wrong = wrong.or(Some(format!("it cannot be opened: {error}"))),
            }
        }
        table.add("records that were in the block", n_lost as u64);
        wrong
    }

    fn compare<'a>(&self, records: impl Iterator<Item = &'a Record>, hit: &[Range<usize>]) -> Option<String> {
        let mut left = self.records.clone();
        for record in records {
            match left.remove(&record.n.0) {
                Some(line) if line == record.line => {}
                Some(_) => return Some(format!("record {} is accepted, and differs", record.n)),
                None => return Some(format!("record {} is accepted, and was never written, or twice", record.n)),
            }
        }
        let far = left.keys().find(|n| !self.may_lose(**n, hit))?;
        Some(format!("record {far} is lost, and its block was not hit"))
    }
}

fn read(tape: &Tape) -> (Vec<Record>, Vec<String>) {
    let mut records = tape.records("alpha", Span::default()).unwrap();
    let mut found = Vec::new();
    while let Some(record) = records.next().unwrap() {
        found.push(record);
    }
    (found, records.damage().to_vec())
}

struct Outcome {
    runs: u64,
    table: Table,
    broken: Vec<String>,
}

/// Does `work` on every thread, each with a tape of its own, for the numbers below `n` with that step.
fn spread(
    target: &Target,
    n: u64,
    step: u64,
    work: impl Fn(&Target, &Tape, u64, &mut Table) -> Option<String> + Sync,
) -> Outcome {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let (next, all) = (AtomicU64::new(0), Mutex::new(Outcome { runs: 0, table: Table::default(), broken: Vec::new() }));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let (copy, next, all, work) = (target.copy(), &next, &all, &work);
            scope.spawn(move || {
                let tape = copy.made.tape().unwrap();
                let (mut table, mut broken, mut runs) = (Table::default(), Vec::new(), 0);
                loop {
                    let at = next.fetch_add(step, Relaxed);
                    if at >= n {
                        break;
                    }
                    runs += 1;
                    broken.extend(work(&copy, &tape, at, &mut table).map(|why| format!("{at}: {why}")));
                }
                let mut all = all.lock().unwrap();
                all.table.merge(&table);
                all.broken.extend(broken);
                all.runs += runs;
            });
        }
    });
    all.into_inner().unwrap()
}

fn flips(is_open: bool, n: u64, step: usize) -> Outcome {
    let target = Target::new(n, 1_500, is_open, u64::from(is_open));
    assert!(target.blocks.len() > 3, "several blocks");
    println!("{} bytes, {} blocks, open: {is_open}", target.whole.len(), target.blocks.len());
    spread(&target, target.whole.len() as u64 * 8, step as u64, |target, tape, bit, table| {
        let (byte, bit) = (bit as usize / 8, bit as usize % 8);
        let mut bent = target.whole.clone();
        bent[byte] ^= 1 << bit;
        let is_mended = ((byte * 8 + bit) / step).is_multiple_of(MENDED);
        target.check(tape, bent, &[byte..byte + 1], is_mended, table).map(|why| format!("bit {bit} of byte {byte}: {why}"))
    })
}

fn damages(n: u64, is_open: bool) -> Outcome {
    let target = Target::new(3_000, 8_000, is_open, 7);
    let foreign = Target::new(3_000, 8_000, is_open, 8);
    println!("{} bytes, {} blocks, open: {is_open}", target.whole.len(), target.blocks.len());
    spread(&target, n, 1, |target, tape, seed, table| {
        let mut dice = Dice::new(seed, 32);
        let mut bent = target.whole.clone();
        let (len, n_blocks) = (bent.len(), target.blocks.len() as u64);
        let whole_blocks = if is_open { n_blocks - 1 } else { n_blocks };
        let (what, hit) = match dice.below(5) {
            0 => {
                let at = dice.below(len as u64) as usize;
                bent.truncate(at);
                ("cut", vec![at..len])
            }
            1 => {
                let at = dice.below(len as u64) as usize;
                let upto = (at + 4_096).min(len);
                bent[at..upto].fill(0);
                ("4 KiB zeroed", vec![at..upto])
            }
            2 => {
                let at = dice.below(len as u64) as usize / 512 * 512;
                let upto = (at + 512).min(len);
                (at..upto).for_each(|at| bent[at] = dice.roll() as u8);
                ("a sector of rubbish", vec![at..upto])
            }
            3 => {
                let a = dice.below(whole_blocks) as usize;
                let b = dice.below(whole_blocks) as usize;
                if a == b {
                    return None;
                }
                let (a, b) = (target.blocks[a.min(b)].0.clone(), target.blocks[a.max(b)].0.clone());
                let parts = [
                    &target.whole[..a.start],
                    &target.whole[b.clone()],
                    &target.whole[a.end..b.start],
                    &target.whole[a.clone()],
                    &target.whole[b.end..],
                ];
                bent = parts.concat();
                ("two blocks in each other's place", vec![a, b])
            }
            _ => {
                let a = target.blocks[dice.below(whole_blocks) as usize].0.clone();
                let b = foreign.blocks[dice.below(foreign.blocks.len() as u64 - 1) as usize].0.clone();
                bent = [&target.whole[..a.start], &foreign.whole[b], &target.whole[a.end..]].concat();
                ("a block of another tape", vec![a])
            }
        };
        if bent == target.whole {
            return None;
        }
        table.note(what);
        target.check(tape, bent, &hit, seed % 8 == 0, table).map(|why| format!("{what}, {hit:?}: {why}"))
    })
}

/// Prints what was found, and says so in a line of JSON.
fn tell(mode: &str, started: Instant, outcomes: Vec<Outcome>, controls: u64) {
    let (mut runs, mut table, mut broken) = (0, Table::default(), Vec::new());
    for outcome in outcomes {
        runs += outcome.runs;
        table.merge(&outcome.table);
        broken.extend(outcome.broken);
    }
    println!("{table}");
    broken.iter().take(20).for_each(|why| println!("{why}"));
    let line = serde_json::json!({
        "mode": mode, "runs": runs, "reached": runs, "violations": broken.len(), "controls": controls,
        "seconds": started.elapsed().as_secs_f64(), "seed": 0,
    });
    println!("{line}");
    assert!(broken.is_empty(), "{} of {runs} damages are not taken as they must be", broken.len());
}

/// A damage that is told to have hit nothing must be noticed by what looks for it.
fn control() -> u64 {
    let target = Target::new(60, 1_500, false, 3);
    let tape = target.made.tape().unwrap();
    let mut bent = target.whole.clone();
    let middle = target.blocks[1].0.start + 40;
    bent[middle] ^= 4;
    let found = target.check(&tape, bent, &[], false, &mut Table::default());
    assert!(found.as_ref().is_some_and(|why| why.contains("its block was not hit")), "{found:?}");
    1
}

#[test]
fn no_flipped_bit_is_believed() {
    let started = Instant::now();
    let outcomes = vec![flips(false, 60, GATE_STEP), flips(true, 60, GATE_STEP)];
    tell("bitrot", started, outcomes, control());
}

#[test]
fn no_other_damage_is_believed() {
    let started = Instant::now();
    tell("bitrot, larger", started, vec![damages(GATE_DAMAGES, false), damages(GATE_DAMAGES, true)], control());
}

#[test]
#[ignore = "scripts/bitrot runs it"]
fn every_bit_and_many_damages() {
    let number = |name: &str, default: u64| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let (step, n) = (number("BITROT_STEP", 1) as usize, number("BITROT_DAMAGES", 10_000));
    let started = Instant::now();
    let outcomes = vec![flips(false, 130, step), flips(true, 130, step), damages(n / 2, false), damages(n / 2, true)];
    tell("bitrot", started, outcomes, control());
}
