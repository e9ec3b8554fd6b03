//! Deliveries by webhook: `NAME: VALUE` lines, an empty line, the body. A first byte below 128 has the body signed here first.

use birdtape::model::{Secret, UnixMicros};
use birdtape::provider::webhook::{Refusal, TOLERANCE_S, Webhook};
use birdtape::provider::{Provider, decode};
use sha2::{Digest, Sha256};

const SECRET: &str = "fuzzed-secret";
const NOW: UnixMicros = UnixMicros(1_767_614_400_000_000);

pub(super) fn delivery(data: &[u8]) -> bool {
    let Some((&mode, rest)) = data.split_first() else { return false };
    let secret = Secret::new(SECRET).expect("it is not empty");
    let hook = |provider| Webhook::new(provider, &secret).expect("it has webhooks");
    if mode < 128 {
        return signed(&hook(Provider::Scrapebadger), usize::from(mode), rest);
    }
    let (head, body) = match rest.windows(2).position(|pair| pair == b"\n\n") {
        Some(end) => (&rest[..end], &rest[end + 2..]),
        None => (rest, &[][..]),
    };
    let head = String::from_utf8_lossy(head);
    let pairs = head.lines().filter_map(|line| line.split_once(": "));
    let headers: Vec<_> = pairs.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
    let values =
        |wanted: &str| headers.iter().filter(|(name, _)| name == wanted).map(|(_, value)| value.as_str()).collect::<Vec<_>>();
    if mode % 2 == 0 {
        let taken = hook(Provider::Scrapebadger).check(&headers, body, NOW);
        let proofs = ["x-scrapebadger-signature", "x-signature-256"].map(values);
        let right = signature(body);
        let is_right = proofs.iter().all(|one| one.len() < 2 && one.iter().all(|value| *value == right));
        assert_eq!(taken.is_ok(), is_right && proofs.iter().any(|one| one.len() == 1), "{headers:?}");
        return taken.is_ok();
    }
    let taken = hook(Provider::TwitterapiIo).check(&headers, body, NOW);
    let stamp = decode(Provider::TwitterapiIo, body).provider_at;
    let is_fresh =
        stamp.is_none_or(|stamp| (i128::from(stamp.0) - i128::from(NOW.0)).abs() <= i128::from(TOLERANCE_S) * 1_000_000);
    assert_eq!(taken.is_ok(), values("x-api-key") == [SECRET] && is_fresh, "{headers:?}");
    taken.is_ok()
}

/// What is signed is taken; with one bit changed it is not.
fn signed(hook: &Webhook, place: usize, body: &[u8]) -> bool {
    let headers = [("x-signature-256".to_owned(), signature(body))];
    let delivery = hook.check(&headers, body, NOW).expect("it is signed");
    assert_eq!(delivery.decoded, decode(Provider::Scrapebadger, body));
    let mut bent = body.to_vec();
    if let Some(byte) = bent.get_mut(place / 8) {
        *byte ^= 1 << (place % 8);
        assert_eq!(hook.check(&headers, &bent, NOW).err(), Some(Refusal::Forged));
    }
    true
}

/// RFC 2104, by hand.
fn signature(body: &[u8]) -> String {
    let mut block = [0_u8; 64];
    block[..SECRET.len()].copy_from_slice(SECRET.as_bytes());
    let inner = Sha256::new().chain_update(block.map(|byte| byte ^ 0x36)).chain_update(body).finalize();
    let outer = Sha256::new().chain_update(block.map(|byte| byte ^ 0x5c)).chain_update(inner).finalize();
    outer.iter().fold("sha256=".to_owned(), |hex, byte| format!("{hex}{byte:02x}"))
}
