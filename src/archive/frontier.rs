//! A scope's timeline, and the only ways it can move.
//!
//! The fields are private to this file: coverage grows by [`Timeline::advance`], which wants [`Evidence`], and that is
//! made from a record only; or by [`Timeline::audit`], which a note asks for. Everything else takes away or waits. So
//! nobody moves the frontier without bytes or a ledger row.

use super::index::Indexed;
use crate::catalog::ScopeRow;
use crate::model::{IntervalSet, RecordKind, UnixMicros, Via};

/// Proof that a source was being delivered, taken from a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Evidence(UnixMicros);

impl Evidence {
    /// What a record proves: an envelope off a live connection, an opened connection, or a note of life. What came by webhook
    /// proves nothing: which rules have one, and whether one was tried in vain, only the provider knows.
    pub(super) fn of(record: &Indexed<'_>) -> Option<Self> {
        let live = matches!(record.via, Via::Ws | Via::Sse | Via::Lines);
        let proves = match record.kind {
            RecordKind::Frame => live,
            RecordKind::Open => true,
            RecordKind::Note => record.fact.is_some_and(|fact| fact.starts_with(r#"{"note":"alive""#)),
            RecordKind::Close | RecordKind::Sent | RecordKind::Http => false,
        };
        proves.then_some(Self(record.at))
    }

    /// What a catalog remembers of records it was made from.
    pub(super) fn remembered(at_us: i64) -> Self {
        Self(UnixMicros(at_us))
    }

    pub(super) fn at(self) -> UnixMicros {
        self.0
    }
}

/// What moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moved {
    /// Nothing.
    Not,
    /// The end of the last interval.
    End,
    /// Anything.
    All,
}

/// A scope as it stands.
#[derive(Clone, Debug)]
pub(super) struct Timeline {
    pub(super) row: ScopeRow,
    /// Covered by the live connection.
    live: IntervalSet,
    /// Asked for again later, and whole.
    audited: IntervalSet,
    /// Where the promise began that holds now, in whichever version.
    promised: UnixMicros,
    /// Up to here each instant of the promise is told: covered, or in a gap. Evidence moves it on, and covers all in between
    /// that no gap has; so nothing can be left out. A gap that grows takes it back to its beginning.
    reached: UnixMicros,
    /// Bounded gaps that lie, in part, beyond that frontier.
    cuts: Vec<(UnixMicros, UnixMicros)>,
    /// The gap that is still growing.
    pub(super) open_gap: Option<u64>,
}

impl Timeline {
    /// One that promises from the row's beginning on.
    pub(super) fn new(row: ScopeRow) -> Self {
        Self {
            live: IntervalSet::new(),
            audited: IntervalSet::new(),
            promised: UnixMicros(row.since_us),
            reached: UnixMicros(row.since_us),
            cuts: Vec::new(),
            open_gap: None,
            row,
        }
    }

    /// Takes back what a catalog holds of it.
    pub(super) fn remember(&mut self, class: &str, from: UnixMicros, to: UnixMicros) {
        let set = if class == super::coverage::AUDITED { &mut self.audited } else { &mut self.live };
        set.insert(from, to);
    }

    /// Finds out how far that tells everything; to be asked when all is remembered.
    pub(super) fn take_up(&mut self, bounded: impl Iterator<Item = (UnixMicros, UnixMicros)> + Clone) {
        let mut told = self.live.clone();
        bounded.clone().for_each(|(from, to)| told.insert(from, to));
        let since = self.promised;
        self.reached = told.iter().find(|&(from, to)| from <= since && since < to).map_or(since, |(_, to)| to);
        self.remember_gaps(bounded);
    }

    /// Takes gaps in that were there before: of one that reaches beyond the frontier the rest is still to be left out.
    pub(super) fn remember_gaps(&mut self, bounded: impl Iterator<Item = (UnixMicros, UnixMicros)>) {
        self.cuts = bounded.filter(|(_, to)| *to > self.reached).collect();
    }

    /// A version of the scope begins, changes or ends. What follows an ended one begins anew; else the timeline goes on, from
    /// no later than the version does.
    pub(super) fn promise(&mut self, row: ScopeRow) {
        let since = UnixMicros(row.since_us);
        let begins_anew = self.row.until_us.is_some() && row.until_us.is_none();
        self.promised = if begins_anew { since } else { self.promised.min(since) };
        self.reached = if begins_anew { since } else { self.reached.min(since) };
        self.row = row;
    }

    /// A gap takes a stretch away; `grows` is its number while it has no end.
    pub(super) fn lose(&mut self, from: UnixMicros, to: Option<UnixMicros>, grows: Option<u64>) {
        let end = to.unwrap_or(UnixMicros(i64::MAX));
        self.live.remove(from, end);
        self.audited.remove(from, end);
        match to {
            Some(to) if to > self.reached => self.cuts.push((from, to)),
            Some(_) => {}
            None => self.reached = self.reached.min(from.max(self.promised)),
        }
        self.open_gap = grows.or(self.open_gap);
    }

    /// A gap got its end: coverage goes on behind it, and behind whichever gaps there are.
    pub(super) fn resume(&mut self, gap: u64, bounded: impl Iterator<Item = (UnixMicros, UnixMicros)>) {
        self.remember_gaps(bounded);
        if self.open_gap == Some(gap) {
            self.open_gap = None;
        }
    }

    /// Lets evidence move the frontier.
    pub(super) fn advance(&mut self, evidence: Evidence) -> Moved {
        if self.open_gap.is_some() || self.row.until_us.is_some() {
            return Moved::Not;
        }
        let frontier = UnixMicros(evidence.0.0.saturating_sub(self.row.horizon_us));
        let start = self.reached;
        if frontier <= start {
            return Moved::Not;
        }
        let goes_on = self.live.iter().last().is_some_and(|(_, end)| end == start);
        self.live.insert(start, frontier);
        self.reached = frontier;
        if self.cuts.is_empty() {
            // Of one that begins the catalog may not know yet how the one before it ended.
            return if goes_on { Moved::End } else { Moved::All };
        }
        for &(from, to) in &self.cuts {
            self.live.remove(from, to);
        }
        self.cuts.retain(|(_, to)| *to > frontier);
        Moved::All
    }

    /// History has nothing of a stretch that is not on the tape: what is covered of it is audited.
    pub(super) fn audit(&mut self, from: UnixMicros, to: UnixMicros) {
        for (a, b) in self.live.iter() {
            self.audited.insert(a.max(from), b.min(to));
        }
    }

    /// Where a gap would begin: one horizon before the last evidence. Where nothing is covered since a gap before it, it takes
    /// that in: history is asked of it a second time. It begins no earlier than the version, if all before that is told (as a
    /// merge leaves it), and never before the promise.
    pub(super) fn frontier(&self, evidence: Option<Evidence>) -> UnixMicros {
        let covered = self.live.iter().last().map_or(self.reached, |(_, to)| to.min(self.reached));
        let by_evidence = evidence.map_or(covered, |at| UnixMicros(at.0.0.saturating_sub(self.row.horizon_us)));
        let since = UnixMicros(self.row.since_us);
        let bound = if since <= self.told() { since } else { self.promised };
        covered.min(by_evidence).max(bound)
    }

    /// Up to here each instant is told by evidence or by gaps that evidence has not reached.
    fn told(&self) -> UnixMicros {
        let mut told = self.reached;
        while let Some(&(_, to)) = self.cuts.iter().find(|(from, to)| *from <= told && told < *to) {
            told = to;
        }
        told
    }

    pub(super) fn live(&self) -> &IntervalSet {
        &self.live
    }

    pub(super) fn audited(&self) -> &IntervalSet {
        &self.audited
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A promise from then on, with a horizon of 10.
    fn promising(since_us: i64) -> Timeline {
        Timeline::new(ScopeRow { since_us, horizon_us: 10, ..ScopeRow::default() })
    }

    fn us(us: i64) -> UnixMicros {
        UnixMicros(us)
    }

    fn live(timeline: &Timeline) -> Vec<(i64, i64)> {
        timeline.live().iter().map(|(from, to)| (from.0, to.0)).collect()
    }

    #[test]
    fn what_a_catalog_remembers_reaches_as_far_as_it_tells_without_a_break() {
        // (remembered as covered, gaps with an end, up to where all is told)
        type Stretches = &'static [(i64, i64)];
        let cases: [(Stretches, Stretches, i64); 6] = [
            (&[], &[], 100),
            (&[(0, 50)], &[], 100),
            (&[(100, 150)], &[], 150),
            (&[(100, 150)], &[(150, 180)], 180),
            (&[(120, 150)], &[(100, 120)], 150),
            (&[(120, 150)], &[], 100),
        ];
        for (covered, gaps, reached) in cases {
            let mut timeline = promising(100);
            covered.iter().for_each(|(from, to)| timeline.remember("live", us(*from), us(*to)));
            timeline.take_up(gaps.iter().map(|(from, to)| (us(*from), us(*to))));
            assert_eq!(timeline.reached, us(reached), "{covered:?} {gaps:?}");
        }
    }

    #[test]
    fn a_gap_is_cut_out_as_far_as_the_frontier_has_not_passed_it() {
        let mut timeline = promising(0);
        assert_eq!(timeline.advance(Evidence(us(60))), Moved::All, "it begins");
        assert_eq!(timeline.advance(Evidence(us(60))), Moved::Not);
        assert_eq!(timeline.advance(Evidence(us(70))), Moved::End);
        // One that ends at the frontier leaves nothing to be cut out, and one beyond it does until it is passed.
        timeline.remember_gaps([(us(40), us(60))].into_iter());
        assert_eq!(timeline.advance(Evidence(us(80))), Moved::End);
        timeline.lose(us(50), Some(us(70)), None);
        assert_eq!((live(&timeline), timeline.advance(Evidence(us(90)))), (vec![(0, 50)], Moved::All));
        assert_eq!((live(&timeline), timeline.advance(Evidence(us(100)))), (vec![(0, 50), (70, 80)], Moved::End));
        timeline.lose(us(95), Some(us(110)), None);
        assert_eq!(timeline.advance(Evidence(us(120))), Moved::All);
        assert_eq!((live(&timeline), timeline.cuts.len()), (vec![(0, 50), (70, 95)], 0));
        assert_eq!(timeline.advance(Evidence(us(130))), Moved::All, "it begins behind the gap");
    }

    #[test]
    fn a_version_goes_on_where_the_one_before_it_stands_unless_that_has_ended() {
        let version = |since_us, until_us| ScopeRow { since_us, until_us, horizon_us: 10, ..ScopeRow::default() };
        let mut timeline = promising(0);
        timeline.advance(Evidence(us(60)));
        timeline.promise(version(80, None));
        assert_eq!((timeline.promised, timeline.reached), (us(0), us(50)));
        timeline.promise(version(80, Some(90)));
        assert_eq!((timeline.promised, timeline.reached, timeline.advance(Evidence(us(200)))), (us(0), us(50), Moved::Not));
        timeline.promise(version(120, None));
        assert_eq!((timeline.promised, timeline.reached), (us(120), us(120)));
    }

    #[test]
    fn what_history_does_not_have_is_audited_where_it_is_covered() {
        let mut timeline = promising(0);
        timeline.advance(Evidence(us(60)));
        timeline.lose(us(20), Some(us(30)), None);
        assert_eq!(timeline.advance(Evidence(us(70))), Moved::End, "a gap behind the frontier leaves nothing to be cut out");
        timeline.audit(us(10), us(40));
        assert_eq!(timeline.audited().iter().collect::<Vec<_>>(), [(us(10), us(20)), (us(30), us(40))]);
    }

    #[test]
    fn a_gap_begins_no_earlier_than_a_version_before_which_all_is_told() {
        let mut timeline = promising(0);
        timeline.advance(Evidence(us(30)));
        timeline.promise(ScopeRow { since_us: 50, horizon_us: 10, ..ScopeRow::default() });
        assert_eq!(timeline.frontier(Some(Evidence(us(25)))), us(15), "nobody tells of what lies before it");
        timeline.lose(us(20), Some(us(60)), None);
        assert_eq!(timeline.frontier(Some(Evidence(us(25)))), us(50));
        timeline.promise(ScopeRow { since_us: 61, horizon_us: 10, ..ScopeRow::default() });
        assert_eq!(timeline.frontier(Some(Evidence(us(25)))), us(15));
    }
}
