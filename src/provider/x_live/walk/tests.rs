#![allow(clippy::unwrap_used)]
use std::collections::HashSet;

use super::*;
use crate::model::Provider;
use crate::provider::drive::{Tape, Walked, walk, with_page};
use crate::provider::history::Selector;
use crate::provider::past::with_past;
use crate::provider::{Rest, RestSettings, tamper, x_live};
use serde_json::Value;

const START: i64 = 1_767_614_400;
const TALK: &str = "101-202";

fn second(seconds: i64) -> UnixMicros {
    UnixMicros((START + seconds) * 1_000_000)
}

fn settings() -> Settings {
    let mut settings = x_live::default_settings();
    settings.credentials.auth_token = Secret::new("made-up-token");
    settings.credentials.ct0 = Secret::new("made-up-ct0");
    settings.credentials.key = Secret::new("made-up-bearer");
    settings.direct_messages = true;
    settings
}

fn wanted(scope: &str, from: i64, to: i64, topics: &[String]) -> Wanted {
    let selectors = topics.iter().map(|topic| Selector { id: topic.clone(), ..Selector::default() }).collect();
    let (from, to) = (second(from), second(to));
    Wanted { scope: scope.to_owned(), from, to, margin: Duration::from_secs(60), selectors, is_listed: false }
}

/// A message each second, in two conversations in turn.
fn messages(seconds: i64) -> Vec<(UnixMicros, String)> {
    let message = |n: i64| {
        let talk = if n % 2 == 0 { TALK } else { "77" };
        let body = format!(r#"{{"conversation_id":"{talk}","user_id":"101"}}"#);
        (second(n), format!(r#"{{"topic":"/dm_update/{talk}","payload":{{"dm_update":{body}}}}}"#))
    };
    (0..seconds).map(message).collect()
}

fn run(
    settings: &Settings,
    envelopes: &[(UnixMicros, String)],
    wanted: &Wanted,
    resumes: bool,
    meddle: &mut dyn FnMut(usize, &Request, Response) -> Response,
) -> Walked {
    let envelopes: Vec<_> = envelopes.iter().map(|(at, text)| (*at, text.as_str())).collect();
    let mut rest = Rest::new(Provider::XLive, RestSettings { rate_limits: false, ..RestSettings::default() });
    with_past(Provider::XLive, &envelopes, second(100_000), |past| {
        walk(settings, wanted, &mut Tape::default(), (&mut rest, past), resumes, meddle)
    })
}

fn honest(_: usize, _: &Request, response: Response) -> Response {
    response
}

fn proof(walked: &Walked, kind: EventKind) -> &Proof {
    let verdict = walked.verdict.as_ref().unwrap_or_else(|| panic!("{:?}", walked.stopped));
    &verdict.kinds.iter().find(|(of, _)| *of == kind).unwrap().1
}

/// Seconds of the messages found.
fn seconds_of(walked: &Walked) -> HashSet<i64> {
    let text = |id: &EventId| if let EventId::Text(text) = id { text.clone() } else { panic!("{id:?}") };
    let at = |id: &EventId| TweetId::parse(&text(id)).unwrap().published_at().unwrap().millis() / 1_000 - START;
    walked.found.iter().map(|(_, id)| at(id)).collect()
}

#[test]
fn a_conversation_is_walked_back_beyond_the_hole() {
    let envelopes = messages(2_000);
    let topic = format!("/dm_update/{TALK}");
    // There are messages a moment after the end, so only what lies before the beginning is looked at twice.
    let wanted_of = wanted(&topic, 900, 1_500, &[]);
    let walked = run(&settings(), &envelopes, &wanted_of, false, &mut honest);
    let seconds = seconds_of(&walked);
    assert!((900..1_500).step_by(2).all(|at| seconds.contains(&at)) && seconds.iter().all(|at| at % 2 == 0));
    assert_eq!((proof(&walked, EventKind::DmUpdate), walked.n_new), (&Proof::Filled, 300));
    // Messages every two seconds from 900 to 1500, twenty on a page.
    let least = (1_500 - 900) / 2 / 20;
    println!("{} requests, at least {least}; {}", walked.asked.len(), walked.verdict.as_ref().unwrap().evidence);
    assert!(walked.asked.len() <= least + 2);
    assert!(walked.asked.iter().all(|shown| shown.contains("/conversation/***.json") && !shown.contains("101")));

    let cut = run(&settings(), &envelopes, &wanted_of, true, &mut honest);
    assert_eq!((&cut.asked, &cut.found, &cut.verdict), (&walked.asked, &walked.found, &walked.verdict));
    assert!(cut.cursors.iter().all(|cursor| !cursor.contains("made-up") && !cursor.contains(TALK)));

    // To the very first message, at a quiet end, and where there is nothing.
    for (from, to, n) in [(10, 50, 20), (1_900, 5_000, 50), (9_000, 9_100, 0), (5, 5, 0)] {
        let walked = run(&settings(), &envelopes, &wanted(&topic, from, to, &[]), false, &mut honest);
        assert_eq!((walked.n_new.min(n), proof(&walked, EventKind::DmUpdate)), (n, &Proof::Filled), "{from} {to}");
        assert!((from..to.min(2_000)).filter(|at| at % 2 == 0).all(|at| seconds_of(&walked).contains(&at)));
    }
}

#[test]
fn a_lying_conversation_is_caught_or_not_believed() {
    let envelopes = messages(1_000);
    let wanted = wanted(&format!("/dm_update/{TALK}"), 300, 700, &[]);
    for kind in ["repeat_page", "missing_row", "shuffle", "duplicate_row", "lying_next", "loop", "429", "500", "truncated"] {
        for every in [1, 2, 3, 7] {
            let mut before: Option<Value> = None;
            let mut meddle = |n: usize, request: &Request, response: Response| {
                let provider = Provider::XLive;
                let last = std::mem::replace(&mut before, serde_json::from_slice(&response.body).ok());
                if n % every != every - 1 || (every == 1 && n > 200) {
                    return response;
                }
                let asked = request.target.expose().rsplit_once("max_id=").unwrap().1.to_owned();
                match kind {
                    "429" => tamper::refusal(provider, 429, None, None),
                    "500" => tamper::refusal(provider, 500, None, None),
                    "truncated" => Response { body: response.body.slice(..response.body.len() / 2), ..response },
                    _ => with_page(response, |page| match kind {
                        "repeat_page" => drop(last.map(|last| tamper::repeat_page(provider, page, &last))),
                        "missing_row"
                            if page.pointer("/conversation_timeline/status") == Some(&json!("HAS_MORE")) && every > 1 =>
                        {
                            tamper::missing_row(provider, page, n % 20);
                        }
                        "shuffle" => drop(tamper::shuffle(provider, page, n as u64)),
                        "duplicate_row" => drop(tamper::duplicate_row(provider, page, 0)),
                        "lying_next" => drop(tamper::lying_next(provider, page)),
                        "loop" => drop(tamper::cursor_loop(provider, page, &asked)),
                        _ => {}
                    }),
                }
            };
            let walked = run(&settings(), &envelopes, &wanted, false, &mut meddle);
            let seconds = seconds_of(&walked);
            let lost: Vec<_> = (300..700).step_by(2).filter(|at| !seconds.contains(at)).collect();
            let proof = proof(&walked, EventKind::DmUpdate);
            println!("{kind} every {every}: {} requests, {} lost, {proof:?}", walked.asked.len(), lost.len());
            let is_open = |at: i64| match proof {
                Proof::Partial { rest, .. } => rest.iter().any(|(from, to)| *from <= second(at) && second(at) < *to),
                _ => false,
            };
            assert!(lost.iter().all(|at| is_open(*at)), "{kind} every {every}: {lost:?} {proof:?}");
            assert!(every == 1 || *proof == Proof::Filled, "{kind} every {every}: {proof:?}");
        }
    }
}

/// Takes entries out of a page of a conversation.
fn keep_entries(page: &mut Value, keep: impl Fn(u64) -> bool) {
    let id = |entry: &Value| entry["message"]["id"].as_str().unwrap().parse::<u64>().unwrap();
    let talk = &mut page["conversation_timeline"];
    talk["entries"].as_array_mut().unwrap().retain(|entry| keep(id(entry)));
    // It may name its ends.
    talk.as_object_mut().unwrap().retain(|key, _| !matches!(key.as_str(), "min_entry_id" | "max_entry_id"));
}

/// A page that lacks entries says that it is the last one: that it was not shows that it was short.
#[test]
fn an_end_that_was_none_is_caught() {
    let envelopes = messages(1_000);
    // With an edge inside the page, and far from it.
    for from in [300, 600, 640, 650, 660] {
        let wanted = wanted(&format!("/dm_update/{TALK}"), from, 700, &[]);
        for at in 0..4 {
            let mut n_spoiled = 0;
            let mut meddle = |n: usize, _: &Request, response: Response| {
                if n != at {
                    return response;
                }
                n_spoiled += 1;
                with_page(response, |page| {
                    let ids = page["conversation_timeline"]["entries"].as_array().unwrap().len();
                    assert!(tamper::missing_row(Provider::XLive, page, ids / 2));
                    page["conversation_timeline"]["status"] = json!("AT_END");
                })
            };
            let walked = run(&settings(), &envelopes, &wanted, false, &mut meddle);
            let seconds = seconds_of(&walked);
            let lost: Vec<_> = (from..700).step_by(2).filter(|at| !seconds.contains(at)).collect();
            assert!(lost.is_empty() && *proof(&walked, EventKind::DmUpdate) == Proof::Filled, "{from}, page {at}: {lost:?}");
            assert!(at > 0 || n_spoiled == 1, "{n_spoiled}");
        }
    }
}

/// The last entry that came is asked for no more, so that the page before does not pass for the end below it.
#[test]
fn the_only_entry_again_is_no_end() {
    let envelopes = messages(40);
    let wanted = wanted(&format!("/dm_update/{TALK}"), 31, 60, &[]);
    let mut first: Option<Response> = None;
    let mut meddle = |n: usize, _: &Request, response: Response| match (n, &first) {
        (0, _) => {
            let page = with_page(response, |page| keep_entries(page, |id| TweetId(id).published_at().unwrap() >= second(38)));
            let page = with_page(page, |page| page["conversation_timeline"]["status"] = json!("AT_END"));
            first.insert(page).clone()
        }
        (1 | 2, Some(first)) => first.clone(),
        _ => response,
    };
    let walked = run(&settings(), &envelopes, &wanted, false, &mut meddle);
    let seconds = seconds_of(&walked);
    assert!([32, 34, 36, 38].iter().all(|at| seconds.contains(at)), "{seconds:?} {:?}", walked.verdict);
    assert_eq!(proof(&walked, EventKind::DmUpdate), &Proof::Filled);
}

#[test]
fn totals_of_many_posts_come_in_batches() {
    let ids: Vec<_> = (0..250).map(|n| TweetId(TweetId::first_at(second(n)).0 | 7)).collect();
    let envelope =
        |id: &TweetId| format!(r#"{{"topic":"/tweet_engagement/{id}","payload":{{"tweet_engagement":{{"like_count":"5"}}}}}}"#);
    let envelopes: Vec<_> = ids.iter().map(|id| (second(300), envelope(id))).collect();
    let mut topics: Vec<_> = ids.iter().map(|id| format!("/tweet_engagement/{id}")).collect();
    topics.extend(["/tweet_engagement/20".to_owned(), format!("/dm_typing/{TALK}"), format!("/dm_update/{TALK}")]);
    let wanted_of = wanted("*", 0, 100, &topics);
    for resumes in [false, true] {
        let walked = run(&settings(), &envelopes, &wanted_of, resumes, &mut honest);
        assert_eq!((walked.found.len(), walked.n_new), (250, 250));
        println!(
            "{} requests, at least 3, and 1 for a quiet conversation; its end is asked for twice, then all of it",
            walked.asked.len()
        );
        assert_eq!(walked.asked.len(), 3 + 3);
        let Proof::Unfillable { why } = proof(&walked, EventKind::Engagement) else { panic!() };
        assert!(why.contains("250 of 251"), "{why}");
        assert!(matches!(proof(&walked, EventKind::DmTyping), Proof::Unfillable { .. }));
        assert_eq!(proof(&walked, EventKind::DmUpdate), &Proof::Filled);
    }
    // A conversation that is caught is asked for again, and so are the totals: that those are new says nothing against it.
    let mut empties = |n: usize, _: &Request, response: Response| match n {
        3 => with_page(response, |page| page["conversation_timeline"]["status"] = json!("HAS_MORE")),
        _ => response,
    };
    let walked = run(&settings(), &envelopes, &wanted_of, false, &mut empties);
    assert_eq!((walked.asked.len() > 3 + 3 + 3, proof(&walked, EventKind::DmUpdate)), (true, &Proof::Filled));
    // One topic, private ones that are not switched on, and what nobody knows.
    let one = run(&settings(), &envelopes, &wanted(&topics[3], 0, 100, &topics), false, &mut honest);
    assert_eq!((one.asked.len(), one.found.len()), (1, 1));
    let shy = Settings { direct_messages: false, ..settings() };
    let closed = run(&shy, &envelopes, &wanted(&format!("/dm_update/{TALK}"), 0, 100, &[]), false, &mut honest);
    assert!(closed.asked.is_empty() && matches!(proof(&closed, EventKind::DmUpdate), Proof::Partial { .. }));
    let typing = run(&settings(), &envelopes, &wanted(&format!("/dm_typing/{TALK}"), 0, 100, &[]), false, &mut honest);
    assert_eq!((typing.asked.len(), typing.verdict.unwrap().kinds.len()), (0, 1));
    let unknown = run(&settings(), &envelopes, &wanted("/else/1", 0, 100, &[]), false, &mut honest);
    assert!(unknown.verdict.unwrap().kinds.iter().all(|(_, proof)| matches!(proof, Proof::Unfillable { .. })));
}

#[test]
fn refusals_wait_or_stop_with_the_cure() {
    let wanted = wanted("/tweet_engagement/20", 0, 1, &[]);
    let mut walk = Walk::new(&settings(), wanted, None);
    let mut answer = |response: Response| match walk.answered(&response, &mut Tape::default()) {
        Err(Trouble::Again { after, .. }) => format!("again {:?}", after.map(|wait| wait.as_secs())),
        Err(Trouble::Stop { why }) => format!("stop: {why}"),
        Ok(page) => format!("{page:?}"),
    };
    let limited = |headers: &[(&str, &str)]| {
        let mut response = tamper::refusal(Provider::XLive, 429, None, None);
        response.headers.extend(headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        response
    };
    let reset = ("x-rate-limit-reset", "784111900");
    assert_eq!(answer(limited(&[])), "again Some(60)");
    assert_eq!(answer(limited(&[reset])), "again Some(900)");
    assert_eq!(answer(limited(&[reset, ("date", "Sun, 06 Nov 1994 08:49:37 GMT")])), "again Some(123)");
    assert_eq!(answer(limited(&[("retry-after", "9")])), "again Some(9)");
    assert_eq!(answer(tamper::refusal(Provider::XLive, 503, None, None)), "again None");
    for (status, word) in [(401, "cookies"), (402, "locked"), (403, "locked"), (404, "id changes"), (400, "refuses")] {
        let said = answer(tamper::refusal(Provider::XLive, status, None, None));
        assert!(said.starts_with("stop: ") && said.contains(word), "{status} {said}");
    }
    for body in ["", "<html>", "{}", "[]", r#"{"data":{}}"#, r#"{"data":{"tweetResult":[]}"#, r#"{"errors":[{"code":131}]}"#] {
        assert_eq!(answer(Response::json(200, body)), "again None", "{body}");
    }
    assert_eq!(answer(Response::json(200, r#"{"errors":[{"code":88}]}"#)), "again Some(60)");
    assert!(answer(Response::json(200, r#"{"errors":[{"code":32}],"data":{}}"#)).contains("cookies"));
    let Next::Ask(request) = walk.next() else { panic!() };
    assert_eq!(
        request.shown,
        format!("https://x.com/i/api/graphql/{TWEET_RESULTS_BY_REST_IDS}/TweetResultsByRestIds of 1 posts")
    );
    assert!(!format!("{request:?}{walk:?}").contains("made-up"));
    assert_eq!(walk.price(), Price { requests: 1, ..Price::default() });
}

#[test]
fn pages_read_strictly() {
    let events = |body: &str| {
        let shown = |event: crate::model::Event| {
            format!("{} {:?} {:?} {}", event.kind.name(), event.id, event.published_at.map(UnixMicros::millis), event.selector)
        };
        page::decode_page(body.as_bytes()).events.into_iter().map(shown).collect::<Vec<_>>().join(" | ")
    };
    let wrapped = r#"{"result":{"tweet":{"rest_id":"18446744073709551615","legacy":{}}}}"#;
    assert_eq!(
        events(&format!(
            r#"{{"data":{{"tweetResult":[{wrapped},{{}},{{"result":{{"rest_id":"5"}}}},{{"result":{{"rest_id":1e3,"legacy":{{}}}}}}]}}}}"#
        )),
        "engagement Tweet(TweetId(18446744073709551615)) None /tweet_engagement/18446744073709551615"
    );
    let message = r#"{"message":{"id":"18446744073709551615","time":"1767614400000","conversation_id":"7"}}"#;
    assert_eq!(
        events(&format!(
            r#"{{"conversation_timeline":{{"status":"AT_END","entries":[{message},{{"message_delete":{{"id":"6"}}}}]}}}}"#
        )),
        r#"dm_update Text("18446744073709551615") Some(1767614400000) /dm_update/7"#
    );
    for other in [
        r#"{"conversation_timeline":{"status":"AT_END"}}"#,
        r#"{"topic":"/tweet_engagement/5","payload":{"tweet_engagement":{}}}"#,
        r#"{"data":{"tweetResult":{"result":{"rest_id":"5","legacy":{}}}}"#,
        "[]",
        "",
    ] {
        assert_eq!(events(other), "", "{other}");
    }
}
