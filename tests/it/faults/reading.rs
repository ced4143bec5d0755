//! Faults that readers must not notice, or must be told of: a dead link, a key that somebody deleted,
//! trims that are only about right; and what reading may cost those who publish.

use std::time::Duration;

use serde_json::{Value, json};
use tidemill::proto::page::Order;
use tidemill::storage::{Storage, TopicPolicy, Trim};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::Node;
use crate::support::eventually;
use crate::support::ground::{Ground, append_numbers_under, ids, length, read_all, topic};
use crate::support::proxy::Proxy;
use crate::support::raw::Stream;
use crate::support::relay::{STUCK, TestRelay, try_send};
use crate::support::server::{Kind, Server};
use crate::support::ws::{Got, WsClient};

/// A reader of one topic on each transport, from now on.
struct Readers {
    topic: &'static str,
    socket: WsClient,
    binary: WsClient,
    events: Stream,
    lines: Stream,
    poll: JoinSet<Value>,
}

impl Readers {
    async fn attach(relay: &TestRelay, topic: &'static str) -> Self {
        let mut socket = WsClient::connect(relay.address).await;
        socket.subscribe(topic, "latest").await;
        let mut binary = WsClient::connect_binary(relay.address).await;
        binary.subscribe(topic, "latest").await;
        let path = format!("/api/v1/topics/{topic}/messages");
        let events = Stream::open(relay.address, &path, "text/event-stream", "").await.unwrap();
        let lines = Stream::open(relay.address, &path, "application/x-ndjson", "").await.unwrap();
        let mut poll = JoinSet::new();
        let address = relay.address;
        poll.spawn(async move {
            let body = json!({"topics": [topic], "timeout": 60}).to_string();
            let headers = [("content-type", "application/json")];
            let answer = try_send(address, "POST", "/messages/poll", &headers, body.as_bytes()).await;
            answer.expect("an answer").json()
        });
        eventually(STUCK, async || relay.get("/messages/poll/stats").await.json()["active_waiters"] == 1)
            .await;
        Self { topic, socket, binary, events, lines, poll }
    }

    /// Reads the next message on every transport, and returns the reason of the gap that each of them has
    /// told before it, if any.
    async fn next(mut self, payload: &str) -> Vec<(&'static str, Option<String>)> {
        let mut told = Vec::new();
        for (name, socket) in [("json", &mut self.socket), ("binary", &mut self.binary)] {
            let mut gap = None;
            loop {
                match socket.got().await {
                    Got::Gap(reason) => gap = Some(reason),
                    Got::Message(_, got) => break assert_eq!(got, payload.as_bytes(), "{name}"),
                    other => panic!("{name}: {other:?}"),
                }
            }
            told.push((name, gap));
        }
        for (name, stream, end) in
            [("events", &mut self.events, &b"\n\n"[..]), ("lines", &mut self.lines, b"\n")]
        {
            let mut gap = None;
            loop {
                let text = String::from_utf8(stream.until(end).await.unwrap()).unwrap();
                let text = text.split_once("data: ").map_or(text.as_str(), |(_, data)| data);
                let Ok(frame) = serde_json::from_str::<Value>(text) else { continue };
                match frame["reason"].as_str() {
                    Some(reason) => gap = Some(reason.to_owned()),
                    None if frame["payload"].is_null() => {}
                    None => break assert_eq!(frame["payload"].to_string(), payload, "{name}"),
                }
            }
            told.push((name, gap));
        }
        let polled = self.poll.join_next().await.unwrap().unwrap();
        assert_eq!(polled["messages"][0]["payload"].to_string(), payload, "{polled}");
        assert_eq!(polled["messages"][0]["topic"], self.topic);
        told.push(("poll", polled["gaps"][0]["reason"].as_str().map(str::to_owned)));
        told
    }
}

/// R12, for readers: nobody asks the link for anything, and it has died.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_behind_a_link_that_died_get_what_comes() {
    /// The connections are replaced in ten seconds, and the topics looked at in two more.
    const WITHIN: Duration = Duration::from_secs(12);

    let Some(server) = Server::start(Kind::Valkey, &[]).await else { return };
    let proxy = Proxy::start(server.port()).await;
    let (behind, direct) = (Node::start(proxy.port()).await, Node::start(server.port()).await);
    assert_eq!(direct.publish("dead-link", "0", None).await.status, 201);
    let readers = Readers::attach(&behind.relay, "dead-link").await;
    proxy.abandon();
    assert_eq!(direct.publish("dead-link", "1", None).await.status, 201);
    let began = Instant::now();
    let told = timeout(WITHIN, readers.next("1")).await.expect("readers go on");
    eprintln!("readers went on {:?} after the link died", began.elapsed());
    assert!(told.iter().all(|(_, gap)| gap.is_none()), "nothing was missed: {told:?}");
    behind.stop().await;
    direct.stop().await;
}

/// R26: somebody else deletes the key, as an eviction does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_whose_key_was_deleted_under_its_readers_is_told_and_followed() {
    let Some(server) = Server::start(Kind::Valkey, &[]).await else { return };
    let node = Node::start(server.port()).await;
    let mut ids = Vec::new();
    for number in 0..5 {
        let answer = node.publish("evicted", &number.to_string(), None).await;
        assert_eq!(answer.status, 201);
        ids.push(answer.json()["message_id"].as_str().expect("an id").to_owned());
    }
    let readers = Readers::attach(&node.relay, "evicted").await;
    assert_eq!(server.command(&["DEL", "stream:topic:evicted"]).await.integer(), 1);
    assert_eq!(node.publish("evicted", "5", None).await.status, 201);
    let told = timeout(STUCK, readers.next("5")).await.expect("readers are not stuck");
    // Nothing was missed between their cursor and the next message, so where the new key is there before
    // the relay has looked, nothing need be told.
    for (name, gap) in told {
        assert!(matches!(gap.as_deref(), None | Some("deleted" | "reset")), "{name}: {gap:?}");
    }
    // Who had not seen all of it is told on every transport.
    for form in ["order=asc", "wait=5"] {
        let path = format!("/api/v1/topics/evicted/messages?{form}&after={}", ids[2]);
        let page = node.relay.get(&path).await.json();
        assert!(page["gap"]["reason"].is_string(), "{page}");
        assert_eq!(page["messages"][0]["payload"], 5, "{page}");
    }
    for protocol in [None, Some("tidemill.bincode.v1")] {
        let headers: Vec<_> = protocol.map(|name| ("sec-websocket-protocol", name)).into_iter().collect();
        let mut socket = WsClient::connect_with(node.relay.address, &headers).await.unwrap();
        socket.subscribe("evicted", &ids[2]).await;
        let gap = socket.got().await;
        assert!(matches!(gap, Got::Gap(_)), "{gap:?}");
        let message = socket.got().await;
        assert!(matches!(&message, Got::Message(_, payload) if payload == b"5"), "{message:?}");
    }
    for (accept, end) in [("text/event-stream", &b"\n\n"[..]), ("application/x-ndjson", b"\n")] {
        let path = format!("/api/v1/topics/evicted/messages?after={}", ids[2]);
        let mut stream = Stream::open(node.relay.address, &path, accept, "").await.unwrap();
        let mut told = false;
        loop {
            let frame = String::from_utf8(stream.until(end).await.unwrap()).unwrap();
            told |= frame.contains(r#""reason":""#);
            if frame.contains(r#""payload":"#) {
                break assert!(told && frame.contains(r#""payload":5"#), "{frame}");
            }
        }
    }
    node.stop().await;
}

/// R13: readers that wait hold nothing of the server, and readers of much have connections of their own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publishes_do_not_wait_for_those_who_read() {
    const WAITING: usize = 200;
    const READING: usize = 4;
    const TIMED: usize = 100;
    /// Far below what a blocking read, or a queue behind pages, would cost.
    const SLOWEST: Duration = Duration::from_secs(2);

    let Some(server) = Server::start(Kind::Valkey, &[]).await else { return };
    let node = Node::start(server.port()).await;
    let address = node.relay.address;
    let time = async || {
        let mut times = Vec::with_capacity(TIMED);
        for number in 0..TIMED {
            let began = Instant::now();
            assert_eq!(node.publish("timed", &number.to_string(), None).await.status, 201);
            times.push(began.elapsed());
        }
        times.sort_unstable();
        (times[TIMED / 2], times[TIMED * 99 / 100])
    };
    let alone = time().await;
    let large = format!("\"{}\"", "x".repeat(100_000));
    for _ in 0..50 {
        assert_eq!(node.publish("large", &large, None).await.status, 201);
    }
    let mut waiting = JoinSet::new();
    for number in 0..WAITING {
        let name = format!("waited-for-{number}");
        assert_eq!(node.publish(&name, "0", None).await.status, 201);
        waiting.spawn(async move {
            let path = format!("/api/v1/topics/{name}/messages?wait=60");
            try_send(address, "GET", &path, &[], b"").await.expect("an answer").status
        });
    }
    eventually(STUCK, async || {
        node.relay.get("/messages/poll/stats").await.json()["active_waiters"] == WAITING
    })
    .await;
    let (stop, mut reading) = (CancellationToken::new(), JoinSet::new());
    for _ in 0..READING {
        let stop = stop.clone();
        reading.spawn(async move {
            let mut pages = 0;
            while !stop.is_cancelled() {
                let path = "/api/v1/topics/large/messages?limit=10&after=earliest";
                assert_eq!(try_send(address, "GET", path, &[], b"").await.expect("a page").status, 200);
                pages += 1;
            }
            pages
        });
    }
    let beside = time().await;
    // Nobody holds a connection of the server in a blocking command, and publishing has one of its own.
    let clients = server.command(&["INFO", "clients"]).await.text();
    assert!(clients.contains("\r\nblocked_clients:0\r\n"), "{clients}");
    let commands = server.command(&["CLIENT", "LIST"]).await.text();
    let publishing: Vec<_> =
        commands.lines().filter(|line| line.contains(" name=tidemill-publish ")).collect();
    assert_eq!(publishing.len(), 1, "{commands}");
    stop.cancel();
    let pages: usize = reading.join_all().await.into_iter().sum();
    eprintln!("publishing (median, 99th of 100): {alone:?} alone, {beside:?} beside {pages} pages");
    assert!(pages > 0);
    assert!(beside.1 < SLOWEST, "{beside:?} beside readers, {alone:?} alone");
    for number in 0..WAITING {
        assert_eq!(node.publish(&format!("waited-for-{number}"), "1", None).await.status, 201);
    }
    assert!(waiting.join_all().await.iter().all(|status| *status == 200));
    node.stop().await;
}

/// R23: the bound on a topic's length is kept about right as messages come, and trims on request are exact.
async fn a_bound_on_length_keeps_what_it_promises_and_a_node_more_at_most(storage: &Storage, keeps: u64) {
    /// With the shipped `valkey.conf`, as with the server's own defaults.
    const NODE_MESSAGES: u64 = 100;

    let topic = topic("bounded");
    let mut appended = Vec::new();
    for batch in [50, 1, 49, 1, 99, 300, 1_000, 7] {
        appended.extend(append_numbers_under(TopicPolicy::newest(keeps), storage, &topic, batch).await);
        let kept = ids(&read_all(storage, &topic, Order::Asc, 1_000).await);
        let (all, promised) = (appended.len(), usize::try_from(keeps).unwrap().min(appended.len()));
        assert!(kept.len() >= promised, "{} of {all}", kept.len());
        assert!(kept.len() as u64 <= keeps + NODE_MESSAGES, "{} of {all}", kept.len());
        assert_eq!(kept, appended[all - kept.len()..], "the newest ones");
        assert_eq!(length(storage, &topic).await, kept.len() as u64);
    }
    storage.messages.trim(&topic, Trim::Keep(keeps)).await.unwrap();
    assert_eq!(length(storage, &topic).await, keeps, "on request it is exact");
}

#[tokio::test]
async fn in_memory_a_bound_on_length_keeps_what_it_promises() {
    let ground = Ground::memory().await.expect("memory is always there");
    a_bound_on_length_keeps_what_it_promises_and_a_node_more_at_most(&ground.storage, 10).await;
}

#[tokio::test]
async fn in_valkey_a_bound_on_length_keeps_what_it_promises() {
    let Some(ground) = Ground::on(Kind::Valkey).await else { return };
    a_bound_on_length_keeps_what_it_promises_and_a_node_more_at_most(&ground.storage, 10).await;
}
