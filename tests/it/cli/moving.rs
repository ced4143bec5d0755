//! The way of an operator from one server to a cluster, step by step as docs/moving.md tells it, while two relays serve
//! publishers and readers: who publishes and reads loses and repeats nothing, and sees no gap.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde_json::json;
use tidemill::proto::MessageId;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::timeout;

use crate::support::eventually;
use crate::support::process::{Ended, Relay, Running, run};
use crate::support::relay::{Answer, STUCK, try_send};
use crate::support::roaming::{publish, publish_on, read_on};
use crate::support::server::{Kind, Server};
use crate::support::shared::SharedCluster;
use crate::support::watcher::{Form, Watcher};

const TOPICS: usize = 6;

async fn start(url: &str, listen: &str) -> Relay {
    let variables = [("STORAGE_BACKEND", "valkey"), ("VALKEY_URL", url)];
    Relay::ready_at(listen, &variables, &["--drain-ms=2000"]).await
}

/// Runs a command to its end; of those that ask a relay, this one.
async fn ended(relay: Option<&Relay>, arguments: &[&str]) -> Ended {
    let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    let url = relay.map(|relay| relay.url.clone());
    let run = spawn_blocking(move || {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let variables: Vec<_> = url.iter().map(|url| ("TIDEMILL_URL", url.as_str())).collect();
        run(&variables, &arguments, "")
    });
    run.await.expect("no panic")
}

/// Runs a command against a relay, and returns what it prints.
async fn told(relay: &Relay, arguments: &[&str]) -> String {
    let ended = ended(Some(relay), arguments).await;
    ended.lines();
    ended.stdout
}

/// Puts a key, and returns its revision.
async fn put(node: SocketAddr, bucket: &str, key: &str, headers: &[(&str, &str)], value: &str) -> String {
    let answer = put_if(node, bucket, key, headers, value).await;
    assert!(matches!(answer.status, 200 | 201), "{answer:?}");
    answer.json()["revision"].as_str().expect("a revision").to_owned()
}

async fn put_if(node: SocketAddr, bucket: &str, key: &str, headers: &[(&str, &str)], value: &str) -> Answer {
    let path = format!("/api/v1/keys/{bucket}/{key}");
    let headers = [&[("content-type", "application/json")][..], headers].concat();
    try_send(node, "PUT", &path, &headers, value.as_bytes()).await.expect("an answer")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_moves_from_one_server_to_a_cluster_and_nobody_loses_anything() {
    let Some(server) = Server::start(Kind::Valkey, &[]).await else { return };
    let cluster = SharedCluster::start().await.expect("the server started");
    let [old, new] = [server.port(), cluster.port()].map(|port| format!("valkey://127.0.0.1:{port}"));
    let mut relays = vec![start(&old, "127.0.0.1:0").await, start(&old, "127.0.0.1:0").await];
    let nodes = [relays[0].address(), relays[1].address()];
    let stop = Arc::new(AtomicBool::new(false));
    let (mut publishing, mut readers, mut counts) = (JoinSet::new(), JoinSet::new(), Vec::new());
    for number in 0..TOPICS {
        let topic = format!("moving-{number}");
        publish(nodes, &topic, 0, "0").await;
        let published = Arc::new(AtomicU64::new(1));
        publishing.spawn(publish_on(nodes, topic.clone(), published.clone(), stop.clone()));
        for reader in 0..4 {
            let (nodes, topic, published) = (nodes, topic.clone(), published.clone());
            readers.spawn(async move { (read_on(nodes, topic, reader).await, published) });
        }
        counts.push(published);
    }
    let all_came_on = async |by: u64| {
        let wanted: Vec<u64> = counts.iter().map(|count| count.load(Ordering::SeqCst) + by).collect();
        let came = async || counts.iter().zip(&wanted).all(|(count, to)| count.load(Ordering::SeqCst) >= *to);
        eventually(STUCK, came).await;
    };
    all_came_on(50).await;
    told(&relays[0], &["groups", "create", "moving-0", "billing"]).await;
    let claimed =
        told(&relays[1], &["claim", "moving-0", "billing", "--consumer", "me", "--max", "2", "-o", "json"])
            .await;
    let receipt = super::json(claimed.lines().next().expect("a message"))["receipt"].clone();
    told(&relays[1], &["ack", receipt.as_str().expect("a receipt")]).await;

    let first = put(nodes[0], "flows", "a", &[], "1").await;
    put(nodes[1], "flows", "b?ttl=1h", &[], "2").await;
    put(nodes[1], "files", "c", &[], "3").await;
    let mut watcher = Watcher::open(nodes[0], "/api/v1/keys/flows", Form::Lines, "").await.expect("a watch");
    let synced = watcher.up_to("synced").await.pop().expect("it ends so").id.expect("an id");

    let sides = ["--from", old.as_str(), "--to", new.as_str()];
    let would = ended(None, &[&["copy"][..], &sides, &["--dry-run", "-o", "json"]].concat()).await;
    let planned: Vec<_> = would.lines().iter().map(|line| super::json(line)["action"].clone()).collect();
    assert_eq!(planned, vec![json!("would be copied"); TOPICS + 2]);

    let mut copy = Running::start(&[], &[&["copy"][..], &sides, &["--follow", "-o", "json"]].concat());
    let is_there = move || {
        // There is one line each second.
        let is_told = (0..60).any(|_| super::json(&copy.line())["caught_up"] == json!(true));
        (copy, is_told)
    };
    let (copy, is_told) = spawn_blocking(is_there).await.expect("no panic");
    assert!(is_told, "it does not say that all that there was is there");
    all_came_on(50).await;
    let meanwhile = put(nodes[1], "flows", "b", &[("if-match", "*")], "4").await;

    let frozen = ended(None, &["freeze", "--storage", &old, "-o", "json"]).await;
    assert_eq!(super::json(frozen.lines()[0]), json!({"read_only": true, "topics": TOPICS, "buckets": 2}));
    let copied = spawn_blocking(move || copy.end()).await.expect("no panic");
    assert_eq!(copied.code, Some(0), "{copied:?}");
    let refused = put_if(nodes[0], "flows", "a", &[], "5").await;
    assert_eq!((refused.status, &refused.json()["code"]), (503, &json!("read_only")), "{refused:?}");
    for relay in std::mem::take(&mut relays) {
        let listen = relay.address().to_string();
        let (code, log) = spawn_blocking(move || relay.stop()).await.expect("no panic");
        assert_eq!(code, Some(0), "{log}");
        relays.push(start(&new, &listen).await);
    }
    all_came_on(50).await;

    // Who watches goes on behind what was seen last, and revisions are the same.
    let mut watcher =
        Watcher::resume(nodes[1], "/api/v1/keys/flows", Form::Lines, &synced).await.expect("a watch");
    let seen = watcher.expect("put").await;
    assert_eq!((seen.name(), seen.revision()), ("b", &*meanwhile));
    let quoted = format!("\"{first}\"");
    let next = put(nodes[0], "flows", "a", &[("if-match", &*quoted)], "6").await;
    assert!(next.parse::<MessageId>().unwrap() > meanwhile.parse::<MessageId>().unwrap());
    let seen = watcher.expect("put").await;
    assert_eq!((seen.name(), seen.revision()), ("a", &*next));

    stop.store(true, Ordering::SeqCst);
    timeout(STUCK, publishing.join_all()).await.expect("publishing ends");
    let mut goodbyes = 0;
    for (place, published) in timeout(STUCK, readers.join_all()).await.expect("all come to the end") {
        assert_eq!(place.next, published.load(Ordering::SeqCst), "{place:?}");
        goodbyes += place.ends;
    }
    assert!(goodbyes > 0, "they are told where to go on");
    let group = told(&relays[0], &["groups", "show", "moving-0", "billing", "-o", "json"]).await;
    assert_eq!(super::json(&group)["done"], json!(1), "{group}");
    // Nothing was left behind, and what was moved takes part in nothing at the old server any more.
    let again = ended(None, &[&["copy"][..], &sides].concat()).await;
    assert_eq!(again.code, Some(0), "{again:?}");
    spawn_blocking(move || drop(relays)).await.expect("no panic");
}
