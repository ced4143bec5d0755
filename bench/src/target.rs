//! The target: where the load goes, and whether it may go there.
//!
//! It must not know what is sent.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream};
use url::Url;

use crate::error::BenchError;

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(5);

/// What listens there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A relay, over HTTP.
    Relay,
    /// A bare Valkey or Redis server.
    Server,
    /// A server that takes a message as the body of a POST, and sends it as a frame of a WebSocket.
    Plain,
}

/// The paths of a plain server. `{topic}` in them stands for the name of a topic.
#[derive(Clone, Debug)]
pub(crate) struct Paths {
    /// Where a message is posted to.
    pub(crate) publish: String,
    /// Where a WebSocket is opened that gets the messages of one topic.
    pub(crate) subscribe: String,
}

/// What stands for the name of a topic in a path.
pub(crate) const TOPIC_PLACE: &str = "{topic}";

/// Where the load goes.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// What listens there.
    pub(crate) kind: Kind,
    /// The one address that is used.
    pub(crate) address: SocketAddr,
    /// The URL without a password.
    pub(crate) name: String,
    /// The value of the header `Host`.
    pub(crate) host: String,
    /// The path in front of every path of the relay, without a slash at its end.
    pub(crate) base: String,
    /// User and password for a bare server.
    pub(crate) login: Option<(String, String)>,
    /// The database of a bare server.
    pub(crate) database: Option<u16>,
    /// The paths of a plain server.
    pub(crate) paths: Option<Paths>,
}

impl Target {
    /// Reads a URL and looks its host up. With `paths`, what listens there is a plain server.
    ///
    /// # Errors
    /// It is none that can be loaded, or leads to another machine without `allow_remote`.
    pub(crate) fn parse(url: &str, paths: Option<Paths>, allow_remote: bool) -> Result<Self, BenchError> {
        let usage = |rule: String| BenchError::Usage(rule);
        let parsed = Url::parse(url)
            .map_err(|_| usage(format!("{url:?} is no URL; write http://host:port or redis://host:port")))?;
        let (kind, port) = match parsed.scheme() {
            "http" if paths.is_some() => (Kind::Plain, 80),
            "http" => (Kind::Relay, 80),
            "redis" | "valkey" if paths.is_none() => (Kind::Server, 6379),
            "https" | "rediss" | "valkeys" => {
                let rule = "load is not sent over TLS: most of what was measured would be the cipher; \
                            name the port without it";
                return Err(usage(rule.to_owned()));
            }
            other => {
                let schemes = if paths.is_some() { "http" } else { "http, redis or valkey" };
                return Err(usage(format!("a URL starts with {schemes}, not with {other}")));
            }
        };
        let host = parsed.host_str().ok_or_else(|| usage(format!("{url:?} names no host")))?;
        let port = parsed.port().unwrap_or(port);
        let addresses: Vec<SocketAddr> = (host.trim_matches(['[', ']']), port)
            .to_socket_addrs()
            .map_err(|cause| BenchError::Unreachable { host: host.to_owned(), why: cause.to_string() })?
            .collect();
        if !allow_remote && addresses.iter().any(|address| !address.ip().is_loopback()) {
            let rule = format!(
                "{host} is not this machine: load can put others out of service; \
                 if it is yours, add --allow-remote"
            );
            return Err(usage(rule));
        }
        // The relay listens on 127.0.0.1 unless told otherwise, and `localhost` may name both.
        let address = addresses.iter().find(|address| address.is_ipv4()).or(addresses.first());
        let address = *address.ok_or_else(|| usage(format!("{host} has no address")))?;
        let path = parsed.path().trim_end_matches('/');
        let (base, database) = match kind {
            Kind::Relay | Kind::Plain => (path.to_owned(), None),
            Kind::Server if path.is_empty() => (String::new(), None),
            Kind::Server => match path.trim_start_matches('/').parse() {
                Ok(number) => (String::new(), Some(number)),
                Err(_) => return Err(usage(format!("{path:?} is no number of a database"))),
            },
        };
        let login = parsed.password().map(|password| (parsed.username().to_owned(), password.to_owned()));
        let name = format!("{}://{host}:{port}{path}", parsed.scheme());
        Ok(Self { kind, address, name, host: format!("{host}:{port}"), base, login, database, paths })
    }

    /// Opens a connection. With `number`, it comes from an address of its own for every 5,000
    /// connections to a loopback address: one has only so many ports, and a relay lets only so many in.
    pub(crate) async fn connect(&self, number: usize) -> Result<TcpStream, String> {
        const PER_ADDRESS: usize = 5_000;
        let open = async {
            let socket = if self.address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
            let block = number / PER_ADDRESS;
            if block > 0 && self.address.is_ipv4() && self.address.ip().is_loopback() {
                let last = u8::try_from(block + 1).unwrap_or(u8::MAX);
                socket.bind(SocketAddr::from(([127, 0, 0, last], 0)))?;
            }
            let stream = socket.connect(self.address).await?;
            stream.set_nodelay(true)?;
            Ok(stream)
        };
        match tokio::time::timeout(CONNECT, open).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(describe("cannot connect", &error)),
            Err(_) => Err("cannot connect: it took too long".to_owned()),
        }
    }
}

/// Returns what failed, by kind: texts of errors are counted, so they must not differ without reason.
pub(crate) fn describe(what: &str, error: &std::io::Error) -> String {
    format!("{what}: {}", error.kind())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_both_kinds_are_read() {
        let relay = Target::parse("http://127.0.0.1:8080/relay/", None, false).expect("a URL");
        assert_eq!((relay.kind, relay.base.as_str()), (Kind::Relay, "/relay"));
        assert_eq!(relay.host, "127.0.0.1:8080");
        let server = Target::parse("valkey://me:secret@localhost/3", None, false).expect("a URL");
        assert_eq!((server.kind, server.address.port()), (Kind::Server, 6379));
        assert_eq!((server.database, server.name.contains("secret")), (Some(3), false));
        assert_eq!(server.login, Some(("me".to_owned(), "secret".to_owned())));
    }

    #[test]
    fn with_paths_it_is_a_plain_server_over_http() {
        let paths =
            || Some(Paths { publish: "/pub/{topic}".to_owned(), subscribe: "/sub/{topic}".to_owned() });
        let plain = Target::parse("http://127.0.0.1:8080", paths(), false).expect("a URL");
        assert_eq!((plain.kind, plain.paths.is_some()), (Kind::Plain, true));
        assert!(Target::parse("redis://127.0.0.1", paths(), false).is_err());
    }

    #[test]
    fn others_are_not_loaded_by_mistake() {
        for url in ["http://192.0.2.1:8080", "redis://[2001:db8::1]", "http://0.0.0.0:1"] {
            let refused = Target::parse(url, None, false).expect_err(url);
            assert!(refused.to_string().contains("--allow-remote"), "{refused}");
            assert!(Target::parse(url, None, true).is_ok(), "{url}");
        }
        for url in ["https://127.0.0.1", "ftp://127.0.0.1", "127.0.0.1:80", "redis://127.0.0.1/x"] {
            assert!(matches!(Target::parse(url, None, false), Err(BenchError::Usage(_))), "{url}");
        }
    }
}
