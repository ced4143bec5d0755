//! Where the claims of one group wait on this node.
//!
//! Claims are sent to the storage one batch after the other: what arrives while one is under way forms the next. Those
//! for which there was nothing wait, and are tried again when the topic has changed, when something is due, and twice a
//! second: one first, and twice as many each time that all got something, so that one message wakes few.
//!
//! Whatever a claim got that nobody waits for any more is given back at once.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tidemill_proto::TopicName;
use tidemill_proto::work::GroupName;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::letters::Letters;
use crate::storage::{Claim, Claimed, Settlement, Storage, StorageError, Verdict};

/// Claims that are sent at one time.
const BATCH: usize = 64;
/// How often the group is looked at while claims wait.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// For how long what was found out by tending holds for a claim that waits for nothing.
const TENDED_FOR: Duration = Duration::from_millis(250);
/// How long a station without claims is kept.
const LINGER: Duration = Duration::from_secs(30);

/// The result of a claim.
pub(super) type ClaimResult = Result<Claimed, StorageError>;

/// A claim that waits.
#[derive(Debug)]
struct Waiter {
    claim: Claim,
    /// Whether it waits where there is nothing.
    waits: bool,
    reply: oneshot::Sender<ClaimResult>,
}

/// The claims of a group that wait on this node.
#[derive(Debug)]
pub(super) struct Station {
    topic: TopicName,
    group: GroupName,
    storage: Storage,
    letters: Letters,
    /// Those that were not tried yet; `None` once nobody is served any more.
    fresh: Mutex<Option<VecDeque<Waiter>>>,
    /// There is a fresh one.
    come: Notify,
    /// Counts what may have brought work.
    changes: watch::Sender<u64>,
    /// Whether a claim got fewer than it asked for since no more may be held.
    limited: AtomicBool,
    /// Counts messages that claims have found to be gone.
    gone: Arc<AtomicU64>,
}

impl Station {
    pub(super) fn new(
        topic: TopicName,
        group: GroupName,
        storage: Storage,
        letters: Letters,
        gone: Arc<AtomicU64>,
    ) -> Self {
        Self {
            topic,
            group,
            storage,
            letters,
            fresh: Mutex::new(Some(VecDeque::new())),
            come: Notify::new(),
            changes: watch::Sender::new(0),
            limited: AtomicBool::new(false),
            gone,
        }
    }

    /// Claims for somebody who takes the result from the receiver, or gives it up. `waits` says whether it is
    /// answered only when there is something. Where nobody is served any more there is no answer.
    pub(super) fn claim(&self, claim: Claim, waits: bool) -> oneshot::Receiver<ClaimResult> {
        let (reply, receiver) = oneshot::channel();
        if let Some(fresh) = &mut *self.fresh.lock() {
            fresh.push_back(Waiter { claim, waits, reply });
        }
        self.come.notify_one();
        receiver
    }

    /// Tells that there may be work.
    pub(super) fn look(&self) {
        self.changes.send_modify(|changes| *changes = changes.wrapping_add(1));
    }

    /// Tells that a consumer of this node has settled something.
    pub(super) fn settled(&self, can_be_claimed: bool) {
        if can_be_claimed || self.limited.load(Ordering::Relaxed) {
            self.look();
        }
    }

    /// Returns what tells of changes.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Serves claims until there are none for a while, or the group is gone. `end` is asked whether the station may
    /// end then: it does not where a claim has come meanwhile.
    pub(super) async fn run(self: Arc<Self>, token: CancellationToken, end: impl Fn(&Self) -> bool) {
        token.run_until_cancelled(Serving::new(&self).run(end)).await;
        // Whoever still waits has no answer, and neither has who comes now.
        *self.fresh.lock() = None;
    }

    /// Whether nobody has come that was not tried.
    pub(super) fn is_idle(&self) -> bool {
        self.fresh.lock().as_ref().is_none_or(VecDeque::is_empty)
    }

    /// Whether nobody is served any more.
    pub(super) fn is_over(&self) -> bool {
        self.fresh.lock().is_none()
    }
}

/// A station at work.
struct Serving<'a> {
    station: &'a Station,
    changes: watch::Receiver<u64>,
    /// Those for which there was nothing, in the order in which they came.
    waiting: VecDeque<Waiter>,
    /// How many of them are tried at one time.
    step: usize,
    /// Whether the last claims have left nothing.
    drained: bool,
    tended_at: Option<Instant>,
    /// When there is something to be looked at.
    next: Instant,
    idle_since: Instant,
}

impl<'a> Serving<'a> {
    fn new(station: &'a Station) -> Self {
        let now = Instant::now();
        Self {
            station,
            changes: station.changes.subscribe(),
            waiting: VecDeque::new(),
            step: 0,
            drained: false,
            tended_at: None,
            next: now,
            idle_since: now,
        }
    }

    async fn run(mut self, end: impl Fn(&Station) -> bool) {
        loop {
            self.waiting.retain(|waiter| !waiter.reply.is_closed());
            let fresh: Vec<Waiter> = {
                let mut fresh = self.station.fresh.lock();
                let count = fresh.as_ref().map_or(0, VecDeque::len).min(BATCH);
                fresh.iter_mut().flat_map(|fresh| fresh.drain(..count)).collect()
            };
            if !fresh.is_empty() {
                self.idle_since = Instant::now();
                if !self.serve(fresh, true).await {
                    return;
                }
                continue;
            }
            if self.step > 0 && !self.waiting.is_empty() {
                let count = self.step.min(self.waiting.len()).min(BATCH);
                let tried: Vec<Waiter> = self.waiting.drain(..count).collect();
                if !self.serve(tried, false).await {
                    return;
                }
                continue;
            }
            self.step = 0;
            if self.waiting.is_empty() {
                tokio::select! {
                    biased;
                    () = self.station.come.notified() => {}
                    () = sleep_until(self.idle_since + LINGER) => {
                        if end(self.station) {
                            return;
                        }
                        self.idle_since = Instant::now();
                    }
                }
                continue;
            }
            tokio::select! {
                biased;
                () = self.station.come.notified() => {}
                changed = self.changes.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.step = 1;
                }
                () = sleep_until(self.next) => {
                    if let Err(error) = self.tend().await {
                        return self.refuse_all(&error);
                    }
                    self.step = 1;
                }
            }
        }
    }

    /// Looks at the group.
    ///
    /// # Errors
    /// It is gone.
    async fn tend(&mut self) -> Result<(), StorageError> {
        let now = Instant::now();
        self.tended_at = Some(now);
        self.next = now + LOOK_EVERY;
        let Station { topic, group, storage, letters, .. } = self.station;
        match storage.work.tend(topic, group).await {
            Ok(tended) => {
                if tended.dying {
                    letters.write_soon(topic, group);
                }
                if let Some(at) = tended.next {
                    self.look_at(at);
                }
                Ok(())
            }
            Err(error @ (StorageError::NoGroup | StorageError::NoTopic | StorageError::NotATopic)) => {
                Err(error)
            }
            // Claims are told why when they are tried.
            Err(_) => Ok(()),
        }
    }

    /// Has the group looked at at a time of the storage, if that is before it is looked at anyway.
    fn look_at(&mut self, at: tidemill_proto::Timestamp) {
        let wait = at.as_millis().saturating_sub(self.station.storage.upkeep.now().as_millis());
        // A millisecond more, since the storage counts whole ones.
        self.next = self.next.min(Instant::now() + Duration::from_millis(wait + 1));
    }

    fn refuse_all(&mut self, error: &StorageError) {
        let fresh: Vec<Waiter> = self.station.fresh.lock().take().into_iter().flatten().collect();
        for waiter in self.waiting.drain(..).chain(fresh) {
            // Who no longer waits needs no answer.
            let _ = waiter.reply.send(Err(error.again()));
        }
    }

    /// Sends claims; those that get nothing wait in their order. Returns whether the group is there.
    async fn serve(&mut self, mut tried: Vec<Waiter>, are_fresh: bool) -> bool {
        tried.retain(|waiter| !waiter.reply.is_closed());
        if tried.is_empty() {
            return true;
        }
        // What was held by who is lost comes back by tending alone, also where there is always something new.
        if self.tended_at.is_none_or(|at| at.elapsed() >= LOOK_EVERY)
            && let Err(error) = self.tend().await
        {
            for waiter in tried {
                self.answer(waiter, Err(error.again()));
            }
            self.refuse_all(&error);
            return false;
        }
        let mut left = self.claim(tried).await;
        let may_be_stale = self.tended_at.is_none_or(|at| at.elapsed() >= TENDED_FOR);
        if left.iter().any(|(_, result)| result.is_ok()) && may_be_stale {
            if let Err(error) = self.tend().await {
                for (waiter, _) in left {
                    self.answer(waiter, Err(error.again()));
                }
                self.refuse_all(&error);
                return false;
            }
            let (empty, failed): (Vec<_>, Vec<_>) = left.into_iter().partition(|(_, result)| result.is_ok());
            left = self.claim(empty.into_iter().map(|(waiter, _)| waiter).collect()).await;
            left.extend(failed);
        }
        let all_got_some = left.is_empty();
        let mut back = Vec::new();
        for (waiter, result) in left {
            match result {
                Ok(claimed) if !waiter.waits => self.answer(waiter, Ok(claimed)),
                Ok(claimed) => {
                    self.station.limited.store(claimed.limited, Ordering::Relaxed);
                    if let Some(due) = claimed.next_due {
                        self.look_at(due);
                    }
                    back.push(waiter);
                }
                Err(error) => {
                    let is_gone = matches!(error, StorageError::NoGroup | StorageError::NoTopic);
                    let again = is_gone.then(|| error.again());
                    self.answer(waiter, Err(error));
                    if let Some(error) = again {
                        self.refuse_all(&error);
                        return false;
                    }
                }
            }
        }
        if are_fresh {
            self.waiting.extend(back);
        } else {
            back.into_iter().rev().for_each(|waiter| self.waiting.push_front(waiter));
        }
        // What comes behind that is told.
        self.step = match (all_got_some && !self.drained, are_fresh) {
            (true, false) => self.step.saturating_mul(2),
            (true, true) => self.step,
            (false, _) => 0,
        };
        true
    }

    /// Claims, and answers those that got something; returns the others.
    async fn claim(&mut self, waiters: Vec<Waiter>) -> Vec<(Waiter, ClaimResult)> {
        let claims = waiters.iter().map(|waiter| waiter.claim.clone()).collect();
        let results = self.station.storage.work.claim(claims).await;
        self.drained = results.iter().flatten().any(|claimed| claimed.drained);
        let mut left = Vec::new();
        for (waiter, result) in waiters.into_iter().zip(results) {
            if let Ok(claimed) = &result {
                self.station.gone.fetch_add(claimed.gone, Ordering::Relaxed);
            }
            match result {
                Ok(claimed) if !claimed.deliveries.is_empty() => self.answer(waiter, Ok(claimed)),
                result => left.push((waiter, result)),
            }
        }
        left
    }

    /// Answers a claim; what nobody waits for any more is given back.
    fn answer(&self, waiter: Waiter, result: ClaimResult) {
        let Err(Ok(claimed)) = waiter.reply.send(result) else { return };
        if !claimed.deliveries.is_empty() {
            let Station { topic, group, letters, .. } = self.station;
            let settlements = claimed.deliveries.iter().map(|delivery| Settlement {
                epoch: claimed.epoch,
                id: delivery.message.id,
                delivery: delivery.delivery,
                verdict: Verdict::Release,
            });
            letters.give_back(topic, group, settlements.collect());
        }
    }
}
