//! Locks over HTTP, and the fences that publishes show.

use std::time::Duration;

use serde_json::{Value, json};
use tidemill::proto::Code;
use tidemill::storage::Storage;
use tokio::io::AsyncWriteExt as _;
use tokio::time::Instant;

use super::work::until;
use super::{numbered_lines, on_every_backend};
use crate::access::closed;
use crate::support::relay::{Answer, TestRelay, memory};

const JSON: (&str, &str) = ("content-type", "application/json");

on_every_backend![
    a_lock_lives_from_acquire_to_release,
    who_waits_gets_it_from_who_releases_it_in_the_order_in_which_they_came,
    who_hangs_up_while_it_waits_gets_nothing,
    a_key_finds_a_lock_whose_answer_was_lost,
    bad_input_is_named_and_changes_nothing,
    who_has_lost_a_lock_that_guards_a_topic_cannot_publish_there,
    a_fence_is_shown_in_a_header_or_in_the_body,
    locks_that_are_held_are_listed,
];

async fn acquire(relay: &TestRelay, name: &str, body: Value) -> Answer {
    relay.post(&format!("/api/v1/locks/{name}"), &body.to_string()).await
}

async fn acquired(relay: &TestRelay, name: &str, body: Value) -> Value {
    let answer = acquire(relay, name, body).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    answer.json()
}

async fn say(relay: &TestRelay, path: &str, body: Value) -> Answer {
    relay.post(&format!("/api/v1/locks/{path}"), &body.to_string()).await
}

async fn shown(relay: &TestRelay, name: &str) -> Value {
    relay.get(&format!("/api/v1/locks/{name}")).await.json()
}

async fn a_lock_lives_from_acquire_to_release(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    assert_eq!(shown(&relay, "a").await, json!({"name": "a", "waiting": 0, "queue": []}));
    let ann = acquired(&relay, "a", json!({"holder": "ann", "ttl": "1m"})).await;
    let held = shown(&relay, "a").await;
    assert_eq!((&held["holder"], &held["fence"]), (&json!("ann"), &ann["fence"]));
    let problem = acquire(&relay, "a", json!({"holder": "bob", "ttl": 1})).await.problem();
    assert_eq!((problem.code, problem.status), (Code::Locked, 409));
    assert_eq!(problem.holder.map(|holder| holder.to_string()).as_deref(), Some("ann"));
    assert_eq!(json!(problem.expires_at), ann["expires_at"]);
    let renewed = say(&relay, "a/renew", json!({"token": ann["token"], "ttl": "2m"})).await.json();
    assert_eq!(renewed["fence"], ann["fence"]);
    assert!(renewed["expires_at"].as_str() > ann["expires_at"].as_str(), "{renewed}");
    let other =
        acquired(&relay, "b", json!({"holder": "ann", "ttl": 60, "guards": {"bucket": "flows"}})).await;
    let both = json!({"renewals": [
        {"name": "a", "token": other["token"], "ttl": 60}, {"name": "b", "token": other["token"], "ttl": 60}]});
    let results = say(&relay, "renew", both).await.json()["results"].clone();
    assert_eq!((&results[0]["code"], &results[1]["fence"]), (&json!("lock_lost"), &other["fence"]));
    assert_eq!(shown(&relay, "b").await.get("holder"), None, "it is another lock");
    assert_eq!(shown(&relay, "b?guards=bucket:flows").await["holder"], "ann");
    let release = json!({"token": ann["token"]});
    assert_eq!(say(&relay, "a/release", release.clone()).await.status, 204);
    let problem = say(&relay, "a/release", release).await.problem();
    assert_eq!((problem.code, problem.status), (Code::LockLost, 409));
    let taken = relay.send("DELETE", "/api/v1/locks/b?guards=bucket:flows", &[], b"").await;
    assert_eq!(taken.status, 204);
    let none = relay.send("DELETE", "/api/v1/locks/b?guards=bucket:flows", &[], b"").await.problem();
    assert_eq!(none.code, Code::LockNotHeld);
    let lost = say(&relay, "b/renew", json!({"token": other["token"], "ttl": 60})).await.problem();
    assert_eq!(lost.code, Code::LockLost);
    relay.stop().await;
}

async fn who_waits_gets_it_from_who_releases_it_in_the_order_in_which_they_came(storage: Storage) {
    const MANY: usize = 20;
    let relay = TestRelay::start(storage).await;
    let first = acquired(&relay, "a", json!({"holder": "first", "ttl": "1m"})).await;
    let (got, mut order) = tokio::sync::mpsc::channel(MANY);
    let waiting = (0..MANY).map(|number| {
        let (relay, got) = (&relay, got.clone());
        async move {
            until(async || shown(relay, "a").await["waiting"] == number).await;
            let body = json!({"holder": format!("w{number}"), "ttl": "1m", "wait": "30s"});
            let lock = acquired(relay, "a", body).await;
            got.send((number, lock["fence"].clone(), Instant::now())).await.expect("it is listened to");
            let released = Instant::now();
            assert_eq!(say(relay, "a/release", json!({"token": lock["token"]})).await.status, 204);
            released
        }
    });
    let releasing = async {
        until(async || shown(&relay, "a").await["waiting"] == MANY).await;
        assert_eq!(say(&relay, "a/release", json!({"token": first["token"]})).await.status, 204);
        Instant::now()
    };
    let (released, begun) = tokio::join!(futures_util::future::join_all(waiting), releasing);
    let mut all = Vec::new();
    while let Ok(one) = order.try_recv() {
        all.push(one);
    }
    assert_eq!(all.iter().map(|one| one.0).collect::<Vec<_>>(), (0..MANY).collect::<Vec<_>>());
    // Nobody waits for the next look: all of them together need less than that.
    assert!(released[MANY - 1].duration_since(begun) < Duration::from_secs(8), "hints are heard");
    relay.stop().await;
}

async fn who_hangs_up_while_it_waits_gets_nothing(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let ann = acquired(&relay, "a", json!({"holder": "ann", "ttl": "1m"})).await;
    let body = r#"{"holder":"gone","ttl":"1m","wait":"30s"}"#;
    let mut stream = relay.connect().await;
    let request = format!(
        "POST /api/v1/locks/a HTTP/1.1\r\nhost: relay\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.expect("it is sent");
    until(async || shown(&relay, "a").await["queue"][0]["holder"] == "gone").await;
    drop(stream);
    until(async || shown(&relay, "a").await["waiting"] == 0).await;
    assert_eq!(say(&relay, "a/release", json!({"token": ann["token"]})).await.status, 204);
    assert_eq!(shown(&relay, "a").await.get("holder"), None);
    relay.stop().await;
}

async fn a_key_finds_a_lock_whose_answer_was_lost(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let ask = async |key: &str, holder: &str| {
        let body = json!({"holder": holder, "ttl": "1m"}).to_string();
        relay.send("POST", "/api/v1/locks/a", &[JSON, ("idempotency-key", key)], body.as_bytes()).await
    };
    let first = ask("k", "ann").await;
    let again = ask("k", "ann").await;
    assert_eq!((first.status, again.status), (201, 201));
    assert_eq!(
        (first.header("idempotency-replayed"), again.header("idempotency-replayed")),
        (None, Some("true"))
    );
    assert_eq!(first.json(), again.json());
    assert_eq!(ask("k", "bob").await.problem().code, Code::KeyReused);
    assert_eq!(ask("other", "ann").await.problem().code, Code::Locked);
    relay.stop().await;
}

async fn bad_input_is_named_and_changes_nothing(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let token = "0".repeat(32);
    let held = acquired(&relay, "held", json!({"holder": "ann", "ttl": "1m"})).await;
    let right = json!({"name": "held", "token": held["token"], "ttl": "1h"});
    for (path, body, field) in [
        ("a", json!({"ttl": 1}), "holder"),
        ("a", json!({"holder": "", "ttl": 1}), "holder"),
        ("a", json!({"holder": "a b", "ttl": 1}), "holder"),
        ("a", json!({"holder": "x".repeat(129), "ttl": 1}), "holder"),
        ("a", json!({"holder": "a"}), "ttl"),
        ("a", json!({"holder": "a", "ttl": "99ms"}), "ttl"),
        ("a", json!({"holder": "a", "ttl": "25h"}), "ttl"),
        ("a", json!({"holder": "a", "ttl": 1, "wait": 61}), "wait"),
        ("a", json!({"holder": "a", "ttl": 1, "guards": "topic:t"}), "guards"),
        ("a", json!({"holder": "a", "ttl": 1, "guards": {"room": "t"}}), "guards"),
        ("a", json!({"holder": "a", "ttl": 1, "guards": {"topic": "a b"}}), "guards"),
        ("a", json!({"holder": "a", "ttl": 1, "lease": "l"}), "lease"),
        ("a*", json!({"holder": "a", "ttl": 1}), "lock"),
        ("a/renew", json!({"ttl": 1}), "token"),
        ("a/renew", json!({"token": "t", "ttl": 1}), "token"),
        ("a/renew", json!({"token": token}), "ttl"),
        ("a/release", json!({"token": 1}), "token"),
        ("renew", json!({}), "renewals"),
        ("renew", json!({"renewals": []}), "renewals"),
        ("renew", json!({"renewals": {}}), "renewals"),
        ("renew", json!({"renewals": vec![right.clone(); 1_001]}), "renewals"),
        ("renew", json!({"renewals": [{"name": "a", "token": token}]}), "renewals[0].ttl"),
        ("renew", json!({"renewals": [right, 1]}), "renewals[1]"),
        ("renew", json!({"renewals": [right, []]}), "renewals[1]"),
        ("renew", json!({"renewals": [right, {"token": token, "ttl": 1}]}), "renewals[1].name"),
        ("renew", json!({"renewals": [right, {"name": "a*", "token": token, "ttl": 1}]}), "renewals[1].name"),
        ("renew", json!({"renewals": [right, {"name": "a", "ttl": 1}]}), "renewals[1].token"),
        ("renew", json!({"renewals": [right, {"name": "a", "token": "t", "ttl": 1}]}), "renewals[1].token"),
        ("renew", json!({"renewals": [right, {"name": "a", "token": token, "ttl": 0}]}), "renewals[1].ttl"),
        (
            "renew",
            json!({"renewals": [right, {"name": "a", "token": token, "ttl": 1, "x": 1}]}),
            "renewals[1].x",
        ),
    ] {
        let problem = say(&relay, path, body.clone()).await.problem();
        assert_eq!(
            (problem.code, problem.field.as_deref()),
            (Code::InvalidField, Some(field)),
            "{path} {body}"
        );
    }
    assert_eq!(shown(&relay, "held").await["expires_at"], held["expires_at"], "nothing was renewed");
    for (method, path) in
        [("POST", "a"), ("DELETE", "a"), ("POST", "a/renew"), ("POST", "a/release"), ("POST", "renew")]
    {
        let path = format!("/api/v1/locks/{path}");
        let problem = relay.send(method, &path, &[JSON, ("if-none-match", "*")], b"{}").await.problem();
        assert_eq!((problem.status, problem.field.as_deref()), (400, Some("If-None-Match")), "{path}");
    }
    let problem = relay.get("/api/v1/locks/a?guards=orders").await.problem();
    assert_eq!(problem.field.as_deref(), Some("guards"));
    assert_eq!(shown(&relay, "a").await, json!({"name": "a", "waiting": 0, "queue": []}));
    relay.stop().await;
}

async fn who_has_lost_a_lock_that_guards_a_topic_cannot_publish_there(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let guards = json!({"topic": "orders"});
    let publish = async |fence: &Value| {
        let fence = format!("writer={}", fence.as_str().expect("a fence"));
        relay.send("POST", "/api/v1/topics/orders/messages", &[JSON, ("tidemill-fence", &fence)], b"1").await
    };
    let ann = acquired(&relay, "writer", json!({"holder": "ann", "ttl": "300ms", "guards": guards})).await;
    assert_eq!(publish(&ann["fence"]).await.status, 201);
    until(async || shown(&relay, "writer?guards=topic:orders").await.get("holder").is_none()).await;
    let late = publish(&ann["fence"]).await.problem();
    assert_eq!((late.code, late.status, late.fence), (Code::Fenced, 412, None));
    let bob = acquired(&relay, "writer", json!({"holder": "bob", "ttl": "1m", "guards": guards})).await;
    let late = publish(&ann["fence"]).await.problem();
    assert_eq!((late.code, json!(late.fence)), (Code::Fenced, bob["fence"].clone()));
    assert_eq!(publish(&bob["fence"]).await.status, 201);
    assert_eq!(relay.get("/api/v1/topics/orders/messages").await.json()["total"], 2);
    relay.stop().await;
}

async fn a_fence_is_shown_in_a_header_or_in_the_body(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let old = acquired(&relay, "n", json!({"holder": "ann", "ttl": "1m"})).await;
    assert_eq!(say(&relay, "n/release", json!({"token": old["token"]})).await.status, 204);
    let new = acquired(&relay, "n", json!({"holder": "bob", "ttl": "1m"})).await;
    let text = |lock: &Value| format!("n={}", lock["fence"].as_str().expect("a fence"));
    let described = |lock: &Value| json!({"topic": "t", "payload": 1, "fence": text(lock)});
    assert_eq!(relay.post("/api/v1/messages", &described(&new).to_string()).await.status, 201);
    assert_eq!(
        relay.post("/api/v1/messages", &described(&old).to_string()).await.problem().code,
        Code::Fenced
    );
    let bulk = json!({"messages": [described(&old), described(&new)]});
    let results = relay.post("/api/v1/messages/bulk", &bulk.to_string()).await.json()["results"].clone();
    assert_eq!(results[0]["code"], "fenced", "{results}");
    assert_eq!((&results[0]["fence"], results[1].get("fence")), (&new["fence"], None), "{results}");
    assert!(results[1].get("message_id").is_some(), "{results}");
    let lines = numbered_lines(3);
    let of_lines = [("content-type", "application/x-ndjson"), ("tidemill-fence", &text(&old))];
    let answer = relay.send("POST", "/api/v1/topics/t/messages", &of_lines, lines.as_bytes()).await.json();
    assert_eq!(answer["results"][2]["code"], "fenced", "{answer}");
    for (fence, field) in [("n", "Tidemill-Fence"), ("n=1", "Tidemill-Fence")] {
        let headers = [JSON, ("tidemill-fence", fence)];
        let problem = relay.send("POST", "/api/v1/topics/t/messages", &headers, b"1").await.problem();
        assert_eq!(problem.field.as_deref(), Some(field));
    }
    for (more, field) in [
        (json!({"delay": 1}), "fence"),
        (json!({"unique": {"group": "g", "key": "k"}}), "fence"),
        (json!({"fence": "n"}), "fence"),
    ] {
        let mut body = described(&new);
        body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        let problem = relay.post("/api/v1/messages", &body.to_string()).await.problem();
        assert_eq!(problem.field.as_deref(), Some(field), "{more}");
    }
    let headers = [JSON, ("tidemill-fence", &text(&new))];
    let problem = relay.send("POST", "/api/v1/messages", &headers, b"{}").await.problem();
    assert_eq!(problem.field.as_deref(), Some("Tidemill-Fence"));
    relay.stop().await;
}

async fn locks_that_are_held_are_listed(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let list = async || {
        let (mut path, mut all) = ("/api/v1/locks".to_owned(), Vec::new());
        loop {
            let answer = relay.get(&path).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            all.extend(answer.json().as_array().expect("a list").clone());
            let Some(next) = answer.next_page() else { return all };
            next.clone_into(&mut path);
        }
    };
    assert_eq!(list().await, Vec::<Value>::new());
    let ann = acquired(&relay, "a", json!({"holder": "ann", "ttl": "1m"})).await;
    let guards = json!({"topic": "orders"});
    let bob = acquired(&relay, "a", json!({"holder": "bob", "ttl": "1m", "guards": guards})).await;
    let waits = acquire(&relay, "a", json!({"holder": "cyd", "ttl": "1m", "wait": "1m"}));
    let looks = async {
        until(async || list().await.iter().any(|lock| lock["waiting"] == json!(1))).await;
        let mut all = list().await;
        all.sort_by_key(|lock| lock["holder"].to_string());
        let expected = json!([
            {"name": "a", "holder": "ann", "fence": ann["fence"], "expires_at": ann["expires_at"], "waiting": 1},
            {"name": "a", "guards": guards, "holder": "bob", "fence": bob["fence"], "expires_at": bob["expires_at"], "waiting": 0},
        ]);
        assert_eq!(json!(all), expected);
        assert_eq!(say(&relay, "a/release", json!({"token": ann["token"]})).await.status, 204);
    };
    let (cyd, ()) = tokio::join!(waits, looks);
    assert_eq!(cyd.status, 201);
    assert!(list().await.iter().any(|lock| lock["holder"] == json!("cyd") && lock["waiting"] == json!(0)));
    for (query, field) in
        [("after=", "after"), ("after=x%00", "after"), ("limit=1", "limit"), ("after=a&after=a", "after")]
    {
        let problem = relay.get(&format!("/api/v1/locks?{query}")).await.problem();
        assert_eq!((problem.status, problem.field.as_deref()), (400, Some(field)), "{query}");
    }
    relay.stop().await;
}

#[tokio::test]
async fn who_may_read_some_locks_is_shown_those() {
    let relay = closed::start(memory()).await;
    let of = async |rules: &[&str]| closed::token(&relay, closed::ROOT, rules).await.1;
    let worker = of(&["allow work locks/*"]).await;
    for name in ["nightly.a", "nightly.b", "daily"] {
        let path = format!("/api/v1/locks/{name}");
        let body = json!({"holder": "ann", "ttl": "1m"});
        assert_eq!(closed::send(&relay, Some(&worker), "POST", &path, &body).await.status, 201);
    }
    let reader = of(&["allow read locks/nightly.*", "deny read locks/nightly.b"]).await;
    let topics = of(&["allow read,work,manage *", "allow read presence/*"]).await;
    let list =
        async |who: Option<&str>| closed::send(&relay, who, "GET", "/api/v1/locks", &Value::Null).await;
    for (who, status) in [(None, 401), (Some(&*worker), 403), (Some(&*topics), 403)] {
        assert_eq!(list(who).await.status, status, "{who:?}");
    }
    let listed = list(Some(&reader)).await.json();
    let names: Vec<_> = listed.as_array().expect("a list").iter().map(|lock| &lock["name"]).collect();
    assert_eq!(names, [&json!("nightly.a")], "{listed}");
    relay.stop().await;
}
