//! Whose a topic is: of who made it, and of nobody who has the name later.

use std::time::Duration;

use serde_json::{Value, json};
use tidemill::storage::Storage;
use tokio::time::timeout;

use super::closed::{self, ROOT, send, user};
use crate::support::ground::{Ground, LIMITS};
use crate::support::raw::Stream;
use crate::support::relay::{TestRelay, memory};
use crate::support::server::Kind;
use crate::support::ws::{Got, WsClient};

async fn status(relay: &TestRelay, who: &str, method: &str, path: &str, body: &Value) -> u16 {
    send(relay, Some(who), method, path, body).await.status
}

/// Who has the name of somebody who was removed gets nothing that was that one's.
async fn a_name_is_no_inheritance(storage: Storage) {
    let relay = closed::start(storage).await;
    let put = json!({ "rules": ["allow publish mk.*"] });
    assert_eq!(status(&relay, ROOT, "PUT", "/api/v1/roles/maker", &put).await, 201);
    let messages = "/api/v1/topics/mk.t/messages";
    user(&relay, "grace", &["maker"]).await;
    let grace = closed::log_in(&relay, "grace").await;
    assert_eq!(status(&relay, &grace, "POST", messages, &json!("secret")).await, 201);
    assert_eq!(status(&relay, &grace, "GET", messages, &Value::Null).await, 200);
    let owned = async |who: &str| {
        send(&relay, Some(who), "GET", "/auth/me", &Value::Null).await.json()["owned_topics"].clone()
    };
    assert_eq!(owned(&grace).await, json!(["mk.t"]));
    // Another password, other roles and being idle for a while take nothing away.
    for update in [
        json!({ "password": "correct horse" }),
        json!({ "roles": [] }),
        json!({ "is_active": false }),
        json!({ "is_active": true, "roles": ["maker"] }),
    ] {
        assert_eq!(status(&relay, ROOT, "PUT", "/api/v1/users/grace", &update).await, 200, "{update}");
    }
    let grace = closed::log_in(&relay, "grace").await;
    assert_eq!(owned(&grace).await, json!(["mk.t"]));
    assert_eq!(status(&relay, &grace, "GET", messages, &Value::Null).await, 200);

    assert_eq!(status(&relay, ROOT, "DELETE", "/api/v1/users/grace", &Value::Null).await, 204);
    user(&relay, "grace", &["maker"]).await;
    let other = closed::log_in(&relay, "grace").await;
    for (method, path, body, expected) in [
        ("GET", messages, Value::Null, 403),
        ("GET", "/api/v1/topics/mk.t", Value::Null, 403),
        ("PUT", "/api/v1/topics/mk.t", json!({ "description": "mine" }), 403),
        ("POST", "/api/v1/topics/mk.t/trim", json!({ "keep": 0 }), 403),
        ("DELETE", "/api/v1/topics/mk.t", Value::Null, 403),
        ("POST", messages, json!("more"), 201),
        ("POST", "/api/v1/topics/mk.u/messages", json!("its own"), 201),
        ("GET", "/api/v1/topics/mk.u/messages", Value::Null, 200),
    ] {
        assert_eq!(status(&relay, &other, method, path, &body).await, expected, "{method} {path}");
    }
    let listed = send(&relay, Some(&other), "GET", "/api/v1/topics", &Value::Null).await.json();
    let names: Vec<_> = listed.as_array().expect("a list").iter().map(|topic| &topic["topic_name"]).collect();
    assert_eq!(names, ["mk.u"]);
    assert_eq!(owned(&other).await, json!(["mk.u"]));
    let accounts = send(&relay, Some(ROOT), "GET", "/auth/users", &Value::Null).await.json();
    let accounts = accounts.as_array().expect("a list");
    let account = accounts.iter().find(|account| account["username"] == "grace").expect("the user");
    assert_eq!(account["owned_topics"], json!(["mk.u"]));
    // Who made a topic is told by name, and `explain` says what that is worth.
    let root = closed::log_in(&relay, "root").await;
    for (topic, allowed) in [("mk.t", false), ("mk.u", true)] {
        let path = format!("/api/v1/topics/{topic}");
        let described = send(&relay, Some(&root), "GET", &path, &Value::Null).await.json();
        assert_eq!(described["owner_id"], "grace", "{topic}");
        let asked = json!({ "verb": "read", "topic": topic });
        let told = send(&relay, Some(&other), "POST", "/api/v1/access/explain", &asked).await.json();
        assert_eq!(told["allowed"], allowed, "{told}");
    }
    relay.stop().await;
}

#[tokio::test]
async fn in_memory_a_name_is_no_inheritance() {
    a_name_is_no_inheritance(memory()).await;
}

#[tokio::test]
async fn over_valkey_a_name_is_no_inheritance() {
    let Some(ground) = Ground::on(Kind::Valkey).await else { return };
    a_name_is_no_inheritance(ground.storage.clone()).await;
}

/// Reads a stream of lines until nothing comes for a while, and returns what came.
async fn until_quiet(stream: &mut Stream) -> String {
    let mut all = Vec::new();
    while let Ok(Ok(line)) = timeout(Duration::from_secs(2), stream.until(b"\n")).await {
        all.extend(line);
    }
    String::from_utf8(all).expect("text")
}

/// A topic that is deleted and made again by another is that one's from its first message on, on every node.
async fn a_topic_that_is_made_anew_is_its_maker_s(relays: Vec<TestRelay>) {
    let (one, other) = (&relays[0], &relays[relays.len() - 1]);
    let put = json!({ "rules": ["allow publish mk.*"] });
    assert_eq!(status(one, ROOT, "PUT", "/api/v1/roles/maker", &put).await, 201);
    user(one, "ann", &["maker"]).await;
    user(one, "bob", &["maker"]).await;
    let (ann, bob) = (closed::log_in(one, "ann").await, closed::log_in(one, "bob").await);
    let root = closed::log_in(one, "root").await;
    let open = async |relay: &TestRelay, who: &str, path: &str| {
        let who = format!("authorization: {who}\r\n");
        Stream::open(relay.address, path, "application/x-ndjson", &who).await.expect("a stream")
    };
    let mut bobs_pattern = open(other, &bob, "/api/v1/stream?topics=mk.*&after=latest").await;
    let (mut named, mut patterns, mut sockets) = (Vec::new(), Vec::new(), Vec::new());
    let topics: Vec<String> = (0..6).map(|number| format!("mk.{number}")).collect();
    for relay in &relays {
        patterns.push(open(relay, &ann, "/api/v1/stream?topics=mk.*&after=latest").await);
    }
    for (number, topic) in topics.iter().enumerate() {
        // Some are empty when they are deleted.
        let path = format!("/api/v1/topics/{topic}/messages");
        if number % 3 == 0 {
            let made = json!({ "topic_name": topic });
            assert_eq!(status(one, &ann, "POST", "/api/v1/topics", &made).await, 201);
        } else {
            assert_eq!(status(one, &ann, "POST", &path, &json!("ann's")).await, 201);
        }
        for relay in &relays {
            named.push(open(relay, &ann, &format!("{path}?after=latest")).await);
            let headers = [("authorization", &*ann)];
            let mut socket = WsClient::connect_with(relay.address, &headers).await.expect("it upgrades");
            socket.subscribe(topic, "latest").await;
            sockets.push(socket);
        }
    }
    for topic in &topics {
        let path = format!("/api/v1/topics/{topic}");
        let messages = format!("{path}/messages");
        // Whatever was known of it is known a moment ago.
        for relay in &relays {
            assert_eq!(status(relay, &ann, "GET", &messages, &Value::Null).await, 200);
            assert_eq!(status(relay, &bob, "GET", &messages, &Value::Null).await, 403);
        }
        assert_eq!(status(one, &root, "DELETE", &path, &Value::Null).await, 204);
        assert_eq!(status(other, &bob, "POST", &messages, &json!("bob's 1")).await, 201);
        for relay in &relays {
            for (method, path) in [("GET", &messages), ("GET", &path), ("DELETE", &path)] {
                let refused = status(relay, &ann, method, path, &Value::Null).await;
                assert_eq!(refused, 403, "{method} {path}");
            }
            assert_eq!(status(relay, &bob, "GET", &messages, &Value::Null).await, 200, "its maker");
        }
        assert_eq!(status(one, &bob, "POST", &messages, &json!("bob's 2")).await, 201);
    }
    for stream in &mut named {
        let told = timeout(Duration::from_secs(5), stream.rest()).await.expect("in time");
        let told = String::from_utf8(told.expect("it ends well")).expect("text");
        assert!(told.contains("revoked") && !told.contains("bob's"), "{told}");
    }
    for socket in &mut sockets {
        loop {
            match timeout(Duration::from_secs(5), socket.got()).await.expect("in time") {
                Got::Close(code) => break assert_eq!(code, 4401),
                Got::Message(_, payload) => {
                    assert!(!String::from_utf8_lossy(&payload).contains("bob"), "another's message");
                }
                _ => {}
            }
        }
    }
    for stream in &mut patterns {
        let told = until_quiet(stream).await;
        assert!(!told.contains("bob's") && told.contains("ann's"), "{told}");
    }
    drop((named, sockets, patterns));
    let told = until_quiet(&mut bobs_pattern).await;
    assert!(!told.contains("ann's"), "{told}");
    for relay in relays {
        relay.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_memory_a_topic_that_is_made_anew_is_its_maker_s() {
    a_topic_that_is_made_anew_is_its_maker_s(vec![closed::start(memory()).await]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_valkey_a_topic_that_is_made_anew_is_its_maker_s() {
    let Some(ground) = Ground::on(Kind::Valkey).await else { return };
    let other = ground.under(LIMITS).await;
    let relays = vec![closed::start(ground.storage.clone()).await, closed::start(other).await];
    a_topic_that_is_made_anew_is_its_maker_s(relays).await;
}
