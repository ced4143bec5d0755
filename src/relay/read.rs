//! Reading: what a reader may ask for, and what it means at this time.

use tidemill_proto::limits::{PAGE_BYTES_MAX, PAGE_MESSAGES_MAX};
use tidemill_proto::page::Order;
use tidemill_proto::{Code, Cursor, MessageId, Problem, Since, TopicName, TopicSelector};

use super::{Batch, Failure, Gate, StoredMessage, trace};
use crate::access::Verb;
use crate::storage::{GapCheck, LatestRange, Range};

/// Where a page starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the end of the topic that the order begins with.
    End,
    /// After this id, in the direction of the order.
    After(MessageId),
    /// Where a reader's words say; such a page is read forward.
    Since(Since),
}

/// Which messages to read.
#[derive(Clone, Copy, Debug)]
pub struct PageRequest {
    /// Direction; [`Start::Since`] reads forward whatever stands here.
    pub order: Order,
    /// Where to start.
    pub start: Start,
    /// Most messages; 1 to [`PAGE_MESSAGES_MAX`].
    pub limit: usize,
}

/// Parses the name of a topic.
///
/// # Errors
/// The problem names the rule that the text breaks.
pub fn parse_topic(field: &str, text: &str) -> Result<TopicName, Failure> {
    TopicName::parse(text).map_err(|error| Problem::field(field, error).into())
}

/// Parses the name of a topic, or a pattern in its place.
///
/// # Errors
/// The problem names the rule that the text breaks.
pub fn parse_selector(field: &str, text: &str) -> Result<TopicSelector, Failure> {
    TopicSelector::parse(text).map_err(|error| Problem::field(field, error).into())
}

/// Parses a message id.
///
/// # Errors
/// The text is no id; the problem names the field.
pub fn parse_id(field: &str, text: &str) -> Result<MessageId, Failure> {
    MessageId::parse(text).map_err(|error| Problem::field(field, error).into())
}

/// Parses a reader's words for a cursor.
///
/// # Errors
/// The text has none of the forms; the problem names the field.
pub fn parse_since(field: &str, text: &str) -> Result<Since, Failure> {
    Since::parse(text).map_err(|error| Problem::field(field, error).into())
}

impl Gate {
    /// Returns a page of messages.
    ///
    /// # Errors
    /// The caller may not read the topic, the topic does not exist, or the storage did not answer.
    pub async fn read(&self, topic: &TopicName, request: PageRequest) -> Result<Batch, Failure> {
        self.check_topic(Verb::Read, topic).await?;
        let storage = &self.relay().storage;
        debug_assert!((1..=PAGE_MESSAGES_MAX).contains(&request.limit));
        let (order, after, gap_check) = match request.start {
            Start::End => (request.order, None, GapCheck::None),
            Start::After(id) if request.order == Order::Asc => (Order::Asc, Some(id), GapCheck::Seen),
            // Who reads backwards comes to the oldest message in the end, and misses nothing before it.
            Start::After(id) => (Order::Desc, Some(id), GapCheck::None),
            Start::Since(since) => match since.at(storage.upkeep.now()) {
                Cursor::Earliest => (Order::Asc, None, GapCheck::None),
                // Nothing lies after it yet; the read still tells whether there is such a topic.
                Cursor::Latest => (Order::Asc, Some(MessageId::MAX), GapCheck::None),
                Cursor::After(id) if matches!(since, Since::Cursor(_)) => {
                    (Order::Asc, Some(id), GapCheck::Seen)
                }
                Cursor::After(id) => (Order::Asc, Some(id), GapCheck::None),
            },
        };
        let range = Range { order, after, gap_check, limit: request.limit, bytes_max: PAGE_BYTES_MAX };
        let read = storage.messages.read(topic, range).await;
        let batch = read.map_err(|error| Failure::read(error, Some(topic)))?;
        trace::note_read(topic, batch.messages.len());
        Ok(batch)
    }

    /// Returns a page of the latest messages of the keys of a topic. Who goes on behind an id goes on with the pages before;
    /// who comes with a place as its reader's words is told what is missing behind it.
    ///
    /// # Errors
    /// The caller may not read the topic, the topic does not exist or is not compacted, or the storage did not answer.
    pub async fn read_latest(&self, topic: &TopicName, start: Start, limit: usize) -> Result<Batch, Failure> {
        self.check_topic(Verb::Read, topic).await?;
        let storage = &self.relay().storage;
        let (after, gap_check, goes_on) = match start {
            Start::End => (None, GapCheck::None, false),
            Start::After(id) => (Some(id), GapCheck::Seen, true),
            Start::Since(since) => match since.at(storage.upkeep.now()) {
                Cursor::Earliest => (None, GapCheck::None, false),
                Cursor::Latest => (Some(MessageId::MAX), GapCheck::None, false),
                Cursor::After(id) if matches!(since, Since::Cursor(_)) => (Some(id), GapCheck::Seen, false),
                Cursor::After(id) => (Some(id), GapCheck::None, false),
            },
        };
        let range = LatestRange { after, gap_check, goes_on, limit, bytes_max: PAGE_BYTES_MAX };
        let read = storage.messages.latest(topic, range).await;
        let batch = read.map_err(|error| Failure::read(error, Some(topic)))?;
        trace::note_read(topic, batch.messages.len());
        Ok(batch)
    }

    /// Returns one message.
    ///
    /// # Errors
    /// The caller may not read the topic, the topic or the message does not exist, or the storage did not
    /// answer.
    pub async fn message(&self, topic: &TopicName, id: MessageId) -> Result<StoredMessage, Failure> {
        self.check_topic(Verb::Read, topic).await?;
        let found = self.relay().storage.messages.get(topic, id).await;
        match found.map_err(|error| Failure::read(error, Some(topic)))? {
            Some(message) => {
                trace::note_read(topic, 1);
                Ok(message)
            }
            None => Err(no_message(topic, id).into()),
        }
    }
}

/// Returns the problem of a message that is not there.
pub(super) fn no_message(topic: &TopicName, id: MessageId) -> Problem {
    let detail = format!(
        "topic `{topic}` has no message `{id}`: it was never there, was trimmed or deleted, or has expired"
    );
    Problem::new(Code::MessageNotFound, detail)
}
