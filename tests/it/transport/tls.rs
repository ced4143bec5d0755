//! TLS beneath everything: that what a connection carries, and who waits for whom, does not change when
//! its bytes change on their way.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestRunner};
use tidemill::server::{TcpListen, TlsListen};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::Message;

use super::flight::{Flight, cut, flights, prepare};
use crate::support::eventually;
use crate::support::pipe::{self, Dialer, Taking};
use crate::support::relay::{Answer, STUCK, TestRelay, memory};
use crate::support::tls::{HELD_BYTES_MAX, Papers, TlsClient};

const FREE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// Keys are agreed on in each.
const CASES: u32 = 100;

/// Starts a relay that listens with TLS too; returns where.
async fn start(papers: &Papers) -> (TestRelay, SocketAddr) {
    let relay = TestRelay::start_with(memory(), |options| {
        options.listen.push(TlsListen::over(TcpListen::at(FREE), papers.server()));
        options.drain_spread = Duration::from_millis(100);
    })
    .await;
    let address = relay.bound[1].address.expect("TCP has an address");
    assert_eq!(relay.bound[1].url, format!("https://{address}"));
    (relay, address)
}

fn request(method: &str, path: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("{method} {path} HTTP/1.1\r\nhost: relay\r\n{headers}content-length: {length}\r\n\r\n{body}")
        .into_bytes()
}

/// Reads until `end` has come, and returns everything.
async fn until(stream: &mut TlsStream<TcpStream>, end: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    let read = async {
        while memchr::memmem::find(&all, end).is_none() {
            assert_ne!(stream.read_buf(&mut all).await.expect("a connection"), 0, "{}", all.escape_ascii());
        }
    };
    timeout(STUCK, read).await.expect("it comes");
    all
}

#[tokio::test]
async fn publishes_pages_streams_and_web_sockets_are_carried() {
    let papers = Papers::make();
    let (relay, address) = start(&papers).await;
    let mut stream = papers.connect(address).await;
    let json = "content-type: application/json\r\n";
    for number in 0..3 {
        let publish = request("POST", "/api/v1/topics/t/messages", json, &format!(r#"{{"n":{number}}}"#));
        stream.write_all(&publish).await.unwrap();
        let answer = until(&mut stream, br#""timestamp""#).await;
        assert!(answer.starts_with(b"HTTP/1.1 201 "), "{}", answer.escape_ascii());
    }
    let page = request("GET", "/api/v1/topics/t/messages", "connection: close\r\n", "");
    stream.write_all(&page).await.unwrap();
    // TLS says that it ends, so nobody can have cut it short.
    let mut back = Vec::new();
    timeout(STUCK, stream.read_to_end(&mut back)).await.expect("it ends").expect("with a word");
    let page = Answer::parse(&back).json();
    assert_eq!(page["messages"].as_array().map(Vec::len), Some(3), "{page}");

    let mut events = papers.connect(address).await;
    let open = request("GET", "/api/v1/topics/t/messages", "accept: text/event-stream\r\n", "");
    events.write_all(&open).await.unwrap();
    until(&mut events, b"\r\n\r\n").await;
    let (mut socket, _) =
        tokio_tungstenite::client_async("wss://localhost/ws", papers.connect(address).await).await.unwrap();
    let mut next = async |text: Option<&str>, kind: &str| {
        if let Some(text) = text {
            socket.send(Message::text(text)).await.unwrap();
        }
        let next = timeout(STUCK, socket.next()).await.expect("something comes");
        let text = next.expect("a connection").unwrap().into_text().expect("a text frame");
        let frame: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(frame["type"], kind, "{frame}");
        frame
    };
    next(Some(r#"{"type":"subscribe","topics":["t"],"offset":"latest"}"#), "subscribed").await;
    relay.publish("t", r#""both""#).await;
    until(&mut events, br#""both""#).await;
    assert_eq!(next(None, "message").await["payload"], "both");

    let mut idle = papers.connect(address).await;
    idle.write_all(&request("POST", "/api/v1/topics/t/messages", json, "1")).await.unwrap();
    until(&mut idle, br#""timestamp""#).await;
    relay.begin_stop();
    let mut rest = Vec::new();
    timeout(STUCK, idle.read_to_end(&mut rest)).await.expect("it ends").expect("with a word");
    relay.stop().await;
}

/// Sends the flight in records, whose bytes are cut in turn.
async fn keeps_every_byte(
    relay: &TestRelay,
    dialer: &Dialer,
    papers: &Papers,
    (flight, cuts): (Flight, Vec<Index>),
) {
    let pipe = dialer.connect(flight.taking, |transport| papers.over(transport)).await;
    let mut client = TlsClient::agree(papers, pipe).await;
    let mut records = Vec::new();
    for piece in flight.pieces() {
        records.extend(client.record(&piece));
    }
    for piece in cut(&records, &cuts) {
        client.pipe().send(piece);
    }
    let mut back = client.until(|back| flight.is_answered(back)).await;
    if let Some(text) = flight.follow_up(relay).await {
        back.extend(client.until(|back| memchr::memmem::find(back, text.as_bytes()).is_some()).await);
    }
    client.end();
    back.extend(client.until(|_| false).await);
    flight.check(relay, &back).await;
}

#[test]
fn every_byte_is_kept_wherever_records_begin_and_are_cut() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (listener, dialer) = pipe::listener();
    let papers = Papers::make();
    let relay = runtime.block_on(async {
        let relay = TestRelay::start_with(memory(), |options| options.listen.push(listener)).await;
        prepare(&relay).await;
        relay
    });
    let config = Config { cases: CASES, source_file: Some(file!()), ..Config::default() };
    let strategy = (flights(), vec(any::<Index>(), 0..50));
    let outcome = TestRunner::new(config).run(&strategy, |flight| {
        runtime.block_on(keeps_every_byte(&relay, &dialer, &papers, flight));
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
    runtime.block_on(relay.stop());
}

/// Opens a stream of `kind` over TLS, on a connection that takes everything.
async fn open(dialer: &Dialer, papers: &Papers, kind: &str) -> TlsClient {
    let pipe = dialer.connect(Taking::ALL, |transport| papers.over(transport)).await;
    let mut client = TlsClient::agree(papers, pipe).await;
    client.send(&request("GET", "/api/v1/topics/t/messages", &format!("accept: {kind}\r\n"), ""));
    client.until(|back| memchr::memmem::find(back, b"\r\n\r\n").is_some()).await;
    client
}

#[tokio::test]
async fn who_does_not_read_is_given_no_more_than_is_held_and_gets_the_rest_in_order() {
    const COUNT: usize = 300;
    let papers = Papers::make();
    let (listener, dialer) = pipe::listener();
    let relay = TestRelay::start_with(memory(), |options| options.listen.push(listener)).await;
    relay.publish("t", "null").await;
    let mut slow = open(&dialer, &papers, "application/x-ndjson").await;
    let mut good = open(&dialer, &papers, "application/x-ndjson").await;
    slow.pipe().hold();
    let before = papers.taken();
    relay.publish("t", "0").await;
    let first = good.until(|back| back.ends_with(b"\n\r\n")).await;
    // Both have been given the first message, and one still holds it.
    eventually(STUCK, || async { papers.taken() == before + 2 * first.len() }).await;
    let before = papers.taken();
    let padding = " ".repeat(10_000);
    let mut seen = 0;
    for number in 1..COUNT {
        relay.publish("t", &format!("[{number}{padding}]")).await;
        seen += good.until(|back| back.ends_with(b"\n\r\n")).await.len();
    }
    assert!(seen > 100 * HELD_BYTES_MAX / 5, "{seen} bytes are many times what is held");
    assert_eq!(papers.taken() - before, seen, "nothing was given to who still holds something");

    slow.pipe().release();
    let last = format!("[{}", COUNT - 1);
    let back = slow.until(|back| memchr::memmem::find(back, last.as_bytes()).is_some()).await;
    let text = String::from_utf8_lossy(&back);
    assert!(!text.contains(r#""gap""#), "nothing is missing");
    let numbers = text.split(r#""payload":["#).skip(1).map(|rest| rest.split(' ').next());
    let numbers: Vec<usize> = numbers.filter_map(|number| number?.parse().ok()).collect();
    assert_eq!(numbers, (1..COUNT).collect::<Vec<_>>());
    relay.stop().await;
}

#[tokio::test]
async fn who_never_reads_what_is_held_is_cut_off() {
    let papers = Papers::make();
    let (listener, dialer) = pipe::listener();
    let relay = TestRelay::start_with(memory(), |options| {
        options.listen.push(listener);
        options.write_timeout = Duration::from_millis(200);
    })
    .await;
    relay.publish("t", "null").await;
    for kind in ["text/event-stream", "application/x-ndjson"] {
        let mut client = open(&dialer, &papers, kind).await;
        client.pipe().hold();
        relay.publish("t", "1").await;
        assert_eq!(client.until(|_| false).await, b"", "{kind}");
    }
    relay.stop().await;
}

#[tokio::test]
async fn who_never_agrees_on_keys_is_cut_off_in_time() {
    let papers = Papers::make();
    let (listener, dialer) = pipe::listener();
    let relay = TestRelay::start_with(memory(), |options| {
        options.listen.push(listener);
        options.header_timeout = Duration::from_millis(200);
    })
    .await;
    let mut hello = Vec::new();
    papers.client().write_tls(&mut hello).expect("a vector takes everything");
    for said in [&b""[..], &hello[..100], b"GET / HTTP/1.1\r\nhost: relay\r\n\r\n"] {
        let client = dialer.connect(Taking::ALL, |transport| papers.over(transport)).await;
        if !said.is_empty() {
            client.send(said);
        }
        while !client.more().await.is_empty() {}
    }
    relay.stop().await;
}
