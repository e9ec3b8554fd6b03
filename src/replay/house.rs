//! Who is there: the fake peers, their connections, and what a request gets for an answer.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::connection::{self, Peer};
use super::faults::{Handshake, Opening, Plan, Watch};
use super::feed::Remarks;
use super::player::{Newcomer, Tally, lock};
use super::queue::{Item, Queue};
use super::{ProviderStats, Stats, Urls};
use crate::model::{Provider, Response, UnixMicros};
use crate::net::{Handler, HandshakeFlaw, Reply, ServerRequest};
use crate::provider::{Answer, Asked, PeerAction, PeerId, Server, is_live_path, live_path, provider_of_path, tamper};

/// One provider's stand.
pub(super) struct Booth {
    pub(super) provider: Provider,
    pub(super) server: Mutex<Server>,
    pub(super) newcomers: mpsc::Sender<Newcomer>,
    pub(super) tally: Arc<Tally>,
    /// Whether there is anything to play.
    pub(super) has_feed: bool,
    pub(super) peers: Mutex<BTreeMap<PeerId, Arc<Queue>>>,
    pub(super) clients_ever: AtomicU64,
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
    pub(super) remarks: Arc<Remarks>,
    pub(super) urls: Urls,
    pub(super) leaving: watch::Receiver<bool>,
    /// Counts what may have made the replay done.
    pub(super) changed: watch::Sender<u64>,
    pub(super) queue_bytes: usize,
    /// Instead of the provider's own.
    pub(super) keepalive: Option<Duration>,
    pub(super) last_peer: AtomicU64,
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
                done,
            }
        };
        let faults = self.faults.as_ref().map(|plan| plan.report()).unwrap_or_default();
        Stats { providers: self.booths.each_ref().map(of), damage: self.remarks.damage(), faults }
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

    /// The virtual now, as far as a provider's connections have come.
    fn instant(&self, provider: Provider) -> UnixMicros {
        self.faults.as_ref().map_or(UnixMicros(0), |plan| plan.reached(provider))
    }

    /// What becomes of a request under a fault script, and how long to wait before that.
    fn answer_faulty(self: &Arc<Self>, plan: &Arc<Plan>, asked: &ServerRequest) -> Faulty {
        let Some(provider) = provider_of_path(&asked.path) else { return Faulty::now(self.answer(asked, None)) };
        if !is_live_path(&asked.path) {
            let elsewhere = || self.elsewhere(&asked.path);
            let (wait, reply) = plan.around(provider, &asked.path, &asked.query, self.instant(provider), elsewhere);
            return Faulty { wait: Some(wait), reply };
        }
        // X's changes of topics go to another path than its openings.
        if asked.path.trim_start_matches("/1.1") != live_path(provider) {
            let reply = self.answer(asked, None);
            if matches!(&reply, Reply::Http(response) if response.status == 200) {
                plan.refreshed();
            }
            return Faulty::now(reply);
        }
        let (attempt, opening) = plan.attempt(provider, self.instant(provider));
        let reply = match opening {
            None => return Faulty::now(self.answer(asked, plan.watch(provider, attempt))),
            Some(Opening::Refuse { status, retry_after, body }) => {
                Reply::Http(tamper::refusal(provider, status, retry_after, body.as_deref()))
            }
            Some(Opening::BadHandshake(Handshake::Accept)) => Reply::Flawed(HandshakeFlaw::Accept),
            Some(Opening::BadHandshake(Handshake::Subprotocol)) => Reply::Flawed(HandshakeFlaw::Subprotocol),
            Some(Opening::BadHandshake(Handshake::Http10)) => Reply::Flawed(HandshakeFlaw::Http10),
            Some(Opening::BadHandshake(Handshake::Page)) => Reply::Flawed(HandshakeFlaw::Page),
            Some(Opening::BadHandshake(Handshake::Garbage)) => Reply::Flawed(HandshakeFlaw::Garbage),
            Some(Opening::Hang { lasts }) => return Faulty { wait: lasts, reply: Reply::Nothing },
            Some(Opening::Drop) => Reply::Nothing,
        };
        Faulty::now(reply)
    }

    fn answer(self: &Arc<Self>, asked: &ServerRequest, watch: Option<Watch>) -> Reply {
        let Some(provider) = provider_of_path(&asked.path).filter(|_| is_live_path(&asked.path)) else {
            return Reply::Http(self.elsewhere(&asked.path));
        };
        let booth = self.booth(provider);
        let id = self.last_peer.fetch_add(1, Relaxed) + 1;
        let request = Asked {
            method: &asked.method,
            path: &asked.path,
            query: &asked.query,
            headers: &asked.headers,
            body: &asked.body,
            wants_upgrade: asked.wants_upgrade,
        };
        let (answer, actions) = {
            let mut server = lock(&booth.server);
            let answer = server.asked(id, &request, Instant::now().into_std());
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

    /// What is not a live path.
    fn elsewhere(&self, path: &str) -> Response {
        const LIVE_ONLY: &str = "birdtape replay serves live streams only; history and management are not served";
        let under = |prefix: &str| path.starts_with(prefix);
        if path == "/" {
            let headers = vec![("content-type".to_owned(), "text/plain; charset=utf-8".to_owned())];
            return Response { status: 200, headers, body: self.urls.words().into() };
        }
        if under("/twitter/") || under("/oapi/") {
            return Response::json(404, format!(r#"{{"error":"Not Found","message":"{LIVE_ONLY}"}}"#));
        }
        if under("/api/") {
            return Response::json(404, format!(r#"{{"error":"{LIVE_ONLY}"}}"#));
        }
        if under("/v1/") {
            return Response::json(404, format!(r#"{{"detail":"{LIVE_ONLY}"}}"#));
        }
        if under("/1.1/") || under("/i/api/") {
            return Response::json(404, format!(r#"{{"errors":[{{"code":34,"message":"{LIVE_ONLY}"}}]}}"#));
        }
        let live: Vec<_> = Provider::ALL.iter().map(|provider| format!(r#""{provider}":"{}""#, live_path(*provider))).collect();
        Response::json(404, format!(r#"{{"error":"nothing is served here","live":{{{}}}}}"#, live.join(",")))
    }
}

/// An answer under a fault script.
struct Faulty {
    /// How long to wait with it; `None` is until the end.
    wait: Option<Duration>,
    reply: Reply,
}

impl Faulty {
    fn now(reply: Reply) -> Self {
        Self { wait: Some(Duration::ZERO), reply }
    }
}

impl Handler for House {
    fn handle(self: Arc<Self>, asked: ServerRequest) -> BoxFuture<'static, Reply> {
        let Some(plan) = self.faults.clone() else { return ready(self.answer(&asked, None)).boxed() };
        let faulty = self.answer_faulty(&plan, &asked);
        let mut leaving = self.leaving.clone();
        async move {
            let wait = async {
                match faulty.wait {
                    Some(wait) => sleep(wait).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = wait => faulty.reply,
                // A sender that is gone has left, too.
                _ = leaving.wait_for(|leaving| *leaving) => Reply::Nothing,
            }
        }
        .boxed()
    }
}
