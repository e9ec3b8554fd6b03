//! The crate `scrapebadger`: the stream as typed events, its key in the query.
//!
//! Arguments: FIXTURE [refused]

use std::env;

use futures_util::StreamExt as _;
use scrapebadger::ScrapeBadger;
use serde_json::Value;

/// ScrapeBadger's envelopes in the fixture: those with a `type` and neither an `event_type` nor a `v`.
fn envelopes(path: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(path).expect("the fixture is a readable file");
    let all = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("a line of JSON"));
    let found: Vec<_> =
        all.filter(|line| line.get("type").is_some() && line.get("event_type").is_none() && line.get("v").is_none()).collect();
    assert!(found.len() > 20, "the fixture holds {} envelopes of scrapebadger", found.len());
    found
}

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = env::args().collect();
    let variable = |name: &str| env::var(name).unwrap_or_else(|_| panic!("{name} is not set"));
    let client = ScrapeBadger::builder()
        .api_key(variable("SCRAPEBADGER_API_KEY"))
        .base_url(variable("SCRAPEBADGER_BASE_URL"))
        .build()
        .expect("a client");
    let twitter = client.twitter();
    let mut events = Box::pin(twitter.stream_events().await.expect("the stream opens, whatever the key"));
    let mut got = Vec::new();
    while let Some(event) = events.next().await {
        got.push(event.expect("no error before the end"));
    }
    if arguments.last().is_some_and(|word| word == "refused") {
        // The crate knows no errors: it hands them on as events, and then the stream ends.
        assert_eq!(got.len(), 1, "{got:?}");
        assert_eq!(got[0].extra["code"], 4001);
        return;
    }
    let want = envelopes(&arguments[1]);
    assert_eq!(got.len(), want.len());
    for (idx, (event, envelope)) in got.iter().zip(&want).enumerate() {
        assert_eq!(event.extra["type"], envelope["type"], "number {idx}");
        assert_eq!(event.tweet_id.as_deref(), envelope["tweet_id"].as_str(), "number {idx}");
        assert_eq!(event.latency_ms, envelope["latency_ms"].as_i64(), "number {idx}");
    }
}
