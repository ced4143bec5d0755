//! Durability told per publish: what is told to be with a replica, or on the disk, is there; what is not in time is told
//! so, and found again under its key; and a server that took the place of another vouches for nothing of before.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tidemill::proto::frame::ClientFrame;
use tidemill::proto::health::HealthStatus;
use tidemill::proto::page::Order;
use tidemill::proto::{Code, Durability, MessageId};
use tidemill::storage::valkey::check::{self, Outcome};
use tidemill::storage::valkey::{DurabilityRule, Target, ValkeyOptions};
use tidemill::storage::{Backend as _, StorageError};
use tokio::time::{sleep, timeout};

use super::Node;
use crate::support::eventually;
use crate::support::ground::{SOON, append, json as body, message, read_all, texts, topic};
use crate::support::relay::Answer;
use crate::support::server::{Kind, Server};
use crate::support::ws::{WsClient, publish_frame};

const FAST: [&str; 2] = ["--repl-diskless-sync-delay", "0"];
const KEY: &str = "stream:topic:t";
const PATH: &str = "/api/v1/topics/t/messages";
/// A moment, before something is asked for again.
const REST: Duration = Duration::from_millis(20);
/// Publishers at one time.
const CROWD: usize = 20;
/// In what time who waits in vain is answered: commands may take 700 ms here.
const IN_VAIN: Duration = Duration::from_secs(2);

/// Starts a server and a replica of it.
async fn pair(kind: Kind) -> Option<[Server; 2]> {
    let (primary, replica) = (Server::start(kind, &FAST).await?, Server::start(kind, &FAST).await?);
    follow(&replica, &primary).await;
    Some([primary, replica])
}

async fn follow(replica: &Server, primary: &Server) {
    let port = primary.port().to_string();
    assert_eq!(replica.command(&["REPLICAOF", "127.0.0.1", &port]).await.text(), "OK");
    let is_up =
        async || replica.command(&["INFO", "replication"]).await.text().contains("master_link_status:up");
    eventually(SOON, is_up).await;
}

async fn publish(node: &Node, durability: &str, payload: &str, key: Option<&str>) -> Answer {
    let mut headers = vec![("content-type", "application/json"), ("tidemill-durability", durability)];
    headers.extend(key.map(|key| ("idempotency-key", key)));
    node.relay.send("POST", PATH, &headers, payload.as_bytes()).await
}

/// Asks until something comes.
async fn come<T>(ask: impl AsyncFn() -> Option<T>) -> T {
    let asking = async {
        loop {
            if let Some(found) = ask().await {
                return found;
            }
            sleep(REST).await;
        }
    };
    timeout(SOON, asking).await.expect("it comes soon")
}

/// Publishes what can be so durable, as soon as the relay has seen that.
async fn publish_soon(node: &Node, durability: &str) -> Answer {
    come(async || Some(publish(node, durability, "0", None).await).filter(|answer| answer.status == 201))
        .await
}

fn told(answer: &Answer) -> (Value, Value) {
    let durability = &answer.json()["durability"];
    (durability["asked"].clone(), durability["reached"].clone())
}

fn has(ids: &str) -> [&str; 4] {
    ["XRANGE", KEY, ids, ids]
}

async fn what_is_told_to_be_with_a_replica_is_there(kind: Kind) {
    let Some([primary, replica]) = pair(kind).await else { return };
    let node = Node::start(primary.port()).await;
    let first = publish_soon(&node, "replicas=1").await;
    assert_eq!(told(&first), (json!("replicas=1"), json!("replicas=1")));
    let crowd: Vec<String> = (0..CROWD).map(|number| number.to_string()).collect();
    let publishing = crowd.iter().map(async |payload| {
        let answer = publish(&node, "replicas=1", payload, None).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        let id = answer.json()["message_id"].as_str().expect("an id").to_owned();
        assert_eq!(replica.command(&has(&id)).await.array().len(), 1, "{id} is not with the replica");
    });
    join_all(publishing).await;
    let plain = node.publish("t", "1", None).await;
    assert!(plain.status == 201 && plain.json()["durability"].is_null(), "{plain:?}");
    let plain = publish(&node, "accepted", "1", None).await;
    assert!(plain.status == 201 && plain.json()["durability"].is_null(), "{plain:?}");

    let items = json!({"messages": [
        {"topic": "t", "payload": 1, "durability": "replicas=1"},
        {"topic": "u", "payload": 2},
        {"topic": "u", "payload": 3, "durability": "replicas=2"},
        {"topic": "t", "payload": 4, "durability": "two"},
    ]});
    let answer = node.relay.post("/api/v1/messages/bulk", items.to_string()).await.json();
    let results = answer["results"].as_array().expect("results");
    assert_eq!(results[0]["durability"]["reached"], "replicas=1", "{answer}");
    assert!(results[1]["status"] == "accepted" && results[1]["durability"].is_null(), "{answer}");
    assert_eq!(results[2]["code"], "too_few_replicas", "{answer}");
    assert_eq!(results[3]["code"], "invalid_field", "{answer}");
    assert!(results[2]["field"] == "durability" && results[3]["field"] == "durability", "{answer}");
    assert!(results[0]["field"].is_null(), "{answer}");
    let metrics = node.relay.get("/metrics").await.text().to_owned();
    let durable = format!("tidemill_messages_durable_total {}", CROWD + 2);
    assert!(metrics.contains(&durable), "{durable}");
    node.stop().await;
}

#[tokio::test]
async fn what_is_told_to_be_with_a_replica_of_valkey_is_there() {
    what_is_told_to_be_with_a_replica_is_there(Kind::Valkey).await;
}

#[tokio::test]
async fn what_is_told_to_be_with_a_replica_of_redis_is_there() {
    what_is_told_to_be_with_a_replica_is_there(Kind::Redis).await;
}

#[tokio::test]
async fn what_is_not_with_a_replica_in_time_is_told_so_and_found_again_under_its_key() {
    let Some([primary, mut replica]) = pair(Kind::Valkey).await else { return };
    let node = Node::start(primary.port()).await;
    publish_soon(&node, "replicas=1").await;
    replica.sigstop();
    let late = timeout(IN_VAIN, publish(&node, "replicas=1", "1", Some("k"))).await;
    let late = late.expect("nobody waits for long");
    let problem = late.problem();
    assert_eq!((late.status, problem.code, problem.retryable), (504, Code::DurabilityNotReached, true));
    assert_eq!(problem.durability.expect("it is told").reached, Durability::ACCEPTED);
    let id = problem.message_id.expect("it is kept").to_string();
    assert_eq!(primary.command(&has(&id)).await.array().len(), 1);
    let unkeyed = publish(&node, "replicas=1", "2", None).await.problem();
    assert!(!unkeyed.retryable && unkeyed.message_id.is_some(), "it would be there twice: {unkeyed:?}");
    replica.sigcont();
    let again = async || {
        Some(publish(&node, "replicas=1", "1", Some("k")).await).filter(|answer| answer.status == 201)
    };
    let found = come(again).await;
    assert_eq!(found.json()["message_id"], json!(id));
    assert_eq!(told(&found).1, "replicas=1");
    assert_eq!(replica.command(&has(&id)).await.array().len(), 1);

    // Without one that is there, nothing is kept.
    replica.kill9();
    let length = async || primary.command(&["XLEN", KEY]).await.integer();
    eventually(SOON, async || publish(&node, "replicas=1", "3", None).await.status == 503).await;
    let before = length().await;
    let refused = publish(&node, "replicas=1", "3", None).await;
    assert_eq!(refused.problem().code, Code::TooFewReplicas);
    assert_eq!(
        refused.problem().field.as_deref(),
        Some("Tidemill-Durability"),
        "as the publisher has said it"
    );
    assert!(refused.header("retry-after").is_some());
    // What is kept under its key is found.
    let found = publish(&node, "replicas=1", "1", Some("k")).await.problem();
    assert_eq!(found.code, Code::DurabilityNotReached);
    assert_eq!(found.message_id.expect("it is kept").to_string(), id);
    assert_eq!(found.durability.expect("it is told").reached, Durability::ACCEPTED);
    assert_eq!(length().await, before);
    node.stop().await;
}

#[tokio::test]
async fn what_is_told_to_be_on_the_disk_is_told_only_where_the_server_waits_for_it() {
    let Some(mut server) = Server::start(Kind::Valkey, &["--appendonly", "yes"]).await else { return };
    let node = Node::start(server.port()).await;
    let refused = publish(&node, "fsync", "1", None).await;
    let problem = refused.problem();
    assert_eq!((refused.status, problem.code), (400, Code::DurabilityUnsupported));
    assert!(problem.detail.contains("`appendfsync everysec`"), "{}", problem.detail);
    assert_eq!(server.command(&["EXISTS", KEY]).await.integer(), 0, "nothing was kept");
    assert_eq!(server.command(&["CONFIG", "SET", "appendfsync", "always"]).await.text(), "OK");
    let kept = publish_soon(&node, "fsync").await;
    assert_eq!(told(&kept), (json!("fsync"), json!("fsync")));
    assert_eq!(server.command(&["CONFIG", "SET", "appendonly", "no"]).await.text(), "OK");
    let refused = async || publish(&node, "fsync", "1", None).await;
    eventually(SOON, async || refused().await.status == 400).await;
    assert!(refused().await.problem().detail.contains("`appendonly yes`"));
    let unread = ["ACL", "SETUSER", "default", "-config|get"];
    assert_eq!(server.command(&unread).await.text(), "OK");
    eventually(SOON, async || refused().await.problem().detail.contains("`CONFIG GET`")).await;
    node.stop().await;
    server.kill9();
}

#[tokio::test]
async fn a_server_that_cannot_wait_for_its_disk_is_told_so() {
    let always = ["--appendonly", "yes", "--appendfsync", "always"];
    let Some(server) = Server::start(Kind::Redis, &always).await else { return };
    let node = Node::start(server.port()).await;
    let refused = publish(&node, "fsync", "1", None).await;
    assert_eq!(refused.problem().code, Code::DurabilityUnsupported);
    assert!(refused.problem().detail.contains("`WAITAOF`"), "{refused:?}");
    assert_eq!(publish(&node, "accepted", "1", Some("k")).await.status, 201);
    let found = publish(&node, "fsync", "1", Some("k")).await;
    assert_eq!(found.problem().code, Code::DurabilityNotReached, "{found:?}");
    node.stop().await;
}

/// Sets a rule for all topics that nobody names, and one for some.
fn rules() -> Arc<[DurabilityRule]> {
    let of_some = Some("orders.*".parse().expect("a pattern"));
    Arc::new([
        DurabilityRule { topics: of_some, durability: Durability { fsync: true, replicas: 0 } },
        DurabilityRule { topics: None, durability: Durability { fsync: false, replicas: 1 } },
    ])
}

#[tokio::test]
async fn what_is_set_and_cannot_be_had_is_told_with_what_to_set() {
    let Some([primary, mut replica]) = pair(Kind::Valkey).await else { return };
    replica.kill9();
    let node = Node::start_with(primary.port(), |options, _| options.durabilities = rules()).await;
    node.is_ready_within(SOON).await;
    let url = format!("valkey://127.0.0.1:{}", primary.port());
    let target = Target::parse(&url).expect("the URL is right");
    let options = ValkeyOptions { durabilities: rules(), ..ValkeyOptions::new(target) };
    let (of_some, of_node) = ("TIDEMILL_DURABILITY_TOPICS)", "TIDEMILL_DURABILITY)");
    let told = |warnings: &[String], setting: &str, part: &str| {
        warnings.iter().any(|warning| warning.contains(setting) && warning.contains(part))
    };
    let health = async || {
        let health = node.storage.upkeep.health().await;
        (health.status, health.backend.warnings)
    };
    let checked = async || {
        let report = Box::pin(check::run(&options)).await;
        assert!(report.passed(), "{report:?}");
        let lines = report.lines.into_iter().filter(|line| line.name == "durability");
        lines.map(|line| (line.outcome, line.detail)).collect::<Vec<_>>()
    };
    // The replica counts until the server has seen that it is gone.
    eventually(SOON, async || told(&health().await.1, of_node, "0 replicas follow the server; give it 1"))
        .await;
    let (status, warnings) = health().await;
    assert_eq!(status, HealthStatus::Degraded);
    for warnings in [warnings, node.valkey.examine(true).await.expect("it starts all the same")] {
        assert!(told(&warnings, of_node, "give it 1"), "{warnings:?}");
        assert!(told(&warnings, of_some, "`orders.*`"), "{warnings:?}");
        assert!(told(&warnings, of_some, "set `appendonly yes`"), "{warnings:?}");
    }
    let warned = checked().await;
    assert!(warned.len() == 2 && warned.iter().all(|(outcome, _)| *outcome == Outcome::Warn), "{warned:?}");

    for setting in [["appendonly", "yes"], ["appendfsync", "always"]] {
        assert_eq!(primary.command(&["CONFIG", "SET", setting[0], setting[1]]).await.text(), "OK");
    }
    replica.restart().await;
    follow(&replica, &primary).await;
    eventually(SOON, async || health().await.0 == HealthStatus::Healthy).await;
    assert!(!health().await.1.iter().any(|warning| warning.contains("DURABILITY")));
    assert!(matches!(&checked().await[..], [(Outcome::Pass, _)]), "it can be had");
    node.stop().await;
}

/// The one that took over has what the other had confirmed, or has not: it does not know.
#[tokio::test]
async fn a_server_that_took_over_vouches_for_nothing_of_before() {
    let Some([mut first, second]) = pair(Kind::Valkey).await else { return };
    let Some(third) = Server::start(Kind::Valkey, &FAST).await else { return };
    let url = format!("valkey://127.0.0.1:{},127.0.0.1:{}", first.port(), second.port());
    let node = Node::start_with(1, |options, _| {
        options.target = Target::parse(&url).expect("the URL is right");
    })
    .await;
    node.is_ready_within(SOON).await;
    publish_soon(&node, "replicas=1").await;
    let (name, asked) = (topic("t"), Durability { fsync: false, replicas: 1 });
    let before = node.storage.durable.pledge(&name, asked, None).await.expect("there is a replica");
    append(&node.storage, message(&name, body("1"))).await.expect("it is kept");
    assert_eq!(node.storage.durable.reach(std::slice::from_ref(&before)).await, [asked]);

    first.kill9();
    assert_eq!(second.command(&["REPLICAOF", "NO", "ONE"]).await.text(), "OK");
    follow(&third, &second).await;
    let after = come(async || node.storage.durable.pledge(&name, asked, None).await.ok()).await;
    assert_ne!(before.history, after.history);
    append(&node.storage, message(&name, body("2"))).await.expect("it is kept");
    let reached = node.storage.durable.reach(&[before, after.clone(), after]).await;
    assert_eq!(reached, [Durability::ACCEPTED, asked, asked]);
    let refused = node.storage.durable.pledge(&name, Durability { fsync: false, replicas: 2 }, None).await;
    assert!(matches!(refused, Err(StorageError::TooFewReplicas { asked: 2, connected: 1 })), "{refused:?}");
    node.stop().await;
}

#[tokio::test]
async fn messages_of_all_durabilities_keep_the_order_of_their_publisher() {
    let always = ["--appendonly", "yes", "--appendfsync", "always", FAST[0], FAST[1]];
    let Some(primary) = Server::start(Kind::Valkey, &always).await else { return };
    let Some(replica) = Server::start(Kind::Valkey, &FAST).await else { return };
    follow(&replica, &primary).await;
    let node = Node::start(primary.port()).await;
    publish_soon(&node, "replicas=1").await;
    let mut client = WsClient::connect_binary(node.relay.address).await;
    let levels = [None, Some("replicas=1"), None, Some("fsync"), Some("fsync, replicas=1"), Some("accepted")];
    let payloads: Vec<String> = (0..300).map(|number| number.to_string()).collect();
    for (number, payload) in payloads.iter().enumerate() {
        let mut frame = publish_frame("order", payload.as_bytes());
        frame.durability = levels[number % levels.len()].map(Into::into);
        client.send_binary(&ClientFrame::Publish(frame)).await;
    }
    let name = topic("order");
    eventually(SOON, async || node.storage.topics.describe(&name).await.is_ok()).await;
    let kept = async || read_all(&node.storage, &name, Order::Asc, 1_000).await;
    eventually(SOON, async || kept().await.len() == payloads.len()).await;
    assert_eq!(texts(&kept().await), payloads);
    client.close().await;
    node.stop().await;
}

#[tokio::test]
async fn a_frame_says_how_durable_its_message_is() {
    let Some([primary, replica]) = pair(Kind::Valkey).await else { return };
    let node = Node::start(primary.port()).await;
    publish_soon(&node, "replicas=1").await;
    let mut client = WsClient::connect(node.relay.address).await;
    let publish = |durability: Value| {
        json!({"type": "publish", "topic": "t", "payload": 1, "ref": "r", "durability": durability})
            .to_string()
    };
    let published = client.ask(publish(json!("replicas=1")), "published").await;
    assert_eq!(published["durability"], json!({"asked": "replicas=1", "reached": "replicas=1"}));
    let published = client.ask(publish(json!("accepted")), "published").await;
    assert!(published["durability"].is_null(), "{published}");
    let refused = client.ask(publish(json!("replicas=2")), "error").await;
    assert_eq!(refused["details"]["code"], "too_few_replicas");
    let refused = client.ask(publish(json!("some")), "error").await;
    assert_eq!(refused["details"]["field"], "durability");
    replica.sigstop();
    let late = client.ask(publish(json!("replicas=1")), "error").await;
    assert_eq!(late["details"]["code"], "durability_not_reached");
    assert_eq!(late["details"]["durability"]["reached"], "accepted");
    let id = late["details"]["message_id"].as_str().expect("an id");
    assert!(MessageId::parse(id).is_ok());
    replica.sigcont();
    client.close().await;
    node.stop().await;
}
