//! Topics: their streams, descriptions and the index that lists them.
//!
//! The stream is what makes a topic exist. The description is a hash beside it, which a topic of
//! another producer lacks. The index only lists; a name in it whose stream is gone is passed over.

use std::sync::Arc;

use futures_util::future::join_all;
use glide::{Pipeline, ValkeyValue};
use tidemill_proto::topics::{Topic, TopicUpdate, TopicsStats, WhenFull};
use tidemill_proto::{MessageId, TopicName};
use tokio::sync::watch;

use super::control::{Control, bytes_of, checked, group_names};
use super::description::{OWNER, field_of, parts_of, read_description};
use super::doorbell::Doorbell;
use super::failure::{Effect, of_key, same, unexpected};
use super::held::{Held, number_of};
use super::index::Indexes;
use super::kept::SAMPLES;
use super::keys::Keys;
use super::new_topic::NewTopic;
use super::notice::notices;
use super::{Shard, keys, marker, runs, scripts};
use crate::storage::listing::Listing;
use crate::storage::{Selection, StorageError, TopicChange, TopicList, TopicState, WhyReadOnly};

/// Topics asked about in one pipeline.
const CHUNK: usize = 256;

/// How long the last id of a deleted topic is remembered: longer than a clock is stepped back by, and so short
/// that topics which are made and deleted again and again do not pile up.
const LAST_ID_KEPT_MS: &str = "60000";

/// Creates topics, for publishes as for the asking.
#[derive(Debug)]
pub(super) struct Creator {
    connection: Arc<Control>,
    indexes: Arc<Indexes>,
    doorbell: Arc<Doorbell>,
    keys: Keys,
    topics_max: u64,
}

/// What a creation found.
#[derive(Debug)]
pub(super) enum Created {
    /// The topic is new.
    Now(Topic),
    /// It was there already.
    Before,
}

impl Creator {
    pub(super) fn new(
        connection: Arc<Control>,
        indexes: Arc<Indexes>,
        doorbell: Arc<Doorbell>,
        keys: Keys,
        topics_max: u64,
    ) -> Self {
        Self { connection, indexes, doorbell, keys, topics_max }
    }

    /// Returns a view of up and down that can be waited on.
    pub(super) fn status(&self) -> watch::Receiver<bool> {
        self.connection.status()
    }

    /// Creates a topic if it does not exist.
    pub(super) async fn create(
        &self,
        wanted: NewTopic,
        description: &TopicUpdate,
    ) -> Result<Created, StorageError> {
        let mut results = self.create_all(&[wanted], description).await;
        results.pop().unwrap_or_else(|| Err(unexpected("EVAL", Effect::Write)))
    }

    /// Creates those of the topics that do not exist, all with one description, in three steps however
    /// many there are, and tells of them. The limit is looked at before, so topics that several nodes create
    /// at the same moment can pass it by as many.
    pub(super) async fn create_all(
        &self,
        wanted: &[NewTopic],
        description: &TopicUpdate,
    ) -> Vec<Result<Created, StorageError>> {
        let changing = self.doorbell.changing(wanted.iter().map(|new| &new.topic));
        match self.try_create_all(wanted, description).await {
            Ok(results) => {
                changing.answered(created(&results));
                results
            }
            // None was created, or it is not known which were.
            Err(error) => {
                if !matches!(error, StorageError::Indeterminate(_)) {
                    changing.answered([]);
                }
                wanted.iter().map(|_| Err(same(&error))).collect()
            }
        }
    }

    async fn try_create_all(
        &self,
        wanted: &[NewTopic],
        description: &TopicUpdate,
    ) -> Result<Vec<Result<Created, StorageError>>, StorageError> {
        let mut pipeline = glide::pipe();
        for NewTopic { topic, .. } in wanted {
            pipeline.cmd("EXISTS").arg(self.keys.stream(topic));
        }
        let existing = self.connection.run(&pipeline, Effect::Read);
        let topics = &self.indexes.topics;
        let (existing, count, is_refused) = tokio::join!(existing, topics.count(), topics.is_closed());
        let mut replies = existing?.into_iter();
        let (mut room, is_refused) = (self.topics_max.saturating_sub(count?), is_refused?);
        let mut allowed = Vec::with_capacity(wanted.len());
        let mut pipeline = glide::pipe();
        for new in wanted {
            let exists = checked(replies.next().unwrap_or(ValkeyValue::Nil))? != ValkeyValue::Int(0);
            let is_allowed = exists || room > 0 && !is_refused;
            allowed.push(is_allowed);
            if is_allowed {
                room = room.saturating_sub(u64::from(!exists));
                write_creation(&mut pipeline, self.keys, new, description);
            }
        }
        let replies = if allowed.contains(&true) {
            self.connection.run(&pipeline, Effect::Write).await?
        } else {
            Vec::new()
        };
        let mut replies = replies.into_iter();
        let mut results = Vec::with_capacity(wanted.len());
        for (new, is_allowed) in wanted.iter().zip(allowed) {
            results.push(if is_allowed {
                let reply = checked(replies.next().unwrap_or(ValkeyValue::Nil));
                match reply.and_then(|reply| script_answer(&reply, &keys_of(self.keys, &new.topic))) {
                    Ok(0) => Ok(Created::Now(new.described(description))),
                    Ok(1) => Ok(Created::Before),
                    Ok(_) => Err(StorageError::NotATopic),
                    Err(error) => Err(error),
                }
            } else if is_refused {
                Err(StorageError::ReadOnly(WhyReadOnly::NotMade))
            } else {
                Err(StorageError::TopicsLimit)
            });
        }
        self.list_created(&results).await;
        Ok(results)
    }

    /// Adds new topics to the index, and gives notice of them. Should this be lost, the next sweep finds their
    /// streams, and gives notice.
    async fn list_created(&self, results: &[Result<Created, StorageError>]) {
        let topics: Vec<&TopicName> = created(results).collect();
        if topics.is_empty() {
            return;
        }
        let mut pipeline = glide::pipe();
        write_notices(&mut pipeline, &self.doorbell, created(results));
        let told = async {
            let replies = self.connection.run(&pipeline, Effect::Write).await?;
            replies.into_iter().try_for_each(|reply| checked(reply).map(drop))
        };
        let (listed, told) = tokio::join!(self.indexes.topics.add(&topics), told);
        if let Err(error) = listed.and(told) {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(
                topics = topics.len(),
                error,
                "new topics are not listed, or other nodes not told of them, until the next sweep"
            );
        }
    }
}

/// Returns the topics that were created.
fn created(results: &[Result<Created, StorageError>]) -> impl Iterator<Item = &TopicName> {
    results.iter().filter_map(|result| match result {
        Ok(Created::Now(topic)) => Some(&topic.topic_name),
        Ok(Created::Before) | Err(_) => None,
    })
}

/// Gives the other nodes notice of topics.
pub(super) fn write_notices<'a>(
    pipeline: &mut Pipeline,
    doorbell: &Doorbell,
    topics: impl Iterator<Item = &'a TopicName>,
) {
    let Some((command, channel)) = doorbell.ring() else { return };
    for notice in notices(doorbell.signature(), topics) {
        pipeline.cmd(command).arg(&*channel).arg(notice);
    }
}

fn write_creation(pipeline: &mut Pipeline, keys: Keys, new: &NewTopic, description: &TopicUpdate) {
    let NewTopic { topic, created_at, owner } = new;
    pipeline.cmd("EVAL").arg(scripts::CREATE_TOPIC).arg("7");
    pipeline.arg(&keys_of(keys, topic)[..]).arg(marker::new_epoch());
    pipeline.arg("created_at").arg(created_at.to_string());
    if let Some(owner) = owner {
        pipeline.arg(OWNER).arg(&**owner);
    }
    for (field, value) in parts_of(&description.clone().into()) {
        if let Some(value) = value {
            pipeline.arg(field).arg(value);
        }
    }
}

/// Returns the keys of a topic, in the order of the scripts that make and delete one.
fn keys_of(keys: Keys, topic: &TopicName) -> [String; 7] {
    let [due, bodies, recurring] = keys.schedules(topic);
    let (last_id, deleted) = (keys.last_id(topic), keys.deleted(topic));
    [keys.stream(topic), keys.description(topic), last_id, deleted, due, bodies, recurring]
}

/// Returns the number that a script about these keys answers; one below 0 is the place of a key that holds
/// something of another program.
pub(super) fn script_answer(reply: &ValkeyValue, keys: &[String]) -> Result<i64, StorageError> {
    let ValkeyValue::Int(answer) = reply else { return Err(unexpected("EVAL", Effect::Write)) };
    let place = usize::try_from(-answer).ok().and_then(|place| place.checked_sub(1));
    match place.and_then(|place| keys.get(place)) {
        Some(key) => Err(StorageError::ForeignKey(key.as_str().into())),
        None => Ok(*answer),
    }
}

impl Shard {
    /// Creates a topic without messages.
    pub(super) async fn create(
        &self,
        topic: &TopicName,
        description: TopicUpdate,
        owner: Option<&str>,
    ) -> Result<Topic, StorageError> {
        let owner = owner.map(Into::into);
        let new = NewTopic { topic: topic.clone(), created_at: self.clock.now(), owner };
        match self.creator().create(new, &description).await? {
            Created::Now(created) => {
                self.refusing.note(topic, created.when_full == WhenFull::Refuse);
                Ok(created)
            }
            Created::Before => Err(StorageError::TopicExists),
        }
    }

    /// Returns up to `limit` topics whose names come after `after`.
    pub(super) async fn list(
        &self,
        selection: Selection<'_>,
        after: Option<&TopicName>,
        limit: usize,
    ) -> Result<TopicList, StorageError> {
        let mut listing = Listing::new(selection, after, limit);
        loop {
            let names = self.indexes.topics.page(listing.prefix(), listing.after(), listing.wanted()).await?;
            let mut topics = Vec::new();
            for names in listing.choose(names).chunks(CHUNK) {
                topics.extend(self.describe_all(names).await?);
            }
            if let Some(list) = listing.add(topics) {
                return Ok(list);
            }
        }
    }

    /// Returns up to `limit` names that begin with a prefix and come after `after`.
    pub(super) async fn names(
        &self,
        prefix: &str,
        after: Option<&TopicName>,
        limit: usize,
    ) -> Result<Vec<TopicName>, StorageError> {
        self.indexes.topics.page(prefix, after, limit).await
    }

    /// Returns a topic with what it holds.
    pub(super) async fn describe(&self, topic: &TopicName) -> Result<TopicState, StorageError> {
        let stream = self.keys.stream(topic);
        let mut pipeline = glide::pipe();
        pipeline.cmd("HGETALL").arg(self.keys.description(topic));
        pipeline.cmd("XINFO").arg("STREAM").arg(&stream);
        pipeline.cmd("XINFO").arg("GROUPS").arg(&stream);
        pipeline.cmd("MEMORY").arg("USAGE").arg(&stream).arg("SAMPLES").arg(SAMPLES);
        let replies = self.change.run(&pipeline, Effect::Read).await?;
        let [description, stream, groups, weight] =
            <[ValkeyValue; 4]>::try_from(replies).map_err(|_| unexpected("a pipeline", Effect::Read))?;
        let held = Held::read(stream)?;
        let description =
            checked(description).map_err(|error| of_key(error, self.keys.description(topic)))?;
        let reason = field_of(&description, keys::REASON);
        let state = runs::state_among(group_names(checked(groups)?));
        Ok(TopicState {
            topic: read_description(topic, description),
            length: held.length,
            first_id: held.first,
            last_id: held.last,
            // Where the server does not let it be weighed, the rest can be told still.
            bytes: number_of(&weight),
            given: held.added,
            ended: runs::ended(state, reason.as_deref()),
        })
    }

    /// Changes the description of a topic.
    pub(super) async fn update(
        &self,
        topic: &TopicName,
        change: &TopicChange,
    ) -> Result<Topic, StorageError> {
        let mut pipeline = glide::pipe();
        pipeline.cmd("EVAL").arg(scripts::UPDATE_TOPIC).arg("2");
        pipeline.arg(self.keys.stream(topic)).arg(self.keys.description(topic));
        for (field, value) in parts_of(change) {
            pipeline.arg(field).arg(value.unwrap_or_default());
        }
        let answer = self.change.run_one(&pipeline, Effect::Write).await?;
        match script_answer(&answer, &keys_of(self.keys, topic))? {
            0 => {}
            1 => return Err(StorageError::NoTopic),
            _ => return Err(StorageError::NotATopic),
        }
        let mut pipeline = glide::pipe();
        pipeline.cmd("HGETALL").arg(self.keys.description(topic));
        let updated = read_description(topic, self.change.run_one(&pipeline, Effect::Read).await?);
        self.refusing.note(topic, updated.when_full == WhenFull::Refuse);
        if updated.compact_by.is_some() {
            // From now on little is to be looked at in one step. What is not by now is later.
            let none = MessageId::new(0, 1);
            if let Err(error) = self.latest_of(topic, none).await {
                tracing::debug!(%topic, %error, "the latest messages of a topic are not found yet");
            }
        }
        Ok(updated)
    }

    /// Deletes a topic with its messages and its description.
    pub(super) async fn delete(&self, topic: &TopicName) -> Result<(), StorageError> {
        self.delete_by(scripts::DELETE_TOPIC, topic).await.map(drop)
    }

    /// Deletes a topic with which nothing was done for as long as it says; returns whether it is gone by that.
    pub(super) async fn delete_idle(&self, topic: &TopicName) -> Result<bool, StorageError> {
        self.delete_by(scripts::DELETE_IDLE, topic).await
    }

    async fn delete_by(&self, script: &str, topic: &TopicName) -> Result<bool, StorageError> {
        let mut pipeline = glide::pipe();
        pipeline.cmd("EVAL").arg(script).arg("8");
        let mut keys = keys_of(self.keys, topic).to_vec();
        keys.push(self.keys.groups(topic));
        let (groups, parts) = self.keys.of_groups(topic);
        pipeline.arg(&keys[..]).arg(LAST_ID_KEPT_MS).arg(groups).arg(&parts[..]);
        let changing = self.doorbell.changing([topic]);
        let reply = self.change.run_one(&pipeline, Effect::Write).await;
        // Also where it is not known whether it is gone.
        changing.answered([topic]);
        match script_answer(&reply?, &keys)? {
            0 => {}
            1 => return Err(StorageError::NoTopic),
            3 => return Ok(false),
            _ => return Err(StorageError::NotATopic),
        }
        self.refusing.note(topic, false);
        // A name that stays behind is passed over by lists and removed by the next sweep.
        let mut pipeline = glide::pipe();
        write_notices(&mut pipeline, &self.doorbell, std::iter::once(topic));
        let told = self.change.run_one(&pipeline, Effect::Write);
        // A notice is a hint, too.
        let gone = [topic];
        let (removed, unfinished, _) =
            tokio::join!(self.indexes.topics.remove(&gone), self.indexes.importing.remove(&gone), told);
        if let Err(error) = removed.and(unfinished) {
            tracing::debug!(%topic, error = &error as &dyn std::error::Error, "index still names a deleted topic");
        }
        Ok(true)
    }

    /// Counts the topics and messages that it has.
    pub(super) async fn stats(&self) -> Result<TopicsStats, StorageError> {
        let mut stats = TopicsStats { total_topics: 0, total_messages: 0 };
        let mut after = None;
        loop {
            let names = self.indexes.topics.near(after.as_ref(), CHUNK).await?;
            let Some(last) = names.last() else {
                return Ok(stats);
            };
            after = Some(last.clone());
            let mut pipeline = glide::pipe();
            for name in names.iter().filter(|name| self.has(*name)) {
                pipeline.cmd("TYPE").arg(self.keys.stream(name)).cmd("XLEN").arg(self.keys.stream(name));
            }
            for pair in self.change.run(&pipeline, Effect::Read).await?.chunks(2) {
                if let [kind, ValkeyValue::Int(length)] = pair
                    && is_stream(kind)
                {
                    stats.total_topics += 1;
                    stats.total_messages += u64::try_from(*length).unwrap_or(0);
                }
            }
        }
    }
}

impl Shard {
    /// Returns those of the topics that exist, in the order of their names, whoever has them.
    async fn describe_all(&self, names: &[TopicName]) -> Result<Vec<Topic>, StorageError> {
        let Some(others) = &self.others else { return self.describe_own(names).await };
        let groups = others.groups(names.iter())?;
        let describe = groups.iter().map(|(shard, places)| async move {
            let names: Vec<TopicName> = places.iter().map(|place| names[*place].clone()).collect();
            shard.describe_own(&names).await
        });
        let described: Result<Vec<_>, _> = join_all(describe).await.into_iter().collect();
        let mut topics = described?.concat();
        topics.sort_by(|one, other| one.topic_name.cmp(&other.topic_name));
        Ok(topics)
    }

    async fn describe_own(&self, names: &[TopicName]) -> Result<Vec<Topic>, StorageError> {
        let mut pipeline = glide::pipe();
        for name in names {
            pipeline.cmd("TYPE").arg(self.keys.stream(name)).cmd("HGETALL").arg(self.keys.description(name));
        }
        let mut replies = self.change.run(&pipeline, Effect::Read).await?.into_iter();
        let mut topics = Vec::with_capacity(names.len());
        for name in names {
            if let (Some(kind), Some(description)) = (replies.next(), replies.next())
                && is_stream(&checked(kind)?)
            {
                topics.push(read_description(name, description));
            }
        }
        Ok(topics)
    }
}

/// Returns whether the reply to `TYPE` is that the key holds a stream.
pub(super) fn is_stream(reply: &ValkeyValue) -> bool {
    bytes_of(reply.clone()).is_some_and(|kind| kind == "stream")
}
