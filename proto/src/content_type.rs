//! What a content type says of the bytes beside it, as far as a relay has to know: whether they are JSON,
//! and whether they are text in UTF-8 (RFC 9110 section 8.3, RFC 6839 section 3.1).
//!
//! It reads no bytes, and must not know who has sent them.

use crate::quoted;

/// The content type of JSON.
pub const JSON: &str = "application/json";
/// The content type of text that was published without one.
pub const TEXT: &str = "text/plain; charset=utf-8";
/// The content type of bytes that were published without one.
pub const BYTES: &str = "application/octet-stream";

/// Returns whether a content type names JSON: `application/json`, or any that ends in `+json`.
#[must_use]
pub fn is_json(text: &str) -> bool {
    if text == JSON {
        return true;
    }
    let essence = essence(text);
    essence.eq_ignore_ascii_case(JSON) || has_suffix(essence, "+json")
}

/// Returns whether a content type of JSON says nothing that is not known without it, so that it need not
/// be kept: `application/json`, in UTF-8, as all JSON is.
#[must_use]
pub fn is_plain_json(text: &str) -> bool {
    text == JSON
        || essence(text).eq_ignore_ascii_case(JSON)
            && parameters(text).all(|(name, value)| is_utf8(name, value))
}

/// Returns whether a content type names text in UTF-8: `text/…`, in no other charset.
#[must_use]
pub fn is_text(text: &str) -> bool {
    let is_text = essence(text).as_bytes().get(..5).is_some_and(|start| start.eq_ignore_ascii_case(b"text/"));
    is_text && other_charset(text).is_none()
}

/// Returns a charset that a content type names, and whose texts are not texts in UTF-8. Of several, none may be
/// such a one: programs differ in which they go by.
#[must_use]
pub fn other_charset(text: &str) -> Option<&str> {
    let is_charset =
        |(name, value): &(&str, &str)| name.eq_ignore_ascii_case("charset") && !is_utf8(name, value);
    parameters(text).find(is_charset).map(|(_, charset)| charset)
}

/// Returns the type itself, without what follows it.
#[must_use]
pub fn essence(text: &str) -> &str {
    text.split(';').next().unwrap_or_default().trim()
}

/// Returns the parameters. Most types have none, which costs no reading of quotes.
fn parameters(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let text = if text.contains(';') { text } else { "" };
    quoted::split(text, b';').skip(1).map(str::trim).filter(|part| !part.is_empty()).map(|part| {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        (name.trim(), value.trim().trim_matches('"'))
    })
}

/// Returns whether a parameter is a charset whose texts are texts in UTF-8.
fn is_utf8(name: &str, value: &str) -> bool {
    name.eq_ignore_ascii_case("charset")
        && ["utf-8", "utf8", "us-ascii"].iter().any(|known| value.eq_ignore_ascii_case(known))
}

fn has_suffix(essence: &str, suffix: &str) -> bool {
    let start = essence.len().checked_sub(suffix.len()).filter(|start| *start > 0);
    start.is_some_and(|start| essence.as_bytes()[start..].eq_ignore_ascii_case(suffix.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_known_by_its_names() {
        for (text, json, plain) in [
            ("application/json", true, true),
            (" Application/JSON ; charset=\"UTF-8\"", true, true),
            ("application/json; profile=\"a;charset=utf-8\"", true, false),
            ("application/json;charset=utf-16", true, false),
            ("application/cloudevents+json", true, false),
            ("application/geo+JSON; charset=utf-8", true, false),
            ("application/x-ndjson", false, false),
            ("text/json", false, false),
            ("+json", false, false),
            ("", false, false),
            ("é+json", true, false),
            ("éjson", false, false),
        ] {
            assert_eq!((is_json(text), is_plain_json(text)), (json, plain), "{text}");
        }
    }

    #[test]
    fn text_is_known_by_its_charset() {
        for (text, is) in [
            ("text/plain", true),
            ("TEXT/html; charset=utf-8", true),
            ("text/csv; header=present", true),
            ("text/plain; charset=\"us-ascii\"", true),
            ("text/plain; charset=iso-8859-1", false),
            ("text/plain; charset", false),
            ("text/plain; charset=utf-8; charset=latin1", false),
            ("text/plain; charset=utf-8; Charset=UTF8", true),
            ("text/plain; a=\"b; charset=latin1\"", true),
            ("application/xml", false),
            ("text", false),
        ] {
            assert_eq!(is_text(text), is, "{text}");
        }
    }
}
