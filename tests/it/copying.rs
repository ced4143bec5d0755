//! Copying from one storage to another, between real servers: what is there, and what comes meanwhile; and what of it goes
//! over the wire.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tidemill::clock::Clock;
use tidemill::copying::{Action, Copy, CopyError, Frozen, Plan, freeze};
use tidemill::proto::page::Order;
use tidemill::proto::topics::TopicUpdate;
use tidemill::proto::{BucketName, KeyName, MessageId, TopicName, TopicSelector};
use tidemill::storage::valkey::{Target, Valkey, ValkeyOptions};
use tidemill::storage::{
    Backend as _, CopiedKey, KeyChange, KeyChanges, KeyCondition, KeyEdit, KeyValue, RunEnding, Storage,
    StorageError, Trim,
};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::support::eventually;
use crate::support::ground::{
    Ground, LIMITS, SOON, append, append_numbers, ids, json, message, node, read_all, topic,
};
use crate::support::server::{Kind, Server};

mod file;
mod forged;
mod freezing;
mod gone;
mod lacking;
mod listed;
mod sides;
mod twice;
mod unfinished;
mod wire;

const PLAN: Plan =
    Plan { topics: Vec::new(), follow: false, switch: false, overwrite: false, patience: SOON };

/// Returns a source, and a target whose keys are written in another way.
async fn sides() -> Option<(Ground, Ground)> {
    Some((Ground::on(Kind::Valkey).await?, Ground::with_braces().await?))
}

fn copy(from: &Ground, to: &Ground, plan: Plan) -> Copy {
    Copy::new(Arc::new(from.storage.clone()), Arc::new(to.storage.clone()), plan)
}

fn named(name: &str) -> Vec<TopicSelector> {
    vec![TopicSelector::parse(name).expect("the selector is right")]
}

async fn kept(storage: &Storage, topic: &TopicName) -> Vec<MessageId> {
    ids(&read_all(storage, topic, Order::Asc, 1_000).await)
}

async fn actions(copy: &Copy) -> Vec<(String, Action, u64)> {
    let planned = copy.plan().await.unwrap().topics;
    planned.into_iter().map(|one| (one.topic.to_string(), one.action, one.messages)).collect()
}

#[tokio::test]
async fn a_storage_is_copied_and_what_is_there_is_not_copied_again() {
    let Some((from, to)) = sides().await else { return };
    let (one, two) = (topic("one"), topic("two.a"));
    let sent =
        [append_numbers(&from.storage, &one, 2_500).await, append_numbers(&from.storage, &two, 3).await];
    from.storage.runs.end_run(&two, RunEnding::Close).await.unwrap();
    let first = copy(&from, &to, PLAN);
    let planned = |action| vec![("one".to_owned(), action, 2_500), ("two.a".to_owned(), action, 3)];
    assert_eq!(actions(&first).await, planned(Action::Make));
    assert!(matches!(to.storage.topics.describe(&one).await, Err(StorageError::NoTopic)), "nothing is done");

    first.run().await.unwrap();
    assert_eq!(kept(&to.storage, &one).await, sent[0]);
    assert_eq!(kept(&to.storage, &two).await, sent[1]);
    let reached = first.progress().reached();
    assert_eq!((reached.topics, reached.finished, reached.messages), (2, 2, 2_503));
    assert_eq!((reached.expected, reached.failing), (2_503, None));
    let again = copy(&from, &to, PLAN);
    assert_eq!(actions(&again).await, planned(Action::Keep));
    again.run().await.unwrap();
    assert_eq!(again.progress().reached().messages, 0);
    append(&to.storage, message(&one, json("x"))).await.unwrap();
}

#[tokio::test]
async fn what_is_something_else_is_overwritten_only_where_that_is_said() {
    let Some((from, to)) = sides().await else { return };
    let (one, two) = (topic("one"), topic("two"));
    let sent = append_numbers(&from.storage, &one, 10).await;
    append_numbers(&from.storage, &two, 10).await;
    let own = append_numbers(&to.storage, &two, 5).await;
    let refused = copy(&from, &to, PLAN).run().await;
    assert!(matches!(&refused, Err(CopyError::Taken(topic, _)) if *topic == two), "{refused:?}");
    assert!(matches!(to.storage.topics.describe(&one).await, Err(StorageError::NoTopic)), "nothing is done");
    assert_eq!(kept(&to.storage, &two).await, own);

    // Those that are selected, and no others.
    copy(&from, &to, Plan { topics: named("one"), ..PLAN }).run().await.unwrap();
    assert_eq!(kept(&to.storage, &one).await, sent);
    for none in ["none", "none.*"] {
        let missing = copy(&from, &to, Plan { topics: named(none), ..PLAN }).run().await;
        assert!(matches!(&missing, Err(CopyError::Missing(said)) if said.to_string() == none), "{missing:?}");
    }

    copy(&from, &to, Plan { overwrite: true, ..PLAN }).run().await.unwrap();
    assert_eq!(kept(&to.storage, &two).await, kept(&from.storage, &two).await);
    // Both have gone on since.
    append_numbers(&from.storage, &one, 1).await;
    let behind = copy(&from, &to, PLAN).run().await;
    assert!(matches!(&behind, Err(CopyError::Taken(topic, _)) if *topic == one), "{behind:?}");
}

#[tokio::test]
async fn a_copy_that_is_broken_off_is_gone_on_with() {
    let Some((from, to)) = sides().await else { return };
    let one = topic("one");
    let sent = append_numbers(&from.storage, &one, 20_000).await;
    let mut breaks = 0;
    loop {
        let part = copy(&from, &to, PLAN);
        let done = timeout(Duration::from_millis(60), part.run()).await;
        if let Ok(done) = done {
            done.unwrap();
            break;
        }
        breaks += 1;
        assert!(breaks < 1_000, "it does not come to an end");
        if breaks == 1 {
            let refused = append(&to.storage, message(&one, json("x"))).await;
            let is_refused = matches!(refused, Err(StorageError::ReadOnly(_)))
                || to.storage.topics.describe(&one).await.is_err();
            assert!(is_refused || refused.is_ok(), "{refused:?}");
            if refused.is_ok() {
                to.storage.topics.delete(&one).await.unwrap();
            }
        }
    }
    assert_eq!(kept(&to.storage, &one).await, sent);
}

/// Publishes to topics, one message after the other, until they are read-only; returns what was accepted.
fn publishers(
    storage: &Storage,
    topics: &[TopicName],
    tracker: &TaskTracker,
) -> Vec<tokio::task::JoinHandle<Vec<MessageId>>> {
    let publish = |topic: &TopicName| {
        let (storage, topic) = (storage.clone(), topic.clone());
        tracker.spawn(async move {
            let mut accepted = Vec::new();
            loop {
                match append(&storage, message(&topic, json(accepted.len().to_string()))).await {
                    Ok(appended) => accepted.push(appended.id),
                    Err(StorageError::ReadOnly(_)) => return accepted,
                    Err(error) => panic!("{error:?}"),
                }
            }
        })
    };
    topics.iter().map(publish).collect()
}

#[tokio::test]
async fn what_is_published_meanwhile_is_followed_until_the_source_is_read_only() {
    let Some((from, to)) = sides().await else { return };
    let topics: Vec<TopicName> = (0..6).map(|number| topic(&format!("followed-{number}"))).collect();
    for topic in &topics[..4] {
        append_numbers(&from.storage, topic, 1_200).await;
    }
    let tracker = TaskTracker::new();
    let before: Vec<Vec<MessageId>> = {
        let mut before = Vec::new();
        for topic in &topics[..4] {
            before.push(kept(&from.storage, topic).await);
        }
        before
    };
    // The last two come to be while it is under way.
    let publishing = publishers(&from.storage, &topics, &tracker);
    let following = copy(&from, &to, Plan { follow: true, ..PLAN });
    let switch = async {
        eventually(SOON, async || {
            let reached = following.progress().reached();
            reached.passes > 3 && reached.messages > 4_800
        })
        .await;
        // One of its own would be mixed up with what comes.
        let own = append(&to.storage, message(&topics[0], json("x"))).await;
        assert!(matches!(own, Err(StorageError::ReadOnly(_))), "{own:?}");
        let frozen = Frozen { topics: topics.len(), ..Frozen::default() };
        assert_eq!(freeze(&from.storage, &[], true).await.unwrap(), frozen);
    };
    let both = async { tokio::join!(following.run(), switch) };
    let (done, ()) = timeout(SOON * 3, both).await.expect("it ends");
    done.unwrap();
    for (at, publisher) in publishing.into_iter().enumerate() {
        let accepted = publisher.await.expect("a publisher ends");
        let all = [before.get(at).cloned().unwrap_or_default(), accepted].concat();
        assert_eq!(kept(&to.storage, &topics[at]).await, all, "{at}");
    }
    // Publishing goes on at the target, and at the source once that is said.
    append(&to.storage, message(&topics[0], json("x"))).await.unwrap();
    let fresh = append(&from.storage, message(&topic("fresh"), json("x"))).await;
    assert!(matches!(fresh, Err(StorageError::ReadOnly(_))), "{fresh:?}");
    freeze(&from.storage, &[], false).await.unwrap();
    append(&from.storage, message(&topics[0], json("x"))).await.unwrap();
    append(&from.storage, message(&topic("fresh"), json("x"))).await.unwrap();
}

#[tokio::test]
async fn what_is_deleted_trimmed_or_made_again_while_it_is_followed_is_so_at_the_target() {
    let Some((from, to)) = sides().await else { return };
    let [kept_on, gone, again] = ["kept", "gone", "again"].map(topic);
    let sent = append_numbers(&from.storage, &kept_on, 30).await;
    append_numbers(&from.storage, &gone, 5).await;
    append_numbers(&from.storage, &again, 5).await;
    let following = copy(&from, &to, Plan { follow: true, ..PLAN });
    let change = async {
        eventually(SOON, async || following.progress().reached().messages == 40).await;
        from.storage.topics.delete(&gone).await.unwrap();
        from.storage.topics.delete(&again).await.unwrap();
        let anew = append_numbers(&from.storage, &again, 7).await;
        assert!(from.storage.messages.remove(&kept_on, sent[20]).await.unwrap());
        from.storage.messages.trim(&kept_on, Trim::Before(sent[10])).await.unwrap();
        let update = TopicUpdate { description: Some("changed".to_owned()), ..TopicUpdate::default() };
        from.storage.topics.update(&kept_on, update.into()).await.unwrap();
        freeze(&from.storage, &[], true).await.unwrap();
        anew
    };
    let both = async { tokio::join!(following.run(), change) };
    let (done, anew) = timeout(SOON * 3, both).await.expect("it ends");
    done.unwrap();
    let left: Vec<MessageId> = [&sent[10..20], &sent[21..]].concat();
    assert_eq!(kept(&to.storage, &kept_on).await, left);
    assert_eq!(kept(&to.storage, &again).await, anew);
    assert!(matches!(to.storage.topics.describe(&gone).await, Err(StorageError::NoTopic)));
    let described = to.storage.topics.describe(&kept_on).await.unwrap();
    assert_eq!(described.topic.description.as_deref(), Some("changed"));
    let [there, here] = [&from, &to].map(|ground| ground.storage.copies.copied(&kept_on));
    let (there, here) = (there.await.unwrap(), here.await.unwrap());
    assert_eq!((here.given, here.last, here.first), (there.given, there.last, there.first));
}

#[tokio::test]
async fn what_comes_to_the_source_of_a_copy_that_is_whole_is_not_passed_over_in_silence() {
    let Some((from, to)) = sides().await else { return };
    let one = topic("one");
    append_numbers(&from.storage, &one, 5).await;
    copy(&from, &to, PLAN).run().await.unwrap();
    let following = copy(&from, &to, Plan { follow: true, ..PLAN });
    let come = async {
        eventually(SOON, async || following.progress().reached().passes > 1).await;
        append_numbers(&from.storage, &one, 1).await
    };
    let both = async { tokio::join!(following.run(), come) };
    let (ended, come) = timeout(SOON, both).await.expect("it ends");
    assert!(matches!(ended, Err(CopyError::Taken(topic, _)) if topic == one));
    freeze(&from.storage, &[], true).await.unwrap();
    let again = copy(&from, &to, Plan { follow: true, overwrite: true, ..PLAN });
    timeout(SOON * 2, again.run()).await.expect("it ends").unwrap();
    assert_eq!(kept(&to.storage, &one).await.last(), come.last());
    // What the source has no more of is there already.
    let again = copy(&from, &to, Plan { follow: true, ..PLAN });
    timeout(SOON * 2, again.run()).await.expect("it ends").unwrap();
    let missing = freeze(&from.storage, &named("nosuch"), true).await.unwrap();
    assert_eq!(missing, Frozen { missing: vec![topic("nosuch")], ..Frozen::default() });
}

/// Starts a server that loses nothing when it is killed, and opens it.
async fn lasting() -> Option<(Server, Arc<Valkey>)> {
    let server = Server::start(Kind::Valkey, &["--appendonly", "yes", "--appendfsync", "always"]).await?;
    let target = Target::parse(&format!("valkey://127.0.0.1:{}", server.port())).expect("the URL is right");
    let valkey = Valkey::connect(node(), ValkeyOptions::new(target), LIMITS, Clock::system());
    assert!(valkey.ready(SOON).await, "the backend does not connect");
    Some((server, valkey))
}

#[tokio::test]
async fn both_sides_are_killed_and_come_back_while_it_is_copied() {
    let Some((mut from_server, from)) = lasting().await else { return };
    let (mut to_server, to) = lasting().await.expect("the first one started");
    let (from, to) = (Storage::new(from), Storage::new(to));
    let topics: Vec<TopicName> = (0..6).map(|number| topic(&format!("killed-{number}"))).collect();
    let mut sent = Vec::new();
    for topic in &topics {
        sent.push(append_numbers(&from, topic, 6_000).await);
    }
    let copy = Copy::new(Arc::new(from.clone()), Arc::new(to.clone()), PLAN);
    let kill = async {
        eventually(SOON, async || copy.progress().reached().messages > 3_000).await;
        to_server.kill9();
        to_server.restart().await;
        eventually(SOON, async || copy.progress().reached().messages > 15_000).await;
        from_server.kill9();
        from_server.restart().await;
    };
    let both = async { tokio::join!(copy.run(), kill) };
    let (done, ()) = timeout(SOON * 3, both).await.expect("it ends");
    done.unwrap();
    for (topic, sent) in topics.iter().zip(&sent) {
        assert_eq!(kept(&to, topic).await, *sent);
    }
}

#[tokio::test]
async fn a_side_that_is_away_is_waited_for_and_no_longer_than_it_may() {
    let Some((from, to)) = sides().await else { return };
    append_numbers(&from.storage, &topic("one"), 10).await;
    to.backend.close().await;
    let patience = Duration::from_millis(700);
    let began = tokio::time::Instant::now();
    let failed = copy(&from, &to, Plan { patience, ..PLAN }).run().await;
    assert!(matches!(&failed, Err(CopyError::Failed { .. })), "{failed:?}");
    assert!(began.elapsed() >= patience);
}

fn key(name: &str) -> KeyName {
    KeyName::parse(name).expect("the name is right")
}

async fn put(
    storage: &Storage,
    bucket: &BucketName,
    name: &str,
    ttl: Option<Duration>,
) -> Result<(), StorageError> {
    let value = KeyValue { bytes: Bytes::from_static(b"1"), content_type: None };
    let edit = KeyEdit::Put { value, ttl, fresh: None, owner: None };
    let change = KeyChange { key: key(name), condition: KeyCondition::Anything, edit };
    let changes = KeyChanges {
        bucket: bucket.clone(),
        changes: vec![change],
        idempotency: None,
        fence: None,
        create_bucket: true,
        timestamp: storage.upkeep.now(),
    };
    storage.buckets.change_keys(changes).await.map(drop)
}

/// Returns all keys of a bucket, as they are copied.
async fn keys_of(storage: &Storage, bucket: &BucketName) -> Vec<CopiedKey> {
    let mut keys = Vec::new();
    let mut after = None;
    loop {
        let page = storage.bucket_copies.copied_keys(bucket, after.as_ref(), 500, 1 << 20).await.unwrap();
        keys.extend(page.keys);
        after = page.next;
        if after.is_none() {
            return keys;
        }
    }
}

#[tokio::test]
async fn keys_that_are_changed_meanwhile_are_at_the_target_as_they_were_in_the_end() {
    let Some((from, to)) = sides().await else { return };
    let [busy, still] = ["busy", "still"].map(|name| BucketName::parse(name).expect("a name"));
    for number in 0..2_500 {
        put(&from.storage, &busy, &format!("k{number}"), None).await.unwrap();
    }
    put(&from.storage, &still, "a", None).await.unwrap();
    // One that is there already, and is not a copy, is in the way.
    put(&to.storage, &still, "own", None).await.unwrap();
    let taken = copy(&from, &to, PLAN).run().await;
    assert!(
        matches!(&taken, Err(CopyError::Taken(log, _)) if log.bucket() == Some(still.clone())),
        "{taken:?}"
    );
    assert!(matches!(to.storage.buckets.bucket(&busy).await, Err(StorageError::NoBucket)), "nothing is done");
    to.storage.buckets.delete_bucket(&still).await.unwrap();

    let tracker = TaskTracker::new();
    let change = |number: usize| {
        let (storage, busy) = (from.storage.clone(), busy.clone());
        tracker.spawn(async move {
            for round in 0_u64.. {
                let name = format!("k{}", number * 1_000 + usize::try_from(round % 700).expect("it is less"));
                let done = match round % 3 {
                    0 => put(&storage, &busy, &name, None).await,
                    1 => put(&storage, &busy, &name, Some(Duration::from_hours(1))).await,
                    _ => {
                        let edit = KeyEdit::Delete;
                        let change = KeyChange { key: key(&name), condition: KeyCondition::Anything, edit };
                        let changes = vec![change];
                        let timestamp = storage.upkeep.now();
                        let (bucket, create_bucket) = (busy.clone(), true);
                        let all = KeyChanges {
                            bucket,
                            changes,
                            idempotency: None,
                            fence: None,
                            create_bucket,
                            timestamp,
                        };
                        storage.buckets.change_keys(all).await.map(drop)
                    }
                };
                match done {
                    Ok(()) => {}
                    Err(StorageError::ReadOnly(_)) => return,
                    Err(error) => panic!("{error:?}"),
                }
            }
        })
    };
    let changing = [change(0), change(1)];
    let following = copy(&from, &to, Plan { follow: true, ..PLAN });
    let switch = async {
        eventually(SOON, async || following.progress().reached().caught_up).await;
        // That a key was touched is in no log.
        let hour = Some(Duration::from_hours(1));
        from.storage.buckets.touch_key(&still, &key("a"), hour, false).await.unwrap().expect("it is there");
        let frozen = freeze(&from.storage, &[], true).await.unwrap();
        assert_eq!((frozen.topics, frozen.buckets), (0, 2));
    };
    let both = async { tokio::join!(following.run(), switch) };
    let (done, ()) = timeout(SOON * 3, both).await.expect("it ends");
    done.unwrap();
    for one in changing {
        timeout(SOON, one).await.expect("it is refused").expect("no panic");
    }
    for bucket in [&busy, &still] {
        assert_eq!(keys_of(&to.storage, bucket).await, keys_of(&from.storage, bucket).await);
        let [there, here] = [&from, &to].map(|ground| ground.storage.bucket_copies.copied_bucket(bucket));
        let (there, here) = (there.await.unwrap(), here.await.unwrap());
        assert_eq!((here.last, here.given, here.first), (there.last, there.given, there.first));
        assert_eq!((here.state, here.epoch, here.freeze), (there.state, there.epoch, None));
    }
    assert!(keys_of(&to.storage, &still).await[0].entry.expires_at.is_some());
    put(&to.storage, &busy, "new", None).await.unwrap();
    let again = copy(&from, &to, PLAN);
    let actions: Vec<Action> =
        again.plan().await.unwrap().buckets.into_iter().map(|one| one.action).collect();
    assert_eq!(actions, [Action::Keep; 2]);
}

#[tokio::test]
async fn a_copy_of_keys_that_is_broken_off_is_gone_on_with() {
    let Some((from, to)) = sides().await else { return };
    let bucket = BucketName::parse("many").expect("a name");
    for number in 0..6_000 {
        put(&from.storage, &bucket, &format!("k{}", number % 4_000), None).await.unwrap();
    }
    let mut breaks = 0;
    loop {
        let part = copy(&from, &to, PLAN);
        if let Ok(done) = timeout(Duration::from_millis(60 + breaks * 10), part.run()).await {
            done.unwrap();
            break;
        }
        breaks += 1;
        assert!(breaks < 100, "it does not come to an end");
    }
    assert_eq!(keys_of(&to.storage, &bucket).await, keys_of(&from.storage, &bucket).await);
}
