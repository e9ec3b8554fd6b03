//! A gate in front of a server: forwards TCP until it is shut, and again once it is opened.
//!
//! For the demo and for tests: shutting it is the outage that a client sees, while the server behind it goes on.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Forwards connections from one address of this machine to another while it is open.
#[derive(Debug)]
pub struct Gate {
    addr: SocketAddr,
    open: Arc<watch::Sender<bool>>,
    task: JoinHandle<()>,
}

impl Gate {
    /// Listens on a free loopback port and forwards to `target`; begins open.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn open(target: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let addr = listener.local_addr()?;
        let (open, seen) = watch::channel(true);
        let task = tokio::spawn(forward(listener, target, seen));
        Ok(Self { addr, open: Arc::new(open), task })
    }

    /// Where clients connect.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Cuts every connection and refuses new ones.
    pub fn shut(&self) {
        self.open.send_replace(false);
    }

    /// Lets clients through again.
    pub fn reopen(&self) {
        self.open.send_replace(true);
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn forward(listener: TcpListener, target: SocketAddr, open: watch::Receiver<bool>) {
    while let Ok((client, _)) = listener.accept().await {
        let mut open = open.clone();
        if !*open.borrow_and_update() {
            reset(&client);
            continue;
        }
        tokio::spawn(async move {
            let mut client = client;
            let Ok(mut server) = TcpStream::connect(target).await else { return };
            // Small messages must not wait for each other on either side; where it cannot be set they merely do.
            drop(client.set_nodelay(true).and_then(|()| server.set_nodelay(true)));
            tokio::select! {
                _ = copy_bidirectional(&mut client, &mut server) => {}
                _ = open.wait_for(|open| !open) => reset(&client),
            }
        });
    }
}

/// Makes closing this socket a reset instead of a farewell.
fn reset(socket: &TcpStream) {
    drop(socket.set_zero_linger());
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_shut_gate_cuts_and_refuses_and_opens_again() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = server.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = server.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = socket.split();
                    tokio::io::copy(&mut read, &mut write).await
                });
            }
        });
        let gate = Gate::open(target).await.unwrap();
        let mut buffer = [0; 2];
        let mut client = TcpStream::connect(gate.addr()).await.unwrap();
        client.write_all(b"hi").await.unwrap();
        client.read_exact(&mut buffer).await.unwrap();
        assert_eq!(&buffer, b"hi");
        gate.shut();
        assert!(client.read_exact(&mut buffer).await.is_err(), "cut");
        let mut client = TcpStream::connect(gate.addr()).await.unwrap();
        assert!(!matches!(client.read(&mut buffer).await, Ok(n) if n > 0), "refused");
        gate.reopen();
        let mut client = TcpStream::connect(gate.addr()).await.unwrap();
        client.write_all(b"ho").await.unwrap();
        client.read_exact(&mut buffer).await.unwrap();
        assert_eq!(&buffer, b"ho");
    }
}
