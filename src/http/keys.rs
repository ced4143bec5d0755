//! Keys: each is put, read and deleted under a path of its own, and its value comes back as it was put.
//!
//! | file | owns |
//! |---|---|
//! | `changing` | several changes at once, increments and touches |
//! | `condition` | what must be so before: `If-Match` and `If-None-Match` |
//! | `filling` | who asks for a key and would fill it |
//! | `listing` | pages of keys, and histories |

mod changing;
mod condition;
mod filling;
mod listing;

use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use tidemill_proto::keys::KeyChanged;
use tidemill_proto::locks::Fence;
use tidemill_proto::{BucketName, Code, KeyName, MessageId, Problem, content_type};
use utoipa_axum::routes;

use super::called::Called;
use super::failure::{Problems, PublishProblems};
use super::leases::{LEASE, under};
use super::media::{self, Media};
use super::path::KeyPath;
use super::payload::verbatim;
use super::publishing::{fence, has_subtype, idempotency_key, is_form, mark_replayed};
use super::routes::{Concern, Needs};
use super::{Http, json, query};
use crate::access::Verb;
use crate::relay::{
    ContentType, Failure, Gate, IdempotencyKey, KeyChangeDraft, KeyDraft, KeyEntry, KeyValue, KeysMade,
    LeaseHold, Payload, digest_of, parse_key, parse_key_ttl, parse_revision,
};

const CREATED_AT: HeaderName = HeaderName::from_static("tidemill-created-at");
const EXPIRES_AT: HeaderName = HeaderName::from_static("tidemill-expires-at");
/// The digest of a value (RFC 9530 section 3).
const REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");
const FRESH_UNTIL: HeaderName = HeaderName::from_static("tidemill-fresh-until");
/// Says of an answer that its value is stale.
const STALE: HeaderName = HeaderName::from_static("tidemill-stale");
const OWNER: HeaderName = HeaderName::from_static("tidemill-owner");

/// Marks an answer whose `ETag` stands for these bytes, so that they are not compressed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Verbatim;

pub(super) fn routes(is_on: bool) -> Concern {
    Concern::switched(is_on)
        .route(Needs::Right(Verb::Read), routes!(read))
        .route(Needs::Right(Verb::Publish), routes!(put))
        .route(Needs::Right(Verb::Publish), routes!(delete))
        .route(Needs::Right(Verb::Publish), routes!(changing::touch))
        .route(Needs::Right(Verb::Publish), routes!(changing::increment))
        .route(Needs::Right(Verb::Read), routes!(listing::list))
        .route(Needs::Right(Verb::Publish), routes!(changing::change))
}

/// Returns whether what a request asks for is done only where its conditions hold. Of all others, one that has such a
/// condition is refused before its path is looked at.
pub(super) fn heed_conditions(request: &Request) -> bool {
    let path = request.uri().path().strip_prefix("/api/v1/keys/").unwrap_or_default();
    let parts: Vec<_> = path.split('/').collect();
    // Every change that these paths take; a method that they do not take is told as that.
    parts.len() == 2 || (parts.len() == 3 && parts[2] == "increment")
}

/// Read a key
///
/// Its value as it was put, with its content type. `ETag` is its revision. With `revision` an earlier value, with
/// `view=history` all that are kept, as JSON.
///
/// With `fill` one of all who ask is to fill a key that is not there, or stale: its answer has the header `Tidemill-Fill`,
/// whose token it puts the key with. The others have the stale value, or wait.
#[utoipa::path(
    get, path = "/api/v1/keys/{bucket}/{key}", tag = "keys", operation_id = "read_key",
    params(
        ("bucket" = String, Path, description = "The name of the bucket"),
        ("key" = String, Path, description = "The name of the key"),
        ("revision" = Option<MessageId>, Query, description = "The value that the key had with this revision, where the bucket keeps it"),
        ("view" = Option<String>, Query, description = "`history`: all revisions that are kept, the newest first, as JSON"),
        ("fallback" = Option<String>, Query, description = "`parent`: where the value is damaged, the newest earlier one that is not"),
        ("fill" = Option<String>, Query, description = "Where the key is not there, or stale, one who asks is to put it within this time, as in `10s`; at most `10m`"),
        ("wait" = Option<String>, Query, description = "With `fill`: how long to wait for who fills it, where there is no value; as long as `fill` if absent, at most `1m`"),
        ("If-None-Match" = Option<String>, Header, description = "The `ETag` of a value that is known"),
    ),
    responses(
        (status = 200, description = "The value, of its own content type", body = Vec<u8>, content_type = "*/*", headers(
            ("ETag" = String, description = "The revision, in quotes"),
            ("Tidemill-Created-At" = String, description = "When the key came to be"),
            ("Tidemill-Expires-At" = String, description = "When it expires, if it does"),
            ("Tidemill-Fresh-Until" = String, description = "Until when its value is fresh, where its put has said so"),
            ("Tidemill-Stale" = String, description = "`true` where it is not fresh any more"),
            ("Tidemill-Fill" = String, description = "The token to put the key with, where who asks is to fill it; on a 404, too"),
            ("Tidemill-Owner" = String, description = "Whose it is, where its put has said so"),
            ("Repr-Digest" = String, description = "The SHA-256 of the value, in buckets that keep a history (RFC 9530)"),
        )),
        (status = 304, description = "It is the one that is known"),
        Problems,
    ),
)]
pub(super) async fn read(
    State(http): State<Http>,
    Called(gate): Called,
    KeyPath(bucket, key): KeyPath,
    request: Request,
) -> Result<Response, Failure> {
    let (head, _) = request.into_parts();
    let names = ["revision", "view", "fallback", "fill", "wait"];
    let [revision, view, fallback, fill, wait] = query::parameters(&head.uri, names)?;
    let beside = [revision.is_some(), view.is_some(), fallback.is_some()];
    if let Some(draft) = filling::asked(&head.method, fill.as_deref(), wait.as_deref(), beside)? {
        return filling::read(&http, &gate, &bucket, &key, draft, &head).await;
    }
    let falls_back = match fallback.as_deref() {
        None => false,
        Some("parent") if revision.is_none() && view.is_none() => true,
        Some("parent") => {
            let rule = "is of the current value; leave `revision` and `view` out";
            return Err(Problem::field("fallback", rule).into());
        }
        Some(_) => return Err(Problem::field("fallback", "must be `parent`").into()),
    };
    let revision = revision.as_deref().map(|text| parse_revision("revision", text)).transpose()?;
    match view.as_deref() {
        None => {}
        Some("history") if revision.is_some() => {
            return Err(Problem::field("view", "does not fit `revision`; leave one of them out").into());
        }
        Some("history") => return listing::history(&http, &gate, &bucket, &key).await,
        Some(_) => return Err(Problem::field("view", "must be `history`").into()),
    }
    let known = condition::known(&head.headers)?;
    let found = match revision {
        None if falls_back => gate.key_or_parent(&bucket, &key).await,
        None => gate.key(&bucket, &key, true).await,
        Some(revision) => gate.key_at(&bucket, &key, revision).await,
    };
    let missed = found.as_ref().is_err_and(|failure| failure.code() == Code::KeyNotFound);
    if missed {
        http.0.metrics.keys().read(false);
    }
    read_value_of(&http, &gate, &bucket, found?, known)
}

/// Returns the answer to who reads a key, and counts it: the value, unless it is known.
fn read_value_of(
    http: &Http,
    gate: &Gate,
    bucket: &BucketName,
    entry: KeyEntry,
    known: Option<condition::Known>,
) -> Result<Response, Failure> {
    let is_known = known.is_some_and(|known| known.has(entry.revision));
    let is_stale = gate.is_stale(&entry);
    if is_stale {
        http.0.metrics.keys().read_stale();
    } else {
        http.0.metrics.keys().read(true);
    }
    let mut response = value_of(http, bucket, entry)?;
    if is_stale {
        response.headers_mut().insert(STALE, HeaderValue::from_static("true"));
    }
    if is_known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        *response.body_mut() = axum::body::Body::empty();
        response.headers_mut().remove(CONTENT_TYPE);
        response.headers_mut().remove(CONTENT_LENGTH);
    }
    Ok(response)
}

/// Returns the answer that is the value of a key.
fn value_of(http: &Http, bucket: &BucketName, entry: KeyEntry) -> Result<Response, Failure> {
    let KeyEntry { key, revision, created_at, expires_at, owner, value, digest, fresh_until, is_counted: _ } =
        entry;
    let KeyValue { bytes, content_type } = value.expect("it was asked for");
    let bytes: Bytes = http.0.budget.charge(bytes.len(), || bytes.into())?;
    let mut response = verbatim(bytes, content_type.as_deref(), || format!("{bucket}-{key}"))?;
    response.extensions_mut().insert(Verbatim);
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    headers.insert(ETAG, etag(revision));
    let mut say = |name, text: &str| {
        headers.insert(name, HeaderValue::try_from(text).expect("times and names can stand in a header"));
    };
    say(CREATED_AT, &created_at.text());
    if let Some(expires_at) = expires_at {
        say(EXPIRES_AT, &expires_at.text());
    }
    if let Some(fresh_until) = fresh_until {
        say(FRESH_UNTIL, &fresh_until.text());
    }
    if let Some(owner) = owner {
        say(OWNER, owner.as_str());
    }
    if let Some(digest) = digest {
        say(REPR_DIGEST, &format!("sha-256=:{}:", BASE64.encode(digest.own)));
    }
    Ok(response)
}

/// Returns a revision as an `ETag`.
fn etag(revision: MessageId) -> HeaderValue {
    HeaderValue::try_from(format!("\"{revision}\"")).expect("ids can stand in a header")
}

/// Put a key
///
/// The body is its value, of any content type, and comes back as it is. The bucket is made by its first key, unless the
/// relay is set otherwise. With `If-Match` only where the key has this revision, with `If-None-Match: *` only where it is
/// not there; else 412, with the `revision` that there is.
#[utoipa::path(
    put, path = "/api/v1/keys/{bucket}/{key}", tag = "keys", operation_id = "put_key",
    params(
        ("bucket" = String, Path, description = "The name of the bucket"),
        ("key" = String, Path, description = "The name of the key"),
        ("ttl" = Option<String>, Query, description = "How long the key lives: seconds, or with a unit as in `30m`; the bucket's time if absent"),
        ("fresh" = Option<String>, Query, description = "How long the value is fresh, as in `30s`; as long as the key lives if absent"),
        ("lease" = Option<String>, Query, description = "The lease that keeps the key, in place of `ttl`"),
        ("owner" = Option<KeyName>, Query, description = "Whose the key is: all keys of an owner can be deleted at once"),
        ("If-Match" = Option<String>, Header, description = "The `ETag` that the key must have; `*`: it must be there"),
        ("If-None-Match" = Option<String>, Header, description = "`*`: the key must not be there"),
        ("Idempotency-Key" = Option<String>, Header, description = "1 to 255 visible ASCII characters"),
        ("Tidemill-Fill" = Option<String>, Header, description = "The token of who fills the key: 412 `fill_lost` where it counts no more"),
        ("Tidemill-Fence" = Option<String>, Header, description = "The name of a lock and the fence of who holds it, as in `nightly=1517363399650-0`: refused with 412 once another holds the lock"),
        ("Repr-Digest" = Option<String>, Header, description = "The SHA-256 of the value (RFC 9530): where it is another, nothing is put"),
    ),
    request_body(
        content((serde_json::Value = "application/json"), (String = "text/plain"), (String = "application/octet-stream")),
        description = "The value",
    ),
    responses(
        (status = 201, description = "The key is new", body = KeyChanged, headers(("ETag" = String, description = "The revision, in quotes"))),
        (status = 200, description = "The key was there", body = KeyChanged, headers(("ETag" = String, description = "The revision, in quotes"))),
        PublishProblems,
    ),
)]
pub(super) async fn put(
    State(http): State<Http>,
    Called(gate): Called,
    KeyPath(bucket, key): KeyPath,
    request: Request,
) -> Result<Response, Failure> {
    let (head, body) = request.into_parts();
    let [ttl, lease, fresh, owner] = query::parameters(&head.uri, ["ttl", LEASE, "fresh", "owner"])?;
    let ttl = ttl.as_deref().map(|text| parse_key_ttl("ttl", text)).transpose()?;
    let fresh = fresh.as_deref().map(|text| parse_key_ttl("fresh", text)).transpose()?;
    let owner = owner.as_deref().map(|text| parse_key("owner", text)).transpose()?;
    let condition = filling::condition(&head.headers, condition::of(&head.headers)?)?;
    let idempotency = idempotency_key(&head.headers)?;
    let fence = fence(&head.headers)?;
    let media = media::of(&head.headers)?;
    http.counted_keys(gate.check_key(Verb::Publish, &bucket, &key))?;
    let body = http.0.budget.receive(&head.headers, body, http.value_limit()).await?;
    check_digest(&head.headers, &body.bytes)?;
    let value = read_value(&head.headers, media, &body.bytes)?;
    let lease = http.counted_keys(under(&gate, lease.as_deref(), ttl.is_some()).await)?;
    let ttl = lease.as_ref().map(LeaseHold::left).or(ttl);
    let edit = KeyDraft::Put { value, ttl, fresh, owner };
    let draft = KeyChangeDraft { key: key.clone(), condition, edit };
    let made = match &lease {
        Some(lease) => http.put_key_under(&gate, &bucket, draft, (idempotency, fence), lease).await,
        None => http.change_keys(&gate, &bucket, vec![draft], idempotency, fence, false).await,
    };
    let made = filling::counted(&http, condition, made)?;
    let one = made.changed.first().expect("there is an answer for each change");
    let revision = one.revision.expect("a put has a revision");
    let status = if one.is_new { StatusCode::CREATED } else { StatusCode::OK };
    let told = KeyChanged { bucket, key, revision, expires_at: one.expires_at };
    Ok(changed(status, revision, &made, &told))
}

/// Delete a key
#[utoipa::path(
    delete, path = "/api/v1/keys/{bucket}/{key}", tag = "keys", operation_id = "delete_key",
    params(
        ("bucket" = String, Path, description = "The name of the bucket"),
        ("key" = String, Path, description = "The name of the key"),
        ("If-Match" = Option<String>, Header, description = "The `ETag` that the key must have"),
        ("Idempotency-Key" = Option<String>, Header, description = "1 to 255 visible ASCII characters"),
        ("Tidemill-Fence" = Option<String>, Header, description = "The name of a lock and the fence of who holds it, as in `nightly=1517363399650-0`: refused with 412 once another holds the lock"),
    ),
    responses((status = 200, description = "It is gone", body = KeyChanged), PublishProblems),
)]
pub(super) async fn delete(
    State(http): State<Http>,
    Called(gate): Called,
    KeyPath(bucket, key): KeyPath,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Failure> {
    let [] = query::parameters(&uri, [])?;
    let condition = condition::of(&headers)?;
    let idempotency = idempotency_key(&headers)?;
    let fence = fence(&headers)?;
    let draft = KeyChangeDraft { key: key.clone(), condition, edit: KeyDraft::Delete };
    let made = http.change_keys(&gate, &bucket, vec![draft], idempotency, fence, false).await?;
    let one = made.changed.first().expect("there is an answer for each change");
    let Some(revision) = one.revision else {
        let detail = format!("bucket `{bucket}` has no key `{key}`");
        return Err(Problem::new(Code::KeyNotFound, detail).into());
    };
    let told = KeyChanged { bucket, key, revision, expires_at: None };
    Ok(changed(StatusCode::OK, revision, &made, &told))
}

/// Returns the answer to a change of one key.
fn changed<T: serde::Serialize>(
    status: StatusCode,
    revision: MessageId,
    made: &KeysMade,
    body: &T,
) -> Response {
    let mut response = (status, [(ETAG, etag(revision))], Extension(Verbatim), Json(body)).into_response();
    mark_replayed(&mut response, made.replayed);
    response
}

/// Checks that a body has the digest that its sender says, where it says one that is known here.
///
/// # Errors
/// It has another, or the header is none.
fn check_digest(headers: &HeaderMap, body: &[u8]) -> Result<(), Failure> {
    const FIELD: &str = "Repr-Digest";
    let mut said = headers.get_all(REPR_DIGEST).iter();
    let (Some(value), None) = (said.next(), said.next()) else {
        return if headers.contains_key(REPR_DIGEST) {
            Err(Problem::field(FIELD, "is there twice").into())
        } else {
            Ok(())
        };
    };
    let malformed = || Problem::field(FIELD, "must be as in `sha-256=:BASE64:` (RFC 9530)");
    let text = value.to_str().map_err(|_| malformed())?;
    for member in text.split(',').map(str::trim) {
        let (algorithm, digest) = member.split_once('=').ok_or_else(malformed)?;
        // Others are as good as none (section 3).
        if !algorithm.eq_ignore_ascii_case("sha-256") {
            continue;
        }
        let digest = digest.strip_prefix(':').and_then(|digest| digest.strip_suffix(':'));
        let digest = digest.and_then(|digest| BASE64.decode(digest).ok()).ok_or_else(malformed)?;
        if digest != digest_of(body) {
            let rule = "is not the SHA-256 of the body: what has come is not what was sent; nothing was put";
            return Err(Problem::field(FIELD, rule).into());
        }
    }
    Ok(())
}

/// Returns the value that is the whole body.
fn read_value(headers: &HeaderMap, media: Media<'_>, body: &Bytes) -> Result<Payload, Failure> {
    const FIELD: &str = "Content-Type";
    match media {
        Media::Json(kind) => Ok(Payload::Json(json::value(body, body)?, ContentType::of_json(FIELD, kind)?)),
        // What curl calls every body unless told otherwise: most who send JSON so mean that.
        Media::Other(kind) if is_form(kind) => match json::value(body, body) {
            Ok(json) => Ok(Payload::Json(json, None)),
            Err(_) => Ok(Payload::Bytes(body.clone(), ContentType::parse(FIELD, kind)?)),
        },
        Media::Other(kind) if content_type::essence(kind).eq_ignore_ascii_case("multipart/form-data") => {
            Err(Problem::new(
                Code::UnsupportedMediaType,
                "the body is a form of several parts (`multipart/form-data`), and a key has one value; send the file itself, as with `curl -T FILE -H 'Content-Type: image/png'`",
            )
            .into())
        }
        Media::Other(kind) if !has_subtype(kind) => {
            Err(Problem::field(FIELD, "must be a media type, as in `text/plain` or `image/png`").into())
        }
        Media::Other(kind) => Ok(Payload::Bytes(body.clone(), ContentType::parse(FIELD, kind)?)),
        Media::Ndjson => {
            let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
            Ok(Payload::Bytes(body.clone(), ContentType::parse(FIELD, kind)?))
        }
        Media::Unnamed if body.is_empty() => Err(Problem::new(
            Code::InvalidRequest,
            "the request has no body, which would be the value; one that is to be empty needs a `Content-Type`",
        )
        .into()),
        Media::Unnamed => Ok(Payload::Bytes(body.clone(), ContentType::parse(FIELD, content_type::BYTES)?)),
    }
}

impl Http {
    /// Changes keys, and counts what came of it.
    ///
    /// # Errors
    /// As the gate's.
    async fn change_keys(
        &self,
        gate: &Gate,
        bucket: &BucketName,
        drafts: Vec<KeyChangeDraft>,
        key: Option<IdempotencyKey>,
        fence: Option<Fence>,
        is_batch: bool,
    ) -> Result<KeysMade, Failure> {
        let made = self.counted_keys(gate.change_keys(bucket, drafts, key, fence, is_batch).await)?;
        self.0.metrics.keys().changed(made.changed.len(), made.replayed);
        Ok(made)
    }

    /// Puts a key under a lease, and counts what came of it.
    ///
    /// # Errors
    /// As the gate's.
    async fn put_key_under(
        &self,
        gate: &Gate,
        bucket: &BucketName,
        draft: KeyChangeDraft,
        once: (Option<IdempotencyKey>, Option<Fence>),
        lease: &LeaseHold,
    ) -> Result<KeysMade, Failure> {
        let made = self.counted_keys(gate.put_key_under(bucket, draft, once, lease).await)?;
        self.0.metrics.keys().changed(made.changed.len(), made.replayed);
        Ok(made)
    }

    /// Counts changes of keys that were refused.
    fn counted_keys<T>(&self, result: Result<T, Failure>) -> Result<T, Failure> {
        result.inspect_err(|failure| self.0.metrics.keys().refused(failure.code()))
    }
}
