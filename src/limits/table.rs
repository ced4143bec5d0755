//! The quotas that this node knows: as many as there may be, and one for each limit that all others share, so
//! that whoever makes up addresses or names takes no memory and no more than one share.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::Limit;
use super::amounts::Amounts;
use super::quota::Quota;
use crate::storage::QuotaId;

/// Locks among which the quotas are spread.
const SHARDS: usize = 16;
/// Quotas whose unspent allowances are given back in one look.
const GIVEN_BACK_MAX: usize = 1_000;

/// The quotas of a node.
#[derive(Debug)]
pub(super) struct Table {
    shards: [Mutex<HashMap<QuotaId, Arc<Quota>>>; SHARDS],
    known: AtomicUsize,
    amounts: Arc<Amounts>,
}

impl Table {
    pub(super) fn new(amounts: Arc<Amounts>) -> Self {
        let shards = std::array::from_fn(|_| Mutex::default());
        Self { shards, known: AtomicUsize::new(0), amounts }
    }

    /// Returns the quota of a limit with this name.
    pub(super) fn quota(&self, limit: Limit, name: &[&str]) -> Arc<Quota> {
        let id = digest(limit, name);
        let mut shard = self.shard(id).lock();
        if let Some(quota) = shard.get(&id) {
            return quota.clone();
        }
        let new = |id| Arc::new(Quota::new(limit, self.amounts.clone(), id, Instant::now()));
        // Raised before it is compared, so that no two take the last place.
        if self.known.fetch_add(1, Ordering::Relaxed) < self.amounts.quotas_max() {
            return shard.entry(id).or_insert_with(|| new(id)).clone();
        }
        self.known.fetch_sub(1, Ordering::Relaxed);
        drop(shard);
        let of_others = digest(limit, &[]);
        self.shard(of_others).lock().entry(of_others).or_insert_with(|| new(of_others)).clone()
    }

    /// Forgets quotas from which nothing counts any more; returns those that hold what was not spent, and how
    /// many there are.
    pub(super) fn look(&self, now: Instant) -> (Vec<Arc<Quota>>, usize) {
        let (mut unspent, mut known) = (Vec::new(), 0);
        for shard in &self.shards {
            let mut shard = shard.lock();
            // Who is counted in it now will take more.
            let is_over = |quota: &Arc<Quota>| Arc::strong_count(quota) == 1 && quota.is_over(now);
            shard.retain(|id, quota| {
                let stays = !is_over(quota);
                if !stays && *id != digest(quota.limit, &[]) {
                    self.known.fetch_sub(1, Ordering::Relaxed);
                }
                stays
            });
            known += shard.len();
            let room = GIVEN_BACK_MAX - unspent.len();
            unspent.extend(shard.values().filter(|quota| quota.has_unspent(now)).take(room).cloned());
        }
        (unspent, known)
    }

    /// Returns the quotas that hold what was not spent of what may be spent until then.
    pub(super) fn all_unspent(&self, until: Instant) -> Vec<Arc<Quota>> {
        let of_shard = |shard: &Mutex<HashMap<_, Arc<Quota>>>| -> Vec<_> {
            shard.lock().values().filter(|quota| quota.has_unspent(until)).cloned().collect()
        };
        self.shards.iter().flat_map(of_shard).collect()
    }

    fn shard(&self, id: QuotaId) -> &Mutex<HashMap<QuotaId, Arc<Quota>>> {
        &self.shards[usize::from(id[0]) % SHARDS]
    }
}

/// Returns the digest of a name: its parts with their lengths, so that no two names have one text.
pub(super) fn digest(limit: Limit, name: &[&str]) -> QuotaId {
    let mut hash = Sha256::new();
    hash.update(limit.as_str());
    for part in name {
        hash.update(part.len().to_be_bytes());
        hash.update(part);
    }
    let [digest @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = <[u8; 32]>::from(hash.finalize());
    digest
}
