//! Changes of keys that are described: several at once, increments, and touches.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use serde_json::value::RawValue;
use tidemill_proto::keys::{
    ChangedKey, Key, KeyChanges, KeyIncrement, KeyIncremented, KeyOperation, KeyTouch, KeysChanged,
};
use tidemill_proto::limits::KEY_CHANGES_MAX;
use tidemill_proto::payload::MemberNames;
use tidemill_proto::{Code, Problem};

use super::listing::as_wire;
use super::{Verbatim, changed, condition, etag, value_of};
use crate::access::Verb;
use crate::http::body::{BodyBudget, Received};
use crate::http::called::Called;
use crate::http::failure::{Problems, PublishProblems};
use crate::http::json::Few;
use crate::http::media::{self, APPLICATION_JSON};
use crate::http::path::{BucketPath, KeyPath};
use crate::http::publishing::{
    Member, described_payload, fence, idempotency_key, mark_replayed, refuse_fence,
};
use crate::http::unconditional::Unconditional;
use crate::http::{Http, json, query};
use crate::relay::{Failure, KeyChangeDraft, KeyDraft, parse_key, parse_key_ttl_json};

/// The fields of one change among several.
const FIELDS: [&str; 14] = [
    "op",
    "key",
    "value",
    "value_text",
    "value_base64",
    "content_type",
    "ttl",
    "owner",
    "by",
    "min",
    "max",
    "if_match",
    "if_none_match",
    "fresh",
];

/// Change several keys
///
/// All changes are made in one step, or none: a condition that does not hold is 412, and `field` names its change.
#[utoipa::path(
    post, path = "/api/v1/keys/{bucket}", tag = "keys", operation_id = "change_keys",
    params(
        ("bucket" = String, Path, description = "The name of the bucket"),
        ("Idempotency-Key" = Option<String>, Header, description = "1 to 255 visible ASCII characters"),
        ("Tidemill-Fence" = Option<String>, Header, description = "The name of a lock and the fence of who holds it, as in `nightly=1517363399650-0`: refused with 412 once another holds the lock"),
    ),
    request_body = KeyChanges,
    responses((status = 200, description = "All are made", body = KeysChanged), PublishProblems),
)]
pub(in crate::http) async fn change(
    State(http): State<Http>,
    Called(gate): Called,
    _: Unconditional,
    BucketPath(bucket): BucketPath,
    request: Request,
) -> Result<Response, Failure> {
    let (head, body) = request.into_parts();
    let [] = query::parameters(&head.uri, [])?;
    media::require_json(&head.headers)?;
    let idempotency = idempotency_key(&head.headers)?;
    let fence = fence(&head.headers)?;
    http.counted_keys(gate.check_some_key(Verb::Publish))?;
    let body = http.0.budget.receive(&head.headers, body, http.bulk_limit()).await?;
    let [changes] = json::fields::<Few<'_, KEY_CHANGES_MAX>, 1>(&body.bytes, ["changes"])?;
    let Few { items, count } = changes.ok_or_else(|| json::missing("changes"))?;
    if !(1..=KEY_CHANGES_MAX).contains(&count) {
        let rule = format_args!("has {count} changes; one request has 1 to {KEY_CHANGES_MAX}");
        return Err(Problem::field("changes", rule).into());
    }
    let read = |(at, raw): (usize, &&RawValue)| {
        read_change(&http.0.budget, &body.bytes, raw).map_err(|failure| failure.of_item("changes", at))
    };
    let drafts = items.iter().enumerate().map(read).collect::<Result<Vec<_>, _>>()?;
    let keys: Vec<_> = drafts.iter().map(|draft| draft.key.clone()).collect();
    let made = http.change_keys(&gate, &bucket, drafts, idempotency, fence, true).await?;
    let told = keys.into_iter().zip(&made.changed).map(|(key, one)| ChangedKey {
        key,
        revision: one.revision,
        is_new: one.is_new,
        value: one.number,
        expires_at: one.expires_at,
    });
    let mut response = Json(KeysChanged { bucket, changed: told.collect() }).into_response();
    mark_replayed(&mut response, made.replayed);
    Ok(response)
}

fn read_change(budget: &BodyBudget, body: &Bytes, raw: &RawValue) -> Result<KeyChangeDraft, Failure> {
    if !raw.get().starts_with('{') {
        return Err(Problem::new(Code::InvalidField, "must be an object with `op` and `key`").into());
    }
    let fields: [Member<'_>; 14] = json::fields(raw.get().as_bytes(), FIELDS)?;
    let [op, key, value, text, base64, kind, ttl, owner, by, min, max, if_match, if_none_match, fresh] =
        fields;
    let op = json::string("op", op.ok_or_else(|| json::missing("op"))?)?;
    let op = KeyOperation::ALL.into_iter().find(|known| known.as_str() == op);
    let op = op.ok_or_else(|| Problem::field("op", "must be `put`, `delete` or `increment`"))?;
    let foreign: &[usize] = match op {
        KeyOperation::Put => &[8, 9, 10],
        KeyOperation::Delete => &[2, 3, 4, 5, 6, 7, 8, 9, 10, 13],
        KeyOperation::Increment => &[2, 3, 4, 5, 7, 13],
    };
    if let Some(at) = foreign.iter().find(|at| json::optional(fields[**at]).is_some()) {
        let rule = format!("does not belong to `{}`", op.as_str());
        return Err(Problem::field(FIELDS[*at], rule).into());
    }
    let key = json::string("key", json::optional(key).ok_or_else(|| json::missing("key"))?)?;
    let key = parse_key("key", &key)?;
    let string = |name, raw| json::optional(raw).map(|raw| json::string(name, raw)).transpose();
    let there = string("if_match", if_match)?;
    let absent = string("if_none_match", if_none_match)?;
    let condition = condition::parse(["if_match", "if_none_match"], there.as_deref(), absent.as_deref())?;
    let edit = match op {
        KeyOperation::Put => {
            let owner = string("owner", owner)?;
            KeyDraft::Put {
                value: described_payload(budget, body, (value, text, base64, kind), MemberNames::VALUE)?,
                ttl: read_ttl(ttl)?,
                fresh: json::optional(fresh).map(|raw| parse_key_ttl_json("fresh", raw.get())).transpose()?,
                owner: owner.as_deref().map(|text| parse_key("owner", text)).transpose()?,
            }
        }
        KeyOperation::Delete => KeyDraft::Delete,
        KeyOperation::Increment => read_increment(by, min, max, ttl)?,
    };
    Ok(KeyChangeDraft { key, condition, edit })
}

fn read_increment(
    by: Member<'_>,
    min: Member<'_>,
    max: Member<'_>,
    ttl: Member<'_>,
) -> Result<KeyDraft, Failure> {
    let number = |field, raw| json::optional(raw).map(|raw| json::integer(field, raw)).transpose();
    Ok(KeyDraft::Increment {
        by: number("by", by)?.unwrap_or(1),
        min: number("min", min)?,
        max: number("max", max)?,
        ttl: read_ttl(ttl)?,
    })
}

fn read_ttl(raw: Member<'_>) -> Result<Option<Duration>, Failure> {
    json::optional(raw).map(|raw| parse_key_ttl_json("ttl", raw.get())).transpose()
}

/// Add to a key
///
/// Its value is a whole number of 64 bits, in JSON; a key that is not there is 0. `ttl` counts from when the key came to
/// be: adding again does not make it live longer. What would be less than `min` or more than `max` is 409 `conflict`, and
/// nothing is changed.
#[utoipa::path(
    post, path = "/api/v1/keys/{bucket}/{key}/increment", tag = "keys", operation_id = "increment_key",
    params(
        ("bucket" = String, Path, description = "The name of the bucket"),
        ("key" = String, Path, description = "The name of the key"),
        ("If-Match" = Option<String>, Header, description = "The `ETag` that the key must have; `*`: it must be there"),
        ("If-None-Match" = Option<String>, Header, description = "`*`: the key must not be there"),
        ("Idempotency-Key" = Option<String>, Header, description = "1 to 255 visible ASCII characters"),
        ("Tidemill-Fence" = Option<String>, Header, description = "The name of a lock and the fence of who holds it, as in `nightly=1517363399650-0`: refused with 412 once another holds the lock"),
    ),
    request_body = KeyIncrement,
    responses(
        (status = 200, body = KeyIncremented, headers(("ETag" = String, description = "The revision, in quotes"))),
        PublishProblems,
    ),
)]
pub(in crate::http) async fn increment(
    State(http): State<Http>,
    Called(gate): Called,
    KeyPath(bucket, key): KeyPath,
    request: Request,
) -> Result<Response, Failure> {
    let (head, body) = request.into_parts();
    let [] = query::parameters(&head.uri, [])?;
    let condition = condition::of(&head.headers)?;
    let idempotency = idempotency_key(&head.headers)?;
    let fence = fence(&head.headers)?;
    http.counted_keys(gate.check_key(Verb::Publish, &bucket, &key))?;
    let body = receive_some(&http, &head, body).await?;
    let [by, min, max, ttl]: [Member<'_>; 4] = match &body {
        None => [None; 4],
        Some(body) => json::fields(&body.bytes, ["by", "min", "max", "ttl"])?,
    };
    let edit = read_increment(by, min, max, ttl)?;
    let draft = KeyChangeDraft { key: key.clone(), condition, edit };
    let made = http.change_keys(&gate, &bucket, vec![draft], idempotency, fence, false).await?;
    let one = made.changed.first().expect("there is an answer for each change");
    let revision = one.revision.expect("an increment has a revision");
    let value = one.number.expect("an increment makes a number");
    let told = KeyIncremented { bucket, key, value, revision, expires_at: one.expires_at };
    Ok(changed(StatusCode::OK, revision, &made, &told))
}

/// Have a key live on
///
/// For `ttl` from now on, or for the time of its bucket. It gets no revision, nobody who watches is told, and a key that
/// is not there stays so. With `"return": "value"` the answer is the value, as a read has it.
#[utoipa::path(
    post, path = "/api/v1/keys/{bucket}/{key}/touch", tag = "keys", operation_id = "touch_key",
    params(
        ("bucket" = String, Path, description = "The name of the bucket"),
        ("key" = String, Path, description = "The name of the key"),
    ),
    request_body = Option<KeyTouch>,
    responses(
        (status = 200, description = "It lives on", content((Key = "application/json"), (Vec<u8> = "*/*"))),
        Problems,
    ),
)]
pub(in crate::http) async fn touch(
    State(http): State<Http>,
    Called(gate): Called,
    _: Unconditional,
    KeyPath(bucket, key): KeyPath,
    request: Request,
) -> Result<Response, Failure> {
    let (head, body) = request.into_parts();
    let [] = query::parameters(&head.uri, [])?;
    refuse_fence(&head.headers, "a touch changes no value; put the key with its `ttl` instead")?;
    gate.check_key(Verb::Publish, &bucket, &key)?;
    let body = receive_some(&http, &head, body).await?;
    let [ttl, wanted]: [Member<'_>; 2] = match &body {
        None => [None; 2],
        Some(body) => json::fields(&body.bytes, ["ttl", "return"])?,
    };
    let ttl = read_ttl(ttl)?;
    let wants_value = match json::optional(wanted).map(RawValue::get) {
        None => false,
        Some("\"value\"") => true,
        Some(_) => return Err(Problem::field("return", "must be `value`, or left out").into()),
    };
    let entry = gate.touch_key(&bucket, &key, ttl, wants_value).await?;
    if wants_value {
        http.0.metrics.keys().read(true);
        return value_of(&http, &bucket, entry);
    }
    let mut out = Vec::new();
    as_wire(&entry).write_json(&mut out);
    let headers = [(CONTENT_TYPE, APPLICATION_JSON), (axum::http::header::ETAG, etag(entry.revision))];
    Ok((headers, Extension(Verbatim), out).into_response())
}

/// Reads a body of JSON that may be left out.
async fn receive_some(http: &Http, head: &Parts, body: Body) -> Result<Option<Received>, Failure> {
    let body = http.0.budget.receive(&head.headers, body, http.small_limit()).await?;
    if body.bytes.is_empty() {
        return Ok(None);
    }
    media::require_json(&head.headers)?;
    Ok(Some(body))
}
