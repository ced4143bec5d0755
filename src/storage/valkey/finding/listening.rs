//! What sentinels tell unasked, over a connection to each that is kept up.

use std::time::Duration;

use tokio::time::sleep;

use super::super::options::ValkeyOptions;
use super::super::resp::{Parts, Peer, Request, RespConnection};
use crate::chance::jittered;

/// The channel on which they tell of another primary.
const CHANNEL: &str = "+switch-master";
/// How often the connection is looked at, and how long the answer may take.
const PING_EVERY: Duration = Duration::from_secs(2);
const PING_WITHIN: Duration = Duration::from_secs(3);
/// Wait between attempts to connect.
const RETRY: Duration = Duration::from_secs(1);

/// Listens to a sentinel for as long as it is polled. `heard` takes what it tells; `begun` runs whenever it is
/// listened to again.
pub(super) async fn listen(
    options: &ValkeyOptions,
    peer: &Peer<'_>,
    heard: impl Fn(&str) + Sync,
    begun: impl Fn() + Sync,
) {
    loop {
        let within = options.connect_timeout;
        match RespConnection::open_at(options, peer, "tidemill-sentinel", within).await {
            Ok((connection, driver)) => {
                let told = |message: Parts<'_>| {
                    if let Some(text) = text_of(message) {
                        heard(text);
                    }
                };
                let reason = tokio::select! {
                    biased;
                    reason = driver.listen(told) => reason,
                    reason = keep(&connection, &begun) => reason,
                };
                tracing::debug!(sentinel = %peer.address, reason, "the sentinel is not listened to any more");
            }
            Err(error) => {
                tracing::debug!(sentinel = %peer.address, %error, "the sentinel is not listened to");
            }
        }
        sleep(jittered(RETRY)).await;
    }
}

/// Subscribes, and proves the connection, until it is of no more use.
async fn keep(connection: &RespConnection, begun: &(impl Fn() + Sync)) -> String {
    if let Err(reason) = connection.subscribe("SUBSCRIBE", &[CHANNEL], PING_WITHIN).await {
        return reason;
    }
    begun();
    let mut ping = Request::default();
    ping.add(&[b"PING"]);
    loop {
        sleep(PING_EVERY).await;
        if let Err(error) = connection.exchange(&ping, PING_WITHIN).await {
            return error.to_string();
        }
    }
}

/// Returns the text of a message on the channel.
fn text_of(mut message: Parts<'_>) -> Option<&str> {
    let mut text = || std::str::from_utf8(message.next()?.bytes()?).ok();
    match (text()?, text()?) {
        ("message", CHANNEL) => text(),
        _ => None,
    }
}
