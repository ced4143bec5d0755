//! Patterns over a WebSocket, in both encodings.

use serde_json::{Value, json};
use tidemill::proto::PatternCursor;
use tidemill::proto::frame::{ServerFrame, binary};
use tokio_tungstenite::tungstenite::Message;

use super::on_both_backends;
use crate::support::relay::TestRelay;
use crate::support::ws::WsClient;
use tidemill::storage::Storage;

/// Returns the next message, and keeps the newest cursor.
async fn next(client: &mut WsClient, cursor: &mut String) -> (String, Value) {
    loop {
        let frame = client.frame().await;
        match frame["type"].as_str() {
            Some("message") => {
                return (frame["topic"].as_str().expect("a topic").to_owned(), frame["payload"].clone());
            }
            Some("cursor") => {
                assert_eq!(frame["topic"], "orders.*");
                frame["cursor"].as_str().expect("a text").clone_into(cursor);
            }
            _ => panic!("not expected: {frame}"),
        }
    }
}

async fn a_pattern_is_read_beside_topics_and_left(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    relay.publish("orders.a", "1").await;
    relay.publish("plain", "1").await;
    let mut client = WsClient::connect(relay.address).await;
    let subscribe = json!({"type": "subscribe", "topics": ["orders.*", "plain"], "offset": "earliest"});
    let subscribed = client.ask(subscribe.to_string(), "subscribed").await;
    assert_eq!(subscribed["topics"], json!(["plain", "orders.*"]));
    let mut cursor = subscribed["cursors"]["orders.*"].as_str().expect("a cursor").to_owned();
    assert!(PatternCursor::parse(&cursor).is_ok() && subscribed["absent"] == json!([]), "{subscribed}");
    let mut got = vec![next(&mut client, &mut cursor).await, next(&mut client, &mut cursor).await];
    got.sort_by(|one, other| one.0.cmp(&other.0));
    assert_eq!(got, [("orders.a".to_owned(), json!(1)), ("plain".to_owned(), json!(1))]);
    relay.publish("orders.b", "2").await;
    assert_eq!(next(&mut client, &mut cursor).await, ("orders.b".to_owned(), json!(2)));

    // Whoever comes back with the cursor gets what came since; some of it may come again.
    drop(client);
    relay.publish("orders.c", "3").await;
    let mut client = WsClient::connect(relay.address).await;
    let frame = json!({"type": "subscribe", "topics": ["orders.*"], "cursors": {"orders.*": cursor}});
    client.ask(frame.to_string(), "subscribed").await;
    while next(&mut client, &mut cursor).await != ("orders.c".to_owned(), json!(3)) {}

    client.send(r#"{"type":"unsubscribe","topics":["orders.*"]}"#).await;
    loop {
        let frame = client.frame().await;
        if frame["type"] == "unsubscribed" {
            assert_eq!(frame["topics"], json!(["orders.*"]));
            assert!(frame["cursors"]["orders.*"].is_string(), "{frame}");
            break;
        }
    }
    relay.publish("orders.c", "4").await;
    client.ask(r#"{"type":"ping"}"#, "pong").await;
    relay.stop().await;
}

async fn what_is_wrong_with_a_pattern_is_said(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    relay.publish("t", "1").await;
    let mut client = WsClient::connect(relay.address).await;
    for (topics, cursors, field) in [
        (json!([".*"]), json!({}), "topics"),
        (json!(["*********"]), json!({}), "topics"),
        (json!(["orders.*"]), json!({"orders.*": "p1.A"}), "cursors"),
        (json!(["t"]), json!({"t": "p1.AA"}), "cursors"),
    ] {
        let frame = json!({"type": "subscribe", "topics": topics, "cursors": cursors}).to_string();
        let refused = client.ask(frame, "error").await;
        assert_eq!(
            (&refused["code"], &refused["details"]["field"]),
            (&json!("SUBSCRIPTION_ERROR"), &json!(field))
        );
    }
    relay.stop().await;
}

async fn the_binary_encoding_has_them_too(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    relay.publish("orders.a", "1").await;
    let mut client = WsClient::connect_binary(relay.address).await;
    client.subscribe("orders.*", "earliest").await;
    let (mut has_message, mut has_cursor) = (false, false);
    while !has_message || !has_cursor {
        let Some(Ok(Message::Binary(bytes))) = client.next().await else { panic!("no frame") };
        match binary::read_server(&bytes).expect("a frame") {
            ServerFrame::Message(message) => {
                assert_eq!((&*message.payload, message.topic.as_str()), (&b"1"[..], "orders.a"));
                has_message = true;
            }
            ServerFrame::Cursor { pattern, .. } => {
                assert_eq!(pattern.as_str(), "orders.*");
                has_cursor = true;
            }
            other => panic!("{other:?}"),
        }
    }
    relay.stop().await;
}

on_both_backends! {
    a_pattern_is_read_beside_topics_and_left,
    what_is_wrong_with_a_pattern_is_said,
    the_binary_encoding_has_them_too,
}
