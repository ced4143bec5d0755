//! Series of measurements: of each minute how many there were, their sum, the least and the greatest.

use std::time::Duration;

use serde::{Deserialize, Serialize, Serializer};

use crate::{Problem, SeriesName, Timestamp};

/// Most points of one request.
pub const POINTS_MAX: usize = 1_000;
/// How often a point may say that its value was measured.
pub const POINT_COUNT_MAX: u32 = 1_000_000;
/// The largest number that a value may be, and minus it the least: however many are added, a sum is a number.
pub const POINT_VALUE_MAX: f64 = 1e200;
/// How long a series keeps its minutes, and how old a point may be that is added.
pub const SERIES_KEPT: Duration = Duration::from_hours(24);
/// How far ahead of the time a point may be: clocks differ.
pub const POINT_AHEAD_MAX: Duration = Duration::from_mins(1);
/// Series of a page where nobody says how many.
pub const SERIES_PAGE_DEFAULT: usize = 100;
/// Most series of a page.
pub const SERIES_PAGE_MAX: usize = 1_000;
/// What is read where nobody says how much.
pub const SERIES_LAST_DEFAULT: Duration = Duration::from_hours(1);

/// The body of a request that adds a point to a series.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PointRequest {
    /// What was measured: a number from -1e200 to 1e200.
    #[serde(serialize_with = "number")]
    pub value: f64,
    /// When: not more than 24 hours ago, nor more than a minute ahead; now if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
    /// How often it was measured, 1 to 1,000,000; once if absent. The sum gets it as often.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
}

/// One point of several.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NamedPoint {
    /// The series to which it is added.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub name: SeriesName,
    /// What was measured: a number from -1e200 to 1e200.
    #[serde(serialize_with = "number")]
    pub value: f64,
    /// When: not more than 24 hours ago, nor more than a minute ahead; now if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
    /// How often it was measured, 1 to 1,000,000; once if absent. The sum gets it as often.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
}

/// The body of a request that adds points to several series.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AddPointsRequest {
    /// 1 to 1,000 points, each for itself.
    pub points: Vec<NamedPoint>,
}

/// A minute of a series.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SeriesMinute {
    /// When it begins.
    pub at: Timestamp,
    /// How often something was measured in it.
    pub count: u64,
    /// The sum of the values.
    #[serde(serialize_with = "number")]
    pub sum: f64,
    /// The least value.
    #[serde(serialize_with = "number")]
    pub min: f64,
    /// The greatest value.
    #[serde(serialize_with = "number")]
    pub max: f64,
}

/// Several minutes of a series together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SeriesTotal {
    /// How often something was measured.
    pub count: u64,
    /// The sum of the values.
    #[serde(serialize_with = "number")]
    pub sum: f64,
    /// The least value, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "some_number")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub min: Option<f64>,
    /// The greatest value, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "some_number")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub max: Option<f64>,
}

/// A series, as a list has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ListedSeries {
    /// The name of the series.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub series: SeriesName,
}

/// What a series has in a span of time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SeriesState {
    /// The name of the series.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub series: SeriesName,
    /// The minutes in which something was measured, in order.
    pub minutes: Vec<SeriesMinute>,
    /// All of them together.
    pub total: SeriesTotal,
}

/// What came of one point of several.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PointResult {
    /// The name of the series, as it was given.
    pub name: String,
    /// The minute of the point, with the point.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub minute: Option<SeriesMinute>,
    /// Why it was not added, where what was asked is wrong or not allowed, or the storage does not do it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub error: Option<Problem>,
}

/// What came of each point, in their order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PointsAdded {
    /// One for each point.
    pub results: Vec<PointResult>,
}

impl SeriesTotal {
    /// Returns minutes together: their sums are added in their order.
    #[must_use]
    pub fn of(minutes: &[SeriesMinute]) -> Self {
        minutes.iter().fold(Self::default(), |total, minute| Self {
            count: total.count + minute.count,
            sum: total.sum + minute.sum,
            min: Some(total.min.map_or(minute.min, |min| min.min(minute.min))),
            max: Some(total.max.map_or(minute.max, |max| max.max(minute.max))),
        })
    }
}

/// Writes a number, without a fraction where it has none, as others write it.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands it over so")]
fn number<S: Serializer>(number: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;

    #[expect(clippy::cast_possible_truncation, reason = "it is whole, and below 2^53")]
    if number.fract() == 0.0 && number.abs() < WHOLE_MAX {
        serializer.serialize_i64(*number as i64)
    } else {
        serializer.serialize_f64(*number)
    }
}

#[expect(clippy::ref_option, reason = "serde hands it over so")]
fn some_number<S: Serializer>(some: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    match some {
        Some(it) => number(it, serializer),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_others_write_them() {
        let minute = |sum| SeriesMinute {
            at: Timestamp::from_millis(60_000),
            count: 2,
            sum,
            min: -0.5,
            max: 9_007_199_254_740_991.0,
        };
        for (sum, text) in [(12.0, "12"), (0.1 + 0.2, "0.30000000000000004"), (1e200, "1e+200"), (-3.0, "-3")]
        {
            let told = serde_json::to_string(&minute(sum)).expect("it can be written");
            let expected = format!(
                r#"{{"at":"1970-01-01T00:01:00.000Z","count":2,"sum":{text},"min":-0.5,"max":9007199254740991}}"#
            );
            assert_eq!(told, expected);
            assert_eq!(
                serde_json::from_str::<SeriesMinute>(&told).expect("it can be read").at,
                minute(sum).at
            );
        }
    }

    #[test]
    fn a_total_is_all_minutes_together() {
        assert_eq!(
            serde_json::to_string(&SeriesTotal::of(&[])).expect("it can be written"),
            r#"{"count":0,"sum":0}"#
        );
        let minute = |at: u64, count, sum, min, max| SeriesMinute {
            at: Timestamp::from_millis(at * 60_000),
            count,
            sum,
            min,
            max,
        };
        let total = SeriesTotal::of(&[minute(1, 2, 3.0, 1.0, 2.0), minute(5, 1, -4.5, -4.5, -4.5)]);
        assert_eq!(total, SeriesTotal { count: 3, sum: -1.5, min: Some(-4.5), max: Some(2.0) });
    }
}
