//! Whose a topic is: of who made it, and of nobody who has the name later.

use serde_json::{Value, json};
use tidemill::storage::Storage;

use super::closed::{self, ROOT, send, user};
use crate::support::ground::Ground;
use crate::support::relay::{TestRelay, memory};
use crate::support::server::Kind;

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
