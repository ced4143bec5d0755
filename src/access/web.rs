//! Web pages: whose pages may use the relay, and under which names it may be called.
//!
//! A browser lets every page send requests everywhere, also to a relay on the reader's own machine, and a
//! page whose host name is given the relay's address counts as the relay's own. So what changes something
//! must come from a page that may, and a relay that is meant for its own machine answers to names of that
//! machine alone. Programs that are no browsers send neither `Origin` nor `Sec-Fetch-Site` and pass.
//!
//! There is one rule, [`WebRules::check`], for every path into the relay. It must not know how a head is
//! read, nor what a request does beyond its [`Act`]; `authority` knows what a host is, and `sender` which page a
//! request is of.

mod authority;
mod sender;

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use tidemill_proto::{Code, Problem};

pub use authority::HostName;
use authority::{Authority, Host};
pub use sender::Sender;

/// Whose pages may use a relay, and under which names it may be called. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct WebRules {
    /// Origins of pages that may read and change, besides the relay's own, as browsers write them.
    origins: Arc<[String]>,
    hosts: TrustedHosts,
    /// The first host that was asked and trusted. Nearly all requests of a relay ask the same one: comparing is
    /// several times cheaper than reading it.
    usual_host: Arc<OnceLock<Box<[u8]>>>,
}

/// The names under which a relay answers, without ports. Cloning is cheap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrustedHosts {
    /// Every name.
    Any,
    /// Names and addresses of the machine itself: `localhost` and what is below it, `127.0.0.0/8`, `::1`.
    Loopback,
    /// These.
    Named(Arc<[HostName]>),
    /// These, and those of the machine itself.
    NamedAndLoopback(Arc<[HostName]>),
}

/// What a request is about to do, as far as web pages are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Ask whether the relay is well: probes call by whatever address they have.
    Probe,
    /// Read: the browser keeps answers from pages that may not have them.
    Read,
    /// Change something, or ask in a form that may.
    Change,
    /// Open a WebSocket, which a browser opens from any page and lets it read.
    Connect,
    /// Ask what a page of another origin may send (a preflight).
    Preflight,
}

/// What a head says of whom its request is for and of the page that it comes from.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestSource<'a> {
    host: Option<&'a [u8]>,
    origin: Said<'a>,
    fetch_site: Said<'a>,
}

/// A header that may be there once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Said<'a> {
    #[default]
    Never,
    Once(&'a [u8]),
    Twice,
}

impl<'a> Said<'a> {
    fn note(&mut self, value: &'a [u8]) {
        *self = if *self == Said::Never { Said::Once(value) } else { Said::Twice };
    }
}

impl<'a> RequestSource<'a> {
    /// Returns what a head says that asks this host: the header `Host`, or the host of the address where
    /// that has one.
    #[must_use]
    pub fn of(host: Option<&'a [u8]>) -> Self {
        Self { host, ..Self::default() }
    }

    /// Whether nothing in the head is of a browser that shows a page; so the request may do anything that its host may
    /// be asked.
    fn comes_from_no_page(&self) -> bool {
        self.origin == Said::Never && self.fetch_site == Said::Never
    }

    /// Takes a header in; those that say nothing of this are passed over.
    pub fn note(&mut self, name: &str, value: &'a [u8]) {
        if name.eq_ignore_ascii_case("origin") {
            self.origin.note(value);
        } else if name.eq_ignore_ascii_case("sec-fetch-site") {
            self.fetch_site.note(value);
        }
    }
}

impl TrustedHosts {
    /// Returns the names under which a relay answers that listens at `address` and has no access control,
    /// where nobody has said so.
    #[must_use]
    pub fn of_open_relay(address: IpAddr) -> Self {
        if address.to_canonical().is_loopback() { Self::Loopback } else { Self::Any }
    }

    /// Returns these for a relay that listens at `address`. One that listens on loopback answers to loopback names,
    /// too, for the commands and probes of its own machine: a page whose host name was given the relay's address
    /// calls it by that name, and never by one of these.
    #[must_use]
    pub fn at(self, address: IpAddr) -> Self {
        match self {
            Self::Named(names) if address.to_canonical().is_loopback() => Self::NamedAndLoopback(names),
            hosts => hosts,
        }
    }

    /// Returns whether other machines have a name for the relay among these.
    #[must_use]
    pub fn has_others(&self) -> bool {
        match self {
            Self::Any => true,
            Self::Loopback => false,
            Self::Named(names) | Self::NamedAndLoopback(names) => {
                names.iter().any(|name| !name.as_host().is_loopback())
            }
        }
    }

    fn trusts(&self, host: Host<'_>) -> bool {
        let is_named = |names: &[HostName]| names.iter().any(|name| name.as_host().is(host));
        match self {
            Self::Any => true,
            Self::Loopback => host.is_loopback(),
            Self::Named(names) => is_named(names),
            Self::NamedAndLoopback(names) => host.is_loopback() || is_named(names),
        }
    }
}

impl WebRules {
    /// Returns the rules of a relay that lets pages of `origins` in, and answers under the names `hosts`.
    #[must_use]
    pub fn new(origins: impl IntoIterator<Item = String>, hosts: TrustedHosts) -> Self {
        Self { origins: origins.into_iter().collect(), hosts, usual_host: Arc::default() }
    }

    /// Returns whether there are origins that may read, so that answers depend on who asks.
    #[must_use]
    pub fn has_origins(&self) -> bool {
        !self.origins.is_empty()
    }

    /// Returns the one origin that a request comes from, if its pages may read, byte for byte.
    #[must_use]
    pub fn admitted<'a>(&self, asked: &RequestSource<'a>) -> Option<&'a [u8]> {
        let Said::Once(origin) = asked.origin else { return None };
        self.origins.iter().any(|allowed| allowed.as_bytes() == origin).then_some(origin)
    }

    /// Checks that a request may do this, as far as web pages are concerned.
    ///
    /// # Errors
    /// The host that it asks is none (`invalid_request`) or not one of this relay (`host_forbidden`), or
    /// the page that it comes from may not (`origin_forbidden`).
    pub fn check(&self, asked: &RequestSource<'_>, act: Act) -> Result<(), Box<Problem>> {
        let is_usual = asked.host.is_some() && asked.host == self.usual_host();
        if is_usual && asked.comes_from_no_page() && act != Act::Preflight {
            return Ok(());
        }
        // HTTP/1.0 knows requests without a host; no browser sends them.
        let host = asked.host.map(|host| Authority::parse(host).ok_or_else(no_host)).transpose()?;
        if let Some(host) = &host
            && act != Act::Probe
            && !self.hosts.trusts(host.host)
        {
            return Err(self.stranger());
        }
        if let Some(host) = asked.host
            && act != Act::Probe
        {
            self.usual_host.get_or_init(|| host.into());
        }
        match act {
            Act::Probe | Act::Read => Ok(()),
            Act::Change | Act::Connect if self.may_come(asked, host) => Ok(()),
            Act::Preflight if self.admitted(asked).is_some() => Ok(()),
            Act::Preflight => Err(Self::refused("send this")),
            Act::Change => Err(Self::refused("change anything, nor ask with this method,")),
            Act::Connect => Err(Self::refused("connect")),
        }
    }

    fn usual_host(&self) -> Option<&[u8]> {
        self.usual_host.get().map(|host| &**host)
    }

    /// Returns whether a request comes from no page, or from one that may do anything.
    fn may_come(&self, asked: &RequestSource<'_>, host: Option<Authority<'_>>) -> bool {
        // No page can write this header; browsers send it where the way to the relay is safe.
        if matches!(asked.fetch_site, Said::Once(b"same-origin" | b"none")) {
            return true;
        }
        let says_nothing = asked.fetch_site == Said::Never;
        match asked.origin {
            Said::Never => says_nothing,
            // A browser that says that the page is of another origin knows its port as well.
            Said::Once(origin) => {
                self.admitted(asked).is_some()
                    || host.is_some_and(|host| host.is_origin(origin, says_nothing))
            }
            Said::Twice => false,
        }
    }

    fn stranger(&self) -> Box<Problem> {
        let which = match self.hosts {
            TrustedHosts::Any | TrustedHosts::Named(_) | TrustedHosts::NamedAndLoopback(_) => {
                "it answers to the names in"
            }
            TrustedHosts::Loopback => {
                "it listens on this machine alone, and so answers to `localhost`, what is below it (`app.localhost`), and loopback addresses (`127.0.0.0/8`, `[::1]`); for another name, such as that of a proxy in front, set"
            }
        };
        let detail =
            format!("this relay is not called by the name in `Host`: {which} the setting `TRUSTED_HOSTS`");
        Box::new(Problem::new(Code::HostForbidden, detail))
    }

    fn refused(what: &str) -> Box<Problem> {
        let detail = format!(
            "web pages of this origin may not {what} here; name the origin in the setting `ALLOWED_ORIGINS`"
        );
        Box::new(Problem::new(Code::OriginForbidden, detail))
    }
}

fn no_host() -> Box<Problem> {
    let detail = "the header `Host` must be a name or an address, with a port behind it where there is one";
    Box::new(Problem::new(Code::InvalidRequest, detail))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rules(hosts: TrustedHosts) -> WebRules {
        WebRules::new(["https://app.example".to_owned()], hosts)
    }

    fn asked<'a>(host: &'a str, headers: &[(&str, &'a str)]) -> RequestSource<'a> {
        let mut asked = RequestSource::of(Some(host.as_bytes()));
        for (name, value) in headers {
            asked.note(name, value.as_bytes());
        }
        asked
    }

    fn code(result: Result<(), Box<Problem>>) -> Option<Code> {
        result.err().map(|problem| problem.code)
    }

    #[test]
    fn what_changes_comes_from_no_page_or_from_one_that_may() {
        const EVIL: (&str, &str) = ("origin", "https://evil.example");
        const OWN: (&str, &str) = ("origin", "http://relay");
        const ALLOWED: (&str, &str) = ("Origin", "https://app.example");
        for (headers, may) in [
            (&[][..], true),
            (&[OWN], true),
            (&[ALLOWED], true),
            (&[EVIL], false),
            (&[("origin", "null")], false),
            (&[("origin", "")], false),
            (&[ALLOWED, EVIL], false),
            (&[ALLOWED, ALLOWED], false),
            (&[("sec-fetch-site", "same-origin")], true),
            (&[("Sec-Fetch-Site", "none")], true),
            (&[("sec-fetch-site", "same-origin"), ("origin", "null")], true),
            (&[("sec-fetch-site", "same-site")], false),
            (&[("sec-fetch-site", "cross-site")], false),
            (&[("sec-fetch-site", "")], false),
            (&[("sec-fetch-site", "Same-Origin")], false),
            (&[("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")], false),
            (&[("sec-fetch-site", "cross-site"), ALLOWED], true),
            (&[("sec-fetch-site", "same-site"), EVIL], false),
            (&[("sec-fetch-site", "cross-site"), OWN], true),
            (&[("origin", "http://relay:3000")], true),
            (&[("sec-fetch-site", "same-site"), ("origin", "http://relay:3000")], false),
        ] {
            let rules = rules(TrustedHosts::Any);
            for act in [Act::Change, Act::Connect] {
                let expected = (!may).then_some(Code::OriginForbidden);
                assert_eq!(code(rules.check(&asked("relay", headers), act)), expected, "{headers:?}");
            }
            assert_eq!(code(rules.check(&asked("relay", headers), Act::Read)), None, "{headers:?}");
        }
    }

    proptest! {
        #[test]
        fn an_origin_may_read_only_byte_for_byte(text in "(https?://)?(app.example|APP.example|null|a)?[ -~]{0,8}") {
            let rules = rules(TrustedHosts::Any);
            let asked = asked("relay", &[("origin", &text)]);
            let is_it = text == "https://app.example";
            prop_assert_eq!(rules.admitted(&asked).is_some(), is_it);
            let may = rules.check(&asked, Act::Change).is_ok();
            // Of its own host, whatever the port.
            let own = ["http://relay", "https://relay"].iter().any(|own| text.starts_with(own));
            prop_assert!(may == is_it || own, "{}", text);
        }
    }

    #[test]
    fn a_host_is_a_host() {
        let rules = rules(TrustedHosts::Any);
        for host in [
            "relay",
            "relay.",
            "relay:8080",
            "relay:",
            "a_b.example",
            "127.0.0.1",
            "[::1]",
            "[::1]:8080",
            "xn--bcher-kva.example",
            "relay:65535",
        ] {
            assert_eq!(code(rules.check(&asked(host, &[]), Act::Probe)), None, "{host}");
        }
        let long = "x".repeat(256);
        for host in [
            "",
            ".",
            "..",
            ":8080",
            ".relay",
            "a..b",
            "re lay",
            "relay/",
            "relay:x",
            "relay:65536",
            "relay:+1",
            "relay:123456",
            "user@relay",
            "a,b",
            "[::1",
            "::1",
            "[::1]x",
            "[relay]",
            "rélay",
            "relay\t",
            "*",
            "http://relay",
            "relay?",
            "relay#",
            "a%2eb",
            &long,
        ] {
            let problem = code(rules.check(&asked(host, &[]), Act::Probe));
            assert_eq!(problem, Some(Code::InvalidRequest), "{host}");
        }
        assert_eq!(code(rules.check(&RequestSource::default(), Act::Change)), None, "HTTP/1.0 has none");
    }

    #[test]
    fn a_relay_answers_to_its_names() {
        let named = TrustedHosts::Named(
            ["Relay.example", "192.0.2.1", "::1"].map(|text| HostName::parse(text).expect("a host")).into(),
        );
        for (host, loopback, by_name) in [
            ("localhost", true, false),
            ("LOCALHOST:8080", true, false),
            ("localhost.", true, false),
            ("a.localhost", true, false),
            ("127.0.0.1:8080", true, false),
            ("127.9.9.9", true, false),
            ("[::1]:8080", true, true),
            ("[::ffff:127.0.0.1]", true, false),
            ("0.0.0.0", false, false),
            ("127.0.0.1.evil.example", false, false),
            ("localhost.evil.example", false, false),
            ("notlocalhost", false, false),
            ("relay.example:8080", false, true),
            ("relay.example.", false, true),
            ("a.relay.example", false, false),
            ("192.0.2.1", false, true),
            ("evil.example", false, false),
        ] {
            for (hosts, trusted) in
                [(TrustedHosts::Any, true), (TrustedHosts::Loopback, loopback), (named.clone(), by_name)]
            {
                let rules = rules(hosts);
                for act in [Act::Read, Act::Change, Act::Connect] {
                    let expected = (!trusted).then_some(Code::HostForbidden);
                    assert_eq!(code(rules.check(&asked(host, &[]), act)), expected, "{host} {rules:?}");
                }
                assert_eq!(code(rules.check(&asked(host, &[]), Act::Probe)), None, "{host}");
                let problem = rules.check(&asked(host, &[]), Act::Read).err();
                assert!(problem.is_none_or(|problem| problem.detail.contains("`TRUSTED_HOSTS`")));
            }
        }
        let loopback = rules(TrustedHosts::Loopback);
        // What was asked before makes no difference.
        for _ in 0..2 {
            for host in ["evil.example", "localhost:8080", "localhost:8081", "evil.example:8080"] {
                let expected = host.starts_with("evil").then_some(Code::HostForbidden);
                assert_eq!(code(loopback.check(&asked(host, &[]), Act::Probe)), None, "{host}");
                assert_eq!(code(loopback.check(&asked(host, &[]), Act::Change)), expected, "{host}");
                let evil = asked(host, &[("origin", "https://evil.example")]);
                let expected = expected.or(Some(Code::OriginForbidden));
                assert_eq!(code(loopback.check(&evil, Act::Change)), expected, "{host}");
                assert!(loopback.check(&asked(host, &[]), Act::Preflight).is_err(), "{host}");
            }
        }
        for text in ["", "relay:8080", "relay:", "[::1]:80", "https://relay", "*.relay", "a b"] {
            assert_eq!(HostName::parse(text), None, "{text}");
        }
        for (address, hosts) in [
            ("127.0.0.1", TrustedHosts::Loopback),
            ("::1", TrustedHosts::Loopback),
            ("0.0.0.0", TrustedHosts::Any),
            ("::", TrustedHosts::Any),
            ("192.0.2.1", TrustedHosts::Any),
        ] {
            let address = address.parse().expect("an address");
            assert_eq!(TrustedHosts::of_open_relay(address), hosts);
            let is_here = hosts == TrustedHosts::Loopback;
            let rules = rules(named.clone().at(address));
            for (host, trusted) in [
                ("relay.example", true),
                ("localhost:8080", is_here),
                ("127.0.0.1", is_here),
                ("evil.example", false),
            ] {
                let expected = (!trusted).then_some(Code::HostForbidden);
                assert_eq!(code(rules.check(&asked(host, &[]), Act::Read)), expected, "{host} at {address}");
            }
        }
    }
}
