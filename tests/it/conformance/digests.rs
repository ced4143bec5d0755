//! Digests of values: what was put is known from what was not, as far as a bucket keeps a history.
//!
//! The values of the memory backend can be reached by nobody, so that those that were damaged are tested where there is a
//! server.

use tidemill::storage::{BucketSettings, KeyDigest, KeyEntry};

use super::buckets::{bucket, get, increment, key, make, make_one, put, set, table};
use crate::support::ground::Ground;

const KEPT: BucketSettings = BucketSettings {
    history: 3,
    ttl: None,
    absolute_age: None,
    max_keys: None,
    max_bytes: None,
    adaptive_ttl: None,
};

fn digest(own: &str, parent: Option<&str>) -> KeyDigest {
    let of = |text: &str| KeyDigest::of(text.as_bytes());
    KeyDigest { own: of(own), parent: parent.map(of) }
}

pub(super) async fn a_value_has_the_digest_of_its_bytes_and_of_the_one_before(ground: &Ground) {
    let (bucket, storage) = (bucket(ground), &ground.storage);
    set(storage, &bucket, KEPT).await;
    // As `printf '"1"' | sha256sum` says.
    let known = hex::encode(KeyDigest::of(b"\"1\""));
    assert_eq!(known, "391552c099c101b131feaf24c5795a6a15bc8ec82015424e0d2b4274a369a0bf");
    for text in ["1", "2", "3", "4"] {
        make_one(storage, &bucket, put("k", text)).await;
        let one = get(storage, &bucket, "k").await.expect("it is there");
        let listed = table(storage, &bucket).await;
        let without = storage.buckets.key(&bucket, &key("k"), false).await.unwrap();
        assert_eq!((&listed[0], without.and_then(|entry| entry.digest)), (&one, one.digest), "{text}");
        assert!(one.is_sound());
    }
    let kept = storage.buckets.key_history(&bucket, &key("k")).await.unwrap();
    let digests: Vec<_> = kept.iter().map(|entry| entry.digest).collect();
    assert_eq!(
        digests,
        [Some(digest("4", Some("3"))), Some(digest("3", Some("2"))), Some(digest("2", Some("1")))]
    );
    assert!(kept.iter().all(KeyEntry::is_sound));
    // A key that begins anew has nothing before it.
    make(storage, &bucket, vec![super::buckets::delete("k")]).await;
    make_one(storage, &bucket, put("k", "5")).await;
    assert_eq!(get(storage, &bucket, "k").await.unwrap().digest, Some(digest("5", None)));
}

pub(super) async fn what_is_not_kept_or_added_to_has_no_digest(ground: &Ground) {
    let (bucket, storage) = (bucket(ground), &ground.storage);
    let digest_of = async |name| get(storage, &bucket, name).await.expect("it is there").digest;
    make(storage, &bucket, vec![put("k", "1")]).await;
    assert_eq!(digest_of("k").await, None);
    set(storage, &bucket, KEPT).await;
    make(storage, &bucket, vec![put("k", "2")]).await;
    assert_eq!(digest_of("k").await, Some(digest("2", None)), "what was there before has none");
    make(storage, &bucket, vec![increment("k", 1, None, None)]).await;
    assert_eq!(digest_of("k").await, None);
    make(storage, &bucket, vec![put("k", "4")]).await;
    assert_eq!(digest_of("k").await, Some(digest("4", None)));
    let kept = storage.buckets.key_history(&bucket, &key("k")).await.unwrap();
    let digests: Vec<_> = kept.iter().map(|entry| entry.digest).collect();
    assert_eq!(digests, [Some(digest("4", None)), None, Some(digest("2", None))]);
}

/// Replaces the value in a record, which is everything behind its line.
#[cfg(feature = "valkey")]
pub(crate) async fn damage(server: &crate::support::server::Server, hash: &str, field: &str, value: &str) {
    let record = server.command(&["HGET", hash, field]).await.text();
    let (line, _) = record.split_once('\n').expect("a record has a line");
    server.command(&["HSET", hash, field, &format!("{line}\n{value}")]).await;
}

#[cfg(feature = "valkey")]
pub(super) async fn a_value_that_was_damaged_or_replaced_is_not_sound(ground: &Ground) {
    let (bucket, storage) = (bucket(ground), &ground.storage);
    set(storage, &bucket, KEPT).await;
    let first = make_one(storage, &bucket, put("k", "\"one\"")).await;
    make_one(storage, &bucket, put("k", "\"two\"")).await;
    let beside = |rest| format!("bucket:{{keys/{bucket}}}:{rest}");
    let is_sound = async || {
        let kept = storage.buckets.key_history(&bucket, &key("k")).await.unwrap();
        let listed = table(storage, &bucket).await;
        let current = get(storage, &bucket, "k").await.expect("it is there");
        assert_eq!((listed[0].is_sound(), kept[0].is_sound()), (current.is_sound(), current.is_sound()));
        [kept[0].is_sound(), kept[1].is_sound()]
    };
    assert_eq!(is_sound().await, [true, true]);
    for other in ["\"twO\"", "\"two\" ", "", "null"] {
        damage(ground.server(), &beside("values"), "k", other).await;
        assert_eq!(is_sound().await, [false, true], "{other}");
    }
    damage(ground.server(), &beside("past"), &format!("k/{first}"), "\"0ne\"").await;
    assert_eq!(is_sound().await, [false, false]);
    damage(ground.server(), &beside("values"), "k", "\"two\"").await;
    assert_eq!(is_sound().await, [true, false]);
}
