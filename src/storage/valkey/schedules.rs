//! What waits for later in topics: how it gets there, is listed, and is taken out.
//!
//! The sorted set of a topic is what makes a message wait. An index says in which topics something is due when; it is a
//! hint, which whoever schedules lowers and whoever publishes mends, and a sweep looks at all.

use std::collections::HashMap;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use tidemill_proto::topics::TopicUpdate;
use tidemill_proto::{Delivery, MessageId, ScheduleId, Timestamp, TopicName};
use tokio::time::{Instant, timeout};

use super::cluster::others::Others;
use super::failure::{Effect, of_reply, refuses_writes, same, unexpected};
use super::new_topic::NewTopic;
use super::resp::Bounds;
use super::scripted::{Answer, Argument, Call};
use super::scripts::Script;
use super::sending::not_created;
use super::topics::Creator;
use super::{Shard, scripts, waiting_body};
use crate::chance::random;
use crate::storage::{
    DuePlace, HELD_TIMES, NewMessage, NewSchedule, Scheduled, StorageError, TopicPolicy, WaitingMessage,
    WaitingPage, WaitingRange,
};

/// How often a schedule is tried again whose topic had to be made: as an append.
const ROUNDS_MAX: usize = 4;
/// Names of the index that are counted in one step.
const CHUNK: usize = 256;
/// How long a count of what waits is good, where the limit seems to be reached.
const COUNTED_FOR: Duration = Duration::from_secs(1);
/// How long one of several servers may take to count what waits at it, for a message that is to wait at another.
const COUNTED_WITHIN: Duration = Duration::from_millis(250);
/// Most bytes of the answer to a page: bodies as large as can be set, beside the bytes that were asked for.
pub(super) const PAGE_BYTES_MAX: usize = 1024 * 1024 * 1024;

/// About how much waits in all topics.
#[derive(Debug)]
pub(super) struct Waiting {
    count: AtomicU64,
    counted: Mutex<Option<Instant>>,
}

impl Waiting {
    pub(super) const fn new() -> Self {
        Self { count: AtomicU64::new(0), counted: Mutex::new(None) }
    }

    /// Notes that so many do not wait any more.
    pub(super) fn less(&self, count: u64) {
        let less = |now: u64| Some(now.saturating_sub(count));
        let _ = self.count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }
}

/// What an answer of a script about what waits says.
pub(super) enum Said<'a> {
    Well(&'a [Answer]),
    /// It says something else than that all is well.
    Other(i64, &'a [Answer]),
}

/// Reads the answer of a script about what waits, which has had these keys.
pub(super) fn said<'a>(answer: &'a Answer, keys: &[String]) -> Result<Said<'a>, StorageError> {
    match answer {
        Answer::Error(text) => Err(of_reply(text.clone())),
        Answer::Several(parts) => match parts.split_first() {
            Some((Answer::Number(0), rest)) => Ok(Said::Well(rest)),
            Some((Answer::Number(1), _)) => Err(StorageError::NoTopic),
            Some((Answer::Number(2), _)) => Err(StorageError::NotATopic),
            Some((Answer::Number(place), _)) if *place < 0 => {
                let at = usize::try_from(-place).unwrap_or(0).saturating_sub(1);
                Err(StorageError::ForeignKey(keys.get(at).map_or("", String::as_str).into()))
            }
            Some((Answer::Number(other), rest)) => Ok(Said::Other(*other, rest)),
            _ => Err(unexpected("EVALSHA", Effect::Write)),
        },
        _ => Err(unexpected("EVALSHA", Effect::Write)),
    }
}

impl Shard {
    /// Returns the keys of a script about what waits in a topic.
    pub(super) fn keys_of_waiting(&self, topic: &TopicName) -> Vec<String> {
        let [due, bodies, recurring] = self.keys.schedules(topic);
        vec![self.keys.stream(topic), due, bodies, recurring]
    }

    pub(super) fn creator(&self) -> Creator {
        let (change, indexes) = (self.change.clone(), self.indexes.clone());
        Creator::new(change, indexes, self.doorbell.clone(), self.keys, self.limits.topics_max)
    }

    /// Keeps messages to be published later.
    pub(super) async fn schedule(&self, batch: Vec<NewSchedule>) -> Vec<Result<Scheduled, StorageError>> {
        if batch.is_empty() {
            return Vec::new();
        }
        if let Err(error) = self.check_room(batch.len()).await {
            return batch.iter().map(|_| Err(same(&error))).collect();
        }
        let mut results: Vec<Option<Result<Scheduled, StorageError>>> = batch.iter().map(|_| None).collect();
        let bodies: Vec<Vec<u8>> =
            batch.iter().map(|new| waiting_body::write(&new.message.body, new.ttl)).collect();
        for round in 0..ROUNDS_MAX {
            let open: Vec<usize> = (0..batch.len()).filter(|at| results[*at].is_none()).collect();
            if open.is_empty() {
                break;
            }
            if round > 0 {
                self.create_for(&batch, &open, &mut results).await;
            }
            let open: Vec<usize> = open.into_iter().filter(|at| results[*at].is_none()).collect();
            self.schedule_once(&batch, &bodies, &open, &mut results).await;
        }
        for (new, result) in batch.iter().zip(&mut results) {
            if let Some(Err(StorageError::IdsUsedUp)) = result {
                *result = Some(Err(self.refusal_of(&new.message.topic).await));
            }
        }
        let kept = results.iter().filter(|result| matches!(result, Some(Ok(new)) if !new.replayed)).count();
        self.waiting.count.fetch_add(kept as u64, Ordering::Relaxed);
        let gone = || Err(StorageError::NoTopic);
        results.into_iter().map(|result| result.unwrap_or_else(gone)).collect()
    }

    /// Tries to keep those of the messages that are open. Those whose topic is to be made stay open.
    async fn schedule_once(
        &self,
        batch: &[NewSchedule],
        bodies: &[Vec<u8>],
        open: &[usize],
        results: &mut [Option<Result<Scheduled, StorageError>>],
    ) {
        let calls: Vec<Call<'_>> = open.iter().map(|at| self.call_of(&batch[*at], &bodies[*at])).collect();
        let answers = self.publish.call(&scripts::SCHEDULE, &calls, &[], None, Effect::Write).await;
        let answers = match answers {
            Ok(answers) => answers,
            Err(error) => {
                for at in open {
                    results[*at] = Some(Err(same(&error)));
                }
                return;
            }
        };
        let mut first: HashMap<&TopicName, u64> = HashMap::new();
        for ((at, answer), call) in open.iter().zip(&answers).zip(&calls) {
            if matches!(answer, Answer::Error(text) if refuses_writes(text)) {
                self.publish.suspect();
            }
            let result = scheduled(answer, &call.keys);
            if let Ok(Scheduled { due, replayed: false, .. }) = &result {
                let due = due.as_millis();
                let of_topic = first.entry(&batch[*at].message.topic);
                of_topic.and_modify(|first| *first = due.min(*first)).or_insert(due);
            }
            let is_to_be_made =
                matches!(result, Err(StorageError::NoTopic)) && batch[*at].message.create_topic;
            results[*at] = Some(result).filter(|_| !is_to_be_made);
        }
        let first: Vec<_> = first.into_iter().collect();
        self.note_due(&first).await;
    }

    fn call_of<'a>(&self, new: &'a NewSchedule, body: &'a [u8]) -> Call<'a> {
        let NewSchedule { message, delivery, .. } = new;
        let [due, bodies, _] = self.keys.schedules(&message.topic);
        let mut keys = vec![self.keys.stream(&message.topic), due, bodies];
        let (how, ms): (&[u8], u64) = match delivery {
            Delivery::After(delay) => (b"after", u64::try_from(delay.as_millis()).unwrap_or(u64::MAX)),
            Delivery::At(at) => (b"at", at.as_millis()),
        };
        let mut arguments = vec![
            Argument::Bytes(how),
            Argument::Number(ms),
            Argument::Bytes(body),
            Argument::Text(format!("{:08x}", random() & 0xffff_ffff)),
            Argument::Number(self.limits.topic_schedules_max),
        ];
        if let Some(once) = &message.idempotency {
            keys.push(self.keys.idempotency(&message.topic, &once.key));
            let window = u64::try_from(self.limits.idempotency_window.as_millis()).unwrap_or(u64::MAX);
            arguments.push(Argument::Text(hex::encode(once.fingerprint)));
            arguments.push(Argument::Number(window));
        }
        Call { keys, arguments }
    }

    /// Notes in the index that something is due in topics. Should this be lost, the next sweep notes it.
    pub(super) async fn note_due(&self, due: &[(&TopicName, u64)]) {
        if let Err(error) = self.indexes.schedules.note(due).await {
            let error = &error as &dyn std::error::Error;
            tracing::debug!(error, "what is due is not in the index until the next sweep");
        }
    }

    /// Makes the topics of messages that found none.
    async fn create_for(
        &self,
        batch: &[NewSchedule],
        open: &[usize],
        results: &mut [Option<Result<Scheduled, StorageError>>],
    ) {
        let mut wanted: Vec<NewTopic> = Vec::new();
        for at in open {
            let NewMessage { topic, owner, timestamp, .. } = &batch[*at].message;
            if !wanted.iter().any(|new| new.topic == *topic) {
                let (topic, owner) = (topic.clone(), owner.clone());
                wanted.push(NewTopic { topic, created_at: *timestamp, owner });
            }
        }
        let made = self.creator().create_all(&wanted, &TopicUpdate::default()).await;
        for (new, made) in wanted.iter().zip(made) {
            let Err(error) = made else { continue };
            for at in open.iter().filter(|at| batch[**at].message.topic == new.topic) {
                results[*at] = Some(Err(not_created(&error)));
            }
        }
    }

    /// Checks that so many more may wait. What other nodes have scheduled meanwhile counts from the next count on.
    pub(super) async fn check_room(&self, more: usize) -> Result<(), StorageError> {
        let max = self.limits.schedules_max;
        let beside = self.others.as_ref().map_or_else(Vec::new, Others::shards);
        let beside: Vec<_> =
            beside.iter().map(|shard| &**shard).filter(|shard| !ptr::eq(*shard, self)).collect();
        let count = |shard: &Self| shard.waiting.count.load(Ordering::Relaxed);
        let waiting = || beside.iter().map(|shard| count(shard)).sum::<u64>().saturating_add(count(self));
        let is_over = || waiting().saturating_add(more as u64) > max;
        let is_due = || self.waiting.counted.lock().is_none_or(|at| at.elapsed() > COUNTED_FOR);
        if is_over() && is_due() {
            self.count_waiting().await?;
            // One that does not tell at once counts as it did last.
            join_all(beside.iter().map(|shard| timeout(COUNTED_WITHIN, shard.count_waiting()))).await;
        }
        if is_over() { Err(StorageError::SchedulesLimit) } else { Ok(()) }
    }

    /// Returns the messages of a topic that wait.
    pub(super) async fn waiting(
        &self,
        topic: &TopicName,
        range: WaitingRange,
    ) -> Result<WaitingPage, StorageError> {
        let WaitingRange { after, limit, bytes_max } = range;
        let (due, id) =
            after.map_or((0, String::new()), |DuePlace { due, id }| (due.as_millis(), id.to_string()));
        let arguments = vec![
            Argument::Number(limit as u64),
            Argument::Number(bytes_max as u64),
            Argument::Number(due),
            Argument::Text(id),
        ];
        let mut keys = self.keys_of_waiting(topic);
        keys.truncate(3);
        let call = Call { keys, arguments };
        let bounds = Bounds { bytes: PAGE_BYTES_MAX, elements: 16 + limit * 3, pass_over: false };
        let answers = self
            .page
            .connection()
            .call(&scripts::WAITING_PAGE, &[call], &[], Some(bounds), Effect::Read)
            .await?;
        let keys = self.keys_of_waiting(topic);
        let mut page = WaitingPage::default();
        match said(answers.first().unwrap_or(&Answer::Nothing), &keys)? {
            Said::Well([Answer::Number(more), found @ ..]) => {
                for one in found.chunks_exact(3) {
                    page.messages.extend(waiting_message(one));
                }
                if *more == 1 {
                    // Also where the last is none of the relay's.
                    page.next = found.rchunks_exact(3).find_map(waiting_place);
                }
                Ok(page)
            }
            Said::Well(_) | Said::Other(..) => Err(unexpected("EVALSHA", Effect::Read)),
        }
    }

    /// Takes a message out of those that wait.
    pub(super) async fn cancel(&self, topic: &TopicName, id: &ScheduleId) -> Result<bool, StorageError> {
        let mut keys = self.keys_of_waiting(topic);
        keys.truncate(3);
        let call = Call { keys, arguments: vec![Argument::Bytes(id.as_str().as_bytes())] };
        let removed = self.change_waiting(&scripts::CANCEL, call).await?.first().and_then(Answer::number);
        self.waiting.less(removed.unwrap_or(0));
        Ok(removed == Some(1))
    }

    /// Publishes a message that waits now.
    pub(super) async fn publish_now(
        &self,
        topic: &TopicName,
        id: &ScheduleId,
        policy: TopicPolicy,
    ) -> Result<Option<MessageId>, StorageError> {
        let mut keys = self.keys_of_waiting(topic);
        keys.truncate(3);
        keys.push(self.keys.description(topic));
        let mut arguments = vec![Argument::Bytes(id.as_str().as_bytes())];
        arguments.extend(arguments_of(policy));
        let call = Call { keys, arguments };
        let changing = self.doorbell.changing([topic]);
        let said = match self.change_waiting(&scripts::PUBLISH_NOW, call).await {
            Err(StorageError::IdsUsedUp) => return Err(self.refusal_of(topic).await),
            said => said?,
        };
        let published = said.first().and_then(Answer::text).and_then(|text| MessageId::parse(text).ok());
        changing.answered(published.map(|_| topic));
        if published.is_some() {
            self.waiting.less(1);
            self.ring(&[topic]).await;
        }
        Ok(published)
    }

    /// Calls a script that changes what waits in a topic, and returns what it answers where all is well.
    pub(super) async fn change_waiting(
        &self,
        script: &Script,
        call: Call<'_>,
    ) -> Result<Vec<Answer>, StorageError> {
        let answers =
            self.publish.call(script, std::slice::from_ref(&call), &[], None, Effect::Write).await?;
        match said(answers.first().unwrap_or(&Answer::Nothing), &call.keys)? {
            Said::Well(rest) => Ok(rest.to_vec()),
            Said::Other(13, _) => Err(StorageError::SchedulesLimit),
            // It has ended, which is looked up.
            Said::Other(14, _) => Err(StorageError::IdsUsedUp),
            Said::Other(..) => Err(unexpected("EVALSHA", Effect::Write)),
        }
    }

    /// Counts what waits in all topics.
    pub(super) async fn count_waiting(&self) -> Result<u64, StorageError> {
        let mut count = 0;
        let mut first = 0;
        loop {
            let (names, has_more) = self.indexes.schedules.near_ranked(first, CHUNK).await?;
            let names: Vec<TopicName> = names.into_iter().filter(|name| self.has(name)).collect();
            for names in names.chunks(CHUNK) {
                let call = |name: &TopicName| {
                    let [due, ..] = self.keys.schedules(name);
                    Call { keys: vec![due], arguments: Vec::new() }
                };
                let calls: Vec<Call<'_>> = names.iter().map(call).collect();
                let counts = self.publish.call(&scripts::COUNT_IN, &calls, &[], None, Effect::Read).await?;
                count += counts.iter().filter_map(Answer::number).sum::<u64>();
            }
            if !has_more {
                self.waiting.count.store(count, Ordering::Relaxed);
                *self.waiting.counted.lock() = Some(Instant::now());
                return Ok(count);
            }
            first += CHUNK;
        }
    }
}

/// Returns the arguments of a script that publishes under a policy.
pub(super) fn arguments_of(policy: TopicPolicy) -> [Argument<'static>; 4] {
    let age = policy.age.map(|age| age.as_millis().to_string());
    let [times, times_bytes, _] = HELD_TIMES.map(Argument::Number);
    [Argument::Number(policy.number), times, times_bytes, Argument::Text(age.unwrap_or_default())]
}

fn scheduled(answer: &Answer, keys: &[String]) -> Result<Scheduled, StorageError> {
    let read = |id: &Answer, due: &Answer| {
        let id = ScheduleId::parse(id.text()?).ok()?;
        Some((id, due.number()?))
    };
    match said(answer, keys)? {
        Said::Well([id, due, now]) => {
            let (Some((id, due)), Some(now)) = (read(id, due), now.number()) else {
                return Err(unexpected("EVALSHA", Effect::Write));
            };
            let due_in = Duration::from_millis(due.saturating_sub(now));
            Ok(Scheduled { id, due: Timestamp::from_millis(due), due_in, replayed: false })
        }
        Said::Other(10, [id, due]) => match read(id, due) {
            Some((id, due)) => {
                let due = Timestamp::from_millis(due);
                Ok(Scheduled { id, due, due_in: Duration::ZERO, replayed: true })
            }
            // The key is that of a message that was published at once, so of another.
            None => Err(StorageError::KeyReused),
        },
        Said::Other(11, _) => Err(StorageError::KeyReused),
        Said::Other(12, _) => Err(StorageError::ForeignKey(keys.last().map_or("", String::as_str).into())),
        Said::Other(13, _) => Err(StorageError::SchedulesLimit),
        // It has ended, which is looked up.
        Said::Other(14, _) => Err(StorageError::IdsUsedUp),
        Said::Well(_) | Said::Other(..) => Err(unexpected("EVALSHA", Effect::Write)),
    }
}

fn waiting_place(one: &[Answer]) -> Option<DuePlace> {
    let [id, due, ..] = one else { return None };
    Some(DuePlace { due: Timestamp::from_millis(due.number()?), id: ScheduleId::parse(id.text()?).ok()? })
}

fn waiting_message(one: &[Answer]) -> Option<WaitingMessage> {
    let DuePlace { due, id } = waiting_place(one)?;
    let (body, ttl) = waiting_body::read(one.get(2)?.bytes()?)?;
    Some(WaitingMessage { id, due, body, ttl })
}
