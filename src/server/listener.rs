//! Where connections come from: a server has a list of these, and takes connections of all alike.
//!
//! It owns what every kind keeps to. It must not know a particular kind, nor what becomes of connections:
//! one more kind is a file beside `listener/tcp.rs`, and a line where the list is made.

mod tcp;
mod tls;

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};

use async_trait::async_trait;

use crate::link::Transport;

pub use tcp::TcpListen;
pub use tls::TlsListen;

/// Where to listen, and for which kind of connection. It is shown as its operator set it.
#[async_trait]
pub trait Listen: fmt::Debug + fmt::Display + Send + Sync + 'static {
    /// Listens. Connections wait until the server runs.
    ///
    /// # Errors
    /// It cannot be listened there.
    async fn bind(&self) -> io::Result<Box<dyn Listener>>;
}

/// What listens, until it is dropped.
#[async_trait]
pub trait Listener: fmt::Debug + Send + Sync + 'static {
    /// Returns where it listens.
    fn bound(&self) -> &Bound;

    /// Waits for a connection. What a kind agrees on with its client is the transport's: who says
    /// nothing must keep nobody waiting here.
    ///
    /// # Errors
    /// There is none to be had now. The next call may have one.
    ///
    /// # Cancel safety
    /// Cancel-safe: no connection is lost.
    async fn accept(&self) -> io::Result<Accepted>;
}

/// Where a listener listens: port 0 has become a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Its URL, as a client on this machine writes it.
    pub url: String,
    /// Its address; `None` if it has none, as a Unix socket.
    pub address: Option<SocketAddr>,
}

/// A connection that has come.
#[derive(Debug)]
pub struct Accepted {
    /// What carries its bytes.
    pub transport: Box<dyn Transport>,
    /// The address that it came from; `None` if it has none, as on a Unix socket.
    pub from: Option<IpAddr>,
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}
