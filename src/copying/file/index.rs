//! Which record of an export answers which question: a few bytes for each page.
//!
//! Where a question was answered twice, the later record has it: the source was asked again after a fault. It must not know
//! what records tell, nor read any.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use tidemill_proto::copy::CopyRead;
use tidemill_proto::{BucketName, KeyName, MessageId, TopicName};

use super::frames::Place;
use super::records::Head;

/// Pages of messages, each under the id behind which it begins.
pub(super) type Pages = BTreeMap<MessageId, Place>;

/// Of a topic, or of a bucket.
#[derive(Debug, Default)]
pub(super) struct Of {
    /// The topic or the bucket itself, once it is whole.
    pub(super) whole: Option<Place>,
    /// Messages of its log.
    pub(super) log: Pages,
    /// Latest messages of a topic, for each time that they were read through: what each page of a time has is true until
    /// what came later says something else.
    pub(super) latest: Vec<Pages>,
    /// Pages of keys, each under the key behind which it begins.
    pub(super) keys: BTreeMap<Option<KeyName>, Place>,
    /// Keys that were changed since they were read, with the place of each in its record.
    pub(super) changed: BTreeMap<KeyName, (Place, usize)>,
    /// What is asked in the same words again.
    others: HashMap<String, Place>,
}

/// Of a file.
#[derive(Debug, Default)]
pub(super) struct Index {
    pub(super) topics: BTreeMap<TopicName, Of>,
    pub(super) buckets: BTreeMap<BucketName, Of>,
    /// Who may do what.
    pub(super) access: Option<Place>,
}

/// Returns a question in words. It is always JSON.
fn words(asked: &CopyRead) -> String {
    serde_json::to_string(asked).unwrap_or_default()
}

impl Of {
    /// Returns the record that answers a question that was asked in the same words.
    pub(super) fn other(&self, asked: &CopyRead) -> Option<Place> {
        self.others.get(&words(asked)).copied()
    }

    /// Checks that questions are answered that are asked of what is whole.
    fn check(&self, name: &impl fmt::Display, questions: &[CopyRead]) -> Result<(), (Place, String)> {
        let open = questions.iter().find(|asked| self.other(asked).is_none());
        match (self.whole, open) {
            (Some(place), Some(open)) => {
                Err((place, format!("the file does not say of {name}: {}", words(open))))
            }
            _ => Ok(()),
        }
    }
}

impl Index {
    /// Adds a record.
    pub(super) fn add(&mut self, head: Head, place: Place) {
        match head {
            Head::Begin(topic) => _ = self.topics.insert(topic, Of::default()),
            Head::BeginBucket(bucket) => _ = self.buckets.insert(bucket, Of::default()),
            Head::Asked(asked) => self.add_answer(asked, place),
            Head::Access(_) => self.access = Some(place),
            Head::End(_) => {}
        }
    }

    fn add_answer(&mut self, asked: CopyRead, place: Place) {
        match asked {
            CopyRead::Topic { topic } => self.topic(&topic).whole = Some(place),
            CopyRead::Messages { topic, after } => _ = self.topic(&topic).log.insert(after, place),
            CopyRead::Latest { topic, after } => {
                let latest = &mut self.topic(&topic).latest;
                if after == MessageId::MIN || latest.is_empty() {
                    latest.push(Pages::default());
                }
                if let Some(pages) = latest.last_mut() {
                    pages.insert(after, place);
                }
            }
            CopyRead::Deletions { ref topic }
            | CopyRead::Groups { ref topic }
            | CopyRead::Group { ref topic, .. }
            | CopyRead::Pending { ref topic, .. }
            | CopyRead::Dead { ref topic, .. }
            | CopyRead::Unique { ref topic, .. }
            | CopyRead::Waiting { ref topic, .. }
            | CopyRead::Recurring { ref topic } => {
                _ = self.topic(topic).others.insert(words(&asked), place);
            }
            CopyRead::Bucket { bucket } => self.bucket(&bucket).whole = Some(place),
            CopyRead::Changes { bucket, after } => _ = self.bucket(&bucket).log.insert(after, place),
            CopyRead::Keys { bucket, after } => _ = self.bucket(&bucket).keys.insert(after, place),
            CopyRead::SomeKeys { bucket, keys } => {
                let placed = keys.into_iter().enumerate().map(|(at, key)| (key, (place, at)));
                self.bucket(&bucket).changed.extend(placed);
            }
            CopyRead::Ends { ref bucket, .. } => {
                _ = self.bucket(bucket).others.insert(words(&asked), place);
            }
            // Of all: that is told by the index itself.
            CopyRead::Identity { .. }
            | CopyRead::TopicNames { .. }
            | CopyRead::BucketNames { .. }
            | CopyRead::RefusesNew
            | CopyRead::Retention => {}
        }
    }

    /// Leaves out what is not whole: it was gone before the export came to its end.
    ///
    /// # Errors
    /// Something that is whole has no answer to what is asked of each: its place, and what.
    pub(super) fn close(&mut self) -> Result<(), (Place, String)> {
        self.topics.retain(|_, of| of.whole.is_some());
        self.buckets.retain(|_, of| of.whole.is_some());
        for (topic, of) in &self.topics {
            of.check(
                topic,
                &[
                    CopyRead::Deletions { topic: topic.clone() },
                    CopyRead::Groups { topic: topic.clone() },
                    CopyRead::Recurring { topic: topic.clone() },
                    CopyRead::Waiting { topic: topic.clone(), after: None },
                ],
            )?;
        }
        for (bucket, of) in &self.buckets {
            of.check(bucket, &[CopyRead::Ends { bucket: bucket.clone(), after: None }])?;
            if let (Some(place), false) = (of.whole, of.keys.contains_key(&None)) {
                return Err((place, format!("the file has no keys of the bucket {bucket}")));
            }
        }
        Ok(())
    }

    fn topic(&mut self, topic: &TopicName) -> &mut Of {
        self.topics.entry(topic.clone()).or_default()
    }

    fn bucket(&mut self, bucket: &BucketName) -> &mut Of {
        self.buckets.entry(bucket.clone()).or_default()
    }
}
