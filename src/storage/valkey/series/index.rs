//! The index of series, which names them in order. It can have names of series that are gone, which are told to nobody;
//! a sweep takes them out.

use tidemill_proto::SeriesName;

use super::super::failure::{Effect, of_key, of_reply, unexpected};
use super::super::resp::{Reply, Request};
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
            let names = self.indexed_series(prefix, after.as_ref(), limit).await?;
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

    /// Returns names of the index that begin so.
    async fn indexed_series(
        &self,
        prefix: &str,
        after: Option<&SeriesName>,
        limit: usize,
    ) -> Result<Vec<SeriesName>, StorageError> {
        let from = match after {
            Some(after) if after.as_str() >= prefix => format!("({after}"),
            Some(_) | None => format!("[{prefix}"),
        };
        // Behind every character of a name.
        let to = format!("({prefix}\x7f");
        let limit = limit.to_string();
        let [from, to, limit] = [&from, &to, &limit].map(String::as_bytes);
        let mut request = Request::default();
        request.add(&[b"ZRANGEBYLEX", keys::SERIES.as_bytes(), from, to, b"LIMIT", b"0", limit]);
        let replies = self.calls.connection().exchange(&request, Effect::Read).await?;
        let reply = replies.iter().next().ok_or_else(|| unexpected("ZRANGEBYLEX", Effect::Read))?;
        if let Some(text) = reply.error() {
            return Err(of_key(of_reply(text), keys::SERIES));
        }
        let Reply::Array(parts) = reply else { return Err(unexpected("ZRANGEBYLEX", Effect::Read)) };
        let name = |part: Reply<'_>| SeriesName::parse(std::str::from_utf8(part.bytes()?).ok()?).ok();
        Ok(parts.filter_map(name).collect())
    }

    /// Returns of each series whether something is kept of it.
    async fn are_there(&self, names: &[SeriesName]) -> Result<Vec<bool>, StorageError> {
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
        let mut request = Request::default();
        for name in names {
            request.add(&[b"ZADD", keys::SERIES.as_bytes(), b"NX", b"0", name.as_str().as_bytes()]);
        }
        if let Err(error) = self.calls.connection().exchange(&request, Effect::Write).await {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "series are not in the index until their next minute"
            );
        }
    }

    /// Takes series out of the index, unless somebody has begun them anew: a series is there before it is named.
    pub(super) async fn forget_series(&self, names: &[SeriesName]) -> Result<(), StorageError> {
        let mut request = Request::default();
        for name in names {
            request.add(&[b"ZREM", keys::SERIES.as_bytes(), name.as_str().as_bytes()]);
        }
        self.calls.connection().exchange(&request, Effect::Write).await?;
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
            let names = self.indexed_series("", after.as_ref(), SWEPT_NAMES).await?;
            let Some(last) = names.last() else { return Ok(()) };
            after = Some(last.clone());
            let are_there = self.are_there(&names).await?;
            let gone = names.into_iter().zip(are_there).filter(|(_, is_there)| !is_there);
            let gone: Vec<_> = gone.map(|(name, _)| name).collect();
            if !gone.is_empty() {
                self.forget_series(&gone).await?;
            }
        }
    }
}
