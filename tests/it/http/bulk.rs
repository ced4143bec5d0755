//! Publishing many messages with one request.

use serde_json::{Value, json};
use tidemill::proto::Code;
use tidemill::storage::Storage;

use super::{numbered_lines, on_every_backend};
use crate::support::relay::TestRelay;

on_every_backend![
    a_bad_message_rejects_only_itself,
    a_repeated_bulk_is_kept_once,
    the_size_of_a_bulk_is_bounded,
    lines_are_messages,
    a_repeated_ndjson_is_kept_once,
];

async fn a_bad_message_rejects_only_itself(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    let body = format!(
        r#"{{"messages":[
            {{"topic":"bulk.a","payload":{{"n": 1}}}},
            {{"topic":"no/slash","payload":1}},
            {{"topic":"bulk.a"}},
            {{"topic":"bulk.a","payload":{deep}}},
            7,
            {{"topic":"bulk.a","payload":1,"ttl":0}},
            {{"topic":"bulk.a","payload":1,"metadata":[]}},
            {{"topic":"bulk.a","payload":1,"key":""}},
            {{"topic":"bulk.a","payload":1,"colour":"red"}},
            {{"topic":"bulk.b","payload":null,"metadata":null,"ttl":null,"key":null}}
        ]}}"#
    );
    let answer = relay.post("/api/v1/messages/bulk", body).await;
    assert_eq!(answer.status, 207, "{answer:?}");
    let answer = answer.json();
    assert_eq!(answer["summary"], json!({"total": 10, "accepted": 2, "rejected": 8}));
    let results = answer["results"].as_array().expect("results");
    for (at, field) in [
        (1, "topic"),
        (2, "payload"),
        (3, "payload"),
        (4, "object"),
        (5, "ttl"),
        (6, "metadata"),
        (7, "key"),
        (8, "colour"),
    ] {
        let result = &results[at];
        assert_eq!(result["status"], "rejected", "{result}");
        assert_eq!(result["message_id"], Value::Null);
        assert_eq!(result["code"], "invalid_field");
        assert_eq!(result["retryable"], false);
        assert!(result["error"].as_str().expect("an error").contains(field), "{result}");
    }
    assert_eq!(results[1]["topic"], "no/slash");
    assert_eq!(results[4]["topic"], Value::Null);
    for (at, topic) in [(0, "bulk.a"), (9, "bulk.b")] {
        assert_eq!(results[at]["status"], "accepted");
        assert_eq!(results[at]["error"], Value::Null);
        assert_eq!(results[at]["topic"], topic);
        assert!(results[at]["message_id"].is_string() && results[at]["timestamp"].is_string());
    }
    assert_eq!(relay.get("/api/v1/topics/bulk.a").await.json()["length"], 1);
    relay.stop().await;
}

async fn a_repeated_bulk_is_kept_once(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let headers = [("content-type", "application/json"), ("idempotency-key", "batch-1")];
    let body = br#"{"messages":[{"topic":"bulk.key","payload":1},{"topic":"bulk.key","payload":1},{"topic":"bulk.key","payload":1,"key":"own"}]}"#;
    let first = relay.send("POST", "/api/v1/messages/bulk", &headers, body).await;
    assert_eq!(first.header("idempotency-replayed"), None);
    let repeat = relay.send("POST", "/api/v1/messages/bulk", &headers, body).await;
    assert_eq!(repeat.header("idempotency-replayed"), Some("true"));
    let (first, repeat) = (first.json(), repeat.json());
    for at in 0..3 {
        assert_eq!(first["results"][at]["message_id"], repeat["results"][at]["message_id"]);
        assert_eq!(first["results"][at]["replayed"], Value::Null);
        assert_eq!(repeat["results"][at]["replayed"], true);
    }
    assert_eq!(relay.get("/api/v1/topics/bulk.key").await.json()["length"], 3);
    relay.stop().await;
}

async fn the_size_of_a_bulk_is_bounded(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let bulk = |count: usize| {
        let items = vec![r#"{"topic":"bulk.size","payload":1}"#; count];
        format!(r#"{{"messages":[{}]}}"#, items.join(","))
    };
    for count in [0, 1_001] {
        let problem = relay.post("/api/v1/messages/bulk", bulk(count)).await.problem();
        assert_eq!(
            (problem.code, problem.field.as_deref()),
            (Code::InvalidField, Some("messages")),
            "{count}"
        );
    }
    assert_eq!(relay.get("/api/v1/topics/bulk.size").await.status, 404);
    let whole = relay.post("/api/v1/messages/bulk", bulk(1_000)).await.json();
    assert_eq!(whole["summary"], json!({"total": 1000, "accepted": 1000, "rejected": 0}));
    relay.stop().await;
}

async fn lines_are_messages(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let headers = [("content-type", "application/x-ndjson")];
    let path = "/api/v1/topics/bulk.lines/messages";
    let body = b"{\"n\": 1}\r\n\n  \n{\"n\": \n2\n{\"n\": 3}";
    let answer = relay.send("POST", path, &headers, body).await;
    assert_eq!(answer.status, 207);
    let answer = answer.json();
    assert_eq!(answer["summary"], json!({"total": 4, "accepted": 3, "rejected": 1}));
    let error = answer["results"][1]["error"].as_str().expect("an error");
    assert!(error.starts_with("line 4: "), "{error}");
    assert_eq!(answer["results"][1]["code"], "invalid_json");
    let page = relay.get(&format!("{path}?order=asc")).await;
    let payloads: Vec<_> =
        page.json()["messages"].as_array().expect("messages").iter().map(|m| m["payload"].clone()).collect();
    assert_eq!(payloads, [json!({"n": 1}), json!(2), json!({"n": 3})]);
    let empty = relay.send("POST", path, &headers, b"\n \n").await;
    assert_eq!(empty.problem().code, Code::InvalidJson);
    relay.stop().await;
}

async fn a_repeated_ndjson_is_kept_once(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let headers = [("content-type", "application/x-ndjson"), ("idempotency-key", "file-1")];
    let path = "/api/v1/topics/bulk.ndjson-key/messages";
    let lines = numbered_lines(2_500);
    let first = relay.send("POST", path, &headers, lines.as_bytes()).await.json();
    let repeat = relay.send("POST", path, &headers, lines.as_bytes()).await;
    assert_eq!(repeat.header("idempotency-replayed"), Some("true"));
    assert_eq!(first["results"][2_400]["message_id"], repeat.json()["results"][2_400]["message_id"]);
    assert_eq!(relay.get("/api/v1/topics/bulk.ndjson-key").await.json()["length"], 2_500);
    relay.stop().await;
}
