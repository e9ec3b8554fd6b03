//! Filling beside a recorder: looks after the ledger and fills what is due, one gap of a source at a time.
//!
//! What is due is read from the tape, so nothing is forgotten by a restart: a gap whose end is known is due when history
//! can know it; one that was begun and left is due at once; one of which only a part could be proven is tried again
//! after growing waits, and then left.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::time::sleep;

use super::filling::{Filler, Shared, off_the_runtime};
use super::purse::Purse;
use super::selectors::Selectors;
use super::{BackfillError, Budgets, Event, Filled, Halt, Planned, Source, check_clock, horizon_of, planned};
use crate::archive::{ArchiveError, Disk, GapRow, GapStepRow, Pen, Tape};
use crate::model::{Cause, GapState, UnixMicros};
use crate::net::Clock;

/// Waits before a gap of which a part is not proven is tried again; after the last it is left.
const GROWING: [Duration; 4] =
    [Duration::from_secs(600), Duration::from_secs(3_600), Duration::from_secs(6 * 3_600), Duration::from_secs(86_400)];

/// A provider that refused this key may have been paid since.
const AFTER_REFUSAL: Duration = Duration::from_secs(6 * 3_600);

/// The ledger is looked at that often, whatever was said about it: clocks are set, machines sleep.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// [`Following::index_delay`] where nobody says otherwise.
pub const INDEX_DELAY: Duration = Duration::from_secs(60);

/// What is to be filled beside a recorder.
#[derive(Clone, Debug)]
pub struct Following {
    /// Directory of the tape.
    pub tape: PathBuf,
    /// Sources that may be asked.
    pub sources: Vec<Source>,
    /// What may be spent.
    pub budgets: Budgets,
    /// Shortest time between two requests to one provider; without it a little less than what it documents.
    pub pace: Option<Duration>,
    /// How long history needs to know of what was published.
    pub index_delay: Duration,
}

/// Takes what happens; called from tasks, so it must be quick.
pub type Sink = Arc<dyn Fn(Event) + Send + Sync>;

/// When a gap is filled without being asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// It still grows.
    Growing,
    /// From then on.
    At(UnixMicros),
    /// It was tried often enough.
    Never,
}

/// When an open gap is due, by its row and steps, the horizon of its scope and the time history needs.
pub fn due(gap: &GapRow, steps: &[GapStepRow], horizon: Duration, index_delay: Duration) -> Due {
    let Some(to) = gap.to_us.map(UnixMicros) else { return Due::Growing };
    let is = |step: &GapStepRow, state: GapState| step.state == state.name();
    let n_partial = steps.iter().filter(|step| is(step, GapState::Partial)).count();
    match (n_partial, steps.last()) {
        (1.., Some(last)) if is(last, GapState::Partial) => {
            GROWING.get(n_partial - 1).map_or(Due::Never, |wait| Due::At(UnixMicros(last.at_us).plus(*wait)))
        }
        // What was begun goes on.
        (_, Some(last)) if is(last, GapState::Planned) || is(last, GapState::Filling) => Due::At(UnixMicros(last.at_us)),
        // The live stream must be past the window's end as well: what it brought there proves that edge.
        _ => Due::At(to.plus(horizon).plus(index_delay)),
    }
}

/// Fills gaps until `leaving` says so. Whatever goes wrong is told and never ends the recorder.
///
/// `ledger` changes whenever a gap may have got its end.
#[allow(clippy::too_many_arguments, reason = "each is a seam of its own")]
pub async fn follow<P: Pen + Clone + 'static>(
    following: Following,
    pen: P,
    clock: Arc<dyn Clock>,
    disk: Arc<dyn Disk>,
    ledger: watch::Receiver<()>,
    leaving: watch::Receiver<bool>,
    tell: Sink,
) {
    crate::model::panic_point("filler");
    let (dir, budgets, now) = (following.tape.clone(), following.budgets, clock.wall());
    let open = {
        let disk = Arc::clone(&disk);
        move || Purse::of(&Tape::open(&dir, disk)?, budgets, now)
    };
    let shared = match off_the_runtime(open).await {
        Ok(purse) => Arc::new(Shared::new(purse)),
        Err(error) => return tell(Event::Rests { source: None, until: None, why: format!("the tape cannot be read: {error}") }),
    };
    let followers = following.sources.into_iter().map(|source| {
        let place = (following.tape.clone(), Arc::clone(&disk));
        let mut filler = Filler::sharing(Arc::clone(&shared), Box::new(pen.clone()), place, &clock);
        filler.keep_pace(&source, following.pace);
        let follower = Follower {
            source,
            filler,
            index_delay: following.index_delay,
            tell: Arc::clone(&tell),
            rests_until: None,
            again: BTreeMap::new(),
            complained: None,
        };
        follower.run(ledger.clone(), leaving.clone())
    });
    join_all(followers).await;
}

struct Follower {
    source: Source,
    filler: Filler,
    index_delay: Duration,
    tell: Sink,
    /// Nothing is asked before; `None` inside is not in this run.
    rests_until: Option<Option<UnixMicros>>,
    /// Gaps that were given up for now: until when, and how often.
    again: BTreeMap<u64, (UnixMicros, usize)>,
    /// The last complaint: the same is not said twice.
    complained: Option<String>,
}

/// What the ledger has for a follower.
enum Look {
    Due(Box<Planned>),
    /// Nothing before, if ever.
    Wait(Option<UnixMicros>),
}

impl Follower {
    async fn run(mut self, mut ledger: watch::Receiver<()>, mut leaving: watch::Receiver<bool>) {
        let mut leave = leaving.clone();
        // Whoever tells us to leave may be gone; that is the same.
        let mut left = std::pin::pin!(async move { drop(leave.wait_for(|leave| *leave).await) });
        loop {
            ledger.borrow_and_update();
            let until = match self.look().await {
                Ok(Look::Due(planned)) => match self.fill(*planned, left.as_mut()).await {
                    Some(()) => continue,
                    None => return,
                },
                Ok(Look::Wait(until)) => until,
                Err(error) => {
                    self.complain(error.to_string(), None);
                    None
                }
            };
            let now = self.filler.clock.wall();
            let wait = until.map_or(LOOK_EVERY, |until| Duration::from_micros(until.since(now).max(1_000) as u64));
            tokio::select! {
                _ = leaving.wait_for(|leave| *leave) => return,
                changed = ledger.changed() => if changed.is_err() { return },
                () = sleep(wait.min(LOOK_EVERY)) => {}
            }
        }
    }

    /// Fills a gap; `None` when it is time to leave.
    async fn fill(&mut self, planned: Planned, left: std::pin::Pin<&mut (dyn Future<Output = ()> + Send)>) -> Option<()> {
        let n = planned.gap.n;
        let say = Arc::clone(&self.tell);
        match self.filler.fill(planned, &mut |event| say(event), left).await {
            Ok(Some(filled)) => {
                self.plan_ahead(n, &filled);
                (self.tell)(Event::Ended(filled));
                Some(())
            }
            Ok(None) => None,
            Err(error) => {
                // Without a pen nothing can be filled any more; anything else may pass.
                let until = (!error.is_final()).then(|| self.filler.clock.wall().plus(GROWING[0]));
                self.complain(error.to_string(), until);
                self.rests_until = Some(until);
                until.map(drop)
            }
        }
    }

    /// Draws the conclusions for the next look.
    fn plan_ahead(&mut self, n: u64, filled: &Filled) {
        let now = self.filler.clock.wall();
        let Some(halt) = &filled.halt else {
            self.again.remove(&n);
            self.complained = None;
            return;
        };
        let until = match halt {
            Halt::Tries => {
                let times = self.again.get(&n).map_or(0, |(_, times)| *times);
                let wait = GROWING[times.min(GROWING.len() - 1)];
                self.again.insert(n, (now.plus(wait), times + 1));
                return;
            }
            Halt::Refused => Some(now.plus(AFTER_REFUSAL)),
            Halt::Asked { until } => Some(*until),
            Halt::Budget { until, .. } => *until,
        };
        self.rests_until = Some(until);
        self.complain(filled.detail.clone(), until);
    }

    fn complain(&mut self, why: String, until: Option<UnixMicros>) {
        if self.complained.as_ref() != Some(&why) {
            self.complained = Some(why.clone());
            (self.tell)(Event::Rests { source: Some(self.source.name.clone()), until, why });
        }
    }

    async fn look(&self) -> Result<Look, BackfillError> {
        let now = self.filler.clock.wall();
        if let Some(until) = self.rests_until.filter(|until| until.is_none_or(|until| until > now)) {
            return Ok(Look::Wait(until));
        }
        let (dir, disk, source) = (self.filler.dir.clone(), Arc::clone(&self.filler.disk), self.source.clone());
        let (again, index_delay) = (self.again.clone(), self.index_delay);
        off_the_runtime(move || look(&Tape::open(&dir, disk)?, source, &again, index_delay, now)).await
    }
}

/// How sure it is that a gap misses something: known losses come before posts that were only spoken of and lists that
/// changed, and those before pages that were full.
fn doubt(gap: &GapRow) -> u8 {
    match gap.cause.parse() {
        Ok(Cause::FullPage) => 2,
        Ok(Cause::Orphan | Cause::ScopeChanged) => 1,
        _ => 0,
    }
}

/// The first gap of a source that is due, or when the next will be. Doubts wait for known losses that will be due soon:
/// filling those often settles them, and the budget may not be enough for both.
fn look(
    tape: &Tape,
    source: Source,
    again: &BTreeMap<u64, (UnixMicros, usize)>,
    index_delay: Duration,
    now: UnixMicros,
) -> Result<Look, BackfillError> {
    check_clock(tape, now)?;
    let name = source.name.as_str();
    let scopes = tape.catalog().scopes(name).map_err(ArchiveError::from)?;
    let (mut first, mut next) = (None, None);
    let mut gaps = tape.catalog().gaps(Some(name)).map_err(ArchiveError::from)?;
    gaps.retain(|gap| gap.state.parse().is_ok_and(GapState::is_open));
    gaps.sort_by_key(|gap| (doubt(gap), gap.from_us));
    let mut is_loss_near = false;
    for gap in gaps {
        let steps = tape.catalog().gap_steps(name, gap.n).map_err(ArchiveError::from)?;
        let Due::At(at) = due(&gap, &steps, horizon_of(&scopes, &gap.scope), index_delay) else { continue };
        let at = again.get(&gap.n).map_or(at, |(until, _)| at.max(*until));
        if at > now {
            next = Some(next.map_or(at, |next: UnixMicros| next.min(at)));
            is_loss_near |= doubt(&gap) == 0 && at < now.plus(GROWING[0]);
        } else if first.is_none() && (doubt(&gap) == 0 || !is_loss_near) {
            first = Some(gap);
        }
    }
    let Some(gap) = first else { return Ok(Look::Wait(next)) };
    let selectors = Selectors::of(tape, name, source.settings.provider)?;
    Ok(Look::Due(Box::new(planned(tape, gap, source, &selectors)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(n: u64, at_s: i64, state: GapState) -> GapStepRow {
        GapStepRow { n, gap_n: 1, at_us: at_s * 1_000_000, state: state.name().to_owned(), ..GapStepRow::default() }
    }

    #[test]
    fn a_gap_is_due_when_history_can_know_it_and_a_partial_one_after_growing_waits() {
        let gap = GapRow { n: 1, from_us: 0, to_us: Some(100_000_000), ..GapRow::default() };
        let at = |steps: &[GapStepRow]| due(&gap, steps, Duration::from_secs(30), Duration::from_secs(60));
        let seconds = |s: i64| Due::At(UnixMicros(s * 1_000_000));
        assert_eq!(due(&GapRow { to_us: None, ..gap.clone() }, &[], Duration::ZERO, Duration::ZERO), Due::Growing);
        let mut steps = vec![step(1, 100, GapState::Open)];
        assert_eq!(at(&steps), seconds(190));
        for (nth, wait) in [600, 3_600, 21_600, 86_400].into_iter().enumerate() {
            steps.push(step(10 * nth as u64 + 2, 1_000, GapState::Planned));
            steps.push(step(10 * nth as u64 + 3, 1_000, GapState::Filling));
            assert_eq!(at(&steps), seconds(1_000), "what was begun goes on at once");
            steps.push(step(10 * nth as u64 + 4, 2_000, GapState::Partial));
            assert_eq!(at(&steps), seconds(2_000 + wait));
        }
        steps.push(step(99, 3_000, GapState::Partial));
        assert_eq!(at(&steps), Due::Never);
    }

    #[test]
    fn a_doubt_waits_for_a_known_loss_that_is_near() {
        use crate::archive::{ALL, Archive, Lost, Options, RealDisk};
        use crate::model::{Provider, SourceName};
        use crate::net::{SystemNetwork, TlsOptions};
        use crate::provider::{decode_record, default_settings};

        let (dir, name) = (tempfile::tempdir().unwrap(), SourceName::from(Provider::Tweetstream));
        let second = |s: i64| UnixMicros(1_767_614_400_000_000 + s * 1_000_000);
        let (disk, horizon) = (Arc::new(RealDisk), Duration::from_secs(60));
        let mut archive =
            Archive::open(dir.path(), disk.clone(), Options::default(), decode_record, "a test", second(0)).unwrap();
        archive.add_source(&name, Provider::Tweetstream).unwrap();
        archive.live(&name, ALL, horizon, second(0), "a frame").unwrap();
        let lost = |cause| Lost { scope: ALL, cause, detail: "x" };
        let doubt = archive.suspect(&name, second(900), (second(10), second(11)), lost(Cause::Orphan)).unwrap().unwrap();
        let loss = archive.lost(&name, second(1_000), lost(Cause::Silent)).unwrap().unwrap();
        archive.live(&name, ALL, horizon, second(1_000), "a frame").unwrap();
        archive.close(second(1_000)).unwrap();

        let network = Arc::new(SystemNetwork::new(TlsOptions::default()).unwrap());
        let source = Source { name, settings: default_settings(Provider::Tweetstream), network, look_twice: false };
        let tape = Tape::open(dir.path(), disk).unwrap();
        let at = |s: i64, again: &BTreeMap<u64, (UnixMicros, usize)>| match look(
            &tape,
            source.clone(),
            again,
            Duration::from_secs(5),
            second(s),
        )
        .unwrap()
        {
            Look::Due(planned) => Ok(planned.gap.n),
            Look::Wait(until) => Err(until.map(|until| until.since(second(0)) / 1_000_000)),
        };
        // The loss ends at 1,060 and is due a horizon and the delay later.
        let none = BTreeMap::new();
        assert_eq!(at(1_001, &none), Err(Some(1_125)));
        assert_eq!(at(1_125, &none), Ok(loss));
        let later = BTreeMap::from([(loss, (second(9_000), 1))]);
        assert_eq!(at(1_125, &later), Ok(doubt), "a loss that is far off holds nobody up");
        let both = BTreeMap::from([(loss, (second(9_000), 1)), (doubt, (second(8_000), 1))]);
        assert_eq!(at(1_125, &both), Err(Some(8_000)));
    }
}
