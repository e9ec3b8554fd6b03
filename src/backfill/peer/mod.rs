//! Another recorder's tape as history: gaps are filled from it, and two tapes become one.
//!
//! The other tape is opened for reading only; it may be recorded at the same moment and may be damaged in places. What it
//! was told is copied byte for byte: envelopes as `frame` records with `via: "peer"`, pages of history as they are, each with a
//! `peer` in its info that names the tape, source, number and instant it was received under there. Then the ledger says what
//! the other tape's coverage proves: where it was live, for every kind of event there is.
//!
//! The mark of a copied record is in the record itself, so whatever ends a run, the next one knows what is there: at most what
//! was not yet committed is copied again, and nothing twice. A proof is written only once everything it speaks of is durable.
//!
//! Coverage is read before the records: what the other tape gets meanwhile is more than what is claimed, never less. Where
//! numbers are missing among its records (a damaged block), a horizon around the loss proves nothing, and nothing it filled
//! itself counts.
//!
//! A merge brings what this tape never promised as well. It adds no machinery to the ledger: a scope's first version is told
//! again with an earlier beginning, a new version begins where the other tape's coverage ends, and the time between is a
//! gap of cause `elsewhere` that is filled as any other. Gaps are noted before the scopes that promise their time, so no
//! instant is ever promised and untold. Where both tapes have a hole it stays a gap. A gap of everything does not stay open
//! for a rule that the other tape does not know: the rule gets a gap of its own, as it has one where a merge promises it. And
//! where both saw a rule change, the new one begins when the first of them saw it; so tapes come to the same in any order.
//!
//! | file | holds |
//! | --- | --- |
//! | `mod.rs` | [`fill`], [`plan`], [`merge`], which source is which |
//! | `copy.rs` | one pass over the other tape's records |
//! | `held.rs` | what is on this tape already |
//! | `proof.rs` | what the other tape's coverage proves of a gap |
//! | `promise.rs` | time that only the other tape promised |
//!
//! Memory: 24 bytes for each envelope of this tape in and around the windows that are filled.

mod copy;
mod held;
mod promise;
mod proof;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::copy::Copied;
use self::proof::Theirs;
use super::{BackfillError, Filled};
use crate::archive::{self, Archive, ArchiveError, Disk, Filling, GapRow, Layout, Spent, Tape};
use crate::model::{GapState, IntervalSet, Provider, RecordKind, SourceName, UnixMicros};
use crate::net::Clock;
use crate::provider::decode_record;

/// What is to be filled from another tape.
#[derive(Clone, Debug)]
pub struct FillOptions {
    /// Directory of the tape.
    pub tape: PathBuf,
    /// How it is written.
    pub archive: archive::Options,
    /// Directory of the other tape.
    pub from: PathBuf,
    /// Its source; without it the one of the same name, else the only one of the same provider.
    pub from_source: Option<String>,
    /// Only these gaps, as source and number; none is all that can be filled.
    pub gaps: Vec<(SourceName, u64)>,
    /// Only these sources of the tape; none is all.
    pub sources: Vec<String>,
    /// What another writer is told about us.
    pub holder: String,
}

/// Which tapes become one.
#[derive(Clone, Debug)]
pub struct MergeOptions {
    /// Directory of the tape that gets everything; made if there is none.
    pub tape: PathBuf,
    /// How it is written.
    pub archive: archive::Options,
    /// Directories of the others, in this order.
    pub from: Vec<PathBuf>,
    /// What another writer is told about us.
    pub holder: String,
}

/// Why another tape cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// This tape, or its disk.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The other tape.
    #[error(transparent)]
    Other(ArchiveError),
    /// A gap that was named.
    #[error(transparent)]
    Ledger(#[from] BackfillError),
    /// One directory twice.
    #[error("{} is the tape itself: nothing can be filled from it", .dir.display())]
    SameDirectory {
        /// The directory.
        dir: PathBuf,
    },
    /// Sources that have nothing to do with each other.
    #[error("tape {} has no source for {wanted}; it has {known}", .dir.display())]
    NoCommonSource {
        /// Directory of the other tape.
        dir: PathBuf,
        /// Sources of this tape, with their providers.
        wanted: String,
        /// Sources of the other one, with theirs.
        known: String,
    },
    /// More than one source could be meant.
    #[error("source {name} has no namesake in tape {}, and {known} could be meant", .dir.display())]
    Ambiguous {
        /// Source of this tape.
        name: String,
        /// Directory of the other tape.
        dir: PathBuf,
        /// Sources of that provider.
        known: String,
    },
    /// Two providers' sources.
    #[error("source {name} records {ours}, and source {other} of tape {} records {theirs}", .dir.display())]
    OtherProvider {
        /// Source of this tape.
        name: String,
        /// Its provider.
        ours: String,
        /// Source of the other tape.
        other: String,
        /// Directory of the other tape.
        dir: PathBuf,
        /// Its provider.
        theirs: String,
    },
    /// A catalog that cannot be believed.
    #[error("the catalog of tape {} does not add up: {what}", .dir.display())]
    Contradiction {
        /// Directory of the other tape.
        dir: PathBuf,
        /// What does not add up.
        what: String,
    },
}

impl PeerError {
    /// Whether something was asked for that makes no sense.
    pub fn is_usage(&self) -> bool {
        match self {
            Self::Archive(error) | Self::Other(error) => error.is_usage(),
            Self::Ledger(error) => error.is_usage(),
            _ => false,
        }
    }

    /// What the person can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Other(ArchiveError::NotATape { .. }) => Some(
                "name the directory of a tape, the one with tape.json in it; of a file of envelopes `birdtape import` makes one",
            ),
            Self::Archive(error) | Self::Other(error) => error.hint(),
            Self::Ledger(error) => error.hint(),
            Self::SameDirectory { .. } => Some("name the directory of another recorder's tape"),
            Self::NoCommonSource { .. } => Some("`birdtape merge` brings sources that a tape does not have"),
            Self::Ambiguous { .. } => Some("name the source of the other tape with --from-source"),
            Self::OtherProvider { .. } => Some("name another source of that provider, or merge into another tape"),
            Self::Contradiction { .. } => Some("`birdtape rebuild` makes it again from the segments; nothing is lost"),
        }
    }
}

/// What happens, for whoever watches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerEvent {
    /// Records of the other tape were read, and what was new is durable.
    Read {
        /// Source of this tape.
        source: String,
        /// Records read so far.
        records: u64,
        /// Records that are to be read.
        of: u64,
        /// Records copied so far.
        copied: u64,
    },
    /// A gap is left.
    Ended(Filled),
    /// A source is done.
    Source(Brought),
}

/// What a source of another tape brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Brought {
    /// Directory of the other tape.
    pub from: PathBuf,
    /// Source of this tape.
    pub source: String,
    /// Source of the other tape.
    pub from_source: String,
    /// Records of the other tape that were read.
    pub records: u64,
    /// Envelopes copied.
    pub envelopes: u64,
    /// Pages of history copied.
    pub pages: u64,
    /// Gaps and scopes that were written because of time this tape did not promise.
    pub promised: u64,
    /// Damage of the other tape, in words.
    pub damage: Vec<String>,
}

/// How a run ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerOutcome {
    /// What each source brought.
    pub sources: Vec<Brought>,
    /// Gaps of which something was proven.
    pub gaps: Vec<Filled>,
    /// What was left out (a gap, a source, a whole tape), and why.
    pub left: Vec<(String, String)>,
    /// Gaps of this tape through which loss is still possible.
    pub still_open: u64,
}

impl PeerOutcome {
    /// Whether the tape is as it was before.
    pub fn added_nothing(&self) -> bool {
        self.gaps.is_empty() && self.sources.iter().all(|source| source.envelopes + source.pages + source.promised == 0)
    }
}

/// Another tape, opened for reading.
struct Other {
    dir: PathBuf,
    tape: Tape,
}

impl Other {
    fn open(dir: &Path, disk: &Arc<dyn Disk>) -> Result<Self, PeerError> {
        let tape = Tape::open(dir, Arc::clone(disk)).map_err(PeerError::Other)?;
        // Beside a recorder two looks may see two moments; damage stays.
        let looks = (0..3).map(|_| tape.contradiction().map_err(PeerError::Other));
        let mut contradictions = looks.collect::<Result<Vec<_>, _>>()?;
        match contradictions.iter().all(Option::is_some).then(|| contradictions.pop().flatten()).flatten() {
            Some(what) => Err(PeerError::Contradiction { dir: dir.to_owned(), what }),
            None => Ok(Self { dir: dir.to_owned(), tape }),
        }
    }

    fn sources(&self) -> Result<Vec<(String, String)>, PeerError> {
        let sources = self.tape.sources().map_err(PeerError::Other)?;
        Ok(sources.into_iter().map(|source| (source.name, source.provider)).collect())
    }

    /// The source that is the same as one of ours: by name, else the only one of its provider on either side.
    fn twin(&self, ours: &[(String, String)], (name, provider): &(String, String)) -> Result<Option<String>, PeerError> {
        let theirs = self.sources()?;
        if let Some((other, their_provider)) = theirs.iter().find(|(other, _)| other == name) {
            return if their_provider == provider {
                Ok(Some(other.clone()))
            } else {
                Err(self.other_provider((name, provider), (other, their_provider)))
            };
        }
        let of_it = |sources: &[(String, String)]| {
            let names = sources.iter().filter(|(_, other)| other == provider).map(|(name, _)| name.clone());
            names.collect::<Vec<_>>()
        };
        match (&of_it(&theirs)[..], of_it(ours).len()) {
            ([], _) => Ok(None),
            ([only], 1) => Ok(Some(only.clone())),
            (several, _) => {
                let known = several.join(", ");
                Err(PeerError::Ambiguous { name: name.clone(), dir: self.dir.clone(), known })
            }
        }
    }

    fn other_provider(&self, (name, ours): (&str, &str), (other, theirs): (&str, &str)) -> PeerError {
        let (name, ours, other, theirs) = (name.to_owned(), ours.to_owned(), other.to_owned(), theirs.to_owned());
        PeerError::OtherProvider { name, ours, other, dir: self.dir.clone(), theirs }
    }

    /// The source that was named, for one of ours.
    fn named(&self, wanted: &str, ours: &(String, String)) -> Result<String, PeerError> {
        let row = self.tape.source(wanted).map_err(PeerError::Other)?;
        if row.provider == ours.1 {
            Ok(row.name)
        } else {
            Err(self.other_provider((&ours.0, &ours.1), (&row.name, &row.provider)))
        }
    }
}

fn in_words(sources: &[(String, String)]) -> String {
    let words: Vec<_> = sources.iter().map(|(name, provider)| format!("{name} ({provider})")).collect();
    if words.is_empty() { "none".to_owned() } else { words.join(", ") }
}

fn refuse_itself(tape: &Path, from: &Path) -> Result<(), PeerError> {
    let real = |dir: &Path| dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    if real(tape) == real(from) { Err(PeerError::SameDirectory { dir: from.to_owned() }) } else { Ok(()) }
}

/// A gap as another tape would leave it.
#[derive(Clone, Debug)]
pub struct PeerPlanned {
    /// The gap.
    pub gap: GapRow,
    /// What it would be then.
    pub state: GapState,
    /// In words: what is proven.
    pub detail: String,
    /// Envelopes that are not here yet.
    pub envelopes: u64,
    /// Pages of history that are not here yet.
    pub pages: u64,
}

/// What another tape would bring.
#[derive(Clone, Debug, Default)]
pub struct PeerPlan {
    /// Gaps of which something would be proven.
    pub gaps: Vec<PeerPlanned>,
    /// What would be left out (a gap, a source), and why.
    pub left: Vec<(String, String)>,
}

/// What another tape would bring of each gap. Reads both tapes and writes nothing.
///
/// # Errors
/// As [`fill`], when one of them cannot be read.
pub fn plan(options: &FillOptions, disk: &Arc<dyn Disk>, tell: &mut dyn FnMut(PeerEvent)) -> Result<PeerPlan, PeerError> {
    let (other, pairs, left) = pairing(options, disk)?;
    let tape = Tape::open(&options.tape, Arc::clone(disk))?;
    let mut plan = PeerPlan { left, ..PeerPlan::default() };
    for ((name, provider), twin) in &pairs {
        let Some(pair) = Pair::new(&other, name, provider, twin) else { continue };
        let theirs = Theirs::read(&pair)?;
        let rows = wanted_of(options, &tape, &pair)?;
        let mut windows = IntervalSet::new();
        rows.iter().for_each(|(_, rest)| windows.add(rest));
        // Of each gap: where its records lie, and how many there are.
        let mut found: Vec<_> = rows.iter().map(|(_, rest)| (copy::widened(rest, theirs.horizon), 0, 0)).collect();
        let copied = copy::read_new(&tape, (&pair, &theirs), &windows, tell, &mut |record, candidate, _| {
            for (_, envelopes, pages) in found.iter_mut().filter(|(around, ..)| candidate.lies_in(around)) {
                *(if record.kind == RecordKind::Frame { envelopes } else { pages }) += 1;
            }
            Ok(())
        })?;
        let rows = rows.into_iter().map(|(row, _)| row).collect();
        for ((gap, verdict), (_, envelopes, pages)) in verdicts(&tape, &pair, (&theirs, &copied), rows)?.into_iter().zip(found) {
            match verdict {
                Ok(proof::Verdict { state, words, .. }) => {
                    let detail = format!("{}: {words}", pair.in_words());
                    plan.gaps.push(PeerPlanned { gap, state, detail, envelopes, pages });
                }
                Err(why) => plan.left.push(pair.proves_nothing(&gap, &why)),
            }
        }
    }
    Ok(plan)
}

/// The other tape; sources of this one with their providers and the same of the other; what is left out, and why.
type Pairing = (Other, Vec<((String, String), String)>, Vec<(String, String)>);

/// Which source is filled from which, when everything that is asked for can be.
fn pairing(options: &FillOptions, disk: &Arc<dyn Disk>) -> Result<Pairing, PeerError> {
    refuse_itself(&options.tape, &options.from)?;
    let other = Other::open(&options.from, disk)?;
    let ours: Vec<_> = {
        let tape = Tape::open(&options.tape, Arc::clone(disk))?;
        options.sources.iter().try_for_each(|name| tape.source(name).map(drop))?;
        require_gaps(&tape, options)?;
        sources_of(&tape)?
    };
    if let Some(from_source) = &options.from_source {
        other.tape.source(from_source).map_err(PeerError::Other)?;
    }
    let is_named = |name: &str| !options.gaps.is_empty() || options.sources.iter().any(|source| source == name);
    let wanted = |name: &str| {
        (options.gaps.is_empty() || options.gaps.iter().any(|(source, _)| source.as_str() == name))
            && (options.sources.is_empty() || options.sources.iter().any(|source| source == name))
    };
    let (mut pairs, mut left) = (Vec::new(), Vec::new());
    for source in ours.iter().filter(|(name, _)| wanted(name)) {
        let twin = match &options.from_source {
            Some(from_source) => other.named(from_source, source).map(Some),
            None => other.twin(&ours, source),
        };
        match twin {
            Ok(Some(twin)) => pairs.push((source.clone(), twin)),
            Ok(None) => left.push((source.0.clone(), "the other tape has nothing of its provider".to_owned())),
            // Of a source that nobody named it is only said.
            Err(error) if !is_named(&source.0) && ours.len() > 1 => left.push((source.0.clone(), error.to_string())),
            Err(error) => return Err(error),
        }
    }
    if pairs.is_empty() {
        let wanted: Vec<_> = ours.iter().filter(|(name, _)| wanted(name)).cloned().collect();
        let (wanted, known) = (in_words(&wanted), in_words(&other.sources()?));
        return Err(PeerError::NoCommonSource { dir: other.dir, wanted, known });
    }
    Ok((other, pairs, left))
}

/// Fills gaps of a tape from another one.
///
/// # Errors
/// When one of the tapes cannot be read or this one not written, a gap that was named cannot be filled at all, or no source
/// of the other tape fits.
pub fn fill(
    options: &FillOptions,
    clock: &dyn Clock,
    disk: &Arc<dyn Disk>,
    tell: &mut dyn FnMut(PeerEvent),
) -> Result<PeerOutcome, PeerError> {
    let (other, pairs, left) = pairing(options, disk)?;
    let outcome = PeerOutcome { left, ..PeerOutcome::default() };
    let (dir, archive) = (&options.tape, options.archive.clone());
    let archive = Archive::open(dir, Arc::clone(disk), archive, decode_record, &options.holder, clock.wall())?;
    let mut work = Work { archive, dir: dir.clone(), disk: Arc::clone(disk), clock, tell, outcome };
    for ((name, provider), twin) in &pairs {
        let Some(pair) = Pair::new(&other, name, provider, twin) else { continue };
        let theirs = Theirs::read(&pair)?;
        let mut wanted = IntervalSet::new();
        let mut gaps = BTreeSet::new();
        for (row, rest) in wanted_of(options, &work.ours()?, &pair)? {
            wanted.add(&rest);
            gaps.insert(row.n);
        }
        let copied = work.copy(&pair, &theirs, &wanted)?;
        work.conclude(&pair, &theirs, &copied, |row| gaps.contains(&row.n))?;
        work.brought(&pair, copied, 0);
    }
    work.close(pairs.iter().map(|((name, _), _)| name.as_str()))
}

/// Gaps of a source that are asked for and can be filled, with what is not proven of them.
fn wanted_of(options: &FillOptions, tape: &Tape, pair: &Pair<'_>) -> Result<Vec<(GapRow, IntervalSet)>, ArchiveError> {
    let is_named = |row: &GapRow| options.gaps.iter().any(|(source, n)| *source == pair.source && *n == row.n);
    let mut rows = fillable(tape, pair)?;
    rows.retain(|(row, _)| options.gaps.is_empty() || is_named(row));
    Ok(rows)
}

/// Makes sure that each of these gaps is there and can be filled.
fn require_gaps(tape: &Tape, options: &FillOptions) -> Result<(), PeerError> {
    for (source, n) in &options.gaps {
        let gap = format!("{source}-{n}");
        if !options.sources.is_empty() && !options.sources.iter().any(|name| name == source.as_str()) {
            return Err(BackfillError::NotAsked { gap, source_name: source.to_string() }.into());
        }
        let rows = tape.catalog().gaps(Some(source.as_str())).map_err(ArchiveError::from)?;
        let Some(row) = rows.into_iter().find(|row| row.n == *n) else { return Err(BackfillError::NoGap { gap }.into()) };
        if row.to_us.is_none() {
            return Err(BackfillError::Growing { gap }.into());
        }
        let kinds = tape.catalog().gap_kinds(source.as_str()).map_err(ArchiveError::from)?;
        if row.state == GapState::Ignored.name() || proof::rest_of_every_kind(&row, &kinds).is_empty() {
            return Err(BackfillError::Settled { gap, state: row.state }.into());
        }
    }
    Ok(())
}

/// Brings everything of other tapes into one.
///
/// # Errors
/// When one of the tapes cannot be read or this one not written, or a source of one name has two providers.
pub fn merge(
    options: &MergeOptions,
    clock: &dyn Clock,
    disk: &Arc<dyn Disk>,
    tell: &mut dyn FnMut(PeerEvent),
) -> Result<PeerOutcome, PeerError> {
    let mut others = Vec::new();
    for from in &options.from {
        refuse_itself(&options.tape, from)?;
        others.push(Other::open(from, disk)?);
    }
    // Before anything is written, everything that can be refused is.
    if Layout::new(&options.tape).info(&**disk)?.is_some() {
        let ours = match Tape::open(&options.tape, Arc::clone(disk)) {
            Ok(tape) => sources_of(&tape)?,
            // A merge into a new tape was killed before there was one, or it is damaged: opening the tape for writing makes
            // it again.
            Err(ArchiveError::NoCatalog { .. }) => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        for other in &others {
            twins(other, &ours)?;
        }
    }
    let (dir, archive) = (&options.tape, options.archive.clone());
    let archive = Archive::open(dir, Arc::clone(disk), archive, decode_record, &options.holder, clock.wall())?;
    let outcome = PeerOutcome::default();
    let mut work = Work { archive, dir: dir.clone(), disk: Arc::clone(disk), clock, tell, outcome };
    for other in &others {
        if other.tape.info().tape == work.archive.tape() {
            let why = "it is this tape, or a copy of it: there is nothing to bring".to_owned();
            work.outcome.left.push((other.dir.display().to_string(), why));
            continue;
        }
        let ours = sources_of(&work.ours()?)?;
        for (name, provider, twin) in twins(other, &ours)? {
            let Some(pair) = Pair::new(other, &name, &provider, &twin) else { continue };
            work.archive.add_source(&pair.source, pair.provider)?;
            work.merge(&pair)?;
        }
    }
    let names: Vec<_> = sources_of(&work.ours()?)?.into_iter().map(|(name, _)| name).collect();
    work.close(names.iter().map(String::as_str))
}

fn sources_of(tape: &Tape) -> Result<Vec<(String, String)>, ArchiveError> {
    Ok(tape.sources()?.into_iter().map(|source| (source.name, source.provider)).collect())
}

/// For each source of the other tape: our name for it, its provider, its own name.
fn twins(other: &Other, ours: &[(String, String)]) -> Result<Vec<(String, String, String)>, PeerError> {
    let theirs = other.sources()?;
    let mut found: Vec<(String, String, String)> = Vec::new();
    for source in ours {
        match other.twin(ours, source) {
            Ok(Some(twin)) => found.push((source.0.clone(), source.1.clone(), twin)),
            // Which of several is meant is no question: each comes under its own name.
            Ok(None) | Err(PeerError::Ambiguous { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    for (name, provider) in theirs {
        if !found.iter().any(|(_, _, twin)| *twin == name) {
            found.push((name.clone(), provider, name));
        }
    }
    Ok(found)
}

/// A source of this tape, and the same of another.
struct Pair<'a> {
    source: SourceName,
    provider: Provider,
    other: &'a Other,
    from: String,
}

impl<'a> Pair<'a> {
    /// `None` for a source of a provider, or with a name, that this version does not know.
    fn new(other: &'a Other, name: &str, provider: &str, from: &str) -> Option<Self> {
        let (source, provider) = (SourceName::new(name).ok()?, provider.parse().ok()?);
        Some(Self { source, provider, other, from: from.to_owned() })
    }

    /// A gap that is left out, and why.
    fn proves_nothing(&self, row: &GapRow, why: &str) -> (String, String) {
        (format!("{}-{}", row.source, row.n), format!("{} proves nothing of it: {why}", self.in_words()))
    }

    /// Short words for the other tape's source.
    fn in_words(&self) -> String {
        format!("source {} of tape {}", self.from, self.other.tape.info().tape.get(..8).unwrap_or_default())
    }
}

/// Gaps with both ends of which something is not proven of every kind of event, with what that is.
fn fillable(tape: &Tape, pair: &Pair<'_>) -> Result<Vec<(GapRow, IntervalSet)>, ArchiveError> {
    let kinds = tape.catalog().gap_kinds(pair.source.as_str())?;
    let mut rows = tape.catalog().gaps(Some(pair.source.as_str()))?;
    rows.retain(|row| row.to_us.is_some() && row.state != GapState::Ignored.name());
    let with_rest = rows.into_iter().map(|row| {
        let rest = proof::rest_of_every_kind(&row, &kinds);
        (row, rest)
    });
    Ok(with_rest.filter(|(_, rest)| !rest.is_empty()).collect())
}

/// Why nothing that the other tape says can be believed.
fn doubt(tape: &Tape, pair: &Pair<'_>, (theirs, copied): (&Theirs, &Copied)) -> Result<Option<String>, ArchiveError> {
    let seen = tape.catalog().last_seen(pair.source.as_str())?;
    let seen: Vec<_> = seen.into_iter().map(|row| (row.scope, UnixMicros(row.received_us))).collect();
    Ok(copied.doubt(theirs).or_else(|| theirs.lacks(&seen)))
}

/// A gap with what another tape proves of it, or why nothing.
type Judged = (GapRow, Result<proof::Verdict, String>);

/// What the other tape proves of each of these gaps.
fn verdicts(
    tape: &Tape,
    pair: &Pair<'_>,
    (theirs, copied): (&Theirs, &Copied),
    rows: Vec<GapRow>,
) -> Result<Vec<Judged>, ArchiveError> {
    let source = pair.source.as_str();
    let (ours, catalog) = (tape.coverage(source)?, tape.catalog());
    let (gaps, kinds) = (catalog.gaps(Some(source))?, catalog.gap_kinds(source)?);
    let doubt = doubt(tape, pair, (theirs, copied))?;
    let verdict = |row: GapRow| {
        let verdict = match &doubt {
            Some(why) => Err(why.clone()),
            None => theirs.verdict(&row, &ours, &gaps, &kinds, copied).ok_or_else(|| copied.why_nothing(&row).to_owned()),
        };
        (row, verdict)
    };
    Ok(rows.into_iter().map(verdict).collect())
}

/// What is done on one tape.
struct Work<'a> {
    archive: Archive,
    dir: PathBuf,
    disk: Arc<dyn Disk>,
    clock: &'a dyn Clock,
    tell: &'a mut dyn FnMut(PeerEvent),
    outcome: PeerOutcome,
}

impl Work<'_> {
    /// This tape as it is committed.
    fn ours(&self) -> Result<Tape, ArchiveError> {
        Tape::open(&self.dir, Arc::clone(&self.disk))
    }

    fn merge(&mut self, pair: &Pair<'_>) -> Result<(), PeerError> {
        let theirs = Theirs::read(pair)?;
        let ours = self.ours()?.coverage(pair.source.as_str())?;
        let mut wanted = promise::uncovered(&ours, &theirs.scopes);
        for (_, rest) in fillable(&self.ours()?, pair)? {
            wanted.add(&rest);
        }
        let copied = self.copy(pair, &theirs, &wanted)?;
        let promised = self.promise(pair, &theirs)? + self.split(pair, &theirs, &copied)?;
        self.conclude(pair, &theirs, &copied, |_| true)?;
        self.brought(pair, copied, promised);
        Ok(())
    }

    /// Writes into the ledger what the other tape proves of these gaps.
    fn conclude(
        &mut self,
        pair: &Pair<'_>,
        theirs: &Theirs,
        copied: &Copied,
        is_wanted: impl Fn(&GapRow) -> bool,
    ) -> Result<(), PeerError> {
        let tape = self.ours()?;
        let rows = fillable(&tape, pair)?.into_iter().map(|(row, _)| row).filter(is_wanted).collect();
        for (row, verdict) in verdicts(&tape, pair, (theirs, copied), rows)? {
            let verdict = match verdict {
                Ok(verdict) => verdict,
                Err(why) => {
                    self.outcome.left.push(pair.proves_nothing(&row, &why));
                    continue;
                }
            };
            let gap = format!("{}-{}", row.source, row.n);
            let detail = format!("{}: {}", pair.in_words(), verdict.words);
            let filling =
                Filling { state: verdict.state, detail: &detail, cursor: None, kinds: &verdict.kinds, spent: Spent::default() };
            self.archive.fill(&pair.source, self.clock.wall(), row.n, filling)?;
            let filled = Filled {
                gap,
                state: verdict.state,
                detail,
                requests: 0,
                rows: copied.found,
                new: copied.n_new(),
                micro_usd: 0,
                halt: None,
            };
            self.outcome.gaps.push(filled.clone());
            (self.tell)(PeerEvent::Ended(filled));
        }
        self.archive.commit(self.clock.wall())?;
        Ok(())
    }

    fn brought(&mut self, pair: &Pair<'_>, copied: Copied, promised: u64) {
        let brought = Brought {
            from: pair.other.dir.clone(),
            source: pair.source.to_string(),
            from_source: pair.from.clone(),
            records: copied.records,
            envelopes: copied.envelopes,
            pages: copied.pages,
            promised,
            damage: copied.damage,
        };
        (self.tell)(PeerEvent::Source(brought.clone()));
        self.outcome.sources.push(brought);
    }

    fn close<'s>(mut self, sources: impl Iterator<Item = &'s str>) -> Result<PeerOutcome, PeerError> {
        let names: BTreeSet<_> = sources.filter_map(|name| SourceName::new(name).ok()).collect();
        self.outcome.still_open = names.iter().map(|name| self.archive.open_gaps(name).len() as u64).sum();
        self.archive.close(self.clock.wall())?;
        Ok(self.outcome)
    }
}
