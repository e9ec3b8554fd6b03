//! One pass over the other tape's records.

use std::sync::Arc;
use std::time::Duration;

use super::held::{Candidate, Held, Origin, info_of_copy};
use super::proof::Theirs;
use super::{Pair, PeerError, PeerEvent, Work};
use crate::archive::{Archive, GapRow, Record, Span, Tape};
use crate::model::{Body, ConnId, Draft, IntervalSet, RecordKind, UnixMicros, Via};
use crate::provider::said;

/// Bytes after which what was copied is committed; few in tests, so that they meet the places between.
const COMMIT_BYTES: usize = if cfg!(test) { 16 << 10 } else { 4 << 20 };

/// Records after which it is told how far the reading has come.
const TELL_EVERY: u64 = 20_000;

/// Shared instants that are enough to call two clocks different.
const LEADS_ENOUGH: usize = 3;

/// What was read and copied.
#[derive(Debug, Default)]
pub(super) struct Copied {
    pub(super) records: u64,
    /// Envelopes and pages of the windows, known or new.
    pub(super) found: u64,
    pub(super) envelopes: u64,
    pub(super) pages: u64,
    /// What could not be read, in words.
    pub(super) damage: Vec<String>,
    /// Stretches in which records are missing, with a horizon around them.
    pub(super) holes: IntervalSet,
    /// By how much later the other recorder says it received what both received, in microseconds.
    lag_us: Option<i64>,
}

impl Copied {
    pub(super) fn n_new(&self) -> u64 {
        self.envelopes + self.pages
    }

    /// Why what the other tape says of instants cannot be believed.
    pub(super) fn doubt(&self, theirs: &Theirs) -> Option<String> {
        let horizon_us = theirs.horizon.as_micros() as i64;
        let lag_us = self.lag_us.filter(|lag_us| lag_us.abs() > horizon_us / 2)?;
        let seconds = lag_us as f64 / 1e6;
        Some(format!("its clock and ours differ by {seconds:.1} s, by the envelopes that both received"))
    }

    /// Why nothing is proven of a gap.
    pub(super) fn why_nothing(&self, gap: &GapRow) -> &'static str {
        let (from, to) = (UnixMicros(gap.from_us), UnixMicros(gap.to_us.unwrap_or(i64::MAX)));
        if self.holes.within(from, to).is_empty() {
            "it was not live then either, or what it recorded was selected by something else"
        } else {
            "it is damaged there; `birdtape verify` with that tape says how far"
        }
    }

    fn hole(&mut self, (after, before): (UnixMicros, UnixMicros), horizon: Duration) {
        self.holes.insert(after.min(before).minus(horizon), before.max(after).plus(horizon));
    }
}

/// Windows that are `by` wider on both sides.
pub(super) fn widened(windows: &IntervalSet, by: Duration) -> IntervalSet {
    let mut wide = IntervalSet::new();
    windows.iter().for_each(|(from, to)| wide.insert(from.minus(by), to.plus(by)));
    wide
}

/// Reads what the other tape received or what was published in these windows and a horizon around them, and hands on what
/// is not on this tape.
pub(super) fn read_new(
    ours: &Tape,
    (pair, theirs): (&Pair<'_>, &Theirs),
    windows: &IntervalSet,
    tell: &mut dyn FnMut(PeerEvent),
    keep: &mut dyn FnMut(&Record, &Candidate, &Origin) -> Result<(), PeerError>,
) -> Result<Copied, PeerError> {
    let (mut copied, horizon) = (Copied::default(), theirs.horizon);
    let wide = widened(windows, horizon);
    let Some((from, _)) = wide.iter().next() else { return Ok(copied) };
    let (tape, source) = (&pair.other.tape, pair.from.as_str());
    let id: Arc<str> = tape.info().tape.as_str().into();
    // What can be said twice is counted, so at the edge of a window everything must find its own: their records a little
    // around it, and ours a little around those.
    let around = widened(&wide, horizon);
    let mut held = Held::read(ours, (pair.source.as_str(), pair.provider), &widened(&around, horizon), (&id, source))?;
    let first = tape.first_n_from(source, from.minus(horizon * 2)).map_err(PeerError::Other)?;
    let span = Span { from_n: Some(first), ..Span::default() };
    let mut records = tape.records(source, span).map_err(PeerError::Other)?;
    let (mut next, mut last_at) = (first, from);
    let of = (theirs.last_n.0 + 1).saturating_sub(first.0);
    while let Some(record) = records.next().map_err(PeerError::Other)? {
        if record.n > next {
            copied.hole((last_at, record.at), horizon);
        }
        (next, last_at) = (record.n.next(), record.at);
        copied.records += 1;
        let candidate = Candidate::read(pair.provider, &record);
        let is_near = |one: &Candidate| one.lies_in(&wide) || (!one.is_said_once() && one.lies_in(&around));
        let candidate = candidate.filter(is_near);
        if let Some(candidate) = candidate {
            copied.found += 1;
            let own = || Origin { tape: Arc::clone(&id), source: source.into(), n: record.n.0 };
            let origin = candidate.origin.clone().unwrap_or_else(own);
            let is_here = held.has(&origin) || held.stands_for(&said(pair.provider, &record.body), &candidate);
            if !is_here {
                keep(&record, &candidate, &origin)?;
                let count = if record.kind == RecordKind::Frame { &mut copied.envelopes } else { &mut copied.pages };
                *count += 1;
            }
        }
        if copied.records % TELL_EVERY == 0 {
            tell(progress(pair, &copied, of));
        }
    }
    if next <= theirs.last_n {
        copied.hole((last_at, UnixMicros(i64::MAX)), horizon);
    }
    copied.damage = records.damage().to_vec();
    if !copied.holes.is_empty() && copied.damage.is_empty() {
        copied.damage.push("numbers are missing among its records".to_owned());
    }
    held.leads.sort_unstable();
    copied.lag_us = (held.leads.len() >= LEADS_ENOUGH).then(|| held.leads[held.leads.len() / 2]);
    tell(progress(pair, &copied, of));
    Ok(copied)
}

fn progress(pair: &Pair<'_>, copied: &Copied, of: u64) -> PeerEvent {
    let (source, records) = (pair.source.to_string(), copied.records);
    PeerEvent::Read { source, records, of: of.max(records), copied: copied.n_new() }
}

impl Work<'_> {
    /// Copies what the other tape received or what was published in these windows and a horizon around them, unless it is here.
    pub(super) fn copy(&mut self, pair: &Pair<'_>, theirs: &Theirs, windows: &IntervalSet) -> Result<Copied, PeerError> {
        let ours = self.ours()?;
        let Self { archive, clock, tell, .. } = self;
        let mut waiting = 0;
        let mut keep = |record: &Record, candidate: &Candidate, origin: &Origin| {
            append(archive, clock.wall(), pair, (record, candidate, origin))?;
            waiting += record.body.len();
            if waiting >= COMMIT_BYTES {
                archive.commit(clock.wall())?;
                waiting = 0;
            }
            Ok(())
        };
        let copied = read_new(&ours, (pair, theirs), windows, *tell, &mut keep)?;
        self.archive.commit(self.clock.wall())?;
        Ok(copied)
    }
}

fn append(
    archive: &mut Archive,
    at: UnixMicros,
    pair: &Pair<'_>,
    (record, candidate, origin): (&Record, &Candidate, &Origin),
) -> Result<(), PeerError> {
    let draft = Draft {
        received_at: at,
        kind: record.kind,
        via: if record.kind == RecordKind::Frame { Via::Peer } else { record.via },
        conn: ConnId(0),
        info: Some(info_of_copy(record, origin)),
        body: Body::Bytes(record.body.clone()),
    };
    archive.append(&pair.source, &draft, Some(&candidate.decoded))?;
    Ok(())
}
