//! What is chosen, what is remembered, and what is told.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

use super::*;
use crate::archive::{self, Archive, MemDisk, Options, RealDisk, ScrubPlace};
use crate::model::{Body, ConnId, Draft, Provider, RecordKind, SourceName, UnixMicros, Via};
use crate::net::{BootReading, Clock};
use crate::provider::{decode, decode_record};

fn at(minutes: i64) -> UnixMicros {
    UnixMicros(1_767_614_400_000_000 + minutes * 60_000_000)
}

struct Fixed(UnixMicros);

impl Clock for Fixed {
    fn wall(&self) -> UnixMicros {
        self.0
    }

    fn boot(&self) -> BootReading {
        BootReading::default()
    }
}

fn small() -> Options {
    Options { block_bytes: 4_096, segment_bytes: 16_384, seal_in_background: false, ..Options::default() }
}

fn name(of: &str) -> SourceName {
    SourceName::new(of).unwrap()
}

/// Two sources, an envelope a minute for `minutes`; beta begins an hour later.
fn tape(dir: &Path, minutes: i64) {
    let mut archive = Archive::open(dir, Arc::new(RealDisk), small(), decode_record, "a test", at(0)).unwrap();
    for (source, first) in [("alpha", 0), ("beta", 60)] {
        let source = name(source);
        archive.add_source(&source, Provider::TwitterapiIo).unwrap();
        archive.live(&source, "*", Duration::from_secs(60), at(first), "a frame").unwrap();
        for minute in first..minutes {
            let text = format!(
                r#"{{"event_type":"tweet","tweets":[{{"id":"{}","text":"{}"}}],"timestamp":{}}}"#,
                (at(minute).millis() as u64 - 1_288_834_974_657) << 22,
                "words ".repeat(20),
                at(minute).millis()
            );
            let draft = Draft {
                received_at: at(minute),
                kind: RecordKind::Frame,
                via: Via::Ws,
                conn: ConnId(1),
                info: None,
                body: Body::Bytes(Bytes::from(text)),
            };
            let Body::Bytes(bytes) = &draft.body else { unreachable!() };
            archive.append(&source, &draft, Some(&decode(Provider::TwitterapiIo, bytes))).unwrap();
        }
        archive.stop_source(&source, at(minutes), "the test ends").unwrap();
    }
    archive.close(at(minutes)).unwrap();
}

fn disk() -> Arc<dyn Disk> {
    Arc::new(RealDisk)
}

fn pruning(dir: &Path) -> PruneOptions {
    PruneOptions {
        tape: dir.to_owned(),
        archive: small(),
        sources: Vec::new(),
        older_than: None,
        max_bytes: None,
        why: "a test".to_owned(),
        holder: "a test".to_owned(),
    }
}

#[test]
fn the_oldest_go_by_age_and_by_size() {
    let dir = tempfile::tempdir().unwrap();
    tape(dir.path(), 600);
    let all = sealed(&open(dir.path(), &disk()).unwrap(), &[]).unwrap();
    let of = |source: &str| all.iter().filter(|row| row.source == source).collect::<Vec<_>>();
    assert!(of("alpha").len() > 5 && of("beta").len() > 5);
    let chosen = |options: &PruneOptions| -> Vec<(String, usize)> {
        let plan = plan_prune(options, &disk(), at(600)).unwrap();
        plan.doomed.iter().map(|doomed| (doomed.source.to_string(), doomed.segments.len())).collect()
    };
    let older = |hours: u64| PruneOptions { older_than: Some(Duration::from_secs(hours * 3_600)), ..pruning(dir.path()) };
    assert_eq!(chosen(&older(10)), []);
    let by_age = chosen(&older(5));
    let before = |source: &str| of(source).iter().filter(|row| row.last_us < at(300).0).count();
    assert_eq!(by_age, [("alpha".to_owned(), before("alpha")), ("beta".to_owned(), before("beta"))]);
    let one = PruneOptions { sources: vec!["beta".to_owned()], ..older(5) };
    assert_eq!(chosen(&one), [("beta".to_owned(), before("beta"))]);
    let nobody = PruneOptions { sources: vec!["gamma".to_owned()], ..older(5) };
    assert!(plan_prune(&nobody, &disk(), at(600)).unwrap_err().is_usage());

    let total: u64 = all.iter().map(|row| row.bytes).sum();
    let fitting = |max| plan_prune(&PruneOptions { max_bytes: Some(max), ..pruning(dir.path()) }, &disk(), at(600)).unwrap();
    assert_eq!(fitting(total), PrunePlan { doomed: Vec::new(), left_bytes: total });
    let half = fitting(total / 2);
    assert!(half.left_bytes <= total / 2 && half.left_bytes + all[0].bytes * 2 > total / 2, "{}", half.left_bytes);
    // By time over both sources: what is left of each begins at about the same hour.
    let first_left = |source: &str| {
        let gone = half.doomed.iter().find(|doomed| doomed.source.as_str() == source).map_or(0, |doomed| doomed.segments.len());
        of(source)[gone].first_us
    };
    assert!((first_left("alpha") - first_left("beta")).abs() < 3_600_000_000, "{:?}", half.doomed);
    let nothing = fitting(0);
    assert_eq!(nothing.left_bytes, of("alpha").last().unwrap().bytes + of("beta").last().unwrap().bytes, "the newest stay");

    let pruned = prune(&older(5), &Fixed(at(600)), &disk(), &mut |_| {}).unwrap();
    assert_eq!(pruned.iter().map(|one| one.segments as usize).collect::<Vec<_>>(), [before("alpha"), before("beta")]);
    assert_eq!(chosen(&older(5)), []);
    let report = archive::verify(dir.path(), &RealDisk, decode_record, |_| {}).unwrap();
    assert!(report.is_whole(), "{report:?}");
}

#[test]
fn what_was_compacted_is_not_compacted_again() {
    let dir = tempfile::tempdir().unwrap();
    tape(dir.path(), 300);
    let options = CompactOptions {
        tape: dir.path().to_owned(),
        archive: small(),
        sources: vec!["alpha".to_owned()],
        older_than: Some(Duration::from_secs(3_600)),
        again: false,
        packing: archive::Packing { level: 3, ..PACKING },
        holder: "a test".to_owned(),
    };
    let planned = plan_compact(&options, &disk(), at(300)).unwrap();
    assert!(!planned.is_empty() && planned.iter().all(|row| row.source == "alpha" && row.last_us < at(240).0));
    let mut told = Vec::new();
    let outcome = compact(&options, &Fixed(at(300)), &disk(), &mut |event| told.push(event), &|| false).unwrap();
    assert_eq!(outcome.smaller as usize, planned.len(), "{told:?}");
    assert!(outcome.bytes_after < outcome.bytes_before);
    assert_eq!(plan_compact(&options, &disk(), at(300)).unwrap(), []);
    let again = CompactOptions { again: true, ..options.clone() };
    assert_eq!(plan_compact(&again, &disk(), at(300)).unwrap().len(), planned.len());
    let stopped = compact(&again, &Fixed(at(300)), &disk(), &mut |_| {}, &|| true).unwrap();
    assert_eq!(stopped, CompactOutcome { is_stopped: true, ..CompactOutcome::default() });
    assert!(archive::verify(dir.path(), &RealDisk, decode_record, |_| {}).unwrap().is_whole());
}

fn bend(dir: &Path, row: &SegmentRow) {
    let path = archive::Layout::new(dir).sealed(&row.source, &row.day, crate::model::Seq(row.first_n));
    let mut data = std::fs::read(&path).unwrap();
    let middle = data.len() / 2;
    data[middle] ^= 4;
    std::fs::write(&path, data).unwrap();
}

#[tokio::test]
async fn a_scrub_goes_on_where_it_was_and_tells_damage_once() {
    let dir = tempfile::tempdir().unwrap();
    tape(dir.path(), 300);
    let all = sealed(&open(dir.path(), &disk()).unwrap(), &[]).unwrap();
    let hit = &all[all.len() - 2];
    bend(dir.path(), hit);
    let scrubbing = Scrubbing { tape: dir.path().to_owned(), bytes_per_second: 0, every: Duration::from_secs(3_600) };
    let look = async |leave_after: usize| {
        let told = Arc::new(Mutex::new(Vec::new()));
        let (leave, leaving) = watch::channel(false);
        let heard = Arc::clone(&told);
        let mut tell = move |event: ScrubEvent| {
            let mut heard = heard.lock().unwrap();
            heard.push(event);
            if heard.iter().filter(|event| matches!(event, ScrubEvent::Looked { .. })).count() == leave_after {
                leave.send_replace(true);
            }
        };
        let clock = Arc::new(Fixed(at(400)));
        let passed = scrub(scrubbing.clone(), small(), "a test", clock, disk(), leaving, &mut tell).await.unwrap();
        drop(tell);
        (passed, Arc::into_inner(told).unwrap().into_inner().unwrap())
    };
    let (passed, told) = look(3).await;
    assert_eq!(passed, None);
    let place = ScrubPlace::read(dir.path(), &RealDisk).unwrap();
    assert!(!place.is_done && (3..all.len() as u64).contains(&place.segments), "{place:?}");
    assert_eq!(told[0], ScrubEvent::Began { segments: all.len() as u64, bytes: all.iter().map(|row| row.bytes).sum() });
    let (passed, told) = look(usize::MAX).await;
    let total = all.iter().map(|row| row.bytes).sum();
    let rest = all.len() as u64 - place.segments;
    assert!(matches!(told[0], ScrubEvent::Began { segments, .. } if segments >= rest), "{told:?}");
    let passed = passed.unwrap();
    assert_eq!(passed.damaged, 1);
    assert!(passed.segments >= all.len() as u64 && passed.bytes >= total, "{passed:?}");
    let damaged = |told: &[ScrubEvent]| told.iter().filter(|event| matches!(event, ScrubEvent::Damaged { .. })).count();
    assert_eq!(damaged(&told), 1);
    let gaps = open(dir.path(), &disk()).unwrap().catalog().gaps(Some(&hit.source)).unwrap();
    let gap = gaps.iter().find(|gap| gap.cause == "damaged").unwrap();
    assert!(hit.first_n <= gap.lost_first_n.unwrap() && gap.lost_last_n.unwrap() <= hit.last_n);
    assert!(hit.first_us - 60_000_000 <= gap.from_us && gap.to_us.unwrap() <= hit.last_us + 60_000_000, "{gap:?}");

    // The next pass sees it again, and says nothing that the ledger says.
    let (passed, told) = look(usize::MAX).await;
    assert_eq!((passed.unwrap().damaged, damaged(&told)), (1, 0));
    let again = open(dir.path(), &disk()).unwrap().catalog().gaps(Some(&hit.source)).unwrap();
    assert_eq!(again.len(), gaps.len());
}

#[test]
fn a_paced_disk_is_slow_and_stops_at_once() {
    let memory = MemDisk::default();
    let path = Path::new("file");
    memory.create(path).unwrap();
    memory.overwrite(path, vec![7; 100_000]);
    let paced = Paced::new(Arc::new(memory), 1_000_000);
    let begun = std::time::Instant::now();
    let mut data = vec![0; 50_000];
    let mut file = paced.open(path).unwrap();
    for _ in 0..2 {
        file.read_exact(&mut data).unwrap();
    }
    // The first may be read at once, the second when the first is paid for.
    assert!(begun.elapsed() >= Duration::from_millis(50), "{:?}", begun.elapsed());
    paced.stop();
    let mut file = paced.open(path).unwrap();
    assert!(file.read(&mut data).is_err() && paced.is_stopped());
}
