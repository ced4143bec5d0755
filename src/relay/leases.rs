//! Leases: what one renewal keeps alive together, and how that ends together.
//!
//! A lease is a record with a time (`storage::leases`), and each thing under it has a time of its own. Whoever renews a lease
//! moves the time of the record first, and then that of each thing: so a thing never lives on for long behind its lease,
//! whatever fails in between. What somebody else has put, taken or released meanwhile is not touched, and is lost to the
//! lease.
//!
//! It must not know how any of it is asked for.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt as _;
use sha2::{Digest as _, Sha256};
use tidemill_proto::leases::LeaseId;
use tidemill_proto::{BucketName, Code, KeyName, MemberName, MessageId, Problem, Timestamp};
use tokio::time::Instant;

use super::{Failure, Gate};
use crate::access::{Kind, Verb, secret_id};
use crate::features::Feature;
use crate::storage::{
    CHANGES_MAX, LEASED_MAX, LeaseFacts, LeaseSecret, LeaseSeen, Leased, LockRenewal, PutUnder, StorageError,
};

/// Steps of a renewal, or of an end, that are under way at one time: of many at one time each leaves room for the others.
const AT_ONCE: usize = 4;
/// Locks that one step renews.
const LOCKS_PER_STEP: usize = 100;
/// The least that a thing is given: a lease that is nearly over is over for each thing, too.
const LEAST: Duration = Duration::from_millis(1);

/// A lease under which something is about to be put.
#[derive(Clone, Copy)]
pub struct LeaseHold {
    secret: LeaseSecret,
    /// In how long it ends.
    pub(super) left: Duration,
    expires_at: Timestamp,
}

impl std::fmt::Debug for LeaseHold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LeaseHold").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

impl LeaseHold {
    /// Returns in how long it ends.
    #[must_use]
    pub const fn left(&self) -> Duration {
        self.left
    }

    /// Returns a digest of its secret, by which what is sent under one lease is told from the same under another.
    pub(super) fn digest(&self) -> [u8; 8] {
        let mut digest = [0; 8];
        digest.copy_from_slice(&Sha256::digest(self.secret)[..8]);
        digest
    }
}

/// What a lease keeps no more, and why.
#[derive(Debug)]
pub struct Lost {
    /// What it is.
    pub thing: Leased,
    /// Why.
    pub why: Failure,
}

/// What is done with things of one slot at one time.
enum Step {
    Locks(Vec<Leased>),
    Keys(BucketName, Vec<(KeyName, MessageId)>),
}

/// Returns things by what can be done with them at one time.
fn steps(things: Vec<Leased>) -> Vec<Step> {
    let (mut locks, mut keys) = (Vec::new(), BTreeMap::<_, Vec<_>>::new());
    for thing in things {
        match thing {
            Leased::Lock { .. } => locks.push(thing),
            Leased::Key { bucket, key, revision } => keys.entry(bucket).or_default().push((key, revision)),
        }
    }
    let locks = locks.chunks(LOCKS_PER_STEP).map(|some| Step::Locks(some.to_vec()));
    let keys = keys.iter().flat_map(|(bucket, keys)| {
        keys.chunks(CHANGES_MAX).map(|some| Step::Keys(bucket.clone(), some.to_vec()))
    });
    locks.chain(keys).collect()
}

fn no_lease() -> Failure {
    let detail = "there is no such lease: it was ended, or not renewed in time, and what was put under it has ended, too";
    Problem { field: Some("lease".to_owned()), ..Problem::new(Code::LeaseNotFound, detail) }.into()
}

fn crowded() -> Failure {
    let detail = format!("the lease keeps {LEASED_MAX} things, as many as one may; create another lease");
    Problem { field: Some("lease".to_owned()), ..Problem::new(Code::Conflict, detail) }.into()
}

/// Returns why a thing is under its lease no more.
fn lost(thing: &Leased) -> Failure {
    match thing {
        Leased::Lock { lock, .. } => {
            let detail = format!(
                "lock `{}` is not held under the token that it had: it was released, its time was over, or it was taken away",
                lock.name
            );
            Problem::new(Code::LockLost, detail).into()
        }
        Leased::Key { bucket, key, revision } => {
            let what = match bucket.room() {
                Some(room) => format!("member `{key}` of room `{room}`"),
                None => format!("key `{key}` of bucket `{bucket}`"),
            };
            let detail =
                format!("{what} has not revision `{revision}` any more: it has gone, or was put anew");
            Problem::new(Code::PreconditionFailed, detail).into()
        }
    }
}

impl Gate {
    fn check_leases(&self) -> Result<(), Failure> {
        if self.relay().options.features.has(Feature::Locks) {
            return Ok(());
        }
        let rule = "cannot be used: leases are switched off on this relay (setting `TIDEMILL_FEATURES`, which does not name `locks`)";
        Err(Problem::field("lease", rule).into())
    }

    /// Checks that the caller may put something under a lease: asked before a body is read, and before it is looked whether
    /// there is a lease.
    ///
    /// # Errors
    /// It may hold no lock, put no key and be in no room.
    pub fn check_some_leased(&self) -> Result<(), Failure> {
        let may = |verb, kind| self.caller().check_some_named(verb, kind);
        let first = may(Verb::Work, Kind::Lock);
        if may(Verb::Publish, Kind::Key).is_ok() || may(Verb::Publish, Kind::Presence).is_ok() {
            return Ok(());
        }
        Ok(first?)
    }

    /// Checks that the caller may keep a thing alive.
    fn check_leased(&self, thing: &Leased) -> Result<(), Failure> {
        match thing {
            Leased::Lock { lock, .. } => self.check_lock(Verb::Work, &lock.name),
            Leased::Key { bucket, key, .. } => match bucket.room() {
                Some(room) => {
                    let member = MemberName::parse(key.as_str());
                    let member = member.map_err(|error| Problem::field("member", error))?;
                    self.check_room(Verb::Publish, &room, Some(&member))
                }
                None => self.check_key(Verb::Publish, bucket, key),
            },
        }
    }

    /// Creates a lease that lasts for so long without being renewed.
    ///
    /// # Errors
    /// The caller may put nothing under it, or the storage refused it or did not answer.
    pub async fn create_lease(&self, ttl: Duration) -> Result<(LeaseId, Timestamp), Failure> {
        self.check_some_leased()?;
        let secret = secret_id();
        let made = self.relay().storage.leases.make_lease(secret, ttl).await;
        Ok((LeaseId(secret), made.map_err(Failure::changed)?.expires_at))
    }

    /// Tells what a lease keeps.
    ///
    /// # Errors
    /// The caller may put nothing under it, there is no such lease, or the storage did not answer.
    pub async fn lease(&self, lease: LeaseId) -> Result<LeaseSeen, Failure> {
        self.check_some_leased()?;
        let seen = self.relay().storage.leases.leased(lease.0).await;
        seen.map_err(|error| Failure::read(error, None))?.ok_or_else(no_lease)
    }

    /// Has a lease, and what it keeps, last for its whole time from now on. Returns until when that is, and what it keeps
    /// no more: what was put, released or taken away by others, and what the caller may not do any more.
    ///
    /// # Errors
    /// The caller may put nothing under it, there is no such lease, or the storage did not answer: then some things may have
    /// their time, and who renews again gives it to all.
    pub async fn renew_lease(&self, lease: LeaseId) -> Result<(Timestamp, Vec<Lost>), Failure> {
        self.check_some_leased()?;
        let began = Instant::now();
        let renewed = self.relay().storage.leases.renew_lease(lease.0).await;
        let (facts, things) = renewed.map_err(Failure::changed)?.ok_or_else(no_lease)?;
        let mut all = Vec::new();
        let mut may = Vec::with_capacity(things.len());
        for thing in things {
            match self.check_leased(&thing) {
                Ok(()) => may.push(thing),
                Err(why) => all.push(Lost { thing, why }),
            }
        }
        let gone = self.give_time(may, began + facts.ttl).await.map_err(Failure::changed)?;
        all.extend(gone.into_iter().map(|thing| Lost { why: lost(&thing), thing }));
        all.sort_by_cached_key(|lost| lost.thing.name());
        if !all.is_empty() {
            let things: Vec<_> = all.iter().map(|lost| lost.thing.clone()).collect();
            // What stays there is told of again.
            let _ = self.relay().storage.leases.let_go(lease.0, &things).await;
        }
        Ok((facts.expires_at, all))
    }

    /// Ends a lease, and all that it keeps.
    ///
    /// # Errors
    /// The caller may put nothing under it, there is no such lease, or the storage did not answer: then what it keeps ends
    /// when its time is over.
    pub async fn end_lease(&self, lease: LeaseId) -> Result<(), Failure> {
        self.check_some_leased()?;
        let ended = self.relay().storage.leases.end_lease(lease.0).await;
        let things = ended.map_err(Failure::changed)?.ok_or_else(no_lease)?;
        self.end_things(things).await.map_err(Failure::half_changed)
    }

    /// Returns a lease under which something is to be put.
    ///
    /// # Errors
    /// Leases are switched off, there is no such lease, it keeps as much as it may, or the storage did not answer.
    pub async fn under_lease(&self, lease: LeaseId) -> Result<LeaseHold, Failure> {
        self.check_leases()?;
        let found = self.relay().storage.leases.lease(lease.0).await;
        let found = found.map_err(|error| Failure::read(error, None))?.ok_or_else(no_lease)?;
        let LeaseFacts { left, expires_at, count, .. } = found;
        if count >= LEASED_MAX {
            return Err(crowded());
        }
        Ok(LeaseHold { secret: lease.0, left: left.max(LEAST), expires_at })
    }

    /// Puts a thing under a lease that has just been made, with what time the lease had. Returns until when it is kept.
    /// `is_late` is of one for which it was waited.
    ///
    /// # Errors
    /// The lease has ended meanwhile, or keeps as much as it may: then the thing has ended, too. Or the storage did not
    /// answer.
    pub(super) async fn put_under(
        &self,
        hold: &LeaseHold,
        thing: Leased,
        is_late: bool,
    ) -> Result<Timestamp, Failure> {
        let began = Instant::now();
        let put = self.relay().storage.leases.put_under(hold.secret, &thing).await;
        let refusal = match put.map_err(Failure::half_changed)? {
            PutUnder::Kept(facts) if !is_late && facts.expires_at == hold.expires_at => {
                return Ok(facts.expires_at);
            }
            PutUnder::Kept(facts) => {
                // It was renewed meanwhile, without this.
                let gone = self.give_time(vec![thing], began + facts.left).await;
                return match gone.map_err(Failure::half_changed)?.first() {
                    Some(thing @ Leased::Lock { .. }) => Err(lost(thing)),
                    // It was put, and somebody has put it anew at once.
                    Some(Leased::Key { .. }) | None => Ok(facts.expires_at),
                };
            }
            PutUnder::NoLease => no_lease(),
            PutUnder::Crowded => crowded(),
        };
        // Where this fails its time is over soon.
        let _ = self.end_things(vec![thing]).await;
        Err(refusal)
    }

    /// Gives things time until then, and returns those that are not what they were.
    async fn give_time(&self, things: Vec<Leased>, until: Instant) -> Result<Vec<Leased>, StorageError> {
        let inner = self.relay();
        let give = |step: Step| async move {
            let ttl = until.saturating_duration_since(Instant::now()).max(LEAST);
            let mut gone = Vec::new();
            match step {
                Step::Locks(locks) => {
                    let renewal = |thing: &Leased| match thing {
                        Leased::Lock { lock, secret } => {
                            Some(LockRenewal { lock: lock.clone(), secret: *secret, ttl })
                        }
                        Leased::Key { .. } => None,
                    };
                    let renewals: Vec<_> = locks.iter().filter_map(renewal).collect();
                    let kept = inner.storage.locks.renew_locks(&renewals).await;
                    for (thing, kept) in locks.into_iter().zip(kept) {
                        if kept?.is_none() {
                            gone.push(thing);
                        }
                    }
                }
                Step::Keys(bucket, keys) => {
                    let had = inner.storage.buckets.touch_revisions(&bucket, &keys, ttl).await?;
                    inner.expiries.note(&bucket, ttl);
                    let keys = keys.into_iter().zip(had).filter(|(_, had)| !had);
                    gone.extend(keys.map(|((key, revision), _)| Leased::Key {
                        bucket: bucket.clone(),
                        key,
                        revision,
                    }));
                }
            }
            Ok(gone)
        };
        let mut under_way = futures_util::stream::iter(steps(things)).map(give).buffer_unordered(AT_ONCE);
        let (mut all, mut failed) = (Vec::new(), None);
        // What fails keeps none of the others from its time.
        while let Some(gone) = under_way.next().await {
            match gone {
                Ok(gone) => all.extend(gone),
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(all), Err)
    }

    /// Ends things that are what they were: a lock is released, and a key expires.
    async fn end_things(&self, things: Vec<Leased>) -> Result<(), StorageError> {
        let inner = self.relay();
        let end = |step: Step| async move {
            match step {
                Step::Locks(locks) => {
                    let release = |thing: Leased| async move {
                        match thing {
                            Leased::Lock { lock, secret } => {
                                inner.storage.locks.release_lock(&lock, secret).await
                            }
                            Leased::Key { .. } => Ok(false),
                        }
                    };
                    let released = futures_util::future::join_all(locks.into_iter().map(release)).await;
                    released.into_iter().try_for_each(|released| released.map(drop))
                }
                Step::Keys(bucket, keys) => {
                    inner.storage.buckets.touch_revisions(&bucket, &keys, Duration::ZERO).await?;
                    let expired = inner.storage.buckets.expire_keys(std::slice::from_ref(&bucket)).await;
                    let is_done = |expired: &Result<crate::storage::KeysExpired, _>| {
                        expired.as_ref().is_ok_and(|expired| expired.next_in != Some(Duration::ZERO))
                    };
                    // They are over; that this is told of is tried again.
                    if !expired.iter().all(is_done) {
                        inner.expiries.note(&bucket, Duration::ZERO);
                    }
                    Ok(())
                }
            }
        };
        let mut under_way = futures_util::stream::iter(steps(things)).map(end).buffer_unordered(AT_ONCE);
        let mut result = Ok(());
        while let Some(ended) = under_way.next().await {
            result = result.and(ended);
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_are_put_together_by_what_can_be_done_with_them_at_one_time() {
        let thing = |name: &str, number: usize| {
            let proof =
                if name.starts_with("lock") { format!("{number:032x}") } else { format!("{number}-0") };
            Leased::parse(&format!("{name}{number}"), &proof).expect("a thing")
        };
        let mut things: Vec<_> = (0..=LOCKS_PER_STEP).map(|number| thing("lock a", number)).collect();
        things.extend((0..=CHANGES_MAX).map(|number| thing("key a k", number)));
        things.extend((0..2).map(|number| thing("key presence/a m", number)));
        let sizes: Vec<_> = steps(things)
            .iter()
            .map(|step| match step {
                Step::Locks(locks) => ("locks".to_owned(), locks.len()),
                Step::Keys(bucket, keys) => (bucket.to_string(), keys.len()),
            })
            .collect();
        let of = |name: &str, count| (name.to_owned(), count);
        let expected = [
            of("locks", LOCKS_PER_STEP),
            of("locks", 1),
            of("a", CHANGES_MAX),
            of("a", 1),
            of("presence/a", 2),
        ];
        assert_eq!(sizes, expected);
    }
}
