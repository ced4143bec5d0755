//! One message that a worker has: runs its handler, keeps the message meanwhile, and says how it ended. It must not know
//! where messages come from, nor how many there are.

use std::pin::pin;
use std::time::Duration;

use tidemill_proto::work::{Delivered, Settled, SettledStatus};
use tidemill_proto::{Code, MessageId, Trace};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::error::ClientError;
use crate::options::Backoff;
use crate::work::{Verdict, WorkClient};

/// How long giving a message back may take once a worker is to end at once.
const RELEASE: Duration = Duration::from_secs(5);
/// Longest time that a handler has which is told to stop.
const GRACE_MAX: Duration = Duration::from_secs(5);
/// Longest time to wait that is taken from a relay.
const TOLD_PAUSE_MAX: Duration = Duration::from_mins(1);

/// A message that a worker has claimed, for its handler.
#[derive(Debug)]
pub struct Job {
    /// The message, with its receipt.
    pub delivered: Delivered,
    ended: watch::Receiver<Option<Code>>,
    grace: Duration,
}

impl Job {
    /// Returns how long the handler has once it is told to stop, until nobody waits for it any more.
    #[must_use]
    pub const fn grace(&self) -> Duration {
        self.grace
    }

    /// Returns the trace that the message is part of, if its publisher has said: a span of the handler hangs under its.
    #[must_use]
    pub fn trace(&self) -> Option<Trace> {
        Trace::of_metadata(self.delivered.message.metadata.as_deref()?.get().as_bytes())
    }

    /// Waits until the handler had better stop, and returns why: `max_run_reached`, shortly before the time is over for
    /// which the group lets a consumer have a message; or the code with which the relay has refused to extend it, as
    /// the message is another's by now, or settled. What the handler returns is told to the relay all the same.
    ///
    /// # Cancel safety
    /// Cancel-safe: the next call returns the same.
    pub async fn ended(&mut self) -> Code {
        loop {
            if let Some(code) = *self.ended.borrow_and_update() {
                return code;
            }
            if self.ended.changed().await.is_err() {
                // Nobody is left who could say so.
                std::future::pending::<()>().await;
            }
        }
    }
}

/// How the message of a job ended for its worker.
#[derive(Clone, Debug)]
pub struct Finished {
    /// The message.
    pub message_id: MessageId,
    /// Which of its deliveries it was.
    pub delivery: u64,
    /// How long the handler ran.
    pub took: Duration,
    /// What the handler said of it.
    pub verdict: Verdict,
    /// What the relay made of that, or why it could not be told: then the message comes again.
    pub settled: Result<Settled, ClientError>,
}

/// How a worker is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stop {
    /// Not yet.
    No,
    /// Claims no more, and waits for what runs.
    Drain,
    /// Gives everything back at once.
    Release,
}

/// Waits until a worker is to end so.
pub(crate) async fn stopped(stop: &mut watch::Receiver<Stop>, how: Stop) {
    if stop.wait_for(|stop| *stop >= how).await.is_err() {
        // Nobody is left who could ask for it.
        std::future::pending::<()>().await;
    }
}

/// What all jobs of a worker have in common.
#[derive(Debug)]
pub(crate) struct Terms {
    pub(crate) client: WorkClient,
    pub(crate) ack_wait: Duration,
    pub(crate) max_run: Option<Duration>,
    pub(crate) settle_for: Duration,
}

impl Terms {
    /// Runs the handler of a message to its end, and settles the message.
    pub(crate) async fn work<F: Future<Output = Verdict>>(
        &self,
        delivered: Delivered,
        handler: impl FnOnce(Job) -> F,
        mut stop: watch::Receiver<Stop>,
    ) -> Finished {
        let begun = Instant::now();
        let (message_id, delivery) = (delivered.message.message_id, delivered.delivery);
        let receipt = [delivered.receipt.clone()];
        let (ends, ended) = watch::channel(None);
        let verdict = {
            let mut handler = pin!(handler(Job { delivered, ended, grace: grace(self.max_run) }));
            tokio::select! {
                verdict = &mut handler => Some(verdict),
                () = self.keep(&receipt, &ends) => None,
                () = stopped(&mut stop, Stop::Release) => None,
            }
        };
        let took = begun.elapsed();
        let verdict = verdict.unwrap_or(Verdict::Release);
        let settled = tokio::select! {
            settled = self.settle(&receipt, &verdict) => settled,
            settled = async {
                stopped(&mut stop, Stop::Release).await;
                self.settle_at_once(&receipt, &verdict).await
            } => settled,
        };
        // Of the two that were sent then, the other may have come first.
        let is_at_once = *stop.borrow() == Stop::Release;
        let settled = settled.map(|settled| if is_at_once { believed(settled, &verdict) } else { settled });
        Finished { message_id, delivery, took, verdict, settled }
    }

    /// Extends a message for as long as it may be, and says when the handler had better stop. It never ends.
    async fn keep(&self, receipt: &[String], ends: &watch::Sender<Option<Code>>) {
        let begun = Instant::now();
        let cut = self.max_run.map(|run| begun + run.saturating_sub(grace(self.max_run)));
        let extending = async {
            let mut backoff = Backoff::new(&self.client.options);
            let mut pause = self.ack_wait / 3;
            loop {
                sleep(pause).await;
                match self.client.extend(receipt, None).await.map(|settled| settled.into_iter().next()) {
                    Ok(Some(Settled { status: SettledStatus::Refused, code: Some(code), .. })) => {
                        // The time that is left is the handler's.
                        return code;
                    }
                    Ok(_) => {
                        backoff.reset();
                        pause = self.ack_wait / 3;
                    }
                    Err(error) => pause = next_try(&error, &mut backoff).min(self.ack_wait / 3),
                }
            }
        };
        let cutting = async {
            match cut {
                Some(cut) => sleep_until(cut).await,
                None => std::future::pending().await,
            }
        };
        let code = tokio::select! {
            code = extending => code,
            () = cutting => Code::MaxRunReached,
        };
        ends.send_replace(Some(code));
        std::future::pending::<()>().await;
    }

    /// Tells the relay what became of a message, again and again where it does not answer, for a time: a late one counts
    /// as long as nobody else has got the message.
    async fn settle(&self, receipt: &[String], verdict: &Verdict) -> Result<Settled, ClientError> {
        let mut backoff = Backoff::new(&self.client.options);
        let give_up_at = Instant::now() + self.settle_for.max(self.ack_wait);
        let mut is_unsure = false;
        loop {
            match self.settle_once(receipt, verdict).await {
                Ok(settled) => return Ok(if is_unsure { believed(settled, verdict) } else { settled }),
                Err(error) => {
                    is_unsure |= !matches!(error, ClientError::Away { .. });
                    let next = Instant::now() + next_try(&error, &mut backoff);
                    if !may_repeat(&error) || next > give_up_at {
                        return Err(error);
                    }
                    sleep_until(next).await;
                }
            }
        }
    }

    async fn settle_once(&self, receipt: &[String], verdict: &Verdict) -> Result<Settled, ClientError> {
        let settled = self.client.settle(receipt, verdict).await?;
        settled.into_iter().next().ok_or_else(|| ClientError::Usage("no receipt was given".to_owned()))
    }

    async fn settle_at_once(&self, receipt: &[String], verdict: &Verdict) -> Result<Settled, ClientError> {
        let settled = timeout(RELEASE, self.settle_once(receipt, verdict)).await;
        settled.unwrap_or_else(|_| Err(self.client.took_too_long()))
    }
}

/// Returns how long before its end the handler of a message that runs for too long is told.
fn grace(max_run: Option<Duration>) -> Duration {
    max_run.map_or(GRACE_MAX, |run| (run / 10).min(GRACE_MAX))
}

/// Returns what came of a verdict that may have been told before: where it was, it counts.
fn believed(settled: Settled, verdict: &Verdict) -> Settled {
    if settled.code != Some(Code::AlreadySettled) {
        return settled;
    }
    let status = match verdict {
        Verdict::Ack { .. } => SettledStatus::Acked,
        Verdict::Nack { .. } => SettledStatus::Nacked,
        Verdict::Reject { .. } => SettledStatus::Rejected,
        Verdict::Release => SettledStatus::Released,
    };
    Settled { status, code: None, error: None, ..settled }
}

/// Returns whether a request of a worker can be sent again: it does no harm, whatever became of it.
pub(crate) fn may_repeat(error: &ClientError) -> bool {
    let is_unknown = matches!(error, ClientError::Refused(refusal) if refusal.code == Code::OutcomeUnknown);
    error.is_passing() || is_unknown || matches!(error, ClientError::NoAnswer { .. })
}

/// Returns when to send it again: at random, and not before the relay says.
pub(crate) fn next_try(error: &ClientError, backoff: &mut Backoff) -> Duration {
    let told = match error {
        ClientError::Refused(refusal) => refusal.retry_after_seconds.map(Duration::from_secs),
        _ => None,
    };
    told.unwrap_or_default().min(TOLD_PAUSE_MAX) + backoff.pause()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Refusal;
    use crate::options::ClientOptions;

    #[test]
    fn a_relay_that_says_when_is_not_asked_before() {
        let mut backoff = Backoff::new(&ClientOptions::default());
        let refused = |code: Code, seconds| {
            ClientError::Refused(Refusal { retry_after_seconds: seconds, ..Refusal::new(code, "") })
        };
        assert!(next_try(&refused(Code::Overloaded, Some(3)), &mut backoff) >= Duration::from_secs(3));
        assert!(next_try(&refused(Code::Overloaded, Some(86_400)), &mut backoff) < Duration::from_secs(75));
        assert!(next_try(&refused(Code::Overloaded, None), &mut backoff) < Duration::from_secs(1));
        assert!(may_repeat(&refused(Code::OutcomeUnknown, None)));
        assert!(!may_repeat(&refused(Code::GroupNotFound, None)));
    }

    #[test]
    fn the_handler_is_told_before_its_time_is_over() {
        assert_eq!(grace(Some(Duration::from_secs(10))), Duration::from_secs(1));
        assert_eq!(grace(None), Duration::from_secs(5));
    }
}
