//! Each question has its answer, also where another follows before it has begun.

use serde_json::json;
use tidemill::storage::Storage;

use super::on_both_backends;
use crate::support::relay::TestRelay;
use crate::support::ws::WsClient;

on_both_backends![what_is_consumed_is_answered_each_time];

async fn what_is_consumed_is_answered_each_time(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let json = [("content-type", "application/json")];
    assert_eq!(relay.send("PUT", "/api/v1/topics/t/groups/g", &json, b"{}").await.status, 201);
    for credits in [&[1, 0][..], &[2, 1], &[1, 2, 0, 3], &[0, 0]] {
        let mut client = WsClient::connect(relay.address).await;
        for (at, credit) in credits.iter().enumerate() {
            let frame = json!({
                "type": "consume", "topic": "t", "group": "g", "credit": credit, "ref": at.to_string(),
            });
            client.send(frame.to_string()).await;
        }
        for (at, credit) in credits.iter().enumerate() {
            let consuming = client.expect("consuming").await;
            assert_eq!((&consuming["ref"], &consuming["credit"]), (&json!(at.to_string()), &json!(credit)));
        }
        client.close().await;
    }
    relay.stop().await;
}
