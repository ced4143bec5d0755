//! Topics: descriptions, lists, trimming.

use std::collections::BTreeMap;

use tidemill_proto::limits::{
    COMPACT_BY_BYTES_MAX, DESCRIPTION_BYTES_MAX, IDLE_SECONDS_MAX, KEPT_BYTES_MAX, KEPT_MESSAGES_MAX,
    RETENTION_SECONDS_MAX, TOPICS_PAGE_MAX,
};
use tidemill_proto::topics::{RunState, Topic, TopicDetail, TopicUpdate, TopicsStats, WhenFull};
use tidemill_proto::{Cursor, MessageId, Problem, Since, TopicName, TopicSelector, duration};

use super::read::no_message;
use super::{Failure, Gate, TopicList};
use crate::access::{Permit, Verb, Within, owner_name};
use crate::storage::{Selection, TopicChange, Trim};

/// Pages of the storage that are looked through for one of topics that a caller may read.
const LIST_STEPS_MAX: usize = 5;

/// Pages of topics that are looked through for those that users own: 10,000 topics.
const OWNED_PAGES_MAX: usize = 10;

/// What to trim a topic to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrimTo {
    /// The newest so many messages.
    Newest(u64),
    /// What does not lie before this id or time.
    From(Since),
}

/// Checks the description of a topic.
///
/// # Errors
/// It is too long.
pub fn parse_description(text: &str) -> Result<String, Failure> {
    if text.len() <= DESCRIPTION_BYTES_MAX {
        return Ok(text.to_owned());
    }
    let len = text.len();
    Err(Problem::field(
        "description",
        format_args!("has {len} bytes; a description has at most {DESCRIPTION_BYTES_MAX}"),
    )
    .into())
}

/// Parses the retention of a topic, in JSON: a duration of whole seconds.
///
/// # Errors
/// The value is none, or it is out of bounds.
pub fn parse_retention(json: &str) -> Result<u64, Failure> {
    seconds("retention_seconds", RETENTION_SECONDS_MAX, json)
}

/// Parses how many messages a topic keeps: decimal digits only.
///
/// # Errors
/// The text is no whole number, or it is out of bounds.
pub fn parse_max_messages(text: &str) -> Result<u64, Failure> {
    whole("max_messages", "messages", KEPT_MESSAGES_MAX, text)
}

/// Parses how many bytes a topic keeps: decimal digits only.
///
/// # Errors
/// The text is no whole number, or it is out of bounds.
pub fn parse_max_bytes(text: &str) -> Result<u64, Failure> {
    whole("max_bytes", "bytes", KEPT_BYTES_MAX, text)
}

/// Parses what becomes of a message for which there is no room.
///
/// # Errors
/// The text names nothing of the kind.
pub fn parse_when_full(text: &str) -> Result<WhenFull, Failure> {
    let named = WhenFull::named(text);
    named.ok_or_else(|| Problem::field("when_full", "must be `drop_old` or `refuse`").into())
}

/// Parses after how long a topic is removed when nothing was done with it, in JSON: a duration of whole seconds.
///
/// # Errors
/// The value is none, or it is out of bounds.
pub fn parse_idle(json: &str) -> Result<u64, Failure> {
    seconds("idle_seconds", IDLE_SECONDS_MAX, json)
}

fn seconds(field: &str, max: u64, json: &str) -> Result<u64, Failure> {
    duration::whole_seconds_json(json, max).map_err(|error| Problem::field(field, error).into())
}

/// Parses the name of the field of the metadata that says which messages replace each other.
///
/// # Errors
/// The text is empty or too long.
pub fn parse_compact_by(text: &str) -> Result<String, Failure> {
    if text.is_empty() || text.len() > COMPACT_BY_BYTES_MAX {
        let rule =
            format_args!("must be the name of a field of the metadata, of 1 to {COMPACT_BY_BYTES_MAX} bytes");
        return Err(Problem::field("compact_by", rule).into());
    }
    Ok(text.to_owned())
}

fn whole(field: &str, what: &str, max: u64, text: &str) -> Result<u64, Failure> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(number) if digits && (1..=max).contains(&number) => Ok(number),
        _ => {
            Err(Problem::field(field, format_args!("must be a whole number of {what} from 1 to {max}"))
                .into())
        }
    }
}

/// Returns a topic as it is shown: with the name of its owner.
fn shown(topic: Topic) -> Topic {
    Topic { owner_id: topic.owner_id.map(|owner| owner_name(&owner).to_owned()), ..topic }
}

/// Returns a page that others follow. It ends at a topic that its reader may read.
fn page_of(mut topics: Vec<Topic>, limit: usize) -> TopicList {
    topics.truncate(limit);
    let next = topics.last().map(|last| last.topic_name.clone());
    TopicList { topics, next }
}

impl Gate {
    /// Creates a topic without messages, which the caller owns if it is a user. A user may that may publish to it,
    /// where that would make the topic: it would be its own all the same.
    ///
    /// # Errors
    /// The caller may not, the topic exists, there are too many, or the storage did not answer.
    pub async fn create_topic(&self, topic: &TopicName, about: TopicUpdate) -> Result<Topic, Failure> {
        if !self.may_make_by_publishing(topic)? {
            self.check_topic(Verb::Manage, topic).await?;
        }
        self.meter().topic().await?;
        let created = self.relay().storage.topics.create(topic, about, self.caller().owner()).await;
        let created = created.map_err(|error| Failure::change(error, topic))?;
        self.tell("made", topic);
        Ok(shown(created))
    }

    fn may_make_by_publishing(&self, topic: &TopicName) -> Result<bool, Failure> {
        let caller = self.caller();
        let would_own = caller.owner().is_some() && self.relay().options.topic_auto_create;
        // A rule that denies is stronger than what somebody owns.
        let is_unsaid = caller.check(Verb::Manage, topic)? == Permit::IfOwner;
        let may_publish = matches!(caller.check(Verb::Publish, topic), Ok(Permit::Granted));
        Ok(would_own && is_unsaid && may_publish)
    }

    /// Returns up to `limit` topics that the caller may read, whose names come after `after`, and are selected
    /// where there is a selection. Where most are not, a page may be shorter than others that follow.
    ///
    /// # Errors
    /// The caller may read no topic, too many that it may not read lie in between, or the storage did not answer.
    pub async fn list_topics(
        &self,
        selected: Option<&TopicSelector>,
        after: Option<&TopicName>,
        limit: usize,
    ) -> Result<TopicList, Failure> {
        self.caller().check_some_topic(Verb::Read)?;
        let scope = self.caller().read_scope();
        let may_be_read = |name: &TopicName| scope.has(name) != Within::No;
        let selection = Selection::of(selected).wanted(&may_be_read);
        let is_readable = |topic: &Topic| match scope.has(&topic.topic_name) {
            Within::Yes => true,
            Within::IfOwnedBy(owner) => topic.owner_id.as_deref() == Some(owner),
            Within::No => false,
        };
        // Whose a topic is stands in the topic alone, so most of those that are looked at may be of others.
        let asks_for_owner = scope.asks_for_owner();
        let (steps_max, mut step) =
            if asks_for_owner { (OWNED_PAGES_MAX, limit + 1) } else { (LIST_STEPS_MAX, limit) };
        let (mut found, mut after) = (Vec::new(), after.cloned());
        for _ in 0..steps_max {
            let list = self.relay().storage.topics.list(selection, after.as_ref(), step).await;
            let TopicList { topics, next } = list.map_err(|error| Failure::read(error, None))?;
            found.extend(topics.into_iter().filter(is_readable).map(shown));
            if next.is_none() && found.len() <= limit {
                return Ok(TopicList { topics: found, next: None });
            }
            // That another page follows is told where there is one: of what others have nothing is told.
            if found.len() > limit || (!asks_for_owner && !found.is_empty()) {
                return Ok(page_of(found, limit));
            }
            after = next;
            if asks_for_owner {
                step = TOPICS_PAGE_MAX;
            }
        }
        if !found.is_empty() {
            return Ok(page_of(found, limit));
        }
        let detail =
            "too many topics lie between those that this caller may read; say more of their names in `match`";
        Err(Problem::field("match", detail).into())
    }

    /// Returns the names of the topics that users own, of the first 10,000 in the order of their names: of one user,
    /// or of all. Users are those as whom they own topics.
    ///
    /// # Errors
    /// The caller is neither that user nor may it administer the relay, or the storage did not answer.
    pub async fn owned_topics(
        &self,
        user: Option<&str>,
    ) -> Result<BTreeMap<String, Vec<TopicName>>, Failure> {
        if user.is_none() || user != self.caller().owner() {
            self.check_relay(Verb::Admin)?;
        }
        let mut owned = BTreeMap::<_, Vec<_>>::new();
        let mut after = None;
        for _ in 0..OWNED_PAGES_MAX {
            let topics = &self.relay().storage.topics;
            let list = topics.list(Selection::of(None), after.as_ref(), TOPICS_PAGE_MAX).await;
            let TopicList { topics, next } = list.map_err(|error| Failure::read(error, None))?;
            for Topic { topic_name, owner_id, .. } in topics {
                if let Some(owner) = owner_id.filter(|owner| user.is_none_or(|user| user == owner)) {
                    owned.entry(owner).or_default().push(topic_name);
                }
            }
            if next.is_none() {
                break;
            }
            after = next;
        }
        Ok(owned)
    }

    /// Returns a topic with what it holds.
    ///
    /// # Errors
    /// The caller may not, the topic does not exist, or the storage did not answer.
    pub async fn describe_topic(&self, topic: &TopicName) -> Result<TopicDetail, Failure> {
        self.check_topic(Verb::Read, topic).await?;
        let described = self.relay().storage.topics.describe(topic).await;
        let state = described.map_err(|error| Failure::read(error, Some(topic)))?;
        let now_ms = self.relay().storage.upkeep.now().as_millis();
        let readers = self.relay().feeds.readers(topic);
        Ok(TopicDetail {
            topic: shown(state.topic),
            state: state.ended.as_ref().map_or(RunState::Open, |ended| ended.state),
            reason: state.ended.and_then(|ended| ended.reason).map(String::from),
            length: state.length,
            first_id: state.first_id,
            last_id: state.last_id,
            bytes: state.bytes,
            given: state.given,
            readers,
            oldest_age_seconds: state.first_id.map(|id| now_ms.saturating_sub(id.ms) / 1_000),
        })
    }

    /// Changes the description of a topic, and with it what the topic keeps from now on.
    ///
    /// # Errors
    /// The caller may not, the topic does not exist, or the storage did not answer.
    pub async fn update_topic(&self, topic: &TopicName, change: TopicChange) -> Result<Topic, Failure> {
        self.check_topic(Verb::Manage, topic).await?;
        let updated = self.relay().storage.topics.update(topic, change).await;
        let updated = updated.map_err(|error| Failure::change(error, topic))?;
        self.tell("described", topic);
        Ok(shown(updated))
    }

    /// Deletes a topic with its messages.
    ///
    /// # Errors
    /// The caller may not, the topic does not exist, or the storage did not answer.
    pub async fn delete_topic(&self, topic: &TopicName) -> Result<(), Failure> {
        self.check_topic(Verb::Manage, topic).await?;
        let deleted = self.relay().storage.topics.delete(topic).await;
        // Also where it is not known whether it is deleted.
        self.relay().feeds.forget_owner(topic);
        deleted.map_err(|error| Failure::change(error, topic))?;
        self.tell("deleted", topic);
        Ok(())
    }

    /// Deletes one message. Readers are not told of it: it was taken out on purpose.
    ///
    /// # Errors
    /// The caller may not, the topic does not exist or has no such message, or the storage did not answer.
    pub async fn delete_message(&self, topic: &TopicName, id: MessageId) -> Result<(), Failure> {
        self.check_topic(Verb::Manage, topic).await?;
        let removed = self.relay().storage.messages.remove(topic, id).await;
        let is_removed = removed.map_err(|error| Failure::change(error, topic))?;
        if !is_removed {
            return Err(no_message(topic, id).into());
        }
        self.tell("message deleted", topic);
        Ok(())
    }

    /// Removes messages from the old end of a topic and returns how many were removed.
    ///
    /// # Errors
    /// The caller may not, `earliest` and `latest` are no place to trim before, the topic does not exist, or the storage
    /// did not answer.
    pub async fn trim_topic(&self, topic: &TopicName, to: TrimTo) -> Result<u64, Failure> {
        self.check_topic(Verb::Manage, topic).await?;
        let oldest = |time: tidemill_proto::Timestamp| Trim::Before(MessageId::new(time.as_millis(), 0));
        let trim = match to {
            TrimTo::Newest(count) => Trim::Keep(count),
            TrimTo::From(Since::Cursor(Cursor::After(id))) => Trim::Before(id),
            TrimTo::From(Since::Time(time)) => oldest(time),
            TrimTo::From(Since::Ago(ago)) => oldest(self.relay().storage.upkeep.now().saturating_sub(ago)),
            TrimTo::From(Since::Cursor(Cursor::Earliest | Cursor::Latest)) => {
                return Err(Problem::field(
                    "before",
                    "must be a message id, an RFC 3339 time, or a time ago as in `-10m`; to empty a topic, write `{\"keep\": 0}`",
                )
                .into());
            }
        };
        let trimmed = self.relay().storage.messages.trim(topic, trim).await;
        let trimmed = trimmed.map_err(|error| Failure::change(error, topic))?;
        self.tell("trimmed", topic);
        Ok(trimmed)
    }

    /// Counts topics and messages.
    ///
    /// # Errors
    /// The caller may not, the storage did not answer.
    pub async fn topics_stats(&self) -> Result<TopicsStats, Failure> {
        self.check_relay(Verb::Admin)?;
        self.relay().storage.topics.stats().await.map_err(|error| Failure::read(error, None))
    }
}
