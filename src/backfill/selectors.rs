//! What selected a source's events, as far as the tape knows: scopes with their texts, and envelopes that name them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::BackfillError;
use crate::archive::{self, ArchiveError, GapRow, ScopeRow, Span, Tape};
use crate::model::{Cause, Provider, RecordKind, Seq, UnixMicros};
use crate::provider::history::{Selector, account_of, selected_by};

/// How far before and after a stretch envelopes are read for the texts that selected them.
const AROUND: Duration = Duration::from_secs(3_600);

/// Records that are looked through for accounts where the tape has no lists and events name no selector.
const RECORDS_MAX: usize = 2_000;

/// All that a tape knows of one source's selectors.
#[derive(Clone, Debug)]
pub(super) struct Selectors {
    source: String,
    provider: Provider,
    /// Versions of scopes, by name and version, with the first instant each may have been in force; not the scope that is
    /// everything.
    scopes: Vec<(UnixMicros, ScopeRow)>,
    /// Rules, monitors and topics that events named, with an envelope and when one was last received.
    seen: BTreeMap<String, (bytes::Bytes, UnixMicros)>,
    /// When the provider's lists were last read.
    listed: Option<UnixMicros>,
    /// Times between two readings that were not the same, and a horizon around.
    changing: Vec<(UnixMicros, UnixMicros)>,
}

impl Selectors {
    pub(super) fn of(tape: &Tape, source: &str, provider: Provider) -> Result<Self, BackfillError> {
        let mut scopes = tape.catalog().scopes(source).map_err(ArchiveError::from)?;
        scopes.retain(|row| row.scope != archive::ALL);
        let mut changes = tape.catalog().gaps(Some(source)).map_err(ArchiveError::from)?;
        changes.retain(|gap| gap.cause == Cause::ScopeChanged.name());
        let scopes: Vec<_> = scopes.into_iter().map(|row| (may_begin_at(&row, &changes), row)).collect();
        let mut seen = BTreeMap::new();
        for row in tape.catalog().last_seen(source).map_err(ArchiveError::from)? {
            if row.scope == archive::ALL || seen.contains_key(&row.scope) {
                continue;
            }
            let span = Span { from_n: Some(Seq(row.n)), ..Span::default() };
            if let Some(record) = tape.records(source, span)?.next()? {
                seen.insert(row.scope, (record.body, UnixMicros(row.received_us)));
            }
        }
        if seen.is_empty() && scopes.is_empty() {
            let mut records = tape.records(source, Span::default())?;
            let mut n_left = RECORDS_MAX;
            while let Some(record) = records.next()?.filter(|_| n_left > 0) {
                n_left -= 1;
                let account = account_of(provider, &record.body).filter(|_| record.kind == RecordKind::Frame);
                seen.extend(account.map(|account| (account, (record.body, record.at))));
            }
        }
        let listed = tape.source(source)?.listed_us.map(UnixMicros);
        let changing = changes.iter().filter_map(|gap| Some((UnixMicros(gap.from_us), UnixMicros(gap.to_us?)))).collect();
        Ok(Self { source: source.to_owned(), provider, scopes, seen, listed, changing })
    }

    /// What selected in `[from, to)`, and whether the tape knows all of it.
    ///
    /// It does when the provider's lists were read before the stretch was over and again when it was: who is in none of
    /// them selected nothing, unless an event named it since.
    pub(super) fn within(&self, tape: &Tape, from: UnixMicros, to: UnixMicros) -> Result<(Vec<Selector>, bool), BackfillError> {
        let was_read_before = self.scopes.iter().any(|(_, row)| row.since_us < to.0);
        let is_read_since = self.listed.is_some_and(|at| at >= to);
        // X has no lists; its scopes are topics.
        let is_listed = self.provider != Provider::XLive && was_read_before && is_read_since;
        let mut found: BTreeMap<String, Selector> = BTreeMap::new();
        for (id, text) in self.said_around(tape, from, to)? {
            found.entry(id).or_default().texts.push(text);
        }
        for (at, (begin, row)) in self.scopes.iter().enumerate() {
            let next = self.scopes.get(at + 1).filter(|(_, next)| next.scope == row.scope);
            let end = row.until_us.into_iter().chain(next.map(|(_, next)| next.since_us)).min();
            if *begin < to && end.is_none_or(|end| from.0 < end) {
                let selector = found.entry(row.scope.clone()).or_default();
                if let Some(text) = row.text.as_ref().filter(|text| !selector.texts.contains(text)) {
                    selector.texts.push(text.clone());
                }
            }
        }
        let known: BTreeSet<&str> = self.scopes.iter().map(|(_, row)| row.scope.as_str()).collect();
        for (id, (sample, received_at)) in &self.seen {
            let is_news = !known.contains(id.as_str()) && *received_at >= from;
            if found.contains_key(id.as_str()) || !is_listed || is_news {
                found.entry(id.clone()).or_default().sample = Some(sample.clone());
            }
        }
        let selectors = found.into_iter().map(|(id, selector)| Selector { id, ..selector });
        Ok((selectors.collect(), is_listed))
    }

    /// Scopes and their texts as envelopes say them, where no list does: within an hour of a stretch before the first reading,
    /// and between two readings that differ, because what came and went in between is in none of them.
    fn said_around(&self, tape: &Tape, from: UnixMicros, to: UnixMicros) -> Result<BTreeSet<(String, String)>, BackfillError> {
        let mut said = BTreeSet::new();
        if !matches!(self.provider, Provider::TwitterapiIo | Provider::Tweetstream) {
            return Ok(said);
        }
        let is_before = !self.scopes.iter().any(|(_, row)| row.since_us <= from.0);
        let hour = is_before.then(|| (from.minus(AROUND), to.plus(AROUND)));
        let changing = self.changing.iter().copied().filter(|(begin, end)| *begin < to && from < *end);
        let Some((first, last)) = hour.into_iter().chain(changing).reduce(|(a, b), (c, d)| (a.min(c), b.max(d))) else {
            return Ok(said);
        };
        let mut records = tape.records(&self.source, Span { from_n: None, from: Some(first), to: Some(last) })?;
        while let Some(record) = records.next()? {
            if record.kind == RecordKind::Frame {
                said.extend(selected_by(self.provider, &record.body));
            }
        }
        Ok(said)
    }
}

/// A change that was read may have been made right after the reading before: the gap it opened says when that was.
fn may_begin_at(row: &ScopeRow, changes: &[GapRow]) -> UnixMicros {
    let is_of = |gap: &&GapRow| gap.scope == row.scope && gap.to_us.is_some_and(|to| (gap.from_us..to).contains(&row.since_us));
    UnixMicros(changes.iter().filter(is_of).map(|gap| gap.from_us).fold(row.since_us, i64::min))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::archive::{ALL, Archive, Options, RealDisk, Selected};
    use crate::model::{Body, ConnId, Draft, SourceName, Via};
    use crate::provider::decode_record;

    #[test]
    fn between_two_readings_either_text_may_be_in_force() {
        let (dir, name) = (tempfile::tempdir().unwrap(), SourceName::from(Provider::Tweetstream));
        let second = |s: i64| UnixMicros(1_767_614_400_000_000 + s * 1_000_000);
        let horizon = Duration::from_secs(60);
        let disk = Arc::new(RealDisk);
        let mut archive =
            Archive::open(dir.path(), disk.clone(), Options::default(), decode_record, "a test", second(0)).unwrap();
        archive.add_source(&name, Provider::Tweetstream).unwrap();
        archive.live(&name, ALL, horizon, second(0), "a frame").unwrap();
        let text = r#"{"v":1,"t":"tweet","op":"content","d":{"tweetId":"7","author":{"handle":"@Cyd"}}}"#;
        let frame = |at| Draft {
            received_at: second(at),
            kind: RecordKind::Frame,
            via: Via::Ws,
            conn: ConnId(1),
            info: None,
            body: Body::Bytes(text.into()),
        };
        for (at, text) in [(0, "ann"), (600, "ann bob"), (1_200, "ann bob"), (1_800, "bob"), (2_400, "bob")] {
            let all = [Selected { scope: "watchlist", text: Some(text), detail: "listed" }];
            archive.select(&name, horizon, &all, second(at)).unwrap();
            archive.append(&name, &frame(at + 300), None).unwrap();
        }
        archive.close(second(2_400)).unwrap();

        let tape = Tape::open(dir.path(), disk).unwrap();
        let selectors = Selectors::of(&tape, name.as_str(), Provider::Tweetstream).unwrap();
        let texts = |from: i64, to: i64| {
            let (found, is_listed) = selectors.within(&tape, second(from), second(to)).unwrap();
            let [watchlist] = &found[..] else { panic!("{found:?}") };
            assert!(is_listed);
            watchlist.texts.join(", ")
        };
        assert_eq!(texts(100, 110), "cyd, ann, ann bob", "bob was added before or after, cyd came and went");
        assert_eq!(texts(700, 710), "ann bob");
        assert_eq!(texts(1_300, 1_310), "cyd, ann bob, bob");
        assert_eq!(texts(2_000, 2_010), "bob");
    }
}
