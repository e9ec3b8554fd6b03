//! The player's buttons, rounds, places, and what happened happening again.

use super::*;
use crate::archive::{Closed, Opened};
use crate::model::{EventId, EventKind, TweetId};

const TS: Provider = Provider::Tweetstream;

/// Posts of one provider, a second apart.
fn posts(n: i64) -> Vec<Envelope> {
    let post = |second: i64| {
        let at = UnixMicros(1_767_614_400_000_000 + second * 1_000_000);
        let (id, ms) = (TweetId::first_at(at), at.millis());
        let bytes = format!(
            r#"{{"v":1,"t":"tweet","op":"content","id":"{id}","ts":{ms},"d":{{"tweetId":"{id}","text":"post {second}","createdAt":{ms},"author":{{"handle":"@a"}}}}}}"#
        );
        Envelope { provider: TS, at, bytes: bytes.into() }
    };
    (0..n).map(post).collect()
}

fn bytes(envelopes: &[Envelope]) -> Vec<Bytes> {
    envelopes.iter().map(|envelope| envelope.bytes.clone()).collect()
}

/// Until the replay has played so much.
async fn played(replay: &Replay, n: u64) {
    while replay.stats().of(TS).played < n {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_held_clock_lets_single_steps_through() {
    let all = posts(10);
    let replay = play(Options { start: Start::Paused, ..at_max(lines(&all)) }).await;
    let control = replay.control();
    let mut client = connect(&replay, TS).await;
    assert_eq!(control.status().state, State::Paused);
    control.step(1).unwrap();
    assert_eq!(take(&mut client, 1).await, bytes(&all[..1]));
    control.step(3).unwrap();
    assert_eq!(take(&mut client, 3).await, bytes(&all[1..4]));
    played(&replay, 4).await;
    let status = control.status();
    assert_eq!((status.stats.of(TS).played, status.now), (4, all[3].at));
    control.resume();
    assert_eq!(take(&mut client, 6).await, bytes(&all[4..]));
    assert!(matches!(control.step(1), Err(ControlError::Running)));
    played(&replay, 10).await;
    while control.status().state != State::Done {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn goes_to_a_moment_a_post_and_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let all = posts(200);
    record(dir.path(), &all, |_, _, _| {});
    let id = |second: usize| {
        let decoded = decode(TS, &all[second].bytes);
        match decoded.events[0].id {
            EventId::Tweet(id) => id,
            _ => panic!("no post"),
        }
    };
    for feed in [lines(&all), Feed::Tape { dir: dir.path().to_owned() }] {
        let from = Some(Place::Tweet(id(150)));
        let replay = play(Options { start: Start::Paused, from, ..at_max(feed) }).await;
        let control = replay.control();
        let mut client = connect(&replay, TS).await;
        control.step(1).unwrap();
        assert_eq!(take(&mut client, 1).await, bytes(&all[150..151]));
        assert_eq!(control.seek(Place::At(all[20].at)).await.unwrap(), all[20].at);
        control.step(2).unwrap();
        assert_eq!(take(&mut client, 2).await, bytes(&all[20..22]), "back");
        control.seek(Place::Tweet(id(190))).await.unwrap();
        control.resume();
        assert_eq!(take(&mut client, 10).await, bytes(&all[190..]), "forward");
        control.seek(Place::End).await.unwrap();
        while control.status().state != State::Done {
            tokio::task::yield_now().await;
        }
        control.seek(Place::At(all[199].at)).await.unwrap();
        assert_eq!(take(&mut client, 1).await, bytes(&all[199..]), "from behind the end");

        let outside = control.seek(Place::At(UnixMicros(0))).await.unwrap_err();
        assert!(outside.to_string().contains("outside of what is played, which goes from 2026-01-05T12:00:00"), "{outside}");
        assert!(matches!(control.seek(Place::Tweet(TweetId(7))).await, Err(ControlError::NoSuchTweet { .. })));
    }
    let feed = Feed::Synthetic { options: synthetic::Options::default(), limit: None };
    let replay = play(Options { start: Start::Paused, ..at_max(feed) }).await;
    for place in [Place::End, Place::Tweet(TweetId(7))] {
        assert!(matches!(replay.control().seek(place).await, Err(ControlError::MadeUp)));
    }
}

#[tokio::test]
async fn plays_several_rounds() {
    let all = posts(50);
    let replay = play(Options { repeat: 2, exit_when_done: true, ..at_max(lines(&all)) }).await;
    let mut client = connect(&replay, TS).await;
    for round in 0..3 {
        assert_eq!(take(&mut client, 50).await, bytes(&all), "round {round}");
    }
    drop(client);
    let outcome = replay.wait().await;
    assert_eq!((outcome.ended, outcome.stats.of(TS).played), (Ended::Done, 150));
}

#[tokio::test]
async fn gives_an_envelope_that_is_in_no_tape() {
    let all = posts(2);
    let replay = play(Options { start: Start::Paused, ..at_max(lines(&all)) }).await;
    let mut clients = [connect(&replay, TS).await, connect(&replay, TS).await];
    let mut other = connect(&replay, Provider::Scrapebadger).await;
    let given = Bytes::from_static(br#"{ "v":1, "planted":true }"#);
    assert_eq!(replay.control().inject(TS, &given), 2);
    for client in &mut clients {
        assert_eq!(next(client).await, given);
    }
    let body = r#"{"provider":"scrapebadger","envelope":{"type" : "ping"}}"#;
    let asked = format!(
        "POST /_birdtape/inject HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = String::from_utf8(raw(&replay, asked.as_bytes()).await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains(r#""injected":1"#), "{answer}");
    assert_eq!(next(&mut other).await, Bytes::from_static(br#"{"type" : "ping"}"#));
}

#[tokio::test]
async fn is_steered_over_http_in_clear_words() {
    let all = posts(100);
    let replay = play(Options { start: Start::Paused, ..at_max(lines(&all)) }).await;
    let mut client = connect(&replay, TS).await;
    let mut said = String::new();
    for line in [
        "GET /_birdtape",
        "POST /_birdtape/step?n=2",
        "POST /_birdtape/step?n=0",
        "POST /_birdtape/seek?to=2026-01-05T12:00:30Z",
        "POST /_birdtape/seek?to=2027-01-01T00:00:00Z",
        "POST /_birdtape/seek?to=77",
        "POST /_birdtape/seek?to=soon",
        "POST /_birdtape/seek",
        "POST /_birdtape/speed?to=20",
        "POST /_birdtape/speed?to=0",
        "POST /_birdtape/speed?to=fast",
        "POST /_birdtape/resume",
        "POST /_birdtape/step",
        "POST /_birdtape/pause",
        "POST /_birdtape/inject",
        "POST /_birdtape/rewind",
        "GET /_birdtape/pause",
    ] {
        let asked = format!("{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let answer = String::from_utf8(raw(&replay, asked.as_bytes()).await).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        let body = match &body["error"] {
            serde_json::Value::Null => format!("{} {}", body["state"], body["speed"]),
            error => format!("{error} {}", body["hint"]),
        };
        said += &format!("{line}: {} {body}\n", &head[9..12]);
    }
    expect_test::expect![[r#"
        GET /_birdtape: 200 "paused" "max"
        POST /_birdtape/step?n=2: 200 "paused" "max"
        POST /_birdtape/step?n=0: 400 "n is no number of envelopes" "say {\"n\": 3}"
        POST /_birdtape/seek?to=2026-01-05T12:00:30Z: 200 "paused" "max"
        POST /_birdtape/seek?to=2027-01-01T00:00:00Z: 400 "2027-01-01T00:00:00.000000Z is outside of what is played, which goes from 2026-01-05T12:00:00.000000Z to 2026-01-05T12:01:39.000000Z" "take a moment in between; `birdtape status` shows what a tape holds"
        POST /_birdtape/seek?to=77: 400 "post 77 is in no envelope that is played" "`birdtape get ID` shows whether the tape has it, and over which source"
        POST /_birdtape/seek?to=soon: 400 "`soon` is no place in a recording" "a place is a moment (2026-01-05T12:00:00Z), a post's id, or `end`"
        POST /_birdtape/seek: 400 "no place is given" "say {\"to\": \"2026-01-05T12:00:00Z\"}, {\"to\": \"a post's id\"} or {\"to\": \"end\"}"
        POST /_birdtape/speed?to=20: 200 "paused" 20.0
        POST /_birdtape/speed?to=0: 400 "a speed of 0 cannot be played" "a speed is a number above 0 and up to 1000000, or `max`"
        POST /_birdtape/speed?to=fast: 400 "`fast` is no speed" "say {\"to\": 10} or {\"to\": \"max\"}"
        POST /_birdtape/resume: 200 "playing" 20.0
        POST /_birdtape/step: 400 "the clock runs, so there is nothing to step" "pause it first"
        POST /_birdtape/pause: 200 "paused" 20.0
        POST /_birdtape/inject: 400 "the body cannot be read: EOF while parsing a value at line 1 column 0" "say {\"provider\": \"tweetstream\", \"envelope\": {…}}, or \"text\" for bytes that are no JSON"
        POST /_birdtape/rewind: 404 "no button is called `rewind`" "there are pause, resume, speed, seek, step, inject and stop"
        GET /_birdtape/pause: 405 "a button is pressed with POST; GET tells the status" null
    "#]]
    .assert_eq(&said);
    replay.control().speed(Speed::Max).unwrap();
    replay.control().seek(Place::At(all[99].at)).await.unwrap();
    replay.control().resume();
    loop {
        if next(&mut client).await == all[99].bytes {
            break;
        }
    }
    replay.control().stop();
    assert_eq!(replay.wait().await.ended, Ended::Stopped);
}

/// A tape on which a connection was closed, an attempt refused, and the next one broke off.
fn troubled(dir: &Path, all: &[Envelope]) {
    let options = archive::Options::default();
    let mut tape = Archive::open(dir, Arc::new(RealDisk), options, decode_record, "test", all[0].at).unwrap();
    let source = SourceName::new("alpha").unwrap();
    tape.add_source(&source, TS).unwrap();
    let fact = |kind: RecordKind, at: UnixMicros, info: Option<&str>, body: String| Draft {
        received_at: at,
        kind,
        via: Via::Own,
        conn: ConnId(1),
        info: info.map(str::to_owned),
        body: Body::Fact(body),
    };
    let opened = || serde_json::to_string(&Opened { url: "wss://ws.tweetstream.io/ws".to_owned(), ..Opened::default() }).unwrap();
    let closed = |code, reason: &str, by: &str, fault: Option<&str>| {
        let (reason, by, fault) = (reason.to_owned(), by.to_owned(), fault.map(str::to_owned));
        serde_json::to_string(&Closed { code, reason, by, fault, detail: String::new() }).unwrap()
    };
    let mut append = |draft: Draft| {
        let decoded = (draft.kind == RecordKind::Frame).then(|| match &draft.body {
            Body::Bytes(bytes) => decode(TS, bytes),
            Body::Fact(_) => panic!("no envelope"),
        });
        tape.append(&source, &draft, decoded.as_ref()).unwrap();
    };
    let frame = |envelope: &Envelope| draft(envelope.at, Via::Ws, &envelope.bytes);
    append(fact(RecordKind::Open, all[0].at, None, opened()));
    all[..10].iter().for_each(|envelope| append(frame(envelope)));
    let at = |second: usize| all[second].at.plus(Duration::from_millis(1));
    append(fact(RecordKind::Close, at(9), None, closed(Some(1012), "service restart", "peer", None)));
    let refused = r#"{"method":"GET","url":"wss://ws.tweetstream.io/ws","status":429,"headers":{"retry-after":"3"}}"#;
    append(fact(RecordKind::Http, at(10), Some(refused), r#"{"error":"connection limit reached"}"#.to_owned()));
    append(fact(RecordKind::Open, at(12), None, opened()));
    all[15..20].iter().for_each(|envelope| append(frame(envelope)));
    append(fact(RecordKind::Close, at(19), None, closed(None, "", "network", Some("reset"))));
    append(fact(RecordKind::Open, at(20), None, opened()));
    all[22..25].iter().for_each(|envelope| append(frame(envelope)));
    tape.close(at(29)).unwrap();
}

#[tokio::test]
async fn what_happened_happens_again() {
    let dir = tempfile::tempdir().unwrap();
    let all = posts(30);
    troubled(dir.path(), &all);
    let feed = || Feed::Tape { dir: dir.path().to_owned() };

    let replay = play(Options { as_happened: true, exit_when_done: true, ..at_max(feed()) }).await;
    let mut client = connect(&replay, TS).await;
    let (got, end) = drain(&mut client).await;
    assert_eq!(got, bytes(&all[..10]));
    assert_eq!(end, Incoming::Closed { code: Some(1012), reason: "service restart".to_owned() });
    let refused = match try_connect(&replay, TS, KEY, Framing::Sse).await {
        Err(OpenError::Refused(response)) => response,
        other => panic!("not refused but {other:?}"),
    };
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("3")));
    assert_eq!(&refused.body[..], br#"{"error":"connection limit reached"}"#);
    let (got, end) = drain(&mut connect(&replay, TS).await).await;
    assert_eq!(got, bytes(&all[15..20]));
    assert!(matches!(end, Incoming::Broken { .. }), "{end:?}");
    assert_eq!(take(&mut connect(&replay, TS).await, 3).await, bytes(&all[22..25]));
    assert_eq!(replay.wait().await.ended, Ended::Done);

    let clean = play(at_max(feed())).await;
    let want = [&all[..10], &all[15..20], &all[22..25]].concat();
    assert_eq!(take(&mut connect(&clean, TS).await, 18).await, bytes(&want), "clean mode closes nothing");
}

#[tokio::test]
async fn who_comes_back_at_once_meets_the_refusal_too() {
    let dir = tempfile::tempdir().unwrap();
    let all = posts(30);
    troubled(dir.path(), &all);
    let feed = Feed::Tape { dir: dir.path().to_owned() };
    // Held right behind the close: the recorded refusal came a second later.
    let replay = play(Options { as_happened: true, start: Start::Paused, ..Options::new(feed) }).await;
    let mut client = connect(&replay, TS).await;
    // The recorded opening is a step of its own.
    replay.control().step(12).unwrap();
    let (got, end) = drain(&mut client).await;
    assert_eq!((got, code(&end)), (bytes(&all[..10]), Some(1012)));
    match try_connect(&replay, TS, KEY, Framing::Sse).await {
        Err(OpenError::Refused(response)) => assert_eq!(response.status, 429),
        other => panic!("not refused but {other:?}"),
    }
}

#[tokio::test]
async fn history_knows_what_exists_at_the_virtual_instant() {
    let dir = tempfile::tempdir().unwrap();
    let envelopes = world(600);
    record(dir.path(), &envelopes, |_, _, _| {});
    let options = synthetic::Options { seed: 7, ..synthetic::Options::default() };
    let feeds = [
        Feed::Tape { dir: dir.path().to_owned() },
        lines(&envelopes),
        Feed::Synthetic { options, limit: Some(envelopes.len() as u64) },
    ];
    // Published by then, or received if that was earlier; told without any of the code under test.
    let instant = envelopes[400].at;
    let mut want = std::collections::BTreeSet::new();
    for envelope in envelopes.iter().filter(|envelope| envelope.provider == Provider::TwitterapiIo) {
        for event in decode(envelope.provider, &envelope.bytes).events {
            let published = event.published_at.unwrap_or(envelope.at);
            if event.kind == EventKind::Tweet && published.min(envelope.at) <= instant {
                want.insert(event.id);
            }
        }
    }
    assert!(want.len() > 50);
    for feed in feeds {
        let shown = format!("{feed:?}")[..9].to_owned();
        let origin = Arc::new(feed::Origin::open(feed, Arc::new(RealDisk), &[], false).unwrap());
        let mut memory = memory::Memory::new(&origin, Provider::TwitterapiIo).unwrap();
        let mut got = std::collections::BTreeSet::new();
        let all_time = UnixMicros(i64::MIN)..UnixMicros(i64::MAX);
        memory
            .at(instant)
            .newest(&[EventKind::Tweet], all_time, |item| {
                assert!(decode(Provider::TwitterapiIo, &item.envelope).events.iter().any(|event| event.id == item.id));
                assert!(got.insert(item.id.clone()), "each once");
                std::ops::ControlFlow::Continue(())
            })
            .unwrap();
        assert!(got == want, "{shown}: {} of {}", got.len(), want.len());
    }
}
