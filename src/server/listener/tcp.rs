//! Connections of plain TCP.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener};
use std::sync::Arc;

use async_trait::async_trait;
use tokio::net::{TcpListener, TcpSocket};

use super::{Accepted, Bound, Listen, Listener};
use crate::link::Tcp;

/// How many connections wait to be accepted, where the kernel lets as many wait (`net.core.somaxconn`, which is this by
/// default). A crowd comes at once where a relay was started again; who finds no room is let in only when it tries
/// again by itself, which takes seconds, then minutes. The 128 that is usual is full within some milliseconds.
const BACKLOG: u32 = 4096;

/// An address to listen on; port 0 takes any free one.
#[derive(Debug)]
pub struct TcpListen {
    address: SocketAddr,
    /// What listens there already, and goes on when this process has ended.
    handed: Option<StdTcpListener>,
}

#[derive(Debug)]
struct Open {
    listener: TcpListener,
    bound: Bound,
}

impl TcpListen {
    /// Returns the entry of this address in the list of a server's listeners.
    #[must_use]
    pub fn at(address: SocketAddr) -> Arc<dyn Listen> {
        Arc::new(Self { address, handed: None })
    }

    /// Returns the same of an address where others listen, who have handed their socket over.
    #[must_use]
    pub fn on(address: SocketAddr, handed: StdTcpListener) -> Arc<dyn Listen> {
        Arc::new(Self { address, handed: Some(handed) })
    }
}

/// Listens at an address, also where connections of a process before this one are not forgotten yet.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

impl fmt::Display for TcpListen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

#[async_trait]
impl Listen for TcpListen {
    async fn bind(&self) -> io::Result<Box<dyn Listener>> {
        let listener = match &self.handed {
            None => listen(self.address)?,
            Some(handed) => {
                let own = handed.try_clone()?;
                own.set_nonblocking(true)?;
                TcpListener::from_std(own)?
            }
        };
        let address = listener.local_addr()?;
        let bound = Bound { url: format!("http://{address}"), address: Some(address) };
        Ok(Box::new(Open { listener, bound }))
    }
}

#[async_trait]
impl Listener for Open {
    fn bound(&self) -> &Bound {
        &self.bound
    }

    async fn accept(&self) -> io::Result<Accepted> {
        let (stream, peer) = self.listener.accept().await?;
        Ok(Accepted { transport: Box::new(Tcp::new(stream)), from: Some(peer.ip()) })
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use tokio::net::TcpStream;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn a_crowd_waits_for_a_relay_that_is_busy() {
        let listener = TcpListen::at((Ipv4Addr::LOCALHOST, 0).into()).bind().await.expect("a free port");
        let address = listener.bound().address.expect("it has one");
        // Nobody accepts. The kernel tries one that found no room again after a second.
        let mut crowd = Vec::new();
        for _ in 0..500 {
            let came = timeout(Duration::from_millis(900), TcpStream::connect(address)).await;
            crowd.push(came.expect("there is room").expect("it listens"));
        }
    }
}
