//! Buckets of keys on the wire: values, changes, histories, and what buckets keep.
//!
//! Where a value stands in JSON, exactly one of `value`, `value_text` and `value_base64` is there.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::duration::Seconds;
use crate::{BucketName, KeyName, MessageId, PayloadRef, Timestamp};

/// A key, as it is or was.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Key {
    /// The key.
    pub key: KeyName,
    /// The change that its value came with.
    pub revision: MessageId,
    /// When it came to be.
    pub created_at: Timestamp,
    /// When it expires; absent for never, and of earlier revisions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub expires_at: Option<Timestamp>,
    /// Whose it is, where its put has said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub owner: Option<KeyName>,
    /// The value, if it is JSON: byte for byte as it was put.
    #[serde(
        default,
        deserialize_with = "crate::json::present_owned",
        skip_serializing_if = "Option::is_none"
    )]
    #[cfg_attr(feature = "openapi", schema(value_type = serde_json::Value, required = false))]
    pub value: Option<Box<RawValue>>,
    /// The value, if it is text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_text: Option<String>,
    /// The value in base64 (RFC 4648 section 4), if it is neither.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_base64: Option<String>,
    /// The content type it was put with; absent where that is `application/json`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// Whether the value was damaged or replaced since it was put, so that it is not shown.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[cfg_attr(feature = "openapi", schema(required = false))]
    pub damaged: bool,
}

/// A key that is about to be written.
#[derive(Clone, Copy, Debug)]
pub struct KeyRef<'a> {
    /// The key.
    pub key: &'a KeyName,
    /// The change that its value came with.
    pub revision: MessageId,
    /// When it came to be.
    pub created_at: Timestamp,
    /// When it expires.
    pub expires_at: Option<Timestamp>,
    /// Whose it is.
    pub owner: Option<&'a KeyName>,
    /// Its value, if it is to be shown.
    pub value: Option<PayloadRef<'a>>,
    /// Whether it is not shown because it was damaged.
    pub damaged: bool,
}

impl KeyRef<'_> {
    /// Appends it to `out` as a JSON object, in the form that [`Key`] reads.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        let Self { key, revision, created_at, expires_at, owner, value, damaged } = self;
        // None of these texts has anything to escape.
        let mut head =
            format!(r#"{{"key":"{key}","revision":"{revision}","created_at":"{}""#, &*created_at.text());
        if let Some(expires_at) = expires_at {
            head.extend([r#","expires_at":""#, &*expires_at.text(), "\""]);
        }
        if let Some(owner) = owner {
            head.extend([r#","owner":""#, owner.as_str(), "\""]);
        }
        out.extend_from_slice(head.as_bytes());
        if let Some(value) = value {
            out.push(b',');
            value.write_json("value", out);
        }
        if *damaged {
            out.extend_from_slice(br#","damaged":true"#);
        }
        out.push(b'}');
    }
}

/// The answer to a put or a deletion.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct KeyChanged {
    /// The bucket.
    pub bucket: BucketName,
    /// The key.
    pub key: KeyName,
    /// The revision of this change.
    pub revision: MessageId,
    /// When the key expires, as of this change; absent for never, and of a deletion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub expires_at: Option<Timestamp>,
}

/// The answer to an increment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct KeyIncremented {
    /// The bucket.
    pub bucket: BucketName,
    /// The key.
    pub key: KeyName,
    /// What it is now: a whole number of 64 bits.
    pub value: i64,
    /// The revision of this change.
    pub revision: MessageId,
    /// When the key expires, as of this change; absent for never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub expires_at: Option<Timestamp>,
}

/// The revisions that are kept of a key.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct KeyHistory {
    /// The bucket.
    pub bucket: BucketName,
    /// The key.
    pub key: KeyName,
    /// The revisions with their values, the newest first.
    pub revisions: Vec<Key>,
}

/// The body of `POST /api/v1/keys/{bucket}/{key}/touch`. Durations are as everywhere.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct KeyTouch {
    /// How long the key lives from now on; the time of its bucket, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<f64>))]
    pub ttl: Option<Seconds>,
    /// `value`, to have the value as the answer.
    #[serde(default, rename = "return", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(pattern = "^value$"))]
    pub wanted: Option<String>,
}

/// The body of `POST /api/v1/keys/{bucket}/{key}/increment`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct KeyIncrement {
    /// How much more, or less; 1 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<i64>,
    /// It is refused where less would come out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<i64>,
    /// It is refused where more would come out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<i64>,
    /// How long a key lives that comes to be with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<f64>))]
    pub ttl: Option<Seconds>,
}

/// The body of `POST /api/v1/keys/{bucket}`: changes, all of which are made, or none.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct KeyChanges {
    /// 1 to 100 changes, of a key each.
    #[cfg_attr(feature = "openapi", schema(min_items = 1, max_items = 100))]
    pub changes: Vec<KeyChange>,
}

/// What becomes of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum KeyOperation {
    /// It has this value from now on.
    Put,
    /// It is gone; nothing is done where it is not there.
    Delete,
    /// So much is added to it.
    Increment,
}

impl KeyOperation {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Put, Self::Delete, Self::Increment];

    /// Returns the text on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Delete => "delete",
            Self::Increment => "increment",
        }
    }
}

/// A change of one key among others. What belongs to another operation must not be there.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct KeyChange {
    /// What becomes of the key.
    pub op: KeyOperation,
    /// The key.
    pub key: KeyName,
    /// Put: any JSON value.
    #[serde(
        default,
        deserialize_with = "crate::json::present_owned",
        skip_serializing_if = "Option::is_none"
    )]
    #[cfg_attr(feature = "openapi", schema(value_type = serde_json::Value, required = false))]
    pub value: Option<Box<RawValue>>,
    /// Put, in place of `value`: text, kept in UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_text: Option<String>,
    /// Put, in place of `value`: any bytes, in base64 (RFC 4648 section 4).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_base64: Option<String>,
    /// Put: what the value is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// Put: how long the key lives; increment: how long it does if it comes to be with it. The bucket's time, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<f64>))]
    pub ttl: Option<Seconds>,
    /// Put: how long the value is fresh; as long as the key lives, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<f64>))]
    pub fresh: Option<Seconds>,
    /// Put: whose the key is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<KeyName>,
    /// Increment: how much more, or less; 1 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<i64>,
    /// Increment: it is refused where less would come out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<i64>,
    /// Increment: it is refused where more would come out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<i64>,
    /// The revision that the key must have, or `*`: it must be there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_match: Option<String>,
    /// `*`: the key must not be there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_none_match: Option<String>,
}

/// The answer to changes that are made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct KeysChanged {
    /// The bucket.
    pub bucket: BucketName,
    /// What came of each, in their order.
    pub changed: Vec<ChangedKey>,
}

/// What came of one change among others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ChangedKey {
    /// The key.
    pub key: KeyName,
    /// The revision of the change; null where a key was to be deleted that was not there.
    #[cfg_attr(feature = "openapi", schema(required = true))]
    pub revision: Option<MessageId>,
    /// Whether the key was not there before.
    pub is_new: bool,
    /// The number that it is now, of an increment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<i64>,
    /// When the key expires, as of this change; absent for never, and of a deletion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub expires_at: Option<Timestamp>,
}

/// How long what fills a key lives, by how often that is read. Durations are as everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AdaptiveTtl {
    /// How long where it was not read lately; each read adds as much.
    #[cfg_attr(feature = "openapi", schema(value_type = f64))]
    pub min: Seconds,
    /// How long at most.
    #[cfg_attr(feature = "openapi", schema(value_type = f64))]
    pub max: Seconds,
}

/// What a bucket is to keep: the body of `PUT /api/v1/buckets/{bucket}`. What is absent or null is as for a new bucket.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BucketUpdate {
    /// Revisions that are kept of each key, with the current one: 1 (the usual) to 64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 64))]
    pub history: Option<u32>,
    /// How long a key lives that is put without a time of its own; for ever, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<f64>))]
    pub ttl: Option<Seconds>,
    /// How long a key lives at most, counted from when it came to be, whatever is put or touched meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<f64>))]
    pub absolute_age: Option<Seconds>,
    /// Most keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1))]
    pub max_keys: Option<u64>,
    /// Most bytes of values, those of earlier revisions among them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1))]
    pub max_bytes: Option<u64>,
    /// How long a key lives that is filled without a time of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adaptive_ttl: Option<AdaptiveTtl>,
}

/// A bucket, with what it keeps and what it has. Durations are numbers of seconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Bucket {
    /// Its name.
    pub bucket: BucketName,
    /// Revisions that are kept of each key, with the current one.
    pub history: u32,
    /// How long a key lives that is put without a time of its own; null for ever.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<f64>, required = true))]
    pub ttl: Option<Seconds>,
    /// How long a key lives at most; null for no bound.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<f64>, required = true))]
    pub absolute_age: Option<Seconds>,
    /// Most keys; null for no bound.
    #[cfg_attr(feature = "openapi", schema(required = true))]
    pub max_keys: Option<u64>,
    /// Most bytes of values; null for no bound.
    #[cfg_attr(feature = "openapi", schema(required = true))]
    pub max_bytes: Option<u64>,
    /// How long a key lives that is filled without a time of its own; null for `ttl`.
    #[cfg_attr(feature = "openapi", schema(required = true))]
    pub adaptive_ttl: Option<AdaptiveTtl>,
    /// When it was made.
    pub created_at: Timestamp,
    /// How many keys it has.
    pub keys: u64,
    /// Bytes of values, those of earlier revisions among them.
    pub bytes: u64,
}

/// The body of `POST /api/v1/buckets/{bucket}/revoke`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RevokeRequest {
    /// Whose keys are deleted.
    pub owner: KeyName,
}

/// The answer to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Revoked {
    /// How many keys were deleted.
    pub revoked: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_written_as_it_is_read() {
        let key = KeyName::parse("a.b").expect("a name");
        let owner = KeyName::parse("ann").expect("a name");
        let at = |ms| Timestamp::from_millis(ms);
        let bare = KeyRef {
            key: &key,
            revision: MessageId::new(5, 1),
            created_at: at(1),
            expires_at: None,
            owner: None,
            value: None,
            damaged: false,
        };
        let text = |key: KeyRef<'_>| {
            let mut out = Vec::new();
            key.write_json(&mut out);
            let read: Key = serde_json::from_slice(&out).expect("it is one");
            assert_eq!(serde_json::to_vec(&read).expect("it is written"), out);
            String::from_utf8(out).expect("text")
        };
        assert_eq!(text(bare), r#"{"key":"a.b","revision":"5-1","created_at":"1970-01-01T00:00:00.001Z"}"#);
        let full = |bytes, content_type| KeyRef {
            expires_at: Some(at(2)),
            owner: Some(&owner),
            value: Some(PayloadRef { bytes, content_type }),
            ..bare
        };
        for (key, end) in [
            (full(b"null", None), r#","owner":"ann","value":null}"#),
            (full(b"[1, 2]", None), r#","owner":"ann","value":[1, 2]}"#),
            (full(b"\"x", Some("text/plain")), r#","value_text":"\"x","content_type":"text/plain"}"#),
            (full(b"\0", Some("a/b")), r#","value_base64":"AA==","content_type":"a/b"}"#),
        ] {
            let text = text(key);
            assert!(
                text.contains(r#""expires_at":"1970-01-01T00:00:00.002Z""#) && text.ends_with(end),
                "{text}"
            );
        }
    }
}
