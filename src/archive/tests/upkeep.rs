//! Compacting, pruning, looking for damage and bringing records back, on a disk that forgets, refuses and crashes.

use std::num::NonZeroUsize;
use std::ops::ControlFlow;

use super::*;
use crate::segment::Packing;

const WAYS: [Unsynced; 4] = [Unsynced::Lost, Unsynced::Kept, Unsynced::Torn, Unsynced::Removed];

fn packing() -> Packing {
    Packing { level: 9, block_bytes: 8_192, threads: NonZeroUsize::new(2).unwrap() }
}

/// Two lives of a recorder, closed in good order.
fn lived() -> Bench {
    let mut bench = Bench::new();
    bench.live().unwrap();
    bench.live().unwrap();
    bench.check("two lives");
    bench
}

/// One life: enough where many tapes are made.
fn lived_once() -> Bench {
    let mut bench = Bench::new();
    bench.live().unwrap();
    bench.announced = bench.sent.clone();
    bench
}

fn compact_all(bench: &Bench) -> Result<(u64, u64)> {
    let mut archive = Archive::open(&bench.path(), Arc::new(bench.disk.clone()), options(), decode_record, "test", at(30_000))?;
    let mut sizes = (0, 0);
    for name in [alpha(), beta()] {
        for row in archive.catalog.segments(name.as_str())? {
            if let Compacted::Smaller { before, after } =
                archive.compact(&name, &row, packing(), at(30_001), &mut |_| ControlFlow::Continue(()))?
            {
                sizes = (sizes.0 + before, sizes.1 + after);
            }
        }
    }
    archive.close(at(30_002))?;
    Ok(sizes)
}

/// What each sealed segment unpacks to, by its path.
fn contents(disk: &MemDisk) -> BTreeMap<PathBuf, Vec<u8>> {
    let sealed = disk.files().into_iter().filter(|(path, _)| path.extension().is_some_and(|e| e == "zst"));
    sealed
        .filter(|(path, _)| !path.ends_with("pruned.jsonl.zst"))
        .map(|(path, data)| (path, zstd::decode_all(&data[..]).unwrap()))
        .collect()
}

/// Paths of segments that are gone or unpack to something else.
fn changed(before: &BTreeMap<PathBuf, Vec<u8>>, bench: &Bench) -> Vec<PathBuf> {
    let after = contents(&bench.disk);
    before.iter().filter(|(path, content)| after.get(*path) != Some(*content)).map(|(path, _)| path.clone()).collect()
}

fn whole(bench: &Bench, what: &str) -> Report {
    let report = verify(&bench.path(), &bench.disk, decode_record, |_| {}).unwrap();
    assert!(report.is_whole(), "{what}: {report:?}");
    report
}

/// Equal to the segments, and to a catalog that is made of them alone.
fn rebuilds_equal(bench: &Bench, what: &str) {
    let report = whole(bench, what);
    assert!(matches!(report.catalog, CatalogCheck::Equal(_)), "{what}: {:?}", report.catalog);
    let before = dump(&bench.path());
    rebuild(&bench.path(), Arc::new(bench.disk.clone()), options(), decode_record, "test", at(40_000)).unwrap();
    assert_eq!(before, dump(&bench.path()), "{what}");
}

#[test]
fn compacting_keeps_every_byte_and_the_digest_of_the_content() {
    let mut bench = lived();
    let (before, digests) = (contents(&bench.disk), rows(&bench, &alpha()));
    let (was, is) = compact_all(&bench).unwrap();
    assert!(is < was, "{was} bytes became {is}");
    assert_eq!(changed(&before, &bench), [""; 0].map(PathBuf::from));
    for row in &digests {
        let now = rows(&bench, &alpha()).into_iter().find(|now| now.first_n == row.first_n).unwrap();
        assert_eq!(now.content, row.content);
        let sealed = bench.disk.files().into_iter().find(|(path, _)| path.ends_with(format!("{:020}.jsonl.zst", row.first_n)));
        let sum = crate::segment::sha256_of(&bench.disk, &sealed.unwrap().0).unwrap();
        assert_eq!((now.sha256 == row.sha256, &now.sha256), (now.bytes == row.bytes, &sum));
    }
    bench.check("compacted");
    rebuilds_equal(&bench, "compacted");
    assert!(bench.tape().is_compact(&digests[0]).unwrap());
    bench.live().unwrap();
    bench.check("recording goes on");
}

#[test]
fn compacting_that_is_stopped_leaves_the_tape_as_it_was() {
    let bench = lived();
    let before = bench.disk.files();
    let mut archive = bench.open().unwrap();
    let row = archive.catalog.segments("alpha").unwrap()[0].clone();
    let stopped = archive.compact(&alpha(), &row, packing(), at(30_000), &mut |_| ControlFlow::Break(())).unwrap();
    assert_eq!(stopped, Compacted::Stopped);
    archive.close(at(30_001)).unwrap();
    assert!(bench.disk.files() == before, "nothing is left behind");
}

/// At every named point, in each way a disk can forget: the file of before or the new one, and the same content.
#[test]
fn a_crash_while_compacting_leaves_old_or_new() {
    let probe = lived_once();
    let begun = probe.disk.points().len();
    compact_all(&probe).unwrap();
    let points = probe.disk.points()[begun..].to_vec();
    assert!(points.contains(&"compacted verified, not in place") && points.contains(&"in place, name not durable"));
    let mut seen = std::collections::BTreeSet::new();
    for (point, name) in points.iter().enumerate() {
        // Each point of the first segments, then those that are new.
        if point > 8 && !seen.insert(*name) {
            continue;
        }
        seen.insert(*name);
        for unsynced in WAYS {
            let what = format!("{name} ({point}, {unsynced:?})");
            let mut bench = lived_once();
            let before = contents(&bench.disk);
            bench.disk.crash_at(point);
            assert!(compact_all(&bench).is_err() && bench.disk.is_down(), "{what}: the point was reached");
            bench.disk.restart(unsynced);
            whole(&bench, &format!("{what}, before anybody mended it"));
            bench.disk.crash_at(point % 3);
            drop(bench.open());
            bench.disk.restart(unsynced);
            bench.open().unwrap_or_else(|e| panic!("{what}: {e}")).close(at(35_000)).unwrap();
            bench.check(&what);
            assert_eq!(changed(&before, &bench), [""; 0].map(PathBuf::from), "{what}");
            rebuilds_equal(&bench, &what);
        }
    }
}

#[test]
fn a_failed_write_while_compacting_loses_nothing() {
    let probe = lived_once();
    let begun = probe.disk.ops();
    compact_all(&probe).unwrap();
    let ops = probe.disk.ops() - begun;
    for op in (1..ops).filter(|op| *op < 16 || op % 13 == 0) {
        let mut bench = lived_once();
        let before = contents(&bench.disk);
        bench.disk.fail_at(op, std::io::ErrorKind::StorageFull, op % 2 == 0);
        let ended = compact_all(&bench);
        bench.disk.restart(Unsynced::Lost);
        let what = format!("operation {op} of {ops}, {ended:?}");
        bench.open().unwrap_or_else(|e| panic!("{what}: {e}")).close(at(35_000)).unwrap();
        bench.check(&what);
        assert_eq!(changed(&before, &bench), [""; 0].map(PathBuf::from), "{what}");
    }
}

#[test]
fn a_damaged_segment_is_not_compacted() {
    let bench = lived();
    let row = rows(&bench, &alpha())[0].clone();
    // A single bit may be one that the format does not use.
    [0.4, 0.5, 0.6].into_iter().for_each(|place| bend(&bench, &row, place));
    let mut archive = bench.open().unwrap();
    let refused = archive.compact(&alpha(), &row, packing(), at(30_000), &mut |_| ControlFlow::Continue(())).unwrap_err();
    assert!(matches!(refused, ArchiveError::Segment(SegmentError::Damaged { .. })), "{refused:?}");
}

// Pruning.

fn prune(bench: &Bench, name: &SourceName, last_n: u64) -> Result<Option<Pruned>> {
    let mut archive = Archive::open(&bench.path(), Arc::new(bench.disk.clone()), options(), decode_record, "test", at(30_000))?;
    let pruned = archive.prune(name, Seq(last_n), "--older-than 1d", decode_record, at(30_001), &mut |_| {})?;
    archive.close(at(30_002))?;
    Ok(pruned)
}

/// The catalog without what pruning is meant to change: segments and blocks of what was removed, and the notes about it.
fn facts(path: &Path) -> Vec<String> {
    let keep =
        |table: &str| ["scope: ", "connection: ", "last_seen: ", "gap_kind: ", "audit: "].iter().any(|t| table.starts_with(t));
    dump(path).into_iter().filter(|row| keep(row)).collect()
}

#[test]
fn what_was_pruned_is_told_and_rebuilds_equal() {
    let mut bench = lived();
    let (all, before) = (rows(&bench, &alpha()), facts(&bench.path()));
    let half = all.len() / 2;
    let (gone, cut) = (&all[..half], all[half - 1].last_n);
    let frames_before = bench.frames(&alpha());
    let pruned = prune(&bench, &alpha(), cut + 3).unwrap().unwrap();
    assert_eq!((pruned.first_n, pruned.last_n, pruned.segments), (Seq(1), Seq(cut), half as u64), "whole segments only");
    assert_eq!(pruned.records, cut);
    let tape = bench.tape();
    let kept = bench.frames(&alpha());
    assert_eq!(pruned.envelopes as usize + kept.len(), frames_before.len());
    assert!(kept[..] == frames_before[pruned.envelopes as usize..], "what is left is what was there");
    assert_eq!(facts(&bench.path()), before, "gaps, scopes and connections are what they were");
    let names: Vec<_> = bench.disk.files().into_iter().map(|(path, _)| path).collect();
    assert!(gone.iter().all(|row| !names.contains(&tape.layout().sealed("alpha", &row.day, Seq(row.first_n)))));
    assert_eq!(tape.pieces("alpha", Seq(1)).unwrap().holes, [], "no hole");
    let told: Vec<_> = tape.catalog().pruned("alpha").unwrap().into_iter().map(|row| (row.first_n, row.content)).collect();
    assert_eq!(told, gone.iter().map(|row| (row.first_n, row.content.clone())).collect::<Vec<_>>());
    let report = whole(&bench, "pruned");
    let of_alpha = report.sources.iter().find(|source| source.name == "alpha").unwrap().pruned.clone().unwrap();
    assert_eq!((of_alpha.segments, of_alpha.last_n, of_alpha.records), (half as u64, cut, cut));

    let certificate = Certificate::of(&tape, "alpha", at(0), at(100_000)).unwrap();
    assert!(!certificate.is_whole());
    let words = certificate.in_words();
    assert!(words.contains(" pruned"), "{words}");
    let json: serde_json::Value = serde_json::from_str(&certificate.to_json()).unwrap();
    assert_eq!(json["segments"][0]["state"], "pruned");
    assert_eq!(json["segments"][0]["content"], gone[0].content.as_str());
    drop(tape);
    rebuilds_equal(&bench, "pruned");

    // Again, on top of what is told already; then all of it, and numbers go on.
    bench.sent.clear();
    bench.announced.clear();
    let next = rows(&bench, &alpha())[0].last_n;
    assert_eq!(prune(&bench, &alpha(), next).unwrap().unwrap().first_n, Seq(cut + 1));
    rebuilds_equal(&bench, "pruned twice");
    let last_n = bench.tape().source("alpha").unwrap().last_n;
    prune(&bench, &alpha(), u64::MAX).unwrap().unwrap();
    rebuilds_equal(&bench, "pruned to the end");
    assert_eq!(prune(&bench, &SourceName::new("nobody").unwrap(), u64::MAX).unwrap(), None);
    let gaps = bench.tape().catalog().gaps(Some("alpha")).unwrap();
    assert!(gaps.iter().filter(|gap| gap.to_us.is_some()).all(|gap| gap.state == "pruned"), "{gaps:?}");
    let mut archive = bench.open().unwrap();
    assert!(archive.last_n(&alpha()).0 > last_n, "the notes about it have numbers of their own");
    let again = frame(1, 40_000);
    let Body::Bytes(bytes) = &again.body else { unreachable!() };
    archive.append(&alpha(), &again, Some(&decode(Provider::TwitterapiIo, bytes))).unwrap();
    archive.close(at(40_001)).unwrap();
    rebuilds_equal(&bench, "recorded on top of it");
}

#[test]
fn a_crash_while_pruning_leaves_a_tape_that_opens() {
    let probe = lived_once();
    let all = rows(&probe, &alpha());
    let cut = all[all.len() / 2].last_n;
    let begun = probe.disk.points().len();
    prune(&probe, &alpha(), cut).unwrap();
    let points = probe.disk.points()[begun..].to_vec();
    assert!(points.contains(&"remains in place, ledger behind") && points.contains(&"a pruned file removed"), "{points:?}");
    for (point, name) in points.iter().enumerate() {
        for unsynced in WAYS {
            let what = format!("{name} ({point}, {unsynced:?})");
            let mut bench = lived_once();
            let (frames_before, facts_before) = (bench.frames(&alpha()), facts(&bench.path()));
            bench.disk.crash_at(point);
            assert!(prune(&bench, &alpha(), cut).is_err() && bench.disk.is_down(), "{what}: the point was reached");
            bench.disk.restart(unsynced);
            whole(&bench, &format!("{what}, before anybody mended it"));
            bench.disk.crash_at(point % 4);
            drop(bench.open());
            bench.disk.restart(unsynced);
            bench.open().unwrap_or_else(|e| panic!("{what}: {e}")).close(at(35_000)).unwrap();
            rebuilds_equal(&bench, &what);
            let kept = bench.frames(&alpha());
            assert!(kept[..] == frames_before[frames_before.len() - kept.len()..], "{what}: a suffix is left");
            let pruned = bench.tape().catalog().pruned_until("alpha").unwrap().map(|(last_n, _)| last_n);
            let is_all = kept.len() == frames_before.len();
            assert_eq!(pruned, (!is_all).then_some(cut), "{what}: all or nothing");
            assert_eq!(facts(&bench.path()), facts_before, "{what}");
            let days = bench.disk.files().into_iter().filter(|(path, _)| path.to_string_lossy().contains("/alpha/"));
            let lowest = days.filter_map(|(path, _)| path.file_name()?.to_str()?.get(..20)?.parse::<u64>().ok()).min().unwrap();
            assert_eq!(lowest, pruned.map_or(1, |last_n| last_n + 1), "{what}: what is told as pruned is gone");
            (bench.sent, bench.announced) = Default::default();
            prune(&bench, &alpha(), cut).unwrap();
            rebuilds_equal(&bench, &format!("{what}, done again"));
        }
    }
}

#[test]
fn a_bent_file_of_remains_is_damage_and_not_believed() {
    let bench = lived();
    let cut = rows(&bench, &alpha())[1].last_n;
    prune(&bench, &alpha(), cut).unwrap();
    let path = bench.tape().layout().remains("alpha");
    let data = bench.disk.files().into_iter().find(|(there, _)| *there == path).unwrap().1;
    for bit in (0..data.len() * 8).step_by(37) {
        let mut bent = data.clone();
        bent[bit / 8] ^= 1 << (bit % 8);
        bench.disk.overwrite(&path, bent);
        let report = verify(&bench.path(), &bench.disk, decode_record, |_| {}).unwrap();
        let in_table = bit / 8 + 8 * 2 + 17 >= data.len();
        assert!(!report.is_whole() || in_table || report.damage.is_empty(), "bit {bit}");
        if !report.is_whole() {
            assert!(
                report.damage.iter().any(|damage| damage.place.ends_with("pruned.jsonl.zst")),
                "bit {bit}: {:?}",
                report.damage
            );
        }
    }
    // The catalog still knows; without it nobody does, and that is told as a loss.
    bench.disk.overwrite(&path, data[..data.len() / 2].to_vec());
    let before = dump(&bench.path());
    bench.open().unwrap().close(at(50_000)).unwrap();
    assert_eq!(dump(&bench.path()), before);
    let (recovery, _) =
        rebuild(&bench.path(), Arc::new(bench.disk.clone()), options(), decode_record, "test", at(50_001)).unwrap();
    assert_eq!(recovery.holes.iter().map(|hole| (hole.first_n.0, hole.last_n.0)).collect::<Vec<_>>(), [(1, cut)]);
}

// Damage.

/// Flips a bit of a segment, somewhere in the middle.
fn bend(bench: &Bench, row: &SegmentRow, part: f64) {
    let path = path_of(bench, row);
    let mut data = data_of(&bench.disk, &path);
    let place = (data.len() as f64 * part) as usize;
    data[place] ^= 0x10;
    bench.disk.overwrite(&path, data);
}

fn look(bench: &Bench, row: &SegmentRow) -> Looked {
    bench.tape().look_at(&bench.disk, row).unwrap().unwrap()
}

#[test]
fn a_flipped_bit_is_found_told_once_and_brought_back() {
    let bench = lived();
    let row = rows(&bench, &alpha())[2].clone();
    assert!(look(&bench, &row).is_whole());
    let other = bench.copy();
    let copy = other.tape();
    let (path, sound, dump_before) = (path_of(&bench, &row), data_of(&bench.disk, &path_of(&bench, &row)), dump(&bench.path()));
    bend(&bench, &row, 0.5);
    let looked = look(&bench, &row);
    assert!(!looked.is_whole());
    let hole = looked.lost[0].clone();
    let blocks = bench.tape().catalog().blocks("alpha", row.first_n).unwrap();
    let hit = blocks.iter().find(|block| block.first_n == hole.first_n.0).unwrap();
    assert_eq!((looked.lost.len(), hole.last_n.0), (1, hit.last_n), "one block is lost");
    assert_eq!((hole.after.0, hole.before.0), (hit.first_us, hit.last_us), "its time, and no more");

    let mut archive = bench.open().unwrap();
    let gap = archive.note_loss(&hole, at(30_000)).unwrap().unwrap();
    assert_eq!(archive.note_loss(&hole, at(30_001)).unwrap(), None, "told once");
    archive.commit(at(30_002)).unwrap();
    let told = archive.gap(&alpha(), gap).unwrap().clone();
    assert_eq!((told.cause.as_str(), told.state.as_str()), ("damaged", "open"));
    assert_eq!(told.from_us, hole.after.minus(HORIZON).0);
    drop(archive);
    let blocks_of = |rows: &[String]| rows.iter().filter(|row| row.starts_with("block:")).count();
    assert_eq!(blocks_of(&dump(&bench.path())), blocks_of(&dump_before) - 1, "the index knows what is left");
    let mut archive = bench.open().unwrap();
    assert_eq!(archive.note_loss(&hole, at(30_003)).unwrap(), None, "also by the next process");

    let restored = archive.restore(&alpha(), &row, &copy, true, decode_record, at(30_004)).unwrap().unwrap();
    assert_eq!((restored.is_known, &restored.gaps[..], &restored.path), (true, &[gap][..], &path));
    assert!(data_of(&bench.disk, &path) == sound, "byte for byte");
    let kept = restored.kept.unwrap();
    assert_eq!(damaged_files(&bench.path(), &bench.disk).unwrap(), [kept]);
    archive.close(at(30_005)).unwrap();
    assert!(look(&bench, &row).is_whole());
    rebuilds_equal(&bench, "restored");
    assert_eq!(bench.tape().catalog().gaps(Some("alpha")).unwrap().last().unwrap().state, "restored");
    assert!(dump_before.iter().filter(|row| row.starts_with("block:")).all(|row| dump(&bench.path()).contains(row)));
    // What happens again is told again.
    let mut archive = bench.open().unwrap();
    assert!(archive.note_loss(&hole, at(30_006)).unwrap().is_some());
}

/// The catalog was made again after the damage, so nothing remembers what the segment was sealed with.
#[test]
fn a_copy_is_believed_by_the_records_that_are_left() {
    let bench = lived();
    let row = rows(&bench, &alpha())[1].clone();
    let other = bench.copy();
    let copy = other.tape();
    let sound = data_of(&bench.disk, &path_of(&bench, &row));
    bend(&bench, &row, 0.4);
    std::fs::remove_file(bench.path().join("catalog.sqlite")).unwrap();
    let mut archive = bench.open().unwrap();
    let damaged = archive.catalog.segments("alpha").unwrap()[1].clone();
    assert!(damaged.records < row.records, "the index knows only what is left");
    let restored = archive.restore(&alpha(), &damaged, &copy, false, decode_record, at(30_004)).unwrap().unwrap();
    assert_eq!((restored.is_known, restored.kept), (false, None));
    assert!(data_of(&bench.disk, &path_of(&bench, &row)) == sound);
    archive.close(at(30_005)).unwrap();
    rebuild(&bench.path(), Arc::new(bench.disk.clone()), options(), decode_record, "test", at(40_000)).unwrap();
    rebuilds_equal(&bench, "restored");
}

#[test]
fn what_is_no_copy_brings_nothing_back() {
    let (bench, other) = (lived(), lived());
    let row = rows(&bench, &alpha())[1].clone();
    bend(&bench, &row, 0.5);
    let bent = data_of(&bench.disk, &path_of(&bench, &row));
    let mut archive = bench.open().unwrap();
    let refused = archive.restore(&alpha(), &row, &other.tape(), true, decode_record, at(30_000)).unwrap();
    assert_eq!(refused, Err(Refused::OtherTape));
    // A copy that was made after the damage.
    let other = bench.copy();
    let copy = other.tape();
    let refused = archive.restore(&alpha(), &row, &copy, true, decode_record, at(30_000)).unwrap();
    assert!(matches!(refused, Err(Refused::Damaged(_))), "{refused:?}");
    assert!(data_of(&bench.disk, &path_of(&bench, &row)) == bent);
    assert_eq!(damaged_files(&bench.path(), &bench.disk).unwrap(), [""; 0].map(PathBuf::from));
}

#[test]
fn a_crash_while_restoring_leaves_old_or_new() {
    let probe = lived_once();
    let row = rows(&probe, &alpha())[1].clone();
    let restore = |bench: &Bench, row: &SegmentRow, copy: &Tape| -> Result<()> {
        let mut archive = bench.open()?;
        archive.restore(&alpha(), row, copy, true, decode_record, at(30_004))?.unwrap();
        archive.close(at(30_005)).map(drop)
    };
    let other = probe.copy();
    let copy = other.tape();
    bend(&probe, &row, 0.5);
    let begun = probe.disk.points().len();
    restore(&probe, &row, &copy).unwrap();
    let points = probe.disk.points().len() - begun;
    for point in 0..points {
        for unsynced in WAYS {
            let bench = lived_once();
            let other = bench.copy();
            let copy = other.tape();
            let row = rows(&bench, &alpha())[1].clone();
            let sound = data_of(&bench.disk, &path_of(&bench, &row));
            bend(&bench, &row, 0.5);
            let bent = data_of(&bench.disk, &path_of(&bench, &row));
            bench.disk.crash_at(point);
            assert!(restore(&bench, &row, &copy).is_err(), "point {point} was reached");
            bench.disk.restart(unsynced);
            bench.open().unwrap().close(at(35_000)).unwrap();
            let now = data_of(&bench.disk, &path_of(&bench, &row));
            assert!(now == sound || now == bent, "point {point}, {unsynced:?}");
            let mut archive = bench.open().unwrap();
            archive.restore(&alpha(), &row, &copy, true, decode_record, at(36_000)).unwrap().unwrap();
            archive.close(at(36_001)).unwrap();
            assert!(data_of(&bench.disk, &path_of(&bench, &row)) == sound);
        }
    }
}
