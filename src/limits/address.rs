//! From which address a client calls, and whether over TLS: as its connection shows, or, where that is a proxy that is
//! trusted, as the proxy tells.
//!
//! Proxies write what they saw at the end of `X-Forwarded-For`, or of `Forwarded` (RFC 7239). So both are read
//! from their ends: each address that is a proxy's own is believed, and the first one that is not is the client's.
//! What stands before that was written by anybody. Where both headers are there and tell of different clients,
//! one of them is not the proxy's, and nobody knows which: then neither is believed.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use tidemill_proto::quoted;

/// The headers in which proxies tell where a request comes from.
pub const FORWARDED_HEADERS: [&str; 2] = ["x-forwarded-for", "forwarded"];

/// The header in which they tell over what it has come to them, where it is not `Forwarded`.
const FORWARDED_PROTO: &str = "x-forwarded-proto";

/// The address that a connection comes from; `None` if it has none. It travels with each request of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(pub Option<IpAddr>);

/// A network of addresses, or a single one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    /// How many of its bits are those of the network.
    bits: u32,
}

impl Network {
    /// Parses an address, or one with `/` and a number of bits behind it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (address, bits) = text.split_once('/').map_or((text, None), |(one, two)| (one, Some(two)));
        let address: IpAddr = address.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let bits = match bits {
            None => most,
            Some(text) => text.parse().ok().filter(|bits| is_number(text) && *bits <= most)?,
        };
        let network = Self { address, bits };
        // What stands behind the network would be a mistake.
        (network.part(address) == network.bits_of(address)).then_some(network)
    }

    fn contains(&self, address: IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4() && self.part(address) == self.bits_of(self.address)
    }

    #[expect(clippy::unused_self, reason = "it is one of two that are compared")]
    fn bits_of(&self, address: IpAddr) -> u128 {
        match address {
            IpAddr::V4(v4) => u128::from(v4.to_bits()),
            IpAddr::V6(v6) => v6.to_bits(),
        }
    }

    /// Returns the bits of an address that are those of the network, the others 0.
    fn part(&self, address: IpAddr) -> u128 {
        let most = if address.is_ipv4() { 32 } else { 128 };
        let behind = most - self.bits.min(most);
        let bits = self.bits_of(address);
        bits.checked_shr(behind).unwrap_or(0).checked_shl(behind).unwrap_or(0)
    }
}

/// The proxies that are believed. Cloning is cheap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies(Arc<[Network]>);

impl TrustedProxies {
    /// Returns the proxies of these networks.
    #[must_use]
    pub fn new(networks: impl IntoIterator<Item = Network>) -> Self {
        Self(networks.into_iter().collect())
    }

    /// Returns where a request comes from whose connection comes from `peer`; `lines` are those of a header with
    /// this name, in their order.
    #[must_use]
    pub fn client<'a, L>(&self, peer: Option<IpAddr>, lines: impl Fn(&'static str) -> L) -> Option<IpAddr>
    where
        L: Iterator<Item = &'a [u8]>,
    {
        // Nearly all relays have none.
        if self.0.is_empty() {
            return peer;
        }
        let peer = peer?.to_canonical();
        if !self.trusts(peer) {
            return Some(peer);
        }
        let [plain, forwarded] = FORWARDED_HEADERS.map(|name| lines(name).collect::<Vec<_>>());
        let plain = (!plain.is_empty()).then(|| self.walk(peer, addresses(&plain)));
        let forwarded = (!forwarded.is_empty()).then(|| self.walk(peer, for_parameters(&forwarded)));
        Some(match (plain, forwarded) {
            (None, None) => peer,
            (Some(one), None) | (None, Some(one)) => one,
            (Some(one), Some(other)) => {
                if one == other {
                    one
                } else {
                    peer
                }
            }
        })
    }

    /// Returns whether a request came over TLS to the proxy that its connection comes from. Where two headers are there,
    /// both have to say so.
    #[must_use]
    pub fn is_encrypted<'a, L>(&self, peer: Option<IpAddr>, lines: impl Fn(&'static str) -> L) -> bool
    where
        L: Iterator<Item = &'a [u8]>,
    {
        let is_trusted = peer.is_some_and(|peer| self.trusts(peer.to_canonical()));
        if !is_trusted {
            return false;
        }
        let said = |text: Option<&[u8]>| text.map(|text| text.trim_ascii().eq_ignore_ascii_case(b"https"));
        // What stands before the last was written by anybody.
        let plain =
            said(lines(FORWARDED_PROTO).last().and_then(|line| line.rsplit(|byte| *byte == b',').next()));
        let [_, forwarded] = FORWARDED_HEADERS;
        let formal = lines(forwarded).last().map(String::from_utf8_lossy).and_then(|line| {
            let last = quoted::split(&line, b',').last()?;
            said(Some(parameter(last, "proto")?.as_bytes()))
        });
        match (plain, formal) {
            (Some(plain), Some(formal)) => plain && formal,
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => false,
        }
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }

    /// Goes back through what proxies told, up to the first address that is none of theirs. One that cannot be read
    /// ends it: the proxy that told it is as far as is known.
    fn walk(&self, peer: IpAddr, told: Vec<Option<IpAddr>>) -> IpAddr {
        let mut known = peer;
        for address in told.into_iter().rev() {
            let Some(address) = address else { return known };
            known = address;
            if !self.trusts(address) {
                return known;
            }
        }
        known
    }
}

/// Returns what an address counts as: IPv6 hands whole /64 networks to one customer.
#[must_use]
pub fn counted_as(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// Reads the addresses of `X-Forwarded-For`, in their order.
fn addresses(lines: &[&[u8]]) -> Vec<Option<IpAddr>> {
    let parts = lines.iter().flat_map(|line| line.split(|byte| *byte == b','));
    parts.map(|part| address(std::str::from_utf8(part).ok()?.trim_matches([' ', '\t']))).collect()
}

/// Reads the parameters `for` of the elements of `Forwarded`, in their order.
fn for_parameters(lines: &[&[u8]]) -> Vec<Option<IpAddr>> {
    // What is no text is none in its own element alone: it has neither separators nor quotes.
    let texts = lines.iter().map(|line| String::from_utf8_lossy(line));
    texts.flat_map(|text| quoted::split(&text, b',').map(for_parameter).collect::<Vec<_>>()).collect()
}

/// Reads the parameter `for` of an element.
fn for_parameter(element: &str) -> Option<IpAddr> {
    address(parameter(element, "for")?)
}

/// Reads a parameter of an element, if it is there once.
fn parameter<'a>(element: &'a str, wanted: &str) -> Option<&'a str> {
    let mut found = None;
    for pair in quoted::split(element, b';') {
        let (name, value) = pair.split_once('=')?;
        if name.trim_matches([' ', '\t']).eq_ignore_ascii_case(wanted) {
            // Twice means nothing.
            if found.replace(value.trim_matches([' ', '\t'])).is_some() {
                return None;
            }
        }
    }
    let value = found?;
    Some(value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value))
}

/// Reads an address, with or without a port: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`,
/// `[2001:db8::1]:80`.
fn address(text: &str) -> Option<IpAddr> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_canonical());
    }
    let is_port =
        |port: &str| (1..=5).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit());
    let address: IpAddr = if let Some(rest) = text.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        if !port.is_empty() && !port.strip_prefix(':').is_some_and(is_port) {
            return None;
        }
        IpAddr::V6(address.parse().ok()?)
    } else {
        let (address, port) = text.split_once(':')?;
        IpAddr::V4(address.parse().ok().filter(|_| is_port(port))?)
    };
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn proxies(texts: &[&str]) -> TrustedProxies {
        TrustedProxies::new(texts.iter().map(|text| Network::parse(text).expect(text)))
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect(text)
    }

    fn found(proxies: &[&str], peer: &str, headers: &[(&str, &[u8])]) -> IpAddr {
        let lines = |name| headers.iter().filter(move |(of, _)| *of == name).map(|(_, value)| *value);
        super::tests::proxies(proxies).client(Some(ip(peer)), lines).expect("there is one")
    }

    fn client(peer: &str, headers: &[(&str, &str)]) -> String {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
        found(&["10.0.0.0/8", "192.0.2.7", "2001:db8:1::/48"], peer, &headers).to_string()
    }

    const PLAIN: &str = "x-forwarded-for";
    const FORMAL: &str = "forwarded";

    #[test]
    fn a_trusted_proxy_tells_over_what_a_request_came() {
        let plain = |value: &'static str| (FORWARDED_PROTO, value);
        let formal = |value: &'static str| (FORMAL, value);
        for (peer, headers, is_encrypted) in [
            ("10.0.0.1", &[plain("https")][..], true),
            ("::ffff:10.0.0.1", &[plain(" HTTPS ")], true),
            ("10.0.0.1", &[plain("http")], false),
            ("10.0.0.1", &[], false),
            ("10.0.0.1", &[plain("https, http")], false),
            ("10.0.0.1", &[plain("http"), plain("http, https")], true),
            ("10.0.0.1", &[formal("for=203.0.113.9;proto=https")], true),
            ("10.0.0.1", &[formal("for=1.1.1.1;proto=http, for=203.0.113.9;Proto=\"https\"")], true),
            ("10.0.0.1", &[formal("proto=https;proto=https")], false),
            ("10.0.0.1", &[formal("for=203.0.113.9")], false),
            ("10.0.0.1", &[plain("https"), formal("proto=http")], false),
            ("10.0.0.1", &[plain("https"), formal("for=203.0.113.9")], true),
            ("203.0.113.9", &[plain("https"), formal("proto=https")], false),
        ] {
            let lines =
                |name| headers.iter().filter(move |(of, _)| *of == name).map(|(_, value)| value.as_bytes());
            let told = proxies(&["10.0.0.0/8"]).is_encrypted(Some(ip(peer)), lines);
            assert_eq!(told, is_encrypted, "{peer} {headers:?}");
            assert!(!TrustedProxies::default().is_encrypted(Some(ip(peer)), lines));
        }
    }

    #[test]
    fn proxies_are_believed_as_far_as_they_are_trusted() {
        for (peer, lines, expected) in [
            ("198.51.100.1", &[(PLAIN, "203.0.113.9")][..], "198.51.100.1"),
            ("198.51.100.1", &[(FORMAL, "for=203.0.113.9")], "198.51.100.1"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &[(PLAIN, "203.0.113.9")], "203.0.113.9"),
            ("::ffff:10.0.0.1", &[(PLAIN, "203.0.113.9")], "203.0.113.9"),
            ("10.0.0.1", &[(PLAIN, "1.1.1.1, 203.0.113.9")], "203.0.113.9"),
            ("10.0.0.1", &[(PLAIN, "1.1.1.1, 203.0.113.9, 10.9.9.9,192.0.2.7")], "203.0.113.9"),
            ("10.0.0.1", &[(PLAIN, "203.0.113.9"), (PLAIN, "10.9.9.9")], "203.0.113.9"),
            ("10.0.0.1", &[(PLAIN, "10.0.0.2, 10.0.0.3")], "10.0.0.2"),
            ("10.0.0.1", &[(PLAIN, "203.0.113.9, nonsense")], "10.0.0.1"),
            ("10.0.0.1", &[(PLAIN, "203.0.113.9, nonsense, 10.0.0.3")], "10.0.0.3"),
            ("10.0.0.1", &[(PLAIN, "")], "10.0.0.1"),
            ("10.0.0.1", &[(PLAIN, "203.0.113.9,")], "10.0.0.1"),
            ("10.0.0.1", &[(PLAIN, "203.0.113.9:4711")], "203.0.113.9"),
            ("10.0.0.1", &[(PLAIN, "2001:db8::9")], "2001:db8::9"),
            ("10.0.0.1", &[(PLAIN, "[2001:db8::9]:80")], "2001:db8::9"),
            ("2001:db8:1::5", &[(PLAIN, "::ffff:203.0.113.9")], "203.0.113.9"),
            ("10.0.0.1", &[(FORMAL, "for=203.0.113.9;proto=https")], "203.0.113.9"),
            ("10.0.0.1", &[(FORMAL, r#"by=x; For="[2001:db8::9]:80" ;host="a,b""#)], "2001:db8::9"),
            ("10.0.0.1", &[(FORMAL, "for=1.1.1.1, for=203.0.113.9, for=10.0.0.9")], "203.0.113.9"),
            ("10.0.0.1", &[(FORMAL, r#"for="1.1.1.1, for=2.2.2.2""#)], "10.0.0.1"),
            ("10.0.0.1", &[(FORMAL, "for=1.1.1.1;for=2.2.2.2")], "10.0.0.1"),
            ("10.0.0.1", &[(FORMAL, "for=unknown")], "10.0.0.1"),
            ("10.0.0.1", &[(FORMAL, "for=_hidden")], "10.0.0.1"),
            ("10.0.0.1", &[(FORMAL, "proto=https")], "10.0.0.1"),
            // The proxy wrote one of them, and nobody knows which.
            ("10.0.0.1", &[(PLAIN, "203.0.113.9"), (FORMAL, "for=1.1.1.1")], "10.0.0.1"),
            ("10.0.0.1", &[(PLAIN, "203.0.113.9"), (FORMAL, "for=203.0.113.9")], "203.0.113.9"),
        ] {
            assert_eq!(client(peer, lines), expected, "{peer} {lines:?}");
        }
        assert_eq!(found(&[], "10.0.0.1", &[(PLAIN, b"203.0.113.9")]), ip("10.0.0.1"));
        assert_eq!(proxies(&["10.0.0.0/8"]).client(None, |_| [&b"203.0.113.9"[..]].into_iter()), None);
    }

    #[test]
    fn networks_are_addresses_and_a_number_of_bits() {
        for (text, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.8"),
            ("0.0.0.0/0", "203.0.113.9", "2001:db8::1"),
            ("::/0", "2001:db8::1", "203.0.113.9"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::1"),
            ("::1", "::1", "::2"),
        ] {
            let network = Network::parse(text).expect(text);
            assert!(network.contains(ip(inside)) && !network.contains(ip(outside)), "{text}");
        }
        for text in
            ["", "10.0.0.1/8", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/+8", "proxy", "::/129", "10.0.0.0/8/8"]
        {
            assert_eq!(Network::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_whole_network_of_the_sixth_version_counts_as_one() {
        assert_eq!(counted_as(ip("2001:db8::1")), counted_as(ip("2001:db8::2")));
        assert_ne!(counted_as(ip("2001:db8:0:1::1")), counted_as(ip("2001:db8::1")));
        assert_eq!(counted_as(ip("::ffff:10.0.0.1")), ip("10.0.0.1"));
    }

    proptest! {
        #[test]
        fn whatever_stands_in_front_what_the_proxy_wrote_at_the_end_holds(
            text in proptest::collection::vec(proptest::sample::select(b"\"\\,;= :[].for19af\t\xff\xc3".to_vec()), 0..64),
            in_one_line in any::<bool>(),
        ) {
            for (name, own) in [(PLAIN, &b"203.0.113.9"[..]), (FORMAL, b"for=203.0.113.9")] {
                // A proxy that writes on in the same line cannot tell an open quote.
                let line = [&text, &b", "[..], own].concat();
                let headers = if in_one_line && !text.contains(&b'"') {
                    vec![(name, &line[..])]
                } else {
                    vec![(name, &text[..]), (name, own)]
                };
                prop_assert_eq!(found(&["10.0.0.0/8"], "10.0.0.1", &headers), ip("203.0.113.9"));
            }
        }

        #[test]
        fn whatever_a_stranger_says_it_is_who_it_is(text in proptest::collection::vec(any::<u8>(), 0..64)) {
            for name in [PLAIN, FORMAL] {
                prop_assert_eq!(found(&["10.0.0.0/8"], "198.51.100.1", &[(name, &text)]), ip("198.51.100.1"));
                // Nor does it keep the relay from reading what a proxy says.
                found(&["10.0.0.0/8"], "10.0.0.1", &[(name, &text)]);
            }
        }
    }
}
