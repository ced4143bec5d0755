//! Clients that begin to send and do not end, that have sent what is large, or do not take its answer.

use std::io::Write as _;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use tidemill::proto::frame::{ClientFrame, Subscribe, binary};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{MIB, connect, most_resident_since, publish, start, upgrade};
use crate::support::process::Relay;
use crate::support::relay::try_send;
use crate::support::ws::masked;

const CLIENTS: usize = 500;
const LARGE_BYTES: usize = 1024 * 1024;
/// Topics with long descriptions: a list of them is as large as a message.
const LISTED: usize = 250;
/// What bodies and unfinished messages may take: the least that there can be with the largest body.
const INFLIGHT: u64 = 32 * MIB;
/// What a connection costs besides, with what is free, about.
const CONNECTION_BYTES: u64 = 64 * 1024;

/// Returns the frame that subscribes to the topic `t`.
pub(super) fn subscribe_binary(cursor: &str) -> Vec<u8> {
    let frame = Subscribe {
        topics: vec!["t".into()],
        cursors: vec![("t".into(), cursor.into())],
        ..Subscribe::default()
    };
    let mut out = Vec::new();
    binary::write_client(&ClientFrame::Subscribe(frame), &mut out);
    out
}

/// What a client does and leaves at that.
#[derive(Clone, Copy, Debug)]
enum Begun {
    /// A part of a WebSocket frame.
    Frame,
    /// Fragments of a WebSocket message.
    Fragments,
    /// A part of a request's body.
    Body,
    /// A part of a request's head.
    Head,
    /// A page that is not read.
    Page,
    /// A message by itself that is not read.
    One,
    /// A list of topics with long descriptions that is not read.
    List,
    /// Lines that are all refused, each with a reason that is not read.
    Lines,
    /// A message published over a WebSocket that is whole; the connection stays.
    Published,
}

impl Begun {
    /// Begins; there is a message of this id.
    async fn begin(self, relay: &Relay, id: &str) -> TcpStream {
        let mut stream = connect(relay).await;
        let bytes = match self {
            Self::Frame => {
                upgrade(&mut stream, "").await;
                masked(0x81, &vec![b' '; LARGE_BYTES])[..LARGE_BYTES].to_vec()
            }
            Self::Fragments => {
                upgrade(&mut stream, "").await;
                let piece = masked(0x00, &vec![b' '; 64 * 1024]);
                [masked(0x01, b" "), piece.repeat(15)].concat()
            }
            Self::Published => {
                upgrade(&mut stream, "").await;
                let payload = "x".repeat(LARGE_BYTES - 100);
                let frame = format!(r#"{{"type":"publish","topic":"large","payload":"{payload}"}}"#);
                masked(0x81, frame.as_bytes())
            }
            Self::Body => {
                let length = LARGE_BYTES + 1;
                let head = format!(
                    "POST /api/v1/topics/t/messages HTTP/1.1\r\nhost: localhost\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\n\r\n"
                );
                [head.as_bytes(), &vec![b' '; LARGE_BYTES]].concat()
            }
            Self::Head => {
                let head = "GET / HTTP/1.1\r\nhost: localhost\r\n".to_owned();
                let header = format!("x-padding: {}\r\n", "x".repeat(4_000));
                [head, header.repeat(20)].concat().into_bytes()
            }
            Self::One => {
                format!("GET /api/v1/topics/t/messages/{id} HTTP/1.1\r\nhost: localhost\r\n\r\n").into_bytes()
            }
            Self::List => b"GET /api/v1/topics?limit=1000 HTTP/1.1\r\nhost: localhost\r\n\r\n".to_vec(),
            Self::Lines => {
                let lines = "x\n".repeat(8_000);
                let length = lines.len();
                let head = format!(
                    "POST /api/v1/topics/refused/messages HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-ndjson\r\ncontent-length: {length}\r\n\r\n"
                );
                [head, lines].concat().into_bytes()
            }
            Self::Page => {
                b"GET /api/v1/topics/t/messages?limit=1000&order=asc HTTP/1.1\r\nhost: localhost\r\n\r\n"
                    .to_vec()
            }
        };
        // One that the relay refuses is told so, and takes no more.
        let _ = timeout(Duration::from_millis(500), stream.write_all(&bytes)).await;
        stream
    }
}

async fn cost(all: &[Begun]) {
    cost_with(&[], 0, all).await;
}

/// What is read of a server is the relay's own before it is counted: 16 MiB over each of two connections, as the
/// server sends it, as messages, and as the answer.
#[cfg(feature = "valkey")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_a_server_that_are_not_read() {
    use crate::support::server::{Kind, Server};

    let Some(server) = Server::start(Kind::Valkey, &[]).await else { return };
    let url = format!("redis://127.0.0.1:{}", server.port());
    let variables = [("STORAGE_BACKEND", "valkey"), ("VALKEY_URL", &*url)];
    cost_with(&variables, 2 * 3 * 16 * MIB, &[Begun::Page, Begun::One]).await;
}

/// A body is small on its way and large in the relay, and what is in it is more in number than it is in bytes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compressed_lists_of_millions() {
    const LISTS: usize = 40;
    const BODY_BYTES: u64 = 32 * MIB;

    let relay = start(&[("TIDEMILL_INFLIGHT_BYTES_MAX", "64MiB")]).await;
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    let items = "[],".repeat(10_000_000);
    encoder.write_all(format!(r#"{{"messages":[{items}1]}}"#).as_bytes()).expect("it is in memory");
    let body = encoder.finish().expect("it is in memory");
    let head = format!(
        "POST /api/v1/messages/bulk HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let request = [head.as_bytes(), &body].concat();
    let before = relay.resident_bytes();
    let mut clients = Vec::with_capacity(LISTS);
    for _ in 0..LISTS {
        let mut stream = connect(&relay).await;
        stream.write_all(&request).await.expect("the relay reads it");
        clients.push(stream);
    }
    let cost = most_resident_since(&relay, before).await;
    eprintln!("{LISTS} lists of 10 million: {} MiB", cost / MIB);
    // Two threads may put a body together, which is there twice meanwhile; what was freed stays for a while.
    let bound = 64 * MIB + 2 * 2 * BODY_BYTES + 16 * MIB;
    assert!(cost <= bound, "{} MiB of {}", cost / MIB, bound / MIB);
    drop(clients);
}

async fn cost_with(variables: &[(&str, &str)], read_bytes: u64, all: &[Begun]) {
    let inflight = INFLIGHT.to_string();
    let bounds = [
        ("TIDEMILL_INFLIGHT_BYTES_MAX", inflight.as_str()),
        ("TIDEMILL_WS_MESSAGE_TIMEOUT_MS", "120000"),
        ("TIDEMILL_BODY_TIMEOUT_MS", "120000"),
        ("TIDEMILL_HEADER_TIMEOUT_MS", "120000"),
        ("MAX_MESSAGES_PER_TOPIC", "5"),
    ];
    let relay = start(&[variables, &bounds].concat()).await;
    for number in 0..5 {
        publish(&relay, "t", &number.to_string(), LARGE_BYTES - 100).await;
    }
    for number in 0..LISTED {
        let body = format!(r#"{{"topic_name":"l{number}","description":"{}"}}"#, "x".repeat(4_000));
        let headers = [("content-type", "application/json")];
        let answer = try_send(relay.address(), "POST", "/api/v1/topics", &headers, body.as_bytes()).await;
        assert_eq!(answer.expect("the relay answers").status, 201);
    }
    let ids = super::readers::ids(&relay).await;
    let before = relay.resident_bytes();
    let mut clients = Vec::with_capacity(CLIENTS);
    for number in 0..CLIENTS {
        clients.push(all[number % all.len()].begin(&relay, &ids[0]).await);
    }
    let cost = most_resident_since(&relay, before).await;
    eprintln!("{CLIENTS} clients, {all:?}: {} MiB", cost / MIB);
    // What is pending is a budget of its own; a topic of five messages holds its segments.
    let bound = INFLIGHT + CLIENTS as u64 * CONNECTION_BYTES + 16 * MIB + read_bytes;
    assert!(cost <= bound, "{all:?}: {} MiB of {}", cost / MIB, bound / MIB);
    drop(clients);
}

macro_rules! senders {
    ($($name:ident: $($begun:ident)+;)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            cost(&[$(Begun::$begun),+]).await;
        }
    )*};
}

senders! {
    frames_that_do_not_end: Frame;
    fragments_that_do_not_end: Fragments;
    bodies_that_do_not_end: Body;
    heads_that_do_not_end: Head;
    pages_that_are_not_read: Page;
    messages_that_are_not_read: One;
    lists_that_are_not_read: List;
    refusals_that_are_not_read: Lines;
    large_messages_that_were_published: Published;
    everything_at_once: Frame Fragments Body Head Page Published;
}
