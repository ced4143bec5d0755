//! The index of series, which names them in order. It can have names of series that are gone, which are told to nobody;
//! a sweep takes them out.

use futures_util::future::join_all;
use tidemill_proto::SeriesName;

use super::super::failure::{Effect, unexpected};
use super::super::resp::{Reply, Request};
use super::super::routing::in_order;
use super::super::{Shard, keys};
use crate::storage::StorageError;

/// Names that a sweep looks at in one step.
const SWEPT_NAMES: usize = 256;

impl Shard {
    /// Returns names of series of which something is kept.
    pub(super) async fn series_names(
        &self,
        prefix: &str,
        mut after: Option<SeriesName>,
        limit: usize,
    ) -> Result<Vec<SeriesName>, StorageError> {
        let mut found = Vec::new();
        loop {
            let names = self.indexes.series.page(prefix, after.as_ref(), limit).await?;
            let is_last = names.len() < limit;
            after = names.last().cloned();
            let are_there = self.are_there(&names).await?;
            let kept = names.into_iter().zip(are_there).filter(|(_, is_there)| *is_there);
            found.extend(kept.map(|(name, _)| name));
            if is_last || found.len() >= limit {
                found.truncate(limit);
                return Ok(found);
            }
        }
    }

    /// Returns of each series whether something is kept of it.
    async fn are_there(&self, names: &[SeriesName]) -> Result<Vec<bool>, StorageError> {
        let Some(others) = &self.others else { return self.are_here(names).await };
        let groups = others.groups(names.iter())?;
        let ask = groups.iter().map(|(shard, places)| async move {
            let names: Vec<SeriesName> = places.iter().map(|place| names[*place].clone()).collect();
            shard.are_here(&names).await
        });
        let found: Result<Vec<_>, _> = join_all(ask).await.into_iter().collect();
        Ok(in_order(groups.iter().zip(found?).map(|((_, places), found)| (&places[..], found))))
    }

    async fn are_here(&self, names: &[SeriesName]) -> Result<Vec<bool>, StorageError> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let mut request = Request::default();
        for name in names {
            request.add(&[b"EXISTS", keys::series(name).as_bytes()]);
        }
        let replies = self.calls.connection().exchange(&request, Effect::Read).await?;
        let is_there = |reply: Reply<'_>| reply.integer().map(|count| count > 0);
        let are_there: Option<Vec<_>> = replies.iter().map(is_there).collect();
        let are_there = are_there.filter(|all| all.len() == names.len());
        are_there.ok_or_else(|| unexpected("EXISTS", Effect::Read))
    }

    /// Has the index name series.
    pub(super) async fn index_series(&self, names: &[SeriesName]) {
        if let Err(error) = self.indexes.series.add(&names.iter().collect::<Vec<_>>()).await {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "series are not in the index until their next minute"
            );
        }
    }

    /// Takes series out of the index, unless somebody has begun them anew: a series is there before it is named.
    pub(super) async fn forget_series(&self, names: &[SeriesName]) -> Result<(), StorageError> {
        self.indexes.series.remove(&names.iter().collect::<Vec<_>>()).await?;
        let anew = names.iter().zip(self.are_there(names).await?).filter(|(_, is_there)| *is_there);
        let anew: Vec<_> = anew.map(|(name, _)| name.clone()).collect();
        if !anew.is_empty() {
            self.index_series(&anew).await;
        }
        Ok(())
    }

    /// Takes out of the index the names of series that are gone.
    pub(in super::super) async fn mend_series(&self) -> Result<(), StorageError> {
        let mut after = None;
        loop {
            let names = self.indexes.series.near(after.as_ref(), SWEPT_NAMES).await?;
            let Some(last) = names.last() else { return Ok(()) };
            after = Some(last.clone());
            let names: Vec<SeriesName> = names.into_iter().filter(|name| self.has(name)).collect();
            let are_there = self.are_here(&names).await?;
            let gone = names.into_iter().zip(are_there).filter(|(_, is_there)| !is_there);
            let gone: Vec<_> = gone.map(|(name, _)| name).collect();
            if !gone.is_empty() {
                self.forget_series(&gone).await?;
            }
        }
    }
}
