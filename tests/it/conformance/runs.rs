//! Topics that end: they take nothing from then on, and what they have stays as it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tidemill::proto::page::Order;
use tidemill::proto::topics::{RunState, TopicUpdate};
use tidemill::proto::{MessageId, TopicName};
use tidemill::storage::{Followed, GapCheck, NewMessage, Range, RunEnd, RunEnding, StorageError, Trim};
use tokio::task::JoinSet;

use super::work::Of;
use crate::support::ground::{
    Ground, Heard, append, append_numbers, followed, ids, json, keyed, length, message, read_all,
};

const CLOSE: RunEnding<'static> = RunEnding::Close;

fn end(state: RunState, reason: Option<&str>) -> RunEnd {
    RunEnd { state, reason: reason.map(Into::into) }
}

/// Returns how a topic has ended, as it is described and as its tail tells.
async fn ended(ground: &Ground, topic: &TopicName) -> Option<RunEnd> {
    let described = ground.storage.topics.describe(topic).await.unwrap().ended;
    assert_eq!(ground.storage.live.tail(topic).await.unwrap().ended, described);
    described
}

fn is_closed<T: std::fmt::Debug>(result: &Result<T, StorageError>) -> bool {
    matches!(result, Err(StorageError::Closed))
}

fn is_cancelled<T: std::fmt::Debug>(result: &Result<T, StorageError>, why: &str) -> bool {
    matches!(result, Err(StorageError::Cancelled(reason)) if **reason == *why)
}

pub(super) async fn a_topic_that_has_ended_takes_no_message_and_keeps_what_it_has(ground: &Ground) {
    let storage = &ground.storage;
    for ending in [CLOSE, RunEnding::Cancel("too \"dear\"\n")] {
        let topic = ground.topic();
        let kept = append_numbers(storage, &topic, 5).await;
        assert_eq!(ended(ground, &topic).await, None);
        let told = storage.runs.end_run(&topic, ending).await.unwrap();
        let is_refused = |result: &Result<_, _>| match ending {
            RunEnding::Close => is_closed(result),
            RunEnding::Cancel(reason) => is_cancelled(result, reason),
        };
        assert_eq!(ended(ground, &topic).await, Some(told));
        let careful = NewMessage { create_topic: false, ..message(&topic, json("x")) };
        let behind = NewMessage { expected_last: kept.last().copied(), ..message(&topic, json("x")) };
        let nowhere = NewMessage { expected_last: Some(MessageId::MIN), ..message(&topic, json("x")) };
        for new in [message(&topic, json("x")), keyed(&topic, json("x"), "key", 1), careful, behind, nowhere]
        {
            let refused = append(storage, new).await;
            assert!(is_refused(&refused), "{refused:?}");
        }
        // Each of a batch succeeds or fails alone.
        let other = ground.topic();
        let batch = vec![message(&topic, json("x")), message(&other, json("1")), message(&topic, json("x"))];
        let results = storage.messages.append(batch).await;
        assert!(is_refused(&results[0]) && results[1].is_ok() && is_refused(&results[2]), "{results:?}");

        let messages = read_all(storage, &topic, Order::Asc, 2).await;
        assert_eq!(ids(&messages), kept);
        assert!(storage.messages.remove(&topic, kept[4]).await.unwrap());
        assert_eq!(storage.messages.trim(&topic, Trim::Keep(1)).await.unwrap(), 3);
        storage.upkeep.sweep_one(&topic).await.unwrap();
        assert_eq!(length(storage, &topic).await, 1);
        let update = TopicUpdate { description: Some("over".to_owned()), ..TopicUpdate::default() };
        storage.topics.update(&topic, update.into()).await.unwrap();
        assert!(is_refused(&append(storage, message(&topic, json("x"))).await));
    }
    let missing = storage.runs.end_run(&ground.topic(), CLOSE).await;
    assert!(matches!(missing, Err(StorageError::NoTopic)), "{missing:?}");
}

pub(super) async fn a_topic_ends_once_and_one_that_is_cancelled_can_be_closed(ground: &Ground) {
    let (storage, topic) = (&ground.storage, ground.topic());
    append_numbers(storage, &topic, 1).await;
    let cancelled = end(RunState::Cancelled, Some("first"));
    for reason in ["first", "second"] {
        let told = storage.runs.end_run(&topic, RunEnding::Cancel(reason)).await.unwrap();
        assert_eq!(told, cancelled);
    }
    let refused = append(storage, message(&topic, json("x"))).await;
    assert!(is_cancelled(&refused, "first"), "{refused:?}");
    let closed = end(RunState::Closed, Some("first"));
    for _ in 0..2 {
        assert_eq!(storage.runs.end_run(&topic, CLOSE).await.unwrap(), closed);
        assert_eq!(ended(ground, &topic).await.as_ref(), Some(&closed));
    }
    assert!(is_closed(&append(storage, message(&topic, json("x"))).await));
    assert!(is_closed(&storage.runs.end_run(&topic, RunEnding::Cancel("late")).await));
    assert_eq!(ended(ground, &topic).await.as_ref(), Some(&closed));
}

pub(super) async fn nothing_is_appended_once_a_topic_has_ended(ground: &Ground) {
    for round in 0..5 {
        let topic = ground.topic();
        let mut last = append_numbers(&ground.storage, &topic, 1).await[0];
        let has_ended = Arc::new(AtomicBool::new(false));
        let mut publishers = JoinSet::new();
        for number in 0..8 {
            let (storage, topic, has_ended) = (ground.storage.clone(), topic.clone(), has_ended.clone());
            publishers.spawn(async move {
                let mut kept = 0;
                for at in 0.. {
                    let new = match number % 3 {
                        0 => keyed(&topic, json("1"), &format!("{number}/{at}"), 1),
                        1 => NewMessage { expected_last: Some(last), ..message(&topic, json("1")) },
                        _ => message(&topic, json("1")),
                    };
                    tokio::task::yield_now().await;
                    let began_behind = has_ended.load(Ordering::SeqCst);
                    match append(&storage, new).await {
                        Ok(appended) => {
                            assert!(!began_behind, "it is appended behind the end");
                            (last, kept) = (appended.id, kept + 1);
                        }
                        Err(StorageError::NotLast(other)) => last = other,
                        Err(StorageError::Closed) => return kept,
                        Err(other) => panic!("{other:?}"),
                    }
                }
                kept
            });
        }
        for _ in 0..round * 20 {
            tokio::task::yield_now().await;
        }
        ground.storage.runs.end_run(&topic, CLOSE).await.unwrap();
        has_ended.store(true, Ordering::SeqCst);
        let length_then = length(&ground.storage, &topic).await;
        let kept: u64 = publishers.join_all().await.into_iter().sum();
        assert_eq!(length(&ground.storage, &topic).await, length_then);
        assert_eq!(kept + 1, length_then, "what was answered is there, and nothing else");
    }
}

pub(super) async fn a_used_key_is_answered_behind_the_end(ground: &Ground) {
    let (storage, topic) = (&ground.storage, ground.topic());
    let first = append(storage, keyed(&topic, json("1"), "key", 1)).await.unwrap();
    storage.runs.end_run(&topic, CLOSE).await.unwrap();
    let repeat = append(storage, keyed(&topic, json("1"), "key", 1)).await.unwrap();
    assert_eq!((repeat.id, repeat.replayed), (first.id, true));
    assert!(is_closed(&append(storage, keyed(&topic, json("1"), "other", 1)).await));
}

pub(super) async fn what_reads_a_topic_is_told_of_its_end_and_of_nothing_else(ground: &Ground) {
    let (storage, topic) = (&ground.storage, ground.topic());
    let kept = append_numbers(storage, &topic, 3).await;
    let before = storage.live.tail(&topic).await.unwrap();
    let read = async |after, gap_check| {
        let range = Range { order: Order::Asc, after: Some(after), gap_check, limit: 10, bytes_max: 1_000 };
        storage.messages.read(&topic, range).await.unwrap()
    };
    let follows = GapCheck::follows(before.epoch, Some(3));
    assert_eq!(read(kept[2], follows).await.state, RunState::Open);
    storage.runs.end_run(&topic, CLOSE).await.unwrap();
    let tail = storage.live.tail(&topic).await.unwrap();
    assert_eq!(tail, tidemill::storage::Tail { ended: Some(end(RunState::Closed, None)), ..before });
    for (after, check, left) in [
        (kept[2], follows, 0),
        (kept[2], GapCheck::Seen, 0),
        (kept[0], GapCheck::follows(before.epoch, Some(1)), 2),
        (kept[0], GapCheck::Seen, 2),
        (MessageId::MIN, GapCheck::follows(before.epoch, Some(0)), 3),
    ] {
        let batch = read(after, check).await;
        assert_eq!((batch.gap, batch.messages.len(), batch.at_end), (None, left, true), "{check:?}");
        assert_eq!((batch.state, batch.epoch), (RunState::Closed, Some(before.epoch)), "{check:?}");
    }
    storage.messages.trim(&topic, Trim::Keep(0)).await.unwrap();
    assert_eq!(storage.live.tail(&topic).await.unwrap().last, Some(kept[2]));
    let batch = read(kept[2], follows).await;
    assert_eq!((batch.gap, batch.state), (None, RunState::Closed));
    assert!(read(kept[0], GapCheck::Seen).await.gap.is_some());
}

pub(super) async fn a_topic_that_is_made_anew_takes_messages(ground: &Ground) {
    let (storage, topic) = (&ground.storage, ground.topic());
    let last = append_numbers(storage, &topic, 2).await[1];
    storage.runs.end_run(&topic, RunEnding::Cancel("why")).await.unwrap();
    storage.topics.delete(&topic).await.unwrap();
    assert!(append(storage, message(&topic, json("1"))).await.unwrap().id > last);
    assert_eq!(ended(ground, &topic).await, None);
    storage.runs.end_run(&topic, CLOSE).await.unwrap();
    assert_eq!(ended(ground, &topic).await, Some(end(RunState::Closed, None)));
    storage.topics.delete(&topic).await.unwrap();
    storage.topics.create(&topic, TopicUpdate::default(), None).await.unwrap();
    // One without messages ends as well.
    storage.runs.end_run(&topic, CLOSE).await.unwrap();
    assert!(is_closed(&append(storage, message(&topic, json("x"))).await));
    assert_eq!(storage.live.tail(&topic).await.unwrap().last, None);
}

pub(super) async fn who_listens_is_told_of_an_end(ground: &Ground) {
    let (storage, topic) = (&ground.storage, ground.topic());
    let last = append_numbers(storage, &topic, 1).await[0];
    let mut heard = Heard::of(storage);
    let epoch = storage.live.tail(&topic).await.unwrap().epoch;
    let asked = |state| Followed { epoch, given: Some(1), state, ..followed(&topic, Some(last)) };
    assert_eq!(storage.live.poll_changes(&[asked(RunState::Open)]).await.unwrap().changed, [0; 0]);
    while heard.told().is_some() {}
    storage.runs.end_run(&topic, CLOSE).await.unwrap();
    assert_eq!(heard.told().as_ref(), Some(&topic), "before it is answered");
    for (state, changed) in [(RunState::Open, &[0][..]), (RunState::Closed, &[])] {
        assert_eq!(storage.live.poll_changes(&[asked(state)]).await.unwrap().changed, changed);
    }
}

pub(super) async fn claims_of_a_cancelled_topic_say_why(ground: &Ground) {
    let of = Of::latest(ground, |_| {}).await;
    let storage = &ground.storage;
    append_numbers(storage, &of.topic, 3).await;
    let before = of.claimed(of.ask("w", 1)).await;
    assert_eq!((before.deliveries.len(), before.cancelled), (1, None));
    let reason = "too \"dear\"\n\u{e9}";
    storage.runs.end_run(&of.topic, RunEnding::Cancel(reason)).await.unwrap();
    let claimed = of.claimed(of.ask("w", 1)).await;
    assert_eq!((claimed.deliveries.len(), claimed.cancelled.as_deref()), (1, Some(reason)));
    // It says so still once it is closed; and one that was closed alone never does.
    storage.runs.end_run(&of.topic, CLOSE).await.unwrap();
    let claimed = of.claimed(of.ask("w", 1)).await;
    assert_eq!((claimed.deliveries.len(), claimed.cancelled.as_deref()), (1, Some(reason)));
    let nothing = of.claimed(of.ask("w", 1)).await;
    assert_eq!((nothing.deliveries.len(), nothing.cancelled), (0, None));
    let closed = Of::latest(ground, |_| {}).await;
    append_numbers(storage, &closed.topic, 1).await;
    storage.runs.end_run(&closed.topic, CLOSE).await.unwrap();
    let claimed = closed.claimed(closed.ask("w", 1)).await;
    assert_eq!((claimed.deliveries.len(), claimed.cancelled), (1, None));
}
