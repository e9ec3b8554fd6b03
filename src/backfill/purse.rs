//! What may be spent, and what was: in this run and today.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::archive::{ArchiveError, Spent, Tape};
use crate::model::{SourceName, UnixMicros};

/// What may be spent; nothing set is no bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// Requests.
    pub requests: Option<u64>,
    /// Rows that come back.
    pub rows: Option<u64>,
    /// Millionths of a US dollar.
    pub micro_usd: Option<u64>,
}

impl Budget {
    /// This budget, and where it sets nothing the other.
    pub fn or(self, other: Self) -> Self {
        Self {
            requests: self.requests.or(other.requests),
            rows: self.rows.or(other.rows),
            micro_usd: self.micro_usd.or(other.micro_usd),
        }
    }

    /// The first thing of which it allows nothing at all.
    pub(super) fn nothing_of(&self) -> Option<&'static str> {
        let each = [(self.requests, "requests"), (self.rows, "items"), (self.micro_usd, "dollars")];
        each.into_iter().find(|(bound, _)| *bound == Some(0)).map(|(_, unit)| unit)
    }

    /// What of it one more request would overrun that costs at least so much, in words.
    fn overrun(&self, spent: &Spent, least_micro_usd: u64) -> Option<String> {
        let usd = |micro: u64| format!("{:.4} USD", micro as f64 / 1e6);
        let is_up = |spent: u64, bound: Option<u64>| bound.filter(|bound| spent >= *bound);
        if let Some(bound) = is_up(spent.requests, self.requests) {
            return Some(format!("{bound} requests is used up"));
        }
        if let Some(bound) = is_up(spent.rows, self.rows) {
            return Some(format!("{bound} items is used up"));
        }
        let bound = self.micro_usd?;
        if spent.micro_usd >= bound {
            return Some(format!("{} is used up", usd(bound)));
        }
        let left = bound - spent.micro_usd;
        (least_micro_usd > left).then(|| {
            format!(
                "{} is used up ({} are left, and the next page costs at least {})",
                usd(bound),
                usd(left),
                usd(least_micro_usd)
            )
        })
    }
}

/// What filling spends by itself in a day and source where nobody says otherwise: so little that no bill surprises.
pub const AUTOMATIC_DAY: Budget = Budget { requests: Some(1_000), rows: None, micro_usd: Some(1_000_000) };

/// All bounds on spending.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budgets {
    /// In one run, all sources together.
    pub run: Budget,
    /// In a day (UTC), each source.
    pub day: Budget,
    /// In a day, all sources of the tape together.
    pub day_in_all: Budget,
}

/// A budget that is used up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reached {
    /// In words.
    pub(super) words: String,
    /// When there is a new one; never, for a run's.
    pub(super) until: Option<UnixMicros>,
    /// Whether it is all sources' budget.
    pub(super) in_all: bool,
}

/// The right to one request.
#[derive(Debug)]
pub(super) struct Ticket {
    source: SourceName,
    day: i64,
    least_micro_usd: u64,
}

/// Keeps the accounts of a tape's writer. What was spent before it began is read from the ledger.
#[derive(Debug)]
pub(super) struct Purse {
    budgets: Budgets,
    run: Spent,
    day: i64,
    today: BTreeMap<String, Spent>,
}

impl Purse {
    pub(super) fn of(tape: &Tape, budgets: Budgets, now: UnixMicros) -> Result<Self, ArchiveError> {
        let mut today = BTreeMap::new();
        for source in tape.sources()? {
            today.insert(source.name.clone(), spent_on_day(tape, &source.name, now)?);
        }
        Ok(Self { budgets, run: Spent::default(), day: now.day(), today })
    }

    fn turn_day(&mut self, now: UnixMicros) {
        if now.day() != self.day {
            self.day = now.day();
            self.today.clear();
        }
    }

    /// The budget that one more request of a source would overrun, if it costs at least so much.
    pub(super) fn reached(&mut self, source: &SourceName, least_micro_usd: u64, now: UnixMicros) -> Option<Reached> {
        self.turn_day(now);
        if let Some(words) = self.budgets.run.overrun(&self.run, least_micro_usd) {
            let words = format!("the budget of {words}; the next run goes on from here");
            return Some(Reached { words, until: None, in_all: true });
        }
        let until = Some(day_after(now));
        let all = self.today.values().fold(Spent::default(), |sum, spent| Spent {
            requests: sum.requests + spent.requests,
            rows: sum.rows + spent.rows,
            micro_usd: sum.micro_usd + spent.micro_usd,
        });
        if let Some(words) = self.budgets.day_in_all.overrun(&all, least_micro_usd) {
            let words = format!("today's budget of all sources of {words}; the next day (UTC) goes on from here");
            return Some(Reached { words, until, in_all: true });
        }
        let mine = self.today.get(source.as_str()).copied().unwrap_or_default();
        let words = self.budgets.day.overrun(&mine, least_micro_usd)?;
        let words = format!("today's budget of {words}; the next day (UTC) goes on from here");
        Some(Reached { words, until, in_all: false })
    }

    /// Takes what one request costs at least.
    pub(super) fn take(&mut self, source: &SourceName, least_micro_usd: u64, now: UnixMicros) -> Result<Ticket, Reached> {
        if let Some(reached) = self.reached(source, least_micro_usd, now) {
            return Err(reached);
        }
        let ticket = Ticket { source: source.clone(), day: self.day, least_micro_usd };
        self.add(&ticket.source, Spent { requests: 1, rows: 0, micro_usd: least_micro_usd });
        Ok(ticket)
    }

    /// Puts in place of the least what it did cost.
    pub(super) fn settle(&mut self, ticket: Ticket, rows: u64, micro_usd: u64, now: UnixMicros) {
        self.turn_day(now);
        let less = |spent: &mut Spent| spent.micro_usd = spent.micro_usd.saturating_sub(ticket.least_micro_usd);
        less(&mut self.run);
        let mut requests = 0;
        match self.today.get_mut(ticket.source.as_str()) {
            Some(spent) if ticket.day == self.day => less(spent),
            // The ledger will count it on the day that began meanwhile.
            _ => requests = 1,
        }
        self.add(&ticket.source, Spent { requests, rows, micro_usd });
        self.run.requests -= requests;
    }

    fn add(&mut self, source: &SourceName, spent: Spent) {
        for sum in [&mut self.run, self.today.entry(source.to_string()).or_default()] {
            sum.requests += spent.requests;
            sum.rows += spent.rows;
            sum.micro_usd += spent.micro_usd;
        }
    }

    /// Whether two requests at one time could overrun what all sources share by more than one.
    pub(super) fn is_shared(&self) -> bool {
        [self.budgets.run, self.budgets.day_in_all].iter().any(|budget| budget.rows.is_some() || budget.micro_usd.is_some())
    }
}

/// What a source has spent on the day of `now`, by the ledger.
///
/// # Errors
/// When the catalog cannot be read.
pub fn spent_on_day(tape: &Tape, source: &str, now: UnixMicros) -> Result<Spent, ArchiveError> {
    let (requests, rows, micro_usd) = tape.catalog().spent_since(Some(source), day_of(now).0)?;
    Ok(Spent { requests, rows, micro_usd })
}

const DAY: Duration = Duration::from_secs(86_400);

fn day_of(at: UnixMicros) -> UnixMicros {
    UnixMicros(at.day() * DAY.as_micros() as i64)
}

fn day_after(at: UnixMicros) -> UnixMicros {
    day_of(at).plus(DAY)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: UnixMicros = UnixMicros(1_767_614_400_000_000);

    fn purse(budgets: Budgets) -> Purse {
        Purse { budgets, run: Spent::default(), day: NOON.day(), today: BTreeMap::new() }
    }

    fn ask(purse: &mut Purse, name: &str, least: u64, (rows, cost): (u64, u64), at: UnixMicros) -> Result<(), String> {
        let ticket = purse.take(&SourceName::new(name).unwrap(), least, at).map_err(|reached| reached.words)?;
        purse.settle(ticket, rows, cost, at);
        Ok(())
    }

    #[test]
    fn each_budget_ends_by_its_own_unit() {
        let some = |requests, rows, micro_usd| Budget { requests, rows, micro_usd };
        let cases = [
            (some(Some(2), None, None), 2, "today's budget of 2 requests is used up"),
            (some(None, Some(25), None), 3, "today's budget of 25 items is used up"),
            (some(None, None, Some(450)), 3, "today's budget of 0.0004 USD is used up;"),
            // Three pages fit, and then 100 are left of which no page can be had.
            (some(None, None, Some(550)), 3, "the next page costs at least 0.0001 USD"),
        ];
        for (day, pages, words) in cases {
            let mut purse = purse(Budgets { day, ..Budgets::default() });
            for _ in 0..pages {
                ask(&mut purse, "alpha", 150, (10, 150), NOON).unwrap();
            }
            let said = ask(&mut purse, "alpha", 150, (10, 150), NOON).unwrap_err();
            assert!(said.contains(words), "{said}");
            ask(&mut purse, "beta", 150, (10, 150), NOON).unwrap();
            ask(&mut purse, "alpha", 150, (10, 150), day_after(NOON)).unwrap();
        }
    }

    #[test]
    fn a_days_budget_in_all_and_a_runs_count_every_source() {
        let two = Budget { requests: Some(2), ..Budget::default() };
        let mut shared = purse(Budgets { day_in_all: two, ..Budgets::default() });
        ask(&mut shared, "alpha", 0, (1, 0), NOON).unwrap();
        ask(&mut shared, "beta", 0, (1, 0), NOON).unwrap();
        let reached = shared.reached(&SourceName::new("alpha").unwrap(), 0, NOON).unwrap();
        assert!(reached.in_all && reached.words.contains("all sources of 2 requests"), "{reached:?}");
        assert_eq!(reached.until, Some(day_after(NOON)));
        let mut run = purse(Budgets { run: two, ..Budgets::default() });
        ask(&mut run, "alpha", 0, (1, 0), NOON).unwrap();
        ask(&mut run, "beta", 0, (1, 0), day_after(NOON)).unwrap();
        let reached = run.reached(&SourceName::new("alpha").unwrap(), 0, day_after(NOON)).unwrap();
        assert_eq!(reached.until, None, "a new day is no new run");
    }

    #[test]
    fn what_is_asked_over_midnight_counts_on_the_day_of_its_answer() {
        let day = Budget { requests: Some(1), ..Budget::default() };
        let mut purse = purse(Budgets { day, ..Budgets::default() });
        let alpha = SourceName::new("alpha").unwrap();
        let ticket = purse.take(&alpha, 0, NOON).unwrap();
        purse.settle(ticket, 5, 0, day_after(NOON));
        assert!(purse.reached(&alpha, 0, day_after(NOON)).is_some());
        assert_eq!(purse.run.requests, 1);
    }
}
