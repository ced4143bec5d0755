//! Locks: who holds one, in which order others get it, and the fence by which it is told who held it last.
//!
//! A lock is there as long as somebody holds it or waits. Who releases it hands it to the first who waits, in the same
//! step; so does whoever looks at a lock whose time is over. Nobody else is woken.
//!
//! Who waits has a place in the line, which counts for [`PLACE_KEPT`] from when it was last asked for. To whom a lock is
//! handed has it for [`HANDED_KEPT`]: only when it comes for it (by [`LockStore::acquire_lock`] again, under the same
//! token) its time begins. So what is handed to somebody who has gone passes on.
//!
//! A fence is a time and a number, by the clock of the backend. Each is greater than all that the lock has given before,
//! also where the clock goes back, as long as not more than [`FENCE_KEPT`] lie between. The last bit of the number says
//! whether the lock guards something: who shows a fence has it checked in that way, whether it knows of that or not.
//! Of a lock that guards nothing it is not known what it has given: no fence of one counts that is further ahead of the
//! clock than [`FENCE_AHEAD_MAX`] ([`is_made_up`]).

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use tidemill_proto::locks::Guarded;
use tidemill_proto::work::ConsumerName;
use tidemill_proto::{LockName, MessageId, Timestamp};

use super::error::StorageError;

/// How long a place in the line counts that nobody asks for any more.
pub const PLACE_KEPT: Duration = Duration::from_secs(5);
/// How often a line that is full is looked through for places that count no more.
pub const LINE_LOOKED_EVERY: Duration = Duration::from_secs(1);
/// How long a lock is held by somebody to whom it was handed, and who does not come for it.
pub const HANDED_KEPT: Duration = Duration::from_secs(2);
/// How long the last fence is remembered.
pub const FENCE_KEPT: Duration = Duration::from_hours(7 * 24);

/// How far ahead of the clock a fence is that was given before that was set back, and still counts where its lock guards
/// nothing.
pub const FENCE_AHEAD_MAX: Duration = Duration::from_mins(1);

const _: () =
    assert!(HANDED_KEPT.as_millis() < PLACE_KEPT.as_millis(), "who waits is asked for more often than that");

/// Which lock.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LockId {
    /// Its name.
    pub name: LockName,
    /// What it guards.
    pub guards: Option<Guarded>,
}

/// Returns whether no lock can have given a fence by now, as far as that has to be known: of one that guards something that
/// of who holds it counts alone.
#[must_use]
pub fn is_made_up(fence: MessageId, now: Timestamp) -> bool {
    let guards = fence.seq % 2 == 1;
    !guards && fence.ms > now.saturating_add(FENCE_AHEAD_MAX).as_millis()
}

/// What shows that somebody holds a lock, or waits for it: what nobody can guess.
pub type LockSecret = [u8; 16];

/// Somebody wants a lock, or asks how far it has come.
#[derive(Clone, Debug)]
pub struct LockAsked {
    /// By which it is told apart from all others who ask.
    pub secret: LockSecret,
    /// Who is to hold it, as it is shown.
    pub holder: ConsumerName,
    /// For how long.
    pub ttl: Duration,
    /// Whether it has a place in the line where another holds the lock.
    pub waits: bool,
    /// Whether it has asked before: it never takes a place from who has asked under its key since.
    pub again: bool,
    /// Under which key it is found again by who asks once more, with a digest of all that was sent.
    pub key: Option<LockKey>,
}

/// A key under which a lock that was asked for is found again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockKey {
    /// The digest of the key, and of who has sent it.
    pub key: [u8; 16],
    /// The digest of everything else that was sent.
    pub fingerprint: [u8; 16],
}

/// Who holds a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockHeld {
    /// As it calls itself.
    pub holder: ConsumerName,
    /// Its fence.
    pub fence: MessageId,
    /// Until when.
    pub expires_at: Timestamp,
}

/// What became of asking for a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LockAnswer {
    /// Who asks holds it.
    Granted {
        /// Under which secret: another one than was asked for where its key was known.
        secret: LockSecret,
        /// The fence.
        fence: MessageId,
        /// Until when.
        expires_at: Timestamp,
        /// Whether it was waited for, and handed over.
        handed: bool,
    },
    /// Another holds it.
    Locked {
        /// Who.
        held: LockHeld,
        /// In how long that is over, unless it is renewed.
        over_in: Duration,
        /// How many stand in front, where there is a place in the line; of more than 100 perhaps 100.
        place: Option<u64>,
    },
    /// As many wait as may.
    Crowded,
    /// The place in the line was given to who has asked under the same key since.
    Replaced,
}

/// A lock is to be held for longer.
#[derive(Clone, Debug)]
pub struct LockRenewal {
    /// The lock.
    pub lock: LockId,
    /// Of who holds it.
    pub secret: LockSecret,
    /// For how long from now on.
    pub ttl: Duration,
}

/// A lock that is held for longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockKept {
    /// The fence, which stays.
    pub fence: MessageId,
    /// Until when.
    pub expires_at: Timestamp,
}

/// A lock, as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LockSeen {
    /// Who holds it.
    pub held: Option<LockHeld>,
    /// How many wait.
    pub waiting: u64,
    /// Who waits, the next one first, with the time for which each would hold it.
    pub queue: Vec<(ConsumerName, Duration)>,
}

/// Some of the locks that somebody holds or waits for, and where the others come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LockIds {
    /// Which locks, in no order. One may come again; one that is over may be among them.
    pub locks: Vec<LockId>,
    /// Behind which the others come; `None` where these are the last. Only the backend that has made it reads it: up to 512
    /// visible ASCII characters, without `&`, `<` and `>`.
    pub next: Option<String>,
}

/// Locks.
#[async_trait]
pub trait LockStore: fmt::Debug + Send + Sync {
    /// Asks for a lock. Who asks again under the same secret learns how far it has come: it is granted what was handed to
    /// it, its place in the line is kept, or given up where it does not wait any more.
    ///
    /// A key that was used finds what was granted under it, as long as that is held, and takes over the place in the line
    /// that was taken under it.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `Overloaded`, `Full`, `ForeignKey`, `KeyReused`.
    ///
    /// # Cancel safety
    /// Not cancel-safe: when the future is dropped, the lock may be granted; [`release_lock`](Self::release_lock) gives it
    /// back.
    async fn acquire_lock(&self, lock: &LockId, asked: &LockAsked) -> Result<LockAnswer, StorageError>;

    /// Has locks be held for longer, and returns a result for each: `None` where it is held no
    /// more. Each succeeds or fails alone.
    ///
    /// # Errors
    /// Per lock: `Unavailable`, `Indeterminate`, `Overloaded`, `ForeignKey`.
    async fn renew_locks(&self, renewals: &[LockRenewal]) -> Vec<Result<Option<LockKept>, StorageError>>;

    /// Gives a lock back, or a place in the line, and returns whether the lock was held under this secret. Who is next has
    /// it then.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `Overloaded`, `ForeignKey`.
    async fn release_lock(&self, lock: &LockId, secret: LockSecret) -> Result<bool, StorageError>;

    /// Takes a lock away from whoever holds it, and returns who that was. Who is next has it then.
    ///
    /// # Errors
    /// As [`release_lock`](Self::release_lock).
    async fn take_lock(&self, lock: &LockId) -> Result<Option<LockHeld>, StorageError>;

    /// Tells who holds a lock, and who waits, up to `limit` of them.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `Overloaded`, `ForeignKey`.
    async fn lock(&self, lock: &LockId, limit: usize) -> Result<LockSeen, StorageError>;

    /// Returns some of the locks that somebody holds or waits for, behind `after`: where all are asked for, one part behind
    /// the other, each lock that is there all the time is among them. A part may be empty, and has about 2,000 at most, for
    /// which a bounded share of what is kept is looked through. `None` where `after` is nothing that this backend has told.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `Overloaded`.
    async fn lock_ids(&self, after: Option<&str>) -> Result<Option<LockIds>, StorageError>;

    /// Begins or ends wanting hints of locks that are handed to somebody ([`Hint::Lock`](super::Hint::Lock)). It is a switch
    /// and counts nothing: the last call holds. A backend that has others tells with
    /// [`Hint::WatchedLocks`](super::Hint::WatchedLocks) that it has begun.
    fn watch_locks(&self, watch: bool);
}
