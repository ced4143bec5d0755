//! A storage as a side of a copy.

use async_trait::async_trait;
use tidemill_proto::copy::CopyRead;
use tidemill_proto::{BucketName, MessageId, TopicName};

use super::side::{
    CopySide, MESSAGES_AT_ONCE, MESSAGES_BYTES, PAGE_BYTES, SideError, Told, WAITING_AT_ONCE, Write,
    len_bytes,
};
use crate::storage::{
    DuePlace, GapCheck, IMPORTED_MAX, LatestRange, OddNames, Storage, StorageError, StoredMessage, Unlisted,
    WaitingRange,
};

/// Tells what a storage has. Of messages, so many pages come together at the most.
///
/// # Errors
/// Those of what is asked.
pub async fn read(storage: &Storage, asked: &CopyRead, pages: usize) -> Result<Told, StorageError> {
    let (copies, buckets) = (&storage.copies, &storage.bucket_copies);
    Ok(match asked {
        CopyRead::Identity { topic } => Told::Identity(copies.identity(topic.as_ref()).await?),
        CopyRead::TopicNames { prefix, after } => {
            Told::TopicNames(storage.topics.names(prefix, after.as_ref(), IMPORTED_MAX).await?)
        }
        CopyRead::BucketNames { after } => Told::BucketNames(bucket_names(storage, after.clone()).await?),
        CopyRead::RefusesNew => Told::Flag(copies.refuses_new_topics().await?),
        CopyRead::Retention => Told::Seconds(copies.retention().map(|age| age.as_secs())),
        CopyRead::Topic { topic } => Told::Topic(Box::new(copies.copied(topic).await?)),
        CopyRead::Messages { topic, after } => Told::Messages(messages(storage, topic, *after, pages).await?),
        CopyRead::Latest { topic, after } => {
            let range = LatestRange {
                after: Some(*after),
                gap_check: GapCheck::None,
                goes_on: true,
                limit: IMPORTED_MAX,
                bytes_max: PAGE_BYTES,
            };
            Told::Messages(storage.messages.latest(topic, range).await?.messages)
        }
        CopyRead::Deletions { topic } => Told::Ids(copies.copied_deletions(topic).await?),
        CopyRead::Groups { topic } => {
            let groups = storage.work.groups(topic).await?;
            Told::Groups(groups.into_iter().map(|detail| detail.group).collect())
        }
        CopyRead::Group { topic, group } => Told::Group(Box::new(copies.copied_group(topic, group).await?)),
        CopyRead::Pending { topic, group, after } => {
            Told::Pending(copies.copied_pending(topic, group, *after, IMPORTED_MAX).await?)
        }
        CopyRead::Dead { topic, group, after } => {
            Told::Dead(copies.copied_dead(topic, group, *after, IMPORTED_MAX).await?)
        }
        CopyRead::Unique { topic, group, after } => {
            Told::Unique(copies.copied_unique(topic, group, after.as_deref(), IMPORTED_MAX).await?)
        }
        CopyRead::Waiting { topic, after } => {
            let after = after.clone();
            let after = after.map(|after| DuePlace { due: after.deliver_at, id: after.schedule_id });
            let range = WaitingRange { after, limit: WAITING_AT_ONCE, bytes_max: PAGE_BYTES };
            Told::Waiting(storage.schedules.waiting(topic, range).await?)
        }
        CopyRead::Recurring { topic } => Told::Recurring(storage.schedules.recurring(topic).await?),
        CopyRead::Bucket { bucket } => Told::Bucket(Box::new(buckets.copied_bucket(bucket).await?)),
        CopyRead::Keys { bucket, after } => {
            Told::Keys(buckets.copied_keys(bucket, after.as_ref(), IMPORTED_MAX, PAGE_BYTES).await?)
        }
        CopyRead::SomeKeys { bucket, keys } => {
            Told::SomeKeys(buckets.copied_some(bucket, keys, PAGE_BYTES).await?)
        }
        CopyRead::Ends { bucket, after } => {
            Told::Ends(buckets.copied_ends(bucket, after.as_ref(), IMPORTED_MAX).await?)
        }
        CopyRead::Changes { bucket, after } => {
            Told::Messages(buckets.copied_changes(bucket, *after, IMPORTED_MAX, PAGE_BYTES).await?)
        }
    })
}

async fn messages(
    storage: &Storage,
    topic: &TopicName,
    after: MessageId,
    pages: usize,
) -> Result<Vec<StoredMessage>, StorageError> {
    let read = |after| storage.copies.copied_messages(topic, after, MESSAGES_AT_ONCE, MESSAGES_BYTES);
    let mut messages = read(after).await?;
    let mut bytes = len_bytes(&messages);
    for _ in 1..pages {
        let Some(last) = messages.last().map(|message| message.id) else { break };
        if bytes >= PAGE_BYTES || messages.len() + MESSAGES_AT_ONCE > IMPORTED_MAX {
            break;
        }
        let more = read(last).await?;
        bytes += len_bytes(&more);
        // A large one comes alone: together they may be more than the target takes at once.
        if more.is_empty() || bytes > PAGE_BYTES {
            break;
        }
        messages.extend(more);
    }
    Ok(messages)
}

/// Returns names of buckets behind one, but for those of rooms: who is present is at a storage, and not in it. None are
/// none behind it.
async fn bucket_names(
    storage: &Storage,
    mut after: Option<BucketName>,
) -> Result<Vec<BucketName>, StorageError> {
    loop {
        let page = storage.buckets.bucket_names(after.as_ref(), IMPORTED_MAX).await?;
        after = page.last().cloned();
        let named: Vec<BucketName> = page.into_iter().filter(|bucket| bucket.room().is_none()).collect();
        if after.is_none() || !named.is_empty() {
            return Ok(named);
        }
    }
}

/// Does something in a storage.
///
/// # Errors
/// Those of what is done.
pub async fn write(storage: &Storage, write: Write) -> Result<(), StorageError> {
    let (copies, buckets) = (&storage.copies, &storage.bucket_copies);
    match write {
        Write::Mark { topic } => storage.upkeep.sweep_one(&topic).await.map(drop),
        Write::RefuseNew { refused } => copies.refuse_new_topics(refused).await,
        Write::Freeze { topic, frozen } => copies.freeze(&topic, frozen).await,
        Write::FreezeBucket { bucket, frozen } => buckets.freeze_bucket(&bucket, frozen).await,
        Write::Delete { topic } => storage.topics.delete(&topic).await.map(drop),
        Write::DeleteBucket { bucket } => storage.buckets.delete_bucket(&bucket).await,
        Write::Begin(other) => copies.begin_import(&other).await,
        Write::Messages { topic, epoch, after, messages } => {
            copies.import_messages(&topic, epoch, after, &messages).await
        }
        Write::Forget { topic, epoch, ids } => copies.import_forgotten(&topic, epoch, &ids).await,
        Write::Group { topic, group } => copies.import_group(&topic, &group).await,
        Write::Pending { topic, group, pending } => copies.import_pending(&topic, &group, &pending).await,
        Write::Dead { topic, group, dead } => copies.import_dead(&topic, &group, &dead).await,
        Write::Unique { topic, group, unique } => copies.import_unique(&topic, &group, &unique).await,
        Write::Waiting { topic, first, waiting, recurring } => {
            copies.import_waiting(&topic, first, &waiting, &recurring).await
        }
        Write::Finish { topic, deletions } => copies.finish_import(&topic, &deletions).await,
        Write::BeginBucket(other) => buckets.begin_bucket(&other).await,
        Write::Keys { bucket, epoch, keys } => buckets.import_keys(&bucket, epoch, keys).await,
        Write::Ends { bucket, epoch, ends } => buckets.import_ends(&bucket, epoch, &ends).await,
        Write::Changes { bucket, epoch, after, changes } => {
            buckets.import_changes(&bucket, epoch, after, &changes).await
        }
        Write::FinishBucket(other) => buckets.finish_bucket(&other).await,
    }
}

#[async_trait]
impl CopySide for Storage {
    async fn read(&self, asked: &CopyRead) -> Result<Told, SideError> {
        Ok(read(self, asked, 1).await?)
    }

    async fn write(&self, what: Write) -> Result<(), SideError> {
        Ok(write(self, what).await?)
    }

    fn behind(&self) -> Option<&dyn CopySide> {
        None
    }

    async fn claim(&self, topic: &TopicName, token: u64) -> Result<(), SideError> {
        if self.copies.claim_import(topic, token).await? {
            return Ok(());
        }
        Err(SideError::Passing("another copy to this target is about to end there".into()))
    }

    async fn unlisted(&self) -> Result<Unlisted, SideError> {
        let mut all = self.copies.unlisted().await?;
        all.names.retain(|name| name.bucket().is_none_or(|bucket| bucket.room().is_none()));
        Ok(all)
    }

    async fn odd_groups(&self, topic: &TopicName) -> Result<OddNames, SideError> {
        Ok(self.copies.odd_groups(topic).await?)
    }

    async fn list(&self, topic: &TopicName) -> Result<(), SideError> {
        Ok(self.copies.list_copied(topic).await?)
    }
}
