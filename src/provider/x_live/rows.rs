//! The live pipeline's envelopes as rows, and the pages of X's own history.
//!
//! Names and types of counters drift: `like_count` to most clients, `favorite_count` to some; digits in a text, or a
//! number. Nothing describes X's own pages, so no field in them is a surprise but a counter of another type.

use std::borrow::Cow;

use super::page::Entry;
use super::wire;
use crate::model::json::{Bad, Json, Kind};
use crate::model::{Dm, Engagement, Event, EventId, EventKind, Message, Row, Said, TweetId, UnixMicros};
use crate::provider::history::one_value;
use crate::provider::rows::{Beside, RowSink, Told, Type, Unclosed, walk};

/// Reads an envelope.
pub(in crate::provider) fn read_rows(text: &str, sink: &mut dyn RowSink) -> Told {
    let mut envelope = Envelope::new(sink.keeps_known());
    let Some(json) = walk(text, |key, json| envelope.field(key, json)) else { return Told::nothing() };
    match envelope.tell(sink) {
        Ok(message) => Told { json, message, provider_at: None },
        Err(_) => Told::nothing(),
    }
}

/// What the walk has found so far; what identifies an event is gathered where the decoder does.
struct Envelope<'a> {
    wire: wire::Envelope<'a>,
    engagement: Engagement<'a>,
    update: Dm<'a>,
    typing: Dm<'a>,
    around: Beside<'a>,
    of_engagement: Beside<'a>,
    of_update: Beside<'a>,
    of_typing: Beside<'a>,
    /// The bodies of the known kinds, by name; empty until they come.
    bodies: [(EventKind, &'static str, &'a str); 3],
}

impl<'a> Envelope<'a> {
    fn new(keeps_known: bool) -> Self {
        let new = |base| Beside::new(base, keeps_known);
        Self {
            wire: wire::Envelope::default(),
            engagement: Engagement::default(),
            update: Dm::default(),
            typing: Dm::default(),
            around: new(""),
            of_engagement: new("payload.tweet_engagement"),
            of_update: new("payload.dm_update"),
            of_typing: new("payload.dm_typing"),
            bodies: [
                (EventKind::Engagement, "tweet_engagement", ""),
                (EventKind::DmUpdate, "dm_update", ""),
                (EventKind::DmTyping, "dm_typing", ""),
            ],
        }
    }

    fn field(&mut self, key: &str, json: &mut Json<'a>) -> Result<(), Bad> {
        match key {
            "topic" => {
                self.wire.topic = self.around.text(key, json)?;
                Ok(())
            }
            "payload" if json.kind() == Kind::Object => {
                self.around.enter("payload");
                json.object(|kind, json| self.kind(kind, json))?;
                self.around.leave();
                Ok(())
            }
            "payload" => self.around.retyped(key, json, Type::Object),
            "subscriptions" | "errors" => self.wire.field(key, json),
            _ => self.around.other(key, json, None),
        }
    }

    fn kind(&mut self, kind: &str, json: &mut Json<'a>) -> Result<(), Bad> {
        let start = json.position();
        match kind {
            "config" | "subscriptions" => self.wire.kind(kind, json),
            "tweet_engagement" | "dm_update" | "dm_typing" if json.kind() != Kind::Object => {
                self.around.retyped(kind, json, Type::Object)
            }
            "tweet_engagement" => {
                self.wire.engagement = true;
                let (engagement, beside) = (&mut self.engagement, &mut self.of_engagement);
                json.object(|key, json| counter(engagement, beside, key, json))?;
                self.bodies[0].2 = json.since(start);
                Ok(())
            }
            "dm_update" => {
                self.wire.dm_update = Some(conversation(&mut self.update, &mut self.of_update, json)?);
                self.bodies[1].2 = json.since(start);
                Ok(())
            }
            "dm_typing" => {
                self.wire.dm_typing = Some(conversation(&mut self.typing, &mut self.of_typing, json)?);
                self.bodies[2].2 = json.since(start);
                Ok(())
            }
            _ => self.around.other(kind, json, None),
        }
    }

    fn tell(mut self, sink: &mut dyn RowSink) -> Result<Message, Bad> {
        let events = self.wire.events();
        let message = self.wire.message(!events.is_empty());
        for (kind, name, body) in self.bodies.iter().filter(|(.., body)| !body.is_empty() && !events.is_empty()) {
            // One without the id it must have, beside another's event.
            if events.iter().all(|event| event.kind != *kind) {
                self.around.put(name, body)?;
            }
        }
        let around = self.around.take();
        for event in events {
            let said = match event.kind {
                EventKind::Engagement => {
                    self.engagement.extra = self.of_engagement.take().close(&around);
                    Said::Engagement(Box::new(std::mem::take(&mut self.engagement)))
                }
                EventKind::DmUpdate => {
                    self.update.extra = self.of_update.take().close(&around);
                    Said::Dm(Box::new(std::mem::take(&mut self.update)))
                }
                _ => {
                    self.typing.extra = self.of_typing.take().close(&around);
                    Said::Dm(Box::new(std::mem::take(&mut self.typing)))
                }
            };
            sink.row(Row { event, selector_name: None, said });
        }
        for beside in [self.around, self.of_engagement, self.of_update, self.of_typing] {
            beside.tell(sink);
        }
        Ok(message)
    }
}

fn counter<'a>(engagement: &mut Engagement<'a>, beside: &mut Beside<'a>, key: &str, json: &mut Json<'a>) -> Result<(), Bad> {
    let counts = &mut engagement.counts;
    match key {
        "like_count" | "favorite_count" => one_of_two(&mut counts.likes, beside, key, json)?,
        "retweet_count" => counts.reposts = beside.number(key, json)?,
        "reply_count" => counts.replies = beside.number(key, json)?,
        "quote_count" => counts.quotes = beside.number(key, json)?,
        "bookmark_count" => counts.bookmarks = beside.number(key, json)?,
        "view_count" => one_of_two(&mut counts.views, beside, key, json)?,
        "view_count_info" => beside.object("view_count_info", json, |beside, key, json| match key {
            "count" => one_of_two(&mut counts.views, beside, key, json),
            "state" => view_state(&mut engagement.view_state, beside, key, json),
            _ => beside.other(key, json, None),
        })?,
        // Observed beside a bare `view_count`.
        "view_count_state" => view_state(&mut engagement.view_state, beside, key, json)?,
        _ => beside.other(key, json, None)?,
    }
    Ok(())
}

fn view_state<'a>(column: &mut Option<Cow<'a, str>>, beside: &mut Beside<'a>, key: &str, json: &mut Json<'a>) -> Result<(), Bad> {
    let told = beside.text(key, json)?;
    beside.fill(key, column, told);
    Ok(())
}

/// A counter that has two names: should both be there and differ, the first is the column's.
fn one_of_two<'a>(column: &mut Option<u64>, beside: &mut Beside<'a>, key: &str, json: &mut Json<'a>) -> Result<(), Bad> {
    match beside.number(key, json)? {
        Some(told) if column.is_some_and(|known| known != told) => beside.put(key, &told.to_string()),
        told => {
            *column = told.or(*column);
            Ok(())
        }
    }
}

/// Who and where; of a doubled kind the last one counts, as the decoder has it.
fn conversation<'a>(dm: &mut Dm<'a>, beside: &mut Beside<'a>, json: &mut Json<'a>) -> Result<Option<Cow<'a, str>>, Bad> {
    *dm = Dm::default();
    let mut id = None;
    json.object(|key, json| {
        match key {
            "conversation_id" => id = beside.text(key, json)?,
            "user_id" => dm.user_id = beside.number(key, json)?,
            _ => beside.other(key, json, None)?,
        }
        Ok(())
    })?;
    dm.conversation_id = id.clone().unwrap_or_default();
    Ok(id)
}

/// Reads a snapshot of posts, or a page of a conversation.
pub(in crate::provider) fn read_page_rows(text: &str, sink: &mut dyn RowSink) -> Told {
    let Some(exact) = one_value(text.as_bytes()) else { return Told::nothing() };
    let mut json = Json::new(text.trim_matches([' ', '\t', '\r', '\n']));
    let mut page = Page { keeps_known: sink.keeps_known(), ..Page::default() };
    let read = json.object(|key, json| page.field(key, json));
    let message = if page.posts.is_some() || page.talk.is_some() { Message::Data } else { Message::Other };
    if read.is_ok() {
        page.tell(sink);
    }
    Told { json: exact, message, provider_at: None }
}

#[derive(Default)]
struct Page<'a> {
    keeps_known: bool,
    posts: Option<Vec<Totals<'a>>>,
    talk: Option<Vec<(Entry, Box<Dm<'a>>, Beside<'a>)>>,
}

impl<'a> Page<'a> {
    fn field(&mut self, key: &str, json: &mut Json<'a>) -> Result<(), Bad> {
        match key {
            "data" => json.object(|key, json| if key == "tweetResult" { self.results(json) } else { Ok(()) }),
            "conversation_timeline" if json.kind() == Kind::Object => {
                let keeps_known = self.keeps_known;
                let mut talk = Vec::new();
                json.object(|key, json| {
                    if key != "entries" {
                        return Ok(());
                    }
                    json.array(|json| {
                        json.object(|kind, json| {
                            talk.push(entry(kind == "message", keeps_known, json)?);
                            Ok(())
                        })
                    })
                })?;
                self.talk = Some(talk);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// `{"result": …}`, or a list of those.
    fn results(&mut self, json: &mut Json<'a>) -> Result<(), Bad> {
        let (mut found, keeps_known) = (Vec::new(), self.keeps_known);
        let mut wrapped = |json: &mut Json<'a>| {
            json.object(|key, json| if key == "result" { post(json, keeps_known, &mut found) } else { Ok(()) })
        };
        match json.kind() {
            Kind::Array => json.array(wrapped)?,
            Kind::Object => wrapped(json)?,
            _ => return Ok(()),
        }
        self.posts = Some(found);
        Ok(())
    }

    fn tell(self, sink: &mut dyn RowSink) {
        for Totals { id, mut engagement, mut beside, around } in self.posts.unwrap_or_default() {
            engagement.extra = beside.take().close(&around);
            let event = Event {
                kind: EventKind::Engagement,
                id: EventId::Tweet(id),
                published_at: None,
                selector: format!("/tweet_engagement/{id}"),
            };
            sink.row(Row { event, selector_name: None, said: Said::Engagement(engagement) });
            beside.tell(sink);
        }
        for (entry, dm, beside) in self.talk.unwrap_or_default() {
            message_row(entry, dm, beside, sink);
        }
    }
}

fn message_row<'a>(entry: Entry, mut dm: Box<Dm<'a>>, mut beside: Beside<'a>, sink: &mut dyn RowSink) {
    let sent_at = entry.sent_at;
    if let Some(event) = entry.event() {
        if let Some(at) = sent_at.filter(|at| event.published_at != Some(*at)) {
            beside.put_text("time", &at.millis().to_string());
        }
        dm.extra = beside.take().close(&Unclosed::default());
        sink.row(Row { event, selector_name: None, said: Said::Dm(dm) });
    }
    beside.tell(sink);
}

/// A post of a snapshot.
struct Totals<'a> {
    id: TweetId,
    engagement: Box<Engagement<'a>>,
    beside: Beside<'a>,
    /// What that says in which it is wrapped.
    around: Unclosed,
}

/// A post counts if it has its id and its totals; one that not everybody may see is wrapped once more.
fn post<'a>(json: &mut Json<'a>, keeps_known: bool, found: &mut Vec<Totals<'a>>) -> Result<(), Bad> {
    let (mut id, mut has_totals) = (None, false);
    let first = found.len();
    let mut engagement: Box<Engagement<'a>> = Box::default();
    let mut beside = Beside::new("data.tweetResult.result", keeps_known);
    json.object(|key, json| {
        match key {
            "__typename" => beside.constant(key, json, "Tweet")?,
            "rest_id" => id = beside.number(key, json)?.map(TweetId),
            "legacy" => {
                has_totals = json.kind() == Kind::Object;
                let counts = &mut engagement.counts;
                beside.object("legacy", json, |beside, key, json| {
                    match key {
                        "favorite_count" => counts.likes = beside.number(key, json)?,
                        "retweet_count" => counts.reposts = beside.number(key, json)?,
                        "reply_count" => counts.replies = beside.number(key, json)?,
                        "quote_count" => counts.quotes = beside.number(key, json)?,
                        "bookmark_count" => counts.bookmarks = beside.number(key, json)?,
                        _ => beside.keep(key, json)?,
                    }
                    Ok(())
                })?;
            }
            "views" => beside.object("views", json, |beside, key, json| {
                match key {
                    "count" => engagement.counts.views = beside.number(key, json)?,
                    "state" => engagement.view_state = beside.text(key, json)?,
                    _ => beside.keep(key, json)?,
                }
                Ok(())
            })?,
            "tweet" => post(json, keeps_known, found)?,
            _ => beside.keep(key, json)?,
        }
        Ok(())
    })?;
    match (id.filter(|_| has_totals), found.get_mut(first)) {
        (Some(id), _) => found.push(Totals { id, engagement, beside, around: Unclosed::default() }),
        (None, Some(inner)) => inner.around = beside.take(),
        (None, None) => {}
    }
    Ok(())
}

fn entry<'a>(is_message: bool, keeps_known: bool, json: &mut Json<'a>) -> Result<(Entry, Box<Dm<'a>>, Beside<'a>), Bad> {
    let mut entry = Entry { is_message, ..Entry::default() };
    let mut dm: Box<Dm<'a>> = Box::default();
    let mut beside = Beside::new("conversation_timeline.entries[].message", keeps_known);
    let (mut data_id, mut data_time) = (None, None);
    json.object(|key, json| {
        match key {
            "id" => entry.id = beside.number(key, json)?.map(TweetId),
            "time" => entry.sent_at = beside.millis(key, json)?,
            "conversation_id" => {
                dm.conversation_id = beside.text(key, json)?.unwrap_or_default();
                entry.conversation = dm.conversation_id.as_ref().to_owned();
            }
            "message_data" => beside.object("message_data", json, |beside, key, json| {
                match key {
                    "id" => data_id = beside.number(key, json)?,
                    "time" => data_time = beside.integer(key, json)?,
                    "sender_id" => dm.user_id = beside.number(key, json)?,
                    "text" => dm.text = beside.text(key, json)?,
                    _ => beside.keep(key, json)?,
                }
                Ok(())
            })?,
            _ => beside.keep(key, json)?,
        }
        Ok(())
    })?;
    dm.message_id = entry.id.map(|id| id.0);
    // Both stand there twice; the inner ones are kept only if they differ.
    if let Some(id) = data_id.filter(|id| dm.message_id != Some(*id)) {
        beside.put_text("message_data.id", &id.to_string());
    }
    if let Some(ms) = data_time.filter(|ms| entry.sent_at != Some(UnixMicros::from_millis(*ms))) {
        beside.put_text("message_data.time", &ms.to_string());
    }
    Ok((entry, dm, beside))
}
