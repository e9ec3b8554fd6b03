//! The provider of a world: the real fake peers on pipes in memory, with chance between them and the client.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use birdtape::model::{Endpoint, NetFault, Provider, Response, UnixMicros};
use birdtape::net::{
    self, BootReading, Clock, Connecting, Handler, Incoming, Network, Reply, ServerOptions, ServerRequest, ServerSocket,
};
use birdtape::provider::past::{Index, Past};
use birdtape::provider::{self, Answer, Asked, PeerId, Rest, RestSettings, Server, ServerSettings, tamper};
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, interval_at, sleep, sleep_until, timeout};

use super::dice::Dice;
use super::table::Table;
use super::world::{BEGIN, Happening, INDEX, Lies, Trouble, World};

/// Times that one question is answered with an empty page that claims more.
const EMPTIED_MAX: u32 = 2;

/// How long the peer waits for the answer to its farewell.
const FAREWELL: Duration = Duration::from_secs(2);

/// A clock that is to move is looked at as always from so long before until so long after.
const MOVES_WITHIN: Duration = Duration::from_secs(3);

/// The recorder's clock: it follows virtual time, a little beside the provider's.
pub(super) struct SimClock {
    start: Instant,
    /// Milliseconds ahead.
    skew: AtomicI64,
    /// Milliseconds that the machine slept: waits and the monotonic clock stood still, the world did not.
    slept_ms: AtomicU64,
    /// When it is put or sleeps, in order.
    moves: Vec<Duration>,
}

impl SimClock {
    fn slept(&self) -> Duration {
        Duration::from_millis(self.slept_ms.load(Relaxed))
    }

    /// Time of the world since its beginning.
    pub(super) fn elapsed(&self) -> Duration {
        self.start.elapsed() + self.slept()
    }

    pub(super) fn step_to(&self, skew: i64) {
        self.skew.store(skew, Relaxed);
    }
}

impl Clock for SimClock {
    fn wall(&self) -> UnixMicros {
        UnixMicros(BEGIN.plus(self.elapsed()).0 + self.skew.load(Relaxed) * 1_000)
    }

    fn boot(&self) -> BootReading {
        BootReading { boot_id: "simulated".to_owned(), since_boot: self.elapsed() }
    }

    fn steady_for(&self) -> Duration {
        let now = self.elapsed();
        let next = self.moves.iter().find(|at| **at + MOVES_WITHIN > now);
        next.map_or(Duration::from_secs(3_600), |at| at.saturating_sub(now + MOVES_WITHIN))
    }
}

enum Item {
    Message(Bytes),
    Close(u16),
    Reset,
    Stall,
}

/// Everything about the provider, shared by its connections.
pub(super) struct Stage {
    provider: Provider,
    beats: u32,
    start: Instant,
    pub(super) clock: Arc<SimClock>,
    state: Mutex<State>,
}

struct State {
    server: Server,
    rest: Rest,
    index: Index,
    shelf: Vec<Bytes>,
    peers: BTreeMap<PeerId, mpsc::UnboundedSender<Item>>,
    last_peer: PeerId,
    sent: HashMap<Bytes, u64>,
    answered: HashSet<Bytes>,
    refused: Option<(Instant, u16, Option<Duration>)>,
    away_until: Option<Instant>,
    dice: Dice,
    lies: Lies,
    /// Rows that TweetStream gives at once, if it is not the documented number.
    cap: Option<usize>,
    /// Rows that were left out of an answer once: each is only once, or no second look could help.
    left_out: HashSet<String>,
    /// How often which question was answered with an empty page: who says so each time cannot be told from the truth.
    emptied: HashMap<String, u32>,
    page_before: Option<Value>,
    table: Table,
    /// When connections that stood for a while were opened.
    live: Vec<Duration>,
}

impl State {
    fn note_live(&mut self, opened_at: Duration) {
        if self.live.last() != Some(&opened_at) {
            self.live.push(opened_at);
        }
    }
}

impl Stage {
    pub(super) fn new(world: &World) -> Arc<Self> {
        let start = Instant::now();
        let settings = RestSettings { rate_limits: world.lies.refused > 0, ..RestSettings::default() };
        let state = State {
            server: Server::new(world.provider, ServerSettings::default()),
            rest: Rest::new(world.provider, settings),
            index: Index::default(),
            shelf: Vec::new(),
            peers: BTreeMap::new(),
            last_peer: 0,
            sent: HashMap::new(),
            answered: HashSet::new(),
            refused: None,
            away_until: None,
            dice: Dice::new(world.seed, 2),
            lies: world.lies,
            cap: world.cap,
            left_out: HashSet::new(),
            emptied: HashMap::new(),
            page_before: None,
            table: Table::default(),
            live: Vec::new(),
        };
        let skew = AtomicI64::new(world.skews.first().map_or(0, |(_, skew)| *skew));
        let sleeps = world.happenings.iter().filter(|(_, happening)| matches!(happening, Happening::Sleep { .. }));
        let mut moves: Vec<_> = world.skews.iter().map(|(at, _)| *at).chain(sleeps.map(|(at, _)| *at)).collect();
        moves.sort_unstable();
        let clock = Arc::new(SimClock { start, skew, slept_ms: AtomicU64::new(0), moves });
        Arc::new(Self { provider: world.provider, beats: world.beats, start, clock, state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// From now on history tells the truth.
    pub(super) fn be_honest(&self) {
        self.state().lies = Lies::default();
    }

    pub(super) fn table(&self) -> Table {
        self.state().table.clone()
    }

    pub(super) fn note(&self, name: &'static str) {
        self.state().table.note(name);
    }

    /// How often a frame was sent.
    pub(super) fn sent(&self, frame: &[u8]) -> u64 {
        self.state().sent.get(frame).copied().unwrap_or(0)
    }

    pub(super) fn has_answered(&self, body: &[u8]) -> bool {
        self.state().answered.contains(body)
    }

    /// Whether an answer once went without it.
    pub(super) fn has_left_out(&self, mark: &str) -> bool {
        self.state().left_out.contains(mark)
    }

    /// The first moment a connection stood for a while, but for such times.
    pub(super) fn first_live(&self, unless: &[Range<Duration>]) -> Option<Duration> {
        self.state().live.iter().copied().find(|at| !unless.iter().any(|time| time.contains(at)))
    }

    fn wall(&self) -> UnixMicros {
        BEGIN.plus(self.clock.elapsed())
    }

    /// Lets the world happen.
    pub(super) async fn play(self: Arc<Self>, happenings: Vec<(Duration, Happening)>, skews: Vec<(Duration, i64)>) {
        let skewing = async {
            for (at, skew) in skews {
                self.wait_until(at).await;
                self.clock.step_to(skew);
            }
        };
        let playing = async {
            for (at, happening) in happenings {
                self.wait_until(at).await;
                self.happen(at, happening);
            }
        };
        tokio::join!(skewing, playing);
    }

    /// Waits for a time of the world; what falls into a sleep is over when the machine wakes.
    async fn wait_until(&self, at: Duration) {
        while self.clock.elapsed() < at {
            sleep_until(self.start + (at - self.clock.slept())).await;
        }
    }

    fn happen(self: &Arc<Self>, at: Duration, happening: Happening) {
        let mut state = self.state();
        match happening {
            Happening::Known(envelope) => {
                let place = state.shelf.len() as u64;
                let decoded = provider::decode(self.provider, &envelope);
                state.index.note(BEGIN.plus(at), &decoded, place);
                state.shelf.push(envelope);
            }
            Happening::Due { envelope, again, swallowed } => {
                if swallowed {
                    let name = if state.peers.is_empty() { "swallowed, nobody was there" } else { "swallowed" };
                    return state.table.note(name);
                }
                state.deliver(&envelope);
                if let Some(wait) = again {
                    let stage = Arc::clone(self);
                    tokio::spawn(async move {
                        sleep(wait).await;
                        let mut state = stage.state();
                        if state.deliver(&envelope) {
                            state.table.note("line: duplicate");
                        }
                    });
                }
            }
            Happening::Line(trouble) => state.suffer(trouble),
            Happening::Sleep { lasts, is_cut } => {
                let is_awaited = !state.peers.is_empty();
                state.table.note(match (is_awaited, is_cut) {
                    (false, _) => "machine: slept, not connected",
                    (true, false) => "machine: slept, the line held",
                    (true, true) => "machine: slept, and was cut off",
                });
                if is_cut {
                    state.peers.clear();
                }
                self.clock.slept_ms.fetch_add(lasts.as_millis() as u64, Relaxed);
            }
            Happening::Edit { method, path, body } => {
                let body = body.to_string();
                let asked = ServerRequest {
                    method: method.to_owned(),
                    path,
                    query: String::new(),
                    headers: vec![("x-api-key".to_owned(), "k".to_owned()), ("authorization".to_owned(), "Bearer k".to_owned())],
                    body: body.into(),
                    wants_upgrade: false,
                    peer: PEER,
                };
                let response = state.ask(self.provider, &asked, BEGIN.plus(at));
                state.table.note(if response.status < 300 { "edit" } else { "edit of what is not there yet" });
            }
        }
    }

    async fn answer(self: Arc<Self>, asked: ServerRequest) -> Reply {
        if provider::is_live_path(&asked.path) {
            return self.open(&asked);
        }
        let (wait, reply) = self.state().history(self.provider, &asked, self.wall());
        sleep(wait).await;
        reply
    }

    fn open(self: &Arc<Self>, asked: &ServerRequest) -> Reply {
        let mut state = self.state();
        if let Some((until, status, retry_after)) = state.refused
            && Instant::now() < until
        {
            state.table.note("line: refused");
            return Reply::Http(tamper::refusal(self.provider, status, retry_after, None));
        }
        state.last_peer += 1;
        let peer = state.last_peer;
        let (answer, now) = (whole(asked), Instant::now().into_std());
        match state.server.asked(peer, &answer, now) {
            Answer::Http(response) => Reply::Http(response),
            Answer::WebSocket { subprotocol } => {
                let (items, inbox) = mpsc::unbounded_channel();
                state.peers.insert(peer, items);
                state.table.note("connections");
                let stage = Arc::clone(self);
                Reply::WebSocket { subprotocol, run: Box::new(move |socket| stage.talk(peer, socket, inbox).boxed()) }
            }
            Answer::WebSocketThenClose { .. } | Answer::Stream { .. } => Reply::Nothing,
        }
    }

    async fn talk(self: Arc<Self>, peer: PeerId, mut socket: ServerSocket, mut inbox: mpsc::UnboundedReceiver<Item>) {
        let _place = Place { stage: Arc::clone(&self), peer };
        let (greeting, every) = match self.provider {
            Provider::TwitterapiIo => (Some(json!({ "event_type": "connected", "timestamp": self.wall().millis() })), Some(40)),
            Provider::Scrapebadger => (Some(json!({ "type": "connected", "connection_id": peer.to_string() })), Some(30)),
            _ => (None, None),
        };
        if let Some(greeting) = greeting
            && self.say(&mut socket, Bytes::from(greeting.to_string())).await.is_err()
        {
            return;
        }
        let (opened, opened_at) = (Instant::now(), self.clock.elapsed());
        // A client that was told something twice in its usual time waits for it.
        let every = every.filter(|_| self.beats == 1);
        let mut beat = interval_at(opened + Duration::from_secs(every.unwrap_or(30)), Duration::from_secs(every.unwrap_or(30)));
        let keepalive = self.state().server.keepalive() * self.beats;
        let mut alive = interval_at(opened + keepalive, keepalive);
        loop {
            tokio::select! {
                biased;
                item = inbox.recv() => match item {
                    Some(Item::Message(envelope)) => if self.say(&mut socket, envelope).await.is_err() { return },
                    Some(Item::Close(code)) => return farewell(&mut socket, code).await,
                    Some(Item::Reset) | None => return socket.abort(),
                    Some(Item::Stall) => return socket.ignore().await,
                },
                incoming = socket.next() => match incoming {
                    Incoming::Message(message) => drop(self.state().server.heard(peer, &message, Instant::now().into_std())),
                    Incoming::Alive => {}
                    Incoming::Closed { .. } | Incoming::Broken { .. } => return,
                },
                _ = beat.tick(), if every.is_some() => {
                    let at = self.wall();
                    let ping = match self.provider {
                        Provider::TwitterapiIo => json!({ "event_type": "ping", "timestamp": at.millis() }),
                        _ => json!({ "type": "ping", "timestamp": at.to_string() }),
                    };
                    if self.say(&mut socket, Bytes::from(ping.to_string())).await.is_err() {
                        return;
                    }
                }
                _ = alive.tick() => {
                    self.state().note_live(opened_at);
                    if socket.ping().await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    async fn say(&self, socket: &mut ServerSocket, envelope: Bytes) -> Result<(), net::Gone> {
        *self.state().sent.entry(envelope.clone()).or_default() += 1;
        socket.feed(envelope).await?;
        socket.flush().await
    }
}

async fn farewell(socket: &mut ServerSocket, code: u16) {
    let close = async {
        if socket.close(code, "as the world wants it").await.is_ok() {
            while !matches!(socket.next().await, Incoming::Closed { .. } | Incoming::Broken { .. }) {}
        }
    };
    // A client that does not answer is left without one.
    drop(timeout(FAREWELL, close).await);
}

/// A connection's place at the peer; it is free again when this is dropped.
struct Place {
    stage: Arc<Stage>,
    peer: PeerId,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.stage.state();
        state.server.gone(self.peer);
        state.peers.remove(&self.peer);
    }
}

impl State {
    /// Whether anybody was there.
    fn deliver(&mut self, envelope: &Bytes) -> bool {
        let Self { peers, server, .. } = self;
        let mut n = 0;
        for (peer, items) in peers.iter() {
            if server.wants(*peer, envelope) && items.send(Item::Message(envelope.clone())).is_ok() {
                n += 1;
            }
        }
        self.table.note(if n > 0 { "delivered" } else { "nobody was there" });
        n > 0
    }

    fn suffer(&mut self, trouble: Trouble) {
        let now = Instant::now();
        let name = match trouble {
            Trouble::Close(_) => "line: close",
            Trouble::Reset => "line: reset",
            Trouble::Stall => "line: stall",
            Trouble::Refuse { status, retry_after, lasts } => {
                self.refused = Some((now + lasts, status, retry_after));
                return;
            }
            Trouble::Unreachable { lasts } => {
                self.away_until = Some(now + lasts);
                return;
            }
        };
        self.table.note(if self.peers.is_empty() { "line: trouble, nobody was there" } else { name });
        for items in self.peers.values() {
            let item = match trouble {
                Trouble::Close(code) => Item::Close(code),
                Trouble::Stall => Item::Stall,
                _ => Item::Reset,
            };
            drop(items.send(item));
        }
    }

    /// What the fake says.
    fn ask(&mut self, provider: Provider, asked: &ServerRequest, now: UnixMicros) -> Response {
        let mut past = Past::new(provider, &mut self.index, &mut self.shelf, now);
        let mut response = self.rest.asked(&whole(asked), &mut past, Instant::now().into_std());
        if let Some(cap) = self.cap.filter(|_| asked.path.ends_with("/api/history"))
            && let Ok(mut page) = serde_json::from_slice::<Value>(&response.body)
            && let Some(rows) = page["data"].as_array_mut().filter(|rows| rows.len() > cap)
        {
            rows.truncate(cap);
            page["metadata"]["count"] = cap.into();
            response.body = page.to_string().into();
            self.table.note("history: full page");
        }
        if asked.path.ends_with("/get_rules")
            && let Ok(mut page) = serde_json::from_slice::<Value>(&response.body)
            && let Some(rules) = page["rules"].as_array_mut()
        {
            rules.retain(|rule| rule["rule_id"] != INDEX);
            response.body = page.to_string().into();
        }
        response
    }

    /// What the client gets for it.
    fn history(&mut self, provider: Provider, asked: &ServerRequest, now: UnixMicros) -> (Duration, Reply) {
        self.table.note("history: requests");
        let answered = self.lie_or_tell(provider, asked, now);
        if talks() {
            let body = match &answered.1 {
                Reply::Http(response) => format!("{} {}", response.status, String::from_utf8_lossy(&response.body)),
                _ => "cut".to_owned(),
            };
            let marks: Vec<_> =
                body.match_indices('q').filter_map(|(at, _)| body.get(at..at + 8)).filter(|mark| mark.ends_with('q')).collect();
            println!("{now} {} {} -> {:.1500} {marks:?}", asked.path, asked.query, body);
        }
        answered
    }

    fn lie_or_tell(&mut self, provider: Provider, asked: &ServerRequest, now: UnixMicros) -> (Duration, Reply) {
        let lies = self.lies;
        if self.dice.chance(lies.refused) {
            self.table.note("history: 429");
            let wait = self.dice.chance(600).then(|| self.dice.secs(1, 90));
            return (Duration::ZERO, self.kept(tamper::refusal(provider, 429, wait, None)));
        }
        if self.dice.chance(lies.failed) {
            self.table.note("history: 5xx");
            let status = *self.dice.pick(&[500, 502, 503, 504]);
            return (Duration::from_secs(1), self.kept(tamper::refusal(provider, status, None, None)));
        }
        let mut response = self.ask(provider, asked, now);
        if response.status != 200 {
            return (Duration::ZERO, self.kept(response));
        }
        if self.dice.chance(lies.cut) {
            self.table.note("history: cut");
            let n_bytes = self.dice.below(response.body.len() as u64) as usize;
            return (Duration::ZERO, Reply::Cut { response, n_bytes });
        }
        if let Ok(page) = serde_json::from_slice::<Value>(&response.body) {
            let mut told = page.clone();
            self.lie(provider, asked, &mut told);
            if told != page {
                response.body = told.to_string().into();
            }
            self.page_before = Some(page);
        }
        (self.dice.ms(5, 800), self.kept(response))
    }

    fn lie(&mut self, provider: Provider, asked: &ServerRequest, page: &mut Value) {
        // Lists of rules and accounts have one page, and no client could tell a wrong one.
        if !["search", "history", "/logs", "/tweets/"].iter().any(|part| asked.path.contains(part)) {
            return;
        }
        let lies = self.lies;
        if self.dice.chance(lies.repeated_page)
            && let Some(before) = &self.page_before
            && tamper::repeat_page(provider, page, before)
        {
            self.table.note("history: repeated page");
        }
        if self.dice.chance(lies.missing_row) {
            let roll = self.dice.roll();
            if let Some(row) = tamper::row(provider, page, None, roll) {
                let mut without = page.clone();
                tamper::missing_row(provider, &mut without, row);
                let gone: HashSet<String> = marks(&page.to_string()).difference(&marks(&without.to_string())).cloned().collect();
                if !gone.is_empty() && gone.is_disjoint(&self.left_out) {
                    self.left_out.extend(gone);
                    *page = without;
                    self.table.note("history: missing row");
                }
            }
        }
        if self.dice.chance(lies.double_row) {
            let roll = self.dice.roll();
            if tamper::row(provider, page, None, roll).is_some_and(|row| tamper::duplicate_row(provider, page, row)) {
                self.table.note("history: doubled row");
            }
        }
        let roll = self.dice.roll();
        if self.dice.chance(lies.shuffled) && tamper::shuffle(provider, page, roll) {
            self.table.note("history: shuffled");
        }
        if self.dice.chance(lies.cursor_loop)
            && let Some(cursor) = tamper::cursor_asked(provider, &asked.query)
            && tamper::cursor_loop(provider, page, &cursor)
        {
            self.table.note("history: cursor loop");
        }
        if self.dice.chance(lies.lying_next) {
            let times = self.emptied.entry(format!("{}?{}", asked.path, asked.query)).or_default();
            if *times < EMPTIED_MAX && tamper::lying_next(provider, page) {
                *times += 1;
                self.table.note("history: empty page that claims more");
            }
        }
    }

    fn kept(&mut self, response: Response) -> Reply {
        self.answered.insert(response.body.clone());
        Reply::Http(response)
    }
}

/// Whether whoever runs it wants to hear of each request and each recorder's end.
pub(super) fn talks() -> bool {
    std::env::var_os("SIMULATE_TALK").is_some()
}

/// The marks that stand in a text: a letter, six digits, the letter again.
pub(super) fn marks(text: &str) -> HashSet<String> {
    let bytes = text.as_bytes();
    let is_mark = |w: &[u8]| matches!(w[0], b'q' | b'm' | b'u' | b'd') && w[7] == w[0] && w[1..7].iter().all(u8::is_ascii_digit);
    bytes.windows(8).filter(|w| is_mark(w)).map(|w| String::from_utf8_lossy(w).into_owned()).collect()
}

const PEER: std::net::SocketAddr = std::net::SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9);

fn whole(asked: &ServerRequest) -> Asked<'_> {
    Asked {
        method: &asked.method,
        path: &asked.path,
        query: &asked.query,
        headers: &asked.headers,
        body: &asked.body,
        wants_upgrade: asked.wants_upgrade,
    }
}

impl Handler for Stage {
    fn handle(self: Arc<Self>, asked: ServerRequest) -> BoxFuture<'static, Reply> {
        self.answer(asked).boxed()
    }
}

/// The way to it.
pub(super) struct Wire(pub(super) Arc<Stage>);

impl Network for Wire {
    fn connect<'a>(&'a self, _: &'a Endpoint) -> Connecting<'a> {
        Box::pin(async move {
            let is_away = self.0.state().away_until.is_some_and(|until| Instant::now() < until);
            if is_away {
                self.0.note("line: unreachable");
                return Err((NetFault::Connect, "sim.test: nobody listens there".to_owned()));
            }
            let (near, far) = tokio::io::duplex(1 << 16);
            tokio::spawn(net::serve_pipe(Box::new(far), PEER, Arc::clone(&self.0), ServerOptions::default()));
            Ok(Box::new(near) as net::BoxedIo)
        })
    }
}
