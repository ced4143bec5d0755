//! What is good once, shown several times: at once, on several nodes. One gets what it gives, and nobody a second one.
//!
//! Refresh tokens stand in `log_ins`, and what a provider sends back in `credentials`.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::closed::{self, ROOT, send, token, user};
use crate::support::ground::Ground;
use crate::support::raw::{RawConnection, Stream};
use crate::support::relay::{Answer, TestRelay};
use crate::support::ws::WsClient;
use crate::support::{always, eventually};

const EVENTS: &str = "text/event-stream";
const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");
const GRANT: &str = "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Adevice_code";
/// How many show the same at once.
const AT_ONCE: usize = 12;
/// How often it is tried: who comes first is chance.
const ROUNDS: usize = 4;
/// How long what somebody else holds now goes on, at most.
const ENDED_WITHIN: Duration = Duration::from_secs(5);
/// Longer than a node goes on with what was taken from it.
const SETTLED: Duration = Duration::from_secs(4);

/// Two nodes on one storage, with somebody who may publish and read, and the user `ann`.
async fn nodes(ground: &Ground) -> ([TestRelay; 2], String) {
    let relays = [closed::start(ground.storage.clone()).await, closed::start(ground.storage.clone()).await];
    let (_, who) = token(&relays[0], ROOT, &["allow publish,read *"]).await;
    let ann = user(&relays[0], "ann", &["read"]).await;
    let body = json!({ "topic": "t", "payload": 1 });
    assert_eq!(send(&relays[0], Some(&who), "POST", "/api/v1/messages", &body).await.status, 201);
    eventually(Duration::from_secs(5), async || {
        let lists = send(&relays[1], Some(&who), "GET", "/api/v1/topics", &Value::Null).await.status == 200;
        lists && send(&relays[1], Some(&ann), "GET", "/api/v1/tokens", &Value::Null).await.status == 200
    })
    .await;
    (relays, who)
}

async fn ticket(relay: &TestRelay, who: &str) -> String {
    let answer = send(relay, Some(who), "POST", "/api/v1/tickets", &json!({ "topics": ["t"] })).await;
    answer.json()["ticket"].as_str().expect("a text").to_owned()
}

async fn open(relay: &TestRelay, ticket: &str, kind: &str, resumes: bool) -> Result<Stream, u16> {
    let path = format!("/api/v1/topics/t/messages?after=earliest&ticket={ticket}");
    let headers = if resumes { "last-event-id: 0-0\r\n" } else { "" };
    let connection = RawConnection::connect(relay.address).await.expect("it connects");
    Stream::try_open_on(connection, &path, kind, headers).await.expect("an answer")
}

async fn a_ticket_opens_one_thing(ground: Ground) {
    let (relays, who) = nodes(&ground).await;
    for round in 0..ROUNDS {
        let shown = ticket(&relays[0], &who).await;
        let kind = if round % 2 == 0 { EVENTS } else { "application/x-ndjson" };
        let opened = (0..AT_ONCE).map(|at| open(&relays[at % 2], &shown, kind, false));
        let opened = join_all(opened).await;
        let refused = opened.iter().filter(|one| one.as_ref().err() == Some(&401)).count();
        assert_eq!((refused, opened.len()), (AT_ONCE - 1, AT_ONCE), "one opens it");

        // A socket and a stream at once: one of them.
        let shown = ticket(&relays[1], &who).await;
        let path = format!("/ws?ticket={shown}");
        let sockets = (0..AT_ONCE).map(|at| WsClient::connect_at(relays[at % 2].address, &path));
        let streams = (0..AT_ONCE).map(|at| open(&relays[at % 2], &shown, EVENTS, false));
        let (sockets, streams) = tokio::join!(join_all(sockets), join_all(streams));
        let sockets: Vec<_> = sockets.into_iter().filter_map(Result::ok).collect();
        let streams: Vec<_> = streams.into_iter().filter_map(Result::ok).collect();
        assert_eq!(sockets.len() + streams.len(), 1, "{} and {}", sockets.len(), streams.len());
    }
    // Of those that resume at once on both nodes, one goes on.
    let is_one = async || relays.iter().map(|relay| relay.sessions.count()).sum::<usize>() == 1;
    for round in 1..=ROUNDS {
        let shown = ticket(&relays[0], &who).await;
        let first = open(&relays[0], &shown, EVENTS, false).await.expect("it opens");
        let resumed = (0..AT_ONCE).map(|at| open(&relays[at % 2], &shown, EVENTS, true));
        let resumed = join_all(resumed).await;
        eventually(ENDED_WITHIN, is_one).await;
        if round == ROUNDS {
            always(SETTLED, is_one).await;
        }
        drop((first, resumed));
        let nobody_reads = async || relays.iter().all(|relay| relay.sessions.count() == 0);
        eventually(ENDED_WITHIN, nobody_reads).await;
    }
    for relay in relays {
        relay.stop().await;
    }
}

async fn post(relay: &TestRelay, path: &str, form: &str) -> Answer {
    relay.send("POST", path, &[FORM], form.as_bytes()).await
}

async fn a_device_is_let_in_once(ground: Ground) {
    let (relays, _) = nodes(&ground).await;
    for _ in 0..ROUNDS {
        let codes = post(&relays[0], "/auth/device/code", "").await.json();
        let text = |field: &str| codes[field].as_str().expect("a text").to_owned();
        let (device, code) = (text("device_code"), text("user_code"));
        // Allowed and refused at once: one of the two holds.
        let decide = async |at: usize, decision: &str| {
            let form = format!("user_code={code}&username=ann&password=correct+horse&decision={decision}");
            post(&relays[at % 2], "/auth/device", &form).await.status
        };
        eventually(Duration::from_secs(5), async || {
            relays[1].get(&format!("/auth/device?user_code={code}")).await.status == 200
        })
        .await;
        let decided =
            tokio::join!(decide(0, "allow"), decide(1, "deny"), decide(1, "allow"), decide(0, "deny"));
        let decided: [u16; 4] = decided.into();
        assert_eq!(decided.iter().filter(|status| **status == 200).count(), 1, "{decided:?}");
        let is_let_in = decided[0] == 200 || decided[2] == 200;

        let form = format!("{GRANT}&device_code={device}");
        let asked = (0..AT_ONCE).map(|at| post(&relays[at % 2], "/auth/device/token", &form));
        let answers = join_all(asked).await;
        let given = answers.iter().filter(|answer| answer.status == 200).count();
        assert!(given <= usize::from(is_let_in), "{given} were let in: {answers:?}");
        assert!(answers.iter().all(|answer| matches!(answer.status, 200 | 400)), "{answers:?}");
        assert_eq!(given, usize::from(is_let_in), "{answers:?}");
        for relay in &relays {
            let again = post(relay, "/auth/device/token", &form).await;
            assert_eq!(again.status, 400, "{again:?}");
        }
    }
    for relay in relays {
        relay.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_opens_one_thing_on_nodes_with_one_memory() {
    a_ticket_opens_one_thing(Ground::memory().await.expect("memory is always there")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_is_let_in_once_on_nodes_with_one_memory() {
    a_device_is_let_in_once(Ground::memory().await.expect("memory is always there")).await;
}

#[cfg(feature = "valkey")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_opens_one_thing_on_nodes_with_one_server() {
    if let Some(ground) = Ground::on(crate::support::server::Kind::Valkey).await {
        a_ticket_opens_one_thing(ground).await;
    }
}

#[cfg(feature = "valkey")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_is_let_in_once_on_nodes_with_one_server() {
    if let Some(ground) = Ground::on(crate::support::server::Kind::Valkey).await {
        a_device_is_let_in_once(ground).await;
    }
}
