//! R28: the server is at its memory limit.

use std::cell::Cell;
use std::time::Duration;

use tidemill::proto::Code;
use tidemill::proto::page::Order;
use tidemill::proto::topics::TopicUpdate;
use tidemill::storage::Trim;

use super::Node;
use crate::support::eventually;
use crate::support::ground::{SOON, length, read_all, topic};
use crate::support::server::{Kind, Server};

/// A payload of JSON, large enough that few of them fill what is left.
fn large() -> String {
    format!("\"{}\"", "x".repeat(64 * 1024))
}

/// Leaves so many bytes to the server.
async fn leave(server: &Server, bytes: i64) {
    let info = server.command(&["INFO", "memory"]).await.text();
    let used = info.lines().find_map(|line| line.strip_prefix("used_memory:")).expect("it tells");
    let limit = used.trim().parse::<i64>().expect("a number") + bytes;
    server.command(&["CONFIG", "SET", "maxmemory", &limit.to_string()]).await;
}

/// Publishes until the server is full, and returns how many messages were accepted.
async fn fill(node: &Node, name: &str) -> u64 {
    let mut accepted = 0;
    loop {
        let answer = node.publish(name, &large(), None).await;
        if answer.status != 201 {
            let problem = answer.problem();
            assert_eq!((answer.status, problem.code), (507, Code::StorageFull), "{problem:?}");
            assert_eq!(answer.header("retry-after"), Some("10"));
            return accepted;
        }
        accepted += 1;
        assert!(accepted < 1_000, "the limit does not hold");
    }
}

#[tokio::test]
async fn a_full_server_refuses_publishes_serves_reads_and_takes_what_makes_room() {
    let Some(server) = Server::start(Kind::Valkey, &[]).await else { return };
    let node = Node::start(server.port()).await;
    assert_eq!(node.publish("full", "0", Some("key")).await.status, 201);
    leave(&server, 2 * 1024 * 1024).await;
    let accepted = fill(&node, "full").await;
    // What the server itself holds for connections comes and goes, and may make room for one.
    leave(&server, -256 * 1024).await;
    let name = topic("full");
    assert_eq!(length(&node.storage, &name).await, accepted + 1, "what was refused is not there");
    assert_eq!(node.publish("full", &large(), Some("other")).await.status, 507);
    assert_eq!(node.publish("full.new", "1", None).await.status, 507);
    assert_eq!(read_all(&node.storage, &name, Order::Asc, 10).await.len() as u64, accepted + 1);
    assert_eq!(node.relay.get("/ready").await.status, 200, "it can still be read");

    let trimmed = node.storage.messages.trim(&name, Trim::Keep(1)).await.unwrap();
    assert_eq!(trimmed, accepted);
    eventually(SOON, async || node.publish("full", &large(), Some("other")).await.status == 201).await;
    assert!(fill(&node, "full").await > 0);
    node.storage.topics.delete(&name).await.expect("deleting makes room, so it must work without");
    eventually(SOON, async || node.publish("full", &large(), None).await.status == 201).await;
    assert!(fill(&node, "full").await > 0);
    server.command(&["CONFIG", "SET", "maxmemory", "0"]).await;
    assert_eq!(node.publish("full", &large(), None).await.status, 201);
    node.stop().await;
}

/// Work goes on: who acknowledges makes room.
#[tokio::test]
async fn groups_are_worked_on_at_a_full_server() {
    let Some(server) = Server::start(Kind::Valkey, &[]).await else { return };
    let node = Node::start(server.port()).await;
    let json = [("content-type", "application/json")];
    let path = "/api/v1/topics/busy/groups/g";
    let made = node.relay.send("PUT", path, &json, br#"{"ack_wait":"10m"}"#).await;
    assert_eq!(made.status, 201, "{}", made.text());
    for number in 0..7 {
        assert_eq!(node.publish("busy", &number.to_string(), None).await.status, 201);
    }
    leave(&server, 2 * 1024 * 1024).await;
    assert!(fill(&node, "full").await > 0);
    let claim = async |max: u32| {
        let body = format!(r#"{{"consumer":"c","max":{max}}}"#);
        let answer = node.relay.post(&format!("{path}/claim"), body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let messages = answer.json()["messages"].as_array().expect("messages").clone();
        messages.iter().map(|message| message["receipt"].clone()).collect::<Vec<_>>()
    };
    let mut held = claim(1).await;
    held.extend(claim(6).await);
    assert_eq!(held.len(), 7);
    for (verb, status, more) in [
        ("ack", "acked", r#","result":[1]"#),
        ("nack", "nacked", r#","error":"e""#),
        ("extend", "extended", r#","ack_wait":"1h""#),
        ("release", "released", ""),
        ("reject", "rejected", r#","reason":"r""#),
    ] {
        let receipt = held.pop().expect("one");
        let body = format!(r#"{{"receipts":[{receipt}]{more}}}"#);
        let answer = node.relay.post(&format!("/api/v1/work/{verb}"), body).await;
        assert_eq!(answer.status, 200, "{verb}: {}", answer.text());
        assert_eq!(answer.json()["results"][0]["status"], status, "{verb}: {}", answer.text());
    }
    assert_eq!(claim(1).await.len(), 1, "what was given back");
    server.command(&["CONFIG", "SET", "maxmemory", "0"]).await;
    let letters = "/api/v1/topics/busy.g.dead/messages";
    eventually(SOON, async || {
        let answer = node.relay.get(letters).await;
        answer.status == 200 && answer.json()["messages"].as_array().is_some_and(|all| all.len() == 1)
    })
    .await;
    node.stop().await;
}

#[tokio::test]
async fn retention_makes_room_on_a_full_server() {
    let Some(server) = Server::start(Kind::Valkey, &[]).await else { return };
    let node =
        Node::start_with(server.port(), |options, _| options.sweep_interval = Duration::from_millis(10))
            .await;
    node.is_ready_within(SOON).await;
    let update = TopicUpdate { description: None, retention_seconds: Some(1), ..TopicUpdate::default() };
    node.storage.topics.create(&topic("aging"), update, None).await.unwrap();
    leave(&server, 2 * 1024 * 1024).await;
    assert!(fill(&node, "aging").await > 0);
    let removed = Cell::new(0);
    eventually(SOON, async || {
        let swept = node.storage.upkeep.sweep().await.expect("a full server can be swept");
        removed.set(removed.get() + swept.removed);
        removed.get() > 0 && node.publish("aging", &large(), None).await.status == 201
    })
    .await;
    node.stop().await;
}
