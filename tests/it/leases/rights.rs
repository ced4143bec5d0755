//! Who may put something under a lease, and keep it alive.

use serde_json::{Value, json};

use super::named;
use crate::access::closed::{self, ROOT, send, token};
use crate::support::relay::memory;

const NOTHING: Value = Value::Null;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_do_a_thing_may_keep_it_alive() {
    let relay = closed::start(memory()).await;
    let of = async |rules: &[&str]| token(&relay, ROOT, rules).await.1;
    let all = of(&["allow work locks/*", "allow publish,read keys/*", "allow publish,read presence/*"]).await;
    let keys = of(&["allow publish keys/flows/*"]).await;
    let locks = of(&["allow work locks/a"]).await;
    let members = of(&["allow publish presence/lobby/ann"]).await;
    let topics = of(&["allow publish,read,work,manage *", "allow read locks/*"]).await;
    let create =
        async |who: Option<&str>| send(&relay, who, "POST", "/api/v1/leases", &json!({ "ttl": "1m" })).await;
    for (who, status) in [
        (Some(&all), 201),
        (Some(&keys), 201),
        (Some(&locks), 201),
        (Some(&members), 201),
        (Some(&topics), 403),
        (None, 401),
    ] {
        assert_eq!(create(who.map(String::as_str)).await.status, status);
    }
    let lease = create(Some(&all)).await.json()["lease"].as_str().expect("a lease").to_owned();
    let path = format!("/api/v1/leases/{lease}");
    let renew = format!("{path}/renew");
    for (who, method, of, body, status) in [
        (&all, "POST", "/api/v1/locks/a".to_owned(), json!({ "holder": "h", "lease": lease }), 201),
        (&all, "PUT", format!("/api/v1/keys/flows/k?lease={lease}"), json!(1), 201),
        (&all, "PUT", format!("/api/v1/keys/other/k?lease={lease}"), json!(1), 201),
        (&all, "PUT", format!("/api/v1/presence/lobby/ann?lease={lease}"), NOTHING, 201),
        // The lease gives nobody a right.
        (&keys, "PUT", format!("/api/v1/keys/other/j?lease={lease}"), json!(1), 403),
        (&keys, "POST", "/api/v1/locks/b".to_owned(), json!({ "holder": "h", "lease": lease }), 403),
        (&members, "PUT", format!("/api/v1/presence/lobby/bob?lease={lease}"), NOTHING, 403),
        // Whoever may not is not told whether there is such a lease.
        (&keys, "PUT", format!("/api/v1/keys/other/j?lease={}", "0".repeat(32)), json!(1), 403),
    ] {
        assert_eq!(send(&relay, Some(who), method, &of, &body).await.status, status, "{method} {of}");
    }
    for (method, of) in [("POST", &renew), ("GET", &path), ("DELETE", &path)] {
        assert_eq!(send(&relay, None, method, of, &NOTHING).await.status, 401, "{method}");
        // Whoever may make nothing that a lease can keep has no use for it.
        assert_eq!(send(&relay, Some(&topics), method, of, &NOTHING).await.status, 403, "{method}");
    }
    let renewed = send(&relay, Some(&all), "POST", &renew, &NOTHING).await.json();
    assert_eq!(renewed["lost"], json!([]));
    // Whoever may not do all of it keeps what it may, and is told of the rest.
    let renewed = send(&relay, Some(&keys), "POST", &renew, &NOTHING).await.json();
    assert_eq!(named(&renewed["lost"]), ["key other k", "member lobby ann", "lock a"]);
    let lost = renewed["lost"].as_array().expect("a list");
    assert!(lost.iter().all(|lost| lost["code"] == "forbidden"), "{renewed}");
    let shown = send(&relay, Some(&keys), "GET", &path, &NOTHING).await.json();
    assert_eq!(named(&shown["keeps"]), ["key flows k"]);
    assert_eq!(send(&relay, Some(&keys), "DELETE", &path, &NOTHING).await.status, 204);
    let status = async |path: &str| send(&relay, Some(&all), "GET", path, &NOTHING).await.status;
    assert_eq!((status("/api/v1/keys/flows/k").await, status("/api/v1/keys/other/k").await), (404, 200));
    relay.stop().await;
}
