//! Cache fills over HTTP: one of all who ask for a key that is not there, or stale, puts it.

use std::sync::Arc;
use std::time::Duration;

use tidemill::storage::Storage;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::{JSON, delete, get, on_both_backends, put, revision};
#[cfg(feature = "valkey")]
use crate::support::ground::{Ground, LIMITS};
use crate::support::relay::{Answer, TestRelay};
#[cfg(feature = "valkey")]
use crate::support::server::Kind;

on_both_backends![
    of_a_thousand_cold_readers_one_fills,
    a_stale_value_is_served_at_once_while_one_fills,
    who_fills_and_dies_is_replaced,
    who_waits_no_longer_is_told_so,
    what_was_true_before_a_deletion_is_not_put,
    a_draining_relay_lets_go_of_who_waits,
    what_is_filled_is_counted,
    a_fill_is_told_how_long_it_lives_by_how_often_it_was_read,
];

const FILL: &str = "tidemill-fill";

/// Asks for a key that is to be filled.
async fn ask(relay: &TestRelay, query: &str) -> Answer {
    get(relay, &format!("b/k?{query}")).await
}

/// Returns the token of who is to fill a key that is not there.
#[track_caller]
fn token(answer: &Answer) -> String {
    assert_eq!(answer.problem().code.as_str(), "key_not_found", "{answer:?}");
    answer.header(FILL).unwrap_or_else(|| panic!("no token in {answer:?}")).to_owned()
}

#[track_caller]
fn is_lost(answer: &Answer) {
    let problem = answer.problem();
    assert_eq!((problem.status, problem.code.as_str()), (412, "fill_lost"), "{answer:?}");
}

async fn of_a_thousand_cold_readers_one_fills(storage: Storage) {
    one_of_a_thousand_fills([storage.clone(), storage]).await;
}

/// Two nodes, each with connections of its own to one server.
#[cfg(feature = "valkey")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_thousand_cold_readers_on_two_nodes_one_fills() {
    let Some(ground) = Ground::on(Kind::Valkey).await else { return };
    let other = ground.under(LIMITS).await;
    one_of_a_thousand_fills([ground.storage.clone(), other]).await;
}

async fn one_of_a_thousand_fills([one, two]: [Storage; 2]) {
    const READERS: usize = 1_000;

    let nodes = [TestRelay::start(one).await, TestRelay::start(two).await].map(Arc::new);
    let mut reading = JoinSet::new();
    for at in 0..READERS {
        let relay = nodes[at % 2].clone();
        reading.spawn(async move {
            let answer = ask(&relay, "fill=30s").await;
            let Some(token) = answer.header(FILL) else { return (answer, false) };
            // What it reads takes its time, so that all the others have come.
            sleep(Duration::from_millis(500)).await;
            let filled = put(&relay, "b/k?fresh=1h", &[(FILL, token)], r#"{"rows": 7}"#).await;
            assert_eq!(filled.status, 201, "{filled:?}");
            (answer, true)
        });
    }
    let answers = reading.join_all().await;
    assert_eq!(answers.iter().filter(|(_, fills)| *fills).count(), 1);
    for (answer, _) in answers.iter().filter(|(_, fills)| !fills) {
        assert_eq!((answer.status, answer.text()), (200, r#"{"rows": 7}"#), "{answer:?}");
        assert_eq!(answer.header("tidemill-stale"), None);
    }
    for relay in nodes {
        Arc::into_inner(relay).expect("nobody else has it").stop().await;
    }
}

async fn a_stale_value_is_served_at_once_while_one_fills(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let first = revision(&put(&relay, "b/k?fresh=2s", &[], "1").await);
    let fresh = ask(&relay, "fill=10s").await;
    assert_eq!((fresh.text(), fresh.header("tidemill-stale"), fresh.header(FILL)), ("1", None, None));
    assert!(fresh.header("tidemill-fresh-until").is_some(), "{fresh:?}");
    sleep(Duration::from_millis(2_100)).await;
    let only_read = get(&relay, "b/k").await;
    assert_eq!((only_read.header("tidemill-stale"), only_read.header(FILL)), (Some("true"), None));
    let fills = ask(&relay, "fill=10s").await;
    assert_eq!((fills.status, fills.text(), fills.header("tidemill-stale")), (200, "1", Some("true")));
    let token = fills.header(FILL).expect("one fills it").to_owned();
    let begun = Instant::now();
    for _ in 0..20 {
        let other = ask(&relay, "fill=10s").await;
        assert_eq!(
            (other.text(), other.header("tidemill-stale"), other.header(FILL)),
            ("1", Some("true"), None)
        );
        assert_eq!(revision(&other), first);
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "nobody waits: {:?}", begun.elapsed());
    assert_eq!(put(&relay, "b/k?fresh=1h", &[(FILL, &token)], "2").await.status, 200);
    let after = ask(&relay, "fill=10s").await;
    assert_eq!((after.text(), after.header("tidemill-stale"), after.header(FILL)), ("2", None, None));
    is_lost(&put(&relay, "b/k", &[(FILL, &token)], "3").await);
    let beside = put(&relay, "b/k", &[(FILL, &token), ("if-match", "*")], "3").await.problem();
    assert_eq!((beside.status, beside.field.as_deref()), (400, Some("Tidemill-Fill")));
    let head = relay.send("HEAD", "/api/v1/keys/b/k?fill=1s", &[], b"").await;
    assert_eq!(head.status, 400);
    assert_eq!(get(&relay, "b/k").await.text(), "2");
    relay.stop().await;
}

async fn who_fills_and_dies_is_replaced(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let begun = Instant::now();
    let dead = token(&ask(&relay, "fill=1s").await);
    let one = async || {
        let answer = ask(&relay, "fill=30s").await;
        let at = begun.elapsed();
        if let Some(token) = answer.header(FILL) {
            assert_eq!(put(&relay, "b/k", &[(FILL, token)], "2").await.status, 201);
        }
        (answer, at)
    };
    let (first, second) = tokio::join!(one(), one());
    let mut answers = [first, second];
    answers.sort_by_key(|(answer, _)| answer.status);
    let [(served, _), (replaced, at)] = &answers;
    assert_eq!((served.status, served.text(), replaced.status), (200, "2", 404));
    assert!(*at >= Duration::from_millis(990) && *at < Duration::from_secs(10), "{at:?}");
    assert_ne!(token(replaced), dead);
    is_lost(&put(&relay, "b/k", &[(FILL, &dead)], "1").await);
    assert_eq!(get(&relay, "b/k").await.text(), "2");
    relay.stop().await;
}

async fn who_waits_no_longer_is_told_so(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    token(&ask(&relay, "fill=20s").await);
    for (query, at_least) in [("fill=20s&wait=0", 0), ("fill=20s&wait=300ms", 290)] {
        let begun = Instant::now();
        let answer = ask(&relay, query).await;
        let problem = answer.problem();
        assert_eq!((problem.status, problem.code.as_str(), problem.retryable), (409, "filling", true));
        assert!(problem.retry_after_seconds.is_some_and(|after| (1..=20).contains(&after)), "{problem:?}");
        assert!(answer.header("retry-after").is_some() && answer.header(FILL).is_none(), "{answer:?}");
        let took = begun.elapsed();
        assert!(took >= Duration::from_millis(at_least) && took < Duration::from_secs(10), "{took:?}");
    }
    // Who waits hears of changes of this key alone.
    let begun = Instant::now();
    let (answer, _) = tokio::join!(ask(&relay, "fill=20s&wait=10s"), async {
        for at in 0..10 {
            put(&relay, &format!("b/other-{at}"), &[], "1").await;
        }
        sleep(Duration::from_millis(300)).await;
        relay.send("PUT", "/api/v1/keys/b/k", &[JSON], b"5").await
    });
    assert_eq!((answer.status, answer.text()), (200, "5"));
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    relay.stop().await;
}

async fn what_was_true_before_a_deletion_is_not_put(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let old = token(&ask(&relay, "fill=20s").await);
    // Somebody changes what the value is made of, and says so: there is nothing to delete.
    assert_eq!(delete(&relay, "b/k", &[]).await.status, 404);
    is_lost(&put(&relay, "b/k", &[(FILL, &old)], "1").await);
    assert_eq!(get(&relay, "b/k").await.status, 404);
    let new = token(&ask(&relay, "fill=20s").await);
    assert_eq!(put(&relay, "b/k", &[(FILL, &new)], "2").await.status, 201);
    relay.stop().await;
}

async fn a_draining_relay_lets_go_of_who_waits(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    token(&ask(&relay, "fill=50s").await);
    let (answer, begun) = tokio::join!(ask(&relay, "fill=50s&wait=50s"), async {
        sleep(Duration::from_millis(300)).await;
        let begun = Instant::now();
        relay.begin_stop();
        begun
    });
    assert_eq!(answer.problem().code.as_str(), "filling", "{answer:?}");
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    relay.stop().await;
}

async fn what_is_filled_is_counted(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let first = token(&ask(&relay, "fill=10s").await);
    ask(&relay, "fill=10s&wait=0").await;
    put(&relay, "b/k?fresh=1ms", &[(FILL, &first)], "1").await;
    put(&relay, "b/k", &[(FILL, &first)], "1").await;
    sleep(Duration::from_millis(50)).await;
    ask(&relay, "fill=10s").await;
    ask(&relay, "fill=10s").await;
    put(&relay, "b/k", &[], "1").await;
    ask(&relay, "fill=10s").await;
    let metrics = relay.get("/metrics").await;
    for line in [
        r#"tidemill_keys_fills_total{result="granted"} 2"#,
        r#"tidemill_keys_fills_total{result="filled"} 1"#,
        r#"tidemill_keys_fills_total{result="lost"} 1"#,
        r#"tidemill_keys_reads_total{result="hit"} 1"#,
        r#"tidemill_keys_reads_total{result="stale"} 2"#,
        r#"tidemill_keys_reads_total{result="miss"} 2"#,
    ] {
        assert!(metrics.text().lines().any(|of| of == line), "no {line} in {}", metrics.text());
    }
    relay.stop().await;
}

/// Deletes a key, fills it, and returns for how many minutes it lives.
async fn minutes(relay: &TestRelay) -> f64 {
    delete(relay, "b/k", &[]).await;
    let token = token(&ask(relay, "fill=30s").await);
    let filled = put(relay, "b/k?fresh=1h", &[(FILL, &token)], "1").await;
    assert_eq!(filled.status, 201, "{filled:?}");
    let time = |text: &str| tidemill::proto::Timestamp::parse(text).expect("a time").as_millis();
    let ends = time(filled.json()["expires_at"].as_str().expect("it has a time"));
    let entry = relay.get("/api/v1/keys/b").await.json();
    let begins = time(entry[0]["created_at"].as_str().expect("a time"));
    f64::from(u32::try_from(ends - begins).expect("hours")) / 60_000.0
}

async fn adapts(relay: &TestRelay) {
    let told = super::bucket(relay, "b", r#"{"adaptive_ttl": {"min": "10m", "max": 7200}}"#).await;
    assert_eq!(told.json()["adaptive_ttl"], serde_json::json!({ "min": 600, "max": 7200 }), "{told:?}");
}

async fn a_fill_is_told_how_long_it_lives_by_how_often_it_was_read(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    adapts(&relay).await;
    assert!((minutes(&relay).await - 10.0).abs() < 1e-9);
    get(&relay, "b/k").await;
    ask(&relay, "fill=30s").await;
    relay.get("/api/v1/keys/b?values=true").await;
    let lives = minutes(&relay).await;
    assert!(lives > 29.0 && lives <= 30.0, "it was read twice: {lives}");
    for _ in 0..3 {
        get(&relay, "b/k").await;
    }
    let lives = minutes(&relay).await;
    assert!(lives > 58.0 && lives <= 60.0, "and three times: {lives}");
    for _ in 0..20 {
        get(&relay, "b/k").await;
    }
    assert!((minutes(&relay).await - 120.0).abs() < 1e-9);
    relay.stop().await;
}

/// What is read at one node counts where the key is filled at another.
#[cfg(feature = "valkey")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_at_one_node_count_at_another() {
    let Some(mut server) = crate::support::server::Server::start(Kind::Valkey, &[]).await else { return };
    let url = format!("redis://127.0.0.1:{}", server.port());
    let variables = [("VALKEY_URL", &*url), ("STORAGE_BACKEND", "valkey")];
    let start = || crate::support::process::Relay::ready_at("127.0.0.1:0", &variables, &[]);
    let (one, two) = (start().await, start().await);
    let send =
        async |at: std::net::SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &str| {
            let headers = [&[JSON], headers].concat();
            let path = format!("/api/v1/{path}");
            crate::support::relay::try_send(at, method, &path, &headers, body.as_bytes())
                .await
                .expect("an answer")
        };
    let settings = r#"{"adaptive_ttl": {"min": "10m", "max": "10d"}}"#;
    assert_eq!(send(one.address(), "PUT", "buckets/b", &[], settings).await.status, 201);
    let fill = async || {
        send(one.address(), "DELETE", "keys/b/k", &[], "").await;
        let token = token(&send(one.address(), "GET", "keys/b/k?fill=30s", &[], "").await);
        let filled = send(one.address(), "PUT", "keys/b/k", &[(FILL, &token)], "1").await;
        filled.json()["expires_at"].as_str().expect("it has a time").to_owned()
    };
    let first = fill().await;
    let now = tidemill::proto::Timestamp::parse(&first).expect("a time");
    let far = now.saturating_add(Duration::from_mins(60)).to_string();
    for _ in 0..10 {
        assert_eq!(send(two.address(), "GET", "keys/b/k", &[], "").await.status, 200);
    }
    crate::support::eventually(crate::support::ground::SOON, async || fill().await > far).await;
    // Where the server is away, reads are lost, and nothing else.
    for _ in 0..10 {
        send(two.address(), "GET", "keys/b/k", &[], "").await;
    }
    server.kill9();
    sleep(Duration::from_millis(100)).await;
    server.restart().await;
    crate::support::eventually(crate::support::ground::SOON, async || {
        send(two.address(), "PUT", "buckets/b", &[], settings).await.status < 300
    })
    .await;
}
