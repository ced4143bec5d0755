//! Topic patterns: the grammar, and which topic names a pattern matches.
//!
//! It must not know what a pattern is used for.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use crate::TopicName;
use crate::alphabet::{INSIDE_ONLY, is_allowed};
use crate::limits::{TOPIC_NAME_BYTES_MAX, TOPIC_PATTERN_STARS_MAX};

/// A topic name in which 1 to 8 `*` stand for any run of characters each, also for none: `orders.*`.
///
/// With a letter in place of each `*` it is a topic name, so there is a name that it matches. Cloning is
/// cheap.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPattern(Arc<str>);

/// Why a text is not a topic pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TopicPatternError {
    /// The pattern has no characters.
    #[error("is empty; a topic pattern has 1 to {TOPIC_NAME_BYTES_MAX} characters")]
    Empty,
    /// The pattern has more than [`TOPIC_NAME_BYTES_MAX`] bytes.
    #[error("is {0} bytes long; a topic pattern has 1 to {TOPIC_NAME_BYTES_MAX} characters")]
    TooLong(usize),
    /// A character outside the alphabet.
    #[error(
        "has the character {0:?} at byte {1}; allowed are letters, digits, `_`, `-`, `*`, and inside the pattern `.` and `:`"
    )]
    Character(char, usize),
    /// `.` or `:` at an end, where no topic name has one.
    #[error("starts or ends with `.` or `:`; no topic name does, so it matches none")]
    Edge,
    /// No `*`.
    #[error("has no `*`, so it is a topic name and not a pattern")]
    Name,
    /// The pattern has more than [`TOPIC_PATTERN_STARS_MAX`] stars.
    #[error("has {0} times `*`; a topic pattern has it 1 to {TOPIC_PATTERN_STARS_MAX} times")]
    TooManyStars(usize),
}

impl TopicPattern {
    /// Parses a topic pattern.
    ///
    /// # Errors
    /// Tells the first rule that `text` breaks.
    pub fn parse(text: &str) -> Result<Self, TopicPatternError> {
        if text.is_empty() {
            return Err(TopicPatternError::Empty);
        }
        if text.len() > TOPIC_NAME_BYTES_MAX {
            return Err(TopicPatternError::TooLong(text.len()));
        }
        let foreign = |(_, character): &(usize, char)| *character != '*' && !is_allowed(*character);
        if let Some((at, character)) = text.char_indices().find(foreign) {
            return Err(TopicPatternError::Character(character, at));
        }
        if text.starts_with(INSIDE_ONLY) || text.ends_with(INSIDE_ONLY) {
            return Err(TopicPatternError::Edge);
        }
        match text.matches('*').count() {
            0 => Err(TopicPatternError::Name),
            1..=TOPIC_PATTERN_STARS_MAX => Ok(Self(Arc::from(text))),
            stars => Err(TopicPatternError::TooManyStars(stars)),
        }
    }

    /// Returns the pattern as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns what stands before the first `*`. Every name that the pattern matches begins with it.
    #[must_use]
    pub fn prefix(&self) -> &str {
        self.split().0
    }

    /// Returns whether the pattern matches a name, in time linear in the length of both.
    #[must_use]
    pub fn matches(&self, topic: &TopicName) -> bool {
        matches(&self.0, topic.as_str())
    }

    /// Returns what stands before and after the first `*`.
    fn split(&self) -> (&str, &str) {
        self.0.split_once('*').expect("a pattern has a `*`")
    }
}

/// Returns whether a pattern, in which each `*` stands for any run of characters and everything else for itself,
/// matches a text, in time linear in the length of both. One without a `*` matches itself alone.
#[must_use]
pub fn matches(pattern: &str, text: &str) -> bool {
    let Some((prefix, rest)) = pattern.split_once('*') else { return pattern == text };
    // What stands between two stars is taken where it is found first, which leaves the most to the
    // pieces that follow. So nothing is ever tried again.
    let (pieces, suffix) =
        rest.rsplit_once('*').map_or((None, rest), |(pieces, suffix)| (Some(pieces), suffix));
    let Some(mut text) = text.strip_prefix(prefix).and_then(|text| text.strip_suffix(suffix)) else {
        return false;
    };
    for piece in pieces.into_iter().flat_map(|pieces| pieces.split('*')) {
        let Some((_, after)) = text.split_once(piece) else { return false };
        text = after;
    }
    true
}

impl fmt::Display for TopicPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TopicPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl FromStr for TopicPattern {
    type Err = TopicPatternError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl Serialize for TopicPattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

deserialize_from_text!(TopicPattern);

#[cfg(feature = "openapi")]
impl utoipa::PartialSchema for TopicPattern {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .min_length(Some(1))
            .max_length(Some(TOPIC_NAME_BYTES_MAX))
            .pattern(Some(format!(
                r"^([A-Za-z0-9_-][A-Za-z0-9_.:-]*)?(\*[A-Za-z0-9_.:-]*){{0,{}}}\*([A-Za-z0-9_.:-]*[A-Za-z0-9_-])?$",
                TOPIC_PATTERN_STARS_MAX - 1
            )))
            .description(Some("The names of topics, with `*` for any run of characters."))
            .examples([serde_json::json!("earthquakes.*")])
            .into()
    }
}

#[cfg(feature = "openapi")]
impl utoipa::ToSchema for TopicPattern {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> TopicName {
        TopicName::parse(text).expect(text)
    }

    fn pattern(text: &str) -> TopicPattern {
        TopicPattern::parse(text).expect(text)
    }

    #[test]
    fn patterns_of_the_grammar_are_accepted() {
        let long = format!("{}*", "x".repeat(254));
        for text in ["*", "orders.*", "*.eu", "a:*.b", "*.*", "*:*", "-*_", "a..*", "**", "********", &long] {
            assert_eq!(TopicPattern::parse(text).map(|pattern| pattern.to_string()), Ok(text.to_owned()));
            assert_eq!(
                serde_json::from_str::<TopicPattern>(&format!("\"{text}\"")).ok(),
                Some(pattern(text))
            );
            assert_eq!(serde_json::to_string(&pattern(text)).ok(), Some(format!("\"{text}\"")));
        }
    }

    #[test]
    fn everything_else_names_its_rule() {
        assert_eq!(TopicPattern::parse(""), Err(TopicPatternError::Empty));
        assert_eq!(TopicPattern::parse(&"*".repeat(256)), Err(TopicPatternError::TooLong(256)));
        for (text, character, at) in [
            ("a/*", '/', 1),
            ("*?", '?', 1),
            ("* ", ' ', 1),
            ("é*", 'é', 0),
            ("*\n", '\n', 1),
            ("[a]*", '[', 0),
        ] {
            assert_eq!(
                TopicPattern::parse(text),
                Err(TopicPatternError::Character(character, at)),
                "{text:?}"
            );
        }
        for text in [".*", ":*", "*.", "*:", ".", "..", ".*.", "a*b."] {
            assert_eq!(TopicPattern::parse(text), Err(TopicPatternError::Edge), "{text:?}");
        }
        for text in ["a", "orders.eu", "-"] {
            assert_eq!(TopicPattern::parse(text), Err(TopicPatternError::Name), "{text:?}");
        }
        for text in ["*********", "a*b*c*d*e*f*g*h*i*j"] {
            assert_eq!(TopicPattern::parse(text), Err(TopicPatternError::TooManyStars(9)), "{text:?}");
        }
        assert!(TopicPatternError::Name.to_string().contains("is a topic name"));
        assert!(TopicPatternError::Edge.to_string().contains("matches none"));
    }

    #[test]
    fn a_star_is_any_run_of_characters() {
        for (text, matched, others) in [
            ("*", &["a", "a.b:c", "-"][..], &[][..]),
            ("**", &["a", "ab"], &[]),
            ("orders.*", &["orders.a", "orders.eu.1"], &["orders", "order.a", "aorders.b", "Orders.a"]),
            ("orders*", &["orders", "orders.a", "orders2"], &["order", "aorders"]),
            ("*.eu", &["a.eu", "a.b.eu", "eu.eu"], &["eu", "a.eu.b", "aeu"]),
            ("*eu", &["eu", "a.eu", "eueu"], &["eu.a"]),
            ("a*a", &["aa", "aba", "aaa"], &["a", "ab", "ba"]),
            ("ab*ba", &["abba", "abcba"], &["aba", "ab", "ba"]),
            ("a*b*c", &["abc", "abbc", "axbycbc"], &["acb", "ac", "abcd"]),
            ("*aab*", &["aab", "aaab", "xaaby"], &["aba", "ab"]),
            ("*ab*ab", &["abab", "abxab", "ababab"], &["ab", "aab"]),
            ("a**b", &["ab", "axb"], &["a", "b"]),
            ("*.*.*", &["a.b.c", "a..b"], &["a.b", "abc"]),
        ] {
            let pattern = pattern(text);
            for topic in matched {
                assert!(pattern.matches(&name(topic)), "{text} matches {topic}");
            }
            for topic in others {
                assert!(!pattern.matches(&name(topic)), "{text} does not match {topic}");
            }
        }
    }

    #[test]
    fn the_prefix_ends_before_the_first_star() {
        for (text, prefix) in [("*", ""), ("orders.*", "orders."), ("a*b*c", "a"), ("*a", ""), ("ab**", "ab")]
        {
            assert_eq!(pattern(text).prefix(), prefix);
        }
    }

    /// Trying every length of every run would take years.
    #[test]
    fn what_nearly_matches_in_many_ways_is_judged_at_once() {
        let topic = name(&"a".repeat(255));
        assert!(!pattern("*a*a*a*a*a*a*a*b").matches(&topic));
        assert!(pattern("*a*a*a*a*a*a*a*a").matches(&topic));
        let long = format!("{}{}", format!("*{}", "a".repeat(15)).repeat(8), "a".repeat(126));
        assert!(!pattern(&format!("{long}b")).matches(&topic));
        assert!(pattern(&format!("{long}a")).matches(&topic));
    }

    /// Tries every length of every run.
    fn matches_naively(pattern: &[u8], name: &[u8]) -> bool {
        match pattern {
            [] => name.is_empty(),
            [b'*', rest @ ..] => (0..=name.len()).any(|run| matches_naively(rest, &name[run..])),
            [byte, rest @ ..] => name.first() == Some(byte) && matches_naively(rest, &name[1..]),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_096))]

        #[test]
        fn a_pattern_matches_what_the_naive_matcher_does(
            text in "[ab_]{0,2}[*]([ab.:_*]{0,6}[ab_*])?",
            topic in "[ab_]([ab.:_]{0,8}[ab_])?",
        ) {
            let (pattern, topic) = (pattern(&text), name(&topic));
            let expected = matches_naively(text.as_bytes(), topic.as_str().as_bytes());
            prop_assert_eq!(pattern.matches(&topic), expected, "{} {}", text, topic);
            prop_assert!(!expected || topic.as_str().starts_with(pattern.prefix()));
        }

        #[test]
        fn a_pattern_is_what_can_match_a_topic_name(text in "[ab.:_*/]{0,12}") {
            let stars = text.matches('*').count();
            let matched = TopicName::parse(&text.replace('*', "a"));
            let expected = (1..=TOPIC_PATTERN_STARS_MAX).contains(&stars) && matched.is_ok();
            let pattern = TopicPattern::parse(&text);
            prop_assert_eq!(pattern.is_ok(), expected, "{}", text);
            if let (Ok(pattern), Ok(matched)) = (pattern, matched) {
                prop_assert!(pattern.matches(&matched), "{} {}", pattern, matched);
            }
        }
    }
}
