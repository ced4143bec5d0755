//! Idempotency keys: one copy and one answer, for as long as the window lasts.

use std::time::Duration;

use tidemill::proto::page::Order;
use tidemill::proto::{Durability, Timestamp};
use tidemill::storage::{Idempotency, NewMessage, StorageError, StorageLimits, Trim};
use tokio::task::JoinSet;

use crate::support::eventually;
use crate::support::ground::{
    Ground, LIMITS, SOON, append, ids, is_strictly_increasing, json, keyed, length, message, read_all, texts,
};

pub(super) async fn a_repeat_returns_the_first_answer(ground: &Ground) {
    let topic = ground.topic();
    let key = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~ block STREAMS";
    let new = keyed(&topic, json("1"), key, 1);
    let first = append(&ground.storage, new.clone()).await.unwrap();
    assert!(!first.replayed);
    assert_eq!(first.timestamp, new.timestamp);
    append(&ground.storage, message(&topic, json("2"))).await.unwrap();

    let later = NewMessage { timestamp: Timestamp::from_millis(new.timestamp.as_millis() + 5_000), ..new };
    for _ in 0..3 {
        let repeat = append(&ground.storage, later.clone()).await.unwrap();
        assert_eq!((repeat.id, repeat.timestamp, repeat.replayed), (first.id, first.timestamp, true));
    }
    assert_eq!(texts(&read_all(&ground.storage, &topic, Order::Asc, 10).await), ["1", "2"]);
}

pub(super) async fn a_repeat_within_a_batch_returns_the_first_answer(ground: &Ground) {
    let topic = ground.topic();
    let results = ground.storage.messages.append(vec![keyed(&topic, json("1"), "key", 1); 3]).await;
    let results: Vec<_> = results.into_iter().map(Result::unwrap).collect();
    assert!(results.iter().all(|result| result.id == results[0].id));
    assert_eq!(results.iter().map(|result| result.replayed).collect::<Vec<_>>(), [false, true, true]);
    assert_eq!(length(&ground.storage, &topic).await, 1);
}

pub(super) async fn overlapping_repeats_leave_one_copy(ground: &Ground) {
    let topic = ground.topic();
    for round in 0..10_u8 {
        let mut tasks = JoinSet::new();
        for _ in 0..32 {
            let storage = ground.storage.clone();
            let new = keyed(&topic, json("1"), &format!("key {round}"), round);
            tasks.spawn(async move { append(&storage, new).await.unwrap() });
        }
        let results = tasks.join_all().await;
        assert!(results.iter().all(|result| result.id == results[0].id));
        assert_eq!(results.iter().filter(|result| !result.replayed).count(), 1);
        assert_eq!(length(&ground.storage, &topic).await, u64::from(round) + 1);
    }
}

pub(super) async fn a_key_that_was_used_is_known_whatever_can_be_reached_now(ground: &Ground) {
    let (topic, durable) = (ground.topic(), &ground.storage.durable);
    // More than any server has here.
    let asked = Durability { fsync: true, replicas: 5 };
    let [used, other] = [(1, "key"), (2, "other")].map(|(number, key)| keyed(&topic, json("1"), key, number));
    let key_of = |message: &NewMessage| message.idempotency.clone().expect("it has one");
    let is_refused = async |key: Option<&Idempotency>| {
        let refused = durable.pledge(&topic, asked, key).await;
        matches!(refused, Err(StorageError::Undurable(_) | StorageError::TooFewReplicas { .. }))
    };
    assert!(is_refused(Some(&key_of(&used))).await, "there is no topic");
    let first = append(&ground.storage, used.clone()).await.unwrap();
    assert!(is_refused(None).await && is_refused(Some(&key_of(&other))).await);
    let reused = Idempotency { fingerprint: [9; 16], ..key_of(&used) };
    durable.pledge(&topic, asked, Some(&reused)).await.expect("the append says what is wrong with it");
    let pledge = durable.pledge(&topic, asked, Some(&key_of(&used))).await.expect("it is known");
    let again = append(&ground.storage, used.clone()).await.unwrap();
    assert_eq!((again.id, again.replayed), (first.id, true));
    let reached = durable.reach(&[pledge]).await;
    assert!(!reached[0].covers(asked), "{reached:?}");

    ground.storage.topics.delete(&topic).await.unwrap();
    assert!(is_refused(Some(&key_of(&used))).await);
    append(&ground.storage, other).await.unwrap();
    assert!(is_refused(Some(&key_of(&used))).await, "it was of the topic before");
}

pub(super) async fn a_key_with_another_message_is_refused(ground: &Ground) {
    let topic = ground.topic();
    let first = append(&ground.storage, keyed(&topic, json("1"), "key", 1)).await.unwrap();
    let refused = append(&ground.storage, keyed(&topic, json("2"), "key", 2)).await;
    assert!(matches!(refused, Err(StorageError::KeyReused)), "{refused:?}");
    assert_eq!(texts(&read_all(&ground.storage, &topic, Order::Asc, 10).await), ["1"]);
    let repeat = append(&ground.storage, keyed(&topic, json("1"), "key", 1)).await.unwrap();
    assert_eq!((repeat.id, repeat.replayed), (first.id, true), "the refusal took nothing from the first");
}

pub(super) async fn a_key_belongs_to_its_topic(ground: &Ground) {
    let (one, other) = (ground.topic(), ground.topic());
    append(&ground.storage, keyed(&one, json("1"), "key", 1)).await.unwrap();
    let appended = append(&ground.storage, keyed(&other, json("2"), "key", 2)).await.unwrap();
    assert!(!appended.replayed);
    assert_eq!((length(&ground.storage, &one).await, length(&ground.storage, &other).await), (1, 1));
}

pub(super) async fn a_key_is_forgotten_after_the_window(ground: &Ground) {
    let limits = StorageLimits { idempotency_window: Duration::from_millis(1_500), ..LIMITS };
    let storage = ground.under(limits).await;
    let topic = ground.topic();
    let first = append(&storage, keyed(&topic, json("1"), "key", 1)).await.unwrap();
    let repeat = append(&storage, keyed(&topic, json("1"), "key", 1)).await.unwrap();
    assert_eq!((repeat.id, repeat.replayed), (first.id, true));
    eventually(SOON, async || {
        // A key of another message is refused for as long as it is remembered.
        append(&storage, keyed(&topic, json("2"), "key", 2)).await.is_ok()
    })
    .await;
    assert_eq!(texts(&read_all(&storage, &topic, Order::Asc, 10).await), ["1", "2"]);
}

pub(super) async fn a_key_outlives_its_message(ground: &Ground) {
    let topic = ground.topic();
    let first = append(&ground.storage, keyed(&topic, json("1"), "key", 1)).await.unwrap();
    ground.storage.messages.trim(&topic, Trim::Keep(0)).await.unwrap();
    let repeat = append(&ground.storage, keyed(&topic, json("1"), "key", 1)).await.unwrap();
    assert_eq!((repeat.id, repeat.replayed), (first.id, true));
    assert_eq!(length(&ground.storage, &topic).await, 0);
}

pub(super) async fn a_key_does_not_outlive_its_topic(ground: &Ground) {
    let topic = ground.topic();
    // Several lives of the topic fit into a millisecond.
    for life in 0..20_u8 {
        let appended = append(&ground.storage, keyed(&topic, json("1"), "key", life)).await.unwrap();
        assert!(!appended.replayed, "life {life}");
        let repeat = append(&ground.storage, keyed(&topic, json("1"), "key", life)).await.unwrap();
        assert_eq!((repeat.id, repeat.replayed), (appended.id, true), "life {life}");
        assert_eq!(length(&ground.storage, &topic).await, 1);
        ground.storage.topics.delete(&topic).await.unwrap();
    }
}

pub(super) async fn a_refused_append_remembers_no_key(ground: &Ground) {
    let topic = ground.topic();
    let careful = NewMessage { create_topic: false, ..keyed(&topic, json("1"), "key", 1) };
    let refused = append(&ground.storage, careful).await;
    assert!(matches!(refused, Err(StorageError::NoTopic)), "{refused:?}");
    let appended = append(&ground.storage, keyed(&topic, json("2"), "key", 2)).await.unwrap();
    assert!(!appended.replayed);
    assert_eq!(length(&ground.storage, &topic).await, 1);
}

pub(super) async fn messages_with_and_without_key_keep_their_order(ground: &Ground) {
    let topic = ground.topic();
    let batch = (0..60).map(|number| {
        let body = json(number.to_string());
        if number % 3 == 0 { keyed(&topic, body, &format!("key {number}"), 1) } else { message(&topic, body) }
    });
    let results = ground.storage.messages.append(batch.collect()).await;
    let appended: Vec<_> = results.into_iter().map(|result| result.unwrap().id).collect();
    assert!(is_strictly_increasing(&appended));
    assert_eq!(ids(&read_all(&ground.storage, &topic, Order::Asc, 100).await), appended);
}
