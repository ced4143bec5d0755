//! Sending: turns a batch of messages into one pipeline and its replies into outcomes.
//!
//! A server of a cluster may say that a topic lives elsewhere: the message was not appended then, and is handed on (see
//! `lanes::detour`).
//!
//! One rare reply is mended and the message is sent again: a topic that does not exist is created if it
//! may be. A pipeline that needs the script loads it in front, always, so that it never waits for the
//! script and a server that has forgotten it changes no order: messages that were sent later, or sent
//! again, would come after those of the pipeline behind.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sha1::{Digest as _, Sha1};
use tidemill_proto::locks::Guarded;
use tidemill_proto::topics::TopicUpdate;
use tidemill_proto::{MessageId, TopicName};

use super::acked::Acked;
use super::cluster::seat::Seat;
use super::doorbell::Doorbell;
use super::entry;
use super::failure::{Effect, Failure, Redirect, causes_of, of_reply, refuses_writes, same, unexpected};
use super::keys::Keys;
use super::new_topic::NewTopic;
use super::notice::notices;
use super::pipeline::{Outcome, Pipeline, PipelineResult};
use super::refusing::Refusing;
use super::resp::{Reply, Request, RespConnection};
use super::supervised::{Supervised, goes_down};
use super::topics::Creator;
use super::trimming::{self, Countdowns};
use super::{keys, runs, scripts};
use crate::clock::Clock;
use crate::storage::{Appended, NewMessage, StorageError, TopicPolicy};
pub(super) use deciding::not_created;
use deciding::{fail, is_made, scripts_of};
use replies::{AppendReply, read_id, read_script_reply};

mod deciding;
mod replies;

/// How often a message is sent again after something was mended. A topic that is deleted as fast as
/// it is created must not hold the lane for ever.
const ROUNDS_MAX: usize = 4;
/// Room in a request for what stands in front of messages and behind them.
const REQUEST_BYTES: usize = 2 * 1024;

/// Sends batches over the publishing connection.
#[derive(Debug)]
pub(super) struct Sender {
    connection: Arc<Supervised<RespConnection>>,
    creator: Creator,
    /// The digests by which the server knows the scripts: of a key, of a condition, and of a unique key.
    once: String,
    conditional: String,
    unique: String,
    doorbell: Arc<Doorbell>,
    keys: Keys,
    clock: Clock,
    window_ms: u64,
    /// When topics are trimmed.
    countdowns: Countdowns,
    /// Which topics refuse what has no room.
    refusing: Arc<Refusing>,
    /// Whether the server knows the script that trims.
    knows_trim: AtomicBool,
    /// In a cluster, where topics live.
    seat: Option<Arc<Seat>>,
    acked: Arc<Acked>,
}

/// How a server is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// As the one that has the slot.
    Plainly,
    /// As the one that gets it, which takes for that what is said so, and only that.
    Asking,
}

impl Sender {
    pub(super) fn new(
        connection: Arc<Supervised<RespConnection>>,
        creator: Creator,
        doorbell: Arc<Doorbell>,
        keys: Keys,
        clock: Clock,
        window: Duration,
        seat: Option<Arc<Seat>>,
    ) -> Self {
        Self {
            connection,
            creator,
            doorbell,
            keys,
            once: format!("{:x}", Sha1::digest(scripts::APPEND_ONCE)),
            conditional: format!("{:x}", Sha1::digest(scripts::APPEND_IF)),
            unique: format!("{:x}", Sha1::digest(scripts::APPEND_UNIQUE)),
            clock,
            window_ms: u64::try_from(window.as_millis()).unwrap_or(u64::MAX),
            countdowns: Countdowns::new(),
            refusing: Arc::new(Refusing::new()),
            knows_trim: AtomicBool::new(false),
            seat,
            acked: Arc::default(),
        }
    }

    /// Returns what the server has confirmed.
    pub(super) fn acked(&self) -> Arc<Acked> {
        self.acked.clone()
    }

    /// Returns what it knows of topics that refuse what has no room.
    pub(super) fn refusing(&self) -> Arc<Refusing> {
        self.refusing.clone()
    }

    /// Creates the topics of messages that found none, sends these again, and returns an outcome for
    /// each.
    async fn create_and_send(&self, messages: Vec<NewMessage>) -> Vec<Outcome> {
        let mut result = PipelineResult::open(messages.len());
        result.again = messages.into_iter().enumerate().collect();
        for _ in 1..ROUNDS_MAX {
            let again = std::mem::take(&mut result.again);
            let open = self.create_topics(again, &mut result.outcomes).await;
            self.send_once(open, &mut result, Asked::Plainly).await;
            if result.again.is_empty() {
                break;
            }
        }
        for (place, _) in result.again {
            result.outcomes[place] = Some(Err(StorageError::Unavailable(Failure::deleted_at_once().into())));
        }
        let (places, messages): (Vec<_>, Vec<_>) = result.elsewhere.into_iter().unzip();
        if !messages.is_empty() {
            for (place, outcome) in places.into_iter().zip(self.hand_on(messages).await) {
                result.outcomes[place] = Some(outcome);
            }
        }
        result.outcomes.into_iter().map(|outcome| outcome.expect("every message was decided")).collect()
    }

    /// Sends messages, and says in `result` what came of them.
    pub(super) async fn send_once(
        &self,
        open: Vec<(usize, NewMessage)>,
        result: &mut PipelineResult,
        asked: Asked,
    ) {
        if open.is_empty() {
            return;
        }
        let outcomes = &mut result.outcomes;
        let told = result.appended.len();
        let due = self.due(&open);
        let bounded: HashSet<TopicName> = self.bounded(&open);
        let mut loads = scripts_of(&open);
        if open.iter().any(|(_, message)| message.fence.is_some()) {
            loads.push(scripts::APPEND_FENCED.text());
        }
        if !bounded.is_empty() {
            loads.push(scripts::APPEND_BOUNDED.text());
        }
        if !due.is_empty() && !self.knows_trim.swap(true, Ordering::Relaxed) {
            loads.push(scripts::TRIM_TOPIC.text());
        }
        let request = self.request(&open, &loads, &bounded, &due, asked);
        let replies = match self.connection.exchange(&request, Effect::Write).await {
            Ok(replies) => replies,
            Err(error) => {
                if matches!(error, StorageError::Indeterminate(_)) {
                    self.doorbell.tell_unanswered(open.iter().map(|(_, message)| &message.topic));
                }
                self.trim_again(due.into_iter().map(|(topic, _)| topic));
                return fail(open, outcomes, &error);
            }
        };
        let mut replies = replies.iter();
        let loaded = replies.by_ref().take(loads.len());
        let not_loaded = loaded.fold(None, |first, reply| first.or_else(|| reply.error()));
        // Those of trims and of the doorbell come last, and may fail: a later append trims again, and a notice is a
        // hint.
        let without_ids = self.take_replies(open, &mut replies, not_loaded.as_deref(), asked, result);
        for (topic, _) in due {
            match replies.next() {
                Some(Reply::Error(text)) if text.starts_with(b"NOSCRIPT") => {
                    self.trim_again(std::iter::once(topic));
                }
                Some(Reply::Array(mut parts)) => {
                    let refuses = parts.nth(1).and_then(|refuses| refuses.integer());
                    self.refusing.note(&topic, refuses == Some(1));
                }
                _ => {}
            }
        }
        self.doorbell.tell(&result.appended[told..]);
        if !without_ids.is_empty() {
            self.explain(without_ids, &mut result.outcomes).await;
        }
    }

    /// Reads what came of messages. Returns those, by their topics, that give no more ids.
    fn take_replies<'a>(
        &self,
        open: Vec<(usize, NewMessage)>,
        replies: &mut impl Iterator<Item = Reply<'a>>,
        not_loaded: Option<&str>,
        asked: Asked,
        result: &mut PipelineResult,
    ) -> Vec<(usize, TopicName)> {
        let mut without_ids = Vec::new();
        let mut notes = self.acked.notes();
        // Of a row of one topic, the last: its topic is then the last that was appended to.
        let mut last = None;
        for (place, message) in open {
            if asked == Asked::Asking {
                replies.next();
            }
            match self.read_reply(&message, replies.next(), not_loaded) {
                AppendReply::Done(Err(StorageError::IdsUsedUp)) => without_ids.push((place, message.topic)),
                AppendReply::Done(outcome) => {
                    if let Ok(appended) = &outcome {
                        let is_late = |(_, earlier): &mut (usize, NewMessage)| earlier.topic == message.topic;
                        for (place, _) in result.elsewhere.extract_if(.., is_late) {
                            result.outcomes[place] =
                                Some(Err(StorageError::Unavailable(Failure::Overtaken.into())));
                        }
                        if result.appended.last() != Some(&message.topic) {
                            notes.note_of(result.appended.last(), last.take());
                            result.appended.push(message.topic);
                        }
                        last = last.max(Some(appended.id));
                    }
                    result.outcomes[place] = Some(outcome);
                }
                AppendReply::Elsewhere => result.elsewhere.push((place, message)),
                // Where there is no topic there is no group, and none is made for the message.
                AppendReply::NoTopic if message.unique.is_some() => {
                    result.outcomes[place] = Some(Err(StorageError::NoGroup));
                }
                AppendReply::NoTopic if message.create_topic => match message.expected_last {
                    // The topic is not made for a message that it will not take, unless another makes it.
                    Some(last) if last != MessageId::MIN && !is_made(&result.again, &message.topic) => {
                        result.outcomes[place] = Some(Err(StorageError::NotLast(MessageId::MIN)));
                    }
                    _ => result.again.push((place, message)),
                },
                AppendReply::NoTopic => result.outcomes[place] = Some(Err(StorageError::NoTopic)),
            }
        }
        notes.note_of(result.appended.last(), last);
        without_ids
    }

    /// Decides messages whose topics give no more ids: mostly because they have ended, which is looked up.
    async fn explain(&self, without_ids: Vec<(usize, TopicName)>, outcomes: &mut [Option<Outcome>]) {
        let topics: HashSet<&TopicName> = without_ids.iter().map(|(_, topic)| topic).collect();
        let topics: Vec<&TopicName> = topics.into_iter().collect();
        let mut request = Request::default();
        for topic in &topics {
            runs::ask(&mut request, self.keys, topic);
        }
        let replies = self.connection.exchange(&request, Effect::Read).await;
        let refusals: HashMap<&TopicName, StorageError> = match &replies {
            Ok(replies) => {
                let mut replies = replies.iter();
                topics.iter().map(|topic| (*topic, runs::refusal(&mut replies))).collect()
            }
            // Whatever the topic is by now, nothing was appended to it.
            Err(error) => {
                let cause = || Failure::Shared(causes_of(error)).into();
                topics.iter().map(|topic| (*topic, StorageError::Unavailable(cause()))).collect()
            }
        };
        for (place, topic) in &without_ids {
            outcomes[*place] = refusals.get(topic).map(|error| Err(same(error)));
        }
    }

    /// Counts messages, and returns the topics that are to be trimmed behind them, with what these keep where they say
    /// nothing themselves.
    fn due(&self, open: &[(usize, NewMessage)]) -> Vec<(TopicName, TopicPolicy)> {
        let mut counts: HashMap<&TopicName, (usize, TopicPolicy)> = HashMap::new();
        for row in open.chunk_by(|(_, one), (_, next)| one.topic == next.topic) {
            let Some((_, last)) = row.last() else { continue };
            let (count, policy) = counts.entry(&last.topic).or_insert((0, last.policy));
            (*count, *policy) = (*count + row.len(), last.policy);
        }
        let is_due = |topic: &TopicName, count| {
            let is_due = self.countdowns.count(topic, count);
            is_due || self.refusing.is_new(topic)
        };
        let due = counts.into_iter().filter(|(topic, (count, _))| is_due(topic, *count));
        due.map(|(topic, (_, policy))| (topic.clone(), policy)).collect()
    }

    /// Returns the topics that refuse what has no room, as far as is known. Mostly there are none.
    fn bounded(&self, open: &[(usize, NewMessage)]) -> HashSet<TopicName> {
        let rows = open.chunk_by(|(_, one), (_, next)| one.topic == next.topic);
        let topics = rows.filter_map(|row| row.first()).map(|(_, message)| &message.topic);
        topics.filter(|topic| self.refusing.has(topic)).cloned().collect()
    }

    /// Has topics be trimmed behind the next message, which have not been: the server may have forgotten the script.
    fn trim_again(&self, topics: impl Iterator<Item = TopicName>) {
        for topic in topics {
            self.knows_trim.store(false, Ordering::Relaxed);
            self.countdowns.again(&topic);
        }
    }

    /// Returns the scripts that are needed, the messages, what trims topics, and notices of the doorbell.
    fn request(
        &self,
        open: &[(usize, NewMessage)],
        loads: &[&str],
        bounded: &HashSet<TopicName>,
        due: &[(TopicName, TopicPolicy)],
        asked: Asked,
    ) -> Request {
        let notices = notices(self.doorbell.signature(), open.iter().map(|(_, message)| &message.topic));
        let bytes: usize = open.iter().map(|(_, message)| entry::append_bytes(message)).sum();
        let mut request =
            Request::with_capacity(bytes + notices.iter().map(String::len).sum::<usize>() + REQUEST_BYTES);
        for script in loads {
            request.add(&[b"SCRIPT", b"LOAD", script.as_bytes()]);
        }
        for (_, message) in open {
            if asked == Asked::Asking {
                request.add(&[b"ASKING"]);
            }
            if let Some(unique) = &message.unique {
                let script = (self.unique.as_bytes(), self.window_ms);
                entry::append_unique(&mut request, self.keys, message, unique, script);
                continue;
            }
            if let Some(fence) = &message.fence {
                entry::append_fenced(&mut request, self.keys, message, fence, self.window_ms);
                continue;
            }
            if !bounded.is_empty() && bounded.contains(&message.topic) {
                entry::append_bounded(&mut request, self.keys, message, self.window_ms);
                continue;
            }
            match (&message.idempotency, message.expected_last) {
                (_, Some(last)) => {
                    let script = (self.conditional.as_bytes(), self.window_ms);
                    entry::append_if(&mut request, self.keys, message, last, script);
                }
                (Some(once), None) => {
                    let script = (self.once.as_bytes(), self.window_ms);
                    entry::append_once(&mut request, self.keys, message, once, script);
                }
                (None, None) => entry::append(&mut request, self.keys, message),
            }
        }
        for (topic, policy) in due {
            trimming::add(&mut request, self.keys, topic, policy);
        }
        for (topic, before) in self.aged(open) {
            let mut command = request.begin(5);
            command.arg(b"XTRIM").joined(&self.keys.stream_parts(topic));
            command.arg(b"MINID").arg(b"=").arg(before.to_string().as_bytes());
        }
        for notice in notices {
            self.doorbell.add_ring(&mut request, &notice);
        }
        request
    }

    /// Returns the topics that are trimmed by age behind these messages, each with the id that is the first
    /// to stay. Hardly any has such a policy.
    fn aged<'a>(&self, open: &'a [(usize, NewMessage)]) -> HashMap<&'a TopicName, MessageId> {
        let mut aged = HashMap::new();
        let of_age = open.iter().filter_map(|(_, message)| Some((&message.topic, message.policy.age?)));
        for (topic, age) in of_age {
            let now = self.connection.server_time(&self.clock);
            aged.insert(topic, MessageId::new(now.saturating_sub(age).as_millis(), 0));
        }
        aged
    }

    /// Decides what a reply means for its message. A server that takes no writes is looked at.
    /// `not_loaded` is why the server has not taken the script, if it has not.
    fn read_reply(
        &self,
        message: &NewMessage,
        reply: Option<Reply<'_>>,
        not_loaded: Option<&str>,
    ) -> AppendReply {
        match reply {
            Some(Reply::Nil) => AppendReply::NoTopic,
            Some(Reply::Error(text)) => {
                let text = String::from_utf8_lossy(text).into_owned();
                if let (true, Some(refusal)) = (text.starts_with("NOSCRIPT"), not_loaded) {
                    let cause = Failure::NoScripts(refusal.to_owned()).into();
                    return AppendReply::Done(Err(StorageError::Unavailable(cause)));
                }
                if let (Some(seat), Some(redirect)) = (&self.seat, Redirect::read(&text)) {
                    seat.heed(&redirect);
                    return AppendReply::Elsewhere;
                }
                if refuses_writes(&text) {
                    self.connection.suspect();
                }
                AppendReply::Done(Err(of_reply(text)))
            }
            Some(Reply::Array(parts)) => {
                let key = message.idempotency.as_ref().map_or("", |once| &once.key);
                read_script_reply(parts, |code| match (code, &message.fence) {
                    (9 | 10, Some(fence)) => {
                        let [held, seen] = keys::fences(Guarded::Topic(message.topic.clone()), &fence.lock);
                        if code == 9 { held } else { seen }
                    }
                    _ => self.keys.idempotency(&message.topic, key),
                })
            }
            reply => AppendReply::Done(match reply.as_ref().and_then(read_id) {
                Some(id) => Ok(Appended { id, timestamp: message.timestamp, replayed: false }),
                None => Err(unexpected("XADD", Effect::Write)),
            }),
        }
    }

    /// Creates the topics of messages that found none; returns the messages that can be sent again.
    pub(super) async fn create_topics(
        &self,
        again: Vec<(usize, NewMessage)>,
        outcomes: &mut [Option<Outcome>],
    ) -> Vec<(usize, NewMessage)> {
        let mut wanted: Vec<NewTopic> = Vec::new();
        let mut seen = HashSet::new();
        for (_, message) in &again {
            if seen.insert(&message.topic) {
                let (topic, owner) = (message.topic.clone(), message.owner.clone());
                wanted.push(NewTopic { topic, created_at: message.timestamp, owner });
            }
        }
        if wanted.is_empty() {
            return again;
        }
        let results = self.creator.create_all(&wanted, &TopicUpdate::default()).await;
        let results: HashMap<TopicName, _> = wanted.into_iter().map(|new| new.topic).zip(results).collect();
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

impl Pipeline for Sender {
    fn is_up(&self) -> bool {
        self.connection.is_up()
    }

    fn down(&self) -> Failure {
        self.connection.down()
    }

    async fn send(&self, messages: Vec<NewMessage>) -> PipelineResult {
        let mut result = PipelineResult::open(messages.len());
        self.send_once(messages.into_iter().enumerate().collect(), &mut result, Asked::Plainly).await;
        result
    }

    async fn send_again(&self, messages: Vec<NewMessage>) -> Vec<Outcome> {
        let topics: Vec<TopicName> = messages.iter().map(|message| message.topic.clone()).collect();
        tokio::select! {
            biased;
            outcomes = self.create_and_send(messages) => outcomes,
            // Without the connection that creates topics there is no answer to wait for, and what became of
            // these messages is not known.
            () = goes_down(self.creator.status()) => {
                self.doorbell.tell_unanswered(&topics);
                topics.iter().map(|_| Err(StorageError::Indeterminate(Failure::Lost.into()))).collect()
            }
        }
    }

    fn hand_on(&self, messages: Vec<NewMessage>) -> impl Future<Output = Vec<Outcome>> + Send + 'static {
        let count = messages.len();
        let handed = self.seat.as_ref().map(|seat| seat.hand_on(messages));
        async move {
            match handed {
                Some(handed) => handed.await,
                None => {
                    (0..count).map(|_| Err(StorageError::Unavailable(Failure::Unserved.into()))).collect()
                }
            }
        }
    }
}
