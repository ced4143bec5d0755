//! What every publish over HTTP has in common: its head and body become a message, the gate takes it, and
//! what comes of it is counted and answered. The router's handlers and the fast path both go this way.
//!
//! It must not know how a request was read.

use axum::body::Bytes;
use axum::http::header::HeaderValue;
use axum::response::Response;
use serde_json::value::RawValue;
use tidemill_proto::locks::Fence;
use tidemill_proto::payload::{MemberNames, NewPayload, PayloadMembers};
use tidemill_proto::{
    Code, Delivery, Durability, DurabilityTold, MessageId, OrderKey, Problem, Published, RecurringName,
    TopicName, content_type,
};

use super::body::BodyBudget;
use super::media::Media;
use super::{Http, json};
use crate::relay::{
    Answered, Appended, Checked, ContentType, Draft, Failure, Gate, IdempotencyKey, JsonText, Payload,
    RecurringDraft, Scheduled, TimeToLive, Trace, UniqueKey, parse_durability, parse_fence, parse_last,
    parse_order_key, parse_topic,
};

/// The header that says that an answer is the first answer again.
pub(super) const IDEMPOTENCY_REPLAYED: &str = "idempotency-replayed";

pub(super) use headers::{
    Said, durability, expected_last, fence, idempotency_key, order_key, refuse_about, refuse_fence, unique,
};

mod headers;

/// What the head of a publish of one message says.
#[derive(Debug)]
pub(super) struct Head<'a> {
    /// Where the message goes, and what the body is.
    pub(super) form: Form<'a>,
    /// The idempotency key.
    pub(super) key: Option<IdempotencyKey>,
    /// The message that must be the last of the topic, where a header says so.
    pub(super) expected_last: Option<MessageId>,
}

/// What the body of a publish is.
#[derive(Debug)]
pub(super) enum Form<'a> {
    /// A JSON object with the topic, the payload, and what else belongs to a message; and the trace of the request.
    Described(Option<Box<Trace>>),
    /// The payload of a message for this topic, with what else is said of it.
    Payload(TopicName, Media<'a>, About),
}

/// What is said of a message beside its payload.
#[derive(Clone, Debug, Default)]
pub(super) struct About {
    /// How long it is served.
    pub(super) ttl: Option<TimeToLive>,
    /// Its metadata.
    pub(super) metadata: Option<JsonText>,
    /// When it is published, if that is not now.
    pub(super) delivery: Option<Delivery>,
    /// Its order key.
    pub(super) order_key: Option<OrderKey>,
    /// The key of which one message at a time may wait or be worked on in a group.
    pub(super) unique: Option<UniqueKey>,
    /// What shows that the publisher holds a lock.
    pub(super) fence: Option<Fence>,
    /// How durable it must be before the answer comes.
    pub(super) durability: Option<Durability>,
}

/// The fields of a message that is published as JSON.
pub(super) const FIELDS: [&str; 14] = [
    "topic",
    "payload",
    "payload_text",
    "payload_base64",
    "content_type",
    "metadata",
    "ttl",
    "delay",
    "deliver_at",
    "expected_last",
    "order_key",
    "unique",
    "fence",
    "durability",
];

/// Returns the message that a head and a body make, if `gate` lets its caller publish it.
///
/// # Errors
/// The body is not what the head says, the message breaks a rule, or the caller may not publish it.
pub(super) async fn read_message(
    gate: &Gate,
    budget: &BodyBudget,
    head: Head<'_>,
    body: &Bytes,
) -> Result<Checked, Failure> {
    let draft = match head.form {
        Form::Described(trace) => described(budget, body, head.key, trace),
        Form::Payload(topic, media, about) => {
            let About { ttl, metadata, delivery, order_key, unique, fence, durability } = about;
            let (key, expected_last) = (head.key, head.expected_last);
            payload(media, body).map(|payload| Draft {
                topic,
                payload,
                metadata,
                ttl,
                key,
                delivery,
                expected_last,
                order_key,
                unique,
                fence,
                durability,
                trace: None,
            })
        }
    };
    gate.check(draft?).await
}

impl Http {
    /// Publishes a message, and counts what came of it.
    ///
    /// # Errors
    /// The storage refused it or did not answer.
    pub(super) async fn publish(&self, gate: &Gate, message: Checked) -> Result<Answered, Failure> {
        let bytes = message.len_bytes();
        let admitted = self.counted(gate.admit(message).await)?;
        let taken = self.counted(gate.publish(admitted).await)?;
        self.count_taken(bytes, &taken);
        Ok(taken)
    }

    /// Counts a message of so many bytes that was taken.
    pub(super) fn count_taken(&self, bytes: usize, taken: &Answered) {
        match taken {
            Answered::Published(appended, durability) => {
                self.0.metrics.messages().published(bytes, appended.replayed);
                if durability.is_some() {
                    self.0.metrics.messages().durable();
                }
            }
            Answered::Scheduled(scheduled) => self.0.metrics.schedules().scheduled(scheduled.replayed),
        }
    }

    /// Counts the messages of a publish that was refused.
    pub(super) fn counted<T>(&self, result: Result<T, Failure>) -> Result<T, Failure> {
        result.inspect_err(|failure| self.0.metrics.messages().rejected(failure.code()))
    }
}

/// Returns the body of the answer to a publish.
pub(super) fn published(
    topic: &TopicName,
    appended: &Appended,
    durability: Option<DurabilityTold>,
) -> Vec<u8> {
    let (message_id, timestamp) = (appended.id, appended.timestamp);
    let published = Published { message_id, topic: topic.clone(), timestamp, durability };
    // Room for the longest names of the common kind, so that the text is written without growing.
    let mut body = Vec::with_capacity(128 + topic.as_str().len());
    let written = serde_json::to_writer(&mut body, &published);
    debug_assert!(written.is_ok(), "ids, names and times can be written");
    body
}

/// Returns the body of the answer to a publish for later.
pub(super) fn scheduled(topic: &TopicName, scheduled: &Scheduled) -> Vec<u8> {
    let Scheduled { id, due, .. } = scheduled;
    let scheduled =
        tidemill_proto::Scheduled { schedule_id: id.clone(), topic: topic.clone(), deliver_at: *due };
    serde_json::to_vec(&scheduled).expect("ids, names and times can be written")
}

/// Returns when a message is published of which headers or a query say this, if they say it.
///
/// # Errors
/// Both are there, or one has another form.
pub(super) fn delivery(delay: Option<&str>, at: Option<&str>) -> Result<Option<Delivery>, Failure> {
    let delay = delay.map(Delivery::parse_delay).transpose()?;
    let at = at.map(Delivery::parse_at).transpose()?;
    Ok(Delivery::one_of(delay, at)?)
}

pub(super) fn mark_replayed(response: &mut Response, replayed: bool) {
    if replayed {
        response.headers_mut().insert(IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"));
    }
}

/// Returns the payload that is the whole body.
fn payload(media: Media<'_>, body: &Bytes) -> Result<Payload, Failure> {
    const FIELD: &str = "Content-Type";
    match media {
        Media::Json(kind) => Ok(Payload::Json(json::value(body, body)?, ContentType::of_json(FIELD, kind)?)),
        Media::Ndjson => Ok(Payload::Json(json::value(body, body)?, None)),
        Media::Other(kind) if is_form(kind) => Err(Problem::new(
            Code::UnsupportedMediaType,
            "the body is called `application/x-www-form-urlencoded`, as curl calls it unless told otherwise; name what it is, as with `-H 'Content-Type: application/json'` or `-H 'Content-Type: text/plain'`",
        )
        .into()),
        Media::Other(kind) if content_type::essence(kind).eq_ignore_ascii_case("multipart/form-data") => {
            Err(Problem::new(
                Code::UnsupportedMediaType,
                "the body is a form of several parts (`multipart/form-data`), and a message is one payload; send the file itself, as with `curl --data-binary @FILE -H 'Content-Type: image/png'`",
            )
            .into())
        }
        Media::Other(kind) if !has_subtype(kind) => {
            Err(Problem::field(FIELD, "must be a media type, as in `text/plain` or `image/png`").into())
        }
        Media::Other(kind) => Ok(Payload::Bytes(body.clone(), ContentType::parse(FIELD, kind)?)),
        Media::Unnamed if body.is_empty() => Err(Problem::new(
            Code::InvalidRequest,
            "the request has no body, which would be the payload; one that is to be empty needs a `Content-Type`",
        )
        .into()),
        Media::Unnamed => Ok(Payload::Bytes(body.clone(), ContentType::parse(FIELD, content_type::BYTES)?)),
    }
}

/// Returns whether a text has the two halves of a media type (RFC 9110 section 8.3.1).
pub(super) fn has_subtype(kind: &str) -> bool {
    let halves = content_type::essence(kind).split_once('/');
    halves.is_some_and(|(kind, subtype)| !kind.is_empty() && !subtype.is_empty() && !subtype.contains('/'))
}

pub(super) fn is_form(kind: &str) -> bool {
    content_type::essence(kind).eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

/// Returns the message that a body describes.
fn described(
    budget: &BodyBudget,
    body: &Bytes,
    key: Option<IdempotencyKey>,
    trace: Option<Box<Trace>>,
) -> Result<Draft, Failure> {
    draft(budget, body, json::fields(body, FIELDS)?, key, trace)
}

/// Returns the message whose [`FIELDS`] are these. A payload that has to be decoded counts against the budget,
/// beside its body.
pub(super) fn draft(
    budget: &BodyBudget,
    body: &Bytes,
    [
        topic,
        payload,
        text,
        base64,
        kind,
        metadata,
        ttl,
        delay,
        at,
        last,
        order_key,
        unique,
        fence,
        durability,
    ]: [Option<&RawValue>; FIELDS.len()],
    key: Option<IdempotencyKey>,
    trace: Option<Box<Trace>>,
) -> Result<Draft, Failure> {
    let topic = json::string("topic", topic.ok_or_else(|| json::missing("topic"))?)?;
    let payload = match (payload, text, base64, kind) {
        // Nearly all are so.
        (Some(json), None, None, None) => Payload::Json(JsonText::of(body, json), None),
        members => described_payload(budget, body, members, MemberNames::PAYLOAD)?,
    };
    Ok(Draft {
        topic: parse_topic("topic", &topic)?,
        payload,
        metadata: json::optional(metadata).map(|raw| JsonText::of(body, raw)),
        ttl: json::optional(ttl).map(|raw| TimeToLive::parse_json(raw.get())).transpose()?,
        key,
        expected_last: json::optional(last).map(read_last).transpose()?,
        delivery: described_delivery(json::optional(delay), json::optional(at))?,
        order_key: json::optional(order_key).map(read_order_key).transpose()?,
        unique: json::optional(unique).map(read_unique).transpose()?,
        fence: json::optional(fence).map(read_fence).transpose()?,
        durability: json::optional(durability).map(read_durability).transpose()?,
        trace,
    })
}

fn described_delivery(delay: Member<'_>, at: Member<'_>) -> Result<Option<Delivery>, Failure> {
    if delay.is_none() && at.is_none() {
        return Ok(None);
    }
    let delay = delay.map(|raw| Delivery::parse_delay_json(raw.get())).transpose()?;
    let at = match at {
        Some(raw) => Some(Delivery::parse_at(&json::string("deliver_at", raw)?)?),
        None => None,
    };
    Ok(Delivery::one_of(delay, at)?)
}

/// Returns the recurring message that a body describes.
///
/// # Errors
/// The body is none, or a field has another form.
pub(super) fn recurring_draft(
    budget: &BodyBudget,
    body: &Bytes,
    topic: TopicName,
    name: RecurringName,
) -> Result<RecurringDraft, Failure> {
    let [cron, timezone, payload, text, base64, kind, metadata, ttl, order_key] = json::fields(
        body,
        [
            "cron",
            "timezone",
            "payload",
            "payload_text",
            "payload_base64",
            "content_type",
            "metadata",
            "ttl",
            "order_key",
        ],
    )?;
    let cron = json::string("cron", cron.ok_or_else(|| json::missing("cron"))?)?.into_owned();
    let timezone = match json::optional(timezone) {
        Some(raw) => Some(json::string("timezone", raw)?.into_owned()),
        None => None,
    };
    let draft = Draft {
        topic,
        payload: described_payload(budget, body, (payload, text, base64, kind), MemberNames::PAYLOAD)?,
        metadata: json::optional(metadata).map(|raw| JsonText::of(body, raw)),
        ttl: json::optional(ttl).map(|raw| TimeToLive::parse_json(raw.get())).transpose()?,
        key: None,
        delivery: None,
        expected_last: None,
        order_key: json::optional(order_key).map(read_order_key).transpose()?,
        unique: None,
        fence: None,
        durability: None,
        // What recurs is part of no trace.
        trace: None,
    };
    Ok(RecurringDraft { name, cron, timezone, draft })
}

fn read_last(raw: &RawValue) -> Result<MessageId, Failure> {
    parse_last("expected_last", &json::string("expected_last", raw)?)
}

fn read_order_key(raw: &RawValue) -> Result<OrderKey, Failure> {
    parse_order_key("order_key", json::string("order_key", raw)?.as_bytes())
}

fn read_durability(raw: &RawValue) -> Result<Durability, Failure> {
    parse_durability("durability", &json::string("durability", raw)?)
}

fn read_fence(raw: &RawValue) -> Result<Fence, Failure> {
    parse_fence("fence", &json::string("fence", raw)?)
}

fn read_unique(raw: &RawValue) -> Result<UniqueKey, Failure> {
    if !raw.get().starts_with('{') {
        return Err(Problem::field("unique", "must be an object with `group` and `key`").into());
    }
    let [group, key] = json::fields(raw.get().as_bytes(), ["group", "key"])?;
    let missing = |name| Failure::from(Problem::field(name, "is missing"));
    let group = json::string("unique.group", group.ok_or_else(|| missing("unique.group"))?)?;
    let key = json::string("unique.key", key.ok_or_else(|| missing("unique.key"))?)?;
    UniqueKey::parse("unique", &group, key.as_bytes())
}

/// A member of a JSON object, if it is there.
pub(super) type Member<'a> = Option<&'a RawValue>;

/// Returns the payload that members make which have these names.
///
/// # Errors
/// They make none.
pub(super) fn described_payload(
    budget: &BodyBudget,
    body: &Bytes,
    (payload, text, base64, kind): (Member<'_>, Member<'_>, Member<'_>, Member<'_>),
    names: MemberNames,
) -> Result<Payload, Failure> {
    let string = |name, raw| json::optional(raw).map(|raw| json::string(name, raw)).transpose();
    let members = PayloadMembers {
        json: payload,
        text: string(names.text, text)?,
        base64: string(names.base64, base64)?,
        content_type: string("content_type", kind)?,
    };
    let NewPayload { bytes, content_type } = members.read_as(names).map_err(|problem| *problem)?;
    match (payload, content_type) {
        (Some(json), None) => Ok(Payload::Json(JsonText::of(body, json), None)),
        (Some(json), Some(kind)) => {
            Ok(Payload::Json(JsonText::of(body, json), ContentType::of_json("content_type", &kind)?))
        }
        (None, kind) => {
            let kind = kind.as_deref().unwrap_or(content_type::BYTES);
            let bytes = budget.charge(bytes.len(), || bytes.into_owned())?;
            let member = if json::optional(text).is_some() { names.text } else { names.base64 };
            Ok(Payload::Member(member, bytes, ContentType::parse("content_type", kind)?))
        }
    }
}

/// Returns the failure of a body with more messages than one request may have.
pub(super) fn too_many(what: &str, count: usize, max: usize) -> Failure {
    Problem::new(Code::TooLarge, format!("the body has {count} {what}; one request has at most {max}")).into()
}
