//! Over HTTP: what a take, a look and a refund are answered, and what is wrong with one.

use serde_json::{Value, json};
use tidemill::features::Feature;
use tidemill::storage::Storage;

use crate::access::closed::{self, ROOT, token};
use crate::keys::on_both_backends;
use crate::support::relay::{Answer, TestRelay, is_wrong, memory};

async fn post(relay: &TestRelay, path: &str, body: &Value) -> Answer {
    relay.post(&format!("/api/v1/limits/{path}"), &body.to_string()).await
}

async fn takes_looks_and_refunds_are_answered(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let of = |cost: u32| json!({ "cost": cost, "policies": [{ "limit": 10, "per": "1h" }, { "limit": 60, "per": 60, "burst": 30 }] });
    let first = post(&relay, "mail/take", &of(4)).await;
    assert_eq!(first.status, 200, "{first:?}");
    let first = first.json();
    let fields: Vec<_> = first.as_object().expect("an object").keys().cloned().collect();
    assert_eq!(fields, ["allowed", "remaining", "reset", "retry_after"], "{first}");
    assert_eq!(
        (&first["allowed"], &first["remaining"], &first["retry_after"]),
        (&json!(true), &json!(6), &json!(0))
    );
    assert_eq!(first["reset"], 1_440, "four tenths of an hour, whichever policy takes longer");
    assert_eq!(post(&relay, "mail/take", &of(6)).await.json()["remaining"], 0);
    let refused = post(&relay, "mail/take", &of(5)).await.json();
    assert_eq!((&refused["allowed"], &refused["remaining"]), (&json!(false), &json!(0)));
    let wait = refused["retry_after"].as_f64().expect("a number");
    assert!((1_780.0..=1_800.0).contains(&wait), "half an hour: {wait}");
    let looked = post(&relay, "mail/peek", &of(5)).await.json();
    assert_eq!((&looked["allowed"], &looked["remaining"]), (&json!(false), &json!(0)));
    let back = post(&relay, "mail/refund", &of(5)).await.json();
    assert_eq!((&back["allowed"], &back["remaining"]), (&json!(true), &json!(5)));
    let looked = post(&relay, "mail/peek", &of(5)).await.json();
    assert_eq!((&looked["allowed"], &looked["remaining"]), (&json!(true), &json!(5)));
    let one = post(&relay, "other/take", &json!({ "policies": [{ "limit": 10, "per": "1h" }] })).await.json();
    assert_eq!(one["remaining"], 9, "one, if nothing is said");
    let metrics = relay.get("/metrics").await;
    for line in [
        r#"tidemill_takes_total{kind="take",result="allowed",decided_by="storage"} 3"#,
        r#"tidemill_takes_total{kind="take",result="refused",decided_by="storage"} 1"#,
        r#"tidemill_takes_total{kind="refund",result="allowed",decided_by="storage"} 1"#,
    ] {
        assert!(metrics.text().lines().any(|of| of == line), "no {line} in {}", metrics.text());
    }
    relay.stop().await;
}

async fn of_several_takes_each_is_for_itself(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let policies = json!([{ "limit": 1, "per": "1h" }]);
    let takes = json!({ "takes": [
        { "name": "a", "policies": policies },
        { "name": "a", "policies": policies, "cost": 1 },
        { "name": "b", "policies": policies, "cost": 2 },
        { "name": "no name", "policies": policies },
        { "policies": policies },
        { "name": "c", "policies": policies, "costs": 1 },
        { "name": "d", "policies": policies },
    ] });
    let answer = post(&relay, "take", &takes).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let results = answer.json()["results"].as_array().expect("results").clone();
    let allowed: Vec<_> = results.iter().map(|one| one["allowed"] == true).collect();
    // In no order among them: of the two of one limit one passes.
    assert_eq!(allowed.iter().filter(|one| **one).count(), 2);
    assert!((allowed[0] ^ allowed[1]) && allowed[6], "{results:?}");
    for (at, name, field) in [(2, "b", "cost"), (3, "no name", "name"), (4, "", "name"), (5, "", "costs")] {
        let Value::Object(one) = &results[at] else { panic!("an object") };
        assert_eq!((&one["name"], &one["error"]["field"]), (&json!(name), &json!(field)), "{one:?}");
        assert_eq!(one["error"]["code"], "invalid_field");
        assert_eq!((&one["allowed"], &one["remaining"]), (&json!(false), &json!(0)));
    }
    assert!(results[0].get("error").is_none());
    for (body, rule) in [
        (json!({ "takes": [] }), "has 0 takes"),
        (json!({ "takes": vec![json!({}); 101] }), "has 101 takes"),
        (json!({ "takes": {} }), "must be an array"),
        (json!({}), "is missing"),
    ] {
        is_wrong(&post(&relay, "take", &body).await, "takes", rule);
    }
    let many: Vec<_> = (0..100).map(|at| json!({ "name": format!("m{at}"), "policies": policies })).collect();
    let many = post(&relay, "take", &json!({ "takes": many })).await.json();
    let results = many["results"].as_array().expect("results");
    assert!(results.len() == 100 && results.iter().all(|one| one["allowed"] == true), "{many}");
    relay.stop().await;
}

async fn what_is_wrong_is_named_and_nothing_is_taken(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let policy = |policy: Value| json!({ "policies": [policy] });
    let right = json!({ "limit": 10, "per": "1h" });
    for (body, field) in [
        (json!({}), "policies"),
        (json!({ "policies": null }), "policies"),
        (json!({ "policies": [] }), "policies"),
        (json!({ "policies": {} }), "policies"),
        (json!({ "policies": [1] }), "policies"),
        (json!({ "policies": vec![right.clone(); 9] }), "policies"),
        (json!({ "policies": [right, right] }), "policies"),
        (json!({ "policies": [right, { "limit": 10, "per": 3_600, "burst": 10 }] }), "policies"),
        (json!({ "policies": [right], "cost": 0 }), "cost"),
        (json!({ "policies": [right], "cost": -1 }), "cost"),
        (json!({ "policies": [right], "cost": 0.5 }), "cost"),
        (json!({ "policies": [right], "cost": "1" }), "cost"),
        (json!({ "policies": [right], "cost": 11 }), "cost"),
        (json!({ "policies": [right, { "limit": 20, "per": "1h", "burst": 2 }], "cost": 3 }), "cost"),
        (json!({ "policies": [right], "costs": 1 }), "costs"),
        (policy(json!({ "per": "1h" })), "limit"),
        (policy(json!({ "limit": 0, "per": "1h" })), "limit"),
        (policy(json!({ "limit": 1_000_000_001, "per": "1h" })), "limit"),
        (policy(json!({ "limit": 1.5, "per": "1h" })), "limit"),
        (policy(json!({ "limit": "10", "per": "1h" })), "limit"),
        (policy(json!({ "limit": 10 })), "per"),
        (policy(json!({ "limit": 10, "per": 0 })), "per"),
        (policy(json!({ "limit": 10, "per": "soon" })), "per"),
        (policy(json!({ "limit": 10, "per": "366d" })), "per"),
        (policy(json!({ "limit": 10, "per": -1 })), "per"),
        (policy(json!({ "limit": 10, "per": "1h", "burst": 0 })), "burst"),
        (policy(json!({ "limit": 10, "per": "1h", "burst": "many" })), "burst"),
        (policy(json!({ "limit": 1, "per": "365d", "burst": 2 })), "burst"),
        (policy(json!({ "limit": 10, "per": "1h", "bursts": 1 })), "bursts"),
    ] {
        for what in ["take", "peek", "refund"] {
            is_wrong(&post(&relay, &format!("wrong/{what}"), &body).await, field, "");
        }
    }
    let problem = post(&relay, "a*b/take", &policy(right.clone())).await.problem();
    assert_eq!((problem.status, problem.field.as_deref()), (400, Some("name")), "{problem:?}");
    let whole = post(&relay, "wrong/peek", &policy(right.clone())).await.json();
    assert_eq!((&whole["remaining"], &whole["reset"]), (&json!(10), &json!(0)), "nothing was taken");
    for (limit, per) in [(1_000_000_000, json!("365d")), (1, json!(0.001)), (1, json!("365d"))] {
        let answer = post(&relay, "right/take", &policy(json!({ "limit": limit, "per": per }))).await;
        assert_eq!(answer.json()["remaining"], limit - 1, "{answer:?}");
    }
    relay.stop().await;
}

on_both_backends![
    takes_looks_and_refunds_are_answered,
    of_several_takes_each_is_for_itself,
    what_is_wrong_is_named_and_nothing_is_taken,
];

#[tokio::test]
async fn who_has_the_right_to_a_limit_may_use_that_and_no_other() {
    let relay = closed::start(memory()).await;
    let (_, worker) = token(&relay, ROOT, &["allow work limits/mail.*", "allow read limits/*"]).await;
    let (_, reader) = token(&relay, ROOT, &["allow read,work *"]).await;
    let body = json!({ "policies": [{ "limit": 10, "per": "1h" }] }).to_string();
    let send = async |who: &str, path: &str, body: &str| {
        let headers = [("content-type", "application/json"), ("authorization", who)];
        relay.send("POST", &format!("/api/v1/limits/{path}"), &headers, body.as_bytes()).await
    };
    for (path, of_worker) in [
        ("mail.a/take", 200),
        ("mail.a/refund", 200),
        ("mail.a/peek", 200),
        ("sms/peek", 200),
        ("sms/take", 403),
        ("sms/refund", 403),
    ] {
        assert_eq!(send(&worker, path, &body).await.status, of_worker, "{path}");
        assert_eq!(send(&reader, path, &body).await.status, 403, "rules of topics cover no limits: {path}");
        assert_eq!(relay.post(&format!("/api/v1/limits/{path}"), &body).await.status, 401, "{path}");
    }
    let both = json!({ "takes": [
        { "name": "mail.b", "policies": [{ "limit": 10, "per": "1h" }] },
        { "name": "sms", "policies": [{ "limit": 10, "per": "1h" }] },
    ] });
    let results = send(&worker, "take", &both.to_string()).await.json()["results"].clone();
    assert_eq!((&results[0]["allowed"], &results[0]["remaining"]), (&json!(true), &json!(9)));
    assert_eq!((&results[1]["allowed"], &results[1]["error"]["code"]), (&json!(false), &json!("forbidden")));
    assert_eq!(send(&reader, "take", &both.to_string()).await.status, 403, "there is nothing that it may");
    relay.stop().await;
}

#[tokio::test]
async fn a_relay_that_has_no_limits_for_applications_has_no_such_path() {
    let relay = TestRelay::without(memory(), Feature::Limits).await;
    let body = json!({ "policies": [{ "limit": 10, "per": "1h" }] });
    assert_eq!(post(&relay, "mail/take", &body).await.status, 404);
    relay.stop().await;
}
