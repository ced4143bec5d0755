//! What the scripts of groups answer, read.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use serde::Deserialize;
use tidemill_proto::work::{ConsumerCounts, GroupDetail, GroupName, MessageStateName, MinuteCounts};
use tidemill_proto::{MessageId, Timestamp, TopicName};

use crate::storage::valkey::entry::{self, read_id};
use crate::storage::valkey::resp::{Parts, Reply};
use crate::storage::valkey::scripts;
use crate::storage::{Claimed, Delivery, Fate, StoredMessage, group_defaults};

/// What is known of a message, as the scripts keep it.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Facts {
    #[serde(default)]
    pub(super) f: u32,
    #[serde(default)]
    pub(super) c: u32,
    #[serde(default)]
    pub(super) e: Option<Box<str>>,
    #[serde(default)]
    pub(super) s: Option<Box<str>>,
    #[serde(default)]
    pub(super) r: Option<Box<str>>,
    #[serde(default)]
    pub(super) t: Option<u64>,
}

/// What is known of a dead letter, as the scripts keep it.
#[derive(Debug, Deserialize)]
pub(super) struct Dead {
    pub(super) l: Box<str>,
    pub(super) n: u64,
    #[serde(default)]
    pub(super) r: Option<Box<str>>,
}

pub(super) fn text<'a>(reply: &Reply<'a>) -> Option<&'a str> {
    std::str::from_utf8(reply.bytes()?).ok()
}

/// Reads a number of milliseconds; `None` inside is of one below 0. Scores have fractions where they are large.
#[expect(clippy::option_option, reason = "whether it can be read, and whether there is one")]
pub(super) fn millis(reply: &Reply<'_>) -> Option<Option<u64>> {
    let text = text(reply)?;
    if text.starts_with('-') {
        return Some(None);
    }
    let whole = text.split('.').next().unwrap_or_default();
    match whole.parse() {
        Ok(ms) => Some(Some(ms)),
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is a time")]
        Err(_) => Some(Some(text.parse::<f64>().ok()? as u64)),
    }
}

#[expect(clippy::option_option, reason = "whether it can be read, and whether there is one")]
pub(super) fn time(reply: &Reply<'_>) -> Option<Option<Timestamp>> {
    Some(millis(reply)?.map(Timestamp::from_millis))
}

pub(super) fn number(reply: &Reply<'_>) -> Option<u64> {
    u64::try_from(reply.integer()?).ok()
}

pub(super) fn epoch_of(reply: &Reply<'_>) -> Option<u64> {
    u64::from_str_radix(text(reply)?, 16).ok()
}

/// Reads what a claim got, and whether there may be more where that is nothing.
pub(super) fn read_claimed(parts: &mut Parts<'_>) -> Option<(Claimed, bool)> {
    let epoch = epoch_of(&parts.next()?)?;
    let now = millis(&parts.next()?)??;
    let deadline = Timestamp::from_millis(now + millis(&parts.next()?)??);
    let (replayed, paused) = (parts.next()?.integer()? == 1, parts.next()?.integer()? == 1);
    let next_due = time(&parts.next()?)?;
    let entries = entry::read_all(parts.next()?)?;
    let (Reply::Array(mut numbers), Reply::Array(mut deadlines)) = (parts.next()?, parts.next()?) else {
        return None;
    };
    let mut deliveries = Vec::with_capacity(entries.len());
    for entry in entries {
        let deadline = match deadlines.next() {
            Some(reply) => time(&reply)??,
            None => deadline,
        };
        let delivery = number(&numbers.next()?)?;
        deliveries.push(Delivery { message: entry, delivery, deadline });
    }
    let (limited, is_more) = (parts.next()?.integer()? == 1, parts.next()?.integer()? == 1);
    let cancelled = Some(text(&parts.next()?)?).filter(|reason| !reason.is_empty()).map(Into::into);
    let (gone, drained) = (number(&parts.next()?)?, parts.next()?.integer()? == 1);
    let claimed =
        Claimed { epoch, deliveries, replayed, paused, limited, next_due, cancelled, gone, drained };
    Some((claimed, is_more))
}

/// Reads what each of so many consumers got of new messages: one each, and the last of them none.
pub(super) fn read_claimed_new(consumers: usize, parts: &mut Parts<'_>) -> Option<Vec<Claimed>> {
    let epoch = epoch_of(&parts.next()?)?;
    let now = millis(&parts.next()?)??;
    let deadline = Timestamp::from_millis(now + millis(&parts.next()?)??);
    let next_due = time(&parts.next()?)?;
    let entries = entry::read_all(parts.next()?)?;
    let none = || Claimed { epoch, next_due, ..Claimed::default() };
    let one = |entry: StoredMessage| Claimed {
        deliveries: vec![Delivery { message: entry, delivery: 1, deadline }],
        ..none()
    };
    let mut claimed: Vec<_> = entries.into_iter().map(one).collect();
    claimed.resize_with(consumers, none);
    let (gone, drained) = (number(&parts.next()?)?, parts.next()?.integer()? == 1);
    if let Some(first) = claimed.first_mut() {
        first.gone = gone;
    }
    if let Some(last) = claimed.last_mut() {
        last.drained = drained;
    }
    Some(claimed)
}

#[expect(clippy::option_option, reason = "whether it can be read, and whether there is one")]
pub(super) fn read_fate(id: MessageId, parts: &mut Parts<'_>) -> Option<Option<Fate>> {
    let now = millis(&parts.next()?)??;
    let ack_wait = millis(&parts.next()?)??;
    let Reply::Array(mut held) = parts.next()? else { return None };
    let held = match held.next() {
        Some(consumer) => Some((text(&consumer)?.to_owned(), number(&held.next()?)?, number(&held.next()?)?)),
        None => None,
    };
    let facts = parts.next()?.bytes()?;
    let facts: Facts =
        if facts.is_empty() { Facts::default() } else { serde_json::from_slice(facts).ok()? };
    let (due, lease) = (millis(&parts.next()?)?, millis(&parts.next()?)?);
    let dead = parts.next()?.bytes()?;
    let kept = entry::read_all(parts.next()?)?.pop();
    let is_kept = kept.is_some_and(|entry| entry.expires_at.is_none_or(|at| at.as_millis() > now));
    let result = Some(parts.next()?.bytes()?).filter(|text| !text.is_empty());
    let (last, start) = (read_id(parts.next()?.bytes()?)?, read_id(parts.next()?.bytes()?)?);
    let behind = read_id(parts.next()?.bytes()?);
    if let Some((consumer, idle, deliveries)) = held {
        let some = |count: u32| Some(count).filter(|count| *count > 0);
        let known = Fate {
            deliveries: Some(deliveries),
            failures: some(facts.f),
            crashes: some(facts.c),
            error: facts.e.clone(),
            ..Fate::of(MessageStateName::Waiting)
        };
        if facts.s.as_deref() == Some("dying") {
            let error = facts.e.or(facts.r);
            return Some(Some(Fate { state: MessageStateName::Dead, error, ..known }));
        }
        if consumer == scripts::WAITING {
            let until = due.filter(|due| *due > now).map(Timestamp::from_millis);
            let state = if until.is_some() { MessageStateName::Backoff } else { MessageStateName::Waiting };
            let behind = behind.filter(|_| state == MessageStateName::Waiting);
            return Some(Some(Fate { state, behind, until, ..known }));
        }
        let since = facts.t.unwrap_or(now.saturating_sub(idle));
        let until = lease.unwrap_or(now.saturating_sub(idle) + ack_wait);
        if until <= now {
            return Some(Some(known));
        }
        return Some(Some(Fate {
            state: MessageStateName::InFlight,
            consumer: Some(consumer.into()),
            since: Some(Timestamp::from_millis(since)),
            until: Some(Timestamp::from_millis(until)),
            ..known
        }));
    }
    if !dead.is_empty() {
        let Dead { n, r, .. } = serde_json::from_slice(dead).ok()?;
        return Some(Some(Fate { deliveries: Some(n), error: r, ..Fate::of(MessageStateName::Dead) }));
    }
    if id > last {
        let waiting = Fate { deliveries: Some(0), behind, ..Fate::of(MessageStateName::Waiting) };
        return Some(is_kept.then_some(waiting));
    }
    // What was done and is gone from the topic is not told from what was gone before.
    let is_done = result.is_some() || (is_kept && id > start);
    let result = result.map(Bytes::copy_from_slice);
    Some(is_done.then(|| Fate { result, ..Fate::of(MessageStateName::Done) }))
}

pub(super) fn read_detail(topic: TopicName, group: GroupName, parts: &mut Parts<'_>) -> Option<GroupDetail> {
    let now = millis(&parts.next()?)??;
    let mut map = || -> Option<HashMap<String, String>> {
        let Reply::Array(mut pairs) = parts.next()? else { return None };
        let mut map = HashMap::new();
        while let Some(name) = pairs.next() {
            map.insert(text(&name)?.to_owned(), text(&pairs.next()?)?.to_owned());
        }
        Some(map)
    };
    let (settings, counts) = (map()?, map()?);
    let last_delivered = read_id(parts.next()?.bytes()?)?;
    let lag = parts.next()?.integer()?;
    let mut next = || number(&parts.next()?);
    let (pending, waits, ready, dying, dead, consumers) =
        (next()?, next()?, next()?, next()?, next()?, next()?);
    let behind = read_id(parts.next()?.bytes()?);
    let Reply::Array(again) = parts.next()? else { return None };
    let missed = number(&parts.next()?)?;
    let oldest = again.filter_map(|id| read_id(id.bytes()?)).chain(behind).min();
    let scheduled = number(&parts.next()?)?;
    let elsewhere = parts.next()?.integer()?;
    let Reply::Array(mut held) = parts.next()? else { return None };
    let mut held_by = Vec::new();
    while let Some(name) = held.next() {
        // Another program may have given a consumer a name that is no text.
        let consumer = String::from_utf8_lossy(name.bytes()?).into_owned();
        held_by.push(ConsumerCounts { consumer, in_flight: number(&held.next()?)? });
    }
    let lag = u64::try_from(lag).ok().or(behind.is_none().then_some(0));
    let of = |name: &str| settings.get(name).and_then(|text| text.parse().ok()).unwrap_or(0_u64);
    let document = settings.get("document").and_then(|text| serde_json::from_str(text).ok());
    let settings_of = document.unwrap_or_else(|| group_defaults(&topic, &group));
    #[expect(clippy::cast_precision_loss, reason = "it is far below 2^52")]
    let seconds = |id: MessageId| now.saturating_sub(id.ms) as f64 / 1e3;
    let time_of = |name: &str| settings.get(name)?.parse().ok().map(Timestamp::from_millis);
    Some(GroupDetail {
        settings: settings_of,
        created_at: time_of("created_at"),
        last_delivered,
        waiting: lag.map(|lag| lag + ready),
        scheduled,
        in_flight: pending.saturating_sub(waits),
        in_backoff: waits.saturating_sub(ready + dying),
        dead: dead + dying,
        done: of("done"),
        failed: of("failed"),
        redelivered: of("redelivered"),
        gone: of("gone") + missed,
        oldest_waiting_seconds: oldest.map(seconds),
        consumers,
        held_by,
        last_claim: time_of("claimed_at"),
        exact: lag.is_some() && elsewhere <= 0,
        minutes: minutes(&counts, now),
        topic,
        group,
    })
}

fn minutes(counts: &HashMap<String, String>, now: u64) -> Vec<MinuteCounts> {
    const MINUTE_MS: u64 = 60_000;
    let first = (now / MINUTE_MS).saturating_sub(24 * 60);
    let mut minutes = BTreeMap::new();
    for (field, count) in counts {
        let (Some((kind, Ok(minute))), Ok(count)) =
            (field.split_at_checked(1).map(|(kind, minute)| (kind, minute.parse::<u64>())), count.parse())
        else {
            continue;
        };
        if minute > first {
            let at = Timestamp::from_millis(minute * MINUTE_MS);
            let of = minutes.entry(minute).or_insert(MinuteCounts { minute: at, done: 0, failed: 0 });
            if kind == "d" { of.done = count } else { of.failed = count }
        }
    }
    minutes.into_values().collect()
}
