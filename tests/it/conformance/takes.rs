//! Limits of applications.

use std::time::Duration;

use tidemill::proto::LimitName;
use tidemill::storage::{LIMIT_POLICIES_MAX, LimitPolicy, Owed, StorageError, Take, TakeKind, Taken};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::support::dice::Dice;
use crate::support::eventually;
use crate::support::ground::Ground;

const HOUR: Duration = Duration::from_hours(1);

fn policy(limit: u32, per: Duration, burst: u32) -> LimitPolicy {
    LimitPolicy::new(limit, per, burst).expect("the numbers are within bounds")
}

fn take(name: &str, policies: &[LimitPolicy], cost: u32) -> Take {
    let name = LimitName::parse(name).expect("a name");
    Take { name, policies: policies.to_vec(), cost, kind: TakeKind::Take }
}

async fn done(ground: &Ground, take: &Take) -> Taken {
    ground.storage.takes.take(take).await.expect("it answers")
}

pub(super) async fn however_many_take_no_more_passes_than_a_burst(ground: &Ground) {
    let of_all = take("all", &[policy(1, HOUR, 300)], 1);
    let mut taking = JoinSet::new();
    for _ in 0..20 {
        let (storage, of_all) = (ground.storage.clone(), of_all.clone());
        taking.spawn(async move {
            let mut passed = 0;
            loop {
                let taken = storage.takes.take(&of_all).await.expect("it answers");
                if !taken.allowed {
                    assert_eq!(taken.remaining(&of_all), 0);
                    let wait = taken.retry_after(&of_all);
                    assert!(wait > HOUR * 9 / 10 && wait <= HOUR, "{wait:?}");
                    return passed;
                }
                passed += 1;
            }
        });
    }
    assert_eq!(taking.join_all().await.iter().sum::<u32>(), 300);
    assert!(done(ground, &take("other", &[policy(1, HOUR, 300)], 300)).await.allowed, "another has its own");
    assert!(done(ground, &take("all", &[policy(1, HOUR, 299)], 299)).await.allowed, "so has another policy");
}

pub(super) async fn of_several_policies_all_are_charged_or_none(ground: &Ground) {
    let (wide, narrow) = (policy(1, HOUR, 10), policy(1, HOUR, 2));
    for left in [1, 0] {
        let taken = done(ground, &take("both", &[wide, narrow], 1)).await;
        assert!(taken.allowed);
        assert_eq!(taken.remaining(&take("both", &[wide, narrow], 1)), left, "the least");
    }
    for _ in 0..20 {
        assert!(!done(ground, &take("both", &[wide, narrow], 1)).await.allowed);
    }
    let alone = take("both", &[wide], 8);
    assert!(done(ground, &alone).await.allowed, "what was refused was not charged");
    assert!(!done(ground, &take("both", &[wide], 1)).await.allowed);
}

pub(super) async fn what_is_given_back_is_there_again_and_no_more_than_a_burst(ground: &Ground) {
    let one = take("back", &[policy(1, HOUR, 5), policy(2, HOUR, 6)], 4);
    let refund = |cost: u32| Take { kind: TakeKind::Refund, cost, ..one.clone() };
    assert!(done(ground, &one).await.allowed && !done(ground, &one).await.allowed);
    let back = done(ground, &refund(3)).await;
    assert_eq!((back.allowed, back.remaining(&one)), (true, 4));
    for _ in 0..3 {
        let back = done(ground, &refund(5)).await;
        assert_eq!((back.remaining(&one), back.reset(&one)), (5, Duration::ZERO), "never more than a burst");
    }
    assert!(done(ground, &Take { cost: 5, ..one.clone() }).await.allowed);
    assert!(!done(ground, &Take { cost: 1, ..one.clone() }).await.allowed);
}

pub(super) async fn a_look_takes_nothing(ground: &Ground) {
    let one = take("look", &[policy(1, HOUR, 3)], 2);
    let look = Take { kind: TakeKind::Peek, ..one.clone() };
    for _ in 0..5 {
        let seen = done(ground, &look).await;
        assert_eq!((seen.allowed, seen.remaining(&look)), (true, 3));
    }
    assert!(done(ground, &one).await.allowed);
    let seen = done(ground, &look).await;
    assert_eq!((seen.allowed, seen.remaining(&look)), (false, 1));
    assert!(seen.retry_after(&look) > HOUR * 9 / 10);
}

pub(super) async fn who_waits_as_long_as_it_is_told_passes(ground: &Ground) {
    let one = take("wait", &[policy(5, Duration::from_secs(1), 2)], 2);
    let began = Instant::now();
    for _ in 0..4 {
        loop {
            let taken = done(ground, &one).await;
            if taken.allowed {
                break;
            }
            let wait = taken.retry_after(&one);
            assert!(wait <= Duration::from_millis(400), "{wait:?}");
            tokio::time::sleep(wait).await;
            // Of the clock of the server and that of this process one may be a little faster.
            tokio::time::sleep(Duration::from_millis(2)).await;
            let taken = done(ground, &Take { kind: TakeKind::Peek, ..one.clone() }).await;
            assert!(taken.allowed, "{taken:?}");
        }
    }
    // A burst of 2, and then 5 in a second.
    assert!(began.elapsed() >= Duration::from_millis(1_195), "{:?}", began.elapsed());
}

/// Adds and compares by the model: in parts of a microsecond, as one number.
struct Model {
    policy: LimitPolicy,
    owed: u128,
}

impl Model {
    fn parts(&self, cost: u32) -> u128 {
        u128::from(cost) * u128::from(self.policy.per_ms()) * 1_000
    }

    fn pass(&mut self, micros: u64) {
        self.owed = self.owed.saturating_sub(u128::from(micros) * u128::from(self.policy.limit()));
    }

    fn fits(&self, cost: u32) -> bool {
        self.owed + self.parts(cost) <= self.parts(self.policy.burst())
    }

    fn told(&self) -> Owed {
        let limit = u128::from(self.policy.limit());
        let micros = u64::try_from(self.owed / limit).expect("it is bounded");
        Owed { micros, parts: u32::try_from(self.owed % limit).expect("it is a remainder") }
    }
}

/// One policy is never full and never empty: by what it owes it is known how much time has passed between two takes, to
/// the microsecond, and all others must owe exactly what the algorithm says.
pub(super) async fn what_is_owed_is_exact_to_the_part(ground: &Ground) {
    let mut dice = Dice::from_seed(18);
    let mut number = |max: u32| u32::try_from(dice.roll(u64::from(max))).expect("it is below") + 1;
    for round in 0..40 {
        let clock = policy(1, Duration::from_secs(1), 31_000_000);
        let mut policies = vec![clock];
        while policies.len() < 5 {
            // Of every size: the number of digits is chosen first.
            let mut any = |digits: u32| {
                let digits = number(digits) - 1;
                number(10_u32.pow(digits).saturating_mul(9).max(1)).min(1_000_000_000)
            };
            let (limit, per, burst) = (any(10), Duration::from_millis(u64::from(any(10))), any(10));
            policies.extend(LimitPolicy::new(limit, per, burst));
        }
        let least = policies.iter().map(LimitPolicy::burst).min().expect("there are some");
        let mut models: Vec<_> = policies.iter().map(|policy| Model { policy: *policy, owed: 0 }).collect();
        let name = format!("exact-{round}");
        // The clock is wound up.
        let wind = Take { name: LimitName::parse(&name).expect("a name"), ..take("x", &[clock], 1_000_000) };
        let mut clock_owed = done(ground, &wind).await.owed[0].micros;
        models[0].owed = u128::from(clock_owed);
        for _ in 0..25 {
            let cost = number(least.min(100_000));
            let kind = [TakeKind::Take, TakeKind::Take, TakeKind::Peek, TakeKind::Refund]
                [usize::try_from(number(4)).expect("small") - 1];
            let one = Take { kind, ..take(&name, &policies, cost) };
            let taken = done(ground, &one).await;
            let charged = u64::from(cost) * 1_000_000;
            // What was owed when the take was made.
            let was = match kind {
                TakeKind::Take if taken.allowed => taken.owed[0].micros - charged,
                TakeKind::Take | TakeKind::Peek => taken.owed[0].micros,
                TakeKind::Refund => taken.owed[0].micros + charged,
            };
            for model in &mut models {
                model.pass(clock_owed - was);
            }
            let fits = models.iter().all(|model| model.fits(cost));
            assert_eq!(taken.allowed, fits || kind == TakeKind::Refund, "{one:?} {taken:?}");
            for model in &mut models {
                let parts = model.parts(cost);
                match kind {
                    TakeKind::Take if fits => model.owed += parts,
                    TakeKind::Refund => model.owed = model.owed.saturating_sub(parts),
                    TakeKind::Take | TakeKind::Peek => {}
                }
            }
            let told: Vec<_> = models.iter().map(Model::told).collect();
            assert_eq!(taken.owed, told, "{one:?}");
            clock_owed = taken.owed[0].micros;
            // What is given back next is at most 100,000 seconds.
            if clock_owed < 200_000_000_000 {
                break;
            }
        }
    }
}

pub(super) async fn a_limit_has_a_bound_of_policies(ground: &Ground) {
    let of = |burst: usize| policy(1, HOUR, u32::try_from(burst).expect("small"));
    for burst in 1..=LIMIT_POLICIES_MAX {
        assert!(done(ground, &take("many", &[of(burst)], 1)).await.allowed);
    }
    let more = take("many", &[of(LIMIT_POLICIES_MAX + 1)], 1);
    let refused = ground.storage.takes.take(&more).await;
    assert!(matches!(refused, Err(StorageError::PoliciesLimit)), "{refused:?}");
    assert!(
        done(ground, &take("many", &[of(LIMIT_POLICIES_MAX)], 1)).await.allowed,
        "those that are known go on"
    );
    let back = Take { kind: TakeKind::Refund, ..take("many", &[of(1)], 1) };
    assert!(done(ground, &back).await.allowed);
    assert!(done(ground, &more).await.allowed, "one was given back");
}

pub(super) async fn nothing_is_left_of_limits_that_are_over(ground: &Ground) {
    let size = async || ground.server().command(&["DBSIZE"]).await;
    let before = size().await;
    let short = policy(1_000, Duration::from_millis(50), 1);
    let mut taking = JoinSet::new();
    for worker in 0..50 {
        let storage = ground.storage.clone();
        taking.spawn(async move {
            for number in 0..2_000 {
                let name = format!("over-{worker}-{number}");
                let taken = storage
                    .takes
                    .take(&take(&name, &[short, policy(1, Duration::from_millis(500), 1)], 1))
                    .await;
                assert!(taken.expect("it answers").allowed);
            }
        });
    }
    taking.join_all().await;
    // The server looks for what has expired by itself, some of it ten times a second.
    eventually(Duration::from_mins(1), async || size().await == before).await;
}

pub(super) async fn a_key_of_another_program_is_not_a_limit(ground: &Ground) {
    let server = ground.server();
    for (name, command) in [
        ("set", vec!["SADD", "tidemill:taken:set", "x"]),
        ("text", vec!["SET", "tidemill:taken:text", "10/1000/10 x y\n"]),
        ("empty", vec!["SET", "tidemill:taken:empty", ""]),
        ("more", vec!["SET", "tidemill:taken:more", "10/1000/10 5 6\nand more"]),
    ] {
        server.command(&command).await;
        for kind in [TakeKind::Take, TakeKind::Peek, TakeKind::Refund] {
            let one = Take { kind, ..take(name, &[policy(10, HOUR, 10)], 1) };
            let refused = ground.storage.takes.take(&one).await;
            let key = format!("tidemill:taken:{name}");
            assert!(
                matches!(&refused, Err(StorageError::ForeignKey(of)) if **of == *key),
                "{name}: {refused:?}"
            );
        }
    }
}
