use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tempfile::TempDir;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

use super::*;
use crate::archive::{DiskFile, DiskRead, Fact, LockRefused, MemDisk, RealDisk, Record, Span, Tape, verify};
use crate::model::{Endpoint, RecordKind, Response, Secret, UnixMicros};
use crate::net::{
    Connecting, Incoming, Reply, ServerOptions, ServerRequest, ServerSocket, ServerStream, SystemClock, SystemNetwork,
    TlsOptions, serve,
};
use crate::provider::Base;

mod webhooks;

const KEY: &str = "planted-key-5c1d";
const PATIENCE: Duration = Duration::from_secs(20);

// A peer that follows a script: one step a request.

type Step = Box<dyn FnOnce(ServerRequest) -> Reply + Send>;

/// Serves one step after the other, then answers 503. Gives the base address.
async fn peer(steps: Vec<Step>) -> Base {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let steps = Arc::new(Mutex::new(VecDeque::from(steps)));
    let handler = move |asked: ServerRequest| {
        let step = steps.lock().unwrap().pop_front();
        async move { step.map_or_else(|| Reply::Http(Response::json(503, "{}")), |step| step(asked)) }
    };
    tokio::spawn(serve(listener, Arc::new(handler), ServerOptions::default(), std::future::pending()));
    Base::parse(&format!("http://127.0.0.1:{port}")).unwrap()
}

fn ws<F>(run: impl FnOnce(ServerSocket) -> F + Send + 'static) -> Step
where
    F: Future<Output = ()> + Send + 'static,
{
    Box::new(move |asked| {
        assert!(asked.wants_upgrade);
        let run = Box::new(move |socket| Box::pin(run(socket)) as BoxFuture<'static, ()>);
        Reply::WebSocket { subprotocol: None, run }
    })
}

fn stream<F>(run: impl FnOnce(ServerStream) -> F + Send + 'static) -> Step
where
    F: Future<Output = ()> + Send + 'static,
{
    Box::new(move |_| {
        let run = Box::new(move |stream| Box::pin(run(stream)) as BoxFuture<'static, ()>);
        Reply::Stream { headers: vec![("content-type".into(), "text/event-stream".into())], run }
    })
}

fn answer(status: u16, body: &'static str) -> Step {
    Box::new(move |_| Reply::Http(Response::json(status, body)))
}

/// Reads until the client has gone, answering its farewell.
async fn stay(mut socket: ServerSocket) {
    while !matches!(socket.next().await, Incoming::Closed { .. } | Incoming::Broken { .. }) {}
}

fn tweet(n: u64) -> Bytes {
    let id = 2_064_689_031_777_615_872 + n;
    Bytes::from(format!(r#"{{"v":1,"t":"tweet","op":"content","id":"{id}","ts":1767614400000,"d":{{"tweetId":"{id}"}}}}"#))
}

async fn send(socket: &mut ServerSocket, numbers: impl IntoIterator<Item = u64>) {
    for n in numbers {
        socket.feed(tweet(n)).await.unwrap();
    }
    socket.flush().await.unwrap();
}

// The recorder.

fn source(name: &str, provider: Provider, base: &Base) -> Source {
    let key = Secret::new(KEY);
    let mut settings = provider::default_settings(provider);
    settings.base = Some(base.clone());
    settings.credentials = provider::Credentials { key: key.clone(), auth_token: key.clone(), ct0: key };
    settings.reconnect_floor = Duration::ZERO;
    settings.scopes_every = Duration::ZERO;
    let network = Arc::new(SystemNetwork::new(TlsOptions::default()).unwrap());
    let name = SourceName::new(name).unwrap();
    Source { name, settings, connections: 1, lateness_horizon: Duration::from_secs(60), network, webhook: None }
}

fn tweetstream(base: &Base) -> Source {
    source("alpha", Provider::Tweetstream, base)
}

fn options(dir: &Path, sources: Vec<Source>) -> Options {
    let archive = archive::Options { commit_every: Duration::from_millis(10), block_bytes: 4096, ..archive::Options::default() };
    Options {
        tape: dir.to_owned(),
        archive,
        max_message: 64 << 10,
        queue_bytes: 1 << 20,
        overload_wait: OVERLOAD_WAIT,
        stop_within: STOP_WITHIN,
        sources,
        until_idle: None,
        run_for: None,
        holder: "a test".to_owned(),
        beside: None,
        webhooks: None,
    }
}

/// As [`options`], where a test has options of its own.
fn plain(dir: &Path, sources: Vec<Source>) -> Options {
    options(dir, sources)
}

fn world() -> World {
    World { clock: Arc::new(SystemClock::new()), disk: Arc::new(RealDisk), writing: Writing::Thread }
}

struct Running {
    events: mpsc::UnboundedReceiver<Event>,
    stop: Option<oneshot::Sender<()>>,
    job: JoinHandle<Result<Outcome, RecordError>>,
}

fn start(options: Options, world: World) -> Running {
    let (tell, events) = mpsc::unbounded_channel();
    let (stop, stopped) = oneshot::channel::<()>();
    let sink: Sink = Arc::new(move |event| drop(tell.send(event)));
    let shutdown = async move { drop(stopped.await) };
    Running { events, stop: Some(stop), job: tokio::spawn(run(options, world, sink, shutdown)) }
}

impl Running {
    async fn until(&mut self, mut wanted: impl FnMut(&Event) -> bool) -> Event {
        let mut seen = Vec::new();
        let found = async {
            while let Some(event) = self.events.recv().await {
                if wanted(&event) {
                    return Some(event);
                }
                seen.push(event);
            }
            None
        };
        let found = tokio::time::timeout(PATIENCE, found).await;
        found.ok().flatten().unwrap_or_else(|| panic!("waited in vain; seen: {seen:#?}"))
    }

    async fn frames(&mut self, wanted: u64) {
        let mut sum = 0;
        self.until(|event| {
            if let Event::Committed { frames, .. } = event {
                sum += frames;
            }
            sum >= wanted
        })
        .await;
    }

    async fn gap(&mut self) -> Event {
        self.until(|event| matches!(event, Event::Gap { .. })).await
    }

    async fn end(self) -> Result<Outcome, RecordError> {
        tokio::time::timeout(PATIENCE, self.job).await.expect("the run ends").unwrap()
    }

    async fn stop(mut self) -> Outcome {
        self.stop.take().unwrap().send(()).unwrap();
        let outcome = self.end().await.unwrap();
        assert_eq!(outcome.stopped_by, StoppedBy::Shutdown);
        outcome
    }
}

// The tape.

fn whole(dir: &Path) {
    let report = verify(dir, &RealDisk, provider::decode_record, |_| {}).unwrap();
    assert!(report.is_whole(), "{report:#?}");
    assert!(matches!(report.catalog, archive::CatalogCheck::Equal(_)), "{report:?}");
    let planted = KEY.as_bytes();
    for name in RealDisk.list(dir).unwrap() {
        if let Ok(content) = std::fs::read(dir.join(&name)) {
            assert!(!content.windows(planted.len()).any(|w| w == planted), "the key is in {name}");
        }
    }
    for record in records(dir, None) {
        assert!(!record.line.windows(planted.len()).any(|w| w == planted), "{:?}", record.line);
    }
}

fn records(dir: &Path, kind: Option<RecordKind>) -> Vec<Record> {
    let tape = Tape::open(dir, Arc::new(RealDisk)).unwrap();
    let sources: Vec<String> = tape.sources().unwrap().into_iter().map(|source| source.name).collect();
    let mut out = Vec::new();
    for source in sources {
        let mut all = tape.records(&source, Span::default()).unwrap();
        while let Some(record) = all.next().unwrap() {
            out.push(record);
        }
    }
    out.retain(|record| kind.is_none_or(|kind| record.kind == kind));
    out
}

fn bodies(dir: &Path, kind: RecordKind) -> Vec<Bytes> {
    records(dir, Some(kind)).into_iter().map(|record| record.body).collect()
}

fn facts(dir: &Path) -> Vec<Fact> {
    bodies(dir, RecordKind::Note).iter().map(|body| serde_json::from_slice(body).unwrap()).collect()
}

fn causes(outcome: &Outcome) -> Vec<&str> {
    outcome.sources.iter().flat_map(|source| &source.open_gaps).map(|gap| gap.cause.as_str()).collect()
}

// What is kept.

#[tokio::test]
async fn keeps_odd_frames_as_they_came() {
    let odd: Vec<Bytes> = [
        &tweet(1)[..],
        b"",
        b"not json",
        b"{\"v\":1} ",
        b"{\"v\":\n1}",
        b"[1,2]",
        b"\xff\xfe\x00binary",
        "{\"text\":\"\u{2028}\\u0000\"}".as_bytes(),
        b"{\"v\":1,\"t\":\"tweet\",\"op\":\"invented\",\"new\":{}}",
    ]
    .map(Bytes::copy_from_slice)
    .to_vec();
    let script = odd.clone();
    let base = peer(vec![ws(async move |mut socket: ServerSocket| {
        for frame in script {
            socket.feed(frame).await.unwrap();
            socket.ping().await.unwrap();
        }
        stay(socket).await;
    })])
    .await;
    let dir = TempDir::new().unwrap();
    let mut running = start(options(dir.path(), vec![tweetstream(&base)]), world());
    running.frames(odd.len() as u64).await;
    let outcome = running.stop().await;
    whole(dir.path());
    assert_eq!(bodies(dir.path(), RecordKind::Frame), odd);
    let alpha = &outcome.sources[0];
    assert_eq!((alpha.frames, alpha.connections, alpha.faults, alpha.events), (9, 1, 0, 1));
    assert_eq!(alpha.open_gaps, []);
    let close = &bodies(dir.path(), RecordKind::Close)[0];
    let close: archive::Closed = serde_json::from_slice(close).unwrap();
    assert_eq!((close.code, close.by.as_str()), (Some(1000), "us"));
    assert!(matches!(facts(dir.path()).last(), Some(Fact::Stop { .. })));
    assert!(outcome.loss_window.commits > 0 && outcome.loss_window.max > Duration::ZERO);
}

#[tokio::test]
async fn keeps_what_broke_a_connection() {
    let bad_text = [0x81, 0x03, b'a', 0xff, b'b'];
    let huge = [&[0x81, 127, 0, 0, 0, 0, 0, 1, 0x11, 0x70][..], &vec![b'x'; 70_000][..]].concat();
    let sent = huge.clone();
    let base = peer(vec![
        ws(async move |mut socket: ServerSocket| {
            send(&mut socket, [1]).await;
            socket.send_raw(&bad_text).await.unwrap();
            stay(socket).await;
        }),
        ws(async move |mut socket: ServerSocket| {
            send(&mut socket, [2]).await;
            // The recorder may hang up before it is out.
            socket.send_raw(&sent).await.ok();
            stay(socket).await;
        }),
        ws(async move |mut socket: ServerSocket| {
            send(&mut socket, [3]).await;
            stay(socket).await;
        }),
    ])
    .await;
    let dir = TempDir::new().unwrap();
    let mut running = start(options(dir.path(), vec![tweetstream(&base)]), world());
    running.frames(5).await;
    let outcome = running.stop().await;
    whole(dir.path());
    let frames = records(dir.path(), Some(RecordKind::Frame));
    assert_eq!(frames[1].body, &bad_text[..]);
    assert!(frames[1].info.as_deref().unwrap().contains(r#""cause":"invalid_utf8""#), "{:?}", frames[1].info);
    assert!(frames[3].info.as_deref().unwrap().contains(r#""cause":"oversized""#), "{:?}", frames[3].info);
    assert!(huge.starts_with(&frames[3].body) && frames[3].body.len() > 64 << 10);
    assert_eq!(frames[4].body, tweet(3));
    assert_eq!((outcome.sources[0].faults, causes(&outcome)), (2, vec!["protocol", "protocol"]));
}

#[tokio::test]
async fn a_key_that_comes_back_is_not_kept() {
    let echo = format!(r#"{{"v":1,"t":"control","op":"error","ts":1,"d":{{"text":"bad {KEY}, {KEY}"}}}}"#);
    let raw = [&[0x81, 0x16][..], KEY.as_bytes(), b"\xff 12.."].concat();
    let base = peer(vec![
        ws(async move |mut socket: ServerSocket| {
            socket.feed(Bytes::from(echo)).await.unwrap();
            // Not UTF-8: it comes out of the tee, with the header of its frame.
            socket.send_raw(&raw).await.unwrap();
            stay(socket).await;
        }),
        ws(async move |mut socket: ServerSocket| {
            send(&mut socket, [3]).await;
            stay(socket).await;
        }),
    ])
    .await;
    let dir = TempDir::new().unwrap();
    let mut running = start(options(dir.path(), vec![tweetstream(&base)]), world());
    running.until(|event| matches!(event, Event::Said { text, .. } if text.contains("sent the key back"))).await;
    running.frames(3).await;
    let outcome = running.stop().await;
    whole(dir.path());
    let frames = records(dir.path(), Some(RecordKind::Frame));
    let text = r#"{"v":1,"t":"control","op":"error","ts":1,"d":{"text":"bad [redacted: 16 bytes], [redacted: 16 bytes]"}}"#;
    assert_eq!(String::from_utf8_lossy(&frames[0].body), text);
    assert_eq!(frames[0].info.as_deref(), Some(r#"{"redacted":{"bytes":32,"places":2}}"#));
    assert_eq!(&frames[1].body[..], b"\x81\x16[redacted: 16 bytes]\xff 12..");
    assert!(frames[1].info.as_deref().unwrap().contains(r#""redacted":{"bytes":16,"places":1}"#), "{:?}", frames[1].info);
    assert_eq!((&frames[2].body, &frames[2].info, outcome.sources[0].frames), (&tweet(3), &None, 3));
}

// Losses.

#[tokio::test]
async fn a_drop_is_a_gap_from_the_last_evidence_to_the_first_after() {
    let base = peer(vec![
        ws(async |mut socket: ServerSocket| {
            send(&mut socket, 0..3).await;
            socket.close(1012, &format!("restart of {KEY}")).await.unwrap();
            stay(socket).await;
        }),
        ws(async |mut socket: ServerSocket| {
            send(&mut socket, [3]).await;
            stay(socket).await;
        }),
    ])
    .await;
    let dir = TempDir::new().unwrap();
    let mut running = start(options(dir.path(), vec![tweetstream(&base)]), world());
    running.frames(4).await;
    let outcome = running.stop().await;
    whole(dir.path());
    assert_eq!((causes(&outcome), outcome.sources[0].connections), (vec!["connection_lost"], 2));
    let frames = records(dir.path(), Some(RecordKind::Frame));
    let horizon = Duration::from_secs(60);
    let facts = facts(dir.path());
    let gap = facts.iter().find_map(|fact| match fact {
        Fact::Gap { from, to, detail, .. } => Some((*from, *to, detail.clone())),
        _ => None,
    });
    let (from, to, detail) = gap.unwrap();
    // Nothing was covered yet a horizon before the last evidence, so the gap begins where the scope does.
    let since = facts.iter().find_map(|fact| match fact {
        Fact::Scope { since, .. } => Some(*since),
        _ => None,
    });
    assert_eq!((from, to), (since.unwrap().max(frames[2].at.minus(horizon)), None), "{detail}");
    let step = facts.iter().find_map(|fact| match fact {
        Fact::GapStep { to, .. } => *to,
        _ => None,
    });
    assert_eq!(step, Some(frames[3].at.plus(horizon)));
    let close = String::from_utf8(bodies(dir.path(), RecordKind::Close)[0].to_vec()).unwrap();
    assert!(close.contains(r#""code":1012,"reason":"restart of ***","by":"peer""#), "{close}");
}

#[tokio::test]
async fn quiet_links_are_proven_by_their_pongs() {
    let base = peer(vec![ws(async |mut socket: ServerSocket| {
        socket.ping().await.unwrap();
        stay(socket).await;
    })])
    .await;
    let dir = TempDir::new().unwrap();
    let mut running = start(options(dir.path(), vec![tweetstream(&base)]), world());
    let mut commits = 0;
    running.until(|event| matches!(event, Event::Connected { .. })).await;
    running
        .until(|event| {
            commits += u32::from(matches!(event, Event::Committed { .. }));
            commits == 1
        })
        .await;
    running.stop().await;
    whole(dir.path());
    let facts = facts(dir.path());
    assert!(facts.iter().any(|fact| matches!(fact, Fact::Alive { .. })), "{facts:?}");
    assert!(facts.iter().any(|fact| matches!(fact, Fact::Scope { .. })), "{facts:?}");
}

#[tokio::test]
async fn a_wrong_key_ends_the_source() {
    let base = peer(vec![answer(401, r#"{"error":"Unauthorized"}"#)]).await;
    let dir = TempDir::new().unwrap();
    let outcome = start(options(dir.path(), vec![tweetstream(&base)]), world()).end().await.unwrap();
    whole(dir.path());
    let alpha = &outcome.sources[0];
    assert_eq!((outcome.stopped_by, alpha.fault), (StoppedBy::Sources, Some(Fault::Credentials)));
    assert_eq!(causes(&outcome), ["auth"]);
    let http = &records(dir.path(), Some(RecordKind::Http))[0];
    assert_eq!(&http.body[..], br#"{"error":"Unauthorized"}"#);
    assert!(http.info.as_deref().unwrap().contains(r#""status":401"#), "{:?}", http.info);
}

#[tokio::test]
async fn no_credits_is_a_gap_and_a_wait() {
    let base = peer(vec![answer(402, r#"{"error":"pay"}"#)]).await;
    let dir = TempDir::new().unwrap();
    let mut running = start(options(dir.path(), vec![source("t", Provider::TwitterapiIo, &base)]), world());
    let gap = running.gap().await;
    assert!(matches!(&gap, Event::Gap { cause, .. } if cause == "credits"), "{gap:?}");
    let outcome = running.stop().await;
    whole(dir.path());
    assert_eq!(outcome.sources[0].fault, None);
}

#[tokio::test]
async fn nobody_there_is_a_gap() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = Base::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    drop(listener);
    let dir = TempDir::new().unwrap();
    let mut running = start(options(dir.path(), vec![tweetstream(&base)]), world());
    let gap = running.gap().await;
    assert!(matches!(&gap, Event::Gap { cause, .. } if cause == "unreachable"), "{gap:?}");
    running.stop().await;
    whole(dir.path());
}

#[tokio::test]
async fn one_of_two_connections_may_drop() {
    let (dropped, told) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (drop_now, drop_done) = (Arc::clone(&dropped), Arc::clone(&told));
    let base = peer(vec![
        ws(async move |mut socket: ServerSocket| {
            send(&mut socket, 0..5).await;
            drop_now.notified().await;
            socket.close(1012, "").await.unwrap();
            stay(socket).await;
            drop_done.notify_one();
        }),
        ws(async |mut socket: ServerSocket| {
            send(&mut socket, 0..5).await;
            stay(socket).await;
        }),
        ws(async |mut socket: ServerSocket| {
            send(&mut socket, [5]).await;
            stay(socket).await;
        }),
    ])
    .await;
    let dir = TempDir::new().unwrap();
    let two = Source { connections: 2, ..tweetstream(&base) };
    let mut running = start(options(dir.path(), vec![two]), world());
    running.frames(10).await;
    dropped.notify_one();
    told.notified().await;
    running.frames(1).await;
    let outcome = running.stop().await;
    whole(dir.path());
    let alpha = &outcome.sources[0];
    assert_eq!((alpha.frames, alpha.events, alpha.repeated, alpha.connections), (11, 6, 5, 3));
    assert_eq!(alpha.open_gaps, []);
    assert!(!facts(dir.path()).iter().any(|fact| matches!(fact, Fact::Gap { .. })));
}

#[tokio::test]
async fn a_stop_and_a_start_are_a_gap() {
    let once = || {
        ws(async |mut socket: ServerSocket| {
            send(&mut socket, [1]).await;
            stay(socket).await;
        })
    };
    let base = peer(vec![once(), once()]).await;
    let dir = TempDir::new().unwrap();
    for found in [vec![], vec!["stopped"]] {
        let mut running = start(options(dir.path(), vec![tweetstream(&base)]), world());
        running.frames(1).await;
        assert_eq!(causes(&running.stop().await), found);
        whole(dir.path());
    }
}

// When it ends.

#[tokio::test]
async fn ends_when_idle_or_when_time_is_over() {
    for by in [StoppedBy::Idle, StoppedBy::RunFor] {
        let base = peer(vec![ws(async |mut socket: ServerSocket| {
            send(&mut socket, 0..3).await;
            stay(socket).await;
        })])
        .await;
        let dir = TempDir::new().unwrap();
        let mut options = options(dir.path(), vec![tweetstream(&base)]);
        match by {
            StoppedBy::Idle => options.until_idle = Some(Duration::from_millis(300)),
            _ => options.run_for = Some(Duration::from_secs(1)),
        }
        let outcome = start(options, world()).end().await.unwrap();
        assert_eq!((outcome.stopped_by, outcome.sources[0].frames), (by, 3));
        whole(dir.path());
    }
}

#[tokio::test]
async fn without_reconnecting_a_drop_is_the_end() {
    let base = peer(vec![ws(async |mut socket: ServerSocket| {
        send(&mut socket, [1]).await;
        socket.close(1000, "").await.unwrap();
        stay(socket).await;
    })])
    .await;
    let dir = TempDir::new().unwrap();
    let mut source = tweetstream(&base);
    source.settings.auto_reconnect = false;
    let outcome = start(options(dir.path(), vec![source]), world()).end().await.unwrap();
    assert_eq!((outcome.stopped_by, outcome.sources[0].fault), (StoppedBy::Sources, Some(Fault::Dropped)));
    assert_eq!(causes(&outcome), ["connection_lost"]);
    whole(dir.path());
}

#[tokio::test]
async fn a_second_recorder_is_refused() {
    let base = peer(vec![ws(stay)]).await;
    let dir = TempDir::new().unwrap();
    let mut running = start(options(dir.path(), vec![tweetstream(&base)]), world());
    running.until(|event| matches!(event, Event::Connected { .. })).await;
    let second = start(options(dir.path(), vec![tweetstream(&base)]), world()).end().await.unwrap_err();
    assert!(matches!(&second, RecordError::Archive(ArchiveError::Locked { holder, .. }) if holder == "a test"), "{second:?}");
    assert!(second.hint().is_some());
    running.stop().await;
    whole(dir.path());
}

struct Panics;

impl Network for Panics {
    fn connect<'a>(&'a self, _: &'a Endpoint) -> Connecting<'a> {
        panic!("planted")
    }
}

#[tokio::test]
async fn a_panic_ends_the_run() {
    let base = peer(vec![ws(stay)]).await;
    let dir = TempDir::new().unwrap();
    let bad = Source { network: Arc::new(Panics), ..source("bad", Provider::Scrapebadger, &base) };
    let error = start(options(dir.path(), vec![tweetstream(&base), bad]), world()).end().await.unwrap_err();
    assert!(matches!(&error, RecordError::Panicked { why, .. } if why == "planted"), "{error}");
    whole(dir.path());
}

// The disk.

#[tokio::test]
async fn commits_every_envelope_when_asked_to() {
    let base = peer(vec![ws(async |mut socket: ServerSocket| {
        send(&mut socket, 0..20).await;
        stay(socket).await;
    })])
    .await;
    let dir = TempDir::new().unwrap();
    let mut options = options(dir.path(), vec![tweetstream(&base)]);
    options.archive.commit_every = Duration::ZERO;
    let mut running = start(options, world());
    let mut seen = 0;
    while seen < 20 {
        let Event::Committed { frames, .. } = running.until(|event| matches!(event, Event::Committed { .. })).await else {
            unreachable!()
        };
        assert!(frames <= 1);
        seen += frames;
    }
    running.stop().await;
    whole(dir.path());
}

/// Ten envelopes, ten more at each of the two words, then the connection ends.
async fn thirty(go_on: [Arc<Notify>; 2]) -> Base {
    peer(vec![ws(async move |mut socket: ServerSocket| {
        send(&mut socket, 0..10).await;
        for (nth, word) in (1..).zip(go_on) {
            word.notified().await;
            send(&mut socket, nth * 10..(nth + 1) * 10).await;
        }
    })])
    .await
}

impl Running {
    async fn said(&mut self, words: &str) {
        self.until(|event| matches!(event, Event::Said { text, .. } if text.contains(words))).await;
    }
}

#[tokio::test]
async fn a_full_disk_is_waited_for() {
    let words = [(); 2].map(|()| Arc::new(Notify::new()));
    let base = thirty(words.clone()).await;
    let (dir, disk) = (TempDir::new().unwrap(), MemDisk::default());
    let world = World { disk: Arc::new(disk.clone()), ..world() };
    let mut running = start(options(dir.path(), vec![tweetstream(&base)]), world);
    running.frames(10).await;
    disk.fail_at(1, io::ErrorKind::StorageFull, true);
    words[0].notify_one();
    running.said("the disk is full").await;
    disk.heal();
    running.said("there is room on the disk again").await;
    words[1].notify_one();
    running.until(|event| matches!(event, Event::Disconnected { .. })).await;
    let outcome = running.stop().await;
    assert_eq!(causes(&outcome)[0], "disk");
    let report = verify(dir.path(), &disk, provider::decode_record, |_| {}).unwrap();
    assert!(report.is_whole(), "{report:#?}");
    let alpha = &outcome.sources[0];
    // The commit that was refused; what waited behind it was kept.
    assert!((1..=10).contains(&alpha.dropped), "{alpha:#?}");
    assert_eq!((alpha.frames, alpha.events), (30 - alpha.dropped, 30 - alpha.dropped));
    let tape = Tape::open(dir.path(), Arc::new(disk)).unwrap();
    let mut all = tape.records("alpha", Span::default()).unwrap();
    let (mut kept, mut notes) = (Vec::new(), Vec::new());
    while let Some(record) = all.next().unwrap() {
        match record.kind {
            RecordKind::Frame => kept.push(record.body),
            RecordKind::Note => notes.push(serde_json::from_slice::<Fact>(&record.body).unwrap()),
            _ => {}
        }
    }
    // A commit that failed half way may have put its first records on the disk: they are kept, and none of them twice.
    let more = report.sources[0].envelopes - alpha.frames;
    assert!(more <= alpha.dropped, "{report:#?}");
    assert_eq!(kept, (0..10 + more).chain(10 + alpha.dropped..30).map(tweet).collect::<Vec<_>>());
    let told = notes.iter().find_map(|note| match note {
        Fact::Gap { cause, detail, .. } if cause == "disk" => Some(detail),
        _ => None,
    });
    assert!(told.unwrap().contains("no storage space"), "{notes:#?}");
}

#[tokio::test]
async fn a_recorder_that_waits_for_room_can_be_stopped() {
    let words = [(); 2].map(|()| Arc::new(Notify::new()));
    let base = thirty(words.clone()).await;
    let (dir, disk) = (TempDir::new().unwrap(), MemDisk::default());
    let world = World { disk: Arc::new(disk.clone()), ..world() };
    let mut running = start(options(dir.path(), vec![tweetstream(&base)]), world.clone());
    running.frames(10).await;
    disk.fail_at(1, io::ErrorKind::StorageFull, true);
    words[0].notify_one();
    running.said("the disk is full").await;
    running.stop.take().unwrap().send(()).unwrap();
    let error = running.end().await.unwrap_err();
    assert!(error.hint().unwrap().contains("free some space"), "{error}");
    disk.heal();
    let base = peer(vec![ws(async |mut socket: ServerSocket| {
        send(&mut socket, [99]).await;
        stay(socket).await;
    })])
    .await;
    let mut running = start(options(dir.path(), vec![tweetstream(&base)]), world);
    running.frames(1).await;
    // No room for the farewell either: for who comes next it looks like a kill.
    assert_eq!(causes(&running.stop().await), ["killed"]);
    let report = verify(dir.path(), &disk, provider::decode_record, |_| {}).unwrap();
    assert!(report.is_whole(), "{report:#?}");
    // As above: what a failed commit leaves may hold.
    assert!((11..=21).contains(&report.sources[0].envelopes), "{report:#?}");
}

#[tokio::test]
async fn after_a_full_disk_topics_are_served_again() {
    let words = [(); 2].map(|()| Arc::new(Notify::new()));
    let go_on = words.clone();
    const TOPIC: &str = "/tweet_engagement/1";
    let likes = r#"{"topic":"/tweet_engagement/1","payload":{"tweet_engagement":{"like_count":"2"}}}"#;
    let base = peer(vec![stream(async move |mut stream: ServerStream| {
        stream.send(sse(CONFIG)).await.unwrap();
        stream.flush().await.unwrap();
        for word in go_on {
            word.notified().await;
            stream.send(sse(likes)).await.unwrap();
            stream.flush().await.unwrap();
        }
        stream.gone().await;
    })])
    .await;
    let (dir, disk) = (TempDir::new().unwrap(), MemDisk::default());
    let world = World { disk: Arc::new(disk.clone()), ..world() };
    let mut x = source("x", Provider::XLive, &base);
    x.settings.topics = vec![TOPIC.to_owned()];
    let mut running = start(options(dir.path(), vec![x]), world);
    running.frames(1).await;
    disk.fail_at(1, io::ErrorKind::StorageFull, true);
    words[0].notify_one();
    running.said("the disk is full").await;
    disk.heal();
    running.said("there is room on the disk again").await;
    words[1].notify_one();
    running.frames(1).await;
    running.stop().await;
    let report = verify(dir.path(), &disk, provider::decode_record, |_| {}).unwrap();
    assert!(report.is_whole(), "{report:#?}");
    let gaps = Tape::open(dir.path(), Arc::new(disk)).unwrap().catalog().gaps(None).unwrap();
    let gaps: Vec<_> = gaps.iter().map(|gap| (gap.scope.as_str(), gap.cause.as_str(), gap.to_us.is_some())).collect();
    assert_eq!(gaps, [("*", "disk", true), (TOPIC, "disk", true)]);
}

/// A disk whose syncs wait while it is shut.
#[derive(Default)]
struct Gate {
    shut: Mutex<bool>,
    opened: Condvar,
    waits: Notify,
}

impl Gate {
    fn set(&self, shut: bool) {
        *self.shut.lock().unwrap() = shut;
        self.opened.notify_all();
    }

    async fn is_waited_for(&self) {
        tokio::time::timeout(PATIENCE, self.waits.notified()).await.expect("somebody syncs");
    }
}

struct SlowDisk(Arc<Gate>);
struct SlowFile(Box<dyn DiskFile>, Arc<Gate>);

impl DiskFile for SlowFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.append(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        let shut = self.1.shut.lock().unwrap();
        if *shut {
            self.1.waits.notify_one();
        }
        drop(self.1.opened.wait_while(shut, |shut| *shut).unwrap());
        self.0.sync()
    }
}

impl Disk for SlowDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(SlowFile(RealDisk.create(path)?, Arc::clone(&self.0))))
    }
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskRead>> {
        RealDisk.open(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        RealDisk.sync_dir(dir)
    }
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        RealDisk.create_dir(dir)
    }
    fn remove_empty_dir(&self, dir: &Path) -> io::Result<()> {
        RealDisk.remove_empty_dir(dir)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        RealDisk.list(dir)
    }
    fn is_link(&self, path: &Path) -> io::Result<bool> {
        RealDisk.is_link(path)
    }
    fn len(&self, path: &Path) -> io::Result<Option<u64>> {
        RealDisk.len(path)
    }
    fn lock(&self, path: &Path, holder: &str) -> Result<Box<dyn Send>, LockRefused> {
        RealDisk.lock(path, holder)
    }
}

#[tokio::test]
async fn what_a_slow_disk_costs_is_counted_to_the_envelope() {
    const SENT: u64 = 400;
    let gate = Arc::new(Gate::default());
    let (first, all) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (go, then) = (Arc::clone(&first), Arc::clone(&all));
    let base = peer(vec![ws(async move |mut socket: ServerSocket| {
        send(&mut socket, [0]).await;
        go.notified().await;
        send(&mut socket, 1..SENT).await;
        then.notified().await;
        send(&mut socket, [SENT]).await;
        stay(socket).await;
    })])
    .await;
    let dir = TempDir::new().unwrap();
    let mut options = options(dir.path(), vec![tweetstream(&base)]);
    (options.queue_bytes, options.overload_wait) = (32 << 10, Duration::from_millis(20));
    options.archive.commit_every = Duration::ZERO;
    let mut running = start(options, World { disk: Arc::new(SlowDisk(Arc::clone(&gate))), ..world() });
    running.frames(1).await;
    gate.set(true);
    first.notify_one();
    running.until(|event| matches!(event, Event::Said { text, .. } if text.contains("being dropped"))).await;
    gate.set(false);
    all.notify_one();
    let gap = running.gap().await;
    assert!(matches!(&gap, Event::Gap { cause, .. } if cause == "overload"), "{gap:?}");
    let last = tweet(SENT);
    let outcome = running.stop().await;
    whole(dir.path());
    let alpha = &outcome.sources[0];
    assert!(alpha.dropped > 0, "{alpha:?}");
    assert_eq!(alpha.dropped_bytes, alpha.dropped * last.len() as u64);
    let kept = bodies(dir.path(), RecordKind::Frame);
    assert_eq!(kept.len() as u64, alpha.frames);
    let counted: u64 = facts(dir.path())
        .iter()
        .map(|fact| match fact {
            Fact::Dropped { envelopes, .. } => *envelopes,
            _ => 0,
        })
        .sum();
    assert_eq!(counted, alpha.dropped);
    assert_eq!(alpha.frames + alpha.dropped, SENT + 1);
}

/// Serves as many envelopes, the rest at the word, and stays.
async fn first_and_then(more: u64, word: &Arc<Notify>) -> Base {
    let word = Arc::clone(word);
    peer(vec![ws(async move |mut socket: ServerSocket| {
        send(&mut socket, [0]).await;
        word.notified().await;
        send(&mut socket, 1..=more).await;
        stay(socket).await;
    })])
    .await
}

#[tokio::test]
async fn a_stop_does_not_wait_for_a_disk_that_hangs() {
    let (gate, word) = (Arc::new(Gate::default()), Arc::new(Notify::new()));
    let base = first_and_then(25, &word).await;
    let dir = TempDir::new().unwrap();
    let options = Options { stop_within: Duration::from_millis(300), ..options(dir.path(), vec![tweetstream(&base)]) };
    let mut running = start(options, World { disk: Arc::new(SlowDisk(Arc::clone(&gate))), ..world() });
    running.frames(1).await;
    gate.set(true);
    word.notify_one();
    gate.is_waited_for().await;
    let asked = Instant::now();
    let outcome = running.stop().await;
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    let alpha = &outcome.sources[0];
    assert_eq!((outcome.ending, alpha.frames), (Ending::Cut, 1));
    // What reached us and is not safe; how much that is the sockets decide.
    assert!((1..=25).contains(&alpha.dropped), "{alpha:?}");
    assert_eq!(alpha.dropped_bytes, alpha.dropped * tweet(1).len() as u64);
    // The thread still holds the tape; it lets go when its disk does.
    let again = |base: &Base| start(plain(dir.path(), vec![tweetstream(base)]), world());
    let held = again(&base).end().await.unwrap_err();
    assert!(matches!(held, RecordError::Archive(ArchiveError::Locked { .. })), "{held}");
    gate.set(false);
    let word = Arc::new(Notify::new());
    let base = first_and_then(1, &word).await;
    'held: loop {
        let mut running = again(&base);
        while let Some(event) = tokio::time::timeout(PATIENCE, running.events.recv()).await.unwrap() {
            if matches!(event, Event::Started { .. }) {
                running.stop().await;
                break 'held;
            }
        }
    }
    whole(dir.path());
}

#[tokio::test]
async fn a_stop_while_the_tape_is_being_opened_is_heard() {
    let gate = Arc::new(Gate::default());
    gate.set(true);
    let base = peer(Vec::new()).await;
    let dir = TempDir::new().unwrap();
    let options = Options { stop_within: Duration::from_millis(100), ..options(dir.path(), vec![tweetstream(&base)]) };
    let mut running = start(options, World { disk: Arc::new(SlowDisk(Arc::clone(&gate))), ..world() });
    gate.is_waited_for().await;
    running.stop.take().unwrap().send(()).unwrap();
    let error = running.end().await.unwrap_err();
    assert!(matches!(error, RecordError::StillOpening), "{error}");
    gate.set(false);
}

/// A disk whose syncs take their time, and are counted.
#[derive(Clone, Default)]
struct Lazy {
    syncs: Arc<AtomicU64>,
    ms: Arc<AtomicU64>,
}

struct LazyFile(Box<dyn DiskFile>, Lazy);

impl Lazy {
    fn sync(&self) {
        self.syncs.fetch_add(1, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(self.ms.load(Ordering::SeqCst)));
    }
}

impl DiskFile for LazyFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.append(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.1.sync();
        self.0.sync()
    }
}

impl Disk for Lazy {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(LazyFile(RealDisk.create(path)?, self.clone())))
    }
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskRead>> {
        RealDisk.open(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.sync();
        RealDisk.sync_dir(dir)
    }
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        RealDisk.create_dir(dir)
    }
    fn remove_empty_dir(&self, dir: &Path) -> io::Result<()> {
        RealDisk.remove_empty_dir(dir)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        RealDisk.list(dir)
    }
    fn is_link(&self, path: &Path) -> io::Result<bool> {
        RealDisk.is_link(path)
    }
    fn len(&self, path: &Path) -> io::Result<Option<u64>> {
        RealDisk.len(path)
    }
    fn lock(&self, path: &Path, holder: &str) -> Result<Box<dyn Send>, LockRefused> {
        RealDisk.lock(path, holder)
    }
}

#[tokio::test]
async fn at_a_stop_a_slow_disk_is_asked_for_as_little_as_can_be() {
    let disk = Lazy::default();
    let (many, word) = (500, Arc::new(Notify::new()));
    let base = first_and_then(many, &word).await;
    let dir = TempDir::new().unwrap();
    let options = Options { stop_within: Duration::from_secs(3), ..options(dir.path(), vec![tweetstream(&base)]) };
    let mut running = start(options, World { disk: Arc::new(disk.clone()), ..world() });
    running.frames(1).await;
    disk.ms.store(800, Ordering::SeqCst);
    let before = disk.syncs.load(Ordering::SeqCst);
    word.notify_one();
    running.frames(many).await;
    let syncs = disk.syncs.load(Ordering::SeqCst);
    // What comes while the disk is busy goes into one commit, however much it is.
    assert!(syncs - before <= 4, "{} syncs for {many} envelopes", syncs - before);
    let outcome = running.stop().await;
    let alpha = &outcome.sources[0];
    assert_eq!((outcome.ending, alpha.frames, alpha.dropped), (Ending::LeftOpen, many + 1, 0));
    // The farewell's; no more for sealing, for which there was no time.
    assert_eq!(disk.syncs.load(Ordering::SeqCst) - syncs, 1);
    let report = verify(dir.path(), &RealDisk, provider::decode_record, |_| {}).unwrap();
    assert!(report.is_whole() && report.sources[0].open_segments == 1, "{report:#?}");
    assert!(matches!(facts(dir.path()).last(), Some(Fact::Stop { .. })));
    disk.ms.store(0, Ordering::SeqCst);
    let base = first_and_then(1, &word).await;
    let mut running = start(plain(dir.path(), vec![tweetstream(&base)]), world());
    running.frames(1).await;
    let outcome = running.stop().await;
    assert_eq!((outcome.ending, causes(&outcome)), (Ending::Sealed, vec!["stopped"]));
    whole(dir.path());
}

#[tokio::test]
async fn a_disk_that_is_full_at_the_start_is_waited_for() {
    let word = Arc::new(Notify::new());
    let base = first_and_then(1, &word).await;
    let (dir, disk) = (TempDir::new().unwrap(), MemDisk::default());
    let world = World { disk: Arc::new(disk.clone()), ..world() };
    disk.fail_at(1, io::ErrorKind::StorageFull, true);
    let mut running = start(options(dir.path(), vec![tweetstream(&base)]), world.clone());
    running.said("the disk is full: recording begins when that is over").await;
    running.stop.take().unwrap().send(()).unwrap();
    let error = running.end().await.unwrap_err();
    assert!(error.hint().unwrap().contains("free some space"), "{error}");
    let short = Options { run_for: Some(Duration::from_millis(50)), ..options(dir.path(), vec![tweetstream(&base)]) };
    assert!(matches!(start(short, world.clone()).end().await, Err(RecordError::Archive(error)) if error.is_full()));
    let mut running = start(options(dir.path(), vec![tweetstream(&base)]), world);
    running.said("the disk is full").await;
    disk.heal();
    running.said("there is room on the disk again").await;
    running.frames(1).await;
    let outcome = running.stop().await;
    assert_eq!((outcome.ending, causes(&outcome)), (Ending::Sealed, Vec::new()));
    let report = verify(dir.path(), &disk, provider::decode_record, |_| {}).unwrap();
    assert!(report.is_whole(), "{report:#?}");
}

#[tokio::test]
async fn a_refused_file_costs_nothing_and_the_second_ends_the_recorder() {
    let words = [(); 2].map(|()| Arc::new(Notify::new()));
    let base = thirty(words.clone()).await;
    let (dir, disk) = (TempDir::new().unwrap(), MemDisk::default());
    disk.forget_what_fails();
    let world = World { disk: Arc::new(disk.clone()), ..world() };
    let mut running = start(options(dir.path(), vec![tweetstream(&base)]), world);
    running.frames(10).await;
    disk.fail_at(2, io::ErrorKind::Other, false);
    words[0].notify_one();
    running.frames(10).await;
    disk.fail_at(1, io::ErrorKind::Other, false);
    words[1].notify_one();
    let error = running.end().await.unwrap_err();
    assert!(matches!(error, RecordError::Archive(_)), "{error}");
    disk.heal();
    let archive = archive::Options::default();
    let tape =
        archive::Archive::open(dir.path(), Arc::new(disk.clone()), archive, provider::decode_record, "test", UnixMicros(0));
    let (name, tape) = (SourceName::new("alpha").unwrap(), tape.unwrap());
    let causes: Vec<_> = tape.open_gaps(&name).into_iter().map(|gap| gap.cause).collect();
    assert_eq!(causes, ["disk"]);
    tape.close(UnixMicros(1)).unwrap();
    let report = verify(dir.path(), &disk, provider::decode_record, |_| {}).unwrap();
    assert!(report.is_whole(), "{report:#?}");
    let tape = Tape::open(dir.path(), Arc::new(disk)).unwrap();
    let mut all = tape.records("alpha", Span::default()).unwrap();
    let mut kept = Vec::new();
    while let Some(record) = all.next().unwrap() {
        if record.kind == RecordKind::Frame {
            kept.push(record.body);
        }
    }
    assert_eq!(kept[..20], (0..20).map(tweet).collect::<Vec<_>>());
}

// Topics.

const CONFIG: &str = r#"{"topic":"/system/config","payload":{"config":{"session_id":"s-1","subscription_ttl_millis":120000,"heartbeat_millis":25000}}}"#;

fn sse(text: &str) -> Bytes {
    Bytes::from(format!("data: {text}\n\n"))
}

#[tokio::test]
async fn topics_change_while_recording() {
    let subscribed = r#"{"topic":"/system/subscriptions","payload":{"subscriptions":{"errors":[]}}}"#;
    let (asked, mut posts) = mpsc::unbounded_channel();
    let post = |tell: mpsc::UnboundedSender<String>| -> Step {
        Box::new(move |request| {
            let body = String::from_utf8(request.body.to_vec()).unwrap();
            tell.send(format!("{} {} {body}", request.method, request.path)).unwrap();
            Reply::Http(Response::json(200, subscribed))
        })
    };
    let base = peer(vec![
        stream(async |mut stream: ServerStream| {
            stream.send(sse(CONFIG)).await.unwrap();
            stream.flush().await.unwrap();
            stream.gone().await;
        }),
        post(asked.clone()),
        post(asked),
    ])
    .await;
    let dir = TempDir::new().unwrap();
    let mut x = source("x", Provider::XLive, &base);
    x.settings.topics = vec!["/tweet_engagement/1".to_owned()];
    let mut running = start(options(dir.path(), vec![x]), world());
    running.frames(1).await;

    let ask = async |source: Option<&str>, add: &[&str], remove: &[&str]| {
        let owned = |list: &[&str]| list.iter().map(|&topic| topic.to_owned()).collect();
        let request = control::Request { source: source.map(str::to_owned), add: owned(add), remove: owned(remove) };
        control::ask(dir.path(), &request).await
    };
    let refused = ask(Some("y"), &["/tweet_engagement/2"], &[]).await.unwrap_err();
    assert!(matches!(&refused, control::ControlError::Refused { why } if why.contains("`y`")), "{refused}");
    let done = ask(None, &["/tweet_engagement/2"], &[]).await.unwrap();
    assert_eq!(done.sources, ["x"]);
    let body = posts.recv().await.unwrap();
    assert!(body.contains("tweet_engagement%2F2"), "{body}");
    ask(Some("x"), &[], &["/tweet_engagement/1"]).await.unwrap();
    let body = posts.recv().await.unwrap();
    assert!(body.contains("unsub_topics=%2Ftweet_engagement%2F1"), "{body}");
    let mut commits = 0;
    running
        .until(|event| {
            commits += u32::from(matches!(event, Event::Committed { .. }));
            commits == 2
        })
        .await;
    running.stop().await;
    whole(dir.path());
    let scopes: Vec<_> = facts(dir.path())
        .into_iter()
        .filter_map(|fact| match fact {
            Fact::Scope { scope, until, .. } => Some((scope, until.is_some())),
            _ => None,
        })
        .collect();
    let want = [("*", false), ("/tweet_engagement/1", false), ("/tweet_engagement/2", false), ("/tweet_engagement/1", true)];
    let mut want: Vec<_> = want.map(|(scope, ended)| (scope.to_owned(), ended)).to_vec();
    let mut scopes = scopes;
    scopes.sort();
    want.sort();
    assert_eq!(scopes, want);
    let gone = ask(None, &[], &[]).await.unwrap_err();
    assert!(matches!(gone, control::ControlError::NotRunning { .. }), "{gone}");
    let records = records(dir.path(), Some(RecordKind::Http));
    assert!(records[0].info.as_deref().unwrap().contains(r#""method":"POST""#), "{:?}", records[0].info);
    assert_eq!(&records[0].body[..], subscribed.as_bytes());
}

// The clock.

/// The machine's clock, until it is told that the machine slept or that somebody put the clock.
struct Odd {
    clock: SystemClock,
    slept_s: AtomicU64,
    put_s: AtomicI64,
}

impl Clock for Odd {
    fn wall(&self) -> UnixMicros {
        let put = self.put_s.load(Ordering::Relaxed);
        UnixMicros(self.clock.wall().plus(self.slept()).0 + put * 1_000_000)
    }

    fn boot(&self) -> crate::net::BootReading {
        let boot = self.clock.boot();
        crate::net::BootReading { since_boot: boot.since_boot + self.slept(), ..boot }
    }
}

impl Odd {
    fn new() -> Arc<Self> {
        Arc::new(Self { clock: SystemClock::new(), slept_s: AtomicU64::new(0), put_s: AtomicI64::new(0) })
    }

    fn slept(&self) -> Duration {
        Duration::from_secs(self.slept_s.load(Ordering::Relaxed))
    }
}

/// A recorder of one source by such a clock.
fn oddly(base: &Base) -> (TempDir, Arc<Odd>, Running) {
    let (dir, clock) = (TempDir::new().unwrap(), Odd::new());
    let world = World { clock: Arc::clone(&clock) as Arc<dyn Clock>, ..world() };
    let running = start(options(dir.path(), vec![tweetstream(base)]), world);
    (dir, clock, running)
}

#[tokio::test]
async fn a_sleep_is_a_gap() {
    let once = |n| {
        ws(async move |mut socket: ServerSocket| {
            send(&mut socket, [n]).await;
            stay(socket).await;
        })
    };
    let base = peer(vec![once(1), once(2)]).await;
    let (dir, clock, mut running) = oddly(&base);
    running.frames(1).await;
    clock.slept_s.store(3600, Ordering::Relaxed);
    running.frames(1).await;
    let outcome = running.stop().await;
    whole(dir.path());
    assert_eq!(causes(&outcome), ["suspended"]);
    let frames = records(dir.path(), Some(RecordKind::Frame));
    assert!(frames[1].at.since(frames[0].at) >= 3_600_000_000);
    assert!(facts(dir.path()).iter().any(|fact| matches!(fact, Fact::Clock { .. })));
}

#[tokio::test]
async fn a_clock_put_back_makes_no_negative_gap() {
    let put = Arc::new(Notify::new());
    let go_on = Arc::clone(&put);
    let base = peer(vec![
        ws(async move |mut socket: ServerSocket| {
            send(&mut socket, [1]).await;
            go_on.notified().await;
            socket.close(1012, "").await.unwrap();
            stay(socket).await;
        }),
        ws(async |mut socket: ServerSocket| {
            send(&mut socket, [2]).await;
            stay(socket).await;
        }),
    ])
    .await;
    let (dir, clock, mut running) = oddly(&base);
    running.frames(1).await;
    clock.put_s.store(-7200, Ordering::Relaxed);
    put.notify_one();
    running.frames(1).await;
    assert_eq!(causes(&running.stop().await), ["connection_lost"]);
    whole(dir.path());
    let ends = facts(dir.path()).into_iter().find_map(|fact| if let Fact::GapStep { to, .. } = fact { to } else { None });
    let begins = facts(dir.path()).into_iter().find_map(|fact| if let Fact::Gap { from, .. } = fact { Some(from) } else { None });
    assert!(ends.unwrap() >= begins.unwrap());
}

#[tokio::test]
async fn a_clock_that_is_put_moves_no_stamp_of_a_connection() {
    for put_s in [-7200, 7200] {
        let put = Arc::new(Notify::new());
        let go_on = Arc::clone(&put);
        let base = peer(vec![ws(async move |mut socket: ServerSocket| {
            send(&mut socket, [1]).await;
            go_on.notified().await;
            send(&mut socket, [2]).await;
            stay(socket).await;
        })])
        .await;
        let (dir, clock, mut running) = oddly(&base);
        running.frames(1).await;
        clock.put_s.store(put_s, Ordering::Relaxed);
        put.notify_one();
        running.frames(1).await;
        running.stop().await;
        whole(dir.path());
        let frames = records(dir.path(), Some(RecordKind::Frame));
        let apart = frames[1].at.since(frames[0].at);
        assert!((0..3_600_000_000).contains(&apart), "{put_s}: {apart}");
    }
}

// Speed; by hand: `cargo test --release --lib record::tests::speed -- --ignored --nocapture`.

#[tokio::test]
async fn a_job_beside_the_recorder_writes_through_it_and_hears_what_became_of_it() {
    use crate::archive::{Leaf, Pen as _, PenError, Spent};
    use crate::model::GapState;

    let dir = tempfile::tempdir().unwrap();
    let first = ws(|mut socket| async move {
        send(&mut socket, 0..3).await;
        socket.close(1012, "deploy").await.ok();
    });
    let second = ws(|mut socket| async move {
        send(&mut socket, 3..6).await;
        stay(socket).await;
    });
    let base = peer(vec![first, second]).await;
    let (tell, mut told) = mpsc::unbounded_channel();
    let at = dir.path().to_owned();
    let beside: Beside = Box::new(move |mut desk: Desk| {
        Box::pin(async move {
            let leaf = |gap| Leaf {
                source: SourceName::new("alpha").unwrap(),
                gap: Some(gap),
                at: SystemClock::new().wall(),
                page: None,
                state: GapState::Filled,
                detail: "found".to_owned(),
                cursor: None,
                kinds: Vec::new(),
                spent: Spent { requests: 2, ..Spent::default() },
            };
            tell.send(desk.pen.write(leaf(99_999)).await.map_err(|error| error.to_string())).unwrap();
            let gap = loop {
                let tape = Tape::open(&at, Arc::new(RealDisk)).unwrap();
                let ended = tape.catalog().gaps(None).unwrap().into_iter().find(|gap| gap.to_us.is_some());
                match ended {
                    Some(gap) => break gap.n,
                    None => desk.ledger.changed().await.unwrap(),
                }
            };
            tell.send(desk.pen.write(leaf(gap)).await.map_err(|error| error.to_string())).unwrap();
            desk.leaving.wait_for(|leave| *leave).await.unwrap();
            let mut pen = desk.pen;
            tokio::spawn(async move {
                // The recorder ends sooner or later; until then it still writes.
                while pen.write(leaf(gap)).await.is_ok() {}
                let refused = pen.write(leaf(gap)).await.unwrap_err();
                assert!(matches!(refused, PenError::Gone), "{refused}");
                tell.send(Err(refused.to_string())).unwrap();
            });
        })
    });
    let options = Options { beside: Some(beside), ..options(dir.path(), vec![tweetstream(&base)]) };
    let running = start(options, world());
    let refused = told.recv().await.unwrap().unwrap_err();
    assert!(refused.contains("has no gap alpha-99999"), "{refused}");
    assert_eq!(told.recv().await.unwrap(), Ok(()));
    let tape = Tape::open(dir.path(), Arc::new(RealDisk)).unwrap();
    assert_eq!(tape.catalog().spent_since(Some("alpha"), 0).unwrap().0, 2, "told after it was durable");
    let outcome = running.stop().await;
    assert_eq!(outcome.sources[0].open_gaps, []);
    assert!(told.recv().await.unwrap().unwrap_err().contains("has ended"));
    whole(dir.path());
}
