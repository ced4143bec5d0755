//! What only the memory backend promises of buckets: what keys cost, and that the budget holds. What every backend promises
//! is tested by the conformance suite.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tidemill_proto::{BucketName, KeyName, Timestamp, TopicName};
use tokio::time::Instant;

use super::super::super::bucket::{Bucket, bytes_of_empty};
use crate::clock::Clock;
use crate::storage::memory::{Memory, MemoryOptions, WhenFull};
use crate::storage::{
    Body, BucketSettings, BucketStore as _, FillAsked, FillToken, Idempotency, KeyChange, KeyChanges,
    KeyCondition, KeyEdit, KeyFill, KeyValue, KeysChanged, MessageStore as _, NewMessage, StorageError,
    StorageLimits, TopicPolicy, TopicStore as _, Upkeep as _,
};

const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);
const MIB: u64 = 1024 * 1024;
const HOUR: Duration = Duration::from_hours(1);

fn setup(bytes_max: u64, when_full: WhenFull) -> (Memory, Clock) {
    let clock = Clock::manual(START);
    let limits = StorageLimits {
        retention: None,
        topics_max: 1_000,
        idempotency_window: Duration::from_mins(10),
        schedules_max: 1_000,
        topic_schedules_max: 1_000,
        buckets_max: 1_000,
    };
    let options = MemoryOptions { limits, bytes_max, keys_bytes_max: MIB, when_full, clock: clock.clone() };
    (Memory::new(options), clock)
}

fn bucket(name: &str) -> BucketName {
    BucketName::parse(name).unwrap()
}

fn put(name: &str, value: &[u8], ttl: Option<Duration>) -> KeyChange {
    let value = KeyValue { bytes: Bytes::copy_from_slice(value), content_type: None };
    change(name, KeyEdit::Put { value, ttl, fresh: None, owner: None })
}

fn change(name: &str, edit: KeyEdit) -> KeyChange {
    KeyChange { key: KeyName::parse(name).unwrap(), condition: KeyCondition::Anything, edit }
}

fn changes(name: &str, changes: Vec<KeyChange>) -> KeyChanges {
    KeyChanges {
        bucket: bucket(name),
        changes,
        idempotency: None,
        fence: None,
        create_bucket: true,
        timestamp: START,
    }
}

async fn make(memory: &Memory, name: &str, all: Vec<KeyChange>) -> Result<(), StorageError> {
    let made = memory.change_keys(changes(name, all)).await?;
    assert!(matches!(made, KeysChanged::Made { .. }), "{made:?}");
    Ok(())
}

fn message(name: &str, payload: Vec<u8>) -> NewMessage {
    NewMessage {
        topic: TopicName::parse(name).unwrap(),
        body: Body { payload: payload.into(), content_type: None, metadata: None, order_key: None },
        timestamp: START,
        expires_at: None,
        idempotency: None,
        expected_last: None,
        unique: None,
        fence: None,
        create_topic: true,
        owner: None,
        policy: TopicPolicy::newest(100_000_000),
    }
}

/// The resident memory of this process.
#[cfg(target_os = "linux")]
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap() * 1024
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_small_key_costs_at_most_300_bytes_with_its_time() {
    const KEYS: u64 = 300_000;
    let (memory, _) = setup(1_024 * MIB, WhenFull::Refuse);
    // The log is full before, so that it grows no more.
    for round in 0..150 {
        make(&memory, "b", (0..100).map(|at| put(&format!("{at:016}"), &[b'1'; 32], None)).collect())
            .await
            .unwrap_or_else(|error| panic!("{round}: {error}"));
    }
    let (resident_before, before) = (resident_bytes(), memory.bytes());
    for part in 0..KEYS / 100 {
        // Not in their order, as names that programs make up come.
        let name = |at: u64| format!("{:016x}", (part * 100 + at).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let batch = (0..100).map(|at| put(&name(at), &[b'1'; 32], Some(HOUR))).collect();
        make(&memory, "b", batch).await.unwrap();
    }
    let resident = resident_bytes().saturating_sub(resident_before) / KEYS;
    let accounted = (memory.bytes() - before) / KEYS;
    eprintln!("a key of 16 bytes with a value of 32: {accounted} accounted, {resident} resident");
    assert!((200..=300).contains(&accounted), "{accounted}");
    assert!(resident <= 300, "{resident}");
}

#[tokio::test]
async fn where_nothing_is_due_looking_costs_nothing() {
    let (memory, clock) = setup(1_024 * MIB, WhenFull::Refuse);
    for part in 0..1_000 {
        let batch = (0..100).map(|at| put(&format!("k-{part}-{at}"), b"1", Some(HOUR))).collect();
        make(&memory, "b", batch).await.unwrap();
    }
    let begin = Instant::now();
    for _ in 0..1_000 {
        assert_eq!(memory.expiring_within(Duration::from_secs(1), 10).await.unwrap(), []);
        let looked = memory.expire_keys(&[bucket("b")]).await.pop().unwrap().unwrap();
        assert_eq!((looked.count, looked.next_in), (0, Some(HOUR)));
    }
    // A look at each key would take minutes.
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    clock.set(START.saturating_add(HOUR));
    let mut expired = 0;
    while let looked = memory.expire_keys(&[bucket("b")]).await.pop().unwrap().unwrap()
        && looked.count > 0
    {
        expired += looked.count;
    }
    assert_eq!((expired, memory.bucket(&bucket("b")).await.unwrap().keys), (100_000, 0));
}

/// Puts keys until there is no room, and returns how many there are.
async fn fill(memory: &Memory, name: &str) -> usize {
    for at in 0.. {
        match make(memory, name, vec![put(&format!("k-{at}"), &[b'1'; 500], None)]).await {
            Ok(()) => assert!(memory.bytes() <= MIB),
            Err(error) => {
                assert!(matches!(error, StorageError::Full(_)), "{error}");
                return at;
            }
        }
    }
    unreachable!("memory is full before")
}

#[tokio::test]
async fn keys_count_against_the_budget_and_take_none_of_each_other() {
    for when_full in [WhenFull::Refuse, WhenFull::TrimLargest] {
        let (memory, _) = setup(MIB, when_full);
        let count = fill(&memory, "b").await;
        // Where the log gives way, the keys have almost everything.
        let expected = if when_full == WhenFull::Refuse { 600..1_000 } else { 1_200..1_500 };
        assert!(expected.contains(&count), "{when_full:?}: {count}");
        let state = memory.bucket(&bucket("b")).await.unwrap();
        assert_eq!((state.keys, state.bytes), (count as u64, count as u64 * 500));
        let refused = make(&memory, "new", vec![put("a", &[b'1'; 5_000], None)]).await;
        assert!(matches!(refused, Err(StorageError::Full(_))), "{refused:?}");
        assert!(matches!(memory.bucket(&bucket("new")).await, Err(StorageError::NoBucket)));
        memory.delete_bucket(&bucket("b")).await.unwrap();
        assert_eq!(memory.bytes(), 0, "everything is given back");
    }
}

#[tokio::test]
async fn fills_count_and_end_with_their_time() {
    let (memory, clock) = setup(MIB, WhenFull::Refuse);
    make(&memory, "b", vec![put("a", b"1", None)]).await.unwrap();
    let before = memory.bytes();
    let asked = |at: usize| FillAsked {
        bucket: bucket("b"),
        key: KeyName::parse(&format!("k-{at}")).unwrap(),
        token: FillToken([0; 16]),
        within: HOUR,
        create_bucket: false,
    };
    let mut begun = 0;
    let refused = loop {
        match memory.fill_key(&asked(begun)).await {
            Ok(fill) => assert_eq!(fill, KeyFill::Granted(None)),
            Err(error) => break error,
        }
        begun += 1;
        assert!(memory.bytes() <= MIB);
    };
    assert!(matches!(refused, StorageError::Full(_)), "{refused}");
    assert!(begun > 1_000 && memory.bytes() > before, "{begun}");
    // Those that are over go as others come, and all of them with a sweep.
    clock.set(START.saturating_add(HOUR));
    for at in 0..begun {
        assert_eq!(memory.fill_key(&asked(at)).await.unwrap(), KeyFill::Granted(None), "{at}");
    }
    clock.set(START.saturating_add(HOUR * 2));
    // Each pass takes a bounded number of them.
    for _ in 0..4 {
        memory.sweep().await.unwrap();
    }
    assert_eq!(memory.bytes(), before);
}

#[tokio::test]
async fn a_fill_for_which_there_is_no_room_makes_no_bucket() {
    let key = KeyName::parse(&"k".repeat(255)).unwrap();
    let needed = bytes_of_empty(&bucket("b")) + Bucket::bytes_of_fill(&key);
    let token = FillToken([0; 16]);
    let asked = FillAsked { bucket: bucket("b"), key, token, within: HOUR, create_bucket: true };
    let (memory, _) = setup(needed as u64 - 1, WhenFull::Refuse);
    let refused = memory.fill_key(&asked).await;
    assert!(matches!(refused, Err(StorageError::Full(_))), "{refused:?}");
    let there = memory.bucket(&bucket("b")).await;
    assert!(matches!(there, Err(StorageError::NoBucket)), "{there:?}");
    let (memory, _) = setup(needed as u64, WhenFull::Refuse);
    assert_eq!(memory.fill_key(&asked).await.unwrap(), KeyFill::Granted(None));
}

#[tokio::test]
async fn messages_give_way_to_keys() {
    let (memory, _) = setup(MIB, WhenFull::TrimLargest);
    for _ in 0..900 {
        memory.append(vec![message("t", vec![b'1'; 1_000])]).await.pop().unwrap().unwrap();
    }
    assert!(fill(&memory, "b").await > 1_000);
    let topic = TopicName::parse("t").unwrap();
    assert!(memory.describe(&topic).await.unwrap().length < 10);
    // What is counted of topics is counted of topics.
    let stats = memory.stats().await.unwrap();
    assert_eq!(stats.total_messages, memory.describe(&topic).await.unwrap().length);
}

#[tokio::test]
async fn what_takes_keys_out_has_room_also_where_there_is_none() {
    for when_full in [WhenFull::Refuse, WhenFull::TrimLargest] {
        let (memory, clock) = setup(MIB, when_full);
        make(&memory, "b", (0..100).map(|at| put(&format!("over-{at}"), b"1", Some(HOUR))).collect())
            .await
            .unwrap();
        let count = fill(&memory, "b").await;
        for at in 0..count / 2 {
            make(&memory, "b", vec![change(&format!("k-{at}"), KeyEdit::Delete)]).await.unwrap();
            assert!(memory.bytes() <= MIB, "{when_full:?}: {at}");
        }
        fill(&memory, "c").await;
        clock.set(START.saturating_add(HOUR));
        let expired = memory.expire_keys(&[bucket("b")]).await.pop().unwrap().unwrap();
        assert_eq!((expired.count, expired.next_in), (100, None));
        assert!(memory.bytes() <= MIB, "{when_full:?}");
        let all = (count / 2..count).map(|at| change(&format!("k-{at}"), KeyEdit::Delete));
        for part in all.collect::<Vec<_>>().chunks(100) {
            make(&memory, "b", part.to_vec()).await.unwrap();
            assert!(memory.bytes() <= MIB, "{when_full:?}");
        }
        assert_eq!(memory.bucket(&bucket("b")).await.unwrap().keys, 0);
    }
}

#[tokio::test]
async fn answers_that_are_remembered_have_their_own_budget_and_end() {
    let (memory, clock) = setup(64 * MIB, WhenFull::Refuse);
    let once = |number: usize| {
        let key = format!("key {number}").into();
        let all = (0..100).map(|at| put(&format!("k-{at}"), b"1", None)).collect();
        KeyChanges { idempotency: Some(Idempotency { key, fingerprint: [0; 16] }), ..changes("b", all) }
    };
    let mut kept = 0;
    let refused = loop {
        match memory.change_keys(once(kept)).await {
            Ok(_) => kept += 1,
            Err(error) => break error,
        }
        assert!(memory.keys_bytes() <= MIB);
    };
    assert!(matches!(refused, StorageError::KeysFull(_)), "{refused}");
    // An answer to a hundred changes is some five thousand bytes.
    assert!((150..250).contains(&kept), "{kept}");
    make(&memory, "b", vec![put("other", b"1", None)]).await.expect("without a key there is room");
    clock.set(START.saturating_add(Duration::from_mins(10)));
    let made = memory.change_keys(once(0)).await.expect("those that have ended make room");
    assert!(matches!(made, KeysChanged::Made { replayed: false, .. }), "{made:?}");
    clock.set(START.saturating_add(Duration::from_mins(20)));
    memory.sweep().await.unwrap();
    assert_eq!(memory.keys_bytes(), 0, "a sweep forgets all that have ended");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_changes_keep_the_books_straight() {
    let (memory, _) = setup(MIB, WhenFull::TrimLargest);
    let memory = Arc::new(memory);
    let mut tasks = tokio::task::JoinSet::new();
    for worker in 0..8_usize {
        let memory = memory.clone();
        tasks.spawn(async move {
            for round in 0..500_usize {
                let name = format!("b{}", (worker + round) % 3);
                let key = format!("k-{}", round * 7 % 60);
                let owner = KeyName::parse("ann").unwrap();
                match round % 25 {
                    3 => drop(memory.delete_bucket(&bucket(&name)).await),
                    5 => drop(
                        memory
                            .put_bucket(
                                &bucket(&name),
                                BucketSettings { history: 4, ..BucketSettings::default() },
                            )
                            .await,
                    ),
                    7 => drop(make(&memory, &name, vec![change(&key, KeyEdit::Delete)]).await),
                    9 => drop(memory.revoke_keys(&bucket(&name), &owner, START).await),
                    11 => drop(memory.append(vec![message("t", vec![b'1'; 3_000])]).await),
                    13 => drop(
                        memory
                            .touch_key(&bucket(&name), &KeyName::parse(&key).unwrap(), Some(HOUR), false)
                            .await,
                    ),
                    15 => {
                        let key = format!("key {worker} {round}").into();
                        let idempotency = Some(Idempotency { key, fingerprint: [0; 16] });
                        let all = changes(&name, vec![put("once", b"1", Some(HOUR))]);
                        drop(memory.change_keys(KeyChanges { idempotency, ..all }).await);
                    }
                    _ => {
                        let value = KeyValue {
                            bytes: vec![b'1'; round * 13 % 4_000].into(),
                            content_type: Some("text/plain".into()),
                        };
                        let owner = (round % 2 == 0).then(|| owner.clone());
                        drop(
                            make(
                                &memory,
                                &name,
                                vec![change(&key, KeyEdit::Put { value, ttl: None, fresh: None, owner })],
                            )
                            .await,
                        );
                    }
                }
                assert!(memory.bytes() <= MIB);
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    for name in memory.bucket_names(None, 10).await.unwrap() {
        memory.delete_bucket(&name).await.unwrap();
    }
    let topic = TopicName::parse("t").unwrap();
    drop(memory.delete(&topic).await);
    assert_eq!((memory.bytes(), memory.keys_bytes()), (0, 0));
    assert_eq!(memory.expiring_within(HOUR * 2, 10).await.unwrap(), []);
    assert_eq!(memory.stats().await.unwrap().total_messages, 0);
}
