//! Cursors: the point after which a reader goes on, and how a reader names one.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::{MessageId, Timestamp};

/// The point after which a reader goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cursor {
    /// Before the oldest kept message.
    Earliest,
    /// After the newest message there is now.
    Latest,
    /// After the message with this id, which need not be kept any more.
    After(MessageId),
}

/// A reader's words for a cursor: an id, `earliest`, `latest`, a time, or a time ago (`-10m`).
///
/// A time means "messages appended at this time or later", by the backend's clock. One that no id can have
/// is the nearest that one can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// A cursor itself.
    Cursor(Cursor),
    /// Messages appended at this time or later.
    Time(Timestamp),
    /// Messages appended in the last so much time.
    Ago(Duration),
}

/// A text names no cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "is not a cursor; write a message id (two numbers from 0 to 18446744073709551615, as in `1517363399650-0`), `earliest`, `latest`, an RFC 3339 time as in `2026-01-31T12:00:00Z` (before 1970 and after 9999 it is the nearest there is), or a time ago as in `-10m` (a whole number of ms, s, m, h or d)"
)]
pub struct SinceError;

impl Since {
    /// Parses a reader's words for a cursor.
    ///
    /// # Errors
    /// The text is none of the forms.
    pub fn parse(text: &str) -> Result<Self, SinceError> {
        match text {
            "earliest" => return Ok(Self::Cursor(Cursor::Earliest)),
            "latest" => return Ok(Self::Cursor(Cursor::Latest)),
            _ => {}
        }
        if let Some(ago) = text.strip_prefix('-').and_then(parse_ago) {
            return Ok(Self::Ago(ago));
        }
        if let Ok(id) = MessageId::parse(text) {
            return Ok(Self::Cursor(Cursor::After(id)));
        }
        Timestamp::parse_nearest(text).map(Self::Time).map_err(|_| SinceError)
    }

    /// Returns the cursor that the words mean at the time `now`.
    #[must_use]
    pub fn at(self, now: Timestamp) -> Cursor {
        let from = |time: Timestamp| match MessageId::new(time.as_millis(), 0).previous() {
            Some(id) => Cursor::After(id),
            None => Cursor::Earliest,
        };
        match self {
            Self::Cursor(cursor) => cursor,
            Self::Time(time) => from(time),
            Self::Ago(ago) => from(now.saturating_sub(ago)),
        }
    }
}

/// Returns how long ago; what lies before all time is as long ago as can be said.
fn parse_ago(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return None;
    }
    let unit_ms: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    // Digits alone can only be too many.
    let number = number.parse().unwrap_or(u64::MAX);
    Some(Duration::from_millis(number.saturating_mul(unit_ms)))
}

impl FromStr for Since {
    type Err = SinceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Earliest => f.write_str("earliest"),
            Self::Latest => f.write_str("latest"),
            Self::After(id) => id.fmt(f),
        }
    }
}

/// Writes the words so that [`Since::parse`] reads the same.
impl fmt::Display for Since {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cursor(cursor) => cursor.fmt(f),
            Self::Time(time) => time.fmt(f),
            Self::Ago(ago) => write!(f, "-{}ms", ago.as_millis()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read() {
        let now = Timestamp::from_millis(1_000_000);
        let cases = [
            ("earliest", Cursor::Earliest),
            ("latest", Cursor::Latest),
            ("5-3", Cursor::After(MessageId::new(5, 3))),
            ("1970-01-01T00:00:00.010Z", Cursor::After(MessageId::new(9, u64::MAX))),
            ("1970-01-01T00:00:00Z", Cursor::Earliest),
            ("-10s", Cursor::After(MessageId::new(989_999, u64::MAX))),
            ("-1h", Cursor::Earliest),
            ("-18446744073709551615d", Cursor::Earliest),
            ("-99999999999999999999999ms", Cursor::Earliest),
            ("0001-01-01T00:00:00Z", Cursor::Earliest),
            ("-271821-04-20T00:00:00Z", Cursor::Earliest),
            ("+275760-09-13T00:00:00Z", Cursor::After(MessageId::new(253_402_207_199_999, u64::MAX))),
            ("9999-12-31T23:59:59.9999999Z", Cursor::After(MessageId::new(253_402_207_199_999, u64::MAX))),
        ];
        for (text, cursor) in cases {
            let since = Since::parse(text).expect(text);
            assert_eq!(since.at(now), cursor, "{text}");
            assert_eq!(Since::parse(&since.to_string()), Ok(since), "{text}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "-",
            "-10",
            "-m",
            "-10y",
            "--10m",
            "10m",
            "$",
            "+",
            "Earliest",
            "-1.5h",
            "18446744073709551616-0",
            "0x1-0",
        ] {
            assert_eq!(Since::parse(text), Err(SinceError), "{text:?}");
        }
    }
}
