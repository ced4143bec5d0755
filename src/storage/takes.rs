//! Limits of applications: of a limit is taken by policies, over all nodes of a backend together.
//!
//! It is the generic cell rate algorithm (GCRA). A policy gives back its limit in its time, evenly; of what was taken it
//! is known when all of it is there again: the theoretical arrival time. A take moves that on by the time in which its
//! cost is given back, and passes as long as it then lies no further off than the time in which a whole burst is.
//!
//! # Exactness
//! Time is counted in microseconds, and in parts of one, of which a policy has as many as its limit in each: the time of
//! a cost is `cost × per / limit`, whose remainder is kept as parts. So nothing is ever rounded, and what has passed is
//! to the unit what the algorithm says. Products are taken here, in 128 bits; a server adds and compares alone, of whole
//! microseconds below 2^51 and parts below 2^31, which its floating-point numbers hold exactly.

use std::time::Duration;

use async_trait::async_trait;
use tidemill_proto::LimitName;
use tidemill_proto::takes::LIMIT_MAX;

use super::StorageError;

mod table;

pub(crate) use table::TakeTable;

/// Most policies by which a limit is counted at one time, whoever has named them.
pub const LIMIT_POLICIES_MAX: usize = 64;
/// Longest time in which a whole burst is given back: nothing is kept for longer.
pub const BURST_TIME_MAX: Duration = Duration::from_hours(365 * 24);

/// So much in a time, and so much at once. Two with the same numbers are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LimitPolicy {
    limit: u32,
    /// In milliseconds.
    per_ms: u64,
    burst: u32,
}

/// A time to a part of a microsecond, of which each has as many as the limit of its policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owed {
    /// Whole microseconds.
    pub micros: u64,
    /// Parts of one, fewer than the limit.
    pub parts: u32,
}

/// What is done with a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TakeKind {
    /// The cost is taken, of every policy or of none.
    Take,
    /// Nothing is taken.
    Peek,
    /// The cost is given back, to every policy; never more than makes a whole burst.
    Refund,
}

/// What is asked of a limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Take {
    /// The limit.
    pub name: LimitName,
    /// 1 to [`POLICIES_MAX`](tidemill_proto::takes::POLICIES_MAX) policies, each once.
    pub policies: Vec<LimitPolicy>,
    /// How much; 1 to the least burst.
    pub cost: u32,
    /// What is done.
    pub kind: TakeKind,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Whether the cost was taken, or could be.
    pub allowed: bool,
    /// Of each policy, in their order, how long it takes from now on until all is there again.
    pub owed: Vec<Owed>,
}

/// Limits of applications, which all nodes share.
#[async_trait]
pub trait TakeStore: std::fmt::Debug + Send + Sync {
    /// Takes of a limit, looks at it, or gives back to it, in one step and by one clock for all nodes, as the algorithm
    /// says. A limit of which nothing is owed any more is forgotten by itself. Where the clock goes back, no more than a
    /// whole burst is owed.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `Overloaded`, `Full`, `PoliciesLimit`, `ForeignKey`.
    ///
    /// # Cancel safety
    /// Not cancel-safe: when the future is dropped, the cost may have been taken.
    async fn take(&self, take: &Take) -> Result<Taken, StorageError>;
}

impl TakeKind {
    /// Returns its word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Take => "take",
            Self::Peek => "peek",
            Self::Refund => "refund",
        }
    }
}

impl LimitPolicy {
    /// Returns the policy with these numbers, the time in whole milliseconds; `None` where one is 0 or too large, or a
    /// whole burst would not be given back within [`BURST_TIME_MAX`].
    #[must_use]
    pub fn new(limit: u32, per: Duration, burst: u32) -> Option<Self> {
        let per_ms = u64::try_from(per.as_millis()).ok()?;
        let may = |number: u32| (1..=LIMIT_MAX).contains(&number);
        let policy = Self { limit, per_ms, burst };
        let fits = may(limit) && may(burst) && per_ms > 0 && per <= BURST_TIME_MAX;
        // A product of 30 and 35 bits.
        let all_ms = u128::from(burst) * u128::from(per_ms);
        (fits && all_ms <= BURST_TIME_MAX.as_millis() * u128::from(limit)).then_some(policy)
    }

    /// Returns how much in its time.
    #[must_use]
    pub const fn limit(&self) -> u32 {
        self.limit
    }

    /// Returns its time in milliseconds.
    #[must_use]
    pub const fn per_ms(&self) -> u64 {
        self.per_ms
    }

    /// Returns how much at once.
    #[must_use]
    pub const fn burst(&self) -> u32 {
        self.burst
    }

    const fn per_micros(&self) -> u128 {
        self.per_ms as u128 * 1_000
    }

    /// Returns the time in which a cost is given back.
    #[must_use]
    pub fn time_of(&self, cost: u32) -> Owed {
        let (time, limit) = (u128::from(cost) * self.per_micros(), u128::from(self.limit));
        // Costs are bounded by bursts, whose time is; and a remainder is below its divisor.
        let micros = u64::try_from(time / limit).unwrap_or(u64::MAX);
        Owed { micros, parts: u32::try_from(time % limit).unwrap_or(0) }
    }

    /// Returns how much is left where this is owed.
    #[must_use]
    pub fn left(&self, owed: Owed) -> u32 {
        let gone = self.in_parts(owed).div_ceil(self.per_micros());
        self.burst.saturating_sub(u32::try_from(gone).unwrap_or(u32::MAX))
    }

    /// Returns how long it takes until a cost passes where this is owed, in whole milliseconds; zero where it does.
    #[must_use]
    pub fn wait(&self, owed: Owed, cost: u32) -> Duration {
        let whole = self.in_parts(self.time_of(self.burst));
        let over = (self.in_parts(owed) + self.in_parts(self.time_of(cost))).saturating_sub(whole);
        self.in_millis(over)
    }

    /// Returns how long it takes until all is there again where this is owed, in whole milliseconds.
    #[must_use]
    pub fn reset(&self, owed: Owed) -> Duration {
        self.in_millis(self.in_parts(owed))
    }

    fn in_parts(&self, owed: Owed) -> u128 {
        u128::from(owed.micros) * u128::from(self.limit) + u128::from(owed.parts)
    }

    fn in_millis(&self, parts: u128) -> Duration {
        let millis = parts.div_ceil(u128::from(self.limit) * 1_000);
        Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
    }

    /// Returns both times together.
    pub(crate) fn sum(&self, one: Owed, other: Owed) -> Owed {
        let (micros, parts) = (one.micros + other.micros, one.parts + other.parts);
        match parts.checked_sub(self.limit) {
            Some(parts) => Owed { micros: micros + 1, parts },
            None => Owed { micros, parts },
        }
    }

    /// Returns what is left of a time without another one, at least nothing.
    pub(crate) fn difference(&self, one: Owed, other: Owed) -> Owed {
        if one <= other {
            return Owed::default();
        }
        let micros = one.micros - other.micros;
        match one.parts.checked_sub(other.parts) {
            Some(parts) => Owed { micros, parts },
            None => Owed { micros: micros - 1, parts: one.parts + self.limit - other.parts },
        }
    }
}

impl Taken {
    /// Returns how much is left by all policies.
    #[must_use]
    pub fn remaining(&self, take: &Take) -> u32 {
        let left = take.policies.iter().zip(&self.owed).map(|(policy, owed)| policy.left(*owed));
        left.min().unwrap_or(0)
    }

    /// Returns how long it takes until the cost passes, in whole milliseconds; zero where it does.
    #[must_use]
    pub fn retry_after(&self, take: &Take) -> Duration {
        if self.allowed {
            return Duration::ZERO;
        }
        let waits = take.policies.iter().zip(&self.owed).map(|(policy, owed)| policy.wait(*owed, take.cost));
        waits.max().unwrap_or_default()
    }

    /// Returns how long it takes until all is there again, in whole milliseconds.
    #[must_use]
    pub fn reset(&self, take: &Take) -> Duration {
        let resets = take.policies.iter().zip(&self.owed).map(|(policy, owed)| policy.reset(*owed));
        resets.max().unwrap_or_default()
    }
}

const _: () = assert!(LIMIT_MAX < 1 << 30, "two counts of parts fit into 32 bits");

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(limit: u32, per: Duration, burst: u32) -> LimitPolicy {
        LimitPolicy::new(limit, per, burst).expect("the numbers are within bounds")
    }

    #[test]
    fn the_time_of_a_cost_is_exact() {
        let thirds = policy(3, Duration::from_secs(1), 3);
        assert_eq!(thirds.time_of(1), Owed { micros: 333_333, parts: 1 });
        assert_eq!(thirds.time_of(2), Owed { micros: 666_666, parts: 2 });
        assert_eq!(thirds.sum(thirds.time_of(1), thirds.time_of(2)), Owed { micros: 1_000_000, parts: 0 });
        assert_eq!(thirds.difference(thirds.time_of(3), thirds.time_of(2)), thirds.time_of(1));
        assert_eq!(thirds.difference(thirds.time_of(1), thirds.time_of(2)), Owed::default());
        let largest = policy(LIMIT_MAX, BURST_TIME_MAX, LIMIT_MAX);
        assert_eq!(largest.time_of(LIMIT_MAX), Owed { micros: 31_536_000_000_000, parts: 0 });
        assert_eq!(largest.left(largest.time_of(LIMIT_MAX - 1)), 1);
        let fastest = policy(LIMIT_MAX, Duration::from_millis(1), 1);
        assert_eq!(fastest.time_of(1), Owed { micros: 0, parts: 1_000 });
    }

    #[test]
    fn what_is_left_and_how_long_it_takes_are_told_on_the_safe_side() {
        let thirds = policy(3, Duration::from_secs(1), 3);
        let owed = thirds.time_of(2);
        assert_eq!((thirds.left(owed), thirds.left(Owed::default())), (1, 3));
        assert_eq!(thirds.left(Owed { micros: 0, parts: 1 }), 2, "a part of one is none");
        assert_eq!(
            (thirds.wait(owed, 1), thirds.wait(owed, 2)),
            (Duration::ZERO, Duration::from_millis(334))
        );
        assert_eq!(thirds.reset(owed), Duration::from_millis(667));
    }

    #[test]
    fn numbers_out_of_bounds_make_no_policy() {
        let second = Duration::from_secs(1);
        for (limit, per, burst) in [
            (0, second, 1),
            (1, second, 0),
            (LIMIT_MAX + 1, second, 1),
            (1, second, LIMIT_MAX + 1),
            (1, Duration::ZERO, 1),
            (1, Duration::from_micros(999), 1),
            (1, BURST_TIME_MAX + Duration::from_millis(1), 1),
            (1, BURST_TIME_MAX, 2),
            (1, second, 31_536_001),
        ] {
            assert_eq!(LimitPolicy::new(limit, per, burst), None, "{limit} {per:?} {burst}");
        }
        assert!(LimitPolicy::new(1, second, 31_536_000).is_some());
    }
}
