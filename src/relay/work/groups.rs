//! Groups: making them, changing them, and telling what they have.

use std::time::Duration;

use futures_util::future::join_all;
use tidemill_proto::duration::Seconds;
use tidemill_proto::topics::TopicUpdate;
use tidemill_proto::work::{GroupDetail, GroupName, GroupSettings, Ordering};
use tidemill_proto::{Code, Cursor, MessageId, Problem, Since, TopicName};

use crate::access::Verb;
use crate::relay::{Failure, Gate};
use crate::storage::{Existing, GroupChange, GroupStart, StorageError, group_defaults};

/// How often a change of settings is made again that others come before.
const CHANGES_MAX: usize = 10;

/// What is said of a setting that may be without a value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Change<T> {
    /// Nothing: it stays as it is.
    #[default]
    Keep,
    /// It has none from now on.
    Clear,
    /// It has this one.
    Set(T),
}

impl<T> Change<T> {
    fn applied(self, before: Option<T>) -> Option<T> {
        match self {
            Self::Keep => before,
            Self::Clear => None,
            Self::Set(value) => Some(value),
        }
    }
}

/// What a caller says of a group's settings: what it does not say stays as it is. The values keep the bounds that the
/// edge has read them with.
#[derive(Clone, Debug, Default)]
pub struct GroupDraft {
    /// For how long a consumer has a message.
    pub ack_wait: Option<Duration>,
    /// After how many failures a message is a dead letter.
    pub max_deliveries: Option<u32>,
    /// For how long a consumer can have a message at all.
    pub max_run: Change<Duration>,
    /// How long a message waits after each failure.
    pub backoff: Option<Vec<Duration>>,
    /// Most messages that all consumers have together.
    pub max_in_flight: Change<u32>,
    /// Most messages that one consumer has.
    pub per_consumer_max: Change<u32>,
    /// The topic of its dead letters.
    pub dead_letter: Option<TopicName>,
    /// Whether nothing is given out.
    pub paused: Option<bool>,
    /// For how long results are kept.
    pub result_ttl: Option<Duration>,
    /// Which messages are given out beside each other.
    pub ordering: Option<Ordering>,
}

/// Parses the name of a group.
///
/// # Errors
/// The text is none.
pub fn parse_group(text: &str) -> Result<GroupName, Failure> {
    GroupName::parse(text).map_err(|error| Problem::field("group", error).into())
}

/// Parses the ordering of a group.
///
/// # Errors
/// The text is none.
pub fn parse_ordering(text: &str) -> Result<Ordering, Failure> {
    Ordering::parse(text).map_err(|error| Problem::field("ordering", error).into())
}

impl GroupDraft {
    /// Returns the settings that come of these.
    fn applied(&self, settings: GroupSettings) -> GroupSettings {
        let seconds = |of: Option<Duration>, otherwise: Seconds| of.map_or(otherwise, Seconds);
        let backoff = self.backoff.as_ref().map(|waits| waits.iter().copied().map(Seconds).collect());
        GroupSettings {
            ack_wait: seconds(self.ack_wait, settings.ack_wait),
            max_deliveries: self.max_deliveries.unwrap_or(settings.max_deliveries),
            max_run: self.max_run.applied(settings.max_run.map(|max| max.0)).map(Seconds),
            backoff: backoff.unwrap_or(settings.backoff),
            max_in_flight: self.max_in_flight.applied(settings.max_in_flight),
            per_consumer_max: self.per_consumer_max.applied(settings.per_consumer_max),
            dead_letter: self.dead_letter.clone().unwrap_or(settings.dead_letter),
            paused: self.paused.unwrap_or(settings.paused),
            result_ttl: seconds(self.result_ttl, settings.result_ttl),
            ordering: self.ordering.unwrap_or(settings.ordering),
        }
    }
}

impl Gate {
    /// Makes a group, or replaces the settings of the one there is, unless it is to be `new`; what is not said is as for a
    /// new one. Makes the topic, if it is not there. Returns the group, and whether it was made.
    ///
    /// # Errors
    /// The caller may not, there is the group that is to be new, or may not publish to the topic of dead letters that it names; there are too many groups; or
    /// the storage did not answer.
    pub async fn put_group(
        &self,
        topic: &TopicName,
        group: &GroupName,
        draft: &GroupDraft,
        start: Since,
        new: bool,
    ) -> Result<(GroupDetail, bool), Failure> {
        self.check_topic(Verb::Manage, topic).await?;
        let settings = draft.applied(group_defaults(topic, group));
        self.check_settings(topic, draft, &settings).await?;
        let start = self.place("start", start)?;
        let work = &self.relay().storage.work;
        let existing = if new { Existing::Keep } else { Existing::Replace };
        let put = async || work.put_group(topic, group, &settings, start, existing).await;
        let made = match put().await {
            Err(StorageError::NoTopic) => {
                match self.create_topic(topic, TopicUpdate::default()).await {
                    // Somebody else has made it at this moment.
                    Err(failure) if failure.code() != Code::TopicExists => return Err(failure),
                    Ok(_) | Err(_) => {}
                }
                put().await
            }
            made => made,
        };
        let made = made.map_err(|error| Failure::work(error, topic, group))?;
        if new && !made {
            let detail = format!("topic `{topic}` has a group `{group}` already; it was left as it is");
            return Err(Problem::new(Code::Conflict, detail).into());
        }
        self.tell_group(if made { "group made" } else { "group changed" }, topic, group);
        self.look_again(topic, group);
        let detail =
            work.group(topic, group).await.map_err(|error| Failure::read_work(error, topic, group))?;
        Ok((detail, made))
    }

    /// Changes what a draft says of a group's settings.
    ///
    /// # Errors
    /// As [`put_group`](Self::put_group), there is no such group, or others change it all the time.
    pub async fn change_group(
        &self,
        topic: &TopicName,
        group: &GroupName,
        draft: &GroupDraft,
    ) -> Result<GroupDetail, Failure> {
        self.check_topic(Verb::Manage, topic).await?;
        let work = &self.relay().storage.work;
        let failed = |error| Failure::work(error, topic, group);
        for _ in 0..CHANGES_MAX {
            let known = work.group(topic, group).await.map_err(failed)?.settings;
            let next = draft.applied(known.clone());
            self.check_settings(topic, draft, &next).await?;
            let change = GroupChange { known: Some(known), next };
            if work.change_group(topic, group, &change).await.map_err(failed)? {
                self.tell_group("group changed", topic, group);
                self.look_again(topic, group);
                return work
                    .group(topic, group)
                    .await
                    .map_err(|error| Failure::read_work(error, topic, group));
            }
        }
        let detail = format!("others change group `{group}` of topic `{topic}` all the time; try again");
        Err(Problem::new(Code::Conflict, detail).into())
    }

    /// Checks what the settings of a group say together, and where its dead letters are to go.
    async fn check_settings(
        &self,
        topic: &TopicName,
        draft: &GroupDraft,
        settings: &GroupSettings,
    ) -> Result<(), Failure> {
        if settings.max_run.is_some_and(|max| max.0 < settings.ack_wait.0) {
            let rule = format!(
                "is less than `ack_wait`, which is {} seconds: a consumer has a message for as long at least",
                settings.ack_wait.0.as_secs_f64()
            );
            return Err(Problem::field("max_run", rule).into());
        }
        if settings.dead_letter == *topic {
            let rule = "must be another topic than that of the group; where the names of both are too long for the default, name one";
            return Err(Problem::field("dead_letter", rule).into());
        }
        match &draft.dead_letter {
            Some(letters) => self.check_topic(Verb::Publish, letters).await,
            None => Ok(()),
        }
    }

    fn place(&self, field: &str, since: Since) -> Result<GroupStart, Failure> {
        Ok(match since.at(self.relay().storage.upkeep.now()) {
            Cursor::Earliest => GroupStart::Earliest,
            Cursor::Latest => GroupStart::Latest,
            Cursor::After(id) if id == MessageId::MIN => GroupStart::Earliest,
            Cursor::After(id) if id == MessageId::MAX => {
                return Err(Problem::field(
                    field,
                    "is the largest id there can be: no message can follow it",
                )
                .into());
            }
            Cursor::After(id) => GroupStart::After(id),
        })
    }

    /// Takes back what consumers have had for too long, which nobody else does where nobody claims: so numbers are true.
    pub(super) async fn tend(&self, topic: &TopicName, group: &GroupName) {
        let tended = self.relay().storage.work.tend(topic, group).await;
        if tended.is_ok_and(|tended| tended.dying) {
            self.relay().stations.letters().write_soon(topic, group);
        }
    }

    /// Wakes the claims of a group that wait on this node.
    fn look_again(&self, topic: &TopicName, group: &GroupName) {
        if let Some(station) = self.relay().stations.find(topic, group) {
            station.look();
        }
    }

    /// Returns the groups of a topic.
    ///
    /// # Errors
    /// The caller may not, there is no such topic, or the storage did not answer.
    pub async fn groups(&self, topic: &TopicName) -> Result<Vec<GroupDetail>, Failure> {
        self.check_topic(Verb::Work, topic).await?;
        let ask = async || {
            let groups = self.relay().storage.work.groups(topic).await;
            groups.map_err(|error| Failure::read(error, Some(topic)))
        };
        let groups = ask().await?;
        let hold = groups.iter().filter(|group| group.in_flight > 0);
        if join_all(hold.map(|group| self.tend(topic, &group.group))).await.is_empty() {
            return Ok(groups);
        }
        ask().await
    }

    /// Returns a group.
    ///
    /// # Errors
    /// The caller may not, there is no such group, or the storage did not answer.
    pub async fn group(&self, topic: &TopicName, group: &GroupName) -> Result<GroupDetail, Failure> {
        self.check_topic(Verb::Work, topic).await?;
        self.tend(topic, group).await;
        let found = self.relay().storage.work.group(topic, group).await;
        found.map_err(|error| Failure::read_work(error, topic, group))
    }

    /// Deletes a group with all that it knows. The messages, and the topic of its dead letters, stay.
    ///
    /// # Errors
    /// The caller may not, there is no such group, or the storage did not answer.
    pub async fn delete_group(&self, topic: &TopicName, group: &GroupName) -> Result<(), Failure> {
        self.check_topic(Verb::Manage, topic).await?;
        let deleted = self.relay().storage.work.delete_group(topic, group).await;
        deleted.map_err(|error| Failure::work(error, topic, group))?;
        self.tell_group("group deleted", topic, group);
        self.look_again(topic, group);
        Ok(())
    }

    /// Sets a group to another place: all receipts until now are void.
    ///
    /// # Errors
    /// The caller may not, there is no such group, or the storage did not answer.
    pub async fn seek_group(&self, topic: &TopicName, group: &GroupName, to: Since) -> Result<(), Failure> {
        self.check_topic(Verb::Manage, topic).await?;
        let place = self.place("to", to)?;
        let sought = self.relay().storage.work.seek(topic, group, place).await;
        sought.map_err(|error| Failure::work(error, topic, group))?;
        self.tell_group("group set to another place", topic, group);
        self.look_again(topic, group);
        Ok(())
    }
}
