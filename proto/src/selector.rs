//! Selectors: where a topic name may stand, and a pattern in its place.
//!
//! It must not know what is done with the topics.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};
#[cfg(feature = "openapi")]
use utoipa::{PartialSchema as _, ToSchema as _};

use crate::pattern::TopicPatternError;
use crate::topic::TopicNameError;
use crate::{TopicName, TopicPattern};

/// The topics that a client speaks of: one by its name, or all whose names a pattern matches.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TopicSelector {
    /// One topic.
    Topic(TopicName),
    /// Every topic whose name it matches.
    Pattern(TopicPattern),
}

/// Why a text is neither a topic name nor a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TopicSelectorError {
    /// It has no `*`, and is not a topic name.
    #[error(transparent)]
    Topic(#[from] TopicNameError),
    /// It has a `*`, and is not a pattern.
    #[error(transparent)]
    Pattern(#[from] TopicPatternError),
}

impl TopicSelector {
    /// Parses a topic name, or a pattern if `text` has a `*`.
    ///
    /// # Errors
    /// Tells the first rule that `text` breaks.
    pub fn parse(text: &str) -> Result<Self, TopicSelectorError> {
        if text.contains('*') {
            Ok(Self::Pattern(TopicPattern::parse(text)?))
        } else {
            Ok(Self::Topic(TopicName::parse(text)?))
        }
    }

    /// Returns the name or the pattern as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Topic(topic) => topic.as_str(),
            Self::Pattern(pattern) => pattern.as_str(),
        }
    }

    /// Returns what every selected name begins with.
    #[must_use]
    pub fn prefix(&self) -> &str {
        match self {
            Self::Topic(topic) => topic.as_str(),
            Self::Pattern(pattern) => pattern.prefix(),
        }
    }

    /// Returns whether a topic of this name is selected, in time linear in the length of both.
    #[must_use]
    pub fn matches(&self, name: &TopicName) -> bool {
        match self {
            Self::Topic(topic) => topic == name,
            Self::Pattern(pattern) => pattern.matches(name),
        }
    }
}

impl From<TopicName> for TopicSelector {
    fn from(topic: TopicName) -> Self {
        Self::Topic(topic)
    }
}

impl From<TopicPattern> for TopicSelector {
    fn from(pattern: TopicPattern) -> Self {
        Self::Pattern(pattern)
    }
}

impl fmt::Display for TopicSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for TopicSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl FromStr for TopicSelector {
    type Err = TopicSelectorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl Serialize for TopicSelector {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

deserialize_from_text!(TopicSelector);

#[cfg(feature = "openapi")]
impl utoipa::PartialSchema for TopicSelector {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        let reference = |name| utoipa::openapi::Ref::from_schema_name(name);
        utoipa::openapi::OneOfBuilder::new()
            .item(reference(TopicName::name()))
            .item(reference(TopicPattern::name()))
            .description(Some("The name of a topic, or a pattern."))
            .into()
    }
}

#[cfg(feature = "openapi")]
impl utoipa::ToSchema for TopicSelector {
    fn schemas(schemas: &mut Vec<(String, utoipa::openapi::RefOr<utoipa::openapi::Schema>)>) {
        schemas.push((TopicName::name().into_owned(), TopicName::schema()));
        schemas.push((TopicPattern::name().into_owned(), TopicPattern::schema()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selector(text: &str) -> TopicSelector {
        TopicSelector::parse(text).expect(text)
    }

    #[test]
    fn a_text_with_a_star_is_a_pattern() {
        let topic = TopicName::parse("orders.eu").expect("a valid name");
        let pattern = TopicPattern::parse("orders.*").expect("a valid pattern");
        assert_eq!(selector("orders.eu"), TopicSelector::from(topic));
        assert_eq!(selector("orders.*"), TopicSelector::from(pattern));
        for text in ["orders.eu", "orders.*", "*"] {
            assert_eq!(selector(text).to_string(), text);
            assert_eq!(serde_json::to_string(&selector(text)).ok(), Some(format!("\"{text}\"")));
            assert_eq!(serde_json::from_str(&format!("\"{text}\"")).ok(), Some(selector(text)));
        }
    }

    #[test]
    fn other_texts_name_the_rule_of_what_they_would_be() {
        assert_eq!(TopicSelector::parse(""), Err(TopicNameError::Empty.into()));
        assert_eq!(TopicSelector::parse("a."), Err(TopicNameError::Edge.into()));
        assert_eq!(TopicSelector::parse("a b"), Err(TopicNameError::Character(' ', 1).into()));
        assert_eq!(TopicSelector::parse("*."), Err(TopicPatternError::Edge.into()));
        assert_eq!(TopicSelector::parse("* b"), Err(TopicPatternError::Character(' ', 1).into()));
        assert_eq!(TopicSelector::parse(&"*".repeat(9)), Err(TopicPatternError::TooManyStars(9).into()));
    }

    #[test]
    fn a_name_selects_itself_and_a_pattern_what_it_matches() {
        let [a, ab] = ["a", "ab"].map(|text| TopicName::parse(text).expect("a valid name"));
        assert!(selector("a").matches(&a) && !selector("a").matches(&ab));
        assert!(selector("a*").matches(&a) && selector("a*").matches(&ab));
        assert_eq!((selector("ab").prefix(), selector("a*b").prefix()), ("ab", "a"));
    }
}
