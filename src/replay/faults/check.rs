//! What can never fire, so that nobody waits for it: a fault alone, and against what will be played.

use std::time::Duration;

use super::ScriptError;
use super::script::{Effect, Fault, Garbage, Live, Moment, Opening, RestFault, Script, Swallowed, names};
use crate::model::{Provider, UnixMicros};
use crate::provider::provider_of_path;

/// What is wrong, and what can be done.
type Wrong = (String, String);

/// Longest reason of a close frame (RFC 6455, section 5.5: 125 bytes with the code).
const REASON_BYTES_MAX: usize = 123;

/// Most bytes that one fault makes up.
const BYTES_MAX: u64 = 4 << 30;

/// What is known of the feed before it is played.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::replay) struct Known {
    /// When the first envelope of all was received.
    pub(in crate::replay) first: Option<UnixMicros>,
    /// In the order of [`Provider::ALL`].
    pub(in crate::replay) lanes: [Lane; 4],
}

/// What is known of one provider's envelopes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::replay) struct Lane {
    /// How many there are; 0 when there is nothing to play, `None` when nobody has counted them.
    pub(in crate::replay) n_envelopes: Option<u64>,
    /// When the last one was received.
    pub(in crate::replay) last: Option<UnixMicros>,
}

/// Whom a fault can happen to: those it names, or all that know it.
pub(super) fn who(fault: &Fault) -> Vec<Provider> {
    let able = able(&fault.effect);
    let named = |provider: &&Provider| fault.providers.is_empty() || fault.providers.contains(provider);
    able.iter().filter(named).copied().collect()
}

/// Who knows that fault at all.
fn able(effect: &Effect) -> &'static [Provider] {
    const WEB_SOCKETS: &[Provider] = &[Provider::TwitterapiIo, Provider::Tweetstream, Provider::Scrapebadger];
    match effect {
        Effect::Live(Live::Replaced) => &[Provider::TwitterapiIo],
        Effect::Live(Live::ErrorFrame { .. }) => &[Provider::Scrapebadger],
        Effect::Live(Live::Garbage { kind: Garbage::Frame, .. }) | Effect::Opening(Opening::BadHandshake(_)) => WEB_SOCKETS,
        // TweetStream's history has neither a cursor nor a claim that there is more.
        Effect::Rest(RestFault::CursorLoop | RestFault::LyingNext) => {
            &[Provider::TwitterapiIo, Provider::Scrapebadger, Provider::XLive]
        }
        _ => &Provider::ALL,
    }
}

fn wrong<T>(what: impl Into<String>, cure: impl Into<String>) -> Result<T, Wrong> {
    Err((what.into(), cure.into()))
}

/// Looks at a fault by itself.
pub(super) fn alone(fault: &Fault) -> Result<(), Wrong> {
    let able = able(&fault.effect);
    if let Some(stranger) = fault.providers.iter().find(|provider| !able.contains(provider)) {
        return wrong(format!("`{}` cannot happen at {stranger}", fault.does), format!("it can at {}", names(able)));
    }
    if !(fault.chance > 0.0 && fault.chance <= 1.0) {
        return wrong(format!("a chance of {} cannot be", fault.chance), "it is above 0 and at most 1");
    }
    if fault.expect > fault.times {
        let what = format!("is expected {} times but may fire {} times at most", fault.expect, fault.times);
        return wrong(what, "raise `times`, or lower `expect`");
    }
    let when = &fault.when;
    if when.message == Some(0) {
        return wrong("`messages` is 0", "messages are counted from 1");
    }
    if when.message.is_some() && when.tweet.is_some() {
        return wrong("has both `messages` and `tweet`", "keep one: a post and a number seldom meet");
    }
    let out_of_order = match (when.from, when.until) {
        (Some(Moment::After(from)), Some(Moment::After(until))) => until <= from,
        (Some(Moment::At(from)), Some(Moment::At(until))) => until <= from,
        (None, Some(Moment::After(until))) => until.is_zero(),
        _ => false,
    };
    if out_of_order {
        return wrong("`until` is not after its start", "it is the end of the window, measured from the first envelope, too");
    }
    match &fault.effect {
        Effect::Live(live) => live_alone(live),
        Effect::Opening(Opening::Refuse { status, .. }) => refusing(*status),
        Effect::Opening(Opening::Hang { lasts }) => lasting("for", *lasts),
        Effect::Opening(_) => Ok(()),
        Effect::Rest(rest) => {
            match rest {
                RestFault::Status { status, .. } => refusing(*status)?,
                RestFault::Slow { by } => lasting("by", Some(*by))?,
                RestFault::MissingRow { row: Some(0) } | RestFault::DuplicateRow { row: Some(0) } => {
                    return wrong("`row` is 0", "rows are counted from 1");
                }
                _ => {}
            }
            path_of(fault)
        }
    }
}

fn live_alone(live: &Live) -> Result<(), Wrong> {
    match live {
        // The others are reserved, or never travel in a close frame (RFC 6455, section 7.4).
        Live::Close { code, .. } if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) => {
            wrong(format!("close code {code} cannot be sent"), "take 1000 to 1003, 1007 to 1014, or 3000 to 4999")
        }
        Live::Close { reason, .. } if reason.len() > REASON_BYTES_MAX => {
            let what = format!("a reason of {} bytes does not fit into a close frame", reason.len());
            wrong(what, format!("it is at most {REASON_BYTES_MAX} bytes"))
        }
        Live::ErrorFrame { code } if !matches!(code, 4001 | 4003) => {
            wrong(format!("there is no error frame {code}"), "4001 is a bad key, 4003 too many connections")
        }
        Live::Stall { lasts, .. } | Live::Drip { lasts, .. } if *lasts == Some(Duration::ZERO) => lasting("for", *lasts),
        Live::Drip { bytes_per_second: 0, .. } => wrong("drips 0 bytes a second", "that is do = \"stall\""),
        Live::Delay { by } => lasting("by", Some(*by)),
        Live::Swallow(Swallowed::For(lasts)) => lasting("for", Some(*lasts)),
        Live::Swallow(Swallowed::Count(0)) => wrong("swallows 0 envelopes", "write count = 1 or more"),
        Live::Reorder { within: 0 } => wrong("reorders within 0 envelopes", "write within = 1 or more"),
        Live::Garbage { n_bytes, .. } | Live::Oversize { n_bytes } if !(32..=BYTES_MAX).contains(n_bytes) => {
            wrong(format!("`bytes` is {n_bytes}"), format!("it is from 32 to {BYTES_MAX}"))
        }
        _ => Ok(()),
    }
}

fn refusing(status: u16) -> Result<(), Wrong> {
    match status {
        400..=599 => Ok(()),
        _ => wrong(format!("status {status} refuses nothing"), "it is from 400 to 599"),
    }
}

fn lasting(key: &str, lasts: Option<Duration>) -> Result<(), Wrong> {
    match lasts {
        Some(Duration::ZERO) => wrong(format!("`{key}` is no time at all"), format!("write {key} = \"2s\"")),
        _ => Ok(()),
    }
}

/// A path must be somebody's, and of somebody the fault can happen to.
fn path_of(fault: &Fault) -> Result<(), Wrong> {
    let Some(path) = &fault.when.path else { return Ok(()) };
    let Some(owner) = provider_of_path(path).filter(|_| path != "/ws") else {
        let cure = "paths begin with /twitter/, /oapi/, /api/, /v1/, /1.1/, /i/api/ or /graphql/";
        return wrong(format!("nobody answers at {path}"), cure);
    };
    if who(fault).contains(&owner) {
        return Ok(());
    }
    wrong(format!("{path} is {owner}'s, to whom it cannot happen here"), "set `provider` and `path` to the same one")
}

/// Looks at a script against what will be played.
pub(in crate::replay) fn against(script: &Script, known: &Known) -> Result<(), ScriptError> {
    for fault in &script.faults {
        let mut who = who(fault);
        // Who plays nothing has the least to say about why.
        who.sort_by_key(|provider| known.lanes[*provider as usize].n_envelopes == Some(0));
        let fits: Vec<_> = who.into_iter().map(|provider| fits(fault, known, provider)).collect();
        if fits.iter().any(Result::is_ok) {
            continue;
        }
        if let Some(Err((what, cure))) = fits.into_iter().next() {
            return Err(ScriptError::new(&script.file, Some(&fault.name), what, &cure));
        }
    }
    Ok(())
}

fn fits(fault: &Fault, known: &Known, provider: Provider) -> Result<(), Wrong> {
    let lane = &known.lanes[provider as usize];
    let Effect::Live(_) = fault.effect else { return Ok(()) };
    if lane.n_envelopes == Some(0) {
        let what = format!("can never fire: there is nothing of {provider} to play");
        return wrong(what, "name a provider that is played, or leave `provider` out");
    }
    if let (Some(message), Some(n)) = (fault.when.message, lane.n_envelopes)
        && message > n
    {
        return wrong(
            format!("waits for message {message}, but there are {n} of {provider}"),
            format!("write messages = {n} or less"),
        );
    }
    let Some(first) = known.first else { return Ok(()) };
    let from = fault.when.from.map(|from| from.given(first));
    if let (Some(from), Some(last)) = (from, lane.last)
        && from > last
    {
        return wrong(format!("begins at {from}, after the last envelope of {provider} at {last}"), "begin earlier");
    }
    let until = fault.when.until.map(|until| until.given(first));
    if let Some(until) = until
        && until <= first.max(from.unwrap_or(first))
    {
        return wrong(format!("ends at {until}, before anything can happen (the first envelope is of {first})"), "end later");
    }
    Ok(())
}
