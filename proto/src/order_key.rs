//! Order keys: messages of a topic that have the same one are worked on one after the other, by groups that ask for it.

use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use crate::limits::ORDER_KEY_BYTES_MAX;

/// An order key: 1 to [`ORDER_KEY_BYTES_MAX`] bytes of text in UTF-8 without control characters.
///
/// **Invariant:** since it has none, whatever is written behind it with one in between cannot be taken for a part of it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OrderKey(Arc<str>);

/// Why a text is no order key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OrderKeyError {
    /// It has none or too many bytes.
    #[error("has {0} bytes; an order key has 1 to {ORDER_KEY_BYTES_MAX}")]
    Length(usize),
    /// It has a control character.
    #[error("has a control character at byte {0}; an order key has none")]
    Control(usize),
    /// It is no text.
    #[error("is not UTF-8")]
    NoText,
}

impl OrderKey {
    /// Parses a key.
    ///
    /// # Errors
    /// Tells the rule that `text` breaks.
    pub fn parse(text: &str) -> Result<Self, OrderKeyError> {
        if !(1..=ORDER_KEY_BYTES_MAX).contains(&text.len()) {
            return Err(OrderKeyError::Length(text.len()));
        }
        match text.char_indices().find(|(_, character)| character.is_control()) {
            Some((at, _)) => Err(OrderKeyError::Control(at)),
            None => Ok(Self(text.into())),
        }
    }

    /// Parses a key that comes as bytes, as a header does.
    ///
    /// # Errors
    /// Tells the rule that they break.
    pub fn parse_bytes(bytes: &[u8]) -> Result<Self, OrderKeyError> {
        Self::parse(std::str::from_utf8(bytes).map_err(|_| OrderKeyError::NoText)?)
    }

    /// Returns it as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for OrderKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for OrderKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl Serialize for OrderKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

deserialize_from_text!(OrderKey);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_any_text_without_control_characters() {
        for text in ["a", "user 7", "{a}:b/\u{e9}", "\"", &"k".repeat(ORDER_KEY_BYTES_MAX)] {
            assert_eq!(OrderKey::parse(text).map(|key| key.to_string()).as_deref(), Ok(text));
        }
        assert_eq!(OrderKey::parse(""), Err(OrderKeyError::Length(0)));
        assert_eq!(OrderKey::parse(&"\u{e9}".repeat(129)), Err(OrderKeyError::Length(258)));
        for text in ["a\0", "a\n", "a\x7f", "a\u{85}"] {
            assert_eq!(OrderKey::parse(text), Err(OrderKeyError::Control(1)), "{text:?}");
        }
        assert_eq!(OrderKey::parse_bytes(b"\xff"), Err(OrderKeyError::NoText));
    }
}
