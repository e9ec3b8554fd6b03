//! What must hold of a tape, looked at from outside.
//!
//! The oracle knows what the world would have said and finds it on the tape by marks in the text; it shares no decoder
//! and no arithmetic of intervals with the recorder. The ledger it reads as anybody would: from the catalog.

use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use birdtape::archive::{ArchiveError, CatalogCheck, MemDisk, Record, Span, Tape, verify};
use birdtape::catalog::{GapRow, GapStepRow};
use birdtape::model::{RecordKind, UnixMicros};
use birdtape::provider::decode_record;

use super::schedule::SOURCE;
use super::stage::{Stage, marks};
use super::table::Table;
use super::world::{BEGIN, Promise, Unseen, World};

#[derive(Default)]
pub(super) struct Found {
    pub(super) table: Table,
    pub(super) violations: Vec<String>,
}

/// Half-open, microseconds.
type Stretch = (i64, i64);

/// Within this time of a gap a filler reads what the tape knows of rules and accounts.
const AROUND_US: i64 = 3_600_000_000;

const END_OF_TIME: i64 = i64::MAX;

struct Ledger {
    gaps: Vec<GapRow>,
    steps: BTreeMap<u64, Vec<GapStepRow>>,
    live: Vec<Stretch>,
    /// What the posts of a gap still lack, by gap; nothing where history has all.
    rests: BTreeMap<u64, Vec<Stretch>>,
    since: i64,
    until: i64,
}

/// Looks at everything; `seen` is what could be read of the tape before.
///
/// `full` are the times of recorders whose disk was full or gone: nobody can write down then that a connection stood.
pub(super) fn look(world: &World, stage: &Stage, dir: &Path, disk: &MemDisk, full: &[Range<Duration>], mut seen: Seen) -> Found {
    let mut found = Found::default();
    match verify(dir, disk, decode_record, |_| {}) {
        Ok(report) => {
            found.violations.extend(report.damage.iter().map(|damage| format!("verify: {} {}", damage.place, damage.what)));
            if !matches!(report.catalog, CatalogCheck::Equal(_)) {
                found.violations.push(format!("verify: the catalog {:?}", report.catalog));
            }
        }
        Err(error) => found.violations.push(format!("verify: {error}")),
    }
    let tape = match Tape::open(dir, Arc::new(disk.clone())) {
        Ok(tape) => tape,
        Err(error) => {
            found.violations.push(format!("the tape cannot be read: {error}"));
            return found;
        }
    };
    found.violations.extend(seen.again(Seen::of(&tape)));
    seen.check_records(stage, &mut found);
    match Ledger::read(&tape) {
        Some(ledger) => {
            ledger.check_partition(world, stage, full, &mut found);
            ledger.check_promises(world, stage, &seen.told, &mut found);
        }
        None if stage.first_live(full).is_none() => found.table.note("nothing was ever recorded"),
        None => found.violations.push("the tape promises nothing".to_owned()),
    }
    found
}

/// Whether a tape cannot be read because there is none yet: it was killed before anything was durable.
pub(super) fn is_no_tape(error: &ArchiveError) -> bool {
    matches!(error, ArchiveError::NotATape { .. } | ArchiveError::NoCatalog { .. })
}

/// What a tape held, by all that was ever read of it.
#[derive(Default)]
struct Told {
    marks: HashSet<String>,
    /// Rules with the texts they were seen with.
    rules: HashSet<(String, String)>,
    /// Monitors that any record names.
    monitors: HashSet<String>,
    /// When which account was heard of live.
    handles: Vec<(i64, String)>,
}

/// What a tape holds, record by record, and what it told before something was pruned.
#[derive(Default)]
pub(super) struct Seen {
    told: Told,
    /// A hash of each record.
    records: BTreeMap<u64, u64>,
    /// Up to here records were removed on purpose.
    pruned: u64,
    /// How often which frame is there.
    frames: BTreeMap<Vec<u8>, u64>,
    /// Pages of history.
    pages: Vec<(u64, Vec<u8>)>,
    /// Marks of frames and pages that came whole.
    whole_marks: HashSet<String>,
    n_broken: u64,
}

impl Seen {
    pub(super) fn of(tape: &Tape) -> Self {
        let pruned = tape.catalog().pruned_until(SOURCE).ok().flatten().map_or(0, |(n, _)| n);
        let mut seen = Self { pruned, ..Self::default() };
        let Ok(mut records) = tape.records(SOURCE, Span::default()) else { return seen };
        while let Ok(Some(record)) = records.next() {
            seen.note(&record);
        }
        seen
    }

    fn note(&mut self, record: &Record) {
        let info = record.info.as_deref().unwrap_or_default();
        let mut hasher = DefaultHasher::new();
        (record.kind.name(), record.at.0, info, &record.body[..]).hash(&mut hasher);
        self.records.insert(record.n.0, hasher.finish());
        // What broke the decoder is kept as it came off the wire, with the cause beside it.
        let is_broken = record.kind == RecordKind::Frame && info.contains("\"cause\":");
        self.n_broken += u64::from(is_broken);
        match record.kind {
            RecordKind::Frame if is_broken => {}
            RecordKind::Frame => *self.frames.entry(record.body.to_vec()).or_default() += 1,
            RecordKind::Http if info.contains("\"gap\":") => self.pages.push((record.n.0, record.body.to_vec())),
            _ => {}
        }
        let text = String::from_utf8_lossy(&record.body);
        // A delivery log names posts and holds none; it may be given for another question.
        let is_log = text.contains("\"delivery_status\":");
        let holds = record.kind == RecordKind::Frame || (record.kind == RecordKind::Http && !is_log);
        if holds {
            let marks = marks(&text);
            if !is_broken {
                self.whole_marks.extend(marks.iter().cloned());
            }
            self.told.marks.extend(marks);
        }
        for (at, _) in text.match_indices("\"mon-") {
            self.told.monitors.extend(between(&text[at..], "\"").map(str::to_owned));
        }
        if record.kind == RecordKind::Frame
            && let Some(handle) = between(&text, "\"handle\":\"@")
        {
            self.told.handles.push((record.at.0, handle.to_owned()));
        }
        if record.kind == RecordKind::Frame
            && let (Some(id), Some(value)) = (between(&text, "\"rule_id\":\""), between(&text, "\"rule_value\":\""))
        {
            self.told.rules.insert((id.to_owned(), value.to_owned()));
        }
    }

    pub(super) fn whole_marks(&self) -> &HashSet<String> {
        &self.whole_marks
    }

    /// Frames, broken ones too, and pages of history.
    pub(super) fn n_envelopes(&self) -> u64 {
        self.frames.values().sum::<u64>() + self.n_broken + self.pages.len() as u64
    }

    /// The tape was read again: whatever was there is there as it was, but for what was pruned.
    pub(super) fn again(&mut self, now: Self) -> Vec<String> {
        let mut wrong = Vec::new();
        for (n, hash) in self.records.range(now.pruned + 1..) {
            match now.records.get(n) {
                None => wrong.push(format!("record {n} was there and is gone")),
                Some(now) if now != hash => wrong.push(format!("record {n} is not what it was")),
                Some(_) => {}
            }
        }
        let Told { marks, rules, monitors, handles } = std::mem::take(&mut self.told);
        *self = now;
        self.told.marks.extend(marks);
        self.told.rules.extend(rules);
        self.told.monitors.extend(monitors);
        self.told.handles.extend(handles);
        wrong
    }

    /// Nothing on the tape may be anything but what the world said, and not more often; numbers are dense.
    fn check_records(&self, stage: &Stage, found: &mut Found) {
        found.table.add("broken frames kept", self.n_broken);
        found.table.add("records", self.records.len() as u64);
        let mut n_before = self.pruned;
        for n in self.records.keys() {
            if *n != n_before + 1 {
                found.violations.push(format!("record {n} follows record {n_before}"));
            }
            n_before = *n;
        }
        for (n, body) in &self.pages {
            if !stage.has_answered(body) {
                found.violations.push(format!("record {n} is a page that was never given"));
            }
        }
        for (body, n) in &self.frames {
            if *n > stage.sent(body) {
                let text = String::from_utf8_lossy(&body[..body.len().min(120)]).into_owned();
                found.violations.push(format!("on the tape {n} times, sent {} times: {text}", stage.sent(body)));
            }
        }
    }
}

fn between<'a>(text: &'a str, before: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(before)?;
    rest.split_once('"').map(|(inside, _)| inside)
}

impl Ledger {
    fn read(tape: &Tape) -> Option<Self> {
        let catalog = tape.catalog();
        let scope =
            catalog.scopes(SOURCE).ok()?.into_iter().filter(|scope| scope.scope == "*").max_by_key(|scope| scope.version)?;
        let gaps = catalog.gaps(Some(SOURCE)).ok()?;
        let steps = gaps.iter().map(|gap| (gap.n, catalog.gap_steps(SOURCE, gap.n).unwrap_or_default())).collect();
        let coverage = catalog.coverage(SOURCE).ok()?;
        let live = coverage.iter().filter(|row| row.scope == "*" && row.class == "live");
        let mut live: Vec<Stretch> = live.map(|row| (row.from_us, row.to_us)).collect();
        live.sort_unstable();
        let kinds = catalog.gap_kinds(SOURCE).ok()?.into_iter().filter(|kind| kind.kind == "tweet" && kind.state != "unfillable");
        let rests = kinds.map(|kind| (kind.gap_n, serde_json::from_str(&kind.rest).unwrap())).collect();
        let until = live.iter().map(|(_, to)| *to).max().unwrap_or(scope.since_us);
        Some(Self { gaps, steps, live, rests, since: scope.since_us, until })
    }

    /// Every instant since the scope began is covered or in a gap; none is both.
    fn check_partition(&self, world: &World, stage: &Stage, full: &[Range<Duration>], found: &mut Found) {
        let whole: Vec<_> = self.gaps.iter().filter(|gap| gap.scope == "*").collect();
        let windows = whole.iter().map(|gap| (gap.from_us, gap.to_us.unwrap_or(END_OF_TIME)));
        let mut all: Vec<Stretch> = self.live.iter().copied().chain(windows).collect();
        all.sort_unstable();
        let mut reached = self.since;
        for (from, to) in all {
            if from > reached && reached < self.until {
                found.violations.push(format!("neither covered nor in a gap: {} to {}", UnixMicros(reached), UnixMicros(from)));
            }
            reached = reached.max(to);
        }
        for gap in &whole {
            let (from, to) = (gap.from_us, gap.to_us.unwrap_or(END_OF_TIME));
            if let Some(live) = self.live.iter().find(|live| live.0 < to && from < live.1) {
                let (n, live) = (gap.n, (UnixMicros(live.0), UnixMicros(live.1)));
                found.violations.push(format!("covered and in gap {n} at once: {live:?}"));
            }
        }
        // The promise begins when the first connection stands, as far as it lived long enough to be written down.
        if let Some(first) = stage.first_live(full) {
            let first = BEGIN.plus(first).0;
            if self.since > first + 30_000_000 * i64::from(world.beats) {
                found.violations.push(format!("the promise begins at {}, a connection stood before", UnixMicros(self.since)));
            }
        }
        // It comes back: after the last fault recording goes on to the end.
        let end = BEGIN.plus(world.end).0 - world.horizon.as_micros() as i64 - 90_000_000 * i64::from(world.beats);
        let grows = whole.iter().any(|gap| gap.to_us.is_none());
        if self.until < end || grows {
            found.violations.push(format!(
                "recording did not come back: covered until {}, faults ended {}, recording {}",
                UnixMicros(self.until),
                BEGIN.plus(world.quiet_at),
                BEGIN.plus(world.end)
            ));
        }
        for gap in &self.gaps {
            if world.is_fillable() && !["filled", "pruned"].contains(&gap.state.as_str()) {
                let detail = self.steps.get(&gap.n).and_then(|steps| steps.last()).map_or("", |step| step.detail.as_str());
                found.violations.push(format!("history is honest, and gap {} is still {}: {detail}", gap.n, gap.state));
            }
            found.table.note(match gap.state.as_str() {
                "filled" => "gap: filled",
                "partial" => "gap: partial",
                "unfillable" => "gap: unfillable",
                "pruned" => "gap: pruned",
                "open" => "gap: open",
                _ => "gap: begun",
            });
        }
    }

    fn check_promises(&self, world: &World, stage: &Stage, told: &Told, found: &mut Found) {
        for promise in &world.promises {
            if promise.at.0 < self.since || promise.at.0 >= self.until || promise.due >= world.end {
                continue;
            }
            found.table.note("promised");
            if !told.marks.contains(&promise.mark) {
                self.check_missing(world, stage, promise, told, found);
            } else if self.within(promise).next().is_some() {
                found.table.note("told, in a gap's window");
            } else {
                found.table.note("told, covered");
            }
        }
    }

    /// Gaps that speak of it.
    fn within<'a>(&'a self, promise: &'a Promise) -> impl Iterator<Item = &'a GapRow> {
        let at = promise.at.0;
        self.gaps.iter().filter(move |gap| {
            let concerns = gap.scope == "*" || promise.selectors.contains(&gap.scope);
            concerns && gap.from_us <= at && gap.to_us.is_none_or(|to| at < to)
        })
    }

    fn check_missing(&self, world: &World, stage: &Stage, promise: &Promise, told: &Told, found: &mut Found) {
        let at = promise.at.0;
        let gaps: Vec<_> = self.within(promise).collect();
        if gaps.is_empty() {
            match promise.unseen {
                Some(Unseen::Swallowed) => found.table.note("lost without a sign: swallowed"),
                Some(Unseen::Truncated) => found.table.note("lost without a sign: did not fit, first page"),
                None => found.violations.push(format!(
                    "{} of {} is neither on the tape nor in a gap (selected by {:?}, due {})",
                    promise.mark,
                    promise.at,
                    promise.selectors,
                    BEGIN.plus(promise.due)
                )),
            }
            return;
        }
        if promise.is_side {
            return found.table.note("missing, in a gap: live only");
        }
        let is_called_whole = |gap: &&&GapRow| match gap.state.as_str() {
            "filled" => true,
            "partial" => {
                let rest = self.rests.get(&gap.n).filter(|rest| !rest.is_empty());
                rest.is_some_and(|rest| !rest.iter().any(|(from, to)| (*from..*to).contains(&at)))
            }
            _ => false,
        };
        let Some(gap) = gaps.iter().find(is_called_whole) else { return found.table.note("missing, in a gap that says so") };
        // When the ledger called it whole, and whether history had it when it was asked: a walk that was cut off goes on
        // much later, and does not ask again for what it was answered.
        let first = |state: &str| {
            let steps = self.steps.get(&gap.n).into_iter().flatten().filter(|step| step.state == state);
            steps.map(|step| step.at_us).min().unwrap_or(0)
        };
        let (asked_at, called_at) = (first("planned"), first(&gap.state));
        if BEGIN.plus(promise.known_from).0 > asked_at - 600_000_000 && world.lies_by_lag() {
            return found.table.note("in a gap called filled: history had it later");
        }
        if promise.deleted_at.is_some_and(|at| BEGIN.plus(at).0 <= called_at + 2_000_000) {
            return found.table.note("in a gap called filled: deleted before");
        }
        if promise.rule.as_ref().is_some_and(|rule| !told.rules.contains(rule) && !world.is_last_text(rule)) {
            return found.table.note("in a gap called filled: by a text nobody saw");
        }
        let is_unheard_of = |id: &String| id.starts_with("mon-") && !told.monitors.contains(id);
        if !promise.selectors.is_empty() && promise.selectors.iter().all(is_unheard_of) {
            return found.table.note("in a gap called filled: by a monitor nobody heard of");
        }
        // Of accounts that were taken off the list history has nothing, and who was never heard of is not missed.
        let around = gap.from_us - AROUND_US..gap.to_us.unwrap_or(END_OF_TIME).saturating_add(AROUND_US);
        let was_heard = |(at, handle): &(i64, String)| around.contains(at) && handle == promise.handle;
        if world.removed == Some(promise.handle) && !told.handles.iter().any(was_heard) {
            return found.table.note("in a gap called filled: by an account nobody heard of");
        }
        found.violations.push(format!(
            "{} of {} by {}, selected by {:?}, rule {:?}, {}, is missing in gap {} of {} ({}; {} to {}), which is {}: {}",
            promise.mark,
            promise.at,
            promise.handle,
            promise.selectors,
            promise.rule.as_ref().map(|(_, text)| text),
            if stage.has_left_out(&promise.mark) { "left out of a page once" } else { "never left out of a page" },
            gap.n,
            gap.scope,
            gap.cause,
            UnixMicros(gap.from_us),
            UnixMicros(gap.to_us.unwrap_or(END_OF_TIME)),
            gap.state,
            self.steps.get(&gap.n).and_then(|steps| steps.last()).map_or("", |step| step.detail.as_str())
        ));
    }
}

#[test]
fn a_record_that_is_gone_or_changed_is_told() {
    let read = |pruned, records: &[(u64, u64)]| Seen { pruned, records: records.iter().copied().collect(), ..Seen::default() };
    for (pruned, now, wrong) in [
        (0, vec![(1, 10), (2, 20), (3, 30)], vec![]),
        (0, vec![(1, 10), (2, 20), (3, 30), (4, 40)], vec![]),
        (2, vec![(3, 30)], vec![]),
        (0, vec![(1, 10), (3, 30)], vec!["record 2 was there and is gone"]),
        (1, vec![(3, 30)], vec!["record 2 was there and is gone"]),
        (0, vec![(1, 10), (2, 21), (3, 30)], vec!["record 2 is not what it was"]),
    ] {
        assert_eq!(read(0, &[(1, 10), (2, 20), (3, 30)]).again(read(pruned, &now)), wrong, "{pruned} {now:?}");
    }
}
