//! Who sends a request: from its head to the gate.
//!
//! The only place of this edge where a caller comes to the gate. It must not know what the request asks for.

use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue};
use tidemill_proto::{Code, Problem};

use super::Http;
use crate::access::Access;
use crate::relay::{Failure, Gate};

/// The gate, as whoever sent a request passes it.
#[derive(Debug)]
pub(super) struct Called(pub(super) Gate);

impl FromRequestParts<Http> for Called {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, http: &Http) -> Result<Self, Failure> {
        let bearer = bearer(&http.0.access, &parts.headers)?;
        let caller = http.0.access.identify(bearer).await?;
        Ok(Self(http.0.relay.as_caller(caller)))
    }
}

impl Http {
    /// Returns the gate for a request that says this of who calls; `None` where the router has to find out, or to
    /// refuse it.
    pub(super) fn called_at_once(&self, authorization: Option<&[u8]>) -> Option<Gate> {
        let bearer = authorization.map(parse).transpose().ok()?;
        let caller = self.0.access.find(bearer).ok()?;
        Some(self.0.relay.as_caller(caller))
    }
}

/// Returns what the headers say of who calls. Where everybody is let in, nothing that they say matters.
fn bearer<'a>(access: &Access, headers: &'a HeaderMap) -> Result<Option<&'a str>, Failure> {
    if access.is_open() {
        return Ok(None);
    }
    let mut all = headers.get_all(AUTHORIZATION).iter().map(HeaderValue::as_bytes);
    match (all.next(), all.next()) {
        (None, _) => Ok(None),
        (Some(only), None) => parse(only).map(Some).map_err(Failure::from),
        (Some(_), Some(_)) => Err(Problem::field("Authorization", "is there twice").into()),
    }
}

/// Parses the header (RFC 6750 section 2.1).
fn parse(text: &[u8]) -> Result<&str, Box<Problem>> {
    let text = std::str::from_utf8(text).ok();
    let (scheme, bearer) = text.and_then(|text| text.split_once(' ')).unwrap_or_default();
    let bearer = bearer.trim_matches(' ');
    if scheme.eq_ignore_ascii_case("bearer") && !bearer.is_empty() {
        return Ok(bearer);
    }
    let mut problem = Problem::new(
        Code::Unauthenticated,
        "`Authorization` must be `Bearer` and a token or a JWT behind it",
    );
    problem.field = Some("Authorization".to_owned());
    Err(Box::new(problem))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_a_scheme_and_a_text() {
        for (text, bearer) in [
            (&b"Bearer abc"[..], Some("abc")),
            (b"bearer  abc ", Some("abc")),
            (b"BEARER a b", Some("a b")),
            (b"Bearer", None),
            (b"Bearer ", None),
            (b"Basic abc", None),
            (b"abc", None),
            (b"", None),
            (b"Bearer\tabc", None),
            (b"Bearer \xff", None),
        ] {
            assert_eq!(parse(text).ok(), bearer, "{text:?}");
        }
    }
}
