//! Whose address counts, and what strangers make up.

use serde_json::Value;
use tidemill::limits::{Limit, LimitOptions, TrustedProxies};

use super::{is_refused_at, limit, send_from};
use crate::support::relay::{TestRelay, memory};

const LIST: (&str, &str) = ("GET", "/api/v1/topics");

fn limits() -> LimitOptions {
    LimitOptions::none().with(Limit::AnonymousRequests, 5)
}

#[tokio::test]
async fn what_anybody_forwards_is_not_believed() {
    let relay = TestRelay::start_with(memory(), |options| {
        limit(options, limits());
        options.proxies = TrustedProxies::default();
    })
    .await;
    for at in 0..5 {
        let answer = send_from(&relay, &format!("192.0.2.{at}"), None, LIST, &Value::Null).await;
        assert_eq!(answer.status, 401);
    }
    is_refused_at(&send_from(&relay, "192.0.2.77", None, LIST, &Value::Null).await, "anonymous-requests", 5);
    for name in ["forwarded", "x-real-ip", "x-forwarded-for", "cf-connecting-ip"] {
        let value = if name == "forwarded" { "for=192.0.2.77" } else { "192.0.2.77" };
        let answer = relay.send("GET", LIST.1, &[(name, value)], b"").await;
        is_refused_at(&answer, "anonymous-requests", 5);
    }
    relay.stop().await;
}

#[tokio::test]
async fn behind_a_proxy_each_client_has_its_own_and_none_can_take_another_s() {
    let relay = TestRelay::start_with(memory(), |options| limit(options, limits())).await;
    let send = async |forwarded: &str| send_from(&relay, forwarded, None, LIST, &Value::Null).await;
    for at in 0..5 {
        // What a client writes itself stands in front of what the proxy writes.
        assert_eq!(send(&format!("203.0.113.{at}, 192.0.2.1")).await.status, 401);
    }
    is_refused_at(&send("203.0.113.77, 192.0.2.1").await, "anonymous-requests", 5);
    is_refused_at(&send("192.0.2.1:4711").await, "anonymous-requests", 5);
    assert_eq!(send("192.0.2.1, 192.0.2.2").await.status, 401, "another client");
    for at in 0..5 {
        assert_eq!(send(&format!("2001:db8::{at}")).await.status, 401);
    }
    let network = send("2001:db8::7777").await;
    is_refused_at(&network, "anonymous-requests", 5);
    assert_eq!(send("2001:db8:0:1::1").await.status, 401, "another network");
    relay.stop().await;
}

#[tokio::test]
async fn where_too_many_are_counted_those_that_come_later_share_one_limit() {
    let relay = TestRelay::start_with(memory(), |options| {
        limit(options, LimitOptions { quotas_max: 3, ..limits() });
    })
    .await;
    let send = async |from: u8| send_from(&relay, &format!("192.0.2.{from}"), None, LIST, &Value::Null).await;
    for from in 1..=3 {
        assert_eq!(send(from).await.status, 401, "{from} is counted by itself");
    }
    for from in 11..=15 {
        assert_eq!(send(from).await.status, 401, "{from} shares");
    }
    for from in 16..=40 {
        is_refused_at(&send(from).await, "anonymous-requests", 5);
    }
    for from in 1..=3 {
        for _ in 0..4 {
            assert_eq!(send(from).await.status, 401, "{from} has what is left of its own");
        }
        assert_eq!(send(from).await.status, 429);
    }
    relay.stop().await;
}
