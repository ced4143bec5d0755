//! What a bucket has: pages of keys, earlier revisions, whose keys are whose, and bounds.

use std::time::Duration;

use tidemill::proto::{BucketName, KeyName, MessageId, RoomName};
use tidemill::storage::{
    AdaptiveTtl, BucketSettings, HISTORY_MAX, KeyEntry, KeyRange, KeyRefusal, LoggedKind, Storage,
    StorageError, StorageLimits,
};

use super::buckets::{
    agree, all, bucket, bucket_of, changes, delete, get, increment, key, log, make, make_one, put, put_for,
    put_of, refusal, set, table, text,
};
use crate::support::eventually;
use crate::support::ground::{Ground, LIMITS, SOON};

fn names(entries: &[KeyEntry]) -> Vec<&str> {
    entries.iter().map(|entry| entry.key.as_str()).collect()
}

pub(super) async fn keys_are_listed_in_pages(ground: &Ground) {
    let (bucket, storage) = (bucket(ground), &ground.storage);
    let all_names = ["-", "A", "a", "a-b", "a.b", "a.b.c", "a.c", "a:b", "aB", "aa", "ab", "b"];
    for name in all_names.iter().rev() {
        make(storage, &bucket, vec![put(name, &format!("\"{name}\""))]).await;
    }
    make(storage, &bucket, vec![put_for("a.b.over", "1", Duration::from_millis(1))]).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    let mut sorted = all_names.to_vec();
    sorted.sort_unstable();
    for prefix in ["", "a", "a.", "a.b", "a.b.c", "A", "b", "c", "aBc"] {
        let expected: Vec<&str> = sorted.iter().copied().filter(|name| name.starts_with(prefix)).collect();
        for limit in [1, 2, 3, 5, 12, 1_000] {
            let (mut found, mut after, mut pages) = (Vec::new(), None, 0);
            loop {
                let range = KeyRange { prefix: prefix.into(), after, limit, ..all() };
                let page = storage.buckets.list_keys(&bucket, range).await.unwrap();
                assert!(page.entries.len() <= limit);
                found.extend(page.entries);
                pages += 1;
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
            assert_eq!(names(&found), expected, "{prefix} {limit}");
            assert!(pages <= expected.len() / limit + 2, "{prefix} {limit}: {pages} pages");
        }
    }
    // Behind one that is not there, in front of the prefix, and behind it.
    for (prefix, after, expected) in [
        ("", "a.b.b", &["a.b.c", "a.c", "a:b", "aB", "aa", "ab", "b"][..]),
        ("a.", "A", &["a.b", "a.b.c", "a.c"]),
        ("a.", "a.b", &["a.b.c", "a.c"]),
        ("a.", "b", &[]),
    ] {
        let range = KeyRange { prefix: prefix.into(), after: Some(key(after)), ..all() };
        let page = storage.buckets.list_keys(&bucket, range).await.unwrap();
        assert_eq!((names(&page.entries), page.next), (expected.to_vec(), None), "{prefix} {after}");
    }
    let without = storage.buckets.list_keys(&bucket, KeyRange { values: false, ..all() }).await.unwrap();
    for entry in without.entries {
        let found = get(storage, &bucket, entry.key.as_str()).await.unwrap();
        assert_eq!(entry, KeyEntry { value: None, ..found });
    }
}

pub(super) async fn bytes_end_a_page_of_keys_but_never_before_the_first(ground: &Ground) {
    let (bucket, storage) = (bucket(ground), &ground.storage);
    let sizes = [10, 1_000, 50, 50, 3_000, 1, 1, 400];
    for (at, size) in sizes.iter().enumerate() {
        make(storage, &bucket, vec![put(&format!("k-{at}"), &"1".repeat(*size))]).await;
    }
    for bytes_max in [0, 1, 60, 1_000, 1_060, 3_002, 100_000] {
        let (mut found, mut after) = (0, None);
        loop {
            let range = KeyRange { after, bytes_max, ..all() };
            let page = storage.buckets.list_keys(&bucket, range).await.unwrap();
            let bytes: usize = sizes[found..found + page.entries.len()].iter().sum();
            assert!(page.entries.len() == 1 || bytes <= bytes_max, "{bytes_max}: {bytes}");
            let next = sizes.get(found + page.entries.len());
            assert!(next.is_none_or(|next| bytes + next > bytes_max), "{bytes_max}: the page has room");
            found += page.entries.len();
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(found, sizes.len());
    }
    let without = KeyRange { values: false, bytes_max: 0, ..all() };
    let page = storage.buckets.list_keys(&bucket, without).await.unwrap();
    assert!(!page.entries.is_empty() && page.entries.iter().all(|entry| entry.value.is_none()));
}

pub(super) async fn names_that_differ_little_are_kept_apart(ground: &Ground) {
    let storage = &ground.storage;
    let long = "x".repeat(254);
    let base = ground.topic();
    let rests = ["", "a", "a.b", "a:b", "ab", "a-b", "A", "a.b.c", "a:b.c", "0", "values", "past"];
    let buckets: Vec<BucketName> = rests.iter().map(|rest| bucket_of(&format!("{base}x{rest}"))).collect();
    let names =
        ["a", "a.b", "a:b", "ab", "a_b", "A", "-", "0", "1-0", "keys", "due", &long, &format!("{long}y")];
    for (at, bucket) in buckets.iter().enumerate() {
        let batch = names.iter().map(|name| put_of(name, &format!("\"{at} {name}\""), name)).collect();
        set(storage, bucket, BucketSettings { history: 2, ..BucketSettings::default() }).await;
        make(storage, bucket, batch).await;
        make(
            storage,
            bucket,
            names.iter().map(|name| put_of(name, &format!("\"{at} {name}\""), name)).collect(),
        )
        .await;
    }
    for (at, bucket) in buckets.iter().enumerate() {
        for name in names {
            assert_eq!(text(storage, bucket, name).await, Some(format!("\"{at} {name}\"")));
            assert_eq!(storage.buckets.key_history(bucket, &key(name)).await.unwrap().len(), 2);
        }
        assert_eq!(storage.buckets.bucket(bucket).await.unwrap().keys, names.len() as u64);
    }
    // What goes of one takes nothing of the others.
    assert_eq!(storage.buckets.revoke_keys(&buckets[1], &key("a"), storage.upkeep.now()).await.unwrap(), 1);
    make(storage, &buckets[1], vec![delete("a.b")]).await;
    storage.buckets.delete_bucket(&buckets[2]).await.unwrap();
    for (at, bucket) in buckets.iter().enumerate().filter(|(at, _)| *at != 2) {
        let gone: &[&str] = if at == 1 { &["a", "a.b"] } else { &[] };
        let entries = table(storage, bucket).await;
        let left = names.iter().filter(|name| !gone.contains(name)).count();
        assert_eq!(entries.len(), left, "{bucket}");
        assert!(entries.iter().all(|entry| entry.owner.as_ref() == Some(&entry.key)));
        agree(storage, bucket).await;
    }
}

pub(super) async fn earlier_revisions_are_kept_as_far_as_the_bucket_says(ground: &Ground) {
    let (bucket, storage) = (bucket(ground), &ground.storage);
    let history = |history| BucketSettings { history, ..BucketSettings::default() };
    set(storage, &bucket, history(3)).await;
    let mut put_all = Vec::new();
    let write = async |number: usize| {
        let owner = format!("owner-{number}");
        let text = "1".repeat(number + 1);
        (make_one(storage, &bucket, put_of("a", &text, &owner)).await, owner, text)
    };
    let of_key = async || storage.buckets.key_history(&bucket, &key("a")).await.unwrap();
    let keeps = async |expected: &[(MessageId, String, String)]| {
        let created_at = get(storage, &bucket, "a").await.unwrap().created_at;
        let kept = of_key().await;
        let told: Vec<_> = kept
            .iter()
            .map(|entry| {
                let text = String::from_utf8(entry.value.as_ref().unwrap().bytes.to_vec()).unwrap();
                assert_eq!((&entry.key, entry.created_at, entry.expires_at), (&key("a"), created_at, None));
                (entry.revision, entry.owner.as_ref().unwrap().to_string(), text)
            })
            .collect();
        assert_eq!(told, expected.iter().rev().cloned().collect::<Vec<_>>());
        let bytes: usize = expected.iter().map(|(.., text)| text.len()).sum();
        assert_eq!(storage.buckets.bucket(&bucket).await.unwrap().bytes, bytes as u64);
    };
    for number in 0..5 {
        put_all.push(write(number).await);
        keeps(&put_all[put_all.len().saturating_sub(3)..]).await;
    }
    // Those that are too many by new settings go with the next change of their key.
    set(storage, &bucket, history(2)).await;
    put_all.push(write(5).await);
    keeps(&put_all[4..]).await;
    set(storage, &bucket, history(HISTORY_MAX)).await;
    for number in 6..80 {
        put_all.push(write(number).await);
    }
    keeps(&put_all[80 - HISTORY_MAX as usize..]).await;
    set(storage, &bucket, history(1)).await;
    put_all.push(write(80).await);
    keeps(&put_all[80..]).await;
    // They are a former owner's no more, and go with their key.
    set(storage, &bucket, history(4)).await;
    put_all.push(write(81).await);
    let revoked = storage.buckets.revoke_keys(&bucket, &key("owner-80"), storage.upkeep.now()).await.unwrap();
    assert_eq!(revoked, 0);
    keeps(&put_all[80..]).await;
    make(storage, &bucket, vec![delete("a")]).await;
    assert_eq!(of_key().await, []);
    assert_eq!(storage.buckets.bucket(&bucket).await.unwrap().bytes, 0);
    make(storage, &bucket, vec![put("a", "1")]).await;
    assert_eq!(of_key().await.len(), 1);
    agree(storage, &bucket).await;
}

pub(super) async fn a_bucket_takes_no_more_than_it_may(ground: &Ground) {
    let (bucket, storage) = (bucket(ground), &ground.storage);
    let bounds = |max_keys, max_bytes| BucketSettings { max_keys, max_bytes, ..BucketSettings::default() };
    set(storage, &bucket, bounds(Some(3), Some(10))).await;
    make(storage, &bucket, vec![put("a", "111"), put("b", "222"), put("c", "333")]).await;
    let (keys, bytes) = (KeyRefusal::TooManyKeys, KeyRefusal::TooManyBytes);
    assert_eq!(refusal(storage, &bucket, vec![put("d", "1")]).await, (0, keys));
    assert_eq!(refusal(storage, &bucket, vec![put("d", "55555")]).await, (0, keys), "keys come first");
    assert_eq!(refusal(storage, &bucket, vec![increment("d", 1, None, None)]).await, (0, keys));
    assert_eq!(refusal(storage, &bucket, vec![put("a", "55555")]).await, (0, bytes));
    make(storage, &bucket, vec![put("a", "4444")]).await;
    // A batch is judged as it is made: what goes first makes room.
    assert_eq!(refusal(storage, &bucket, vec![put("d", "1"), delete("a")]).await, (0, keys));
    make(storage, &bucket, vec![delete("a"), put("d", "1234")]).await;
    assert_eq!(
        refusal(storage, &bucket, vec![put("b", "1"), put("c", "1"), put("d", "123456789")]).await,
        (2, bytes)
    );
    make(storage, &bucket, vec![put("b", "1"), put("c", "1"), put("d", "12345678")]).await;
    // Whatever is there already may stay, and be less.
    set(storage, &bucket, bounds(Some(1), Some(1))).await;
    assert_eq!(refusal(storage, &bucket, vec![put("d", "123456789")]).await, (0, bytes));
    make(storage, &bucket, vec![put("d", "1234567"), put("b", "3")]).await;
    assert_eq!(storage.buckets.bucket(&bucket).await.unwrap().bytes, 9);
    agree(storage, &bucket).await;
    // Earlier revisions count, and those that go with the change do not.
    let other = self::bucket(ground);
    set(storage, &other, BucketSettings { history: 2, ..bounds(None, Some(10)) }).await;
    for text in ["11111", "55555", "22222"] {
        make(storage, &other, vec![put("a", text)]).await;
    }
    assert_eq!(refusal(storage, &other, vec![put("a", "666666")]).await, (0, bytes));
    make(storage, &other, vec![put("a", "33333")]).await;
    assert_eq!(refusal(storage, &other, vec![put("b", "1")]).await, (0, bytes));
    agree(storage, &other).await;
}

pub(super) async fn keys_whose_time_is_over_take_no_room(ground: &Ground) {
    let (bucket, storage) = (bucket(ground), &ground.storage);
    let bounds = BucketSettings { max_keys: Some(2), max_bytes: Some(6), ..BucketSettings::default() };
    set(storage, &bucket, bounds).await;
    let brief = Duration::from_millis(1);
    make(storage, &bucket, vec![put_for("a", "111", brief), put_for("b", "111", brief)]).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    make(storage, &bucket, vec![put("c", "333333")]).await;
    let told = log(storage, &bucket).await;
    let expired = told.iter().filter(|(logged, _)| logged.change == LoggedKind::Expired).count();
    assert_eq!((expired, names(&table(storage, &bucket).await)), (2, vec!["c"]));
    agree(storage, &bucket).await;
}

pub(super) async fn all_keys_of_an_owner_are_revoked_and_no_others(ground: &Ground) {
    let (bucket, storage) = (bucket(ground), &ground.storage);
    let now = storage.upkeep.now();
    for part in 0..5 {
        let name = |number: usize| format!("k-{}", part * 50 + number);
        make(storage, &bucket, (0..50).map(|number| put_of(&name(number), "[1]", "ann")).collect()).await;
    }
    let others = ["ann.x", "an", "anna", "Ann", "ann-1", "bob"];
    make(storage, &bucket, others.iter().map(|owner| put_of(&format!("of-{owner}"), "1", owner)).collect())
        .await;
    make(
        storage,
        &bucket,
        vec![put("nobody", "1"), put_of("changed", "1", "ann"), put_of("left", "1", "ann")],
    )
    .await;
    make(storage, &bucket, vec![put_of("changed", "2", "bob"), put("left", "2")]).await;
    make(storage, &bucket, vec![put_of("counted", "1", "ann")]).await;
    make(storage, &bucket, vec![increment("counted", 1, None, None)]).await;
    make(storage, &bucket, vec![put_of("gone", "1", "ann")]).await;
    make(storage, &bucket, vec![delete("gone")]).await;
    let before = log(storage, &bucket).await.len();
    let revoked = storage.buckets.revoke_keys(&bucket, &key("ann"), now).await.unwrap();
    assert_eq!(revoked, 251, "an increment leaves a key whose it is");
    let mut left: Vec<String> = others.iter().map(|owner| format!("of-{owner}")).collect();
    left.extend(["changed", "left", "nobody"].map(str::to_owned));
    left.sort_unstable();
    assert_eq!(names(&table(storage, &bucket).await), left);
    let told = log(storage, &bucket).await;
    assert_eq!(told.len() - before, 251, "each is a change");
    for (logged, message) in &told[before..] {
        assert_eq!((logged.change, message.timestamp), (LoggedKind::Deleted, now));
    }
    assert_eq!(storage.buckets.revoke_keys(&bucket, &key("ann"), now).await.unwrap(), 0);
    assert_eq!(storage.buckets.revoke_keys(&bucket, &key("bob"), now).await.unwrap(), 2);
    agree(storage, &bucket).await;
}

pub(super) async fn buckets_are_described_and_listed(ground: &Ground) {
    let storage = &ground.storage;
    let made: Vec<BucketName> = ["b", "a.1", "a", "C", "a:1"].map(bucket_of).into();
    for bucket in &made {
        let settings = BucketSettings {
            history: 7,
            ttl: Some(Duration::from_millis(1_500)),
            absolute_age: Some(Duration::from_hours(24 * 30)),
            max_keys: Some(u64::from(u32::MAX)),
            max_bytes: Some(1),
            adaptive_ttl: Some(AdaptiveTtl {
                min: Duration::from_millis(1),
                max: Duration::from_hours(24 * 30),
            }),
        };
        assert!(set(storage, bucket, settings).await);
        let state = storage.buckets.bucket(bucket).await.unwrap();
        assert_eq!((state.settings, state.keys, state.bytes), (settings, 0, 0));
        let now = storage.upkeep.now();
        assert!(state.created_at <= now.saturating_add(SOON) && state.created_at.saturating_add(SOON) >= now);
        assert!(!set(storage, bucket, BucketSettings::default()).await);
        let again = storage.buckets.bucket(bucket).await.unwrap();
        assert_eq!((again.settings, again.created_at), (BucketSettings::default(), state.created_at));
    }
    let mut sorted = made.clone();
    sorted.sort_unstable();
    let listed =
        async |after: Option<&BucketName>, limit| storage.buckets.bucket_names(after, limit).await.unwrap();
    assert_eq!(listed(None, 100).await, sorted);
    assert_eq!(listed(None, 2).await, sorted[..2]);
    assert_eq!(listed(Some(&sorted[1]), 2).await, sorted[2..4]);
    assert_eq!(listed(Some(&bucket_of("a.0")), 1).await, [bucket_of("a.1")]);
    assert_eq!(listed(Some(&sorted[4]), 2).await, []);
    // Rooms are buckets of their own kind, and in a list of their own.
    let room = |text: &str| RoomName::parse(text).unwrap();
    for name in ["b", "a.0", "a"] {
        make(storage, &BucketName::of_room(&room(name)), vec![put("ann", "1")]).await;
    }
    assert_eq!(listed(None, 100).await, sorted);
    let rooms =
        async |after: Option<&RoomName>, limit| storage.buckets.room_names(after, limit).await.unwrap();
    assert_eq!(rooms(None, 100).await, ["a", "a.0", "b"].map(room));
    assert_eq!(rooms(None, 2).await, ["a", "a.0"].map(room));
    assert_eq!(rooms(Some(&room("a")), 2).await, ["a.0", "b"].map(room));
    assert_eq!(rooms(Some(&room("b")), 2).await, []);
    storage.buckets.delete_bucket(&sorted[2]).await.unwrap();
    assert_eq!(listed(None, 100).await.len(), 4);
}

pub(super) async fn buckets_past_the_limit_are_refused(ground: &Ground) {
    let storage = ground.under(StorageLimits { buckets_max: 2, ..LIMITS }).await;
    let [one, two, three] = [(); 3].map(|()| bucket(ground));
    set(&storage, &one, BucketSettings::default()).await;
    make(&storage, &two, vec![put("a", "1")]).await;
    let is_refused = |result: Result<(), StorageError>| {
        assert!(matches!(result, Err(StorageError::BucketsLimit)), "{result:?}");
    };
    is_refused(storage.buckets.put_bucket(&three, BucketSettings::default()).await.map(drop));
    let all = changes(&storage, &three, vec![put("a", "1")]);
    is_refused(storage.buckets.change_keys(all).await.map(drop));
    make(&storage, &one, vec![put("a", "1")]).await;
    set(&storage, &two, BucketSettings::default()).await;
    storage.buckets.delete_bucket(&one).await.unwrap();
    eventually(SOON, async || has_room(&storage, &three).await).await;
    is_refused(storage.buckets.put_bucket(&one, BucketSettings::default()).await.map(drop));
}

async fn has_room(storage: &Storage, bucket: &BucketName) -> bool {
    storage.buckets.put_bucket(bucket, BucketSettings::default()).await.is_ok()
}

pub(super) async fn the_longest_names_are_names_like_others(ground: &Ground) {
    let storage = &ground.storage;
    let long: KeyName = key(&"k".repeat(255));
    let bucket = bucket_of(&"b".repeat(255));
    make(storage, &bucket, vec![put_of(long.as_str(), "1", long.as_str())]).await;
    let page = storage.buckets.list_keys(&bucket, KeyRange { prefix: long.as_str().into(), ..all() }).await;
    assert_eq!(names(&page.unwrap().entries), [long.as_str()]);
    assert_eq!(storage.buckets.revoke_keys(&bucket, &long, storage.upkeep.now()).await.unwrap(), 1);
    agree(storage, &bucket).await;
}
