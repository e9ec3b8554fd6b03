//! Keys that come back: a server may echo what it was sent, and what it says is shown and recorded.

use bytes::Bytes;
use memchr::memmem;

use crate::model::Secret;

/// Stands where a key stood in a header.
const HIDDEN: &str = "***";

/// Token of the subprotocol that carries a key; never shown whatever follows it.
const TOKEN_PREFIX: &str = "tweetstream.auth.token.";

/// Headers of a request that never carry a key.
const HARMLESS: [&str; 7] = ["accept", "accept-language", "cache-control", "content-type", "origin", "referer", "user-agent"];

/// Shortest text taken for a key. Shorter ones would blank out innocent text.
const KEY_BYTES_MIN: usize = 4;

/// The keys of one request, to be found again in its answer. Has no `Debug` on purpose.
pub(super) struct Keys(Vec<Secret>);

impl Keys {
    /// Collects what was sent: header values that may be keys, and query values that `shown` does not show.
    pub(super) fn of(headers: &[(&'static str, Secret)], target: &Secret, shown: &str) -> Self {
        let mut keys = Self(Vec::new());
        for (name, value) in headers {
            keys.add_header(&name.to_ascii_lowercase(), value.expose());
        }
        let query = target.expose().split_once('?').map_or("", |(_, query)| query);
        for pair in query.split('&').filter(|pair| !shown.contains(pair)) {
            let value = pair.split_once('=').map_or(pair, |(_, value)| value);
            keys.add(value);
            keys.add(&percent_decoded(value));
        }
        // A longer key first: its beginning may be a key too.
        keys.0.sort_by_key(|key| std::cmp::Reverse(key.expose().len()));
        keys
    }

    fn add_header(&mut self, name: &str, value: &str) {
        match name {
            _ if HARMLESS.contains(&name) => {}
            "sec-websocket-protocol" => {
                for token in value.split(',').map(str::trim) {
                    if let Some((_, key)) = token.split_once(".token.") {
                        self.add(key);
                    }
                }
            }
            "cookie" => value.split(';').for_each(|pair| self.add(pair.split_once('=').map_or(pair, |(_, v)| v))),
            _ => {
                self.add(value);
                // `Bearer KEY`: the key alone may come back.
                if let Some((_, key)) = value.split_once(' ') {
                    self.add(key);
                }
            }
        }
    }

    fn add(&mut self, text: &str) {
        if text.trim().len() >= KEY_BYTES_MIN {
            self.0.extend(Secret::new(text));
        }
    }

    /// Whether the text holds a key.
    pub(super) fn in_text(&self, text: &str) -> bool {
        text.contains(TOKEN_PREFIX) || self.0.iter().any(|key| text.contains(key.expose()))
    }

    /// The text, or `***` when it holds a key.
    pub(super) fn hide(&self, text: &str) -> String {
        if self.in_text(text) { HIDDEN.to_owned() } else { text.to_owned() }
    }

    /// The body; each key in it is replaced by a marker that states how many bytes stood there.
    pub(super) fn hide_in_body(&self, body: Bytes) -> Bytes {
        let mut body = body;
        for key in &self.0 {
            let key = key.expose().as_bytes();
            let found: Vec<usize> = memmem::find_iter(&body, key).collect();
            if found.is_empty() {
                continue;
            }
            let mut out = Vec::with_capacity(body.len() + found.len() * 32);
            let mut end = 0;
            for at in found {
                out.extend_from_slice(&body[end..at]);
                out.extend_from_slice(format!("[redacted: {} bytes]", key.len()).as_bytes());
                end = at + key.len();
            }
            out.extend_from_slice(&body[end..]);
            body = Bytes::from(out);
        }
        body
    }
}

fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).filter(|_| bytes[at] == b'%').and_then(|h| std::str::from_utf8(h).ok());
        if let Some(code) = hex.and_then(|h| u8::from_str_radix(h, 16).ok()) {
            out.push(code);
            at += 3;
        } else {
            out.push(bytes[at]);
            at += 1;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_again_and_harmless_values_stay() {
        let secret = |text: &str| Secret::new(text).unwrap();
        let headers = [
            ("Authorization", secret("Bearer bearer-key")),
            ("cookie", secret("auth_token=cookie-key; ct0=csrf-key")),
            ("sec-websocket-protocol", secret("tweetstream.v1, tweetstream.auth.token.sub-key")),
            ("x-api-key", secret("plain-key")),
            ("accept", secret("text/event-stream")),
        ];
        let target = secret("/live?api_key=query%2Dkey&topic=tweets");
        let keys = Keys::of(&headers, &target, "wss://host/live?api_key=***&topic=tweets");
        for leak in [
            "a bearer-key",
            "cookie-key",
            "csrf-key",
            "x sub-key",
            "plain-key",
            "query%2Dkey",
            "query-key",
            "tweetstream.auth.token.z",
        ] {
            assert_eq!(keys.hide(leak), "***", "{leak}");
        }
        for fine in ["tweetstream.v1", "text/event-stream", "tweets", ""] {
            assert_eq!(keys.hide(fine), fine);
        }
        let body = keys.hide_in_body(Bytes::from_static(b"bad key plain-key, twice plain-key"));
        assert_eq!(&body[..], b"bad key [redacted: 9 bytes], twice [redacted: 9 bytes]");
    }
}
