//! R3: the answer to a publish is lost, or comes too late.

use std::collections::HashMap;

use futures_util::future::join_all;
use tidemill::proto::Code;
use tidemill::proto::page::Order;
use tidemill::storage::StorageError;

use super::{DEADLINE, Node};
use crate::support::eventually;
use crate::support::ground::{SOON, append, json, length, message, read_all, topic};
use crate::support::proxy::{Flow, Proxy};
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

#[tokio::test]
async fn a_server_that_dies_with_a_pipeline_half_answered_leaves_no_answer_that_is_not_true() {
    let Some(mut server) =
        Server::start(Kind::Valkey, &["--appendonly", "yes", "--appendfsync", "always"]).await
    else {
        return;
    };
    let proxy = Proxy::start(server.port()).await;
    let node = Node::start(proxy.port()).await;
    assert_eq!(node.publish("half", "0", None).await.status, 201);
    let messages: Vec<String> =
        (0..200).map(|number| format!(r#"{{"topic":"half","payload":{number}}}"#)).collect();
    proxy.swallow_replies_after(1_000);
    let publish =
        node.relay.post("/api/v1/messages/bulk", format!(r#"{{"messages":[{}]}}"#, messages.join(",")));
    let kill = async {
        eventually(SOON, async || server.command(&["XLEN", "stream:topic:half"]).await.integer() == 201)
            .await;
        server.kill9();
    };
    let (answer, ()) = tokio::join!(publish, kill);
    assert_eq!(answer.text().matches("outcome_unknown").count(), 200, "{answer:?}");
    let next = node.publish("half", "1", None).await;
    assert_eq!((next.status, next.problem().code), (503, Code::StorageUnavailable), "nothing is sent now");
    proxy.heal();
    server.restart().await;
    node.is_ready_within(SOON).await;
    assert_eq!(length(&node.storage, &topic("half")).await, 201);
    node.stop().await;
}

#[tokio::test]
async fn what_a_stalled_link_did_not_take_is_told_as_not_sent_and_is_not_there() {
    const MESSAGES: usize = 160;
    let Some(server) = Server::start(Kind::Valkey, &[]).await else { return };
    let proxy = Proxy::start(server.port()).await;
    let node = Node::start(proxy.port()).await;
    let stalled = topic("stalled");
    append(&node.storage, message(&stalled, json("0"))).await.expect("nothing is wrong yet");
    proxy.flow(Flow::Stall);
    // Far more than the buffers of the system hold, in pipelines of some megabytes.
    let filler = "x".repeat(256 * 1024);
    let began = tokio::time::Instant::now();
    let publish = |number: usize| {
        let message = message(&stalled, json(format!("\"{number} {filler}\"")));
        let storage = &node.storage;
        async move { (number, append(storage, message).await) }
    };
    let outcomes: HashMap<usize, _> = join_all((1..=MESSAGES).map(publish)).await.into_iter().collect();
    assert!(began.elapsed() < DEADLINE, "{:?}", began.elapsed());
    let mut unsent = 0;
    for outcome in outcomes.values() {
        match outcome {
            Err(StorageError::Unavailable(_)) => unsent += 1,
            Err(StorageError::Indeterminate(_)) => {}
            other => panic!("{other:?} over a link that takes nothing"),
        }
    }
    eprintln!("{unsent} of {MESSAGES} were not sent");
    assert!(unsent > 0 && unsent < MESSAGES, "the test has missed its fault");
    proxy.heal();
    node.is_ready_within(SOON).await;
    append(&node.storage, message(&stalled, json("0"))).await.expect("nothing is wrong any more");
    // What the link had taken before arrives at last.
    eventually(SOON, async || proxy.open() == 6).await;
    for kept in read_all(&node.storage, &stalled, Order::Asc, 100).await {
        let text = String::from_utf8_lossy(&kept.body.payload).into_owned();
        let number: usize = text.trim_matches('"').split(' ').next().unwrap().parse().unwrap();
        let told = outcomes.get(&number);
        assert!(!matches!(told, Some(Err(StorageError::Unavailable(_)))), "{number} was told as not sent");
    }
    node.stop().await;
}
