//! R12: the link swallows everything without a word.

use std::time::Duration;

use tidemill::proto::page::Order;
use tokio::time::Instant;

use super::{DEADLINE, Node};
use crate::support::eventually;
use crate::support::ground::{SOON, length, topic, try_page};
use crate::support::load::{Load, assert_kept};
use crate::support::proxy::{Flow, Proxy};
use crate::support::server::{Kind, Server};

/// In what time a connection that has silently died is replaced.
const REBUILT_WITHIN: Duration = Duration::from_secs(10);

#[tokio::test]
async fn connections_that_died_while_idle_are_replaced_without_a_request() {
    let Some(server) = Server::start(Kind::Valkey, &[]).await else { return };
    let proxy = Proxy::start(server.port()).await;
    let node = Node::start(proxy.port()).await;
    assert_eq!(node.publish("idle", "0", None).await.status, 201);
    let old = proxy.accepted();
    proxy.abandon();
    let began = Instant::now();
    // Publishing, reading, pages and the doorbell connect; changes try the port, rehearse and connect.
    eventually(REBUILT_WITHIN, async || proxy.accepted() >= old + 4 + 3).await;
    node.is_ready_within(REBUILT_WITHIN).await;
    eprintln!("idle connections replaced after {:?}", began.elapsed());
    // The dead ones end when the system gives them up; there is at most one of each.
    eventually(SOON, async || proxy.open() <= 10).await;
    assert_eq!(node.publish("idle", "1", None).await.status, 201);
    assert_eq!(length(&node.storage, &topic("idle")).await, 2);
    node.stop().await;
}

#[tokio::test]
async fn publishes_into_a_black_hole_end_in_time_and_work_again_after_it() {
    let Some(server) = Server::start(Kind::Valkey, &[]).await else { return };
    let proxy = Proxy::start(server.port()).await;
    let node = Node::start(proxy.port()).await;
    let load = Load::start(node.relay.address, "hole", 8);
    eventually(SOON, async || load.accepted() >= 50).await;
    proxy.flow(Flow::BlackHole);
    let began = Instant::now();
    eventually(REBUILT_WITHIN, async || node.relay.get("/ready").await.status == 503).await;
    let noticed = began.elapsed();
    proxy.abandon();
    proxy.heal();
    let (began, before) = (Instant::now(), load.accepted());
    eventually(REBUILT_WITHIN, async || load.accepted() > before).await;
    eprintln!("black hole: noticed after {noticed:?}, works {:?} after it", began.elapsed());
    let told = load.stop().await;
    // Reading and pages have connections of their own, which nobody used: each is found dead a little later.
    let hole = topic(&told[0].topic);
    let read = async || try_page(&node.storage, &hole, Order::Asc, None, 1).await.is_ok();
    eventually(REBUILT_WITHIN, read).await;
    eventually(REBUILT_WITHIN, async || node.storage.topics.stats().await.is_ok()).await;
    assert_kept(&node.storage, &told, DEADLINE).await;
    node.stop().await;
}
