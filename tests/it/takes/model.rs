//! Limits against the algorithm: whole numbers, a clock that a test turns, and every order of what may be done.

use std::collections::HashMap;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tidemill::clock::Clock;
use tidemill::proto::{LimitName, Timestamp};
use tidemill::storage::{LimitPolicy, Take, TakeKind};

use crate::support::ground::Ground;
use crate::support::length;

/// The numbers of a policy: a limit, milliseconds, and a burst.
type Policy = (u32, u64, u32);

/// What is done with a limit that has some of the policies.
#[derive(Clone, Debug)]
enum Operation {
    Pass(u64),
    Take { kind: TakeKind, name: bool, policies: Vec<usize>, cost: u32 },
}

/// The algorithm in one number: the theoretical arrival time in parts of a millisecond, of which it has as many as the
/// limit.
#[derive(Default)]
struct Model(HashMap<(bool, usize), u128>);

impl Model {
    fn owed(&self, name: bool, at: usize, (limit, ..): Policy, now_ms: u64) -> u128 {
        let until = self.0.get(&(name, at)).copied().unwrap_or(0);
        until.saturating_sub(u128::from(now_ms) * u128::from(limit))
    }

    fn set(&mut self, name: bool, at: usize, (limit, ..): Policy, now_ms: u64, owed: u128) {
        self.0.insert((name, at), u128::from(now_ms) * u128::from(limit) + owed);
    }
}

fn policy() -> impl Strategy<Value = Policy> {
    let number = || prop_oneof![1_u32..10, 1_u32..1_000, 1_u32..=1_000_000_000];
    let per = prop_oneof![1_u64..100, 1_u64..100_000, 1_u64..=31_536_000_000];
    let fits = |(limit, per, burst): &Policy| {
        LimitPolicy::new(*limit, Duration::from_millis(*per), *burst).is_some()
    };
    (number(), per, number()).prop_filter("it would take more than a year", fits)
}

fn operation() -> impl Strategy<Value = Operation> {
    let kind = prop_oneof![
        4 => Just(TakeKind::Take),
        1 => Just(TakeKind::Peek),
        1 => Just(TakeKind::Refund),
    ];
    let pass = prop_oneof![0_u64..20, 0_u64..5_000, 0_u64..100_000_000];
    let cost = prop_oneof![1_u32..5, 1_u32..1_000_000];
    prop_oneof![
        1 => pass.prop_map(Operation::Pass),
        3 => (kind, any::<bool>(), prop::sample::subsequence(vec![0_usize, 1, 2, 3], 1..=4), cost)
            .prop_map(|(kind, name, policies, cost)| Operation::Take { kind, name, policies, cost }),
    ]
}

async fn check(policies: &[Policy], operations: &[Operation]) {
    let mut now_ms = 1_770_000_000_000;
    let clock = Clock::manual(Timestamp::from_millis(now_ms));
    let ground = Ground::memory_at(clock.clone());
    let mut model = Model::default();
    for operation in operations {
        let (kind, name, chosen, cost) = match operation {
            Operation::Pass(ms) => {
                now_ms += ms;
                clock.set(Timestamp::from_millis(now_ms));
                continue;
            }
            Operation::Take { kind, name, policies, cost } => (*kind, *name, policies, *cost),
        };
        let of: Vec<Policy> = chosen.iter().map(|at| policies[*at]).collect();
        let cost = of.iter().map(|(.., burst)| *burst).min().map_or(1, |least| cost.min(least));
        let named = |(limit, per, burst): &Policy| {
            LimitPolicy::new(*limit, Duration::from_millis(*per), *burst).expect("it was filtered")
        };
        let take = Take {
            name: LimitName::parse(if name { "a" } else { "b" }).expect("a name"),
            policies: of.iter().map(named).collect(),
            cost,
            kind,
        };
        let taken = ground.storage.takes.take(&take).await.expect("it answers");
        let parts = |count: u32, (_, per, _): Policy| u128::from(count) * u128::from(per);
        let owed = |model: &Model| -> Vec<u128> {
            chosen.iter().zip(&of).map(|(at, policy)| model.owed(name, *at, *policy, now_ms)).collect()
        };
        let before = owed(&model);
        let fits = before
            .iter()
            .zip(&of)
            .all(|(owed, policy)| owed + parts(cost, *policy) <= parts(policy.2, *policy));
        for ((at, policy), owed) in chosen.iter().zip(&of).zip(&before) {
            match kind {
                TakeKind::Take if fits => model.set(name, *at, *policy, now_ms, owed + parts(cost, *policy)),
                TakeKind::Refund => {
                    model.set(name, *at, *policy, now_ms, owed.saturating_sub(parts(cost, *policy)));
                }
                TakeKind::Take | TakeKind::Peek => {}
            }
        }
        assert_eq!(taken.allowed, fits || kind == TakeKind::Refund, "{take:?}");
        let after = owed(&model);
        let left = after
            .iter()
            .zip(&of)
            .map(|(owed, (_, per, burst))| u128::from(*burst) - owed.div_ceil(u128::from(*per)));
        assert_eq!(Some(u128::from(taken.remaining(&take))), left.min(), "{take:?}");
        let reset = after.iter().zip(&of).map(|(owed, (limit, ..))| owed.div_ceil(u128::from(*limit)));
        assert_eq!(Some(taken.reset(&take).as_millis()), reset.max(), "{take:?}");
        let wait = before.iter().zip(&of).map(|(owed, policy)| {
            (owed + parts(cost, *policy))
                .saturating_sub(parts(policy.2, *policy))
                .div_ceil(u128::from(policy.0))
        });
        let wait = if taken.allowed { 0 } else { wait.max().unwrap_or(0) };
        assert_eq!(taken.retry_after(&take).as_millis(), wait, "{take:?}");
    }
}

#[test]
fn memory_does_what_the_algorithm_says() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let config = Config { cases: length::pick(500, 20_000), failure_persistence: None, ..Config::default() };
    let distinct = vec(policy(), 4).prop_filter("two are the same", |all| {
        all.iter().enumerate().all(|(at, one)| !all[..at].contains(one))
    });
    TestRunner::new(config)
        .run(&(distinct, vec(operation(), 1..60)), |(policies, operations)| {
            runtime.block_on(check(&policies, &operations));
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
}
