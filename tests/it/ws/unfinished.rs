//! What a client has begun and does not end: messages that never come whole, and answers that are due when
//! it closes.

use std::time::Duration;

use tidemill::storage::Storage;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::Message;

use super::on_both_backends;
use crate::support::eventually;
use crate::support::relay::{TestRelay, memory};
use crate::support::ws::{Got, RawWs, WsClient, masked};

const SOON: Duration = Duration::from_secs(5);
const PUBLISHES: usize = 50;

fn publish(number: usize) -> String {
    format!(r#"{{"type":"publish","topic":"t","payload":{number},"ref":"{number}"}}"#)
}

/// Waits until nothing is held of what clients have sent.
async fn nothing_is_held(relay: &TestRelay) {
    let line = "\ntidemill_http_inflight_body_bytes 0\n";
    eventually(SOON, || async { relay.get("/metrics").await.text().contains(line) }).await;
}

#[tokio::test]
async fn a_message_that_does_not_come_whole_in_time_ends_the_connection_and_says_why() {
    const TIME: Duration = Duration::from_millis(300);
    let relay = TestRelay::start_with(memory(), |options| options.ws.message_timeout = TIME).await;
    let whole = masked(0x81, br#"{"type":"ping"}"#);
    for (name, begin) in [
        ("one byte", vec![0x81]),
        ("a head", masked(0x81, &[b' '; 1_000])[..8].to_vec()),
        ("a part of a frame", masked(0x81, &[b' '; 1_000])[..500].to_vec()),
        ("a large part of a frame", masked(0x81, &vec![b' '; 100_000])[..99_999].to_vec()),
        ("a fragment", masked(0x01, b"{")),
        ("a fragment without bytes", masked(0x01, b"")),
        ("fragments", [masked(0x01, b"{"), masked(0x00, b" ")].concat()),
        ("a part of a ping", masked(0x89, b"abc")[..6].to_vec()),
        ("what follows a whole one", [whole.clone(), masked(0x01, b"{")].concat()),
        ("a byte that follows a whole one", [whole.clone(), vec![0x81]].concat()),
    ] {
        let mut raw = RawWs::connect(relay.address).await;
        raw.send(&begin).await;
        let mut last = Vec::new();
        let code = loop {
            match raw.next().await {
                Some((0x88, payload)) => break u16::from_be_bytes([payload[0], payload[1]]),
                Some((_, payload)) => last = payload,
                None => panic!("{name}: no close frame"),
            }
        };
        assert_eq!(code, 4501, "{name}");
        assert!(last.starts_with(br#"{"type":"end""#), "{name}: {:?}", String::from_utf8_lossy(&last));
    }
    relay.stop().await;
}

#[tokio::test]
async fn pongs_and_crumbs_keep_no_unfinished_message_alive() {
    const TIME: Duration = Duration::from_millis(300);
    let relay = TestRelay::start_with(memory(), |options| options.ws.message_timeout = TIME).await;
    for crumb in [masked(0x8A, b""), masked(0x89, b""), masked(0x00, b""), masked(0x00, b" ")] {
        let mut raw = RawWs::connect(relay.address).await;
        raw.send(&masked(0x01, b"{")).await;
        let begin = Instant::now();
        let code = loop {
            assert!(begin.elapsed() < SOON, "it is still open");
            raw.send(&crumb).await;
            match timeout(Duration::from_millis(20), raw.next()).await {
                Ok(Some((0x88, payload))) => break u16::from_be_bytes([payload[0], payload[1]]),
                Ok(Some(_)) | Err(_) => {}
                Ok(None) => panic!("no close frame"),
            }
        };
        assert_eq!(code, 4501);
    }
    relay.stop().await;
}

#[tokio::test]
async fn a_slow_message_that_comes_in_time_is_taken() {
    let relay = TestRelay::start(memory()).await;
    let frame = masked(0x81, publish(1).as_bytes());
    let mut raw = RawWs::connect(relay.address).await;
    for byte in frame {
        raw.send(&[byte]).await;
        tokio::task::yield_now().await;
    }
    let (_, answer) = raw.next().await.expect("an answer");
    assert!(answer.starts_with(br#"{"type":"published""#));
    relay.stop().await;
}

#[tokio::test]
async fn unfinished_messages_count_and_who_finds_no_room_is_told() {
    const PART_BYTES: usize = 300 * 1024;
    let relay = TestRelay::start_with(memory(), |options| {
        options.http.inflight_bytes_max = 1024 * 1024;
    })
    .await;
    let begin = &masked(0x81, &vec![b' '; PART_BYTES + 10])[..PART_BYTES];
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut raw = RawWs::connect(relay.address).await;
        raw.send(begin).await;
        held.push(raw);
    }
    let is_held = || async {
        let metrics = relay.get("/metrics").await;
        let value =
            metrics.text().lines().find_map(|line| line.strip_prefix("tidemill_http_inflight_body_bytes "));
        value.and_then(|value| value.parse::<f64>().ok()).is_some_and(|bytes| bytes >= 3.0 * 300.0 * 1024.0)
    };
    eventually(SOON, is_held).await;
    let mut refused = RawWs::connect(relay.address).await;
    refused.send(begin).await;
    assert_eq!(refused.close_code().await, Some(1013));
    // It is the budget of bodies, too.
    let body = vec![b' '; PART_BYTES];
    let headers = [("content-type", "text/plain")];
    assert_eq!(relay.send("POST", "/api/v1/topics/t/messages", &headers, &body).await.status, 503);
    // What is small has no need of it.
    let mut small = WsClient::connect(relay.address).await;
    small.ask(r#"{"type":"ping"}"#, "pong").await;
    drop(held);
    nothing_is_held(&relay).await;
    assert_eq!(relay.send("POST", "/api/v1/topics/t/messages", &headers, &body).await.status, 201);
    relay.stop().await;
}

#[tokio::test]
async fn large_messages_are_published_and_leave_nothing_behind() {
    let relay = TestRelay::start(memory()).await;
    let mut client = WsClient::connect(relay.address).await;
    for round in 0..20 {
        let padding = "x".repeat(if round % 2 == 0 { 900_000 } else { 10 });
        let frame = format!(r#"{{"type":"publish","topic":"t","payload":"{padding}","ref":"{round}"}}"#);
        // In fragments, every third time, with a ping between them.
        if round % 3 == 0 {
            let mut raw = RawWs::connect(relay.address).await;
            let (one, other) = frame.as_bytes().split_at(frame.len() / 2);
            raw.send(&[masked(0x01, one), masked(0x89, b"p"), masked(0x80, other)].concat()).await;
            assert_eq!(raw.next().await, Some((0x8A, b"p".to_vec())));
            let (_, answer) = raw.next().await.expect("an answer");
            assert!(answer.starts_with(br#"{"type":"published""#));
        }
        assert_eq!(client.ask(frame, "published").await["ref"], round.to_string());
    }
    nothing_is_held(&relay).await;
    relay.stop().await;
}

async fn what_was_published_before_a_close_is_answered_before_it(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let mut raw = RawWs::connect(relay.address).await;
    let mut all: Vec<u8> =
        (0..PUBLISHES).flat_map(|number| masked(0x81, publish(number).as_bytes())).collect();
    all.extend(masked(0x88, &1000_u16.to_be_bytes()));
    raw.send(&all).await;
    for number in 0..PUBLISHES {
        let (first, answer) = raw.next().await.expect("an answer");
        let answer = String::from_utf8(answer).expect("text");
        assert_eq!(first, 0x81, "{number}");
        assert!(answer.contains(r#""type":"published""#) && answer.contains(&format!(r#""ref":"{number}""#)));
    }
    assert_eq!(raw.next().await.map(|(first, _)| first), Some(0x88), "then its own close frame");
    assert_eq!(raw.next().await, None);
    relay.stop().await;
}

async fn what_was_published_before_the_sending_half_closed_is_answered(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let mut raw = RawWs::connect(relay.address).await;
    let all: Vec<u8> = (0..PUBLISHES).flat_map(|number| masked(0x81, publish(number).as_bytes())).collect();
    raw.send(&all).await;
    raw.shut_down().await;
    for number in 0..PUBLISHES {
        let (_, answer) = raw.next().await.expect("an answer");
        assert!(String::from_utf8(answer).expect("text").contains(&format!(r#""ref":"{number}""#)));
    }
    assert_eq!(raw.next().await, None);
    relay.stop().await;
}

on_both_backends! {
    what_was_published_before_a_close_is_answered_before_it,
    what_was_published_before_the_sending_half_closed_is_answered,
}

#[tokio::test]
async fn a_client_library_gets_its_answers_behind_its_own_close() {
    let relay = TestRelay::start(memory()).await;
    let mut client = WsClient::connect(relay.address).await;
    for number in 0..PUBLISHES {
        client.send(publish(number)).await;
    }
    client.send_any(Message::Close(None)).await;
    for number in 0..PUBLISHES {
        assert_eq!(client.expect("published").await["ref"], number.to_string());
    }
    assert!(matches!(client.closed().await, Got::Close(_) | Got::Lost));
    relay.stop().await;
}
