//! Watches over a WebSocket that are refused: wrong frames, one too many, who may not, and what is switched off.

use serde_json::{Value, json};
use tidemill::features::{Feature, Features};

use crate::access::closed::{self, ROOT, token};
use crate::support::relay::{TestRelay, memory};
use crate::support::ws::WsClient;

#[tokio::test]
async fn what_is_wrong_is_told() {
    let relay = TestRelay::start(memory()).await;
    let mut client = WsClient::connect(relay.address).await;
    let long = "n".repeat(129);
    for (frame, field) in [
        (json!({ "bucket": "b" }), "watch"),
        (json!({ "watch": "", "bucket": "b" }), "watch"),
        (json!({ "watch": long, "bucket": "b" }), "watch"),
        (json!({ "watch": "w" }), "bucket"),
        (json!({ "watch": "w", "bucket": ".b" }), "bucket"),
        (json!({ "watch": "w", "bucket": "b", "prefix": "a b" }), "prefix"),
        (json!({ "watch": "w", "bucket": "b", "key": "" }), "key"),
        (json!({ "watch": "w", "bucket": "b", "key": "a", "prefix": "a" }), "key"),
        (json!({ "watch": "w", "bucket": "b", "room": "r" }), "room"),
        (json!({ "watch": "w", "room": "a/b" }), "room"),
        (json!({ "watch": "w", "room": "r", "prefix": "a" }), "prefix"),
        (json!({ "watch": "w", "room": "r", "key": "a" }), "key"),
        (json!({ "watch": "w", "bucket": "b", "cursor": "soon" }), "cursor"),
        (json!({ "watch": "w", "bucket": "b", "since": "1-0" }), "since"),
    ] {
        let mut frame = frame;
        frame["type"] = json!("watch");
        frame["ref"] = json!("5");
        let error = client.ask(frame.to_string(), "error").await;
        let told = (&error["code"], &error["details"]["code"], &error["details"]["field"], &error["ref"]);
        let expected = (&json!("PROCESSING_ERROR"), &json!("invalid_field"), &json!(field), &json!("5"));
        assert_eq!(told, expected, "{frame}: {error}");
    }
    let error = client.ask(json!({ "type": "unwatch", "watch": "" }).to_string(), "error").await;
    assert_eq!(error["details"]["field"], "watch");
    assert_eq!(relay.get("/api/v1/buckets").await.json(), json!([]), "nothing was made");
    // None of it is watched.
    client.ask(json!({ "type": "watch", "watch": "w", "bucket": "b" }).to_string(), "watching").await;
    client.expect("synced").await;
    relay.stop().await;
}

#[tokio::test]
async fn a_connection_watches_and_reads_so_much() {
    let relay = TestRelay::start_with(memory(), |options| options.ws.topics_max = 3).await;
    let mut client = WsClient::connect(relay.address).await;
    client.subscribe("t", "latest").await;
    let watch = |name: &str| json!({ "type": "watch", "watch": name, "bucket": "b" }).to_string();
    for name in ["a", "b"] {
        client.ask(watch(name), "watching").await;
        client.expect("synced").await;
    }
    let error = client.ask(watch("c"), "error").await;
    assert_eq!(error["details"]["field"], "watch", "{error}");
    assert!(error["message"].as_str().is_some_and(|text| text.contains("TIDEMILL_WS_TOPICS_MAX")), "{error}");
    let error = client.ask(r#"{"type":"subscribe","topics":["u"]}"#, "error").await;
    assert_eq!(error["details"]["field"], "topics", "{error}");
    // What ends makes room, for either.
    client.ask(json!({ "type": "unwatch", "watch": "a" }).to_string(), "unwatched").await;
    client.ask(r#"{"type":"subscribe","topics":["u"]}"#, "subscribed").await;
    client.ask(r#"{"type":"unsubscribe","topics":["u"]}"#, "unsubscribed").await;
    client.ask(watch("c"), "watching").await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rule_says_who_may_watch_what() {
    let relay = closed::start(memory()).await;
    let (id, who) = token(&relay, ROOT, &["allow read keys/b/a.*", "allow read presence/lobby/*"]).await;
    let connect = async |who: &str| WsClient::connect_with(relay.address, &[("authorization", who)]).await;
    let mut client = connect(&who).await.expect("who may watch may connect");
    for (frame, may) in [
        (json!({ "bucket": "b", "prefix": "a." }), true),
        (json!({ "bucket": "b", "key": "a.1" }), true),
        (json!({ "room": "lobby" }), true),
        (json!({ "bucket": "b" }), false),
        (json!({ "bucket": "b", "key": "z" }), false),
        (json!({ "bucket": "c", "prefix": "a." }), false),
        (json!({ "room": "other" }), false),
    ] {
        let mut frame = frame;
        frame["type"] = json!("watch");
        frame["watch"] = json!("w");
        if may {
            client.ask(frame.to_string(), "watching").await;
            client.expect("synced").await;
            client.ask(json!({ "type": "unwatch", "watch": "w" }).to_string(), "unwatched").await;
        } else {
            let error = client.ask(frame.to_string(), "error").await;
            assert_eq!(error["details"]["code"], "forbidden", "{frame}: {error}");
        }
    }
    let watch = json!({ "type": "watch", "watch": "w", "room": "lobby" });
    client.ask(watch.to_string(), "watching").await;
    client.expect("synced").await;
    let path = format!("/api/v1/tokens/{id}");
    assert_eq!(closed::send(&relay, Some(ROOT), "DELETE", &path, &Value::Null).await.status, 204);
    assert_eq!(client.expect("end").await["reason"], "revoked");
    let (_, nothing) = token(&relay, ROOT, &["allow publish keys/*"]).await;
    assert!(connect(&nothing).await.is_err(), "there is nothing for it to do here");
    relay.stop().await;
}

#[tokio::test]
async fn what_is_switched_off_is_not_watched() {
    let relay = TestRelay::start_with(memory(), |options| {
        let features = Features::all().without(Feature::Keys).without(Feature::Presence);
        (options.relay.features, options.http.features) = (features, features);
    })
    .await;
    let mut client = WsClient::connect(relay.address).await;
    for (frame, field) in [
        (json!({ "type": "watch", "watch": "w", "bucket": "b" }), "bucket"),
        (json!({ "type": "watch", "watch": "w", "room": "r" }), "room"),
    ] {
        let error = client.ask(frame.to_string(), "error").await;
        assert_eq!(error["details"]["field"], field, "{error}");
        assert!(error["message"].as_str().is_some_and(|text| text.contains("TIDEMILL_FEATURES")), "{error}");
    }
    relay.stop().await;
}
