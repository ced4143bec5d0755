//! Claims from several groups at once.

use std::time::Duration;

use serde_json::json;
use tidemill::storage::Storage;
use tokio::time::Instant;

use super::work::{LINES, put, settle};
use super::{numbered_lines, on_every_backend};
use crate::support::length;
use crate::support::relay::TestRelay;

on_every_backend![
    several_groups_are_claimed_from_by_their_weights,
    who_floods_one_topic_keeps_nobody_waiting_at_another,
];

async fn several_groups_are_claimed_from_by_their_weights(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    for topic in ["high", "low"] {
        put(&relay, topic, json!({})).await;
        let lines = numbered_lines(200);
        let path = format!("/api/v1/topics/{topic}/messages");
        let sent = relay.send("POST", &path, &[LINES], lines.as_bytes());
        assert_eq!(sent.await.status, 207);
    }
    let from =
        json!([{"topic": "high", "group": "workers", "weight": 9}, {"topic": "low", "group": "workers"}]);
    let ask = async |order: &str, max: u32| {
        let body = json!({"consumer": "ann", "from": from, "order": order, "max": max});
        let answer = relay.post("/api/v1/work/claim", &body.to_string()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let messages = answer.json()["messages"].as_array().expect("messages").clone();
        let of = |topic: &str| messages.iter().filter(|message| message["topic"] == topic).count();
        (of("high"), of("low"))
    };
    assert_eq!(ask("strict", 50).await, (50, 0));
    assert_eq!(ask("weighted", 100).await, (90, 10));
    assert_eq!(ask("strict", 100).await, (60, 40));
    assert_eq!(ask("weighted", 100).await, (0, 100), "what one does not have the other gives");
    // Whoever waits for several is told of any.
    ask("strict", 1_000).await;
    let body = json!({"consumer": "ann", "from": from, "wait": 20}).to_string();
    let waiting = relay.post("/api/v1/work/claim", &body);
    let publishing = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        relay.publish("low", "\"new\"").await
    };
    let (answer, id) = tokio::join!(waiting, publishing);
    assert_eq!(answer.json()["messages"][0]["message_id"].as_str(), Some(&*id));
    relay.stop().await;
}

async fn who_floods_one_topic_keeps_nobody_waiting_at_another(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let flood = length::pick(5_000, 100_000);
    for topic in ["flooded", "quiet"] {
        put(&relay, topic, json!({})).await;
    }
    for _ in 0..flood / 1_000 {
        let lines = numbered_lines(1_000);
        let sent = relay.send("POST", "/api/v1/topics/flooded/messages", &[LINES], lines.as_bytes()).await;
        assert_eq!(sent.status, 207);
    }
    let from = json!([{"topic": "flooded", "group": "workers", "weight": 10}, {"topic": "quiet", "group": "workers"}]);
    let body = json!({"consumer": "ann", "from": from, "max": 10}).to_string();
    let id = relay.publish("quiet", "1").await;
    let (since, mut claims) = (Instant::now(), 0);
    loop {
        claims += 1;
        let messages = relay.post("/api/v1/work/claim", &body).await.json()["messages"].clone();
        let messages = messages.as_array().expect("messages");
        assert!(!messages.is_empty(), "the flood is not over");
        let receipts: Vec<_> = messages.iter().map(|message| &message["receipt"]).collect();
        settle(&relay, "ack", json!({"receipts": receipts})).await;
        if messages.iter().any(|message| message["message_id"] == id && message["topic"] == "quiet") {
            break;
        }
    }
    // Of more than 500.
    assert!(claims <= 50 && since.elapsed() < Duration::from_secs(10), "{claims} in {:?}", since.elapsed());
    relay.stop().await;
}
