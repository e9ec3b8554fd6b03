//! What an envelope says, apart from when it was handed out: two recorders of one event hold the same of it.

use sha2::{Digest, Sha256};

use super::Provider;
use crate::model::json::Json;

/// A digest of what an envelope says.
pub type Said = [u8; 16];

/// The digest: of the whole bytes, but for the stamp that a provider puts on each delivery. The same event with other
/// content is something else.
pub fn said(provider: Provider, bytes: &[u8]) -> Said {
    let stamp = stamp_of(provider);
    let text = std::str::from_utf8(bytes).ok().filter(|_| stamp.is_some());
    let mut digest = Sha256::new();
    if text.and_then(|text| without(text, stamp.unwrap_or_default(), &mut digest)).is_none() {
        digest = Sha256::new();
        digest.update(bytes);
    }
    let digest = digest.finalize();
    let mut said = Said::default();
    said.copy_from_slice(&digest[..16]);
    said
}

/// The field of an envelope that tells when this copy of it left the provider.
///
/// Documented: TwitterAPI.io's `timestamp` and TweetStream's `ts` stand beside the event, not in it. ScrapeBadger's
/// `detected_at` belongs to the event, and X stamps nothing.
const fn stamp_of(provider: Provider) -> Option<&'static str> {
    match provider {
        Provider::TwitterapiIo => Some("timestamp"),
        Provider::Tweetstream => Some("ts"),
        Provider::Scrapebadger | Provider::XLive => None,
    }
}

/// Takes in an object's members but one; `None` when it is no such object.
fn without(text: &str, stamp: &str, digest: &mut Sha256) -> Option<()> {
    let mut json = Json::new(text);
    let mut members = 0;
    json.object(|key, json| {
        members += 1;
        let from = json.position();
        json.skip()?;
        if key != stamp {
            digest.update(key.as_bytes());
            digest.update([0]);
            digest.update(&text[from..json.position()]);
            digest.update([0]);
        }
        Ok(())
    })
    .and_then(|()| json.finish())
    .ok()?;
    (members > 0).then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_says_nothing_and_everything_else_does() {
        let said = |text: &str| said(Provider::TwitterapiIo, text.as_bytes());
        let first = said(r#"{"event_type":"tweet","tweets":[{"id":"1","text":"a"}],"timestamp":1}"#);
        assert_eq!(first, said(r#"{"event_type":"tweet","tweets":[{"id":"1","text":"a"}],"timestamp":2}"#));
        let others = [
            r#"{"event_type":"tweet","tweets":[{"id":"1","text":"b"}],"timestamp":1}"#,
            r#"{"event_type":"tweet","tweets":[{"id":"1","text":"a","timestamp":1}],"timestamp":1}"#,
            r#"{"event_type":"tweet","tweets":[{"id":"1","text":"a"}],"timestamp":1"#,
            "nonsense",
            "",
        ];
        for (at, other) in others.iter().enumerate() {
            assert_ne!(first, said(other), "{other}");
            assert!(others[..at].iter().all(|before| said(before) != said(other)), "{other}");
        }
    }
}
