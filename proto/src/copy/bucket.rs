//! Buckets and their keys, as copies have them.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::message::CopiedBody;
use super::topic::{CopiedHole, Epoch, Freeze};
use crate::keys::Bucket;
use crate::{KeyName, MessageId, Timestamp};

/// A bucket without its keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CopiedBucket {
    /// What it keeps, and how much that is.
    pub bucket: Bucket,
    /// Which of the buckets of its name it is, by its log.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, pattern = "^[0-9a-fA-F]{16}$"))]
    pub epoch: Epoch,
    /// The smallest revision that it can give, where somebody has written it down.
    pub born: Option<MessageId>,
    /// The oldest change that its log keeps.
    pub first: Option<MessageId>,
    /// The last change of which its log tells; `0-0` where there was none.
    pub last: MessageId,
    /// Changes that its log keeps.
    pub length: u64,
    /// How many changes there ever were, where the backend counts them.
    pub given: Option<u64>,
    /// Where changes were lost that the backend had confirmed, in their order.
    #[serde(default)]
    pub holes: Vec<CopiedHole>,
    /// Why nothing is changed in it, if that is so.
    pub freeze: Option<Freeze>,
    /// Whether all keys were taken over once, where it is being taken over.
    pub has_keys: bool,
}

/// A key with all that belongs to it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CopiedKey {
    /// The key.
    pub key: KeyName,
    /// As it is.
    pub now: CopiedRevision,
    /// As it was, the newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub past: Vec<CopiedRevision>,
}

/// A key as it is or was.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CopiedRevision {
    /// The change that its value came with.
    pub revision: MessageId,
    /// When the key came to be.
    pub created_at: Timestamp,
    /// When it expires; absent for never, and of earlier revisions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// Whose it is, where its put has said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<KeyName>,
    /// Its value.
    pub value: CopiedBody,
    /// The SHA-256 of what its value must be, in base64, in buckets that keep a history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub digest: Option<Sha256>,
    /// That of the revision before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub parent_digest: Option<Sha256>,
    /// Until when its value is fresh, where its put has said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fresh_until: Option<Timestamp>,
    /// Whether how long it lives when it is filled again goes by how often it is read.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_counted: bool,
}

/// A digest; base64 (RFC 4648 section 4) on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sha256(pub [u8; 32]);

impl Serialize for Sha256 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(self.0))
    }
}

impl<'de> Deserialize<'de> for Sha256 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'_, str>::deserialize(deserializer)?;
        let bytes = BASE64.decode(text.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or_else(|| D::Error::custom("must be 32 bytes in base64"))
    }
}

/// What a target is given of keys in one step.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum KeysPart {
    /// All keys that it has go, and these come in their place, before others.
    First(Vec<CopiedKey>),
    /// These come, too.
    More(Vec<CopiedKey>),
    /// These come, and with them all have.
    Last(Vec<CopiedKey>),
    /// These were changed since: what becomes of each.
    Changed(Vec<ChangedKey>),
}

/// What became of a key.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ChangedKey {
    /// The key.
    pub key: KeyName,
    /// As it is; null where it is gone.
    pub copied: Option<CopiedKey>,
}

/// When a key is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CopiedEnd {
    /// The key.
    pub key: KeyName,
    /// When it is over; null for never.
    pub expires_at: Option<Timestamp>,
}
