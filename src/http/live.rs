//! Reading live: where a stream starts, and which topics it has.

use std::borrow::Cow;
use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::header::HeaderName;
use axum::http::{HeaderMap, Method, Uri};
use axum::response::Response;
use tidemill_proto::{Code, Cursor, Problem, Since, TopicName};
use utoipa_axum::routes;

use super::accept::Wanted;
use super::called::Called;
use super::events::Events;
use super::failure::Problems;
use super::lines::Lines;
use super::resume::{self, Places, Resume};
use super::routes::{Concern, Needs};
use super::stream::Opening;
use super::{Http, accept, query, stream};
use crate::access::Verb;
use crate::relay::{Absent, Begun, Failure, Gate, parse_id, parse_since, parse_topic};

/// The header with which a browser resumes.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// The parameter that has topics refused which do not exist, in place of waiting for them.
pub(super) const MUST_EXIST: &str = "must_exist";

pub(super) const LATEST: Since = Since::Cursor(Cursor::Latest);

/// What the query of a topic's messages says, as text.
pub(super) type Text<'a> = Option<Cow<'a, str>>;

/// The parameters that stand for the header with which a browser resumes, for clients that cannot set one.
/// Who has several is resumed by the first that says something: libraries add the names that stand in front
/// when they connect again, and leave what a page has written itself.
pub(super) const LAST_EVENT_ID_NAMES: [&str; 3] = ["lastEventId", "Last-Event-ID", "last_event_id"];

/// The id of the last event that a reader has dealt with, and where it stands.
pub(super) type EventId<'a> = Option<(&'static str, Cow<'a, str>)>;

/// Returns the id that the parameters [`LAST_EVENT_ID_NAMES`] say.
pub(super) fn named_event_id(values: [Text<'_>; 3]) -> EventId<'_> {
    let values = LAST_EVENT_ID_NAMES.into_iter().zip(values);
    values.filter_map(|(name, value)| Some((name, value?))).find(|(_, value)| !value.is_empty())
}

/// Parses [`MUST_EXIST`]: what it means to who reads live that a topic does not exist.
///
/// # Errors
/// The text is neither `true` nor `false`.
pub(super) fn absent(text: Option<&str>) -> Result<Absent, Failure> {
    Ok(if query::switch(MUST_EXIST, text)? { Absent::Refuse } else { Absent::Await })
}

/// Parses a reader's words for a cursor, which may be a cursor that it was given.
///
/// # Errors
/// The text has none of the forms; the problem names the field.
pub(super) fn since(field: &str, text: &str) -> Result<Since, Failure> {
    Ok(match parse_since(field, text)? {
        Since::Cursor(Cursor::After(id)) => resume::after(id),
        since => since,
    })
}

/// Answers with the messages of one topic as they come.
pub(super) async fn follow(
    http: &Http,
    gate: &Gate,
    wanted: Wanted,
    topic: &TopicName,
    headers: &HeaderMap,
    [cursor, after, must_exist]: [Text<'_>; 3],
    named: EventId<'_>,
) -> Result<Response, Failure> {
    let absent = absent(must_exist.as_deref())?;
    let since = match (event_id(headers, named)?, &cursor, &after) {
        (_, Some(_), Some(_)) => return Err(two_places()),
        (Some((field, id)), ..) => resume::after(parse_id(field, &id)?),
        (None, Some(cursor), None) => resume::after(parse_id("cursor", cursor)?),
        (None, None, Some(after)) => since("after", after)?,
        (None, None, None) => LATEST,
    };
    let mut reader = gate.live_reader();
    let begun = reader.add(topic, since, absent).await?;
    let start = resume::start(since, begun.cursor);
    let absent = if begun.exists { Vec::new() } else { vec![topic.clone()] };
    let opening = Opening { cursors: [(topic.clone(), start)].into(), absent };
    Ok(match wanted {
        Wanted::Lines => stream::respond(http, reader, Lines, opening),
        Wanted::Events | Wanted::Page => stream::respond(http, reader, Events::of_topic(start), opening),
    })
}

pub(super) fn routes() -> Concern {
    Concern::new().route(Needs::Right(Verb::Read), routes!(stream))
}

/// Follow several topics as server-sent events
///
/// An event's id holds a cursor for each topic, so `Last-Event-ID` resumes all of them. With
/// `Accept: application/x-ndjson` the frames come as lines instead.
#[utoipa::path(
    get, path = "/api/v1/stream", tag = "messages", operation_id = "follow_topics",
    params(
        ("topics" = String, Query, description = "Names, with commas between them"),
        ("after" = Option<String>, Query, description = "Where to start in every topic: an id, `earliest`, `latest` (if absent), a time, or `-10m`"),
        ("must_exist" = Option<bool>, Query, description = "Whether a topic that does not exist is refused; else it is waited for, and named in `absent`"),
        ("last_event_id" = Option<String>, Query, description = "As the header, for clients that cannot set one; `lastEventId` and `Last-Event-ID` mean the same"),
        ("Last-Event-ID" = Option<String>, Header, description = "The id of the last event, to resume after it"),
    ),
    responses(
        (status = 200, description = "Events, as they come", content_type = "text/event-stream"),
        Problems,
    ),
)]
pub(super) async fn stream(
    State(http): State<Http>,
    Called(gate): Called,
    method: Method,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Failure> {
    let [one, two, three] = LAST_EVENT_ID_NAMES;
    let names = ["topics", "after", MUST_EXIST, one, two, three];
    let [topics, after, must_exist, one, two, three] = query::parameters(&uri, names)?;
    let refuse_or_await = absent(must_exist.as_deref())?;
    let topics = parse_topics(topics.as_deref(), http.0.options.stream_topics_max)?;
    let after = after.map_or(Ok(LATEST), |after| since("after", &after))?;
    let mut resume = event_id(&headers, named_event_id([one, two, three]))?
        .map(|(field, id)| Resume::parse(&id).map_err(|error| Failure::from(Problem::field(field, error))))
        .transpose()?;
    let mut reader = gate.live_reader();
    let (mut cursors, mut absent, mut unknown) = (BTreeMap::new(), Vec::new(), Vec::new());
    for topic in topics {
        let resumed = resume.as_mut().and_then(|resume| resume.take(&topic));
        let since = resumed.map_or(after, resume::after);
        match reader.add(&topic, since, refuse_or_await).await {
            Ok(Begun { cursor, exists }) => {
                if !exists {
                    absent.push(topic.clone());
                }
                cursors.insert(topic, resume::start(since, cursor));
            }
            Err(failure) if failure.code() == Code::TopicNotFound => unknown.push(format!("`{topic}`")),
            Err(failure) => return Err(failure),
        }
    }
    if !unknown.is_empty() {
        let detail = format!("there is no topic {}", unknown.join(", "));
        return Err(Problem::new(Code::TopicNotFound, detail).into());
    }
    let opening = Opening { cursors, absent };
    let response = match accept::wanted(&headers) {
        Wanted::Lines => stream::respond(&http, reader, Lines, opening),
        Wanted::Events | Wanted::Page => {
            let events = Events::of_topics(Places::new(opening.cursors.clone()));
            stream::respond(&http, reader, events, opening)
        }
    };
    Ok(stream::to(&method, response))
}

/// Returns the failure of a request that says twice where it starts.
pub(super) fn two_places() -> Failure {
    Problem::field("after", "cannot stand beside `cursor`; write one of them").into()
}

/// Parses a list of topics; returns them in the order of their names, each once.
fn parse_topics(text: Option<&str>, max: usize) -> Result<Vec<TopicName>, Failure> {
    let Some(text) = text else {
        return Err(Problem::field("topics", "is missing; write names with commas between them").into());
    };
    let mut topics = Vec::new();
    for name in text.split(',') {
        topics.push(parse_topic("topics", name)?);
        if topics.len() > max {
            let rule = format!("names more than {max} topics (setting `TIDEMILL_STREAM_TOPICS_MAX`)");
            return Err(Problem::field("topics", rule).into());
        }
    }
    topics.sort_unstable();
    topics.dedup();
    Ok(topics)
}

/// Returns the id of the last event that a reader has dealt with, and where it stands. A browser keeps
/// the query when it connects again, so the header is the newer one.
fn event_id<'a>(headers: &'a HeaderMap, named: EventId<'a>) -> Result<EventId<'a>, Failure> {
    let header = headers.get(LAST_EVENT_ID).filter(|id| !id.is_empty());
    match header.map(|id| id.to_str()) {
        Some(Ok(id)) => Ok(Some(("Last-Event-ID", Cow::Borrowed(id)))),
        Some(Err(_)) => Err(Problem::field("Last-Event-ID", "must be the id of an event").into()),
        None => Ok(named),
    }
}
