//! Trimming on request, exactly, and by age.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tidemill::proto::MessageId;
use tidemill::proto::page::Order;
use tidemill::proto::topics::TopicUpdate;
use tidemill::storage::{Selection, StorageError, StorageLimits, Trim};

use crate::support::eventually;
use crate::support::ground::{Ground, LIMITS, SOON, append_numbers, ids, length, read_all};

pub(super) async fn keep_removes_all_but_the_newest(ground: &Ground) {
    let topic = ground.topic();
    let appended = append_numbers(&ground.storage, &topic, 1_000).await;
    for (keep, removed, left) in
        [(u64::MAX, 0, 1_000), (1_000, 0, 1_000), (999, 1, 999), (151, 848, 151), (151, 0, 151), (1, 150, 1)]
    {
        assert_eq!(ground.storage.messages.trim(&topic, Trim::Keep(keep)).await.unwrap(), removed, "{keep}");
        let kept = ids(&read_all(&ground.storage, &topic, Order::Asc, 1_000).await);
        assert_eq!(kept, appended[1_000 - left..]);
        let state = ground.storage.topics.describe(&topic).await.unwrap();
        assert_eq!((state.length, state.first_id), (left as u64, Some(appended[1_000 - left])));
    }
    assert_eq!(ground.storage.messages.trim(&topic, Trim::Keep(0)).await.unwrap(), 1);
    assert_eq!(ground.storage.messages.trim(&topic, Trim::Keep(0)).await.unwrap(), 0);
    let state = ground.storage.topics.describe(&topic).await.unwrap();
    assert_eq!((state.length, state.first_id, state.last_id), (0, None, None), "the topic stays");
}

pub(super) async fn before_removes_all_smaller_ids(ground: &Ground) {
    let topic = ground.topic();
    let appended = append_numbers(&ground.storage, &topic, 500).await;
    let trim = async |id| ground.storage.messages.trim(&topic, Trim::Before(id)).await.unwrap();
    assert_eq!(trim(MessageId::MIN).await, 0);
    assert_eq!(trim(appended[0]).await, 0, "the id itself stays");
    assert_eq!(trim(appended[1]).await, 1);
    assert_eq!(trim(appended[333]).await, 332);
    assert_eq!(trim(appended[10]).await, 0, "an id that is gone removes nothing more");
    assert_eq!(ids(&read_all(&ground.storage, &topic, Order::Asc, 1_000).await), appended[333..]);
    assert_eq!(trim(MessageId::new(appended[499].ms, u64::MAX)).await, 167);
    assert_eq!(length(&ground.storage, &topic).await, 0);
    let later = append_numbers(&ground.storage, &topic, 2).await;
    assert!(later[0] > appended[499]);
    assert_eq!(trim(MessageId::MAX).await, 2);
}

pub(super) async fn trims_of_a_missing_topic_are_refused(ground: &Ground) {
    let topic = ground.topic();
    for trim in [Trim::Keep(0), Trim::Keep(5), Trim::Before(MessageId::MAX)] {
        let refused = ground.storage.messages.trim(&topic, trim).await;
        assert!(matches!(refused, Err(StorageError::NoTopic)), "{refused:?}");
    }
    assert!(ground.storage.topics.list(Selection::default(), None, 10).await.unwrap().topics.is_empty());
}

fn kept_for(seconds: u64) -> TopicUpdate {
    TopicUpdate { description: None, retention_seconds: Some(seconds), ..TopicUpdate::default() }
}

pub(super) async fn a_sweep_removes_what_is_older_than_the_topics_own_retention(ground: &Ground) {
    let storage = &ground.storage;
    let (short, unlimited) = (ground.topic(), ground.topic());
    storage.topics.create(&short, kept_for(1), None).await.unwrap();
    append_numbers(storage, &short, 30).await;
    append_numbers(storage, &unlimited, 30).await;
    eventually(SOON, async || {
        storage.upkeep.sweep().await.unwrap();
        length(storage, &short).await == 0
    })
    .await;
    assert_eq!(length(storage, &unlimited).await, 30);
    // What is younger stays, whenever the sweep comes.
    storage.topics.update(&short, kept_for(3_600).into()).await.unwrap();
    append_numbers(storage, &short, 3).await;
    eventually(SOON, async || storage.upkeep.sweep().await.unwrap().topics == 2).await;
    assert_eq!(length(storage, &short).await, 3);
}

pub(super) async fn a_sweep_removes_what_is_older_than_the_common_retention(ground: &Ground) {
    let limits = StorageLimits { retention: Some(Duration::from_secs(1)), ..LIMITS };
    let storage = ground.under(limits).await;
    let (common, own) = (ground.topic(), ground.topic());
    storage.topics.create(&own, kept_for(3_600), None).await.unwrap();
    append_numbers(&storage, &common, 250).await;
    append_numbers(&storage, &own, 250).await;
    let removed = AtomicU64::new(0);
    eventually(SOON, async || {
        let swept = storage.upkeep.sweep().await.unwrap();
        removed.fetch_add(swept.removed, Ordering::Relaxed);
        length(&storage, &common).await == 0
    })
    .await;
    assert_eq!(removed.into_inner(), 250, "a sweep tells what it removed");
    assert_eq!(length(&storage, &own).await, 250, "a topic's own retention wins");
}
