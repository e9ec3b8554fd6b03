//! Deliveries by webhook: whether they come from the provider, and whether they are fresh.
//!
//! | provider | proof | stamp | name of a delivery |
//! | --- | --- | --- | --- |
//! | TwitterAPI.io | `X-API-Key` is the source's own key | `timestamp` of the body | none |
//! | ScrapeBadger | HMAC-SHA256 over the raw body | none | `X-ScrapeBadger-Delivery-Id`, `X-Delivery-Id` |
//!
//! Documented: twitterapi.io blog, "Using Webhooks for Real-Time Twitter Data" (the key in a header, no signature);
//! docs.scrapebadger.com, "Webhooks" (`X-Signature-256`) and scrapebadger.com/docs/twitter-streams (`X-ScrapeBadger-Signature`):
//! in both `sha256=` and lower-case hex. Whether more than one name is sent cannot be told without a key: either is taken, and
//! where both are there both must be right. TweetStream and X's live pipeline have none.
//!
//! A delivery is looked at as it came: the signature is over its bytes, and no JSON is made anew.

use ring::digest::{SHA256, digest};
use ring::hmac;

use super::decode;
use crate::model::{Decoded, Provider, Secret, UnixMicros};

/// How far a delivery's stamp may be from the clock here.
pub const TOLERANCE_S: i64 = 300;

/// Headers that carry ScrapeBadger's signature.
const SIGNATURES: [&str; 2] = ["x-scrapebadger-signature", "x-signature-256"];

/// Headers that name a delivery of ScrapeBadger; a second attempt has the name of the first.
const DELIVERIES: [&str; 2] = ["x-scrapebadger-delivery-id", "x-delivery-id"];

/// Knows the deliveries of one source.
#[derive(Clone)]
pub struct Webhook {
    provider: Provider,
    secret: Secret,
    key: hmac::Key,
    /// What the key itself comes to under that key.
    own: hmac::Tag,
}

/// A delivery of the provider's.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// What it says.
    pub decoded: Decoded,
    /// The same for each attempt at it, and for nothing else.
    pub digest: [u8; 32],
}

/// Why a delivery is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It carries no proof, or two.
    Unsigned,
    /// Its proof is wrong.
    Forged,
    /// Its stamp is this many seconds behind the clock here (ahead of it, if negative).
    Stale(i64),
}

impl Refusal {
    /// As a status of HTTP.
    pub const fn status(self) -> u16 {
        match self {
            Self::Unsigned | Self::Forged => 401,
            Self::Stale(_) => 403,
        }
    }

    /// In words.
    pub fn words(self) -> String {
        match self {
            Self::Unsigned => "it must carry the provider's proof exactly once".to_owned(),
            Self::Forged => "its proof is wrong".to_owned(),
            Self::Stale(seconds) => {
                let side = if seconds < 0 { "ahead of" } else { "behind" };
                format!("its stamp is {} s {side} the clock here; {TOLERANCE_S} s are tolerated", seconds.unsigned_abs())
            }
        }
    }
}

impl Webhook {
    /// Whether a provider delivers by webhook.
    pub const fn is_of(provider: Provider) -> bool {
        matches!(provider, Provider::TwitterapiIo | Provider::Scrapebadger)
    }

    /// For a source: of TwitterAPI.io with its API key, of ScrapeBadger with the secret of its webhooks. `None` for a provider
    /// that has no webhooks.
    pub fn new(provider: Provider, secret: &Secret) -> Option<Self> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes());
        let own = hmac::sign(&key, secret.expose().as_bytes());
        Self::is_of(provider).then(|| Self { provider, secret: secret.clone(), key, own })
    }

    /// What it knows them by.
    pub const fn secret(&self) -> &Secret {
        &self.secret
    }

    /// Looks at a delivery that comes `at`. Names of headers are in lower case.
    ///
    /// # Errors
    /// It is not the provider's, or not fresh.
    pub fn check(&self, headers: &[(String, String)], body: &[u8], at: UnixMicros) -> Result<Delivery, Refusal> {
        match self.provider {
            Provider::TwitterapiIo => self.has_key(headers)?,
            _ => self.is_signed(headers, body)?,
        }
        let decoded = decode(self.provider, body);
        if self.provider == Provider::TwitterapiIo
            && let Some(stamp) = decoded.provider_at
        {
            let late = at.since(stamp);
            if late.unsigned_abs() > TOLERANCE_S.unsigned_abs() * 1_000_000 {
                return Err(Refusal::Stale(late / 1_000_000));
            }
        }
        let mut named = Vec::with_capacity(body.len() + 64);
        let names = headers.iter().filter(|(name, _)| DELIVERIES.contains(&name.as_str()));
        names.for_each(|(_, value)| named.extend_from_slice(value.as_bytes()));
        named.push(b'\n');
        named.extend_from_slice(body);
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, &named).as_ref());
        Ok(Delivery { decoded, digest: bytes })
    }

    fn has_key(&self, headers: &[(String, String)]) -> Result<(), Refusal> {
        let given = only(headers, "x-api-key")?.ok_or(Refusal::Unsigned)?;
        // What both come to is compared, and that in constant time: no answer is faster for a key that begins right.
        hmac::verify(&self.key, given.as_bytes(), self.own.as_ref()).map_err(|_| Refusal::Forged)
    }

    fn is_signed(&self, headers: &[(String, String)], body: &[u8]) -> Result<(), Refusal> {
        let mut signed = false;
        for name in SIGNATURES {
            let Some(given) = only(headers, name)? else { continue };
            let tag = given.strip_prefix("sha256=").and_then(unhex).ok_or(Refusal::Forged)?;
            hmac::verify(&self.key, body, &tag).map_err(|_| Refusal::Forged)?;
            signed = true;
        }
        signed.then_some(()).ok_or(Refusal::Unsigned)
    }
}

/// The value of a header that may be there once.
fn only<'h>(headers: &'h [(String, String)], wanted: &str) -> Result<Option<&'h str>, Refusal> {
    let mut values = headers.iter().filter(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
    let first = values.next();
    values.next().map_or(Ok(first), |_| Err(Refusal::Unsigned))
}

/// 64 digits of lower-case hex.
fn unhex(text: &str) -> Option<[u8; 32]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let mut bytes = [0; 32];
    if pairs.len() != bytes.len() || !rest.is_empty() {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(pairs) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::model::Message;

    const NOW: UnixMicros = UnixMicros(1_767_614_400_000_000);
    const BODY: &[u8] = br#"{ "type":"tweet", "tweet_id":"2064689031777615872","text":"a\u00e9b" }"#;

    fn secret(text: &str) -> Secret {
        Secret::new(text).unwrap()
    }

    fn badger() -> Webhook {
        Webhook::new(Provider::Scrapebadger, &secret("planted-hook-secret")).unwrap()
    }

    fn io() -> Webhook {
        Webhook::new(Provider::TwitterapiIo, &secret("planted-key")).unwrap()
    }

    fn header(name: &str, value: impl Into<String>) -> (String, String) {
        (name.to_owned(), value.into())
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn signature(secret: &str, body: &[u8]) -> String {
        // Not by the code that is tried: RFC 2104 by hand.
        use sha2::{Digest, Sha256};
        let mut block = [0_u8; 64];
        block[..secret.len()].copy_from_slice(secret.as_bytes());
        let inner = Sha256::new().chain_update(block.map(|byte| byte ^ 0x36)).chain_update(body).finalize();
        format!("sha256={}", hex(&Sha256::new().chain_update(block.map(|byte| byte ^ 0x5c)).chain_update(inner).finalize()))
    }

    fn signed(body: &[u8]) -> Vec<(String, String)> {
        vec![header("x-scrapebadger-signature", signature("planted-hook-secret", body))]
    }

    fn stamped(ms: i64) -> Vec<u8> {
        format!(r#"{{"event_type":"tweet","tweets":[{{"id":"2064689031777615872"}}],"timestamp":{ms}}}"#).into_bytes()
    }

    #[test]
    fn only_two_providers_have_them() {
        let have = Provider::ALL.map(|provider| Webhook::new(provider, &secret("s")).is_some());
        assert_eq!(have, Provider::ALL.map(|provider| matches!(provider, Provider::TwitterapiIo | Provider::Scrapebadger)));
    }

    #[test]
    fn what_the_provider_signed_is_taken_under_either_name() {
        for name in SIGNATURES {
            let delivery = badger().check(&[header(name, signature("planted-hook-secret", BODY))], BODY, NOW).unwrap();
            assert_eq!((delivery.decoded.message, delivery.decoded.events.len()), (Message::Data, 1));
        }
        let both = SIGNATURES.map(|name| header(name, signature("planted-hook-secret", BODY)));
        assert!(badger().check(&both, BODY, NOW).is_ok());
        for body in [&b""[..], b"no json", b"\xff\x00"] {
            assert!(badger().check(&signed(body), body, NOW).is_ok(), "what the provider signs is kept, whatever it is");
        }
    }

    #[test]
    fn the_signature_is_over_the_bytes_that_came() {
        // The same JSON in other bytes is another message.
        let anew = serde_json::to_vec(&serde_json::from_slice::<serde_json::Value>(BODY).unwrap()).unwrap();
        assert_ne!(anew, BODY);
        assert_eq!(badger().check(&signed(&anew), BODY, NOW).unwrap_err(), Refusal::Forged);
        assert_eq!(badger().check(&signed(BODY), &anew, NOW).unwrap_err(), Refusal::Forged);
    }

    #[test]
    fn ten_thousand_changed_bits_are_refused() {
        let (hook, good) = (badger(), signature("planted-hook-secret", BODY));
        let (mut tried, mut body) = (0, BODY.repeat(17));
        let headers = signed(&body);
        for bit in 0..body.len() * 8 {
            body[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(hook.check(&headers, &body, NOW).unwrap_err(), Refusal::Forged, "bit {bit} of the body");
            body[bit / 8] ^= 1 << (bit % 8);
            tried += 1;
        }
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone().into_bytes();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let bent = String::from_utf8_lossy(&bytes).into_owned();
            let refused = hook.check(&[header(SIGNATURES[0], bent)], BODY, NOW).unwrap_err();
            assert_eq!(refused, Refusal::Forged, "bit {bit} of the signature");
            tried += 1;
        }
        let (hook, key) = (io(), "planted-key");
        for bit in 0..key.len() * 8 {
            let mut bytes = key.to_owned().into_bytes();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let bent = String::from_utf8_lossy(&bytes).into_owned();
            assert_eq!(hook.check(&[header("x-api-key", bent)], BODY, NOW).unwrap_err(), Refusal::Forged, "bit {bit} of the key");
            tried += 1;
        }
        assert!(tried >= 10_000, "{tried}");
    }

    #[test]
    fn odd_proofs_are_refused() {
        let good = signature("planted-hook-secret", BODY);
        let digits = good.strip_prefix("sha256=").unwrap();
        let wide: String = digits.chars().map(|c| if c.is_ascii_digit() { '٠' } else { c }).collect();
        let odd = [
            String::new(),
            "sha256=".to_owned(),
            digits.to_owned(),
            good.to_uppercase(),
            format!("sha256={}", digits.to_uppercase()),
            format!("SHA256={digits}"),
            format!("sha256= {digits}"),
            format!("{good} "),
            format!("{good}00"),
            good[..good.len() - 1].to_owned(),
            good[..good.len() - 2].to_owned(),
            format!("sha256={wide}"),
            format!("{good},{good}"),
            format!("sha1={digits}"),
        ];
        for bent in odd {
            let refused = badger().check(&[header(SIGNATURES[0], bent.clone())], BODY, NOW).unwrap_err();
            assert_eq!(refused, Refusal::Forged, "{bent:?}");
        }
        let twice = [header(SIGNATURES[0], good.clone()), header(SIGNATURES[0], good.clone())];
        assert_eq!(badger().check(&twice, BODY, NOW).unwrap_err(), Refusal::Unsigned);
        assert_eq!(badger().check(&[], BODY, NOW).unwrap_err(), Refusal::Unsigned);
        let one_wrong = [header(SIGNATURES[0], good.clone()), header(SIGNATURES[1], good.replace('a', "b").replace('0', "1"))];
        assert_eq!(badger().check(&one_wrong, BODY, NOW).unwrap_err(), Refusal::Forged);
        // ScrapeBadger's key proves nothing, nor does a signature for TwitterAPI.io.
        assert_eq!(badger().check(&[header("x-api-key", "planted-hook-secret")], BODY, NOW).unwrap_err(), Refusal::Unsigned);
        assert_eq!(io().check(&[header(SIGNATURES[0], good)], BODY, NOW).unwrap_err(), Refusal::Unsigned);
        for bent in ["", "planted-ke", "planted-keyy", "PLANTED-KEY"] {
            assert_eq!(io().check(&[header("x-api-key", bent)], BODY, NOW).unwrap_err(), Refusal::Forged, "{bent:?}");
        }
        let twice = [header("x-api-key", "planted-key"), header("x-api-key", "planted-key")];
        assert_eq!(io().check(&twice, BODY, NOW).unwrap_err(), Refusal::Unsigned);
    }

    #[test]
    fn a_stale_delivery_is_refused() {
        let key = [header("x-api-key", "planted-key")];
        let off_by = |ms: i64| io().check(&key, &stamped(NOW.0 / 1_000 - ms), NOW).map(|_| ());
        assert_eq!([0, 300_000, -300_000].map(off_by), [Ok(()); 3]);
        let refused = [301_000, 300_001, -301_000].map(off_by);
        assert_eq!(refused, [Err(Refusal::Stale(301)), Err(Refusal::Stale(300)), Err(Refusal::Stale(-301))]);
        assert!(io().check(&key, br#"{"event_type":"tweet"}"#, NOW).is_ok(), "what is not stamped has no age");
        let extreme = format!(r#"{{"event_type":"ping","timestamp":{}}}"#, i64::MIN);
        assert!(matches!(io().check(&key, extreme.as_bytes(), NOW), Err(Refusal::Stale(_)) | Ok(_)), "no arithmetic overflows");
    }

    #[test]
    fn each_attempt_has_the_same_digest_and_nothing_else_has() {
        let digest = |name: &str, id: &str, body: &[u8]| {
            let mut headers = signed(body);
            headers.push(header(name, id));
            badger().check(&headers, body, NOW).unwrap().digest
        };
        let one = digest("x-scrapebadger-delivery-id", "1", BODY);
        assert_eq!(one, digest("x-scrapebadger-delivery-id", "1", BODY));
        assert_ne!(one, digest("x-scrapebadger-delivery-id", "2", BODY));
        assert_ne!(one, digest("x-scrapebadger-delivery-id", "1", b"{}"));
    }
}
