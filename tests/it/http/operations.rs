//! Health, readiness, metrics, request ids.

use std::sync::Arc;

use async_trait::async_trait;
use tidemill::proto::health::{BackendHealth, HealthStatus};
use tidemill::proto::{Code, MessageId, NodeId, Timestamp, TopicName, TopicSelector};
use tidemill::storage::{
    Appended, Batch, Condition, LatestRange, MessageStore, NewMessage, Range, Storage, StorageError,
    StoredMessage, Swept, Trim, Upkeep,
};

use crate::support::relay::{TestRelay, memory};

/// A backend that fails every call in one way.
#[derive(Debug)]
struct Failing(fn() -> StorageError);

#[async_trait]
impl MessageStore for Failing {
    async fn append(&self, batch: Vec<NewMessage>) -> Vec<Result<Appended, StorageError>> {
        batch.iter().map(|_| Err(self.0())).collect()
    }

    async fn read(&self, _: &TopicName, _: Range) -> Result<Batch, StorageError> {
        Err(self.0())
    }

    async fn latest(&self, _: &TopicName, _: LatestRange) -> Result<Batch, StorageError> {
        Err(self.0())
    }

    async fn get(&self, _: &TopicName, _: MessageId) -> Result<Option<StoredMessage>, StorageError> {
        Err(self.0())
    }

    async fn trim(&self, _: &TopicName, _: Trim) -> Result<u64, StorageError> {
        Err(self.0())
    }

    async fn remove(&self, _: &TopicName, _: MessageId) -> Result<bool, StorageError> {
        Err(self.0())
    }
}

#[async_trait]
impl Upkeep for Failing {
    async fn health(&self) -> Condition {
        let warnings = vec!["no connection to the server: refused".to_owned()];
        let backend = BackendHealth { kind: "valkey".to_owned(), warnings, ..BackendHealth::default() };
        Condition { status: HealthStatus::Degraded, backend }
    }

    fn is_ready(&self) -> bool {
        false
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_millis(0)
    }

    async fn sweep(&self) -> Result<Swept, StorageError> {
        Err(self.0())
    }

    async fn kept(&self, _topics: &[TopicSelector]) -> Result<Option<Vec<u64>>, StorageError> {
        Err(self.0())
    }

    async fn sweep_one(&self, _topic: &TopicName) -> Result<(), StorageError> {
        Err(self.0())
    }
}

async fn failing(error: fn() -> StorageError) -> TestRelay {
    let failing = Arc::new(Failing(error));
    let storage = Storage { messages: failing.clone(), upkeep: failing, ..memory() };
    TestRelay::start(storage).await
}

#[tokio::test]
async fn each_failure_of_the_storage_says_what_to_do() {
    const PUBLISH: (&str, &str) = ("POST", r#"{"topic":"a","payload":1}"#);
    for (error, publish, keyed_retryable, read) in [
        (
            (|| StorageError::Unavailable("refused by 10.0.0.1".into())) as fn() -> StorageError,
            (Code::StorageUnavailable, true),
            true,
            Code::StorageUnavailable,
        ),
        (
            || StorageError::Indeterminate("no answer from 10.0.0.1".into()),
            (Code::OutcomeUnknown, false),
            true,
            Code::StorageTimeout,
        ),
        (|| StorageError::Overloaded, (Code::Overloaded, true), true, Code::Overloaded),
        (|| StorageError::Full("OOM".into()), (Code::StorageFull, true), true, Code::StorageFull),
        (|| StorageError::NotATopic, (Code::TopicConflict, false), false, Code::TopicConflict),
        (|| StorageError::TopicsLimit, (Code::TopicsLimit, false), false, Code::TopicsLimit),
    ] {
        let relay = failing(error).await;
        let json = ("content-type", "application/json");
        let plain = relay.send(PUBLISH.0, "/api/v1/messages", &[json], PUBLISH.1.as_bytes()).await.problem();
        assert_eq!((plain.code, plain.retryable), publish);
        assert!(!plain.detail.contains("10.0.0.1"), "causes stay in the log: {}", plain.detail);
        let keyed = [json, ("idempotency-key", "k")];
        let keyed = relay.send(PUBLISH.0, "/api/v1/messages", &keyed, PUBLISH.1.as_bytes()).await.problem();
        assert_eq!((keyed.code, keyed.retryable), (publish.0, keyed_retryable));
        let bulk = relay.post("/api/v1/messages/bulk", format!(r#"{{"messages":[{}]}}"#, PUBLISH.1)).await;
        assert_eq!(bulk.status, 207);
        assert_eq!(bulk.json()["results"][0]["code"], publish.0.as_str());
        assert_eq!(relay.get("/api/v1/topics/a/messages").await.problem().code, read);
        relay.stop().await;
    }
}

#[tokio::test]
async fn a_defect_is_a_problem_like_any_other() {
    let relay = failing(|| panic!("a defect, as this test wants one")).await;
    let problem = relay.get("/api/v1/topics/a/messages").await.problem();
    assert_eq!((problem.status, problem.code), (500, Code::Internal));
    assert!(!problem.detail.contains("this test"), "{}", problem.detail);
    assert_eq!(relay.get("/health").await.status, 200, "the relay goes on");
    relay.stop().await;
}

#[tokio::test]
async fn a_relay_without_its_storage_lives_and_is_not_ready() {
    let relay = failing(|| StorageError::Overloaded).await;
    let health = relay.get("/health").await;
    assert_eq!((health.status, health.json()["status"].as_str()), (200, Some("degraded")));
    assert_eq!(health.json()["backend"]["connected"], false);
    let ready = relay.get("/ready").await;
    assert_eq!(ready.status, 503);
    assert_eq!(ready.json()["ready"], false);
    let reasons = ["the storage cannot be used now", "no connection to the server: refused"];
    assert_eq!(ready.json()["reasons"], serde_json::json!(reasons));
    relay.stop().await;
}

#[tokio::test]
async fn a_whole_relay_is_healthy_and_ready() {
    let relay = TestRelay::start(memory()).await;
    let health = relay.get("/health").await.json();
    assert_eq!(health["status"], "healthy");
    assert_eq!(health["version"], env!("CARGO_PKG_VERSION"));
    let node = health["node"].as_str().expect("the id of the node").to_owned();
    NodeId::parse(&node).expect("an id");
    assert_eq!(relay.get("/health").await.json()["node"], node.as_str(), "it stays");
    assert_eq!(health["backend"]["kind"], "memory");
    assert_eq!(health["backend"]["connected"], true);
    assert_eq!(relay.get("/ready").await.text(), r#"{"ready":true,"reasons":[]}"#);
    relay.stop().await;
}

#[tokio::test]
async fn metrics_count_without_naming_topics() {
    let relay = TestRelay::start(memory()).await;
    relay.publish("secret-topic", "\"12345678\"").await;
    relay.post("/api/v1/messages", "{").await;
    relay.get("/api/v1/topics/secret-topic/messages").await;
    relay.get("/made/up").await;
    relay.send("BREW", "/health", &[], b"").await;
    let metrics = relay.get("/metrics").await;
    assert!(metrics.header("content-type").expect("a type").starts_with("text/plain"));
    let text = metrics.text();
    for line in [
        r#"tidemill_messages_published_total{result="accepted"} 1"#,
        "tidemill_messages_published_bytes_total 10",
        r#"tidemill_messages_rejected_total{code="invalid_json"} 1"#,
        "tidemill_messages_served_total 1",
        r#"tidemill_http_requests_total{method="POST",route="/api/v1/messages",status="201"} 1"#,
        r#"tidemill_http_requests_total{method="POST",route="/api/v1/messages",status="400"} 1"#,
        r#"tidemill_http_requests_total{method="GET",route="/api/v1/topics/{topic}/messages",status="200"} 1"#,
        r#"tidemill_http_requests_total{method="GET",route="unmatched",status="404"} 1"#,
        r#"tidemill_http_requests_total{method="other",route="/health",status="405"} 1"#,
        r#"tidemill_http_request_duration_seconds_count{method="POST",route="/api/v1/messages"} 2"#,
        "tidemill_http_connections 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
    }
    assert!(!text.contains("secret-topic"));
    relay.stop().await;
}

#[tokio::test]
async fn every_answer_has_a_request_id() {
    let relay = TestRelay::start(memory()).await;
    let id =
        |answer: &crate::support::relay::Answer| answer.header("x-request-id").expect("an id").to_owned();
    let (one, two) = (id(&relay.get("/health").await), id(&relay.get("/nowhere").await));
    assert_ne!(one, two);
    let own = relay.send("GET", "/health", &[("x-request-id", "my_id-1.2")], b"").await;
    assert_eq!(id(&own), "my_id-1.2");
    for bad in ["", "with blank", "\"quoted\"", "\u{1b}[31mred", &"x".repeat(65)] {
        let answer = relay.send("GET", "/health", &[("x-request-id", bad)], b"").await;
        if answer.status == 200 {
            assert_ne!(id(&answer), bad, "an id that could mislead a log is replaced");
        }
    }
    relay.stop().await;
}
