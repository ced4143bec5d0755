//! Cursors of readers of a pattern: texts that a client keeps and hands back.
//!
//! It must not know what stands in them.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Serialize, Serializer};

/// Where a reader of a pattern of topics goes on. Cloning is cheap.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PatternCursor(Arc<str>);

/// A text is not the cursor of a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "is not the cursor of a pattern; hand it back as the relay gave it, or write `earliest`, `latest` or a time"
)]
pub struct PatternCursorError;

impl PatternCursor {
    /// What every cursor of a pattern begins with.
    pub const PREFIX: &'static str = "p1.";
    /// Longest text in bytes: it travels in a header beside others.
    pub const BYTES_MAX: usize = 4_096;

    /// Parses a cursor, as far as a client can.
    ///
    /// # Errors
    /// The text is too long, or has other characters.
    pub fn parse(text: &str) -> Result<Self, PatternCursorError> {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        let rest = text.strip_prefix(Self::PREFIX).ok_or(PatternCursorError)?;
        let is_one = text.len() <= Self::BYTES_MAX && !rest.is_empty() && rest.bytes().all(is_allowed);
        if is_one { Ok(Self(text.into())) } else { Err(PatternCursorError) }
    }

    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PatternCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for PatternCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl FromStr for PatternCursor {
    type Err = PatternCursorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl Serialize for PatternCursor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

deserialize_from_text!(PatternCursor);

#[cfg(feature = "openapi")]
impl utoipa::PartialSchema for PatternCursor {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .min_length(Some(Self::PREFIX.len() + 1))
            .max_length(Some(Self::BYTES_MAX))
            .pattern(Some(r"^p1\.[A-Za-z0-9_-]+$"))
            .description(Some("Where a reader of a pattern goes on; opaque, and of one pattern."))
            .examples([serde_json::json!("p1.AZvK4nQAAAA")])
            .into()
    }
}

#[cfg(feature = "openapi")]
impl utoipa::ToSchema for PatternCursor {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_a_short_text_of_few_characters() {
        assert!(PatternCursor::parse("p1.AbZ_-9").is_ok());
        let long = format!("p1.{}", "A".repeat(PatternCursor::BYTES_MAX));
        for text in ["", "p1.", "p2.A", "1-0", "latest", "p1.A\n", "p1.A=", "P1.A", &long] {
            assert_eq!(PatternCursor::parse(text), Err(PatternCursorError), "{text}");
        }
    }
}
