//! Rows. Times are microseconds since 1970, UTC; see `migrations/` for what each column means.

use rusqlite::Row;
use serde::{Deserialize, Serialize};

use super::IdSet;

macro_rules! rows {
    ($($(#[$doc:meta])* $name:ident / $read:ident { $($field:ident : $type:ty $(as $wire:ident)?),+ $(,)? })+) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
            #[allow(missing_docs, reason = "each column is documented once, in the migration")]
            pub struct $name { $(pub $field: $type),+ }

            pub(super) fn $read(row: &Row<'_>) -> rusqlite::Result<$name> {
                Ok($name { $($field: rows!(@get row, stringify!($field) $(, $wire)?)),+ })
            }
        )+
    };
    (@get $row:ident, $field:expr) => { $row.get($field)? };
    (@get $row:ident, $field:expr, int) => { unsigned($row.get($field)?)? };
    (@get $row:ident, $field:expr, maybe) => { $row.get::<_, Option<i64>>($field)?.map(unsigned).transpose()? };
    (@get $row:ident, $field:expr, ids) => { IdSet::from_packed($row.get($field)?) };
}

/// A number of things. A catalog may come from anywhere: one that counts below zero is broken.
pub(super) fn unsigned(value: i64) -> rusqlite::Result<u64> {
    u64::try_from(value).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(0, value))
}

rows! {
    /// A source.
    SourceRow / source { name: String, provider: String, last_n: u64 as int, last_us: i64, running: bool, listed_us: Option<i64> }

    /// A version of a scope.
    ScopeRow / scope {
        source: String, scope: String, version: u32, since_us: i64, until_us: Option<i64>, horizon_us: i64, detail: String,
        text: Option<String>, n: u64 as int,
    }

    /// A connection.
    ConnectionRow / connection {
        source: String, conn: u64 as int, opened_us: i64, opened_n: u64 as int, url: String, subprotocol: Option<String>,
        frames: u64 as int, evidence_us: i64, closed_us: Option<i64>, closed_n: Option<u64> as maybe,
        code: Option<u16>, reason: Option<String>, closed_by: Option<String>,
    }

    /// A segment.
    SegmentRow / segment {
        source: String, first_n: u64 as int, last_n: u64 as int, state: String, day: String, first_us: i64, last_us: i64,
        records: u64 as int, bytes: u64 as int, raw_bytes: u64 as int, sha256: String, content: String,
    }

    /// A block.
    BlockRow / block {
        source: String, segment_n: u64 as int, raw_offset: u64 as int, raw_bytes: u64 as int, offset: u64 as int, bytes: u64 as int,
        first_n: u64 as int, last_n: u64 as int, first_us: i64, last_us: i64, records: u64 as int, ids: IdSet as ids,
    }

    /// The last seen id of a kind within a scope.
    LastSeenRow / last_seen {
        source: String, scope: String, kind: String, id: String, published_us: Option<i64>, received_us: i64, n: u64 as int, events: u64 as int,
    }

    /// A gap as it stands.
    GapRow / gap {
        source: String, n: u64 as int, scope: String, cause: String, state: String, from_us: i64, to_us: Option<i64>, opened_us: i64, detail: String,
        lost_first_n: Option<u64> as maybe, lost_last_n: Option<u64> as maybe,
    }

    /// One step in a gap's life.
    GapStepRow / gap_step {
        source: String, n: u64 as int, gap_n: u64 as int, at_us: i64, state: String, cause: String, to_us: Option<i64>, detail: String,
        cursor: Option<String>, requests: u64 as int, rows: u64 as int, micro_usd: u64 as int,
    }

    /// What is known of one kind of event in a gap.
    GapKindRow / gap_kind { source: String, gap_n: u64 as int, kind: String, state: String, why: String, rest: String }

    /// An audit of a window.
    AuditRow / audit {
        source: String, n: u64 as int, scope: String, at_us: i64, from_us: i64, to_us: i64, asked: u64 as int, missed: u64 as int,
    }

    /// An interval of coverage.
    CoverageRow / coverage { source: String, scope: String, class: String, from_us: i64, to_us: i64 }
}

/// One change of the catalog; rows replace the row with the same key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The tape's id.
    Tape(String),
    /// A source as of its last commit.
    Source(SourceRow),
    /// A scope's version.
    Scope(ScopeRow),
    /// A connection.
    Connection(ConnectionRow),
    /// A segment.
    Segment(SegmentRow),
    /// A segment and its blocks go.
    ForgetSegment {
        /// Its source.
        source: String,
        /// Its first number.
        first_n: u64,
    },
    /// A block.
    Block(BlockRow),
    /// A block cannot be read any more.
    ForgetBlock {
        /// Its source.
        source: String,
        /// First number of its segment.
        segment_n: u64,
        /// Its place in the uncompressed segment.
        raw_offset: u64,
    },
    /// A block lies elsewhere now; what it holds is the same.
    PlaceBlock {
        /// Its source.
        source: String,
        /// First number of its segment.
        segment_n: u64,
        /// Its place in the uncompressed segment.
        raw_offset: u64,
        /// Its place in the file.
        offset: u64,
        /// Its bytes in the file.
        bytes: u64,
    },
    /// A last seen id.
    LastSeen(LastSeenRow),
    /// A gap.
    Gap(GapRow),
    /// A step of a gap.
    GapStep(GapStepRow),
    /// What is known of one kind of event in a gap.
    GapKind(GapKindRow),
    /// An audit.
    Audit(AuditRow),
    /// An interval of coverage.
    Coverage(CoverageRow),
    /// All intervals of a scope go (to be written anew).
    ForgetCoverage {
        /// The source.
        source: String,
        /// The scope.
        scope: String,
    },
}

impl Change {
    /// Forgets a segment with its blocks and knows it anew.
    pub fn replace_segment(row: SegmentRow) -> [Self; 2] {
        [Self::ForgetSegment { source: row.source.clone(), first_n: row.first_n }, Self::Segment(row)]
    }
}
