//! The second way in: what a provider delivers by webhook.
//!
//! A delivery goes into the same queue as what the connections bring, and is answered when it is durable, not before: whoever
//! hears anything but 200 tries again, so a crash or a full disk costs nothing that the provider's own patience does not.
//! Attempts at one delivery are kept once, as far as the last [`REMEMBERED`] go; one that comes while another is still being
//! written is kept, too.
//!
//! Nothing that comes this way proves that anything was whole: coverage and gaps are about the connections alone.
//!
//! Memory: [`CONNECTIONS`] bodies of [`BODY_BYTES_MAX`], and 2 MB of names of deliveries.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::net::TcpListener;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::json;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::connection::{Activity, Words, told};
use super::queue::{Delivered, Entry, Item, Queue};
use super::{Event, Options, Sink, World};
use crate::model::{Provider, Response, SourceName};
use crate::net::{self, Clock, Reply, ServerOptions, ServerRequest, serve};
use crate::provider::webhook::{Refusal, Webhook};
use crate::provider::{self, Loudness};

/// Connections at one time.
const CONNECTIONS: usize = 32;

/// Bytes of a delivery. A post has some 5 KB, and a delivery few posts.
const BODY_BYTES_MAX: usize = 2 << 20;

/// For a delivery to get into the queue, and again to become durable. ScrapeBadger waits 10 s for its answer.
const PATIENCE: Duration = Duration::from_secs(4);

/// Deliveries that are known again.
const REMEMBERED: usize = 16_384;

/// Takes deliveries.
pub(super) struct Receiver {
    /// By their names, which are their paths.
    sources: BTreeMap<String, Source>,
    clock: Arc<dyn Clock>,
    queue: Arc<Queue>,
    events: Sink,
    activity: Arc<Activity>,
}

struct Source {
    name: SourceName,
    provider: Provider,
    /// Its first connection's.
    slot: u32,
    webhook: Webhook,
    words: Words,
    kept: Mutex<Kept>,
    refused: AtomicU64,
}

/// Deliveries that are on the tape.
#[derive(Default)]
struct Kept {
    known: HashSet<[u8; 32]>,
    order: VecDeque<[u8; 32]>,
}

impl Kept {
    fn note(&mut self, digest: [u8; 32]) {
        if self.order.len() == REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        if self.known.insert(digest) {
            self.order.push_back(digest);
        }
    }
}

impl Receiver {
    pub(super) fn new(options: &Options, world: &World, queue: &Arc<Queue>, events: &Sink, activity: &Arc<Activity>) -> Self {
        let (mut sources, mut slot) = (BTreeMap::new(), 0);
        for source in &options.sources {
            if let Some(webhook) = &source.webhook {
                let one = Source {
                    name: source.name.clone(),
                    provider: source.settings.provider,
                    slot,
                    webhook: webhook.clone(),
                    words: Words::of(source),
                    kept: Mutex::default(),
                    refused: AtomicU64::new(0),
                };
                sources.insert(format!("/{}", source.name), one);
            }
            slot += source.connections.max(1);
        }
        let (clock, queue) = (Arc::clone(&world.clock), Arc::clone(queue));
        Self { sources, clock, queue, events: Arc::clone(events), activity: Arc::clone(activity) }
    }

    /// Serves until it is dropped.
    pub(super) async fn serve(self, listener: TcpListener) {
        let listener = match listener.set_nonblocking(true).and_then(|()| tokio::net::TcpListener::from_std(listener)) {
            Ok(listener) => listener,
            Err(error) => return self.say_to_all(&format!("webhooks cannot be received: {error}")),
        };
        if let Ok(at) = listener.local_addr() {
            for (path, source) in &self.sources {
                (self.events)(Event::Listening { source: source.name.clone(), url: format!("http://{at}{path}") });
            }
        }
        let options = ServerOptions {
            max_connections: CONNECTIONS,
            max_connections_of_peer: CONNECTIONS,
            body_bytes_max: BODY_BYTES_MAX,
            any_host: true,
            ..ServerOptions::default()
        };
        let receiver = Arc::new(self);
        let handler = {
            let receiver = Arc::clone(&receiver);
            move |asked: ServerRequest| {
                let receiver = Arc::clone(&receiver);
                async move { Reply::Http(receiver.answer(asked).await) }
            }
        };
        if let Err(error) = serve(listener, Arc::new(handler), options, std::future::pending()).await {
            receiver.say_to_all(&format!("webhooks are not received any more: {error}"));
        }
    }

    fn say_to_all(&self, text: &str) {
        for source in self.sources.values() {
            (self.events)(Event::Said { source: source.name.clone(), loudness: Loudness::Error, text: text.to_owned() });
        }
    }

    async fn answer(&self, asked: ServerRequest) -> Response {
        let Some(source) = self.sources.get(&asked.path) else { return words(404, "no source of this name takes webhooks") };
        if asked.method != "POST" {
            let mut answer = words(405, "webhooks are received here, by POST");
            answer.headers.push(("allow".to_owned(), "POST".to_owned()));
            return answer;
        }
        let (arrived, at) = (net::now(), self.clock.wall());
        let delivery = match source.webhook.check(&asked.headers, &asked.body, at) {
            Ok(delivery) => delivery,
            Err(refusal) => return self.refuse(source, refusal),
        };
        if source.kept().known.contains(&delivery.digest) {
            return words(200, "kept before");
        }
        let (bytes, decoded, info) = match source.words.in_bytes.hide_in_bytes(&asked.body) {
            None => (asked.body, delivery.decoded, None),
            // A rebuild reads this record like any other; here it must mean the same.
            Some((clean, hidden)) => {
                let decoded = provider::decode(source.provider, &clean);
                (clean, decoded, Some(json!({ "redacted": told(hidden) }).to_string()))
            }
        };
        let (tell, heard) = oneshot::channel();
        let item = Item::Delivery(Box::new(Delivered { bytes, decoded, info }), tell);
        let entry = Entry { slot: source.slot, at, arrived: arrived.into_std(), item };
        match timeout(PATIENCE, self.queue.push_behind(entry)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return again_later("recording has ended"),
            Err(_) => return again_later("too much is waiting for the disk"),
        }
        self.activity.touch(arrived);
        match timeout(PATIENCE, heard).await {
            Ok(Ok(Ok(()))) => {
                source.kept().note(delivery.digest);
                words(200, "kept")
            }
            Ok(_) => again_later("the disk does not take it"),
            Err(_) => again_later("the disk is slow"),
        }
    }

    /// The person hears of the first, the tenth, the hundredth: anybody may knock here.
    fn refuse(&self, source: &Source, refusal: Refusal) -> Response {
        let text = refusal.words();
        let nth = source.refused.fetch_add(1, Ordering::Relaxed) + 1;
        if nth == 10_u64.pow(nth.ilog10()) {
            let text = format!("refused a delivery by webhook, {nth} so far: {text}{}", cure(refusal));
            (self.events)(Event::Said { source: source.name.clone(), loudness: Loudness::Warn, text });
        }
        words(refusal.status(), &text)
    }
}

impl Source {
    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the person can do about it.
const fn cure(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::Unsigned | Refusal::Forged => "; if it is the provider's, the secret here is not the one it signs with",
        Refusal::Stale(_) => "; if it is the provider's, look at this machine's clock",
    }
}

fn words(status: u16, text: &str) -> Response {
    Response::json(status, json!({ "message": text }).to_string())
}

fn again_later(why: &str) -> Response {
    let mut answer = words(503, why);
    answer.headers.push(("retry-after".to_owned(), "5".to_owned()));
    answer
}
