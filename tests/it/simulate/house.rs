//! What an operator does while no recorder is there: compacting, pruning, exporting. Each may be cut off, and is then done again.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use birdtape::archive::{self, Disk, MemDisk, Packing, Tape};
use birdtape::export::text::{self, Form, Place};
use birdtape::export::{self, ExtraFields, LocalStore, Table as Sheet};
use birdtape::net::Clock;
use birdtape::upkeep::{self, CompactOptions, PACKING, PruneOptions};

use super::oracle::Seen;
use super::stage::marks;
use super::table::Table;
use super::world::Chore;

/// The archive as these worlds write it, and where.
pub(super) struct House<'a> {
    pub(super) dir: &'a Path,
    pub(super) disk: &'a MemDisk,
    pub(super) clock: &'a dyn Clock,
    pub(super) archive: archive::Options,
}

impl House<'_> {
    /// Does it; what the archive says when it cannot.
    pub(super) fn run(&self, chore: Chore, table: &mut Table) -> Result<(), String> {
        match chore {
            Chore::Compact => self.compact(table),
            Chore::Prune { older_than } => self.prune(Some(older_than), None, table),
            Chore::PruneTo { bytes } => self.prune(None, Some(bytes), table),
            Chore::Export => self.export(table),
        }
    }

    fn disk(&self) -> Arc<dyn Disk> {
        Arc::new(self.disk.clone())
    }

    fn compact(&self, table: &mut Table) -> Result<(), String> {
        let options = CompactOptions {
            tape: self.dir.to_owned(),
            archive: self.archive.clone(),
            sources: Vec::new(),
            older_than: None,
            again: false,
            packing: Packing { level: 3, block_bytes: 64 << 10, ..PACKING },
            holder: "the simulator".to_owned(),
        };
        let outcome = upkeep::compact(&options, self.clock, &self.disk(), &mut |_| {}, &|| false);
        let outcome = outcome.map_err(|error| error.to_string())?;
        if outcome.damaged > 0 {
            return Err(format!("{} segments are damaged", outcome.damaged));
        }
        table.add("compact: segments smaller", outcome.smaller);
        Ok(())
    }

    fn prune(&self, older_than: Option<Duration>, max_bytes: Option<u64>, table: &mut Table) -> Result<(), String> {
        let options = PruneOptions {
            tape: self.dir.to_owned(),
            archive: self.archive.clone(),
            sources: Vec::new(),
            older_than,
            max_bytes,
            why: "as the world wants it".to_owned(),
            holder: "the simulator".to_owned(),
        };
        let pruned = upkeep::prune(&options, self.clock, &self.disk(), &mut |_| {}).map_err(|error| error.to_string())?;
        table.add("prune: segments removed", pruned.iter().map(|pruned| pruned.segments).sum());
        Ok(())
    }

    /// Exports into a new place: each envelope has a row, and each post of a frame or a page stands in some table.
    fn export(&self, table: &mut Table) -> Result<(), String> {
        let tape = Tape::open(self.dir, self.disk()).map_err(|error| error.to_string())?;
        let seen = Seen::of(&tape);
        let place = tempfile::tempdir_in(self.dir.parent().unwrap_or(self.dir)).map_err(|error| error.to_string())?;
        let (store, wanted) = (LocalStore::new(place.path()), wanted(vec![Sheet::Envelopes]));
        let report = export::run(&tape, &store, &wanted, "the simulator", &|_| {}).map_err(|error| error.to_string())?;
        let n_rows: u64 = report.tables.values().map(|told| told.total_rows).sum();
        if n_rows != seen.n_envelopes() {
            return Err(format!("{n_rows} envelopes of {} were exported", seen.n_envelopes()));
        }
        let mut text = Vec::new();
        let sheets = Sheet::ALL.into_iter().filter(|sheet| !matches!(sheet, Sheet::Envelopes | Sheet::Coverage)).collect();
        text::run(&tape, Place::Stream(&mut text), Form::Jsonl, &self::wanted(sheets), &|_| {})
            .map_err(|error| error.to_string())?;
        // What is said of a post beside it has no column, and of those fields the row has one version's.
        let is_post = |mark: &String| mark.starts_with('q');
        let told: HashSet<_> = marks(&String::from_utf8_lossy(&text)).into_iter().filter(is_post).collect();
        let whole: HashSet<_> = seen.whole_marks().iter().filter(|mark| is_post(mark)).cloned().collect();
        table.add("export: posts", told.len() as u64);
        if told != whole {
            let lacks: Vec<_> = whole.symmetric_difference(&told).take(3).collect();
            return Err(format!("{} posts of {} were exported: {lacks:?}", told.len(), whole.len()));
        }
        Ok(())
    }
}

fn wanted(tables: Vec<Sheet>) -> export::Options {
    export::Options {
        tables,
        from: None,
        to: None,
        sources: Vec::new(),
        memory: 64 << 20,
        threads: 1,
        extra: ExtraFields::All,
        replace: false,
        stop: Arc::new(AtomicBool::new(false)),
    }
}
