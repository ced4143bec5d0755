//! R14 and R36: far more than the server takes, and a server that is slow.

use std::time::Duration;

use tidemill::proto::Code;
use tidemill::proto::topics::TopicUpdate;
use tokio::task::JoinSet;

use super::Node;
use crate::support::eventually;
use crate::support::ground::{SOON, topic};
use crate::support::load::{Load, assert_kept};
use crate::support::process::Relay;
use crate::support::proxy::Proxy;
use crate::support::relay::{Answer, try_send};
use crate::support::server::{Kind, Server};

/// Publishers at one time.
const PUBLISHERS: usize = 400;

const MIB: u64 = 1024 * 1024;

#[tokio::test]
async fn far_too_many_publishes_meet_a_bounded_queue_and_are_refused_as_overload() {
    let Some(server) = Server::start(Kind::Valkey, &[]).await else { return };
    let url = format!("redis://127.0.0.1:{}", server.port());
    let relay = Relay::start(
        &[("STORAGE_BACKEND", "valkey"), ("VALKEY_URL", &url)],
        // Time enough for all to come before the server counts as away, which is another refusal.
        &["--valkey-timeout-ms=5000", "--publish-queue-messages-max=100", "--publish-queue-bytes-max=4MiB"],
    );
    let address = relay.address();
    let path = "/api/v1/topics/flood/messages";
    let ready =
        async || try_send(address, "POST", path, &[], b"first").await.is_some_and(|a| a.status == 201);
    eventually(SOON, ready).await;
    let before = relay.resident_bytes();
    server.sigstop();
    let mut publishers = JoinSet::new();
    for _ in 0..PUBLISHERS {
        publishers.spawn(async move {
            let body = vec![b'x'; 64 * 1024];
            let mut answers: Vec<Answer> = Vec::new();
            while answers.len() < 3 && answers.last().is_none_or(|last| last.status != 504) {
                answers.push(
                    try_send(address, "POST", path, &[], &body).await.expect("every publish is answered"),
                );
            }
            answers
        });
    }
    let answers: Vec<Answer> = publishers.join_all().await.into_iter().flatten().collect();
    let after = relay.resident_bytes();
    server.sigcont();
    let overloaded = answers.iter().filter(|answer| answer.status == 503).filter(|answer| {
        assert_eq!(answer.header("retry-after"), Some("1"), "{answer:?}");
        answer.problem().code == Code::Overloaded
    });
    assert!(overloaded.count() > PUBLISHERS, "most are refused at once");
    for answer in &answers {
        assert!(matches!(answer.status, 503 | 504), "{answer:?}");
    }
    let grown = after.saturating_sub(before) / MIB;
    eprintln!("{} publishes of 64 KiB into a stopped server: {grown} MiB more memory", answers.len());
    assert!(grown < 96, "{grown} MiB for a queue of 4 MiB and {PUBLISHERS} connections");

    // The whole queue is free again.
    eventually(SOON, ready).await;
    let bulk: Vec<String> = (0..100).map(|n| format!(r#"{{"topic":"flood","payload":{n}}}"#)).collect();
    let bulk = format!(r#"{{"messages":[{}]}}"#, bulk.join(","));
    let json = [("content-type", "application/json")];
    let answer = try_send(address, "POST", "/api/v1/messages/bulk", &json, bulk.as_bytes()).await.unwrap();
    assert!(answer.text().matches("message_id").count() >= 100, "{answer:?}");
    let (code, _) = tokio::task::spawn_blocking(move || relay.stop()).await.unwrap();
    assert_eq!(code, Some(0));
}

#[tokio::test]
async fn a_slow_server_is_answered_with_refusals_before_timeouts() {
    let Some(server) = Server::start(Kind::Valkey, &[]).await else { return };
    let proxy = Proxy::start(server.port()).await;
    let timeout = Duration::from_secs(4);
    let node = Node::start_with(proxy.port(), |options, _| {
        options.timeout = timeout;
        options.queue_messages_max = 50;
    })
    .await;
    node.is_ready_within(SOON).await;
    for number in 0..3 {
        let name = topic(&format!("slow-{number}"));
        node.storage.topics.create(&name, TopicUpdate::default(), None).await.unwrap();
    }
    proxy.delay(Duration::from_millis(250), Duration::from_millis(250));
    let load = Load::start(node.relay.address, "slow", 150);
    eventually(SOON, async || load.accepted() >= 150 && load.refused() >= 150).await;
    let told = load.stop().await;
    let slowest = told.iter().map(|told| told.took).max().unwrap();
    let accepted = told.iter().filter(|told| told.id().is_some()).count();
    eprintln!("500 ms of latency: {accepted} of {} accepted, the slowest in {slowest:?}", told.len());
    for told in &told {
        let answer = told.answer.as_ref().expect("every publish is answered");
        if answer.status != 201 {
            assert_eq!((answer.status, answer.problem().code), (503, Code::Overloaded), "{answer:?}");
            assert!(told.took < timeout / 2, "a refusal does not wait: {told:?}");
        }
    }
    proxy.heal();
    assert_kept(&node.storage, &told, timeout).await;
    node.stop().await;
}
