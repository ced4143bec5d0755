//! SIGTERM to the real binary while everybody publishes (R29, as far as publishing goes).

use std::time::Duration;

use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::Instant;

use super::{DEADLINE, Node};
use crate::support::eventually;
use crate::support::ground::{SOON, length, topic};
use crate::support::load::{Load, assert_kept};
use crate::support::process::Relay;
use crate::support::proxy::{Flow, Proxy};
use crate::support::relay::try_send;
use crate::support::server::{Kind, Server};

const DRAIN: Duration = Duration::from_secs(5);

async fn start(port: u16) -> Relay {
    let url = format!("redis://127.0.0.1:{port}");
    let drain = format!("--drain-ms={}", DRAIN.as_millis());
    let variables = [("STORAGE_BACKEND", "valkey"), ("VALKEY_URL", &url)];
    Relay::ready_at("127.0.0.1:0", &variables, &[&drain]).await
}

/// Stops the relay, checks that it ends well, and returns how long it took.
async fn stop(relay: Relay) -> Duration {
    let began = Instant::now();
    let (code, log) = spawn_blocking(move || relay.stop()).await.unwrap();
    assert_eq!(code, Some(0), "{log}");
    began.elapsed()
}

#[tokio::test]
async fn a_relay_told_to_stop_under_load_loses_nothing_that_it_acknowledged() {
    let Some(server) = Server::start(Kind::Valkey, &[]).await else { return };
    let relay = start(server.port()).await;
    let load = Load::start(relay.address(), "stopping", 16);
    eventually(SOON, async || load.accepted() >= 300).await;
    let took = stop(relay).await;
    eprintln!("stopped under load after {took:?}");
    assert!(took < DRAIN, "{took:?}");
    let told = load.stop().await;
    let node = Node::start(server.port()).await;
    assert_kept(&node.storage, &told, DEADLINE).await;
    assert!(told.iter().all(|told| matches!(told.status(), 0 | 201)), "nothing was refused");
    node.stop().await;
}

#[tokio::test]
async fn publishes_under_way_are_answered_before_a_relay_ends() {
    const UNDER_WAY: usize = 30;
    /// Large enough to be counted among the bodies that are held.
    static BODY: [u8; 32 * 1024] = [b'x'; 32 * 1024];

    let Some(server) = Server::start(Kind::Valkey, &[]).await else { return };
    let proxy = Proxy::start(server.port()).await;
    let relay = start(proxy.port()).await;
    let address = relay.address();
    let path = "/api/v1/topics/under-way/messages";
    assert_eq!(try_send(address, "POST", path, &[], b"0").await.unwrap().status, 201);
    proxy.flow(Flow::Stall);
    let mut publishers = JoinSet::new();
    for _ in 0..UNDER_WAY {
        publishers.spawn(async move { try_send(address, "POST", path, &[], &BODY).await });
    }
    let held = format!("\ntidemill_http_inflight_body_bytes {}\n", UNDER_WAY * BODY.len());
    eventually(SOON, async || {
        let metrics = try_send(address, "GET", "/metrics", &[], b"").await.unwrap();
        metrics.text().contains(&held)
    })
    .await;
    let mut stopping = JoinSet::new();
    stopping.spawn(stop(relay));
    eventually(SOON, async || tokio::net::TcpStream::connect(address).await.is_err()).await;
    proxy.heal();
    for answer in publishers.join_all().await {
        assert_eq!(answer.expect("every publish under way is answered").status, 201);
    }
    assert!(stopping.join_all().await[0] < DRAIN);
    let node = Node::start(server.port()).await;
    assert_eq!(length(&node.storage, &topic("under-way")).await, UNDER_WAY as u64 + 1);
    node.stop().await;
}
