//! How values are written: sizes, addresses, choices, secrets.
//!
//! It must not know which setting a value belongs to.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use clap::ValueEnum;
use clap::builder::{StringValueParser, TypedValueParser};
use secrecy::SecretString;
use tidemill_proto::TopicSelector;

use crate::access::{HostName, TrustedHosts};
use crate::limits::{KEPT_BOUNDS_MAX, KeptBound, Network, TrustedProxies};

/// Who is let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AccessMode {
    /// Everybody on this machine, and elsewhere who has the right
    Auto,
    /// Everybody
    Open,
    /// Who has the right to what it does
    Closed,
}

/// Where messages are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Backend {
    /// In this process: they are gone when it ends
    Memory,
    /// In a Valkey or Redis server
    #[value(alias = "redis")]
    Valkey,
}

impl Backend {
    /// Returns the word that stands for the backend.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Valkey => "valkey",
        }
    }
}

/// Whether the server is part of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum InCluster {
    /// It is asked
    Auto,
    /// It is
    True,
    /// It stands alone
    False,
}

/// Where pages of history are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ReadFrom {
    /// On the primary
    Primary,
    /// On a replica, where the primary has one
    Replica,
}

/// Whether TLS is spoken with sentinels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SentinelTls {
    /// As with the server
    Auto,
    /// It is
    True,
    /// It is not
    False,
}

/// How the keys of a topic are written in the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum KeyForm {
    /// With the bare name, as in `stream:topic:orders`
    Plain,
    /// With the name in braces, as in `stream:topic:{orders}`
    Braces,
}

/// What the memory backend does when it is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MemoryFull {
    /// Trim the oldest messages of the largest topic
    Trim,
    /// Refuse new messages
    Refuse,
}

/// What happens while the storage does not tell what limits have left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LimitsAway {
    /// Each node counts by itself, as if it were the only one
    Alone,
    /// What is limited is refused
    Refuse,
}

/// What becomes of limits of applications while the storage cannot be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ApplicationLimitsAway {
    /// Each node counts by itself, as if it were the only one
    Alone,
    /// Nothing passes
    Refuse,
    /// Everything passes
    Allow,
}

/// A text is not a whole number within its bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not a whole number from {least} to {most}; write it in digits alone")]
pub(super) struct NumberError {
    least: u64,
    most: u64,
}

/// Takes a whole number within bounds.
pub(super) fn whole<T>(bounds: RangeInclusive<u64>) -> impl TypedValueParser<Value = T>
where
    T: TryFrom<u64> + Clone + Send + Sync + 'static,
{
    StringValueParser::new().try_map(move |text| {
        let number = text.parse().ok().filter(|number| bounds.contains(number));
        let refused = NumberError { least: *bounds.start(), most: *bounds.end() };
        number.and_then(|number| T::try_from(number).ok()).ok_or(refused)
    })
}

/// A text is not a number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not a size; write a number of bytes above 0, or one with a unit as in 16KiB, 32MiB, 1GiB")]
pub(super) struct BytesError;

/// Parses a number of bytes: digits, then optionally `KiB`, `MiB` or `GiB`.
pub(super) fn parse_bytes(text: &str) -> Result<usize, BytesError> {
    let digits = text.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'_').count();
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "kib" => 10,
        "mib" => 20,
        "gib" => 30,
        _ => return Err(BytesError),
    };
    let number: usize = number.replace('_', "").parse().map_err(|_| BytesError)?;
    number.checked_mul(1 << shift).filter(|bytes| *bytes > 0).ok_or(BytesError)
}

/// A text is not an address to listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "is not an address and port; write 127.0.0.1:8080 for this machine alone, 0.0.0.0:8080 or [::]:8080 for all its networks"
)]
pub(super) struct AddressError;

/// Parses an address and port. `localhost` is the one name that is taken: what it means is certain.
pub(super) fn parse_address(text: &str) -> Result<SocketAddr, AddressError> {
    let numeric = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
    numeric.as_deref().unwrap_or(text).parse().map_err(|_| AddressError)
}

/// Origins of web pages, as browsers write them in the header `Origin`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins(Vec<String>);

impl Origins {
    /// Returns the origins.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

/// A text is not a list of origins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "is not a list of origins; write each as a browser does, as in `https://app.example.com` or `http://localhost:8000`, with commas between them; `*` and `null` are none"
)]
pub(super) struct OriginsError;

/// Parses origins with commas between them, or as a JSON list. Only the exact form is taken: what a
/// browser never sends would never match.
pub(super) fn parse_origins(text: &str) -> Result<Origins, OriginsError> {
    let names = parse_list(text);
    let is_origin = |name: &String| {
        !name.contains('*')
            && url::Url::parse(name)
                .is_ok_and(|url| url.origin().is_tuple() && url.origin().ascii_serialization() == *name)
    };
    if names.iter().all(is_origin) { Ok(Origins(names)) } else { Err(OriginsError) }
}

/// A URL under which others reach the relay, without a slash at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicUrl(String);

impl PublicUrl {
    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns whether it is one of this machine alone.
    #[must_use]
    pub fn is_of_loopback(&self) -> bool {
        let url = url::Url::parse(&self.0).ok();
        url.as_ref().and_then(url::Url::host).is_some_and(|host| match host {
            url::Host::Domain(name) => name == "localhost" || name.ends_with(".localhost"),
            url::Host::Ipv4(address) => address.is_loopback(),
            url::Host::Ipv6(address) => address.to_canonical().is_loopback(),
        })
    }
}

/// A text is not a URL under which others reach the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "is not a URL to reach the relay by; write `https://relay.example.com`, with a path behind it where a proxy has one, and without user, `?` and `#`"
)]
pub(super) struct PublicUrlError;

/// Parses the URL under which others reach the relay.
pub(super) fn parse_public_url(text: &str) -> Result<PublicUrl, PublicUrlError> {
    let url = url::Url::parse(text).map_err(|_| PublicUrlError)?;
    let is_plain = url.username().is_empty() && url.password().is_none();
    let is_whole = matches!(url.scheme(), "http" | "https") && url.has_host();
    if !is_plain || !is_whole || text.contains(['?', '#']) {
        return Err(PublicUrlError);
    }
    Ok(PublicUrl(url.as_str().trim_end_matches('/').to_owned()))
}

/// A text is not a list of hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "is not a list of hosts; write names or addresses without ports, as in `relay.example.com` or `192.0.2.1`, with commas between them, or `*` alone for any"
)]
pub(super) struct HostsError;

/// Parses hosts with commas between them, or as a JSON list.
pub(super) fn parse_hosts(text: &str) -> Result<TrustedHosts, HostsError> {
    let names = parse_list(text);
    if names == ["*"] {
        return Ok(TrustedHosts::Any);
    }
    let names: Option<_> = names.iter().map(|name| HostName::parse(name)).collect();
    names.filter(|names: &Arc<[HostName]>| !names.is_empty()).map(TrustedHosts::Named).ok_or(HostsError)
}

/// A text is not a list of proxies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "is not a list of proxies; write addresses, or networks with their number of bits and nothing behind it, as in `10.0.0.0/8,192.0.2.7`"
)]
pub(super) struct ProxiesError;

/// Parses proxies with commas between them, or as a JSON list.
pub(super) fn parse_proxies(text: &str) -> Result<TrustedProxies, ProxiesError> {
    let networks: Option<Vec<_>> = parse_list(text).iter().map(|text| Network::parse(text)).collect();
    networks.filter(|networks| !networks.is_empty()).map(TrustedProxies::new).ok_or(ProxiesError)
}

/// How many bytes topics may keep together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptBounds(Vec<KeptBound>);

impl KeptBounds {
    /// Returns the bounds.
    #[must_use]
    pub fn as_slice(&self) -> &[KeptBound] {
        &self.0
    }
}

/// A text is not a list of bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "is not a list of bounds; write the name of a topic or a pattern, `=` and a number of bytes, as in `acme.*=10GiB,*=100GiB`, each once, and at most {KEPT_BOUNDS_MAX}"
)]
pub(super) struct KeptBoundsError;

/// Parses bounds with commas between them, or as a JSON list.
pub(super) fn parse_kept(text: &str) -> Result<KeptBounds, KeptBoundsError> {
    let mut bounds: Vec<KeptBound> = Vec::new();
    for bound in parse_list(text) {
        let (topics, bytes) = bound.split_once('=').ok_or(KeptBoundsError)?;
        let topics = TopicSelector::parse(topics.trim()).map_err(|_| KeptBoundsError)?;
        let bytes_max = parse_bytes(bytes.trim()).map_err(|_| KeptBoundsError)? as u64;
        if bounds.len() == KEPT_BOUNDS_MAX || bounds.iter().any(|other| other.topics == topics) {
            return Err(KeptBoundsError);
        }
        bounds.push(KeptBound { topics, bytes_max });
    }
    Ok(KeptBounds(bounds))
}

/// Parses texts with commas between them, or as a JSON list.
fn parse_list(text: &str) -> Vec<String> {
    let split = |_| text.split(',').map(|name| name.trim().to_owned()).collect();
    serde_json::from_str(text).unwrap_or_else(split)
}

/// Takes any text as a secret, so that no error repeats it.
pub(super) fn secret() -> impl TypedValueParser<Value = SecretString> {
    StringValueParser::new().map(SecretString::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_read_in_the_form_that_browsers_send() {
        let two = Origins(vec!["https://a.example".to_owned(), "http://localhost:8000".to_owned()]);
        for text in [
            "https://a.example,http://localhost:8000",
            "https://a.example , http://localhost:8000",
            r#"["https://a.example", "http://localhost:8000"]"#,
        ] {
            assert_eq!(parse_origins(text), Ok(two.clone()), "{text}");
        }
        for text in [
            "*",
            "null",
            "a.example",
            "https://a.example/",
            "https://a.example:443",
            "https://A.example",
            "https://*.example",
            "https://a.example,",
            "file:///tmp",
            "[1]",
        ] {
            assert_eq!(parse_origins(text), Err(OriginsError), "{text}");
        }
    }

    #[test]
    fn the_public_url_has_no_slash_at_its_end() {
        for (text, url) in [
            ("https://relay.example", "https://relay.example"),
            ("https://Relay.example/", "https://relay.example"),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("https://example.org/relay/", "https://example.org/relay"),
        ] {
            assert_eq!(parse_public_url(text).as_ref().map(PublicUrl::as_str), Ok(url), "{text}");
        }
        for text in [
            "",
            "relay.example",
            "relay.example:8080",
            "ftp://relay.example",
            "https://",
            "https://u@relay.example",
            "https://u:p@relay.example",
            "https://relay.example/?",
            "https://relay.example/#",
            "mailto:a@relay.example",
        ] {
            assert_eq!(parse_public_url(text), Err(PublicUrlError), "{text}");
        }
    }

    #[test]
    fn hosts_are_names_without_ports() {
        let named = |names: &[&str]| {
            TrustedHosts::Named(names.iter().map(|name| HostName::parse(name).expect("a host")).collect())
        };
        for (text, hosts) in [
            ("relay.example.com", named(&["relay.example.com"])),
            ("relay , 192.0.2.1", named(&["relay", "192.0.2.1"])),
            ("[::1],::2", named(&["::1", "::2"])),
            (r#"["relay", "[::1]"]"#, named(&["relay", "::1"])),
            ("*", TrustedHosts::Any),
        ] {
            assert_eq!(parse_hosts(text), Ok(hosts), "{text}");
        }
        for text in ["relay:8080", "https://relay", "*.example", "*,relay", "relay,", "a b", "[1]", "[]"] {
            assert_eq!(parse_hosts(text), Err(HostsError), "{text}");
        }
    }

    #[test]
    fn proxies_are_addresses_and_networks() {
        let networks = ["10.0.0.0/8", "::1"].map(|text| Network::parse(text).expect(text));
        for text in ["10.0.0.0/8,::1", " 10.0.0.0/8 , ::1", r#"["10.0.0.0/8", "::1"]"#] {
            assert_eq!(parse_proxies(text), Ok(TrustedProxies::new(networks)), "{text}");
        }
        for text in ["", "*", "proxy.example", "10.0.0.1/8", "10.0.0.0/8,", "[]", "10.0.0.1:80", "[::1]"] {
            assert_eq!(parse_proxies(text), Err(ProxiesError), "{text}");
        }
    }

    #[test]
    fn bounds_are_names_and_patterns_with_bytes() {
        let bound =
            |topics, bytes_max| KeptBound { topics: TopicSelector::parse(topics).expect(topics), bytes_max };
        let two = KeptBounds(vec![bound("acme.*", 10 << 30), bound("jobs", 1_024)]);
        for text in
            ["acme.*=10GiB,jobs=1KiB", " acme.* = 10 GiB , jobs=1024 ", r#"["acme.*=10GiB", "jobs=1024"]"#]
        {
            assert_eq!(parse_kept(text).as_ref(), Ok(&two), "{text}");
        }
        let many: Vec<_> = (0..=KEPT_BOUNDS_MAX).map(|at| format!("t{at}=1")).collect();
        let many = many.join(",");
        for text in ["", "*", "*=", "=1", "*=0", "a b=1", "*=1,", "*=1,*=2", "*=1MB", "keys/*=1", &many] {
            assert_eq!(parse_kept(text), Err(KeptBoundsError), "{text}");
        }
    }

    #[test]
    fn sizes_are_read_in_every_form() {
        let cases = [
            ("1", 1),
            ("1024", 1024),
            ("1_024", 1024),
            ("1KiB", 1024),
            ("1 kib", 1024),
            ("32MiB", 32 << 20),
            ("1GiB", 1 << 30),
            ("7b", 7),
        ];
        for (text, bytes) in cases {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for text in ["", "0", "0MiB", "-1", "1.5MiB", "1MB", "MiB", "_", "18446744073709551615GiB", "1 K iB"]
        {
            assert_eq!(parse_bytes(text), Err(BytesError), "{text}");
        }
    }
}
