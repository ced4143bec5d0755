//! What a head says of who calls, in `Authorization` (RFC 6750 section 2.1).
//!
//! It must not know how a head is read, nor what a token is.

use tidemill_proto::{Code, Problem};

/// The field that problems name.
const FIELD: &str = "Authorization";

/// Returns the text behind `Bearer` in the one header `Authorization` that there may be.
///
/// # Errors
/// There are two, or it has another form.
pub fn bearer<'a>(headers: impl IntoIterator<Item = &'a [u8]>) -> Result<Option<&'a str>, Box<Problem>> {
    let mut headers = headers.into_iter();
    match (headers.next(), headers.next()) {
        (None, _) => Ok(None),
        (Some(only), None) => parse(only)
            .map(Some)
            .ok_or_else(|| unauthenticated(FIELD, "must be `Bearer` and a token or a JWT behind it")),
        (Some(_), Some(_)) => Err(Box::new(Problem::field(FIELD, "is there twice"))),
    }
}

/// Returns the problem of credentials in a field that break a rule.
#[must_use]
pub fn unauthenticated(field: &str, rule: &str) -> Box<Problem> {
    let mut problem = Problem::new(Code::Unauthenticated, format!("`{field}` {rule}"));
    problem.field = Some(field.to_owned());
    Box::new(problem)
}

fn parse(text: &[u8]) -> Option<&str> {
    let (scheme, bearer) = std::str::from_utf8(text).ok()?.split_once(' ')?;
    let bearer = bearer.trim_matches(' ');
    (scheme.eq_ignore_ascii_case("bearer") && !bearer.is_empty()).then_some(bearer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_a_scheme_and_a_text() {
        for (text, expected) in [
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
            assert_eq!(parse(text), expected, "{text:?}");
            let read = bearer([text]).map_err(|problem| problem.code);
            assert_eq!(read, expected.map(Some).ok_or(Code::Unauthenticated), "{text:?}");
            assert_eq!(bearer([text, text]).map_err(|problem| problem.code), Err(Code::InvalidField));
        }
        assert_eq!(bearer([]), Ok(None));
    }
}
