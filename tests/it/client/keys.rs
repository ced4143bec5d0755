//! Keys: read, changed and listed a request each, and watched through breaks.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use tidemill::proto::keys::{KeyChange, KeyIncrement};
use tidemill::proto::locks::Fence;
use tidemill::proto::work::ConsumerName;
use tidemill::proto::{BucketName, Code, KeyName, LockName, MessageId};
use tidemill::storage::Storage;
use tidemill_client::{
    ChangeOptions, ClientError, Encoding, KeyClient, KeyCondition, KeyEvent, KeyWatch, ListOptions,
    LockOptions, PutOptions, Refusal, WatchScope,
};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::{ENCODINGS, client, on_both_backends};
use crate::support::eventually;
use crate::support::proxy::Proxy;
use crate::support::relay::{STUCK, TestRelay};

on_both_backends!(
    a_key_is_put_read_and_deleted_under_conditions,
    keys_are_counted_touched_and_changed_together,
    keys_are_listed_in_pages_and_looked_back_at,
    only_the_holder_of_a_lock_changes_keys,
    a_change_that_is_repeated_is_made_once,
    a_watch_tells_what_there_is_and_what_changes,
    a_watch_goes_on_through_breaks,
    a_snapshot_that_is_cut_comes_anew,
    a_watch_that_cannot_go_on_is_told_so,
);

fn keys(port: u16) -> KeyClient {
    client(port, Encoding::Json).keys().expect("the options are right")
}

fn bucket() -> BucketName {
    BucketName::parse("b").expect("a name")
}

fn key(name: &str) -> KeyName {
    KeyName::parse(name).expect("a name")
}

fn only(condition: KeyCondition) -> ChangeOptions {
    ChangeOptions { condition, ..ChangeOptions::default() }
}

fn put_only(condition: KeyCondition) -> PutOptions {
    PutOptions { change: only(condition), ..PutOptions::default() }
}

async fn put(keys: &KeyClient, name: &str, value: usize) -> MessageId {
    let put = keys.put_json(&bucket(), &key(name), &value, PutOptions::default()).await;
    put.expect("it is put").revision
}

#[track_caller]
fn refused<T: std::fmt::Debug>(answer: Result<T, ClientError>, code: Code) -> Refusal {
    match answer.expect_err("it is refused") {
        ClientError::Refused(refusal) if refusal.code == code => refusal,
        other => panic!("{other:?}"),
    }
}

async fn next(watch: &mut KeyWatch) -> KeyEvent {
    timeout(STUCK, watch.next()).await.expect("something comes").expect("the watch goes on")
}

async fn a_key_is_put_read_and_deleted_under_conditions(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let (keys, bucket, a) = (keys(relay.address.port()), bucket(), key("a"));
    assert_eq!(keys.get(&bucket, &a).await.expect("an answer"), None);
    assert_eq!(keys.delete(&bucket, &a, ChangeOptions::default()).await.expect("an answer"), None);
    let absent = put_only(KeyCondition::Absent);
    let owner = Some(key("ann"));
    let options = PutOptions { ttl: Some(Duration::from_mins(1)), owner: owner.clone(), ..absent.clone() };
    let first = keys.put(&bucket, &a, "a/b", Bytes::from_static(b"\xff"), options).await.expect("it is put");
    let value = keys.get(&bucket, &a).await.expect("an answer").expect("it is there");
    assert_eq!((&*value.bytes, &*value.content_type), (&b"\xff"[..], "a/b"));
    assert_eq!((value.revision, value.owner, value.is_stale), (first.revision, owner, false));
    assert!(value.expires_at > Some(value.created_at), "{:?}", value.expires_at);
    // What there is comes with the refusal.
    let there = refused(keys.put_json(&bucket, &a, &1, absent).await, Code::PreconditionFailed);
    assert_eq!(there.revision.as_deref(), Some(&first.revision));
    let second = put_only(KeyCondition::Revision(first.revision));
    let second = keys.put_json(&bucket, &a, &json!({ "n": 2 }), second).await.expect("it is so");
    let old = only(KeyCondition::Revision(first.revision));
    let there = refused(keys.delete(&bucket, &a, old).await, Code::PreconditionFailed);
    assert_eq!(there.revision.as_deref(), Some(&second.revision));
    let new = only(KeyCondition::Revision(second.revision));
    assert!(keys.delete(&bucket, &a, new).await.expect("it is so").is_some());
    let gone = keys.put_json(&bucket, &a, &1, put_only(KeyCondition::Present)).await;
    assert_eq!(refused(gone, Code::PreconditionFailed).revision, None);
    relay.stop().await;
}

async fn keys_are_counted_touched_and_changed_together(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let (keys, bucket, n) = (keys(relay.address.port()), bucket(), key("n"));
    let by = |by| KeyIncrement { by: Some(by), max: Some(5), ..KeyIncrement::default() };
    let told = keys.increment(&bucket, &n, &by(3), ChangeOptions::default()).await.expect("it is counted");
    assert_eq!(told.value, 3);
    refused(keys.increment(&bucket, &n, &by(3), ChangeOptions::default()).await, Code::Conflict);
    let touched = keys.touch(&bucket, &n, Some(Duration::from_mins(1))).await.expect("an answer");
    assert!(touched.is_some_and(|key| key.expires_at.is_some() && key.revision == told.revision));
    assert!(keys.touch(&bucket, &key("none"), None).await.expect("an answer").is_none());
    let changes = |condition: &str| -> Vec<KeyChange> {
        let put = json!({ "op": "put", "key": "x", "value": 1, "if_match": condition });
        let changes = json!([{ "op": "increment", "key": "n" }, { "op": "delete", "key": "none" }, put]);
        serde_json::from_value(changes).expect("changes")
    };
    let failed = keys.change(&bucket, changes("*"), ChangeOptions::default()).await;
    assert_eq!(refused(failed, Code::PreconditionFailed).field.as_deref(), Some("changes[2]"));
    let x = put(&keys, "x", 0).await;
    let made = keys.change(&bucket, changes(&x.to_string()), ChangeOptions::default()).await;
    let made = made.expect("all of them").changed;
    let told: Vec<_> = made.iter().map(|one| (one.key.as_str(), one.revision.is_some(), one.value)).collect();
    assert_eq!(told, [("n", true, Some(4)), ("none", false, None), ("x", true, None)]);
    let usage = keys.change(&bucket, changes("*"), only(KeyCondition::Absent)).await;
    assert!(matches!(usage, Err(ClientError::Usage(_))), "{usage:?}");
    relay.stop().await;
}

async fn keys_are_listed_in_pages_and_looked_back_at(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let json_type = [("content-type", "application/json")];
    relay.send("PUT", "/api/v1/buckets/b", &json_type, br#"{"history": 3}"#).await;
    let keys = keys(relay.address.port());
    for (at, name) in ["a", "p.1", "p.2", "p.3"].into_iter().enumerate() {
        put(&keys, name, at).await;
    }
    let mut options =
        ListOptions { prefix: "p.".to_owned(), values: true, limit: Some(2), ..ListOptions::default() };
    let (mut names, mut pages) = (Vec::new(), 0);
    loop {
        let page = keys.list(&bucket(), options.clone()).await.expect("a page");
        pages += 1;
        names.extend(page.keys.iter().map(|key| {
            let value = key.value.as_ref().expect("it was asked for").get();
            (key.key.to_string(), value.to_owned())
        }));
        match page.next {
            Some(next) => options.after = Some(next),
            None => break,
        }
    }
    let expected = [("p.1", "1"), ("p.2", "2"), ("p.3", "3")];
    assert_eq!(names, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    assert_eq!(pages, 2);
    let first = put(&keys, "p.1", 10).await;
    put(&keys, "p.1", 11).await;
    let history = keys.history(&bucket(), &key("p.1")).await.expect("an answer").expect("it is there");
    let values: Vec<_> =
        history.revisions.iter().filter_map(|one| one.value.as_ref()).map(|value| value.get()).collect();
    assert_eq!(values, ["11", "10", "1"]);
    let value = keys.get_revision(&bucket(), &key("p.1"), first).await.expect("an answer");
    assert_eq!(value.map(|value| value.bytes), Some(Bytes::from_static(b"10")));
    assert!(keys.history(&bucket(), &key("none")).await.expect("an answer").is_none());
    relay.stop().await;
}

async fn only_the_holder_of_a_lock_changes_keys(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let client = client(relay.address.port(), Encoding::Json);
    let (keys, locks) = (client.keys().expect("right"), client.locks().expect("right"));
    let name = LockName::parse("writer").expect("a name");
    let options = LockOptions::new(ConsumerName::parse("ann").expect("a name"));
    let acquire = async || locks.acquire(&name, options.clone()).await.expect("it is free");
    let fenced = |fence: MessageId| ChangeOptions {
        fence: Some(Fence { lock: name.clone(), fence }),
        ..ChangeOptions::default()
    };
    let (bucket, a) = (bucket(), key("a"));
    let put = async |fence| {
        let options = PutOptions { change: fenced(fence), ..PutOptions::default() };
        keys.put_json(&bucket, &a, &1, options).await
    };
    let first = acquire().await;
    let old = first.fence();
    put(old).await.expect("it is held");
    first.release().await.expect("it was held");
    let second = acquire().await;
    put(second.fence()).await.expect("it is held");
    refused(put(old).await, Code::Fenced);
    refused(keys.delete(&bucket, &a, fenced(old)).await, Code::Fenced);
    let increment = KeyIncrement::default();
    refused(keys.increment(&bucket, &a, &increment, fenced(old)).await, Code::Fenced);
    second.release().await.expect("it was held");
    relay.stop().await;
}

async fn a_change_that_is_repeated_is_made_once(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let proxy = Proxy::start(relay.address.port()).await;
    let (keys, bucket, n) = (keys(proxy.port()), bucket(), key("n"));
    let options = ChangeOptions { idempotency_key: Some("once".to_owned()), ..ChangeOptions::default() };
    let increment = KeyIncrement::default();
    proxy.swallow_replies_after(0);
    let lost = async {
        let counted = async || relay.get("/api/v1/keys/b/n").await.status == 200;
        eventually(STUCK, counted).await;
        proxy.heal();
        proxy.cut();
    };
    let (answer, ()) = tokio::join!(keys.increment(&bucket, &n, &increment, options.clone()), lost);
    assert!(matches!(answer, Err(ClientError::NoAnswer { .. })), "{answer:?}");
    let told = keys.increment(&bucket, &n, &increment, options).await.expect("the first answer");
    assert_eq!(told.value, 1);
    relay.stop().await;
}

async fn a_watch_tells_what_there_is_and_what_changes(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let keys = keys(relay.address.port());
    for encoding in ENCODINGS {
        let watching = client(relay.address.port(), encoding).keys().expect("the options are right");
        let a = put(&keys, "p.a", 1).await;
        put(&keys, "other", 1).await;
        let scope = WatchScope::Prefix("p.".to_owned());
        let mut watch = watching.watch(&bucket(), scope.clone(), None).await.expect("a watch");
        let KeyEvent::Put { key: name, revision, value, content_type } = next(&mut watch).await else {
            panic!("a key")
        };
        assert_eq!((name.as_str(), revision, value.as_deref()), ("p.a", a, Some(&b"1"[..])));
        assert_eq!((content_type.as_str(), watch.cursor()), ("application/json", None));
        let KeyEvent::Synced(place) = next(&mut watch).await else { panic!("the end") };
        assert_eq!(watch.cursor(), Some(place));
        watch.close().await;
        let deleted = keys.delete(&bucket(), &key("p.a"), ChangeOptions::default()).await;
        let deleted = deleted.expect("an answer").expect("it was there").revision;
        let mut watch = watching.watch(&bucket(), scope, Some(place)).await.expect("a watch");
        let event = next(&mut watch).await;
        assert!(
            matches!(&event, KeyEvent::Gone { revision, has_expired: false, .. } if *revision == deleted)
        );
        assert_eq!(watch.cursor(), Some(deleted));
        let short = PutOptions { ttl: Some(Duration::from_millis(100)), ..PutOptions::default() };
        keys.put(&bucket(), &key("p.s"), "text/plain", "s", short).await.expect("it is put");
        let event = next(&mut watch).await;
        assert!(matches!(&event, KeyEvent::Put { content_type, .. } if content_type == "text/plain"));
        assert!(matches!(next(&mut watch).await, KeyEvent::Gone { has_expired: true, .. }));
        let mut one = watching.watch(&bucket(), WatchScope::Key(key("other")), None).await.expect("a watch");
        assert!(matches!(next(&mut one).await, KeyEvent::Put { .. }));
        assert!(matches!(next(&mut one).await, KeyEvent::Synced(_)));
    }
    relay.stop().await;
}

async fn a_watch_goes_on_through_breaks(storage: Storage) {
    const CHANGES: usize = 600;
    let relay = TestRelay::start(storage).await;
    let proxy = Proxy::start(relay.address.port()).await;
    let keys = keys(relay.address.port());
    let tasks = TaskTracker::new();
    for encoding in ENCODINGS {
        let watching = client(proxy.port(), encoding).keys().expect("the options are right");
        let mut watch = watching.watch(&bucket(), WatchScope::All, None).await.expect("a watch");
        while !matches!(next(&mut watch).await, KeyEvent::Synced(_)) {}
        let changing = {
            let keys = keys.clone();
            tasks.spawn(async move {
                let mut revisions = Vec::new();
                for at in 0..CHANGES {
                    revisions.push(put(&keys, &format!("k{}", at % 7), at).await);
                }
                revisions
            })
        };
        let (mut seen, mut breaks) = (Vec::new(), 0);
        while seen.len() < CHANGES {
            match next(&mut watch).await {
                KeyEvent::Put { revision, .. } => {
                    seen.push(revision);
                    if seen.len() % 60 == 0 {
                        proxy.cut();
                    }
                }
                KeyEvent::Reconnected => breaks += 1,
                KeyEvent::Disconnected(_) => {}
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(seen, changing.await.expect("all are put"), "each once, and in order");
        assert!(breaks >= 3, "{breaks} breaks");
    }
    relay.stop().await;
}

async fn a_snapshot_that_is_cut_comes_anew(storage: Storage) {
    const KEYS: usize = 40;
    let relay = TestRelay::start(storage).await;
    let proxy = Proxy::start(relay.address.port()).await;
    let keys = keys(relay.address.port());
    for at in 0..KEYS {
        let value = "v".repeat(100_000);
        let options = PutOptions::default();
        keys.put_json(&bucket(), &key(&format!("k{at}")), &value, options).await.expect("it is put");
    }
    let watching = client(proxy.port(), Encoding::Json).keys().expect("the options are right");
    let mut watch = watching.watch(&bucket(), WatchScope::All, None).await.expect("a watch");
    let (mut there, mut resets, mut is_cut) = (BTreeMap::new(), 0, false);
    loop {
        match next(&mut watch).await {
            KeyEvent::Put { key, revision, .. } => {
                there.insert(key, revision);
                if there.len() == 3 && !std::mem::replace(&mut is_cut, true) {
                    proxy.cut();
                    keys.delete(&bucket(), &key_of(&there), ChangeOptions::default()).await.expect("there");
                }
            }
            KeyEvent::Reset => {
                resets += 1;
                there.clear();
            }
            KeyEvent::Synced(_) => break,
            KeyEvent::Disconnected(_) | KeyEvent::Reconnected => {}
            KeyEvent::Gone { key, .. } => drop(there.remove(&key)),
        }
    }
    assert_eq!((there.len(), resets), (KEYS - 1, 1), "what was deleted meanwhile is not there");
    relay.stop().await;
}

fn key_of(there: &BTreeMap<KeyName, MessageId>) -> KeyName {
    there.keys().next().expect("there is one").clone()
}

async fn a_watch_that_cannot_go_on_is_told_so(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let keys = keys(relay.address.port());
    let wrong = keys.watch(&bucket(), WatchScope::Prefix("a b".to_owned()), None).await;
    assert_eq!(refused(wrong, Code::InvalidField).field.as_deref(), Some("prefix"));
    put(&keys, "a", 1).await;
    let place = MessageId::parse("99999999999999-0").expect("an id");
    let mut watch = keys.watch(&bucket(), WatchScope::All, Some(place)).await.expect("a watch");
    assert!(matches!(next(&mut watch).await, KeyEvent::Reset));
    assert_eq!(watch.cursor(), None);
    assert!(matches!(next(&mut watch).await, KeyEvent::Put { .. }));
    assert!(matches!(next(&mut watch).await, KeyEvent::Synced(_)));
    relay.stop().await;
}
