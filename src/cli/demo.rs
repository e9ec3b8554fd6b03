//! The whole loop without keys and without a network: fake providers, an outage, a kill, what was lost asked for again,
//! and a tape that proves itself.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use super::args::{Common, now};
use super::exit::{Exit, Outcome, failed, usage};
use super::out::{Out, say};
use super::signal;
use crate::archive::{Archive, CatalogCheck, Certificate, Options, Report, Span, Tape, verify};
use crate::catalog::GapRow;
use crate::model::{Body, ConnId, Draft, EventId, EventKind, Provider, RecordKind, SourceName, TweetId, UnixMicros, Via};
use crate::net::Gate;
use crate::provider::{decode, decode_record, synthetic};
use crate::replay::{self, Feed, Replay, Speed};
use crate::segment::{Disk, RealDisk};

/// Show the whole loop on this machine: record, lose, notice, fill, prove
///
/// Fake providers play a made-up broadcast; a real recorder, a process of its own, records all four of them. The server
/// goes away for a while, and the recorder is killed once (SIGKILL). Then the fake providers' history is asked for what is
/// missing. The demo shows the ledger of gaps, verifies the tape, compares what was recorded with what was sent, byte for byte
/// (whatever is missing must lie in a gap), and ends with a certificate for each source.
/// No key, no network: everything happens on loopback. Stopped before its end it leaves nothing behind.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  birdtape demo                        a minute or two, into ./birdtape-demo
  birdtape demo --speed 5              the same, faster
  birdtape demo --dir /tmp/d --json    one JSON object at the end, for scripts")]
pub(super) struct Args {
    /// Directory for everything the demo makes
    #[arg(long, value_name = "DIR", default_value = "./birdtape-demo")]
    dir: PathBuf,
    /// How many times as fast as life
    #[arg(long, value_name = "N", default_value_t = 1.0, value_parser = speed)]
    speed: f64,
}

fn speed(text: &str) -> Result<f64, String> {
    let given: Option<f64> = text.parse().ok();
    given.filter(|n| (0.1..=20.0).contains(n)).ok_or_else(|| "a number from 0.1 to 20".to_owned())
}

/// Length of the broadcast.
const SECONDS: i64 = 24;
/// Envelopes a second over all providers.
const RATE: f64 = 120.0;
/// Marks a directory as ours, to be made again by the next demo.
const MARK: &str = "demo.json";

/// When things happen, in seconds of the broadcast.
const SHUT_AT: f64 = 7.0;
const REOPEN_AT: f64 = 9.5;
const KILL_AT: f64 = 15.0;
const RESTART_AT: f64 = 17.0;

pub(super) fn run(common: &Common, args: &Args) -> Outcome {
    let stage = Stage::prepare(&args.dir)?;
    let words = "stopping the demo, and the recorder with it";
    let seen = signal::block_on_saying(words, async |stop| stage.play_until(args.speed, signal::stopped(stop)).await)?;
    let Some(seen) = seen else {
        stage.clear()?;
        return Err(failed("the demo was stopped before its end", "nothing of it is left; start it again for the whole of it"));
    };
    let findings = stage.findings(seen)?;
    let mut out = Out::new();
    if common.json {
        out.json(&findings.to_json(&stage))?;
    } else {
        findings.tell(&stage, &mut out)?;
    }
    out.flush()?;
    std::fs::write(stage.dir.join(MARK), findings.to_json(&stage).to_string() + "\n").context("cannot write demo.json")?;
    Ok(if findings.is_good() { Exit::Done } else { Exit::Failed })
}

struct Stage {
    dir: PathBuf,
    /// Whether the directory was there before.
    was_there: bool,
    sent: BTreeMap<Provider, Vec<Bytes>>,
}

impl Stage {
    fn broadcast(&self) -> PathBuf {
        self.dir.join("broadcast")
    }

    fn tape(&self) -> PathBuf {
        self.dir.join("tape")
    }

    fn config(&self) -> PathBuf {
        self.dir.join("birdtape.toml")
    }

    /// Makes the directory and the broadcast tape.
    fn prepare(dir: &Path) -> Result<Self> {
        let was_there = dir.exists();
        if was_there {
            let mut entries = std::fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
            if dir.join(MARK).exists() {
                std::fs::remove_dir_all(dir).with_context(|| format!("cannot clear the last demo in {}", dir.display()))?;
            } else if entries.next().is_some() {
                let what = format!("{} is not empty and was not made by a demo", dir.display());
                return Err(usage(what, "name another directory with --dir"));
            }
        }
        std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        std::fs::write(dir.join(MARK), "{}\n").with_context(|| format!("cannot write into {}", dir.display()))?;
        let dir = dir.canonicalize().with_context(|| format!("cannot find {}", dir.display()))?;
        let mut stage = Self { dir, was_there, sent: BTreeMap::new() };
        stage.make_broadcast()?;
        Ok(stage)
    }

    /// Takes away what the demo made.
    fn clear(&self) -> Result<()> {
        let cannot = || format!("cannot clear {}", self.dir.display());
        std::fs::remove_dir_all(&self.dir).with_context(cannot)?;
        if self.was_there { std::fs::create_dir(&self.dir).with_context(cannot) } else { Ok(()) }
    }

    fn make_broadcast(&mut self) -> Result<()> {
        let start = now();
        let end = start.plus(Duration::from_secs(SECONDS as u64));
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let mut archive = Archive::open(&self.broadcast(), disk, Options::default(), decode_record, "birdtape demo", start)?;
        let world = synthetic::World::new(synthetic::Options { seed: 7, start, rate: RATE, ..synthetic::Options::default() });
        for envelope in world.take_while(|envelope| envelope.at < end) {
            let name = SourceName::from(envelope.provider);
            archive.add_source(&name, envelope.provider)?;
            let decoded = decode(envelope.provider, &envelope.bytes);
            archive.append(&name, &draft(envelope.at, &envelope.bytes), Some(&decoded))?;
            self.sent.entry(envelope.provider).or_default().push(envelope.bytes);
        }
        archive.close(end)?;
        Ok(())
    }

    fn write_config(&self, base: SocketAddr) -> Result<()> {
        let mut text = "# Made by `birdtape demo`: four fake providers on this machine.\n".to_owned();
        text.push_str(&format!("tape = {}\n", json!(self.tape())));
        for provider in Provider::ALL {
            let lists = if provider == Provider::XLive { "" } else { "scopes_every = \"0s\"\n" };
            // A real TwitterAPI.io source waits 90 s before it dials again; the demo has no time for that. Its rules do not
            // change, so they need not be read.
            text.push_str(&format!(
                "\n[source.{provider}]\nprovider = \"{provider}\"\nbase_url = \"http://{base}\"\nreconnect_floor = \"300ms\"\nreconnect_cap = \"600ms\"\nlateness_horizon = \"2s\"\n{lists}"
            ));
        }
        std::fs::write(self.config(), text).context("cannot write the demo's birdtape.toml")
    }

    /// The play, unless it is stopped before its end; the process beside us is gone when this is over.
    async fn play_until(&self, speed: f64, stopped: impl Future<Output = ()>) -> Result<Option<Seen>> {
        let mut beside = Beside::default();
        let seen = tokio::select! {
            seen = self.play(speed, &mut beside) => seen.map(Some),
            () = stopped => Ok(None),
        };
        beside.kill().await?;
        seen
    }

    /// The play itself; gives what the recorder announced before it was killed.
    async fn play(&self, speed: f64, beside: &mut Beside) -> Result<Seen> {
        let listener = replay::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        let address = listener.local_addr().context("cannot learn the replay's port")?;
        let feed = Feed::Tape { dir: self.broadcast() };
        let options = replay::Options { speed: Speed::Times(speed), ..replay::Options::new(feed) };
        let server = replay::start(options, listener, Arc::new(RealDisk), std::future::pending()).await?;
        let gate = Gate::open(address).await.context("cannot open the gate in front of the fake providers")?;
        self.write_config(gate.addr())?;
        let total: usize = self.sent.values().map(Vec::len).sum();
        say(&format!(
            "broadcast   {total} envelopes of four fake providers over {SECONDS} s, at {speed}x, on http://{}",
            gate.addr()
        ));
        say("recording   `birdtape record`, a process of its own");
        let announced = beside.record(self, &[])?;
        let clock = Clock::start(&server, speed).await?;
        clock.until(SHUT_AT).await;
        say("outage      the server goes away");
        gate.shut();
        clock.until(REOPEN_AT).await;
        say("outage      the server is back; the stream went on without us");
        gate.reopen();
        clock.until(KILL_AT).await;
        say("kill        SIGKILL to the recorder, in the middle of its work");
        beside.kill().await?;
        let announced = announced.await.context("reading the recorder's words failed")?;
        clock.until(RESTART_AT).await;
        say("recording   started again; it finds its tape open and mends it");
        drop(beside.record(self, &["--until-idle", "2.5"])?);
        clock.until(SECONDS as f64 + 0.5).await;
        beside.ended_well("the recorder").await?;
        say("backfill    the providers' history is asked for what lies in the gaps");
        // With the program as anybody would use it.
        beside.start(self.program()?.arg("backfill").stdout(Stdio::null()), "the backfiller")?;
        beside.ended_well("the backfiller").await?;
        server.stop();
        server.wait().await;
        Ok(Seen { announced })
    }

    /// This program with the demo's configuration; it talks into the log.
    fn program(&self) -> Result<Command> {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.dir.join("recorder.log"));
        let mut command = Command::new(std::env::current_exe().context("cannot find this program")?);
        command.arg("--config").arg(self.config()).arg("--json");
        command.env_remove("BIRDTAPE_TAPE").env_remove("BIRDTAPE_CONFIG").stdin(Stdio::null());
        command.stderr(log.context("cannot write recorder.log")?);
        Ok(command)
    }

    /// Looks at what is left.
    fn findings(&self, seen: Seen) -> Result<Findings> {
        let report = verify(&self.tape(), &RealDisk, decode_record, |_| {})?;
        let tape = Tape::open(&self.tape(), Arc::new(RealDisk))?;
        let (mut sources, mut certificates) = (Vec::new(), Vec::new());
        for provider in Provider::ALL {
            sources.push(Comparison::of(&tape, provider, &self.sent[&provider], seen.announced.get(provider.name()).copied())?);
            certificates.extend(self.certify(&tape, provider.name())?);
        }
        Ok(Findings { report, gaps: tape.catalog().gaps(None)?, sources, certificates })
    }

    /// Certifies a source from its beginning to where evidence or a gap reaches.
    fn certify(&self, tape: &Tape, source: &str) -> Result<Option<(String, Certificate)>> {
        let coverage = tape.coverage(source)?;
        let since = coverage.iter().map(|scope| scope.since).min();
        let reached = coverage.iter().filter_map(|scope| scope.frontier);
        let gaps = tape.catalog().gaps(Some(source))?.into_iter().filter_map(|gap| gap.to_us.map(UnixMicros));
        let (Some(from), Some(to)) = (since, reached.chain(gaps).max()) else { return Ok(None) };
        let certificate = Certificate::of(tape, source, from, to)?;
        let file = self.dir.join(format!("certificate-{source}.json"));
        std::fs::write(&file, certificate.to_json() + "\n").with_context(|| format!("cannot write {}", file.display()))?;
        Ok(Some((source.to_owned(), certificate)))
    }
}

fn draft(at: UnixMicros, bytes: &Bytes) -> Draft {
    let body = Body::Bytes(bytes.clone());
    Draft { received_at: at, kind: RecordKind::Frame, via: Via::Import, conn: ConnId(0), info: None, body }
}

/// Time since the fake providers began to play, in seconds of the broadcast.
struct Clock {
    start: tokio::time::Instant,
    speed: f64,
}

impl Clock {
    /// Waits until the first client has come: with it the broadcast begins.
    async fn start(server: &Replay, speed: f64) -> Result<Self> {
        let patience = tokio::time::Instant::now() + Duration::from_secs(60);
        while server.stats().providers.iter().all(|p| p.clients_ever == 0) {
            if tokio::time::Instant::now() > patience {
                return Err(failed(
                    "the recorder did not connect within a minute",
                    "look at recorder.log in the demo's directory",
                ));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(Self { start: tokio::time::Instant::now(), speed })
    }

    async fn until(&self, seconds: f64) {
        tokio::time::sleep_until(self.start + Duration::from_secs_f64(seconds / self.speed)).await;
    }
}

struct Seen {
    /// Last record that was announced as durable before the kill, by source.
    announced: BTreeMap<String, u64>,
}

/// The process that runs beside us, if one does; it goes when this goes.
#[derive(Default)]
struct Beside(Option<Child>);

impl Beside {
    fn start(&mut self, command: &mut Command, what: &'static str) -> Result<&mut Child> {
        let child = command.kill_on_drop(true).spawn().with_context(|| format!("cannot start {what}"))?;
        Ok(self.0.insert(child))
    }

    /// Starts a recorder; gives what it announces on its stdout, once that has ended.
    fn record(&mut self, stage: &Stage, until: &[&str]) -> Result<JoinHandle<BTreeMap<String, u64>>> {
        let mut command = stage.program()?;
        let recorder = self.start(command.arg("record").args(until).stdout(Stdio::piped()), "the recorder")?;
        let stdout = recorder.stdout.take().context("the recorder has no stdout")?;
        Ok(tokio::spawn(async move {
            let mut announced = BTreeMap::new();
            let mut lines = BufReader::new(stdout).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                let Ok(event) = serde_json::from_str::<Value>(&line) else { continue };
                if let (Some("commit"), Some(source), Some(n)) =
                    (event["event"].as_str(), event["source"].as_str(), event["n"].as_u64())
                {
                    announced.insert(source.to_owned(), n);
                }
            }
            announced
        }))
    }

    /// Kills it, and waits until it is gone.
    async fn kill(&mut self) -> Result<()> {
        match self.0.take() {
            Some(mut child) => child.kill().await.context("cannot kill the process beside the demo"),
            None => Ok(()),
        }
    }

    /// Waits for its end; it stops by itself.
    async fn ended_well(&mut self, what: &str) -> Result<()> {
        let Some(child) = &mut self.0 else { return Ok(()) };
        let status = child.wait().await.with_context(|| format!("cannot wait for {what}"))?;
        self.0 = None;
        match status.code() {
            Some(0 | 3) => Ok(()),
            _ => Err(failed(format!("{what} ended with {status}"), "look at recorder.log in the demo's directory")),
        }
    }
}

/// What was recorded of a provider, beside what was sent.
struct Comparison {
    provider: Provider,
    sent: usize,
    recorded: usize,
    /// Envelopes that were sent and not recorded.
    missing: usize,
    /// Missing ones where the tape has no gap.
    silent: usize,
    /// Posts of gaps that only missing envelopes brought, and those of them that history had.
    lost_posts: usize,
    found_posts: usize,
    /// Recorded ones that were not sent, or not in that order.
    foreign: usize,
    /// Records announced before the kill that are not on the tape.
    broken_promises: u64,
}

impl Comparison {
    /// Walks both in order. A run of missing envelopes must have a gap's note between its neighbours on the tape.
    fn of(tape: &Tape, provider: Provider, sent: &[Bytes], announced: Option<u64>) -> Result<Self> {
        let mut found = Self {
            provider,
            sent: sent.len(),
            recorded: 0,
            missing: 0,
            silent: 0,
            lost_posts: 0,
            found_posts: 0,
            foreign: 0,
            broken_promises: 0,
        };
        let mut records = tape.records(provider.name(), Span::default())?;
        let (mut next, mut gap_before, mut last_n) = (0, true, 0);
        let (mut came, mut lost) = (BTreeSet::new(), BTreeSet::new());
        while let Some(record) = records.next()? {
            last_n = record.n.0;
            match record.kind {
                RecordKind::Note => gap_before |= is_gap(&record.body),
                RecordKind::Frame => {
                    match sent[next..].iter().position(|bytes| *bytes == record.body) {
                        Some(skipped) => {
                            found.recorded += 1;
                            found.missing += skipped;
                            found.silent += if gap_before { 0 } else { skipped };
                            came.extend(posts(provider, &record.body));
                            lost.extend(sent[next..next + skipped].iter().flat_map(|bytes| posts(provider, bytes)));
                            next += skipped + 1;
                        }
                        // X opens every connection with a `config` of its own; the fake makes one when we come back.
                        None if is_greeting(provider, &record.body) => continue,
                        None => found.foreign += 1,
                    }
                    gap_before = false;
                }
                _ => {}
            }
        }
        // Behind the last one, only a gap or the end of recording may explain it.
        found.missing += sent.len() - next;
        found.silent += if gap_before { 0 } else { sent.len() - next };
        lost.extend(sent[next..].iter().flat_map(|bytes| posts(provider, bytes)));
        let gaps = tape.catalog().gaps(Some(provider.name()))?;
        // What came later than the lateness horizon allows is older than its gap: nobody asks for that.
        let is_in_a_gap = |at: UnixMicros| gaps.iter().any(|gap| gap.from_us <= at.0 && gap.to_us.is_none_or(|to| at.0 < to));
        for post in lost.difference(&came).filter(|post| TweetId(**post).published_at().is_some_and(is_in_a_gap)) {
            found.lost_posts += 1;
            found.found_posts += usize::from(!tape.catalog().blocks_with_id(*post)?.is_empty());
        }
        found.broken_promises = announced.map_or(0, |n| n.saturating_sub(last_n));
        Ok(found)
    }
}

/// Posts whose content an envelope brings.
fn posts(provider: Provider, bytes: &[u8]) -> Vec<u64> {
    let of_post = |event: crate::model::Event| match (event.kind, event.id) {
        (EventKind::Tweet, EventId::Tweet(id)) => Some(id.0),
        _ => None,
    };
    decode(provider, bytes).events.into_iter().filter_map(of_post).collect()
}

fn is_gap(body: &[u8]) -> bool {
    serde_json::from_slice::<Value>(body).is_ok_and(|note| note["note"] == "gap")
}

fn is_greeting(provider: Provider, body: &[u8]) -> bool {
    provider == Provider::XLive && matches!(decode(provider, body).message, crate::model::Message::Config { .. })
}

struct Findings {
    report: Report,
    gaps: Vec<GapRow>,
    sources: Vec<Comparison>,
    /// By source.
    certificates: Vec<(String, Certificate)>,
}

impl Findings {
    fn is_good(&self) -> bool {
        let kept = |s: &Comparison| s.silent == 0 && s.foreign == 0 && s.broken_promises == 0 && s.recorded > 0;
        let good = |s: &Comparison| kept(s) && s.found_posts == s.lost_posts;
        // X has no history of what its live pipeline brings: there the certificate says that nobody can tell.
        let whole = |(source, certificate): &(String, Certificate)| source == Provider::XLive.name() || certificate.is_whole();
        let certified = self.certificates.len() == Provider::ALL.len() && self.certificates.iter().all(whole);
        self.report.is_whole() && self.sources.iter().all(good) && !self.gaps.is_empty() && certified
    }

    fn to_json(&self, stage: &Stage) -> Value {
        let by_source = |s: &Comparison| {
            json!({ "source": s.provider.name(), "sent": s.sent, "recorded": s.recorded, "missing": s.missing,
                "missing_outside_gaps": s.silent, "posts_lost": s.lost_posts, "posts_filled": s.found_posts, "foreign": s.foreign, "announced_and_lost": s.broken_promises })
        };
        let gap = |g: &GapRow| {
            json!({ "id": format!("{}-{}", g.source, g.n), "source": g.source, "cause": g.cause, "state": g.state, "scope": g.scope,
                "from": UnixMicros(g.from_us).to_string(), "to": g.to_us.map(|t| UnixMicros(t).to_string()), "detail": g.detail })
        };
        let catalog = match &self.report.catalog {
            CatalogCheck::Equal(_) => "equal",
            CatalogCheck::Differs => "differs",
            CatalogCheck::Skipped(_) => "skipped",
        };
        json!({
            "ok": self.is_good(),
            "sources": self.sources.iter().map(by_source).collect::<Vec<_>>(),
            "gaps": self.gaps.iter().map(gap).collect::<Vec<_>>(),
            "certified": self.certificates.iter().map(|(name, of)| (name.clone(), of.is_whole().into())).collect::<serde_json::Map<_, _>>(),
            "verify": { "ok": self.report.is_whole(), "catalog": catalog, "damage": self.report.damage.len() },
            "paths": { "dir": stage.dir, "broadcast": stage.broadcast(), "tape": stage.tape(), "config": stage.config(),
                "log": stage.dir.join("recorder.log") },
        })
    }

    fn tell(&self, stage: &Stage, out: &mut Out) -> Result<()> {
        out.line("")?;
        out.line("What was sent, and what is on the tape:")?;
        let head =
            ["source", "sent", "recorded", "missing", "of these outside a gap", "posts of its gaps in them", "found in history"];
        let rows = self.sources.iter().map(|s| {
            let cells = [s.sent, s.recorded, s.missing, s.silent, s.lost_posts, s.found_posts].map(|n| n.to_string());
            std::iter::once(s.provider.to_string()).chain(cells).collect()
        });
        out.lines(&super::out::table(&head, rows))?;
        out.line("")?;
        out.line("The ledger (a window lies in published time; each begins one lateness horizon before the last evidence):")?;
        let head = ["gap", "cause", "state", "from", "length", "what happened"];
        let rows = self.gaps.iter().map(|g| {
            let length = g.to_us.map_or("open".to_owned(), |to| format!("{:.1} s", (to - g.from_us) as f64 / 1e6));
            let time = UnixMicros(g.from_us).to_string();
            vec![
                format!("{}-{}", g.source, g.n),
                g.cause.clone(),
                g.state.clone(),
                time[11..19].to_owned(),
                length,
                g.detail.chars().take(60).collect(),
            ]
        });
        out.lines(&super::out::table(&head, rows))?;
        out.line("")?;
        let records: u64 = self.report.sources.iter().map(|s| s.records).sum();
        let verdict = match (&self.report.catalog, self.report.is_whole()) {
            (CatalogCheck::Equal(rows), true) => format!("{records} records whole, catalog equal to the segments ({rows} rows)"),
            _ => format!("not whole: {:?}", self.report.damage),
        };
        out.line(&format!("verify      {verdict}"))?;
        let broken: u64 = self.sources.iter().map(|s| s.broken_promises).sum();
        out.line(&format!("kill        {broken} records announced before it are missing"))?;
        let (silent, foreign): (usize, usize) =
            (self.sources.iter().map(|s| s.silent).sum(), self.sources.iter().map(|s| s.foreign).sum());
        out.line(&format!(
            "compared    every recorded envelope byte for byte: {foreign} differ; {silent} missing outside a gap"
        ))?;
        out.line("")?;
        let there = Tape::open(&stage.tape(), Arc::new(RealDisk))?;
        super::gaps::draw(
            out,
            &there,
            &self.certificates.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>(),
            (None, None),
        )?;
        for (source, certificate) in &self.certificates {
            out.line(&format!("certify     {source}: {}", certificate.in_words()))?;
        }
        out.line("")?;
        let tape = stage.tape();
        out.line(&format!("Look at it:  birdtape status --tape {}", tape.display()))?;
        out.line(&format!("             birdtape gaps --tape {}", tape.display()))?;
        out.line(&format!("             jq . {}/certificate-tweetstream.json", stage.dir.display()))?;
        out.line(&format!("             birdtape cat --tape {} --source tweetstream --kind frame | head", tape.display()))?;
        out.line(&format!("             zstd -dc {}/segments/tweetstream/*/*.zst | jq .kind | sort | uniq -c", tape.display()))?;
        out.line(&format!("The recorder's log: {}", stage.dir.join("recorder.log").display()))
    }
}
