//! Stopping: no new connections, requests under way finish, the rest is cut.

use std::time::Duration;

use tidemill::server::ServerOptions;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::support::eventually;
use crate::support::relay::{Answer, TestRelay, memory, read_to_end};

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
