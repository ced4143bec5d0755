//! Two copies to one target at one time: what comes in parts is of one of them.

use std::time::Duration;

use tidemill::copying::{CopyError, Plan};
use tidemill::proto::work::{ConsumerName, GroupName};
use tidemill::proto::{BucketName, MessageId, TopicName};
use tidemill::storage::{Claim, Existing, GroupStart, Storage, StorageError, group_defaults};

use super::{PLAN, copy, keys_of, put};
use crate::support::ground::{Ground, append_numbers, topic};
use crate::support::server::Kind;

fn workers() -> GroupName {
    GroupName::parse("workers").expect("a name")
}

fn flows() -> BucketName {
    BucketName::parse("flows").expect("a name")
}

/// Returns a source with messages that are with a consumer, and with keys.
async fn source() -> Ground {
    let from = Ground::memory().await.expect("it is there");
    let one = topic("one");
    append_numbers(&from.storage, &one, 40).await;
    let settings = group_defaults(&one, &workers());
    let (start, existing) = (GroupStart::Earliest, Existing::Replace);
    from.storage.work.put_group(&one, &workers(), &settings, start, existing).await.unwrap();
    let consumer = ConsumerName::parse("me").expect("a name");
    let claim =
        Claim { topic: one, group: workers(), consumer, max: 30, bytes_max: usize::MAX >> 1, claim_id: None };
    from.storage.work.claim(vec![claim]).await.remove(0).unwrap();
    for number in 0..2_500 {
        put(&from.storage, &flows(), &format!("k{number}"), None).await.unwrap();
    }
    from
}

async fn pending(storage: &Storage, topic: &TopicName) -> Vec<MessageId> {
    let pending = storage.copies.copied_pending(topic, &workers(), None, 1_000).await.unwrap();
    pending.into_iter().map(|one| one.id).collect()
}

#[tokio::test]
async fn of_two_copies_that_end_well_neither_has_taken_a_part_from_the_other() {
    let from = source().await;
    let Some(to) = Ground::on(Kind::Valkey).await else { return };
    let one = topic("one");
    for round in 0..12 {
        let (first, second) = (copy(&from, &to, PLAN), copy(&from, &to, PLAN));
        let late = async {
            tokio::task::yield_now().await;
            second.run().await
        };
        let done = tokio::join!(first.run(), late);
        assert!(done.0.is_ok() || done.1.is_ok(), "{round}: {done:?}");
        assert_eq!(pending(&to.storage, &one).await, pending(&from.storage, &one).await, "{round}: {done:?}");
        let (there, here) = (keys_of(&from.storage, &flows()).await, keys_of(&to.storage, &flows()).await);
        assert_eq!(here.len(), there.len(), "{round}: {done:?}");
        to.storage.topics.delete(&one).await.unwrap();
        to.storage.buckets.delete_bucket(&flows()).await.unwrap();
    }
}

#[tokio::test]
async fn what_another_copy_is_about_to_end_is_waited_for_and_one_that_is_gone_not_for_long() {
    let from = source().await;
    let Some(to) = Ground::on(Kind::Valkey).await else { return };
    let (one, log) = (topic("one"), TopicName::log_of(&flows()));
    let copies = &to.storage.copies;
    let missing = copies.claim_import(&one, 1).await;
    assert!(matches!(missing, Err(StorageError::NoTopic)), "{missing:?}");
    copies.begin_import(&from.storage.copies.copied(&one).await.unwrap()).await.unwrap();
    let bucket = from.storage.bucket_copies.copied_bucket(&flows()).await.unwrap();
    to.storage.bucket_copies.begin_bucket(&bucket).await.unwrap();
    for name in [&one, &log] {
        assert!(copies.claim_import(name, 1).await.unwrap());
        assert!(copies.claim_import(name, 1).await.unwrap(), "again");
        assert!(!copies.claim_import(name, 2).await.unwrap(), "another");
    }
    let short = copy(&from, &to, Plan { patience: Duration::from_millis(300), ..PLAN }).run().await;
    let error = match &short {
        Err(error @ CopyError::Failed { .. }) => format!("{:?}", error),
        other => panic!("{other:?}"),
    };
    assert!(error.contains("another copy to this target"), "{error}");
    // Nobody goes on with that one.
    copy(&from, &to, PLAN).run().await.unwrap();
    assert_eq!(pending(&to.storage, &one).await, pending(&from.storage, &one).await);
    for name in [&one, &log] {
        let ended = copies.claim_import(name, 2).await;
        assert!(matches!(ended, Err(StorageError::TopicExists)), "{ended:?}");
    }
}
