//! Job: a tape in, tables out: in columns ([`run`]) or as text ([`text::run`]).
//!
//! Owns the tables and their columns, the merging of all that was said of one thing into one row, and what makes an export
//! repeatable: the same tape gives the same bytes, whatever the memory, the threads, and the exports before it. Knows no
//! provider's JSON ([`crate::provider::read_rows`] reads that) and prints nothing.
//!
//! ```text
//! DIR/
//!   tweets/date=2026-01-05/part-0.parquet      one file a table and date, by the published date (UTC)
//!   …
//!   coverage/coverage.parquet                  the holes; one file
//!   _birdtape/manifest.json                    what was exported, how far; put last
//!   _birdtape/lock                             held by the one export at work
//!   _birdtape/tmp-…/                           runs of the spool and files not yet in their place
//! ```
//!
//! An export reads blocks on all cores, cuts what they say into sightings, and sorts those in the `spool` within a
//! bound of memory; then it merges each partition into its file. The next export reads what is new, and of the old the
//! records that have something of the dates that the new ones touch (the manifest knows which); partitions that nothing
//! new belongs to are left alone. Files are put in their place whole, the manifest last: an export that was killed leaves
//! each partition as it was or as it will be, and is simply run again.
//!
//! | file | holds |
//! | --- | --- |
//! | `schema.rs` | every table and column, described once |
//! | `sight.rs` | records to sightings |
//! | `code.rs` | sightings as bytes |
//! | `spool.rs` | sorting within a bound of memory |
//! | `post.rs` | merging what was said of a post |
//! | `part.rs` | a partition's rows and its Parquet file |
//! | `columns.rs` | making batches and encoding columns on several threads |
//! | `sheet.rs` | rows to columns |
//! | `coverage.rs` | the table of holes |
//! | `drift.rs` | what envelopes have that nobody expected |
//! | `manifest.rs` | what stands at a destination |
//! | `store.rs` | destinations; a local directory |
//! | `s3.rs`, `s3/` | a store that speaks S3 |
//! | `text.rs` | JSON lines and CSV, of one table or several |

mod code;
mod columns;
mod coverage;
mod drift;
mod manifest;
mod part;
mod post;
mod s3;
pub mod schema;
mod sheet;
mod sight;
mod spool;
mod store;
pub mod text;

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

#[doc(hidden)]
pub use code::again as row_again;
pub use drift::Drift;
pub use s3::{S3Error, S3Options, S3Store};
pub use schema::Table;
pub use store::{LocalStore, Store};
#[doc(hidden)]
pub use text::cell as csv_cell;

use self::manifest::{FileState, MANIFEST, Manifest, Selection, SourceState};
use self::part::{Common, ParquetFile, Rows, Segment, Tally, Written};
use self::schema::SCHEMA;
use self::sight::{Days, Gathered, Gatherer, Wanted};
use self::spool::{Part, Runs};
use crate::archive::{ArchiveError, Piece, Pieces, SourceRow, Tape};
use crate::model::{Provider, Seq, UnixMicros};

/// What is wanted, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// Tables.
    pub tables: Vec<Table>,
    /// First instant, in published time; envelopes go by the time they were received.
    pub from: Option<UnixMicros>,
    /// First instant no longer wanted.
    pub to: Option<UnixMicros>,
    /// Sources; empty for all.
    pub sources: Vec<String>,
    /// Bound of memory, in bytes.
    pub memory: usize,
    /// Threads; at least one.
    pub threads: usize,
    /// What goes into the columns `extra`.
    pub extra: ExtraFields,
    /// Whether another export at the destination is replaced.
    pub replace: bool,
    /// Once it is set the export ends with [`ExportError::Stopped`] and takes back what was begun.
    pub stop: Arc<AtomicBool>,
}

/// Which fields without a column of their own are kept in `extra`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExtraFields {
    /// All of them.
    #[default]
    All,
    /// Those that nobody expected, or that have another type than expected: files are half as large.
    Unexpected,
}

/// Why there is no export.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// Another export is at work there.
    #[error("another export writes to {place} ({holder})")]
    Busy {
        /// The destination.
        place: String,
        /// What the holder wrote into the lock.
        holder: String,
    },
    /// Somebody asked for it.
    #[error("stopped; nothing is half done, run it again to go on")]
    Stopped,
    /// Something that is no export of ours.
    #[error("{place} holds other files, such as `{file}`")]
    Strangers {
        /// The destination.
        place: String,
        /// One of them.
        file: String,
    },
    /// An export that ours cannot continue.
    #[error("{place} holds an export {what}")]
    Other {
        /// The destination.
        place: String,
        /// How it differs.
        what: String,
    },
    /// The manifest cannot be read.
    #[error("the manifest of the export in {place} cannot be read")]
    Manifest {
        /// The destination.
        place: String,
        /// Why.
        source: serde_json::Error,
    },
    /// A source has a provider this program does not know.
    #[error("source {source_name} is of provider `{provider}`, which this birdtape does not know")]
    UnknownProvider {
        /// The source.
        source_name: String,
        /// What the tape says.
        provider: String,
    },
    /// Files that would have to be written again, without what they were made of.
    #[error(
        "files of this export hold records of {source_name} up to number {last_n}, which were pruned from the tape since, and \
         newer records belong into the same files"
    )]
    Pruned {
        /// The source.
        source_name: String,
        /// Last record that was pruned.
        last_n: u64,
    },
    /// The operating system, or a store, refused.
    #[error("{what} {path}")]
    Io {
        /// The operation, as "cannot write".
        what: &'static str,
        /// The file.
        path: String,
        /// The answer.
        source: std::io::Error,
    },
    /// Rows and merges do not add up.
    #[error("internal error: {table} of {sightings} sightings became {rows} rows and {merged} merges")]
    Lost {
        /// The table's name.
        table: &'static str,
        /// Put in.
        sightings: u64,
        /// Written.
        rows: u64,
        /// Joined to another's row.
        merged: u64,
    },
    /// A file that stands where one is to be written.
    #[error("{path} is there already")]
    Exists {
        /// The file.
        path: String,
    },
    /// Something that no file can replace.
    #[error("{path} is not a regular file")]
    NoFile {
        /// What it is called.
        path: String,
    },
    /// The temporary files cannot be read.
    #[error("cannot read the temporary files of the export")]
    Spool(#[source] std::io::Error),
    /// What the spool gives back is not what was put in.
    #[error("internal error: the temporary files of the export are damaged")]
    Bent,
    /// A store in the network.
    #[error(transparent)]
    S3(#[from] S3Error),
    /// Parquet.
    #[error("cannot write Parquet")]
    Parquet(#[from] parquet::errors::ParquetError),
    /// The tape.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
}

impl ExportError {
    /// What the person can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        use std::io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem, StorageFull};
        match self {
            Self::Busy { .. } => Some("wait until it has ended, or name another directory with --out"),
            Self::Strangers { .. } => Some("name an empty or new directory with --out"),
            Self::Other { .. } | Self::Manifest { .. } => {
                Some("name another directory with --out, or replace what is there with --force")
            }
            Self::Pruned { .. } => Some("what is there stays as it is; name a new directory for what is left, with --out"),
            Self::UnknownProvider { .. } => Some("use a newer birdtape, or leave the source out with --source"),
            Self::Io { source, .. } => match source.kind() {
                StorageFull => Some("free some space and run it again; files that are in their place are whole"),
                PermissionDenied | ReadOnlyFilesystem => {
                    Some("make the destination writable for this user, or name another with --out")
                }
                _ => None,
            },
            Self::Lost { .. } | Self::Bent => Some("please report this; the tape is unharmed"),
            Self::Exists { .. } => Some("name another with --out, or replace it with --force"),
            Self::NoFile { .. } => Some("name a file or a directory with --out, or write to stdout: --out -"),
            Self::S3(error) => error.hint(),
            Self::Archive(error) => error.hint(),
            Self::Parquet(_) | Self::Spool(_) | Self::Stopped => None,
        }
    }
}

/// How far it is.
#[derive(Clone, Copy, Debug)]
pub enum Progress {
    /// There are so many bytes of segments to read (more).
    ToRead(u64),
    /// So many of them were read (more).
    Read(u64),
    /// There are so many files to write.
    ToWrite(u64),
    /// One of them is in its place.
    Wrote,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Report {
    /// By table, those that were wanted.
    pub tables: BTreeMap<Table, TableReport>,
    /// Envelopes and pages that were read.
    pub n_records: u64,
    /// Events about posts whose id no column can hold: they are in `events` only.
    pub n_unplaced: u64,
    /// Envelopes that could not be read; `envelopes` says why.
    pub n_problems: u64,
    /// Files that were put in their place.
    pub n_written: u64,
    /// Files that stayed as they were.
    pub n_kept: u64,
    /// Bytes that the spool had to put on disk.
    pub spilled_bytes: u64,
    /// What could not be read, in words; also by exports before this one.
    pub damage: Vec<String>,
    /// What was not expected.
    pub drift: Drift,
}

/// What came of a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableReport {
    /// Sightings that were put in.
    pub sightings: u64,
    /// Rows that were written.
    pub rows: u64,
    /// Sightings that joined another's row.
    pub merged: u64,
    /// Files that were written.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Rows that stand at the destination now.
    pub total_rows: u64,
}

/// Exports a tape.
///
/// # Errors
/// When the destination cannot take it, or the tape cannot be read. Damage of the tape is no error.
pub fn run(
    tape: &Tape,
    store: &dyn Store,
    options: &Options,
    holder: &str,
    tell: &(dyn Fn(Progress) + Sync),
) -> Result<Report, ExportError> {
    let job = Job::new(tape, store, options, tell)?;
    job.refuse_strangers()?;
    let held = store.lock(holder)?;
    let old = job.old()?;
    let report = job.run(old)?;
    drop(held);
    Ok(report)
}

/// A stretch of records that somebody has to read.
struct Task<'a> {
    source: u32,
    name: &'a str,
    provider: Provider,
    piece: Piece,
    /// Numbers that are wanted of it.
    from_n: u64,
    to_n: u64,
}

/// A tape on its way into a spool.
struct Reading<'a> {
    tape: &'a Tape,
    options: &'a Options,
    tell: &'a (dyn Fn(Progress) + Sync),
    /// All of the tape, by name.
    rows: Vec<SourceRow>,
    /// Those that are wanted: number, provider.
    sources: Vec<(u32, Provider)>,
    common: Arc<Common>,
    tables: Vec<Table>,
    wanted: Wanted,
}

impl<'a> Reading<'a> {
    fn new(tape: &'a Tape, options: &'a Options, tell: &'a (dyn Fn(Progress) + Sync)) -> Result<Self, ExportError> {
        for name in &options.sources {
            tape.source(name)?;
        }
        let rows = tape.sources()?;
        let (mut sources, mut segments) = (Vec::new(), Vec::new());
        for (number, row) in rows.iter().enumerate() {
            if options.sources.is_empty() || options.sources.contains(&row.name) {
                let unknown = |_| ExportError::UnknownProvider { source_name: row.name.clone(), provider: row.provider.clone() };
                sources.push((number as u32, row.provider.parse().map_err(unknown)?));
            }
            let of_source = tape.catalog().segments(&row.name).map_err(ArchiveError::from)?.into_iter().map(|segment| {
                let is_open = segment.state == "open";
                let last_n = if is_open { u64::MAX } else { segment.last_n };
                Segment { first_n: segment.first_n, last_n, sha256: (!is_open).then_some(segment.sha256) }
            });
            segments.push(of_source.collect());
        }
        let names = rows.iter().map(|row| row.name.clone()).collect();
        let common = Common { tape: tape.info().tape.clone(), sources: names, segments, stop: Arc::clone(&options.stop) };
        let mut tables = options.tables.clone();
        tables.sort_unstable();
        tables.dedup();
        let mut wanted = Wanted {
            tables: [false; Table::ALL.len()],
            from: options.from,
            to: options.to,
            keeps_known: options.extra == ExtraFields::All,
        };
        tables.iter().for_each(|table| wanted.tables[*table as usize] = true);
        Ok(Self { tape, options, tell, rows, sources, common: Arc::new(common), tables, wanted })
    }

    /// What was not exported yet, given the last number of each source that was.
    fn fresh(&self, exported: &dyn Fn(u32) -> u64, damage: &mut Vec<String>) -> Result<Vec<Task<'_>>, ExportError> {
        let is_coverage_enough = self.tables.iter().all(|table| *table == Table::Coverage);
        let mut fresh = Vec::new();
        for &(source, provider) in &self.sources {
            let from_n = exported(source) + 1;
            let name = &self.common.sources[source as usize];
            // What a recorder adds from now on is for the next export.
            let to_n = self.rows[source as usize].last_n;
            if from_n > to_n || is_coverage_enough {
                continue;
            }
            let Pieces { pieces, holes } = self.tape.pieces(name, Seq(from_n))?;
            damage.extend(holes.iter().map(|(first, last)| format!("{name}: records {first} to {last} are missing")));
            fresh.extend(pieces.into_iter().map(|piece| Task { source, name, provider, piece, from_n, to_n }));
        }
        Ok(fresh)
    }

    /// Reads pieces on all threads into the spool.
    fn gather(
        &self,
        tasks: Vec<Task<'_>>,
        only: Option<&HashSet<Part>>,
        runs: &Runs,
        damage: &mut Vec<String>,
    ) -> Result<Gathered, ExportError> {
        if tasks.is_empty() {
            return Ok(Gathered::default());
        }
        // The tape itself stays on this thread: its catalog is one connection.
        let (wanted, common, tell, place) = (&self.wanted, &self.common, self.tell, runs.place());
        tell(Progress::ToRead(tasks.iter().map(|task| task.piece.bytes).sum()));
        let threads = self.options.threads.clamp(1, tasks.len());
        // The rest is for the blocks at hand and for writing runs.
        let bound = (self.options.memory / 8 * 3 / threads).max(64 << 10);
        let (tasks, damaged) = (Mutex::new(VecDeque::from(tasks)), Mutex::new(Vec::new()));
        let stop = AtomicBool::new(false);
        let work = || -> Result<Gathered, ExportError> {
            let mut gatherer = Gatherer::new(wanted, only, runs, bound);
            while let Some(task) = next(&tasks).filter(|_| !stop.load(Ordering::Relaxed)) {
                let (bytes, mut failed) = (task.piece.bytes, None);
                let read = task.piece.read(|record| {
                    if failed.is_none() && !common.is_stopped() && (task.from_n..=task.to_n).contains(&record.n.0) {
                        failed = gatherer.record((task.source, task.name, task.provider), &record).err();
                    }
                })?;
                if let Some(source) = failed {
                    return Err(cannot_spool(&place, source));
                }
                common.go_on()?;
                let mut damaged = damaged.lock().unwrap_or_else(PoisonError::into_inner);
                damaged.extend(read.into_iter().map(|words| format!("{}: {words}", task.name)));
                tell(Progress::Read(bytes));
            }
            gatherer.finish().map_err(|source| cannot_spool(&place, source))
        };
        let all = on_threads(threads, &stop, work)?;
        damage.extend(damaged.into_inner().unwrap_or_else(PoisonError::into_inner));
        let mut sum = Gathered::default();
        all.into_iter().for_each(|gathered| sum.merge(gathered));
        Ok(sum)
    }

    /// Nothing is lost: what went into the spool is a row or part of one.
    fn tally(&self, table: Table, gathered: &Gathered, sum: Tally) -> Result<TableReport, ExportError> {
        let (Tally { rows, merged }, sightings) = (sum, gathered.sightings[table as usize]);
        if sightings != rows + merged {
            return Err(ExportError::Lost { table: table.name(), sightings, rows, merged });
        }
        Ok(TableReport { sightings, rows, merged, ..TableReport::default() })
    }

    /// Names of the sources that are wanted.
    fn names(&self) -> Vec<String> {
        self.sources.iter().map(|(source, _)| self.common.sources[*source as usize].clone()).collect()
    }
}

struct Job<'a> {
    reading: Reading<'a>,
    store: &'a dyn Store,
    selection: Selection,
}

impl<'a> Job<'a> {
    fn new(
        tape: &'a Tape,
        store: &'a dyn Store,
        options: &'a Options,
        tell: &'a (dyn Fn(Progress) + Sync),
    ) -> Result<Self, ExportError> {
        let reading = Reading::new(tape, options, tell)?;
        let mut named = options.sources.clone();
        named.sort_unstable();
        named.dedup();
        let selection = Selection {
            tables: reading.tables.iter().map(|table| table.name().to_owned()).collect(),
            from: options.from.map(|at| at.to_string()),
            to: options.to.map(|at| at.to_string()),
            sources: named,
            unexpected_only: options.extra == ExtraFields::Unexpected,
        };
        Ok(Self { reading, store, selection })
    }

    /// A place where no export ended holds nothing, or what one of ours left; anything else is somebody's.
    fn refuse_strangers(&self) -> Result<(), ExportError> {
        if self.store.get(MANIFEST)?.is_some() {
            return Ok(());
        }
        let is_ours = |name: &str| name.starts_with(store::OURS) || name == coverage::FILE || Part::of_file(name).is_some();
        match self.store.list()?.into_iter().find(|(name, _)| !is_ours(name)) {
            Some((file, _)) => Err(ExportError::Strangers { place: self.store.shown(), file }),
            None => Ok(()),
        }
    }

    /// The manifest of the export that is to be continued.
    fn old(&self) -> Result<Option<Manifest>, ExportError> {
        let place = || self.store.shown();
        let Some(bytes) = self.store.get(MANIFEST)?.filter(|_| !self.reading.options.replace) else { return Ok(None) };
        let old: Manifest = serde_json::from_slice(&bytes).map_err(|source| ExportError::Manifest { place: place(), source })?;
        let other = |what: String| Err(ExportError::Other { place: place(), what });
        if old.schema != SCHEMA || old.birdtape != env!("CARGO_PKG_VERSION") {
            return other(format!("of another version (birdtape {}, schema {})", old.birdtape, old.schema));
        }
        if old.tape != self.reading.common.tape {
            return other(format!("of another tape ({})", old.tape));
        }
        if old.selection != self.selection {
            return other(format!("of another selection ({}), this is ({})", old.selection.shown(), self.selection.shown()));
        }
        for (name, state) in &old.sources {
            let now = self.reading.rows.iter().find(|row| row.name == *name).map_or(0, |row| row.last_n);
            if now < state.last_n {
                return other(format!("of record {} of {name}, and this tape ends at {now}", state.last_n));
            }
        }
        Ok(Some(old))
    }

    fn run(&self, old: Option<Manifest>) -> Result<Report, ExportError> {
        let number_of = |name: &str| self.reading.rows.iter().position(|row| row.name == name).map(|at| at as u32);
        let runs = Runs::new(self.store.scratch()?);
        let mut report = Report { damage: old.as_ref().map_or_else(Vec::new, |old| old.damage.clone()), ..Report::default() };
        let exported = |source: u32| {
            let name = &self.reading.common.sources[source as usize];
            old.as_ref().and_then(|old| old.sources.get(name)).map_or(0, |state| state.last_n)
        };

        let fresh = self.reading.fresh(&exported, &mut report.damage)?;
        let mut gathered = self.reading.gather(fresh, None, &runs, &mut report.damage)?;

        let mut days = old.as_ref().map(|old| old.days(number_of)).unwrap_or_default();
        let mut files = old.as_ref().map(|old| old.files.clone()).unwrap_or_default();
        if let Some(old) = &old {
            let touched = self.touched(old, &runs, &days)?;
            let again = self.again(&touched, &days, &exported)?;
            let more = self.reading.gather(again, Some(&touched), &runs, &mut report.damage)?;
            // What was wrong with them was told when they were new.
            gathered.merge(Gathered { sightings: more.sightings, ..Gathered::default() });
        }
        for (day, granules) in std::mem::take(&mut gathered.days) {
            days.entry(day).or_default().extend(granules);
        }

        let written = self.write(&runs, &mut files)?;
        report.spilled_bytes = runs.spilled_bytes();
        for table in self.reading.tables.iter().copied() {
            let of_table = || written.iter().filter(|(part, _)| part.table == table).map(|(_, file)| file);
            let rows = of_table().map(|file| file.tally.rows).sum();
            let merged = of_table().map(|file| file.tally.merged).sum();
            let mut sum = self.reading.tally(table, &gathered, Tally { rows, merged })?;
            (sum.files, sum.bytes) = (of_table().count() as u64, of_table().map(|file| file.bytes).sum());
            report.n_written += sum.files;
            report.tables.insert(table, sum);
        }
        (report.n_records, report.n_unplaced, report.n_problems) = (gathered.records, gathered.n_unplaced, gathered.n_problems);
        report.drift = gathered.drift;
        if self.reading.wanted.tables[Table::Coverage as usize] {
            self.coverage(&mut files, &mut report)?;
        }

        report.damage.sort_unstable();
        report.damage.dedup();
        let manifest = self.manifest(&days, files, &report.damage);
        report.n_kept = manifest.files.len() as u64 - report.n_written;
        for (name, file) in &manifest.files {
            let table = name.split('/').next().and_then(|table| table.parse().ok());
            if let Some(table) = table.and_then(|table| report.tables.get_mut(&table)) {
                table.total_rows += file.rows;
            }
        }
        if old.as_ref() != Some(&manifest) {
            self.sweep(&manifest)?;
            store::put_bytes(self.store, MANIFEST, &manifest.to_json())?;
        }
        Ok(report)
    }

    /// Partitions that have to be made again: those with something new, those of a segment that has got its digest since,
    /// and those whose file is gone.
    fn touched(&self, old: &Manifest, runs: &Runs, days: &Days) -> Result<HashSet<Part>, ExportError> {
        let mut touched: HashSet<Part> = runs.parts().into_iter().collect();
        let there: BTreeMap<String, u64> = self.store.list()?.into_iter().collect();
        let gone = old.files.iter().filter(|(name, file)| there.get(*name) != Some(&file.bytes));
        touched.extend(gone.filter_map(|(name, _)| Part::of_file(name)));
        let known: Vec<Part> = old.files.keys().filter_map(|name| Part::of_file(name)).collect();
        for (number, name) in self.reading.common.sources.iter().enumerate() {
            let open_from = old.sources.get(name).and_then(|state| state.open_from);
            let segments = &self.reading.common.segments[number];
            let sealed = segments.iter().find(|segment| Some(segment.first_n) == open_from && segment.sha256.is_some());
            let Some(sealed) = sealed else { continue };
            let granules = (sealed.first_n / sight::GRANULE)..=(sealed.last_n / sight::GRANULE);
            let number = number as u32;
            let has =
                |set: &BTreeSet<(u32, u64)>| set.range((number, *granules.start())..=(number, *granules.end())).next().is_some();
            let dates: HashSet<i64> = days.iter().filter(|(_, set)| has(set)).map(|(day, _)| *day).collect();
            touched.extend(known.iter().filter(|part| dates.contains(&part.day)));
        }
        Ok(touched)
    }

    /// What was exported before and has to be read again for these partitions.
    fn again(&self, touched: &HashSet<Part>, days: &Days, exported: &dyn Fn(u32) -> u64) -> Result<Vec<Task<'_>>, ExportError> {
        let dates: HashSet<i64> = touched.iter().map(|part| part.day).collect();
        let mut again = Vec::new();
        for &(source, provider) in &self.reading.sources {
            let to_n = exported(source);
            let of_days = days.iter().filter(|(day, _)| dates.contains(*day));
            let granules: BTreeSet<u64> =
                of_days.flat_map(|(_, set)| set.range((source, 0)..=(source, u64::MAX)).map(|(_, granule)| *granule)).collect();
            let Some(first) = granules.first().filter(|_| to_n > 0) else { continue };
            let name = &self.reading.common.sources[source as usize];
            // Merged anew without them, the files would lose rows.
            let pruned = self.reading.tape.catalog().pruned_until(name).map_err(ArchiveError::from)?;
            if let Some((last_n, _)) = pruned.filter(|(last_n, _)| manifest::numbers((*first, *first)).0 <= *last_n) {
                return Err(ExportError::Pruned { source_name: name.clone(), last_n });
            }
            let from_n = manifest::numbers((*first, *first)).0.max(1);
            for piece in self.reading.tape.pieces(name, Seq(from_n))?.pieces {
                let has = granules.range(piece.first_n.0 / sight::GRANULE..=piece.last_n.0 / sight::GRANULE).next().is_some();
                if has && piece.first_n.0 <= to_n {
                    again.push(Task { source, name, provider, piece, from_n, to_n });
                }
            }
        }
        Ok(again)
    }

    /// Writes every partition that the spool has something of.
    fn write(&self, runs: &Runs, files: &mut BTreeMap<String, FileState>) -> Result<Vec<(Part, Written)>, ExportError> {
        let (parts, tell, store, common) = (runs.parts(), self.reading.tell, self.store, &self.reading.common);
        tell(Progress::ToWrite(parts.len() as u64));
        if parts.is_empty() {
            return Ok(Vec::new());
        }
        let free = self.reading.options.memory.saturating_sub(OUR_OWN);
        let cores = self.reading.options.threads;
        let threads = cores.min(free / part::memory_of(Table::Events)).clamp(1, parts.len());
        let fan_in = part::MERGE_BYTES / spool::CURSOR_BYTES;
        let scratch = store.scratch()?;
        let (turns, done) = (Turns::new(parts, free), Mutex::new(Vec::new()));
        let stop = AtomicBool::new(false);
        on_threads(threads, &stop, || {
            let lane = turns.lane();
            while let Some(turn) = turns.next(lane).filter(|_| !stop.load(Ordering::Relaxed)) {
                let part = turn.part;
                let path = scratch.join(format!("{}-{}.parquet", part.table.name(), manifest::date_of(part.day)));
                let merge = runs.merge(part, fan_in).map_err(|source| cannot_spool(&scratch.display().to_string(), source))?;
                let written = part::write(&path, part, merge, common, turns.helpers(part.table, cores))?;
                store.put(&part.file(), &path)?;
                done.lock().unwrap_or_else(PoisonError::into_inner).push((part, written));
                tell(Progress::Wrote);
            }
            Ok(())
        })?;
        let done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        for (part, written) in &done {
            files.insert(part.file(), FileState::of(written));
        }
        Ok(done)
    }

    fn coverage(&self, files: &mut BTreeMap<String, FileState>, report: &mut Report) -> Result<(), ExportError> {
        let path = self.store.scratch()?.join("coverage.parquet");
        let mut file = ParquetFile::create(&path, Table::Coverage, Table::Coverage.sorted_by(), 0)?;
        let mut rows = Rows::new(Table::Coverage, &mut file);
        let Reading { tape, options, .. } = self.reading;
        let facts = coverage::fill(&mut rows, tape, &self.reading.names(), options)?;
        let tally = Tally { rows: rows.finish()?, merged: 0 };
        let written = file.finish(tally, facts)?;
        let state = FileState::of(&written);
        let is_there = self.store.list()?.iter().any(|(name, bytes)| name == coverage::FILE && *bytes == state.bytes);
        if is_there && files.get(coverage::FILE) == Some(&state) {
            return Ok(());
        }
        self.store.put(coverage::FILE, &path)?;
        let table = report.tables.entry(Table::Coverage).or_default();
        (table.sightings, table.rows, table.files, table.bytes) = (tally.rows, tally.rows, 1, written.bytes);
        report.n_written += 1;
        files.insert(coverage::FILE.to_owned(), state);
        Ok(())
    }

    fn manifest(&self, days: &Days, files: BTreeMap<String, FileState>, damage: &[String]) -> Manifest {
        let sources = self.reading.sources.iter().map(|&(source, _)| {
            let row = &self.reading.rows[source as usize];
            let open = self.reading.common.segments[source as usize].iter().find(|segment| segment.sha256.is_none());
            let state = SourceState {
                last_n: row.last_n,
                open_from: open.map(|segment| segment.first_n),
                days: manifest::days_of(days, source),
            };
            (row.name.clone(), state)
        });
        Manifest {
            schema: SCHEMA,
            birdtape: env!("CARGO_PKG_VERSION").to_owned(),
            tape: self.reading.common.tape.clone(),
            selection: self.selection.clone(),
            sources: sources.collect(),
            files,
            damage: damage.to_vec(),
        }
    }

    /// Removes files of ours that are of no export any more: of one that was killed, or that this one replaces.
    fn sweep(&self, manifest: &Manifest) -> Result<(), ExportError> {
        for (name, _) in self.store.list()? {
            let is_ours = name == coverage::FILE || Part::of_file(&name).is_some();
            if is_ours && !manifest.files.contains_key(&name) {
                self.store.delete(&name)?;
            }
        }
        Ok(())
    }
}

impl Gathered {
    fn merge(&mut self, other: Self) {
        self.sightings.iter_mut().zip(other.sightings).for_each(|(sum, more)| *sum += more);
        self.n_unplaced += other.n_unplaced;
        self.n_problems += other.n_problems;
        self.records += other.records;
        for (day, granules) in other.days {
            self.days.entry(day).or_default().extend(granules);
        }
        self.drift.merge(other.drift);
    }
}

impl FileState {
    fn of(written: &Written) -> Self {
        Self { rows: written.tally.rows, bytes: written.bytes, sha256: written.sha256.clone() }
    }
}

/// What the program takes beside the work: its own pages, and what allocators keep for later.
const OUR_OWN: usize = 32 << 20;

/// Who writes which partition when: no more at once than memory allows, but always one.
///
/// Posts take most, and a thread's allocator keeps for later what it once had: only as many threads write them as there may
/// be at once.
struct Turns {
    state: Mutex<Waiting>,
    n_for_posts: usize,
    ended: Condvar,
}

struct Waiting {
    parts: VecDeque<Part>,
    free: usize,
    running: usize,
    lanes: usize,
}

/// The right to write a partition.
struct Turn<'a> {
    part: Part,
    room: usize,
    turns: &'a Turns,
}

impl Turns {
    fn new(parts: Vec<Part>, free: usize) -> Self {
        let state = Mutex::new(Waiting { parts: parts.into(), free, running: 0, lanes: 0 });
        Self { state, n_for_posts: (free / part::memory_of(Table::Tweets)).max(1), ended: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, Waiting> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many threads beside its own may write a partition: as many as would have nothing to do.
    fn helpers(&self, table: Table, cores: usize) -> usize {
        let state = self.state();
        let busy = state.running + state.parts.len().min(cores);
        let lanes = if table == Table::Tweets { busy.min(self.n_for_posts) } else { busy };
        cores.div_ceil(lanes.max(1)) - 1
    }

    /// A number for a thread, from 0.
    fn lane(&self) -> usize {
        let mut state = self.state();
        state.lanes += 1;
        state.lanes - 1
    }

    /// Waits for a partition that there is room for; `None` when all that the thread may write are given away.
    fn next(&self, lane: usize) -> Option<Turn<'_>> {
        let mut state = self.state();
        let may = |part: &Part| lane < self.n_for_posts || part.table != Table::Tweets;
        loop {
            let has_room = |part: &Part| state.running == 0 || part::memory_of(part.table) <= state.free;
            let fits = |part: &Part| may(part) && has_room(part);
            if let Some(part) = state.parts.iter().position(fits).and_then(|at| state.parts.remove(at)) {
                state.running += 1;
                let room = part::memory_of(part.table).min(state.free);
                state.free -= room;
                return Some(Turn { part, room, turns: self });
            }
            if !state.parts.iter().any(may) {
                return None;
            }
            state = self.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = self.turns.state();
        state.running -= 1;
        state.free += self.room;
        drop(state);
        self.turns.ended.notify_all();
    }
}

fn cannot_spool(place: &str, source: std::io::Error) -> ExportError {
    ExportError::Io { what: "cannot write temporary files in", path: place.to_owned(), source }
}

fn next<T>(queue: &Mutex<VecDeque<T>>) -> Option<T> {
    queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
}

/// Runs the same work on several threads; the first that fails stops the others.
fn on_threads<T: Send>(
    threads: usize,
    stop: &AtomicBool,
    work: impl Fn() -> Result<T, ExportError> + Sync,
) -> Result<Vec<T>, ExportError> {
    std::thread::scope(|scope| {
        let run = || {
            let done = work();
            if done.is_err() {
                stop.store(true, Ordering::Relaxed);
            }
            done
        };
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(run)).collect();
        let mine = run();
        let join =
            |other: std::thread::ScopedJoinHandle<'_, _>| other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let all: Vec<_> = std::iter::once(mine).chain(others.into_iter().map(join)).collect();
        all.into_iter().collect()
    })
}
