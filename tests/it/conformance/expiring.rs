//! Keys whose time is over: they are not there, and their log tells so, once.

use std::time::Duration;

use tidemill::proto::{BucketName, TopicName};
use tidemill::storage::{
    BucketSettings, EXPIRED_MAX, Idempotency, KeyCondition, KeyPage, KeyRefusal, KeysChanged, KeysExpired,
    LoggedKind, Storage,
};
use tokio::task::JoinSet;

use super::buckets::{
    agree, all, bucket, changes, delete, get, increment, key, log, make, make_one, nodes, put, put_for,
    put_of, refusal, set, table, text, where_it,
};
use crate::support::eventually;
use crate::support::ground::{Ground, Heard, SOON, read_all};

/// So short that a test waits for it.
const BRIEF: Duration = Duration::from_millis(200);
const HOUR: Duration = Duration::from_hours(1);

async fn wait_for_end(storage: &Storage, bucket: &BucketName, name: &str) {
    eventually(SOON, async || get(storage, bucket, name).await.is_none()).await;
}

async fn expire(storage: &Storage, bucket: &BucketName) -> KeysExpired {
    let expired = storage.buckets.expire_keys(std::slice::from_ref(bucket)).await.pop();
    expired.expect("an answer for each").expect("it is looked at")
}

/// Has all keys expire whose time is over, and returns how many.
pub(super) async fn expire_all(storage: &Storage, bucket: &BucketName) -> usize {
    let mut count = 0;
    loop {
        let expired = expire(storage, bucket).await;
        assert!(expired.count <= EXPIRED_MAX);
        count += expired.count;
        if expired.next_in.is_none_or(|next| !next.is_zero()) {
            return count;
        }
    }
}

pub(super) async fn a_change_tells_when_its_key_expires(ground: &Ground) {
    let (bucket, storage) = (bucket(ground), &ground.storage);
    let all =
        vec![put("never", "1"), put_for("hour", "1", HOUR), increment("n", 1, None, None), delete("none")];
    let first = make(storage, &bucket, all.clone()).await;
    set(storage, &bucket, BucketSettings { ttl: Some(HOUR), ..BucketSettings::default() }).await;
    let second = make(storage, &bucket, all).await;
    for (changed, has_time) in [(first, [false, true, false, false]), (second, [true, true, false, false])] {
        let told: Vec<_> = changed.iter().map(|one| one.expires_at.is_some()).collect();
        assert_eq!(told, has_time, "{changed:?}");
    }
    let mut keyed = changes(storage, &bucket, vec![put("new", "1"), delete("hour")]);
    keyed.idempotency = Some(Idempotency { key: "one".into(), fingerprint: [1; 16] });
    let ask = async || match storage.buckets.change_keys(keyed.clone()).await.expect("it answers") {
        KeysChanged::Made { changed, .. } => changed,
        refused @ KeysChanged::Refused { .. } => panic!("{refused:?}"),
    };
    let made = ask().await;
    let kept = get(storage, &bucket, "new").await.expect("it is there");
    assert_eq!((made[0].expires_at, made[1].expires_at), (kept.expires_at, None));
    assert_eq!(ask().await, made, "the repeat has the answer of the first");
}

pub(super) async fn a_key_whose_time_is_over_is_not_there(ground: &Ground) {
    let (bucket, storage) = (bucket(ground), &ground.storage);
    set(storage, &bucket, BucketSettings { history: 3, ..BucketSettings::default() }).await;
    make(storage, &bucket, vec![put("a", "0"), put("b", "1"), put_of("c", "1", "ann")]).await;
    let first = make_one(storage, &bucket, put_for("a", "1", BRIEF)).await;
    let entry = get(storage, &bucket, "a").await.expect("it lives yet");
    assert!(entry.expires_at > Some(entry.created_at));
    wait_for_end(storage, &bucket, "a").await;
    assert!(table(storage, &bucket).await.iter().all(|entry| entry.key != key("a")));
    assert_eq!(storage.buckets.key_history(&bucket, &key("a")).await.unwrap(), []);
    assert_eq!(storage.buckets.touch_key(&bucket, &key("a"), Some(HOUR), true).await.unwrap(), None);
    assert_eq!(get(storage, &bucket, "a").await, None, "a touch brings nothing back");
    let gone = KeyRefusal::Condition(None);
    for condition in [KeyCondition::Present, KeyCondition::Revision(first)] {
        let refused = refusal(storage, &bucket, vec![where_it(condition, put("a", "2"))]).await;
        assert_eq!(refused, (0, gone));
    }
    // Its expiry is told with the change that finds it, in front.
    let before = log(storage, &bucket).await;
    let batch = vec![where_it(KeyCondition::Absent, put("a", "3")), delete("b")];
    let changed = make(storage, &bucket, batch).await;
    assert!(changed[0].is_new);
    let told = log(storage, &bucket).await;
    let is_told = before.iter().any(|(logged, _)| logged.change == LoggedKind::Expired);
    let of_step: Vec<_> = told[before.len()..]
        .iter()
        .map(|(logged, _)| (logged.key.as_str(), logged.change, logged.more))
        .collect();
    let expected =
        [("a", LoggedKind::Expired, true), ("a", LoggedKind::Put, true), ("b", LoggedKind::Deleted, false)];
    assert_eq!(of_step, expected[usize::from(is_told)..]);
    let kept = storage.buckets.key_history(&bucket, &key("a")).await.unwrap();
    assert_eq!(kept.len(), 1, "what was before is gone");
    assert!(kept[0].created_at >= entry.expires_at.unwrap() && kept[0].expires_at.is_none());
    agree(storage, &bucket).await;
    // One that is deleted has only expired.
    make(storage, &bucket, vec![put_for("d", "1", Duration::from_millis(1))]).await;
    wait_for_end(storage, &bucket, "d").await;
    let deleted = make(storage, &bucket, vec![delete("d")]).await;
    assert_eq!((deleted[0].revision, deleted[0].is_new), (None, false));
    expire_all(storage, &bucket).await;
    let of_d = log(storage, &bucket).await.into_iter().filter(|(logged, _)| logged.key == key("d"));
    let of_d: Vec<_> = of_d.map(|(logged, _)| logged.change).collect();
    assert_eq!(of_d, [LoggedKind::Put, LoggedKind::Expired]);
    agree(storage, &bucket).await;
}

pub(super) async fn keys_expire_once_however_many_nodes_look(ground: &Ground) {
    const KEYS: usize = 450;

    let (bucket, storages) = (bucket(ground), nodes(ground).await);
    let storage = &ground.storage;
    for part in 0..KEYS / 50 {
        let name = |number: usize| format!("k-{}", part * 50 + number);
        let batch = (0..50).map(|number| put_for(&name(number), "[1]", BRIEF)).collect();
        make(storage, &bucket, batch).await;
    }
    make(storage, &bucket, vec![put_for("later", "1", HOUR), put("never", "1")]).await;
    tokio::time::sleep(BRIEF).await;
    let mut tasks = JoinSet::new();
    for task in 0..8 {
        let (storage, bucket) = (storages[task % storages.len()].clone(), bucket.clone());
        tasks.spawn(async move {
            let mut count = expire_all(&storage, &bucket).await;
            // Those who change find them, too.
            for number in 0..20 {
                make(&storage, &bucket, vec![delete(&format!("k-{}", number * 20 + task))]).await;
            }
            count += expire_all(&storage, &bucket).await;
            count
        });
    }
    let count: usize = tasks.join_all().await.into_iter().sum();
    assert!(count <= KEYS, "{count}");
    let left = expire(storage, &bucket).await;
    assert_eq!(left.count, 0);
    assert!(left.next_in.is_some_and(|next| next <= HOUR && next > HOUR / 2), "{left:?}");
    let told = log(storage, &bucket).await;
    let mut expired: Vec<_> = told
        .iter()
        .filter(|(logged, _)| logged.change == LoggedKind::Expired)
        .map(|(logged, _)| logged.key.to_string())
        .collect();
    expired.sort_unstable();
    let mut names: Vec<_> = (0..KEYS).map(|number| format!("k-{number}")).collect();
    names.sort_unstable();
    assert_eq!(expired, names, "each once");
    let state = storage.buckets.bucket(&bucket).await.unwrap();
    assert_eq!((state.keys, state.bytes), (2, 2));
    agree(storage, &bucket).await;
}

pub(super) async fn those_that_were_due_first_expire_first(ground: &Ground) {
    let (bucket, storage) = (bucket(ground), &ground.storage);
    let mut ends = Vec::new();
    for number in 0..20_u32 {
        let name = format!("k-{number}");
        make(storage, &bucket, vec![put_for(&name, "1", HOUR)]).await;
        let ttl = Duration::from_millis(20) * (number * 7 % 20);
        let touched = storage.buckets.touch_key(&bucket, &key(&name), Some(ttl), false).await.unwrap();
        ends.push((touched.expect("it is there").expires_at, key(&name)));
    }
    let last = ends.iter().max().unwrap().0.unwrap();
    eventually(SOON, async || storage.upkeep.now() > last.saturating_add(BRIEF)).await;
    assert_eq!(expire_all(storage, &bucket).await, 20);
    let told = log(storage, &bucket).await;
    let expired = told.into_iter().filter(|(logged, _)| logged.change == LoggedKind::Expired);
    ends.sort_unstable();
    assert_eq!(
        expired.map(|(logged, _)| logged.key).collect::<Vec<_>>(),
        ends.into_iter().map(|(_, key)| key).collect::<Vec<_>>()
    );
    agree(storage, &bucket).await;
}

pub(super) async fn buckets_in_which_a_key_expires_are_told(ground: &Ground) {
    let storage = &ground.storage;
    let [soon, far, never, gone] = [(); 4].map(|()| bucket(ground));
    make(storage, &soon, vec![put_for("a", "1", HOUR), put_for("b", "1", Duration::from_mins(1))]).await;
    make(storage, &far, vec![put_for("a", "1", HOUR * 100)]).await;
    make(storage, &never, vec![put("a", "1")]).await;
    make(storage, &gone, vec![put_for("a", "1", Duration::from_mins(1))]).await;
    storage.buckets.delete_bucket(&gone).await.unwrap();
    let within = async |within| storage.buckets.expiring_within(within, 10).await.unwrap();
    let told = within(Duration::from_secs(61)).await;
    assert_eq!(told.iter().map(|(bucket, _)| bucket).collect::<Vec<_>>(), [&soon]);
    assert!(told[0].1 <= Duration::from_mins(1) && told[0].1 > Duration::from_secs(30), "{told:?}");
    assert_eq!(within(HOUR * 101).await.len(), 2);
    let first = storage.buckets.expiring_within(HOUR * 101, 1).await.unwrap();
    assert_eq!(first.iter().map(|(bucket, _)| bucket).collect::<Vec<_>>(), [&soon]);
    // One that is touched to live less is told sooner; whoever looks in vain is not told of it again.
    storage.buckets.touch_key(&far, &key("a"), Some(Duration::from_secs(5)), false).await.unwrap();
    eventually(SOON, async || within(Duration::from_secs(10)).await.iter().any(|(bucket, _)| *bucket == far))
        .await;
    storage.buckets.touch_key(&far, &key("a"), Some(HOUR), false).await.unwrap();
    assert_eq!(expire(storage, &far).await.count, 0);
    let told = within(Duration::from_secs(61)).await;
    assert_eq!(told.iter().map(|(bucket, _)| bucket).collect::<Vec<_>>(), [&soon]);
}

pub(super) async fn a_touch_gives_time_and_tells_nobody(ground: &Ground) {
    let (bucket, storage) = (bucket(ground), &ground.storage);
    let other = super::buckets::bucket(ground);
    make(storage, &bucket, vec![put("a", "1")]).await;
    make(storage, &other, vec![put("a", "1")]).await;
    let before = get(storage, &bucket, "a").await.unwrap();
    let (told, tail) = (log(storage, &bucket).await, storage.live.tail(&TopicName::log_of(&bucket)).await);
    let mut heard = Heard::of(storage);
    let touch = async |name: &str, ttl, value| {
        storage.buckets.touch_key(&bucket, &key(name), ttl, value).await.unwrap()
    };
    let touched = touch("a", Some(HOUR), true).await.unwrap();
    let expires_at = touched.expires_at.expect("it has a time now");
    assert!(expires_at >= before.created_at.saturating_add(HOUR));
    assert_eq!(touched, tidemill::storage::KeyEntry { expires_at: Some(expires_at), ..before.clone() });
    assert_eq!(get(storage, &bucket, "a").await, Some(touched));
    let without = touch("a", Some(HOUR * 2), false).await.unwrap();
    assert!(without.value.is_none() && without.expires_at > Some(expires_at));
    assert_eq!(touch("a", None, true).await, Some(before.clone()), "the bucket has no time: for ever");
    assert_eq!(touch("none", Some(HOUR), true).await, None);
    assert_eq!(get(storage, &bucket, "none").await, None, "it never creates");
    assert_eq!(log(storage, &bucket).await, told);
    assert_eq!(storage.live.tail(&TopicName::log_of(&bucket)).await.unwrap(), tail.unwrap());
    make(storage, &other, vec![put("a", "2")]).await;
    let first = std::iter::from_fn(|| heard.told()).collect::<Vec<_>>();
    assert!(first.contains(&TopicName::log_of(&other)) && !first.contains(&TopicName::log_of(&bucket)));
    // What is given back to those who live longer than they should have.
    touch("a", Some(BRIEF), false).await.unwrap();
    touch("a", Some(HOUR), false).await.unwrap();
    tokio::time::sleep(BRIEF).await;
    assert_eq!(
        (expire_all(storage, &bucket).await, text(storage, &bucket, "a").await),
        (0, Some("1".into()))
    );
}

pub(super) async fn the_times_of_a_bucket_hold_from_then_on(ground: &Ground) {
    let (bucket, storage) = (bucket(ground), &ground.storage);
    let settings = |ttl, absolute_age| BucketSettings { ttl, absolute_age, ..BucketSettings::default() };
    assert!(set(storage, &bucket, BucketSettings::default()).await, "it is new");
    make(storage, &bucket, vec![put("old", "1")]).await;
    assert!(!set(storage, &bucket, settings(Some(HOUR), Some(HOUR * 2))).await);
    let life = async |name: &str| {
        let entry = get(storage, &bucket, name).await.expect("it is there");
        let end = entry.expires_at?.as_millis();
        Some(Duration::from_millis(end - entry.created_at.as_millis()))
    };
    assert_eq!(life("old").await, None, "what is there stays as it is");
    make(
        storage,
        &bucket,
        vec![put("new", "1"), put_for("own", "1", HOUR / 2), put_for("long", "1", HOUR * 9)],
    )
    .await;
    assert_eq!(life("new").await, Some(HOUR));
    assert_eq!(life("own").await, Some(HOUR / 2));
    assert_eq!(life("long").await, Some(HOUR * 2), "nothing lives longer");
    tokio::time::sleep(Duration::from_millis(5)).await;
    make(storage, &bucket, vec![put_for("long", "2", HOUR * 9)]).await;
    assert_eq!(life("long").await, Some(HOUR * 2), "whatever is put meanwhile");
    for (name, ttl, expected) in [
        ("long", Some(HOUR * 9), HOUR * 2),
        ("own", Some(HOUR * 9), HOUR * 2),
        ("old", Some(HOUR * 9), HOUR * 2),
    ] {
        storage.buckets.touch_key(&bucket, &key(name), ttl, false).await.unwrap();
        assert_eq!(life(name).await, Some(expected), "{name}");
    }
    storage.buckets.touch_key(&bucket, &key("old"), None, false).await.unwrap();
    let of_bucket = life("old").await.unwrap();
    assert!(
        of_bucket >= HOUR && of_bucket < HOUR + SOON,
        "the time of the bucket, from now on: {of_bucket:?}"
    );
    // A bucket that says nothing any more: for ever.
    set(storage, &bucket, settings(None, None)).await;
    assert_eq!(life("new").await, Some(HOUR));
    make(storage, &bucket, vec![put("new", "2")]).await;
    assert_eq!(life("new").await, None);
    set(storage, &bucket, settings(None, Some(BRIEF))).await;
    make(storage, &bucket, vec![put("short", "1")]).await;
    let made = table_of(storage, &bucket).await;
    assert!(made.entries.iter().all(|entry| entry.key != key("short") || entry.expires_at.is_some()));
    wait_for_end(storage, &bucket, "short").await;
    expire_all(storage, &bucket).await;
    agree(storage, &bucket).await;
}

async fn table_of(storage: &Storage, bucket: &BucketName) -> KeyPage {
    storage.buckets.list_keys(bucket, all()).await.unwrap()
}

pub(super) async fn what_has_expired_is_told_to_who_listens(ground: &Ground) {
    let (bucket, storage) = (bucket(ground), &ground.storage);
    let log_name = TopicName::log_of(&bucket);
    make(storage, &bucket, vec![put_for("a", "1", BRIEF)]).await;
    let mut heard = Heard::of(storage);
    wait_for_end(storage, &bucket, "a").await;
    assert_eq!(expire_all(storage, &bucket).await, 1);
    assert!(std::iter::from_fn(|| heard.told()).any(|topic| topic == log_name), "before it is answered");
    let messages = read_all(storage, &log_name, tidemill::proto::page::Order::Asc, 10).await;
    let [put, expired] = &messages[..] else { panic!("{messages:?}") };
    assert!(expired.timestamp >= put.timestamp.saturating_add(BRIEF / 2), "it is told when it has expired");
}
