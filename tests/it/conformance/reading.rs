//! Reading: pages in both orders, their bounds, and single messages.

use tidemill::proto::page::Order;
use tidemill::proto::topics::TopicUpdate;
use tidemill::proto::{MessageId, Timestamp};
use tidemill::storage::{Epoch, GapCheck, Range, Selection, StorageError, Trim};

use crate::support::ground::{Ground, append_all, append_numbers, ids, json, message, page, read_all, texts};

fn numbers(range: impl Iterator<Item = usize>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

pub(super) async fn ascending_pages_cover_the_topic(ground: &Ground) {
    let topic = ground.topic();
    append_numbers(&ground.storage, &topic, 250).await;
    for limit in [1, 7, 125, 250, 1_000] {
        let read = read_all(&ground.storage, &topic, Order::Asc, limit).await;
        assert_eq!(texts(&read), numbers(0..250), "{limit}");
    }
    let first = page(&ground.storage, &topic, Order::Asc, None, 10).await;
    assert_eq!(texts(&first.messages), numbers(0..10));
    assert_eq!(first.next, first.messages.last().map(|message| message.id));
}

pub(super) async fn descending_pages_cover_the_topic_backwards(ground: &Ground) {
    let topic = ground.topic();
    append_numbers(&ground.storage, &topic, 250).await;
    for limit in [1, 7, 125, 250, 1_000] {
        let read = read_all(&ground.storage, &topic, Order::Desc, limit).await;
        assert_eq!(texts(&read), numbers((0..250).rev()), "{limit}");
    }
    let first = page(&ground.storage, &topic, Order::Desc, None, 10).await;
    assert_eq!(texts(&first.messages), numbers((240..250).rev()));
    assert_eq!(first.next, first.messages.last().map(|message| message.id));
}

pub(super) async fn a_read_goes_on_after_ids_that_are_not_kept(ground: &Ground) {
    let topic = ground.topic();
    let appended = append_numbers(&ground.storage, &topic, 20).await;
    ground.storage.messages.trim(&topic, Trim::Keep(10)).await.unwrap();
    let kept = &appended[10..];
    let far = MessageId::new(kept[9].ms + 3_600_000, 0);
    for (after, ascending, descending) in [
        (MessageId::MIN, 10, 0),
        (appended[3], 10, 0),
        (appended[9], 10, 0),
        (kept[0], 9, 0),
        (kept[4], 5, 4),
        (MessageId::new(kept[4].ms, kept[4].seq), 5, 4),
        (kept[9], 0, 9),
        (far, 0, 10),
        (MessageId::new(u64::MAX, 7), 0, 10),
        (MessageId::MAX, 0, 10),
    ] {
        let read = page(&ground.storage, &topic, Order::Asc, Some(after), 100).await;
        assert_eq!(ids(&read.messages), kept[10 - ascending..], "after {after}");
        let read = page(&ground.storage, &topic, Order::Desc, Some(after), 100).await;
        let mut expected = kept[..descending].to_vec();
        expected.reverse();
        assert_eq!(ids(&read.messages), expected, "before {after}");
    }
}

pub(super) async fn a_page_of_a_thousand_is_whole(ground: &Ground) {
    let topic = ground.topic();
    append_numbers(&ground.storage, &topic, 1_500).await;
    let read = page(&ground.storage, &topic, Order::Asc, None, 1_000).await;
    assert_eq!(texts(&read.messages), numbers(0..1_000));
    let read = page(&ground.storage, &topic, Order::Desc, None, 1_000).await;
    assert_eq!(texts(&read.messages), numbers((500..1_500).rev()));
}

pub(super) async fn bytes_end_a_page_early_but_never_before_the_first_message(ground: &Ground) {
    let topic = ground.topic();
    let payload = format!("\"{}\"", "x".repeat(998));
    let batch = (0..300).map(|_| message(&topic, json(payload.clone()))).collect();
    let appended = append_all(&ground.storage, batch).await;
    for order in [Order::Asc, Order::Desc] {
        for (bytes_max, expected) in [(0, 1), (1, 1), (1_000, 1), (2_500, 2), (3_000, 3), (150_000, 150)] {
            let range = Range { order, after: None, gap_check: GapCheck::None, limit: 1_000, bytes_max };
            let read = ground.storage.messages.read(&topic, range).await.unwrap();
            assert_eq!(read.messages.len(), expected, "{order} {bytes_max}");
            assert_eq!(read.next, read.messages.last().map(|message| message.id));
            assert_eq!(read.reached, read.next, "what found no room was not looked at");
        }
    }
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let range =
            Range { order: Order::Asc, after, gap_check: GapCheck::None, limit: 1_000, bytes_max: 70_000 };
        let read = ground.storage.messages.read(&topic, range).await.unwrap();
        seen.extend(ids(&read.messages));
        if read.next.is_none() {
            break;
        }
        after = read.next;
    }
    assert_eq!(seen, appended);
}

pub(super) async fn the_end_has_no_next(ground: &Ground) {
    let topic = ground.topic();
    let appended = append_numbers(&ground.storage, &topic, 5).await;
    let read = page(&ground.storage, &topic, Order::Asc, Some(appended[4]), 10).await;
    assert_eq!((read.messages.len(), read.next), (0, None));
    let read = page(&ground.storage, &topic, Order::Desc, Some(appended[0]), 10).await;
    assert_eq!((read.messages.len(), read.next), (0, None));
    let read = page(&ground.storage, &topic, Order::Asc, None, 10).await;
    assert_eq!(read.next, Some(appended[4]), "a page with messages goes on after the last one");
}

pub(super) async fn a_topic_without_messages_reads_empty(ground: &Ground) {
    let topic = ground.topic();
    ground.storage.topics.create(&topic, TopicUpdate::default(), None).await.unwrap();
    for order in [Order::Asc, Order::Desc] {
        for after in [None, Some(MessageId::MIN), Some(MessageId::MAX)] {
            let read = page(&ground.storage, &topic, order, after, 10).await;
            assert_eq!((read.messages.len(), read.next), (0, None));
        }
    }
    assert_eq!(ground.storage.messages.get(&topic, MessageId::new(1, 0)).await.unwrap(), None);
}

pub(super) async fn reading_creates_no_topic(ground: &Ground) {
    let topic = ground.topic();
    for (order, after) in [
        (Order::Asc, None),
        (Order::Desc, None),
        (Order::Asc, Some(MessageId::MAX)),
        (Order::Desc, Some(MessageId::MIN)),
    ] {
        let range = Range { order, after, gap_check: GapCheck::None, limit: 10, bytes_max: 10 };
        let read = ground.storage.messages.read(&topic, range).await;
        assert!(matches!(read, Err(StorageError::NoTopic)), "{read:?}");
    }
    for gap_check in [
        GapCheck::Seen,
        GapCheck::follows(Epoch::Unmarked, Some(0)),
        GapCheck::follows(Epoch::Unmarked, Some(7)),
    ] {
        for after in [MessageId::MIN, MessageId::new(1, 0), MessageId::MAX] {
            let range = Range { order: Order::Asc, after: Some(after), gap_check, limit: 10, bytes_max: 10 };
            let read = ground.storage.messages.read(&topic, range).await;
            assert!(matches!(read, Err(StorageError::NoTopic)), "{gap_check:?} {after}: {read:?}");
        }
    }
    let found = ground.storage.messages.get(&topic, MessageId::new(1, 0)).await;
    assert!(matches!(found, Err(StorageError::NoTopic)), "{found:?}");
    let described = ground.storage.topics.describe(&topic).await;
    assert!(matches!(described, Err(StorageError::NoTopic)), "{described:?}");
    assert!(ground.storage.topics.list(Selection::default(), None, 10).await.unwrap().topics.is_empty());
    assert_eq!(ground.storage.topics.stats().await.unwrap().total_topics, 0);
}

pub(super) async fn a_message_is_found_by_its_id(ground: &Ground) {
    let topic = ground.topic();
    let appended = append_numbers(&ground.storage, &topic, 50).await;
    ground.storage.messages.trim(&topic, Trim::Keep(40)).await.unwrap();
    for (at, &id) in appended.iter().enumerate() {
        let found = ground.storage.messages.get(&topic, id).await.unwrap();
        assert_eq!(found.map(|message| texts(&[message])), (at >= 10).then(|| numbers(at..=at)), "{at}");
    }
    let last = appended[49];
    let later = Timestamp::from_millis(last.ms + 3_600_000).as_millis();
    for id in [MessageId::MIN, MessageId::MAX, MessageId::new(later, 0), MessageId::new(last.ms, u64::MAX)] {
        assert_eq!(ground.storage.messages.get(&topic, id).await.unwrap(), None, "{id}");
    }
}
