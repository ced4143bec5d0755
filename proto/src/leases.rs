//! Leases: what is kept alive together, by one renewal.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize, Serializer};

use crate::duration::Seconds;
use crate::locks::Guarded;
use crate::{BucketName, Code, KeyName, LockName, MemberName, MessageId, RoomName, Timestamp};

/// The shortest and the longest time that a lease has without being renewed.
pub const TTL: [Duration; 2] = [Duration::from_secs(1), Duration::from_hours(24)];
/// Most locks, keys and members that one lease keeps.
pub const THINGS_MAX: usize = 10_000;

/// The id of a lease: whoever has it can renew and end the lease. It is a secret of its holder.
///
/// As text it is 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct LeaseId(pub [u8; 16]);

/// A text is no id of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is no lease; a lease is what the one who created it was answered, 32 hexadecimal digits")]
pub struct LeaseIdError;

impl LeaseId {
    /// Parses an id.
    ///
    /// # Errors
    /// The text has another form.
    pub fn parse(text: &str) -> Result<Self, LeaseIdError> {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() != 32 || !text.bytes().all(is_digit) {
            return Err(LeaseIdError);
        }
        let id = u128::from_str_radix(text, 16).map_err(|_| LeaseIdError)?;
        Ok(Self(id.to_be_bytes()))
    }
}

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LeaseId(…)")
    }
}

impl Serialize for LeaseId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

deserialize_from_text!(LeaseId);

/// The body of a request for a lease.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LeaseRequest {
    /// How long it lasts without being renewed: a number of seconds, or text with a unit; 1 s to 24 h.
    pub ttl: String,
}

/// A lease that was created.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LeaseCreated {
    /// Its id, which is a secret.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub lease: LeaseId,
    /// When it ends, unless it is renewed.
    pub expires_at: Timestamp,
}

/// A lease that lasts for longer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LeaseRenewed {
    /// When it ends, unless it is renewed again.
    pub expires_at: Timestamp,
    /// What it has kept, and keeps no more.
    pub lost: Vec<LeasedThing>,
}

/// A lease, as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LeaseState {
    /// How many seconds it lasts without being renewed.
    #[cfg_attr(feature = "openapi", schema(value_type = f64))]
    pub ttl: Seconds,
    /// When it ends, unless it is renewed.
    pub expires_at: Timestamp,
    /// What was put under it, in the order of kinds and names. What was lost since the last renewal is among it.
    pub keeps: Vec<LeasedThing>,
}

/// What can be put under a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum LeasedKind {
    /// A lock: `name`, and `guards` where it guards something.
    Lock,
    /// A key: `bucket`, `key` and `revision`.
    Key,
    /// A member: `room` and `member`.
    Member,
}

impl LeasedKind {
    /// Returns its word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Lock => "lock",
            Self::Key => "key",
            Self::Member => "member",
        }
    }
}

/// Something that a lease keeps, or has kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LeasedThing {
    /// What it is.
    pub kind: LeasedKind,
    /// The lock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub name: Option<LockName>,
    /// What the lock guards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<crate::locks::GuardedThing>, nullable = false))]
    pub guards: Option<Guarded>,
    /// The bucket of the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub bucket: Option<BucketName>,
    /// The key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub key: Option<KeyName>,
    /// The revision that the key had when it was put under the lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub revision: Option<MessageId>,
    /// The room of the member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub room: Option<RoomName>,
    /// The member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub member: Option<MemberName>,
    /// Why the lease keeps it no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub code: Option<Code>,
    /// The same in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub error: Option<String>,
}

impl LeasedThing {
    const fn of(kind: LeasedKind) -> Self {
        Self {
            kind,
            name: None,
            guards: None,
            bucket: None,
            key: None,
            revision: None,
            room: None,
            member: None,
            code: None,
            error: None,
        }
    }

    /// Returns a lock.
    #[must_use]
    pub fn lock(name: LockName, guards: Option<Guarded>) -> Self {
        Self { name: Some(name), guards, ..Self::of(LeasedKind::Lock) }
    }

    /// Returns a key.
    #[must_use]
    pub fn key(bucket: BucketName, key: KeyName, revision: MessageId) -> Self {
        Self { bucket: Some(bucket), key: Some(key), revision: Some(revision), ..Self::of(LeasedKind::Key) }
    }

    /// Returns a member.
    #[must_use]
    pub fn member(room: RoomName, member: MemberName) -> Self {
        Self { room: Some(room), member: Some(member), ..Self::of(LeasedKind::Member) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_in_one_way() {
        let id = "00112233445566778899aabbccddeeff";
        assert_eq!(LeaseId::parse(id).map(|id| id.to_string()).as_deref(), Ok(id));
        for text in ["", "0", &id.to_uppercase(), &format!("{id}0"), &format!("+{}", &id[1..])] {
            assert!(LeaseId::parse(text).is_err(), "{text}");
        }
        assert!(!format!("{:?}", LeaseId::parse(id)).contains("aabb"), "it is a secret");
    }

    #[test]
    fn a_thing_has_the_names_of_its_kind() {
        let lock = LeasedThing::lock(LockName::parse("nightly").expect("a name"), None);
        let text = serde_json::to_string(&lock).expect("it can be written");
        assert_eq!(text, r#"{"kind":"lock","name":"nightly"}"#);
        assert_eq!(serde_json::from_str::<LeasedThing>(&text).ok(), Some(lock));
    }
}
