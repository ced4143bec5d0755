//! What is owed of limits, for whoever counts in this process.

use std::collections::HashMap;

use parking_lot::Mutex;
use tidemill_proto::LimitName;

use super::{LIMIT_POLICIES_MAX, LimitPolicy, Owed, Take, TakeKind, Taken};
use crate::storage::StorageError;

/// Limits that are there before it is looked for some of which nothing is owed.
const CLEARED_AT_MIN: usize = 1_024;
/// How long a table that stays full is not looked through again, in microseconds.
const CLEARED_EVERY_MICROS: u64 = 1_000_000;

/// The limits of which something is owed.
#[derive(Debug)]
pub(crate) struct TakeTable {
    limits: Mutex<Limits>,
    max: usize,
}

#[derive(Debug, Default)]
struct Limits {
    of: HashMap<LimitName, Counted>,
    /// How many there may be before it is looked again: twice as many as were left.
    cleared_at: usize,
    /// When it was looked last, in microseconds.
    cleared_micros: Option<u64>,
}

/// One limit: of each policy when all is there again, in microseconds of the clock.
#[derive(Debug, Default)]
struct Counted(Vec<(LimitPolicy, Owed)>);

impl Counted {
    /// Forgets policies of which nothing is owed, and returns whether some are left.
    fn is_owed(&mut self, now: Owed) -> bool {
        self.0.retain(|(_, until)| *until > now);
        !self.0.is_empty()
    }

    fn owed(&self, policy: &LimitPolicy, now: Owed) -> Owed {
        let until = self.0.iter().find(|(of, _)| of == policy).map_or(now, |(_, until)| *until);
        // More is owed where the clock went back.
        policy.difference(until, now).min(policy.time_of(policy.burst()))
    }
}

impl TakeTable {
    /// Returns a table of at most so many limits.
    pub(crate) fn new(max: usize) -> Self {
        Self { limits: Mutex::default(), max }
    }

    /// Takes of a limit at this time, looks at it, or gives back to it.
    ///
    /// # Errors
    /// `Full`, `PoliciesLimit`: nothing was taken.
    pub(crate) fn take(&self, take: &Take, now_micros: u64) -> Result<Taken, StorageError> {
        let Take { name, policies, cost, kind } = take;
        let now = Owed { micros: now_micros, parts: 0 };
        let mut limits = self.limits.lock();
        let nothing = Counted::default();
        let counted = limits.of.get(name).unwrap_or(&nothing);
        let before: Vec<Owed> = policies.iter().map(|policy| counted.owed(policy, now)).collect();
        let with_cost = |policy: &LimitPolicy, owed: Owed| policy.sum(owed, policy.time_of(*cost));
        let fits =
            |policy: &LimitPolicy, owed: Owed| with_cost(policy, owed) <= policy.time_of(policy.burst());
        let allowed = policies.iter().zip(&before).all(|(policy, owed)| fits(policy, *owed));
        let after = |policy: &LimitPolicy, owed: Owed| match kind {
            TakeKind::Refund => policy.difference(owed, policy.time_of(*cost)),
            TakeKind::Take if allowed => with_cost(policy, owed),
            TakeKind::Take | TakeKind::Peek => owed,
        };
        let owed: Vec<Owed> =
            policies.iter().zip(&before).map(|(policy, owed)| after(policy, *owed)).collect();
        let allowed = allowed || *kind == TakeKind::Refund;
        if *kind == TakeKind::Refund || (*kind == TakeKind::Take && allowed) {
            limits.put(name, policies, &owed, now, self.max)?;
        }
        Ok(Taken { allowed, owed })
    }

    /// Forgets limits of which nothing is owed at this time.
    pub(crate) fn clear(&self, now_micros: u64) {
        self.limits.lock().clear(Owed { micros: now_micros, parts: 0 });
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.limits.lock().of.len()
    }
}

impl Limits {
    fn clear(&mut self, now: Owed) {
        self.of.retain(|_, counted| counted.is_owed(now));
        self.cleared_at = self.of.len() * 2;
        self.cleared_micros = Some(now.micros);
        // What many have taken is not kept for few.
        if self.of.capacity() > 4 * self.of.len().max(CLEARED_AT_MIN) {
            self.of.shrink_to(2 * self.of.len());
        }
    }

    /// Writes what is owed of policies of a limit from now on.
    fn put(
        &mut self,
        name: &LimitName,
        policies: &[LimitPolicy],
        owed: &[Owed],
        now: Owed,
        max: usize,
    ) -> Result<(), StorageError> {
        if !self.of.contains_key(name) {
            let is_soon = |last: u64| now.micros.abs_diff(last) < CLEARED_EVERY_MICROS;
            let is_many = self.of.len() >= self.cleared_at.max(CLEARED_AT_MIN).min(max);
            if is_many && !(self.of.len() >= max && self.cleared_micros.is_some_and(is_soon)) {
                self.clear(now);
            }
            if self.of.len() >= max {
                return Err(StorageError::Full(format!("something is owed of {max} limits").into()));
            }
            self.of.insert(name.clone(), Counted::default());
        }
        let Some(counted) = self.of.get_mut(name) else { return Ok(()) };
        counted.is_owed(now);
        let is_named = |(of, _): &&(LimitPolicy, Owed)| policies.contains(of);
        let others = counted.0.len() - counted.0.iter().filter(is_named).count();
        let result = if others + policies.len() > LIMIT_POLICIES_MAX {
            Err(StorageError::PoliciesLimit)
        } else {
            counted.0.retain(|(of, _)| !policies.contains(of));
            let until = |(policy, owed): (&LimitPolicy, &Owed)| (*policy, policy.sum(now, *owed));
            counted.0.extend(policies.iter().zip(owed).map(until));
            Ok(())
        };
        if !counted.is_owed(now) {
            self.of.remove(name);
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn take(name: &str, limit: u32) -> Take {
        let policy = LimitPolicy::new(limit, Duration::from_mins(1), limit).expect("a policy");
        let name = LimitName::parse(name).expect("a name");
        Take { name, policies: vec![policy], cost: 1, kind: TakeKind::Take }
    }

    #[test]
    fn limits_of_which_nothing_is_owed_are_forgotten() {
        let table = TakeTable::new(1_000_000);
        for number in 0..100_000_u64 {
            table.take(&take(&format!("l{number}"), 10), number * 100_000).expect("there is room");
        }
        // 60 of them count at one time.
        assert!(table.len() <= 2 * CLEARED_AT_MIN, "{}", table.len());
        let last = take("l99999", 10);
        table.take(&Take { kind: TakeKind::Refund, ..last }, 99_999 * 100_000).expect("it is there");
        assert!(!table.limits.lock().of.contains_key("l99999"), "what is given back is not owed");
    }

    #[test]
    fn a_table_has_a_bound_and_so_has_a_limit() {
        let table = TakeTable::new(3);
        for name in ["a", "b", "c", "a"] {
            assert!(table.take(&take(name, 10), 1).expect("there is room").allowed);
        }
        assert!(matches!(table.take(&take("d", 10), 1), Err(StorageError::Full(_))));
        assert!(table.take(&take("d", 10), 6_000_002 * 2).expect("there is room again").allowed);
        let table = TakeTable::new(3);
        for limit in 1..=64 {
            assert!(table.take(&take("a", limit), 1).expect("there is room").allowed);
        }
        assert!(matches!(table.take(&take("a", 65), 1), Err(StorageError::PoliciesLimit)));
        assert!(table.take(&take("a", 64), 1).expect("it is known").allowed);
    }

    #[test]
    fn a_clock_that_goes_back_locks_nobody_out_for_longer_than_a_burst() {
        let table = TakeTable::new(3);
        let one = take("a", 1);
        assert!(table.take(&one, 10_000_000_000).expect("there is room").allowed);
        let later = table.take(&one, 1_000_000).expect("it answers");
        assert!(!later.allowed);
        assert_eq!(later.retry_after(&one), Duration::from_mins(1));
    }
}
