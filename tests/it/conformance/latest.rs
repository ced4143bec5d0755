//! Topics whose messages replace each other: the latest of each key stays.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::json;
use tidemill::copying::{Copy, Plan};
use tidemill::proto::topics::TopicUpdate;
use tidemill::proto::{GapReason, MessageId, TopicName, TopicSelector};
use tidemill::storage::{
    Batch, Body, GapCheck, LatestRange, NewMessage, Part, Range, Storage, StorageError, StoredMessage,
    TopicChange, Trim,
};

use crate::support::dice::Dice;
use crate::support::ground::{Ground, SOON, append_all, expired, ids, length, message, texts};

/// Fewest messages that a topic keeps here: enough that Valkey, which removes whole nodes of a stream, removes some.
const KEPT: u64 = 200;

/// Returns a message of a key; without a payload it says that the key is gone.
fn of_key(key: &str, payload: &str) -> Body {
    let metadata = Some(Bytes::from(json!({ "other": 1, "key": key }).to_string()));
    Body { payload: payload.to_owned().into(), content_type: None, metadata, order_key: None }
}

fn without_key(payload: &str) -> Body {
    Body { payload: payload.to_owned().into(), content_type: None, metadata: None, order_key: None }
}

/// Makes a topic that is compacted.
async fn compacted(ground: &Ground, max_messages: Option<u64>) -> TopicName {
    let topic = ground.topic();
    let about = TopicUpdate { compact_by: Some("key".to_owned()), max_messages, ..TopicUpdate::default() };
    let made = ground.storage.topics.create(&topic, about, None).await.expect("a topic");
    assert_eq!(made.compact_by.as_deref(), Some("key"));
    topic
}

async fn try_latest(
    storage: &Storage,
    topic: &TopicName,
    after: Option<MessageId>,
    (gap_check, goes_on): (GapCheck, bool),
) -> Result<Batch, StorageError> {
    let range = LatestRange { after, gap_check, goes_on, limit: 1_000, bytes_max: usize::MAX };
    storage.messages.latest(topic, range).await
}

/// Reads the latest messages in pages of so many.
async fn latest_by(storage: &Storage, topic: &TopicName, limit: usize) -> Vec<StoredMessage> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let gap_check = if after.is_none() { GapCheck::None } else { GapCheck::Seen };
        let range = LatestRange { after, gap_check, goes_on: true, limit, bytes_max: usize::MAX };
        let batch = storage.messages.latest(topic, range).await.expect("the latest messages");
        assert!(batch.gap.is_none() && batch.messages.len() <= limit, "{batch:?}");
        all.extend(batch.messages);
        if batch.at_end {
            let tail = storage.live.tail(topic).await.expect("a tail");
            assert_eq!(batch.reached.or(after), tail.last.or(after), "it has come to the topic's end");
            return all;
        }
        after = batch.next;
    }
}

async fn append_keys(storage: &Storage, topic: &TopicName, keys: &[(&str, &str)]) -> Vec<MessageId> {
    let messages = keys.iter().map(|(key, payload)| message(topic, of_key(key, payload)));
    append_all(storage, messages.collect()).await
}

/// Appends so many messages, in batches that a topic is trimmed behind, of keys that nobody looks at.
async fn append_others(storage: &Storage, topic: &TopicName, count: usize) {
    for _ in 0..count / 50 {
        let messages = (0..50).map(|at| message(topic, of_key(&format!("other.{at}"), "0")));
        append_all(storage, messages.collect()).await;
    }
}

pub(super) async fn the_latest_of_each_key_is_there_however_short_the_log(ground: &Ground) {
    let storage = &ground.storage;
    let topic = compacted(ground, Some(KEPT)).await;
    let mut dice = Dice::cast();
    let mut model: BTreeMap<String, (MessageId, String)> = BTreeMap::new();
    for turn in 0..60 {
        let mut batch: Vec<NewMessage> = Vec::new();
        let mut keys = Vec::new();
        for _ in 0..=dice.roll(60) {
            // Few keys that change often, and many that change rarely. Some have none.
            let key = match dice.roll(10) {
                0 => None,
                1..=4 => Some(format!("often.{}", dice.roll(5))),
                _ => Some(format!("rare \"{}\" é\u{1f30a}\0", dice.roll(150))),
            };
            let payload = if dice.roll(12) == 0 { "null".to_owned() } else { dice.roll(1_000).to_string() };
            let body = key.as_deref().map_or_else(|| without_key(&payload), |key| of_key(key, &payload));
            batch.push(message(&topic, body));
            keys.push((key, payload));
        }
        for (id, (key, payload)) in append_all(storage, batch).await.into_iter().zip(keys) {
            if let Some(key) = key {
                model.insert(key, (id, payload));
            }
        }
        if turn % 7 == 3 || turn == 59 {
            let mut expected: Vec<_> = model.values().cloned().collect();
            expected.sort();
            let found = latest_by(storage, &topic, dice.pick(&[1, 7, 30, 90])).await;
            let found: Vec<_> = ids(&found).into_iter().zip(texts(&found)).collect();
            assert_eq!(found, expected, "turn {turn}");
        }
    }
    let kept = length(storage, &topic).await;
    assert!(kept < 900, "the log was to be short, and has {kept}");
}

pub(super) async fn who_is_behind_is_told_that_what_is_gone_was_compacted(ground: &Ground) {
    let storage = &ground.storage;
    let topic = compacted(ground, Some(KEPT)).await;
    let first = append_keys(storage, &topic, &[("a", "1"), ("a", "2"), ("b", "3")]).await;
    append_others(storage, &topic, 1_500).await;
    let range = |after| Range {
        order: tidemill::proto::page::Order::Asc,
        after: Some(after),
        gap_check: GapCheck::Seen,
        limit: 10,
        bytes_max: usize::MAX,
    };
    for after in [first[0], MessageId::MIN] {
        let read = storage.messages.read(&topic, range(after)).await.unwrap();
        let gap = read.gap.expect("a gap");
        assert_eq!(
            (gap.reason, gap.from, Some(gap.to)),
            (GapReason::Compacted, after, read.messages.first().map(|it| it.id))
        );
        // And the latest of those keys is there, also by its id.
        let latest = try_latest(storage, &topic, Some(after), (GapCheck::Seen, false)).await.unwrap();
        assert_eq!((latest.gap, ids(&latest.messages)[..2].to_vec()), (None, first[1..].to_vec()));
    }
    assert_eq!(storage.messages.get(&topic, first[0]).await.unwrap(), None, "it was replaced");
    let kept = storage.messages.get(&topic, first[1]).await.unwrap().expect("the latest of its key");
    assert_eq!((kept.id, &*kept.body.payload), (first[1], &b"2"[..]));

    // What has no key is gone when it is gone from the log, and who has not got it is told so.
    let keyless = append_all(storage, vec![message(&topic, without_key("4"))]).await[0];
    append_others(storage, &topic, 1_500).await;
    let read = storage.messages.read(&topic, range(first[0])).await.unwrap();
    assert_eq!(read.gap.map(|gap| gap.reason), Some(GapReason::Trimmed));
    let read = storage.messages.read(&topic, range(keyless)).await.unwrap();
    assert_eq!(read.gap.map(|gap| gap.reason), Some(GapReason::Compacted));
}

pub(super) async fn what_is_deleted_or_trimmed_by_request_is_not_among_the_latest(ground: &Ground) {
    let storage = &ground.storage;
    let topic = compacted(ground, None).await;
    let given =
        append_keys(storage, &topic, &[("a", "1"), ("b", "2"), ("a", "3"), ("c", "4"), ("d", "null")]).await;
    assert_eq!(ids(&latest_by(storage, &topic, 2).await), [given[1], given[2], given[3], given[4]]);
    assert!(storage.messages.remove(&topic, given[2]).await.unwrap());
    assert_eq!(
        ids(&latest_by(storage, &topic, 2).await),
        [given[1], given[3], given[4]],
        "the one that it had replaced does not come back"
    );
    // An id that no message had, among those that there are, is of another topic, or was lost.
    let strange = MessageId::new(given[3].ms, given[3].seq + 7_000);
    let next = append_keys(storage, &topic, &[("f", "8")]).await;
    if strange < next[0] {
        let told = try_latest(storage, &topic, Some(strange), (GapCheck::Seen, false)).await.unwrap();
        assert_eq!(told.gap.map(|gap| gap.reason), Some(GapReason::Reset));
        assert_eq!(ids(&told.messages), [given[1], given[3], given[4], next[0]], "it begins anew");
    }
    let end = try_latest(storage, &topic, Some(MessageId::MAX), (GapCheck::None, false)).await.unwrap();
    assert_eq!((end.gap, end.messages.len()), (None, 0), "behind the end there is nothing");
    assert!(storage.messages.remove(&topic, next[0]).await.unwrap());
    // The key can come back, and what was not looked at yet can be deleted.
    let again = append_keys(storage, &topic, &[("a", "5"), ("a", "6")]).await;
    assert!(storage.messages.remove(&topic, again[1]).await.unwrap());
    assert_eq!(ids(&latest_by(storage, &topic, 9).await), [given[1], given[3], given[4]]);
    storage.messages.trim(&topic, Trim::Before(given[4])).await.unwrap();
    assert_eq!(ids(&latest_by(storage, &topic, 9).await), [given[4]]);
    let told = |after| try_latest(storage, &topic, Some(after), (GapCheck::Seen, false));
    let gap = told(given[1]).await.unwrap().gap.expect("what was trimmed is missing");
    assert_eq!((gap.reason, gap.to), (GapReason::Trimmed, given[4]));
    assert_eq!(told(given[4]).await.unwrap().gap, None);
    // One that is in the table alone is deleted, too.
    append_all(storage, vec![message(&topic, of_key("e", "7"))]).await;
    assert_eq!(latest_by(storage, &topic, 9).await.len(), 2);
    storage.messages.trim(&topic, Trim::Keep(0)).await.unwrap();
    assert_eq!(latest_by(storage, &topic, 9).await, []);
}

pub(super) async fn a_topic_is_compacted_from_when_it_says_so_and_by_what(ground: &Ground) {
    let storage = &ground.storage;
    let topic = ground.topic();
    let given = append_keys(storage, &topic, &[("a", "1"), ("b", "2"), ("a", "3")]).await;
    let refused = try_latest(storage, &topic, None, (GapCheck::None, false)).await;
    assert!(matches!(refused, Err(StorageError::NotCompacted)), "{refused:?}");
    let set = |field: Option<&str>| TopicChange {
        compact_by: Part::Set(field.map(str::to_owned)),
        ..TopicChange::default()
    };
    let changed = storage.topics.update(&topic, set(Some("key"))).await.unwrap();
    assert_eq!(changed.compact_by.as_deref(), Some("key"));
    assert_eq!(ids(&latest_by(storage, &topic, 9).await), [given[1], given[2]]);
    let kept = TopicChange { description: Part::Set(Some("d".to_owned())), ..TopicChange::default() };
    let kept = storage.topics.update(&topic, kept).await.unwrap();
    assert_eq!(kept.compact_by.as_deref(), Some("key"));
    assert_eq!(storage.topics.describe(&topic).await.unwrap().topic.compact_by.as_deref(), Some("key"));
    storage.topics.update(&topic, set(Some("nothing"))).await.unwrap();
    assert_eq!(latest_by(storage, &topic, 9).await, []);
    storage.topics.update(&topic, set(Some("key"))).await.unwrap();
    assert_eq!(ids(&latest_by(storage, &topic, 9).await), [given[1], given[2]]);
    storage.topics.update(&topic, set(None)).await.unwrap();
    let refused = try_latest(storage, &topic, None, (GapCheck::None, false)).await;
    assert!(matches!(refused, Err(StorageError::NotCompacted)), "{refused:?}");

    // Nothing of it is left to the next topic of the name.
    storage.topics.update(&topic, set(Some("key"))).await.unwrap();
    storage.topics.delete(&topic).await.unwrap();
    let gone = try_latest(storage, &topic, None, (GapCheck::None, false)).await;
    assert!(matches!(gone, Err(StorageError::NoTopic)), "{gone:?}");
    let about = TopicUpdate { compact_by: Some("key".to_owned()), ..TopicUpdate::default() };
    storage.topics.create(&topic, about, None).await.unwrap();
    let empty = try_latest(storage, &topic, None, (GapCheck::None, false)).await.unwrap();
    assert_eq!((empty.messages.len(), empty.reached, empty.at_end), (0, None, true));
    let behind = try_latest(storage, &topic, Some(given[2]), (GapCheck::Seen, false)).await.unwrap();
    assert_eq!(behind.gap.map(|gap| gap.reason), Some(GapReason::Deleted));
    let next = append_keys(storage, &topic, &[("a", "9")]).await;
    assert_eq!(ids(&latest_by(storage, &topic, 9).await), next);
}

pub(super) async fn there_are_as_many_latest_as_the_topic_keeps_messages(ground: &Ground) {
    let storage = &ground.storage;
    let topic = compacted(ground, Some(KEPT)).await;
    let mut given = Vec::new();
    for hundred in 0..20 {
        let messages = (0..100).map(|at| message(&topic, of_key(&format!("{hundred}.{at}"), "1")));
        given.extend(append_all(storage, messages.collect()).await);
    }
    let latest = latest_by(storage, &topic, 500).await;
    assert_eq!(latest.last().map(|latest| latest.id), given.last().copied());
    let most = usize::try_from(KEPT).unwrap();
    assert!((most..most + 300).contains(&latest.len()), "{} of {}", latest.len(), given.len());
    let behind = try_latest(storage, &topic, Some(given[0]), (GapCheck::Seen, false)).await.unwrap();
    let gap = behind.gap.expect("others had no room");
    assert_eq!((gap.reason, gap.to), (GapReason::Trimmed, latest[0].id));
    assert_eq!(ids(&behind.messages), ids(&latest));
    let goes_on = try_latest(storage, &topic, Some(given[0]), (GapCheck::Seen, true)).await.unwrap();
    assert_eq!(goes_on.gap, None, "who reads page by page has begun with what there was");
}

pub(super) async fn what_nobody_has_looked_at_is_trimmed_all_the_same(ground: &Ground) {
    let storage = &ground.storage;
    let topic = compacted(ground, Some(KEPT)).await;
    let first = append_keys(storage, &topic, &[("first", "1")]).await;
    for _ in 0..12 {
        let messages = (0..1_000).map(|at| message(&topic, of_key(&format!("{}", at % 50), "1")));
        append_all(storage, messages.collect()).await;
    }
    // Far more than what one step looks at where there is time.
    storage.upkeep.sweep().await.expect("a sweep");
    let left = length(storage, &topic).await;
    assert!(left < KEPT + 300, "{left}");
    let latest = latest_by(storage, &topic, 60).await;
    assert_eq!((latest.len(), latest[0].id), (51, first[0]));
}

pub(super) async fn what_has_expired_is_the_latest_and_is_not_returned(ground: &Ground) {
    let storage = &ground.storage;
    let topic = compacted(ground, None).await;
    append_keys(storage, &topic, &[("a", "1")]).await;
    append_all(storage, vec![expired(&topic, of_key("a", "2"))]).await;
    let last = append_keys(storage, &topic, &[("b", "3")]).await;
    assert_eq!(ids(&latest_by(storage, &topic, 1).await), last);
}

/// Copies a topic to another storage, and back to where it is deleted meanwhile: the latest messages are the same in each.
async fn copy_there_and_back(storage: &Storage, topic: &TopicName) {
    let before = latest_by(storage, topic, 30).await;
    let other = Ground::memory().await.expect("memory is always there");
    let plan = Plan {
        topics: vec![TopicSelector::Topic(topic.clone())],
        follow: false,
        switch: false,
        overwrite: false,
        patience: SOON,
    };
    let [here, there] = [storage, &other.storage].map(|storage| Arc::new(storage.clone()));
    Copy::new(here.clone(), there.clone(), plan.clone()).run().await.unwrap();
    assert_eq!(latest_by(&other.storage, topic, 30).await, before);
    storage.topics.delete(topic).await.unwrap();
    Copy::new(there, here, plan).run().await.unwrap();
    assert_eq!(latest_by(storage, topic, 30).await, before);
}

pub(super) async fn a_copy_has_the_latest_that_the_log_has_no_more(ground: &Ground) {
    let storage = &ground.storage;
    let topic = compacted(ground, Some(KEPT)).await;
    let old = append_keys(storage, &topic, &[("a", "1"), ("b", "2"), ("c", "3"), ("gone", "null")]).await;
    append_all(storage, vec![message(&topic, without_key("0"))]).await;
    append_others(storage, &topic, 1_000).await;
    storage.upkeep.sweep().await.expect("a sweep");
    assert!(storage.messages.remove(&topic, old[1]).await.unwrap());
    let last = append_keys(storage, &topic, &[("c", "4"), ("d", "5")]).await;
    let before = latest_by(storage, &topic, 30).await;
    assert_eq!(ids(&before)[..2], [old[0], old[3]]);
    let first = storage.live.tail(&topic).await.unwrap().first;
    assert!(first > Some(old[3]), "the log has them no more");
    let kept = length(storage, &topic).await;
    let cursors = [MessageId::new(1, 0), old[0], old[2], old[3], last[0]];
    let told = async || {
        let mut told = Vec::new();
        for cursor in cursors {
            let batch = try_latest(storage, &topic, Some(cursor), (GapCheck::Seen, false)).await.unwrap();
            told.push((batch.gap, ids(&batch.messages)));
        }
        told
    };
    let gaps = told().await;

    copy_there_and_back(storage, &topic).await;
    assert_eq!((told().await, length(storage, &topic).await), (gaps, kept));
    // The table goes on.
    storage.upkeep.sweep().await.expect("a sweep");
    let next = append_keys(storage, &topic, &[("a", "6")]).await;
    let after = ids(&latest_by(storage, &topic, 30).await);
    assert_eq!((after[0], after.last().copied()), (old[3], Some(next[0])));
}

pub(super) async fn a_key_of_which_there_is_nothing_has_nothing_at_the_copy(ground: &Ground) {
    let storage = &ground.storage;
    let topic = compacted(ground, None).await;
    let given = [("a", "1"), ("b", "1"), ("a", "2"), ("c", "1"), ("b", "2"), ("c", "2"), ("d", "1")];
    let given = append_keys(storage, &topic, &given).await;
    latest_by(storage, &topic, 30).await;
    // Their keys have nothing then, though older messages of them are in the log.
    for at in [2, 5, 6] {
        assert!(storage.messages.remove(&topic, given[at]).await.unwrap());
    }
    let before = latest_by(storage, &topic, 30).await;
    assert_eq!(ids(&before), [given[4]]);
    copy_there_and_back(storage, &topic).await;
    assert_eq!(length(storage, &topic).await, 4);
    let next = append_keys(storage, &topic, &[("a", "3")]).await;
    assert_eq!(ids(&latest_by(storage, &topic, 30).await), [given[4], next[0]]);
}
