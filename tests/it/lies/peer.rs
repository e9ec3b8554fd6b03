//! A history that lies: pages of all four providers, made of a true list, bent on the way out.
//!
//! It remembers what it denied, and whether the answer showed it: a [`Denied`] is what a client can be blamed with.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::ops::Range;

use birdtape::model::{EventKind, Provider, Request, Response, UnixMicros};
use birdtape::provider::form_values;

use super::world::{HANDLES, Lie, MONITOR, N_WATCHED, RULES, TALK, Thing, World};
use crate::simulate::dice::Dice;
use crate::simulate::table::Table;

/// How often a thing was kept back by answers that looked right.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Denied {
    /// It should have stood among the rows that were given.
    pub(super) among: u32,
    /// Of these, on a page that was the last one.
    pub(super) among_last: u32,
    /// It should have come after them, and they were said to be the last.
    pub(super) behind: u32,
    /// It should have stood on a page that was short and claimed more, which shows that something is missing, and not what.
    pub(super) short: u32,
}

pub(super) struct Peer<'w> {
    world: &'w World,
    dice: Dice,
    n_asked: u64,
    /// By position among the things.
    pub(super) denied: Vec<Denied>,
    /// Lies that changed an answer.
    pub(super) table: Table,
    hidden: HashSet<usize>,
    late: HashSet<usize>,
    nothing_before: UnixMicros,
    /// Rows that were left out once, ends that were claimed once, pages that were passed over once.
    left_out: HashSet<usize>,
    cut: HashSet<u64>,
    skipped: HashSet<u64>,
    rows_before: Vec<usize>,
    /// What they were asked with: the list, and what the answer may have by the documents, from where on.
    list_before: &'static str,
    question_before: (Vec<usize>, usize),
    /// Rows of the longest page that reached anybody: how many fit, where no document says it; and before the last answer.
    longest: usize,
    longest_before: usize,
    cursors: Vec<String>,
    n_standing: u64,
    /// Outsiders' rows have ids of their own.
    n_strange: u64,
}

/// How one page leads to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Paging {
    Cursors,
    /// Pages have numbers, and a total is told.
    Counted,
    /// A page is as much as is given at once; who wants more asks for less time.
    Windows,
    /// Whether there is more is told, and the oldest row bounds the next page.
    Bounded,
}

/// What a list is asked for.
struct Question {
    /// Things that the answer may have, by the documents, newest first.
    all: Vec<usize>,
    /// Of them those that this history has, in its order.
    list: Vec<usize>,
    /// Where the page begins in the list.
    start: usize,
    page: usize,
    cursor: Option<String>,
    by_receipt: bool,
    /// Names the list, as far as pages of it look alike.
    of: &'static str,
}

/// A page as it is told.
#[derive(Default)]
struct Told {
    rows: Vec<usize>,
    /// Rows that are nobody's, each its id, and those of them that nothing selected.
    strange: Vec<u64>,
    strangers: Vec<u64>,
    /// Position in the list where the next page begins, if one is claimed.
    next: Option<usize>,
    /// Said in place of the right cursor.
    cursor: Option<String>,
    /// How many rows there are in all, where that is said.
    total: usize,
    /// Whether something about it is plainly wrong.
    has_sign: bool,
    /// Whether it has fewer rows than fit, and claims more: a sign for what should stand among them.
    is_short: bool,
    /// Whether the number that is said is that of the honest page.
    keeps_count: bool,
}

impl<'w> Peer<'w> {
    pub(super) fn new(world: &'w World) -> Self {
        let mut dice = Dice::new(world.seed, 12);
        let n = world.things.len();
        let some = |dice: &mut Dice, lie: Lie| -> HashSet<usize> {
            if world.tells(lie) { (0..n).filter(|_| dice.chance(60)).collect() } else { HashSet::new() }
        };
        let hidden = some(&mut dice, Lie::Hidden);
        let late = some(&mut dice, Lie::Late);
        let (from, to) = (world.wanted.from.0, world.wanted.to.0);
        let nothing_before =
            UnixMicros(if world.tells(Lie::Retention) { from + dice.below((to - from).max(1) as u64) as i64 } else { i64::MIN });
        Self {
            world,
            dice,
            n_asked: 0,
            denied: vec![Denied::default(); n],
            table: Table::default(),
            hidden,
            late,
            nothing_before,
            left_out: HashSet::new(),
            cut: HashSet::new(),
            skipped: HashSet::new(),
            rows_before: Vec::new(),
            list_before: "",
            question_before: Default::default(),
            longest: 0,
            longest_before: 0,
            cursors: Vec::new(),
            n_standing: 0,
            n_strange: 0,
        }
    }

    /// Whether no answer ever had it: nobody who asks can know.
    pub(super) fn never_gives(&self, at: usize) -> bool {
        self.hidden.contains(&at) || self.things()[at].at < self.nothing_before
    }

    /// Whether that lie is told now.
    fn lies(&mut self, lie: Lie) -> bool {
        let Some(told) = self.world.lies.iter().find(|told| told.lie == lie) else { return false };
        self.dice.chance(told.chance)
    }

    fn reach(&mut self, lie: Lie) {
        self.table.note(lie.name());
    }

    /// Nobody keeps what the last answer said.
    pub(super) fn was_lost(&mut self) {
        self.longest = self.longest_before;
    }

    pub(super) fn answer(&mut self, request: &Request) -> Response {
        self.n_asked += 1;
        self.longest_before = self.longest;
        if let Some(trouble) = self.trouble() {
            return trouble;
        }
        let target = request.target.expose();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let params: HashMap<String, String> = form_values(query).collect();
        let body = match self.world.provider {
            Provider::TwitterapiIo => self.twitterapi_io(path, &params, &request.body),
            Provider::Tweetstream => self.tweetstream(path, &params),
            Provider::Scrapebadger => self.scrapebadger(path, &params),
            Provider::XLive => self.x_live(path, &params),
        };
        if self.lies(Lie::Cut) {
            self.reach(Lie::Cut);
            self.was_lost();
            let mut half = body.len() / 2;
            while !body.is_char_boundary(half) {
                half -= 1;
            }
            return Response::json(200, &body[..half]);
        }
        Response::json(200, body)
    }

    /// What comes in place of any answer.
    fn trouble(&mut self) -> Option<Response> {
        if self.lies(Lie::Limited) {
            self.reach(Lie::Limited);
            let mut response = Response::json(429, r#"{"error":"slow down"}"#);
            if self.dice.chance(500) {
                response.headers.push(("retry-after".to_owned(), "2".to_owned()));
            }
            return Some(response);
        }
        if self.lies(Lie::Fault) {
            self.reach(Lie::Fault);
            let status = *self.dice.pick(&[500, 502, 503, 504]);
            return Some(Response::json(status, r#"{"error":"fault"}"#));
        }
        if self.lies(Lie::ErrorBody) {
            self.reach(Lie::ErrorBody);
            let body = match self.world.provider {
                Provider::XLive => r#"{"errors":[{"code":131,"message":"Internal error"}]}"#,
                _ => r#"{"status":"error","msg":"try later","error":"try later"}"#,
            };
            return Some(Response::json(200, body));
        }
        if self.lies(Lie::Html) {
            self.reach(Lie::Html);
            return Some(Response::json(200, "<html><body>One moment, please</body></html>"));
        }
        None
    }

    fn things(&self) -> &'w [Thing] {
        &self.world.things
    }

    // Questions.

    /// What lies in the stretch `span` and fits, by the documents and by this history; `time` is what bounds compare with.
    fn select(
        &mut self,
        span: Range<i64>,
        unit: i64,
        max_id: Option<u64>,
        time: impl Fn(&Thing) -> UnixMicros,
        fits: impl Fn(&Thing) -> bool,
    ) -> (Vec<usize>, Vec<usize>) {
        let things = self.things();
        let is_below = |thing: &Thing| max_id.is_none_or(|max| thing.id <= max);
        let within = |span: &Range<i64>| -> Vec<usize> {
            let of = |at: &usize| fits(&things[*at]) && is_below(&things[*at]) && span.contains(&time(&things[*at]).0);
            (0..things.len()).filter(of).collect()
        };
        let all = within(&span);
        let mut bent = span.clone();
        for lie in [Lie::Bounds, Lie::Rounded] {
            if self.lies(lie) {
                let before = bent.clone();
                match (lie, self.world.seed.is_multiple_of(2)) {
                    (Lie::Bounds, true) => bent.start += unit,
                    (Lie::Bounds, false) => bent.end += unit,
                    _ => {
                        bent =
                            (bent.start + 999_999).div_euclid(1_000_000) * 1_000_000..bent.end.div_euclid(1_000_000) * 1_000_000
                    }
                }
                if within(&bent) != within(&before) {
                    self.reach(lie);
                }
            }
        }
        let is_early = self.n_asked <= 2 + self.world.seed % 6;
        let mut list = within(&bent);
        let before = list.len();
        list.retain(|at| !self.hidden.contains(at));
        if list.len() < before {
            self.reach(Lie::Hidden);
        }
        let before = list.len();
        list.retain(|at| !(is_early && self.late.contains(at)));
        if list.len() < before {
            self.reach(Lie::Late);
        }
        let before = list.len();
        list.retain(|at| things[*at].at >= self.nothing_before);
        if list.len() < before {
            self.reach(Lie::Retention);
        }
        (all, list)
    }

    /// Where a cursor stands in a list.
    fn start_of(&self, list: &[usize], cursor: Option<&str>) -> usize {
        let Some((sort, rest)) = cursor.and_then(|cursor| cursor.split_at_checked(1)) else { return 0 };
        let (offset, id) = rest.split_once('-').unwrap_or((rest, ""));
        match sort {
            "o" => offset.parse().unwrap_or(0).min(list.len()),
            "a" => id.parse::<u64>().map_or(0, |id| list.partition_point(|at| self.things()[*at].id >= id)),
            // Of nobody's making: from the beginning.
            _ => 0,
        }
    }

    fn cursor_at(&self, list: &[usize], start: usize) -> String {
        let last = start.checked_sub(1).and_then(|at| list.get(at)).map_or(u64::MAX, |at| self.things()[*at].id);
        format!("{}{start}-{last}", if self.world.by_offset { 'o' } else { 'a' })
    }

    // Answers.

    /// Tells a page: the honest one, then what became of it.
    fn tell(&mut self, question: &Question, paging: Paging) -> Told {
        let has_cursors = paging == Paging::Cursors;
        let Question { list, start, of, .. } = question;
        if std::mem::replace(&mut self.list_before, of) != *of {
            self.rows_before.clear();
            self.cursors.clear();
        }
        let (mut start, mut page) = (*start, question.page);
        if start > 0 && self.lies(Lie::Shifted) {
            self.reach(Lie::Shifted);
            start -= (self.dice.between(1, 3) as usize).min(start);
        }
        if has_cursors && self.lies(Lie::PageSize) {
            self.reach(Lie::PageSize);
            page = (page / self.dice.between(2, 6) as usize).max(2);
        }
        let end = (start + page).min(list.len());
        let mut told = Told { rows: list[start..end].to_vec(), total: list.len(), ..Told::default() };
        told.next = (end < list.len()).then_some(end);
        let is_last = told.next.is_none();
        told.is_short = page < question.page && !is_last;
        self.leave_out(question, &mut told, end, paging);
        if has_cursors
            && let Some(next) = told.next.filter(|next| next + page < list.len())
            && self.lies(Lie::PageSwallowed)
            && self.skipped.insert(self.things()[list[next]].id)
        {
            self.reach(Lie::PageSwallowed);
            told.next = Some(next + page);
        }
        self.end_early(&mut told, start, paging);
        if has_cursors {
            self.bend_cursor(question, &mut told);
        }
        if !self.rows_before.is_empty() && self.lies(Lie::PageRepeats) && self.rows_before != told.rows {
            self.reach(Lie::PageRepeats);
            told.rows.clone_from(&self.rows_before);
            // Who asks the same again may be told the same.
            told.has_sign |= (&question.all, question.start) != (&self.question_before.0, self.question_before.1);
        }
        if self.lies(Lie::Emptied) {
            self.reach(Lie::Emptied);
            told.rows.clear();
            told.next = told.next.or(Some(end));
            (told.has_sign, told.keeps_count) = (true, true);
        }
        self.disorder(&mut told);
        // What nothing selected takes a place, too, and who asked cannot tell it from the rest.
        told.is_short &= told.rows.iter().collect::<HashSet<_>>().len() + told.strangers.len() < question.page;
        self.note_denied(question, &told, start);
        if !told.rows.is_empty() {
            self.rows_before.clone_from(&told.rows);
            self.question_before = (question.all.clone(), question.start);
        }
        self.longest = self.longest.max(told.rows.len());
        told
    }

    fn end_early(&mut self, told: &mut Told, start: usize, paging: Paging) {
        let Some(last) = told.rows.last().map(|at| self.things()[*at].id) else { return };
        let could = if paging == Paging::Windows { told.rows.len() > 1 } else { told.next.is_some() };
        if !could || !self.lies(Lie::EndsEarly) || !self.cut.insert(last) {
            return;
        }
        self.reach(Lie::EndsEarly);
        if paging == Paging::Windows {
            let keep = self.dice.between(1, told.rows.len() as u64 - 1) as usize;
            told.rows.truncate(keep);
        }
        told.next = None;
        told.total = start + told.rows.len();
    }

    fn leave_out(&mut self, question: &Question, told: &mut Told, end: usize, paging: Paging) {
        let is_short = told.next.is_some()
            && match paging {
                Paging::Cursors => true,
                Paging::Counted => false,
                Paging::Windows => question.page == 1_000,
                Paging::Bounded => self.longest >= question.page,
            };
        if self.lies(Lie::RowsMissing) {
            let n = self.dice.between(1, 3);
            for _ in 0..n {
                if told.rows.is_empty() {
                    break;
                }
                let at = self.dice.below(told.rows.len() as u64) as usize;
                if self.left_out.insert(told.rows[at]) {
                    self.reach(Lie::RowsMissing);
                    told.rows.remove(at);
                    told.is_short |= is_short;
                    told.has_sign |= paging == Paging::Counted;
                }
            }
        }
        if self.lies(Lie::RowsSwallowed) && told.rows.len() > 1 {
            let at = self.dice.below(told.rows.len() as u64) as usize;
            if self.left_out.insert(told.rows[at]) {
                self.reach(Lie::RowsSwallowed);
                told.rows.remove(at);
                if let Some(next) = question.list.get(end).filter(|_| told.rows.len() + 1 == question.page) {
                    told.rows.push(*next);
                    told.next = (end + 1 < question.list.len()).then_some(end + 1);
                }
            }
        }
    }

    fn bend_cursor(&mut self, question: &Question, told: &mut Told) {
        if self.lies(Lie::CursorRepeats) {
            self.reach(Lie::CursorRepeats);
            told.cursor = Some(question.cursor.clone().unwrap_or_else(|| "x".to_owned()));
            told.has_sign = true;
        }
        if !self.cursors.is_empty() && self.lies(Lie::CursorCycle) {
            self.reach(Lie::CursorCycle);
            let back = self.dice.between(1, 5.min(self.cursors.len() as u64)) as usize;
            told.cursor = Some(self.cursors[self.cursors.len() - back].clone());
            told.has_sign = true;
        }
        if !self.rows_before.is_empty() && self.lies(Lie::Standing) {
            self.reach(Lie::Standing);
            self.n_standing += 1;
            told.rows.clone_from(&self.rows_before);
            told.cursor = Some(format!("s{}", self.n_standing));
            told.has_sign = true;
        }
        if told.cursor.is_none()
            && let Some(next) = told.next
        {
            let cursor = self.cursor_at(&question.list, next);
            self.cursors.push(cursor);
        }
    }

    /// What the answer keeps back of what the documents promise, where nothing on it shows that.
    fn note_denied(&mut self, question: &Question, told: &Told, start: usize) {
        if told.has_sign {
            return;
        }
        let things = self.things();
        let key = |at: usize| if question.by_receipt { things[at].received.0 as u64 } else { things[at].id };
        let newest = start.checked_sub(1).and_then(|at| question.list.get(at)).map_or(u64::MAX, |at| key(*at));
        let oldest = told.next.and_then(|next| question.list.get(next - 1)).map_or(0, |at| key(*at));
        let last = told.rows.iter().map(|at| key(*at)).min().unwrap_or(u64::MAX);
        for at in question.all.iter().filter(|at| (oldest..newest).contains(&key(**at)) && !told.rows.contains(at)) {
            // Bounds may be taken this way or that: who asks for just what he needs has himself to blame.
            let is_by_bounds = !question.list.contains(at) && !self.hidden.contains(at) && !self.late.contains(at);
            if is_by_bounds && things[*at].at >= self.nothing_before {
                continue;
            }
            let denied = &mut self.denied[*at];
            if told.is_short && key(*at) > last {
                denied.short += 1;
                continue;
            }
            if key(*at) > last || told.next.is_some() {
                denied.among += 1;
                denied.among_last += u32::from(told.next.is_none());
            } else {
                denied.behind += 1;
            }
        }
    }

    fn disorder(&mut self, told: &mut Told) {
        if told.rows.len() > 1 && self.lies(Lie::Shuffled) {
            self.reach(Lie::Shuffled);
            for at in (1..told.rows.len()).rev() {
                let other = self.dice.below(at as u64 + 1) as usize;
                told.rows.swap(at, other);
            }
        }
        if told.rows.len() > 1 && self.lies(Lie::Reversed) {
            self.reach(Lie::Reversed);
            told.rows.reverse();
        }
        if !told.rows.is_empty() && self.lies(Lie::Doubled) {
            self.reach(Lie::Doubled);
            let at = self.dice.below(told.rows.len() as u64) as usize;
            told.rows.insert(at, told.rows[at]);
        }
        let (from, to) = (self.world.wanted.from, self.world.wanted.to);
        for (lie, span) in [
            (Lie::Strangers, from.0..to.0),
            (
                Lie::Outside,
                if self.dice.chance(500) {
                    from.0 - 900_000_000..from.0 - 200_000_000
                } else {
                    to.0 + 200_000_000..to.0 + 900_000_000
                },
            ),
        ] {
            if self.lies(lie) {
                self.reach(lie);
                for _ in 0..self.dice.between(1, 3) {
                    let at = span.start + self.dice.below((span.end - span.start).max(1) as u64) as i64;
                    self.n_strange += 1;
                    let id = birdtape::model::TweetId::first_at(UnixMicros(at)).0 + (1 << 21) + self.n_strange;
                    told.strange.push(id);
                    if lie == Lie::Strangers {
                        told.strangers.push(id);
                    }
                }
            }
        }
    }

    // TwitterAPI.io

    fn twitterapi_io(&mut self, path: &str, params: &HashMap<String, String>, body: &str) -> String {
        if path.ends_with("/get_rules") {
            let rules = RULES.map(|(id, text)| format!(r#"{{"rule_id":"{id}","tag":"t","value":"{text}","is_effect":1}}"#));
            return format!(r#"{{"status":"success","rules":[{}]}}"#, rules.join(","));
        }
        if path.ends_with("/get_user_to_monitor_tweet") {
            let rows =
                HANDLES[..N_WATCHED].iter().map(|handle| format!(r#"{{"x_user_screen_name":"{handle}","is_monitor_tweet":1}}"#));
            return format!(r#"{{"status":"success","data":[{}]}}"#, rows.collect::<Vec<_>>().join(","));
        }
        if path.ends_with("/bulk_advanced_search") {
            let asked: serde_json::Value = serde_json::from_str(body).unwrap();
            let queries = asked["queries"].as_array().unwrap();
            let pages = queries.iter().enumerate().map(|(nth, one)| {
                let page = self.search(one["query"].as_str().unwrap(), one["cursor"].as_str());
                format!(r#""query_{nth}":{}"#, self.tweets(&page))
            });
            let pages: Vec<_> = pages.collect();
            return format!(r#"{{"status":"success","results":{{{}}}}}"#, pages.join(","));
        }
        let page = self.search(params.get("query").map_or("", String::as_str), params.get("cursor").map(String::as_str));
        self.tweets(&page)
    }

    fn tweets(&self, (told, cursor): &(Told, Option<String>)) -> String {
        let mut body = r#"{"tweets":["#.to_owned();
        for (nth, id) in self.ids(told).enumerate() {
            let comma = if nth > 0 { "," } else { "" };
            write!(body, r#"{comma}{{"type":"tweet","id":"{id}","text":"of {nth}","lang":"en"}}"#).unwrap();
        }
        let (has_next, cursor) = (cursor.is_some(), cursor.as_deref().unwrap_or_default());
        write!(body, r#"],"has_next_page":{has_next},"next_cursor":"{cursor}"}}"#).unwrap();
        body
    }

    fn ids<'a>(&'a self, told: &'a Told) -> impl Iterator<Item = u64> + 'a {
        told.rows.iter().map(|at| self.things()[*at].id).chain(told.strange.iter().copied())
    }

    /// A search in X's own language, as far as walks speak it.
    fn search(&mut self, query: &str, cursor: Option<&str>) -> (Told, Option<String>) {
        let (mut handles, mut words) = (Vec::new(), Vec::new());
        let (mut since, mut until, mut max_id) = (i64::MIN, i64::MAX, None);
        for token in query.split([' ', '(', ')']).filter(|token| !token.is_empty() && *token != "OR") {
            match token.split_once(':') {
                Some(("since_time", at)) => since = at.parse::<i64>().unwrap() * 1_000_000,
                Some(("until_time", at)) => until = at.parse::<i64>().unwrap() * 1_000_000,
                Some(("max_id", id)) => max_id = Some(id.parse().unwrap()),
                Some(("from", handle)) => handles.push(handle),
                Some(_) => {}
                None => words.push(token),
            }
        }
        let fits = |thing: &Thing| {
            let has = |text: &str| RULES.iter().position(|(_, of)| *of == text).is_some_and(|at| thing.words[at]);
            handles.contains(&HANDLES[thing.author]) || (!words.is_empty() && words.iter().all(|word| has(word)))
        };
        let (all, list) = self.select(since..until, 1_000_000, max_id, |thing| thing.at, fits);
        let start = self.start_of(&list, cursor);
        let (page, cursor_asked) = (self.world.page, cursor.map(str::to_owned));
        let question = Question { all, list, start, page, cursor: cursor_asked, by_receipt: false, of: "search" };
        let told = self.tell(&question, Paging::Cursors);
        let cursor = told.cursor.clone().or_else(|| told.next.map(|next| self.cursor_at(&question.list, next)));
        (told, cursor)
    }

    // ScrapeBadger

    fn scrapebadger(&mut self, path: &str, params: &HashMap<String, String>) -> String {
        let number = |name: &str| params.get(name).and_then(|text| text.parse::<usize>().ok()).unwrap_or(1);
        if path.ends_with("/monitors") {
            let names = HANDLES[..N_WATCHED].join(r#"",""#);
            return format!(r#"{{"monitors":[{{"id":"{MONITOR}","usernames":["{names}"],"status":"active"}}],"total":1}}"#);
        }
        if path.ends_with("/filter-rules") {
            let rules = RULES.map(|(id, text)| format!(r#"{{"id":"{id}","query":"{text}","status":"active"}}"#));
            return format!(r#"{{"rules":[{}],"total":2}}"#, rules.join(","));
        }
        if path.ends_with("/logs") {
            return self.logs(number("page"), number("page_size"));
        }
        if path.ends_with("/tweets/") {
            let ids: HashSet<u64> = params["tweets"].split(',').map(|id| id.parse().unwrap()).collect();
            let fits = |thing: &Thing| ids.contains(&thing.id);
            let (all, list) = self.select(i64::MIN..i64::MAX, 0, None, |thing| thing.at, fits);
            // Who asks for ids sees which are missing.
            let mut told = Told { rows: list.clone(), has_sign: true, ..Told::default() };
            let question = Question { all, page: list.len(), list, start: 0, cursor: None, by_receipt: false, of: "posts" };
            self.leave_out(&question, &mut told, question.page, Paging::Counted);
            return self.data(&told, None);
        }
        let (told, cursor) =
            self.search(params.get("query").map_or("", String::as_str), params.get("cursor").map(String::as_str));
        self.data(&told, cursor.as_deref())
    }

    fn data(&self, told: &Told, cursor: Option<&str>) -> String {
        let mut body = r#"{"data":["#.to_owned();
        for (nth, id) in self.ids(told).enumerate() {
            let comma = if nth > 0 { "," } else { "" };
            write!(body, r#"{comma}{{"id":"{id}","text":"of {nth}"}}"#).unwrap();
        }
        match cursor {
            Some(cursor) => write!(body, r#"],"next_cursor":"{cursor}"}}"#).unwrap(),
            None => body.push_str(r#"],"next_cursor":null}"#),
        }
        body
    }

    /// The delivery log of the monitor; of what came while nobody was there only if it is kept then, too.
    fn logs(&mut self, page: usize, size: usize) -> String {
        let keeps_all = self.world.other_way;
        let fits = |thing: &Thing| thing.author < N_WATCHED && (thing.came || keeps_all);
        let (all, list) = self.select(i64::MIN..i64::MAX, 0, None, |thing| thing.at, fits);
        let start = (page.saturating_sub(1) * size).min(list.len());
        let question = Question { all, list, start, page: size, cursor: None, by_receipt: false, of: "logs" };
        let told = self.tell(&question, Paging::Counted);
        let total = told.total;
        let mut body = r#"{"logs":["#.to_owned();
        for (nth, id) in self.ids(&told).enumerate() {
            let comma = if nth > 0 { "," } else { "" };
            let thing = told.rows.get(nth).map(|at| &self.things()[*at]);
            let at = thing.map_or_else(|| birdtape::model::TweetId(id).published_at().unwrap(), |thing| thing.received);
            write!(body, r#"{comma}{{"id":"log-{id}","tweet_id":"{id}","monitor_id":"{MONITOR}","detected_at":"{at}"}}"#)
                .unwrap();
        }
        write!(body, r#"],"page":{page},"page_size":{size},"total":{total}}}"#).unwrap();
        body
    }

    // TweetStream

    fn tweetstream(&mut self, path: &str, params: &HashMap<String, String>) -> String {
        if path.ends_with("/api/me") {
            let names = HANDLES[..N_WATCHED].join(r#"",""#);
            return format!(r#"{{"trackedAccounts":{{"handles":["{names}"],"count":{N_WATCHED}}}}}"#);
        }
        let at = |name: &str| UnixMicros::parse_rfc3339(&params[name]).unwrap().0;
        let word = params["type"].as_str();
        let kind = match word {
            "TWEET" => EventKind::Tweet,
            "PROFILE" => EventKind::Profile,
            _ => EventKind::Follow,
        };
        let handles: Vec<&str> = params.get("handles").map(|names| names.split(',').collect()).unwrap_or_default();
        let limit: usize = params["limit"].parse().unwrap();
        let by_receipt = self.world.other_way;
        let time = |thing: &Thing| if by_receipt { thing.received } else { thing.at };
        let fits = |thing: &Thing| {
            let is_asked = handles.is_empty() || handles.contains(&HANDLES[thing.author]);
            thing.kind == kind && thing.author < N_WATCHED && is_asked
        };
        // Both bounds are inside.
        let (all, mut list) = self.select(at("startDate")..at("endDate") + 1, 1_000, None, time, fits);
        let things = self.things();
        list.sort_by_key(|at| std::cmp::Reverse(time(&things[*at])));
        let page = self.world.page.min(limit);
        let question = Question { all, list, start: 0, page, cursor: None, by_receipt, of: kind.name() };
        if page < limit && question.list.len() > page {
            self.reach(Lie::PageSize);
        }
        let told = self.tell(&question, Paging::Windows);
        let count =
            if told.keeps_count { question.list.len().min(question.page).max(1) } else { told.rows.len() + told.strange.len() };
        let mut body = r#"{"data":["#.to_owned();
        for (nth, id) in self.ids(&told).enumerate() {
            let comma = if nth > 0 { "," } else { "" };
            let thing = told.rows.get(nth).map(|at| &things[*at]);
            let published = birdtape::model::TweetId(id).published_at().unwrap();
            let (received, handle) = thing.map_or((published, "eve"), |thing| (thing.received, HANDLES[thing.author]));
            let key = if kind == EventKind::Tweet { "tweetId" } else { "eventId" };
            write!(
                body,
                r#"{comma}{{"tweetId":"{id}","twitterHandle":"{handle}","time":"{published}","receivedTime":"{received}","messageType":"{word}","content":{{"{key}":"{id}","createdAt":{}}}}}"#,
                published.millis()
            )
            .unwrap();
        }
        write!(body, r#"],"metadata":{{"count":{count}}}}}"#).unwrap();
        body
    }

    // X

    fn x_live(&mut self, path: &str, params: &HashMap<String, String>) -> String {
        if !path.contains("/dm/conversation/") {
            return r#"{"data":{"tweetResult":[]}}"#.to_owned();
        }
        let max_id = params.get("max_id").and_then(|id| id.parse::<u64>().ok()).map(|id| id - 1);
        let (all, list) = self.select(i64::MIN..i64::MAX, 0, max_id, |thing| thing.at, |_| true);
        let question = Question { all, list, start: 0, page: self.world.page, cursor: None, by_receipt: false, of: "talk" };
        let told = self.tell(&question, Paging::Bounded);
        let ids: Vec<u64> = self.ids(&told).collect();
        let entries: Vec<_> = ids
            .iter()
            .map(|id| {
                let at = birdtape::model::TweetId(*id).published_at().unwrap().millis();
                let talk = if told.strangers.contains(id) { "7-8" } else { TALK };
                format!(
                    r#"{{"message":{{"id":"{id}","time":"{at}","conversation_id":"{talk}","message_data":{{"id":"{id}"}}}}}}"#
                )
            })
            .collect();
        let status = if told.next.is_some() { "HAS_MORE" } else { "AT_END" };
        let mut body = format!(r#"{{"conversation_timeline":{{"status":"{status}","entries":[{}]"#, entries.join(","));
        if let (Some(min), Some(max)) = (ids.iter().min(), ids.iter().max()) {
            write!(body, r#","min_entry_id":"{min}","max_entry_id":"{max}""#).unwrap();
        }
        body.push_str("}}");
        body
    }
}
