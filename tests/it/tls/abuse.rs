//! Clients of TLS and HTTP/2 that break the rules, or keep to them and take nothing: they are hung up on,
//! hold no more than a bound, and harm nobody else.

use std::time::Duration;

use axum::http::Method;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::{WINDOW, start};
use crate::support::eventually;
use crate::support::http2::{
    CONTINUATION, DATA, Frames, GOAWAY, HEADERS, Http2, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE, frame, get,
};
use crate::support::process::Relay;
use crate::support::relay::{Answer, STUCK, TestRelay, read_to_end};
use crate::support::tls::Papers;

/// How many frames a flood has: many times what is allowed.
const FLOOD: u32 = 50_000;
/// Memory that a relay may come to hold over all floods of these tests. They send many times as much.
const GROWTH_BYTES_MAX: u64 = 64 * 1024 * 1024;

const ENHANCE_YOUR_CALM: u32 = 0xb;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// A flood: its name, and its frames by number.
type Flood = (&'static str, fn(u32) -> Vec<u8>);

/// Frames that a client may send as they are, and not so many of.
const FLOODS: [Flood; 14] = [
    ("rapid reset", |number| {
        let stream = 2 * number + 1;
        let ask = frame(HEADERS, END_STREAM | END_HEADERS, stream, &get("/api/v1/topics"));
        [ask, frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())].concat()
    }),
    ("pings", |number| frame(PING, 0, 0, &u64::from(number).to_be_bytes())),
    ("settings", |_| frame(SETTINGS, 0, 0, &[])),
    ("room for the connection", |_| frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes())),
    ("priorities", |_| frame(2, 0, 1, &[0, 0, 0, 0, 1])),
    ("something unknown", |_| frame(77, 0, 0, &[])),
    ("a head in pieces without end", |number| match number {
        0 => frame(HEADERS, END_STREAM, 1, &get("/api/v1/topics")),
        _ => frame(CONTINUATION, 0, 1, &[]),
    }),
    ("a body of nothing", |number| match number {
        0 => frame(HEADERS, END_HEADERS, 1, &get("/api/v1/topics/t/messages?wait=20&after=latest")),
        _ => frame(DATA, 0, 1, &[]),
    }),
    // What the relay has to end by itself, which no client takes back.
    ("room of nothing for a stream", |number| {
        let stream = 2 * number + 1;
        let ask = frame(HEADERS, END_STREAM | END_HEADERS, stream, &get("/api/v1/topics"));
        [ask, frame(WINDOW_UPDATE, 0, stream, &0_u32.to_be_bytes())].concat()
    }),
    ("more room for a stream than there may be", |number| {
        let stream = 2 * number + 1;
        let path = "/api/v1/topics/t/messages?wait=20&after=latest";
        let ask = frame(HEADERS, END_STREAM | END_HEADERS, stream, &get(path));
        [ask, frame(WINDOW_UPDATE, 0, stream, &0x7fff_ffff_u32.to_be_bytes())].concat()
    }),
    ("more behind the end", |number| {
        let stream = 2 * number + 1;
        let ask = frame(HEADERS, END_STREAM | END_HEADERS, stream, &get("/api/v1/topics"));
        [ask, frame(DATA, END_STREAM, stream, b"more")].concat()
    }),
    ("windows up and down", |number| {
        let size = if number % 2 == 0 { 0_u32 } else { 0x7fff_ffff };
        frame(SETTINGS, 0, 0, &[&4_u16.to_be_bytes()[..], &size.to_be_bytes()].concat())
    }),
    ("more room for the connection than there may be", |_| {
        frame(WINDOW_UPDATE, 0, 0, &0x7fff_ffff_u32.to_be_bytes())
    }),
    ("what was never asked for, taken back", |number| {
        frame(RST_STREAM, 0, 2 * number + 1, &8_u32.to_be_bytes())
    }),
];

/// Starts a relay of its own process that speaks TLS, with its papers, and the folder where they lie.
async fn process() -> (Relay, Papers, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    let papers = Papers::make();
    papers.write(&certificate, &key);
    let arguments = ["--tls-cert", certificate.to_str().unwrap(), "--tls-key", key.to_str().unwrap()];
    let arguments = arguments.map(str::to_owned);
    let process = spawn_blocking(move || Relay::start(&[], &arguments.each_ref().map(String::as_str)));
    (process.await.unwrap(), papers, folder)
}

#[tokio::test]
async fn floods_are_ended_and_harm_nobody() {
    let (process, papers, _folder) = process().await;
    let address = process.address();
    let other = Http2::connect(&papers, address, WINDOW).await;
    let json = ("content-type", "application/json");
    other.send(Method::POST, "/api/v1/topics/t/messages", &[json], b"0").await;
    let before = process.resident_bytes();
    for (name, flood) in FLOODS {
        let mut frames = Frames::connect(&papers, address, &[]).await;
        for number in (0..FLOOD).step_by(100) {
            let some: Vec<u8> = (number..number + 100).flat_map(flood).collect();
            // It may have been hung up on already.
            if frames.send(&some).await.is_err() {
                break;
            }
        }
        let code = frames.goaway().await;
        assert_ne!(code, None, "{name}: it is told why");
        assert_ne!(code, Some(0), "{name}: it is told why");
        let answer = other.send(Method::POST, "/api/v1/topics/t/messages", &[json], b"1").await;
        assert_eq!(answer.status, 201, "{name}");
    }
    let grown = process.resident_bytes().saturating_sub(before);
    assert!(grown < GROWTH_BYTES_MAX, "{grown} bytes more");
}

#[tokio::test]
async fn resets_are_answered_with_the_code_for_it() {
    let (relay, papers, address) = start(|_| {}).await;
    let (_, rapid_reset) = FLOODS[0];
    let mut frames = Frames::connect(&papers, address, &[]).await;
    for number in 0..2_000 {
        if frames.send(&rapid_reset(number)).await.is_err() {
            break;
        }
    }
    assert_eq!(frames.goaway().await, Some(ENHANCE_YOUR_CALM));
    relay.stop().await;
}

#[tokio::test]
async fn large_heads_are_refused_in_whatever_form_they_come() {
    let (relay, papers, address) = start(|_| {}).await;
    let client = Http2::connect(&papers, address, WINDOW).await;
    let large = "x".repeat(10_000);
    let answer = client.send(Method::GET, "/health", &[("x-large", &large)], b"").await;
    assert_eq!((answer.status, answer.problem().code.as_str()), (431, "headers_too_large"));
    assert_eq!(client.send(Method::GET, "/health", &[], b"").await.status, 200);

    let mut frames = Frames::connect(&papers, address, &[]).await;
    let literal = [&b"\x00\x01x\x7f\x81\x7f"[..], &[b'y'; 16_384 - 128]].concat();
    let mut sent = 0;
    let begin = frame(HEADERS, END_STREAM, 1, &get("/health"));
    let mut ended = frames.send(&begin).await.is_err();
    while !ended && sent < 100 {
        sent += 1;
        ended = frames.send(&frame(CONTINUATION, 0, 1, &literal)).await.is_err();
    }
    frames.goaway().await;
    relay.stop().await;
}

/// A head of a few kilobytes that stands for one of megabytes: what was said once is named again and again.
#[tokio::test]
async fn a_small_head_that_stands_for_a_huge_one_is_not_held() {
    const NAMED: usize = 12_000;

    let (process, papers, _folder) = process().await;
    let other = Http2::connect(&papers, process.address(), WINDOW).await;
    other.send(Method::GET, "/health", &[], b"").await;
    let before = process.resident_bytes();
    let mut frames = Frames::connect(&papers, process.address(), &[]).await;
    for number in 0..200_u32 {
        let mut head = get("/health");
        if number == 0 {
            // Into the table of the connection: `x`, with a value of 3,970 bytes, by its length in two more bytes.
            head.extend(b"\x40\x01x\x7f\x83\x1e");
            head.extend([b'y'; 3_970]);
        }
        // The newest entry of that table.
        head.extend([0xbe].repeat(NAMED));
        let ask = frame(HEADERS, END_STREAM | END_HEADERS, 2 * number + 1, &head);
        // It may have been hung up on already.
        if frames.send(&ask).await.is_err() {
            break;
        }
    }
    assert_eq!(other.send(Method::GET, "/health", &[], b"").await.status, 200);
    let grown = process.resident_bytes().saturating_sub(before);
    assert!(grown < GROWTH_BYTES_MAX, "{grown} bytes more");
}

#[tokio::test]
async fn more_streams_than_there_may_be_are_refused() {
    let (relay, papers, address) = start(|_| {}).await;
    let mut frames = Frames::connect(&papers, address, &[]).await;
    let path = "/api/v1/topics/t/messages?wait=20&after=latest";
    for number in 0..150 {
        let ask = frame(HEADERS, END_STREAM | END_HEADERS, 2 * number + 1, &get(path));
        frames.send(&ask).await.expect("the relay reads");
    }
    let mut refused = 0;
    while refused < 50 {
        let (kind, payload) = frames.next().await.expect("a frame");
        if kind == RST_STREAM {
            assert_eq!(payload, 7_u32.to_be_bytes(), "REFUSED_STREAM: it may be tried again");
            refused += 1;
        }
    }
    eventually(STUCK, || async { relay.get("/messages/poll/stats").await.json()["active_waiters"] == 100 })
        .await;
    drop(frames);
    relay.stop().await;
}

/// Returns a number from `/metrics`.
async fn metric(relay: &TestRelay, name: &str) -> f64 {
    let metrics = relay.get("/metrics").await;
    let line = metrics.text().lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map_or(0.0, |number| number.parse().expect("a number"))
}

/// Settings that give streams no room at all.
fn no_room() -> Vec<u8> {
    [&4_u16.to_be_bytes()[..], &0_u32.to_be_bytes()].concat()
}

#[tokio::test]
async fn who_asks_for_pages_and_gives_no_room_holds_them_for_a_while_only() {
    let short = Duration::from_millis(300);
    let (relay, papers, address) = start(|options| {
        options.write_timeout = short;
        options.header_timeout = short;
    })
    .await;
    relay.publish("t", &format!(r#""{}""#, "x".repeat(500_000))).await;
    let mut frames = Frames::connect(&papers, address, &no_room()).await;
    for number in 0..50 {
        let head = get("/api/v1/topics/t/messages");
        let ask = frame(HEADERS, END_STREAM | END_HEADERS, 2 * number + 1, &head);
        frames.send(&ask).await.expect("the relay reads");
    }
    eventually(STUCK, || async { metric(&relay, "tidemill_http_inflight_body_bytes").await > 20e6 }).await;
    eventually(STUCK, || async { metric(&relay, "tidemill_http_inflight_body_bytes").await < 1e6 }).await;
    // Nothing is under way any more, so the connection goes like any other.
    frames.goaway().await;
    eventually(STUCK, || async { metric(&relay, "tidemill_http_connections").await <= 1.0 }).await;
    relay.stop().await;
}

#[tokio::test]
async fn who_follows_streams_and_gives_no_room_is_cut() {
    let short = Duration::from_millis(300);
    let (relay, papers, address) = start(|options| {
        options.write_timeout = short;
        options.header_timeout = short;
    })
    .await;
    let good = Http2::connect(&papers, address, WINDOW).await;
    let accept = ("accept", "application/x-ndjson");
    let response = good.ask(Method::GET, "/api/v1/topics/t/messages", &[accept], b"").await.unwrap();
    let mut stream = response.into_body();
    stream.until("subscribed").await;
    let mut frames = Frames::connect(&papers, address, &no_room()).await;
    for number in 0..100 {
        let head = get("/api/v1/stream?topics=t");
        let ask = frame(HEADERS, END_STREAM | END_HEADERS, 2 * number + 1, &head);
        frames.send(&ask).await.expect("the relay reads");
    }
    eventually(STUCK, || async { relay.sessions.count() == 101 }).await;
    let padding = "y".repeat(20_000);
    for number in 0..100 {
        relay.publish("t", &format!(r#"[{number},"{padding}"]"#)).await;
    }
    stream.until(r#""payload":[99,"#).await;
    eventually(STUCK, || async { relay.sessions.count() == 1 }).await;
    frames.goaway().await;
    relay.publish("t", r#""last""#).await;
    stream.until(r#""last""#).await;
    relay.stop().await;
}

#[tokio::test]
async fn a_body_that_nobody_asked_for_is_held_in_a_window() {
    let (relay, papers, address) = start(|_| {}).await;
    let mut frames = Frames::connect(&papers, address, &[]).await;
    // A long-poll reads no body, so that what is sent stays where it is.
    let head = get("/api/v1/topics/t/messages?wait=20&after=latest");
    frames.send(&frame(HEADERS, END_HEADERS, 1, &head)).await.expect("the relay reads");
    let piece = frame(DATA, 0, 1, &[b'x'; 16_384]);
    for _ in 0..20 {
        // It may have been hung up on already.
        drop(frames.send(&piece).await);
    }
    // On the stream, or on the connection.
    let code = loop {
        match frames.next().await.expect("it is told why") {
            (RST_STREAM, payload) => break payload,
            (GOAWAY, payload) => break payload[4..8].to_vec(),
            _ => {}
        }
    };
    assert_eq!(code, 3_u32.to_be_bytes(), "FLOW_CONTROL_ERROR");
    relay.stop().await;
}

#[tokio::test]
async fn a_request_without_tls_is_told_so() {
    let (relay, _, address) = start(|_| {}).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let answer = Answer::parse(&read_to_end(&mut stream).await);
    assert_eq!((answer.status, answer.header("content-type")), (400, Some("text/plain")));
    assert!(answer.text().contains("https://"), "{answer:?}");
    assert_eq!(answer.header("content-length"), Some(answer.body.len().to_string().as_str()));
    assert!((metric(&relay, "tidemill_tls_handshakes_failed_total").await - 1.0).abs() < 0.1);
    relay.stop().await;
}

#[tokio::test]
async fn who_does_not_agree_counts_as_a_connection_and_not_for_long() {
    let (relay, papers, address) = start(|options| {
        options.connections_per_address_max = 1;
        options.header_timeout = Duration::from_millis(300);
    })
    .await;
    let mut silent = TcpStream::connect(address).await.unwrap();
    eventually(STUCK, || async {
        let stream = TcpStream::connect(address).await.expect("the relay listens");
        papers.try_agree(stream, &[]).await.is_err()
    })
    .await;
    let mut rest = Vec::new();
    let read = timeout(STUCK, silent.read_to_end(&mut rest));
    drop(read.await.expect("the relay hangs up"));
    eventually(STUCK, || async {
        let stream = TcpStream::connect(address).await.expect("the relay listens");
        papers.try_agree(stream, &[]).await.is_ok()
    })
    .await;
    relay.stop().await;
}

#[tokio::test]
async fn a_handshake_that_never_ends_is_cut_at_its_bound() {
    let (relay, _, address) = start(|_| {}).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The first piece of a hello of 16 MB, and more of it in records of 16 KiB.
    let mut record = vec![22, 3, 1, 0x40, 0];
    record.extend([1, 0xff, 0xff, 0xff]);
    record.resize(5 + 0x4000, 0);
    for _ in 0..20 {
        // It may have been hung up on already.
        drop(stream.write_all(&record).await);
        record[5] = 0;
    }
    let mut told = Vec::new();
    // It ends, or is reset.
    drop(timeout(STUCK, stream.read_to_end(&mut told)).await.expect("the relay hangs up"));
    assert!((metric(&relay, "tidemill_tls_handshakes_failed_total").await - 1.0).abs() < 0.1);
    relay.stop().await;
}
