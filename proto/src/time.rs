//! Points in time as the wire shows them: RFC 3339, UTC, to the millisecond.

use std::cell::Cell;
use std::fmt::{self, Write as _};
use std::ops::Deref;
use std::str::FromStr;
use std::time::Duration;

use arrayvec::ArrayString;
use serde::{Serialize, Serializer};

/// A point in time: Unix milliseconds, between the years 1970 and 9999.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

/// A text is not a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not a time; a time has the form of RFC 3339, as in `2026-01-31T12:00:00Z`, from 1970 to 9999")]
pub struct TimestampError;

impl Timestamp {
    /// The last representable point, a day before the end of the year 9999: RFC 3339 has four digits
    /// for the year, and any offset must still fit.
    pub const MAX: Self = Self(253_402_207_200_000);

    /// Returns the time `ms` milliseconds after 1970, at most [`Timestamp::MAX`].
    #[must_use]
    pub const fn from_millis(ms: u64) -> Self {
        if ms > Self::MAX.0 { Self::MAX } else { Self(ms) }
    }

    /// Returns the Unix milliseconds.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// Parses RFC 3339, with any offset. A text without an offset is taken as UTC, because today's
    /// producers write such timestamps. Digits past the millisecond are dropped.
    ///
    /// # Errors
    /// The text has another form, or lies outside 1970 to 9999.
    pub fn parse(text: &str) -> Result<Self, TimestampError> {
        if !has_offset_of_a_day(text) {
            return Err(TimestampError);
        }
        let at = text
            .parse::<jiff::Timestamp>()
            .or_else(|_| {
                let civil = text.parse::<jiff::civil::DateTime>()?;
                civil.to_zoned(jiff::tz::TimeZone::UTC).map(|zoned| zoned.timestamp())
            })
            .map_err(|_| TimestampError)?;
        let ms = u64::try_from(at.as_millisecond()).map_err(|_| TimestampError)?;
        if ms > Self::MAX.0 { Err(TimestampError) } else { Ok(Self(ms)) }
    }

    /// Parses a time like [`parse`](Self::parse), but takes the nearest one there is for a time outside of
    /// 1970 to 9999: programs write the least and the greatest time that their language has for "always" and
    /// "never".
    ///
    /// # Errors
    /// The text has another form.
    pub fn parse_nearest(text: &str) -> Result<Self, TimestampError> {
        Self::parse(text).or_else(|error| nearest(text).ok_or(error))
    }

    /// Returns the text, as in `2026-01-31T12:00:00.000Z`.
    #[must_use]
    pub fn text(self) -> impl Deref<Target = str> {
        let (second, ms) = (self.0 / 1_000, self.0 % 1_000);
        let (cached, mut text) = SECOND.get();
        if cached != second {
            text = text_of(second);
            SECOND.set((second, text));
        }
        // Three digits, whatever the number: those behind the first of four.
        text.push_str(&itoa::Buffer::new().format(1_000 + ms)[1..]);
        text.push('Z');
        text
    }

    /// Returns the time `duration` later, at most [`Timestamp::MAX`].
    #[must_use]
    pub fn saturating_add(self, duration: Duration) -> Self {
        Self::from_millis(self.0.saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
    }

    /// Returns the time `duration` earlier, at least 1970.
    #[must_use]
    pub fn saturating_sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
    }
}

/// Returns whether the hours of the offset, if there is one, are those of a day (RFC 3339 section 5.6: 00 to 23).
/// The parser takes a few more, which are a mistake of who has written them.
fn has_offset_of_a_day(text: &str) -> bool {
    let time = text.split_once(['T', 't', ' ']).map_or("", |(_, time)| time);
    let time = time.split_once('[').map_or(time, |(time, _)| time);
    let hours = time.split_once(['+', '-']).and_then(|(_, offset)| offset.get(..2)?.parse::<u8>().ok());
    hours.is_none_or(|hours| hours < 24)
}

/// Returns the nearest time to one that lies outside, with a year of any length (ISO 8601 has a sign before
/// one that has not four digits); `None` if the text has another form.
fn nearest(text: &str) -> Option<Timestamp> {
    let (is_before, unsigned) = match text.strip_prefix('-') {
        Some(unsigned) => (true, unsigned),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (year, rest) = unsigned.split_once('-')?;
    if year.len() < 4 || !year.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    // The rest is a time of any year; this one has every day that there is.
    Timestamp::parse(&format!("2000-{rest}")).ok()?;
    // One of more digits is greater than any.
    match year.parse::<u64>().unwrap_or(u64::MAX) {
        0..=1970 => Some(Timestamp(0)),
        _ if is_before => Some(Timestamp(0)),
        9999.. => Some(Timestamp::MAX),
        _ => None,
    }
}

/// Room for the text of a time.
type Text = ArrayString<24>;

thread_local! {
    /// The second that was written last, with its text up to the point behind it: most times that are
    /// written one after the other are of the same one.
    static SECOND: Cell<(u64, Text)> = Cell::new((0, text_of(0)));
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

/// Returns the text of a second up to the point behind it, as in `2026-01-31T12:00:00.`.
fn text_of(second: u64) -> Text {
    let second = i64::try_from(second).expect("a time lies before the year 10000");
    let at = jiff::Timestamp::from_second(second).expect("a time lies between 1970 and 9999");
    let mut text = Text::new();
    write!(text, "{at:.0}").expect("a time with four digits for its year has 20 bytes");
    text.pop();
    text.push('.');
    text
}

impl FromStr for Timestamp {
    type Err = TimestampError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text())
    }
}

deserialize_from_text!(Timestamp);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_to_the_millisecond() {
        assert_eq!(Timestamp::from_millis(0).to_string(), "1970-01-01T00:00:00.000Z");
        assert_eq!(Timestamp::from_millis(1_517_363_399_650).to_string(), "2018-01-31T01:49:59.650Z");
        assert_eq!(Timestamp::MAX.to_string(), "9999-12-30T22:00:00.000Z");
        assert_eq!(Timestamp::from_millis(u64::MAX), Timestamp::MAX);
    }

    #[test]
    fn the_text_of_a_time_does_not_depend_on_what_was_written_before() {
        let moments = [0, 999, 1_000, 951_868_799_999, 951_868_800_000, 1_517_363_399_650, Timestamp::MAX.0];
        for before in moments {
            for ms in moments.into_iter().flat_map(|ms| [ms.saturating_sub(1), ms]) {
                let _ = Timestamp(before).to_string();
                let at = jiff::Timestamp::from_millisecond(i64::try_from(ms).expect("a small number"));
                assert_eq!(Timestamp(ms).to_string(), format!("{:.3}", at.expect("a time")));
            }
        }
    }

    #[test]
    fn offsets_are_read_and_a_missing_one_is_utc() {
        let at = Timestamp::from_millis(1_517_363_399_650);
        for text in [
            "2018-01-31T01:49:59.650Z",
            "2018-01-31T02:49:59.650+01:00",
            "2018-01-31T01:49:59.650",
            "2018-01-31T01:49:59.650999Z",
        ] {
            assert_eq!(Timestamp::parse(text), Ok(at), "{text}");
        }
        for text in ["", "now", "1517363399650", "2018-13-01T00:00:00Z", "1969-12-31T23:59:59Z", "-10m"] {
            assert_eq!(Timestamp::parse(text), Err(TimestampError), "{text:?}");
        }
        for (offset, is_one) in
            [("+23:59", true), ("-23:59", true), ("+00:60", false), ("+24:00", false), ("-24:00", false)]
                .into_iter()
                .chain([
                    ("+25:00", false),
                    ("-25:00", false),
                    ("+2500", false),
                    ("+25", false),
                    ("+99:00", false),
                ])
        {
            for day in ["2018-01-31T01:49:59", "2018-01-31 01:49:59.65", "+275760-09-13T00:00:00"] {
                let text = format!("{day}{offset}");
                assert_eq!(Timestamp::parse_nearest(&text).is_ok(), is_one, "{text}");
            }
        }
    }

    #[test]
    fn times_of_other_languages_are_the_nearest_there_is() {
        let (first, last) = (Timestamp(0), Timestamp::MAX);
        for (text, nearest) in [
            ("0001-01-01T00:00:00Z", Ok(first)),
            ("0001-01-01T00:00:00", Ok(first)),
            ("0000-02-29T00:00:00+14:00", Ok(first)),
            ("1969-12-31T23:59:59.999Z", Ok(first)),
            ("1970-01-01T00:00:00+01:00", Ok(first)),
            ("-0001-11-30T00:00:00+00:00", Ok(first)),
            ("-271821-04-20T00:00:00.000Z", Ok(first)),
            ("-1000000000-01-01T00:00:00Z", Ok(first)),
            ("9999-12-31T23:59:59.9999999Z", Ok(last)),
            ("9999-12-31T23:59:59.999999", Ok(last)),
            ("+275760-09-13T00:00:00.000Z", Ok(last)),
            ("+99999999999999999999-12-31T23:59:59Z", Ok(last)),
            ("2018-01-31T01:49:59.650Z", Ok(Timestamp(1_517_363_399_650))),
            ("0000-00-00T00:00:00Z", Err(TimestampError)),
            ("10000-13-01T00:00:00Z", Err(TimestampError)),
            ("2026-02-30T00:00:00Z", Err(TimestampError)),
            ("1-1", Err(TimestampError)),
            ("-10m", Err(TimestampError)),
            ("-", Err(TimestampError)),
            ("", Err(TimestampError)),
        ] {
            assert_eq!(Timestamp::parse_nearest(text), nearest, "{text:?}");
        }
    }
}
