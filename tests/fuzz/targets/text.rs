//! What people and files of theirs say: arguments, configurations, scripts of faults, dates, lines to import; and what is
//! shown to them.

use std::io::Cursor;
use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use birdtape::config::Config;
use birdtape::import::{self, Lines, Next, Packing};
use birdtape::model::{
    IntervalSet, Response, Secret, Secrets, SourceName, TweetId, UnixMicros, parse_legacy_date, percent_encode,
};
use birdtape::provider::{Base, Provider, Switches};
use birdtape::replay::faults::Script;
use birdtape::segment::MAX_BLOCK_BYTES;

/// The years 0 to 9999, which the fixed form can write.
const WRITABLE: std::ops::Range<i64> = -62_167_219_200_000_000..253_402_300_800_000_000;

fn number(data: &[u8]) -> i64 {
    let mut bytes = [0; 8];
    let n = data.len().min(8);
    bytes[..n].copy_from_slice(&data[..n]);
    i64::from_le_bytes(bytes)
}

/// An argument of any sort is read or refused, and printed whatever it is.
pub(super) fn arguments(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let mut taken = birdtape::cli::read_arguments(text, UnixMicros(1_793_606_400_000_000));
    taken += birdtape::cli::read_arguments(text, UnixMicros(number(data)));
    if let Ok(base) = Base::parse(text) {
        assert!(!base.endpoint.host.is_empty() && base.endpoint.port > 0);
        assert!(!base.endpoint.authority().is_empty());
        taken += 1;
    }
    if let Ok(name) = SourceName::new(text) {
        // It becomes a directory.
        assert!(!name.as_str().contains(['/', '\\', '.', '\0']) && !name.as_str().is_empty(), "{text:?}");
    }
    taken += usize::from(Switches::default().set(text).is_ok());
    taken += usize::from(text.parse::<birdtape::provider::redact::Redaction>().is_ok());
    taken > 0
}

/// A configuration is read, or refused with a place and a cure; what it asks for can be done.
pub(super) fn config(data: &[u8]) -> bool {
    static DIR: OnceLock<tempfile::TempDir> = OnceLock::new();
    let path = file(&DIR, data);
    let env = |name: &str| name.ends_with("KEY").then(|| "a-key-of-the-environment".to_owned());
    let loaded = Config::load(&path, &env);
    let tape = Config::tape_of(&path, &env);
    drop(Config::index_delay_of(&path));
    match loaded {
        Ok(config) => {
            assert!(toml::from_str::<toml::Table>(std::str::from_utf8(data).expect("text")).is_ok());
            assert_eq!(tape.ok().as_ref(), Some(&config.tape));
            assert!(config.archive.block_bytes <= MAX_BLOCK_BYTES as u64, "a block that no reader takes");
            assert!(config.limits.max_message <= config.limits.queue_bytes);
            true
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            drop(error.hint());
            false
        }
    }
}

fn file(dir: &OnceLock<tempfile::TempDir>, data: &[u8]) -> std::path::PathBuf {
    super::file(dir, &format!("{:?}.toml", std::thread::current().id()), data)
}

/// A script of faults is read, or refused with a cure.
pub(super) fn faults(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    match Script::parse("faults.toml", text) {
        Ok(_) => {
            toml::from_str::<toml::Table>(text).expect("what is taken is TOML");
            true
        }
        Err(error) => {
            assert!(!error.what.is_empty() && !error.cure.is_empty(), "{error}");
            false
        }
    }
}

/// Dates in all forms, and ids that tell one, against jiff.
pub(super) fn dates(data: &[u8]) -> bool {
    let at = UnixMicros(number(data));
    let (shown, day) = (at.to_string(), at.day());
    assert!(!at.date().is_empty() && day.checked_mul(86_400).is_some());
    if WRITABLE.contains(&at.0) {
        assert_eq!(UnixMicros::parse_fixed(shown.as_bytes()), Some(at));
    }
    let id = TweetId(at.0.unsigned_abs());
    if let Some(published) = id.published_at() {
        let first = TweetId::first_at(published);
        assert!(first <= id && (id.0 - first.0) < 1 << 22);
    }
    std::hint::black_box(TweetId::first_at(at));

    let fixed = UnixMicros::parse_fixed(data);
    let Ok(text) = std::str::from_utf8(data) else { return fixed.is_some() };
    let jiff = text.parse::<jiff::Timestamp>().ok().map(|stamp| UnixMicros(stamp.as_microsecond()));
    if let Some(at) = fixed {
        assert_eq!(at.to_string(), text);
        assert_eq!(jiff, Some(at));
    }
    let free = UnixMicros::parse_rfc3339(text);
    assert_eq!(free, jiff);
    let legacy = parse_legacy_date(text);
    let theirs = jiff::fmt::strtime::parse("%a %b %d %H:%M:%S %z %Y", text).and_then(|parsed| parsed.to_timestamp());
    assert_eq!(legacy, theirs.ok().map(|stamp| UnixMicros(stamp.as_microsecond())));
    let digits = text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten();
    assert_eq!(TweetId::parse(text), digits.map(TweetId));
    let response = Response { status: 429, headers: vec![("retry-after".to_owned(), text.to_owned())], ..Response::default() };
    let wait = response.retry_after();
    std::hint::black_box(birdtape::provider::history::limit_ends_at(&response));
    [free.is_some(), legacy.is_some(), wait.is_some(), digits.is_some()].contains(&true)
}

/// Sets of intervals, against a set of bits.
pub(super) fn intervals(data: &[u8]) -> bool {
    let (mut sets, mut bits) = ([IntervalSet::new(), IntervalSet::new()], [0u64; 2]);
    let mask = |from: u8, to: u8| (from..to).fold(0u64, |mask, bit| mask | 1 << bit);
    for step in data.chunks_exact(3) {
        let (which, other) = (usize::from(step[0] & 1), usize::from(!step[0] & 1));
        let (a, b) = (step[1] % 64, step[2] % 64);
        let (from, to) = (UnixMicros(i64::from(a)), UnixMicros(i64::from(b)));
        match step[0] >> 1 & 7 {
            0 | 1 => {
                sets[which].insert(from, to);
                bits[which] |= mask(a, b);
            }
            2 | 3 => {
                sets[which].remove(from, to);
                bits[which] &= !mask(a, b);
            }
            4 => {
                sets[which] = sets[which].within(from, to);
                bits[which] &= mask(a, b);
            }
            5 => {
                let add = sets[other].clone();
                sets[which].add(&add);
                bits[which] |= bits[other];
            }
            6 => {
                let less = sets[other].clone();
                sets[which].subtract(&less);
                bits[which] &= !bits[other];
            }
            _ => {
                sets[which] = IntervalSet::one(from, to);
                bits[which] = mask(a, b);
            }
        }
        for (set, bits) in sets.iter().zip(bits) {
            assert!((0..64).all(|at| set.contains(UnixMicros(at)) == (bits >> at & 1 == 1)));
            assert_eq!((set.len_us(), set.is_empty()), (i64::from(bits.count_ones()), bits == 0));
            let all: Vec<_> = set.iter().collect();
            assert!(all.iter().all(|(from, to)| from < to) && all.windows(2).all(|two| two[0].1 < two[1].0));
        }
    }
    bits != [0, 0]
}

/// A file to import, packed in any way: what is not packed is read line by line, and all of it.
pub(super) fn import(data: &[u8]) -> bool {
    let owned = data.to_vec();
    let options = || import::Options { provider: None, source: None, first_at: UnixMicros(1_793_606_400_000_000) };
    for provider in [None, Some(Provider::Scrapebadger)] {
        if let Ok(lines) = Lines::new("stdin", Cursor::new(owned.clone())) {
            drop(import::envelopes(lines, &import::Options { provider, ..options() }));
        }
    }
    let Ok(mut lines) = Lines::new("stdin", Cursor::new(owned)) else { return false };
    let (packing, mut found) = (lines.packing(), Vec::new());
    loop {
        match lines.next().expect("memory can be read") {
            Next::Line(line) => found.push(line.to_vec()),
            Next::TooLong => found.push(b"too long".to_vec()),
            Next::Cut(_) | Next::End => break,
        }
    }
    if packing == Packing::Plain {
        let text = data.strip_prefix(b"\xef\xbb\xbf").unwrap_or(data);
        let mut wanted: Vec<_> = text.split(|byte| *byte == b'\n').collect();
        // The last line needs no end.
        if wanted.last().is_some_and(|last| last.is_empty()) {
            wanted.pop();
        }
        let wanted: Vec<_> = wanted.into_iter().map(|line| line.strip_suffix(b"\r").unwrap_or(line)).collect();
        assert_eq!(found, wanted);
    }
    true
}

/// A row of an export on its way through the spool: what is read of any bytes comes back.
pub(super) fn rows(data: &[u8]) -> bool {
    let Some(first) = birdtape::export::row_again(data) else { return false };
    assert_eq!(birdtape::export::row_again(&first).as_ref(), Some(&first));
    true
}

/// What is shown commands no terminal and no spreadsheet, and a cell is read back as it was.
pub(super) fn shown(data: &[u8]) -> bool {
    let text = String::from_utf8_lossy(data);
    let seen = birdtape::cli::log::visible(&text);
    // Unicode, "Bidirectional formatting characters", and its two separators of lines and paragraphs.
    let turns = ['\u{61c}', '\u{200e}', '\u{200f}', '\u{2028}', '\u{2029}', '\u{202a}', '\u{202b}', '\u{202c}', '\u{202d}'];
    let turns_too = ['\u{202e}', '\u{2066}', '\u{2067}', '\u{2068}', '\u{2069}'];
    assert!(!seen.contains(|c: char| c.is_control() || turns.contains(&c) || turns_too.contains(&c)), "{seen:?}");

    let texts: Vec<&str> = text.split('\u{1f}').collect();
    for raw in [true, false] {
        let mut record = Vec::new();
        for (at, text) in texts.iter().enumerate() {
            if at > 0 {
                record.push(b',');
            }
            birdtape::export::csv_cell(&mut record, text, raw);
        }
        let cells = cells(std::str::from_utf8(&record).expect("text"));
        assert_eq!(cells.len(), texts.len());
        for (cell, text) in cells.iter().zip(&texts) {
            let is_quoted = !raw && cell.strip_prefix('\'') == Some(text);
            assert!(cell == text || is_quoted, "{text:?} is read back as {cell:?}");
            assert!(raw || is_quoted || !cell.starts_with(['=', '+', '-', '@', '\t', '\r']), "{cell:?} is a formula");
        }
    }
    text.contains(|c: char| c.is_control() || c == '"')
}

/// A record of CSV, by RFC 4180.
fn cells(record: &str) -> Vec<String> {
    let (mut cells, mut chars) = (vec![String::new()], record.chars().peekable());
    let mut is_quoted = false;
    while let Some(c) = chars.next() {
        let cell = cells.last_mut().expect("there is one");
        match c {
            '"' if is_quoted && chars.peek() == Some(&'"') => {
                chars.next();
                cell.push('"');
            }
            '"' if is_quoted || cell.is_empty() => is_quoted = !is_quoted,
            ',' if !is_quoted => cells.push(String::new()),
            other => cell.push(other),
        }
    }
    assert!(!is_quoted, "a cell is not ended");
    cells
}

/// Somebody's words around a key, written in several ways: the key is found in all of them.
pub(super) fn secrets(data: &[u8]) -> bool {
    const KEY: &str = "s3cr3t/K\u{e9}y&value+0\"9";
    let middle = data.iter().position(|byte| *byte == b'|').unwrap_or(data.len());
    let (before, after) = data.split_at(middle);
    let secret = Secret::new(KEY).expect("it is not empty");
    let secrets = Secrets::of(Secrets::IN_BYTES, [&secret]);
    let json = serde_json::to_string(KEY).expect("a text");
    let forms = [KEY.to_owned(), percent_encode(KEY), json[1..json.len() - 1].to_owned(), STANDARD.encode(KEY)];
    for form in &forms {
        let words = [before, form.as_bytes(), after].concat();
        let (hidden, told) = secrets.hide_in_bytes(&words).expect("it is there");
        assert!(told.places > 0 && told.bytes >= form.len());
        let is_there = |form: &String| hidden.windows(form.len()).any(|window| window == form.as_bytes());
        assert!(!forms.iter().any(is_there), "{:?}", String::from_utf8_lossy(&hidden));
        let text = String::from_utf8_lossy(&words);
        let hidden = secrets.hide(&text);
        assert!(!forms.iter().any(|form| hidden.contains(form)), "{hidden:?}");
        assert!(secrets.are_in(&text));
    }
    secrets.hide_in_bytes(data).is_some() || middle < data.len()
}
