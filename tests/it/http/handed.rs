//! Answers that hand something over: whoever has them whole keeps what they say, however the connection ends; whoever
//! cannot have them whole has nothing.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tidemill::storage::Storage;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, sleep};

use super::on_every_backend;
use super::work::{LINES, claim, group, put, settle};
use crate::support::relay::TestRelay;

on_every_backend![
    who_resets_the_connection_behind_an_answer_keeps_what_it_has,
    an_answer_that_is_not_written_whole_gives_its_messages_back,
    who_has_closed_its_sending_half_is_told_that_it_has_nothing,
];

/// Longer than it takes until what is given back is there again.
const NOT_BACK_WITHIN: &str = "1200ms";
/// A large payload, of which an answer has several.
const PAYLOAD_BYTES: usize = 500 * 1024;

async fn send(client: &mut TcpStream, path: &str, body: &Value) {
    let body = body.to_string();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: relay\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    client.write_all((head + &body).as_bytes()).await.expect("it is sent");
}

/// Reads an answer to its end, and ends the connection as `HAProxy` does: without a goodbye.
async fn ask_and_reset(address: SocketAddr, path: &str, body: &Value, requests: usize) -> Value {
    let mut client = TcpStream::connect(address).await.expect("it connects");
    let mut body_of = Value::Null;
    for _ in 0..requests {
        send(&mut client, path, body).await;
        let mut answer = Vec::new();
        body_of = loop {
            assert_ne!(client.read_buf(&mut answer).await.expect("it is answered"), 0);
            let text = String::from_utf8_lossy(&answer);
            let body = text.split_once("\r\n\r\n").map(|(_, body)| serde_json::from_str(body));
            if let Some(Ok(body)) = body {
                break body;
            }
        };
    }
    socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).expect("it is set");
    drop(client);
    body_of
}

async fn who_resets_the_connection_behind_an_answer_keeps_what_it_has(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    put(&relay, "jobs", json!({"ack_wait": "10m"})).await;
    relay.publish("jobs", "1").await;
    let path = "/api/v1/topics/jobs/groups/workers/claim";
    // The same claim twice over one connection: the second finds what the first has got.
    let body = json!({"consumer": "first", "claim_id": "one"});
    let held = ask_and_reset(relay.address, path, &body, 2).await;
    let lock = json!({"holder": "first", "ttl": "10m"});
    let lock = ask_and_reset(relay.address, "/api/v1/locks/l", &lock, 1).await;
    let other = json!({"consumer": "other", "wait": NOT_BACK_WITHIN});
    assert_eq!(claim(&relay, "jobs", other).await, Vec::<Value>::new(), "the first has it");
    let renewed = relay.post("/api/v1/locks/l/renew", &json!({"token": lock["token"]}).to_string()).await;
    assert_eq!(renewed.status, 200, "{renewed:?}");
    let receipts = json!({"receipts": [held["messages"][0]["receipt"]]});
    assert_eq!(settle(&relay, "ack", receipts).await[0]["status"], "acked");
    relay.stop().await;
}

async fn an_answer_that_is_not_written_whole_gives_its_messages_back(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    put(&relay, "jobs", json!({"ack_wait": "10m", "max_deliveries": 1})).await;
    let line = format!("{:?}\n", "x".repeat(PAYLOAD_BYTES));
    let path = "/api/v1/topics/jobs/messages";
    for _ in 0..4 {
        assert_eq!(relay.send("POST", path, &[LINES], line.repeat(3).as_bytes()).await.status, 207);
    }
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4 * 1024).expect("it is set");
    let mut client = socket.connect(relay.address).await.expect("it connects");
    send(&mut client, "/api/v1/topics/jobs/groups/workers/claim", &json!({"consumer": "gone", "max": 12}))
        .await;
    let pending = async || group(&relay, "jobs").await["in_flight"].as_u64().expect("a number");
    super::work::until(async || pending().await == 12).await;
    sleep(Duration::from_millis(200)).await;
    drop(client);
    let since = Instant::now();
    let mut held = Vec::new();
    while held.len() < 12 {
        let got = claim(&relay, "jobs", json!({"consumer": "stays", "max": 12, "wait": "5s"})).await;
        assert!(!got.is_empty(), "{} came back", held.len());
        held.extend(got);
    }
    assert!(since.elapsed() < Duration::from_secs(3), "{:?}", since.elapsed());
    assert_eq!(group(&relay, "jobs").await["failed"], 0, "nobody is charged with it");
    relay.stop().await;
}

async fn who_has_closed_its_sending_half_is_told_that_it_has_nothing(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    put(&relay, "jobs", json!({"ack_wait": "10m"})).await;
    relay.publish("jobs", "1").await;
    for (path, body) in [
        ("/api/v1/topics/jobs/groups/workers/claim", json!({"consumer": "gone"})),
        ("/api/v1/locks/l", json!({"holder": "gone", "ttl": "10m"})),
    ] {
        let mut client = TcpStream::connect(relay.address).await.expect("it connects");
        send(&mut client, path, &body).await;
        client.shutdown().await.expect("it says goodbye");
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.expect("it is answered");
        // Who was answered before it was seen to have gone has it.
        if answer.starts_with("HTTP/1.1 2") {
            continue;
        }
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
        if path.contains("locks") {
            let lock = json!({"holder": "other", "ttl": "10m", "wait": "5s"});
            assert_eq!(relay.post(path, &lock.to_string()).await.status, 201);
        } else {
            let other = claim(&relay, "jobs", json!({"consumer": "other", "wait": "5s"})).await;
            assert_eq!(other.len(), 1);
        }
    }
    relay.stop().await;
}
