//! What the topics of selectors keep together.

use std::ops::Bound;

use tidemill_proto::{TopicName, TopicSelector};

use super::Topics;

impl Topics {
    /// Adds what up to `count` topics keep to what each selector has, and returns where the next begin.
    pub(in crate::storage::memory) fn weigh(
        &self,
        from: &Bound<TopicName>,
        count: usize,
        selectors: &[TopicSelector],
        kept: &mut [u64],
    ) -> Option<Bound<TopicName>> {
        let bounds = (from.as_ref(), Bound::Unbounded);
        let (mut weighed, mut last) = (0, None);
        for (name, topic) in self.topics.range::<TopicName, _>(bounds).take(count) {
            (weighed, last) = (weighed + 1, Some(name));
            let of_it = selectors.iter().zip(&mut *kept).filter(|(selector, _)| selector.matches(name));
            of_it.for_each(|(_, bytes)| *bytes += (topic.empty_bytes(name) + topic.log.bytes()) as u64);
        }
        last.filter(|_| weighed == count).cloned().map(Bound::Excluded)
    }
}
