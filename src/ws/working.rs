//! The work of one connection: what it consumes, and what it says of it.
//!
//! A connection that does no work has none of this. It must not know frames.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use tidemill_proto::work::ConsumerName;
use tokio::time::timeout;

use super::consuming::{Come, Consuming};
use super::requests::Consumption;
use super::settling::{Answer, Settling};
use crate::budget::{Budget, Hold};
use crate::relay::{Failure, Gate, SettledReceipt};

/// What came of the work of a connection.
pub(super) enum Done {
    /// Of what it consumes.
    Come(Vec<Come>),
    /// Of what it has said.
    Settled(Vec<Answer>),
}

/// The work of a connection.
pub(super) struct Working {
    consuming: Consuming,
    settling: Settling,
}

impl Working {
    /// Returns that of the connection with this id, which takes and says up to so many bytes at once.
    pub(super) fn new(gate: &Gate, session: u64, bytes_max: usize, budget: &Budget) -> Self {
        let name = ConsumerName::parse(&format!("ws/{session:016x}")).expect("letters, digits and a slash");
        Self {
            consuming: Consuming::new(gate.clone(), bytes_max, budget.clone(), name),
            settling: Settling::new(gate.clone(), bytes_max, budget.clone()),
        }
    }

    /// Consumes a group, or changes the credit of one.
    ///
    /// # Errors
    /// As [`Consuming::consume`].
    pub(super) fn consume(&mut self, asked: Consumption) -> Result<(), Failure> {
        self.consuming.consume(asked)
    }

    /// Settles messages, behind all that were before.
    pub(super) fn settle(&mut self, reference: Option<String>, receipts: Vec<SettledReceipt>, hold: Hold) {
        self.settling.push(reference, receipts, hold);
    }

    /// Returns whether more may be said.
    pub(super) fn has_room(&self) -> bool {
        self.settling.has_room()
    }

    /// Returns whether all that was said is answered.
    pub(super) fn is_settled(&self) -> bool {
        self.settling.is_idle()
    }

    /// Waits for what comes first.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub(super) async fn next(&mut self) -> Done {
        poll_fn(|cx| {
            if let Poll::Ready(answers) = self.settling.poll_answers(cx) {
                return Poll::Ready(Done::Settled(self.note(answers)));
            }
            self.consuming.poll_come(cx).map(Done::Come)
        })
        .await
    }

    /// Waits for the answers to what was said.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub(super) async fn answers(&mut self) -> Vec<Answer> {
        let answers = poll_fn(|cx| self.settling.poll_answers(cx)).await;
        self.note(answers)
    }

    fn note(&mut self, answers: Vec<Answer>) -> Vec<Answer> {
        for Answer { receipts, result, .. } in &answers {
            if let Ok(results) = result {
                self.consuming.settled(receipts, results);
            }
        }
        answers
    }

    /// Settles what was said, and gives back what the connection has; its client is lost where it `is_lost`. What takes
    /// longer than `patience` comes back when its time is over.
    pub(super) async fn end(mut self, is_lost: bool, patience: Duration) {
        let settle = async {
            while !self.is_settled() {
                self.answers().await;
            }
        };
        let _ = timeout(patience, settle).await;
        let _ = timeout(patience, self.consuming.end(is_lost)).await;
    }
}
