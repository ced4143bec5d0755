//! What a copy would do, and what stands in its way. It changes nothing.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tidemill_proto::copy::CopyRead;
use tidemill_proto::work::GroupName;
use tidemill_proto::{BucketName, MessageId, TopicName, TopicSelector};

use super::error::unless_gone;
use super::freezing::is_named;
use super::side::{CopySide, SideError, ask};
use super::{AT_ONCE, Clash, Copy, CopyError, Plan, Side};
use crate::storage::{CopiedTopic, Epoch, Freeze, OddNames};

/// Why what the source has is not copied.
pub(super) const NOT_WHOLE: &str = "it is being copied to the source itself, and is not whole";

/// What a copy would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outline {
    /// With the topics, in their order; behind them those of the target that the source has no more.
    pub topics: Vec<Planned>,
    /// With the buckets, as well.
    pub buckets: Vec<PlannedBucket>,
    /// Whether the target makes no topics, as it is read-only.
    pub target_refuses: bool,
    /// Topics of the source, and groups as people say them, that are left out: Tidemill allows no such names.
    pub odd_topics: OddNames,
    /// See there.
    pub odd_groups: OddNames,
}

/// What a copy would do with a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// The topic.
    pub topic: TopicName,
    /// What would be done.
    pub action: Action,
    /// Messages that the source keeps, and how many of them would be copied at the most.
    pub messages: u64,
    /// Groups of consumers.
    pub groups: usize,
    /// What the target loses, where it has something else that is replaced.
    pub replaced: Option<Replaced>,
    /// What the target lacks, where it has it otherwise.
    pub lacks: Option<Lacks>,
    /// Messages that the target has of that name.
    pub there: u64,
    /// How old they are at the source.
    pub ages: Ages,
}

/// How old the messages of a topic are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ages {
    /// The time of the first, in milliseconds since 1970, as its id has it.
    pub first_ms: u64,
    /// That of the last.
    pub last_ms: u64,
    /// Within how many seconds the topic itself says that they are removed, if it does.
    pub retention_seconds: Option<u64>,
}

/// What a copy would do with a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedBucket {
    /// The bucket.
    pub bucket: BucketName,
    /// What would be done.
    pub action: Action,
    /// Keys that it has.
    pub keys: u64,
    /// As of a topic.
    pub replaced: Option<Replaced>,
    /// As of a topic.
    pub lacks: Option<Lacks>,
    /// Keys that the target has under that name.
    pub there: u64,
}

/// What the target loses of a topic or a bucket that is replaced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replaced {
    /// Messages, or keys.
    pub count: u64,
    /// Whether its last message, or change, is younger than the last of the source.
    pub is_younger: bool,
    /// Whether it was copied from the source before; else it is another one.
    pub is_copy: bool,
}

/// What a target that has a topic or a bucket lacks of what the source has: it was removed there, or lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lacks {
    /// Messages, or keys; about, where nothing is replaced.
    pub count: u64,
    /// Groups.
    pub groups: usize,
}

/// What is done with a topic or a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is made.
    Make,
    /// A copy of it that is not whole is gone on with.
    GoOn,
    /// It is there already, as whole as it was to be; of what it lacks since, nothing comes back.
    Keep,
    /// What is there is something else, and is replaced where that was said; or it lacks something, and that was said.
    Overwrite,
    /// It cannot be copied as it is at the source: it is not whole there.
    Refuse,
    /// An earlier copy has left a part of it at the target, and the source has it no more.
    Left,
}

impl Action {
    /// Returns what the target loses by this, by how much it has, its last id and whether it is a copy, and the last id of
    /// the source.
    fn replaced(self, target: Option<(u64, MessageId, bool)>, source_last: MessageId) -> Option<Replaced> {
        let (count, last, is_copy) = target.filter(|_| self == Self::Overwrite)?;
        Some(Replaced { count, is_younger: last > source_last, is_copy })
    }
}

impl Outline {
    /// Whether the source has nothing of what is to be copied.
    #[must_use]
    pub fn is_without_source(&self) -> bool {
        let topics = self.topics.iter().map(|one| one.action);
        topics.chain(self.buckets.iter().map(|one| one.action)).all(|action| action == Action::Left)
    }

    /// Returns the topics, and the logs of buckets, that are replaced although they are copies that have all that came to the
    /// source.
    pub(super) fn replaced_copies(&self) -> BTreeSet<TopicName> {
        let topics = self.topics.iter().filter(|one| one.action == Action::Overwrite && one.lacks.is_some());
        let buckets =
            self.buckets.iter().filter(|one| one.action == Action::Overwrite && one.lacks.is_some());
        let logs = buckets.map(|one| TopicName::log_of(&one.bucket));
        topics.map(|one| one.topic.clone()).chain(logs).collect()
    }

    /// Returns of how many topics the target gets messages that are older than a limit, and how many these are at the most. The
    /// limit is that in milliseconds since 1970, of a topic by what it says of its own retention; `None` where nothing is.
    #[must_use]
    pub fn older(&self, limit: impl Fn(Ages) -> Option<u64>) -> (u64, u64) {
        let is_brought = |action| matches!(action, Action::Make | Action::GoOn | Action::Overwrite);
        let brought = self.topics.iter().filter(|one| is_brought(one.action) && one.messages > 0);
        let old = brought.filter(|one| limit(one.ages).is_some_and(|limit| one.ages.first_ms < limit));
        old.fold((0, 0), |(topics, messages), one| (topics + 1, messages + one.messages))
    }

    /// Returns the topics, and the logs of buckets, that are to be at the target in the end.
    pub(super) fn copied(&self) -> BTreeSet<TopicName> {
        let topics = self.topics.iter().map(|one| (one.topic.clone(), one.action));
        let buckets = self.buckets.iter().map(|one| (TopicName::log_of(&one.bucket), one.action));
        let is_copied = |action| !matches!(action, Action::Refuse | Action::Left);
        topics.chain(buckets).filter(|(_, action)| is_copied(*action)).map(|(topic, _)| topic).collect()
    }

    /// Returns what stands in the way of a plan.
    #[must_use]
    pub fn obstacles(&self, plan: &Plan) -> Vec<CopyError> {
        let clash = |source, replaced: Option<Replaced>| {
            let Replaced { count: target, is_copy, .. } = replaced.unwrap_or_default();
            Clash { is_copy, source, target }
        };
        let topics = self.topics.iter();
        let topics = topics.map(|one| (one.topic.clone(), one.action, clash(one.messages, one.replaced)));
        let buckets = self.buckets.iter();
        let buckets =
            buckets.map(|one| (TopicName::log_of(&one.bucket), one.action, clash(one.keys, one.replaced)));
        let all = || topics.clone().chain(buckets.clone());
        let in_the_way = all().filter_map(|(topic, action, clash)| match action {
            Action::Overwrite if !plan.overwrite => Some(CopyError::Taken(topic, clash)),
            Action::Refuse => Some(CopyError::NotCopied { topic, why: NOT_WHOLE }),
            Action::Left => Some(CopyError::Left(topic)),
            Action::Make | Action::GoOn | Action::Keep | Action::Overwrite => None,
        });
        let is_changed = |action| matches!(action, Action::Make | Action::GoOn | Action::Overwrite);
        let refused = self.target_refuses && all().any(|(_, action, _)| is_changed(action));
        refused.then_some(CopyError::TargetReadOnly).into_iter().chain(in_the_way).collect()
    }
}

/// Returns within which time a side removes messages of topics that say nothing of it, if it does.
///
/// # Errors
/// The side failed, or does not tell that.
pub async fn retention(side: &dyn CopySide) -> Result<Option<Duration>, SideError> {
    let seconds: Option<u64> = ask(side, CopyRead::Retention).await?;
    Ok(seconds.map(Duration::from_secs))
}

impl Copy {
    /// Returns what would be done, and does nothing.
    ///
    /// # Errors
    /// A side failed, there is no such topic, or the sides are the same.
    pub async fn plan(&self) -> Result<Outline, CopyError> {
        self.patiently(|| self.check_sides()).await?;
        self.patiently(|| self.find_unlisted()).await?;
        *self.odd_groups.lock() = OddNames::default();
        let topics = self.patiently(|| self.topics()).await?;
        let matches = |selector: &&TopicSelector| topics.iter().any(|topic| selector.matches(topic));
        if let Some(selector) = self.plan.topics.iter().find(|selector| !matches(selector)) {
            return Err(CopyError::Missing(selector.clone()));
        }
        let plan = async |topic: TopicName| {
            let planned = self.patiently(|| self.plan_one(&topic)).await;
            unless_gone(planned, None)
        };
        let planned = stream::iter(topics).map(plan).buffered(AT_ONCE);
        let topics: Vec<Option<Planned>> = planned.try_collect().await?;
        let buckets = self.patiently(|| self.buckets()).await?;
        let plan = async |bucket: BucketName| {
            let planned = self.patiently(|| self.plan_bucket(&bucket)).await;
            unless_gone(planned, None)
        };
        let planned = stream::iter(buckets).map(plan).buffered(AT_ONCE);
        let buckets: Vec<Option<PlannedBucket>> = planned.try_collect().await?;
        let target_refuses = self.patiently(|| self.refuses(Side::Target)).await?;
        let mut topics: Vec<Planned> = topics.into_iter().flatten().collect();
        let mut buckets: Vec<PlannedBucket> = buckets.into_iter().flatten().collect();
        let logs = buckets.iter().map(|one| TopicName::log_of(&one.bucket));
        let there = topics.iter().map(|one| one.topic.clone()).chain(logs).collect();
        let left = self.left(&there).await?;
        topics.extend(left.topics);
        buckets.extend(left.buckets);
        let (odd_topics, odd_groups) = (self.odd_topics.lock().clone(), self.odd_groups.lock().clone());
        Ok(Outline { topics, buckets, target_refuses, odd_topics, odd_groups })
    }

    /// Returns what tells the servers of a side from all others: those on which what is copied may be. The others may be away.
    pub(super) async fn identity(&self, side: Side) -> Result<BTreeSet<String>, CopyError> {
        let mut all = BTreeSet::new();
        let named = self.plan.topics.iter().cloned().map(Some);
        for topics in named.chain(self.plan.topics.is_empty().then_some(None)) {
            all.extend(self.identity_of(side, topics).await?);
        }
        Ok(all)
    }

    /// Returns the same of the servers on which some topics may be, or of all.
    async fn identity_of(
        &self,
        side: Side,
        topic: Option<TopicSelector>,
    ) -> Result<BTreeSet<String>, CopyError> {
        let told: Result<Vec<String>, _> = ask(self.side(side), CopyRead::Identity { topic }).await;
        Ok(told.map_err(side.failed_at_all())?.into_iter().collect())
    }

    /// Checks that the sides are not one storage under two names, as far as their servers say who they are. They may have a
    /// server in common where topics are named: each is then looked at by itself.
    async fn check_sides(&self) -> Result<(), CopyError> {
        let from = self.identity(Side::Source).await?;
        let to = self.identity(Side::Target).await?;
        self.source_began.get_or_init(|| from.clone());
        if from.is_disjoint(&to) {
            return Ok(());
        }
        if from == to && self.are_one().await {
            return Err(CopyError::Same(None));
        }
        if self.plan.topics.is_empty() {
            return Err(CopyError::Shared);
        }
        self.shares_server.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Whether the sides, which have the servers of what is copied in common, have all in common. Where one of the others is
    /// away, each topic is looked at by itself.
    async fn are_one(&self) -> bool {
        if self.plan.topics.is_empty() {
            return true;
        }
        let from = self.identity_of(Side::Source, None).await;
        let to = self.identity_of(Side::Target, None).await;
        from.is_ok_and(|from| to.is_ok_and(|to| from == to))
    }

    /// Checks that a topic does not live on the same server for both sides.
    pub(super) async fn check_apart(&self, topic: &TopicName) -> Result<(), CopyError> {
        if !self.shares_server.load(Ordering::Relaxed) {
            return Ok(());
        }
        let one = || Some(TopicSelector::Topic(topic.clone()));
        let from = self.identity_of(Side::Source, one()).await?;
        let to = self.identity_of(Side::Target, one()).await?;
        if !from.is_disjoint(&to) {
            return Err(CopyError::Same(Some(topic.clone())));
        }
        Ok(())
    }

    async fn plan_one(&self, topic: &TopicName) -> Result<Option<Planned>, CopyError> {
        let Some(source) = self.look(Side::Source, topic).await? else {
            return if is_named(&self.plan.topics, topic) {
                Err(CopyError::Missing(TopicSelector::Topic(topic.clone())))
            } else {
                Ok(None)
            };
        };
        self.check_apart(topic).await?;
        let groups: Vec<GroupName> =
            self.ask_source(topic, CopyRead::Groups { topic: topic.clone() }).await?;
        let odd = self.from.odd_groups(topic).await.map_err(Side::Source.failed(topic))?;
        if odd.count > 0 {
            let first = odd.first.iter().map(|group| format!("group `{group}` of topic `{topic}`")).collect();
            self.odd_groups.lock().add_all(OddNames { first, ..odd });
        }
        let found = self.look(Side::Target, topic).await?;
        // Of two that nobody has marked, neither is a copy of the other.
        let is_copy = |target: &CopiedTopic| target.epoch == source.epoch && source.epoch != Epoch::Unmarked;
        let target = found.as_ref().map(|target| (target.length, target.last, is_copy(target)));
        let mut lacks = None;
        let action = match found {
            _ if source.freeze == Some(Freeze::Importing) => Action::Refuse,
            None => Action::Make,
            Some(target) if !is_copy(&target) => Action::Overwrite,
            Some(target) if target.freeze == Some(Freeze::Importing) => Action::GoOn,
            Some(target) if self.has_last(&source, &target).await? => {
                lacks = self.lacks(&source, &target, &groups).await?;
                self.kept_or_replaced(lacks)
            }
            // It was whole, and took messages of its own since, or might have.
            Some(_) => Action::Overwrite,
        };
        let beside = match action {
            Action::Make | Action::Overwrite => self.count_latest(&source).await?,
            Action::GoOn | Action::Keep | Action::Refuse | Action::Left => 0,
        };
        let (topic, messages, groups) = (topic.clone(), source.length + beside, groups.len());
        let replaced = action.replaced(target, source.last);
        let there = target.map_or(0, |(count, ..)| count);
        let ages = Ages {
            first_ms: source.first.unwrap_or(source.last).ms,
            last_ms: source.last.ms,
            retention_seconds: source.topic.retention_seconds,
        };
        Ok(Some(Planned { topic, action, messages, groups, replaced, lacks, there, ages }))
    }

    /// Returns what is done with what is there and lacks so much.
    fn kept_or_replaced(&self, lacks: Option<Lacks>) -> Action {
        if lacks.is_some() && self.plan.overwrite { Action::Overwrite } else { Action::Keep }
    }

    async fn plan_bucket(&self, bucket: &BucketName) -> Result<Option<PlannedBucket>, CopyError> {
        let Some(source) = self.look_at_bucket(Side::Source, bucket).await? else { return Ok(None) };
        let found = self.look_at_bucket(Side::Target, bucket).await?;
        let target =
            found.as_ref().map(|target| (target.state.keys, target.last, target.epoch == source.epoch));
        let mut lacks = None;
        let action = match found {
            _ if source.freeze == Some(Freeze::Importing) => Action::Refuse,
            None => Action::Make,
            Some(target) if target.epoch != source.epoch => Action::Overwrite,
            Some(target) if target.freeze == Some(Freeze::Importing) => Action::GoOn,
            Some(target) if self.has_last_change(bucket, &source, &target).await? => {
                lacks = self.lacks_keys(&source, &target).await?;
                self.kept_or_replaced(lacks)
            }
            Some(_) => Action::Overwrite,
        };
        let replaced = action.replaced(target, source.last);
        let (bucket, keys, there) =
            (bucket.clone(), source.state.keys, target.map_or(0, |(count, ..)| count));
        Ok(Some(PlannedBucket { bucket, action, keys, replaced, lacks, there }))
    }
}
