//! Having keys expire when their time is over: when to look where. Reads do not wait for it, watchers do.

use super::timers::{ANSWER_MAX, HORIZON, LOOKED_EVERY, Question, RETRY};
use super::{Failure, Relay};
use crate::storage::StorageError;

/// What a step has come to.
#[derive(Debug, Default)]
pub struct ExpiriesReport {
    /// How many keys have expired.
    pub expired: usize,
    /// Why others have not.
    pub failures: Vec<Failure>,
}

/// What has keys expire.
#[derive(Debug)]
pub struct Expiries {
    relay: Relay,
    question: Question,
}

impl Expiries {
    pub(super) fn new(relay: Relay) -> Self {
        Self { relay, question: Question::now() }
    }

    /// Waits until a key is due, or is to be asked for, has those expire that are due, and tells of it.
    ///
    /// # Cancel safety
    /// Not cancel-safe: keys may have expired, and nobody is told how many.
    pub async fn step(&mut self) -> ExpiriesReport {
        let inner = &self.relay.0.clone();
        let mut report = ExpiriesReport::default();
        if !inner.expiries.wait(&self.question).await {
            return report;
        }
        if self.question.is_due() {
            self.ask(&mut report).await;
        }
        let buckets = inner.expiries.take();
        if buckets.is_empty() {
            return report;
        }
        let expired = inner.storage.buckets.expire_keys(&buckets).await;
        for (bucket, expired) in buckets.iter().zip(expired) {
            match expired {
                Ok(expired) => {
                    report.expired += expired.count;
                    if let Some(next_in) = expired.next_in {
                        inner.expiries.note(bucket, next_in.max(LOOKED_EVERY));
                    }
                }
                // It was deleted, and its keys with it.
                Err(StorageError::NoBucket) => {}
                Err(error) => {
                    report.failures.push(Failure::read_bucket(error, bucket));
                    inner.expiries.note(bucket, RETRY);
                }
            }
        }
        report
    }

    /// Asks where a key is due soon.
    async fn ask(&mut self, report: &mut ExpiriesReport) {
        let inner = &self.relay.0;
        match inner.storage.buckets.expiring_within(HORIZON, ANSWER_MAX).await {
            Ok(due) => due.iter().for_each(|(bucket, due_in)| inner.expiries.note(bucket, *due_in)),
            Err(error) => report.failures.push(Failure::read(error, None)),
        }
        self.question.asked();
    }
}
