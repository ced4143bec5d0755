//! Who is filling keys of a bucket, and until when.
//!
//! It must not know keys that are there.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tidemill_proto::{KeyName, Timestamp};

use super::{Bucket, TEXT_BYTES};
use crate::storage::{FillToken, KeyEntry};

/// What a fill costs besides the name of its key: its slots in two trees whose nodes are half full at worst.
const FILL_BYTES: usize =
    2 * size_of::<(KeyName, (FillToken, Timestamp))>() + 2 * size_of::<(Timestamp, KeyName)>() + TEXT_BYTES;
/// Fills whose time is over that go before one begins: more than come to be, so that they do not pile up.
pub(in crate::storage::memory) const ENDED_PER_FILL: usize = 2;

/// Fills that have begun. Their tokens count until their time is over.
#[derive(Debug, Default)]
pub(super) struct Fills {
    by_key: BTreeMap<KeyName, (FillToken, Timestamp)>,
    by_end: BTreeSet<(Timestamp, KeyName)>,
    cost: usize,
}

fn cost_of(key: &KeyName) -> usize {
    FILL_BYTES + key.as_str().len()
}

impl Fills {
    pub(super) fn cost(&self) -> usize {
        self.cost
    }

    fn begin(&mut self, key: &KeyName, token: FillToken, end: Timestamp) {
        self.end(key);
        self.cost += cost_of(key);
        self.by_end.insert((end, key.clone()));
        self.by_key.insert(key.clone(), (token, end));
    }

    fn end(&mut self, key: &KeyName) {
        if let Some((key, (_, end))) = self.by_key.remove_entry(key) {
            self.cost -= cost_of(&key);
            self.by_end.remove(&(end, key));
        }
    }

    fn purge(&mut self, now: Timestamp, count: usize) {
        for _ in 0..count {
            let Some((_, key)) = self.by_end.first().filter(|(end, _)| *end <= now) else { return };
            let key = key.clone();
            self.end(&key);
        }
    }
}

impl Bucket {
    /// Returns the token under which a key is being filled, and until when.
    pub(super) fn filling(&self, key: &KeyName, now: Timestamp) -> Option<(FillToken, Timestamp)> {
        let (token, end) = self.fills.as_ref()?.by_key.get(key)?;
        (*end > now).then_some((*token, *end))
    }

    /// Returns until when a key is being filled; `None` where nobody does.
    pub(in crate::storage::memory) fn filled_until(
        &self,
        key: &KeyName,
        now: Timestamp,
    ) -> Option<Timestamp> {
        self.filling(key, now).map(|(_, end)| end)
    }

    /// Returns a key if it is there and fresh.
    pub(in crate::storage::memory) fn fresh(&self, key: &KeyName, now: Timestamp) -> Option<KeyEntry> {
        self.key(key, true, now).filter(|entry| !entry.is_stale(now))
    }

    /// Returns the bytes that a fill holds.
    pub(in crate::storage::memory) fn bytes_of_fill(key: &KeyName) -> usize {
        cost_of(key)
    }

    /// Has a key be filled under a token for so long.
    pub(in crate::storage::memory) fn begin_fill(
        &mut self,
        key: &KeyName,
        token: FillToken,
        within: Duration,
        now: Timestamp,
    ) {
        self.fills.get_or_insert_default().begin(key, token, now.saturating_add(within));
    }

    /// Has a token for a key count no more.
    pub(super) fn end_fill(&mut self, key: &KeyName) {
        if let Some(fills) = &mut self.fills {
            fills.end(key);
            self.fills.take_if(|fills| fills.by_key.is_empty());
        }
    }

    /// Forgets up to `count` fills whose time is over.
    pub(in crate::storage::memory) fn purge_fills(&mut self, now: Timestamp, count: usize) {
        if let Some(fills) = &mut self.fills {
            fills.purge(now, count);
            self.fills.take_if(|fills| fills.by_key.is_empty());
        }
    }
}
