//! Users as clients of pulsar-relay make, list and change them.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tidemill::proto::Code;
use tidemill::storage::{
    AccessDocuments, AccessEdit, AccessStore, NewTicket, Storage, StorageError, TicketClaim,
};

use super::closed::{self, ROOT, send, token, user};
use crate::support::relay::memory;

const NOTHING: Value = Value::Null;

#[tokio::test]
async fn accounts_are_made_listed_changed_and_deleted() {
    let running = closed::start(memory()).await;
    let relay = &running;
    let wanted = json!({
        "username": "galaxy", "password": "correct horse", "email": "g@example.com",
        "permissions": ["read", "write"],
    });
    let made = send(relay, Some(ROOT), "POST", "/auth/register", &wanted).await;
    assert_eq!(made.status, 201, "{made:?}");
    let made = made.json();
    assert_eq!(
        (&made["user_id"], &made["email"], &made["permissions"], &made["owned_topics"]),
        (&json!("galaxy"), &json!("g@example.com"), &json!(["read", "write"]), &json!([]))
    );
    let again = send(relay, Some(ROOT), "POST", "/auth/register", &wanted).await;
    assert_eq!(again.problem().code, Code::Conflict);
    let roles = send(relay, Some(ROOT), "GET", "/api/v1/users/galaxy", &NOTHING).await.json();
    assert_eq!(roles["roles"], json!(["read", "write"]), "a permission is the role of its name");

    let form = b"username=galaxy&password=correct+horse";
    let kind = [("content-type", "application/x-www-form-urlencoded")];
    let tokens = relay.send("POST", "/auth/login", &kind, form).await.json();
    let bearer = format!("Bearer {}", tokens["access_token"].as_str().expect("a text"));
    for topic in ["b", "a"] {
        let publish = json!({ "topic": topic, "payload": 1 });
        assert_eq!(send(relay, Some(&bearer), "POST", "/api/v1/messages", &publish).await.status, 201);
    }
    let publish = json!({ "topic": "c", "payload": 1 });
    let (_, other) = token(relay, ROOT, &["allow publish *"]).await;
    assert_eq!(send(relay, Some(&other), "POST", "/api/v1/messages", &publish).await.status, 201);
    let all = send(relay, Some(ROOT), "GET", "/auth/users", &NOTHING).await.json();
    assert_eq!((&all[0]["username"], &all[0]["owned_topics"]), (&json!("galaxy"), &json!(["a", "b"])));
    assert_eq!(
        (&all[1]["username"], &all[1]["permissions"]),
        (&json!("root"), &json!(["admin", "read", "write"]))
    );
    let stats = send(relay, Some(ROOT), "GET", "/auth/users/stats", &NOTHING).await.json();
    assert_eq!(stats, json!({ "total_users": 2, "active_users": 2 }));

    // What is not said stays, and so do roles that are no permissions.
    let crew = json!({ "rules": ["allow read crew.*"] });
    assert_eq!(send(relay, Some(ROOT), "PUT", "/api/v1/roles/crew", &crew).await.status, 201);
    user(relay, "ann", &["crew", "write"]).await;
    let patch = async |name: &str, body: Value| {
        send(relay, Some(ROOT), "PATCH", &format!("/auth/users/{name}"), &body).await
    };
    assert_eq!(patch("ann", json!({ "permissions": [] })).await.json()["permissions"], json!(["read"]));
    let ann = send(relay, Some(ROOT), "GET", "/api/v1/users/ann", &NOTHING).await.json();
    assert_eq!(ann["roles"], json!(["crew"]));
    let idle = patch("galaxy", json!({ "is_active": false, "email": null })).await.json();
    assert_eq!(
        (&idle["is_active"], &idle["email"], &idle["permissions"]),
        (&json!(false), &json!("g@example.com"), &json!(["read", "write"]))
    );
    assert_eq!(send(relay, Some(&bearer), "GET", "/auth/me", &NOTHING).await.status, 401);
    assert_eq!(patch("nobody", json!({})).await.problem().code, Code::NotFound);
    user(relay, "stats", &[]).await;
    assert_eq!(patch("stats", json!({ "permissions": ["read"] })).await.json()["user_id"], "stats");

    for (path, status) in [("stats", 204), ("galaxy", 204), ("galaxy", 404), ("root", 400), ("nobody", 404)] {
        let answer = send(relay, Some(ROOT), "DELETE", &format!("/auth/users/{path}"), &NOTHING).await;
        assert_eq!(answer.status, status, "{path}: {answer:?}");
    }
    running.stop().await;
}

#[tokio::test]
async fn an_account_has_the_permissions_that_its_caller_really_has() {
    let relay = closed::start(memory()).await;
    for (name, rules) in [
        ("orders", &["allow read,publish orders.*", "deny publish orders.audit.*"][..]),
        ("none", &["allow read *", "deny read *"]),
    ] {
        let path = format!("/api/v1/roles/{name}");
        let role = json!({ "rules": rules });
        assert_eq!(send(&relay, Some(ROOT), "PUT", &path, &role).await.status, 201);
    }
    let (ann, none) = (user(&relay, "ann", &["orders"]).await, user(&relay, "none", &["none"]).await);
    let permissions = async |who: &str| {
        let me = send(&relay, Some(who), "GET", "/auth/me", &NOTHING).await;
        me.json()["permissions"].clone()
    };
    let log_in = async |name: &str| {
        let form = format!("username={name}&password=correct+horse");
        let kind = [("content-type", "application/x-www-form-urlencoded")];
        let tokens = relay.send("POST", "/auth/login", &kind, form.as_bytes()).await.json();
        format!("Bearer {}", tokens["access_token"].as_str().expect("a text"))
    };
    assert_eq!(permissions(&log_in("ann").await).await, json!(["read", "write"]));
    assert_eq!(permissions(&log_in("none").await).await, json!([]));
    let all = ["allow admin *", "allow read,publish *"];
    let (_, widest) = token(&relay, ROOT, &all).await;
    assert_eq!(permissions(&widest).await, json!(["admin", "read", "write"]));
    let (_, wide) = token(&relay, &ann, &all).await;
    assert_eq!(permissions(&wide).await, json!(["read", "write"]));
    for (maker, rule, expected) in [
        (&ann, "allow read,publish payroll.*", json!([])),
        (&ann, "allow read,publish orders.audit.*", json!(["read"])),
        (&ann, "allow read *.eu", json!(["read"])),
        (&wide, "allow read,publish payroll.*", json!([])),
        (&wide, "allow publish orders.eu", json!(["write"])),
        (&none, "allow read,publish *", json!([])),
        (&widest, "allow read keys/*", json!([])),
    ] {
        let (_, narrow) = token(&relay, maker, &[rule]).await;
        assert_eq!(permissions(&narrow).await, expected, "{rule}");
    }
    relay.stop().await;
}

#[tokio::test]
async fn who_makes_a_token_is_told_what_of_it_gives_nothing() {
    let relay = closed::start(memory()).await;
    let ann = user(&relay, "ann", &["read"]).await;
    let new_token = async |who: &str, rules: &[&str]| {
        let wanted = json!({ "name": "t", "rules": rules });
        send(&relay, Some(who), "POST", "/api/v1/tokens", &wanted).await.json()
    };
    let made = new_token(&ann, &["allow publish,read orders.*", "deny publish *", "allow admin *"]).await;
    assert_eq!(made["beyond_maker"], json!(["allow publish orders.*", "allow admin *"]));
    assert_eq!(
        made["rules"].as_array().map(Vec::len),
        Some(3),
        "all of them stay, and count once ann may more"
    );
    for made in [
        new_token(&ann, &["allow read *"]).await,
        new_token(ROOT, &["allow admin *", "allow publish *"]).await,
    ] {
        assert!(made["token"].is_string() && made.get("beyond_maker").is_none(), "{made}");
    }
    relay.stop().await;
}

#[tokio::test]
async fn only_administrators_do_and_bad_input_is_named() {
    let relay = closed::start(memory()).await;
    let basic = user(&relay, "ann", &["write"]).await;
    let wanted = json!({ "username": "bob", "password": "correct horse" });
    for (method, path, body) in [
        ("POST", "/auth/register", &wanted),
        ("GET", "/auth/users", &NOTHING),
        ("GET", "/auth/users/stats", &NOTHING),
        ("PATCH", "/auth/users/ann", &json!({})),
        ("PATCH", "/auth/users/nobody", &json!({})),
        ("DELETE", "/auth/users/ann", &NOTHING),
    ] {
        let refused = send(&relay, Some(&basic), method, path, body).await;
        assert_eq!(refused.problem().code, Code::Forbidden, "{method} {path}");
        assert_eq!(send(&relay, None, method, path, body).await.status, 401, "{method} {path}");
    }
    for (body, field) in [
        (json!({ "password": "correct horse" }), "username"),
        (json!({ "username": "bob" }), "password"),
        (json!({ "username": "bob", "password": "short" }), "password"),
        (json!({ "username": "a b", "password": "correct horse" }), "username"),
        (json!({ "username": "anonymous", "password": "correct horse" }), "username"),
        (json!({ "username": "bob", "password": "correct horse", "permissions": ["crew"] }), "permissions"),
        (json!({ "username": "bob", "password": "correct horse", "permissions": "read" }), "permissions"),
        (json!({ "username": "bob", "password": "correct horse", "email": "nowhere" }), "email"),
        (json!({ "username": "bob", "password": "correct horse", "is_admin": true }), "is_admin"),
    ] {
        let problem = send(&relay, Some(ROOT), "POST", "/auth/register", &body).await.problem();
        assert_eq!((problem.code, problem.field.as_deref()), (Code::InvalidField, Some(field)), "{body}");
    }
    relay.stop().await;
}

/// Documents of which somebody else changes one just before the next change.
#[derive(Debug)]
struct Interrupted {
    inner: Arc<dyn AccessStore>,
    other: Mutex<Option<AccessEdit>>,
}

#[async_trait]
impl AccessStore for Interrupted {
    async fn documents(&self, known: Option<u64>) -> Result<Option<AccessDocuments>, StorageError> {
        self.inner.documents(known).await
    }

    async fn change_documents(
        &self,
        known: u64,
        next: u64,
        edits: Vec<AccessEdit>,
    ) -> Result<bool, StorageError> {
        let other = self.other.lock().take();
        if let Some(other) = other {
            let changed =
                self.inner.change_documents(known, tidemill::chance::random().max(1), vec![other]).await;
            assert!(changed?, "nobody else is there");
        }
        self.inner.change_documents(known, next, edits).await
    }

    async fn put_ticket(&self, ticket: NewTicket) -> Result<bool, StorageError> {
        self.inner.put_ticket(ticket).await
    }

    async fn claim_ticket(&self, claim: &TicketClaim) -> Result<Option<Bytes>, StorageError> {
        self.inner.claim_ticket(claim).await
    }

    async fn ticket_holders(&self, ids: &[Box<str>]) -> Result<Vec<Option<u64>>, StorageError> {
        self.inner.ticket_holders(ids).await
    }
}

#[tokio::test]
async fn permissions_are_changed_of_the_roles_that_there_are_then() {
    let storage = memory();
    let interrupted = Arc::new(Interrupted { inner: storage.access.clone(), other: Mutex::default() });
    let relay = closed::start(Storage { access: interrupted.clone(), ..storage }).await;
    for role in ["crew", "ops"] {
        let rules = json!({ "rules": [] });
        let path = format!("/api/v1/roles/{role}");
        let answer = send(&relay, Some(ROOT), "PUT", &path, &rules).await;
        assert!(matches!(answer.status, 200 | 201), "{answer:?}");
    }
    user(&relay, "ann", &["crew", "read"]).await;
    let kept = interrupted.documents(None).await.expect("an answer").expect("documents");
    let mut ann: Value = serde_json::from_slice(&kept.documents["user/ann"]).expect("JSON");
    ann["roles"] = json!(["ops", "read"]);
    let document = Some(ann.to_string().into());
    *interrupted.other.lock() = Some(AccessEdit { name: "user/ann".into(), document });
    let wanted = json!({ "permissions": ["write"] });
    assert_eq!(send(&relay, Some(ROOT), "PATCH", "/auth/users/ann", &wanted).await.status, 200);
    let ann = send(&relay, Some(ROOT), "GET", "/api/v1/users/ann", &Value::Null).await.json();
    assert_eq!(ann["roles"], json!(["ops", "write"]), "what somebody else has changed stays");
    relay.stop().await;
}
