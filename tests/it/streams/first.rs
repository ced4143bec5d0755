//! Readers that come before their topic: they wait for it, and get it from its first message on.

use serde_json::{Value, json};
use tidemill::proto::Code;
use tidemill::proto::topics::TopicUpdate;

use super::client::Coming;
use super::on_both_backends;
use crate::support::doors::{Readers, bare};
use crate::support::ground::Ground;
use crate::support::relay::TestRelay;
use crate::support::ws::WsClient;

const TOPIC: &str = "first";

/// Cursors that say nothing of a topic that does not exist, and how one that does is told of.
const CURSORS: [(&str, &[&str]); 5] = [
    ("latest", &[]),
    ("earliest", &[]),
    ("-10m", &[]),
    ("2040-01-01T00:00:00Z", &[]),
    ("1517363399650-3", &["gap deleted"]),
];

async fn every_door_waits_for_the_first_message_whatever_the_cursor(ground: &Ground) {
    let relay = TestRelay::start(ground.storage.clone()).await;
    for (number, (cursor, before)) in CURSORS.into_iter().enumerate() {
        let topic = format!("{TOPIC}-{number}");
        let mut readers = Readers::attach(&relay, &topic, cursor).await;
        let expected = [before, &["1", "2"]].concat();
        for (door, told) in readers.next(before.len(), cursor).await {
            assert_eq!(told, before, "{cursor} on {door}");
        }
        assert_eq!(relay.get(&format!("/api/v1/topics/{topic}")).await.status, 404, "waiting makes none");
        relay.publish(&topic, "1").await;
        relay.publish(&topic, "2").await;
        for (door, told) in readers.next(2, cursor).await {
            assert_eq!(
                [before, &told.iter().map(String::as_str).collect::<Vec<_>>()].concat(),
                expected,
                "{door}"
            );
        }
        assert_eq!(readers.have_more(), None, "{cursor}");
    }
    relay.stop().await;
}

async fn after_a_deletion_comes_the_gap_and_then_the_next_topic(ground: &Ground) {
    let relay = TestRelay::start(ground.storage.clone()).await;
    let first = relay.publish(TOPIC, "1").await;
    let mut readers = Readers::attach(&relay, TOPIC, "earliest").await;
    readers.next(1, "the first topic").await;
    assert_eq!(relay.send("DELETE", &format!("/api/v1/topics/{TOPIC}"), &[], b"").await.status, 204);
    for (door, told) in readers.next(1, "its end").await {
        assert_eq!(told, ["gap deleted"], "{door}");
    }
    // Who comes now has missed the same.
    let mut late = Readers::attach(&relay, TOPIC, &first).await;
    for (door, told) in late.next(1, "who comes late").await {
        assert_eq!(told, ["gap deleted"], "{door}");
    }
    relay.publish(TOPIC, "2").await;
    for readers in [&mut readers, &mut late] {
        for (door, told) in readers.next(1, "the next topic").await {
            assert_eq!(told, ["2"], "{door}");
        }
        assert_eq!(readers.have_more(), None);
    }
    drop((readers, late));
    relay.stop().await;
}

/// Waits on the doors that answer once, while the message is published.
async fn polls_that_wait_get_the_first_message(ground: &Ground) {
    let relay = TestRelay::start(ground.storage.clone()).await;
    for (number, (cursor, before)) in CURSORS.into_iter().enumerate() {
        for door in ["wait", "poll"] {
            let topic = format!("{door}-{number}");
            let publish = async {
                crate::support::eventually(crate::support::relay::STUCK, async || {
                    relay.get("/messages/poll/stats").await.json()["active_waiters"] == 1
                })
                .await;
                relay.publish(&topic, "1").await;
            };
            let (told, ()) = tokio::join!(bare(&relay, door, (&topic, cursor), "1"), publish);
            assert_eq!(told, [before, &["1"]].concat(), "{cursor} on {door}");
        }
    }
    relay.stop().await;
}

/// A cursor of who was there before the first message says so, and stays what it is until there is one: what is
/// trimmed before its reader comes back is told.
async fn a_cursor_from_before_the_first_message_proves_every_one_that_is_missed(ground: &Ground) {
    let relay = TestRelay::start(ground.storage.clone()).await;
    let lose = async |topic: &str| {
        relay.publish(topic, "0").await;
        relay.publish(topic, "1").await;
        let path = format!("/api/v1/topics/{topic}/trim");
        assert_eq!(relay.post(&path, r#"{"keep":1}"#).await.status, 200);
    };
    let poll = async |topic: &str, since: &str| {
        let body = json!({"topics": [topic], "since": {topic: since}, "timeout": 1}).to_string();
        relay.post("/messages/poll", body).await.json()
    };
    for since in ["latest", "0-0", "earliest", "-10m"] {
        let topic = format!("polled{since}");
        for _ in 0..2 {
            assert_eq!(poll(&topic, since).await["cursors"][&topic], "0-0", "{since}");
        }
        assert_eq!(poll(&topic, "0-0").await["cursors"][&topic], "0-0");
        lose(&topic).await;
        let answer = poll(&topic, "0-0").await;
        assert_eq!(answer["gaps"][0]["missed"], 1, "{answer}");
        assert_eq!(answer["messages"][0]["payload"], 1);
    }
    relay
        .send("POST", "/api/v1/topics", &[("content-type", "application/json")], br#"{"topic_name":"empty"}"#)
        .await;
    for (topic, offset) in [("empty", "latest"), ("none", "latest"), ("none", "earliest")] {
        let mut socket = WsClient::connect(relay.address).await;
        let frame = json!({"type": "subscribe", "topics": [topic], "offset": offset}).to_string();
        let subscribed = socket.ask(frame, "subscribed").await;
        assert_eq!(subscribed["cursors"][topic], "0-0", "{subscribed}");
    }
    relay.stop().await;
}

fn absent(frame: &Value) -> Vec<&str> {
    let names = frame["absent"].as_array().unwrap_or_else(|| panic!("{frame}"));
    names.iter().map(|name| name.as_str().expect("a name")).collect()
}

async fn the_answer_says_which_topics_are_absent(ground: &Ground) {
    let relay = TestRelay::start(ground.storage.clone()).await;
    relay.publish("there", "1").await;
    for (path, expected) in [
        ("/api/v1/topics/none/messages", &["none"][..]),
        ("/api/v1/topics/there/messages", &[]),
        ("/api/v1/stream?topics=there,none,other", &["none", "other"]),
    ] {
        let events = Coming::events(relay.address, path, &[]).await.expect("events");
        assert_eq!(absent(&events.opening.json()), expected, "{path}");
        let lines = Coming::lines(relay.address, path).await.expect("lines");
        assert_eq!(absent(&lines.opening.json()), expected, "{path}");
    }
    let mut socket = WsClient::connect(relay.address).await;
    let frame = json!({"type": "subscribe", "topics": ["none", "there"], "offset": "earliest"}).to_string();
    let subscribed = socket.ask(frame, "subscribed").await;
    assert_eq!(absent(&subscribed), ["none"]);
    assert_eq!(subscribed["topics"], json!(["none", "there"]));

    let page = relay.get("/api/v1/topics/none/messages?wait=1").await.json();
    assert_eq!((&page["absent"], &page["messages"]), (&json!(true), &json!([])));
    let page = relay.get("/api/v1/topics/there/messages?wait=1").await.json();
    assert_eq!(page.get("absent"), None);
    let poll = json!({"topics": ["there", "none"], "timeout": 1}).to_string();
    assert_eq!(absent(&relay.post("/messages/poll", poll).await.json()), ["none"]);

    // A feed that has found none may not know yet that there is one.
    ground
        .storage
        .topics
        .create(&crate::support::ground::topic("none"), TopicUpdate::default(), None)
        .await
        .expect("made");
    let mut socket = WsClient::connect(relay.address).await;
    let frame = json!({"type": "subscribe", "topics": ["none"], "must_exist": true}).to_string();
    assert_eq!(absent(&socket.ask(frame, "subscribed").await), [""; 0]);
    relay.stop().await;
}

async fn a_topic_that_others_wait_for_is_refused_where_it_must_exist(ground: &Ground) {
    let relay = TestRelay::start(ground.storage.clone()).await;
    let _waits = Coming::lines(relay.address, "/api/v1/topics/none/messages").await.expect("it waits");
    for after in ["earliest", "latest", "1-0"] {
        for path in [
            format!("/api/v1/topics/none/messages?wait=1&must_exist=true&after={after}"),
            format!("/api/v1/stream?topics=none&must_exist=true&after={after}"),
        ] {
            assert_eq!(relay.get(&path).await.problem().code, Code::TopicNotFound, "{path}");
        }
    }
    let page = relay.get("/api/v1/topics/none/messages?must_exist=true").await.problem();
    assert_eq!(page.code, Code::TopicNotFound, "a page that waits for nothing");
    relay.stop().await;
}

async fn topics_that_are_waited_for_are_bounded(ground: &Ground) {
    let relay =
        TestRelay::start_with(ground.storage.clone(), |options| options.relay.live_topics_max = 2).await;
    relay.publish("there", "1").await;
    let path = |name: &str| format!("/api/v1/topics/{name}/messages");
    let _one = Coming::lines(relay.address, &path("none")).await.expect("it waits");
    let two = Coming::lines(relay.address, &path("there")).await.expect("it reads");
    let refused = relay.get("/api/v1/stream?topics=there,more").await.problem();
    assert_eq!(refused.code, Code::Overloaded);
    assert!(refused.detail.contains("TIDEMILL_LIVE_TOPICS_MAX"), "{refused:?}");
    let _same = Coming::lines(relay.address, &path("none")).await.expect("it has a feed");
    drop(two);
    relay.stop().await;
}

on_both_backends! {
    every_door_waits_for_the_first_message_whatever_the_cursor,
    after_a_deletion_comes_the_gap_and_then_the_next_topic,
    polls_that_wait_get_the_first_message,
    a_cursor_from_before_the_first_message_proves_every_one_that_is_missed,
    the_answer_says_which_topics_are_absent,
    a_topic_that_others_wait_for_is_refused_where_it_must_exist,
    topics_that_are_waited_for_are_bounded,
}
