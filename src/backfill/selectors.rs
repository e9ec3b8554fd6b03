//! What selected a source's events, as far as the tape knows: scopes with their texts, and envelopes that name them.

use std::collections::{BTreeMap, BTreeSet};

use super::BackfillError;
use crate::archive::{self, ArchiveError, ScopeRow, Span, Tape};
use crate::model::{Provider, RecordKind, Seq, UnixMicros};
use crate::provider::history::{Selector, account_of};

/// Records that are looked through for accounts where the tape has no lists and events name no selector.
const RECORDS_MAX: usize = 2_000;

/// All that a tape knows of one source's selectors.
#[derive(Clone, Debug)]
pub(super) struct Selectors {
    provider: Provider,
    /// Versions of scopes, by name and version; not the scope that is everything.
    scopes: Vec<ScopeRow>,
    /// Rules, monitors and topics that events named, with an envelope and when one was last received.
    seen: BTreeMap<String, (bytes::Bytes, UnixMicros)>,
}

impl Selectors {
    pub(super) fn of(tape: &Tape, source: &str, provider: Provider) -> Result<Self, BackfillError> {
        let mut scopes = tape.catalog().scopes(source).map_err(ArchiveError::from)?;
        scopes.retain(|row| row.scope != archive::ALL);
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
        Ok(Self { provider, scopes, seen })
    }

    /// What selected in `[from, to)`, and whether the tape knows all of it.
    ///
    /// It does from the first reading of the provider's lists on: who is in none of them selected nothing, unless an
    /// event named it since.
    pub(super) fn within(&self, from: UnixMicros, to: UnixMicros) -> (Vec<Selector>, bool) {
        // X has no lists; its scopes are topics.
        let is_listed = self.provider != Provider::XLive && self.scopes.iter().any(|row| row.since_us < to.0);
        let mut found: BTreeMap<&str, Selector> = BTreeMap::new();
        for (at, row) in self.scopes.iter().enumerate() {
            let next = self.scopes.get(at + 1).filter(|next| next.scope == row.scope);
            let end = row.until_us.into_iter().chain(next.map(|next| next.since_us)).min();
            if row.since_us < to.0 && end.is_none_or(|end| from.0 < end) {
                let selector = found.entry(&row.scope).or_default();
                selector.texts.extend(row.text.iter().filter(|text| !selector.texts.contains(text)).cloned().collect::<Vec<_>>());
            }
        }
        let known: BTreeSet<&str> = self.scopes.iter().map(|row| row.scope.as_str()).collect();
        for (id, (sample, received_at)) in &self.seen {
            let is_news = !known.contains(id.as_str()) && *received_at >= from;
            if found.contains_key(id.as_str()) || !is_listed || is_news {
                found.entry(id).or_default().sample = Some(sample.clone());
            }
        }
        let selectors = found.into_iter().map(|(id, selector)| Selector { id: id.to_owned(), ..selector });
        (selectors.collect(), is_listed)
    }
}
