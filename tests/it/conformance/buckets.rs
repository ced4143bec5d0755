//! Changes of keys: what is put comes back, conditions hold, and changes are made together or not at all.
//!
//! It owns what the other rooms of buckets make and read keys with.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use tidemill::proto::page::Order;
use tidemill::proto::{BucketName, KeyName, MessageId, TopicName};
use tidemill::storage::{
    BucketSettings, Idempotency, KeyChange, KeyChanged, KeyChanges, KeyCondition, KeyEdit, KeyEntry,
    KeyRange, KeyRefusal, KeyValue, KeysChanged, Logged, LoggedKind, Storage, StorageError, StoredMessage,
};
use tokio::task::JoinSet;

use crate::support::ground::{Ground, LIMITS, is_strictly_increasing, read_all};

/// Returns the name of a bucket that does not exist.
pub(super) fn bucket(ground: &Ground) -> BucketName {
    bucket_of(ground.topic().as_str())
}

pub(super) fn bucket_of(name: &str) -> BucketName {
    BucketName::parse(name).expect("the name is right")
}

pub(super) fn key(name: &str) -> KeyName {
    KeyName::parse(name).expect("the name is right")
}

pub(super) fn json(text: impl Into<Bytes>) -> KeyValue {
    KeyValue { bytes: text.into(), content_type: None }
}

pub(super) fn change(name: &str, edit: KeyEdit) -> KeyChange {
    KeyChange { key: key(name), condition: KeyCondition::Anything, edit }
}

pub(super) fn put(name: &str, text: &str) -> KeyChange {
    change(name, KeyEdit::Put { value: json(text.to_owned()), ttl: None, fresh: None, owner: None })
}

/// Returns a put of a key that lives for so long.
pub(super) fn put_for(name: &str, text: &str, ttl: Duration) -> KeyChange {
    change(name, KeyEdit::Put { value: json(text.to_owned()), ttl: Some(ttl), fresh: None, owner: None })
}

pub(super) fn put_of(name: &str, text: &str, owner: &str) -> KeyChange {
    change(
        name,
        KeyEdit::Put { value: json(text.to_owned()), ttl: None, fresh: None, owner: Some(key(owner)) },
    )
}

pub(super) fn delete(name: &str) -> KeyChange {
    change(name, KeyEdit::Delete)
}

pub(super) fn where_it(condition: KeyCondition, change: KeyChange) -> KeyChange {
    KeyChange { condition, ..change }
}

/// Returns changes of now that make their bucket.
pub(super) fn changes(storage: &Storage, bucket: &BucketName, changes: Vec<KeyChange>) -> KeyChanges {
    let timestamp = storage.upkeep.now();
    KeyChanges {
        bucket: bucket.clone(),
        changes,
        idempotency: None,
        fence: None,
        create_bucket: true,
        timestamp,
    }
}

/// Asks for changes that must be answered.
pub(super) async fn ask(storage: &Storage, bucket: &BucketName, all: Vec<KeyChange>) -> KeysChanged {
    storage.buckets.change_keys(changes(storage, bucket, all)).await.expect("it answers")
}

/// Makes changes that must be made.
pub(super) async fn make(storage: &Storage, bucket: &BucketName, all: Vec<KeyChange>) -> Vec<KeyChanged> {
    match ask(storage, bucket, all).await {
        KeysChanged::Made { changed, replayed: false } => changed,
        other => panic!("{other:?}"),
    }
}

/// Makes one change that must be made and told, and returns its revision.
pub(super) async fn make_one(storage: &Storage, bucket: &BucketName, one: KeyChange) -> MessageId {
    let changed = make(storage, bucket, vec![one]).await;
    assert_eq!(changed.len(), 1);
    changed[0].revision.expect("it is a change")
}

/// Asks for changes that must be refused.
pub(super) async fn refusal(
    storage: &Storage,
    bucket: &BucketName,
    all: Vec<KeyChange>,
) -> (usize, KeyRefusal) {
    match ask(storage, bucket, all).await {
        KeysChanged::Refused { at, refusal } => (at, refusal),
        other @ KeysChanged::Made { .. } => panic!("{other:?}"),
    }
}

pub(super) async fn get(storage: &Storage, bucket: &BucketName, name: &str) -> Option<KeyEntry> {
    storage.buckets.key(bucket, &key(name), true).await.expect("it can be read")
}

/// Returns the value of a key as text.
pub(super) async fn text(storage: &Storage, bucket: &BucketName, name: &str) -> Option<String> {
    let entry = get(storage, bucket, name).await?;
    Some(String::from_utf8(entry.value.expect("it was asked for").bytes.into()).expect("it is text"))
}

/// Makes a bucket with settings.
pub(super) async fn set(storage: &Storage, bucket: &BucketName, settings: BucketSettings) -> bool {
    let (state, is_new) = storage.buckets.put_bucket(bucket, settings).await.expect("it can be set");
    assert_eq!((&state.bucket, state.settings), (bucket, settings));
    is_new
}

/// Returns the range of all keys, with their values.
pub(super) fn all() -> KeyRange {
    KeyRange { prefix: "".into(), after: None, limit: 1_000, bytes_max: usize::MAX >> 8, values: true }
}

/// Returns all keys with their values.
pub(super) async fn table(storage: &Storage, bucket: &BucketName) -> Vec<KeyEntry> {
    let mut entries = Vec::new();
    let mut after = None;
    loop {
        let range = KeyRange { after, ..all() };
        let page = storage.buckets.list_keys(bucket, range).await.expect("it can be listed");
        entries.extend(page.entries);
        after = page.next;
        if after.is_none() {
            return entries;
        }
    }
}

/// Returns what the log of a bucket tells, from its old end on.
pub(super) async fn log(storage: &Storage, bucket: &BucketName) -> Vec<(Logged, StoredMessage)> {
    let messages = read_all(storage, &TopicName::log_of(bucket), Order::Asc, 1_000).await;
    let told = |message: StoredMessage| (Logged::of(&message).expect("it tells of a change"), message);
    messages.into_iter().map(told).collect()
}

/// What keys are after changes: revision and value of each.
pub(super) type Replayed = BTreeMap<KeyName, (MessageId, KeyValue)>;

/// Applies one change that a log tells of.
pub(super) fn replay(table: &mut Replayed, (logged, message): &(Logged, StoredMessage)) {
    let StoredMessage { id, body, .. } = message;
    let value = KeyValue { bytes: body.payload.clone(), content_type: body.content_type.clone() };
    match logged.change {
        LoggedKind::Put => drop(table.insert(logged.key.clone(), (*id, value))),
        LoggedKind::Deleted | LoggedKind::Expired => {
            assert_eq!((&*value.bytes, value.content_type), (&b"null"[..], None));
            assert!(table.remove(&logged.key).is_some(), "{} was there before it was gone", logged.key);
        }
    }
}

pub(super) fn as_replayed(entries: Vec<KeyEntry>) -> Replayed {
    let value = |entry: KeyEntry| (entry.key, (entry.revision, entry.value.expect("it was asked for")));
    entries.into_iter().map(value).collect()
}

/// Checks that a log tells how the table came to be, where no time of a key is over: all of it, in order, each once, and
/// all steps whole.
pub(super) async fn agree(storage: &Storage, bucket: &BucketName) {
    let entries = table(storage, bucket).await;
    assert!(entries.is_sorted_by(|one, other| one.key < other.key), "in the order of their bytes");
    let told = log(storage, bucket).await;
    let ids: Vec<MessageId> = told.iter().map(|(_, message)| message.id).collect();
    assert!(is_strictly_increasing(&ids));
    assert!(told.last().is_none_or(|(logged, _)| !logged.more), "the last step is whole");
    let mut replayed = Replayed::new();
    for one in &told {
        replay(&mut replayed, one);
    }
    let state = storage.buckets.bucket(bucket).await.expect("it exists");
    assert_eq!(state.keys, entries.len() as u64);
    assert_eq!(as_replayed(entries), replayed);
}

/// Returns two nodes, where the backend has a server.
pub(super) async fn nodes(ground: &Ground) -> Vec<Storage> {
    let mut storages = vec![ground.storage.clone()];
    if ground.has_server() {
        storages.push(ground.under(LIMITS).await);
    }
    storages
}

pub(super) async fn what_is_put_comes_back_byte_for_byte(ground: &Ground) {
    let (bucket, storage) = (bucket(ground), &ground.storage);
    let mebibyte: Vec<u8> = (0..1024 * 1024_u32).map(|at| (at * 7 / 3 % 256).to_le_bytes()[0]).collect();
    let any = (0..=255).cycle().take(1_000).collect::<Vec<u8>>();
    let typed = |bytes: &[u8], content_type: &str| KeyValue {
        bytes: Bytes::copy_from_slice(bytes),
        content_type: Some(content_type.into()),
    };
    let values = [
        json(" {\"a\" : [1.0, \"\\u0000é\"]}\n"),
        json("null"),
        typed(b"", "text/plain"),
        typed(b"\n", "a/b; c=\"d = -\""),
        typed(b"1-0 5 =x - -\n\n", "text/plain"),
        typed(&any, "application/octet-stream"),
        typed(&mebibyte, "image/png"),
    ];
    for (at, value) in values.iter().enumerate() {
        let (name, owner) = (format!("key-{at}"), (at % 2 == 0).then(|| key("ann")));
        let edit = KeyEdit::Put { value: value.clone(), ttl: None, fresh: None, owner: owner.clone() };
        let changed = make(storage, &bucket, vec![change(&name, edit)]).await;
        let revision = changed[0].revision;
        assert_eq!(changed, [KeyChanged { revision, is_new: true, number: None, expires_at: None }]);
        let entry = get(storage, &bucket, &name).await.expect("it is there");
        assert_eq!((entry.value.as_ref(), Some(entry.revision)), (Some(value), revision));
        assert_eq!((&entry.key, &entry.owner, entry.expires_at), (&key(&name), &owner, None));
        let without = storage.buckets.key(&bucket, &key(&name), false).await.unwrap();
        assert_eq!(without, Some(KeyEntry { value: None, ..entry.clone() }));
        assert_eq!(storage.buckets.key_history(&bucket, &key(&name)).await.unwrap(), [entry]);
    }
    agree(storage, &bucket).await;
    let before = get(storage, &bucket, "key-0").await.unwrap();
    let again = make(storage, &bucket, vec![put("key-0", "2")]).await;
    assert!(!again[0].is_new && again[0].revision > Some(before.revision));
    let after = get(storage, &bucket, "key-0").await.unwrap();
    assert_eq!((after.created_at, after.owner), (before.created_at, None));
    assert_eq!(table(storage, &bucket).await.len(), values.len());
}

pub(super) async fn of_what_is_not_there_nothing_is_read_and_nothing_made(ground: &Ground) {
    let (bucket, storage) = (bucket(ground), &ground.storage);
    let one = key("a");
    assert_eq!(storage.buckets.key(&bucket, &one, true).await.unwrap(), None);
    assert_eq!(storage.buckets.key_history(&bucket, &one).await.unwrap(), []);
    assert_eq!(storage.buckets.touch_key(&bucket, &one, None, true).await.unwrap(), None);
    let is_none = |result: Result<(), StorageError>| assert!(matches!(result, Err(StorageError::NoBucket)));
    is_none(storage.buckets.list_keys(&bucket, all()).await.map(drop));
    is_none(storage.buckets.revoke_keys(&bucket, &one, storage.upkeep.now()).await.map(drop));
    is_none(storage.buckets.delete_bucket(&bucket).await);
    let careful = KeyChanges { create_bucket: false, ..changes(storage, &bucket, vec![put("a", "1")]) };
    is_none(storage.buckets.change_keys(careful.clone()).await.map(drop));
    is_none(storage.buckets.bucket(&bucket).await.map(drop));
    assert_eq!(get(storage, &bucket, "a").await, None);
    set(storage, &bucket, BucketSettings::default()).await;
    storage.buckets.change_keys(careful).await.unwrap();
    assert_eq!(text(storage, &bucket, "a").await.as_deref(), Some("1"));
    assert_eq!(get(storage, &bucket, "b").await, None);
}

pub(super) async fn a_key_changes_only_under_its_condition(ground: &Ground) {
    let (bucket, storage) = (bucket(ground), &ground.storage);
    let other = make_one(storage, &bucket, put("other", "1")).await;
    let edits =
        [put("a", "2").edit, KeyEdit::Delete, KeyEdit::Increment { by: 1, min: None, max: None, ttl: None }];
    for (edit, is_there, at) in
        edits.iter().flat_map(|edit| (0..10).map(move |case| (edit, case % 2 == 0, case / 2)))
    {
        make(storage, &bucket, vec![delete("a")]).await;
        let now = if is_there { Some(make_one(storage, &bucket, put("a", "1")).await) } else { None };
        let (condition, holds) = [
            (KeyCondition::Absent, !is_there),
            (KeyCondition::Present, is_there),
            (KeyCondition::Revision(other), false),
            (KeyCondition::Revision(now.unwrap_or(MessageId::MIN)), is_there),
            (KeyCondition::Revision(now.and_then(MessageId::next).unwrap_or(MessageId::MAX)), false),
        ][at];
        let logged = log(storage, &bucket).await.len();
        let asked = ask(storage, &bucket, vec![where_it(condition, change("a", edit.clone()))]).await;
        if holds {
            assert!(matches!(asked, KeysChanged::Made { .. }), "{condition:?} {edit:?}: {asked:?}");
        } else {
            let refusal = KeyRefusal::Condition(now);
            assert_eq!(asked, KeysChanged::Refused { at: 0, refusal }, "{condition:?} {edit:?}");
            assert_eq!(log(storage, &bucket).await.len(), logged);
            assert_eq!(get(storage, &bucket, "a").await.map(|entry| entry.revision), now);
        }
    }
    agree(storage, &bucket).await;
}

pub(super) async fn of_many_changes_under_one_revision_one_is_made(ground: &Ground) {
    let (bucket, storages) = (bucket(ground), nodes(ground).await);
    let mut revision = make_one(&ground.storage, &bucket, put("a", "0")).await;
    for round in 0..10 {
        let mut tasks = JoinSet::new();
        for task in 0..8 {
            let (storage, bucket) = (storages[task % storages.len()].clone(), bucket.clone());
            let value = format!("{}", round * 10 + task);
            tasks.spawn(async move {
                let one = where_it(KeyCondition::Revision(revision), put("a", &value));
                (ask(&storage, &bucket, vec![one]).await, value)
            });
        }
        let all = tasks.join_all().await;
        let made: Vec<_> =
            all.iter().filter(|(asked, _)| matches!(asked, KeysChanged::Made { .. })).collect();
        assert_eq!(made.len(), 1, "{all:?}");
        assert_eq!(text(&ground.storage, &bucket, "a").await.as_ref(), Some(&made[0].1));
        revision = get(&ground.storage, &bucket, "a").await.unwrap().revision;
    }
    assert_eq!(log(&ground.storage, &bucket).await.len(), 11);
    agree(&ground.storage, &bucket).await;
}

pub(super) async fn changes_are_made_all_or_none(ground: &Ground) {
    let (bucket, storage) = (bucket(ground), &ground.storage);
    make(storage, &bucket, vec![put("k-0", "[]"), put("k-1", "\"text\""), put("k-2", "5")]).await;
    let (before, logged) = (table(storage, &bucket).await, log(storage, &bucket).await);
    let state = storage.buckets.bucket(&bucket).await.unwrap();
    let refused = [
        (where_it(KeyCondition::Absent, put("k-0", "1")), KeyRefusal::Condition(Some(before[0].revision))),
        (where_it(KeyCondition::Present, delete("none")), KeyRefusal::Condition(None)),
        (increment("k-1", 1, None, None), KeyRefusal::NotANumber),
        (increment("k-2", 1, None, Some(5)), KeyRefusal::OutOfRange(5)),
    ];
    for (one, expected) in refused {
        for place in [0, 7, 99] {
            let mut batch: Vec<KeyChange> =
                (0..99).map(|number| put(&format!("new-{number}"), "1")).collect();
            batch.insert(place, one.clone());
            assert_eq!(refusal(storage, &bucket, batch).await, (place, expected));
            assert_eq!(table(storage, &bucket).await, before);
            assert_eq!(log(storage, &bucket).await, logged);
            assert_eq!(storage.buckets.bucket(&bucket).await.unwrap(), state);
        }
    }
    let mut batch = vec![delete("k-0"), delete("none"), increment("k-2", -7, None, None)];
    batch.extend((3..100).map(|number| put(&format!("k-{number}"), &number.to_string())));
    let changed = make(storage, &bucket, batch).await;
    assert_eq!(changed.len(), 100);
    assert_eq!(changed[1], KeyChanged { revision: None, is_new: false, number: None, expires_at: None });
    assert_eq!((changed[0].is_new, changed[2].number, changed[3].is_new), (false, Some(-2), true));
    let told = log(storage, &bucket).await;
    let (of_batch, revisions): (Vec<_>, Vec<_>) =
        told[logged.len()..].iter().map(|(logged, message)| (logged, message.id)).unzip();
    assert_eq!(revisions, changed.iter().filter_map(|changed| changed.revision).collect::<Vec<_>>());
    assert_eq!(of_batch.iter().filter(|logged| logged.more).count(), 98, "all but the last");
    assert!(!of_batch[98].more);
    agree(storage, &bucket).await;
}

pub(super) fn increment(name: &str, by: i64, min: Option<i64>, max: Option<i64>) -> KeyChange {
    change(name, KeyEdit::Increment { by, min, max, ttl: None })
}

pub(super) async fn changes_of_one_step_are_seen_together(ground: &Ground) {
    let (bucket, storages) = (bucket(ground), nodes(ground).await);
    let batch =
        |number: usize| (0..30).map(|at| put(&format!("k-{at}"), &number.to_string())).collect::<Vec<_>>();
    make(&ground.storage, &bucket, batch(0)).await;
    let mut writers = JoinSet::new();
    for (task, storage) in storages.iter().cloned().enumerate() {
        let (bucket, batches) =
            (bucket.clone(), (0..40).map(|round| batch(round * 2 + task)).collect::<Vec<_>>());
        writers.spawn(async move {
            for batch in batches {
                make(&storage, &bucket, batch).await;
            }
        });
    }
    let mut seen = 0;
    while !writers.is_empty() {
        let entries = table(&ground.storage, &bucket).await;
        let values: Vec<_> = entries.iter().map(|entry| &entry.value).collect();
        assert!(values.len() == 30 && values.iter().all(|value| *value == values[0]), "{values:?}");
        seen += 1;
        while let Some(done) = writers.try_join_next() {
            done.unwrap();
        }
        tokio::task::yield_now().await;
    }
    assert!(seen > 0);
    agree(&ground.storage, &bucket).await;
}

fn once(all: KeyChanges, name: &str, fingerprint: u8) -> KeyChanges {
    let idempotency = Some(Idempotency { key: name.into(), fingerprint: [fingerprint; 16] });
    KeyChanges { idempotency, ..all }
}

pub(super) async fn a_repeat_of_changes_returns_the_first_answer(ground: &Ground) {
    let (bucket, storages) = (bucket(ground), nodes(ground).await);
    let storage = &ground.storage;
    let batch = || vec![increment("n", 5, None, None), delete("none"), put("a", "1")];
    let mut tasks = JoinSet::new();
    for task in 0..8 {
        let (storage, all) = (storages[task % storages.len()].clone(), changes(storage, &bucket, batch()));
        tasks.spawn(async move { storage.buckets.change_keys(once(all, "k", 1)).await.unwrap() });
    }
    let (mut firsts, mut answers) = (0, Vec::new());
    for asked in tasks.join_all().await {
        let KeysChanged::Made { changed, replayed } = asked else { panic!("{asked:?}") };
        firsts += usize::from(!replayed);
        answers.push(changed);
    }
    assert_eq!((firsts, log(storage, &bucket).await.len()), (1, 2));
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    assert_eq!((answers[0][0].number, answers[0][1].revision), (Some(5), None));
    // Whatever has become of the keys since, also where the condition would not hold now.
    make(storage, &bucket, vec![delete("n"), put("a", "2")]).await;
    let all = changes(storage, &bucket, batch());
    let again = storage.buckets.change_keys(once(all.clone(), "k", 1)).await.unwrap();
    assert_eq!(again, KeysChanged::Made { changed: answers[0].clone(), replayed: true });
    let reused = storage.buckets.change_keys(once(all, "k", 2)).await;
    assert!(matches!(reused, Err(StorageError::KeyReused)), "{reused:?}");
    assert_eq!(
        (get(storage, &bucket, "n").await, text(storage, &bucket, "a").await),
        (None, Some("2".into()))
    );
    // It is of its bucket, and goes with it.
    let other = self::bucket(ground);
    let elsewhere = once(changes(storage, &other, vec![put("a", "1")]), "k", 3);
    storage.buckets.change_keys(elsewhere.clone()).await.unwrap();
    storage.buckets.delete_bucket(&other).await.unwrap();
    let anew = storage.buckets.change_keys(elsewhere).await.unwrap();
    assert!(matches!(anew, KeysChanged::Made { replayed: false, .. }), "{anew:?}");
}

pub(super) async fn a_refused_change_leaves_its_idempotency_key(ground: &Ground) {
    let (bucket, storage) = (bucket(ground), &ground.storage);
    make(storage, &bucket, vec![put("a", "1")]).await;
    let one = || changes(storage, &bucket, vec![where_it(KeyCondition::Absent, put("a", "2"))]);
    let refused = storage.buckets.change_keys(once(one(), "k", 1)).await.unwrap();
    assert!(matches!(refused, KeysChanged::Refused { at: 0, .. }), "{refused:?}");
    make(storage, &bucket, vec![delete("a")]).await;
    let made = storage.buckets.change_keys(once(one(), "k", 2)).await.unwrap();
    assert!(matches!(made, KeysChanged::Made { replayed: false, .. }), "{made:?}");
    assert_eq!(text(storage, &bucket, "a").await.as_deref(), Some("2"));
}
