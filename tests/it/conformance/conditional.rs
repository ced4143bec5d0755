//! Messages that are to follow a certain one: looking and appending are one step.

use tidemill::proto::page::Order;
use tidemill::proto::topics::TopicUpdate;
use tidemill::proto::{MessageId, TopicName};
use tidemill::storage::{Body, NewMessage, StorageError, Trim};
use tokio::task::JoinSet;

use crate::support::ground::{Ground, append, json, keyed, length, message, read_all, texts};

const NONE: MessageId = MessageId::MIN;

fn behind(topic: &TopicName, body: Body, last: MessageId) -> NewMessage {
    NewMessage { expected_last: Some(last), ..message(topic, body) }
}

/// Returns the id that a refusal tells.
fn last_of<T: std::fmt::Debug>(result: Result<T, StorageError>) -> MessageId {
    match result {
        Err(StorageError::NotLast(last)) => last,
        other => panic!("another message is the last one: {other:?}"),
    }
}

pub(super) async fn a_message_follows_the_last_one_or_is_refused(ground: &Ground) {
    let (topic, storage) = (ground.topic(), &ground.storage);
    let first = append(storage, behind(&topic, json("1"), NONE)).await.unwrap().id;
    assert_eq!(last_of(append(storage, behind(&topic, json("x"), NONE)).await), first);
    let second = append(storage, behind(&topic, json("2"), first)).await.unwrap().id;
    assert_eq!(last_of(append(storage, behind(&topic, json("x"), first)).await), second);
    let later = second.next().unwrap();
    assert_eq!(last_of(append(storage, behind(&topic, json("x"), later)).await), second);
    let third = append(storage, message(&topic, json("3"))).await.unwrap().id;
    append(storage, behind(&topic, json("4"), third)).await.unwrap();
    assert_eq!(texts(&read_all(storage, &topic, Order::Asc, 10).await), ["1", "2", "3", "4"]);

    // One that was made and got nothing yet.
    let made = ground.topic();
    storage.topics.create(&made, TopicUpdate::default(), None).await.unwrap();
    let careful = NewMessage { create_topic: false, ..behind(&made, json("1"), NONE) };
    append(storage, careful).await.unwrap();
    let missing = NewMessage { create_topic: false, ..behind(&ground.topic(), json("1"), first) };
    assert!(matches!(append(storage, missing).await, Err(StorageError::NoTopic)));
}

pub(super) async fn of_many_that_follow_the_same_message_one_is_kept(ground: &Ground) {
    let (topic, mut last) = (ground.topic(), NONE);
    for round in 1..=5 {
        let mut tasks = JoinSet::new();
        for number in 0..16 {
            let (storage, new) = (ground.storage.clone(), behind(&topic, json(number.to_string()), last));
            let new = if number % 2 == 0 {
                new
            } else {
                let key = format!("{round}/{number}");
                NewMessage { expected_last: Some(last), ..keyed(&topic, new.body, &key, 1) }
            };
            tasks.spawn(async move { append(&storage, new).await });
        }
        let (kept, refused): (Vec<_>, Vec<_>) = tasks.join_all().await.into_iter().partition(Result::is_ok);
        assert_eq!(kept.len(), 1, "{kept:?}");
        last = kept.into_iter().next().unwrap().unwrap().id;
        assert!(refused.into_iter().all(|refused| last_of(refused) == last));
        assert_eq!(length(&ground.storage, &topic).await, round);
    }
}

pub(super) async fn what_was_given_counts_and_not_what_is_left(ground: &Ground) {
    let (topic, storage) = (ground.topic(), &ground.storage);
    append(storage, message(&topic, json("1"))).await.unwrap();
    let last = append(storage, message(&topic, json("2"))).await.unwrap().id;
    storage.messages.remove(&topic, last).await.unwrap();
    assert_eq!(last_of(append(storage, behind(&topic, json("x"), NONE)).await), last);
    storage.messages.trim(&topic, Trim::Keep(0)).await.unwrap();
    assert_eq!(last_of(append(storage, behind(&topic, json("x"), NONE)).await), last);
    append(storage, behind(&topic, json("3"), last)).await.unwrap();

    storage.topics.delete(&topic).await.unwrap();
    assert_eq!(last_of(append(storage, behind(&topic, json("x"), last)).await), NONE);
    append(storage, behind(&topic, json("4"), NONE)).await.unwrap();
}

pub(super) async fn messages_of_a_batch_see_those_before_them(ground: &Ground) {
    let (topic, storage) = (ground.topic(), &ground.storage);
    let unknown = MessageId::new(1, 1);
    let batch = vec![
        behind(&topic, json("x"), unknown),
        behind(&topic, json("1"), NONE),
        behind(&topic, json("x"), NONE),
        message(&topic, json("2")),
        behind(&topic, json("x"), unknown),
    ];
    let results = storage.messages.append(batch).await;
    let [early, first, refused, second, late] = <[_; 5]>::try_from(results).unwrap();
    assert_eq!(last_of(early), NONE);
    assert_eq!(last_of(refused), first.unwrap().id);
    assert_eq!(last_of(late), second.unwrap().id);
    assert_eq!(texts(&read_all(storage, &topic, Order::Asc, 10).await), ["1", "2"]);
}

pub(super) async fn a_refused_message_makes_no_topic_and_leaves_its_key(ground: &Ground) {
    let (topic, storage) = (ground.topic(), &ground.storage);
    let unknown = MessageId::new(1, 1);
    let keyed = |text: &str, last, print| NewMessage {
        expected_last: Some(last),
        ..keyed(&topic, json(text.to_owned()), "key", print)
    };
    assert_eq!(last_of(append(storage, keyed("x", unknown, 1)).await), NONE);
    assert!(matches!(storage.topics.describe(&topic).await, Err(StorageError::NoTopic)));
    append(storage, message(&topic, json("1"))).await.unwrap();
    last_of(append(storage, keyed("x", unknown, 1)).await);
    // Another message may have the key: none has used it.
    let last = storage.live.tail(&topic).await.unwrap().last.unwrap();
    assert!(!append(storage, keyed("2", last, 2)).await.unwrap().replayed);
}

pub(super) async fn a_used_key_wins_over_the_condition(ground: &Ground) {
    let (topic, storage) = (ground.topic(), &ground.storage);
    let new = NewMessage { expected_last: Some(NONE), ..keyed(&topic, json("1"), "key", 1) };
    let first = append(storage, new.clone()).await.unwrap();
    append(storage, message(&topic, json("2"))).await.unwrap();
    let last = NewMessage { expected_last: Some(MessageId::new(1, 1)), ..new.clone() };
    for repeat in [new, last, keyed(&topic, json("1"), "key", 1)] {
        let repeat = append(storage, repeat).await.unwrap();
        assert_eq!((repeat.id, repeat.replayed), (first.id, true));
    }
    let other = NewMessage { expected_last: Some(first.id), ..keyed(&topic, json("3"), "key", 3) };
    assert!(matches!(append(storage, other).await, Err(StorageError::KeyReused)));
    assert_eq!(length(storage, &topic).await, 2);
}
