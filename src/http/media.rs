//! Content types, of requests above all.

use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue};
use tidemill_proto::{Code, Problem, content_type};

use crate::relay::Failure;

/// The content type of JSON, as the relay writes it.
pub(super) const APPLICATION_JSON: HeaderValue = HeaderValue::from_static("application/json");

/// What a body is taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Media<'a> {
    /// JSON, as the publisher called it.
    Json(&'a str),
    /// One JSON value a line.
    Ndjson,
    /// Anything else, as the publisher called it.
    Other(&'a str),
    /// Bytes that nobody has named.
    Unnamed,
}

/// Returns what the headers say the body is.
///
/// # Errors
/// There are two content types, or one that is not text.
pub(super) fn of(headers: &HeaderMap) -> Result<Media<'_>, Failure> {
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let text = match (types.next(), types.next()) {
        (None, _) => return Ok(Media::Unnamed),
        (Some(only), None) => only.to_str().ok().filter(|text| !text.is_empty()),
        (Some(_), Some(_)) => return Err(Problem::field("Content-Type", "is there twice").into()),
    };
    let text = text.ok_or_else(|| Problem::field("Content-Type", "must be a media type in ASCII"))?;
    check_charset(text)?;
    Ok(named(text))
}

/// Returns what a content type says the body is.
pub(super) fn named(text: &str) -> Media<'_> {
    // What nearly all publishers say.
    if text == content_type::JSON {
        return Media::Json(text);
    }
    let essence = content_type::essence(text);
    if is_lines(essence) {
        Media::Ndjson
    } else if content_type::is_json(text) {
        Media::Json(text)
    } else {
        Media::Other(text)
    }
}

/// What one JSON value a line is called: there is no registered name, and tools have several.
const LINES: [&str; 9] = [
    "application/x-ndjson",
    "application/ndjson",
    "application/jsonl",
    "application/x-jsonl",
    "application/jsonlines",
    "application/x-jsonlines",
    "application/json-lines",
    "text/jsonl",
    "text/ndjson",
];

/// Returns whether a media type without parameters stands for one JSON value a line.
pub(super) fn is_lines(essence: &str) -> bool {
    LINES.iter().any(|name| essence.eq_ignore_ascii_case(name))
}

/// Checks that JSON is in UTF-8, as RFC 8259 section 8.1 has it. Other bodies are kept with their type, so
/// that whoever reads them knows.
///
/// # Errors
/// It is in another charset, which the failure names.
pub(super) fn check_charset(text: &str) -> Result<(), Failure> {
    let Some(charset) = content_type::other_charset(text) else { return Ok(()) };
    if matches!(named(text), Media::Other(_)) {
        return Ok(());
    }
    let detail = format!("the body is in `{charset}`; JSON is taken in UTF-8 alone");
    Err(Problem::new(Code::UnsupportedMediaType, detail).into())
}

/// Checks that the body is JSON. A web page of any origin can send a body that does not say what it is, or
/// says that it is plain text; of JSON a browser asks the relay first.
///
/// # Errors
/// It says that it is something else, or nothing.
pub(super) fn require_json(headers: &HeaderMap) -> Result<(), Failure> {
    match of(headers)? {
        Media::Json(_) => Ok(()),
        Media::Ndjson | Media::Other(_) | Media::Unnamed => {
            let detail = "this path takes `Content-Type: application/json`, which `curl --json` says, and `curl -d` does not";
            Err(Problem::new(Code::UnsupportedMediaType, detail).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_taken_in_utf_8_alone() {
        for (text, is_taken) in [
            ("application/json", true),
            ("application/json; charset=UTF-8", true),
            ("application/json;charset=\"utf-8\"", true),
            ("application/json; a=b; Charset = utf8", true),
            ("application/json; charset=us-ascii", true),
            ("application/json; charset=iso-8859-1", false),
            ("application/geo+json; charset=utf-16", false),
            ("application/jsonl; charset=latin1", false),
            ("application/json; charset=utf-8; charset=utf-16", false),
            ("application/json; charset=utf-16; charset=utf-8", false),
            ("application/json; charset=utf-8; charset=utf8", true),
            ("application/json; a=\"b; charset=utf-16\"", true),
            ("text/plain; charset=iso-8859-1", true),
        ] {
            assert_eq!(check_charset(text).is_ok(), is_taken, "{text}");
        }
        let refused = check_charset("application/json; charset=utf-16").expect_err("not UTF-8");
        assert_eq!(refused.code(), Code::UnsupportedMediaType);
        assert!(refused.to_string().contains("`utf-16`"), "{refused}");
    }

    #[test]
    fn json_is_known_by_its_names() {
        for (text, media) in [
            ("application/json", Media::Json("application/json")),
            ("Application/JSON; charset=utf-8", Media::Json("Application/JSON; charset=utf-8")),
            ("application/geo+json", Media::Json("application/geo+json")),
            ("application/x-ndjson; charset=utf-8", Media::Ndjson),
            ("application/ndjson", Media::Ndjson),
            ("Application/JSONL", Media::Ndjson),
            ("application/json-lines", Media::Ndjson),
            ("text/jsonl", Media::Ndjson),
            ("text/plain", Media::Other("text/plain")),
            ("+json", Media::Other("+json")),
            ("image/png; a=\"b;c\"", Media::Other("image/png; a=\"b;c\"")),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, text.parse().expect("a header value"));
            assert_eq!(of(&headers).expect("a content type"), media, "{text}");
        }
        let refused = require_json(&HeaderMap::new()).expect_err("it does not say");
        assert_eq!(refused.code(), Code::UnsupportedMediaType);
    }
}
