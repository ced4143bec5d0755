//! Keys of ours that hold something of another program: conflicts that name the key, at every call that needs
//! it, and nothing of theirs is touched.

use tidemill::proto::topics::TopicUpdate;
use tidemill::proto::{MessageId, TopicName};
use tidemill::storage::{Selection, Storage, StorageError};

use crate::support::eventually;
use crate::support::ground::{Ground, SOON, append, append_numbers, json, keyed, message};

/// Puts a value of a kind under a key: a string, or a list.
async fn put(ground: &Ground, kind: &str, key: &str) {
    match kind {
        "string" => ground.server().command(&["SET", key, "theirs"]).await,
        _ => ground.server().command(&["RPUSH", key, "theirs"]).await,
    };
}

async fn take_away(ground: &Ground, key: &str) {
    assert_eq!(ground.server().command(&["DEL", key]).await.integer(), 1, "{key} was left alone");
}

/// Checks that a call names the key.
#[track_caller]
fn names<T: std::fmt::Debug>(result: Result<T, StorageError>, key: &str) {
    match result {
        Err(StorageError::ForeignKey(named)) => assert_eq!(&*named, key),
        other => panic!("{key}: {other:?}"),
    }
}

pub(super) async fn a_foreign_description_is_named(ground: &Ground) {
    let storage = &ground.storage;
    for kind in ["string", "list"] {
        let topic = ground.topic();
        let key = format!("meta:topic:{topic}");
        put(ground, kind, &key).await;
        names(append(storage, message(&topic, json("1"))).await, &key);
        names(storage.topics.create(&topic, TopicUpdate::default(), None).await, &key);
        take_away(ground, &key).await;
        append_numbers(storage, &topic, 2).await;
        ground.server().command(&["DEL", &key]).await;
        put(ground, kind, &key).await;
        names(storage.topics.describe(&topic).await, &key);
        names(storage.topics.update(&topic, TopicUpdate::default().into()).await, &key);
        names(storage.topics.delete(&topic).await, &key);
        append_numbers(storage, &topic, 1).await;
        assert!(
            storage
                .topics
                .list(Selection::default(), None, 10)
                .await
                .unwrap()
                .topics
                .iter()
                .any(|it| it.topic_name == topic)
        );
        take_away(ground, &key).await;
        storage.topics.delete(&topic).await.unwrap();
    }
}

pub(super) async fn a_foreign_idempotency_key_is_named(ground: &Ground) {
    let storage = &ground.storage;
    for kind in ["string", "list"] {
        for exists in [false, true] {
            let topic = ground.topic();
            if exists {
                append_numbers(storage, &topic, 1).await;
            }
            let key = format!("idem:{{{topic}}}:once");
            put(ground, kind, &key).await;
            names(append(storage, keyed(&topic, json("1"), "once", 1)).await, &key);
            append(storage, keyed(&topic, json("1"), "other", 1)).await.unwrap();
            take_away(ground, &key).await;
            append(storage, keyed(&topic, json("1"), "once", 1)).await.unwrap();
        }
    }
}

pub(super) async fn foreign_keys_beside_a_topic_are_named(ground: &Ground) {
    let storage = &ground.storage;
    let topic = ground.topic();
    let key = format!("last:topic:{topic}");
    put(ground, "list", &key).await;
    names(storage.topics.create(&topic, TopicUpdate::default(), None).await, &key);
    take_away(ground, &key).await;
    // A text that is no number says nothing.
    put(ground, "string", &key).await;
    storage.topics.create(&topic, TopicUpdate::default(), None).await.unwrap();
    let key = format!("deleted:{{{topic}}}:ids");
    let first = append_numbers(storage, &topic, 2).await[0];
    put(ground, "string", &key).await;
    names(storage.messages.remove(&topic, first).await, &key);
    assert!(storage.messages.get(&topic, first).await.unwrap().is_some(), "nothing was changed");
    names(storage.topics.delete(&topic).await, &key);
    take_away(ground, &key).await;
    storage.messages.remove(&topic, first).await.unwrap();
    storage.topics.delete(&topic).await.unwrap();
}

pub(super) async fn a_foreign_index_is_named_and_topics_go_on(ground: &Ground) {
    let storage = &ground.storage;
    let (topic, new) = (ground.topic(), ground.topic());
    append_numbers(storage, &topic, 1).await;
    ground.server().command(&["DEL", "tidemill:topics"]).await;
    put(ground, "string", "tidemill:topics").await;
    names(storage.topics.list(Selection::default(), None, 10).await, "tidemill:topics");
    names(storage.topics.names("", None, 10).await, "tidemill:topics");
    names(storage.topics.stats().await, "tidemill:topics");
    names(storage.topics.create(&new, TopicUpdate::default(), None).await, "tidemill:topics");
    names(append(storage, message(&new, json("1"))).await, "tidemill:topics");
    append_numbers(storage, &topic, 1).await;
    assert_eq!(storage.topics.describe(&topic).await.unwrap().length, 2);
    take_away(ground, "tidemill:topics").await;
    append_numbers(storage, &new, 1).await;
}

pub(super) async fn what_is_no_name_in_the_index_ends_no_page_of_names(ground: &Ground) {
    let storage = &ground.storage;
    let sorted = ["n.a", "n.m", "n.z"].map(|name| TopicName::parse(name).expect("a name"));
    for topic in &sorted {
        append_numbers(storage, topic, 1).await;
    }
    for theirs in
        [&b""[..], b" ", b"n. ", b"n.b c", b"n.b d", b"n.b\xff", b"n.b\xff\xfe", b"n.y/", b"n.z ", b"\xff"]
    {
        ground.server().command(&[b"ZADD", &b"tidemill:topics"[..], b"0", theirs]).await;
    }
    for prefix in ["", "n."] {
        for limit in 1..=4 {
            let names = storage.topics.names(prefix, None, limit).await.unwrap();
            assert_eq!(names, sorted[..limit.min(3)], "{prefix:?} {limit}");
            let rest = storage.topics.names(prefix, Some(&sorted[0]), limit).await.unwrap();
            assert_eq!(rest, sorted[1..][..limit.min(2)], "{prefix:?} {limit}");
        }
    }
    assert_eq!(storage.topics.names("n.b", None, 1).await.unwrap(), []);
    assert_eq!(storage.topics.stats().await.unwrap().total_topics, 3);
}

pub(super) async fn a_topic_whose_ids_are_used_up_says_so(ground: &Ground) {
    let storage = &ground.storage;
    let topic = ground.topic();
    let key = format!("stream:topic:{topic}");
    let last = MessageId::MAX.to_string();
    ground.server().command(&["XADD", &key, &last, "payload", "1"]).await;
    for refused in [
        append(storage, message(&topic, json("1"))).await,
        append(storage, keyed(&topic, json("1"), "key", 1)).await,
    ] {
        assert!(matches!(refused, Err(StorageError::IdsUsedUp)), "{refused:?}");
    }
    storage.topics.delete(&topic).await.unwrap();
    append_numbers(storage, &topic, 1).await;
}

/// Returns the number of topics that are listed and that are counted.
async fn counts(storage: &Storage) -> (u64, u64) {
    let listed = storage.topics.list(Selection::default(), None, 100).await.unwrap().topics.len();
    (listed as u64, storage.topics.stats().await.unwrap().total_topics)
}

pub(super) async fn the_counts_agree_after_a_set_over_a_stream(ground: &Ground) {
    let storage = &ground.storage;
    let (kept, taken) = (ground.topic(), ground.topic());
    append_numbers(storage, &kept, 1).await;
    append_numbers(storage, &taken, 1).await;
    let before = counts(storage).await;
    assert_eq!(before.0, before.1);
    ground.server().command(&["SET", &format!("stream:topic:{taken}"), "theirs"]).await;
    assert_eq!(counts(storage).await, (before.0 - 1, before.1 - 1));
    // The index forgets it, too.
    eventually(SOON, async || {
        storage.upkeep.sweep().await.unwrap();
        let score = ground.server().command(&["ZSCORE", "tidemill:topics", taken.as_str()]).await;
        score == crate::support::resp::Reply::Null
    })
    .await;
    assert_eq!(counts(storage).await, (before.0 - 1, before.1 - 1));
}
