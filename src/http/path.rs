//! Parts of paths: topics, groups, message ids, buckets, keys, limits, series, and names of users, tokens and roles.

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;
use tidemill_proto::leases::LeaseId;
use tidemill_proto::work::GroupName;
use tidemill_proto::{
    BucketName, KeyName, LimitName, LockName, MemberName, MessageId, Problem, RecurringName, RoomName,
    ScheduleId, SeriesName, TopicName,
};

use crate::relay::{
    Failure, parse_bucket, parse_group, parse_id, parse_key, parse_limit, parse_recurring_name,
    parse_schedule_id, parse_series, parse_topic,
};

/// The topic that a path names.
#[derive(Debug)]
pub(super) struct TopicPath(pub(super) TopicName);

/// The message that a path names.
#[derive(Debug)]
pub(super) struct MessagePath(pub(super) TopicName, pub(super) MessageId);

/// The group that a path names, with its topic.
#[derive(Debug)]
pub(super) struct GroupPath(pub(super) TopicName, pub(super) GroupName);

/// The message that a path names, with its topic and a group.
#[derive(Debug)]
pub(super) struct GroupMessagePath(pub(super) TopicName, pub(super) GroupName, pub(super) MessageId);

/// The room that a path names.
#[derive(Debug)]
pub(super) struct RoomPath(pub(super) RoomName);

/// The member that a path names, with its room.
#[derive(Debug)]
pub(super) struct MemberPath(pub(super) RoomName, pub(super) MemberName);

/// The one name that a path has, as it is written: of a user or a role, or the id of a token.
#[derive(Debug)]
pub(super) struct NamePath(pub(super) String);

/// The message that waits for later that a path names.
#[derive(Debug)]
pub(super) struct SchedulePath(pub(super) TopicName, pub(super) ScheduleId);

/// The recurring message that a path names.
#[derive(Debug)]
pub(super) struct RecurringPath(pub(super) TopicName, pub(super) RecurringName);

/// The bucket that a path names.
#[derive(Debug)]
pub(super) struct BucketPath(pub(super) BucketName);

/// The key that a path names, with its bucket.
#[derive(Debug)]
pub(super) struct KeyPath(pub(super) BucketName, pub(super) KeyName);

/// The limit that a path names.
#[derive(Debug)]
pub(super) struct LimitPath(pub(super) LimitName);

/// The series that a path names.
#[derive(Debug)]
pub(super) struct SeriesPath(pub(super) SeriesName);

/// The lock that a path names, without what it guards.
#[derive(Debug)]
pub(super) struct LockPath(pub(super) LockName);

/// The lease that a path names.
#[derive(Debug)]
pub(super) struct LeasePath(pub(super) LeaseId);

/// Returns the parameters of a path; where one is no text, the problem names this field.
async fn parameters<S: Send + Sync>(
    parts: &mut Parts,
    state: &S,
    field: &str,
) -> Result<RawPathParams, Failure> {
    let parameters = RawPathParams::from_request_parts(parts, state).await;
    parameters.map_err(|_| Problem::field(field, "is not UTF-8 when its percent escapes are decoded").into())
}

fn parameter<'a>(parameters: &'a RawPathParams, name: &str) -> &'a str {
    parameters.iter().find(|(of, _)| *of == name).map_or("", |(_, value)| value)
}

impl<S: Send + Sync> FromRequestParts<S> for TopicPath {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let parameters = parameters(parts, state, "topic").await?;
        parse_topic("topic", parameter(&parameters, "topic")).map(Self)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for MessagePath {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let parameters = parameters(parts, state, "topic").await?;
        let topic = parse_topic("topic", parameter(&parameters, "topic"))?;
        Ok(Self(topic, parse_id("message_id", parameter(&parameters, "message_id"))?))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for GroupPath {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let parameters = parameters(parts, state, "topic").await?;
        let topic = parse_topic("topic", parameter(&parameters, "topic"))?;
        Ok(Self(topic, parse_group(parameter(&parameters, "group"))?))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for GroupMessagePath {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let GroupPath(topic, group) = GroupPath::from_request_parts(parts, state).await?;
        let parameters = parameters(parts, state, "topic").await?;
        Ok(Self(topic, group, parse_id("message_id", parameter(&parameters, "message_id"))?))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for SchedulePath {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let parameters = parameters(parts, state, "topic").await?;
        let topic = parse_topic("topic", parameter(&parameters, "topic"))?;
        Ok(Self(topic, parse_schedule_id("schedule_id", parameter(&parameters, "schedule_id"))?))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for RecurringPath {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let parameters = parameters(parts, state, "topic").await?;
        let topic = parse_topic("topic", parameter(&parameters, "topic"))?;
        Ok(Self(topic, parse_recurring_name("name", parameter(&parameters, "name"))?))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for RoomPath {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let parameters = parameters(parts, state, "room").await?;
        let room = RoomName::parse(parameter(&parameters, "room"));
        Ok(Self(room.map_err(|error| Problem::field("room", error))?))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for MemberPath {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let RoomPath(room) = RoomPath::from_request_parts(parts, state).await?;
        let parameters = parameters(parts, state, "member").await?;
        let member = MemberName::parse(parameter(&parameters, "member"));
        Ok(Self(room, member.map_err(|error| Problem::field("member", error))?))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for BucketPath {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let parameters = parameters(parts, state, "bucket").await?;
        parse_bucket("bucket", parameter(&parameters, "bucket")).map(Self)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for KeyPath {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let parameters = parameters(parts, state, "key").await?;
        let bucket = parse_bucket("bucket", parameter(&parameters, "bucket"))?;
        Ok(Self(bucket, parse_key("key", parameter(&parameters, "key"))?))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for LimitPath {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let parameters = parameters(parts, state, "name").await?;
        parse_limit("name", parameter(&parameters, "name")).map(Self)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for LockPath {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let parameters = parameters(parts, state, "name").await?;
        let name = LockName::parse(parameter(&parameters, "lock"));
        name.map(Self).map_err(|error| Problem::field("lock", error).into())
    }
}

impl<S: Send + Sync> FromRequestParts<S> for SeriesPath {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let parameters = parameters(parts, state, "series").await?;
        parse_series("series", parameter(&parameters, "series")).map(Self)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for LeasePath {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let parameters = parameters(parts, state, "lease").await?;
        let lease = LeaseId::parse(parameter(&parameters, "lease"));
        lease.map(Self).map_err(|error| Problem::field("lease", error).into())
    }
}

impl<S: Send + Sync> FromRequestParts<S> for NamePath {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let parameters = parameters(parts, state, "topic").await?;
        Ok(Self(parameters.iter().next().map_or_else(String::new, |(_, value)| value.to_owned())))
    }
}
