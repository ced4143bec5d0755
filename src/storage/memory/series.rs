//! Series of measurements, in this process.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tidemill_proto::series::SeriesMinute;
use tidemill_proto::{SeriesName, Timestamp};

use super::Memory;
use crate::storage::series::{AHEAD_MS, KEPT_MS, MINUTE_MS};
use crate::storage::{Point, SeriesStore, StorageError};

/// Bytes that all series may hold: some three million minutes.
const BYTES_MAX: usize = 256 << 20;
/// Bytes of a series without minutes and name, and of a minute, about.
const SERIES_BYTES: usize = 200;
const MINUTE_BYTES: usize = 80;

/// All series.
#[derive(Debug)]
pub(super) struct AllSeries {
    kept: Mutex<Kept>,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct Kept {
    of: BTreeMap<SeriesName, BTreeMap<u64, SeriesMinute>>,
    bytes: usize,
    /// The minute before which all were forgotten last.
    forgotten: u64,
}

impl Default for AllSeries {
    fn default() -> Self {
        Self { kept: Mutex::default(), bytes_max: BYTES_MAX }
    }
}

fn bytes_of(series: &SeriesName) -> usize {
    SERIES_BYTES + series.as_str().len()
}

impl Kept {
    /// Forgets what is too old, of all series; once a minute.
    fn forget(&mut self, now_ms: u64) {
        let oldest = now_ms.saturating_sub(KEPT_MS) / MINUTE_MS;
        if oldest <= self.forgotten {
            return;
        }
        self.forgotten = oldest;
        let bytes = &mut self.bytes;
        self.of.retain(|series, minutes| {
            while let Some(first) = minutes.first_entry()
                && *first.key() < oldest
            {
                first.remove();
                *bytes -= MINUTE_BYTES;
            }
            if minutes.is_empty() {
                *bytes -= bytes_of(series);
            }
            !minutes.is_empty()
        });
    }

    fn add(
        &mut self,
        series: &SeriesName,
        points: &[Point],
        now_ms: u64,
        bytes_max: usize,
    ) -> Result<Vec<Option<SeriesMinute>>, StorageError> {
        self.forget(now_ms);
        let of: Vec<Option<u64>> = points.iter().map(|point| point.minute(now_ms)).collect();
        if of.iter().all(Option::is_none) {
            return Ok(vec![None; points.len()]);
        }
        let known = self.of.get(series);
        let is_new = |minute: &&u64| known.is_none_or(|known| !known.contains_key(*minute));
        let new = of.iter().flatten().filter(is_new).collect::<BTreeSet<_>>().len();
        let bytes = new * MINUTE_BYTES + known.map_or_else(|| bytes_of(series), |_| 0);
        if self.bytes + bytes > bytes_max {
            return Err(StorageError::Full(format!("series hold {} bytes", self.bytes).into()));
        }
        self.bytes += bytes;
        let minutes = self.of.entry(series.clone()).or_default();
        let added = points.iter().zip(of).map(|(point, minute)| {
            let minute = minute?;
            let kept = minutes.entry(minute).or_insert(SeriesMinute {
                at: Timestamp::from_millis(minute * MINUTE_MS),
                count: 0,
                sum: 0.0,
                min: f64::INFINITY,
                max: f64::NEG_INFINITY,
            });
            point.add_to(kept);
            Some(*kept)
        });
        Ok(added.collect())
    }

    fn read(&self, series: &SeriesName, now_ms: u64, last: Duration) -> Vec<SeriesMinute> {
        let Some(minutes) = self.of.get(series) else { return Vec::new() };
        let last_ms = u64::try_from(last.as_millis()).unwrap_or(KEPT_MS).min(KEPT_MS);
        let from = now_ms.saturating_sub(last_ms) / MINUTE_MS;
        let to = now_ms.saturating_add(AHEAD_MS) / MINUTE_MS;
        minutes.range(from..=to).map(|(_, minute)| *minute).collect()
    }

    fn names(&self, prefix: &str, after: Option<&SeriesName>, limit: usize, now_ms: u64) -> Vec<SeriesName> {
        let from = match after {
            Some(after) if after.as_str() >= prefix => Bound::Excluded(after.as_str()),
            Some(_) | None => Bound::Included(prefix),
        };
        let oldest = now_ms.saturating_sub(KEPT_MS) / MINUTE_MS;
        let is_kept = |minutes: &BTreeMap<u64, SeriesMinute>| {
            minutes.last_key_value().is_some_and(|(minute, _)| *minute >= oldest)
        };
        let named = self.of.range::<str, _>((from, Bound::Unbounded));
        let named = named.take_while(|(series, _)| series.as_str().starts_with(prefix));
        named.filter(|(_, minutes)| is_kept(minutes)).take(limit).map(|(series, _)| series.clone()).collect()
    }

    fn delete(&mut self, series: &SeriesName) {
        if let Some(minutes) = self.of.remove(series) {
            self.bytes -= bytes_of(series) + minutes.len() * MINUTE_BYTES;
        }
    }
}

#[async_trait]
impl SeriesStore for Memory {
    async fn add_points(
        &self,
        series: &SeriesName,
        points: &[Point],
    ) -> Result<Vec<Option<SeriesMinute>>, StorageError> {
        let AllSeries { kept, bytes_max } = &self.series;
        kept.lock().add(series, points, self.clock.now().as_millis(), *bytes_max)
    }

    async fn read_series(
        &self,
        series: &SeriesName,
        last: Duration,
    ) -> Result<Vec<SeriesMinute>, StorageError> {
        Ok(self.series.kept.lock().read(series, self.clock.now().as_millis(), last))
    }

    async fn series_names(
        &self,
        prefix: &str,
        after: Option<&SeriesName>,
        limit: usize,
    ) -> Result<Vec<SeriesName>, StorageError> {
        Ok(self.series.kept.lock().names(prefix, after, limit, self.clock.now().as_millis()))
    }

    async fn delete_series(&self, series: &SeriesName) -> Result<(), StorageError> {
        self.series.kept.lock().delete(series);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_770_000_000_000;

    fn name(text: &str) -> SeriesName {
        SeriesName::parse(text).expect("a name")
    }

    fn point(at: Option<u64>) -> Point {
        Point::new(1.0, 1, at.map(Timestamp::from_millis)).expect("a point")
    }

    #[test]
    fn series_that_are_over_are_forgotten_and_hold_nothing() {
        let mut kept = Kept::default();
        for minute in 0..5_000 {
            let now_ms = NOW + minute * MINUTE_MS;
            let series = name(&format!("s{minute}"));
            kept.add(&series, &[point(None), point(Some(now_ms - MINUTE_MS))], now_ms, BYTES_MAX)
                .expect("there is room");
            kept.add(&name("all"), &[point(None)], now_ms, BYTES_MAX).expect("there is room");
        }
        let now_ms = NOW + 4_999 * MINUTE_MS;
        assert_eq!(kept.names("s", None, 2_000, now_ms).len(), 1_441);
        assert_eq!(kept.names("s", None, 2_000, now_ms + KEPT_MS / 2).len(), 721, "also where none is added");
        // Those of a day and one more, of which the last minute is kept as it was begun.
        assert_eq!(kept.of.len(), 1_442);
        assert_eq!(kept.of[&name("all")].len(), 1_441);
        kept.forget(NOW + 5_000 * MINUTE_MS + 2 * KEPT_MS);
        assert_eq!((kept.of.len(), kept.bytes), (0, 0));
        kept.add(&name("a"), &[point(None)], NOW, BYTES_MAX).expect("there is room");
        kept.delete(&name("a"));
        kept.delete(&name("a"));
        assert_eq!((kept.of.len(), kept.bytes), (0, 0));
        kept.add(&name("a"), &[point(Some(1))], NOW, BYTES_MAX).expect("it answers");
        assert_eq!((kept.of.len(), kept.bytes), (0, 0), "a point that is refused makes no series");
    }

    #[test]
    fn what_all_hold_has_a_bound_and_who_meets_it_changes_nothing() {
        let mut kept = Kept::default();
        let max = SERIES_BYTES + 1 + 2 * MINUTE_BYTES;
        let minutes = |count: u64| (0..count).map(|at| point(Some(NOW - at * MINUTE_MS))).collect::<Vec<_>>();
        assert!(matches!(kept.add(&name("a"), &minutes(3), NOW, max), Err(StorageError::Full(_))));
        assert_eq!((kept.of.len(), kept.bytes), (0, 0));
        kept.add(&name("a"), &minutes(2), NOW, max).expect("there is room");
        assert!(matches!(kept.add(&name("b"), &minutes(1), NOW, max), Err(StorageError::Full(_))));
        let again = kept.add(&name("a"), &minutes(2), NOW, max).expect("they are there");
        assert_eq!(again[1].map(|minute| minute.count), Some(2));
    }
}
