//! What one caller is counted in: found once for each request or connection, and asked for everything that comes
//! over it.

use std::fmt;
use std::sync::Arc;

use super::quota::Quota;
use super::{Inner, Over};

/// What one caller is counted in. Cloning is cheap. `None` where nothing of it is limited.
#[derive(Clone)]
pub struct Meter(Option<Arc<Metered>>);

struct Metered {
    inner: Arc<Inner>,
    /// What every request counts in.
    requests: [Option<Arc<Quota>>; 2],
    /// What those count in that do not publish.
    others: Option<Arc<Quota>>,
    /// What every message counts in.
    messages: [Option<Arc<Quota>>; 2],
    /// What every topic counts in that is made.
    topics: Option<Arc<Quota>>,
}

impl fmt::Debug for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meter").field("is_on", &self.0.is_some()).finish()
    }
}

/// What a request does, as far as it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asks {
    /// It publishes: its messages count by themselves.
    Publish,
    /// Anything else.
    Other,
}

impl Meter {
    /// Returns what counts nothing.
    #[must_use]
    pub const fn none() -> Self {
        Self(None)
    }

    pub(super) fn of(
        inner: Arc<Inner>,
        requests: [Option<Arc<Quota>>; 2],
        others: Option<Arc<Quota>>,
        messages: [Option<Arc<Quota>>; 2],
        topics: Option<Arc<Quota>>,
    ) -> Self {
        let is_on = requests.iter().chain(&messages).chain([&others, &topics]).any(Option::is_some);
        Self(is_on.then(|| Arc::new(Metered { inner, requests, others, messages, topics })))
    }

    /// Counts a request, or a frame that is one.
    ///
    /// # Errors
    /// There are too many.
    pub async fn request(&self, asks: Asks) -> Result<(), Over> {
        let Some(metered) = &self.0 else { return Ok(()) };
        let others = metered.others.as_ref().filter(|_| asks == Asks::Other);
        metered.take(metered.requests.iter().flatten().chain(others)).await
    }

    /// Returns whether topics are counted.
    #[must_use]
    pub fn counts_topics(&self) -> bool {
        self.0.as_ref().is_some_and(|metered| metered.topics.is_some())
    }

    /// Counts a topic that is made.
    ///
    /// # Errors
    /// There are too many.
    pub async fn topic(&self) -> Result<(), Over> {
        let Some(metered) = &self.0 else { return Ok(()) };
        metered.take(metered.topics.iter()).await
    }

    /// Counts a message.
    ///
    /// # Errors
    /// There are too many.
    pub async fn message(&self) -> Result<(), Over> {
        let Some(metered) = &self.0 else { return Ok(()) };
        metered.take(metered.messages.iter().flatten()).await
    }
}

impl Metered {
    async fn take(&self, quotas: impl Iterator<Item = &Arc<Quota>>) -> Result<(), Over> {
        for quota in quotas {
            self.inner.take(quota).await?;
        }
        Ok(())
    }
}
