//! What one connection says of messages that it has: batches under way, one after the other.
//!
//! What arrives while a batch is under way forms the next one, so what is said of a message stays in its order. It must
//! not know frames, nor what the connection consumes.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::FutureExt as _;
use futures_util::future::{MaybeDone, maybe_done};
use tidemill_proto::slow::SlowKind;
use tidemill_proto::work::{Receipt, Settled};
use tokio::time::Instant;

use crate::budget::{Budget, Hold};
use crate::relay::{Failure, Gate, SettledReceipt, Verdict, begin_settled, end_refused};
use crate::slow::{self, Found};
use crate::traces::Span;

/// Receipts that may wait before nothing more is read from the client.
const WAITING_MAX: usize = 4_096;
/// Bytes of a receipt that waits, beside its text.
const RECEIPT_BYTES: usize = 128;

type Settle = Pin<Box<dyn Future<Output = (Result<Vec<Settled>, Failure>, Found)> + Send>>;

/// The answer to one frame.
#[derive(Debug)]
pub(super) struct Answer {
    /// The reference that the client gave it.
    pub(super) reference: Option<String>,
    /// The receipts, those that are some, in their order.
    pub(super) receipts: Vec<Option<Receipt>>,
    /// What came of each.
    pub(super) result: Result<Vec<Settled>, Failure>,
}

/// A frame that waits.
struct Waiting {
    reference: Option<String>,
    receipts: Vec<SettledReceipt>,
    span: Span,
}

/// A frame whose receipts the storage has.
struct Sent {
    reference: Option<String>,
    receipts: Vec<Option<Receipt>>,
    span: Span,
}

/// What a connection says of messages.
pub(super) struct Settling {
    gate: Gate,
    budget: Budget,
    bytes_max: usize,
    waiting: Vec<Waiting>,
    under_way: Option<(Vec<Sent>, MaybeDone<Settle>, Instant)>,
    /// Receipts and bytes of what waits, or is under way.
    receipts: usize,
    bytes: usize,
    hold: Hold,
    /// Whether there was room for all of them.
    is_counted: bool,
}

impl Settling {
    pub(super) fn new(gate: Gate, bytes_max: usize, budget: Budget) -> Self {
        Self {
            gate,
            budget,
            bytes_max,
            waiting: Vec::new(),
            under_way: None,
            receipts: 0,
            bytes: 0,
            hold: Hold::default(),
            is_counted: true,
        }
    }

    /// Returns whether more may come: where not, the socket is not read, so that the client is slowed down.
    pub(super) fn has_room(&self) -> bool {
        self.receipts < WAITING_MAX && self.bytes < self.bytes_max && self.is_counted
    }

    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.under_way.is_none()
    }

    /// Takes what a frame says, behind all that was taken before.
    pub(super) fn push(&mut self, reference: Option<String>, receipts: Vec<SettledReceipt>, hold: Hold) {
        self.receipts += receipts.len();
        self.bytes += len_bytes(&receipts);
        self.hold.merge(hold);
        self.count();
        let span = begin_settled(&receipts);
        self.waiting.push(Waiting { reference, receipts, span });
    }

    /// Returns the answers of a batch once they are there; never, where nothing is to be settled.
    pub(super) fn poll_answers(&mut self, cx: &mut Context<'_>) -> Poll<Vec<Answer>> {
        if self.under_way.is_none() && !self.waiting.is_empty() {
            self.begin();
        }
        let Some((_, settle, began)) = &mut self.under_way else { return Poll::Pending };
        if settle.poll_unpin(cx).is_pending() {
            return Poll::Pending;
        }
        let Some((settled, found)) = Pin::new(settle).take_output() else { return Poll::Pending };
        let took = began.elapsed();
        let sent = self.under_way.take().map(|(sent, ..)| sent).unwrap_or_default();
        let receipts = sent.iter().flat_map(|sent| &sent.receipts);
        let topic = receipts.flatten().next().map(|receipt| &receipt.topic);
        self.gate.note_slow(SlowKind::Command, "WebSocket settle", topic, took, found.spent);
        self.receipts = self.waiting.iter().map(|waiting| waiting.receipts.len()).sum();
        self.bytes = self.waiting.iter().map(|waiting| len_bytes(&waiting.receipts)).sum();
        self.count();
        // What is next is on its way before the answers are written.
        if !self.waiting.is_empty() {
            self.begin();
            if let Some((_, settle, _)) = &mut self.under_way {
                let _ = settle.poll_unpin(cx);
            }
        }
        Poll::Ready(answers(sent, settled))
    }

    fn begin(&mut self) {
        let waiting = std::mem::take(&mut self.waiting);
        let mut all = Vec::with_capacity(self.receipts);
        let sent = waiting.into_iter().map(|Waiting { reference, receipts, span }| {
            let sent = receipts.iter().map(|settled| settled.receipt.clone()).collect();
            all.extend(receipts);
            Sent { reference, receipts: sent, span }
        });
        let sent = sent.collect();
        let gate = self.gate.clone();
        let settle: Settle = Box::pin(slow::measured(async move { gate.settle(all).await }));
        self.under_way = Some((sent, maybe_done(settle), Instant::now()));
    }

    /// Counts what is held now. Where there is no room, nothing more is taken until some of it is answered.
    fn count(&mut self) {
        self.hold.lower(self.bytes as u64);
        self.is_counted = self.budget.raise(&mut self.hold, self.bytes as u64).is_ok();
    }
}

/// Gives each frame its part of what came of all.
fn answers(sent: Vec<Sent>, settled: Result<Vec<Settled>, Failure>) -> Vec<Answer> {
    let mut rest = settled.map(Vec::into_iter);
    let answer = |Sent { reference, receipts, span }: Sent| {
        let result = match &mut rest {
            Ok(rest) => Ok(rest.by_ref().take(receipts.len()).collect()),
            Err(failure) => {
                end_refused(&span, failure);
                Err(Failure::from(failure.problem().clone()))
            }
        };
        Answer { reference, receipts, result }
    };
    sent.into_iter().map(answer).collect()
}

fn len_bytes(receipts: &[SettledReceipt]) -> usize {
    let of = |settled: &SettledReceipt| {
        let said = match &settled.verdict {
            // The receipts of a frame share it.
            Verdict::Ack(_) | Verdict::Extend(_) | Verdict::Release | Verdict::Lost { .. } => 0,
            Verdict::Nack(_, error) => error.as_ref().map_or(0, |error| error.len()),
            Verdict::Reject(reason) => reason.len(),
        };
        RECEIPT_BYTES + settled.text.len() + said
    };
    let result = receipts.first().and_then(|settled| match &settled.verdict {
        Verdict::Ack(Some(result)) => Some(result.len()),
        _ => None,
    });
    result.unwrap_or(0) + receipts.iter().map(of).sum::<usize>()
}
