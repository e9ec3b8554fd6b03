//! The way to the outside: sockets, TLS, HTTP, WebSocket, and the clocks.
//!
//! Owns everything that waits for the world: dialling, opening a live connection, one request beside
//! it, the replay's server, and the only readings of the clock. Carries [`Opening`](crate::model::Opening),
//! [`Request`](crate::model::Request) and bytes; knows nothing of providers, tweets or the tape, never
//! follows a redirect, never shows a key, and retries nothing but a `GET` over a kept connection that was closed meanwhile.
//!
//! | file | holds |
//! | --- | --- |
//! | `clock.rs` | [`Clock`], [`ConnectionClock`]: stamps that never go backwards |
//! | `network.rs` | [`Network`], the seam for tests, and [`SystemNetwork`]: names, TCP, TLS |
//! | `pool.rs` | requests of [`SystemNetwork`]: connections that are kept, HTTP/2, proxies; a client for libraries |
//! | `client.rs` | [`open`], and [`request`] whatever carries it |
//! | `live.rs` | [`Live`]: an open WebSocket or endless response, as [`Incoming`] messages |
//! | `tee.rs` | the copy below the decoder, so that what breaks it is kept |
//! | `lines.rs` | server-sent events and JSON lines out of a response |
//! | `redact.rs` | finds keys again in what comes back |
//! | `server.rs` | [`serve`] and [`serve_pipe`]: the replay's HTTP server with [`ServerSocket`] and [`ServerStream`] |
//! | `tls.rs` | [`ServerTls`]: the server's throw-away certificate, and its streams |
//! | `gate.rs` | [`Gate`]: an outage on demand, for the demo and tests |
//! | `control.rs` | [`ControlListener`]: the operator's commands to a running recorder |
//! | `errors.rs` | what can fail before bytes flow |
//!
//! The handshake is our own, over hyper: the WebSocket library's would log keys and insists on a
//! subprotocol in the answer, which RFC 6455 does not.
//! No compression is offered, so none has to be bounded; a frame that uses it is malformed.
//! May be used by the jobs (record, backfill, replay, export); network crates and the clock are named nowhere else.

mod client;
mod clock;
mod control;
mod errors;
mod gate;
mod lines;
mod live;
mod network;
mod pool;
mod redact;
mod server;
mod tee;
#[cfg(test)]
mod testing;
mod tls;

pub use client::{Limits, Opened, TELLING_HEADERS, open, request};
pub use clock::{BootReading, Clock, ConnectionClock, SystemClock, now};
pub use control::{ControlListener, ControlStream, control_call};
pub use errors::{Failure, Gone, OpenError, SetupError};
pub use gate::Gate;
pub use live::{Incoming, Live};
pub use network::{BoxedIo, Connecting, Exchanging, Io, Network, SystemNetwork, TlsOptions};
pub use pool::bare_client;
pub use server::{
    Handler, HandshakeFlaw, Reply, ServerOptions, ServerRequest, ServerSocket, ServerStream, SocketRun, StreamRun, serve,
    serve_pipe,
};
pub use tls::ServerTls;
