//! Stopping: no new connections, requests under way finish, the rest is cut.

use std::time::Duration;

use tidemill::server::ServerOptions;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::Instant;

use serde_json::{Value, json};

use crate::support::eventually;
use crate::support::relay::{Answer, TestRelay, memory, read_answer, read_to_end};
use crate::support::ws::{Got, WsClient};

const HEAD: &str = "POST /api/v1/topics/drain/messages HTTP/1.1\r\nhost: relay\r\ncontent-length: 5\r\n\r\n";
const SOON: Duration = Duration::from_secs(5);

/// Waits until the relay takes no more connections.
async fn refused(address: std::net::SocketAddr) {
    eventually(SOON, || async { TcpStream::connect(address).await.is_err() }).await;
}

/// Waits until the relay has so many connections beside the one that asks.
async fn connected(relay: &TestRelay, others: usize) {
    let line = format!("\ntidemill_http_connections {}\n", others + 1);
    eventually(SOON, || async { relay.get("/metrics").await.text().contains(&line) }).await;
}

#[tokio::test]
async fn a_publish_under_way_finishes() {
    let storage = memory();
    let relay = TestRelay::start(storage.clone()).await;
    let mut busy = relay.connect().await;
    busy.write_all(HEAD.as_bytes()).await.expect("written");
    busy.write_all(b"he").await.expect("written");
    connected(&relay, 1).await;
    relay.begin_stop();
    refused(relay.address).await;
    busy.write_all(b"llo").await.expect("still open");
    let answer = Answer::parse(&read_to_end(&mut busy).await);
    assert_eq!(answer.status, 201);
    assert_eq!(answer.header("connection"), Some("close"));
    relay.stop().await;
    let next = TestRelay::start(storage).await;
    assert_eq!(next.get("/api/v1/topics/drain").await.json()["length"], 1, "it was kept");
    next.stop().await;
}

#[tokio::test]
async fn idle_connections_do_not_hold_the_relay_up() {
    let relay = TestRelay::start(memory()).await;
    let mut idle = relay.connect().await;
    let mut used = relay.connect().await;
    used.write_all(b"GET /health HTTP/1.1\r\nhost: relay\r\n\r\n").await.expect("written");
    connected(&relay, 2).await;
    let started = Instant::now();
    relay.begin_stop();
    tokio::join!(read_to_end(&mut idle), read_to_end(&mut used));
    relay.stop().await;
    assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
}

#[tokio::test]
async fn what_does_not_finish_is_cut() {
    let relay = TestRelay::start_with(memory(), |options| options.drain = Duration::from_millis(200)).await;
    let mut stuck = relay.connect().await;
    stuck.write_all(HEAD.as_bytes()).await.expect("written");
    connected(&relay, 1).await;
    let started = Instant::now();
    relay.stop().await;
    assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
    let mut rest = Vec::new();
    let _ = tokio::io::AsyncReadExt::read_to_end(&mut stuck, &mut rest).await;
    assert!(rest.is_empty(), "no answer stands for a publish that did not happen");
}

#[tokio::test]
async fn a_draining_relay_is_not_ready() {
    let relay = TestRelay::start(memory()).await;
    let mut busy = relay.connect().await;
    busy.write_all(b"GET /ready HTTP/1.1\r\nhost: relay\r\nx-a: ").await.expect("written");
    connected(&relay, 1).await;
    assert_eq!(relay.get("/ready").await.status, 200);
    relay.begin_stop();
    refused(relay.address).await;
    busy.write_all(b"b\r\n\r\n").await.expect("still open");
    let answer = Answer::parse(&read_to_end(&mut busy).await);
    assert_eq!(answer.status, 503);
    assert_eq!(answer.text(), r#"{"ready":false,"reasons":["the relay is shutting down"]}"#);
    relay.stop().await;
}

#[tokio::test]
async fn a_relay_that_gives_notice_takes_everything_meanwhile_and_says_that_it_leaves() {
    let notice = |options: &mut ServerOptions| options.drain_notice = Duration::from_millis(700);
    let relay = TestRelay::start_with(memory(), notice).await;
    let began = Instant::now();
    relay.begin_stop();
    eventually(SOON, async || relay.get("/ready").await.status == 503).await;
    relay.publish("drain", "1").await;
    assert!(began.elapsed() < Duration::from_millis(700), "{:?}", began.elapsed());
    refused(relay.address).await;
    assert!(began.elapsed() >= Duration::from_millis(700), "{:?}", began.elapsed());
    relay.stop().await;
}

#[tokio::test]
async fn who_waits_for_work_is_answered_at_once() {
    let relay = TestRelay::start(memory()).await;
    let group = "/api/v1/topics/jobs/groups/workers";
    assert_eq!(relay.send("PUT", group, &[("content-type", "application/json")], b"{}").await.status, 201);
    let claim = async |path: &str, body: &str| relay.post(path, body).await;
    let one = format!("{group}/claim");
    let from = r#"{"consumer":"b","wait":"20s","from":[{"topic":"jobs","group":"workers"}]}"#;
    let began = Instant::now();
    let stop = async {
        connected(&relay, 2).await;
        eventually(SOON, async || !relay.get(group).await.json()["last_claim"].is_null()).await;
        relay.begin_stop();
    };
    let (first, second, ()) = tokio::join!(
        claim(&one, r#"{"consumer":"a","wait":"20s"}"#),
        claim("/api/v1/work/claim", from),
        stop
    );
    for answer in [first, second] {
        assert_eq!(answer.status, 503, "{answer:?}");
        assert!(answer.text().contains("the node is stopping; nothing was claimed"), "{answer:?}");
    }
    relay.stop().await;
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
}

/// Who waits for a lock is told at once that the node leaves, as one that waits for messages is.
#[tokio::test]
async fn who_waits_for_a_lock_is_answered_when_the_node_drains() {
    let relay =
        TestRelay::start_with(memory(), |options| options.drain_spread = Duration::from_millis(200)).await;
    let held = relay.post("/api/v1/locks/l", r#"{"holder":"ann","ttl":"1m"}"#).await;
    assert_eq!(held.status, 201, "{held:?}");
    let began = Instant::now();
    let waiting = relay.post("/api/v1/locks/l", r#"{"holder":"bob","ttl":"1m","wait":"30s"}"#);
    let draining = async {
        eventually(SOON, async || relay.get("/api/v1/locks/l").await.json()["waiting"] == 1).await;
        assert_eq!(relay.post(DRAIN, "").await.status, 200);
    };
    let (answer, ()) = tokio::join!(waiting, draining);
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.text().contains("the lock was not acquired, try another node"), "{answer:?}");
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    assert_eq!(relay.get("/api/v1/locks/l").await.json()["waiting"], 0, "it has no place any more");
    relay.stop().await;
}

const DRAIN: &str = "/api/v1/admin/drain";

async fn told(relay: &TestRelay) -> Value {
    relay.get(DRAIN).await.json()
}

#[tokio::test]
async fn a_relay_that_is_drained_sends_its_clients_away_and_goes_on_until_it_is_stopped() {
    let relay = TestRelay::start_with(memory(), |options| {
        (options.drain_notice, options.drain_spread) =
            (Duration::from_millis(500), Duration::from_millis(200));
    })
    .await;
    let serving = told(&relay).await;
    assert_eq!((&serving["stage"], serving.get("ends_in_ms")), (&json!("serving"), None), "{serving}");
    let mut idle = relay.connect().await;
    let mut busy = relay.connect().await;
    busy.write_all(HEAD.as_bytes()).await.expect("written");
    busy.write_all(b"he").await.expect("written");
    connected(&relay, 2).await;
    let mut socket = WsClient::connect(relay.address).await;
    let began = Instant::now();
    let answer = relay.post(DRAIN, "").await;
    assert_eq!((answer.status, &answer.json()["stage"]), (200, &json!("notice")), "{answer:?}");
    assert!(answer.json()["ends_in_ms"].as_u64().is_some_and(|left| left > 500), "{answer:?}");
    // It is not ready, and does everything still.
    assert_eq!(relay.get("/ready").await.status, 503);
    relay.publish("drain", "1").await;
    assert_eq!(relay.post(DRAIN, "").await.status, 200, "who tells it again changes nothing");
    assert_eq!(socket.closed().await, Got::Close(1012));
    assert!(began.elapsed() >= Duration::from_millis(500), "{:?}", began.elapsed());
    assert!(read_to_end(&mut idle).await.is_empty());
    // A connection counts until its end is written down, a moment after its client has seen it.
    eventually(SOON, async || told(&relay).await["connections"] == 1).await;
    assert_eq!(told(&relay).await["stage"], "leaving");
    // What is under way is waited for, and the connection ends with it.
    busy.write_all(b"llo").await.expect("still open");
    let answer = Answer::parse(&read_to_end(&mut busy).await);
    assert_eq!(answer.status, 201);
    eventually(SOON, async || told(&relay).await["stage"] == "drained").await;
    assert!(relay.get("/metrics").await.text().contains("\ntidemill_draining 1\n"));
    // Probes, and whoever comes by mistake, are answered, each once.
    for path in ["/health", "/api/v1/topics/drain/messages"] {
        let mut late = relay.connect().await;
        let request = format!("GET {path} HTTP/1.1\r\nhost: relay\r\n\r\n");
        late.write_all(request.as_bytes()).await.expect("written");
        let answer = Answer::parse(&read_to_end(&mut late).await);
        assert_eq!((answer.status, answer.header("connection")), (200, Some("close")), "{path}");
    }
    let mut late = relay.connect().await;
    late.write_all((HEAD.to_owned() + "hello").as_bytes()).await.expect("written");
    let answer = Answer::parse(&read_to_end(&mut late).await);
    assert_eq!((answer.status, answer.header("connection")), (201, Some("close")));
    // Whoever does not hang up is waited for a moment.
    drop((idle, busy, late));
    let began = Instant::now();
    relay.stop().await;
    assert!(began.elapsed() < Duration::from_millis(500), "no notice is given again: {:?}", began.elapsed());
}

#[tokio::test]
async fn a_relay_that_is_stopped_while_it_drains_does_not_wait_for_its_spread() {
    let relay = TestRelay::start_with(memory(), |options| {
        (options.drain_spread, options.drain) = (Duration::from_hours(1), Duration::from_secs(2));
    })
    .await;
    let mut sockets = Vec::new();
    for _ in 0..8 {
        sockets.push(WsClient::connect(relay.address).await);
    }
    assert_eq!(relay.post(DRAIN, "").await.status, 200);
    eventually(SOON, async || told(&relay).await["stage"] == "leaving").await;
    let began = Instant::now();
    relay.begin_stop();
    for mut socket in sockets {
        assert_eq!(socket.closed().await, Got::Close(1012), "none is cut without a word");
    }
    relay.stop().await;
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

#[tokio::test]
async fn the_node_that_is_meant_is_drained_and_no_other() {
    let relay = TestRelay::start(memory()).await;
    let node = told(&relay).await["node"].as_str().expect("a node").to_owned();
    let other = relay.post(&format!("{DRAIN}?node=0123456789abcdef"), "").await;
    assert_eq!(other.status, 409, "{other:?}");
    assert!(other.text().contains(&node), "{other:?}");
    assert_eq!(relay.post(&format!("{DRAIN}?node=x"), "").await.status, 400);
    assert_eq!(told(&relay).await["stage"], "serving");
    assert_eq!(relay.post(&format!("{DRAIN}?node={node}"), "").await.status, 200);
    assert_eq!(relay.get("/ready").await.status, 503);
    relay.stop().await;
}

#[tokio::test]
async fn connections_that_are_kept_are_closed() {
    let relay = TestRelay::start(memory()).await;
    let mut keeping = relay.connect().await;
    keeping.write_all(b"GET /health HTTP/1.1\r\nhost: relay\r\n\r\n").await.expect("written");
    assert_eq!(read_answer(&mut keeping).await.status, 200);
    assert_eq!(relay.post(DRAIN, "").await.status, 200);
    assert!(read_to_end(&mut keeping).await.is_empty(), "it has nothing under way");
    eventually(SOON, async || told(&relay).await["stage"] == "drained").await;
    relay.stop().await;
}
