//! Publishing many messages with one request: a result for each, in order; one bad message rejects
//! only itself.

use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_TYPE, HeaderName};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use serde_json::value::RawValue;
use std::sync::Arc;
use tidemill_proto::limits::{BULK_MESSAGES_MAX, NDJSON_LINES_MAX};
use tidemill_proto::message::{PublishBulk, PublishStatus, PublishSummary, PublishedBulk};
use tidemill_proto::{Code, DurabilityTold, MessageId, Problem, ScheduleId, Timestamp, TopicName, quoted};
use utoipa_axum::routes;

use super::called::Called;
use super::failure::Failed;
use super::json::Few;
use super::media::{self, APPLICATION_JSON};
use super::publishing::{About, FIELDS, Said, draft, idempotency_key, mark_replayed, refuse_about, too_many};
use super::routes::{Concern, Needs};
use super::{Http, json, metadata, query};
use crate::access::Verb;
use crate::relay::{
    Admitted, Answered, Appended, Draft, Failure, Gate, IdempotencyKey, Payload, Scheduled, Trace,
};

/// The header with which a client says how much of an answer it wants, and the one that says that it was
/// heard.
const PREFER: HeaderName = HeaderName::from_static("prefer");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

pub(super) fn routes() -> Concern {
    Concern::new().route(Needs::Right(Verb::Publish), routes!(publish_bulk))
}

/// Publish many messages
///
/// 1 to 1,000 messages, a result for each, in order; one bad message rejects only itself. A message's
/// `key` is its idempotency key; where it has none, the header's key gives it `<key>/<index>`, so that
/// a repeated request is kept once. Messages with `delay` or `deliver_at` are `scheduled`. With `Prefer: return=minimal` only rejected messages have a result.
#[utoipa::path(
    post, path = "/api/v1/messages/bulk", tag = "messages",
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "1 to 255 visible ASCII characters"),
        ("Prefer" = Option<String>, Header, description = "`return=minimal` leaves out the results of accepted messages"),
    ),
    request_body = PublishBulk,
    responses(
        (status = 207, description = "A result per message, in order", body = PublishedBulk),
        (status = "4XX", description = "Nothing was changed", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Nothing was changed; try again", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn publish_bulk(
    State(http): State<Http>,
    Called(gate): Called,
    request: Request,
) -> Result<Response, Failure> {
    let (head, body) = request.into_parts();
    let [] = query::parameters(&head.uri, [])?;
    media::require_json(&head.headers)?;
    metadata::refuse(&head.headers)?;
    refuse_about(&head.headers)?;
    let (key, trace) = (idempotency_key(&head.headers)?, metadata::trace(&head.headers));
    http.counted(gate.check_some_topic(Verb::Publish))?;
    let body = http.0.budget.receive(&head.headers, body, http.bulk_limit()).await?;
    let [messages] = json::fields::<Few<'_, BULK_MESSAGES_MAX>, 1>(&body.bytes, ["messages"])?;
    let Few { items: messages, count } = messages.ok_or_else(|| json::missing("messages"))?;
    if !(1..=BULK_MESSAGES_MAX).contains(&count) {
        let rule = format_args!("has {count} messages; a bulk publish has 1 to {BULK_MESSAGES_MAX}");
        return Err(Problem::field("messages", rule).into());
    }
    let mut results = Results::new(Answers::wanted(&head.headers), messages.len());
    let mut checked = Vec::with_capacity(messages.len());
    for (at, raw) in messages.iter().enumerate() {
        checked.push(check_item(&http, &gate, &body.bytes, raw, key.as_ref(), trace.as_deref(), at).await);
    }
    publish_some(&http, &gate, checked, &mut results).await;
    Ok(results.into_response())
}

/// Which messages of a request have a result in the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answers {
    /// Every one.
    All,
    /// Those that were rejected.
    Rejected,
}

impl Answers {
    /// Returns what the headers ask for (RFC 7240 section 4.2).
    pub(super) fn wanted(headers: &HeaderMap) -> Self {
        let texts = headers.get_all(PREFER).iter().filter_map(|value| value.to_str().ok());
        let mut preferences = texts.flat_map(|text| quoted::split(text, b',')).map(|preference| {
            // Its parameters say nothing that is known here.
            let preference = quoted::split(preference, b';').next().unwrap_or_default();
            let (name, value) = preference.split_once('=').unwrap_or((preference, ""));
            (name.trim(), value.trim().trim_matches('"'))
        });
        // Of a preference that is there twice the first counts.
        match preferences.find(|(name, _)| name.eq_ignore_ascii_case("return")) {
            Some((_, "minimal")) => Self::Rejected,
            Some(_) | None => Self::All,
        }
    }
}

/// What the lines of a request have in common.
#[derive(Debug)]
pub(super) struct Lines {
    pub(super) topic: TopicName,
    pub(super) key: Option<IdempotencyKey>,
    pub(super) about: About,
    /// The message that must be the last of the topic in front of the first line.
    pub(super) expected_last: Option<MessageId>,
    /// Which of that headers have said.
    pub(super) said: Said,
}

impl Lines {
    /// Returns the message of the line that is the one with this index among those that are not blank.
    fn draft(&self, body: &Bytes, line: &[u8], index: usize) -> Result<Draft, Failure> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        Ok(Draft {
            topic: self.topic.clone(),
            payload: Payload::Json(json::line(body, line)?, None),
            metadata: self.about.metadata.clone(),
            ttl: self.about.ttl,
            key: self.key.as_ref().map(|key| key.derive(index)),
            delivery: self.about.delivery,
            expected_last: self.expected_last.filter(|_| index == 0),
            order_key: self.about.order_key.clone(),
            unique: self.about.unique.as_ref().map(|unique| unique.derive(index)),
            fence: self.about.fence.clone(),
            durability: self.about.durability,
            trace: None,
        })
    }
}

/// Publishes each line of `body`; blank lines are skipped.
pub(super) async fn publish_lines(
    http: &Http,
    gate: &Gate,
    body: &Bytes,
    about: &Lines,
    answers: Answers,
) -> Result<Response, Failure> {
    let lines = || {
        let numbered = body.split(|byte| *byte == b'\n').enumerate();
        numbered.filter(|(_, line)| !line.trim_ascii().is_empty())
    };
    let count = lines().count();
    if count > NDJSON_LINES_MAX {
        return Err(too_many("lines", count, NDJSON_LINES_MAX));
    }
    if count == 0 {
        return Err(Problem::new(Code::InvalidJson, "the body has no lines; each line is one message").into());
    }
    let mut results = Results::new(answers, count);
    let mut lines = lines().enumerate();
    // Where the first line has to stand behind a certain message, it goes alone, and the others with it.
    let mut most = if about.expected_last.is_some() { 1 } else { BULK_MESSAGES_MAX };
    let mut refused: Option<Problem> = None;
    loop {
        // A batch at a time, so that what a request holds beside its body does not grow with it.
        let mut batch = Vec::new();
        for (at, (number, line)) in lines.by_ref().take(most) {
            let checked = match &refused {
                None => check(gate, about.draft(body, line, at))
                    .await
                    .map_err(|failure| about.said.named(failure)),
                Some(problem) => Err(problem.clone().into()),
            };
            let topic = Some(about.topic.as_str().to_owned());
            batch.push(Item { topic, checked, line: Some(number + 1) });
        }
        if batch.is_empty() {
            return Ok(results.into_response());
        }
        publish_some(http, gate, batch, &mut results).await;
        if most == 1 {
            refused = results.refused.take();
        }
        most = BULK_MESSAGES_MAX;
    }
}

/// One message of a request, checked.
struct Item {
    /// The topic as the request had it.
    topic: Option<String>,
    checked: Result<Admitted, Failure>,
    /// The line it stood on, counted from 1, where the request has lines.
    line: Option<usize>,
}

async fn check_item(
    http: &Http,
    gate: &Gate,
    body: &Bytes,
    raw: &RawValue,
    key: Option<&IdempotencyKey>,
    trace: Option<&Trace>,
    at: usize,
) -> Item {
    const COUNT: usize = FIELDS.len();
    let mut names = ["key"; COUNT + 1];
    names[..COUNT].copy_from_slice(&FIELDS);
    let (topic, draft) = match json::fields(raw.get().as_bytes(), names) {
        Err(failure) => (None, Err(failure)),
        Ok(members) => {
            let mut fields = [None; COUNT];
            fields.copy_from_slice(&members[..COUNT]);
            let ([topic, ..], own_key) = (fields, members[COUNT]);
            let name =
                topic.and_then(|raw| json::string("topic", raw).ok()).map(std::borrow::Cow::into_owned);
            let key = match json::optional(own_key).map(|raw| json::string("key", raw)) {
                Some(text) => text.and_then(|text| IdempotencyKey::parse("key", text.as_bytes())).map(Some),
                None => Ok(key.map(|key| key.derive(at))),
            };
            (name, key.and_then(|key| draft(&http.0.budget, body, fields, key, trace.cloned().map(Box::new))))
        }
    };
    Item { topic, checked: check(gate, draft).await, line: None }
}

async fn check(gate: &Gate, draft: Result<Draft, Failure>) -> Result<Admitted, Failure> {
    gate.admit(gate.check(draft?).await?).await
}

/// Publishes those messages that keep every rule, and adds a result for each of all.
async fn publish_some(http: &Http, gate: &Gate, items: Vec<Item>, results: &mut Results) {
    let mut slots = Vec::with_capacity(items.len());
    let mut accepted = Vec::with_capacity(items.len());
    for Item { topic, checked, line } in items {
        let slot = match checked {
            Ok(message) => {
                let bytes = message.len_bytes();
                accepted.push(message);
                Ok(bytes)
            }
            Err(failure) => Err(failure),
        };
        slots.push((topic, line, slot));
    }
    let published = if accepted.is_empty() { Vec::new() } else { gate.publish_all(accepted).await };
    let mut published = published.into_iter();
    for (topic, line, slot) in slots {
        let outcome = slot.and_then(|bytes| {
            let taken = published.next().expect("there is an answer for each message")?;
            http.count_taken(bytes, &taken);
            Ok(taken)
        });
        if let Err(failure) = &outcome {
            http.0.metrics.messages().rejected(failure.code());
        }
        results.push(topic.as_deref(), line, outcome);
    }
}

/// The answer, written as it comes.
struct Results {
    answers: Answers,
    body: Vec<u8>,
    summary: PublishSummary,
    replayed: usize,
    /// The first failure that the log should tell, and how many came with it.
    failed: Option<(Failure, usize)>,
    /// Why the first message was rejected, if it was.
    refused: Option<Problem>,
}

/// A result as it is written: what [`PublishResult`](tidemill_proto::message::PublishResult) reads.
#[derive(Serialize)]
struct ResultRef<'a> {
    message_id: Option<MessageId>,
    topic: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<usize>,
    status: PublishStatus,
    error: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<Code>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retryable: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_id: Option<MessageId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fence: Option<MessageId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    durability: Option<DurabilityTold>,
    #[serde(skip_serializing_if = "Option::is_none")]
    schedule_id: Option<&'a ScheduleId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deliver_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    replayed: bool,
}

impl Results {
    fn new(answers: Answers, count: usize) -> Self {
        // About what an accepted message takes.
        let accepted_bytes = match answers {
            Answers::All => count * 160,
            Answers::Rejected => 0,
        };
        let mut body = Vec::with_capacity(64 + accepted_bytes);
        body.extend_from_slice(br#"{"results":["#);
        Self { answers, body, summary: PublishSummary::default(), replayed: 0, failed: None, refused: None }
    }

    fn push(&mut self, topic: Option<&str>, line: Option<usize>, outcome: Result<Answered, Failure>) {
        let place = self.summary.total;
        self.summary.total += 1;
        let index = (self.answers == Answers::Rejected).then_some(place);
        match outcome {
            Ok(taken) => {
                self.summary.accepted += 1;
                self.summary.scheduled += usize::from(matches!(taken, Answered::Scheduled(_)));
                self.replayed += usize::from(taken.is_replayed());
                if self.answers == Answers::Rejected {
                    return;
                }
                let result = ResultRef {
                    message_id: None,
                    topic,
                    index,
                    status: PublishStatus::Accepted,
                    error: None,
                    code: None,
                    retryable: None,
                    field: None,
                    last_id: None,
                    fence: None,
                    reason: None,
                    timestamp: None,
                    durability: None,
                    schedule_id: None,
                    deliver_at: None,
                    replayed: taken.is_replayed(),
                };
                self.write(&match &taken {
                    Answered::Published(Appended { id, timestamp, .. }, durability) => ResultRef {
                        message_id: Some(*id),
                        timestamp: Some(*timestamp),
                        durability: *durability,
                        ..result
                    },
                    Answered::Scheduled(Scheduled { id, due, .. }) => ResultRef {
                        status: PublishStatus::Scheduled,
                        schedule_id: Some(id),
                        deliver_at: Some(*due),
                        ..result
                    },
                });
            }
            Err(failure) => {
                self.summary.rejected += 1;
                let problem = failure.problem();
                let error = match line {
                    Some(line) => format!("line {line}: {}", problem.detail),
                    None => problem.detail.clone(),
                };
                self.write(&ResultRef {
                    message_id: problem.message_id,
                    topic,
                    index,
                    status: PublishStatus::Rejected,
                    error: Some(&error),
                    code: Some(problem.code),
                    retryable: Some(problem.retryable),
                    field: problem.field.as_deref(),
                    last_id: problem.last_id,
                    fence: problem.fence,
                    reason: problem.reason.as_deref(),
                    timestamp: None,
                    durability: problem.durability,
                    schedule_id: None,
                    deliver_at: None,
                    replayed: false,
                });
                if place == 0 {
                    self.refused = Some(problem.clone());
                }
                self.note(failure);
            }
        }
    }

    fn write(&mut self, result: &ResultRef<'_>) {
        if !self.body.ends_with(b"[") {
            self.body.push(b',');
        }
        let written = serde_json::to_writer(&mut self.body, result);
        debug_assert!(written.is_ok(), "results can be written");
    }

    fn note(&mut self, failure: Failure) {
        match &mut self.failed {
            Some((first, count)) => {
                *count += 1;
                // What the storage says matters more than what one message had wrong.
                if failure.has_cause() && !first.has_cause() {
                    *first = failure;
                }
            }
            None => self.failed = Some((failure, 1)),
        }
    }

    fn into_response(mut self) -> Response {
        self.body.extend_from_slice(br#"],"summary":"#);
        let written = serde_json::to_writer(&mut self.body, &self.summary);
        debug_assert!(written.is_ok(), "three numbers can be written");
        self.body.push(b'}');
        let headers = [(CONTENT_TYPE, APPLICATION_JSON)];
        let mut response = (StatusCode::MULTI_STATUS, headers, Bytes::from(self.body)).into_response();
        mark_replayed(&mut response, self.replayed == self.summary.total);
        if self.answers == Answers::Rejected {
            response.headers_mut().insert(PREFERENCE_APPLIED, HeaderValue::from_static("return=minimal"));
        }
        if let Some((failure, count)) = self.failed {
            let failure = Arc::new(failure);
            response.extensions_mut().insert(Failed { failure, count, unrendered: false });
        }
        response
    }
}
