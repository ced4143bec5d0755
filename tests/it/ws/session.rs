//! What frames do: subscribing, publishing, and what is told in between.

use std::fmt::Write as _;

use serde_json::{Value, json};
use tidemill::access::{Caller, Leave};
use tidemill::proto::frame::{ClientFrame, Publish, ServerFrame, binary};
use tidemill::storage::Storage;
use tokio_tungstenite::tungstenite::Message;

use super::on_both_backends;
use crate::support::relay::{TestRelay, memory};
use crate::support::ws::{Got, WsClient};

async fn a_subscriber_gets_history_and_then_what_comes(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let old: Vec<_> =
        [relay.publish("t", r#"{"n": 1.10}"#).await, relay.publish("t", "2").await].into_iter().collect();
    let mut client = WsClient::connect(relay.address).await;
    let subscribed = client
        .ask(r#"{"type":"subscribe","ref":"r","topics":["t"],"offset":"earliest"}"#, "subscribed")
        .await;
    assert_eq!(subscribed["ref"], "r");
    assert_eq!(subscribed["topics"], json!(["t"]));
    let oldest: tidemill::proto::MessageId = old[0].parse().expect("an id");
    assert_eq!(subscribed["cursors"], json!({"t": oldest.previous().expect("a place").to_string()}));
    assert_eq!(subscribed["session_id"].as_str().map(str::len), Some(16));
    assert_eq!(client.expect("message").await["message_id"], old[0]);
    assert_eq!(client.expect("message").await["payload"], 2);
    let new = relay.publish("t", "3").await;
    let message = client.expect("message").await;
    assert_eq!((&message["message_id"], &message["topic"]), (&json!(new), &json!("t")));
    client.close().await;
    relay.stop().await;
}

async fn every_cursor_starts_where_it_says(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let mut ids = Vec::new();
    for n in 0..4 {
        ids.push(relay.publish("t", &n.to_string()).await);
    }
    for (frame, first) in [
        (json!({"offset": "earliest"}), Some(0)),
        (json!({"offset": ids[1]}), Some(2)),
        (json!({"cursors": {"t": ids[2]}, "offset": "earliest"}), Some(3)),
        (json!({"cursors": {"t": "-1h"}}), Some(0)),
        (json!({"offset": "2000-01-01T00:00:00Z"}), Some(0)),
        (json!({"offset": "last"}), None),
        (json!({"offset": "latest"}), None),
        (json!({}), None),
    ] {
        let mut client = WsClient::connect(relay.address).await;
        let mut subscribe = frame.clone();
        subscribe["type"] = json!("subscribe");
        subscribe["topics"] = json!(["t"]);
        client.ask(subscribe.to_string(), "subscribed").await;
        if first.is_none() {
            ids.push(relay.publish("t", &ids.len().to_string()).await);
        }
        let first = first.unwrap_or(ids.len() - 1);
        assert_eq!(client.expect("message").await["message_id"], ids[first], "{frame}");
    }
    relay.stop().await;
}

async fn topics_come_and_go_while_connected(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let a = relay.publish("a", "1").await;
    relay.publish("b", "1").await;
    let mut client = WsClient::connect(relay.address).await;
    client.ask(r#"{"type":"subscribe","topics":["a"],"offset":"earliest"}"#, "subscribed").await;
    assert_eq!(client.expect("message").await["topic"], "a");
    client.ask(r#"{"type":"subscribe","topics":["b"]}"#, "subscribed").await;
    relay.publish("b", "2").await;
    assert_eq!(client.expect("message").await["payload"], 2);
    // What is not subscribed to is passed over.
    let gone = client.ask(r#"{"type":"unsubscribe","topics":["a","c"]}"#, "unsubscribed").await;
    assert_eq!((&gone["topics"], &gone["cursors"]), (&json!(["a"]), &json!({"a": a})));
    relay.publish("a", "2").await;
    let b = relay.publish("b", "3").await;
    assert_eq!(client.expect("message").await["message_id"], b, "nothing of `a`");
    // Subscribing again moves the reader.
    client.ask(r#"{"type":"subscribe","topics":["b"],"offset":"earliest"}"#, "subscribed").await;
    for n in 1..=3 {
        assert_eq!(client.expect("message").await["payload"], n);
    }
    relay.stop().await;
}

async fn a_topic_that_must_exist_and_does_not_is_refused_alone(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    relay.publish("t", "1").await;
    let mut client = WsClient::connect(relay.address).await;
    let refused = client
        .ask(r#"{"type":"subscribe","ref":"r","topics":["no","t","a b"],"must_exist":true}"#, "error")
        .await;
    assert_eq!((&refused["code"], &refused["ref"]), (&json!("SUBSCRIPTION_ERROR"), &json!("r")));
    assert_eq!(refused["details"]["code"], "invalid_field", "{refused}");
    let refused = client.expect("error").await;
    assert_eq!(refused["details"], json!({"code": "topic_not_found", "retryable": false}));
    assert!(refused["message"].as_str().expect("a text").contains("`no`"), "{refused}");
    assert_eq!(client.expect("subscribed").await["topics"], json!(["t"]));
    relay.publish("t", "2").await;
    assert_eq!(client.expect("message").await["payload"], 2);
    relay.stop().await;
}

async fn pipelined_publishes_are_answered_and_keep_their_order(storage: Storage) {
    const COUNT: usize = 3_000;
    let relay = TestRelay::start(storage).await;
    let mut client = WsClient::connect(relay.address).await;
    let mut reader = WsClient::connect(relay.address).await;
    relay.publish("a", "-1").await;
    reader.subscribe("a", "latest").await;
    for n in 0..COUNT {
        let topic = if n % 3 == 0 { "b" } else { "a" };
        client.send(format!(r#"{{"type":"publish","ref":"{n}","topic":"{topic}","payload":{n}}}"#)).await;
    }
    let mut last = [String::new(), String::new()];
    for n in 0..COUNT {
        let answer = client.expect("published").await;
        assert_eq!(answer["ref"], n.to_string(), "answers come in order");
        let id = answer["message_id"].as_str().expect("an id").to_owned();
        last[usize::from(n % 3 == 0)] = id;
    }
    let expected = (0..COUNT).filter(|n| n % 3 != 0);
    for n in expected {
        let Got::Message(_, payload) = reader.got().await else { panic!("a message") };
        assert_eq!(payload, n.to_string().into_bytes());
    }
    relay.stop().await;
}

async fn a_key_makes_a_repeat_harmless(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let mut client = WsClient::connect(relay.address).await;
    let frame = r#"{"type":"publish","topic":"t","payload":1,"metadata":{"a":"b"},"ttl":60,"key":"k"}"#;
    let first = client.ask(frame, "published").await;
    let again = client.ask(frame, "published").await;
    assert_eq!(first["message_id"], again["message_id"]);
    assert_eq!((&first["replayed"], &again["replayed"]), (&Value::Null, &json!(true)));
    let reused = client.ask(frame.replace(":1,", ":2,"), "error").await;
    assert_eq!(reused["code"], "key_reused");
    relay.stop().await;
}

async fn both_encodings_say_the_same(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let mut text = WsClient::connect(relay.address).await;
    let mut bytes = WsClient::connect_binary(relay.address).await;
    relay.publish("t", "0").await;
    text.subscribe("t", "latest").await;
    bytes.subscribe("t", "latest").await;
    let publish = Publish {
        durability: None,
        fence: None,
        reference: Some("r".into()),
        topic: "t".into(),
        payload: b"\x00\xff".into(),
        content_type: Some("application/octet-stream".into()),
        metadata: Some(br#"{"k":"v"}"#),
        ttl: None,
        key: None,
        delivery: None,
        expected_last: None,
        order_key: None,
        unique: None,
    };
    let mut client = WsClient::connect_binary(relay.address).await;
    client.send_binary(&ClientFrame::Publish(publish.clone())).await;
    let Some(Ok(Message::Binary(answer))) = client.next().await else { panic!("a binary frame") };
    let Ok(ServerFrame::Published { reference, message_id, .. }) = binary::read_server(&answer) else {
        panic!("published")
    };
    assert_eq!(reference.as_deref(), Some("r"));
    let message = text.expect("message").await;
    assert_eq!(message["message_id"], message_id.to_string());
    assert_eq!(message["payload_base64"], "AP8=");
    assert_eq!(message["content_type"], "application/octet-stream");
    assert_eq!(message["metadata"], json!({"k": "v"}));
    assert_eq!(bytes.got().await, Got::Message(message_id, vec![0, 0xff]));
    // Without a content type the payload is JSON, and is checked.
    let broken = Publish { content_type: None, ..publish };
    client.send_binary(&ClientFrame::Publish(broken)).await;
    let Some(Ok(Message::Binary(answer))) = client.next().await else { panic!("a binary frame") };
    let Ok(ServerFrame::Error(error)) = binary::read_server(&answer) else { panic!("an error") };
    assert_eq!((error.reference.as_deref(), error.field.as_deref()), (Some("r"), Some("payload")));
    relay.stop().await;
}

on_both_backends! {
    a_subscriber_gets_history_and_then_what_comes,
    every_cursor_starts_where_it_says,
    topics_come_and_go_while_connected,
    a_topic_that_must_exist_and_does_not_is_refused_alone,
    pipelined_publishes_are_answered_and_keep_their_order,
    a_key_makes_a_repeat_harmless,
    both_encodings_say_the_same,
}

#[tokio::test]
async fn pings_and_acks_are_taken() {
    let relay = TestRelay::start(memory()).await;
    let mut client = WsClient::connect(relay.address).await;
    client.send(r#"{"type":"ack","message_id":"1-0"}"#).await;
    let pong = client.ask(r#"{"type":"ping","ref":"p"}"#, "pong").await;
    assert_eq!(pong["ref"], "p");
    assert!(pong["timestamp"].as_str().is_some_and(|text| text.ends_with('Z')), "{pong}");
    client.close().await;
    relay.stop().await;
}

#[tokio::test]
async fn a_connection_reads_so_many_topics_and_no_more() {
    let relay = TestRelay::start_with(memory(), |options| options.ws.topics_max = 50).await;
    let mut names = String::new();
    for n in 0..51 {
        relay.publish(&format!("t{n}"), "1").await;
        if n < 50 {
            let _ = write!(names, r#","t{n}""#);
        }
    }
    let mut client = WsClient::connect(relay.address).await;
    let subscribe = format!(r#"{{"type":"subscribe","topics":[{}]}}"#, &names[1..]);
    let subscribed = client.ask(&subscribe, "subscribed").await;
    assert_eq!(subscribed["topics"].as_array().map(Vec::len), Some(50));
    let refused = client.ask(r#"{"type":"subscribe","topics":["t50"]}"#, "error").await;
    assert!(refused["message"].as_str().expect("a text").contains("at most 50 topics"), "{refused}");
    // The same ones again are no more than before.
    client.ask(&subscribe, "subscribed").await;
    relay.stop().await;
}

#[tokio::test]
async fn what_was_sent_before_the_close_is_published() {
    let relay = TestRelay::start(memory()).await;
    let mut client = WsClient::connect(relay.address).await;
    for n in 0..500 {
        client.send(format!(r#"{{"type":"publish","topic":"t","payload":{n}}}"#)).await;
    }
    client.close().await;
    assert_eq!(relay.get("/api/v1/topics/t").await.json()["length"], 500);
    relay.stop().await;
}

#[tokio::test]
async fn a_session_that_the_relay_ends_is_told_where_it_stood() {
    let relay = TestRelay::start(memory()).await;
    let id = relay.publish("t", "0").await;
    let mut client = WsClient::connect(relay.address).await;
    client.subscribe("t", "earliest").await;
    client.expect("message").await;
    assert_eq!(relay.sessions.end(&Caller::anyone()), 1);
    let end = client.expect("end").await;
    assert_eq!((&end["cursors"]["t"], end["reason"].as_str()), (&id.into(), Some(Leave::Ended.reason())));
    assert_eq!(client.got().await, Got::Close(4401));
    // One that comes later is none of those that were ended.
    let mut later = WsClient::connect(relay.address).await;
    later.subscribe("t", "earliest").await;
    later.expect("message").await;
    relay.stop().await;
}
