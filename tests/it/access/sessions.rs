//! What is open on a node, as those see it who administer it, and how they end it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use super::closed::{log_in, send, start, token};
use crate::support::eventually;
use crate::support::relay::{STUCK, TestRelay, memory};
use crate::support::ws::{Got, WsClient};

async fn listed(relay: &TestRelay, root: &str, query: &str) -> Value {
    let path = format!("/api/v1/admin/sessions{query}");
    let answer = send(relay, Some(root), "GET", &path, &Value::Null).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

async fn end(relay: &TestRelay, root: &str, session: &str) -> (u16, String) {
    let path = format!("/api/v1/admin/sessions/{session}");
    let answer = send(relay, Some(root), "DELETE", &path, &Value::Null).await;
    let code = if answer.body.is_empty() { Value::Null } else { answer.json()["code"].clone() };
    (answer.status, code.as_str().unwrap_or_default().to_owned())
}

/// Begins to follow a topic from its start, and returns the connection, of which nothing was read.
fn follow(relay: &TestRelay, authorization: &str) -> TcpStream {
    let mut stream = TcpStream::connect(relay.address).expect("the relay listens");
    let request = format!(
        "GET /api/v1/topics/t/messages?after=earliest HTTP/1.1\r\nHost: x\r\nAccept: application/x-ndjson\r\nAuthorization: {authorization}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).expect("it takes a request");
    stream.set_read_timeout(Some(STUCK)).expect("a time");
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_what_open_is_told_and_ended_one_by_one() {
    let relay = start(memory()).await;
    let root = log_in(&relay, "root").await;
    let (id, reader) = token(&relay, &root, &["allow read t"]).await;
    assert_eq!(listed(&relay, &root, "").await["sessions"], json!([]));
    let big = "x".repeat(200_000);
    for _ in 0..100 {
        send(&relay, Some(&root), "POST", "/api/v1/topics/t/messages", &json!(big)).await;
    }

    let headers = [("authorization", reader.as_str())];
    let mut socket = WsClient::connect_with(relay.address, &headers).await.expect("an upgrade");
    socket.subscribe("t", "latest").await;
    let mut slow = follow(&relay, &reader);
    // Who takes nothing falls behind, and who has everything does not.
    eventually(STUCK, async || {
        let all = listed(&relay, &root, "").await;
        all["count"] == 2 && all["sessions"][1]["behind_seconds"].as_f64() > Some(0.0)
    })
    .await;
    let all = listed(&relay, &root, "").await;
    let (first, second) = (&all["sessions"][0], &all["sessions"][1]);
    let told =
        |session: &Value| json!([session["kind"], session["caller"], session["address"], session["topics"]]);
    let caller = format!("token {id} (\"t\")");
    assert_eq!(told(first), json!(["websocket", caller, "127.0.0.1", 1]));
    assert_eq!(told(second), json!(["stream", caller, "127.0.0.1", 1]));
    assert_eq!(first["behind_seconds"], 0.0, "{all}");

    // By page, in order.
    let name = |session: &Value| session["session"].as_str().expect("a text").to_owned();
    let page = listed(&relay, &root, "?limit=1").await;
    assert_eq!(
        (page["sessions"].as_array().map(Vec::len), name(&page["sessions"][0])),
        (Some(1), name(first))
    );
    let page = listed(&relay, &root, &format!("?limit=1&after={}", name(first))).await;
    assert_eq!(name(&page["sessions"][0]), name(second));

    // Others may not look, and not end.
    let refused = send(&relay, Some(&reader), "GET", "/api/v1/admin/sessions", &Value::Null).await;
    assert_eq!(refused.status, 403, "{refused:?}");
    assert_eq!(end(&relay, &reader, &name(first)).await.0, 403);
    // What is of another node is none of this one.
    let other = "0000000000000000-0";
    assert_eq!(end(&relay, &root, other).await, (404, "not_found".to_owned()));
    for wrong in ["0", "x"] {
        assert_eq!(end(&relay, &root, wrong).await, (400, "invalid_field".to_owned()), "{wrong}");
    }

    assert_eq!(end(&relay, &root, &name(first)).await.0, 204);
    let Got::Close(code) = socket.closed().await else { panic!("it is closed") };
    assert_eq!(code, 4502);
    assert_eq!(end(&relay, &root, &name(first)).await, (404, "not_found".to_owned()));
    assert_eq!(end(&relay, &root, &name(second)).await.0, 204);
    let read = tokio::task::spawn_blocking(move || {
        let mut all = Vec::new();
        slow.read_to_end(&mut all).map(|_| String::from_utf8_lossy(&all).into_owned())
    });
    let read = read.await.expect("it reads").expect("it comes to its end");
    assert!(
        read.contains(r#""reason":"ended by who administers the relay; resume from the cursors""#),
        "{}",
        read.len()
    );
    eventually(STUCK, async || listed(&relay, &root, "").await["count"] == 0).await;

    // Whose session was ended comes again.
    let again = WsClient::connect_with(relay.address, &headers).await.expect("an upgrade");
    eventually(Duration::from_secs(5), async || listed(&relay, &root, "").await["count"] == 1).await;
    again.close().await;
    relay.stop().await;
}
