//! Speed of filling, as a ratio to a loop that drains the same server and throws the pages away.
//!
//! ```text
//! cargo bench --bench backfill                    all parts
//! cargo bench --bench backfill -- prepared        pages made of prepared rows: 1,000,000 in pages of 1,000, 100,000 in pages of 20
//! cargo bench --bench backfill -- replay          1,000,000 from the history of a replay of a tape, in pages of 1,000
//! ```
//!
//! The server, the loop and the filling are processes of their own, over loopback and plain HTTP. The loop makes the very
//! requests that a filling made, over the same pooled client, and throws the answers away; the filling is
//! `backfill::run` on a real tape, from its plan to its verdict. They take turns (loop, filling, loop, filling …), and the
//! medians are compared. Rows are the generator's posts, each with an id and a time of its own; 20,000 different ones
//! take turns, so that nothing compresses better than it would.
#![allow(
    missing_docs,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a program for developers"
)]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use birdtape::archive::{Archive, Lost, Options as ArchiveOptions};
use birdtape::backfill::{self, Budgets};
use birdtape::model::{
    Body, Cause, ConnId, Draft, Endpoint, GapState, Provider, RecordKind, Request, Response, Secret, SourceName, TweetId,
    UnixMicros, Via,
};
use birdtape::net::{
    self, Connecting, Exchanging, Limits, Network, Reply, ServerOptions, ServerRequest, SystemClock, SystemNetwork, TlsOptions,
};
use birdtape::provider::synthetic::{self, World};
use birdtape::provider::{Base, decode, decode_record, default_lateness_horizon, default_settings};
use birdtape::replay::{self, Feed, Place};
use birdtape::segment::RealDisk;
use tokio::net::TcpListener;

const ROUNDS: usize = 5;
const START: UnixMicros = UnixMicros(1_767_614_400_000_000);
/// Between two posts.
const STEP: Duration = Duration::from_millis(100);
/// Posts on either side of the hole that came live: more than an edge's overlap needs.
const EDGE: usize = 10_000;
const TEMPLATES: usize = 20_000;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    match args.as_slice() {
        ["serve", what] => runtime.block_on(serve(What::parse(what))),
        ["requests", what, port, file] => runtime.block_on(requests(What::parse(what), port.parse().unwrap(), Path::new(file))),
        ["drain", what, port, file] => runtime.block_on(drain(What::parse(what), port.parse().unwrap(), Path::new(file))),
        ["record", what, dir] => record(What::parse(what), Path::new(dir)),
        ["fill", what, port, dir] => runtime.block_on(fill(What::parse(what), port.parse().unwrap(), Path::new(dir))),
        ["prepared"] => prepared(),
        ["replay"] => side_by_side(&[What { kind: Kind::Replay, n: 1_440_000 }]),
        _ => {
            prepared();
            side_by_side(&[What { kind: Kind::Replay, n: 1_440_000 }]);
        }
    }
}

fn prepared() {
    side_by_side(&[What { kind: Kind::Large, n: 1_000_000 }, What { kind: Kind::Small, n: 100_000 }]);
}

/// A server and how many posts are missing.
#[derive(Clone, Copy)]
struct What {
    kind: Kind,
    n: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// Prepared rows, 1,000 on a page: TweetStream's history.
    Large,
    /// Prepared rows, 20 on a page: TwitterAPI.io's search.
    Small,
    /// A replay of a tape with the generator's world, of whose envelopes seven in ten are posts: TweetStream's history.
    Replay,
}

impl What {
    fn parse(text: &str) -> Self {
        let (kind, n) = text.split_once('-').unwrap();
        let kind = [Kind::Large, Kind::Small, Kind::Replay].into_iter().find(|one| one.name() == kind).unwrap();
        Self { kind, n: n.parse().unwrap() }
    }

    fn name(self) -> String {
        format!("{}-{}", self.kind.name(), self.n)
    }

    fn provider(self) -> Provider {
        if self.kind == Kind::Small { Provider::TwitterapiIo } else { Provider::Tweetstream }
    }
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Large => "large",
            Self::Small => "small",
            Self::Replay => "replay",
        }
    }

    fn shown(self) -> &'static str {
        match self {
            Self::Large => "prepared, pages of 1,000",
            Self::Small => "prepared, pages of 20",
            Self::Replay => "`birdtape replay`, pages of 1,000",
        }
    }
}

fn side_by_side(parts: &[What]) {
    println!("{ROUNDS} rounds in turn, medians, {}\n", if cfg!(debug_assertions) { "debug (meaningless)" } else { "optimised" });
    println!("| history server | rows | loop, rows/s | filling, rows/s | filling ÷ loop | filling, cpu/M | peak memory |");
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    for what in parts {
        let mut server = child(&["serve", &what.name()]);
        let port = server_line(&mut server);
        let list = tempfile::NamedTempFile::new().unwrap();
        let list = list.path().to_str().unwrap();
        output(&["requests", &what.name(), &port, list]);
        let (mut drained, mut filled) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            drained.push(output(&["drain", &what.name(), &port, list]));
            let dir = tempfile::tempdir().unwrap();
            let dir = dir.path().to_str().unwrap();
            output(&["record", &what.name(), dir]);
            filled.push(output(&["fill", &what.name(), &port, dir]));
        }
        server.kill().unwrap();
        server.wait().unwrap();
        let rows = median(&filled, 3);
        let rate = |rounds: &[Vec<f64>]| rows / median(rounds, 0);
        println!(
            "| {} | {} | {:.0} | {:.0} | {:.2} | {:.1} | {:.0} MB |",
            what.kind.shown(),
            rows,
            rate(&drained),
            rate(&filled),
            rate(&filled) / rate(&drained),
            median(&filled, 1) * 1e6 / rows,
            median(&filled, 2)
        );
    }
}

fn median(rounds: &[Vec<f64>], column: usize) -> f64 {
    let mut values: Vec<f64> = rounds.iter().map(|round| round[column]).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn child(args: &[&str]) -> Child {
    Command::new(std::env::current_exe().unwrap()).args(args).stdout(Stdio::piped()).spawn().unwrap()
}

fn server_line(child: &mut Child) -> String {
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    line.trim().to_owned()
}

/// The numbers that another process prints.
fn output(args: &[&str]) -> Vec<f64> {
    let output = child(args).wait_with_output().unwrap();
    assert!(output.status.success(), "{args:?}");
    String::from_utf8(output.stdout).unwrap().split_whitespace().map(|number| number.parse().unwrap()).collect()
}

fn cpu() -> f64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}

/// Peak memory of this process so far, in MB.
fn peak_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok()).unwrap_or(f64::NAN) / 1024.0
}

fn tell(started: Instant, cpu_before: f64, rows: u64) {
    println!("{} {} {} {rows}", started.elapsed().as_secs_f64(), cpu() - cpu_before, peak_mb());
}

/// A post whose id and times can be replaced in place.
struct Template {
    bytes: Vec<u8>,
    ids: Vec<usize>,
    times: Vec<usize>,
}

const ID: &str = "1111111111111111111";
const TIME: &str = "1999-09-09T09:09:09.999Z";

impl Template {
    fn new(text: &str) -> Self {
        let find = |what: &str| text.match_indices(what).map(|(at, _)| at).collect();
        Self { bytes: text.as_bytes().to_vec(), ids: find(ID), times: find(TIME) }
    }

    fn write(&self, n: usize, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        let id = id(n).to_string();
        for at in &self.ids {
            out[start + at..start + at + ID.len()].copy_from_slice(id.as_bytes());
        }
        if !self.times.is_empty() {
            let time = published_at(n).to_string();
            for at in &self.times {
                out[start + at..start + at + TIME.len() - 1].copy_from_slice(&time.as_bytes()[..TIME.len() - 1]);
            }
        }
    }
}

fn published_at(n: usize) -> UnixMicros {
    START.plus(STEP * n as u32)
}

fn id(n: usize) -> TweetId {
    TweetId(TweetId::first_at(published_at(n)).0 + (n % 4096) as u64)
}

/// The first post at or after an instant.
fn first_from(at: UnixMicros, n: usize) -> usize {
    (at.since(START).max(0) as u64).div_ceil(STEP.as_micros() as u64).min(n as u64) as usize
}

/// Posts as a server's rows and as live envelopes, and the accounts and rules that brought them.
struct Posts {
    rows: Vec<Template>,
    live: Vec<Template>,
    selectors: BTreeSet<String>,
}

fn world(provider: Provider) -> impl Iterator<Item = synthetic::Envelope> {
    let mut mix = [0.0; 4];
    mix[provider as usize] = 1.0;
    // One post in about STEP.
    let options = synthetic::Options { seed: 7, mix, rate: 10.0, ..synthetic::Options::default() };
    World::new(options).filter(move |envelope| envelope.provider == provider)
}

fn posts(what: What, n_templates: usize) -> Posts {
    let mut posts = Posts { rows: Vec::new(), live: Vec::new(), selectors: BTreeSet::new() };
    for envelope in world(what.provider()) {
        if posts.rows.len() == n_templates {
            break;
        }
        let text = std::str::from_utf8(&envelope.bytes).unwrap();
        let Ok(value) = serde_json::from_str::<Envelope<'_>>(text) else { continue };
        let (row, live) = match (what.kind, value) {
            (Kind::Small, Envelope { tweets: Some([tweet]), .. }) => {
                let id = id_in(tweet.get(), "\"id\":\"");
                let row = tweet.get().replace(id, ID);
                let live = format!("{{\"event_type\":\"tweet\",\"tweets\":[{row}],\"rule_id\":\"r1\",\"rule_value\":\"birds\"}}");
                (row, live)
            }
            (Kind::Large, Envelope { op: Some("content"), id: Some(id), d: Some(d), .. }) if id.len() == ID.len() => {
                let content = d.get().replace(id, ID);
                let row = format!(
                    "{{\"tweetId\":\"{ID}\",\"twitterId\":\"1\",\"twitterHandle\":\"a\",\"body\":\"\",\"link\":\"\",\"time\":\"{TIME}\",\
                     \"receivedTime\":\"{TIME}\",\"messageType\":\"TWEET\",\"content\":{content}}}"
                );
                (row, text.replace(id, ID))
            }
            _ => continue,
        };
        if what.kind == Kind::Large {
            posts.selectors.extend(decode(what.provider(), live.as_bytes()).events.into_iter().map(|event| event.selector));
        }
        posts.rows.push(Template::new(&row));
        posts.live.push(Template::new(&live));
    }
    posts
}

#[derive(serde::Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    tweets: Option<[&'a serde_json::value::RawValue; 1]>,
    op: Option<&'a str>,
    id: Option<&'a str>,
    #[serde(borrow)]
    d: Option<&'a serde_json::value::RawValue>,
}

fn id_in<'a>(text: &'a str, before: &str) -> &'a str {
    let start = text.find(before).unwrap() + before.len();
    &text[start..start + ID.len()]
}

/// Says its port, and serves until it is killed.
async fn serve(what: What) {
    if what.kind == Kind::Replay {
        let tape = tempfile::tempdir().unwrap();
        record_around(what, tape.path(), 0..0);
        let feed = Feed::Tape { dir: tape.path().to_owned() };
        let listener = replay::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let options = replay::Options { from: Some(Place::End), rate_limits: false, ..replay::Options::new(feed) };
        let replay = replay::start(options, listener, Arc::new(RealDisk), std::future::pending()).await.unwrap();
        println!("{}", replay.urls().base().rsplit(':').next().unwrap());
        replay.wait().await;
        return;
    }
    let posts = Arc::new(posts(what, TEMPLATES));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("{}", listener.local_addr().unwrap().port());
    let handler = move |asked: ServerRequest| {
        let response = answer(what, &posts, &asked);
        async { Reply::Http(response) }
    };
    net::serve(listener, Arc::new(handler), ServerOptions::default(), std::future::pending()).await.unwrap();
}

fn answer(what: What, posts: &Posts, asked: &ServerRequest) -> Response {
    let n = what.n + 2 * EDGE;
    let param = |name: &str| {
        let value = asked.query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))?;
        Some(value.replace("%3A", ":").replace("%20", " "))
    };
    let mut body = Vec::with_capacity(2 << 20);
    match asked.path.as_str() {
        "/api/me" => {
            let handles: Vec<_> = posts.selectors.iter().collect();
            body = serde_json::to_vec(&serde_json::json!({"trackedAccounts": {"handles": handles}})).unwrap();
        }
        "/api/history" => {
            let bound = |name: &str| UnixMicros::parse_rfc3339(&param(name).unwrap()).unwrap();
            let (low, high) = (first_from(bound("startDate"), n), first_from(bound("endDate"), n));
            let high = if param("type").as_deref() == Some("TWEET") { high } else { low };
            let low = low.max(high.saturating_sub(1_000));
            body.extend_from_slice(b"{\"data\":[");
            rows(posts, low..high, &mut body);
            body.extend_from_slice(format!("],\"metadata\":{{\"count\":{},\"type\":\"TWEET\"}}}}", high - low).as_bytes());
        }
        "/oapi/tweet_filter/get_rules" => {
            body.extend_from_slice(
                b"{\"status\":\"success\",\"rules\":[{\"rule_id\":\"r1\",\"tag\":\"t\",\"value\":\"birds\",\"is_effect\":1}]}",
            );
        }
        "/oapi/x_user_stream/get_user_to_monitor_tweet" => body.extend_from_slice(b"{\"status\":\"success\",\"data\":[]}"),
        "/twitter/tweet/advanced_search" => {
            let query = param("query").unwrap();
            let second = |name: &str| {
                let word = query.split(' ').find_map(|word| word.strip_prefix(name)).unwrap();
                first_from(UnixMicros(word.parse::<i64>().unwrap() * 1_000_000), n)
            };
            let (low, mut high) = (second("since_time:"), second("until_time:"));
            if let Some(max) = query.split(' ').find_map(|word| word.strip_prefix("max_id:")) {
                let max = TweetId(max.parse().unwrap());
                high = (low..high).rev().find(|n| id(*n) <= max).map_or(low, |n| n + 1);
            }
            high = param("cursor").map_or(high, |cursor| cursor.parse().unwrap());
            let first = low.max(high.saturating_sub(20));
            body.extend_from_slice(b"{\"tweets\":[");
            rows(posts, first..high, &mut body);
            let (more, next) = if first > low { ("true", first.to_string()) } else { ("false", String::new()) };
            body.extend_from_slice(format!("],\"has_next_page\":{more},\"next_cursor\":\"{next}\"}}").as_bytes());
        }
        _ => return Response::json(404, "{}"),
    }
    let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
    Response { status: 200, headers, body: body.into() }
}

/// Newest first.
fn rows(posts: &Posts, range: std::ops::Range<usize>, body: &mut Vec<u8>) {
    for (idx, n) in range.rev().enumerate() {
        if idx > 0 {
            body.push(b',');
        }
        posts.rows[n % posts.rows.len()].write(n, body);
    }
}

/// The program's own network, which notes what is asked.
struct Noted {
    network: SystemNetwork,
    targets: Mutex<Vec<String>>,
}

impl Network for Noted {
    fn connect<'a>(&'a self, endpoint: &'a Endpoint) -> Connecting<'a> {
        self.network.connect(endpoint)
    }

    fn exchange<'a>(&'a self, request: &'a Request, limits: &'a Limits) -> Exchanging<'a> {
        self.targets.lock().unwrap().push(request.target.expose().to_owned());
        self.network.exchange(request, limits)
    }
}

/// Writes the list of what a filling asks.
async fn requests(what: What, port: u16, file: &Path) {
    let network = SystemNetwork::new(TlsOptions::default()).unwrap();
    let network = Arc::new(Noted { network, targets: Mutex::default() });
    let dir = tempfile::tempdir().unwrap();
    record(what, dir.path());
    run(what, port, dir.path(), network.clone()).await;
    std::fs::write(file, network.targets.lock().unwrap().join("\n")).unwrap();
}

async fn drain(what: What, port: u16, file: &Path) {
    let list = std::fs::read_to_string(file).unwrap();
    let network = SystemNetwork::new(TlsOptions::default()).unwrap();
    let header = if what.provider() == Provider::TwitterapiIo { "x-api-key" } else { "authorization" };
    let limits = Limits::default();
    let (started, before) = (Instant::now(), cpu());
    for target in list.lines() {
        let request = Request {
            method: "GET",
            endpoint: Endpoint { tls: false, host: "127.0.0.1".to_owned(), port },
            target: Secret::new(target).unwrap(),
            headers: vec![(header, Secret::new("Bearer bench").unwrap())],
            body: String::new(),
            shown: target.to_owned(),
        };
        let answer = net::request(&network, &request, &limits).await.unwrap();
        assert_eq!(answer.status, 200, "{target}");
    }
    tell(started, before, 0);
}

async fn fill(what: What, port: u16, dir: &Path) {
    let (started, before) = (Instant::now(), cpu());
    let network = SystemNetwork::new(TlsOptions::default()).unwrap();
    let rows = run(what, port, dir, Arc::new(network)).await;
    tell(started, before, rows);
}

/// Fills the hole, and gives the rows that came back for it: those around it as well.
async fn run(what: What, port: u16, dir: &Path, network: Arc<dyn Network>) -> u64 {
    let mut settings = default_settings(what.provider());
    settings.base = Some(Base::parse(&format!("http://127.0.0.1:{port}")).unwrap());
    settings.credentials.key = Secret::new("bench");
    let options = backfill::Options {
        tape: dir.to_owned(),
        archive: ArchiveOptions::default(),
        sources: vec![backfill::Source { name: SourceName::from(what.provider()), settings, network, look_twice: false }],
        gaps: Vec::new(),
        budgets: Budgets::default(),
        // The limits of the fake server are off.
        pace: Some(Duration::ZERO),
        holder: "bench".to_owned(),
    };
    let (clock, disk) = (Arc::new(SystemClock::new()), Arc::new(RealDisk));
    let outcome = backfill::run(options, clock, disk, &mut |_| {}, std::future::pending()).await.unwrap();
    let [filled] = outcome.gaps.as_slice() else { panic!("{outcome:?}") };
    // A replay's envelopes are not all posts, and over two days some accounts leave its list: then not all is proven.
    let is_proven = filled.state == GapState::Filled || filled.detail.contains("tweet met what is known at both ends");
    assert!(is_proven && filled.new > what.n as u64 / 2, "{filled:?}");
    filled.rows
}

/// A tape of a recorder that was cut off for the middle of it.
fn record(what: What, dir: &Path) {
    record_around(what, dir, EDGE..EDGE + what.n);
}

/// A tape of a recorder that was cut off for that long.
fn record_around(what: What, dir: &Path, hole: std::ops::Range<usize>) {
    let provider = what.provider();
    let source = SourceName::from(provider);
    let mut tape = Archive::open(dir, Arc::new(RealDisk), ArchiveOptions::default(), decode_record, "bench", START).unwrap();
    tape.add_source(&source, provider).unwrap();
    let horizon = default_lateness_horizon(provider);
    tape.start_source(&source, horizon, ("boot".to_owned(), Duration::ZERO), START).unwrap();
    tape.live(&source, "*", horizon, START, "the first frame").unwrap();
    let mut last = START;
    let mut keep = |n: usize, at: UnixMicros, bytes: bytes::Bytes| {
        if n == hole.start && !hole.is_empty() {
            tape.lost(&source, at, Lost { scope: "*", cause: Cause::ConnectionLost, detail: "on purpose" }).unwrap();
        } else if n == hole.end && !hole.is_empty() {
            tape.live(&source, "*", horizon, at, "a frame").unwrap();
        }
        if !hole.contains(&n) {
            let decoded = decode(provider, &bytes);
            let (kind, via, conn, body) = (RecordKind::Frame, Via::Ws, ConnId(1), Body::Bytes(bytes));
            let draft = Draft { received_at: at, kind, via, conn, info: None, body };
            tape.append(&source, &draft, Some(&decoded)).unwrap();
        }
        last = at;
    };
    if what.kind == Kind::Replay {
        for (n, envelope) in world(provider).take(what.n + 2 * EDGE).enumerate() {
            keep(n, envelope.at, envelope.bytes);
        }
    } else {
        let posts = posts(what, TEMPLATES.min(EDGE));
        for n in (0..=hole.start).chain(hole.end..hole.end + EDGE) {
            let mut bytes = Vec::new();
            posts.live[n % posts.live.len()].write(n, &mut bytes);
            keep(n, published_at(n), bytes.into());
        }
    }
    tape.stop_source(&source, last, "the end").unwrap();
    tape.close(last).unwrap();
}
