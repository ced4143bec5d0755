//! Messages for later: each waits, and is published once when it is due, or is cancelled.

use std::collections::BTreeSet;
use std::time::Duration;

use tidemill::proto::page::Order;
use tidemill::proto::{Delivery, OrderKey, RecurringName, ScheduleId, Timestamp, TopicName};
use tidemill::storage::{
    Body, Idempotency, NewMessage, NewRecurring, NewSchedule, Promoted, Recurrence, RecurringRule, Scheduled,
    Storage, StorageError, StorageLimits, TopicPolicy, WaitingMessage, WaitingRange,
};
use tokio::task::JoinSet;

use super::work::Of;
use crate::support::eventually;
use crate::support::ground::{
    Ground, Heard, LIMITS, POLICY, SOON, append, json, keyed, length, message, read_all, texts,
};

/// Far from now.
pub(super) const FAR: Duration = Duration::from_hours(24 * 300);

/// Comes never.
#[derive(Debug)]
pub(super) struct Never;

impl Recurrence for Never {
    fn next(&self, _: &RecurringRule, _: Timestamp) -> Option<Timestamp> {
        None
    }
}

pub(super) fn later(topic: &TopicName, body: Body, delivery: Delivery) -> NewSchedule {
    NewSchedule { message: message(topic, body), delivery, ttl: None }
}

pub(super) async fn schedule(storage: &Storage, new: NewSchedule) -> Result<Scheduled, StorageError> {
    storage.schedules.schedule(vec![new]).await.pop().expect("one message, one result")
}

async fn schedule_text(storage: &Storage, topic: &TopicName, text: &str, delivery: Delivery) -> Scheduled {
    schedule(storage, later(topic, json(text.to_owned()), delivery)).await.expect("it is kept")
}

pub(super) async fn promote_one(storage: &Storage, topic: &TopicName) -> Promoted {
    let topics = std::slice::from_ref(topic);
    let promoted = storage.schedules.promote(topics, POLICY, &Never).await.pop();
    promoted.expect("an answer for each topic").expect("it is looked at")
}

/// Publishes all that is due.
async fn promote_all(storage: &Storage, topic: &TopicName) -> usize {
    let mut count = 0;
    loop {
        let promoted = promote_one(storage, topic).await;
        count += promoted.late.len();
        if promoted.next_in.is_none_or(|next| !next.is_zero()) {
            return count;
        }
    }
}

pub(super) async fn waiting(storage: &Storage, topic: &TopicName) -> Vec<WaitingMessage> {
    let range = WaitingRange { after: None, limit: 1_000, bytes_max: usize::MAX >> 8 };
    let page = storage.schedules.waiting(topic, range).await.expect("it can be listed");
    assert_eq!(page.next, None);
    page.messages
}

async fn published(storage: &Storage, topic: &TopicName) -> Vec<String> {
    texts(&read_all(storage, topic, Order::Asc, 100).await)
}

pub(super) async fn a_message_for_later_is_published_once_it_is_due(ground: &Ground) {
    let (topic, storage) = (ground.topic(), &ground.storage);
    let body = Body {
        payload: b"a\xff\n b".as_slice().into(),
        content_type: Some("a/b; c=\"d\"".into()),
        metadata: Some(br#"{"k":"v"}"#.as_slice().into()),
        order_key: OrderKey::parse("a b").ok(),
    };
    let delay = Duration::from_millis(700);
    let before = storage.upkeep.now();
    let scheduled = schedule(storage, later(&topic, body.clone(), Delivery::After(delay))).await.unwrap();
    assert!(!scheduled.replayed && scheduled.due_in <= delay, "{scheduled:?}");
    assert!(scheduled.due >= before.saturating_add(Duration::from_millis(600)), "{before} {scheduled:?}");
    let WaitingMessage { id, due, body: kept, ttl } = waiting(storage, &topic).await.remove(0);
    assert_eq!((id, due, kept, ttl), (scheduled.id.clone(), scheduled.due, body.clone(), None));
    // The topic is there, and has nothing to read.
    assert_eq!(length(storage, &topic).await, 0);
    let promoted = promote_one(storage, &topic).await;
    assert!(promoted.late.is_empty() && promoted.next_in.is_some_and(|next| next <= delay), "{promoted:?}");
    eventually(SOON, async || !promote_one(storage, &topic).await.late.is_empty()).await;
    let messages = read_all(storage, &topic, Order::Asc, 10).await;
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0].body, body);
    assert!(messages[0].timestamp >= scheduled.due, "its time is that of its delivery");
    assert!(messages[0].timestamp.as_millis() <= messages[0].id.ms, "{:?}", messages[0]);
    assert_eq!(waiting(storage, &topic).await, []);
    assert_eq!(promote_one(storage, &topic).await, Promoted::default(), "once");
    assert_eq!(published(storage, &topic).await.len(), 1);
}

pub(super) async fn what_is_due_is_published_in_its_order(ground: &Ground) {
    let (topic, storage) = (ground.topic(), &ground.storage);
    // Until it is due, so that all are due at their times, and not when they came.
    let at = storage.upkeep.now().saturating_add(Duration::from_millis(400));
    let next = Timestamp::from_millis(at.as_millis() + 1);
    let batch = [("3", next), ("0", at), ("1", at), ("4", next), ("2", at)];
    let batch: Vec<_> =
        batch.map(|(text, at)| later(&topic, json(text), Delivery::At(at))).into_iter().collect();
    let ids: BTreeSet<ScheduleId> =
        storage.schedules.schedule(batch).await.into_iter().map(|result| result.unwrap().id).collect();
    assert_eq!(ids.len(), 5, "no two have one id");
    let listed: Vec<_> =
        waiting(storage, &topic).await.into_iter().map(|message| message.body.payload).collect();
    assert_eq!(listed, ["0", "1", "2", "3", "4"]);
    eventually(SOON, async || {
        promote_one(storage, &topic).await;
        length(storage, &topic).await == 5
    })
    .await;
    assert_eq!(published(storage, &topic).await, ["0", "1", "2", "3", "4"]);
}

pub(super) async fn what_waits_is_listed_in_pages(ground: &Ground) {
    let (topic, storage) = (ground.topic(), &ground.storage);
    let missing = WaitingRange { after: None, limit: 1, bytes_max: 1 };
    let missing = storage.schedules.waiting(&topic, missing).await;
    assert!(matches!(missing, Err(StorageError::NoTopic)), "{missing:?}");
    let at = storage.upkeep.now().saturating_add(FAR);
    // Most are due at one time.
    let times = (0..25).map(|number| (number, at.saturating_add(Duration::from_secs(number / 20))));
    let batch = times.map(|(number, at)| later(&topic, json(number.to_string()), Delivery::At(at)));
    let results = storage.schedules.schedule(batch.collect()).await;
    let ids: Vec<_> = results.into_iter().map(|result| result.unwrap().id).collect();
    let (mut after, mut seen) = (None, Vec::new());
    loop {
        let range = WaitingRange { after: after.clone(), limit: 4, bytes_max: 1_000_000 };
        let page = storage.schedules.waiting(&topic, range).await.unwrap();
        assert!((1..=4).contains(&page.messages.len()));
        if let Some(next) = &page.next {
            // What stood at the end of the page may be gone when the next is asked for.
            assert!(storage.schedules.cancel(&topic, &next.id).await.unwrap());
        }
        seen.extend(page.messages.into_iter().map(|message| message.id));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen, ids);
    // Bytes end a page, but never before its first message.
    let range = WaitingRange { after: None, limit: 100, bytes_max: 1 };
    let page = storage.schedules.waiting(&topic, range).await.unwrap();
    assert_eq!((page.messages.len(), page.next.is_some()), (1, true));
}

pub(super) async fn a_message_that_is_cancelled_is_never_published(ground: &Ground) {
    let (topic, storage) = (ground.topic(), &ground.storage);
    let unknown = ScheduleId::parse("1517363399650-000000-00000000").unwrap();
    let missing = storage.schedules.cancel(&topic, &unknown).await;
    assert!(matches!(missing, Err(StorageError::NoTopic)), "{missing:?}");
    let now = Delivery::At(storage.upkeep.now());
    let first = schedule_text(storage, &topic, "1", now).await;
    let second = schedule_text(storage, &topic, "2", now).await;
    assert!(!storage.schedules.cancel(&topic, &unknown).await.unwrap());
    assert!(storage.schedules.cancel(&topic, &first.id).await.unwrap());
    assert!(!storage.schedules.cancel(&topic, &first.id).await.unwrap());
    assert_eq!(promote_all(storage, &topic).await, 1);
    assert!(!storage.schedules.cancel(&topic, &second.id).await.unwrap(), "it is published");
    assert_eq!(published(storage, &topic).await, ["2"]);
}

pub(super) async fn a_message_that_waits_is_published_now_on_request(ground: &Ground) {
    let (topic, storage) = (ground.topic(), &ground.storage);
    let scheduled = schedule_text(storage, &topic, "1", Delivery::After(FAR)).await;
    let id = storage.schedules.publish_now(&topic, &scheduled.id, POLICY).await.unwrap();
    let messages = read_all(storage, &topic, Order::Asc, 10).await;
    assert_eq!(messages.iter().map(|message| Some(message.id)).collect::<Vec<_>>(), [id]);
    assert_eq!(storage.schedules.publish_now(&topic, &scheduled.id, POLICY).await.unwrap(), None);
    assert_eq!(waiting(storage, &topic).await, []);
    assert_eq!(length(storage, &topic).await, 1);
}

pub(super) async fn a_time_to_live_counts_from_the_delivery(ground: &Ground) {
    let (topic, storage) = (ground.topic(), &ground.storage);
    let now = Delivery::At(storage.upkeep.now());
    for (text, ttl) in [("1", Duration::from_millis(1)), ("2", Duration::from_hours(1))] {
        // Both have waited for longer than the first is to be returned.
        let new = NewSchedule { ttl: Some(ttl), ..later(&topic, json(text), now) };
        schedule(storage, new).await.unwrap();
    }
    let ttls: Vec<_> = waiting(storage, &topic).await.into_iter().map(|message| message.ttl).collect();
    assert_eq!(ttls, [Some(Duration::from_millis(1)), Some(Duration::from_hours(1))]);
    assert_eq!(promote_all(storage, &topic).await, 2);
    eventually(SOON, async || published(storage, &topic).await == ["2"]).await;
    assert_eq!(length(storage, &topic).await, 2);
}

pub(super) async fn a_repeat_of_a_message_for_later_returns_the_first_answer(ground: &Ground) {
    let (topic, storage) = (ground.topic(), &ground.storage);
    let once = |text: &'static str, fingerprint: u8, delivery| NewSchedule {
        message: keyed(&topic, json(text), "key", fingerprint),
        ..later(&topic, json(text), delivery)
    };
    let now = Delivery::At(storage.upkeep.now());
    let batch = vec![once("1", 1, now), once("1", 1, now)];
    let results: Vec<_> = storage.schedules.schedule(batch).await.into_iter().map(Result::unwrap).collect();
    assert!(!results[0].replayed && results[1].replayed);
    let repeats = async || {
        let repeat = schedule(storage, once("1", 1, now)).await.unwrap();
        let first = (results[0].id.clone(), results[0].due, true);
        assert_eq!((repeat.id, repeat.due, repeat.replayed), first);
        let reused = schedule(storage, once("2", 2, now)).await;
        assert!(matches!(reused, Err(StorageError::KeyReused)), "{reused:?}");
        let reused = append(storage, keyed(&topic, json("2"), "key", 2)).await;
        assert!(matches!(reused, Err(StorageError::KeyReused)), "{reused:?}");
    };
    repeats().await;
    assert_eq!(waiting(storage, &topic).await.len(), 1);
    assert_eq!(promote_all(storage, &topic).await, 1);
    repeats().await;
    assert_eq!(published(storage, &topic).await, ["1"]);
    // The key of a message that was published at once stands for that one.
    append(storage, keyed(&topic, json("3"), "other", 3)).await.unwrap();
    let idempotency = Some(Idempotency { key: "other".into(), fingerprint: [4; 16] });
    let message = NewMessage { idempotency, ..message(&topic, json("4")) };
    let reused = schedule(storage, NewSchedule { message, delivery: now, ttl: None }).await;
    assert!(matches!(reused, Err(StorageError::KeyReused)), "{reused:?}");
    assert_eq!(promote_all(storage, &topic).await, 0);
}

pub(super) async fn however_many_nodes_look_each_message_is_published_once(ground: &Ground) {
    const COUNT: usize = 600;

    let topic = ground.topic();
    let now = Delivery::At(ground.storage.upkeep.now());
    let batch = (0..COUNT).map(|number| later(&topic, json(number.to_string()), now)).collect();
    for result in ground.storage.schedules.schedule(batch).await {
        result.unwrap();
    }
    let mut storages = vec![ground.storage.clone()];
    if ground.has_server() {
        storages.extend([ground.under(LIMITS).await, ground.under(LIMITS).await]);
    }
    let mut tasks = JoinSet::new();
    for task in 0..12 {
        let (storage, topic) = (storages[task % storages.len()].clone(), topic.clone());
        tasks.spawn(async move { promote_all(&storage, &topic).await });
    }
    let counts: usize = tasks.join_all().await.into_iter().sum();
    assert_eq!(counts, COUNT);
    let texts = published(&ground.storage, &topic).await;
    assert_eq!(texts, (0..COUNT).map(|number| number.to_string()).collect::<Vec<_>>(), "in their order");
    assert_eq!(ground.storage.schedules.count_waiting().await.unwrap(), 0);
}

pub(super) async fn what_waits_goes_with_its_topic(ground: &Ground) {
    let (topic, storage) = (ground.topic(), &ground.storage);
    let now = Delivery::At(storage.upkeep.now());
    let first = schedule_text(storage, &topic, "1", now).await;
    schedule_text(storage, &topic, "2", Delivery::After(FAR)).await;
    storage.topics.delete(&topic).await.unwrap();
    assert_eq!(promote_one(storage, &topic).await, Promoted::default());
    append(storage, message(&topic, json("3"))).await.unwrap();
    assert_eq!(waiting(storage, &topic).await, []);
    assert!(!storage.schedules.cancel(&topic, &first.id).await.unwrap());
    assert_eq!(promote_all(storage, &topic).await, 0);
    assert_eq!(published(storage, &topic).await, ["3"]);
    let again = schedule_text(storage, &topic, "4", now).await;
    assert_ne!(again.id, first.id);
    assert_eq!(promote_all(storage, &topic).await, 1);
    assert_eq!(published(storage, &topic).await, ["3", "4"]);
}

pub(super) async fn schedules_past_the_limit_are_refused(ground: &Ground) {
    let limits = StorageLimits { schedules_max: 5, topic_schedules_max: 3, ..LIMITS };
    let storage = ground.under(limits).await;
    let far = Delivery::After(FAR);
    let of = async |topic: &TopicName, count: usize| {
        let mut refused = 0;
        for _ in 0..count {
            match schedule(&storage, later(topic, json("1"), far)).await {
                Ok(_) => {}
                Err(StorageError::SchedulesLimit) => refused += 1,
                Err(error) => panic!("{error}"),
            }
        }
        refused
    };
    let (one, other) = (ground.topic(), ground.topic());
    assert_eq!(of(&one, 4).await, 1, "of one topic");
    assert_eq!(of(&other, 3).await, 1, "of all");
    let waits = waiting(&storage, &one).await;
    assert!(storage.schedules.cancel(&one, &waits[0].id).await.unwrap());
    eventually(SOON, async || of(&other, 1).await == 0).await;
    assert_eq!((waiting(&storage, &one).await.len(), waiting(&storage, &other).await.len()), (2, 3));
}

pub(super) async fn a_message_for_later_creates_its_topic_only_if_asked(ground: &Ground) {
    let (topic, storage) = (ground.topic(), &ground.storage);
    let far = later(&topic, json("1"), Delivery::After(FAR));
    let careful = NewMessage { create_topic: false, ..far.message.clone() };
    let refused = schedule(storage, NewSchedule { message: careful.clone(), ..far.clone() }).await;
    assert!(matches!(refused, Err(StorageError::NoTopic)), "{refused:?}");
    let owned = NewMessage { owner: Some("ann/1".into()), ..far.message.clone() };
    schedule(storage, NewSchedule { message: owned, ..far.clone() }).await.unwrap();
    let described = storage.topics.describe(&topic).await.unwrap().topic;
    assert_eq!(described.owner_id.as_deref(), Some("ann/1"));
    schedule(storage, NewSchedule { message: careful, ..far }).await.unwrap();
    assert_eq!(waiting(storage, &topic).await.len(), 2);
}

pub(super) async fn topics_in_which_something_is_due_are_told(ground: &Ground) {
    let storage = &ground.storage;
    let (soon, far, none) = (ground.topic(), ground.topic(), ground.topic());
    schedule_text(storage, &soon, "1", Delivery::After(Duration::from_secs(2))).await;
    schedule_text(storage, &far, "1", Delivery::After(FAR)).await;
    let cancelled = schedule_text(storage, &none, "1", Delivery::After(Duration::from_secs(1))).await;
    storage.schedules.cancel(&none, &cancelled.id).await.unwrap();
    let within = async |within| storage.schedules.due_within(within, 10).await.unwrap();
    let told = within(Duration::from_secs(10)).await;
    let of_soon = told.iter().find(|(topic, _)| *topic == soon).expect("it is told");
    assert!(of_soon.1 <= Duration::from_secs(2), "{told:?}");
    assert!(told.iter().all(|(topic, _)| *topic != far), "{told:?}");
    assert_eq!(storage.schedules.due_within(Duration::from_secs(10), 1).await.unwrap().len(), 1);
    assert_eq!(storage.schedules.count_waiting().await.unwrap(), 2);
    // Whoever looks in vain is not told of it again.
    promote_one(storage, &none).await;
    assert!(within(Duration::from_secs(10)).await.iter().all(|(topic, _)| *topic != none));
    eventually(SOON, async || promote_all(storage, &soon).await == 1).await;
    assert_eq!(within(Duration::from_secs(10)).await, []);
    assert_eq!(within(FAR * 2).await.len(), 1);
    assert_eq!(storage.schedules.count_waiting().await.unwrap(), 1);
}

pub(super) async fn readers_are_told_of_what_is_published_when_it_is_due(ground: &Ground) {
    let (topic, storage) = (ground.topic(), &ground.storage);
    schedule_text(storage, &topic, "1", Delivery::At(storage.upkeep.now())).await;
    let scheduled = schedule_text(storage, &topic, "2", Delivery::After(FAR)).await;
    let mut heard = Heard::of(storage);
    promote_all(storage, &topic).await;
    assert_eq!(heard.told(), Some(topic.clone()));
    while heard.told().is_some() {}
    storage.schedules.publish_now(&topic, &scheduled.id, POLICY).await.unwrap();
    assert_eq!(heard.told(), Some(topic.clone()));
}

pub(super) async fn what_is_published_when_it_is_due_trims_its_topic(ground: &Ground) {
    let (topic, storage) = (ground.topic(), &ground.storage);
    let now = Delivery::At(storage.upkeep.now());
    let batch = (0..400).map(|number| later(&topic, json(number.to_string()), now)).collect();
    for result in storage.schedules.schedule(batch).await {
        result.unwrap();
    }
    let topics = std::slice::from_ref(&topic);
    for _ in 0..4 {
        storage.schedules.promote(topics, TopicPolicy::newest(10), &Never).await.remove(0).unwrap();
    }
    assert_eq!(waiting(storage, &topic).await, []);
    let length = length(storage, &topic).await;
    assert!((10..=300).contains(&length), "{length}");
}

pub(super) async fn a_group_is_told_how_many_messages_wait_for_later(ground: &Ground) {
    let of = Of::latest(ground, |_| {}).await;
    let storage = &ground.storage;
    let told = async || storage.work.group(&of.topic, &of.group).await.unwrap().scheduled;
    assert_eq!(told().await, 0);
    let mut ids = Vec::new();
    for _ in 0..3 {
        let new = later(&of.topic, json("1"), Delivery::After(FAR));
        ids.push(schedule(storage, new).await.unwrap().id);
    }
    assert_eq!(told().await, 3);
    let recurring = NewRecurring {
        name: RecurringName::parse("n").unwrap(),
        rule: RecurringRule { cron: "0 0 1 1 *".into(), timezone: "UTC".into() },
        message: message(&of.topic, json("1")),
        ttl: None,
    };
    storage.schedules.put_recurring(recurring, &Never).await.unwrap();
    assert_eq!(told().await, 3, "one that recurs does not count");
    assert!(storage.schedules.cancel(&of.topic, &ids[0]).await.unwrap());
    storage.schedules.publish_now(&of.topic, &ids[1], POLICY).await.unwrap();
    assert_eq!(told().await, 1);
    assert_eq!(storage.work.groups(&of.topic).await.unwrap()[0].scheduled, 1);
}
