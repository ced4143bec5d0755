//! The log of a bucket: it tells every change once and in order, and is no topic to those who ask for topics.

use std::time::Duration;

use tidemill::proto::topics::TopicsStats;
use tidemill::proto::{GapReason, MessageId, TopicName, TopicSelector};
use tidemill::storage::{
    BucketSettings, Hint, KeyChange, LOG_CHANGES, LoggedKind, Selection, Storage, StorageError,
    StorageLimits, Trim,
};
use tokio::task::JoinSet;

use super::buckets::{
    Replayed, agree, as_replayed, bucket, changes, delete, get, increment, key, log, make, make_one, nodes,
    put, put_for, put_of, replay, set, table,
};
use super::expiring::expire_all;
use super::gaps::{read_on, told};
use crate::support::dice::Dice;
use crate::support::eventually;
use crate::support::ground::{Ground, Heard, LIMITS, SOON, append_numbers};

/// Returns a change of one of a few keys.
fn any_change(dice: &mut Dice, with_times: bool) -> KeyChange {
    let name = format!("k-{}", dice.roll(12));
    let text = dice.roll(1_000).to_string();
    match dice.roll(if with_times { 7 } else { 5 }) {
        0 => delete(&name),
        1 => increment(&name, 1, None, None),
        2 => put_of(&name, &text, "ann"),
        3 | 4 => put(&name, &text),
        _ => put_for(&name, &text, Duration::from_millis(1 + dice.roll(30))),
    }
}

/// Returns changes of a key each.
fn any_step(dice: &mut Dice, with_times: bool) -> Vec<KeyChange> {
    let mut step: Vec<KeyChange> = (0..=dice.roll(5)).map(|_| any_change(dice, with_times)).collect();
    step.sort_by(|one, other| one.key.cmp(&other.key));
    step.dedup_by(|one, other| one.key == other.key);
    step
}

pub(super) async fn the_log_tells_at_every_moment_how_the_table_came_to_be(ground: &Ground) {
    let (bucket, storages) = (bucket(ground), nodes(ground).await);
    let storage = &ground.storage;
    make(storage, &bucket, vec![put("first", "1")]).await;
    let dice = Dice::cast();
    let mut writers = JoinSet::new();
    for task in 0..4 {
        let (storage, bucket) = (storages[task % storages.len()].clone(), bucket.clone());
        let mut dice = dice.of(task as u64);
        writers.spawn(async move {
            for _ in 0..60 {
                make(&storage, &bucket, any_step(&mut dice, false)).await;
            }
        });
    }
    let mut seen = 0;
    while !writers.is_empty() {
        let found = as_replayed(table(storage, &bucket).await);
        // Whatever is in the table is in the log by now; what came behind may be, too.
        let told = log(storage, &bucket).await;
        let mut replayed = Replayed::new();
        let is_moment = |(logged, message): &(tidemill::storage::Logged, _)| {
            replay(&mut replayed, &(logged.clone(), Clone::clone(message)));
            !logged.more && replayed == found
        };
        assert!(told.iter().any(is_moment), "{found:?} was never what the log tells");
        seen += 1;
        while let Some(done) = writers.try_join_next() {
            done.unwrap();
        }
        tokio::task::yield_now().await;
    }
    assert!(seen > 0);
    agree(storage, &bucket).await;
}

pub(super) async fn whatever_becomes_of_keys_their_log_tells_it_once(ground: &Ground) {
    let (bucket, storages) = (bucket(ground), nodes(ground).await);
    let storage = &ground.storage;
    set(storage, &bucket, BucketSettings { history: 3, ..BucketSettings::default() }).await;
    let dice = Dice::cast();
    let mut tasks = JoinSet::new();
    for task in 0..4 {
        let (storage, bucket) = (storages[task % storages.len()].clone(), bucket.clone());
        let mut dice = dice.of(task as u64);
        tasks.spawn(async move {
            let mut revisions = Vec::new();
            for _ in 0..60 {
                let changed = make(&storage, &bucket, any_step(&mut dice, true)).await;
                revisions.extend(changed.iter().filter_map(|changed| changed.revision));
                match dice.roll(10) {
                    0 => drop(expire_all(&storage, &bucket).await),
                    1 => drop(storage.buckets.touch_key(&bucket, &key("k-1"), None, false).await.unwrap()),
                    2 => {
                        let now = storage.upkeep.now();
                        storage.buckets.revoke_keys(&bucket, &key("ann"), now).await.unwrap();
                    }
                    _ => {}
                }
            }
            revisions
        });
    }
    let mut revisions = tasks.join_all().await.concat();
    tokio::time::sleep(Duration::from_millis(100)).await;
    expire_all(storage, &bucket).await;
    agree(storage, &bucket).await;
    // What was answered is what is told, once; beside it there are those that expired and were revoked.
    revisions.sort_unstable();
    let told = log(storage, &bucket).await;
    let of_log: Vec<MessageId> = told.iter().map(|(_, message)| message.id).collect();
    assert!(revisions.is_sorted_by(|one, other| one < other), "each is given once");
    assert!(revisions.iter().all(|revision| of_log.binary_search(revision).is_ok()));
    let puts = told.iter().filter(|(logged, _)| logged.change == LoggedKind::Put);
    assert!(puts.into_iter().all(|(_, message)| revisions.binary_search(&message.id).is_ok()));
}

pub(super) async fn who_listens_is_told_of_changes_before_they_are_answered(ground: &Ground) {
    let (bucket, storage) = (bucket(ground), &ground.storage);
    let name = TopicName::log_of(&bucket);
    let mut heard = Heard::of(storage);
    let is_told = |heard: &mut Heard| std::iter::from_fn(|| heard.told()).any(|topic| topic == name);
    set(storage, &bucket, BucketSettings::default()).await;
    assert!(is_told(&mut heard), "of a bucket that is new");
    let now = storage.upkeep.now();
    for one in [put_of("a", "1", "ann"), put("b", "1"), increment("b", 1, None, None), delete("b")] {
        make(storage, &bucket, vec![one]).await;
        assert!(is_told(&mut heard));
    }
    assert_eq!(storage.buckets.revoke_keys(&bucket, &key("ann"), now).await.unwrap(), 1);
    assert!(is_told(&mut heard), "of what is revoked");
    storage.buckets.delete_bucket(&bucket).await.unwrap();
    assert!(is_told(&mut heard), "of the end");
}

pub(super) async fn the_changes_of_other_nodes_are_told_to_who_watches(ground: &Ground) {
    let (bucket, storage) = (bucket(ground), &ground.storage);
    let name = TopicName::log_of(&bucket);
    make(storage, &bucket, vec![put("a", "1")]).await;
    let other = ground.under(LIMITS).await;
    let mut heard = Heard::of(&other);
    other.live.watch(&name, true);
    // It watches when it says so; what others change from then on is told.
    while heard.next().await != Hint::Watched(vec![name.clone()]) {}
    make(storage, &bucket, vec![put("a", "2")]).await;
    while heard.next().await != Hint::Topic(name.clone()) {}
    storage.buckets.revoke_keys(&bucket, &key("ann"), storage.upkeep.now()).await.unwrap();
    storage.buckets.delete_bucket(&bucket).await.unwrap();
    while heard.next().await != Hint::Topic(name.clone()) {}
}

async fn write_many(storage: &Storage, bucket: &tidemill::proto::BucketName, steps: u64) {
    for step in 0..steps {
        let names = (0..100).map(|at| format!("k-{}", (step * 37 + at) % 500));
        make(storage, bucket, names.map(|name| put(&name, &step.to_string())).collect()).await;
    }
}

pub(super) async fn a_log_keeps_its_newest_changes_and_tells_who_is_behind(ground: &Ground) {
    let (bucket, storage) = (bucket(ground), &ground.storage);
    let name = TopicName::log_of(&bucket);
    let first = make_one(storage, &bucket, put("early", "1")).await;
    let steps = LOG_CHANGES / 100 + 20;
    write_many(storage, &bucket, steps).await;
    let tail = storage.live.tail(&name).await.unwrap();
    let told_of = log(storage, &bucket).await;
    let kept = told_of.len() as u64;
    assert!((LOG_CHANGES..LOG_CHANGES + 1_000).contains(&kept), "{kept}");
    assert_eq!(tail.first, told_of.first().map(|(_, message)| message.id));
    assert_eq!(tail.last, told_of.last().map(|(_, message)| message.id));
    let read = read_on(storage, &name, first, 10).await;
    assert_eq!(told(&read, &name, first), Some((GapReason::Trimmed, tail.first.unwrap())));
    // The table has all the same what the log tells of no more, and what it still tells.
    assert_eq!(get(storage, &bucket, "early").await.unwrap().revision, first);
    let entries = table(storage, &bucket).await;
    assert_eq!(entries.len(), 501);
    for entry in entries.iter().filter(|entry| Some(entry.revision) >= tail.first) {
        let newest = told_of.iter().rfind(|(logged, _)| logged.key == entry.key);
        assert_eq!(newest.map(|(_, message)| message.id), Some(entry.revision));
    }
}

pub(super) async fn who_reads_on_from_a_revision_that_is_gone_is_told(ground: &Ground) {
    let (bucket, storage) = (bucket(ground), &ground.storage);
    let name = TopicName::log_of(&bucket);
    let mut revisions = Vec::new();
    for number in 0..20 {
        revisions.push(make_one(storage, &bucket, put("a", &number.to_string())).await);
    }
    let read = read_on(storage, &name, revisions[3], 100).await;
    assert_eq!((read.gap, read.messages.len()), (None, 16));
    storage.messages.trim(&name, Trim::Before(revisions[15])).await.unwrap();
    let read = read_on(storage, &name, revisions[3], 100).await;
    assert_eq!(told(&read, &name, revisions[3]), Some((GapReason::Trimmed, revisions[15])));
    let read = read_on(storage, &name, revisions[14], 100).await;
    assert_eq!(read.messages.iter().map(|message| message.id).collect::<Vec<_>>(), revisions[15..]);
    assert_eq!(get(storage, &bucket, "a").await.unwrap().revision, revisions[19]);
}

pub(super) async fn a_bucket_that_is_made_again_is_another(ground: &Ground) {
    let (bucket, storage) = (bucket(ground), &ground.storage);
    let name = TopicName::log_of(&bucket);
    let settings = BucketSettings { history: 5, max_keys: Some(10), ..BucketSettings::default() };
    set(storage, &bucket, settings).await;
    make(storage, &bucket, vec![put_of("a", "1", "ann"), put_for("b", "1", Duration::from_hours(1))]).await;
    let old = make_one(storage, &bucket, put_of("a", "2", "ann")).await;
    let epoch = storage.live.tail(&name).await.unwrap().epoch;
    storage.buckets.delete_bucket(&bucket).await.unwrap();
    assert!(matches!(storage.buckets.bucket(&bucket).await, Err(StorageError::NoBucket)));
    assert!(matches!(storage.buckets.delete_bucket(&bucket).await, Err(StorageError::NoBucket)));
    assert!(matches!(storage.live.tail(&name).await, Err(StorageError::NoTopic)));
    assert_eq!(get(storage, &bucket, "a").await, None);
    let new = make_one(storage, &bucket, put("c", "1")).await;
    assert!(new > old, "no revision is given twice");
    let state = storage.buckets.bucket(&bucket).await.unwrap();
    assert_eq!((state.settings, state.keys, state.bytes), (BucketSettings::default(), 1, 1));
    assert_eq!((get(storage, &bucket, "a").await, get(storage, &bucket, "b").await), (None, None));
    assert_eq!(storage.buckets.revoke_keys(&bucket, &key("ann"), storage.upkeep.now()).await.unwrap(), 0);
    assert_eq!(expire_all(storage, &bucket).await, 0);
    make(storage, &bucket, vec![put("a", "3")]).await;
    assert_eq!(storage.buckets.key_history(&bucket, &key("a")).await.unwrap().len(), 1);
    assert_ne!(storage.live.tail(&name).await.unwrap().epoch, epoch);
    let read = read_on(storage, &name, old, 10).await;
    assert_eq!(told(&read, &name, old), Some((GapReason::Deleted, new)));
    agree(storage, &bucket).await;
}

pub(super) async fn the_log_of_a_bucket_is_no_topic(ground: &Ground) {
    let storage = ground.under(StorageLimits { topics_max: 2, ..LIMITS }).await;
    let buckets = [(); 3].map(|()| bucket(ground));
    for bucket in &buckets {
        make(&storage, bucket, vec![put("a", "1"), put("b", "1")]).await;
    }
    let topic = ground.topic();
    append_numbers(&storage, &topic, 3).await;
    eventually(SOON, async || {
        storage.upkeep.sweep().await.unwrap();
        storage.topics.stats().await.unwrap() == TopicsStats { total_topics: 1, total_messages: 3 }
    })
    .await;
    let listed = storage.topics.list(Selection::default(), None, 10).await.unwrap().topics;
    assert_eq!(
        listed.into_iter().map(|listed| listed.topic_name).collect::<Vec<_>>(),
        std::slice::from_ref(&topic)
    );
    for prefix in ["", "keys", "keys/"] {
        let names = storage.topics.names(prefix, None, 10).await.unwrap();
        assert_eq!(names, if prefix.is_empty() { vec![topic.clone()] } else { Vec::new() }, "{prefix}");
    }
    // Room for topics is not taken by it, and nothing of it is removed by what holds for topics.
    append_numbers(&storage, &ground.topic(), 1).await;
    make(&storage, &buckets[0], vec![put("large", &"1".repeat(500_000))]).await;
    let selector = TopicSelector::parse("*").unwrap();
    let mut kept = None;
    while kept.is_none() {
        tokio::time::sleep(Duration::from_millis(20)).await;
        kept = storage.upkeep.kept(std::slice::from_ref(&selector)).await.unwrap();
    }
    assert!(kept.unwrap()[0] < 100_000, "of topics alone it is told what they keep");
    for bucket in &buckets {
        assert!(matches!(storage.topics.describe(&bucket_topic(bucket)).await, Err(StorageError::NoTopic)));
        agree(&storage, bucket).await;
    }
}

/// Returns the topic that has the very name of a bucket.
fn bucket_topic(bucket: &tidemill::proto::BucketName) -> TopicName {
    TopicName::parse(bucket.as_str()).expect("it has the grammar of topics")
}

pub(super) async fn what_holds_for_topics_by_age_takes_nothing_from_a_bucket(ground: &Ground) {
    let limits = StorageLimits { retention: Some(Duration::from_millis(1)), ..LIMITS };
    let storage = ground.under(limits).await;
    let (bucket, topic) = (bucket(ground), ground.topic());
    let mut all = changes(&storage, &bucket, vec![put("a", "1"), put_of("b", "1", "ann")]);
    all.timestamp = tidemill::proto::Timestamp::from_millis(1_000);
    storage.buckets.change_keys(all).await.unwrap();
    append_numbers(&storage, &topic, 3).await;
    // Once the messages of the topic are gone, a sweep has come by.
    eventually(SOON, async || {
        storage.upkeep.sweep().await.unwrap();
        storage.topics.stats().await.unwrap().total_messages == 0
    })
    .await;
    storage.upkeep.sweep().await.unwrap();
    assert_eq!(log(&storage, &bucket).await.len(), 2);
    agree(&storage, &bucket).await;
}
