//! Gaps: a reader whose messages may be gone is told, and nobody else.

use tidemill::proto::page::Order;
use tidemill::proto::topics::TopicUpdate;
use tidemill::proto::{GapReason, MessageId, TopicName};
use tidemill::storage::{Batch, Epoch, GapCheck, Range, Storage, StorageError, TopicPolicy, Trim, end_of};

use crate::support::eventually;
use crate::support::ground::{
    Ground, SOON, append_all, append_numbers, append_numbers_under, expired, ids, json,
};

/// Reads on from a reader's cursor.
pub(super) async fn read_on(storage: &Storage, topic: &TopicName, cursor: MessageId, limit: usize) -> Batch {
    read_as(storage, topic, cursor, GapCheck::Seen, limit).await
}

async fn read_as(
    storage: &Storage,
    topic: &TopicName,
    cursor: MessageId,
    gap_check: GapCheck,
    limit: usize,
) -> Batch {
    let range = Range { order: Order::Asc, after: Some(cursor), gap_check, limit, bytes_max: usize::MAX };
    storage.messages.read(topic, range).await.unwrap()
}

/// Returns the reason and the end of the gap.
pub(super) fn told(batch: &Batch, topic: &TopicName, cursor: MessageId) -> Option<(GapReason, MessageId)> {
    batch.gap.as_ref().map(|gap| {
        assert_eq!((&gap.topic, gap.from), (topic, cursor));
        (gap.reason, gap.to)
    })
}

pub(super) async fn a_reader_behind_a_trim_is_told(ground: &Ground) {
    let topic = ground.topic();
    let appended = append_numbers(&ground.storage, &topic, 300).await;
    ground.storage.messages.trim(&topic, Trim::Keep(10)).await.unwrap();
    for cursor in [appended[0], appended[150], appended[288]] {
        for limit in [1, 5, 1_000] {
            let read = read_on(&ground.storage, &topic, cursor, limit).await;
            assert_eq!(told(&read, &topic, cursor), Some((GapReason::Trimmed, appended[290])), "{cursor}");
            assert_eq!(ids(&read.messages), appended[290..][..limit.min(10)]);
        }
    }
    // It is of a topic that was there before, if of any.
    let older = MessageId::new(1, 0);
    let read = read_on(&ground.storage, &topic, older, 5).await;
    assert_eq!(told(&read, &topic, older), Some((GapReason::Deleted, appended[290])));
}

pub(super) async fn a_cursor_that_is_kept_has_no_gap(ground: &Ground) {
    let topic = ground.topic();
    let appended = append_numbers(&ground.storage, &topic, 300).await;
    ground.storage.messages.trim(&topic, Trim::Keep(10)).await.unwrap();
    for at in 290..300 {
        let read = read_on(&ground.storage, &topic, appended[at], 5).await;
        assert_eq!(read.gap, None);
        assert_eq!(ids(&read.messages), appended[at + 1..].iter().take(5).copied().collect::<Vec<_>>());
        assert_eq!(read.next, read.messages.last().map(|message| message.id));
    }
    let last_trimmed = read_on(&ground.storage, &topic, appended[289], 5).await;
    assert_eq!(ids(&last_trimmed.messages), appended[290..295], "told or not, nothing is passed over");
}

pub(super) async fn nothing_is_told_where_nothing_can_be_missing(ground: &Ground) {
    let topic = ground.topic();
    let storage = &ground.storage;
    let appended = append_numbers(storage, &topic, 20).await;
    for cursor in [MessageId::MIN, appended[0], appended[19]] {
        assert_eq!(read_on(storage, &topic, cursor, 100).await.gap, None, "nothing was ever removed");
    }
    storage.messages.trim(&topic, Trim::Keep(5)).await.unwrap();
    for (order, after, gap_check) in [
        (Order::Asc, None, GapCheck::None),
        (Order::Asc, None, GapCheck::Seen),
        (Order::Asc, Some(appended[0]), GapCheck::None),
        (Order::Desc, Some(appended[17]), GapCheck::None),
    ] {
        let range = Range { order, after, gap_check, limit: 10, bytes_max: usize::MAX };
        assert_eq!(storage.messages.read(&topic, range).await.unwrap().gap, None, "who did not ask");
    }

    let fresh = ground.topic();
    storage.topics.create(&fresh, TopicUpdate::default(), None).await.unwrap();
    let first = append_all(storage, vec![expired(&fresh, json("1")); 30]).await[0];
    let read = read_on(storage, &fresh, first, 10).await;
    assert_eq!((read.gap, read.messages.len()), (None, 0), "expired messages are not missing");
}

pub(super) async fn who_was_passed_over_is_told_what_went_with_an_earlier_topic(ground: &Ground) {
    let topic = ground.topic();
    let storage = &ground.storage;
    let knows_of = Some(append_numbers(storage, &topic, 20).await[9]);
    let epoch = storage.live.tail(&topic).await.unwrap().epoch;
    let by = GapCheck::Follows { epoch, given: None, knows_of };
    let whole = read_as(storage, &topic, MessageId::MIN, by, 5).await;
    assert_eq!((whole.gap, whole.messages.len()), (None, 5));
    storage.topics.delete(&topic).await.unwrap();
    let gone =
        Range { order: Order::Asc, after: Some(MessageId::MIN), gap_check: by, limit: 5, bytes_max: 1_000 };
    assert!(matches!(storage.messages.read(&topic, gone).await, Err(StorageError::NoTopic)));
    storage.topics.create(&topic, TopicUpdate::default(), None).await.unwrap();
    for kept in [0, 5] {
        append_numbers(storage, &topic, kept).await;
        let again = read_as(storage, &topic, MessageId::MIN, by, 100).await;
        let told = again.gap.map(|gap| (gap.from, gap.reason, gap.missed));
        assert_eq!(told, Some((MessageId::MIN, GapReason::Deleted, None)));
        assert_eq!(again.messages.len(), kept);
    }
}

pub(super) async fn who_counts_is_told_how_many_are_missing(ground: &Ground) {
    let topic = ground.topic();
    let appended = append_numbers(&ground.storage, &topic, 300).await;
    ground.storage.messages.trim(&topic, Trim::Keep(10)).await.unwrap();
    for (at, missed) in [(0, 289), (150, 139), (288, 1)] {
        let gap_check = GapCheck::follows(Epoch::Unmarked, Some(at as u64 + 1));
        let read = read_as(&ground.storage, &topic, appended[at], gap_check, 5).await;
        assert_eq!(read.gap.map(|gap| gap.missed), Some(Some(missed)));
    }
    for at in [289, 290, 299] {
        let gap_check = GapCheck::follows(Epoch::Unmarked, Some(at as u64 + 1));
        let read = read_as(&ground.storage, &topic, appended[at], gap_check, 5).await;
        assert_eq!(read.gap, None, "nothing is missing after {at}");
    }
}

/// A cursor that names no message may be of another topic of the name, or of a message that was lost: the reader
/// begins anew. The end of a millisecond names none.
pub(super) async fn a_cursor_that_was_never_given_begins_anew(ground: &Ground) {
    let topic = ground.topic();
    let first = append_numbers(&ground.storage, &topic, 5).await[2];
    ground.storage.messages.trim(&topic, Trim::Keep(3)).await.unwrap();
    let last = append_numbers(&ground.storage, &topic, 1).await[0];
    eventually(SOON, async || {
        let later = append_numbers(&ground.storage, &topic, 1).await[0];
        later.ms > last.ms
    })
    .await;
    let between = MessageId::new(last.ms, last.seq + 1_000_000);
    let read = read_on(&ground.storage, &topic, between, 5).await;
    assert_eq!(told(&read, &topic, between), Some((GapReason::Reset, first)));
    assert_eq!(read.messages[0].id, first);
    let time = end_of(last.ms);
    let read = read_on(&ground.storage, &topic, time, 5).await;
    assert_eq!((read.gap, read.messages.iter().all(|message| message.id > time)), (None, true));
}

pub(super) async fn only_the_first_page_after_a_hole_tells_it(ground: &Ground) {
    let topic = ground.topic();
    let appended = append_numbers(&ground.storage, &topic, 300).await;
    ground.storage.messages.trim(&topic, Trim::Keep(250)).await.unwrap();
    let mut seen = Vec::new();
    let mut gaps = 0;
    let mut cursor = appended[3];
    loop {
        let read = read_on(&ground.storage, &topic, cursor, 40).await;
        gaps += usize::from(read.gap.is_some());
        seen.extend(ids(&read.messages));
        let Some(next) = read.next else { break };
        cursor = next;
    }
    assert_eq!((seen, gaps), (appended[50..].to_vec(), 1));
}

pub(super) async fn a_reader_of_an_emptied_topic_is_told(ground: &Ground) {
    let topic = ground.topic();
    let appended = append_numbers(&ground.storage, &topic, 5).await;
    ground.storage.messages.trim(&topic, Trim::Keep(0)).await.unwrap();
    let read = read_on(&ground.storage, &topic, appended[2], 10).await;
    let after_last = appended[4].next().unwrap();
    assert_eq!(told(&read, &topic, appended[2]), Some((GapReason::Trimmed, after_last)));
    assert!(read.messages.is_empty());
    let up_to_date = read_on(&ground.storage, &topic, appended[4], 10).await;
    assert_eq!((up_to_date.gap, up_to_date.messages.len()), (None, 0), "it has seen the last message");
}

pub(super) async fn a_reader_of_a_deleted_topic_is_told(ground: &Ground) {
    let storage = &ground.storage;
    let topic = ground.topic();
    for round in 0..20 {
        let old = append_numbers(storage, &topic, 3).await;
        storage.topics.delete(&topic).await.unwrap();
        let new = append_numbers(storage, &topic, 3).await;
        assert!(new[0] > old[2], "round {round}: {new:?} after {old:?}");
        let read = read_on(storage, &topic, old[1], 10).await;
        assert_eq!(told(&read, &topic, old[1]), Some((GapReason::Deleted, new[0])), "round {round}");
        assert_eq!(ids(&read.messages), new);
        storage.topics.delete(&topic).await.unwrap();
    }
}

pub(super) async fn a_reader_of_a_new_topic_of_the_name_is_told_once(ground: &Ground) {
    let storage = &ground.storage;
    let topic = ground.topic();
    let old = append_numbers(storage, &topic, 3).await;
    storage.topics.delete(&topic).await.unwrap();
    storage.topics.create(&topic, TopicUpdate::default(), None).await.unwrap();
    for cursor in [old[0], old[2]] {
        let read = read_on(storage, &topic, cursor, 10).await;
        let (reason, to) = told(&read, &topic, cursor).expect("the old topic is gone");
        assert_eq!((reason, read.messages.len()), (GapReason::Deleted, 0));
        let told_already = read_on(storage, &topic, to.previous().unwrap(), 10).await;
        assert_eq!((told_already.gap, told_already.messages.len()), (None, 0));
    }
    let read = read_on(storage, &topic, old[2], 10).await;
    let from = read.gap.unwrap().to.previous().unwrap();
    let new = append_numbers(storage, &topic, 3).await;
    let read = read_on(storage, &topic, from, 10).await;
    assert_eq!((told(&read, &topic, from), ids(&read.messages)), (None, new.clone()));
    storage.messages.trim(&topic, Trim::Keep(1)).await.unwrap();
    let read = read_on(storage, &topic, from, 10).await;
    assert_eq!(told(&read, &topic, from), Some((GapReason::Trimmed, new[2])), "what it has not read");
}

pub(super) async fn who_was_there_before_the_first_message_is_told(ground: &Ground) {
    let storage = &ground.storage;
    let topic = ground.topic();
    let appended = append_numbers(storage, &topic, 20).await;
    for (keep, to, kept) in [(5, appended[15], &appended[15..]), (0, appended[19].next().unwrap(), &[][..])] {
        storage.messages.trim(&topic, Trim::Keep(keep)).await.unwrap();
        let read = read_on(storage, &topic, MessageId::MIN, 100).await;
        assert_eq!(told(&read, &topic, MessageId::MIN), Some((GapReason::Trimmed, to)));
        assert_eq!(read.gap.unwrap().missed, Some(20 - keep));
        assert_eq!(ids(&read.messages), kept);
    }
    let told_already = read_on(storage, &topic, appended[19], 100).await;
    assert_eq!(told_already.gap, None);
}

pub(super) async fn a_reader_overtaken_by_the_limit_is_told(ground: &Ground) {
    let (storage, topic) = (&ground.storage, ground.topic());
    let policy = TopicPolicy::newest(50);
    let first = append_numbers_under(policy, storage, &topic, 1).await[0];
    for _ in 0..10 {
        append_numbers_under(policy, storage, &topic, 100).await;
    }
    let read = read_on(storage, &topic, first, 1_000).await;
    assert_eq!(told(&read, &topic, first), Some((GapReason::Trimmed, read.messages[0].id)));
}

pub(super) async fn a_cursor_past_the_end_is_reset(ground: &Ground) {
    let topic = ground.topic();
    let appended = append_numbers(&ground.storage, &topic, 3).await;
    let far = MessageId::new(appended[2].ms + 3_600_000, 0);
    let read = read_on(&ground.storage, &topic, far, 10).await;
    let (reason, _) = told(&read, &topic, far).unwrap();
    assert_eq!(reason, GapReason::Reset);
    let later = append_numbers(&ground.storage, &topic, 1).await;
    let read = read_on(&ground.storage, &topic, read.next.unwrap_or(appended[2]), 10).await;
    assert!(ids(&read.messages).ends_with(&later), "the reader goes on, whatever its cursor was");
}

/// What stood between a cursor and the oldest message was deleted by request, so nothing is missing, in whichever
/// order others were removed.
pub(super) async fn what_was_deleted_by_request_in_front_of_the_oldest_is_no_gap(ground: &Ground) {
    for is_trimmed_first in [true, false] {
        // Of one millisecond, so that there is no other id between them.
        let (topic, appended) = loop {
            let topic = ground.topic();
            let appended = append_numbers(&ground.storage, &topic, 6).await;
            if (2..5).all(|at| appended[at].next() == Some(appended[at + 1])) {
                break (topic, appended);
            }
        };
        let messages = &ground.storage.messages;
        for is_trim in [is_trimmed_first, !is_trimmed_first] {
            if is_trim {
                messages
                    .trim(&topic, Trim::Before(appended[if is_trimmed_first { 3 } else { 5 }]))
                    .await
                    .unwrap();
            } else {
                assert!(messages.remove(&topic, appended[3]).await.unwrap());
                assert!(messages.remove(&topic, appended[4]).await.unwrap());
            }
        }
        let read = read_on(&ground.storage, &topic, appended[2], 5).await;
        assert_eq!((told(&read, &topic, appended[2]), ids(&read.messages)), (None, vec![appended[5]]));
        let read = read_on(&ground.storage, &topic, appended[1], 5).await;
        assert_eq!(told(&read, &topic, appended[1]), Some((GapReason::Trimmed, appended[5])));
    }
}
