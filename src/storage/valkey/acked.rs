//! The last message of each topic that this node was told is kept, by a server that may lose it yet.
//!
//! A server that comes back with less than it had, or a replica that takes over and has not got the last of it, does not
//! know what is missing. Who was told knows. So a node remembers for a while what it was told, and `losing` asks for it
//! when the server is another one than it was.
//!
//! What is remembered is bounded: topics go that were not published to for longest.

use std::collections::HashMap;
use std::mem;

use parking_lot::{Mutex, MutexGuard};
use tidemill_proto::{MessageId, TopicName};

/// Topics that are remembered at the least, where the node publishes to as many; twice as many at the most. Each takes
/// about 150 bytes.
const TOPICS: usize = 8 * 1024;

/// The last messages that the server has confirmed.
#[derive(Debug, Default)]
pub(super) struct Acked(Mutex<Generations>);

/// Topics that were published to lately, and those before.
#[derive(Debug, Default)]
pub(super) struct Generations {
    young: HashMap<TopicName, MessageId>,
    old: HashMap<TopicName, MessageId>,
}

impl Acked {
    /// Returns what takes notes, for those of one pipeline.
    pub(super) fn notes(&self) -> MutexGuard<'_, Generations> {
        self.0.lock()
    }

    /// Returns all that are remembered.
    pub(super) fn all(&self) -> Vec<(TopicName, MessageId)> {
        let kept = self.0.lock();
        let Generations { young, old } = &*kept;
        let only_old = old.iter().filter(|(topic, _)| !young.contains_key(*topic));
        young.iter().chain(only_old).map(|(topic, last)| (topic.clone(), *last)).collect()
    }

    /// Forgets a topic whose last message is this one still.
    pub(super) fn forget(&self, topic: &TopicName, last: MessageId) {
        let mut kept = self.0.lock();
        let Generations { young, old } = &mut *kept;
        // One that is younger is the last.
        if young.get(topic).is_none_or(|known| *known == last) {
            young.remove(topic);
            old.remove(topic);
        }
    }
}

impl Generations {
    /// Notes the last message of a row, where there was one.
    pub(super) fn note_of(&mut self, topic: Option<&TopicName>, last: Option<MessageId>) {
        if let (Some(topic), Some(last)) = (topic, last) {
            self.note(topic, last);
        }
    }

    /// Notes that a message is kept.
    fn note(&mut self, topic: &TopicName, id: MessageId) {
        if let Some(last) = self.young.get_mut(topic) {
            *last = id.max(*last);
            return;
        }
        if self.young.len() >= TOPICS {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(topic.clone(), id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(number: usize) -> TopicName {
        TopicName::parse(&format!("t{number}")).expect("a name")
    }

    fn id(ms: u64) -> MessageId {
        MessageId::new(ms, 0)
    }

    #[test]
    fn the_last_of_each_topic_is_remembered_until_it_is_forgotten() {
        let acked = Acked::default();
        for (number, ms) in [(1, 5), (2, 6), (1, 8), (1, 7)] {
            acked.notes().note(&topic(number), id(ms));
        }
        let mut all = acked.all();
        all.sort();
        assert_eq!(all, [(topic(1), id(8)), (topic(2), id(6))]);
        acked.forget(&topic(1), id(7));
        acked.forget(&topic(2), id(6));
        assert_eq!(acked.all(), [(topic(1), id(8))], "what has another last is not meant");
    }

    #[test]
    fn topics_that_were_not_published_to_for_longest_go_first() {
        let acked = Acked::default();
        for number in 0..3 * TOPICS {
            acked.notes().note(&topic(number), id(1));
            acked.notes().note(&topic(0), id(2 + number as u64));
        }
        let all = acked.all();
        assert!((TOPICS..=2 * TOPICS).contains(&all.len()), "{}", all.len());
        let last = (3 * TOPICS - 1) as u64;
        assert!(all.contains(&(topic(0), id(2 + last))), "one that is always published to stays");
        let newest: Vec<_> = (2 * TOPICS + 1..3 * TOPICS).map(|number| (topic(number), id(1))).collect();
        assert!(newest.iter().all(|one| all.contains(one)));
    }
}
