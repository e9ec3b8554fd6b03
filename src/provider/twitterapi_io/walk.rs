//! The walk through TwitterAPI.io's history: what rules and accounts would have delivered, by searching for it.
//!
//! Where the tape knows what was in force in the window, those texts are searched for. Where it does not, the rules and
//! the monitored accounts are read first, which is free; a rule that the tape names and the list no longer has, or has
//! with another text, is asked by the text it had on the tape, too. Each text is searched for in the window (`sweep.rs`),
//! accounts in groups. Deletes and edits have no history here, so posts are the only kind.
//!
//! Searches that met no known post at an edge are looked at a second time, all of them in one bulk request.
//!
//! | request | why | price |
//! | --- | --- | --- |
//! | `/oapi/tweet_filter/get_rules` | texts of the rules | free (observed, public clients) |
//! | `/oapi/x_user_stream/get_user_to_monitor_tweet` | handles of the accounts | free |
//! | `/twitter/tweet/advanced_search` | posts, at most 20 a page | 15 credits a post, 15 at the least (docs.twitterapi.io, "Pricing") |
//! | `/twitter/tweet/bulk_advanced_search` | second looks, many searches at once (agent skill, 2026-04) | each as a search of its own (assumed) |
//!
//! Limits of time stand inside the search as `since_time:` and `until_time:` with unix seconds (recommended on
//! "Pricing"; as parameters they are ignored, observed 2026-09).

use std::collections::HashMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::lists;

use crate::model::json::{Bad, Json};
use crate::model::{Decoded, EventKind, Response, TweetId, UnixMicros, parse_legacy_date};
use crate::provider::Settings;
use crate::provider::history::{Known, LastRead, Next, Page, Price, Proof, Selector, Trouble, Verdict, Wanted};
use crate::provider::lists::accounts_of;
use crate::provider::sweep::{
    ERRORS_MAX, Met, Refusal, Row, Stretch, Sweep, broken, decoded, get, groups, is_handle, judge, merged, post,
};
use crate::provider::twins::{Pages, Recent, Twin};

/// Host of the REST interface. Documented: docs.twitterapi.io, "API reference".
pub(super) const HOST: &str = "api.twitterapi.io";

const SEARCH: &str = "/twitter/tweet/advanced_search";
const BULK: &str = "/twitter/tweet/bulk_advanced_search";

/// Searches of one bulk request. Ours: the provider's bound is not published.
const BULK_MAX: usize = 50;

/// Documented: at most 20 posts on a page.
pub(crate) const PAGE: usize = 20;

/// Documented: 15 credits for a post or an empty call, 100,000 credits for a US dollar; so many millionths of one.
const MICRO_USD: u64 = 150;

/// Wait after a 429, which says nothing about it: who never paid has one request in 5 s (docs, "Rate limits").
const TOO_FAST_WAIT: Duration = Duration::from_secs(5);

const CURES: [&str; 3] = [
    "the API key is wrong; set the right one and start again",
    "the credits are used up; recharge the account, then go on",
    "the API key did not arrive or is not allowed to do this; check it and start again",
];

/// Version of the stored form.
const VERSION: u32 = 4;

/// What is being asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Stage {
    Rules,
    Accounts,
    Search,
}

/// All progress; this is the cursor.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct State {
    version: u32,
    stretch: Stretch,
    stage: Stage,
    sweeps: Vec<Sweep>,
    /// Searches that said only "error", in a row.
    errors: u8,
    /// Why something cannot be proven, whatever is found.
    holes: Vec<String>,
    /// Whether every last page is asked twice.
    doubt: bool,
    /// Whether bulk requests are of no use here.
    no_bulk: bool,
    /// Whether the tape knows all that selected, were it nothing.
    is_listed: bool,
    /// Pages by their rows, and cursors.
    faces: Pages,
    cursors: Recent<u64>,
    n_searches: u64,
    n_rows: u64,
}

/// A walk.
#[derive(Debug)]
pub struct Walk {
    settings: Settings,
    /// Rule ids and texts that the tape names, as far as they are wanted.
    on_tape: Vec<(String, String)>,
    /// Ids of all rules that the tape names.
    known_rules: Vec<String>,
    state: State,
    met: Met,
    pub(crate) last_read: LastRead<Option<Listing>>,
}

impl Walk {
    pub(crate) fn new(settings: &Settings, wanted: Wanted, cursor: Option<&str>) -> Self {
        let stretch = Stretch::of(&wanted);
        let stored = cursor.and_then(|cursor| serde_json::from_str::<State>(cursor).ok());
        let stored = stored.filter(|state| state.version == VERSION && state.stretch == stretch);
        let is_new = stored.is_none();
        let state = stored.unwrap_or(State {
            version: VERSION,
            stretch,
            stage: Stage::Rules,
            sweeps: Vec::new(),
            errors: 0,
            holes: Vec::new(),
            doubt: false,
            no_bulk: false,
            is_listed: false,
            faces: Pages::default(),
            cursors: Recent::default(),
            n_searches: 0,
            n_rows: 0,
        });
        let (accounts, rules): (Vec<_>, Vec<_>) = wanted.selectors.iter().partition(|selector| selector.id.starts_with('@'));
        let texts = |selector: &Selector| match selector.texts.is_empty() {
            true => selector.sample.as_deref().and_then(value_of).into_iter().collect(),
            false => selector.texts.clone(),
        };
        let is_wanted = |selector: &&&Selector| state.stretch.wants(&selector.id);
        let with_id =
            |selector: &&Selector| texts(selector).into_iter().map(|text| (selector.id.clone(), text)).collect::<Vec<_>>();
        let on_tape: Vec<_> = rules.iter().filter(is_wanted).flat_map(with_id).collect();
        let mut handles: Vec<String> = Vec::new();
        for text in accounts.iter().filter(is_wanted).flat_map(|selector| &selector.texts) {
            handles.extend(accounts_of(text).filter(|handle| is_handle(handle)).map(str::to_owned));
        }
        let known_rules = rules.iter().map(|selector| selector.id.clone()).collect();
        let mut walk =
            Self { settings: settings.clone(), on_tape, known_rules, state, met: Met::new(), last_read: LastRead::default() };
        let scope = walk.state.stretch.scope.as_str();
        let has_any = !(walk.on_tape.is_empty() && handles.is_empty());
        // An account's name says all there is to ask for.
        if is_new && ((wanted.is_listed && (scope == "*" || has_any)) || (scope.starts_with('@') && has_any)) {
            walk.state.is_listed = wanted.is_listed;
            walk.state.stage = Stage::Search;
            walk.add_sweeps(walk.on_tape.clone());
            walk.add_sweeps(of_accounts(&handles));
        }
        walk
    }

    /// Whether the history was caught at something.
    pub(crate) fn is_caught(&self) -> bool {
        self.state.sweeps.iter().any(|sweep| sweep.doubt)
    }

    /// Every last page is asked twice.
    pub(crate) fn doubt(&mut self) {
        self.state.doubt = true;
    }

    pub(crate) fn price(&self) -> Price {
        let (lists, searches) = match self.state.stage {
            Stage::Rules if self.state.stretch.scope == "*" => (2, self.on_tape.len().max(1)),
            Stage::Rules => (1, self.on_tape.len().max(1)),
            Stage::Accounts => (1, self.state.sweeps.len().max(1)),
            Stage::Search => (0, self.state.sweeps.iter().filter(|sweep| sweep.ask().is_some()).count()),
        };
        let searches = searches as u64;
        Price { requests: lists + searches, micro_usd: searches * MICRO_USD, micro_usd_per_thousand: 1_000 * MICRO_USD }
    }

    pub(crate) fn next(&mut self) -> Next {
        match self.state.stage {
            Stage::Rules => return Next::Ask(lists::ask_rules(&self.settings)),
            Stage::Accounts => return Next::Ask(lists::ask_accounts(&self.settings)),
            Stage::Search => {}
        }
        let asked: Vec<_> = self.asking().into_iter().filter_map(|at| self.state.sweeps[at].ask()).collect();
        match &asked[..] {
            [] => Next::Done(self.verdict()),
            [(query, cursor)] => {
                let mut params = vec![("query", query.as_str()), ("queryType", "Latest")];
                params.extend(cursor.map(|cursor| ("cursor", cursor)));
                Next::Ask(get(&self.settings, HOST, SEARCH, &params))
            }
            many => {
                let one = |(query, cursor): &(String, Option<&str>)| {
                    let mut one = json!({ "query": query, "queryType": "Latest" });
                    if let Some(cursor) = cursor {
                        one["cursor"] = (*cursor).into();
                    }
                    one
                };
                let queries: Vec<Value> = many.iter().map(one).collect();
                Next::Ask(post(&self.settings, HOST, BULK, json!({ "queries": queries }).to_string()))
            }
        }
    }

    /// The searches that are asked next: the first that was not asked yet, or all that want a second look.
    fn asking(&self) -> Vec<usize> {
        let sweeps = &self.state.sweeps;
        if let Some(at) = sweeps.iter().position(Sweep::is_first_look) {
            return vec![at];
        }
        let n_max = if self.state.no_bulk { 1 } else { BULK_MAX };
        (0..sweeps.len()).filter(|at| sweeps[*at].ask().is_some()).take(n_max).collect()
    }

    pub(crate) fn answered(&mut self, response: &Response, known: &mut dyn Known) -> Result<Page, Trouble> {
        match judge(&self.settings, response, TOO_FAST_WAIT, CURES) {
            Ok(()) => {}
            Err(Refusal::Trouble(trouble)) => return Err(trouble),
            Err(Refusal::Refused { words }) => return self.refused(words),
        }
        let text = std::str::from_utf8(&response.body).map_err(|_| broken("not UTF-8"))?;
        let read = self.last_read.take(&response.body).unwrap_or_else(|| Listing::read(text));
        let read = read.ok_or_else(|| broken("not whole JSON"))?;
        if read.status.as_deref() == Some("error") {
            let words = read.msg.unwrap_or_default();
            return self.error(format!("\"{}\"", words.chars().take(200).collect::<String>()));
        }
        let asked = self.asking();
        let page = match (self.state.stage, &asked[..]) {
            (Stage::Rules, _) => self.take_rules(text)?,
            (Stage::Accounts, _) => self.take_accounts(text)?,
            (Stage::Search, [at]) if read.is_list => self.take_page(*at, &read, known),
            (Stage::Search, [_]) => return self.error("an answer without posts".to_owned()),
            (Stage::Search, many) => self.take_bulk(many, text, known),
        };
        self.state.errors = 0;
        self.advance();
        Ok(page)
    }

    pub(crate) fn cursor(&self) -> String {
        serde_json::to_string(&self.state).unwrap_or_default()
    }

    fn take_rules(&mut self, text: &str) -> Result<Page, Trouble> {
        let value: Value = serde_json::from_str(text).map_err(|_| broken("not whole JSON"))?;
        let Some(rules) = lists::rules(&value) else { return self.error("an answer without rules".to_owned()) };
        if !self.known_rules.is_empty() && !rules.iter().any(|rule| self.known_rules.contains(&rule.id)) {
            let n = self.known_rules.len();
            self.state.holes.push(format!(
                "none of the {n} rules on the tape is among the provider's: the API key belongs to another account, or all of \
                 them were deleted; set the key of the account that was recorded"
            ));
            self.state.stage = Stage::Search;
            return Ok(Page::default());
        }
        let mut texts: Vec<(String, String)> = Vec::new();
        for rule in rules {
            let is_on_tape = self.known_rules.contains(&rule.id);
            if self.state.stretch.wants(&rule.id) && (rule.is_on || is_on_tape) {
                texts.push((rule.id, rule.text));
            }
        }
        texts.extend(self.on_tape.iter().cloned());
        self.add_sweeps(texts);
        self.leave_list();
        Ok(Page::default())
    }

    fn take_accounts(&mut self, text: &str) -> Result<Page, Trouble> {
        let value: Value = serde_json::from_str(text).map_err(|_| broken("not whole JSON"))?;
        let Some(all) = lists::accounts(&value) else { return self.error("an answer without accounts".to_owned()) };
        let mut handles: Vec<String> = Vec::new();
        for handle in all {
            if !is_handle(&handle) {
                self.state.holes.push(format!("account {handle:.32?} has a name that cannot be searched for"));
            } else if !handles.iter().any(|other| other.eq_ignore_ascii_case(&handle)) {
                handles.push(handle);
            }
        }
        self.add_sweeps(of_accounts(&handles));
        self.leave_list();
        Ok(Page::default())
    }

    fn add_sweeps(&mut self, texts: Vec<(String, String)>) {
        for (name, text) in texts {
            // Rules with the same text find the same.
            if !self.state.sweeps.iter().any(|sweep| sweep.text() == text) {
                self.state.sweeps.push(Sweep::new(name, text, PAGE, &self.state.stretch));
            }
        }
    }

    fn leave_list(&mut self) {
        self.state.stage = match self.state.stage {
            Stage::Rules if self.state.stretch.scope == "*" => Stage::Accounts,
            _ => Stage::Search,
        };
    }

    fn take_page(&mut self, at: usize, read: &Listing, known: &mut dyn Known) -> Page {
        let rows: Vec<_> = read.rows.iter().map(|(id, at)| Row { id: id.0, at: at.unwrap_or(UnixMicros(0)) }).collect();
        let next = read.next.as_deref().filter(|next| read.has_next && !next.is_empty());
        let face = self.state.stretch.face(&rows);
        let (twin, onward) = (self.state.faces.twin(&face, at), self.state.cursors.onward(next, at));
        let new = self.state.sweeps[at].page(&rows, onward, twin, &mut self.met, known);
        if self.state.sweeps[at].is_odd {
            self.state.faces.odd.note(face);
        }
        if let Twin::Of(other) = twin {
            self.state.sweeps[other].is_doubled(&rows);
        }
        let n_rows = rows.len() as u64;
        self.state.n_searches += 1;
        self.state.n_rows += n_rows;
        Page { rows: n_rows, new, micro_usd: n_rows.max(1) * MICRO_USD }
    }

    /// Takes the pages of many searches; where one is missing or is an error, each is asked alone from now on.
    fn take_bulk(&mut self, asked: &[usize], text: &str, known: &mut dyn Known) -> Page {
        let bulk = serde_json::from_str::<Bulk<'_>>(text).unwrap_or_default();
        let mut all = Page::default();
        for (nth, at) in asked.iter().enumerate() {
            let page = bulk.results.get(&format!("query_{nth}")).and_then(|page| Listing::read(page.get()));
            let Some(page) = page.filter(|page| page.is_list) else {
                self.state.no_bulk = true;
                continue;
            };
            let Page { rows, new, micro_usd } = self.take_page(*at, &page, known);
            all = Page { rows: all.rows + rows, new: all.new + new, micro_usd: all.micro_usd + micro_usd };
        }
        all
    }

    /// The provider says only that something is wrong: asked again, then taken as its answer.
    fn error(&mut self, words: String) -> Result<Page, Trouble> {
        if self.state.stage == Stage::Accounts && lists::says_no_plan(&words) {
            self.leave_list();
        } else if self.state.errors < ERRORS_MAX {
            self.state.errors += 1;
            return Err(Trouble::Again { after: None, why: format!("the provider says {words}") });
        } else {
            return self.refused(words);
        }
        self.advance();
        Ok(Page::default())
    }

    fn refused(&mut self, words: String) -> Result<Page, Trouble> {
        self.state.errors = 0;
        match self.state.stage {
            Stage::Rules => {
                self.state.holes.push(format!("the rules cannot be read: {words}"));
                self.add_sweeps(self.on_tape.clone());
                self.leave_list();
            }
            Stage::Accounts => {
                self.state.holes.push(format!("the monitored accounts cannot be read: {words}"));
                self.leave_list();
            }
            Stage::Search => match self.asking()[..] {
                [at] => self.state.sweeps[at].refuse(words),
                _ => self.state.no_bulk = true,
            },
        }
        self.advance();
        Ok(Page::default())
    }

    /// Where all is asked, last pages are asked once more: a single search's if nothing else was, all of them after a lie.
    fn advance(&mut self) {
        let State { stage, sweeps, doubt, .. } = &mut self.state;
        if *stage == Stage::Search && sweeps.iter().all(|sweep| sweep.ask().is_none()) {
            let is_alone = sweeps.len() == 1 && sweeps.iter().all(|sweep| !sweep.was_doubted());
            *doubt |= is_alone || sweeps.iter().any(|sweep| sweep.doubt);
            if *doubt {
                sweeps.iter_mut().for_each(Sweep::confirm);
            }
        }
    }

    fn verdict(&self) -> Verdict {
        let State { stretch, sweeps, holes, n_searches, n_rows, .. } = &self.state;
        let n_overlapped = sweeps.iter().filter(|sweep| sweep.overlapped()).count();
        let evidence = format!(
            "{} searches in {n_searches} pages gave {n_rows} rows; {n_overlapped} met known posts on both sides, the others \
             were asked twice where nothing came",
            sweeps.len()
        );
        let whole = (UnixMicros(stretch.from), UnixMicros(stretch.to));
        let mut whys = holes.clone();
        let mut rest: Vec<_> = Vec::new();
        if sweeps.is_empty() && holes.is_empty() && !self.state.is_listed {
            whys.push(match stretch.scope.as_str() {
                "*" => "neither the provider nor the tape names a rule or an account".to_owned(),
                scope => format!("neither the provider nor the tape has the text of rule {scope}"),
            });
        }
        if !whys.is_empty() {
            rest.push(whole);
        }
        for sweep in sweeps {
            rest.extend(sweep.unproven());
            match &sweep.refused {
                Some(words) => whys.push(format!("the search of {} is refused: {words}", sweep.name)),
                None if sweep.unproven().next().is_some() => {
                    whys.push(format!("the search of {} could not be asked to its end", sweep.name));
                }
                None => {}
            }
        }
        let rest = merged(rest);
        let proof = if rest.is_empty() { Proof::Filled } else { Proof::Partial { rest, why: whys.join("; ") } };
        Verdict { kinds: vec![(EventKind::Tweet, proof)], evidence }
    }
}

/// Searches for the posts of accounts, with a name for words.
fn of_accounts(handles: &[String]) -> Vec<(String, String)> {
    groups(handles).into_iter().map(|text| ("accounts".to_owned(), text)).collect()
}

/// The answer to a bulk request.
#[derive(Default, Deserialize)]
struct Bulk<'a> {
    #[serde(borrow, default)]
    results: HashMap<String, &'a RawValue>,
}

/// The text of a rule as its deliveries say it.
fn value_of(envelope: &[u8]) -> Option<String> {
    selected_by(envelope).map(|(_, value)| value)
}

/// Id and text of the rule that selected an envelope. Observed in captured deliveries: `rule_id`, `rule_value`.
pub(crate) fn selected_by(envelope: &[u8]) -> Option<(String, String)> {
    let (mut id, mut value) = (None, None);
    let mut json = Json::new(std::str::from_utf8(envelope).ok()?.trim());
    json.object(|key, json| {
        match key {
            "rule_id" => id = json.text()?.map(|text| text.into_owned()),
            "rule_value" => value = json.text()?.map(|text| text.trim().to_owned()),
            _ => {}
        }
        Ok(())
    })
    .ok()?;
    Some((id.unwrap_or_default(), value.filter(|text| !text.is_empty())?))
}

/// Reads a page of posts: of a search, a timeline, replies, or posts by id. Anything else has no events.
///
/// A page does not say which rule it was asked for, so its events have no selector. Posts inside posts are not events.
pub fn decode_page(body: &[u8]) -> Decoded {
    read_page(body).0
}

/// The events of an answer, and the answer, if it is a JSON object.
pub(crate) fn read_page(body: &[u8]) -> (Decoded, Option<Listing>) {
    let read = std::str::from_utf8(body).ok().and_then(Listing::read);
    let said = decoded(read.as_ref().map(|read| (read.is_exact, read.is_list.then_some(&read.rows[..]))));
    (said, read)
}

/// What an answer says, read in one pass.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    is_exact: bool,
    /// Whether it has a list of posts and is no envelope of the stream.
    is_list: bool,
    is_envelope: bool,
    rows: Vec<(TweetId, Option<UnixMicros>)>,
    has_next: bool,
    next: Option<String>,
    status: Option<String>,
    msg: Option<String>,
}

impl Listing {
    fn read(text: &str) -> Option<Self> {
        let inner = text.trim_matches([' ', '\t', '\r', '\n']);
        let mut json = Json::new(inner);
        let mut read = Self::default();
        if !inner.starts_with('{') {
            return None;
        }
        json.object(|key, json| read.take(inner, key, json, true)).ok()?;
        json.finish().ok()?;
        read.is_exact = inner.len() == text.len() && !json.is_multi_line();
        read.is_list &= !read.is_envelope;
        Some(read)
    }

    /// Paging stands at the top, or in `data`: the provider's pages disagree (see `history.rs`).
    fn take(&mut self, whole: &str, key: &str, json: &mut Json<'_>, at_top: bool) -> Result<(), Bad> {
        match key {
            "tweets" | "replies" => {
                self.is_list |= whole.as_bytes().get(json.position()) == Some(&b'[');
                json.array(|json| self.take_post(json))?;
            }
            "has_next_page" => {
                let start = json.position();
                json.skip()?;
                self.has_next = whole.get(start..json.position()) == Some("true");
            }
            "next_cursor" => self.next = json.text()?.map(|text| text.into_owned()),
            "status" if at_top => self.status = json.text()?.map(|text| text.into_owned()),
            "msg" | "message" if at_top => self.msg = json.text()?.map(|text| text.into_owned()),
            "event_type" if at_top => self.is_envelope = true,
            "data" if at_top => json.object(|key, json| self.take(whole, key, json, false))?,
            // Of a bulk request: by name of the search.
            "results" if at_top => json.object(|_, json| json.object(|key, json| self.take(whole, key, json, false)))?,
            _ => {}
        }
        Ok(())
    }

    fn take_post(&mut self, json: &mut Json<'_>) -> Result<(), Bad> {
        let (mut id, mut created_at) = (None, None);
        json.object(|key, json| {
            match key {
                "id" => id = json.id()?.map(TweetId),
                "createdAt" => created_at = json.text()?,
                _ => {}
            }
            Ok(())
        })?;
        if let Some(id) = id {
            let published_at = id.published_at().or_else(|| created_at.as_deref().and_then(parse_legacy_date));
            self.rows.push((id, published_at));
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::collections::{BTreeMap, HashSet};

    use super::*;
    use crate::model::Provider;
    use crate::provider::history::Walk as AnyWalk;
    use crate::provider::sweep::peer::{Peer, Ran, lies, ms, run, tampered};
    use crate::provider::synthetic::{Options, World};

    const EN: &str = "00000000000000000000000000000001";
    const REST: &str = "00000000000000000000000000000002";

    fn envelope(rule: Option<(&str, &str)>, tweet: &Value, at: UnixMicros) -> String {
        let mut envelope = serde_json::json!({"event_type": "tweet", "tweets": [tweet], "timestamp": at.millis()});
        if let Some((id, value)) = rule {
            envelope["rule_id"] = id.into();
            envelope["rule_value"] = value.into();
        }
        envelope.to_string()
    }

    /// Posts of a made-up world, under two rules and for four monitored accounts.
    fn world(seed: u64, rate: f64) -> Vec<(UnixMicros, String)> {
        let options = Options { seed, start: ms(0), rate, mix: [1.0, 0.0, 0.0, 0.0], authors: 30, ..Options::default() };
        let mut watched: Vec<String> = Vec::new();
        let mut seen = HashSet::new();
        let mut all = Vec::new();
        for one in World::new(options).take_while(|one| one.at < ms(300_000)) {
            let value: Value = serde_json::from_slice(&one.bytes).unwrap();
            for tweet in value["tweets"].as_array().map(Vec::as_slice).unwrap_or_default() {
                let id = tweet["id"].as_str().unwrap().parse::<u64>().unwrap();
                if !seen.insert(id) {
                    continue;
                }
                let handle = tweet["author"]["userName"].as_str().unwrap().to_owned();
                if watched.len() < 4 && !watched.contains(&handle) {
                    watched.push(handle.clone());
                }
                // Out of order by up to 9 seconds.
                let at = TweetId(id).published_at().unwrap().plus(Duration::from_millis(id / 7 % 9_000));
                let rule = if tweet["lang"] == "en" { (EN, "lang:en") } else { (REST, "-lang:en") };
                let rule = if watched.contains(&handle) { None } else { Some(rule) };
                all.push((at, envelope(rule, tweet, at)));
            }
        }
        all
    }

    fn peer(seed: u64, rate: f64) -> Peer {
        Peer::new(Provider::TwitterapiIo, world(seed, rate), ms(120_000), ms(180_000))
    }

    fn post(id: u64, text: &str) -> Value {
        serde_json::json!({"type": "tweet", "id": id.to_string(), "text": text, "lang": "en", "author": {"userName": "grebe", "id": "7"}})
    }

    /// Posts under one rule at those milliseconds; those of equal time get ids one after the other.
    fn tape(times: &[i64]) -> Vec<(UnixMicros, String)> {
        let mut n_at = BTreeMap::new();
        let mut one = |at: &i64| {
            let n = n_at.entry(*at).or_insert(0u64);
            *n += 1;
            let id = TweetId::first_at(ms(*at)).0 + *n;
            (ms(*at), envelope(Some((EN, "tide")), &post(id, "tide"), ms(*at)))
        };
        times.iter().map(&mut one).collect()
    }

    fn honest(peer: &mut Peer, walk: AnyWalk) -> Ran {
        run(peer, walk, false, |_, _, _, honest| honest)
    }

    fn least(ran: &Ran) -> usize {
        ran.rows.iter().map(|(list, rows)| if list.starts_with("/oapi") { 1 } else { rows.len().div_ceil(20).max(1) }).sum()
    }

    #[test]
    fn brings_back_a_hole_with_one_request_too_many_at_most() {
        for (seed, rate) in [(1, 10.0), (2, 3.0), (3, 30.0)] {
            let mut peer = peer(seed, rate);
            let walk = peer.walk();
            let price = walk.price();
            let ran = honest(&mut peer, walk);
            ran.check(&peer, "honest");
            assert!(ran.is_filled(), "{:?}", ran.verdict);
            assert!(ran.new as usize >= peer.lost.len() && peer.lost.len() > 50);
            println!(
                "{} lost, {} requests, {} at the least: {}",
                peer.lost.len(),
                ran.asked.len(),
                least(&ran),
                ran.verdict.evidence
            );
            assert!(ran.asked.len() <= least(&ran) + 1);
            assert!(price.requests as usize <= ran.asked.len() && price.micro_usd <= ran.micro_usd);
        }
    }

    #[test]
    fn a_single_rule_is_looked_at_twice_and_not_more() {
        let mut peer = peer(4, 10.0);
        peer.wanted.scope = EN.to_owned();
        peer.lost.retain(|_, _| false);
        let walk = peer.walk();
        let ran = honest(&mut peer, walk);
        assert!(ran.is_filled());
        println!("{} requests, {} at the least", ran.asked.len(), least(&ran));
        assert!(ran.asked.len() <= least(&ran) + 1);
    }

    /// Six rules that bring next to nothing, and two texts of one of them, as a tape with lists knows them.
    fn quiet() -> Peer {
        let one = |n: i64| {
            let id = TweetId::first_at(ms(20_000 + n)).0 + 1;
            (ms(20_000 + n), envelope(Some((&format!("rule{n}"), &format!("w{n}"))), &post(id, &format!("w{n}")), ms(20_000 + n)))
        };
        let mut peer = Peer::new(Provider::TwitterapiIo, (0..6).map(one).collect(), ms(120_000), ms(180_000));
        for (n, selector) in peer.wanted.selectors.iter_mut().enumerate() {
            selector.texts = vec![format!("w{n}")];
        }
        peer.wanted.selectors[0].texts.push("w0 OR owl".to_owned());
        peer.wanted.is_listed = true;
        peer
    }

    #[test]
    fn searches_without_a_known_post_are_looked_at_again_in_one_request() {
        let mut peer = quiet();
        for resume in [false, true] {
            let walk = peer.walk();
            let ran = run(&mut peer, walk, resume, |_, _, _, honest| honest);
            println!("{} requests, 7 at the least", ran.asked.len());
            assert!(ran.is_filled(), "{:?}", ran.verdict);
            assert_eq!(ran.asked.len(), 7 + 1, "{:#?}", ran.asked);
            assert!(ran.asked.iter().take(7).all(|target| target.starts_with(SEARCH)) && ran.asked[7] == BULK);
            assert!(ran.asked.iter().any(|target| target.contains("owl")), "both texts are asked");
        }
        // Where it is not to be had, or one of its answers is missing, each is asked alone.
        for spoil in [404, 200] {
            let walk = peer.walk();
            let ran = run(&mut peer, walk, false, |_, target, _, honest| match target == BULK {
                true => Response::json(spoil, r#"{"results":{"query_1":{"error":"no"}},"status":"success"}"#),
                false => honest,
            });
            assert!(ran.is_filled(), "{:?}", ran.verdict);
            assert_eq!(ran.asked.len(), 7 + 1 + 7, "{spoil}: {:#?}", ran.asked);
        }
        // One that was refused leaves its stretch open and the others proven.
        let walk = peer.walk();
        let ran = run(&mut peer, walk, false, |_, target, _, honest| match target.contains("query=w3") {
            true => Response::json(400, r#"{"detail":"this query can never match"}"#),
            false => honest,
        });
        assert!(!ran.is_filled());
    }

    #[test]
    fn the_rules_of_another_account_prove_nothing() {
        let mut peer = peer(7, 1.0);
        for selector in &mut peer.wanted.selectors {
            selector.id.insert(0, 'x');
        }
        let walk = peer.walk();
        let ran = honest(&mut peer, walk);
        assert_eq!((ran.asked.len(), ran.rest()), (1, vec![(peer.wanted.from, peer.wanted.to)]));
        let Proof::Partial { why, .. } = &ran.verdict.kinds[0].1 else { panic!() };
        assert!(why.contains("belongs to another account"), "{why}");
    }

    #[test]
    fn no_lie_loses_anything_in_silence() {
        let wrong = lies(&mut peer(5, 1.5), 1);
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[test]
    fn an_empty_page_and_later_one_of_another_search_lose_nothing_in_silence() {
        let mut peer = peer(5, 1.5);
        let walk = peer.walk();
        let n_asked = run(&mut peer, walk, false, |_, _, _, honest| honest).asked.len();
        for at in 0..n_asked {
            for then in at + 1..n_asked + 4 {
                let walk = peer.walk();
                let ran = run(&mut peer, walk, false, |n, target, before, honest| match n {
                    n if n == at => tampered("lying_next", Provider::TwitterapiIo, target, before, honest, 0),
                    n if n == then => tampered("repeat_page", Provider::TwitterapiIo, target, before, honest, 0),
                    _ => honest,
                });
                ran.check(&peer, &format!("empty {at}, repeated {then} of {n_asked}"));
            }
        }
    }

    /// Spoils one full page after the other, each in a walk of its own; `spoil` also sees the rows of the answer before.
    fn spoil_full_pages(what: &str, mut spoil: impl FnMut(&str, &mut Vec<Value>, &[Value]) -> bool) {
        let mut peer = peer(5, 3.0);
        let mut n_spoiled = 0;
        for of in 0..30 {
            let walk = peer.walk();
            let mut last = Value::Null;
            let ran = run(&mut peer, walk, false, |n, target, _, honest| {
                let Ok(mut page) = serde_json::from_slice::<Value>(&honest.body) else { return honest };
                let before = std::mem::replace(&mut last, page["tweets"].clone());
                let before = before.as_array().map_or(&[][..], Vec::as_slice);
                let Some(rows) = page["tweets"].as_array_mut().filter(|rows| n == of && rows.len() == PAGE) else {
                    return honest;
                };
                if !spoil(target, rows, before) {
                    return honest;
                }
                n_spoiled += 1;
                Response { body: page.to_string().into(), ..honest }
            });
            ran.check(&peer, &format!("{what} on answer {of}"));
            assert!(ran.is_filled(), "{:?}", ran.verdict);
        }
        assert!(n_spoiled > 3, "{n_spoiled}");
    }

    #[test]
    fn a_row_in_the_place_of_another_loses_nothing() {
        spoil_full_pages("doubled", |_, rows, _| {
            rows[7] = rows[8].clone();
            true
        });
    }

    /// Where cursors count rows, a page that begins with rows of the one before was counted from elsewhere, and the next may be, too.
    #[test]
    fn a_page_that_begins_with_the_one_before_loses_nothing() {
        spoil_full_pages("moved", |target, rows, before| {
            if before.len() != PAGE || !target.contains("cursor=") {
                return false;
            }
            // Two rows at its end fell off, and the next page is counted as if they had not.
            rows.truncate(PAGE - 2);
            rows.splice(0..0, before[PAGE - 2..].iter().cloned());
            true
        });
    }

    /// Each answer has a stray from before the window, and claims more: nobody can mistake that for an end.
    #[test]
    fn pages_of_strays_alone_prove_nothing() {
        let mut peer = Peer::new(Provider::TwitterapiIo, tape(&[20_000, 130_000, 140_000]), ms(120_000), ms(180_000));
        let walk = peer.walk();
        let ran = run(&mut peer, walk, false, |n, target, _, honest| {
            if !target.starts_with(SEARCH) {
                return honest;
            }
            let id = TweetId::first_at(ms(-500_000)).0 + n as u64;
            let page = json!({ "tweets": [post(id, "a stray")], "has_next_page": true, "next_cursor": format!("c{n}") });
            Response { body: page.to_string().into(), ..honest }
        });
        ran.check(&peer, "strays");
        assert!(!ran.is_filled(), "{:?}", ran.verdict);
    }

    #[test]
    fn a_second_look_that_lacks_what_the_first_one_had_proves_nothing() {
        let mut peer = Peer::new(Provider::TwitterapiIo, tape(&[20_000, 130_000, 140_000]), ms(120_000), ms(180_000));
        let (walk, mut n_searches) = (peer.walk(), 0);
        let ran = run(&mut peer, walk, false, |_, target, _, honest| {
            let mut page: Value = serde_json::from_slice(&honest.body).unwrap();
            let Some(rows) = page["tweets"].as_array_mut().filter(|_| target.starts_with(SEARCH)) else { return honest };
            n_searches += 1;
            match n_searches {
                1 => rows.truncate(1),
                2 => rows.clear(),
                _ => {}
            }
            Response { body: page.to_string().into(), ..honest }
        });
        ran.check(&peer, "the second look was answered with nothing");
        assert!(ran.is_filled() && n_searches > 3, "{n_searches}: {:?}", ran.verdict);
    }

    #[test]
    fn cursors_that_never_advance_are_not_needed() {
        let mut times: Vec<i64> = (0..400).map(|n| n * 500).collect();
        times.extend(vec![100_000; 70]);
        let mut peer = Peer::new(Provider::TwitterapiIo, tape(&times), ms(60_000), ms(160_000));
        let walk = peer.walk();
        let ran = run(&mut peer, walk, true, |_, target, _, honest| {
            let mut page: Value = serde_json::from_slice(&honest.body).unwrap();
            if target.contains("cursor=") {
                page["tweets"] = serde_json::json!([]);
            }
            if page["has_next_page"] == true {
                page["next_cursor"] = "stuck".into();
            }
            Response { body: page.to_string().into(), ..honest }
        });
        ran.check(&peer, "stuck");
        assert!(ran.is_filled(), "{:?}", ran.verdict);
        assert!(ran.asked.iter().any(|target| target.contains("max_id")), "70 posts in one second do not fit on a page");
    }

    #[test]
    fn goes_on_after_every_page() {
        let mut peer = peer(6, 10.0);
        let walk = peer.walk();
        let without = honest(&mut peer, walk);
        let walk = peer.walk();
        let with = run(&mut peer, walk, true, |_, _, _, honest| honest);
        assert_eq!(with.asked, without.asked);
        assert_eq!((with.new, &with.verdict), (without.new, &without.verdict));
        // A cursor of another stretch begins anew.
        let mut walk = peer.walk();
        let begun = walk.cursor();
        let Next::Ask(request) = walk.next() else { panic!() };
        let response = peer.ask("GET", request.target.expose(), "");
        walk.answered(&response, &mut crate::provider::sweep::peer::Tape(HashSet::new())).unwrap();
        assert_ne!(walk.cursor(), begun);
        let mut other = peer.wanted.clone();
        other.to = ms(181_000);
        for cursor in [walk.cursor(), "{}".to_owned(), String::new()] {
            let walk = AnyWalk::new(&peer.settings(), other.clone(), Some(&cursor));
            assert_eq!(walk.cursor(), AnyWalk::new(&peer.settings(), other.clone(), None).cursor());
        }
    }

    #[test]
    fn empty_windows_and_edges() {
        // (posts, whether the verdict is whole, searches)
        let cases: [(&[i64], usize); 5] = [
            (&[20_000, 95_000, 95_100, 130_000, 175_000], 2), // known on both sides
            (&[20_000], 2),                                   // nothing at all in the window
            (&[20_000, 130_000], 2),                          // nothing known on either side
            (&[20_000, 95_000, 130_000], 2),                  // quiet after
            (&[109_999, 110_000, 119_999, 179_999, 180_000], 2),
        ];
        for (times, n_searches) in cases {
            let mut peer = Peer::new(Provider::TwitterapiIo, tape(times), ms(120_000), ms(180_000));
            let walk = peer.walk();
            let ran = honest(&mut peer, walk);
            ran.check(&peer, "edges");
            assert!(ran.is_filled(), "{times:?}: {:?}", ran.verdict);
            assert_eq!(ran.asked.len(), 2 + n_searches, "{times:?}: {:?}", ran.asked);
        }
        // Each look brings another one: it is never proven.
        let times: Vec<i64> = [20_000].into_iter().chain((0..18).map(|n| 121_000 + n * 3_000)).collect();
        let mut peer = Peer::new(Provider::TwitterapiIo, tape(&times), ms(120_000), ms(180_000));
        let walk = peer.walk();
        let ran = run(&mut peer, walk, false, |n, _, _, honest| {
            let mut page: Value = serde_json::from_slice(&honest.body).unwrap();
            if let Some(tweets) = page["tweets"].as_array_mut() {
                tweets.truncate(n);
            }
            Response { body: page.to_string().into(), ..honest }
        });
        ran.check(&peer, "growing");
        assert_eq!(ran.rest(), [(peer.wanted.from, peer.wanted.to)]);
    }

    #[test]
    fn a_rule_that_was_edited_or_deleted_is_asked_as_it_was() {
        for deleted in [false, true] {
            let mut peer = peer(7, 4.0);
            let body = match deleted {
                true => format!(r#"{{"rule_id":"{EN}"}}"#),
                false => format!(r#"{{"rule_id":"{EN}","tag":"t","value":"owl","interval_seconds":100,"is_effect":1}}"#),
            };
            let (method, path) =
                if deleted { ("DELETE", "/oapi/tweet_filter/delete_rule") } else { ("POST", "/oapi/tweet_filter/update_rule") };
            assert_eq!(peer.ask(method, path, &body).status, 200);
            let walk = peer.walk();
            let ran = honest(&mut peer, walk);
            ran.check(&peer, "edited");
            assert!(ran.is_filled(), "{:?}", ran.verdict);
        }
        let mut peer = peer(7, 1.0);
        peer.wanted.scope = "nobody".to_owned();
        let walk = peer.walk();
        let ran = honest(&mut peer, walk);
        assert_eq!((ran.asked.len(), ran.rest()), (1, vec![(peer.wanted.from, peer.wanted.to)]));
    }

    #[test]
    fn refusals_say_what_to_do() {
        let mut peer = peer(8, 1.0);
        let said = |peer: &Peer, response: Response| {
            let mut walk = peer.walk();
            walk.next();
            walk.answered(&response, &mut crate::provider::sweep::peer::Tape(HashSet::new()))
        };
        for status in [401, 402, 403] {
            let refusal = crate::provider::tamper::refusal(Provider::TwitterapiIo, status, None, None);
            assert!(matches!(said(&peer, refusal), Err(Trouble::Stop { why }) if why.contains(';')));
        }
        let slow = |wait| crate::provider::tamper::refusal(Provider::TwitterapiIo, 429, wait, None);
        let wait = Duration::from_secs(17);
        assert!(matches!(said(&peer, slow(Some(wait))), Err(Trouble::Again { after: Some(after), .. }) if after == wait));
        assert!(matches!(said(&peer, slow(None)), Err(Trouble::Again { after: Some(TOO_FAST_WAIT), .. })));
        assert!(matches!(said(&peer, Response::json(200, "{")), Err(Trouble::Again { .. })));
        // A search that is refused leaves the stretch open, and the others are asked.
        let walk = peer.walk();
        let ran = run(&mut peer, walk, false, |_, target, _, honest| match target.contains("query=lang%3Aen") {
            true => Response::json(400, r#"{"detail":"this query can never match"}"#),
            false => honest,
        });
        ran.check(&peer, "refused");
        assert!(!ran.is_filled());
    }

    #[test]
    fn reads_pages_strictly() {
        let ids = |body: &str| -> Vec<String> {
            let decoded = decode_page(body.as_bytes());
            decoded.events.iter().map(|event| format!("{:?}", event.id)).collect()
        };
        let row = r#"{"id":"1990000000000000001","quoted_tweet":{"id":"5"}}"#;
        for body in [
            format!(r#"{{"tweets":[{row}],"has_next_page":false,"next_cursor":""}}"#),
            format!(r#"{{"status":"success","data":{{"tweets":[{row}]}}}}"#),
            format!(r#"{{"replies":[{row}],"status":"success"}}"#),
            r#"{"tweets":[{"id":1990000000000000001}]}"#.to_owned(),
        ] {
            assert_eq!(ids(&body), ["Tweet(TweetId(1990000000000000001))"], "{body}");
        }
        for body in [
            "",
            "[]",
            "{",
            "not json",
            r#"{"rules":[{"rule_id":"1","value":"x"}]}"#,
            r#"{"data":[{"id_for_user":"1","x_user_id":5}]}"#,
            r#"{"tweets":[{"id":1.99e18},{"id":"x"},{}]}"#,
            r#"{"event_type":"tweet","tweets":[{"id":"1990000000000000001"}]}"#,
            r#"{"tweets":[{"id":"1990000000000000001"}]"#,
        ] {
            assert_eq!(ids(body), [""; 0], "{body}");
        }
    }
}
