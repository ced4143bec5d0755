//! R33: clients come and go for long, and nothing of them is left: memory, tasks, open files, topics.
//!
//! A first part warms up what is kept for the next client: pools, caches, the allocator's own. The second,
//! which is longer, must leave no more behind than the first did.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep, timeout};

use crate::support::dice::Dice;
use crate::support::eventually;
use crate::support::length::{soak, tell};
use crate::support::process::Relay;
use crate::support::raw::Stream;
use crate::support::relay::{STUCK, TestRelay, memory, try_send};
use crate::support::ws::{Got, WsClient};

/// Clients at one time.
const CLIENTS: u64 = 12;

/// How long a feed stays after its last reader, and a little more.
const LINGER: Duration = Duration::from_millis(10_500);

/// By how much memory may differ from its base.
const GROWTH_PER_CENT_MAX: u64 = 5;

/// What the allocator may hold more by chance, whatever the base is.
const CHANCE_BYTES_MAX: u64 = 2 * 1024 * 1024;

/// The parts of a soak. What is held may still settle in the second; what leaks grows in the third as well.
fn parts() -> [Duration; 3] {
    let whole = soak(Duration::from_secs(12), Duration::from_hours(1));
    // An hour needs no longer to warm up than some minutes do.
    let first = (whole / 3).min(Duration::from_mins(5));
    let rest = whole.saturating_sub(first) / 2;
    [first, rest, rest]
}

/// Publishes to a new topic, reads it on every transport, and deletes it.
async fn come_and_go(relay: SocketAddr, topic: &str, dice: &mut Dice) {
    let path = format!("/api/v1/topics/{topic}/messages");
    for number in 0..5 {
        let key = number.to_string();
        let json = ("content-type", "application/json");
        let headers = [json, ("idempotency-key", key.as_str())];
        let headers = if number % 2 == 0 { &headers[..] } else { &headers[..1] };
        let answer = try_send(relay, "POST", &path, headers, key.as_bytes()).await.expect("an answer");
        assert_eq!(answer.status, 201, "{answer:?}");
    }
    let from_first = format!("{path}?after=earliest");
    for (kind, end) in [("text/event-stream", &b"\n\n"[..]), ("application/x-ndjson", b"\n")] {
        let mut stream = Stream::open(relay, &from_first, kind, "").await.expect("a stream");
        for _ in 0..5 {
            stream.until(end).await.expect("a message");
        }
    }
    let mut client = if dice.roll(2) == 0 {
        WsClient::connect(relay).await
    } else {
        WsClient::connect_binary(relay).await
    };
    client.subscribe(topic, "earliest").await;
    for _ in 0..5 {
        assert!(matches!(client.got().await, Got::Message(..)));
    }
    // Some say goodbye.
    if dice.roll(2) == 0 {
        client.close().await;
    }
    let from_last = format!("{path}?wait=1&after=latest");
    let page = try_send(relay, "GET", &from_last, &[], b"");
    // Some do not wait for their answer.
    drop(timeout(dice.up_to_ms(20), page).await);
    let deleted = try_send(relay, "DELETE", &format!("/api/v1/topics/{topic}"), &[], b"").await;
    assert_eq!(deleted.expect("an answer").status, 204);
}

/// Has clients come and go for so long; returns how often one did.
async fn churn(relay: SocketAddr, during: Duration, dice: &Dice) -> usize {
    let end = Instant::now() + during;
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let mut dice = dice.of(client);
        clients.spawn(async move {
            let mut rounds = 0;
            while Instant::now() < end {
                come_and_go(relay, &format!("soak.{client}.{}", rounds % 50), &mut dice).await;
                rounds += 1;
            }
            rounds
        });
    }
    clients.join_all().await.into_iter().sum()
}

/// Waits until the relay says that nobody is there but who asks.
async fn settle(relay: SocketAddr) {
    let is_quiet = async || {
        let get = async |path| try_send(relay, "GET", path, &[], b"").await.expect("an answer");
        let (metrics, waiting) = (get("/metrics").await, get("/messages/poll/stats").await);
        let gauge = |name: &str| {
            let value = metrics.text().lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
            value.map(str::to_owned)
        };
        gauge("tidemill_http_connections ").as_deref() == Some("1")
            && gauge("tidemill_ws_sessions ").is_none_or(|sessions| sessions == "0")
            && waiting.json()["active_waiters"] == 0
    };
    eventually(STUCK, is_quiet).await;
    sleep(LINGER).await;
    let stats = try_send(relay, "GET", "/api/v1/topics/stats", &[], b"").await.expect("an answer").json();
    assert_eq!(stats["total_topics"], 0, "{stats}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_and_files_come_back_to_where_they_were() {
    let dice = Dice::cast();
    // Keys are remembered for a short time, so that what they cost comes and goes.
    let variables = [("TIDEMILL_IDEMPOTENCY_WINDOW_SECONDS", "1")];
    let relay = Relay::ready_at("127.0.0.1:0", &variables, &[]).await;
    let mut before = None;
    for (part, during) in parts().into_iter().enumerate() {
        let rounds = churn(relay.address(), during, &dice.of(part as u64)).await;
        settle(relay.address()).await;
        let (bytes, files) = (relay.resident_bytes(), relay.open_files());
        tell(format_args!("soak: {rounds} came and went in {during:?}: {} KiB, {files} files", bytes / 1024));
        let (bytes_before, files_before) = before.unwrap_or((bytes, files));
        let bytes_max = bytes_before * (100 + GROWTH_PER_CENT_MAX) / 100 + CHANCE_BYTES_MAX;
        assert!(part < 2 || bytes <= bytes_max, "{bytes} bytes are held, {bytes_before} before");
        before = Some((bytes_before.max(bytes), files_before));
        // The connection of who asked last may be about to end.
        eventually(STUCK, async || relay.open_files() <= files_before).await;
    }
    let (code, log) = spawn_blocking(|| relay.stop()).await.expect("it stops");
    assert_eq!(code, Some(0), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_come_back_to_where_they_were() {
    let dice = Dice::cast();
    let relay = TestRelay::start(memory()).await;
    let tasks = || Handle::current().metrics().num_alive_tasks();
    let mut base = None;
    for (part, during) in parts().into_iter().enumerate() {
        let rounds = churn(relay.address, during, &dice.of(part as u64)).await;
        settle(relay.address).await;
        tell(format_args!("soak: {rounds} came and went in {during:?}: {} tasks", tasks()));
        let base = *base.get_or_insert_with(tasks);
        // The connection of who asked last may be about to end.
        eventually(STUCK, async || tasks() <= base).await;
    }
    relay.stop().await;
}
