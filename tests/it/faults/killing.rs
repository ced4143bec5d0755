//! R4 and R9: the server dies, or becomes a replica, while everybody publishes.

use std::time::Duration;

use tokio::time::Instant;

use super::{DEADLINE, Node};
use crate::support::ground::SOON;
use crate::support::length;
use crate::support::load::{Load, Told, assert_kept};
use crate::support::server::{Kind, Server};
use crate::support::{eventually, resp};

/// In what time publishes must be refused once the server is gone, and work once it is back.
const REFUSED_WITHIN: Duration = Duration::from_secs(2);
const BACK_WITHIN: Duration = Duration::from_secs(5);

/// Waits until publishes are refused, and returns how long that took.
async fn until_refused(load: &Load) -> Duration {
    let (began, before) = (Instant::now(), load.refused());
    eventually(REFUSED_WITHIN, async || load.refused() > before).await;
    began.elapsed()
}

/// Waits until publishes are accepted again, and returns how long that took.
async fn until_accepted(load: &Load) -> Duration {
    let (began, before) = (Instant::now(), load.accepted());
    eventually(BACK_WITHIN, async || load.accepted() > before).await;
    began.elapsed()
}

/// Refusals say when to come again.
fn refusals_say_when_to_come_again(told: &[Told]) {
    for answer in told.iter().filter_map(|told| told.answer.as_ref()).filter(|answer| answer.status == 503) {
        assert_eq!(answer.header("retry-after"), Some("1"), "{answer:?}");
        assert!(answer.problem().retryable);
    }
}

async fn a_killed_server_gives_back_every_acknowledged_message(kind: Kind) {
    let arguments = ["--appendonly", "yes", "--appendfsync", "always"];
    let Some(mut server) = Server::start(kind, &arguments).await else { return };
    let node = Node::start(server.port()).await;
    let load = Load::start(node.relay.address, "killed", 12);
    for round in 1..=length::pick(2, 50) {
        let enough = load.accepted() + 300;
        eventually(SOON, async || load.accepted() >= enough).await;
        server.kill9();
        let refused = until_refused(&load).await;
        server.restart().await;
        let back = until_accepted(&load).await;
        length::tell(format_args!("{kind:?}, kill {round}: refused after {refused:?}, back after {back:?}"));
    }
    let told = load.stop().await;
    refusals_say_when_to_come_again(&told);
    node.is_ready_within(BACK_WITHIN).await;
    assert_kept(&node.storage, &told, DEADLINE).await;
    node.stop().await;
}

/// Whatever is asked first when the server has died, and however long its commands may take.
async fn who_asks_a_dead_server_is_told_soon(kind: Kind) {
    let Some(mut server) = Server::start(kind, &[]).await else { return };
    let node = Node::start_with(server.port(), |options, _| options.timeout = Duration::from_secs(5)).await;
    node.is_ready_within(SOON).await;
    assert_eq!(node.publish("t", "1", None).await.status, 201);
    let id = node.publish("t", "2", None).await.json()["message_id"].as_str().expect("an id").to_owned();
    let one = format!("/api/v1/topics/t/messages/{id}");
    let reads = [
        "/api/v1/topics/t/messages",
        "/api/v1/topics/t/messages?after=earliest",
        "/api/v1/topics/t/messages?after=earliest&wait=5",
        "/api/v1/topics/t",
        "/api/v1/topics",
        "/api/v1/topics/stats",
        &one,
    ];
    let changes = [
        ("POST", "/api/v1/topics", r#"{"topic_name":"new"}"#),
        ("POST", "/api/v1/topics/t/trim", r#"{"keep":1}"#),
        ("DELETE", "/api/v1/topics/t", ""),
    ];
    for _ in 0..length::pick(2, 20) {
        server.kill9();
        let began = Instant::now();
        let ask = async |method: &str, path: &str, body: &str| {
            let json = [("content-type", "application/json")];
            let answer = node.relay.send(method, path, &json, body.as_bytes()).await;
            assert!(began.elapsed() < REFUSED_WITHIN, "{method} {path}: {:?}", began.elapsed());
            answer
        };
        let reads = futures_util::future::join_all(reads.map(|path| ask("GET", path, "")));
        let changes =
            futures_util::future::join_all(changes.map(|(method, path, body)| ask(method, path, body)));
        let (read, others) = tokio::join!(reads, changes);
        for answer in read {
            assert_eq!((answer.status, answer.problem().retryable), (503, true), "{answer:?}");
        }
        for answer in others {
            assert!(matches!(answer.status, 503 | 504), "{answer:?}");
        }
        server.restart().await;
        node.is_ready_within(BACK_WITHIN).await;
        // Nothing of it was kept on disk.
        assert_eq!(node.publish("t", "1", None).await.status, 201);
    }
    node.stop().await;
}

#[tokio::test]
async fn who_asks_a_dead_valkey_is_told_soon() {
    who_asks_a_dead_server_is_told_soon(Kind::Valkey).await;
}

#[tokio::test]
async fn who_asks_a_dead_redis_is_told_soon() {
    who_asks_a_dead_server_is_told_soon(Kind::Redis).await;
}

#[tokio::test]
async fn a_killed_valkey_gives_back_every_acknowledged_message() {
    a_killed_server_gives_back_every_acknowledged_message(Kind::Valkey).await;
}

#[tokio::test]
async fn a_killed_redis_gives_back_every_acknowledged_message() {
    a_killed_server_gives_back_every_acknowledged_message(Kind::Redis).await;
}

#[tokio::test]
async fn a_replica_acknowledges_nothing_and_is_left_when_it_is_primary_again() {
    let Some(server) = Server::start(Kind::Valkey, &[]).await else { return };
    let node = Node::start(server.port()).await;
    let load = Load::start(node.relay.address, "replica", 8);
    let mut server_line = resp::Connection::open(server.port()).await.unwrap();
    let mut spans = Vec::new();
    for round in 1..=length::pick(2, 50) {
        let enough = load.accepted() + 100;
        eventually(SOON, async || load.accepted() >= enough).await;
        // A primary that is not there, so that the server keeps what it has.
        server_line.command(&["REPLICAOF", "127.0.0.1", "1"]).await.unwrap();
        let from = Instant::now();
        let refused = until_refused(&load).await;
        eventually(SOON, async || node.relay.get("/ready").await.status == 503).await;
        spans.push((from, Instant::now()));
        server_line.command(&["REPLICAOF", "NO", "ONE"]).await.unwrap();
        let back = until_accepted(&load).await;
        length::tell(format_args!("replica {round}: refused after {refused:?}, back after {back:?}"));
    }
    let told = load.stop().await;
    refusals_say_when_to_come_again(&told);
    for told in told.iter().filter(|told| told.id().is_some()) {
        let by_a_replica =
            |(from, to): &(Instant, Instant)| told.began > *from && told.began + told.took < *to;
        assert!(!spans.iter().any(by_a_replica), "acknowledged by a replica: {told:?}");
    }
    node.is_ready_within(BACK_WITHIN).await;
    assert_kept(&node.storage, &told, DEADLINE).await;
    node.stop().await;
}
