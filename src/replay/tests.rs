#![allow(clippy::unwrap_used, reason = "a test may panic")]
//! The whole replay over loopback: real sockets, real clients of ours.

mod faults;
mod history;
mod steering;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::*;
use crate::archive::RealDisk;
use crate::archive::{self, Archive};
use crate::model::{Body, ConnId, Draft, Framing, RecordKind, SourceName, Via};
use crate::net::{Incoming, Limits, Live, OpenError, Opened, SystemNetwork, TlsOptions, open};
use crate::provider::synthetic::World;
use crate::provider::{Auth, Base, Client, decode, decode_record, default_settings};

const KEY: &str = "planted-key-91";

/// Envelopes of a world, all providers together.
fn world(n: usize) -> Vec<Envelope> {
    World::new(synthetic::Options { seed: 7, ..Default::default() }).take(n).collect()
}

fn of(envelopes: &[Envelope], provider: Provider) -> Vec<Bytes> {
    envelopes.iter().filter(|envelope| envelope.provider == provider).map(|envelope| envelope.bytes.clone()).collect()
}

fn draft(at: UnixMicros, via: Via, bytes: &Bytes) -> Draft {
    let (kind, conn) = (RecordKind::Frame, ConnId(1));
    Draft { received_at: at, kind, via, conn, info: None, body: Body::Bytes(bytes.clone()) }
}

/// Writes a tape; `with` may add records of other sorts after each envelope.
fn record(dir: &Path, envelopes: &[Envelope], mut with: impl FnMut(&mut Archive, &SourceName, &Envelope)) {
    let options = archive::Options { block_bytes: 64 << 10, segment_bytes: 512 << 10, ..Default::default() };
    let start = envelopes[0].at;
    let mut tape = Archive::open(dir, Arc::new(RealDisk), options, decode_record, "test", start).unwrap();
    for provider in Provider::ALL {
        tape.add_source(&SourceName::new(provider.name()).unwrap(), provider).unwrap();
    }
    for envelope in envelopes {
        let source = SourceName::new(envelope.provider.name()).unwrap();
        let decoded = decode(envelope.provider, &envelope.bytes);
        tape.append(&source, &draft(envelope.at, Via::Ws, &envelope.bytes), Some(&decoded)).unwrap();
        with(&mut tape, &source, envelope);
    }
    tape.close(envelopes.last().unwrap().at).unwrap();
}

async fn listener() -> TcpListener {
    bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap()
}

async fn play(options: Options) -> Replay {
    start(options, listener().await, Arc::new(RealDisk), std::future::pending()).await.unwrap()
}

fn at_max(feed: Feed) -> Options {
    Options { speed: Speed::Max, ..Options::new(feed) }
}

fn lines(envelopes: &[Envelope]) -> Feed {
    Feed::Lines { envelopes: envelopes.to_vec() }
}

fn auth(provider: Provider) -> Auth {
    match provider {
        Provider::TwitterapiIo | Provider::Scrapebadger => Auth::Header,
        Provider::Tweetstream => Auth::Subprotocol,
        Provider::XLive => Auth::Cookies,
    }
}

/// Opens a connection as our own client of that provider does.
async fn try_connect(replay: &Replay, provider: Provider, key: &str, framing: Framing) -> Result<Opened, OpenError> {
    let mut settings = default_settings(provider);
    settings.base = Some(Base::parse(&replay.urls().base()).unwrap());
    settings.auth = auth(provider);
    settings.credentials.key = Secret::new(key);
    settings.credentials.auth_token = Secret::new(key);
    settings.credentials.ct0 = Secret::new("c");
    settings.framing = framing;
    let opening = Client::new(settings).opening();
    open(&SystemNetwork::new(TlsOptions::default()).unwrap(), &opening, &Limits::default()).await
}

async fn connect(replay: &Replay, provider: Provider) -> Live {
    connect_as(replay, provider, KEY).await
}

async fn connect_as(replay: &Replay, provider: Provider, key: &str) -> Live {
    try_connect(replay, provider, key, Framing::Sse).await.unwrap().live
}

async fn next(live: &mut Live) -> Bytes {
    match next_sign(live).await {
        Incoming::Message(message) => message,
        other => panic!("no message but {other:?}"),
    }
}

/// The next message or end.
async fn next_sign(live: &mut Live) -> Incoming {
    loop {
        match tokio::time::timeout(Duration::from_secs(60), live.next()).await.expect("something within a minute") {
            Incoming::Alive => {}
            other => return other,
        }
    }
}

async fn take(live: &mut Live, n: usize) -> Vec<Bytes> {
    let mut got = Vec::with_capacity(n);
    while got.len() < n {
        got.push(next(live).await);
    }
    got
}

/// Everything until the end.
async fn drain(live: &mut Live) -> (Vec<Bytes>, Incoming) {
    let mut got = Vec::new();
    loop {
        match next_sign(live).await {
            Incoming::Message(message) => got.push(Bytes::copy_from_slice(&message)),
            end => return (got, end),
        }
    }
}

fn code(end: &Incoming) -> Option<u16> {
    match end {
        Incoming::Closed { code, .. } => *code,
        other => panic!("not closed but {other:?}"),
    }
}

#[tokio::test]
async fn all_four_get_their_envelopes_byte_for_byte_and_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let envelopes = world(1_500);
    record(dir.path(), &envelopes, |_, _, _| {});
    let feed = Feed::Tape { dir: dir.path().to_owned() };
    let replay = play(at_max(feed)).await;
    let mut tasks = JoinSet::new();
    for provider in Provider::ALL {
        let mut client = connect(&replay, provider).await;
        let n = of(&envelopes, provider).len();
        tasks.spawn(async move { (provider, take(&mut client, n).await, client) });
    }
    let mut clients = Vec::new();
    for (provider, got, client) in tasks.join_all().await {
        assert!(got == of(&envelopes, provider), "{provider}");
        clients.push((provider, client));
    }
    // A client may have everything before the player knows that nothing follows.
    while !replay.stats().providers.iter().all(|stats| stats.done) {
        tokio::task::yield_now().await;
    }
    replay.stop();
    for (provider, mut client) in clients {
        let (more, end) = drain(&mut client).await;
        assert_eq!((more.len(), code(&end)), (0, (provider != Provider::XLive).then_some(1001)), "{provider}");
    }
    let outcome = replay.wait().await;
    assert_eq!((outcome.ended, outcome.stats.damage.len()), (Ended::Stopped, 0));
    for stats in &outcome.stats.providers {
        let n = of(&envelopes, stats.provider).len() as u64;
        assert_eq!((stats.played, stats.sent, stats.clients, stats.clients_ever, stats.done), (n, n, 0, 1, true));
    }
}

#[tokio::test]
async fn plays_what_came_live_and_leaves_out_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let mut envelopes = world(40);
    // Bytes that are no text, an empty message, a large one.
    let at = envelopes[39].at;
    for bytes in [b"\xff\xfe{".to_vec(), Vec::new(), vec![b'x'; 300_000], b"{\n}".to_vec()] {
        envelopes.push(Envelope { provider: Provider::Tweetstream, at, bytes: bytes.into() });
    }
    record(dir.path(), &envelopes, |tape, source, envelope| {
        let more = Bytes::from_static(br#"{"not":"played"}"#);
        for via in [Via::History, Via::Peer] {
            tape.append(source, &draft(envelope.at, via, &more), None).unwrap();
        }
        for kind in [RecordKind::Sent, RecordKind::Http] {
            tape.append(source, &Draft { kind, ..draft(envelope.at, Via::Own, &more) }, None).unwrap();
        }
        let info = Some(r#"{"cause":"malformed"}"#.to_owned());
        tape.append(source, &Draft { info, ..draft(envelope.at, Via::Ws, &more) }, None).unwrap();
        let fact = r#"{"note":"alive","evidence":"pong"}"#.to_owned();
        tape.append(source, &Draft::note(envelope.at, ConnId(1), fact), None).unwrap();
    });
    let replay = play(at_max(Feed::Tape { dir: dir.path().to_owned() })).await;
    for provider in Provider::ALL {
        let want = of(&envelopes, provider);
        assert!(take(&mut connect(&replay, provider).await, want.len()).await == want, "{provider}");
    }
    let skipped: u64 = replay.stats().providers.iter().map(|stats| stats.skipped).sum();
    assert_eq!(skipped, envelopes.len() as u64);
}

#[tokio::test]
async fn merges_the_sources_of_a_provider() {
    let dir = tempfile::tempdir().unwrap();
    let envelopes: Vec<_> = world(600).into_iter().filter(|e| e.provider == Provider::Tweetstream).collect();
    let mut tape =
        Archive::open(dir.path(), Arc::new(RealDisk), archive::Options::default(), decode_record, "test", envelopes[0].at)
            .unwrap();
    let names = ["one", "two", "three"].map(|name| SourceName::new(name).unwrap());
    for name in &names {
        tape.add_source(name, Provider::Tweetstream).unwrap();
    }
    for (idx, envelope) in envelopes.iter().enumerate() {
        tape.append(&names[idx * 7 % 3], &draft(envelope.at, Via::Ws, &envelope.bytes), None).unwrap();
    }
    tape.commit(envelopes[0].at).unwrap();
    // It is being recorded: what is not committed is not played.
    tape.append(&names[0], &draft(envelopes[0].at, Via::Ws, &Bytes::from_static(b"later")), None).unwrap();
    let replay =
        play(Options { exit_when_done: true, linger: Duration::ZERO, ..at_max(Feed::Tape { dir: dir.path().into() }) }).await;
    let (got, _) = drain(&mut connect(&replay, Provider::Tweetstream).await).await;
    assert!(got == of(&envelopes, Provider::Tweetstream));
    drop(tape);
}

#[tokio::test]
async fn damage_is_told_and_the_rest_is_played() {
    let dir = tempfile::tempdir().unwrap();
    let envelopes: Vec<_> = world(3_000).into_iter().filter(|e| e.provider == Provider::Tweetstream).collect();
    record(dir.path(), &envelopes, |_, _, _| {});
    let day = dir.path().join("segments/tweetstream").read_dir().unwrap().next().unwrap().unwrap().path();
    let file = day.read_dir().unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 16].fill(0x55);
    std::fs::write(&file, bytes).unwrap();
    let replay =
        play(Options { exit_when_done: true, linger: Duration::ZERO, ..at_max(Feed::Tape { dir: dir.path().into() }) }).await;
    let (got, _) = drain(&mut connect(&replay, Provider::Tweetstream).await).await;
    let all = of(&envelopes, Provider::Tweetstream);
    assert!(got.len() < all.len() && got.len() > all.len() / 2, "{} of {}", got.len(), all.len());
    let mut rest = all.iter();
    assert!(got.iter().all(|envelope| rest.any(|other| other == envelope)), "in order");
    let damage = replay.wait().await.stats.damage;
    assert!(!damage.is_empty() && damage[0].contains("tweetstream"), "{damage:?}");
}

#[tokio::test]
async fn many_clients_of_one_provider_each_get_everything() {
    let envelopes = world(600);
    for provider in Provider::ALL {
        let want = of(&envelopes, provider);
        let replay = play(Options { wait_for_clients: 3, max_connections: Some(3), ..at_max(lines(&envelopes)) }).await;
        let mut clients = Vec::new();
        for framing in [Framing::Sse, Framing::Lines, Framing::Sse] {
            clients.push(try_connect(&replay, provider, KEY, framing).await.unwrap().live);
        }
        let mut tasks = JoinSet::new();
        for mut client in clients {
            let n = want.len();
            tasks.spawn(async move { take(&mut client, n).await });
        }
        for got in tasks.join_all().await {
            assert!(got == want, "{provider}");
        }
        let mut late = connect_as(&replay, provider, "another").await;
        if provider == Provider::XLive {
            assert!(next(&mut late).await.starts_with(br#"{"topic":"/system/config""#));
        }
        replay.stop();
        let (got, _) = drain(&mut late).await;
        assert_eq!(got.len(), 0, "everything was played before");
    }
}

#[tokio::test]
async fn a_late_client_gets_everything_from_then_on() {
    let options = synthetic::Options { seed: 3, ..Default::default() };
    let replay =
        play(Options { max_connections: Some(2), ..at_max(Feed::Synthetic { options: options.clone(), limit: None }) }).await;
    let mut early = connect(&replay, Provider::Tweetstream).await;
    take(&mut early, 500).await;
    let mut late = connect(&replay, Provider::Tweetstream).await;
    let reading = tokio::spawn(async move { while let Incoming::Message(_) = next_sign(&mut early).await {} });
    let got = take(&mut late, 500).await;
    let world = World::new(options).filter(|e| e.provider == Provider::Tweetstream).map(|e| e.bytes);
    let want: Vec<_> = world.skip_while(|bytes| *bytes != got[0]).take(500).collect();
    assert!(got == want);
    drop(late);
    replay.stop();
    assert_eq!(replay.wait().await.ended, Ended::Stopped);
    reading.await.unwrap();
}

#[tokio::test]
async fn a_made_up_world_may_end() {
    let options = synthetic::Options { seed: 5, mix: [0.0, 1.0, 1.0, f64::NAN], ..Default::default() };
    let feed = Feed::Synthetic { options: options.clone(), limit: Some(300) };
    let replay = play(at_max(feed)).await;
    let all: Vec<_> = World::new(options).take(300).collect();
    for provider in [Provider::Tweetstream, Provider::Scrapebadger] {
        let want = of(&all, provider);
        assert!(!want.is_empty() && take(&mut connect(&replay, provider).await, want.len()).await == want);
    }
    let stats = replay.stats();
    assert!(stats.of(Provider::TwitterapiIo).done && stats.of(Provider::XLive).done, "nothing to play is done");
}

#[tokio::test]
async fn who_may_come_in() {
    let envelopes = world(50);
    let options = Options { key: Secret::new(KEY), max_connections: Some(1), ..at_max(lines(&envelopes)) };
    let replay = play(options).await;
    for provider in [Provider::TwitterapiIo, Provider::Tweetstream, Provider::XLive] {
        match try_connect(&replay, provider, "wrong", Framing::Sse).await {
            Err(OpenError::Refused(response)) => assert_eq!(response.status, 401, "{provider}"),
            other => panic!("{other:?}"),
        }
    }
    let (said, end) = drain(&mut connect_as(&replay, Provider::Scrapebadger, "wrong").await).await;
    assert!(said[0].starts_with(br#"{"type":"error","code":4001"#) && code(&end) == Some(4001));

    let opened = try_connect(&replay, Provider::Tweetstream, KEY, Framing::Sse).await.unwrap();
    assert_eq!(opened.subprotocol.as_deref(), Some("tweetstream.v1"));
    let mut first = connect(&replay, Provider::TwitterapiIo).await;
    let badger = connect(&replay, Provider::Scrapebadger).await;
    match try_connect(&replay, Provider::Tweetstream, KEY, Framing::Sse).await {
        Err(OpenError::Refused(response)) => assert_eq!(response.status, 429),
        other => panic!("{other:?}"),
    }
    assert_eq!(code(&drain(&mut connect(&replay, Provider::TwitterapiIo).await).await.1), Some(1008));
    assert_eq!(code(&drain(&mut connect(&replay, Provider::Scrapebadger).await).await.1), Some(4003));
    drop((opened, badger));
    // The place is free again once the server has seen the first one go.
    first.close(1000, "").await;
    drain(&mut first).await;
    while replay.stats().of(Provider::TwitterapiIo).clients > 0 {
        tokio::task::yield_now().await;
    }
    let mut second = connect(&replay, Provider::TwitterapiIo).await;
    replay.stop();
    assert_eq!(code(&drain(&mut second).await.1), Some(1001));
}

#[tokio::test]
async fn greets_on_the_live_pipeline_unless_the_tape_does() {
    let envelopes = world(400);
    let config = |bytes: &Bytes| bytes.starts_with(br#"{"topic":"/system/config""#);
    let with = of(&envelopes, Provider::XLive);
    assert!(config(&with[0]) && with.iter().filter(|bytes| config(bytes)).count() == 1);
    let replay = play(at_max(lines(&envelopes))).await;
    assert_eq!(next(&mut connect(&replay, Provider::XLive).await).await, with[0]);

    let without: Vec<_> = envelopes.iter().filter(|envelope| !config(&envelope.bytes)).cloned().collect();
    let replay = play(at_max(lines(&without))).await;
    let got = take(&mut connect(&replay, Provider::XLive).await, with.len()).await;
    assert!(config(&got[0]) && got[0] != with[0] && got[1..] == with[1..]);

    // The tape's own is long in coming: nobody waits for it, and it comes all the same.
    let hour = |envelope: &Envelope| Envelope { at: envelope.at.plus(Duration::from_secs(3_600)), ..envelope.clone() };
    let own = envelopes.iter().filter(|envelope| envelope.provider == Provider::XLive).map(hour);
    let late: Vec<_> = envelopes[..1].iter().cloned().chain(own).collect();
    let held = Options { start: Start::Paused, ..at_max(lines(&envelopes)) };
    for options in [held, Options::new(lines(&late))] {
        let replay = play(options).await;
        let mut client = connect(&replay, Provider::XLive).await;
        let greeting = next(&mut client).await;
        assert!(config(&greeting) && greeting != with[0]);
        replay.control().speed(Speed::Max).unwrap();
        replay.control().resume();
        assert!(take(&mut client, with.len()).await == with);
    }

    // Nobody has anything to say: still a config, and signs of life.
    for framing in [Framing::Sse, Framing::Lines] {
        let keepalive = Some(Duration::from_millis(5));
        let none = start_with(at_max(lines(&[])), listener().await, Arc::new(RealDisk), std::future::pending(), keepalive);
        let none = none.await.unwrap();
        let mut client = try_connect(&none, Provider::XLive, KEY, framing).await.unwrap().live;
        assert!(config(&next(&mut client).await));
        assert_eq!((client.next().await, client.next().await), (Incoming::Alive, Incoming::Alive));
        let mut client = connect(&none, Provider::Tweetstream).await;
        assert_eq!((client.next().await, client.next().await), (Incoming::Alive, Incoming::Alive));
    }
}

#[tokio::test]
async fn topics_choose_on_the_live_pipeline() {
    let engagement = |id: u32| {
        let bytes = format!(r#"{{"topic":"/tweet_engagement/{id}","payload":{{"tweet_engagement":{{"like_count":"1"}}}}}}"#);
        Envelope { provider: Provider::XLive, at: UnixMicros(i64::from(id)), bytes: bytes.into() }
    };
    let envelopes: Vec<_> = (0..100).map(engagement).collect();
    let replay = play(Options { exit_when_done: true, linger: Duration::ZERO, ..at_max(lines(&envelopes)) }).await;
    let mut settings = default_settings(Provider::XLive);
    settings.base = Some(Base::parse(&replay.urls().base()).unwrap());
    settings.credentials.auth_token = Secret::new(KEY);
    settings.credentials.ct0 = Secret::new("c");
    settings.topics = vec!["/tweet_engagement/7".to_owned(), "/tweet_engagement/93".to_owned()];
    let opening = Client::new(settings).opening();
    let opened = open(&SystemNetwork::new(TlsOptions::default()).unwrap(), &opening, &Limits::default()).await.unwrap();
    let mut live = opened.live;
    let (got, _) = drain(&mut live).await;
    assert_eq!(got[1..], [envelopes[7].bytes.clone(), envelopes[93].bytes.clone()]);
    assert_eq!(replay.wait().await.stats.of(Provider::XLive).sent, 2);
}

#[tokio::test]
async fn nothing_comes_before_it_is_due() {
    let envelopes: Vec<_> = world(200);
    let start = envelopes[0].at;
    let rate = 10.0;
    let replay = play(Options { speed: Speed::Times(rate), ..Options::new(lines(&envelopes)) }).await;
    // The clock starts with the first client, so not before this.
    let before = Instant::now();
    let mut tasks = JoinSet::new();
    for provider in Provider::ALL {
        let mut client = connect(&replay, provider).await;
        let own: Vec<_> = envelopes.iter().filter(|e| e.provider == provider).cloned().collect();
        tasks.spawn(async move {
            for envelope in own {
                assert_eq!(next(&mut client).await, envelope.bytes);
                let due = Duration::from_secs_f64((envelope.at.0 - start.0) as f64 / 1e6 / rate);
                assert!(before.elapsed() >= due, "{provider} {due:?} {:?}", before.elapsed());
            }
        });
    }
    tasks.join_all().await;
}

#[tokio::test]
async fn who_comes_late_gets_at_once_what_is_overdue() {
    let hour = 3_600_000_000;
    let at =
        |provider, after: i64| Envelope { provider, at: UnixMicros(after), bytes: Bytes::from(format!("{{\"at\":{after}}}")) };
    let mut envelopes = vec![at(Provider::Scrapebadger, 0), at(Provider::TwitterapiIo, 0)];
    envelopes.extend((1..20_000).map(|n| at(Provider::TwitterapiIo, n)));
    envelopes.push(at(Provider::TwitterapiIo, hour));
    let replay = play(Options { speed: Speed::Times(1.0), client_queue_bytes: 1_000, ..Options::new(lines(&envelopes)) }).await;
    next(&mut connect(&replay, Provider::Scrapebadger).await).await;
    let want = of(&envelopes, Provider::TwitterapiIo);
    assert!(take(&mut connect(&replay, Provider::TwitterapiIo).await, 20_000).await == want[..20_000]);
    let stats = replay.stats();
    assert_eq!((stats.of(Provider::TwitterapiIo).played, stats.of(Provider::TwitterapiIo).too_slow), (20_000, 0));
    assert!(!stats.of(Provider::TwitterapiIo).done);
    // A cap on idle time makes the hour short.
    let idle_cap = Some(Duration::from_millis(5));
    let replay = play(Options { speed: Speed::Times(1.0), idle_cap, ..Options::new(lines(&envelopes)) }).await;
    assert!(take(&mut connect(&replay, Provider::TwitterapiIo).await, 20_001).await == want);
}

#[tokio::test]
async fn a_client_that_does_not_read_stops_only_its_own_provider_at_full_speed() {
    let options = synthetic::Options::default();
    let replay = play(at_max(Feed::Synthetic { options, limit: None })).await;
    let stuck = connect(&replay, Provider::TwitterapiIo).await;
    let mut other = connect(&replay, Provider::Tweetstream).await;
    take(&mut other, 20_000).await;
    let stats = replay.stats();
    let played = stats.of(Provider::TwitterapiIo);
    assert!(played.clients == 1 && played.too_slow == 0 && played.played < 20_000, "{played:?}");
    replay.stop();
    assert_eq!(replay.wait().await.ended, Ended::Stopped, "whoever does not read cannot hold it up");
    drop(stuck);
}

#[tokio::test]
async fn a_client_that_does_not_read_is_sent_away_at_a_given_pace() {
    // Everything within a second, many times what buffers take, and then on and on.
    let large = |n: i64| {
        let bytes = Bytes::from(format!("{{\"n\":{n},\"x\":\"{}\"}}", "x".repeat(200_000)));
        Envelope { provider: Provider::Tweetstream, at: UnixMicros(n * 1_000), bytes }
    };
    let envelopes: Vec<_> = (0..400).map(large).collect();
    let options =
        Options { client_queue_bytes: 100_000, max_connections: Some(2), wait_for_clients: 2, ..Options::new(lines(&envelopes)) };
    let replay = play(options).await;
    let stuck = connect(&replay, Provider::Tweetstream).await;
    let mut reading = connect(&replay, Provider::Tweetstream).await;
    assert!(take(&mut reading, 400).await == of(&envelopes, Provider::Tweetstream));
    assert_eq!(replay.stats().of(Provider::Tweetstream).too_slow, 1);
    drop(stuck);
}

async fn raw(replay: &Replay, bytes: &[u8]) -> Vec<u8> {
    let mut tcp = TcpStream::connect(replay.urls().base().strip_prefix("http://").unwrap()).await.unwrap();
    tcp.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    // A reset is an end, too.
    drop(tcp.read_to_end(&mut answer).await);
    answer
}

#[tokio::test]
async fn garbage_harms_nobody() {
    let envelopes = world(100);
    let replay = play(at_max(lines(&envelopes))).await;
    assert!(raw(&replay, b"\x16\x03\x01 what is this\r\n\r\n").await.len() < 200);
    let upgrade = b"GET /ws?apiKey=k HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    // Frames without a mask, of a reserved kind.
    let answer = raw(&replay, &[&upgrade[..], b"\x8f\x7f\xff\xff\xff\xff\xff\xff\xff\xff garbage"].concat()).await;
    assert!(answer.starts_with(b"HTTP/1.1 101 "));
    let mut client = connect(&replay, Provider::TwitterapiIo).await;
    client.send_text("not json").await.unwrap();
    client.send_text(&"[".repeat(100_000)).await.unwrap();
    let want = of(&envelopes, Provider::TwitterapiIo);
    assert!(take(&mut client, want.len()).await == want);
}

#[tokio::test]
async fn other_paths_are_told_what_is_here() {
    let replay = play(at_max(lines(&[]))).await;
    let port = replay.urls().base().rsplit_once(':').unwrap().1.to_owned();
    let mut all = String::new();
    for path in ["/", "/nowhere"] {
        let asked = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let answer = String::from_utf8(raw(&replay, asked.as_bytes()).await).unwrap().replace(&port, "PORT");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        all += &format!("{path} {} {}\n", &head[9..12], body.trim_end());
    }
    expect_test::expect![[r#"
        / 200 birdtape replay: a fake provider that plays a tape.

        Live connections:
          twitterapi_io: ws://127.0.0.1:PORT/twitter/tweet/websocket
          tweetstream: ws://127.0.0.1:PORT/ws
          scrapebadger: ws://127.0.0.1:PORT/v1/twitter/stream
          x_live: http://127.0.0.1:PORT/live_pipeline/events

        Any key is accepted unless the replay was given one.
        /nowhere 404 {"error":"nothing is served here","live":{"twitterapi_io":"/twitter/tweet/websocket","tweetstream":"/ws","scrapebadger":"/v1/twitter/stream","x_live":"/live_pipeline/events"}}
    "#]]
    .assert_eq(&all);
}

#[tokio::test]
async fn bad_starts_have_clear_words() {
    let taken = listener().await;
    let error = bind(taken.local_addr().unwrap()).await.unwrap_err();
    assert!(error.to_string().contains("the port is in use") && error.hint().unwrap().contains("port 0"), "{error}");

    let everywhere = bind(SocketAddr::from(([0, 0, 0, 0], 0))).await.unwrap();
    let disk = || Arc::new(RealDisk);
    let error = start(Options::new(lines(&[])), everywhere, disk(), std::future::pending()).await.unwrap_err();
    assert!(matches!(error, ReplayError::KeyNeeded { .. }), "{error}");
    let everywhere = bind(SocketAddr::from(([0, 0, 0, 0], 0))).await.unwrap();
    let options = Options { key: Secret::new(KEY), ..Options::new(lines(&[])) };
    start(options, everywhere, disk(), std::future::pending()).await.unwrap();

    for speed in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let options = Options { speed: Speed::Times(speed), ..Options::new(lines(&[])) };
        let error = start(options, listener().await, disk(), std::future::pending()).await.unwrap_err();
        assert!(matches!(error, ReplayError::Place(ControlError::Speed { .. })), "{error}");
    }
    let dir = tempfile::tempdir().unwrap();
    let options = Options::new(Feed::Tape { dir: dir.path().to_owned() });
    let error = start(options, listener().await, disk(), std::future::pending()).await.unwrap_err();
    assert!(error.to_string().contains("is not a tape") && error.hint().is_some(), "{error}");
}

#[tokio::test]
async fn stops_by_itself_by_hand_and_by_being_dropped() {
    let envelopes = world(100);
    // Clients leave by themselves: the linger is not waited for, but a provider nobody came for yet is.
    let only: Vec<_> = envelopes.iter().filter(|e| e.provider == Provider::Tweetstream).cloned().collect();
    let hour = Duration::from_secs(3_600);
    let replay = play(Options { exit_when_done: true, linger: hour, ..at_max(lines(&only)) }).await;
    let mut client = connect(&replay, Provider::Tweetstream).await;
    take(&mut client, only.len()).await;
    drop(client);
    assert_eq!(replay.wait().await.ended, Ended::Done);

    let replay = play(at_max(lines(&envelopes))).await;
    let mut client = connect(&replay, Provider::Tweetstream).await;
    drop(replay);
    assert_eq!(code(&drain(&mut client).await.1), Some(1001));

    let (shut, shutdown) = tokio::sync::oneshot::channel::<()>();
    let ready = async { drop(shutdown.await) };
    let replay = start(at_max(lines(&envelopes)), listener().await, Arc::new(RealDisk), ready).await.unwrap();
    let mut client = connect(&replay, Provider::XLive).await;
    next(&mut client).await;
    shut.send(()).unwrap();
    drain(&mut client).await;
    assert_eq!(replay.wait().await.ended, Ended::Stopped);
    assert!(TcpStream::connect(replay.urls().base().strip_prefix("http://").unwrap()).await.is_err());
}
