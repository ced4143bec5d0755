//! Durations: wherever one is sent, a number of seconds and text with a unit mean the same.

use serde_json::{Value, json};
use tidemill::proto::Code;
use tidemill::storage::Storage;
use tokio::time::{Duration, Instant};

use super::on_every_backend;
use crate::support::relay::TestRelay;
use crate::support::ws::WsClient;

const JSON: (&str, &str) = ("content-type", "application/json");

on_every_backend![
    a_time_to_live_is_written_in_either_way_on_every_way_to_publish,
    what_a_topic_keeps_is_written_in_either_way,
    waits_are_written_in_either_way,
];

/// Returns the times to live of what waits in the topic, in the order in which it was published.
async fn waiting(relay: &TestRelay) -> Vec<Value> {
    let listed = relay.get("/api/v1/topics/t/scheduled").await.json();
    listed.as_array().expect("a list").iter().map(|one| one["ttl"].clone()).collect()
}

async fn a_time_to_live_is_written_in_either_way_on_every_way_to_publish(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let mut client = WsClient::connect(relay.address).await;
    let forms =
        [json!(5_400), json!(5_400.0), json!("5400"), json!("90m"), json!("1.5h"), json!("5400000ms")];
    for (at, ttl) in forms.iter().enumerate() {
        let body = |delay: usize| json!({"topic": "t", "payload": 1, "ttl": ttl, "delay": 3_600 + delay});
        let described = relay.post("/api/v1/messages", &body(at * 10).to_string()).await;
        assert_eq!(described.status, 202, "{ttl}: {}", described.text());
        let bulk = json!({"messages": [body(at * 10 + 1)]});
        let bulk = relay.post("/api/v1/messages/bulk", &bulk.to_string()).await.json();
        assert_eq!(bulk["summary"]["scheduled"], 1, "{ttl}: {bulk}");
        let mut frame = body(at * 10 + 2);
        frame["type"] = "publish".into();
        client.ask(frame.to_string(), "scheduled").await;
        let text = ttl.as_str().map_or_else(|| ttl.to_string(), str::to_owned);
        for (kind, delay) in [("application/json", 3), ("application/x-ndjson", 4), ("text/plain", 5)] {
            let delay = 3_600 + at * 10 + delay;
            let path = format!("/api/v1/topics/t/messages?ttl={text}&delay={delay}");
            let answer = relay.send("POST", &path, &[("content-type", kind)], b"1").await;
            assert!(matches!(answer.status, 202 | 207), "{path}: {}", answer.text());
        }
        let recurring = json!({"cron": "0 3 * * *", "payload": 1, "ttl": ttl}).to_string();
        let path = "/api/v1/topics/t/recurring/nightly";
        let answer = relay.send("PUT", path, &[JSON], recurring.as_bytes()).await.json();
        assert_eq!(answer["ttl"], 5_400, "what is answered is a number: {answer}");
    }
    assert_eq!(waiting(&relay).await, vec![json!(5_400); forms.len() * 6]);

    // It is the same message, however its time is written.
    let keyed = [JSON, ("idempotency-key", "k")];
    for (ttl, replayed) in [("3600", None), ("\"1h\"", Some("true"))] {
        let body = format!(r#"{{"topic":"u","payload":1,"ttl":{ttl}}}"#);
        let answer = relay.send("POST", "/api/v1/messages", &keyed, body.as_bytes()).await;
        assert_eq!((answer.status, answer.header("idempotency-replayed")), (201, replayed), "{ttl}");
    }
    for ttl in ["0s", "500ms", "1.5s", "3651d", "soon", "-1s", ""] {
        let body = json!({"topic": "t", "payload": 1, "ttl": ttl});
        let problem = relay.post("/api/v1/messages", &body.to_string()).await.problem();
        assert_eq!((problem.code, problem.field.as_deref()), (Code::InvalidField, Some("ttl")), "{ttl}");
        assert!(problem.detail.contains("text with a unit"), "{}", problem.detail);
        let mut frame = body;
        frame["type"] = "publish".into();
        let refused = client.ask(frame.to_string(), "error").await;
        assert_eq!(refused["details"]["field"], "ttl", "{ttl}: {refused}");
    }
    client.close().await;
    relay.stop().await;
}

async fn what_a_topic_keeps_is_written_in_either_way(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let body = json!({"topic_name": "t", "retention_seconds": "1h", "idle_seconds": "2d"});
    let made = relay.post("/api/v1/topics", &body.to_string()).await.json();
    assert_eq!((&made["retention_seconds"], &made["idle_seconds"]), (&json!(3_600), &json!(172_800)));
    let change = async |body: Value| {
        relay.send("PATCH", "/api/v1/topics/t", &[JSON], body.to_string().as_bytes()).await
    };
    for (written, read) in [(json!(60), json!(60)), (json!("90s"), json!(90)), (json!(null), json!(null))] {
        let changed = change(json!({"retention_seconds": written, "idle_seconds": written})).await.json();
        assert_eq!((&changed["retention_seconds"], &changed["idle_seconds"]), (&read, &read), "{written}");
    }
    for field in ["retention_seconds", "idle_seconds"] {
        for wrong in [json!(0), json!(1.5), json!("0s"), json!("1w"), json!("36501d"), json!(["1h"])] {
            let problem = change(json!({field: wrong})).await.problem();
            assert_eq!(
                (problem.code, problem.field.as_deref()),
                (Code::InvalidField, Some(field)),
                "{wrong}"
            );
        }
    }
    relay.stop().await;
}

async fn waits_are_written_in_either_way(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let since = Instant::now();
    for wait in ["1", "1s", "1000ms", "1.0"] {
        let page = relay.get(&format!("/api/v1/topics/t/messages?wait={wait}")).await;
        assert_eq!(page.status, 200, "{wait}: {}", page.text());
    }
    for timeout in [json!(1), json!("1s"), json!(1.25)] {
        let body = json!({"topics": ["t"], "timeout": timeout});
        let polled = relay.post("/messages/poll", &body.to_string()).await;
        assert_eq!(polled.status, 200, "{timeout}: {}", polled.text());
    }
    assert!(since.elapsed() >= Duration::from_secs(7), "each was waited for: {:?}", since.elapsed());
    for wait in ["0", "61", "2m", "999ms", "soon", ""] {
        let problem = relay.get(&format!("/api/v1/topics/t/messages?wait={wait}")).await.problem();
        assert_eq!(problem.field.as_deref(), Some("wait"), "{wait}");
        assert!(problem.detail.contains("text with a unit"), "{}", problem.detail);
        let body = json!({"topics": ["t"], "timeout": wait});
        let problem = relay.post("/messages/poll", &body.to_string()).await.problem();
        assert_eq!(problem.field.as_deref(), Some("timeout"), "{wait}");
    }
    relay.stop().await;
}
