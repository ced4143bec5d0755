//! A storage that fails in any step: a renewal that is answered has given its time to all, and the end ends all.

use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;

use super::{JSON, named, there};
use crate::support::dice::seeds;
use crate::support::faulty::{Faulty, Rates};
use crate::support::relay::{Answer, TestRelay, memory};
use crate::support::{eventually, length};

const TTL: Duration = Duration::from_secs(4);
/// What the time of a thing is less than that of its lease at most: how long the storage takes for the lease.
const LESS_MS: i64 = 500;

/// Asks until there is an answer that is no failure of the storage.
async fn ask(relay: &TestRelay, method: &str, path: &str, body: &str) -> Answer {
    let path = format!("/api/v1/{path}");
    loop {
        // Whoever sends the same again says so; where it counts for nothing it does no harm.
        let headers = [JSON, ("idempotency-key", path.as_str())];
        let answer = relay.send(method, &path, &headers, body.as_bytes()).await;
        if answer.status < 500 {
            return answer;
        }
        sleep(Duration::from_millis(5)).await;
    }
}

/// Returns a time of an answer, in milliseconds.
fn millis(text: &str) -> i64 {
    let time: tidemill::proto::Timestamp = serde_json::from_value(json!(text)).expect("a time");
    i64::try_from(time.as_millis()).expect("a time of today")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_fails_a_renewal_that_is_answered_gives_time_to_all_and_the_end_ends_all() {
    for seed in seeds(length::pick(5, 200)) {
        let faulty = Faulty::new(memory(), Rates::SOME, seed);
        let relay = TestRelay::start(faulty.storage()).await;
        let truth = TestRelay::start(faulty.inner().clone()).await;
        let created = loop {
            let body = json!({ "ttl": "4s" }).to_string();
            let created = relay.post("/api/v1/leases", body).await;
            if created.status == 201 {
                break created.json();
            }
            assert!(created.status >= 500, "{created:?}");
        };
        let lease = created["lease"].as_str().expect("a lease");
        let body = json!({ "holder": "ann", "lease": lease }).to_string();
        assert_eq!(ask(&relay, "POST", "locks/a", &body).await.status, 201);
        for path in ["keys/flows/a", "presence/lobby/a"] {
            let put = ask(&relay, "PUT", &format!("{path}?lease={lease}"), "{}").await;
            assert!(matches!(put.status, 200 | 201), "{put:?}");
        }
        for _ in 0..5 {
            sleep(Duration::from_millis(100)).await;
            let renewed = ask(&relay, "POST", &format!("leases/{lease}/renew"), "").await;
            assert_eq!(renewed.status, 200, "{renewed:?}");
            let renewed = renewed.json();
            assert_eq!(renewed["lost"], json!([]), "nobody else has done anything");
            let until = millis(renewed["expires_at"].as_str().expect("a time"));
            let shown = truth.get(&format!("/api/v1/leases/{lease}")).await.json();
            assert_eq!(named(&shown["keeps"]), ["key flows a", "member lobby a", "lock a"]);
            let lock = truth.get("/api/v1/locks/a").await.json();
            let key = truth.get("/api/v1/keys/flows/a").await;
            let room = truth.get("/api/v1/presence/lobby").await.json();
            let ends = [
                lock["expires_at"].as_str(),
                key.header("tidemill-expires-at"),
                room["members"][0]["expires_at"].as_str(),
            ];
            for end in ends.map(|end| millis(end.expect("it has a time"))) {
                assert!(end + LESS_MS > until, "{end} is long before {until}");
            }
        }
        let ended = relay.send("DELETE", &format!("/api/v1/leases/{lease}"), &[], b"").await;
        assert!(ended.status == 204 || ended.status >= 500, "{ended:?}");
        if ended.status == 503 {
            let left = truth.get(&format!("/api/v1/leases/{lease}")).await;
            assert_eq!(left.status, 200, "it says that nothing was done: {ended:?} {left:?}");
        }
        faulty.calm().await;
        if ended.status >= 500 {
            // It has ended, or it goes on until its time is over.
            println!("the end was answered with {}", ended.status);
        }
        let gone = (serde_json::Value::Null, false, false);
        eventually(TTL + Duration::from_secs(6), async || there(&truth, "a").await == gone).await;
        relay.stop().await;
        truth.stop().await;
    }
}
