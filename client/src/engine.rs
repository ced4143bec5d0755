//! Publishing: the task that sends, hears the answers, and sends again.
//!
//! It owns what waits for its answer. It must not wait for the socket to take a frame without reading
//! from it: a relay that waits for its answers to be read would wait for ever.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tidemill_proto::frame::ServerFrame;
use tidemill_proto::{Code, IDEMPOTENCY_KEY_FIELD};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

use crate::connection::{Connection, Connector, Received};
use crate::error::{ClientError, Refusal};
use crate::message::{NewMessage, Published, Scheduled, Taken};
use crate::options::{Backoff, PublisherOptions, random};

/// Wait before a refused message is sent again, beyond what the relay says; it doubles.
const REFUSED_PAUSE: Duration = Duration::from_millis(250);
/// Where it stops to double.
const REFUSED_PAUSE_MAX: Duration = Duration::from_secs(4);
/// Parts of that wait. From a half of them to all are waited.
const SHARES: u32 = 1_024;
/// From which wait on it is told that a message waits.
const TOLD_MIN: Duration = Duration::from_secs(1);
/// How long keys are left out where they may be, once the relay has said that it remembers as many as it
/// may.
const KEYS_PAUSE: Duration = Duration::from_mins(1);
/// The close code for a frame that is too large.
const TOO_LARGE: u16 = 1009;

/// How a publisher's connection is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// There is one.
    Connected,
    /// It was lost, and the publisher connects again.
    Away(ClientError),
    /// The publisher has ended.
    Ended(ClientError),
}

/// A publish that waits for its answer.
#[derive(Debug)]
pub(crate) struct PendingPublish {
    pub(crate) message: NewMessage,
    pub(crate) answer: oneshot::Sender<Result<Taken, ClientError>>,
    /// How often it was written to a connection without the relay saying that this had no effect.
    pub(crate) unanswered: u32,
    /// How often the relay has asked for it again, and since when.
    pub(crate) refused: u32,
    pub(crate) refused_since: Option<Instant>,
    pub(crate) _room: [OwnedSemaphorePermit; 2],
}

pub(crate) struct Engine {
    connector: Connector,
    options: PublisherOptions,
    rx: mpsc::Receiver<PendingPublish>,
    /// Whether the publisher may hand over more.
    open: bool,
    state: watch::Sender<LinkState>,
    /// By reference, which is the order.
    waiting: BTreeMap<u64, PendingPublish>,
    /// Those that the relay has refused for the moment, by when to send them again.
    due: BTreeSet<(Instant, u64)>,
    /// Those that the relay has no room for the keys of. They are sent without, in their order, once the
    /// others that are under way have their answers.
    keyless: BTreeSet<u64>,
    /// Until when keys are left out where they may be.
    keys_again: Option<Instant>,
    without_keys: watch::Sender<bool>,
    /// The last refusal of its code for which is waited a second or more.
    waits: watch::Sender<Option<Refusal>>,
    references: u64,
    backoff: Backoff,
    /// How much of a wait this publisher waits. It is the same of all messages, so that those that are refused together
    /// keep their order, and publishers that are refused together spread out.
    shares: u32,
}

impl Engine {
    pub(crate) fn new(
        connector: Connector,
        options: PublisherOptions,
        rx: mpsc::Receiver<PendingPublish>,
        state: watch::Sender<LinkState>,
        without_keys: watch::Sender<bool>,
        waits: watch::Sender<Option<Refusal>>,
    ) -> Self {
        let backoff = Backoff::new(&connector.options);
        Self {
            connector,
            options,
            rx,
            open: true,
            state,
            waiting: BTreeMap::new(),
            due: BTreeSet::new(),
            keyless: BTreeSet::new(),
            keys_again: None,
            without_keys,
            waits,
            references: 0,
            backoff,
            shares: SHARES / 2 + u32::try_from(random() % u64::from(SHARES / 2)).unwrap_or_default(),
        }
    }

    pub(crate) async fn run(mut self, mut connection: Connection) {
        loop {
            let error = match self.serve(&mut connection).await {
                Ok(()) => return connection.close().await,
                Err(error) => self.settle_lost(error),
            };
            if !error.is_passing() {
                return self.end(&error);
            }
            drop(connection);
            if !self.open && self.waiting.is_empty() {
                return;
            }
            self.state.send_replace(LinkState::Away(error));
            connection = match self.connect().await {
                Ok(connection) => connection,
                Err(error) => return self.end(&error),
            };
            self.state.send_replace(LinkState::Connected);
        }
    }

    /// Connects. Gives up when something has waited for too long; with nothing to send there is no hurry.
    async fn connect(&mut self) -> Result<Connection, ClientError> {
        let mut since = None;
        loop {
            let idle = self.waiting.is_empty() && self.rx.is_empty();
            let give_up_at = if idle {
                since = None;
                None
            } else {
                Some(*since.get_or_insert_with(Instant::now) + self.options.give_up_after)
            };
            let soon = Instant::now() + self.backoff.pause();
            sleep_until(give_up_at.map_or(soon, |at| at.min(soon))).await;
            match self.connector.connect().await {
                Ok(connection) => return Ok(connection),
                Err(error) if !error.is_passing() || give_up_at.is_some_and(|at| Instant::now() >= at) => {
                    return Err(error);
                }
                Err(error) => drop(self.state.send_replace(LinkState::Away(error))),
            }
        }
    }

    /// Sends and hears until all is done or the connection is lost.
    async fn serve(&mut self, connection: &mut Connection) -> Result<(), ClientError> {
        self.due.clear();
        self.keyless.clear();
        for (reference, waiting) in &mut self.waiting {
            send(*reference, waiting, connection)?;
        }
        while self.open || !self.waiting.is_empty() {
            self.send_keyless(connection)?;
            let due = self.due.first().copied();
            tokio::select! {
                received = connection.next() => self.hear(&received?, connection)?,
                handed = self.rx.recv(), if self.open && self.keyless.is_empty() => {
                    let Some(handed) = handed else {
                        self.open = false;
                        continue;
                    };
                    self.take(handed, connection)?;
                    // What is there already goes with it, in one write.
                    while let Ok(handed) = self.rx.try_recv() {
                        self.take(handed, connection)?;
                    }
                }
                () = sleep_until(due.map_or_else(Instant::now, |(at, _)| at)), if due.is_some() => {
                    self.due.pop_first();
                    if let Some((_, reference)) = due
                        && let Some(waiting) = self.waiting.get_mut(&reference)
                    {
                        send(reference, waiting, connection)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Sends those that go without keys, if nothing is under way that stands before or among them.
    fn send_keyless(&mut self, connection: &mut Connection) -> Result<(), ClientError> {
        if self.waiting.len() > self.keyless.len() + self.due.len() {
            return Ok(());
        }
        while let Some(reference) = self.keyless.pop_first() {
            if let Some(waiting) = self.waiting.get_mut(&reference) {
                waiting.message.leave_out_key();
                send(reference, waiting, connection)?;
            }
        }
        Ok(())
    }

    /// Returns whether keys are left out for now.
    fn leaves_out_keys(&mut self) -> bool {
        if self.keys_again.is_some_and(|again| again <= Instant::now()) {
            self.keys_again = None;
            self.without_keys.send_replace(false);
        }
        self.keys_again.is_some()
    }

    fn take(&mut self, mut handed: PendingPublish, connection: &mut Connection) -> Result<(), ClientError> {
        if self.leaves_out_keys() {
            handed.message.leave_out_key();
        }
        self.references += 1;
        let waiting = self.waiting.entry(self.references).or_insert(handed);
        send(self.references, waiting, connection)
    }

    fn hear(&mut self, received: &Received, connection: &Connection) -> Result<(), ClientError> {
        match connection.decode(received)? {
            Some(ServerFrame::Published {
                reference,
                message_id,
                topic,
                timestamp,
                replayed,
                durability,
            }) => {
                self.backoff.reset();
                let published = Published { message_id, topic, timestamp, replayed, durability };
                if let Some(reference) = number(reference.as_deref()) {
                    self.answer(reference, Ok(Taken::Published(published)));
                }
            }
            Some(ServerFrame::Scheduled { reference, schedule_id, topic, deliver_at, replayed }) => {
                self.backoff.reset();
                let scheduled = Scheduled { schedule_id, topic, deliver_at, replayed };
                if let Some(reference) = number(reference.as_deref()) {
                    self.answer(reference, Ok(Taken::Scheduled(scheduled)));
                }
            }
            Some(ServerFrame::Error(error)) => {
                let number = number(error.reference.as_deref());
                let refusal = Refusal::from(error);
                match number {
                    Some(reference) => self.refused(reference, refusal),
                    // It is about the connection, for every frame has its reference.
                    None => return Err(ClientError::Refused(refusal)),
                }
            }
            Some(ServerFrame::End { reason, .. }) => return Err(connection.ended(&reason)),
            Some(
                ServerFrame::Subscribed { .. }
                | ServerFrame::Unsubscribed { .. }
                | ServerFrame::Message(_)
                | ServerFrame::Gap(_)
                | ServerFrame::Cursor { .. }
                | ServerFrame::Closed(_)
                | ServerFrame::Consuming(_)
                | ServerFrame::Work(_)
                | ServerFrame::Settled { .. }
                | ServerFrame::Watched(_)
                | ServerFrame::Pong { .. },
            )
            | None => {}
        }
        Ok(())
    }

    fn refused(&mut self, reference: u64, refusal: Refusal) {
        let Some(waiting) = self.waiting.get_mut(&reference) else { return };
        let is_unknown = refusal.code == Code::OutcomeUnknown;
        if refusal.retryable && !is_unknown {
            waiting.unanswered = waiting.unanswered.saturating_sub(1);
        }
        let is_about_key =
            refusal.code == Code::StorageFull && refusal.field.as_deref() == Some(IDEMPOTENCY_KEY_FIELD);
        // The relay may just be keeping one that was sent before without an answer: it is asked once more.
        let is_not_kept = waiting.unanswered == 0 || waiting.refused > 0;
        if is_about_key && is_not_kept && waiting.message.has_optional_key() {
            self.keyless.insert(reference);
            self.keys_again.get_or_insert_with(|| Instant::now() + KEYS_PAUSE);
            self.without_keys.send_if_modified(|without| !std::mem::replace(without, true));
            return;
        }
        if is_about_key && !waiting.message.has_optional_key() {
            // The keys are remembered for minutes: asking again does not help.
            return self.answer(reference, Err(ClientError::Refused(refusal)));
        }
        let is_harmless = self.options.repeat_unkeyed || waiting.message.has_key();
        let may_pass = refusal.retryable || (is_unknown && is_harmless);
        let since = *waiting.refused_since.get_or_insert_with(Instant::now);
        let left = self.options.give_up_after.saturating_sub(since.elapsed());
        let told = Duration::from_secs(refusal.retry_after_seconds.unwrap_or_default());
        if !may_pass || left.is_zero() || told > left {
            return self.answer(reference, Err(ClientError::Refused(refusal)));
        }
        // The last time is when the publisher would give up.
        let pause = (told + refused_pause(waiting.refused) / SHARES * self.shares).min(left);
        waiting.refused = waiting.refused.saturating_add(1);
        if pause >= TOLD_MIN {
            self.waits.send_if_modified(|last| {
                let is_new = last.as_ref().is_none_or(|last| last.code != refusal.code);
                if is_new {
                    *last = Some(Refusal { retry_after_seconds: Some(pause.as_secs()), ..refusal });
                }
                is_new
            });
        }
        self.due.insert((Instant::now() + pause, reference));
    }

    fn answer(&mut self, reference: u64, answer: Result<Taken, ClientError>) {
        if let Some(waiting) = self.waiting.remove(&reference) {
            // The receipt may have been dropped.
            drop(waiting.answer.send(answer));
        }
    }

    /// Answers those that cannot be sent again, and returns why the connection was lost.
    fn settle_lost(&mut self, error: ClientError) -> ClientError {
        let may_repeat = self.options.repeat_unkeyed;
        let unkeyed = |(reference, waiting): (&u64, &PendingPublish)| {
            (!may_repeat && waiting.unanswered > 0 && !waiting.message.has_key()).then_some(*reference)
        };
        let unkeyed: Vec<_> = self.waiting.iter().filter_map(unkeyed).collect();
        for reference in unkeyed {
            self.answer(reference, Err(ClientError::Unknown));
        }
        match error {
            ClientError::Stopped { code: TOO_LARGE, reason } => {
                // The relay does not say which; only the largest is too large for certain. The others
                // are sent again.
                let largest = self.waiting.iter().max_by_key(|(_, waiting)| waiting.message.len_bytes());
                let Some(largest) = largest.map(|(reference, _)| *reference) else {
                    return ClientError::Stopped { code: TOO_LARGE, reason };
                };
                let message = format!("the message is larger than the relay takes: {reason}");
                let refusal = Refusal::new(Code::TooLarge, message);
                self.answer(largest, Err(ClientError::Refused(refusal)));
                let url = self.connector.name().to_owned();
                ClientError::Away { url, why: format!("closed with code {TOO_LARGE}: {reason}") }
            }
            error => error,
        }
    }

    /// Answers everything and everybody, for good.
    fn end(mut self, error: &ClientError) {
        self.state.send_replace(LinkState::Ended(error.clone()));
        self.rx.close();
        let handed = std::iter::from_fn(|| self.rx.try_recv().ok());
        for waiting in std::mem::take(&mut self.waiting).into_values().chain(handed) {
            let error = if waiting.unanswered > 0 { ClientError::Unknown } else { error.clone() };
            drop(waiting.answer.send(Err(error)));
        }
    }
}

fn send(
    reference: u64,
    waiting: &mut PendingPublish,
    connection: &mut Connection,
) -> Result<(), ClientError> {
    waiting.unanswered = waiting.unanswered.saturating_add(1);
    connection.queue(&waiting.message.frame(&reference.to_string()))
}

/// Returns how long is waited at most after so many refusals, beyond what the relay says.
fn refused_pause(refused: u32) -> Duration {
    REFUSED_PAUSE.saturating_mul(1 << refused.min(16)).min(REFUSED_PAUSE_MAX)
}

fn number(reference: Option<&str>) -> Option<u64> {
    reference?.parse().ok()
}
