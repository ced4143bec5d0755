//! Messages and what waits, in either direction.

use bytes::Bytes;
use tidemill_proto::copy::{CopiedBody, CopiedMessage, CopiedRecurring, CopiedWaiting, raw_json};
use tidemill_proto::duration::Seconds;
use tidemill_proto::limits::{
    CONTENT_TYPE_BYTES_MAX, CRON_BYTES_MAX, METADATA_BYTES_MAX, TIME_ZONE_BYTES_MAX,
};
use tidemill_proto::{Problem, content_type, json};

use super::Checked;
use crate::storage::{Body, KeyValue, RecurringRule, StoredMessage, StoredRecurring, WaitingMessage};

/// Reads each item of a list; what is wrong with one names its place.
pub(super) fn at<W, T>(field: &str, items: Vec<W>, read: impl Fn(W) -> Checked<T>) -> Checked<Vec<T>> {
    let read = |(place, item)| read(item).map_err(|problem| of_item(&problem, &format!("{field}[{place}]")));
    items.into_iter().enumerate().map(read).collect()
}

/// Returns the problem with what surrounds its field in front of that.
pub(super) fn of_item(problem: &Problem, item: &str) -> Box<Problem> {
    let inner = problem.field.as_deref().unwrap_or_default();
    let rule = problem.detail.strip_prefix(&format!("`{inner}` ")).unwrap_or(&problem.detail);
    let dot = if inner.is_empty() { "" } else { "." };
    Box::new(Problem::field(format!("{item}{dot}{inner}").as_str(), rule))
}

fn fault<T>(field: &str, rule: &str) -> Checked<T> {
    Err(Box::new(Problem::field(field, rule)))
}

pub(super) fn body(body: &Body) -> CopiedBody {
    let Body { payload, content_type, metadata, order_key } = body;
    CopiedBody {
        content_type: content_type.clone(),
        metadata: metadata.as_deref().and_then(|metadata| raw_json(metadata.trim_ascii())),
        order_key: order_key.clone(),
        ..CopiedBody::of(payload)
    }
}

pub(super) fn value(value: &KeyValue) -> CopiedBody {
    let KeyValue { bytes, content_type } = value;
    CopiedBody { content_type: content_type.clone(), ..CopiedBody::of(bytes) }
}

pub(super) fn read_body(mut body: CopiedBody) -> Checked<Body> {
    let bytes = match body.take_bytes() {
        Ok(bytes) => Bytes::from(bytes),
        Err(error) => return fault("body", &error.to_string()),
    };
    let CopiedBody { content_type, metadata, order_key, .. } = body;
    if let Some(kind) = &content_type {
        let is_text = kind.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
        if kind.is_empty() || kind.len() > CONTENT_TYPE_BYTES_MAX || !is_text {
            return fault("body.content_type", "is no content type");
        }
    }
    if content_type.as_deref().is_none_or(content_type::is_json) {
        let is_json = raw_json(bytes.trim_ascii()).is_some();
        if !is_json {
            return fault("body.payload_base64", "must be JSON, as `content_type` says that it is");
        }
        if let Err(error) = json::check_readable(&bytes) {
            return fault("body.payload", &error.to_string());
        }
    }
    let metadata = metadata.map(Box::<str>::from);
    if let Some(metadata) = &metadata {
        if !metadata.starts_with('{') || metadata.len() > METADATA_BYTES_MAX {
            return fault("body.metadata", "must be a JSON object, and not too large");
        }
        if let Err(error) = json::check_readable(metadata.as_bytes()) {
            return fault("body.metadata", &error.to_string());
        }
    }
    let metadata = metadata.map(|metadata| Bytes::from(Box::<[u8]>::from(metadata)));
    Ok(Body { payload: bytes, content_type, metadata, order_key })
}

/// Reads the value of a key.
pub(super) fn read_value(value: CopiedBody) -> Checked<KeyValue> {
    let Body { payload, content_type, metadata, order_key } = read_body(value)?;
    if metadata.is_some() || order_key.is_some() {
        return fault("body", "has what no value has");
    }
    Ok(KeyValue { bytes: payload, content_type })
}

pub(super) fn messages(messages: &[StoredMessage]) -> Vec<CopiedMessage> {
    let message = |message: &StoredMessage| CopiedMessage {
        message_id: message.id,
        timestamp: message.timestamp,
        expires_at: message.expires_at,
        body: body(&message.body),
    };
    messages.iter().map(message).collect()
}

pub(super) fn read_message(message: CopiedMessage) -> Checked<StoredMessage> {
    let CopiedMessage { message_id, timestamp, expires_at, body } = message;
    Ok(StoredMessage { id: message_id, timestamp, expires_at, body: read_body(body)? })
}

pub(super) fn waiting(waiting: Vec<WaitingMessage>) -> Vec<CopiedWaiting> {
    let one = |WaitingMessage { id, due, body: what, ttl }| CopiedWaiting {
        schedule_id: id,
        deliver_at: due,
        ttl: ttl.map(Seconds),
        body: body(&what),
    };
    waiting.into_iter().map(one).collect()
}

pub(super) fn read_waiting(waiting: CopiedWaiting) -> Checked<WaitingMessage> {
    let CopiedWaiting { schedule_id, deliver_at, ttl, body } = waiting;
    Ok(WaitingMessage {
        id: schedule_id,
        due: deliver_at,
        body: read_body(body)?,
        ttl: ttl.map(|Seconds(ttl)| ttl),
    })
}

pub(super) fn recurring(recurring: Vec<StoredRecurring>) -> Vec<CopiedRecurring> {
    let one = |StoredRecurring { name, rule, body: what, ttl, next }| {
        let RecurringRule { cron, timezone } = rule;
        CopiedRecurring { name, cron, timezone, ttl: ttl.map(Seconds), next, body: body(&what) }
    };
    recurring.into_iter().map(one).collect()
}

pub(super) fn read_recurring(recurring: CopiedRecurring) -> Checked<StoredRecurring> {
    let CopiedRecurring { name, cron, timezone, ttl, next, body } = recurring;
    if cron.len() > CRON_BYTES_MAX {
        return fault("cron", "is too long");
    }
    if timezone.len() > TIME_ZONE_BYTES_MAX {
        return fault("timezone", "is too long");
    }
    let (rule, ttl) = (RecurringRule { cron, timezone }, ttl.map(|Seconds(ttl)| ttl));
    Ok(StoredRecurring { name, rule, body: read_body(body)?, ttl, next })
}
