//! Where to start reading, as a subscription is asked for it and tells it.
//!
//! It must not know topics.

use std::fmt;
use std::str::FromStr;

use tidemill_proto::cursor::SinceError;
use tidemill_proto::pattern_cursor::PatternCursorError;
use tidemill_proto::{PatternCursor, Since};

/// Where to start reading a topic, or the topics of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// In words, of a topic or of a pattern; a message id is of a topic alone.
    Since(Since),
    /// The cursor of a pattern.
    Cursor(PatternCursor),
}

/// Why a text does not say where to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// It is none of the words.
    #[error(transparent)]
    Since(#[from] SinceError),
    /// It begins as the cursor of a pattern does, and is none.
    #[error(transparent)]
    Cursor(#[from] PatternCursorError),
}

impl From<Since> for Start {
    fn from(since: Since) -> Self {
        Self::Since(since)
    }
}

impl From<PatternCursor> for Start {
    fn from(cursor: PatternCursor) -> Self {
        Self::Cursor(cursor)
    }
}

/// Writes the text so that it is read as the same.
impl fmt::Display for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Since(since) => since.fmt(f),
            Self::Cursor(cursor) => cursor.fmt(f),
        }
    }
}

/// A text that begins with `p1.` is the cursor of a pattern.
impl FromStr for Start {
    type Err = StartError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.starts_with(PatternCursor::PREFIX) {
            Ok(Self::Cursor(PatternCursor::parse(text)?))
        } else {
            Ok(Self::Since(Since::parse(text)?))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        for text in ["earliest", "latest", "5-0", "2026-01-31T12:00:00.000Z", "-10ms"] {
            let start: Start = text.parse().expect(text);
            assert!(matches!(start, Start::Since(_)), "{text}");
            assert_eq!(start.to_string(), text);
        }
        let start: Start = "p1.A_-z".parse().expect("a cursor");
        assert!(matches!(start, Start::Cursor(_)));
        assert_eq!(start.to_string(), "p1.A_-z");
        assert_eq!("p1.".parse::<Start>(), Err(StartError::Cursor(PatternCursorError)));
        assert_eq!("p2.A".parse::<Start>(), Err(StartError::Since(SinceError)));
    }
}
