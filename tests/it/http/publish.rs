//! Publishing one message: what is kept, and how often.

use futures_util::future::join_all;
use tidemill::proto::Code;
use tidemill::storage::Storage;

use super::on_every_backend;
use crate::support::relay::TestRelay;

on_every_backend![
    a_published_message_can_be_read,
    a_repeat_under_a_key_returns_the_first_answer,
    overlapping_repeats_keep_one_message,
    a_key_belongs_to_one_message,
    names_that_join_to_the_same_text_are_not_mixed_up,
    an_expired_message_is_not_served,
    any_content_type_is_kept_with_its_bytes,
    a_topic_is_created_only_where_that_is_allowed,
];

async fn a_published_message_can_be_read(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let published = relay
        .post(
            "/api/v1/messages",
            r#"{"topic":"publish.read","payload":{"n":1},"metadata":{"k":"v"},"ttl":3600}"#,
        )
        .await;
    assert_eq!(published.status, 201);
    assert_eq!(published.header("content-type"), Some("application/json"));
    assert!(published.header("idempotency-replayed").is_none());
    let published = published.json();
    let id = published["message_id"].as_str().expect("an id");
    let message = relay.get(&format!("/api/v1/topics/publish.read/messages/{id}")).await;
    assert_eq!(message.status, 200);
    assert_eq!(
        message.text(),
        format!(
            r#"{{"message_id":"{id}","topic":"publish.read","payload":{{"n":1}},"timestamp":{},"metadata":{{"k":"v"}}}}"#,
            published["timestamp"]
        )
    );
    relay.stop().await;
}

async fn a_repeat_under_a_key_returns_the_first_answer(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let headers = [("content-type", "application/json"), ("idempotency-key", "order-7")];
    let body = br#"{"topic":"publish.key","payload":7}"#;
    let first = relay.send("POST", "/api/v1/messages", &headers, body).await;
    let repeat = relay.send("POST", "/api/v1/messages", &headers, body).await;
    assert_eq!((first.status, repeat.status), (201, 201));
    assert_eq!(first.body, repeat.body);
    assert_eq!(first.header("idempotency-replayed"), None);
    assert_eq!(repeat.header("idempotency-replayed"), Some("true"));
    assert_eq!(relay.get("/api/v1/topics/publish.key").await.json()["length"], 1);
    relay.stop().await;
}

async fn overlapping_repeats_keep_one_message(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let headers = [("content-type", "application/json"), ("idempotency-key", "same")];
    let body = br#"{"topic":"publish.overlap","payload":7}"#;
    let answers = join_all((0..50).map(|_| relay.send("POST", "/api/v1/messages", &headers, body))).await;
    assert!(answers.iter().all(|answer| answer.status == 201 && answer.body == answers[0].body));
    let originals = answers.iter().filter(|answer| answer.header("idempotency-replayed").is_none());
    assert_eq!(originals.count(), 1);
    assert_eq!(relay.get("/api/v1/topics/publish.overlap").await.json()["length"], 1);
    relay.stop().await;
}

async fn a_key_belongs_to_one_message(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let send = |body: &'static str| {
        let headers = [("content-type", "application/json"), ("idempotency-key", "mine")];
        let relay = &relay;
        async move { relay.send("POST", "/api/v1/messages", &headers, body.as_bytes()).await }
    };
    assert_eq!(send(r#"{"topic":"publish.reuse","payload":1}"#).await.status, 201);
    for other in [
        r#"{"topic":"publish.reuse","payload":2}"#,
        r#"{"topic":"publish.reuse","payload":1,"metadata":{}}"#,
        r#"{"topic":"publish.reuse","payload":1,"ttl":60}"#,
    ] {
        let refused = send(other).await;
        assert_eq!(refused.status, 422, "{other}");
        assert_eq!(refused.problem().code, Code::KeyReused);
    }
    assert_eq!(send(r#"{"topic":"publish.reuse2","payload":2}"#).await.status, 201, "a key is per topic");
    assert_eq!(relay.get("/api/v1/topics/publish.reuse").await.json()["length"], 1);
    relay.stop().await;
}

async fn names_that_join_to_the_same_text_are_not_mixed_up(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let publish = async |topic: &str, key: &str, payload: &str| {
        let headers = [("content-type", "application/json"), ("idempotency-key", key)];
        relay.send("POST", &format!("/api/v1/topics/{topic}/messages"), &headers, payload.as_bytes()).await
    };
    // A topic that is there already: of one that is made later, earlier keys count for nothing.
    for topic in ["x", "x:y", "a.b", "a.b:c", "a.b:c:d"] {
        let made = relay.post("/api/v1/topics", format!(r#"{{"topic_name":"{topic}"}}"#)).await;
        assert_eq!(made.status, 201, "{topic}");
    }
    let mut ids = Vec::new();
    // What follows the kind of a key reads alike for each of a row, written one behind the other.
    for (topic, key) in [
        ("x", "y:order-1"),
        ("x:y", "order-1"),
        ("x", "y}:order-1"),
        ("x", "{x:y}:order-1"),
        ("x", "x:y}:order-1"),
        ("a.b", "c:d:e"),
        ("a.b:c", "d:e"),
        ("a.b:c:d", "e"),
    ] {
        let first = publish(topic, key, r#"{"v":1}"#).await;
        assert_eq!((first.status, first.header("idempotency-replayed")), (201, None), "{topic} {key}");
        ids.push(first.json()["message_id"].as_str().expect("an id").to_owned());
        let message = relay.get(&format!("/api/v1/topics/{topic}/messages/{}", ids[ids.len() - 1])).await;
        assert_eq!(message.json()["payload"]["v"], 1, "{topic} {key}: what was acknowledged is kept");
    }
    // Another message under the same words is no reuse of the key, and each is known again.
    let other = publish("x:y", "order-2", r#"{"v":2}"#).await;
    assert_eq!((other.status, other.header("idempotency-replayed")), (201, None));
    let other = publish("x", "y:order-2", r#"{"v":3}"#).await;
    assert_eq!((other.status, other.header("idempotency-replayed")), (201, None));
    let repeat = publish("x:y", "order-1", r#"{"v":1}"#).await;
    assert_eq!((repeat.status, repeat.header("idempotency-replayed")), (201, Some("true")));
    assert_eq!(repeat.json()["message_id"], ids[1].as_str());
    assert_eq!(publish("x:y", "order-1", r#"{"v":2}"#).await.status, 422);
    assert_eq!(relay.get("/api/v1/topics/x:y").await.json()["length"], 2);
    relay.stop().await;
}

async fn an_expired_message_is_not_served(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let kept = relay.publish("publish.ttl", "1").await;
    let path = "/api/v1/topics/publish.ttl/messages";
    let headers = [("content-type", "application/json")];
    let brief = relay.send("POST", &format!("{path}?ttl=1"), &headers, b"2").await.json();
    let brief = brief["message_id"].as_str().expect("an id").to_owned();
    crate::support::eventually(std::time::Duration::from_secs(5), || async {
        relay.get(&format!("{path}/{brief}")).await.status == 404
    })
    .await;
    let page = relay.get(path).await.json();
    assert_eq!(page["total"], 1);
    assert_eq!(page["messages"][0]["message_id"], kept.as_str());
    relay.stop().await;
}

async fn any_content_type_is_kept_with_its_bytes(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let path = "/api/v1/topics/publish.bytes/messages";
    for (content_type, body, field, served) in [
        ("image/png", &b"\x89PNG\0\xff"[..], "payload_base64", r#""iVBORwD/""#),
        ("text/plain; charset=utf-8", b"caf\xc3\xa9\n", "payload_text", r#""café\n""#),
        ("text/plain", b"caf\xe9", "payload_base64", r#""Y2Fm6Q==""#),
        ("application/geo+json", b" {\"type\":\n\"Point\"} \n", "payload", " {\"type\":\n\"Point\"} \n"),
        ("application/json; profile=\"x\"", b"1", "payload", "1"),
        ("application/json; charset=utf-8", b"null", "payload", "null"),
        ("application/octet-stream", b"", "payload_base64", r#""""#),
    ] {
        let published = relay.send("POST", path, &[("content-type", content_type)], body).await;
        assert_eq!(published.status, 201, "{content_type}: {published:?}");
        let id = published.json()["message_id"].as_str().expect("an id").to_owned();
        let message = relay.get(&format!("{path}/{id}")).await;
        assert!(message.text().contains(&format!(r#""{field}":{served}"#)), "{}", message.text());
        let expected = Some(content_type).filter(|kind| *kind != "application/json; charset=utf-8");
        assert_eq!(message.json()["content_type"].as_str(), expected);
    }
    let untyped = relay.send("POST", path, &[], b"raw").await.json();
    let id = untyped["message_id"].as_str().expect("an id");
    let message = relay.get(&format!("{path}/{id}")).await.json();
    assert_eq!(message["content_type"], "application/octet-stream");
    relay.stop().await;
}

async fn a_topic_is_created_only_where_that_is_allowed(storage: Storage) {
    let relay = TestRelay::start_with(storage, |options| options.relay.topic_auto_create = false).await;
    let body = r#"{"topic":"publish.auto","payload":1}"#;
    let refused = relay.post("/api/v1/messages", body).await;
    assert_eq!(refused.problem().code, Code::TopicNotFound);
    assert_eq!(relay.get("/api/v1/topics/publish.auto").await.status, 404);
    assert_eq!(relay.post("/api/v1/topics", r#"{"topic_name":"publish.auto"}"#).await.status, 201);
    assert_eq!(relay.post("/api/v1/messages", body).await.status, 201);
    relay.stop().await;
}
