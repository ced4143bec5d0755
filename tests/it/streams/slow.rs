//! Clients that read a stream slowly, or not at all: nobody else notices, and none is waited for.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;
use tokio::time::timeout;

use super::client::{Coming, number};
use super::on_both_backends;
use crate::support::eventually;
use crate::support::ground::{Ground, append_all, json, message, topic};
use crate::support::relay::{STUCK, TestRelay, memory};

const PATH: &str = "/api/v1/topics/slow/messages";

/// Far more than the buffers of both ends of a socket take.
const MESSAGES: usize = 300;
const PADDING: usize = 100_000;

async fn fill(storage: &tidemill::storage::Storage) {
    let padding = " ".repeat(PADDING);
    for batch in 0..MESSAGES / 50 {
        let bodies = (batch * 50..(batch + 1) * 50).map(|n| json(format!("{n}{padding}")));
        append_all(storage, bodies.map(|body| message(&topic("slow"), body)).collect()).await;
    }
}

async fn who_stops_reading_gets_everything_when_it_reads_again(ground: &Ground) {
    let relay = TestRelay::start_with(ground.storage.clone(), |options| {
        options.write_timeout = 3 * STUCK;
    })
    .await;
    relay.publish("slow", "null").await;
    let mut stopped = Coming::lines(relay.address, PATH).await.unwrap();
    let mut good = Coming::lines(relay.address, PATH).await.unwrap();
    let read_all = async |coming: &mut Coming| {
        for expected in 0..MESSAGES as u64 {
            let line = coming.line().await.unwrap().expect("it goes on");
            assert_eq!((number(&line), &line["type"]), (expected, &"message".into()));
        }
    };
    let reading = async { tokio::join!(read_all(&mut good), fill(&ground.storage)) };
    timeout(STUCK, reading).await.expect("others do not notice");
    // Ten thousand messages more go by: the ring is far ahead now.
    let small: Vec<_> = (0..2_000).map(|n| message(&topic("slow"), json(n.to_string()))).collect();
    append_all(&ground.storage, small).await;
    timeout(STUCK, read_all(&mut stopped)).await.expect("it gets everything");
    for expected in 0..2_000 {
        assert_eq!(number(&stopped.line().await.unwrap().expect("it goes on")), expected);
    }
    relay.stop().await;
}

/// Returns what this process holds in memory, in bytes.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages: usize = statm.split(' ').nth(1).and_then(|text| text.parse().ok()).expect("a number");
    pages * 4_096
}

#[tokio::test]
async fn many_who_stop_reading_hold_little() {
    const CLIENTS: usize = 40;
    let storage = memory();
    let relay = TestRelay::start(storage.clone()).await;
    relay.publish("slow", "null").await;
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(8 * 1024).expect("a small buffer");
        let mut client = socket.connect(relay.address).await.expect("the relay listens");
        let accept = ["text/event-stream", "application/x-ndjson"][number % 2];
        let request = format!("GET {PATH} HTTP/1.1\r\nhost: relay\r\naccept: {accept}\r\n\r\n");
        client.write_all(request.as_bytes()).await.expect("the relay reads");
        let mut head = [0; 12];
        client.read_exact(&mut head).await.expect("an answer");
        assert_eq!(&head, b"HTTP/1.1 200");
        clients.push(client);
    }
    let before = resident();
    fill(&storage).await;
    // Somebody else gets all of it meanwhile.
    let path = format!("{PATH}?after=earliest");
    let mut good = Coming::lines(relay.address, &path).await.unwrap();
    for _ in 0..=MESSAGES {
        good.line().await.unwrap().expect("it goes on");
    }
    let (stored, grown) = (MESSAGES * PADDING, resident().saturating_sub(before));
    // The messages themselves, their shared encodings, and what other tests need at the same time;
    // without a bound the clients would hold a gigabyte.
    let bound = stored * 4 + CLIENTS * 512 * 1024 + 128 * 1024 * 1024;
    assert!(grown < bound, "{} MiB for {} MiB", grown >> 20, stored >> 20);
    drop(clients);
    relay.stop().await;
}

#[tokio::test]
async fn who_reads_nothing_is_cut_off_in_time() {
    let storage = memory();
    let relay = TestRelay::start_with(storage.clone(), |options| {
        options.write_timeout = Duration::from_millis(300);
        options.http.ping_every = Duration::from_secs(1);
    })
    .await;
    fill(&storage).await;
    let path = format!("{PATH}?after=earliest");
    let _events = Coming::events(relay.address, &path, &[]).await.unwrap();
    let _lines = Coming::lines(relay.address, &path).await.unwrap();
    eventually(STUCK, || async {
        relay.get("/metrics").await.text().contains("\ntidemill_http_connections 1\n")
    })
    .await;
    relay.stop().await;
}

on_both_backends! { who_stops_reading_gets_everything_when_it_reads_again }
