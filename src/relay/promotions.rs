//! Publishing messages when they are due: when to look where.

use std::time::Duration;

use super::recurrence::Cron;
use super::timers::{ANSWER_MAX, HORIZON, LOOKED_EVERY, Question, RETRY};
use super::{Failure, Relay};

/// What a step has come to.
#[derive(Debug, Default)]
pub struct PromotionsReport {
    /// How late each message was published.
    pub late: Vec<Duration>,
    /// Why some were not.
    pub failures: Vec<Failure>,
}

/// What publishes the messages that are due.
#[derive(Debug)]
pub struct Promotions {
    relay: Relay,
    question: Question,
}

impl Promotions {
    pub(super) fn new(relay: Relay) -> Self {
        Self { relay, question: Question::now() }
    }

    /// Waits until something is due, or is to be asked for, publishes what is due, and tells of it.
    ///
    /// # Cancel safety
    /// Not cancel-safe: what is due may be published, and nobody told of it.
    pub async fn step(&mut self) -> PromotionsReport {
        let inner = &self.relay.0.clone();
        let mut report = PromotionsReport::default();
        if !inner.timers.wait(&self.question).await {
            return report;
        }
        if self.question.is_due() {
            self.ask(&mut report).await;
        }
        let topics = inner.timers.take();
        if topics.is_empty() {
            return report;
        }
        let (schedules, policy) = (&inner.storage.schedules, inner.options.policy);
        let promoted = schedules.promote(&topics, policy, &Cron).await;
        for (topic, promoted) in topics.iter().zip(promoted) {
            match promoted {
                Ok(promoted) => {
                    report.late.extend(promoted.late);
                    if let Some(next_in) = promoted.next_in {
                        inner.timers.note(topic, next_in.max(LOOKED_EVERY));
                    }
                }
                Err(error) => {
                    report.failures.push(Failure::read(error, Some(topic)));
                    inner.timers.note(topic, RETRY);
                }
            }
        }
        report
    }

    /// Asks where something is due soon.
    async fn ask(&mut self, report: &mut PromotionsReport) {
        let inner = &self.relay.0;
        match inner.storage.schedules.due_within(HORIZON, ANSWER_MAX).await {
            Ok(due) => due.iter().for_each(|(topic, due_in)| inner.timers.note(topic, *due_in)),
            Err(error) => report.failures.push(Failure::read(error, None)),
        }
        self.question.asked();
    }
}
