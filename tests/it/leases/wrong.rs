//! What is wrong with a request about a lease is told, and nothing is changed.

use serde_json::{Value, json};
use tidemill::features::Feature;

use super::{JSON, lease, lock, put};
use crate::support::relay::{TestRelay, memory};

#[tokio::test]
async fn what_is_wrong_is_named_and_changes_nothing() {
    let relay = TestRelay::start(memory()).await;
    for (body, field) in [
        (json!({}), "ttl"),
        (json!({ "ttl": "999ms" }), "ttl"),
        (json!({ "ttl": "25h" }), "ttl"),
        (json!({ "ttl": -1 }), "ttl"),
        (json!({ "ttl": null }), "ttl"),
        (json!({ "ttl": "30s", "name": "n" }), "name"),
    ] {
        let problem = relay.post("/api/v1/leases", body.to_string()).await.problem();
        assert_eq!((problem.status, problem.field.as_deref()), (400, Some(field)), "{body}");
    }
    let lease = lease(&relay, "30s").await;
    let none = "0".repeat(32);
    let short = &lease[1..];
    for (method, path) in
        [("GET", ""), ("DELETE", ""), ("POST", "/renew")].map(|(method, rest)| (method, rest.to_owned()))
    {
        let send = async |lease: &str, query: &str| {
            let path = format!("/api/v1/leases/{lease}{path}{query}");
            relay.send(method, &path, &[], b"").await.problem()
        };
        let problem = send(short, "").await;
        assert_eq!((problem.status, problem.field.as_deref()), (400, Some("lease")), "{method}");
        let problem = send(&none, "").await;
        assert_eq!((problem.status, problem.code.as_str()), (404, "lease_not_found"), "{method}");
        let problem = send(&lease, "?ttl=1m").await;
        assert_eq!((problem.status, problem.field.as_deref()), (400, Some("ttl")), "{method}");
    }
    // Where something is to be put under it.
    for (name, status) in [(short, 400), (&*none, 404)] {
        for path in ["keys/flows/k", "presence/lobby/ann"] {
            let problem = put(&relay, &format!("{path}?lease={name}")).await.problem();
            assert_eq!((problem.status, problem.field.as_deref()), (status, Some("lease")), "{path}");
        }
        let problem = lock(&relay, "l", json!({ "holder": "ann", "lease": name })).await.problem();
        assert_eq!((problem.status, problem.field.as_deref()), (status, Some("lease")));
    }
    for path in ["keys/flows/k", "presence/lobby/ann"] {
        let problem = put(&relay, &format!("{path}?lease={lease}&ttl=30s")).await.problem();
        assert_eq!((problem.status, problem.field.as_deref()), (400, Some("lease")), "{path}");
    }
    for (body, field) in [
        (json!({ "holder": "ann", "lease": lease, "ttl": "30s" }), "lease"),
        (json!({ "holder": "ann", "lease": 7 }), "lease"),
        (json!({ "holder": "ann" }), "ttl"),
        (json!({ "holder": "ann", "lease": null, "ttl": null }), "ttl"),
    ] {
        let problem = lock(&relay, "l", body.clone()).await.problem();
        assert_eq!((problem.status, problem.field.as_deref()), (400, Some(field)), "{body}");
    }
    // What another holds is not under the lease, nor is what was refused.
    assert_eq!(lock(&relay, "m", json!({ "holder": "ann", "ttl": "1m" })).await.status, 201);
    assert_eq!(lock(&relay, "m", json!({ "holder": "bob", "lease": lease })).await.status, 409);
    let absent = [JSON, ("if-match", "*")];
    let refused = relay.send("PUT", &format!("/api/v1/keys/flows/k?lease={lease}"), &absent, b"1").await;
    assert_eq!(refused.status, 412, "{refused:?}");
    let shown = relay.get(&format!("/api/v1/leases/{lease}")).await.json();
    assert_eq!(shown["keeps"], json!([]));
    assert_eq!(relay.get("/api/v1/locks/l").await.json().get("holder"), None);
    assert_eq!(relay.get("/api/v1/presence/lobby").await.json()["count"], 0);
    relay.stop().await;
}

#[tokio::test]
async fn a_relay_without_locks_says_that_it_has_no_leases() {
    let relay = TestRelay::without(memory(), Feature::Locks).await;
    let none = "0".repeat(32);
    assert_eq!(relay.post("/api/v1/leases", r#"{"ttl":30}"#).await.problem().status, 404);
    assert_eq!(relay.get(&format!("/api/v1/leases/{none}")).await.problem().status, 404);
    for path in ["keys/flows/k", "presence/lobby/ann"] {
        let problem = put(&relay, &format!("{path}?lease={none}")).await.problem();
        assert_eq!((problem.status, problem.field.as_deref()), (400, Some("lease")), "{path}");
        assert!(problem.detail.contains("TIDEMILL_FEATURES"), "{}", problem.detail);
        assert_eq!(put(&relay, path).await.status, 201, "without one it is put");
    }
    let document: Value = relay.get("/openapi.json").await.json();
    assert!(document["paths"].get("/api/v1/leases").is_none());
    relay.stop().await;
}
