//! Publishers and readers that go to the other of two nodes when theirs is gone, or refuses, and count: the payloads of a
//! topic are the numbers from 0, and then an end.
//!
//! It must not know what becomes of the nodes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value;
use tidemill::proto::MessageId;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::eventually;
use super::raw::{RawConnection, Stream};
use super::relay::{STUCK, try_send};
use super::ws::{Got, WsClient};

/// A moment, before one who was cut off or refused tries again.
const REST: Duration = Duration::from_millis(20);

fn path_of(topic: &str) -> String {
    format!("/api/v1/topics/{topic}/messages")
}

/// What a reader knows, and shows.
#[derive(Debug)]
pub(crate) struct Place {
    /// The next number.
    pub(crate) next: u64,
    last: Option<MessageId>,
    /// Where a goodbye told it to go on, as long as it read nothing: the place that `earliest` stood for.
    told: Option<String>,
    /// Goodbyes that it was told.
    pub(crate) ends: u64,
}

/// Who publishes to a topic and eight who read it, from node to node.
pub(crate) struct Crowd {
    published: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    publishing: JoinSet<()>,
    readers: JoinSet<Place>,
}

impl Crowd {
    pub(crate) async fn start(nodes: [SocketAddr; 2], topic: &str) -> Self {
        publish(nodes, topic, 0, "0").await;
        let (published, stop) = (Arc::new(AtomicU64::new(1)), Arc::new(AtomicBool::new(false)));
        let mut publishing = JoinSet::new();
        publishing.spawn(publish_on(nodes, topic.to_owned(), published.clone(), stop.clone()));
        let mut readers = JoinSet::new();
        for number in 0..8_usize {
            readers.spawn(read_on(nodes, topic.to_owned(), number));
        }
        Self { published, stop, publishing, readers }
    }

    /// Waits until so many more messages were published.
    pub(crate) async fn publishes(&self, more: u64) {
        let before = self.published.load(Ordering::SeqCst);
        eventually(STUCK, async || self.published.load(Ordering::SeqCst) >= before + more).await;
    }

    /// Ends publishing; returns where each reader is, which is at the end, and how many messages there were.
    pub(crate) async fn end(self) -> (Vec<Place>, u64) {
        self.stop.store(true, Ordering::SeqCst);
        timeout(STUCK, self.publishing.join_all()).await.expect("publishing ends");
        let total = self.published.load(Ordering::SeqCst);
        let places = timeout(STUCK, self.readers.join_all()).await.expect("all come to the end");
        assert!(places.iter().all(|place| place.next == total), "{total} were published: {places:?}");
        (places, total)
    }
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
async fn on_a_socket(node: SocketAddr, topic: &str, place: &mut Place) -> bool {
    let Ok(mut client) = WsClient::try_connect(node).await else { return false };
    if !client.try_subscribe(topic, &place.cursor()).await {
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
async fn by_lines(node: SocketAddr, topic: &str, place: &mut Place) -> bool {
    let path = format!("{}?after={}", path_of(topic), place.cursor());
    let Ok(connection) = RawConnection::connect(node).await else { return false };
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
                let cursor = line["cursors"][topic].as_str().map(str::to_owned);
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
pub(crate) async fn publish(nodes: [SocketAddr; 2], topic: &str, number: u64, payload: &str) {
    let (path, key) = (path_of(topic), format!("{topic}-{number}"));
    let headers = [("content-type", "application/json"), ("idempotency-key", key.as_str())];
    for node in nodes.into_iter().cycle().skip(usize::from(number % 2 == 1)) {
        let answer = try_send(node, "POST", &path, &headers, payload.as_bytes()).await;
        match answer.as_ref().map_or(0, |answer| answer.status) {
            200 | 201 => return,
            0 | 503 | 504 => sleep(REST).await,
            _ => panic!("{answer:?}"),
        }
    }
}

/// Publishes the numbers behind those that were published, one after the other, until it is to stop, and then the end.
pub(crate) async fn publish_on(
    nodes: [SocketAddr; 2],
    topic: String,
    published: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
) {
    while !stop.load(Ordering::SeqCst) {
        let number = published.load(Ordering::SeqCst);
        publish(nodes, &topic, number, &number.to_string()).await;
        published.store(number + 1, Ordering::SeqCst);
    }
    publish(nodes, &topic, u64::MAX, "\"end\"").await;
}

/// Reads from the beginning to the end: of several readers each has its number, every other one is on a socket, and two
/// begin at each node.
///
/// # Panics
/// What comes is not the next.
pub(crate) async fn read_on(nodes: [SocketAddr; 2], topic: String, number: usize) -> Place {
    let mut place = Place { next: 0, last: None, told: None, ends: 0 };
    for node in nodes.into_iter().cycle().skip(number / 2 % 2) {
        let ended = match number % 2 {
            0 => on_a_socket(node, &topic, &mut place).await,
            _ => by_lines(node, &topic, &mut place).await,
        };
        if ended {
            break;
        }
        sleep(REST).await;
    }
    place
}
