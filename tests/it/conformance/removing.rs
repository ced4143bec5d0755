//! Single messages that are deleted by request: gone, and no hole.

use tidemill::proto::page::Order;
use tidemill::proto::{GapReason, MessageId, TopicName};
use tidemill::storage::{GapCheck, Range, StorageError, Trim};

use crate::support::eventually;
use crate::support::ground::{Ground, SOON, append_numbers, ids, read_all};

fn range(after: Option<MessageId>, gap_check: GapCheck) -> Range {
    Range { order: Order::Asc, after, gap_check, limit: 100, bytes_max: usize::MAX }
}

pub(super) async fn a_message_that_is_deleted_is_gone_and_missed_by_nobody(ground: &Ground) {
    let (topic, storage) = (ground.topic(), &ground.storage);
    let missing = storage.messages.remove(&topic, MessageId::new(1, 0)).await;
    assert!(matches!(missing, Err(StorageError::NoTopic)), "{missing:?}");
    let appended = append_numbers(storage, &topic, 10).await;
    let epoch = storage.live.tail(&topic).await.unwrap().epoch;
    // The oldest, some in the middle, and the newest.
    let deleted = [0, 3, 4, 9];
    for at in deleted {
        assert!(storage.messages.remove(&topic, appended[at]).await.unwrap(), "{at}");
        assert!(!storage.messages.remove(&topic, appended[at]).await.unwrap(), "{at} is gone");
        assert_eq!(storage.messages.get(&topic, appended[at]).await.unwrap(), None);
    }
    let kept: Vec<_> = (0..10).filter(|at| !deleted.contains(at)).map(|at| appended[at]).collect();
    let all = read_all(storage, &topic, Order::Asc, 3).await;
    assert_eq!(ids(&all), kept);
    assert_eq!(storage.topics.describe(&topic).await.unwrap().length, 6);
    for (place, cursor) in appended.iter().enumerate() {
        let rest: Vec<_> = kept.iter().copied().filter(|id| id > cursor).collect();
        for gap_check in
            [GapCheck::Seen, GapCheck::follows(epoch, None), GapCheck::follows(epoch, Some(place as u64 + 1))]
        {
            let read = storage.messages.read(&topic, range(Some(*cursor), gap_check)).await.unwrap();
            assert_eq!((read.gap, ids(&read.messages)), (None, rest.clone()), "{place} {gap_check:?}");
        }
    }
    // Who was there before the first message has missed none.
    for gap_check in [GapCheck::Seen, GapCheck::follows(epoch, Some(0))] {
        let read = storage.messages.read(&topic, range(Some(MessageId::MIN), gap_check)).await.unwrap();
        assert_eq!((read.gap, ids(&read.messages)), (None, kept.clone()), "{gap_check:?}");
    }
}

pub(super) async fn who_counts_counts_on_over_what_is_deleted(ground: &Ground) {
    let (topic, storage) = (ground.topic(), &ground.storage);
    let appended = append_numbers(storage, &topic, 10).await;
    let epoch = storage.live.tail(&topic).await.unwrap().epoch;
    for at in [2, 3, 8] {
        storage.messages.remove(&topic, appended[at]).await.unwrap();
    }
    let mut given = 1;
    let mut cursor = appended[0];
    for _ in 0..4 {
        let gap_check = GapCheck::follows(epoch, Some(given));
        let range = Range { limit: 2, ..range(Some(cursor), gap_check) };
        let read = storage.messages.read(&topic, range).await.unwrap();
        assert_eq!(read.gap, None, "after {given}");
        given += read.looked_at;
        cursor = read.reached.unwrap_or(cursor);
        assert_eq!(appended[usize::try_from(given).unwrap() - 1], cursor, "it knows which message this is");
    }
    assert_eq!(cursor, appended[9]);
    // What is trimmed beside is counted without them.
    let (cursor, seen) = (appended[1], Some(2));
    storage.messages.trim(&topic, Trim::Keep(2)).await.unwrap();
    let read =
        storage.messages.read(&topic, range(Some(cursor), GapCheck::follows(epoch, seen))).await.unwrap();
    let told = read.gap.map(|gap| (gap.reason, gap.missed, gap.to));
    assert_eq!(told, Some((GapReason::Trimmed, Some(3), appended[7])));
    assert_eq!(ids(&read.messages), [appended[7], appended[9]]);
}

/// Appends messages until one has a later time than the others, and returns all.
async fn append_to_a_later_time(ground: &Ground, topic: &TopicName, least: usize) -> Vec<MessageId> {
    let mut appended = append_numbers(&ground.storage, topic, least).await;
    while appended[appended.len() - 2].ms == appended[appended.len() - 1].ms {
        appended.extend(append_numbers(&ground.storage, topic, 1).await);
    }
    appended
}

pub(super) async fn what_was_deleted_is_missed_by_nobody_behind_a_sweep_either(ground: &Ground) {
    let (topic, storage) = (ground.topic(), &ground.storage);
    let mut given = append_to_a_later_time(ground, &topic, 8).await;
    let mut deleted = vec![1, 3, 4];
    let epoch = storage.live.tail(&topic).await.unwrap().epoch;
    for round in 0..2 {
        for at in &deleted {
            storage.messages.remove(&topic, given[*at]).await.unwrap();
        }
        storage.messages.trim(&topic, Trim::Keep(1)).await.unwrap();
        for is_swept in [false, true] {
            if is_swept {
                eventually(SOON, async || storage.upkeep.sweep().await.unwrap().topics > 0).await;
                storage.upkeep.sweep_one(&topic).await.unwrap();
            }
            let gone = given.len() - 1;
            for place in 0..=gone {
                let (cursor, seen) = match place {
                    0 => (MessageId::MIN, None),
                    place => (given[place - 1], Some(place as u64)),
                };
                let gap_check = seen.map_or(GapCheck::Seen, |seen| GapCheck::follows(epoch, Some(seen)));
                let read = storage.messages.read(&topic, range(Some(cursor), gap_check)).await.unwrap();
                let missed = (place..gone).filter(|at| !deleted.contains(at)).count() as u64;
                let told = read.gap.map(|gap| gap.missed);
                // From between those that are forgotten nobody knows how many of them are behind.
                let is_between = deleted[0] < place && place <= deleted[deleted.len() - 1];
                match told {
                    Some(None) => assert!(is_between, "{round} {is_swept} {place}"),
                    told => assert_eq!(told.flatten().unwrap_or(0), missed, "{round} {is_swept} {place}"),
                }
            }
        }
        // What was forgotten before counts on.
        deleted.push(given.len() + 2);
        given.extend(append_to_a_later_time(ground, &topic, 6).await);
    }
}

pub(super) async fn an_emptied_topic_goes_on_behind_what_was_deleted(ground: &Ground) {
    let (topic, storage) = (ground.topic(), &ground.storage);
    let appended = append_numbers(storage, &topic, 3).await;
    let epoch = storage.live.tail(&topic).await.unwrap().epoch;
    for id in &appended {
        assert!(storage.messages.remove(&topic, *id).await.unwrap());
    }
    let tail = storage.live.tail(&topic).await.unwrap();
    assert_eq!((tail.last, tail.given, tail.epoch), (Some(appended[2]), Some(3), epoch));
    let next = append_numbers(storage, &topic, 1).await;
    assert!(next[0] > appended[2]);
    for (at, cursor) in appended.iter().enumerate() {
        let gap_check = GapCheck::follows(epoch, Some(at as u64 + 1));
        for gap_check in [GapCheck::Seen, gap_check] {
            let read = storage.messages.read(&topic, range(Some(*cursor), gap_check)).await.unwrap();
            assert_eq!((read.gap, ids(&read.messages)), (None, next.clone()), "{at} {gap_check:?}");
        }
    }
}
