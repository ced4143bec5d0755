//! Series that fail by the seed.

use std::time::Duration;

use async_trait::async_trait;
use tidemill::proto::SeriesName;
use tidemill::proto::series::SeriesMinute;
use tidemill::storage::{Point, SeriesStore, StorageError};

use super::fate::Call;
use super::{Effect, Faulty};

#[deny(clippy::missing_trait_methods, reason = "what is new must fail, too")]
#[async_trait]
impl SeriesStore for Faulty {
    async fn add_points(
        &self,
        series: &SeriesName,
        points: &[Point],
    ) -> Result<Vec<Option<SeriesMinute>>, StorageError> {
        let fate = self.fate(Call::AddPoints, series.as_str());
        let (store, series, points) = (self.inner.series.clone(), series.clone(), points.to_vec());
        let effect: Effect<_> = Box::pin(async move { store.add_points(&series, &points).await });
        self.change(fate, effect).await?
    }

    async fn read_series(
        &self,
        series: &SeriesName,
        last: Duration,
    ) -> Result<Vec<SeriesMinute>, StorageError> {
        let fate = self.fate(Call::ReadSeries, series.as_str());
        self.ask(fate, self.inner.series.read_series(series, last)).await
    }

    async fn series_names(
        &self,
        prefix: &str,
        after: Option<&SeriesName>,
        limit: usize,
    ) -> Result<Vec<SeriesName>, StorageError> {
        let fate = self.fate(Call::SeriesNames, prefix);
        self.ask(fate, self.inner.series.series_names(prefix, after, limit)).await
    }

    async fn delete_series(&self, series: &SeriesName) -> Result<(), StorageError> {
        let fate = self.fate(Call::DeleteSeries, series.as_str());
        let (store, series) = (self.inner.series.clone(), series.clone());
        let effect: Effect<_> = Box::pin(async move { store.delete_series(&series).await });
        self.change(fate, effect).await?
    }
}
