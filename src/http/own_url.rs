//! The URL under which others reach the relay, for what they are told to open, and for what is theirs alone who come
//! from there.
//!
//! It must not know what is told.

use axum::extract::Request;
use axum::http::HeaderValue;
use axum::http::header::HOST;
use axum::http::uri::Authority;

use super::Http;
use crate::limits::Peer;

/// Under which URL others reach the relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnUrl {
    /// Under this one, which has no slash at its end.
    Named(String),
    /// Under the host that they have asked for, over TLS or not.
    AsAsked {
        /// Whether the relay speaks TLS. Where it does not, a proxy that is trusted may say that it does itself.
        tls: bool,
    },
}

impl Http {
    /// Returns the URL under which whoever sent a request reaches the relay, without a slash at its end.
    pub(super) fn own_url(&self, request: &Request) -> String {
        match &self.0.options.own_url {
            OwnUrl::Named(url) => url.clone(),
            OwnUrl::AsAsked { tls } => {
                let uri = request.uri();
                let host = request.headers().get(HOST).and_then(|host| host.to_str().ok());
                // HTTP/1.0 knows requests without a host.
                let host = uri.authority().map(Authority::as_str).or(host).unwrap_or("localhost");
                let scheme = if *tls || self.proxy_speaks_tls(request) { "https" } else { "http" };
                format!("{scheme}://{host}")
            }
        }
    }

    fn proxy_speaks_tls(&self, request: &Request) -> bool {
        let peer = request.extensions().get::<Peer>().and_then(|peer| peer.0);
        let lines = |name| request.headers().get_all(name).iter().map(HeaderValue::as_bytes);
        self.0.entrance.is_encrypted(peer, lines)
    }
}
