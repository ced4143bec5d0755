//! Several nodes in front of one server, and a server that is away.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tidemill::relay::TakesAway;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::support::dice::{Dice, seeds};
use crate::support::ground::{Ground, SOON};
use crate::support::relay::TestRelay;
use crate::support::server::Kind;
use crate::support::{eventually, length};

async fn take(relay: &TestRelay, name: &str, body: &Value) -> Value {
    let answer = relay.post(&format!("/api/v1/limits/{name}/take"), &body.to_string()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

/// Two nodes, each with connections of its own, take as fast as they can: in no stretch of time passes more than a burst
/// and what the rate gives back, and hardly less.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_pass_together_a_burst_and_the_rate_and_no_more() {
    const LIMIT: u32 = 400;
    const BURST: u32 = 50;

    for seed in seeds(length::pick(1, 20)) {
        let Some(ground) = Ground::on(Kind::Valkey).await else { return };
        let other = ground.under(crate::support::ground::LIMITS).await;
        let nodes = [ground.storage.clone(), other];
        let relays = [
            Arc::new(TestRelay::start(nodes[0].clone()).await),
            Arc::new(TestRelay::start(nodes[1].clone()).await),
        ];
        let mut taking = JoinSet::new();
        let began = Instant::now();
        for at in 0..8_u64 {
            let relay = relays[usize::try_from(at).expect("small") % 2].clone();
            let mut dice = Dice::from_seed(seed).of(at);
            taking.spawn(async move {
                let mut passed = Vec::new();
                while began.elapsed() < Duration::from_secs(2) {
                    let cost = u32::try_from(dice.roll(5)).expect("small") + 1;
                    let policies = json!([{ "limit": LIMIT, "per": "1s", "burst": BURST }, { "limit": 5, "per": "1ms" }]);
                    let asked = Instant::now();
                    let taken = take(&relay, "both", &json!({ "cost": cost, "policies": policies })).await;
                    assert!(taken.get("degraded").is_none(), "{taken}");
                    if taken["allowed"] == true {
                        passed.push((asked - began, Instant::now() - began, cost));
                    }
                    tokio::time::sleep(Duration::from_micros(dice.roll(4_000))).await;
                }
                passed
            });
        }
        let passed = taking.join_all().await.concat();
        // Each stretch from a question to an answer has all that was asked and answered in it.
        for (from, ..) in &passed {
            for (_, to, _) in passed.iter().filter(|(_, to, _)| to > from) {
                let within = passed.iter().filter(|(asked, answered, _)| asked >= from && answered <= to);
                let all: u32 = within.map(|(.., cost)| cost).sum();
                let most = f64::from(BURST) + f64::from(LIMIT) * to.saturating_sub(*from).as_secs_f64();
                // The clock of the server need not go exactly as that of the test.
                assert!(
                    f64::from(all) <= most * 1.001 + 1.0,
                    "{all} in {:?}, at most {most}",
                    to.saturating_sub(*from)
                );
            }
        }
        let all: u32 = passed.iter().map(|(.., cost)| cost).sum();
        assert!(all > BURST + LIMIT / 2, "hardly anything passes: {all}");
        for relay in relays {
            Arc::into_inner(relay).expect("nobody else has it").stop().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_the_server_is_away_each_node_decides_by_itself_and_says_so() {
    let Some(mut server) = crate::support::server::Server::start(Kind::Valkey, &[]).await else { return };
    let url = format!("redis://127.0.0.1:{}", server.port());
    let away = |word| {
        [
            ("VALKEY_URL", url.clone()),
            ("STORAGE_BACKEND", "valkey".to_owned()),
            ("TIDEMILL_APPLICATION_LIMITS_AWAY", String::from(word)),
        ]
    };
    let mut relays = Vec::new();
    for word in ["alone", "refuse", "allow"] {
        let variables = away(word);
        let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
        relays.push(crate::support::process::Relay::ready_at("127.0.0.1:0", &variables, &[]).await);
    }
    let policies = json!([{ "limit": 2, "per": "1h" }]);
    let ask = async |at: usize, what: &str, cost: u32| {
        let body = json!({ "cost": cost, "policies": policies }).to_string();
        let headers = [("content-type", "application/json")];
        let path = format!("/api/v1/limits/mail/{what}");
        let relay: &crate::support::process::Relay = &relays[at];
        let answer =
            crate::support::relay::try_send(relay.address(), "POST", &path, &headers, body.as_bytes());
        let answer = answer.await.expect("an answer");
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    };
    let taken = ask(0, "take", 2).await;
    assert_eq!((&taken["allowed"], taken.get("degraded")), (&json!(true), None));
    assert_eq!(ask(1, "take", 1).await["allowed"], false);
    server.kill9();
    // The first counts by itself from now on, as if nothing had been taken.
    eventually(SOON, async || ask(0, "peek", 1).await["degraded"] == true).await;
    let allowed: Vec<_> = [ask(0, "take", 1).await, ask(0, "take", 1).await, ask(0, "take", 1).await]
        .iter()
        .map(|taken| (taken["allowed"].clone(), taken["degraded"].clone(), taken["remaining"].clone()))
        .collect();
    let told = |allowed: bool, remaining: u32| (json!(allowed), json!(true), json!(remaining));
    assert_eq!(allowed, [told(true, 1), told(true, 0), told(false, 0)]);
    assert_eq!(ask(0, "refund", 1).await["remaining"], 1);
    let refused = ask(1, "take", 1).await;
    assert_eq!(
        refused,
        json!({ "allowed": false, "remaining": 0, "retry_after": 1, "reset": 1, "degraded": true })
    );
    let passes = ask(2, "take", 2).await;
    assert_eq!((&passes["allowed"], &passes["degraded"]), (&json!(true), &json!(true)));
    let began = Instant::now();
    for _ in 0..200 {
        assert_eq!(ask(0, "take", 1).await["degraded"], true);
    }
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "nobody waits for a server that is away: {:?}",
        began.elapsed()
    );
    server.restart().await;
    for at in 0..3 {
        eventually(SOON, async || ask(at, "peek", 1).await.get("degraded").is_none()).await;
    }
    assert_eq!(ask(1, "take", 2).await["allowed"], true, "the server has lost what was owed");
}

/// A server that takes what it is asked and answers nothing costs half a second, and then nobody waits for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_the_server_hangs_nobody_waits_for_long() {
    let Some(ground) = Ground::on(Kind::Valkey).await else { return };
    let relay = TestRelay::start_with(ground.storage.clone(), |options| {
        options.relay.takes_away = TakesAway::Allow;
    })
    .await;
    let body = json!({ "policies": [{ "limit": 1, "per": "1h" }] });
    assert_eq!(take(&relay, "hangs", &body).await["allowed"], true);
    assert_eq!(take(&relay, "hangs", &body).await["allowed"], false);
    ground.server().sigstop();
    let began = Instant::now();
    for _ in 0..50 {
        let taken = take(&relay, "hangs", &body).await;
        assert_eq!((&taken["allowed"], &taken["degraded"]), (&json!(true), &json!(true)));
    }
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    ground.server().sigcont();
    eventually(SOON, async || take(&relay, "hangs", &body).await.get("degraded").is_none()).await;
    relay.stop().await;
}
