//! What is settled on this node, by group: in batches, of all who say something at the same time.
//!
//! What comes while batches are under way forms the next one, as with appends: where many consumers acknowledge one
//! message each, the storage is asked once for many of them. Nobody is told anything before the storage has answered.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tidemill_proto::TopicName;
use tidemill_proto::work::GroupName;
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

use crate::slow;
use crate::storage::{Outcome, STEP_MESSAGES_MAX, Settlement, Storage, StorageError};

/// Batches of a group that are under way at one time: one that the storage works on, and one on its way.
const UNDER_WAY: usize = 2;

type Settled = Result<Vec<Outcome>, StorageError>;

/// What somebody has said, of at most [`STEP_MESSAGES_MAX`] messages.
#[derive(Debug)]
struct Said {
    settlements: Vec<Settlement>,
    reply: oneshot::Sender<Settled>,
}

/// What waits for a group, and how many batches are under way.
#[derive(Debug, Default)]
struct Queue {
    waiting: Vec<Said>,
    under_way: usize,
}

/// Settles deliveries of this node. Cloning is cheap.
#[derive(Clone, Debug)]
pub(super) struct Settler(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    storage: Storage,
    queues: Mutex<HashMap<TopicName, HashMap<GroupName, Queue>>>,
    tracker: TaskTracker,
}

impl Settler {
    /// Returns one whose batches run on `tracker`.
    pub(super) fn new(storage: Storage, tracker: &TaskTracker) -> Self {
        Self(Arc::new(Inner { storage, queues: Mutex::default(), tracker: tracker.clone() }))
    }

    /// Settles at most [`STEP_MESSAGES_MAX`] deliveries of a group, and returns what came of each.
    ///
    /// # Errors
    /// As the storage says, for all who were in the batch.
    ///
    /// # Cancel safety
    /// What was said counts, whether or not anybody waits for the answer.
    pub(super) async fn settle(
        &self,
        topic: &TopicName,
        group: &GroupName,
        settlements: Vec<Settlement>,
    ) -> Settled {
        let (reply, answer) = oneshot::channel();
        let begins = {
            let mut queues = self.0.queues.lock();
            let queue = match queues.get_mut(topic).and_then(|of_topic| of_topic.get_mut(group)) {
                Some(queue) => queue,
                None => queues.entry(topic.clone()).or_default().entry(group.clone()).or_default(),
            };
            queue.waiting.push(Said { settlements, reply });
            let begins = queue.under_way < UNDER_WAY;
            queue.under_way += usize::from(begins);
            begins
        };
        if begins {
            let (settler, topic, group) = (self.clone(), topic.clone(), group.clone());
            self.0.tracker.spawn(async move {
                while let Some(batch) = settler.next(&topic, &group) {
                    settler.send(&topic, &group, batch).await;
                }
            });
        }
        // A batch that is broken has not been answered, and may have had its effect.
        let answer = slow::served(answer).await;
        answer.unwrap_or_else(|_| Err(StorageError::Indeterminate("a batch was broken off".into())))
    }

    /// Takes the next batch, the longest waiting first; where there is none, this one is under way no more.
    fn next(&self, topic: &TopicName, group: &GroupName) -> Option<Vec<Said>> {
        let mut queues = self.0.queues.lock();
        let of_topic = queues.get_mut(topic)?;
        let queue = of_topic.get_mut(group)?;
        let mut count = 0;
        let fits = queue.waiting.iter().take_while(|said| {
            count += said.settlements.len();
            count <= STEP_MESSAGES_MAX
        });
        let fits = fits.count();
        if fits > 0 {
            return Some(queue.waiting.drain(..fits).collect());
        }
        queue.under_way -= 1;
        if queue.under_way == 0 {
            of_topic.remove(group);
            if of_topic.is_empty() {
                queues.remove(topic);
            }
        }
        None
    }

    async fn send(&self, topic: &TopicName, group: &GroupName, batch: Vec<Said>) {
        let (parts, replies): (Vec<_>, Vec<_>) =
            batch.into_iter().map(|said| (said.settlements, said.reply)).unzip();
        let counts: Vec<usize> = parts.iter().map(Vec::len).collect();
        let settled = self.0.storage.work.settle(topic, group, parts.concat()).await;
        // Who waits no longer needs no answer.
        match settled {
            Ok(outcomes) => {
                let mut outcomes = outcomes.into_iter();
                for (reply, count) in replies.into_iter().zip(counts) {
                    let _ = reply.send(Ok(outcomes.by_ref().take(count).collect()));
                }
            }
            Err(error) => {
                for reply in replies {
                    let _ = reply.send(Err(error.again()));
                }
            }
        }
    }
}
