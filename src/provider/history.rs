//! Asking a provider's history for what the stream did not bring: the client side of it, as machines.
//!
//! A [`Walk`] is asked for a stretch of a scope's published time and gives requests; each answer is kept on the tape
//! first and then shown to it. It never trusts a provider's paging, and it says in the end what is proven and what is
//! not. It does not dial, wait or keep anything: the shell is `backfill`.
//!
//! | file | provider | way |
//! | --- | --- | --- |
//! | `twitterapi_io/walk.rs` | TwitterAPI.io | rules' own searches in windows of time, accounts by `from:` groups |
//! | `tweetstream/walk.rs` | TweetStream | `/api/history` backwards, for posts, profiles and follows |
//! | `scrapebadger/walk.rs` | ScrapeBadger | delivery logs, then the posts by id; then searches |
//! | `x_live/walk.rs` | X | snapshots of counters, conversations backwards |

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::sweep::{Stretch, merged};
use super::{Provider, Settings, scrapebadger, tweetstream, twitterapi_io, x_live};
use crate::model::json::{Json, Kind};
use crate::model::{Decoded, EventId, EventKind, Request, Response, UnixMicros};

/// A stretch of a scope that is to be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// `*`, a rule or a topic.
    pub scope: String,
    /// First instant of published time that is wanted.
    pub from: UnixMicros,
    /// First instant that is not.
    pub to: UnixMicros,
    /// How far beyond both ends the walk looks for what is known already: the overlap that proves the edges.
    pub margin: Duration,
    /// What the tape knows of what selected events in the stretch.
    pub selectors: Vec<Selector>,
    /// Whether the tape knows all of it, so that the provider's lists need not be asked.
    pub is_listed: bool,
}

/// A rule, a monitor, an account or a topic that selected events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    /// Its id, as events and scopes name it.
    pub id: String,
    /// The texts that were in force in the stretch, older first; empty when the tape does not know them.
    pub texts: Vec<String>,
    /// An envelope that names it, which may say more.
    pub sample: Option<bytes::Bytes>,
}

/// What is on the tape already; asked about single events.
///
/// While a page is shown, that page's own events do not count: an edge would be proven by itself.
pub trait Known {
    /// Whether such an event was ever received.
    fn holds(&mut self, kind: EventKind, id: &EventId) -> bool;
}

/// What a walk wants next.
#[derive(Clone, Debug)]
pub enum Next {
    /// Make this request, keep the answer, and show it with [`Walk::answered`].
    Ask(Request),
    /// The walk is over.
    Done(Verdict),
}

/// What an answer brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Rows on it.
    pub rows: u64,
    /// Rows that lie in the wanted stretch and were not on the tape before.
    pub new: u64,
    /// What it cost, in millionths of a US dollar, by the provider's list or its own word.
    pub micro_usd: u64,
}

/// Why an answer is no page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Ask the same again, not before so long.
    Again {
        /// What the provider said, or nothing.
        after: Option<Duration>,
        /// In words.
        why: String,
    },
    /// Nothing more can be asked with this key: wrong, without credits, not allowed.
    Stop {
        /// In words, with the cure.
        why: String,
    },
}

/// What became of the stretch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// For each kind of event that the scope delivers.
    pub kinds: Vec<(EventKind, Proof)>,
    /// The evidence, in a sentence.
    pub evidence: String,
}

/// What is known about one kind of event in the stretch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// Whole: the pass overlapped both edges, or a second look at a quiet stretch was empty.
    Filled,
    /// These stretches are not proven.
    Partial {
        /// Half-open, ascending.
        rest: Vec<(UnixMicros, UnixMicros)>,
        /// In words.
        why: String,
    },
    /// No history has it.
    Unfillable {
        /// In words.
        why: String,
    },
}

/// The least a walk can cost, known before it begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Price {
    /// Requests, if every page is as empty as it can be.
    pub requests: u64,
    /// Millionths of a US dollar for those.
    pub micro_usd: u64,
    /// Millionths of a US dollar for every thousand rows that come back.
    pub micro_usd_per_thousand: u64,
}

/// Passes through a history that was caught at something, at most.
const PASSES_MAX: u8 = 4;

/// A walk through one provider's history.
///
/// One that was caught at something on the way is asked for everything again, until a pass brings nothing that those before did
/// not: what they call whole, or proven in part, is so only then.
#[derive(Debug)]
pub struct Walk {
    settings: Settings,
    wanted: Wanted,
    pass: Pass,
    path: Path,
}

/// What is known of the passes of a walk; stored with the path of the one that is being made.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Pass {
    stretch: Stretch,
    /// The first is 1.
    n: u8,
    /// Rows of this one in the stretch that were not known.
    new: u64,
    /// What those before could not prove.
    open: Vec<Open>,
    path: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Open {
    kind: String,
    /// Instants, in microseconds.
    rest: Vec<(i64, i64)>,
    why: String,
}

impl Pass {
    fn first(wanted: &Wanted) -> Self {
        Self { stretch: Stretch::of(wanted), n: 1, new: 0, open: Vec::new(), path: String::new() }
    }
}

/// The way one provider's history is walked through, once.
#[derive(Debug)]
enum Path {
    /// TwitterAPI.io
    TwitterapiIo(twitterapi_io::Walk),
    /// TweetStream
    Tweetstream(tweetstream::Walk),
    /// ScrapeBadger
    Scrapebadger(scrapebadger::Walk),
    /// X
    XLive(x_live::Walk),
}

macro_rules! each {
    ($self:expr, $walk:ident => $call:expr) => {
        match $self {
            Path::TwitterapiIo($walk) => $call,
            Path::Tweetstream($walk) => $call,
            Path::Scrapebadger($walk) => $call,
            Path::XLive($walk) => $call,
        }
    };
}

impl Path {
    fn new(settings: &Settings, wanted: Wanted, cursor: Option<&str>) -> Self {
        match settings.provider {
            Provider::TwitterapiIo => Self::TwitterapiIo(twitterapi_io::Walk::new(settings, wanted, cursor)),
            Provider::Tweetstream => Self::Tweetstream(tweetstream::Walk::new(settings, wanted, cursor)),
            Provider::Scrapebadger => Self::Scrapebadger(scrapebadger::Walk::new(settings, wanted, cursor)),
            Provider::XLive => Self::XLive(x_live::Walk::new(settings, wanted, cursor)),
        }
    }

    fn doubt(&mut self) {
        match self {
            Self::TwitterapiIo(walk) => walk.doubt(),
            Self::Scrapebadger(walk) => walk.doubt(),
            Self::Tweetstream(walk) => walk.doubt(),
            Self::XLive(_) => {}
        }
    }
}

impl Walk {
    /// A walk that has not begun, or goes on from what [`cursor`](Self::cursor) gave; a cursor of another version of
    /// ours begins anew.
    pub fn new(settings: &Settings, wanted: Wanted, cursor: Option<&str>) -> Self {
        let first = Pass::first(&wanted);
        let stored = cursor.and_then(|cursor| serde_json::from_str::<Pass>(cursor).ok());
        let later = stored.filter(|pass| pass.stretch == first.stretch);
        let cursor = later.as_ref().map(|pass| pass.path.as_str()).or(cursor);
        let path = Path::new(settings, wanted.clone(), cursor);
        let pass = later.unwrap_or(first);
        Self { settings: settings.clone(), wanted, pass, path }
    }

    /// The least it costs.
    pub fn price(&self) -> Price {
        each!(&self.path, walk => walk.price())
    }

    /// What it costs by experience when so many rows come back: all of it is asked twice, as where nothing that is known
    /// lies at an edge of the stretch. No bound: a history that is caught at something is asked more often.
    pub fn price_about(&self, rows: u64) -> Price {
        let least = self.price();
        let page = match &self.path {
            Path::TwitterapiIo(_) => twitterapi_io::PAGE,
            Path::Tweetstream(_) => tweetstream::PAGE_MAX,
            Path::Scrapebadger(_) => scrapebadger::PAGE,
            Path::XLive(_) => return least,
        };
        let more = if let Path::Scrapebadger(walk) = &self.path { walk.more_requests() } else { 0 };
        let per_row = least.micro_usd_per_thousand / 1_000;
        let once = (least.micro_usd + more * per_row).max(rows * per_row);
        Price { requests: 2 * (least.requests + more + rows / page as u64), micro_usd: 2 * once, ..least }
    }

    /// Has every last page asked a second time, at the price of a request for each search; TweetStream's whole history,
    /// which costs nothing. Without it that is done only where there is a single search, or once the provider was caught
    /// at something: a row that is left out of a last page leaves no other trace.
    pub fn doubt(&mut self) {
        self.path.doubt();
    }

    /// What to do next. Asking twice without an answer in between gives the same request.
    #[allow(clippy::should_implement_trait, reason = "it is asked again until there is an answer")]
    pub fn next(&mut self) -> Next {
        loop {
            match each!(&mut self.path, walk => walk.next()) {
                Next::Done(verdict) => {
                    if let Some(verdict) = self.agree(verdict) {
                        return Next::Done(verdict);
                    }
                }
                ask => return ask,
            }
        }
    }

    /// The verdict, unless another pass is to be made first.
    fn agree(&mut self, mut verdict: Verdict) -> Option<Verdict> {
        let is_first = self.pass.n == 1;
        let (from, to) = (self.wanted.from, self.wanted.to);
        let proves = |proof: &Proof| match proof {
            Proof::Filled => true,
            Proof::Partial { rest, .. } => merged(rest.iter().copied()) != [(from, to)],
            Proof::Unfillable { .. } => false,
        };
        let is_nothing = !verdict.kinds.iter().any(|(_, proof)| proves(proof));
        if is_nothing || (is_first && !each!(&self.path, walk => walk.is_caught())) {
            return Some(verdict);
        }
        let is_agreed = !is_first && self.pass.new == 0;
        if !is_agreed && self.pass.n < PASSES_MAX {
            for (kind, proof) in &verdict.kinds {
                if let Proof::Partial { rest, why } = proof {
                    let rest = rest.iter().map(|(from, to)| (from.0, to.0)).collect();
                    self.pass.open.push(Open { kind: kind.name().to_owned(), rest, why: why.clone() });
                }
            }
            (self.pass.n, self.pass.new) = (self.pass.n + 1, 0);
            self.path = Path::new(&self.settings, self.wanted.clone(), None);
            self.path.doubt();
            return None;
        }
        for (kind, proof) in verdict.kinds.iter_mut().filter(|(_, proof)| proves(proof)) {
            if !is_agreed {
                let why = "the history gives other rows each time it is asked".to_owned();
                *proof = Proof::Partial { rest: vec![(from, to)], why };
                continue;
            }
            // Rows that came with the passes before are known to this one, and may have proven its edges.
            for open in self.pass.open.iter().rev().filter(|open| open.kind == kind.name()) {
                let rest: Vec<_> = open.rest.iter().map(|(from, to)| (UnixMicros(*from), UnixMicros(*to))).collect();
                *proof = match std::mem::replace(proof, Proof::Filled) {
                    Proof::Partial { rest: more, why } => Proof::Partial { rest: merged(rest.into_iter().chain(more)), why },
                    _ => Proof::Partial { rest, why: open.why.clone() },
                };
            }
        }
        verdict.evidence.push_str(&format!("; pass {} through a history that had been caught at something", self.pass.n));
        Some(verdict)
    }

    /// Takes what was read of the answer to the last request, so that [`answered`](Self::answered) need not read it again;
    /// gives the events in it.
    pub fn has_read(&mut self, reading: Reading) -> Decoded {
        let Reading { decoded, body, page } = reading;
        match (&mut self.path, page) {
            (Path::TwitterapiIo(walk), ReadPage::TwitterapiIo(page)) => walk.last_read.keep(body, page),
            (Path::Tweetstream(walk), ReadPage::Tweetstream(page)) => walk.last_read.keep(body, page),
            (Path::Scrapebadger(walk), ReadPage::Scrapebadger(page)) => walk.last_read.keep(body, page),
            // Read for another provider, or nothing that is worth keeping.
            _ => {}
        }
        decoded
    }

    /// The answer to the last request.
    ///
    /// # Errors
    /// When it is no page: ask again later, or stop.
    pub fn answered(&mut self, response: &Response, known: &mut dyn Known) -> Result<Page, Trouble> {
        let tells = !matches!(&self.path, Path::XLive(walk) if walk.asks_totals());
        let page = each!(&mut self.path, walk => walk.answered(response, known))?;
        self.pass.new += if tells { page.new } else { 0 };
        Ok(page)
    }

    /// Where it stands, as one line of JSON without secrets: stored once the last page is durable.
    pub fn cursor(&self) -> String {
        let path = each!(&self.path, walk => walk.cursor());
        if self.pass.n == 1 {
            return path;
        }
        serde_json::to_string(&Pass { path, ..self.pass.clone() }).unwrap_or_default()
    }
}

/// Shortest time between two requests that a provider's pages ask for.
///
/// TwitterAPI.io: 20 a second once topped up (docs, "Rate limits"). TweetStream: not documented; one a second.
/// ScrapeBadger: 300 a minute on the basic plan (docs, "Rate limits"). X: 500 in 15 minutes (observed). A fake provider
/// on this machine is asked as fast as it answers, unless its limit is one of a second: any run would meet that.
pub fn pace_of(settings: &Settings) -> Duration {
    match settings.provider {
        Provider::TwitterapiIo => Duration::from_millis(50),
        Provider::Tweetstream | Provider::Scrapebadger | Provider::XLive if is_here(settings) => Duration::ZERO,
        Provider::Tweetstream => Duration::from_secs(1),
        Provider::Scrapebadger => Duration::from_millis(200),
        Provider::XLive => Duration::from_millis(1_800),
    }
}

/// Whether a provider on this machine is asked, which is a fake one.
pub(super) fn is_here(settings: &Settings) -> bool {
    let host = settings.base.as_ref().map(|base| base.endpoint.host.as_str());
    matches!(host, Some("127.0.0.1" | "::1" | "localhost"))
}

/// When a limit ends, for providers that name an instant and not a wait: for a shell that knows the time.
///
/// Observed: X's `x-rate-limit-reset` and ScrapeBadger's `x-ratelimit-reset` are in Unix seconds.
pub fn limit_ends_at(response: &Response) -> Option<UnixMicros> {
    let seconds = response.header("x-rate-limit-reset").or_else(|| response.header("x-ratelimit-reset"))?;
    seconds.trim().parse::<i64>().ok().filter(|seconds| *seconds > 0).map(|seconds| UnixMicros(seconds.saturating_mul(1_000_000)))
}

/// An answer that was read, wherever that was done: once, for the tape and for the walk.
#[derive(Debug)]
pub struct Reading {
    decoded: Decoded,
    body: Bytes,
    page: ReadPage,
}

#[derive(Debug)]
enum ReadPage {
    TwitterapiIo(Option<twitterapi_io::Listing>),
    Tweetstream(Option<tweetstream::Page>),
    Scrapebadger(Option<scrapebadger::Answer>),
    XLive,
}

/// Reads an answer as [`decode_page`] does, for [`Walk::has_read`].
pub fn read_page(provider: Provider, body: &Bytes) -> Reading {
    let read = super::survived(body, || match provider {
        Provider::TwitterapiIo => {
            let (decoded, page) = twitterapi_io::read_page(body);
            (decoded, ReadPage::TwitterapiIo(page))
        }
        Provider::Tweetstream => {
            let (decoded, page) = tweetstream::read_page(body);
            (decoded, ReadPage::Tweetstream(page))
        }
        Provider::Scrapebadger => {
            let (decoded, page) = scrapebadger::read_page(body);
            (decoded, ReadPage::Scrapebadger(page))
        }
        Provider::XLive => (x_live::decode_page(body), ReadPage::XLive),
    });
    let (decoded, page) = read.unwrap_or_else(|| {
        let page = match provider {
            Provider::TwitterapiIo => ReadPage::TwitterapiIo(None),
            Provider::Tweetstream => ReadPage::Tweetstream(None),
            Provider::Scrapebadger => ReadPage::Scrapebadger(None),
            Provider::XLive => ReadPage::XLive,
        };
        (super::unread(), page)
    });
    Reading { decoded, body: body.clone(), page }
}

/// What was read of an answer, until it is asked for.
#[derive(Debug)]
pub(crate) struct LastRead<T>(Option<(Bytes, T)>);

impl<T> Default for LastRead<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T> LastRead<T> {
    fn keep(&mut self, body: Bytes, read: T) {
        self.0 = Some((body, read));
    }

    /// What was read of these very bytes; of a copy of them it is not known.
    pub(crate) fn take(&mut self, body: &Bytes) -> Option<T> {
        let (kept, read) = self.0.take()?;
        (kept.as_ptr() == body.as_ptr() && kept.len() == body.len()).then_some(read)
    }
}

/// Scope and text by which an envelope was selected, where it says both: a rule's text may change while its id stays, and
/// an account may be taken off a watchlist.
pub fn selected_by(provider: Provider, envelope: &[u8]) -> Option<(String, String)> {
    match provider {
        Provider::TwitterapiIo => twitterapi_io::selected_by(envelope),
        Provider::Tweetstream => Some((tweetstream::WATCHLIST.to_owned(), tweetstream::account_of(envelope)?)),
        Provider::Scrapebadger | Provider::XLive => None,
    }
}

/// Whom an envelope is about, where its events do not name what selected them; the name is that of the account's scope.
pub fn account_of(provider: Provider, envelope: &[u8]) -> Option<String> {
    match provider {
        Provider::Tweetstream => tweetstream::account_of(envelope),
        Provider::TwitterapiIo | Provider::Scrapebadger | Provider::XLive => None,
    }
}

/// Reads a page of history, or the answer of management, for the events on it; whatever else it is has none.
///
/// The same for the live writer and a rebuild, so it knows nothing but the bytes.
pub fn decode_page(provider: Provider, body: &[u8]) -> Decoded {
    match provider {
        Provider::TwitterapiIo => twitterapi_io::decode_page(body),
        Provider::Tweetstream => tweetstream::decode_page(body),
        Provider::Scrapebadger => scrapebadger::decode_page(body),
        Provider::XLive => x_live::decode_page(body),
    }
}

/// Whether these bytes are one JSON object or array, and then whether they are exactly that, on one line.
pub(crate) fn one_value(body: &[u8]) -> Option<bool> {
    let text = std::str::from_utf8(body).ok()?;
    let trimmed = text.trim_matches([' ', '\t', '\r', '\n']);
    let mut json = Json::new(trimmed);
    if !matches!(json.kind(), Kind::Object | Kind::Array) {
        return None;
    }
    json.skip().and_then(|()| json.finish()).ok()?;
    Some(!json.is_multi_line() && trimmed.len() == body.len())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::TweetId;
    use crate::provider::Auth;
    use crate::provider::drive::Tape;
    use crate::provider::script::settings_with_key;

    /// Walks through a history of one rule whose every page claims more behind the cursor that led to it; `rows` are the
    /// milliseconds of the posts that it has when it is asked for the nth time. Asked for what was before `deaf_ms`, it gives
    /// all of them.
    fn walk(rows: impl Fn(usize) -> Vec<u64>, deaf_ms: u64, resumes: bool) -> (Proof, u8, usize) {
        let settings = settings_with_key(Provider::TwitterapiIo, "hunter2", Auth::Header);
        let at = |ms: u64| UnixMicros::from_millis(1_767_614_400_000 + ms as i64);
        let rule = Selector { id: "r1".to_owned(), texts: vec!["owl".to_owned()], sample: None };
        let margin = Duration::from_secs(10);
        let wanted = Wanted { scope: "r1".into(), from: at(0), to: at(60_000), margin, selectors: vec![rule], is_listed: true };
        let (mut walk, mut tape) = (Walk::new(&settings, wanted.clone(), None), Tape::default());
        for n in 0.. {
            let request = match walk.next() {
                Next::Ask(request) => request,
                Next::Done(verdict) => return (verdict.kinds[0].1.clone(), walk.pass.n, n),
            };
            let target = request.target.expose();
            let bound = |name: &str| target.split_once(name)?.1.split(['%', '&']).next()?.parse::<u64>().ok();
            let second = |ms: u64| at(ms).0 as u64 / 1_000_000;
            let (since, until) = (bound("since_time%3A").unwrap(), bound("until_time%3A").unwrap());
            let mut rows = rows(n);
            rows.sort_unstable_by(|a, b| b.cmp(a));
            rows.retain(|ms| (since..until).contains(&second(*ms)) || until <= second(deaf_ms));
            rows.retain(|ms| bound("max_id%3A").is_none_or(|max| TweetId::first_at(at(*ms)).0 <= max));
            let post = |ms: &u64| {
                let created = jiff::Timestamp::from_microsecond(at(*ms).0).unwrap().strftime("%a %b %d %H:%M:%S +0000 %Y");
                json!({ "id": TweetId::first_at(at(*ms)).to_string(), "text": "owl", "createdAt": created.to_string() })
            };
            let posts: Vec<_> = rows.iter().map(post).collect();
            let more = !posts.is_empty();
            let page = json!({ "tweets": posts, "has_next_page": more, "next_cursor": if more { "again" } else { "" } });
            let response = Response { status: 200, headers: Vec::new(), body: page.to_string().into() };
            walk.answered(&response, &mut tape).unwrap();
            tape.0.extend(decode_page(Provider::TwitterapiIo, &response.body).events.into_iter().map(|of| (of.kind, of.id)));
            if resumes {
                let cursor = walk.cursor();
                walk = Walk::new(&settings, wanted.clone(), Some(&cursor));
                assert_eq!(walk.cursor(), cursor);
            }
        }
        unreachable!("it ends")
    }

    #[test]
    fn a_history_that_was_caught_must_say_the_same_twice() {
        let all = || vec![1_000, 20_000, 40_000, 59_000];
        for resumes in [false, true] {
            let (proof, passes, n_same) = walk(|_| all(), 0, resumes);
            assert_eq!((proof, passes), (Proof::Filled, 2));
            // Half as long was one pass: a post that comes with the second one shows that more may be missing, and so on.
            let n_first = n_same / 2;
            let late = |n: usize, from: usize| all().into_iter().filter(|ms| n >= from || *ms != 20_000).collect::<Vec<_>>();
            let (proof, passes, _) = walk(|n| late(n, n_first), 0, resumes);
            assert_eq!((proof, passes), (Proof::Filled, 3));
            let (proof, passes, n) = walk(|n| all().into_iter().chain((2..n as u64).map(|n| n * 7)).collect(), 0, resumes);
            assert!(matches!(proof, Proof::Partial { .. }), "{proof:?} after {passes} passes, {n} requests");
        }
    }

    #[test]
    fn what_is_proven_in_part_is_so_when_it_was_said_twice() {
        for resumes in [false, true] {
            let (proof, passes, n_same) = walk(|_| vec![1_000, 20_000, 40_000, 59_000], 30_000, resumes);
            let Proof::Partial { rest, .. } = &proof else { panic!("{proof:?}") };
            assert_eq!((rest.len(), passes), (1, 2), "{rest:?}");
            let open = rest[0].1.since(rest[0].0);
            assert!((1..40_000_000).contains(&open), "{proof:?}");
            // A post that comes with the second pass only, where the first one was believed.
            let late = |n: usize| if n < n_same / 2 { vec![1_000, 20_000, 59_000] } else { vec![1_000, 20_000, 40_000, 59_000] };
            let (proof, passes, _) = walk(late, 30_000, resumes);
            assert!(matches!(proof, Proof::Partial { .. }) && passes == 3, "{proof:?} after {passes} passes");
        }
    }
}
