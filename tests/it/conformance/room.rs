//! Topics that refuse what has no room, that keep messages until they are acknowledged, and that go when nobody uses them.

use std::time::Duration;

use tidemill::proto::page::Order;
use tidemill::proto::topics::{TopicUpdate, WhenFull};
use tidemill::proto::work::{ConsumerName, GroupName};
use tidemill::proto::{Delivery, MessageId, TopicName};
use tidemill::storage::{
    Appended, Claim, Existing, GroupStart, NewMessage, Part, Selection, Settlement, Storage, StorageError,
    TopicChange, TopicPolicy, Trim, Verdict, group_defaults,
};
use tokio::time::{Instant, sleep};

use super::schedules::{Never, later, schedule};
use crate::support::ground::{
    Ground, POLICY, SOON, append, append_all, append_numbers, ids, json, keyed, length, message, read_all,
};

fn refuses(max_messages: Option<u64>) -> TopicUpdate {
    TopicUpdate { max_messages, when_full: Some(WhenFull::Refuse), ..TopicUpdate::default() }
}

async fn create(ground: &Ground, about: TopicUpdate) -> TopicName {
    let topic = ground.topic();
    ground.storage.topics.create(&topic, about, None).await.expect("it is created");
    topic
}

async fn try_all(storage: &Storage, topic: &TopicName, count: usize) -> Vec<Result<Appended, StorageError>> {
    storage.messages.append((0..count).map(|_| message(topic, json("1"))).collect()).await
}

fn is_full<T>(result: &Result<T, StorageError>) -> bool {
    matches!(result, Err(StorageError::TopicFull))
}

/// A group of a topic.
struct Of<'a>(&'a Storage, TopicName, GroupName);

impl<'a> Of<'a> {
    async fn of(storage: &'a Storage, topic: &TopicName, name: &str) -> Self {
        let group = GroupName::parse(name).expect("a name");
        let settings = group_defaults(topic, &group);
        storage
            .work
            .put_group(topic, &group, &settings, GroupStart::Earliest, Existing::Replace)
            .await
            .expect("a group");
        Self(storage, topic.clone(), group)
    }

    /// Claims and acknowledges so many.
    async fn work(&self, count: usize) {
        let Self(storage, topic, group) = self;
        let claim = Claim {
            topic: topic.clone(),
            group: group.clone(),
            consumer: ConsumerName::parse("c").expect("a name"),
            max: count,
            bytes_max: usize::MAX >> 1,
            claim_id: None,
        };
        let claimed = storage.work.claim(vec![claim]).await.pop().expect("a result").expect("it is claimed");
        assert_eq!(claimed.deliveries.len(), count);
        for deliveries in claimed.deliveries.chunks(100) {
            let settlements = deliveries.iter().map(|of| Settlement {
                epoch: claimed.epoch,
                id: of.message.id,
                delivery: of.delivery,
                verdict: Verdict::Ack(None),
            });
            storage.work.settle(topic, group, settlements.collect()).await.expect("they are settled");
        }
    }
}

pub(super) async fn a_topic_that_refuses_keeps_what_it_has(ground: &Ground) {
    let storage = &ground.storage;
    let topic = create(ground, refuses(Some(10))).await;
    let described = storage.topics.describe(&topic).await.unwrap().topic;
    assert_eq!((described.when_full, described.max_messages), (WhenFull::Refuse, Some(10)));
    let first = append(storage, keyed(&topic, json("1"), "key", 1)).await.unwrap();
    let results = try_all(storage, &topic, 20).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 9);
    assert!(results[9..].iter().all(is_full), "{results:?}");
    let kept = ids(&read_all(storage, &topic, Order::Asc, 100).await);
    assert_eq!((kept.len(), kept[0]), (10, first.id));
    // A key that was used wins, and one that was refused is not remembered.
    let again = append(storage, keyed(&topic, json("1"), "key", 1)).await.unwrap();
    assert_eq!((again.id, again.replayed), (first.id, true));
    assert!(is_full(&append(storage, keyed(&topic, json("1"), "other", 2)).await));
    let behind = |last| NewMessage { expected_last: Some(last), ..message(&topic, json("1")) };
    assert!(is_full(&append(storage, behind(kept[9])).await));
    let refused = append(storage, behind(kept[0])).await;
    assert!(matches!(refused, Err(StorageError::NotLast(last)) if last == kept[9]), "{refused:?}");
    storage.upkeep.sweep().await.unwrap();
    assert_eq!(length(storage, &topic).await, 10);
    // Each that goes makes room for one.
    storage.messages.trim(&topic, Trim::Keep(8)).await.unwrap();
    assert!(!append(storage, keyed(&topic, json("1"), "other", 3)).await.unwrap().replayed);
    assert!(append(storage, behind(MessageId::MIN)).await.is_err());
    append_all(storage, vec![message(&topic, json("1"))]).await;
    assert!(is_full(&append(storage, message(&topic, json("1"))).await));
    // What it says counts from the next message on.
    let more = TopicChange { max_messages: Part::Set(Some(12)), ..TopicChange::default() };
    storage.topics.update(&topic, more).await.unwrap();
    assert_eq!(try_all(storage, &topic, 5).await.iter().filter(|result| result.is_ok()).count(), 2);
    let drops = TopicChange { when_full: Part::Set(None), ..TopicChange::default() };
    assert_eq!(storage.topics.update(&topic, drops).await.unwrap().when_full, WhenFull::DropOld);
    append_numbers(storage, &topic, 5).await;
}

pub(super) async fn a_topic_refuses_by_what_comes_with_appends_and_by_bytes(ground: &Ground) {
    let storage = &ground.storage;
    let topic = create(ground, refuses(None)).await;
    let under = || NewMessage { policy: TopicPolicy::newest(3), ..message(&topic, json("1")) };
    let results = storage.messages.append((0..5).map(|_| under()).collect()).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 3, "{results:?}");
    let about = TopicUpdate { max_bytes: Some(100_000), ..refuses(None) };
    let topic = create(ground, about).await;
    let body = json(format!("\"{}\"", "x".repeat(1_000)));
    let batch = || (0..10).map(|_| message(&topic, body.clone())).collect();
    let mut taken = 0;
    for _ in 0..30 {
        taken += storage.messages.append(batch()).await.iter().filter(|result| result.is_ok()).count();
    }
    assert!((50..150).contains(&taken), "some 100 messages of a thousand bytes: {taken}");
    assert_eq!(length(storage, &topic).await, taken as u64, "nothing was removed");
}

pub(super) async fn what_is_due_waits_until_its_topic_has_room(ground: &Ground) {
    let storage = &ground.storage;
    let topic = create(ground, refuses(Some(2))).await;
    append_numbers(storage, &topic, 2).await;
    let delivery = Delivery::After(Duration::ZERO);
    let scheduled = schedule(storage, later(&topic, json("\"due\""), delivery)).await.unwrap();
    let promote = async || {
        let topics = std::slice::from_ref(&topic);
        storage.schedules.promote(topics, POLICY, &Never).await.pop().expect("a result")
    };
    assert!(is_full(&promote().await));
    assert!(is_full(&storage.schedules.publish_now(&topic, &scheduled.id, POLICY).await));
    assert_eq!(length(storage, &topic).await, 2);
    storage.messages.trim(&topic, Trim::Keep(1)).await.unwrap();
    assert_eq!(promote().await.unwrap().late.len(), 1);
    assert_eq!(length(storage, &topic).await, 2);
}

/// Whatever it was that the topic was said to do when they were acknowledged.
pub(super) async fn what_was_acknowledged_before_makes_room(ground: &Ground) {
    let storage = &ground.storage;
    for later in [false, true] {
        let topic = create(ground, refuses(Some(2))).await;
        append_numbers(storage, &topic, 2).await;
        let group = GroupName::parse("g").expect("a name");
        let settings = group_defaults(&topic, &group);
        storage
            .work
            .put_group(&topic, &group, &settings, GroupStart::Earliest, Existing::Replace)
            .await
            .expect("a group");
        let claim = Claim {
            topic: topic.clone(),
            group: group.clone(),
            consumer: ConsumerName::parse("c").expect("a name"),
            max: 2,
            bytes_max: 10_000,
            claim_id: None,
        };
        let claimed = storage.work.claim(vec![claim]).await.pop().expect("a result").expect("it is claimed");
        let acks = claimed.deliveries.iter().map(|delivery| Settlement {
            epoch: claimed.epoch,
            id: delivery.message.id,
            delivery: 1,
            verdict: Verdict::Ack(None),
        });
        storage.work.settle(&topic, &group, acks.collect()).await.expect("it is settled");
        assert!(is_full(&append(storage, message(&topic, json("1"))).await));
        if later {
            schedule(storage, self::later(&topic, json("1"), Delivery::After(Duration::ZERO))).await.unwrap();
        }
        let keeps = TopicChange { keep_until_acked: Part::Set(Some(true)), ..TopicChange::default() };
        storage.topics.update(&topic, keeps).await.unwrap();
        if later {
            let topics = std::slice::from_ref(&topic);
            let promoted = storage.schedules.promote(topics, POLICY, &Never).await.pop().expect("a result");
            assert_eq!(promoted.unwrap().late.len(), 1);
        } else {
            append(storage, message(&topic, json("1"))).await.unwrap();
        }
        assert_eq!(length(storage, &topic).await, 1);
    }
}

pub(super) async fn messages_are_removed_once_every_group_has_acknowledged_them(ground: &Ground) {
    let storage = &ground.storage;
    let about = TopicUpdate { keep_until_acked: Some(true), ..TopicUpdate::default() };
    let topic = create(ground, about).await;
    assert!(storage.topics.describe(&topic).await.unwrap().topic.keep_until_acked);
    append_numbers(storage, &topic, 100).await;
    storage.upkeep.sweep().await.unwrap();
    assert_eq!(length(storage, &topic).await, 100, "nobody works on it");
    let (one, other) = (Of::of(storage, &topic, "one").await, Of::of(storage, &topic, "other").await);
    one.work(100).await;
    storage.upkeep.sweep().await.unwrap();
    assert_eq!(length(storage, &topic).await, 100, "the other has not");
    other.work(60).await;
    storage.upkeep.sweep().await.unwrap();
    assert_eq!(length(storage, &topic).await, 40);
    other.work(40).await;
    storage.upkeep.sweep().await.unwrap();
    assert_eq!(length(storage, &topic).await, 0);
    let group = storage.work.group(&topic, &other.2).await.unwrap();
    assert_eq!((group.done, group.gone, group.waiting), (100, 0, Some(0)));
    // Without a sweep, where much is acknowledged.
    append_numbers(storage, &topic, 500).await;
    one.work(500).await;
    other.work(500).await;
    assert!(length(storage, &topic).await < 100);
}

pub(super) async fn what_is_acknowledged_makes_room_at_once(ground: &Ground) {
    let storage = &ground.storage;
    let about = TopicUpdate { keep_until_acked: Some(true), ..refuses(Some(10)) };
    let topic = create(ground, about).await;
    let group = Of::of(storage, &topic, "workers").await;
    append_numbers(storage, &topic, 10).await;
    assert!(is_full(&append(storage, message(&topic, json("1"))).await));
    group.work(3).await;
    let results = try_all(storage, &topic, 5).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 3, "{results:?}");
    group.work(10).await;
    assert_eq!(storage.work.group(&topic, &group.2).await.unwrap().gone, 0);
}

pub(super) async fn a_topic_that_is_not_used_is_removed(ground: &Ground) {
    let storage = &ground.storage;
    let idle = || TopicUpdate { idle_seconds: Some(2), ..TopicUpdate::default() };
    let empty = create(ground, idle()).await;
    assert_eq!(storage.topics.describe(&empty).await.unwrap().topic.idle_seconds, Some(2));
    let (done, used, waits, held) = (
        create(ground, idle()).await,
        create(ground, idle()).await,
        create(ground, idle()).await,
        create(ground, idle()).await,
    );
    let stays = create(ground, TopicUpdate::default()).await;
    for topic in [&done, &used, &held, &stays] {
        append_numbers(storage, topic, 3).await;
    }
    Of::of(storage, &done, "workers").await.work(3).await;
    let group = Of::of(storage, &held, "workers").await;
    group.work(2).await;
    schedule(storage, later(&waits, json("1"), Delivery::After(Duration::from_mins(5)))).await.unwrap();
    storage.upkeep.sweep().await.unwrap();
    storage.topics.describe(&empty).await.expect("it is not idle for long yet");
    let names = async || {
        let list = storage.topics.list(Selection::default(), None, 100).await.unwrap();
        let mut names: Vec<_> = list.topics.into_iter().map(|topic| topic.topic_name).collect();
        names.sort();
        names
    };
    let mut left = vec![used.clone(), waits.clone(), held.clone(), stays.clone()];
    left.sort();
    let since = Instant::now();
    while names().await != left {
        assert!(since.elapsed() < SOON, "{:?} is not {left:?}", names().await);
        append_numbers(storage, &used, 1).await;
        storage.upkeep.sweep().await.unwrap();
        sleep(Duration::from_millis(100)).await;
    }
    assert!(matches!(storage.topics.describe(&done).await, Err(StorageError::NoTopic)));
    // Who says now that one goes, does not find it gone at once.
    let change = TopicChange { idle_seconds: Part::Set(Some(2)), ..TopicChange::default() };
    storage.topics.update(&stays, change).await.unwrap();
    storage.upkeep.sweep().await.unwrap();
    storage.topics.describe(&stays).await.expect("it counts from then on");
    // One of its name begins anew.
    append_numbers(storage, &done, 1).await;
    assert_eq!(length(storage, &done).await, 1);
    assert_eq!(storage.topics.describe(&done).await.unwrap().topic.idle_seconds, None);
}

/// A node that does not know yet that a topic refuses keeps some more than it may, and takes nothing.
#[cfg(feature = "valkey")]
pub(super) async fn a_node_learns_that_a_topic_refuses(ground: &Ground) {
    let limits = crate::support::ground::LIMITS;
    let (here, there) = (&ground.storage, ground.under(limits).await);
    let topic = ground.topic();
    append_numbers(&there, &topic, 10).await;
    here.topics.update(&topic, refuses(Some(100)).into()).await.unwrap();
    let mut taken = 10;
    for _ in 0..400 {
        taken += u64::from(append(&there, message(&topic, json("1"))).await.is_ok());
    }
    assert!((100..=200).contains(&taken), "{taken}");
    assert_eq!(length(here, &topic).await, taken);
    assert!(is_full(&append(here, message(&topic, json("1"))).await));
    // One that comes later learns with the first.
    let late = ground.under(limits).await;
    let results =
        [append(&late, message(&topic, json("1"))).await, append(&late, message(&topic, json("1"))).await];
    assert!(is_full(&results[1]), "{results:?}");
    // And that it does not any more.
    here.topics.update(&topic, TopicUpdate::default().into()).await.unwrap();
    append_numbers(&late, &topic, 1).await;
}
