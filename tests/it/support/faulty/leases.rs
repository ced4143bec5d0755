//! Leases that fail by the seed.

use std::time::Duration;

use async_trait::async_trait;
use tidemill::storage::{LeaseFacts, LeaseSecret, LeaseSeen, LeaseStore, Leased, PutUnder, StorageError};

use super::fate::Call;
use super::{Effect, Faulty};

#[deny(clippy::missing_trait_methods, reason = "what is new must fail, too")]
#[async_trait]
impl LeaseStore for Faulty {
    async fn make_lease(&self, secret: LeaseSecret, ttl: Duration) -> Result<LeaseFacts, StorageError> {
        let fate = self.fate(Call::MakeLease, "");
        let store = self.inner.leases.clone();
        let effect: Effect<_> = Box::pin(async move { store.make_lease(secret, ttl).await });
        self.change(fate, effect).await?
    }

    async fn lease(&self, secret: LeaseSecret) -> Result<Option<LeaseFacts>, StorageError> {
        let fate = self.fate(Call::Lease, "");
        self.ask(fate, self.inner.leases.lease(secret)).await
    }

    async fn leased(&self, secret: LeaseSecret) -> Result<Option<LeaseSeen>, StorageError> {
        let fate = self.fate(Call::Leased, "");
        self.ask(fate, self.inner.leases.leased(secret)).await
    }

    async fn put_under(&self, secret: LeaseSecret, thing: &Leased) -> Result<PutUnder, StorageError> {
        let fate = self.fate(Call::PutUnder, &thing.name());
        let (store, thing) = (self.inner.leases.clone(), thing.clone());
        let effect: Effect<_> = Box::pin(async move { store.put_under(secret, &thing).await });
        self.change(fate, effect).await?
    }

    async fn let_go(&self, secret: LeaseSecret, things: &[Leased]) -> Result<(), StorageError> {
        let fate = self.fate(Call::LetGo, &things.len().to_string());
        let (store, things) = (self.inner.leases.clone(), things.to_vec());
        let effect: Effect<_> = Box::pin(async move { store.let_go(secret, &things).await });
        self.change(fate, effect).await?
    }

    async fn renew_lease(&self, secret: LeaseSecret) -> Result<Option<LeaseSeen>, StorageError> {
        let fate = self.fate(Call::RenewLease, "");
        let store = self.inner.leases.clone();
        let effect: Effect<_> = Box::pin(async move { store.renew_lease(secret).await });
        self.change(fate, effect).await?
    }

    async fn end_lease(&self, secret: LeaseSecret) -> Result<Option<Vec<Leased>>, StorageError> {
        let fate = self.fate(Call::EndLease, "");
        let store = self.inner.leases.clone();
        let effect: Effect<_> = Box::pin(async move { store.end_lease(secret).await });
        self.change(fate, effect).await?
    }
}
