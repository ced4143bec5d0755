//! Pages of keys, and the revisions of one.

use axum::Extension;
use axum::extract::State;
use axum::http::header::{CONTENT_TYPE, ETAG, HeaderValue, VARY};
use axum::http::{HeaderMap, Method, Uri};
use axum::response::{IntoResponse as _, Response};
use tidemill_proto::keys::{Key, KeyRef};
use tidemill_proto::limits::{KEYS_PAGE_DEFAULT, KEYS_PAGE_MAX};
use tidemill_proto::{BucketName, KeyName, PayloadRef, Problem};

use super::Verbatim;
use crate::http::accept::{self, Wanted};
use crate::http::counted::Counted;
use crate::http::failure::Problems;
use crate::http::linked::linked;
use crate::http::media::APPLICATION_JSON;
use crate::http::path::BucketPath;
use crate::http::streamed::{LAST_EVENT_ID_NAMES, MEMBER, PRESENCE, Streamed, TICKET};
use crate::http::{Http, live, query, stream, watch};
use crate::relay::{Failure, Gate, KeyEntry, parse_key, parse_prefix};

/// Bytes of a key in JSON beside its value, about.
const FRAME_BYTES: usize = 200;

/// List the keys of a bucket, or watch them
///
/// In the order of their names, all of a page as they were at one moment. Where there are more, the header `Link` has the
/// address of the next page; a page with values ends early where they weigh much.
///
/// With `Accept: text/event-stream` or `application/x-ndjson` they come as a stream: what there is, `synced`, and then
/// every change, or, behind the last event's id, the changes since.
#[utoipa::path(
    get, path = "/api/v1/keys/{bucket}", tag = "keys", operation_id = "list_keys",
    params(
        ("bucket" = String, Path, description = "The name of the bucket"),
        ("prefix" = Option<String>, Query, description = "Only keys that begin so"),
        ("after" = Option<KeyName>, Query, description = "The key behind which to go on"),
        ("limit" = Option<usize>, Query, description = "Most keys, 1 to 1,000; 100 if absent"),
        ("values" = Option<bool>, Query, description = "Whether the values come with the keys"),
        ("key" = Option<KeyName>, Query, description = "Streams: only this key"),
        ("last_event_id" = Option<String>, Query, description = "Streams: as the header, for clients that cannot set one; `lastEventId` and `Last-Event-ID` mean the same"),
        ("ticket" = Option<String>, Query, description = "Streams: a ticket, in place of `Authorization`, for clients that can send none"),
        ("presence" = Option<String>, Query, description = "Streams: a room of which the stream is a member as long as it is open"),
        ("member" = Option<String>, Query, description = "Streams: as whom; a name is made up if it is absent"),
        ("Last-Event-ID" = Option<String>, Header, description = "Streams: the id of the last event, to resume after it"),
    ),
    responses(
        (status = 200, content((Vec<Key> = "application/json"), (String = "text/event-stream"), (String = "application/x-ndjson")), headers(("Link" = String, description = "`<…>; rel=\"next\"`, where there are more"))),
        Problems,
    ),
)]
pub(in crate::http) async fn list(
    State(http): State<Http>,
    Streamed(gate): Streamed,
    BucketPath(bucket): BucketPath,
    method: Method,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Failure> {
    let [one, two, three] = LAST_EVENT_ID_NAMES;
    let names = ["prefix", "after", "limit", "values", "key", one, two, three, PRESENCE, MEMBER, TICKET];
    let [prefix, after, limit, values, key, one, two, three, presence, member, _] =
        query::parameters(&uri, names)?;
    let last_event_id = live::named_event_id([one, two, three]);
    let form = accept::wanted(&headers);
    if form != Wanted::Page {
        for (name, value) in [("after", after), ("limit", limit), ("values", values)] {
            if value.is_some() {
                return Err(Problem::field(name, "does not fit a stream; leave it out").into());
            }
        }
        let stream =
            watch::follow(&http, &gate, form, &bucket, &headers, [prefix, key], last_event_id).await?;
        return Ok(stream::to(&method, stream));
    }
    let of_streams = [
        last_event_id.map(|(name, _)| name),
        key.map(|_| "key"),
        presence.map(|_| PRESENCE),
        member.map(|_| MEMBER),
    ];
    if let Some(name) = of_streams.into_iter().flatten().next() {
        let rule = "is for streams; ask for one with `Accept: text/event-stream`";
        return Err(Problem::field(name, rule).into());
    }
    let prefix = parse_prefix("prefix", prefix.as_deref().unwrap_or_default())?;
    let after = after.as_deref().map(|text| parse_key("after", text)).transpose()?;
    let limit = query::limit(limit.as_deref(), KEYS_PAGE_DEFAULT, KEYS_PAGE_MAX)?;
    let values = query::switch("values", values.as_deref())?;
    let page = gate.list_keys(&bucket, prefix.clone(), after, limit, values).await?;
    let body = http.0.budget.charge(bytes_of(&page.entries), || {
        let mut out = Vec::with_capacity(bytes_of(&page.entries));
        write_list(&page.entries, &mut out);
        out
    })?;
    // `Accept` decides between a page and a stream.
    let kind = [(CONTENT_TYPE, APPLICATION_JSON), (VARY, HeaderValue::from_static("accept"))];
    let next = page.next.map(|next| {
        let prefix = if prefix.is_empty() { String::new() } else { format!("&prefix={prefix}") };
        let values = if values { "&values=true" } else { "" };
        format!("/api/v1/keys/{bucket}?limit={limit}&after={next}{prefix}{values}")
    });
    Ok(linked((kind, Extension(Counted), body), next))
}

/// Returns the revisions that are kept of a key.
pub(super) async fn history(
    http: &Http,
    gate: &Gate,
    bucket: &BucketName,
    key: &KeyName,
) -> Result<Response, Failure> {
    let entries = gate.key_history(bucket, key).await?;
    let body = http.0.budget.charge(bytes_of(&entries), || {
        let mut out = Vec::with_capacity(bytes_of(&entries));
        out.extend_from_slice(format!(r#"{{"bucket":"{bucket}","key":"{key}","revisions":"#).as_bytes());
        write_list(&entries, &mut out);
        out.push(b'}');
        out
    })?;
    let mut response = ([(CONTENT_TYPE, APPLICATION_JSON)], Extension(Counted), body).into_response();
    if let Some(current) = entries.first() {
        response.headers_mut().insert(ETAG, super::etag(current.revision));
        response.extensions_mut().insert(Verbatim);
    }
    Ok(response)
}

fn bytes_of(entries: &[KeyEntry]) -> usize {
    let value = |entry: &KeyEntry| entry.value.as_ref().map_or(0, |value| value.bytes.len());
    entries.iter().map(|entry| FRAME_BYTES + value(entry)).sum()
}

fn write_list(entries: &[KeyEntry], out: &mut Vec<u8>) {
    out.push(b'[');
    for (at, entry) in entries.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        as_wire(entry).write_json(out);
    }
    out.push(b']');
}

/// Returns a key as it is written; its value is copied as it is kept, and never decoded.
pub(in crate::http) fn as_wire(entry: &KeyEntry) -> KeyRef<'_> {
    let KeyEntry {
        key,
        revision,
        created_at,
        expires_at,
        owner,
        value,
        digest: _,
        fresh_until: _,
        is_counted: _,
    } = entry;
    let damaged = !entry.is_sound();
    let value = value
        .as_ref()
        .filter(|_| !damaged)
        .map(|value| PayloadRef { bytes: &value.bytes, content_type: value.content_type.as_deref() });
    KeyRef {
        key,
        revision: *revision,
        created_at: *created_at,
        expires_at: *expires_at,
        owner: owner.as_ref(),
        value,
        damaged,
    }
}
