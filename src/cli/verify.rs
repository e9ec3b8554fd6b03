//! `birdtape verify`: the proof.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use serde_json::{Value, json};

use super::args::{self, Common};
use super::exit::{Exit, Outcome};
use super::out::{self, Out, count, say, stamp, table};
use crate::archive::{self, CatalogCheck, Disk, Report};
use crate::provider;
use crate::segment::RealDisk;
use crate::upkeep::Paced;

/// Prove every byte of a tape
///
/// Checks every block against its checksum, every commit line against the bytes before it, sequence numbers for holes, each
/// envelope for readability, the seek tables, and the catalog row by row against one made again from the segments. Changes
/// nothing. Exit code 0, or 3 with a list of what is damaged.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  birdtape verify
  birdtape verify --pace 20MB/s
  birdtape --tape /mnt/copy verify --json | jq .ok")]
pub(super) struct Args {
    /// Bytes of files read in a second at most, where others need the disk: 500KB/s, 20MB/s, or max
    #[arg(long, value_name = "RATE", value_parser = args::rate, default_value = "max")]
    pace: u64,
}

pub(super) fn run(common: &Common, args: &Args) -> Outcome {
    let dir = common.tape_dir()?;
    let report = prove_on(&dir, &Paced::new(Arc::new(RealDisk), args.pace))?;
    let mut out = Out::new();
    if common.json {
        out.json(&to_json(&report))?;
    } else {
        print(&mut out, &dir, &report)?;
    }
    out.flush()?;
    Ok(if report.is_whole() { Exit::Done } else { Exit::KnownLoss })
}

/// Verifies with a bar on stderr.
pub(super) fn prove(dir: &Path) -> Result<Report> {
    prove_on(dir, &RealDisk)
}

fn prove_on(dir: &Path, disk: &dyn Disk) -> Result<Report> {
    let bar = out::progress(Some(segment_bytes(dir)), "verifying");
    let report = archive::verify(dir, disk, provider::decode_record, |bytes| bar.set_position(bytes))?;
    bar.finish_and_clear();
    Ok(report)
}

/// What lies in the tape's segments, for the bar: best effort.
fn segment_bytes(dir: &Path) -> u64 {
    let list = |path: &Path| std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    let files = list(&dir.join("segments")).flat_map(|source| list(&source).collect::<Vec<_>>());
    let files = files.flat_map(|day| list(&day).collect::<Vec<_>>());
    files.filter_map(|file| file.metadata().ok()).map(|meta| meta.len()).sum()
}

fn print(out: &mut Out, dir: &Path, report: &Report) -> Result<()> {
    let rows = report.sources.iter().map(|s| {
        let open = if s.open_segments > 0 { format!(" ({} open)", s.open_segments) } else { String::new() };
        let segments = format!("{}{open}", s.segments);
        let numbers = [s.records.to_string(), s.envelopes.to_string(), segments, out::size(s.bytes)];
        [vec![s.name.clone(), s.provider.clone()], numbers.to_vec()].concat()
    });
    out.lines(&table(&["source", "provider", "records", "envelopes", "segments", "on disk"], rows))?;
    for (source, pruned) in report.sources.iter().filter_map(|source| Some((source, source.pruned.as_ref()?))) {
        let (segments, records) = (count(pruned.segments, "segment"), count(pruned.records, "record"));
        let until = stamp(pruned.until);
        let what = format!("{segments} with {records} up to number {}, received until {until}", pruned.last_n);
        out.line(&format!("pruned on purpose: {}, {what}", source.name))?;
    }
    let catalog = match &report.catalog {
        CatalogCheck::Equal(rows) => format!("equal to the segments, {}", count(*rows as u64, "row")),
        CatalogCheck::Differs => "differs from the segments".to_owned(),
        CatalogCheck::Skipped(why) => format!("not compared: {why}"),
    };
    out.line(&format!("catalog: {catalog}"))?;
    for damage in &report.damage {
        let source = damage.source.as_ref().map(|name| format!("{name}, ")).unwrap_or_default();
        let known = if damage.known { " (in the ledger)" } else { "" };
        out.line(&format!("damage: {source}{}: {}{known}", damage.place, damage.what))?;
    }
    if report.is_whole() {
        out.line(&format!("whole: {}", dir.display()))?;
    } else {
        out.line(&format!("{} in {}", count(report.damage.len() as u64, "damaged place"), dir.display()))?;
        if report.damage.iter().any(|damage| !damage.known) {
            say("hint: `birdtape recover` mends what can be mended, `birdtape rebuild` makes the catalog again");
        }
    }
    Ok(())
}

pub(super) fn to_json(report: &Report) -> Value {
    let sources = report.sources.iter().map(|s| {
        json!({
            "source": s.name, "provider": s.provider, "records": s.records, "envelopes": s.envelopes, "last_n": s.last_n,
            "segments": s.segments, "open_segments": s.open_segments, "bytes": s.bytes, "raw_bytes": s.raw_bytes,
            "pruned": s.pruned.as_ref().map(|p| json!({
                "segments": p.segments, "last_n": p.last_n, "records": p.records, "bytes": p.bytes, "until": p.until.to_string(),
            })),
        })
    });
    let damage = report.damage.iter();
    let damage = damage.map(|d| json!({ "source": d.source, "place": d.place, "what": d.what, "known": d.known }));
    let (catalog, rows, why) = match &report.catalog {
        CatalogCheck::Equal(rows) => ("equal", Some(rows), None),
        CatalogCheck::Differs => ("differs", None, None),
        CatalogCheck::Skipped(why) => ("skipped", None, Some(why)),
    };
    json!({
        "ok": report.is_whole(),
        "sources": sources.collect::<Vec<_>>(),
        "damage": damage.collect::<Vec<_>>(),
        "catalog": catalog,
        "catalog_rows": rows,
        "catalog_skipped": why,
    })
}
