//! Facts of ours: the bodies of `open`, `close` and `note` records.
//!
//! What cannot be computed from envelopes is written here first and into the catalog second; a rebuild reads it again.

use serde::{Deserialize, Serialize};

use crate::model::UnixMicros;

/// A note.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "note", rename_all = "snake_case")]
pub enum Fact {
    /// Recording of this source began (again).
    Start {
        /// Version of birdtape.
        birdtape: String,
        /// Names the system's current run.
        boot_id: String,
        /// Time since the system came up, with sleep, in microseconds.
        since_boot_us: u64,
    },
    /// Recording of this source ended in good order.
    Stop {
        /// Why.
        reason: String,
    },
    /// Proof of life without an envelope.
    Alive {
        /// What it was: a pong, a keepalive.
        evidence: String,
    },
    /// A scope begins, changes or ends.
    Scope {
        /// `*` or a topic.
        scope: String,
        /// Counts up from 1.
        version: u32,
        /// First instant of published time it promises; for the end of a scope, where it began.
        #[serde(with = "stamp")]
        since: UnixMicros,
        /// First instant it no longer promises.
        #[serde(default, skip_serializing_if = "Option::is_none", with = "maybe_stamp")]
        until: Option<UnixMicros>,
        /// How late its events may come, in microseconds.
        horizon_us: u64,
        /// What it promises, in words.
        detail: String,
        /// What selects its events: a rule's text, a list of accounts.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        text: Option<String>,
    },
    /// What selects the source's events was read from its provider, all of it; what changed follows as scopes and gaps.
    Listed {
        /// How many scopes there are.
        scopes: u64,
    },
    /// A gap is opened; its id is the source's name and this record's number.
    Gap {
        /// `*` or a topic.
        scope: String,
        /// Why ([`Cause`](crate::model::Cause) by name).
        cause: String,
        /// First instant of published time that may miss something.
        #[serde(with = "stamp")]
        from: UnixMicros,
        /// First instant that is whole again, when it is already known.
        #[serde(default, skip_serializing_if = "Option::is_none", with = "maybe_stamp")]
        to: Option<UnixMicros>,
        /// In words.
        detail: String,
        /// Records that are lost with it: first and last number.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        lost_n: Option<(u64, u64)>,
    },
    /// A gap changes.
    GapStep {
        /// Number of the note that opened it.
        gap: u64,
        /// Its state from now on ([`GapState`](crate::model::GapState) by name).
        state: String,
        /// Its cause from now on.
        cause: String,
        /// Its end, once known.
        #[serde(default, skip_serializing_if = "Option::is_none", with = "maybe_stamp")]
        to: Option<UnixMicros>,
        /// In words: the evidence.
        detail: String,
        /// Where a walk through history stands, to go on from.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cursor: Option<String>,
        /// What is known now of each kind of event; a kind that was named before and is not named here stays as it is.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        kinds: Vec<KindResult>,
        /// What was spent on this step.
        #[serde(default, skip_serializing_if = "Spent::is_nothing")]
        spent: Spent,
    },
    /// History was asked for a stretch that was covered, and had this to say.
    Audit {
        /// `*` or a topic.
        scope: String,
        /// First instant that was asked for.
        #[serde(with = "stamp")]
        from: UnixMicros,
        /// First instant that was not.
        #[serde(with = "stamp")]
        to: UnixMicros,
        /// Events that history has there.
        asked: u64,
        /// Of them not on the tape until then.
        missed: u64,
    },
    /// The wall clock stepped against the monotonic one.
    Clock {
        /// By how much, in microseconds; positive is forward.
        step_us: i64,
    },
    /// Envelopes were dropped because the queue to the disk was full.
    Dropped {
        /// How many.
        envelopes: u64,
        /// Their bytes.
        bytes: u64,
    },
    /// A sealed segment was packed anew; what it unpacks to stayed.
    Compacted {
        /// First number of the segment.
        segment: u64,
        /// Bytes of its file before.
        bytes_before: u64,
        /// SHA-256 of that file.
        sha256_before: String,
        /// Bytes of its file now.
        bytes: u64,
        /// SHA-256 of this file.
        sha256: String,
        /// SHA-256 of what both unpack to.
        content: String,
    },
    /// The oldest segments were removed on purpose; what they come to is kept beside those that are left.
    Pruned {
        /// First record that was removed with them.
        first_n: u64,
        /// Last record that was removed with them.
        last_n: u64,
        /// When the first of them was received.
        #[serde(with = "stamp")]
        from: UnixMicros,
        /// When the last of them was received.
        #[serde(with = "stamp")]
        to: UnixMicros,
        /// How many segments.
        segments: u64,
        /// How many records could be read in them.
        records: u64,
        /// Envelopes among those.
        envelopes: u64,
        /// Bytes of the files.
        bytes: u64,
        /// Uncompressed bytes.
        raw_bytes: u64,
        /// By which rule.
        why: String,
    },
    /// An open segment was found and sealed up to its last good commit.
    Recovered {
        /// First number of the segment.
        segment: u64,
        /// Last number that was kept.
        kept_n: u64,
        /// Uncompressed bytes behind the last good commit, never announced.
        torn_bytes: u64,
    },
}

/// What is known of one kind of event in a gap.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KindResult {
    /// The kind by name ([`EventKind`](crate::model::EventKind)); `*` is all of them.
    pub kind: String,
    /// `filled`, `partial` or `unfillable` ([`GapState`](crate::model::GapState) by name).
    pub state: String,
    /// In words, where something is left.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// Of a partial one: stretches that are not proven, inside the gap.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rest: Vec<Stretch>,
}

/// What a step cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spent {
    /// Requests made.
    pub requests: u64,
    /// Rows that came back.
    pub rows: u64,
    /// Millionths of a US dollar, by the provider's list or its own word.
    pub micro_usd: u64,
}

impl std::ops::AddAssign for Spent {
    fn add_assign(&mut self, more: Self) {
        self.requests += more.requests;
        self.rows += more.rows;
        self.micro_usd += more.micro_usd;
    }
}

impl Spent {
    fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// A half-open stretch of published time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stretch {
    /// First instant.
    #[serde(with = "stamp")]
    pub from: UnixMicros,
    /// First instant behind it.
    #[serde(with = "stamp")]
    pub to: UnixMicros,
}

/// Body of an `open` record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// Address without secrets.
    pub url: String,
    /// What the server selected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subprotocol: Option<String>,
    /// Names the system's current run.
    pub boot_id: String,
    /// Time since the system came up, with sleep, in microseconds.
    pub since_boot_us: u64,
}

/// Body of a `close` record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closed {
    /// Close code, when a close frame came (or was sent by us).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u16>,
    /// Its reason.
    #[serde(default)]
    pub reason: String,
    /// `peer`, `us` or `network`.
    pub by: String,
    /// What broke, when something did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// In words.
    #[serde(default)]
    pub detail: String,
}

/// Writes a fact as one line of JSON.
pub(crate) fn to_json<T: Serialize>(fact: &T) -> String {
    serde_json::to_string(fact).expect("facts are made of strings and numbers only")
}

mod stamp {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::model::UnixMicros;

    pub(super) fn serialize<S: Serializer>(at: &UnixMicros, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(at)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<UnixMicros, D::Error> {
        let text = String::deserialize(from)?;
        UnixMicros::parse_rfc3339(&text).ok_or_else(|| serde::de::Error::custom(format!("`{text}` is not a time")))
    }
}

mod maybe_stamp {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::model::UnixMicros;

    pub(super) fn serialize<S: Serializer>(at: &Option<UnixMicros>, out: S) -> Result<S::Ok, S::Error> {
        match at {
            Some(at) => out.collect_str(at),
            None => out.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<UnixMicros>, D::Error> {
        let text: Option<String> = Option::deserialize(from)?;
        text.map(|t| UnixMicros::parse_rfc3339(&t).ok_or_else(|| serde::de::Error::custom(format!("`{t}` is not a time"))))
            .transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn costs_add_up() {
        let mut spent = Spent { requests: 1, rows: 20, micro_usd: 300 };
        spent += Spent { requests: 4_000, rows: 50_000, micro_usd: 600_000 };
        assert_eq!(spent, Spent { requests: 4_001, rows: 50_020, micro_usd: 600_300 });
    }

    #[test]
    fn notes_read_well_and_come_back() {
        let at = UnixMicros(1_767_614_400_000_000);
        let facts = [
            Fact::Alive { evidence: "pong".into() },
            Fact::Gap {
                scope: "*".into(),
                cause: "killed".into(),
                from: at,
                to: None,
                detail: "no farewell".into(),
                lost_n: None,
            },
            Fact::GapStep {
                gap: 17,
                state: "open".into(),
                cause: "killed".into(),
                to: Some(at),
                detail: "first frame".into(),
                cursor: None,
                kinds: Vec::new(),
                spent: Spent::default(),
            },
        ];
        let lines: Vec<String> = facts.iter().map(to_json).collect();
        expect![[r#"
            {"note":"alive","evidence":"pong"}
            {"note":"gap","scope":"*","cause":"killed","from":"2026-01-05T12:00:00.000000Z","detail":"no farewell"}
            {"note":"gap_step","gap":17,"state":"open","cause":"killed","to":"2026-01-05T12:00:00.000000Z","detail":"first frame"}"#]]
        .assert_eq(&lines.join("\n"));
        for (line, fact) in lines.iter().zip(&facts) {
            assert_eq!(&serde_json::from_str::<Fact>(line).unwrap(), fact);
        }
    }
}
