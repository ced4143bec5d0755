//! A step of changes of one bucket: what each change would do, and then that all are made.
//!
//! It owns conditions, rules of numbers, and the room that a bucket has by its settings.

use bytes::Bytes;
use tidemill_proto::{KeyName, MessageId, Timestamp, TopicName};

use super::{
    BESIDE_BYTES, Beside, Bucket, DIGEST_BYTES, EARLIER_BYTES, Earlier, KEY_BYTES, NEVER, StoredKey,
    StoredValue, TEXT_BYTES, cost_of_owner, cost_of_value, logged,
};
use crate::storage::{
    FillToken, KeyChange, KeyChanged, KeyCondition, KeyDigest, KeyEdit, KeyRefusal, KeyValue, LoggedKind,
    NewMessage,
};

/// What becomes of a key.
#[derive(Debug)]
enum Action {
    /// Nothing: it is not there, and was to be deleted.
    Nothing,
    /// It is gone.
    Delete,
    /// Its time is over.
    Expire,
    /// It has this value.
    Put {
        value: KeyValue,
        owner: Option<KeyName>,
        expires_at: Timestamp,
        fresh_until: Option<Timestamp>,
        is_counted: bool,
        is_new: bool,
        number: Option<i64>,
    },
}

/// What is done with keys in one step, in order.
#[derive(Debug, Default)]
pub(in crate::storage::memory) struct Step {
    actions: Vec<(KeyName, Action)>,
    /// The bytes that keys hold more with it, and less, at most.
    pub(in crate::storage::memory) more: usize,
    pub(in crate::storage::memory) less: usize,
    /// Whether a key is put in it.
    pub(in crate::storage::memory) puts: bool,
}

impl Step {
    fn push(&mut self, bucket: &Bucket, key: &KeyName, action: Action) {
        let found = bucket.keys.get(key);
        match &action {
            Action::Nothing => {}
            Action::Delete | Action::Expire => self.less += found.map_or(0, |found| found.cost(key)),
            Action::Put { value, owner, fresh_until, is_counted, is_new, .. } => {
                self.puts = true;
                let value = cost_of_value(value.bytes.len(), value.content_type.as_deref());
                let keeps = bucket.settings.history > 1;
                let beside = if keeps || *is_counted || fresh_until.is_some() { BESIDE_BYTES } else { 0 };
                self.more += value + beside + cost_of_owner(owner.as_ref());
                if *is_new {
                    self.more += KEY_BYTES + key.as_str().len();
                } else if keeps {
                    self.more += EARLIER_BYTES + DIGEST_BYTES + TEXT_BYTES;
                } else {
                    let before = found.map_or(0, |found| found.cost(key));
                    self.less += before.saturating_sub(KEY_BYTES + key.as_str().len());
                }
            }
        }
        self.actions.push((key.clone(), action));
    }

    /// Returns a step that takes out keys, each of which is there.
    pub(in crate::storage::memory) fn taking_out(
        bucket: &Bucket,
        keys: &[KeyName],
        now: Timestamp,
    ) -> (Self, u64) {
        let (mut step, mut deleted) = (Self::default(), 0);
        for key in keys {
            if bucket.is_over(key, now) {
                step.push(bucket, key, Action::Expire);
            } else {
                step.push(bucket, key, Action::Delete);
                deleted += 1;
            }
        }
        (step, deleted)
    }

    /// Returns the step that makes changes, or which of them is refused first, and why.
    pub(in crate::storage::memory) fn of(
        bucket: &Bucket,
        changes: &[KeyChange],
        now: Timestamp,
    ) -> Result<Self, (usize, KeyRefusal)> {
        let mut step = Self::default();
        let mut room = Room { bucket, keys: bucket.keys.len() as u64, bytes: bucket.weight };
        for (at, KeyChange { key, condition, edit }) in changes.iter().enumerate() {
            let refused = |refusal| (at, refusal);
            if let Some(over) = bucket.keys.get(key).filter(|found| found.is_over(now)) {
                step.push(bucket, key, Action::Expire);
                room.free(over);
            }
            let found = bucket.found(key, now);
            check(*condition, found.map(|found| found.revision), bucket.filling(key, now))
                .map_err(refused)?;
            let adaptive = match condition {
                KeyCondition::Filling(_) => bucket.settings.adaptive_ttl,
                _ => None,
            };
            let (value, owner, expires_at, fresh_until, is_counted, number) = match edit {
                KeyEdit::Delete => {
                    let action = if found.is_some() { Action::Delete } else { Action::Nothing };
                    if let Some(found) = found {
                        room.free(found);
                    }
                    step.push(bucket, key, action);
                    continue;
                }
                KeyEdit::Put { value, ttl, fresh, owner } => {
                    let created_at = found.map_or(now, |found| found.created_at);
                    let fresh_until = fresh.map(|fresh| now.saturating_add(fresh));
                    let adapted = adaptive.filter(|_| ttl.is_none());
                    let ttl = adapted.map(|adaptive| adaptive.of(bucket.reads_of(key, now))).or(*ttl);
                    let (value, end) = (value.clone(), bucket.end(ttl, created_at, now));
                    (value, owner.clone(), end, fresh_until, adapted.is_some(), None)
                }
                KeyEdit::Increment { by, min, max, ttl } => {
                    let number = sum(found, *by, *min, *max).map_err(refused)?;
                    let content_type = found.and_then(|found| found.value.content_type.clone());
                    let bytes = Bytes::from(number.to_string());
                    let end = found.map_or_else(|| bucket.end(*ttl, now, now), |found| found.expires_at);
                    let owner = found.and_then(|found| found.owner.clone());
                    let fresh_until = found.and_then(StoredKey::fresh_until);
                    let is_counted = found.is_some_and(StoredKey::is_counted);
                    (KeyValue { bytes, content_type }, owner, end, fresh_until, is_counted, Some(number))
                }
            };
            room.take(found, value.bytes.len() as u64).map_err(refused)?;
            let is_new = found.is_none();
            let put = Action::Put { value, owner, expires_at, fresh_until, is_counted, is_new, number };
            step.push(bucket, key, put);
        }
        Ok(step)
    }

    /// Returns what the log is to tell of the step.
    pub(in crate::storage::memory) fn entries(
        &self,
        log: &TopicName,
        timestamp: Timestamp,
        now: Timestamp,
    ) -> Vec<NewMessage> {
        let told = |(key, action): &(KeyName, Action)| match action {
            Action::Nothing => None,
            Action::Delete => Some((key.clone(), LoggedKind::Deleted, None, timestamp)),
            Action::Expire => Some((key.clone(), LoggedKind::Expired, None, now)),
            Action::Put { value, .. } => Some((key.clone(), LoggedKind::Put, Some(value.clone()), timestamp)),
        };
        let told: Vec<_> = self.actions.iter().filter_map(told).collect();
        let count = told.len();
        let numbered = told.into_iter().enumerate();
        numbered
            .map(|(at, (key, change, value, time))| logged(log, &key, change, at + 1 < count, value, time))
            .collect()
    }
}

/// The times of a key that is put.
struct Times {
    now: Timestamp,
    expires_at: Timestamp,
    fresh_until: Option<Timestamp>,
    is_counted: bool,
}

/// The room that is left in a bucket by its settings.
struct Room<'a> {
    bucket: &'a Bucket,
    keys: u64,
    bytes: u64,
}

impl Room<'_> {
    fn free(&mut self, found: &StoredKey) {
        self.keys = self.keys.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(found.weight());
    }

    /// Takes the place of a value, behind what is kept of the earlier ones.
    fn take(&mut self, found: Option<&StoredKey>, value_bytes: u64) -> Result<(), KeyRefusal> {
        let settings = &self.bucket.settings;
        if found.is_none() {
            self.keys += 1;
            if settings.max_keys.is_some_and(|max| self.keys > max) {
                return Err(KeyRefusal::TooManyKeys);
            }
        }
        let before = found.map_or(0, StoredKey::weight);
        let past = found.into_iter().flat_map(|found| {
            let past = found.past().iter().map(|earlier| earlier.value.bytes.len());
            std::iter::once(found.value.bytes.len()).chain(past)
        });
        let kept: usize = past.take(settings.history.saturating_sub(1) as usize).sum();
        let after = value_bytes + kept as u64;
        self.bytes = (self.bytes + after).saturating_sub(before);
        let is_too_much = after > before && settings.max_bytes.is_some_and(|max| self.bytes > max);
        if is_too_much { Err(KeyRefusal::TooManyBytes) } else { Ok(()) }
    }
}

fn check(
    condition: KeyCondition,
    revision: Option<MessageId>,
    filling: Option<(FillToken, Timestamp)>,
) -> Result<(), KeyRefusal> {
    let holds = match condition {
        KeyCondition::Anything => true,
        KeyCondition::Absent => revision.is_none(),
        KeyCondition::Present => revision.is_some(),
        KeyCondition::Revision(expected) => revision == Some(expected),
        KeyCondition::Filling(token) => filling.is_some_and(|(current, _)| current == token),
    };
    if holds { Ok(()) } else { Err(KeyRefusal::Condition(revision)) }
}

fn sum(found: Option<&StoredKey>, by: i64, min: Option<i64>, max: Option<i64>) -> Result<i64, KeyRefusal> {
    let number = found.map_or(Some(0), |found| number_of(&found.value.bytes));
    let number = number.ok_or(KeyRefusal::NotANumber)?;
    let fits = |sum: &i64| min.is_none_or(|min| *sum >= min) && max.is_none_or(|max| *sum <= max);
    number.checked_add(by).filter(fits).ok_or(KeyRefusal::OutOfRange(number))
}

/// Returns the number that a value is: in decimal digits, as it would be written.
fn number_of(value: &[u8]) -> Option<i64> {
    let number: i64 = std::str::from_utf8(value).ok()?.parse().ok()?;
    (number.to_string().as_bytes() == value).then_some(number)
}

impl Bucket {
    /// Makes a step: of each of its actions the log has one of these entries.
    pub(in crate::storage::memory) fn make(
        &mut self,
        step: Step,
        entries: &[NewMessage],
        now: Timestamp,
    ) -> Vec<KeyChanged> {
        let mut entries = entries.iter();
        let mut changed = Vec::with_capacity(step.actions.len());
        for (key, action) in step.actions {
            // What comes to be of a key by itself is no reason to fill it no more.
            if !matches!(action, Action::Expire) {
                self.end_fill(&key);
            }
            if matches!(action, Action::Nothing) {
                changed.push(KeyChanged { revision: None, is_new: false, number: None, expires_at: None });
                continue;
            }
            let entry = entries.next().expect("each action but none has an entry");
            let revision = self.log.append(now, entry, &entry.policy, None);
            let told = match action {
                Action::Nothing => None,
                Action::Expire => {
                    self.take_out(&key);
                    None
                }
                Action::Delete => {
                    self.take_out(&key);
                    Some((false, None, NEVER))
                }
                Action::Put { value, owner, expires_at, fresh_until, is_counted, is_new, number } => {
                    let times = Times { now, expires_at, fresh_until, is_counted };
                    self.put(&key, revision, &value, number.is_none(), owner, &times);
                    Some((is_new, number, expires_at))
                }
            };
            changed.extend(told.map(|(is_new, number, expires_at)| KeyChanged {
                revision: Some(revision),
                is_new,
                number,
                expires_at: (expires_at != NEVER).then_some(expires_at),
            }));
        }
        changed
    }

    /// Takes a key out of the table, with everything that belongs to it.
    pub(super) fn take_out(&mut self, key: &KeyName) -> Option<StoredKey> {
        let found = *self.keys.remove(key)?;
        self.weight -= found.weight();
        self.keys_cost -= found.cost(key);
        if found.expires_at != NEVER {
            self.due.remove(&(found.expires_at, key.clone()));
        }
        if let Some(owner) = &found.owner {
            self.owned.remove(&(owner.clone(), key.clone()));
        }
        Some(found)
    }

    fn put(
        &mut self,
        key: &KeyName,
        revision: MessageId,
        value: &KeyValue,
        has_digest: bool,
        owner: Option<KeyName>,
        times: &Times,
    ) {
        let Times { now, expires_at, fresh_until, is_counted } = *times;
        let before = self.take_out(key);
        let created_at = before.as_ref().map_or(now, |before| before.created_at);
        let kept = self.settings.history.saturating_sub(1) as usize;
        let parent = before.as_ref().and_then(|before| Some(before.digest()?.own));
        let digest = (has_digest && kept > 0).then(|| KeyDigest { own: KeyDigest::of(&value.bytes), parent });
        let past = before.filter(|_| kept > 0).map_or_else(Vec::new, |before| {
            let StoredKey { revision, owner, value, beside, .. } = before;
            let Beside { digest, past: earlier, .. } = beside.map_or_else(Beside::default, |beside| *beside);
            let mut past = Vec::with_capacity(kept.min(earlier.len() + 1));
            past.push(Earlier { revision, owner, value, digest: digest.map(Box::new) });
            past.extend(earlier.into_iter().take(kept - 1));
            past
        });
        let has_more = digest.is_some() || fresh_until.is_some() || is_counted || !past.is_empty();
        let beside = has_more.then(|| Box::new(Beside { digest, fresh_until, is_counted, past }));
        let value = StoredValue::new(value);
        self.insert(key, StoredKey { revision, created_at, expires_at, owner, value, beside });
    }

    /// Puts a key into the table that is not there, with everything that belongs to it.
    pub(super) fn insert(&mut self, key: &KeyName, stored: StoredKey) {
        let expires_at = stored.expires_at;
        self.weight += stored.weight();
        self.keys_cost += stored.cost(key);
        if expires_at != NEVER {
            self.due.insert((expires_at, key.clone()));
        }
        if let Some(owner) = &stored.owner {
            self.owned.insert((owner.clone(), key.clone()));
        }
        self.keys.insert(key.clone(), Box::new(stored));
    }
}
