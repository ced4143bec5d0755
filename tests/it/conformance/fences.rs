//! Fences: they grow whatever ends a lock, and what is written under an old one is refused, with nothing done.

use tidemill::proto::locks::{Fence, Guarded};
use tidemill::proto::{BucketName, LockName, MessageId};
use tidemill::storage::{
    Idempotency, KeyChange, KeyChanges, KeyCondition, KeyEdit, KeyRefusal, KeysChanged, LockAnswer, LockId,
    LockSeen, NewMessage, PLACE_KEPT, StorageError,
};

use super::buckets::{bucket, change, changes, delete, get, put, text, where_it};
use super::locks::{LONG, SHORT, acquire, asks, granted, lock, refused, release, seen};
use crate::support::eventually;
use crate::support::ground::{Ground, SOON, append, json, message};

fn shown(lock: &LockId, fence: MessageId) -> Fence {
    Fence { lock: lock.name.clone(), fence }
}

fn fenced(message: NewMessage, lock: &LockId, fence: MessageId) -> NewMessage {
    NewMessage { fence: Some(shown(lock, fence)), ..message }
}

/// Returns a lock that guards a bucket.
fn guarding(bucket: &BucketName) -> LockId {
    LockId { guards: Some(Guarded::Bucket(bucket.clone())), ..lock() }
}

/// Changes keys with a fence.
async fn write(
    ground: &Ground,
    bucket: &BucketName,
    (lock, fence): (&LockId, MessageId),
    all: Vec<KeyChange>,
) -> Result<KeysChanged, StorageError> {
    let all = KeyChanges { fence: Some(shown(lock, fence)), ..changes(&ground.storage, bucket, all) };
    ground.storage.buckets.change_keys(all).await
}

#[track_caller]
fn is_made(answer: &Result<KeysChanged, StorageError>) {
    assert!(matches!(answer, Ok(KeysChanged::Made { replayed: false, .. })), "{answer:?}");
}

/// Checks that nothing was done because of a fence, and against which.
#[track_caller]
fn is_fenced<T: std::fmt::Debug>(answer: &Result<T, StorageError>, against: Option<MessageId>) {
    assert!(matches!(answer, Err(StorageError::Fenced(of)) if *of == against), "{answer:?}");
}

async fn until_nobody_holds(ground: &Ground, lock: &LockId) {
    eventually(SOON, async || seen(ground, lock).await.held.is_none()).await;
}

async fn is_there(ground: &Ground, bucket: &BucketName) -> bool {
    match ground.storage.buckets.bucket(bucket).await {
        Ok(_) => true,
        Err(StorageError::NoBucket) => false,
        Err(error) => panic!("{error:?}"),
    }
}

pub(super) async fn a_lock_that_guards_a_bucket_lets_its_holder_alone_change_its_keys(ground: &Ground) {
    let bucket = bucket(ground);
    let lock = guarding(&bucket);
    let old = granted(ground, &lock, &asks("ann", SHORT, false)).await;
    until_nobody_holds(ground, &lock).await;
    // Nobody has it since: she is late all the same, and makes no bucket.
    is_fenced(&write(ground, &bucket, (&lock, old), vec![put("a", "1")]).await, None);
    assert!(!is_there(ground, &bucket).await);
    let new = granted(ground, &lock, &asks("bob", LONG, false)).await;
    is_fenced(&write(ground, &bucket, (&lock, old), vec![put("a", "1")]).await, Some(new));
    assert!(!is_there(ground, &bucket).await);
    let add = || change("n", KeyEdit::Increment { by: 1, min: None, max: None, ttl: None });
    is_made(&write(ground, &bucket, (&lock, new), vec![put("a", "1"), put("b", "1"), add()]).await);
    let before = get(&ground.storage, &bucket, "a").await;
    for late in [put("a", "2"), delete("a"), add(), put("c", "1")] {
        is_fenced(&write(ground, &bucket, (&lock, old), vec![put("d", "1"), late]).await, Some(new));
    }
    assert_eq!(get(&ground.storage, &bucket, "a").await, before);
    assert_eq!(text(&ground.storage, &bucket, "n").await.as_deref(), Some("1"));
    assert_eq!(get(&ground.storage, &bucket, "d").await, None);
    is_made(&write(ground, &bucket, (&lock, new), vec![put("a", "2"), delete("b"), add()]).await);
    // The fence wins over conditions, and everything else holds as before.
    let absent = || vec![where_it(KeyCondition::Absent, put("a", "3"))];
    is_fenced(&write(ground, &bucket, (&lock, old), absent()).await, Some(new));
    let refused = write(ground, &bucket, (&lock, new), absent()).await;
    assert!(
        matches!(refused, Ok(KeysChanged::Refused { at: 0, refusal: KeyRefusal::Condition(Some(_)) })),
        "{refused:?}"
    );
    // It guards this bucket and no other, and no topic.
    let elsewhere = super::buckets::bucket(ground);
    is_fenced(&write(ground, &elsewhere, (&lock, new), vec![put("a", "1")]).await, None);
    assert!(!is_there(ground, &elsewhere).await);
    is_fenced(&append(&ground.storage, fenced(message(&ground.topic(), json("1")), &lock, new)).await, None);
    // Who shows none is not asked.
    super::buckets::make(&ground.storage, &bucket, vec![put("a", "4")]).await;
}

pub(super) async fn a_used_key_wins_over_a_fence(ground: &Ground) {
    let bucket = bucket(ground);
    let lock = guarding(&bucket);
    let ann = asks("ann", LONG, false);
    let old = granted(ground, &lock, &ann).await;
    let once = || KeyChanges {
        fence: Some(shown(&lock, old)),
        idempotency: Some(Idempotency { key: "k".into(), fingerprint: [7; 16] }),
        ..changes(&ground.storage, &bucket, vec![put("a", "1")])
    };
    let KeysChanged::Made { changed: first, replayed: false } =
        ground.storage.buckets.change_keys(once()).await.unwrap()
    else {
        panic!("she holds it");
    };
    assert!(release(ground, &lock, &ann).await);
    let again = ground.storage.buckets.change_keys(once()).await.unwrap();
    assert_eq!(again, KeysChanged::Made { changed: first, replayed: true });
    let other = KeyChanges { idempotency: None, ..once() };
    is_fenced(&ground.storage.buckets.change_keys(other).await, None);
    // What is refused leaves its key.
    let late = |key: &str| KeyChanges {
        idempotency: Some(Idempotency { key: key.into(), fingerprint: [8; 16] }),
        ..once()
    };
    is_fenced(&ground.storage.buckets.change_keys(late("l")).await, None);
    let new = granted(ground, &lock, &ann).await;
    is_made(
        &ground.storage.buckets.change_keys(KeyChanges { fence: Some(shown(&lock, new)), ..late("l") }).await,
    );
}

pub(super) async fn of_a_lock_that_guards_nothing_the_greatest_fence_that_a_bucket_has_seen_counts(
    ground: &Ground,
) {
    let (bucket, lock) = (bucket(ground), lock());
    let ann = asks("ann", LONG, false);
    let old = granted(ground, &lock, &ann).await;
    assert!(release(ground, &lock, &ann).await);
    let new = granted(ground, &lock, &asks("bob", LONG, false)).await;
    is_made(&write(ground, &bucket, (&lock, old), vec![put("a", "1")]).await);
    is_made(&write(ground, &bucket, (&lock, new), vec![put("a", "2")]).await);
    is_made(&write(ground, &bucket, (&lock, new), vec![put("a", "3")]).await);
    is_fenced(&write(ground, &bucket, (&lock, old), vec![put("a", "4")]).await, Some(new));
    is_fenced(&write(ground, &bucket, (&lock, old), vec![delete("a")]).await, Some(new));
    assert_eq!(text(&ground.storage, &bucket, "a").await.as_deref(), Some("3"));
    // Of another lock, in another bucket and in a topic nothing is known.
    let another = LockId { name: LockName::parse("another").expect("a name"), guards: None };
    is_made(&write(ground, &bucket, (&another, old), vec![put("a", "5")]).await);
    is_made(&write(ground, &super::buckets::bucket(ground), (&lock, old), vec![put("a", "1")]).await);
    let elsewhere = fenced(message(&ground.topic(), json("1")), &lock, old);
    append(&ground.storage, elsewhere).await.expect("a topic has not seen it");
    // Deleting what is not there shows a fence, too.
    let other = super::buckets::bucket(ground);
    super::buckets::make(&ground.storage, &other, vec![put("a", "1")]).await;
    is_made(&write(ground, &other, (&lock, new), vec![delete("none")]).await);
    is_fenced(&write(ground, &other, (&lock, old), vec![put("a", "2")]).await, Some(new));
}

pub(super) async fn what_is_refused_has_shown_no_fence(ground: &Ground) {
    let (bucket, topic, lock) = (bucket(ground), ground.topic(), lock());
    let ann = asks("ann", LONG, false);
    let old = granted(ground, &lock, &ann).await;
    assert!(release(ground, &lock, &ann).await);
    let new = granted(ground, &lock, &asks("bob", LONG, false)).await;
    let present = vec![where_it(KeyCondition::Present, put("a", "1"))];
    let refused = write(ground, &bucket, (&lock, new), present).await;
    assert!(matches!(refused, Ok(KeysChanged::Refused { .. })), "{refused:?}");
    is_made(&write(ground, &bucket, (&lock, old), vec![put("a", "1")]).await);
    let behind = NewMessage { expected_last: Some(MessageId::new(1, 1)), ..message(&topic, json("1")) };
    let refused = append(&ground.storage, fenced(behind, &lock, new)).await;
    assert!(matches!(refused, Err(StorageError::NotLast(_))), "{refused:?}");
    append(&ground.storage, fenced(message(&topic, json("1")), &lock, old))
        .await
        .expect("it is the greatest");
}

pub(super) async fn fences_grow_whatever_ends_a_lock(ground: &Ground) {
    let topic = ground.topic();
    for guards in [None, Some(Guarded::Topic(topic.clone())), Some(Guarded::Bucket(bucket(ground)))] {
        let lock = LockId { guards, ..lock() };
        let mut fences = Vec::new();
        for round in 0..12 {
            let ann = asks("ann", if round % 4 == 0 { SHORT } else { LONG }, false);
            fences.push(granted(ground, &lock, &ann).await);
            match round % 4 {
                0 => until_nobody_holds(ground, &lock).await,
                1 => assert!(release(ground, &lock, &ann).await),
                2 => assert!(ground.storage.locks.take_lock(&lock).await.expect("it answers").is_some()),
                _ => {
                    let mut bob = asks("bob", LONG, true);
                    refused(ground, &lock, &bob).await;
                    bob.again = true;
                    assert!(release(ground, &lock, &ann).await);
                    fences.push(granted(ground, &lock, &bob).await);
                    assert!(release(ground, &lock, &bob).await);
                }
            }
            assert_eq!(seen(ground, &lock).await, LockSeen::default());
        }
        assert!(fences.is_sorted_by(|one, next| one < next), "{fences:?}");
        let parity = u64::from(lock.guards.is_some());
        assert!(fences.iter().all(|fence| fence.seq % 2 == parity), "{fences:?}");
    }
}

pub(super) async fn locks_of_one_name_that_guard_something_else_are_others(ground: &Ground) {
    let topic = ground.topic();
    let same = BucketName::parse(topic.as_str()).expect("a bucket may be called as a topic is");
    let guards = [
        None,
        Some(Guarded::Topic(topic.clone())),
        Some(Guarded::Bucket(same)),
        Some(Guarded::Topic(ground.topic())),
        Some(Guarded::Bucket(bucket(ground))),
    ];
    let mut all = Vec::new();
    for name in ["a", "b", "held", "queue", "last", "seen"] {
        let name = LockName::parse(name).expect("a name");
        all.extend(guards.iter().map(|guards| LockId { name: name.clone(), guards: guards.clone() }));
    }
    let mut held = Vec::new();
    for (at, lock) in all.iter().enumerate() {
        let by = asks(&format!("h{at}"), LONG, false);
        held.push((by.clone(), granted(ground, lock, &by).await));
        refused(ground, lock, &asks(&format!("w{at}"), LONG, true)).await;
    }
    for (at, (lock, (by, fence))) in all.iter().zip(&held).enumerate() {
        let now = seen(ground, lock).await;
        let shown = now.held.expect("it is held");
        assert_eq!((&shown.holder, shown.fence, now.waiting), (&by.holder, *fence, 1), "{lock:?}");
        assert_eq!(now.queue[0].0.as_str(), format!("w{at}"));
        let other = &all[(at + 1) % all.len()];
        assert!(!release(ground, other, by).await, "{lock:?} {other:?}");
    }
    for (lock, (by, _)) in all.iter().zip(&held) {
        assert!(release(ground, lock, by).await);
    }
}

pub(super) async fn as_many_wait_as_may_and_no_more(ground: &Ground) {
    use futures_util::StreamExt as _;
    use tidemill::proto::locks::WAITERS_MAX;

    let lock = lock();
    let ann = asks("ann", LONG, false);
    granted(ground, &lock, &ann).await;
    let first = asks("first", LONG, true);
    refused(ground, &lock, &first).await;
    let of = &lock;
    let others = (1..WAITERS_MAX).map(|_| async move {
        let other = asks("other", LONG, true);
        refused(ground, of, &other).await;
        other
    });
    let others: Vec<_> = futures_util::stream::iter(others).buffer_unordered(200).collect().await;
    assert_eq!(acquire(ground, &lock, &asks("late", LONG, true)).await, LockAnswer::Crowded);
    // Who has a place keeps it, who does not wait is told who holds it, and who goes makes room.
    let mut again = others[7].clone();
    again.again = true;
    assert!(refused(ground, &lock, &again).await.1.is_some());
    assert_eq!(refused(ground, &lock, &asks("brief", LONG, false)).await.0.holder, ann.holder);
    assert!(!release(ground, &lock, &others[7]).await);
    refused(ground, &lock, &asks("late", LONG, true)).await;
    assert!(ground.storage.locks.lock(&lock, 10).await.expect("it answers").queue.len() <= 10);
    // Those who ask no more keep nobody out, once their places count no more; who asks on keeps its own.
    tokio::time::sleep(PLACE_KEPT / 2).await;
    again.secret = others[8].secret;
    refused(ground, &lock, &again).await;
    tokio::time::sleep(PLACE_KEPT / 2 + std::time::Duration::from_millis(100)).await;
    assert_eq!(refused(ground, &lock, &asks("new", LONG, true)).await.1, Some(1), "behind who has asked on");
    let left = ground.storage.locks.lock(&lock, 10).await.expect("it answers");
    let left: Vec<_> = left.queue.iter().map(|(holder, _)| holder.as_str()).collect();
    assert_eq!(left, ["other", "new"]);
}
