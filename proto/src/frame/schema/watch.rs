//! The schemas of the frames of watches.

use serde_json::Value;
use utoipa::ToSchema;
use utoipa::openapi::schema::Object;

use super::fields::{reference, text};
use crate::frame::WATCH_NAME_BYTES_MAX;
use crate::{BucketName, KeyName, MemberName, MessageId, RoomName, Timestamp};

fn name() -> Object {
    let description = format!("What the client calls the watch, at most {WATCH_NAME_BYTES_MAX} bytes.");
    text(1, WATCH_NAME_BYTES_MAX).description(Some(description)).build()
}

/// Watches keys of a bucket, which need not exist, or the members of a room. The answer is `watching`; then comes what is
/// there, `synced`, and every change from there on.
#[derive(Debug, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WatchFrame {
    /// The client's own mark; the answer carries it.
    #[serde(rename = "ref")]
    #[schema(schema_with = reference)]
    pub reference: Option<String>,
    /// What the client calls the watch: no other of the connection.
    #[schema(schema_with = name)]
    pub watch: String,
    /// The bucket.
    #[schema(nullable = false)]
    pub bucket: Option<BucketName>,
    /// What the keys begin with that are watched; absent for all.
    #[schema(nullable = false)]
    pub prefix: Option<String>,
    /// In place of `prefix`: the one key that is watched.
    #[schema(nullable = false)]
    pub key: Option<KeyName>,
    /// In place of `bucket`: the room.
    #[schema(nullable = false)]
    pub room: Option<RoomName>,
    /// The last `id` that was told of the same: what comes is what has changed behind it, without a snapshot.
    #[schema(nullable = false)]
    pub cursor: Option<MessageId>,
}

/// Ends a watch; one that there is not is passed over. The answer is `unwatched`.
#[derive(Debug, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UnwatchFrame {
    /// The client's own mark; the answer carries it.
    #[serde(rename = "ref")]
    #[schema(schema_with = reference)]
    pub reference: Option<String>,
    /// The watch.
    #[schema(schema_with = name)]
    pub watch: String,
}

/// The answer to `watch`.
#[derive(Debug, ToSchema)]
pub struct WatchingFrame {
    /// The `ref` of the frame.
    #[serde(rename = "ref")]
    #[schema(schema_with = reference)]
    pub reference: Option<String>,
    /// The watch.
    #[schema(schema_with = name)]
    pub watch: String,
}

/// The answer to `unwatch`, or, with a `reason`, that a watch cannot go on. Nothing more comes of it.
#[derive(Debug, ToSchema)]
pub struct UnwatchedFrame {
    /// The `ref` of the frame that it answers.
    #[serde(rename = "ref")]
    #[schema(schema_with = reference)]
    pub reference: Option<String>,
    /// The watch.
    #[schema(schema_with = name)]
    pub watch: String,
    /// The last `id` that was told of it since it began or was `reset`, if one was, to go on after.
    #[schema(nullable = false)]
    pub id: Option<MessageId>,
    /// Why it cannot go on, in a sentence.
    #[schema(nullable = false)]
    pub reason: Option<String>,
}

/// A key has this value: as it is, before `synced`, and from then on as it is put. The value has one of three forms.
#[derive(Debug, ToSchema)]
pub struct PutFrame {
    /// The watch.
    #[schema(schema_with = name)]
    pub watch: String,
    /// The key.
    pub key: KeyName,
    /// The change that its value came with.
    pub revision: MessageId,
    /// The value, if it is JSON: byte for byte as it was put.
    #[schema(required = false)]
    pub value: Value,
    /// The value, if it is text.
    #[schema(nullable = false)]
    pub value_text: Option<String>,
    /// The value in base64 (RFC 4648 section 4), if it is neither.
    #[schema(nullable = false)]
    pub value_base64: Option<String>,
    /// The content type it was put with; absent where that is `application/json`.
    #[schema(nullable = false)]
    pub content_type: Option<String>,
    /// In place of the value: true where it was damaged or replaced since it was put.
    #[schema(nullable = false)]
    pub damaged: Option<bool>,
    /// Where it is the last change of a step: the revision, to go on after.
    #[schema(nullable = false)]
    pub id: Option<MessageId>,
}

/// A key was deleted.
#[derive(Debug, ToSchema)]
pub struct DeletedFrame {
    /// The watch.
    #[schema(schema_with = name)]
    pub watch: String,
    /// The key.
    pub key: KeyName,
    /// The change.
    pub revision: MessageId,
    /// Where it is the last change of a step: the revision, to go on after.
    #[schema(nullable = false)]
    pub id: Option<MessageId>,
}

/// The time of a key was over.
#[derive(Debug, ToSchema)]
pub struct ExpiredFrame {
    /// The watch.
    #[schema(schema_with = name)]
    pub watch: String,
    /// The key.
    pub key: KeyName,
    /// The change.
    pub revision: MessageId,
    /// Where it is the last change of a step: the revision, to go on after.
    #[schema(nullable = false)]
    pub id: Option<MessageId>,
}

/// A member is in the room: as it is, before `synced`, and from then on as it joins, or says something else of itself.
#[derive(Debug, ToSchema)]
pub struct JoinedFrame {
    /// The watch.
    #[schema(schema_with = name)]
    pub watch: String,
    /// The member.
    pub member: MemberName,
    /// The change that it came with.
    pub revision: MessageId,
    /// Since when it is there.
    pub since: Timestamp,
    /// The node to which it is connected, if it is a connection.
    #[schema(nullable = false)]
    pub node: Option<String>,
    /// The connection, which no other is called, if it is one.
    #[schema(nullable = false)]
    pub connection: Option<String>,
    /// The address that it has connected from, if it is a connection and that is known.
    #[schema(nullable = false)]
    pub address: Option<String>,
    /// Tells which members one lease keeps, if one keeps it.
    #[schema(nullable = false)]
    pub lease: Option<String>,
    /// What it says of itself.
    #[schema(required = false)]
    pub data: Value,
    /// Where it is the last change of a step: the revision, to go on after.
    #[schema(nullable = false)]
    pub id: Option<MessageId>,
}

/// A member has left.
#[derive(Debug, ToSchema)]
pub struct LeftFrame {
    /// The watch.
    #[schema(schema_with = name)]
    pub watch: String,
    /// The member.
    pub member: MemberName,
    /// The change.
    pub revision: MessageId,
    /// `left`, or `expired` where its time was over.
    #[schema(pattern = "^(left|expired)$")]
    pub reason: String,
    /// Where it is the last change of a step: the revision, to go on after.
    #[schema(nullable = false)]
    pub id: Option<MessageId>,
}

/// Everything came that there was at this revision: what was not named since the watch began, or since `reset`, is not
/// there.
#[derive(Debug, ToSchema)]
pub struct SyncedFrame {
    /// The watch.
    #[schema(schema_with = name)]
    pub watch: String,
    /// The revision.
    pub revision: MessageId,
    /// The same, to go on after.
    pub id: MessageId,
}

/// Everything came up to here. It comes where nothing else does, and where a step ends with what is not watched.
#[derive(Debug, ToSchema)]
pub struct BookmarkFrame {
    /// The watch.
    #[schema(schema_with = name)]
    pub watch: String,
    /// The revision.
    pub revision: MessageId,
    /// The same, to go on after.
    pub id: MessageId,
}

/// Changes are gone that the watch had not been told: what comes next is a snapshot anew, up to `synced`.
#[derive(Debug, ToSchema)]
pub struct ResetFrame {
    /// The watch.
    #[schema(schema_with = name)]
    pub watch: String,
}
