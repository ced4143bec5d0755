//! Copies of buckets: their keys, revisions and logs are those of what they are copies of, and one that is frozen is read
//! and not changed.

use std::time::Duration;

use tidemill::proto::{BucketName, MessageId, TopicName};
use tidemill::storage::{
    BucketSettings, CopiedBucket, CopiedKey, Epoch, FillAsked, FillToken, Freeze, KeyEdit, KeyFill, KeysPart,
    Storage, StorageError, StoredMessage, WhyReadOnly,
};

use super::buckets::{
    agree, ask, bucket, change, changes, delete, get, json, key, log, make, make_one, put, put_for, put_of,
    set, table, text,
};
use super::expiring::expire_all;
use super::gaps::read_on;
use crate::support::eventually;
use crate::support::ground::{Ground, LIMITS, SOON, ids};

const LONG: Duration = Duration::from_hours(1);

async fn all_changes(storage: &Storage, bucket: &BucketName) -> Vec<StoredMessage> {
    let mut all: Vec<StoredMessage> = Vec::new();
    loop {
        let after = all.last().map_or(MessageId::MIN, |change| change.id);
        let page = storage.bucket_copies.copied_changes(bucket, after, 100, 1 << 20).await.unwrap();
        if page.is_empty() {
            return all;
        }
        all.extend(page);
    }
}

async fn all_keys(storage: &Storage, bucket: &BucketName, limit: usize) -> Vec<CopiedKey> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = storage.bucket_copies.copied_keys(bucket, after.as_ref(), limit, 1 << 20).await.unwrap();
        assert!(page.keys.len() <= limit);
        all.extend(page.keys);
        after = page.next;
        if after.is_none() {
            return all;
        }
    }
}

/// Copies a bucket to a storage that does not have it.
async fn copy(from: &Storage, to: &Storage, bucket: &BucketName) -> CopiedBucket {
    let source = from.bucket_copies.copied_bucket(bucket).await.unwrap();
    let copies = &to.bucket_copies;
    copies.begin_bucket(&source).await.unwrap();
    let keys = all_keys(from, bucket, 7).await;
    copies.import_keys(bucket, source.epoch, KeysPart::First(keys[..keys.len() / 2].to_vec())).await.unwrap();
    copies.import_keys(bucket, source.epoch, KeysPart::Last(keys[keys.len() / 2..].to_vec())).await.unwrap();
    let mut after = MessageId::MIN;
    for some in all_changes(from, bucket).await.chunks(30) {
        copies.import_changes(bucket, source.epoch, after, some).await.unwrap();
        after = some.last().expect("a chunk has some").id;
    }
    copies.finish_bucket(&source).await.unwrap();
    source
}

/// Copies a bucket to somewhere else, deletes it, and copies it back.
async fn there_and_back(ground: &Ground, bucket: &BucketName) {
    let other = Ground::memory().await.expect("memory is always there");
    copy(&ground.storage, &other.storage, bucket).await;
    ground.storage.buckets.delete_bucket(bucket).await.unwrap();
    copy(&other.storage, &ground.storage, bucket).await;
}

fn is_read_only<T: std::fmt::Debug>(result: &Result<T, StorageError>, why: WhyReadOnly) -> bool {
    matches!(result, Err(StorageError::ReadOnly(is)) if *is == why)
}

pub(super) async fn a_bucket_is_copied_with_its_revisions_and_its_log(ground: &Ground) {
    let (storage, bucket) = (&ground.storage, bucket(ground));
    let settings = BucketSettings { history: 3, max_keys: Some(1_000), ..BucketSettings::default() };
    set(storage, &bucket, settings).await;
    for round in 0..5 {
        make(storage, &bucket, vec![put("a", &round.to_string()), put(&format!("b{round}"), "\"é\"")]).await;
    }
    make_one(storage, &bucket, put_of("mine", "1", "ada")).await;
    make_one(storage, &bucket, put_for("timed", "2", LONG)).await;
    make_one(storage, &bucket, delete("b2")).await;
    let by = KeyEdit::Increment { by: 7, min: None, max: None, ttl: None };
    make_one(storage, &bucket, change("count", by)).await;
    let value = tidemill::storage::KeyValue {
        bytes: b"\0\n\xff".as_slice().into(),
        content_type: Some("image/png".into()),
    };
    let raw = KeyEdit::Put { value, ttl: None, fresh: Some(LONG), owner: None };
    make_one(storage, &bucket, change("raw", raw)).await;
    let ttl = storage.buckets.touch_key(&bucket, &key("b1"), Some(LONG), false).await.unwrap();
    assert!(ttl.unwrap().expires_at.is_some());

    let before = (all_keys(storage, &bucket, 2).await, log(storage, &bucket).await);
    let state = storage.buckets.bucket(&bucket).await.unwrap();
    assert_eq!((before.0.len() as u64, state.keys), (8 + 1, 9));
    let history = storage.buckets.key_history(&bucket, &key("a")).await.unwrap();
    assert_eq!(history.len(), 3);
    let gaps = async |after: MessageId| {
        let batch = read_on(storage, &TopicName::log_of(&bucket), after, 500).await;
        (batch.gap, ids(&batch.messages))
    };
    let places = [MessageId::MIN, before.1[3].1.id, before.1.last().expect("there are some").1.id];
    let mut told = Vec::new();
    for place in places {
        told.push(gaps(place).await);
    }

    there_and_back(ground, &bucket).await;
    assert_eq!((all_keys(storage, &bucket, 3).await, log(storage, &bucket).await), before);
    assert_eq!(storage.buckets.bucket(&bucket).await.unwrap(), state);
    assert_eq!(storage.buckets.key_history(&bucket, &key("a")).await.unwrap(), history);
    for (place, told) in places.into_iter().zip(told) {
        assert_eq!(gaps(place).await, told, "behind {place}");
    }
    assert!(storage.buckets.bucket_names(None, 1_000).await.unwrap().contains(&bucket));

    // It goes on behind its last revision, and whose a key is and when it is over is known.
    let next = make_one(storage, &bucket, put("a", "9")).await;
    assert!(next > places[2]);
    assert_eq!(storage.buckets.revoke_keys(&bucket, &key("ada"), storage.upkeep.now()).await.unwrap(), 1);
    agree(storage, &bucket).await;
}

pub(super) async fn keys_that_are_over_expire_at_the_copy(ground: &Ground) {
    let (storage, bucket) = (&ground.storage, bucket(ground));
    make(storage, &bucket, vec![put_for("short", "1", Duration::from_millis(300)), put("long", "2")]).await;
    there_and_back(ground, &bucket).await;
    let is_over = async || get(storage, &bucket, "short").await.is_none();
    eventually(SOON, is_over).await;
    // When it is over is in the index of the copy, too.
    let is_known = storage.buckets.expiring_within(LONG, 1_000).await.unwrap();
    assert!(is_known.iter().any(|(found, _)| *found == bucket), "{is_known:?}");
    assert_eq!(expire_all(storage, &bucket).await, 1);
    agree(storage, &bucket).await;
    assert_eq!(table(storage, &bucket).await.len(), 1);
}

pub(super) async fn a_bucket_that_is_frozen_is_read_and_not_changed(ground: &Ground) {
    let (storage, bucket) = (&ground.storage, bucket(ground));
    make(storage, &bucket, vec![put_of("a", "1", "ada"), put_for("b", "2", Duration::from_millis(200))])
        .await;
    let before = log(storage, &bucket).await;
    for _ in 0..2 {
        storage.bucket_copies.freeze_bucket(&bucket, true).await.unwrap();
    }
    for one in [put("a", "2"), delete("a"), put("new", "1")] {
        let refused = storage.buckets.change_keys(changes(storage, &bucket, vec![one])).await;
        assert!(is_read_only(&refused, WhyReadOnly::Frozen), "{refused:?}");
    }
    let revoked = storage.buckets.revoke_keys(&bucket, &key("ada"), storage.upkeep.now()).await;
    assert!(is_read_only(&revoked, WhyReadOnly::Frozen), "{revoked:?}");
    let settings =
        storage.buckets.put_bucket(&bucket, BucketSettings { history: 9, ..BucketSettings::default() });
    assert!(is_read_only(&settings.await, WhyReadOnly::Frozen));
    let fill = |name: &str| FillAsked {
        bucket: bucket.clone(),
        key: key(name),
        token: FillToken([7; 16]),
        within: LONG,
        create_bucket: true,
    };
    let there = storage.buckets.fill_key(&fill("a")).await;
    assert!(matches!(there, Ok(KeyFill::Fresh(_))), "{there:?}");
    assert!(is_read_only(&storage.buckets.fill_key(&fill("none")).await, WhyReadOnly::Frozen));
    // A touch changes nothing, and says so.
    let touched = storage.buckets.touch_key(&bucket, &key("a"), Some(LONG), true).await.unwrap().unwrap();
    assert_eq!((touched.expires_at, touched.value), (None, Some(json("1"))));
    let revision = touched.revision;
    let had = storage.buckets.touch_revisions(&bucket, &[(key("a"), revision)], LONG).await.unwrap();
    assert_eq!(had, [true]);
    eventually(SOON, async || get(storage, &bucket, "b").await.is_none()).await;
    assert_eq!(expire_all(storage, &bucket).await, 0);
    assert_eq!(log(storage, &bucket).await, before);
    let copied = storage.bucket_copies.copied_bucket(&bucket).await.unwrap();
    assert_eq!((copied.freeze, copied.state.keys), (Some(Freeze::ReadOnly), 2));
    assert_eq!(get(storage, &bucket, "a").await.unwrap().expires_at, None);

    storage.bucket_copies.freeze_bucket(&bucket, false).await.unwrap();
    make_one(storage, &bucket, put("a", "2")).await;
    assert_eq!(expire_all(storage, &bucket).await, 1);
    agree(storage, &bucket).await;
    let missing = storage.bucket_copies.freeze_bucket(&super::buckets::bucket(ground), true).await;
    assert!(matches!(missing, Err(StorageError::NoBucket)), "{missing:?}");
}

pub(super) async fn a_bucket_that_is_taken_over_is_gone_on_with(ground: &Ground) {
    let (storage, bucket) = (&ground.storage, bucket(ground));
    let other = Ground::memory().await.expect("memory is always there");
    for round in 0..20 {
        make_one(&other.storage, &bucket, put(&format!("k{}", round % 6), &round.to_string())).await;
    }
    let source = other.storage.bucket_copies.copied_bucket(&bucket).await.unwrap();
    let (keys, told) =
        (all_keys(&other.storage, &bucket, 100).await, all_changes(&other.storage, &bucket).await);
    let copies = &storage.bucket_copies;
    copies.begin_bucket(&source).await.unwrap();
    let again = copies.begin_bucket(&source).await;
    assert!(matches!(again, Err(StorageError::TopicExists)), "{again:?}");
    copies.import_keys(&bucket, source.epoch, KeysPart::First(keys.clone())).await.unwrap();
    assert!(!copies.copied_bucket(&bucket).await.unwrap().has_keys);
    // Done again it is what it was; what there was before goes.
    copies.import_keys(&bucket, source.epoch, KeysPart::First(keys[..2].to_vec())).await.unwrap();
    for _ in 0..2 {
        copies.import_keys(&bucket, source.epoch, KeysPart::Last(keys[1..].to_vec())).await.unwrap();
    }
    assert!(copies.copied_bucket(&bucket).await.unwrap().has_keys);
    assert_eq!(all_keys(storage, &bucket, 100).await, keys);
    copies.import_changes(&bucket, source.epoch, MessageId::MIN, &told[..10]).await.unwrap();
    let twice = copies.import_changes(&bucket, source.epoch, MessageId::MIN, &told[..10]).await;
    assert!(matches!(twice, Err(StorageError::NotLast(last)) if last == told[9].id), "{twice:?}");
    let of_another = copies.import_changes(&bucket, Epoch::Marked(1 << 40), told[9].id, &told[10..]).await;
    assert!(matches!(of_another, Err(StorageError::TopicExists)), "{of_another:?}");
    let of_another = copies.import_keys(&bucket, Epoch::Marked(1 << 40), KeysPart::First(Vec::new())).await;
    assert!(matches!(of_another, Err(StorageError::TopicExists)), "{of_another:?}");
    // Nobody comes between.
    let refused = storage.buckets.change_keys(changes(storage, &bucket, vec![put("k0", "x")])).await;
    assert!(is_read_only(&refused, WhyReadOnly::Importing), "{refused:?}");
    assert!(is_read_only(&copies.freeze_bucket(&bucket, false).await, WhyReadOnly::Importing));
    storage.upkeep.sweep().await.unwrap();
    copies.import_changes(&bucket, source.epoch, told[9].id, &told[10..]).await.unwrap();
    // One of them is gone since, and one is over then.
    let changed = vec![(key("k1"), None), (key("k2"), Some(keys[2].clone()))];
    copies.import_keys(&bucket, source.epoch, KeysPart::Changed(changed)).await.unwrap();
    // Who has them come once more has begun to, and not ended.
    copies.import_keys(&bucket, source.epoch, KeysPart::First(Vec::new())).await.unwrap();
    let early = copies.finish_bucket(&source).await;
    assert!(matches!(early, Err(StorageError::NotLast(_))), "{early:?}");
    let again: Vec<CopiedKey> = keys.iter().filter(|copied| copied.entry.key != key("k1")).cloned().collect();
    copies.import_keys(&bucket, source.epoch, KeysPart::Last(again)).await.unwrap();
    let end = storage.upkeep.now().saturating_add(LONG);
    let ends = [(key("k0"), Some(end)), (key("none"), Some(end)), (key("k2"), None)];
    copies.import_ends(&bucket, source.epoch, &ends).await.unwrap();
    for _ in 0..2 {
        copies.finish_bucket(&source).await.unwrap();
    }
    assert_eq!(text(storage, &bucket, "k1").await, None);
    let expected: u64 = keys.iter().filter(|copied| copied.entry.key != key("k1")).count() as u64;
    let state = storage.buckets.bucket(&bucket).await.unwrap();
    assert_eq!((state.keys, get(storage, &bucket, "k0").await.unwrap().expires_at), (expected, Some(end)));
    let bytes: usize =
        table(storage, &bucket).await.iter().map(|one| one.value.as_ref().unwrap().bytes.len()).sum();
    assert_eq!(state.bytes, bytes as u64);
    assert!(make_one(storage, &bucket, put("k1", "x")).await > source.last);
    let late = copies.import_keys(&bucket, source.epoch, KeysPart::First(Vec::new())).await;
    assert!(matches!(late, Err(StorageError::TopicExists)), "{late:?}");
}

pub(super) async fn no_buckets_are_made_while_that_is_refused(ground: &Ground) {
    let storage = &ground.under(LIMITS).await;
    let (there, fresh) = (bucket(ground), bucket(ground));
    make_one(storage, &there, put("a", "1")).await;
    storage.copies.refuse_new_topics(true).await.unwrap();
    let refused = storage.buckets.change_keys(changes(storage, &fresh, vec![put("a", "1")])).await;
    assert!(is_read_only(&refused, WhyReadOnly::NotMade), "{refused:?}");
    assert!(is_read_only(
        &storage.buckets.put_bucket(&fresh, BucketSettings::default()).await,
        WhyReadOnly::NotMade
    ));
    make_one(storage, &there, put("a", "2")).await;
    storage.copies.refuse_new_topics(false).await.unwrap();
    ask(storage, &fresh, vec![put("a", "1")]).await;
    assert_eq!(text(storage, &fresh, "a").await.as_deref(), Some("1"));
}
