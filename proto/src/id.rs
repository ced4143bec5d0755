//! Message ids: the id of a stream entry, opaque to clients, ordered within a topic.

use std::fmt;
use std::ops::Deref;
use std::str::FromStr;

use arrayvec::ArrayString;
use serde::{Serialize, Serializer};

/// The id of a message: `<ms>-<seq>`, the stream entry id that the backend gave it.
///
/// Ids are strictly increasing within a topic. The first part is the backend's clock in Unix
/// milliseconds at the time of the append (later, where the clock went back), the second a counter
/// within that millisecond. Order is numeric, not lexical.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId {
    /// Unix milliseconds.
    pub ms: u64,
    /// Counter within the millisecond.
    pub seq: u64,
}

/// A text is not a message id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "is not a message id; a message id has the form `<ms>-<seq>`, as in `1517363399650-0`, of two numbers from 0 to 18446744073709551615"
)]
pub struct MessageIdError;

impl MessageId {
    /// Lies before every message: no backend gives this id.
    pub const MIN: Self = Self { ms: 0, seq: 0 };
    /// Lies after every message but one that a foreign producer may have made.
    pub const MAX: Self = Self { ms: u64::MAX, seq: u64::MAX };
    /// Longest text of an id in bytes: two 20-digit numbers and the dash.
    pub const TEXT_BYTES_MAX: usize = 41;

    /// Returns an id from its two parts.
    #[must_use]
    pub const fn new(ms: u64, seq: u64) -> Self {
        Self { ms, seq }
    }

    /// Parses `<ms>-<seq>`: decimal digits only, no sign, no blanks.
    ///
    /// # Errors
    /// The text has another form, or a part is larger than 64 bits.
    pub fn parse(text: &str) -> Result<Self, MessageIdError> {
        let number = |part: &str| {
            let digits = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
            if digits { part.parse::<u64>().map_err(|_| MessageIdError) } else { Err(MessageIdError) }
        };
        let (ms, seq) = text.split_once('-').ok_or(MessageIdError)?;
        Ok(Self { ms: number(ms)?, seq: number(seq)? })
    }

    /// Returns the text, `<ms>-<seq>`.
    #[must_use]
    pub fn text(self) -> impl Deref<Target = str> {
        let mut text = ArrayString::<{ Self::TEXT_BYTES_MAX }>::new();
        text.push_str(itoa::Buffer::new().format(self.ms));
        text.push('-');
        text.push_str(itoa::Buffer::new().format(self.seq));
        text
    }

    /// Returns the next possible id, or `None` after the last one.
    #[must_use]
    pub const fn next(self) -> Option<Self> {
        match (self.seq.checked_add(1), self.ms.checked_add(1)) {
            (Some(seq), _) => Some(Self { ms: self.ms, seq }),
            (None, Some(ms)) => Some(Self { ms, seq: 0 }),
            (None, None) => None,
        }
    }

    /// Returns the id just before, or `None` before the first one.
    #[must_use]
    pub const fn previous(self) -> Option<Self> {
        match (self.seq.checked_sub(1), self.ms.checked_sub(1)) {
            (Some(seq), _) => Some(Self { ms: self.ms, seq }),
            (None, Some(ms)) => Some(Self { ms, seq: u64::MAX }),
            (None, None) => None,
        }
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

impl FromStr for MessageId {
    type Err = MessageIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl Serialize for MessageId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text())
    }
}

deserialize_from_text!(MessageId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_its_text() {
        for id in [MessageId::MIN, MessageId::new(1_517_363_399_650, 7), MessageId::MAX] {
            assert_eq!(MessageId::parse(&id.to_string()), Ok(id));
        }
        assert_eq!(MessageId::MAX.to_string().len(), MessageId::TEXT_BYTES_MAX);
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "-",
            "1",
            "1-",
            "-1",
            "1-2-3",
            "+1-0",
            " 1-0",
            "1-0 ",
            "a-0",
            "$",
            "18446744073709551616-0",
            "1517363399650-*",
        ] {
            assert_eq!(MessageId::parse(text), Err(MessageIdError), "{text:?}");
        }
    }

    #[test]
    fn order_is_numeric_and_neighbours_meet() {
        assert!(MessageId::new(9, 0) < MessageId::new(10, 0));
        assert!(MessageId::new(1, 9) < MessageId::new(1, 10));
        let edge = MessageId::new(4, u64::MAX);
        assert_eq!(edge.next(), Some(MessageId::new(5, 0)));
        assert_eq!(MessageId::new(5, 0).previous(), Some(edge));
        assert_eq!(MessageId::MAX.next(), None);
        assert_eq!(MessageId::MIN.previous(), None);
    }
}
