//! Holes of a tape, filled from a fake provider's history by the real program.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::ops::Range;
use std::process::{Command, Stdio};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use birdtape::archive::{Archive, Lost, Options, Tape};
use birdtape::model::{
    Body, Cause, ConnId, Draft, EventId, EventKind, Provider, RecordKind, SourceName, TweetId, UnixMicros, Via,
};
use birdtape::provider::synthetic::{self, Envelope, World};
use birdtape::provider::{decode, decode_record, default_lateness_horizon};
use birdtape::segment::RealDisk;

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

/// A tape of a recorder that was cut off for a while.
pub(crate) fn recorded_but_for(desk: &Desk, provider: Provider, envelopes: &[Envelope], hole: &Range<UnixMicros>) {
    let (name, dir) = (SourceName::from(provider), desk.path("tape"));
    let mut archive = Archive::open(&dir, Arc::new(RealDisk), Options::default(), decode_record, "a test", second(0)).unwrap();
    archive.add_source(&name, provider).unwrap();
    archive.start_source(&name, default_lateness_horizon(provider), ("boot".to_owned(), Duration::ZERO), second(0)).unwrap();
    let horizon = default_lateness_horizon(provider);
    let mut is_cut_off = false;
    archive.live(&name, "*", horizon, second(0), "the first frame").unwrap();
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
            is_cut_off = false;
        }
        archive.append(&name, &draft, Some(&decode(provider, &envelope.bytes))).unwrap();
    }
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

/// A hole of two minutes and a fake provider that knows everything.
pub(crate) struct Scene {
    pub(crate) desk: Desk,
    pub(crate) provider: Provider,
    /// Posts that the recorder missed.
    missing: BTreeSet<u64>,
}

impl Scene {
    pub(crate) fn new(provider: Provider) -> Self {
        let desk = Desk::new();
        let envelopes = broadcast(provider);
        let lines: Vec<u8> = envelopes.iter().flat_map(|envelope| [&envelope.bytes[..], b"\n"].concat()).collect();
        desk.write("full.jsonl", &lines);
        let hole = second(600)..second(720);
        recorded_but_for(&desk, provider, &envelopes, &hole);
        let have = on_tape(&desk, provider);
        let missing = posts(provider, envelopes.iter().filter(|envelope| hole.contains(&envelope.at)));
        let missing: BTreeSet<u64> = missing.difference(&have).copied().collect();
        assert!(missing.len() > 50, "{provider}: only {} posts are missing", missing.len());
        Self { desk, provider, missing }
    }

    pub(crate) fn history(&self, more: &[&str]) -> Replay {
        Replay::start(&self.desk, &[&["full.jsonl", "--from", "end", "--no-rate-limits"], more].concat())
    }

    pub(crate) fn backfill(&self, base: &str, more: &[&str]) -> Run {
        finished(self.command().args(["--base-url", base]).args(more))
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
        scene.desk.run(&["verify"]).expect(0);
        scene.desk.run(&["rebuild"]).expect(0);
        assert_eq!((scene.state().as_str(), scene.still_missing()), ("filled", vec![]), "a rebuild knows it, too");
        let again = scene.backfill(&history.base, &[]).expect(0);
        assert!(!again.text().contains("\"event\":\"began\""), "nothing is left to do: {}", again.text());
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
    scene.backfill(&history.base, &["--max-requests", "0"]).fails(1, &["a budget of 0 requests fills nothing"]);
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
