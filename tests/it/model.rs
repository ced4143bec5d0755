//! Random sequences of operations on a backend and on a model of it, compared after every step.
//!
//! The model knows one topic. It knows a limit of messages where the backend keeps it exactly; how an
//! approximate one behaves is a property of the conformance suite. Failing seeds are kept in
//! `proptest-regressions`.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tidemill::clock::Clock;
use tidemill::proto::page::Order;
use tidemill::proto::topics::TopicUpdate;
use tidemill::proto::{GapReason, MessageId, Timestamp, TopicName};
use tidemill::storage::{
    Appended, Body, NewMessage, Range, Storage, StorageError, StoredMessage, TopicPolicy, Trim,
};

use crate::support::ground::{Ground, POLICY, json, keyed, message, read_all};
use crate::support::length;

mod buckets;
mod gaps;

/// When a message expires.
#[derive(Clone, Copy, Debug)]
enum Life {
    Endless,
    /// In an hour, which no test reaches.
    Hour,
    /// In seconds, which jumps of the clock reach.
    Seconds(u64),
    Over,
}

#[derive(Clone, Debug)]
struct New {
    /// The payload is this number, behind so many blanks.
    payload: u32,
    blanks: usize,
    metadata: bool,
    /// A key and what tells its message from others.
    key: Option<(u8, u8)>,
    life: Life,
}

/// An id, told by its relation to those that were given so far.
#[derive(Clone, Copy, Debug)]
enum Point {
    Min,
    Max,
    Given(prop::sample::Index),
    JustBefore(prop::sample::Index),
    JustAfter(prop::sample::Index),
}

#[derive(Clone, Debug)]
enum Operation {
    /// Messages, and whether they create the topic: a relay has one setting for all.
    Append(Vec<New>, bool),
    Read {
        order: Order,
        after: Option<Point>,
        who: Who,
        limit: usize,
        bytes_max: usize,
    },
    Get(Point),
    Remove(Point),
    TrimKeep(u64),
    TrimBefore(Point),
    Create(Option<String>),
    Update(Option<String>),
    Delete,
    /// Turns the clock, where it can be turned. Altogether less than the idempotency window.
    Jump(i64),
}

/// Who reads.
#[derive(Clone, Copy, Debug)]
enum Who {
    /// Who comes from anywhere.
    Anybody,
    /// Who has a bare id.
    Reader,
    /// Who has stayed, and has counted.
    Follower,
}

fn point() -> impl Strategy<Value = Point> {
    prop_oneof![
        1 => Just(Point::Min),
        1 => Just(Point::Max),
        6 => any::<prop::sample::Index>().prop_map(Point::Given),
        2 => any::<prop::sample::Index>().prop_map(Point::JustBefore),
        2 => any::<prop::sample::Index>().prop_map(Point::JustAfter),
    ]
}

fn new() -> impl Strategy<Value = New> {
    let life = prop_oneof![
        5 => Just(Life::Endless),
        1 => Just(Life::Hour),
        2 => (1..10_u64).prop_map(Life::Seconds),
        2 => Just(Life::Over),
    ];
    let key = prop::option::weighted(0.4, (0..6_u8, 0..2_u8));
    let blanks = prop_oneof![20 => Just(0), 2 => 0..500_usize, 1 => 0..70_000_usize];
    (any::<u32>(), blanks, any::<bool>(), key, life).prop_map(|(payload, blanks, metadata, key, life)| New {
        payload,
        blanks,
        metadata,
        key,
        life,
    })
}

fn operation() -> impl Strategy<Value = Operation> {
    let order = prop_oneof![Just(Order::Asc), Just(Order::Desc)];
    let bytes_max = prop_oneof![Just(usize::MAX >> 1), 0..200_usize];
    let who = prop_oneof![Just(Who::Anybody), Just(Who::Reader), Just(Who::Follower)];
    let text = || prop::option::of("[a-zé\"\n]{1,8}");
    prop_oneof![
        8 => (vec(new(), 0..20), prop::bool::weighted(0.8))
            .prop_map(|(batch, create_topic)| Operation::Append(batch, create_topic)),
        6 => (order, prop::option::of(point()), who, 1..30_usize, bytes_max).prop_map(
            |(order, after, who, limit, bytes_max)| Operation::Read { order, after, who, limit, bytes_max }
        ),
        2 => point().prop_map(Operation::Get),
        2 => point().prop_map(Operation::Remove),
        1 => (0..60_u64).prop_map(Operation::TrimKeep),
        1 => point().prop_map(Operation::TrimBefore),
        1 => text().prop_map(Operation::Create),
        1 => text().prop_map(Operation::Update),
        1 => Just(Operation::Delete),
        2 => (-10_000..10_000_i64).prop_map(Operation::Jump),
    ]
}

/// What the topic is to be, where it exists.
#[derive(Debug, Default)]
struct Topic {
    description: Option<String>,
    messages: Vec<(StoredMessage, Option<Timestamp>)>,
    keys: HashMap<u8, (u8, Appended)>,
    /// How many ids were given before it was made.
    given_before: usize,
    /// What was deleted by request.
    removed: HashSet<MessageId>,
}

/// The model beside the backend it is compared with.
struct Model<'a> {
    storage: &'a Storage,
    clock: &'a Clock,
    /// Messages that the topic keeps.
    policy: TopicPolicy,
    name: TopicName,
    topic: Option<Topic>,
    /// Every id there ever was, also in topics of this name before.
    given: Vec<MessageId>,
    /// Counts the topics of this name: what a deleted topic leaves of its keys is not promised, so
    /// each has keys of its own.
    incarnation: u32,
}

/// Answers, as far as they are promised.
fn kind<T>(result: Result<T, StorageError>) -> Result<T, String> {
    result.map_err(|error| error.to_string())
}

fn refused<T>(error: &StorageError) -> Result<T, String> {
    Err(error.to_string())
}

impl Model<'_> {
    fn resolve(&self, point: Point) -> MessageId {
        let given = |index: prop::sample::Index| match self.given.len() {
            0 => MessageId::new(1, 1),
            len => self.given[index.index(len)],
        };
        match point {
            Point::Min => MessageId::MIN,
            Point::Max => MessageId::MAX,
            Point::Given(index) => given(index),
            Point::JustBefore(index) => given(index).previous().unwrap_or(MessageId::MIN),
            Point::JustAfter(index) => given(index).next().unwrap_or(MessageId::MAX),
        }
    }

    fn live(&self, topic: &Topic) -> Vec<StoredMessage> {
        let now = self.clock.now();
        let live = |(_, expires_at): &&(_, Option<Timestamp>)| expires_at.is_none_or(|at| at > now);
        topic.messages.iter().filter(live).map(|(message, _)| message.clone()).collect()
    }

    fn to_message(&self, new: &New, create_topic: bool) -> NewMessage {
        let mut body: Body = json(format!("{}{}", " ".repeat(new.blanks), new.payload));
        body.metadata = new.metadata.then(|| format!("{{\"n\":{}}}", new.payload).into());
        let plain = match new.key {
            Some((key, print)) => keyed(&self.name, body, &format!("{}:{key}", self.incarnation), print),
            None => message(&self.name, body),
        };
        let now = self.clock.now();
        let expires_at = match new.life {
            Life::Endless => None,
            Life::Hour => Some(now.saturating_add(Duration::from_hours(1))),
            Life::Seconds(seconds) => Some(now.saturating_add(Duration::from_secs(seconds))),
            Life::Over => Some(now),
        };
        NewMessage { expires_at, create_topic, policy: self.policy, ..plain }
    }

    async fn append(&mut self, batch: &[New], create_topic: bool) {
        let messages: Vec<NewMessage> = batch.iter().map(|new| self.to_message(new, create_topic)).collect();
        let results = self.storage.messages.append(messages.clone()).await;
        assert_eq!(results.len(), messages.len());
        for ((new, message), result) in batch.iter().zip(messages).zip(results) {
            let result = kind(result);
            if self.topic.is_none() && !create_topic {
                assert_eq!(result, refused(&StorageError::NoTopic));
                continue;
            }
            let given_before = self.given.len();
            let topic = self.topic.get_or_insert_with(|| Topic { given_before, ..Topic::default() });
            if let Some((key, print)) = new.key
                && let Some((first_print, first)) = topic.keys.get(&key)
            {
                let replay = Ok(Appended { replayed: true, ..*first });
                let expected = if print == *first_print { replay } else { refused(&StorageError::KeyReused) };
                assert_eq!(result, expected);
                continue;
            }
            let appended = result.expect("the message is appended");
            assert_eq!((appended.timestamp, appended.replayed), (message.timestamp, false));
            let last = topic.messages.last().map_or(MessageId::MIN, |(message, _)| message.id);
            assert!(appended.id > last, "{} after {last}", appended.id);
            if let Some((key, print)) = new.key {
                topic.keys.insert(key, (print, appended));
            }
            let NewMessage { timestamp, body, expires_at, .. } = message;
            let messages_max = usize::try_from(self.policy.number).unwrap();
            topic.messages.push((StoredMessage { id: appended.id, timestamp, expires_at, body }, expires_at));
            self.given.push(appended.id);
            topic.messages.drain(..topic.messages.len().saturating_sub(messages_max));
        }
    }

    async fn read(&self, range: Range) {
        let result = kind(self.storage.messages.read(&self.name, range).await);
        let Some(topic) = &self.topic else {
            return assert_eq!(result, refused(&StorageError::NoTopic));
        };
        let read = result.expect("the topic exists");
        self.check_gap(topic, range, read.gap.as_ref());
        let starts_over = read.gap.as_ref().is_some_and(|gap| gap.reason != GapReason::Trimmed);
        let mut live = self.live(topic);
        live.retain(|message| match (range.order, range.after.filter(|_| !starts_over)) {
            (_, None) => true,
            (Order::Asc, Some(after)) => message.id > after,
            (Order::Desc, Some(after)) => message.id < after,
        });
        if range.order == Order::Desc {
            live.reverse();
        }
        let mut bytes = 0;
        let fitting = live.iter().take(range.limit).enumerate().take_while(|(at, message)| {
            bytes += message.body.len_bytes();
            *at == 0 || bytes <= range.bytes_max
        });
        let messages: Vec<StoredMessage> = fitting.map(|(_, message)| message.clone()).collect();
        let next = messages.last().map(|message| message.id);
        assert_eq!((read.messages, read.next), (messages, next));
        assert!(read.reached >= read.next || range.order == Order::Desc);
    }

    async fn remove(&mut self, id: MessageId) {
        let result = kind(self.storage.messages.remove(&self.name, id).await);
        let Some(topic) = &mut self.topic else {
            return assert_eq!(result, refused(&StorageError::NoTopic));
        };
        let before = topic.messages.len();
        topic.messages.retain(|(message, _)| message.id != id);
        let is_removed = topic.messages.len() < before;
        if is_removed {
            topic.removed.insert(id);
        }
        assert_eq!(result, Ok(is_removed));
    }

    async fn get(&self, id: MessageId) {
        let result = kind(self.storage.messages.get(&self.name, id).await);
        let expected = match &self.topic {
            None => refused(&StorageError::NoTopic),
            Some(topic) => Ok(self.live(topic).into_iter().find(|message| message.id == id)),
        };
        assert_eq!(result, expected);
    }

    async fn trim(&mut self, trim: Trim) {
        let result = kind(self.storage.messages.trim(&self.name, trim).await);
        let Some(topic) = &mut self.topic else {
            return assert_eq!(result, refused(&StorageError::NoTopic));
        };
        let count = match trim {
            Trim::Keep(keep) => topic.messages.len().saturating_sub(usize::try_from(keep).unwrap()),
            Trim::Before(id) => topic.messages.iter().filter(|(message, _)| message.id < id).count(),
        };
        topic.messages.drain(..count);
        assert_eq!(result, Ok(count as u64));
    }

    async fn create(&mut self, description: Option<String>) {
        let update = TopicUpdate {
            description: description.clone(),
            retention_seconds: None,
            ..TopicUpdate::default()
        };
        let result = kind(self.storage.topics.create(&self.name, update, None).await);
        if self.topic.is_some() {
            return assert_eq!(result, refused(&StorageError::TopicExists));
        }
        assert_eq!(result.map(|topic| topic.description), Ok(description.clone()));
        self.topic = Some(Topic { description, given_before: self.given.len(), ..Topic::default() });
    }

    async fn update(&mut self, description: Option<String>) {
        let update = TopicUpdate {
            description: description.clone(),
            retention_seconds: None,
            ..TopicUpdate::default()
        };
        let result = kind(self.storage.topics.update(&self.name, update.into()).await);
        let Some(topic) = &mut self.topic else {
            return assert_eq!(result.map(drop), refused(&StorageError::NoTopic));
        };
        assert_eq!(result.map(|topic| topic.description), Ok(description.clone()));
        topic.description = description;
    }

    async fn delete(&mut self) {
        let result = kind(self.storage.topics.delete(&self.name).await);
        let expected = if self.topic.take().is_some() { Ok(()) } else { refused(&StorageError::NoTopic) };
        assert_eq!(result, expected);
        self.incarnation += 1;
    }

    async fn apply(&mut self, operation: Operation) {
        match operation {
            Operation::Append(batch, create_topic) => self.append(&batch, create_topic).await,
            Operation::Read { order, after, who, limit, bytes_max } => {
                let after = after.map(|point| self.resolve(point));
                let gap_check = self.gap_check(order, after, who).await;
                self.read(Range { order, after, gap_check, limit, bytes_max }).await;
            }
            Operation::Get(point) => self.get(self.resolve(point)).await,
            Operation::Remove(point) => self.remove(self.resolve(point)).await,
            Operation::TrimKeep(keep) => self.trim(Trim::Keep(keep)).await,
            Operation::TrimBefore(point) => self.trim(Trim::Before(self.resolve(point))).await,
            Operation::Create(description) => self.create(description).await,
            Operation::Update(description) => self.update(description).await,
            Operation::Delete => self.delete().await,
            Operation::Jump(ms) => {
                self.clock
                    .set(Timestamp::from_millis(self.clock.now().as_millis().saturating_add_signed(ms)));
            }
        }
    }

    /// Compares everything that can be seen.
    async fn compare(&self) {
        let described = kind(self.storage.topics.describe(&self.name).await);
        let Some(topic) = &self.topic else {
            return assert_eq!(described, refused(&StorageError::NoTopic));
        };
        let state = described.expect("the topic exists");
        let ids = || topic.messages.iter().map(|(message, _)| message.id);
        assert_eq!(state.length, topic.messages.len() as u64);
        assert_eq!((state.first_id, state.last_id), (ids().next(), ids().next_back()));
        assert_eq!(state.topic.description, topic.description);
        assert_eq!(read_all(self.storage, &self.name, Order::Asc, 1_000).await, self.live(topic));
    }
}

async fn behaves(
    storage: &Storage,
    clock: &Clock,
    policy: TopicPolicy,
    name: TopicName,
    operations: Vec<Operation>,
) {
    let mut model = Model { storage, clock, policy, name, topic: None, given: Vec::new(), incarnation: 0 };
    for operation in operations {
        model.apply(operation).await;
        model.compare().await;
    }
}

fn runner(cases: u32) -> TestRunner {
    TestRunner::new(Config { cases, source_file: Some(file!()), ..Config::default() })
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

fn memory_behaves(policy: TopicPolicy) {
    let runtime = runtime();
    let test = |operations| {
        let clock = Clock::manual(Timestamp::from_millis(1_700_000_000_000));
        let ground = Ground::memory_at(clock.clone());
        let behaving = async {
            behaves(&ground.storage, &clock, policy, ground.topic(), operations).await;
        };
        runtime.block_on(behaving);
        Ok(())
    };
    runner(length::pick(250, 20_000)).run(&vec(operation(), 1..50), test).unwrap();
}

#[test]
fn memory_behaves_like_the_model() {
    memory_behaves(POLICY);
}

#[test]
fn memory_behaves_like_the_model_when_topics_are_short() {
    memory_behaves(TopicPolicy::newest(70));
}

#[cfg(feature = "valkey")]
fn server_behaves_like_the_model(ground: impl Future<Output = Option<Ground>>) {
    let runtime = runtime();
    let Some(ground) = runtime.block_on(ground) else { return };
    // The server's clock cannot be turned, so nothing may expire while a test runs.
    let operations = vec(operation(), 1..40).prop_map(|mut operations| {
        for operation in &mut operations {
            if let Operation::Append(batch, _) = operation {
                for new in batch {
                    if let Life::Seconds(_) = new.life {
                        new.life = Life::Hour;
                    }
                }
            }
        }
        operations
    });
    let test = |operations| {
        runtime.block_on(behaves(&ground.storage, &ground.clock, POLICY, ground.topic(), operations));
        Ok(())
    };
    runner(length::pick(48, 2_000)).run(&operations, test).unwrap();
}

#[cfg(feature = "valkey")]
#[test]
fn valkey_behaves_like_the_model() {
    server_behaves_like_the_model(Ground::on(crate::support::server::Kind::Valkey));
}

#[cfg(feature = "valkey")]
#[test]
fn redis_behaves_like_the_model() {
    server_behaves_like_the_model(Ground::on(crate::support::server::Kind::Redis));
}

#[cfg(feature = "valkey")]
#[test]
fn a_cluster_behaves_like_the_model() {
    server_behaves_like_the_model(Ground::in_cluster());
}

#[cfg(feature = "valkey")]
#[test]
fn servers_by_pattern_behave_like_the_model() {
    server_behaves_like_the_model(Ground::placed());
}
