//! Dead letters over HTTP: how messages die, and come back.

use std::time::Duration;

use serde_json::{Value, json};
use tidemill::storage::Storage;
use tokio::time::Instant;

use super::on_every_backend;
use super::work::{claim, group, put, settle, until};
use crate::support::relay::TestRelay;

on_every_backend![
    what_fails_comes_again_dies_and_is_redriven,
    what_is_gone_from_the_topic_is_redriven_as_a_copy,
    dead_letters_are_redriven_at_a_rate,
    what_was_told_to_be_dead_can_be_redriven_at_once,
    what_dies_and_has_no_letter_can_be_redriven_and_purged,
    of_several_who_redrive_at_once_each_copy_is_told_by_one,
];

const REDRIVE: &str = "/api/v1/topics/jobs/groups/workers/redrive";
const PURGE: &str = "/api/v1/topics/jobs/groups/workers/purge";

/// Publishes so many, and rejects them.
async fn reject(relay: &TestRelay, count: usize) -> Vec<Value> {
    for number in 0..count {
        relay.publish("jobs", &number.to_string()).await;
    }
    let held = claim(relay, "jobs", json!({"consumer": "ann", "max": 100})).await;
    assert_eq!(held.len(), count);
    let receipts: Vec<&Value> = held.iter().map(|held| &held["receipt"]).collect();
    let rejected = settle(relay, "reject", json!({"receipts": receipts, "reason": "r"})).await;
    assert!(rejected.iter().all(|result| result["dead"] == true), "{rejected:?}");
    held
}

async fn what_fails_comes_again_dies_and_is_redriven(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    put(&relay, "jobs", json!({"max_deliveries": 2, "backoff": [0]})).await;
    let path = "/api/v1/topics/jobs/messages";
    let headers = [("content-type", "application/json"), ("tidemill-meta-trace", "t1")];
    let published = relay.send("POST", path, &headers, br#"{"n":1}"#).await;
    assert_eq!(published.status, 201, "{}", published.text());
    let id = published.json()["message_id"].as_str().expect("an id").to_owned();
    for delivery in 1..=2 {
        let held = claim(&relay, "jobs", json!({"consumer": "ann", "wait": 5})).await;
        assert_eq!(held[0]["delivery"], delivery);
        let body = json!({"receipts": [held[0]["receipt"]], "error": "no such table"});
        let nacked = settle(&relay, "nack", body).await;
        assert_eq!(nacked[0]["status"], "nacked");
        assert_eq!(nacked[0]["dead"].as_bool().unwrap_or(false), delivery == 2);
    }
    let dead = "/api/v1/topics/jobs.workers.dead/messages";
    until(async || relay.get(dead).await.status == 200).await;
    until(async || relay.get(dead).await.json()["total"] == 1).await;
    let letter = relay.get(dead).await.json()["messages"][0].clone();
    assert_eq!(letter["payload"], json!({"n": 1}));
    assert_eq!(letter["metadata"]["trace"], "t1");
    let origin = &letter["metadata"]["dead_letter"];
    assert_eq!((&origin["topic"], &origin["group"]), (&json!("jobs"), &json!("workers")));
    assert_eq!((&origin["message_id"], &origin["reason"]), (&json!(id), &json!("failed")));
    assert_eq!((&origin["error"], &origin["deliveries"]), (&json!("no such table"), &json!(2)));
    let state = format!("/api/v1/topics/jobs/groups/workers/messages/{id}?wait=5");
    let told = relay.get(&state).await.json();
    assert_eq!((&told["state"], &told["error"]), (&json!("dead"), &json!("no such table")));
    until(async || group(&relay, "jobs").await["dead"] == 1).await;
    let redrive = "/api/v1/topics/jobs/groups/workers/redrive";
    let would = relay.post(redrive, r#"{"all":true,"dry_run":true}"#).await.json();
    assert_eq!(would, json!({"messages": 1, "copies": 0, "gone": 0, "unknown": 0}));
    let done = relay.post(redrive, &json!({"ids": [id, "1-1"]}).to_string()).await.json();
    assert_eq!(done, json!({"messages": 1, "copies": 0, "gone": 0, "unknown": 1}));
    assert_eq!(relay.get(dead).await.json()["total"], 0);
    let held = claim(&relay, "jobs", json!({"consumer": "ann", "wait": 5})).await;
    assert_eq!((held[0]["message_id"].as_str(), &held[0]["delivery"]), (Some(&*id), &json!(3)));
    let body = json!({"receipts": [held[0]["receipt"]], "reason": "useless"});
    assert_eq!(settle(&relay, "reject", body).await[0]["status"], "rejected");
    until(async || relay.get(dead).await.json()["total"] == 1).await;
    until(async || group(&relay, "jobs").await["dead"] == 1).await;
    let purged = relay.post("/api/v1/topics/jobs/groups/workers/purge", r#"{"all":true}"#).await.json();
    assert_eq!(purged["messages"], 1);
    assert_eq!(relay.get(dead).await.json()["total"], 0);
    assert_eq!(group(&relay, "jobs").await["dead"], 0);
    relay.stop().await;
}

async fn dead_letters_are_redriven_at_a_rate(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    put(&relay, "jobs", json!({})).await;
    for number in 0..10 {
        relay.publish("jobs", &number.to_string()).await;
    }
    let held = claim(&relay, "jobs", json!({"consumer": "ann", "max": 10})).await;
    let receipts: Vec<&Value> = held.iter().map(|held| &held["receipt"]).collect();
    settle(&relay, "reject", json!({"receipts": receipts, "reason": "r"})).await;
    until(async || group(&relay, "jobs").await["dead"] == 10).await;
    until(async || relay.get("/api/v1/topics/jobs.workers.dead/messages").await.json()["total"] == 10).await;
    let since = Instant::now();
    let redrive = "/api/v1/topics/jobs/groups/workers/redrive";
    assert_eq!(relay.post(redrive, r#"{"all":true,"rate":10}"#).await.json()["messages"], 10);
    let mut back = 0;
    while back < 10 {
        let held = claim(&relay, "jobs", json!({"consumer": "ann", "max": 10, "wait": 5})).await;
        back += held.len();
        // Each has its part of a second.
        let due = since.elapsed().as_millis() / 100 + 2;
        assert!(u128::try_from(back).expect("a few") <= due, "{back} after {:?}", since.elapsed());
    }
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
    relay.stop().await;
}

async fn what_is_gone_from_the_topic_is_redriven_as_a_copy(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    put(&relay, "jobs", json!({})).await;
    let id = relay.publish("jobs", r#"{"n":7}"#).await;
    let held = claim(&relay, "jobs", json!({"consumer": "ann"})).await;
    settle(&relay, "reject", json!({"receipts": [held[0]["receipt"]], "reason": "r"})).await;
    until(async || group(&relay, "jobs").await["dead"] == 1).await;
    until(async || relay.get("/api/v1/topics/jobs.workers.dead/messages").await.json()["total"] == 1).await;
    let gone = relay.send("DELETE", &format!("/api/v1/topics/jobs/messages/{id}"), &[], b"").await;
    assert_eq!(gone.status, 204);
    let done = relay.post("/api/v1/topics/jobs/groups/workers/redrive", r#"{"all":true}"#).await.json();
    assert_eq!(done, json!({"messages": 1, "copies": 1, "gone": 0, "unknown": 0}));
    let held = claim(&relay, "jobs", json!({"consumer": "ann", "wait": 5})).await;
    assert_eq!((&held[0]["payload"], &held[0]["metadata"]), (&json!({"n": 7}), &Value::Null));
    assert_ne!(held[0]["message_id"].as_str(), Some(&*id));
    relay.stop().await;
}

async fn what_was_told_to_be_dead_can_be_redriven_at_once(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    put(&relay, "jobs", json!({})).await;
    for round in 0..20 {
        let held = reject(&relay, 1).await;
        let asked = match round % 3 {
            0 => (REDRIVE, json!({"all": true})),
            1 => (REDRIVE, json!({"ids": [held[0]["message_id"]]})),
            _ => (PURGE, json!({"all": true})),
        };
        let done = relay.post(asked.0, &asked.1.to_string()).await.json();
        assert_eq!(done, json!({"messages": 1, "copies": 0, "gone": 0, "unknown": 0}), "{asked:?}");
        if asked.0 == REDRIVE {
            let again = claim(&relay, "jobs", json!({"consumer": "ann"})).await;
            assert_eq!(again[0]["message_id"], held[0]["message_id"]);
            settle(&relay, "ack", json!({"receipts": [again[0]["receipt"]]})).await;
        }
        assert_eq!(group(&relay, "jobs").await["dead"], 0);
        assert_eq!(
            relay.get("/api/v1/topics/jobs.workers.dead/messages").await.json()["messages"],
            json!([])
        );
    }
    relay.stop().await;
}

/// The topic of dead letters takes none.
async fn what_dies_and_has_no_letter_can_be_redriven_and_purged(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    put(&relay, "jobs", json!({})).await;
    relay.publish("jobs.workers.dead", "0").await;
    assert_eq!(relay.post("/api/v1/topics/jobs.workers.dead/close", "{}").await.status, 200);
    let held = reject(&relay, 3).await;
    assert_eq!(group(&relay, "jobs").await["dead"], 3);
    let would = relay.post(REDRIVE, r#"{"all":true,"dry_run":true}"#).await.json();
    assert_eq!(would, json!({"messages": 3, "copies": 0, "gone": 0, "unknown": 0}));
    let done = relay.post(PURGE, &json!({"ids": [held[0]["message_id"], "1-1"]}).to_string()).await.json();
    assert_eq!(done, json!({"messages": 1, "copies": 0, "gone": 0, "unknown": 1}));
    let done = relay.post(REDRIVE, r#"{"all":true}"#).await.json();
    assert_eq!(done, json!({"messages": 2, "copies": 0, "gone": 0, "unknown": 0}));
    let again = claim(&relay, "jobs", json!({"consumer": "ann", "max": 9})).await;
    assert_eq!(again.len(), 2);
    let receipts: Vec<&Value> = again.iter().map(|held| &held["receipt"]).collect();
    settle(&relay, "ack", json!({"receipts": receipts})).await;
    let group = group(&relay, "jobs").await;
    let numbers = (&group["dead"], &group["in_flight"], &group["done"], &group["exact"]);
    assert_eq!(numbers, (&json!(0), &json!(0), &json!(2), &json!(true)));
    relay.stop().await;
}

async fn of_several_who_redrive_at_once_each_copy_is_told_by_one(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    put(&relay, "jobs", json!({})).await;
    reject(&relay, 20).await;
    until(async || {
        relay.get("/api/v1/topics/jobs.workers.dead/messages?limit=100").await.json()["total"] == 20
    })
    .await;
    assert_eq!(relay.post("/api/v1/topics/jobs/trim", r#"{"keep":0}"#).await.status, 200);
    let redrive = async || relay.post(REDRIVE, r#"{"all":true}"#).await.json();
    let told = futures_util::future::join_all((0..6).map(|_| redrive())).await;
    let sum = |field: &str| told.iter().map(|told| told[field].as_u64().expect("a number")).sum::<u64>();
    assert_eq!((sum("messages"), sum("copies")), (20, 20), "{told:?}");
    assert_eq!(group(&relay, "jobs").await["waiting"], 20);
    relay.stop().await;
}
