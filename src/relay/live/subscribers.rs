//! The subscribers of a feed, in groups, so that very many are served by several threads, and nobody
//! waits long to become one.

use std::fmt;
use std::sync::Arc;

use tokio::task::{JoinSet, yield_now};

use super::primitives::{Mutex, RwLock};
use super::ring::Ring;
use super::shared_batch::SharedBatches;

/// Subscribers of a group: its lock and a thread are held while they are served, about 10 µs each.
const GROUP_MAX: usize = 32;
/// Groups that are served by one task.
const GROUPS_PER_TASK: usize = 8;

/// One topic of a reader, as the topic's feed sees it.
pub(super) trait Subscriber: fmt::Debug + Send + Sync {
    /// Takes what there is, or wakes who does.
    fn notify(&self, batches: &mut SharedBatches<'_>);
}

/// Who reads from a ring, and the ring, as parts of a feed.
type Parts<F> = fn(&F) -> (&Subscribers, &RwLock<Ring>);

/// Tells all readers of a feed that there is something in its ring, and returns once they have been told.
pub(super) async fn tell<F: Send + Sync + 'static>(feed: &Arc<F>, parts: Parts<F>) {
    let (subscribers, ring) = parts(feed);
    let mut shares = subscribers.shares().into_iter();
    let Some(first) = shares.next() else { return };
    let mut others = JoinSet::new();
    for share in shares {
        let feed = feed.clone();
        others.spawn(async move { share.notify(parts(&feed).1).await });
    }
    first.notify(ring).await;
    while others.join_next().await.is_some() {}
}

type Group = Mutex<Vec<Arc<dyn Subscriber>>>;

/// All subscribers of a feed.
#[derive(Debug, Default)]
pub(super) struct Subscribers {
    groups: Mutex<Vec<Arc<Group>>>,
}

/// The group of a subscriber.
#[derive(Debug)]
pub(super) struct Membership(Arc<Group>);

impl Subscribers {
    pub(super) fn add(&self, subscriber: Arc<dyn Subscriber>) -> Membership {
        let mut groups = self.groups.lock();
        // Who leaves makes room in any group; most have come and stay.
        for group in groups.iter().rev() {
            let Some(mut members) = group.try_lock() else { continue };
            if members.len() < GROUP_MAX {
                members.push(subscriber);
                drop(members);
                return Membership(group.clone());
            }
        }
        let group = Arc::new(Mutex::new(vec![subscriber]));
        groups.push(group.clone());
        Membership(group)
    }

    pub(super) fn remove(&self, membership: &Membership, subscriber: &Arc<dyn Subscriber>) {
        let mut members = membership.0.lock();
        if let Some(at) = members.iter().position(|other| Arc::ptr_eq(other, subscriber)) {
            members.swap_remove(at);
        }
        let is_empty = members.is_empty();
        drop(members);
        if is_empty {
            self.groups.lock().retain(|group| !group.try_lock().is_some_and(|members| members.is_empty()));
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.groups.lock().iter().all(|group| group.lock().is_empty())
    }

    /// Returns all of them, in shares for one task each.
    fn shares(&self) -> Vec<Share> {
        self.groups.lock().chunks(GROUPS_PER_TASK).map(|groups| Share(groups.to_vec())).collect()
    }
}

/// Some of the subscribers.
#[derive(Debug)]
struct Share(Vec<Arc<Group>>);

impl Share {
    /// Tells them that there is something in the ring. Others go first after each group: what is published
    /// meanwhile comes along in the next batch.
    async fn notify(&self, ring: &RwLock<Ring>) {
        let mut batches = SharedBatches::new(ring);
        for (at, group) in self.0.iter().enumerate() {
            if at > 0 {
                yield_now().await;
            }
            for subscriber in &*group.lock() {
                subscriber.notify(&mut batches);
            }
        }
    }
}
