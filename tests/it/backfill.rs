//! Holes of a tape, filled from a fake provider's history by the real program.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::ops::Range;
use std::process::{Command, Stdio};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use birdtape::archive::{Archive, Lost, Options, Selected, Span, Tape};
use birdtape::model::{
    Body, Cause, ConnId, Draft, EventId, EventKind, Provider, RecordKind, SourceName, TweetId, UnixMicros, Via,
};
use birdtape::provider::synthetic::{self, Envelope, World};
use birdtape::provider::{decode, decode_record, default_lateness_horizon, form_values};
use birdtape::segment::RealDisk;
use serde_json::Value;

use crate::program::{Desk, Run, finished};
use crate::server::Replay;

const KEY: &str = "planted-key-7f3a";

pub(crate) fn second(seconds: i64) -> UnixMicros {
    UnixMicros(1_767_614_400_000_000 + seconds * 1_000_000)
}

/// Twenty minutes of one provider.
pub(crate) fn broadcast(provider: Provider) -> Vec<Envelope> {
    let mix = Provider::ALL.map(|one| f64::from(u8::from(one == provider)));
    let world = World::new(synthetic::Options { seed: 11, rate: 4.0, mix, ..synthetic::Options::default() });
    world.take_while(|envelope| envelope.at < second(1_200)).collect()
}

/// A tape of a recorder that was cut off for a while, and that knew what selects, if anything is given.
pub(crate) fn recorded_but_for(
    desk: &Desk,
    (dir, provider): (&str, Provider),
    envelopes: &[Envelope],
    hole: &Range<UnixMicros>,
    selects: &[(String, String)],
) {
    let (name, dir) = (SourceName::from(provider), desk.path(dir));
    let mut archive = Archive::open(&dir, Arc::new(RealDisk), Options::default(), decode_record, "a test", second(0)).unwrap();
    archive.add_source(&name, provider).unwrap();
    archive.start_source(&name, default_lateness_horizon(provider), ("boot".to_owned(), Duration::ZERO), second(0)).unwrap();
    let horizon = default_lateness_horizon(provider);
    let mut is_cut_off = false;
    archive.live(&name, "*", horizon, second(0), "the first frame").unwrap();
    let all: Vec<_> = selects.iter().map(|(scope, text)| Selected { scope, text: Some(text), detail: "listed" }).collect();
    let read_lists = |archive: &mut Archive, at: UnixMicros| {
        assert!(all.is_empty() || archive.select(&name, horizon, &all, at).unwrap().is_empty());
    };
    read_lists(&mut archive, second(0));
    for envelope in envelopes {
        if hole.contains(&envelope.at) {
            if !is_cut_off {
                let lost = Lost { scope: "*", cause: Cause::ConnectionLost, detail: "the cable was out" };
                archive.lost(&name, envelope.at, lost).unwrap();
                is_cut_off = true;
            }
            continue;
        }
        let draft = Draft {
            received_at: envelope.at,
            kind: RecordKind::Frame,
            via: Via::Ws,
            conn: ConnId(1),
            info: None,
            body: Body::Bytes(envelope.bytes.clone()),
        };
        if is_cut_off {
            archive.live(&name, "*", horizon, envelope.at, "a frame").unwrap();
            read_lists(&mut archive, envelope.at);
            is_cut_off = false;
        }
        archive.append(&name, &draft, Some(&decode(provider, &envelope.bytes))).unwrap();
    }
    read_lists(&mut archive, second(1_200));
    archive.stop_source(&name, second(1_200), "the test ends").unwrap();
    archive.close(second(1_200)).unwrap();
}

/// Ids of the posts whose content these envelopes bring.
pub(crate) fn posts<'a>(provider: Provider, envelopes: impl Iterator<Item = &'a Envelope>) -> BTreeSet<u64> {
    let events = envelopes.flat_map(|envelope| decode(provider, &envelope.bytes).events);
    let posts = events.filter(|event| event.kind == EventKind::Tweet).filter_map(|event| match event.id {
        EventId::Tweet(id) => Some(id.0),
        EventId::Text(_) => None,
    });
    posts.collect()
}

pub(crate) fn on_tape(desk: &Desk, provider: Provider) -> BTreeSet<u64> {
    let tape = Tape::open(&desk.path("tape"), Arc::new(RealDisk)).unwrap();
    let mut ids = BTreeSet::new();
    for segment in tape.catalog().segments(provider.name()).unwrap() {
        for block in tape.catalog().blocks(provider.name(), segment.first_n).unwrap() {
            ids.extend(block.ids.iter());
        }
    }
    ids
}

/// Asks a fake provider for JSON.
fn http(base: &str, method: &str, path: &str, body: &str) -> Value {
    let host = base.strip_prefix("http://").unwrap();
    let mut socket = std::net::TcpStream::connect(host).unwrap();
    let head =
        format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\nx-api-key: k\r\nauthorization: Bearer k");
    let length = body.len();
    write!(socket, "{head}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{method} {path}: {error}: {answer}"))
}

/// What selects, as the fake provider lists it: ids and texts as the recorder keeps them.
pub(crate) fn selects(provider: Provider, base: &str) -> Vec<(String, String)> {
    let get = |path: &str| http(base, "GET", path, "");
    let rows = |answer: Value, name: &str| answer.pointer(name).unwrap().as_array().unwrap().clone();
    let text = |row: &Value, name: &str| row[name].as_str().unwrap().to_owned();
    match provider {
        Provider::TwitterapiIo => {
            let rules = rows(get("/oapi/tweet_filter/get_rules"), "/rules").into_iter();
            let accounts = rows(get("/oapi/x_user_stream/get_user_to_monitor_tweet"), "/data").into_iter();
            let account = |row: Value| text(&row, "x_user_screen_name");
            let accounts = accounts.map(account).map(|name| (format!("@{}", name.to_lowercase()), format!("from:{name}")));
            rules.map(|row| (text(&row, "rule_id"), text(&row, "value"))).chain(accounts).collect()
        }
        Provider::Tweetstream => {
            let handles = rows(get("/api/me"), "/trackedAccounts/handles").into_iter();
            let handles: BTreeSet<_> = handles.map(|handle| handle.as_str().unwrap().to_lowercase()).collect();
            vec![("watchlist".to_owned(), handles.into_iter().collect::<Vec<_>>().join(" "))]
        }
        Provider::Scrapebadger => {
            let monitors = rows(get("/v1/twitter/stream/monitors?page_size=100"), "/monitors").into_iter();
            let names = |row: &Value| {
                row["usernames"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect::<Vec<_>>()
            };
            monitors.map(|row| (text(&row, "id"), format!("accounts: {}", names(&row).join(" ")))).collect()
        }
        Provider::XLive => Vec::new(),
    }
}

/// A fake provider that knows all that happened.
fn history(desk: &Desk, more: &[&str]) -> Replay {
    Replay::start(desk, &[&["full.jsonl", "--from", "end", "--no-rate-limits"], more].concat())
}

/// A hole of two minutes and a fake provider that knows everything.
pub(crate) struct Scene {
    pub(crate) desk: Desk,
    pub(crate) provider: Provider,
    /// Whether the tape knows what selects.
    is_listed: bool,
    /// Posts that the recorder missed.
    missing: BTreeSet<u64>,
}

impl Scene {
    /// A tape without a word about what selects.
    pub(crate) fn new(provider: Provider) -> Self {
        Self::of(provider, false)
    }

    /// A tape that knows what selects.
    fn listed(provider: Provider) -> Self {
        Self::of(provider, true)
    }

    fn of(provider: Provider, is_listed: bool) -> Self {
        let desk = Desk::new();
        let envelopes = broadcast(provider);
        let lines: Vec<u8> = envelopes.iter().flat_map(|envelope| [&envelope.bytes[..], b"\n"].concat()).collect();
        desk.write("full.jsonl", &lines);
        let selects = match is_listed {
            true => selects(provider, &history(&desk, &[]).base),
            false => Vec::new(),
        };
        assert_eq!(selects.is_empty(), !is_listed);
        let hole = second(600)..second(720);
        recorded_but_for(&desk, ("tape", provider), &envelopes, &hole, &selects);
        let have = on_tape(&desk, provider);
        let missing = posts(provider, envelopes.iter().filter(|envelope| hole.contains(&envelope.at)));
        let missing: BTreeSet<u64> = missing.difference(&have).copied().collect();
        assert!(missing.len() > 50, "{provider}: only {} posts are missing", missing.len());
        Self { desk, provider, is_listed, missing }
    }

    pub(crate) fn history(&self, more: &[&str]) -> Replay {
        history(&self.desk, more)
    }

    /// Asks as fast as the fake provider answers, which limits nobody.
    pub(crate) fn backfill(&self, base: &str, more: &[&str]) -> Run {
        finished(self.command().args(["--base-url", base, "--pace", "0"]).args(more))
    }

    fn command(&self) -> Command {
        let mut command = self.desk.command(["--json", "backfill", "--provider", self.provider.name()]);
        for key in ["TWITTERAPI_IO_API_KEY", "TWEETSTREAM_API_KEY", "SCRAPEBADGER_API_KEY", "X_AUTH_TOKEN", "X_CT0"] {
            command.env(key, KEY);
        }
        command
    }

    /// When those were published that are still not there, in seconds of the broadcast.
    pub(crate) fn still_missing(&self) -> Vec<i64> {
        let have = on_tape(&self.desk, self.provider);
        let published = |id: &u64| TweetId(*id).published_at().unwrap_or_default().since(second(0)) / 1_000_000;
        self.missing.difference(&have).map(published).collect()
    }

    fn state(&self) -> String {
        let gaps = self.desk.run(&["gaps", "--json"]).expect(0);
        let gap: serde_json::Value = serde_json::from_str(gaps.text().lines().next().unwrap()).unwrap();
        gap["state"].as_str().unwrap().to_owned()
    }
}

#[test]
fn a_hole_is_filled_and_proven() {
    for provider in [Provider::TwitterapiIo, Provider::Tweetstream, Provider::Scrapebadger] {
        let scene = Scene::new(provider);
        let history = scene.history(&[]);
        let dry = scene.backfill(&history.base, &["--dry-run"]).expect(3);
        let plan: serde_json::Value = serde_json::from_str(dry.text().lines().next().unwrap()).unwrap();
        assert!(plan["requests_at_least"].as_u64().unwrap() >= 1, "{plan}");
        assert_eq!(scene.state(), "open", "a dry run changes nothing");

        let run = scene.backfill(&history.base, &[]).expect(0);
        assert_eq!(scene.still_missing(), Vec::<i64>::new(), "{provider}: {}\n{}", run.text(), run.err);
        assert_eq!(scene.state(), "filled", "{provider}: {}\n{}", run.text(), run.err);
        // What only a page of history brought is found, with its text.
        let post = scene.missing.first().unwrap().to_string();
        let found = scene.desk.run(&["get", &post]).expect(0);
        let is_told = |line: &str| line.contains("  http  tweet  ") && line.contains(&format!("  {post}  "));
        assert!(found.text().lines().all(is_told), "{provider}: {}", found.text());
        let page: Value =
            serde_json::from_str(scene.desk.run(&["get", &post, "--json"]).expect(0).text().lines().next().unwrap()).unwrap();
        assert_eq!((&page["kind"], &page["via"]), (&"http".into(), &"history".into()), "{provider}");
        scene.desk.run(&["verify"]).expect(0);
        scene.desk.run(&["rebuild"]).expect(0);
        assert_eq!((scene.state().as_str(), scene.still_missing()), ("filled", vec![]), "a rebuild knows it, too");
        let again = scene.backfill(&history.base, &[]).expect(0);
        assert!(!again.text().contains("\"event\":\"began\""), "nothing is left to do: {}", again.text());
    }
}

#[test]
fn the_usual_pace_stays_below_the_providers_limit() {
    for provider in [Provider::TwitterapiIo, Provider::Tweetstream, Provider::Scrapebadger] {
        let scene = Scene::new(provider);
        let limited = Replay::start(&scene.desk, &["full.jsonl", "--from", "end"]);
        let run = finished(scene.command().args(["--base-url", &limited.base])).expect(0);
        // A machine that has too much to do may not answer in time, which is no refusal.
        let is_refused = |line: &str| line.contains("\"event\":\"waits\"") && !line.contains("no answer within");
        assert!(!run.text().lines().any(is_refused), "{provider}: {}", run.text());
    }
}

#[test]
fn a_walk_goes_on_where_its_budget_ended() {
    let scene = Scene::new(Provider::TwitterapiIo);
    let history = scene.history(&[]);
    let first = scene.backfill(&history.base, &["--max-requests", "4"]).expect(3);
    assert!(first.text().contains("the budget of 4 requests is used up"), "{}", first.text());
    assert!(!scene.still_missing().is_empty());
    scene.desk.run(&["verify"]).expect(0);
    let rest = scene.backfill(&history.base, &[]).expect(0);
    assert_eq!((scene.still_missing(), scene.state().as_str()), (vec![], "filled"), "{}\n{}", rest.text(), rest.err);
}

#[test]
fn what_cannot_be_filled_is_said_in_clear_words() {
    let scene = Scene::new(Provider::Tweetstream);
    let history = scene.history(&["--key", "right"]);
    scene
        .backfill(&history.base, &["tweetstream-9999"])
        .fails(1, &["there is no gap tweetstream-9999", "hint: `birdtape gaps --open`"]);
    scene.backfill(&history.base, &["--max-requests", "0"]).fails(2, &["a budget of 0 requests fills nothing"]);
    let wrong = scene.backfill(&history.base, &[]).expect(3);
    assert!(wrong.text().contains("API key") || wrong.err.contains("API key"), "{}\n{}", wrong.text(), wrong.err);
    assert_eq!(scene.state(), "open");
    scene.desk.run(&["verify"]).expect(0);
}

#[test]
fn a_filling_that_is_killed_goes_on() {
    let scene = Scene::new(Provider::TwitterapiIo);
    let history = scene.history(&[]);
    for n_pages in 1..=5 {
        let mut killed = scene.command().args(["--base-url", &history.base]).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(killed.stdout.take().unwrap()).lines();
        let pages = lines.map(Result::unwrap).filter(|line| line.contains("\"event\":\"page\""));
        assert_eq!(pages.take(n_pages).count(), n_pages, "it was over before it could be killed");
        killed.kill().unwrap();
        killed.wait().unwrap();
    }
    let rest = scene.backfill(&history.base, &[]).expect(0);
    assert_eq!((scene.still_missing(), scene.state().as_str()), (vec![], "filled"), "{}\n{}", rest.text(), rest.err);
    scene.desk.run(&["verify"]).expect(0);
}

/// A death after a page was durable and before the catalog knew it.
#[test]
fn a_catalog_that_is_behind_costs_no_page_again() {
    let scene = Scene::new(Provider::TwitterapiIo);
    let history = scene.history(&[]);
    scene.backfill(&history.base, &["--max-requests", "4"]).expect(3);
    let tape = scene.desk.path("tape");
    let behind = std::fs::read(tape.join("catalog.sqlite")).unwrap();
    scene.backfill(&history.base, &["--max-requests", "3"]).expect(3);
    for name in ["catalog.sqlite-wal", "catalog.sqlite-shm"] {
        // Gone already is as good.
        std::fs::remove_file(tape.join(name)).ok();
    }
    std::fs::write(tape.join("catalog.sqlite"), behind).unwrap();
    let rest = scene.backfill(&history.base, &[]).expect(0);
    assert_eq!((scene.still_missing(), scene.state().as_str()), (vec![], "filled"), "{}\n{}", rest.text(), rest.err);
    let records = scene.desk.run(&["cat"]).expect(0);
    let pages = records.text().lines().filter(|line| line.contains("\"via\":\"history\""));
    let mut asked = BTreeSet::new();
    for page in pages.map(|line| serde_json::from_str::<Value>(line).unwrap()) {
        assert!(asked.insert((page["info"]["url"].to_string(), page["info"]["request"].to_string())), "asked again: {page}");
    }
    assert!(asked.len() > 7, "{asked:?}");
}

#[test]
fn a_proxy_carries_what_leaves_this_machine_and_nothing_else() {
    let scene = Scene::new(Provider::Tweetstream);
    let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", proxy.local_addr().unwrap());
    let through = |command: &mut Command| {
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"] {
            command.env(name, &address);
        }
        command.env_remove("NO_PROXY").env_remove("no_proxy");
    };
    let history = scene.history(&[]);
    let mut here = scene.command();
    through(&mut here);
    finished(here.args(["--base-url", &history.base, "--max-requests", "1"])).expect(3);
    proxy.set_nonblocking(true).unwrap();
    assert!(proxy.accept().is_err(), "loopback goes past the proxy");
    proxy.set_nonblocking(false).unwrap();

    let mut outside = scene.command();
    through(&mut outside);
    let mut outside = outside.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let (sender, asked) = mpsc::channel();
    std::thread::spawn(move || {
        let (tcp, _) = proxy.accept().unwrap();
        let head = BufReader::new(tcp).lines().map_while(Result::ok).take_while(|line| !line.is_empty());
        sender.send(head.collect::<Vec<_>>().join("\n")).unwrap();
    });
    let asked = asked.recv_timeout(Duration::from_secs(60));
    outside.kill().unwrap();
    outside.wait().unwrap();
    let asked = asked.unwrap();
    assert!(asked.starts_with("CONNECT api.tweetstream.io:443 HTTP/1.1\n") && !asked.contains(KEY), "{asked}");
}

/// What a request of the backfiller asked a page of, and the rows that came, with their time where it stands there.
struct Asked {
    /// The list and, for a search, its text without its limits.
    list: String,
    rows: Vec<(String, Option<UnixMicros>)>,
    request: String,
}

/// Every request that history was asked for a gap, in order.
fn requests(desk: &Desk, source: &str) -> Vec<Asked> {
    let tape = Tape::open(&desk.path("tape"), Arc::new(RealDisk)).unwrap();
    let mut records = tape.records(source, Span::default()).unwrap();
    let mut all = Vec::new();
    while let Some(record) = records.next().unwrap() {
        let info: Value = record.info.as_deref().map_or(Value::Null, |info| serde_json::from_str(info).unwrap());
        if record.kind != RecordKind::Http || info["gap"].is_null() {
            continue;
        }
        let url = info["url"].as_str().unwrap();
        let (address, query) = url.split_once('?').unwrap_or((url, ""));
        let asked: BTreeMap<_, _> = form_values(query).collect();
        let text = asked.get("query").or(asked.get("type")).map_or("", |text| text.split(" since_time:").next().unwrap());
        let path = address.splitn(4, '/').nth(3).unwrap();
        let page: Value = serde_json::from_slice(&record.body).unwrap();
        all.push(Asked {
            list: format!("/{path} {text}"),
            rows: rows_of(&page),
            request: format!("{url} {}", info["request"].as_str().unwrap_or_default()),
        });
    }
    all
}

fn rows_of(page: &Value) -> Vec<(String, Option<UnixMicros>)> {
    let list = |name: &str| page.pointer(name).and_then(Value::as_array).cloned().unwrap_or_default();
    let post = |row: &Value, name: &str| {
        let id = row[name].as_str().map_or_else(|| row[name].to_string(), str::to_owned);
        let at = TweetId::parse(&id).and_then(|id| id.published_at());
        (id, at)
    };
    let mut rows: Vec<_> = list("/tweets").iter().map(|row| post(row, "id")).collect();
    rows.extend(list("/logs").iter().map(|row| post(row, "tweet_id")));
    rows.extend(list("/data").iter().map(|row| match row["time"].as_str() {
        Some(time) => (row["tweetId"].to_string(), UnixMicros::parse_rfc3339(time)),
        None => post(row, "id"),
    }));
    rows.extend(list("/data/tweetResult").iter().map(|row| (row["result"]["rest_id"].to_string(), None)));
    rows.extend(list("/conversation_timeline/entries").iter().map(|row| post(&row["message"], "id")));
    rows
}

/// The least that must be asked: of each list as many pages as its rows in the gaps fill, in the whole seconds that
/// providers take, and one where there are none.
fn least(requests: &[Asked], gaps: &[Range<UnixMicros>]) -> usize {
    let whole = |gap: &Range<UnixMicros>| {
        let second = |at: i64| UnixMicros(at.div_euclid(1_000_000) * 1_000_000);
        second(gap.start.0)..second(gap.end.0 + 999_999)
    };
    let mut lists: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for asked in requests {
        // Not rows of history, or a second look at searches that were asked before.
        if asked.list.contains("/api/me") || asked.list.contains("/bulk_") {
            continue;
        }
        let list = lists.entry(if asked.list.contains("TweetResultsByRestIds") { "totals" } else { &asked.list }).or_default();
        let inside = |at: Option<UnixMicros>| at.is_none_or(|at| gaps.iter().any(|gap| whole(gap).contains(&at)));
        list.extend(asked.rows.iter().filter(|(_, at)| inside(*at)).map(|(id, _)| id.as_str()));
    }
    let page = |list: &str| match list {
        _ if list.starts_with("/twitter/") => 20,
        _ if list.starts_with("/api/history") => 1_000,
        _ if list.contains("/dm/conversation/") => 20,
        _ => 100,
    };
    let least = |(list, rows): (&&str, &BTreeSet<&str>)| match list.contains("/logs") {
        // Its pages have fixed bounds: as many as have a row of the gap.
        true => requests.iter().filter(|asked| asked.list == **list && is_of_gap(asked, gaps)).count().max(1),
        false => rows.len().div_ceil(page(list)).max(1),
    };
    lists.iter().map(least).sum()
}

/// Whether a page has a row of the gaps.
fn is_of_gap(asked: &Asked, gaps: &[Range<UnixMicros>]) -> bool {
    asked.rows.iter().any(|(_, at)| at.is_some_and(|at| gaps.iter().any(|gap| gap.contains(&at))))
}

fn gaps_of(desk: &Desk, source: &str) -> Vec<Range<UnixMicros>> {
    let tape = Tape::open(&desk.path("tape"), Arc::new(RealDisk)).unwrap();
    let gaps = tape.catalog().gaps(Some(source)).unwrap();
    gaps.into_iter().map(|gap| UnixMicros(gap.from_us)..UnixMicros(gap.to_us.unwrap())).collect()
}

/// Prints what was asked and the least possible, and holds them together.
#[track_caller]
fn asked_little(desk: &Desk, source: &str) {
    let requests = requests(desk, source);
    let gaps = gaps_of(desk, source);
    let least = least(&requests, &gaps);
    // Pages of a delivery log are numbered from its newest end: where the gap begins is not known before it is looked at.
    let n_sought = requests.iter().filter(|asked| asked.list.contains("/logs") && !is_of_gap(asked, &gaps)).count();
    println!("{source}: {} requests for the gap, {least} at the least; {n_sought} to find it in a log", requests.len());
    let shown =
        || requests.iter().map(|asked| format!("{} ({} rows)", asked.list, asked.rows.len())).collect::<Vec<_>>().join("\n");
    assert!(n_sought <= 5, "{source}: {n_sought} pages before the gap:\n{}", shown());
    let n = requests.len() - n_sought;
    assert!(n <= least + 1, "{source}: {n} requests, {least} at the least:\n{}", shown());
}

#[test]
fn a_gap_is_filled_with_one_request_too_many_at_most() {
    for provider in [Provider::TwitterapiIo, Provider::Tweetstream, Provider::Scrapebadger] {
        let scene = Scene::listed(provider);
        let history = scene.history(&[]);
        let run = scene.backfill(&history.base, &[]).expect(0);
        assert_eq!(scene.still_missing(), Vec::<i64>::new(), "{provider}: {}\n{}", run.text(), run.err);
        assert_eq!(scene.state(), "filled", "{provider}: {}\n{}", run.text(), run.err);
        asked_little(&scene.desk, provider.name());
        let lists = ["get_rules", "get_user_to_monitor", "/stream/monitors", "/stream/filter-rules "];
        let is_list = |asked: &Asked| lists.iter().any(|list| asked.request.contains(list) && !asked.request.contains("/logs"));
        assert!(!requests(&scene.desk, provider.name()).iter().any(is_list), "the tape knows them");
        scene.desk.run(&["verify"]).expect(0);
    }
}

/// X: counters of 150 posts, and a conversation with a message every two seconds.
#[test]
fn totals_and_conversations_of_x_are_filled_with_one_request_too_many_at_most() {
    let (desk, provider, talk) = (Desk::new(), Provider::XLive, "101-202");
    let posts = (0..150).map(|n| {
        let id = TweetId(TweetId::first_at(second(n)).0 | 7);
        let body = format!(r#"{{"topic":"/tweet_engagement/{id}","payload":{{"tweet_engagement":{{"like_count":"5"}}}}}}"#);
        Envelope { at: second(200 + n), provider, bytes: body.into() }
    });
    let messages = (0..600).map(|n| {
        let body = format!(
            r#"{{"topic":"/dm_update/{talk}","payload":{{"dm_update":{{"conversation_id":"{talk}","user_id":"101"}}}}}}"#
        );
        Envelope { at: second(2 * n), provider, bytes: body.into() }
    });
    let mut envelopes: Vec<_> = posts.chain(messages).collect();
    envelopes.sort_by_key(|envelope| envelope.at);
    recorded_but_for(&desk, ("full", provider), &envelopes, &(second(0)..second(0)), &[]);
    recorded_but_for(&desk, ("tape", provider), &envelopes, &(second(600)..second(720)), &[]);
    let history = Replay::start(&desk, &["full", "--from", "end", "--no-rate-limits"]);
    let config = format!("[source.x_live]\nprovider = \"x_live\"\nbase_url = \"{}\"\ndirect_messages = true\n", history.base);
    desk.write("birdtape.toml", config.as_bytes());
    let mut command = desk.command(["--json", "backfill"]);
    let run = crate::program::finished(command.env("X_AUTH_TOKEN", "k").env("X_CT0", "k")).expect(0);
    let ended: Value = run
        .text()
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .find(|event| event["event"] == "ended")
        .unwrap();
    assert_eq!(ended["state"], "filled", "{ended}");
    let detail = ended["detail"].as_str().unwrap();
    assert!(detail.contains("150 of 150 posts") && detail.contains("dm_update: filled"), "{detail}");
    asked_little(&desk, "x_live");
    desk.run(&["verify"]).expect(0);
}

#[test]
fn the_history_of_another_account_proves_nothing() {
    let strangers = [
        (
            Provider::TwitterapiIo,
            r#"{"event_type":"tweet","rule_id":"beef","rule_tag":"theirs","rule_value":"tide","tweets":[{"type":"tweet","id":"2117164813577617415","text":"tide","createdAt":"Mon Nov 02 08:00:01 +0000 2026","author":{"userName":"stranger","id":"7"}}],"timestamp":1793606402000}"#,
            "belongs to another account",
        ),
        (
            Provider::Tweetstream,
            r#"{"v":1,"t":"tweet","op":"content","id":"2102038470875676672","ts":1790000000323,"d":{"tweetId":"2102038470875676672","text":"x","createdAt":1790000000100,"author":{"id":"7","handle":"@stranger"}}}"#,
            "belongs to another customer",
        ),
        (
            Provider::Scrapebadger,
            r#"{"type":"tweet","monitor_id":"theirs","tweet_id":"2117164813577617415","author_username":"stranger","tweet_published_at":"2026-11-02T08:00:01Z","detected_at":"2026-11-02T08:00:02Z","latency_ms":1000,"tweet":{"id":"2117164813577617415","text":"x"}}"#,
            "belongs to another account",
        ),
    ];
    for (provider, stranger, words) in strangers {
        for scene in [Scene::new(provider), Scene::listed(provider)] {
            // Searches are the same for every key: what was in force is known, so they may be asked with any.
            if provider != Provider::Tweetstream && scene.is_listed {
                continue;
            }
            scene.desk.write("theirs.jsonl", format!("{stranger}\n").as_bytes());
            let theirs = Replay::start(&scene.desk, &["theirs.jsonl", "--from", "end", "--no-rate-limits"]);
            let run = scene.backfill(&theirs.base, &[]).expect(3);
            assert_eq!(scene.state(), "partial", "{provider}: {}", run.text());
            assert!(run.text().contains(words), "{provider}: {}", run.text());
            assert!(!run.text().contains("tweet: filled"), "{provider}: {}", run.text());
        }
    }
}

#[test]
fn a_page_that_is_no_json_is_asked_for_again_and_then_left() {
    let scene = Scene::listed(Provider::TwitterapiIo);
    let fault = |times: &str| {
        format!(
            "[[fault]]\nname = \"proxy page\"\ndo = \"not_json\"\npath = \"/twitter/tweet/advanced_search\"\ntimes = {times}\n"
        )
    };
    scene.desk.write("always.toml", fault("\"always\"").as_bytes());
    scene.desk.write("once.toml", fault("1").as_bytes());
    let broken = scene.history(&["--faults", "always.toml"]);
    let run = scene.backfill(&broken.base, &["--max-requests", "2"]).expect(3);
    assert!(run.text().contains("the answer is not whole JSON"), "{}", run.text());
    assert_eq!(scene.state(), "planned", "{}", run.text());
    assert!(!scene.still_missing().is_empty() && !run.text().contains("tweet: filled"), "{}", run.text());
    scene.desk.run(&["verify"]).expect(0);
    let flaky = scene.history(&["--faults", "once.toml"]);
    let run = scene.backfill(&flaky.base, &[]).expect(0);
    assert!(run.text().contains("the answer is not whole JSON"), "{}", run.text());
    assert_eq!((scene.still_missing(), scene.state().as_str()), (vec![], "filled"), "{}\n{}", run.text(), run.err);
}

/// Rules are read by the recorder, changed at the provider, read again, and what they may have missed is filled by the
/// texts that were in force.
#[test]
fn rules_that_change_are_versions_and_their_gaps_are_filled_by_the_text_in_force() {
    let desk = Desk::new();
    let rule = |n: u64| {
        let id = 2_117_164_813_577_617_415 + n;
        format!(
            r#"{{"event_type":"tweet","rule_id":"r{n}","rule_tag":"t{n}","rule_value":"word{n}","tweets":[{{"type":"tweet","id":"{id}","text":"word{n}","createdAt":"Mon Nov 02 08:00:01 +0000 2026","author":{{"userName":"grebe","id":"7"}}}}],"timestamp":1793606402000}}"#
        )
    };
    desk.write("full.jsonl", format!("{}\n{}\n{}\n", rule(1), rule(2), rule(3)).as_bytes());
    let replay = history(&desk, &[]);
    let config = format!(
        "[source.alpha]\nprovider = \"twitterapi_io\"\nbase_url = \"{}\"\nlateness_horizon = \"200ms\"\nping_every = \"100ms\"\n",
        replay.base
    );
    desk.write("birdtape.toml", config.as_bytes());
    let scopes = || -> Vec<String> {
        let tape = Tape::open(&desk.path("tape"), Arc::new(RealDisk)).unwrap();
        let rows = tape.catalog().scopes("alpha").unwrap().into_iter().filter(|row| row.scope != "*");
        let shown = |row: birdtape::archive::ScopeRow| {
            let end = if row.until_us.is_some() { " ended" } else { "" };
            format!("{} {} {}{end}", row.scope, row.version, row.text.unwrap_or_default())
        };
        rows.map(shown).collect()
    };
    desk.run(&["record", "--for", "2"]).expect(0);
    assert_eq!(scopes(), ["r1 1 word1", "r2 1 word2", "r3 1 word3"]);
    assert_eq!(gaps_of(&desk, "alpha"), []);

    let changed = r#"{"rule_id":"r1","tag":"t1","value":"other1","interval_seconds":100,"is_effect":1}"#;
    assert_eq!(http(&replay.base, "POST", "/oapi/tweet_filter/update_rule", changed)["status"], "success");
    assert_eq!(http(&replay.base, "DELETE", "/oapi/tweet_filter/delete_rule", r#"{"rule_id":"r2"}"#)["status"], "success");
    desk.run(&["record", "--for", "2"]).expect(3);
    assert_eq!(scopes(), ["r1 1 word1", "r1 2 other1", "r2 1 word2 ended", "r3 1 word3"]);
    let gaps = desk.run(&["gaps", "--open", "--json"]).expect(0);
    let gaps: Vec<Value> = gaps.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut told: Vec<_> =
        gaps.iter().map(|gap| format!("{} {}", gap["scope"].as_str().unwrap(), gap["cause"].as_str().unwrap())).collect();
    told.sort();
    assert_eq!(told, ["* stopped", "r1 scope_changed", "r2 scope_changed"]);

    let run = desk.run(&["--json", "backfill"]).expect(0);
    let requests = requests(&desk, "alpha");
    let asked = |text: &str| requests.iter().filter(|asked| asked.list.ends_with(&format!("_search {text}"))).count();
    // The hole of all, and of those two rules the time since the reading before; a search that is alone is looked at twice.
    assert_eq!((asked("word1"), asked("word2"), asked("word3"), asked("other1")), (2, 3, 1, 2), "{}", run.text());
    desk.run(&["verify"]).expect(0);
    desk.run(&["rebuild"]).expect(0);
    assert_eq!(scopes(), ["r1 1 word1", "r1 2 other1", "r2 1 word2 ended", "r3 1 word3"]);
}
