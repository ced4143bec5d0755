//! Topic names: the grammar, and the type that proves it was checked.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use crate::alphabet::{INSIDE_ONLY, is_allowed};
use crate::limits::TOPIC_NAME_BYTES_MAX;
use crate::names::BucketName;

/// The name of a topic: 1 to 255 of `A-Z a-z 0-9 _ - . :`, where `.` and `:` stand only inside.
///
/// The alphabet holds nothing that a URL path, a Valkey key, a cluster hash tag, a log line or an
/// SSE stream could misread. Cloning is cheap.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName(Arc<str>);

/// Why a text is not a topic name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TopicNameError {
    /// The name has no characters.
    #[error("is empty; a topic name has 1 to {TOPIC_NAME_BYTES_MAX} characters")]
    Empty,
    /// The name has more than [`TOPIC_NAME_BYTES_MAX`] bytes.
    #[error("is {0} bytes long; a topic name has 1 to {TOPIC_NAME_BYTES_MAX} characters")]
    TooLong(usize),
    /// A pattern in place of a name.
    #[error(
        "is a pattern, and one topic is meant; patterns stand in `GET /api/v1/stream?topics=`, `GET /api/v1/topics?match=`, in `subscribe`, and in `tidemill tail`"
    )]
    Pattern,
    /// A character outside the alphabet.
    #[error(
        "has the character {0:?} at byte {1}; allowed are letters, digits, `_`, `-`, and inside the name `.` and `:`"
    )]
    Character(char, usize),
    /// `.` or `:` at an end.
    #[error("starts or ends with `.` or `:`; these stand only inside a topic name")]
    Edge,
}

/// What the name of a bucket's log has in front: no name of another topic can hold the slash.
const LOG_PREFIX: &str = "keys/";

impl TopicName {
    /// Parses a topic name.
    ///
    /// # Errors
    /// Tells the first rule that `text` breaks.
    pub fn parse(text: &str) -> Result<Self, TopicNameError> {
        if text.is_empty() {
            return Err(TopicNameError::Empty);
        }
        if text.len() > TOPIC_NAME_BYTES_MAX {
            return Err(TopicNameError::TooLong(text.len()));
        }
        if let Some((at, character)) = text.char_indices().find(|(_, character)| !is_allowed(*character)) {
            return Err(match character {
                '*' => TopicNameError::Pattern,
                _ => TopicNameError::Character(character, at),
            });
        }
        if text.starts_with(INSIDE_ONLY) || text.ends_with(INSIDE_ONLY) {
            return Err(TopicNameError::Edge);
        }
        Ok(Self(Arc::from(text)))
    }

    /// Parses the name of a topic that is kept: also of the log of a bucket, which nobody else can name.
    #[must_use]
    pub fn parse_kept(text: &str) -> Option<Self> {
        if !text.contains('/') {
            return Self::parse(text).ok();
        }
        let bucket = BucketName::parse_kept(text.strip_prefix(LOG_PREFIX).unwrap_or(text))?;
        Some(Self::log_of(&bucket)).filter(|log| log.as_str() == text)
    }

    /// Returns the name of the log of a bucket: `keys/` and the name of the bucket; of the bucket of a room its own name.
    #[must_use]
    pub fn log_of(bucket: &BucketName) -> Self {
        match bucket.room() {
            Some(_) => Self(bucket.as_str().into()),
            None => Self(format!("{LOG_PREFIX}{bucket}").into()),
        }
    }

    /// Returns whose log it is, if it is that of a bucket.
    #[must_use]
    pub fn bucket(&self) -> Option<BucketName> {
        // Nearly every topic is none.
        if !self.0.contains('/') {
            return None;
        }
        let bucket = BucketName::parse_kept(self.0.strip_prefix(LOG_PREFIX).unwrap_or(&self.0))?;
        (Self::log_of(&bucket).as_str() == self.as_str()).then_some(bucket)
    }

    /// Returns the name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl FromStr for TopicName {
    type Err = TopicNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl std::borrow::Borrow<str> for TopicName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl Serialize for TopicName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

deserialize_from_text!(TopicName);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_grammar_are_accepted() {
        for name in ["a", "job_status", "job_status.eu-1", "a:b", "-", "_", "0", &"x".repeat(255)] {
            assert_eq!(TopicName::parse(name).map(|topic| topic.as_str().to_owned()), Ok(name.to_owned()));
        }
    }

    #[test]
    fn a_log_has_a_name_that_no_topic_can_have() {
        let bucket = BucketName::parse("flows.eu").expect("a name");
        let log = TopicName::log_of(&bucket);
        assert_eq!((log.as_str(), log.bucket()), ("keys/flows.eu", Some(bucket)));
        assert!(TopicName::parse(log.as_str()).is_err());
        assert_eq!(TopicName::parse_kept(log.as_str()), Some(log));
        let topic = TopicName::parse("flows").expect("a name");
        assert_eq!((TopicName::parse_kept("flows"), topic.bucket()), (Some(topic), None));
        for text in ["", "keys/", "keys/a/b", "keys/presence/a", "presence/", "locks/a", "/a"] {
            assert_eq!(TopicName::parse_kept(text), None, "{text}");
        }
    }

    #[test]
    fn everything_else_names_its_rule() {
        assert_eq!(TopicName::parse(""), Err(TopicNameError::Empty));
        assert_eq!(TopicName::parse(&"x".repeat(256)), Err(TopicNameError::TooLong(256)));
        for (name, character, at) in [
            ("a/b", '/', 1),
            ("$all", '$', 0),
            ("a b", ' ', 1),
            ("a\r\nb", '\r', 1),
            ("a{b}", '{', 1),
            ("é", 'é', 0),
            ("a\0", '\0', 1),
            ("a%2f", '%', 1),
            ("a\u{2028}", '\u{2028}', 1),
        ] {
            assert_eq!(TopicName::parse(name), Err(TopicNameError::Character(character, at)), "{name:?}");
        }
        for name in [".", "..", ".a", "a.", ":a", "a:"] {
            assert_eq!(TopicName::parse(name), Err(TopicNameError::Edge), "{name:?}");
        }
    }
}
