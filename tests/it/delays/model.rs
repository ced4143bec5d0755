//! Random operations on schedules, against a model: each waits, was published once, or was cancelled; never none of
//! these, and never two.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tidemill::proto::page::Order;
use tidemill::proto::{Delivery, ScheduleId, Timestamp, TopicName};
use tidemill::storage::{NewSchedule, Recurrence, RecurringRule, Storage, StorageError, WaitingRange};

use crate::support::ground::{Ground, POLICY, json, message, read_all, texts};
use crate::support::length;

#[derive(Clone, Debug)]
enum Operation {
    /// Messages: whether each is due at once.
    Schedule(Vec<bool>),
    Cancel(prop::sample::Index),
    Now(prop::sample::Index),
    Promote,
    /// Several at once.
    PromoteTogether,
    Append,
    Delete,
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        6 => vec(prop::bool::weighted(0.4), 1..12).prop_map(Operation::Schedule),
        3 => any::<prop::sample::Index>().prop_map(Operation::Cancel),
        3 => any::<prop::sample::Index>().prop_map(Operation::Now),
        3 => Just(Operation::Promote),
        1 => Just(Operation::PromoteTogether),
        1 => Just(Operation::Append),
        1 => Just(Operation::Delete),
    ]
}

#[derive(Debug)]
struct Never;

impl Recurrence for Never {
    fn next(&self, _: &RecurringRule, _: Timestamp) -> Option<Timestamp> {
        None
    }
}

/// What is to be true of the topic.
#[derive(Debug, Default)]
struct Model {
    exists: bool,
    number: u32,
    /// Those that wait, in the order of their ids: the payload, and whether it is due.
    waiting: BTreeMap<ScheduleId, (String, bool)>,
    published: Vec<String>,
    /// Every id that was given.
    given: Vec<ScheduleId>,
}

impl Model {
    fn next(&mut self) -> String {
        self.number += 1;
        self.number.to_string()
    }

    /// Publishes what is due.
    fn promote(&mut self) {
        let due: Vec<ScheduleId> =
            self.waiting.iter().filter(|(_, (_, due))| *due).map(|(id, _)| id.clone()).collect();
        for id in due {
            self.published.extend(self.waiting.remove(&id).map(|(text, _)| text));
        }
    }
}

async fn apply(storage: &Storage, topic: &TopicName, model: &mut Model, operation: Operation) {
    let promote = async || {
        let promoted = storage.schedules.promote(std::slice::from_ref(topic), POLICY, &Never).await.remove(0);
        promoted.expect("a look").late.len()
    };
    let chosen = |model: &Model, index: prop::sample::Index| {
        (!model.given.is_empty()).then(|| index.get(&model.given).clone())
    };
    match operation {
        Operation::Schedule(batch) => {
            // All that is due is due since one time, so that they come in the order in which they were scheduled.
            let delay = |is_due: bool| if is_due { Duration::ZERO } else { Duration::from_hours(24 * 365) };
            let new: Vec<_> = batch.iter().map(|is_due| (model.next(), *is_due)).collect();
            let schedule = |(text, is_due): &(String, bool)| NewSchedule {
                message: message(topic, json(text.clone())),
                delivery: Delivery::After(delay(*is_due)),
                ttl: None,
            };
            let results = storage.schedules.schedule(new.iter().map(schedule).collect()).await;
            model.exists = true;
            for (new, result) in new.into_iter().zip(results) {
                let id = result.expect("it is kept").id;
                assert!(!model.given.contains(&id), "{id} was given before");
                model.given.push(id.clone());
                model.waiting.insert(id, new);
            }
        }
        Operation::Cancel(index) => {
            let Some(id) = chosen(model, index) else { return };
            let cancelled = storage.schedules.cancel(topic, &id).await;
            if !model.exists {
                return assert!(matches!(cancelled, Err(StorageError::NoTopic)), "{cancelled:?}");
            }
            assert_eq!(cancelled.expect("an answer"), model.waiting.remove(&id).is_some());
        }
        Operation::Now(index) => {
            let Some(id) = chosen(model, index) else { return };
            let published = storage.schedules.publish_now(topic, &id, POLICY).await;
            if !model.exists {
                return assert!(matches!(published, Err(StorageError::NoTopic)), "{published:?}");
            }
            let waited = model.waiting.remove(&id);
            assert_eq!(published.expect("an answer").is_some(), waited.is_some());
            model.published.extend(waited.map(|(text, _)| text));
        }
        Operation::Promote => {
            let before = model.published.len();
            model.promote();
            assert_eq!(promote().await, model.published.len() - before);
        }
        Operation::PromoteTogether => {
            let before = model.published.len();
            model.promote();
            let counts = futures_util::future::join_all((0..4).map(|_| promote())).await;
            assert_eq!(counts.into_iter().sum::<usize>(), model.published.len() - before);
        }
        Operation::Append => {
            let text = model.next();
            storage.messages.append(vec![message(topic, json(text.clone()))]).await.remove(0).expect("kept");
            model.exists = true;
            model.published.push(text);
        }
        Operation::Delete => {
            let deleted = storage.topics.delete(topic).await;
            assert_eq!(deleted.is_ok(), model.exists, "{deleted:?}");
            model.exists = false;
            model.waiting.clear();
            model.published.clear();
        }
    }
}

async fn compare(storage: &Storage, topic: &TopicName, model: &Model) {
    let range = WaitingRange { after: None, limit: 1_000, bytes_max: 1_000_000 };
    let page = storage.schedules.waiting(topic, range).await;
    if !model.exists {
        return assert!(matches!(page, Err(StorageError::NoTopic)), "{page:?}");
    }
    let page = page.expect("a page");
    assert_eq!(page.next, None);
    let mut waiting: Vec<_> = page.messages.iter().map(|one| (&one.id, &*one.body.payload)).collect();
    waiting.sort_unstable();
    let expected: Vec<_> = model.waiting.iter().map(|(id, (text, _))| (id, text.as_bytes())).collect();
    assert_eq!(waiting, expected);
    assert!(page.messages.is_sorted_by_key(|one| one.due), "what is due first is listed first");
    assert_eq!(texts(&read_all(storage, topic, Order::Asc, 100).await), model.published);
    let count = storage.schedules.count_waiting().await.expect("a count");
    assert_eq!(count, model.waiting.len() as u64);
}

fn run(ground: impl Future<Output = Option<Ground>>, cases: u32) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let Some(ground) = runtime.block_on(ground) else { return };
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&vec(operation(), 1..40), |operations| {
            runtime.block_on(async {
                let (topic, mut model) = (ground.topic(), Model::default());
                for operation in operations {
                    apply(&ground.storage, &topic, &mut model, operation).await;
                    compare(&ground.storage, &topic, &model).await;
                }
                if model.exists {
                    ground.storage.topics.delete(&topic).await.expect("it is there");
                }
            });
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn memory_does_what_the_model_says() {
    run(Ground::memory(), length::pick(60, 2_000));
}

#[cfg(feature = "valkey")]
#[test]
fn valkey_does_what_the_model_says() {
    run(Ground::on(crate::support::server::Kind::Valkey), length::pick(25, 500));
}
