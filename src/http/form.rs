//! Forms: bodies as HTML pages and OAuth 2.0 clients send them, `application/x-www-form-urlencoded`.
//!
//! It must not know what the fields mean.

use std::borrow::Cow;

use axum::http::HeaderMap;
use tidemill_proto::{Code, Problem, content_type};
use url::form_urlencoded;

use super::media::{self, Media};
use super::names::nearest;
use crate::relay::Failure;

/// The content type of forms.
const FORM: &str = "application/x-www-form-urlencoded";

/// Checks that a body is a form.
///
/// # Errors
/// It says that it is something else, or nothing.
pub(super) fn require(headers: &HeaderMap) -> Result<(), Failure> {
    match media::of(headers)? {
        Media::Other(text) if content_type::essence(text).eq_ignore_ascii_case(FORM) => Ok(()),
        Media::Other(_) | Media::Json(_) | Media::Ndjson | Media::Unnamed => {
            let detail = format!("this path takes a form, `Content-Type: {FORM}`");
            Err(Problem::new(Code::UnsupportedMediaType, detail).into())
        }
    }
}

/// Parses a form with some of the fields `names` and no others, each at most once.
///
/// # Errors
/// A field is unknown or there twice.
pub(super) fn fields<'a, const N: usize>(
    form: &'a [u8],
    names: [&'static str; N],
) -> Result<[Option<Cow<'a, str>>; N], Failure> {
    let mut values = [const { None }; N];
    for (name, value) in form_urlencoded::parse(form) {
        let Some(at) = names.iter().position(|known| *known == name) else {
            let rule = format!("is unknown here{}", nearest(&name, &names));
            return Err(Problem::field(name, rule).into());
        };
        if values[at].is_some() {
            return Err(Problem::field(name, "is there twice").into());
        }
        values[at] = Some(value);
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use axum::http::header::CONTENT_TYPE;

    use super::*;

    fn read(form: &str) -> Result<[Option<String>; 2], String> {
        let read = fields(form.as_bytes(), ["username", "password"]);
        read.map(|values| values.map(|value| value.map(Cow::into_owned))).map_err(|error| error.to_string())
    }

    #[test]
    fn fields_are_decoded_as_browsers_write_them() {
        let [name, password] = read("username=a%40b+c&password=%C3%A9%26%3D%2B").expect("a form");
        assert_eq!((name.as_deref(), password.as_deref()), (Some("a@b c"), Some("\u{e9}&=+")));
        assert_eq!(read(""), Ok([None, None]));
        assert_eq!(read("username="), Ok([Some(String::new()), None]));
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert_eq!(read("usrname=a"), Err("`usrname` is unknown here; did you mean `username`?".to_owned()));
        assert_eq!(read("password=a&password=a"), Err("`password` is there twice".to_owned()));
    }

    #[test]
    fn a_form_says_that_it_is_one() {
        for (kind, is_taken) in [
            (Some("application/x-www-form-urlencoded"), true),
            (Some("Application/X-WWW-Form-Urlencoded; charset=utf-8"), true),
            (Some("application/json"), false),
            (Some("multipart/form-data; boundary=x"), false),
            (None, false),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(kind) = kind {
                headers.insert(CONTENT_TYPE, kind.parse().expect("a header value"));
            }
            assert_eq!(require(&headers).is_ok(), is_taken, "{kind:?}");
        }
    }
}
