//! Publishers, on every way there is, with idempotency keys and without: what they sent, and what they
//! were told.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tidemill::proto::{Code, MessageId, TopicName};
use tokio::time::{Instant, sleep, timeout};

use super::{DEADLINE, Door, World};
use crate::support::dice::Dice;
use crate::support::relay::{Answer, try_send};
use crate::support::ws::WsClient;

/// How often a batch is sent under its keys until all of it is accepted.
const ATTEMPTS_MAX: usize = 12;

/// A way to publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PublishBy {
    Inside,
    /// The body is the payload.
    Body,
    /// `POST /api/v1/messages`.
    Envelope,
    Bulk,
    /// A payload a line.
    Lines,
    /// A WebSocket, with all of a batch under way.
    Socket,
}

/// A message to publish.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) topic: TopicName,
    /// JSON text.
    pub(super) payload: String,
    pub(super) key: Option<String>,
}

/// What a publisher was told of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Kept {
        id: MessageId,
        replayed: bool,
    },
    /// Certainly not kept.
    Refused,
    Unknown,
}

/// One attempt to publish a message.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) topic: TopicName,
    pub(super) payload: String,
    /// Whether it went under a key, and so may be one of several.
    pub(super) keyed: bool,
    pub(super) outcome: Outcome,
    pub(super) took: Duration,
}

impl Outcome {
    /// Returns what a code says; one that the storage cannot have caused is a fault.
    pub(super) fn of(code: Code) -> Self {
        match code {
            Code::OutcomeUnknown => Self::Unknown,
            Code::StorageUnavailable | Code::StorageFull | Code::Overloaded => Self::Refused,
            other => panic!("not expected: {other:?}"),
        }
    }

    fn of_answer(answer: &Answer) -> Self {
        match answer.status {
            201 => Self::Kept {
                id: id(&answer.json()),
                replayed: answer.header("idempotency-replayed") == Some("true"),
            },
            _ => Self::of(answer.problem().code),
        }
    }

    /// Returns what a result of several, or a frame, says.
    fn of_json(json: &Value) -> Self {
        if json["message_id"].is_string() {
            return Self::Kept { id: id(json), replayed: json["replayed"] == true };
        }
        Self::of(serde_json::from_value(json["code"].clone()).unwrap_or_else(|_| panic!("no code: {json}")))
    }

    const fn is_kept(self) -> bool {
        matches!(self, Self::Kept { .. })
    }
}

fn id(json: &Value) -> MessageId {
    json["message_id"].as_str().and_then(|id| id.parse().ok()).unwrap_or_else(|| panic!("no id: {json}"))
}

/// Publishes batches. Every other publisher uses keys, and repeats a batch until it is accepted.
pub(super) async fn publish(world: Arc<World>, by: PublishBy, number: u64, batches: u64, mut dice: Dice) {
    let keyed = number.is_multiple_of(2) || dice.roll(3) == 0;
    let attempts_max = if keyed { ATTEMPTS_MAX } else { 1 };
    let mut socket = None;
    for batch in 0..batches {
        sleep(dice.up_to_ms(30)).await;
        world.move_clock(&mut dice);
        let batch = compose(&world, by, keyed, (number, batch), &mut dice);
        for _ in 0..attempts_max {
            let began = Instant::now();
            let under_way = attempt(&world, by, &batch, &mut socket);
            let outcomes = timeout(DEADLINE, under_way).await.expect("I7: a publish ends in time");
            let took = began.elapsed();
            check_order(&batch, &outcomes);
            note(&world, &batch, &outcomes, took);
            if outcomes.iter().all(|outcome| outcome.is_kept()) {
                break;
            }
            sleep(dice.up_to_ms(10)).await;
        }
    }
}

/// Returns the messages of a batch, no two of which are the same.
fn compose(world: &World, by: PublishBy, keyed: bool, name: (u64, u64), dice: &mut Dice) -> Vec<Sent> {
    let (publisher, batch) = name;
    let count = match by {
        PublishBy::Body | PublishBy::Envelope => 1,
        PublishBy::Inside | PublishBy::Bulk | PublishBy::Lines | PublishBy::Socket => 1 + dice.roll(9),
    };
    let topic = world.topic(dice).clone();
    let sent = |place| {
        // The lines of a request are of one topic.
        let other = by != PublishBy::Lines && dice.roll(4) == 0;
        let topic = if other { world.topic(dice) } else { &topic }.clone();
        // As the header's key counts them.
        let key = keyed.then(|| format!("{publisher}-{batch}/{place}"));
        Sent { topic, payload: format!("\"{publisher}/{batch}/{place}\""), key }
    };
    (0..count).map(sent).collect()
}

async fn attempt(
    world: &World,
    by: PublishBy,
    batch: &[Sent],
    socket: &mut Option<WsClient>,
) -> Vec<Outcome> {
    let relay = match &world.door {
        Door::Inside(inside) => return inside.publish(batch).await,
        Door::Outside(relay) => *relay,
    };
    match by {
        PublishBy::Inside => unreachable!("it has a door"),
        PublishBy::Body => {
            let path = format!("/api/v1/topics/{}/messages", batch[0].topic);
            vec![Outcome::of_answer(
                &post(relay, &path, &batch[0].payload, batch[0].key.as_deref(), JSON).await,
            )]
        }
        PublishBy::Envelope => {
            let key = batch[0].key.as_deref();
            vec![Outcome::of_answer(
                &post(relay, "/api/v1/messages", &envelope(&batch[0], ""), key, JSON).await,
            )]
        }
        PublishBy::Bulk => {
            let messages: Vec<_> = batch.iter().map(|sent| envelope(sent, &own_key(sent))).collect();
            let body = format!(r#"{{"messages":[{}]}}"#, messages.join(","));
            of_results(&post(relay, "/api/v1/messages/bulk", &body, None, JSON).await, batch.len())
        }
        PublishBy::Lines => {
            let path = format!("/api/v1/topics/{}/messages", batch[0].topic);
            let mut lines = String::new();
            for sent in batch {
                lines.extend([&sent.payload, "\n"]);
            }
            let key = batch[0].key.as_deref().and_then(|key| key.strip_suffix("/0"));
            of_results(&post(relay, &path, &lines, key, "application/x-ndjson").await, batch.len())
        }
        PublishBy::Socket => {
            if socket.is_none() {
                *socket = Some(WsClient::connect(relay).await);
            }
            by_socket(socket.as_mut().expect("it was opened"), batch).await
        }
    }
}

const JSON: &str = "application/json";

async fn post(relay: SocketAddr, path: &str, body: &str, key: Option<&str>, kind: &str) -> Answer {
    let headers: Vec<_> =
        [("content-type", kind)].into_iter().chain(key.map(|key| ("idempotency-key", key))).collect();
    try_send(relay, "POST", path, &headers, body.as_bytes()).await.expect("an answer")
}

fn own_key(sent: &Sent) -> String {
    sent.key.as_ref().map_or_else(String::new, |key| format!(r#","key":"{key}""#))
}

fn envelope(sent: &Sent, rest: &str) -> String {
    format!(r#"{{"topic":"{}","payload":{}{rest}}}"#, sent.topic, sent.payload)
}

fn of_results(answer: &Answer, count: usize) -> Vec<Outcome> {
    assert_eq!(answer.status, 207, "{answer:?}");
    let json = answer.json();
    let results = json["results"].as_array().expect("results");
    assert_eq!(results.len(), count, "{json}");
    results.iter().map(Outcome::of_json).collect()
}

async fn by_socket(socket: &mut WsClient, batch: &[Sent]) -> Vec<Outcome> {
    for (place, sent) in batch.iter().enumerate() {
        let mut rest = own_key(sent);
        let _ = write!(rest, r#","type":"publish","ref":"{place}""#);
        socket.send(envelope(sent, &rest)).await;
    }
    let mut outcomes = Vec::new();
    for place in 0..batch.len() {
        let frame = socket.frame().await;
        assert_eq!(frame["ref"], place.to_string(), "in the order in which they were sent: {frame}");
        outcomes.push(Outcome::of_json(&frame));
    }
    outcomes
}

/// Messages of one request are kept in its order.
fn check_order(batch: &[Sent], outcomes: &[Outcome]) {
    let mut last: Vec<(&TopicName, MessageId)> = Vec::new();
    for (sent, outcome) in batch.iter().zip(outcomes) {
        if let Outcome::Kept { id, replayed: false } = *outcome {
            let before = last.iter().rfind(|(topic, _)| *topic == &sent.topic);
            assert!(before.is_none_or(|(_, before)| *before < id), "{batch:?} became {outcomes:?}");
            last.push((&sent.topic, id));
        }
    }
}

fn note(world: &World, batch: &[Sent], outcomes: &[Outcome], took: Duration) {
    let (mut told, mut attempts) = (world.told.lock(), world.attempts.lock());
    for (Sent { topic, payload, key }, outcome) in batch.iter().zip(outcomes) {
        if let Outcome::Kept { id, .. } = outcome {
            told.entry(topic.clone()).or_default().push(*id);
        }
        attempts.push(Attempt {
            topic: topic.clone(),
            payload: payload.clone(),
            keyed: key.is_some(),
            outcome: *outcome,
            took,
        });
    }
}
