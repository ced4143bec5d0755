//! The two indexes that lie beside the buckets: of their names, and of when in each a key is over next. Both are hints,
//! which whoever changes a bucket lowers and a sweep mends.

use std::time::Duration;

use tidemill_proto::BucketName;

use super::super::calls::Call;
use super::super::failure::{Effect, of_key, of_reply, unexpected};
use super::super::resp::{Reply, Request};
use super::super::{Shard, keys, scripts};
use super::replies::{self, Coded, coded};
use super::{LINES_BYTES, ms_of};
use crate::storage::{ROOM_IDLE, StorageError};

/// Names of the index that are asked about in one step of a sweep.
const SWEPT_NAMES: usize = 256;

impl Shard {
    /// Notes in the index when a key of buckets is over.
    pub(super) async fn note_expiring(&self, buckets: &[(&BucketName, u64)]) {
        let mut request = Request::default();
        for (bucket, due) in buckets {
            let due = due.to_string();
            request.add(&[
                b"ZADD",
                keys::EXPIRING.as_bytes(),
                b"LT",
                due.as_bytes(),
                bucket.as_str().as_bytes(),
            ]);
        }
        let noted = match self.calls.connection().exchange(&request, Effect::Write).await {
            Ok(replies) => replies.iter().find_map(|reply| reply.error()),
            Err(error) => Some(error.to_string()),
        };
        if let Some(error) = noted {
            tracing::debug!(error, "what expires is not in the index until the next sweep");
        }
    }

    /// Mends what the index says of buckets that were looked at. Whoever puts a key meanwhile that is over sooner notes it
    /// behind the change, and who looks again behind this finds it.
    pub(super) async fn mend_expiring(&self, buckets: &[(&BucketName, Option<u64>)]) {
        if buckets.is_empty() {
            return;
        }
        let mut request = Request::default();
        for (bucket, next) in buckets {
            let (key, name) = (keys::EXPIRING.as_bytes(), bucket.as_str().as_bytes());
            match next {
                Some(due) => request.add(&[b"ZADD", key, due.to_string().as_bytes(), name]),
                None => request.add(&[b"ZREM", key, name]),
            };
        }
        // A hint; the next sweep mends it.
        let _ = self.calls.connection().exchange(&request, Effect::Write).await;
        let names: Vec<&BucketName> = buckets.iter().map(|(bucket, _)| *bucket).collect();
        let found = self.next_due(&names).await;
        let earlier: Vec<_> = buckets
            .iter()
            .zip(found)
            .filter_map(|((bucket, next), found)| {
                Some((*bucket, found.filter(|found| next.is_none_or(|next| *found < next))?))
            })
            .collect();
        if !earlier.is_empty() {
            self.note_expiring(&earlier).await;
        }
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
        let (within, limit) = (ms_of(Some(within)), limit.to_string());
        let call = Call::new(&scripts::DUE_TOPICS, Effect::Read, &[keys::EXPIRING], &[&within, &limit])
            .replied(LINES_BYTES, LINES_BYTES);
        let read = |reply: Reply<'_>| {
            coded(reply, |_, parts| {
                let now = u64::try_from(parts.next()?.integer()?).ok()?;
                let mut found = Vec::new();
                while let (Some(name), Some(due)) = (parts.next(), parts.next()) {
                    let name = std::str::from_utf8(name.bytes()?).ok().and_then(BucketName::parse_kept);
                    let due_in = Duration::from_millis(replies::number(&due)?.saturating_sub(now));
                    found.extend(name.map(|name| (name, due_in)));
                }
                Some(found)
            })
        };
        match self.calls.call(call, read).await.map_err(|error| of_key(error, keys::EXPIRING))? {
            Coded::Well(found) => Ok(found),
            Coded::Other(_) => Err(StorageError::ForeignKey(keys::EXPIRING.into())),
        }
    }

    /// Returns names of buckets, but for those of rooms.
    pub(in super::super) async fn bucket_names(
        &self,
        after: Option<&BucketName>,
        limit: usize,
    ) -> Result<Vec<BucketName>, StorageError> {
        let (mut found, mut after) = (Vec::new(), after.cloned());
        loop {
            let names = self.indexed_buckets(after.as_ref(), limit).await?;
            let is_last = names.len() < limit;
            after = names.last().cloned();
            found.extend(names.into_iter().filter(|name| name.room().is_none()));
            if is_last || found.len() >= limit {
                found.truncate(limit);
                return Ok(found);
            }
        }
    }

    /// Returns names of the index, those of rooms among them.
    async fn indexed_buckets(
        &self,
        after: Option<&BucketName>,
        limit: usize,
    ) -> Result<Vec<BucketName>, StorageError> {
        let from = after.map_or_else(|| "-".to_owned(), |after| format!("({after}"));
        let mut request = Request::default();
        let key = keys::BUCKETS.as_bytes();
        request.add(&[
            b"ZRANGEBYLEX",
            key,
            from.as_bytes(),
            b"+",
            b"LIMIT",
            b"0",
            limit.to_string().as_bytes(),
        ]);
        let replies = self.calls.connection().exchange(&request, Effect::Read).await?;
        let reply = replies.iter().next().ok_or_else(|| unexpected("ZRANGEBYLEX", Effect::Read))?;
        if let Some(text) = reply.error() {
            return Err(of_key(of_reply(text), keys::BUCKETS));
        }
        let Reply::Array(parts) = reply else { return Err(unexpected("ZRANGEBYLEX", Effect::Read)) };
        let name = |part: Reply<'_>| BucketName::parse_kept(std::str::from_utf8(part.bytes()?).ok()?);
        Ok(parts.filter_map(name).collect())
    }

    /// Notes buckets whose logs a sweep has come by, and when in each a key is over next.
    pub(in super::super) async fn index_buckets(&self, buckets: &[BucketName]) {
        let mut request = Request::default();
        for bucket in buckets {
            request.add(&[b"ZADD", keys::BUCKETS.as_bytes(), b"NX", b"0", bucket.as_str().as_bytes()]);
        }
        if let Err(error) = self.calls.connection().exchange(&request, Effect::Write).await {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "buckets are not in the index until the next sweep"
            );
        }
        let names: Vec<&BucketName> = buckets.iter().collect();
        let found = self.next_due(&names).await;
        let due: Vec<_> =
            buckets.iter().zip(found).filter_map(|(bucket, due)| Some((bucket, due?))).collect();
        if !due.is_empty() {
            self.note_expiring(&due).await;
        }
    }

    /// Takes out of the index the names of buckets that are gone.
    pub(in super::super) async fn mend_buckets(&self) -> Result<(), StorageError> {
        let mut after = None;
        loop {
            let names = self.indexed_buckets(after.as_ref(), SWEPT_NAMES).await?;
            let Some(last) = names.last() else { return Ok(()) };
            after = Some(last.clone());
            let mut gone = Request::default();
            for name in &names {
                let found = self.bucket(name).await;
                if name.room().is_some() && found.as_ref().is_ok_and(|bucket| bucket.keys == 0) {
                    // What fails now is done by the next sweep.
                    let _ = self.delete_bucket_if(name, Some(ROOM_IDLE)).await;
                }
                if matches!(found, Err(StorageError::NoBucket | StorageError::ForeignKey(_))) {
                    for key in [keys::BUCKETS, keys::EXPIRING] {
                        gone.add(&[b"ZREM", key.as_bytes(), name.as_str().as_bytes()]);
                    }
                }
            }
            if !gone.bytes().is_empty() {
                self.calls.connection().exchange(&gone, Effect::Write).await?;
            }
        }
    }
}
