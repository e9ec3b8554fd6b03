//! `birdtape rebuild`: the catalog again, from the segments alone.

use std::sync::Arc;

use serde_json::json;

use super::args::{self, Common};
use super::exit::{Exit, Outcome};
use super::out::{Out, count};
use super::verify;
use crate::archive::{self, CatalogCheck};
use crate::provider;
use crate::segment::RealDisk;

/// Make the catalog again from the segments
///
/// The segments are the truth, the catalog is an index: it can be deleted at any time and comes back equal. Then the tape is
/// verified; the exit code is that of `birdtape verify`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  birdtape rebuild
  rm tape/catalog.sqlite && birdtape rebuild")]
pub(super) struct Args {}

pub(super) fn run(common: &Common, _: &Args) -> Outcome {
    let dir = common.tape_dir()?;
    let (options, holder) = (archive::Options::default(), args::holder("rebuild"));
    let (recovery, n_records) =
        archive::rebuild(&dir, Arc::new(RealDisk), options, provider::decode_record, &holder, args::now())?;
    let report = verify::prove(&dir)?;
    let mut out = Out::new();
    if common.json {
        out.json(&json!({ "records": n_records, "lost": recovery.holes.len(), "verify": verify::to_json(&report) }))?;
    } else {
        let catalog = match &report.catalog {
            CatalogCheck::Equal(rows) => format!("equal to the segments, {}", count(*rows as u64, "row")),
            CatalogCheck::Differs => "differs from the segments".to_owned(),
            CatalogCheck::Skipped(why) => format!("not compared: {why}"),
        };
        out.line(&format!("indexed {}; catalog: {catalog}", count(n_records, "record")))?;
        for hole in &recovery.holes {
            out.line(&format!("lost {} records {} to {}: {}", hole.source, hole.first_n, hole.last_n, hole.why))?;
        }
        if !report.is_whole() {
            let n = count(report.damage.len() as u64, "damaged place");
            out.line(&format!("{n} in the tape; `birdtape verify` lists them"))?;
        }
    }
    out.flush()?;
    Ok(if report.is_whole() && recovery.holes.is_empty() { Exit::Done } else { Exit::KnownLoss })
}
