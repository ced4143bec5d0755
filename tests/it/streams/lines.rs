//! Streams of lines: their form, and the signs of life.

use std::time::Duration;

use super::client::Coming;
use super::on_both_backends;
use crate::support::ground::{Ground, append, json, message, topic};
use crate::support::relay::TestRelay;

const PATH: &str = "/api/v1/topics/lines/messages";

async fn each_line_is_one_frame(ground: &Ground) {
    let relay = TestRelay::start(ground.storage.clone()).await;
    let id = append(&ground.storage, message(&topic("lines"), json("{\n\"a\":\r\n1.10}"))).await.unwrap().id;
    let mut coming = Coming::lines(relay.address, &format!("{PATH}?after=earliest")).await.unwrap();
    assert_eq!(coming.head.header("cache-control"), Some("no-cache, no-transform"));
    let mut line = coming.line().await.unwrap().expect("a line");
    let object = line.as_object_mut().expect("an object");
    assert_eq!(object.remove("type"), Some("message".into()));
    assert_eq!(line, relay.get(&format!("{PATH}/{id}")).await.json());
    relay.publish("lines", "2").await;
    assert_eq!(coming.line().await.unwrap().expect("a line")["payload"], 2);
    relay.stop().await;
}

#[tokio::test]
async fn a_silent_stream_pings() {
    let storage = crate::support::relay::memory();
    let relay = TestRelay::start_with(storage, |options| {
        options.http.ping_every = Duration::from_millis(50);
    })
    .await;
    relay.publish("lines", "1").await;
    let mut coming = Coming::lines(relay.address, PATH).await.unwrap();
    for _ in 0..3 {
        let ping = coming.line().await.unwrap().expect("a ping");
        assert_eq!(ping["type"], "ping");
        assert!(ping["timestamp"].is_string());
    }
    relay.stop().await;
}

on_both_backends! { each_line_is_one_frame }
