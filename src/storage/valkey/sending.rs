//! Sending: turns a batch of messages into one pipeline and its replies into outcomes.
//!
//! One rare reply is mended and the message is sent again: a topic that does not exist is created if it
//! may be. A pipeline that needs the script loads it in front, so that a server that has
//! forgotten it changes no order: were single messages refused and sent again, they would come after
//! later ones.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use glide::{Pipeline, ValkeyValue};
use tidemill_proto::topics::TopicUpdate;
use tidemill_proto::{MessageId, Timestamp, TopicName};
use tokio::sync::watch;

use super::entry::{self, bytes_of, read_id};
use super::failure::{Effect, Failure, causes_of, of_reply, same, unexpected};
use super::lanes::Outcome;
use super::role::Role;
use super::topics::Creator;
use super::{keys, scripts};
use crate::storage::{Appended, NewMessage, StorageError, StorageLimits};

/// How often a message is sent again after something was mended. A topic that is deleted as fast as
/// it is created must not hold the lane for ever.
const ROUNDS_MAX: usize = 4;

/// Sends batches over the publishing role.
#[derive(Debug)]
pub(super) struct Sender {
    role: Arc<Role>,
    creator: Creator,
    /// The digest by which the server knows the script, once it was loaded.
    script: ArcSwapOption<String>,
    max_messages: Vec<u8>,
    window_ms: Vec<u8>,
}

/// What came of sending messages once.
#[derive(Debug)]
pub(super) struct Round {
    /// An outcome for each, in their order, but for those of `again`.
    pub(super) outcomes: Vec<Option<Outcome>>,
    /// Those whose topic does not exist, with their places.
    pub(super) again: Vec<(usize, NewMessage)>,
    /// The topics that took some.
    pub(super) appended: Vec<TopicName>,
}

/// What a reply means for its message.
enum Reading {
    Done(Outcome),
    NoTopic,
}

impl Sender {
    pub(super) fn new(role: Arc<Role>, creator: Creator, limits: &StorageLimits) -> Self {
        Self {
            role,
            creator,
            script: ArcSwapOption::empty(),
            max_messages: limits.max_messages_per_topic.to_string().into_bytes(),
            window_ms: limits.idempotency_window.as_millis().to_string().into_bytes(),
        }
    }

    pub(super) fn watch(&self) -> watch::Receiver<bool> {
        self.role.watch()
    }

    pub(super) fn last_error(&self) -> String {
        self.role.last_error()
    }

    /// Sends messages once.
    pub(super) async fn send(&self, messages: Vec<NewMessage>) -> Round {
        let outcomes = messages.iter().map(|_| None).collect();
        let mut round = Round { outcomes, again: Vec::new(), appended: Vec::new() };
        self.send_round(messages.into_iter().enumerate().collect(), &mut round).await;
        round
    }

    /// Creates the topics of messages that found none, sends these again, and returns an outcome for
    /// each.
    pub(super) async fn send_again(&self, messages: Vec<NewMessage>) -> Vec<Outcome> {
        let outcomes = messages.iter().map(|_| None).collect();
        let again = messages.into_iter().enumerate().collect();
        let mut round = Round { outcomes, again, appended: Vec::new() };
        for _ in 1..ROUNDS_MAX {
            let again = std::mem::take(&mut round.again);
            let open = self.create_topics(again, &mut round.outcomes).await;
            self.send_round(open, &mut round).await;
            if round.again.is_empty() {
                break;
            }
        }
        for (place, _) in round.again {
            let cause = Failure::NotCreated("it is deleted as fast as it is created".to_owned()).into();
            round.outcomes[place] = Some(Err(StorageError::Unavailable(cause)));
        }
        round.outcomes.into_iter().map(|outcome| outcome.expect("every message was decided")).collect()
    }

    async fn send_round(&self, open: Vec<(usize, NewMessage)>, round: &mut Round) {
        if open.is_empty() {
            return;
        }
        let outcomes = &mut round.outcomes;
        let (open, script) = match self.script_for(&open).await {
            Ok(script) => (open, script),
            Err(cause) => (refuse_scripted(open, outcomes, &cause), None),
        };
        if open.is_empty() {
            return;
        }
        let mut pipeline = glide::pipe();
        let in_front = usize::from(script.is_some());
        if script.is_some() {
            pipeline.cmd("SCRIPT").arg("LOAD").arg(scripts::APPEND_ONCE);
        }
        for (_, message) in &open {
            self.write(&mut pipeline, message, script.as_deref());
        }
        pipeline.cmd("PUBLISH").arg(keys::DOORBELL).arg(topics_of(&open));
        let replies = match self.role.run(&pipeline, Effect::Write).await {
            // The doorbell's reply comes last. It is a hint, so it may fail.
            Ok(replies) if replies.len() == in_front + open.len() + 1 => replies,
            Ok(_) => return fail(open, outcomes, &unexpected("a pipeline", Effect::Write)),
            Err(error) => return fail(open, outcomes, &error),
        };
        for ((place, message), reply) in open.into_iter().zip(replies.into_iter().skip(in_front)) {
            match read_reply(&message, reply) {
                Reading::Done(outcome) => {
                    if outcome.is_ok() && round.appended.last() != Some(&message.topic) {
                        round.appended.push(message.topic);
                    }
                    outcomes[place] = Some(outcome);
                }
                Reading::NoTopic if message.create_topic => round.again.push((place, message)),
                Reading::NoTopic => outcomes[place] = Some(Err(StorageError::NoTopic)),
            }
        }
    }

    fn write(&self, pipeline: &mut Pipeline, message: &NewMessage, script: Option<&String>) {
        let stream = keys::stream(&message.topic);
        match (&message.idempotency, script) {
            (Some(once), Some(digest)) => {
                let remembered = keys::idempotency(&message.topic, &once.key);
                pipeline.cmd("EVALSHA").arg(digest).arg(&b"3"[..]).arg(stream).arg(remembered);
                pipeline.arg(keys::description(&message.topic));
                pipeline.arg(hex(&once.fingerprint)).arg(&self.window_ms[..]);
                pipeline.arg(message.timestamp.to_string());
            }
            _ => {
                pipeline.cmd("XADD").arg(stream);
            }
        }
        entry::write(pipeline, message, &self.max_messages);
    }

    /// Returns the script's digest if any of the messages needs it, asking the server for it the first
    /// time.
    async fn script_for(&self, open: &[(usize, NewMessage)]) -> Result<Option<Arc<String>>, StorageError> {
        if open.iter().all(|(_, message)| message.idempotency.is_none()) {
            return Ok(None);
        }
        if let Some(digest) = self.script.load_full() {
            return Ok(Some(digest));
        }
        let mut pipeline = glide::pipe();
        pipeline.cmd("SCRIPT").arg("LOAD").arg(scripts::APPEND_ONCE);
        // Loading has no effect on messages, so it counts as a read.
        let reply = match self.role.run_one(&pipeline, Effect::Read).await {
            Err(StorageError::Unavailable(cause)) if self.role.is_up() => {
                return Err(StorageError::Unavailable(Failure::NoScripts(cause.to_string()).into()));
            }
            other => other?,
        };
        let digest = bytes_of(reply).and_then(|bytes| String::from_utf8(bytes.to_vec()).ok());
        let digest = Arc::new(digest.ok_or_else(|| unexpected("SCRIPT LOAD", Effect::Read))?);
        self.script.store(Some(digest.clone()));
        Ok(Some(digest))
    }

    /// Creates the topics of messages that found none; returns the messages that can be sent again.
    async fn create_topics(
        &self,
        again: Vec<(usize, NewMessage)>,
        outcomes: &mut [Option<Outcome>],
    ) -> Vec<(usize, NewMessage)> {
        let mut wanted: Vec<(TopicName, Timestamp)> = Vec::new();
        let mut seen = HashSet::new();
        for (_, message) in &again {
            if seen.insert(&message.topic) {
                wanted.push((message.topic.clone(), message.timestamp));
            }
        }
        if wanted.is_empty() {
            return again;
        }
        let results = self.creator.create_all(&wanted, &TopicUpdate::default()).await;
        let results: HashMap<TopicName, _> =
            wanted.into_iter().map(|(topic, _)| topic).zip(results).collect();
        let mut sendable = Vec::with_capacity(again.len());
        for (place, message) in again {
            match results.get(&message.topic) {
                Some(Err(error)) => outcomes[place] = Some(Err(not_created(error))),
                _ => sendable.push((place, message)),
            }
        }
        sendable
    }
}

/// Decides the messages that need the script, which is not to be had, and returns the others.
fn refuse_scripted(
    open: Vec<(usize, NewMessage)>,
    outcomes: &mut [Option<Outcome>],
    error: &StorageError,
) -> Vec<(usize, NewMessage)> {
    let (scripted, plain): (Vec<_>, Vec<_>) =
        open.into_iter().partition(|(_, message)| message.idempotency.is_some());
    for (place, _) in scripted {
        outcomes[place] = Some(Err(StorageError::Unavailable(Failure::Shared(causes_of(error)).into())));
    }
    plain
}

/// Decides every message of a pipeline that failed as a whole.
fn fail(open: Vec<(usize, NewMessage)>, outcomes: &mut [Option<Outcome>], error: &StorageError) {
    for (place, _) in open {
        outcomes[place] = Some(Err(same(error)));
    }
}

/// Returns the names of the topics of a pipeline, once each, as a doorbell tells them.
fn topics_of(open: &[(usize, NewMessage)]) -> String {
    let mut names: Vec<&str> = open.iter().map(|(_, message)| message.topic.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    names.join(" ")
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A message whose topic could not be created was not appended, whatever became of the topic.
fn not_created(error: &StorageError) -> StorageError {
    let cause = || Failure::NotCreated(causes_of(error)).into();
    match error {
        StorageError::TopicsLimit => StorageError::TopicsLimit,
        StorageError::NotATopic => StorageError::NotATopic,
        StorageError::Overloaded => StorageError::Overloaded,
        StorageError::Full(_) => StorageError::Full(cause()),
        StorageError::Unavailable(_) | StorageError::Indeterminate(_) => StorageError::Unavailable(cause()),
        StorageError::NoTopic | StorageError::TopicExists | StorageError::KeyReused => StorageError::NoTopic,
    }
}

fn read_reply(message: &NewMessage, reply: ValkeyValue) -> Reading {
    match reply {
        ValkeyValue::Nil => Reading::NoTopic,
        ValkeyValue::ServerError(error) => Reading::Done(Err(of_reply(&error))),
        ValkeyValue::Array(parts) if message.idempotency.is_some() => read_script_reply(parts),
        reply => Reading::Done(match read_id(&reply) {
            Some(id) => Ok(Appended { id, timestamp: message.timestamp, replayed: false }),
            None => Err(unexpected("XADD", Effect::Write)),
        }),
    }
}

fn read_script_reply(parts: Vec<ValkeyValue>) -> Reading {
    let mut parts = parts.into_iter();
    let replayed = match parts.next() {
        Some(ValkeyValue::Int(0)) => false,
        Some(ValkeyValue::Int(1)) => true,
        Some(ValkeyValue::Int(2)) => return Reading::Done(Err(StorageError::KeyReused)),
        Some(ValkeyValue::Int(3)) => return Reading::NoTopic,
        _ => return Reading::Done(Err(unexpected("EVALSHA", Effect::Write))),
    };
    let id: Option<MessageId> = parts.next().as_ref().and_then(read_id);
    let timestamp = parts
        .next()
        .and_then(bytes_of)
        .and_then(|text| Timestamp::parse(std::str::from_utf8(&text).ok()?).ok());
    Reading::Done(match (id, timestamp) {
        (Some(id), Some(timestamp)) => Ok(Appended { id, timestamp, replayed }),
        _ => Err(unexpected("EVALSHA", Effect::Write)),
    })
}
