//! Which topics refuse what has no room, as far as this node knows.
//!
//! A plain `XADD` asks for no room, and costs nothing for it. So a node appends with a script where it knows that a topic
//! refuses. It learns that with each trim of the topic, and is quick to look at one that it has not appended to before:
//! until then, and where a topic was changed by another node meanwhile, it may keep some more than the topic may have, and
//! never less.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::RwLock;
use tidemill_proto::TopicName;

use crate::chance::random;

/// Topics of which it is known that they were looked at.
const PLACES: usize = 16 * 1_024;
/// Topics of which it is known that they refuse. Past it all are forgotten, and looked at anew.
const REFUSING_MAX: usize = 100_000;
/// Of so many topics whose place another one has, one is looked at: with very many topics, looks would be as many as
/// messages.
const LOOKED_ONE_IN: u64 = 16;

/// What a node knows of topics.
#[derive(Debug)]
pub(super) struct Refusing {
    /// The hashes of those that were looked at; 0 for none.
    looked_at: Vec<AtomicU64>,
    hasher: RandomState,
    topics: RwLock<HashSet<TopicName>>,
    is_any: AtomicBool,
}

impl Refusing {
    pub(super) fn new() -> Self {
        Self {
            looked_at: (0..PLACES).map(|_| AtomicU64::new(0)).collect(),
            hasher: RandomState::new(),
            topics: RwLock::default(),
            is_any: AtomicBool::new(false),
        }
    }

    /// Returns whether a topic is known to refuse what has no room.
    pub(super) fn has(&self, topic: &TopicName) -> bool {
        self.is_any.load(Ordering::Relaxed) && self.topics.read().contains(topic)
    }

    /// Returns whether a topic is to be looked at, since nothing is known of it.
    pub(super) fn is_new(&self, topic: &TopicName) -> bool {
        let (place, hash) = self.place(topic);
        match place.load(Ordering::Relaxed) {
            0 => true,
            known if known == hash => false,
            _ => random().is_multiple_of(LOOKED_ONE_IN),
        }
    }

    /// Notes what a look at a topic has told.
    pub(super) fn note(&self, topic: &TopicName, refuses: bool) {
        let (place, hash) = self.place(topic);
        place.store(hash, Ordering::Relaxed);
        if refuses == self.has(topic) {
            return;
        }
        let mut topics = self.topics.write();
        if refuses {
            if topics.len() >= REFUSING_MAX {
                topics.clear();
                self.looked_at.iter().for_each(|place| place.store(0, Ordering::Relaxed));
            }
            topics.insert(topic.clone());
        } else {
            topics.remove(topic);
        }
        self.is_any.store(!topics.is_empty(), Ordering::Relaxed);
    }

    fn place(&self, topic: &TopicName) -> (&AtomicU64, u64) {
        let hash = self.hasher.hash_one(topic) | 1;
        let at = (hash >> 1) % PLACES as u64;
        (&self.looked_at[usize::try_from(at).unwrap_or(0)], hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_looked_at_once_and_known_from_then_on() {
        let known = Refusing::new();
        let topic = TopicName::parse("t").expect("a valid name");
        assert!(known.is_new(&topic) && !known.has(&topic));
        known.note(&topic, true);
        assert!(!known.is_new(&topic) && known.has(&topic));
        known.note(&topic, false);
        assert!(!known.is_new(&topic) && !known.has(&topic));
    }

    #[test]
    fn with_very_many_topics_few_are_looked_at_again() {
        let known = Refusing::new();
        let topics: Vec<_> = (0..200_000)
            .map(|number| TopicName::parse(&format!("t{number}")).expect("a valid name"))
            .collect();
        let mut looks = 0;
        for _ in 0..2 {
            for topic in &topics {
                if known.is_new(topic) {
                    looks += 1;
                    known.note(topic, false);
                }
            }
        }
        assert!((PLACES..60_000).contains(&looks), "{looks} of 400,000");
    }
}
