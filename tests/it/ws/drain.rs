//! Stopping: readers are told and come back, publishes under way are answered.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
use tidemill::storage::Storage;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::on_both_backends;
use crate::support::ground::{Ground, read_all, topic};
use crate::support::relay::{STUCK, TestRelay};
use crate::support::ws::{Got, WsClient};

async fn readers_are_told_where_to_go_on(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let id = relay.publish("t", "0").await;
    let mut client = WsClient::connect(relay.address).await;
    client.subscribe("t", "earliest").await;
    client.expect("message").await;
    relay.begin_stop();
    let end = client.expect("end").await;
    assert_eq!(end["cursors"]["t"], id);
    assert_eq!(client.got().await, Got::Close(1012));
    assert_eq!(client.next().await.map(|next| next.is_err()), None, "the relay hangs up");
    relay.stop().await;
}

async fn publishes_under_way_are_answered(storage: Storage) {
    const COUNT: usize = 500;
    let relay = TestRelay::start(storage.clone()).await;
    let mut client = WsClient::connect(relay.address).await;
    for n in 0..COUNT {
        client.send(format!(r#"{{"type":"publish","ref":"{n}","topic":"t","payload":{n}}}"#)).await;
    }
    client.expect("published").await;
    relay.begin_stop();
    let mut answered = 1;
    while let frame = client.frame().await
        && frame["type"] == "published"
    {
        assert_eq!(frame["ref"], answered.to_string());
        answered += 1;
    }
    assert_eq!(client.got().await, Got::Close(1012));
    relay.stop().await;
    let kept = read_all(&storage, &topic("t"), tidemill::proto::page::Order::Asc, 1_000).await;
    assert_eq!(kept.len(), answered, "what was taken was answered");
}

on_both_backends! { readers_are_told_where_to_go_on, publishes_under_way_are_answered }

#[tokio::test]
async fn goodbyes_are_spread_over_half_of_the_drain_time() {
    const CLIENTS: usize = 40;
    let drain = Duration::from_secs(1);
    let relay = TestRelay::start_with(crate::support::relay::memory(), |options| {
        // Half of the time at most.
        (options.drain, options.drain_spread, options.ws.drain) = (drain, drain * 10, drain);
    })
    .await;
    let mut clients = JoinSet::new();
    let mut ready = Vec::new();
    for _ in 0..CLIENTS {
        ready.push(WsClient::connect(relay.address).await);
    }
    let started = Instant::now();
    relay.begin_stop();
    for mut client in ready {
        clients.spawn(async move {
            assert_eq!(client.closed().await, Got::Close(1012));
            started.elapsed()
        });
    }
    let times = timeout(STUCK, clients.join_all()).await.expect("all are told");
    let (first, last) = (times.iter().min().expect("clients"), times.iter().max().expect("clients"));
    assert!(*last > *first + drain / 8, "{first:?} to {last:?}");
    relay.stop().await;
    assert!(started.elapsed() < drain + Duration::from_secs(2), "{:?}", started.elapsed());
}

/// A reader that goes on by cursor wherever the load balancer sends it, until the last message.
async fn follow(mut nodes: watch::Receiver<Vec<std::net::SocketAddr>>, seed: usize) -> Vec<Value> {
    let mut payloads = Vec::new();
    let mut cursor = "earliest".to_owned();
    let mut turn = seed;
    loop {
        let node = {
            let nodes = nodes.wait_for(|nodes| !nodes.is_empty()).await.expect("nodes");
            nodes[turn % nodes.len()]
        };
        turn += 1;
        // A node may stop between being chosen and being connected to.
        let Ok(mut client) = WsClient::try_connect(node).await else {
            tokio::task::yield_now().await;
            continue;
        };
        if !client.try_subscribe("t", &cursor).await {
            continue;
        }
        loop {
            match client.got().await {
                Got::Message(id, payload) => {
                    cursor = id.to_string();
                    let payload: Value = serde_json::from_slice(&payload).expect("JSON");
                    if payload == "end" {
                        return payloads;
                    }
                    payloads.push(payload);
                }
                Got::End => {}
                Got::Close(code) => {
                    assert_eq!(code, 1012);
                    break;
                }
                Got::Lost => break,
                Got::Gap(reason) => panic!("a gap: {reason}"),
            }
        }
    }
}

#[cfg(feature = "valkey")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_loses_and_repeats_nothing() {
    const READERS: usize = 20;
    let Some(ground) = Ground::on(crate::support::server::Kind::Valkey).await else { return };
    let storage = &ground.storage;
    let start = || TestRelay::start(storage.clone());
    let (mut a, mut b) = (start().await, start().await);
    a.publish("t", "-1").await;
    let (tell, nodes) = watch::channel(vec![a.address, b.address]);
    let stop = Arc::new(AtomicBool::new(false));
    let publisher = {
        let (storage, stop) = (storage.clone(), stop.clone());
        tokio_util::task::TaskTracker::new().spawn(async move {
            use crate::support::ground::{append_all, json, message};
            let mut number = 0_usize;
            while !stop.load(Ordering::Acquire) {
                let text = (number..number + 5).map(|n| message(&topic("t"), json(n.to_string()))).collect();
                append_all(&storage, text).await;
                number += 5;
            }
            append_all(&storage, vec![message(&topic("t"), json(r#""end""#))]).await;
            number
        })
    };
    let mut readers = JoinSet::new();
    for seed in 0..READERS {
        readers.spawn(follow(nodes.clone(), seed));
    }
    for _ in 0..2 {
        tell.send_replace(vec![b.address]);
        a.stop().await;
        a = start().await;
        tell.send_replace(vec![a.address]);
        b.stop().await;
        b = start().await;
        tell.send_replace(vec![a.address, b.address]);
    }
    stop.store(true, Ordering::Release);
    let count = timeout(STUCK, publisher).await.expect("publishing ends").expect("a publisher");
    let expected: Vec<Value> = (-1..i64::try_from(count).expect("few")).map(Value::from).collect();
    while let Some(done) = timeout(STUCK, readers.join_next()).await.expect("reading ends") {
        let payloads = done.expect("a reader");
        let distinct: HashSet<_> = payloads.iter().map(ToString::to_string).collect();
        assert_eq!(distinct.len(), payloads.len(), "nothing twice");
        assert_eq!(payloads, expected);
    }
    a.stop().await;
    b.stop().await;
}
