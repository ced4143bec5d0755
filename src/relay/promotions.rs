//! Publishing messages when they are due: when to look where.
//!
//! A node knows when something is due in topics in which it has scheduled, and asks about once a second in which topics
//! something is due soon, whoever has scheduled it. It sleeps until the first of these times. All nodes do so, and
//! storage sees to it that each message is published once; whoever looks in vain has lost a look.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use parking_lot::Mutex;
use tidemill_proto::TopicName;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::recurrence::Cron;
use super::{Failure, Relay};
use crate::chance::jittered;

/// How far ahead is looked: a little more than twice the longest time between two questions.
const HORIZON: Duration = Duration::from_millis(2_500);
/// Longest time between two questions of where something is due.
const ASKED_EVERY: Duration = Duration::from_secs(1);
/// Topics told in one answer; where there are more, the others come with the next.
const TOPICS_MAX: usize = 10_000;
/// Topics that are looked at in one step.
const STEP_TOPICS: usize = 64;
/// Time between two looks at a topic: what is due within is published together.
const LOOKED_EVERY: Duration = Duration::from_millis(2);
/// Time until a topic is looked at again where that has failed.
const RETRY: Duration = Duration::from_secs(1);

/// When topics are to be looked at.
#[derive(Debug, Default)]
pub(super) struct Timers {
    open: Mutex<Open>,
    earlier: Notify,
}

#[derive(Debug, Default)]
struct Open {
    by_topic: HashMap<TopicName, Instant>,
    by_time: BTreeSet<(Instant, TopicName)>,
}

impl Timers {
    /// Notes that something is due in a topic; what is far off is asked for in time.
    pub(super) fn note(&self, topic: &TopicName, due_in: Duration) {
        if due_in > HORIZON {
            return;
        }
        let at = Instant::now() + due_in;
        let is_first = {
            let mut open = self.open.lock();
            let known = open.by_topic.get(topic).copied();
            if known.is_some_and(|known| known <= at) {
                return;
            }
            if let Some(known) = known {
                open.by_time.remove(&(known, topic.clone()));
            }
            open.by_topic.insert(topic.clone(), at);
            open.by_time.insert((at, topic.clone()));
            open.by_time.first().is_some_and(|(first, of)| *first == at && of == topic)
        };
        if is_first {
            self.earlier.notify_one();
        }
    }

    fn first(&self) -> Option<Instant> {
        self.open.lock().by_time.first().map(|(at, _)| *at)
    }

    /// Takes topics whose time has come.
    fn take(&self, now: Instant) -> Vec<TopicName> {
        let mut open = self.open.lock();
        let mut topics = Vec::new();
        while topics.len() < STEP_TOPICS
            && open.by_time.first().is_some_and(|(at, _)| *at <= now)
            && let Some((_, topic)) = open.by_time.pop_first()
        {
            open.by_topic.remove(&topic);
            topics.push(topic);
        }
        topics
    }
}

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
    next_question: Instant,
}

impl Promotions {
    pub(super) fn new(relay: Relay) -> Self {
        Self { relay, next_question: Instant::now() }
    }

    /// Waits until something is due, or is to be asked for, publishes what is due, and tells of it.
    ///
    /// # Cancel safety
    /// Not cancel-safe: what is due may be published, and nobody told of it.
    pub async fn step(&mut self) -> PromotionsReport {
        let inner = &self.relay.0.clone();
        let first = inner.timers.first().unwrap_or(self.next_question).min(self.next_question);
        tokio::select! {
            () = sleep_until(first) => {}
            () = inner.timers.earlier.notified() => return PromotionsReport::default(),
        }
        let mut report = PromotionsReport::default();
        if self.next_question <= Instant::now() {
            self.ask(&mut report).await;
        }
        let topics = inner.timers.take(Instant::now());
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
        match inner.storage.schedules.due_within(HORIZON, TOPICS_MAX).await {
            Ok(due) => due.iter().for_each(|(topic, due_in)| inner.timers.note(topic, *due_in)),
            Err(error) => report.failures.push(Failure::read(error, None)),
        }
        self.next_question = Instant::now() + jittered(ASKED_EVERY);
    }
}
