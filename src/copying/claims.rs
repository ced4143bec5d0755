//! Which of several copies takes over what a topic has beside its messages, or what a bucket has.
//!
//! Messages come one behind the other, so a second copy is noticed by the first message that does not. Groups, what waits
//! for later, and keys come in parts in place of others: of two copies that write them, neither would know. So a copy says
//! first that it alone does so, and again now and then.

use std::time::Duration;

use tidemill_proto::TopicName;
use tokio::time::Instant;

use super::error::not_imported;
use super::side::SideError;
use super::{Copy, CopyError};

/// How often that is said.
const CLAIM_EVERY: Duration = Duration::from_secs(1);

impl Copy {
    /// Has the target let this copy alone take over what a topic, or a bucket by its log, has beside messages.
    pub(super) async fn claim(&self, topic: &TopicName) -> Result<(), CopyError> {
        let claimed = self.to.claim(topic, self.token).await;
        claimed.map_err(|error| match error {
            // Another copy has ended it: it is looked at again.
            SideError::Exists => CopyError::Passed(topic.clone()),
            error => not_imported(topic, error),
        })?;
        self.claimed.lock().insert(topic.clone(), Instant::now());
        Ok(())
    }

    /// The same where some time has gone by since.
    pub(super) async fn go_on_claiming(&self, topic: &TopicName) -> Result<(), CopyError> {
        let is_fresh = |at: &Instant| at.elapsed() < CLAIM_EVERY;
        if self.claimed.lock().get(topic).is_some_and(is_fresh) {
            return Ok(());
        }
        self.claim(topic).await
    }
}
