//! Long-polls over several topics, in the shapes of today's clients.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::io::Write as _;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::Uri;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tidemill_proto::limits::{PAGE_MESSAGES_MAX, POLL_SECONDS_DEFAULT, POLL_TOPICS_MAX};
use tidemill_proto::sessions::SessionKind;
use tidemill_proto::{Gap, Message, MessageId, Problem, Since, TopicName, duration};
use utoipa_axum::routes;

use super::called::Called;
use super::counted::Counted;
use super::failure::Problems;
use super::media::APPLICATION_JSON;
use super::routes::{Concern, Needs};
use super::waiting::{Found, Holes};
use super::{Http, json, live, media, query, waiting};
use crate::access::Verb;
use crate::relay::{Absent, Failure, as_wire, parse_since, parse_topic};

/// A poll, as a client writes it.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[expect(dead_code, reason = "it documents the body, which is read field by field")]
pub(super) struct PollRequest {
    /// 1 to 20 topics; one that does not exist yet is waited for.
    #[schema(min_items = 1, max_items = 20)]
    topics: Vec<TopicName>,
    /// Where to go on, by topic: a message id, or any other cursor. A topic without one is read from
    /// now on.
    since: Option<HashMap<String, String>>,
    /// How long to wait: a number of seconds, or text with a unit, 1 to 60 s; 30 s if absent.
    #[schema(minimum = 1, maximum = 60)]
    timeout: Option<u64>,
}

/// The answer to a poll.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct PollAnswer {
    /// The messages.
    messages: Vec<PolledMessage>,
    /// Whether there may be more at once.
    has_more: bool,
    /// Where to go on in each topic: the next poll's `since`.
    cursors: BTreeMap<String, MessageId>,
    /// What is missing; absent where nothing is.
    #[schema(nullable = false)]
    gaps: Option<Vec<Gap>>,
    /// The topics that do not exist; absent where all do.
    #[schema(nullable = false)]
    absent: Option<Vec<TopicName>>,
    /// The topics that take no messages any more, of which all came; absent where there is none.
    #[schema(nullable = false)]
    closed: Option<Vec<TopicName>>,
}

/// A message as a poll tells it: with its id twice, and always with `metadata`.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct PolledMessage {
    /// The message.
    #[serde(flatten)]
    message: Message,
    /// The id of the message.
    stream_id: MessageId,
}

/// What a poll asks for.
struct Poll {
    topics: Vec<(TopicName, Since)>,
    wait: Duration,
}

pub(super) fn routes() -> Concern {
    Concern::new()
        .route(Needs::Right(Verb::Read), routes!(poll))
        .route(Needs::Right(Verb::Admin), routes!(stats))
}

/// Wait for messages of several topics
#[utoipa::path(
    post, path = "/messages/poll", tag = "messages",
    request_body = PollRequest,
    responses(
        (status = 200, body = PollAnswer),
        Problems,
    ),
)]
pub(super) async fn poll(
    State(http): State<Http>,
    Called(gate): Called,
    request: Request,
) -> Result<Response, Failure> {
    let (head, body) = request.into_parts();
    let [] = query::parameters(&head.uri, [])?;
    media::require_json(&head.headers)?;
    gate.check_some_topic(Verb::Read)?;
    let body = http.0.budget.receive(&head.headers, body, http.small_limit()).await?;
    let Poll { topics, wait } = parse(&body.bytes)?;
    drop(body);
    let mut reader = gate.live_reader(SessionKind::Poll);
    for (topic, since) in &topics {
        reader.add(topic, *since, Absent::Await).await?;
    }
    let mut found = Found::new(MessageId::MIN);
    {
        let names: Vec<_> = topics.iter().map(|(topic, _)| topic.clone()).collect();
        let _waiter = http.0.waiters.enter(&names);
        found.wait(&http, &mut reader, PAGE_MESSAGES_MAX, wait, Holes::Any).await;
    }
    let cursors = reader.cursors().into_iter().collect();
    let answer = http.0.budget.charge(found.bytes, || write_answer(&found, &cursors))?;
    Ok(([(CONTENT_TYPE, APPLICATION_JSON)], Extension(Counted), answer).into_response())
}

fn parse(body: &[u8]) -> Result<Poll, Failure> {
    let [topics, since, timeout] = json::fields::<&RawValue, 3>(body, ["topics", "since", "timeout"])?;
    let topics = topics.ok_or_else(|| json::missing("topics"))?;
    let rule = || Failure::from(Problem::field("topics", format!("must be 1 to {POLL_TOPICS_MAX} names")));
    let names: Vec<&RawValue> = serde_json::from_str(topics.get()).map_err(|_| rule())?;
    if names.is_empty() || names.len() > POLL_TOPICS_MAX {
        return Err(rule());
    }
    let since = match json::optional(since) {
        None => HashMap::new(),
        Some(since) => serde_json::from_str::<HashMap<Cow<'_, str>, &RawValue>>(since.get())
            .map_err(|_| Problem::field("since", "must be an object of cursors, by topic"))?,
    };
    for (name, cursor) in since.iter().filter_map(|(name, raw)| Some((name, json::optional(Some(raw))?))) {
        // Also of topics that are not asked for: a client may hand all its cursors over.
        let field = format!("since.{}", parse_topic("since", name)?);
        parse_since(&field, &json::string(&field, cursor)?)?;
    }
    let mut topics: Vec<(TopicName, Since)> = Vec::with_capacity(names.len());
    for name in names {
        let topic = parse_topic("topics", &json::string("topics", name)?)?;
        if topics.iter().any(|(other, _)| *other == topic) {
            continue;
        }
        let field = format!("since.{topic}");
        let cursor = since.get(topic.as_str()).and_then(|raw| json::optional(Some(raw)));
        let cursor = cursor.map(|raw| parse_since(&field, &json::string(&field, raw)?)).transpose()?;
        topics.push((topic, cursor.unwrap_or(live::LATEST)));
    }
    let wait = match json::optional(timeout) {
        None => Duration::from_secs(POLL_SECONDS_DEFAULT),
        Some(timeout) => waiting::bounded("timeout", duration::parse_json(timeout.get()).ok())?,
    };
    Ok(Poll { topics, wait })
}

fn write_answer(found: &Found, cursors: &BTreeMap<TopicName, MessageId>) -> Vec<u8> {
    let mut out = Vec::with_capacity(256 + found.bytes * 5 / 4);
    out.extend_from_slice(br#"{"messages":["#);
    for (at, message) in found.messages.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        as_wire(message.topic(), message.stored()).write_json(&mut out);
        // In place of the object's closing brace.
        out.pop();
        if message.stored().body.metadata.is_none() {
            out.extend_from_slice(br#","metadata":{}"#);
        }
        // Writing into a vector cannot fail.
        let _ = write!(out, r#","stream_id":"{}"}}"#, message.id());
    }
    let _ = write!(out, r#"],"has_more":{},"cursors":{{"#, found.full);
    for (at, (topic, cursor)) in cursors.iter().enumerate() {
        let comma = if at > 0 { "," } else { "" };
        // Names and ids hold nothing that JSON escapes.
        let _ = write!(out, r#"{comma}"{topic}":"{cursor}""#);
    }
    out.push(b'}');
    if !found.gaps.is_empty() {
        out.extend_from_slice(br#","gaps":"#);
        let _ = serde_json::to_writer(&mut out, &found.gaps);
    }
    if !found.absent.is_empty() {
        out.extend_from_slice(br#","absent":"#);
        let _ = serde_json::to_writer(&mut out, &found.absent);
    }
    if !found.closed.is_empty() {
        out.extend_from_slice(br#","closed":"#);
        let _ = serde_json::to_writer(&mut out, &found.closed);
    }
    out.push(b'}');
    out
}

/// How many long-polls wait on this node.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct PollStats {
    /// Long-polls that wait now, `wait=` on one topic included.
    active_waiters: usize,
    /// Topics that they wait for.
    subscribed_topics: usize,
    /// How many wait for each topic.
    topic_subscriber_counts: BTreeMap<String, usize>,
}

/// Count the long-polls that wait on this node
#[utoipa::path(
    get, path = "/messages/poll/stats", tag = "operations", operation_id = "poll_stats",
    responses(
        (status = 200, body = PollStats),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn stats(
    State(http): State<Http>,
    Called(gate): Called,
    uri: Uri,
) -> Result<Json<PollStats>, Failure> {
    let [] = query::parameters(&uri, [])?;
    // It names topics, whoever waits for them.
    gate.check_admin()?;
    let waiting = http.0.waiters.now();
    let counts = waiting.by_topic.into_iter().map(|(topic, count)| (topic.as_str().to_owned(), count));
    let topic_subscriber_counts: BTreeMap<_, _> = counts.collect();
    Ok(Json(PollStats {
        active_waiters: waiting.polls,
        subscribed_topics: topic_subscriber_counts.len(),
        topic_subscriber_counts,
    }))
}
