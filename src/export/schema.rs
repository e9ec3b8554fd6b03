//! The one description of every table and column: the Arrow schema and the list in the README are made from it.
//!
//! A column's number is its Parquet field id. It stays with its meaning for ever: a new column takes a new number, and
//! [`SCHEMA`] counts up when a column changes or goes.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Arc, LazyLock};

use arrow_schema::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use parquet::arrow::PARQUET_FIELD_ID_META_KEY;

/// Version of the tables; destinations of another version are not added to.
pub const SCHEMA: u32 = 1;

/// A kind of row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// One row a post.
    Tweets,
    /// One row an identified event.
    Events,
    /// One row an envelope.
    Envelopes,
    /// One row a change of a profile.
    ProfileChanges,
    /// One row a follow or its end.
    Follows,
    /// One row a reading of a post's counters.
    Engagement,
    /// One row something happened in a conversation.
    DmActivity,
    /// One row a stretch of published time.
    Coverage,
}

impl Table {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Tweets,
        Self::Events,
        Self::Envelopes,
        Self::ProfileChanges,
        Self::Follows,
        Self::Engagement,
        Self::DmActivity,
        Self::Coverage,
    ];

    /// The word in paths, flags and output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tweets => "tweets",
            Self::Events => "events",
            Self::Envelopes => "envelopes",
            Self::ProfileChanges => "profile_changes",
            Self::Follows => "follows",
            Self::Engagement => "engagement",
            Self::DmActivity => "dm_activity",
            Self::Coverage => "coverage",
        }
    }

    /// What a row is, which date it lies under, and how rows are sorted.
    pub const fn says(self) -> &'static str {
        match self {
            Self::Tweets => {
                "one row a post (platform and `tweet_id`), merged from everything that was said of it; by `published_at`, `tweet_id`"
            }
            Self::Events => {
                "one row an identified event of an envelope, as it came; by `published_at` (without one, `received_at`)"
            }
            Self::Envelopes => "one row an envelope or page of history, byte for byte; by `received_at`",
            Self::ProfileChanges => "one row a change of a profile, merged by event id; by `observed_at`",
            Self::Follows => "one row a follow or unfollow, merged by event id; by `observed_at`",
            Self::Engagement => "one row a reading of a post's counters; by the post's `published_at`",
            Self::DmActivity => "one row an event in a conversation; by `published_at` (without one, `received_at`)",
            Self::Coverage => {
                "one row a stretch of published time, `[starts_at, ends_at)`, of which one thing is known; one file, without partitions"
            }
        }
    }

    /// Its columns.
    pub const fn columns(self) -> &'static [Column] {
        match self {
            Self::Tweets => TWEETS,
            Self::Events => EVENTS,
            Self::Envelopes => ENVELOPES,
            Self::ProfileChanges => PROFILE_CHANGES,
            Self::Follows => FOLLOWS,
            Self::Engagement => ENGAGEMENT,
            Self::DmActivity => DM_ACTIVITY,
            Self::Coverage => COVERAGE,
        }
    }

    /// Whether several sightings make a row.
    pub(super) const fn is_merged(self) -> bool {
        matches!(self, Self::Tweets | Self::ProfileChanges | Self::Follows)
    }

    /// Columns by which rows are sorted.
    pub(super) const fn sorted_by(self) -> &'static [&'static str] {
        match self {
            Self::Tweets => &["published_at", "tweet_id"],
            Self::Envelopes => &["received_at"],
            Self::Coverage => &["source", "scope", "version"],
            _ => &[],
        }
    }

    /// The Arrow schema, made once.
    pub(super) fn schema(self) -> SchemaRef {
        static SCHEMAS: LazyLock<Vec<SchemaRef>> =
            LazyLock::new(|| Table::ALL.iter().map(|table| Arc::new(Schema::new(fields(table.columns())))).collect());
        Arc::clone(&SCHEMAS[self as usize])
    }
}

impl std::str::FromStr for Table {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let known = || Self::ALL.map(Self::name).join(", ");
        Self::ALL.into_iter().find(|t| t.name() == name).ok_or_else(|| format!("unknown table `{name}`; known are {}", known()))
    }
}

/// What a column holds.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// True or false.
    Bool,
    /// A number that names something; never through a float.
    Id,
    /// An account's number, which comes again with all that it does.
    Account,
    /// A number that birdtape counted up: a record's, a connection's.
    Number,
    /// How many.
    Count,
    /// A measured number.
    Real,
    /// One of few words, or a name that comes again.
    Word,
    /// Any text.
    Text,
    /// A JSON object, as text.
    Json,
    /// Any bytes.
    Bytes,
    /// An instant.
    Time,
    /// Words; the number is the element's.
    Words(i32),
    /// Some columns together.
    Struct(&'static [Column]),
    /// Any number of such; the number is the element's.
    List(i32, &'static [Column]),
}

/// A column, or a field of one.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Parquet field id, unique in its table.
    pub id: i32,
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// Whether it can be null.
    pub null: bool,
    /// Unit of its numbers.
    pub unit: &'static str,
    /// Whose words fill it: T, S, B, X, `all`, or `-` for our own.
    pub by: &'static str,
    /// One sentence.
    pub says: &'static str,
}

impl Column {
    const fn new(id: i32, name: &'static str, kind: Kind, by: &'static str, says: &'static str) -> Self {
        Self { id, name, kind, null: true, unit: "", by, says }
    }

    const fn unit(mut self, unit: &'static str) -> Self {
        self.unit = unit;
        self
    }

    /// Never null.
    const fn always(mut self) -> Self {
        self.null = false;
        self
    }

    /// Whether a cell holds it: no list and no struct.
    pub const fn is_flat(&self) -> bool {
        !matches!(self.kind, Kind::Words(_) | Kind::Struct(_) | Kind::List(..))
    }

    /// Of a struct, or of each in a list: its fields.
    pub(super) const fn fields(&self) -> &'static [Self] {
        match self.kind {
            Kind::Struct(fields) | Kind::List(_, fields) => fields,
            _ => &[],
        }
    }

    /// The leaves below it, with their paths as Parquet writes them.
    pub(super) fn leaves(&self, above: &[String], each: &mut dyn FnMut(Vec<String>, Kind)) {
        let path = |more: &[&str]| [above, &more.iter().map(|part| (*part).to_owned()).collect::<Vec<_>>()].concat();
        match self.kind {
            Kind::Struct(columns) => columns.iter().for_each(|column| column.leaves(&path(&[self.name]), each)),
            Kind::List(_, columns) => {
                columns.iter().for_each(|column| column.leaves(&path(&[self.name, "list", ELEMENT]), each));
            }
            Kind::Words(_) => each(path(&[self.name, "list", ELEMENT]), Kind::Word),
            plain => each(path(&[self.name]), plain),
        }
    }

    fn type_name(&self) -> String {
        match self.kind {
            Kind::Bool => "BOOLEAN".to_owned(),
            Kind::Id | Kind::Account | Kind::Number | Kind::Count => "INT64".to_owned(),
            Kind::Real => "DOUBLE".to_owned(),
            Kind::Word | Kind::Text | Kind::Json => "STRING".to_owned(),
            Kind::Bytes => "BINARY".to_owned(),
            Kind::Time => "TIMESTAMP".to_owned(),
            Kind::Words(_) => "LIST<STRING>".to_owned(),
            Kind::Struct(columns) => format!("STRUCT<{}>", names(columns)),
            Kind::List(_, columns) => format!("LIST<STRUCT<{}>>", names(columns)),
        }
    }
}

const ELEMENT: &str = "element";

fn names(columns: &[Column]) -> String {
    let word = |column: &Column| match column.kind {
        Kind::Word | Kind::Text => column.name.to_owned(),
        _ => format!("{} {}", column.name, column.type_name()),
    };
    columns.iter().map(word).collect::<Vec<_>>().join(", ")
}

fn fields(columns: &[Column]) -> Fields {
    columns.iter().map(|column| numbered(column.name, data_type(column.kind), column.null, column.id)).collect()
}

fn numbered(name: &str, data_type: DataType, null: bool, id: i32) -> Arc<Field> {
    let metadata = HashMap::from([(PARQUET_FIELD_ID_META_KEY.to_owned(), id.to_string())]);
    Arc::new(Field::new(name, data_type, null).with_metadata(metadata))
}

fn data_type(kind: Kind) -> DataType {
    match kind {
        Kind::Bool => DataType::Boolean,
        Kind::Id | Kind::Account | Kind::Number | Kind::Count => DataType::Int64,
        Kind::Real => DataType::Float64,
        Kind::Word | Kind::Text | Kind::Json => DataType::Utf8,
        Kind::Bytes => DataType::Binary,
        Kind::Time => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        Kind::Words(id) => DataType::List(numbered(ELEMENT, DataType::Utf8, false, id)),
        Kind::Struct(columns) => DataType::Struct(fields(columns)),
        Kind::List(id, columns) => DataType::List(numbered(ELEMENT, DataType::Struct(fields(columns)), false, id)),
    }
}

/// The tables of columns as Markdown, for the README.
pub fn as_markdown() -> String {
    let mut out = String::new();
    for table in Table::ALL {
        writeln!(
            out,
            "#### `{}`\n\n{}.\n\n| column | type | filled by | holds |\n| --- | --- | --- | --- |",
            table.name(),
            upper(table.says())
        )
        .ok();
        for column in table.columns() {
            let null = if column.null { "" } else { ", not null" };
            let unit = if column.unit.is_empty() { String::new() } else { format!(" ({})", column.unit) };
            writeln!(out, "| `{}` | {}{null} | {} | {}{unit} |", column.name, column.type_name(), column.by, column.says).ok();
        }
        out.push('\n');
    }
    out
}

fn upper(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

use Kind::{Account, Bool, Bytes, Count, Id, Json, List, Number, Real, Struct, Text, Time, Word, Words};

const fn c(id: i32, name: &'static str, kind: Kind, by: &'static str, says: &'static str) -> Column {
    Column::new(id, name, kind, by, says)
}

const TWEETS: &[Column] = &[
    c(1, "published_at", Time, "-", "when it was published, from its id; from the provider's field where the id does not tell"),
    c(2, "tweet_id", Id, "all", "its id").always(),
    c(3, "platform", Word, "all", "`x` or `truth_social`").always(),
    c(4, "kind", Word, "T S B", "`post`, `reply`, `quote` or `repost`"),
    c(5, "author_id", Account, "T S B", "who wrote it"),
    c(6, "author_handle", Word, "T S B", "the handle, without `@`"),
    c(7, "author_name", Word, "T S B", "the name shown"),
    c(8, "author_bio", Word, "T S B", "what the account says about itself"),
    c(9, "author_location", Word, "T S B", "where it says it is"),
    c(10, "author_picture_url", Word, "T S B", "its picture"),
    c(11, "author_created_at", Time, "T B", "since when it exists"),
    c(12, "author_followers", Count, "T S B", "how many follow it"),
    c(13, "author_following", Count, "T S B", "how many it follows"),
    c(14, "author_posts", Count, "T S B", "how many posts it wrote"),
    c(15, "author_is_blue_verified", Bool, "T B", "whether it has the paid badge"),
    c(16, "author_verified_type", Word, "T S", "`blue`, `business`, `government`, `none` or another word of the provider"),
    c(17, "text", Text, "T S B", "its words, as the provider wrote them"),
    c(18, "lang", Word, "T B", "BCP 47, or X's own code"),
    c(19, "url", Text, "T S", "its address"),
    c(20, "client", Word, "T B", "the program it was written with"),
    c(21, "conversation_id", Id, "T B", "the conversation's first post"),
    c(22, "in_reply_to_tweet_id", Id, "T S B", "the post it answers"),
    c(23, "in_reply_to_user_id", Account, "T S B", "the account it answers"),
    c(24, "in_reply_to_handle", Word, "T S B", "that account's handle"),
    c(25, "quoted", Struct(QUOTED), "T S B", "the post it quotes"),
    c(30, "reposted", Struct(REPOSTED), "T S B", "the post it repeats"),
    c(35, "is_sensitive", Bool, "B", "whether the provider marks it as possibly sensitive"),
    c(36, "hashtags", Words(37), "T B", "without `#`").always(),
    c(38, "symbols", Words(39), "T B", "cashtags, without `$`").always(),
    c(40, "mentions", List(41, MENTIONS), "T S B", "accounts mentioned").always(),
    c(45, "urls", List(46, LINKS), "T S B", "links: as they stand in the text, where they lead, what is shown").always(),
    c(50, "media", List(51, MEDIA), "T S B", "pictures and films").always(),
    c(57, "tokens", List(58, TOKENS), "S", "tokens, markets and contracts that the provider detected").always(),
    c(67, "ocr_text", Text, "S", "text that the provider read out of pictures"),
    c(68, "first_like_count", Count, "T B", "likes when its counters were first seen"),
    c(69, "first_repost_count", Count, "T B", "reposts then"),
    c(70, "first_reply_count", Count, "T B", "replies then"),
    c(71, "first_quote_count", Count, "T B", "quotes then"),
    c(72, "first_bookmark_count", Count, "T B", "bookmarks then"),
    c(73, "first_view_count", Count, "T B", "views then"),
    c(74, "counts_first_at", Time, "-", "when its counters were first seen (`received_at`)"),
    c(75, "like_count", Count, "T B", "likes when its counters were last seen"),
    c(76, "repost_count", Count, "T B", "reposts then"),
    c(77, "reply_count", Count, "T B", "replies then"),
    c(78, "quote_count", Count, "T B", "quotes then"),
    c(79, "bookmark_count", Count, "T B", "bookmarks then"),
    c(80, "view_count", Count, "T B", "views then"),
    c(81, "counts_last_at", Time, "-", "when its counters were last seen (`received_at`)"),
    c(82, "first_received_at", Time, "-", "when the first envelope about it came").always(),
    c(83, "last_received_at", Time, "-", "when the last one came").always(),
    c(84, "latency_ms", Count, "-", "from publication to the first live envelope; null when none came live").unit("ms"),
    c(85, "detected_at", Time, "T S B", "when the provider says that it noticed it"),
    c(86, "rules", List(87, RULES), "T B", "rules, monitors and topics that selected it").always(),
    c(91, "sources", Words(92), "-", "sources that saw it").always(),
    c(93, "providers", Words(94), "-", "their providers").always(),
    c(95, "via", Words(96), "-", "ways it came: `ws`, `sse`, `lines`, `history` …").always(),
    c(97, "gap_id", Word, "-", "the gap whose filling brought it first; null when it was not a filling"),
    c(98, "seen_count", Count, "-", "how many events about it were merged").always(),
    c(99, "is_deleted", Bool, "S", "whether a deletion was seen").always(),
    c(100, "deleted_at", Time, "S", "when the provider (else we) noticed the first deletion"),
    c(101, "pinned_at", Time, "S", "when it was pinned; null when it is not, as far as is known"),
    c(102, "extra", Json, "all", "fields of the richest version that have no column, as JSON"),
    c(103, "envelope_source", Word, "-", "source of the envelope with the richest version").always(),
    c(104, "envelope_n", Number, "-", "its number there").always(),
];

const QUOTED: &[Column] = &[
    c(26, "tweet_id", Id, "", ""),
    c(27, "author_id", Account, "", ""),
    c(28, "author_handle", Word, "", ""),
    c(29, "text", Text, "", ""),
];

const REPOSTED: &[Column] = &[
    c(31, "tweet_id", Id, "", ""),
    c(32, "author_id", Account, "", ""),
    c(33, "author_handle", Word, "", ""),
    c(34, "text", Text, "", ""),
];

const MENTIONS: &[Column] = &[c(42, "id", Account, "", ""), c(43, "handle", Word, "", ""), c(44, "name", Word, "", "")];

const LINKS: &[Column] = &[c(47, "url", Text, "", ""), c(48, "expanded_url", Text, "", ""), c(49, "display_url", Text, "", "")];

const MEDIA: &[Column] = &[
    c(52, "kind", Word, "", ""),
    c(53, "url", Text, "", ""),
    c(54, "preview_url", Text, "", ""),
    c(55, "alt_text", Text, "", ""),
    c(56, "duration_ms", Count, "", ""),
];

const TOKENS: &[Column] = &[
    c(59, "kind", Word, "", "").always(),
    c(60, "symbol", Word, "", ""),
    c(61, "name", Word, "", ""),
    c(62, "contract", Word, "", ""),
    c(63, "chain", Word, "", ""),
    c(64, "price_usd", Real, "", ""),
    c(65, "found_in", Words(66), "", "").always(),
];

const RULES: &[Column] =
    &[c(88, "source", Word, "", "").always(), c(89, "id", Word, "", "").always(), c(90, "name", Word, "", "")];

const EVENTS: &[Column] = &[
    c(1, "source", Word, "-", "the source").always(),
    c(2, "n", Number, "-", "the record's number in it").always(),
    c(3, "index", Count, "-", "the event's place in the record, from 0").always(),
    c(4, "provider", Word, "-", "the source's provider").always(),
    c(5, "kind", Word, "all", "`tweet`, `meta`, `update`, `delete`, `pin`, `unpin`, `profile`, `follow`, `unfollow`, `callout`, `action`, `engagement`, `dm_update`, `dm_typing`").always(),
    c(6, "id", Text, "all", "what identifies it within its kind").always(),
    c(7, "tweet_id", Id, "all", "the same as a number, where it is a post's"),
    c(8, "selector", Word, "T B X", "what selected it: a rule's id, a monitor's, a topic"),
    c(9, "selector_name", Word, "T B", "its name"),
    c(10, "published_at", Time, "all", "when the post was published, or what the provider observed"),
    c(11, "provider_at", Time, "T S B", "the envelope's stamp"),
    c(12, "received_at", Time, "-", "when the envelope came").always(),
    c(13, "via", Word, "-", "how it came").always(),
    c(14, "gap_id", Word, "-", "the gap whose filling brought it"),
    c(15, "extra", Json, "S B", "what an event says that has no table of its own, as JSON"),
];

const ENVELOPES: &[Column] = &[
    c(1, "source", Word, "-", "the source").always(),
    c(2, "n", Number, "-", "the record's number in it").always(),
    c(3, "provider", Word, "-", "the source's provider").always(),
    c(4, "kind", Word, "-", "`frame`: an envelope; `http`: a page of history").always(),
    c(5, "conn", Number, "-", "the connection's number in its source; 0 is none").always(),
    c(6, "via", Word, "-", "how it came").always(),
    c(7, "received_at", Time, "-", "when it came").always(),
    c(8, "gap_id", Word, "-", "the gap whose filling brought it"),
    c(9, "bytes", Count, "-", "its length").unit("bytes").always(),
    c(10, "is_json", Bool, "-", "whether it is one JSON object or array").always(),
    c(11, "events", Count, "-", "how many identified events are in it").always(),
    c(12, "problem", Word, "-", "why it could not be read, or not all of it"),
    c(13, "raw", Text, "all", "the envelope, where it is UTF-8"),
    c(14, "raw_bytes", Bytes, "all", "the envelope, where it is not"),
];

const PROFILE_CHANGES: &[Column] = &[
    c(1, "event_id", Text, "S", "what identifies the change").always(),
    c(2, "platform", Word, "S", "`x` or `truth_social`"),
    c(3, "observed_at", Time, "S", "when the provider saw it"),
    c(4, "account_id", Account, "S", "the account"),
    c(5, "handle", Word, "S", "its handle, as it is now"),
    c(6, "name", Word, "S", "its name"),
    c(7, "bio", Text, "S", "what it says about itself"),
    c(8, "location", Word, "S", "where it says it is"),
    c(9, "picture_url", Text, "S", "its picture"),
    c(10, "followers", Count, "S", "how many follow it"),
    c(11, "following", Count, "S", "how many it follows"),
    c(12, "changes", List(13, CHANGES), "S", "what changed, from what, to what").always(),
    c(17, "first_received_at", Time, "-", "when the first envelope about it came").always(),
    c(18, "seen_count", Count, "-", "how many events were merged").always(),
    c(19, "sources", Words(20), "-", "sources that saw it").always(),
    c(21, "via", Words(22), "-", "ways it came").always(),
    c(23, "gap_id", Word, "-", "the gap whose filling brought it first"),
    c(24, "extra", Json, "S", "fields that have no column, as JSON"),
    c(25, "envelope_source", Word, "-", "source of the first envelope").always(),
    c(26, "envelope_n", Number, "-", "its number there").always(),
];

const CHANGES: &[Column] = &[c(14, "field", Word, "", "").always(), c(15, "before", Text, "", ""), c(16, "after", Text, "", "")];

const FOLLOWS: &[Column] = &[
    c(1, "event_id", Text, "S", "what identifies the event").always(),
    c(2, "kind", Word, "S", "`follow` or `unfollow`").always(),
    c(3, "platform", Word, "S", "`x` or `truth_social`"),
    c(4, "observed_at", Time, "S", "when the provider saw it"),
    c(5, "actor_id", Account, "S", "who follows"),
    c(6, "actor_handle", Word, "S", "the handle"),
    c(7, "actor_name", Word, "S", "the name shown"),
    c(8, "actor_followers", Count, "S", "how many follow the one who follows"),
    c(9, "target_id", Account, "S", "who is followed"),
    c(10, "target_handle", Word, "S", "the handle"),
    c(11, "target_name", Word, "S", "the name shown"),
    c(12, "target_bio", Text, "S", "what that account says about itself"),
    c(13, "target_followers", Count, "S", "how many follow it"),
    c(14, "first_received_at", Time, "-", "when the first envelope about it came").always(),
    c(15, "seen_count", Count, "-", "how many events were merged").always(),
    c(16, "sources", Words(17), "-", "sources that saw it").always(),
    c(18, "via", Words(19), "-", "ways it came").always(),
    c(20, "gap_id", Word, "-", "the gap whose filling brought it first"),
    c(21, "extra", Json, "S", "fields that have no column, as JSON"),
    c(22, "envelope_source", Word, "-", "source of the first envelope").always(),
    c(23, "envelope_n", Number, "-", "its number there").always(),
];

const ENGAGEMENT: &[Column] = &[
    c(1, "tweet_id", Id, "X", "the post"),
    c(2, "published_at", Time, "X", "when it was published"),
    c(3, "received_at", Time, "-", "when the counters came").always(),
    c(4, "like_count", Count, "X", "likes; null when this reading does not tell"),
    c(5, "repost_count", Count, "X", "reposts"),
    c(6, "reply_count", Count, "X", "replies"),
    c(7, "quote_count", Count, "X", "quotes"),
    c(8, "bookmark_count", Count, "X", "bookmarks"),
    c(9, "view_count", Count, "X", "views"),
    c(10, "view_state", Word, "X", "what X says of the view counter"),
    c(11, "source", Word, "-", "the source").always(),
    c(12, "n", Number, "-", "the record's number in it").always(),
    c(13, "index", Count, "-", "the event's place in the record, from 0").always(),
    c(14, "via", Word, "-", "how it came").always(),
    c(15, "gap_id", Word, "-", "the gap whose filling brought it"),
    c(16, "extra", Json, "X", "fields that have no column, as JSON"),
];

const DM_ACTIVITY: &[Column] = &[
    c(1, "conversation_id", Word, "X", "the conversation").always(),
    c(2, "kind", Word, "X", "`dm_update` or `dm_typing`").always(),
    c(3, "user_id", Account, "X", "who did it"),
    c(4, "message_id", Id, "X", "the message, where history names it"),
    c(5, "text", Text, "X", "its words, where history has them"),
    c(6, "published_at", Time, "X", "when it happened, where X says so"),
    c(7, "received_at", Time, "-", "when it came").always(),
    c(8, "source", Word, "-", "the source").always(),
    c(9, "n", Number, "-", "the record's number in it").always(),
    c(10, "index", Count, "-", "the event's place in the record, from 0").always(),
    c(11, "via", Word, "-", "how it came").always(),
    c(12, "gap_id", Word, "-", "the gap whose filling brought it"),
    c(13, "extra", Json, "X", "fields that have no column, as JSON"),
];

const COVERAGE: &[Column] = &[
    c(1, "source", Word, "-", "the source").always(),
    c(2, "scope", Word, "-", "`*` for everything it delivers, else a rule, a monitor, a topic").always(),
    c(3, "version", Count, "-", "the scope's version").always(),
    c(4, "kind", Word, "-", "of which kind of event; null for what it all comes to, `*` for kinds that no history was asked for"),
    c(
        5,
        "class",
        Word,
        "-",
        "`live`, `backfilled`, `audited` (whole), `missing`, `unverifiable`, `pruned` (removed from the tape on purpose)",
    )
    .always(),
    c(6, "starts_at", Time, "-", "first instant of published time").always(),
    c(7, "ends_at", Time, "-", "first instant that is no longer in it; null while it has no end"),
    c(8, "gap_id", Word, "-", "the gap it lies in"),
    c(9, "cause", Word, "-", "why that gap was opened"),
    c(10, "gap_state", Word, "-", "what became of it"),
    c(11, "scope_text", Text, "-", "what selects the scope's events, where the tape knows it"),
];

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::collections::BTreeSet;

    fn ids(columns: &[Column], out: &mut Vec<i32>) {
        for column in columns {
            out.push(column.id);
            match column.kind {
                Words(id) => out.push(id),
                Struct(columns) => ids(columns, out),
                List(id, columns) => {
                    out.push(id);
                    ids(columns, out);
                }
                _ => {}
            }
        }
    }

    #[test]
    fn numbers_and_names_are_unique() {
        for table in Table::ALL {
            let mut all = Vec::new();
            ids(table.columns(), &mut all);
            assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len(), "{}", table.name());
            let names: BTreeSet<_> = table.columns().iter().map(|column| column.name).collect();
            assert_eq!(names.len(), table.columns().len());
            assert!(!names.contains("date"), "`date` is the key of the partition");
            assert!(table.sorted_by().iter().all(|name| names.contains(name)));
            assert_eq!(Table::ALL[table as usize], table);
        }
    }

    #[test]
    fn the_readme_lists_every_column() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
        let readme = std::fs::read_to_string(path).unwrap();
        let (begin, end) =
            ("<!-- columns: made from src/export/schema.rs, UPDATE_EXPECT=1 rewrites -->\n", "<!-- end of columns -->");
        let (head, rest) = readme.split_once(begin).unwrap();
        let (there, tail) = rest.split_once(end).unwrap();
        let wanted = format!("\n{}", as_markdown());
        if there != wanted && std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::write(path, format!("{head}{begin}{wanted}{end}{tail}")).unwrap();
            return;
        }
        assert!(there == wanted, "the README's tables of columns are old: run this test with UPDATE_EXPECT=1");
    }
}
