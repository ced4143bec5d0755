//! Requests over HTTP/2 that are answered before their bodies have come: what still comes of these harms nobody, and
//! has its bounds.

use std::future::poll_fn;
use std::time::Duration;

use axum::http::Method;
use bytes::Bytes;
use serde_json::{Value, json};

use super::{WINDOW, start};
use crate::access::closed::{ROOT, close, send, token};
use crate::support::eventually;
use crate::support::http2::{
    DATA, Frames, GOAWAY, HEADERS, Http2, RST_STREAM, WINDOW_UPDATE, field, frame, get, post,
};
use crate::support::relay::{STUCK, TestRelay};

/// Requests of one connection: many times what the library takes of frames for streams that it has forgotten.
const REFUSED: u32 = 1_000;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// Asks `REFUSED` times, as often as there are heads for one after the other, and sends each body once the answer is
/// there. Streams begin at `first`.
async fn be_refused(frames: &mut Frames, first: u32, heads: &[(Vec<u8>, u16)]) {
    for (number, (head, status)) in (0..REFUSED).zip(heads.iter().cycle()) {
        let stream = first + 2 * number;
        frames.send(&frame(HEADERS, END_HEADERS, stream, head)).await.expect("the relay reads");
        let problem: Value = loop {
            match frames.next_of().await.expect("the relay answers") {
                (of, DATA, payload) if of == stream => break serde_json::from_slice(&payload).expect("JSON"),
                (_, kind, payload) => {
                    let is_end = kind == GOAWAY || kind == RST_STREAM;
                    assert!(!is_end, "request {number}: {kind} {}", payload.escape_ascii());
                }
            }
        };
        assert_eq!(problem["status"], *status, "request {number}: {problem}");
        frames.send(&frame(DATA, END_STREAM, stream, b"late")).await.expect("the relay reads");
    }
}

/// Connects, and gives room for everything.
async fn connect(papers: &crate::support::tls::Papers, address: std::net::SocketAddr) -> Frames {
    let mut frames = Frames::connect(papers, address, &[]).await;
    let room = frame(WINDOW_UPDATE, 0, 0, &(1_u32 << 30).to_be_bytes());
    frames.send(&room).await.expect("the relay reads");
    frames
}

#[tokio::test]
async fn who_is_refused_a_thousand_times_keeps_the_connection_and_what_is_open_on_it() {
    let (relay, papers, address) = start(close).await;
    let (_, all) = token(&relay, ROOT, &["allow publish,read *"]).await;
    let (_, little) = token(&relay, ROOT, &["allow read other"]).await;
    let publish = json!({ "topic": "t", "payload": 0 });
    assert_eq!(send(&relay, Some(&all), "POST", "/api/v1/messages", &publish).await.status, 201);
    let mut frames = connect(&papers, address).await;
    let live = [
        get("/api/v1/topics/t/messages?after=earliest"),
        field("accept", "application/x-ndjson"),
        field("authorization", &all),
    ];
    let ask = frame(HEADERS, END_STREAM | END_HEADERS, 1, &live.concat());
    frames.send(&ask).await.expect("the relay reads");
    let messages = "/api/v1/topics/t/messages";
    be_refused(
        &mut frames,
        3,
        &[
            (post(messages), 401),
            ([post(messages), field("authorization", "Bearer nonsense")].concat(), 401),
            ([post(messages), field("authorization", &little)].concat(), 403),
            (post("/api/v1/tokens"), 401),
            ([post("/api/v1/messages?x=1"), field("authorization", &all)].concat(), 400),
            (post("/nothing"), 404),
            (post("/health"), 405),
            ([post("/api/v1/messages"), field("authorization", &all)].concat(), 415),
        ],
    )
    .await;
    let publish = json!({ "topic": "t", "payload": "still there" });
    assert_eq!(send(&relay, Some(&all), "POST", "/api/v1/messages", &publish).await.status, 201);
    let mut seen = Vec::new();
    while memchr::memmem::find(&seen, b"still there").is_none() {
        match frames.next_of().await.expect("the connection goes on") {
            (1, DATA, payload) => seen.extend(payload),
            (_, kind, _) => assert!(kind != GOAWAY && kind != RST_STREAM, "{kind}"),
        }
    }
    relay.stop().await;
}

#[tokio::test]
async fn who_finds_no_room_a_thousand_times_keeps_the_connection() {
    // The connection itself is the one.
    let (relay, papers, address) = start(|options| options.connections_per_address_max = 1).await;
    let mut frames = connect(&papers, address).await;
    be_refused(&mut frames, 1, &[(post("/api/v1/topics/t/messages"), 503)]).await;
    drop(frames);
    relay.stop().await;
}

/// Returns a number from `/metrics`.
async fn connections(relay: &TestRelay) -> u32 {
    let metrics = relay.get("/metrics").await;
    let line = metrics.text().lines().find_map(|line| line.strip_prefix("tidemill_http_connections "));
    line.and_then(|number| number.parse().ok()).expect("a number")
}

#[tokio::test]
async fn a_body_that_does_not_end_is_read_so_far_and_no_further() {
    const MEBIBYTE: usize = 1024 * 1024;

    let (relay, papers, address) = start(|_| {}).await;
    let client = Http2::connect(&papers, address, WINDOW).await;
    for _ in 0..10 {
        let (response, mut body) = client.begin(Method::POST, "/nothing").await;
        assert_eq!(response.await.expect("an answer").status(), 404);
        let mut sent = 0;
        let ended = loop {
            body.reserve_capacity(16 * 1024);
            let room = poll_fn(|cx| body.poll_capacity(cx));
            match tokio::time::timeout(STUCK, room).await.expect("it is read, or ended") {
                Some(Ok(room)) => {
                    sent += room;
                    body.send_data(Bytes::from(vec![b'x'; room]), false).expect("the stream is open");
                }
                Some(Err(error)) => break error.reason(),
                None => break poll_fn(|cx| body.poll_reset(cx)).await.ok(),
            }
            assert!(sent <= 2 * MEBIBYTE, "{sent} bytes were read");
        };
        assert_eq!(ended, Some(h2::Reason::NO_ERROR));
        assert!(sent >= MEBIBYTE, "{sent} bytes were read");
    }
    assert_eq!(client.send(Method::GET, "/health", &[], b"").await.status, 200);
    relay.stop().await;
}

#[tokio::test]
async fn a_body_that_does_not_come_counts_as_a_request_and_not_for_long() {
    let (relay, papers, address) = start(|options| options.http.body_timeout = Duration::from_secs(1)).await;
    let mut frames = connect(&papers, address).await;
    for number in 0..50 {
        let ask = frame(HEADERS, END_HEADERS, 2 * number + 1, &post("/nothing"));
        frames.send(&ask).await.expect("the relay reads");
    }
    eventually(STUCK, || async { connections(&relay).await >= 50 }).await;
    let mut ended = 0;
    while ended < 50 {
        match frames.next().await.expect("a frame") {
            (RST_STREAM, payload) => {
                assert_eq!(payload, 0_u32.to_be_bytes(), "NO_ERROR: the answer is whole");
                ended += 1;
            }
            (kind, _) => assert_ne!(kind, GOAWAY),
        }
    }
    eventually(STUCK, || async { connections(&relay).await <= 2 }).await;
    drop(frames);
    relay.stop().await;
}
