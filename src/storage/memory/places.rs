//! Places that nodes hold, in this process.

use std::collections::HashMap;

use parking_lot::Mutex;
use tidemill_proto::Timestamp;

use crate::storage::limits::{Places, QuotaId};

/// What each node holds of a quota, and until when that counts.
type Held = HashMap<u64, (u32, Timestamp)>;

/// The places of the backend.
#[derive(Debug, Default)]
pub(super) struct AllPlaces(Mutex<HashMap<QuotaId, Held>>);

impl AllPlaces {
    pub(super) fn hold(&self, places: &Places, now: Timestamp) -> bool {
        let mut all = self.0.lock();
        let held = all.entry(places.quota).or_default();
        held.retain(|_, (_, until)| *until > now);
        let before = held.get(&places.node).map_or(0, |(count, _)| *count);
        let of_others: u64 = held
            .iter()
            .filter(|(node, _)| **node != places.node)
            .map(|(_, (count, _))| u64::from(*count))
            .sum();
        let fits = of_others + u64::from(places.count) <= u64::from(places.most);
        let may = fits || places.count <= before;
        if may && places.count > 0 {
            held.insert(places.node, (places.count, now.saturating_add(places.lease)));
        } else if may {
            held.remove(&places.node);
        }
        if held.is_empty() {
            all.remove(&places.quota);
        }
        may
    }
}
