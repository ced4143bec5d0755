//! Changes of keys that show the fence of a lock.

use serde_json::{Value, json};
use tidemill::features::{Feature, Features};
use tidemill::proto::Code;
use tidemill::storage::{FENCE_AHEAD_MAX, Storage};

use super::{JSON, delete, get, on_both_backends, post, put};
use crate::support::eventually;
use crate::support::ground::SOON;
use crate::support::process::Relay;
use crate::support::relay::{Answer, TestRelay};

on_both_backends![
    who_has_lost_a_lock_that_guards_a_bucket_changes_none_of_its_keys,
    of_another_lock_the_greatest_fence_counts_that_was_shown,
    a_fence_that_is_none_is_named,
    a_fence_that_no_lock_can_have_given_shuts_nobody_out,
];

async fn acquired(relay: &TestRelay, lock: &str, body: Value) -> String {
    let answer = relay.post(&format!("/api/v1/locks/{lock}"), &body.to_string()).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    format!("{lock}={}", answer.json()["fence"].as_str().expect("a fence"))
}

/// Makes each kind of change with this fence.
async fn change(relay: &TestRelay, fence: &str) -> [Answer; 4] {
    let fence = [("tidemill-fence", fence)];
    let batch = json!({"changes": [{"op": "put", "key": "b", "value": 2}, {"op": "delete", "key": "c"}]});
    [
        put(relay, "flows/a", &fence, "1").await,
        post(relay, "flows/n/increment", &fence, "{}").await,
        post(relay, "flows", &fence, &batch.to_string()).await,
        delete(relay, "flows/a", &fence).await,
    ]
}

#[track_caller]
fn are_fenced(answers: [Answer; 4], against: Option<&str>) {
    for answer in answers {
        let problem = answer.problem();
        assert_eq!((problem.code, problem.status), (Code::Fenced, 412), "{answer:?}");
        assert_eq!(problem.fence.map(|fence| fence.to_string()).as_deref(), against, "{answer:?}");
    }
}

#[track_caller]
fn are_made(answers: &[Answer; 4]) {
    assert!(answers.iter().all(|answer| matches!(answer.status, 200 | 201)), "{answers:?}");
}

async fn who_has_lost_a_lock_that_guards_a_bucket_changes_none_of_its_keys(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let guards = json!({"bucket": "flows"});
    let ann = acquired(&relay, "writer", json!({"holder": "ann", "ttl": "2s", "guards": guards})).await;
    are_made(&change(&relay, &ann).await);
    assert_eq!(get(&relay, "flows/n").await.text(), "1");
    let is_free =
        async || relay.get("/api/v1/locks/writer?guards=bucket:flows").await.json().get("holder").is_none();
    eventually(SOON, is_free).await;
    are_fenced(change(&relay, &ann).await, None);
    let bob = acquired(&relay, "writer", json!({"holder": "bob", "ttl": "1m", "guards": guards})).await;
    are_fenced(change(&relay, &ann).await, bob.strip_prefix("writer="));
    assert_eq!(get(&relay, "flows/n").await.text(), "1", "nothing is changed");
    are_made(&change(&relay, &bob).await);
    assert_eq!(get(&relay, "flows/n").await.text(), "2");
    // No bucket is made by who may not write to it.
    let none = put(&relay, "other/a", &[("tidemill-fence", &bob)], "1").await.problem();
    assert_eq!(none.code, Code::Fenced);
    assert_eq!(relay.get("/api/v1/buckets/other").await.status, 404);
    relay.stop().await;
}

async fn of_another_lock_the_greatest_fence_counts_that_was_shown(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let old = acquired(&relay, "n", json!({"holder": "ann", "ttl": "1m"})).await;
    assert_eq!(relay.send("DELETE", "/api/v1/locks/n", &[], b"").await.status, 204);
    let new = acquired(&relay, "n", json!({"holder": "bob", "ttl": "1m"})).await;
    are_made(&change(&relay, &old).await);
    are_made(&change(&relay, &new).await);
    are_fenced(change(&relay, &old).await, new.strip_prefix("n="));
    relay.stop().await;
}

async fn a_fence_that_is_none_is_named(storage: Storage) {
    let relay = TestRelay::start(storage.clone()).await;
    for fence in ["n", "n=1", "=1-1", "n=1-1-1"] {
        for answer in change(&relay, fence).await {
            let problem = answer.problem();
            let said = (problem.code, problem.field.as_deref());
            assert_eq!(said, (Code::InvalidField, Some("Tidemill-Fence")), "{answer:?}");
        }
    }
    // A touch changes no value: who relies on its fence is told.
    put(&relay, "flows/a", &[], "1").await;
    let touched = post(&relay, "flows/a/touch", &[("tidemill-fence", "n=1-1")], "{}").await.problem();
    assert_eq!((touched.status, touched.field.as_deref()), (400, Some("Tidemill-Fence")));
    let off = |options: &mut tidemill::server::ServerOptions| {
        let without = Features::all().without(Feature::Locks);
        (options.http.features, options.relay.features) = (without, without);
    };
    let other = TestRelay::start_with(storage, off).await;
    for answer in change(&other, "n=1-1").await {
        assert_eq!(answer.problem().field.as_deref(), Some("Tidemill-Fence"), "{answer:?}");
    }
    assert_eq!(get(&other, "flows/a").await.text(), "1");
    for relay in [relay, other] {
        relay.stop().await;
    }
}

async fn a_fence_that_no_lock_can_have_given_shuts_nobody_out(storage: Storage) {
    let relay = TestRelay::start(storage.clone()).await;
    let publish = async |fence: &str| {
        let headers = [JSON, ("tidemill-fence", fence)];
        relay.send("POST", "/api/v1/topics/t/messages", &headers, b"1").await
    };
    let real = acquired(&relay, "n", json!({"holder": "ann", "ttl": "1m"})).await;
    let ahead = storage.upkeep.now().saturating_add(FENCE_AHEAD_MAX).as_millis();
    for made_up in
        [format!("n={}-0", ahead + 60_000), "n=9999999999999-0".into(), format!("n={}-2", u64::MAX)]
    {
        for answer in change(&relay, &made_up).await {
            let problem = answer.problem();
            let said = (problem.status, problem.field.as_deref());
            assert_eq!(said, (400, Some("Tidemill-Fence")), "{made_up}: {answer:?}");
        }
        let problem = publish(&made_up).await.problem();
        assert_eq!(
            (problem.status, problem.field.as_deref()),
            (400, Some("Tidemill-Fence")),
            "{made_up}: {problem:?}"
        );
    }
    assert_eq!(relay.get("/api/v1/buckets/flows").await.status, 404);
    are_made(&change(&relay, &real).await);
    assert_eq!(publish(&real).await.status, 201);
    // Of a lock that guards something that of who holds it counts alone.
    are_fenced(change(&relay, "n=9999999999999-1").await, None);
    // What a clock gave that was set back a little still counts.
    are_made(&change(&relay, &format!("n={}-0", ahead - 30_000)).await);
    relay.stop().await;
}

#[test]
fn a_command_shows_the_fence_that_it_is_given() {
    let relay = Relay::start(&[], &[]);
    let run = |arguments: &[&str]| relay.run(&[&["keys"], arguments].concat(), "");
    // No lock guards anything here: the greatest fence that was shown counts.
    run(&["put", "flows", "a", "1", "--fence", "n=5-0"]).lines();
    run(&["put", "flows", "a", "2", "--fence", "n=6-0"]).lines();
    for late in [&["put", "flows", "a", "3"][..], &["delete", "flows", "a"]] {
        let refused = run(&[late, &["--fence", "n=5-2"]].concat());
        assert!(refused.error(1).contains("`6-0`"), "{refused:?}");
    }
    assert_eq!(run(&["get", "flows", "a"]).stdout, "2");
    assert_eq!(run(&["delete", "flows", "a", "--fence", "n=6-0"]).lines(), ["deleted a"]);
    assert_eq!(run(&["put", "flows", "a", "1", "--fence", "n"]).code, Some(2));
}
