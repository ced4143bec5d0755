//! K5: what has come and gone is not there any more.

use tidemill_proto::{BucketName, LimitName, TopicName};

use super::super::{MemoryOptions, WhenFull};
use super::*;
use crate::clock::Clock;
use crate::storage::{LimitPolicy, StorageLimits, Take, TakeKind, TakeStore as _, Upkeep as _};

fn asks(number: u64, waits: bool) -> LockAsked {
    let mut secret = LockSecret::default();
    secret[..8].copy_from_slice(&number.to_le_bytes());
    secret[15] = u8::from(waits);
    let holder = ConsumerName::parse("ann").expect("a name");
    LockAsked { secret, holder, ttl: Duration::from_mins(1), waits, again: false, key: None }
}

#[tokio::test]
async fn a_sweep_leaves_nothing_of_locks_and_limits_that_have_gone() {
    const MANY: u64 = 20_000;
    let clock = Clock::manual(Timestamp::from_millis(1_700_000_000_000));
    let limits = StorageLimits {
        retention: None,
        topics_max: 100,
        idempotency_window: Duration::from_mins(10),
        schedules_max: 100,
        topic_schedules_max: 100,
        buckets_max: 100,
    };
    let memory = Memory::new(MemoryOptions {
        limits,
        bytes_max: 1 << 20,
        keys_bytes_max: 1 << 20,
        when_full: WhenFull::Refuse,
        clock: clock.clone(),
    });
    let id = |name: String, guards| LockId { name: LockName::parse(&name).expect("a name"), guards };
    let policy = LimitPolicy::new(10, Duration::from_mins(1), 10).expect("within bounds");
    for number in 0..MANY {
        let guards = (number % 2 == 0)
            .then(|| Guarded::Topic(TopicName::parse(&format!("t{number}")).expect("a name")));
        let lock = id(format!("l{number}"), guards);
        let asked = asks(number, false);
        memory.acquire_lock(&lock, &asked).await.expect("it is free");
        if number % 3 == 1 {
            memory.acquire_lock(&lock, &asks(number, true)).await.expect("it has a place");
        }
        if number % 3 != 2 {
            assert!(memory.release_lock(&lock, asked.secret).await.expect("it answers"));
        }
        let name = LimitName::parse(&format!("l{number}")).expect("a name");
        let take = Take { name, policies: vec![policy], cost: 1, kind: TakeKind::Take };
        assert!(memory.take(&take).await.expect("there is room").allowed);
    }
    let kept = || memory.locks.0.lock().locks.len();
    assert!(kept() > 10_000, "those that nobody has released");
    memory.sweep().await.expect("it sweeps");
    assert!(kept() > 10_000 && memory.takes.len() == 20_000, "they are not over");
    clock.set(Timestamp::from_millis(1_700_000_000_000 + 61_000));
    memory.sweep().await.expect("it sweeps");
    assert_eq!((kept(), memory.takes.len()), (0, 0));
}

#[tokio::test]
async fn fences_that_were_seen_are_remembered_for_their_time() {
    let locks = Locks::default();
    let start = Timestamp::from_millis(1_700_000_000_000);
    let fence = |ms| Fence { lock: LockName::parse("l").expect("a name"), fence: MessageId::new(ms, 0) };
    let written = Guarded::Bucket(BucketName::parse("b").expect("a name"));
    locks.still().note(&written, &fence(7), start);
    assert!(matches!(locks.still().check(&written, &fence(6), start), Err(StorageError::Fenced(Some(_)))));
    let later = start.saturating_add(FENCE_KEPT);
    assert!(locks.still().check(&written, &fence(6), later).is_ok());
    locks.clear(later);
    assert!(locks.0.lock().seen.is_empty());
}
