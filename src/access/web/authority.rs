//! Hosts and their ports, as headers, origins and settings write them.
//!
//! It must not know who may do what.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Longest host name in bytes (RFC 1035 section 2.3.4).
const HOST_BYTES_MAX: usize = 255;

/// A host as operators and URLs name it: a name in small letters without a dot at its end, or an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostName(Owned);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Owned {
    Name(Box<str>),
    Address(IpAddr),
}

/// A host and its port, as a URL has them (RFC 3986 section 3.2), without the characters that no host has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Authority<'a> {
    pub(super) host: Host<'a>,
    port: Option<u16>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Host<'a> {
    /// Without a dot at its end.
    Name(&'a str),
    Address(IpAddr),
}

impl Host<'_> {
    pub(super) fn is(self, other: Host<'_>) -> bool {
        match (self, other) {
            (Host::Name(one), Host::Name(other)) => one.eq_ignore_ascii_case(other),
            (Host::Address(one), Host::Address(other)) => one == other,
            (Host::Name(_), Host::Address(_)) | (Host::Address(_), Host::Name(_)) => false,
        }
    }

    pub(super) fn is_loopback(self) -> bool {
        match self {
            Host::Address(address) => address.to_canonical().is_loopback(),
            // RFC 6761 section 6.3: names below `localhost` lead nowhere else either.
            Host::Name(name) => {
                name.rsplit('.').next().is_some_and(|last| last.eq_ignore_ascii_case("localhost"))
            }
        }
    }
}

impl<'a> Authority<'a> {
    pub(super) fn parse(text: &'a [u8]) -> Option<Self> {
        // Every request has one: a pass or two over the bytes, and no searching.
        let text = std::str::from_utf8(text).ok()?;
        if let Some(rest) = text.strip_prefix('[') {
            let (address, rest) = rest.split_once(']')?;
            let host = Host::Address(address.parse::<Ipv6Addr>().ok()?.into());
            return Some(Self { host, port: port(rest)? });
        }
        let end = text.bytes().position(|byte| byte == b':').unwrap_or(text.len());
        let (name, rest) = text.split_at(end);
        let name = name.strip_suffix('.').unwrap_or(name);
        if name.len() > HOST_BYTES_MAX {
            return None;
        }
        // A dot stands between two others.
        let mut after_dot = true;
        for byte in name.bytes() {
            let is_dot = byte == b'.';
            if (is_dot && after_dot)
                || !(is_dot || byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
            {
                return None;
            }
            after_dot = is_dot;
        }
        if after_dot {
            return None;
        }
        let is_digit = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_digit);
        let address = if is_digit(name.as_bytes().first()) { name.parse::<Ipv4Addr>().ok() } else { None };
        let host = address.map_or(Host::Name(name), |address| Host::Address(address.into()));
        Some(Self { host, port: port(rest)? })
    }

    /// Returns whether a page of `origin` came from this host. The scheme is left out: a proxy in front
    /// may have taken TLS off. A host without a port may have lost it in a proxy, if `may_lack_port`.
    pub(super) fn is_origin(self, origin: &[u8], may_lack_port: bool) -> bool {
        let Some((authority, usual)) = after_scheme(origin) else { return false };
        Authority::parse(authority).is_some_and(|origin| {
            let asked = self.port.or((!may_lack_port).then_some(usual));
            origin.host.is(self.host) && asked.is_none_or(|port| port == origin.port.unwrap_or(usual))
        })
    }
}

/// Returns whether `origin` is that of a URL: the same scheme, host and port.
pub(super) fn is_origin_of(origin: &[u8], url: &str) -> bool {
    let of_url = after_scheme(url.as_bytes()).and_then(|(rest, usual)| {
        let end = rest.iter().position(|byte| *byte == b'/').unwrap_or(rest.len());
        Some((Authority::parse(&rest[..end])?, usual))
    });
    let of_origin = after_scheme(origin).and_then(|(rest, usual)| Some((Authority::parse(rest)?, usual)));
    of_url.zip(of_origin).is_some_and(|((one, of_one), (other, of_other))| {
        // The usual port is another one for another scheme.
        let is_same_port = one.port.unwrap_or(of_one) == other.port.unwrap_or(of_other);
        of_one == of_other && is_same_port && one.host.is(other.host)
    })
}

/// Returns what stands behind the scheme, and the usual port of that.
fn after_scheme(text: &[u8]) -> Option<(&[u8], u16)> {
    let plain = text.strip_prefix(b"http://").map(|rest| (rest, 80));
    plain.or_else(|| text.strip_prefix(b"https://").map(|rest| (rest, 443)))
}

/// Parses what stands behind a host: nothing, or a colon and a port, which may be left out.
#[expect(clippy::option_option, reason = "no port is fine, and what is none is not")]
fn port(rest: &str) -> Option<Option<u16>> {
    if rest.is_empty() {
        return Some(None);
    }
    let digits = rest.strip_prefix(':')?;
    if digits.is_empty() {
        return Some(None);
    }
    if digits.len() > 5 {
        return None;
    }
    let mut number = 0_u32;
    for byte in digits.bytes() {
        number = number * 10 + char::from(byte).to_digit(10)?;
    }
    u16::try_from(number).ok().map(Some)
}

impl HostName {
    /// Parses the name or address of a host, without a port.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if let Ok(address) = text.parse::<Ipv6Addr>() {
            return Some(Self(Owned::Address(address.into())));
        }
        let Authority { host, port: None } = Authority::parse(text.as_bytes())? else { return None };
        (!text.ends_with(':')).then(|| match host {
            Host::Name(name) => Self(Owned::Name(name.to_ascii_lowercase().into())),
            Host::Address(address) => Self(Owned::Address(address)),
        })
    }

    /// Returns the host that it names.
    pub(super) fn as_host(&self) -> Host<'_> {
        match &self.0 {
            Owned::Name(name) => Host::Name(name),
            Owned::Address(address) => Host::Address(*address),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_the_same_host_is_told_from_others() {
        for (origin, host, same) in [
            ("http://relay", "relay", true),
            ("http://relay:8080", "relay:8080", true),
            ("https://Relay.example", "relay.example", true),
            ("https://relay.example:443", "relay.example", true),
            ("https://relay.example", "relay.example:443", true),
            ("https://relay.example.", "relay.example", true),
            ("http://[::1]:8080", "[0:0:0:0:0:0:0:1]:8080", true),
            ("http://127.0.0.1:8080", "127.0.0.1:8080", true),
            // As proxies send it: without the port.
            ("https://relay.example:8443", "relay.example", true),
            ("https://relay.example:8443", "relay.example:", true),
            ("https://relay.example:8443", "relay.example:443", false),
            ("http://relay:8080", "relay:8081", false),
            ("http://relay", "relay:8080", false),
            ("https://evil.example", "relay.example", false),
            ("https://relay.example.evil.example", "relay.example", false),
            ("http://localhost:8080", "127.0.0.1:8080", false),
            ("http://relay@evil.example", "relay", false),
            ("http://relay/", "relay", false),
            ("null", "null", false),
            ("", "relay", false),
            ("http://", "relay", false),
            ("file://relay", "relay", false),
            ("ftp://relay", "relay", false),
        ] {
            let host = Authority::parse(host.as_bytes()).expect("a host");
            assert_eq!(host.is_origin(origin.as_bytes(), true), same, "{origin} at {host:?}");
        }
        let host = Authority::parse(b"relay").expect("a host");
        for (origin, same) in
            [("http://relay", true), ("https://relay:443", true), ("https://relay:8443", false)]
        {
            assert_eq!(host.is_origin(origin.as_bytes(), false), same, "{origin}");
        }
    }
}
