//! Speed of the replay, as ratios to what the same library and the same sockets can do, in one run.
//!
//! ```text
//! cargo bench --bench replay                     throughput and pacing
//! cargo bench --bench replay -- throughput       full speed to 1, 10 and 100 clients
//! cargo bench --bench replay -- pacing           error between two messages at 1x and 10x
//! cargo bench --bench replay -- seek DIR [MB]    first message after a seek, on tapes of 10 MB and MB (2000), kept in DIR
//! cargo bench --bench replay -- slow             memory with 100 clients, 10 of which do not read
//! ```
//!
//! Throughput: the server is this process, the clients are another one that reads and throws away (`drain`). Three
//! servers take turns, five rounds: the replay from a tape; a loop that sends the same messages from memory with
//! tokio-tungstenite; frames made beforehand and written 128 KiB at a time, which is what the sockets can take.
#![allow(
    missing_docs,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a program for developers"
)]

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use birdtape::archive::{Archive, Options as ArchiveOptions};
use birdtape::model::{Body, ConnId, Draft, Provider, RecordKind, Secret, SourceName, UnixMicros, Via};
use birdtape::net::{Incoming, Limits, Live, SystemNetwork, TlsOptions};
use birdtape::provider::{Base, decode, decode_record, default_settings, synthetic};
use birdtape::replay::{self, Feed, Options, Place, Replay, Speed, Start};
use birdtape::segment::RealDisk;
use bytes::{Bytes, BytesMut};
use futures_util::SinkExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;

const ROUNDS: usize = 5;
const PROVIDER: Provider = Provider::Tweetstream;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    match args.as_slice() {
        ["drain", address, n_clients, bytes] => {
            runtime.block_on(drain(address.parse().unwrap(), n_clients.parse().unwrap(), bytes.parse().unwrap()));
        }
        ["make", dir, n] => {
            let n = record(Path::new(dir), n.parse().unwrap(), u64::MAX);
            let bodies: Vec<Bytes> = world(50.0).take(n).map(|envelope| envelope.bytes).collect();
            println!("{}", framed(&bodies).len());
        }
        ["throughput"] => runtime.block_on(throughput()),
        ["pacing"] => runtime.block_on(pacing()),
        ["seek", dir] => runtime.block_on(seek(Path::new(dir), 2_000)),
        ["seek", dir, mb] => runtime.block_on(seek(Path::new(dir), mb.parse().unwrap())),
        ["slow"] => runtime.block_on(slow()),
        _ => {
            runtime.block_on(throughput());
            runtime.block_on(pacing());
        }
    }
}

fn world(rate: f64) -> impl Iterator<Item = synthetic::Envelope> {
    let mut mix = [0.0; 4];
    mix[PROVIDER as usize] = 1.0;
    let options = synthetic::Options { seed: 7, mix, rate, ..synthetic::Options::default() };
    synthetic::World::new(options).filter(|envelope| envelope.provider == PROVIDER)
}

/// Records envelopes until there are so many or the tape is so large.
fn record(dir: &Path, n: usize, bytes: u64) -> usize {
    let start = UnixMicros(1_767_614_400_000_000);
    let mut tape = Archive::open(dir, Arc::new(RealDisk), ArchiveOptions::default(), decode_record, "bench", start).unwrap();
    let source = SourceName::from(PROVIDER);
    tape.add_source(&source, PROVIDER).unwrap();
    let (mut done, mut last) = (0, start);
    for envelope in world(50.0).take(n) {
        let decoded = decode(PROVIDER, &envelope.bytes);
        let draft = Draft {
            received_at: envelope.at,
            kind: RecordKind::Frame,
            via: Via::Ws,
            conn: ConnId(1),
            info: None,
            body: Body::Bytes(envelope.bytes),
        };
        tape.append(&source, &draft, Some(&decoded)).unwrap();
        (done, last) = (done + 1, envelope.at);
        if done % 10_000 == 0 {
            tape.commit(last).unwrap();
            if bytes_below(dir) >= bytes {
                break;
            }
        }
    }
    tape.close(last).unwrap();
    done
}

fn bytes_below(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap());
    entries.map(|e| if e.path().is_dir() { bytes_below(&e.path()) } else { e.metadata().unwrap().len() }).sum()
}

fn cpu() -> f64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}

fn profile() -> &'static str {
    if cfg!(debug_assertions) { "debug (meaningless)" } else { "optimised" }
}

/// Reads so many bytes of frames on each of so many connections and throws them away.
async fn drain(address: SocketAddr, n_clients: usize, bytes: u64) {
    let mut sockets = Vec::new();
    for _ in 0..n_clients {
        let mut tcp = TcpStream::connect(address).await.unwrap();
        tcp.write_all(
            b"GET /ws?apiKey=bench HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
              Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )
        .await
        .unwrap();
        sockets.push(tcp);
    }
    let started = Instant::now();
    let reading = sockets.into_iter().map(|mut tcp| {
        tokio::spawn(async move {
            let mut buffer = vec![0; 256 << 10];
            // The head of the answer comes alone, or with the first frames behind it.
            let mut seen = 0_u64;
            let mut head = Vec::new();
            loop {
                let n = tcp.read(&mut buffer).await.unwrap();
                assert!(n > 0, "the server went away");
                head.extend_from_slice(&buffer[..n]);
                if let Some(at) = head.windows(4).position(|four| four == b"\r\n\r\n") {
                    seen += (head.len() - at - 4) as u64;
                    break;
                }
            }
            while seen < bytes {
                let n = tcp.read(&mut buffer).await.unwrap();
                assert!(n > 0, "the server went away after {seen} bytes");
                seen += n as u64;
            }
            tcp
        })
    });
    // All stay until the last one has everything.
    let mut done = Vec::new();
    for reading in reading.collect::<Vec<_>>() {
        done.push(reading.await.unwrap());
    }
    println!("{}", started.elapsed().as_secs_f64());
}

/// Seconds and CPU seconds of this process while another drains `address`.
async fn drained(address: SocketAddr, n_clients: usize, bytes: u64) -> (f64, f64) {
    let before = cpu();
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["drain", &address.to_string(), &n_clients.to_string(), &bytes.to_string()]).stdout(Stdio::piped());
    let output = tokio::task::spawn_blocking(move || child.output().unwrap()).await.unwrap();
    assert!(output.status.success());
    let seconds = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
    (seconds, cpu() - before)
}

async fn throughput() {
    let dir = tempfile::tempdir().unwrap();
    let n = record(dir.path(), 200_000, u64::MAX);
    let bodies: Arc<Vec<Bytes>> = Arc::new(world(50.0).take(n).map(|envelope| envelope.bytes).collect());
    let frames = Arc::new(framed(&bodies));
    println!("full speed, {n} envelopes of {} bytes on average, {ROUNDS} rounds in turn, {}\n", frames.len() / n, profile());
    println!("| clients | server | messages/s | cpu/M delivered | CPU ÷ replay |\n| --- | --- | --- | --- | --- |");
    for n_clients in [1, 10, 100] {
        // About as many deliveries each time.
        let n_sent = n / if n_clients == 100 { 10 } else { 1 };
        let bytes = framed(&bodies[..n_sent]).len() as u64;
        let mut results = [const { Vec::new() }; 3];
        for _ in 0..ROUNDS {
            let replay = from_tape(dir.path(), Speed::Max, n_clients).await;
            results[0].push(drained(address(&replay), n_clients, bytes).await);
            drop(replay);
            let server = sender(n_clients, Sender::Messages(Arc::clone(&bodies), n_sent)).await;
            results[1].push(drained(server, n_clients, bytes).await);
            let server = sender(n_clients, Sender::Frames(Arc::clone(&frames), bytes as usize)).await;
            results[2].push(drained(server, n_clients, bytes).await);
        }
        let medians = results.map(|mut rounds| {
            rounds.sort_by(|a, b| a.1.total_cmp(&b.1));
            let cpu = rounds[ROUNDS / 2].1;
            rounds.sort_by(|a, b| a.0.total_cmp(&b.0));
            (rounds[ROUNDS / 2].0, cpu)
        });
        let delivered = (n_sent * n_clients) as f64;
        for (name, (wall, cpu)) in
            ["replay from the tape", "send loop, same library", "frames made beforehand"].iter().zip(medians)
        {
            println!(
                "| {n_clients} | {name} | {:.0} | {:.2} | {:.2} |",
                delivered / wall,
                cpu * 1e6 / delivered,
                cpu / medians[0].1
            );
        }
        println!(
            "| {n_clients} | *replay ÷ send loop, replay ÷ frames* | {:.2}, {:.2} | | |",
            medians[1].0 / medians[0].0,
            medians[2].0 / medians[0].0
        );
    }
}

fn framed(bodies: &[Bytes]) -> Bytes {
    let mut out = BytesMut::new();
    for body in bodies {
        match (u8::try_from(body.len()), u16::try_from(body.len())) {
            (Ok(len @ ..126), _) => out.extend_from_slice(&[0x81, len]),
            (_, Ok(len)) => {
                out.extend_from_slice(&[0x81, 126]);
                out.extend_from_slice(&len.to_be_bytes());
            }
            _ => panic!("a larger envelope than the generator makes"),
        }
        out.extend_from_slice(body);
    }
    out.freeze()
}

enum Sender {
    Messages(Arc<Vec<Bytes>>, usize),
    Frames(Arc<Bytes>, usize),
}

/// A server that sends to every client once all are there.
async fn sender(n_clients: usize, what: Sender) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let what = Arc::new(what);
        let together = Arc::new(tokio::sync::Barrier::new(n_clients));
        for _ in 0..n_clients {
            let (tcp, _) = listener.accept().await.unwrap();
            tcp.set_nodelay(true).unwrap();
            let (what, together) = (Arc::clone(&what), Arc::clone(&together));
            tokio::spawn(async move {
                let mut ws = tokio_tungstenite::accept_async(tcp).await.unwrap();
                together.wait().await;
                match &*what {
                    Sender::Messages(bodies, n) => {
                        for body in &bodies[..*n] {
                            let text = body.clone().try_into().unwrap();
                            ws.feed(Message::Text(text)).await.unwrap();
                        }
                        ws.flush().await.unwrap();
                    }
                    Sender::Frames(frames, bytes) => {
                        for chunk in frames[..*bytes].chunks(128 << 10) {
                            ws.get_mut().write_all(chunk).await.unwrap();
                        }
                    }
                }
                // Until the client leaves.
                let mut rest = [0; 64];
                while matches!(ws.get_mut().read(&mut rest).await, Ok(1..)) {}
            });
        }
    });
    address
}

async fn from_tape(dir: &Path, speed: Speed, n_clients: usize) -> Replay {
    let feed = Feed::Tape { dir: dir.to_owned() };
    start(Options { speed, wait_for_clients: n_clients, max_connections: Some(1_000), ..Options::new(feed) }).await
}

async fn start(options: Options) -> Replay {
    let listener = replay::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    replay::start(options, listener, Arc::new(RealDisk), std::future::pending()).await.unwrap()
}

fn address(replay: &Replay) -> SocketAddr {
    replay.urls().base().strip_prefix("http://").unwrap().parse().unwrap()
}

async fn connect(replay: &Replay) -> Live {
    let mut settings = default_settings(PROVIDER);
    settings.base = Some(Base::parse(&replay.urls().base()).unwrap());
    settings.credentials.key = Secret::new("bench");
    let opening = birdtape::provider::Client::new(settings).opening();
    let network = SystemNetwork::new(TlsOptions::default()).unwrap();
    birdtape::net::open(&network, &opening, &Limits::default()).await.unwrap().live
}

async fn message(live: &mut Live) -> Bytes {
    loop {
        match live.next().await {
            Incoming::Message(message) => return message,
            Incoming::Alive => {}
            other => panic!("{other:?}"),
        }
    }
}

fn percentile(sorted: &[f64], p: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * p) as usize]
}

async fn pacing() {
    println!("\nerror between two messages, made-up world of 100 envelopes/s, 10 s each\n");
    println!("| speed | messages | p50 | p99 | largest |\n| --- | --- | --- | --- | --- |");
    for rate in [1.0, 10.0] {
        let n = (1_000.0 * rate) as usize;
        let envelopes: Vec<_> = world(100.0).take(n).collect();
        let feed = Feed::Lines { envelopes: envelopes.clone() };
        let replay = start(Options { speed: Speed::Times(rate), ..Options::new(feed) }).await;
        let mut live = connect(&replay).await;
        let mut arrived = Vec::with_capacity(n);
        for _ in 0..n {
            drop(message(&mut live).await);
            arrived.push(Instant::now());
        }
        let waits = envelopes.windows(2).map(|two| (two[1].at.0 - two[0].at.0) as f64 / 1e3 / rate);
        let came = arrived.windows(2).map(|two| (two[1] - two[0]).as_secs_f64() * 1e3);
        let mut errors: Vec<f64> = waits.zip(came).map(|(wanted, got)| (got - wanted).abs()).collect();
        errors.sort_by(f64::total_cmp);
        let of = |p| percentile(&errors, p);
        println!("| {rate}x | {n} | {:.2} ms | {:.2} ms | {:.2} ms |", of(0.5), of(0.99), of(1.0));
    }
}

async fn seek(dir: &Path, large_mb: u64) {
    println!("\nfirst message after a seek, 60 seeks each, {}\n", profile());
    println!("| tape | envelopes' span | p50 | p99 |\n| --- | --- | --- | --- |");
    for mb in [10, large_mb] {
        let tape = dir.join(format!("{mb}-mb"));
        if !tape.exists() {
            record(&tape, usize::MAX, mb * 1_000_000);
        }
        let feed = Feed::Tape { dir: tape.clone() };
        let replay = start(Options { start: Start::Paused, speed: Speed::Max, ..Options::new(feed) }).await;
        let control = replay.control();
        let mut live = connect(&replay).await;
        let status = control.status();
        let (first, last) = (status.first, status.last.unwrap());
        let mut took = Vec::new();
        for n in 0..60_i64 {
            // Spread without order over the whole of it.
            let at = UnixMicros(first.0 + (last.0 - first.0) / 61 * ((n * 37) % 60 + 1));
            let started = Instant::now();
            control.seek(Place::At(at)).await.unwrap();
            control.step(1).unwrap();
            drop(message(&mut live).await);
            took.push(started.elapsed().as_secs_f64() * 1e3);
        }
        took.sort_by(f64::total_cmp);
        let span = Duration::from_micros((last.0 - first.0) as u64);
        println!(
            "| {} MB | {:.1} h | {:.1} ms | {:.1} ms |",
            bytes_below(&tape) / 1_000_000,
            span.as_secs_f64() / 3_600.0,
            percentile(&took, 0.5),
            percentile(&took, 0.99)
        );
    }
}

/// Peak memory of this process so far, in MB.
fn peak_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok()).unwrap_or(f64::NAN) / 1024.0
}

async fn slow() {
    // Made by another process, so that this one's memory is the replay's.
    let dir = tempfile::tempdir().unwrap();
    let n = 100_000;
    let made =
        Command::new(std::env::current_exe().unwrap()).args(["make", dir.path().to_str().unwrap(), &n.to_string()]).output();
    let bytes = String::from_utf8(made.unwrap().stdout).unwrap().trim().parse().unwrap();
    let before = peak_mb();
    let feed = Feed::Tape { dir: dir.path().to_owned() };
    let options =
        Options { speed: Speed::Times(200.0), wait_for_clients: 100, max_connections: Some(1_000), ..Options::new(feed) };
    let replay = start(options).await;
    let mut asleep = Vec::new();
    for _ in 0..10 {
        // Connected, and never read from again.
        asleep.push(connect(&replay).await);
    }
    let (wall, cpu) = drained(address(&replay), 90, bytes).await;
    let stats = replay.stats();
    println!(
        "\n100 clients at 200x, 10 of them asleep: {:.0} messages/s in all, {:.2} cpu/M, {} sent away as too slow,",
        (n * 90) as f64 / wall,
        cpu * 1e6 / (n * 90) as f64,
        stats.of(PROVIDER).too_slow
    );
    println!("peak memory {:.0} MB (before: {before:.0} MB), {}", peak_mb(), profile());
    drop(asleep);
}
