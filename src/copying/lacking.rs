//! What a target lacks that has all that came to the source: what was removed there since, or lost.
//!
//! Where no topic is replaced that is only told, and counts are enough. Before one is replaced each id is looked for.

use std::collections::VecDeque;

use tidemill_proto::copy::CopyRead;
use tidemill_proto::work::GroupName;
use tidemill_proto::{BucketName, KeyName, MessageId, Timestamp, TopicName};

use super::planning::Lacks;
use super::side::ask;
use super::{Copy, CopyError, Side};
use crate::clock::Clock;
use crate::storage::{CopiedBucket, CopiedTopic, StoredMessage};

/// Messages of a topic at a side, one id after the other.
struct Ids<'a> {
    copy: &'a Copy,
    side: Side,
    topic: &'a TopicName,
    after: MessageId,
    page: VecDeque<MessageId>,
}

impl<'a> Ids<'a> {
    fn behind(copy: &'a Copy, side: Side, topic: &'a TopicName, after: MessageId) -> Self {
        Self { copy, side, topic, after, page: VecDeque::new() }
    }

    /// Returns the next, if there is one.
    async fn next(&mut self) -> Result<Option<MessageId>, CopyError> {
        if self.page.is_empty() {
            let asked = CopyRead::Messages { topic: self.topic.clone(), after: self.after };
            let page = ask(self.copy.side(self.side), asked).await;
            let page: Vec<StoredMessage> = page.map_err(self.side.failed(self.topic))?;
            self.page.extend(page.iter().map(|message| message.id));
        }
        let next = self.page.pop_front();
        self.after = next.unwrap_or(self.after);
        Ok(next)
    }
}

/// Keys of a bucket at a side, one after the other, each with when it is over.
struct Keys<'a> {
    copy: &'a Copy,
    side: Side,
    bucket: &'a BucketName,
    after: Option<KeyName>,
    page: VecDeque<(KeyName, Option<Timestamp>)>,
}

impl<'a> Keys<'a> {
    fn of(copy: &'a Copy, side: Side, bucket: &'a BucketName) -> Self {
        Self { copy, side, bucket, after: None, page: VecDeque::new() }
    }

    /// Returns the next, if there is one.
    async fn next(&mut self) -> Result<Option<(KeyName, Option<Timestamp>)>, CopyError> {
        if self.page.is_empty() {
            let asked = CopyRead::Ends { bucket: self.bucket.clone(), after: self.after.clone() };
            let page = ask(self.copy.side(self.side), asked).await;
            let page: Vec<(KeyName, Option<Timestamp>)> =
                page.map_err(self.side.failed(&TopicName::log_of(self.bucket)))?;
            self.page.extend(page);
        }
        let next = self.page.pop_front();
        if let Some((key, _)) = &next {
            self.after = Some(key.clone());
        }
        Ok(next)
    }
}

/// Returns about how many messages a target has of those that the source has: those that came since are behind them.
fn about_held(source: &CopiedTopic, target: &CopiedTopic) -> u64 {
    if target.first.is_none_or(|first| first > source.last) {
        return 0;
    }
    let came = match (source.given, target.given) {
        _ if target.last == source.last => 0,
        (Some(before), Some(now)) => now.saturating_sub(before),
        // Nobody has counted.
        (None, _) | (_, None) => target.length.saturating_sub(source.length),
    };
    target.length.saturating_sub(came).min(source.length)
}

impl Copy {
    /// Returns what a topic of the target lacks, if anything.
    pub(super) async fn lacks(
        &self,
        source: &CopiedTopic,
        target: &CopiedTopic,
        groups: &[GroupName],
    ) -> Result<Option<Lacks>, CopyError> {
        let topic = &source.topic.topic_name;
        let mut count = source.length - about_held(source, target);
        if count > 0 && self.plan.overwrite {
            count = self.count_lacking(source).await?;
        }
        let mut lacking = 0;
        if !groups.is_empty() {
            let asked = CopyRead::Groups { topic: topic.clone() };
            let there: Vec<GroupName> =
                ask(self.side(Side::Target), asked).await.map_err(Side::Target.failed(topic))?;
            lacking = groups.iter().filter(|group| !there.contains(group)).count();
        }
        let lacks = Lacks { count, groups: lacking };
        Ok((lacks != Lacks::default()).then_some(lacks))
    }

    /// Counts the messages of the source that the target has not.
    pub(super) async fn count_lacking(&self, source: &CopiedTopic) -> Result<u64, CopyError> {
        let topic = &source.topic.topic_name;
        let after = source.first.and_then(MessageId::previous).unwrap_or(MessageId::MIN);
        let mut wanted = Ids::behind(self, Side::Source, topic, after);
        let mut there = Ids::behind(self, Side::Target, topic, after);
        let (mut found, mut count) = (there.next().await?, 0);
        while let Some(id) = wanted.next().await?.filter(|id| *id <= source.last) {
            while found.is_some_and(|found| found < id) {
                found = there.next().await?;
            }
            count += u64::from(found != Some(id));
        }
        Ok(count)
    }

    /// Returns what a bucket of the target lacks, if anything. A key whose time is over lacks nowhere.
    pub(super) async fn lacks_keys(
        &self,
        source: &CopiedBucket,
        target: &CopiedBucket,
    ) -> Result<Option<Lacks>, CopyError> {
        if source.state.keys <= target.state.keys && !self.plan.overwrite {
            return Ok(None);
        }
        let bucket = &source.state.bucket;
        let mut wanted = Keys::of(self, Side::Source, bucket);
        let mut there = Keys::of(self, Side::Target, bucket);
        let now = Clock::system().now();
        let (mut found, mut count) = (there.next().await?, 0);
        while let Some((key, end)) = wanted.next().await? {
            while found.as_ref().is_some_and(|(found, _)| *found < key) {
                found = there.next().await?;
            }
            let is_there = found.as_ref().is_some_and(|(found, _)| *found == key);
            count += u64::from(!is_there && end.is_none_or(|end| end > now));
        }
        Ok((count > 0).then_some(Lacks { count, groups: 0 }))
    }
}
