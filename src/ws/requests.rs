//! What a client's frame asks for, checked as far as it can be without the storage.
//!
//! It must not know the socket, nor what is read at the moment.

use std::borrow::Cow;
use std::fmt::Display;

use bytes::Bytes;
use tidemill_proto::frame::{
    self, CREDIT_MAX, ClientFrame, Consume, ErrorClass, ErrorFrame, Publish, REFERENCE_BYTES_MAX, Said,
    Settle, Subscribe, TOPICS_PER_FRAME_MAX, binary,
};
use tidemill_proto::work::{ConsumerName, GroupName, RECEIPTS_MAX, Receipt};
use tidemill_proto::{Code, Cursor, PatternCursor, Problem, Since, TopicName, TopicSelector};
use tokio_tungstenite::tungstenite::Message;

use super::frames::Encoding;
use crate::relay::{
    Absent, ContentType, Draft, EXTENSION, Failure, IdempotencyKey, JsonText, NACK_DELAY, Payload,
    SettledReceipt, StartAt, TimeToLive, UniqueKey, Verdict, check_result, parse_durability, parse_fence,
    parse_group, parse_last, parse_order_key, parse_selector, parse_topic, within,
};

mod watching;

pub(super) use watching::{Watch, WatchTarget};

/// What a frame asks for.
#[derive(Debug)]
pub(super) enum Request {
    /// Read topics.
    Subscribe(Subscription),
    /// Read topics no longer.
    Unsubscribe(Vec<TopicSelector>),
    /// Publish a message; the reference comes back with the answer.
    Publish(Option<String>, Draft),
    /// Answer with a `pong` that carries this.
    Ping(Option<String>),
    /// Give the connection messages of a group.
    Consume(Consumption),
    /// Settle messages; the reference comes back with the answer.
    Settle(Option<String>, Vec<SettledReceipt>),
    /// Watch something.
    Watch(Watch),
    /// Watch something no longer; the reference comes back with the answer.
    Unwatch(Option<String>, String),
    /// Nothing: frames that need no answer.
    Nothing,
}

/// A group to consume.
#[derive(Debug)]
pub(super) struct Consumption {
    /// Comes back with the answer, and with what ends it.
    pub(super) reference: Option<String>,
    pub(super) topic: TopicName,
    pub(super) group: GroupName,
    /// Most messages that the connection has at one time.
    pub(super) credit: u32,
    /// Who consumes, if it was said.
    pub(super) consumer: Option<ConsumerName>,
}

/// Topics to read.
#[derive(Debug)]
pub(super) struct Subscription {
    /// Comes back with the answer.
    pub(super) reference: Option<String>,
    /// Each topic or pattern once, with the place to start.
    pub(super) topics: Vec<(TopicSelector, StartAt)>,
    /// What it means that a topic does not exist.
    pub(super) absent: Absent,
    /// Whether the reader wants the latest message of each key, where it does not get them live.
    pub(super) latest: bool,
    /// What is wrong with the others.
    pub(super) refused: Vec<Rejection>,
}

/// A frame, or a part of one, that is refused.
#[derive(Debug)]
pub(super) struct Rejection {
    /// Comes back with the answer.
    pub(super) reference: Option<String>,
    /// What was refused.
    pub(super) class: ErrorClass,
    /// Why.
    pub(super) failure: Failure,
}

impl Rejection {
    pub(super) fn new(reference: Option<String>, class: ErrorClass, failure: impl Into<Failure>) -> Self {
        Self { reference, class, failure: failure.into() }
    }

    /// Returns the same for one of several topics, which it names.
    pub(super) fn of_topic(mut self, topic: impl Display) -> Self {
        let detail = &mut self.failure.problem_mut().detail;
        *detail = format!("{detail} (topic `{topic}`)");
        self
    }

    /// Returns the frame that tells the client.
    pub(super) fn frame(&self) -> ErrorFrame<'_> {
        let problem = self.failure.problem();
        ErrorFrame {
            reference: self.reference.as_deref().map(Into::into),
            class: self.class,
            code: problem.code,
            message: problem.detail.as_str().into(),
            field: problem.field.as_deref().map(Into::into),
            retryable: problem.retryable,
            retry_after_seconds: problem.retry_after_seconds,
            last_id: problem.last_id,
            reason: problem.reason.as_deref().map(Into::into),
            message_id: problem.message_id,
            durability: problem.durability,
            fence: problem.fence,
        }
    }
}

/// Reads a data frame.
///
/// # Errors
/// It is not a frame of this encoding, or breaks a rule.
pub(super) fn read(encoding: Encoding, message: Message) -> Result<Request, Rejection> {
    match (encoding, message) {
        (Encoding::Json, Message::Text(text)) => {
            let body = Bytes::from(text.clone());
            let frame = frame::json::read(&text)
                .map_err(|error| Rejection::new(error.reference, error.class, error.problem))?;
            request(encoding, &body, frame)
        }
        (Encoding::Binary, Message::Binary(body)) => {
            let frame = binary::read_client(&body)
                .map_err(|error| malformed(Problem::new(Code::InvalidRequest, error.to_string())))?;
            request(encoding, &body, frame)
        }
        (Encoding::Json, Message::Binary(_)) => Err(malformed(Problem::new(
            Code::InvalidRequest,
            "this connection speaks JSON in text frames; for binary frames connect with the subprotocol `tidemill.bincode.v1`",
        ))),
        (Encoding::Binary, Message::Text(_)) => Err(malformed(Problem::new(
            Code::InvalidRequest,
            "this connection speaks `tidemill.bincode.v1` in binary frames; for text frames connect without that subprotocol",
        ))),
        // Pings and close frames are answered by the library.
        (_, Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_)) => {
            Ok(Request::Nothing)
        }
    }
}

fn malformed(problem: Problem) -> Rejection {
    Rejection::new(None, ErrorClass::Processing, problem)
}

fn request(encoding: Encoding, body: &Bytes, frame: ClientFrame<'_>) -> Result<Request, Rejection> {
    match frame {
        ClientFrame::Subscribe(frame) => subscription(&frame).map(Request::Subscribe),
        ClientFrame::Unsubscribe { topics } => {
            let refuse = |failure| Rejection::new(None, ErrorClass::Subscription, failure);
            check_count(topics.len()).map_err(refuse)?;
            let topics = topics.iter().map(|topic| parse_selector("topics", topic));
            topics.collect::<Result<_, _>>().map(Request::Unsubscribe).map_err(refuse)
        }
        ClientFrame::Publish(frame) => {
            let reference = owned(frame.reference.as_deref(), ErrorClass::Publish)?;
            match draft(encoding, body, &frame) {
                Ok(draft) => Ok(Request::Publish(reference, draft)),
                Err(failure) => Err(Rejection::new(reference, ErrorClass::Publish, failure)),
            }
        }
        ClientFrame::Ping { reference } => {
            owned(reference.as_deref(), ErrorClass::Processing).map(Request::Ping)
        }
        ClientFrame::Ack { message_id: _ } => Ok(Request::Nothing),
        ClientFrame::Consume(frame) => {
            let reference = owned(frame.reference.as_deref(), ErrorClass::Processing)?;
            let refuse = |failure| Rejection::new(reference.clone(), ErrorClass::Processing, failure);
            consumption(&frame, reference.clone()).map(Request::Consume).map_err(refuse)
        }
        ClientFrame::Watch(frame) => {
            let reference = owned(frame.reference.as_deref(), ErrorClass::Processing)?;
            let refuse = |failure| Rejection::new(reference.clone(), ErrorClass::Processing, failure);
            watching::watch(&frame, reference.clone()).map(Request::Watch).map_err(refuse)
        }
        ClientFrame::Unwatch { reference, watch } => {
            let reference = owned(reference.as_deref(), ErrorClass::Processing)?;
            match watching::name(&watch) {
                Ok(name) => Ok(Request::Unwatch(reference, name)),
                Err(failure) => Err(Rejection::new(reference, ErrorClass::Processing, failure)),
            }
        }
        ClientFrame::Settle(frame) => {
            let reference = owned(frame.reference.as_deref(), ErrorClass::Processing)?;
            match settled(encoding, body, &frame) {
                Ok(receipts) => Ok(Request::Settle(reference, receipts)),
                Err(failure) => Err(Rejection::new(reference, ErrorClass::Processing, failure)),
            }
        }
    }
}

fn consumption(frame: &Consume<'_>, reference: Option<String>) -> Result<Consumption, Failure> {
    let credit =
        u32::try_from(frame.credit).ok().filter(|credit| *credit <= CREDIT_MAX).ok_or_else(|| {
            Problem::field("credit", format_args!("must be a whole number from 0 to {CREDIT_MAX}"))
        })?;
    let consumer = frame.consumer.as_deref().map(ConsumerName::parse).transpose();
    Ok(Consumption {
        reference,
        topic: parse_topic("topic", &frame.topic)?,
        group: parse_group(&frame.group)?,
        credit,
        consumer: consumer.map_err(|error| Problem::field("consumer", error))?,
    })
}

fn settled(encoding: Encoding, body: &Bytes, frame: &Settle<'_>) -> Result<Vec<SettledReceipt>, Failure> {
    if frame.receipts.is_empty() || frame.receipts.len() > RECEIPTS_MAX {
        return Err(Problem::field("receipts", format_args!("must be 1 to {RECEIPTS_MAX} receipts")).into());
    }
    let verdict = match &frame.said {
        Said::Ack { result } => {
            let result = result.map(|part| json(encoding, body, "result", part)).transpose()?;
            // A copy: what is kept must not keep the whole frame.
            let result = result.map(|json| Bytes::copy_from_slice(json.as_bytes()));
            Verdict::Ack(check_result(result)?)
        }
        Said::Nack { delay, error } => {
            let delay = delay.map(|delay| within("delay", Some(delay), NACK_DELAY)).transpose()?;
            Verdict::Nack(delay, error.as_deref().filter(|error| !error.is_empty()).map(Into::into))
        }
        Said::Extend { ack_wait } => {
            Verdict::Extend(ack_wait.map(|time| within("ack_wait", Some(time), EXTENSION)).transpose()?)
        }
        Said::Reject { reason } => Verdict::Reject(reason.as_ref().into()),
        Said::Release => Verdict::Release,
    };
    let receipt = |text: &Cow<'_, str>| SettledReceipt {
        receipt: Receipt::parse(text).ok(),
        text: text.as_ref().into(),
        verdict: verdict.clone(),
    };
    Ok(frame.receipts.iter().map(receipt).collect())
}

/// Returns a part of a frame that is JSON.
fn json(encoding: Encoding, body: &Bytes, field: &str, part: &[u8]) -> Result<JsonText, Failure> {
    match encoding {
        // It was parsed with the frame.
        Encoding::Json => Ok(JsonText::of_parsed(body, part)),
        Encoding::Binary => JsonText::parse(body, part).map_err(|error| {
            let hint = if field == "payload" { "; other bytes need a `content_type`" } else { "" };
            Failure::from(Problem::field(field, format_args!("is not JSON ({error}){hint}")))
        }),
    }
}

/// Returns the reference of a frame.
fn owned(reference: Option<&str>, class: ErrorClass) -> Result<Option<String>, Rejection> {
    match reference {
        Some(text) if text.len() > REFERENCE_BYTES_MAX => {
            let rule = format!("has {} bytes; a reference has at most {REFERENCE_BYTES_MAX}", text.len());
            Err(Rejection::new(None, class, Problem::field("ref", rule)))
        }
        other => Ok(other.map(str::to_owned)),
    }
}

fn check_count(topics: usize) -> Result<(), Failure> {
    if (1..=TOPICS_PER_FRAME_MAX).contains(&topics) {
        return Ok(());
    }
    Err(Problem::field(
        "topics",
        format_args!("has {topics} topics; a frame has 1 to {TOPICS_PER_FRAME_MAX} of them"),
    )
    .into())
}

fn subscription(frame: &Subscribe<'_>) -> Result<Subscription, Rejection> {
    const CLASS: ErrorClass = ErrorClass::Subscription;

    let reference = owned(frame.reference.as_deref(), CLASS)?;
    let refuse = |failure| Rejection::new(reference.clone(), CLASS, failure);
    check_count(frame.topics.len()).map_err(refuse)?;
    if let Some((topic, _)) = frame.cursors.iter().find(|(topic, _)| !frame.topics.contains(topic)) {
        let rule = format!("names {topic:?}, which is not among `topics`");
        return Err(refuse(Problem::field("cursors", rule).into()));
    }
    let latest = match frame.view.as_deref() {
        None => false,
        Some("latest") => true,
        Some(_) => return Err(refuse(Problem::field("view", "must be `latest`, or left out").into())),
    };
    let start = if latest { Cursor::Earliest } else { Cursor::Latest };
    let offset = frame
        .offset
        .as_deref()
        .map_or(Ok(StartAt::Since(Since::Cursor(start))), |text| parse_from("offset", text))
        .map_err(refuse)?;
    let mut topics: Vec<(TopicSelector, StartAt)> = Vec::with_capacity(frame.topics.len());
    let mut refused = Vec::new();
    for name in &frame.topics {
        let cursor = frame.cursors.iter().find(|(topic, _)| topic == name);
        let from = cursor.map_or_else(|| Ok(offset.clone()), |(_, text)| parse_from("cursors", text));
        let checked = from.and_then(|from| Ok((parse_selector("topics", name)?, from)));
        match checked {
            Ok((topic, _)) if topics.iter().any(|(other, _)| *other == topic) => {}
            Ok(checked) => topics.push(checked),
            Err(failure) => {
                refused.push(refuse(failure).of_topic(name.escape_debug()));
            }
        }
    }
    if let Some(client_id) = &frame.client_id {
        tracing::debug!(?client_id, topics = topics.len(), "subscribing");
    }
    let absent = if frame.must_exist { Absent::Refuse } else { Absent::Await };
    Ok(Subscription { reference, topics, absent, latest, refused })
}

/// Parses a cursor of a topic or of a pattern.
fn parse_from(field: &str, text: &str) -> Result<StartAt, Failure> {
    if text.starts_with(PatternCursor::PREFIX) {
        return StartAt::parse_cursor(field, text);
    }
    parse_since(field, text).map(StartAt::Since)
}

/// Parses a cursor; today's clients write `last` for `latest`.
fn parse_since(field: &str, text: &str) -> Result<Since, Failure> {
    let text = if text == "last" { "latest" } else { text };
    Since::parse(text).map_err(|error| Problem::field(field, error).into())
}

fn draft(encoding: Encoding, body: &Bytes, frame: &Publish<'_>) -> Result<Draft, Failure> {
    let json = |field: &str, part: &[u8]| json(encoding, body, field, part);
    let content_type = |kind| ContentType::parse("content_type", kind);
    let payload = match (&frame.content_type, &frame.payload) {
        (None, payload) => Payload::Json(json("payload", payload)?, None),
        (Some(kind), Cow::Borrowed(payload)) => Payload::Bytes(body.slice_ref(payload), content_type(kind)?),
        (Some(kind), Cow::Owned(payload)) => Payload::Bytes(payload.clone().into(), content_type(kind)?),
    };
    Ok(Draft {
        topic: parse_topic("topic", &frame.topic)?,
        payload,
        metadata: frame.metadata.map(|part| json("metadata", part)).transpose()?,
        ttl: frame.ttl.map(TimeToLive::of_seconds).transpose()?,
        key: frame.key.as_ref().map(|key| IdempotencyKey::parse("key", key.as_bytes())).transpose()?,
        delivery: frame.delivery,
        expected_last: frame
            .expected_last
            .as_deref()
            .map(|id| parse_last("expected_last", id))
            .transpose()?,
        order_key: frame
            .order_key
            .as_deref()
            .map(|key| parse_order_key("order_key", key.as_bytes()))
            .transpose()?,
        fence: frame.fence.as_deref().map(|text| parse_fence("fence", text)).transpose()?,
        trace: None,
        durability: frame
            .durability
            .as_deref()
            .map(|text| parse_durability("durability", text))
            .transpose()?,
        unique: frame
            .unique
            .as_ref()
            .map(|(group, key)| UniqueKey::parse("unique", group, key.as_bytes()))
            .transpose()?,
    })
}
