//! Groups, claims and settling over HTTP.

use std::time::Duration;

use serde_json::{Value, json};
use tidemill::proto::Code;
use tidemill::storage::Storage;
use tokio::time::{Instant, timeout};

use super::{numbered_lines, on_every_backend};
use crate::support::relay::{STUCK, TestRelay};

const JSON: (&str, &str) = ("content-type", "application/json");
pub(super) const LINES: (&str, &str) = ("content-type", "application/x-ndjson");

on_every_backend![
    a_group_lives_from_put_to_delete,
    a_worker_claims_and_acknowledges_and_the_publisher_gets_the_result,
    a_claim_waits_for_a_message,
    who_hangs_up_gives_back_what_it_would_have_got,
    what_is_trimmed_before_it_is_claimed_is_told,
    bad_input_is_named_and_changes_nothing,
    a_group_that_is_there_is_left_as_it_is,
    what_is_said_of_receipts_is_checked,
    many_workers_share_a_drain,
    what_is_claimed_of_a_cancelled_topic_says_why,
];

pub(super) async fn put(relay: &TestRelay, topic: &str, settings: Value) -> Value {
    let path = format!("/api/v1/topics/{topic}/groups/workers");
    let answer = relay.send("PUT", &path, &[JSON], settings.to_string().as_bytes()).await;
    assert!(answer.status == 201 || answer.status == 200, "{}", answer.text());
    answer.json()
}

pub(super) async fn claim(relay: &TestRelay, topic: &str, body: Value) -> Vec<Value> {
    let path = format!("/api/v1/topics/{topic}/groups/workers/claim");
    let answer = relay.post(&path, &body.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["messages"].as_array().expect("messages").clone()
}

pub(super) async fn settle(relay: &TestRelay, verb: &str, body: Value) -> Vec<Value> {
    let answer = relay.post(&format!("/api/v1/work/{verb}"), &body.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["results"].as_array().expect("results").clone()
}

pub(super) async fn group(relay: &TestRelay, topic: &str) -> Value {
    relay.get(&format!("/api/v1/topics/{topic}/groups/workers")).await.json()
}

async fn what_is_trimmed_before_it_is_claimed_is_told(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let metric = async || {
        let metrics = relay.get("/metrics").await;
        let text = metrics.text();
        let line = text.lines().find(|line| line.starts_with("tidemill_work_gone_total ")).expect("a count");
        line.split(' ').nth(1).expect("a number").to_owned()
    };
    put(&relay, "jobs", json!({})).await;
    relay.send("POST", "/api/v1/topics/jobs/messages", &[LINES], numbered_lines(5).as_bytes()).await;
    assert_eq!(relay.post("/api/v1/topics/jobs/trim", r#"{"keep":2}"#).await.json()["removed"], 3);
    let told = group(&relay, "jobs").await;
    assert_eq!((&told["gone"], &told["waiting"], metric().await.as_str()), (&json!(3), &json!(2), "0"));
    assert_eq!(claim(&relay, "jobs", json!({"consumer": "c", "max": 10})).await.len(), 2);
    assert_eq!((&group(&relay, "jobs").await["gone"], metric().await.as_str()), (&json!(3), "3"));
    relay.stop().await;
}

pub(super) async fn until(what: impl AsyncFn() -> bool) {
    let since = Instant::now();
    while !what().await {
        assert!(since.elapsed() < STUCK, "it never comes");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn a_group_lives_from_put_to_delete(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let made = put(
        &relay,
        "jobs",
        json!({"ack_wait": "2m", "max_deliveries": 3, "backoff": ["60s", 120, "240s"], "max_run": "30m",
            "max_in_flight": 10, "per_consumer_max": 2, "result_ttl": "1h"}),
    )
    .await;
    assert_eq!(made["ack_wait"], 120);
    assert_eq!(made["backoff"], json!([60, 120, 240]));
    assert_eq!((&made["max_run"], &made["dead_letter"]), (&json!(1800), &json!("jobs.workers.dead")));
    assert_eq!((&made["waiting"], &made["paused"]), (&json!(0), &json!(false)));
    let path = "/api/v1/topics/jobs/groups/workers";
    let changed = relay.send("PATCH", path, &[JSON], br#"{"max_run":null,"ack_wait":0.5}"#).await.json();
    assert_eq!((&changed["max_run"], &changed["ack_wait"]), (&Value::Null, &json!(0.5)));
    assert_eq!((&changed["max_in_flight"], &changed["max_deliveries"]), (&json!(10), &json!(3)));
    let grown = br#"{"backoff":{"first":"100ms","factor":3,"max":"1s"}}"#;
    let grown = relay.send("PATCH", path, &[JSON], grown).await.json();
    assert_eq!(grown["backoff"], json!([0.1, 0.3, 0.9, 1]));
    assert_eq!(relay.post(&format!("{path}/pause"), "").await.json()["paused"], true);
    relay.publish("jobs", "1").await;
    assert!(claim(&relay, "jobs", json!({"consumer": "ann"})).await.is_empty());
    assert_eq!(relay.post(&format!("{path}/resume"), "").await.json()["paused"], false);
    assert_eq!(claim(&relay, "jobs", json!({"consumer": "ann"})).await.len(), 1);
    let replaced = relay.send("PUT", path, &[JSON], b"").await;
    assert_eq!((replaced.status, &replaced.json()["ack_wait"]), (200, &json!(30)));
    let listed = relay.get("/api/v1/topics/jobs/groups").await.json();
    assert_eq!((listed[0]["group"].as_str(), listed.as_array().map(Vec::len)), (Some("workers"), Some(1)));
    assert_eq!(listed[0]["in_flight"], 1);
    let sought = relay.post(&format!("{path}/seek"), r#"{"to":"earliest"}"#).await.json();
    assert_eq!((&sought["waiting"], &sought["in_flight"]), (&json!(1), &json!(0)));
    assert_eq!(relay.send("DELETE", path, &[], b"").await.status, 204);
    assert_eq!(relay.get(path).await.problem().code, Code::GroupNotFound);
    assert_eq!(relay.send("DELETE", path, &[], b"").await.problem().code, Code::GroupNotFound);
    assert_eq!(relay.get("/api/v1/topics/none/groups").await.problem().code, Code::TopicNotFound);
    relay.stop().await;
}

async fn a_worker_claims_and_acknowledges_and_the_publisher_gets_the_result(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    put(&relay, "jobs", json!({})).await;
    let id = relay.publish("jobs", r#"{"n":1}"#).await;
    let state = format!("/api/v1/topics/jobs/groups/workers/messages/{id}");
    assert_eq!(relay.get(&state).await.json()["state"], "waiting");
    let held = claim(&relay, "jobs", json!({"consumer": "ann", "max": 10})).await;
    assert_eq!(held.len(), 1);
    assert_eq!((&held[0]["payload"], &held[0]["delivery"]), (&json!({"n": 1}), &json!(1)));
    assert_eq!((held[0]["message_id"].as_str(), held[0]["topic"].as_str()), (Some(&*id), Some("jobs")));
    let told = relay.get(&state).await.json();
    assert_eq!((&told["state"], &told["consumer"]), (&json!("in_flight"), &json!("ann")));
    let path = format!("{state}?wait=10s");
    let following = relay.get(&path);
    let settling = async {
        let extended = settle(&relay, "extend", json!({"receipts": [held[0]["receipt"]]})).await;
        assert_eq!(extended[0]["status"], "extended");
        assert!(extended[0]["until"].is_string());
        settle(&relay, "ack", json!({"receipts": [held[0]["receipt"]], "result": {"sum": [3]}})).await
    };
    let (followed, acked) = tokio::join!(following, settling);
    assert_eq!(acked[0], json!({"receipt": held[0]["receipt"], "status": "acked"}));
    let followed = followed.json();
    assert_eq!((&followed["state"], &followed["result"]), (&json!("done"), &json!({"sum": [3]})));
    let again = settle(&relay, "ack", json!({"receipts": [held[0]["receipt"], "nonsense"]})).await;
    assert_eq!((&again[0]["status"], &again[0]["code"]), (&json!("refused"), &json!("already_settled")));
    assert_eq!((&again[1]["status"], &again[1]["code"]), (&json!("refused"), &json!("invalid_field")));
    let detail = group(&relay, "jobs").await;
    assert_eq!((&detail["done"], &detail["in_flight"]), (&json!(1), &json!(0)));
    assert_eq!(detail["minutes"][0]["done"], 1);
    // The topic is a history all the same.
    assert_eq!(relay.get("/api/v1/topics/jobs/messages").await.json()["total"], 1);
    relay.stop().await;
}

async fn a_claim_waits_for_a_message(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    put(&relay, "jobs", json!({})).await;
    let since = Instant::now();
    assert!(claim(&relay, "jobs", json!({"consumer": "ann", "wait": "300ms"})).await.is_empty());
    assert!(since.elapsed() >= Duration::from_millis(300));
    let body = json!({"consumer": "ann", "wait": 20});
    let waiting = claim(&relay, "jobs", body);
    let publishing = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let published = Instant::now();
        (relay.publish("jobs", "1").await, published)
    };
    let (held, (id, published)) = tokio::join!(waiting, publishing);
    assert_eq!(held[0]["message_id"].as_str(), Some(&*id));
    assert!(published.elapsed() < Duration::from_secs(2), "{:?}", published.elapsed());
    // What comes back wakes a claim, too, wherever it comes from.
    let waiting = claim(&relay, "jobs", json!({"consumer": "bob", "wait": 20}));
    let releasing = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        settle(&relay, "release", json!({"receipts": [held[0]["receipt"]]})).await
    };
    let (again, released) = tokio::join!(waiting, releasing);
    assert_eq!(released[0]["status"], "released");
    assert_eq!((again[0]["message_id"].as_str(), &again[0]["delivery"]), (Some(&*id), &json!(2)));
    let waiting = claim(&relay, "jobs", json!({"consumer": "cid", "wait": 20}));
    let failing = settle(&relay, "nack", json!({"receipts": [again[0]["receipt"]], "delay": "400ms"}));
    let since = Instant::now();
    let (third, _) = tokio::join!(waiting, failing);
    assert_eq!(third[0]["delivery"], 3);
    assert!((400..3_000).contains(&since.elapsed().as_millis()), "{:?}", since.elapsed());
    relay.stop().await;
}

async fn who_hangs_up_gives_back_what_it_would_have_got(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    put(&relay, "jobs", json!({"max_deliveries": 1})).await;
    for round in 0..20 {
        {
            let body = json!({"consumer": "gone", "wait": 20});
            let waiting = claim(&relay, "jobs", body);
            assert!(timeout(Duration::from_millis(30), waiting).await.is_err(), "nothing is there");
        }
        let id = relay.publish("jobs", "1").await;
        let held = claim(&relay, "jobs", json!({"consumer": "ann", "wait": 20})).await;
        assert_eq!(held[0]["message_id"].as_str(), Some(&*id), "{round}");
        settle(&relay, "ack", json!({"receipts": [held[0]["receipt"]]})).await;
    }
    assert_eq!(group(&relay, "jobs").await["failed"], 0);
    relay.stop().await;
}

async fn bad_input_is_named_and_changes_nothing(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    relay.publish("jobs", "1").await;
    let path = "/api/v1/topics/jobs/groups/workers";
    for (settings, field) in [
        (json!({"ack_wait": "soon"}), "ack_wait"),
        (json!({"ack_wait": -1}), "ack_wait"),
        (json!({"ack_wait": 0.01}), "ack_wait"),
        (json!({"ack_wait": "13h"}), "ack_wait"),
        (json!({"max_deliveries": 0}), "max_deliveries"),
        (json!({"max_deliveries": 1.5}), "max_deliveries"),
        (json!({"max_run": "0s"}), "max_run"),
        (json!({"ack_wait": "10s", "max_run": "9s"}), "max_run"),
        (json!({"max_run": "29s"}), "max_run"),
        (json!({"backoff": []}), "backoff"),
        (json!({"backoff": "1s"}), "backoff"),
        (json!({"backoff": ["-1s"]}), "backoff"),
        (json!({"backoff": {"first": 1}}), "backoff"),
        (json!({"backoff": {"first": 1, "max": 2, "factor": 0.5}}), "backoff.factor"),
        (json!({"max_in_flight": "many"}), "max_in_flight"),
        (json!({"dead_letter": "jobs"}), "dead_letter"),
        (json!({"dead_letter": "a b"}), "dead_letter"),
        (json!({"paused": "yes"}), "paused"),
        (json!({"start": "here"}), "start"),
        (json!({"start": "18446744073709551615-18446744073709551615"}), "start"),
        (json!({"ordering": "by_name"}), "ordering"),
        (json!({"ackwait": 1}), "ackwait"),
    ] {
        let problem = relay.send("PUT", path, &[JSON], settings.to_string().as_bytes()).await.problem();
        assert_eq!((problem.code, problem.field.as_deref()), (Code::InvalidField, Some(field)), "{settings}");
    }
    assert_eq!(relay.get(path).await.problem().code, Code::GroupNotFound, "nothing was made");
    put(&relay, "jobs", json!({})).await;
    assert_eq!(
        relay.send("PATCH", path, &[JSON], br#"{"start":"latest"}"#).await.problem().field.as_deref(),
        Some("start")
    );
    for name in ["a.b", "a:b", "%20", &"g".repeat(65)] {
        let problem =
            relay.send("PUT", &format!("/api/v1/topics/jobs/groups/{name}"), &[JSON], b"{}").await.problem();
        assert_eq!(problem.field.as_deref(), Some("group"), "{name}");
    }
    for (body, field) in [
        (json!({}), "consumer"),
        (json!({"consumer": ""}), "consumer"),
        (json!({"consumer": "tidemill:waiting"}), "consumer"),
        (json!({"consumer": "ann", "max": 0}), "max"),
        (json!({"consumer": "ann", "max": 1_001}), "max"),
        (json!({"consumer": "ann", "wait": "61s"}), "wait"),
        (json!({"consumer": "ann", "wait": -1}), "wait"),
        (json!({"consumer": "ann", "claim_id": "a b"}), "claim_id"),
    ] {
        let problem = relay.post(&format!("{path}/claim"), &body.to_string()).await.problem();
        assert_eq!((problem.code, problem.field.as_deref()), (Code::InvalidField, Some(field)), "{body}");
    }
    let none = relay.post("/api/v1/topics/jobs/groups/none/claim", r#"{"consumer":"ann"}"#).await.problem();
    assert_eq!(none.code, Code::GroupNotFound);
    let none = relay.post("/api/v1/topics/none/groups/g/claim", r#"{"consumer":"ann"}"#).await.problem();
    assert_eq!(none.code, Code::TopicNotFound);
    for (from, field) in [
        (json!([]), "from"),
        (json!([null]), "from"),
        (json!([{"topic": "jobs"}]), "group"),
        (json!([{"topic": "jobs", "group": "g", "weight": 0}]), "weight"),
        (json!([{"topic": "jobs", "group": "g"}, {"topic": "jobs", "group": "g"}]), "from"),
    ] {
        let body = json!({"consumer": "ann", "from": from});
        let problem = relay.post("/api/v1/work/claim", &body.to_string()).await.problem();
        assert_eq!(problem.field.as_deref(), Some(field), "{from}");
    }
    let unknown = "jobs/none/0000000000000001/1-1/1";
    let refused = settle(&relay, "ack", json!({"receipts": [unknown]})).await;
    assert_eq!((&refused[0]["status"], &refused[0]["code"]), (&json!("refused"), &json!("group_not_found")));
    let state = relay.get(&format!("{path}/messages/1-1")).await.problem();
    assert_eq!(state.code, Code::MessageNotFound);
    let detail = group(&relay, "jobs").await;
    assert_eq!((&detail["waiting"], &detail["in_flight"]), (&json!(1), &json!(0)));
    relay.stop().await;
}

async fn what_is_said_of_receipts_is_checked(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let deep = format!("{}{}", "[".repeat(121), "]".repeat(121));
    let half = relay.post("/api/v1/work/ack", r#"{"receipts":["r"],"result":"\ud800"}"#).await.problem();
    assert_eq!(half.field.as_deref(), Some("result"));
    for (verb, body, field) in [
        ("ack", json!({}), "receipts"),
        ("ack", json!({"receipts": []}), "receipts"),
        ("ack", json!({"receipts": [1]}), "receipts"),
        ("ack", json!({"receipts": ["r"], "result": "x".repeat(65 * 1024)}), "result"),
        (
            "ack",
            json!({"receipts": ["r"], "result": serde_json::from_str::<Value>(&deep).expect("JSON")}),
            "result",
        ),
        ("ack", json!({"receipts": ["r"], "delay": 1}), "delay"),
        ("nack", json!({"receipts": ["r"], "delay": "-1s"}), "delay"),
        ("nack", json!({"receipts": ["r"], "delay": "366d"}), "delay"),
        ("extend", json!({"receipts": ["r"], "ack_wait": 0}), "ack_wait"),
        ("reject", json!({"receipts": ["r"]}), "reason"),
    ] {
        let problem = relay.post(&format!("/api/v1/work/{verb}"), &body.to_string()).await.problem();
        assert_eq!(
            (problem.code, problem.field.as_deref()),
            (Code::InvalidField, Some(field)),
            "{verb} {body}"
        );
    }
    relay.stop().await;
}

async fn a_group_that_is_there_is_left_as_it_is(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let path = "/api/v1/topics/jobs/groups/workers";
    put(&relay, "jobs", json!({})).await;
    let shorter = relay.send("PATCH", path, &[JSON], br#"{"max_run":"20s"}"#).await.problem();
    assert_eq!(shorter.field.as_deref(), Some("max_run"), "it is less than what is there");
    let new = [JSON, ("if-none-match", "*")];
    let there = relay.send("PUT", path, &new, br#"{"ack_wait":"1h"}"#).await.problem();
    assert_eq!(there.code, Code::Conflict);
    assert_eq!(group(&relay, "jobs").await["ack_wait"], 30.0);
    let other = format!("{path}-2");
    assert_eq!(relay.send("PUT", &other, &new, b"{}").await.status, 201);
    let odd = relay.send("PUT", &other, &[JSON, ("if-none-match", "\"e\"")], b"{}").await.problem();
    assert_eq!(odd.field.as_deref(), Some("if-none-match"));
    let largest = r#"{"to":"18446744073709551615-18446744073709551615"}"#;
    let problem = relay.post(&format!("{path}/seek"), largest).await.problem();
    assert_eq!((problem.code, problem.field.as_deref()), (Code::InvalidField, Some("to")));
    let problem = relay.post(&format!("{path}/purge"), r#"{"all":true,"rate":1}"#).await.problem();
    assert_eq!((problem.code, problem.field.as_deref()), (Code::InvalidField, Some("rate")));
    relay.stop().await;
}

async fn many_workers_share_a_drain(storage: Storage) {
    const JOBS: u64 = 500;
    let relay = TestRelay::start(storage).await;
    put(&relay, "jobs", json!({})).await;
    let lines = numbered_lines(JOBS);
    let headers = [("content-type", "application/x-ndjson")];
    let workers = (0..16).map(|worker| {
        let relay = &relay;
        async move {
            let mut got = Vec::new();
            loop {
                let body = json!({"consumer": format!("w{worker}"), "max": 3, "wait": "1s"});
                let held = claim(relay, "jobs", body).await;
                if held.is_empty() {
                    return got;
                }
                let receipts: Vec<&Value> = held.iter().map(|held| &held["receipt"]).collect();
                for result in settle(relay, "ack", json!({"receipts": receipts})).await {
                    assert_eq!(result["status"], "acked", "{result}");
                }
                got.extend(held.iter().map(|held| held["payload"].as_u64().expect("a number")));
            }
        }
    });
    let publishing = relay.send("POST", "/api/v1/topics/jobs/messages", &headers, lines.as_bytes());
    let (got, _) = tokio::join!(futures_util::future::join_all(workers), publishing);
    let mut all: Vec<u64> = got.into_iter().flatten().collect();
    all.sort_unstable();
    assert_eq!(all, (0..JOBS).collect::<Vec<_>>());
    let detail = group(&relay, "jobs").await;
    assert_eq!(
        (&detail["done"], &detail["waiting"], &detail["in_flight"]),
        (&json!(500), &json!(0), &json!(0))
    );
    relay.stop().await;
}

async fn what_is_claimed_of_a_cancelled_topic_says_why(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    put(&relay, "jobs", json!({})).await;
    put(&relay, "others", json!({})).await;
    for topic in ["jobs", "jobs", "others"] {
        relay.publish(topic, "1").await;
    }
    let before = claim(&relay, "jobs", json!({"consumer": "ann"})).await;
    assert!(before[0].get("cancelled").is_none(), "{before:?}");
    let cancelled = relay.post("/api/v1/topics/jobs/cancel", r#"{"reason":"it is \"late\""}"#).await;
    assert_eq!(cancelled.status, 200, "{}", cancelled.text());
    let from = json!({"consumer": "ann", "max": 10,
        "from": [{"topic": "jobs", "group": "workers"}, {"topic": "others", "group": "workers"}]});
    let all = relay.post("/api/v1/work/claim", from.to_string()).await.json();
    let told = |message: &Value| (message["topic"].clone(), message.get("cancelled").cloned());
    let mut told: Vec<_> = all["messages"].as_array().expect("messages").iter().map(told).collect();
    told.sort_by_key(|(topic, _)| topic.to_string());
    assert_eq!(told, [(json!("jobs"), Some(json!("it is \"late\""))), (json!("others"), None)]);
    relay.stop().await;
}
