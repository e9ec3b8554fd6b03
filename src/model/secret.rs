//! Keys and cookies, which must land nowhere, and how they are found again in what others say.

use std::fmt;
use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use bytes::Bytes;
use memchr::memmem;
use zeroize::Zeroize;

/// Stands in the place of a secret in words.
const STARS: &str = "***";

/// Text that is never shown: prints as `***`, has no serialisation, is wiped when dropped.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Secret(String);

impl Secret {
    /// Takes a secret in; empty text is no secret.
    pub fn new(text: impl Into<String>) -> Option<Self> {
        let mut text = text.into();
        let trimmed = text.trim().to_owned();
        text.zeroize();
        (!trimmed.is_empty()).then_some(Self(trimmed))
    }

    /// The text itself, for the wire only.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(STARS)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(STARS)
    }
}

/// Longest that one character of a secret becomes when it is escaped, more than once too: `&amp;quot;`.
const ESCAPE_BYTES_MAX: usize = 12;

/// Letters and digits in a row that are enough to know a secret by.
const RUN_BYTES_MIN: usize = 4;

/// Finds known secrets however they are written: plain, escaped for an address, for JSON, for a web page, one in another, or in
/// base64, alone or inside a longer text.
#[derive(Clone)]
pub struct Secrets {
    shortest: usize,
    /// The longest first, so that none leaves a rest.
    forms: Vec<Form>,
}

/// What was taken out of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hidden {
    /// In how many places.
    pub places: usize,
    /// How many bytes stood there.
    pub bytes: usize,
}

impl Secrets {
    /// For words of ours and short words of others. What is shorter is no key, and hiding it would tear words apart.
    pub const IN_WORDS: usize = 6;

    /// For what is kept byte for byte. The stand-ins for a key on this machine are ordinary words, and shorter.
    pub const IN_BYTES: usize = 8;

    /// Knows no secret yet, and will take none that is shorter.
    pub const fn new(shortest: usize) -> Self {
        Self { shortest, forms: Vec::new() }
    }

    /// Knows these secrets.
    pub fn of<'a>(shortest: usize, secrets: impl IntoIterator<Item = &'a Secret>) -> Self {
        let mut known = Self::new(shortest);
        secrets.into_iter().for_each(|secret| known.add(secret));
        known
    }

    /// Knows one more.
    pub fn add(&mut self, secret: &Secret) {
        if secret.expose().len() < self.shortest {
            return;
        }
        self.forms.push(Form::escaped(secret));
        let encoded = in_base64(secret.expose()).into_iter().filter_map(Secret::new);
        self.forms.extend(encoded.filter(|form| form.expose().len() >= self.shortest).map(Form::exact));
        self.forms.sort_by(|a, b| (b.n_bytes(), &b.runs).cmp(&(a.n_bytes(), &a.runs)));
        self.forms.dedup();
    }

    /// Whether the text holds one.
    pub fn are_in(&self, text: &str) -> bool {
        self.forms.iter().any(|form| form.find(text.as_bytes(), 0).is_some())
    }

    /// The text with `***` in the place of each.
    pub fn hide(&self, text: &str) -> String {
        let hidden = self.replace(text.as_bytes(), |_| STARS.to_owned());
        // Whole characters of a secret were replaced, so text stays text.
        hidden.map_or_else(|| text.to_owned(), |(bytes, _)| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The bytes with a marker in the place of each that says how many bytes stood there; `None` when there is none.
    pub fn hide_in_bytes(&self, bytes: &[u8]) -> Option<(Bytes, Hidden)> {
        let hidden = self.replace(bytes, |n_bytes| format!("[redacted: {n_bytes} bytes]"));
        hidden.map(|(bytes, hidden)| (Bytes::from(bytes), hidden))
    }

    fn replace(&self, bytes: &[u8], marker: impl Fn(usize) -> String) -> Option<(Vec<u8>, Hidden)> {
        let mut clean: Option<Vec<u8>> = None;
        let mut sum = Hidden { places: 0, bytes: 0 };
        for form in &self.forms {
            let there = clean.as_deref().unwrap_or(bytes);
            let (mut out, mut end) = (Vec::new(), 0);
            while let Some(found) = form.find(there, end) {
                out.extend_from_slice(&there[end..found.start]);
                out.extend_from_slice(marker(found.len()).as_bytes());
                sum = Hidden { places: sum.places + 1, bytes: sum.bytes + found.len() };
                end = found.end;
            }
            if end > 0 {
                out.extend_from_slice(&there[end..]);
                clean = Some(out);
            }
        }
        clean.map(|clean| (clean, sum))
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secrets({} forms)", self.forms.len())
    }
}

/// A secret as it is looked for: its letters and digits, which nobody escapes, in the right distance of each other.
#[derive(Clone, PartialEq, Eq)]
struct Form {
    runs: Vec<Secret>,
    /// How many other characters stand before each run but the first.
    between: Vec<usize>,
    /// The whole of it, for what its other characters are.
    others: Secret,
}

impl Form {
    fn exact(text: Secret) -> Self {
        Self { runs: vec![text.clone()], between: Vec::new(), others: text }
    }

    fn escaped(secret: &Secret) -> Self {
        let (mut runs, mut between, mut n_others) = (Vec::new(), Vec::new(), 0);
        for run in secret.expose().split_inclusive(|c: char| !c.is_ascii_alphanumeric()) {
            let end = letters_end(run);
            if let Some(letters) = Secret::new(&run[..end]) {
                if !runs.is_empty() {
                    between.push(n_others);
                }
                runs.push(letters);
                n_others = 0;
            }
            n_others += run[end..].chars().count();
        }
        let is_known_by_runs = runs.iter().any(|run| run.expose().len() >= RUN_BYTES_MIN);
        if is_known_by_runs { Self { runs, between, others: secret.clone() } } else { Self::exact(secret.clone()) }
    }

    fn n_bytes(&self) -> usize {
        self.runs.iter().map(|run| run.expose().len()).sum::<usize>() + self.between.iter().sum::<usize>()
    }

    /// A short last run may stand in an escape before it, as the 2 of `%26`; then the end is the last one within reach.
    fn stretched(&self, bytes: &[u8], (from, furthest): (usize, usize), end: usize) -> usize {
        let Some(run) = self.runs.last().map(|run| run.expose().as_bytes()).filter(|run| run.len() < RUN_BYTES_MIN) else {
            return end;
        };
        let may_belong = |byte: &&u8| {
            byte.is_ascii_alphanumeric() || b"%\\&;#".contains(byte) || self.others.expose().as_bytes().contains(byte)
        };
        let within = &bytes[from..furthest.min(bytes.len())];
        let n_bytes = within.iter().take_while(may_belong).count();
        memmem::rfind(&within[..n_bytes], run).map_or(end, |at| end.max(from + at + run.len()))
    }

    /// Where it stands, from `start` on.
    fn find(&self, bytes: &[u8], start: usize) -> Option<Range<usize>> {
        let (first, rest) = self.runs.split_first()?;
        let mut from = start;
        loop {
            let begin = from + memmem::find(bytes.get(from..)?, first.expose().as_bytes())?;
            let mut last = (begin, 0);
            let end = rest.iter().zip(&self.between).try_fold(begin + first.expose().len(), |at, (run, n_others)| {
                let run = run.expose().as_bytes();
                // Half of the longest: what follows may be somebody's words.
                last = (at, at + n_others * ESCAPE_BYTES_MAX / 2 + run.len());
                let furthest = at + n_others * ESCAPE_BYTES_MAX + run.len();
                let found = memmem::find(bytes.get(at + n_others..furthest.min(bytes.len()))?, run)?;
                Some(at + n_others + found + run.len())
            });
            let end = end.map(|end| self.stretched(bytes, last, end));
            match end {
                Some(end) => return Some(begin..end),
                None => from = begin + 1,
            }
        }
    }
}

fn letters_end(run: &str) -> usize {
    run.trim_end_matches(|c: char| !c.is_ascii_alphanumeric()).len()
}

fn in_base64(secret: &str) -> Vec<String> {
    let mut all = Vec::new();
    for engine in [&STANDARD, &URL_SAFE] {
        all.push(engine.encode(secret));
        // Inside a longer text, as in `Basic` credentials, the secret begins at any of three places of a group of four
        // characters; those that hold nothing but bits of the secret are the same in every text.
        for shift in 0..3usize {
            let padded = [&[0u8; 2][..shift], secret.as_bytes()].concat();
            let (from, to) = ((shift * 8).div_ceil(6), padded.len() * 8 / 6);
            all.push(engine.encode(&padded)[from..to].to_owned());
        }
    }
    all
}

/// Percent-encodes everything but letters, digits and `-._~`.
pub fn percent_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for &b in text.as_bytes() {
        if b.is_ascii_alphanumeric() || b"-._~".contains(&b) {
            out.push(b as char);
        } else {
            out.push_str(&format!("%{b:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With every character that some encoding changes.
    const PLANTED: &str = r#"Pl4nted/k+y="\~7c1e&%z'<z"#;

    fn secret(text: &str) -> Secret {
        Secret::new(text).unwrap()
    }

    #[test]
    fn never_prints_itself() {
        let secret = secret(" hunter2\n");
        assert_eq!(format!("{secret} {secret:?} {:?}", Some(&secret)), "*** *** Some(***)");
        assert_eq!(secret.expose(), "hunter2");
        assert_eq!(Secret::new("  "), None);
    }

    #[test]
    fn secrets_are_found_however_they_are_written() {
        let basic = STANDARD.encode(format!("u:{PLANTED}"));
        let basic2 = URL_SAFE.encode(format!("user:{PLANTED}:more"));
        let url = percent_encode(PLANTED);
        let json = serde_json::json!({ "key": PLANTED }).to_string();
        let html = "<p>bad key Pl4nted/k+y=&#34;\\~7c1e&amp;%z&#x27;&lt;z";
        let cases = [
            format!("GET /ws?apiKey={PLANTED} HTTP/1.1"),
            format!("/ws?apiKey={url}"),
            format!("/ws?apiKey={}", url.replace("%2F", "%2f").replace("%3C", "%3c")),
            format!("/to?url={}", percent_encode(&format!("https://h/?k={url}"))),
            format!("/to?url={}", percent_encode(&percent_encode(&url))),
            json.clone(),
            json.replace('/', "\\/"),
            json.replace('&', "\\u0026").replace('<', "\\u003c"),
            r#"{"key":"Pl4nted/k\u002By=\u0022\u005C~7c1e\u0026%z\u0027\u003Cz"}"#.to_owned(),
            serde_json::json!({ "said": json }).to_string(),
            html.to_owned(),
            serde_json::json!({ "page": html }).to_string(),
            format!("{:?}", Some(PLANTED)),
            format!("token {}", STANDARD.encode(PLANTED)),
            format!("token {}", URL_SAFE.encode(PLANTED)),
            format!("token {}", STANDARD.encode(PLANTED).trim_end_matches('=')),
            format!("Basic {basic}"),
            format!("Basic {basic2}"),
        ];
        let secrets = Secrets::of(Secrets::IN_BYTES, [&secret(PLANTED)]);
        for case in &cases {
            let clean = secrets.hide(case);
            assert!(secrets.are_in(case) && clean.matches(STARS).count() == 1, "{case} -> {clean}");
            let (bytes, hidden) = secrets.hide_in_bytes(case.as_bytes()).unwrap();
            assert_eq!((hidden.places, String::from_utf8_lossy(&bytes).matches("[redacted: ").count()), (1, 1), "{case}");
            for part in ["Pl4nted", "7c1e", "UGw0bnRlZ", &basic[8..20], &basic2[12..24]] {
                assert!(!clean.contains(part) && !String::from_utf8_lossy(&bytes).contains(part), "{part} in {clean}");
            }
        }
        for other in
            ["nothing of that sort", "Pl4nted", "Pl4nted grows and lives and in the end there is k, y, 7c1e, z and z", ""]
        {
            assert_eq!((secrets.hide_in_bytes(other.as_bytes()), secrets.are_in(other)), (None, false), "{other}");
        }
        // A last part that its own escapes may hold.
        let secrets_with_tail = Secrets::of(Secrets::IN_BYTES, [&secret("oddly/keyed+1=&\"2")]);
        for (text, clean) in [
            ("k=oddly%2Fkeyed%2B1%3D%26%222, 2 and 22", "k=***, 2 and 22"),
            (r#"{"k":"oddly/keyed+1=&\"2"}"#, r#"{"k":"***"}"#),
            ("oddly/keyed+1=&\"2", "***"),
        ] {
            assert_eq!(secrets_with_tail.hide(text), clean);
        }
        let twice = format!("{PLANTED}{PLANTED}.Pl4nted");
        assert_eq!(secrets.hide(&twice), "******.Pl4nted");
    }

    #[test]
    fn short_words_are_no_secrets_and_long_ones_go_first() {
        let mut secrets = Secrets::new(Secrets::IN_WORDS);
        secrets.add(&secret("local"));
        assert_eq!(secrets.hide("localhost"), "localhost");
        secrets.add(&secret("abcdefgh"));
        secrets.add(&secret("abcdefghijkl"));
        assert_eq!(secrets.hide("abcdefghijkl abcdefgh"), "*** ***");
        // Made of parts that every text has: only as a whole is it a secret.
        secrets.add(&secret("a-b-c-d-e-f"));
        assert_eq!(secrets.hide("a, b, c, d, e, f: a-b-c-d-e-f"), "a, b, c, d, e, f: ***");
        let secrets = Secrets::of(Secrets::IN_BYTES, [&secret("replay")]);
        assert_eq!(secrets.hide_in_bytes(b"the replay of the match"), None);
    }
}
