//! What envelopes and pages of history say, as rows: the reading half of an export.
//!
//! One pass over the JSON and no tree. The events of the rows are those that [`decode_record`](super::decode_record)
//! finds, in the same order; the rules for that stand in `wire.rs` and `page.rs` of a provider's folder and are used from
//! there. Each folder's `rows.rs` knows where the provider says what.
//!
//! What has no column is copied into [`Extra`] as written, nested as it was: the post's own object is the root, and what
//! stands around it is under `envelope`. A field is a [`Surprise`] if nobody has seen it in that place, or not as that
//! type; it is in the extra, too, and the row is the same but for its column.

use std::borrow::Cow;

use super::{Provider, scrapebadger, tweetstream, twitterapi_io, x_live};
use crate::model::json::{Bad, Json, Kind, is_plain, write_escaped};
use crate::model::{Extra, Link, Message, Row, TweetId, UnixMicros, Via};

/// What a reader hands out, when the envelope was read to its end.
pub trait RowSink {
    /// One identified thing.
    fn row(&mut self, row: Row<'_>);
    /// A field that is not in the provider's catalogue, or has another type than it.
    fn surprise(&mut self, surprise: Surprise<'_>);
    /// Whether fields that everybody knows and that have no column are wanted in the [`Extra`].
    fn keeps_known(&self) -> bool {
        true
    }
}

/// A field that was not expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Surprise<'a> {
    /// Where it stands: `tweets[].author.newField`.
    pub path: &'a str,
    /// The type it should have; `None` for a field nobody knows.
    pub expected: Option<&'static str>,
    /// The type it has in JSON.
    pub found: &'static str,
    /// Its JSON, or the beginning of it.
    pub example: &'a str,
}

/// What was read beside the rows: the same as in [`Decoded`](crate::model::Decoded).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// The bytes are exactly one JSON object or array, strictly valid, on one line, with nothing around it.
    pub json: bool,
    /// What the envelope means for the connection.
    pub message: Message,
    /// The provider's stamp.
    pub provider_at: Option<UnixMicros>,
}

impl Told {
    /// Of what is no JSON at all.
    pub(super) fn nothing() -> Self {
        Self { message: Message::Unknown, ..Self::default() }
    }
}

/// Reads a record by the way it came: an envelope, or a page of history.
///
/// Never fails: what cannot be read has no rows.
pub fn read_rows(provider: Provider, via: Via, envelope: &[u8], sink: &mut dyn RowSink) -> Told {
    if matches!(via, Via::History | Via::Snapshot) {
        return read_page_rows(provider, envelope, sink);
    }
    let Ok(text) = simdutf8::basic::from_utf8(envelope) else { return Told::nothing() };
    match provider {
        Provider::TwitterapiIo => twitterapi_io::read_rows(text, sink),
        Provider::Tweetstream => tweetstream::read_rows(text, sink),
        Provider::Scrapebadger => scrapebadger::read_rows(text, sink),
        Provider::XLive => x_live::read_rows(text, sink),
    }
}

/// Reads a page of history, or a snapshot; another answer has no rows.
pub fn read_page_rows(provider: Provider, body: &[u8], sink: &mut dyn RowSink) -> Told {
    let Ok(text) = simdutf8::basic::from_utf8(body) else { return Told::nothing() };
    match provider {
        Provider::TwitterapiIo => twitterapi_io::read_page_rows(text, sink),
        Provider::Tweetstream => tweetstream::read_page_rows(text, sink),
        Provider::Scrapebadger => scrapebadger::read_page_rows(text, sink),
        Provider::XLive => x_live::read_page_rows(text, sink),
    }
}

/// Walks the keys of an envelope: one JSON object, or an array, which has none. Whether it is exactly that, on one line;
/// `None` when it is something else.
pub(super) fn walk<'a>(text: &'a str, field: impl FnMut(&str, &mut Json<'a>) -> Result<(), Bad>) -> Option<bool> {
    let inner = text.trim_matches([' ', '\t', '\r', '\n']);
    let mut json = Json::new(inner);
    if !matches!(json.kind(), Kind::Object | Kind::Array) {
        return None;
    }
    json.object(field).and_then(|()| json.finish()).ok()?;
    Some(!json.is_multi_line() && inner.len() == text.len())
}

/// What most extras need, in bytes, so that they grow at once.
const USUAL_EXTRA: usize = 512;
/// Longest example of a surprise, in bytes.
const EXAMPLE_MAX: usize = 120;

/// What a field's JSON may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Text,
    /// Digits in a text count, too.
    Number,
    Flag,
    List,
    Object,
    /// Nobody has said.
    Any,
}

impl Type {
    const fn name(self) -> &'static str {
        match self {
            Self::Text => "string",
            Self::Number => "number",
            Self::Flag => "boolean",
            Self::List => "array",
            Self::Object => "object",
            Self::Any => "anything",
        }
    }

    /// Whether a value that begins so can be one; `null` is always allowed.
    const fn fits(self, first: u8) -> bool {
        match self {
            Self::Any => true,
            Self::Text => matches!(first, b'"' | b'n'),
            Self::Number => matches!(first, b'-' | b'0'..=b'9' | b'"' | b'n'),
            Self::Flag => matches!(first, b't' | b'f' | b'n'),
            Self::List => matches!(first, b'[' | b'n'),
            Self::Object => matches!(first, b'{' | b'n'),
        }
    }
}

/// The type in JSON of a value that begins so.
const fn type_of(first: u8) -> &'static str {
    match first {
        b'{' => "object",
        b'[' => "array",
        b'"' => "string",
        b't' | b'f' => "boolean",
        b'n' => "null",
        _ => "number",
    }
}

/// A surprise, until it is certain that the envelope is JSON.
#[derive(Debug)]
struct Found<'a> {
    path: String,
    expected: Option<&'static str>,
    example: &'a str,
}

/// What one object says beside its columns, written while it is walked: its [`Extra`] and its surprises.
///
/// Objects and lists are entered and left as the walk does; they are opened in the extra when the first field of theirs
/// has to be kept.
#[derive(Debug)]
pub(super) struct Beside<'a> {
    /// Path of the root.
    base: &'static str,
    /// Whether fields that are known go into the extra.
    keeps_known: bool,
    /// The root without its end; empty until something has to be kept.
    out: String,
    levels: Vec<Level>,
    /// How many of the levels are opened in `out`.
    n_open: usize,
    found: Vec<Found<'a>>,
    /// How many of those were found in objects before this one.
    n_before: usize,
}

#[derive(Clone, Copy, Debug)]
struct Level {
    sort: Sort,
    /// Of a list: elements in `out`.
    n_written: usize,
}

#[derive(Clone, Copy, Debug)]
enum Sort {
    Object(&'static str),
    List(&'static str),
    Item(usize),
}

/// Where the extra stood, to go back to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    len: usize,
    n_open: usize,
    n_written: usize,
    n_found: usize,
}

impl<'a> Beside<'a> {
    /// Nothing so far; `base` is the path of the object in its envelope, empty at its top.
    pub(super) fn new(base: &'static str, keeps_known: bool) -> Self {
        Self { base, keeps_known, out: String::new(), levels: Vec::new(), n_open: 0, found: Vec::new(), n_before: 0 }
    }

    /// The walk is now in the object of that name.
    pub(super) fn enter(&mut self, key: &'static str) {
        self.levels.push(Level { sort: Sort::Object(key), n_written: 0 });
    }

    /// The walk is now in the list of that name.
    fn enter_list(&mut self, key: &'static str) {
        self.levels.push(Level { sort: Sort::List(key), n_written: 0 });
    }

    /// The walk is now in an object of a list.
    fn enter_item(&mut self, idx: usize) {
        self.levels.push(Level { sort: Sort::Item(idx), n_written: 0 });
    }

    /// The walk has left what was entered last.
    pub(super) fn leave(&mut self) {
        let Some(level) = self.levels.pop() else { return };
        if self.n_open > self.levels.len() {
            self.n_open = self.levels.len();
            self.out.push(if matches!(level.sort, Sort::List(_)) { ']' } else { '}' });
        }
    }

    /// Walks an object field by field; another type is a surprise.
    pub(super) fn object(
        &mut self,
        key: &'static str,
        json: &mut Json<'a>,
        mut each: impl FnMut(&mut Self, &str, &mut Json<'a>) -> Result<(), Bad>,
    ) -> Result<(), Bad> {
        if json.kind() != Kind::Object {
            return self.retyped(key, json, Type::Object);
        }
        self.enter(key);
        json.object(|key, json| each(self, key, json))?;
        self.leave();
        Ok(())
    }

    /// Walks a list element by element; another type is a surprise.
    pub(super) fn list(
        &mut self,
        key: &'static str,
        json: &mut Json<'a>,
        mut each: impl FnMut(&mut Self, usize, &mut Json<'a>) -> Result<(), Bad>,
    ) -> Result<(), Bad> {
        if json.kind() != Kind::Array {
            return self.retyped(key, json, Type::List);
        }
        self.enter_list(key);
        let mut idx = 0;
        json.array(|json| {
            each(self, idx, json)?;
            idx += 1;
            Ok(())
        })?;
        self.leave();
        Ok(())
    }

    /// Walks a list of objects; an element of another type is a surprise.
    pub(super) fn objects<T: Default>(
        &mut self,
        key: &'static str,
        json: &mut Json<'a>,
        into: &mut Vec<T>,
        mut each: impl FnMut(&mut Self, &mut T, &str, &mut Json<'a>) -> Result<(), Bad>,
    ) -> Result<(), Bad> {
        self.list(key, json, |beside, idx, json| {
            if json.kind() != Kind::Object {
                return beside.odd_item(idx, json, Type::Object);
            }
            let mut one = T::default();
            beside.item(idx, json, |beside, key, json| each(beside, &mut one, key, json))?;
            into.push(one);
            Ok(())
        })
    }

    /// Reads a list of tags, each with its place in the text.
    pub(super) fn tags(&mut self, key: &'static str, json: &mut Json<'a>, into: &mut Vec<Cow<'a, str>>) -> Result<(), Bad> {
        let mut read: Vec<Option<Cow<'a, str>>> = Vec::new();
        self.objects(key, json, &mut read, Self::tag_field)?;
        into.extend(read.into_iter().flatten());
        Ok(())
    }

    pub(super) fn tag_field(&mut self, tag: &mut Option<Cow<'a, str>>, key: &str, json: &mut Json<'a>) -> Result<(), Bad> {
        match key {
            "text" => *tag = self.text(key, json)?,
            _ => self.other(key, json, (key == "indices").then_some(Type::List))?,
        }
        Ok(())
    }

    /// Reads the list `urls` as X has it, each with one more field that has no column.
    pub(super) fn links(&mut self, json: &mut Json<'a>, into: &mut Vec<Link<'a>>, beside: (&str, Type)) -> Result<(), Bad> {
        self.objects("urls", json, into, |this, link: &mut Link<'a>, key, json| {
            match key {
                "url" => link.url = this.text(key, json)?,
                "expanded_url" => link.expanded_url = this.text(key, json)?,
                "display_url" => link.display_url = this.text(key, json)?,
                _ => this.other(key, json, (key == beside.0).then_some(beside.1))?,
            }
            Ok(())
        })
    }

    /// Walks an object of a list.
    pub(super) fn item(
        &mut self,
        idx: usize,
        json: &mut Json<'a>,
        mut each: impl FnMut(&mut Self, &str, &mut Json<'a>) -> Result<(), Bad>,
    ) -> Result<(), Bad> {
        self.enter_item(idx);
        json.object(|key, json| each(self, key, json))?;
        self.leave();
        Ok(())
    }

    /// Keeps an element of a list that should have another type.
    pub(super) fn odd_item(&mut self, idx: usize, json: &mut Json<'a>, expected: Type) -> Result<(), Bad> {
        let raw = json.raw()?;
        if raw == "null" {
            return Ok(());
        }
        self.found.push(Found { path: self.path(None), expected: Some(expected.name()), example: raw });
        self.open_item(idx);
        let mut copied = String::new();
        let said = Json::new(raw).copy_said(&mut copied)?;
        self.out.push_str(if said { &copied } else { raw });
        Ok(())
    }

    /// Keeps a field that has no column; one that is not known (`None`) or is of another type is a surprise.
    pub(super) fn other(&mut self, key: &str, json: &mut Json<'a>, known: Option<Type>) -> Result<(), Bad> {
        let first = json.peek();
        if known.is_some_and(|known| known.fits(first)) {
            return self.keep(key, json);
        }
        let raw = json.raw()?;
        self.surprise(key, raw, known.map(Type::name));
        self.put(key, raw)
    }

    /// Keeps a field whose value has another type than its column; `null` is absent.
    pub(super) fn retyped(&mut self, key: &str, json: &mut Json<'a>, expected: Type) -> Result<(), Bad> {
        let raw = json.raw()?;
        self.odd(key, raw, expected.name())
    }

    /// Keeps a value that its column cannot hold.
    pub(super) fn odd(&mut self, key: &str, raw: &'a str, expected: &'static str) -> Result<(), Bad> {
        if matches!(raw, "null" | "\"\"") {
            return Ok(());
        }
        self.surprise(key, raw, Some(expected));
        self.put(key, raw)
    }

    /// Notes a surprise.
    pub(super) fn surprise(&mut self, key: &str, raw: &'a str, expected: Option<&'static str>) {
        self.found.push(Found { path: self.path(Some(key)), expected, example: raw });
    }

    /// Keeps a field that is known, if it says something and such are wanted.
    pub(super) fn keep(&mut self, key: &str, json: &mut Json<'a>) -> Result<(), Bad> {
        if !self.keeps_known || json.says_nothing() {
            return json.skip();
        }
        let mark = self.mark();
        self.key(key);
        if !json.copy_said(&mut self.out)? {
            self.rewind(mark);
        }
        Ok(())
    }

    /// Keeps a field that was passed over, if it says something.
    pub(super) fn put(&mut self, key: &str, raw: &str) -> Result<(), Bad> {
        let mark = self.mark();
        self.key(key);
        if !Json::new(raw).copy_said(&mut self.out)? {
            self.rewind(mark);
        }
        Ok(())
    }

    /// Keeps a field with a text that is not wanted in its column.
    pub(super) fn put_text(&mut self, key: &str, text: &str) {
        if !text.is_empty() {
            self.key(key);
            push_string(&mut self.out, text);
        }
    }

    /// Reads a text; another type is a surprise.
    pub(super) fn text(&mut self, key: &str, json: &mut Json<'a>) -> Result<Option<Cow<'a, str>>, Bad> {
        if json.kind() == Kind::String { json.text() } else { self.retyped(key, json, Type::Text).map(|()| None) }
    }

    /// Reads a handle, without the `@` that may stand before it.
    pub(super) fn handle(&mut self, key: &str, json: &mut Json<'a>) -> Result<Option<Cow<'a, str>>, Bad> {
        Ok(self.text(key, json)?.map(|handle| without_mark(handle, '@')))
    }

    /// Reads an id or a counter as [`Json::id`] does; another type is a surprise.
    pub(super) fn number(&mut self, key: &str, json: &mut Json<'a>) -> Result<Option<u64>, Bad> {
        if let Some(read) = json.take_natural() {
            return Ok(Some(read));
        }
        let raw = json.raw()?;
        let read = digits(raw).and_then(TweetId::parse).map(|id| id.0);
        if read.is_none() {
            self.odd(key, raw, Type::Number.name())?;
        }
        Ok(read)
    }

    /// Reads a whole number as [`Json::integer`] does; another type is a surprise.
    pub(super) fn integer(&mut self, key: &str, json: &mut Json<'a>) -> Result<Option<i64>, Bad> {
        let raw = json.raw()?;
        let read = digits(raw).and_then(|digits| digits.parse().ok());
        if read.is_none() {
            self.odd(key, raw, Type::Number.name())?;
        }
        Ok(read)
    }

    /// Reads an instant in Unix milliseconds; another type is a surprise.
    pub(super) fn millis(&mut self, key: &str, json: &mut Json<'a>) -> Result<Option<UnixMicros>, Bad> {
        Ok(self.integer(key, json)?.map(UnixMicros::from_millis))
    }

    /// Reads an instant in words, by one of the readers of [`crate::model`]; another form is a surprise.
    pub(super) fn date(
        &mut self,
        key: &str,
        json: &mut Json<'a>,
        read: fn(&str) -> Option<UnixMicros>,
    ) -> Result<Option<UnixMicros>, Bad> {
        let raw = json.raw()?;
        let at = digits(raw).filter(|_| raw.starts_with('"')).and_then(read);
        if at.is_none() {
            self.odd(key, raw, "date")?;
        }
        Ok(at)
    }

    /// Reads a yes or no; another type is a surprise.
    pub(super) fn flag(&mut self, key: &str, json: &mut Json<'a>) -> Result<Option<bool>, Bad> {
        let read = match json.peek() {
            b't' => Some(true),
            b'f' => Some(false),
            _ => return self.retyped(key, json, Type::Flag).map(|()| None),
        };
        json.skip()?;
        Ok(read)
    }

    /// Reads a fraction, as a number or as a text; another type is a surprise.
    pub(super) fn fraction(&mut self, key: &str, json: &mut Json<'a>) -> Result<Option<f64>, Bad> {
        let raw = json.raw()?;
        let read = digits(raw).and_then(|digits| digits.parse().ok()).filter(|read: &f64| read.is_finite());
        if read.is_none() {
            self.odd(key, raw, Type::Number.name())?;
        }
        Ok(read)
    }

    /// Reads a field that says the same everywhere; another value is kept.
    pub(super) fn constant(&mut self, key: &str, json: &mut Json<'a>, value: &str) -> Result<(), Bad> {
        match self.text(key, json)? {
            Some(text) if text != value => self.put_text(key, &text),
            _ => {}
        }
        Ok(())
    }

    /// Fills a column that is still empty; another text than the column's is kept.
    pub(super) fn fill(&mut self, key: &str, column: &mut Option<Cow<'a, str>>, told: Option<Cow<'a, str>>) {
        match (column.as_ref(), told) {
            (None, told) => *column = told,
            (Some(known), Some(told)) if *known != told => self.put_text(key, &told),
            _ => {}
        }
    }

    /// Where the extra stands.
    pub(super) fn mark(&self) -> Mark {
        let n_written = self.n_open.checked_sub(1).map_or(0, |at| self.levels[at].n_written);
        Mark { len: self.out.len(), n_open: self.n_open, n_written, n_found: self.found.len() }
    }

    /// Forgets what was written since; as many levels must be entered as then.
    pub(super) fn rewind(&mut self, mark: Mark) {
        self.out.truncate(mark.len);
        self.found.truncate(mark.n_found);
        self.n_open = mark.n_open;
        for (at, level) in self.levels.iter_mut().enumerate() {
            if at + 1 == mark.n_open {
                level.n_written = mark.n_written;
            } else if at >= mark.n_open {
                level.n_written = 0;
            }
        }
    }

    /// What the object says beside its columns; the next one begins.
    pub(super) fn take(&mut self) -> Unclosed {
        let extra = Unclosed(std::mem::take(&mut self.out));
        self.n_before = self.found.len();
        self.forget();
        extra
    }

    /// Begins the object anew.
    pub(super) fn forget(&mut self) {
        self.found.truncate(self.n_before);
        self.out.clear();
        self.levels.clear();
        self.n_open = 0;
    }

    /// Tells the surprises, now that the envelope was read to its end.
    pub(super) fn tell(self, sink: &mut dyn RowSink) {
        for Found { path, expected, example } in self.found {
            let found = type_of(example.bytes().next().unwrap_or(0));
            let end = (0..=EXAMPLE_MAX.min(example.len())).rev().find(|end| example.is_char_boundary(*end));
            let example = &example[..end.unwrap_or(0)];
            sink.surprise(Surprise { path: &path, expected, found, example });
        }
    }

    /// Begins a field: opens what it stands in.
    fn key(&mut self, key: &str) {
        self.open();
        self.comma();
        push_string(&mut self.out, key);
        self.out.push(':');
    }

    fn open(&mut self) {
        while let Some(level) = self.levels.get(self.n_open).copied() {
            match level.sort {
                Sort::Object(key) | Sort::List(key) => {
                    self.comma();
                    push_string(&mut self.out, key);
                    self.out.push_str(if matches!(level.sort, Sort::List(_)) { ":[" } else { ":{" });
                }
                Sort::Item(idx) => {
                    self.hold_places(self.n_open.saturating_sub(1), idx);
                    self.out.push('{');
                }
            }
            self.n_open += 1;
        }
    }

    /// Begins an element of the list that was entered last.
    fn open_item(&mut self, idx: usize) {
        self.open();
        self.hold_places(self.levels.len().saturating_sub(1), idx);
    }

    /// Holds the places of elements that had nothing to keep.
    fn hold_places(&mut self, list: usize, idx: usize) {
        let n_written = self.levels.get(list).map_or(idx, |level| level.n_written);
        for _ in n_written..idx {
            self.comma();
            self.out.push_str("{}");
        }
        self.comma();
        if let Some(level) = self.levels.get_mut(list) {
            level.n_written = idx + 1;
        }
    }

    fn comma(&mut self) {
        match self.out.as_bytes().last() {
            None => {
                self.out.reserve(USUAL_EXTRA);
                self.out.push('{');
            }
            Some(b'{' | b'[') => {}
            Some(_) => self.out.push(','),
        }
    }

    fn path(&self, key: Option<&str>) -> String {
        let mut path = self.base.to_owned();
        let mut add = |key: &str| {
            if !path.is_empty() {
                path.push('.');
            }
            path.push_str(key);
        };
        for level in &self.levels {
            match level.sort {
                Sort::Object(key) => add(key),
                Sort::List(key) => add(&[key, "[]"].concat()),
                Sort::Item(_) => {}
            }
        }
        key.into_iter().for_each(add);
        path
    }
}

/// An extra to which something may still be added: an object without its end, or nothing.
#[derive(Debug, Default)]
pub(super) struct Unclosed(String);

impl Unclosed {
    /// The whole of it, with what stands around the object.
    pub(super) fn close(self, around: &Unclosed) -> Extra {
        let mut all = self.0;
        if !around.0.is_empty() {
            all.push(if all.is_empty() { '{' } else { ',' });
            all.push_str("\"envelope\":");
            all.push_str(&around.0);
            all.push('}');
        }
        if !all.is_empty() {
            all.push('}');
        }
        Extra(all)
    }

    /// Adds a text.
    pub(super) fn put_text(&mut self, key: &str, text: &str) {
        if text.is_empty() {
            return;
        }
        self.0.push(if self.0.is_empty() { '{' } else { ',' });
        push_string(&mut self.0, key);
        self.0.push(':');
        push_string(&mut self.0, text);
    }
}

/// A whole object as an extra, with what stands around it.
pub(super) fn whole(raw: &str, around: &Unclosed) -> Extra {
    let mut all = String::new();
    let copied = Json::new(raw).copy_said(&mut all);
    if !matches!(copied, Ok(true)) {
        all.clear();
    }
    all.pop();
    Unclosed(all).close(around)
}

/// Takes off a mark that stands before a name.
pub(super) fn without_mark(text: Cow<'_, str>, mark: char) -> Cow<'_, str> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.strip_prefix(mark).unwrap_or(text)),
        Cow::Owned(text) => Cow::Owned(text.strip_prefix(mark).map(str::to_owned).unwrap_or(text)),
    }
}

/// The inside of a number, or of a text.
fn digits(raw: &str) -> Option<&str> {
    match raw.as_bytes().first()? {
        b'"' => raw.get(1..raw.len() - 1),
        b'-' | b'0'..=b'9' => Some(raw),
        _ => None,
    }
}

/// Appends a JSON string.
fn push_string(out: &mut String, text: &str) {
    out.reserve(text.len() + 2);
    out.push('"');
    if is_plain(text) {
        out.push_str(text);
    } else {
        let mut escaped = Vec::new();
        write_escaped(&mut escaped, text);
        out.push_str(&String::from_utf8_lossy(&escaped));
    }
    out.push('"');
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests;
