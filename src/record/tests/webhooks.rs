//! Deliveries by webhook, over real sockets.

use std::net::{SocketAddr, TcpListener};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::model::Via;
use crate::provider::webhook::Webhook;

const HOOK_SECRET: &str = "planted-hook-secret-77";

fn signature(body: &[u8]) -> String {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, HOOK_SECRET.as_bytes());
    let tag = ring::hmac::sign(&key, body);
    tag.as_ref().iter().fold("sha256=".to_owned(), |hex, byte| format!("{hex}{byte:02x}"))
}

fn post(n: u64) -> Bytes {
    let id = 2_064_689_031_777_615_872 + n;
    Bytes::from(format!(
        r#"{{ "type":"new_tweet","source":"monitor","monitor_id":"m","tweet_id":"{id}","tweet_text":"\u00e9" }}"#
    ))
}

/// Posts a body; status and message of the answer.
async fn deliver(at: SocketAddr, path: &str, headers: &[(&str, String)], body: &[u8]) -> (u16, String) {
    let mut stream = TcpStream::connect(at).await.unwrap();
    let mut head = format!("POST {path} HTTP/1.1\r\nhost: hooks.example.org\r\nconnection: close\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += &format!("content-length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).await.unwrap();
    // One that is refused for its length need not be read to the end.
    drop(stream.write_all(body).await);
    let mut answer = Vec::new();
    drop(stream.read_to_end(&mut answer).await);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.get(9..12).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("no answer: {answer:?}"));
    (status, answer)
}

async fn signed(at: SocketAddr, body: &[u8], id: &str) -> (u16, String) {
    let headers = [("X-ScrapeBadger-Signature", signature(body)), ("X-ScrapeBadger-Delivery-Id", id.to_owned())];
    deliver(at, "/badger", &headers, body).await
}

/// A recorder that takes webhooks of ScrapeBadger as `badger` and of TwitterAPI.io as `io`, at that address.
async fn hooked(dir: &Path, base: &Base, world: World) -> (SocketAddr, Running) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let hook = |provider, secret: &str| Webhook::new(provider, &Secret::new(secret).unwrap());
    let badger = Source { webhook: hook(Provider::Scrapebadger, HOOK_SECRET), ..source("badger", Provider::Scrapebadger, base) };
    let io = Source { webhook: hook(Provider::TwitterapiIo, KEY), ..source("io", Provider::TwitterapiIo, base) };
    let mut running = start(Options { webhooks: Some(listener), ..plain(dir, vec![badger, io]) }, world);
    running.until(|event| matches!(event, Event::Listening { url, .. } if *url == format!("http://{at}/io"))).await;
    (at, running)
}

fn hooks(dir: &Path) -> Vec<(u64, Bytes)> {
    let records = records(dir, Some(RecordKind::Frame));
    records.into_iter().filter(|record| record.via == Via::Webhook).map(|record| (record.conn.0, record.body)).collect()
}

#[tokio::test]
async fn what_the_provider_delivers_is_kept_and_what_others_do_is_not() {
    let base = peer(Vec::new()).await;
    let dir = TempDir::new().unwrap();
    let (at, mut running) = hooked(dir.path(), &base, world()).await;
    assert_eq!(signed(at, &post(1), "d1").await.0, 200);
    // A second attempt, because the first answer was lost.
    assert_eq!(signed(at, &post(1), "d1").await.0, 200);
    assert_eq!(signed(at, &post(1), "d2").await.0, 200, "another delivery with the same words");
    let odd = Bytes::from_static(b"\xffno json\n");
    assert_eq!(signed(at, &odd, "d3").await.0, 200);
    let stamp = UnixMicros::from_millis(world().clock.wall().0 / 1_000);
    let of_io = |ms: i64| Bytes::from(format!(r#"{{"event_type":"tweet","tweets":[{{"id":"7"}}],"timestamp":{ms}}}"#));
    let fresh = of_io(stamp.0 / 1_000);
    let key = [("X-API-Key", KEY.to_owned())];
    assert_eq!(deliver(at, "/io", &key, &fresh).await.0, 200);

    let refused = [
        deliver(at, "/badger", &[("X-ScrapeBadger-Signature", signature(&post(2)))], &post(3)).await,
        deliver(at, "/badger", &[], &post(2)).await,
        deliver(at, "/badger", &key, &post(2)).await,
        deliver(at, "/io", &[("X-API-Key", "another".to_owned())], &fresh).await,
        deliver(at, "/io", &key, &of_io(stamp.0 / 1_000 - 301_000)).await,
        deliver(at, "/other", &key, &fresh).await,
        deliver(at, "/", &key, &fresh).await,
        deliver(at, "/badger", &[], &vec![b' '; (2 << 20) + 1]).await,
    ];
    assert_eq!(refused.map(|(status, _)| status), [401, 401, 401, 401, 403, 404, 404, 413]);
    let mut stream = TcpStream::connect(at).await.unwrap();
    stream.write_all(b"GET /badger HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 405 ") && answer.contains("allow: POST\r\n"), "{answer}");
    running.said("refused a delivery by webhook, 1 so far: its proof is wrong").await;
    let outcome = running.stop().await;
    whole(dir.path());
    assert_eq!(hooks(dir.path()), [post(1), post(1), odd, fresh].map(|body| (0, body)));
    let counts: Vec<_> = outcome.sources.iter().map(|one| (one.frames, one.unknown, one.dropped, one.connections)).collect();
    assert_eq!(counts, [(3, 1, 0, 0), (1, 0, 0, 0)]);
}

#[tokio::test]
async fn what_came_by_webhook_counts_once_and_proves_nothing() {
    let (word, told) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (go, done) = (Arc::clone(&word), Arc::clone(&told));
    let base = peer(vec![ws(async move |mut socket: ServerSocket| {
        socket.feed(post(1)).await.unwrap();
        socket.flush().await.unwrap();
        go.notified().await;
        drop(socket);
        done.notify_one();
    })])
    .await;
    let dir = TempDir::new().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let webhook = Webhook::new(Provider::Scrapebadger, &Secret::new(HOOK_SECRET).unwrap());
    let badger = Source { webhook, ..source("badger", Provider::Scrapebadger, &base) };
    let mut running = start(Options { webhooks: Some(listener), ..plain(dir.path(), vec![badger]) }, world());
    running.frames(1).await;
    assert_eq!(signed(at, &post(1), "1").await.0, 200);
    word.notify_one();
    told.notified().await;
    running.gap().await;
    // While the connection is down, what comes by webhook is kept, and the gap stays what it is.
    assert_eq!(signed(at, &post(2), "2").await.0, 200);
    let outcome = running.stop().await;
    whole(dir.path());
    let badger = &outcome.sources[0];
    assert_eq!((badger.frames, badger.events, badger.repeated), (3, 2, 1));
    assert_eq!(badger.open_gaps.len(), 1, "{badger:#?}");
    let tape = Tape::open(dir.path(), Arc::new(RealDisk)).unwrap();
    let last = records(dir.path(), Some(RecordKind::Frame)).pop().unwrap();
    let covered = tape.coverage("badger").unwrap();
    assert!(covered.iter().all(|scope| !scope.every_kind.covered().contains(last.at)), "{covered:#?}");
}

#[tokio::test]
async fn the_answer_waits_for_the_disk() {
    let gate = Arc::new(Gate::default());
    let base = peer(Vec::new()).await;
    let dir = TempDir::new().unwrap();
    let world = World { disk: Arc::new(SlowDisk(Arc::clone(&gate))), ..world() };
    let (at, running) = hooked(dir.path(), &base, world).await;
    assert_eq!(signed(at, &post(1), "1").await.0, 200);
    gate.set(true);
    let body = post(2);
    let mut answer = tokio::spawn(async move { signed(at, &body, "2").await });
    gate.is_waited_for().await;
    // The server is there and answers others meanwhile.
    for n in 0..20 {
        assert_eq!(deliver(at, "/badger", &[], &post(n)).await.0, 401);
        assert!(futures_util::poll!(&mut answer).is_pending(), "answered before it was safe");
    }
    gate.set(false);
    assert_eq!(answer.await.unwrap().0, 200);
    running.stop().await;
    whole(dir.path());
    assert_eq!(hooks(dir.path()).len(), 2);
}

#[tokio::test]
async fn a_full_disk_is_no_200() {
    let base = peer(Vec::new()).await;
    let (dir, disk) = (TempDir::new().unwrap(), MemDisk::default());
    let world = World { disk: Arc::new(disk.clone()), ..world() };
    let (at, mut running) = hooked(dir.path(), &base, world).await;
    assert_eq!(signed(at, &post(1), "1").await.0, 200);
    disk.fail_at(1, io::ErrorKind::StorageFull, true);
    let (status, words) = signed(at, &post(2), "2").await;
    assert!(status == 503 && words.contains("retry-after: 5"), "{status} {words}");
    disk.heal();
    running.said("there is room on the disk again").await;
    assert_eq!(signed(at, &post(2), "2").await.0, 200, "the provider tries again");
    running.stop().await;
    let report = verify(dir.path(), &disk, provider::decode_record, |_| {}).unwrap();
    assert!(report.is_whole(), "{report:#?}");
    let tape = Tape::open(dir.path(), Arc::new(disk)).unwrap();
    let mut all = tape.records("badger", Span::default()).unwrap();
    let mut kept = Vec::new();
    while let Some(record) = all.next().unwrap() {
        kept.extend((record.kind == RecordKind::Frame).then_some(record.body));
    }
    // What failed half way may have reached the disk all the same; then it is there twice.
    kept.dedup();
    assert_eq!(kept, [post(1), post(2)]);
}
