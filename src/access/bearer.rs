//! What a head says of who calls, in `Authorization`: a token or a JWT (RFC 6750 section 2.1), or a user's name and
//! password (RFC 7617).
//!
//! It must not know how a head is read, nor what a token is.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::SecretString;
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
            .ok_or_else(|| unauthenticated(FIELD, "must be `Bearer` and a token or a JWT behind it; a user's name and password (`Basic`) count where users, tokens, roles and tickets are made, shown and changed")),
        (Some(_), Some(_)) => Err(Box::new(Problem::field(FIELD, "is there twice"))),
    }
}

/// Returns the name and the password behind `Basic` in the one header `Authorization`; `None` where there is none of
/// that scheme.
///
/// # Errors
/// What stands behind it has another form.
pub fn basic<'a>(
    headers: impl IntoIterator<Item = &'a [u8]>,
) -> Result<Option<(String, SecretString)>, Box<Problem>> {
    let mut headers = headers.into_iter();
    let (Some(only), None) = (headers.next(), headers.next()) else { return Ok(None) };
    let Some((scheme, text)) = only.split_at_checked("basic ".len()) else { return Ok(None) };
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return Ok(None);
    }
    let read = STANDARD.decode(text.trim_ascii()).ok().and_then(|text| String::from_utf8(text).ok());
    let parted = read.as_deref().and_then(|text| text.split_once(':'));
    let (name, password) = parted.ok_or_else(|| {
        unauthenticated(FIELD, "must have a user's name, `:` and its password in base64 behind `Basic`")
    })?;
    Ok(Some((name.to_owned(), SecretString::from(password))))
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
    use proptest::prelude::*;

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

    proptest! {
        #[test]
        fn whatever_stands_there_a_bearer_is_a_part_of_it(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            for text in [bytes.clone(), [b"Bearer ", &bytes[..]].concat(), [b"Basic ", &bytes[..]].concat()] {
                if let Ok(Some(shown)) = bearer([&text[..]]) {
                    prop_assert!(!shown.is_empty() && shown == shown.trim_matches(' '));
                    prop_assert!(text.ends_with(shown.as_bytes()) || text.ends_with(b" "));
                }
                // Nor does anything make this fall over.
                let _ = basic([&text[..]]);
            }
        }
    }

    #[test]
    fn a_name_and_a_password_stand_behind_basic() {
        use secrecy::ExposeSecret as _;

        // `ann:a:b`, and `ann`.
        for (text, expected) in [
            (&b"Basic YW5uOmE6Yg=="[..], Ok(Some(("ann", "a:b")))),
            (b"bASIC  YW5uOmE6Yg== ", Ok(Some(("ann", "a:b")))),
            (b"Bearer YW5uOmE6Yg==", Ok(None)),
            (b"Basic", Ok(None)),
            (b"Basic YW5u", Err(Code::Unauthenticated)),
            (b"Basic YW5uOmE6Yg", Err(Code::Unauthenticated)),
            (b"Basic gIA6", Err(Code::Unauthenticated)),
            (b"Basic ", Err(Code::Unauthenticated)),
        ] {
            let read = basic([text]).map_err(|problem| problem.code);
            let read =
                read.map(|read| read.map(|(name, password)| (name, password.expose_secret().to_owned())));
            let expected =
                expected.map(|one| one.map(|(name, password)| (name.to_owned(), password.to_owned())));
            assert_eq!(read, expected, "{text:?}");
        }
        assert_eq!(
            basic([&b"Basic YW5uOmE6Yg=="[..], b"Basic YW5uOmE6Yg=="]).map(|read| read.is_none()),
            Ok(true)
        );
    }
}
