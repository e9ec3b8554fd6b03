//! Losses that a living connection betrays: a poll's page that came full, and a post that is spoken of but never came.
//!
//! Both are gaps with two known ends in published time. A full page is a doubt about one rule, not about the connection.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::time::Duration;

use crate::model::{Cause, Decoded, Event, EventId, EventKind, Provider, UnixMicros};

/// Posts of a page that is full.
///
/// Inferred: TwitterAPI.io's rules poll search pages, which hold at most 20 posts (docs.twitterapi.io, "Advanced
/// Search"); what did not fit into the page of one poll is not in the next one either.
const FULL_PAGE: usize = 20;

/// Posts remembered as seen, and rules remembered with their newest post.
const REMEMBERED: usize = 65_536;
const RULES: usize = 4_096;
/// Posts that are waited for at once.
const AWAITED: usize = 4_096;

/// A stretch of published time in which something may be missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Suspicion {
    pub(super) scope: String,
    pub(super) cause: Cause,
    pub(super) from: UnixMicros,
    pub(super) to: UnixMicros,
    pub(super) detail: String,
}

/// What one source has shown lately.
#[derive(Debug, Default)]
pub(super) struct Suspicions {
    /// Newest post of each rule.
    newest: BTreeMap<String, UnixMicros>,
    seen: HashSet<u64>,
    order: VecDeque<(u64, UnixMicros)>,
    /// Posts spoken of before they came: id, published, and when waiting ends.
    awaited: VecDeque<(u64, UnixMicros, UnixMicros)>,
    /// First envelope of this recorder: what was published before may have come to another one.
    since: Option<UnixMicros>,
}

impl Suspicions {
    /// Looks at an envelope and gives what it makes doubtful.
    pub(super) fn look(&mut self, provider: Provider, decoded: &Decoded, at: UnixMicros, horizon: Duration) -> Vec<Suspicion> {
        match provider {
            Provider::TwitterapiIo => self.full_page(&decoded.events).into_iter().collect(),
            Provider::Tweetstream => self.orphans(&decoded.events, at, horizon),
            Provider::Scrapebadger | Provider::XLive => Vec::new(),
        }
    }

    /// A full page that does not reach back to what the rule brought before leaves the time between open.
    ///
    /// The first page of a rule is no sign: when a rule becomes active, about 20 old posts come at once.
    fn full_page(&mut self, events: &[Event]) -> Option<Suspicion> {
        let rule = &events.first().filter(|event| !event.selector.is_empty())?.selector;
        let times = || events.iter().filter(|event| event.kind == EventKind::Tweet).filter_map(|event| event.published_at);
        let (oldest, newest) = (times().min()?, times().max()?);
        let has_room = self.newest.len() < RULES;
        let before = match self.newest.get_mut(rule) {
            Some(known) => Some(std::mem::replace(known, newest.max(*known))),
            None if has_room => self.newest.insert(rule.clone(), newest),
            None => None,
        };
        let from = before.filter(|before| *before < oldest && events.len() >= FULL_PAGE)?;
        let detail = format!(
            "a page of rule {rule} came with {} posts, as many as it holds; older ones may not have fitted",
            events.len()
        );
        Some(Suspicion { scope: rule.clone(), cause: Cause::FullPage, from, to: oldest, detail })
    }

    /// Meta, updates and deletes come after the content; when that never comes, it was lost.
    fn orphans(&mut self, events: &[Event], at: UnixMicros, horizon: Duration) -> Vec<Suspicion> {
        let since = *self.since.get_or_insert(at);
        for event in events {
            let (EventId::Tweet(id), Some(published)) = (&event.id, event.published_at) else { continue };
            match event.kind {
                EventKind::Tweet => self.saw(id.0, published),
                EventKind::Meta | EventKind::Update | EventKind::Delete | EventKind::Pin | EventKind::Unpin => {
                    // What claims to be from the future (a replay that runs faster than life) cannot be judged.
                    let ours = (since..=at).contains(&published) && self.awaited.len() < AWAITED && !self.seen.contains(&id.0);
                    if ours && self.awaited.iter().all(|(awaited, ..)| *awaited != id.0) {
                        self.awaited.push_back((id.0, published, at.plus(horizon)));
                    }
                }
                _ => {}
            }
        }
        let mut found = Vec::new();
        while let Some(&(id, published, until)) = self.awaited.front().filter(|(.., until)| *until <= at) {
            self.awaited.pop_front();
            // Older than what is remembered: it may have been seen and forgotten.
            let forgotten = self.order.len() == REMEMBERED && self.order.front().is_some_and(|(_, oldest)| published < *oldest);
            if !self.seen.contains(&id) && !forgotten {
                let detail = format!("post {id} was spoken of and did not come until {until}");
                let to = published.plus(Duration::from_millis(1));
                found.push(Suspicion {
                    scope: crate::archive::ALL.to_owned(),
                    cause: Cause::Orphan,
                    from: published,
                    to,
                    detail,
                });
            }
        }
        found
    }

    fn saw(&mut self, id: u64, published: UnixMicros) {
        if !self.seen.insert(id) {
            return;
        }
        if self.order.len() == REMEMBERED
            && let Some((oldest, _)) = self.order.pop_front()
        {
            self.seen.remove(&oldest);
        }
        self.order.push_back((id, published));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TweetId;
    use crate::provider::decode;

    const HORIZON: Duration = Duration::from_secs(60);

    fn at(second: i64) -> UnixMicros {
        UnixMicros::from_millis(1_767_614_400_000 + second * 1_000)
    }

    fn id(second: i64) -> u64 {
        TweetId::first_at(at(second)).0 + 7
    }

    fn page(rule: &str, seconds: impl Iterator<Item = i64>) -> Decoded {
        let tweets: Vec<String> = seconds.map(|second| format!(r#"{{"id":"{}"}}"#, id(second))).collect();
        let text = format!(r#"{{"event_type":"tweet","rule_id":"{rule}","tweets":[{}]}}"#, tweets.join(","));
        decode(Provider::TwitterapiIo, text.as_bytes())
    }

    fn spoken(op: &str, second: i64) -> Decoded {
        let text = format!(r#"{{"v":1,"t":"tweet","op":"{op}","d":{{"tweetId":"{}"}}}}"#, id(second));
        decode(Provider::Tweetstream, text.as_bytes())
    }

    #[test]
    fn a_full_page_leaves_the_time_before_it_open() {
        let mut suspicions = Suspicions::default();
        let mut look = |decoded: &Decoded| suspicions.look(Provider::TwitterapiIo, decoded, at(0), HORIZON);
        assert_eq!(look(&page("a", 0..20)), [], "the burst of a rule that becomes active");
        assert_eq!(look(&page("a", 30..49)), [], "nineteen fit");
        assert_eq!(look(&page("a", 40..60)), [], "it reaches back to what is known: nothing is missing");
        let found = look(&page("a", 100..120));
        assert_eq!(found.len(), 1);
        let ms = |t: UnixMicros| UnixMicros::from_millis(t.millis());
        assert_eq!((ms(found[0].from), ms(found[0].to), found[0].scope.as_str()), (at(59), at(100), "a"));
        assert_eq!(found[0].cause, Cause::FullPage);
        assert_eq!(look(&page("b", 200..220)), [], "another rule");
        assert_eq!(look(&page("", 300..330)), [], "the account stream has no pages");
    }

    #[test]
    fn a_post_that_never_came_is_missed_after_the_horizon() {
        let mut suspicions = Suspicions::default();
        let mut look = |decoded: &Decoded, now| suspicions.look(Provider::Tweetstream, decoded, at(now), HORIZON);
        assert_eq!(look(&spoken("content", 0), 1), []);
        assert_eq!(look(&spoken("meta", 0), 2), [], "its content came");
        assert_eq!(look(&spoken("meta", -500), 3), [], "published before we listened");
        assert_eq!(look(&spoken("meta", 40), 4), [], "published after it came: another clock");
        assert_eq!(look(&spoken("meta", 5), 6), []);
        assert_eq!(look(&spoken("delete", 7), 8), []);
        assert_eq!(look(&spoken("content", 7), 9), [], "late, but it came");
        assert_eq!(look(&spoken("content", 50), 65), [], "the horizon is not over");
        let found = look(&spoken("content", 60), 67);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((found[0].from.millis(), found[0].cause), (at(5).millis(), Cause::Orphan));
        assert_eq!(look(&spoken("content", 61), 200), [], "told once");
    }
}
