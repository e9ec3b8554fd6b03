//! Fault scripts as clients meet them.

use std::collections::BTreeSet;
use std::pin::pin;

use super::*;
use crate::model::NetFault;
use crate::replay::faults::{Row, Script};

const TS: Provider = Provider::Tweetstream;

/// So many envelopes of a provider, a second apart.
fn numbered(provider: Provider, n: usize) -> Vec<Envelope> {
    let envelope = |n: i64| {
        let bytes = match provider {
            Provider::XLive => format!(r#"{{"topic":"/tweet_engagement/{n}","payload":{{"tweet_engagement":{{}}}}}}"#),
            _ => format!(r#"{{"n":{n}}}"#),
        };
        Envelope { provider, at: UnixMicros(n * 1_000_000), bytes: bytes.into() }
    };
    (1..).take(n).map(envelope).collect()
}

fn with(feed: Feed, script: &str) -> Options {
    Options { faults: Some(Script::parse("test.toml", script).unwrap()), ..at_max(feed) }
}

async fn play_with(envelopes: &[Envelope], script: &str) -> Replay {
    play(with(lines(envelopes), script)).await
}

/// The numbers of what arrived.
fn numbers(got: &[Bytes]) -> Vec<u32> {
    let number = |bytes: &Bytes| serde_json::from_slice::<serde_json::Value>(bytes).unwrap()["n"].as_u64().unwrap() as u32;
    got.iter().map(number).collect()
}

fn fired(replay: &Replay) -> Vec<u64> {
    replay.stats().faults.iter().map(|row| row.fired).collect()
}

async fn clients_are(replay: &Replay, provider: Provider, n: usize) {
    while replay.stats().of(provider).clients != n {
        tokio::task::yield_now().await;
    }
}

/// An open WebSocket of TweetStream as bare TCP, behind the answer to its upgrade.
async fn bare(replay: &Replay) -> TcpStream {
    let mut tcp = TcpStream::connect(replay.urls().base().strip_prefix("http://").unwrap()).await.unwrap();
    let upgrade = b"GET /ws?apiKey=k HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    tcp.write_all(upgrade).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(tcp.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "));
    tcp
}

#[tokio::test]
async fn close_has_the_code_and_the_reason() {
    let script = "[[fault]]\ndo = \"close\"\ncode = 1012\nreason = \"service restart\"\nmessages = 4";
    let replay = play_with(&numbered(TS, 9), script).await;
    let (got, end) = drain(&mut connect(&replay, TS).await).await;
    assert_eq!(numbers(&got), [1, 2, 3]);
    assert_eq!(end, Incoming::Closed { code: Some(1012), reason: "service restart".to_owned() });
    let row = Row { name: "close 1".to_owned(), does: "close", fired: 1, expected: 1 };
    assert_eq!(replay.stats().faults, [row]);

    // An endless response ends in order.
    let replay = play_with(&numbered(Provider::XLive, 9), script).await;
    let (got, end) = drain(&mut connect(&replay, Provider::XLive).await).await;
    assert_eq!((got.len(), code(&end)), (4, None), "config and three");
}

#[tokio::test]
async fn reset_is_a_reset() {
    let script = "[[fault]]\ndo = \"reset\"\nmessages = 2";
    let replay = play_with(&numbered(TS, 9), script).await;
    let mut tcp = bare(&replay).await;
    let error = tcp.read_to_end(&mut Vec::new()).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);

    let replay = play_with(&numbered(Provider::XLive, 9), script).await;
    let (_, end) = drain(&mut connect(&replay, Provider::XLive).await).await;
    assert!(matches!(end, Incoming::Broken { fault: NetFault::Reset, .. }), "{end:?}");
}

#[tokio::test]
async fn a_stalled_connection_says_nothing_at_all() {
    for client in ["ignored", "unread"] {
        let script = format!("[[fault]]\ndo = \"stall\"\nclient = \"{client}\"\nmessages = 2\nattempt = 1");
        let envelopes = numbered(TS, 9);
        let options = Options { wait_for_clients: 2, ..with(lines(&envelopes), &script) };
        let keepalive = Some(Duration::from_millis(5));
        let replay = start_with(options, listener().await, Arc::new(RealDisk), std::future::pending(), keepalive).await.unwrap();
        let mut stalled = bare(&replay).await;
        clients_are(&replay, TS, 1).await;
        let mut other = connect(&replay, TS).await;
        assert_eq!(take(&mut other, 9).await.len(), 9, "the others get everything");
        // What comes before the first envelope are keepalives.
        let mut frame = vec![0; 2];
        while frame[0] != 0x81 {
            stalled.read_exact(&mut frame).await.unwrap();
        }
        let mut body = vec![0; usize::from(frame[1])];
        stalled.read_exact(&mut body).await.unwrap();
        assert_eq!(body, br#"{"n":1}"#);
        while fired(&replay) != [1] {
            tokio::task::yield_now().await;
        }
        // A ping, and a message; the other connection's keepalives tell that time goes by.
        stalled.write_all(b"\x89\x80\0\0\0\0\x81\x82\0\0\0\0{}").await.unwrap();
        for _ in 0..20 {
            assert_eq!(other.next().await, Incoming::Alive);
        }
        let nothing = stalled.try_read(&mut [0; 16]).unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        drop(stalled);
        if client == "ignored" {
            clients_are(&replay, TS, 1).await;
        } else {
            assert_eq!(replay.stats().of(TS).clients, 2, "nobody has noticed");
        }
        replay.stop();
        replay.wait().await;
    }
}

#[tokio::test]
async fn a_stall_that_ends_loses_nothing() {
    let script = "[[fault]]\ndo = \"stall\"\nfor = \"40ms\"\nmessages = 2";
    let replay = play_with(&numbered(TS, 9), script).await;
    let before = Instant::now();
    let mut client = connect(&replay, TS).await;
    assert_eq!(numbers(&take(&mut client, 9).await), (1..=9).collect::<Vec<_>>());
    assert!(before.elapsed() >= Duration::from_millis(40));
}

#[tokio::test]
async fn delay_holds_what_is_behind_it_and_keeps_the_connection_alive() {
    let script = "[[fault]]\ndo = \"delay\"\nby = \"60ms\"\nmessages = 2";
    let keepalive = Some(Duration::from_millis(5));
    let options = with(lines(&numbered(TS, 4)), script);
    let replay = start_with(options, listener().await, Arc::new(RealDisk), std::future::pending(), keepalive).await.unwrap();
    let before = Instant::now();
    let mut client = connect(&replay, TS).await;
    let (mut got, mut n_alive) = (Vec::new(), 0);
    while got.len() < 4 {
        match client.next().await {
            Incoming::Message(message) => got.push(message),
            Incoming::Alive if got.len() == 1 => n_alive += 1,
            Incoming::Alive => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(numbers(&got), [1, 2, 3, 4]);
    assert!(before.elapsed() >= Duration::from_millis(60) && n_alive > 0, "{:?} {n_alive}", before.elapsed());
}

#[tokio::test]
async fn duplicate_reorder_and_swallow() {
    let numbers_with = async |script: &str, n: usize| {
        let replay = play_with(&numbered(TS, 9), script).await;
        let mut client = connect(&replay, TS).await;
        let got = take(&mut client, n).await;
        assert_eq!(fired(&replay), [1]);
        replay.stop();
        assert_eq!(drain(&mut client).await.0.len(), 0);
        numbers(&got)
    };
    assert_eq!(numbers_with("[[fault]]\ndo = \"duplicate\"\nmessages = 2", 10).await, [1, 2, 2, 3, 4, 5, 6, 7, 8, 9]);
    assert_eq!(numbers_with("[[fault]]\ndo = \"reorder\"\nmessages = 2", 9).await, [1, 3, 2, 4, 5, 6, 7, 8, 9]);
    // With nothing behind it, it comes all the same.
    assert_eq!(numbers_with("[[fault]]\ndo = \"reorder\"\nwithin = 5\nmessages = 9", 9).await, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    assert_eq!(numbers_with("[[fault]]\ndo = \"swallow\"\ncount = 3\nmessages = 2", 6).await, [1, 5, 6, 7, 8, 9]);
    assert_eq!(numbers_with("[[fault]]\ndo = \"swallow\"\nfor = \"4s\"\nafter = \"2s\"", 5).await, [1, 2, 7, 8, 9]);

    let got = numbers_with("[[fault]]\ndo = \"reorder\"\nwithin = 4\nmessages = 1", 9).await;
    let place = got.iter().position(|n| *n == 1).unwrap();
    assert!((1..=4).contains(&place), "{got:?}");
    assert_eq!(got.iter().collect::<BTreeSet<_>>().len(), 9);
}

#[tokio::test]
async fn an_endless_response_is_tampered_with_alike() {
    for framing in [Framing::Sse, Framing::Lines] {
        let script = "[[fault]]\ndo = \"duplicate\"\nmessages = 2\n[[fault]]\ndo = \"swallow\"\nmessages = 4\n[[fault]]\ndo = \"garbage\"\nmessages = 5";
        let envelopes = numbered(Provider::XLive, 6);
        let all = of(&envelopes, Provider::XLive);
        let replay = play_with(&envelopes, script).await;
        let mut client = try_connect(&replay, Provider::XLive, KEY, framing).await.unwrap().live;
        let got = take(&mut client, 8).await;
        let want = [&all[0], &all[1], &all[1], &all[2], &got[5], &all[4], &all[5]].map(Bytes::clone);
        assert_eq!(got[1..], want, "{framing:?}");
        assert!(got[5].len() == 64 && got[5].starts_with(br#"{"garbage":x"#));
    }
}

#[tokio::test]
async fn garbage_of_every_kind() {
    let first_with = async |kind: &str| {
        let script = format!("[[fault]]\ndo = \"garbage\"\nkind = \"{kind}\"\nbytes = 300\nmessages = 1");
        let replay = play_with(&numbered(TS, 3), &script).await;
        let mut client = connect(&replay, TS).await;
        let first = next_sign(&mut client).await;
        let rest = if matches!(first, Incoming::Message(_)) { take(&mut client, 3).await } else { Vec::new() };
        (first, numbers(&rest))
    };
    let (Incoming::Message(json), rest) = first_with("json").await else { panic!("no message") };
    assert!(json.len() == 300 && serde_json::from_slice::<serde_json::Value>(&json).is_err());
    assert_eq!(rest, [1, 2, 3]);
    let (Incoming::Message(binary), rest) = first_with("binary").await else { panic!("no message") };
    assert!(binary.len() == 300 && std::str::from_utf8(&binary).is_err());
    assert_eq!(rest, [1, 2, 3]);
    assert!(matches!(first_with("utf8").await.0, Incoming::Broken { fault: NetFault::InvalidUtf8, .. }));
    assert!(matches!(first_with("frame").await.0, Incoming::Broken { fault: NetFault::Malformed, .. }));
}

#[tokio::test]
async fn oversize_has_exactly_that_length() {
    for n in [32, 125, 126, 65_535, 65_536, 1_000_000] {
        let script = format!("[[fault]]\ndo = \"oversize\"\nbytes = {n}\nmessages = 2");
        let replay = play_with(&numbered(TS, 2), &script).await;
        let got = take(&mut connect(&replay, TS).await, 3).await;
        assert_eq!(got[1].len(), n);
        assert!(serde_json::from_slice::<serde_json::Value>(&got[1]).unwrap()["filler"].is_string());
    }
}

#[tokio::test]
async fn drip_takes_its_time() {
    let script = "[[fault]]\ndo = \"drip\"\nbytes_per_second = 1000\nmessages = 1";
    let replay = play_with(&numbered(TS, 6), script).await;
    let before = Instant::now();
    let mut client = connect(&replay, TS).await;
    assert_eq!(numbers(&take(&mut client, 6).await), [1, 2, 3, 4, 5, 6]);
    // Six frames of nine bytes; the last piece is waited for behind its arrival.
    assert!(before.elapsed() >= Duration::from_millis(33), "{:?}", before.elapsed());
}

#[tokio::test]
async fn farewells_in_the_providers_words() {
    let replay = play_with(&numbered(Provider::TwitterapiIo, 5), "[[fault]]\ndo = \"replaced\"\nmessages = 3").await;
    let (got, end) = drain(&mut connect(&replay, Provider::TwitterapiIo).await).await;
    assert_eq!((got.len(), &got[2][..], code(&end)), (3, &br#"{"event_type":"replaced"}"#[..], Some(4001)));

    let script = "[[fault]]\ndo = \"error_frame\"\ncode = 4003\nmessages = 3";
    let replay = play_with(&numbered(Provider::Scrapebadger, 5), script).await;
    let (got, end) = drain(&mut connect(&replay, Provider::Scrapebadger).await).await;
    assert!(got[2].starts_with(br#"{"type":"error","code":4003,"#));
    assert_eq!((got.len(), code(&end)), (3, Some(4003)));
}

#[tokio::test]
async fn a_lapse_ends_with_a_new_connection() {
    let script = "[[fault]]\ndo = \"lapse\"\nmessages = 3\nattempt = 1\nprovider = \"tweetstream\"";
    let feed = Feed::Synthetic { options: synthetic::Options::default(), limit: None };
    let keepalive = Some(Duration::from_millis(5));
    let replay =
        start_with(with(feed, script), listener().await, Arc::new(RealDisk), std::future::pending(), keepalive).await.unwrap();
    let mut lapsed = connect(&replay, TS).await;
    take(&mut lapsed, 2).await;
    // Envelopes go on being played, to nobody, and keepalives go on being sent.
    for _ in 0..5 {
        assert_eq!(lapsed.next().await, Incoming::Alive);
    }
    let mut fresh = connect(&replay, TS).await;
    take(&mut fresh, 100).await;
    assert_eq!((fired(&replay), lapsed.next().await), (vec![1], Incoming::Alive));
}

#[tokio::test]
async fn a_lapse_at_x_ends_when_topics_are_asked_for_again() {
    let script = "[[fault]]\ndo = \"lapse\"\nmessages = 2";
    let mut envelopes = numbered(Provider::XLive, 3);
    envelopes[2].at = UnixMicros(600_000);
    envelopes[1].at = UnixMicros(100_000);
    envelopes[0].at = UnixMicros(0);
    let options = Options { speed: Speed::Times(1.0), ..with(lines(&envelopes), script) };
    let replay = play(options).await;
    let mut client = connect(&replay, Provider::XLive).await;
    let config: serde_json::Value = serde_json::from_slice(&next(&mut client).await).unwrap();
    let session = config["payload"]["config"]["session_id"].as_str().unwrap().to_owned();
    assert_eq!(next(&mut client).await, envelopes[0].bytes);
    while fired(&replay) != [1] {
        tokio::task::yield_now().await;
    }
    let body = "sub_topics=%2Ftweet_engagement%2F3&unsub_topics=";
    let asked = format!(
        "POST /1.1/live_pipeline/update_subscriptions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nCookie: auth_token=k; ct0=c\r\nLivePipeline-Session: {session}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    assert!(raw(&replay, asked.as_bytes()).await.starts_with(b"HTTP/1.1 200 "));
    assert_eq!(next(&mut client).await, envelopes[2].bytes, "the second one is lost");
}

#[tokio::test]
async fn attempts_to_connect_fail_as_asked() {
    let script = r#"
        [[fault]]
        do = "refuse"
        status = 429
        retry_after = "7s"
        attempt = 1
        [[fault]]
        do = "drop"
        attempt = 2
        [[fault]]
        do = "bad_handshake"
        kind = "accept"
        attempt = 3
        [[fault]]
        do = "bad_handshake"
        name = "subprotocol"
        kind = "subprotocol"
        attempt = 4
        [[fault]]
        do = "bad_handshake"
        name = "old"
        kind = "http10"
        attempt = 5
        [[fault]]
        do = "bad_handshake"
        name = "page"
        kind = "page"
        attempt = 6
        [[fault]]
        do = "bad_handshake"
        name = "garbage"
        kind = "garbage"
        attempt = 7
        [[fault]]
        do = "hang"
        for = "10ms"
        attempt = 8
    "#;
    let replay = play_with(&numbered(TS, 3), script).await;
    let mut said = String::new();
    for number in 1..=8 {
        match try_connect(&replay, TS, KEY, Framing::Sse).await {
            Err(OpenError::Refused(response)) => {
                let body = String::from_utf8_lossy(&response.body).into_owned();
                said += &format!("{number} {} {:?} {body}\n", response.status, response.header("retry-after"));
            }
            Err(error) => said += &format!("{number} {error:?}\n").replace(&replay.urls().base()[7..], "HOST"),
            Ok(opened) => said += &format!("{number} open {:?}\n", opened.subprotocol),
        }
    }
    expect_test::expect![[r#"
        1 429 Some("7") {"error":"connection limit reached"}
        2 Unreachable { fault: Reset, detail: "HOST: the connection ended before an answer (connection closed before message completed)" }
        3 Unreachable { fault: Handshake, detail: "HOST: Sec-WebSocket-Accept is wrong; a cache or proxy may stand between" }
        4 open Some("nobody.offered.this")
        5 Unreachable { fault: Handshake, detail: "HOST: the upgrade was not answered in HTTP/1.1" }
        6 200 None <!doctype html><title>Welcome</title><p>Please sign in to this network.
        7 Unreachable { fault: Handshake, detail: "HOST: the answer is not HTTP/1.1 (invalid HTTP version parsed); check the address" }
        8 Unreachable { fault: Reset, detail: "HOST: the connection ended before an answer (connection closed before message completed)" }
    "#]].assert_eq(&said);
    assert_eq!(fired(&replay), [1; 8]);
    let mut client = connect(&replay, TS).await;
    assert_eq!(numbers(&take(&mut client, 3).await), [1, 2, 3]);
}

#[tokio::test]
async fn a_hanging_attempt_gets_no_answer() {
    let replay = play_with(&numbered(TS, 3), "[[fault]]\ndo = \"hang\"\nattempt = 1").await;
    let mut hanging = pin!(try_connect(&replay, TS, KEY, Framing::Sse));
    let other = async {
        while fired(&replay) != [1] {
            tokio::task::yield_now().await;
        }
        take(&mut connect(&replay, TS).await, 3).await
    };
    tokio::select! {
        opened = &mut hanging => panic!("{opened:?}"),
        got = other => assert_eq!(numbers(&got), [1, 2, 3]),
    }
    replay.stop();
    assert!(hanging.await.is_err());
}

#[tokio::test]
async fn history_is_refused_in_its_own_words() {
    let script = "[[fault]]\ndo = \"status\"\nstatus = 429\nretry_after = 3\npath = \"/api/history\"\nrequest = 2";
    let replay = play_with(&numbered(TS, 3), script).await;
    let asked = b"GET /api/history?apiKey=k HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    assert!(raw(&replay, asked).await.starts_with(b"HTTP/1.1 200 "));
    let answer = String::from_utf8(raw(&replay, asked).await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 429 ") && answer.contains("retry-after: 3\r\n"), "{answer}");
}

#[tokio::test]
async fn a_script_that_cannot_fit_the_feed_is_told_at_once() {
    let script = "[[fault]]\nname = \"late\"\ndo = \"reset\"\nafter = \"1h\"";
    let error = start(with(lines(&numbered(TS, 3)), script), listener().await, Arc::new(RealDisk), std::future::pending());
    let error = error.await.unwrap_err();
    assert_eq!(
        (error.to_string().as_str(), error.hint()),
        (
            "test.toml, fault `late`: begins at 1970-01-01T01:00:01.000000Z, after the last envelope of tweetstream at 1970-01-01T00:00:03.000000Z",
            Some("begin earlier")
        )
    );
}

/// Connects until it holds, and takes what comes; X's and others' refusals are tried again.
async fn insist(replay: &Replay, provider: Provider, attempts: usize) {
    for _ in 0..attempts {
        let Ok(opened) = try_connect(replay, provider, KEY, Framing::Sse).await else { continue };
        let mut live = opened.live;
        // Until the end, or until nothing but keepalives comes.
        while let Incoming::Message(_) = live.next().await {}
        drop(live);
    }
}

#[tokio::test]
async fn every_ready_script_plays() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/faults");
    for name in ["bad_night", "deploy", "rate_limited_key", "silent_lapse", "taken_over"] {
        let script = Script::load(&dir.join(format!("{name}.toml"))).unwrap();
        let feed = Feed::Synthetic { options: synthetic::Options { seed: 3, ..Default::default() }, limit: Some(4_000) };
        let options = Options { faults: Some(script), max_connections: Some(9), client_queue_bytes: 10_000, ..at_max(feed) };
        // Longer than any delay in them: silence is the end of a test's patience.
        let keepalive = Some(Duration::from_millis(500));
        let replay = start_with(options, listener().await, Arc::new(RealDisk), std::future::pending(), keepalive).await.unwrap();
        futures_util::future::join_all(Provider::ALL.map(|provider| insist(&replay, provider, 4))).await;
        for row in &replay.stats().faults {
            assert!(!row.is_missed(), "{name}: {}", row.words());
        }
    }
}
