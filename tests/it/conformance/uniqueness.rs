//! Publishes under a key of which one message at a time waits or is worked on in a group.

use std::time::Duration;

use tidemill::proto::MessageId;
use tidemill::storage::{
    Appended, Existing, GroupStart, NewMessage, RunEnding, StorageError, Trim, Unique, Verdict,
    group_defaults,
};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::work::{Of, ids, nack, name, settled, short};
use crate::support::eventually;
use crate::support::ground::{
    Ground, LIMITS, SOON, append, append_numbers, expired, json, keyed, length, message,
};

const ACK: Verdict = Verdict::Ack(None);

fn under(of: &Of<'_>, key: &str) -> NewMessage {
    let unique = Some(Unique { group: of.group.clone(), key: key.into() });
    NewMessage { unique, ..message(&of.topic, json("1")) }
}

async fn publish(of: &Of<'_>, key: &str) -> Appended {
    append(&of.ground.storage, under(of, key)).await.expect("it is answered")
}

/// Publishes under a key of which no message is there.
async fn is_new(of: &Of<'_>, key: &str) -> MessageId {
    let appended = publish(of, key).await;
    assert!(!appended.replayed, "{appended:?} is another one");
    appended.id
}

/// Publishes under a key of which this message is there.
async fn is_there(of: &Of<'_>, key: &str, id: MessageId) {
    let appended = publish(of, key).await;
    assert_eq!((appended.id, appended.replayed), (id, true));
}

async fn group(ground: &Ground) -> Of<'_> {
    Of::latest(ground, short).await
}

pub(super) async fn while_a_message_waits_or_is_worked_on_it_is_the_answer(ground: &Ground) {
    let of = group(ground).await;
    let first = publish(&of, "k").await;
    assert!(!first.replayed);
    assert_eq!(publish(&of, "k").await, Appended { replayed: true, ..first });
    let other = is_new(&of, "l").await;
    let held = of.claim("w", 1).await;
    assert_eq!(ids(&held), [first.id]);
    is_there(&of, "k", first.id).await;
    settled(of.settle(&held[0], nack(Duration::from_millis(200))).await);
    is_there(&of, "k", first.id).await;
    sleep(Duration::from_millis(250)).await;
    let held = of.claim("w", 2).await;
    assert_eq!(ids(&held), [first.id, other]);
    of.lapse(2).await;
    is_there(&of, "k", first.id).await;
    let held = of.claim("w", 2).await;
    settled(of.settle(&held[0], Verdict::Release).await);
    is_there(&of, "k", first.id).await;
    let again = of.claim("w", 1).await;
    settled(of.settle(&again[0], ACK).await);
    let second = is_new(&of, "k").await;
    assert!(second > other);
    is_there(&of, "l", other).await;
    // In another group the key is another one.
    let more = Of { ground, topic: of.topic.clone(), group: name("more") };
    let settings = group_defaults(&more.topic, &more.group);
    let made = ground
        .storage
        .work
        .put_group(&more.topic, &more.group, &settings, GroupStart::Latest, Existing::Replace)
        .await;
    assert!(made.unwrap());
    let third = is_new(&more, "k").await;
    is_there(&more, "k", third).await;
    is_there(&of, "k", second).await;
    // Messages of one batch see those before them.
    let batch = vec![under(&of, "m"), under(&of, "m"), under(&of, "k")];
    let results = ground.storage.messages.append(batch).await;
    let told: Vec<_> = results.into_iter().map(|result| result.unwrap()).collect();
    assert_eq!((told[0].replayed, told[1].id, told[1].replayed), (false, told[0].id, true));
    assert_eq!((told[2].id, told[2].replayed), (second, true));
}

pub(super) async fn a_message_that_is_over_is_no_answer(ground: &Ground) {
    let (of, storage) = (group(ground).await, &ground.storage);
    let dead = is_new(&of, "k").await;
    let held = of.claim("w", 1).await;
    settled(of.settle(&held[0], Verdict::Reject("bad".into())).await);
    let next = is_new(&of, "k").await;
    of.bury().await;
    is_there(&of, "k", next).await;
    // One that is brought back holds no key, since another has it.
    storage.work.revive(&of.topic, &of.group, &[(dead, Duration::ZERO)], true).await.unwrap();
    is_there(&of, "k", next).await;
    storage.work.seek(&of.topic, &of.group, GroupStart::Latest).await.unwrap();
    let sought = is_new(&of, "k").await;
    // One that is worked on, and waits again after a seek.
    of.claim("w", 1).await;
    storage.work.seek(&of.topic, &of.group, GroupStart::Earliest).await.unwrap();
    is_there(&of, "k", sought).await;
    storage.messages.remove(&of.topic, sought).await.unwrap();
    is_new(&of, "k").await;
    storage.messages.trim(&of.topic, Trim::Keep(0)).await.unwrap();
    let kept = is_new(&of, "k").await;
    storage.work.delete_group(&of.topic, &of.group).await.unwrap();
    let settings = group_defaults(&of.topic, &of.group);
    storage
        .work
        .put_group(&of.topic, &of.group, &settings, GroupStart::Earliest, Existing::Replace)
        .await
        .unwrap();
    let anew = is_new(&of, "k").await;
    assert!(anew > kept, "the group is another one");
    let unique = under(&of, "x").unique;
    append(storage, NewMessage { unique, ..expired(&of.topic, json("1")) }).await.unwrap();
    is_new(&of, "x").await;
}

pub(super) async fn a_key_is_of_a_group_that_is_there(ground: &Ground) {
    let (topic, storage) = (ground.topic(), &ground.storage);
    let of = Of { ground, topic, group: name("workers") };
    let refused = append(storage, under(&of, "k")).await;
    assert!(matches!(refused, Err(StorageError::NoGroup)), "{refused:?}");
    assert!(matches!(storage.topics.describe(&of.topic).await, Err(StorageError::NoTopic)), "none was made");
    append_numbers(storage, &of.topic, 1).await;
    let refused = append(storage, under(&of, "k")).await;
    assert!(matches!(refused, Err(StorageError::NoGroup)), "{refused:?}");
    assert_eq!(length(storage, &of.topic).await, 1, "nothing was kept");
}

pub(super) async fn an_idempotency_key_wins_over_a_unique_one_and_that_over_a_condition(ground: &Ground) {
    let (of, storage) = (group(ground).await, &ground.storage);
    let both = |idempotency: &str, unique: &str| NewMessage {
        unique: under(&of, unique).unique,
        ..keyed(&of.topic, json("1"), idempotency, 1)
    };
    let first = append(storage, both("i", "k")).await.unwrap();
    let second = append(storage, both("j", "k")).await.unwrap();
    assert_eq!((second.id, second.replayed), (first.id, true));
    let held = of.claim("w", 1).await;
    settled(of.settle(&held[0], ACK).await);
    for repeated in ["i", "j"] {
        let again = append(storage, both(repeated, "k")).await.unwrap();
        assert_eq!((again.id, again.replayed), (first.id, true), "{repeated} was answered so");
    }
    let third = append(storage, both("l", "k")).await.unwrap();
    assert!(!third.replayed);
    let behind = |unique: &str, last| NewMessage { expected_last: Some(last), ..under(&of, unique) };
    let wins = append(storage, behind("k", first.id)).await.unwrap();
    assert_eq!((wins.id, wins.replayed), (third.id, true));
    let refused = append(storage, behind("m", first.id)).await;
    assert!(matches!(refused, Err(StorageError::NotLast(last)) if last == third.id), "{refused:?}");
    assert!(!append(storage, behind("m", third.id)).await.unwrap().replayed, "what was refused holds no key");
    storage.runs.end_run(&of.topic, RunEnding::Close).await.unwrap();
    is_there(&of, "k", third.id).await;
    let refused = append(storage, under(&of, "n")).await;
    assert!(matches!(refused, Err(StorageError::Closed)), "{refused:?}");
}

pub(super) async fn of_many_who_publish_under_a_key_one_is_kept(ground: &Ground) {
    let of = group(ground).await;
    let mut nodes = vec![ground.storage.clone()];
    if ground.has_server() {
        nodes.push(ground.under(LIMITS).await);
    }
    for round in 0..5 {
        let mut publishers = JoinSet::new();
        for at in 0..20 {
            let (storage, message) = (nodes[at % nodes.len()].clone(), under(&of, &format!("k{round}")));
            publishers.spawn(async move { append(&storage, message).await.expect("it is answered") });
        }
        let answers = publishers.join_all().await;
        assert_eq!(answers.iter().filter(|answer| !answer.replayed).count(), 1);
        assert!(answers.iter().all(|answer| answer.id == answers[0].id), "{answers:?}");
    }
}

#[cfg(feature = "valkey")]
pub(super) async fn no_unique_key_is_left_of_a_message_that_is_over(ground: &Ground) {
    let of = group(ground).await;
    let server = ground.server();
    let (stream, unique) =
        (format!("stream:topic:{}", of.topic), format!("group:{{{}}}:workers:unique", of.topic));
    let left = async || server.command(&["HLEN", &unique]).await.integer();
    for at in 0..30 {
        is_new(&of, &format!("k{at}")).await;
    }
    assert_eq!(left().await, 60);
    let held = of.claim("w", 30).await;
    for (at, held) in held.iter().enumerate() {
        let verdict = if at % 2 == 0 { ACK } else { Verdict::Reject("bad".into()) };
        settled(of.settle(held, verdict).await);
    }
    assert_eq!(left().await, 0);
    // Other programs do not tell what they settle; it is found out.
    let first = is_new(&of, "k").await.to_string();
    let read = ["XREADGROUP", "GROUP", "workers", "theirs", "STREAMS", &stream, ">"];
    server.command(&read).await;
    is_there(&of, "k", first.parse().expect("an id")).await;
    server.command(&["XACK", &stream, "workers", &first]).await;
    let second = is_new(&of, "k").await.to_string();
    server.command(&read).await;
    server.command(&["XACK", &stream, "workers", &second]).await;
    eventually(SOON, async || {
        ground.storage.work.tend(&of.topic, &of.group).await.unwrap();
        left().await == 0
    })
    .await;
}
