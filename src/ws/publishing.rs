//! Publishes under way on one connection.
//!
//! One batch is under way at a time, and what arrives meanwhile forms the next one: so the order of
//! the connection is kept, and batches grow with the load. It must not know frames.

use std::pin::Pin;

use futures_util::FutureExt as _;
use futures_util::future::{MaybeDone, maybe_done};
use tidemill_proto::TopicName;

use super::requests::Asked;
use crate::relay::{Appended, Failure, Relay};

/// The answer to one publish.
#[derive(Debug)]
pub(super) struct Answer {
    /// The reference that the client gave it.
    pub(super) reference: Option<String>,
    /// The topic.
    pub(super) topic: TopicName,
    /// Bytes of the message.
    pub(super) bytes: usize,
    /// What came of it.
    pub(super) result: Result<Appended, Failure>,
}

/// What is known of a message that the storage has.
#[derive(Debug)]
struct Sent {
    reference: Option<String>,
    topic: TopicName,
    bytes: usize,
}

type Batch = Pin<Box<dyn Future<Output = Vec<Result<Appended, Failure>>> + Send>>;

/// The publishes of one connection.
pub(super) struct Publishing {
    relay: Relay,
    publishes_max: usize,
    bytes_max: usize,
    waiting: Vec<Asked>,
    waiting_bytes: usize,
    sent: Vec<Sent>,
    under_way: Option<MaybeDone<Batch>>,
}

impl Publishing {
    pub(super) fn new(relay: Relay, publishes_max: usize, bytes_max: usize) -> Self {
        Self {
            relay,
            publishes_max,
            bytes_max,
            waiting: Vec::new(),
            waiting_bytes: 0,
            sent: Vec::new(),
            under_way: None,
        }
    }

    /// Returns whether another publish may come: where not, the socket is not read, so that the client
    /// is slowed down.
    pub(super) fn has_room(&self) -> bool {
        self.waiting.len() + self.sent.len() < self.publishes_max && self.waiting_bytes < self.bytes_max
    }

    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.under_way.is_none()
    }

    /// Takes a message to be published after all that were taken before.
    pub(super) fn push(&mut self, asked: Asked) {
        self.waiting_bytes += asked.message.len_bytes();
        self.waiting.push(asked);
    }

    /// Waits for the answers of a batch; for ever where nothing is to be published.
    ///
    /// # Cancel safety
    /// Cancel-safe: the batch goes on being under way.
    pub(super) async fn answers(&mut self) -> Vec<Answer> {
        if self.under_way.is_none() {
            if self.waiting.is_empty() {
                return std::future::pending().await;
            }
            self.start();
        }
        let Some(batch) = &mut self.under_way else { return Vec::new() };
        (&mut *batch).await;
        let results = Pin::new(batch).take_output().unwrap_or_default();
        let sent = std::mem::take(&mut self.sent);
        self.under_way = None;
        // The next batch is on its way before the answers to this one are written.
        if !self.waiting.is_empty() {
            self.start();
        }
        let answer = |(sent, result): (Sent, _)| {
            let Sent { reference, topic, bytes } = sent;
            Answer { reference, topic, bytes, result }
        };
        sent.into_iter().zip(results).map(answer).collect()
    }

    fn start(&mut self) {
        self.waiting_bytes = 0;
        let mut messages = Vec::with_capacity(self.waiting.len());
        for Asked { reference, message } in std::mem::take(&mut self.waiting) {
            let (topic, bytes) = (message.topic().clone(), message.len_bytes());
            self.sent.push(Sent { reference, topic, bytes });
            messages.push(message);
        }
        let relay = self.relay.clone();
        let publish: Batch = Box::pin(async move { relay.publish_all(messages).await });
        let mut batch = maybe_done(publish);
        // It begins here, whenever it is waited for.
        let _ = (&mut batch).now_or_never();
        self.under_way = Some(batch);
    }
}
