//! R30: two nodes on one Valkey are stopped and started again in turn, under load. Readers and publishers
//! go to the other node meanwhile, and lose and repeat nothing. With it R29: every node that is told to
//! stop ends well and in time, and tells its readers where to go on.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value;
use tidemill::proto::MessageId;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep, timeout};

use crate::support::eventually;
use crate::support::length;
use crate::support::process::Relay;
use crate::support::raw::Stream;
use crate::support::relay::{STUCK, try_send};
use crate::support::server::{Kind, Server};
use crate::support::ws::{Got, WsClient};

const DRAIN: Duration = Duration::from_secs(2);
const PATH: &str = "/api/v1/topics/rolling/messages";

/// A moment, before one who was cut off or refused tries again.
const REST: Duration = Duration::from_millis(20);

async fn start(valkey: u16, listen: &str) -> Relay {
    let url = format!("redis://127.0.0.1:{valkey}");
    let drain = format!("--drain-ms={}", DRAIN.as_millis());
    Relay::ready_at(listen, &[("STORAGE_BACKEND", "valkey"), ("VALKEY_URL", &url)], &[&drain]).await
}

/// What a reader knows, and shows.
#[derive(Debug)]
struct Place {
    next: u64,
    last: Option<MessageId>,
    /// Where a goodbye told it to go on, as long as it read nothing: the place that `earliest` stood for.
    told: Option<String>,
    /// Goodbyes that it was told.
    ends: u64,
}

impl Place {
    fn cursor(&self) -> String {
        match self.last {
            Some(id) => id.to_string(),
            None => self.told.clone().unwrap_or_else(|| "earliest".to_owned()),
        }
    }

    /// Takes a message; returns whether it was the last one.
    fn take(&mut self, id: MessageId, payload: &str) -> bool {
        if payload == "\"end\"" {
            return true;
        }
        assert_eq!(payload, self.next.to_string(), "behind {:?}", self.last);
        assert!(Some(id) > self.last);
        (self.next, self.last) = (self.next + 1, Some(id));
        false
    }
}

/// Reads until the node is gone, or to the end.
async fn on_a_socket(node: SocketAddr, place: &mut Place) -> bool {
    let Ok(mut client) = WsClient::try_connect(node).await else { return false };
    if !client.try_subscribe("rolling", &place.cursor()).await {
        return false;
    }
    loop {
        match client.got().await {
            Got::Message(id, payload) => {
                if place.take(id, std::str::from_utf8(&payload).expect("JSON")) {
                    return true;
                }
            }
            Got::End => place.ends += 1,
            Got::Close(code) => {
                assert_eq!(code, 1012);
                return false;
            }
            Got::Lost => return false,
            Got::Gap(reason) => panic!("a gap: {reason}"),
        }
    }
}

/// Reads until the node is gone, or to the end.
async fn by_lines(node: SocketAddr, place: &mut Place) -> bool {
    let path = format!("{PATH}?after={}", place.cursor());
    let Ok(connection) = crate::support::raw::RawConnection::connect(node).await else { return false };
    let Ok(mut stream) = Stream::open_on(connection, &path, "application/x-ndjson", "").await else {
        return false;
    };
    while let Ok(line) = stream.until(b"\n").await {
        let line: Value = serde_json::from_slice(&line).expect("a line of JSON");
        match line["type"].as_str() {
            Some("message") => {
                let id = line["message_id"].as_str().and_then(|id| id.parse().ok()).expect("an id");
                if place.take(id, &line["payload"].to_string()) {
                    return true;
                }
            }
            Some("end") => {
                let cursor = line["cursors"]["rolling"].as_str().map(str::to_owned);
                assert!(cursor.is_some(), "{line}");
                if place.last.is_some() {
                    assert_eq!(cursor, place.last.map(|id| id.to_string()), "{line}");
                }
                place.told = cursor;
                place.ends += 1;
                return false;
            }
            Some("subscribed" | "ping") => {}
            _ => panic!("{line}"),
        }
    }
    false
}

/// Publishes a payload under a key until a node says that it has it.
async fn publish(nodes: [SocketAddr; 2], number: u64, payload: &str) {
    let key = format!("rolling-{number}");
    let headers = [("content-type", "application/json"), ("idempotency-key", key.as_str())];
    for node in nodes.into_iter().cycle().skip(usize::from(number % 2 == 1)) {
        let answer = try_send(node, "POST", PATH, &headers, payload.as_bytes()).await;
        match answer.as_ref().map_or(0, |answer| answer.status) {
            200 | 201 => return,
            0 | 503 | 504 => sleep(REST).await,
            _ => panic!("{answer:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_restarted_in_turn_lose_and_repeat_nothing() {
    let Some(server) = Server::start(Kind::Valkey, &[]).await else { return };
    let mut relays = Vec::new();
    for _ in 0..2 {
        relays.push(start(server.port(), "127.0.0.1:0").await);
    }
    let nodes = [relays[0].address(), relays[1].address()];
    publish(nodes, 0, "0").await;
    let (published, stop) = (Arc::new(AtomicU64::new(1)), Arc::new(AtomicBool::new(false)));
    let mut publishing = JoinSet::new();
    {
        let (published, stop) = (published.clone(), stop.clone());
        publishing.spawn(async move {
            while !stop.load(Ordering::SeqCst) {
                let number = published.load(Ordering::SeqCst);
                publish(nodes, number, &number.to_string()).await;
                published.store(number + 1, Ordering::SeqCst);
            }
            publish(nodes, u64::MAX, "\"end\"").await;
        });
    }
    let mut readers = JoinSet::new();
    for number in 0..8_usize {
        readers.spawn(async move {
            let mut place = Place { next: 0, last: None, told: None, ends: 0 };
            for node in nodes.into_iter().cycle().skip(number / 2 % 2) {
                let ended = match number % 2 {
                    0 => on_a_socket(node, &mut place).await,
                    _ => by_lines(node, &mut place).await,
                };
                if ended {
                    break;
                }
                sleep(REST).await;
            }
            place
        });
    }
    let rounds = length::pick(3, 30);
    for round in 0..rounds {
        for at in 0..2 {
            let before = published.load(Ordering::SeqCst);
            eventually(STUCK, async || published.load(Ordering::SeqCst) >= before + 50).await;
            let relay = relays.remove(0);
            let listen = relay.address().to_string();
            let began = Instant::now();
            let (code, log) = spawn_blocking(move || relay.stop()).await.unwrap();
            let took = began.elapsed();
            assert_eq!(code, Some(0), "{log}");
            assert!(took < DRAIN + Duration::from_secs(2), "round {round}, node {at}: {took:?}");
            relays.push(start(server.port(), &listen).await);
        }
    }
    stop.store(true, Ordering::SeqCst);
    timeout(STUCK, publishing.join_all()).await.expect("publishing ends");
    let total = published.load(Ordering::SeqCst);
    let places = timeout(STUCK, readers.join_all()).await.expect("all come to the end");
    assert!(places.iter().all(|place| place.next == total), "{total} were published: {places:?}");
    let ends: u64 = places.iter().map(|place| place.ends).sum();
    length::tell(format_args!("{total} messages, {ends} goodbyes to 8 readers in {rounds} rolling restarts"));
    assert!(ends >= 8, "they are told where to go on: {places:?}");
    spawn_blocking(move || drop(relays)).await.unwrap();
}
