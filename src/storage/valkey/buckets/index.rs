//! The two indexes that lie beside the buckets: of their names, and of when in each a key is over next. Both are hints,
//! which whoever changes a bucket lowers and a sweep mends.

use std::time::Duration;

use tidemill_proto::{BucketName, RoomName};

use super::super::calls::Call;
use super::super::failure::Effect;
use super::super::{Shard, scripts};
use super::replies;
use crate::storage::{ROOM_IDLE, StorageError};

/// Names of the index that are asked about in one step of a sweep.
const SWEPT_NAMES: usize = 256;

impl Shard {
    /// Notes in the index when a key of buckets is over.
    pub(super) async fn note_expiring(&self, buckets: &[(&BucketName, u64)]) {
        if let Err(error) = self.indexes.expiring.note(buckets).await {
            let error = &error as &dyn std::error::Error;
            tracing::debug!(error, "what expires is not in the index until the next sweep");
        }
    }

    /// Mends what the index says of buckets that were looked at. Whoever puts a key meanwhile that is over sooner notes it
    /// behind the change, and who looks again behind this finds it.
    pub(super) async fn mend_expiring(&self, buckets: &[(&BucketName, Option<u64>)]) {
        if buckets.is_empty() {
            return;
        }
        // A hint; the next sweep mends it.
        let _ = self.indexes.expiring.set(buckets).await;
        let names: Vec<&BucketName> = buckets.iter().map(|(bucket, _)| *bucket).collect();
        let found = self.next_due(&names).await;
        let earlier: Vec<_> = buckets
            .iter()
            .zip(found)
            .filter_map(|((bucket, next), found)| {
                Some((*bucket, found.filter(|found| next.is_none_or(|next| *found < next))?))
            })
            .collect();
        self.note_expiring(&earlier).await;
    }

    /// Returns when a key is over next in buckets; `None` also where that could not be asked.
    async fn next_due(&self, buckets: &[&BucketName]) -> Vec<Option<u64>> {
        let ask = |bucket: &&BucketName| {
            let [_, _, _, _, due, ..] = self.keys.bucket(bucket);
            let call = Call::new(&scripts::NEXT_DUE, Effect::Read, &[due], &[] as &[&str]);
            async move { self.calls.call(call, |reply| Some(replies::number(&reply))).await.ok().flatten() }
        };
        futures_util::future::join_all(buckets.iter().map(ask)).await
    }

    /// Returns buckets in which a key is over soon.
    pub(in super::super) async fn expiring_within(
        &self,
        within: Duration,
        limit: usize,
    ) -> Result<Vec<(BucketName, Duration)>, StorageError> {
        self.indexes.expiring.due_within(within, limit).await
    }

    /// Returns names of buckets, but for those of rooms.
    pub(in super::super) async fn bucket_names(
        &self,
        after: Option<&BucketName>,
        limit: usize,
    ) -> Result<Vec<BucketName>, StorageError> {
        let (mut found, mut after) = (Vec::new(), after.cloned());
        loop {
            let names = self.indexes.buckets.page("", after.as_ref(), limit).await?;
            let is_last = names.len() < limit;
            after = names.last().cloned();
            found.extend(names.into_iter().filter(|name| name.room().is_none()));
            if is_last || found.len() >= limit {
                found.truncate(limit);
                return Ok(found);
            }
        }
    }

    /// Returns names of rooms.
    pub(in super::super) async fn room_names(
        &self,
        after: Option<&RoomName>,
        limit: usize,
    ) -> Result<Vec<RoomName>, StorageError> {
        let (prefix, after) = (BucketName::before_rooms(), after.map(BucketName::of_room));
        let names = self.indexes.buckets.page(prefix.as_str(), after.as_ref(), limit).await?;
        Ok(names.iter().filter_map(BucketName::room).collect())
    }

    /// Notes buckets whose logs a sweep has come by, and when in each a key is over next.
    pub(in super::super) async fn index_buckets(&self, buckets: &[BucketName]) {
        let names: Vec<&BucketName> = buckets.iter().collect();
        if let Err(error) = self.indexes.buckets.add(&names).await {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "buckets are not in the index until the next sweep"
            );
        }
        let found = self.next_due(&names).await;
        let due: Vec<_> =
            buckets.iter().zip(found).filter_map(|(bucket, due)| Some((bucket, due?))).collect();
        self.note_expiring(&due).await;
    }

    /// Takes buckets that are gone out of both indexes.
    pub(super) async fn unindex_buckets(&self, buckets: &[&BucketName]) -> Result<(), StorageError> {
        let (named, expiring, begun) = tokio::join!(
            self.indexes.buckets.remove(buckets),
            self.indexes.expiring.remove(buckets),
            self.indexes.begun.remove(buckets)
        );
        named.and(expiring).and(begun)
    }

    /// Takes out of the index the names of buckets that are gone.
    pub(in super::super) async fn mend_buckets(&self) -> Result<(), StorageError> {
        let mut after = None;
        loop {
            let names = self.indexes.buckets.near(after.as_ref(), SWEPT_NAMES).await?;
            let Some(last) = names.last() else { return Ok(()) };
            after = Some(last.clone());
            let mut gone = Vec::new();
            for name in names.iter().filter(|name| self.has(*name)) {
                let found = self.bucket(name).await;
                if name.room().is_some() && found.as_ref().is_ok_and(|bucket| bucket.keys == 0) {
                    // What fails now is done by the next sweep.
                    let _ = self.delete_bucket_if(name, Some(ROOM_IDLE)).await;
                }
                if matches!(found, Err(StorageError::NoBucket | StorageError::ForeignKey(_))) {
                    gone.push(name);
                }
            }
            self.unindex_buckets(&gone).await?;
        }
    }
}
