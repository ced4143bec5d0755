//! Messages that were confirmed and that a server has not got, which comes in the place of the one before: what readers are
//! told who had not come to them, on the node that published and on another.

use std::time::Duration;

use tidemill::storage::valkey::Target;

use super::Node;
use crate::support::doors::{BARE, Readers, bare};
use crate::support::eventually;
use crate::support::ground::SOON;
use crate::support::resp::Reply;
use crate::support::server::{Kind, Server};

const TOPIC: &str = "lost";
const KEY: &str = "stream:topic:lost";
const END: &str = "\"end\"";
/// Holes of which a stream keeps marks.
const HOLES_MAX: usize = 8;

async fn publish(node: &Node, payload: &str) -> String {
    let answer = node.publish(TOPIC, payload, None).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.json()["message_id"].as_str().expect("an id").to_owned()
}

/// Publishes as soon as that works.
async fn publish_again(node: &Node, payload: &str) -> String {
    let id = std::cell::RefCell::new(None);
    eventually(SOON, async || {
        let answer = node.publish(TOPIC, payload, None).await;
        *id.borrow_mut() = answer.json()["message_id"].as_str().map(str::to_owned);
        answer.status == 201
    })
    .await;
    id.into_inner().expect("an id")
}

/// Returns the marks of holes that a stream has.
async fn holes(server: &Server, key: &str) -> Vec<String> {
    let Reply::Array(groups) = server.command(&["XINFO", "GROUPS", key]).await else { return Vec::new() };
    let names = groups.iter().filter_map(|group| match group {
        Reply::Array(parts) => parts.get(1).map(Reply::text),
        _ => None,
    });
    names.filter_map(|name| name.strip_prefix("tidemill-lost:").map(str::to_owned)).collect()
}

async fn what_a_new_primary_has_not_got_is_told(kind: Kind) {
    let fast = ["--repl-diskless-sync-delay", "0"];
    let (Some(mut first), Some(second)) =
        (Server::start(kind, &fast).await, Server::start(kind, &fast).await)
    else {
        return;
    };
    let ports = [first.port(), second.port()];
    assert_eq!(second.command(&["REPLICAOF", "127.0.0.1", &ports[0].to_string()]).await.text(), "OK");
    let url = format!("valkey://127.0.0.1:{},127.0.0.1:{}", ports[0], ports[1]);
    let node = Node::start_with(1, |options, _| {
        options.target = Target::parse(&url).expect("the URL is right");
    })
    .await;
    node.is_ready_within(SOON).await;
    let mut ids = Vec::new();
    for payload in ["1", "2", "3"] {
        ids.push(publish(&node, payload).await);
    }
    assert_eq!(node.publish("whole", "1", None).await.status, 201);
    let has_all = async || {
        let copied = async |key| second.command(&["EXISTS", key]).await.integer() == 1;
        copied("stream:topic:whole").await && second.command(&["XLEN", KEY]).await.integer() == 3
    };
    eventually(SOON, has_all).await;

    // From here on the second has nothing of what the first confirms. Another node reads there.
    assert_eq!(second.command(&["REPLICAOF", "NO", "ONE"]).await.text(), "OK");
    let other = Node::start(second.port()).await;
    let mut there = Readers::attach(&other.relay, TOPIC, &ids[1]).await;
    let mut here = Readers::attach(&node.relay, TOPIC, &ids[1]).await;
    for (door, told) in there.next(1, "before").await {
        assert_eq!(told, ["3"], "{door}");
    }
    for payload in ["4", "5"] {
        ids.push(publish(&node, payload).await);
    }
    for (door, told) in here.next(3, "of the first").await {
        assert_eq!(told, ["3", "4", "5"], "{door}");
    }
    first.kill9();
    for (door, told) in there.next(1, "lost").await {
        assert_eq!(told, ["gap reset"], "{door}");
    }
    assert_eq!(holes(&second, KEY).await, [format!("{}:{}", ids[2], ids[4])]);
    let of_end = publish_again(&node, END).await;
    assert!(of_end > ids[4], "{of_end} is behind {}", ids[4]);
    for (door, told) in there.next(1, "behind it").await {
        assert_eq!(told, [END], "{door}");
    }
    for (door, told) in here.next(2, "of the second").await {
        assert_eq!(told, ["gap reset", END], "{door}");
    }
    assert_eq!((there.have_more(), here.have_more()), (None, None));

    for door in BARE {
        for relay in [&node.relay, &other.relay] {
            let of = async |cursor: &str| bare(relay, door, (TOPIC, cursor), END).await;
            // What is left in front of the hole comes first, and the next page begins there. A poll reads on, and tells
            // gaps beside its messages.
            let all: &[&str] = match door {
                "page" | "wait" => &["2", "3"],
                "poll" => &["gap reset", "2", "3", END],
                _ => &["2", "3", "gap reset", END],
            };
            assert_eq!(of(&ids[0]).await, all, "{door}");
            assert_eq!(of(&ids[2]).await, ["gap reset", END], "{door}");
            // Who has got a part of what is lost goes on behind it, and who has got all has missed nothing.
            assert_eq!(of(&ids[3]).await, ["gap reset", END], "{door}");
            assert_eq!(of(&ids[4]).await, [END], "{door}");
        }
    }
    let all = bare(&other.relay, "events", (TOPIC, "earliest"), END).await;
    assert_eq!(all, ["1", "2", "3", "gap reset", END]);
    assert_eq!(holes(&second, "stream:topic:whole").await, <[String; 0]>::default(), "nothing of it is lost");
    node.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn what_a_new_primary_of_valkey_has_not_got_is_told() {
    what_a_new_primary_has_not_got_is_told(Kind::Valkey).await;
}

#[tokio::test]
async fn what_a_new_primary_of_redis_has_not_got_is_told() {
    what_a_new_primary_has_not_got_is_told(Kind::Redis).await;
}

/// A server that has no room for a mark when it takes over is asked again.
async fn a_server_that_was_full_is_asked_again(kind: Kind) {
    let fast = ["--repl-diskless-sync-delay", "0"];
    let (Some(mut first), Some(second)) =
        (Server::start(kind, &fast).await, Server::start(kind, &fast).await)
    else {
        return;
    };
    assert_eq!(second.command(&["REPLICAOF", "127.0.0.1", &first.port().to_string()]).await.text(), "OK");
    let url = format!("valkey://127.0.0.1:{},127.0.0.1:{}", first.port(), second.port());
    let node = Node::start_with(1, |options, _| {
        options.target = Target::parse(&url).expect("the URL is right");
    })
    .await;
    node.is_ready_within(SOON).await;
    let left = publish(&node, "1").await;
    eventually(SOON, async || second.command(&["EXISTS", KEY]).await.integer() == 1).await;
    assert_eq!(second.command(&["REPLICAOF", "NO", "ONE"]).await.text(), "OK");
    let lost = publish(&node, "\"lost\"").await;
    assert_eq!(second.command(&["CONFIG", "SET", "maxmemory", "1"]).await.text(), "OK");
    first.kill9();
    eventually(SOON, async || node.publish(TOPIC, "2", None).await.status == 507).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(holes(&second, KEY).await, <[String; 0]>::default(), "it has no room");
    assert_eq!(second.command(&["CONFIG", "SET", "maxmemory", "0"]).await.text(), "OK");
    let expected = [format!("{left}:{lost}")];
    eventually(SOON, async || holes(&second, KEY).await == expected).await;
    node.stop().await;
}

#[tokio::test]
async fn a_valkey_that_was_full_is_asked_again() {
    a_server_that_was_full_is_asked_again(Kind::Valkey).await;
}

#[tokio::test]
async fn a_redis_that_was_full_is_asked_again() {
    a_server_that_was_full_is_asked_again(Kind::Redis).await;
}

/// A server that comes back from an older copy of its own, again and again.
async fn each_time_that_a_server_comes_back_with_less_is_told(kind: Kind) {
    let Some(mut server) = Server::start(kind, &[]).await else { return };
    let node = Node::start(server.port()).await;
    let mut left = Vec::new();
    for round in 0..HOLES_MAX + 2 {
        left.push(publish_again(&node, &round.to_string()).await);
        assert_eq!(server.command(&["SAVE"]).await.text(), "OK");
        let lost = publish(&node, "\"lost\"").await;
        server.kill9();
        server.restart().await;
        let hole = format!("{}:{lost}", left[round]);
        eventually(SOON, async || holes(&server, KEY).await.contains(&hole)).await;
        assert_eq!(holes(&server, KEY).await.len(), HOLES_MAX.min(round + 1));
    }
    publish_again(&node, END).await;
    node.is_ready_within(SOON).await;
    let expected: Vec<String> = (2..HOLES_MAX + 2)
        .flat_map(|round| [round.to_string(), "gap reset".to_owned()])
        .chain([END.to_owned()])
        .collect();
    let told = bare(&node.relay, "events", (TOPIC, &left[1]), END).await;
    // The two oldest marks are gone: a stream keeps eight.
    assert_eq!(told, expected);

    // Nothing is lost where the server has all that it had.
    let before = holes(&server, KEY).await;
    assert_eq!(server.command(&["SAVE"]).await.text(), "OK");
    server.kill9();
    server.restart().await;
    node.is_ready_within(SOON).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(holes(&server, KEY).await, before);
    node.stop().await;
}

#[tokio::test]
async fn each_time_that_valkey_comes_back_with_less_is_told() {
    each_time_that_a_server_comes_back_with_less_is_told(Kind::Valkey).await;
}

#[tokio::test]
async fn each_time_that_redis_comes_back_with_less_is_told() {
    each_time_that_a_server_comes_back_with_less_is_told(Kind::Redis).await;
}
