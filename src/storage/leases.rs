//! Leases: what is kept alive together, and until when.
//!
//! A lease is a record of its own: how long it lasts without being renewed, until when that is by the clock of the backend,
//! and what was put under it. Its end is the end of that record, and of nothing else here: each thing has a time of its
//! own, and whoever renews a lease gives that time to each thing behind it. So what a lease keeps ends with it also where
//! nobody is there any more who could end it.
//!
//! With each thing stands what shows that it is still the one that was put under the lease: the secret of a lock, the
//! revision of a key. A thing is under a lease once: of two revisions of a key the later one stays.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use tidemill_proto::leases::THINGS_MAX;
use tidemill_proto::locks::Guarded;
use tidemill_proto::{BucketName, KeyName, LockName, MessageId, Timestamp};

use super::error::StorageError;
use super::locks::{LockId, LockSecret};

/// Most things under one lease.
pub const LEASED_MAX: usize = THINGS_MAX;

/// What shows that somebody holds a lease: what nobody can guess.
pub type LeaseSecret = [u8; 16];

/// Something that a lease keeps.
#[derive(Clone, PartialEq, Eq)]
pub enum Leased {
    /// A lock.
    Lock {
        /// The lock.
        lock: LockId,
        /// Of who holds it.
        secret: LockSecret,
    },
    /// A key, or a member of a room.
    Key {
        /// The bucket, also that of a room.
        bucket: BucketName,
        /// The key.
        key: KeyName,
        /// What it had when it was put under the lease.
        revision: MessageId,
    },
}

impl fmt::Debug for Leased {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Leased({})", self.name())
    }
}

impl Leased {
    /// Returns which thing it is, as text that no other thing has. It has a space in it.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Lock { lock: LockId { name, guards: None }, .. } => format!("lock {name}"),
            Self::Lock { lock: LockId { name, guards: Some(guards) }, .. } => format!("lock {name} {guards}"),
            Self::Key { bucket, key, .. } => format!("key {bucket} {key}"),
        }
    }

    /// Returns what shows that it is still the one that was put under the lease, as text.
    #[must_use]
    pub fn proof(&self) -> String {
        match self {
            Self::Lock { secret, .. } => format!("{:032x}", u128::from_be_bytes(*secret)),
            Self::Key { revision, .. } => revision.to_string(),
        }
    }

    /// Reads a thing from both texts; `None` of what is none.
    #[must_use]
    pub fn parse(name: &str, proof: &str) -> Option<Self> {
        let (kind, rest) = name.split_once(' ')?;
        match kind {
            "lock" => {
                let (name, guards) = match rest.split_once(' ') {
                    Some((name, guards)) => (name, Some(Guarded::parse(guards).ok()?)),
                    None => (rest, None),
                };
                let lock = LockId { name: LockName::parse(name).ok()?, guards };
                let secret = u128::from_str_radix(proof, 16).ok()?.to_be_bytes();
                Some(Self::Lock { lock, secret })
            }
            "key" => {
                let (bucket, key) = rest.split_once(' ')?;
                let (bucket, key) = (BucketName::parse_kept(bucket)?, KeyName::parse(key).ok()?);
                Some(Self::Key { bucket, key, revision: MessageId::parse(proof).ok()? })
            }
            _ => None,
        }
    }

    /// Returns whether it is an earlier revision than the other one of the same key.
    #[must_use]
    pub fn is_before(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Key { revision, .. }, Self::Key { revision: of_other, .. }) => revision < of_other,
            _ => false,
        }
    }
}

/// A lease, as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseFacts {
    /// How long it lasts without being renewed.
    pub ttl: Duration,
    /// In how long it ends.
    pub left: Duration,
    /// When that is.
    pub expires_at: Timestamp,
    /// How many things are under it.
    pub count: usize,
}

/// A lease, with what is under it, in the order of names.
pub type LeaseSeen = (LeaseFacts, Vec<Leased>);

/// What became of putting something under a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutUnder {
    /// It is under this lease.
    Kept(LeaseFacts),
    /// The lease has ended, or there was none.
    NoLease,
    /// The lease has [`LEASED_MAX`] things.
    Crowded,
}

/// Leases.
#[async_trait]
pub trait LeaseStore: fmt::Debug + Send + Sync {
    /// Makes a lease.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `Overloaded`, `Full`, `ForeignKey`.
    async fn make_lease(&self, secret: LeaseSecret, ttl: Duration) -> Result<LeaseFacts, StorageError>;

    /// Tells what a lease is, without what is under it, if there is one.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `Overloaded`, `ForeignKey`.
    async fn lease(&self, secret: LeaseSecret) -> Result<Option<LeaseFacts>, StorageError>;

    /// Tells what is under a lease, if there is one.
    ///
    /// # Errors
    /// As [`lease`](Self::lease).
    async fn leased(&self, secret: LeaseSecret) -> Result<Option<LeaseSeen>, StorageError>;

    /// Puts something under a lease.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `Overloaded`, `Full`, `ForeignKey`.
    async fn put_under(&self, secret: LeaseSecret, thing: &Leased) -> Result<PutUnder, StorageError>;

    /// Takes things from under a lease that are still there as they are named here, up to [`LEASED_MAX`].
    ///
    /// # Errors
    /// As [`lease`](Self::lease).
    async fn let_go(&self, secret: LeaseSecret, things: &[Leased]) -> Result<(), StorageError>;

    /// Has a lease last for its whole time from now on, if there is one, and tells what is under it.
    ///
    /// # Errors
    /// As [`lease`](Self::lease).
    async fn renew_lease(&self, secret: LeaseSecret) -> Result<Option<LeaseSeen>, StorageError>;

    /// Ends a lease, if there is one, and tells what was under it. Nothing is put under it from then on.
    ///
    /// # Errors
    /// As [`lease`](Self::lease).
    async fn end_lease(&self, secret: LeaseSecret) -> Result<Option<Vec<Leased>>, StorageError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thing_is_read_as_it_is_written() {
        let id = "00112233445566778899aabbccddeeff";
        for (name, proof) in [
            ("lock a.b:c", id),
            ("lock a topic:orders", id),
            ("lock a bucket:flows", id),
            ("key flows a.b:c", "5-1"),
            ("key presence/lobby ann", "18446744073709551615-0"),
        ] {
            let thing = Leased::parse(name, proof).expect(name);
            assert_eq!((thing.name().as_str(), thing.proof().as_str()), (name, proof));
            assert!(!format!("{thing:?}").contains(proof), "a proof may be a secret");
        }
        for (name, proof) in [
            ("lock", id),
            ("lock a room:b", id),
            ("lock a", "x"),
            ("key a", "5-1"),
            ("key a b", "5"),
            ("room a b", "5-1"),
            ("ttl", "1000"),
        ] {
            assert_eq!(Leased::parse(name, proof), None, "{name}");
        }
    }
}
