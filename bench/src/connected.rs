//! A connection of either kind: over HTTP, or to a bare server.

use crate::target::{Kind, Target};
use crate::{http, resp};

/// An open connection.
#[derive(Debug)]
pub(crate) enum Connected {
    /// Over HTTP.
    Http(http::Connection),
    /// To a bare server.
    Server(resp::Connection),
}

impl Connected {
    /// Opens a connection of the kind that the target takes.
    pub(crate) async fn open(target: &Target) -> Result<Self, String> {
        Ok(match target.kind {
            Kind::Relay | Kind::Plain => Self::Http(http::Connection::open(target).await?),
            Kind::Server => Self::Server(resp::Connection::open(target, 0).await?),
        })
    }
}
