//! Recurring messages: one for each of their times, over any number of nodes.

use std::time::Duration;

use tidemill::proto::limits::RECURRING_MAX;
use tidemill::proto::page::Order;
use tidemill::proto::{RecurringName, Timestamp, TopicName};
use tidemill::storage::{
    NewRecurring, Promoted, Recurrence, RecurringRule, Storage, StorageError, StoredRecurring,
};
use tokio::task::JoinSet;

use super::schedules::{Never, waiting};
use crate::support::eventually;
use crate::support::ground::{Ground, LIMITS, POLICY, SOON, json, length, message, read_all, texts};

/// Comes every so many milliseconds, which is what its pattern says.
#[derive(Debug)]
struct Every;

impl Recurrence for Every {
    fn next(&self, rule: &RecurringRule, after: Timestamp) -> Option<Timestamp> {
        let every: u64 = rule.cron.parse().ok()?;
        Some(Timestamp::from_millis((after.as_millis() / every + 1) * every))
    }
}

fn name(text: &str) -> RecurringName {
    RecurringName::parse(text).expect("a name")
}

fn every(topic: &TopicName, of: &str, ms: u64, text: &str) -> NewRecurring {
    NewRecurring {
        name: name(of),
        rule: RecurringRule { cron: ms.to_string().into(), timezone: "UTC".into() },
        message: message(topic, json(text.to_owned())),
        ttl: Some(Duration::from_hours(1)),
    }
}

async fn put(storage: &Storage, new: NewRecurring) -> StoredRecurring {
    storage.schedules.put_recurring(new, &Every).await.expect("it is kept")
}

async fn promote(storage: &Storage, topic: &TopicName) -> Promoted {
    storage.schedules.promote(std::slice::from_ref(topic), POLICY, &Every).await.remove(0).expect("a look")
}

async fn published(storage: &Storage, topic: &TopicName) -> Vec<String> {
    texts(&read_all(storage, topic, Order::Asc, 100).await)
}

pub(super) async fn a_recurring_message_is_planted_anew_with_each_that_is_published(ground: &Ground) {
    let (topic, storage) = (ground.topic(), &ground.storage);
    let stored = put(storage, every(&topic, "tick", 250, "1")).await;
    let mut next = stored.next.expect("it comes");
    assert_eq!(storage.schedules.recurring(&topic).await.unwrap(), [stored]);
    assert_eq!(waiting(storage, &topic).await, [], "it is no message that waits once");
    for count in 1..=3 {
        eventually(SOON, async || !promote(storage, &topic).await.late.is_empty()).await;
        assert_eq!(published(storage, &topic).await.len(), count);
        let planted = storage.schedules.recurring(&topic).await.unwrap()[0].next.expect("it comes again");
        assert!(planted > next && planted.as_millis() % 250 == 0, "{planted} after {next}");
        next = planted;
    }
    assert_eq!(storage.schedules.count_waiting().await.unwrap(), 1);
}

pub(super) async fn a_recurring_message_is_replaced_and_removed(ground: &Ground) {
    let (topic, storage) = (ground.topic(), &ground.storage);
    let missing = storage.schedules.recurring(&topic).await;
    assert!(matches!(missing, Err(StorageError::NoTopic)), "{missing:?}");
    let far = 1_000_000_000_000;
    let first = put(storage, every(&topic, "b", far, "1")).await;
    put(storage, every(&topic, "a", far, "2")).await;
    let same_rule = put(storage, every(&topic, "b", far, "3")).await;
    assert_eq!((same_rule.next, &*same_rule.body.payload), (first.next, &b"3"[..]));
    let other_rule = put(storage, every(&topic, "b", 2 * far, "4")).await;
    assert_ne!(other_rule.rule, first.rule);
    let all = storage.schedules.recurring(&topic).await.unwrap();
    let told: Vec<_> = all.iter().map(|one| (one.name.as_str(), &*one.body.payload)).collect();
    assert_eq!(told, [("a", &b"2"[..]), ("b", b"4")]);
    assert_eq!((all[1].ttl, all[1].next), (Some(Duration::from_hours(1)), other_rule.next));
    assert!(storage.schedules.remove_recurring(&topic, &name("b")).await.unwrap());
    assert!(!storage.schedules.remove_recurring(&topic, &name("b")).await.unwrap());
    assert_eq!(storage.schedules.recurring(&topic).await.unwrap().len(), 1);
    assert_eq!(storage.schedules.count_waiting().await.unwrap(), 1);
    storage.topics.delete(&topic).await.unwrap();
    storage.topics.create(&topic, tidemill::proto::topics::TopicUpdate::default(), None).await.unwrap();
    assert_eq!(storage.schedules.recurring(&topic).await.unwrap(), []);
}

pub(super) async fn what_a_recurring_message_has_missed_is_not_made_up_for(ground: &Ground) {
    let (topic, storage) = (ground.topic(), &ground.storage);
    put(storage, every(&topic, "tick", 50, "1")).await;
    // Nobody looks for several of its times.
    let waited = storage.upkeep.now().saturating_add(Duration::from_millis(300));
    eventually(SOON, async || storage.upkeep.now() > waited).await;
    let promoted = promote(storage, &topic).await;
    assert_eq!(promoted.late.len(), 1);
    assert!(promoted.late[0] >= Duration::from_millis(150), "{promoted:?}");
    assert!(promoted.next_in.is_some_and(|next| next <= Duration::from_millis(50)), "{promoted:?}");
    assert_eq!(published(storage, &topic).await, ["1"]);
}

pub(super) async fn however_many_nodes_look_a_recurring_message_comes_once(ground: &Ground) {
    let topic = ground.topic();
    let mut storages = vec![ground.storage.clone()];
    if ground.has_server() {
        storages.extend([ground.under(LIMITS).await, ground.under(LIMITS).await]);
    }
    put(&ground.storage, every(&topic, "tick", 200, "1")).await;
    let until = ground.storage.upkeep.now().saturating_add(Duration::from_millis(1_500));
    let mut tasks = JoinSet::new();
    for task in 0..6 {
        let (storage, topic) = (storages[task % storages.len()].clone(), topic.clone());
        tasks.spawn(async move {
            let mut count = 0;
            while storage.upkeep.now() < until {
                count += promote(&storage, &topic).await.late.len();
                tokio::task::yield_now().await;
            }
            count
        });
    }
    let count: usize = tasks.join_all().await.into_iter().sum();
    assert!((2..=8).contains(&count), "{count}");
    let times: Vec<u64> = read_all(&ground.storage, &topic, Order::Asc, 100)
        .await
        .iter()
        .map(|message| message.timestamp.as_millis() / 200)
        .collect();
    assert_eq!(times.len(), count);
    assert!(times.windows(2).all(|pair| pair[0] < pair[1]), "two came for one time: {times:?}");
}

pub(super) async fn a_recurring_message_that_never_comes_again_stays_without_a_time(ground: &Ground) {
    let (topic, storage) = (ground.topic(), &ground.storage);
    put(storage, every(&topic, "tick", 1, "1")).await;
    let topics = std::slice::from_ref(&topic);
    eventually(SOON, async || {
        !storage.schedules.promote(topics, POLICY, &Never).await.remove(0).unwrap().late.is_empty()
    })
    .await;
    let all = storage.schedules.recurring(&topic).await.unwrap();
    assert_eq!((all.len(), all[0].next), (1, None));
    assert_eq!(promote(storage, &topic).await, Promoted::default());
    assert_eq!(length(storage, &topic).await, 1);
    assert!(storage.schedules.remove_recurring(&topic, &name("tick")).await.unwrap());
}

pub(super) async fn recurring_messages_past_the_limit_are_refused(ground: &Ground) {
    let (topic, storage) = (ground.topic(), &ground.storage);
    for number in 0..RECURRING_MAX {
        put(storage, every(&topic, &format!("n{number}"), 1_000_000_000_000, "1")).await;
    }
    let over = storage.schedules.put_recurring(every(&topic, "over", 1_000, "1"), &Every).await;
    assert!(matches!(over, Err(StorageError::SchedulesLimit)), "{over:?}");
    put(storage, every(&topic, "n7", 1_000_000_000_000, "2")).await;
    assert_eq!(storage.schedules.recurring(&topic).await.unwrap().len(), RECURRING_MAX);
}
