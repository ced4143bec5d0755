//! Copies: what a relay tells of its topics and buckets to who copies them, and what it takes over.
//!
//! It must not know in which order that is asked: `copying` does.

use std::time::Duration;

use tidemill_proto::copy::{CopyRead, CopyTold, CopyWrite};
use tidemill_proto::limits::{COPY_STEP_SECONDS_MAX, COPY_STEPS_MAX};
use tidemill_proto::work::GroupName;
use tidemill_proto::{BucketName, Code, Problem, TopicName, TopicSelector};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use super::{Failure, Gate};
use crate::access::{Verb, Who, changed};
use crate::copying::{self, Write};
use crate::storage::StorageError;

/// Pages of messages that are told together: a step over HTTP takes longer than it takes to read one.
const PAGES_AT_ONCE: usize = 8;
/// Longest time of a step.
const STEP_MAX: Duration = Duration::from_secs(COPY_STEP_SECONDS_MAX);

/// The steps of copies that are under way.
#[derive(Debug)]
pub(super) struct Steps(Semaphore);

impl Steps {
    pub(super) fn new() -> Self {
        Self(Semaphore::new(COPY_STEPS_MAX))
    }

    /// Returns the turn of a step, which is over with it.
    fn begin(&self) -> Result<SemaphorePermit<'_>, Failure> {
        self.0.try_acquire().map_err(|_| {
            let detail = format!(
                "as many steps of copies are under way as this node does at one time ({COPY_STEPS_MAX}); nothing was changed, try again"
            );
            Problem::new(Code::Overloaded, detail).into()
        })
    }
}

/// What a step is about.
#[derive(Clone, Debug, Default)]
struct About {
    topic: Option<TopicName>,
    group: Option<GroupName>,
    bucket: Option<BucketName>,
}

impl About {
    fn topic(topic: &TopicName) -> Self {
        Self { topic: Some(topic.clone()), ..Self::default() }
    }

    fn group(topic: &TopicName, group: &GroupName) -> Self {
        Self { group: Some(group.clone()), ..Self::topic(topic) }
    }

    fn bucket(bucket: &BucketName) -> Self {
        Self { bucket: Some(bucket.clone()), ..Self::default() }
    }

    fn of_read(asked: &CopyRead) -> Self {
        match asked {
            CopyRead::TopicNames { .. }
            | CopyRead::BucketNames { .. }
            | CopyRead::RefusesNew
            | CopyRead::Retention
            | CopyRead::Identity { topic: Some(TopicSelector::Pattern(_)) | None } => Self::default(),
            CopyRead::Topic { topic }
            | CopyRead::Messages { topic, .. }
            | CopyRead::Latest { topic, .. }
            | CopyRead::Deletions { topic }
            | CopyRead::Groups { topic }
            | CopyRead::Waiting { topic, .. }
            | CopyRead::Recurring { topic }
            | CopyRead::Identity { topic: Some(TopicSelector::Topic(topic)) } => Self::topic(topic),
            CopyRead::Group { topic, group }
            | CopyRead::Pending { topic, group, .. }
            | CopyRead::Dead { topic, group, .. }
            | CopyRead::Unique { topic, group, .. } => Self::group(topic, group),
            CopyRead::Bucket { bucket }
            | CopyRead::Keys { bucket, .. }
            | CopyRead::SomeKeys { bucket, .. }
            | CopyRead::Ends { bucket, .. }
            | CopyRead::Changes { bucket, .. } => Self::bucket(bucket),
        }
    }

    /// Returns what a write is about, and what of it the log is told: that something begins or ends, and not each part.
    fn of_write(write: &Write) -> (Self, Option<&'static str>) {
        let freezes = |frozen| if frozen { "made read-only" } else { "no longer read-only" };
        match write {
            Write::RefuseNew { refused: true } => (Self::default(), Some("no more are made")),
            Write::RefuseNew { refused: false } => (Self::default(), Some("made again")),
            Write::Mark { topic }
            | Write::Messages { topic, .. }
            | Write::Forget { topic, .. }
            | Write::Waiting { topic, .. } => (Self::topic(topic), None),
            Write::Freeze { topic, frozen } => (Self::topic(topic), Some(freezes(*frozen))),
            Write::Delete { topic } => (Self::topic(topic), Some("deleted")),
            Write::Begin(copied) => (Self::topic(&copied.topic.topic_name), Some("is taken over")),
            Write::Group { topic, group } => (Self::group(topic, &group.group), None),
            Write::Pending { topic, group, .. }
            | Write::Dead { topic, group, .. }
            | Write::Unique { topic, group, .. } => (Self::group(topic, group), None),
            Write::Finish { topic, .. } => (Self::topic(&topic.topic.topic_name), Some("was taken over")),
            Write::Keys { bucket, .. } | Write::Ends { bucket, .. } | Write::Changes { bucket, .. } => {
                (Self::bucket(bucket), None)
            }
            Write::FreezeBucket { bucket, frozen } => (Self::bucket(bucket), Some(freezes(*frozen))),
            Write::DeleteBucket { bucket } => (Self::bucket(bucket), Some("deleted")),
            Write::BeginBucket(copied) => (Self::bucket(&copied.state.bucket), Some("is taken over")),
            Write::FinishBucket(copied) => (Self::bucket(&copied.state.bucket), Some("was taken over")),
        }
    }

    fn not_read(&self, error: StorageError) -> Failure {
        match (&self.topic, &self.group, &self.bucket) {
            (Some(topic), Some(group), _) => Failure::read_work(error, topic, group),
            (_, _, Some(bucket)) => Failure::read_bucket(error, bucket),
            (topic, _, None) => Failure::read(error, topic.as_ref()),
        }
    }

    fn not_written(&self, error: StorageError) -> Failure {
        match (&self.topic, &self.group, &self.bucket) {
            (Some(topic), Some(group), _) => Failure::work(error, topic, group),
            (Some(topic), None, _) => Failure::change(error, topic),
            (None, _, Some(bucket)) => match error {
                StorageError::TopicExists => {
                    let detail =
                        format!("bucket `{bucket}` exists already, and is not the one that is being copied");
                    Problem::new(Code::BucketExists, detail).into()
                }
                error => Failure::change_bucket(error, bucket),
            },
            (None, _, None) => Failure::changed(error),
        }
    }
}

fn too_long() -> StorageError {
    StorageError::Indeterminate(format!("a step took longer than {COPY_STEP_SECONDS_MAX} s").into())
}

impl Gate {
    /// Tells who copies what there is.
    ///
    /// # Errors
    /// The caller may not administer the relay, too many steps are under way, there is no such thing, or the storage did
    /// not answer.
    pub async fn read_copy(&self, asked: &CopyRead) -> Result<CopyTold, Failure> {
        self.check_relay(Verb::Admin)?;
        let _turn = self.relay().copies.begin()?;
        copying::check_read(asked)?;
        let about = About::of_read(asked);
        let told = timeout(STEP_MAX, copying::read(&self.relay().storage, asked, PAGES_AT_ONCE)).await;
        let told = told.unwrap_or_else(|_| Err(too_long())).map_err(|error| about.not_read(error))?;
        Ok(copying::told_to(told))
    }

    /// Does what who copies wants done.
    ///
    /// # Errors
    /// The caller may not administer the relay, too many steps are under way, it is not well-formed, it does not fit what is
    /// there, or the storage did not answer.
    pub async fn write_copy(&self, write: CopyWrite) -> Result<(), Failure> {
        self.check_relay(Verb::Admin)?;
        let _turn = self.relay().copies.begin()?;
        let write = copying::write_from(write)?;
        let (about, told) = About::of_write(&write);
        let written = timeout(STEP_MAX, copying::write(&self.relay().storage, write)).await;
        if let (Some(topic), true) = (&about.topic, told.is_some()) {
            // Also where it is not known whether it is done.
            self.relay().feeds.forget_owner(topic);
        }
        written.unwrap_or_else(|_| Err(too_long())).map_err(|error| about.not_written(error))?;
        match (told, &about.topic, &about.bucket) {
            (Some(change), Some(topic), _) => self.tell(change, topic),
            (Some(change), None, Some(bucket)) => self.tell_bucket(change, bucket),
            (Some(change), None, None) if *self.caller().who() != Who::Anyone => {
                changed!(self.caller().who(), self.origin(), "topics changed", change);
            }
            (Some(_) | None, ..) => {}
        }
        Ok(())
    }
}
