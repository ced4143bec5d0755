//! Allowances, in this process.

use std::collections::HashMap;

use parking_lot::Mutex;
use tidemill_proto::Timestamp;

use crate::storage::limits::{Draw, Drawn, Grants, QuotaId};

/// Quotas that are there before it is looked for some that are over.
const CLEARED_AT_MIN: usize = 1_024;

/// The quotas from which something counts.
#[derive(Debug, Default)]
pub(super) struct Limits(Mutex<Quotas>);

#[derive(Debug, Default)]
struct Quotas {
    /// Each with the time when nothing of it counts any more, in milliseconds.
    grants: HashMap<QuotaId, (Grants, u64)>,
    /// How many there may be before it is looked again: twice as many as were left.
    cleared_at: usize,
}

impl Limits {
    pub(super) fn draw(&self, draw: &Draw, now: Timestamp) -> Drawn {
        let now_ms = now.as_millis();
        let Quotas { grants, cleared_at } = &mut *self.0.lock();
        let (of_it, over_ms) = grants.entry(draw.quota).or_default();
        let drawn = of_it.draw(draw, now_ms);
        *over_ms = of_it.over_ms(draw);
        if *over_ms == 0 {
            grants.remove(&draw.quota);
        }
        if grants.len() > (*cleared_at).max(CLEARED_AT_MIN) {
            grants.retain(|_, (_, over_ms)| *over_ms > now_ms);
            *cleared_at = grants.len() * 2;
        }
        drawn
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::storage::limits::Rate;

    #[test]
    fn quotas_that_are_over_are_forgotten() {
        let limits = Limits::default();
        let draw = |number: u32| {
            let mut quota = [0; 16];
            quota[..4].copy_from_slice(&number.to_be_bytes());
            let rate = Rate { amount: 10, within: Duration::from_mins(1) };
            Draw { quota, rate, slices: 60, hold: Duration::ZERO, most: 1, back: None }
        };
        for number in 0..100_000 {
            limits.draw(&draw(number), Timestamp::from_millis(u64::from(number) * 100));
        }
        // 610 of them count at one time.
        assert!(limits.0.lock().grants.len() <= 2 * CLEARED_AT_MIN, "{}", limits.0.lock().grants.len());
    }
}
