//! A bucket that is told to another storage, or taken over from one.

use std::ops::Bound;

use tidemill_proto::{KeyName, MessageId, Timestamp};

use super::super::log::Log;
use super::{
    BESIDE_BYTES, Beside, Bucket, DIGEST_BYTES, EARLIER_BYTES, Earlier, KEY_BYTES, NEVER, StoredKey,
    StoredValue, cost_of_owner, cost_of_value,
};
use crate::storage::{
    CopiedBucket, CopiedKey, CopiedKeys, Epoch, Freeze, KeyEntry, KeyValue, KeysPart, StoredMessage,
    TopicPolicy,
};

/// What is kept of the log of a bucket that is taken over: all, until that is done.
const ALL: TopicPolicy = TopicPolicy::newest(u64::MAX);

/// Returns a value as it is kept.
fn stored(value: Option<&KeyValue>) -> StoredValue {
    value.map_or_else(|| StoredValue { bytes: Box::default(), content_type: None }, StoredValue::new)
}

/// Returns the bytes that keys hold which are taken over, at most.
pub(in crate::storage::memory) fn cost_of_copied(part: &KeysPart) -> usize {
    let cost = |copied: &CopiedKey| {
        let CopiedKey { entry, past } = copied;
        let value = |entry: &KeyEntry| {
            entry
                .value
                .as_ref()
                .map_or(0, |value| cost_of_value(value.bytes.len(), value.content_type.as_deref()))
        };
        let before = past.iter().map(|earlier| {
            EARLIER_BYTES + DIGEST_BYTES + value(earlier) + cost_of_owner(earlier.owner.as_ref())
        });
        KEY_BYTES
            + BESIDE_BYTES
            + entry.key.as_str().len()
            + value(entry)
            + cost_of_owner(entry.owner.as_ref())
            + before.sum::<usize>()
    };
    part.each().into_iter().filter_map(|(_, copied)| copied).map(cost).sum()
}

impl Bucket {
    /// Returns an empty bucket that is to be taken over.
    pub(in crate::storage::memory) fn taken_over(other: &CopiedBucket, epoch: Epoch) -> Self {
        let CopiedBucket { state, born, length, given, .. } = other;
        let epoch = if other.epoch == Epoch::Unmarked { epoch } else { other.epoch };
        let before = given.unwrap_or(*length).saturating_sub(*length);
        let mut bucket = Self::new(state.settings, MessageId::MIN, epoch, state.created_at);
        bucket.log = Log::given_before(epoch, *born, before);
        bucket.freeze = Some(Freeze::Importing);
        bucket
    }

    pub(in crate::storage::memory) fn freeze(&self) -> Option<Freeze> {
        self.freeze
    }

    pub(in crate::storage::memory) fn set_freeze(&mut self, freeze: Option<Freeze>) {
        self.freeze = freeze;
    }

    /// Returns it without its keys; the caller knows its name.
    pub(in crate::storage::memory) fn copied(&self, name: &tidemill_proto::BucketName) -> CopiedBucket {
        let tail = self.log.tail();
        CopiedBucket {
            state: self.state(name),
            epoch: tail.epoch,
            born: tail.born,
            first: tail.first,
            last: tail.last.unwrap_or(MessageId::MIN),
            length: self.log.length() as u64,
            holes: self.log.holes().collect(),
            given: tail.given,
            freeze: self.freeze,
            has_keys: self.has_keys,
        }
    }

    /// Returns a key with all that belongs to it, also where its time is over.
    pub(in crate::storage::memory) fn copied_key(&self, key: &KeyName) -> Option<CopiedKey> {
        // By that time none is over.
        let mut history = self.history(key, Timestamp::from_millis(0)).into_iter();
        Some(CopiedKey { entry: history.next()?, past: history.collect() })
    }

    pub(in crate::storage::memory) fn copied_keys(
        &self,
        after: Option<&KeyName>,
        limit: usize,
        bytes_max: usize,
    ) -> CopiedKeys {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let (mut page, mut bytes) = (CopiedKeys::default(), 0);
        for (name, found) in self.keys.range::<KeyName, _>((from, Bound::Unbounded)).take(limit) {
            bytes += usize::try_from(found.weight()).unwrap_or(usize::MAX);
            if bytes > bytes_max && !page.keys.is_empty() {
                break;
            }
            page.keys.extend(self.copied_key(name));
        }
        page.next = page.keys.last().map(|last| last.entry.key.clone());
        page
    }

    /// Returns whether all keys were taken over once.
    pub(in crate::storage::memory) const fn has_keys(&self) -> bool {
        self.has_keys
    }

    pub(in crate::storage::memory) fn copied_ends(
        &self,
        after: Option<&KeyName>,
        limit: usize,
    ) -> Vec<(KeyName, Option<Timestamp>)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let keys = self.keys.range::<KeyName, _>((from, Bound::Unbounded)).take(limit);
        keys.map(|(name, found)| (name.clone(), found.expires_at())).collect()
    }

    pub(in crate::storage::memory) fn import_keys(&mut self, part: &KeysPart) {
        if matches!(part, KeysPart::First(_)) {
            let all: Vec<KeyName> = self.keys.keys().cloned().collect();
            for key in &all {
                self.take_out(key);
            }
            self.has_keys = false;
        }
        for (key, copied) in part.each() {
            match copied {
                Some(copied) => self.take_over(copied),
                None => drop(self.take_out(key)),
            }
        }
        self.has_keys |= matches!(part, KeysPart::Last(_));
    }

    fn take_over(&mut self, copied: &CopiedKey) {
        let CopiedKey { entry, past } = copied;
        drop(self.take_out(&entry.key));
        let past: Vec<Earlier> = past.iter().map(earlier).collect();
        let has_more =
            entry.digest.is_some() || entry.fresh_until.is_some() || entry.is_counted || !past.is_empty();
        let beside = has_more.then(|| {
            let (digest, fresh_until, is_counted) = (entry.digest, entry.fresh_until, entry.is_counted);
            Box::new(Beside { digest, fresh_until, is_counted, past })
        });
        let expires_at = entry.expires_at.unwrap_or(NEVER);
        let key = StoredKey {
            revision: entry.revision,
            created_at: entry.created_at,
            expires_at,
            owner: entry.owner.clone(),
            value: stored(entry.value.as_ref()),
            beside,
        };
        self.insert(&entry.key, key);
    }

    pub(in crate::storage::memory) fn import_ends(&mut self, ends: &[(KeyName, Option<Timestamp>)]) {
        for (key, end) in ends {
            let end = end.unwrap_or(NEVER);
            let Some(found) = self.keys.get_mut(key) else { continue };
            let before = std::mem::replace(&mut found.expires_at, end);
            self.due.remove(&(before, key.clone()));
            if end != NEVER {
                self.due.insert((end, key.clone()));
            }
        }
    }

    pub(in crate::storage::memory) fn import_changes(&mut self, changes: &[StoredMessage]) {
        for change in changes {
            self.log.take_over(change, &ALL);
        }
    }

    pub(in crate::storage::memory) fn finish_import(&mut self, other: &CopiedBucket) {
        self.log.finish_as(other.first, other.last, other.given, &[], &other.holes);
        self.settings = other.state.settings;
        (self.freeze, self.has_keys) = (None, false);
    }
}

fn earlier(entry: &KeyEntry) -> Earlier {
    Earlier {
        revision: entry.revision,
        owner: entry.owner.clone(),
        value: stored(entry.value.as_ref()),
        digest: entry.digest.map(Box::new),
    }
}
