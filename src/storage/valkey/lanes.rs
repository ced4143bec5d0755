//! Lanes: the queues in which appends wait for the next pipeline.
//!
//! A topic always has the same lane, so its messages keep the order in which they were queued. A
//! lane has one pipeline under way; what arrives meanwhile forms the next one. So batches grow with
//! the load, and a message that finds the lane at rest waits for nobody: there is no timer. Where many
//! publishers were answered, the lane lets them go first: what they send at once comes along.
//!
//! Once enough wait, they are sent behind what is under way, so that the server has
//! something to do while replies are read. All go over one connection, in order. Where messages must be
//! sent again, because their topic has to be made first, the lane waits for everything under way: none
//! is sent behind a later one of its topic.
//!
//! What may wait is bounded in messages and bytes for all lanes together. What waited too long, or
//! waits while the connection goes down, is answered as not sent.

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesOrdered;
use tidemill_proto::TopicName;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::yield_now;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::failure::Failure;
use super::options::ValkeyOptions;
use super::sending::{Round, Sender};
use crate::storage::{Appended, NewMessage, StorageError};

/// How many lanes there are: enough that a slow pipeline (a topic being created, a large bulk) does
/// not hold up all topics, few enough that batches form.
const LANES: usize = 4;
/// Most messages taken into one pipeline. Past a few hundred a larger one gains little, and the
/// first message in it waits for the last. A single call's batch is never split.
const PIPELINE_MESSAGES_MAX: usize = 512;
/// Messages that have to wait before they are sent behind a pipeline that is under way: half as many as
/// that has, within these bounds. So some take turns, of a size that what a pipeline costs, whatever is in
/// it, is little for each message.
const BEHIND_MESSAGES_MIN: usize = 12;
const BEHIND_MESSAGES_MAX: usize = 128;
/// Pipelines of a lane that are under way: one with the server, one on its way, and one whose publishers are
/// being answered. With fewer, all messages of a small crowd of publishers can wait for one and the same.
const PIPELINES_MAX: usize = 3;
/// Most calls answered at once behind which a lane goes on at once: as many as one connection has.
const CALLS_FEW: usize = 4;
/// Most message bytes taken into one pipeline, so that one pipeline stays far from any timeout.
const PIPELINE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The result of one append.
pub(super) type Outcome = Result<Appended, StorageError>;

/// The lanes of a node.
#[derive(Debug)]
pub(super) struct Lanes {
    lanes: Vec<Queue>,
    hasher: RandomState,
    budget: Arc<Budget>,
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
            enough: AtomicUsize::new(BEHIND_MESSAGES_MIN),
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
        let enough = (messages / 2).clamp(BEHIND_MESSAGES_MIN, BEHIND_MESSAGES_MAX);
        self.enough.store(enough, Ordering::Relaxed);
    }

    fn is_full(&self) -> bool {
        self.messages.load(Ordering::Relaxed) >= self.enough.load(Ordering::Relaxed)
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
    pub(super) fn start(
        sender: &Arc<Sender>,
        options: &ValkeyOptions,
        tracker: &TaskTracker,
        token: &CancellationToken,
    ) -> Self {
        let budget = Arc::new(Budget {
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
                let lane = Lane { rx, queued, sender: sender.clone(), queue_wait_max: options.timeout };
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
        let ticket = Budget::take(&self.budget, count, bytes).ok_or(overloaded)?;
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
struct Budget {
    messages: AtomicUsize,
    bytes: AtomicUsize,
    messages_max: usize,
    bytes_max: usize,
}

/// A part of the budget, given back when dropped.
#[derive(Debug)]
struct Ticket {
    budget: Arc<Budget>,
    messages: usize,
    bytes: usize,
}

impl Budget {
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
struct Lane {
    rx: mpsc::Receiver<Job>,
    queued: Arc<Queued>,
    sender: Arc<Sender>,
    queue_wait_max: Duration,
}

/// A pipeline that has been answered.
struct Answered {
    jobs: Vec<Sent>,
    round: Round,
}

/// A job whose messages were sent.
struct Sent {
    messages: usize,
    reply: oneshot::Sender<Vec<Outcome>>,
    ticket: Ticket,
}

impl Lane {
    async fn run(mut self) {
        let mut creates = self.sender.watch_creating();
        let sender = self.sender.clone();
        let mut under_way = FuturesOrdered::new();
        loop {
            let first = if under_way.is_empty() {
                self.rx.recv().await
            } else if under_way.len() < PIPELINES_MAX && self.queued.is_full() {
                self.rx.try_recv().ok()
            } else {
                None
            };
            let has_more = first.is_some();
            if let Some(first) = first {
                let jobs = self.take_waiting(first);
                if !jobs.is_empty() {
                    under_way.push_back(send(&sender, jobs));
                }
            } else if under_way.is_empty() {
                return;
            }
            let has_room = under_way.len() < PIPELINES_MAX;
            if under_way.is_empty() || (has_more && has_room && self.queued.is_full()) {
                continue;
            }
            let answered = tokio::select! {
                biased;
                answered = under_way.next() => answered,
                () = self.queued.full.notified(), if has_room => continue,
            };
            match answered {
                None => {}
                Some(answered) if answered.round.again.is_empty() => {
                    let calls = answered.jobs.len();
                    answered.answer();
                    if calls > CALLS_FEW && self.sender.is_up() {
                        // These publishers may have something to send at once.
                        yield_now().await;
                    }
                }
                Some(answered) => mend(&sender, answered, &mut under_way, &mut creates).await,
            }
            // Pipelines whose connection is lost have ended with it. What waits behind them is not sent.
            if !self.sender.is_up() {
                self.refuse_waiting();
            }
        }
    }

    fn refuse_waiting(&mut self) {
        let reason = self.sender.last_error();
        while let Ok(job) = self.rx.try_recv() {
            self.queued.take(&job);
            job.refuse(|| Failure::Down(reason.clone()));
        }
    }

    /// Takes what waits, up to the bounds of a pipeline.
    fn take_waiting(&mut self, first: Job) -> Vec<Job> {
        let (mut messages, mut bytes) = (0, 0);
        let mut jobs = Vec::with_capacity(1 + self.rx.len().min(PIPELINE_MESSAGES_MAX));
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
            let room = messages < PIPELINE_MESSAGES_MAX && bytes < PIPELINE_BYTES_MAX;
            next = if room { self.rx.try_recv().ok() } else { None };
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

/// Waits until the role goes from up to down.
async fn goes_down(up: &mut watch::Receiver<bool>) {
    let _ = up.wait_for(|up| *up).await;
    if up.wait_for(|up| !*up).await.is_err() {
        // The role is gone with the backend, which ends the lanes.
        std::future::pending::<()>().await;
    }
}

async fn send(sender: &Sender, jobs: Vec<Job>) -> Answered {
    let mut sent = Vec::with_capacity(jobs.len());
    let mut messages = Vec::with_capacity(jobs.iter().map(|job| job.messages.len()).sum());
    for Job { messages: more, reply, ticket, .. } in jobs {
        sent.push(Sent { messages: more.len(), reply, ticket });
        messages.extend(more);
    }
    Answered { jobs: sent, round: sender.send(messages).await }
}

/// Waits for everything under way, sends again what is to be sent again, in its order, and answers the
/// publishers.
async fn mend<F>(
    sender: &Sender,
    first: Answered,
    under_way: &mut FuturesOrdered<F>,
    creates: &mut watch::Receiver<bool>,
) where
    F: Future<Output = Answered>,
{
    let mut all = vec![first];
    while let Some(next) = under_way.next().await {
        all.push(next);
    }
    for at in 0..all.len() {
        let (before, behind) = all.split_at_mut(at + 1);
        let Some(Answered { round: Round { outcomes, again, .. }, .. }) = before.last_mut() else { continue };
        // Another publisher has made the topic at this moment, and later messages are in it already.
        let is_late =
            |message: &NewMessage| behind.iter().any(|later| later.round.appended.contains(&message.topic));
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
        for (place, message) in answered.round.again.drain(..) {
            places.push((at, place));
            messages.push(message);
        }
    }
    let topics: Vec<TopicName> = messages.iter().map(|message| message.topic.clone()).collect();
    let outcomes = tokio::select! {
        biased;
        outcomes = sender.send_again(messages) => outcomes,
        // Without the connection that creates topics there is no answer to wait for, and what became of
        // these messages is not known.
        () = goes_down(creates) => {
            sender.tell_unanswered(&topics);
            places.iter().map(|_| Err(StorageError::Indeterminate(Failure::Lost.into()))).collect()
        }
    };
    for ((at, place), outcome) in places.into_iter().zip(outcomes) {
        all[at].round.outcomes[place] = Some(outcome);
    }
    all.into_iter().for_each(Answered::answer);
}

impl Answered {
    fn answer(self) {
        let mut outcomes = self.round.outcomes.into_iter();
        for Sent { messages, reply, ticket } in self.jobs {
            let outcome = |_| outcomes.next().flatten().expect("every message was decided");
            let results = (0..messages).map(outcome).collect();
            drop(ticket);
            let _ = reply.send(results);
        }
    }
}
