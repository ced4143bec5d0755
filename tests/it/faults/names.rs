//! S6, S13 and S21: names that cost something, and names that mean something to the server.

use tokio::task::spawn_blocking;

use super::Node;
use crate::support::ground::{SOON, followed, topic};
use crate::support::process::Relay;
use crate::support::relay::try_send;
use crate::support::resp::Reply;
use crate::support::server::{Kind, Server};

/// Names that no topic may have, as they are and as a path has them.
const HOSTILE: &[&str] = &[
    "x} {y",
    "{x}",
    "*",
    "?",
    "[a]",
    "a b",
    " a",
    "a\r\nDEL b",
    "a\0b",
    "$all",
    ">",
    "+",
    "..",
    ".",
    "a/../b",
    "stream:topic:a\u{2028}",
    "\u{1f600}",
    "a'b",
    "a\"b",
    "a\\b",
    "a;b",
    "a%",
    "%00",
];

/// Names that are allowed, and that are words of commands.
const WORDS: &[&str] =
    &["block", "BLOCK", "STREAMS", "streams", "COUNT", "MAXLEN", "NOMKSTREAM", "0", "-", "0-0"];

/// Keys that are allowed, and that are words of commands, patterns or tags.
const KEYS: &[&str] = &["block", "STREAMS", "PX", "*", "x}{y", "%r%n", "'", "\\", "$", "0-1", "{a}", "a:b:c"];

fn encoded(name: &str) -> String {
    name.bytes().flat_map(|byte| ['%', hex(byte >> 4), hex(byte & 15)]).collect()
}

fn hex(digit: u8) -> char {
    char::from_digit(digit.into(), 16).expect("four bits")
}

async fn keys_of(server: &Server) -> Vec<String> {
    let mut keys: Vec<String> =
        server.command(&["KEYS", "*"]).await.array().iter().map(Reply::text).collect();
    keys.sort_unstable();
    keys
}

#[tokio::test]
async fn hostile_topic_names_reach_no_key() {
    let Some(server) = Server::start(Kind::Valkey, &[]).await else { return };
    let node = Node::start(server.port()).await;
    let before = keys_of(&server).await;
    let long = "x".repeat(256);
    for name in HOSTILE.iter().chain(&[long.as_str()]) {
        let path = format!("/api/v1/topics/{}", encoded(name));
        let json = [("content-type", "application/json")];
        for (method, path) in [
            ("POST", format!("{path}/messages")),
            ("GET", format!("{path}/messages")),
            ("GET", format!("{path}/messages/1-1")),
            ("GET", path.clone()),
            ("PUT", path.clone()),
            ("DELETE", path.clone()),
            ("POST", format!("{path}/trim")),
        ] {
            let answer = node.relay.send(method, &path, &json, br#"{"keep":1}"#).await;
            assert!(matches!(answer.status, 400 | 404 | 405), "{method} {path} ({name:?}): {answer:?}");
        }
        let body = serde_json::json!({ "topic": name, "payload": 1 }).to_string();
        assert_eq!(node.relay.post("/api/v1/messages", body).await.status, 400, "{name:?}");
    }
    assert_eq!(keys_of(&server).await, before, "nothing was made or removed");
    node.stop().await;
}

#[tokio::test]
async fn words_of_commands_are_names_and_keys_like_others() {
    let Some(server) = Server::start(Kind::Valkey, &[]).await else { return };
    let node = Node::start(server.port()).await;
    for name in WORDS {
        let path = format!("/api/v1/topics/{name}/messages");
        for key in KEYS {
            let payload = format!(r#"{{"topic":"{name}","key":{key:?}}}"#);
            let answer = node.publish(name, &payload, Some(key)).await;
            assert_eq!(answer.status, 201, "{name} {key}: {answer:?}");
            let id = answer.json()["message_id"].as_str().expect("an id").to_owned();
            let repeat = node.publish(name, &payload, Some(key)).await;
            assert_eq!(repeat.json()["message_id"], id.as_str(), "{name} {key}");
            let read = node.relay.get(&format!("{path}/{id}")).await.json();
            assert_eq!(read["payload"], serde_json::from_str::<serde_json::Value>(&payload).unwrap());
        }
        let page = node.relay.get(&format!("{path}?limit=100&order=asc")).await.json();
        assert_eq!(page["messages"].as_array().expect("messages").len(), KEYS.len(), "{name}");
        let tail = node.storage.live.tail(&topic(name)).await.unwrap();
        assert!(tail.last.is_some());
        let changes = node.storage.live.poll_changes(&[followed(&topic(name), None)]).await.unwrap();
        assert_eq!(changes.changed, [0], "{name}");
    }
    let known = ["stream:topic:", "meta:topic:", "idem:{", "last:topic:", "tidemill:"];
    for key in keys_of(&server).await {
        assert!(known.iter().any(|prefix| key.starts_with(prefix)), "{key:?}");
    }
    node.stop().await;
}

#[tokio::test]
async fn reading_makes_nothing_and_topics_are_capped() {
    let Some(server) = Server::start(Kind::Valkey, &[]).await else { return };
    let node = Node::start_with(server.port(), |_, limits| limits.topics_max = 3).await;
    node.is_ready_within(SOON).await;
    let before = keys_of(&server).await;
    for path in [
        "",
        "/messages",
        "/messages?after=latest",
        "/messages?after=1-1",
        "/messages?after=-10m",
        "/messages/1-1",
    ] {
        assert_eq!(node.relay.get(&format!("/api/v1/topics/never{path}")).await.status, 404, "{path}");
    }
    assert_eq!(node.relay.post("/api/v1/topics/never/trim", r#"{"keep":1}"#).await.status, 404);
    assert_eq!(keys_of(&server).await, before, "reading made nothing");

    for number in 0..3 {
        assert_eq!(node.publish(&format!("capped-{number}"), "1", None).await.status, 201);
    }
    let before = keys_of(&server).await;
    for number in 3..50 {
        let name = format!("capped-{number}");
        let key = (number % 2 == 0).then_some("key");
        let problem = node.publish(&name, "1", key).await.problem();
        assert_eq!((problem.status, problem.code.as_str()), (403, "topics_limit"));
        let create = format!(r#"{{"topic_name":"{name}"}}"#);
        assert_eq!(node.relay.post("/api/v1/topics", create).await.status, 403);
    }
    assert_eq!(keys_of(&server).await, before, "what is refused leaves nothing");
    assert_eq!(node.publish("capped-0", "2", None).await.status, 201, "topics that exist go on");
    node.stop().await;
}

#[tokio::test]
async fn an_outage_does_not_fill_the_log() {
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", closed.local_addr().unwrap());
    drop(closed);
    let relay = Relay::start(&[("STORAGE_BACKEND", "valkey"), ("VALKEY_URL", &url)], &["--log-format=json"]);
    let began = tokio::time::Instant::now();
    for _ in 0..300 {
        let path = "/api/v1/topics/outage/messages";
        let answer = try_send(relay.address(), "POST", path, &[], b"1").await.expect("an answer");
        assert_eq!(answer.status, 503, "{answer:?}");
    }
    let seconds = began.elapsed().as_secs() + 1;
    let (_, log) = spawn_blocking(move || relay.stop()).await.unwrap();
    let told = log.lines().filter(|line| line.contains("request failed")).count() as u64;
    // What the connection says can change a few times.
    assert!((1..=4 * seconds).contains(&told), "{told} lines in {seconds} s: {log}");
    assert!(told < 150, "{told} lines");
}

#[tokio::test]
async fn logs_are_one_line_of_json_each_whatever_is_asked() {
    let relay = Relay::start(&[], &["--log-level=debug", "--log-format=json"]);
    let address = relay.address();
    for name in HOSTILE {
        let path = format!("/api/v1/topics/{}/messages", encoded(name));
        let headers = [("x-request-id", "\u{1b}[31m"), ("user-agent", "\u{1b}[2J")];
        let answer = try_send(address, "GET", &path, &headers, b"").await.expect("an answer");
        assert!(answer.status >= 400, "{answer:?}");
    }
    let (_, log) = spawn_blocking(move || relay.stop()).await.unwrap();
    assert!(log.lines().count() >= HOSTILE.len(), "every request is logged at this level");
    for line in log.lines() {
        let entry: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(entry["level"].is_string() && !line.contains('\u{1b}'), "{line}");
    }
}
