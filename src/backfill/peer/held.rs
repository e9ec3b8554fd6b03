//! What is on this tape already, in and around the windows that are filled.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::archive::{ArchiveError, Record, Span, Tape};
use crate::model::{Decoded, EventKind, IntervalSet, Message, Provider, RecordKind, UnixMicros, Via};
use crate::provider::{Said, decode_record, said};

/// Where and when a record was first received: on which tape, under which number.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Origin {
    pub(super) tape: Arc<str>,
    pub(super) source: Arc<str>,
    pub(super) n: u64,
}

/// The origin a copied record names, and when it was received there.
pub(super) fn origin_of(record: &Record) -> Option<(Origin, UnixMicros)> {
    // Nearly all records have no info at all.
    let info: Map<String, Value> = serde_json::from_str(record.info.as_deref()?).ok()?;
    let peer = info.get("peer")?;
    let text = |key: &str| peer.get(key).and_then(Value::as_str);
    let at = text("at").and_then(UnixMicros::parse_rfc3339)?;
    Some((Origin { tape: text("tape")?.into(), source: text("source")?.into(), n: peer.get("n")?.as_u64()? }, at))
}

/// Info of a copy: what the record said of itself, and where it came from; a copy of a copy names the first.
pub(super) fn info_of_copy(record: &Record, origin: &Origin) -> String {
    let info = record.info.as_deref().and_then(|info| serde_json::from_str::<Map<String, Value>>(info).ok());
    let mut info = info.unwrap_or_default();
    // That number is a gap of the other tape.
    info.remove("gap");
    info.entry("peer").or_insert_with(|| {
        json!({
            "tape": &*origin.tape, "source": &*origin.source, "n": origin.n,
            "at": record.at.to_string(), "via": record.via.name(),
        })
    });
    Value::Object(info).to_string()
}

/// A record that may be history for another tape: an envelope or a page.
pub(super) struct Candidate {
    pub(super) decoded: Decoded,
    /// When its recorder received it; of a page that says nothing.
    pub(super) received: Option<UnixMicros>,
    /// Where it was copied from, if it is a copy.
    pub(super) origin: Option<Origin>,
}

impl Candidate {
    /// Reads a record; `None` for what is none or belongs to its own connection: greetings, heartbeats, answers.
    pub(super) fn read(provider: Provider, record: &Record) -> Option<Self> {
        let is_page = record.kind == RecordKind::Http && matches!(record.via, Via::History | Via::Snapshot);
        if record.kind != RecordKind::Frame && !is_page {
            return None;
        }
        let decoded = decode_record(provider, record.via, &record.body);
        let tells = !decoded.events.is_empty() || (!is_page && matches!(decoded.message, Message::Data | Message::Unknown));
        if !tells {
            return None;
        }
        let (origin, there) = origin_of(record).unzip();
        let received = (!is_page).then(|| there.unwrap_or(record.at));
        Some(Self { decoded, received, origin })
    }

    /// Whether it was received, or one of its events published, in one of these windows.
    pub(super) fn lies_in(&self, windows: &IntervalSet) -> bool {
        let published = self.decoded.events.iter().filter_map(|event| event.published_at);
        self.received.into_iter().chain(published).any(|at| windows.contains(at))
    }

    /// Whether saying the same twice is saying it once: content of a post, yes; somebody typing, no.
    pub(super) fn is_said_once(&self) -> bool {
        let once = [EventKind::Tweet, EventKind::Meta, EventKind::Delete, EventKind::Callout];
        let is_page = self.received.is_none();
        is_page || (!self.decoded.events.is_empty() && self.decoded.events.iter().all(|event| once.contains(&event.kind)))
    }
}

/// Envelopes and pages that are there.
#[derive(Default)]
pub(super) struct Held {
    origins: HashSet<Origin>,
    /// With the instant this tape received it, where it did so itself.
    once: HashMap<Said, Option<UnixMicros>>,
    /// Instants of those that may well be said again, not yet matched.
    each: HashMap<Said, Vec<UnixMicros>>,
    /// How much earlier we received what both received, in microseconds.
    pub(super) leads: Vec<i64>,
}

/// Furthest apart, in microseconds, that two recorders receive one and the same thing. A line that is slower than that gives
/// it twice; two that are nearer to each other than that and say the same may be taken for each other, and none is lost.
const APART_US: i64 = 5_000_000;

/// Pairs of instants that are enough to compare two clocks.
const LEADS: usize = 10_000;

impl Held {
    /// Reads what lies in these windows; copies from `peer` (a tape and its source) are known by their origin alone.
    pub(super) fn read(
        tape: &Tape,
        (source, provider): (&str, Provider),
        windows: &IntervalSet,
        peer: (&str, &str),
    ) -> Result<Self, ArchiveError> {
        let mut held = Self::default();
        let Some((from, _)) = windows.iter().next() else { return Ok(held) };
        // A source that is new has nothing.
        if !tape.sources()?.iter().any(|row| row.name == source) {
            return Ok(held);
        }
        let span = Span { from_n: Some(tape.first_n_from(source, from)?), ..Span::default() };
        let mut records = tape.records(source, span)?;
        while let Some(record) = records.next()? {
            let Some(candidate) = Candidate::read(provider, &record).filter(|one| one.lies_in(windows)) else { continue };
            let is_his = candidate.origin.as_ref().is_some_and(|origin| (&*origin.tape, &*origin.source) == peer);
            let is_once = candidate.is_said_once();
            let said = said(provider, &record.body);
            match candidate.received {
                Some(at) if !is_once && !is_his => held.each.entry(said).or_default().push(at),
                received if is_once => {
                    held.once.insert(said, received.filter(|_| candidate.origin.is_none()));
                }
                _ => {}
            }
            held.origins.extend(candidate.origin);
        }
        Ok(held)
    }

    /// Whether that very record was copied before.
    pub(super) fn has(&self, origin: &Origin) -> bool {
        self.origins.contains(origin)
    }

    /// Whether this tape holds the same. Of what can be said twice, each that is here stands for one there, the nearest in
    /// time.
    pub(super) fn stands_for(&mut self, said: &Said, candidate: &Candidate) -> bool {
        if candidate.is_said_once() {
            let Some(here) = self.once.get(said) else { return false };
            if let (Some(here), Some(there), true) = (here, candidate.received, self.leads.len() < LEADS) {
                self.leads.push(there.since(*here));
            }
            return true;
        }
        let (Some(instants), Some(there)) = (self.each.get_mut(said), candidate.received) else { return false };
        let near = instants.iter().map(|here| here.since(there).abs()).enumerate().filter(|(_, apart)| *apart <= APART_US);
        let Some((at, _)) = near.min_by_key(|(_, apart)| *apart) else { return false };
        instants.remove(at);
        true
    }
}
