//! Topics whose messages replace each other, as readers see them: the latest of each key, then live.

use serde_json::{Value, json};
use tidemill::proto::Code;
use tidemill::proto::topics::TopicUpdate;

use super::client::Coming;
use super::on_both_backends;
use crate::support::ground::{Ground, topic};
use crate::support::relay::{Answer, TestRelay};
use crate::support::ws::WsClient;

const PATH: &str = "/api/v1/topics/states/messages";

on_both_backends![
    pages_have_the_latest_of_each_key,
    streams_begin_with_the_latest_of_each_key_and_go_on_live,
    a_websocket_begins_with_the_latest_of_each_key_and_goes_on_live,
    who_comes_back_behind_what_was_compacted_is_told_so,
    what_does_not_fit_is_refused_by_name,
];

async fn publish(relay: &TestRelay, key: &str, payload: &str) -> String {
    let body = json!({ "topic": "states", "payload": payload.parse::<Value>().expect("JSON"), "metadata": { "id": key } });
    let answer = relay.post("/api/v1/messages", body.to_string()).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.json()["message_id"].as_str().expect("an id").to_owned()
}

/// Starts a relay with a topic that is compacted and keeps about so many messages.
async fn start(ground: &Ground, max_messages: Option<u64>) -> TestRelay {
    let about = TopicUpdate { compact_by: Some("id".to_owned()), max_messages, ..TopicUpdate::default() };
    ground.storage.topics.create(&topic("states"), about, None).await.expect("a topic");
    TestRelay::start(ground.storage.clone()).await
}

fn ids_of(page: &Answer) -> Vec<String> {
    let page = page.json();
    let messages = page["messages"].as_array().expect("messages");
    messages.iter().map(|message| message["message_id"].as_str().expect("an id").to_owned()).collect()
}

async fn pages_have_the_latest_of_each_key(ground: &Ground) {
    let relay = start(ground, None).await;
    let mut given = Vec::new();
    for (key, payload) in [("a", "1"), ("b", "2"), ("a", "3"), ("c", "4"), ("b", "null")] {
        given.push(publish(&relay, key, payload).await);
    }
    let expected = [&given[2], &given[3], &given[4]].map(String::clone);
    let all = relay.get(&format!("{PATH}?view=latest&limit=100")).await;
    assert_eq!((ids_of(&all), &all.json()["order"]), (expected.to_vec(), &json!("asc")));
    let page = relay.get(&format!("{PATH}?view=latest&limit=2")).await;
    assert_eq!(ids_of(&page), expected[..2]);
    let next = page.json()["next_cursor"].as_str().expect("a cursor").to_owned();
    assert_eq!(next, expected[1]);
    let rest = relay.get(&format!("{PATH}?view=latest&limit=2&cursor={next}")).await;
    assert_eq!(ids_of(&rest), expected[2..]);
    let waited = relay.get(&format!("{PATH}?view=latest&limit=9&wait=30")).await;
    assert_eq!(ids_of(&waited), expected, "what is there is no reason to wait");
    let behind = relay.get(&format!("{PATH}?view=latest&limit=9&after={}", given[1])).await;
    assert_eq!((ids_of(&behind), behind.json().get("gap")), (expected.to_vec(), None));
    relay.stop().await;
}

async fn streams_begin_with_the_latest_of_each_key_and_go_on_live(ground: &Ground) {
    let relay = start(ground, Some(100)).await;
    let old = publish(&relay, "old", "0").await;
    let mut newest = String::new();
    // So many that the log has the first no more; more keys than one read gives.
    for round in 0..3 {
        for lines in 0..5 {
            let messages: Vec<Value> = (0..60)
                .map(|at| json!({ "topic": "states", "payload": [round, lines, at], "metadata": { "id": format!("{lines}.{at}") } }))
                .collect();
            let answer =
                relay.post("/api/v1/messages/bulk", json!({ "messages": messages }).to_string()).await;
            assert_eq!(answer.json()["summary"]["accepted"], 60);
            answer.json()["results"][59]["message_id"].as_str().expect("an id").clone_into(&mut newest);
        }
    }
    assert!(newest > old);
    let kept = relay.get(&format!("{PATH}?order=asc&limit=1")).await;
    assert_ne!(ids_of(&kept), std::slice::from_ref(&old), "the log has it no more");
    // More keys than the topic keeps messages: the newest of these are there.
    let listed = relay.get(&format!("{PATH}?view=latest&limit=1000")).await.json();
    let listed: Vec<Value> = listed["messages"].as_array().expect("messages").clone();
    assert!(listed.len() >= 100 && listed.len() <= 301, "{}", listed.len());
    for form in ["events", "lines"] {
        let path = format!("{PATH}?view=latest");
        let mut coming = match form {
            "events" => Coming::events(relay.address, &path, &[]).await.expect("a stream"),
            _ => Coming::lines(relay.address, &path).await.expect("a stream"),
        };
        let mut found = Vec::new();
        loop {
            let message = if form == "events" {
                coming.message().await.expect("a stream").expect("a message").json()
            } else {
                let line = coming.line().await.expect("a stream").expect("a line");
                if line["type"] != "message" {
                    continue;
                }
                line
            };
            if message["payload"] == "live" {
                break;
            }
            found.push(message["message_id"].clone());
            if found.last().and_then(Value::as_str) == Some(&newest) || found.len() == listed.len() {
                publish(&relay, "0.0", "\"live\"").await;
            }
        }
        let expected: Vec<Value> = listed.iter().map(|message| message["message_id"].clone()).collect();
        if form == "events" {
            assert_eq!(found, expected, "{form}");
        } else {
            // One of them was replaced since.
            assert!(found.len() >= expected.len() - 1, "{form}: {} of {}", found.len(), expected.len());
        }
    }
    relay.stop().await;
}

async fn a_websocket_begins_with_the_latest_of_each_key_and_goes_on_live(ground: &Ground) {
    let relay = start(ground, None).await;
    relay.publish("plain", "1").await;
    let mut given = Vec::new();
    for (key, payload) in [("a", "1"), ("b", "2"), ("a", "3")] {
        given.push(publish(&relay, key, payload).await);
    }
    let mut client = WsClient::connect(relay.address).await;
    let subscribe = |topics: Value, view: &str| {
        json!({ "type": "subscribe", "topics": topics, "view": view }).to_string()
    };
    client.send(subscribe(json!(["states", "plain", "s*"]), "latest")).await;
    let mut refused = Vec::new();
    let mut found = Vec::new();
    while found.len() < 3 {
        let frame = client.frame().await;
        match frame["type"].as_str() {
            Some("error") => refused.push(frame["details"]["code"].clone()),
            Some("message") => found.push(frame["message_id"].as_str().expect("an id").to_owned()),
            _ => assert_eq!(frame["type"], "subscribed", "{frame}"),
        }
        if found.len() == 2 {
            given.push(publish(&relay, "c", "4").await);
        }
    }
    assert_eq!(found, given[1..]);
    assert_eq!(refused, ["conflict", "invalid_field"], "what is not compacted, and a pattern");
    client.send(subscribe(json!(["states"]), "newest")).await;
    let frame = client.frame().await;
    assert_eq!((&frame["type"], &frame["details"]["field"]), (&json!("error"), &json!("view")), "{frame}");
    relay.stop().await;
}

async fn who_comes_back_behind_what_was_compacted_is_told_so(ground: &Ground) {
    let relay = start(ground, Some(100)).await;
    let old = publish(&relay, "old", "0").await;
    publish(&relay, "older", "0").await;
    for _ in 0..30 {
        let lines = (0..60)
            .map(|at| json!({ "topic": "states", "payload": 1, "metadata": { "id": at.to_string() } }));
        let body = json!({ "messages": lines.collect::<Vec<_>>() }).to_string();
        assert_eq!(relay.post("/api/v1/messages/bulk", body).await.status, 207);
    }
    let mut coming = Coming::events(relay.address, PATH, &[("last-event-id", &old)]).await.expect("a stream");
    let gap = loop {
        let event = coming.event().await.expect("a stream").expect("an event");
        if event.name.as_deref() == Some("gap") {
            break event.json();
        }
        assert!(!event.is_message(), "a message before the gap: {event:?}");
    };
    assert_eq!((&gap["reason"], &gap["from"]), (&json!("compacted"), &json!(old)));
    let page = relay.get(&format!("{PATH}?order=asc&cursor={old}")).await.json();
    assert_eq!(page["gap"]["reason"], "compacted");
    let path = format!("{PATH}?view=latest");
    let mut coming =
        Coming::events(relay.address, &path, &[("last-event-id", &old)]).await.expect("a stream");
    loop {
        let event = coming.event().await.expect("a stream").expect("an event");
        assert_ne!(event.name.as_deref(), Some("gap"), "{event:?}");
        if event.is_message() {
            assert_eq!(event.json()["metadata"]["id"], "older");
            break;
        }
    }
    relay.stop().await;
}

async fn what_does_not_fit_is_refused_by_name(ground: &Ground) {
    let relay = start(ground, None).await;
    for (query, field) in [("view=newest", "view"), ("view=latest&order=desc", "order"), ("view=", "view")] {
        let problem = relay.get(&format!("{PATH}?{query}")).await.problem();
        assert_eq!((problem.status, problem.field.as_deref()), (400, Some(field)), "{query}");
    }
    relay.publish("plain", "1").await;
    for accept in ["application/json", "text/event-stream", "application/x-ndjson"] {
        let path = "/api/v1/topics/plain/messages?view=latest";
        let answer = relay.send("GET", path, &[("accept", accept)], b"").await;
        assert_eq!((answer.status, answer.problem().code), (409, Code::Conflict), "{accept}");
    }
    relay.stop().await;
}
