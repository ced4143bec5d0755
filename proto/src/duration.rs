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
}
