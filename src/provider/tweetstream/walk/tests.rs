#![allow(clippy::unwrap_used)]
use super::*;
use crate::model::{Provider, Request, Secret, TweetId};
use crate::provider::drive::{self, Tape, Walked, walk, with_page};
use crate::provider::history::Selector;
use crate::provider::past::with_past;
use crate::provider::synthetic::{Options, World};
use crate::provider::{Rest, RestSettings, decode, tamper, tweetstream};
use expect_test::expect;
use serde_json::{Value, json};

const KEY: &str = "made-up-key-1234";
const START: i64 = 1_767_614_400;

fn second(seconds: i64) -> UnixMicros {
    UnixMicros((START + seconds) * 1_000_000)
}

fn settings() -> Settings {
    let mut settings = tweetstream::default_settings();
    settings.credentials.key = Secret::new(KEY);
    settings
}

fn fake(switches: &[&str]) -> Rest {
    let mut settings = RestSettings { key: Secret::new(KEY), rate_limits: false, ..RestSettings::default() };
    for switch in switches {
        settings.switches.set(&format!("tweetstream.{switch}")).unwrap();
    }
    Rest::new(Provider::Tweetstream, settings)
}

type Envelopes = Vec<(UnixMicros, String)>;

/// A seeded world of TweetStream alone.
fn world(rate: f64, seconds: i64) -> Envelopes {
    let options =
        Options { mix: [0.0, 1.0, 0.0, 0.0], rate, authors: 60, truth_social: 0.1, start: second(0), ..Options::default() };
    let envelopes = World::new(options).take_while(|envelope| envelope.at < second(seconds));
    envelopes.map(|envelope| (envelope.at, String::from_utf8(envelope.bytes.to_vec()).unwrap())).collect()
}

fn wanted(from: i64, to: i64) -> Wanted {
    let (from, to) = (second(from), second(to));
    Wanted { scope: "*".to_owned(), from, to, margin: Duration::from_secs(60), selectors: Vec::new(), is_listed: false }
}

/// What was received outside of the hole.
fn tape_without(envelopes: &Envelopes, from: i64, to: i64) -> Tape {
    let outside = envelopes.iter().filter(|(at, _)| *at < second(from) || *at >= second(to));
    let events = outside.flat_map(|(_, text)| decode(Provider::Tweetstream, text.as_bytes()).events);
    Tape(events.map(|event| (event.kind, event.id)).collect())
}

/// What the history has of a stretch: posts, profiles, follows, and what was found out about those posts.
fn there_is(envelopes: &Envelopes, from: UnixMicros, to: UnixMicros) -> HashSet<(EventKind, EventId)> {
    let events: Vec<_> = envelopes.iter().flat_map(|(_, text)| decode(Provider::Tweetstream, text.as_bytes()).events).collect();
    let inside = |event: &&Event| event.published_at.is_some_and(|at| from <= at && at < to);
    let rows = events.iter().filter(|event| FAMILIES.iter().any(|(kind, _)| *kind == event.kind)).filter(inside);
    let mut all: HashSet<_> = rows.map(|event| (event.kind, event.id.clone())).collect();
    let is_there = |id: &EventId| match id {
        EventId::Tweet(post) => {
            let apart = EventId::Text(format!("truth_social:{post}"));
            all.contains(&(EventKind::Tweet, id.clone())) || all.contains(&(EventKind::Tweet, apart))
        }
        EventId::Text(_) => false,
    };
    let metas = events.iter().filter(|event| event.kind == EventKind::Meta && is_there(&event.id));
    let metas: Vec<_> = metas.map(|event| (event.kind, event.id.clone())).collect();
    all.extend(metas);
    all
}

fn run(
    envelopes: &Envelopes,
    wanted: &Wanted,
    tape: &mut Tape,
    switches: &[&str],
    resumes: bool,
    meddle: &mut dyn FnMut(usize, &Request, Response) -> Response,
) -> Walked {
    let envelopes: Vec<_> = envelopes.iter().map(|(at, text)| (*at, text.as_str())).collect();
    let now = envelopes.last().map_or(second(0), |(at, _)| at.plus(Duration::from_secs(600)));
    with_past(Provider::Tweetstream, &envelopes, now, |past| {
        walk(&settings(), wanted, tape, (&mut fake(switches), past), resumes, meddle)
    })
}

fn honest(_: usize, _: &Request, response: Response) -> Response {
    response
}

fn proof(walked: &Walked, kind: EventKind) -> &Proof {
    let verdict = walked.verdict.as_ref().unwrap_or_else(|| panic!("{:?}", walked.stopped));
    &verdict.kinds.iter().find(|(of, _)| *of == kind).unwrap().1
}

fn is_filled(walked: &Walked) -> bool {
    [EventKind::Tweet, EventKind::Meta, EventKind::Profile, EventKind::Follow]
        .into_iter()
        .all(|kind| *proof(walked, kind) == Proof::Filled)
}

/// Everything is there, or the verdict says that it may not be.
fn assert_no_silent_loss(walked: &Walked, envelopes: &Envelopes, wanted: &Wanted, what: &str) {
    for (kind, id) in there_is(envelopes, wanted.from, wanted.to) {
        let is_found = walked.found.contains(&(kind, id.clone()));
        assert!(is_found || *proof(walked, kind) != Proof::Filled, "{what}: {kind:?} {id:?} is lost, {:?}", walked.verdict);
    }
}

const ALL_SWITCHES: [[&str; 2]; 4] = [
    ["history_bounds=time", "history_edges=included"],
    ["history_bounds=time", "history_edges=excluded"],
    ["history_bounds=received", "history_edges=included"],
    ["history_bounds=received", "history_edges=excluded"],
];

/// Whatever is asked for, the first page comes, with its newest row alone: whichever of its times is held against the bounds.
#[test]
fn the_only_row_again_and_again_proves_nothing() {
    let envelopes = world(0.2, 900);
    let wanted = wanted(300, 600);
    let mut n_apart = 0;
    for switches in ALL_SWITCHES {
        let mut first: Option<Response> = None;
        let mut meddle = |_: usize, request: &Request, response: Response| {
            if !request.target.expose().contains("type=TWEET") {
                return response;
            }
            let mut page = response.clone();
            if first.is_none() {
                page = with_page(response, |page| {
                    let rows = page["data"].as_array_mut().unwrap();
                    rows.retain(|row| row["time"] != row["receivedTime"]);
                    n_apart += rows.len();
                    rows.truncate(1);
                    page["metadata"]["count"] = json!(1);
                });
            }
            first.get_or_insert(page).clone()
        };
        let walked = run(&envelopes, &wanted, &mut Tape::default(), &switches, false, &mut meddle);
        assert_no_silent_loss(&walked, &envelopes, &wanted, &format!("{switches:?}"));
        assert!(*proof(&walked, EventKind::Tweet) != Proof::Filled, "{switches:?}: {:?}", walked.verdict);
    }
    assert!(n_apart > 8, "{n_apart}");
}

#[test]
fn a_hole_is_filled_whole_whatever_the_bounds_mean() {
    let envelopes = world(80.0, 300);
    let wanted = wanted(90, 210);
    for switches in ALL_SWITCHES {
        let mut tape = tape_without(&envelopes, 95, 205);
        let missing =
            there_is(&envelopes, wanted.from, wanted.to).difference(&tape.0).filter(|(kind, _)| *kind != EventKind::Meta).count();
        let walked = run(&envelopes, &wanted, &mut tape, &switches, false, &mut honest);
        let lost = there_is(&envelopes, wanted.from, wanted.to).difference(&walked.found).count();
        assert_eq!(lost, 0, "{switches:?}");
        assert!(is_filled(&walked), "{switches:?} {:?}", walked.verdict);
        assert_eq!(walked.n_new, missing as u64);
        // The last page of a family must be short, so a family of n rows needs n / 1000 + 1.
        let margin = LATENESS_HORIZON;
        let rows = |kind| {
            let all = there_is(&envelopes, wanted.from.minus(margin), wanted.to.plus(margin));
            all.into_iter().filter(|(of, _)| *of == kind).count()
        };
        let least: usize = FAMILIES.iter().map(|(kind, _)| rows(*kind) / PAGE_MAX + 1).sum();
        println!(
            "{switches:?}: {} requests, at least {least} and the watchlist; {}",
            walked.asked.len(),
            walked.verdict.as_ref().unwrap().evidence
        );
        assert!(walked.asked.len() <= least + 1, "{:#?}", walked.asked);
        assert!(least > 10, "{least}");
    }
}

#[test]
fn a_walk_goes_on_where_it_was_cut_off() {
    let envelopes = world(80.0, 300);
    let wanted = wanted(90, 210);
    for switches in ALL_SWITCHES {
        let mut tape = tape_without(&envelopes, 95, 205);
        let straight = run(&envelopes, &wanted, &mut tape, &switches, false, &mut honest);
        let mut tape = tape_without(&envelopes, 95, 205);
        let cut = run(&envelopes, &wanted, &mut tape, &switches, true, &mut honest);
        let (last, before) = cut.asked.split_last().unwrap();
        assert!(last.ends_with("/api/me"), "the accounts may have changed meanwhile");
        assert_eq!(before, straight.asked);
        assert_eq!((cut.found == straight.found, cut.n_new, &cut.verdict), (true, straight.n_new, &straight.verdict));
        assert!(cut.cursors.iter().all(|cursor| !cursor.contains(KEY)));
        assert!(cut.asked.iter().all(|shown| !shown.contains(KEY)));
    }
    // A cursor of something else begins anew.
    let other = Wanted { to: second(211), ..wanted.clone() };
    let mut walk = Walk::new(&settings(), wanted, None);
    walk.state.watchlist = Some(Vec::new());
    let cursor = walk.cursor();
    for cursor in [cursor.as_str(), "", "{}", "rubbish"] {
        assert!(Walk::new(&settings(), other.clone(), Some(cursor)).state.watchlist.is_none());
    }
}

/// So many posts of one millisecond, by so many accounts in turn, with quieter ones around.
fn crowd(n: u64, n_handles: u64) -> Envelopes {
    let mut envelopes = Vec::new();
    let mut post = |at: UnixMicros, noise: u64, handle: u64| {
        let id = TweetId::first_at(at).0 | noise;
        let text = format!(
            r#"{{"v":1,"t":"tweet","op":"content","id":"{id}","ts":{},"d":{{"tweetId":"{id}","text":"t","createdAt":{},"author":{{"handle":"@h{handle}"}}}}}}"#,
            at.millis() + 100,
            at.millis()
        );
        envelopes.push((at.plus(Duration::from_millis(100)), text));
    };
    for seconds in 0..100 {
        post(second(seconds), 7, seconds as u64 % n_handles);
    }
    for number in 0..n {
        post(second(100), number, number % n_handles);
    }
    for seconds in 101..200 {
        post(second(seconds), 7, seconds as u64 % n_handles);
    }
    envelopes
}

#[test]
fn more_rows_at_one_instant_than_a_page_holds() {
    let wanted = wanted(80, 120);
    for switches in ALL_SWITCHES {
        for (n, n_handles) in [(1_001, 2), (2_500, 40), (5_000, 250)] {
            let envelopes = crowd(n, n_handles);
            let mut tape = tape_without(&envelopes, 85, 115);
            let walked = run(&envelopes, &wanted, &mut tape, &switches, true, &mut honest);
            let lost = there_is(&envelopes, wanted.from, wanted.to).difference(&walked.found).count();
            assert!(
                lost == 0 && is_filled(&walked),
                "{switches:?} {n} {n_handles} {lost} {:#?} {:?}",
                walked.asked,
                walked.verdict
            );
        }
        // One account that writes faster than a page: nothing can be proven of that instant, everything of the others.
        let envelopes = crowd(1_500, 1);
        let mut tape = tape_without(&envelopes, 85, 115);
        let walked = run(&envelopes, &wanted, &mut tape, &switches, false, &mut honest);
        assert_no_silent_loss(&walked, &envelopes, &wanted, "one account");
        let Proof::Partial { rest, .. } = proof(&walked, EventKind::Tweet) else { panic!("{:?}", walked.verdict) };
        for (_, id) in there_is(&envelopes, wanted.from, wanted.to).difference(&walked.found) {
            let EventId::Tweet(id) = id else { panic!("{id:?}") };
            let at = id.published_at().unwrap();
            assert!(rest.iter().any(|(from, to)| *from <= at && at < *to), "{rest:?}");
        }
        assert!(rest.iter().all(|(from, to)| to.since(*from) < 61_000_000), "{rest:?}");
    }
}

#[test]
fn a_lying_history_is_caught_or_not_believed() {
    let envelopes = world(60.0, 200);
    let wanted = wanted(90, 130);
    let all = there_is(&envelopes, wanted.from, wanted.to);
    for kind in ["repeat_page", "missing_row", "shuffle", "duplicate_row", "429", "500", "truncated", "empty"] {
        for every in [2, 5] {
            for switches in [ALL_SWITCHES[0], ALL_SWITCHES[3]] {
                let mut tape = tape_without(&envelopes, 95, 125);
                let mut before: Option<Value> = None;
                let mut meddle = |n: usize, _: &Request, response: Response| {
                    let page: Option<Value> = serde_json::from_slice(&response.body).ok();
                    let last = std::mem::replace(&mut before, page);
                    if n % every != every - 1 {
                        return response;
                    }
                    let provider = Provider::Tweetstream;
                    with_page(response, |page| match kind {
                        "repeat_page" => drop(last.map(|last| tamper::repeat_page(provider, page, &last))),
                        // A full page loses a row. Of a short one that could not be told.
                        "missing_row" if page["data"].as_array().is_some_and(|rows| rows.len() == PAGE_MAX) => {
                            tamper::missing_row(provider, page, n * 37 % PAGE_MAX);
                        }
                        "shuffle" => drop(tamper::shuffle(provider, page, n as u64)),
                        "duplicate_row" => drop(tamper::duplicate_row(provider, page, 0)),
                        "empty" if page["data"].is_array() => *page = json!({ "data": [], "metadata": { "count": 0 } }),
                        _ => {}
                    })
                };
                let mut meddle = |n: usize, request: &Request, response: Response| {
                    let response = meddle(n, request, response);
                    match kind {
                        _ if n % every != every - 1 => response,
                        "429" => tamper::refusal(Provider::Tweetstream, 429, Some(Duration::from_secs(7)), None),
                        "500" => tamper::refusal(Provider::Tweetstream, 500, None, None),
                        "truncated" => Response { body: response.body.slice(..response.body.len() / 2), ..response },
                        _ => response,
                    }
                };
                let walked = run(&envelopes, &wanted, &mut tape, &switches, false, &mut meddle);
                let lost = all.difference(&walked.found).count();
                let what = format!("{kind} every {every} {switches:?}");
                println!("{what}: {} requests, {lost} lost, {:?}", walked.asked.len(), proof(&walked, EventKind::Tweet));
                assert_no_silent_loss(&walked, &envelopes, &wanted, &what);
                if kind == "429" {
                    assert!(!walked.waits.is_empty() && walked.waits.iter().all(|wait| *wait == Some(Duration::from_secs(7))));
                }
                if matches!(kind, "429" | "500" | "truncated" | "shuffle") {
                    assert!(is_filled(&walked), "{what} {:?}", walked.verdict);
                }
            }
        }
    }
}

#[test]
fn an_edge_is_proven_by_what_is_known_or_by_a_second_look() {
    let envelopes = world(4.0, 400);
    let says = |tape: Tape, wanted: &Wanted| {
        let walked = run(&envelopes, wanted, &mut tape.clone(), &[], false, &mut honest);
        assert_no_silent_loss(&walked, &envelopes, wanted, "edges");
        format!("{} requests, {}, {}\n", walked.asked.len(), is_filled(&walked), walked.verdict.unwrap().evidence)
    };
    let mut all = String::new();
    let middle = wanted(150, 250);
    all += &says(tape_without(&envelopes, 150, 250), &middle);
    all += &says(tape_without(&envelopes, 150, 400), &middle);
    all += &says(tape_without(&envelopes, 0, 250), &middle);
    all += &says(Tape::default(), &middle);
    all += &says(Tape::default(), &wanted(9_000, 9_100));
    all += &says(Tape::default(), &wanted(100, 100));
    expect![[r#"
        4 requests, true, 641 rows in 4 requests: tweet met what is known at both ends, profile met what is known at both ends, follow met what is known at both ends
        7 requests, true, 644 rows in 7 requests: tweet met what is known at one end and was looked at again, profile met what is known at one end and was looked at again, follow met what is known at one end and was looked at again
        10 requests, true, 649 rows in 10 requests: tweet met what is known at one end and was looked at again, profile met what is known at one end and was looked at again, follow met what is known at one end and was looked at again
        13 requests, true, 652 rows in 13 requests: tweet met nothing known and was looked at again, profile met nothing known and was looked at again, follow met nothing known and was looked at again
        7 requests, true, 0 rows in 7 requests: tweet met nothing known and was looked at again, profile met nothing known and was looked at again, follow met nothing known and was looked at again
        0 requests, true, 0 rows in 0 requests: tweet met nothing known, profile met nothing known, follow met nothing known
    "#]].assert_eq(&all);
}

#[test]
fn a_provider_that_gives_less_at_once_is_found_out() {
    let envelopes = world(40.0, 300);
    let wanted = wanted(90, 210);
    for cap in [100, 300] {
        let mut tape = tape_without(&envelopes, 95, 205);
        let mut meddle = |_: usize, _: &Request, response: Response| {
            with_page(response, |page| {
                if let Some(rows) = page["data"].as_array_mut() {
                    rows.truncate(cap);
                    page["metadata"]["count"] = json!(page["data"].as_array().unwrap().len());
                }
            })
        };
        let walked = run(&envelopes, &wanted, &mut tape, &[], false, &mut meddle);
        let lost = there_is(&envelopes, wanted.from, wanted.to).difference(&walked.found).count();
        assert!(lost == 0 && is_filled(&walked), "{cap} {lost} {:?}", walked.verdict);
    }
}

#[test]
fn accounts_that_are_not_tracked_any_more() {
    let envelopes = crowd(1_500, 8);
    // Removed before the walk: everybody known is asked about, so the stretch stays open.
    let mut gone = wanted(80, 120);
    gone.is_listed = true;
    gone.selectors = ["@H1", "nobody"].map(|id| Selector { id: id.to_owned(), ..Selector::default() }).into();
    let walked = run(&envelopes, &gone, &mut tape_without(&envelopes, 85, 115), &[], false, &mut honest);
    let Proof::Partial { rest, why } = proof(&walked, EventKind::Tweet) else { panic!("{:?}", walked.verdict) };
    assert_eq!((rest.as_slice(), why.contains("@nobody is not tracked any more")), (&[(gone.from, gone.to)][..], true), "{why}");

    // Removed while the walk goes by groups.
    let mut n_refused = 0;
    let mut meddle = |_: usize, request: &Request, response: Response| {
        let groups = request.target.expose().split_once("&handles=").map_or("", |(_, handles)| handles);
        if groups.split("%2C").any(|handle| handle == "h3") {
            n_refused += 1;
            return Response::json(403, r#"{"error":"@h3 is not a tracked account"}"#);
        }
        response
    };
    let wanted = wanted(80, 120);
    let walked = run(&envelopes, &wanted, &mut tape_without(&envelopes, 85, 115), &[], true, &mut meddle);
    let Proof::Partial { rest, why } = proof(&walked, EventKind::Tweet) else { panic!("{:?}", walked.verdict) };
    assert!(why.contains("@h3 is not tracked any more") && rest.len() == 1, "{why} {rest:?}");
    assert!(n_refused > 1 && *proof(&walked, EventKind::Profile) == Proof::Filled);
    assert_no_silent_loss(&walked, &envelopes, &wanted, "untracked");

    // One account is the whole scope.
    let one = Wanted { scope: "@H3".to_owned(), ..wanted.clone() };
    let walked = run(&envelopes, &one, &mut Tape::default(), &[], false, &mut honest);
    assert!(is_filled(&walked) && walked.asked[1].ends_with("&handles=h3"), "{:?}", walked.verdict);
    let one = Wanted { scope: "stranger".to_owned(), ..wanted };
    let walked = run(&envelopes, &one, &mut Tape::default(), &[], false, &mut honest);
    assert!(walked.stopped.is_none() && matches!(proof(&walked, EventKind::Follow), Proof::Partial { .. }));
}

#[test]
fn refusals_stop_with_the_cure() {
    let envelopes = crowd(1, 2);
    let walked = run(&envelopes, &wanted(80, 120), &mut Tape::default(), &["plan=basic"], false, &mut honest);
    assert!(walked.stopped.unwrap().contains("larger plans"));
    for (status, word) in
        [(401, "key"), (402, "subscription"), (403, "plan"), (301, "address"), (404, "address"), (400, "refuses")]
    {
        let mut meddle = |_: usize, _: &Request, _: Response| Response::json(status, r#"{"error":"x"}"#);
        let walked = run(&envelopes, &wanted(80, 120), &mut Tape::default(), &[], false, &mut meddle);
        assert!(walked.stopped.unwrap().contains(word), "{status}");
    }
    // An answer that is no page is asked for again, with a wait where the provider says one.
    let mut walk = Walk::new(&settings(), wanted(0, 1), None);
    let mut again = |response: Response| match walk.answered(&response, &mut Tape::default()) {
        Err(Trouble::Again { after, .. }) => after.map(|wait| wait.as_secs()),
        other => panic!("{other:?}"),
    };
    assert_eq!(again(Response::json(429, "{}")), Some(60));
    assert_eq!(again(tamper::refusal(Provider::Tweetstream, 503, Some(Duration::from_secs(3)), None)), Some(3));
    for body in ["", "<html>", "{}", r#"{"trackedAccounts":{"handles":["a""#, r#"{"data":[],"metadata":{}}"#] {
        assert_eq!(again(Response::json(200, body)), None, "{body}");
    }
    let Next::Ask(request) = walk.next() else { panic!() };
    assert_eq!(request.shown, "https://api.tweetstream.io/api/me");
    assert!(!format!("{request:?} {walk:?}").contains(KEY));
    assert_eq!(walk.price(), Price { requests: 4, ..Price::default() });
}

#[test]
fn a_page_reads_as_the_live_envelopes_do() {
    let envelopes = world(20.0, 60);
    let live: Vec<_> = envelopes.iter().flat_map(|(_, text)| decode(Provider::Tweetstream, text.as_bytes()).events).collect();
    let mut n = 0;
    let mut meddle = |_: usize, _: &Request, response: Response| {
        let decoded = page::decode_page(&response.body);
        assert!(decoded.json);
        for event in decoded.events {
            let same = live.iter().find(|live| (live.kind, &live.id) == (event.kind, &event.id)).unwrap();
            assert!(event.kind == EventKind::Meta || same.published_at == event.published_at, "{event:?} {same:?}");
            n += 1;
        }
        response
    };
    run(&envelopes, &wanted(0, 60), &mut Tape::default(), &[], false, &mut meddle);
    assert!(n > 100);

    let events = |body: &str| {
        let shown =
            |event: Event| format!("{} {:?} {:?}", event.kind.name(), event.id, event.published_at.map(UnixMicros::millis));
        page::decode_page(body.as_bytes()).events.into_iter().map(shown).collect::<Vec<_>>().join(" | ")
    };
    let page = |rows: &str| format!(r#"{{"data":[{rows}],"metadata":{{"count":1}}}}"#);
    assert_eq!(
        events(&page(
            r#"{"messageType":"tweet","tweetId":"18446744073709551615","meta":{}},5,{"messageType":"TWEET","tweetId":1e3}"#
        )),
        r#"tweet Tweet(TweetId(18446744073709551615)) Some(5686881485760) | meta Tweet(TweetId(18446744073709551615)) Some(5686881485760)"#
    );
    for other in [
        r#"{"data":[{"messageType":"TWEET","tweetId":"7"}]}"#,
        r#"{"metadata":{},"data":[{"messageType":"OTHER","tweetId":"7"}]}"#,
        r#"{"metadata":{},"data":[{"messageType":"TWEET","tweetId":"x"}]}"#,
        r#"{"plan":"ELITE","trackedAccounts":{"count":1,"limit":1,"handles":["a"]}}"#,
        r#"{"v":1,"t":"tweet","op":"content","id":"7","ts":1,"d":{"tweetId":"7"}}"#,
        r#"{"metadata":{},"data":[{"messageType":"TWEET","tweetId":"7"}"#,
        "[]",
        "",
    ] {
        assert_eq!(events(other), "", "{other}");
    }
}

#[test]
fn who_doubts_finds_a_row_that_was_left_out_once() {
    let envelopes = world(4.0, 300);
    let wanted = wanted(90, 210);
    let texts: Vec<_> = envelopes.iter().map(|(at, text)| (*at, text.as_str())).collect();
    for doubts in [false, true] {
        let mut tape = tape_without(&envelopes, 95, 205);
        let mut walk = Walk::new(&settings(), wanted.clone(), None);
        if doubts {
            walk.doubt();
        }
        let (mut rest, mut n_pages) = (fake(&[]), 0);
        with_past(Provider::Tweetstream, &texts, second(900), |past| {
            while let Next::Ask(request) = walk.next() {
                let answer = drive::ask(&mut rest, past, &request);
                let is_posts = request.target.expose().contains("type=TWEET");
                n_pages += usize::from(is_posts);
                let answer = with_page(answer, |page| {
                    let half = page["data"].as_array().map_or(0, |rows| rows.len() / 2);
                    assert!(!(is_posts && n_pages == 1) || tamper::missing_row(Provider::Tweetstream, page, half));
                });
                walk.answered(&answer, &mut tape).unwrap();
                for event in page::read(&answer.body).into_iter().flat_map(|page| page.rows).filter_map(|row| row.event) {
                    tape.0.insert((event.kind, event.id));
                }
            }
        });
        let posts = there_is(&envelopes, wanted.from, wanted.to).into_iter().filter(|(kind, _)| *kind == EventKind::Tweet);
        let n_lost = posts.filter(|event| !tape.0.contains(event)).count();
        assert_eq!((n_lost, n_pages > 1), (usize::from(!doubts), doubts), "{n_pages} pages of posts");
    }
}

#[test]
fn a_walk_that_goes_on_reads_the_accounts_again() {
    let accounts = |handles: &str| {
        Response::json(200, format!(r#"{{"plan":"ELITE","trackedAccounts":{{"count":2,"limit":250,"handles":[{handles}]}}}}"#))
    };
    let heard_of = vec![Selector { id: "fay".to_owned(), ..Selector::default() }];
    let wanted = Wanted { selectors: heard_of, ..wanted(90, 210) };
    let asks = |walk: &mut Walk| match walk.next() {
        Next::Ask(request) => request.target.expose().split('?').next().unwrap().to_owned(),
        Next::Done(_) => "nothing".to_owned(),
    };
    let mut tape = Tape::default();
    let mut walk = Walk::new(&settings(), wanted.clone(), None);
    walk.answered(&accounts(r#""ann","fay""#), &mut tape).unwrap();
    let page = Response::json(200, r#"{"data":[],"metadata":{"count":0}}"#);
    while asks(&mut walk) == "/api/history" {
        walk.answered(&page, &mut tape).unwrap();
    }
    assert_eq!(asks(&mut walk), "nothing");
    for (handles, next, is_gone) in [(r#""ann","fay""#, "nothing", false), (r#""ann""#, "/api/history", true)] {
        let mut again = Walk::new(&settings(), wanted.clone(), Some(&walk.cursor()));
        assert_eq!(asks(&mut again), "/api/me");
        again.answered(&accounts(handles), &mut tape).unwrap();
        assert_eq!((asks(&mut again).as_str(), again.gone().is_some()), (next, is_gone));
        let mut once_more = Walk::new(&settings(), wanted.clone(), Some(&again.cursor()));
        assert_eq!(asks(&mut once_more), next, "it comes to an end however often it goes on");
    }
}

#[test]
fn a_second_pass_that_is_shorter_than_the_first_proves_nothing() {
    let envelopes = world(4.0, 300);
    let wanted = wanted(90, 210);
    for kept in ["newest", "oldest", "none"] {
        let mut n_pages = 0;
        let mut meddle = |_: usize, request: &Request, response: Response| {
            n_pages += usize::from(request.shown.contains("type=TWEET"));
            if !request.shown.contains("type=TWEET") || n_pages > 2 {
                return response;
            }
            with_page(response, |page| {
                let rows = page["data"].as_array_mut().unwrap();
                let n = rows.len();
                match kept {
                    // The number of rows betrays the first page, so there is a second pass.
                    _ if n_pages == 1 => drop(rows.remove(n / 2)),
                    "newest" => rows.truncate(1),
                    "oldest" => drop(rows.drain(..n - 1)),
                    _ => rows.clear(),
                }
                let n = if n_pages == 1 { n } else { rows.len() };
                page["metadata"]["count"] = n.into();
            })
        };
        let mut tape = tape_without(&envelopes, 95, 205);
        let walked = run(&envelopes, &wanted, &mut tape, &[], false, &mut meddle);
        assert_no_silent_loss(&walked, &envelopes, &wanted, kept);
        assert!(is_filled(&walked) && n_pages > 2, "{kept}: {n_pages} pages, {:?}", walked.verdict);
    }
}
