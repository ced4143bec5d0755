//! What must be so of a key before something is done: `If-Match` and `If-None-Match` (RFC 9110 section 13.1), whose
//! tags are revisions.
//!
//! A tag is taken with its quotes, without them, and as a weak one: there is one value of a revision, and what stands
//! between a client and the relay may weaken a tag on its way.

use axum::http::header::{IF_MATCH, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderName};
use tidemill_proto::{MessageId, Problem};

use crate::relay::{Failure, KeyCondition};

/// Returns what the headers say of a change.
///
/// # Errors
/// They say something else than one revision, or `*`; the problem names the header.
pub(super) fn of(headers: &HeaderMap) -> Result<KeyCondition, Failure> {
    let there = text_of(headers, &IF_MATCH, "If-Match")?;
    let absent = text_of(headers, &IF_NONE_MATCH, "If-None-Match")?;
    parse(["If-Match", "If-None-Match"], there, absent)
}

/// Parses the two halves of a condition, which have these names.
///
/// # Errors
/// Both are there, or one is none.
pub(super) fn parse(
    [match_name, none_name]: [&str; 2],
    there: Option<&str>,
    absent: Option<&str>,
) -> Result<KeyCondition, Failure> {
    match (there, absent) {
        (None, None) => Ok(KeyCondition::Anything),
        (Some("*"), None) => Ok(KeyCondition::Present),
        (Some(text), None) => tag(text).map(KeyCondition::Revision).ok_or_else(|| {
            let rule = "must be `*`, or one revision, as an `ETag` has it: `\"1770000000000-0\"`";
            Problem::field(match_name, rule).into()
        }),
        (None, Some("*")) => Ok(KeyCondition::Absent),
        (None, Some(_)) => {
            let rule = "can only be `*` here: the key must not be there";
            Err(Problem::field(none_name, rule).into())
        }
        (Some(_), Some(_)) => {
            let rule = format!("stands beside `{match_name}`; a change has one condition");
            Err(Problem::field(none_name, rule).into())
        }
    }
}

/// What a reader has already.
#[derive(Debug)]
pub(super) enum Known {
    /// Whatever there is.
    Any,
    /// These revisions.
    Revisions(Vec<MessageId>),
}

impl Known {
    pub(super) fn has(&self, revision: MessageId) -> bool {
        match self {
            Self::Any => true,
            Self::Revisions(known) => known.contains(&revision),
        }
    }
}

/// Returns what a reader has already, if it says so. A tag that is no revision is none of ours.
///
/// # Errors
/// The header is no text.
pub(super) fn known(headers: &HeaderMap) -> Result<Option<Known>, Failure> {
    if !headers.contains_key(IF_NONE_MATCH) {
        return Ok(None);
    }
    let mut revisions = Vec::new();
    for value in headers.get_all(IF_NONE_MATCH) {
        let text = value.to_str().map_err(|_| Problem::field("If-None-Match", "must be a text in ASCII"))?;
        if text.split(',').any(|tag| tag.trim() == "*") {
            return Ok(Some(Known::Any));
        }
        revisions.extend(text.split(',').filter_map(tag));
    }
    Ok(Some(Known::Revisions(revisions)))
}

fn text_of<'a>(headers: &'a HeaderMap, name: &HeaderName, field: &str) -> Result<Option<&'a str>, Failure> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        // What is no text is no tag either.
        (Some(value), None) => Ok(Some(value.to_str().unwrap_or_default().trim())),
        (Some(_), Some(_)) => Err(Problem::field(field, "is there twice").into()),
    }
}

fn tag(text: &str) -> Option<MessageId> {
    let text = text.trim();
    let text = text.strip_prefix("W/").unwrap_or(text);
    let inner = text.strip_prefix('"').map_or(Some(text), |rest| rest.strip_suffix('"'))?;
    MessageId::parse(inner).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().expect("a value"));
        }
        headers
    }

    #[test]
    fn a_change_has_one_condition() {
        let revision = KeyCondition::Revision(MessageId::new(5, 1));
        for (lines, expected) in [
            (&[][..], KeyCondition::Anything),
            (&[("if-match", "\"5-1\"")], revision),
            (&[("if-match", "5-1")], revision),
            (&[("if-match", "W/\"5-1\"")], revision),
            (&[("if-match", "*")], KeyCondition::Present),
            (&[("if-none-match", "*")], KeyCondition::Absent),
        ] {
            assert_eq!(of(&headers(lines)).expect("a condition"), expected, "{lines:?}");
        }
        for (lines, field) in [
            (&[("if-match", "\"5-1")][..], "If-Match"),
            (&[("if-match", "\"5-1\", \"5-2\"")], "If-Match"),
            (&[("if-match", "\"abc\"")], "If-Match"),
            (&[("if-match", "")], "If-Match"),
            (&[("if-match", "5-1"), ("if-match", "5-1")], "If-Match"),
            (&[("if-none-match", "\"5-1\"")], "If-None-Match"),
            (&[("if-none-match", "*"), ("if-match", "*")], "If-None-Match"),
        ] {
            let failure = of(&headers(lines)).expect_err("no condition");
            assert_eq!(failure.problem().field.as_deref(), Some(field), "{lines:?}");
        }
    }

    #[test]
    fn a_reader_says_what_it_has() {
        let has = |value: &'static str| {
            let known = known(&headers(&[("if-none-match", value)])).expect("a text");
            known.expect("it is said").has(MessageId::new(5, 1))
        };
        for value in ["\"5-1\"", "W/\"5-1\"", "\"4-0\", \"5-1\"", "*"] {
            assert!(has(value), "{value}");
        }
        for value in ["\"5-2\"", "\"x\"", ""] {
            assert!(!has(value), "{value}");
        }
        assert!(known(&HeaderMap::new()).expect("nothing is said").is_none());
    }
}
