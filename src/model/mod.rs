//! Ground floor: ids, times, records, events, gaps, secrets.
//!
//! Owns the words every other room speaks. Knows no file, no socket, no clock and no provider's JSON;
//! [`json`] is a strict reader for *any* JSON text, not for a provider's.
//!
//! | file | holds |
//! | --- | --- |
//! | `time.rs` | [`UnixMicros`], the only stored time, and the date formats providers use |
//! | `id.rs` | [`Seq`], [`ConnId`], [`TweetId`], [`SourceName`], [`Provider`] |
//! | `record.rs` | [`Draft`] and [`Body`]: what a tape keeps |
//! | `event.rs` | [`Decoded`] and [`Event`]: what an envelope says |
//! | `gap.rs` | [`Cause`], [`GapState`], [`Window`] |
//! | `row.rs` | [`Row`]: what an envelope says, in words all providers share |
//! | `interval.rs` | [`IntervalSet`], the arithmetic of coverage |
//! | `http.rs` | [`Opening`], [`Request`], [`Response`], [`NetFault`]: network traffic as plain data |
//! | `json.rs` | one-pass strict JSON reader |
//! | `rehearsal.rs` | panics on purpose, to see what comes of them |
//! | `secret.rs` | [`Secret`], which prints as `***`; [`Secrets`], which finds it again |
//!
//! Everything here may be used from many threads at once.

mod event;
mod gap;
mod http;
mod id;
mod interval;
pub mod json;
mod record;
mod rehearsal;
mod row;
mod secret;
mod time;

pub use event::{Decoded, Event, EventId, EventKind, Message};
pub use gap::{Cause, GapState, Window};
pub use http::{Endpoint, Framing, NetFault, Opening, Request, Response, Transport};
pub use id::{ConnId, NameError, Provider, Seq, SourceName, TweetId, UnknownProvider};
pub use interval::IntervalSet;
pub use record::{Body, BodyRef, Draft, RecordKind, Via};
pub use rehearsal::{PARTS, panic_point, poison_point, rehearse_panic};
pub use row::{
    Account, Change, Counts, Dm, Engagement, Extra, Follow, Link, Media, Mention, Nested, Platform, Post, PostKind,
    ProfileChange, Row, Said, Token,
};
pub use secret::{Hidden, Secret, Secrets, percent_encode};
pub use time::{UnixMicros, parse_legacy_date};
