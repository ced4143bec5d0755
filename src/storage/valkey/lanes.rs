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
//! In a cluster a topic may come to live on another server. What a pipeline did not get rid of by that is handed on, in
//! its order, and sent elsewhere (see `detour`); what comes later for the topic is held there until the lane has none of it
//! left, which the lane tells when it comes by a mark in its queue.
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

use super::failure::{Failure, same};
use super::options::ValkeyOptions;
use super::pipeline::{Outcome, Pipeline};
use super::slots::SLOTS;
use crate::slow::{self, Spent};
use crate::storage::{NewMessage, StorageError};
use crate::traces::Carried;
use budget::{QueueBudget, Ticket};
use mending::{mend, send};
use pacing::Step;

mod budget;
pub(super) mod detour;
mod mending;
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
    tx: mpsc::Sender<Item>,
    queued: Arc<Queued>,
}

/// What stands in a lane.
#[derive(Debug)]
enum Item {
    Job(Job),
    /// A mark: told, or dropped, when everything in front of it was answered or handed on.
    Mark(oneshot::Sender<()>),
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

/// What came of messages, and what was spent on them.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) outcomes: Vec<Outcome>,
    pub(super) spent: Spent,
}

impl Told {
    /// Returns outcomes on which nothing was spent.
    fn at_once(outcomes: Vec<Outcome>) -> Self {
        Self { outcomes, spent: Spent::default() }
    }
}

/// Messages of one call for one lane.
#[derive(Debug)]
struct Job {
    messages: Vec<NewMessage>,
    reply: oneshot::Sender<Told>,
    queued_at: Instant,
    ticket: Ticket,
    /// Which spans they belong to.
    carried: Carried,
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
                // Every job holds at least one message of the budget, and there is at most one mark for each slot, so
                // the channel never fills first.
                let (tx, rx) = mpsc::channel(options.queue_messages_max.saturating_add(usize::from(SLOTS)));
                let queued = Arc::new(Queued::default());
                let queue = Queue { tx, queued: queued.clone() };
                let lane = Lane {
                    rx,
                    queued,
                    pipeline: pipeline.clone(),
                    queue_wait_max: options.timeout,
                    mark: None,
                    tracker: tracker.clone(),
                };
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
            return noted(self.queue(lane, batch).told().await);
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
        outcomes_of(parts, count).await
    }

    fn lane_of(&self, topic: &impl Hash) -> usize {
        usize::try_from(self.hasher.hash_one(topic) % self.lanes.len() as u64).unwrap_or(0)
    }

    /// Returns the lane of the topics in a slot.
    pub(super) fn lane_of_slot(slot: u16) -> usize {
        usize::from(slot) % LANES
    }

    /// Returns what waits until all lanes of these slots have nothing left that is in them now.
    pub(super) fn passed(&self, slots: impl Iterator<Item = u16>) -> Vec<oneshot::Receiver<()>> {
        let mut is_in = [false; LANES];
        slots.for_each(|slot| is_in[Self::lane_of_slot(slot)] = true);
        let lanes = self.lanes.iter().zip(is_in).filter(|(_, is_in)| *is_in);
        lanes
            .map(|(Queue { tx, .. }, _)| {
                let (mark, passed) = oneshot::channel();
                // A lane that has ended has nothing left.
                let _ = tx.try_send(Item::Mark(mark));
                passed
            })
            .collect()
    }

    /// Queues messages at once, and returns what waits for their results.
    pub(super) fn queue(&self, lane: usize, messages: Vec<NewMessage>) -> Queueing {
        let count = messages.len();
        Queueing { count, queued: self.try_queue(lane, messages) }
    }

    fn try_queue(&self, lane: usize, messages: Vec<NewMessage>) -> Result<Receiver, StorageError> {
        let (job, receiver) = Job::new(messages, &self.budget)?;
        match self.put(lane, job) {
            Ok(()) => Ok(receiver),
            Err(mpsc::error::TrySendError::Full(_)) => Err(StorageError::Overloaded),
            Err(mpsc::error::TrySendError::Closed(_)) => {
                Err(StorageError::Unavailable(Failure::Stopping.into()))
            }
        }
    }

    fn put(&self, lane: usize, job: Job) -> Result<(), mpsc::error::TrySendError<Item>> {
        let Queue { tx, queued } = &self.lanes[lane];
        let count = job.ticket.messages;
        // Before it is there, so that what is taken out was counted in.
        queued.put(count);
        tx.try_send(Item::Job(job)).inspect_err(|_| {
            queued.messages.fetch_sub(count, Ordering::Relaxed);
        })
    }
}

type Receiver = oneshot::Receiver<Told>;

/// Messages that were queued, or refused.
#[derive(Debug)]
pub(super) struct Queueing {
    pub(super) count: usize,
    pub(super) queued: Result<Receiver, StorageError>,
}

impl Queueing {
    /// Waits for the outcomes.
    pub(super) async fn told(self) -> Told {
        let refuse =
            |error: &StorageError| Told::at_once((0..self.count).map(|_| Err(same(error))).collect());
        match self.queued {
            Ok(reply) => match reply.await {
                Ok(told) => told,
                // The lane has given up messages that it had taken: they may be on their way.
                Err(_) => refuse(&StorageError::Indeterminate(Failure::Lost.into())),
            },
            Err(refusal) => refuse(&refusal),
        }
    }
}

/// Notes what was spent on messages, and returns what came of them.
fn noted(Told { outcomes, spent }: Told) -> Vec<Outcome> {
    slow::note(spent);
    outcomes
}

/// Waits for the outcomes of parts of a call, each with its places in that.
pub(super) async fn outcomes_of(parts: Vec<(Vec<usize>, Queueing)>, count: usize) -> Vec<Outcome> {
    let mut outcomes: Vec<Option<Outcome>> = (0..count).map(|_| None).collect();
    let mut all_spent = Spent::default();
    for (places, queueing) in parts {
        let Told { outcomes: of_part, spent } = queueing.told().await;
        all_spent = all_spent.longest(spent);
        for (place, outcome) in places.into_iter().zip(of_part) {
            outcomes[place] = Some(outcome);
        }
    }
    slow::note(all_spent);
    outcomes.into_iter().map(|outcome| outcome.expect("every place belongs to one part")).collect()
}

/// One lane's task.
struct Lane<P> {
    rx: mpsc::Receiver<Item>,
    queued: Arc<Queued>,
    pipeline: Arc<P>,
    queue_wait_max: Duration,
    /// What stood in front of it is under way or answered.
    mark: Option<oneshot::Sender<()>>,
    tracker: TaskTracker,
}

impl<P: Pipeline> Lane<P> {
    async fn run(mut self) {
        let pipeline = self.pipeline.clone();
        let mut under_way = FuturesOrdered::new();
        loop {
            let step = match &self.mark {
                Some(_) if under_way.is_empty() => {
                    let _ = self.mark.take().map(|mark| mark.send(()));
                    continue;
                }
                Some(_) => Step::Answer,
                None => self.queued.next(under_way.len()),
            };
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
                Some(answered) if answered.is_whole() => {
                    let calls = answered.calls();
                    answered.answer();
                    if pacing::lets_go_first(calls) && pipeline.is_up() {
                        yield_now().await;
                    }
                }
                Some(answered) => mend(&*pipeline, answered, &mut under_way, &self.tracker).await,
            }
            // Pipelines whose connection is lost have ended with it. What waits behind them is not sent.
            if !pipeline.is_up() {
                self.refuse_waiting();
            }
        }
    }

    fn refuse_waiting(&mut self) {
        while let Ok(item) = self.rx.try_recv() {
            // What a mark stands for is true of one that is dropped.
            if let Item::Job(job) = item {
                self.queued.take(&job);
                job.refuse(|| self.pipeline.down());
            }
        }
    }

    /// Takes what waits, up to the bounds of a pipeline, or to a mark.
    fn take_waiting(&mut self, first: Item) -> Vec<Job> {
        let (mut messages, mut bytes) = (0, 0);
        let mut jobs = Vec::with_capacity(1 + self.rx.len().min(pacing::PIPELINE_MESSAGES_MAX));
        let mut next = Some(first);
        let now = Instant::now();
        while let Some(item) = next {
            let job = match item {
                Item::Job(job) => job,
                Item::Mark(mark) => {
                    self.mark = Some(mark);
                    break;
                }
            };
            self.queued.take(&job);
            if now.saturating_duration_since(job.queued_at) > self.queue_wait_max {
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
    /// Returns one that holds its part of the budget, and what its outcomes come by.
    fn new(messages: Vec<NewMessage>, budget: &Arc<QueueBudget>) -> Result<(Self, Receiver), StorageError> {
        let bytes = messages.iter().map(|message| message.body.len_bytes()).sum();
        let ticket = QueueBudget::take(budget, messages.len(), bytes).ok_or(StorageError::Overloaded)?;
        let (reply, receiver) = oneshot::channel();
        let carried = Carried::here();
        Ok((Self { messages, reply, queued_at: Instant::now(), ticket, carried }, receiver))
    }

    fn refuse(self, failure: impl Fn() -> Failure) {
        let refused = |_| Err(StorageError::Unavailable(failure().into()));
        let spent = Spent { queue: self.queued_at.elapsed(), ..Spent::default() };
        // A publisher that no longer waits needs no answer.
        let _ = self.reply.send(Told { outcomes: self.messages.into_iter().map(refused).collect(), spent });
    }
}

#[cfg(test)]
mod tests;
