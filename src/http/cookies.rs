//! Cookies over HTTP: how they stand in a request, and how one is written that keeps a log-in.
//!
//! It must not know whom a cookie lets in: `access` does.
//!
//! **Invariant:** the cookie of a log-in is read by no script and sent with no request that a page of another site
//! makes, and where the way to the relay is encrypted, it is set by no other host and sent over no other way.

use axum::extract::Request;
use axum::http::header::{AUTHORIZATION, COOKIE};
use axum::http::{HeaderMap, HeaderValue};
use secrecy::ExposeSecret as _;
use tidemill_proto::{Code, Problem};

use super::{Http, OwnUrl, source};
use crate::access::{Act, NewCookie, RequestSource, Sender, SentCookie};
use crate::relay::Failure;

/// Returns what the cookie of a log-in is called at a relay that is reached under this URL. Browsers take the longer
/// name over an encrypted way alone, from the host itself, and for all of its paths (RFC 6265bis section 4.1.3);
/// without such a way they would not take it at all.
pub(super) fn log_in_name(own_url: &str) -> &'static str {
    if is_encrypted(own_url) { "__Host-tidemill" } else { "tidemill" }
}

/// Returns the same for what is told of the relay before anybody asks it.
pub(super) fn usual_log_in_name(own_url: &OwnUrl) -> &'static str {
    match own_url {
        OwnUrl::Named(url) => log_in_name(url),
        OwnUrl::AsAsked { tls } => log_in_name(if *tls { "https:" } else { "http:" }),
    }
}

fn is_encrypted(own_url: &str) -> bool {
    own_url.starts_with("https:")
}

/// Returns the cookie of this name, if there is one and no other. Cookies may stand in several lines, as HTTP/2 cuts
/// them.
pub(super) fn only<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let pairs = headers.get_all(COOKIE).iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    let of_name = |pair: &'a [u8]| pair.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"=");
    let mut values = pairs.filter_map(of_name);
    let only = values.next().filter(|_| values.next().is_none())?;
    std::str::from_utf8(only).ok()
}

/// Returns whether there is a cookie of a log-in, whatever it says.
pub(super) fn has_log_in(headers: &HeaderMap, own_url: &str) -> bool {
    only(headers, log_in_name(own_url)).is_some()
}

/// Returns the cookie of a log-in that a request shows, where it shows nothing else.
pub(super) fn sent(
    http: &Http,
    request: &Request,
    asked: &RequestSource<'_>,
    act: Act,
) -> Option<SentCookie> {
    let headers = request.headers();
    if !headers.contains_key(COOKIE) || headers.contains_key(AUTHORIZATION) {
        return None;
    }
    let own_url = http.own_url(request);
    let text = only(headers, log_in_name(&own_url))?;
    SentCookie::new(text, http.0.web.load().rules.sender(asked, &own_url), act)
}

/// Checks that a request for a cookie comes from no page of others: who lets a page log somebody in reads what is done
/// in the name of whoever that was.
pub(super) fn check_sender(http: &Http, request: &Request) -> Result<(), Failure> {
    match http.0.web.load().rules.sender(&source::asked(request), &http.own_url(request)) {
        Sender::Own | Sender::Unsaid => Ok(()),
        Sender::Named | Sender::Other => {
            let detail = "a cookie is for pages of this relay alone; pages of other origins take the tokens of `/auth/login` (behind a proxy set `TIDEMILL_PUBLIC_URL`)";
            Err(Problem::new(Code::OriginForbidden, detail).into())
        }
    }
}

/// Writes the header that has a browser keep a log-in.
pub(super) fn keeping(cookie: &NewCookie, own_url: &str) -> HeaderValue {
    written(cookie.text.expose_secret(), cookie.life.as_secs(), own_url)
}

/// Writes the header that has a browser forget it.
pub(super) fn forgetting(own_url: &str) -> HeaderValue {
    written("", 0, own_url)
}

fn written(value: &str, seconds: u64, own_url: &str) -> HeaderValue {
    let (name, secure) = (log_in_name(own_url), if is_encrypted(own_url) { "; Secure" } else { "" });
    let text = format!("{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}");
    let mut value =
        HeaderValue::try_from(text).expect("letters, digits and signs of ASCII stand in a header");
    value.set_sensitive(true);
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_there_once_wherever_it_stands() {
        let many = format!("{}tidemill=x", "a=b; ".repeat(1_000));
        for (lines, expected) in [
            (&["tidemill=x"][..], Some("x")),
            (&["a=b; tidemill=x; c=d"], Some("x")),
            (&["a=b;tidemill=x;"], Some("x")),
            (&["a=b", "tidemill=x"], Some("x")),
            (&["tidemill=x=y"], Some("x=y")),
            (&["tidemill="], Some("")),
            (&[&many], Some("x")),
            (&["tidemill=x; tidemill=x"], None),
            (&["tidemill=x", "tidemill=y"], None),
            (&["Tidemill=x"], None),
            (&["tidemill"], None),
            (&["xtidemill=x; tidemillx=x"], None),
            (&["__Host-tidemill=x"], None),
            (&["", ";;;", "="], None),
            (&[], None),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(COOKIE, line.parse().expect("a value"));
            }
            assert_eq!(only(&headers, "tidemill"), expected, "{lines:?}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(COOKIE, HeaderValue::from_bytes(b"a=\xff; tidemill=x").expect("a value"));
        assert_eq!(only(&headers, "tidemill"), Some("x"), "what others have set changes nothing");
    }

    #[test]
    fn a_cookie_is_written_as_narrowly_as_browsers_take_it() {
        assert_eq!(
            forgetting("https://relay.example/base"),
            "__Host-tidemill=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict; Secure"
        );
        let plain = written("v", 7, "http://127.0.0.1:8080");
        assert_eq!(plain, "tidemill=v; Path=/; Max-Age=7; HttpOnly; SameSite=Strict");
        assert_eq!(format!("{plain:?}"), "Sensitive");
    }
}
