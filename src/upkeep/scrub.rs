//! Every sealed byte read again, slowly, from where it was left.
//!
//! A pass looks at each sealed segment of each source once. Where it stands is in `scrub.json` on the tape; losing that file
//! only begins the pass anew. A segment that was looked at only in part is looked at again. Damage becomes a gap of cause
//! `damaged` around the time of the lost records, which is filled like any other; it is told once.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use super::{Paced, off_the_runtime, open, sealed};
use crate::archive::{
    self, Archive, ArchiveError, Disk, Hole, Layout, Leaf, Looked, Pen, PenError, ScrubPlace, SegmentRow, Tape, Writing,
};
use crate::model::{GapState, UnixMicros};
use crate::net::Clock;
use crate::provider::decode_record;

/// The calendar is looked at that often: clocks are set, machines sleep.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// After something else than damage went wrong.
const AFTER_TROUBLE: Duration = Duration::from_secs(600);

/// How a recorder looks at what it has sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScrubOptions {
    /// Whether it does.
    pub automatic: bool,
    /// Bytes of files read in a second, at most.
    pub bytes_per_second: u64,
    /// From the beginning of one pass to that of the next, at least.
    pub every: Duration,
}

impl Default for ScrubOptions {
    fn default() -> Self {
        Self { automatic: true, bytes_per_second: 1_000_000, every: Duration::from_secs(7 * 86_400) }
    }
}

/// What is to be looked at.
#[derive(Clone, Debug)]
pub struct Scrubbing {
    /// Directory of the tape.
    pub tape: PathBuf,
    /// Bytes of files read in a second, at most; 0 is as fast as it goes.
    pub bytes_per_second: u64,
    /// From the beginning of one pass to that of the next, at least.
    pub every: Duration,
}

/// What happens, for whoever watches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScrubEvent {
    /// A pass begins or goes on; so much is still to be read.
    Began {
        /// Segments.
        segments: u64,
        /// Bytes of their files.
        bytes: u64,
    },
    /// A segment was read.
    Looked {
        /// Its source.
        source: String,
        /// Its first number.
        first_n: u64,
        /// Bytes of the file.
        bytes: u64,
    },
    /// A segment is damaged in a way that the ledger did not tell yet; it does now.
    Damaged {
        /// Its source.
        source: String,
        /// The file.
        path: PathBuf,
        /// What does not hold.
        flaws: Vec<String>,
        /// Records that are lost.
        lost: Vec<Hole>,
    },
    /// A pass is over.
    Passed(Passed),
    /// Nothing can be looked at for now.
    Rests {
        /// Why.
        why: String,
    },
}

/// What a pass came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// Segments looked at, those before an interruption included.
    pub segments: u64,
    /// Bytes of their files.
    pub bytes: u64,
    /// Segments among them that are damaged.
    pub damaged: u64,
}

/// Takes what happens; called from a task, so it must be quick.
pub type Sink = Arc<dyn Fn(ScrubEvent) + Send + Sync>;

/// Looks at sealed segments beside a recorder, pass after pass, until `leaving` says so. Whatever goes wrong is told and never
/// ends the recorder.
pub async fn follow<P: Pen>(
    scrubbing: Scrubbing,
    mut pen: P,
    clock: Arc<dyn Clock>,
    disk: Arc<dyn Disk>,
    mut leaving: watch::Receiver<bool>,
    tell: Sink,
) {
    crate::model::panic_point("scrubber");
    let mut complained = None;
    loop {
        let mut pass = Pass::new(&scrubbing, &clock, &disk);
        let passed = pass.run(&mut pen, &mut |event| tell(event), leaving.clone(), false).await;
        let wait = match passed {
            Ok(_) => {
                complained = None;
                LOOK_EVERY
            }
            Err(error) => {
                let why = error.to_string();
                if complained.as_ref() != Some(&why) {
                    complained = Some(why.clone());
                    tell(ScrubEvent::Rests { why });
                }
                AFTER_TROUBLE
            }
        };
        let left = async { drop(leaving.wait_for(|leave| *leave).await) };
        tokio::select! {
            () = left => return,
            () = sleep(wait) => {}
        }
    }
}

/// Makes one pass, or goes on with the one that was begun, on a tape nobody is recording on. `None` when it was stopped.
///
/// # Errors
/// When somebody else writes to the tape, or it cannot be read.
pub async fn scrub(
    scrubbing: Scrubbing,
    options: archive::Options,
    holder: &str,
    clock: Arc<dyn Clock>,
    disk: Arc<dyn Disk>,
    leaving: watch::Receiver<bool>,
    tell: &mut (dyn FnMut(ScrubEvent) + Send),
) -> Result<Option<Passed>, ArchiveError> {
    Layout::new(&scrubbing.tape).require_info(&*disk)?;
    let archive = Archive::open(&scrubbing.tape, Arc::clone(&disk), options, decode_record, holder, clock.wall())?;
    let mut own = Own(std::sync::Mutex::new(archive));
    let mut pass = Pass::new(&scrubbing, &clock, &disk);
    let passed = pass.run(&mut own, tell, leaving, true).await;
    let archive = own.0.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    archive.close(clock.wall())?;
    match passed {
        Ok(passed) => Ok(passed),
        Err(PenError::Archive(error)) => Err(error),
        Err(PenError::NoGap { .. } | PenError::Full | PenError::Gone) => {
            unreachable!("this pen is an archive, and no gap is named")
        }
    }
}

/// The pen of a job that runs alone.
struct Own(std::sync::Mutex<Archive>);

impl Pen for Own {
    fn write(&mut self, _: Leaf) -> Writing<'_> {
        Box::pin(async { Err(PenError::Gone) })
    }

    fn lose(&mut self, hole: Hole, at: UnixMicros) -> Writing<'_> {
        let archive = self.0.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        let written = archive.note_loss(&hole, at).and_then(|_| archive.commit(at).map(drop));
        Box::pin(async { written.map_err(PenError::from) })
    }
}

/// One way through the tape.
struct Pass<'a> {
    scrubbing: &'a Scrubbing,
    clock: &'a Arc<dyn Clock>,
    disk: &'a Arc<dyn Disk>,
    paced: Paced,
}

impl<'a> Pass<'a> {
    fn new(scrubbing: &'a Scrubbing, clock: &'a Arc<dyn Clock>, disk: &'a Arc<dyn Disk>) -> Self {
        Self { scrubbing, clock, disk, paced: Paced::new(Arc::clone(disk), scrubbing.bytes_per_second) }
    }

    /// Runs a pass to its end; `None` when none is due, or it was told to leave.
    async fn run(
        &mut self,
        pen: &mut impl Pen,
        tell: &mut (dyn FnMut(ScrubEvent) + Send),
        mut leaving: watch::Receiver<bool>,
        is_wanted: bool,
    ) -> Result<Option<Passed>, PenError> {
        let Some(mut place) = self.place(is_wanted) else { return Ok(None) };
        let left = self.rest(&place).await?;
        if left.is_empty() && place.segments == 0 {
            return Ok(Some(Passed::default()));
        }
        tell(ScrubEvent::Began { segments: left.len() as u64, bytes: left.iter().map(|row| row.bytes).sum() });
        for row in left {
            let (dir, disk, paced, of) = (self.scrubbing.tape.clone(), Arc::clone(self.disk), self.paced.clone(), row.clone());
            let look = off_the_runtime(move || {
                let tape = open(&dir, &disk)?;
                let looked = tape.look_at(&paced, &of)?;
                Ok::<_, ArchiveError>(looked.map(|looked| (untold(&tape, &of, &looked), looked)))
            });
            let mut look = std::pin::pin!(look);
            // Whoever tells us to leave may be gone; that is the same.
            let left = async { drop(leaving.wait_for(|leave| *leave).await) };
            let looked = tokio::select! {
                looked = &mut look => looked,
                () = left => {
                    self.paced.stop();
                    // It ends with its next read.
                    drop(look.await);
                    return Ok(None);
                }
            };
            if let Some((untold, looked)) = looked? {
                place.segments += 1;
                place.bytes += row.bytes;
                place.damaged += u64::from(!looked.is_whole());
                self.note(pen, &row, untold?, looked, tell).await?;
            }
            (place.source, place.first_n) = (row.source, row.first_n);
            self.keep(place.clone()).await?;
        }
        place.is_done = true;
        self.keep(place.clone()).await?;
        let ScrubPlace { segments, bytes, damaged, .. } = place;
        let passed = Passed { segments, bytes, damaged };
        tell(ScrubEvent::Passed(passed));
        Ok(Some(passed))
    }

    /// Where the pass stands that is due; one that nobody asked for waits for its time.
    fn place(&self, is_wanted: bool) -> Option<ScrubPlace> {
        let now = self.clock.wall();
        match ScrubPlace::read(&self.scrubbing.tape, &**self.disk) {
            // A clock that was put back must not stop it for years.
            Some(place) if place.is_done => {
                let begun = place.begun();
                let is_due = is_wanted || now < begun || begun.plus(self.scrubbing.every) <= now;
                is_due.then(|| ScrubPlace::begin(now))
            }
            Some(place) => Some(place),
            None => Some(ScrubPlace::begin(now)),
        }
    }

    async fn rest(&self, place: &ScrubPlace) -> Result<Vec<SegmentRow>, ArchiveError> {
        let (dir, disk, place) = (self.scrubbing.tape.clone(), Arc::clone(self.disk), place.clone());
        let mut rows = off_the_runtime(move || sealed(&open(&dir, &disk)?, &[])).await?;
        rows.retain(|row| (&row.source, row.first_n) > (&place.source, place.first_n));
        Ok(rows)
    }

    async fn keep(&self, place: ScrubPlace) -> Result<(), ArchiveError> {
        let (dir, disk) = (self.scrubbing.tape.clone(), Arc::clone(self.disk));
        off_the_runtime(move || place.write(&dir, &*disk)).await
    }

    async fn note(
        &self,
        pen: &mut impl Pen,
        row: &SegmentRow,
        untold: Vec<Hole>,
        looked: Looked,
        tell: &mut (dyn FnMut(ScrubEvent) + Send),
    ) -> Result<(), PenError> {
        for hole in &untold {
            pen.lose(hole.clone(), self.clock.wall()).await?;
        }
        tell(ScrubEvent::Looked { source: row.source.clone(), first_n: row.first_n, bytes: row.bytes });
        // Flaws that cost no record are told each time: nothing else remembers them.
        if !looked.is_whole() && (!untold.is_empty() || looked.lost.is_empty()) {
            let Looked { path, flaws, .. } = looked;
            tell(ScrubEvent::Damaged { source: row.source.clone(), path, flaws, lost: untold });
        }
        Ok(())
    }
}

/// Lost records of which the ledger does not tell yet.
fn untold(tape: &Tape, row: &SegmentRow, looked: &Looked) -> Result<Vec<Hole>, ArchiveError> {
    if looked.lost.is_empty() {
        return Ok(Vec::new());
    }
    let mut gaps = tape.catalog().gaps(Some(&row.source)).map_err(ArchiveError::from)?;
    gaps.retain(|gap| gap.state != GapState::Restored.name());
    let is_told = |hole: &&Hole| {
        let tells = |first: Option<u64>, last: Option<u64>| {
            first.is_some_and(|first| first <= hole.first_n.0) && last.is_some_and(|last| hole.last_n.0 <= last)
        };
        gaps.iter().any(|gap| tells(gap.lost_first_n, gap.lost_last_n))
    };
    Ok(looked.lost.iter().filter(|hole| !is_told(hole)).cloned().collect())
}
