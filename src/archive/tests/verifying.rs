//! What verifying tells: of each kind of difference, where it is, and nothing of what is well.

use super::*;
use crate::catalog::{Change, ConnectionRow, CoverageRow, GapRow, LastSeenRow, ScopeRow, SourceRow};

/// One life of a recorder with two sources, closed in good order.
fn lived() -> Bench {
    let mut bench = Bench::new();
    bench.live().unwrap();
    bench
}

fn catalog(bench: &Bench) -> Catalog {
    Catalog::open(&bench.path().join("catalog.sqlite")).unwrap()
}

fn apply(bench: &Bench, change: Change) {
    catalog(bench).apply(&[change]).unwrap();
}

fn last_seen(bench: &Bench, name: &SourceName) -> LastSeenRow {
    bench.tape().catalog().last_seen(name.as_str()).unwrap().remove(0)
}

/// Where the damage is and what it is; and what became of the catalog.
fn told(bench: &Bench) -> (Vec<(String, String)>, CatalogCheck) {
    let report = verify(&bench.path(), &bench.disk, decode_record, |_| {}).unwrap();
    assert!(report.damage.iter().all(|damage| !damage.known && damage.lost.is_none()), "{report:?}");
    (report.damage.into_iter().map(|damage| (damage.place, damage.what)).collect(), report.catalog)
}

/// A change of the catalog, made from what it holds.
type Bending = fn(&Bench) -> Change;

fn other_count(bench: &Bench, name: &SourceName) -> Change {
    let row = last_seen(bench, name);
    Change::LastSeen(LastSeenRow { events: row.events + 1, ..row })
}

#[test]
fn each_row_of_the_catalog_that_is_another_is_told() {
    let cases: [(&str, Bending, [&str; 2]); 7] = [
        (
            "a segment's count",
            |bench| {
                let row = rows(bench, &alpha()).remove(1);
                Change::Segment(SegmentRow { records: row.records + 1, ..row })
            },
            ["missing", "not borne out"],
        ),
        (
            "another content of the same length",
            |bench| {
                let row = rows(bench, &alpha()).remove(0);
                Change::Segment(SegmentRow { content: "0".repeat(64), ..row })
            },
            ["missing", "not borne out"],
        ),
        (
            "another file with the same content and length",
            |bench| {
                let row = rows(bench, &alpha()).remove(0);
                Change::Segment(SegmentRow { sha256: "0".repeat(64), ..row })
            },
            ["missing", "not borne out"],
        ),
        ("an id's count", |bench| other_count(bench, &beta()), ["missing", "not borne out"]),
        (
            "a connection's end",
            |bench| {
                let row = catalog(bench).connections("alpha").unwrap().remove(0);
                Change::Connection(ConnectionRow { code: Some(4_000), ..row })
            },
            ["missing", "not borne out"],
        ),
        (
            "a block that is not known",
            |bench| {
                let block = catalog(bench).blocks("beta", rows(bench, &beta())[0].first_n).unwrap().remove(0);
                Change::ForgetBlock { source: block.source, segment_n: block.segment_n, raw_offset: block.raw_offset }
            },
            ["missing", ""],
        ),
        (
            "an id that never was",
            |bench| Change::LastSeen(LastSeenRow { scope: "nowhere".to_owned(), ..last_seen(bench, &alpha()) }),
            ["", "not borne out"],
        ),
    ];
    for (what, bend, signs) in cases {
        let bench = lived();
        assert!(matches!(told(&bench), (damage, CatalogCheck::Equal(n)) if damage.is_empty() && n > 20), "{what}, before");
        apply(&bench, bend(&bench));
        let (damage, check) = told(&bench);
        assert_eq!(check, CatalogCheck::Differs, "{what}");
        let signs: Vec<_> = signs.into_iter().filter(|sign| !sign.is_empty()).collect();
        assert_eq!(damage.len(), signs.len(), "{what}: {damage:?}");
        for ((place, told), sign) in damage.iter().zip(signs) {
            assert!(place == "catalog.sqlite" && told.starts_with(&format!("1 row(s) {sign}")), "{what}: {damage:?}");
        }
    }
}

/// Compacting that was killed before the catalog knew leaves this; what else is wrong is told all the same.
#[test]
fn a_step_behind_is_no_damage_and_hides_none_of_another_source() {
    let behind = |bench: &Bench| {
        let row = rows(bench, &alpha()).remove(1);
        apply(bench, Change::Segment(SegmentRow { bytes: row.bytes + 1, sha256: "0".repeat(64), ..row }));
    };
    let bench = lived();
    behind(&bench);
    let (damage, check) = told(&bench);
    let CatalogCheck::Skipped(why) = &check else { panic!("{check:?} {damage:?}") };
    assert!(damage.is_empty() && why.contains("alpha") && !why.contains("beta") && why.contains("birdtape recover"), "{why}");
    // What another row says of the same source waits until it caught up; of another source it does not.
    apply(&bench, other_count(&bench, &alpha()));
    assert_eq!(told(&bench).0, []);
    apply(&bench, other_count(&bench, &beta()));
    let (damage, check) = told(&bench);
    assert!(damage.len() == 2 && check == CatalogCheck::Differs, "{damage:?}");
}

/// What was counted in a block that cannot be read is no damage of the catalog; everything else in it still is.
#[test]
fn what_stood_in_a_damaged_block_is_not_held_against_the_catalog() {
    let cases: [(&str, Option<Bending>, bool); 6] = [
        ("nothing else", None, false),
        (
            "the damaged segment's row",
            Some(|bench| {
                let row = rows(bench, &alpha()).remove(0);
                Change::Segment(SegmentRow { records: row.records + 1, ..row })
            }),
            false,
        ),
        (
            "another segment's row",
            Some(|bench| {
                let row = rows(bench, &alpha()).remove(1);
                Change::Segment(SegmentRow { records: row.records + 1, ..row })
            }),
            true,
        ),
        ("an id of the damaged source", Some(|bench| other_count(bench, &alpha())), false),
        ("an id of the other source", Some(|bench| other_count(bench, &beta())), true),
        (
            "a scope of the damaged source",
            Some(|bench| {
                let row = catalog(bench).scopes("alpha").unwrap().remove(0);
                Change::Scope(ScopeRow { detail: "another".to_owned(), ..row })
            }),
            true,
        ),
    ];
    for (what, bend, is_told) in cases {
        let bench = lived();
        let row = rows(&bench, &alpha()).remove(0);
        let block = catalog(&bench).blocks("alpha", row.first_n).unwrap().remove(1);
        let path = path_of(&bench, &row);
        let mut data = data_of(&bench.disk, &path);
        let middle = (block.offset + block.bytes / 2) as usize;
        data[middle..middle + 8].fill(0x55);
        bench.disk.overwrite(&path, data);
        if let Some(bend) = bend {
            apply(&bench, bend(&bench));
        }
        let report = verify(&bench.path(), &bench.disk, decode_record, |_| {}).unwrap();
        let of_catalog: Vec<_> = report.damage.iter().filter(|damage| damage.place == "catalog.sqlite").collect();
        assert_eq!(!of_catalog.is_empty(), is_told, "{what}: {of_catalog:?}");
        assert_eq!(report.catalog == CatalogCheck::Differs, is_told, "{what}");
        // The block, and its records: from the first one to the last.
        let of_segment: Vec<_> = report.damage.iter().filter(|damage| damage.place.contains("segments")).collect();
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(
            of_segment.iter().any(|damage| damage.place.contains(name) && damage.what.starts_with("block at byte")),
            "{what}"
        );
        let hole = of_segment.iter().find_map(|damage| damage.lost.clone()).unwrap();
        assert_eq!((hole.first_n.0, hole.last_n.0), (block.first_n, block.last_n), "{what}");
        assert!(hole.after.0 <= block.first_us && block.last_us <= hole.before.0, "{what}: {hole:?}");
    }
}

#[test]
fn a_segment_that_is_not_what_its_place_says_is_told() {
    let bench = lived();
    let (own, foreign) = (rows(&bench, &alpha()), rows(&bench, &beta()));
    let second = path_of(&bench, &own[1]);
    let whole = data_of(&bench.disk, &second);
    let of_another = data_of(&bench.disk, &path_of(&bench, &foreign[1]));
    let mut bent_table = whole.clone();
    let at_entry = whole.len() - 9 - 4;
    bent_table[at_entry] ^= 1;
    for (what, data, told_of) in [
        ("another source's", of_another, "beta"),
        ("the segment before it", data_of(&bench.disk, &path_of(&bench, &own[0])), "its first record is 1, its name says"),
        ("a seek table for other blocks", bent_table, "seek table"),
        ("cut in the middle", whole[..whole.len() / 2].to_vec(), "the file ends in the middle of the block"),
        ("a foreign file", b"these are no records".repeat(20), "it does not begin with a segment header"),
    ] {
        bench.disk.overwrite(&second, data);
        let report = verify(&bench.path(), &bench.disk, decode_record, |_| {}).unwrap();
        let name = second.file_name().unwrap().to_str().unwrap();
        let here: Vec<_> = report.damage.iter().filter(|damage| damage.place.contains(name)).collect();
        assert!(here.iter().any(|damage| damage.what.contains(told_of)), "{what}: {here:#?}");
        assert!(report.damage.iter().all(|damage| damage.source.as_deref() != Some("beta")), "{what}: {:#?}", report.damage);
    }
    bench.disk.overwrite(&second, whole);
    assert!(matches!(told(&bench), (damage, CatalogCheck::Equal(_)) if damage.is_empty()));
}

/// Each instant up to a scope's frontier is covered or in a gap, and not both: at the seams, too.
#[test]
fn what_is_covered_and_in_a_gap_is_told_and_what_is_neither() {
    let bench = Bench::new();
    let mut archive = bench.open().unwrap();
    archive.add_source(&alpha(), Provider::TwitterapiIo).unwrap();
    archive.start_source(&alpha(), HORIZON, boot(), at(0)).unwrap();
    for begin in [1, 1_001] {
        bench.connect(&mut archive, &alpha(), begin).unwrap();
        for n in 0..10 {
            archive.append(&alpha(), &frame(begin as u64 + n, begin + 1 + 30 * n as i64), None).unwrap();
        }
        archive.commit(at(begin + 300)).unwrap();
        let lost = Lost { scope: ALL, cause: Cause::ConnectionLost, detail: "reset" };
        archive.lost(&alpha(), at(begin + 301), lost).unwrap();
    }
    archive.close(at(1_400)).unwrap();
    let covered = catalog(&bench).coverage("alpha").unwrap();
    assert_eq!(covered.len(), 2, "{covered:?}");
    let gaps = catalog(&bench).gaps(Some("alpha")).unwrap();
    let gap = gaps.into_iter().find(|gap| gap.from_us == covered[0].to_us).unwrap();
    assert_eq!((covered[0].to_us, Some(covered[1].from_us)), (gap.from_us, gap.to_us), "they meet without a hole");
    let check = |changes: &[Change]| {
        let mut copy = Catalog::in_memory().unwrap();
        let rows = catalog(&bench);
        let sources = rows.sources().unwrap().into_iter().map(Change::Source);
        let scopes = rows.scopes("alpha").unwrap().into_iter().map(Change::Scope);
        let coverage = rows.coverage("alpha").unwrap().into_iter().map(Change::Coverage);
        let gaps = rows.gaps(Some("alpha")).unwrap().into_iter().map(Change::Gap);
        copy.apply(&sources.chain(scopes).chain(coverage).chain(gaps).collect::<Vec<_>>()).unwrap();
        copy.apply(changes).unwrap();
        super::super::verify::contradiction(&copy).unwrap()
    };
    assert_eq!(check(&[]), None);
    let both = |found: Option<String>| found.is_some_and(|what| what.contains("alpha") && what.contains("covered and in a gap"));
    let hole = |found: Option<String>| found.is_some_and(|what| what.contains("alpha") && what.contains("silent hole"));
    let moved = |from_us: i64, to_us: Option<i64>| Change::Gap(GapRow { from_us, to_us, ..gap.clone() });
    // One microsecond decides.
    assert!(both(check(&[moved(gap.from_us - 1, gap.to_us)])));
    assert!(both(check(&[moved(gap.from_us, gap.to_us.map(|to| to + 1))])));
    assert!(both(check(&[moved(gap.from_us, None)])));
    assert!(hole(check(&[moved(gap.from_us + 1, gap.to_us)])));
    assert!(hole(check(&[moved(gap.from_us, gap.to_us.map(|to| to - 1))])));
    let elsewhere = GapRow { scope: "nobody's".to_owned(), n: 9_999, from_us: covered[0].from_us, ..gap.clone() };
    assert_eq!(check(&[Change::Gap(elsewhere)]), None, "another scope's gap takes nothing from this one");
    let wider = CoverageRow { from_us: covered[1].from_us - 1, ..covered[1].clone() };
    let forget = Change::ForgetCoverage { source: "alpha".to_owned(), scope: covered[0].scope.clone() };
    assert!(both(check(&[forget.clone(), Change::Coverage(covered[0].clone()), Change::Coverage(wider)])));
    assert!(hole(check(&[forget, Change::Coverage(covered[1].clone())])));
    // And it is damage of the tape where its own catalog says so.
    apply(&bench, moved(gap.from_us, gap.to_us.map(|to| to - 1)));
    let (damage, check) = told(&bench);
    assert!(check == CatalogCheck::Differs && damage.iter().all(|(place, _)| place == "catalog.sqlite"), "{damage:?}");
}

/// A recorder that was killed leaves an open segment; the catalog may be behind it, never ahead.
#[test]
fn a_catalog_that_knows_more_than_the_segments_is_told() {
    let bench = Bench::new();
    let mut archive = bench.open().unwrap();
    archive.add_source(&alpha(), Provider::TwitterapiIo).unwrap();
    let path = archive.layout.open("alpha", &at(1).date(), Seq(1));
    let mut lengths = Vec::new();
    for n in 1..=5 {
        archive.append(&alpha(), &frame(n, n as i64), None).unwrap();
        archive.commit(at(n as i64)).unwrap();
        lengths.push(bench.disk.len(&path).unwrap().unwrap() as usize);
    }
    drop(archive);
    let last_n = catalog(&bench).sources().unwrap()[0].last_n;
    let (damage, check) = told(&bench);
    assert!(damage.is_empty() && matches!(&check, CatalogCheck::Skipped(why) if why.contains("alpha")), "{check:?} {damage:?}");
    let row = catalog(&bench).sources().unwrap().remove(0);
    let behind = Change::Source(SourceRow { last_n: last_n - 1, ..row.clone() });
    apply(&bench, behind);
    assert_eq!(told(&bench).0, []);
    apply(&bench, Change::Source(row));
    let mut data = data_of(&bench.disk, &path);
    data.truncate(lengths[3]);
    bench.disk.overwrite(&path, data);
    let (damage, check) = told(&bench);
    let wanted = format!("it knows record {last_n} of alpha, the segments end at {}", last_n - 1);
    assert_eq!((damage, check), (vec![("catalog.sqlite".to_owned(), wanted)], CatalogCheck::Differs));
}
