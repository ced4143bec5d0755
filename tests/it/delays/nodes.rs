//! Several nodes in front of one server: each message comes once, whichever of them die, and soon.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use tidemill::proto::Timestamp;
use tokio::time::Instant;

use crate::support::eventually;
use crate::support::ground::SOON;
use crate::support::length;
use crate::support::process::Relay;
use crate::support::relay::{Answer, try_send};
use crate::support::server::{Kind, Server};

/// How late a message may be that was due when its node was killed.
const KILLED_MAX: Duration = Duration::from_secs(2);

async fn relay(server: &Server) -> Relay {
    let url = format!("redis://127.0.0.1:{}", server.port());
    Relay::ready_at("127.0.0.1:0", &[("VALKEY_URL", &url), ("STORAGE_BACKEND", "valkey")], &[]).await
}

async fn send(relay: &Relay, method: &str, path: &str, body: &str) -> Answer {
    let headers = [("content-type", "application/json")];
    try_send(relay.address(), method, path, &headers, body.as_bytes()).await.expect("an answer")
}

/// Returns all messages of a topic: their payloads and when they were delivered.
async fn messages(relay: &Relay, topic: &str) -> Vec<(Value, Timestamp)> {
    let mut messages = Vec::new();
    let mut after = "earliest".to_owned();
    loop {
        let path = format!("/api/v1/topics/{topic}/messages?order=asc&limit=1000&after={after}");
        let page = send(relay, "GET", &path, "").await.json();
        let found = page["messages"].as_array().expect("messages").clone();
        let Some(last) = found.last() else { return messages };
        last["message_id"].as_str().expect("an id").clone_into(&mut after);
        messages.extend(found.iter().map(|one| {
            let at = one["timestamp"].as_str().expect("a time");
            (one["payload"].clone(), Timestamp::parse(at).expect("a time"))
        }));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_message_comes_once_and_soon_whichever_nodes_are_killed() {
    const EACH: u64 = 150;

    let Some(server) = Server::start(Kind::Valkey, &[]).await else { return };
    let stays = relay(&server).await;
    let mut due = BTreeMap::new();
    for round in 0..length::pick(2, 20) {
        let dies = relay(&server).await;
        // Those that the dying node alone knows of, spread over the time in which it dies.
        for number in 0..EACH {
            let body = format!(
                r#"{{"topic":"t","payload":"{round}-{number}","delay":{}}}"#,
                0.3 + f64::from(u32::try_from(number).expect("small")) * 0.006
            );
            let scheduled = send(&dies, "POST", "/api/v1/messages", &body).await;
            assert_eq!(scheduled.status, 202, "{scheduled:?}");
            let at = scheduled.json()["deliver_at"].as_str().and_then(|at| Timestamp::parse(at).ok());
            due.insert(format!("{round}-{number}"), at.expect("a time"));
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
        drop(dies);
        let enough = due.len();
        eventually(SOON, async || messages(&stays, "t").await.len() >= enough).await;
    }
    let found = messages(&stays, "t").await;
    assert_eq!(found.len(), due.len(), "each comes once");
    let mut latest = 0;
    for (payload, at) in found {
        let due = due.remove(payload.as_str().expect("a text")).expect("it comes once");
        assert!(at >= due, "{payload} came at {at}, before {due}");
        latest = latest.max(at.as_millis() - due.as_millis());
    }
    assert!(due.is_empty(), "{due:?}");
    length::tell(format_args!("the latest came {latest} ms late"));
    assert!(Duration::from_millis(latest) <= KILLED_MAX, "{latest} ms");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_node_schedules_a_reader_of_another_gets_in_time() {
    let Some(server) = Server::start(Kind::Valkey, &[]).await else { return };
    let (one, other) = (relay(&server).await, relay(&server).await);
    assert_eq!(send(&one, "POST", "/api/v1/messages", r#"{"topic":"t","payload":0}"#).await.status, 201);
    let body = r#"{"topic":"t","payload":1,"delay":0.8}"#;
    assert_eq!(send(&one, "POST", "/api/v1/messages", body).await.status, 202);
    let began = Instant::now();
    let page = send(&other, "GET", "/api/v1/topics/t/messages?after=latest&wait=20", "").await.json();
    assert_eq!(page["messages"][0]["payload"], 1, "{page}");
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_outlives_every_node_and_a_restart_of_the_server() {
    let Some(mut server) =
        Server::start(Kind::Valkey, &["--appendonly", "yes", "--appendfsync", "always"]).await
    else {
        return;
    };
    let first = relay(&server).await;
    for number in 0..50 {
        let body = format!(r#"{{"topic":"t","payload":{number},"delay":1}}"#);
        assert_eq!(send(&first, "POST", "/api/v1/messages", &body).await.status, 202);
    }
    drop(first);
    server.kill9();
    server.restart().await;
    let later = relay(&server).await;
    eventually(SOON, async || messages(&later, "t").await.len() >= 50).await;
    let found: Vec<_> = messages(&later, "t").await.into_iter().map(|(payload, _)| payload).collect();
    assert_eq!(found, (0..50).map(Value::from).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recurring_message_comes_once_for_each_time_over_three_nodes_of_which_one_is_killed() {
    let Some(server) = Server::start(Kind::Valkey, &[]).await else { return };
    let (one, other, dies) = (relay(&server).await, relay(&server).await, relay(&server).await);
    let put = send(&dies, "PUT", "/api/v1/topics/t/recurring/tick", r#"{"cron":"* * * * * *","payload":1}"#);
    assert_eq!(put.await.status, 200);
    eventually(SOON, async || messages(&one, "t").await.len() >= 2).await;
    drop(dies);
    eventually(SOON, async || messages(&other, "t").await.len() >= 6).await;
    let seconds: Vec<u64> = messages(&one, "t").await.iter().map(|(_, at)| at.as_millis() / 1_000).collect();
    assert!(seconds.windows(2).all(|pair| pair[0] < pair[1]), "two for one time: {seconds:?}");
}
