//! Copies of groups and of what waits for later: work goes on at the copy where it was.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tidemill::copying::{Copy, Plan};
use tidemill::proto::work::{MessageStateName, Ordering};
use tidemill::proto::{Delivery, MessageId, OrderKey, RecurringName, TopicName, TopicSelector};
use tidemill::storage::{
    Body, CopiedDead, CopiedGroup, CopiedPending, CopiedPlace, NewMessage, NewRecurring, RecurringRule,
    StorageError, Unique, Verdict,
};
use tokio::time::{Instant, sleep};

use super::schedules::{FAR, Never, later, promote_one, schedule, waiting};
use super::work::{Held, Of, ids, nack, short};
use crate::support::ground::{Ground, SOON, append, append_all, append_numbers, json, message};

/// Copies a topic to somewhere else, deletes it, and copies it back.
async fn there_and_back(ground: &Ground, topic: &TopicName) {
    let other = Ground::memory().await.expect("memory is always there").storage;
    let plan = Plan {
        topics: vec![TopicSelector::Topic(topic.clone())],
        follow: false,
        switch: false,
        overwrite: false,
        patience: SOON,
    };
    let [here, there] = [&ground.storage, &other].map(|storage| Arc::new(storage.clone()));
    Copy::new(here.clone(), there.clone(), plan.clone()).run().await.unwrap();
    ground.storage.topics.delete(topic).await.unwrap();
    Copy::new(there, here, plan).run().await.unwrap();
}

async fn copied(of: &Of<'_>) -> CopiedGroup {
    of.ground.storage.copies.copied_group(&of.topic, &of.group).await.unwrap()
}

/// Returns all that a group is not done with, asked for in pages of so many.
async fn pending(of: &Of<'_>, limit: usize) -> Vec<CopiedPending> {
    let mut all: Vec<CopiedPending> = Vec::new();
    loop {
        let after = all.last().map(|one| one.id);
        let page = of.ground.storage.copies.copied_pending(&of.topic, &of.group, after, limit).await.unwrap();
        assert!(page.len() <= limit);
        if page.is_empty() {
            return all;
        }
        all.extend(page);
    }
}

async fn dead(of: &Of<'_>, limit: usize) -> Vec<CopiedDead> {
    let mut all: Vec<CopiedDead> = Vec::new();
    loop {
        let after = all.last().map(|one| one.id);
        let page = of.ground.storage.copies.copied_dead(&of.topic, &of.group, after, limit).await.unwrap();
        assert!(page.len() <= limit);
        if page.is_empty() {
            return all;
        }
        all.extend(page);
    }
}

/// Claims until all of so many have come, and acknowledges each.
async fn work_off(of: &Of<'_>, count: usize) -> Vec<Held> {
    let (mut done, since): (Vec<Held>, _) = (Vec::new(), Instant::now());
    while done.len() < count {
        assert!(since.elapsed() < SOON, "{} of {count} have come", done.len());
        of.ground.storage.work.tend(&of.topic, &of.group).await.unwrap();
        let held = of.claim("late", 100).await;
        for one in &held {
            of.settle(one, Verdict::Ack(None)).await;
        }
        done.extend(held);
        sleep(Duration::from_millis(10)).await;
    }
    done
}

pub(super) async fn a_group_is_copied_with_all_that_is_not_done(ground: &Ground) {
    let (of, all) = Of::numbers(ground, 30, |settings| {
        short(settings);
        settings.max_in_flight = Some(100);
    })
    .await;
    let held = of.claim("a", 12).await;
    for one in &held[..3] {
        of.settle(one, Verdict::Ack(None)).await;
    }
    of.settle(&held[3], nack(Duration::from_mins(50))).await;
    of.settle(&held[4], nack(Duration::ZERO)).await;
    of.settle(&held[5], Verdict::Release).await;
    of.settle(&held[6], Verdict::Reject("no good".into())).await;
    assert_eq!(of.bury().await.len(), 1);
    of.settle(&held[7], Verdict::Reject("worse".into())).await;
    // The others are with the consumer; one is gone from the topic before the group has got it.
    assert!(ground.storage.messages.remove(&of.topic, all[20]).await.unwrap());
    let before = (copied(&of).await, pending(&of, 1_000).await, dead(&of, 1_000).await);
    let detail = ground.storage.work.group(&of.topic, &of.group).await.unwrap();
    assert_eq!((before.1.len(), before.2.len()), (8, 1));

    there_and_back(ground, &of.topic).await;
    let after = (copied(&of).await, pending(&of, 1_000).await, dead(&of, 1_000).await);
    let places = |pending: &[CopiedPending]| {
        let place = |place: &CopiedPlace| match place {
            CopiedPlace::Waits(_) => "waits".to_owned(),
            CopiedPlace::Behind => "behind".to_owned(),
            CopiedPlace::Dying(reason) => format!("dies: {reason}"),
        };
        let told = |one: &CopiedPending| {
            (one.id, one.deliveries, one.failures, one.crashes, one.error.clone(), place(&one.place))
        };
        pending.iter().map(told).collect::<Vec<_>>()
    };
    assert_eq!((places(&after.1), &after.2), (places(&before.1), &before.2));
    let (after, before) = (after.0, before.0);
    assert_eq!((after.epoch, &after.settings), (before.epoch, &before.settings));
    assert_eq!((after.start, after.last_delivered), (before.start, before.last_delivered));
    assert_eq!((after.counts, after.created_at), (before.counts, before.created_at));
    let again = ground.storage.work.group(&of.topic, &of.group).await.unwrap();
    assert_eq!((again.done, again.failed, again.dead), (detail.done, detail.failed, detail.dead));
    assert_eq!(of.state(held[3].id()).await, Some(MessageStateName::Backoff));
    assert_eq!(of.state(held[6].id()).await, Some(MessageStateName::Dead));
    assert_eq!(of.bury().await, [(held[7].id(), "worse".into())]);

    // What is not done comes once more, and what was never given out comes once.
    let done = work_off(&of, 6 + 17).await;
    let expected: BTreeSet<MessageId> =
        [4, 5, 8, 9, 10, 11].into_iter().chain(12..20).chain(21..30).map(|at| all[at]).collect();
    assert_eq!(ids(&done).into_iter().collect::<BTreeSet<_>>(), expected);
    assert_eq!(done.len(), expected.len());
    for one in &done {
        let was_given = held.iter().any(|held| held.id() == one.id());
        assert_eq!(one.delivery.delivery, if was_given { 2 } else { 1 }, "{}", one.id());
    }
    sleep(Duration::from_millis(50)).await;
    assert!(of.claim("late", 10).await.is_empty());
}

pub(super) async fn the_order_of_keys_is_that_of_the_group_that_was_copied(ground: &Ground) {
    let of = Of::latest(ground, |settings| {
        short(settings);
        settings.ordering = Ordering::ByKey;
    })
    .await;
    let body = |key: &str| Body { order_key: OrderKey::parse(key).ok(), ..json("1") };
    let messages = ["a", "a", "b", "a", "b"].map(|key| message(&of.topic, body(key)));
    let all = append_all(&ground.storage, messages.to_vec()).await;
    let held = of.claim("w", 10).await;
    assert_eq!(ids(&held), [all[0], all[2]]);
    of.settle(&held[0], nack(Duration::ZERO)).await;
    there_and_back(ground, &of.topic).await;
    let first = of.claim("w", 10).await;
    assert_eq!(ids(&first)[0], all[0]);
    assert!(!ids(&first).contains(&all[1]) && !ids(&first).contains(&all[3]), "one of a key at a time");
    for one in &first {
        of.settle(one, Verdict::Ack(None)).await;
    }
    let rest = work_off(&of, all.len() - first.len()).await;
    let of_key = |wanted: &[usize]| {
        let wanted: Vec<MessageId> = wanted.iter().map(|at| all[*at]).collect();
        let found = ids(&first).into_iter().chain(ids(&rest)).filter(|id| wanted.contains(id));
        assert_eq!(found.collect::<Vec<_>>(), wanted);
    };
    of_key(&[0, 1, 3]);
    of_key(&[2, 4]);
}

pub(super) async fn unique_keys_are_copied_while_their_messages_are_not_done(ground: &Ground) {
    let of = Of::latest(ground, short).await;
    let under = |key: &str| {
        let unique = Some(Unique { group: of.group.clone(), key: key.into() });
        NewMessage { unique, ..message(&of.topic, json("1")) }
    };
    let first = append(&ground.storage, under("a b")).await.unwrap();
    append(&ground.storage, under("done")).await.unwrap();
    let held = of.claim("w", 2).await;
    of.settle(&held[1], Verdict::Ack(None)).await;
    there_and_back(ground, &of.topic).await;
    let again = append(&ground.storage, under("a b")).await.unwrap();
    assert_eq!((again.id, again.timestamp, again.replayed), (first.id, first.timestamp, true));
    assert!(!append(&ground.storage, under("done")).await.unwrap().replayed);
}

pub(super) async fn what_a_group_knows_is_told_page_by_page(ground: &Ground) {
    let of = Of::latest(ground, short).await;
    let under = |number: usize| {
        let unique = Some(Unique { group: of.group.clone(), key: format!("key {number}").into() });
        NewMessage { unique, ..message(&of.topic, json("1")) }
    };
    let mut keys = BTreeSet::new();
    for number in 0..450 {
        append(&ground.storage, under(number)).await.unwrap();
        keys.insert(format!("key {number}"));
    }
    let held = of.claim("w", 7).await;
    for one in &held[..3] {
        of.settle(one, Verdict::Reject("no good".into())).await;
    }
    assert_eq!(of.bury().await.len(), 3);
    let (all, letters) = (pending(&of, 1_000).await, dead(&of, 1_000).await);
    let expected = ids(&held);
    assert_eq!(all.iter().map(|one| one.id).collect::<Vec<_>>(), expected[3..]);
    assert_eq!(letters.iter().map(|one| one.id).collect::<Vec<_>>(), expected[..3]);
    assert_eq!((pending(&of, 2).await, dead(&of, 2).await), (all, letters));
    let (mut found, mut after) = (BTreeSet::new(), None);
    loop {
        let copies = &ground.storage.copies;
        let page = copies.copied_unique(&of.topic, &of.group, after.as_deref(), 100).await.unwrap();
        found.extend(page.unique.into_iter().map(|(key, ..)| key.into_string()));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    for number in 0..3 {
        keys.remove(&format!("key {number}"));
        found.remove(&format!("key {number}"));
    }
    assert_eq!(found, keys);
    let none = super::work::name("none");
    let copies = &ground.storage.copies;
    assert!(matches!(copies.copied_pending(&of.topic, &none, None, 9).await, Err(StorageError::NoGroup)));
    assert!(matches!(copies.copied_dead(&of.topic, &none, None, 9).await, Err(StorageError::NoGroup)));
    assert!(matches!(copies.copied_unique(&of.topic, &none, None, 9).await, Err(StorageError::NoGroup)));
}

pub(super) async fn what_a_group_has_taken_over_is_not_taken_over_again(ground: &Ground) {
    let of = Of::latest(ground, |settings| {
        short(settings);
        settings.ordering = Ordering::ByKey;
    })
    .await;
    let body = || Body { order_key: OrderKey::parse("a").ok(), ..json("1") };
    let all = append_all(&ground.storage, vec![message(&of.topic, body()), message(&of.topic, body())]).await;
    let held = of.claim("w", 10).await;
    assert_eq!(ids(&held), [all[0]]);
    let (group, known) = (copied(&of).await, pending(&of, 10).await);
    let (storage, copies) = (&ground.storage, &ground.storage.copies);
    storage.upkeep.sweep_one(&of.topic).await.unwrap();
    let source = copies.copied(&of.topic).await.unwrap();
    let messages = copies.copied_messages(&of.topic, MessageId::MIN, 10, 1 << 20).await.unwrap();
    storage.topics.delete(&of.topic).await.unwrap();
    copies.begin_import(&source).await.unwrap();
    copies.import_messages(&of.topic, source.epoch, MessageId::MIN, &messages).await.unwrap();
    let early = copies.import_pending(&of.topic, &of.group, &known).await;
    assert!(matches!(early, Err(StorageError::NoGroup)), "{early:?}");
    copies.import_group(&of.topic, &group).await.unwrap();
    for _ in 0..2 {
        copies.import_pending(&of.topic, &of.group, &known).await.unwrap();
    }
    copies.finish_import(&source, &[]).await.unwrap();
    let done = work_off(&of, 2).await;
    assert_eq!(ids(&done), all);
    let late = copies.import_pending(&of.topic, &of.group, &known).await;
    assert!(matches!(late, Err(StorageError::TopicExists)), "{late:?}");
}

pub(super) async fn a_group_that_begins_at_a_frozen_topic_gets_what_comes_later(ground: &Ground) {
    let of = Of { ground, topic: ground.topic(), group: super::work::name("workers") };
    append_numbers(&ground.storage, &of.topic, 3).await;
    ground.storage.copies.freeze(&of.topic, true).await.unwrap();
    let settings = tidemill::storage::group_defaults(&of.topic, &of.group);
    let (start, existing) = (tidemill::storage::GroupStart::Latest, tidemill::storage::Existing::Keep);
    ground.storage.work.put_group(&of.topic, &of.group, &settings, start, existing).await.unwrap();
    assert!(of.claim("w", 10).await.is_empty());
    ground.storage.copies.freeze(&of.topic, false).await.unwrap();
    let next = append_numbers(&ground.storage, &of.topic, 2).await;
    assert_eq!(ids(&of.claim("w", 10).await), next);
}

fn every(topic: &TopicName, name: &str) -> NewRecurring {
    NewRecurring {
        name: RecurringName::parse(name).expect("a name"),
        rule: RecurringRule { cron: "0 4 * * *".into(), timezone: "Europe/Berlin".into() },
        message: message(topic, json(format!("\"{name}\""))),
        ttl: Some(Duration::from_secs(7)),
    }
}

pub(super) async fn what_waits_for_later_is_copied_and_comes_once(ground: &Ground) {
    let (storage, topic) = (&ground.storage, ground.topic());
    append_numbers(storage, &topic, 1).await;
    let soon =
        schedule(storage, later(&topic, json("\"soon\""), Delivery::After(Duration::from_secs(2)))).await;
    let far = schedule(storage, later(&topic, json("\"far\""), Delivery::After(FAR))).await.unwrap();
    for name in ["a", "b"] {
        storage.schedules.put_recurring(every(&topic, name), &Never).await.unwrap();
    }
    let before = (waiting(storage, &topic).await, storage.schedules.recurring(&topic).await.unwrap());
    assert_eq!((before.0.len(), before.1.len()), (2, 2));

    // What is due in a topic that is read-only waits on, and nothing more may wait.
    storage.copies.freeze(&topic, true).await.unwrap();
    let more = schedule(storage, later(&topic, json("1"), Delivery::After(FAR))).await;
    assert!(matches!(more, Err(StorageError::ReadOnly(_))), "{more:?}");
    sleep(Duration::from_millis(2_100)).await;
    let refused =
        storage.schedules.promote(std::slice::from_ref(&topic), crate::support::ground::POLICY, &Never).await;
    assert!(matches!(refused[0], Err(StorageError::ReadOnly(_))), "{refused:?}");

    let order = |found: &[tidemill::storage::WaitingMessage]| {
        found.iter().map(|one| (one.due, one.body.clone(), one.ttl)).collect::<Vec<_>>()
    };
    there_and_back(ground, &topic).await;
    let after = (waiting(storage, &topic).await, storage.schedules.recurring(&topic).await.unwrap());
    assert_eq!(order(&after.0), order(&before.0));
    assert_eq!(after.1, before.1);
    assert_eq!(promote_one(storage, &topic).await.late.len(), 1);
    assert_eq!(promote_one(storage, &topic).await.late.len(), 0);
    assert_eq!(waiting(storage, &topic).await.len(), 1);
    let next = schedule(storage, later(&topic, json("1"), Delivery::After(FAR))).await.unwrap();
    assert!(next.id != far.id && soon.is_ok_and(|soon| soon.id != next.id));
    let left = waiting(storage, &topic).await;
    assert!(storage.schedules.cancel(&topic, &left[0].id).await.unwrap());
}
