//! A bucket is made by its first key: who makes none is answered as by an empty bucket, and leaves none behind.

use tidemill::proto::MessageId;
use tidemill::storage::{
    BucketSettings, FillToken, Idempotency, KeyChange, KeyChanges, KeyCondition, KeyRefusal, KeysChanged,
    Storage, StorageError, StorageLimits,
};

use super::buckets::{
    ask, bucket, changes, delete, get, increment, make, put, put_for, set, table, where_it,
};
use super::filled::asked;
use super::locks::LONG;
use crate::support::ground::{Ground, LIMITS};

/// Changes, and which of them is refused, and why.
type Case = (Vec<KeyChange>, Option<(usize, KeyRefusal)>);

/// Returns changes that make no key where there is none.
fn unmade() -> Vec<Case> {
    let revision = KeyCondition::Revision(MessageId::new(5, 1));
    let filling = KeyCondition::Filling(FillToken([7; 16]));
    let expected = KeyRefusal::Condition(None);
    vec![
        (vec![delete("a")], None),
        (vec![delete("a"), where_it(KeyCondition::Absent, delete("b"))], None),
        (vec![where_it(KeyCondition::Present, put("a", "1"))], Some((0, expected))),
        (vec![where_it(revision, put("a", "1"))], Some((0, expected))),
        (vec![where_it(filling, put_for("a", "1", LONG))], Some((0, expected))),
        (vec![where_it(KeyCondition::Present, delete("a"))], Some((0, expected))),
        (vec![where_it(revision, increment("n", 1, None, None))], Some((0, expected))),
        (vec![increment("n", 1, Some(2), None)], Some((0, KeyRefusal::OutOfRange(0)))),
        (vec![increment("n", i64::MAX, None, Some(4))], Some((0, KeyRefusal::OutOfRange(0)))),
        (vec![increment("n", i64::MIN, Some(0), Some(0))], Some((0, KeyRefusal::OutOfRange(0)))),
        (vec![put("a", "1"), increment("n", 1, Some(2), None)], Some((1, KeyRefusal::OutOfRange(0)))),
        (vec![put("a", "1"), delete("b"), where_it(revision, delete("c"))], Some((2, expected))),
    ]
}

async fn is_none(storage: &Storage, bucket: &tidemill::proto::BucketName) {
    let state = storage.buckets.bucket(bucket).await;
    assert!(matches!(state, Err(StorageError::NoBucket)), "{state:?}");
}

pub(super) async fn a_change_that_makes_no_key_makes_no_bucket(ground: &Ground) {
    let (none, empty, storage) = (bucket(ground), bucket(ground), &ground.storage);
    set(storage, &empty, BucketSettings::default()).await;
    for (all, refused) in unmade() {
        let answer = ask(storage, &empty, all.clone()).await;
        assert_eq!(ask(storage, &none, all.clone()).await, answer, "{all:?}");
        let is_refused = match answer {
            KeysChanged::Refused { at, refusal } => Some((at, refusal)),
            KeysChanged::Made { .. } => None,
        };
        assert_eq!(is_refused, refused, "{all:?}");
        let idempotency = Some(Idempotency { key: "k".into(), fingerprint: [1; 16] });
        let keyed = KeyChanges { idempotency, ..changes(storage, &none, all.clone()) };
        let keyed = storage.buckets.change_keys(keyed).await.unwrap();
        assert!(!matches!(keyed, KeysChanged::Made { replayed: true, .. }), "{all:?}");
        let careful = KeyChanges { create_bucket: false, ..changes(storage, &none, all.clone()) };
        let careful = storage.buckets.change_keys(careful).await;
        assert!(matches!(careful, Err(StorageError::NoBucket)), "{all:?}: {careful:?}");
        is_none(storage, &none).await;
        assert!(table(storage, &empty).await.is_empty());
    }
    for all in [
        vec![where_it(KeyCondition::Absent, put("a", "1"))],
        vec![increment("a", i64::MIN, Some(i64::MIN), Some(i64::MIN))],
        vec![delete("b"), put("a", "1")],
    ] {
        let one = bucket(ground);
        // What was used where no bucket was can be used for something else.
        let idempotency = Some(Idempotency { key: "k".into(), fingerprint: [2; 16] });
        let keyed = KeyChanges { idempotency, ..changes(storage, &none, all.clone()) };
        let made = storage.buckets.change_keys(keyed).await.unwrap();
        assert!(matches!(made, KeysChanged::Made { replayed: false, .. }), "{all:?}: {made:?}");
        make(storage, &one, all).await;
        for bucket in [&none, &one] {
            assert!(get(storage, bucket, "a").await.is_some());
        }
        storage.buckets.delete_bucket(&none).await.unwrap();
    }
}

pub(super) async fn where_no_bucket_may_be_made_one_without_keys_answers_all_the_same(ground: &Ground) {
    let storage = ground.under(StorageLimits { buckets_max: 1, ..LIMITS }).await;
    let (first, none) = (bucket(ground), bucket(ground));
    make(&storage, &first, vec![put("a", "1")]).await;
    for (all, refused) in unmade() {
        let answer = ask(&storage, &none, all.clone()).await;
        assert_eq!(matches!(answer, KeysChanged::Refused { .. }), refused.is_some(), "{all:?}: {answer:?}");
    }
    let refused = storage.buckets.change_keys(changes(&storage, &none, vec![put("a", "1")])).await;
    assert!(matches!(refused, Err(StorageError::BucketsLimit)), "{refused:?}");
    let refused = storage.buckets.fill_key(&asked(&none, "a", 1, LONG)).await;
    assert!(matches!(refused, Err(StorageError::BucketsLimit)), "{refused:?}");
    is_none(&storage, &none).await;
}
