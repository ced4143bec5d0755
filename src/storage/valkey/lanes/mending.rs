//! Pipelines that were answered: what is to be sent again is, in its order, and publishers are told.

use futures_util::StreamExt as _;
use futures_util::stream::FuturesOrdered;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::budget::Ticket;
use super::{Job, Told};
use crate::slow::Spent;
use crate::storage::valkey::failure::Failure;
use crate::storage::valkey::pipeline::{Outcome, Pipeline, PipelineResult};
use crate::storage::{NewMessage, StorageError};
use crate::traces;

/// A pipeline that has been answered.
pub(super) struct Answered {
    jobs: Vec<Sent>,
    result: PipelineResult,
}

/// A job whose messages were sent.
struct Sent {
    messages: usize,
    reply: oneshot::Sender<Told>,
    ticket: Ticket,
    queued_at: Instant,
    sent_at: Instant,
}

pub(super) async fn send<P: Pipeline>(pipeline: &P, jobs: Vec<Job>) -> Answered {
    let sent_at = Instant::now();
    let mut sent = Vec::with_capacity(jobs.len());
    let count = jobs.iter().map(|job| job.messages.len()).sum();
    let mut messages = Vec::with_capacity(count);
    let span = traces::pipeline(jobs.iter().map(|job| &job.carried), jobs.len(), count);
    for Job { messages: more, reply, ticket, queued_at, .. } in jobs {
        sent.push(Sent { messages: more.len(), reply, ticket, queued_at, sent_at });
        messages.extend(more);
    }
    let result = pipeline.send(messages).await;
    if let (Some(notes), Some(error)) = (span.notes(), result.failure()) {
        notes.failed(error, true);
    }
    Answered { jobs: sent, result }
}

/// Waits for everything under way, sends again what is to be sent again, in its order, and answers the
/// publishers. What is to be sent elsewhere is handed on, and its publishers are answered when that is.
pub(super) async fn mend<P, F>(
    pipeline: &P,
    first: Answered,
    under_way: &mut FuturesOrdered<F>,
    tracker: &TaskTracker,
) where
    P: Pipeline,
    F: Future<Output = Answered>,
{
    let mut all = vec![first];
    while let Some(next) = under_way.next().await {
        all.push(next);
    }
    for at in 0..all.len() {
        let (before, behind) = all.split_at_mut(at + 1);
        let Some(Answered { result: PipelineResult { outcomes, again, elsewhere, .. }, .. }) =
            before.last_mut()
        else {
            continue;
        };
        // Another publisher has made the topic at this moment, or a part of its slot was on its way, and later
        // messages are in it already.
        let is_late = |(_, message): &mut (usize, NewMessage)| {
            behind.iter().any(|later| later.result.appended.contains(&message.topic))
        };
        for (place, _) in again.extract_if(.., is_late).chain(elsewhere.extract_if(.., is_late)) {
            let cause = Failure::Overtaken.into();
            outcomes[place] = Some(Err(StorageError::Unavailable(cause)));
        }
    }
    let mut places = Vec::new();
    let mut messages = Vec::new();
    for (at, answered) in all.iter_mut().enumerate() {
        for (place, message) in answered.result.again.drain(..) {
            places.push((at, place));
            messages.push(message);
        }
    }
    if !messages.is_empty() {
        let outcomes = pipeline.send_again(messages).await;
        for ((at, place), outcome) in places.drain(..).zip(outcomes) {
            all[at].result.outcomes[place] = Some(outcome);
        }
    }
    // Only those wait whose messages go elsewhere.
    let mut open: Vec<(Sent, Vec<Option<Outcome>>)> = Vec::new();
    let (mut places, mut messages) = (Vec::new(), Vec::new());
    for Answered { jobs, result } in all {
        let (mut outcomes, mut elsewhere) =
            (result.outcomes.into_iter(), result.elsewhere.into_iter().peekable());
        let mut first = 0;
        let now = Instant::now();
        for job in jobs {
            let (behind, before) = (first + job.messages, messages.len());
            let own: Vec<Option<Outcome>> = outcomes.by_ref().take(job.messages).collect();
            while let Some((place, message)) = elsewhere.next_if(|(place, _)| *place < behind) {
                places.push((open.len(), place - first));
                messages.push(message);
            }
            if messages.len() == before {
                job.answer(own.into_iter(), now);
            } else {
                open.push((job, own));
            }
            first = behind;
        }
    }
    if messages.is_empty() {
        return;
    }
    let handed_on = pipeline.hand_on(messages);
    tracker.spawn(async move {
        for ((job, place), outcome) in places.into_iter().zip(handed_on.await) {
            open[job].1[place] = Some(outcome);
        }
        let now = Instant::now();
        for (job, own) in open {
            job.answer(own.into_iter(), now);
        }
    });
}

impl Answered {
    /// Whether every message has its outcome.
    pub(super) fn is_whole(&self) -> bool {
        self.result.is_whole()
    }

    /// Returns how many calls it answers.
    pub(super) fn calls(&self) -> usize {
        self.jobs.len()
    }

    pub(super) fn answer(self) {
        let mut outcomes = self.result.outcomes.into_iter();
        let now = Instant::now();
        for job in self.jobs {
            let own = outcomes.by_ref().take(job.messages);
            job.answer(own, now);
        }
    }
}

impl Sent {
    fn answer(self, outcomes: impl Iterator<Item = Option<Outcome>>, now: Instant) {
        let results = outcomes.map(|outcome| outcome.expect("every message was decided")).collect();
        drop(self.ticket);
        // A publisher that no longer waits needs no answer.
        let spent = Spent::between(self.queued_at, self.sent_at, now);
        let _ = self.reply.send(Told { outcomes: results, spent });
    }
}
