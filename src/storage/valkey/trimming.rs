//! When topics are trimmed behind what is appended to them: every so many messages, over all nodes.
//!
//! A node counts its own messages and knows nothing of what others append. So each begins to count somewhere, by chance,
//! and counts on from somewhere: whether one node appends all of a topic's messages or very many append one each, about
//! every 64th is followed by a trim. Topics share counters, of which there are always as many.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicI64, Ordering};

use tidemill_proto::TopicName;

use super::entry;
use super::keys::Keys;
use super::resp::Request;
use super::scripts;
use crate::chance::random;
use crate::storage::TopicPolicy;

/// Counters.
const COUNTERS: usize = 1_024;
/// Fewest messages between two trims by one node, and how many more there may be: 64 on the average.
const LEAST: i64 = 32;
const SPREAD: u64 = 65;

/// Adds the command that removes what a topic does not keep; the policy holds where its description says nothing.
pub(super) fn add(request: &mut Request, keys: Keys, topic: &TopicName, policy: &TopicPolicy) {
    let mut command = request.begin(9);
    command.arg(b"EVALSHA").arg(scripts::TRIM_TOPIC.digest().as_bytes()).arg(b"2");
    command.joined(&keys.stream_parts(topic)).arg(keys.description(topic).as_bytes());
    entry::kept(&mut command, policy);
}

/// How many messages there are until the next trim.
#[derive(Debug)]
pub(super) struct Countdowns {
    left: Vec<AtomicI64>,
    hasher: RandomState,
}

impl Countdowns {
    pub(super) fn new() -> Self {
        Self { left: (0..COUNTERS).map(|_| begun()).collect(), hasher: RandomState::new() }
    }

    /// Counts messages of a topic, and returns whether it is to be trimmed behind them.
    pub(super) fn count(&self, topic: &TopicName, messages: usize) -> bool {
        count_down(self.counter(topic), messages)
    }

    /// Has the next message of a topic be followed by a trim: this one was not.
    pub(super) fn again(&self, topic: &TopicName) {
        self.counter(topic).store(1, Ordering::Relaxed);
    }

    fn counter(&self, topic: &TopicName) -> &AtomicI64 {
        let at = self.hasher.hash_one(topic) % COUNTERS as u64;
        &self.left[usize::try_from(at).unwrap_or(0)]
    }
}

fn count_down(left: &AtomicI64, messages: usize) -> bool {
    let messages = i64::try_from(messages).unwrap_or(i64::MAX);
    let is_due = left.fetch_sub(messages, Ordering::Relaxed) <= messages;
    if is_due {
        left.store(LEAST + up_to(SPREAD), Ordering::Relaxed);
    }
    is_due
}

/// Returns where a counter begins.
fn begun() -> AtomicI64 {
    AtomicI64::new(1 + up_to(64))
}

/// Returns a number from 0 up to this one, which is small, without it.
fn up_to(bound: u64) -> i64 {
    i64::try_from(random() % bound).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn about_every_64th_message_is_followed_by_a_trim_however_many_nodes_append() {
        let topic = TopicName::parse("t").expect("a valid name");
        for (nodes, each) in [(1, 64_000), (64, 1_000), (64_000, 1)] {
            let mut trims = 0;
            for _ in 0..nodes {
                let node = begun();
                trims += (0..each).filter(|_| count_down(&node, 1)).count();
            }
            assert!((850..=1_150).contains(&trims), "{trims} of {nodes} nodes");
        }
        let node = Countdowns::new();
        assert!(node.count(&topic, 97), "as many as there may be between two");
        node.again(&topic);
        assert!(node.count(&topic, 1));
    }
}
