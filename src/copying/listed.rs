//! What is copied by its names: topics that a source lists, and those that it has and no list names; and that a target lists
//! what it has.

use tidemill_proto::TopicName;

use super::freezing::{selected, unlisted};
use super::{Copy, CopyError, Side};

impl Copy {
    /// Returns the names of the topics that are copied, in their order.
    pub(super) async fn topics(&self) -> Result<Vec<TopicName>, CopyError> {
        let listed = selected(&*self.from, &self.plan.topics).await;
        let mut all = listed.map_err(Side::Source.failed_at_all())?;
        all.extend(self.unlisted.lock().iter().filter(|name| name.bucket().is_none()).cloned());
        Ok(all.into_iter().collect())
    }

    /// Looks for what the lists of the source do not name; returns whether there is more of it than was known.
    pub(super) async fn find_unlisted(&self) -> Result<bool, CopyError> {
        let found = unlisted(&*self.from, &self.plan.topics).await;
        let found = found.map_err(Side::Source.failed_at_all())?;
        let mut known = self.unlisted.lock();
        let before = known.len();
        *self.odd_topics.lock() = found.odd;
        known.extend(found.names);
        Ok(known.len() > before)
    }

    /// Has the target list what is whole there: an earlier copy may have been broken off before it was.
    pub(super) async fn list(&self, topic: &TopicName) -> Result<(), CopyError> {
        if !self.listed.lock().contains(topic) {
            self.to.list(topic).await.map_err(Side::Target.failed(topic))?;
            self.listed.lock().insert(topic.clone());
        }
        Ok(())
    }
}
