//! Keys and cookies, which must land nowhere, and how they are found again in what others say.

use std::fmt::{self, Write as _};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use bytes::Bytes;
use memchr::memmem;
use zeroize::Zeroize;

/// Stands in the place of a secret in words.
const STARS: &str = "***";

/// Text that is never shown: prints as `***`, has no serialisation, is wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
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

/// Finds known secrets in every form in which they could show up: plain, URL-encoded once or twice, escaped for JSON, HTML or
/// Rust, in base64, alone or inside a longer text.
#[derive(Clone)]
pub struct Redactor {
    shortest: usize,
    /// The longest first, so that none leaves a rest.
    forms: Vec<Secret>,
}

/// What was taken out of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Redacted {
    /// In how many places.
    pub places: usize,
    /// How many bytes stood there.
    pub bytes: usize,
}

impl Redactor {
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
        let mut redactor = Self::new(shortest);
        secrets.into_iter().for_each(|secret| redactor.add(secret));
        redactor
    }

    /// Knows one more.
    pub fn add(&mut self, secret: &Secret) {
        if secret.expose().len() < self.shortest {
            return;
        }
        let new = forms(secret.expose()).into_iter().filter_map(Secret::new);
        self.forms.extend(new.filter(|form| form.expose().len() >= self.shortest));
        self.forms.sort_by(|a, b| (b.expose().len(), b.expose()).cmp(&(a.expose().len(), a.expose())));
        self.forms.dedup();
    }

    /// Whether the text holds one.
    pub fn finds(&self, text: &str) -> bool {
        self.forms.iter().any(|form| text.contains(form.expose()))
    }

    /// The text with `***` in the place of each.
    pub fn redact(&self, text: &str) -> String {
        let mut clean = text.to_owned();
        for form in &self.forms {
            if clean.contains(form.expose()) {
                clean = clean.replace(form.expose(), STARS);
            }
        }
        clean
    }

    /// The bytes with a marker in the place of each that says how many bytes stood there; `None` when there is none.
    pub fn redact_bytes(&self, bytes: &[u8]) -> Option<(Bytes, Redacted)> {
        let mut clean: Option<Vec<u8>> = None;
        let mut sum = Redacted { places: 0, bytes: 0 };
        for form in &self.forms {
            let form = form.expose().as_bytes();
            let there = clean.as_deref().unwrap_or(bytes);
            let found: Vec<usize> = memmem::find_iter(there, form).collect();
            if found.is_empty() {
                continue;
            }
            sum = Redacted { places: sum.places + found.len(), bytes: sum.bytes + found.len() * form.len() };
            let mut out = Vec::with_capacity(there.len() + found.len() * 32);
            let mut end = 0;
            for at in found {
                out.extend_from_slice(&there[end..at]);
                out.extend_from_slice(format!("[redacted: {} bytes]", form.len()).as_bytes());
                end = at + form.len();
            }
            out.extend_from_slice(&there[end..]);
            clean = Some(out);
        }
        clean.map(|clean| (Bytes::from(clean), sum))
    }
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redactor({} forms)", self.forms.len())
    }
}

fn forms(secret: &str) -> Vec<String> {
    let inside = |quoted: String| quoted[1..quoted.len() - 1].to_owned();
    let url = percent_encode(secret);
    let json = inside(serde_json::Value::from(secret).to_string());
    let mut all = vec![
        secret.to_owned(),
        percent_encode(&url),
        lower_escapes(&url),
        url,
        json.replace('/', "\\/"),
        // What the encoders of .NET and Go escape so that it may stand in a web page.
        escaped(&json, "\"'&+<>`\\", |c| format!("\\u{:04X}", u32::from(c))),
        escaped(&json, "\"'&+<>`\\", |c| format!("\\u{:04x}", u32::from(c))),
        escaped(&json, "&<>", |c| format!("\\u{:04x}", u32::from(c))),
        json,
        html(secret, "&#39;", "&#34;"),
        html(secret, "&#x27;", "&quot;"),
        inside(format!("{secret:?}")),
    ];
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

/// `%2F` as `%2f`, which other programs write.
fn lower_escapes(url: &str) -> String {
    let mut parts = url.split('%');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (code, rest) = part.split_at(2);
        write!(out, "%{}{rest}", code.to_ascii_lowercase()).ok();
    }
    out
}

/// JSON's inside with these characters written otherwise, also where a backslash stands before them.
fn escaped(json: &str, which: &str, write: impl Fn(char) -> String) -> String {
    let mut out = String::with_capacity(json.len());
    let mut chars = json.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, chars.peek()) {
            ('\\', Some(&next @ ('"' | '\\'))) if which.contains(next) => {
                chars.next();
                out.push_str(&write(next));
            }
            ('\\', Some(&next)) => {
                chars.next();
                out.extend(['\\', next]);
            }
            (c, _) if which.contains(c) => out.push_str(&write(c)),
            (c, _) => out.push(c),
        }
    }
    out
}

fn html(text: &str, apostrophe: &str, quote: &str) -> String {
    let entity = |c: char| match c {
        '&' => "&amp;".to_owned(),
        '<' => "&lt;".to_owned(),
        '>' => "&gt;".to_owned(),
        '"' => quote.to_owned(),
        '\'' => apostrophe.to_owned(),
        c => c.to_string(),
    };
    text.chars().map(entity).collect()
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
    fn secrets_are_found_in_every_form() {
        let basic = STANDARD.encode(format!("u:{PLANTED}"));
        let basic2 = URL_SAFE.encode(format!("user:{PLANTED}:more"));
        let json = serde_json::json!({ "key": PLANTED }).to_string();
        let go = json.replace('&', "\\u0026").replace('<', "\\u003c");
        let dot_net = r#"{"key":"Pl4nted/k\u002By=\u0022\u005C~7c1e\u0026%z\u0027\u003Cz"}"#;
        let cases = [
            format!("GET /ws?apiKey={PLANTED} HTTP/1.1"),
            format!("/ws?apiKey={}", percent_encode(PLANTED)),
            format!("/ws?apiKey={}", lower_escapes(&percent_encode(PLANTED))),
            format!("/to?url={}", percent_encode(&format!("https://h/?k={}", percent_encode(PLANTED)))),
            json.clone(),
            json.replace('/', "\\/"),
            go,
            dot_net.to_owned(),
            "<p>bad key Pl4nted/k+y=&#34;\\~7c1e&amp;%z&#39;&lt;z".to_owned(),
            format!("{:?}", Some(PLANTED)),
            format!("token {}", STANDARD.encode(PLANTED)),
            format!("token {}", URL_SAFE.encode(PLANTED)),
            format!("token {}", STANDARD.encode(PLANTED).trim_end_matches('=')),
            format!("Basic {basic}"),
            format!("Basic {basic2}"),
        ];
        let redactor = Redactor::of(Redactor::IN_BYTES, [&secret(PLANTED)]);
        for case in &cases {
            let clean = redactor.redact(case);
            assert!(redactor.finds(case) && clean.matches(STARS).count() == 1, "{case} -> {clean}");
            let (bytes, redacted) = redactor.redact_bytes(case.as_bytes()).unwrap();
            assert_eq!((redacted.places, String::from_utf8_lossy(&bytes).matches("[redacted: ").count()), (1, 1), "{case}");
            for part in ["Pl4nted", "7c1e", "UGw0bnRlZ", &basic[8..20], &basic2[12..24]] {
                assert!(!clean.contains(part) && !String::from_utf8_lossy(&bytes).contains(part), "{part} in {clean}");
            }
        }
        assert_eq!(redactor.redact_bytes(b"nothing of that sort"), None);
    }

    #[test]
    fn short_words_are_no_secrets_and_long_ones_go_first() {
        let mut redactor = Redactor::new(Redactor::IN_WORDS);
        redactor.add(&secret("local"));
        assert_eq!(redactor.redact("localhost"), "localhost");
        redactor.add(&secret("abcdefgh"));
        redactor.add(&secret("abcdefghijkl"));
        assert_eq!(redactor.redact("abcdefghijkl abcdefgh"), "*** ***");
        let redactor = Redactor::of(Redactor::IN_BYTES, [&secret("replay")]);
        assert_eq!(redactor.redact_bytes(b"the replay of the match"), None);
    }
}
