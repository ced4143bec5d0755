//! Documents on who may do what.

use std::collections::BTreeMap;

use bytes::Bytes;
use tidemill::storage::{AccessDocuments, AccessEdit, Storage};
use tokio::task::JoinSet;

use crate::support::ground::Ground;

async fn all(storage: &Storage) -> AccessDocuments {
    storage.access.documents(None).await.expect("they are read").expect("nothing is known")
}

fn put(name: &str, document: &str) -> AccessEdit {
    AccessEdit { name: name.into(), document: Some(Bytes::copy_from_slice(document.as_bytes())) }
}

fn delete(name: &str) -> AccessEdit {
    AccessEdit { name: name.into(), document: None }
}

/// Makes changes, however often somebody else is faster. Returns the revision.
async fn change(storage: &Storage, edits: Vec<AccessEdit>) -> u64 {
    loop {
        let (known, next) = (all(storage).await.revision, revision());
        if storage.access.change_documents(known, next, edits.clone()).await.expect("it answers") {
            return next;
        }
    }
}

fn revision() -> u64 {
    tidemill::chance::random().max(1)
}

/// Returns the documents whose names begin so: others belong to other tests.
async fn of(storage: &Storage, prefix: &str) -> BTreeMap<String, Bytes> {
    let all = all(storage).await.documents.into_iter();
    all.filter(|(name, _)| name.starts_with(prefix)).map(|(name, text)| (name.into(), text)).collect()
}

pub(super) async fn documents_are_told_once_for_each_revision(ground: &Ground) {
    let storage = &ground.storage;
    let name = format!("test/{}", ground.topic());
    let document = "{\"a\":\"\\u0000é\"}\n";
    change(storage, vec![put(&name, document)]).await;
    loop {
        let before = all(storage).await;
        assert_eq!(before.documents.get(&*name), Some(&Bytes::from(document)), "byte for byte");
        match storage.access.documents(Some(before.revision)).await.expect("it answers") {
            None => break,
            // Somebody else has changed something between the two.
            Some(after) => assert_ne!(after.revision, before.revision),
        }
    }
    assert!(storage.access.documents(Some(0)).await.expect("it answers").is_some());
}

pub(super) async fn documents_change_together_and_only_for_who_knows_them(ground: &Ground) {
    let storage = &ground.storage;
    let prefix = format!("test/{}", ground.topic());
    let [one, two] = ["one", "two"].map(|name| format!("{prefix}/{name}"));
    let first = change(storage, vec![put(&one, "1"), put(&two, "1")]).await;
    let second = change(storage, vec![put(&one, "2"), delete(&two), delete("test/that/is/not/there")]).await;
    assert_ne!(first, second);
    assert_eq!(of(storage, &prefix).await, BTreeMap::from([(one.clone(), Bytes::from("2"))]));
    for outdated in [first, 0] {
        let edits = vec![put(&two, "3"), delete(&one)];
        let changed = storage.access.change_documents(outdated, revision(), edits).await;
        assert!(!changed.expect("it answers"), "{outdated}");
    }
    assert_eq!(of(storage, &prefix).await.len(), 1, "nothing was changed");
    change(storage, vec![delete(&one)]).await;
    assert!(of(storage, &prefix).await.is_empty());
}

pub(super) async fn of_changes_at_one_time_one_is_made(ground: &Ground) {
    const CHANGES: usize = 20;
    let prefix = format!("test/{}", ground.topic());
    let mut tasks = JoinSet::new();
    for number in 0..CHANGES {
        let (storage, name) = (ground.storage.clone(), format!("{prefix}/{number}"));
        tasks.spawn(async move {
            loop {
                let known = all(&storage).await;
                let edits = vec![put(&name, "1")];
                let changed = storage.access.change_documents(known.revision, revision(), edits).await;
                if changed.expect("it answers") {
                    return known.revision;
                }
            }
        });
    }
    let changed = tasks.join_all().await;
    let befores: std::collections::HashSet<u64> = changed.into_iter().collect();
    assert_eq!(befores.len(), CHANGES, "no two have changed the same");
    let documents = of(&ground.storage, &prefix).await;
    assert_eq!(documents.len(), CHANGES);
    change(&ground.storage, documents.keys().map(|name| delete(name)).collect()).await;
}
