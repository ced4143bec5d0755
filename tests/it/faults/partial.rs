//! R37: some commands of a pipeline fail.

use serde_json::{Value, json};
use tidemill::proto::page::Order;

use super::Node;
use crate::support::ground::{length, read_all, texts, topic};
use crate::support::server::{Kind, Server};

/// Publishes messages in one request and returns the result of each.
async fn bulk(node: &Node, messages: &[Value]) -> Vec<Value> {
    let body = json!({ "messages": messages }).to_string();
    let answer = node.relay.post("/api/v1/messages/bulk", body).await.json();
    answer["results"].as_array().unwrap_or_else(|| panic!("no results in {answer}")).clone()
}

fn is_accepted(result: &Value) -> bool {
    result["message_id"].is_string()
}

#[tokio::test]
async fn a_key_of_another_type_fails_its_own_messages_only() {
    let Some(server) = Server::start(Kind::Valkey, &[]).await else { return };
    let node = Node::start(server.port()).await;
    server.command(&["SET", "stream:topic:partial-taken", "not a stream"]).await;
    // Whether topics share a lane is up to chance, so several names stand on each side.
    let mut messages = Vec::new();
    for number in 0..40 {
        let name = match number % 4 {
            0 => "partial-a",
            1 => "partial-taken",
            2 => "partial-b",
            _ => "partial-c",
        };
        let mut message = json!({ "topic": name, "payload": number });
        if number % 3 == 0 {
            message["key"] = format!("key-{number}").into();
        }
        messages.push(message);
    }
    let results = bulk(&node, &messages).await;
    assert_eq!(results.len(), messages.len());
    for (number, result) in results.iter().enumerate() {
        assert_eq!(is_accepted(result), number % 4 != 1, "{number}: {result}");
        if number % 4 == 1 {
            assert!(result.to_string().contains("topic_conflict"), "{result}");
        }
    }
    for (name, place) in [("partial-a", 0), ("partial-b", 2), ("partial-c", 3)] {
        let expected: Vec<String> = (0..10).map(|turn| (turn * 4 + place).to_string()).collect();
        assert_eq!(texts(&read_all(&node.storage, &topic(name), Order::Asc, 100).await), expected);
    }
    assert_eq!(server.command(&["GET", "stream:topic:partial-taken"]).await.text(), "not a stream");
    node.stop().await;
}

#[tokio::test]
async fn a_server_that_fills_up_in_the_middle_of_a_bulk_keeps_what_it_says_it_keeps() {
    let Some(server) = Server::start(Kind::Valkey, &[]).await else { return };
    let node = Node::start(server.port()).await;
    assert_eq!(node.publish("filling", "\"first\"", None).await.status, 201);
    let filler = "x".repeat(64 * 1024);
    let messages: Vec<Value> = (0..60)
        .map(|number| {
            let mut message = json!({ "topic": "filling", "payload": format!("{number} {filler}") });
            if number % 2 == 0 {
                message["key"] = format!("key-{number}").into();
            }
            message
        })
        .collect();
    // Room for a part of them, beside the request itself while it is read.
    let info = server.command(&["INFO", "memory"]).await.text();
    let used = info.lines().find_map(|line| line.strip_prefix("used_memory:")).expect("it tells");
    let limit = used.trim().parse::<u64>().unwrap() + 4 * 1024 * 1024;
    server.command(&["CONFIG", "SET", "maxmemory", &limit.to_string()]).await;
    let results = [bulk(&node, &messages).await, bulk(&node, &messages[1..]).await].concat();
    let accepted: Vec<&str> = results.iter().filter_map(|result| result["message_id"].as_str()).collect();
    eprintln!("{} of {} accepted", accepted.len(), results.len());
    assert!(!accepted.is_empty() && accepted.len() < results.len(), "the test has missed its fault");
    for result in results.iter().filter(|result| !is_accepted(result)) {
        assert!(result.to_string().contains("storage_full"), "{result}");
    }
    server.command(&["CONFIG", "SET", "maxmemory", "0"]).await;
    let kept = read_all(&node.storage, &topic("filling"), Order::Asc, 100).await;
    let kept: Vec<String> = kept.iter().skip(1).map(|message| message.id.to_string()).collect();
    let mut expected = accepted;
    expected.sort_by_key(|id| kept.iter().position(|kept| kept == id));
    expected.dedup();
    assert_eq!(kept, expected);
    // A repeat of what was refused is kept now, and of what was accepted is found.
    let again = bulk(&node, &messages).await;
    assert!(again.iter().all(is_accepted));
    let keyed = messages.iter().filter(|message| message["key"].is_string()).count() as u64;
    assert!(length(&node.storage, &topic("filling")).await >= keyed);
    node.stop().await;
}
