//! Pages of history that are read from a replica: what comes from there is whole and says how old it is, and nothing else
//! comes from there.

use std::time::Duration;

use serde_json::Value;
use tidemill::storage::Backend as _;
use tidemill::storage::valkey::check::{self, Outcome};
use tidemill::storage::valkey::{Target, ValkeyOptions};
use tokio::time::Instant;

use super::Node;
use crate::support::cluster::Cluster;
use crate::support::eventually;
use crate::support::ground::SOON;
use crate::support::server::{Kind, Server};

const MESSAGES: usize = 250;
/// In what time a page comes when the replica hangs.
const NOT_WAITED_FOR: Duration = Duration::from_secs(2);

async fn node(port: u16) -> Node {
    let node = Node::start_with(port, |options, _| options.reads_replicas = true).await;
    node.is_ready_within(SOON).await;
    node
}

async fn fill(node: &Node, topic: &str) {
    let items: Vec<Value> =
        (0..MESSAGES).map(|number| serde_json::json!({"topic": topic, "payload": number})).collect();
    let body = serde_json::json!({"messages": items}).to_string();
    let answer = node.relay.post("/api/v1/messages/bulk", body).await;
    assert!(answer.status < 300, "{answer:?}");
}

async fn replicas(node: &Node) -> usize {
    let health = node.relay.get("/health").await.json();
    health["backend"]["replicas"].as_array().map_or(0, Vec::len)
}

async fn page(node: &Node, topic: &str, after: &str) -> Value {
    node.relay.get(&format!("/api/v1/topics/{topic}/messages?limit=100&after={after}")).await.json()
}

/// Reads a topic from its first message on. Returns the payloads, and how many pages came from a replica.
async fn walk(node: &Node, topic: &str) -> (Vec<usize>, usize) {
    let (mut after, mut payloads, mut aged) = ("earliest".to_owned(), Vec::new(), 0);
    loop {
        let page = page(node, topic, &after).await;
        assert!(page["gap"].is_null(), "{page}");
        if let Some(age) = page["age_ms"].as_u64() {
            assert!(age <= 15_000, "{age}");
            aged += 1;
        }
        let messages = page["messages"].as_array().expect("messages");
        payloads
            .extend(messages.iter().filter_map(|message| usize::try_from(message["payload"].as_u64()?).ok()));
        match page["next_cursor"].as_str() {
            Some(next) => next.clone_into(&mut after),
            None => return (payloads, aged),
        }
    }
}

async fn full_pages_come_from_a_replica_and_no_others(kind: Kind) {
    let fast = ["--repl-diskless-sync-delay", "0"];
    let (Some(primary), Some(mut replica)) =
        (Server::start(kind, &fast).await, Server::start(kind, &fast).await)
    else {
        return;
    };
    assert_eq!(replica.command(&["REPLICAOF", "127.0.0.1", &primary.port().to_string()]).await.text(), "OK");
    let node = node(primary.port()).await;
    fill(&node, "t").await;
    eventually(SOON, async || replica.command(&["XLEN", "stream:topic:t"]).await.integer() == 250).await;
    eventually(SOON, async || replicas(&node).await == 1).await;
    let all: Vec<usize> = (0..MESSAGES).collect();
    assert_eq!(walk(&node, "t").await, (all.clone(), 2), "the last page is the primary's");
    let told =
        async || node.relay.get("/metrics").await.text().contains("tidemill_backend_replica_pages_total 2");
    eventually(SOON, told).await;
    let newest = node.relay.get("/api/v1/topics/t/messages?limit=100").await.json();
    assert_eq!((newest["messages"][0]["payload"].as_u64(), &newest["age_ms"]), (Some(249), &Value::Null));

    // One that is behind has not what comes: the primary is asked.
    replica.command(&["REPLICAOF", "127.0.0.1", "1"]).await;
    fill(&node, "t").await;
    let (payloads, _) = walk(&node, "t").await;
    assert_eq!(payloads, [all.clone(), all.clone()].concat());
    eventually(SOON, async || replicas(&node).await == 0).await;
    assert_eq!(walk(&node, "t").await.1, 0, "it does not follow any more");
    replica.command(&["REPLICAOF", "127.0.0.1", &primary.port().to_string()]).await;
    eventually(SOON, async || walk(&node, "t").await.1 > 0).await;

    // One that hangs is not waited for; one that is gone is not missed.
    replica.sigstop();
    let began = Instant::now();
    assert_eq!(walk(&node, "t").await.0.len(), 2 * MESSAGES);
    assert!(began.elapsed() < NOT_WAITED_FOR * 2, "{:?}", began.elapsed());
    replica.sigcont();
    replica.kill9();
    assert_eq!(walk(&node, "t").await.0.len(), 2 * MESSAGES);
    node.stop().await;
}

#[tokio::test]
async fn full_pages_come_from_a_replica_of_valkey_and_no_others() {
    full_pages_come_from_a_replica_and_no_others(Kind::Valkey).await;
}

#[tokio::test]
async fn full_pages_come_from_a_replica_of_redis_and_no_others() {
    full_pages_come_from_a_replica_and_no_others(Kind::Redis).await;
}

#[tokio::test]
async fn it_is_told_where_there_is_no_replica_to_read_from() {
    let fast = ["--repl-diskless-sync-delay", "0"];
    let (Some(primary), Some(replica)) =
        (Server::start(Kind::Valkey, &fast).await, Server::start(Kind::Valkey, &fast).await)
    else {
        return;
    };
    let node = node(primary.port()).await;
    let target = Target::parse(&format!("valkey://127.0.0.1:{}", primary.port())).expect("the URL is right");
    let options = ValkeyOptions { reads_replicas: true, ..ValkeyOptions::new(target) };
    let told = async || {
        let report = Box::pin(check::run(&options)).await;
        let line = report.lines.into_iter().find(|line| line.name == "replicas").expect("it is looked at");
        let warnings = node.valkey.examine(false).await.expect("it can be used");
        let is_warned = warnings.iter().any(|told| told.contains("VALKEY_READ_FROM=replica has no effect"));
        (line.outcome, is_warned)
    };
    assert_eq!(told().await, (Outcome::Warn, true));
    replica.command(&["REPLICAOF", "127.0.0.1", &primary.port().to_string()]).await;
    eventually(SOON, async || told().await == (Outcome::Pass, false)).await;
    node.stop().await;
}

#[tokio::test]
async fn in_a_cluster_each_primary_has_a_replica_that_is_read_from() {
    let Some(cluster) = Cluster::start(Kind::Valkey, 3, 1).await else { return };
    let node = node(cluster.ports()[0]).await;
    let topics = ["a", "b", "c", "d", "e", "f"];
    for topic in topics {
        fill(&node, topic).await;
    }
    eventually(SOON, async || replicas(&node).await == 3).await;
    for topic in topics {
        let whole = async || walk(&node, topic).await == ((0..MESSAGES).collect(), 2);
        eventually(SOON, whole).await;
    }
    node.stop().await;
}
