//! Leases, in this process.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tidemill_proto::Timestamp;

use super::Memory;
use crate::storage::{
    LEASED_MAX, LeaseFacts, LeaseSecret, LeaseSeen, LeaseStore, Leased, PutUnder, StorageError,
};

/// Leases that are there before it is looked for some that have ended.
const CLEARED_AT_MIN: usize = 1_024;
/// Most leases at one time.
const LEASES_MAX: usize = 1_000_000;
/// Most things under all of them together.
const THINGS_MAX: usize = 2_000_000;

/// There are as many leases, or things under them, as there may be.
#[derive(Debug, thiserror::Error)]
#[error("there are {LEASES_MAX} leases, or {THINGS_MAX} things under them, as many as this backend keeps")]
struct TooMany;

/// The leases of the backend.
#[derive(Debug, Default)]
pub(super) struct Leases(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    leases: HashMap<LeaseSecret, Lease>,
    /// How many things are under all of them.
    things: usize,
    /// How many leases there may be before it is looked for some that have ended.
    cleared_at: usize,
}

#[derive(Debug)]
struct Lease {
    ttl: Duration,
    until: Timestamp,
    /// By name.
    things: BTreeMap<Box<str>, Leased>,
}

impl Lease {
    fn facts(&self, now: Timestamp) -> LeaseFacts {
        let left = self.until.as_millis().saturating_sub(now.as_millis());
        let left = Duration::from_millis(left);
        LeaseFacts { ttl: self.ttl, left, expires_at: self.until, count: self.things.len() }
    }

    fn seen(&self, now: Timestamp) -> LeaseSeen {
        (self.facts(now), self.things.values().cloned().collect())
    }
}

impl Kept {
    fn clear(&mut self, now: Timestamp) {
        let mut gone = 0;
        self.leases.retain(|_, lease| {
            let stays = lease.until > now;
            gone += if stays { 0 } else { lease.things.len() };
            stays
        });
        self.things -= gone;
        self.cleared_at = self.leases.len() * 2;
    }

    /// Returns a lease that has not ended.
    fn found(&mut self, secret: LeaseSecret, now: Timestamp) -> Option<&mut Lease> {
        self.leases.get_mut(&secret).filter(|lease| lease.until > now)
    }
}

impl Leases {
    /// Removes leases that have ended.
    pub(super) fn clear(&self, now: Timestamp) {
        self.0.lock().clear(now);
    }

    fn make(&self, secret: LeaseSecret, ttl: Duration, now: Timestamp) -> Result<LeaseFacts, StorageError> {
        let kept = &mut *self.0.lock();
        if kept.leases.len() >= kept.cleared_at.max(CLEARED_AT_MIN) {
            kept.clear(now);
        }
        if kept.leases.len() >= LEASES_MAX {
            return Err(StorageError::Full(TooMany.into()));
        }
        let lease = Lease { ttl, until: now.saturating_add(ttl), things: BTreeMap::new() };
        let facts = lease.facts(now);
        let before = kept.leases.insert(secret, lease);
        kept.things -= before.map_or(0, |before| before.things.len());
        Ok(facts)
    }

    fn put_under(
        &self,
        secret: LeaseSecret,
        thing: &Leased,
        now: Timestamp,
    ) -> Result<PutUnder, StorageError> {
        let kept = &mut *self.0.lock();
        let things = kept.things;
        let Some(lease) = kept.found(secret, now) else { return Ok(PutUnder::NoLease) };
        let name = thing.name().into_boxed_str();
        if let Some(before) = lease.things.get_mut(&name) {
            if !thing.is_before(before) {
                *before = thing.clone();
            }
            return Ok(PutUnder::Kept(lease.facts(now)));
        }
        if lease.things.len() >= LEASED_MAX {
            return Ok(PutUnder::Crowded);
        }
        if things >= THINGS_MAX {
            return Err(StorageError::Full(TooMany.into()));
        }
        lease.things.insert(name, thing.clone());
        let facts = lease.facts(now);
        kept.things += 1;
        Ok(PutUnder::Kept(facts))
    }

    fn let_go(&self, secret: LeaseSecret, things: &[Leased], now: Timestamp) {
        let kept = &mut *self.0.lock();
        let Some(lease) = kept.found(secret, now) else { return };
        let before = lease.things.len();
        for thing in things {
            let name = thing.name();
            if lease.things.get(name.as_str()) == Some(thing) {
                lease.things.remove(name.as_str());
            }
        }
        let gone = before - lease.things.len();
        kept.things -= gone;
    }

    fn renew(&self, secret: LeaseSecret, now: Timestamp) -> Option<LeaseSeen> {
        let mut kept = self.0.lock();
        let lease = kept.found(secret, now)?;
        lease.until = now.saturating_add(lease.ttl);
        Some(lease.seen(now))
    }

    fn end(&self, secret: LeaseSecret, now: Timestamp) -> Option<Vec<Leased>> {
        let mut kept = self.0.lock();
        let lease = kept.leases.remove(&secret)?;
        kept.things -= lease.things.len();
        drop(kept);
        (lease.until > now).then(|| lease.things.into_values().collect())
    }
}

#[async_trait]
impl LeaseStore for Memory {
    async fn make_lease(&self, secret: LeaseSecret, ttl: Duration) -> Result<LeaseFacts, StorageError> {
        self.leases.make(secret, ttl, self.clock.now())
    }

    async fn lease(&self, secret: LeaseSecret) -> Result<Option<LeaseFacts>, StorageError> {
        let now = self.clock.now();
        Ok(self.leases.0.lock().found(secret, now).map(|lease| lease.facts(now)))
    }

    async fn leased(&self, secret: LeaseSecret) -> Result<Option<LeaseSeen>, StorageError> {
        let now = self.clock.now();
        Ok(self.leases.0.lock().found(secret, now).map(|lease| lease.seen(now)))
    }

    async fn put_under(&self, secret: LeaseSecret, thing: &Leased) -> Result<PutUnder, StorageError> {
        self.leases.put_under(secret, thing, self.clock.now())
    }

    async fn let_go(&self, secret: LeaseSecret, things: &[Leased]) -> Result<(), StorageError> {
        self.leases.let_go(secret, things, self.clock.now());
        Ok(())
    }

    async fn renew_lease(&self, secret: LeaseSecret) -> Result<Option<LeaseSeen>, StorageError> {
        Ok(self.leases.renew(secret, self.clock.now()))
    }

    async fn end_lease(&self, secret: LeaseSecret) -> Result<Option<Vec<Leased>>, StorageError> {
        Ok(self.leases.end(secret, self.clock.now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_of_leases_that_have_gone() {
        const MANY: u64 = 10_000;
        let (leases, at) = (Leases::default(), Timestamp::from_millis);
        let thing = |proof: &str| Leased::parse("key b k", proof).expect("a thing");
        let ttl = Duration::from_millis(100);
        for number in 0..MANY {
            let (secret, now) = (u128::from(number).to_be_bytes(), at(number));
            leases.make(secret, ttl, now).expect("there is room");
            for proof in ["1-0", "2-0"] {
                let put = leases.put_under(secret, &thing(proof), now);
                assert!(matches!(put, Ok(PutUnder::Kept(facts)) if facts.count == 1));
            }
            match number % 4 {
                0 => assert_eq!(leases.end(secret, now), Some(vec![thing("2-0")])),
                1 => leases.let_go(secret, &[thing("1-0"), thing("2-0")], now),
                2 => assert!(leases.renew(secret, at(number + 50)).is_some()),
                _ => assert_eq!(leases.end(secret, at(number + 100)), None, "its time is over"),
            }
            let kept = leases.0.lock();
            assert!(kept.leases.len() <= CLEARED_AT_MIN, "those that have ended make room");
            assert_eq!(kept.things, kept.leases.values().map(|lease| lease.things.len()).sum::<usize>());
        }
        leases.clear(at(MANY + 200));
        let kept = leases.0.lock();
        assert_eq!((kept.leases.len(), kept.things), (0, 0));
    }
}
