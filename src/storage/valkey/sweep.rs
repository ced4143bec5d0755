//! Sweeping: age retention over every stream, marking those of other producers, and mending the index of
//! topics. Nodes get notice of what it finds to be new.
//!
//! One pass walks all streams of the keyspace, also those that another producer made and those that
//! nobody publishes to any more, whose old entries no `XADD` would ever trim. Trims are exact
//! (`MINID =`): an approximate one leaves up to a node of entries, which in an idle topic means for
//! ever.
//!
//! Nobody waits for a sweep, and publishes wait behind each of its questions. So these are small, and the
//! pass rests after each (see `scanning`).

use std::collections::BTreeSet;

use futures_util::future::join_all;
use glide::ValkeyValue;
use sha1::{Digest as _, Sha1};
use tidemill_proto::work::GroupName;
use tidemill_proto::{BucketName, Timestamp, TopicName};
use tokio::time::sleep;

use super::control::{bytes_of, checked};
use super::entry::read_id;
use super::failure::{Effect, unexpected};
use super::index::Indexes;
use super::keys::Keys;
use super::routing::in_order;
use super::scanning::REST;
use super::topics::{is_stream, write_notices};
use super::{Shard, keys, marker, scripts};
use crate::storage::{Found, GroupsSwept, HELD_TIMES, OddNames, StorageError, Swept, Unlisted};

/// Steps of the look for streams that nobody sees. A walk comes by keys in no order of theirs, so what is
/// not among the first 64,000 is rare.
const HIDDEN_STEPS_MAX: usize = 64;
/// Topics of one step.
const STEP_TOPICS: usize = 64;
/// What the script of a sweep answers of a stream that it has marked, or that is another one; and of one that is being taken
/// over.
const NEW: u64 = 1;
const UNFINISHED: u64 = 2;
/// By how many milliseconds ids may lie before the time at which nothing had them: the server's clock may be set
/// back a little, or another server's be behind that takes over from it.
const BEHIND_MS_MAX: &str = "2000";
/// What stands in the description of a topic that another producer may have made: what is remembered for the next
/// sweep, and of the last ones, and why it was cancelled.
const REMEMBERED: [&str; 4] = ["seen", "seen_id", keys::LATE, keys::REASON];
/// Part of the interval for which the lock is held: less than one, so that the next sweep is not
/// refused by the rest of the last one.
const LOCK_SHARE: f64 = 0.9;

/// For how many intervals nodes are told what a sweep has found: the next one may be late.
const FOUND_INTERVALS: u32 = 4;

/// How many parts are told of a group.
const GROUP_PARTS: usize = 7;

/// What is told of a group.
struct OfGroup {
    name: GroupName,
    dying: u64,
    groups: GroupsSwept,
}

/// A group, and what it has.
type Grouped = (TopicName, GroupName, GroupsSwept);

impl OfGroup {
    /// Reads what is told of the groups of a topic.
    fn read_all(parts: &[ValkeyValue], now: Timestamp) -> impl Iterator<Item = Self> {
        parts.chunks_exact(GROUP_PARTS).filter_map(move |parts| Self::read(parts, now))
    }

    fn read(parts: &[ValkeyValue], now: Timestamp) -> Option<Self> {
        let [name, lag, pending, dying, dead, claimed_at, oldest] = parts else { return None };
        let text = |value: &ValkeyValue| {
            bytes_of(value.clone()).and_then(|bytes| String::from_utf8(bytes.to_vec()).ok())
        };
        let number = |value: &ValkeyValue| match value {
            ValkeyValue::Int(number) => u64::try_from(*number).ok(),
            _ => None,
        };
        let (pending, dying) = (number(pending)?, number(dying)?);
        let counts = (number(lag)?, pending.saturating_sub(dying), number(dead)? + dying);
        let last_claim = text(claimed_at)?.parse().ok().filter(|ms| *ms > 0).map(Timestamp::from_millis);
        let oldest = read_id(text(oldest)?.as_bytes());
        let groups = GroupsSwept::of_one(counts, oldest, last_claim, now);
        Some(Self { name: GroupName::parse(&text(name)?).ok()?, dying, groups })
    }
}

/// Returns what was found as it is written for other nodes.
fn written(Found { topics, groups }: Found) -> String {
    let GroupsSwept { waiting, pending, dead, oldest, unattended } = groups;
    let oldest = oldest.map_or_else(String::new, |id| id.to_string());
    format!("{topics},{waiting},{pending},{dead},{oldest},{unattended}")
}

/// Reads it; `None` where another release has written something else.
fn read(text: &str) -> Option<Found> {
    let parts: Vec<&str> = text.split(',').collect();
    let [topics, waiting, pending, dead, oldest, unattended] = parts[..] else { return None };
    let number = |text: &str| text.parse::<u64>().ok();
    let oldest = if oldest.is_empty() { None } else { Some(read_id(oldest.as_bytes())?) };
    let groups = GroupsSwept {
        waiting: number(waiting)?,
        pending: number(pending)?,
        dead: number(dead)?,
        oldest,
        unattended: number(unattended)?,
    };
    Some(Found { topics: number(topics)?, groups })
}

impl Shard {
    /// Removes what is older than its retention from every topic, unless another node does so now.
    pub(super) async fn sweep(&self) -> Result<Swept, StorageError> {
        if !self.take_sweep_lock().await? {
            return Ok(Swept { found: self.found().await?, ..Swept::default() });
        }
        let (mut swept, mut groups, mut cursor) = (Swept::default(), GroupsSwept::default(), 0);
        loop {
            let (next, streams) = self.scan(self.keys, cursor).await?;
            let (streams, others): (Vec<_>, Vec<_>) = streams.into_iter().partition(|topic| self.has(topic));
            self.disown(&others).await?;
            let buckets: Vec<_> = streams.iter().filter_map(TopicName::bucket).collect();
            let topics: Vec<_> = streams.into_iter().filter(|topic| topic.bucket().is_none()).collect();
            for buckets in buckets.chunks(STEP_TOPICS) {
                self.index_buckets(buckets).await;
                sleep(REST).await;
            }
            for topics in topics.chunks(STEP_TOPICS) {
                swept.topics += topics.len() as u64;
                swept.removed += self.sweep_topics(topics).await?;
                self.sweep_groups(topics, &mut groups, &mut swept.dying).await?;
                sleep(REST).await;
            }
            if next == 0 {
                break;
            }
            if topics.is_empty() {
                sleep(REST).await;
            }
            cursor = next;
        }
        self.mend_index().await?;
        self.mend_buckets().await?;
        self.mend_series().await?;
        self.mend_unfinished().await?;
        let found = Found { topics: swept.topics, groups };
        self.tell_found(found).await?;
        Ok(Swept { found: Some(found), ..swept })
    }

    /// Takes out of the indexes by time what is on the server and lives elsewhere by the settings: what is due there would
    /// stand in front of all else for ever. Indexes by name keep it, as who copies it from here looks there.
    async fn disown(&self, streams: &[TopicName]) -> Result<(), StorageError> {
        // In a cluster they have just moved, and their names are where they were.
        if streams.is_empty() || self.seat().is_some() {
            return Ok(());
        }
        let topics: Vec<&TopicName> = streams.iter().filter(|topic| topic.bucket().is_none()).collect();
        let buckets: Vec<BucketName> = streams.iter().filter_map(TopicName::bucket).collect();
        let buckets: Vec<&BucketName> = buckets.iter().collect();
        let Indexes { schedules, expiring, .. } = &*self.indexes;
        schedules.disown(&topics).await?;
        expiring.disown(&buckets).await
    }

    /// Sweeps one topic, whoever else does.
    pub(super) async fn sweep_one(&self, topic: &TopicName) -> Result<(), StorageError> {
        // A log has its epoch from the beginning.
        if topic.bucket().is_none() {
            self.sweep_topics(std::slice::from_ref(topic)).await?;
        }
        Ok(())
    }

    /// Takes the lock that lets one of several nodes sweep. It ends by itself.
    async fn take_sweep_lock(&self) -> Result<bool, StorageError> {
        let held_ms = self.sweep_interval.mul_f64(LOCK_SHARE).as_millis().max(1).to_string();
        let mut pipeline = glide::pipe();
        let key = keys::of_server(keys::SWEEP_LOCK, self.own_slot());
        pipeline.cmd("SET").arg(key).arg("1").arg("NX").arg("PX").arg(held_ms);
        match self.change.run_one(&pipeline, Effect::Write).await {
            Ok(reply) => Ok(reply != ValkeyValue::Nil),
            // A server at its memory limit takes no lock, and needs the sweep most. Two at once do no harm.
            Err(StorageError::Full(_)) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Tells other nodes what a sweep has found.
    async fn tell_found(&self, found: Found) -> Result<(), StorageError> {
        let held_ms = self.sweep_interval.saturating_mul(FOUND_INTERVALS).as_millis().max(1).to_string();
        let mut pipeline = glide::pipe();
        let key = keys::of_server(keys::SWEPT, self.own_slot());
        pipeline.cmd("SET").arg(key).arg(written(found)).arg("PX").arg(held_ms);
        match self.change.run_one(&pipeline, Effect::Write).await {
            // A server at its memory limit takes no note: each node sweeps it.
            Ok(_) | Err(StorageError::Full(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Returns what the last sweep has found, of whichever node.
    async fn found(&self) -> Result<Option<Found>, StorageError> {
        let mut pipeline = glide::pipe();
        pipeline.cmd("GET").arg(keys::of_server(keys::SWEPT, self.own_slot()));
        let found = bytes_of(self.change.run_one(&pipeline, Effect::Read).await?);
        Ok(found.and_then(|text| read(std::str::from_utf8(&text).ok()?)))
    }

    /// Returns a topic whose stream is kept under the other form of key, so that this node does not see it.
    pub(super) async fn hidden_topic(&self) -> Result<Option<TopicName>, StorageError> {
        Ok(self.find_topics(self.keys.other(), |_| true, 1).await?.pop())
    }

    /// Returns up to so many topics that have a stream under a form of key: the keyspace is looked at from its begin, and so
    /// far that one among many is found.
    pub(super) async fn find_topics(
        &self,
        keys: Keys,
        is_wanted: impl Fn(&TopicName) -> bool,
        limit: usize,
    ) -> Result<Vec<TopicName>, StorageError> {
        let (mut cursor, mut found) = (0, Vec::new());
        for _ in 0..HIDDEN_STEPS_MAX {
            let (next, topics) = self.scan(keys, cursor).await?;
            found.extend(topics.into_iter().filter(&is_wanted));
            if found.len() >= limit || next == 0 {
                break;
            }
            cursor = next;
        }
        found.truncate(limit);
        Ok(found)
    }

    /// Returns what the server has of topics, and of logs of buckets, that the indexes do not name, and what would be topics if
    /// names could be so. The whole keyspace is walked, as by a sweep, which would mend that.
    pub(super) async fn unlisted(&self) -> Result<Unlisted, StorageError> {
        let (mut cursor, mut unlisted, mut odd) = (0, BTreeSet::new(), OddNames::default());
        loop {
            let (next, keys) = self.scan_keys(cursor, &self.keys.streams(), "stream").await?;
            let found: Vec<TopicName> =
                keys.iter().filter_map(|key| self.keys.topic_of_stream(key)).collect();
            for key in keys.iter().filter_map(|key| self.keys.odd_topic_of_stream(key)) {
                odd.add(key);
            }
            let found: Vec<TopicName> = found.into_iter().filter(|name| self.has(name)).collect();
            let topics: Vec<&TopicName> = found.iter().filter(|name| name.bucket().is_none()).collect();
            let buckets: Vec<BucketName> = found.iter().filter_map(TopicName::bucket).collect();
            for topics in topics.chunks(STEP_TOPICS) {
                let missing = self.indexes.topics.missing(topics).await?;
                unlisted.extend(missing.into_iter().cloned());
            }
            for buckets in buckets.chunks(STEP_TOPICS) {
                let buckets: Vec<&BucketName> = buckets.iter().collect();
                let missing = self.indexes.buckets.missing(&buckets).await?;
                unlisted.extend(missing.into_iter().map(TopicName::log_of));
            }
            if next == 0 {
                return Ok(Unlisted { names: unlisted.into_iter().collect(), odd });
            }
            cursor = next;
        }
    }

    /// Returns the topics of one step of the walk, and where the next begins.
    async fn scan(&self, keys: Keys, cursor: u64) -> Result<(u64, Vec<TopicName>), StorageError> {
        let (next, found) = self.scan_keys(cursor, &keys.streams(), "stream").await?;
        Ok((next, found.iter().filter_map(|key| keys.topic_of_stream(key)).collect()))
    }

    async fn sweep_topics(&self, topics: &[TopicName]) -> Result<u64, StorageError> {
        let mut pipeline = glide::pipe();
        for topic in topics {
            pipeline.cmd("HMGET").arg(self.keys.description(topic)).arg("retention").arg("idle");
        }
        let own = self.change.run(&pipeline, Effect::Read).await?;
        let mut pipeline = glide::pipe();
        pipeline.cmd("SCRIPT").arg("LOAD").arg(scripts::TRIM_TOPIC.text());
        let [times, times_bytes, times_age] = HELD_TIMES.map(|times| times.to_string());
        let mut idle = Vec::new();
        for (topic, own) in topics.iter().zip(own) {
            let mut own = match own {
                ValkeyValue::Array(own) => own,
                _ => Vec::new(),
            }
            .into_iter()
            .map(|own| std::str::from_utf8(&bytes_of(own)?).ok()?.parse::<u64>().ok());
            let (own, may_end) = (own.next().flatten(), own.next().flatten().is_some());
            idle.extend(may_end.then_some(topic));
            let retention_ms = match own {
                Some(seconds) => Some(seconds.saturating_mul(1_000)),
                None => self.limits.retention.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
            };
            // By number, what is set for all topics is trimmed behind what is appended.
            pipeline.cmd("EVALSHA").arg(scripts::TRIM_TOPIC.digest()).arg("2").arg(self.keys.stream(topic));
            pipeline.arg(self.keys.description(topic)).arg("").arg("").arg(&times).arg(&times_bytes);
            if let Some(retention_ms) = retention_ms {
                pipeline.arg(retention_ms.to_string()).arg(&times_age);
            }
        }
        let trims = 1 + topics.len();
        pipeline.cmd("SCRIPT").arg("LOAD").arg(scripts::SWEEP_TOPIC);
        let script = format!("{:x}", Sha1::digest(scripts::SWEEP_TOPIC));
        for topic in topics {
            pipeline.cmd("EVALSHA").arg(&script).arg("3").arg(self.keys.stream(topic));
            pipeline.arg(self.keys.deleted(topic)).arg(self.keys.description(topic));
            pipeline.arg(marker::new_epoch()).arg(BEHIND_MS_MAX);
        }
        let mut counts =
            self.change.run(&pipeline, Effect::Write).await?.into_iter().map(|reply| match reply {
                ValkeyValue::Int(count) => u64::try_from(count).unwrap_or(0),
                // A trim tells more.
                ValkeyValue::Array(parts) => match parts.first() {
                    Some(ValkeyValue::Int(count)) => u64::try_from(*count).unwrap_or(0),
                    _ => 0,
                },
                _ => 0,
            });
        // The digest of a script is no number.
        let removed = counts.by_ref().take(trims).sum();
        let all: Vec<&TopicName> = topics.iter().collect();
        let listed = match self.indexes.topics.add(&all).await {
            // A server at its memory limit lists no more, and the list may be another program's.
            Err(StorageError::Full(_) | StorageError::ForeignKey(_)) => vec![false; topics.len()],
            listed => listed?,
        };
        let others = counts.skip(1).zip(listed);
        let others: Vec<(u64, bool)> = others.collect();
        let unfinished = topics.iter().zip(&others).filter(|(_, (answer, _))| *answer == UNFINISHED);
        let unfinished: Vec<&TopicName> = unfinished.map(|(topic, _)| topic).collect();
        self.note_unfinished(&unfinished).await?;
        let is_new = |(_, (answer, is_listed)): &(&TopicName, (u64, bool))| *answer == NEW || *is_listed;
        let new: Vec<&TopicName> = topics.iter().zip(others).filter(is_new).map(|(topic, _)| topic).collect();
        self.ring_for_new(&new).await;
        self.index_due(topics).await?;
        for topic in idle {
            match self.delete_idle(topic).await {
                Ok(true) => {
                    tracing::info!(%topic, "topic removed, with which nothing was done for as long as it says");
                }
                Ok(false)
                | Err(StorageError::NoTopic | StorageError::NotATopic | StorageError::ForeignKey(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(removed)
    }

    /// Adds what the groups of topics have, and those in which messages are dying.
    async fn sweep_groups(
        &self,
        topics: &[TopicName],
        all: &mut GroupsSwept,
        all_dying: &mut Vec<(TopicName, GroupName)>,
    ) -> Result<(), StorageError> {
        let now = self.now();
        for (topic, reply) in topics.iter().zip(self.ask_groups(topics).await?) {
            let ValkeyValue::Array(parts) = reply else { continue };
            for OfGroup { name, dying, groups } in OfGroup::read_all(&parts, now) {
                all.add(groups);
                if dying > 0 && all_dying.len() < Swept::DYING_MAX {
                    all_dying.push((topic.clone(), name));
                }
            }
        }
        Ok(())
    }

    /// Returns what the groups of topics have, whoever has these.
    pub(super) async fn grouped(&self, topics: &[TopicName]) -> Result<Vec<Grouped>, StorageError> {
        let Some(others) = &self.others else { return Ok(self.grouped_own(topics).await?.concat()) };
        let shards = others.groups(topics.iter())?;
        let ask = shards.iter().map(|(shard, places)| async move {
            let topics: Vec<TopicName> = places.iter().map(|place| topics[*place].clone()).collect();
            shard.grouped_own(&topics).await
        });
        let found: Result<Vec<_>, _> = join_all(ask).await.into_iter().collect();
        let found = shards.iter().zip(found?).map(|((_, places), found)| (&places[..], found));
        Ok(in_order(found).concat())
    }

    /// Returns what the groups of each of these topics have, which the shard has.
    async fn grouped_own(&self, topics: &[TopicName]) -> Result<Vec<Vec<Grouped>>, StorageError> {
        let now = self.now();
        let mut all = Vec::with_capacity(topics.len());
        for topics in topics.chunks(STEP_TOPICS) {
            for (topic, reply) in topics.iter().zip(self.ask_groups(topics).await?) {
                let ValkeyValue::Array(parts) = checked(reply)? else {
                    return Err(unexpected("EVALSHA", Effect::Read));
                };
                let grouped = OfGroup::read_all(&parts, now);
                all.push(grouped.map(|of| (topic.clone(), of.name, of.groups)).collect());
            }
        }
        Ok(all)
    }

    /// Returns what the server says of the groups of each of these topics.
    async fn ask_groups(
        &self,
        topics: &[TopicName],
    ) -> Result<impl Iterator<Item = ValkeyValue>, StorageError> {
        let mut pipeline = glide::pipe();
        pipeline.cmd("SCRIPT").arg("LOAD").arg(scripts::GROUPS_SWEPT.text());
        for topic in topics {
            let (beginning, [settings, _, _, _, dying, dead, ..]) = self.keys.of_groups(topic);
            pipeline.cmd("EVALSHA").arg(scripts::GROUPS_SWEPT.digest()).arg("1").arg(self.keys.stream(topic));
            pipeline.arg(beginning);
            for end in [settings, dying, dead] {
                pipeline.arg(format!(":{end}"));
            }
        }
        Ok(self.change.run(&pipeline, Effect::Read).await?.into_iter().skip(1))
    }

    /// Rings for topics that the pass has found to be new: that were not in the index, or whose stream has taken
    /// the place of another, or has had no marker.
    async fn ring_for_new(&self, topics: &[&TopicName]) {
        if topics.is_empty() {
            return;
        }
        self.doorbell.tell(topics.iter().copied());
        let mut pipeline = glide::pipe();
        write_notices(&mut pipeline, &self.doorbell, topics.iter().copied());
        if let Err(error) = self.change.run(&pipeline, Effect::Write).await {
            let error = &error as &dyn std::error::Error;
            tracing::debug!(topics = topics.len(), error, "other nodes are not told of topics that are new");
        }
    }

    /// Removes the names of topics whose streams are gone, and what sweeps have remembered of them.
    async fn mend_index(&self) -> Result<(), StorageError> {
        let mut after = None;
        loop {
            let names = self.indexes.topics.near(after.as_ref(), STEP_TOPICS).await?;
            let Some(last) = names.last() else {
                return Ok(());
            };
            after = Some(last.clone());
            let names: Vec<TopicName> = names.into_iter().filter(|name| self.has(name)).collect();
            let kinds = self.kinds_of(&names).await?;
            let is_gone = |kind: &ValkeyValue| bytes_of(kind.clone()).is_some() && !is_stream(kind);
            let gone: Vec<&TopicName> =
                names.iter().zip(kinds).filter(|(_, kind)| is_gone(kind)).map(|(name, _)| name).collect();
            if !gone.is_empty() {
                let mut pipeline = glide::pipe();
                for name in &gone {
                    pipeline.cmd("HDEL").arg(self.keys.description(name)).arg(&REMEMBERED[..]);
                }
                self.change.run(&pipeline, Effect::Write).await?;
                self.indexes.topics.remove(&gone).await?;
            }
            sleep(REST).await;
        }
    }

    /// Returns what `TYPE` says of the streams of topics.
    async fn kinds_of(&self, topics: &[TopicName]) -> Result<Vec<ValkeyValue>, StorageError> {
        let mut pipeline = glide::pipe();
        for topic in topics {
            pipeline.cmd("TYPE").arg(self.keys.stream(topic));
        }
        self.change.run(&pipeline, Effect::Read).await
    }
}
