//! Records of who is let in.

use std::collections::BTreeMap;

use bytes::Bytes;
use tidemill::storage::{Expected, RECORD_CHANGES_KEPT, RecordChanges, RecordEdit, Storage};
use tokio::task::JoinSet;

use crate::support::ground::Ground;

fn revision() -> u64 {
    tidemill::chance::random().max(1)
}

fn edit(name: &str, expected: Expected, record: Option<&str>) -> RecordEdit {
    let record = record.map(|text| Bytes::copy_from_slice(text.as_bytes()));
    RecordEdit { name: name.into(), expected, record }
}

fn this(text: &str) -> Expected {
    Expected::This(Bytes::copy_from_slice(text.as_bytes()))
}

async fn change(storage: &Storage, edits: Vec<RecordEdit>) -> Option<u64> {
    let next = revision();
    let changed = storage.records.change_records(next, edits).await.expect("it answers");
    changed.then_some(next)
}

async fn put(storage: &Storage, name: &str, text: &str) -> u64 {
    change(storage, vec![edit(name, Expected::Anything, Some(text))]).await.expect("whatever there is")
}

async fn since(storage: &Storage, known: Option<u64>) -> RecordChanges {
    storage.records.records(known).await.expect("it answers").expect("something has changed")
}

/// Returns the records whose names begin so: others belong to other tests.
fn of(changes: RecordChanges, prefix: &str) -> BTreeMap<Box<str>, Option<Bytes>> {
    changes.records.into_iter().filter(|(name, _)| name.starts_with(prefix)).collect()
}

fn is(records: &[(&str, Option<&str>)]) -> BTreeMap<Box<str>, Option<Bytes>> {
    let record = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    records.iter().map(|(name, text)| ((*name).into(), text.map(record))).collect()
}

pub(super) async fn what_has_changed_of_the_records_is_told_and_nothing_else(ground: &Ground) {
    let storage = &ground.storage;
    let prefix = format!("test/{}", ground.topic());
    let [one, two, three] = ["one", "two", "three"].map(|name| format!("{prefix}/{name}"));
    let text = "{\"a\":\"\\u0000é\"}\n";
    // Others, who change much at this moment, may leave nothing of what was known.
    let mut revision = None;
    for _ in 0..10 {
        put(storage, &one, text).await;
        let known = put(storage, &two, "2").await;
        put(storage, &two, "3").await;
        let edits = [edit(&three, Expected::Anything, Some("1")), edit(&one, Expected::Anything, None)];
        change(storage, edits.into()).await;
        let changes = since(storage, Some(known)).await;
        if !changes.is_all {
            revision = Some(changes.revision);
            assert_eq!(of(changes, &prefix), is(&[(&one, None), (&three, Some("1")), (&two, Some("3"))]));
            break;
        }
    }
    assert!(revision.is_some(), "what has changed is told alone");
    // Somebody else may have changed something: of these here nothing is told.
    let later = storage.records.records(revision).await.expect("it answers");
    assert!(later.is_none_or(|changes| changes.is_all || of(changes, &prefix).is_empty()));
    for unknown in [None, Some(0), Some(self::revision())] {
        let changes = since(storage, unknown).await;
        assert!(changes.is_all, "{unknown:?}");
        assert_eq!(of(changes, &prefix), is(&[(&three, Some("1")), (&two, Some("3"))]));
    }
    put(storage, &one, text).await;
    assert_eq!(of(since(storage, None).await, &one), is(&[(&one, Some(text))]), "byte for byte");
    let gone = |name: &String| edit(name, Expected::Anything, None);
    change(storage, [one, two, three].iter().map(gone).collect()).await;
    assert!(of(since(storage, None).await, &prefix).is_empty());
}

pub(super) async fn records_change_together_and_only_as_expected(ground: &Ground) {
    let storage = &ground.storage;
    let prefix = format!("test/{}", ground.topic());
    let [one, two] = ["one", "two"].map(|name| format!("{prefix}/{name}"));
    let first = edit(&one, Expected::Nothing, Some("1"));
    assert!(change(storage, vec![first.clone(), edit(&two, Expected::Nothing, Some("2"))]).await.is_some());
    for wrong in [
        vec![first],
        vec![edit(&two, this("2"), Some("3")), edit(&one, this("2"), Some("3"))],
        vec![edit(&two, Expected::Anything, Some("3")), edit(&format!("{prefix}/none"), this("1"), None)],
        vec![edit(&one, this("1"), None), edit(&two, Expected::Nothing, None)],
        vec![edit(&one, this(""), None)],
    ] {
        assert_eq!(change(storage, wrong.clone()).await, None, "{wrong:?}");
    }
    assert_eq!(of(since(storage, None).await, &prefix), is(&[(&one, Some("1")), (&two, Some("2"))]));
    let right = vec![edit(&one, this("1"), Some("-")), edit(&two, this("2"), None)];
    assert!(change(storage, right).await.is_some());
    assert_eq!(of(since(storage, None).await, &prefix), is(&[(&one, Some("-"))]));
    assert!(change(storage, vec![edit(&one, this("-"), None)]).await.is_some());
}

pub(super) async fn who_has_missed_many_changes_is_told_of_all_records(ground: &Ground) {
    let storage = &ground.storage;
    let name = format!("test/{}", ground.topic());
    let before = put(storage, &name, "0").await;
    for at in 1..=RECORD_CHANGES_KEPT {
        put(storage, &name, &at.to_string()).await;
    }
    let changes = since(storage, Some(before)).await;
    assert!(changes.is_all);
    let last = RECORD_CHANGES_KEPT.to_string();
    assert_eq!(of(changes, &name), is(&[(&name, Some(&last))]));
    change(storage, vec![edit(&name, Expected::Anything, None)]).await;
}

pub(super) async fn of_changes_of_one_record_one_is_made_and_those_of_others_do_not_disturb(ground: &Ground) {
    const CHANGES: usize = 20;
    let prefix = format!("test/{}", ground.topic());
    let shared = format!("{prefix}/shared");
    put(&ground.storage, &shared, "0").await;
    let mut tasks = JoinSet::new();
    for number in 0..CHANGES {
        let (storage, own, shared) = (ground.storage.clone(), format!("{prefix}/{number}"), shared.clone());
        tasks.spawn(async move {
            // Each alone, at the first attempt.
            assert!(change(&storage, vec![edit(&own, Expected::Nothing, Some("1"))]).await.is_some());
            change(&storage, vec![edit(&shared, this("0"), Some("1")), edit(&own, this("1"), None)]).await
        });
    }
    let made = tasks.join_all().await;
    assert_eq!(made.iter().flatten().count(), 1);
    let left = of(since(&ground.storage, None).await, &prefix);
    assert_eq!(left.len(), CHANGES, "the shared one, and those whose second change was not made");
    let gone = left.keys().map(|name| edit(name, Expected::Anything, None)).collect();
    change(&ground.storage, gone).await;
}
