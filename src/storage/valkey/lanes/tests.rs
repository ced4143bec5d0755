//! Lanes without a server: how batches form, what is refused, and what is sent again.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use tidemill_proto::{MessageId, Timestamp, TopicName};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::*;
use crate::storage::valkey::pipeline::PipelineResult;
use crate::storage::valkey::target::Target;
use crate::storage::{Appended, Body, TopicPolicy};

/// Turns that everything gets which can go on.
const TURNS: usize = 200;

/// Takes batches and answers them in order, one for each permit.
#[derive(Debug)]
struct Fake {
    sent: Mutex<Vec<Vec<String>>>,
    sent_again: Mutex<Vec<Vec<String>>>,
    answers: Semaphore,
    missing: Mutex<HashSet<TopicName>>,
    /// Topics that live elsewhere, what was handed on of them, and permits for that to be answered.
    moved: Mutex<HashSet<TopicName>>,
    handed_on: Mutex<Vec<Vec<String>>>,
    arrived: Arc<Semaphore>,
    is_up: AtomicBool,
}

impl Pipeline for Fake {
    fn is_up(&self) -> bool {
        self.is_up.load(Ordering::Relaxed)
    }

    fn down(&self) -> Failure {
        Failure::Down { server: "a:1".to_owned(), why: "it is down".to_owned() }
    }

    async fn send(&self, messages: Vec<NewMessage>) -> PipelineResult {
        self.sent.lock().push(texts(&messages));
        self.answers.acquire().await.expect("it is never closed").forget();
        let mut result = PipelineResult::default();
        for (place, message) in messages.into_iter().enumerate() {
            if self.moved.lock().contains(&message.topic) {
                result.outcomes.push(None);
                result.elsewhere.push((place, message));
            } else if self.missing.lock().contains(&message.topic) {
                result.outcomes.push(None);
                result.again.push((place, message));
            } else {
                result.outcomes.push(Some(Ok(appended(&message))));
                result.appended.push(message.topic);
            }
        }
        result
    }

    async fn send_again(&self, messages: Vec<NewMessage>) -> Vec<Outcome> {
        self.sent_again.lock().push(texts(&messages));
        messages.iter().map(|message| Ok(appended(message))).collect()
    }

    fn hand_on(&self, messages: Vec<NewMessage>) -> impl Future<Output = Vec<Outcome>> + Send + 'static {
        self.handed_on.lock().push(texts(&messages));
        let arrived = self.arrived.clone();
        async move {
            arrived.acquire().await.expect("it is never closed").forget();
            messages.iter().map(|message| Ok(appended(message))).collect()
        }
    }
}

/// A message's id is the number that it carries.
fn appended(message: &NewMessage) -> Appended {
    let number = text(message).parse().expect("a number");
    Appended { id: MessageId::new(number, 0), timestamp: message.timestamp, replayed: false }
}

fn text(message: &NewMessage) -> String {
    String::from_utf8_lossy(&message.body.payload).into_owned()
}

fn texts(messages: &[NewMessage]) -> Vec<String> {
    messages.iter().map(text).collect()
}

fn numbers(range: std::ops::Range<u64>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

fn topic(name: &str) -> TopicName {
    TopicName::parse(name).expect("a name")
}

fn messages(name: &str, range: std::ops::Range<u64>) -> Vec<NewMessage> {
    let message = |number: u64| NewMessage {
        topic: topic(name),
        body: Body {
            payload: Bytes::from(number.to_string()),
            content_type: None,
            metadata: None,
            order_key: None,
        },
        timestamp: Timestamp::from_millis(0),
        expires_at: None,
        idempotency: None,
        expected_last: None,
        unique: None,
        fence: None,
        create_topic: true,
        owner: None,
        policy: TopicPolicy::newest(1),
    };
    range.map(message).collect()
}

/// Lanes before a fake, and the calls that wait.
struct Test {
    fake: Arc<Fake>,
    lanes: Arc<Lanes>,
    tracker: TaskTracker,
    token: CancellationToken,
}

impl Test {
    fn new(change: impl FnOnce(&mut ValkeyOptions)) -> Self {
        let mut options = ValkeyOptions::new(Target::parse("redis://nowhere").expect("a URL"));
        change(&mut options);
        let fake = Arc::new(Fake {
            sent: Mutex::default(),
            sent_again: Mutex::default(),
            answers: Semaphore::new(0),
            missing: Mutex::default(),
            moved: Mutex::default(),
            handed_on: Mutex::default(),
            arrived: Arc::new(Semaphore::new(0)),
            is_up: AtomicBool::new(true),
        });
        let (tracker, token) = (TaskTracker::new(), CancellationToken::new());
        let lanes = Arc::new(Lanes::start(&fake, &options, &tracker, &token));
        Self { fake, lanes, tracker, token }
    }

    /// Begins a call; what can go on has gone on when this returns.
    async fn append(&self, batch: Vec<NewMessage>) -> JoinHandle<Vec<Outcome>> {
        let lanes = self.lanes.clone();
        let call = self.tracker.spawn(async move { lanes.append(batch).await });
        self.settle().await;
        call
    }

    /// Begins a call for each number.
    async fn append_each(&self, name: &str, range: std::ops::Range<u64>) -> Vec<JoinHandle<Vec<Outcome>>> {
        let mut calls = Vec::new();
        for number in range {
            calls.push(self.append(messages(name, number..number + 1)).await);
        }
        calls
    }

    /// Has so many pipelines answered.
    async fn answer(&self, pipelines: usize) {
        self.fake.answers.add_permits(pipelines);
        self.settle().await;
    }

    async fn settle(&self) {
        for _ in 0..TURNS {
            yield_now().await;
        }
    }

    fn sent(&self) -> Vec<Vec<String>> {
        self.fake.sent.lock().clone()
    }

    async fn stop(self) {
        self.token.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }
}

/// Returns the numbers of the messages of a call, all of which were appended.
async fn appended_by(call: JoinHandle<Vec<Outcome>>) -> Vec<u64> {
    let outcomes = call.await.expect("a call ends");
    outcomes.into_iter().map(|outcome| outcome.expect("an id").id.ms).collect()
}

async fn refusal_of(call: JoinHandle<Vec<Outcome>>) -> StorageError {
    let mut outcomes = call.await.expect("a call ends");
    outcomes.pop().expect("an outcome").expect_err("it is refused")
}

#[tokio::test]
async fn a_lane_at_rest_sends_at_once_and_what_arrives_meanwhile_goes_together() {
    let test = Test::new(|_| {});
    let first = test.append(messages("t", 0..1)).await;
    assert_eq!(test.sent(), [numbers(0..1)]);
    let calls = test.append_each("t", 1..6).await;
    assert_eq!(test.sent().len(), 1, "five are not enough for a pipeline behind");
    test.answer(1).await;
    assert_eq!(test.sent(), [numbers(0..1), numbers(1..6)]);
    assert_eq!(appended_by(first).await, [0]);
    test.answer(1).await;
    for (number, call) in (1..6).zip(calls) {
        assert_eq!(appended_by(call).await, [number], "each is answered from its own outcome");
    }
    test.stop().await;
}

#[tokio::test]
async fn enough_are_sent_behind_what_is_under_way_and_never_more_than_three_pipelines() {
    let test = Test::new(|_| {});
    let mut calls = vec![test.append(messages("t", 0..1)).await];
    calls.extend(test.append_each("t", 1..12).await);
    assert_eq!(test.sent().len(), 1);
    calls.extend(test.append_each("t", 12..13).await);
    assert_eq!(test.sent()[1..], [numbers(1..13)]);
    calls.push(test.append(messages("t", 13..413)).await);
    assert_eq!(test.sent()[2..], [numbers(13..413)], "a call is not split");
    calls.push(test.append(messages("t", 413..613)).await);
    assert_eq!(test.sent().len(), 3);
    test.answer(1).await;
    assert_eq!(test.sent()[3..], [numbers(413..613)]);
    test.answer(3).await;
    let mut all = Vec::new();
    for call in calls {
        all.extend(appended_by(call).await);
    }
    assert_eq!(all, (0..613).collect::<Vec<_>>());
    test.stop().await;
}

#[tokio::test]
async fn a_pipeline_is_bounded_and_what_is_left_keeps_its_order() {
    let test = Test::new(|_| {});
    let mut calls = vec![test.append(messages("t", 0..1)).await];
    test.answer(1).await;
    // Three pipelines are under way, so the rest waits.
    for range in [1..13, 13..25, 25..37] {
        calls.push(test.append(messages("t", range)).await);
    }
    for start in (37..1_237).step_by(100) {
        calls.push(test.append(messages("t", start..start + 100)).await);
    }
    assert_eq!(test.sent().len(), 4);
    test.answer(100).await;
    let sent = test.sent();
    assert_eq!(sent[4..].iter().map(Vec::len).collect::<Vec<_>>(), [600, 600], "a call is taken whole");
    assert_eq!(sent.concat(), numbers(0..1_237));
    for call in calls {
        appended_by(call).await;
    }
    test.stop().await;
}

#[tokio::test]
async fn a_call_over_many_topics_is_answered_in_its_order() {
    let test = Test::new(|_| {});
    let batch: Vec<NewMessage> =
        (0..64).flat_map(|number| messages(&format!("t-{number}"), number..number + 1)).collect();
    let call = test.append(batch).await;
    assert!(test.sent().len() > 1, "more than one lane");
    test.answer(LANES).await;
    assert_eq!(appended_by(call).await, (0..64).collect::<Vec<_>>());
    test.stop().await;
}

#[tokio::test]
async fn what_waited_too_long_is_not_sent() {
    let test = Test::new(|options| options.timeout = Duration::ZERO);
    let late = test.append(messages("t", 0..2)).await;
    assert!(matches!(refusal_of(late).await, StorageError::Unavailable(_)));
    assert!(test.sent().is_empty());
    test.stop().await;
}

#[tokio::test]
async fn what_waits_while_the_connection_goes_down_is_not_sent() {
    let test = Test::new(|_| {});
    let first = test.append(messages("t", 0..1)).await;
    let waiting = test.append_each("t", 1..4).await;
    test.fake.is_up.store(false, Ordering::Relaxed);
    test.answer(1).await;
    assert_eq!(appended_by(first).await, [0]);
    for call in waiting {
        assert!(matches!(refusal_of(call).await, StorageError::Unavailable(_)));
    }
    assert_eq!(test.sent().len(), 1);
    test.stop().await;
}

#[tokio::test]
async fn more_than_may_wait_is_refused_and_room_comes_back() {
    let test = Test::new(|options| options.queue_messages_max = 3);
    let large = test.append(messages("t", 0..5)).await;
    assert_eq!(test.sent(), [numbers(0..5)], "a batch that is larger passes alone");
    assert!(matches!(refusal_of(test.append(messages("t", 5..6)).await).await, StorageError::Overloaded));
    test.answer(1).await;
    assert_eq!(appended_by(large).await, [0, 1, 2, 3, 4]);
    test.fake.answers.add_permits(2);
    let calls = test.append_each("t", 6..8).await;
    for (number, call) in (6..).zip(calls) {
        assert_eq!(appended_by(call).await, [number]);
    }
    test.stop().await;
}

#[tokio::test]
async fn messages_that_found_no_topic_are_sent_again_behind_everything_under_way() {
    let test = Test::new(|_| {});
    test.fake.missing.lock().insert(topic("t"));
    let first = test.append(messages("t", 0..1)).await;
    let behind = test.append(messages("t", 1..14)).await;
    test.answer(1).await;
    assert_eq!(*test.fake.sent_again.lock(), [[""; 0]; 0], "the second pipeline is under way");
    test.answer(1).await;
    assert_eq!(*test.fake.sent_again.lock(), [numbers(0..14)]);
    assert_eq!(appended_by(first).await, [0]);
    assert_eq!(appended_by(behind).await, (1..14).collect::<Vec<_>>());
    test.stop().await;
}

#[tokio::test]
async fn a_message_is_not_sent_again_behind_a_later_one_of_its_topic() {
    let test = Test::new(|_| {});
    test.fake.missing.lock().insert(topic("t"));
    let first = test.append(messages("t", 0..1)).await;
    let behind = test.append(messages("t", 1..14)).await;
    test.answer(1).await;
    // Somebody else makes the topic at this moment.
    test.fake.missing.lock().clear();
    test.answer(1).await;
    assert!(matches!(refusal_of(first).await, StorageError::Unavailable(_)));
    assert_eq!(appended_by(behind).await, (1..14).collect::<Vec<_>>());
    assert_eq!(test.fake.sent_again.lock().concat(), [""; 0]);
    test.stop().await;
}

#[tokio::test]
async fn what_was_taken_when_the_lanes_end_is_not_known() {
    let test = Test::new(|_| {});
    let taken = test.append(messages("t", 0..1)).await;
    test.token.cancel();
    assert!(matches!(refusal_of(taken).await, StorageError::Indeterminate(_)));
    assert!(matches!(refusal_of(test.append(messages("t", 1..2)).await).await, StorageError::Unavailable(_)));
    test.stop().await;
}

#[test]
fn counts_of_what_waits_begin_at_nothing() {
    let queued = Queued::default();
    assert_eq!(queued.next(0), Step::Rest);
    assert_eq!(queued.next(1), Step::AnswerOrEnough);
    queued.put(12);
    assert_eq!(queued.next(1), Step::Send);
}

#[tokio::test(start_paused = true)]
async fn what_lives_elsewhere_is_handed_on_in_order_and_holds_up_nothing() {
    let test = Test::new(|_| {});
    test.fake.moved.lock().insert(topic("moved"));
    let mut calls = test.append_each("moved", 0..3).await;
    let other = test.append(messages("stays", 3..4)).await;
    // A mark behind them is passed when all of them were answered or handed on.
    let passed = test.lanes.passed(0..4);
    test.answer(4).await;
    for passed in passed {
        passed.await.expect("the mark is told");
    }
    assert_eq!(test.fake.handed_on.lock().concat(), numbers(0..3));
    assert!(other.is_finished(), "another topic waits for nothing");
    assert!(calls.iter().all(|call| !call.is_finished()));
    test.fake.arrived.add_permits(3);
    for (number, call) in calls.drain(..).enumerate() {
        let outcomes = call.await.expect("no panic");
        let id = outcomes[0].as_ref().expect("it was appended").id;
        assert_eq!(id, MessageId::new(number as u64, 0));
    }
}
