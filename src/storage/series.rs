//! Series of measurements: of each minute how many there were, their sum, the least and the greatest, for a day.
//!
//! Points are added in one step each, by one clock for all nodes. Sums are 64-bit floating-point numbers to which the
//! values are added one after the other, in the order in which they came: every backend comes to the same bits.
//!
//! A series is made by its first point, and is gone once no minute of the last day has one.

use async_trait::async_trait;
use tidemill_proto::series::{POINT_AHEAD_MAX, POINT_COUNT_MAX, POINT_VALUE_MAX, SERIES_KEPT, SeriesMinute};
use tidemill_proto::{SeriesName, Timestamp};

use super::StorageError;

/// Milliseconds of a minute.
pub(crate) const MINUTE_MS: u64 = 60_000;
/// How long minutes are kept, in milliseconds.
pub(crate) const KEPT_MS: u64 = SERIES_KEPT.as_secs() * 1_000;
/// How far ahead a point may be, in milliseconds.
pub(crate) const AHEAD_MS: u64 = POINT_AHEAD_MAX.as_secs() * 1_000;

/// A point of a series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    at: Option<Timestamp>,
    value: f64,
    count: u32,
}

impl Point {
    /// Returns a point of this time, or of the moment in which it is added; `None` where the value is no number from
    /// -[`POINT_VALUE_MAX`] to that, or the count is not 1 to [`POINT_COUNT_MAX`].
    #[must_use]
    pub fn new(value: f64, count: u32, at: Option<Timestamp>) -> Option<Self> {
        let fits = value.abs() <= POINT_VALUE_MAX && (1..=POINT_COUNT_MAX).contains(&count);
        // There is one zero alone.
        fits.then_some(Self { at, value: value + 0.0, count })
    }

    /// Returns its time, if it has one of its own.
    #[must_use]
    pub const fn at(&self) -> Option<Timestamp> {
        self.at
    }

    /// Returns what was measured.
    #[must_use]
    pub const fn value(&self) -> f64 {
        self.value
    }

    /// Returns how often.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// Returns what the sum gets.
    #[must_use]
    pub fn sum(&self) -> f64 {
        self.value * f64::from(self.count)
    }

    /// Returns in which minute it is, counted from 1970, by a clock; `None` where it is too old, or too far ahead.
    pub(crate) fn minute(&self, now_ms: u64) -> Option<u64> {
        let at_ms = self.at.map_or(now_ms, Timestamp::as_millis);
        let may = at_ms.saturating_add(KEPT_MS) >= now_ms && at_ms <= now_ms.saturating_add(AHEAD_MS);
        may.then_some(at_ms / MINUTE_MS)
    }

    /// Adds it to a minute.
    pub(crate) fn add_to(&self, minute: &mut SeriesMinute) {
        minute.count += u64::from(self.count);
        minute.sum += self.sum();
        minute.min = minute.min.min(self.value);
        minute.max = minute.max.max(self.value);
    }
}

/// Series of measurements, which all nodes share.
#[async_trait]
pub trait SeriesStore: std::fmt::Debug + Send + Sync {
    /// Adds 1 to [`POINTS_MAX`](tidemill_proto::series::POINTS_MAX) points to a series, in their order and in one step,
    /// and returns of each the minute with it; `None` of one that is older than [`SERIES_KEPT`] or further ahead than
    /// [`POINT_AHEAD_MAX`] by the clock of the backend, which is not added. Minutes older than that are forgotten.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `Overloaded`, `Full`, `ForeignKey`.
    ///
    /// # Cancel safety
    /// Not cancel-safe: when the future is dropped, the points may have been added.
    async fn add_points(
        &self,
        series: &SeriesName,
        points: &[Point],
    ) -> Result<Vec<Option<SeriesMinute>>, StorageError>;

    /// Returns the minutes of a series of which a part lies within this time before now, and those ahead, in order,
    /// without those that have no point; none where there is no such series.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `Overloaded`, `ForeignKey`.
    async fn read_series(
        &self,
        series: &SeriesName,
        last: std::time::Duration,
    ) -> Result<Vec<SeriesMinute>, StorageError>;

    /// Returns up to `limit` names of series that begin so, in the order of their bytes, behind `after`: of all of which a
    /// minute can be read, and of none that was deleted, or to which for longer than [`SERIES_KEPT`] no point was added.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `Overloaded`, `ForeignKey`.
    async fn series_names(
        &self,
        prefix: &str,
        after: Option<&SeriesName>,
        limit: usize,
    ) -> Result<Vec<SeriesName>, StorageError>;

    /// Forgets a series, if there is one.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `Overloaded`, `ForeignKey`.
    ///
    /// # Cancel safety
    /// Not cancel-safe: when the future is dropped, the series may be forgotten.
    async fn delete_series(&self, series: &SeriesName) -> Result<(), StorageError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_a_number_within_bounds() {
        for (value, count, is_one) in [
            (0.0, 1, true),
            (POINT_VALUE_MAX, POINT_COUNT_MAX, true),
            (-POINT_VALUE_MAX, 1, true),
            (POINT_VALUE_MAX * 1.000_001, 1, false),
            (f64::INFINITY, 1, false),
            (f64::NAN, 1, false),
            (1.0, 0, false),
            (1.0, POINT_COUNT_MAX + 1, false),
        ] {
            assert_eq!(Point::new(value, count, None).is_some(), is_one, "{value} {count}");
        }
        assert!(Point::new(-0.0, 1, None).is_some_and(|point| point.value().is_sign_positive()));
    }

    #[test]
    fn a_point_is_of_the_last_day_or_a_minute_ahead() {
        let now = 1_770_000_000_000;
        let of =
            |at: u64| Point::new(1.0, 1, Some(Timestamp::from_millis(at))).expect("it is one").minute(now);
        assert_eq!(Point::new(1.0, 1, None).and_then(|point| point.minute(now)), Some(29_500_000));
        assert_eq!((of(now - KEPT_MS), of(now - KEPT_MS - 1)), (Some(29_500_000 - 1_440), None));
        assert_eq!((of(now + AHEAD_MS), of(now + AHEAD_MS + 1)), (Some(29_500_001), None));
    }
}
