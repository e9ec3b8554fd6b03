//! The server's end of an echo, for a suite of other people's: `scripts/conformance` runs it.

use super::*;
use crate::net::testing::{Watch, Watched};

/// Sends every message back, if asked to one byte short.
async fn echo(mut socket: ServerSocket, watch: Watch) {
    let is_spoilt = std::env::var_os("CONFORMANCE_SPOIL").is_some();
    loop {
        match socket.next().await {
            Incoming::Message(bytes) => {
                let bytes = bytes.slice(..bytes.len() - usize::from(is_spoilt && !bytes.is_empty()));
                let message = if watch.is_binary() {
                    Message::Binary(bytes)
                } else {
                    Message::Text(Utf8Bytes::try_from(bytes).expect("a text message is UTF-8"))
                };
                // A peer that is gone is the next message's affair.
                socket.ws.send(message).await.ok();
            }
            Incoming::Alive => {}
            Incoming::Closed { .. } | Incoming::Broken { .. } => return,
        }
    }
}

#[tokio::test]
#[ignore = "needs the suite's client: scripts/conformance"]
async fn echoes() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("listening on {}", listener.local_addr().unwrap().port());
    let options = ServerOptions { message_bytes_max: 16 << 20, ..ServerOptions::default() };
    // The script ends it.
    loop {
        let (tcp, peer) = listener.accept().await.unwrap();
        tcp.set_nodelay(true).unwrap();
        let watch = Watch::default();
        let io = Box::new(Watched::new(tcp, watch.clone()));
        let handler = move |_: ServerRequest| {
            let watch = watch.clone();
            async move {
                let run = Box::new(|socket| Box::pin(echo(socket, watch)) as BoxFuture<'static, ()>);
                Reply::WebSocket { subprotocol: None, run }
            }
        };
        tokio::spawn(serve_pipe(io, peer, Arc::new(handler), options.clone()));
    }
}
