//! A node of two is drained before it is stopped: readers go on at the other one, and what connections work on is given
//! out there at once.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout};

use crate::support::process::Relay;
use crate::support::relay::{STUCK, try_send};
use crate::support::roaming::Crowd;
use crate::support::server::{Kind, Server};
use crate::support::ws::{Got, WsClient};

const TOPIC: &str = "draining";
const GROUP: &str = "/api/v1/topics/jobs/groups/workers";
const JSON: (&str, &str) = ("content-type", "application/json");

async fn start(valkey: u16) -> Relay {
    let url = format!("redis://127.0.0.1:{valkey}");
    let variables = [("STORAGE_BACKEND", "valkey"), ("VALKEY_URL", &url)];
    let flags = ["--drain-ms=5000", "--drain-notice-ms=300", "--drain-spread-ms=1500"];
    Relay::ready_at("127.0.0.1:0", &variables, &flags).await
}

/// Drains a relay as its operator does, and returns what was told in the end.
async fn drain(relay: Relay) -> (Relay, Value) {
    let drained = spawn_blocking(move || {
        let ended = relay.run(&["drain", "--wait", "--output", "json"], "");
        let told = serde_json::from_str(ended.lines()[0]).expect("JSON");
        (relay, told)
    });
    timeout(STUCK, drained).await.expect("it ends").expect("a command")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_of_a_drained_node_go_on_at_the_other_without_a_gap() {
    let Some(server) = Server::start(Kind::Valkey, &[]).await else { return };
    let (one, other) = (start(server.port()).await, start(server.port()).await);
    let nodes = [one.address(), other.address()];
    let crowd = Crowd::start(nodes, TOPIC).await;
    crowd.publishes(50).await;
    let began = Instant::now();
    let (one, told) = drain(one).await;
    assert_eq!((&told["stage"], &told["sessions"]), (&json!("drained"), &json!(0)), "{told}");
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    // Nobody is served by it: it ends in no time.
    let began = Instant::now();
    let (code, log) = spawn_blocking(move || one.stop()).await.unwrap();
    assert_eq!(code, Some(0), "{log}");
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    crowd.publishes(50).await;
    let (places, _) = crowd.end().await;
    let ends: u64 = places.iter().map(|place| place.ends).sum();
    assert_eq!(ends, 4, "those of the drained node are told where to go on: {places:?}");
    spawn_blocking(move || drop(other)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_connections_of_a_drained_node_work_on_is_given_out_by_the_other_at_once() {
    let Some(server) = Server::start(Kind::Valkey, &[]).await else { return };
    let (one, other) = (start(server.port()).await, start(server.port()).await);
    let (at_one, at_other) = (one.address(), other.address());
    let post = async |at, path: &str, body: Value| {
        let answer = try_send(at, "POST", path, &[JSON], body.to_string().as_bytes()).await;
        answer.expect("an answer")
    };
    // Far longer than the test.
    let made = try_send(at_one, "PUT", GROUP, &[JSON], br#"{"ack_wait":"10m"}"#).await.expect("an answer");
    assert_eq!(made.status, 201, "{made:?}");
    for n in 0..3 {
        assert_eq!(post(at_one, "/api/v1/topics/jobs/messages", json!(n)).await.status, 201);
    }
    let claim = format!("{GROUP}/claim");
    let claimed = post(at_one, &claim, json!({"consumer": "by-http", "max": 1})).await.json();
    let receipt = claimed["messages"][0]["receipt"].clone();
    assert!(receipt.is_string(), "{claimed}");
    let mut client = WsClient::connect(at_one).await;
    let frame = json!({"type": "consume", "ref": "c", "topic": "jobs", "group": "workers", "credit": 10});
    client.ask(frame.to_string(), "consuming").await;
    let mut held = 0;
    while held < 2 {
        held += client.expect("work").await["messages"].as_array().expect("messages").len();
    }
    // Whoever waits at the other node has what the connection had.
    let waiting = async {
        let began = Instant::now();
        let mut got = Vec::new();
        while got.len() < 2 {
            let body = json!({"consumer": "elsewhere", "max": 10, "wait": "20s"});
            let claimed = post(at_other, &claim, body).await.json();
            got.extend(claimed["messages"].as_array().expect("messages").iter().cloned());
        }
        (got, began.elapsed())
    };
    let ((got, took), (one, told), goodbye) = tokio::join!(waiting, drain(one), client.closed());
    assert_eq!(goodbye, Got::Close(1012));
    assert_eq!(told["stage"], "drained", "{told}");
    let payloads: Vec<_> = got.iter().map(|message| message["payload"].clone()).collect();
    assert_eq!(payloads, [json!(1), json!(2)]);
    assert!(took < Duration::from_secs(5), "{took:?}");
    // A receipt counts at any node: what was claimed with a request stays with who has it.
    let acked = post(at_other, "/api/v1/work/ack", json!({"receipts": [receipt]})).await.json();
    assert_eq!(acked["results"][0]["status"], "acked", "{acked}");
    spawn_blocking(move || drop((one, other))).await.unwrap();
}
