//! R21, W1, W4, W5, W6, W7: consumers, relays and servers are lost while groups are worked on, and other programs
//! share them.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep};

use super::Node;
use crate::support::eventually;
use crate::support::ground::SOON;
use crate::support::length;
use crate::support::process::{Relay, number_lines};
use crate::support::relay::{Answer, try_send};
use crate::support::resp::Reply;
use crate::support::server::{Kind, Server};

const JSON: [(&str, &str); 1] = [("content-type", "application/json")];
/// In what time claims must go on once who is gone has been replaced.
const GOES_ON_WITHIN: Duration = Duration::from_secs(2);

pub(super) async fn ask(address: SocketAddr, method: &str, path: &str, body: &Value) -> Option<Answer> {
    try_send(address, method, path, &JSON, body.to_string().as_bytes()).await
}

/// Makes a group of a topic, and publishes numbers to it.
pub(super) async fn fill(address: SocketAddr, topic: &str, settings: &Value, count: usize) {
    let path = format!("/api/v1/topics/{topic}/groups/g");
    assert_eq!(ask(address, "PUT", &path, settings).await.expect("an answer").status, 201);
    let lines = number_lines(count);
    let path = format!("/api/v1/topics/{topic}/messages");
    let kind = [("content-type", "application/x-ndjson")];
    let sent = try_send(address, "POST", &path, &kind, lines.as_bytes()).await.expect("an answer");
    assert_eq!(sent.status, 207, "{}", sent.text());
}

pub(super) async fn claim(
    address: SocketAddr,
    topic: &str,
    who: &str,
    max: usize,
    wait: &str,
) -> Option<Vec<Value>> {
    let path = format!("/api/v1/topics/{topic}/groups/g/claim");
    let body = json!({"consumer": who, "max": max, "wait": wait});
    let answer = ask(address, "POST", &path, &body).await.filter(|answer| answer.status == 200)?;
    Some(answer.json()["messages"].as_array().expect("messages").clone())
}

async fn ack(address: SocketAddr, held: &[Value]) -> Option<Vec<Value>> {
    let receipts: Vec<&Value> = held.iter().map(|held| &held["receipt"]).collect();
    let answer = ask(address, "POST", "/api/v1/work/ack", &json!({"receipts": receipts})).await?;
    (answer.status == 200).then(|| answer.json()["results"].as_array().expect("results").clone())
}

pub(super) async fn told(address: SocketAddr, topic: &str) -> Value {
    let path = format!("/api/v1/topics/{topic}/groups/g");
    ask(address, "GET", &path, &json!({})).await.expect("an answer").json()
}

/// What workers have done.
#[derive(Debug, Default)]
struct Done {
    /// Acknowledged, as they were told.
    acked: HashSet<u64>,
    /// How often each was given out.
    given: HashMap<u64, u64>,
    /// Given out after it was acknowledged.
    again: Vec<u64>,
}

/// Workers on one node, until they are stopped.
struct Workers {
    tasks: JoinSet<()>,
    stop: Arc<AtomicBool>,
}

impl Workers {
    fn start(address: SocketAddr, topic: &'static str, count: usize, done: &Arc<Mutex<Done>>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for worker in 0..count {
            let (stop, done) = (stop.clone(), done.clone());
            tasks.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let who = format!("w{worker}");
                    let Some(held) = claim(address, topic, &who, 5, "200ms").await else {
                        sleep(Duration::from_millis(20)).await;
                        continue;
                    };
                    let numbers: Vec<u64> =
                        held.iter().map(|held| held["payload"].as_u64().expect("a number")).collect();
                    {
                        let mut done = done.lock();
                        for number in &numbers {
                            *done.given.entry(*number).or_default() += 1;
                            if done.acked.contains(number) {
                                done.again.push(*number);
                            }
                        }
                    }
                    if held.is_empty() {
                        continue;
                    }
                    let Some(results) = ack(address, &held).await else { continue };
                    let mut done = done.lock();
                    for (number, result) in numbers.iter().zip(results) {
                        if result["status"] == "acked" {
                            done.acked.insert(*number);
                        }
                    }
                }
            });
        }
        Self { tasks, stop }
    }

    async fn stop(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        while self.tasks.join_next().await.is_some() {}
    }
}

async fn a_killed_server_costs_no_message_of_a_group(kind: Kind) {
    const JOBS: usize = 3_000;
    let arguments = ["--appendonly", "yes", "--appendfsync", "always"];
    let Some(mut server) = Server::start(kind, &arguments).await else { return };
    let node = Node::start(server.port()).await;
    let address = node.relay.address;
    fill(address, "killed", &json!({"ack_wait": "500ms", "max_deliveries": 1_000}), JOBS).await;
    let done = Arc::new(Mutex::new(Done::default()));
    let workers = Workers::start(address, "killed", 8, &done);
    for round in 1..=length::pick(2, 20) {
        let enough = (done.lock().acked.len() + 100).min(JOBS);
        eventually(SOON, async || done.lock().acked.len() >= enough).await;
        server.kill9();
        server.restart().await;
        node.is_ready_within(SOON).await;
        let (before, since) = (done.lock().given.values().sum::<u64>(), Instant::now());
        if done.lock().acked.len() < JOBS {
            eventually(SOON, async || done.lock().given.values().sum::<u64>() > before).await;
            let took = since.elapsed();
            length::tell(format_args!("{kind:?}, kill {round}: claims go on after {took:?}"));
            assert!(took < GOES_ON_WITHIN, "{took:?}");
        }
    }
    // What was done when an answer was lost is told by nobody; what was not comes again.
    let is_over = async || {
        let told = told(address, "killed").await;
        told["waiting"] == 0 && told["in_flight"] == 0 && told["done"] == JOBS
    };
    eventually(Duration::from_mins(1), is_over).await;
    workers.stop().await;
    let (given, again) = {
        let done = done.lock();
        (done.given.len(), done.again.clone())
    };
    assert_eq!(given, JOBS, "each was given out");
    assert!(again.is_empty(), "given out after it was acknowledged: {again:?}");
    node.stop().await;
}

#[tokio::test]
async fn a_killed_valkey_costs_no_message_of_a_group() {
    a_killed_server_costs_no_message_of_a_group(Kind::Valkey).await;
}

#[tokio::test]
async fn a_killed_redis_costs_no_message_of_a_group() {
    a_killed_server_costs_no_message_of_a_group(Kind::Redis).await;
}

/// A worker that claims and is not heard of again, and a relay that is killed with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_lost_relay_and_its_workers_had_comes_back_at_another() {
    let Some(server) = Server::start(Kind::Valkey, &[]).await else { return };
    let url = format!("redis://127.0.0.1:{}", server.port());
    let start = async || {
        let url = url.clone();
        let started =
            spawn_blocking(move || Relay::start(&[("STORAGE_BACKEND", "valkey"), ("VALKEY_URL", &url)], &[]));
        let relay = started.await.expect("it starts");
        let address = relay.address();
        eventually(SOON, async || {
            ask(address, "GET", "/ready", &json!({})).await.is_some_and(|answer| answer.status == 200)
        })
        .await;
        relay
    };
    let stays = start().await;
    let address = stays.address();
    fill(address, "lost", &json!({"ack_wait": "1s"}), 100).await;
    for round in 0..length::pick(2, 20) {
        let lost = start().await;
        let held = claim(lost.address(), "lost", "gone", 10, "5s").await.expect("it is claimed");
        assert_eq!(held.len(), 10, "{round}");
        let since = Instant::now();
        spawn_blocking(move || drop(lost)).await.expect("it is killed");
        let mut back = 0;
        while back < 10 {
            let again = claim(address, "lost", "stays", 100, "5s").await.expect("it is claimed");
            assert!(!again.is_empty(), "{back} are back");
            back += again.iter().filter(|held| held["delivery"] == 2).count();
            let acked = ack(address, &again).await.expect("an answer");
            assert!(acked.iter().all(|result| result["status"] == "acked"), "{acked:?}");
            if back == 0 {
                // All others are done: there is more to lose.
                fill_more(address, 10).await;
            }
        }
        let took = since.elapsed();
        assert!(took < Duration::from_secs(1) + GOES_ON_WITHIN, "{took:?}");
        fill_more(address, 100).await;
        // One of ten is charged with the loss, and none is a dead letter for it.
        assert_eq!(told(address, "lost").await["dead"], 0);
    }
    spawn_blocking(move || drop(stays)).await.expect("it ends");
}

async fn fill_more(address: SocketAddr, count: usize) {
    let lines = number_lines(count);
    let kind = [("content-type", "application/x-ndjson")];
    let path = "/api/v1/topics/lost/messages";
    let sent = try_send(address, "POST", path, &kind, lines.as_bytes()).await.expect("an answer");
    assert_eq!(sent.status, 207);
}

/// W1: the connection of a claim is reset. Where the answer was not written whole by then, its messages are back within
/// a second; else the client may have it, and finds it again by the id of its claim.
#[tokio::test]
async fn a_claim_that_is_cut_has_its_messages_or_gives_them_back_within_a_second() {
    for kind in [None, Some(Kind::Valkey)] {
        let server = match kind {
            None => None,
            Some(kind) => match Server::start(kind, &[]).await {
                None => return,
                server => server,
            },
        };
        let (node, relay) = match &server {
            None => {
                (None, Some(crate::support::relay::TestRelay::start(crate::support::relay::memory()).await))
            }
            Some(server) => (Some(Node::start(server.port()).await), None),
        };
        let address =
            node.as_ref().map_or_else(|| relay.as_ref().expect("one").address, |node| node.relay.address);
        fill(address, "cut", &json!({"ack_wait": "10m", "max_deliveries": 1}), 1).await;
        for round in 0..length::pick(5, 50) {
            let mut client = TcpStream::connect(address).await.expect("it connects");
            let claim_id = format!("claim-{round}");
            let body = json!({"consumer": "gone", "claim_id": claim_id}).to_string();
            let request = format!(
                "POST /api/v1/topics/cut/groups/g/claim HTTP/1.1\r\nhost: relay\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            client.write_all(request.as_bytes()).await.expect("it is sent");
            // Before or after it is answered.
            sleep(Duration::from_millis(round % 7)).await;
            socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).expect("it is set");
            drop(client);
            let since = Instant::now();
            let mut held = claim(address, "cut", "stays", 1, "1s").await.expect("it is claimed");
            if held.is_empty() {
                let path = "/api/v1/topics/cut/groups/g/claim";
                let body = json!({"consumer": "gone", "claim_id": claim_id});
                let again = ask(address, "POST", path, &body).await.expect("an answer").json();
                held.clone_from(again["messages"].as_array().expect("messages"));
                assert_eq!(held.len(), 1, "{round}: {again}");
            }
            assert!(since.elapsed() < Duration::from_millis(1_500), "{round}: {:?}", since.elapsed());
            let receipts = json!({"receipts": [held[0]["receipt"]]});
            let back =
                ask(address, "POST", "/api/v1/work/release", &receipts).await.expect("an answer").json();
            assert_eq!(back["results"][0]["status"], "released", "{back}");
        }
        assert_eq!(told(address, "cut").await["failed"], 0, "nobody is charged with it");
        match (node, relay) {
            (Some(node), _) => node.stop().await,
            (None, Some(relay)) => relay.stop().await,
            (None, None) => {}
        }
    }
}

/// Programs that read the group in the server itself share it.
async fn workers_of_other_programs_share_a_group(kind: Kind) {
    const JOBS: usize = 400;
    let Some(server) = Server::start(kind, &[]).await else { return };
    let node = Node::start(server.port()).await;
    let address = node.relay.address;
    fill(address, "shared", &json!({"ack_wait": "10s"}), JOBS).await;
    let ours = async {
        let mut got = Vec::new();
        loop {
            let held = claim(address, "shared", "ours", 7, "500ms").await.expect("it is claimed");
            if held.is_empty() {
                return got;
            }
            ack(address, &held).await.expect("an answer");
            got.extend(held.iter().map(|held| held["message_id"].as_str().expect("an id").to_owned()));
        }
    };
    let theirs = async {
        let mut got = Vec::new();
        loop {
            let read =
                ["XREADGROUP", "GROUP", "g", "theirs", "COUNT", "5", "STREAMS", "stream:topic:shared", ">"];
            let Reply::Array(streams) = server.command(&read).await else { return got };
            let ids: Vec<String> =
                streams[0].array()[1].array().iter().map(|entry| entry.array()[0].text()).collect();
            let mut acked = vec!["XACK".to_owned(), "stream:topic:shared".to_owned(), "g".to_owned()];
            acked.extend(ids.iter().cloned());
            assert_eq!(server.command(&acked).await.integer(), i64::try_from(ids.len()).expect("a few"));
            got.extend(ids);
            tokio::task::yield_now().await;
        }
    };
    let (ours, theirs) = tokio::join!(ours, theirs);
    assert!(!ours.is_empty() && !theirs.is_empty(), "{} and {}", ours.len(), theirs.len());
    let all: HashSet<&String> = ours.iter().chain(&theirs).collect();
    assert_eq!((all.len(), ours.len() + theirs.len()), (JOBS, JOBS), "none is with both");
    // What one of theirs has and does not settle comes back to ours.
    let path = "/api/v1/topics/shared/groups/g";
    assert_eq!(
        ask(address, "PATCH", path, &json!({"ack_wait": "300ms"})).await.expect("an answer").status,
        200
    );
    node.publish("shared", "1", None).await;
    let read = ["XREADGROUP", "GROUP", "g", "theirs", "STREAMS", "stream:topic:shared", ">"];
    assert!(matches!(server.command(&read).await, Reply::Array(_)));
    let held = claim(address, "shared", "ours", 1, "5s").await.expect("it is claimed");
    assert_eq!(held[0]["delivery"], 2);
    // A group of theirs is one of ours.
    server.command(&["XGROUP", "CREATE", "stream:topic:shared", "made", "0"]).await;
    let path = "/api/v1/topics/shared/groups/made/claim";
    let answer = ask(address, "POST", path, &json!({"consumer": "ours", "max": 3})).await.expect("an answer");
    assert_eq!(answer.json()["messages"].as_array().map(Vec::len), Some(3), "{}", answer.text());
    node.stop().await;
}

#[tokio::test]
async fn workers_of_other_programs_share_a_group_in_valkey() {
    workers_of_other_programs_share_a_group(Kind::Valkey).await;
}

#[tokio::test]
async fn workers_of_other_programs_share_a_group_in_redis() {
    workers_of_other_programs_share_a_group(Kind::Redis).await;
}

/// W4 and W5: one bad message among many kills its workers, and nobody but its group is told.
#[tokio::test]
async fn a_message_that_kills_its_workers_dies_alone() {
    let Some(server) = Server::start(Kind::Valkey, &[]).await else { return };
    let node = Node::start(server.port()).await;
    let address = node.relay.address;
    fill(address, "poison", &json!({"ack_wait": "300ms"}), 30).await;
    let mut done = HashSet::new();
    let since = Instant::now();
    while done.len() < 29 {
        assert!(since.elapsed() < SOON, "{done:?}");
        let held = claim(address, "poison", "worker", 10, "1s").await.expect("it is claimed");
        for one in &held {
            let number = one["payload"].as_u64().expect("a number");
            if number == 13 {
                // The worker is gone, with what it had claimed beside it.
                break;
            }
            ack(address, std::slice::from_ref(one)).await.expect("an answer");
            done.insert(number);
        }
    }
    let path = "/api/v1/topics/poison.g.dead/messages";
    let dead = async || ask(address, "GET", path, &json!({})).await.filter(|answer| answer.status == 200);
    eventually(SOON, async || {
        claim(address, "poison", "looks", 1, "100ms").await;
        dead().await.is_some_and(|answer| answer.json()["total"] == 1)
    })
    .await;
    let letter = dead().await.expect("an answer").json()["messages"][0].clone();
    assert_eq!(
        (&letter["payload"], &letter["metadata"]["dead_letter"]["reason"]),
        (&json!(13), &json!("crashed"))
    );
    assert_eq!(letter["metadata"]["dead_letter"]["crashes"], 3);
    let told = told(address, "poison").await;
    assert_eq!((&told["done"], &told["dead"], &told["failed"]), (&json!(29), &json!(1), &json!(3)));
    let page = "/api/v1/topics/poison/messages?limit=100";
    let page = ask(address, "GET", page, &json!({})).await.expect("an answer").json();
    assert_eq!(page["total"], 30, "a retry is no new message");
    node.stop().await;
}

/// W6: consumers that come and go leave nothing behind.
#[tokio::test]
async fn consumers_that_come_and_go_leave_nothing() {
    let Some(server) = Server::start(Kind::Valkey, &[]).await else { return };
    let node = Node::start(server.port()).await;
    let address = node.relay.address;
    let count = length::pick(300, 10_000);
    fill(address, "many", &json!({"ack_wait": "1s"}), count).await;
    let consumers = async || {
        let told = server.command(&["XINFO", "CONSUMERS", "stream:topic:many", "g"]).await;
        told.array().len()
    };
    let mut most = 0;
    for consumer in 0..count {
        let held = claim(address, "many", &format!("c{consumer}"), 1, "0s").await.expect("it is claimed");
        assert_eq!(ack(address, &held).await.expect("an answer")[0]["status"], "acked");
        most = most.max(consumers().await);
    }
    assert!(most > 20, "the server knows them by then: {most}");
    // Whoever claims looks after the group.
    eventually(SOON, async || {
        claim(address, "many", "looks", 1, "1s").await;
        consumers().await <= 1
    })
    .await;
    assert_eq!(told(address, "many").await["done"], count);
    node.stop().await;
}
