//! Buckets on a server: keys of theirs that another program holds, and what is left of them.

use std::time::Duration;

use tidemill::proto::{BucketName, TopicName};
use tidemill::storage::{BucketSettings, Idempotency, KeyChanges, KeysChanged, StorageError};

use super::buckets::{
    agree, all, bucket, changes, delete, increment, key, make, make_one, put, put_for, put_of, set, table,
};
use super::filled::asked;
use crate::support::ground::{Ground, Heard};

/// Returns the keys of a bucket: its log, and what stands beside that.
fn keys_of(bucket: &BucketName) -> Vec<String> {
    let log = TopicName::log_of(bucket);
    let beside = ["facts", "values", "names", "due", "past", "owned", "fills"]
        .map(|rest| format!("bucket:{{{log}}}:{rest}"));
    std::iter::once(format!("stream:topic:{log}")).chain(beside).collect()
}

async fn named(ground: &Ground, bucket: &BucketName, theirs: &str) {
    let storage = &ground.storage;
    let is_named = |result: Result<(), StorageError>| match result {
        Err(StorageError::ForeignKey(named)) => assert_eq!(&*named, theirs),
        other => panic!("{theirs}: {other:?}"),
    };
    for one in [put("a", "2"), delete("a"), increment("a", 1, None, None)] {
        is_named(storage.buckets.change_keys(changes(storage, bucket, vec![one])).await.map(drop));
    }
    let now = storage.upkeep.now();
    is_named(storage.buckets.revoke_keys(bucket, &key("ann"), now).await.map(drop));
    is_named(storage.buckets.expire_keys(std::slice::from_ref(bucket)).await.pop().unwrap().map(drop));
    is_named(storage.buckets.put_bucket(bucket, BucketSettings::default()).await.map(drop));
    is_named(storage.buckets.delete_bucket(bucket).await);
}

pub(super) async fn foreign_keys_of_a_bucket_are_named_and_left_alone(ground: &Ground) {
    let (server, storage) = (ground.server(), &ground.storage);
    for at in 0..8 {
        let bucket = bucket(ground);
        set(storage, &bucket, BucketSettings { history: 3, ..BucketSettings::default() }).await;
        make(storage, &bucket, vec![put_of("a", "1", "ann"), put_for("b", "1", Duration::from_hours(1))])
            .await;
        make_one(storage, &bucket, put_of("a", "2", "ann")).await;
        storage.buckets.fill_key(&asked(&bucket, "c", 1, Duration::from_mins(10))).await.unwrap();
        let theirs = &keys_of(&bucket)[at];
        let ours = format!("away:{at}");
        assert!(server.command(&["EXISTS", theirs]).await.integer() == 1, "{theirs} is a key of a bucket");
        server.command(&["RENAME", theirs, &ours]).await;
        server.command(&["SET", theirs, "theirs"]).await;
        named(ground, &bucket, theirs).await;
        // What needs it to answer names it, too; what does not may answer.
        let reads = [
            storage.buckets.key(&bucket, &key("a"), true).await.map(drop),
            storage.buckets.key_history(&bucket, &key("a")).await.map(drop),
            storage.buckets.list_keys(&bucket, all()).await.map(drop),
            storage.buckets.bucket(&bucket).await.map(drop),
        ];
        for read in reads {
            assert!(matches!(read, Ok(()) | Err(StorageError::ForeignKey(_))), "{theirs}: {read:?}");
        }
        assert_eq!(server.command(&["GET", theirs]).await.text(), "theirs", "{theirs} was left alone");
        server.command(&["RENAME", &ours, theirs]).await;
        agree(storage, &bucket).await;
        assert_eq!(storage.buckets.key_history(&bucket, &key("a")).await.unwrap().len(), 2);
    }
}

pub(super) async fn a_bucket_whose_log_is_gone_is_there(ground: &Ground) {
    let (bucket, storage) = (bucket(ground), &ground.storage);
    make(storage, &bucket, vec![put("a", "1"), put("b", "1")]).await;
    ground.server().command(&["DEL", &keys_of(&bucket)[0]]).await;
    // What makes no key changes the table all the same.
    make_one(storage, &bucket, delete("a")).await;
    let left: Vec<_> = table(storage, &bucket).await.into_iter().map(|entry| entry.key).collect();
    assert_eq!(left, [key("b")]);
}

pub(super) async fn a_foreign_idempotency_key_of_a_bucket_is_named(ground: &Ground) {
    let (bucket, storage) = (bucket(ground), &ground.storage);
    make(storage, &bucket, vec![put("a", "1")]).await;
    let theirs = format!("idem:{{{}}}:once", TopicName::log_of(&bucket));
    ground.server().command(&["RPUSH", &theirs, "theirs"]).await;
    let idempotency = Some(Idempotency { key: "once".into(), fingerprint: [1; 16] });
    let all = KeyChanges { idempotency, ..changes(storage, &bucket, vec![put("a", "2")]) };
    match storage.buckets.change_keys(all.clone()).await {
        Err(StorageError::ForeignKey(named)) => assert_eq!(*named, *theirs),
        other => panic!("{other:?}"),
    }
    agree(storage, &bucket).await;
    assert_eq!(ground.server().command(&["DEL", &theirs]).await.integer(), 1, "it was left alone");
    let made = storage.buckets.change_keys(all).await.unwrap();
    assert!(matches!(made, KeysChanged::Made { replayed: false, .. }), "{made:?}");
}

pub(super) async fn nothing_is_left_of_buckets_that_are_deleted(ground: &Ground) {
    let storage = &ground.storage;
    let _heard = Heard::of(storage);
    let mut deleted = Vec::new();
    for _ in 0..20 {
        let bucket = bucket(ground);
        set(storage, &bucket, BucketSettings { history: 3, ..BucketSettings::default() }).await;
        make(storage, &bucket, vec![put_of("a", "1", "ann"), put_for("b", "1", Duration::from_hours(1))])
            .await;
        make(storage, &bucket, vec![put_of("a", "2", "ann"), put("b", "2")]).await;
        storage.buckets.delete_bucket(&bucket).await.unwrap();
        deleted.push(bucket);
    }
    for bucket in &deleted {
        for left in keys_of(bucket) {
            assert_eq!(ground.server().command(&["EXISTS", &left]).await.integer(), 0, "{left}");
        }
    }
    assert_eq!(storage.buckets.bucket_names(None, 100).await.unwrap(), []);
    assert_eq!(storage.buckets.expiring_within(Duration::from_hours(2), 100).await.unwrap(), []);
}
