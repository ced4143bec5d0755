//! Copying topics and buckets from one side to another, with all that their readers and workers know of them.
//!
//! It owns the order of the steps, and goes on after faults of either side. A side is a storage, a file ([`Export`],
//! [`ExportedFile`]), or whatever else answers what a copy asks ([`CopySide`]). It must not know which there are, nor who is told of the progress.
//!
//! A copy goes through the topics again and again. In each pass a topic gets the messages that it has not got yet, from
//! where the target says that it is: nothing else has to be remembered, and a copy that was broken off is gone on with by
//! the next. While it is not whole, a topic is frozen at the target: nobody publishes to it, and nothing is mixed up. One is
//! finished when all that it is to get has come; then it takes messages.
//!
//! What is copied once gets what there is as it begins. What is followed gets what comes, too, and is finished once the
//! source is read-only: from then on nothing is accepted there, so what was accepted is at the target.
//!
//! **Invariant:** a topic that was not made by a copy is changed only where it was said that it is to be overwritten.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use parking_lot::Mutex;
use tidemill_proto::copy::CopyRead;
use tidemill_proto::{BucketName, MessageId, TopicName, TopicSelector};
use tokio::time::{Instant, sleep};

use crate::chance::random;
use crate::storage::{CopiedTopic, Epoch, Freeze, IMPORTED_MAX, OddNames};

mod access;
mod apart;
mod buckets;
mod claims;
mod error;
mod file;
mod freezing;
mod gone;
mod groups;
mod kept;
mod lacking;
mod listed;
mod messages;
mod paced;
mod planning;
mod progress;
mod side;
mod storage;
mod waiting;
mod wire;

pub use access::{AccessPlan, Documents, bring_access, plan_access};
pub use error::{Clash, CopyError, Side, named};
pub use file::{Counts, Export, ExportedFile, FORM, FileError, Header, Origin};
pub use freezing::{FreezeError, Frozen, FrozenState, NEW_TOPICS_SETTLE, freeze, freeze_or_undo, frozen};
pub use paced::Paced;
pub use planning::{Action, Ages, Lacks, Outline, Planned, PlannedBucket, Replaced, retention};
pub use progress::{Progress, Reached};
pub use side::{CopySide, SideError, Told, Write};
pub use storage::{read, write};
pub use wire::{check_read, told_from, told_to, write_from, write_to};

use error::{not_imported, unless_gone};
use kept::Given;
use side::{Answer, ask, find};

/// Topics that are copied at one time.
const AT_ONCE: usize = 8;
/// How long after a pass that found nothing new the next one begins.
const PASS_EVERY: Duration = Duration::from_millis(100);
/// How long to wait before a step is tried again that has failed, at first and at most.
const AGAIN_MIN: Duration = Duration::from_millis(100);
const AGAIN_MAX: Duration = Duration::from_secs(5);

/// What is copied, and how.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The topics; all, and all buckets, where none is named.
    pub topics: Vec<TopicSelector>,
    /// Whether what comes is copied, too, until the source is read-only.
    pub follow: bool,
    /// Whether to make the source read-only once all that it had has come; else somebody else does.
    pub switch: bool,
    /// Whether topics of the target are replaced that are something else.
    pub overwrite: bool,
    /// For how long a side may fail before that is the end.
    pub patience: Duration,
}

/// How far a topic is after a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    /// It is whole.
    Finished,
    /// It has all that there was; more may come.
    Waiting,
    /// It is gone from the source.
    Gone,
}

/// A copy.
#[derive(Debug)]
pub struct Copy {
    from: Arc<dyn CopySide>,
    to: Arc<dyn CopySide>,
    plan: Plan,
    progress: Arc<Progress>,
    /// Topics of the target that this copy has made or goes on with, and the logs of such buckets.
    made: Mutex<BTreeSet<TopicName>>,
    finished: Mutex<BTreeSet<TopicName>>,
    /// Topics of the target, and logs of buckets, that are replaced although they are copies: they lack something.
    replacing: Mutex<BTreeSet<TopicName>>,
    /// Topics of the source, and logs of its buckets, that its lists did not name when it was looked last.
    unlisted: Mutex<BTreeSet<TopicName>>,
    /// What the source has that is not copied, as Tidemill allows no such names.
    odd_topics: Mutex<OddNames>,
    odd_groups: Mutex<OddNames>,
    /// Those of the target that were there, and whose names it was seen to.
    listed: Mutex<BTreeSet<TopicName>>,
    /// How many messages were expected of a topic that is not whole yet, how many have come, and their bytes.
    came: Mutex<BTreeMap<TopicName, [u64; 3]>>,
    /// What the target was given of topics and buckets that are whole by this copy.
    given: Mutex<BTreeMap<TopicName, Given>>,
    /// How many keys have come of a bucket that is not whole yet, by its log: each as often as it came.
    keys_came: Mutex<BTreeMap<TopicName, u64>>,
    /// What tells this copy from others to a target.
    token: u64,
    /// When the target was told last that this copy alone takes something over.
    claimed: Mutex<BTreeMap<TopicName, Instant>>,
    /// Topics for which the target may do yet what it was asked to, as there was no answer.
    unanswered: Mutex<BTreeSet<TopicName>>,
    /// What told the servers of the source from others as this copy began.
    source_began: OnceLock<BTreeSet<String>>,
    /// Whether the sides have a server in common, on which a topic may be the same one for both.
    shares_server: AtomicBool,
    /// Since when either side fails.
    fails_since: Mutex<Option<Instant>>,
}

impl Copy {
    /// Returns a copy from one side to another, which has not begun.
    #[must_use]
    pub fn new(from: Arc<dyn CopySide>, to: Arc<dyn CopySide>, plan: Plan) -> Self {
        Self {
            from,
            to,
            plan,
            progress: Arc::default(),
            made: Mutex::default(),
            finished: Mutex::default(),
            replacing: Mutex::default(),
            unlisted: Mutex::default(),
            odd_topics: Mutex::default(),
            odd_groups: Mutex::default(),
            listed: Mutex::default(),
            came: Mutex::default(),
            given: Mutex::default(),
            keys_came: Mutex::default(),
            token: random(),
            claimed: Mutex::default(),
            unanswered: Mutex::default(),
            source_began: OnceLock::new(),
            shares_server: AtomicBool::new(false),
            fails_since: Mutex::default(),
        }
    }

    /// Returns what it copies, and how.
    #[must_use]
    pub fn to_do(&self) -> &Plan {
        &self.plan
    }

    /// Returns where it can be seen how far it has come.
    #[must_use]
    pub fn progress(&self) -> Arc<Progress> {
        self.progress.clone()
    }

    /// Copies. It changes nothing where something stands in the way, as a topic of the target that is something else, and is
    /// not to be overwritten.
    ///
    /// # Errors
    /// It cannot be done, or a side failed for longer than it may.
    ///
    /// # Cancel safety
    /// When the future is dropped, what was copied stays, and the next copy goes on from there.
    pub async fn run(&self) -> Result<(), CopyError> {
        self.run_as(&self.plan().await?).await
    }

    /// Copies what was outlined just now, as [`run`](Self::run) does it.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Cancel safety
    /// As there.
    pub async fn run_as(&self, outline: &Outline) -> Result<(), CopyError> {
        if let Some(obstacle) = outline.obstacles(&self.plan).into_iter().next() {
            return Err(obstacle);
        }
        *self.replacing.lock() = outline.replaced_copies();
        let planned = outline.copied();
        let (mut switched_at, mut has_looked) = (None, !self.plan.follow);
        loop {
            let began = Instant::now();
            let refuses = self.patiently(|| self.is_switched()).await?;
            if refuses && switched_at.is_none() {
                switched_at = Some(began);
                self.progress.source_read_only.send_replace(true);
            }
            let come = || self.progress.reached().messages + self.progress.reached().keys;
            let before = come();
            let topics = self.patiently(|| self.topics()).await?;
            self.progress.topics.store(topics.len() as u64, Ordering::Relaxed);
            let pass = async |topic: TopicName| {
                let copied = self.patiently(|| self.copy_one(&topic)).await;
                Ok::<_, CopyError>((topic, unless_gone(copied, After::Gone)?))
            };
            let passes = stream::iter(topics).map(pass).buffer_unordered(AT_ONCE);
            let mut afters: Vec<(TopicName, After)> = passes.try_collect().await?;
            let buckets = self.patiently(|| self.buckets()).await?;
            self.progress.buckets.store(buckets.len() as u64, Ordering::Relaxed);
            let pass = async |bucket: BucketName| {
                let copied = self.patiently(|| self.copy_bucket(&bucket)).await;
                Ok::<_, CopyError>((TopicName::log_of(&bucket), unless_gone(copied, After::Gone)?))
            };
            let passes = stream::iter(buckets).map(pass).buffer_unordered(AT_ONCE);
            afters.extend(passes.try_collect::<Vec<(TopicName, After)>>().await?);
            let count = afters.len();
            self.progress.passes.fetch_add(1, Ordering::Relaxed);
            let gone = self.gone(&afters);
            if let Some(first) = gone.first() {
                self.patiently(|| self.check_same_run(first)).await?;
            }
            let waiting = afters.iter().filter(|(_, after)| *after == After::Waiting).count();
            // What a node was about to make when that was said has come by then.
            let are_all = !self.plan.follow
                || !self.plan.topics.is_empty()
                || switched_at.is_some_and(|at| began.duration_since(at) >= NEW_TOPICS_SETTLE);
            if waiting == 0 && are_all && !has_looked {
                // What other programs have made meanwhile.
                has_looked = true;
                if self.patiently(|| self.find_unlisted()).await? {
                    continue;
                }
            }
            if waiting == 0 && are_all {
                self.forget(&gone).await?;
                self.tell_gone(planned, gone).await?;
                self.check_kept().await?;
                let there = afters.into_iter().filter(|(_, after)| *after != After::Gone);
                let there = there.map(|(topic, _)| topic).collect();
                // What was deleted at the source just as this began, before it was gone on with.
                let left = self.left(&there).await?.obstacles(&self.plan);
                return left.into_iter().next().map_or(Ok(()), Err);
            }
            // Who froze the target meanwhile wants no more there.
            self.patiently(|| self.check_target()).await?;
            let is_calm = come().saturating_sub(before) < (count as u64 + 1) * IMPORTED_MAX as u64;
            self.progress.caught_up.store(self.plan.follow && is_calm, Ordering::Relaxed);
            if self.plan.switch && switched_at.is_none() && is_calm {
                self.patiently(|| self.switch()).await?;
                switched_at = Some(Instant::now());
            } else if is_calm {
                sleep(PASS_EVERY).await;
            }
        }
    }

    /// Does something until it succeeds, or has failed for too long.
    async fn patiently<T>(&self, act: impl AsyncFn() -> Result<T, CopyError>) -> Result<T, CopyError> {
        let mut wait = AGAIN_MIN;
        loop {
            match act().await {
                Ok(done) => {
                    *self.fails_since.lock() = None;
                    *self.progress.failing.lock() = None;
                    return Ok(done);
                }
                Err(error) if error.is_passing() => {
                    let since = *self.fails_since.lock().get_or_insert_with(Instant::now);
                    if since.elapsed() > self.plan.patience {
                        return Err(error);
                    }
                    *self.progress.failing.lock() = Some(error.chain());
                    sleep(wait).await;
                    wait = (wait * 2).min(AGAIN_MAX);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Returns whether no more topics are made at the source.
    async fn is_switched(&self) -> Result<bool, CopyError> {
        if !self.plan.follow || !self.plan.topics.is_empty() {
            return Ok(false);
        }
        self.refuses(Side::Source).await
    }

    /// Makes the source read-only.
    async fn switch(&self) -> Result<(), CopyError> {
        // Where it fails, or nobody waits for it any more, a part may be.
        self.progress.switching.store(true, Ordering::Relaxed);
        let frozen = freeze(&*self.from, &self.plan.topics, true).await;
        frozen.map_err(Side::Source.failed_at_all())?;
        self.progress.source_read_only.send_replace(true);
        Ok(())
    }

    /// Checks that the target was not made read-only: then nothing is to take messages there, as what is whole does.
    async fn check_target(&self) -> Result<(), CopyError> {
        if self.refuses(Side::Target).await? { Err(CopyError::TargetReadOnly) } else { Ok(()) }
    }

    /// Returns whether a side makes no more topics.
    async fn refuses(&self, side: Side) -> Result<bool, CopyError> {
        ask(self.side(side), CopyRead::RefusesNew).await.map_err(side.failed_at_all())
    }

    /// Returns a topic of a side, if it is there.
    async fn look(&self, side: Side, topic: &TopicName) -> Result<Option<CopiedTopic>, CopyError> {
        let found = find(self.side(side), CopyRead::Topic { topic: topic.clone() }).await;
        Ok(found.map_err(side.failed(topic))?.map(|found: Box<CopiedTopic>| *found))
    }

    fn side(&self, side: Side) -> &dyn CopySide {
        match side {
            Side::Source => &*self.from,
            Side::Target => &*self.to,
        }
    }

    /// Asks the source about a topic, or the log of a bucket.
    async fn ask_source<A: Answer>(&self, topic: &TopicName, asked: CopyRead) -> Result<A, CopyError> {
        ask(&*self.from, asked).await.map_err(Side::Source.failed(topic))
    }

    /// Notes that a topic of the target is gone on with. Who has begun it may have been broken off just now.
    fn go_on_with(&self, topic: &TopicName) {
        if self.made.lock().insert(topic.clone()) {
            self.unanswered.lock().insert(topic.clone());
        }
    }

    /// Has the target take something over of a topic, or of the log of a bucket.
    async fn import(&self, topic: &TopicName, write: Write) -> Result<(), CopyError> {
        let Err(error) = self.to.write(write).await else { return Ok(()) };
        match error {
            SideError::Passing(_) => _ = self.unanswered.lock().insert(topic.clone()),
            SideError::NotLast if self.unanswered.lock().remove(topic) => {
                return Err(CopyError::Passed(topic.clone()));
            }
            _ => {}
        }
        Err(not_imported(topic, error))
    }

    /// Returns a topic of the source, with an epoch.
    async fn source(&self, topic: &TopicName) -> Result<Option<CopiedTopic>, CopyError> {
        let not = |why| CopyError::NotCopied { topic: topic.clone(), why };
        let Some(mut found) = self.look(Side::Source, topic).await? else { return Ok(None) };
        if found.epoch == Epoch::Unmarked {
            let marked = self.from.write(Write::Mark { topic: topic.clone() }).await;
            marked.map_err(Side::Source.failed(topic))?;
            let Some(again) = self.look(Side::Source, topic).await? else { return Ok(None) };
            found = again;
        }
        if found.epoch == Epoch::Unmarked {
            return Err(not("the server of the source lets no relay mark it"));
        }
        if found.freeze == Some(Freeze::Importing) {
            return Err(not(planning::NOT_WHOLE));
        }
        Ok(Some(found))
    }

    /// Has a topic of the target be where it can get messages; returns its last, or that it is whole.
    async fn target(&self, source: &CopiedTopic) -> Result<Option<MessageId>, CopyError> {
        let topic = &source.topic.topic_name;
        if let Some(target) = self.look(Side::Target, topic).await? {
            let is_importing = target.freeze == Some(Freeze::Importing);
            if target.epoch == source.epoch {
                if is_importing {
                    self.go_on_with(topic);
                    // By another field others are the latest, of those that were taken over already.
                    if target.topic.compact_by == source.topic.compact_by {
                        return Ok(Some(target.last));
                    }
                }
                let stays = !is_importing && !self.replacing.lock().contains(topic);
                if stays && self.has_last(source, &target).await? {
                    return Ok(None);
                }
            }
            // At the source it was deleted and made again meanwhile, or described anew.
            let is_ours = is_importing && self.made.lock().contains(topic);
            if !self.plan.overwrite && !is_ours {
                let is_copy = target.epoch == source.epoch;
                let clash = Clash { is_copy, source: source.length, target: target.length };
                return Err(CopyError::Taken(topic.clone(), clash));
            }
            if is_ours && target.epoch != source.epoch {
                self.check_same_run(topic).await?;
            }
            self.delete(topic).await?;
            if !is_ours {
                self.progress.replaced_messages.fetch_add(target.length, Ordering::Relaxed);
            }
        }
        self.import(topic, Write::Begin(Box::new(source.clone()))).await?;
        self.replacing.lock().remove(topic);
        self.made.lock().insert(topic.clone());
        Ok(Some(MessageId::MIN))
    }

    /// Copies what a topic has not got yet, and finishes it where that is all.
    async fn copy_one(&self, topic: &TopicName) -> Result<After, CopyError> {
        if self.finished.lock().contains(topic) {
            return Ok(After::Finished);
        }
        let Some(mut source) = self.source(topic).await? else { return Ok(After::Gone) };
        if self.plan.follow
            && self.plan.topics.is_empty()
            && source.freeze.is_none()
            && source.ended.is_none()
        {
            // One that was made as the source became read-only.
            if self.is_switched().await? {
                let frozen = self.from.write(Write::Freeze { topic: topic.clone(), frozen: true }).await;
                frozen.map_err(Side::Source.failed(topic))?;
                let Some(frozen) = self.source(topic).await? else { return Ok(After::Gone) };
                source = frozen;
            }
        }
        let Some(after) = self.target(&source).await? else {
            // What comes to the source has no place at a target that is whole, and may take messages of its own: it is told
            // then.
            self.check_apart(topic).await?;
            self.list(topic).await?;
            if self.plan.follow && source.freeze.is_none() && source.ended.is_none() {
                return Ok(After::Waiting);
            }
            self.finish(topic);
            return Ok(After::Finished);
        };
        if after < source.last {
            self.copy_messages(&source, after).await?;
        }
        if self.plan.follow && source.freeze.is_none() && source.ended.is_none() {
            return Ok(After::Waiting);
        }
        self.claim(topic).await?;
        let deletions = self.ask_source(topic, CopyRead::Deletions { topic: topic.clone() }).await?;
        self.forget_latest(&source).await?;
        self.copy_groups(topic).await?;
        self.copy_waiting(topic).await?;
        self.check_target().await?;
        self.claim(topic).await?;
        // What came behind may be of another one of that name, which has been made since.
        if self.look(Side::Source, topic).await?.is_none_or(|now| now.epoch != source.epoch) {
            return Ok(After::Gone);
        }
        // It takes messages at the target, however it was at the source.
        let whole = CopiedTopic { freeze: None, ..source };
        let given = Given::of(&whole);
        self.import(topic, Write::Finish { topic: Box::new(whole), deletions }).await?;
        self.came.lock().remove(topic);
        self.given.lock().insert(topic.clone(), given);
        self.finish(topic);
        Ok(After::Finished)
    }

    fn finish(&self, topic: &TopicName) {
        self.finished.lock().insert(topic.clone());
        self.progress.finished.fetch_add(1, Ordering::Relaxed);
    }

    /// Deletes a topic of the target.
    async fn delete(&self, topic: &TopicName) -> Result<(), CopyError> {
        match self.to.write(Write::Delete { topic: topic.clone() }).await {
            Ok(()) | Err(SideError::Missing) => Ok(()),
            Err(error) => Err(Side::Target.failed(topic)(error)),
        }
    }
}
