//! Leases, from outside: one renewal keeps locks, keys and members alive, and they end together.

mod commands;
mod ending;
mod failing;
mod rights;
mod wrong;

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::streams::on_both_backends;
use crate::support::ground::{Ground, LIMITS};
use crate::support::relay::{Answer, TestRelay};

const JSON: (&str, &str) = ("content-type", "application/json");

on_both_backends! {
    one_renewal_keeps_locks_keys_and_members_alive,
    what_others_have_put_or_released_is_lost_and_not_touched,
    a_repeat_under_a_key_finds_what_is_under_the_lease,
    what_is_put_under_another_lease_is_kept_by_that,
    who_waits_for_a_lock_has_it_under_the_lease_as_it_is_by_then
}

/// Returns two relays: where the backend has a server, two nodes with connections of their own.
async fn two(ground: &Ground) -> [TestRelay; 2] {
    let other = if ground.has_server() { ground.under(LIMITS).await } else { ground.storage.clone() };
    [TestRelay::start(ground.storage.clone()).await, TestRelay::start(other).await]
}

async fn lease(relay: &TestRelay, ttl: &str) -> String {
    let answer = relay.post("/api/v1/leases", json!({ "ttl": ttl }).to_string()).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.json()["lease"].as_str().expect("a lease").to_owned()
}

async fn renew(relay: &TestRelay, lease: &str) -> Answer {
    relay.send("POST", &format!("/api/v1/leases/{lease}/renew"), &[], b"").await
}

async fn end(relay: &TestRelay, lease: &str) -> Answer {
    relay.send("DELETE", &format!("/api/v1/leases/{lease}"), &[], b"").await
}

async fn lock(relay: &TestRelay, name: &str, body: Value) -> Answer {
    relay.post(&format!("/api/v1/locks/{name}"), body.to_string()).await
}

async fn put(relay: &TestRelay, path: &str) -> Answer {
    relay.send("PUT", &format!("/api/v1/{path}"), &[JSON], b"{}").await
}

/// Makes a lock, a key and a member under a lease; returns the lock.
async fn make_all(relay: &TestRelay, lease: &str, of: &str) -> Value {
    let locked = lock(relay, of, json!({ "holder": "ann", "lease": lease })).await;
    assert_eq!(locked.status, 201, "{locked:?}");
    for path in [format!("keys/flows/{of}"), format!("presence/lobby/{of}")] {
        let made = put(relay, &format!("{path}?lease={lease}")).await;
        assert_eq!(made.status, 201, "{made:?}");
    }
    locked.json()
}

/// Returns who holds the lock, whether the key is there, and whether the member is.
async fn there(relay: &TestRelay, of: &str) -> (Value, bool, bool) {
    let holder = relay.get(&format!("/api/v1/locks/{of}")).await.json()["holder"].clone();
    let key = relay.get(&format!("/api/v1/keys/flows/{of}")).await.status == 200;
    let members = relay.get("/api/v1/presence/lobby").await.json()["members"].clone();
    let member = members.as_array().expect("members").iter().any(|member| member["member"] == of);
    (holder, key, member)
}

/// Returns what is named in an answer, as texts.
fn named(things: &Value) -> Vec<String> {
    let text = |thing: &Value, field: &str| thing[field].as_str().unwrap_or("-").to_owned();
    let things = things.as_array().expect("a list").iter();
    things
        .map(|thing| match text(thing, "kind").as_str() {
            "lock" => format!("lock {}", text(thing, "name")),
            "key" => format!("key {} {}", text(thing, "bucket"), text(thing, "key")),
            "member" => format!("member {} {}", text(thing, "room"), text(thing, "member")),
            other => panic!("{other} is no kind"),
        })
        .collect()
}

async fn one_renewal_keeps_locks_keys_and_members_alive(ground: &Ground) {
    const TTL: Duration = Duration::from_millis(1_500);
    let [one, other] = two(ground).await;
    let lease = lease(&one, "1500ms").await;
    let locked = make_all(&one, &lease, "a").await;
    // Several of a kind, more than one step takes; together, since the lease does not wait for them.
    let paths: Vec<_> = (0..150).map(|number| format!("keys/many/k-{number}?lease={lease}")).collect();
    for made in join_all(paths.iter().map(|path| put(&one, path))).await {
        assert_eq!(made.status, 201);
    }
    let shown = other.get(&format!("/api/v1/leases/{lease}")).await.json();
    assert_eq!((&shown["ttl"], &shown["expires_at"]), (&json!(1.5), &locked["expires_at"]));
    let keeps = named(&shown["keeps"]);
    assert_eq!(keeps.len(), 153);
    for name in ["lock a", "key flows a", "member lobby a", "key many k-149"] {
        assert!(keeps.iter().any(|kept| kept == name), "{name} of {keeps:?}");
    }
    // Over whichever node.
    let (began, mut last) = (Instant::now(), String::new());
    while began.elapsed() < TTL * 3 {
        for relay in [&one, &other] {
            sleep(TTL / 6).await;
            let renewed = renew(relay, &lease).await;
            assert_eq!(renewed.status, 200, "{renewed:?}");
            let renewed = renewed.json();
            assert_eq!(renewed["lost"], json!([]));
            let expires_at = renewed["expires_at"].as_str().expect("a time").to_owned();
            assert!(expires_at > last, "{expires_at} behind {last}");
            last = expires_at;
            assert_eq!(there(relay, "a").await, (json!("ann"), true, true));
        }
    }
    assert_eq!(one.get("/api/v1/buckets/many").await.json()["keys"], 150);
    // The fence is the one that it had.
    assert_eq!(one.get("/api/v1/locks/a").await.json()["fence"], locked["fence"]);
    let text = other.get("/metrics").await;
    assert!(text.text().contains(r#"tidemill_leases_total{what="renewed"}"#), "{}", text.text());
    for relay in [one, other] {
        relay.stop().await;
    }
}

async fn what_others_have_put_or_released_is_lost_and_not_touched(ground: &Ground) {
    let [one, other] = two(ground).await;
    let lease = lease(&one, "1m").await;
    let locked = make_all(&one, &lease, "a").await;
    make_all(&one, &lease, "b").await;
    // Somebody else puts the key and the member, and the lock is released and acquired by another.
    for path in ["keys/flows/a?ttl=1h", "presence/lobby/a?ttl=1h"] {
        assert_eq!(put(&other, path).await.status, 200);
    }
    let release = json!({ "token": locked["token"] }).to_string();
    assert_eq!(other.post("/api/v1/locks/a/release", release).await.status, 204);
    assert_eq!(lock(&other, "a", json!({ "holder": "bob", "ttl": "1h" })).await.status, 201);
    let ends = async || {
        let lock = one.get("/api/v1/locks/a").await.json()["expires_at"].clone();
        let key = one.get("/api/v1/keys/flows/a").await;
        let key = key.header("tidemill-expires-at").map(str::to_owned);
        (lock, key, one.get("/api/v1/presence/lobby").await.json()["members"][0]["expires_at"].clone())
    };
    let before = ends().await;
    let renewed = renew(&one, &lease).await.json();
    assert_eq!(named(&renewed["lost"]), ["key flows a", "member lobby a", "lock a"]);
    let codes: Vec<_> =
        renewed["lost"].as_array().expect("a list").iter().map(|lost| &lost["code"]).collect();
    assert_eq!(codes, ["precondition_failed", "precondition_failed", "lock_lost"]);
    assert_eq!(ends().await, before, "nothing of it was touched");
    // It is told once, and what is left is kept.
    assert_eq!(renew(&other, &lease).await.json()["lost"], json!([]));
    let shown = one.get(&format!("/api/v1/leases/{lease}")).await.json();
    assert_eq!(named(&shown["keeps"]), ["key flows b", "member lobby b", "lock b"]);
    assert_eq!(end(&other, &lease).await.status, 204);
    assert_eq!(there(&one, "a").await, (json!("bob"), true, true), "the end ends nothing of it");
    assert_eq!(there(&one, "b").await, (Value::Null, false, false));
    let metrics = one.get("/metrics").await;
    for line in [
        r#"tidemill_leases_total{what="created"} 1"#,
        r#"tidemill_leases_total{what="renewed"} 1"#,
        "tidemill_leases_lost_total 3",
    ] {
        assert!(metrics.text().lines().any(|told| told == line), "{line}");
    }
    for relay in [one, other] {
        relay.stop().await;
    }
}

async fn a_repeat_under_a_key_finds_what_is_under_the_lease(ground: &Ground) {
    let [one, other] = two(ground).await;
    let (lease, another) = (lease(&one, "1m").await, lease(&one, "1m").await);
    let key = ("idempotency-key", "once");
    let asked = |lease: &str| json!({ "holder": "ann", "lease": lease }).to_string();
    let headers = [JSON, key];
    let (path, lock) = (format!("/api/v1/keys/flows/k?lease={lease}"), "/api/v1/locks/l");
    let put = one.send("PUT", &path, &headers, b"1").await;
    let locked = one.send("POST", lock, &headers, asked(&lease).as_bytes()).await;
    assert_eq!((put.status, locked.status), (201, 201));
    // Later, when another time is left of it, and over the other node.
    sleep(Duration::from_millis(20)).await;
    assert_eq!(renew(&one, &lease).await.json()["lost"], json!([]));
    let again = other.send("PUT", &path, &headers, b"1").await;
    assert_eq!((again.status, again.json()), (201, put.json()), "{again:?}");
    let again = other.send("POST", lock, &headers, asked(&lease).as_bytes()).await;
    let (again, locked) = (again.json(), locked.json());
    assert_eq!((&again["token"], &again["fence"]), (&locked["token"], &locked["fence"]), "{again}");
    let shown = one.get(&format!("/api/v1/leases/{lease}")).await.json();
    assert_eq!(again["expires_at"], shown["expires_at"]);
    assert_eq!(named(&shown["keeps"]), ["key flows k", "lock l"]);
    // Under another lease it is something else.
    let path = format!("/api/v1/keys/flows/k?lease={another}");
    assert_eq!(one.send("PUT", &path, &headers, b"1").await.problem().code.as_str(), "key_reused");
    let reused = one.send("POST", lock, &headers, asked(&another).as_bytes()).await;
    assert_eq!(reused.problem().code.as_str(), "key_reused");
    for relay in [one, other] {
        relay.stop().await;
    }
}

async fn what_is_put_under_another_lease_is_kept_by_that(ground: &Ground) {
    let [one, other] = two(ground).await;
    let (old, new) = (lease(&one, "1m").await, lease(&other, "1m").await);
    for path in ["keys/flows/k", "presence/lobby/ann"] {
        assert_eq!(put(&one, &format!("{path}?lease={old}")).await.status, 201);
        // The same again is under it once.
        assert_eq!(put(&one, &format!("{path}?lease={old}")).await.status, 200);
        assert_eq!(put(&other, &format!("{path}?lease={new}")).await.status, 200);
    }
    let member = one.get("/api/v1/presence/lobby").await.json()["members"][0].clone();
    let mark = member["lease"].as_str().expect("a mark");
    assert!(mark.len() == 16 && !new.contains(mark) && !old.contains(mark), "{member}");
    assert_eq!(end(&one, &old).await.status, 204);
    assert_eq!(renew(&one, &new).await.json()["lost"], json!([]), "the end of the other has ended nothing");
    assert_eq!(one.get("/api/v1/keys/flows/k").await.status, 200);
    assert_eq!(end(&one, &new).await.status, 204);
    assert_eq!(one.get("/api/v1/keys/flows/k").await.status, 404);
    assert_eq!(one.get("/api/v1/presence/lobby").await.json()["members"], json!([]));
    for relay in [one, other] {
        relay.stop().await;
    }
}

async fn who_waits_for_a_lock_has_it_under_the_lease_as_it_is_by_then(ground: &Ground) {
    let [one, other] = two(ground).await;
    let held = lock(&one, "a", json!({ "holder": "ann", "ttl": "2s" })).await;
    assert_eq!(held.status, 201);
    // It lasts for less than the wait, and is renewed meanwhile.
    let lease = lease(&other, "1500ms").await;
    let waiting = async {
        let body = json!({ "holder": "bob", "lease": lease, "wait": "20s" });
        lock(&other, "a", body).await
    };
    let renewing = async {
        loop {
            assert_eq!(renew(&one, &lease).await.status, 200);
            sleep(Duration::from_millis(300)).await;
        }
    };
    let granted = tokio::select! {
        granted = waiting => granted,
        never = renewing => match never {},
    };
    assert_eq!(granted.status, 201, "{granted:?}");
    let shown = one.get(&format!("/api/v1/leases/{lease}")).await.json();
    assert_eq!(named(&shown["keeps"]), ["lock a"]);
    assert_eq!(granted.json()["expires_at"], shown["expires_at"]);
    // Whose lease ends while it waits gets nothing, and leaves nothing.
    let (brief, held) =
        (self::lease(&other, "1s").await, lock(&one, "b", json!({ "holder": "ann", "ttl": "2s" })).await);
    assert_eq!(held.status, 201);
    let body = json!({ "holder": "bob", "lease": brief, "wait": "20s" });
    assert_eq!(lock(&other, "b", body).await.problem().code.as_str(), "lease_not_found");
    assert_eq!(lock(&one, "b", json!({ "holder": "cyd", "ttl": "1s" })).await.status, 201, "it is free");
    for relay in [one, other] {
        relay.stop().await;
    }
}
