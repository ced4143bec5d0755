//! R10: slots move between the primaries of a cluster, in every way that there is, while messages are published and
//! read through two nodes.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::task::Poll;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesOrdered;
use tidemill::proto::page::Order;
use tidemill::proto::{MessageId, TopicName};
use tidemill::storage::{Storage, StorageError};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Node;
use crate::support::cluster::{Cluster, slot_of};
use crate::support::ground::{append, is_strictly_increasing, json, keyed, message, read_all, topic};
use crate::support::server::Kind;

/// Appends of one publisher that are under way, none of which waits for another.
const UNDER_WAY: usize = 40;
/// Publishers of messages under keys, and how far their numbers are apart.
const PUBLISHERS: u64 = 8;
const APART: u64 = 1_000_000;
/// Moves in one test.
const MOVES: usize = 6;
/// Between two of them.
const REST: Duration = Duration::from_millis(150);

/// How slots move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    KeyByKey,
    AtOnce,
}

/// What became of the numbers that a publisher has published in order.
#[derive(Debug, Default)]
struct Published {
    accepted: Vec<(u64, MessageId)>,
    refused: Vec<u64>,
    unknown: Vec<u64>,
}

/// Publishes numbers without waiting for what became of those before, until it is told to stop.
async fn publish(storage: Storage, topic: TopicName, stop: CancellationToken) -> (TopicName, Published) {
    let mut published = Published::default();
    let mut under_way = FuturesOrdered::new();
    let mut number = 0;
    loop {
        while under_way.len() < UNDER_WAY && !stop.is_cancelled() {
            let (storage, topic, sent) = (storage.clone(), topic.clone(), number);
            let mut appending =
                Box::pin(
                    async move { (sent, append(&storage, message(&topic, json(sent.to_string()))).await) },
                );
            // It is queued, in its turn, when it is first asked for.
            let first = futures_util::poll!(appending.as_mut());
            under_way.push_back(async move {
                match first {
                    Poll::Ready(outcome) => outcome,
                    Poll::Pending => appending.await,
                }
            });
            number += 1;
        }
        let Some((number, outcome)) = under_way.next().await else { return (topic, published) };
        match outcome {
            Ok(appended) => published.accepted.push((number, appended.id)),
            Err(StorageError::Unavailable(_)) => published.refused.push(number),
            Err(StorageError::Indeterminate(_)) => published.unknown.push(number),
            Err(error) => panic!("{topic}: {number}: {error}"),
        }
    }
}

/// Holds what a topic has against what its publisher was told: each number that was accepted once, under its id, none
/// that was refused, and all in the order in which they were published.
async fn assert_in_order(storage: &Storage, topic: &TopicName, published: &Published) {
    let kept = read_all(storage, topic, Order::Asc, 1_000).await;
    let ids: Vec<MessageId> = kept.iter().map(|message| message.id).collect();
    assert!(is_strictly_increasing(&ids));
    let numbers: Vec<u64> = kept
        .iter()
        .map(|message| std::str::from_utf8(&message.body.payload).expect("text").parse().expect("a number"))
        .collect();
    for pair in numbers.windows(2) {
        assert!(pair[0] < pair[1], "{topic}: {} stands behind {}", pair[1], pair[0]);
    }
    let of: HashMap<u64, MessageId> = numbers.into_iter().zip(ids).collect();
    for (number, id) in &published.accepted {
        assert_eq!(of.get(number), Some(id), "{topic}: {number} was accepted");
    }
    for number in &published.refused {
        assert!(!of.contains_key(number), "{topic}: {number} was refused");
    }
    let known = published.accepted.len() + published.unknown.len();
    assert!(of.len() <= known, "{topic}: {} of {known} that may be there", of.len());
}

/// Moves slots to the next primary, and to the one behind it, and so on.
async fn move_around(cluster: &Cluster, slots: RangeInclusive<u16>, how: How, moves: usize) {
    for _ in 0..moves {
        let from = cluster.primary_of(*slots.start()).await;
        let to = (from + 1) % 3;
        match how {
            How::KeyByKey => cluster.move_slots(slots.clone(), from, to).await,
            How::AtOnce => cluster.migrate_slots(slots.clone(), from, to).await,
        }
        tokio::time::sleep(REST).await;
    }
}

/// Publishes numbers from one on, each under a key of its own, until it is accepted, and then again through another node,
/// until it is told to stop. Returns them with their ids.
async fn publish_once(
    nodes: [Storage; 2],
    topic: TopicName,
    from: u64,
    stop: CancellationToken,
) -> Vec<(u64, MessageId)> {
    let accepted = async |storage: &Storage, number: u64| loop {
        let text = number.to_string();
        match append(storage, keyed(&topic, json(text.clone()), &text, 1)).await {
            Ok(appended) => return appended,
            Err(StorageError::Unavailable(_) | StorageError::Indeterminate(_)) => {}
            Err(error) => panic!("{topic}: {number}: {error}"),
        }
    };
    let mut all = Vec::new();
    for number in from.. {
        if stop.is_cancelled() {
            break;
        }
        let first = accepted(&nodes[0], number).await;
        let repeat = accepted(&nodes[1], number).await;
        assert_eq!((repeat.id, repeat.replayed), (first.id, true), "{number}");
        all.push((number, first.id));
    }
    all
}

async fn messages_under_keys_are_kept_once(kind: Kind, how: How) {
    let Some(cluster) = Cluster::start(kind, 3, 0).await else { return };
    let ports = cluster.ports();
    let nodes = [Node::start(ports[0]).await, Node::start(ports[1]).await];
    let moving = topic("orders");
    let slot = slot_of(moving.as_str().as_bytes());
    let stop = CancellationToken::new();
    let mut publishers = JoinSet::new();
    for publisher in 0..PUBLISHERS {
        let storages = [&nodes[0], &nodes[1]].map(|node| node.storage.clone());
        publishers.spawn(publish_once(storages, moving.clone(), publisher * APART, stop.clone()));
    }
    tokio::time::sleep(REST).await;
    move_around(&cluster, slot..=slot, how, MOVES).await;
    stop.cancel();
    let mut accepted: Vec<_> = publishers.join_all().await.into_iter().flatten().collect();
    accepted.sort_unstable();
    eprintln!("{kind:?} {how:?}: {} accepted", accepted.len());
    assert!(accepted.len() > 20 * MOVES, "it goes on meanwhile");
    let kept = read_all(&nodes[1].storage, &moving, Order::Asc, 1_000).await;
    let number = |payload: &[u8]| std::str::from_utf8(payload).expect("text").parse().expect("a number");
    let mut kept: Vec<(u64, MessageId)> =
        kept.iter().map(|message| (number(&message.body.payload), message.id)).collect();
    kept.sort_unstable();
    assert!(kept == accepted, "{} kept, {} accepted", kept.len(), accepted.len());
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_under_keys_are_kept_once_while_a_slot_moves_key_by_key_on_valkey() {
    messages_under_keys_are_kept_once(Kind::Valkey, How::KeyByKey).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_under_keys_are_kept_once_while_a_slot_moves_key_by_key_on_redis() {
    messages_under_keys_are_kept_once(Kind::Redis, How::KeyByKey).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_under_keys_are_kept_once_while_a_slot_moves_at_once_on_valkey() {
    messages_under_keys_are_kept_once(Kind::Valkey, How::AtOnce).await;
}

async fn messages_keep_their_order(kind: Kind, how: How) {
    let Some(cluster) = Cluster::start(kind, 3, 0).await else { return };
    let ports = cluster.ports();
    let nodes = [Node::start(ports[0]).await, Node::start(ports[1]).await];
    let moving = topic("orders");
    let slot = slot_of(moving.as_str().as_bytes());
    let stays = (0..10_000)
        .map(|number| topic(&format!("stays-{number}")))
        .find(|topic| slot_of(topic.as_str().as_bytes()) / 5_462 == slot / 5_462)
        .expect("there is one beside it");
    let stop = CancellationToken::new();
    let mut publishers = JoinSet::new();
    publishers.spawn(publish(nodes[0].storage.clone(), moving, stop.clone()));
    publishers.spawn(publish(nodes[0].storage.clone(), stays, stop.clone()));
    tokio::time::sleep(REST).await;
    move_around(&cluster, slot..=slot, how, MOVES).await;
    stop.cancel();
    for (topic, published) in publishers.join_all().await {
        eprintln!(
            "{kind:?} {how:?} {topic}: {} accepted, {} refused, {} unknown",
            published.accepted.len(),
            published.refused.len(),
            published.unknown.len()
        );
        assert!(published.accepted.len() > 100 * MOVES, "it goes on meanwhile");
        assert!(published.unknown.is_empty(), "{topic}: no connection was lost");
        assert!(published.refused.len() <= published.accepted.len() / 20, "{topic}: {published:?}");
        assert_in_order(&nodes[1].storage, &topic, &published).await;
    }
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_keep_their_order_while_a_slot_moves_key_by_key_on_valkey() {
    messages_keep_their_order(Kind::Valkey, How::KeyByKey).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_keep_their_order_while_a_slot_moves_key_by_key_on_redis() {
    messages_keep_their_order(Kind::Redis, How::KeyByKey).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_keep_their_order_while_a_slot_moves_at_once_on_valkey() {
    messages_keep_their_order(Kind::Valkey, How::AtOnce).await;
}
