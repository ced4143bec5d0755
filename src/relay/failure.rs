//! Failures: the problem that a client reads, with the cause that only the log may show.
//!
//! The one place where a [`StorageError`] gets its meaning for a caller.

use std::fmt;

use tidemill_proto::{
    BucketName, Code, DurabilityTold, IDEMPOTENCY_KEY_FIELD, MessageId, Problem, TopicName,
};

use crate::access::Refused;
use crate::limits::{Exceeded, Over, Turned};
use crate::storage::{GROUPS_MAX, LIMIT_POLICIES_MAX, StorageError};

mod problems;

use problems::{fenced, indeterminate, read_only};

/// Why the relay did not do what it was asked.
#[derive(Debug)]
pub struct Failure(Box<Inner>);

#[derive(Debug)]
struct Inner {
    problem: Problem,
    cause: Option<StorageError>,
    /// The limit that is reached, where that is why.
    exceeded: Option<Exceeded>,
}

/// What was asked of the storage, as far as an error's meaning depends on it.
#[derive(Clone, Copy, Debug)]
enum Call {
    /// Nothing that has an effect.
    Read,
    /// A publish, with an idempotency key or without.
    Publish { keyed: bool },
    /// Changes of keys, with an idempotency key or without.
    Keys { keyed: bool },
    /// A change of something that is kept.
    Change,
}

impl Failure {
    /// Returns the problem that the client reads.
    #[must_use]
    pub fn problem(&self) -> &Problem {
        &self.0.problem
    }

    /// Returns the problem to add to it what only the transport knows.
    pub fn problem_mut(&mut self) -> &mut Problem {
        &mut self.0.problem
    }

    /// Returns the failure of one item of a list, whose field it names.
    #[must_use]
    pub fn of_item(mut self, list: &str, index: usize) -> Self {
        let problem = self.problem_mut();
        let field = problem.field.as_deref().map_or_else(String::new, |field| format!(".{field}"));
        problem.field = Some(format!("{list}[{index}]{field}"));
        problem.detail = format!("`{list}[{index}]`: {}", problem.detail);
        self
    }

    /// Returns the code of the problem.
    #[must_use]
    pub fn code(&self) -> Code {
        self.0.problem.code
    }

    /// Returns the limit that is reached, where that is why.
    #[must_use]
    pub fn exceeded(&self) -> Option<&Exceeded> {
        self.0.exceeded.as_ref()
    }

    /// Returns a failure whose cause may be logged.
    #[must_use]
    pub fn has_cause(&self) -> bool {
        self.0.cause.is_some()
    }

    /// Returns the cause with everything that lies under it, for the log, or the failure's own sentence where there is none.
    #[must_use]
    pub fn chain(&self) -> Chain<'_> {
        Chain(self)
    }

    pub(super) fn read(error: StorageError, topic: Option<&TopicName>) -> Self {
        Self::from_storage(error, Call::Read, topic)
    }

    pub(super) fn publish(error: StorageError, keyed: bool, topic: &TopicName) -> Self {
        Self::from_storage(error, Call::Publish { keyed }, Some(topic))
    }

    /// Returns the failure of a publish that is kept, and not as durable as was asked.
    pub(super) fn not_reached(id: MessageId, told: DurabilityTold, keyed: bool) -> Self {
        problems::not_reached(id, told, keyed).into()
    }

    pub(super) fn change(error: StorageError, topic: &TopicName) -> Self {
        Self::from_storage(error, Call::Change, Some(topic))
    }

    pub(super) fn read_bucket(error: StorageError, bucket: &BucketName) -> Self {
        Self::of_bucket(error, Call::Read, bucket)
    }

    /// Returns the failure of changes of keys, with an idempotency key or without.
    pub(super) fn change_keys(error: StorageError, keyed: bool, bucket: &BucketName) -> Self {
        Self::of_bucket(error, Call::Keys { keyed }, bucket)
    }

    pub(super) fn change_bucket(error: StorageError, bucket: &BucketName) -> Self {
        Self::of_bucket(error, Call::Change, bucket)
    }

    /// Returns the failure of a storage call on a bucket, which is told by its own name, and not by that of its log.
    fn of_bucket(error: StorageError, call: Call, bucket: &BucketName) -> Self {
        let problem = match &error {
            StorageError::NoBucket => Problem::new(
                Code::BucketNotFound,
                match call {
                    Call::Keys { .. } => format!(
                        "bucket `{bucket}` does not exist, and this relay makes none when a key is put; make it with `PUT /api/v1/buckets/{bucket}`"
                    ),
                    Call::Read | Call::Change | Call::Publish { .. } => {
                        format!("bucket `{bucket}` does not exist")
                    }
                },
            ),
            StorageError::BucketsLimit => Problem::new(
                Code::BucketsLimit,
                format!(
                    "there are as many buckets as this relay allows, so `{bucket}` was not made; delete one that is not used, or raise `TIDEMILL_BUCKETS_MAX`"
                ),
            ),
            StorageError::IdsUsedUp => Problem::new(
                Code::Conflict,
                format!(
                    "bucket `{bucket}` has given the last revision there is, so it takes no more changes; delete it to begin anew"
                ),
            ),
            StorageError::KeyReused => Problem::new(
                Code::KeyReused,
                format!(
                    "the idempotency key was used for other changes of bucket `{bucket}`; use a new key for what is new"
                ),
            ),
            StorageError::Fenced(against) => fenced(*against, "changed"),
            StorageError::ReadOnly(why) => read_only(*why, Some(("bucket", bucket.as_str()))),
            _ => return Self::from_storage(error, call, None),
        };
        Self(Box::new(Inner { problem, cause: Some(error), exceeded: None }))
    }

    /// Returns the failure of a change of what is no topic.
    pub(super) fn changed(error: StorageError) -> Self {
        Self::from_storage(error, Call::Change, None)
    }

    /// Returns the failure of a later step of a change of what is no topic, of which an earlier one is made: it is not as if
    /// nothing had happened.
    pub(super) fn half_changed(error: StorageError) -> Self {
        Self::changed(match error {
            StorageError::Unavailable(cause) => StorageError::Indeterminate(cause),
            StorageError::Overloaded => StorageError::Indeterminate(Box::new(error)),
            other => other,
        })
    }

    /// Returns the failure of a storage call.
    #[expect(clippy::too_many_lines, reason = "each error has its sentence, all in one place")]
    fn from_storage(error: StorageError, call: Call, topic: Option<&TopicName>) -> Self {
        let name = topic.map_or("", TopicName::as_str);
        let problem = match &error {
            StorageError::Unavailable(_) => Problem::new(
                Code::StorageUnavailable,
                "the storage cannot be reached or refuses writes; nothing was changed, try again",
            ),
            StorageError::Indeterminate(_) => indeterminate(call),
            StorageError::Overloaded => Problem::new(
                Code::Overloaded,
                "too much waits for the storage; nothing was changed, try again",
            ),
            StorageError::Full(_) => Problem::new(
                Code::StorageFull,
                "the storage has reached its memory limit; nothing was changed, trim topics or raise the limit",
            ),
            StorageError::KeysFull(_) => Problem {
                // By which a client tells that the message would be taken without one.
                field: Some(IDEMPOTENCY_KEY_FIELD.to_owned()),
                ..Problem::new(
                    Code::StorageFull,
                    "the relay remembers as many idempotency keys as it may (setting `TIDEMILL_IDEMPOTENCY_BYTES_MAX`); nothing was changed, try again when older ones are forgotten, or publish without a key",
                )
            },
            StorageError::NoTopic => Problem::new(
                Code::TopicNotFound,
                match call {
                    Call::Publish { .. } => format!(
                        "topic `{name}` does not exist, and this relay creates no topics by publishing; create it with `POST /api/v1/topics`, or `tidemill topics create {name}`"
                    ),
                    Call::Read | Call::Change | Call::Keys { .. } => {
                        format!("topic `{name}` does not exist")
                    }
                },
            ),
            StorageError::TopicExists => {
                Problem::new(Code::TopicExists, format!("topic `{name}` exists already"))
            }
            StorageError::NotATopic => Problem::new(
                Code::TopicConflict,
                format!(
                    "the storage holds something under the name `{name}` that is not a topic; another program owns it"
                ),
            ),
            StorageError::ForeignKey(key) => Problem::new(
                Code::Conflict,
                format!(
                    "the storage holds something of another program under the key `{key}`, which is the relay's; nothing was changed, and nothing will be until that key is moved away"
                ),
            ),
            StorageError::IdsUsedUp => Problem::new(
                Code::Conflict,
                format!(
                    "topic `{name}` has given the last message id there is, so it takes no more messages; publish to another topic, or delete this one to begin anew"
                ),
            ),
            StorageError::TopicsLimit => Problem::new(
                Code::TopicsLimit,
                format!(
                    "there are as many topics as this relay allows, so `{name}` was not created; delete topics or raise `TIDEMILL_TOPICS_MAX`"
                ),
            ),
            StorageError::NoBucket => Problem::new(
                Code::BucketNotFound,
                "there is no such bucket; the first key that is put makes it (unless the relay is set otherwise), or `PUT /api/v1/buckets/{bucket}` does",
            ),
            StorageError::BucketsLimit => Problem::new(
                Code::BucketsLimit,
                "there are as many buckets as this relay allows, so none was made; delete one that is not used, or raise `TIDEMILL_BUCKETS_MAX`",
            ),
            StorageError::PoliciesLimit => Problem {
                field: Some("policies".to_owned()),
                ..Problem::new(
                    Code::Conflict,
                    format!(
                        "the limit is counted by {LIMIT_POLICIES_MAX} policies, as many as it may; nothing was taken, use the same policies for the same limit, or another name"
                    ),
                )
            },
            StorageError::NoGroup => {
                let detail = format!(
                    "topic `{name}` has no group of the name in `unique`; `tidemill groups list {name}` tells which there are"
                );
                Problem::new(Code::GroupNotFound, detail)
            }
            StorageError::GroupsLimit => Problem::new(
                Code::GroupsLimit,
                format!(
                    "topic `{name}` has {GROUPS_MAX} groups, as many as it may; delete one that is not used"
                ),
            ),
            StorageError::GroupHolds => Problem::new(
                Code::Conflict,
                "`ordering` changes only while none of the messages that the group has given out is undone: in flight, waiting to come again (`waiting` counts these, too), or dying; have all of them settled, or seek",
            ),
            StorageError::SchedulesLimit => Problem::new(
                Code::StorageFull,
                format!(
                    "as many messages wait for later as may, in topic `{name}` (setting `TIDEMILL_TOPIC_SCHEDULES_MAX`) or in all (`TIDEMILL_SCHEDULES_MAX`); nothing was changed, cancel some or raise the limit"
                ),
            ),
            StorageError::NotLast(last) => Problem {
                last_id: Some(*last),
                ..Problem::new(
                    Code::LastMismatch,
                    if *last == MessageId::MIN {
                        format!("topic `{name}` was given no message yet, so the message was not kept")
                    } else {
                        format!(
                            "the last message of topic `{name}` is `{last}`, and another was expected, so the message was not kept; look at what came between"
                        )
                    },
                )
            },
            StorageError::NotCompacted => Problem::new(
                Code::Conflict,
                format!(
                    "topic `{name}` is not compacted, so there is no latest message of each key; set `compact_by`, as with `tidemill topics change {name} --compact-by FIELD`, or leave `view` out"
                ),
            ),
            StorageError::Fenced(against) => fenced(*against, "kept"),
            StorageError::Closed => Problem::new(
                Code::TopicClosed,
                format!(
                    "topic `{name}` is closed and takes no messages any more; publish to another topic, or delete this one to begin anew"
                ),
            ),
            StorageError::Cancelled(reason) => Problem {
                reason: Some(reason.to_string()),
                ..Problem::new(
                    Code::Cancelled,
                    format!("topic `{name}` is cancelled and takes no messages any more: {reason}"),
                )
            },
            StorageError::ReadOnly(why) => read_only(*why, topic.map(|topic| ("topic", topic.as_str()))),
            StorageError::TopicFull => Problem::new(
                Code::TopicFull,
                format!(
                    "topic `{name}` has as much as it may (its `max_messages` or `max_bytes`) and refuses what comes then; nothing was kept. With `keep_until_acked` the messages stay until every group has acknowledged them: `tidemill groups list {name}` tells which has not"
                ),
            ),
            StorageError::Undurable(why) => Problem {
                field: Some("durability".to_owned()),
                ..Problem::new(
                    Code::DurabilityUnsupported,
                    format!(
                        "this relay's storage cannot make the message as durable as was asked, or as is set (`TIDEMILL_DURABILITY`, `TIDEMILL_DURABILITY_TOPICS`): {why}; nothing was kept now"
                    ),
                )
            },
            StorageError::TooFewReplicas { asked, connected } => Problem {
                field: Some("durability".to_owned()),
                ..Problem::new(
                    Code::TooFewReplicas,
                    format!(
                        "the message is to reach as many replicas as {asked}, and the server of topic `{name}` has {connected} that follow it; nothing was kept now, try again, or ask for less"
                    ),
                )
            },
            StorageError::KeyReused => Problem::new(
                Code::KeyReused,
                "the idempotency key was used for another message of this topic; use a new key for a new message",
            ),
        };
        Self(Box::new(Inner { problem, cause: Some(error), exceeded: None }))
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Problem(problem) => problem.into(),
            Refused::Read(error) => Self::from_storage(error, Call::Read, None),
            Refused::Change(error) => Self::from_storage(error, Call::Change, None),
        }
    }
}

impl From<Over> for Failure {
    fn from(over: Over) -> Self {
        match over {
            Over::Exceeded(exceeded) => {
                let Exceeded { limit, rate, wait } = exceeded;
                let seconds = wait.as_millis().div_ceil(1_000).max(1);
                let when = match rate.within.as_secs() {
                    0 => "at one time".to_owned(),
                    within => format!("in {within} seconds"),
                };
                let mut problem = Problem::new(
                    Code::RateLimited,
                    format!(
                        "no more than {} {} {when} (setting `{}`); nothing was done, try again in {seconds} s",
                        rate.amount,
                        limit.what(),
                        limit.variable(),
                    ),
                );
                problem.retry_after_seconds = Some(u64::try_from(seconds).unwrap_or(u64::MAX));
                Self(Box::new(Inner { problem, cause: None, exceeded: Some(exceeded) }))
            }
            Over::Unknown(limit) => Problem::new(
                Code::StorageUnavailable,
                format!(
                    "the storage does not tell now what is left of a limit (setting `{}`); nothing was done, try again",
                    limit.variable(),
                ),
            )
            .into(),
        }
    }
}

impl From<Turned> for Failure {
    fn from(turned: Turned) -> Self {
        match turned {
            Turned::Over(over) => over.into(),
            Turned::Unknown(problem) => problem.into(),
            Turned::Refused(refused) => refused.into(),
        }
    }
}

impl From<Box<Problem>> for Failure {
    fn from(problem: Box<Problem>) -> Self {
        (*problem).into()
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self(Box::new(Inner { problem, cause: None, exceeded: None }))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.problem.fmt(f)
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.cause.as_ref().map(|cause| cause as _)
    }
}

/// A cause with everything that lies under it, joined by colons; of a failure without one, its own sentence.
#[derive(Clone, Copy, Debug)]
pub struct Chain<'a>(&'a Failure);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut next = std::error::Error::source(self.0);
        if next.is_none() {
            return f.write_str(&self.0.problem().detail);
        }
        let mut separator = "";
        while let Some(error) = next {
            write!(f, "{separator}{error}")?;
            separator = ": ";
            next = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tidemill_proto::Durability;

    use super::*;

    #[test]
    fn an_unknown_outcome_means_what_the_call_was() {
        let topic = TopicName::parse("t").expect("a valid name");
        let lost = || StorageError::Indeterminate("no answer".into());
        for (failure, code, retryable) in [
            (Failure::read(lost(), None), Code::StorageTimeout, true),
            (Failure::publish(lost(), false, &topic), Code::OutcomeUnknown, false),
            (Failure::publish(lost(), true, &topic), Code::OutcomeUnknown, true),
            (Failure::change(lost(), &topic), Code::OutcomeUnknown, false),
        ] {
            assert_eq!((failure.code(), failure.problem().retryable), (code, retryable));
            assert_eq!(failure.chain().to_string(), "outcome of the storage call is unknown: no answer");
            assert!(!failure.problem().detail.contains("no answer"), "causes stay in the log");
        }
    }

    #[test]
    fn the_log_is_told_of_what_has_no_cause_by_its_own_sentence() {
        let told =
            DurabilityTold { asked: Durability { fsync: true, replicas: 0 }, reached: Durability::ACCEPTED };
        let failure = Failure::not_reached(MessageId::new(1, 0), told, true);
        assert!(!failure.has_cause());
        assert_eq!(failure.chain().to_string(), failure.problem().detail);
    }

    #[test]
    fn what_trying_again_does_not_mend_is_a_conflict_that_names_what_is_in_the_way() {
        let topic = TopicName::parse("t").expect("a valid name");
        let foreign = || StorageError::ForeignKey("tidemill:topics".into());
        for (failure, code, named) in [
            (Failure::read(foreign(), None), Code::Conflict, "`tidemill:topics`"),
            (Failure::change(foreign(), &topic), Code::Conflict, "`tidemill:topics`"),
            (Failure::publish(foreign(), true, &topic), Code::Conflict, "`tidemill:topics`"),
            (Failure::publish(StorageError::IdsUsedUp, false, &topic), Code::Conflict, "`t`"),
            (Failure::read(StorageError::NotATopic, Some(&topic)), Code::TopicConflict, "`t`"),
        ] {
            let problem = failure.problem();
            assert_eq!((problem.code, problem.status, problem.retryable), (code, 409, false));
            assert!(problem.detail.contains(named), "{}", problem.detail);
        }
    }
}
