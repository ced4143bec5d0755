//! Locks: the rules, and the way to storage.

use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use sha2::{Digest as _, Sha256};
use tidemill_proto::locks::{Fence, QUEUE_SHOWN_MAX};
use tidemill_proto::work::ConsumerName;
use tidemill_proto::{Code, LockName, Problem};
use tokio::time::{Instant, sleep_until};

use super::publish::IdempotencyKey;
use super::{Failure, Gate, LeaseHold, Leased};
use crate::access::{Kind, Verb, Who, changed, secret_id};
use crate::chance::jittered;
use crate::features::Feature;
use crate::slow;
use crate::storage::{
    LockAnswer, LockAsked, LockHeld, LockId, LockIds, LockKept, LockKey, LockRenewal, LockSecret, LockSeen,
    PLACE_KEPT, StorageError, is_made_up,
};

pub(super) use waiting::LockWaiters;
pub use waiting::{GiveBackLock, HeldLock};

mod waiting;

/// How often who is among the next asks how far it has come, where nothing is heard.
const LOOKED_EVERY: Duration = Duration::from_secs(1);
/// How often the others do.
const LOOKED_SELDOM: Duration = Duration::from_secs(2);
/// Who is among the next.
const NEXT: u64 = 16;
/// Time until who waits asks again where the storage did not answer.
const RETRY: Duration = Duration::from_millis(250);

const _: () =
    assert!(LOOKED_SELDOM.as_millis() * 2 < PLACE_KEPT.as_millis(), "a place outlives a look that fails");

/// Locks that are looked at, at the same time.
const SEEN_AT_ONCE: usize = 16;

/// A page of locks that are held.
#[derive(Clone, Debug)]
pub struct LockList {
    /// The locks, in the order of their names, and who holds each, with how many wait.
    pub locks: Vec<(LockId, LockHeld, u64)>,
    /// Behind which the next page begins; `None` where this one is the last.
    pub next: Option<String>,
}

/// A lock that is asked for.
#[derive(Debug)]
pub struct LockDraft {
    /// The lock.
    pub lock: LockId,
    /// Who is to hold it.
    pub holder: ConsumerName,
    /// For how long; of one under a lease, what that has left.
    pub ttl: Duration,
    /// The lease that keeps it.
    pub lease: Option<LeaseHold>,
    /// How long to wait where another holds it.
    pub wait: Duration,
    /// Under which it is found again.
    pub key: Option<IdempotencyKey>,
}

/// Parses a fence, with the name of its lock; `field` is what the publisher called it.
///
/// # Errors
/// The text has another form.
pub fn parse_fence(field: &str, text: &str) -> Result<Fence, Failure> {
    Fence::parse(text).map_err(|error| Problem::field(field, error).into())
}

impl Gate {
    /// Checks that a publish may show a fence, which is for later, or unique.
    pub(super) fn check_fence_of_message(
        &self,
        fence: &Fence,
        is_for_later: bool,
        is_unique: bool,
    ) -> Result<(), Failure> {
        let rule = if is_for_later {
            "cannot stand beside `delay` and `deliver_at`: who holds the lock by then is not known"
        } else if is_unique {
            "cannot stand beside `unique`"
        } else {
            return self.check_fence("fence", fence);
        };
        Err(Problem::field("fence", rule).into())
    }

    /// Checks that fences can be shown on this relay, and that a lock can have given this one; `field` is what the caller
    /// called it.
    pub(super) fn check_fence(&self, field: &str, fence: &Fence) -> Result<(), Failure> {
        if self.relay().options.features.has(Feature::Locks) {
            if !is_made_up(fence.fence, self.relay().storage.upkeep.now()) {
                return Ok(());
            }
            let rule = "is later than the clock of the storage, so no lock has given it; show the fence that was answered to who acquired the lock";
            return Err(Problem::field(field, rule).into());
        }
        let rule = "is switched off on this relay (setting `TIDEMILL_FEATURES`, which does not name `locks`)";
        Err(Problem::field(field, rule).into())
    }

    /// Checks that the caller may do this with a lock: asked before a body is read.
    ///
    /// # Errors
    /// It may not.
    pub fn check_lock(&self, verb: Verb, name: &LockName) -> Result<(), Failure> {
        Ok(self.caller().check_named(verb, Kind::Lock, &[name.as_str()])?)
    }

    /// Acquires a lock; where another holds it, waits for so long. What comes back is given back unless it is taken.
    ///
    /// # Errors
    /// The caller may not; another holds the lock: `locked`; or the storage did not answer.
    ///
    /// # Cancel safety
    /// When the future is dropped, the place in the line is given up, and the lock given back if it was granted.
    pub async fn acquire_lock(&self, draft: LockDraft) -> Result<HeldLock, Failure> {
        let LockDraft { lock, holder, ttl, lease, wait, key } = draft;
        self.check_lock(Verb::Work, &lock.name)?;
        let waiters = &self.relay().locks;
        let is_keyed = key.is_some();
        let key = key.map(|key| key_of(self.caller().who(), &key, &lock, &holder, ttl, lease.as_ref()));
        let secret = secret_id();
        let until = Instant::now() + wait;
        let place = (!wait.is_zero()).then(|| waiters.enter(secret));
        let mut open = waiters.asked(&lock, secret);
        let mut asked = LockAsked { secret, holder, ttl, waits: false, again: false, key };
        loop {
            asked.waits = place.is_some() && Instant::now() < until && !self.is_leaving();
            let answer = self.relay().storage.locks.acquire_lock(&lock, &asked).await;
            let next_look = match answer {
                Ok(LockAnswer::Granted { secret: of, fence, expires_at, handed }) => {
                    let is_replayed = of != secret;
                    // Who has a key asks again.
                    let back = open.found().filter(|_| !is_keyed);
                    let held = HeldLock { lock, secret: of, fence, expires_at, handed, is_replayed, back };
                    return match lease {
                        Some(lease) => self.lock_under(&lease, held).await,
                        None => Ok(held),
                    };
                }
                Ok(LockAnswer::Locked { held, over_in, place: Some(in_front) }) if asked.waits => {
                    let seldom = if in_front < NEXT { LOOKED_EVERY } else { LOOKED_SELDOM };
                    // A millisecond more, since the storage counts whole ones.
                    let over_in = over_in + Duration::from_millis(1);
                    drop(held);
                    if in_front == 0 { over_in.min(LOOKED_EVERY) } else { jittered(seldom) }
                }
                Ok(LockAnswer::Locked { held, .. }) => {
                    open.found();
                    if self.is_leaving() && Instant::now() < until {
                        let detail = "the node is stopping; the lock was not acquired, try another node";
                        return Err(Problem::new(Code::Overloaded, detail).into());
                    }
                    return Err(locked(&lock.name, held));
                }
                Ok(LockAnswer::Crowded) => {
                    open.found();
                    let detail = format!("as many wait for lock `{}` as may; try again", lock.name);
                    return Err(Problem::new(Code::Overloaded, detail).into());
                }
                Ok(LockAnswer::Replaced) => {
                    open.found();
                    let detail = "the same was asked for again under this `Idempotency-Key`, and that waits in its place";
                    return Err(Problem::new(Code::Conflict, detail).into());
                }
                // Its place is kept meanwhile.
                Err(StorageError::Unavailable(_) | StorageError::Indeterminate(_))
                    if asked.waits && asked.again =>
                {
                    RETRY
                }
                Err(error) => {
                    if is_keyed || !matches!(error, StorageError::Indeterminate(_)) {
                        open.found();
                    }
                    return Err(unacquired(error, is_keyed));
                }
            };
            asked.again = true;
            let next_look = (Instant::now() + next_look).min(until);
            let looks_again = async {
                match &place {
                    Some(place) => tokio::select! {
                        () = place.told() => {}
                        () = self.relay().sessions.draining() => {}
                        () = waiters.stopping() => {}
                        () = sleep_until(next_look) => {}
                    },
                    None => sleep_until(next_look).await,
                }
            };
            slow::awaited(looks_again).await;
        }
    }

    /// Whether nobody is to wait on this node any more.
    fn is_leaving(&self) -> bool {
        self.relay().sessions.is_draining() || self.relay().locks.is_stopping()
    }

    /// Puts a lock that was granted under a lease.
    async fn lock_under(&self, lease: &LeaseHold, mut held: HeldLock) -> Result<HeldLock, Failure> {
        let thing = Leased::Lock { lock: held.lock.clone(), secret: held.secret };
        held.expires_at = self.put_under(lease, thing, held.handed || held.is_replayed).await?;
        Ok(held)
    }

    /// Holds locks for longer, and returns a result for each. Each succeeds or fails alone.
    ///
    /// # Panics
    /// The backend breaks its contract.
    pub async fn renew_locks(&self, renewals: Vec<LockRenewal>) -> Vec<Result<LockKept, Failure>> {
        let mut results: Vec<Option<Result<LockKept, Failure>>> = Vec::with_capacity(renewals.len());
        let mut may = Vec::with_capacity(renewals.len());
        for renewal in renewals {
            match self.check_lock(Verb::Work, &renewal.lock.name) {
                Ok(()) => {
                    may.push(renewal);
                    results.push(None);
                }
                Err(failure) => results.push(Some(Err(failure))),
            }
        }
        let kept =
            if may.is_empty() { Vec::new() } else { self.relay().storage.locks.renew_locks(&may).await };
        assert_eq!(kept.len(), may.len(), "there is an answer for each");
        let mut kept = kept.into_iter().zip(may).map(|(kept, renewal)| match kept {
            Ok(Some(kept)) => Ok(kept),
            Ok(None) => Err(lost(&renewal.lock.name)),
            Err(error) => Err(Failure::changed(error)),
        });
        let result =
            |result: Option<_>| result.or_else(|| kept.next()).expect("there are as many as were asked");
        results.into_iter().map(result).collect()
    }

    /// Checks that there may be a lock that the caller may hold: asked before a body is read.
    ///
    /// # Errors
    /// There can be none.
    pub fn check_some_lock(&self, verb: Verb) -> Result<(), Failure> {
        Ok(self.caller().check_some_named(verb, Kind::Lock)?)
    }

    /// Gives a lock back.
    ///
    /// # Errors
    /// The caller may not; the lock is not held under this secret: `lock_lost`; or the storage did not answer.
    pub async fn release_lock(&self, lock: &LockId, secret: LockSecret) -> Result<(), Failure> {
        self.check_lock(Verb::Work, &lock.name)?;
        let released = self.relay().storage.locks.release_lock(lock, secret).await;
        if released.map_err(Failure::changed)? { Ok(()) } else { Err(lost(&lock.name)) }
    }

    /// Takes a lock away from whoever holds it.
    ///
    /// # Errors
    /// The caller may not; nobody holds it: `lock_not_held`; or the storage did not answer.
    pub async fn take_lock(&self, lock: &LockId) -> Result<(), Failure> {
        self.check_lock(Verb::Manage, &lock.name)?;
        let taken = self.relay().storage.locks.take_lock(lock).await.map_err(Failure::changed)?;
        let name = &lock.name;
        let Some(held) = taken else {
            return Err(Problem::new(Code::LockNotHeld, format!("nobody holds lock `{name}`")).into());
        };
        if *self.caller().who() != Who::Anyone {
            let (lock, holder) = (name.as_str(), held.holder.to_string());
            changed!(self.caller().who(), self.origin(), "lock taken away", lock, holder);
        }
        Ok(())
    }

    /// Lists locks that are held, of those that the caller may read: some of them, and behind which the others come. A page
    /// may be empty where others follow.
    ///
    /// # Errors
    /// The caller may read none, `after` is nothing that a page has told, or the storage did not answer.
    pub async fn list_locks(&self, after: Option<&str>) -> Result<LockList, Failure> {
        self.check_some_lock(Verb::Read)?;
        let store = &self.relay().storage.locks;
        let found = store.lock_ids(after).await.map_err(|error| Failure::read(error, None))?;
        let Some(LockIds { locks: mut ids, next }) = found else {
            let rule =
                "is nothing behind which locks come; take the address that the page before has in `Link`";
            return Err(Problem::field("after", rule).into());
        };
        ids.retain(|id| self.check_lock(Verb::Read, &id.name).is_ok());
        ids.sort_unstable();
        ids.dedup();
        let seen = ids.into_iter().map(|id| async move { (store.lock(&id, 0).await, id) });
        let mut seen = stream::iter(seen).buffered(SEEN_AT_ONCE);
        let mut locks = Vec::new();
        while let Some((seen, id)) = seen.next().await {
            match seen {
                Ok(LockSeen { held, waiting, .. }) => locks.extend(held.map(|held| (id, held, waiting))),
                // What another program keeps there is no lock.
                Err(StorageError::ForeignKey(_)) => {}
                Err(error) => return Err(Failure::read(error, None)),
            }
        }
        Ok(LockList { locks, next })
    }

    /// Tells who holds a lock, and who waits.
    ///
    /// # Errors
    /// The caller may not, or the storage did not answer.
    pub async fn lock(&self, lock: &LockId) -> Result<LockSeen, Failure> {
        self.check_lock(Verb::Read, &lock.name)?;
        let seen = self.relay().storage.locks.lock(lock, QUEUE_SHOWN_MAX).await;
        seen.map_err(|error| Failure::read(error, None))
    }
}

/// Returns the digests of a key, which is its caller's own, and of all that was sent with it.
fn key_of(
    who: &Who,
    key: &IdempotencyKey,
    lock: &LockId,
    holder: &ConsumerName,
    ttl: Duration,
    lease: Option<&LeaseHold>,
) -> LockKey {
    let digest = |parts: &[&[u8]]| -> [u8; 16] {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        let mut digest = [0; 16];
        digest.copy_from_slice(&hash.finalize()[..16]);
        digest
    };
    // What a lease has left is another time whenever it is asked.
    let ttl = || u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).to_le_bytes().to_vec();
    let life = lease.map_or_else(ttl, |hold| [b"lease", hold.digest().as_slice()].concat());
    LockKey {
        key: digest(&[who.name().as_bytes(), key.as_str().as_bytes()]),
        fingerprint: digest(&[lock.name.as_str().as_bytes(), holder.as_str().as_bytes(), &life]),
    }
}

fn locked(name: &LockName, held: LockHeld) -> Failure {
    let LockHeld { holder, expires_at, .. } = held;
    let detail = format!("lock `{name}` is held by `{holder}`, until {expires_at} unless it is renewed");
    let problem = Problem::new(Code::Locked, detail);
    Problem { holder: Some(holder), expires_at: Some(expires_at), ..problem }.into()
}

fn lost(name: &LockName) -> Failure {
    let detail = format!(
        "lock `{name}` is not held under this token: it was released, its time was over, or it was taken away"
    );
    Problem::new(Code::LockLost, detail).into()
}

/// Returns why a lock was not acquired that the storage did not grant.
fn unacquired(error: StorageError, is_keyed: bool) -> Failure {
    match error {
        StorageError::KeyReused => Problem::new(
            Code::KeyReused,
            "the idempotency key was used for another holder or another time of this lock; use a new key",
        )
        .into(),
        error => {
            let is_unknown = matches!(error, StorageError::Indeterminate(_));
            let mut failure = Failure::changed(error);
            if is_unknown {
                let problem = failure.problem_mut();
                problem.retryable = is_keyed;
                let then = if is_keyed {
                    "try again under the same key: that finds it"
                } else {
                    "with an `Idempotency-Key` it can be found again"
                };
                problem.detail = format!(
                    "the storage did not answer in time, so the lock may have been acquired or not; {then}"
                );
            }
            failure
        }
    }
}
