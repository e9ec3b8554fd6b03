//! Where the replay is reached.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::model::Provider;
use crate::provider::live_path;

/// Addresses of the fake providers: what a client is given instead of the real ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Urls {
    authority: String,
}

impl Urls {
    /// Of a server on that address; one that listens everywhere is reached on loopback.
    pub(super) fn new(mut address: SocketAddr) -> Self {
        match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
            IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
            _ => {}
        }
        Self { authority: address.to_string() }
    }

    /// `http://host:port`
    pub fn base(&self) -> String {
        format!("http://{}", self.authority)
    }

    /// A provider's live connection: `ws://…`, for the X live pipeline the `http://…` of its endless response.
    pub fn ws(&self, provider: Provider) -> String {
        let scheme = if provider == Provider::XLive { "http" } else { "ws" };
        format!("{scheme}://{}{}", self.authority, live_path(provider))
    }

    /// Base address of a provider's requests.
    pub fn rest(&self, _provider: Provider) -> String {
        self.base()
    }

    /// One line of JSON: `base`, and `ws` and `rest` for each provider.
    pub fn to_json(&self) -> String {
        let of = |provider: Provider| {
            let (ws, rest) = (self.ws(provider), self.rest(provider));
            format!(r#""{provider}":{{"ws":"{ws}","rest":"{rest}"}}"#)
        };
        format!(r#"{{"base":"{}",{}}}"#, self.base(), Provider::ALL.map(of).join(","))
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
        let urls = Urls::new(SocketAddr::from(([127, 0, 0, 1], 4711)));
        expect![[r#"{"base":"http://127.0.0.1:4711","twitterapi_io":{"ws":"ws://127.0.0.1:4711/twitter/tweet/websocket","rest":"http://127.0.0.1:4711"},"tweetstream":{"ws":"ws://127.0.0.1:4711/ws","rest":"http://127.0.0.1:4711"},"scrapebadger":{"ws":"ws://127.0.0.1:4711/v1/twitter/stream","rest":"http://127.0.0.1:4711"},"x_live":{"ws":"http://127.0.0.1:4711/live_pipeline/events","rest":"http://127.0.0.1:4711"}}"#]].assert_eq(&urls.to_json());
        assert!(serde_json::from_str::<serde_json::Value>(&urls.to_json()).is_ok());
        assert_eq!(Urls::new("[::]:80".parse().unwrap()).base(), "http://[::1]:80");
        assert_eq!(Urls::new("0.0.0.0:80".parse().unwrap()).base(), "http://127.0.0.1:80");
    }
}
