//! Reading what selects a source's stream: rules, monitors and tracked accounts, as the provider's management lists them.
//!
//! Owns when the lists are asked for, and when they count: only lists that came whole are told, as [`Action::Scopes`]. A
//! failure is said once and the reading begins anew later; nothing here ever touches the connection. How the lists are
//! called and how their rows read stands in each provider's `lists.rs`. X has no lists: its topics are configured.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::history::{is_here, pace_of};
use super::sweep::words_of;
use super::{Action, Loudness, Provider, Scope, Settings, scrapebadger, tweetstream, twitterapi_io};
use crate::model::Response;

/// Shortest time from one reading to the next, however often the connection is opened; and the wait after a failure,
/// which doubles up to the usual time between readings.
const REST: Duration = Duration::from_secs(60);

/// Shortest time between two pages of one reading at TwitterAPI.io.
///
/// Documented: an account that was never topped up has one request in 5 s (docs.twitterapi.io, "Rate limits").
const PAGE_WAIT: Duration = Duration::from_secs(6);

/// Pages of one list at most: a list that never ends is none.
const PAGES_MAX: u64 = 100;

/// Which page of which list is to be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) list: usize,
    /// From 1.
    pub(super) page: u64,
}

impl Place {
    const FIRST: Self = Self { list: 0, page: 1 };
}

/// A page of a list.
#[derive(Debug, Default)]
pub(super) struct Listed {
    pub(super) scopes: Vec<Scope>,
    /// What is to be asked for next; `None` when all lists are read.
    pub(super) next: Option<Place>,
}

/// The readings of one connection's machine.
#[derive(Debug)]
pub(super) struct Lists {
    settings: Settings,
    is_open: bool,
    step: Step,
    found: Vec<Scope>,
    asked_at: Option<Instant>,
    n_failed: u32,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// There is nothing to read, or nobody wants it read.
    Off,
    Waits {
        at: Option<Instant>,
        place: Place,
    },
    Asked(Place),
}

impl Lists {
    pub(super) fn new(settings: &Settings) -> Self {
        let is_off = settings.provider == Provider::XLive || settings.scopes_every.is_zero();
        let step = if is_off { Step::Off } else { Step::Waits { at: None, place: Place::FIRST } };
        Self { settings: settings.clone(), is_open: false, step, found: Vec::new(), asked_at: None, n_failed: 0 }
    }

    /// The connection stands: the lists are read now, if they were not a moment ago.
    pub(super) fn opened(&mut self, now: Instant) {
        self.is_open = true;
        if let Step::Waits { .. } = self.step {
            // What was read before the connection broke may be no longer so.
            self.found.clear();
            let at = self.asked_at.map_or(now, |asked| now.max(asked + REST));
            self.step = Step::Waits { at: Some(at), place: Place::FIRST };
        }
    }

    pub(super) fn closed(&mut self) {
        self.is_open = false;
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.step {
            Step::Waits { at, .. } if self.is_open => at,
            _ => None,
        }
    }

    /// The request that is due, if one is.
    pub(super) fn due(&mut self, now: Instant) -> Option<Action> {
        let Step::Waits { at: Some(at), place } = self.step else { return None };
        if at > now || !self.is_open {
            return None;
        }
        self.step = Step::Asked(place);
        self.asked_at = Some(now);
        Some(Action::Request(match self.settings.provider {
            Provider::TwitterapiIo => twitterapi_io::lists::ask(&self.settings, place),
            Provider::Tweetstream => tweetstream::lists::ask(&self.settings),
            Provider::Scrapebadger | Provider::XLive => scrapebadger::lists::ask(&self.settings, place),
        }))
    }

    /// The answer to the request, or none.
    pub(super) fn answered(&mut self, now: Instant, response: Option<&Response>) -> Option<Action> {
        let Step::Asked(place) = self.step else { return None };
        let listed = match response {
            None => Err("no answer came".to_owned()),
            Some(response) => self.read(place, response),
        };
        match listed {
            Ok(Listed { scopes, next }) => {
                self.found.extend(scopes);
                match next {
                    Some(next) => {
                        self.step = Step::Waits { at: Some(now + page_wait(&self.settings)), place: next };
                        None
                    }
                    None => Some(self.done(now)),
                }
            }
            Err(why) => self.failed(now, response, &why),
        }
    }

    fn read(&self, place: Place, response: &Response) -> Result<Listed, String> {
        if !(200..300).contains(&response.status) {
            let words = words_of(&self.settings, response);
            let words = if words.is_empty() { words } else { format!(", \"{words}\"") };
            return Err(format!("status {}{words}", response.status));
        }
        let answer: Value = serde_json::from_slice(&response.body).map_err(|_| "the answer is not whole JSON".to_owned())?;
        let listed = match self.settings.provider {
            Provider::TwitterapiIo => twitterapi_io::lists::take(place, &answer),
            Provider::Tweetstream => tweetstream::lists::take(&answer),
            Provider::Scrapebadger | Provider::XLive => scrapebadger::lists::take(place, &answer),
        };
        listed.filter(|listed| listed.next.is_none_or(|next| next.page <= PAGES_MAX)).ok_or_else(|| {
            // The words of an answer that says "error" with status 200 stand where those of a refusal do.
            let words = words_of(&self.settings, response);
            if words.is_empty() { "the answer is not a whole list".to_owned() } else { format!("\"{words}\"") }
        })
    }

    fn done(&mut self, now: Instant) -> Action {
        self.n_failed = 0;
        self.step = Step::Waits { at: Some(now + self.settings.scopes_every), place: Place::FIRST };
        let mut all = std::mem::take(&mut self.found);
        all.sort_by(|a, b| a.id.cmp(&b.id));
        // Rows move between the pages of a list that changes while it is read.
        all.dedup_by(|a, b| a.id == b.id);
        Action::Scopes { all }
    }

    fn failed(&mut self, now: Instant, response: Option<&Response>, why: &str) -> Option<Action> {
        self.found.clear();
        let every = self.settings.scopes_every;
        let patience = REST.saturating_mul(2_u32.saturating_pow(self.n_failed.min(16))).min(every);
        let wait = patience.max(response.and_then(Response::retry_after).unwrap_or_default());
        self.step = Step::Waits { at: Some(now + wait), place: Place::FIRST };
        self.n_failed += 1;
        let provider = self.settings.provider;
        let text = format!(
            "what selects this stream cannot be read from {provider} ({why}); recording goes on, and it is asked again later: \
             until then a rule or an account that changes is not noticed"
        );
        (self.n_failed == 1).then_some(Action::Say { loud: Loudness::Warn, text })
    }
}

fn page_wait(settings: &Settings) -> Duration {
    match settings.provider {
        // A fake provider on this machine is asked as fast as it answers.
        _ if is_here(settings) => Duration::ZERO,
        Provider::TwitterapiIo => PAGE_WAIT,
        _ => pace_of(settings),
    }
}

/// The accounts of a search such as `from:a OR from:b`.
pub(super) fn accounts_of(text: &str) -> impl Iterator<Item = &str> {
    text.split_whitespace().filter_map(|word| word.strip_prefix("from:"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test may panic and look at the clock")]
mod tests {
    use super::*;
    use crate::model::Secret;
    use crate::provider::{Client, End, Input, default_settings};
    use expect_test::{Expect, expect};

    /// Plays answers to a machine whose connection is open, and gives what it wants besides dialling and pinging.
    struct Player {
        client: Client,
        start: Instant,
        now: Instant,
        out: String,
    }

    impl Player {
        fn new(provider: Provider) -> Self {
            let mut settings = default_settings(provider);
            settings.credentials.key = Secret::new("made-up-key");
            settings.ping_every = Duration::ZERO;
            let start = Instant::now();
            let mut player = Self { client: Client::new(settings), start, now: start, out: String::new() };
            player.feed(Input::Start);
            player.feed(Input::Opened { subprotocol: None });
            player
        }

        fn feed(&mut self, input: Input<'_>) {
            self.client.on(self.now, input);
            while let Some(action) = self.client.next_action() {
                let text = match action {
                    Action::Request(request) => format!("{} {}", request.method, request.shown),
                    Action::Scopes { all } => {
                        let shown =
                            |scope: Scope| format!("\n    {} | {} | {}", scope.id, scope.text.unwrap_or_default(), scope.detail);
                        format!("scopes{}", all.into_iter().map(shown).collect::<String>())
                    }
                    Action::Say { loud, text } => format!("say {loud:?}: {text}"),
                    _ => continue,
                };
                self.out += &format!("{}s {text}\n", (self.now - self.start).as_secs());
            }
        }

        /// The next deadline comes, and then this answer.
        fn answer(&mut self, status: u16, body: &str) {
            if self.client.deadline().is_some_and(|due| due > self.now) {
                self.wait();
            }
            self.feed(Input::Answered { response: Some(&Response::json(status, body)) });
        }

        fn wait(&mut self) {
            self.now = self.client.deadline().unwrap();
            self.feed(Input::Deadline);
        }

        fn check(self, want: Expect) {
            assert!(!self.out.contains("made-up"), "{}", self.out);
            want.assert_eq(&self.out);
        }
    }

    const RULES: &str = r#"{"rules":[{"rule_id":"r1","tag":"birds","value":" owl OR wren ","is_effect":1},
        {"rule_id":"r2","tag":"off","value":"kite","is_effect":0},{"rule_id":"r3","value":"tide"}],"status":"success"}"#;
    const ACCOUNTS: &str = r#"{"status":"success","data":[{"x_user_screen_name":"Quiet_Kettle","is_monitor_tweet":1,"monitor_tweet_config_status":2},
        {"x_user_screen_name":"soon","is_monitor_tweet":1,"monitor_tweet_config_status":1}]}"#;

    #[test]
    fn rules_and_accounts_are_read_at_the_opening_and_again() {
        let mut player = Player::new(Provider::TwitterapiIo);
        player.answer(200, RULES);
        player.answer(200, ACCOUNTS);
        player.answer(200, r#"{"rules":[],"status":"success"}"#);
        player.answer(200, r#"{"status":"error","msg":"No active monitoring subscription"}"#);
        player.check(expect![[r#"
            0s GET https://api.twitterapi.io/oapi/tweet_filter/get_rules
            6s GET https://api.twitterapi.io/oapi/x_user_stream/get_user_to_monitor_tweet?query_type=1
            6s scopes
                @quiet_kettle | from:Quiet_Kettle | a monitored account
                @soon | from:soon | a monitored account
                r1 | owl OR wren | filter rule birds
                r3 | tide | a filter rule
            606s GET https://api.twitterapi.io/oapi/tweet_filter/get_rules
            612s GET https://api.twitterapi.io/oapi/x_user_stream/get_user_to_monitor_tweet?query_type=1
            612s scopes
        "#]]);
    }

    #[test]
    fn a_failure_is_said_once_and_no_part_of_a_list_counts() {
        let mut player = Player::new(Provider::TwitterapiIo);
        player.answer(200, RULES);
        player.answer(429, r#"{"error":"Too Many Requests","message":"slow down, made-up-key"}"#);
        player.answer(200, r#"{"status":"error","msg":"try later"}"#);
        player.wait();
        player.feed(Input::Answered { response: None });
        player.answer(200, &RULES[..40]);
        player.answer(200, RULES);
        player.answer(200, ACCOUNTS);
        player.check(expect![[r#"
            0s GET https://api.twitterapi.io/oapi/tweet_filter/get_rules
            6s GET https://api.twitterapi.io/oapi/x_user_stream/get_user_to_monitor_tweet?query_type=1
            6s say Warn: what selects this stream cannot be read from twitterapi_io (status 429, "Too Many Requests: slow down, ***"); recording goes on, and it is asked again later: until then a rule or an account that changes is not noticed
            66s GET https://api.twitterapi.io/oapi/tweet_filter/get_rules
            186s GET https://api.twitterapi.io/oapi/tweet_filter/get_rules
            426s GET https://api.twitterapi.io/oapi/tweet_filter/get_rules
            906s GET https://api.twitterapi.io/oapi/tweet_filter/get_rules
            912s GET https://api.twitterapi.io/oapi/x_user_stream/get_user_to_monitor_tweet?query_type=1
            912s scopes
                @quiet_kettle | from:Quiet_Kettle | a monitored account
                @soon | from:soon | a monitored account
                r1 | owl OR wren | filter rule birds
                r3 | tide | a filter rule
        "#]]);
    }

    #[test]
    fn pages_are_followed_and_must_be_whole() {
        let mut player = Player::new(Provider::Scrapebadger);
        let monitors = |n: usize, total: usize| {
            let rows: Vec<_> = (0..n).map(|n| serde_json::json!({"id": format!("m{n}"), "name": "crew", "usernames": ["a", "b"], "status": if n == 0 { "active" } else { "paused" }, "filter_types": ["reply"]})).collect();
            serde_json::json!({"monitors": rows, "total": total}).to_string()
        };
        player.answer(200, &monitors(100, 101));
        player.answer(200, &monitors(1, 101));
        player.answer(200, r#"{"rules":[{"id":"r1","tag":"t","query":"owl","status":"active"},{"id":"r2","tag":"u","query":"","status":"active"}],"total":2}"#);
        player.answer(200, &monitors(99, 101));
        player.check(expect![[r#"
            0s GET https://scrapebadger.com/v1/twitter/stream/monitors?page=1&page_size=100
            0s GET https://scrapebadger.com/v1/twitter/stream/monitors?page=2&page_size=100
            0s GET https://scrapebadger.com/v1/twitter/stream/filter-rules?page=1&page_size=100
            0s scopes
                m0 | accounts: a b (reply) | monitor crew
                r1 | owl | filter rule t
                r2 |  | filter rule u
            600s GET https://scrapebadger.com/v1/twitter/stream/monitors?page=1&page_size=100
            600s say Warn: what selects this stream cannot be read from scrapebadger (the answer is not a whole list); recording goes on, and it is asked again later: until then a rule or an account that changes is not noticed
        "#]]);
    }

    #[test]
    fn the_watchlist_counts_when_it_is_whole_and_the_connection_is_open() {
        let mut player = Player::new(Provider::Tweetstream);
        player.answer(200, r#"{"plan":"ELITE","trackedAccounts":{"count":2,"handles":["@Ann","bob"],"limit":6}}"#);
        player.answer(200, r#"{"plan":"ELITE","trackedAccounts":{"count":3,"handles":["ann","bob"],"limit":6}}"#);
        player.feed(Input::Closed(End { code: Some(1012), ..End::default() }));
        assert!(player.client.deadline().is_none(), "nothing is asked while nothing is recorded");
        player.now += Duration::from_secs(5);
        player.feed(Input::Opened { subprotocol: None });
        assert_eq!(player.client.deadline(), Some(player.now + REST - Duration::from_secs(5)), "not again a moment later");
        player.check(expect![[r#"
            0s GET https://api.tweetstream.io/api/me
            0s scopes
                watchlist | ann bob | the tracked accounts
            600s GET https://api.tweetstream.io/api/me
            600s say Warn: what selects this stream cannot be read from tweetstream (the answer is not a whole list); recording goes on, and it is asked again later: until then a rule or an account that changes is not noticed
            600s say Warn: close code 1012: the server restarts; next try in 100ms
        "#]]);
    }

    #[test]
    fn nobody_is_asked_where_it_is_switched_off() {
        for provider in Provider::ALL {
            let mut settings = default_settings(provider);
            assert_eq!(settings.scopes_every.is_zero(), provider == Provider::XLive);
            settings.scopes_every = Duration::ZERO;
            let mut lists = Lists::new(&settings);
            lists.opened(Instant::now());
            assert!(lists.deadline().is_none() && lists.due(Instant::now()).is_none());
        }
    }
}
