//! Who may do what with keys on a closed relay, how it is explained, and how much of it is counted.

use serde_json::{Value, json};
use tidemill::limits::{Limit, LimitOptions};
use tidemill::proto::Code;

use crate::access::closed::{self, ROOT, close, send, token};
use crate::support::relay::{TestRelay, memory};

const NOTHING: Value = Value::Null;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rule_says_who_may_do_what_and_is_told() {
    let relay = closed::start(memory()).await;
    let of = async |rules: &[&str]| token(&relay, ROOT, rules).await.1;
    let all = of(&["allow publish,read,manage keys/*"]).await;
    let acme = of(&["allow publish,read keys/acme/*", "deny read keys/acme/secret"]).await;
    let topics = of(&["allow publish,read,manage *"]).await;
    for bucket in ["acme", "zeta"] {
        for key in ["a", "secret"] {
            let path = format!("/api/v1/keys/{bucket}/{key}");
            assert_eq!(send(&relay, Some(&all), "PUT", &path, &json!(1)).await.status, 201);
        }
    }
    let changes = |keys: &[&str]| {
        let put = |key: &&str| json!({ "op": "put", "key": key, "value": 2 });
        json!({ "changes": keys.iter().map(put).collect::<Vec<_>>() })
    };
    let owner = json!({ "owner": "ann" });
    let increment = json!({});
    for (method, path, body, as_acme) in [
        ("GET", "keys/acme/a", &NOTHING, 200),
        ("GET", "keys/acme/secret", &NOTHING, 403),
        ("GET", "keys/acme/secret?view=history", &NOTHING, 403),
        ("PUT", "keys/acme/secret", &json!(3), 200),
        ("POST", "keys/acme/secret/touch", &json!({}), 200),
        ("POST", "keys/acme/secret/touch", &json!({ "return": "value" }), 403),
        ("GET", "keys/acme", &NOTHING, 403),
        ("GET", "keys/acme?prefix=a", &NOTHING, 200),
        ("GET", "keys/zeta/a", &NOTHING, 403),
        ("GET", "keys/zeta/none", &NOTHING, 403),
        ("PUT", "keys/zeta/a", &json!(2), 403),
        ("PUT", "keys/zeta/new", &json!(2), 403),
        ("DELETE", "keys/zeta/a", &NOTHING, 403),
        ("POST", "keys/zeta/a/increment", &increment, 403),
        ("POST", "keys/zeta/a/touch", &increment, 403),
        ("POST", "keys/zeta", &changes(&["a"]), 403),
        ("POST", "keys/acme", &changes(&["a", "b"]), 200),
        ("GET", "buckets/acme", &NOTHING, 403),
        ("GET", "buckets/zeta", &NOTHING, 403),
        ("PUT", "buckets/acme", &json!({}), 403),
        ("DELETE", "buckets/acme", &NOTHING, 403),
        ("POST", "buckets/acme/revoke", &owner, 403),
    ] {
        let path = format!("/api/v1/{path}");
        // Rules on topics are about no key, and whoever says nothing is asked who it is.
        let refused = send(&relay, Some(&topics), method, &path, body).await;
        assert_eq!(refused.problem().code, Code::Forbidden, "{method} {path}");
        let refused = send(&relay, None, method, &path, body).await;
        assert_eq!(refused.problem().code, Code::Unauthenticated, "{method} {path}");
        let answer = send(&relay, Some(&acme), method, &path, body).await;
        assert_eq!(answer.status, as_acme, "{method} {path}: {answer:?}");
        if as_acme == 403 {
            assert_eq!(answer.problem().code, Code::Forbidden);
        }
    }
    let left = send(&relay, Some(&all), "GET", "/api/v1/keys/zeta?values=true", &NOTHING).await.json();
    let left: Vec<_> =
        left.as_array().expect("a list").iter().map(|one| (&one["key"], &one["value"])).collect();
    assert_eq!(left, [(&json!("a"), &json!(1)), (&json!("secret"), &json!(1))], "nothing was changed");
    // Of buckets that it may not read as a whole it is told nothing.
    let list = async |who: &str| send(&relay, Some(who), "GET", "/api/v1/buckets", &NOTHING).await;
    assert_eq!(list(&all).await.json().as_array().map(Vec::len), Some(2));
    assert_eq!(list(&acme).await.json(), json!([]));
    assert_eq!(list(&topics).await.problem().code, Code::Forbidden);
    let explain = async |who: &str, verb: &str, named: &str| {
        let asked = json!({ "verb": verb, "topic": named });
        let answer = send(&relay, Some(who), "POST", "/api/v1/access/explain", &asked).await.json();
        (answer["allowed"].as_bool(), answer["rule"].as_str().map(str::to_owned))
    };
    let rule = |text: &str| Some(text.to_owned());
    for (verb, named, allowed, why) in [
        ("read", "keys/acme/a", true, rule("allow publish,read keys/acme/*")),
        ("read", "keys/acme/secret", false, rule("deny read keys/acme/secret")),
        ("read", "keys/acme", false, rule("deny read keys/acme/secret")),
        ("publish", "keys/acme/*", true, rule("allow publish,read keys/acme/*")),
        ("manage", "keys/acme", false, None),
        ("work", "locks/a", false, None),
    ] {
        assert_eq!(explain(&acme, verb, named).await, (Some(allowed), why), "{verb} {named}");
    }
    for named in ["keys/", "things/a", "keys/a/b/c"] {
        let asked = json!({ "verb": "read", "topic": named });
        let answer = send(&relay, Some(&acme), "POST", "/api/v1/access/explain", &asked).await;
        assert_eq!(answer.problem().field.as_deref(), Some("topic"), "{named}");
    }
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_change_of_a_key_counts_as_a_message() {
    let relay = TestRelay::start_with(memory(), |options| {
        close(options);
        options.limits = LimitOptions::none().with(Limit::PrincipalMessages, 10);
    })
    .await;
    let who = token(&relay, ROOT, &["allow publish,read keys/*"]).await.1;
    let change = |key: usize| json!({ "op": "put", "key": format!("k{key}"), "value": 1 });
    let batch = json!({ "changes": (0..7).map(change).collect::<Vec<_>>() });
    let status = async |method: &str, path: &str, body: &Value| {
        send(&relay, Some(&who), method, &format!("/api/v1/keys/{path}"), body).await.status
    };
    assert_eq!(status("POST", "b", &batch).await, 200);
    assert_eq!(status("PUT", "b/k0", &json!(2)).await, 200);
    assert_eq!(status("POST", "b/n/increment", &json!({})).await, 200);
    assert_eq!(status("DELETE", "b/k1", &NOTHING).await, 200);
    for (method, path, body) in
        [("PUT", "b/k0", json!(3)), ("DELETE", "b/k0", NOTHING), ("POST", "b/n/increment", json!({}))]
    {
        assert_eq!(status(method, path, &body).await, 429, "{method} {path}");
    }
    assert_eq!(status("GET", "b/k0", &NOTHING).await, 200, "a read is none");
    assert_eq!(status("POST", "b/k0/touch", &json!({})).await, 200, "nor is a touch");
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_not_put_a_key_fills_none() {
    let relay = closed::start(memory()).await;
    let reader = token(&relay, ROOT, &["allow read keys/b/*"]).await.1;
    let writer = token(&relay, ROOT, &["allow publish keys/b/*"]).await.1;
    let both = token(&relay, ROOT, &["allow publish,read keys/b/*"]).await.1;
    let path = "/api/v1/keys/b/k?fill=10s&wait=0";
    for who in [&reader, &writer] {
        let refused = send(&relay, Some(who), "GET", path, &NOTHING).await;
        assert_eq!(refused.problem().code, Code::Forbidden);
        assert_eq!(refused.header("tidemill-fill"), None);
    }
    let granted = send(&relay, Some(&both), "GET", path, &NOTHING).await;
    assert!(granted.header("tidemill-fill").is_some(), "{granted:?}");
    relay.stop().await;
}
