//! Reading live: where a stream starts, and which topics it has.

use std::borrow::Cow;
use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use tidemill_proto::sessions::SessionKind;
use tidemill_proto::{
    Code, MessageId, PatternCursor, Problem, Since, TopicName, TopicPattern, TopicSelector,
};
use utoipa_axum::routes;

use super::accept::Wanted;
use super::events::Events;
use super::failure::Problems;
use super::lines::Lines;
use super::resume::{Places, Resume, TOPICS_BESIDE_PATTERN_MAX};
use super::routes::{Concern, Needs};
use super::stream::{Cursor, Opening};
use super::streamed::{LAST_EVENT_ID, LAST_EVENT_ID_NAMES, MEMBER, PRESENCE, Streamed, TICKET};
use super::{Http, accept, query, stream};
use crate::access::Verb;
use crate::relay::{
    Absent, Begun, Failure, Gate, LiveReader, Outlet, StartAt, parse_id, parse_selector, parse_since,
};

/// The parameter that has topics refused which do not exist, in place of waiting for them.
pub(super) const MUST_EXIST: &str = "must_exist";

/// The parameter that says which messages a reader wants.
pub(super) const VIEW: &str = "view";

pub(super) const EARLIEST: Since = Since::Cursor(tidemill_proto::Cursor::Earliest);
pub(super) const LATEST: Since = Since::Cursor(tidemill_proto::Cursor::Latest);

/// What the query of a topic's messages says, as text.
pub(super) type Text<'a> = Option<Cow<'a, str>>;

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

/// Returns the words for a cursor.
pub(super) const fn after(id: MessageId) -> Since {
    Since::Cursor(tidemill_proto::Cursor::After(id))
}

/// Which messages of a topic a reader wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum View {
    /// All.
    All,
    /// The latest of each key, and what comes live.
    Latest,
}

impl View {
    /// Adds a topic to a reader.
    ///
    /// # Errors
    /// It may not be read, does not exist, or is not compacted.
    pub(super) async fn begin<O: Outlet>(
        self,
        reader: &mut LiveReader<O>,
        topic: &TopicName,
        since: Since,
        absent: Absent,
    ) -> Result<Begun, Failure> {
        match self {
            Self::All => reader.add(topic, since, absent).await,
            Self::Latest => reader.add_latest(topic, since, absent).await,
        }
    }
}

/// Parses [`VIEW`].
///
/// # Errors
/// The text is not `latest`.
pub(super) fn view(text: Option<&str>) -> Result<View, Failure> {
    match text {
        None => Ok(View::All),
        Some("latest") => Ok(View::Latest),
        Some(_) => Err(Problem::field(VIEW, "must be `latest`, or left out").into()),
    }
}

/// Answers with the messages of one topic as they come.
pub(super) async fn follow(
    http: &Http,
    gate: &Gate,
    wanted: Wanted,
    (topic, view): (&TopicName, View),
    headers: &HeaderMap,
    [cursor, after, must_exist]: [Text<'_>; 3],
    named: EventId<'_>,
) -> Result<Response, Failure> {
    let absent = absent(must_exist.as_deref())?;
    let event_id = event_id(headers, named)?;
    let is_resumed = event_id.is_some();
    let since = match (event_id, &cursor, &after) {
        (_, Some(_), Some(_)) => return Err(two_places()),
        (Some((field, id)), ..) => self::after(parse_id(field, &id)?),
        (None, Some(cursor), None) => self::after(parse_id("cursor", cursor)?),
        (None, None, Some(after)) => parse_since("after", after)?,
        (None, None, None) if view == View::Latest => EARLIEST,
        (None, None, None) => LATEST,
    };
    let mut reader = gate.live_reader(SessionKind::Stream);
    let Begun { cursor: start, exists, has_ended } = view.begin(&mut reader, topic, since, absent).await?;
    if has_ended && is_resumed && wanted != Wanted::Lines && gate.is_over(topic, start).await? {
        // A browser that comes back to it stops, and does so on no other answer.
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let absent = if exists { Vec::new() } else { vec![topic.clone()] };
    let opening = Opening { cursors: [(topic.clone().into(), Cursor::Of(start))].into(), absent };
    gate.enter_room().await?;
    Ok(match wanted {
        Wanted::Lines => stream::respond_of_topic(http, reader, Lines, opening),
        Wanted::Events | Wanted::Page => {
            stream::respond_of_topic(http, reader, Events::of_topic(start), opening)
        }
    })
}

pub(super) fn routes() -> Concern {
    Concern::new().route(Needs::Right(Verb::Read), routes!(stream))
}

/// Follow several topics as server-sent events
///
/// An event's id holds a cursor for each topic, so `Last-Event-ID` resumes all of them. With
/// `Accept: application/x-ndjson` the frames come as lines instead. The answer does not end, so a page that waits
/// for its end, as `/docs` does, shows nothing: try it with curl.
#[utoipa::path(
    get, path = "/api/v1/stream", tag = "messages", operation_id = "follow_topics",
    params(
        ("topics" = String, Query, description = "Names, with commas between them; one of them may be a pattern, `orders.*`"),
        ("after" = Option<String>, Query, description = "Where to start in every topic: an id, `earliest`, `latest` (if absent), a time, or `-10m`; of a pattern alone also its cursor"),
        ("must_exist" = Option<bool>, Query, description = "Whether a topic that does not exist is refused; else it is waited for, and named in `absent`"),
        ("last_event_id" = Option<String>, Query, description = "As the header, for clients that cannot set one; `lastEventId` and `Last-Event-ID` mean the same"),
        ("ticket" = Option<String>, Query, description = "A ticket, in place of `Authorization`, for clients that can send none"),
        ("presence" = Option<String>, Query, description = "A room of which the stream is a member as long as it is open"),
        ("member" = Option<String>, Query, description = "As whom; a name is made up if it is absent"),
        ("Last-Event-ID" = Option<String>, Header, description = "The id of the last event, to resume after it"),
    ),
    responses(
        (status = 200, description = "Events, as they come", content_type = "text/event-stream"),
        Problems,
    ),
)]
pub(super) async fn stream(
    State(http): State<Http>,
    Streamed(gate): Streamed,
    method: Method,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Failure> {
    let [one, two, three] = LAST_EVENT_ID_NAMES;
    let names = ["topics", "after", MUST_EXIST, one, two, three, TICKET, PRESENCE, MEMBER];
    let [topics, after, must_exist, one, two, three, ..] = query::parameters(&uri, names)?;
    let refuse_or_await = absent(must_exist.as_deref())?;
    let (topics, pattern) = parse_topics(topics.as_deref(), http.0.options.stream_topics_max)?;
    let after = after.map_or(Ok(StartAt::Since(LATEST)), |after| from(&after))?;
    let (mut resume, mut resume_pattern) = (None, None);
    if let Some((field, id)) = event_id(&headers, named_event_id([one, two, three]))? {
        let parsed = Resume::parse(&id).map_err(|error| Problem::field(field, error))?;
        resume_pattern =
            parsed.pattern.as_ref().map(|text| StartAt::parse_cursor(field, text)).transpose()?;
        resume = Some(parsed);
    }
    let mut reader = gate.live_reader(SessionKind::Stream);
    let (mut cursors, mut absent, mut unknown) = (BTreeMap::new(), Vec::new(), Vec::new());
    for topic in topics {
        let resumed = resume.as_mut().and_then(|resume| resume.take(&topic));
        let since = match (resumed, &after) {
            (Some(id), _) => self::after(id),
            (None, StartAt::Since(since)) => *since,
            (None, StartAt::Cursor(_)) => {
                let rule = "is the cursor of a pattern, and does not fit the other topics";
                return Err(Problem::field("after", rule).into());
            }
        };
        match reader.add(&topic, since, refuse_or_await).await {
            Ok(Begun { cursor, exists, .. }) => {
                if !exists {
                    absent.push(topic.clone());
                }
                cursors.insert(topic, cursor);
            }
            Err(failure) if failure.code() == Code::TopicNotFound => unknown.push(format!("`{topic}`")),
            Err(failure) => return Err(failure),
        }
    }
    if !unknown.is_empty() {
        let detail = format!("there is no topic {}", unknown.join(", "));
        return Err(Problem::new(Code::TopicNotFound, detail).into());
    }
    let mut opening = Opening {
        cursors: cursors.iter().map(|(topic, id)| (topic.clone().into(), Cursor::Of(*id))).collect(),
        absent,
    };
    let places = Places::new(cursors);
    let events = match pattern {
        None => Events::of_topics(places),
        Some(pattern) => {
            let start = reader.add_pattern(&pattern, &resume_pattern.unwrap_or(after)).await?;
            let beside = (!opening.cursors.is_empty()).then_some(places);
            opening.cursors.insert(pattern.into(), Cursor::OfPattern(start.clone()));
            Events::of_pattern(start, beside)
        }
    };
    gate.enter_room().await?;
    let response = match accept::wanted(&headers) {
        Wanted::Lines => stream::respond(&http, reader, Lines, opening),
        Wanted::Events | Wanted::Page => stream::respond(&http, reader, events, opening),
    };
    Ok(stream::to(&method, response))
}

/// Returns the failure of a request that says twice where it starts.
pub(super) fn two_places() -> Failure {
    Problem::field("after", "cannot stand beside `cursor`; write one of them").into()
}

/// Parses where to start in topics and patterns.
///
/// # Errors
/// The text has none of the forms.
fn from(text: &str) -> Result<StartAt, Failure> {
    if text.starts_with(PatternCursor::PREFIX) {
        return StartAt::parse_cursor("after", text);
    }
    parse_since("after", text).map(StartAt::Since)
}

/// Parses a list of topics; returns them in the order of their names, each once, and the pattern among them.
fn parse_topics(text: Option<&str>, max: usize) -> Result<(Vec<TopicName>, Option<TopicPattern>), Failure> {
    let Some(text) = text else {
        return Err(Problem::field("topics", "is missing; write names with commas between them").into());
    };
    let (mut topics, mut pattern) = (Vec::new(), None);
    for name in text.split(',') {
        match parse_selector("topics", name)? {
            TopicSelector::Topic(topic) => topics.push(topic),
            TopicSelector::Pattern(other) => match pattern.replace(other.clone()) {
                Some(first) if first != other => {
                    let rule = "names two patterns; a stream has one of them at most";
                    return Err(Problem::field("topics", rule).into());
                }
                _ => {}
            },
        }
        if topics.len() > max {
            let rule = format!("names more than {max} topics (setting `TIDEMILL_STREAM_TOPICS_MAX`)");
            return Err(Problem::field("topics", rule).into());
        }
    }
    if pattern.is_some() && topics.len() > TOPICS_BESIDE_PATTERN_MAX {
        let rule = format!("names more than {TOPICS_BESIDE_PATTERN_MAX} topics beside a pattern");
        return Err(Problem::field("topics", rule).into());
    }
    topics.sort_unstable();
    topics.dedup();
    Ok((topics, pattern))
}

/// Returns the id of the last event that a reader has dealt with, and where it stands. A browser keeps
/// the query when it connects again, so the header is the newer one.
pub(super) fn event_id<'a>(headers: &'a HeaderMap, named: EventId<'a>) -> Result<EventId<'a>, Failure> {
    let mut ids = headers.get_all(LAST_EVENT_ID).iter().filter(|id| !id.is_empty());
    let refused = |rule| Err(Problem::field("Last-Event-ID", rule).into());
    match (ids.next(), ids.next()) {
        (None, _) => Ok(named),
        (Some(id), None) => match id.to_str() {
            Ok(id) => Ok(Some(("Last-Event-ID", Cow::Borrowed(id)))),
            Err(_) => refused("must be the id of an event"),
        },
        (Some(_), Some(_)) => refused("is there twice"),
    }
}
