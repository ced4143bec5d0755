//! Where a relay is and how a client behaves: the parts of a client that are set.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::time::Duration;

use secrecy::SecretString;
use url::Url;

use crate::error::ClientError;

/// How frames are encoded. The two say the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// JSON text.
    #[default]
    Json,
    /// Binary, with the subprotocol `tidemill.bincode.v1`: fewer bytes, and cheaper at both ends.
    Binary,
}

/// How a client behaves. The defaults are right for most.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// How frames are encoded.
    pub encoding: Encoding,
    /// How long connecting may take, from the first packet to the end of the handshake.
    pub connect_timeout: Duration,
    /// How long a connection may be silent until it counts as dead. After half of it the client asks
    /// for a sign of life.
    pub silence_max: Duration,
    /// Longest wait before the first attempt to connect again; it doubles with each further attempt.
    /// The wait is chosen at random between nothing and this.
    pub backoff_first: Duration,
    /// Where the longest wait stops to double.
    pub backoff_max: Duration,
    /// Sent with the handshake, as the subprotocol `bearer`.
    pub token: Option<SecretString>,
    /// Headers that are sent with the handshake, for a proxy in front of the relay: names and values.
    pub headers: Vec<(String, SecretString)>,
    /// Certificates (PEM) to trust in place of the system's, where the relay speaks TLS.
    pub roots_pem: Option<Vec<u8>>,
    /// Largest frame that is read: above the largest message, in its encoding.
    pub frame_bytes_max: usize,
    /// The client's own name, for the relay's log.
    pub client_id: Option<String>,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            encoding: Encoding::Json,
            connect_timeout: Duration::from_secs(5),
            silence_max: Duration::from_secs(45),
            backoff_first: Duration::from_millis(250),
            backoff_max: Duration::from_secs(10),
            token: None,
            headers: Vec::new(),
            roots_pem: None,
            frame_bytes_max: 64 * 1024 * 1024,
            client_id: None,
        }
    }
}

/// How a publisher behaves.
#[derive(Clone, Copy, Debug)]
pub struct PublisherOptions {
    /// Most publishes under way; at least 1. With 1, each waits for the one before, and the order holds
    /// even where the relay asks for a message again.
    pub window: usize,
    /// Most payload bytes under way; one message is sent whatever it weighs.
    pub window_bytes: usize,
    /// Whether messages without an idempotency key get one, so that they can be sent again without a
    /// copy. The relay remembers each for ten minutes, and may not have room for more: see
    /// [`goes_without_keys`](crate::Publisher::goes_without_keys).
    pub make_keys: bool,
    /// Whether a message without a key is sent again, too, when the connection breaks before its answer: it is
    /// then kept at least once, and maybe twice. Else it ends as [`ClientError::Unknown`].
    pub repeat_unkeyed: bool,
    /// How long the relay may be away, while messages wait, until the publisher gives up. And for how long a message
    /// that the relay refuses for the moment is sent again, until it is given up: one that the relay asks for only
    /// later than that, at once.
    pub give_up_after: Duration,
}

impl Default for PublisherOptions {
    fn default() -> Self {
        Self {
            window: 256,
            window_bytes: 8 * 1024 * 1024,
            make_keys: true,
            repeat_unkeyed: false,
            give_up_after: Duration::from_mins(1),
        }
    }
}

/// Where a relay is.
#[derive(Clone, Debug)]
pub(crate) struct Address {
    /// The URL of the WebSocket.
    pub(crate) url: Url,
    /// The URL as it was given, without a password.
    pub(crate) name: String,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) tls: bool,
}

impl Address {
    pub(crate) fn parse(text: &str) -> Result<Self, ClientError> {
        let usage =
            |rule: &str| ClientError::Usage(format!("the relay's URL {rule}; write http://host:port"));
        let mut url = Url::parse(text).map_err(|_| usage("is not one"))?;
        let tls = match url.scheme() {
            "http" | "ws" => false,
            "https" | "wss" => true,
            _ => return Err(usage("does not start with http://, https://, ws:// or wss://")),
        };
        if url.query().is_some() || url.fragment().is_some() {
            return Err(usage("has a query or a fragment"));
        }
        let host = url.host_str().ok_or_else(|| usage("has no host"))?;
        // A literal IPv6 address stands in brackets, which no resolver knows.
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = url.port_or_known_default().ok_or_else(|| usage("has no port"))?;
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().push("ws");
        }
        let scheme = if tls { "wss" } else { "ws" };
        url.set_scheme(scheme).map_err(|()| usage("cannot be used"))?;
        let mut name = Url::parse(text).map_err(|_| usage("is not one"))?;
        let _ = (name.set_password(None), name.set_username(""));
        let name = name.as_str().trim_end_matches('/').to_owned();
        Ok(Self { url, name, host, port, tls })
    }
}

/// Waits between attempts, at random, so that clients that lost the same relay do not come back as one.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    first: Duration,
    max: Duration,
    attempts: u32,
}

impl Backoff {
    pub(crate) fn new(options: &ClientOptions) -> Self {
        Self { first: options.backoff_first, max: options.backoff_max, attempts: 0 }
    }

    /// Returns how long to wait before the next attempt.
    pub(crate) fn pause(&mut self) -> Duration {
        let bound = self.first.saturating_mul(1 << self.attempts.min(16)).min(self.max);
        self.attempts = self.attempts.saturating_add(1);
        let nanos = u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(random() % nanos.saturating_add(1).max(1))
    }

    /// Starts anew: what was tried has worked.
    pub(crate) fn reset(&mut self) {
        self.attempts = 0;
    }
}

/// Returns a random number: each of these hashers is seeded by the operating system.
pub(crate) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_is_named_by_any_of_its_urls() {
        let cases = [
            ("http://h:8080", "ws://h:8080/ws", "h", 8080),
            ("https://h", "wss://h/ws", "h", 443),
            ("ws://[::1]:1/", "ws://[::1]:1/ws", "::1", 1),
            ("http://u:p@h/a/b/", "ws://u:p@h/a/b/ws", "h", 80),
        ];
        for (text, url, host, port) in cases {
            let address = Address::parse(text).expect(text);
            assert_eq!((address.url.as_str(), address.host.as_str(), address.port), (url, host, port));
            assert!(!address.name.contains("u:p"));
        }
        for text in ["h:8080", "ftp://h", "http://h/?a", "http://h/#a", ""] {
            assert!(matches!(Address::parse(text), Err(ClientError::Usage(_))), "{text}");
        }
    }

    #[test]
    fn waits_grow_to_a_bound_and_are_spread() {
        let options = ClientOptions { backoff_max: Duration::from_secs(2), ..ClientOptions::default() };
        let mut backoff = Backoff::new(&options);
        for bound_ms in [250, 500, 1_000, 2_000, 2_000] {
            assert!(backoff.pause() <= Duration::from_millis(bound_ms));
        }
        let pauses: std::collections::HashSet<_> = (0..20).map(|_| backoff.pause()).collect();
        assert!(pauses.len() > 10, "{pauses:?}");
        backoff.reset();
        assert!(backoff.pause() <= options.backoff_first);
    }
}
