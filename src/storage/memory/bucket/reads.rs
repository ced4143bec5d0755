//! How often keys of a bucket are read, be they there or not.

use std::collections::BTreeMap;

use tidemill_proto::{KeyName, Timestamp};

use super::{Bucket, TEXT_BYTES};
use crate::storage::{READ_KEYS_MAX, cold, heat_of, reads_of};

/// What it costs besides its name to know how often a key is read: its slot in a tree whose nodes are half full at worst.
const READ_BYTES: usize = 2 * size_of::<(KeyName, f64)>() + TEXT_BYTES;

/// Keys with their heats.
#[derive(Debug, Default)]
pub(super) struct ReadKeys {
    heats: BTreeMap<KeyName, f64>,
    cost: usize,
}

fn cost_of(key: &KeyName) -> usize {
    READ_BYTES + key.as_str().len()
}

impl ReadKeys {
    pub(super) fn cost(&self) -> usize {
        self.cost
    }

    fn retain(&mut self, mut is_kept: impl FnMut(f64) -> bool) {
        let cost = &mut self.cost;
        self.heats.retain(|key, heat| {
            let is_kept = is_kept(*heat);
            *cost -= if is_kept { 0 } else { cost_of(key) };
            is_kept
        });
    }

    fn add(&mut self, reads: &[(KeyName, u32)], now: Timestamp) {
        for (key, count) in reads {
            let heat = heat_of(self.heats.get(key).copied(), *count, now);
            if self.heats.insert(key.clone(), heat).is_none() {
                self.cost += cost_of(key);
            }
        }
        let surplus = self.heats.len().saturating_sub(READ_KEYS_MAX);
        if surplus > 0 {
            let mut all: Vec<f64> = self.heats.values().copied().collect();
            let (colder, least, _) = all.select_nth_unstable_by(surplus - 1, f64::total_cmp);
            let least = *least;
            // Of those that are as cold as each other some go, and some stay.
            let mut ties = surplus - colder.iter().filter(|heat| **heat < least).count();
            self.retain(|heat| {
                let is_tie = heat.total_cmp(&least).is_eq() && ties > 0;
                ties -= usize::from(is_tie);
                heat >= least && !is_tie
            });
        }
    }
}

impl Bucket {
    /// Returns how often a key was read.
    pub(super) fn reads_of(&self, key: &KeyName, now: Timestamp) -> f64 {
        let heat = self.reads.as_ref().and_then(|reads| reads.heats.get(key));
        heat.map_or(0.0, |heat| reads_of(*heat, now))
    }

    /// Returns the bytes that it holds more at most when reads are counted.
    pub(in crate::storage::memory) fn bytes_of_reads(reads: &[(KeyName, u32)]) -> usize {
        reads.iter().map(|(key, _)| cost_of(key)).sum()
    }

    /// Adds to how often keys were read.
    pub(in crate::storage::memory) fn count_reads(&mut self, reads: &[(KeyName, u32)], now: Timestamp) {
        self.reads.get_or_insert_default().add(reads, now);
    }

    /// Forgets the keys that are not read any more.
    pub(in crate::storage::memory) fn forget_cold(&mut self, now: Timestamp) {
        if let Some(reads) = &mut self.reads {
            let cold = cold(now);
            reads.retain(|heat| heat >= cold);
            self.reads.take_if(|reads| reads.heats.is_empty());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::storage::READS_HALF_LIFE;

    #[test]
    fn those_that_are_read_most_are_known_and_none_for_ever() {
        let now = Timestamp::from_millis(1_770_000_000_000);
        let (mut reads, mut cost) = (ReadKeys::default(), 0);
        let name = |number: usize| KeyName::parse(&format!("k{number}")).expect("a name");
        for number in 0..READ_KEYS_MAX + 500 {
            reads.add(
                &[(name(number), if number % 2 == 0 { 9 } else { 1 })],
                now.saturating_add(Duration::from_millis(number as u64)),
            );
            cost = cost.max(reads.cost());
        }
        assert_eq!(reads.heats.len(), READ_KEYS_MAX);
        assert!((0..READ_KEYS_MAX).step_by(2).all(|number| reads.heats.contains_key(&name(number))));
        assert_eq!(reads.cost(), reads.heats.keys().map(cost_of).sum::<usize>());
        assert!(cost <= reads.cost() + cost_of(&name(99_999)) * 2, "{cost}");
        reads.retain(|heat| heat >= cold(now.saturating_add(READS_HALF_LIFE * 3)));
        assert_eq!(reads.heats.len(), READ_KEYS_MAX / 2 + 250, "nine times is once by then");
        let same: Vec<_> = (0..READ_KEYS_MAX + 10).map(|number| (name(number * 2 + 1), 9)).collect();
        reads.add(&same, now);
        assert_eq!(reads.heats.len(), READ_KEYS_MAX, "also where all are read alike");
        reads.retain(|heat| heat >= cold(now.saturating_add(READS_HALF_LIFE * 6)));
        assert_eq!((reads.heats.len(), reads.cost()), (0, 0));
    }
}
