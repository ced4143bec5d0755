//! Faults of the server and of the way to it: the rows of docs/faults.md, provoked with real servers
//! and the faulty link, each named as what must hold.

use std::sync::Arc;
use std::time::Duration;

use tidemill::clock::Clock;
use tidemill::storage::valkey::{Target, Valkey, ValkeyOptions};
use tidemill::storage::{Backend as _, Storage, StorageLimits};

use crate::support::eventually;
use crate::support::ground::{LIMITS, SOON, node};
use crate::support::relay::{Answer, TestRelay};

mod asking;
mod drained;
mod durable;
mod failover;
mod frozen;
mod hosted;
mod killing;
mod letters;
mod link;
mod losing;
mod memory;
mod moving;
mod names;
mod overload;
mod partial;
mod placed;
mod publishing;
mod reading;
mod refusing;
mod replaced;
mod replicas;
mod reshaped;
mod rolling;
mod sentinel;
mod shards;
mod standby;
mod starting;
mod stopping;
mod tls;
mod working;

/// How long a command may take where a test does not say otherwise.
const TIMEOUT: Duration = Duration::from_millis(700);

/// In what time every request must end: it may wait for a turn, then for its answer.
const DEADLINE: Duration = Duration::from_secs(4);

/// A relay in front of a server, or of a link to it.
#[derive(Debug)]
struct Node {
    valkey: Arc<Valkey>,
    storage: Storage,
    relay: TestRelay,
}

impl Node {
    /// Starts a relay for the server behind this port, and waits until it is ready.
    async fn start(port: u16) -> Self {
        let node = Self::start_with(port, |_, _| {}).await;
        node.is_ready_within(SOON).await;
        node
    }

    /// Starts a relay with other options, and does not wait.
    async fn start_with(port: u16, change: impl FnOnce(&mut ValkeyOptions, &mut StorageLimits)) -> Self {
        let target = Target::parse(&format!("redis://127.0.0.1:{port}")).expect("the URL is right");
        let mut options = ValkeyOptions { timeout: TIMEOUT, ..ValkeyOptions::new(target) };
        let mut limits = LIMITS;
        change(&mut options, &mut limits);
        let valkey = Valkey::connect(node(), options, limits, Clock::system());
        let storage = Storage::new(valkey.clone());
        let relay = TestRelay::start(storage.clone()).await;
        Self { valkey, storage, relay }
    }

    /// Waits until the relay says that it is ready.
    async fn is_ready_within(&self, within: Duration) {
        eventually(within, async || self.relay.get("/ready").await.status == 200).await;
    }

    /// Publishes one message, under a key if there is one.
    async fn publish(&self, topic: &str, payload: &str, key: Option<&str>) -> Answer {
        let headers = key.map(|key| ("idempotency-key", key));
        let path = format!("/api/v1/topics/{topic}/messages");
        let json = ("content-type", "application/json");
        let headers: Vec<_> = std::iter::once(json).chain(headers).collect();
        self.relay.send("POST", &path, &headers, payload.as_bytes()).await
    }

    async fn stop(self) {
        self.relay.stop().await;
        self.valkey.close().await;
    }
}
