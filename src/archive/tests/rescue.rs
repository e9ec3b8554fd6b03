//! Files that the disk refuses: what is not durable goes into a new one, once in a while.

use std::io::ErrorKind;

use super::*;

/// Operations of an undisturbed life, and those after which its tape is open.
fn ops_of_a_life() -> (u64, u64) {
    let mut probe = Bench::new();
    drop(probe.open().unwrap());
    let open = probe.disk.ops();
    probe = Bench::new();
    probe.live().unwrap();
    (open, probe.disk.ops())
}

/// Every operation fails once, on a disk that keeps what it failed to sync, and on one that loses it. The recorder goes
/// on, everything it was given is there, and no file that failed to sync is synced again (or `MemDisk` panics).
#[test]
fn one_refusal_anywhere_costs_nothing() {
    let (open, ops) = ops_of_a_life();
    let mut rescued = 0;
    for op in (open + 1..=ops).filter(|op| *op < open + 60 || op % 11 == 0) {
        for forgets in [false, true] {
            let mut bench = Bench::new();
            if forgets {
                bench.disk.forget_what_fails();
            }
            bench.disk.fail_at(op, ErrorKind::Other, false);
            let ended = bench.live();
            let what = format!("operation {op} of {ops}, forgets: {forgets}, {ended:?}");
            // Whatever is refused while the tape is being closed was safe before.
            assert_eq!(bench.announced.values().map(Vec::len).sum::<usize>(), 180, "{what}");
            rescued += u32::from(ended.is_ok());
            bench.disk.restart(Unsynced::Lost);
            bench.open().unwrap_or_else(|e| panic!("{what}: {e}")).close(at(20_000)).unwrap();
            bench.check(&what);
            assert_eq!(bench.sent.values().map(Vec::len).sum::<usize>(), 180, "{what}: each once");
            let gaps = bench.tape().catalog().gaps(None).unwrap();
            assert!(gaps.iter().all(|gap| gap.cause != "disk" && gap.cause != "killed"), "{what}: nothing is lost: {gaps:?}");
        }
    }
    assert!(rescued > 100, "{rescued}");
}

/// A second refusal while the first is being cured ends the recorder; what it announced stays.
#[test]
fn two_refusals_in_a_row_are_the_end_and_lose_nothing_announced() {
    let (open, ops) = ops_of_a_life();
    let mut ended_by_it = 0;
    for op in (open + 1..=ops).filter(|op| op % 7 == 0) {
        for (many, forgets) in [(2, false), (2, true), (u64::MAX, true)] {
            let mut bench = Bench::new();
            if forgets {
                bench.disk.forget_what_fails();
            }
            bench.disk.fail_between(op, many, ErrorKind::Other);
            let ended = bench.live();
            let what = format!("operations {op} and on ({many}) of {ops}, forgets: {forgets}, {ended:?}");
            ended_by_it += u32::from(ended.is_err());
            bench.disk.restart(Unsynced::Lost);
            bench.open().unwrap_or_else(|e| panic!("{what}: {e}")).close(at(20_000)).unwrap();
            bench.check(&what);
        }
    }
    assert!(ended_by_it > 50, "{ended_by_it}");
}

/// Each later refusal of a life, as the one rescue was some time ago or just now.
#[test]
fn a_disk_that_refuses_again_soon_is_not_tried_again() {
    for (wait, is_rescued) in [(59, false), (61, true)] {
        let bench = Bench::new();
        let mut archive = bench.open().unwrap();
        archive.add_source(&alpha(), Provider::TwitterapiIo).unwrap();
        let mut append = |n: u64, second: i64| {
            let decoded = decode(Provider::TwitterapiIo, &envelope(n));
            archive.append(&alpha(), &frame(n, second), Some(&decoded)).unwrap();
            bench.disk.fail_at(2, ErrorKind::Other, false);
            archive.commit(at(second))
        };
        append(1, 1).unwrap();
        let again = append(2, 1 + wait);
        assert_eq!(again.is_ok(), is_rescued, "after {wait} s: {again:?}");
        let Err(error) = again else { continue };
        assert_eq!(error.io_kind(), Some(ErrorKind::Other));
        assert!(matches!(archive.commit(at(200)), Err(ArchiveError::Poisoned)));
        drop(archive);
        let archive = bench.open().unwrap();
        assert!(archive.recovery().farewell.is_some(), "it could say why");
    }
}

/// What no other file would cure is not tried.
#[test]
fn a_disk_that_may_not_be_written_is_the_end_at_once() {
    for kind in [ErrorKind::ReadOnlyFilesystem, ErrorKind::PermissionDenied, ErrorKind::StorageFull] {
        let bench = Bench::new();
        let mut archive = bench.open().unwrap();
        archive.add_source(&alpha(), Provider::TwitterapiIo).unwrap();
        archive.append(&alpha(), &frame(1, 1), None).unwrap();
        bench.disk.fail_at(1, kind, false);
        let error = archive.commit(at(1)).unwrap_err();
        assert_eq!(error.io_kind(), Some(kind));
        assert!(error.hint().is_some());
    }
}

/// A page of history and the step of its gap stay in one commit.
#[test]
fn a_refusal_between_a_page_and_its_step_parts_them_not() {
    let mut probe = 0;
    for op in 1..40 {
        let bench = Bench::new();
        let mut archive = bench.open().unwrap();
        archive.add_source(&alpha(), Provider::TwitterapiIo).unwrap();
        archive.start_source(&alpha(), HORIZON, boot(), at(0)).unwrap();
        archive.lost(&alpha(), at(1), Lost { scope: ALL, cause: Cause::Stopped, detail: "no more" }).unwrap();
        archive.commit(at(1)).unwrap();
        let gap = archive.open_gaps(&alpha())[0].n;
        let page = Draft { kind: RecordKind::Http, via: Via::History, conn: ConnId(0), ..frame(7, 2) };
        let leaf = Leaf {
            source: alpha(),
            gap: Some(gap),
            at: at(2),
            page: Some((page, decode_record(Provider::TwitterapiIo, Via::History, &envelope(7)))),
            state: GapState::Filling,
            detail: "one page".to_owned(),
            cursor: Some("c".to_owned()),
            kinds: Vec::new(),
            spent: Spent { requests: 1, ..Spent::default() },
        };
        bench.disk.fail_at(op, ErrorKind::Other, false);
        let before = bench.disk.ops();
        archive.keep(&leaf).unwrap();
        archive.stop_source(&alpha(), at(3), "the test is over").unwrap();
        archive.commit(at(3)).unwrap();
        if bench.disk.ops() - before < op {
            break;
        }
        probe += 1;
        let told = archive.last_n(&alpha());
        bench.disk.restart(Unsynced::Lost);
        let archive = bench.open().unwrap();
        assert!(archive.last_n(&alpha()) >= told);
        let row = archive.gap(&alpha(), gap).unwrap();
        assert_eq!(row.state, "filling", "operation {op}: {row:?}");
    }
    assert!(probe > 1, "{probe}");
}
