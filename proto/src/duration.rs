//! Durations as the wire shows them: a number of seconds, or text with a unit.
//!
//! In JSON a number is of seconds, with fractions, and a text is a number with a unit (`"200ms"`, `"2m"`) or without
//! (`"30"`, of seconds). Answers write numbers of seconds.

use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The units that a text may name, with their milliseconds.
const UNITS: [(&str, f64); 5] = [("ms", 1.0), ("s", 1e3), ("m", 60e3), ("h", 3_600e3), ("d", 86_400e3)];

/// A text is not a duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "is not a duration; a duration is a number of seconds, or text with a unit (`ms`, `s`, `m`, `h`, `d`), as in `\"200ms\"` or `\"2m\"`"
)]
pub struct DurationError;

/// A duration is not one of whole seconds within its bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be a whole number of seconds from 1 to {max}, or text with a unit (`s`, `m`, `h`, `d`), as in `\"90s\"` or `\"2h\"`"
)]
pub struct WholeSecondsError {
    /// The most seconds that it may be.
    pub max: u64,
}

/// Parses a text that is a duration of whole seconds, from 1 to `max`.
///
/// # Errors
/// The text has another form, or is out of bounds.
pub fn whole_seconds(text: &str, max: u64) -> Result<u64, WholeSecondsError> {
    let whole = parse(text).ok().filter(|duration| duration.subsec_nanos() == 0);
    let seconds = whole.map(|duration| duration.as_secs()).filter(|seconds| (1..=max).contains(seconds));
    seconds.ok_or(WholeSecondsError { max })
}

/// Parses a JSON value that is a duration of whole seconds, from 1 to `max`: a number of seconds, or a text.
///
/// # Errors
/// As [`whole_seconds`].
pub fn whole_seconds_json(json: &str, max: u64) -> Result<u64, WholeSecondsError> {
    match serde_json::from_str::<serde_json::Value>(json) {
        // Behind the point there may be zeros: as JSON Schema has it, and so some languages write it.
        Ok(serde_json::Value::Number(number)) if number.as_f64().is_some_and(|it| it.fract() == 0.0) => {
            whole_seconds(&number.as_f64().unwrap_or_default().to_string(), max)
        }
        Ok(serde_json::Value::String(text)) => whole_seconds(&text, max),
        _ => Err(WholeSecondsError { max }),
    }
}

/// Parses a text: a decimal number, not below 0, with a unit behind it or of seconds. Parts of a millisecond are
/// rounded to the nearest one; what is more than 0 is at least 1 ms.
///
/// # Errors
/// The text has another form, or is more than ten thousand years.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let is_number =
        number.starts_with(|c: char| c.is_ascii_digit()) && number.ends_with(|c: char| c.is_ascii_digit());
    let number: f64 = number.parse().ok().filter(|_| is_number).ok_or(DurationError)?;
    let scale = match unit {
        "" => 1e3,
        unit => UNITS.iter().find(|(name, _)| *name == unit).ok_or(DurationError)?.1,
    };
    of_millis(number * scale)
}

/// Parses a JSON value: a number of seconds, or a text.
///
/// # Errors
/// As [`parse`].
pub fn parse_json(json: &str) -> Result<Duration, DurationError> {
    match serde_json::from_str::<serde_json::Value>(json) {
        Ok(serde_json::Value::Number(number)) => of_millis(number.as_f64().ok_or(DurationError)? * 1e3),
        Ok(serde_json::Value::String(text)) => parse(&text),
        _ => Err(DurationError),
    }
}

/// A duration in JSON, as a number of seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seconds(pub Duration);

impl Serialize for Seconds {
    /// Whole numbers are written without a fraction.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.subsec_nanos() == 0 {
            serializer.serialize_u64(self.0.as_secs())
        } else {
            serializer.serialize_f64(self.0.as_secs_f64())
        }
    }
}

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        of_millis(f64::deserialize(deserializer)? * 1e3).map(Self).map_err(D::Error::custom)
    }
}

/// Returns the schema of a duration in JSON.
#[cfg(feature = "openapi")]
#[must_use]
pub fn schema() -> utoipa::openapi::Schema {
    use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Type};

    let seconds = ObjectBuilder::new().schema_type(Type::Number).minimum(Some(0));
    let text = ObjectBuilder::new()
        .schema_type(Type::String)
        .pattern(Some(r"^[0-9]([0-9.]*[0-9])?(ms|s|m|h|d)?$"))
        .examples([serde_json::json!("200ms"), serde_json::json!("2m")]);
    OneOfBuilder::new()
        .item(seconds)
        .item(text)
        .description(Some("A duration: a number of seconds, or text with a unit (ms, s, m, h, d)."))
        .into()
}

/// Returns the schema of a duration of whole seconds in JSON, from 1 to `max`, which is ten years or more.
#[cfg(feature = "openapi")]
#[must_use]
pub fn whole_seconds_schema(max: u64) -> utoipa::openapi::Schema {
    use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Type};

    let seconds = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1)).maximum(Some(max)).build();
    let text = ObjectBuilder::new()
        .schema_type(Type::String)
        .pattern(Some(WHOLE_SECONDS))
        .examples([serde_json::json!("90s"), serde_json::json!("2h")])
        .build();
    OneOfBuilder::new()
        .item(seconds)
        .item(text)
        .description(Some("A duration of whole seconds: a number of them, or text with a unit (s, m, h, d)."))
        .into()
}

/// The pattern of texts that are durations of whole seconds, up to ten years.
#[cfg(feature = "openapi")]
pub const WHOLE_SECONDS: &str = "^([1-9][0-9]{0,7}s?|[1-9][0-9]{0,5}m|[1-9][0-9]{0,3}h|[1-9][0-9]{0,2}d)$";

fn of_millis(ms: f64) -> Result<Duration, DurationError> {
    /// Ten thousand years, which is far from where sums of times overflow.
    const MILLIS_MAX: f64 = 3.2e14;
    if !(0.0..=MILLIS_MAX).contains(&ms) {
        return Err(DurationError);
    }
    let whole = if ms > 0.0 { ms.round().max(1.0) } else { 0.0 };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is whole and within bounds"
    )]
    Ok(Duration::from_millis(whole as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_numbers_are_durations() {
        for (json, ms) in [
            ("30", 30_000),
            ("0.25", 250),
            ("0", 0),
            ("1e-9", 1),
            ("1.5e1", 15_000),
            ("\"30\"", 30_000),
            ("\"200ms\"", 200),
            ("\"0.5s\"", 500),
            ("\"2m\"", 120_000),
            ("\"1.5h\"", 5_400_000),
            ("\"365d\"", 31_536_000_000),
        ] {
            assert_eq!(parse_json(json), Ok(Duration::from_millis(ms)), "{json}");
        }
        for json in [
            "-1",
            "\"-1s\"",
            "\"\"",
            "\"s\"",
            "\"1 s\"",
            "\".5s\"",
            "\"5.\"",
            "\"1.2.3\"",
            "\"1w\"",
            "\"2M\"",
            "null",
            "true",
            "[1]",
            "1e300",
            "\"1e3\"",
            "\"inf\"",
            "\"NaN\"",
        ] {
            assert_eq!(parse_json(json), Err(DurationError), "{json}");
        }
    }

    #[test]
    fn whole_seconds_are_written_as_any_duration() {
        for (json, seconds) in [
            ("1", 1),
            ("60.0", 60),
            ("3.6e3", 3_600),
            ("100000", 100_000),
            ("\"60\"", 60),
            ("\"90s\"", 90),
            ("\"5000ms\"", 5),
            ("\"1.5h\"", 5_400),
            ("\"1d\"", 86_400),
        ] {
            assert_eq!(whole_seconds_json(json, 100_000), Ok(seconds), "{json}");
        }
        for json in [
            "0",
            "-1",
            "1.5",
            "1.0000001",
            "100001",
            "1e300",
            "99999999999999999999",
            "null",
            "true",
            "[1]",
            "\"0s\"",
            "\"\"",
            "\"1500ms\"",
            "\"2d\"",
            "\"soon\"",
            "\"-1s\"",
        ] {
            assert_eq!(whole_seconds_json(json, 100_000), Err(WholeSecondsError { max: 100_000 }), "{json}");
        }
        // The longest there are: a hundred years.
        let max = crate::limits::RETENTION_SECONDS_MAX;
        assert_eq!(whole_seconds_json(&max.to_string(), max), Ok(max));
        assert!(whole_seconds_json(&(max + 1).to_string(), max).is_err());
    }
}
