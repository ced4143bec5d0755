//! Publishes that are to follow a certain message, by every way over HTTP and the WebSocket.

use serde_json::json;
use tidemill::proto::Code;
use tidemill::proto::frame::{ClientFrame, ErrorFrame, Publish, ServerFrame};
use tidemill::storage::Storage;
use tokio_tungstenite::tungstenite::Message;

use super::on_every_backend;
use crate::support::relay::{TestRelay, memory};
use crate::support::ws::{WsClient, publish_frame};

on_every_backend![
    a_publish_follows_the_message_that_it_names,
    a_body_that_is_the_payload_has_a_header_for_it,
    items_of_a_bulk_see_those_before_them,
    lines_go_with_the_first_of_them,
    a_repeat_under_a_key_wins,
    a_frame_of_either_encoding_says_it,
    what_is_no_id_is_named,
];

async fn a_publish_follows_the_message_that_it_names(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let publish = async |last: &str, status| {
        let body = json!({"topic": "t", "payload": 1, "expected_last": last}).to_string();
        let answer = relay.post("/api/v1/messages", body).await;
        assert_eq!(answer.status, status, "{answer:?}");
        answer
    };
    let first = publish("0-0", 201).await.json()["message_id"].as_str().expect("an id").to_owned();
    for wrong in ["0-0", "1-1"] {
        let refused = publish(wrong, 412).await;
        let problem = refused.problem();
        assert_eq!(
            (problem.code, problem.last_id.map(|id| id.to_string())),
            (Code::LastMismatch, Some(first.clone()))
        );
    }
    publish(&first, 201).await;
    assert_eq!(relay.get("/api/v1/topics/t").await.json()["length"], 2);
    let none = json!({"topic": "none", "payload": 1, "expected_last": first}).to_string();
    let none = relay.post("/api/v1/messages", none).await;
    assert_eq!((none.status, &none.json()["last_id"]), (412, &json!("0-0")));
    assert_eq!(relay.get("/api/v1/topics/none").await.status, 404, "nothing was made");
    relay.stop().await;
}

async fn a_body_that_is_the_payload_has_a_header_for_it(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let send = async |last: &str| {
        let headers = [("content-type", "application/json"), ("tidemill-expected-last", last)];
        relay.send("POST", "/api/v1/topics/t/messages", &headers, b"1").await
    };
    let first = send("0-0").await;
    assert_eq!(first.status, 201, "{first:?}");
    let refused = send("0-0").await;
    assert_eq!((refused.status, &refused.json()["last_id"]), (412, &first.json()["message_id"]));
    assert_eq!(send(first.json()["message_id"].as_str().expect("an id")).await.status, 201);
    relay.stop().await;
}

async fn items_of_a_bulk_see_those_before_them(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let body = r#"{"messages":[
        {"topic":"t","payload":1,"expected_last":"0-0"},
        {"topic":"t","payload":2,"expected_last":"0-0"},
        {"topic":"u","payload":3,"expected_last":"0-0"},
        {"topic":"t","payload":4}
    ]}"#;
    let answer = relay.post("/api/v1/messages/bulk", body).await.json();
    assert_eq!(answer["summary"], json!({"total": 4, "accepted": 3, "rejected": 1}));
    let results = &answer["results"];
    assert_eq!(results[1]["code"], "expected_last_mismatch");
    assert_eq!(results[1]["last_id"], results[0]["message_id"]);
    assert!(results[0].get("last_id").is_none());
    relay.stop().await;
}

async fn lines_go_with_the_first_of_them(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let send = async |last: &str| {
        let headers = [("content-type", "application/x-ndjson"), ("tidemill-expected-last", last)];
        relay.send("POST", "/api/v1/topics/t/messages", &headers, b"1\n\n2\n3\n").await.json()
    };
    let kept = send("0-0").await;
    assert_eq!(kept["summary"], json!({"total": 3, "accepted": 3, "rejected": 0}));
    let refused = send("0-0").await;
    assert_eq!(refused["summary"], json!({"total": 3, "accepted": 0, "rejected": 3}));
    let last = &kept["results"][2]["message_id"];
    for result in refused["results"].as_array().expect("results") {
        assert_eq!((&result["code"], &result["last_id"]), (&json!("expected_last_mismatch"), last));
    }
    assert_eq!(send(last.as_str().expect("an id")).await["summary"]["accepted"], 3);
    assert_eq!(relay.get("/api/v1/topics/t").await.json()["length"], 6);
    relay.stop().await;
}

async fn a_repeat_under_a_key_wins(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let headers = [("content-type", "application/json"), ("idempotency-key", "k")];
    let body = br#"{"topic":"t","payload":1,"expected_last":"0-0"}"#;
    let first = relay.send("POST", "/api/v1/messages", &headers, body).await;
    let repeat = relay.send("POST", "/api/v1/messages", &headers, body).await;
    assert_eq!((first.status, repeat.status), (201, 201));
    assert_eq!((&first.body, repeat.header("idempotency-replayed")), (&repeat.body, Some("true")));
    relay.stop().await;
}

async fn a_frame_of_either_encoding_says_it(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let mut client = WsClient::connect(relay.address).await;
    let frame = r#"{"type":"publish","ref":"7","topic":"t","payload":1,"expected_last":"0-0"}"#;
    let first = client.ask(frame, "published").await["message_id"].as_str().expect("an id").to_owned();
    let refused = client.ask(frame, "error").await;
    assert_eq!((&refused["ref"], &refused["code"]), (&json!("7"), &json!("expected_last_mismatch")));
    assert_eq!(
        refused["details"],
        json!({"code": "expected_last_mismatch", "retryable": false, "last_id": first})
    );
    let mut binary = WsClient::connect_binary(relay.address).await;
    for (last, is_kept) in [("0-0", false), (first.as_str(), true), (first.as_str(), false)] {
        let publish = Publish { expected_last: Some(last.into()), ..publish_frame("t", b"2") };
        binary.send_binary(&ClientFrame::Publish(publish)).await;
        let Some(Ok(Message::Binary(bytes))) = binary.next().await else { panic!("a binary frame") };
        match tidemill::proto::frame::binary::read_server(&bytes).expect("a frame") {
            ServerFrame::Published { .. } => assert!(is_kept, "{last}"),
            ServerFrame::Error(ErrorFrame { code, last_id, .. }) => {
                assert_eq!((code, is_kept), (Code::LastMismatch, false));
                assert!(last_id.is_some_and(|id| id.to_string() >= first));
            }
            other => panic!("{other:?}"),
        }
    }
    relay.stop().await;
}

async fn what_is_no_id_is_named(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    for (path, header, body, field) in [
        ("/api/v1/messages", None, r#"{"topic":"t","payload":1,"expected_last":"1"}"#, "expected_last"),
        ("/api/v1/messages", None, r#"{"topic":"t","payload":1,"expected_last":7}"#, "expected_last"),
        ("/api/v1/messages", Some("0-0"), r#"{"topic":"t","payload":1}"#, "Tidemill-Expected-Last"),
        ("/api/v1/messages/bulk", Some("0-0"), r#"{"messages":[]}"#, "Tidemill-Expected-Last"),
        ("/api/v1/topics/t/messages", Some("latest"), "1", "Tidemill-Expected-Last"),
        ("/api/v1/topics/t/messages", Some(""), "1", "Tidemill-Expected-Last"),
    ] {
        let mut headers = vec![("content-type", "application/json")];
        headers.extend(header.map(|last| ("tidemill-expected-last", last)));
        let answer = relay.send("POST", path, &headers, body.as_bytes()).await;
        assert_eq!((answer.status, &answer.json()["field"]), (400, &json!(field)), "{answer:?}");
    }
    let twice = [
        ("content-type", "application/json"),
        ("tidemill-expected-last", "0-0"),
        ("tidemill-expected-last", "0-0"),
    ];
    let answer = relay.send("POST", "/api/v1/topics/t/messages", &twice, b"1").await;
    assert_eq!(answer.json()["field"], "Tidemill-Expected-Last");
    assert_eq!(relay.get("/api/v1/topics/t").await.status, 404);
    relay.stop().await;
}

#[tokio::test]
async fn what_is_wrong_with_what_a_header_says_is_told_by_its_name() {
    const NOW: &str = "/api/v1/topics/t/messages";
    const LATER: &str = "/api/v1/topics/t/messages?delay=1h";
    let relay = TestRelay::start(memory()).await;
    for (path, header, value) in [
        (NOW, "Tidemill-Durability", "fsync"),
        (LATER, "Tidemill-Durability", "fsync"),
        (LATER, "Tidemill-Expected-Last", "0-0"),
        (LATER, "Tidemill-Unique", "workers/k"),
        (LATER, "Tidemill-Fence", "nightly=1-1"),
    ] {
        for kind in ["application/json", "application/x-ndjson"] {
            let headers = [("content-type", kind), (header, value)];
            let answer = relay.send("POST", path, &headers, b"1").await.json();
            let said = answer["results"].get(0).unwrap_or(&answer);
            assert_eq!(said["field"], json!(header), "{path} {kind}: {answer}");
        }
    }
    let body = r#"{"topic":"t","payload":1,"durability":"fsync"}"#;
    assert_eq!(relay.post("/api/v1/messages", body).await.json()["field"], "durability");
    relay.stop().await;
}
