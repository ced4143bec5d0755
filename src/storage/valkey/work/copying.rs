//! Groups that are told to another storage, or taken over from one.

use std::collections::HashMap;

use tidemill_proto::work::GroupName;
use tidemill_proto::{MessageId, Timestamp, TopicName};

use super::replies::{Dead, Facts, millis, number, text};
use super::{DEAD_BYTES, DETAIL_BYTES, behind_code, fields, of_code};
use crate::storage::valkey::Shard;
use crate::storage::valkey::entry::read_id;
use crate::storage::valkey::failure::Effect;
use crate::storage::valkey::keys::sortable;
use crate::storage::valkey::resp::Parts;
use crate::storage::valkey::scripts::{self, Script};
use crate::storage::{
    CopiedDead, CopiedGroup, CopiedPending, CopiedPlace, CopiedUnique, StorageError, UniquePage,
    group_defaults,
};

/// Messages that are told of, or taken over, in one step.
const STEP: usize = 200;
/// The answer where the topic is not being taken over.
const NOT_IMPORTING: i64 = 3;

/// A group of a topic.
type Of<'a> = (&'a TopicName, &'a GroupName);

impl Shard {
    /// Returns a group without what it knows of messages.
    pub(in crate::storage::valkey) async fn copied_group(
        &self,
        of: Of<'_>,
    ) -> Result<CopiedGroup, StorageError> {
        let call = self
            .of_group(of, &scripts::COPIED_GROUP, Effect::Read, &[], &[])
            .replied(DETAIL_BYTES, DETAIL_BYTES);
        let (topic, group) = (of.0.clone(), of.1.clone());
        self.ask(call, move |parts| read_group((topic, group), parts)).await
    }

    /// Returns messages that are not done behind an id, up to so many.
    pub(in crate::storage::valkey) async fn copied_pending(
        &self,
        of: Of<'_>,
        after: Option<MessageId>,
        limit: usize,
    ) -> Result<Vec<CopiedPending>, StorageError> {
        let (mut all, mut after) = (Vec::<CopiedPending>::new(), after);
        loop {
            let count = STEP.min(limit - all.len());
            let (from, asked) =
                (after.map_or_else(|| "-".to_owned(), |id| format!("({id}")), count.to_string());
            let call = self
                .of_group(of, &scripts::COPIED_PENDING, Effect::Read, &[], &[&from, &asked])
                .replied(STEP * 256, STEP * DEAD_BYTES);
            let some = self.ask(call, read_pending).await?;
            let is_last = some.len() < count;
            all.extend(some);
            if is_last || all.len() == limit {
                return Ok(all);
            }
            after = all.last().map(|last| last.id);
        }
    }

    /// Returns dead letters of messages behind an id, up to so many.
    pub(in crate::storage::valkey) async fn copied_dead(
        &self,
        of: Of<'_>,
        after: Option<MessageId>,
        limit: usize,
    ) -> Result<Vec<CopiedDead>, StorageError> {
        let (mut all, mut after) = (Vec::<CopiedDead>::new(), after);
        loop {
            let count = STEP.min(limit - all.len());
            let from = after.map_or_else(|| "-".to_owned(), |id| format!("({}~", sortable(id)));
            let asked = count.to_string();
            let call = self
                .of_group(of, &scripts::DEAD, Effect::Read, &[], &[&from, &asked])
                .replied(STEP * 256, STEP * DEAD_BYTES);
            let some: Vec<CopiedDead> =
                self.ask(call, |parts| parts.map(|reply| read_dead(text(&reply)?)).collect()).await?;
            let is_last = some.len() < count;
            all.extend(some);
            if is_last || all.len() == limit {
                return Ok(all);
            }
            after = all.last().map(|last| last.id);
        }
    }

    /// Returns unique keys from a cursor of the server on, up to about so many.
    pub(in crate::storage::valkey) async fn copied_unique(
        &self,
        of: Of<'_>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<UniquePage, StorageError> {
        let (mut unique, mut cursor) = (Vec::new(), after.unwrap_or("0").to_owned());
        loop {
            let call = self
                .of_group(of, &scripts::COPIED_UNIQUE, Effect::Read, &[], &[&cursor])
                // A small hash comes whole, whatever was asked for.
                .replied(STEP * 256, 4 * STEP * DEAD_BYTES);
            let (next, some) = self.ask(call, read_unique).await?;
            unique.extend(some);
            if next == "0" {
                return Ok(UniquePage { unique, next: None });
            }
            if unique.len() + STEP > limit {
                return Ok(UniquePage { unique, next: Some(next) });
            }
            cursor = next;
        }
    }

    /// Takes over a group, in place of what there is of it.
    pub(in crate::storage::valkey) async fn import_group(
        &self,
        topic: &TopicName,
        copied: &CopiedGroup,
    ) -> Result<(), StorageError> {
        let mut arguments = vec![copied.last_delivered.to_string()];
        let mut add = |name: &str, value: String| arguments.extend([name.to_owned(), value]);
        for (name, value) in fields(&copied.settings).into_iter().filter(|(_, value)| !value.is_empty()) {
            add(name, value);
        }
        add("epoch", format!("{:016x}", copied.epoch));
        add("start", copied.start.to_string());
        if let Some(at) = copied.created_at {
            add("created_at", at.as_millis().to_string());
        }
        for (name, count) in ["done", "failed", "redelivered", "gone"].into_iter().zip(copied.counts) {
            add(name, count.to_string());
        }
        if let Some(passed) = copied.passed {
            add("at", copied.last_delivered.to_string());
            add("passed", passed.to_string());
        }
        let groups = [self.keys.groups(topic)];
        self.take_over((topic, &copied.group), &scripts::IMPORT_GROUP, &groups, &arguments).await
    }

    /// Takes over messages that are not done.
    pub(in crate::storage::valkey) async fn import_pending(
        &self,
        of: Of<'_>,
        pending: &[CopiedPending],
    ) -> Result<(), StorageError> {
        let now = self.now();
        for some in pending.chunks(STEP) {
            let arguments: Vec<String> = some.iter().flat_map(|one| pending_arguments(one, now)).collect();
            self.take_over(of, &scripts::IMPORT_PENDING, &[], &arguments).await?;
        }
        Ok(())
    }

    /// Takes over dead letters.
    pub(in crate::storage::valkey) async fn import_dead(
        &self,
        of: Of<'_>,
        dead: &[CopiedDead],
    ) -> Result<(), StorageError> {
        for some in dead.chunks(STEP) {
            let arguments: Vec<String> = some.iter().map(write_dead).collect();
            self.take_over(of, &scripts::IMPORT_DEAD, &[], &arguments).await?;
        }
        Ok(())
    }

    /// Takes over unique keys.
    pub(in crate::storage::valkey) async fn import_unique(
        &self,
        of: Of<'_>,
        unique: &[CopiedUnique],
    ) -> Result<(), StorageError> {
        for some in unique.chunks(STEP) {
            let of_key = |(key, id, at): &CopiedUnique| [key.to_string(), id.to_string(), at.to_string()];
            let arguments: Vec<String> = some.iter().flat_map(of_key).collect();
            self.take_over(of, &scripts::IMPORT_UNIQUE, &[], &arguments).await?;
        }
        Ok(())
    }

    async fn take_over(
        &self,
        of: Of<'_>,
        script: &'static Script,
        behind: &[String],
        arguments: &[String],
    ) -> Result<(), StorageError> {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let call = self.of_group(of, script, Effect::Write, behind, &arguments);
        let answer = self.calls.call(call, |reply| behind_code(reply, |_| Some(()))).await?;
        answer.map_err(|code| if code == NOT_IMPORTING { StorageError::TopicExists } else { of_code(code) })
    }
}

fn read_group((topic, group): (TopicName, GroupName), parts: &mut Parts<'_>) -> Option<CopiedGroup> {
    let last_delivered = read_id(parts.next()?.bytes()?)?;
    let mut settings = HashMap::new();
    while let Some(name) = parts.next() {
        settings.insert(text(&name)?.to_owned(), text(&parts.next()?)?.to_owned());
    }
    let of = |name: &str| settings.get(name).and_then(|text| text.parse::<u64>().ok());
    let count = |name: &str| of(name).unwrap_or(0);
    let document = settings.get("document").and_then(|text| serde_json::from_str(text).ok());
    let is_at_last = settings.get("at").is_some_and(|at| read_id(at.as_bytes()) == Some(last_delivered));
    Some(CopiedGroup {
        settings: document.unwrap_or_else(|| group_defaults(&topic, &group)),
        group,
        epoch: settings.get("epoch").and_then(|text| u64::from_str_radix(text, 16).ok()).unwrap_or(0),
        created_at: of("created_at").map(Timestamp::from_millis),
        start: settings.get("start").and_then(|id| read_id(id.as_bytes())).unwrap_or(MessageId::MIN),
        last_delivered,
        passed: of("passed").filter(|_| is_at_last),
        counts: ["done", "failed", "redelivered", "gone"].map(count),
    })
}

fn read_pending(parts: &mut Parts<'_>) -> Option<Vec<CopiedPending>> {
    let now = millis(&parts.next()?)??;
    let ack_wait = millis(&parts.next()?)??;
    let mut all = Vec::new();
    while let Some(id) = parts.next() {
        let id = read_id(id.bytes()?)?;
        let is_waiting = parts.next()?.bytes()? == scripts::WAITING.as_bytes();
        let (idle, deliveries) = (number(&parts.next()?)?, number(&parts.next()?)?);
        let (due, lease) = (millis(&parts.next()?)?, millis(&parts.next()?)?);
        let is_dying = millis(&parts.next()?)?.is_some();
        let facts = parts.next()?.bytes()?;
        let facts: Facts =
            if facts.is_empty() { Facts::default() } else { serde_json::from_slice(facts).ok()? };
        let until = lease.unwrap_or(now.saturating_sub(idle).saturating_add(ack_wait));
        let place = match (is_waiting, is_dying, due) {
            (false, ..) => CopiedPlace::Waits(Timestamp::from_millis(until)),
            (true, true, _) => CopiedPlace::Dying(facts.r.unwrap_or_default()),
            (true, false, Some(due)) => CopiedPlace::Waits(Timestamp::from_millis(due)),
            (true, false, None) => CopiedPlace::Behind,
        };
        all.push(CopiedPending {
            id,
            deliveries,
            failures: facts.f,
            crashes: facts.c,
            error: facts.e,
            place,
        });
    }
    Some(all)
}

fn read_dead(kept: &str) -> Option<CopiedDead> {
    let (sorted, known) = kept.split_once(' ')?;
    let (ms, seq) = sorted.split_once('-')?;
    let Dead { l, n, r } = serde_json::from_str(known).ok()?;
    Some(CopiedDead {
        id: MessageId::new(ms.parse().ok()?, seq.parse().ok()?),
        letter: read_id(l.as_bytes()),
        deliveries: n,
        reason: r.unwrap_or_default(),
    })
}

/// Writes what is kept of a dead letter.
fn write_dead(dead: &CopiedDead) -> String {
    let letter = dead.letter.map(|letter| letter.to_string()).unwrap_or_default();
    let known = serde_json::json!({"l": letter, "n": dead.deliveries, "r": dead.reason});
    format!("{} {known}", sortable(dead.id))
}

fn read_unique(parts: &mut Parts<'_>) -> Option<(String, Vec<CopiedUnique>)> {
    let next = text(&parts.next()?)?.to_owned();
    let mut all = Vec::new();
    while let Some(key) = parts.next() {
        let key = text(&key)?.into();
        let id = read_id(parts.next()?.bytes()?)?;
        all.push((key, id, Timestamp::parse(text(&parts.next()?)?).ok()?));
    }
    Some((next, all))
}

fn pending_arguments(pending: &CopiedPending, now: Timestamp) -> [String; 5] {
    let CopiedPending { id, deliveries, failures, crashes, error, place } = pending;
    let why = if *failures > 0 { "failed" } else { "released" };
    let (kind, at, state, reason) = match place {
        CopiedPlace::Waits(due) => ("waits", *due, why, None),
        CopiedPlace::Behind => ("behind", now, why, None),
        CopiedPlace::Dying(reason) => ("dying", now, "dying", Some(reason)),
    };
    let mut known = serde_json::Map::new();
    let mut note = |name: &str, value: serde_json::Value| drop(known.insert(name.to_owned(), value));
    if *failures > 0 {
        note("f", (*failures).into());
    }
    if *crashes > 0 {
        note("c", (*crashes).into());
    }
    if let Some(error) = error {
        note("e", error.to_string().into());
    }
    if let Some(reason) = reason {
        note("r", reason.to_string().into());
    }
    note("s", state.into());
    let known = serde_json::Value::Object(known).to_string();
    [id.to_string(), deliveries.to_string(), kind.to_owned(), at.as_millis().to_string(), known]
}
