//! One world from its beginning to its verdict: the recorder lives and dies, gaps are filled, then the oracle looks.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use birdtape::archive::{self, MemDisk, Tape};
use birdtape::backfill;
use birdtape::model::{Provider, Secret, SourceName};
use birdtape::net::{Clock, Network};
use birdtape::provider::{Auth, Base, Credentials, Settings, default_settings};
use birdtape::record::{self, OVERLOAD_WAIT, STOP_WITHIN, Writing};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::house::House;
use super::oracle::Seen;
use super::stage::{Stage, Wire, talks};
use super::table::Table;
use super::world::{BEGIN, Chore, End, World};
use super::{MINUTES, oracle};

/// The source's name.
pub(super) const SOURCE: &str = "sim";

/// Rounds of filling at the end: the first with the world's lies, the others with the truth.
const LYING_ROUNDS: u32 = 2;
const HONEST_ROUNDS: u32 = 4;

/// A round is given up after so long of the world's time: walks end by themselves.
const ROUND: Duration = Duration::from_secs(48 * 3_600);

/// Longest that a recorder is away when the faults are over.
const AWAY: Duration = Duration::from_secs(900);

/// What came of a world.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) table: Table,
    pub(super) violations: Vec<String>,
}

/// Runs a world on virtual time. Nothing in it depends on this machine's clock or network.
pub(super) fn run(world: World) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(Running::new(world).run())
}

struct Running {
    world: World,
    stage: Arc<Stage>,
    start: Instant,
    disk: MemDisk,
    dir: TempDir,
    /// When recorders ran whose disk was full or gone.
    full: Vec<Range<Duration>>,
    /// What could be read of the tape when the house was last kept.
    seen: Seen,
    table: Table,
    violations: Vec<String>,
}

impl Running {
    fn new(world: World) -> Self {
        // The catalog is a real file, and nothing here is about its disk.
        let memory = Path::new("/dev/shm");
        let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
        let (stage, disk) = (Stage::new(&world), MemDisk::default());
        Self {
            world,
            stage,
            start: Instant::now(),
            disk,
            dir,
            full: Vec::new(),
            seen: Seen::default(),
            table: Table::default(),
            violations: Vec::new(),
        }
    }

    async fn run(mut self) -> Outcome {
        let happenings = std::mem::take(&mut self.world.happenings);
        let skews = std::mem::take(&mut self.world.skews);
        let playing = tokio::spawn(Arc::clone(&self.stage).play(happenings, skews));
        for life in std::mem::take(&mut self.world.lives) {
            let until = self.start + (self.start.elapsed() + life.lasts).min(self.world.quiet_at);
            self.record(until, life.end).await;
            // However long it is away, it is back soon after the faults are over.
            let up_at = (Instant::now() + life.down).min(self.start + self.world.quiet_at + AWAY);
            self.keep_house(life.chores);
            // What is given up before it has begun would go on beside the next one: only a wait of its own ends a thread.
            if let Some(end) = life.fills.filter(|_| Instant::now() < up_at) {
                self.fill(up_at, end).await;
            }
            sleep_until(up_at).await;
        }
        // A source may give up for good, as somebody else with its key makes it.
        while self.start.elapsed() < self.world.end {
            self.record(self.start + self.world.end, End::Stop).await;
        }
        self.fill_all().await;
        let last = std::mem::take(&mut self.world.last_chores);
        self.keep_house(last);
        playing.abort();
        self.table.add(MINUTES, self.stage.clock.elapsed().as_secs() / 60);
        let found = oracle::look(&self.world, &self.stage, self.dir.path(), &self.disk, &self.full, self.seen);
        self.table.merge(&self.stage.table());
        self.table.merge(&found.table);
        self.violations.extend(found.violations);
        Outcome { table: self.table, violations: self.violations }
    }

    fn archive(&self) -> archive::Options {
        archive::Options {
            block_bytes: 2 << 10,
            segment_bytes: 32 << 10,
            level: 1,
            seal_in_background: false,
            ..archive::Options::default()
        }
    }

    fn settings(&self) -> Settings {
        let key = Secret::new("k");
        let mut settings = default_settings(self.world.provider);
        settings.base = Some(Base::parse("http://sim.test").unwrap());
        settings.credentials = Credentials { key: key.clone(), auth_token: key.clone(), ct0: key };
        settings.auth = if self.world.provider == Provider::Tweetstream { Auth::Bearer } else { Auth::Header };
        settings.seed = self.world.seed;
        settings.ping_every *= self.world.beats;
        // At most an hour; an account's list is read every ten minutes.
        settings.scopes_every *= self.world.beats.min(6);
        settings
    }

    fn network(&self) -> Arc<dyn Network> {
        Arc::new(Wire(Arc::clone(&self.stage)))
    }

    /// Records until then, and ends like that.
    async fn record(&mut self, until: Instant, end: End) {
        let source = record::Source {
            name: SourceName::new(SOURCE).unwrap(),
            settings: self.settings(),
            connections: 1,
            lateness_horizon: self.world.horizon,
            network: self.network(),
            webhook: None,
        };
        let options = record::Options {
            tape: self.dir.path().to_owned(),
            archive: self.archive(),
            max_message: 1 << 20,
            queue_bytes: 1 << 20,
            overload_wait: OVERLOAD_WAIT,
            stop_within: STOP_WITHIN,
            sources: vec![source],
            until_idle: None,
            run_for: None,
            holder: "the simulator".to_owned(),
            beside: None,
            webhooks: None,
        };
        let world = record::World {
            clock: Arc::clone(&self.stage.clock) as Arc<dyn Clock>,
            disk: Arc::new(self.disk.clone()),
            writing: Writing::Task,
        };
        self.arm(end);
        let began = self.stage.clock.elapsed();
        let (stop, stopped) = oneshot::channel::<()>();
        let job = record::run(options, world, Arc::new(|_| {}), async move { drop(stopped.await) });
        let mut job = Box::pin(job);
        let ended = timeout_at(until, &mut job).await;
        let ended = match (ended, end) {
            (Ok(ended), _) => Some(ended),
            (Err(_), End::Stop | End::DiskError { .. }) => {
                stop.send(()).unwrap_or_default();
                Some(job.as_mut().await)
            }
            // It dies where it stands.
            (Err(_), _) => None,
        };
        drop(job);
        settle().await;
        if talks() {
            let how = ended.as_ref().map(|ended| ended.as_ref().map(|outcome| &outcome.stopped_by).map_err(ToString::to_string));
            println!("{} a recorder since {} ended ({end:?}): {how:?}", self.stage.clock.wall(), BEGIN.plus(began));
        }
        match ended {
            Some(Ok(outcome)) => self.table.note(match outcome.stopped_by {
                record::StoppedBy::Sources => "recorder: gave up",
                _ => "recorder: stopped",
            }),
            Some(Err(record::RecordError::Archive(_))) => {
                self.full.push(began..self.stage.clock.elapsed());
                self.table.note("recorder: ended by the disk");
            }
            Some(Err(error)) => self.violations.push(format!("the recorder failed: {error}")),
            None => {
                // A crash that came early: what ran on without a disk wrote nothing down.
                if self.disk.is_down() {
                    self.full.push(began..self.stage.clock.elapsed());
                }
                self.table.note("recorder: killed");
            }
        }
        self.restart(end);
    }

    fn arm(&self, end: End) {
        match end {
            End::Crash { nth, .. } => self.disk.crash_at(nth),
            End::DiskError { nth, .. } => self.disk.fail_at(nth, std::io::ErrorKind::StorageFull, true),
            End::Stop | End::Kill(_) => {}
        }
    }

    fn restart(&self, end: End) {
        match end {
            End::Stop => {}
            End::Kill(kept) | End::Crash { kept, .. } | End::DiskError { kept, .. } => self.disk.restart(kept),
        }
    }

    fn filling(&self) -> backfill::Options {
        let source = backfill::Source {
            name: SourceName::new(SOURCE).unwrap(),
            settings: self.settings(),
            network: self.network(),
            look_twice: self.world.looks_twice,
        };
        backfill::Options {
            tape: self.dir.path().to_owned(),
            archive: self.archive(),
            sources: vec![source],
            gaps: Vec::new(),
            budgets: backfill::Budgets::default(),
            pace: None,
            holder: "the simulator".to_owned(),
        }
    }

    /// Does those things, one after the other. What was on the tape is there afterwards, but for what was pruned.
    fn keep_house(&mut self, chores: Vec<(Chore, End)>) {
        for (chore, end) in chores {
            if !self.look_again() {
                return self.table.note("house: no tape yet");
            }
            self.arm(end);
            let mut done = self.chore(chore);
            self.restart(end);
            if done.is_err() && !matches!(end, End::Stop) {
                self.table.note("house: cut off");
                self.look_again();
                done = self.chore(chore);
            }
            self.table.note(match chore {
                Chore::Compact => "house: compacted",
                Chore::Prune { .. } | Chore::PruneTo { .. } => "house: pruned",
                Chore::Export => "house: exported",
            });
            if let Err(error) = done {
                self.violations.push(format!("{chore:?} failed: {error}"));
            }
            self.look_again();
        }
    }

    fn chore(&mut self, chore: Chore) -> Result<(), String> {
        let (archive, clock) = (self.archive(), &*self.stage.clock);
        House { dir: self.dir.path(), disk: &self.disk, clock, archive }.run(chore, &mut self.table)
    }

    /// Reads the tape once more and compares it with what was read before. Whether there is one.
    fn look_again(&mut self) -> bool {
        match Tape::open(self.dir.path(), Arc::new(self.disk.clone())) {
            Ok(tape) => self.violations.extend(self.seen.again(Seen::of(&tape))),
            Err(error) if oracle::is_no_tape(&error) => return false,
            Err(error) => self.violations.push(format!("the tape cannot be read: {error}")),
        }
        true
    }

    /// Fills gaps until then, and ends like that.
    async fn fill(&mut self, until: Instant, end: End) -> Option<backfill::Outcome> {
        let disk = Arc::new(self.disk.clone());
        let clock = Arc::clone(&self.stage.clock) as Arc<dyn Clock>;
        self.arm(end);
        let (stop, stopped) = oneshot::channel::<()>();
        let mut tell = |event: backfill::Event| {
            tracing::debug!(?event, "filling");
        };
        let ended = {
            let job = backfill::run(self.filling(), clock, disk, &mut tell, async move { drop(stopped.await) });
            let mut job = Box::pin(job);
            match (timeout_at(until, &mut job).await, end) {
                (Ok(ended), _) => Some(ended),
                (Err(_), End::Stop | End::DiskError { .. }) => {
                    stop.send(()).unwrap_or_default();
                    Some(job.await)
                }
                (Err(_), _) => None,
            }
        };
        settle().await;
        self.restart(end);
        match ended {
            None => self.table.note("backfill: killed"),
            Some(Ok(outcome)) => {
                self.table.note("backfill: ended");
                return Some(outcome);
            }
            Some(Err(error)) if matches!(end, End::Stop) && !no_tape_yet(&error) => {
                self.violations.push(format!("backfill failed: {error}"));
            }
            Some(Err(_)) => self.table.note("backfill: ended by the disk"),
        }
        None
    }

    /// Fills until nothing gets better.
    async fn fill_all(&mut self) {
        for (lasts, end) in std::mem::take(&mut self.world.cut_fills) {
            self.fill(Instant::now() + lasts, end).await;
        }
        for round in 0..LYING_ROUNDS + HONEST_ROUNDS {
            if round == LYING_ROUNDS {
                self.stage.be_honest();
            }
            let began = Instant::now();
            let outcome = self.fill(began + ROUND, End::Stop).await;
            if began.elapsed() >= ROUND {
                self.violations.push("a walk does not end".to_owned());
            }
            let Some(outcome) = outcome else { return };
            if outcome.still_open == 0 {
                return;
            }
            sleep_until(Instant::now() + Duration::from_secs(600)).await;
        }
    }
}

/// Killed before anything was durable.
fn no_tape_yet(error: &backfill::BackfillError) -> bool {
    matches!(error, backfill::BackfillError::Archive(error) if oracle::is_no_tape(error))
}

/// Lets tasks that were told to end do so.
async fn settle() {
    for _ in 0..16 {
        tokio::task::yield_now().await;
    }
}
