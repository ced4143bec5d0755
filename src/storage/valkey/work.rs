//! Groups of consumers: native groups of the stream, and what is known beside them.
//!
//! Everything is a script (see `scripts::work`), called over a connection of its own: work is never in the way of
//! appends, and what claims bring is in nobody's way.

use std::time::Duration;

use bytes::Bytes;
use tidemill_proto::work::{GroupDetail, GroupName, GroupSettings, Ordering};
use tidemill_proto::{MessageId, Timestamp, TopicName};

use super::Shard;
use super::calls::Call;
use super::entry::{self, read_id};
use super::failure::{Effect, unexpected};
use super::keys::sortable;
use super::marker::new_epoch;
use super::resp::{Parts, Reply};
use super::scripts::{self, Script};
use replies::{Dead, Facts, epoch_of, number, read_detail, read_fate, text, time};

use crate::storage::{
    CRASHES_MAX, DeadLetter, Dying, ERROR_BYTES_MAX, Existing, Fate, GROUPS_MAX, GroupChange, GroupStart,
    HELD_BY_MAX, HELD_TIMES, OddNames, Outcome, Refusal, Revived, STEP_MESSAGES_MAX, Settlement,
    StorageError, Tended, Verdict,
};

mod claiming;
mod copying;
mod replies;

/// How the names of groups begin with which relays mark streams.
const MARKS: &[u8] = b"tidemill-";
/// Bytes of an entry for which room is left in what comes at once: far more than most have, so that however large those are
/// which come, what is held of them at one time is some hundred megabytes at the most.
const ENTRY_BYTES: usize = 256 * 1024;
/// Most bytes that one claim can bring: what was read in one step with the last message that had room.
const CLAIM_BYTES_MAX: usize = 1024 * 1024 * 1024;
/// Messages that are taken back in one step.
const LAPSED_MAX: usize = 250;
/// After how long a group is to be tended again while consumers have messages.
const TEND_EVERY_MS: u64 = 500;
/// Bytes of what is told of one group, and of one dead letter.
const DETAIL_BYTES: usize = 256 * 1024;
const DEAD_BYTES: usize = 4 * 1024;
/// Answers of scripts beside 0.
const NO_TOPIC: i64 = 1;
const NOT_A_TOPIC: i64 = 2;
const MADE: i64 = 3;
const NO_GROUP: i64 = 4;
const TOO_MANY: i64 = 5;
const CHANGED_SINCE: i64 = 6;
const HOLDS: i64 = 7;

/// A script's answer: its code, or what follows a 0.
type Answer<T> = Result<T, i64>;

/// Reads the code in front of an answer, and what follows it where that is 0.
fn behind_code<T>(reply: Reply<'_>, read: impl FnOnce(&mut Parts<'_>) -> Option<T>) -> Option<Answer<T>> {
    let Reply::Array(mut parts) = reply else { return None };
    match parts.next()?.integer()? {
        0 => read(&mut parts).map(Ok),
        code => Some(Err(code)),
    }
}

fn of_code(code: i64) -> StorageError {
    match code {
        NO_TOPIC => StorageError::NoTopic,
        NOT_A_TOPIC => StorageError::NotATopic,
        NO_GROUP => StorageError::NoGroup,
        TOO_MANY => StorageError::GroupsLimit,
        HOLDS => StorageError::GroupHolds,
        _ => unexpected("EVALSHA", Effect::Write),
    }
}

fn cut(text: &str) -> &str {
    let mut end = text.len().min(ERROR_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

fn ms_of(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Returns the fields in which scripts find a group's settings.
fn fields(settings: &GroupSettings) -> Vec<(&'static str, String)> {
    let ms = |seconds: tidemill_proto::duration::Seconds| ms_of(seconds.0).to_string();
    let or_none = |number: Option<u32>| number.map_or_else(String::new, |number| number.to_string());
    let GroupSettings {
        ack_wait,
        max_deliveries,
        max_run,
        backoff,
        max_in_flight,
        per_consumer_max,
        dead_letter: _,
        paused,
        result_ttl,
        ordering,
    } = settings;
    let backoff: Vec<String> = backoff.iter().map(|wait| ms(*wait)).collect();
    vec![
        ("document", document(settings)),
        ("ack_wait", ms(*ack_wait)),
        ("max_deliveries", max_deliveries.to_string()),
        ("max_run", max_run.map_or_else(String::new, ms)),
        ("backoff", backoff.join(",")),
        ("max_in_flight", or_none(*max_in_flight)),
        ("per_consumer_max", or_none(*per_consumer_max)),
        ("paused", if *paused { "1".to_owned() } else { String::new() }),
        ("result_ttl", ms(*result_ttl)),
        ("ordering", if *ordering == Ordering::ByKey { "1".to_owned() } else { String::new() }),
    ]
}

fn document(settings: &GroupSettings) -> String {
    serde_json::to_string(settings).expect("numbers and names can be written")
}

fn start_text(start: GroupStart) -> String {
    match start {
        GroupStart::Earliest => "0-0".to_owned(),
        GroupStart::Latest => "$".to_owned(),
        GroupStart::After(id) => id.to_string(),
    }
}

impl Shard {
    /// Returns a call about a group, with keys behind those of all.
    fn of_group(
        &self,
        (topic, group): (&TopicName, &GroupName),
        script: &'static Script,
        effect: Effect,
        behind: &[String],
        arguments: &[&str],
    ) -> Call {
        let mut keys = Vec::with_capacity(13);
        keys.push(self.keys.stream(topic));
        keys.extend(self.keys.group(topic, group));
        keys.extend_from_slice(behind);
        let mut all = Vec::with_capacity(1 + arguments.len());
        all.push(group.as_str());
        all.extend_from_slice(arguments);
        Call::new(script, effect, &keys, &all)
    }

    async fn ask<T: Send + 'static>(
        &self,
        call: Call,
        read: impl FnOnce(&mut Parts<'_>) -> Option<T> + Send + 'static,
    ) -> Result<T, StorageError> {
        let answer = self.calls.call(call, |reply| behind_code(reply, read)).await?;
        answer.map_err(of_code)
    }

    async fn set_group(
        &self,
        of: (&TopicName, &GroupName),
        (what, start, known): (&str, GroupStart, &str),
        settings: Option<&GroupSettings>,
    ) -> Result<Answer<()>, StorageError> {
        let (epoch, start, max) = (new_epoch(), start_text(start), GROUPS_MAX.to_string());
        let fields = settings.map(fields).unwrap_or_default();
        let mut arguments = vec![what, &epoch, &start, &max, known];
        arguments.extend(fields.iter().flat_map(|(name, value)| [*name, value.as_str()]));
        let groups = self.keys.groups(of.0);
        let call = self.of_group(of, &scripts::PUT_GROUP, Effect::Write, &[groups], &arguments);
        self.calls.call(call, |reply| behind_code(reply, |_| Some(()))).await
    }

    pub(super) async fn put_group(
        &self,
        topic: &TopicName,
        group: &GroupName,
        settings: &GroupSettings,
        start: GroupStart,
        existing: Existing,
    ) -> Result<bool, StorageError> {
        let what = match existing {
            Existing::Replace => "put",
            Existing::Keep => "make",
        };
        match self.set_group((topic, group), (what, start, ""), Some(settings)).await? {
            Ok(()) => Ok(false),
            Err(MADE) => Ok(true),
            Err(code) => Err(of_code(code)),
        }
    }

    pub(super) async fn change_group(
        &self,
        topic: &TopicName,
        group: &GroupName,
        change: &GroupChange,
    ) -> Result<bool, StorageError> {
        let known = change.known.as_ref().map(document).unwrap_or_default();
        let what = ("change", GroupStart::Latest, &*known);
        match self.set_group((topic, group), what, Some(&change.next)).await? {
            Ok(()) => Ok(true),
            Err(CHANGED_SINCE) => Ok(false),
            Err(code) => Err(of_code(code)),
        }
    }

    pub(super) async fn seek(
        &self,
        topic: &TopicName,
        group: &GroupName,
        to: GroupStart,
    ) -> Result<(), StorageError> {
        self.set_group((topic, group), ("seek", to, ""), None).await?.map_err(of_code)
    }

    pub(super) async fn delete_group(
        &self,
        topic: &TopicName,
        group: &GroupName,
    ) -> Result<(), StorageError> {
        let groups = self.keys.groups(topic);
        let of = (topic, group);
        let call = self.of_group(of, &scripts::DELETE_GROUP, Effect::Write, &[groups], &[]);
        self.ask(call, |_| Some(())).await
    }

    /// Returns the names of a topic's groups that can be named, in their order.
    async fn group_names(&self, topic: &TopicName) -> Result<Vec<GroupName>, StorageError> {
        let names = self.all_group_names(topic).await?;
        let mut names: Vec<GroupName> =
            names.iter().filter_map(|name| GroupName::parse(std::str::from_utf8(name).ok()?).ok()).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// Returns the others.
    pub(super) async fn odd_groups(&self, topic: &TopicName) -> Result<OddNames, StorageError> {
        let mut odd = OddNames::default();
        for name in self.all_group_names(topic).await? {
            // Marks of relays are no groups of anybody.
            if name.starts_with(MARKS) {
                continue;
            }
            let text = String::from_utf8_lossy(&name);
            if std::str::from_utf8(&name).is_err() || GroupName::parse(&text).is_err() {
                odd.add(text);
            }
        }
        Ok(odd)
    }

    async fn all_group_names(&self, topic: &TopicName) -> Result<Vec<Vec<u8>>, StorageError> {
        let stream = self.keys.stream(topic);
        let call = Call::new(&scripts::GROUP_NAMES, Effect::Read, &[&stream], &[] as &[&str])
            .replied(DETAIL_BYTES, DETAIL_BYTES);
        self.ask(call, |parts| Some(parts.filter_map(|name| Some(name.bytes()?.to_vec())).collect())).await
    }

    pub(super) async fn groups(&self, topic: &TopicName) -> Result<Vec<GroupDetail>, StorageError> {
        let mut groups = Vec::new();
        for name in self.group_names(topic).await? {
            match self.describe_group(topic, &name, true).await {
                Ok(group) => groups.push(group),
                // Deleted at this moment.
                Err(StorageError::NoGroup) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(groups)
    }

    pub(super) async fn describe_group(
        &self,
        topic: &TopicName,
        group: &GroupName,
        is_listed: bool,
    ) -> Result<GroupDetail, StorageError> {
        let held_by = if is_listed { 0 } else { HELD_BY_MAX }.to_string();
        let [_, bodies, recurring] = self.keys.schedules(topic);
        let beside = [bodies, recurring];
        let call = self
            .of_group((topic, group), &scripts::DESCRIBE_GROUP, Effect::Read, &beside, &[held_by.as_str()])
            .replied(DETAIL_BYTES, 4 * DETAIL_BYTES);
        let (topic, group) = (topic.clone(), group.clone());
        self.ask(call, |parts| read_detail(topic, group, parts)).await
    }

    pub(super) async fn settle(
        &self,
        topic: &TopicName,
        group: &GroupName,
        settlements: Vec<Settlement>,
    ) -> Result<Vec<Outcome>, StorageError> {
        let mut arguments: Vec<Bytes> =
            vec![Bytes::from(self.keys.results(topic, group)), Bytes::from(CRASHES_MAX.to_string())];
        let mut acknowledged = 0;
        for Settlement { epoch, id, delivery, verdict } in settlements {
            acknowledged += usize::from(matches!(verdict, Verdict::Ack(_)));
            let (verb, ms, text) = match verdict {
                Verdict::Ack(result) => ("ack", None, result),
                Verdict::Nack(delay, error) => {
                    ("nack", delay, error.map(|error| Bytes::from(cut(&error).to_owned())))
                }
                Verdict::Extend(wait) => ("extend", wait, None),
                Verdict::Reject(reason) => ("reject", None, Some(Bytes::from(cut(&reason).to_owned()))),
                Verdict::Release => ("release", None, None),
                Verdict::Lost { charged } => ("lost", None, charged.then(|| Bytes::from_static(b"charged"))),
            };
            let ms = ms.map_or_else(|| "-1".to_owned(), |ms| ms_of(ms).to_string());
            arguments.push(Bytes::from_static(verb.as_bytes()));
            arguments.push(Bytes::from(format!("{epoch:016x}")));
            arguments.push(Bytes::from(id.to_string()));
            arguments.push(Bytes::from(delivery.to_string()));
            arguments.push(Bytes::from(ms));
            arguments.push(text.unwrap_or_default());
        }
        let mut keys = vec![self.keys.stream(topic)];
        keys.extend(self.keys.group(topic, group));
        arguments.insert(0, Bytes::copy_from_slice(group.as_str().as_bytes()));
        let call = Call::new(&scripts::SETTLE, Effect::Write, &keys, &arguments)
            .replied(STEP_MESSAGES_MAX * 48, STEP_MESSAGES_MAX * 96);
        let settled = self
            .ask(call, |parts| {
                let mut outcomes = Vec::new();
                while let Some(code) = parts.next() {
                    let (late, until) = (parts.next()?.integer()? == 1, time(&parts.next()?)?);
                    let dying = parts.next()?.integer()? == 1;
                    outcomes.push(match code.integer()? {
                        0 => Outcome::Settled { late, until, dying },
                        1 => Outcome::Refused(Refusal::Void),
                        2 => Outcome::Refused(Refusal::DeliveredAgain),
                        3 => Outcome::Refused(Refusal::SettledBefore),
                        4 => Outcome::Refused(Refusal::MaxRun),
                        _ => return None,
                    });
                }
                Some(outcomes)
            })
            .await?;
        if acknowledged > 0 && self.acknowledged.count(topic, acknowledged) {
            self.trim_acknowledged(topic).await;
        }
        Ok(settled)
    }

    /// Removes what a topic does not keep any more, now that its groups have acknowledged more of it.
    async fn trim_acknowledged(&self, topic: &TopicName) {
        let keys = [self.keys.stream(topic), self.keys.description(topic)];
        let [times, times_bytes, _] = HELD_TIMES.map(|times| times.to_string());
        // What is set for all topics is trimmed behind what is appended.
        let call = Call::new(&scripts::TRIM_TOPIC, Effect::Write, &keys, &["", "", &times, &times_bytes]);
        // Where it fails, a later one, an append or the sweep does it.
        if let Err(error) = self.calls.call(call, |_| Some(())).await {
            let error = &error as &dyn std::error::Error;
            tracing::debug!(%topic, error, "what is acknowledged is removed later");
        }
    }

    pub(super) async fn tend(&self, topic: &TopicName, group: &GroupName) -> Result<Tended, StorageError> {
        let (max, crashes) = (LAPSED_MAX.to_string(), CRASHES_MAX.to_string());
        let call = self.of_group((topic, group), &scripts::TEND, Effect::Write, &[], &[&max, &crashes]);
        let now = self.now();
        self.ask(call, move |parts| {
            let (lapsed, ready) = (number(&parts.next()?)?, parts.next()?.integer()? == 1);
            let (next, dying) = (time(&parts.next()?)?, parts.next()?.integer()? == 1);
            let is_more = parts.next()?.integer()? == 1;
            let soon = Timestamp::from_millis(now.as_millis() + if is_more { 0 } else { TEND_EVERY_MS });
            Some(Tended { lapsed, ready, next: Some(next.map_or(soon, |next| next.min(soon))), dying })
        })
        .await
    }

    pub(super) async fn dying(
        &self,
        topic: &TopicName,
        group: &GroupName,
        limit: usize,
    ) -> Result<Vec<Dying>, StorageError> {
        let count = limit.to_string();
        let call = self
            .of_group((topic, group), &scripts::DYING, Effect::Write, &[], &[&count])
            .replied(limit * DEAD_BYTES, CLAIM_BYTES_MAX);
        self.ask(call, |parts| {
            let epoch = epoch_of(&parts.next()?)?;
            let mut dying = Vec::new();
            while let Some(id) = parts.next() {
                let id = read_id(id.bytes()?)?;
                let deliveries = number(&parts.next()?)?;
                let facts: Facts = serde_json::from_slice(parts.next()?.bytes()?).ok()?;
                let message = entry::read_all(parts.next()?)?.pop();
                dying.push(Dying {
                    id,
                    epoch,
                    message,
                    deliveries,
                    failures: facts.f,
                    crashes: facts.c,
                    reason: facts.r.unwrap_or_default(),
                    error: facts.e,
                });
            }
            Some(dying)
        })
        .await
    }

    pub(super) async fn bury(
        &self,
        topic: &TopicName,
        group: &GroupName,
        epoch: u64,
        dead: DeadLetter,
    ) -> Result<bool, StorageError> {
        let (epoch, id, sorted) = (format!("{epoch:016x}"), dead.id.to_string(), sortable(dead.id));
        let letter = dead.letter.map(|letter| letter.to_string()).unwrap_or_default();
        let arguments = [&*epoch, &id, &sorted, &letter];
        let call = self.of_group((topic, group), &scripts::BURY, Effect::Write, &[], &arguments);
        self.ask(call, |parts| Some(parts.next()?.integer()? == 1)).await
    }

    pub(super) async fn dead(
        &self,
        topic: &TopicName,
        group: &GroupName,
        after: Option<MessageId>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, StorageError> {
        let from = after.map_or_else(|| "-".to_owned(), |after| format!("({}~", sortable(after)));
        let count = limit.to_string();
        let call = self
            .of_group((topic, group), &scripts::DEAD, Effect::Read, &[], &[&from, &count])
            .replied(limit * 256, limit * DEAD_BYTES);
        self.ask(call, |parts| {
            let letter = |reply: Reply<'_>| {
                let (sorted, known) = text(&reply)?.split_once(' ')?;
                let (ms, seq) = sorted.split_once('-')?;
                let id = MessageId::new(ms.parse().ok()?, seq.parse().ok()?);
                let known: Dead = serde_json::from_str(known).ok()?;
                Some(DeadLetter { id, letter: read_id(known.l.as_bytes()) })
            };
            parts.map(letter).collect()
        })
        .await
    }

    pub(super) async fn revive(
        &self,
        topic: &TopicName,
        group: &GroupName,
        ids: &[(MessageId, Duration)],
        wait: bool,
    ) -> Result<Vec<Revived>, StorageError> {
        let texts =
            ids.iter().flat_map(|(id, delay)| [id.to_string(), sortable(*id), ms_of(*delay).to_string()]);
        let texts: Vec<String> = texts.collect();
        let mut arguments = vec![if wait { "1" } else { "0" }];
        arguments.extend(texts.iter().map(String::as_str));
        let call = self
            .of_group((topic, group), &scripts::REVIVE, Effect::Write, &[], &arguments)
            .replied(0, STEP_MESSAGES_MAX * 16);
        self.ask(call, |parts| {
            let revived = |code: Reply<'_>| match code.integer()? {
                0 => Some(Revived::Waits),
                1 => Some(Revived::Gone),
                2 => Some(Revived::Unknown),
                _ => None,
            };
            parts.map(revived).collect()
        })
        .await
    }

    pub(super) async fn fate(
        &self,
        topic: &TopicName,
        group: &GroupName,
        id: MessageId,
    ) -> Result<Option<Fate>, StorageError> {
        let result = format!("{}{id}", self.keys.results(topic, group));
        let (text, sorted) = (id.to_string(), sortable(id));
        let call = self
            .of_group((topic, group), &scripts::FATE, Effect::Read, &[result], &[&text, &sorted])
            .replied(DEAD_BYTES, CLAIM_BYTES_MAX);
        self.ask(call, move |parts| read_fate(id, parts)).await
    }
}
