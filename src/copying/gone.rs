//! What a target has of a copy and the source has no more.
//!
//! What was deleted at the source is deleted at the target, too. A source that was started again may have lost it, and then
//! the target has all that is left of it: it stays, and that is told. So is what an earlier copy has left that nobody goes
//! on with, as the source has it no more.
//!
//! What the source had as the copy began, and was deleted there before it was whole at the target, is told at the end.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tidemill_proto::TopicName;

use super::freezing::{all_buckets, is_named, selected};
use super::planning::{Action, Ages, Outline, Planned, PlannedBucket};
use super::side::SideError;
use super::{AT_ONCE, After, Copy, CopyError, Side};
use crate::storage::Freeze;

impl Copy {
    /// Checks that the source was not started again since this copy began, as far as it says who it is: before the target
    /// loses a topic, or the log of a bucket, that is not at the source.
    pub(super) async fn check_same_run(&self, topic: &TopicName) -> Result<(), CopyError> {
        let now = self.identity(Side::Source).await?;
        if self.source_began.get().is_some_and(|began| *began != now) {
            return Err(CopyError::Restarted(topic.clone()));
        }
        Ok(())
    }

    /// Returns which topics, and logs of buckets, are gone from the source of those that it had, or that the target has from
    /// this copy, and that are not whole there.
    pub(super) fn gone(&self, afters: &[(TopicName, After)]) -> BTreeSet<TopicName> {
        let (gone, there): (Vec<_>, Vec<_>) = afters.iter().partition(|(_, after)| *after == After::Gone);
        let mut all: BTreeSet<TopicName> = self.made.lock().clone();
        all.extend(gone.into_iter().map(|(topic, _)| topic.clone()));
        for (topic, _) in there {
            all.remove(topic);
        }
        let finished = self.finished.lock();
        all.retain(|topic| !finished.contains(topic));
        all
    }

    /// Deletes at the target what this copy has made and is gone from the source.
    pub(super) async fn forget(&self, gone: &BTreeSet<TopicName>) -> Result<(), CopyError> {
        let made = self.made.lock().clone();
        for topic in gone.intersection(&made) {
            let forget = || async {
                if self.left_one(topic).await?.is_none() {
                    return Ok(());
                }
                self.check_same_run(topic).await?;
                match topic.bucket() {
                    Some(bucket) => self.delete_bucket(&bucket).await,
                    None => self.delete(topic).await,
                }
            };
            self.patiently(forget).await?;
        }
        Ok(())
    }

    /// Notes what is gone from the source, of what was to be copied; and whether nothing else is there of it.
    ///
    /// # Errors
    /// A topic that was named is gone, and not followed: who follows one has the target lose it, too.
    pub(super) async fn tell_gone(
        &self,
        planned: BTreeSet<TopicName>,
        gone: BTreeSet<TopicName>,
    ) -> Result<(), CopyError> {
        let mut all = planned;
        all.extend(gone);
        let finished = self.finished.lock().clone();
        all.retain(|topic| !finished.contains(topic));
        let Some(first) = all.first() else { return Ok(()) };
        self.patiently(|| self.check_same_run(first)).await?;
        let mut now = self.patiently(|| self.topics()).await?;
        now.extend(self.patiently(|| self.buckets()).await?.iter().map(TopicName::log_of));
        let is_empty = now.iter().all(|topic| all.contains(topic));
        self.progress.source_is_empty.store(is_empty, Ordering::Relaxed);
        let named = all.iter().find(|topic| !self.plan.follow && is_named(&self.plan.topics, topic));
        let named = named.cloned();
        *self.progress.gone.lock() = all;
        named.map_or(Ok(()), |topic| Err(CopyError::Deleted(topic)))
    }

    /// Returns what the target has that is not whole, besides some that are at the source. Nothing is, where only some topics
    /// are copied.
    pub(super) async fn left(&self, there: &BTreeSet<TopicName>) -> Result<Outline, CopyError> {
        let mut left = Outline::default();
        if !self.plan.topics.is_empty() {
            return Ok(left);
        }
        let names = async || {
            let mut names = selected(&*self.to, &[]).await?;
            names.extend(all_buckets(&*self.to).await?.iter().map(TopicName::log_of));
            Ok(names)
        };
        let names = self.patiently(async || names().await.map_err(Side::Target.failed_at_all())).await?;
        let look = async |topic: &TopicName| {
            let found = self.patiently(|| self.left_one(topic)).await?;
            Ok::<_, CopyError>(found.map(|count| (topic.clone(), count)))
        };
        let found = stream::iter(names.difference(there)).map(look).buffered(AT_ONCE);
        let found: Vec<Option<(TopicName, u64)>> = found.try_collect().await?;
        let action = Action::Left;
        for (topic, count) in found.into_iter().flatten() {
            let (replaced, lacks) = (None, None);
            if let Some(bucket) = topic.bucket() {
                left.buckets.push(PlannedBucket {
                    bucket,
                    action,
                    keys: count,
                    replaced,
                    lacks,
                    there: count,
                });
            } else {
                let (messages, there) = (count, count);
                let ages = Ages::default();
                left.topics.push(Planned {
                    topic,
                    action,
                    messages,
                    groups: 0,
                    replaced,
                    lacks,
                    there,
                    ages,
                });
            }
        }
        Ok(left)
    }

    /// Returns how much the target has of a topic, or of the bucket whose log it is, where that is not whole.
    async fn left_one(&self, topic: &TopicName) -> Result<Option<u64>, CopyError> {
        let found = if let Some(bucket) = topic.bucket() {
            let found = self.look_at_bucket(Side::Target, &bucket).await;
            found.map(|found| found.map(|found| (found.freeze, found.state.keys)))
        } else {
            let found = self.look(Side::Target, topic).await;
            found.map(|found| found.map(|found| (found.freeze, found.length)))
        };
        match found {
            Ok(found) => {
                Ok(found.and_then(|(freeze, count)| (freeze == Some(Freeze::Importing)).then_some(count)))
            }
            // Of another program, and no copy.
            Err(CopyError::Failed { error: SideError::Refused(_), .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
