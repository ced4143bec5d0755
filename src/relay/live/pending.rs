//! What is on its way to clients that do not take it at once, counted in one budget for all of them.
//!
//! A large message is held once for all readers that stand in front of it, wherever each of them got it
//! from, and counted once. What is small is copied for each reader, and counted for each. Who finds the
//! budget spent takes less, or waits without holding anything. It must not know rings nor readers.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Weak};

use tidemill_proto::{MessageId, TopicName};

use super::message::{COPIES, LiveMessage};
use super::primitives::Mutex;
use crate::budget::{Budget, FREE_BYTES, Hold};

/// What keeps a part of the budget for as long as somebody has it.
pub type Held = Arc<dyn Any + Send + Sync>;

type MessageKey = (TopicName, MessageId);

/// The budget of what is pending, and the large messages that are.
#[derive(Clone)]
pub(super) struct Pending(Arc<Inner>);

struct Inner {
    budget: Budget,
    large: Mutex<HashMap<MessageKey, Weak<Large>>>,
    /// Topics in whose history readers wait in front of a large message: how many, and for how many bytes.
    awaited: Mutex<HashMap<TopicName, (usize, u64)>>,
}

/// A large message that is pending somewhere.
pub(super) struct Large {
    message: Arc<LiveMessage>,
    pending: Pending,
    _hold: Hold,
}

impl fmt::Debug for Large {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Large").field("message", &self.message.id()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").field("budget", &self.0.budget).finish_non_exhaustive()
    }
}

impl Pending {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self(Arc::new(Inner {
            budget: Budget::new(bytes_max),
            large: Mutex::default(),
            awaited: Mutex::default(),
        }))
    }

    pub(super) fn budget(&self) -> &Budget {
        &self.0.budget
    }

    /// Returns the message as all hold it that have it pending, this one or one that is the same; counted
    /// with what was `granted` to its reader, where nobody has counted it yet.
    ///
    /// # Errors
    /// There is no room for so many bytes.
    pub(super) fn hold(&self, message: &Arc<LiveMessage>, granted: &mut Hold) -> Result<Arc<Large>, u64> {
        let key = (message.topic().clone(), message.id());
        let there = self.0.large.lock().get(&key).and_then(Weak::upgrade);
        // A topic that was made again can have given an id twice.
        if let Some(there) = there.filter(|there| is_same(&there.message, message)) {
            return Ok(there);
        }
        let bytes = self.0.budget.weigh(message.len_bytes() as u64 * COPIES);
        self.0.budget.raise(granted, bytes).map_err(|_| bytes)?;
        let mut hold = std::mem::take(granted);
        hold.lower(bytes);
        let new = Arc::new(Large { message: message.clone(), pending: self.clone(), _hold: hold });
        self.0.large.lock().insert(key, Arc::downgrade(&new));
        Ok(new)
    }

    /// Waits until a message of so many bytes in this topic can be held.
    ///
    /// # Cancel safety
    /// Cancel-safe: who stops waiting loses its place.
    pub(super) async fn room_for(self, topic: TopicName, bytes: u64) -> Hold {
        let _awaited = Awaited::enter(&self, topic, bytes);
        self.0.budget.room_for(bytes).await
    }

    /// Returns for how many bytes others wait in this topic. What one reads there now, it will have to throw
    /// away as they have.
    pub(super) fn awaited(&self, topic: &TopicName) -> Option<u64> {
        self.0.awaited.lock().get(topic).map(|(_, bytes)| *bytes)
    }

    /// Counts bytes that are written alike for several readers; `None` where there is no room for them.
    pub(super) fn share(&self, bytes: usize) -> Option<Held> {
        let mut hold = Hold::default();
        self.0.budget.raise(&mut hold, bytes as u64 * COPIES).ok()?;
        Some(Arc::new(hold))
    }
}

/// One reader that waits, taken out when dropped.
struct Awaited<'a> {
    pending: &'a Pending,
    topic: TopicName,
}

impl<'a> Awaited<'a> {
    fn enter(pending: &'a Pending, topic: TopicName, bytes: u64) -> Self {
        let mut awaited = pending.0.awaited.lock();
        let (readers, most) = awaited.entry(topic.clone()).or_default();
        *readers += 1;
        *most = bytes.max(*most);
        drop(awaited);
        Self { pending, topic }
    }
}

impl Drop for Awaited<'_> {
    fn drop(&mut self) {
        let mut awaited = self.pending.0.awaited.lock();
        if let Some((readers, _)) = awaited.get_mut(&self.topic) {
            *readers -= 1;
            if *readers == 0 {
                awaited.remove(&self.topic);
            }
        }
    }
}

impl Large {
    pub(super) fn message(&self) -> &Arc<LiveMessage> {
        &self.message
    }
}

impl Drop for Large {
    fn drop(&mut self) {
        let mut large = self.pending.0.large.lock();
        let key = (self.message.topic().clone(), self.message.id());
        // Another can have taken its place.
        if large.get(&key).is_some_and(|there| there.strong_count() == 0) {
            large.remove(&key);
        }
    }
}

/// Returns whether a message weighs so much that readers share it.
pub(super) fn is_large(message: &LiveMessage) -> bool {
    message.len_bytes() > FREE_BYTES
}

fn is_same(one: &Arc<LiveMessage>, other: &Arc<LiveMessage>) -> bool {
    Arc::ptr_eq(one, other) || one.stored() == other.stored()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tidemill_proto::Timestamp;

    use super::*;
    use crate::storage::{Body, StoredMessage};

    const LARGE_BYTES: usize = 100 * 1024;

    fn message(ms: u64, fill: u8) -> Arc<LiveMessage> {
        let payload = Bytes::from(vec![fill; LARGE_BYTES]);
        let body = Body { payload, content_type: None, metadata: None, order_key: None };
        let (id, timestamp) = (MessageId::new(ms, 0), Timestamp::from_millis(ms));
        let stored = StoredMessage { id, timestamp, expires_at: None, body };
        Arc::new(LiveMessage::new(TopicName::parse("t").expect("a name"), stored))
    }

    #[test]
    fn the_same_message_is_counted_once_for_all_and_another_of_its_id_is_not() {
        let pending = Pending::new(900 * 1024);
        let mut nothing = Hold::default();
        let first = pending.hold(&message(1, b'a'), &mut nothing).expect("there is room");
        let held = pending.budget().held_bytes();
        assert!((300..310).contains(&(held / 1024)), "{held}");
        let again = pending.hold(&message(1, b'a'), &mut nothing).expect("it is there");
        assert!(Arc::ptr_eq(&first, &again));
        assert_eq!(pending.budget().held_bytes(), held);

        let other = pending.hold(&message(1, b'b'), &mut nothing).expect("there is room");
        assert_eq!(pending.budget().held_bytes(), 2 * held);
        assert!(pending.hold(&message(2, b'a'), &mut nothing).is_err(), "there is no room for a third");
        drop((first, again));
        let _third = pending.hold(&message(2, b'a'), &mut nothing).expect("there is room again");
        assert!(pending.hold(&message(1, b'b'), &mut nothing).is_ok(), "one that has gone forgets no other");
        drop(other);
        assert_eq!(pending.0.large.lock().len(), 1);
    }

    #[test]
    fn what_was_granted_is_used_and_the_surplus_comes_back() {
        let pending = Pending::new(400 * 1024);
        let mut granted = Hold::default();
        pending.budget().raise(&mut granted, 400 * 1024).expect("all of it");
        let held = pending.hold(&message(1, b'a'), &mut granted).expect("it was granted");
        assert!(granted.is_empty() && pending.budget().held_bytes() < 310 * 1024);
        assert!(pending.share(10 * 1024).is_some());
        assert!(pending.share(LARGE_BYTES).is_none());
        drop(held);
        assert_eq!(pending.budget().held_bytes(), 0);
    }
}
