//! A worker: claims messages of a group as it has room for them, runs a handler for each, and ends when it is told to.
//! What it does with one message is in [`job`](crate::job).

use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use tidemill_proto::TopicName;
use tidemill_proto::work::{ClaimRequest, ConsumerName, Delivered, GroupName};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::error::ClientError;
use crate::job::{Finished, Job, Stop, Terms, may_repeat, next_try, stopped};
use crate::options::{Backoff, random};
use crate::work::{Verdict, WorkClient, text};

/// Most messages that a worker has at a time.
pub const CONCURRENCY_MAX: usize = 1_000;
/// How long a claim waits for messages: at least and at most, and between them for half of what the messages are held
/// for, so that one whose answer was lost is repeated while it holds.
const CLAIM_WAIT: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(30)];
/// How long a worker that ends waits for the answer of a claim that may be on its way, and gives back what it has got.
const LAST_ANSWER: Duration = Duration::from_millis(200);
const GIVE_BACK: Duration = Duration::from_secs(5);

/// How a worker behaves.
#[derive(Clone, Copy, Debug)]
pub struct WorkerOptions {
    /// Most messages that it has at a time: 1 to [`CONCURRENCY_MAX`].
    pub concurrency: usize,
    /// After how many messages it ends by itself.
    pub jobs_max: Option<u64>,
    /// For how long it tries to tell the relay what became of a message: at least the `ack_wait` of the group.
    pub settle_for: Duration,
}

impl Default for WorkerOptions {
    fn default() -> Self {
        Self { concurrency: 1, jobs_max: None, settle_for: Duration::from_mins(1) }
    }
}

/// What a worker tells of itself.
#[derive(Clone, Debug)]
pub enum WorkerEvent {
    /// It has claimed so many messages, and begins with them.
    Claimed(usize),
    /// It is done with a message.
    Finished(Finished),
    /// No messages can be claimed now; it tries again. It is told once until [`Back`](Self::Back).
    Away(ClientError),
    /// They can be again.
    Back,
}

/// Claims messages of a group and has a handler work on each, until it is [told to end](Stopper).
///
/// A message is extended while its handler runs, at a third of the group's `ack_wait`, as that was when the worker was
/// made. It claims no more than it has room for, so that nothing lies idle with it. Claims are repeated for as long as
/// the relay is away, under the same `claim_id` where the answer may have been lost.
#[derive(Debug)]
pub struct Worker {
    terms: Terms,
    topic: TopicName,
    group: GroupName,
    consumer: ConsumerName,
    options: WorkerOptions,
    stop: watch::Sender<Stop>,
}

/// Tells a worker to end.
#[derive(Clone, Debug)]
pub struct Stopper(watch::Sender<Stop>);

impl Stopper {
    /// Has it claim no more, and end when what runs has ended.
    pub fn drain(&self) {
        self.raise(Stop::Drain);
    }

    /// Has it drop its handlers, give back what they were working on, and end.
    pub fn release(&self) {
        self.raise(Stop::Release);
    }

    fn raise(&self, to: Stop) {
        self.0.send_if_modified(|stop| {
            let is_more = *stop < to;
            *stop = to.max(*stop);
            is_more
        });
    }
}

/// A claim that is under way.
struct Attempt {
    request: ClaimRequest,
    pause: Duration,
}

impl WorkClient {
    /// Returns a worker of a group, by the settings that the group has now. Give each worker a `consumer` of its own.
    ///
    /// # Errors
    /// There is no such group, the relay refuses or does not answer, or an option is out of bounds.
    pub async fn worker(
        &self,
        topic: TopicName,
        group: GroupName,
        consumer: ConsumerName,
        options: WorkerOptions,
    ) -> Result<Worker, ClientError> {
        if !(1..=CONCURRENCY_MAX).contains(&options.concurrency) {
            let rule = format!("a worker has 1 to {CONCURRENCY_MAX} messages at a time");
            return Err(ClientError::Usage(rule));
        }
        let settings = self.group(&topic, &group).await?.settings;
        let terms = Terms {
            client: self.clone(),
            ack_wait: settings.ack_wait.0,
            max_run: settings.max_run.map(|run| run.0),
            settle_for: options.settle_for,
        };
        Ok(Worker { terms, topic, group, consumer, options, stop: watch::Sender::new(Stop::No) })
    }
}

impl Worker {
    /// Returns what tells it to end.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        Stopper(self.stop.clone())
    }

    /// Returns for how long the group let a consumer have a message when the worker was made, if there is a bound.
    #[must_use]
    pub const fn max_run(&self) -> Option<Duration> {
        self.terms.max_run
    }

    /// Works until it is told to end, or has had as many messages as it may. `tell` hears of each message and of the
    /// relay.
    ///
    /// Handlers run in the task that polls this; one that computes for long had better do that in a task of its own.
    /// Where this is dropped, what was claimed comes back after the group's `ack_wait`.
    ///
    /// # Errors
    /// Messages can be claimed no more, as where the group was deleted. What ran has come to its end then.
    pub async fn run<F: Future<Output = Verdict>>(
        self,
        handler: impl Fn(Job) -> F,
        mut tell: impl FnMut(WorkerEvent),
    ) -> Result<(), ClientError> {
        let mut stop = self.stop.subscribe();
        let mut jobs = FuturesUnordered::new();
        let mut left = self.options.jobs_max.unwrap_or(u64::MAX);
        let mut backoff = Backoff::new(&self.terms.client.options);
        let (mut is_away, mut is_told, mut failed) = (false, false, None);
        let mut attempt: Option<Attempt> = None;
        let mut claiming: Option<BoxFuture<'_, Result<Vec<Delivered>, ClientError>>> = None;
        loop {
            let is_over = failed.is_some() || left == 0 || *stop.borrow() != Stop::No;
            let free = self.options.concurrency.saturating_sub(jobs.len());
            let free = free.min(usize::try_from(left).unwrap_or(usize::MAX));
            if claiming.is_none() && !is_over && free > 0 {
                // One that may have got something is sent again as it was: its messages had room.
                let next = attempt.get_or_insert_with(|| self.attempt(free));
                claiming = Some(self.claim(next.request.clone(), next.pause).boxed());
            }
            if claiming.is_none() && jobs.is_empty() {
                break;
            }
            tokio::select! {
                claimed = of(&mut claiming) => {
                    claiming = None;
                    match claimed {
                        Ok(messages) => {
                            attempt = None;
                            backoff.reset();
                            if std::mem::take(&mut is_away) {
                                tell(WorkerEvent::Back);
                            }
                            left = left.saturating_sub(messages.len() as u64);
                            if !messages.is_empty() {
                                tell(WorkerEvent::Claimed(messages.len()));
                            }
                            for message in messages {
                                jobs.push(self.terms.work(message, &handler, self.stop.subscribe()));
                            }
                        }
                        Err(error) if may_repeat(&error) => {
                            if let Some(attempt) = &mut attempt {
                                attempt.pause = next_try(&error, &mut backoff);
                            }
                            if !std::mem::replace(&mut is_away, true) {
                                tell(WorkerEvent::Away(error));
                            }
                        }
                        Err(error) => failed = Some(error),
                    }
                }
                Some(finished) = jobs.next() => tell(WorkerEvent::Finished(finished)),
                // Also where something else ended at the same moment.
                () = stopped(&mut stop, Stop::Drain), if !is_told => {
                    is_told = true;
                    attempt = None;
                    let is_at_once = *stop.borrow() == Stop::Release;
                    claiming = claiming.filter(|_| !is_at_once).map(|claim| self.give_back(claim).boxed());
                }
            }
        }
        failed.map_or(Ok(()), Err)
    }

    fn attempt(&self, max: usize) -> Attempt {
        let request = ClaimRequest {
            consumer: self.consumer.clone(),
            max: u32::try_from(max).ok(),
            wait: Some(text((self.terms.ack_wait / 2).clamp(CLAIM_WAIT[0], CLAIM_WAIT[1]))),
            claim_id: Some(format!("{:016x}{:016x}", random(), random())),
        };
        Attempt { request, pause: Duration::ZERO }
    }

    async fn claim(&self, request: ClaimRequest, pause: Duration) -> Result<Vec<Delivered>, ClientError> {
        sleep(pause).await;
        self.terms.client.claim(&self.topic, &self.group, &request).await
    }

    /// Gives back what a claim gets whose answer is on its way. What is handed out later finds nobody: the relay takes it
    /// back itself.
    async fn give_back(
        &self,
        claim: BoxFuture<'_, Result<Vec<Delivered>, ClientError>>,
    ) -> Result<Vec<Delivered>, ClientError> {
        let messages = timeout(LAST_ANSWER, claim).await.unwrap_or(Ok(Vec::new())).unwrap_or_default();
        let receipts: Vec<_> = messages.into_iter().map(|message| message.receipt).collect();
        if !receipts.is_empty() {
            // Where that is not heard, they come back by themselves.
            let _ = timeout(GIVE_BACK, self.terms.client.settle(&receipts, &Verdict::Release)).await;
        }
        Ok(Vec::new())
    }
}

/// Waits for a claim, if one is under way.
async fn of<T>(claiming: &mut Option<BoxFuture<'_, T>>) -> T {
    match claiming {
        Some(claiming) => claiming.await,
        None => std::future::pending().await,
    }
}
