//! What a request shows of who calls: a token, or the cookie that a browser sends by itself.
//!
//! Because a browser sends it whoever has written the page, a cookie counts where a page of the relay sends it, and
//! whatever else a request shows is stronger. One that does not count, because it is mistyped, too old, or there twice,
//! is as if it were not there: who has an old one is to log in again, and not to be turned away.
//!
//! It must not know how a head is read, nor whom a token or a cookie lets in.

use std::fmt;

use secrecy::{ExposeSecret as _, SecretString};
use tidemill_proto::{Code, Problem};

use super::token::{TokenKind, TokenText};
use super::web::{Act, Sender};

/// What a request shows of who calls. `Debug` does not show it.
#[derive(Clone, Copy)]
pub enum Shown<'a> {
    /// Nothing.
    Nothing,
    /// A token or a JWT.
    Bearer(&'a str),
    /// A cookie.
    Cookie(&'a str),
}

/// The cookie of a request, as far as it is one. It travels with the request. `Debug` does not show it.
#[derive(Clone, Debug)]
pub enum SentCookie {
    /// A page of the relay has sent it, as far as can be told.
    Counts(SecretString),
    /// Nothing shows that a page of the relay has.
    OfOthers,
}

impl SentCookie {
    /// Returns what a text is that stands in a request's cookie; `None` where it is not to be looked at.
    #[must_use]
    pub fn new(text: &str, sender: Sender, act: Act) -> Option<Self> {
        TokenText::parse(TokenKind::Cookie, text).ok()?;
        match (sender, act) {
            (Sender::Own, _) | (Sender::Unsaid, Act::Probe | Act::Read) => Some(Self::Counts(text.into())),
            // It does what it may without the cookie, whether or not somebody has logged in here.
            (Sender::Named, _) => None,
            (Sender::Unsaid, Act::Change | Act::Connect | Act::Preflight) | (Sender::Other, _) => {
                Some(Self::OfOthers)
            }
        }
    }
}

impl fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "Nothing",
            Self::Bearer(_) => "Bearer(***)",
            Self::Cookie(_) => "Cookie(***)",
        })
    }
}

impl<'a> Shown<'a> {
    /// Returns what a request shows that has this token, and this cookie.
    ///
    /// # Errors
    /// There is no token, and nothing shows that a page of the relay has sent the cookie.
    pub fn of(bearer: Option<&'a str>, cookie: Option<&'a SentCookie>) -> Result<Self, Box<Problem>> {
        match (bearer, cookie) {
            (Some(bearer), _) => Ok(Self::Bearer(bearer)),
            (None, None) => Ok(Self::Nothing),
            (None, Some(SentCookie::Counts(text))) => Ok(Self::Cookie(text.expose_secret())),
            (None, Some(SentCookie::OfOthers)) => {
                let detail = "the cookie counts for pages of this relay alone, and nothing shows that one of them has sent this: browsers say it in `Sec-Fetch-Site` or `Origin` (behind a proxy set `TIDEMILL_PUBLIC_URL`); programs send a token in `Authorization`";
                Err(Box::new(Problem::new(Code::OriginForbidden, detail)))
            }
        }
    }
}

impl<'a> From<Option<&'a str>> for Shown<'a> {
    fn from(bearer: Option<&'a str>) -> Self {
        bearer.map_or(Self::Nothing, Self::Bearer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::NewToken;

    #[test]
    fn a_cookie_counts_where_a_page_of_the_relay_sends_it_and_a_token_is_stronger() {
        let made = NewToken::make(TokenKind::Cookie);
        let text = made.text.expose_secret();
        for (sender, act, expected) in [
            (Sender::Own, Act::Change, Ok(true)),
            (Sender::Own, Act::Connect, Ok(true)),
            (Sender::Own, Act::Read, Ok(true)),
            (Sender::Unsaid, Act::Read, Ok(true)),
            (Sender::Unsaid, Act::Probe, Ok(true)),
            (Sender::Unsaid, Act::Change, Err(Code::OriginForbidden)),
            (Sender::Unsaid, Act::Connect, Err(Code::OriginForbidden)),
            (Sender::Named, Act::Read, Ok(false)),
            (Sender::Named, Act::Change, Ok(false)),
            (Sender::Named, Act::Connect, Ok(false)),
            (Sender::Other, Act::Read, Err(Code::OriginForbidden)),
            (Sender::Other, Act::Change, Err(Code::OriginForbidden)),
            (Sender::Other, Act::Connect, Err(Code::OriginForbidden)),
        ] {
            let cookie = SentCookie::new(text, sender, act);
            assert!(!format!("{cookie:?}").contains(text));
            let shown = Shown::of(None, cookie.as_ref()).map_err(|problem| problem.code);
            assert_eq!(shown.map(|shown| matches!(shown, Shown::Cookie(_))), expected, "{sender:?} {act:?}");
            let shown = Shown::of(Some("x"), cookie.as_ref()).map_err(|problem| problem.code);
            assert!(matches!(shown, Ok(Shown::Bearer("x"))), "{sender:?} {act:?}");
        }
        for other in ["", "x", &text[1..], &text.to_lowercase(), &format!("{text}x")] {
            assert!(SentCookie::new(other, Sender::Own, Act::Read).is_none(), "{other}");
            assert!(SentCookie::new(other, Sender::Other, Act::Change).is_none(), "{other}");
        }
    }
}
