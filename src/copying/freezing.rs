//! Making a storage read-only, so that nothing is accepted there that a copy has not got.

use std::collections::BTreeSet;
use std::time::Duration;

use tidemill_proto::{TopicName, TopicSelector};

use super::buckets;
use crate::storage::{Storage, StorageError};

/// Names that are asked for at once.
const NAMES: usize = 1_000;

/// How long after no more topics are to be made one may come that a node was about to make: longer than a call may take.
pub const NEW_TOPICS_SETTLE: Duration = Duration::from_secs(6);

/// How much was made read-only, or takes changes again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Frozen {
    /// Topics.
    pub topics: usize,
    /// Buckets.
    pub buckets: usize,
}

/// Makes topics read-only, or has them take messages again, and returns how many there are. Where none is named that goes
/// for all, and for all buckets, and no more are made.
///
/// # Errors
/// The storage failed. It may be done in part, and can be done again.
pub async fn freeze(
    storage: &Storage,
    topics: &[TopicSelector],
    frozen: bool,
) -> Result<Frozen, StorageError> {
    let mut done = Frozen::default();
    if topics.is_empty() {
        storage.copies.refuse_new_topics(frozen).await?;
        for bucket in buckets::all(storage).await? {
            match storage.bucket_copies.freeze_bucket(&bucket, frozen).await {
                Ok(()) => done.buckets += 1,
                // One that is being copied there is frozen, and stays so.
                Err(StorageError::NoBucket | StorageError::ReadOnly) => {}
                Err(error) => return Err(error),
            }
        }
    }
    for topic in selected(storage, topics).await? {
        match storage.copies.freeze(&topic, frozen).await {
            Ok(()) => done.topics += 1,
            Err(StorageError::NoTopic | StorageError::ReadOnly) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// Returns the names of topics that are selected, and those that are named whether they are there or not.
pub(super) async fn selected(
    storage: &Storage,
    topics: &[TopicSelector],
) -> Result<BTreeSet<TopicName>, StorageError> {
    let mut names = BTreeSet::new();
    if topics.is_empty() {
        add_names(storage, "", |_| true, &mut names).await?;
    }
    for selector in topics {
        match selector {
            TopicSelector::Topic(topic) => _ = names.insert(topic.clone()),
            TopicSelector::Pattern(_) => {
                add_names(storage, selector.prefix(), |name| selector.matches(name), &mut names).await?;
            }
        }
    }
    Ok(names)
}

async fn add_names(
    storage: &Storage,
    prefix: &str,
    is_wanted: impl Fn(&TopicName) -> bool,
    names: &mut BTreeSet<TopicName>,
) -> Result<(), StorageError> {
    let mut after: Option<TopicName> = None;
    loop {
        let page = storage.topics.names(prefix, after.as_ref(), NAMES).await?;
        let is_last = page.len() < NAMES;
        after = page.last().cloned();
        names.extend(page.into_iter().filter(|name| is_wanted(name)));
        if is_last {
            return Ok(());
        }
    }
}
