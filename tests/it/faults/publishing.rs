//! R3: the answer to a publish is lost, or comes too late.

use tidemill::proto::Code;

use super::{DEADLINE, Node};
use crate::support::eventually;
use crate::support::ground::{SOON, length, topic};
use crate::support::proxy::Proxy;
use crate::support::relay::Answer;
use crate::support::server::{Kind, Server};

/// Checks that the publisher is told that nothing is known, and what it may do.
fn is_unknown(answer: &Answer, retryable: bool) {
    let problem = answer.problem();
    assert_eq!((answer.status, problem.code), (504, Code::OutcomeUnknown), "{problem:?}");
    assert_eq!(problem.retryable, retryable, "{problem:?}");
}

/// Repeats a publish until it is accepted, and checks that the first attempt is what it finds.
async fn is_found_by_its_key(node: &Node, name: &str, copies: u64) {
    eventually(SOON, async || node.publish(name, "\"once\"", Some("key")).await.status == 201).await;
    let repeat = node.publish(name, "\"once\"", Some("key")).await;
    assert_eq!(repeat.header("idempotency-replayed"), Some("true"));
    let id = repeat.json()["message_id"].as_str().expect("an id").to_owned();
    let newest = node.relay.get(&format!("/api/v1/topics/{name}/messages?order=desc&limit=1")).await.json();
    assert_eq!(newest["messages"][0]["message_id"], id.as_str());
    assert_eq!(length(&node.storage, &topic(name)).await, copies);
}

#[tokio::test]
async fn a_lost_answer_is_told_as_unknown_and_a_key_finds_the_message() {
    let Some(server) = Server::start(Kind::Valkey, &[]).await else { return };
    let proxy = Proxy::start(server.port()).await;
    let node = Node::start(proxy.port()).await;
    for (name, key) in [("lost.keyed", Some("key")), ("lost.plain", None)] {
        assert_eq!(node.publish(name, "0", Some("first")).await.status, 201);
        proxy.swallow_replies_after(0);
        let publish = node.publish(name, "\"once\"", key);
        let cut = async {
            let stream = format!("stream:topic:{name}");
            eventually(SOON, async || server.command(&["XLEN", &stream]).await.integer() == 2).await;
            proxy.cut();
        };
        let (answer, ()) = tokio::join!(publish, cut);
        is_unknown(&answer, key.is_some());
        proxy.heal();
        node.is_ready_within(SOON).await;
        if key.is_some() {
            is_found_by_its_key(&node, name, 2).await;
        }
        assert_eq!(length(&node.storage, &topic(name)).await, 2, "{name}");
    }
    node.stop().await;
}

#[tokio::test]
async fn a_late_answer_is_told_as_unknown_and_a_key_finds_the_message() {
    let Some(server) = Server::start(Kind::Valkey, &[]).await else { return };
    let node = Node::start(server.port()).await;
    for (name, key) in [("late.keyed", Some("key")), ("late.plain", None)] {
        assert_eq!(node.publish(name, "0", Some("first")).await.status, 201);
        server.sigstop();
        let began = tokio::time::Instant::now();
        let answer = node.publish(name, "\"once\"", key).await;
        assert!(began.elapsed() < DEADLINE, "{:?}", began.elapsed());
        is_unknown(&answer, key.is_some());
        server.sigcont();
        let stream = format!("stream:topic:{name}");
        eventually(SOON, async || server.command(&["XLEN", &stream]).await.integer() == 2).await;
        if key.is_some() {
            is_found_by_its_key(&node, name, 2).await;
        }
        // What follows is not mistaken for the answer that came late.
        let next = node.publish(name, "\"next\"", None).await;
        let id = next.json()["message_id"].as_str().expect("an id").to_owned();
        let read = node.relay.get(&format!("/api/v1/topics/{name}/messages/{id}")).await;
        assert_eq!(read.json()["payload"], "next");
        assert_eq!(length(&node.storage, &topic(name)).await, 3, "{name}");
    }
    node.stop().await;
}
