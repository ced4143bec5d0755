//! Reading: pages of messages, and one message by its id.

use std::io::Write as _;
use std::time::Duration;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::{CONTENT_TYPE, VARY};
use axum::http::{HeaderMap, HeaderValue, Method, Uri};
use axum::response::{IntoResponse as _, Response};
use tidemill_proto::limits::{PAGE_MESSAGES_DEFAULT, PAGE_MESSAGES_MAX};
use tidemill_proto::page::{Order, Page};
use tidemill_proto::{Gap, Message, MessageId, Problem, TopicName, duration};
use utoipa_axum::routes;

use super::accept::Wanted;
use super::called::Called;
use super::counted::Counted;
use super::etag::Validator;
use super::failure::Problems;
use super::live::View;
use super::media::APPLICATION_JSON;
use super::path::{MessagePath, TopicPath};
use super::routes::{Concern, Needs};
use super::streamed::{LAST_EVENT_ID_NAMES, MEMBER, PRESENCE, Streamed, TICKET};
use super::{Http, accept, live, query, stream, waiting};
use crate::access::Verb;
use crate::relay::{
    Absent, Batch, Failure, PageRequest, Start, StoredMessage, as_wire, parse_id, parse_since,
};

/// Bytes of a message's JSON beside its payload and metadata, about.
const FRAME_BYTES: usize = 160;

pub(super) fn routes() -> Concern {
    Concern::new()
        .route(Needs::Right(Verb::Read), routes!(read))
        .route(Needs::Right(Verb::Read), routes!(read_one))
}

/// Read a page of messages, or follow them
///
/// `cursor` goes on from a message id, itself excluded, in the direction of `order`; `next_cursor` of
/// one page is the `cursor` of the next. `after` starts a page that is read forward: after an id, at
/// `earliest`, `latest`, an RFC 3339 time, or a time ago as in `-10m`. With `wait`, a page that would
/// be empty is answered when there is a message, or the seconds are over.
///
/// With `view=latest` it has the latest message of each key of a topic that is compacted (`compact_by`), and reads
/// forward, from the start if it says no place.
///
/// With `Accept: text/event-stream` or `application/x-ndjson` the messages come as a stream: from now
/// on, or from `after`, `cursor` or the last event's id.
#[utoipa::path(
    get, path = "/api/v1/topics/{topic}/messages", tag = "messages", operation_id = "read_messages",
    params(
        ("topic" = String, Path, description = "The name of the topic"),
        ("limit" = Option<usize>, Query, description = "Most messages, 1 to 1,000; 10 if absent"),
        ("order" = Option<Order>, Query, description = "`desc` (newest first) if absent"),
        ("cursor" = Option<String>, Query, description = "A message id to go on from"),
        ("after" = Option<String>, Query, description = "An id, `earliest`, `latest`, a time, or `-10m`; reads forward"),
        ("wait" = Option<String>, Query, description = "How long to wait for a message: seconds, or text with a unit, 1 to 60 s; reads forward"),
        ("view" = Option<String>, Query, description = "`latest`: the latest message of each key, and then live all"),
        ("must_exist" = Option<bool>, Query, description = "Streams, and pages with `wait`: whether a topic that does not exist is refused; else it is waited for"),
        ("last_event_id" = Option<String>, Query, description = "Streams: as the header, for clients that cannot set one; `lastEventId` and `Last-Event-ID` mean the same"),
        ("presence" = Option<String>, Query, description = "Streams: a room of which the stream is a member as long as it is open"),
        ("member" = Option<String>, Query, description = "Streams: as whom; a name is made up if it is absent"),
        ("Last-Event-ID" = Option<String>, Header, description = "Streams: the id of the last event, to resume after it"),
    ),
    responses(
        (status = 200, content((Page = "application/json"), (String = "text/event-stream"), (String = "application/x-ndjson"))),
        Problems,
    ),
)]
pub(super) async fn read(
    State(http): State<Http>,
    Streamed(gate): Streamed,
    TopicPath(topic): TopicPath,
    method: Method,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Failure> {
    let [one, two, three] = LAST_EVENT_ID_NAMES;
    let names = [
        "limit",
        "order",
        "cursor",
        "after",
        "wait",
        live::VIEW,
        live::MUST_EXIST,
        one,
        two,
        three,
        PRESENCE,
        MEMBER,
        TICKET,
    ];
    let [limit, order, cursor, after, wait, view, must_exist, one, two, three, presence, member, _] =
        query::parameters(&uri, names)?;
    let last_event_id = live::named_event_id([one, two, three]);
    let view = live::view(view.as_deref())?;
    let form = accept::wanted(&headers);
    if form != Wanted::Page {
        for (name, value) in [("limit", limit), ("order", order), ("wait", wait)] {
            if value.is_some() {
                return Err(Problem::field(name, "does not fit a stream; leave it out").into());
            }
        }
        let words = [cursor, after, must_exist];
        let stream = live::follow(&http, &gate, form, (&topic, view), &headers, words, last_event_id).await?;
        return Ok(stream::to(&method, stream));
    }
    if let Some((name, _)) = last_event_id {
        let rule = "is for streams; ask for one with `Accept: text/event-stream`, or write `after`";
        return Err(Problem::field(name, rule).into());
    }
    for (name, value) in [(PRESENCE, presence), (MEMBER, member)] {
        if value.is_some() {
            return Err(Problem::field(name, "is for streams: a page is over at once").into());
        }
    }
    let absent = live::absent(must_exist.as_deref())?;
    if absent == Absent::Await && must_exist.is_some() && wait.is_none() {
        let rule = "needs `wait`: a page that waits for nothing is of a topic that exists";
        return Err(Problem::field(live::MUST_EXIST, rule).into());
    }
    let limit = query::limit(limit.as_deref(), PAGE_MESSAGES_DEFAULT, PAGE_MESSAGES_MAX)?;
    let order = order
        .map(|text| text.parse::<Order>().map_err(|error| Failure::from(Problem::field("order", error))))
        .transpose()?;
    let start = start(cursor.as_deref(), after.as_deref(), (order, view))?;
    let asked = cursor.or(after);
    let page = if let Some(wait) = wait {
        if order == Some(Order::Desc) {
            return Err(Problem::field("wait", "reads forward; leave `order` out, or write `asc`").into());
        }
        let since = match start {
            Start::End if view == View::Latest => live::EARLIEST,
            Start::End => live::LATEST,
            Start::After(id) => live::after(id),
            Start::Since(since) => since,
        };
        let wait = waiting::bounded("wait", duration::parse(&wait).ok())?;
        let found = waiting::page(&http, &gate, (&topic, view), (since, absent), limit, wait).await?;
        let around = Around {
            limit,
            order: Order::Asc,
            cursor: asked.as_deref(),
            next: found.messages.last().map(|message| message.id()),
            gap: found.gaps.first(),
            resume: Some(found.resume),
            absent: !found.absent.is_empty(),
            age: None,
        };
        let messages = found.messages.iter().map(|message| message.stored());
        http.0.budget.charge(found.bytes, || write_page(&topic, messages, around))
    } else {
        let forward = matches!(start, Start::Since(_));
        let order = if forward { Order::Asc } else { order.unwrap_or_default() };
        let (order, batch) = match view {
            View::All => (order, gate.read(&topic, PageRequest { order, start, limit }).await?),
            View::Latest => (Order::Asc, gate.read_latest(&topic, start, limit).await?),
        };
        http.0.metrics.messages().served(batch.messages.len());
        let Batch { next, gap, age, .. } = &batch;
        let (cursor, gap) = (asked.as_deref(), gap.as_ref());
        let (next, age) = (*next, *age);
        let around = Around { limit, order, cursor, next, gap, resume: None, absent: false, age };
        let bytes = batch.messages.iter().map(|message| message.body.len_bytes()).sum();
        http.0.budget.charge(bytes, || write_page(&topic, batch.messages.iter(), around))
    };
    // A reader that takes its time must not let pages pile up without a bound.
    let page = page?;
    // `Accept` decides between a page and a stream.
    let vary = HeaderValue::from_static("accept");
    Ok(([(CONTENT_TYPE, APPLICATION_JSON), (VARY, vary)], Extension(Counted), page).into_response())
}

/// Returns where a page starts whose reader says this.
///
/// # Errors
/// It says what does not fit together, or a place that is none.
fn start(
    cursor: Option<&str>,
    after: Option<&str>,
    (order, view): (Option<Order>, View),
) -> Result<Start, Failure> {
    if let (View::Latest, Some(Order::Desc)) = (view, order) {
        return Err(Problem::field("order", "does not fit `view=latest`, which reads forward").into());
    }
    match (cursor, after) {
        (Some(_), Some(_)) => Err(live::two_places()),
        (Some(cursor), None) => Ok(Start::After(parse_id("cursor", cursor)?)),
        (None, Some(_)) if order == Some(Order::Desc) => {
            Err(Problem::field("after", "reads forward; leave `order` out, or write `asc`").into())
        }
        (None, Some(after)) => Ok(Start::Since(parse_since("after", after)?)),
        (None, None) => Ok(Start::End),
    }
}

/// What a page says beside its messages.
#[derive(Clone, Copy, Debug)]
struct Around<'a> {
    limit: usize,
    order: Order,
    /// The place as the reader wrote it.
    cursor: Option<&'a str>,
    next: Option<MessageId>,
    gap: Option<&'a Gap>,
    /// Where a reader that waits goes on.
    resume: Option<MessageId>,
    /// Whether it has waited for a topic that does not exist.
    absent: bool,
    /// By how much what was read may be behind.
    age: Option<Duration>,
}

/// Writes a page; payloads are copied into it as they are stored, never decoded.
fn write_page<'a>(
    topic: &TopicName,
    messages: impl ExactSizeIterator<Item = &'a StoredMessage> + Clone,
    around: Around<'_>,
) -> Vec<u8> {
    let Around { limit, order, cursor, next, gap, resume, absent, age } = around;
    let total = messages.len();
    let bytes: usize = messages.clone().map(|message| message.body.len_bytes() + FRAME_BYTES).sum();
    let mut out = Vec::with_capacity(FRAME_BYTES + bytes + total * topic.as_str().len());
    out.extend_from_slice(br#"{"messages":["#);
    for (at, message) in messages.enumerate() {
        if at > 0 {
            out.push(b',');
        }
        as_wire(topic, message).write_json(&mut out);
    }
    // Writing into a vector cannot fail.
    let _ = write!(out, r#"],"total":{total},"limit":{limit},"order":"{order}","cursor":"#);
    let _ = serde_json::to_writer(&mut out, &cursor);
    out.extend_from_slice(br#","next_cursor":"#);
    let _ = serde_json::to_writer(&mut out, &next);
    if let Some(gap) = gap {
        out.extend_from_slice(br#","gap":"#);
        let _ = serde_json::to_writer(&mut out, gap);
    }
    if let Some(resume) = resume {
        let _ = write!(out, r#","resume":"{resume}""#);
    }
    if absent {
        out.extend_from_slice(br#","absent":true"#);
    }
    if let Some(age) = age {
        let _ = write!(out, r#","age_ms":{}"#, age.as_millis());
    }
    out.push(b'}');
    out
}

/// Read one message
#[utoipa::path(
    get, path = "/api/v1/topics/{topic}/messages/{message_id}", tag = "messages", operation_id = "read_message",
    params(
        ("topic" = String, Path, description = "The name of the topic"),
        ("message_id" = String, Path, description = "The id of the message"),
        ("If-None-Match" = Option<String>, Header, description = "The `ETag` of an answer that is known"),
    ),
    responses(
        (status = 200, body = Message),
        (status = 304, description = "It is the one that is known"),
        Problems,
    ),
)]
pub(super) async fn read_one(
    State(http): State<Http>,
    Called(gate): Called,
    MessagePath(topic, id): MessagePath,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Failure> {
    let [] = query::parameters(&uri, [])?;
    let message = gate.message(&topic, id).await?;
    http.0.metrics.messages().served(1);
    let mut out = Vec::with_capacity(message.body.len_bytes() + FRAME_BYTES + topic.as_str().len());
    as_wire(&topic, &message).write_json(&mut out);
    let validator = Validator::of(&[&out]);
    let response = ([(CONTENT_TYPE, APPLICATION_JSON)], Bytes::from(out)).into_response();
    Ok(validator.answer(&headers, response))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_proto::Timestamp;

    #[test]
    fn what_is_written_is_a_page() {
        let topic = TopicName::parse("t").expect("a valid name");
        let message = |seq, payload: &'static str| StoredMessage {
            id: MessageId::new(7, seq),
            timestamp: Timestamp::from_millis(7),
            expires_at: None,
            body: crate::relay::test_body(payload),
        };
        let messages = [message(0, r#"{"a": 1}"#), message(1, "null")];
        let around = Around {
            limit: 10,
            order: Order::Asc,
            cursor: Some("-1\"0m"),
            next: Some(MessageId::new(7, 1)),
            gap: None,
            resume: None,
            absent: true,
            age: Some(Duration::from_millis(1_500)),
        };
        let text = write_page(&topic, messages.iter(), around);
        let page: Page = serde_json::from_slice(&text).expect("a page");
        assert_eq!((page.total, page.limit, page.order), (2, 10, Order::Asc));
        assert_eq!(page.cursor.as_deref(), Some("-1\"0m"));
        assert!(page.absent);
        assert_eq!(page.age_ms, Some(1_500));
        assert_eq!(page.next_cursor, Some(MessageId::new(7, 1)));
        assert_eq!(page.messages[0].payload_bytes().expect("JSON"), br#"{"a": 1}"#);
        let around =
            Around { order: Order::Desc, cursor: None, next: None, absent: false, age: None, ..around };
        let empty: Page = serde_json::from_slice(&write_page(&topic, [].iter(), around)).expect("a page");
        assert!(
            !empty.absent
                && empty.messages.is_empty()
                && empty.cursor.is_none()
                && empty.age_ms.is_none()
                && empty.next_cursor.is_none()
        );
    }
}
