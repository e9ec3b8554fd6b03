//! What selected a source's events, as far as the tape knows: scopes with their texts, and envelopes that name them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::BackfillError;
use crate::archive::{self, ArchiveError, ScopeRow, Span, Tape};
use crate::model::{Provider, RecordKind, Seq, UnixMicros};
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
    /// Versions of scopes, by name and version; not the scope that is everything.
    scopes: Vec<ScopeRow>,
    /// Rules, monitors and topics that events named, with an envelope and when one was last received.
    seen: BTreeMap<String, (bytes::Bytes, UnixMicros)>,
    /// When the provider's lists were last read.
    listed: Option<UnixMicros>,
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
        let listed = tape.source(source)?.listed_us.map(UnixMicros);
        Ok(Self { source: source.to_owned(), provider, scopes, seen, listed })
    }

    /// What selected in `[from, to)`, and whether the tape knows all of it.
    ///
    /// It does when the provider's lists were read before the stretch was over and again when it was: who is in none of
    /// them selected nothing, unless an event named it since.
    pub(super) fn within(&self, tape: &Tape, from: UnixMicros, to: UnixMicros) -> Result<(Vec<Selector>, bool), BackfillError> {
        let was_read_before = self.scopes.iter().any(|row| row.since_us < to.0);
        let is_read_since = self.listed.is_some_and(|at| at >= to);
        // X has no lists; its scopes are topics.
        let is_listed = self.provider != Provider::XLive && was_read_before && is_read_since;
        let mut found: BTreeMap<String, Selector> = BTreeMap::new();
        // Before the first reading, envelopes alone say by which text they were selected.
        let says = matches!(self.provider, Provider::TwitterapiIo | Provider::Tweetstream);
        if says && !self.scopes.iter().any(|row| row.since_us <= from.0) {
            for (id, text) in self.said_around(tape, from, to)? {
                found.entry(id).or_default().texts.push(text);
            }
        }
        for (at, row) in self.scopes.iter().enumerate() {
            let next = self.scopes.get(at + 1).filter(|next| next.scope == row.scope);
            let end = row.until_us.into_iter().chain(next.map(|next| next.since_us)).min();
            if row.since_us < to.0 && end.is_none_or(|end| from.0 < end) {
                let selector = found.entry(row.scope.clone()).or_default();
                if let Some(text) = row.text.as_ref().filter(|text| !selector.texts.contains(text)) {
                    selector.texts.push(text.clone());
                }
            }
        }
        let known: BTreeSet<&str> = self.scopes.iter().map(|row| row.scope.as_str()).collect();
        for (id, (sample, received_at)) in &self.seen {
            let is_news = !known.contains(id.as_str()) && *received_at >= from;
            if found.contains_key(id.as_str()) || !is_listed || is_news {
                found.entry(id.clone()).or_default().sample = Some(sample.clone());
            }
        }
        let selectors = found.into_iter().map(|(id, selector)| Selector { id, ..selector });
        Ok((selectors.collect(), is_listed))
    }

    /// Scopes and their texts as the envelopes within an hour of a stretch say them.
    fn said_around(&self, tape: &Tape, from: UnixMicros, to: UnixMicros) -> Result<BTreeSet<(String, String)>, BackfillError> {
        let mut said = BTreeSet::new();
        let span = Span { from_n: None, from: Some(from.minus(AROUND)), to: Some(to.plus(AROUND)) };
        let mut records = tape.records(&self.source, span)?;
        while let Some(record) = records.next()? {
            if record.kind == RecordKind::Frame {
                said.extend(selected_by(self.provider, &record.body));
            }
        }
        Ok(said)
    }
}
