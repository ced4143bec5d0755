//! Keys whose time is over: reads do not see them any more, and what has happened to them is told once and soon.

use std::time::Duration;

use serde_json::json;
use tidemill::proto::page::Order;
use tidemill::proto::{BucketName, MessageId};
use tidemill::proto::{Timestamp, TopicName};
use tidemill::storage::{GapCheck, Logged, LoggedKind, Range, Storage};
use tokio::time::Instant;

use super::{bucket, get, on_both_backends, post, put, revision};
use crate::support::eventually;
use crate::support::ground::SOON;
use crate::support::relay::TestRelay;

on_both_backends![
    a_key_expires_and_its_log_says_so_once,
    a_touch_has_it_live_on_and_nobody_is_told,
    a_counter_lives_from_when_it_came_to_be,
    an_absolute_age_ends_what_is_used_all_the_time,
    keys_that_another_node_has_put_expire_within_a_second,
];

/// Returns the changes that the log of a bucket has, with the keys.
async fn logged(storage: &Storage, bucket: &str) -> Vec<(String, LoggedKind)> {
    let log = TopicName::log_of(&BucketName::parse(bucket).expect("a name"));
    let range = Range {
        order: Order::Asc,
        after: Some(MessageId::MIN),
        gap_check: GapCheck::None,
        limit: 1_000,
        bytes_max: 1 << 20,
    };
    let batch = storage.messages.read(&log, range).await.expect("the log can be read");
    let of = |message| Logged::of(message).map(|logged| (logged.key.to_string(), logged.change));
    batch.messages.iter().map(|message| of(message).expect("a change")).collect()
}

fn expired(changes: &[(String, LoggedKind)]) -> Vec<&str> {
    changes.iter().filter(|(_, kind)| *kind == LoggedKind::Expired).map(|(key, _)| key.as_str()).collect()
}

async fn a_key_expires_and_its_log_says_so_once(storage: Storage) {
    let (one, two) = (TestRelay::start(storage.clone()).await, TestRelay::start(storage.clone()).await);
    let at = Instant::now();
    let answer = put(&one, "b/k?ttl=300ms", &[], "1").await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let until = get(&two, "b/k").await;
    let until = until.header("tidemill-expires-at").expect("it is told when");
    assert!(Timestamp::parse(until).is_ok(), "{until}");
    assert_eq!(answer.json()["expires_at"], json!(until), "and who puts it knows at once");
    put(&one, "b/stays", &[], "1").await;
    eventually(SOON, async || get(&two, "b/k").await.status == 404).await;
    assert!(at.elapsed() >= Duration::from_millis(290), "not before its time: {:?}", at.elapsed());
    eventually(SOON, async || !expired(&logged(&storage, "b").await).is_empty()).await;
    let late = at.elapsed();
    eprintln!("the expiry stood in the log {late:?} after the put");
    // Whatever looks at it now, it has expired once.
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        get(&one, "b/k").await;
    }
    assert_eq!(expired(&logged(&storage, "b").await), ["k"]);
    assert_eq!(put(&one, "b/k", &[("if-none-match", "*")], "2").await.status, 201, "it can be put anew");
    let counted = async |relay: &TestRelay| {
        let metrics = relay.get("/metrics").await;
        let line = metrics.text().lines().find_map(|line| line.strip_prefix("tidemill_keys_expired_total "));
        line.expect("it is counted").parse::<u64>().expect("a number")
    };
    assert_eq!(counted(&one).await + counted(&two).await, 1, "by one of the two");
    one.stop().await;
    two.stop().await;
}

async fn a_touch_has_it_live_on_and_nobody_is_told(storage: Storage) {
    let relay = TestRelay::start(storage.clone()).await;
    assert_eq!(post(&relay, "b/k/touch", &[], r#"{"ttl": 60}"#).await.status, 404, "it makes none");
    bucket(&relay, "b", r#"{"ttl": "1h"}"#).await;
    assert_eq!(
        post(&relay, "b/k/touch", &[], r#"{"ttl": 60}"#).await.problem().code.as_str(),
        "key_not_found"
    );
    let put = put(&relay, "b/k?ttl=60", &[], r#"{"user": "ann"}"#).await;
    let before = get(&relay, "b/k").await.header("tidemill-expires-at").expect("a time").to_owned();
    let changes = logged(&storage, "b").await.len();
    let touched = post(&relay, "b/k/touch", &[], r#"{"ttl": "2h"}"#).await;
    assert_eq!((touched.status, revision(&touched)), (200, revision(&put)), "{touched:?}");
    let told = touched.json();
    assert!(told["expires_at"].as_str() > Some(before.as_str()), "{told}");
    assert_eq!((told.get("value"), &told["key"]), (None, &json!("k")));
    let read = post(&relay, "b/k/touch", &[], r#"{"return": "value"}"#).await;
    assert_eq!((read.text(), revision(&read)), (r#"{"user": "ann"}"#, revision(&put)));
    assert!(read.header("tidemill-expires-at") < told["expires_at"].as_str(), "the bucket's time");
    let bare = relay.send("POST", "/api/v1/keys/b/k/touch", &[], b"").await;
    assert_eq!(bare.status, 200, "{bare:?}");
    assert_eq!(logged(&storage, "b").await.len(), changes, "nobody is told");
    // Touched to be short, it is gone soon.
    post(&relay, "b/k/touch", &[], r#"{"ttl": "50ms"}"#).await;
    eventually(SOON, async || expired(&logged(&storage, "b").await) == ["k"]).await;
    relay.stop().await;
}

async fn a_counter_lives_from_when_it_came_to_be(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let add = async || post(&relay, "b/n/increment", &[], r#"{"ttl": "700ms"}"#).await;
    let at = Instant::now();
    add().await;
    let until = get(&relay, "b/n").await.header("tidemill-expires-at").expect("a time").to_owned();
    let again = add().await;
    if at.elapsed() < Duration::from_millis(500) {
        assert_eq!(again.json()["value"], json!(2));
        assert_eq!(again.json()["expires_at"], json!(until));
        assert_eq!(get(&relay, "b/n").await.header("tidemill-expires-at"), Some(until.as_str()));
    }
    eventually(SOON, async || get(&relay, "b/n").await.status == 404).await;
    assert_eq!(add().await.json()["value"], json!(1), "it begins anew");
    relay.stop().await;
}

async fn an_absolute_age_ends_what_is_used_all_the_time(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    bucket(&relay, "s", r#"{"ttl": "10m", "absolute_age": "800ms"}"#).await;
    let at = Instant::now();
    put(&relay, "s/k", &[], "1").await;
    while post(&relay, "s/k/touch", &[], "{}").await.status == 200 {
        assert!(at.elapsed() < SOON, "it lives as long as it is touched");
        put(&relay, "s/k", &[("if-match", "*")], "2").await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(at.elapsed() >= Duration::from_millis(750), "{:?}", at.elapsed());
    relay.stop().await;
}

/// The node that has put them is gone, so that nobody knows of them but who asks.
async fn keys_that_another_node_has_put_expire_within_a_second(storage: Storage) {
    let (gone, stays) = (TestRelay::start(storage.clone()).await, TestRelay::start(storage.clone()).await);
    let at = Instant::now();
    put(&gone, "b/k?ttl=1500ms", &[], "1").await;
    bucket(&gone, "c", r#"{"ttl": "1500ms"}"#).await;
    put(&gone, "c/k", &[], "1").await;
    gone.stop().await;
    let both = async || {
        expired(&logged(&storage, "b").await) == ["k"] && expired(&logged(&storage, "c").await) == ["k"]
    };
    eventually(SOON, both).await;
    let late = at.elapsed().saturating_sub(Duration::from_millis(1_500));
    // A second, and what a busy machine adds.
    assert!(late < Duration::from_secs(3), "{late:?}");
    stays.stop().await;
}
