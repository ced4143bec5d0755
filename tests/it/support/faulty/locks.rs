//! Locks that fail by the seed.

use async_trait::async_trait;
use tidemill::storage::{
    LockAnswer, LockAsked, LockHeld, LockId, LockIds, LockKept, LockRenewal, LockSecret, LockSeen, LockStore,
    StorageError,
};

use super::fate::{Call, Lost};
use super::{Effect, Faulty};

#[deny(clippy::missing_trait_methods, reason = "what is new must fail, too")]
#[async_trait]
impl LockStore for Faulty {
    async fn acquire_lock(&self, lock: &LockId, asked: &LockAsked) -> Result<LockAnswer, StorageError> {
        let fate = self.fate(Call::AcquireLock, lock.name.as_str());
        let (store, lock, asked) = (self.inner.locks.clone(), lock.clone(), asked.clone());
        let effect: Effect<_> = Box::pin(async move { store.acquire_lock(&lock, &asked).await });
        self.change(fate, effect).await?
    }

    async fn renew_locks(&self, renewals: &[LockRenewal]) -> Vec<Result<Option<LockKept>, StorageError>> {
        let count = renewals.len();
        let fate = self.fate(Call::RenewLocks, &count.to_string());
        let (store, renewals) = (self.inner.locks.clone(), renewals.to_vec());
        let effect: Effect<_> = Box::pin(async move { store.renew_locks(&renewals).await });
        match self.change(fate, effect).await {
            Ok(results) => results,
            Err(Lost::Before) => (0..count).map(|_| Err(Lost::Before.into())).collect(),
            Err(Lost::Unknown) => (0..count).map(|_| Err(Lost::Unknown.into())).collect(),
        }
    }

    async fn release_lock(&self, lock: &LockId, secret: LockSecret) -> Result<bool, StorageError> {
        let fate = self.fate(Call::ReleaseLock, lock.name.as_str());
        let (store, lock) = (self.inner.locks.clone(), lock.clone());
        let effect: Effect<_> = Box::pin(async move { store.release_lock(&lock, secret).await });
        self.change(fate, effect).await?
    }

    async fn take_lock(&self, lock: &LockId) -> Result<Option<LockHeld>, StorageError> {
        let fate = self.fate(Call::TakeLock, lock.name.as_str());
        let (store, lock) = (self.inner.locks.clone(), lock.clone());
        let effect: Effect<_> = Box::pin(async move { store.take_lock(&lock).await });
        self.change(fate, effect).await?
    }

    async fn lock(&self, lock: &LockId, limit: usize) -> Result<LockSeen, StorageError> {
        let fate = self.fate(Call::Lock, lock.name.as_str());
        self.ask(fate, self.inner.locks.lock(lock, limit)).await
    }

    async fn lock_ids(&self, after: Option<&str>) -> Result<Option<LockIds>, StorageError> {
        let fate = self.fate(Call::LockIds, after.unwrap_or_default());
        self.ask(fate, self.inner.locks.lock_ids(after)).await
    }

    fn watch_locks(&self, watch: bool) {
        self.inner.locks.watch_locks(watch);
    }
}
