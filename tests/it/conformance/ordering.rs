//! Groups that give out one message of an order key at a time, in their order.

use std::time::Duration;

use tidemill::proto::work::{GroupSettings, MessageStateName, Ordering};
use tidemill::proto::{MessageId, OrderKey};
use tidemill::storage::{
    BEHIND_MAX, Body, Existing, GroupChange, GroupStart, NewMessage, Outcome, Revived, StorageError,
    TopicPolicy, Trim, Verdict,
};
use tokio::time::sleep;

use super::work::{Held, Of, ids, nack, settled, short};
use crate::support::eventually;
use crate::support::ground::{Ground, SOON, append_all, expired, json, message};

const ACK: Verdict = Verdict::Ack(None);

fn by_key(settings: &mut GroupSettings) {
    settings.ordering = Ordering::ByKey;
}

fn body(key: &str) -> Body {
    Body { order_key: OrderKey::parse(key).ok(), ..json("1") }
}

/// Publishes a message of each key, of none where that is empty, and returns their ids.
async fn publish(of: &Of<'_>, keys: &[&str]) -> Vec<MessageId> {
    let messages = keys.iter().map(|key| message(&of.topic, body(key)));
    append_all(&of.ground.storage, messages.collect()).await
}

/// Publishes so many messages of a key in a topic that keeps them all.
async fn publish_many(of: &Of<'_>, count: usize, key: &str) -> Vec<MessageId> {
    let policy = TopicPolicy::newest(10 * BEHIND_MAX as u64);
    let mut ids = Vec::with_capacity(count);
    while ids.len() < count {
        let part = (count - ids.len()).min(1_000);
        let messages = (0..part).map(|_| NewMessage { policy, ..message(&of.topic, body(key)) });
        ids.extend(append_all(&of.ground.storage, messages.collect()).await);
    }
    ids
}

/// Makes a group by key that begins with what is published now, in a topic that has such messages.
async fn keyed<'a>(
    ground: &'a Ground,
    keys: &[&str],
    change: impl FnOnce(&mut GroupSettings),
) -> (Of<'a>, Vec<MessageId>) {
    let of = Of::latest(ground, |settings| {
        by_key(settings);
        change(settings);
    })
    .await;
    let ids = publish(&of, keys).await;
    (of, ids)
}

/// Claims one message and checks which it is.
async fn takes(of: &Of<'_>, id: MessageId) -> Held {
    let mut held = of.claim("w", 1).await;
    assert_eq!(ids(&held), [id]);
    held.remove(0)
}

async fn is_empty(of: &Of<'_>) {
    assert_eq!(ids(&of.claim("w", 10).await), [], "nothing can be claimed");
}

pub(super) async fn one_message_of_a_key_is_with_a_consumer_and_other_keys_go_on(ground: &Ground) {
    let keys = ["a", "a", "", "b", "a", "", "b b"];
    let (of, all) = keyed(ground, &keys, |_| {}).await;
    let held = of.claim("one", 10).await;
    assert_eq!(ids(&held), [all[0], all[2], all[3], all[5], all[6]]);
    assert_eq!(held[0].delivery.message.body, body("a"), "a message has its key");
    let claimed = of.claimed(of.ask("two", 10)).await;
    assert!(claimed.deliveries.is_empty() && claimed.limited, "{claimed:?}");
    let told = ground.storage.work.group(&of.topic, &of.group).await.unwrap();
    assert_eq!((told.waiting, told.in_flight, told.in_backoff), (Some(2), 5, 0));
    assert!(told.exact && told.oldest_waiting_seconds.is_some());
    assert_eq!(of.state(all[1]).await, Some(MessageStateName::Waiting));
    assert_eq!(settled(of.settle(&held[0], ACK).await), (false, false));
    let next = of.claim("two", 10).await;
    assert_eq!((ids(&next), next[0].delivery.delivery), (vec![all[1]], 1), "it is given out the first time");
    assert_eq!(of.state(all[4]).await, Some(MessageStateName::Waiting));
    settled(of.settle(&next[0], Verdict::Reject("bad".into())).await);
    let last = takes(&of, all[4]).await;
    settled(of.settle(&last, ACK).await);
    for held in &held[1..] {
        settled(of.settle(held, ACK).await);
    }
    is_empty(&of).await;
    of.bury().await;
    let told = ground.storage.work.group(&of.topic, &of.group).await.unwrap();
    assert_eq!((told.waiting, told.in_flight, told.done, told.dead), (Some(0), 0, 6, 1));
    assert_eq!((told.redelivered, told.gone), (0, 0));
    // A key that nobody holds is taken by the next one that comes.
    let more = publish(&of, &["a"]).await;
    takes(&of, more[0]).await;
}

pub(super) async fn a_key_keeps_its_order_through_what_becomes_of_its_messages(ground: &Ground) {
    let (of, all) = keyed(ground, &["a", "a", "a", "b"], |settings| {
        short(settings);
        settings.max_deliveries = 3;
    })
    .await;
    let first = takes(&of, all[0]).await;
    settled(of.settle(&first, nack(Duration::from_millis(200))).await);
    // While it waits for its next delivery, the next one of its key does not come.
    let other = takes(&of, all[3]).await;
    settled(of.settle(&other, ACK).await);
    is_empty(&of).await;
    sleep(Duration::from_millis(250)).await;
    let again = takes(&of, all[0]).await;
    assert_eq!(again.delivery.delivery, 2);
    // It is given back.
    settled(of.settle(&again, Verdict::Release).await);
    let again = takes(&of, all[0]).await;
    is_empty(&of).await;
    // Its consumer is lost; a late answer counts, and the next one follows.
    of.lapse(1).await;
    assert_eq!(settled(of.settle(&again, ACK).await), (true, false));
    let second = takes(&of, all[1]).await;
    assert_eq!(second.delivery.delivery, 1);
    // It lapses, is held again, and dies of its failures.
    of.lapse(1).await;
    let second = takes(&of, all[1]).await;
    settled(of.settle(&second, nack(Duration::ZERO)).await);
    let second = takes(&of, all[1]).await;
    is_empty(&of).await;
    assert_eq!(settled(of.settle(&second, nack(Duration::ZERO)).await), (false, true), "it dies");
    let third = takes(&of, all[2]).await;
    assert_eq!(of.bury().await.len(), 1);
    is_empty(&of).await;
    settled(of.settle(&third, ACK).await);
    // One that crashes too often dies by tending alone.
    let more = publish(&of, &["c", "c"]).await;
    for _ in 0..3 {
        takes(&of, more[0]).await;
        is_empty(&of).await;
        of.lapse(1).await;
    }
    takes(&of, more[1]).await;
}

pub(super) async fn thousands_of_one_key_hold_nobody_up_and_no_more_stand_behind_than_may(ground: &Ground) {
    let (of, _) = keyed(ground, &[], |_| {}).await;
    let mut all = publish_many(&of, 1_300, "a").await;
    let other = publish_many(&of, 1, "b").await[0];
    let first = takes(&of, all[0]).await;
    takes(&of, other).await;
    all.extend(publish_many(&of, BEHIND_MAX + 3 - all.len(), "a").await);
    let last = publish_many(&of, 1, "c").await[0];
    // The first is held and so many stand behind; the others, and what is behind them, are not looked at.
    let claimed = of.claimed(of.ask("w", 10)).await;
    assert!(claimed.deliveries.is_empty() && claimed.limited, "{claimed:?}");
    let told = ground.storage.work.group(&of.topic, &of.group).await.unwrap();
    assert_eq!((told.waiting, told.in_flight), (Some(BEHIND_MAX as u64 + 3), 2));
    let mut held = first;
    for next in &all[1..4] {
        settled(of.settle(&held, ACK).await);
        held = takes(&of, *next).await;
    }
    takes(&of, last).await;
}

pub(super) async fn what_is_gone_holds_no_key(ground: &Ground) {
    let (of, all) = keyed(ground, &["a", "a", "a", "a"], |_| {}).await;
    let storage = &ground.storage;
    let first = takes(&of, all[0]).await;
    is_empty(&of).await;
    // One that stands behind, and the one that holds the key, are deleted.
    storage.messages.remove(&of.topic, all[1]).await.unwrap();
    settled(of.settle(&first, ACK).await);
    let third = takes(&of, all[2]).await;
    storage.messages.remove(&of.topic, all[2]).await.unwrap();
    settled(of.settle(&third, Verdict::Release).await);
    takes(&of, all[3]).await;
    // What has expired is never given out, and holds none.
    append_all(storage, vec![expired(&of.topic, body("b"))]).await;
    let next = publish(&of, &["b"]).await;
    takes(&of, next[0]).await;
    // All that stand behind are trimmed.
    let many: Vec<&str> = std::iter::repeat_n("b", 700).collect();
    publish(&of, &many).await;
    is_empty(&of).await;
    storage.messages.trim(&of.topic, Trim::Keep(0)).await.unwrap();
    let last = publish(&of, &["b"]).await;
    let held = of.claim("w", 1).await;
    assert_eq!(ids(&held), [], "its holder is trimmed, and with a consumer still");
    let told = storage.work.group(&of.topic, &of.group).await.unwrap();
    assert_eq!(told.waiting, Some(701));
    assert_eq!(of.state(last[0]).await, Some(MessageStateName::Waiting));
}

pub(super) async fn a_trimmed_holder_hands_its_key_over_all_that_are_trimmed(ground: &Ground) {
    let (of, all) = keyed(ground, &["a"; 700], |_| {}).await;
    let held = takes(&of, all[0]).await;
    is_empty(&of).await;
    ground.storage.messages.trim(&of.topic, Trim::Keep(0)).await.unwrap();
    let last = publish(&of, &["a"]).await;
    settled(of.settle(&held, ACK).await);
    takes(&of, last[0]).await;
    let told = ground.storage.work.group(&of.topic, &of.group).await.unwrap();
    assert_eq!((told.gone, told.waiting, told.done), (699, Some(0), 1));
}

pub(super) async fn a_message_that_is_brought_back_joins_its_key(ground: &Ground) {
    let (of, all) = keyed(ground, &["a", "a", "a"], |_| {}).await;
    let work = &ground.storage.work;
    let revive = async |id| {
        let revived = work.revive(&of.topic, &of.group, &[(id, Duration::ZERO)], true).await.unwrap();
        assert_eq!(revived, [Revived::Waits]);
    };
    let first = takes(&of, all[0]).await;
    settled(of.settle(&first, Verdict::Reject("bad".into())).await);
    of.bury().await;
    let second = takes(&of, all[1]).await;
    revive(all[0]).await;
    is_empty(&of).await;
    assert_eq!(of.state(all[0]).await, Some(MessageStateName::Waiting));
    // It has the smallest id of those that stand behind.
    settled(of.settle(&second, ACK).await);
    let again = takes(&of, all[0]).await;
    assert_eq!(again.delivery.delivery, 2);
    is_empty(&of).await;
    settled(of.settle(&again, Verdict::Reject("bad".into())).await);
    let third = takes(&of, all[2]).await;
    settled(of.settle(&third, ACK).await);
    of.bury().await;
    // Where nobody holds the key, it does.
    revive(all[0]).await;
    let more = publish(&of, &["a"]).await;
    let again = takes(&of, all[0]).await;
    is_empty(&of).await;
    settled(of.settle(&again, ACK).await);
    takes(&of, more[0]).await;
}

pub(super) async fn the_ordering_changes_while_nothing_is_pending(ground: &Ground) {
    let work = &ground.storage.work;
    let (of, all) = keyed(ground, &["a", "a"], |_| {}).await;
    let first = takes(&of, all[0]).await;
    let ordered = work.group(&of.topic, &of.group).await.unwrap().settings;
    let any = GroupSettings { ordering: Ordering::None, ..ordered.clone() };
    let change = |next: &GroupSettings| GroupChange { known: None, next: next.clone() };
    let refused = work.change_group(&of.topic, &of.group, &change(&any)).await;
    assert!(matches!(refused, Err(StorageError::GroupHolds)), "{refused:?}");
    let refused = work.put_group(&of.topic, &of.group, &any, GroupStart::Earliest, Existing::Replace).await;
    assert!(matches!(refused, Err(StorageError::GroupHolds)), "{refused:?}");
    // Other settings change.
    let paused = GroupSettings { paused: true, ..ordered.clone() };
    assert!(work.change_group(&of.topic, &of.group, &change(&paused)).await.unwrap());
    assert!(work.change_group(&of.topic, &of.group, &change(&ordered)).await.unwrap());
    settled(of.settle(&first, ACK).await);
    assert!(work.change_group(&of.topic, &of.group, &change(&any)).await.unwrap());
    publish(&of, &["a"]).await;
    assert_eq!(of.claim("w", 10).await.len(), 2);
    let refused = work.change_group(&of.topic, &of.group, &change(&ordered)).await;
    assert!(matches!(refused, Err(StorageError::GroupHolds)), "{refused:?}");
}

pub(super) async fn a_seek_frees_all_keys(ground: &Ground) {
    let (of, all) = keyed(ground, &["a", "a", "b"], |_| {}).await;
    let work = &ground.storage.work;
    assert_eq!(ids(&of.claim("w", 10).await), [all[0], all[2]]);
    work.seek(&of.topic, &of.group, GroupStart::After(all[0])).await.unwrap();
    let held = of.claim("w", 10).await;
    assert_eq!(ids(&held), [all[1], all[2]]);
    let settings = work.group(&of.topic, &of.group).await.unwrap().settings;
    work.delete_group(&of.topic, &of.group).await.unwrap();
    work.put_group(&of.topic, &of.group, &settings, GroupStart::After(all[0]), Existing::Replace)
        .await
        .unwrap();
    assert_eq!(ids(&of.claim("w", 10).await), [all[1], all[2]]);
}

#[cfg(feature = "valkey")]
pub(super) async fn workers_of_other_programs_are_not_bound_and_hold_no_key_for_ever(ground: &Ground) {
    let (of, all) = keyed(ground, &["a", "a", "a"], |_| {}).await;
    let (server, stream) = (ground.server(), format!("stream:topic:{}", of.topic));
    let id = |at: usize| all[at].to_string();
    let read = ["XREADGROUP", "GROUP", "workers", "theirs", "COUNT", "1", "STREAMS", &stream, ">"];
    server.command(&read).await;
    // Neither does theirs hold a key of ours.
    let second = takes(&of, all[1]).await;
    is_empty(&of).await;
    // They take ours over, and settle it: a claim of its key notices that.
    server.command(&["XCLAIM", &stream, "workers", "theirs", "0", &id(1)]).await;
    is_empty(&of).await;
    server.command(&["XACK", &stream, "workers", &id(1)]).await;
    let more = publish(&of, &["a"]).await;
    takes(&of, all[2]).await;
    let outcome = of.settle(&second, ACK).await;
    assert!(matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
    // Tending notices it as well.
    server.command(&["XACK", &stream, "workers", &id(2)]).await;
    eventually(SOON, async || {
        ground.storage.work.tend(&of.topic, &of.group).await.unwrap();
        ids(&of.claim("w", 1).await) == [more[0]]
    })
    .await;
    // They publish with a key, too.
    let fields = ["XADD", &stream, "*", "payload", "1", "order_key", "a"];
    server.command(&fields).await;
    is_empty(&of).await;
}
