//! What the four providers say: envelopes, pages of history, and what becomes of both.

use std::time::Duration;

use birdtape::model::{Decoded, Event, EventId, EventKind, Response, Row, Said, Secret, UnixMicros, Via};
use birdtape::provider::history::{Known, Next, Selector, Walk, Wanted, account_of, decode_page, read_page, selected_by};
use birdtape::provider::redact::{Redaction, Redactor};
use birdtape::provider::shift::Shift;
use birdtape::provider::{Provider, RowSink, Surprise, decode, default_settings, read_page_rows, read_rows, recognise, said};
use bytes::Bytes;
use serde_json::Value;

/// An hour, and some: nothing that a sum of dates hides.
const SHIFT_MS: i64 = 3_723_004;

pub(super) fn twitterapi_io(data: &[u8]) -> bool {
    envelope(Provider::TwitterapiIo, data)
}

pub(super) fn tweetstream(data: &[u8]) -> bool {
    envelope(Provider::Tweetstream, data)
}

pub(super) fn scrapebadger(data: &[u8]) -> bool {
    envelope(Provider::Scrapebadger, data)
}

pub(super) fn x_live(data: &[u8]) -> bool {
    envelope(Provider::XLive, data)
}

/// What a reader of rows hands out.
#[derive(Default)]
struct Heard {
    events: Vec<Event>,
    extras: Vec<String>,
}

impl RowSink for Heard {
    fn row(&mut self, row: Row<'_>) {
        self.extras.push(match row.said {
            Said::Post(said) => said.extra.0,
            Said::Profile(said) => said.extra.0,
            Said::Follow(said) => said.extra.0,
            Said::Engagement(said) => said.extra.0,
            Said::Dm(said) => said.extra.0,
            Said::Other(extra) => extra.0,
        });
        self.events.push(row.event);
    }

    fn surprise(&mut self, surprise: Surprise<'_>) {
        assert!(!surprise.found.is_empty());
    }
}

impl Heard {
    fn is_sound(&self) {
        for extra in self.extras.iter().filter(|extra| !extra.is_empty()) {
            assert!(serde_json::from_str::<Value>(extra).is_ok_and(|extra| extra.is_object()), "{extra}");
        }
    }
}

/// Whether the bytes are one JSON object or array and nothing else, on one line, as serde_json sees it.
fn is_exact(data: &[u8]) -> Option<bool> {
    let is_bound = matches!((data.first(), data.last()), (Some(b'{'), Some(b'}')) | (Some(b'['), Some(b']')));
    let has_lines = data.contains(&b'\n') || data.contains(&b'\r');
    // Deeper than that the two readers differ.
    let is_deep = data.iter().filter(|byte| matches!(byte, b'[' | b'{')).count() > 120;
    (!is_deep).then(|| is_bound && !has_lines && serde_json::from_slice::<Value>(data).is_ok())
}

/// The reader of envelopes and the reader of rows agree, and what is made of an envelope is as sound as it is.
fn envelope(provider: Provider, data: &[u8]) -> bool {
    let decoded = decode(provider, data);
    let exact = is_exact(data);
    assert!(exact.is_none_or(|exact| exact == decoded.json), "is it one line of JSON: {}", decoded.json);
    let mut heard = Heard::default();
    let told = read_rows(provider, Via::Ws, data, &mut heard);
    assert_eq!(heard.events, decoded.events);
    assert_eq!((told.json, told.message, told.provider_at), (decoded.json, decoded.message, decoded.provider_at));
    heard.is_sound();
    drop((said(provider, data), selected_by(provider, data), account_of(provider, data), recognise(data)));
    moved(provider, data, decoded.json);
    decoded.json && !decoded.events.is_empty()
}

/// Moved in time, and back, it has the same shape.
fn moved(provider: Provider, data: &[u8], is_json: bool) {
    let bytes = Bytes::copy_from_slice(data);
    let there = Shift::by_millis(SHIFT_MS).envelope(provider, &bytes);
    assert_eq!(decode(provider, &there).json, is_json);
    assert_eq!(decode(provider, &there).events.len(), decode(provider, data).events.len());
    let back = Shift::by_millis(SHIFT_MS).back().envelope(provider, &there);
    assert_eq!(decode(provider, &back).json, is_json);
}

/// Redacted it is JSON if it was, with the same kinds of events.
pub(super) fn redaction(data: &[u8]) -> bool {
    let Some((which, data)) = data.split_first() else { return false };
    let provider = Provider::ALL[usize::from(*which) % 4];
    let bytes = Bytes::copy_from_slice(data);
    let mut redactor = Redactor::new(Redaction::all(), Secret::new("a key for fuzzing").expect("it is not empty"));
    redactor.learn(provider, &bytes);
    let redacted = redactor.envelope(provider, &bytes);
    let (before, after) = (decode(provider, &bytes), decode(provider, &redacted));
    if before.json {
        assert!(after.json);
        let kinds = |decoded: &Decoded| decoded.events.iter().map(|event| event.kind).collect::<Vec<_>>();
        assert_eq!(kinds(&before), kinds(&after));
    }
    before.json
}

/// Knows every other event.
struct Half;

impl Known for Half {
    fn holds(&mut self, _: EventKind, id: &EventId) -> bool {
        match id {
            EventId::Tweet(id) => id.0 % 2 == 0,
            EventId::Text(text) => text.len() % 2 == 0,
        }
    }
}

/// Pages of history: a walk that is told anything ends or goes on, and goes on from its own cursor.
///
/// The first byte chooses the provider, the second the status; bytes 0x1e stand between pages, and what stands before the
/// first 0x1d is a cursor.
pub(super) fn history(data: &[u8]) -> bool {
    let [which, status, data @ ..] = data else { return false };
    let provider = Provider::ALL[usize::from(*which) % 4];
    let status = [200, 200, 200, 204, 302, 400, 401, 402, 403, 404, 422, 429, 500, 503][usize::from(*status) % 14];
    let (cursor, data) = match data.iter().position(|byte| *byte == 0x1d) {
        Some(at) => (std::str::from_utf8(&data[..at]).ok(), &data[at + 1..]),
        None => (None, data),
    };
    let settings = default_settings(provider);
    let to = UnixMicros(1_793_606_400_000_000);
    let scope = if provider == Provider::XLive { "/tweet_engagement/2064689031777615872" } else { "*" };
    let selector = Selector { id: "1".to_owned(), texts: vec!["from:alice cats".to_owned()], sample: None };
    let wanted = Wanted {
        scope: scope.to_owned(),
        from: to.minus(Duration::from_secs(600)),
        to,
        margin: Duration::from_secs(60),
        selectors: if which & 4 == 0 { vec![selector] } else { Vec::new() },
        is_listed: which & 4 == 0,
    };
    let mut walk = Walk::new(&settings, wanted.clone(), cursor);
    if which & 8 != 0 {
        walk.doubt();
    }
    let mut is_taken = false;
    for page in data.split(|byte| *byte == 0x1e).take(8) {
        let body = Bytes::copy_from_slice(page);
        let reading = read_page(provider, &body);
        let mut heard = Heard::default();
        let told = read_page_rows(provider, &body, &mut heard);
        let decoded = decode_page(provider, &body);
        heard.is_sound();
        assert_eq!(heard.events, decoded.events);
        assert_eq!(told.json, decoded.json);
        let Next::Ask(_) = walk.next() else { break };
        assert_eq!(walk.has_read(reading), decoded);
        let headers = vec![("retry-after".to_owned(), "3".to_owned())];
        is_taken |= walk.answered(&Response { status, headers, body }, &mut Half).is_ok();
        walk.price_about(1_000);
        // Killed and started again it asks the same.
        let mut again = Walk::new(&settings, wanted.clone(), Some(&walk.cursor()));
        match (walk.next(), again.next()) {
            (Next::Ask(one), Next::Ask(other)) => {
                assert_eq!((one.method, one.shown, one.body), (other.method, other.shown, other.body));
            }
            (Next::Done(one), Next::Done(other)) => assert_eq!(one, other),
            (one, other) => panic!("it would go on with {one:?}, and from its cursor with {other:?}"),
        }
    }
    is_taken
}
