//! The client library: against real relays on both backends behind a faulty link, and against a stub
//! that misbehaves as it is told.

use std::time::Duration;

use serde_json::value::RawValue;
use tidemill::proto::{Cursor, Since};
use tidemill_client::{Client, ClientOptions, Encoding, Event, NewMessage, Publisher, Subscription};
use tokio::time::timeout;

use crate::support::ground::topic;
use crate::support::relay::STUCK;

mod frames;
mod keys;
mod locks;
mod patterns;
mod publishing;
mod reading;
pub(crate) mod stub;
mod takes;
mod working;

const EARLIEST: Since = Since::Cursor(Cursor::Earliest);
const LATEST: Since = Since::Cursor(Cursor::Latest);
const ENCODINGS: [Encoding; 2] = [Encoding::Json, Encoding::Binary];

/// Returns a client of a relay on a loopback port that does not wait long for anything.
fn client(port: u16, encoding: Encoding) -> Client {
    client_with(port, |options| options.encoding = encoding)
}

fn client_with(port: u16, change: impl FnOnce(&mut ClientOptions)) -> Client {
    let mut options = ClientOptions {
        silence_max: Duration::from_millis(600),
        backoff_first: Duration::from_millis(10),
        backoff_max: Duration::from_millis(50),
        ..ClientOptions::default()
    };
    change(&mut options);
    Client::new(&format!("http://127.0.0.1:{port}"), options).expect("the URL is right")
}

/// Returns the numbered message of a topic.
fn numbered(name: &str, number: usize) -> NewMessage {
    let payload = RawValue::from_string(number.to_string()).expect("a number is JSON");
    NewMessage::raw_json(&topic(name), payload)
}

/// Returns what comes next.
async fn next(subscription: &mut Subscription) -> Event {
    timeout(STUCK, subscription.next()).await.expect("something comes").expect("reading goes on")
}

/// What a reader of numbers got.
#[derive(Debug, Default)]
struct Got {
    numbers: Vec<usize>,
    gaps: Vec<tidemill::proto::Gap>,
    reconnects: usize,
}

impl Got {
    /// Reads until there are so many numbers.
    async fn until(&mut self, subscription: &mut Subscription, count: usize) {
        while self.numbers.len() < count {
            match next(subscription).await {
                Event::Message(message) => {
                    let text = std::str::from_utf8(&message.payload).expect("a number");
                    self.numbers.push(text.parse().expect("a number"));
                }
                Event::Gap(gap) => self.gaps.push(gap),
                Event::Reconnected => self.reconnects += 1,
                Event::Disconnected(_) => {}
                Event::Closed(closed) => panic!("nothing has ended: {closed:?}"),
            }
        }
    }
}

/// Publishes the numbers as fast as the window allows, and waits for all answers.
async fn publish_numbers(publisher: Publisher, name: &str, numbers: std::ops::Range<usize>) {
    let mut receipts = Vec::new();
    for number in numbers {
        receipts.push(publisher.publish(numbered(name, number)).await.expect("the publisher goes on"));
    }
    for receipt in receipts {
        receipt.await.expect("it is kept");
    }
    publisher.close().await;
}

/// Makes a test of every property in memory and on Valkey; without a server for it, the ground has
/// said so.
macro_rules! on_both_backends {
    ($($name:ident),+ $(,)?) => {
        mod memory {
            crate::client::on_both_backends! { @on crate::support::ground::Ground::memory(); $($name),+ }
        }

        #[cfg(feature = "valkey")]
        mod valkey {
            use crate::support::server::Kind;

            crate::client::on_both_backends! { @on crate::support::ground::Ground::on(Kind::Valkey); $($name),+ }
        }
    };
    (@on $ground:expr; $($name:ident),+) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                if let Some(ground) = $ground.await {
                    super::$name(ground.storage.clone()).await;
                }
            }
        )+
    };
}
use on_both_backends;
