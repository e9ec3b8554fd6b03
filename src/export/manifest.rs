//! What stands at a destination: `_birdtape/manifest.json`, put there last.
//!
//! It holds no time of its own: the same tape exported again gives the same bytes.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::sight::{Days, GRANULE};
use super::spool::Part;

/// Its name.
pub(super) const MANIFEST: &str = "_birdtape/manifest.json";

/// All there is to know of an export for the next one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    /// Version of the tables.
    pub(super) schema: u32,
    /// Version of the program's encoder: files of another are not compared with ours.
    pub(super) birdtape: String,
    /// The tape's id.
    pub(super) tape: String,
    pub(super) selection: Selection,
    /// By name.
    pub(super) sources: BTreeMap<String, SourceState>,
    /// By name.
    pub(super) files: BTreeMap<String, FileState>,
    /// What could not be read, in words.
    pub(super) damage: Vec<String>,
}

/// What was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Selection {
    pub(super) tables: Vec<String>,
    pub(super) from: Option<String>,
    pub(super) to: Option<String>,
    /// Empty for all there are.
    pub(super) sources: Vec<String>,
    /// Of fields without a column only those that nobody expected.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) unexpected_only: bool,
}

impl Selection {
    /// In words.
    pub(super) fn shown(&self) -> String {
        let mut parts = vec![self.tables.join(", ")];
        if !self.sources.is_empty() {
            parts.push(format!("of {}", self.sources.join(", ")));
        }
        parts.extend(self.from.iter().map(|from| format!("from {from}")));
        parts.extend(self.to.iter().map(|to| format!("to {to}")));
        parts.extend(self.unexpected_only.then(|| "with unexpected fields only".to_owned()));
        parts.join(" ")
    }
}

/// How far a source was exported.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SourceState {
    pub(super) last_n: u64,
    /// First number of the segment that was still open: its files change when it has a digest.
    pub(super) open_from: Option<u64>,
    /// Stretches of numbers, in thousands (1024) from and to, that have something of a date.
    pub(super) days: BTreeMap<String, Vec<(u64, u64)>>,
}

/// A file that was put there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FileState {
    pub(super) rows: u64,
    pub(super) bytes: u64,
    pub(super) sha256: String,
}

impl Manifest {
    pub(super) fn to_json(&self) -> Vec<u8> {
        let mut text = serde_json::to_vec_pretty(self).expect("names and numbers are always JSON");
        text.push(b'\n');
        text
    }

    /// Which granules have something of which date.
    pub(super) fn days(&self, number_of: impl Fn(&str) -> Option<u32>) -> Days {
        let mut days = Days::new();
        for (source, state) in &self.sources {
            let Some(source) = number_of(source) else { continue };
            for (day, ranges) in &state.days {
                let Some(day) = day_of(day) else { continue };
                let granules = ranges.iter().flat_map(|&(from, to)| from..=to);
                days.entry(day).or_default().extend(granules.map(|granule| (source, granule)));
            }
        }
        days
    }
}

/// The dates of one source, for its state.
pub(super) fn days_of(days: &Days, source: u32) -> BTreeMap<String, Vec<(u64, u64)>> {
    let of = |granules: &BTreeSet<(u32, u64)>| {
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for &(_, granule) in granules.range((source, 0)..=(source, u64::MAX)) {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == granule => *last = granule,
                _ => ranges.push((granule, granule)),
            }
        }
        ranges
    };
    let all = days.iter().map(|(day, granules)| (date_of(*day), of(granules)));
    all.filter(|(_, ranges)| !ranges.is_empty()).collect()
}

/// First and last number of a stretch of granules.
pub(super) fn numbers((from, to): (u64, u64)) -> (u64, u64) {
    (from * GRANULE, to * GRANULE + (GRANULE - 1))
}

const NO_DATE: &str = "__HIVE_DEFAULT_PARTITION__";

/// A date's word in paths.
pub(super) fn date_of(day: i64) -> String {
    if day == Part::NO_DAY {
        return NO_DATE.to_owned();
    }
    crate::model::UnixMicros(day.saturating_mul(86_400_000_000)).date()
}

fn day_of(date: &str) -> Option<i64> {
    if date == NO_DATE {
        return Some(Part::NO_DAY);
    }
    crate::model::UnixMicros::parse_rfc3339(&format!("{date}T00:00:00.000000Z")).map(crate::model::UnixMicros::day)
}

impl Part {
    /// Its file's name at the destination.
    pub(super) fn file(self) -> String {
        format!("{}/date={}/part-0.parquet", self.table.name(), date_of(self.day))
    }

    /// The partition a file's name means.
    pub(super) fn of_file(name: &str) -> Option<Self> {
        let (table, rest) = name.split_once("/date=")?;
        let day = day_of(rest.strip_suffix("/part-0.parquet")?)?;
        Some(Self { table: table.parse().ok()?, day })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::export::Table;

    #[test]
    fn dates_and_stretches_come_back() {
        let mut days = Days::new();
        days.entry(20_458).or_default().extend([(0, 0), (0, 1), (0, 7), (1, 3)]);
        days.entry(Part::NO_DAY).or_default().insert((1, 9));
        let mut manifest = Manifest::default();
        for (number, name) in ["a", "b"].into_iter().enumerate() {
            let state = SourceState { days: days_of(&days, number as u32), ..SourceState::default() };
            manifest.sources.insert(name.to_owned(), state);
        }
        assert_eq!(manifest.sources["a"].days["2026-01-05"], [(0, 1), (7, 7)]);
        assert_eq!(manifest.days(|name| Some(u32::from(name == "b"))), days);
        assert_eq!(numbers((0, 1)), (0, 2 * GRANULE - 1));
        let ends = [i64::MIN, i64::MAX].map(|at| Part::day_of(crate::model::UnixMicros(at)));
        for day in [0, -3, 20_458, Part::NO_DAY, ends[0], ends[1]] {
            let part = Part { table: Table::DmActivity, day };
            assert_eq!(Part::of_file(&part.file()), Some(part), "{}", part.file());
        }
    }
}
