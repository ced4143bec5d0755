//! What headers say of a message whose body is the payload itself.
//!
//! It must not know what becomes of it.

use axum::http::{HeaderMap, HeaderName};
use tidemill_proto::locks::Fence;
use tidemill_proto::{Durability, MessageId, OrderKey, Problem};

use crate::relay::{
    Failure, IdempotencyKey, UniqueKey, parse_durability, parse_fence, parse_last, parse_order_key,
};

/// The header that carries an idempotency key.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// The header that says which message must be the last of the topic.
const EXPECTED_LAST: HeaderName = HeaderName::from_static("tidemill-expected-last");
/// The header that carries an order key.
const ORDER_KEY: HeaderName = HeaderName::from_static("tidemill-order-key");
/// The header that carries a group and a unique key.
const UNIQUE: HeaderName = HeaderName::from_static("tidemill-unique");
/// The header that says how durable a message must be before the answer comes.
const DURABILITY: HeaderName = HeaderName::from_static("tidemill-durability");
/// The header that shows that the publisher holds a lock.
const FENCE: HeaderName = HeaderName::from_static("tidemill-fence");

/// What headers say of a message: each with its name as people write it, and with the field that says the same in a body.
static ABOUT: [(HeaderName, &str, &str); 5] = [
    (EXPECTED_LAST, "Tidemill-Expected-Last", "expected_last"),
    (ORDER_KEY, "Tidemill-Order-Key", "order_key"),
    (UNIQUE, "Tidemill-Unique", "unique"),
    (FENCE, "Tidemill-Fence", "fence"),
    (DURABILITY, "Tidemill-Durability", "durability"),
];

/// Which of these headers a request has.
#[derive(Clone, Copy, Debug)]
pub(in crate::http) struct Said([bool; ABOUT.len()]);

impl Said {
    /// Returns which of them are there.
    pub(in crate::http) fn by(headers: &HeaderMap) -> Self {
        Self(ABOUT.each_ref().map(|(header, ..)| headers.contains_key(header)))
    }

    /// Returns those of a request that can have that of the durability alone.
    pub(in crate::http) fn of_durability(is_there: bool) -> Self {
        Self(ABOUT.each_ref().map(|(header, ..)| is_there && *header == DURABILITY))
    }

    /// Returns a failure that names the header where it would name a field of a body that a header has said.
    pub(in crate::http) fn named(self, mut failure: Failure) -> Failure {
        let problem = failure.problem_mut();
        let is_meant = |field: &str| problem.field.as_deref() == Some(field);
        let said = ABOUT.iter().zip(self.0).find(|((_, _, field), is_said)| *is_said && is_meant(field));
        if let Some(((_, name, field), _)) = said {
            problem.field = Some((*name).to_owned());
            if let Some(rule) = problem.detail.strip_prefix(&format!("`{field}` ")) {
                problem.detail = format!("`{name}` {rule}");
            }
        }
        failure
    }
}

/// Returns the idempotency key that the headers have.
///
/// # Errors
/// There are two, or it is none.
pub(in crate::http) fn idempotency_key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, Failure> {
    let mut keys = headers.get_all(IDEMPOTENCY_KEY).iter();
    match (keys.next(), keys.next()) {
        (None, _) => Ok(None),
        (Some(key), None) => IdempotencyKey::parse("Idempotency-Key", key.as_bytes()).map(Some),
        (Some(_), Some(_)) => Err(Problem::field("Idempotency-Key", "is there twice").into()),
    }
}

/// Returns the message that must be the last of the topic, as the headers have it.
///
/// # Errors
/// There are two, or it is none.
pub(in crate::http) fn expected_last(headers: &HeaderMap) -> Result<Option<MessageId>, Failure> {
    const FIELD: &str = "Tidemill-Expected-Last";
    let mut ids = headers.get_all(EXPECTED_LAST).iter();
    match (ids.next(), ids.next()) {
        (None, _) => Ok(None),
        // What is no text is no id either.
        (Some(id), None) => parse_last(FIELD, id.to_str().unwrap_or_default()).map(Some),
        (Some(_), Some(_)) => Err(Problem::field(FIELD, "is there twice").into()),
    }
}

/// Returns the order key that the headers have.
///
/// # Errors
/// There are two, or it is none.
pub(in crate::http) fn order_key(headers: &HeaderMap) -> Result<Option<OrderKey>, Failure> {
    const FIELD: &str = "Tidemill-Order-Key";
    let mut keys = headers.get_all(ORDER_KEY).iter();
    match (keys.next(), keys.next()) {
        (None, _) => Ok(None),
        (Some(key), None) => parse_order_key(FIELD, key.as_bytes()).map(Some),
        (Some(_), Some(_)) => Err(Problem::field(FIELD, "is there twice").into()),
    }
}

/// Returns the group and the unique key that the headers have.
///
/// # Errors
/// There are two, or it is none.
pub(in crate::http) fn unique(headers: &HeaderMap) -> Result<Option<UniqueKey>, Failure> {
    const FIELD: &str = "Tidemill-Unique";
    let mut values = headers.get_all(UNIQUE).iter();
    let value = match (values.next(), values.next()) {
        (None, _) => return Ok(None),
        (Some(value), None) => value,
        (Some(_), Some(_)) => return Err(Problem::field(FIELD, "is there twice").into()),
    };
    match value.to_str().ok().and_then(|text| text.split_once('/')) {
        Some((group, key)) => UniqueKey::parse(FIELD, group, key.as_bytes()).map(Some),
        None => Err(Problem::field(FIELD, "must be a group and a key, as in `workers/invoice-7`").into()),
    }
}

/// Returns the fence that the headers have.
///
/// # Errors
/// There are two, or it is none.
pub(in crate::http) fn fence(headers: &HeaderMap) -> Result<Option<Fence>, Failure> {
    const FIELD: &str = "Tidemill-Fence";
    let mut fences = headers.get_all(FENCE).iter();
    match (fences.next(), fences.next()) {
        (None, _) => Ok(None),
        // What is no text is no fence either.
        (Some(fence), None) => parse_fence(FIELD, fence.to_str().unwrap_or_default()).map(Some),
        (Some(_), Some(_)) => Err(Problem::field(FIELD, "is there twice").into()),
    }
}

/// Returns the durability that the headers ask for. Of a list, which may be spread over several headers, all counts
/// (RFC 9110 section 5.3).
///
/// # Errors
/// It is none.
pub(in crate::http) fn durability(headers: &HeaderMap) -> Result<Option<Durability>, Failure> {
    let mut values = headers.get_all(DURABILITY).iter().peekable();
    if values.peek().is_none() {
        return Ok(None);
    }
    // What is no text is no durability either.
    let values: Vec<&str> = values.map(|value| value.to_str().unwrap_or_default()).collect();
    parse_durability("Tidemill-Durability", &values.join(",")).map(Some)
}

/// Checks that no fence is shown where none is heeded; `why` says why, and what to do.
///
/// # Errors
/// There is one: whoever shows it relies on it.
pub(in crate::http) fn refuse_fence(headers: &HeaderMap, why: &str) -> Result<(), Failure> {
    if headers.contains_key(FENCE) {
        return Err(Problem::field("Tidemill-Fence", format_args!("is not heeded here: {why}")).into());
    }
    Ok(())
}

/// Checks that the headers do not say what the body has a place for.
///
/// # Errors
/// They do.
pub(in crate::http) fn refuse_about(headers: &HeaderMap) -> Result<(), Failure> {
    for (header, name, field) in &ABOUT {
        if headers.contains_key(header) {
            let rule = format!("is for a body that is the payload itself; write `{field}` into this one");
            return Err(Problem::field(*name, rule).into());
        }
    }
    Ok(())
}
