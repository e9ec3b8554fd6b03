//! Where the replay is reached.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use crate::model::Provider;
use crate::provider::live_path;

/// Addresses of the fake providers: what a client is given instead of the real ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Urls {
    authority: String,
    is_tls: bool,
}

impl Urls {
    /// Of a server on that address; one that listens everywhere is reached on loopback.
    pub(super) fn new(mut address: SocketAddr, is_tls: bool) -> Self {
        match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
            IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
            _ => {}
        }
        Self { authority: address.to_string(), is_tls }
    }

    /// `http://host:port`, or `https://…`
    pub fn base(&self) -> String {
        format!("http{}://{}", self.s(), self.authority)
    }

    fn s(&self) -> &'static str {
        if self.is_tls { "s" } else { "" }
    }

    /// A provider's live connection: `ws://…` or `wss://…`, for the X live pipeline the `http…` of its endless response.
    pub fn ws(&self, provider: Provider) -> String {
        let scheme = if provider == Provider::XLive { "http" } else { "ws" };
        let s = self.s();
        format!("{scheme}{s}://{}{}", self.authority, live_path(provider))
    }

    /// Base address of a provider's requests.
    pub fn rest(&self, _provider: Provider) -> String {
        self.base()
    }

    /// One line of JSON: `base`, `ws` and `rest` for each provider, and with TLS the file of the authority to trust.
    pub fn to_json(&self, ca_file: Option<&Path>) -> String {
        let of = |provider: Provider| {
            let (ws, rest) = (self.ws(provider), self.rest(provider));
            format!(r#""{provider}":{{"ws":"{ws}","rest":"{rest}"}}"#)
        };
        let tls = ca_file.map(|path| format!(r#","tls":{}"#, serde_json::json!({ "ca": path.to_string_lossy() })));
        format!(r#"{{"base":"{}",{}{}}}"#, self.base(), Provider::ALL.map(of).join(","), tls.unwrap_or_default())
    }

    /// For somebody who looks at it with a browser.
    pub(super) fn words(&self) -> String {
        let mut words = "birdtape replay: a fake provider that plays a tape.\n\nLive connections:\n".to_owned();
        for provider in Provider::ALL {
            words += &format!("  {provider}: {}\n", self.ws(provider));
        }
        words + "\nAny key is accepted unless the replay was given one.\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn reads_as_scripts_depend_on() {
        let urls = Urls::new(SocketAddr::from(([127, 0, 0, 1], 4711)), false);
        expect![[r#"{"base":"http://127.0.0.1:4711","twitterapi_io":{"ws":"ws://127.0.0.1:4711/twitter/tweet/websocket","rest":"http://127.0.0.1:4711"},"tweetstream":{"ws":"ws://127.0.0.1:4711/ws","rest":"http://127.0.0.1:4711"},"scrapebadger":{"ws":"ws://127.0.0.1:4711/v1/twitter/stream","rest":"http://127.0.0.1:4711"},"x_live":{"ws":"http://127.0.0.1:4711/live_pipeline/events","rest":"http://127.0.0.1:4711"}}"#]].assert_eq(&urls.to_json(None));
        assert!(serde_json::from_str::<serde_json::Value>(&urls.to_json(None)).is_ok());
        let urls = Urls::new(SocketAddr::from(([127, 0, 0, 1], 4711)), true);
        let json: serde_json::Value = serde_json::from_str(&urls.to_json(Some(Path::new("/tmp/a\"b.pem")))).unwrap();
        let (base, of) = (&json["base"], &json["x_live"]["ws"]);
        assert_eq!((base, of), (&"https://127.0.0.1:4711".into(), &"https://127.0.0.1:4711/live_pipeline/events".into()));
        assert_eq!(
            (&json["tweetstream"]["ws"], &json["tls"]["ca"]),
            (&"wss://127.0.0.1:4711/ws".into(), &"/tmp/a\"b.pem".into())
        );
        assert_eq!(Urls::new("[::]:80".parse().unwrap(), false).base(), "http://[::1]:80");
        assert_eq!(Urls::new("0.0.0.0:80".parse().unwrap(), false).base(), "http://127.0.0.1:80");
    }
}
