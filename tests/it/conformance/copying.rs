//! Copies of topics: they are read as what they are copies of, and a topic that is frozen takes nothing.

use bytes::Bytes;
use tidemill::proto::page::Order;
use tidemill::proto::topics::TopicUpdate;
use tidemill::proto::{GapReason, MessageId, OrderKey, Timestamp, TopicName, TopicSelector};
use tidemill::storage::{
    Batch, Body, CopiedHole, CopiedTopic, Epoch, Freeze, NewMessage, RunEnding, Storage, StorageError,
    StoredMessage, TopicState, Trim, WhyReadOnly,
};

use super::gaps::read_on;
use crate::support::ground::{
    Ground, LIMITS, append, append_all, append_numbers, expired, ids, json, keyed, length, message, read_all,
};

/// Returns a storage that is not that of the ground.
async fn elsewhere() -> Ground {
    Ground::memory().await.expect("memory is always there")
}

/// Returns all messages of a topic, those that have expired among them.
async fn messages_of(storage: &Storage, topic: &TopicName) -> Vec<StoredMessage> {
    let mut messages: Vec<StoredMessage> = Vec::new();
    loop {
        let after = messages.last().map_or(MessageId::MIN, |message| message.id);
        let page = storage.copies.copied_messages(topic, after, 100, 1 << 20).await.unwrap();
        if page.is_empty() {
            return messages;
        }
        messages.extend(page);
    }
}

/// Copies a topic of one storage to another that does not have it.
async fn copy(from: &Storage, to: &Storage, topic: &TopicName) -> CopiedTopic {
    from.upkeep.sweep_one(topic).await.unwrap();
    let source = from.copies.copied(topic).await.unwrap();
    to.copies.begin_import(&source).await.unwrap();
    let mut after = MessageId::MIN;
    for some in messages_of(from, topic).await.chunks(70) {
        to.copies.import_messages(topic, source.epoch, after, some).await.unwrap();
        after = some.last().expect("a chunk has some").id;
    }
    let deletions = from.copies.copied_deletions(topic).await.unwrap();
    to.copies.finish_import(&source, &deletions).await.unwrap();
    source
}

/// Copies a topic to somewhere else, deletes it, and copies it back.
async fn there_and_back(ground: &Ground, topic: &TopicName) -> CopiedTopic {
    let other = elsewhere().await;
    let first = copy(&ground.storage, &other.storage, topic).await;
    ground.storage.topics.delete(topic).await.unwrap();
    copy(&other.storage, &ground.storage, topic).await;
    first
}

fn told(batch: &Batch) -> (Option<&tidemill::proto::Gap>, Vec<MessageId>) {
    (batch.gap.as_ref(), ids(&batch.messages))
}

fn is_read_only<T: std::fmt::Debug>(result: &Result<T, StorageError>, why: WhyReadOnly) -> bool {
    matches!(result, Err(StorageError::ReadOnly(is)) if *is == why)
}

pub(super) async fn a_copy_is_read_as_what_it_is_a_copy_of(ground: &Ground) {
    let (storage, topic) = (&ground.storage, ground.topic());
    let update = TopicUpdate {
        description: Some("of \"tides\"\n".to_owned()),
        retention_seconds: Some(86_400),
        max_messages: Some(1_000),
        keep_until_acked: Some(true),
        ..TopicUpdate::default()
    };
    storage.topics.create(&topic, update, Some("ada")).await.unwrap();
    let mut all = append_numbers(storage, &topic, 250).await;
    let body = Body {
        payload: Bytes::from_static(b"\0\xff\r\n"),
        content_type: Some("image/png".into()),
        metadata: Some(Bytes::from_static(b"{\"k\": [1]}")),
        order_key: Some(OrderKey::parse("a \u{e9}").expect("a key")),
    };
    let later = Some(Timestamp::from_millis(32_503_680_000_000));
    let whole = NewMessage { expires_at: later, ..message(&topic, body) };
    all.extend(
        append_all(storage, vec![whole, expired(&topic, json("0")), message(&topic, json(" 1 "))]).await,
    );
    for at in [120, 121, 200] {
        assert!(storage.messages.remove(&topic, all[at]).await.unwrap());
    }
    storage.messages.trim(&topic, Trim::Before(all[100])).await.unwrap();

    let cursors: Vec<MessageId> =
        [MessageId::MIN, MessageId::new(1, 0)].into_iter().chain(all.clone()).collect();
    let mut before = Vec::new();
    for cursor in &cursors {
        before.push(read_on(storage, &topic, *cursor, 500).await);
    }
    let (messages, tail) = (messages_of(storage, &topic).await, storage.live.tail(&topic).await.unwrap());
    assert_eq!(messages.len(), 150);
    let described = storage.topics.describe(&topic).await.unwrap();

    let source = there_and_back(ground, &topic).await;
    assert_eq!(messages_of(storage, &topic).await, messages);
    let now = storage.topics.describe(&topic).await.unwrap();
    // How they lie in memory is no part of it.
    assert_eq!(now, TopicState { bytes: now.bytes, ..described });
    let now = storage.live.tail(&topic).await.unwrap();
    assert_eq!((now.first, now.last, now.epoch, now.born), (tail.first, tail.last, tail.epoch, tail.born));
    assert!(tail.given.is_none() || now.given == tail.given, "{now:?} {tail:?}");
    let copied = storage.copies.copied(&topic).await.unwrap();
    assert_eq!((&copied.topic, copied.epoch, copied.freeze), (&source.topic, source.epoch, None));
    for (cursor, before) in cursors.iter().zip(&before) {
        let after = read_on(storage, &topic, *cursor, 500).await;
        assert_eq!(told(&after), told(before), "behind {cursor}");
    }
    // It goes on behind the last, also after a sweep, and is named among all.
    storage.upkeep.sweep_one(&topic).await.unwrap();
    let next = append(storage, message(&topic, json("2"))).await.unwrap().id;
    assert!(Some(next) > tail.last);
    assert!(storage.topics.names("", None, 1_000).await.unwrap().contains(&topic));
}

pub(super) async fn a_topic_that_is_frozen_takes_no_message_and_is_read(ground: &Ground) {
    let (storage, topic) = (&ground.storage, ground.topic());
    let kept = append_numbers(storage, &topic, 5).await;
    for _ in 0..2 {
        storage.copies.freeze(&topic, true).await.unwrap();
    }
    let last = kept[4];
    let behind = NewMessage { expected_last: Some(last), ..message(&topic, json("x")) };
    let careful = NewMessage { create_topic: false, ..message(&topic, json("x")) };
    for new in [message(&topic, json("x")), keyed(&topic, json("x"), "key", 1), careful, behind.clone()] {
        let refused = append(storage, new).await;
        assert!(is_read_only(&refused, WhyReadOnly::Frozen), "{refused:?}");
    }
    // It has not ended: who follows it goes on.
    let copied = storage.copies.copied(&topic).await.unwrap();
    assert_eq!((copied.freeze, copied.ended, copied.last), (Some(Freeze::ReadOnly), None, last));
    let tail = storage.live.tail(&topic).await.unwrap();
    assert_eq!((tail.ended, tail.last), (None, Some(last)));
    assert_eq!(read_on(storage, &topic, last, 10).await.gap, None);
    assert_eq!(ids(&read_all(storage, &topic, Order::Asc, 2).await), kept);
    storage.upkeep.sweep_one(&topic).await.unwrap();
    assert_eq!(length(storage, &topic).await, 5);

    storage.copies.freeze(&topic, false).await.unwrap();
    storage.copies.freeze(&topic, false).await.unwrap();
    assert!(append(storage, behind).await.unwrap().id > last);
    assert_eq!(storage.copies.copied(&topic).await.unwrap().freeze, None);
    storage.upkeep.sweep_one(&topic).await.unwrap();
    append(storage, keyed(&topic, json("y"), "key", 1)).await.unwrap();
    storage.upkeep.sweep_one(&topic).await.unwrap();
    assert_eq!(storage.live.tail(&topic).await.unwrap().late, None);

    // One that was given nothing begins where it would have.
    let fresh = ground.topic();
    storage.topics.create(&fresh, TopicUpdate::default(), None).await.unwrap();
    let born = storage.live.tail(&fresh).await.unwrap().born;
    storage.copies.freeze(&fresh, true).await.unwrap();
    assert!(is_read_only(&append(storage, message(&fresh, json("x"))).await, WhyReadOnly::Frozen));
    storage.copies.freeze(&fresh, false).await.unwrap();
    assert!(Some(append(storage, message(&fresh, json("x"))).await.unwrap().id) >= born);

    let missing = storage.copies.freeze(&ground.topic(), true).await;
    assert!(matches!(missing, Err(StorageError::NoTopic)), "{missing:?}");
}

pub(super) async fn what_is_taken_over_is_gone_on_with_from_where_it_is(ground: &Ground) {
    let (storage, topic, other) = (&ground.storage, ground.topic(), elsewhere().await);
    append_numbers(&other.storage, &topic, 30).await;
    let source = other.storage.copies.copied(&topic).await.unwrap();
    let messages = messages_of(&other.storage, &topic).await;
    let copies = &storage.copies;
    copies.begin_import(&source).await.unwrap();
    let again = copies.begin_import(&source).await;
    assert!(matches!(again, Err(StorageError::TopicExists)), "{again:?}");
    copies.import_messages(&topic, source.epoch, MessageId::MIN, &messages[..10]).await.unwrap();

    // What was done is not done again, and nothing comes out of order.
    let last = messages[9].id;
    let is_behind_another = |result: Result<(), StorageError>| match result {
        Err(StorageError::NotLast(id)) => assert_eq!(id, last),
        result => panic!("{result:?}"),
    };
    is_behind_another(copies.import_messages(&topic, source.epoch, MessageId::MIN, &messages[..10]).await);
    is_behind_another(copies.import_messages(&topic, source.epoch, messages[10].id, &messages[11..]).await);
    is_behind_another(copies.import_messages(&topic, source.epoch, last, &messages[5..12]).await);
    let unordered = [messages[11].clone(), messages[10].clone()];
    is_behind_another(copies.import_messages(&topic, source.epoch, last, &unordered).await);
    let of_another = copies.import_messages(&topic, Epoch::Marked(1 << 40), last, &messages[10..]).await;
    assert!(matches!(of_another, Err(StorageError::TopicExists)), "{of_another:?}");

    // Nobody else comes between; a sweep leaves it as it is; who reads has what is there.
    assert!(is_read_only(&append(storage, message(&topic, json("x"))).await, WhyReadOnly::Importing));
    assert!(is_read_only(&copies.freeze(&topic, false).await, WhyReadOnly::Importing));
    storage.upkeep.sweep().await.unwrap();
    storage.upkeep.sweep_one(&topic).await.unwrap();
    let half = copies.copied(&topic).await.unwrap();
    assert_eq!((half.freeze, half.last, half.length), (Some(Freeze::Importing), last, 10));
    assert_eq!(half.epoch, source.epoch);
    assert_eq!(ids(&read_all(storage, &topic, Order::Asc, 4).await), ids(&messages[..10]));
    let short = CopiedTopic { last: messages[5].id, ..source.clone() };
    is_behind_another(copies.finish_import(&short, &[]).await);

    copies.import_messages(&topic, source.epoch, last, &messages[10..]).await.unwrap();
    for _ in 0..2 {
        copies.finish_import(&source, &[]).await.unwrap();
    }
    let whole = copies.import_messages(&topic, source.epoch, source.last, &[]).await;
    assert!(matches!(whole, Err(StorageError::TopicExists)), "{whole:?}");
    assert_eq!(messages_of(storage, &topic).await, messages);
    storage.upkeep.sweep_one(&topic).await.unwrap();
    append(storage, message(&topic, json("x"))).await.unwrap();
    storage.upkeep.sweep_one(&topic).await.unwrap();
    assert_eq!(storage.live.tail(&topic).await.unwrap().late, None);
    let foreign = copies.finish_import(&CopiedTopic { epoch: Epoch::Marked(1 << 40), ..source }, &[]).await;
    assert!(matches!(foreign, Err(StorageError::TopicExists)), "{foreign:?}");
}

pub(super) async fn runs_are_copied_with_their_ends(ground: &Ground) {
    let storage = &ground.storage;
    for ending in [RunEnding::Close, RunEnding::Cancel("too \"dear\"\n")] {
        let topic = ground.topic();
        let kept = append_numbers(storage, &topic, 5).await;
        let ended = storage.runs.end_run(&topic, ending).await.unwrap();
        there_and_back(ground, &topic).await;
        assert_eq!(storage.topics.describe(&topic).await.unwrap().ended, Some(ended));
        assert_eq!(storage.live.tail(&topic).await.unwrap().last, Some(kept[4]));
        let refused = append(storage, message(&topic, json("x"))).await;
        assert!(matches!(refused, Err(StorageError::Closed | StorageError::Cancelled(_))), "{refused:?}");
        // It takes nothing already.
        storage.copies.freeze(&topic, true).await.unwrap();
        storage.copies.freeze(&topic, false).await.unwrap();
        let refused = append(storage, message(&topic, json("x"))).await;
        assert!(matches!(refused, Err(StorageError::Closed | StorageError::Cancelled(_))), "{refused:?}");
    }
}

pub(super) async fn an_empty_topic_and_an_emptied_one_are_copied(ground: &Ground) {
    let (storage, empty, emptied) = (&ground.storage, ground.topic(), ground.topic());
    storage.topics.create(&empty, TopicUpdate::default(), None).await.unwrap();
    let gone = append_numbers(storage, &emptied, 5).await;
    storage.messages.trim(&emptied, Trim::Keep(0)).await.unwrap();
    let behind = read_on(storage, &emptied, gone[2], 10).await;
    for topic in [&empty, &emptied] {
        let before = storage.live.tail(topic).await.unwrap();
        there_and_back(ground, topic).await;
        let after = storage.live.tail(topic).await.unwrap();
        assert_eq!((after.last, after.epoch, after.born), (before.last, before.epoch, before.born));
        let id = append(storage, message(topic, json("x"))).await.unwrap().id;
        assert!(Some(id) >= after.born && Some(id) > after.last);
        assert_eq!(read_on(storage, topic, MessageId::MIN, 10).await.messages.len(), 1);
    }
    let again = read_on(storage, &emptied, gone[2], 10).await;
    let reason = |batch: &Batch| batch.gap.as_ref().map(|gap| gap.reason);
    assert_eq!(reason(&again), reason(&behind));
    assert!(reason(&again).is_some());
}

pub(super) async fn no_topics_are_made_while_that_is_refused(ground: &Ground) {
    // What is said goes for all of the storage, so it is one of its own.
    let storage = &ground.under(LIMITS).await;
    let topic = ground.topic();
    append_numbers(storage, &topic, 1).await;
    assert!(!storage.copies.refuses_new_topics().await.unwrap());
    storage.copies.refuse_new_topics(true).await.unwrap();
    assert!(storage.copies.refuses_new_topics().await.unwrap());
    let fresh = ground.topic();
    assert!(is_read_only(&append(storage, message(&fresh, json("x"))).await, WhyReadOnly::NotMade));
    assert!(is_read_only(
        &storage.topics.create(&fresh, TopicUpdate::default(), None).await,
        WhyReadOnly::NotMade
    ));
    let there = storage.topics.create(&topic, TopicUpdate::default(), None).await;
    assert!(matches!(there, Err(StorageError::TopicExists)), "{there:?}");
    append(storage, message(&topic, json("x"))).await.unwrap();
    assert!(matches!(storage.topics.describe(&fresh).await, Err(StorageError::NoTopic)));
    storage.copies.refuse_new_topics(false).await.unwrap();
    append(storage, message(&fresh, json("x"))).await.unwrap();
}

pub(super) async fn what_the_other_one_has_lost_is_told_by_the_copy(ground: &Ground) {
    let (storage, topic, other) = (&ground.storage, ground.topic(), elsewhere().await);
    let base = append_numbers(&other.storage, &topic, 6).await[0];
    let mut source = other.storage.copies.copied(&topic).await.unwrap();
    let mut messages = messages_of(&other.storage, &topic).await;
    for (message, at) in messages.iter_mut().zip(0..) {
        message.id = MessageId::new(base.ms + 10 * at, 0);
    }
    let given = ids(&messages);
    source.first = Some(given[0]);
    // Behind the second it has lost some, and the last of all.
    let last = MessageId::new(given[5].ms + 10, 0);
    let inner = CopiedHole { from: given[1], to: given[2].previous().unwrap() };
    source.holes = vec![inner, CopiedHole { from: given[5], to: last }];
    source.last = last;
    storage.copies.begin_import(&source).await.unwrap();
    storage.copies.import_messages(&topic, source.epoch, MessageId::MIN, &messages).await.unwrap();
    storage.copies.finish_import(&source, &[]).await.unwrap();
    assert_eq!(storage.copies.copied(&topic).await.unwrap().holes, source.holes);

    let read = async |after: MessageId| read_on(storage, &topic, after, 10).await;
    let gap_of = |batch: &Batch| batch.gap.as_ref().map(|gap| (gap.reason, gap.to));
    let first = read(given[0]).await;
    assert_eq!(
        (gap_of(&first), ids(&first.messages)),
        (None, vec![given[1]]),
        "what is in front of it comes first"
    );
    let at = read(given[1]).await;
    assert_eq!(gap_of(&at), Some((GapReason::Reset, given[2])));
    assert_eq!(ids(&at.messages), given[2..]);
    let end = read(given[5]).await;
    assert_eq!(gap_of(&end), Some((GapReason::Reset, last.next().unwrap())));
    assert_eq!(end.messages, []);
    // Behind it nothing is missing, and it goes on there.
    assert_eq!(gap_of(&read(last).await), None);
    let next = append(storage, message(&topic, json("x"))).await.unwrap().id;
    assert!(next > last);
    let behind = read(given[5]).await;
    assert_eq!(
        (gap_of(&behind), ids(&behind.messages)),
        (Some((GapReason::Reset, last.next().unwrap())), vec![next])
    );

    // A copy of the copy tells the same.
    let again = elsewhere().await;
    copy(storage, &again.storage, &topic).await;
    assert_eq!(again.storage.copies.copied(&topic).await.unwrap().holes, source.holes);
    let at = read_on(&again.storage, &topic, given[1], 10).await;
    assert_eq!((gap_of(&at), ids(&at.messages)), (Some((GapReason::Reset, given[2])), given[2..].to_vec()));
    let latest = read_on(&again.storage, &topic, given[0], 10).await;
    assert_eq!((gap_of(&latest), ids(&latest.messages)), (None, vec![given[1]]));
}

pub(super) async fn nothing_is_taken_over_where_no_topics_are_made(ground: &Ground) {
    let storage = &ground.under(LIMITS).await;
    let (topic, other) = (ground.topic(), elsewhere().await);
    append_numbers(&other.storage, &topic, 1).await;
    let source = other.storage.copies.copied(&topic).await.unwrap();
    storage.copies.refuse_new_topics(true).await.unwrap();
    assert!(is_read_only(&storage.copies.begin_import(&source).await, WhyReadOnly::NotMade));
    assert!(matches!(storage.topics.describe(&topic).await, Err(StorageError::NoTopic)));
    storage.copies.refuse_new_topics(false).await.unwrap();
    storage.copies.begin_import(&source).await.unwrap();
}

pub(super) async fn a_storage_says_who_it_is_whoever_asks(ground: &Ground) {
    let identity = async |storage: &Storage, topics: Option<&TopicSelector>| {
        storage.copies.identity(topics).await.unwrap()
    };
    let all = identity(&ground.storage, None).await;
    assert!(!all.is_empty());
    assert_eq!(identity(&ground.storage, None).await, all);
    let topic = ground.topic();
    let named = TopicSelector::from(topic.clone());
    let pattern = TopicSelector::parse("nobody.*").unwrap();
    let some = identity(&ground.storage, Some(&pattern)).await;
    assert!(!some.is_empty() && some.iter().all(|one| all.contains(one)), "{some:?} {all:?}");
    for _ in 0..2 {
        let one = identity(&ground.storage, Some(&named)).await;
        assert!(one.len() == 1 && all.contains(&one[0]), "{one:?} {all:?}");
        append_numbers(&ground.storage, &topic, 1).await;
    }
    let other = identity(&elsewhere().await.storage, None).await;
    assert!(!other.is_empty() && !all.iter().any(|one| other.contains(one)), "{other:?}");
    if ground.has_server() {
        let node = ground.under(LIMITS).await;
        assert_eq!(identity(&node, None).await, all);
        assert_eq!(identity(&node, Some(&named)).await, identity(&ground.storage, Some(&named)).await);
    }
}
