//! Timelines of made-up histories: evidence, gaps, fillings, audits, edits of scopes, stops and kills, in any order that the
//! recorder and the backfiller can bring about, and beside them the slowest oracle there is: one entry an instant.
//!
//! The real ledger writes the facts, the real index adds them up, the real coverage reads the rows. The oracle takes from
//! them what is promised and what is in which gap, and finds out for itself how far evidence reaches and what each instant
//! must then be:
//!
//! - up to the frontier each instant of a scope is in one class, and never in two;
//! - it is covered if evidence of a horizon later came while nothing was told lost, and no gap has it;
//! - in a gap it is whole, missing or beyond proof as the worst of its gaps says, for each kind and for all of them;
//! - nothing is covered that a broken line may have swallowed, up to a horizon before the last that was heard of it.
//!
//! Where the wall clock is put back, or the horizon changes, the last of these is not asked.
//!
//! # Negative controls
//!
//! [`Mutant`]s spoil the rows before they are read; each must be seen. What was once so, and red in which seeds:
//!
//! | what was once so | red |
//! | --- | --- |
//! | a gap ahead of the frontier that was filled let coverage begin anew behind it, and left a hole before it; only the scope of everything took another horizon, so that its gaps began too late for the others | 36 histories together |
//! | a scope that ended between two readings of the list was promised up to the second one, with a gap that began behind the last evidence | 88, 565, 897, 1153, 1187, 1414, 1866 |
//! | a gap of everything began where that scope stood, and did not take in one that evidence had not reached, as the clock was put back | 5810, 6506, 7858, 10073, 10376 |
//! | a scope that began while everything was being lost was promised from before that | 9861 |
//! | coverage began anew behind the gap that ended last, wherever evidence had been before the clock was put back | 21904, 22620, 23449 |
//! | where a scope ended and began again before the next commit, the catalog did not learn how its first stretch had ended | 18263 |
//! | the gap of a scope that changed began at its new version, although evidence had not come to it | 22620, 25749 |
//! | a gap of everything that began and ended before a scope had ended, as the clock was put back, took its coverage behind both | 247941 |

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use birdtape::archive::{
    ALL, Archive, Classes, Closed, Fact, Filling, GapKindRow, GapRow, Hole, KindResult, Lost, Opened, Options, ScopeCoverage,
    Selected, Spent, Stretch, Unsynced,
};
use birdtape::catalog::{Catalog, Change};
use birdtape::model::{Body, Cause, ConnId, Draft, GapState, Provider, RecordKind, Seq, SourceName, Via};

use crate::made::{Made, envelope, second};
use crate::simulate::dice::Dice;
use crate::simulate::table::Table;

/// Histories of the gate.
const GATE: u64 = 2_000;

/// Instants that are looked at, a second each.
const SPAN: i64 = 420;

/// Histories that share a tape; in every eighth such tape the recorder is killed now and then.
const BATCH: u64 = 32;

const TOPICS: [&str; 3] = ["a", "b", "c"];
const KINDS: [&str; 4] = [ALL, "tweet", "profile", "delete"];

const SOMETIMES: [&str; 24] = [
    "audit",
    "clock put back",
    "connect",
    "disconnect",
    "fill: filled",
    "fill: ignored",
    "fill: partial",
    "fill: unfillable",
    "frame",
    "hole in the records",
    "horizon changed",
    "instants: audited",
    "instants: backfilled",
    "instants: in two gaps",
    "instants: live",
    "instants: missing",
    "instants: unverifiable",
    "killed",
    "list read",
    "overflow",
    "stop and start",
    "suspected",
    "topic ended",
    "topic lost",
];

/// Rows that are not what they were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mutant {
    GapForgotten,
    GapBeginsLater,
    CoverageForgotten,
    CoverageReachesFurther,
    FillingForgotten,
    PartialIsFilled,
}

impl Mutant {
    const ALL: [Self; 6] = [
        Self::GapForgotten,
        Self::GapBeginsLater,
        Self::CoverageForgotten,
        Self::CoverageReachesFurther,
        Self::FillingForgotten,
        Self::PartialIsFilled,
    ];
}

/// What the catalog says of a source.
struct Rows {
    gaps: BTreeMap<u64, GapRow>,
    kinds: BTreeMap<(u64, String), GapKindRow>,
}

impl Rows {
    fn of(catalog: &Catalog, source: &str) -> Self {
        let gaps = catalog.gaps(Some(source)).unwrap().into_iter().map(|row| (row.n, row));
        let kinds = catalog.gap_kinds(source).unwrap().into_iter().map(|row| ((row.gap_n, row.kind.clone()), row));
        Self { gaps: gaps.collect(), kinds: kinds.collect() }
    }
}

impl Mutant {
    /// What spoils the rows of a source like that, if anything can.
    fn spoil(self, catalog: &Catalog, source: &str) -> Vec<Change> {
        let Rows { mut gaps, mut kinds } = Rows::of(catalog, source);
        let mut coverage = catalog.coverage(source).unwrap();
        let forget = |scope: &str| Change::ForgetCoverage { source: source.to_owned(), scope: scope.to_owned() };
        let anew = |coverage: Vec<_>| {
            let scopes: BTreeSet<String> = catalog.coverage(source).unwrap().into_iter().map(|row| row.scope).collect();
            scopes.iter().map(|scope| forget(scope)).chain(coverage.into_iter().map(Change::Coverage)).collect()
        };
        let gap = |row: Option<GapRow>, change: fn(&mut GapRow)| {
            row.into_iter().map(|mut row| (change(&mut row), Change::Gap(row)).1).collect()
        };
        let kind = |row: Option<GapKindRow>, change: fn(&mut GapKindRow)| {
            row.into_iter().map(|mut row| (change(&mut row), Change::GapKind(row)).1).collect()
        };
        let is_wide = |row: &GapRow| row.to_us.is_some_and(|to| to > row.from_us);
        match self {
            Self::GapForgotten => gap(gaps.pop_first().map(|(_, row)| row), |row| row.to_us = Some(row.from_us)),
            Self::GapBeginsLater => gap(gaps.into_values().find(is_wide), |row| row.from_us += 1_000_000),
            Self::CoverageForgotten => {
                coverage.pop();
                anew(coverage)
            }
            Self::CoverageReachesFurther => {
                coverage.last_mut().into_iter().for_each(|row| row.to_us += 1_000_000);
                anew(coverage)
            }
            Self::FillingForgotten => kind(kinds.pop_last().map(|(_, row)| row), |row| "partial".clone_into(&mut row.state)),
            Self::PartialIsFilled => {
                let partial = kinds.into_values().find(|row| row.state == "partial" && row.rest != "[]");
                kind(partial, |row| "filled".clone_into(&mut row.state))
            }
        }
    }
}

fn between(dice: &mut Dice, low: i64, high: i64) -> i64 {
    low + dice.below((high - low + 1) as u64) as i64
}

/// What an instant is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Nothing,
    Covered,
    Backfilled,
    Unverifiable,
    Missing,
}

/// One history as it goes on.
struct History {
    name: SourceName,
    dice: Dice,
    now: i64,
    horizon: i64,
    is_connected: bool,
    is_lost: bool,
    /// Rules that are read from a list, or topics of a live pipeline.
    reads_lists: bool,
    topics: BTreeSet<&'static str>,
    listed: BTreeMap<&'static str, Option<&'static str>>,
    conn: ConnId,
    n_frames: u64,
    // What the oracle knows.
    last_evidence: Option<i64>,
    /// Each scope's horizon, while it is promised.
    promised: BTreeMap<String, Option<i64>>,
    /// Per scope: the first second that evidence does not cover.
    reached: BTreeMap<String, i64>,
    /// Seconds of what a broken line may have swallowed.
    at_risk: Vec<bool>,
    down_since: Option<i64>,
    is_plain: bool,
    table: Table,
}

fn index(us: i64) -> i64 {
    us.saturating_sub(second(0).0).div_euclid(1_000_000)
}

impl History {
    fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed, 21);
        let horizon = between(&mut dice, 0, 12);
        let reads_lists = dice.chance(500);
        Self {
            name: SourceName::new(format!("s{seed}")).unwrap(),
            dice,
            now: 60,
            horizon,
            is_connected: false,
            is_lost: true,
            reads_lists,
            topics: BTreeSet::new(),
            listed: BTreeMap::new(),
            conn: ConnId(0),
            n_frames: 0,
            last_evidence: None,
            promised: BTreeMap::new(),
            reached: BTreeMap::new(),
            at_risk: vec![false; SPAN as usize],
            down_since: None,
            is_plain: true,
            table: Table::default(),
        }
    }

    fn lasts(&self) -> Duration {
        Duration::from_secs(self.horizon as u64)
    }

    fn begin(&mut self, archive: &mut Archive) {
        archive.add_source(&self.name, Provider::TwitterapiIo).unwrap();
        self.start(archive);
    }

    fn start(&mut self, archive: &mut Archive) {
        archive.start_source(&self.name, self.lasts(), ("boot".to_owned(), Duration::ZERO), second(self.now)).unwrap();
        // The stop, or the crash, began a gap that grows.
        self.take_back(archive);
        self.promised.values_mut().flatten().for_each(|horizon| *horizon = self.horizon);
        if self.reads_lists {
            return;
        }
        for topic in archive.open_topics(&self.name) {
            let topic = TOPICS.into_iter().find(|known| *known == topic).unwrap();
            if self.dice.chance(700) {
                self.lost(archive, topic, Cause::Stopped);
            } else {
                self.live(archive, topic);
                self.end(archive, topic);
            }
        }
    }

    // The ledger, and what the oracle notes of it.

    fn live(&mut self, archive: &mut Archive, scope: &'static str) {
        archive.live(&self.name, scope, self.lasts(), second(self.now), "evidence").unwrap();
        let known = self.promised.entry(scope.to_owned()).or_default();
        *known = known.or(Some(self.horizon));
    }

    fn lost(&mut self, archive: &mut Archive, scope: &'static str, cause: Cause) {
        archive.lost(&self.name, second(self.now), Lost { scope, cause, detail: "lost" }).unwrap();
        self.take_back(archive);
        // Of whom nothing is known yet, events may come a minute late.
        let usual = self.promised.get(ALL).copied().flatten().unwrap_or(60);
        self.promised.entry(scope.to_owned()).or_insert(Some(usual));
    }

    /// What grows has no end: all behind its beginning is lost, also where the wall clock had been further.
    fn take_back(&mut self, archive: &Archive) {
        for gap in archive.open_gaps(&self.name).iter().filter(|gap| gap.to_us.is_none()) {
            for (_, reached) in self.reached.iter_mut().filter(|(scope, _)| gap.scope == ALL || gap.scope == **scope) {
                *reached = (*reached).min(index(gap.from_us));
            }
        }
    }

    fn end(&mut self, archive: &mut Archive, scope: &'static str) {
        archive.end_scope(&self.name, scope, second(self.now)).unwrap();
        self.promised.insert(scope.to_owned(), None);
    }

    /// Something came over the line.
    fn evidence(&mut self, archive: &Archive, at: i64) {
        self.last_evidence = self.last_evidence.max(Some(at));
        let growing: Vec<_> = archive.open_gaps(&self.name).into_iter().filter(|gap| gap.to_us.is_none()).collect();
        let grows = |scope: &str| growing.iter().any(|gap| gap.scope == scope);
        if grows(ALL) {
            return;
        }
        for (scope, horizon) in self.promised.iter().filter(|(scope, _)| !grows(scope)) {
            let Some(horizon) = horizon else { continue };
            let reached = self.reached.entry(scope.clone()).or_insert(i64::MIN);
            *reached = (*reached).max(at - horizon);
        }
    }

    fn frame(&mut self, archive: &mut Archive) {
        self.n_frames += 1;
        if self.dice.chance(700) {
            let draft = Draft {
                received_at: second(self.now),
                kind: RecordKind::Frame,
                via: Via::Ws,
                conn: self.conn,
                info: None,
                body: Body::Bytes(envelope(self.n_frames, second(self.now), "")),
            };
            archive.append(&self.name, &draft, None).unwrap();
        } else {
            archive.alive(&self.name, self.conn, second(self.now), "pong").unwrap();
        }
        self.table.note("frame");
        self.evidence(archive, self.now);
        if std::mem::take(&mut self.is_lost) {
            self.live(archive, ALL);
            if let Some(since) = self.down_since.take() {
                self.risk(since, self.now);
            }
        }
    }

    /// What was published up to a horizon before the last that was heard, and until the line stood again.
    fn risk(&mut self, heard: i64, until: i64) {
        for at in heard - self.horizon + 1..until {
            if let Some(risk) = usize::try_from(at).ok().and_then(|at| self.at_risk.get_mut(at)) {
                *risk = true;
            }
        }
    }

    fn connect(&mut self, archive: &mut Archive) {
        self.table.note("connect");
        self.conn = archive.next_conn(&self.name);
        let opened = serde_json::to_string(&Opened { url: "ws://x/".into(), ..Opened::default() }).unwrap();
        let draft = Draft { kind: RecordKind::Open, via: Via::Ws, ..Draft::note(second(self.now), self.conn, opened) };
        archive.open_connection(&self.name, &draft).unwrap();
        self.is_connected = true;
        self.evidence(archive, self.now);
    }

    fn disconnect(&mut self, archive: &mut Archive) {
        self.table.note("disconnect");
        self.is_connected = false;
        archive.close_connection(&self.name, self.conn, second(self.now), &Closed::default()).unwrap();
        self.lose(archive);
        for topic in std::mem::take(&mut self.topics) {
            self.lost(archive, topic, Cause::ConnectionLost);
        }
    }

    fn lose(&mut self, archive: &mut Archive) {
        if !self.is_lost {
            self.down_since = self.last_evidence;
        }
        self.is_lost = true;
        self.lost(archive, ALL, Cause::ConnectionLost);
    }

    fn topic(&mut self, archive: &mut Archive) {
        let topic = *self.dice.pick(&TOPICS);
        if self.topics.insert(topic) {
            self.live(archive, topic);
        } else if self.dice.chance(500) {
            self.table.note("topic lost");
            self.topics.remove(topic);
            self.lost(archive, topic, Cause::SubscriptionRefused);
        } else {
            self.table.note("topic ended");
            self.topics.remove(topic);
            self.live(archive, topic);
            self.end(archive, topic);
        }
    }

    fn list(&mut self, archive: &mut Archive) {
        self.table.note("list read");
        let before = self.listed.clone();
        for topic in TOPICS {
            match self.dice.below(6) {
                0 => drop(self.listed.insert(topic, Some("one"))),
                1 => drop(self.listed.insert(topic, Some("another"))),
                2 => drop(self.listed.remove(topic)),
                _ => {}
            }
        }
        let all: Vec<_> = self.listed.iter().map(|(scope, text)| Selected { scope, text: *text, detail: "a rule" }).collect();
        archive.select(&self.name, self.lasts(), &all, second(self.now)).unwrap();
        for topic in TOPICS.into_iter().filter(|topic| before.get(topic) != self.listed.get(topic)) {
            let horizon = self.listed.contains_key(topic).then_some(self.horizon);
            self.promised.insert(topic.to_owned(), horizon);
        }
    }

    fn fill(&mut self, archive: &mut Archive) {
        let all = (1..=archive.last_n(&self.name).0).filter_map(|n| archive.gap(&self.name, n));
        let bounded: Vec<_> = all.filter(|gap| gap.to_us.is_some()).cloned().collect();
        if bounded.is_empty() {
            return;
        }
        let gap = self.dice.pick(&bounded);
        let at = second(self.now);
        if self.dice.chance(120) {
            self.table.note("fill: ignored");
            archive.step(&self.name, at, gap.n, GapState::Ignored, None, None, "so be it").unwrap();
            return;
        }
        let mut kinds = Vec::new();
        for kind in KINDS {
            if !self.dice.chance(400) {
                continue;
            }
            let (from, to) = (index(gap.from_us), index(gap.to_us.unwrap()));
            let state = *self.dice.pick(&[GapState::Filled, GapState::Filled, GapState::Partial, GapState::Unfillable]);
            let mut rest = Vec::new();
            for _ in 0..if state == GapState::Partial { between(&mut self.dice, 1, 3) } else { 0 } {
                let a = between(&mut self.dice, from - 3, to + 3);
                let b = a + between(&mut self.dice, 1, 9);
                rest.push(Stretch { from: second(a), to: second(b) });
            }
            kinds.push(KindResult { kind: kind.to_owned(), state: state.name().to_owned(), why: String::new(), rest });
        }
        let has = |state: GapState| kinds.iter().any(|kind| kind.state == state.name());
        let state = match (kinds.is_empty(), has(GapState::Partial), has(GapState::Filled)) {
            (true, ..) => GapState::Filling,
            (_, true, _) => GapState::Partial,
            (_, _, true) => GapState::Filled,
            _ => GapState::Unfillable,
        };
        self.table.note(match state {
            GapState::Partial => "fill: partial",
            GapState::Filled => "fill: filled",
            GapState::Unfillable => "fill: unfillable",
            _ => "fill: on the way",
        });
        let filling = Filling { state, detail: "", cursor: None, kinds: &kinds, spent: Spent::default() };
        archive.fill(&self.name, at, gap.n, filling).unwrap();
    }

    /// One step of the recorder's life, or of who fills gaps.
    fn step(&mut self, archive: &mut Archive) {
        self.now = (self.now + *self.dice.pick(&[0, 0, 1, 1, 1, 2, 3, 7])).min(SPAN - 40);
        if self.dice.chance(8) && self.last_evidence.is_some() {
            self.table.note("clock put back");
            self.is_plain = false;
            self.now = (self.now - between(&mut self.dice, 1, 9)).max(40);
        }
        let at = second(self.now);
        match self.dice.below(100) {
            0..45 if self.is_connected => self.frame(archive),
            0..45 => self.connect(archive),
            45..55 if self.is_connected => self.disconnect(archive),
            // Nobody answers.
            45..55 => self.lose(archive),
            55..65 if self.is_connected && !self.is_lost && self.reads_lists => self.list(archive),
            55..65 if self.is_connected && !self.reads_lists => self.topic(archive),
            65..68 if self.is_connected && !self.is_lost => {
                self.table.note("overflow");
                let since = second(self.now - between(&mut self.dice, 0, 5));
                let lost = Lost { scope: ALL, cause: Cause::Overload, detail: "the disk was too slow" };
                archive.lost_between(&self.name, since, at, lost).unwrap();
            }
            68..74 => {
                let scope = *self.dice.pick(&[ALL, "a", "b", "c"]);
                let from = self.now - between(&mut self.dice, 0, 40);
                let to = from + between(&mut self.dice, 1, 12);
                let lost = Lost { scope, cause: Cause::FullPage, detail: "a page came full" };
                if archive.suspect(&self.name, at, (second(from), second(to)), lost).unwrap().is_some() {
                    self.table.note("suspected");
                }
            }
            74..86 => self.fill(archive),
            86..90 => {
                self.table.note("audit");
                let from = self.now - between(&mut self.dice, 0, 90);
                let (from, to) = (second(from), second(from + between(&mut self.dice, 1, 30)));
                let missed = u64::from(self.dice.chance(200));
                archive.remark(&self.name, at, &Fact::Audit { scope: ALL.to_owned(), from, to, asked: 9, missed }).unwrap();
            }
            90..92 => {
                if self.promised.is_empty() {
                    return;
                }
                self.table.note("hole in the records");
                let after = self.now - between(&mut self.dice, 0, 20);
                let hole = Hole {
                    source: self.name.clone(),
                    first_n: Seq(1),
                    last_n: Seq(1),
                    after: second(after),
                    before: second(after + between(&mut self.dice, 0, 8)),
                    why: "a block is damaged".to_owned(),
                };
                archive.note_hole(&hole, at).unwrap();
            }
            92..95 => {
                self.table.note("stop and start");
                if self.is_connected {
                    archive.close_connection(&self.name, self.conn, at, &Closed::default()).unwrap();
                }
                archive.stop_source(&self.name, at, "enough").unwrap();
                self.ended();
                self.now += between(&mut self.dice, 0, 5);
                if self.dice.chance(150) {
                    self.table.note("horizon changed");
                    self.is_plain = false;
                    self.horizon = between(&mut self.dice, 0, 12);
                }
                self.start(archive);
            }
            _ => {}
        }
    }

    /// The recorder is gone, in whatever way.
    fn ended(&mut self) {
        if !self.is_lost {
            self.down_since = self.last_evidence;
        }
        (self.is_connected, self.is_lost) = (false, true);
        self.topics.clear();
    }

    /// Compares what is told with what must be so by these gaps.
    fn look(&mut self, rows: &Rows, told: &[ScopeCoverage]) -> Result<(), String> {
        for told in told {
            let reached = self.reached.get(&told.scope).copied().unwrap_or(i64::MIN);
            let gaps: Vec<_> = rows.gaps.values().filter(|gap| gap.scope == told.scope || gap.scope == ALL).collect();
            let of_gap = |gap: &GapRow| rows.kinds.range((gap.n, String::new())..(gap.n + 1, String::new()));
            let named = gaps.iter().flat_map(|gap| of_gap(gap)).map(|((_, kind), _)| kind.as_str());
            let named: BTreeSet<&str> = named.filter(|kind| *kind != ALL).collect();
            let found: BTreeSet<&str> = told.kinds.iter().map(|(kind, _)| kind.as_str()).collect();
            if named != found {
                return Err(format!("scope {}: kinds {found:?} instead of {named:?}", told.scope));
            }
            let by_kind = told.kinds.iter().map(|(kind, classes)| (Some(kind.as_str()), classes));
            for (kind, classes) in by_kind.chain([(None, &told.classes), (Some(ALL), &told.every_kind)]) {
                let must = must_be(rows, &gaps, kind, told, reached);
                let (is, n) = told_to_be(classes);
                for at in 0..SPAN as usize {
                    if n[at] > 1 || is[at] != must[at] {
                        let (scope, version) = (&told.scope, told.version);
                        return Err(format!(
                            "scope {scope}, version {version} from {}, kind {kind:?}: second {at} is in {} classes, {:?} instead of \
                             {:?}; live {:?}, evidence reaches {reached}, gaps {:?}",
                            index(told.since.0),
                            n[at],
                            is[at],
                            must[at],
                            classes.live.iter().map(|(from, to)| (index(from.0), index(to.0))).collect::<Vec<_>>(),
                            gaps.iter().map(|gap| (&gap.scope, index(gap.from_us), gap.to_us.map(index))).collect::<Vec<_>>(),
                        ));
                    }
                    if kind.is_none() && told.scope == ALL && self.is_plain && is[at] == Class::Covered && self.at_risk[at] {
                        return Err(format!("second {at} is covered, and the line was down"));
                    }
                }
            }
            self.count(&told.classes, &gaps);
        }
        Ok(())
    }

    fn count(&mut self, classes: &Classes, gaps: &[&GapRow]) {
        let facts =
            ["instants: live", "instants: backfilled", "instants: audited", "instants: missing", "instants: unverifiable"];
        let classes = classes.within(second(0), second(SPAN));
        for ((_, set), fact) in classes.named().into_iter().zip(facts) {
            self.table.add(fact, (set.len_us() / 1_000_000) as u64);
        }
        let end = |gap: &GapRow| gap.to_us.unwrap_or(i64::MAX);
        let overlaps = |nth: &usize| gaps[..*nth].iter().any(|of| of.from_us < end(gaps[*nth]) && gaps[*nth].from_us < end(of));
        self.table.add("instants: in two gaps", (0..gaps.len()).filter(overlaps).count() as u64);
    }
}

/// What each second must be, from the gaps and from how far evidence reaches.
fn must_be(rows: &Rows, gaps: &[&GapRow], kind: Option<&str>, told: &ScopeCoverage, reached: i64) -> Vec<Class> {
    let (since, until) = (index(told.since.0), told.until.map_or(SPAN, |until| index(until.0)));
    let one = |at: i64| {
        if at < since || at >= until {
            return Class::Nothing;
        }
        let worst = gaps.iter().filter_map(|gap| in_gap(rows, gap, kind, at)).max();
        worst.unwrap_or(if at < reached { Class::Covered } else { Class::Nothing })
    };
    (0..SPAN).map(one).collect()
}

/// What each second is told to be, and in how many classes it is.
fn told_to_be(classes: &Classes) -> (Vec<Class>, Vec<u8>) {
    let (mut is, mut n) = (vec![Class::Nothing; SPAN as usize], vec![0; SPAN as usize]);
    let by_class = [
        (&classes.live, Class::Covered),
        (&classes.audited, Class::Covered),
        (&classes.backfilled, Class::Backfilled),
        (&classes.missing, Class::Missing),
        (&classes.unverifiable, Class::Unverifiable),
    ];
    for (set, class) in by_class {
        for (from, to) in set.iter() {
            for at in index(from.0).max(0)..index(to.0).min(SPAN) {
                is[at as usize] = class;
                n[at as usize] += 1;
            }
        }
    }
    (is, n)
}

/// What a gap makes of a second, for a kind, for what history has of all, or for every kind there is.
fn in_gap(rows: &Rows, gap: &GapRow, kind: Option<&str>, at: i64) -> Option<Class> {
    let is_inside = index(gap.from_us) <= at && gap.to_us.is_none_or(|to| at < index(to));
    if !is_inside {
        return None;
    }
    let state: GapState = gap.state.parse().unwrap();
    let left = if state.is_open() { Class::Missing } else { Class::Unverifiable };
    let results = |of: &str| rows.kinds.get(&(gap.n, of.to_owned()));
    let is_whole = |row: &GapKindRow| match row.state.as_str() {
        "filled" => true,
        "partial" => {
            let rest: Vec<(i64, i64)> = serde_json::from_str(&row.rest).unwrap();
            !rest.iter().any(|(from, to)| index(*from) <= at && at < index(*to))
        }
        _ => false,
    };
    let every = results(ALL);
    let named: Vec<_> =
        KINDS[1..].iter().filter(|of| kind.is_none_or(|kind| kind == **of)).filter_map(|of| results(of)).collect();
    let with_history: Vec<_> = named.iter().filter(|row| row.state != "unfillable").collect();
    if every.is_some_and(is_whole) || (!with_history.is_empty() && with_history.iter().all(|row| is_whole(row))) {
        return Some(Class::Backfilled);
    }
    let is_beyond = with_history.is_empty() && (!named.is_empty() || every.is_some_and(|row| row.state == "unfillable"));
    Some(if is_beyond { Class::Unverifiable } else { left })
}

/// What happened, and what is wrong in which history.
type Told = (Table, Vec<(u64, String)>);

fn options() -> Options {
    Options { block_bytes: 1 << 20, segment_bytes: 1 << 30, level: 1, seal_in_background: false, ..Options::default() }
}

/// Histories that share a tape, with or without kills; `from` is the first of them.
fn batch(from: u64, count: u64, mutant: Option<Mutant>) -> Told {
    let made = Made::new(options());
    let mut archive = made.open(0).unwrap();
    let mut histories: Vec<_> = (from..from + count).map(|seed| (seed, History::new(seed))).collect();
    histories.iter_mut().for_each(|(_, history)| history.begin(&mut archive));
    let lives = if (from / BATCH).is_multiple_of(8) { 3 } else { 1 };
    let mut broken = BTreeMap::new();
    for life in 0..lives {
        for part in 0..3 {
            for (_, history) in &mut histories {
                (0..30 / lives).for_each(|_| history.step(&mut archive));
            }
            let now = histories.iter().map(|(_, history)| history.now).max().unwrap_or(0);
            archive.commit(second(now)).unwrap();
            if mutant.is_some() && (life, part) != (lives - 1, 2) {
                continue;
            }
            let tape = made.tape().unwrap();
            for (seed, history) in &mut histories {
                let rows = Rows::of(tape.catalog(), history.name.as_str());
                if let Some(mutant) = mutant {
                    let changes = mutant.spoil(tape.catalog(), history.name.as_str());
                    Catalog::open(&made.catalog()).unwrap().apply(&changes).unwrap();
                }
                let told = tape.coverage(history.name.as_str()).unwrap();
                if let Err(why) = history.look(&rows, &told) {
                    broken.entry(*seed).or_insert(format!("life {life}, part {part}: {why}"));
                }
            }
        }
        if life + 1 < lives {
            let now = histories.iter().map(|(_, history)| history.now).max().unwrap_or(0);
            drop(archive);
            made.disk.restart(Unsynced::Lost);
            archive = made.open(now).unwrap();
            for (_, history) in &mut histories {
                history.table.note("killed");
                history.ended();
                history.now = now;
                history.start(&mut archive);
            }
        }
    }
    let mut table = Table::default();
    histories.iter().for_each(|(_, history)| table.merge(&history.table));
    (table, broken.into_iter().collect())
}

fn run(seeds: std::ops::Range<u64>, mutant: Option<Mutant>) -> Told {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let firsts: Vec<u64> = (seeds.start..seeds.end).step_by(BATCH as usize).collect();
    let all = Mutex::new((Table::default(), Vec::new()));
    std::thread::scope(|scope| {
        for nth in 0..threads {
            let (all, firsts, seeds) = (&all, &firsts, &seeds);
            scope.spawn(move || {
                for first in firsts.iter().skip(nth).step_by(threads) {
                    let (table, broken) = batch(*first, BATCH.min(seeds.end - first), mutant);
                    let mut all: std::sync::MutexGuard<'_, Told> = all.lock().unwrap();
                    all.0.merge(&table);
                    all.1.extend(broken);
                }
            });
        }
    });
    let (table, mut broken) = all.into_inner().unwrap();
    broken.sort();
    (table, broken)
}

/// Runs the histories and the controls, prints what happened, and says so in a line of JSON.
fn check(from: u64, count: u64) {
    let started = Instant::now();
    let (table, broken) = run(from..from + count, None);
    let caught = Mutant::ALL.map(|mutant| (format!("{mutant:?}"), run(0..256, Some(mutant)).1.len()));
    println!("{table}");
    for (seed, what) in broken.iter().take(20) {
        println!("seed {seed}: {what}; again: scripts/simulate --only coverage --from {} --count {BATCH}", seed / BATCH * BATCH);
    }
    let controls: serde_json::Map<String, serde_json::Value> =
        caught.iter().map(|(name, n)| (name.clone(), (*n).into())).collect();
    let line = serde_json::json!({
        "mode": "coverage", "runs": count, "reached": count, "violations": broken.len(), "controls": controls,
        "seconds": started.elapsed().as_secs_f64(), "seed": from,
    });
    println!("{line}");
    assert!(broken.is_empty(), "{} of {count} histories have a second in no class, in two, or in a wrong one", broken.len());
    for (name, n) in caught {
        assert!(n > 0, "this mutant was not caught: {name}");
    }
    for fact in SOMETIMES.iter().filter(|_| count >= GATE) {
        assert!(table.get(fact) > 0, "this never happened: {fact}");
    }
}

#[test]
fn each_instant_is_in_one_class() {
    check(0, GATE);
}

#[test]
#[ignore = "scripts/simulate --only coverage runs it"]
fn many_timelines() {
    let number = |name: &str, default: u64| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    check(number("SIMULATE_FROM", 0), number("SIMULATE_SEEDS", 1_000_000));
}
