//! Speed of the tape, as ratios measured side by side in one process.
//!
//! ```text
//! cargo bench --bench tape                     all parts, on the generator's envelopes
//! cargo bench --bench tape -- --input FILE     on the lines of a file instead
//! cargo bench --bench tape -- lines N          print N envelopes of TwitterAPI.io, for `scripts/bench`
//! cargo bench --bench tape -- count URL        connect to a replay's WebSocket and only count (the recorder's peer)
//! ```
//!
//! Each part takes turns with its peer (A B A B …), five rounds, and the medians are compared. `cpu/M` is CPU
//! seconds of this process per million envelopes: on a noisy machine the figure to trust.
#![allow(
    missing_docs,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a program for developers"
)]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use birdtape::archive::{Archive, Options};
use birdtape::model::json::Json;
use birdtape::model::{Body, ConnId, Draft, Provider, RecordKind, Secret, Seq, SourceName, UnixMicros, Via};
use birdtape::net::{Incoming, Limits, SystemNetwork, TlsOptions};
use birdtape::provider::{Base, decode, decode_record, default_settings, recognise, synthetic};
use birdtape::segment::{Disk, FORMAT, Header, RealDisk, Writer};
use bytes::Bytes;

const ROUNDS: usize = 5;
const COMMIT: Duration = Duration::from_millis(100);

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    match args.first().map(String::as_str) {
        Some("lines") => lines(args[1].parse().unwrap()),
        Some("count") => count(&args[1], args.get(2).map_or("twitterapi_io", String::as_str)),
        _ => parts(args.iter().position(|a| a == "--input").and_then(|at| args.get(at + 1))),
    }
}

struct Sample {
    provider: Provider,
    bytes: Bytes,
    at: UnixMicros,
}

fn samples(input: Option<&String>) -> Vec<Sample> {
    match input {
        Some(path) => {
            let text = std::fs::read(path).unwrap();
            let lines = text.split(|b| *b == b'\n').filter(|l| !l.is_empty());
            let stamp = |n: usize| UnixMicros(1_767_614_400_000_000 + n as i64 * 20_000);
            lines
                .enumerate()
                .map(|(n, line)| Sample {
                    provider: recognise(line).unwrap_or(Provider::TwitterapiIo),
                    bytes: Bytes::copy_from_slice(line),
                    at: stamp(n),
                })
                .collect()
        }
        None => {
            let world = synthetic::World::new(synthetic::Options { seed: 7, ..synthetic::Options::default() });
            world.take(40_000).map(|e| Sample { provider: e.provider, bytes: e.bytes, at: e.at }).collect()
        }
    }
}

fn lines(wanted: usize) {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let mix = [1.0, 0.0, 0.0, 0.0];
    let world = synthetic::World::new(synthetic::Options { seed: 7, mix, ..synthetic::Options::default() });
    for envelope in world.filter(|e| e.provider == Provider::TwitterapiIo).take(wanted) {
        std::io::Write::write_all(&mut out, &envelope.bytes).unwrap();
        std::io::Write::write_all(&mut out, b"\n").unwrap();
    }
}

fn cpu() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

#[derive(Clone, Copy)]
struct Cost {
    wall: f64,
    cpu: f64,
    size: u64,
}

fn measured(run: &mut dyn FnMut() -> u64) -> Cost {
    let (start, before) = (Instant::now(), cpu());
    let size = run();
    Cost { wall: start.elapsed().as_secs_f64(), cpu: (cpu() - before).as_secs_f64(), size }
}

fn median(mut costs: Vec<Cost>) -> Cost {
    costs.sort_by(|a, b| a.cpu.total_cmp(&b.cpu));
    costs[costs.len() / 2]
}

fn parts(input: Option<&String>) {
    let samples = samples(input);
    let raw: u64 = samples.iter().map(|s| s.bytes.len() as u64 + 1).sum();
    let profile = if cfg!(debug_assertions) { "debug (meaningless)" } else { "optimised" };
    println!("{} envelopes, {} bytes, {ROUNDS} rounds in turn, {profile}", samples.len(), raw);
    type Part<'a> = (&'static str, Box<dyn FnMut() -> u64 + 'a>);
    let mut parts: Vec<Part<'_>> = vec![
        ("zstd -3 of the lines", Box::new(|| plain_zstd(&samples))),
        ("read: one strict pass", Box::new(|| scan(&samples))),
        ("read: strict, validate only", Box::new(|| skip(&samples))),
        ("read: serde_json, validate", Box::new(|| serde_ignored(&samples))),
        ("read: serde_json, tree", Box::new(|| serde_tree(&samples))),
        ("segment alone, commit each 100 ms", Box::new(|| segment(&samples))),
        ("archive, commit each 100 ms", Box::new(|| archive(&samples, COMMIT))),
        ("archive, one commit", Box::new(|| archive(&samples, Duration::MAX))),
    ];
    let mut costs: Vec<Vec<Cost>> = parts.iter().map(|_| Vec::new()).collect();
    for _ in 0..ROUNDS {
        for (part, costs) in parts.iter_mut().zip(&mut costs) {
            costs.push(measured(&mut part.1));
        }
    }
    let medians: Vec<Cost> = costs.into_iter().map(median).collect();
    let zstd = medians[0];
    println!("{:<34} {:>12} {:>9} {:>8} {:>12} {:>10}", "part", "envelopes/s", "MB/s", "cpu/M", "cpu ÷ zstd", "size ÷ zstd");
    for ((name, _), cost) in parts.iter().zip(&medians) {
        let per_million = cost.cpu * 1e6 / samples.len() as f64;
        let size = if cost.size > 0 { format!("{:.3}", cost.size as f64 / zstd.size as f64) } else { "-".to_owned() };
        println!(
            "{name:<34} {:>12.0} {:>9.0} {per_million:>8.2} {:>12.2} {size:>10}",
            samples.len() as f64 / cost.wall,
            raw as f64 / cost.wall / 1e6,
            cost.cpu / zstd.cpu
        );
    }
}

fn plain_zstd(samples: &[Sample]) -> u64 {
    let mut out = zstd::Encoder::new(Vec::new(), 3).unwrap();
    for sample in samples {
        std::io::Write::write_all(&mut out, &sample.bytes).unwrap();
        std::io::Write::write_all(&mut out, b"\n").unwrap();
    }
    out.finish().unwrap().len() as u64
}

fn scan(samples: &[Sample]) -> u64 {
    let events: usize = samples.iter().map(|s| decode(s.provider, &s.bytes)).filter(|d| d.json).map(|d| d.events.len()).sum();
    assert!(events > 0);
    0
}

fn skip(samples: &[Sample]) -> u64 {
    let valid = |s: &Sample| Json::new(std::str::from_utf8(&s.bytes).unwrap()).skip().is_ok();
    assert!(samples.iter().filter(|s| valid(s)).count() > 0);
    0
}

fn serde_ignored(samples: &[Sample]) -> u64 {
    let good = samples.iter().filter(|s| serde_json::from_slice::<serde::de::IgnoredAny>(&s.bytes).is_ok()).count();
    assert!(good > 0);
    0
}

fn serde_tree(samples: &[Sample]) -> u64 {
    let good = samples.iter().filter(|s| serde_json::from_slice::<serde_json::Value>(&s.bytes).is_ok()).count();
    assert!(good > 0);
    0
}

fn draft(sample: &Sample) -> Draft {
    Draft {
        received_at: sample.at,
        kind: RecordKind::Frame,
        via: Via::Ws,
        conn: ConnId(1),
        info: None,
        body: Body::Bytes(sample.bytes.clone()),
    }
}

fn segment(samples: &[Sample]) -> u64 {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("00000000000000000001.jsonl.zst.open");
    let header = Header {
        n: Seq(0),
        at: samples[0].at,
        format: FORMAT,
        tape: "bench".into(),
        source: "bench".into(),
        provider: "twitterapi_io".into(),
    };
    let mut writer = Writer::create(&RealDisk, &path, &header, 3, 4 << 20).unwrap();
    let mut last = Instant::now();
    for (n, sample) in samples.iter().enumerate() {
        let json = decode(sample.provider, &sample.bytes).json;
        writer.append(Seq(n as u64 + 1), &draft(sample), json).unwrap();
        if last.elapsed() >= COMMIT {
            writer.commit(sample.at).unwrap();
            last = Instant::now();
        }
    }
    writer.finish(samples[samples.len() - 1].at).unwrap();
    RealDisk.len(&path).unwrap().unwrap()
}

/// The whole write path, one source a provider; gives the bytes of the sealed segments.
fn archive(samples: &[Sample], commit: Duration) -> u64 {
    let dir = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let mut archive = Archive::open(dir.path(), disk, Options::default(), decode_record, "bench", samples[0].at).unwrap();
    for provider in Provider::ALL {
        archive.add_source(&SourceName::from(provider), provider).unwrap();
    }
    let names = Provider::ALL.map(SourceName::from);
    let mut last = Instant::now();
    for sample in samples {
        let decoded = decode(sample.provider, &sample.bytes);
        archive.append(&names[sample.provider as usize], &draft(sample), Some(&decoded)).unwrap();
        if last.elapsed() >= commit {
            archive.commit(sample.at).unwrap();
            last = Instant::now();
        }
    }
    archive.close(samples[samples.len() - 1].at).unwrap();
    bytes_below(&dir.path().join("segments"))
}

fn bytes_below(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap());
    entries.map(|e| if e.path().is_dir() { bytes_below(&e.path()) } else { e.metadata().unwrap().len() }).sum()
}

/// Receives from a replay and throws away: what a recorder cannot be cheaper than. Ends when nothing came for a second.
fn count(base: &str, provider: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut settings = default_settings(provider.parse().unwrap());
        settings.base = Some(Base::parse(base).unwrap());
        settings.credentials.key = Secret::new("local");
        settings.credentials.auth_token = Secret::new("local");
        settings.credentials.ct0 = Secret::new("local");
        let opening = birdtape::provider::Client::new(settings).opening();
        let network = SystemNetwork::new(TlsOptions::default()).unwrap();
        let mut live = birdtape::net::open(&network, &opening, &Limits::default()).await.unwrap().live;
        let (mut frames, mut bytes, mut first, mut last) = (0u64, 0u64, None, Instant::now());
        while let Ok(incoming) = tokio::time::timeout(Duration::from_secs(1), live.next()).await {
            match incoming {
                Incoming::Message(message) => {
                    frames += 1;
                    bytes += message.len() as u64;
                    last = Instant::now();
                    first.get_or_insert(last);
                }
                Incoming::Alive => {}
                _ => break,
            }
        }
        let wall = first.map_or(0.0, |f| (last - f).as_secs_f64());
        println!("{}", serde_json::json!({ "envelopes": frames, "bytes": bytes, "seconds": wall }));
    });
}
