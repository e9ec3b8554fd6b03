//! Who is there: the fake peers, their connections, and what a request gets for an answer.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::clock::Timeline;
use super::connection::{self, Peer};
use super::control;
use super::faults::{Handshake, Opening, Plan, Watch};
use super::feed::{Origin, Remarks};
use super::memory::Memory;
use super::player::{Newcomer, Tally, lock};
use super::queue::{Item, Queue};
use super::{ProviderStats, Speed, Stats, Urls};
use crate::model::{Provider, Response, UnixMicros};
use crate::net::{Handler, HandshakeFlaw, Reply, ServerRequest};
use crate::provider::{
    Answer, Asked, PeerAction, PeerId, Rest, Server, decode, is_live_path, live_path, provider_of_path, tamper,
};

/// One provider's stand.
pub(super) struct Booth {
    pub(super) provider: Provider,
    pub(super) server: Mutex<Server>,
    pub(super) rest: Mutex<Rest>,
    /// From the first request on.
    pub(super) memory: Mutex<Option<Memory>>,
    pub(super) newcomers: mpsc::Sender<Newcomer>,
    pub(super) tally: Arc<Tally>,
    /// Whether there is anything to play.
    pub(super) has_feed: bool,
    pub(super) peers: Mutex<BTreeMap<PeerId, Arc<Queue>>>,
    pub(super) clients_ever: AtomicU64,
    pub(super) requests: AtomicU64,
    /// Rules and monitors that deliver no more, because a client switched them off.
    pub(super) muted: Mutex<HashSet<String>>,
    pub(super) has_muted: AtomicBool,
}

impl Booth {
    /// Does what the fake peer wants done to connections.
    pub(super) fn act(&self, actions: Vec<PeerAction>) {
        for action in actions {
            let (peer, item) = match action {
                PeerAction::Send(peer, message) => (peer, Item::Message(message)),
                PeerAction::Close { peer, code, reason } => (peer, Item::Close { code, reason }),
            };
            if let Some(queue) = lock(&self.peers).get(&peer) {
                queue.add(item);
            }
        }
    }

    /// What an attempt to connect is answered because it happened so; of several answers the last one stays until the
    /// recorded connection was open again.
    fn refusal(&self, asked: &ServerRequest) -> Option<Reply> {
        if asked.path != live_path(self.provider) {
            return None;
        }
        let mut refusals = lock(&self.tally.refusals);
        let is_last = refusals.len() == 1;
        let response = if is_last { refusals.front().cloned() } else { refusals.pop_front() };
        if is_last && self.tally.refuse_once.load(Relaxed) {
            refusals.clear();
        }
        response.map(Reply::Http)
    }

    /// Whether an envelope is of rules or monitors only that a client has switched off.
    pub(super) fn mutes(&self, envelope: &[u8]) -> bool {
        if !self.has_muted.load(Relaxed) {
            return false;
        }
        let muted = lock(&self.muted);
        let events = decode(self.provider, envelope).events;
        !events.is_empty() && events.iter().all(|event| muted.contains(&event.selector))
    }

    /// Gives an envelope to everybody who is there; how many got it.
    pub(super) fn inject(&self, envelope: &bytes::Bytes) -> usize {
        let peers: Vec<_> = lock(&self.peers).iter().map(|(peer, queue)| (*peer, Arc::clone(queue))).collect();
        let mut server = lock(&self.server);
        let mut n = 0;
        for (_, queue) in peers.iter().filter(|(peer, _)| server.wants(*peer, envelope)) {
            queue.add(Item::Message(envelope.clone()));
            n += 1;
        }
        self.tally.injected.fetch_add(1, Relaxed);
        n
    }

    /// Whether everything was played and has reached who is there.
    fn is_done(&self) -> bool {
        !self.has_feed || (self.tally.finished.load(Relaxed) && lock(&self.peers).values().all(|queue| queue.is_empty()))
    }

    fn had_clients(&self) -> bool {
        self.clients_ever.load(Relaxed) > 0
    }
}

/// All that the connections share.
pub(super) struct House {
    pub(super) booths: [Booth; 4],
    pub(super) origin: Arc<Origin>,
    pub(super) timeline: Timeline,
    pub(super) index_delay: Duration,
    pub(super) remarks: Arc<Remarks>,
    pub(super) urls: Urls,
    pub(super) leaving: watch::Receiver<bool>,
    /// Counts what may have made the replay done.
    pub(super) changed: watch::Sender<u64>,
    pub(super) queue_bytes: usize,
    /// Instead of the provider's own.
    pub(super) keepalive: Option<Duration>,
    pub(super) last_peer: AtomicU64,
    pub(super) stop: watch::Sender<bool>,
    /// Somebody was told that the clock does not run yet.
    pub(super) early: Once,
    /// What is to go wrong on purpose.
    pub(super) faults: Option<Arc<Plan>>,
}

impl House {
    pub(super) fn booth(&self, provider: Provider) -> &Booth {
        &self.booths[provider as usize]
    }

    pub(super) fn stats(&self) -> Stats {
        let of = |booth: &Booth| {
            let done = booth.is_done();
            ProviderStats {
                provider: booth.provider,
                played: booth.tally.played.load(Relaxed),
                sent: booth.tally.sent.load(Relaxed),
                skipped: self.remarks.skipped(booth.provider),
                clients: lock(&booth.peers).len(),
                clients_ever: booth.clients_ever.load(Relaxed),
                too_slow: booth.tally.too_slow.load(Relaxed),
                requests: booth.requests.load(Relaxed),
                injected: booth.tally.injected.load(Relaxed),
                done,
            }
        };
        let faults = self.faults.as_ref().map(|plan| plan.report()).unwrap_or_default();
        Stats { providers: self.booths.each_ref().map(of), damage: self.remarks.damage(), faults }
    }

    /// The virtual instant as one provider sees it. At full speed every provider plays for itself and stands at what it
    /// played last; one that nobody came for stands where the others are.
    pub(super) fn instant(&self, provider: Provider) -> UnixMicros {
        let booth = self.booth(provider);
        let (now, is_max) = self.timeline.with(|clock, now| (clock.moment(now), clock.speed() == Speed::Max));
        match (is_max, self.origin.last_at()) {
            // What was played last need not be the last that is known.
            (true, Some(last_at)) if booth.had_clients() && booth.tally.finished.load(Relaxed) => {
                now.max(last_at.plus(self.index_delay))
            }
            (true, _) if booth.had_clients() => UnixMicros(booth.tally.played_to.load(Relaxed)).max(self.origin.first_at()),
            _ => now,
        }
    }

    pub(super) fn change(&self) {
        self.changed.send_modify(|n| *n += 1);
    }

    /// Waits until every provider that somebody came for is done, and then for the clients to leave by themselves.
    pub(super) async fn all_done(&self, linger: Duration) {
        let mut changed = self.changed.subscribe();
        let mut until = None;
        loop {
            changed.mark_unchanged();
            until = if self.is_done() { until.or_else(|| Some(Instant::now() + linger)) } else { None };
            if until.is_some() && self.is_deserted() {
                return;
            }
            tokio::select! {
                () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => return,
                // The sender is ours, so this waits.
                _ = changed.changed() => {}
            }
        }
    }

    fn is_done(&self) -> bool {
        self.booths.iter().any(Booth::had_clients) && self.booths.iter().all(|booth| !booth.had_clients() || booth.is_done())
    }

    /// Whether nobody is there, and nobody can be expected for what was not played to anybody.
    fn is_deserted(&self) -> bool {
        self.booths.iter().all(|booth| lock(&booth.peers).is_empty() && (booth.had_clients() || !booth.has_feed))
    }

    async fn answer(self: Arc<Self>, asked: ServerRequest) -> Reply {
        if let Some(rest) = asked.path.strip_prefix(control::PREFIX).filter(|rest| rest.is_empty() || rest.starts_with('/')) {
            return Reply::Http(control::answer(&self, rest, &asked).await);
        }
        let Some(provider) = provider_of_path(&asked.path) else { return Reply::Http(self.elsewhere(&asked.path)) };
        let (wait, reply) = match (is_live_path(&asked.path), self.faults.clone()) {
            (true, None) => return self.live(provider, &asked, None),
            (true, Some(plan)) => self.live_with_faults(&plan, provider, &asked),
            (false, plan) => Arc::clone(&self).rest(plan, provider, asked).await,
        };
        if wait == Some(Duration::ZERO) {
            return reply;
        }
        let mut leaving = self.leaving.clone();
        let wait = async {
            match wait {
                Some(wait) => sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = wait => reply,
            // A sender that is gone has left, too.
            _ = leaving.wait_for(|leaving| *leaving) => Reply::Nothing,
        }
    }

    /// History and management, as of the virtual instant, and how long to wait with the answer.
    async fn rest(
        self: Arc<Self>,
        plan: Option<Arc<Plan>>,
        provider: Provider,
        asked: ServerRequest,
    ) -> (Option<Duration>, Reply) {
        let now = Instant::now().into_std();
        self.booth(provider).requests.fetch_add(1, Relaxed);
        // It may have to read the tape.
        let answering = tokio::task::spawn_blocking(move || match plan {
            None => (Duration::ZERO, Reply::Http(self.remember(provider, &asked, now))),
            Some(plan) => {
                let at = self.instant_of_faults(&plan, provider);
                plan.around(provider, &asked.path, &asked.query, at, || self.remember(provider, &asked, now))
            }
        });
        match answering.await {
            Ok((wait, reply)) => (Some(wait), reply),
            Err(error) => {
                tracing::error!(%error, "a request was not answered");
                let words = r#"{"error":"the replay failed to answer; its log says more"}"#;
                (Some(Duration::ZERO), Reply::Http(Response::json(500, words)))
            }
        }
    }

    fn remember(&self, provider: Provider, asked: &ServerRequest, now: std::time::Instant) -> Response {
        let instant = self.instant(provider);
        let booth = self.booth(provider);
        if !self.timeline.with(|clock, _| clock.is_started()) && self.origin.last_at().is_none_or(|last_at| instant < last_at) {
            self.early.call_once(|| {
                tracing::warn!(
                    "history was asked before the first client came: the clock stands at {instant}, and nothing later \
                     exists yet; --start now lets it run, --from end makes everything known"
                );
            });
        }
        let mut memory = lock(&booth.memory);
        let memory = match &mut *memory {
            Some(memory) => memory,
            empty => match Memory::new(&self.origin, provider) {
                Ok(memory) => empty.insert(memory),
                Err(error) => {
                    tracing::error!(%error, "history has nothing to remember");
                    return Response::json(500, r#"{"error":"the tape cannot be read"}"#);
                }
            },
        };
        let mut past = memory.at(instant.minus(self.index_delay));
        let mut rest = lock(&booth.rest);
        if let Rest::Tweetstream(rest) = &mut *rest {
            rest.set_connections(u32::try_from(lock(&booth.peers).len()).unwrap_or(u32::MAX));
        }
        let mut response = rest.asked(&whole(asked), &mut past, now);
        if asked.method != "GET" {
            let muted: HashSet<String> = rest.paused().into_iter().collect();
            booth.has_muted.store(!muted.is_empty(), Relaxed);
            *lock(&booth.muted) = muted;
        }
        response.headers.push((NOW_HEADER.to_owned(), instant.to_string()));
        response
    }

    /// The instant that faults of attempts and requests go by: at full speed, where the player is far ahead of what
    /// clients have taken, what their connections have reached.
    fn instant_of_faults(&self, plan: &Plan, provider: Provider) -> UnixMicros {
        match self.timeline.with(|clock, _| clock.speed()) {
            Speed::Max => plan.reached(provider),
            Speed::Times(_) => self.instant(provider),
        }
    }

    /// What becomes of a request for the live side under a fault script, and how long to wait with it.
    fn live_with_faults(
        self: &Arc<Self>,
        plan: &Arc<Plan>,
        provider: Provider,
        asked: &ServerRequest,
    ) -> (Option<Duration>, Reply) {
        let now = Some(Duration::ZERO);
        // X's changes of topics go to another path than its openings.
        if asked.path.trim_start_matches("/1.1") != live_path(provider) {
            let reply = self.live(provider, asked, None);
            if matches!(&reply, Reply::Http(response) if response.status == 200) {
                plan.refreshed();
            }
            return (now, reply);
        }
        let (attempt, opening) = plan.attempt(provider, self.instant_of_faults(plan, provider));
        let reply = match opening {
            None => self.live(provider, asked, plan.watch(provider, attempt)),
            Some(Opening::Refuse { status, retry_after, body }) => {
                Reply::Http(tamper::refusal(provider, status, retry_after, body.as_deref()))
            }
            Some(Opening::BadHandshake(Handshake::Accept)) => Reply::Flawed(HandshakeFlaw::Accept),
            Some(Opening::BadHandshake(Handshake::Subprotocol)) => Reply::Flawed(HandshakeFlaw::Subprotocol),
            Some(Opening::BadHandshake(Handshake::Http10)) => Reply::Flawed(HandshakeFlaw::Http10),
            Some(Opening::BadHandshake(Handshake::Page)) => Reply::Flawed(HandshakeFlaw::Page),
            Some(Opening::BadHandshake(Handshake::Garbage)) => Reply::Flawed(HandshakeFlaw::Garbage),
            Some(Opening::Hang { lasts }) => return (lasts, Reply::Nothing),
            Some(Opening::Drop) => Reply::Nothing,
        };
        (now, reply)
    }

    fn live(self: &Arc<Self>, provider: Provider, asked: &ServerRequest, watch: Option<Watch>) -> Reply {
        let booth = self.booth(provider);
        let id = self.last_peer.fetch_add(1, Relaxed) + 1;
        if let Some(refusal) = booth.refusal(asked) {
            return refusal;
        }
        let (answer, actions) = {
            let mut server = lock(&booth.server);
            let answer = server.asked(id, &whole(asked), Instant::now().into_std());
            let actions = match &mut *server {
                Server::TwitterapiIo(server) => server.take_actions(),
                Server::Tweetstream(_) | Server::Scrapebadger(_) | Server::XLive(_) => Vec::new(),
            };
            (answer, actions)
        };
        booth.act(actions);
        match answer {
            Answer::Http(response) => Reply::Http(response),
            Answer::WebSocket { subprotocol } => {
                let peer = self.admit(provider, id, watch);
                Reply::WebSocket { subprotocol, run: Box::new(move |socket| connection::socket(peer, socket).boxed()) }
            }
            Answer::WebSocketThenClose { messages, code, reason } => Reply::WebSocket {
                subprotocol: None,
                run: Box::new(move |socket| connection::turn_away(socket, messages, code, reason).boxed()),
            },
            Answer::Stream { framing, headers } => {
                let peer = self.admit(provider, id, watch);
                Reply::Stream { headers, run: Box::new(move |stream| connection::stream(peer, stream, framing).boxed()) }
            }
        }
    }

    fn admit(self: &Arc<Self>, provider: Provider, id: PeerId, watch: Option<Watch>) -> Peer {
        let queue = Arc::new(Queue::new(self.queue_bytes));
        lock(&self.booth(provider).peers).insert(id, Arc::clone(&queue));
        Peer { house: Arc::clone(self), provider, id, queue, watch }
    }

    /// Asks the player for everything from now on; gives the first envelope if none was played yet.
    pub(super) async fn subscribe(&self, peer: &Peer) -> Option<bytes::Bytes> {
        let booth = self.booth(peer.provider);
        booth.clients_ever.fetch_add(1, Relaxed);
        self.change();
        let (first, answer) = oneshot::channel();
        let newcomer = Newcomer { queue: Arc::clone(&peer.queue), first };
        // A player that has ended has nothing to play.
        booth.newcomers.send(newcomer).await.ok()?;
        answer.await.ok().flatten()
    }

    /// What belongs to nobody.
    fn elsewhere(&self, path: &str) -> Response {
        if path == "/" {
            let headers = vec![("content-type".to_owned(), "text/plain; charset=utf-8".to_owned())];
            return Response { status: 200, headers, body: self.urls.words().into() };
        }
        let live: Vec<_> = Provider::ALL.iter().map(|provider| format!(r#""{provider}":"{}""#, live_path(*provider))).collect();
        Response::json(404, format!(r#"{{"error":"nothing is served here","live":{{{}}}}}"#, live.join(",")))
    }
}

/// The header that tells the virtual instant a request was answered from; no provider sends it.
const NOW_HEADER: &str = "x-birdtape-now";

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

impl Handler for House {
    fn handle(self: Arc<Self>, asked: ServerRequest) -> BoxFuture<'static, Reply> {
        self.answer(asked).boxed()
    }
}
