//! Lanes: the queues in which appends wait for the next pipeline.
//!
//! A topic always has the same lane, so its messages keep the order in which they were queued. What
//! arrives while pipelines are under way forms the next one, which is sent when one of them is answered,
//! or behind them once enough wait, so that the server has something to do while replies are read
//! (`pacing` has the numbers). So batches grow with the load, and a message that finds the lane at rest
//! waits for nobody: there is no timer. Where many publishers were answered, the lane lets them go first:
//! what they send at once comes along.
//!
//! All pipelines go out in order. Where messages must be sent again, because their topic has to be made
//! first, the lane waits for everything under way: none is sent behind a later one of its topic.
//!
//! What may wait is bounded in messages and bytes for all lanes together. What waited too long, or
//! waits while the connection goes down, is answered as not sent.
//!
//! Lanes do not know how a pipeline is sent: that is a [`Pipeline`]'s.

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesOrdered;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::yield_now;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::failure::Failure;
use super::options::ValkeyOptions;
use super::pipeline::{Outcome, Pipeline, PipelineResult};
use crate::storage::{NewMessage, StorageError};
use pacing::Step;

mod pacing;

/// How many lanes there are: enough that a slow pipeline (a topic being created, a large bulk) does
/// not hold up all topics, few enough that batches form.
const LANES: usize = 4;
/// The lanes of a server.
#[derive(Debug)]
pub(super) struct Lanes {
    lanes: Vec<Queue>,
    hasher: RandomState,
    budget: Arc<QueueBudget>,
}

/// The way into a lane.
#[derive(Debug)]
struct Queue {
    tx: mpsc::Sender<Job>,
    queued: Arc<Queued>,
}

/// What waits in a lane. Counting and being told are not one step: at worst a pipeline is sent when the
/// one under way is answered, and not behind it.
#[derive(Debug)]
struct Queued {
    messages: AtomicUsize,
    /// How many are enough for a pipeline behind the one under way.
    enough: AtomicUsize,
    /// Told when there are.
    full: Notify,
}

impl Default for Queued {
    fn default() -> Self {
        Self {
            messages: AtomicUsize::new(0),
            enough: AtomicUsize::new(pacing::enough_behind(0)),
            full: Notify::new(),
        }
    }
}

impl Queued {
    fn put(&self, messages: usize) {
        let before = self.messages.fetch_add(messages, Ordering::Relaxed);
        let enough = self.enough.load(Ordering::Relaxed);
        if before < enough && before + messages >= enough {
            self.full.notify_one();
        }
    }

    /// Notes what is under way now.
    fn sent(&self, messages: usize) {
        self.enough.store(pacing::enough_behind(messages), Ordering::Relaxed);
    }

    /// Returns what a lane does next that has so many pipelines under way.
    fn next(&self, pipelines: usize) -> Step {
        pacing::next(pipelines, self.messages.load(Ordering::Relaxed), self.enough.load(Ordering::Relaxed))
    }

    fn take(&self, job: &Job) {
        self.messages.fetch_sub(job.ticket.messages, Ordering::Relaxed);
    }
}

/// Messages of one call for one lane.
#[derive(Debug)]
struct Job {
    messages: Vec<NewMessage>,
    reply: oneshot::Sender<Vec<Outcome>>,
    queued_at: Instant,
    ticket: Ticket,
}

impl Lanes {
    /// Starts the lanes on `tracker`, until `token` is cancelled.
    pub(super) fn start<P: Pipeline>(
        pipeline: &Arc<P>,
        options: &ValkeyOptions,
        tracker: &TaskTracker,
        token: &CancellationToken,
    ) -> Self {
        let budget = Arc::new(QueueBudget {
            messages: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            messages_max: options.queue_messages_max,
            bytes_max: options.queue_bytes_max,
        });
        let lanes = (0..LANES)
            .map(|_| {
                // Every job holds at least one message of the budget, so the channel never fills first.
                let (tx, rx) = mpsc::channel(options.queue_messages_max.max(1));
                let queued = Arc::new(Queued::default());
                let queue = Queue { tx, queued: queued.clone() };
                let lane = Lane { rx, queued, pipeline: pipeline.clone(), queue_wait_max: options.timeout };
                tracker.spawn(token.clone().run_until_cancelled_owned(lane.run()));
                queue
            })
            .collect();
        Self { lanes, hasher: RandomState::new(), budget }
    }

    /// Appends messages and returns a result for each, in the order given.
    pub(super) async fn append(&self, batch: Vec<NewMessage>) -> Vec<Outcome> {
        let Some((first, rest)) = batch.split_first() else { return Vec::new() };
        let lane = self.lane_of(&first.topic);
        if rest.iter().all(|message| self.lane_of(&message.topic) == lane) {
            return self.queue(lane, batch).await;
        }
        let count = batch.len();
        let mut parts: Vec<(Vec<usize>, Vec<NewMessage>)> =
            self.lanes.iter().map(|_| <_>::default()).collect();
        for (place, message) in batch.into_iter().enumerate() {
            let (places, messages) = &mut parts[self.lane_of(&message.topic)];
            places.push(place);
            messages.push(message);
        }
        // All are queued before any is waited for.
        let part = |(lane, (places, messages)): (usize, (_, Vec<_>))| (places, self.queue(lane, messages));
        let parts: Vec<(Vec<usize>, _)> = parts.into_iter().enumerate().map(part).collect();
        let mut outcomes: Vec<Option<Outcome>> = (0..count).map(|_| None).collect();
        for (places, results) in parts {
            for (place, result) in places.into_iter().zip(results.await) {
                outcomes[place] = Some(result);
            }
        }
        outcomes.into_iter().map(|outcome| outcome.expect("every place belongs to one lane")).collect()
    }

    fn lane_of(&self, topic: &impl Hash) -> usize {
        usize::try_from(self.hasher.hash_one(topic) % self.lanes.len() as u64).unwrap_or(0)
    }

    /// Queues messages at once, and returns what waits for their results.
    fn queue(
        &self,
        lane: usize,
        messages: Vec<NewMessage>,
    ) -> impl Future<Output = Vec<Outcome>> + Send + use<> {
        let count = messages.len();
        let queued = self.try_queue(lane, messages);
        async move {
            let refuse = |error: &dyn Fn() -> StorageError| (0..count).map(|_| Err(error())).collect();
            match queued {
                Ok(reply) => match reply.await {
                    Ok(outcomes) => outcomes,
                    // The lane has given up messages that it had taken: they may be on their way.
                    Err(_) => refuse(&|| StorageError::Indeterminate(Failure::Lost.into())),
                },
                Err(refusal) => refuse(&refusal),
            }
        }
    }

    fn try_queue(
        &self,
        lane: usize,
        messages: Vec<NewMessage>,
    ) -> Result<oneshot::Receiver<Vec<Outcome>>, fn() -> StorageError> {
        let overloaded: fn() -> StorageError = || StorageError::Overloaded;
        let count = messages.len();
        let bytes = messages.iter().map(|message| message.body.len_bytes()).sum();
        let ticket = QueueBudget::take(&self.budget, count, bytes).ok_or(overloaded)?;
        let (reply, receiver) = oneshot::channel();
        let job = Job { messages, reply, queued_at: Instant::now(), ticket };
        let Queue { tx, queued } = &self.lanes[lane];
        // Before it is there, so that what is taken out was counted in.
        queued.put(count);
        let Err(error) = tx.try_send(job) else { return Ok(receiver) };
        queued.messages.fetch_sub(count, Ordering::Relaxed);
        Err(match error {
            mpsc::error::TrySendError::Full(_) => overloaded,
            mpsc::error::TrySendError::Closed(_) => {
                || StorageError::Unavailable(Failure::Down("the relay is stopping".to_owned()).into())
            }
        })
    }
}

/// What may wait for the server, on this node.
#[derive(Debug)]
struct QueueBudget {
    messages: AtomicUsize,
    bytes: AtomicUsize,
    messages_max: usize,
    bytes_max: usize,
}

/// A part of the budget, given back when dropped.
#[derive(Debug)]
struct Ticket {
    budget: Arc<QueueBudget>,
    messages: usize,
    bytes: usize,
}

impl QueueBudget {
    fn take(budget: &Arc<Self>, messages: usize, bytes: usize) -> Option<Ticket> {
        let messages_before = budget.messages.fetch_add(messages, Ordering::Relaxed);
        let bytes_before = budget.bytes.fetch_add(bytes, Ordering::Relaxed);
        let ticket = Ticket { budget: budget.clone(), messages, bytes };
        // A batch that is larger than the whole budget passes when nothing else waits.
        let fits = |before: usize, more: usize, max: usize| before == 0 || before + more <= max;
        let fits = fits(messages_before, messages, budget.messages_max)
            && fits(bytes_before, bytes, budget.bytes_max);
        fits.then_some(ticket)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.budget.messages.fetch_sub(self.messages, Ordering::Relaxed);
        self.budget.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// One lane's task.
struct Lane<P> {
    rx: mpsc::Receiver<Job>,
    queued: Arc<Queued>,
    pipeline: Arc<P>,
    queue_wait_max: Duration,
}

/// A pipeline that has been answered.
struct Answered {
    jobs: Vec<Sent>,
    result: PipelineResult,
}

/// A job whose messages were sent.
struct Sent {
    messages: usize,
    reply: oneshot::Sender<Vec<Outcome>>,
    ticket: Ticket,
}

impl<P: Pipeline> Lane<P> {
    async fn run(mut self) {
        let pipeline = self.pipeline.clone();
        let mut under_way = FuturesOrdered::new();
        loop {
            let step = self.queued.next(under_way.len());
            let first = match step {
                Step::Rest => match self.rx.recv().await {
                    Some(first) => Some(first),
                    None => return,
                },
                // It may be counted and not be there yet.
                Step::Send => self.rx.try_recv().ok(),
                Step::AnswerOrEnough | Step::Answer => None,
            };
            if let Some(first) = first {
                let jobs = self.take_waiting(first);
                if !jobs.is_empty() {
                    under_way.push_back(send(&*pipeline, jobs));
                }
                continue;
            }
            let answered = tokio::select! {
                biased;
                answered = under_way.next() => answered,
                () = self.queued.full.notified(), if step != Step::Answer => continue,
            };
            match answered {
                None => {}
                Some(answered) if answered.result.again.is_empty() => {
                    let calls = answered.jobs.len();
                    answered.answer();
                    if pacing::lets_go_first(calls) && pipeline.is_up() {
                        yield_now().await;
                    }
                }
                Some(answered) => mend(&*pipeline, answered, &mut under_way).await,
            }
            // Pipelines whose connection is lost have ended with it. What waits behind them is not sent.
            if !pipeline.is_up() {
                self.refuse_waiting();
            }
        }
    }

    fn refuse_waiting(&mut self) {
        let reason = self.pipeline.last_error();
        while let Ok(job) = self.rx.try_recv() {
            self.queued.take(&job);
            job.refuse(|| Failure::Down(reason.clone()));
        }
    }

    /// Takes what waits, up to the bounds of a pipeline.
    fn take_waiting(&mut self, first: Job) -> Vec<Job> {
        let (mut messages, mut bytes) = (0, 0);
        let mut jobs = Vec::with_capacity(1 + self.rx.len().min(pacing::PIPELINE_MESSAGES_MAX));
        let mut next = Some(first);
        while let Some(job) = next {
            self.queued.take(&job);
            if job.queued_at.elapsed() > self.queue_wait_max {
                job.refuse(|| Failure::Expired);
            } else {
                messages += job.ticket.messages;
                bytes += job.ticket.bytes;
                jobs.push(job);
            }
            next = if pacing::takes_more(messages, bytes) { self.rx.try_recv().ok() } else { None };
        }
        if messages > 0 {
            self.queued.sent(messages);
        }
        jobs
    }
}

impl Job {
    fn refuse(self, failure: impl Fn() -> Failure) {
        let refused = |_| Err(StorageError::Unavailable(failure().into()));
        // A publisher that no longer waits needs no answer.
        let _ = self.reply.send(self.messages.into_iter().map(refused).collect());
    }
}

async fn send<P: Pipeline>(pipeline: &P, jobs: Vec<Job>) -> Answered {
    let mut sent = Vec::with_capacity(jobs.len());
    let mut messages = Vec::with_capacity(jobs.iter().map(|job| job.messages.len()).sum());
    for Job { messages: more, reply, ticket, .. } in jobs {
        sent.push(Sent { messages: more.len(), reply, ticket });
        messages.extend(more);
    }
    Answered { jobs: sent, result: pipeline.send(messages).await }
}

/// Waits for everything under way, sends again what is to be sent again, in its order, and answers the
/// publishers.
async fn mend<P, F>(pipeline: &P, first: Answered, under_way: &mut FuturesOrdered<F>)
where
    P: Pipeline,
    F: Future<Output = Answered>,
{
    let mut all = vec![first];
    while let Some(next) = under_way.next().await {
        all.push(next);
    }
    for at in 0..all.len() {
        let (before, behind) = all.split_at_mut(at + 1);
        let Some(Answered { result: PipelineResult { outcomes, again, .. }, .. }) = before.last_mut() else {
            continue;
        };
        // Another publisher has made the topic at this moment, and later messages are in it already.
        let is_late =
            |message: &NewMessage| behind.iter().any(|later| later.result.appended.contains(&message.topic));
        let (late, rest): (Vec<_>, Vec<_>) =
            std::mem::take(again).into_iter().partition(|(_, message)| is_late(message));
        *again = rest;
        for (place, _) in late {
            let cause = Failure::NotCreated("another publisher has made it at this moment".to_owned());
            outcomes[place] = Some(Err(StorageError::Unavailable(cause.into())));
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
    let outcomes = pipeline.send_again(messages).await;
    for ((at, place), outcome) in places.into_iter().zip(outcomes) {
        all[at].result.outcomes[place] = Some(outcome);
    }
    all.into_iter().for_each(Answered::answer);
}

impl Answered {
    fn answer(self) {
        let mut outcomes = self.result.outcomes.into_iter();
        for Sent { messages, reply, ticket } in self.jobs {
            let outcome = |_| outcomes.next().flatten().expect("every message was decided");
            let results = (0..messages).map(outcome).collect();
            drop(ticket);
            let _ = reply.send(results);
        }
    }
}

#[cfg(test)]
mod tests;
