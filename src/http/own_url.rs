//! The URL under which others reach the relay, for what they are told to open.
//!
//! It must not know what is told.

use axum::extract::Request;
use axum::http::header::HOST;
use axum::http::uri::Authority;

/// Under which URL others reach the relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnUrl {
    /// Under this one, which has no slash at its end.
    Named(String),
    /// Under the host that they have asked for, over TLS or not.
    AsAsked {
        /// Whether the relay speaks TLS.
        tls: bool,
    },
}

impl OwnUrl {
    /// Returns it, without a slash at its end, for whoever sent a request.
    pub(super) fn of(&self, request: &Request) -> String {
        match self {
            Self::Named(url) => url.clone(),
            Self::AsAsked { tls } => {
                let uri = request.uri();
                let host = request.headers().get(HOST).and_then(|host| host.to_str().ok());
                // HTTP/1.0 knows requests without a host.
                let host = uri.authority().map(Authority::as_str).or(host).unwrap_or("localhost");
                format!("{}://{host}", if *tls { "https" } else { "http" })
            }
        }
    }
}
