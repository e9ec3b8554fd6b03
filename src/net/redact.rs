//! Keys that come back: a server may echo what it was sent, and what it says is shown and recorded.

use bytes::Bytes;

use crate::model::{Secret, Secrets};

/// Stands where a key stood in a header.
const HIDDEN: &str = "***";

/// Token of the subprotocol that carries a key; never shown whatever follows it.
const TOKEN_PREFIX: &str = "tweetstream.auth.token.";

/// Headers of a request that never carry a key.
const HARMLESS: [&str; 10] = [
    "accept",
    "accept-language",
    "cache-control",
    "content-type",
    "origin",
    "referer",
    "user-agent",
    "x-twitter-active-user",
    "x-twitter-auth-type",
    "x-twitter-client-language",
];

/// The keys of one request, to be found again in its answer. Has no `Debug` on purpose.
pub(super) struct Keys {
    in_words: Secrets,
    in_bytes: Secrets,
}

impl Keys {
    /// Collects what was sent: header values that may be keys, and query values that `shown` does not show.
    pub(super) fn of(headers: &[(&'static str, Secret)], target: &Secret, shown: &str) -> Self {
        let mut keys = Self { in_words: Secrets::new(Secrets::IN_WORDS), in_bytes: Secrets::new(Secrets::IN_BYTES) };
        for (name, value) in headers {
            keys.add_header(&name.to_ascii_lowercase(), value.expose());
        }
        let query = target.expose().split_once('?').map_or("", |(_, query)| query);
        for pair in query.split('&').filter(|pair| !shown.contains(pair)) {
            let value = pair.split_once('=').map_or(pair, |(_, value)| value);
            keys.add(value);
            keys.add(&percent_decoded(value));
        }
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
        if let Some(key) = Secret::new(text) {
            self.in_words.add(&key);
            self.in_bytes.add(&key);
        }
    }

    /// Whether the text holds a key.
    pub(super) fn in_text(&self, text: &str) -> bool {
        text.contains(TOKEN_PREFIX) || self.in_words.are_in(text)
    }

    /// The text, or `***` when it holds a key.
    pub(super) fn hide(&self, text: &str) -> String {
        if self.in_text(text) { HIDDEN.to_owned() } else { text.to_owned() }
    }

    /// The body; each key in it is replaced by a marker that states how many bytes stood there.
    pub(super) fn hide_in_body(&self, body: Bytes) -> Bytes {
        self.in_bytes.hide_in_bytes(&body).map_or(body, |(clean, _)| clean)
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

    #[test]
    fn an_echo_is_found_however_it_is_written() {
        let secret = |text: &str| Secret::new(text).unwrap();
        let keys = Keys::of(&[("x-api-key", secret("oddly/keyed+1=&\"2"))], &secret("/live"), "wss://host/live");
        for echo in
            ["oddly%2Fkeyed%2B1%3D%26%222", "oddly%2fkeyed%2b1%3d%26%222", "b2RkbHkva2V5ZWQrMT0mIjI=", r#"oddly\/keyed+1=&\"2"#]
        {
            assert_eq!(keys.hide(&format!("https://elsewhere.test/?next={echo}")), "***", "{echo}");
            let body = keys.hide_in_body(Bytes::from(format!("{{\"error\":\"bad {echo}\"}}")));
            assert!(body.starts_with(b"{\"error\":\"bad [redacted: ") && body.ends_with(b" bytes]\"}"), "{body:?}");
        }
    }

    #[test]
    fn a_stand_in_for_a_key_takes_nothing_out_of_a_page() {
        let secret = |text: &str| Secret::new(text).unwrap();
        for stand_in in ["local", "replay"] {
            let cookie = format!("auth_token={stand_in}; ct0={stand_in}");
            let headers =
                [("x-api-key", secret(stand_in)), ("cookie", secret(&cookie)), ("x-twitter-auth-type", secret("OAuth2Session"))];
            let keys = Keys::of(&headers, &secret("/search"), "https://host/search");
            let page = Bytes::from_static(b"{\"text\":\"local news: the replay of OAuth2Session\"}");
            assert_eq!(keys.hide_in_body(page.clone()), page);
        }
    }
}
