//! The session of today's clients, frame by frame: what pulsar-relay answers, Tidemill answers.

use serde_json::{Value, json};

use crate::support::relay::{TestRelay, memory};
use crate::support::ws::WsClient;

/// Returns the fields of a frame, in the order in which they stand.
fn fields(frame: &Value) -> Vec<&str> {
    frame.as_object().expect("an object").keys().map(String::as_str).collect()
}

#[tokio::test]
async fn todays_clients_are_served_unchanged() {
    let relay = TestRelay::start(memory()).await;
    relay.publish("job_setup", r#"{"n":0}"#).await;
    relay.publish("job_status", r#"{"n":0}"#).await;
    let token = [("sec-websocket-protocol", "bearer, bearer.eyJhbGciOiJIUzI1NiJ9.e30.c2ln")];
    let mut client = WsClient::connect_with(relay.address, &token).await.expect("an upgrade");
    assert_eq!(client.protocol.as_deref(), Some("bearer"));

    let subscribe =
        r#"{"type":"subscribe","topics":["job_setup","job_status"],"client_id":"galaxy-1","offset":"last"}"#;
    let subscribed = client.ask(subscribe, "subscribed").await;
    assert_eq!(subscribed["topics"], json!(["job_setup", "job_status"]));
    assert!(subscribed["session_id"].is_string() && subscribed["timestamp"].is_string());

    let id = {
        let answer = relay
            .post(
                "/api/v1/messages",
                r#"{"topic":"job_setup","payload":{"job":"1"},"metadata":{"sender":"galaxy"}}"#,
            )
            .await;
        answer.json()["message_id"].clone()
    };
    let message = client.expect("message").await;
    assert_eq!(fields(&message), ["message_id", "metadata", "payload", "timestamp", "topic", "type"]);
    assert_eq!(message["message_id"], id);
    assert_eq!((&message["topic"], &message["payload"]), (&json!("job_setup"), &json!({"job": "1"})));
    assert_eq!(message["metadata"], json!({"sender": "galaxy"}));
    client.send(format!(r#"{{"type":"ack","message_id":{id}}}"#)).await;

    let pong = client.ask(r#"{"type":"ping"}"#, "pong").await;
    assert_eq!(fields(&pong), ["timestamp", "type"]);

    let error = client.ask(r#"{"type":"noise"}"#, "error").await;
    assert_eq!(fields(&error), ["code", "details", "message", "type"]);
    assert_eq!(error["code"], "UNKNOWN_MESSAGE_TYPE");
    assert_eq!(client.ask("noise", "error").await["code"], "PROCESSING_ERROR");
    let error = client.ask(r#"{"type":"subscribe","topics":["no where"]}"#, "error").await;
    assert_eq!(error["code"], "SUBSCRIPTION_ERROR");
    // What nobody has published to yet is no error any more.
    client.ask(r#"{"type":"subscribe","topics":["nowhere"]}"#, "subscribed").await;

    client.ask(r#"{"type":"unsubscribe","topics":["job_setup"]}"#, "unsubscribed").await;
    relay.publish("job_setup", "1").await;
    relay.publish("job_status", "2").await;
    assert_eq!(client.expect("message").await["payload"], 2);
    // What they did not have: going on where they were.
    client.close().await;
    relay.publish("job_setup", "3").await;
    let mut client = WsClient::connect_with(relay.address, &token).await.expect("an upgrade");
    let resume = json!({"type": "subscribe", "topics": ["job_setup"], "client_id": "galaxy-1", "offset": id});
    client.ask(resume.to_string(), "subscribed").await;
    assert_eq!(client.expect("message").await["payload"], 1);
    assert_eq!(client.expect("message").await["payload"], 3);
    client.close().await;
    relay.stop().await;
}
