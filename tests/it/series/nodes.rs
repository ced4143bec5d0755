//! Several nodes in front of one server, and a server that is away.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::eventually;
use crate::support::ground::{Ground, LIMITS, SOON};
use crate::support::relay::TestRelay;
use crate::support::server::Kind;

/// Two nodes add to the same series, one point at a time and many, and both read the same: each point once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_two_nodes_add_is_there_once_and_both_read_it() {
    const WORKERS: u64 = 8;
    const TIMES: u64 = 25;
    const MANY: u64 = 40;

    let Some(ground) = Ground::on(Kind::Valkey).await else { return };
    let other = ground.under(LIMITS).await;
    let relays =
        [Arc::new(TestRelay::start(ground.storage.clone()).await), Arc::new(TestRelay::start(other).await)];
    let mut adding = JoinSet::new();
    for worker in 0..WORKERS {
        let relay = relays[usize::try_from(worker).expect("small") % 2].clone();
        adding.spawn(async move {
            for number in 0..TIMES {
                let value = worker * TIMES + number;
                let answer = relay.post("/api/v1/series/all", json!({ "value": value }).to_string()).await;
                assert_eq!(answer.status, 200, "{answer:?}");
                let points: Vec<_> = (0..MANY)
                    .map(|at| json!({ "name": if at % 2 == 0 { "all" } else { "odd" }, "value": value }))
                    .collect();
                let answer = relay.post("/api/v1/series", json!({ "points": points }).to_string()).await;
                let results = answer.json()["results"].as_array().expect("results").clone();
                assert!(results.iter().all(|one| one.get("error").is_none()), "{results:?}");
            }
        });
    }
    adding.join_all().await;
    let values = WORKERS * TIMES;
    let sum = values * (values - 1) / 2;
    for (series, times) in [("all", 1 + MANY / 2), ("odd", MANY / 2)] {
        let read =
            async |at: usize| -> Value { relays[at].get(&format!("/api/v1/series/{series}")).await.json() };
        let (one, other) = (read(0).await, read(1).await);
        assert_eq!(one, other);
        let total = json!({ "count": values * times, "sum": sum * times, "min": 0, "max": values - 1 });
        assert_eq!(one["total"], total);
    }
    for relay in relays {
        Arc::into_inner(relay).expect("nobody else has it").stop().await;
    }
}

/// Where the server is away the answer is a problem, of each point, and it goes on when the server is there again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_the_server_is_away_it_is_told_of_each_point() {
    let Some(mut server) = crate::support::server::Server::start(Kind::Valkey, &[]).await else { return };
    let url = format!("redis://127.0.0.1:{}", server.port());
    let variables = [("VALKEY_URL", &*url), ("STORAGE_BACKEND", "valkey")];
    let relay = crate::support::process::Relay::ready_at("127.0.0.1:0", &variables, &[]).await;
    let send = async |method: &str, path: &str, body: &str| {
        let headers = [("content-type", "application/json")];
        let answer =
            crate::support::relay::try_send(relay.address(), method, path, &headers, body.as_bytes()).await;
        answer.expect("an answer")
    };
    assert_eq!(send("POST", "/api/v1/series/a", r#"{"value":1}"#).await.status, 200);
    server.kill9();
    let points = r#"{"points":[{"name":"a","value":1},{"name":"a","value":1},{"name":"b","value":"x"}]}"#;
    eventually(SOON, async || {
        send("POST", "/api/v1/series/a", r#"{"value":1}"#).await.problem().code.as_str()
            == "storage_unavailable"
    })
    .await;
    let answer = send("POST", "/api/v1/series", points).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let codes: Vec<_> = (0..3).map(|at| answer.json()["results"][at]["error"]["code"].clone()).collect();
    assert_eq!(codes, ["storage_unavailable", "storage_unavailable", "invalid_field"]);
    assert_eq!(send("GET", "/api/v1/series/a", "").await.status, 503);
    server.restart().await;
    eventually(SOON, async || send("POST", "/api/v1/series/a", r#"{"value":1}"#).await.status == 200).await;
    assert_eq!(
        send("GET", "/api/v1/series/a", "").await.json()["total"]["count"],
        1,
        "the server has lost the first"
    );
}
