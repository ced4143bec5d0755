//! A storage that fails in every way in which its contract lets it, by a seed: the so-manieth call of a
//! kind has the same fate whatever else happens meanwhile.
//!
//! It owns what becomes of a call, and the journal of what the storage behind it did. It must not know who
//! calls.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tidemill::proto::slow::SlowServer;
use tidemill::proto::topics::{Topic, TopicUpdate, TopicsStats};
use tidemill::proto::{MessageId, Timestamp, TopicName, TopicSelector};
use tidemill::storage::{
    Appended, Batch, Changes, Condition, Followed, Hint, HintListener, LatestRange, LiveStore, MessageStore,
    NewMessage, Range, Selection, Storage, StorageError, StoredMessage, Swept, Tail, TopicChange, TopicList,
    TopicState, TopicStore, Trim, Upkeep,
};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use self::fate::{CALLS, Call, Fate, LATE_MS_MAX, Lost, Outcome};
use super::dice::Dice;

pub(crate) use self::fate::Rates;

mod access;
mod buckets;
mod copying;
mod durable;
mod fate;
mod leases;
mod locks;
mod nodes;
mod runs;
mod schedules;
mod series;
mod takes;
mod work;

/// What the storage behind did, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    /// A message that was not there before.
    Appended { topic: TopicName, id: MessageId, payload: String },
    /// A topic was deleted.
    Deleted { topic: TopicName },
}

type Effect<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A storage that fails by a seed.
#[derive(Debug)]
pub(crate) struct Faulty {
    inner: Storage,
    rates: Rates,
    dice: Dice,
    calls: [AtomicU64; CALLS],
    is_calm: Arc<AtomicBool>,
    /// Held by whoever changes something: changes are made in the order in which they were asked for.
    turn: Arc<tokio::sync::Mutex<()>>,
    deeds: Arc<Mutex<Vec<Deed>>>,
    began: Instant,
    trace: Arc<Mutex<Vec<String>>>,
    /// What comes after it was given up.
    behind: TaskTracker,
    /// Who listens in place of the listener.
    ear: Mutex<Option<Arc<dyn HintListener>>>,
    me: Weak<Self>,
}

/// Hears in place of another, and not everything.
#[derive(Debug)]
struct Ear {
    faulty: Weak<Faulty>,
    listener: Weak<dyn HintListener>,
}

impl HintListener for Ear {
    fn hear(&self, hint: Hint) {
        let lost = self.faulty.upgrade().is_some_and(|faulty| faulty.loses(&hint));
        if let (false, Some(listener)) = (lost, self.listener.upgrade()) {
            listener.hear(hint);
        }
    }
}

impl Faulty {
    /// Returns a storage that fails by a seed, in front of one that does not.
    pub(crate) fn new(inner: Storage, rates: Rates, seed: u64) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            inner,
            rates,
            dice: Dice::from_seed(seed),
            calls: std::array::from_fn(|_| AtomicU64::new(0)),
            is_calm: Arc::default(),
            turn: Arc::default(),
            deeds: Arc::default(),
            began: Instant::now(),
            trace: Arc::default(),
            behind: TaskTracker::new(),
            ear: Mutex::default(),
            me: me.clone(),
        })
    }

    /// Returns this storage, as a relay holds it.
    pub(crate) fn storage(self: &Arc<Self>) -> Storage {
        Storage::new(self.clone())
    }

    /// Returns the storage that does not fail.
    pub(crate) const fn inner(&self) -> &Storage {
        &self.inner
    }

    /// Ends all faults, and returns when everything that was begun is done.
    pub(crate) async fn calm(&self) {
        self.is_calm.store(true, Ordering::SeqCst);
        self.behind.close();
        self.behind.wait().await;
    }

    /// Whether all faults have ended.
    pub(crate) fn is_calm(&self) -> bool {
        self.is_calm.load(Ordering::SeqCst)
    }

    /// Returns what the storage behind did.
    pub(crate) fn deeds(&self) -> Vec<Deed> {
        self.deeds.lock().clone()
    }

    /// Returns every call so far, with its time and its fate, and every change when it was made.
    pub(crate) fn trace(&self) -> Vec<String> {
        self.trace.lock().clone()
    }

    fn fate(&self, call: Call, of: &str) -> Fate {
        let number = self.calls[call as usize].fetch_add(1, Ordering::SeqCst);
        let mut dice = self.dice.of(number * CALLS as u64 + call as u64);
        let mut fate = Fate {
            outcome: Outcome::Well,
            wait: Duration::ZERO,
            reply: Duration::ZERO,
            turns: dice.roll(3),
            dice: dice.clone(),
        };
        if !self.is_calm.load(Ordering::SeqCst) {
            let Rates { before, after, never, behind, late, .. } = self.rates;
            let mut roll = dice.roll(1_000);
            for (rate, outcome) in [
                (before, Outcome::Before),
                (after, Outcome::After),
                (never, Outcome::Never),
                (behind, Outcome::Behind),
            ] {
                if roll < rate {
                    fate.outcome = outcome;
                    break;
                }
                roll -= rate;
            }
            if dice.chance(late) {
                (fate.wait, fate.reply) = (dice.up_to_ms(LATE_MS_MAX), dice.up_to_ms(LATE_MS_MAX));
            }
            fate.dice = dice;
        }
        let Fate { outcome, wait, reply, turns, .. } = &fate;
        let (when, of) = (self.began.elapsed(), fate::without_epochs(of));
        self.trace.lock().push(format!("{when:?} {call:?} {of}: {outcome:?} {wait:?} {reply:?} {turns}"));
        fate
    }

    fn loses(&self, hint: &Hint) -> bool {
        let of = format!("{hint:?}");
        let mut fate = self.fate(Call::Hint, &of);
        !self.is_calm.load(Ordering::SeqCst) && fate.dice.chance(self.rates.unheard)
    }

    /// Asks for something that changes nothing.
    async fn ask<T: Send>(
        &self,
        mut fate: Fate,
        answer: impl Future<Output = Result<T, StorageError>> + Send,
    ) -> Result<T, StorageError> {
        fate.wait().await;
        match fate.outcome {
            Outcome::Before => Err(Lost::Before.into()),
            Outcome::Never | Outcome::Behind => Err(Lost::Unknown.into()),
            Outcome::Well => {
                let answer = answer.await;
                fate.reply().await;
                answer
            }
            Outcome::After => {
                drop(answer.await);
                fate.reply().await;
                Err(Lost::Unknown.into())
            }
        }
    }

    /// Changes something. What is asked for first is done first.
    async fn change<T: Send + 'static>(&self, mut fate: Fate, effect: Effect<T>) -> Result<T, Lost> {
        let turn = self.turn.clone().lock_owned().await;
        fate.wait().await;
        match fate.outcome {
            Outcome::Before => Err(Lost::Before),
            Outcome::Never => {
                drop(turn);
                fate.reply().await;
                Err(Lost::Unknown)
            }
            Outcome::Behind => {
                let turn = self.turn.clone();
                self.behind.spawn(async move {
                    fate.reply().await;
                    let _turn = turn.lock().await;
                    drop(effect.await);
                });
                Err(Lost::Unknown)
            }
            Outcome::Well | Outcome::After => {
                let done = effect.await;
                drop(turn);
                fate.reply().await;
                if matches!(fate.outcome, Outcome::Well) { Ok(done) } else { Err(Lost::Unknown) }
            }
        }
    }

    /// Changes a topic; `deed` is what is noted if it was changed.
    async fn change_topic<T: Send + 'static>(
        &self,
        fate: Fate,
        deed: Option<Deed>,
        effect: impl Future<Output = Result<T, StorageError>> + Send + 'static,
    ) -> Result<T, StorageError> {
        let (deeds, trace) = (self.deeds.clone(), self.trace.clone());
        let effect: Effect<Result<T, StorageError>> = Box::pin(async move {
            let done = effect.await;
            if done.is_ok() {
                trace.lock().push(format!("done: {deed:?}"));
                deeds.lock().extend(deed);
            }
            done
        });
        self.change(fate, effect).await?
    }

    /// Appends messages and notes those that are new.
    fn append_noted(&self, batch: Vec<NewMessage>) -> Effect<Vec<Result<Appended, StorageError>>> {
        let (messages, deeds, trace) = (self.inner.messages.clone(), self.deeds.clone(), self.trace.clone());
        Box::pin(async move {
            let sent: Vec<_> =
                batch.iter().map(|message| (message.topic.clone(), message.body.payload.clone())).collect();
            let results = messages.append(batch).await;
            for ((topic, payload), result) in sent.into_iter().zip(&results) {
                if let Ok(Appended { id, replayed: false, .. }) = result {
                    let payload = String::from_utf8_lossy(&payload).into_owned();
                    trace.lock().push(format!("done: {topic} {id} {payload}"));
                    deeds.lock().push(Deed::Appended { topic, id: *id, payload });
                }
            }
            results
        })
    }
}

#[deny(clippy::missing_trait_methods, reason = "what is new must fail, too")]
#[async_trait]
impl MessageStore for Faulty {
    async fn append(&self, batch: Vec<NewMessage>) -> Vec<Result<Appended, StorageError>> {
        let count = batch.len();
        let first = batch.first().map_or("", |message| message.topic.as_str());
        let mut fate = self.fate(Call::Append, &format!("{count} {first}"));
        let is_calm = self.is_calm.load(Ordering::SeqCst);
        // Those that are refused one by one.
        let mut results: Vec<Option<Result<Appended, StorageError>>> = Vec::with_capacity(count);
        let mut sent = Vec::with_capacity(count);
        for message in batch {
            let dice = &mut fate.dice;
            results.push(if is_calm {
                None
            } else if dice.chance(self.rates.full) {
                Some(Err(StorageError::Full("by the seed".into())))
            } else if dice.chance(self.rates.overloaded) {
                Some(Err(StorageError::Overloaded))
            } else {
                None
            });
            if results.last().is_some_and(Option::is_none) {
                sent.push(message);
            }
        }
        // Where a reply is lost, its front may have come; where a batch is, its front may not be.
        let whole = usize::try_from(fate.dice.roll(sent.len() as u64 + 1)).expect("a count");
        let answered = match fate.outcome {
            Outcome::Well => self.change(fate, self.append_noted(sent)).await.ok(),
            Outcome::After => {
                fate.outcome = Outcome::Well;
                let mut done = self.change(fate, self.append_noted(sent)).await.unwrap_or_default();
                done.truncate(whole);
                Some(done)
            }
            Outcome::Never => {
                sent.truncate(whole);
                fate.outcome = Outcome::Well;
                self.change(fate, self.append_noted(sent)).await.ok()
            }
            Outcome::Before => {
                let effect: Effect<()> = Box::pin(std::future::ready(()));
                let _ = self.change(fate, effect).await;
                None
            }
            Outcome::Behind => {
                let effect = self.append_noted(sent);
                let _ = self.change(fate, effect).await;
                Some(Vec::new())
            }
        };
        let lost = if answered.is_some() { Lost::Unknown } else { Lost::Before };
        let mut answered = answered.unwrap_or_default().into_iter();
        let answer =
            |refused: Option<_>| refused.unwrap_or_else(|| answered.next().unwrap_or(Err(lost.into())));
        results.into_iter().map(answer).collect()
    }

    async fn read(&self, topic: &TopicName, mut range: Range) -> Result<Batch, StorageError> {
        let mut fate = self.fate(Call::Read, &format!("{topic} {range:?}"));
        if !self.is_calm.load(Ordering::SeqCst) && fate.dice.chance(self.rates.short) {
            // As where messages are large.
            range.bytes_max = 1 + usize::try_from(fate.dice.roll(60)).expect("a size");
        }
        self.ask(fate, self.inner.messages.read(topic, range)).await
    }

    async fn latest(&self, topic: &TopicName, mut range: LatestRange) -> Result<Batch, StorageError> {
        let mut fate = self.fate(Call::Read, &format!("{topic} {range:?}"));
        if !self.is_calm.load(Ordering::SeqCst) && fate.dice.chance(self.rates.short) {
            range.bytes_max = 1 + usize::try_from(fate.dice.roll(60)).expect("a size");
        }
        self.ask(fate, self.inner.messages.latest(topic, range)).await
    }

    async fn get(&self, topic: &TopicName, id: MessageId) -> Result<Option<StoredMessage>, StorageError> {
        let fate = self.fate(Call::Get, &format!("{topic} {id}"));
        self.ask(fate, self.inner.messages.get(topic, id)).await
    }

    async fn trim(&self, topic: &TopicName, trim: Trim) -> Result<u64, StorageError> {
        let fate = self.fate(Call::Trim, &format!("{topic} {trim:?}"));
        let (messages, topic) = (self.inner.messages.clone(), topic.clone());
        self.change_topic(fate, None, async move { messages.trim(&topic, trim).await }).await
    }

    async fn remove(&self, topic: &TopicName, id: MessageId) -> Result<bool, StorageError> {
        let fate = self.fate(Call::Remove, &format!("{topic} {id}"));
        let (messages, topic) = (self.inner.messages.clone(), topic.clone());
        self.change_topic(fate, None, async move { messages.remove(&topic, id).await }).await
    }
}

#[deny(clippy::missing_trait_methods, reason = "what is new must fail, too")]
#[async_trait]
impl LiveStore for Faulty {
    async fn tail(&self, topic: &TopicName) -> Result<Tail, StorageError> {
        let fate = self.fate(Call::Tail, topic.as_str());
        self.ask(fate, self.inner.live.tail(topic)).await
    }

    async fn poll_changes(&self, topics: &[Followed]) -> Result<Changes, StorageError> {
        let mut fate = self.fate(Call::Changes, &format!("{topics:?}"));
        let spurious = !self.is_calm.load(Ordering::SeqCst) && fate.dice.chance(self.rates.spurious);
        let too_many = usize::try_from(fate.dice.roll(topics.len().max(1) as u64)).expect("an index");
        let mut changes = self.ask(fate, self.inner.live.poll_changes(topics)).await?;
        if spurious && too_many < topics.len() && !changes.changed.contains(&too_many) {
            changes.changed.push(too_many);
            changes.changed.sort_unstable();
        }
        Ok(changes)
    }

    fn listen(&self, listener: Weak<dyn HintListener>) {
        let ear: Arc<dyn HintListener> = Arc::new(Ear { faulty: self.me.clone(), listener });
        self.inner.live.listen(Arc::downgrade(&ear));
        *self.ear.lock() = Some(ear);
    }

    fn watch(&self, topic: &TopicName, watch: bool) {
        self.inner.live.watch(topic, watch);
    }

    fn watch_all(&self, watch: bool) {
        self.inner.live.watch_all(watch);
    }
}

#[deny(clippy::missing_trait_methods, reason = "what is new must fail, too")]
#[async_trait]
impl TopicStore for Faulty {
    async fn create(
        &self,
        topic: &TopicName,
        description: TopicUpdate,
        owner: Option<&str>,
    ) -> Result<Topic, StorageError> {
        let fate = self.fate(Call::Create, topic.as_str());
        let (topics, topic, owner) = (self.inner.topics.clone(), topic.clone(), owner.map(str::to_owned));
        let created = async move { topics.create(&topic, description, owner.as_deref()).await };
        self.change_topic(fate, None, created).await
    }

    async fn list(
        &self,
        selection: Selection<'_>,
        after: Option<&TopicName>,
        limit: usize,
    ) -> Result<TopicList, StorageError> {
        let fate = self.fate(Call::List, &format!("{selection:?} {after:?} {limit}"));
        self.ask(fate, self.inner.topics.list(selection, after, limit)).await
    }

    async fn names(
        &self,
        prefix: &str,
        after: Option<&TopicName>,
        limit: usize,
    ) -> Result<Vec<TopicName>, StorageError> {
        let fate = self.fate(Call::List, &format!("{prefix}* {after:?} {limit}"));
        self.ask(fate, self.inner.topics.names(prefix, after, limit)).await
    }

    async fn describe(&self, topic: &TopicName) -> Result<TopicState, StorageError> {
        let fate = self.fate(Call::Describe, topic.as_str());
        self.ask(fate, self.inner.topics.describe(topic)).await
    }

    async fn update(&self, topic: &TopicName, change: TopicChange) -> Result<Topic, StorageError> {
        let fate = self.fate(Call::Update, topic.as_str());
        let (topics, topic) = (self.inner.topics.clone(), topic.clone());
        self.change_topic(fate, None, async move { topics.update(&topic, change).await }).await
    }

    async fn delete(&self, topic: &TopicName) -> Result<(), StorageError> {
        let fate = self.fate(Call::Delete, topic.as_str());
        let (topics, topic) = (self.inner.topics.clone(), topic.clone());
        let deed = Deed::Deleted { topic: topic.clone() };
        self.change_topic(fate, Some(deed), async move { topics.delete(&topic).await }).await
    }

    async fn stats(&self) -> Result<TopicsStats, StorageError> {
        let fate = self.fate(Call::Stats, "");
        self.ask(fate, self.inner.topics.stats()).await
    }
}

#[deny(clippy::missing_trait_methods, reason = "what is new must fail, too")]
#[async_trait]
impl Upkeep for Faulty {
    async fn health(&self) -> Condition {
        self.inner.upkeep.health().await
    }

    async fn slow_commands(&self, limit: usize) -> Vec<SlowServer> {
        self.inner.upkeep.slow_commands(limit).await
    }

    fn away(&self) -> Vec<String> {
        self.inner.upkeep.away()
    }

    fn is_ready(&self) -> bool {
        self.inner.upkeep.is_ready()
    }

    fn now(&self) -> Timestamp {
        self.inner.upkeep.now()
    }

    async fn sweep(&self) -> Result<Swept, StorageError> {
        let fate = self.fate(Call::Sweep, "");
        let upkeep = self.inner.upkeep.clone();
        self.change_topic(fate, None, async move { upkeep.sweep().await }).await
    }

    async fn kept(&self, topics: &[TopicSelector]) -> Result<Option<Vec<u64>>, StorageError> {
        self.inner.upkeep.kept(topics).await
    }

    async fn sweep_one(&self, topic: &TopicName) -> Result<(), StorageError> {
        self.inner.upkeep.sweep_one(topic).await
    }
}
