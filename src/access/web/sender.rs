//! Which page has sent a request: what a cookie counts for depends on it.
//!
//! A browser says it in `Sec-Fetch-Site`, which no page can write, and where it does not send that, in `Origin`, which
//! it sends with everything that changes something and with every WebSocket. Pages of the same host with another port
//! are other pages: a browser sends them the cookie, too, because for that they are one site.
//!
//! It must not know what comes of it.

use super::authority::is_origin_of;
use super::{RequestSource, Said, WebRules};

/// Which page has sent a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// One of the relay's own origin.
    Own,
    /// One of an origin that may use the relay.
    Named,
    /// Another one.
    Other,
    /// None that is known of: a person has typed the address, or it is a program, or an old browser that reads.
    Unsaid,
}

impl WebRules {
    /// Returns which page has sent a request to the relay, which others reach under this URL.
    #[must_use]
    pub fn sender(&self, asked: &RequestSource<'_>, own_url: &str) -> Sender {
        let by_origin = |unsaid| match asked.origin {
            Said::Never => unsaid,
            Said::Once(origin) if is_origin_of(origin, own_url) => Sender::Own,
            Said::Once(_) if self.admitted(asked).is_some() => Sender::Named,
            Said::Once(_) | Said::Twice => Sender::Other,
        };
        match asked.fetch_site {
            Said::Once(b"same-origin") => Sender::Own,
            Said::Once(b"none") => Sender::Unsaid,
            // Whatever its `Origin` says, it is not the relay's own.
            Said::Once(_) | Said::Twice if self.admitted(asked).is_some() => Sender::Named,
            Said::Once(_) | Said::Twice => Sender::Other,
            Said::Never => by_origin(Sender::Unsaid),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::TrustedHosts;
    use super::*;

    #[test]
    fn a_page_is_known_by_what_the_browser_says_of_it() {
        const OWN: (&str, &str) = ("origin", "https://relay.example");
        const NAMED: (&str, &str) = ("origin", "https://app.example");
        const SAME: (&str, &str) = ("sec-fetch-site", "same-origin");
        let site = |site| ("sec-fetch-site", site);
        let from = |origin| ("origin", origin);
        let rules = WebRules::new(["https://app.example".to_owned()], TrustedHosts::Any);
        for (headers, expected) in [
            (&[][..], Sender::Unsaid),
            (&[SAME], Sender::Own),
            // A form of a page that tells no other where it was.
            (&[SAME, from("null")], Sender::Own),
            (&[site("none")], Sender::Unsaid),
            (&[site("same-site")], Sender::Other),
            (&[site("cross-site")], Sender::Other),
            (&[site("cross-site"), NAMED], Sender::Named),
            (&[site("same-site"), OWN], Sender::Other),
            (&[site("")], Sender::Other),
            (&[site("Same-Origin")], Sender::Other),
            (&[SAME, SAME], Sender::Other),
            (&[SAME, site("cross-site")], Sender::Other),
            (&[OWN], Sender::Own),
            (&[from("https://relay.example:443")], Sender::Own),
            (&[from("http://relay.example")], Sender::Other),
            (&[from("https://relay.example:8443")], Sender::Other),
            (&[from("https://relay.example/")], Sender::Other),
            (&[from("https://relay.example.evil.example")], Sender::Other),
            (&[from("https://evil.example")], Sender::Other),
            (&[from("null")], Sender::Other),
            (&[from("")], Sender::Other),
            (&[NAMED], Sender::Named),
            (&[OWN, NAMED], Sender::Other),
            (&[OWN, OWN], Sender::Other),
        ] {
            let mut asked = RequestSource::of(Some(b"relay.example"));
            for (name, value) in headers {
                asked.note(name, value.as_bytes());
            }
            for url in ["https://relay.example", "https://Relay.example:443/base"] {
                assert_eq!(rules.sender(&asked, url), expected, "{headers:?}");
            }
        }
        for (origin, url, is_own) in [
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080", true),
            ("http://127.0.0.1:8081", "http://127.0.0.1:8080", false),
            ("http://127.0.0.1", "http://127.0.0.1:8080", false),
            ("http://localhost:8080", "http://127.0.0.1:8080", false),
            // What a proxy has left out is not made up.
            ("http://relay:8080", "http://relay", false),
            ("http://[::1]:8080", "http://[0:0:0:0:0:0:0:1]:8080", true),
            ("http://relay", "http://", false),
        ] {
            let mut asked = RequestSource::of(None);
            asked.note("Origin", origin.as_bytes());
            assert_eq!(rules.sender(&asked, url) == Sender::Own, is_own, "{origin} at {url}");
        }
    }
}
