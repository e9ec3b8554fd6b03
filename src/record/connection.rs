//! The shell of one connection: does what its machine wants, waits, keeps what comes, feeds the machine.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::control::Topics;
use super::queue::{Entry, Gone, Item, Offer, Queue};
use super::{Event, Options, Sink, Source, World};
use crate::archive::{self, Closed};
use crate::model::{
    Framing, Hidden, NetFault, Provider, Request, Response, Secrets, SourceName, Transport, UnixMicros, Via, panic_point,
};
use crate::net::{self, Clock, ConnectionClock, Failure, Incoming, Limits, Live, Network, OpenError, TELLING_HEADERS};
use crate::provider::webhook::Webhook;
use crate::provider::{self, Action, Client, End, Fault, Input, Loudness};

/// A quiet link is noted as alive this often.
const ALIVE_EVERY: Duration = Duration::from_secs(10);

/// How often the clocks of an open connection are compared, and whether a burst is over is looked at.
const CLOCKS_EVERY: Duration = Duration::from_secs(1);

/// Messages handled before timers, commands and the shutdown are looked at again.
const BURST: usize = 128;

/// Bytes of foreign or composed words in a fact.
const WORDS_BYTES_MAX: usize = 1024;

/// What a connection that is leaving still waits for the disk.
const LEAVING_WAIT: Duration = Duration::from_secs(1);

/// A wait without an end.
const FOR_EVER: Duration = Duration::from_secs(86_400);

/// When an envelope last came, for all connections together.
#[derive(Debug)]
pub(super) struct Activity {
    started: Instant,
    last_us: AtomicU64,
}

impl Activity {
    pub(super) fn new(started: Instant) -> Self {
        Self { started, last_us: AtomicU64::new(0) }
    }

    pub(super) fn last(&self) -> Instant {
        self.started + Duration::from_micros(self.last_us.load(Ordering::Relaxed))
    }

    pub(super) fn touch(&self, now: Instant) {
        let micros = now.duration_since(self.started).as_micros();
        self.last_us.fetch_max(u64::try_from(micros).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// How a shell ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// Its machine gave up.
    GaveUp(Fault, String),
    /// It was told to leave.
    Left,
    /// The writer has ended; it knows why.
    WriterGone,
}

type Dialed = (Result<net::Opened, OpenError>, String, Transport);
type Answered = (String, String, Result<Response, Failure>);

pub(super) struct Shell {
    slot: u32,
    name: SourceName,
    provider: Provider,
    framing: Framing,
    network: Arc<dyn Network>,
    clock: Arc<dyn Clock>,
    queue: Arc<Queue>,
    events: Sink,
    activity: Arc<Activity>,
    limits: Limits,
    overload_wait: Duration,
    words: Words,
    leaving: watch::Receiver<bool>,
    machine: Client,
    dial_at: Option<Instant>,
    dialing: Option<BoxFuture<'static, Dialed>>,
    requests: FuturesUnordered<BoxFuture<'static, Answered>>,
    live: Option<Live>,
    stamps: Option<ConnectionClock>,
    via: Via,
    /// Our own farewell, once we have said it.
    farewell: Option<(u16, String)>,
    /// The latest stamp given, so that facts between connections do not go back.
    last_at: UnixMicros,
    /// Evidence that stands on the tape, and evidence after it that does not yet.
    kept_evidence: Option<UnixMicros>,
    loose_evidence: Option<UnixMicros>,
    overflow: Option<Overflow>,
    /// When the clocks are compared again.
    clocks_due: Instant,
    gave_up: Option<(Fault, String)>,
    /// Whether the person knows that the server sends keys back.
    echoed: bool,
}

#[derive(Clone, Copy, Debug)]
struct Overflow {
    since: UnixMicros,
    envelopes: u64,
    bytes: u64,
}

/// What a shell waits for.
enum Wake {
    Leave,
    Command(Topics),
    NoCommands,
    Time,
    Dialed(Dialed),
    Answered(Answered),
    Incoming(Incoming),
}

impl Shell {
    #[allow(clippy::too_many_arguments, reason = "called once; a struct of the same fields would only repeat them")]
    pub(super) fn new(
        slot: u32,
        nth: u32,
        source: &Source,
        options: &Options,
        world: &World,
        queue: &Arc<Queue>,
        events: &Sink,
        activity: &Arc<Activity>,
        leaving: watch::Receiver<bool>,
    ) -> Self {
        let mut settings = source.settings.clone();
        // Connections of one source must not come back in the same instant.
        settings.seed = settings.seed.wrapping_add(u64::from(nth));
        if nth > 0 {
            // One of them asks what selects the stream; the others would hear the same.
            settings.scopes_every = Duration::ZERO;
        }
        Self {
            slot,
            name: source.name.clone(),
            provider: settings.provider,
            framing: settings.framing,
            network: Arc::clone(&source.network),
            clock: Arc::clone(&world.clock),
            queue: Arc::clone(queue),
            events: Arc::clone(events),
            activity: Arc::clone(activity),
            limits: Limits { message_bytes_max: options.max_message, ..Limits::default() },
            overload_wait: options.overload_wait,
            words: Words::of(source),
            leaving,
            machine: Client::new(settings),
            dial_at: None,
            dialing: None,
            requests: FuturesUnordered::new(),
            live: None,
            stamps: None,
            via: Via::Ws,
            farewell: None,
            last_at: world.clock.wall(),
            kept_evidence: None,
            loose_evidence: None,
            overflow: None,
            clocks_due: net::now(),
            gave_up: None,
            echoed: false,
        }
    }

    pub(super) async fn run(mut self, inbox: mpsc::Receiver<Topics>) -> Ended {
        match self.record(inbox).await {
            Ok(ended) => ended,
            Err(Gone) => Ended::WriterGone,
        }
    }

    async fn record(&mut self, inbox: mpsc::Receiver<Topics>) -> Result<Ended, Gone> {
        let mut inbox = Some(inbox);
        let mut timer = std::pin::pin!(sleep_until(net::now() + FOR_EVER));
        self.tell(Input::Start);
        loop {
            self.act().await?;
            if let Some((fault, text)) = self.gave_up.take() {
                self.leave("giving up this source").await?;
                return Ok(Ended::GaveUp(fault, text));
            }
            let wanted = self.next_instant();
            // A timer that rings too early costs less than moving it back for every message.
            if wanted < timer.deadline() || timer.is_elapsed() {
                timer.as_mut().reset(wanted);
            }
            match self.wait(&mut inbox, timer.as_mut()).await {
                Wake::Leave => {
                    self.leave("recording ends").await?;
                    return Ok(Ended::Left);
                }
                Wake::Command(topics) => self.tell(Input::Topics { add: &topics.add, remove: &topics.remove }),
                Wake::NoCommands => inbox = None,
                Wake::Time => self.time_came().await?,
                Wake::Dialed(dialed) => self.dialed(dialed).await?,
                Wake::Answered(answered) => self.answered(answered).await?,
                Wake::Incoming(incoming) => self.take_burst(incoming).await?,
            }
        }
    }

    async fn wait(&mut self, inbox: &mut Option<mpsc::Receiver<Topics>>, timer: std::pin::Pin<&mut tokio::time::Sleep>) -> Wake {
        let Self { leaving, dialing, requests, live, .. } = self;
        let command = async {
            match inbox {
                Some(inbox) => inbox.recv().await,
                None => std::future::pending().await,
            }
        };
        let dialed = async {
            match dialing {
                Some(dialing) => dialing.await,
                None => std::future::pending().await,
            }
        };
        let incoming = async {
            match live {
                Some(live) => live.next().await,
                None => std::future::pending().await,
            }
        };
        // In this order: a peer that never pauses must not keep the rest from being looked at.
        tokio::select! {
            biased;
            _ = leaving.wait_for(|leave| *leave) => Wake::Leave,
            command = command => command.map_or(Wake::NoCommands, Wake::Command),
            () = timer => Wake::Time,
            Some(answered) = requests.next() => Wake::Answered(answered),
            dialed = dialed => Wake::Dialed(dialed),
            incoming = incoming => Wake::Incoming(incoming),
        }
    }

    fn tell(&mut self, input: Input<'_>) {
        self.machine.on(net::now().into_std(), input);
    }

    fn next_instant(&self) -> Instant {
        let machine = self.machine.deadline().map(Instant::from_std);
        let dial = self.dial_at;
        let clocks = self.live.as_ref().map(|_| self.clocks_due);
        [machine, dial, clocks].into_iter().flatten().min().unwrap_or_else(|| net::now() + FOR_EVER)
    }

    async fn time_came(&mut self) -> Result<(), Gone> {
        let now = net::now();
        if self.dial_at.is_some_and(|at| at <= now) {
            self.dial_at = None;
            self.dial();
        }
        if self.machine.deadline().is_some_and(|at| at <= now.into_std()) {
            self.machine.on(now.into_std(), Input::Deadline);
        }
        if self.live.is_some() && self.clocks_due <= now {
            self.clocks_due = now + self.clocks_wait();
            self.compare_clocks().await?;
            // After a burst there may be no next envelope that would tell.
            if self.overflow.is_some() && self.queue.is_half_empty() {
                self.tell_overflow().await?;
            }
        }
        Ok(())
    }

    /// Does everything the machine wants.
    async fn act(&mut self) -> Result<(), Gone> {
        while let Some(action) = self.machine.next_action() {
            match action {
                Action::Dial { not_before } => self.dial_at = Some(Instant::from_std(not_before)),
                Action::Send(text) => self.send(text).await?,
                Action::Ping => {
                    if let Some(live) = &mut self.live {
                        // A failure is told by the connection's end.
                        drop(live.ping().await);
                    }
                }
                Action::Request(request) => self.request(request),
                Action::Close { code, reason } => self.close(code, reason).await,
                Action::Lost { scope, cause, detail } => {
                    self.settle_evidence().await?;
                    let detail = self.words.clean(&detail);
                    self.fact(Item::Lost { scope, cause, detail }).await?;
                }
                Action::Live { scope } => self.fact(Item::Live { scope }).await?,
                Action::Dropped { scope } => self.fact(Item::Dropped { scope }).await?,
                Action::Scopes { all } => self.fact(Item::Scopes { all }).await?,
                Action::Say { loud, text } => self.say(loud, &text),
                Action::Stop { fault, text } => {
                    let text = self.words.clean(&text);
                    self.say(Loudness::Error, &text);
                    self.gave_up = Some((fault, text));
                }
            }
        }
        Ok(())
    }

    fn say(&self, loudness: Loudness, text: &str) {
        (self.events)(Event::Said { source: self.name.clone(), loudness, text: self.words.clean(text) });
    }

    // Opening, asking, closing.

    fn dial(&mut self) {
        let (network, opening, limits) = (Arc::clone(&self.network), self.machine.opening(), self.limits.clone());
        self.dialing = Some(
            async move {
                let opened = net::open(&*network, &opening, &limits).await;
                (opened, opening.shown, opening.transport)
            }
            .boxed(),
        );
    }

    async fn dialed(&mut self, (opened, url, transport): Dialed) -> Result<(), Gone> {
        self.dialing = None;
        let opened = match opened {
            Ok(opened) => opened,
            Err(OpenError::Refused(response)) => {
                let info = self.http_info("GET", &url, "", Ok(&response));
                self.fact(Item::Http { info, body: response.body.clone() }).await?;
                self.tell(Input::Refused { response: &response });
                return Ok(());
            }
            Err(OpenError::Unreachable { fault, detail }) => {
                let detail = self.words.clean(&detail);
                self.tell(Input::Unreachable { fault, detail: &detail });
                return Ok(());
            }
        };
        let boot = self.clock.boot();
        self.stamps = Some(ConnectionClock::open(&*self.clock));
        self.clocks_due = net::now() + self.clocks_wait();
        (self.farewell, self.kept_evidence, self.loose_evidence) = (None, None, None);
        self.via = match (transport, self.framing) {
            (Transport::WebSocket, _) => Via::Ws,
            (Transport::Stream, Framing::Sse) => Via::Sse,
            (Transport::Stream, Framing::Lines) => Via::Lines,
        };
        let facts = archive::Opened {
            url: self.words.clean(&url),
            subprotocol: opened.subprotocol.as_deref().map(|name| self.words.clean(name)),
            boot_id: boot.boot_id,
            since_boot_us: u64::try_from(boot.since_boot.as_micros()).unwrap_or(u64::MAX),
        };
        self.fact(Item::Opened(Box::new(facts))).await?;
        self.live = Some(opened.live);
        self.tell(Input::Opened { subprotocol: opened.subprotocol.as_deref() });
        Ok(())
    }

    fn request(&mut self, request: Request) {
        let (network, limits) = (Arc::clone(&self.network), self.limits.clone());
        self.requests.push(
            async move {
                let answer = net::request(&*network, &request, &limits).await;
                let asked = json!({ "method": request.method, "url": request.shown, "request": request.body });
                (request.shown, asked.to_string(), answer)
            }
            .boxed(),
        );
    }

    async fn answered(&mut self, (url, asked, answer): Answered) -> Result<(), Gone> {
        let asked: serde_json::Value = serde_json::from_str(&asked).unwrap_or_default();
        let (method, request) = (asked["method"].as_str().unwrap_or_default(), asked["request"].as_str().unwrap_or_default());
        let info = self.http_info(method, &url, request, answer.as_ref());
        let body = answer.as_ref().map(|response| response.body.clone()).unwrap_or_default();
        self.fact(Item::Http { info, body }).await?;
        self.tell(Input::Answered { response: answer.as_ref().ok() });
        Ok(())
    }

    /// The line about a request that stands beside the body of its answer.
    fn http_info(&self, method: &str, url: &str, request: &str, answer: Result<&Response, &Failure>) -> String {
        let mut info = json!({ "method": method, "url": self.words.clean(url), "status": 0 });
        match answer {
            Ok(response) => {
                let headers = response.headers.iter().filter(|(name, _)| TELLING_HEADERS.contains(&name.as_str()));
                let headers: serde_json::Map<_, _> =
                    headers.map(|(name, value)| (name.clone(), self.words.clean(value).into())).collect();
                info["status"] = response.status.into();
                info["headers"] = headers.into();
            }
            Err((fault, detail)) => {
                info["fault"] = fault.name().into();
                info["detail"] = self.words.clean(detail).into();
            }
        }
        if !request.is_empty() {
            // Topics of a change; bounded by the control line and the configuration.
            info["request"] = self.words.in_words.hide(request).into();
        }
        info.to_string()
    }

    async fn send(&mut self, text: String) -> Result<(), Gone> {
        let Some(live) = &mut self.live else { return Ok(()) };
        // What was not sent is not kept; why it was not is told by the connection's end.
        match live.send_text(&text).await {
            Ok(()) => self.fact(Item::Sent(text)).await,
            Err(_) => Ok(()),
        }
    }

    async fn close(&mut self, code: u16, reason: String) {
        if let (Some(live), None) = (&mut self.live, &self.farewell) {
            live.close(code, &reason).await;
            self.farewell = Some((code, reason));
        }
    }

    /// Closes politely and keeps what still comes; bounded by the connection's own patience and by the caller's.
    async fn leave(&mut self, reason: &str) -> Result<(), Gone> {
        // What has come already is taken along: an endless response forgets it at its close.
        for _ in 0..BURST * 64 {
            let Some(incoming) = self.live.as_mut().and_then(|live| live.next().now_or_never()) else { break };
            self.take(incoming).await?;
        }
        self.close(1000, reason.to_owned()).await;
        while let Some(live) = &mut self.live {
            let incoming = live.next().await;
            self.take(incoming).await?;
        }
        self.tell_overflow().await
    }

    // What comes.

    async fn take_burst(&mut self, first: Incoming) -> Result<(), Gone> {
        self.take(first).await?;
        for _ in 1..BURST {
            self.act().await?;
            let next = self.live.as_mut().filter(|_| self.gave_up.is_none()).and_then(|live| live.next().now_or_never());
            let Some(incoming) = next else { break };
            self.take(incoming).await?;
        }
        Ok(())
    }

    async fn take(&mut self, incoming: Incoming) -> Result<(), Gone> {
        match incoming {
            Incoming::Message(bytes) => self.keep(bytes).await,
            Incoming::Alive => self.alive().await,
            Incoming::Closed { code, reason } => self.ended(code, &reason, None, "").await,
            Incoming::Broken { fault, detail, kept } => {
                if !kept.is_empty() {
                    self.keep_broken(fault, &detail, kept).await?;
                }
                self.ended(None, "", Some(fault), &detail).await
            }
        }
    }

    /// Keeps an envelope, then lets the machine understand it.
    async fn keep(&mut self, bytes: Bytes) -> Result<(), Gone> {
        let now = net::now();
        let received_at = self.stamp();
        let (bytes, hidden) = self.without_keys(bytes);
        let info = hidden.map(|hidden| json!({ "redacted": told(hidden) }).to_string());
        let decoded = Arc::new(provider::decode(self.provider, &bytes));
        self.activity.touch(now);
        let item = Item::Frame { bytes, decoded: Arc::clone(&decoded), via: self.via, info };
        self.queue_envelope(Entry { slot: self.slot, at: received_at, arrived: now.into_std(), item }).await?;
        panic_point("connection");
        self.machine.on(now.into_std(), Input::Frame { decoded: &decoded, received_at });
        Ok(())
    }

    /// The bytes as they may be kept. What a server says is kept to the byte, but for the key if it sends that back.
    fn without_keys(&mut self, bytes: Bytes) -> (Bytes, Option<Hidden>) {
        let Some((clean, hidden)) = self.words.in_bytes.hide_in_bytes(&bytes) else { return (bytes, None) };
        if !std::mem::replace(&mut self.echoed, true) {
            let text = "the provider sent the key back in a message: proxies and logs on the way may hold it now; a marker is kept \
                        in its place, and recording goes on; think of changing the key";
            self.say(Loudness::Warn, text);
        }
        (clean, Some(hidden))
    }

    async fn keep_broken(&mut self, fault: NetFault, detail: &str, kept: Bytes) -> Result<(), Gone> {
        let at = self.stamp();
        let n_bytes = kept.len();
        let (kept, hidden) = self.without_keys(kept);
        // A rebuild reads this record like any other; here it must mean the same.
        let decoded = Arc::new(provider::decode(self.provider, &kept));
        let mut info = json!({ "cause": fault.name(), "detail": self.words.clean(detail), "bytes": n_bytes });
        if let Some(hidden) = hidden {
            info["redacted"] = told(hidden);
        }
        let item = Item::Broken { bytes: kept, decoded, via: self.via, info: info.to_string() };
        self.queue_envelope(Entry { slot: self.slot, at, arrived: net::now().into_std(), item }).await
    }

    /// Proof of life: on the tape at once when it is the first or the tape has none for a while, else with the next loss.
    async fn alive(&mut self) -> Result<(), Gone> {
        let at = self.stamp();
        let is_due = self.kept_evidence.is_none_or(|kept| at.since(kept) >= ALIVE_EVERY.as_micros() as i64);
        self.loose_evidence = Some(at);
        if is_due {
            self.settle_evidence().await?;
        }
        self.tell(Input::Alive);
        Ok(())
    }

    /// Puts the latest proof of life on the tape, so that a loss begins there and not earlier.
    async fn settle_evidence(&mut self) -> Result<(), Gone> {
        let Some(at) = self.loose_evidence.take() else { return Ok(()) };
        self.kept_evidence = Some(at);
        let item = Item::Alive("a ping, a pong or a keepalive");
        self.queue.push_fact(Entry { slot: self.slot, at, arrived: net::now().into_std(), item }).await
    }

    async fn ended(&mut self, code: Option<u16>, reason: &str, fault: Option<NetFault>, detail: &str) -> Result<(), Gone> {
        self.settle_evidence().await?;
        self.tell_overflow().await?;
        let farewell = self.farewell.take();
        let by_us = farewell.is_some();
        let by = match fault {
            _ if by_us => "us",
            Some(_) => "network",
            None => "peer",
        };
        let (own_code, own_reason) = farewell.map_or((None, String::new()), |(code, reason)| (Some(code), reason));
        let closed = Closed {
            code: own_code.or(code),
            reason: self.words.clean(if by_us { &own_reason } else { reason }),
            by: by.to_owned(),
            fault: fault.map(|fault| fault.name().to_owned()),
            detail: self.words.clean(if by_us { reason } else { detail }),
        };
        self.fact(Item::Closed(Box::new(closed))).await?;
        (self.live, self.stamps) = (None, None);
        let reason = self.words.clean(if reason.is_empty() { detail } else { reason });
        self.tell(Input::Closed(End { code, reason: &reason, fault, by_us }));
        Ok(())
    }

    /// A step of the wall clock is a note; a sleep ends the connection, because its stamps are no longer true.
    fn clocks_wait(&self) -> Duration {
        let steady_for = if self.overflow.is_some() { Duration::ZERO } else { self.clock.steady_for() };
        CLOCKS_EVERY.max(steady_for)
    }

    async fn compare_clocks(&mut self) -> Result<(), Gone> {
        let Some(stamps) = &self.stamps else { return Ok(()) };
        let (slept, step) = (stamps.suspended(&*self.clock), stamps.step(&*self.clock));
        if let Some(step_us) = step {
            self.fact(Item::ClockStep { step_us }).await?;
        }
        let Some(slept) = slept else { return Ok(()) };
        let detail = format!("the machine slept for {}", humantime::format_duration(Duration::from_secs(slept.as_secs())));
        self.say(Loudness::Warn, &format!("{detail}; opening the connection anew"));
        self.settle_evidence().await?;
        self.fact(Item::Slept { detail: detail.clone() }).await?;
        self.close(1001, detail).await;
        Ok(())
    }

    // The queue.

    /// The present moment on the connection, never before the last one given.
    fn stamp(&mut self) -> UnixMicros {
        let now = self.stamps.as_ref().map_or_else(|| self.clock.wall(), ConnectionClock::received_at);
        // Frames of an open connection keep its own clock; only facts between connections are held back.
        self.last_at = if self.stamps.is_some() { now } else { now.max(self.last_at) };
        self.last_at
    }

    /// Facts are never dropped: when even their room is used up, this waits.
    async fn fact(&mut self, item: Item) -> Result<(), Gone> {
        let at = self.stamp();
        self.queue.push_fact(Entry { slot: self.slot, at, arrived: net::now().into_std(), item }).await
    }

    /// Queues an envelope; waits a while when the queue is full, then drops until half of it is free again.
    async fn queue_envelope(&mut self, entry: Entry) -> Result<(), Gone> {
        if self.overflow.is_some() {
            if !self.queue.is_half_empty() {
                self.drop_envelope(&entry);
                return Ok(());
            }
            self.tell_overflow().await?;
        }
        let at = entry.at;
        match self.queue.offer(entry) {
            Offer::Taken => {}
            Offer::Gone => return Err(Gone),
            Offer::Full(entry) => {
                let lost = Overflow { since: at, envelopes: 1, bytes: entry.item.envelope_bytes() };
                if !self.wait_for_room(entry).await? {
                    self.overflow = Some(lost);
                    self.clocks_due = self.clocks_due.min(net::now() + CLOCKS_EVERY);
                    self.say(
                        Loudness::Error,
                        "the disk is too slow: envelopes are being dropped and counted; this will be a gap",
                    );
                    return Ok(());
                }
            }
        }
        (self.kept_evidence, self.loose_evidence) = (Some(at), None);
        Ok(())
    }

    /// Not reading meanwhile: the peer feels it as a slow receiver.
    async fn wait_for_room(&mut self, entry: Entry) -> Result<bool, Gone> {
        let deadline = net::now() + self.overload_wait;
        let mut leaving = self.leaving.clone();
        let cut_short = async {
            // An error means that nobody is there to tell: then only the deadline counts.
            if leaving.wait_for(|leave| *leave).await.is_err() {
                std::future::pending::<()>().await;
            }
            sleep_until(net::now() + LEAVING_WAIT).await;
        };
        tokio::select! {
            biased;
            pushed = self.queue.push(entry) => pushed.map(|()| true),
            () = sleep_until(deadline) => Ok(false),
            () = cut_short => Ok(false),
        }
    }

    fn drop_envelope(&mut self, entry: &Entry) {
        if let Some(overflow) = &mut self.overflow {
            overflow.envelopes += 1;
            overflow.bytes += entry.item.envelope_bytes();
        }
    }

    async fn tell_overflow(&mut self) -> Result<(), Gone> {
        let Some(Overflow { since, envelopes, bytes }) = self.overflow.take() else { return Ok(()) };
        self.say(Loudness::Warn, &format!("the disk has caught up; {envelopes} envelopes ({bytes} bytes) were dropped"));
        self.fact(Item::Overflow { since, envelopes, bytes }).await
    }
}

impl Drop for Shell {
    /// Whoever is cut off still owes the count of what was dropped.
    fn drop(&mut self) {
        if let Some(Overflow { since, envelopes, bytes }) = self.overflow.take() {
            let at = self.stamp();
            let item = Item::Overflow { since, envelopes, bytes };
            self.queue.force(Entry { slot: self.slot, at, arrived: net::now().into_std(), item });
        }
    }
}

/// What was hidden, for the record it was hidden in.
pub(super) fn told(hidden: Hidden) -> serde_json::Value {
    json!({ "places": hidden.places, "bytes": hidden.bytes })
}

/// Makes words fit for the tape: no secret of the source, not long.
pub(super) struct Words {
    in_words: Secrets,
    pub(super) in_bytes: Secrets,
}

impl Words {
    pub(super) fn of(source: &Source) -> Self {
        let secrets = || source.settings.credentials.secrets().chain(source.webhook.as_ref().map(Webhook::secret));
        Self { in_words: Secrets::of(Secrets::IN_WORDS, secrets()), in_bytes: Secrets::of(Secrets::IN_BYTES, secrets()) }
    }

    fn clean(&self, text: &str) -> String {
        let mut text = self.in_words.hide(text);
        if text.len() > WORDS_BYTES_MAX {
            let end = (0..=WORDS_BYTES_MAX - '…'.len_utf8()).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
            text.truncate(end);
            text.push('…');
        }
        text
    }
}
