//! A primary that sentinels watch is replaced under load: by command, because it was killed, while a sentinel is cut
//! off, and beside one that names another server.

use std::time::Duration;

use serde_json::Value;
use tidemill::storage::valkey::{Login, PasswordFile, Target};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Node;
use crate::support::eventually;
use crate::support::ground::SOON;
use crate::support::load::{Load, Told};
use crate::support::process::run;
use crate::support::raw::Stream;
use crate::support::sentinel::{NAME, Sentinels};
use crate::support::server::{Kind, Server};

/// In what time publishes must work once there is a new primary.
const BACK_WITHIN: Duration = Duration::from_secs(2);
const END: &str = "\"end\"";

/// Starts a relay that is given a URL.
async fn start(url: &str) -> Node {
    let node = Node::start_with(1, |options, _| {
        options.target = Target::parse(url).expect("the URL is right");
    })
    .await;
    node.is_ready_within(SOON).await;
    node
}

/// Reads a topic from its beginning to the end, and returns the payloads and the reasons of gaps.
async fn read(node: &Node, topic: &str) -> JoinSet<Vec<String>> {
    let path = format!("/api/v1/topics/{topic}/messages?after=earliest");
    let kind = "application/x-ndjson";
    let mut stream = Stream::open(node.relay.address, &path, kind, "").await.expect("it is read");
    let mut reader = JoinSet::new();
    reader.spawn(async move {
        let mut told = Vec::new();
        while told.last().is_none_or(|last| last != END) {
            let line: Value = serde_json::from_slice(&stream.until(b"\n").await.expect("a line")).unwrap();
            match line["type"].as_str() {
                Some("message") => told.push(line["payload"].to_string()),
                Some("gap") => told.push(format!("gap {}", line["reason"])),
                _ => {}
            }
        }
        told
    });
    reader
}

/// Publishes where it must work, and returns the id.
async fn published(node: &Node, topic: &str, payload: &str) -> String {
    let answer = node.publish(topic, payload, None).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.json()["message_id"].as_str().expect("an id").to_owned()
}

/// Whether what a relay publishes comes to a server.
async fn publishes_to(node: &Node, server: &Server) -> bool {
    let answer = node.publish("where", "1", None).await;
    if answer.status != 201 {
        return false;
    }
    let id = answer.json()["message_id"].as_str().expect("an id").to_owned();
    let found = server.command(&["XRANGE", "stream:topic:where", &id, &id]).await;
    found.array().len() == 1
}

/// Waits until relays publish to a server, and returns how long that took.
async fn until_published_to(nodes: &[&Node], server: &Server, within: Duration) -> Duration {
    let began = Instant::now();
    for node in nodes {
        eventually(within, async || publishes_to(node, server).await).await;
    }
    began.elapsed()
}

/// Each attempt was accepted, refused for now, or of unknown outcome; and what was accepted has come to the reader, or a
/// gap.
fn nothing_is_lost_in_silence(told: &[Told], topic: &str, read: &[String]) {
    for told in told {
        let answer = told.answer.as_ref().expect("every attempt is answered");
        assert!(matches!(answer.status, 200 | 201 | 503 | 504), "{answer:?}");
        if answer.status == 503 {
            assert_eq!(answer.header("retry-after"), Some("1"), "{answer:?}");
        }
    }
    let has_gap = read.iter().any(|line| line == "gap \"reset\"");
    let accepted = told.iter().filter(|told| told.topic == topic && told.id().is_some());
    let missing: Vec<_> = accepted.filter(|told| !read.contains(&told.payload)).collect();
    assert!(has_gap || missing.is_empty(), "{} of {topic} are lost in silence", missing.len());
    eprintln!("{topic}: {} read, {} missing, a gap: {has_gap}", read.len(), missing.len());
}

/// How a primary is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    ByCommand,
    Killed,
}

async fn a_primary_is_replaced_under_load(kind: Kind, how: How) {
    let Some(mut sentinels) = Sentinels::start(kind, 2).await else { return };
    let url = sentinels.url();
    let (one, other) = tokio::join!(start(&url), start(&url));
    let health = one.relay.get("/health").await.json();
    assert_eq!(health["backend"]["port"], sentinels.server(0).port(), "{health}");
    let topics = ["moved-0", "moved-1"];
    for topic in topics {
        published(&one, topic, "\"begin\"").await;
    }
    let readers = [read(&other, topics[0]).await, read(&other, topics[1]).await];
    let load = Load::start(one.relay.address, "moved", 4);
    eventually(SOON, async || load.accepted() > 200).await;

    // The first that is asked is cut off meanwhile, and then names the server before for a moment.
    sentinels.sentinel(0).sigstop();
    let now = match how {
        How::ByCommand => sentinels.failover_by(1).await,
        How::Killed => {
            sentinels.server_mut(0).kill9();
            sentinels.promoted(0).await
        }
    };
    let took = until_published_to(&[&one, &other], sentinels.server(now), BACK_WITHIN).await;
    eprintln!("{kind:?} {how:?}: publishes work {took:?} after the promotion");
    if how == How::Killed {
        // It comes back as a primary, until a sentinel tells it what it is.
        sentinels.server_mut(0).restart().await;
    }
    sentinels.sentinel(0).sigcont();
    let kill = ["CLIENT", "KILL", "TYPE", "normal"];
    assert!(sentinels.server(now).command(&kill).await.integer() > 0);
    until_published_to(&[&one, &other], sentinels.server(now), SOON).await;
    let accepted = load.accepted();
    eventually(SOON, async || load.accepted() > accepted + 200).await;
    let told = load.stop().await;
    for (topic, reader) in topics.into_iter().zip(readers) {
        published(&one, topic, END).await;
        let read = tokio::time::timeout(SOON, reader.join_all()).await.expect("it comes to the end").concat();
        nothing_is_lost_in_silence(&told, topic, &read);
    }
    let port = sentinels.server(now).port();
    let shown = async || one.relay.get("/health").await.json()["backend"]["port"] == port;
    eventually(SOON, shown).await;
    one.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_of_valkey_that_is_replaced_by_command_is_followed() {
    a_primary_is_replaced_under_load(Kind::Valkey, How::ByCommand).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_of_valkey_that_was_killed_is_replaced() {
    a_primary_is_replaced_under_load(Kind::Valkey, How::Killed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_of_redis_that_was_killed_is_replaced() {
    a_primary_is_replaced_under_load(Kind::Redis, How::Killed).await;
}

/// A sentinel that stands first in the URL, and knows another primary by the same name, which is one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sentinel_that_names_another_server_is_not_believed() {
    let Some(sentinels) = Sentinels::start(Kind::Valkey, 1).await else { return };
    let now = sentinels.failover().await;
    let alone = Server::start(Kind::Valkey, &[]).await.expect("there is such a server");
    let liar = Server::start_sentinel(Kind::Valkey, &[]).await.expect("there is such a server");
    let watch = ["SENTINEL", "MONITOR", NAME, "127.0.0.1", &alone.port().to_string(), "1"];
    assert_eq!(liar.command(&watch).await.text(), "OK");
    let url = format!("valkey+sentinel://127.0.0.1:{},{}/{NAME}", liar.port(), sentinels.addresses());
    let node = start(&url).await;
    until_published_to(&[&node], sentinels.server(now), SOON).await;
    let told = ["PUBLISH", "+switch-master", &format!("{NAME} 127.0.0.1 1 127.0.0.1 {}", alone.port())];
    assert!(liar.command(&told).await.text_or_error().starts_with("ERR"), "sentinels take only their own");
    assert_eq!(alone.command(&["DBSIZE"]).await.integer(), 0);

    // Each is told by the check.
    let check = |url: &str| run(&[("STORAGE_BACKEND", "valkey"), ("VALKEY_URL", url)], &["doctor"], "");
    let ended = check(&url);
    let names = format!("127.0.0.1:{} names 127.0.0.1:{}", liar.port(), alone.port());
    assert!(ended.code == Some(0) && ended.stdout.contains(&names), "{ended:?}");
    let ended = check(&url.replace(&format!("/{NAME}"), "/unknown"));
    let unknown = format!("127.0.0.1:{} does not watch `unknown`", liar.port());
    assert!(ended.code == Some(1) && ended.stdout.contains(&unknown), "{ended:?}");
    node.stop().await;
}

/// Sentinels have users of their own, whose passwords may change.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_that_ask_who_calls_are_told() {
    let Some(sentinels) = Sentinels::start(Kind::Valkey, 1).await else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("password");
    std::fs::write(&path, "h3cret 1\n").unwrap();
    let rights =
        ["-@all", "&*", "+ping", "+subscribe", "+sentinel|get-master-addr-by-name", "+sentinel|master"];
    let let_in = async |password: &str| {
        for sentinel in 0..3 {
            let user = ["ACL", "SETUSER", "relay", "reset", "on", password];
            let reply = sentinels.sentinel(sentinel).command(&[&user[..], &rights].concat()).await;
            assert_eq!(reply.text(), "OK");
        }
    };
    let_in(">h3cret 1").await;
    let url = sentinels.url();
    let node = Node::start_with(1, |options, _| {
        options.target = Target::parse(&url).expect("the URL is right");
        let file = PasswordFile::new(path.clone(), "of before".to_owned().into());
        options.sentinel_login =
            Login { username: Some("relay".to_owned()), password: None, file: Some(file.into()) };
    })
    .await;
    node.is_ready_within(SOON).await;
    let listens = async || {
        let list = sentinels.sentinel(2).command(&["CLIENT", "LIST"]).await.text();
        let mut lines = list.lines();
        lines.any(|line| line.contains("name=tidemill-sentinel") && line.contains("user=relay"))
    };
    eventually(SOON, listens).await;

    // A user that is reset is cut off, and comes back with the password of now.
    std::fs::write(&path, "wrong").unwrap();
    let_in(">h3cret 2").await;
    sentinels.server(0).command(&["CLIENT", "KILL", "TYPE", "normal"]).await;
    let told = async || {
        let health = node.relay.get("/health").await.text().to_owned();
        assert!(!health.contains("h3cret"), "{health}");
        health.contains("WRONGPASS")
    };
    eventually(SOON, told).await;
    std::fs::write(&path, "h3cret 2").unwrap();
    node.is_ready_within(SOON).await;
    assert_eq!(node.publish("t", "1", None).await.status, 201);
    node.stop().await;
}
