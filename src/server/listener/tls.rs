//! Connections with TLS, over those of another listener.

use std::fmt;
use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use tidemill_tls::ServerTls;

use super::{Accepted, Bound, Listen, Listener};
use crate::link::Tls;

/// Where to listen for connections that are encrypted.
#[derive(Debug)]
pub struct TlsListen {
    over: Arc<dyn Listen>,
    tls: ServerTls,
}

#[derive(Debug)]
struct Open {
    over: Box<dyn Listener>,
    tls: ServerTls,
    bound: Bound,
}

impl TlsListen {
    /// Returns the entry of a listener with TLS in the list of a server's listeners.
    #[must_use]
    pub fn over(over: Arc<dyn Listen>, tls: ServerTls) -> Arc<dyn Listen> {
        Arc::new(Self { over, tls })
    }
}

impl fmt::Display for TlsListen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.over.fmt(f)
    }
}

#[async_trait]
impl Listen for TlsListen {
    async fn bind(&self) -> io::Result<Box<dyn Listener>> {
        let over = self.over.bind().await?;
        let Bound { url, address } = over.bound();
        let bound = Bound { url: url.replacen("http://", "https://", 1), address: *address };
        Ok(Box::new(Open { over, tls: self.tls.clone(), bound }))
    }
}

#[async_trait]
impl Listener for Open {
    fn bound(&self) -> &Bound {
        &self.bound
    }

    async fn accept(&self) -> io::Result<Accepted> {
        let Accepted { transport, from } = self.over.accept().await?;
        let session = self.tls.session().map_err(io::Error::other)?;
        Ok(Accepted { transport: Box::new(Tls::over(transport, session)), from })
    }
}
