//! Two recorders of one made-up world, cut off at different times: their tapes become one.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;

use super::*;
use crate::archive::{ALL, CatalogCheck, Certificate, Lost, MemDisk, Selected, Span, Unsynced, verify};
use crate::model::{Body, Cause, ConnId, Draft, EventKind, RecordKind, Via};
use crate::net::BootReading;
use crate::provider::synthetic::{self, Envelope, World};
use crate::provider::{decode, default_lateness_horizon};

const LENGTH: i64 = 1_500;

fn second(seconds: i64) -> UnixMicros {
    UnixMicros(1_767_614_400_000_000 + seconds * 1_000_000)
}

/// Long after everything happened.
struct Later;

impl Clock for Later {
    fn wall(&self) -> UnixMicros {
        second(100_000)
    }

    fn boot(&self) -> BootReading {
        BootReading::default()
    }
}

/// What one recorder lived through, in seconds.
#[derive(Clone, Debug)]
struct Life {
    lasts: Range<i64>,
    /// Times when its connection was cut.
    cuts: Vec<Range<i64>>,
    /// Whether it took leave in the end.
    is_killed: bool,
    /// How much later it receives everything.
    lag_us: i64,
    /// When it read the provider's lists, and the rules with their texts that stood there.
    lists: Vec<(i64, Vec<(&'static str, &'static str)>)>,
}

impl Life {
    fn whole(lasts: Range<i64>) -> Self {
        Self { lasts, cuts: Vec::new(), is_killed: false, lag_us: 0, lists: Vec::new() }
    }

    fn cut(lasts: Range<i64>, cuts: &[(i64, i64)]) -> Self {
        Self { cuts: cuts.iter().map(|(from, to)| *from..*to).collect(), ..Self::whole(lasts) }
    }

    fn any(rng: &mut Pcg64Mcg) -> Self {
        let begins = if rng.random_bool(0.5) { 0 } else { rng.random_range(0..400) };
        let ends = if rng.random_bool(0.5) { LENGTH } else { rng.random_range(900..LENGTH) };
        let mut cuts = Vec::new();
        let mut at = begins + 10;
        while rng.random_bool(0.75) {
            let from = at + rng.random_range(20..400);
            let to = from + rng.random_range(5..250);
            if to + 5 >= ends {
                break;
            }
            cuts.push(from..to);
            at = to;
        }
        let (is_killed, lag_us) = (rng.random_bool(0.3), rng.random_range(0..900_000));
        Self { lasts: begins..ends, cuts, is_killed, lag_us, lists: Vec::new() }
    }

    fn hears(&self, at: UnixMicros) -> bool {
        let inside = |range: &Range<i64>| (second(range.start)..second(range.end)).contains(&at);
        inside(&self.lasts) && !self.cuts.iter().any(inside)
    }
}

struct Bench {
    dir: tempfile::TempDir,
    disk: MemDisk,
    provider: Provider,
    world: Vec<Envelope>,
}

impl Bench {
    fn new(provider: Provider, seed: u64) -> Self {
        let mix = Provider::ALL.map(|one| f64::from(u8::from(one == provider)));
        let world =
            World::new(synthetic::Options { seed, rate: 1.0, mix, dms: 0.5, edits: 0.05, ..synthetic::Options::default() });
        let world = world.take_while(|envelope| envelope.at < second(LENGTH)).collect();
        Self { dir: tempfile::tempdir().unwrap(), disk: MemDisk::default(), provider, world }
    }

    /// Directory of a tape; catalogs are real files.
    fn path(&self, name: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    fn disk(&self) -> Arc<dyn Disk> {
        Arc::new(self.disk.clone())
    }

    fn options() -> archive::Options {
        archive::Options {
            block_bytes: 8 << 10,
            segment_bytes: 64 << 10,
            seal_in_background: false,
            ..archive::Options::default()
        }
    }

    fn source(&self) -> SourceName {
        SourceName::from(self.provider)
    }

    fn record(&self, name: &str, life: &Life) {
        self.record_as(name, &self.source(), life);
    }

    fn record_as(&self, name: &str, source: &SourceName, life: &Life) {
        let (from, to) = (second(life.lasts.start), second(life.lasts.end));
        let opened = Archive::open(&self.path(name), self.disk(), Self::options(), decode_record, "a recorder", from);
        let mut archive = opened.unwrap();
        let horizon = default_lateness_horizon(self.provider);
        archive.add_source(source, self.provider).unwrap();
        archive.start_source(source, horizon, (String::new(), Duration::ZERO), from).unwrap();
        let mut is_live = false;
        let mut lists = life.lists.iter().peekable();
        for envelope in self.world.iter().filter(|envelope| (from..to).contains(&envelope.at)) {
            let at = UnixMicros(envelope.at.0 + life.lag_us);
            if !life.hears(envelope.at) {
                if is_live {
                    let lost = Lost { scope: ALL, cause: Cause::ConnectionLost, detail: "the cable was out" };
                    archive.lost(source, at, lost).unwrap();
                    is_live = false;
                }
                continue;
            }
            if !is_live {
                archive.live(source, ALL, horizon, at, "a frame").unwrap();
                is_live = true;
            }
            while let Some((read_at, rules)) = lists.next_if(|(read_at, _)| second(*read_at) <= envelope.at) {
                let all: Vec<_> =
                    rules.iter().map(|(scope, text)| Selected { scope, text: Some(text), detail: "listed" }).collect();
                archive.select(source, horizon, &all, second(*read_at).max(from)).unwrap();
            }
            let body = Body::Bytes(envelope.bytes.clone());
            let draft = Draft { received_at: at, kind: RecordKind::Frame, via: Via::Ws, conn: ConnId(1), info: None, body };
            archive.append(source, &draft, Some(&decode(self.provider, &envelope.bytes))).unwrap();
        }
        let end = UnixMicros(to.0 + life.lag_us);
        archive.commit(end).unwrap();
        if !life.is_killed {
            archive.stop_source(source, end, "the test ends").unwrap();
            archive.close(end).unwrap();
        }
    }

    fn try_merge(&self, into: &str, from: &[&str]) -> Result<PeerOutcome, PeerError> {
        let options = MergeOptions {
            tape: self.path(into),
            archive: Self::options(),
            from: from.iter().map(|name| self.path(name)).collect(),
            holder: "a test".to_owned(),
        };
        merge(&options, &Later, &self.disk(), &mut |_| {})
    }

    fn merge(&self, into: &str, from: &[&str]) -> PeerOutcome {
        self.try_merge(into, from).unwrap_or_else(|error| panic!("{error}"))
    }

    fn try_fill(&self, into: &str, from: &str) -> Result<PeerOutcome, PeerError> {
        let (tape, from, holder) = (self.path(into), self.path(from), "a test".to_owned());
        let options = FillOptions {
            tape,
            archive: Self::options(),
            from,
            from_source: None,
            gaps: Vec::new(),
            sources: Vec::new(),
            holder,
        };
        fill(&options, &Later, &self.disk(), &mut |_| {})
    }

    fn tape(&self, name: &str) -> Tape {
        Tape::open(&self.path(name), self.disk()).unwrap()
    }

    fn covered(&self, name: &str) -> IntervalSet {
        let mut covered = IntervalSet::new();
        for scope in self.tape(name).coverage(self.source().as_str()).unwrap() {
            covered.add(&scope.every_kind.covered());
        }
        covered
    }

    /// Envelopes with events, as often as they are there.
    fn envelopes(&self, name: &str) -> BTreeMap<Bytes, usize> {
        let mut found = BTreeMap::new();
        let mut records = self.tape(name).records(self.source().as_str(), Span::default()).unwrap();
        while let Some(record) = records.next().unwrap() {
            if record.kind == RecordKind::Frame && !decode(self.provider, &record.body).events.is_empty() {
                *found.entry(record.body).or_default() += 1;
            }
        }
        found
    }

    /// What at least one of these heard, as often as it was said.
    fn heard(&self, lives: &[&Life]) -> BTreeMap<Bytes, usize> {
        let mut heard = BTreeMap::new();
        let by_one = |envelope: &&Envelope| lives.iter().any(|life| life.hears(envelope.at));
        for envelope in self.world.iter().filter(by_one) {
            if !decode(self.provider, &envelope.bytes).events.is_empty() {
                *heard.entry(envelope.bytes.clone()).or_default() += 1;
            }
        }
        heard
    }

    /// Whatever the tape calls covered is there.
    fn assert_no_false_proof(&self, name: &str, what: &str) {
        let (covered, there) = (self.covered(name), self.envelopes(name));
        for envelope in &self.world {
            let events = decode(self.provider, &envelope.bytes).events;
            let published = events.iter().filter(|event| event.kind == EventKind::Tweet).filter_map(|event| event.published_at);
            let instants: Vec<_> = published.chain((!events.is_empty()).then_some(envelope.at)).collect();
            if instants.iter().any(|at| covered.contains(*at)) {
                let text = String::from_utf8_lossy(&envelope.bytes);
                assert!(there.contains_key(&envelope.bytes), "{what}: proven and not there: {} {text}", envelope.at);
            }
        }
    }

    fn assert_sound(&self, name: &str, what: &str) {
        let report = verify(&self.path(name), &self.disk, decode_record, |_| {}).unwrap();
        assert!(report.is_whole(), "{what}: {:?}", report.damage);
        assert!(matches!(report.catalog, CatalogCheck::Equal(_)), "{what}: a rebuild would differ: {:?}", report.catalog);
        self.assert_no_false_proof(name, what);
    }

    fn last_n(&self, name: &str) -> u64 {
        self.tape(name).sources().unwrap().iter().map(|source| source.last_n).sum()
    }

    fn bytes_of(&self, name: &str) -> Vec<(PathBuf, Vec<u8>)> {
        let dir = self.path(name);
        self.disk.files().into_iter().filter(|(path, _)| path.starts_with(&dir)).collect()
    }
}

fn union(a: &IntervalSet, b: &IntervalSet) -> IntervalSet {
    let mut both = a.clone();
    both.add(b);
    both
}

#[test]
fn either_order_gives_the_union() {
    for (seed, provider) in
        (0..16).zip([Provider::Tweetstream, Provider::XLive, Provider::TwitterapiIo, Provider::Scrapebadger].into_iter().cycle())
    {
        let mut rng = Pcg64Mcg::seed_from_u64(seed);
        let bench = Bench::new(provider, seed);
        let (one, two) = (Life::any(&mut rng), Life::any(&mut rng));
        let what = format!("seed {seed}, {provider}, {one:?}, {two:?}");
        for name in ["a", "a2"] {
            bench.record(name, &one);
        }
        for name in ["b", "b2"] {
            bench.record(name, &two);
        }
        let want = union(&bench.covered("a"), &bench.covered("b"));
        let heard = bench.heard(&[&one, &two]);
        let before = bench.bytes_of("b");
        bench.merge("a", &["b"]);
        assert!(bench.bytes_of("b") == before, "{what}: the other tape was changed");
        bench.merge("b2", &["a2"]);
        bench.merge("new", &["a2", "b"]);
        for name in ["a", "b2", "new"] {
            let what = format!("{name}: {what}");
            assert_eq!(bench.covered(name), want, "{what}");
            let there = bench.envelopes(name);
            let odd: Vec<_> = heard.iter().filter(|(body, n)| there.get(*body) != Some(n)).collect();
            assert!(odd.is_empty() && there.len() == heard.len(), "{what}: {} differ, the first: {:?}", odd.len(), odd.first());
            bench.assert_sound(name, &what);
            for (from, to) in want.iter() {
                let certificate = Certificate::of(&bench.tape(name), bench.source().as_str(), from, to).unwrap();
                assert!(certificate.is_whole(), "{what}: {}", certificate.in_words());
            }
            let (last_n, again) = (bench.last_n(name), bench.merge(name, &["a2", "b"]));
            assert!(again.added_nothing(), "{what}: {again:?}");
            assert_eq!(bench.last_n(name), last_n, "{what}: merging twice adds nothing");
        }
    }
}

/// What is proven of each scope, whatever its versions are called.
fn proven(bench: &Bench, name: &str) -> BTreeMap<String, IntervalSet> {
    let mut proven: BTreeMap<String, IntervalSet> = BTreeMap::new();
    for scope in bench.tape(name).coverage(bench.source().as_str()).unwrap() {
        proven.entry(scope.scope).or_default().add(&scope.every_kind.covered());
    }
    proven
}

#[test]
fn rules_come_to_the_same_in_any_order() {
    let horizon_s = default_lateness_horizon(Provider::Tweetstream).as_secs() as i64;
    for seed in 20..28 {
        let bench = Bench::new(Provider::Tweetstream, seed);
        // One rule that both know, one whose text changes, and one that only the first knows.
        let rules = |text: &'static str, own: bool| {
            let mut rules = vec![("same", "a OR b"), ("changed", text)];
            rules.extend(own.then_some(("own", "c")));
            rules
        };
        let shift = (seed as i64 - 20) * 5;
        let one_lists =
            vec![(10, rules("x", true)), (500, rules("x", true)), (600 + shift, rules("y", true)), (1_200, rules("y", true))];
        let two_lists =
            vec![(20, rules("x", false)), (520, rules("x", false)), (620, rules("y", false)), (1_250, rules("y", false))];
        let one = Life { lists: one_lists, ..Life::cut(0..LENGTH, &[(200, 300), (800, 900)]) };
        let two = Life { lists: two_lists, ..Life::cut(0..LENGTH, &[(260, 340), (1_000, 1_100)]) };
        for name in ["a", "a2"] {
            bench.record(name, &one);
        }
        for name in ["b", "b2"] {
            bench.record(name, &two);
        }
        bench.merge("new", &["a2", "b"]);
        bench.merge("wen", &["b", "a2"]);
        bench.merge("a", &["b"]);
        bench.merge("b2", &["a2"]);
        let want = proven(&bench, "new");
        assert!(want[ALL].contains(second(160)) && !want["own"].contains(second(160)), "seed {seed}: {want:?}");
        assert!(
            want["same"].contains(second(160)) && !want["changed"].contains(second(560 + horizon_s / 2)),
            "seed {seed}: {want:?}"
        );
        for name in ["wen", "a", "b2"] {
            let what = format!("seed {seed}, {name}");
            bench.assert_sound(name, &what);
            let found = proven(&bench, name);
            for (scope, want) in &want {
                assert_eq!(&found[scope], want, "{what}: {scope}");
            }
            assert!(bench.merge(name, &["a2", "b"]).added_nothing(), "{what}: again");
        }
    }
}

#[test]
fn a_merge_that_was_killed_before_there_was_a_catalog_goes_on() {
    let bench = Bench::new(Provider::Tweetstream, 5);
    bench.record("a", &Life::whole(0..300));
    bench.merge("both", &["a"]);
    let before = bench.covered("both");
    for name in ["catalog.sqlite", "catalog.sqlite-wal", "catalog.sqlite-shm"] {
        drop(std::fs::remove_file(bench.path("both").join(name)));
    }
    bench.merge("both", &["a"]);
    assert_eq!(bench.covered("both"), before);
    bench.assert_sound("both", "merged again");
}

#[test]
fn a_merged_tape_is_recorded_on() {
    let bench = Bench::new(Provider::Tweetstream, 5);
    bench.record("a", &Life::cut(200..700, &[(300, 400)]));
    bench.record("b", &Life::cut(0..1_000, &[(850, 900)]));
    bench.merge("a", &["b"]);
    let before = bench.covered("a");
    bench.record("a", &Life::whole(1_100..1_500));
    assert_eq!(union(&bench.covered("a"), &before), bench.covered("a"), "what was proven stays so");
    bench.assert_sound("a", "recorded on");
    let gaps = bench.tape("a").catalog().gaps(None).unwrap();
    let open: Vec<_> = gaps.iter().filter(|gap| gap.state == "open").map(|gap| (gap.cause.as_str(), gap.from_us)).collect();
    let end = before.iter().last().unwrap().1;
    assert_eq!(open, [("stopped", end.0)], "one new hole, and it begins where the merge ended");
    // And the other one goes on as well: what it has of that hole comes with the next merge.
    bench.record("b", &Life::whole(1_000..1_500));
    let want = union(&bench.covered("a"), &bench.covered("b"));
    bench.merge("a", &["b"]);
    assert_eq!(bench.covered("a"), want);
    bench.assert_sound("a", "merged again");
}

#[test]
fn growing_tapes_are_merged_again_and_again() {
    let bench = Bench::new(Provider::Tweetstream, 6);
    bench.record("a", &Life::whole(0..300));
    for end in [500, 800, 1_100, 1_400] {
        bench.record("b", &Life::whole(end - 300..end));
        let want = union(&bench.covered("a"), &bench.covered("b"));
        bench.merge("a", &["b"]);
        assert_eq!(bench.covered("a"), want);
    }
    bench.assert_sound("a", "four merges");
    assert!(bench.tape("a").coverage("tweetstream").unwrap().len() <= 2, "versions do not heap up");
}

#[test]
fn gaps_alone_are_filled() {
    let bench = Bench::new(Provider::XLive, 7);
    let (one, two) = (Life::cut(200..1_200, &[(500, 600), (800, 900)]), Life::cut(0..1_500, &[(850, 1_000)]));
    bench.record("a", &one);
    bench.record("b", &two);
    let (ours, theirs) = (bench.covered("a"), bench.covered("b"));
    let outcome = bench.try_fill("a", "b").unwrap();
    let states: Vec<_> = outcome.gaps.iter().map(|filled| filled.state).collect();
    assert_eq!(states, [GapState::Filled, GapState::Partial], "{outcome:?}");
    let (from, to) = (ours.iter().next().unwrap().0, ours.iter().last().unwrap().1);
    assert_eq!(bench.covered("a"), union(&ours, &theirs.within(from, to)), "nothing outside of what was promised");
    bench.assert_sound("a", "filled");
    let again = bench.try_fill("a", "b").unwrap();
    assert!(again.added_nothing(), "{again:?}");
    assert_eq!(again.left.len(), 1, "the hole of both is told: {again:?}");
}

/// Whatever a disk forgets at whichever moment: done again, a merge comes to the same.
#[test]
fn a_merge_that_was_killed_is_done_again() {
    let scene = || {
        let bench = Bench::new(Provider::Tweetstream, 8);
        bench.record("a", &Life::cut(100..500, &[(200, 300)]));
        bench.record("b", &Life::cut(0..650, &[(250, 270)]));
        bench
    };
    let probe = scene();
    let before = probe.disk.points().len();
    probe.merge("a", &["b"]);
    let points = probe.disk.points()[before..].to_vec();
    let (want, events) = (probe.covered("a"), probe.envelopes("a"));
    assert!(points.len() > 12, "{points:?}");
    for (point, name) in points.iter().enumerate() {
        // Each way of forgetting where a point is met first; after that they take turns.
        let all = [Unsynced::Lost, Unsynced::Kept, Unsynced::Torn, Unsynced::Removed];
        let modes = if points[..point].contains(name) { &all[point % 4..=point % 4] } else { &all[..] };
        for unsynced in modes {
            let bench = scene();
            bench.disk.crash_at(point);
            assert!(bench.try_merge("a", &["b"]).is_err() && bench.disk.is_down(), "point {point}");
            bench.disk.restart(*unsynced);
            let what = format!("{name} (point {point}, {unsynced:?})");
            bench.merge("a", &["b"]);
            assert_eq!((bench.covered("a"), bench.envelopes("a")), (want.clone(), events.clone()), "{what}");
            bench.assert_sound("a", &what);
        }
    }
}

#[test]
fn a_full_disk_ends_it_and_loses_nothing() {
    let scene = || {
        let bench = Bench::new(Provider::Tweetstream, 9);
        bench.record("a", &Life::cut(0..900, &[(400, 600)]));
        bench.record("b", &Life::whole(0..1_000));
        bench
    };
    let probe = scene();
    let before = probe.disk.ops();
    probe.merge("a", &["b"]);
    let ops = probe.disk.ops() - before;
    let want = probe.covered("a");
    for op in (1..ops).step_by(5) {
        let bench = scene();
        bench.disk.fail_at(op, ErrorKind::StorageFull, true);
        // The reserve is best effort: a fault there alone ends nothing.
        let ended = bench.try_merge("a", &["b"]);
        bench.disk.restart(Unsynced::Lost);
        bench.merge("a", &["b"]);
        let what = format!("operation {op} of {ops}, {ended:?}");
        assert_eq!(bench.covered("a"), want, "{what}");
        bench.assert_sound("a", &what);
    }
}

#[test]
fn a_damaged_tape_proves_nothing_where_it_is_damaged() {
    let (mut refused, mut partial, mut rng) = (0, 0, Pcg64Mcg::seed_from_u64(10));
    for round in 0..40 {
        let bench = Bench::new(Provider::Tweetstream, 10);
        bench.record("a", &Life::cut(0..1_200, &[(400, 700)]));
        bench.record("b", &Life::whole(0..1_200));
        let segments = bench.bytes_of("b").into_iter().filter(|(path, _)| path.extension().is_some_and(|end| end == "zst"));
        let segments: Vec<_> = segments.collect();
        let (path, mut bytes) = segments[rng.random_range(0..segments.len())].clone();
        let (at, bit) = (rng.random_range(0..bytes.len()), rng.random_range(0..8));
        bytes[at] ^= 1 << bit;
        bench.disk.overwrite(&path, bytes);
        let what = format!("round {round}, {} bit {bit} of byte {at}", path.display());
        match bench.try_fill("a", "b") {
            Ok(outcome) => {
                partial += usize::from(!outcome.gaps.iter().all(|filled| filled.state == GapState::Filled));
                // It was live all the time; where that proves nothing, damage is the reason.
                assert!(outcome.left.iter().all(|(_, why)| why.contains("it is damaged there")), "{what}: {outcome:?}");
            }
            Err(_) => refused += 1,
        }
        bench.assert_sound("a", &what);
    }
    assert!(partial > 3 && refused < 20, "{partial} partial, {refused} refused");
}

#[test]
fn a_lost_segment_is_seen() {
    let bench = Bench::new(Provider::Tweetstream, 11);
    bench.record("a", &Life::cut(0..1_200, &[(400, 700)]));
    bench.record("b", &Life::whole(0..1_200));
    let segments: Vec<_> =
        bench.bytes_of("b").into_iter().filter(|(path, _)| path.extension().is_some_and(|end| end == "zst")).collect();
    bench.disk.remove(&segments[segments.len() / 2].0).unwrap();
    let outcome = bench.try_fill("a", "b").unwrap();
    assert!(outcome.sources[0].damage[0].contains("is not there"), "{outcome:?}");
    assert_ne!(outcome.gaps.first().map(|filled| filled.state), Some(GapState::Filled), "{outcome:?}");
    bench.assert_sound("a", "a lost segment");
}

#[test]
fn another_version_of_an_event_is_kept() {
    let bench = Bench::new(Provider::TwitterapiIo, 12);
    bench.record("a", &Life::cut(0..600, &[(200, 300)]));
    let mut other = Bench::new(Provider::TwitterapiIo, 12);
    (other.dir, other.disk) = (tempfile::tempdir().unwrap(), bench.disk.clone());
    // In the margin of the gap both received it; the other one's copy has another stamp, or another text.
    let inside = |envelope: &&mut Envelope| envelope.at > second(150) && envelope.at < second(190);
    let mut n_restamped = 0;
    for (at, envelope) in other.world.iter_mut().filter(inside).enumerate() {
        let text = String::from_utf8(envelope.bytes.to_vec()).unwrap();
        let Some((start, stamp)) = text.rsplit_once("\"timestamp\":").filter(|_| text.contains("\"text\":\"")) else { continue };
        let digits = stamp.trim_end_matches('}');
        let stamped = format!("{start}\"timestamp\":{}}}", digits.parse::<i64>().unwrap() + 7);
        n_restamped += 1;
        envelope.bytes = if at % 2 == 0 { stamped } else { stamped.replacen("\"text\":\"", "\"text\":\"edited: ", 1) }.into();
    }
    assert!(n_restamped > 6, "{n_restamped}");
    other.record("b", &Life::whole(0..600));
    let (tape, from, holder) = (bench.path("a"), other.path("b"), "a test".to_owned());
    let options =
        FillOptions { tape, archive: Bench::options(), from, from_source: None, gaps: Vec::new(), sources: Vec::new(), holder };
    fill(&options, &Later, &bench.disk(), &mut |_| {}).unwrap();
    let there = bench.envelopes("a");
    let is_edited = |envelope: &&Envelope| envelope.bytes.windows(8).any(|part| part == b"edited: ");
    let theirs = other.world.iter().filter(|envelope| envelope.at > second(150) && envelope.at < second(190));
    let (edited, restamped): (Vec<_>, Vec<_>) = theirs.partition(is_edited);
    assert!(edited.len() > 2 && edited.iter().all(|envelope| there.contains_key(&envelope.bytes)), "a new version is kept");
    let ours: Vec<_> = bench.world.iter().map(|envelope| &envelope.bytes).collect();
    let twice = restamped.iter().filter(|envelope| !ours.contains(&&envelope.bytes) && there.contains_key(&envelope.bytes));
    assert_eq!(twice.count(), 0, "the same with another stamp of delivery is not");
}

/// What happened in a window may have come a horizon later, and nothing in it says when it happened.
#[test]
fn what_came_late_is_looked_for_beyond_the_window() {
    let bench = Bench::new(Provider::XLive, 17);
    let mut ours = Bench::new(Provider::XLive, 17);
    (ours.dir, ours.disk) = (tempfile::tempdir().unwrap(), bench.disk.clone());
    let is_late = |envelope: &Envelope| envelope.at > second(420) && envelope.at < second(450);
    let tells = |envelope: &Envelope| !decode(Provider::XLive, &envelope.bytes).events.is_empty();
    let late: Vec<_> = ours.world.iter().filter(|one| is_late(one) && tells(one)).map(|one| one.bytes.clone()).collect();
    assert!(late.len() > 5, "{}", late.len());
    ours.world.retain(|envelope| !is_late(envelope));
    ours.record("a", &Life::whole(0..1_000));
    bench.record("b", &Life::whole(0..1_000));
    let (dir, disk, source) = (ours.path("a"), bench.disk(), bench.source());
    let mut archive = Archive::open(&dir, disk, Bench::options(), decode_record, "a test", second(1_000)).unwrap();
    let lost = Lost { scope: ALL, cause: Cause::FullPage, detail: "a page came full" };
    assert!(archive.suspect(&source, second(1_000), (second(410), second(415)), lost).unwrap().is_some());
    archive.close(second(1_000)).unwrap();
    let (from, holder) = (bench.path("b"), "a test".to_owned());
    let options = FillOptions {
        tape: dir,
        archive: Bench::options(),
        from,
        from_source: None,
        gaps: Vec::new(),
        sources: Vec::new(),
        holder,
    };
    let outcome = fill(&options, &Later, &bench.disk(), &mut |_| {}).unwrap();
    assert_eq!(outcome.gaps[0].state, GapState::Filled, "{outcome:?}");
    let there = ours.envelopes("a");
    assert_eq!(late.iter().filter(|body| !there.contains_key(*body)).count(), 0, "of {}", late.len());
}

#[test]
fn a_clock_that_is_wrong_proves_nothing() {
    let bench = Bench::new(Provider::Tweetstream, 13);
    bench.record("a", &Life::cut(0..1_200, &[(400, 700)]));
    bench.record("b", &Life { lag_us: -100_000_000, ..Life::whole(0..1_200) });
    let outcome = bench.try_fill("a", "b").unwrap();
    assert!(outcome.gaps.is_empty() && outcome.left[0].1.contains("its clock and ours differ by -100.0 s"), "{outcome:?}");
    bench.assert_no_false_proof("a", "a wrong clock");
}

#[test]
fn topics_come_with_their_own_gaps() {
    let bench = Bench::new(Provider::XLive, 14);
    let source = bench.source();
    let horizon = default_lateness_horizon(Provider::XLive);
    let with_topics = |name: &str, topics: &[&str], life: &Life| {
        bench.record(name, life);
        let opened = Archive::open(&bench.path(name), bench.disk(), Bench::options(), decode_record, "a test", second(LENGTH));
        let mut archive = opened.unwrap();
        for topic in topics {
            let since = second(LENGTH);
            let fact = crate::archive::Fact::Scope {
                scope: (*topic).to_owned(),
                version: 1,
                since,
                until: None,
                horizon_us: horizon.as_micros() as u64,
                detail: "one topic".to_owned(),
                text: None,
            };
            archive.remark(&source, second(LENGTH), &fact).unwrap();
        }
        archive.start_source(&source, horizon, (String::new(), Duration::ZERO), second(LENGTH)).unwrap();
        archive.live(&source, ALL, horizon, second(LENGTH), "a frame").unwrap();
        archive.alive(&source, ConnId(1), second(LENGTH + 1_000), "a keepalive").unwrap();
        archive.stop_source(&source, second(LENGTH + 1_000), "the test ends").unwrap();
        archive.close(second(LENGTH + 1_000)).unwrap();
    };
    let life = Life::whole(0..LENGTH);
    with_topics("a", &["/mine", "/both"], &life);
    with_topics("b", &["/both", "/theirs"], &life);
    bench.merge("a", &["b"]);
    bench.assert_sound("a", "topics");
    let found = bench.tape("a").coverage(source.as_str()).unwrap();
    let names: Vec<_> = found.iter().map(|scope| scope.scope.as_str()).collect();
    assert!(names.contains(&"/mine") && names.contains(&"/theirs"), "{names:?}");
    let theirs = found.iter().find(|scope| scope.scope == "/theirs").unwrap();
    let there = bench.tape("b").coverage(source.as_str()).unwrap();
    let there = there.iter().find(|scope| scope.scope == "/theirs").unwrap();
    assert_eq!(theirs.every_kind.covered(), there.every_kind.covered());
    assert!(theirs.until.is_some(), "nobody here subscribed to it: it is not promised on");
    let again = bench.merge("a", &["b"]);
    assert!(again.added_nothing(), "{again:?}");
}

#[test]
fn a_stream_with_other_rules_proves_nothing() {
    let bench = Bench::new(Provider::TwitterapiIo, 15);
    let mut other = Bench::new(Provider::TwitterapiIo, 15);
    (other.dir, other.disk) = (tempfile::tempdir().unwrap(), bench.disk.clone());
    let rule = |bytes: &Bytes| {
        decode(Provider::TwitterapiIo, bytes).events.first().map(|event| event.selector.clone()).unwrap_or_default()
    };
    let last =
        bench.world.iter().rev().filter(|one| one.at < second(1_000)).map(|one| rule(&one.bytes)).find(|rule| !rule.is_empty());
    let last = last.unwrap();
    other.world.retain(|envelope| rule(&envelope.bytes) != last);
    let mut ours = Bench::new(Provider::TwitterapiIo, 15);
    (ours.dir, ours.disk) = (tempfile::tempdir().unwrap(), bench.disk.clone());
    // It came to us last while the other one was live.
    ours.world.retain(|envelope| envelope.at < second(1_000) || rule(&envelope.bytes) != last);
    ours.record("a", &Life::cut(0..1_200, &[(400, 700)]));
    other.record("b", &Life::whole(0..1_400));
    let (tape, from, holder) = (ours.path("a"), other.path("b"), "a test".to_owned());
    let options =
        FillOptions { tape, archive: Bench::options(), from, from_source: None, gaps: Vec::new(), sources: Vec::new(), holder };
    let outcome = fill(&options, &Later, &bench.disk(), &mut |_| {}).unwrap();
    assert!(outcome.gaps.is_empty() && outcome.left[0].1.contains(&format!("never brought anything of `{last}`")), "{outcome:?}");
    assert!(outcome.sources[0].envelopes > 10, "what it has is copied all the same");
}

#[test]
fn what_cannot_be_used_is_said() {
    let bench = Bench::new(Provider::Tweetstream, 16);
    let life = Life::whole(0..200);
    bench.record("a", &life);
    let alpha = SourceName::new("alpha").unwrap();
    let beta = SourceName::new("beta").unwrap();
    bench.record_as("two", &alpha, &life);
    bench.record_as("two", &beta, &Life::whole(300..400));
    let foreign = Bench {
        provider: Provider::Scrapebadger,
        world: Bench::new(Provider::Scrapebadger, 16).world,
        ..Bench::new(Provider::Tweetstream, 16)
    };
    let foreign = Bench { dir: tempfile::tempdir().unwrap(), disk: bench.disk.clone(), ..foreign };
    foreign.record_as("b", &bench.source(), &life);
    foreign.record("c", &life);
    let said = |from: PathBuf, from_source: Option<&str>| {
        let (tape, holder) = (bench.path("a"), "a test".to_owned());
        let from_source = from_source.map(str::to_owned);
        let options =
            FillOptions { tape, archive: Bench::options(), from, from_source, gaps: Vec::new(), sources: Vec::new(), holder };
        let error = fill(&options, &Later, &bench.disk(), &mut |_| {}).unwrap_err();
        assert!(error.hint().is_some(), "{error} has no cure");
        error.to_string()
    };
    assert!(said(bench.path("a"), None).contains("is the tape itself"));
    assert!(said(bench.path("nothing"), None).contains("is not a tape"));
    assert!(said(bench.path("two"), None).contains("alpha, beta could be meant"));
    assert!(said(foreign.path("b"), None).contains("source tweetstream records tweetstream, and source tweetstream of tape"));
    assert!(
        said(foreign.path("c"), None).contains("has no source for tweetstream (tweetstream); it has scrapebadger (scrapebadger)")
    );
    assert!(said(foreign.path("c"), Some("scrapebadger")).contains("records scrapebadger"));
}
