//! The fake peers beside the live connection: history and management, answered from a [`Past`].
//!
//! A machine like the others: a request, a past and the time come in, an answer goes out. What stands in `replay`
//! decides about faults, the virtual instant and who may ask at all.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::past::Past;
use super::{Asked, Provider, Switches, scrapebadger, tweetstream, twitterapi_io, x_live};
use crate::model::{Response, Secret, UnixMicros};

/// Settings of the fake history and management.
#[derive(Clone, Debug)]
pub struct RestSettings {
    /// The only key accepted; `None` accepts any that is not empty.
    pub key: Option<Secret>,
    /// Whether the documented rate limits hold.
    pub rate_limits: bool,
    /// What is left to spend, in the provider's own unit; `None` is without end.
    pub credits: Option<u64>,
    /// Where the provider's pages disagree.
    pub switches: Switches,
    /// The real time at one instant, in which clients are told when a limit ends: they compare it with their own
    /// clock. Without it the past's time is told.
    pub real_time: Option<(Instant, UnixMicros)>,
}

impl Default for RestSettings {
    /// Any key, documented limits, credits without end, every switch at its default.
    fn default() -> Self {
        Self { key: None, rate_limits: true, credits: None, switches: Switches::default(), real_time: None }
    }
}

impl RestSettings {
    /// When a limit ends that ends so long after `now`.
    pub(crate) fn resets_at(&self, past: &Past<'_>, now: Instant, resets_in: Duration) -> UnixMicros {
        match self.real_time {
            Some((then, at)) => at.plus(now.saturating_duration_since(then)).plus(resets_in),
            None => past.now().plus(resets_in),
        }
    }
}

/// One provider's history and management.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "there are a few in a process, and they are never moved about")]
pub enum Rest {
    /// TwitterAPI.io
    TwitterapiIo(twitterapi_io::Rest),
    /// TweetStream
    Tweetstream(tweetstream::Rest),
    /// ScrapeBadger
    Scrapebadger(scrapebadger::Rest),
    /// X
    XLive(x_live::Rest),
}

impl Rest {
    /// As the provider is before anybody asked for anything.
    pub fn new(provider: Provider, settings: RestSettings) -> Self {
        match provider {
            Provider::TwitterapiIo => Self::TwitterapiIo(twitterapi_io::Rest::new(settings)),
            Provider::Tweetstream => Self::Tweetstream(tweetstream::Rest::new(settings)),
            Provider::Scrapebadger => Self::Scrapebadger(scrapebadger::Rest::new(settings)),
            Provider::XLive => Self::XLive(x_live::Rest::new(settings)),
        }
    }

    /// Answers a request; an envelope that cannot be read makes a 500 in the provider's words.
    pub fn asked(&mut self, asked: &Asked<'_>, past: &mut Past<'_>, now: Instant) -> Response {
        match self {
            Self::TwitterapiIo(rest) => rest.asked(asked, past, now),
            Self::Tweetstream(rest) => rest.asked(asked, past, now),
            Self::Scrapebadger(rest) => rest.asked(asked, past, now),
            Self::XLive(rest) => rest.asked(asked, past, now),
        }
    }
}

impl Rest {
    /// Rules and monitors that were switched off or removed: what they select is delivered no more.
    pub fn paused(&self) -> Vec<String> {
        match self {
            Self::TwitterapiIo(rest) => rest.paused().map(str::to_owned).collect(),
            Self::Scrapebadger(rest) => rest.paused().map(str::to_owned).collect(),
            Self::Tweetstream(_) | Self::XLive(_) => Vec::new(),
        }
    }
}

/// Counts requests of a key within a sliding window.
#[derive(Debug)]
pub(crate) struct RateLimit {
    limit: usize,
    window: Duration,
    asked: HashMap<[u8; 32], VecDeque<Instant>>,
}

/// What a [`RateLimit`] says about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Allowance {
    /// Whether this one is within the limit; one that is not does not count.
    pub(crate) allowed: bool,
    /// Requests left in the window after this one.
    pub(crate) remaining: usize,
    /// When the oldest request leaves the window.
    pub(crate) resets_in: Duration,
}

/// Keys that are remembered at one time; more than that is nobody's test.
const KEYS_MAX: usize = 4_096;

impl RateLimit {
    /// So many requests of a key within so long.
    pub(crate) fn new(limit: usize, window: Duration) -> Self {
        Self { limit, window, asked: HashMap::new() }
    }

    /// A request comes.
    pub(crate) fn ask(&mut self, key: &str, now: Instant) -> Allowance {
        if self.asked.len() > KEYS_MAX {
            self.asked.clear();
        }
        let asked = self.asked.entry(super::key_digest(key)).or_default();
        while asked.front().is_some_and(|at| now.saturating_duration_since(*at) >= self.window) {
            asked.pop_front();
        }
        let allowed = asked.len() < self.limit;
        if allowed {
            asked.push_back(now);
        }
        let oldest = asked.front().copied().unwrap_or(now);
        let resets_in = self.window.saturating_sub(now.saturating_duration_since(oldest));
        Allowance { allowed, remaining: self.limit - asked.len(), resets_in }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_slides() {
        let mut limit = RateLimit::new(2, Duration::from_secs(10));
        let start = Instant::now();
        let mut ask = |key: &str, after: u64| {
            let said = limit.ask(key, start + Duration::from_secs(after));
            (said.allowed, said.remaining, said.resets_in.as_secs())
        };
        assert_eq!(ask("a", 0), (true, 1, 10));
        assert_eq!(ask("a", 4), (true, 0, 6));
        assert_eq!(ask("a", 5), (false, 0, 5));
        assert_eq!(ask("b", 5), (true, 1, 10), "every key has its own");
        assert_eq!(ask("a", 10), (true, 0, 4), "refused ones do not count");
    }
}
