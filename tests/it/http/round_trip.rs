//! What was sent comes back as it was sent.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::value::RawValue;
use tidemill::storage::Storage;

use super::on_every_backend;
use crate::support::relay::TestRelay;

on_every_backend![payloads_come_back_byte_for_byte, the_earthquakes_come_back_in_both_orders];

/// A page, as far as these tests read it: payloads stay as they were written.
#[derive(Deserialize)]
struct Page {
    messages: Vec<Message>,
    next_cursor: Option<String>,
}

#[derive(Deserialize)]
struct Message {
    message_id: String,
    payload: Box<RawValue>,
}

const PAYLOADS: [&str; 14] = [
    "null",
    "true",
    r#""""#,
    r#""\u00e9 é \ud83d\ude00 😀 \/ \" \\ \n""#,
    "\"\u{2028}\u{2029}\u{feff}\"",
    r#"{"\ud83d\ude00":"\uDBFF\uDFFF\\ud800"}"#,
    "1.10",
    "-0",
    "1e400",
    "123456789012345678901234567890.123456789012345678901234567890",
    r#"{"b":1,"a":2,"b":3}"#,
    "{ \"spaces\" :\t[ 1 ,\n 2 ] }",
    "[]",
    r#"{"":{"":[[{}]]}}"#,
];

async fn payloads_come_back_byte_for_byte(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let mut sent = HashMap::new();
    for payload in PAYLOADS {
        let single = relay.publish("trip.bytes", payload).await;
        sent.insert(single, payload);
        let headers = [("content-type", "application/json")];
        let body =
            relay.send("POST", "/api/v1/topics/trip.bytes/messages", &headers, payload.as_bytes()).await;
        sent.insert(body.json()["message_id"].as_str().expect("an id").to_owned(), payload);
        let bulk = format!(r#"{{"messages":[{{"topic":"trip.bytes","payload":{payload}}}]}}"#);
        let bulk = relay.post("/api/v1/messages/bulk", bulk).await.json();
        sent.insert(bulk["results"][0]["message_id"].as_str().expect("an id").to_owned(), payload);
    }
    let page = relay.get("/api/v1/topics/trip.bytes/messages?limit=1000").await;
    let page: Page = serde_json::from_slice(&page.body).expect("a page");
    assert_eq!(page.messages.len(), 3 * PAYLOADS.len());
    for message in page.messages {
        assert_eq!(message.payload.get(), sent[&message.message_id]);
        let path = format!("/api/v1/topics/trip.bytes/messages/{}", message.message_id);
        let one: Message = serde_json::from_slice(&relay.get(&path).await.body).expect("a message");
        assert_eq!(one.payload.get(), sent[&message.message_id]);
    }
    relay.stop().await;
}

/// Real input goes in with one request and comes out page by page, equal to what went in.
pub(crate) async fn the_earthquakes_come_back_in_both_orders(storage: Storage) {
    let file = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/earthquakes.ndjson"))
        .expect("the example");
    let lines: Vec<&str> = file.lines().collect();
    assert_eq!(lines.len(), 1_707);
    let relay = TestRelay::start(storage).await;
    let path = "/api/v1/topics/earthquakes/messages";
    let answer = relay.send("POST", path, &[("content-type", "application/x-ndjson")], file.as_bytes()).await;
    assert_eq!(answer.status, 207);
    assert_eq!(answer.json()["summary"]["accepted"], 1_707);
    for order in ["asc", "desc"] {
        let mut read = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = relay.get(&format!("{path}?limit=100&order={order}{cursor}")).await;
            let page: Page = serde_json::from_slice(&page.body).expect("a page");
            read.extend(page.messages.into_iter().map(|message| message.payload.get().to_owned()));
            match page.next_cursor {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        if order == "desc" {
            read.reverse();
        }
        assert_eq!(read, lines, "{order}");
    }
    relay.stop().await;
}
