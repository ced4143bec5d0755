//! How many bytes topics may keep together, and how much one that refuses what has no room: what is refused on every door,
//! what goes on, and what is told.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tidemill::limits::KeptBound;
use tidemill::proto::frame::{ClientFrame, ServerFrame, binary};
use tidemill::proto::{Code, TopicSelector};
use tidemill::server::ServerOptions;
use tidemill::storage::Storage;
use tokio_tungstenite::tungstenite::Message;

use crate::support::eventually;
use crate::support::ground::SOON;
use crate::support::relay::{Answer, TestRelay, memory};
use crate::support::ws::{WsClient, publish_frame};

const BYTES_MAX: u64 = 100_000;
const JSON: (&str, &str) = ("content-type", "application/json");

fn bounds(options: &mut ServerOptions) {
    let bound = |topics: &str, bytes_max| KeptBound {
        topics: TopicSelector::parse(topics).expect(topics),
        bytes_max,
    };
    options.kept = vec![bound("acme.*", BYTES_MAX), bound("*", 1 << 40), bound("acme.log", 1 << 30)];
    options.sweep_interval = Duration::from_millis(200);
}

/// The doors through which messages come.
const DOORS: [&str; 9] =
    ["described", "body", "slow", "bytes", "item", "line", "key", "socket", "binary socket"];

/// Returns the code of a refusal, and the text; none where it is taken.
type Outcome = Option<(String, String)>;

fn of_answer(answer: &Answer) -> Outcome {
    if answer.status < 300 {
        return None;
    }
    let problem = answer.problem();
    let is_full = matches!(problem.code, Code::StorageFull | Code::TopicFull);
    assert!(!is_full || (answer.status == 507 && problem.retryable), "{answer:?}");
    assert!(answer.header("retry-after").is_some(), "{answer:?}");
    Some((problem.code.as_str().to_owned(), problem.detail))
}

fn of_first(answer: &Answer) -> Outcome {
    assert_eq!(answer.status, 207, "{answer:?}");
    let result = &answer.json()["results"][0];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    result["code"].as_str().map(|code| (code.to_owned(), text(&result["error"])))
}

async fn publish(relay: &TestRelay, door: &str, topic: &str) -> Outcome {
    let path = format!("/api/v1/topics/{topic}/messages");
    let message = json!({ "topic": topic, "payload": 1 });
    let post = async |path: &str, headers: &[(&str, &str)], body: &[u8]| {
        relay.send("POST", path, headers, body).await
    };
    match door {
        "described" => of_answer(&post("/api/v1/messages", &[JSON], message.to_string().as_bytes()).await),
        "body" => of_answer(&post(&path, &[JSON], b"1").await),
        // What means something to others leaves the fast path.
        "slow" => of_answer(&post(&path, &[JSON, ("x-team", "tides")], b"1").await),
        "bytes" => of_answer(&post(&path, &[("content-type", "image/png")], b"\xff").await),
        "key" => of_answer(&post(&path, &[JSON, ("idempotency-key", "new")], b"1").await),
        "line" => of_first(&post(&path, &[("content-type", "application/x-ndjson")], b"1\n").await),
        "item" => {
            let bulk = json!({ "messages": [message, { "topic": "other", "payload": 1 }] });
            let answer = post("/api/v1/messages/bulk", &[JSON], bulk.to_string().as_bytes()).await;
            assert_eq!(answer.json()["results"][1]["status"], "accepted", "each by itself: {answer:?}");
            of_first(&answer)
        }
        "socket" => {
            let mut socket = WsClient::connect(relay.address).await;
            socket.send(json!({ "type": "publish", "topic": topic, "payload": 1 }).to_string()).await;
            let frame = socket.frame().await;
            let text = |value: &Value| value.as_str().expect("a text").to_owned();
            (frame["type"] == "error").then(|| (text(&frame["details"]["code"]), text(&frame["message"])))
        }
        "binary socket" => {
            let mut socket = WsClient::connect_binary(relay.address).await;
            let publish = publish_frame(topic, b"1");
            socket.send_binary(&ClientFrame::Publish(publish)).await;
            let Some(Ok(Message::Binary(bytes))) = socket.next().await else { panic!("no binary frame") };
            match binary::read_server(&bytes).expect("a frame") {
                ServerFrame::Error(error) => {
                    Some((error.code.as_str().to_owned(), error.message.into_owned()))
                }
                _ => None,
            }
        }
        _ => panic!("there is no door `{door}`"),
    }
}

async fn is_refused(relay: &TestRelay, topic: &str) -> bool {
    publish(relay, "body", topic).await.is_some()
}

/// Publishes until it is refused, and returns how many messages were taken.
async fn fill(relay: &TestRelay) -> u64 {
    let payload = format!("\"{}\"", "x".repeat(8_000));
    let taken = AtomicU64::new(0);
    eventually(SOON, async || {
        let answer =
            relay.send("POST", "/api/v1/topics/acme.log/messages", &[JSON], payload.as_bytes()).await;
        taken.fetch_add(u64::from(answer.status == 201), Ordering::Relaxed);
        answer.status == 507
    })
    .await;
    taken.into_inner()
}

async fn bounds_hold(storage: Storage) {
    let [one, two] =
        [TestRelay::start_with(storage.clone(), bounds).await, TestRelay::start_with(storage, bounds).await];
    for door in DOORS {
        assert_eq!(publish(&one, door, "acme.small").await, None, "{door}");
    }
    let mut taken = fill(&one).await;
    assert!(taken >= 8, "a bound is no less than it says: {taken}");
    // Every node knows soon, and refuses on every door; one topic of the bound as well as another, and new ones.
    taken += fill(&two).await;
    for relay in [&one, &two] {
        for door in DOORS {
            for topic in ["acme.log", "acme.small", "acme.new"] {
                let (code, text) = publish(relay, door, topic).await.expect("it is refused");
                assert_eq!(code, "storage_full", "{door}");
                let is_told = text.contains("`acme.*`") && text.contains("TIDEMILL_LIMIT_KEPT_BYTES");
                assert!(is_told, "{door}: {text}");
            }
            assert_eq!(publish(relay, door, "other").await, None, "{door}");
            assert_eq!(publish(relay, door, "acme").await, None, "the pattern does not match it: {door}");
        }
    }
    assert_eq!(one.get("/api/v1/topics/acme.new").await.status, 404);
    // What was taken is there, and is read.
    let described = one.get("/api/v1/topics/acme.log").await.json();
    let page = two.get("/api/v1/topics/acme.log/messages?limit=1").await;
    assert_eq!((&described["length"], page.status), (&json!(taken), 200), "{described}");

    let health = one.get("/health").await.json();
    let bytes = health["kept"][0]["bytes"].as_u64().expect("it is known");
    assert!(bytes >= BYTES_MAX, "{health}");
    let expected = json!({ "topics": "acme.*", "bytes": bytes, "bytes_max": BYTES_MAX, "is_reached": true });
    assert_eq!(health["kept"][0], expected);
    assert_eq!(
        (&health["kept"][1]["topics"], &health["kept"][1]["is_reached"]),
        (&json!("*"), &json!(false))
    );
    let metrics = one.get("/metrics").await;
    for start in [
        format!("tidemill_kept_bytes_max{{topics=\"acme.*\"}} {BYTES_MAX}"),
        "tidemill_kept_bytes{topics=\"acme.*\"} ".to_owned(),
        "tidemill_kept_bytes{topics=\"*\"} ".to_owned(),
        "tidemill_limits_refused_total{limit=\"kept-bytes\"} ".to_owned(),
    ] {
        assert!(metrics.text().lines().any(|line| line.starts_with(&start)), "{start} in {}", metrics.text());
    }

    // Room is made by a trim, or by a deletion.
    let trimmed = one.post("/api/v1/topics/acme.log/trim", r#"{"keep":0}"#).await;
    assert_eq!(trimmed.status, 200, "{trimmed:?}");
    for relay in [&one, &two] {
        eventually(SOON, async || !is_refused(relay, "acme.log").await).await;
    }
    fill(&two).await;
    assert_eq!(one.send("DELETE", "/api/v1/topics/acme.log", &[], b"").await.status, 204);
    eventually(SOON, async || !is_refused(&one, "acme.log").await).await;
    for relay in [one, two] {
        relay.stop().await;
    }
}

/// A topic that refuses what has no room does so on every door, and keeps what it has.
async fn full_topic_refuses(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let body = r#"{"topic_name":"full","max_messages":1,"when_full":"refuse"}"#;
    assert_eq!(relay.post("/api/v1/topics", body).await.status, 201);
    assert_eq!(publish(&relay, "body", "full").await, None);
    let first = relay.get("/api/v1/topics/full").await.json()["first_id"].clone();
    for door in DOORS {
        let (code, text) = publish(&relay, door, "full").await.expect("it is refused");
        assert_eq!(code, "topic_full", "{door}");
        assert!(text.contains("`full`"), "{door}: {text}");
        assert_eq!(publish(&relay, door, "other").await, None, "{door}");
    }
    let described = relay.get("/api/v1/topics/full").await.json();
    assert_eq!((&described["length"], &described["first_id"]), (&json!(1), &first));
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_topic_in_memory_refuses_on_every_door() {
    full_topic_refuses(memory()).await;
}

#[cfg(feature = "valkey")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_topic_on_a_server_refuses_on_every_door() {
    use crate::support::ground::Ground;
    use crate::support::server::Kind;

    for kind in [Kind::Valkey, Kind::Redis] {
        let Some(ground) = Ground::on(kind).await else { continue };
        full_topic_refuses(ground.storage.clone()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_in_memory_keep_no_more_bytes_than_they_may() {
    bounds_hold(memory()).await;
}

#[cfg(feature = "valkey")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_on_a_server_keep_no_more_bytes_than_they_may() {
    use crate::support::ground::Ground;
    use crate::support::server::Kind;

    for kind in [Kind::Valkey, Kind::Redis] {
        let Some(ground) = Ground::on(kind).await else { continue };
        bounds_hold(ground.storage.clone()).await;
    }
}

#[tokio::test]
async fn a_relay_without_bounds_tells_of_none() {
    let relay = TestRelay::start(memory()).await;
    let health = relay.get("/health").await.json();
    assert_eq!(health.get("kept"), None, "{health}");
    assert!(!relay.get("/metrics").await.text().contains("tidemill_kept"));
    relay.stop().await;
}
