//! R30: two nodes on one Valkey are stopped and started again in turn, under load. Readers and publishers
//! go to the other node meanwhile, and lose and repeat nothing. With it R29: every node that is told to
//! stop ends well and in time, and tells its readers where to go on.

use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::Instant;

use crate::support::length;
use crate::support::process::Relay;
use crate::support::roaming::Crowd;
use crate::support::server::{Kind, Server};

const DRAIN: Duration = Duration::from_secs(2);
const TOPIC: &str = "rolling";

async fn start(valkey: u16, listen: &str) -> Relay {
    let url = format!("redis://127.0.0.1:{valkey}");
    let drain = format!("--drain-ms={}", DRAIN.as_millis());
    Relay::ready_at(listen, &[("STORAGE_BACKEND", "valkey"), ("VALKEY_URL", &url)], &[&drain]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_restarted_in_turn_lose_and_repeat_nothing() {
    let Some(server) = Server::start(Kind::Valkey, &[]).await else { return };
    let mut relays = Vec::new();
    for _ in 0..2 {
        relays.push(start(server.port(), "127.0.0.1:0").await);
    }
    let nodes = [relays[0].address(), relays[1].address()];
    let crowd = Crowd::start(nodes, TOPIC).await;
    let rounds = length::pick(3, 30);
    for round in 0..rounds {
        for at in 0..2 {
            crowd.publishes(50).await;
            let relay = relays.remove(0);
            let listen = relay.address().to_string();
            let began = Instant::now();
            let (code, log) = spawn_blocking(move || relay.stop()).await.unwrap();
            let took = began.elapsed();
            assert_eq!(code, Some(0), "{log}");
            assert!(took < DRAIN + Duration::from_secs(2), "round {round}, node {at}: {took:?}");
            relays.push(start(server.port(), &listen).await);
        }
    }
    let (places, total) = crowd.end().await;
    let ends: u64 = places.iter().map(|place| place.ends).sum();
    length::tell(format_args!("{total} messages, {ends} goodbyes to 8 readers in {rounds} rolling restarts"));
    assert!(ends >= 8, "they are told where to go on: {places:?}");
    spawn_blocking(move || drop(relays)).await.unwrap();
}
