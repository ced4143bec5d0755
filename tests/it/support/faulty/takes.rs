//! Limits of applications that fail by the seed.

use async_trait::async_trait;
use tidemill::storage::{StorageError, Take, TakeStore, Taken};

use super::fate::Call;
use super::{Effect, Faulty};

#[deny(clippy::missing_trait_methods, reason = "what is new must fail, too")]
#[async_trait]
impl TakeStore for Faulty {
    async fn take(&self, take: &Take) -> Result<Taken, StorageError> {
        let fate = self.fate(Call::Take, take.name.as_str());
        let (takes, take) = (self.inner.takes.clone(), take.clone());
        let effect: Effect<_> = Box::pin(async move { takes.take(&take).await });
        self.change(fate, effect).await?
    }
}
