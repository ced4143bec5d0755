//! Budgets: how many bytes may be held at one time, by all who share one.
//!
//! Whoever is about to hold bytes for a client raises its hold first. What is small is free: the number of
//! connections bounds it, and nearly everything is. It must not know what is held, nor for whom.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What one holder may hold without being counted. The caps on connections bound what that comes to.
pub const FREE_BYTES: usize = 16 * 1024;

/// The unit of a budget, so that gigabytes fit into the permits of one call.
const UNIT_BYTES: u64 = 1024;

/// Least size of a budget: one of which everything is free would count nothing.
const BYTES_MIN: u64 = 4 * FREE_BYTES as u64;

/// Bytes that may be held at one time. Clones are the same budget.
#[derive(Clone, Debug)]
pub struct Budget {
    units: Arc<Semaphore>,
    units_max: u32,
}

/// A part of a budget, given back when dropped.
#[derive(Debug, Default)]
pub struct Hold {
    permit: Option<OwnedSemaphorePermit>,
}

/// Nothing more may be held now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("as many bytes are held as there may be")]
pub struct Spent;

/// Returns what bytes count as.
fn units(bytes: u64) -> u32 {
    if bytes <= FREE_BYTES as u64 {
        return 0;
    }
    u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX)
}

impl Budget {
    /// Returns a budget of so many bytes, at least 64 KiB.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        let units_max = ((bytes_max as u64).max(BYTES_MIN) / UNIT_BYTES).min(Semaphore::MAX_PERMITS as u64);
        let units_max = u32::try_from(units_max).unwrap_or(u32::MAX);
        Self { units: Arc::new(Semaphore::new(units_max as usize)), units_max }
    }

    /// Returns the bytes that are held now, those that are free not counted.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        (self.units_max as usize).saturating_sub(self.units.available_permits()) as u64 * UNIT_BYTES
    }

    /// Raises what `hold` holds to `bytes`; leaves it where it holds as much.
    ///
    /// # Errors
    /// There is no room for that now. What `hold` holds stays as it is.
    pub fn raise(&self, hold: &mut Hold, bytes: u64) -> Result<(), Spent> {
        let more = units(bytes).saturating_sub(hold.units());
        if more == 0 {
            return Ok(());
        }
        let permit = Arc::clone(&self.units).try_acquire_many_owned(more).map_err(|_| Spent)?;
        hold.add(permit);
        Ok(())
    }

    /// Waits until `bytes` can be held, behind those who waited before. What is larger than the budget takes
    /// all of it.
    ///
    /// # Cancel safety
    /// Cancel-safe: who stops waiting loses its place.
    pub async fn room_for(&self, bytes: u64) -> Hold {
        let units = units(bytes).min(self.units_max);
        // It is never closed; should it be, there is nothing to be counted any more.
        Hold { permit: Arc::clone(&self.units).acquire_many_owned(units).await.ok() }
    }

    /// Returns what `bytes` count as here: what is larger than the budget counts as all of it.
    #[must_use]
    pub fn weigh(&self, bytes: u64) -> u64 {
        bytes.min(u64::from(self.units_max) * UNIT_BYTES)
    }
}

impl Hold {
    fn units(&self) -> u32 {
        let count = self.permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    fn add(&mut self, permit: OwnedSemaphorePermit) {
        match &mut self.permit {
            Some(earlier) => earlier.merge(permit),
            None => self.permit = Some(permit),
        }
    }

    /// Returns whether it holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.units() == 0
    }

    /// Lowers what is held to `bytes`; leaves it where it holds less.
    pub fn lower(&mut self, bytes: u64) {
        let surplus = self.units().saturating_sub(units(bytes));
        if let Some(permit) = &mut self.permit {
            drop(permit.split(surplus as usize));
        }
    }

    /// Adds what another of the same budget holds.
    pub fn merge(&mut self, other: Self) {
        other.permit.into_iter().for_each(|permit| self.add(permit));
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    const KIB: u64 = 1024;

    #[test]
    fn what_is_held_comes_back() {
        let budget = Budget::new(64 * 1024);
        let mut hold = Hold::default();
        budget.raise(&mut hold, 16 * KIB).expect("what is small is free");
        assert!(hold.is_empty() && budget.held_bytes() == 0);
        budget.raise(&mut hold, 40 * KIB).expect("there is room");
        budget.raise(&mut hold, 50 * KIB).expect("there is room for more");
        assert_eq!(budget.held_bytes(), 50 * KIB);
        assert_eq!(budget.raise(&mut Hold::default(), 20 * KIB), Err(Spent));
        assert_eq!(budget.raise(&mut hold, 65 * KIB), Err(Spent));
        assert_eq!(budget.held_bytes(), 50 * KIB, "a refusal changes nothing");
        hold.lower(30 * KIB);
        let mut other = Hold::default();
        budget.raise(&mut other, 20 * KIB).expect("there is room again");
        hold.merge(other);
        assert_eq!(budget.held_bytes(), 50 * KIB);
        hold.lower(10 * KIB);
        assert!(hold.is_empty() && budget.held_bytes() == 0);
    }

    #[test]
    fn the_smallest_budget_counts_too() {
        let budget = Budget::new(1);
        let mut all = Hold::default();
        budget.raise(&mut all, budget.weigh(1 << 30)).expect("there is room for one");
        assert_eq!(budget.raise(&mut Hold::default(), budget.weigh(1 << 30)), Err(Spent));
    }

    #[tokio::test]
    async fn who_waits_comes_in_turn_and_the_largest_takes_all() {
        let budget = Budget::new(64 * 1024);
        let all = budget.room_for(1 << 40).await;
        assert_eq!(budget.held_bytes(), 64 * KIB);
        assert_eq!(budget.weigh(1 << 40), 64 * KIB);
        let mut waiting = std::pin::pin!(budget.room_for(20 * KIB));
        assert!((&mut waiting).now_or_never().is_none());
        drop(all);
        let hold = waiting.await;
        assert_eq!(budget.held_bytes(), 20 * KIB);
        drop(hold);
        assert_eq!(budget.held_bytes(), 0);
    }
}
