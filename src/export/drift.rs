//! Where envelopes are not what the catalogue of their provider says: counted by place, each with its first example.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::model::{Provider, UnixMicros};
use crate::provider::Surprise;

/// Places that are remembered; more are only counted.
const MOST_PLACES: usize = 1_000;
/// Characters of an example that are kept.
const LONGEST_EXAMPLE: usize = 200;

/// Provider, path, what was expected, what was found.
type Place = (Provider, String, Option<&'static str>, &'static str);
/// When, in which source, in which record.
type Seen = (UnixMicros, String, u64);

/// What was unexpected.
#[derive(Debug, Default)]
pub struct Drift {
    places: BTreeMap<Place, (Seen, u64, String)>,
    n_more: u64,
}

impl Drift {
    pub(super) fn note(&mut self, provider: Provider, (at, source, n): (UnixMicros, &str, u64), surprise: &Surprise<'_>) {
        let place = (provider, surprise.path.to_owned(), surprise.expected, surprise.found);
        let example = || surprise.example.chars().take(LONGEST_EXAMPLE).collect();
        self.add(place, (at, source.to_owned(), n), 1, example);
    }

    fn add(&mut self, place: Place, seen: Seen, count: u64, example: impl FnOnce() -> String) {
        if let Some((first, n, kept)) = self.places.get_mut(&place) {
            *n += count;
            if seen < *first {
                (*first, *kept) = (seen, example());
            }
        } else if self.places.len() < MOST_PLACES {
            self.places.insert(place, (seen, count, example()));
        } else {
            self.n_more += count;
        }
    }

    pub(super) fn merge(&mut self, other: Self) {
        for (place, (seen, count, example)) in other.places {
            self.add(place, seen, count, || example);
        }
        self.n_more += other.n_more;
    }

    /// How many surprises there were.
    pub fn count(&self) -> u64 {
        self.places.values().map(|(_, count, _)| count).sum::<u64>() + self.n_more
    }

    /// In how many places.
    pub fn places(&self) -> usize {
        self.places.len()
    }

    /// The report.
    pub fn to_json(&self) -> Value {
        let mut by_path: BTreeMap<(Provider, &str, Option<&str>), Vec<_>> = BTreeMap::new();
        for ((provider, path, expected, found), seen) in &self.places {
            by_path.entry((*provider, path, *expected)).or_default().push((*found, seen));
        }
        let surprises = by_path.into_iter().filter_map(|((provider, path, expected), types)| {
            let ((at, source, n), _, example) = types.iter().map(|(_, seen)| *seen).min()?;
            Some(json!({
                "provider": provider.name(), "path": path, "expected": expected,
                "types": types.iter().map(|(found, _)| *found).collect::<Vec<_>>(),
                "count": types.iter().map(|(_, (_, count, _))| count).sum::<u64>(),
                "first": { "received_at": at.to_string(), "source": source, "n": n }, "example": example,
            }))
        });
        json!({ "surprises": surprises.collect::<Vec<_>>(), "not_listed": self.n_more })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn tells_the_first_of_each_place_and_stays_small() {
        let mut drift = Drift::default();
        fn surprise<'a>(path: &'a str, found: &'static str, example: &'a str) -> Surprise<'a> {
            Surprise { path, expected: Some("number"), found, example }
        }
        drift.note(Provider::Tweetstream, (UnixMicros(2), "a", 9), &surprise("d.x", "string", "\"late\""));
        drift.note(Provider::Tweetstream, (UnixMicros(1), "a", 3), &surprise("d.x", "string", &"é".repeat(999)));
        let mut other = Drift::default();
        other.note(Provider::Tweetstream, (UnixMicros(3), "b", 1), &surprise("d.x", "object", "{}"));
        drift.merge(other);
        let report = drift.to_json();
        let first = &report["surprises"][0];
        assert_eq!((first["count"].as_u64(), first["types"][1].as_str()), (Some(3), Some("string")), "{report}");
        assert_eq!(
            (first["first"]["n"].as_u64(), first["example"].as_str().unwrap().chars().count()),
            (Some(3), LONGEST_EXAMPLE)
        );
        for place in 0..2 * MOST_PLACES {
            drift.note(Provider::XLive, (UnixMicros(4), "x", 1), &surprise(&place.to_string(), "null", ""));
        }
        assert_eq!((drift.places(), drift.count()), (MOST_PLACES, 3 + 2 * MOST_PLACES as u64));
    }
}
