//! Reading a fault script: from TOML to checked words, each mistake with its place and its cure.

use std::path::Path;
use std::time::Duration;

use toml::{Table, Value};

use super::ScriptError;
use crate::model::{Provider, TweetId, UnixMicros};

/// A script that was read and whose single faults make sense.
#[derive(Clone, Debug, PartialEq)]
pub struct Script {
    pub(super) file: String,
    pub(super) seed: u64,
    pub(super) faults: Vec<Fault>,
}

/// One thing that goes wrong on purpose.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Fault {
    pub(super) name: String,
    /// The word behind `do`.
    pub(super) does: &'static str,
    /// Empty: everybody it can happen to.
    pub(super) providers: Vec<Provider>,
    pub(super) effect: Effect,
    pub(super) when: When,
    pub(super) chance: f64,
    /// How often at most.
    pub(super) times: u64,
    /// How often at least.
    pub(super) expect: u64,
}

/// What goes wrong.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Effect {
    /// On a connection that is open.
    Live(Live),
    /// When one is opened.
    Opening(Opening),
    /// When history or management answers.
    Rest(RestFault),
}

/// What goes wrong on an open connection, before an envelope.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Live {
    Close { code: u16, reason: String },
    Reset,
    Stall { lasts: Option<Duration>, reads: bool },
    Delay { by: Duration },
    Duplicate,
    Reorder { within: u64 },
    Swallow(Swallowed),
    Garbage { kind: Garbage, n_bytes: u64 },
    Oversize { n_bytes: u64 },
    Drip { bytes_per_second: u64, lasts: Option<Duration> },
    Replaced,
    Lapse,
    ErrorFrame { code: u16 },
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Swallowed {
    Count(u64),
    /// Of the recording's time.
    For(Duration),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Garbage {
    Json,
    Utf8,
    Frame,
    Binary,
}

/// What becomes of an attempt to connect.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Opening {
    Refuse { status: u16, retry_after: Option<Duration>, body: Option<String> },
    BadHandshake(Handshake),
    Hang { lasts: Option<Duration> },
    Drop,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Handshake {
    Accept,
    Subprotocol,
    Http10,
    Page,
    Garbage,
}

/// What becomes of an answer of history or management.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum RestFault {
    Status { status: u16, retry_after: Option<Duration>, body: Option<String> },
    Truncate,
    NotJson,
    Slow { by: Duration },
    RepeatPage,
    CursorLoop,
    MissingRow { row: Option<u64> },
    LyingNext,
    Shuffle,
    DuplicateRow { row: Option<u64> },
}

/// When a fault has its chance.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct When {
    pub(super) from: Option<Moment>,
    pub(super) until: Option<Moment>,
    pub(super) message: Option<u64>,
    pub(super) attempts: Option<Numbers>,
    pub(super) tweet: Option<TweetId>,
    pub(super) path: Option<String>,
    pub(super) requests: Option<Numbers>,
}

/// An instant of the recording.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Moment {
    /// Since the first envelope of all.
    After(Duration),
    At(UnixMicros),
}

impl Moment {
    pub(super) fn given(self, start: UnixMicros) -> UnixMicros {
        match self {
            Self::After(after) => start.plus(after),
            Self::At(at) => at,
        }
    }
}

/// Some numbers, counted from 1: ranges with both ends included.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Numbers(pub(super) Vec<(u64, Option<u64>)>);

impl Numbers {
    pub(super) fn hold(&self, n: u64) -> bool {
        self.0.iter().any(|&(low, high)| n >= low && high.is_none_or(|high| n <= high))
    }
}

/// Longest length of time: beyond it sums with a clock could overflow.
const LONGEST: Duration = Duration::from_secs(366 * 86_400);

/// Faults by the moment they belong to; the message for an unknown one lists them so.
const LIVE: &str =
    "close, reset, stall, delay, duplicate, reorder, swallow, garbage, oversize, drip, replaced, lapse, error_frame";
const OPENING: &str = "refuse, bad_handshake, hang, drop";
const REST: &str = "status, truncate, not_json, slow, repeat_page, cursor_loop, missing_row, lying_next, shuffle, duplicate_row";

impl Script {
    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read, is no TOML, or says something that cannot be done.
    pub fn load(path: &Path) -> Result<Self, ScriptError> {
        let file = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| {
            let cure = "a fault script is a text file in TOML, such as fixtures/faults/bad_night.toml";
            ScriptError::new(&file, None, format!("cannot be read: {error}"), cure)
        })?;
        Self::parse(&file, &text)
    }

    /// Reads a script's text; `file` is what messages call it.
    ///
    /// # Errors
    /// It is no TOML, or says something that cannot be done.
    pub fn parse(file: &str, text: &str) -> Result<Self, ScriptError> {
        let whole = |what: String, cure: &str| ScriptError::new(file, None, what, cure);
        let raw: Raw = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(1, |span| 1 + text[..span.start.min(text.len())].matches('\n').count());
            let cure = "a script holds `seed = 7` and tables `[[fault]]`";
            whole(format!("line {line}: {}", error.message()), cure)
        })?;
        if raw.fault.is_empty() {
            return Err(whole("holds no faults".to_owned(), "add a table [[fault]] with do = \"…\", or leave the script out"));
        }
        let mut faults: Vec<Fault> = Vec::with_capacity(raw.fault.len());
        for (table, number) in raw.fault.into_iter().zip(1..) {
            let fault = read(file, number, table)?;
            if faults.iter().any(|other| other.name == fault.name) {
                let cure = "give each fault a name of its own; the report calls it so";
                return Err(ScriptError::new(file, Some(&fault.name), "the name is taken".to_owned(), cure));
            }
            super::check::alone(&fault).map_err(|(what, cure)| ScriptError::new(file, Some(&fault.name), what, &cure))?;
            faults.push(fault);
        }
        Ok(Self { file: file.to_owned(), seed: raw.seed.unwrap_or(1), faults })
    }
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    seed: Option<u64>,
    #[serde(default)]
    fault: Vec<Table>,
}

/// A fault's table, emptied key by key: what is left over is nothing the fault knows.
struct Keys<'a> {
    file: &'a str,
    fault: String,
    table: Table,
    known: Vec<&'static str>,
}

type Read<T> = Result<T, ScriptError>;

impl Keys<'_> {
    fn error<T>(&self, what: impl Into<String>, cure: impl AsRef<str>) -> Read<T> {
        Err(ScriptError::new(self.file, Some(&self.fault), what.into(), cure.as_ref()))
    }

    fn take(&mut self, key: &'static str) -> Option<Value> {
        self.known.push(key);
        self.table.remove(key)
    }

    fn text(&mut self, key: &'static str) -> Read<Option<String>> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => self.error(format!("`{key}` is {}, not a text", shown(&other)), format!("write {key} = \"…\"")),
        }
    }

    fn number(&mut self, key: &'static str) -> Read<Option<u64>> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Integer(n)) if n >= 0 => Ok(Some(n.unsigned_abs())),
            Some(other) => {
                self.error(format!("`{key}` is {}, not a whole number from 0 up", shown(&other)), format!("write {key} = 1"))
            }
        }
    }

    fn short(&mut self, key: &'static str) -> Read<Option<u16>> {
        let Some(n) = self.number(key)? else { return Ok(None) };
        match u16::try_from(n) {
            Ok(n) => Ok(Some(n)),
            Err(_) => self.error(format!("`{key}` is {n}"), "it is at most 65535"),
        }
    }

    fn needed<T>(&self, key: &str, value: Option<T>, such_as: &str) -> Read<T> {
        match value {
            Some(value) => Ok(value),
            None => self.error(format!("`{key}` is missing"), format!("add {key} = {such_as}")),
        }
    }

    fn duration(&mut self, key: &'static str) -> Read<Option<Duration>> {
        let Some(value) = self.take(key) else { return Ok(None) };
        let read = match &value {
            Value::Integer(secs) => u64::try_from(*secs).ok().map(Duration::from_secs),
            Value::Float(secs) => Duration::try_from_secs_f64(*secs).ok(),
            Value::String(text) => humantime::parse_duration(text).ok(),
            _ => None,
        };
        let read = read.filter(|duration| *duration <= LONGEST);
        match read {
            Some(duration) => Ok(Some(duration)),
            None => self.error(
                format!("`{key}` is {}, not a length of time", shown(&value)),
                format!("write {key} = \"10s\", \"250ms\", \"5m\", or a number of seconds, up to a year"),
            ),
        }
    }

    fn instant(&mut self, key: &'static str) -> Read<Option<UnixMicros>> {
        let Some(value) = self.take(key) else { return Ok(None) };
        match instant_of(&value) {
            Some(at) => Ok(Some(at)),
            None => self.error(
                format!("`{key}` is {}, not an instant", shown(&value)),
                format!("write {key} = \"2026-11-20T23:18:00Z\", with its zone"),
            ),
        }
    }

    /// A length of time since the first envelope, or an instant.
    fn moment(&mut self, key: &'static str) -> Read<Option<Moment>> {
        if let Some(at) = self.table.get(key).and_then(instant_of) {
            self.take(key);
            return Ok(Some(Moment::At(at)));
        }
        Ok(self.duration(key)?.map(Moment::After))
    }

    fn numbers(&mut self, key: &'static str) -> Read<Option<Numbers>> {
        let Some(value) = self.take(key) else { return Ok(None) };
        let given = match &value {
            Value::Array(list) => list.iter().collect(),
            one => vec![one],
        };
        let ranges: Option<Vec<_>> = given.into_iter().map(range_of).collect();
        match ranges.filter(|ranges| !ranges.is_empty()) {
            Some(ranges) => Ok(Some(Numbers(ranges))),
            None => self.error(
                format!("`{key}` is {}, not a number from 1 up, a list of them, or a range", shown(&value)),
                format!("write {key} = 2, [1, 3], \"2..\" or \"2..5\" (both ends included)"),
            ),
        }
    }

    fn word<T: Copy>(&mut self, key: &'static str, words: &[(&str, T)]) -> Read<Option<T>> {
        let Some(text) = self.text(key)? else { return Ok(None) };
        match words.iter().find(|(word, _)| *word == text) {
            Some((_, meaning)) => Ok(Some(*meaning)),
            None => {
                let known: Vec<_> = words.iter().map(|(word, _)| *word).collect();
                self.error(format!("`{key}` is \"{text}\""), format!("known are {}", known.join(", ")))
            }
        }
    }

    fn providers(&mut self) -> Read<Vec<Provider>> {
        let named = match self.take("provider") {
            None => return Ok(Vec::new()),
            Some(Value::Array(list)) => list,
            Some(one) => vec![one],
        };
        let mut providers = Vec::new();
        for name in &named {
            match name.as_str().map(str::parse::<Provider>) {
                Some(Ok(provider)) => providers.push(provider),
                _ => {
                    return self
                        .error(format!("there is no provider {}", shown(name)), format!("known are {}", names(&Provider::ALL)));
                }
            }
        }
        if providers.is_empty() {
            return self.error("`provider` is an empty list", "leave it out for all, or name one");
        }
        Ok(providers)
    }

    fn times(&mut self) -> Read<u64> {
        match self.take("times") {
            None => Ok(1),
            Some(Value::Integer(n)) if n > 0 => Ok(n.unsigned_abs()),
            Some(Value::String(word)) if word == "always" => Ok(u64::MAX),
            Some(other) => self.error(
                format!("`times` is {}, so it never fires", shown(&other)),
                "write times = 1 or more, or times = \"always\"; leave the fault out to switch it off",
            ),
        }
    }
}

/// A value as it was written, or nearly so.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => format!("\"{text}\""),
        Value::Integer(n) => n.to_string(),
        Value::Float(n) => n.to_string(),
        Value::Boolean(is) => is.to_string(),
        Value::Datetime(stamp) => stamp.to_string(),
        Value::Array(list) => format!("[{}]", list.iter().map(shown).collect::<Vec<_>>().join(", ")),
        Value::Table(_) => "a table".to_owned(),
    }
}

pub(super) fn names(providers: &[Provider]) -> String {
    let names: Vec<_> = providers.iter().map(|provider| provider.name()).collect();
    names.join(", ")
}

fn instant_of(value: &Value) -> Option<UnixMicros> {
    match value {
        Value::String(text) => UnixMicros::parse_rfc3339(text),
        Value::Datetime(stamp) => UnixMicros::parse_rfc3339(&stamp.to_string()),
        _ => None,
    }
}

fn range_of(value: &Value) -> Option<(u64, Option<u64>)> {
    let above_zero = |n: u64| (n > 0).then_some(n);
    match value {
        Value::Integer(n) => {
            let n = u64::try_from(*n).ok().and_then(above_zero)?;
            Some((n, Some(n)))
        }
        Value::String(text) => {
            let (low, high) = text.split_once("..")?;
            let low = low.parse().ok().and_then(above_zero)?;
            let high = if high.is_empty() { None } else { Some(high.parse().ok().filter(|high| *high >= low)?) };
            Some((low, high))
        }
        _ => None,
    }
}

fn read(file: &str, number: usize, table: Table) -> Read<Fault> {
    let mut keys = Keys { file, fault: format!("number {number}"), table, known: Vec::new() };
    let name = keys.text("name")?;
    if let Some(name) = &name {
        keys.fault.clone_from(name);
    }
    let Some(does) = keys.text("do")? else {
        return keys.error("`do` is missing", "add do = \"close\", or another of the faults");
    };
    let name = name.unwrap_or_else(|| format!("{does} {number}"));
    keys.fault.clone_from(&name);
    let (does, effect) = effect(&mut keys, &does)?;
    let from = match (keys.duration("after")?, keys.instant("at")?) {
        (Some(_), Some(_)) => return keys.error("has both `after` and `at`", "keep one of them"),
        (after, at) => after.map(Moment::After).or(at.map(Moment::At)),
    };
    let mut when = When { from, until: keys.moment("until")?, ..When::default() };
    match effect {
        Effect::Live(_) => {
            when.message = keys.number("messages")?;
            when.attempts = keys.numbers("attempt")?;
            when.tweet = tweet(&mut keys)?;
        }
        Effect::Opening(_) => when.attempts = keys.numbers("attempt")?,
        Effect::Rest(_) => {
            when.path = keys.text("path")?;
            when.requests = keys.numbers("request")?;
        }
    }
    let providers = keys.providers()?;
    let times = keys.times()?;
    let expect = keys.number("expect")?.unwrap_or(1);
    let chance = match keys.take("chance") {
        None => 1.0,
        Some(Value::Float(chance)) => chance,
        Some(Value::Integer(chance)) => chance as f64,
        Some(other) => return keys.error(format!("`chance` is {}, not a number", shown(&other)), "write chance = 0.01"),
    };
    if let Some(left) = keys.table.keys().next() {
        let known = keys.known.join(", ");
        return keys.error(format!("`{does}` takes no `{left}`"), format!("it takes {known}"));
    }
    Ok(Fault { name, does, providers, effect, when, chance, times, expect })
}

fn tweet(keys: &mut Keys<'_>) -> Read<Option<TweetId>> {
    let Some(value) = keys.take("tweet") else { return Ok(None) };
    match value.as_str().and_then(TweetId::parse) {
        Some(id) => Ok(Some(id)),
        // A number of TOML would hold an id, but the next tool over may read it as a float.
        None => keys
            .error(format!("`tweet` is {}, not a post's id in quotes", shown(&value)), "write tweet = \"2064689031777615872\""),
    }
}

fn effect(keys: &mut Keys<'_>, does: &str) -> Read<(&'static str, Effect)> {
    let live = |word, live| Ok((word, Effect::Live(live)));
    let opening = |word, opening| Ok((word, Effect::Opening(opening)));
    let rest = |word, rest| Ok((word, Effect::Rest(rest)));
    match does {
        "close" => {
            let (code, reason) = (keys.short("code")?, keys.text("reason")?);
            live("close", Live::Close { code: code.unwrap_or(1000), reason: reason.unwrap_or_default() })
        }
        "reset" => live("reset", Live::Reset),
        "stall" => {
            let reads = keys.word("client", &[("ignored", true), ("unread", false)])?;
            live("stall", Live::Stall { lasts: keys.duration("for")?, reads: reads.unwrap_or(true) })
        }
        "delay" => {
            let by = keys.duration("by")?;
            live("delay", Live::Delay { by: keys.needed("by", by, "\"2s\"")? })
        }
        "duplicate" => live("duplicate", Live::Duplicate),
        "reorder" => live("reorder", Live::Reorder { within: keys.number("within")?.unwrap_or(1) }),
        "swallow" => {
            let swallowed = match (keys.number("count")?, keys.duration("for")?) {
                (Some(_), Some(_)) => return keys.error("has both `count` and `for`", "keep one of them"),
                (None, Some(lasts)) => Swallowed::For(lasts),
                (count, None) => Swallowed::Count(count.unwrap_or(1)),
            };
            live("swallow", Live::Swallow(swallowed))
        }
        "garbage" => {
            let kinds =
                [("json", Garbage::Json), ("utf8", Garbage::Utf8), ("frame", Garbage::Frame), ("binary", Garbage::Binary)];
            let kind = keys.word("kind", &kinds)?.unwrap_or(Garbage::Json);
            live("garbage", Live::Garbage { kind, n_bytes: keys.number("bytes")?.unwrap_or(64) })
        }
        "oversize" => {
            let n_bytes = keys.number("bytes")?;
            live("oversize", Live::Oversize { n_bytes: keys.needed("bytes", n_bytes, "10_000_000")? })
        }
        "drip" => {
            let rate = keys.number("bytes_per_second")?;
            let bytes_per_second = keys.needed("bytes_per_second", rate, "100")?;
            live("drip", Live::Drip { bytes_per_second, lasts: keys.duration("for")? })
        }
        "replaced" => live("replaced", Live::Replaced),
        "lapse" => live("lapse", Live::Lapse),
        "error_frame" => live("error_frame", Live::ErrorFrame { code: keys.short("code")?.unwrap_or(4001) }),
        "refuse" => {
            let (status, retry_after, body) = refusal(keys)?;
            opening("refuse", Opening::Refuse { status, retry_after, body })
        }
        "bad_handshake" => {
            let kinds = [
                ("accept", Handshake::Accept),
                ("subprotocol", Handshake::Subprotocol),
                ("http10", Handshake::Http10),
                ("page", Handshake::Page),
                ("garbage", Handshake::Garbage),
            ];
            let kind = keys.word("kind", &kinds)?.unwrap_or(Handshake::Accept);
            opening("bad_handshake", Opening::BadHandshake(kind))
        }
        "hang" => opening("hang", Opening::Hang { lasts: keys.duration("for")? }),
        "drop" => opening("drop", Opening::Drop),
        "status" => {
            let (status, retry_after, body) = refusal(keys)?;
            rest("status", RestFault::Status { status, retry_after, body })
        }
        "truncate" => rest("truncate", RestFault::Truncate),
        "not_json" => rest("not_json", RestFault::NotJson),
        "slow" => {
            let by = keys.duration("by")?;
            rest("slow", RestFault::Slow { by: keys.needed("by", by, "\"5s\"")? })
        }
        "repeat_page" => rest("repeat_page", RestFault::RepeatPage),
        "cursor_loop" => rest("cursor_loop", RestFault::CursorLoop),
        "missing_row" => rest("missing_row", RestFault::MissingRow { row: keys.number("row")? }),
        "lying_next" => rest("lying_next", RestFault::LyingNext),
        "shuffle" => rest("shuffle", RestFault::Shuffle),
        "duplicate_row" => rest("duplicate_row", RestFault::DuplicateRow { row: keys.number("row")? }),
        other => keys.error(
            format!("there is no fault `{other}`"),
            format!("known are on a connection: {LIVE}; when it is opened: {OPENING}; in history: {REST}"),
        ),
    }
}

fn refusal(keys: &mut Keys<'_>) -> Read<(u16, Option<Duration>, Option<String>)> {
    let status = keys.short("status")?;
    Ok((keys.needed("status", status, "503")?, keys.duration("retry_after")?, keys.text("body")?))
}
