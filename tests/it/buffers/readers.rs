//! Live readers that do not read, in front of large messages.

use std::fmt::Write as _;

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{MIB, connect, most_resident_since, publish, start, upgrade};
use crate::support::process::Relay;
use crate::support::relay::{STUCK, TestRelay, memory};
use crate::support::ws::{Got, WsClient, masked};

/// Readers that take nothing.
const READERS: usize = 1_500;
/// What they may cost, beyond what storage and ring hold.
const BOUND: u64 = 96 * MIB;
/// Payload of a message.
const LARGE_BYTES: usize = 1024 * 1024 - 64;

/// A way to read live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    WebSocket,
    Binary,
    Events,
    EventsOfSeveral,
    Lines,
}

impl Way {
    /// Begins to read a topic behind `cursor` and leaves it at that.
    async fn begin(self, relay: &Relay, cursor: &str) -> TcpStream {
        let mut stream = connect(relay).await;
        match self {
            Self::WebSocket => {
                upgrade(&mut stream, "").await;
                let frame = format!(r#"{{"type":"subscribe","topics":["t"],"offset":"{cursor}"}}"#);
                stream.write_all(&masked(0x81, frame.as_bytes())).await.expect("the relay reads");
            }
            Self::Binary => {
                upgrade(&mut stream, "sec-websocket-protocol: tidemill.bincode.v1\r\n").await;
                let frame = super::senders::subscribe_binary(cursor);
                stream.write_all(&masked(0x82, &frame)).await.expect("the relay reads");
            }
            Self::Events | Self::EventsOfSeveral | Self::Lines => {
                let path = match self {
                    Self::EventsOfSeveral => format!("/api/v1/stream?topics=t&after={cursor}"),
                    _ => format!("/api/v1/topics/t/messages?after={cursor}"),
                };
                let accept = if self == Self::Lines { "application/x-ndjson" } else { "text/event-stream" };
                let mut head = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n");
                let _ = write!(head, "accept: {accept}\r\n\r\n");
                stream.write_all(head.as_bytes()).await.expect("the relay reads");
                let mut status = [0; 12];
                stream.read_exact(&mut status).await.expect("an answer");
                assert_eq!(&status, b"HTTP/1.1 200");
            }
        }
        stream
    }
}

/// Where readers begin.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// All in front of the same message.
    Same,
    /// Spread over all messages there are.
    Spread,
    /// Behind everything: the messages come afterwards.
    Live,
}

/// Returns the ids of all messages of the topic, oldest first.
pub(super) async fn ids(relay: &Relay) -> Vec<String> {
    use crate::support::relay::try_send;
    let mut ids = Vec::new();
    let mut after = "earliest".to_owned();
    loop {
        let path = format!("/api/v1/topics/t/messages?limit=5&after={after}");
        let page = try_send(relay.address(), "GET", &path, &[], b"").await.expect("a page").json();
        let messages = page["messages"].as_array().expect("a list").clone();
        let Some(last) = messages.last() else { return ids };
        last["message_id"].as_str().expect("an id").clone_into(&mut after);
        ids.extend(messages.iter().map(|message| message["message_id"].as_str().expect("an id").to_owned()));
    }
}

async fn cost(way: Way, place: Place, message_bytes: usize, messages: usize) {
    cost_of(&start(&[]).await, way, place, message_bytes, messages).await;
}

async fn cost_of(relay: &Relay, way: Way, place: Place, message_bytes: usize, messages: usize) {
    for number in 0..messages {
        publish(relay, "t", &number.to_string(), message_bytes).await;
    }
    let ids = ids(relay).await;
    // Somebody is there already, so that there is a ring.
    let _first = way.begin(relay, "latest").await;
    publish(relay, "t", "in the ring", message_bytes).await;
    let mut before = relay.resident_bytes();
    let mut readers = Vec::with_capacity(READERS);
    for number in 0..READERS {
        let cursor = match place {
            Place::Same => "earliest",
            Place::Spread => &ids[number % ids.len()],
            Place::Live => "latest",
        };
        readers.push(way.begin(relay, cursor).await);
    }
    if matches!(place, Place::Live) {
        for number in 0..messages {
            publish(relay, "t", &number.to_string(), message_bytes).await;
        }
        // What is kept from now on.
        before += (messages * message_bytes) as u64;
    }
    let cost = most_resident_since(relay, before).await;
    eprintln!("{READERS} readers by {way:?}, {place:?}, {message_bytes} bytes: {} MiB", cost / MIB);
    assert!(cost <= BOUND, "{way:?} {place:?}: {} MiB", cost / MIB);
    drop(readers);
}

/// A server keeps the messages; what is read of it is the relay's own.
#[cfg(feature = "valkey")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_front_of_messages_that_a_server_keeps() {
    use crate::support::server::{Kind, Server};

    let Some(server) = Server::start(Kind::Valkey, &[]).await else { return };
    let url = format!("redis://127.0.0.1:{}", server.port());
    let relay = start(&[("STORAGE_BACKEND", "valkey"), ("VALKEY_URL", &url)]).await;
    cost_of(&relay, Way::WebSocket, Place::Spread, LARGE_BYTES, 60).await;
}

macro_rules! costs {
    ($($name:ident: $way:ident $place:ident $bytes:expr, $messages:expr;)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            cost(Way::$way, Place::$place, $bytes, $messages).await;
        }
    )*};
}

costs! {
    web_sockets_in_front_of_one_message: WebSocket Same LARGE_BYTES, 3;
    web_sockets_in_front_of_many: WebSocket Spread LARGE_BYTES, 60;
    web_sockets_when_messages_come: WebSocket Live LARGE_BYTES, 10;
    web_sockets_in_front_of_medium_ones: WebSocket Spread 12_000, 300;
    binary_web_sockets_in_front_of_many: Binary Spread LARGE_BYTES, 60;
    events_in_front_of_one_message: Events Same LARGE_BYTES, 3;
    events_in_front_of_many: Events Spread LARGE_BYTES, 60;
    events_of_several_topics_in_front_of_many: EventsOfSeveral Spread LARGE_BYTES, 60;
    events_of_several_topics_in_front_of_medium_ones: EventsOfSeveral Spread 12_000, 300;
    lines_in_front_of_many: Lines Spread LARGE_BYTES, 60;
    lines_when_messages_come: Lines Live LARGE_BYTES, 10;
}

/// Whoever reads on gets everything, though others have taken all the room there is for a while.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_reads_on_goes_on_when_those_are_cut_who_do_not() {
    const MESSAGES: usize = 20;
    let relay = TestRelay::start_with(memory(), |options| {
        options.relay.pending_bytes_max = 2 * 1024 * 1024;
        options.write_timeout = Duration::from_secs(1);
    })
    .await;
    let mut ids = Vec::new();
    for number in 0..MESSAGES {
        let padding = "x".repeat(if number % 3 == 0 { 10_000 } else { 600_000 });
        ids.push(relay.publish("t", &format!(r#""{number} {padding}""#)).await);
    }
    let mut stuck = Vec::new();
    for cursor in &ids {
        let mut client = WsClient::connect_narrow(relay.address).await;
        client.subscribe("t", cursor).await;
        stuck.push(client);
    }
    let mut clients = [WsClient::connect(relay.address).await, WsClient::connect_binary(relay.address).await];
    for client in &mut clients {
        client.subscribe("t", "earliest").await;
        for id in &ids {
            let Got::Message(got, _) = client.got().await else { panic!("a message") };
            assert_eq!(got.to_string(), *id);
        }
    }
    let path = "/api/v1/topics/t/messages?after=earliest";
    for accept in ["text/event-stream", "application/x-ndjson"] {
        let mut stream = relay.connect().await;
        let head = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\naccept: {accept}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.expect("the relay reads");
        let mut all = Vec::new();
        let last = ids.last().expect("the last").as_bytes();
        while memchr::memmem::find(&all, last).is_none() {
            let read = timeout(STUCK, stream.read_buf(&mut all)).await.expect("something comes");
            assert!(read.expect("no reset") > 0, "the relay has hung up");
        }
        for id in &ids {
            assert!(memchr::memmem::find(&all, id.as_bytes()).is_some(), "{id} by {accept}");
        }
    }
    drop(stuck);
    relay.stop().await;
}
