//! Pages and cursors that a walk was given for more than one question.
//!
//! Owns what tells one search's page from another's: [`Face`], what a page's rows are; [`Recent`], to whom each was given;
//! [`Pages`], which says of a page whose [`Twin`] it is. Knows neither requests nor what follows from it (`sweep.rs`).

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

/// The next page.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Onward<'a> {
    pub(crate) cursor: &'a str,
    /// Whether another search was given this cursor before.
    pub(crate) is_anothers: bool,
}

/// What the rows of a page are: all of them, and the least of their hashes, in order. Order and doubled rows do not count;
/// of a page without rows there are none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Face {
    all: u64,
    least: Vec<u32>,
}

impl Face {
    const KEPT: usize = 12;
    /// Fewer rows in common may be chance.
    const COMMON_MIN: usize = 6;

    pub(crate) fn of(ids: impl Iterator<Item = u64> + Clone) -> Self {
        let mut least: Vec<_> = ids.clone().map(|id| (xxh3_64(&id.to_be_bytes()) >> 32) as u32).collect();
        least.sort_unstable();
        least.dedup();
        least.truncate(Self::KEPT);
        Self { all: face(ids), least }
    }

    /// Whether it is the same page, but for a few strays within the stretch.
    fn is_like(&self, other: &Self) -> bool {
        let mut least: Vec<_> = self.least.iter().chain(&other.least).collect();
        least.sort_unstable();
        least.dedup();
        least.truncate(Self::KEPT);
        let n_common = least.iter().filter(|hash| self.least.contains(hash) && other.least.contains(hash)).count();
        self == other || (n_common >= Self::COMMON_MIN && n_common * 4 >= least.len() * 3)
    }
}

/// Tells pages with the same rows: order and doubled rows do not count. 0 is a page without rows.
pub(crate) fn face(ids: impl Iterator<Item = u64>) -> u64 {
    let mut ids: Vec<_> = ids.collect();
    ids.sort_unstable();
    ids.dedup();
    let bytes: Vec<_> = ids.iter().flat_map(|id| id.to_be_bytes()).collect();
    if bytes.is_empty() { 0 } else { xxh3_64(&bytes).max(1) }
}

/// Whether a page has the rows of another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Twin {
    Not,
    /// It is the page before, and that was this search's own.
    Own,
    /// That search had it first.
    Of(usize),
    /// So it was when this search was given it before.
    Again,
    /// It was given where it did not fit, again and again.
    Odd,
}

/// What searches of one walk were given last, each with the search it was given to and the one that had it first, if that is another.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Recent<T> {
    last: VecDeque<(T, usize, Option<usize>)>,
}

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Self { last: VecDeque::new() }
    }
}

/// Pages that were given for another question however often it was asked: such a page proves nothing where it does fit.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Odd<T>(Vec<T>);

impl<T> Default for Odd<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: PartialEq> Odd<T> {
    const KEPT: usize = 64;

    pub(crate) fn note(&mut self, page: T) {
        if !self.0.contains(&page) && self.0.len() < Self::KEPT {
            self.0.push(page);
        }
    }

    pub(crate) fn has(&self, page: &T) -> bool {
        self.0.contains(page)
    }
}

impl<T: PartialEq> Recent<T> {
    /// Some pages of each of a few searches.
    const KEPT: usize = 24;

    /// The search that was given it first, if that is another, and whether this one was given it before; remembers it for this one.
    /// What another search was given need only be like it.
    fn given(&mut self, given: T, search: usize, is_like: impl Fn(&T, &T) -> bool) -> (Option<usize>, bool) {
        let own = self.last.iter().position(|(seen, of, _)| *of == search && *seen == given);
        let first = match own.and_then(|at| self.last.remove(at)) {
            Some((_, _, first)) => first,
            None => self
                .last
                .iter()
                .find(|(seen, ..)| is_like(seen, &given))
                .map(|(_, of, first)| first.unwrap_or(*of))
                .filter(|first| *first != search),
        };
        self.last.push_back((given, search, first));
        if self.last.len() > Self::KEPT {
            self.last.pop_front();
        }
        (first, own.is_some())
    }
}

impl Recent<u64> {
    /// What a page of a search says of the next one.
    pub(crate) fn onward<'a>(&mut self, cursor: Option<&'a str>, search: usize) -> Option<Onward<'a>> {
        let cursor = cursor?;
        let (first, is_own) = self.given(xxh3_64(cursor.as_bytes()), search, |a, b| a == b);
        Some(Onward { cursor, is_anothers: first.is_some() && !is_own })
    }
}

/// The pages of one walk's searches.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Pages {
    recent: Recent<Face>,
    pub(crate) odd: Odd<Face>,
}

impl Pages {
    /// Whether a search was given a page with the rows of another one.
    pub(crate) fn twin(&mut self, face: &Face, search: usize) -> Twin {
        if face.least.is_empty() {
            return Twin::Not;
        }
        let is_last = self.recent.last.back().is_some_and(|(last, of, _)| *of == search && last == face);
        match self.recent.given(face.clone(), search, Face::is_like) {
            _ if self.odd.has(face) => Twin::Odd,
            (Some(other), false) => Twin::Of(other),
            (_, true) if is_last => Twin::Own,
            (Some(_), true) => Twin::Again,
            (None, _) => Twin::Not,
        }
    }
}
