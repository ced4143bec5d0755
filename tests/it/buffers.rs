//! What connections hold in a relay that is a process of its own: clients that take nothing, or never end
//! what they have begun, cost no more than the documents say, however many there are.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, sleep, timeout};

use crate::support::process::Relay;
use crate::support::relay::{STUCK, try_send};

mod patterns;
mod readers;
mod rings;
mod senders;

const MIB: u64 = 1024 * 1024;

/// How long memory is watched: longer than it takes to grow to what it would be without a bound.
const WATCHED: Duration = Duration::from_secs(2);

/// Returns settings under which a test may do what a single machine does to a relay.
const CROWD: [(&str, &str); 4] = [
    ("TIDEMILL_PAYLOAD_BYTES_MAX", "1MiB"),
    ("TIDEMILL_CONNECTIONS_PER_ADDRESS_MAX", "20000"),
    // Nobody is cut while memory is looked at.
    ("TIDEMILL_WRITE_TIMEOUT_MS", "120000"),
    ("TIDEMILL_WS_PING_INTERVAL_MS", "120000"),
];

/// Starts a relay that keeps messages in memory.
async fn start(variables: &[(&str, &str)]) -> Relay {
    let variables = [&CROWD[..], variables].concat();
    Relay::ready_at("127.0.0.1:0", &variables, &[]).await
}

/// Publishes a payload of about `bytes` bytes that begins with `name`.
async fn publish(relay: &Relay, topic: &str, name: &str, bytes: usize) {
    let path = format!("/api/v1/topics/{topic}/messages");
    let payload = format!(r#""{name}{}""#, "x".repeat(bytes));
    let headers = [("content-type", "application/json")];
    let answer = try_send(relay.address(), "POST", &path, &headers, payload.as_bytes()).await;
    assert_eq!(answer.expect("the relay answers").status, 201);
}

/// Connects with a small receive buffer, so that the kernel takes little for who does not read.
async fn connect(relay: &Relay) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4 * 1024).expect("a small buffer");
    socket.connect(relay.address()).await.expect("the relay listens")
}

/// Upgrades a connection to a WebSocket.
async fn upgrade(stream: &mut TcpStream, protocol: &str) {
    let head = format!(
        "GET /ws HTTP/1.1\r\nhost: localhost\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n{protocol}\r\n"
    );
    stream.write_all(head.as_bytes()).await.expect("the relay reads");
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(timeout(STUCK, stream.read_u8()).await.expect("in time").expect("an answer"));
    }
    assert!(answer.starts_with(b"HTTP/1.1 101 "));
}

/// Returns the most that the relay has held in memory beyond `before` for a while.
async fn most_resident_since(relay: &Relay, before: u64) -> u64 {
    let begin = Instant::now();
    let mut most = 0;
    while begin.elapsed() < WATCHED {
        most = most.max(relay.resident_bytes().saturating_sub(before));
        sleep(Duration::from_millis(50)).await;
    }
    most
}
