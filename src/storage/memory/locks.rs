//! Locks, in this process.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::{Mutex, MutexGuard};
use tidemill_proto::locks::{Fence, Guarded, WAITERS_MAX};
use tidemill_proto::work::ConsumerName;
use tidemill_proto::{LockName, MessageId, Timestamp};

use super::Memory;
use crate::storage::{
    FENCE_KEPT, HANDED_KEPT, Hint, LINE_LOOKED_EVERY, LockAnswer, LockAsked, LockHeld, LockId, LockIds,
    LockKept, LockKey, LockRenewal, LockSecret, LockSeen, LockStore, PLACE_KEPT, StorageError,
};

/// Locks that are there before it is looked for some that are over.
const CLEARED_AT_MIN: usize = 1_024;
/// Most locks that are held or waited for at one time.
const LOCKS_MAX: usize = 1_000_000;
/// Up to how many are counted who stand in front of somebody.
const COUNTED_MAX: usize = 100;

/// There are as many locks as there may be.
#[derive(Debug, thiserror::Error)]
#[error("there are {LOCKS_MAX} locks, as many as this backend keeps")]
struct TooMany;

/// Locks of one part of a list.
const LISTED_MAX: usize = 1_000;

/// Locks whose greatest fence a topic or a bucket remembers.
const SEEN_MAX: usize = 1_000;

/// The locks of the backend.
#[derive(Debug, Default)]
pub(super) struct Locks(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    /// In order, so that a list goes on where it was.
    locks: BTreeMap<LockId, Lock>,
    /// The last fence that was given.
    last: Option<MessageId>,
    /// The greatest fences that topics and buckets have seen of locks that do not guard them, and until when that is
    /// remembered.
    seen: HashMap<Guarded, HashMap<LockName, (MessageId, Timestamp)>>,
    /// How many locks there may be before it is looked for some that are over.
    cleared_at: usize,
}

#[derive(Debug, Default)]
struct Lock {
    held: Option<Held>,
    /// Those who wait, in the order in which they came.
    waiting: BTreeMap<u64, Waiter>,
    /// The place of each.
    places: HashMap<LockSecret, u64>,
    /// The next place.
    next: u64,
    /// When the line was looked through last because it was full.
    looked_at: Option<Timestamp>,
}

#[derive(Debug)]
struct Held {
    secret: LockSecret,
    holder: ConsumerName,
    key: Option<LockKey>,
    fence: MessageId,
    until: Timestamp,
    /// Whether it was handed over, and nobody has come for it.
    handed: bool,
}

#[derive(Debug)]
struct Waiter {
    secret: LockSecret,
    holder: ConsumerName,
    ttl: Duration,
    key: Option<LockKey>,
    /// Until when its place counts.
    until: Timestamp,
}

impl Held {
    fn shown(&self) -> LockHeld {
        LockHeld { holder: self.holder.clone(), fence: self.fence, expires_at: self.until }
    }
}

impl Lock {
    fn remove(&mut self, secret: &LockSecret) -> Option<Waiter> {
        self.waiting.remove(&self.places.remove(secret)?)
    }

    /// Returns whether there is room for one who waits, once those have gone whose places count no more.
    fn has_room(&mut self, now: Timestamp) -> bool {
        let is_due = |at: Timestamp| now < at || at.saturating_add(LINE_LOOKED_EVERY) <= now;
        if self.waiting.len() >= WAITERS_MAX && self.looked_at.is_none_or(is_due) {
            self.looked_at = Some(now);
            self.waiting.retain(|_, waiter| waiter.until > now);
            let waiting = &self.waiting;
            self.places.retain(|_, place| waiting.contains_key(place));
        }
        self.waiting.len() < WAITERS_MAX
    }

    fn is_over(&self, now: Timestamp) -> bool {
        self.held.as_ref().is_none_or(|held| held.until <= now)
            && self.waiting.values().all(|waiter| waiter.until <= now)
    }

    /// Takes the lock from who holds it longer than its time, and hands it to who is next; returns to whom.
    fn look(&mut self, last: &mut Option<MessageId>, id: &LockId, now: Timestamp) -> Option<LockSecret> {
        self.held.take_if(|held| held.until <= now);
        if self.held.is_some() {
            return None;
        }
        while let Some((_, waiter)) = self.waiting.pop_first() {
            self.places.remove(&waiter.secret);
            if waiter.until > now {
                let fence = next_fence(last, id, now);
                let Waiter { secret, holder, key, .. } = waiter;
                let until = now.saturating_add(HANDED_KEPT);
                self.held = Some(Held { secret, holder, key, fence, until, handed: true });
                return Some(secret);
            }
        }
        None
    }
}

/// Returns a fence that is greater than all before.
fn next_fence(last: &mut Option<MessageId>, id: &LockId, now: Timestamp) -> MessageId {
    let parity = u64::from(id.guards.is_some());
    let fence = match *last {
        Some(last) if last.ms >= now.as_millis() => {
            let seq = last.seq + 1;
            MessageId::new(last.ms, seq + u64::from(seq % 2 != parity))
        }
        _ => MessageId::new(now.as_millis(), parity),
    };
    *last = Some(fence);
    fence
}

/// What became of a step, and to whom the lock was handed in it.
type Step<T> = (T, Option<LockSecret>);

impl Locks {
    fn acquire(
        &self,
        id: &LockId,
        asked: &LockAsked,
        now: Timestamp,
    ) -> Step<Result<LockAnswer, StorageError>> {
        let kept = &mut *self.0.lock();
        if !kept.locks.contains_key(id) {
            kept.clear_if_many(now);
            if kept.locks.len() >= LOCKS_MAX {
                return (Err(StorageError::Full(TooMany.into())), None);
            }
        }
        let Kept { locks, last, .. } = kept;
        let lock = locks.entry(id.clone()).or_default();
        let handed = lock.look(last, id, now);
        let answer = lock.acquire(last, id, asked, now);
        kept.remove_if_over(id, now);
        (answer, handed)
    }

    fn renew(&self, renewal: &LockRenewal, now: Timestamp) -> Step<Option<LockKept>> {
        let LockRenewal { lock: id, secret, ttl } = renewal;
        self.step(id, now, |held| {
            let held = held.as_mut().filter(|held| held.secret == *secret)?;
            (held.until, held.handed) = (now.saturating_add(*ttl), false);
            Some(LockKept { fence: held.fence, expires_at: held.until })
        })
    }

    fn release(&self, id: &LockId, secret: LockSecret, now: Timestamp) -> Step<bool> {
        if let Some(lock) = self.0.lock().locks.get_mut(id) {
            lock.remove(&secret);
        }
        self.step(id, now, |held| held.take_if(|held| held.secret == secret).is_some())
    }

    fn take(&self, id: &LockId, now: Timestamp) -> Step<Option<LockHeld>> {
        self.step(id, now, |held| held.take().map(|held| held.shown()))
    }

    /// Does something with who holds a lock; where nobody does then, who is next has it.
    fn step<T>(&self, id: &LockId, now: Timestamp, change: impl FnOnce(&mut Option<Held>) -> T) -> Step<T> {
        let kept = &mut *self.0.lock();
        let Kept { locks, last, .. } = kept;
        let Some(lock) = locks.get_mut(id) else { return (change(&mut None), None) };
        let before = lock.look(last, id, now);
        let done = change(&mut lock.held);
        let handed = lock.look(last, id, now).or(before);
        kept.remove_if_over(id, now);
        (done, handed)
    }

    fn seen(&self, id: &LockId, limit: usize, now: Timestamp) -> LockSeen {
        let kept = self.0.lock();
        let Some(lock) = kept.locks.get(id) else { return LockSeen::default() };
        let held = lock.held.as_ref().filter(|held| held.until > now).map(Held::shown);
        let there = || lock.waiting.values().filter(|waiter| waiter.until > now);
        let queue = there().take(limit).map(|waiter| (waiter.holder.clone(), waiter.ttl)).collect();
        LockSeen { held, waiting: there().count() as u64, queue }
    }

    /// Returns the locks behind one, up to so many.
    fn ids(&self, after: Option<LockId>) -> LockIds {
        let kept = self.0.lock();
        let begin = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut rest = kept.locks.range((begin, Bound::Unbounded)).map(|(id, _)| id.clone());
        let locks: Vec<LockId> = rest.by_ref().take(LISTED_MAX).collect();
        let next = rest.next().and_then(|_| locks.last().map(text_of));
        LockIds { locks, next }
    }

    /// Returns the locks, which do not change as long as that is held.
    pub(super) fn still(&self) -> Still<'_> {
        Still(self.0.lock())
    }

    /// Removes all that is over.
    pub(super) fn clear(&self, now: Timestamp) {
        self.0.lock().clear(now);
    }
}

/// The locks, at one moment.
pub(super) struct Still<'a>(MutexGuard<'a, Kept>);

impl Still<'_> {
    /// Checks that who shows a fence to what is written holds its lock, as far as is known.
    pub(super) fn check(&self, written: &Guarded, fence: &Fence, now: Timestamp) -> Result<(), StorageError> {
        let Fence { lock, fence } = fence;
        if guards(*fence) {
            let id = LockId { name: lock.clone(), guards: Some(written.clone()) };
            let held = self.0.locks.get(&id).and_then(|lock| lock.held.as_ref());
            let held = held.filter(|held| held.until > now).map(|held| held.fence);
            return if held == Some(*fence) { Ok(()) } else { Err(StorageError::Fenced(held)) };
        }
        let greatest = self.0.seen.get(written).and_then(|seen| seen.get(lock));
        match greatest.filter(|(greatest, until)| greatest > fence && *until > now) {
            Some((greatest, _)) => Err(StorageError::Fenced(Some(*greatest))),
            None => Ok(()),
        }
    }

    /// Remembers a fence that was shown to what was written, once nothing else stood in the way.
    pub(super) fn note(&mut self, written: &Guarded, fence: &Fence, now: Timestamp) {
        let Fence { lock, fence } = fence;
        if guards(*fence) {
            return;
        }
        let seen = self.0.seen.entry(written.clone()).or_default();
        seen.retain(|_, (_, until)| *until > now);
        if seen.len() >= SEEN_MAX && !seen.contains_key(lock) {
            let least = seen.iter().min_by_key(|(_, (fence, _))| *fence).map(|(lock, _)| lock.clone());
            least.and_then(|least| seen.remove(&least));
        }
        seen.insert(lock.clone(), (*fence, now.saturating_add(FENCE_KEPT)));
    }
}

/// Returns which lock it is as text: its name, and behind `@`, which no name has, what it guards.
fn text_of(id: &LockId) -> String {
    let LockId { name, guards } = id;
    guards.as_ref().map_or_else(|| name.to_string(), |guards| format!("{name}@{guards}"))
}

/// Reads that text.
fn read_text(text: &str) -> Option<LockId> {
    let (name, guards) = match text.split_once('@') {
        Some((name, guards)) => (name, Some(Guarded::parse(guards).ok()?)),
        None => (text, None),
    };
    Some(LockId { name: LockName::parse(name).ok()?, guards })
}

/// Returns whether a fence is of a lock that guards something.
const fn guards(fence: MessageId) -> bool {
    fence.seq % 2 == 1
}

impl Kept {
    fn clear(&mut self, now: Timestamp) {
        self.locks.retain(|_, lock| !lock.is_over(now));
        self.cleared_at = self.locks.len() * 2;
        self.seen.retain(|_, seen| seen.values().any(|(_, until)| *until > now));
    }

    /// Clears where there are many, since the next sweep may be far off.
    fn clear_if_many(&mut self, now: Timestamp) {
        if self.locks.len() >= self.cleared_at.max(CLEARED_AT_MIN) {
            self.clear(now);
        }
    }

    fn remove_if_over(&mut self, id: &LockId, now: Timestamp) {
        let is_empty = |lock: &Lock| lock.held.is_none() && lock.is_over(now);
        if self.locks.get(id).is_some_and(is_empty) {
            self.locks.remove(id);
        }
    }
}

impl Lock {
    fn acquire(
        &mut self,
        last: &mut Option<MessageId>,
        id: &LockId,
        asked: &LockAsked,
        now: Timestamp,
    ) -> Result<LockAnswer, StorageError> {
        let same_key = |key: &Option<LockKey>| match (key, &asked.key) {
            (Some(known), Some(asked)) if known.key == asked.key => {
                Some(known.fingerprint == asked.fingerprint)
            }
            _ => None,
        };
        if let Some(held) = &mut self.held {
            let of_key = same_key(&held.key);
            if held.secret == asked.secret || of_key.is_some() {
                if of_key == Some(false) {
                    return Err(StorageError::KeyReused);
                }
                let handed = held.handed;
                if std::mem::take(&mut held.handed) {
                    held.until = now.saturating_add(asked.ttl);
                }
                let (secret, fence, expires_at) = (held.secret, held.fence, held.until);
                return Ok(LockAnswer::Granted { secret, fence, expires_at, handed });
            }
        }
        // Who has its place still has it under its key.
        let may_be_another = asked.key.is_some() && !self.places.contains_key(&asked.secret);
        let mut waiting = may_be_another.then(|| self.waiting.values()).into_iter().flatten();
        let other = waiting.find(|waiter| same_key(&waiter.key).is_some());
        let other = other.map(|waiter| (waiter.secret, same_key(&waiter.key)));
        if let Some((secret, of_key)) = other {
            if of_key == Some(false) {
                return Err(StorageError::KeyReused);
            }
            if asked.again {
                return Ok(LockAnswer::Replaced);
            }
            if asked.waits
                && let Some(place) = self.places.remove(&secret)
            {
                self.places.insert(asked.secret, place);
            }
        }
        let Some(held) = &self.held else {
            let (secret, fence) = (asked.secret, next_fence(last, id, now));
            let until = now.saturating_add(asked.ttl);
            let (holder, key) = (asked.holder.clone(), asked.key.clone());
            self.held = Some(Held { secret, holder, key, fence, until, handed: false });
            return Ok(LockAnswer::Granted { secret, fence, expires_at: until, handed: false });
        };
        let held = held.shown();
        let place = if asked.waits {
            let place = match self.places.get(&asked.secret).copied() {
                Some(place) => place,
                None if !self.has_room(now) => return Ok(LockAnswer::Crowded),
                None => {
                    self.next += 1;
                    self.places.insert(asked.secret, self.next);
                    self.next
                }
            };
            let LockAsked { secret, holder, ttl, key, .. } = asked.clone();
            let until = now.saturating_add(PLACE_KEPT);
            self.waiting.insert(place, Waiter { secret, holder, ttl, key, until });
            Some(self.waiting.range(..place).take(COUNTED_MAX).count() as u64)
        } else {
            self.remove(&asked.secret);
            None
        };
        let over_in = held.expires_at.as_millis().saturating_sub(now.as_millis());
        Ok(LockAnswer::Locked { held, over_in: Duration::from_millis(over_in), place })
    }
}

impl Memory {
    /// Returns what became of a step, and tells to whom a lock was handed in it.
    fn told<T>(&self, (done, handed): Step<T>) -> T {
        if let Some(secret) = handed {
            self.hints.tell(Hint::Lock(secret));
        }
        done
    }
}

#[async_trait]
impl LockStore for Memory {
    async fn acquire_lock(&self, lock: &LockId, asked: &LockAsked) -> Result<LockAnswer, StorageError> {
        self.told(self.locks.acquire(lock, asked, self.clock.now()))
    }

    async fn renew_locks(&self, renewals: &[LockRenewal]) -> Vec<Result<Option<LockKept>, StorageError>> {
        let now = self.clock.now();
        renewals.iter().map(|renewal| Ok(self.told(self.locks.renew(renewal, now)))).collect()
    }

    async fn release_lock(&self, lock: &LockId, secret: LockSecret) -> Result<bool, StorageError> {
        Ok(self.told(self.locks.release(lock, secret, self.clock.now())))
    }

    async fn take_lock(&self, lock: &LockId) -> Result<Option<LockHeld>, StorageError> {
        Ok(self.told(self.locks.take(lock, self.clock.now())))
    }

    async fn lock(&self, lock: &LockId, limit: usize) -> Result<LockSeen, StorageError> {
        Ok(self.locks.seen(lock, limit, self.clock.now()))
    }

    async fn lock_ids(&self, after: Option<&str>) -> Result<Option<LockIds>, StorageError> {
        let after = match after.map(read_text) {
            Some(None) => return Ok(None),
            after => after.flatten(),
        };
        Ok(Some(self.locks.ids(after)))
    }

    /// Nobody but this node hands over its locks.
    fn watch_locks(&self, _watch: bool) {}
}

#[cfg(test)]
mod tests;
