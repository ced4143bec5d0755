//! Claims over TLS: who reads an answer and ends the connection has what it claimed.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::start;
use crate::support::relay::TestRelay;

const GROUP: &str = "/api/v1/topics/claimed/groups/g";

async fn ask(relay: &TestRelay, method: &str, path: &str, body: &Value) -> Value {
    let headers = [("content-type", "application/json")];
    relay.send(method, path, &headers, body.to_string().as_bytes()).await.json()
}

/// What the relay still says to a client that is gone breaks the connection, long after the answer was read.
#[tokio::test]
async fn who_ends_the_connection_behind_the_answer_keeps_what_it_has() {
    let (relay, papers, address) = start(|_| {}).await;
    ask(&relay, "PUT", GROUP, &json!({"ack_wait": "10m"})).await;
    for round in 0..4 {
        relay.publish("claimed", "1").await;
        let mut client = papers.connect(address).await;
        let body = json!({"consumer": "first"}).to_string();
        let request = format!(
            "POST {GROUP}/claim HTTP/1.1\r\nhost: relay\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        client.write_all(request.as_bytes()).await.expect("it is sent");
        let mut answer = Vec::new();
        while !answer.ends_with(b"}]}") {
            assert_ne!(
                client.read_buf(&mut answer).await.expect("it is answered"),
                0,
                "{}",
                answer.escape_ascii()
            );
        }
        if round % 2 == 1 {
            client.shutdown().await.expect("it says goodbye");
        }
        drop(client);
        let (path, body) = (format!("{GROUP}/claim"), json!({"consumer": "other", "wait": "300ms"}));
        let other = ask(&relay, "POST", &path, &body);
        assert_eq!(other.await["messages"], json!([]), "{round}: the first has it");
        let answer = String::from_utf8(answer).expect("text");
        let (_, answer) = answer.split_once("\r\n\r\n").expect("a body");
        let answer: Value = serde_json::from_str(answer).expect("JSON");
        let receipts = json!({"receipts": [answer["messages"][0]["receipt"]]});
        let acked = ask(&relay, "POST", "/api/v1/work/ack", &receipts).await;
        assert_eq!(acked["results"][0]["status"], "acked", "{round}: {acked}");
    }
    relay.stop().await;
}
