//! Fills: one of all who ask for a key that is not there, or stale, puts it.

use std::time::Duration;

use tidemill::proto::BucketName;
use tidemill::storage::{
    AdaptiveTtl, BucketSettings, FillAsked, FillToken, KeyChange, KeyCondition, KeyEdit, KeyFill, KeyRefusal,
    Storage, StorageError,
};
use tokio::task::JoinSet;

use super::buckets::{
    ask, bucket, delete, get, increment, json, key, make, make_one, put, put_of, refusal, set, text, where_it,
};
use crate::support::ground::{Ground, LIMITS};

const LONG: Duration = Duration::from_mins(1);
const BRIEF: Duration = Duration::from_millis(50);

pub(super) fn asked(bucket: &BucketName, name: &str, token: u8, within: Duration) -> FillAsked {
    let token = FillToken([token; 16]);
    FillAsked { bucket: bucket.clone(), key: key(name), token, within, create_bucket: true }
}

async fn fill(storage: &Storage, bucket: &BucketName, token: u8, within: Duration) -> KeyFill {
    storage.buckets.fill_key(&asked(bucket, "k", token, within)).await.expect("it answers")
}

/// Returns a change that is made only by who fills the key.
fn under(token: u8, change: KeyChange) -> KeyChange {
    where_it(KeyCondition::Filling(FillToken([token; 16])), change)
}

fn put_fresh(text: &str, fresh: Duration) -> KeyChange {
    let edit = KeyEdit::Put { value: json(text.to_owned()), ttl: None, fresh: Some(fresh), owner: None };
    super::buckets::change("k", edit)
}

#[track_caller]
fn is_granted(fill: &KeyFill) {
    assert_eq!(fill, &KeyFill::Granted(None));
}

#[track_caller]
fn is_filled_by_another(fill: &KeyFill, within: Duration) {
    match fill {
        KeyFill::Filling { stale: None, over_in } => assert!(*over_in <= within, "{over_in:?}"),
        other => panic!("{other:?}"),
    }
}

pub(super) async fn of_all_who_ask_for_a_key_one_fills_it(ground: &Ground) {
    let mut storages = vec![ground.storage.clone()];
    if ground.has_server() {
        storages.push(ground.under(LIMITS).await);
    }
    let bucket = bucket(ground);
    for round in 0..10 {
        let mut asking = JoinSet::new();
        for at in 0..40_u8 {
            let storage = storages[usize::from(at) % storages.len()].clone();
            let asked = asked(&bucket, &format!("k-{round}"), at, LONG);
            asking.spawn(async move { storage.buckets.fill_key(&asked).await.expect("it answers") });
        }
        let fills = asking.join_all().await;
        let granted = fills.iter().filter(|fill| matches!(fill, KeyFill::Granted(None))).count();
        let others = fills.iter().filter(|fill| matches!(fill, KeyFill::Filling { stale: None, .. })).count();
        assert_eq!((granted, others), (1, 39), "{fills:?}");
    }
}

pub(super) async fn a_token_fills_a_key_once(ground: &Ground) {
    let (bucket, storage) = (bucket(ground), &ground.storage);
    is_granted(&fill(storage, &bucket, 1, LONG).await);
    is_filled_by_another(&fill(storage, &bucket, 2, LONG).await, LONG);
    // Also who asks again with the same one.
    is_filled_by_another(&fill(storage, &bucket, 1, LONG).await, LONG);
    for token in [0, 2] {
        let refused = refusal(storage, &bucket, vec![under(token, put("k", "0"))]).await;
        assert_eq!(refused, (0, KeyRefusal::Condition(None)), "{token}");
    }
    let other = refusal(storage, &bucket, vec![under(1, put("other", "0"))]).await;
    assert_eq!(other, (0, KeyRefusal::Condition(None)), "it is of one key");
    let revision = make_one(storage, &bucket, under(1, put("k", "1"))).await;
    let again = refusal(storage, &bucket, vec![put("x", "1"), under(1, put("k", "2"))]).await;
    assert_eq!(again, (1, KeyRefusal::Condition(Some(revision))));
    assert_eq!(
        (text(storage, &bucket, "k").await.as_deref(), get(storage, &bucket, "x").await),
        (Some("1"), None)
    );
    let entry = get(storage, &bucket, "k").await.unwrap();
    assert_eq!(fill(storage, &bucket, 3, LONG).await, KeyFill::Fresh(entry));
}

pub(super) async fn who_fills_too_late_has_no_effect(ground: &Ground) {
    let (bucket, storage) = (bucket(ground), &ground.storage);
    is_granted(&fill(storage, &bucket, 1, BRIEF).await);
    is_filled_by_another(&fill(storage, &bucket, 2, LONG).await, BRIEF);
    tokio::time::sleep(BRIEF * 2).await;
    let late = refusal(storage, &bucket, vec![under(1, put("k", "1"))]).await;
    assert_eq!(late, (0, KeyRefusal::Condition(None)));
    is_granted(&fill(storage, &bucket, 2, LONG).await);
    let late = refusal(storage, &bucket, vec![under(1, put("k", "1"))]).await;
    assert_eq!(late, (0, KeyRefusal::Condition(None)), "another has it now");
    make_one(storage, &bucket, under(2, put("k", "2"))).await;
    assert_eq!(text(storage, &bucket, "k").await.as_deref(), Some("2"));
}

pub(super) async fn what_changes_a_key_meanwhile_takes_its_fill_away(ground: &Ground) {
    let (bucket, storage) = (bucket(ground), &ground.storage);
    for (at, meanwhile) in [
        vec![put("k", "1")],
        vec![put("other", "1"), increment("k", 1, None, None)],
        // It is not there: whoever fills it may have read what was true before.
        vec![delete("k")],
    ]
    .into_iter()
    .enumerate()
    {
        make(storage, &bucket, vec![delete("k")]).await;
        is_granted(&fill(storage, &bucket, 1, LONG).await);
        make(storage, &bucket, vec![put("other", "2")]).await;
        is_filled_by_another(&fill(storage, &bucket, 2, LONG).await, LONG);
        make(storage, &bucket, meanwhile).await;
        let before = text(storage, &bucket, "k").await;
        let (_, refused) = refusal(storage, &bucket, vec![under(1, put("k", "9"))]).await;
        assert!(matches!(refused, KeyRefusal::Condition(_)), "{at}: {refused:?}");
        assert_eq!(text(storage, &bucket, "k").await, before, "{at}");
    }
    // One that is refused changes nothing of it, and who revokes does.
    make(storage, &bucket, vec![delete("k")]).await;
    is_granted(&fill(storage, &bucket, 1, LONG).await);
    refusal(storage, &bucket, vec![where_it(KeyCondition::Present, put("k", "0"))]).await;
    make_one(storage, &bucket, under(1, put_of("k", "1", "ann"))).await;
    make(
        storage,
        &bucket,
        vec![super::buckets::change("k", {
            let value = json("1".to_owned());
            KeyEdit::Put { value, ttl: None, fresh: Some(Duration::from_millis(1)), owner: Some(key("ann")) }
        })],
    )
    .await;
    tokio::time::sleep(BRIEF).await;
    assert!(matches!(fill(storage, &bucket, 2, LONG).await, KeyFill::Granted(Some(_))));
    let now = storage.upkeep.now();
    assert_eq!(storage.buckets.revoke_keys(&bucket, &key("ann"), now).await.unwrap(), 1);
    assert_eq!(refusal(storage, &bucket, vec![under(2, put("k", "2"))]).await.1, KeyRefusal::Condition(None));
}

pub(super) async fn a_stale_value_is_there_until_it_is_filled(ground: &Ground) {
    let (bucket, storage) = (bucket(ground), &ground.storage);
    make(storage, &bucket, vec![put_fresh("1", LONG)]).await;
    let fresh = get(storage, &bucket, "k").await.unwrap();
    let until = fresh.fresh_until.expect("it was said");
    let in_a_minute = storage.upkeep.now().saturating_add(LONG);
    assert!(until <= in_a_minute.saturating_add(BRIEF) && !fresh.is_stale(storage.upkeep.now()), "{until}");
    assert_eq!(fill(storage, &bucket, 1, LONG).await, KeyFill::Fresh(fresh));
    make(storage, &bucket, vec![put_fresh("2", BRIEF)]).await;
    tokio::time::sleep(BRIEF * 2).await;
    let stale = get(storage, &bucket, "k").await.expect("it is there still");
    assert!(stale.is_stale(storage.upkeep.now()));
    assert_eq!(fill(storage, &bucket, 1, LONG).await, KeyFill::Granted(Some(stale.clone())));
    match fill(storage, &bucket, 2, LONG).await {
        KeyFill::Filling { stale: Some(entry), over_in } => {
            assert_eq!(entry, stale);
            assert!(over_in <= LONG && !over_in.is_zero());
        }
        other => panic!("{other:?}"),
    }
    // To add to it does not make it fresh, and that is a change.
    make(storage, &bucket, vec![increment("k", 1, None, None)]).await;
    let added = get(storage, &bucket, "k").await.unwrap();
    assert_eq!(added.fresh_until, stale.fresh_until);
    assert_eq!(fill(storage, &bucket, 3, LONG).await, KeyFill::Granted(Some(added)));
    make_one(storage, &bucket, under(3, put_fresh("4", LONG))).await;
    assert!(matches!(fill(storage, &bucket, 4, LONG).await, KeyFill::Fresh(_)));
    // One that is put without a time is fresh for ever, and earlier revisions say nothing of it.
    set(storage, &bucket, BucketSettings { history: 3, ..BucketSettings::default() }).await;
    make(storage, &bucket, vec![put("k", "5")]).await;
    let kept = storage.buckets.key_history(&bucket, &key("k")).await.unwrap();
    assert_eq!(kept.iter().map(|entry| entry.fresh_until).collect::<Vec<_>>(), [None, None]);
}

pub(super) async fn the_end_of_a_key_is_not_that_of_its_fill(ground: &Ground) {
    let (bucket, storage) = (bucket(ground), &ground.storage);
    let edit = KeyEdit::Put {
        value: json("1".to_owned()),
        ttl: Some(BRIEF * 4),
        fresh: Some(Duration::from_millis(1)),
        owner: None,
    };
    make(storage, &bucket, vec![super::buckets::change("k", edit)]).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(matches!(fill(storage, &bucket, 1, LONG).await, KeyFill::Granted(Some(_))));
    tokio::time::sleep(BRIEF * 4).await;
    is_filled_by_another(&fill(storage, &bucket, 2, LONG).await, LONG);
    let expired = storage.buckets.expire_keys(std::slice::from_ref(&bucket)).await.pop().unwrap();
    assert!(expired.unwrap().count <= 1);
    is_filled_by_another(&fill(storage, &bucket, 2, LONG).await, LONG);
    make_one(storage, &bucket, under(1, put("k", "2"))).await;
}

pub(super) async fn a_fill_makes_its_bucket_only_if_asked(ground: &Ground) {
    let (bucket, storage) = (bucket(ground), &ground.storage);
    let without = FillAsked { create_bucket: false, ..asked(&bucket, "k", 1, LONG) };
    let refused = storage.buckets.fill_key(&without).await;
    assert!(matches!(refused, Err(StorageError::NoBucket)), "{refused:?}");
    assert!(matches!(storage.buckets.bucket(&bucket).await, Err(StorageError::NoBucket)));
    is_granted(&fill(storage, &bucket, 1, LONG).await);
    let made = storage.buckets.bucket(&bucket).await.expect("it was made");
    assert_eq!((made.keys, made.settings), (0, BucketSettings::default()));
    // Who deletes it takes the fill away.
    storage.buckets.delete_bucket(&bucket).await.unwrap();
    let (_, refused) = match ask(storage, &bucket, vec![under(1, put("k", "1"))]).await {
        tidemill::storage::KeysChanged::Refused { at, refusal } => (at, refusal),
        other @ tidemill::storage::KeysChanged::Made { .. } => panic!("{other:?}"),
    };
    assert_eq!(refused, KeyRefusal::Condition(None));
}

const MIN: Duration = Duration::from_mins(10);
const MAX: Duration = Duration::from_hours(2);

fn adaptive() -> BucketSettings {
    BucketSettings { adaptive_ttl: Some(AdaptiveTtl { min: MIN, max: MAX }), ..BucketSettings::default() }
}

async fn read(storage: &Storage, bucket: &BucketName, name: &str, reads: u32) {
    storage.buckets.count_reads(bucket, &[(key(name), reads)]).await.expect("it answers");
}

/// Fills a key that is not there, and returns for how long it lives; `None` for ever.
async fn lifetime(storage: &Storage, bucket: &BucketName, edit: KeyEdit) -> Option<Duration> {
    make(storage, bucket, vec![delete("k")]).await;
    is_granted(&fill(storage, bucket, 1, LONG).await);
    let made = make(storage, bucket, vec![under(1, super::buckets::change("k", edit))]).await;
    let entry = get(storage, bucket, "k").await.expect("it is filled");
    assert_eq!(made[0].expires_at, entry.expires_at);
    let lives = entry.expires_at?.as_millis() - entry.created_at.as_millis();
    Some(Duration::from_millis(lives))
}

fn plain() -> KeyEdit {
    KeyEdit::Put { value: json("1"), ttl: None, fresh: None, owner: None }
}

/// A little of what was counted is gone by the time that it counts.
#[track_caller]
fn is_about(lives: Option<Duration>, expected: Duration) {
    let lives = lives.expect("it has a time");
    assert!(lives <= expected && lives >= expected.mul_f64(0.95), "{lives:?} and not {expected:?}");
}

pub(super) async fn a_fill_lives_by_how_often_its_key_was_read(ground: &Ground) {
    let (bucket, storage) = (bucket(ground), &ground.storage);
    assert!(set(storage, &bucket, adaptive()).await);
    assert_eq!(storage.buckets.bucket(&bucket).await.unwrap().settings, adaptive());
    assert_eq!(lifetime(storage, &bucket, plain()).await, Some(MIN), "nobody has read it");
    assert!(get(storage, &bucket, "k").await.unwrap().is_counted);
    read(storage, &bucket, "k", 2).await;
    read(storage, &bucket, "other", 9).await;
    is_about(lifetime(storage, &bucket, plain()).await, MIN * 3);
    let other = if ground.has_server() { ground.under(LIMITS).await } else { storage.clone() };
    read(&other, &bucket, "k", 3).await;
    is_about(lifetime(storage, &bucket, plain()).await, MIN * 6);
    read(&other, &bucket, "k", 1_000_000).await;
    assert_eq!(lifetime(storage, &bucket, plain()).await, Some(MAX));
    // It goes on from one fill to the next, and an increment changes nothing of it.
    make(storage, &bucket, vec![increment("k", 1, None, None)]).await;
    let entry = get(storage, &bucket, "k").await.unwrap();
    assert!(entry.is_counted && entry.expires_at == Some(entry.created_at.saturating_add(MAX)), "{entry:?}");
    // A time of its own wins, and a put that fills nothing has that of the bucket.
    let own = KeyEdit::Put { value: json("1"), ttl: Some(LONG), fresh: None, owner: None };
    assert_eq!(lifetime(storage, &bucket, own).await, Some(LONG));
    assert!(!get(storage, &bucket, "k").await.unwrap().is_counted, "how often it is read is nothing to it");
    make(storage, &bucket, vec![put("k", "2")]).await;
    let entry = get(storage, &bucket, "k").await.unwrap();
    assert_eq!((entry.expires_at, entry.is_counted), (None, false));
    let bound = BucketSettings { absolute_age: Some(LONG), ttl: Some(MAX), ..adaptive() };
    set(storage, &bucket, bound).await;
    assert_eq!(lifetime(storage, &bucket, plain()).await, Some(LONG), "no age is passed");
    set(storage, &bucket, BucketSettings { ttl: Some(LONG), ..BucketSettings::default() }).await;
    assert_eq!(lifetime(storage, &bucket, plain()).await, Some(LONG));
    // A stale value that is filled lives on from then, and is as fresh as was said.
    set(storage, &bucket, adaptive()).await;
    make(storage, &bucket, vec![delete("k")]).await;
    is_granted(&fill(storage, &bucket, 1, LONG).await);
    make(storage, &bucket, vec![under(1, put_fresh("1", BRIEF))]).await;
    tokio::time::sleep(BRIEF * 2).await;
    assert!(matches!(fill(storage, &bucket, 2, LONG).await, KeyFill::Granted(Some(_))), "it is stale");
    make(storage, &bucket, vec![under(2, put_fresh("2", LONG))]).await;
    let entry = get(storage, &bucket, "k").await.unwrap();
    assert!(
        entry.is_counted && entry.fresh_until < entry.expires_at && entry.fresh_until.is_some(),
        "{entry:?}"
    );
    assert!(matches!(fill(storage, &bucket, 3, LONG).await, KeyFill::Fresh(_)));
    let history = storage.buckets.key_history(&bucket, &key("k")).await.unwrap();
    assert_eq!(history, [entry]);
}

pub(super) async fn reads_count_where_fills_live_by_them_and_nowhere_else(ground: &Ground) {
    let (bucket, storage) = (bucket(ground), &ground.storage);
    read(storage, &bucket, "k", 5).await;
    assert!(
        matches!(storage.buckets.bucket(&bucket).await, Err(StorageError::NoBucket)),
        "none is made by it"
    );
    set(storage, &bucket, BucketSettings::default()).await;
    read(storage, &bucket, "k", 5).await;
    set(storage, &bucket, adaptive()).await;
    assert_eq!(lifetime(storage, &bucket, plain()).await, Some(MIN));
    read(storage, &bucket, "k", 5).await;
    storage.buckets.delete_bucket(&bucket).await.unwrap();
    set(storage, &bucket, adaptive()).await;
    assert_eq!(lifetime(storage, &bucket, plain()).await, Some(MIN), "it is another bucket");
}

/// For backends with a server.
#[cfg(feature = "valkey")]
pub(super) async fn of_reads_those_are_kept_of_the_keys_that_are_read_most(ground: &Ground) {
    use tidemill::storage::READ_KEYS_MAX;

    let (bucket, storage, server) = (bucket(ground), &ground.storage, ground.server());
    set(storage, &bucket, adaptive()).await;
    let kept = format!("bucket:{{keys/{bucket}}}:reads");
    let all: Vec<_> = (0..READ_KEYS_MAX + 500)
        .map(|at| (key(&format!("k{at}")), if at % 3 == 0 { 1 } else { 5 }))
        .collect();
    for some in all.chunks(1_000) {
        storage.buckets.count_reads(&bucket, some).await.expect("it answers");
    }
    let count = async || usize::try_from(server.command(&["ZCARD", &kept]).await.integer()).expect("a count");
    assert_eq!(count().await, READ_KEYS_MAX);
    let is_kept = async |name: &str| {
        !matches!(server.command(&["ZSCORE", &*kept, name]).await, crate::support::resp::Reply::Null)
    };
    assert!(is_kept("k1").await && is_kept("k10498").await && !is_kept("k0").await);
    let ttl = server.command(&["PTTL", &kept]).await.integer();
    assert!(ttl > 0, "it goes by itself: {ttl}");
    // As after half an hour: five times is less than once by then.
    let score: f64 = server.command(&["ZSCORE", &*kept, "k1"]).await.text().parse().expect("a number");
    server.command(&["DEL", &kept]).await;
    server
        .command(&["ZADD", &*kept, &format!("{}", score - 1.0), "warm", &format!("{}", score - 3.5), "cold"])
        .await;
    read(storage, &bucket, "new", 1).await;
    assert_eq!((count().await, is_kept("cold").await, is_kept("warm").await), (2, false, true));
    server.command(&["SET", &kept, "x"]).await;
    let refused = storage.buckets.count_reads(&bucket, &[(key("k"), 1)]).await;
    assert!(matches!(&refused, Err(StorageError::ForeignKey(of)) if **of == *kept), "{refused:?}");
}

#[cfg(feature = "valkey")]
pub(super) async fn a_foreign_key_in_the_place_of_fills_is_named(ground: &Ground) {
    let (bucket, storage) = (bucket(ground), &ground.storage);
    make(storage, &bucket, vec![put("a", "1")]).await;
    let fills = format!("bucket:{{keys/{bucket}}}:fills");
    ground.server().command(&["SET", &fills, "theirs"]).await;
    match storage.buckets.fill_key(&asked(&bucket, "k", 1, LONG)).await {
        Err(StorageError::ForeignKey(named)) => assert_eq!(*named, *fills),
        other => panic!("{other:?}"),
    }
    assert_eq!(ground.server().command(&["GET", &fills]).await.text(), "theirs");
}

#[cfg(feature = "valkey")]
pub(super) async fn nothing_is_left_of_fills_that_are_over(ground: &Ground) {
    const FILLS: usize = 300;

    let (bucket, storage) = (bucket(ground), &ground.storage);
    let fills = format!("bucket:{{keys/{bucket}}}:fills");
    let length = async || ground.server().command(&["HLEN", &fills]).await.integer();
    // One that lasts keeps them from going all at once.
    is_granted(&fill(storage, &bucket, 1, BRIEF * 40).await);
    for at in 0..FILLS {
        let brief = asked(&bucket, &format!("k-{at}"), 2, Duration::from_millis(1));
        is_granted(&storage.buckets.fill_key(&brief).await.unwrap());
    }
    let left = length().await;
    assert!((1..=100).contains(&left), "{left} of {FILLS}");
    crate::support::eventually(crate::support::ground::SOON, async || length().await == 0).await;
    is_granted(&fill(storage, &bucket, 1, LONG).await);
    make_one(storage, &bucket, under(1, put("k", "1"))).await;
    assert_eq!(length().await, 0, "a fill goes with its put");
}
