//! The client's end of an echo, for a suite of other people's: `scripts/conformance` runs it.

use super::*;
use crate::model::{Endpoint, Opening, Secret, Transport};
use crate::net::testing::{Watch, Watched};
use crate::net::{BoxedIo, Connecting, Network, open};

/// A network that tells of every message whether it is binary.
struct Watching(Watch);

impl Network for Watching {
    fn connect<'a>(&'a self, endpoint: &'a Endpoint) -> Connecting<'a> {
        let watch = self.0.clone();
        Box::pin(async move {
            let tcp = tokio::net::TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await.unwrap();
            tcp.set_nodelay(true).unwrap();
            Ok(Box::new(Watched::new(tcp, watch)) as BoxedIo)
        })
    }
}

/// Opens a connection and sends every message back until it ends, if asked to one byte short; gives the last of them.
async fn echo(port: u16, target: &str) -> Option<Bytes> {
    let is_spoilt = std::env::var_os("CONFORMANCE_SPOIL").is_some();
    let watch = Watch::default();
    let opening = Opening {
        transport: Transport::WebSocket,
        endpoint: Endpoint { tls: false, host: "127.0.0.1".to_owned(), port },
        target: Secret::new(target).unwrap(),
        headers: Vec::new(),
        shown: String::new(),
    };
    // The suite does one thing at a time, and some of them take long.
    let patience = Duration::from_secs(300);
    let limits = Limits { handshake_timeout: patience, message_timeout: patience, send_timeout: patience, ..Limits::default() };
    let mut live = open(&Watching(watch.clone()), &opening, &limits).await.unwrap().live;
    let mut last = None;
    loop {
        match live.next().await {
            Incoming::Message(bytes) => {
                let back = bytes.slice(..bytes.len() - usize::from(is_spoilt && !bytes.is_empty()));
                let message = if watch.is_binary() {
                    Message::Binary(back)
                } else {
                    Message::Text(Utf8Bytes::try_from(back).expect("a text message is UTF-8"))
                };
                // A peer that is gone is the next message's affair.
                live.socket().unwrap().send(message).await.ok();
                last = Some(bytes);
            }
            Incoming::Alive => {}
            Incoming::Closed { .. } | Incoming::Broken { .. } => return last,
        }
    }
}

#[tokio::test]
#[ignore = "needs the suite's server: scripts/conformance"]
async fn echoes() {
    let port = std::env::var("CONFORMANCE_PORT").expect("scripts/conformance sets it").parse().unwrap();
    let count = echo(port, "/getCaseCount").await.expect("the suite says how many cases it has");
    let count: u32 = std::str::from_utf8(&count).unwrap().parse().unwrap();
    for case in 1..=count {
        echo(port, &format!("/runCase?case={case}&agent=birdtape")).await;
    }
    echo(port, "/updateReports?agent=birdtape").await;
}
