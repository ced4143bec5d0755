//! Over HTTP: what a publish for later is answered, and how what waits is listed, cancelled and published.

use std::time::Duration;

use serde_json::{Value, json};
use tidemill::proto::{Code, Timestamp};
use tidemill::storage::{Storage, StorageLimits};

use super::on_both_backends;
use tidemill::features::{Feature, Features};

use crate::support::eventually;
use crate::support::ground::SOON;
use crate::support::relay::{TestRelay, memory_with};

on_both_backends![
    a_publish_for_later_is_answered_and_comes,
    every_way_to_publish_takes_a_delay,
    what_is_wrong_with_a_delay_is_named,
    a_repeat_under_a_key_returns_the_first_schedule,
    what_waits_is_listed_cancelled_and_published_now,
    a_reader_that_waits_gets_it_when_it_is_due,
    a_recurring_message_is_set_shown_and_removed,
    what_is_wrong_with_a_recurring_message_is_named,
];

async fn length(relay: &TestRelay, topic: &str) -> u64 {
    relay.get(&format!("/api/v1/topics/{topic}")).await.json()["length"].as_u64().expect("a length")
}

async fn list(relay: &TestRelay, topic: &str) -> Vec<Value> {
    let answer = relay.get(&format!("/api/v1/topics/{topic}/scheduled")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json().as_array().expect("a list").clone()
}

async fn a_publish_for_later_is_answered_and_comes(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let body = r#"{"topic":"t","payload":{"n":1},"metadata":{"k":"v"},"ttl":60,"delay":"300ms"}"#;
    let answer = relay.post("/api/v1/messages", body).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    let scheduled = answer.json();
    assert_eq!(scheduled["topic"], "t");
    let at = scheduled["deliver_at"].as_str().and_then(|at| Timestamp::parse(at).ok()).expect("a time");
    assert_eq!(scheduled.as_object().expect("an object").len(), 3, "{scheduled}");
    let listed = list(&relay, "t").await;
    assert_eq!(
        listed,
        [json!({
            "schedule_id": scheduled["schedule_id"], "topic": "t", "deliver_at": scheduled["deliver_at"],
            "payload": {"n": 1}, "metadata": {"k": "v"}, "ttl": 60,
        })]
    );
    assert_eq!(length(&relay, "t").await, 0, "the topic is there, and empty");
    eventually(SOON, async || length(&relay, "t").await == 1).await;
    let page = relay.get("/api/v1/topics/t/messages").await.json();
    let message = &page["messages"][0];
    assert_eq!((&message["payload"], &message["metadata"]), (&json!({"n": 1}), &json!({"k": "v"})));
    let timestamp = Timestamp::parse(message["timestamp"].as_str().expect("a time")).expect("a time");
    assert!(timestamp >= at, "{timestamp} {at}");
    assert_eq!(list(&relay, "t").await, [] as [Value; 0]);
    let metrics = relay.get("/metrics").await;
    for line in [
        r#"tidemill_messages_scheduled_total{result="accepted"} 1"#,
        "tidemill_schedules_promoted_total 1",
        "tidemill_schedules_late_seconds_count 1",
    ] {
        assert!(metrics.text().lines().any(|of| of == line), "no {line} in {}", metrics.text());
    }
    relay.stop().await;
}

async fn every_way_to_publish_takes_a_delay(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let text = [("content-type", "text/plain")];
    let raw = relay.send("POST", "/api/v1/topics/raw/messages?delay=1h&ttl=5", &text, b"x").await;
    assert_eq!(raw.status, 202, "{raw:?}");
    let at = "/api/v1/topics/raw/messages?deliver_at=2038-01-01T00:00:00Z";
    let refused = relay.send("POST", at, &text, b"y").await;
    assert_eq!(refused.problem().field.as_deref(), Some("deliver_at"), "it is more than a year off");
    let soon = Timestamp::from_millis(tidemill::clock::Clock::system().now().as_millis() + 3_600_000);
    let at = format!("/api/v1/topics/raw/messages?deliver_at={soon}");
    let answer = relay.send("POST", &at, &text, b"y").await;
    assert_eq!((answer.status, &answer.json()["deliver_at"]), (202, &json!(soon.to_string())));
    let listed = list(&relay, "raw").await;
    assert_eq!((&listed[0]["payload_text"], &listed[0]["ttl"]), (&json!("x"), &json!(5)));
    let lines = [("content-type", "application/x-ndjson")];
    let answer = relay.send("POST", "/api/v1/topics/lines/messages?delay=3600", &lines, b"1\n2\n\n3\n").await;
    assert_eq!(answer.status, 207);
    let summary = json!({"total": 3, "accepted": 3, "rejected": 0, "scheduled": 3});
    assert_eq!(answer.json()["summary"], summary);
    assert_eq!(list(&relay, "lines").await.len(), 3);
    let bulk = r#"{"messages":[
        {"topic":"b","payload":1},
        {"topic":"b","payload":2,"delay":3600.5},
        {"topic":"b","payload":3,"delay":-1},
        {"topic":"b","payload":4,"deliver_at":"1999-01-01T00:00:00+01:00"}]}"#;
    let answer = relay.post("/api/v1/messages/bulk", bulk).await.json();
    assert_eq!(answer["summary"], json!({"total": 4, "accepted": 3, "rejected": 1, "scheduled": 2}));
    let results = answer["results"].as_array().expect("results");
    let statuses: Vec<_> = results.iter().map(|result| result["status"].as_str().expect("one")).collect();
    assert_eq!(statuses, ["accepted", "scheduled", "rejected", "scheduled"]);
    assert!(results[1]["schedule_id"].is_string() && results[1]["deliver_at"].is_string());
    assert_eq!((&results[1]["message_id"], &results[1]["error"]), (&Value::Null, &Value::Null));
    assert_eq!(results[0].get("schedule_id"), None);
    // What is to be delivered in the past comes at once.
    eventually(SOON, async || length(&relay, "b").await == 2).await;
    assert_eq!(list(&relay, "b").await.len(), 1);
    relay.stop().await;
}

async fn what_is_wrong_with_a_delay_is_named(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    for (fields, field) in [
        (r#""delay":-1"#, "delay"),
        (r#""delay":"soon""#, "delay"),
        (r#""delay":"366d""#, "delay"),
        (r#""delay":31536001"#, "delay"),
        (r#""delay":true"#, "delay"),
        (r#""deliver_at":"soon""#, "deliver_at"),
        (r#""deliver_at":5"#, "deliver_at"),
        (r#""deliver_at":"9999-01-01T00:00:00Z""#, "deliver_at"),
        (r#""delay":1,"deliver_at":"2026-01-01T00:00:00Z""#, "delay"),
    ] {
        let body = format!(r#"{{"topic":"wrong","payload":1,{fields}}}"#);
        let answer = relay.post("/api/v1/messages", &body).await;
        assert_eq!(answer.status, 400, "{fields}: {answer:?}");
        assert_eq!(answer.problem().field.as_deref(), Some(field), "{fields}");
    }
    assert_eq!(relay.get("/api/v1/topics/wrong").await.status, 404, "nothing was changed");
    for fields in [r#""delay":null"#, r#""delay":null,"deliver_at":null"#] {
        let body = format!(r#"{{"topic":"right","payload":1,{fields}}}"#);
        assert_eq!(relay.post("/api/v1/messages", &body).await.status, 201, "{fields}");
    }
    for fields in [r#""delay":0"#, r#""delay":"365d""#, r#""deliver_at":"1970-01-01T00:00:00Z""#] {
        let body = format!(r#"{{"topic":"right","payload":1,{fields}}}"#);
        assert_eq!(relay.post("/api/v1/messages", &body).await.status, 202, "{fields}");
    }
    eventually(SOON, async || length(&relay, "right").await == 4).await;
    relay.stop().await;
}

async fn a_repeat_under_a_key_returns_the_first_schedule(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let headers = [("content-type", "application/json"), ("idempotency-key", "order-7")];
    let body = br#"{"topic":"key","payload":7,"delay":0.2}"#;
    let first = relay.send("POST", "/api/v1/messages", &headers, body).await;
    let repeat = relay.send("POST", "/api/v1/messages", &headers, body).await;
    assert_eq!((first.status, repeat.status), (202, 202));
    assert_eq!(
        (first.header("idempotency-replayed"), repeat.header("idempotency-replayed")),
        (None, Some("true"))
    );
    assert_eq!(first.body, repeat.body);
    eventually(SOON, async || length(&relay, "key").await == 1).await;
    let later = relay.send("POST", "/api/v1/messages", &headers, body).await;
    assert_eq!((later.status, later.header("idempotency-replayed")), (202, Some("true")));
    assert_eq!(first.body, later.body);
    for other in [
        &br#"{"topic":"key","payload":7,"delay":0.3}"#[..],
        br#"{"topic":"key","payload":7,"deliver_at":"2026-01-01T00:00:00Z"}"#,
        br#"{"topic":"key","payload":7}"#,
    ] {
        let reused = relay.send("POST", "/api/v1/messages", &headers, other).await;
        assert_eq!((reused.status, reused.problem().code), (422, Code::KeyReused));
    }
    assert_eq!(length(&relay, "key").await, 1);
    relay.stop().await;
}

async fn what_waits_is_listed_cancelled_and_published_now(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let missing = relay.get("/api/v1/topics/t/scheduled").await;
    assert_eq!(missing.problem().code, Code::TopicNotFound);
    let mut ids = Vec::new();
    for number in 0..5 {
        let body = format!(r#"{{"topic":"t","payload":{number},"delay":{}}}"#, 4_000 + number);
        let id = relay.post("/api/v1/messages", &body).await.json()["schedule_id"].clone();
        ids.push(id.as_str().expect("an id").to_owned());
    }
    let (mut seen, mut next) = (Vec::new(), Some("/api/v1/topics/t/scheduled?limit=2".to_owned()));
    while let Some(path) = next {
        let page = relay.get(&path).await;
        let of_page = page.json();
        let messages = of_page.as_array().expect("a list");
        seen.extend(messages.iter().map(|one| one["schedule_id"].as_str().expect("an id").to_owned()));
        next = page.next_page().map(str::to_owned);
    }
    assert_eq!(seen, ids);
    for (query, field) in [("limit=0", "limit"), ("limit=1001", "limit"), ("cursor=x", "cursor")] {
        let refused = relay.get(&format!("/api/v1/topics/t/scheduled?{query}")).await;
        assert_eq!(refused.problem().field.as_deref(), Some(field), "{query}");
    }
    let one = |id: &str| format!("/api/v1/topics/t/scheduled/{id}");
    assert_eq!(relay.send("DELETE", &one(&ids[1]), &[], b"").await.status, 204);
    let gone = relay.send("DELETE", &one(&ids[1]), &[], b"").await;
    assert_eq!((gone.status, gone.problem().code), (404, Code::ScheduleNotFound));
    let malformed = relay.send("DELETE", &one("A*"), &[], b"").await;
    assert_eq!(malformed.problem().field.as_deref(), Some("schedule_id"));
    let now = relay.post(&format!("{}/now", one(&ids[3])), "").await;
    assert_eq!(now.status, 200, "{now:?}");
    let page = relay.get("/api/v1/topics/t/messages").await.json();
    assert_eq!(page["messages"][0]["message_id"], now.json()["message_id"]);
    assert_eq!(page["messages"][0]["payload"], 3);
    let gone = relay.post(&format!("{}/now", one(&ids[3])), "").await;
    assert_eq!(gone.problem().code, Code::ScheduleNotFound);
    assert_eq!(list(&relay, "t").await.len(), 3);
    assert_eq!(relay.send("DELETE", "/api/v1/topics/t", &[], b"").await.status, 204);
    relay.publish("t", "9").await;
    assert_eq!(list(&relay, "t").await.len(), 0);
    relay.stop().await;
}

async fn a_reader_that_waits_gets_it_when_it_is_due(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    relay.publish("t", "0").await;
    assert_eq!(relay.post("/api/v1/messages", r#"{"topic":"t","payload":1,"delay":0.4}"#).await.status, 202);
    let page = relay.get("/api/v1/topics/t/messages?after=latest&wait=20").await.json();
    assert_eq!(page["messages"][0]["payload"], 1, "{page}");
    relay.stop().await;
}

async fn a_recurring_message_is_set_shown_and_removed(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let one = "/api/v1/topics/jobs/recurring/every-second";
    let json_type = [("content-type", "application/json")];
    let body = br#"{"cron":"*  * * * * *","payload":{"do":"it"},"metadata":{"k":"v"},"ttl":60}"#;
    let put = relay.send("PUT", one, &json_type, body).await;
    assert_eq!(put.status, 200, "{put:?}");
    let shown = put.json();
    let next = shown["next_at"].as_str().and_then(|at| Timestamp::parse(at).ok()).expect("a time");
    assert_eq!(
        shown,
        json!({
            "name": "every-second", "topic": "jobs", "next_at": next.to_string(), "cron": "* * * * * *",
            "timezone": "UTC", "payload": {"do": "it"}, "metadata": {"k": "v"}, "ttl": 60,
        })
    );
    eventually(SOON, async || length(&relay, "jobs").await >= 2).await;
    let page = relay.get("/api/v1/topics/jobs/messages").await.json();
    assert_eq!(
        (&page["messages"][0]["payload"], &page["messages"][0]["metadata"]["k"]),
        (&json!({"do": "it"}), &json!("v"))
    );
    let read = relay.get(one).await.json();
    assert!(Timestamp::parse(read["next_at"].as_str().expect("a time")).expect("a time") > next);
    let all = relay.get("/api/v1/topics/jobs/recurring").await.json();
    assert_eq!(all.as_array().map(Vec::len), Some(1));
    assert_eq!(list(&relay, "jobs").await.len(), 0, "it is no message that waits once");
    assert_eq!(relay.send("DELETE", one, &[], b"").await.status, 204);
    let length_then = length(&relay, "jobs").await;
    assert_eq!(relay.get(one).await.problem().code, Code::ScheduleNotFound);
    assert_eq!(relay.send("DELETE", one, &[], b"").await.problem().code, Code::ScheduleNotFound);
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    assert_eq!(length(&relay, "jobs").await, length_then, "it does not come again");
    relay.stop().await;
}

async fn what_is_wrong_with_a_recurring_message_is_named(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let json_type = [("content-type", "application/json")];
    for (name, body, field) in [
        ("n", r#"{"payload":1}"#, "cron"),
        ("n", r#"{"cron":5,"payload":1}"#, "cron"),
        ("n", r#"{"cron":"every minute","payload":1}"#, "cron"),
        ("n", r#"{"cron":"0 0 30 2 *","payload":1}"#, "cron"),
        ("n", r#"{"cron":"* * * * *","timezone":"Mars","payload":1}"#, "timezone"),
        ("n", r#"{"cron":"* * * * *"}"#, "payload"),
        ("n", r#"{"cron":"* * * * *","payload":1,"payload_text":"1"}"#, "payload_text"),
        ("n", r#"{"cron":"* * * * *","payload":1,"ttl":0}"#, "ttl"),
        ("n", r#"{"cron":"* * * * *","payload":1,"metadata":5}"#, "metadata"),
        ("n", r#"{"cron":"* * * * *","payload":1,"delay":5}"#, "delay"),
        ("a.b", r#"{"cron":"* * * * *","payload":1}"#, "name"),
    ] {
        let path = format!("/api/v1/topics/wrong/recurring/{name}");
        let answer = relay.send("PUT", &path, &json_type, body.as_bytes()).await;
        assert_eq!(answer.status, 400, "{body}: {answer:?}");
        assert_eq!(answer.problem().field.as_deref(), Some(field), "{body}");
    }
    assert_eq!(relay.get("/api/v1/topics/wrong").await.status, 404, "nothing was changed");
    relay.stop().await;
}

#[tokio::test]
async fn where_delays_are_switched_off_they_are_refused_and_their_paths_are_not_there() {
    let relay = TestRelay::start_with(memory_with(|_| {}), |options| {
        let features = Features::all().without(Feature::Delays);
        options.relay.features = features;
        options.http.features = features;
    })
    .await;
    relay.publish("t", "1").await;
    for (body, field) in [
        (r#"{"topic":"t","payload":1,"delay":1}"#, "delay"),
        (r#"{"topic":"t","payload":1,"deliver_at":"2026-01-01T00:00:00Z"}"#, "deliver_at"),
    ] {
        let refused = relay.post("/api/v1/messages", body).await.problem();
        assert_eq!(refused.field.as_deref(), Some(field));
        assert!(refused.detail.contains("TIDEMILL_FEATURES"), "{}", refused.detail);
    }
    for path in ["/api/v1/topics/t/scheduled", "/api/v1/topics/t/recurring"] {
        assert_eq!(relay.get(path).await.status, 404, "{path}");
    }
    relay.stop().await;
}

#[tokio::test]
async fn as_many_wait_as_may() {
    let storage = memory_with(|options| {
        options.limits = StorageLimits { topic_schedules_max: 2, ..options.limits };
    });
    let relay = TestRelay::start(storage).await;
    let statuses = |number: u32| format!(r#"{{"topic":"t","payload":{number},"delay":3600}}"#);
    for number in 0..2 {
        assert_eq!(relay.post("/api/v1/messages", statuses(number)).await.status, 202);
    }
    let full = relay.post("/api/v1/messages", statuses(2)).await;
    assert_eq!((full.status, full.problem().code), (507, Code::StorageFull));
    assert!(full.problem().detail.contains("TIDEMILL_TOPIC_SCHEDULES_MAX"), "{full:?}");
    relay.stop().await;
}
