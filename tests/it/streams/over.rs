//! Messages whose time is over, which are shown to nobody who comes later, on whichever transport.

use serde_json::{Value, json};

use super::client::{Coming, number};
use super::on_both_backends;
use crate::support::eventually;
use crate::support::ground::{Ground, SOON};
use crate::support::relay::TestRelay;
use crate::support::ws::WsClient;

const PATH: &str = "/api/v1/topics/short/messages";

on_both_backends![
    what_is_over_is_shown_to_nobody_who_comes_later,
    what_is_over_is_shown_to_no_reader_of_a_pattern_who_comes_back,
];

async fn publish(relay: &TestRelay, number: u64, ttl: Option<u64>) -> String {
    let body = json!({ "topic": "short", "payload": number, "ttl": ttl }).to_string();
    let answer = relay.post("/api/v1/messages", body).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.json()["message_id"].as_str().expect("an id").to_owned()
}

fn numbers(messages: &Value) -> Vec<u64> {
    messages.as_array().expect("messages").iter().map(number).collect()
}

/// Returns what a transport shows behind a place, up to the fourth.
async fn shown(relay: &TestRelay, transport: &str, after: &str) -> Vec<u64> {
    let path = format!("{PATH}?after={after}");
    let mut shown = Vec::new();
    match transport {
        "events" => {
            let mut coming = Coming::events(relay.address, &path, &[]).await.expect("a stream");
            while shown.last() != Some(&4) {
                shown.push(number(&coming.message().await.expect("it goes on").expect("a message").json()));
            }
        }
        "lines" => {
            let mut coming = Coming::lines(relay.address, &path).await.expect("a stream");
            while shown.last() != Some(&4) {
                let line = coming.line().await.expect("it goes on").expect("a line");
                assert_eq!(line["type"], "message", "{line}");
                shown.push(number(&line));
            }
        }
        "socket" => {
            let mut socket = WsClient::connect(relay.address).await;
            socket.subscribe("short", after).await;
            while shown.last() != Some(&4) {
                shown.push(number(&socket.expect("message").await));
            }
            socket.close().await;
        }
        "poll" => {
            let body = json!({ "topics": ["short"], "since": { "short": after } }).to_string();
            shown = numbers(&relay.post("/messages/poll", body).await.json()["messages"]);
        }
        _ => shown = numbers(&relay.get(&format!("{path}&limit=100&{transport}")).await.json()["messages"]),
    }
    shown
}

async fn what_is_over_is_shown_to_nobody_who_comes_later(ground: &Ground) {
    let relay = TestRelay::start(ground.storage.clone()).await;
    // Who was there before the first message has all of them in memory.
    let mut live = Coming::events(relay.address, PATH, &[]).await.expect("a stream");
    let first = publish(&relay, 1, None).await;
    for (number, ttl) in [(2, Some(1)), (3, None), (4, Some(3_600))] {
        publish(&relay, number, ttl).await;
    }
    for expected in 1..=4 {
        let message = live.message().await.expect("it goes on").expect("a message");
        assert_eq!(number(&message.json()), expected);
    }
    for transport in ["order=asc", "events", "lines", "socket", "poll", "wait=30"] {
        for (after, expected) in [("earliest", &[1, 3, 4][..]), (&first, &[3, 4])] {
            eventually(SOON, async || shown(&relay, transport, after).await == expected).await;
        }
    }
    publish(&relay, 5, None).await;
    let message = live.message().await.expect("it goes on").expect("a message");
    assert_eq!(number(&message.json()), 5, "who is there already goes on");
    relay.stop().await;
}

async fn what_is_over_is_shown_to_no_reader_of_a_pattern_who_comes_back(ground: &Ground) {
    let relay = TestRelay::start(ground.storage.clone()).await;
    let path = "/api/v1/stream?topics=sho*";
    let mut live = Coming::events(relay.address, path, &[]).await.expect("a stream");
    publish(&relay, 1, None).await;
    // The first place that names the message.
    let mut has_come = false;
    let place = loop {
        let event = live.event().await.expect("it goes on").expect("an event");
        has_come |= event.is_message();
        if has_come && event.name.as_deref() == Some("cursor") {
            break event.id.expect("it is a place");
        }
    };
    for (number, ttl) in [(2, Some(1)), (3, None), (4, Some(3_600))] {
        publish(&relay, number, ttl).await;
    }
    let again = async || {
        let headers = [("last-event-id", &*place)];
        let mut coming = Coming::events(relay.address, path, &headers).await.expect("a stream");
        let mut shown = Vec::new();
        while shown.last() != Some(&4) {
            shown.push(number(&coming.message().await.expect("it goes on").expect("a message").json()));
        }
        shown
    };
    eventually(SOON, async || !again().await.contains(&2)).await;
    assert!(again().await.ends_with(&[3, 4]));
    relay.stop().await;
}
