//! Over WebSocket: a publish for later is answered with its schedule, in both encodings.

use std::time::Duration;

use serde_json::{Value, json};
use tidemill::proto::frame::{ClientFrame, ServerFrame, binary};
use tidemill::proto::{Code, Delivery};
use tidemill::storage::Storage;
use tokio_tungstenite::tungstenite::Message;

use super::on_both_backends;
use crate::support::relay::TestRelay;
use crate::support::ws::{WsClient, publish_frame};

on_both_backends![
    a_publish_for_later_is_answered_with_its_schedule,
    both_encodings_schedule,
    publishes_for_now_and_for_later_may_be_pipelined,
];

async fn a_publish_for_later_is_answered_with_its_schedule(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let mut client = WsClient::connect(relay.address).await;
    client.subscribe("t", "earliest").await;
    let frame = r#"{"type":"publish","ref":"r","topic":"t","payload":1,"delay":"300ms","key":"k"}"#;
    let first = client.ask(frame, "scheduled").await;
    assert_eq!(
        (&first["ref"], &first["topic"], &first["replayed"]),
        (&json!("r"), &json!("t"), &Value::Null)
    );
    assert!(first["schedule_id"].is_string() && first["deliver_at"].is_string(), "{first}");
    let again = client.ask(frame, "scheduled").await;
    assert_eq!((&again["schedule_id"], &again["replayed"]), (&first["schedule_id"], &json!(true)));
    let message = client.expect("message").await;
    assert_eq!(message["payload"], 1);
    let again = client.ask(frame, "scheduled").await;
    assert_eq!((&again["deliver_at"], &again["replayed"]), (&first["deliver_at"], &json!(true)));
    for (fields, field) in [
        (r#""delay":-1"#, "delay"),
        (r#""delay":"400d""#, "delay"),
        (r#""delay":1,"deliver_at":"2026-01-01T00:00:00Z""#, "delay"),
        (r#""deliver_at":"9999-01-01T00:00:00Z""#, "deliver_at"),
    ] {
        let frame = format!(r#"{{"type":"publish","ref":"r","topic":"t","payload":1,{fields}}}"#);
        let refused = client.ask(&frame, "error").await;
        assert_eq!((&refused["details"]["field"], &refused["ref"]), (&json!(field), &json!("r")), "{fields}");
    }
    client.close().await;
    relay.stop().await;
}

async fn both_encodings_schedule(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let mut client = WsClient::connect_binary(relay.address).await;
    let publish = |delay| {
        let delivery = Some(Delivery::After(Duration::from_secs(delay)));
        ClientFrame::Publish(tidemill::proto::frame::Publish { delivery, ..publish_frame("t", b"1") })
    };
    client.send_binary(&publish(3_600)).await;
    let Some(Ok(Message::Binary(answer))) = client.next().await else { panic!("a binary frame") };
    let Ok(ServerFrame::Scheduled { schedule_id, replayed, .. }) = binary::read_server(&answer) else {
        panic!("scheduled")
    };
    assert!(!replayed);
    let listed = relay.get("/api/v1/topics/t/scheduled").await.json();
    assert_eq!(listed[0]["schedule_id"], schedule_id.as_str());
    // The binary form can say what the other cannot be read with.
    client.send_binary(&publish(366 * 24 * 3_600)).await;
    let Some(Ok(Message::Binary(answer))) = client.next().await else { panic!("a binary frame") };
    let Ok(ServerFrame::Error(error)) = binary::read_server(&answer) else { panic!("an error") };
    assert_eq!((error.code, error.field.as_deref()), (Code::InvalidField, Some("delay")));
    client.close().await;
    relay.stop().await;
}

async fn publishes_for_now_and_for_later_may_be_pipelined(storage: Storage) {
    const COUNT: usize = 200;

    let relay = TestRelay::start(storage).await;
    let mut client = WsClient::connect(relay.address).await;
    for number in 0..COUNT {
        let delay = if number % 3 == 0 { r#","delay":3600"# } else { "" };
        let frame = format!(r#"{{"type":"publish","ref":"{number}","topic":"t","payload":{number}{delay}}}"#);
        client.send(frame).await;
    }
    for number in 0..COUNT {
        let kind = if number % 3 == 0 { "scheduled" } else { "published" };
        let answer = client.expect(kind).await;
        assert_eq!(answer["ref"], number.to_string(), "answers come in the order of the frames");
    }
    let listed = relay.get("/api/v1/topics/t/scheduled").await.json();
    let waiting: Vec<_> =
        listed.as_array().expect("a list").iter().map(|one| one["payload"].clone()).collect();
    assert_eq!(waiting, (0..COUNT).step_by(3).map(|number| json!(number)).collect::<Vec<_>>());
    client.close().await;
    relay.stop().await;
}
