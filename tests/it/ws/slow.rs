//! Clients that read slowly, not at all, or are gone: they cost little, and nobody else notices.

use std::time::Duration;

use tidemill::storage::Storage;
use tokio::time::{Instant, timeout};

use super::on_both_backends;
use crate::support::eventually;
use crate::support::relay::{STUCK, TestRelay, memory};
use crate::support::ws::{Got, RawWs, WsClient, masked};

/// Large enough that a few hundred of them fill every buffer between relay and client.
const PAYLOAD_BYTES: usize = 64 * 1024;
const SOON: Duration = Duration::from_secs(5);

/// Returns a payload that says its number first.
fn payload(number: usize) -> String {
    format!(r#"{{"n":{number},"x":"{}"}}"#, "x".repeat(PAYLOAD_BYTES))
}

fn starts_with(payload: &[u8], number: usize) -> bool {
    payload.starts_with(format!(r#"{{"n":{number},"#).as_bytes())
}

/// Returns what this process holds in memory, in bytes.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages: usize = statm.split(' ').nth(1).and_then(|text| text.parse().ok()).expect("a number");
    pages * 4_096
}

/// Waits until so many WebSockets have ended in this way.
async fn ended(relay: &TestRelay, how: &str, count: usize) {
    let line = format!("\ntidemill_ws_ended_total{{how=\"{how}\"}} {count}\n");
    eventually(SOON, || async { relay.get("/metrics").await.text().contains(&line) }).await;
}

async fn one_who_stops_reading_misses_nothing_and_disturbs_nobody(storage: Storage) {
    const COUNT: usize = 300;
    let relay =
        TestRelay::start_with(storage, |options| options.write_timeout = Duration::from_mins(1)).await;
    relay.publish("t", "0").await;
    let mut slow = WsClient::connect_narrow(relay.address).await;
    let mut quick = WsClient::connect(relay.address).await;
    slow.subscribe("t", "latest").await;
    quick.subscribe("t", "latest").await;
    for n in 0..COUNT {
        relay.publish("t", &payload(n)).await;
        let sent = Instant::now();
        let Got::Message(_, got) = quick.got().await else { panic!("a message") };
        assert!(starts_with(&got, n));
        assert!(sent.elapsed() < SOON, "{:?}", sent.elapsed());
    }
    for n in 0..COUNT {
        let got = slow.got().await;
        let Got::Message(_, got) = got else { panic!("message {n}: {got:?}") };
        assert!(
            starts_with(&got, n),
            "message {n}: {:?}",
            String::from_utf8_lossy(&got[..20.min(got.len())])
        );
    }
    slow.close().await;
    quick.close().await;
    relay.stop().await;
}

on_both_backends! { one_who_stops_reading_misses_nothing_and_disturbs_nobody }

#[tokio::test]
async fn many_who_stop_reading_hold_little() {
    const CLIENTS: usize = 40;
    const COUNT: usize = 400;
    let relay = TestRelay::start(memory()).await;
    relay.publish("t", "0").await;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = WsClient::connect_narrow(relay.address).await;
        client.subscribe("t", "latest").await;
        clients.push(client);
    }
    let before = resident();
    for n in 0..COUNT {
        relay.publish("t", &payload(n)).await;
    }
    let (stored, grown) = (COUNT * PAYLOAD_BYTES, resident().saturating_sub(before));
    // The messages themselves, their shared encodings, and what other tests need at the same time;
    // without a bound the clients would hold a gigabyte.
    let bound = stored * 3 + CLIENTS * 512 * 1024 + 128 * 1024 * 1024;
    assert!(grown < bound, "{} MiB for {} MiB", grown >> 20, stored >> 20);
    drop(clients);
    relay.stop().await;
}

#[tokio::test]
async fn one_who_takes_nothing_is_closed_in_time() {
    let relay = TestRelay::start_with(memory(), |options| {
        options.write_timeout = Duration::from_millis(300);
    })
    .await;
    relay.publish("t", "0").await;
    let mut stuck = WsClient::connect_narrow(relay.address).await;
    stuck.subscribe("t", "latest").await;
    for n in 0..200 {
        relay.publish("t", &payload(n)).await;
    }
    ended(&relay, "slow", 1).await;
    // What was on its way is whole up to where it was cut: the reader knows where to go on.
    let (mut next, mut last) = (0, None);
    while let Got::Message(id, got) = stuck.got().await {
        assert!(starts_with(&got, next));
        (next, last) = (next + 1, Some(id));
    }
    assert!(next < 200, "it was cut");
    let mut again = WsClient::connect(relay.address).await;
    let cursor = last.map_or("earliest".to_owned(), |id| id.to_string());
    again.subscribe("t", &cursor).await;
    if last.is_none() {
        again.got().await;
    }
    let Got::Message(_, got) = again.got().await else { panic!("a message") };
    assert!(starts_with(&got, next), "it goes on where it was");
    relay.stop().await;
}

#[tokio::test]
async fn one_who_is_gone_is_noticed_and_one_who_listens_is_not() {
    let relay = TestRelay::start_with(memory(), |options| {
        options.ws.ping_every = Duration::from_millis(100);
        options.ws.ping_timeout = Duration::from_millis(400);
    })
    .await;
    relay.publish("t", "0").await;
    // Its library answers pings only while it reads.
    let mut listens = WsClient::connect(relay.address).await;
    listens.subscribe("t", "latest").await;
    let mut gone = RawWs::connect(relay.address).await;
    gone.send(&masked(0x81, br#"{"type":"subscribe","topics":["t"]}"#)).await;
    let closed = async {
        assert_eq!(gone.close_code().await, Some(4500));
        relay.publish("t", "1").await;
    };
    let (got, ()) = tokio::join!(listens.got(), closed);
    assert!(matches!(got, Got::Message(_, payload) if payload == b"1"));
    ended(&relay, "silent", 1).await;
    relay.stop().await;
}

#[tokio::test]
async fn one_who_reads_slowly_is_not_taken_for_gone() {
    let relay = TestRelay::start_with(memory(), |options| {
        options.ws.ping_every = Duration::from_millis(200);
        options.ws.ping_timeout = Duration::from_millis(200);
    })
    .await;
    relay.publish("t", "0").await;
    let mut slow = WsClient::connect_narrow(relay.address).await;
    slow.subscribe("t", "latest").await;
    for n in 0..100 {
        relay.publish("t", &payload(n)).await;
    }
    // Each message takes a while; the pings lie behind all of them.
    let mut pace = tokio::time::interval(Duration::from_millis(15));
    for n in 0..100 {
        pace.tick().await;
        let got = timeout(STUCK, slow.got()).await.expect("a message comes");
        let Got::Message(_, got) = got else { panic!("message {n}: {got:?}") };
        assert!(
            starts_with(&got, n),
            "message {n}: {:?}",
            String::from_utf8_lossy(&got[..20.min(got.len())])
        );
    }
    relay.stop().await;
}

#[tokio::test]
async fn a_large_topic_does_not_starve_a_small_one() {
    let relay = TestRelay::start(memory()).await;
    relay.publish("large", "0").await;
    relay.publish("small", "0").await;
    for n in 0..100 {
        relay.publish("large", &payload(n)).await;
    }
    let mut client = WsClient::connect(relay.address).await;
    client
        .ask(
            r#"{"type":"subscribe","topics":["large","small"],"cursors":{"large":"earliest"}}"#,
            "subscribed",
        )
        .await;
    relay.publish("small", "1").await;
    let mut before = 0;
    while client.expect("message").await["topic"] == "large" {
        before += 1;
    }
    assert!(before < 90, "{before} large messages came first");
    relay.stop().await;
}
