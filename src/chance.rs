//! Random numbers, for spreading work in time and for names that should differ. None of them is a
//! secret: they come from the seeds that the standard library gives its hash maps.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

/// Parts into which a wait is divided for choosing one.
const SHARES: u32 = 1_024;

/// Returns a number that differs between calls and processes.
#[must_use]
pub fn random() -> u64 {
    RandomState::new().hash_one(0)
}

/// Returns a time from a half of `wait` to the whole of it, so that those who began together spread out.
#[must_use]
pub fn jittered(wait: Duration) -> Duration {
    wait / 2 + share_of(wait / 2)
}

/// Returns a time below `whole`.
#[must_use]
pub fn share_of(whole: Duration) -> Duration {
    Share::random().of(whole)
}

/// A random part of whatever it is a part of, below the whole.
#[derive(Clone, Copy, Debug)]
pub struct Share(u32);

impl Share {
    /// Returns one.
    #[must_use]
    pub fn random() -> Self {
        Self(u32::try_from(random() % u64::from(SHARES)).unwrap_or_default())
    }

    /// Returns this part of a time.
    #[must_use]
    pub fn of(self, whole: Duration) -> Duration {
        whole / SHARES * self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_lie_within_the_whole_and_are_spread_over_it() {
        let whole = Duration::from_millis(1_024);
        let shares: Vec<_> = (0..1_000).map(|_| share_of(whole)).collect();
        assert!(shares.iter().all(|share| *share < whole));
        for part in 0..4 {
            let quarter = whole / 4 * part..whole / 4 * (part + 1);
            assert!(shares.iter().filter(|share| quarter.contains(*share)).count() > 100, "{quarter:?}");
        }
        assert!((0..1_000).map(|_| jittered(whole)).all(|wait| wait >= whole / 2 && wait < whole));
        assert_eq!(jittered(Duration::ZERO), Duration::ZERO);
    }
}
