//! Publishes under way on one connection.
//!
//! What arrives while a batch is under way forms the next one, so batches grow with the load. A large one
//! does not wait: batches begin in the order in which their messages came, which is the order in which
//! storage keeps them. It must not know frames.

use std::collections::VecDeque;
use std::pin::Pin;

use futures_util::FutureExt as _;
use futures_util::future::{MaybeDone, maybe_done};
use tidemill_proto::TopicName;
use tidemill_proto::slow::SlowKind;
use tokio::time::Instant;

use crate::budget::{Budget, Hold};
use crate::relay::{Admitted, Answered, Failure, Gate};
use crate::slow::{self, Found, Spent};
use crate::traces::{Carried, Span};

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
    pub(super) result: Result<Answered, Failure>,
    /// Its span.
    pub(super) span: Span,
}

/// What is known of a message that the storage has.
#[derive(Debug)]
struct Sent {
    reference: Option<String>,
    topic: TopicName,
    bytes: usize,
    span: Span,
}

/// Batches of a connection that are under way: one for each place where there is work to be done, from
/// the lane to the server and back.
const BATCHES_MAX: usize = 4;
/// Messages of a batch that begins while others are under way.
const BATCH_FULL: usize = 128;

type Publish = Pin<Box<dyn Future<Output = (Vec<Result<Answered, Failure>>, Found)> + Send>>;

/// Messages that the storage has.
struct Batch {
    sent: Vec<Sent>,
    publish: MaybeDone<Publish>,
    /// When the first of them came, and when the batch began.
    since: Instant,
    began: Instant,
}

/// The publishes of one connection.
pub(super) struct Publishing {
    gate: Gate,
    publishes_max: usize,
    bytes_max: usize,
    waiting: Vec<(Option<String>, Admitted, Span)>,
    /// When the first of them came.
    since: Instant,
    /// How many the last batch had: about as many will wait again.
    last_batch: usize,
    /// Bytes of messages that wait or are under way.
    held_bytes: usize,
    /// Where they count.
    budget: Budget,
    hold: Hold,
    /// Whether there was room for all of them.
    is_counted: bool,
    under_way: VecDeque<Batch>,
    /// Messages under way.
    sent: usize,
}

impl Publishing {
    pub(super) fn new(gate: Gate, publishes_max: usize, bytes_max: usize, budget: Budget) -> Self {
        Self {
            gate,
            publishes_max,
            bytes_max,
            waiting: Vec::new(),
            since: Instant::now(),
            last_batch: 0,
            held_bytes: 0,
            budget,
            hold: Hold::default(),
            is_counted: true,
            under_way: VecDeque::new(),
            sent: 0,
        }
    }

    /// Returns whether another publish may come: where not, the socket is not read, so that the client
    /// is slowed down.
    pub(super) fn has_room(&self) -> bool {
        self.waiting.len() + self.sent < self.publishes_max
            && self.held_bytes < self.bytes_max
            && self.is_counted
    }

    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.under_way.is_empty()
    }

    /// Takes a message to be published after all that were taken before, with what is counted of it.
    pub(super) fn push(&mut self, reference: Option<String>, message: Admitted, hold: Hold, span: Span) {
        self.held_bytes += message.len_bytes();
        self.hold.merge(hold);
        self.count();
        if self.waiting.is_empty() {
            self.since = Instant::now();
        }
        if self.waiting.capacity() == 0 {
            self.waiting.reserve(self.last_batch);
        }
        self.waiting.push((reference, message, span));
    }

    /// Waits for the answers of a batch; for ever where nothing is to be published.
    ///
    /// # Cancel safety
    /// Cancel-safe: batches go on being under way.
    pub(super) async fn answers(&mut self) -> Vec<Answer> {
        self.begin();
        let Some(first) = self.under_way.front_mut() else { return std::future::pending().await };
        (&mut first.publish).await;
        let (results, found) = Pin::new(&mut first.publish).take_output().unwrap_or_default();
        let (since, began) = (first.since, first.began);
        let sent = self.under_way.pop_front().map(|batch| batch.sent).unwrap_or_default();
        let queue = found.spent.queue + began.saturating_duration_since(since);
        let (topic, parts) = (sent.first().map(|sent| &sent.topic), Spent { queue, ..found.spent });
        self.gate.note_slow(SlowKind::Publish, "WebSocket publish", topic, since.elapsed(), parts);
        self.sent -= sent.len();
        self.held_bytes -= sent.iter().map(|sent| sent.bytes).sum::<usize>();
        self.count();
        // What is next is on its way before the answers are written.
        self.begin();
        let answer = |(sent, result): (Sent, _)| {
            let Sent { reference, topic, bytes, span } = sent;
            Answer { reference, topic, bytes, result, span }
        };
        sent.into_iter().zip(results).map(answer).collect()
    }

    /// Counts what is held now. Where there is no room, nothing more is taken until some of it is answered.
    fn count(&mut self) {
        self.hold.lower(self.held_bytes as u64);
        self.is_counted = self.budget.raise(&mut self.hold, self.held_bytes as u64).is_ok();
    }

    /// Begins a batch, if one is due.
    fn begin(&mut self) {
        let least = if self.under_way.is_empty() { 1 } else { BATCH_FULL };
        let began = Instant::now();
        if self.waiting.len() < least || self.under_way.len() >= BATCHES_MAX {
            return;
        }
        let mut sent = Vec::with_capacity(self.waiting.len());
        let mut messages = Vec::with_capacity(self.waiting.len());
        for (reference, message, span) in std::mem::take(&mut self.waiting) {
            let (topic, bytes) = (message.topic().clone(), message.len_bytes());
            sent.push(Sent { reference, topic, bytes, span });
            messages.push(message);
        }
        self.sent += sent.len();
        self.last_batch = sent.len();
        let gate = self.gate.clone();
        let carried: Carried = sent.iter().filter_map(|sent| sent.span.carried()).collect();
        let publish = async move { gate.publish_all(messages).await };
        let publish: Publish = Box::pin(slow::measured(carried.around(publish)));
        let mut publish = maybe_done(publish);
        // It is queued here, before the next one, whenever it is waited for.
        let _ = (&mut publish).now_or_never();
        self.under_way.push_back(Batch { sent, publish, since: self.since, began });
    }
}
