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
