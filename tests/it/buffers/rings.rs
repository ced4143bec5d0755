//! The newest messages of very many topics that are read live: they are bounded for all topics together, and
//! readers get every message all the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::{MIB, connect, most_resident_since, publish, start};
use crate::support::eventually;
use crate::support::process::Relay;
use crate::support::relay::{STUCK, try_send};

/// Connections, and topics that each of them reads.
const CONNECTIONS: usize = 6;
const TOPICS: usize = 50;
/// Messages of each topic, and their payload: about what a topic alone may keep.
const MESSAGES: usize = 11;
const PAYLOAD_BYTES: usize = 100_000;
/// What the relay may keep of all that.
const LIVE_BYTES: &str = "16MiB";
/// What it may cost, with what is on its way and what the allocator keeps.
const BOUND: u64 = 64 * MIB;
/// How each message begins.
const MARK: &[u8] = b"#mark#";

/// Reads a stream to its end, and counts the messages.
async fn count(mut stream: TcpStream, counted: Arc<AtomicUsize>) {
    let mut unread = Vec::new();
    while stream.read_buf(&mut unread).await.is_ok_and(|read| read > 0) {
        counted.fetch_add(memchr::memmem::find_iter(&unread, MARK).count(), Ordering::Relaxed);
        // A mark may have come in part; a whole one is counted.
        let rest = unread.len().saturating_sub(MARK.len() - 1);
        unread.drain(..rest);
    }
}

/// Returns a figure of `/metrics`.
async fn figure(relay: &Relay, name: &str) -> u64 {
    let answer = try_send(relay.address(), "GET", "/metrics", &[], b"").await.expect("the relay answers");
    let text = String::from_utf8(answer.body).expect("text");
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).expect("a figure");
    line.parse().expect("a number")
}

async fn many_topics(variables: &[(&str, &str)], is_complete: bool) {
    let relay = start(&[&[("TIDEMILL_LIVE_BYTES_MAX", LIVE_BYTES)], variables].concat()).await;
    let counted = Arc::<AtomicUsize>::default();
    let mut readers = JoinSet::new();
    for connection in 0..CONNECTIONS {
        let topics: Vec<_> = (0..TOPICS).map(|topic| format!("t{}", connection * TOPICS + topic)).collect();
        let mut stream = connect(&relay).await;
        let head =
            format!("GET /api/v1/stream?topics={} HTTP/1.1\r\nhost: localhost\r\n\r\n", topics.join(","));
        stream.write_all(head.as_bytes()).await.expect("the relay reads");
        readers.spawn(count(stream, counted.clone()));
    }
    let topics = CONNECTIONS * TOPICS;
    eventually(STUCK, async || figure(&relay, "tidemill_live_topics").await == topics as u64).await;
    let before = relay.resident_bytes();
    let mut most = 0;
    for topic in 0..topics {
        for _ in 0..MESSAGES {
            publish(&relay, &format!("t{topic}"), "#mark#", PAYLOAD_BYTES).await;
        }
        most = most.max(relay.resident_bytes().saturating_sub(before));
    }
    assert!(figure(&relay, "tidemill_live_bytes").await <= 16 * MIB);
    let cost = most.max(most_resident_since(&relay, before).await);
    eprintln!("{topics} topics: {} MiB", cost / MIB);
    assert!(cost <= BOUND, "{} MiB", cost / MIB);
    if is_complete {
        eventually(STUCK, async || counted.load(Ordering::Relaxed) == topics * MESSAGES).await;
    }
    readers.shutdown().await;
}

/// Memory keeps little, so that it is the rings that are seen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_topics_in_memory() {
    many_topics(&[("TIDEMILL_MEMORY_BYTES_MAX", "16MiB")], false).await;
}

#[cfg(feature = "valkey")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_topics_that_a_server_keeps() {
    use crate::support::server::{Kind, Server};

    let Some(server) = Server::start(Kind::Valkey, &[]).await else { return };
    let url = format!("redis://127.0.0.1:{}", server.port());
    many_topics(&[("STORAGE_BACKEND", "valkey"), ("VALKEY_URL", &url)], true).await;
}
