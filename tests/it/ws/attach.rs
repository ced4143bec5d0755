//! Attaching at any moment, at full rate, from any cursor, in both encodings: every reader gets what
//! the stream has, in order, without a hole and without a copy.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tidemill::proto::MessageId;
use tidemill::storage::Storage;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::on_both_backends;
use crate::support::ground::{read_all, topic};
use crate::support::relay::TestRelay;
use crate::support::ws::{Got, WsClient};

const PUBLISHERS: usize = 2;
const READERS: usize = 120;
/// How many messages a publisher sends, as fast as it can, for each reader that has begun to attach: so
/// the attaches lie all over the stream however fast the machine is.
const MESSAGES_PER_READER: usize = 8;

/// All of it may take as long on a busy machine.
const LONG: Duration = Duration::from_mins(2);

/// What one reader got, and from where it asked.
struct Reading {
    from: String,
    ids: Vec<MessageId>,
}

/// Publishes numbers with many under way.
async fn publish(relay: Arc<TestRelay>, mut begun: watch::Receiver<usize>) {
    const UNDER_WAY: usize = 64;
    let mut client = WsClient::connect(relay.address).await;
    let (mut sent, mut answered) = (0, 0);
    while sent < READERS * MESSAGES_PER_READER {
        begun.wait_for(|begun| sent < begun * MESSAGES_PER_READER).await.expect("readers begin");
        client.send(format!(r#"{{"type":"publish","topic":"t","payload":{sent}}}"#)).await;
        sent += 1;
        while sent - answered >= UNDER_WAY {
            client.expect("published").await;
            answered += 1;
        }
    }
    while answered < sent {
        client.expect("published").await;
        answered += 1;
    }
}

/// Attaches from a cursor and reads up to the message that ends the topic.
async fn read(relay: Arc<TestRelay>, number: usize, first: MessageId) -> Reading {
    let mut client = if number.is_multiple_of(2) {
        WsClient::connect(relay.address).await
    } else {
        WsClient::connect_binary(relay.address).await
    };
    let from = match number % 5 {
        0 | 1 => "latest".to_owned(),
        2 => "earliest".to_owned(),
        3 => first.to_string(),
        _ => "-1h".to_owned(),
    };
    client.subscribe("t", &from).await;
    let mut ids = Vec::new();
    loop {
        match client.got().await {
            Got::Message(id, payload) => {
                ids.push(id);
                if payload == b"\"end\"" {
                    break;
                }
            }
            other => panic!("reader {number}: {other:?} after {} messages", ids.len()),
        }
    }
    client.close().await;
    Reading { from, ids }
}

async fn readers_that_attach_at_any_moment_miss_nothing(storage: Storage) {
    let relay = Arc::new(TestRelay::start(storage.clone()).await);
    let first = relay.publish("t", "-1").await.parse().expect("an id");
    let (tell, begun) = watch::channel(0);
    let mut publishers = JoinSet::new();
    for _ in 0..PUBLISHERS {
        publishers.spawn(publish(relay.clone(), begun.clone()));
    }
    let mut readers = JoinSet::new();
    for number in 0..READERS {
        readers.spawn(read(relay.clone(), number, first));
        tell.send_replace(number + 1);
        tokio::task::yield_now().await;
    }
    while let Some(done) = timeout(LONG, publishers.join_next()).await.expect("publishing ends") {
        done.expect("a publisher");
    }
    relay.publish("t", r#""end""#).await;
    let all: Vec<_> = read_all(&storage, &topic("t"), tidemill::proto::page::Order::Asc, 1_000)
        .await
        .iter()
        .map(|message| message.id)
        .collect();
    let place: HashMap<_, _> = all.iter().enumerate().map(|(place, id)| (*id, place)).collect();
    while let Some(reading) = timeout(LONG, readers.join_next()).await.expect("reading ends") {
        let Reading { from, ids } = reading.expect("a reader");
        let start = place[&ids[0]];
        assert_eq!(ids, all[start..], "from {from}");
        match from.as_str() {
            "latest" => {}
            "earliest" | "-1h" => assert_eq!(start, 0, "from {from}"),
            _ => assert_eq!(start, 1, "from {from}"),
        }
    }
    Arc::into_inner(relay).expect("nobody else").stop().await;
}

on_both_backends! { readers_that_attach_at_any_moment_miss_nothing }
