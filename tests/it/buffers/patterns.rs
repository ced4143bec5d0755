//! Readers of a pattern: what each of them costs does not depend on how many topics the pattern covers.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{MIB, connect, most_resident_since, publish, start};
use crate::support::process::Relay;
use crate::support::relay::STUCK;

const READERS: u64 = 1_000;
const TOPICS: usize = 1_000;
/// What a reader may cost.
const READER_BYTES: u64 = 16 * 1024;

async fn begin(relay: &Relay, after: &str) -> TcpStream {
    let mut stream = connect(relay).await;
    let head = format!(
        "GET /api/v1/stream?topics=many.*&after={after} HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.expect("the relay reads");
    let mut status = [0; 12];
    timeout(STUCK, stream.read_exact(&mut status)).await.expect("in time").expect("an answer");
    assert_eq!(&status, b"HTTP/1.1 200");
    stream
}

/// Takes what comes, as those do whose cost is looked at: what others cost is bounded elsewhere.
async fn read(mut stream: TcpStream) {
    let mut taken = vec![0; 4 * 1024];
    while stream.read(&mut taken).await.is_ok_and(|count| count > 0) {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_readers_of_a_thousand_topics_cost_little_each() {
    let relay = start(&[]).await;
    for number in 0..TOPICS {
        publish(&relay, &format!("many.{number}"), "first", 10).await;
    }
    // The first brings the feeds with it.
    let mut readers = JoinSet::new();
    readers.spawn(read(begin(&relay, "latest").await));
    let before = relay.resident_bytes();
    for _ in 0..READERS {
        readers.spawn(read(begin(&relay, "latest").await));
    }
    for number in 0..TOPICS {
        publish(&relay, &format!("many.{number}"), "second", 10).await;
    }
    let cost = most_resident_since(&relay, before).await;
    eprintln!("{READERS} readers of {TOPICS} topics: {} KiB each", cost / READERS / 1024);
    assert!(cost <= READERS * READER_BYTES, "{} MiB", cost / MIB);
}
