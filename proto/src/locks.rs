//! Locks: who holds one, for how long, and who waits.
//!
//! A lock is of a name, and of what it guards, if it guards something: a lock that guards a topic and one of the same
//! name that guards nothing are two locks.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize, Serializer};

use crate::duration::Seconds;
use crate::work::ConsumerName;
use crate::{BucketName, Code, LockName, MessageId, Timestamp, TopicName};

/// The shortest and the longest time for which a lock is held without being renewed.
pub const TTL: [Duration; 2] = [Duration::from_millis(100), Duration::from_hours(24)];
/// The longest wait for a lock: proxies cut requests that are silent for longer.
pub const WAIT_MAX: Duration = Duration::from_mins(1);
/// Most who wait for one lock.
pub const WAITERS_MAX: usize = 10_000;
/// Most locks that one request renews.
pub const RENEWALS_MAX: usize = 1_000;
/// Most of those who wait that are shown: the first of them.
pub const QUEUE_SHOWN_MAX: usize = 100;

/// What a lock guards.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Guarded {
    /// A topic: who publishes with the fence of the lock must hold it, in the same step.
    Topic(TopicName),
    /// A bucket: who changes its keys with the fence of the lock must hold it, in the same step.
    Bucket(BucketName),
}

/// A text does not say what a lock guards.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GuardedError {
    /// It has another form.
    #[error("must be `topic:` with the name of a topic, or `bucket:` with the name of a bucket")]
    Form,
    /// The name is none.
    #[error("names nothing: the name {0}")]
    Name(String),
}

impl Guarded {
    /// Parses a text: `topic:orders` or `bucket:flows`.
    ///
    /// # Errors
    /// The text has another form.
    pub fn parse(text: &str) -> Result<Self, GuardedError> {
        let (kind, name) = text.split_once(':').ok_or(GuardedError::Form)?;
        match kind {
            "topic" => {
                TopicName::parse(name).map(Self::Topic).map_err(|error| GuardedError::Name(error.to_string()))
            }
            "bucket" => BucketName::parse(name)
                .map(Self::Bucket)
                .map_err(|error| GuardedError::Name(error.to_string())),
            _ => Err(GuardedError::Form),
        }
    }
}

impl fmt::Display for Guarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Topic(topic) => write!(f, "topic:{topic}"),
            Self::Bucket(bucket) => write!(f, "bucket:{bucket}"),
        }
    }
}

/// What shows that somebody holds a lock: whoever has it can renew and release the lock. It is a secret of the holder.
///
/// As text it is 32 hexadecimal digits, and behind them, where the lock guards something, `@` and what that is.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct LockToken {
    /// What nobody can guess.
    pub id: [u8; 16],
    /// What the lock guards.
    pub guards: Option<Guarded>,
}

/// A text is no token of a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is no token of a lock; a token is what the one who acquired the lock was answered")]
pub struct LockTokenError;

impl LockToken {
    /// Parses a token.
    ///
    /// # Errors
    /// The text has another form.
    pub fn parse(text: &str) -> Result<Self, LockTokenError> {
        let (digits, guards) = match text.split_once('@') {
            Some((digits, guards)) => (digits, Some(Guarded::parse(guards).map_err(|_| LockTokenError)?)),
            None => (text, None),
        };
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if digits.len() != 32 || !digits.bytes().all(is_digit) {
            return Err(LockTokenError);
        }
        let id = u128::from_str_radix(digits, 16).map_err(|_| LockTokenError)?;
        Ok(Self { id: id.to_be_bytes(), guards })
    }
}

impl fmt::Display for LockToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.id))?;
        self.guards.as_ref().map_or(Ok(()), |guards| write!(f, "@{guards}"))
    }
}

impl fmt::Debug for LockToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LockToken(…)")
    }
}

impl Serialize for LockToken {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

deserialize_from_text!(LockToken);

/// A fence, as who holds a lock shows it: `name=fence`, as in `nightly=1517363399650-0`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fence {
    /// The lock.
    pub lock: LockName,
    /// What the one who acquired it was answered.
    pub fence: MessageId,
}

/// A text is no fence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be the name of a lock, `=`, and the fence that its holder was answered, as in `nightly=1517363399650-0`"
)]
pub struct FenceError;

impl Fence {
    /// Parses a fence with the name of its lock.
    ///
    /// # Errors
    /// The text has another form.
    pub fn parse(text: &str) -> Result<Self, FenceError> {
        let (lock, fence) = text.split_once('=').ok_or(FenceError)?;
        let lock = LockName::parse(lock).map_err(|_| FenceError)?;
        Ok(Self { lock, fence: MessageId::parse(fence).map_err(|_| FenceError)? })
    }
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.lock, self.fence)
    }
}

impl Serialize for Fence {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

deserialize_from_text!(Fence);

/// The body of a request for a lock.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LockRequest {
    /// Who is to hold it: 1 to 128 of `A-Z a-z 0-9 _ - . @ /`. It is shown to whoever asks, and tells nobody apart.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub holder: ConsumerName,
    /// For how long it is held without being renewed: a number of seconds, or text with a unit; 100 ms to 24 h.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<String>,
    /// The lease that keeps it, in place of `ttl`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease: Option<String>,
    /// How long to wait where another holds it: a number of seconds, or text with a unit; at most 60 s, 0 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait: Option<String>,
    /// What it guards: `{"topic": "orders"}` or `{"bucket": "flows"}`. It is a part of which lock is meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<GuardedThing>))]
    pub guards: Option<Guarded>,
}

/// What a lock guards: one of these.
#[cfg(feature = "openapi")]
#[derive(Debug, utoipa::ToSchema)]
pub struct GuardedThing {
    /// A topic.
    pub topic: Option<String>,
    /// A bucket.
    pub bucket: Option<String>,
}

/// A lock that was acquired.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LockGranted {
    /// The lock.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub name: LockName,
    /// What it guards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<GuardedThing>, nullable = false))]
    pub guards: Option<Guarded>,
    /// With which it is renewed and released.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub token: LockToken,
    /// Which time it was acquired: greater than every fence that the lock has given before.
    pub fence: MessageId,
    /// Until when it is held, unless it is renewed.
    pub expires_at: Timestamp,
}

/// The body of a request to hold a lock for longer.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RenewRequest {
    /// The token of the holder.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub token: LockToken,
    /// For how long it is held from now on: a number of seconds, or text with a unit; 100 ms to 24 h.
    pub ttl: String,
}

/// A lock that is held for longer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LockRenewed {
    /// The lock.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub name: LockName,
    /// The fence, which stays.
    pub fence: MessageId,
    /// Until when it is held.
    pub expires_at: Timestamp,
}

/// The body of a request to hold several locks for longer.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RenewAllRequest {
    /// 1 to 1,000.
    pub renewals: Vec<RenewalItem>,
}

/// One of several locks that are to be held for longer.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RenewalItem {
    /// The lock.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub name: LockName,
    /// The token of the holder.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub token: LockToken,
    /// For how long it is held from now on: a number of seconds, or text with a unit; 100 ms to 24 h.
    pub ttl: String,
}

/// What came of one of several renewals.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RenewalResult {
    /// The lock.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub name: LockName,
    /// The fence, where it is held for longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub fence: Option<MessageId>,
    /// Until when, where it is held for longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub expires_at: Option<Timestamp>,
    /// Why it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub code: Option<Code>,
    /// The same in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub error: Option<String>,
}

/// What came of several renewals, in their order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RenewedAll {
    /// One for each.
    pub results: Vec<RenewalResult>,
}

/// The body of a request to give a lock back.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReleaseRequest {
    /// The token of the holder.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub token: LockToken,
}

/// A lock, as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LockState {
    /// The lock.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub name: LockName,
    /// What it guards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<GuardedThing>, nullable = false))]
    pub guards: Option<Guarded>,
    /// Who holds it; absent where nobody does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, nullable = false))]
    pub holder: Option<ConsumerName>,
    /// The fence of who holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub fence: Option<MessageId>,
    /// Until when it is held, unless it is renewed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub expires_at: Option<Timestamp>,
    /// How many wait.
    pub waiting: u64,
    /// Who waits, the next one first; at most 100 of them.
    pub queue: Vec<LockWaiter>,
}

/// A lock in a list of those that are held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ListedLock {
    /// The lock.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub name: LockName,
    /// What it guards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<GuardedThing>, nullable = false))]
    pub guards: Option<Guarded>,
    /// Who holds it.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub holder: ConsumerName,
    /// The fence of who holds it.
    pub fence: MessageId,
    /// Until when it is held, unless it is renewed.
    pub expires_at: Timestamp,
    /// How many wait.
    pub waiting: u64,
}

/// Who waits for a lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LockWaiter {
    /// Who is to hold it.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub holder: ConsumerName,
    /// For how many seconds it will be held without being renewed.
    #[cfg_attr(feature = "openapi", schema(value_type = f64))]
    pub ttl: Seconds,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_and_fences_are_texts_that_are_read_in_one_way() {
        let id = "00112233445566778899aabbccddeeff";
        for text in [id, &format!("{id}@topic:orders.eu:1"), &format!("{id}@bucket:flows")] {
            assert_eq!(LockToken::parse(text).map(|token| token.to_string()).as_deref(), Ok(text));
        }
        for text in [
            "",
            "0",
            &id.to_uppercase(),
            &format!("{id}@"),
            &format!("{id}@room:a"),
            &format!("+{}", &id[1..]),
        ] {
            assert!(LockToken::parse(text).is_err(), "{text}");
        }
        let fence = Fence::parse("a.b:c=5-1").expect("a fence");
        assert_eq!(
            (fence.lock.as_str(), fence.fence, fence.to_string().as_str()),
            ("a.b:c", MessageId::new(5, 1), "a.b:c=5-1")
        );
        for text in ["", "a", "a=", "=5-1", "a=5", "a b=5-1"] {
            assert!(Fence::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_guarded_is_an_object_or_a_text() {
        let guarded: Guarded = serde_json::from_str(r#"{"topic":"orders"}"#).expect("it names a topic");
        assert_eq!(
            (guarded.to_string().as_str(), Guarded::parse("topic:orders")),
            ("topic:orders", Ok(guarded.clone()))
        );
        assert_eq!(serde_json::to_string(&guarded).expect("it is a text"), r#"{"topic":"orders"}"#);
        for text in [r#"{"topic":"a b"}"#, r#"{"room":"a"}"#, r#"{"topic":"a","bucket":"b"}"#, "{}", "1"] {
            assert!(serde_json::from_str::<Guarded>(text).is_err(), "{text}");
        }
    }
}
