//! Connections of plain TCP.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener};
use std::sync::Arc;

use async_trait::async_trait;
use tokio::net::TcpListener;

use super::{Accepted, Bound, Listen, Listener};
use crate::link::Tcp;

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

impl fmt::Display for TcpListen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

#[async_trait]
impl Listen for TcpListen {
    async fn bind(&self) -> io::Result<Box<dyn Listener>> {
        let listener = match &self.handed {
            None => TcpListener::bind(self.address).await?,
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
