//! A server that answers and refuses, and one that is asked for more than it should bring at once.

use std::time::Duration;

use tokio::time::Instant;

use crate::support::eventually;
use crate::support::ground::{SOON, length, topic};
use crate::support::proxy::Proxy;
use crate::support::server::{Kind, Server};

use super::Node;

async fn health(node: &Node) -> (String, String) {
    let health = node.relay.get("/health").await.json();
    (health["status"].as_str().unwrap().to_owned(), health["backend"]["warnings"].to_string())
}

#[tokio::test]
async fn a_server_that_refuses_writes_is_told_by_health_and_can_be_read() {
    let Some(server) = Server::start(Kind::Valkey, &[]).await else { return };
    let node = Node::start(server.port()).await;
    assert_eq!(node.publish("t", "1", None).await.status, 201);
    server.command(&["CONFIG", "SET", "min-replicas-to-write", "1"]).await;
    eventually(SOON, async || health(&node).await.1.contains("refuses writes: NOREPLICAS")).await;
    assert_eq!(health(&node).await.0, "degraded");
    assert_eq!(node.publish("t", "2", None).await.status, 503);
    assert_eq!(node.relay.get("/ready").await.status, 200, "no other node would fare better");
    assert_eq!(node.relay.get("/api/v1/topics/t/messages").await.status, 200);
    server.command(&["CONFIG", "SET", "min-replicas-to-write", "0"]).await;
    eventually(SOON, async || health(&node).await.0 == "healthy").await;
    assert_eq!(node.publish("t", "3", None).await.status, 201);
    node.stop().await;
}

#[tokio::test]
async fn a_key_that_cannot_be_remembered_keeps_no_message() {
    let Some(server) = Server::start(Kind::Valkey, &[]).await else { return };
    let node = Node::start(server.port()).await;
    assert_eq!(node.publish("t", "1", None).await.status, 201);
    server.command(&["ACL", "SETUSER", "default", "-set"]).await;
    for _ in 0..3 {
        assert_eq!(node.publish("t", "2", Some("key")).await.status, 503);
    }
    assert_eq!(length(&node.storage, &topic("t")).await, 1);
    server.command(&["ACL", "SETUSER", "default", "+set"]).await;
    let first = node.publish("t", "2", Some("key")).await;
    let again = node.publish("t", "2", Some("key")).await;
    assert_eq!((first.status, again.status), (201, 201));
    assert_eq!(first.json()["message_id"], again.json()["message_id"]);
    assert_eq!(length(&node.storage, &topic("t")).await, 2);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_large_messages_do_not_take_reading_down() {
    let Some(server) =
        Server::start(Kind::Valkey, &["--maxmemory", "1gb", "--maxmemory-clients", "25%"]).await
    else {
        return;
    };
    let node = Node::start_with(server.port(), |options, _| options.timeout = Duration::from_secs(20)).await;
    node.is_ready_within(SOON).await;
    let large = format!("\"{}\"", "x".repeat(1_000_000));
    for _ in 0..40 {
        assert_eq!(node.publish("large", &large, None).await.status, 201);
    }
    let pages = (0..30).map(|_| node.relay.get("/api/v1/topics/large/messages?limit=100"));
    for page in futures_util::future::join_all(pages).await {
        assert!(matches!(page.status, 200 | 503), "{}", page.status);
        if page.status == 200 {
            assert_eq!(page.json()["total"], 8);
        }
    }
    let info = server.command(&["INFO", "stats"]).await.text();
    assert!(info.contains("evicted_clients:0"), "the server has cut nobody");
    assert_eq!(node.publish("large", "1", None).await.status, 201);
    node.stop().await;
}

#[tokio::test]
async fn a_bulk_over_many_new_topics_takes_few_turns() {
    let Some(server) = Server::start(Kind::Valkey, &[]).await else { return };
    let proxy = Proxy::start(server.port()).await;
    let node = Node::start_with(proxy.port(), |options, _| options.timeout = SOON).await;
    node.is_ready_within(SOON).await;
    proxy.delay(Duration::from_millis(10), Duration::from_millis(10));
    let messages: Vec<String> =
        (0..500).map(|number| format!("{{\"topic\":\"t{number}\",\"payload\":{number}}}")).collect();
    let body = format!("{{\"messages\":[{}]}}", messages.join(","));
    let begin = Instant::now();
    let answer = node.relay.post("/api/v1/messages/bulk", body).await;
    assert_eq!(answer.json()["summary"]["accepted"], 500);
    // One turn of the link for each topic would be ten seconds.
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
    node.stop().await;
}
