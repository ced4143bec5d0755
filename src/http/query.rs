//! Query strings: known parameters, each at most once.

use std::borrow::Cow;

use axum::http::Uri;
use tidemill_proto::Problem;
use url::form_urlencoded;

use super::names::nearest;
use crate::relay::Failure;

/// Parses a query with some of the parameters `names` and no others.
///
/// # Errors
/// A parameter is unknown or there twice.
pub(super) fn parameters<'a, const N: usize>(
    uri: &'a Uri,
    names: [&'static str; N],
) -> Result<[Option<Cow<'a, str>>; N], Failure> {
    let mut values = [const { None }; N];
    let query = uri.query().unwrap_or_default();
    if query.is_empty() {
        return Ok(values);
    }
    for part in query.split('&').filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let name = decode(name);
        let Some(at) = names.iter().position(|known| *known == name) else {
            let rule = if matches!(&*name, "token" | "access_token") {
                "is not a parameter: send it as `Authorization: Bearer`, for URLs stand in logs; a page that can send no header asks for a ticket (`POST /api/v1/tickets`)".to_owned()
            } else {
                format!("is not a parameter of this path{}", nearest(&name, &names))
            };
            return Err(Problem::field(name, rule).into());
        };
        if values[at].is_some() {
            return Err(Problem::field(name, "is there twice").into());
        }
        values[at] = Some(decode(value));
    }
    Ok(values)
}

/// Parses a number of results within `1..=max`.
///
/// # Errors
/// The text is no such number.
pub(super) fn limit(text: Option<&str>, default: usize, max: usize) -> Result<usize, Failure> {
    let Some(text) = text else { return Ok(default) };
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(limit) if digits && (1..=max).contains(&limit) => Ok(limit),
        _ => Err(Problem::field("limit", format_args!("must be a whole number from 1 to {max}")).into()),
    }
}

/// Parses a switch that is off where it is not written.
///
/// # Errors
/// The text is neither `true` nor `false`.
pub(super) fn switch(field: &str, text: Option<&str>) -> Result<bool, Failure> {
    match text {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => Err(Problem::field(field, "must be `true` or `false`").into()),
    }
}

/// Decodes percent escapes. A plus sign stays one: no parameter has blanks, but the offset of a time
/// has a plus that many write without an escape.
fn decode(text: &str) -> Cow<'_, str> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text);
    }
    let escaped = text.replace('+', "%2B").replace('=', "%3D");
    let whole = form_urlencoded::parse(escaped.as_bytes()).next();
    Cow::Owned(whole.map(|(name, _)| name.into_owned()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Result<[Option<String>; 2], String> {
        let uri: Uri = format!("/x?{query}").parse().expect("a valid path");
        parameters(&uri, ["limit", "after"])
            .map(|values| values.map(|value| value.map(Cow::into_owned)))
            .map_err(|failure| failure.to_string())
    }

    #[test]
    fn values_are_decoded_and_a_plus_stays() {
        let after = |text: &str| Ok([None, Some(text.to_owned())]);
        assert_eq!(read("after=2026-01-01T00:00:00+01:00"), after("2026-01-01T00:00:00+01:00"));
        assert_eq!(read("after=2026-01-01T00%3A00%3A00%2B01:00"), after("2026-01-01T00:00:00+01:00"));
        assert_eq!(read("&after=a=%3Db%26c&"), after("a==b&c"));
        assert_eq!(read(""), Ok([None, None]));
    }

    #[test]
    fn unknown_and_repeated_parameters_are_named() {
        assert_eq!(
            read("limt=1"),
            Err("`limt` is not a parameter of this path; did you mean `limit`?".to_owned())
        );
        assert_eq!(read("limit=1&limit=1"), Err("`limit` is there twice".to_owned()));
    }
}
