//! How often keys are read whose fills live by that (`adaptive_ttl` of their bucket): counted by this node, and told to the
//! storage now and then, so that a read itself writes nothing.
//!
//! What is not told yet when the node ends, or the storage is away, is lost: keys count as read less often by it.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tidemill_proto::{BucketName, KeyName};

use super::{Failure, Relay};
use crate::storage::BucketStore;

/// How often the storage is told.
pub const READS_TOLD_EVERY: Duration = Duration::from_secs(5);
/// Keys of which reads are counted until they are told; those of others are not.
const KEYS_MAX: usize = 50_000;
/// Keys of which the storage is told in one step.
const STEP_KEYS: usize = 1_000;

/// Reads that are not told yet.
#[derive(Debug, Default)]
pub(super) struct Reads {
    kept: Mutex<Counted>,
}

#[derive(Debug, Default)]
struct Counted {
    of: HashMap<BucketName, HashMap<KeyName, u32>>,
    keys: usize,
}

impl Reads {
    /// Counts a read of a key.
    pub(super) fn count(&self, bucket: &BucketName, key: &KeyName) {
        let mut kept = self.kept.lock();
        let Counted { of, keys } = &mut *kept;
        if let Some(count) = of.get_mut(bucket).and_then(|of| of.get_mut(key)) {
            *count = count.saturating_add(1);
        } else if *keys < KEYS_MAX {
            *keys += 1;
            of.entry(bucket.clone()).or_default().insert(key.clone(), 1);
        }
    }

    /// Tells the storage how often a key was read, which is about to be filled.
    pub(super) async fn tell_one(&self, store: &dyn BucketStore, bucket: &BucketName, key: &KeyName) {
        let told = {
            let mut kept = self.kept.lock();
            let Counted { of, keys } = &mut *kept;
            let Some(of_bucket) = of.get_mut(bucket) else { return };
            let Some(told) = of_bucket.remove_entry(key) else { return };
            *keys -= 1;
            if of_bucket.is_empty() {
                of.remove(bucket);
            }
            told
        };
        if let Err(error) = store.count_reads(bucket, &[told]).await {
            tracing::debug!(error = &error as &dyn std::error::Error, "how often a key was read is lost");
        }
    }

    /// Tells the storage of all; returns why not of some.
    async fn tell(&self, store: &dyn BucketStore) -> Vec<Failure> {
        let Counted { of, .. } = std::mem::take(&mut *self.kept.lock());
        let mut failures = Vec::new();
        for (bucket, reads) in of {
            let reads: Vec<_> = reads.into_iter().collect();
            for reads in reads.chunks(STEP_KEYS) {
                if let Err(error) = store.count_reads(&bucket, reads).await {
                    failures.push(Failure::read_bucket(error, &bucket));
                    break;
                }
            }
        }
        failures
    }
}

impl Relay {
    /// Tells the storage how often keys were read since it was told last; one task of a node does so every
    /// [`READS_TOLD_EVERY`]. Returns why it could not be told of some, which is lost.
    pub async fn tell_reads(&self) -> Vec<Failure> {
        self.0.reads.tell(&*self.0.storage.buckets).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_has_a_bound() {
        let reads = Reads::default();
        let name = |number: usize| KeyName::parse(&format!("k{number}")).expect("a name");
        let buckets = ["a", "b"].map(|name| BucketName::parse(name).expect("a name"));
        for number in 0..KEYS_MAX {
            reads.count(&buckets[number % 2], &name(number));
        }
        reads.count(&buckets[0], &name(1));
        reads.count(&buckets[0], &name(0));
        let kept = reads.kept.lock();
        assert_eq!((kept.keys, kept.of[&buckets[0]].len()), (KEYS_MAX, KEYS_MAX / 2));
        assert_eq!(kept.of[&buckets[0]][&name(0)], 2, "what is known is counted on");
    }
}
