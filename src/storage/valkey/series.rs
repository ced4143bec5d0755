//! Series of measurements: one is a hash with a field for each minute, which scripts write and read by the server's clock.
//! They are called many at a time, over the connection of work.

use std::time::Duration;

use async_trait::async_trait;
use tidemill_proto::series::SeriesMinute;
use tidemill_proto::{SeriesName, Timestamp};

use super::calls::Call;
use super::failure::{Effect, of_key, unexpected};
use super::resp::Reply;
use super::scripts::Script;
use super::{Shard, Valkey, at, keys, scripts};
use crate::storage::series::{AHEAD_MS, KEPT_MS, MINUTE_MS};
use crate::storage::{Point, SeriesStore, StorageError};

mod index;

/// Answer of the scripts beside 0.
const FOREIGN: i64 = 2;
/// Bytes of a minute in a reply, about, and at most: its number, a count, and three numbers of 24 characters.
const MINUTE_BYTES: usize = 40;
const MINUTE_BYTES_MAX: usize = 128;

#[async_trait]
impl SeriesStore for Valkey {
    async fn add_points(
        &self,
        series: &SeriesName,
        points: &[Point],
    ) -> Result<Vec<Option<SeriesMinute>>, StorageError> {
        let mut arguments = Vec::with_capacity(2 + points.len() * 4);
        arguments.extend([KEPT_MS.to_string(), AHEAD_MS.to_string()]);
        for point in points {
            let at = point.at().map_or_else(String::new, |at| at.as_millis().to_string());
            // The shortest text that is this number again.
            let [value, sum] = [point.value(), point.sum()].map(|number| format!("{number:e}"));
            arguments.extend([at, value, sum, point.count().to_string()]);
        }
        let minutes = at!(self, series, shard => {
            shard.series(&scripts::ADD_POINTS, Effect::Write, series, &arguments, points.len()).await
        })?;
        if minutes.len() != points.len() {
            return Err(unexpected("EVALSHA", Effect::Write));
        }
        // Of each minute anew, so that a name that is missing is not so for long.
        let begins = |(point, minute): (&Point, &Option<SeriesMinute>)| {
            minute.is_some_and(|minute| minute.count == u64::from(point.count()))
        };
        if points.iter().zip(&minutes).any(begins) {
            self.places.first()?.index_series(std::slice::from_ref(series)).await;
        }
        Ok(minutes)
    }

    async fn read_series(
        &self,
        series: &SeriesName,
        last: Duration,
    ) -> Result<Vec<SeriesMinute>, StorageError> {
        let last_ms = u64::try_from(last.as_millis()).unwrap_or(KEPT_MS).min(KEPT_MS);
        // Of the first and the last a part.
        let minutes = usize::try_from((last_ms + AHEAD_MS) / MINUTE_MS + 2).expect("it is of a day");
        let arguments = [last_ms.to_string(), AHEAD_MS.to_string()];
        let minutes = at!(self, series, shard => {
            shard.series(&scripts::READ_SERIES, Effect::Read, series, &arguments, minutes).await
        })?;
        Ok(minutes.into_iter().flatten().collect())
    }

    async fn series_names(
        &self,
        prefix: &str,
        after: Option<&SeriesName>,
        limit: usize,
    ) -> Result<Vec<SeriesName>, StorageError> {
        at!(self, shard => shard.series_names(prefix, after.cloned(), limit).await)
    }

    async fn delete_series(&self, series: &SeriesName) -> Result<(), StorageError> {
        at!(self, series, shard => {
            shard.series(&scripts::DELETE_SERIES, Effect::Write, series, &[], 0).await
        })?;
        // The series is gone, whether the index knows it now or with the next sweep.
        let _ = self.places.first()?.forget_series(std::slice::from_ref(series)).await;
        Ok(())
    }
}

impl Shard {
    /// Calls a script of a series that answers with at most so many minutes.
    async fn series(
        &self,
        script: &'static Script,
        effect: Effect,
        series: &SeriesName,
        arguments: &[String],
        minutes: usize,
    ) -> Result<Vec<Option<SeriesMinute>>, StorageError> {
        let key = keys::series(series);
        let call = Call::new(script, effect, &[&key], arguments)
            .replied(minutes * MINUTE_BYTES, minutes * MINUTE_BYTES_MAX);
        match self.calls.call(call, read).await.map_err(|error| of_key(error, &*key))? {
            Ok(minutes) => Ok(minutes),
            Err(FOREIGN) => Err(StorageError::ForeignKey(key.into())),
            Err(_) => Err(unexpected("EVALSHA", effect)),
        }
    }
}

/// Reads an answer: its code, or the minutes that follow a 0, of which an empty one is none.
fn read(reply: Reply<'_>) -> Option<Result<Vec<Option<SeriesMinute>>, i64>> {
    let Reply::Array(mut parts) = reply else { return None };
    let code = parts.next()?.integer()?;
    if code != 0 {
        return Some(Err(code));
    }
    let one = |part: Reply<'_>| {
        let text = std::str::from_utf8(part.bytes()?).ok()?;
        if text.is_empty() { Some(None) } else { minute(text).map(Some) }
    };
    let minutes: Option<Vec<_>> = parts.map(one).collect();
    minutes.map(Ok)
}

/// Reads a minute as the scripts write it.
fn minute(text: &str) -> Option<SeriesMinute> {
    let mut parts = text.split(' ');
    let at = Timestamp::from_millis(parts.next()?.parse::<u64>().ok()?.checked_mul(MINUTE_MS)?);
    let count = parts.next()?.parse().ok()?;
    let mut number = || parts.next()?.parse::<f64>().ok().filter(|number| number.is_finite());
    Some(SeriesMinute { at, count, sum: number()?, min: number()?, max: number()? })
}
