//! Several keys over HTTP: batches, pages, histories, owners, and the settings of buckets.

use serde_json::{Value, json};
use tidemill::storage::Storage;

use super::{bucket, delete, get, on_both_backends, post, put, revision};
use crate::support::relay::{Answer, TestRelay};

on_both_backends![
    changes_are_made_all_or_none,
    a_value_has_three_forms_in_json,
    pages_follow_each_other,
    a_history_goes_as_far_as_its_bucket_keeps_it,
    buckets_are_made_described_listed_and_deleted,
    all_keys_of_an_owner_are_revoked,
];

fn keys(answer: &Answer) -> Vec<String> {
    let list = answer.json();
    let key = |entry: &Value| entry["key"].as_str().expect("a key").to_owned();
    list.as_array().unwrap_or_else(|| panic!("a list, and no {answer:?}")).iter().map(key).collect()
}

async fn changes_are_made_all_or_none(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let first = revision(&put(&relay, "b/a", &[], "1").await);
    let body = json!({ "changes": [
        { "op": "put", "key": "a", "value": { "n": 2 }, "if_match": first },
        { "op": "put", "key": "new", "value_text": "é", "if_none_match": "*", "ttl": "1h", "owner": "ann" },
        { "op": "increment", "key": "n", "by": 5 },
        { "op": "delete", "key": "none" },
    ] });
    let answer = post(&relay, "b", &[("idempotency-key", "one")], &body.to_string()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let told = answer.json();
    let changed = told["changed"].as_array().expect("a list");
    let flags: Vec<_> = changed.iter().map(|one| one["is_new"].as_bool().expect("a flag")).collect();
    assert_eq!((told["bucket"].as_str(), flags), (Some("b"), vec![false, true, true, false]));
    assert_eq!((&changed[2]["value"], &changed[3]["revision"]), (&json!(5), &Value::Null));
    let revisions: Vec<_> = changed[..3].iter().map(|one| one["revision"].as_str().expect("one")).collect();
    assert!(revisions[0] != first && revisions[0] != revisions[1] && revisions[1] != revisions[2]);
    let repeat = post(&relay, "b", &[("idempotency-key", "one")], &body.to_string()).await;
    assert_eq!((repeat.header("idempotency-replayed"), repeat.json()), (Some("true"), told.clone()));
    let new = get(&relay, "b/new").await;
    assert_eq!((new.text(), new.header("tidemill-owner")), ("é", Some("ann")));
    let times: Vec<_> = changed.iter().map(|one| one["expires_at"].as_str()).collect();
    assert_eq!(times, [None, new.header("tidemill-expires-at"), None, None]);
    assert!(times[1].is_some(), "{new:?}");
    // One that may not be made keeps the others from being made.
    let torn = json!({ "changes": [
        { "op": "put", "key": "other", "value": 1 },
        { "op": "delete", "key": "new" },
        { "op": "put", "key": "a", "value": 3, "if_match": first },
    ] });
    let refused = post(&relay, "b", &[], &torn.to_string()).await.problem();
    assert_eq!((refused.status, refused.field.as_deref()), (412, Some("changes[2]")), "{refused:?}");
    assert_eq!(refused.revision.map(|id| id.to_string()).as_deref(), Some(revisions[0]));
    let torn = json!({ "changes": [
        { "op": "put", "key": "other", "value": 1 },
        { "op": "increment", "key": "a" },
    ] });
    let refused = post(&relay, "b", &[], &torn.to_string()).await.problem();
    assert_eq!((refused.status, refused.field.as_deref()), (409, Some("changes[1]")), "{refused:?}");
    assert_eq!(keys(&get(&relay, "b").await), ["a", "n", "new"], "nothing was changed");
    // As many as may be.
    let many = |count: usize| {
        let change = |at: usize| json!({ "op": "put", "key": format!("k{at}"), "value": at });
        json!({ "changes": (0..count).map(change).collect::<Vec<_>>() }).to_string()
    };
    assert_eq!(post(&relay, "many", &[], &many(100)).await.status, 200);
    let refused = post(&relay, "many", &[], &many(101)).await.problem();
    assert_eq!((refused.status, refused.field.as_deref()), (400, Some("changes")));
    relay.stop().await;
}

async fn a_value_has_three_forms_in_json(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let forms = [
        json!({ "value": null }),
        json!({ "value": { "n": [1.5, "é"] } }),
        json!({ "value": 1, "content_type": "application/a+json" }),
        json!({ "value_text": "a\nb", "content_type": "text/plain" }),
        json!({ "value_base64": "AP8=", "content_type": "application/octet-stream" }),
        json!({ "value_base64": "", "content_type": "image/png" }),
    ];
    let change = |(at, form): (usize, &Value)| {
        let mut change = form.clone();
        change["op"] = "put".into();
        change["key"] = format!("k{at}").into();
        change
    };
    let changes: Vec<_> = forms.iter().enumerate().map(change).collect();
    assert_eq!(post(&relay, "b", &[], &json!({ "changes": changes }).to_string()).await.status, 200);
    let listed = get(&relay, "b?values=true").await.json();
    for (at, form) in forms.iter().enumerate() {
        let (listed, form) = (listed[at].as_object().expect("a key"), form.as_object().expect("a form"));
        for (name, value) in form {
            assert_eq!(listed.get(name), Some(value), "{listed:?}");
        }
        assert_eq!(listed.len(), 3 + form.len(), "{listed:?}");
    }
    // Bytes that no JSON can be, and JSON that its type says it is.
    let wrong = json!({ "changes": [{ "op": "put", "key": "x", "value_text": "{", "content_type": "application/json" }] });
    let refused = post(&relay, "b", &[], &wrong.to_string()).await.problem();
    assert_eq!(
        (refused.status, refused.field.as_deref()),
        (400, Some("changes[0].value_text")),
        "{refused:?}"
    );
    relay.stop().await;
}

async fn pages_follow_each_other(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let names = ["Z", "a", "a-b", "a.1", "a.10", "a.2", "b"];
    for name in names.iter().rev() {
        put(&relay, &format!("b/{name}"), &[], &format!("{name:?}")).await;
    }
    let page = get(&relay, "b").await;
    assert_eq!((keys(&page), page.header("link")), (names.map(str::to_owned).to_vec(), None));
    assert!(page.json()[0].get("value").is_none(), "{page:?}");
    let (mut path, mut found) = ("/api/v1/keys/b?prefix=a.&limit=2&values=true".to_owned(), Vec::new());
    let mut pages = 0;
    loop {
        let page = relay.get(&path).await;
        found.extend(page.json().as_array().expect("a list").iter().map(|entry| entry["value"].clone()));
        pages += 1;
        let Some(next) = page.next_page() else { break };
        next.clone_into(&mut path);
    }
    assert_eq!((found, pages), (vec![json!("a.1"), json!("a.10"), json!("a.2")], 2));
    assert_eq!(keys(&get(&relay, "b?after=a.2").await), ["b"]);
    assert_eq!(keys(&get(&relay, "b?prefix=c").await), [] as [&str; 0]);
    let none = get(&relay, "none").await.problem();
    assert_eq!(none.code.as_str(), "bucket_not_found");
    relay.stop().await;
}

async fn a_history_goes_as_far_as_its_bucket_keeps_it(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    bucket(&relay, "b", r#"{"history": 3}"#).await;
    let mut revisions = Vec::new();
    for number in 1..=4 {
        revisions.push(revision(&put(&relay, "b/k", &[], &number.to_string()).await));
    }
    let answer = get(&relay, "b/k?view=history").await;
    let history = answer.json();
    assert_eq!((&history["bucket"], &history["key"]), (&json!("b"), &json!("k")));
    let kept: Vec<_> = history["revisions"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|one| (one["revision"].as_str().expect("one").to_owned(), one["value"].clone()))
        .collect();
    let expected: Vec<_> = (1..4).rev().map(|at| (revisions[at].clone(), json!(at + 1))).collect();
    assert_eq!(kept, expected);
    assert_eq!(revision(&answer), revisions[3]);
    let earlier = get(&relay, &format!("b/k?revision={}", revisions[1])).await;
    assert_eq!((earlier.text(), revision(&earlier)), ("2", revisions[1].clone()));
    let gone = get(&relay, &format!("b/k?revision={}", revisions[0])).await.problem();
    assert_eq!((gone.code.as_str(), gone.field.as_deref()), ("key_not_found", Some("revision")));
    delete(&relay, "b/k", &[]).await;
    for path in ["b/k?view=history".to_owned(), format!("b/k?revision={}", revisions[3])] {
        assert_eq!(get(&relay, &path).await.problem().code.as_str(), "key_not_found", "{path}");
    }
    relay.stop().await;
}

async fn buckets_are_made_described_listed_and_deleted(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let path = |name: &str| format!("/api/v1/buckets/{name}");
    assert_eq!(relay.get(&path("b")).await.problem().code.as_str(), "bucket_not_found");
    let settings =
        r#"{"history": 2, "ttl": "30m", "absolute_age": "12h", "max_keys": 10, "max_bytes": 1000}"#;
    let made = bucket(&relay, "b", settings).await;
    assert_eq!(made.status, 201, "{made:?}");
    put(&relay, "b/k", &[], "12345").await;
    put(&relay, "b/k", &[], "1").await;
    let detail = relay.get(&path("b")).await.json();
    let created_at = detail["created_at"].clone();
    assert_eq!(
        detail,
        json!({
            "bucket": "b", "history": 2, "ttl": 1800, "absolute_age": 43200, "max_keys": 10, "max_bytes": 1000,
            "adaptive_ttl": null, "created_at": created_at, "keys": 1, "bytes": 6,
        })
    );
    let changed = bucket(&relay, "b", r#"{"ttl": null}"#).await;
    assert_eq!((changed.status, &changed.json()["ttl"]), (200, &Value::Null));
    assert_eq!((&changed.json()["history"], &changed.json()["keys"]), (&json!(1), &json!(1)));
    for name in ["c", "a"] {
        put(&relay, &format!("{name}/k"), &[], "1").await;
    }
    let names = |answer: &Answer| -> Vec<String> {
        let list = answer.json();
        let name = |one: &Value| one["bucket"].as_str().expect("a name").to_owned();
        list.as_array().expect("a list").iter().map(name).collect()
    };
    let all = relay.get("/api/v1/buckets").await;
    assert_eq!((names(&all), all.header("link")), (vec!["a".into(), "b".into(), "c".into()], None));
    let first = relay.get("/api/v1/buckets?limit=2").await;
    assert_eq!(first.header("link"), Some("</api/v1/buckets?limit=2&after=b>; rel=\"next\""));
    assert_eq!(names(&relay.get("/api/v1/buckets?limit=2&after=b").await), ["c"]);
    // Its log is no topic that is listed.
    assert_eq!(relay.get("/api/v1/topics").await.json(), json!([]));
    let gone = relay.send("DELETE", &path("b"), &[], b"").await;
    assert_eq!(gone.status, 204, "{gone:?}");
    assert_eq!(relay.send("DELETE", &path("b"), &[], b"").await.status, 404);
    assert_eq!(get(&relay, "b/k").await.status, 404);
    assert_eq!(names(&relay.get("/api/v1/buckets").await), ["a", "c"]);
    relay.stop().await;
}

async fn all_keys_of_an_owner_are_revoked(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    for (key, owner) in [("s1", "ann"), ("s2", "bob"), ("s3", "ann")] {
        assert_eq!(put(&relay, &format!("s/{key}?owner={owner}"), &[], "{}").await.status, 201);
    }
    let session = get(&relay, "s/s1").await;
    assert_eq!(session.header("tidemill-owner"), Some("ann"));
    let before = revision(&session);
    let revoke = async |owner: &str| {
        relay.post("/api/v1/buckets/s/revoke", format!(r#"{{"owner":{owner:?}}}"#)).await.json()
    };
    assert_eq!(revoke("ann").await, json!({ "revoked": 2 }));
    assert_eq!(revoke("ann").await, json!({ "revoked": 0 }));
    assert_eq!(keys(&get(&relay, "s").await), ["s2"]);
    // A save that comes late does not undo it.
    let late = put(&relay, "s/s1", &[("if-match", &format!("\"{before}\""))], "{}").await;
    assert_eq!(super::not_so(&late), None);
    assert_eq!(post(&relay, "s/s1/touch", &[], r#"{"ttl": 60}"#).await.status, 404);
    let none = relay.post("/api/v1/buckets/none/revoke", r#"{"owner":"ann"}"#).await.problem();
    assert_eq!(none.code.as_str(), "bucket_not_found");
    relay.stop().await;
}
