//! What a lease keeps ends with it, as events: where it is ended, and where its holder is gone.

use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{end, lease, lock, make_all, put, renew, there, two};
use crate::streams::on_both_backends;
use crate::support::eventually;
use crate::support::ground::{Ground, SOON};
use crate::support::relay::TestRelay;
use crate::support::watcher::{Form, Watcher};

on_both_backends! {
    what_a_lease_keeps_ends_when_it_is_ended,
    what_a_lease_keeps_ends_in_time_where_its_holder_is_gone,
    the_end_of_a_lease_ends_all_of_many_keys
}

async fn watch(relay: &TestRelay, path: &str) -> Watcher {
    let mut watcher =
        Watcher::open(relay.address, &format!("/api/v1/{path}"), Form::Lines, "").await.expect("a watch");
    watcher.up_to("synced").await;
    watcher
}

async fn what_a_lease_keeps_ends_when_it_is_ended(ground: &Ground) {
    let [one, other] = two(ground).await;
    let lease = lease(&one, "1h").await;
    let held = make_all(&one, &lease, "a").await;
    let (mut keys, mut room) = (watch(&other, "keys/flows").await, watch(&other, "presence/lobby").await);
    let body = json!({ "holder": "bob", "ttl": "1m", "wait": "20s" });
    let waiting = lock(&other, "a", body);
    let ending = async {
        let waits = async || one.get("/api/v1/locks/a").await.json()["waiting"] == 1;
        eventually(SOON, waits).await;
        let at = Instant::now();
        assert_eq!(end(&one, &lease).await.status, 204);
        // Whoever looks sees it at once.
        let (_, key, member) = there(&one, "a").await;
        assert_eq!((key, member), (false, false));
        at
    };
    let (granted, at) = tokio::join!(waiting, ending);
    assert_eq!(granted.status, 201, "{granted:?}");
    let fence = |lock: &serde_json::Value| lock["fence"].as_str().map(str::to_owned);
    assert_ne!(fence(&granted.json()), fence(&held));
    assert_eq!(keys.expect("expired").await.name(), "a");
    let left = room.expect("left").await;
    assert_eq!((left.name(), &left.data["reason"]), ("a", &json!("expired")));
    let late = at.elapsed();
    // A second is promised; the rest is what a busy machine adds.
    assert!(late < Duration::from_secs(3), "{late:?}");
    // It is gone, with all that was under it.
    assert_eq!(renew(&one, &lease).await.problem().code.as_str(), "lease_not_found");
    assert_eq!(end(&one, &lease).await.problem().status, 404);
    assert_eq!(put(&one, &format!("keys/flows/b?lease={lease}")).await.problem().status, 404);
    assert_eq!(one.get("/api/v1/keys/flows/b").await.status, 404, "nothing was put");
    drop((keys, room));
    for relay in [one, other] {
        relay.stop().await;
    }
}

async fn what_a_lease_keeps_ends_in_time_where_its_holder_is_gone(ground: &Ground) {
    const TTL: Duration = Duration::from_secs(2);
    let [one, other] = two(ground).await;
    let lease = lease(&one, "2s").await;
    make_all(&one, &lease, "a").await;
    let (mut keys, mut room) = (watch(&other, "keys/flows").await, watch(&other, "presence/lobby").await);
    for _ in 0..3 {
        sleep(TTL / 3).await;
        assert_eq!(renew(&one, &lease).await.json()["lost"], json!([]));
    }
    let at = Instant::now();
    // Its holder says nothing more, and the node that has made it all is gone.
    one.stop().await;
    let body = json!({ "holder": "bob", "ttl": "1m", "wait": "20s" });
    let (granted, key, left) = tokio::join!(
        async { (lock(&other, "a", body).await, at.elapsed()) },
        async { (keys.expect("expired").await, at.elapsed()) },
        async { (room.expect("left").await, at.elapsed()) },
    );
    assert_eq!(granted.0.status, 201, "{granted:?}");
    assert_eq!((key.0.name(), left.0.name(), &left.0.data["reason"]), ("a", "a", &json!("expired")));
    for late in [granted.1, key.1, left.1] {
        println!("over {late:?} after the last renewal, of a lease of {TTL:?}");
        assert!(late + Duration::from_millis(500) > TTL, "too early: {late:?}");
        // What is promised, and what a busy machine adds.
        assert!(late < TTL + Duration::from_secs(1) + Duration::from_secs(2), "{late:?}");
    }
    assert_eq!(there(&other, "a").await, (json!("bob"), false, false));
    assert_eq!(renew(&other, &lease).await.problem().code.as_str(), "lease_not_found");
    drop((keys, room));
    other.stop().await;
}

async fn the_end_of_a_lease_ends_all_of_many_keys(ground: &Ground) {
    const KEYS: usize = 1_200;
    let [one, other] = two(ground).await;
    let lease = lease(&one, "1h").await;
    let (first, rest) = (put(&one, &format!("keys/many/k?lease={lease}")).await, 1..KEYS);
    assert_eq!(first.status, 201);
    let puts = futures_util::StreamExt::buffer_unordered(
        futures_util::stream::iter(rest.map(|number| {
            let (one, lease) = (&one, &lease);
            async move { put(one, &format!("keys/many/k-{number}?lease={lease}")).await.status }
        })),
        16,
    );
    let statuses: Vec<u16> = futures_util::StreamExt::collect(puts).await;
    assert!(statuses.iter().all(|status| *status == 201), "{statuses:?}");
    let mut watcher = watch(&other, "keys/many").await;
    assert_eq!(end(&other, &lease).await.status, 204);
    let mut gone = std::collections::BTreeSet::new();
    while gone.len() < KEYS {
        assert!(gone.insert(watcher.expect("expired").await.name().to_owned()), "each of them once");
    }
    eventually(SOON, async || one.get("/api/v1/buckets/many").await.json()["keys"] == 0).await;
    drop(watcher);
    for relay in [one, other] {
        relay.stop().await;
    }
}
