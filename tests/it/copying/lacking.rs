//! What was removed at a target since it has it from a copy: it is told, and comes back only where that is said.

use tidemill::copying::{Action, Copy, Lacks, Plan};
use tidemill::proto::work::GroupName;
use tidemill::proto::{BucketName, MessageId, TopicName};
use tidemill::storage::{Existing, GroupStart, Storage, Trim, group_defaults};

use super::file::delete_key;
use super::{PLAN, copy, kept, keys_of, put};
use crate::support::ground::{Ground, SOON, append_numbers, topic};
use crate::support::server::Kind;

const OVERWRITE: Plan =
    Plan { topics: Vec::new(), follow: false, switch: false, overwrite: true, patience: SOON };

fn bucket() -> BucketName {
    BucketName::parse("flows").expect("a name")
}

fn workers() -> GroupName {
    GroupName::parse("workers").expect("a name")
}

/// Returns a source with a topic, a group and a bucket, and each kind of target that has a copy of it.
async fn copied() -> (Ground, Vec<MessageId>, Vec<Ground>) {
    let from = Ground::memory().await.expect("it is there");
    let one = topic("one");
    let sent = append_numbers(&from.storage, &one, 2_500).await;
    let settings = group_defaults(&one, &workers());
    let (start, existing) = (GroupStart::Earliest, Existing::Replace);
    from.storage.work.put_group(&one, &workers(), &settings, start, existing).await.unwrap();
    for number in 0..30 {
        put(&from.storage, &bucket(), &format!("k{number}"), None).await.unwrap();
    }
    let grounds = [Ground::memory().await, Ground::on(Kind::Valkey).await, Ground::with_braces().await];
    let grounds: Vec<Ground> = grounds.into_iter().flatten().collect();
    for to in &grounds {
        copy(&from, to, PLAN).run().await.unwrap();
    }
    (from, sent, grounds)
}

async fn planned(copy: &Copy) -> [(Action, Option<Lacks>); 2] {
    let outline = copy.plan().await.unwrap();
    let (topic, bucket) = (&outline.topics[0], &outline.buckets[0]);
    [(topic.action, topic.lacks), (bucket.action, bucket.lacks)]
}

fn lacks(count: u64, groups: usize) -> Lacks {
    Lacks { count, groups }
}

/// Removes something at a target, and checks what is told of it and that it comes back.
async fn comes_back(
    (from, to): (&Ground, &Ground),
    expected: [Option<Lacks>; 2],
    remove: impl AsyncFnOnce(&Storage, &TopicName),
) {
    let one = topic("one");
    remove(&to.storage, &one).await;
    let before = (kept(&to.storage, &one).await, keys_of(&to.storage, &bucket()).await);
    let action = |lacks: Option<Lacks>| if lacks.is_some() { Action::Overwrite } else { Action::Keep };
    assert_eq!(planned(&copy(from, to, PLAN)).await, expected.map(|lacks| (Action::Keep, lacks)));
    copy(from, to, PLAN).run().await.unwrap();
    let after = (kept(&to.storage, &one).await, keys_of(&to.storage, &bucket()).await);
    assert_eq!(after, before, "nothing is changed");
    assert_eq!(planned(&copy(from, to, OVERWRITE)).await, expected.map(|lacks| (action(lacks), lacks)));
    let again = copy(from, to, OVERWRITE);
    again.run().await.unwrap();
    let replaced = again.progress().reached();
    assert_eq!(replaced.replaced_messages, if expected[0].is_some() { before.0.len() as u64 } else { 0 });
    let all = (kept(&from.storage, &one).await, keys_of(&from.storage, &bucket()).await);
    assert_eq!((kept(&to.storage, &one).await, keys_of(&to.storage, &bucket()).await), all);
    assert!(to.storage.copies.copied_group(&one, &workers()).await.is_ok());
    assert_eq!(planned(&copy(from, to, OVERWRITE)).await, [(Action::Keep, None); 2]);
}

#[tokio::test]
async fn what_was_removed_is_told_and_comes_back_where_that_is_said() {
    let (from, sent, grounds) = copied().await;
    for to in &grounds {
        let sides = (&from, to);
        comes_back(sides, [Some(lacks(2_490, 0)), None], async |storage, one| {
            storage.messages.trim(one, Trim::Before(sent[2_490])).await.unwrap();
        })
        .await;
        comes_back(sides, [Some(lacks(3, 0)), None], async |storage, one| {
            for at in [0, 7, 2_000] {
                assert!(storage.messages.remove(one, sent[at]).await.unwrap());
            }
        })
        .await;
        comes_back(sides, [Some(lacks(2_500, 0)), None], async |storage, one| {
            let behind = sent[2_499].next().expect("an id");
            storage.messages.trim(one, Trim::Before(behind)).await.unwrap();
        })
        .await;
        comes_back(sides, [Some(lacks(0, 1)), None], async |storage, one| {
            storage.work.delete_group(one, &workers()).await.unwrap();
        })
        .await;
        comes_back(sides, [None, Some(lacks(2, 0))], async |storage, _| {
            delete_key(storage, "k3").await;
            delete_key(storage, "k29").await;
        })
        .await;
    }
}

#[tokio::test]
async fn what_has_gone_on_and_has_all_stays_as_it_is() {
    let (from, sent, grounds) = copied().await;
    for to in &grounds {
        let one = topic("one");
        let own = append_numbers(&to.storage, &one, 3).await;
        put(&to.storage, &bucket(), "own", None).await.unwrap();
        put(&to.storage, &bucket(), "k1", None).await.unwrap();
        // One of its own that is gone is nothing that the source has.
        assert!(to.storage.messages.remove(&one, own[1]).await.unwrap());
        copy(&from, to, OVERWRITE).run().await.unwrap();
        let all = [&sent[..], &own[..1], &own[2..]].concat();
        assert_eq!(kept(&to.storage, &one).await, all);
        assert_eq!(keys_of(&to.storage, &bucket()).await.len(), 31);
        // Where it lacks something, all of it is replaced.
        assert!(to.storage.messages.remove(&one, sent[5]).await.unwrap());
        delete_key(&to.storage, "k2").await;
        copy(&from, to, OVERWRITE).run().await.unwrap();
        assert_eq!(kept(&to.storage, &one).await, sent);
        assert_eq!(keys_of(&to.storage, &bucket()).await.len(), 30);
    }
}
