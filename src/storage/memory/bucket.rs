//! One bucket: its keys, when they are over, whose they are, and the log of its changes.
//!
//! It owns the table, and that the log tells of every change of it. It must not know other buckets, budgets or locks.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Duration;

use bytes::Bytes;
use tidemill_proto::{BucketName, KeyName, MessageId, Timestamp, TopicName};

use super::keys::Keys;
use super::log::Log;
use crate::storage::{
    Body, BucketSettings, BucketState, Epoch, Freeze, Idempotency, KeyChanged, KeyDigest, KeyEntry, KeyPage,
    KeyRange, KeyValue, LOG_BYTES, LOG_CHANGES, Logged, LoggedKind, NewMessage, ROOM_IDLE, StorageError,
    TopicPolicy,
};

mod copying;
mod fills;
mod reads;
mod step;

use fills::Fills;
use reads::ReadKeys;

pub(super) use copying::cost_of_copied;
pub(super) use fills::ENDED_PER_FILL;
pub(super) use step::Step;

/// Keys whose time is over that one page steps over before it says how far it came.
const OVER_PER_PAGE_MAX: usize = 10_000;
/// What an allocation costs besides: its header and rounding.
const ALLOCATION_BYTES: usize = 16;
/// What a shared text costs besides: its allocation, and the counts of who shares it.
const TEXT_BYTES: usize = ALLOCATION_BYTES + 16;
/// What a key costs besides its name and its value: itself, its slot in a tree whose nodes are half full at worst, that
/// among those that have a time, also where it has none, and three allocations.
const KEY_BYTES: usize = size_of::<StoredKey>()
    + 2 * size_of::<(KeyName, Box<StoredKey>)>()
    + 2 * size_of::<(Timestamp, KeyName)>()
    + 2 * ALLOCATION_BYTES
    + TEXT_BYTES;
/// What it costs that a key is somebody's, besides the name.
const OWNED_BYTES: usize = 2 * size_of::<(KeyName, KeyName)>() + TEXT_BYTES;
/// What the digest of an earlier value costs.
const DIGEST_BYTES: usize = size_of::<KeyDigest>() + ALLOCATION_BYTES;
/// What an earlier revision costs besides its value and its digest.
const EARLIER_BYTES: usize = size_of::<Earlier>() + ALLOCATION_BYTES;
/// What it costs that a key has something that few have.
const BESIDE_BYTES: usize = size_of::<Beside>() + 2 * ALLOCATION_BYTES;

/// What the log of a bucket keeps.
pub(super) const LOG_POLICY: TopicPolicy =
    TopicPolicy { number: LOG_CHANGES, bytes: Some(LOG_BYTES), age: None };

/// What publishes of changes are answered again.
type Answers = Keys<Box<[KeyChanged]>>;

/// A value as it lies here: never a part of what a request brought.
#[derive(Debug)]
struct StoredValue {
    bytes: Box<[u8]>,
    content_type: Option<Box<str>>,
}

impl StoredValue {
    fn new(value: &KeyValue) -> Self {
        Self { bytes: value.bytes[..].into(), content_type: value.content_type.clone() }
    }

    fn to_value(&self) -> KeyValue {
        KeyValue { bytes: Bytes::copy_from_slice(&self.bytes), content_type: self.content_type.clone() }
    }

    fn cost(&self) -> usize {
        cost_of_value(self.bytes.len(), self.content_type.as_deref())
    }
}

fn cost_of_value(value_bytes: usize, content_type: Option<&str>) -> usize {
    value_bytes + content_type.map_or(0, |text| text.len() + ALLOCATION_BYTES)
}

fn cost_of_owner(owner: Option<&KeyName>) -> usize {
    owner.map_or(0, |owner| OWNED_BYTES + owner.as_str().len())
}

/// An earlier revision of a key.
#[derive(Debug)]
struct Earlier {
    revision: MessageId,
    owner: Option<KeyName>,
    value: StoredValue,
    digest: Option<Box<KeyDigest>>,
}

impl Earlier {
    fn cost(&self) -> usize {
        let owner = self.owner.as_ref().map_or(0, |owner| TEXT_BYTES + owner.as_str().len());
        let digest = if self.digest.is_some() { DIGEST_BYTES } else { 0 };
        EARLIER_BYTES + self.value.cost() + owner + digest
    }
}

/// What few keys have.
#[derive(Debug, Default)]
struct Beside {
    digest: Option<KeyDigest>,
    /// Until when the value is fresh, where that was said.
    fresh_until: Option<Timestamp>,
    /// Whether its fill lives by how often it was read.
    is_counted: bool,
    /// Earlier revisions, the newest first.
    past: Vec<Earlier>,
}

/// A key.
#[derive(Debug)]
struct StoredKey {
    revision: MessageId,
    created_at: Timestamp,
    /// The end of time where it is never over.
    expires_at: Timestamp,
    owner: Option<KeyName>,
    value: StoredValue,
    /// In a box of its own, so that most keys are smaller by it.
    beside: Option<Box<Beside>>,
}

/// Stands for "never" where a time is expected.
const NEVER: Timestamp = Timestamp::from_millis(u64::MAX);

impl StoredKey {
    fn is_over(&self, now: Timestamp) -> bool {
        self.expires_at <= now
    }

    fn expires_at(&self) -> Option<Timestamp> {
        (self.expires_at != NEVER).then_some(self.expires_at)
    }

    fn past(&self) -> &[Earlier] {
        self.beside.as_deref().map_or(&[], |beside| &beside.past)
    }

    fn digest(&self) -> Option<KeyDigest> {
        self.beside.as_deref()?.digest
    }

    fn fresh_until(&self) -> Option<Timestamp> {
        self.beside.as_deref()?.fresh_until
    }

    fn is_counted(&self) -> bool {
        self.beside.as_deref().is_some_and(|beside| beside.is_counted)
    }

    /// Returns the bytes of its values.
    fn weight(&self) -> u64 {
        let past = self.past().iter().map(|earlier| earlier.value.bytes.len());
        (self.value.bytes.len() + past.sum::<usize>()) as u64
    }

    /// Returns the bytes that it holds with everything that belongs to it.
    fn cost(&self, name: &KeyName) -> usize {
        let past: usize = self.past().iter().map(Earlier::cost).sum();
        let beside = if self.beside.is_some() { BESIDE_BYTES + past } else { 0 };
        KEY_BYTES + name.as_str().len() + self.value.cost() + cost_of_owner(self.owner.as_ref()) + beside
    }

    fn to_entry(&self, name: &KeyName, value: bool) -> KeyEntry {
        KeyEntry {
            key: name.clone(),
            revision: self.revision,
            created_at: self.created_at,
            expires_at: self.expires_at(),
            owner: self.owner.clone(),
            value: value.then(|| self.value.to_value()),
            digest: self.digest(),
            fresh_until: self.fresh_until(),
            is_counted: self.is_counted(),
        }
    }
}

/// A bucket.
#[derive(Debug)]
pub(super) struct Bucket {
    pub(super) settings: BucketSettings,
    created_at: Timestamp,
    log: Log,
    keys: BTreeMap<KeyName, Box<StoredKey>>,
    /// Those that have a time, by when it is over.
    due: BTreeSet<(Timestamp, KeyName)>,
    /// Those that are somebody's: whose, and which.
    owned: BTreeSet<(KeyName, KeyName)>,
    /// Bytes of values.
    weight: u64,
    /// Bytes of keys, with what they cost besides.
    keys_cost: usize,
    /// Who is filling keys. In a box of its own: most buckets have none.
    fills: Option<Box<Fills>>,
    /// How often keys are read, where fills live by that.
    reads: Option<Box<ReadKeys>>,
    /// In a box of their own: most buckets have none.
    answers: Option<Box<Answers>>,
    /// Why nothing is changed in it.
    freeze: Option<Freeze>,
    /// Whether all keys were taken over once.
    has_keys: bool,
}

/// What a bucket costs besides its name and its keys: itself, its slots in two trees whose nodes are half full at worst,
/// and its allocations.
const BUCKET_BYTES: usize = size_of::<Bucket>()
    + 2 * size_of::<(BucketName, Box<Bucket>)>()
    + 2 * size_of::<(Timestamp, BucketName)>()
    + TEXT_BYTES
    + ALLOCATION_BYTES;

/// Returns the bytes that a bucket without keys holds.
pub(super) fn bytes_of_empty(name: &BucketName) -> usize {
    BUCKET_BYTES + name.as_str().len()
}

impl Bucket {
    /// Returns an empty bucket, whose log gives ids after `last`.
    pub(super) fn new(settings: BucketSettings, last: MessageId, epoch: Epoch, now: Timestamp) -> Self {
        Self {
            settings,
            created_at: now,
            log: Log::new(last, epoch, now),
            keys: BTreeMap::new(),
            due: BTreeSet::new(),
            owned: BTreeSet::new(),
            weight: 0,
            keys_cost: 0,
            fills: None,
            reads: None,
            answers: None,
            freeze: None,
            has_keys: false,
        }
    }

    pub(super) fn state(&self, name: &BucketName) -> BucketState {
        BucketState {
            bucket: name.clone(),
            settings: self.settings,
            created_at: self.created_at,
            keys: self.keys.len() as u64,
            bytes: self.weight,
        }
    }

    pub(super) fn log(&self) -> &Log {
        &self.log
    }

    pub(super) fn log_mut(&mut self) -> &mut Log {
        &mut self.log
    }

    /// Returns the bytes that the keys hold, who is filling some, and how often they are read.
    pub(super) fn keys_cost(&self) -> usize {
        let reads = self.reads.as_ref().map_or(0, |reads| reads.cost());
        self.keys_cost + self.fills.as_ref().map_or(0, |fills| fills.cost()) + reads
    }

    /// Returns when the next key is over and is to expire.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.due.first().filter(|_| self.freeze.is_none()).map(|(due, _)| *due)
    }

    /// Returns up to `count` keys whose time is over, those first that were due first.
    pub(super) fn over(&self, now: Timestamp, count: usize) -> Vec<KeyName> {
        let over = self.due.iter().take_while(|(due, _)| *due <= now);
        over.take(count).map(|(_, key)| key.clone()).collect()
    }

    /// Returns up to `count` keys of an owner, behind one.
    pub(super) fn owned_by(&self, owner: &KeyName, after: Option<&KeyName>, count: usize) -> Vec<KeyName> {
        // Names of keys have the order of their bytes, and `-` is the first of all.
        let first = KeyName::parse("-").expect("it is a name");
        let from = match after {
            Some(after) => Bound::Excluded((owner.clone(), after.clone())),
            None => Bound::Included((owner.clone(), first)),
        };
        let of_owner = self.owned.range((from, Bound::Unbounded)).take_while(|(whose, _)| whose == owner);
        of_owner.take(count).map(|(_, key)| key.clone()).collect()
    }

    /// Returns whether it has no keys, and nothing was done with it for long.
    pub(super) fn is_idle(&self, now: Timestamp) -> bool {
        let used_at = self.created_at.max(Timestamp::from_millis(self.log.last_given().ms));
        self.keys.is_empty() && used_at.saturating_add(ROOM_IDLE) <= now
    }

    fn found(&self, key: &KeyName, now: Timestamp) -> Option<&StoredKey> {
        self.keys.get(key).map(|found| &**found).filter(|found| !found.is_over(now))
    }

    /// Returns whether a key is there whose time is over.
    pub(super) fn is_over(&self, key: &KeyName, now: Timestamp) -> bool {
        self.keys.get(key).is_some_and(|found| found.is_over(now))
    }

    pub(super) fn key(&self, key: &KeyName, value: bool, now: Timestamp) -> Option<KeyEntry> {
        self.found(key, now).map(|found| found.to_entry(key, value))
    }

    pub(super) fn history(&self, key: &KeyName, now: Timestamp) -> Vec<KeyEntry> {
        let Some(found) = self.found(key, now) else { return Vec::new() };
        let past = found.past().iter().map(|earlier| KeyEntry {
            key: key.clone(),
            revision: earlier.revision,
            created_at: found.created_at,
            expires_at: None,
            owner: earlier.owner.clone(),
            value: Some(earlier.value.to_value()),
            digest: earlier.digest.as_deref().copied(),
            fresh_until: None,
            is_counted: false,
        });
        std::iter::once(found.to_entry(key, true)).chain(past).collect()
    }

    pub(super) fn list(&self, range: &KeyRange, now: Timestamp) -> KeyPage {
        let prefix = &*range.prefix;
        let from = match &range.after {
            Some(after) if after.as_str() >= prefix => Bound::Excluded(after.as_str()),
            Some(_) | None => Bound::Included(prefix),
        };
        let of_prefix = self.keys.range::<str, _>((from, Bound::Unbounded));
        let mut page = KeyPage::default();
        let (mut bytes, mut over) = (0, 0);
        for (name, found) in of_prefix.take_while(|(name, _)| name.as_str().starts_with(prefix)) {
            if found.is_over(now) {
                over += 1;
                if over == OVER_PER_PAGE_MAX {
                    page.next = Some(name.clone());
                    break;
                }
                continue;
            }
            bytes += if range.values { found.value.bytes.len() } else { 0 };
            let is_full = page.entries.len() >= range.limit || bytes > range.bytes_max;
            if let Some(last) = page.entries.last().filter(|_| is_full) {
                page.next = Some(last.key.clone());
                break;
            }
            page.entries.push(found.to_entry(name, range.values));
        }
        page
    }

    /// Returns until when a key lives that came to be then, and is put or touched now.
    fn end(&self, ttl: Option<Duration>, created_at: Timestamp, now: Timestamp) -> Timestamp {
        let end = ttl.or(self.settings.ttl).map_or(NEVER, |ttl| now.saturating_add(ttl));
        let age = self.settings.absolute_age;
        age.map_or(NEVER, |age| created_at.saturating_add(age)).min(end)
    }

    pub(super) fn touch(
        &mut self,
        key: &KeyName,
        ttl: Option<Duration>,
        value: bool,
        now: Timestamp,
    ) -> Option<KeyEntry> {
        let found = self.found(key, now)?;
        if self.freeze.is_some() {
            return Some(found.to_entry(key, value));
        }
        let end = self.end(ttl, found.created_at, now);
        let (name, _) = self.keys.get_key_value(key)?;
        let name = name.clone();
        let found = self.keys.get_mut(key)?;
        if found.expires_at != end {
            self.due.remove(&(found.expires_at, name.clone()));
            found.expires_at = end;
            if end != NEVER {
                self.due.insert((end, name));
            }
        }
        Some(found.to_entry(key, value))
    }

    /// Returns the answer that an idempotency key stands for.
    pub(super) fn answer(
        &self,
        key: &Idempotency,
        now: Timestamp,
    ) -> Result<Option<Box<[KeyChanged]>>, StorageError> {
        self.answers.as_ref().map_or(Ok(None), |answers| answers.find(key, now))
    }

    /// Remembers an answer for the time of `window`, and returns the bytes that this takes.
    pub(super) fn remember(
        &mut self,
        key: &Idempotency,
        changed: &[KeyChanged],
        now: Timestamp,
        window: Duration,
    ) -> usize {
        let answers = self.answers.get_or_insert_default();
        let before = answers.bytes();
        answers.remember(key, changed.into(), now, window);
        answers.bytes() - before
    }

    /// Returns the bytes that one answer more holds, to so many changes.
    pub(super) fn answer_growth(bucket: Option<&Self>, key: &Idempotency, changes: usize) -> usize {
        let answers = bucket.and_then(|bucket| bucket.answers.as_deref());
        Answers::growth(answers, key) + changes * size_of::<KeyChanged>() + ALLOCATION_BYTES
    }

    /// Forgets up to `count` answers whose window has passed; returns how many, and the bytes that come free.
    pub(super) fn purge_answers(&mut self, now: Timestamp, count: usize) -> (usize, usize) {
        let Some(answers) = &mut self.answers else { return (0, 0) };
        let before = answers.bytes();
        let purged = answers.purge(now, count);
        let freed = before - answers.bytes();
        self.answers.take_if(|answers| answers.bytes() == 0);
        (purged, freed)
    }

    pub(super) fn next_answer_end(&self) -> Option<Timestamp> {
        self.answers.as_ref()?.next_end()
    }

    pub(super) fn answers_bytes(&self) -> usize {
        self.answers.as_ref().map_or(0, |answers| answers.bytes())
    }
}

/// Returns a change as it is appended to a log.
fn logged(
    log: &TopicName,
    key: &KeyName,
    change: LoggedKind,
    more: bool,
    value: Option<KeyValue>,
    at: Timestamp,
) -> NewMessage {
    let metadata = Logged { key: key.clone(), change, more }.metadata();
    let value = value.unwrap_or(KeyValue { bytes: Bytes::from_static(b"null"), content_type: None });
    NewMessage {
        topic: log.clone(),
        body: Body {
            payload: value.bytes,
            content_type: value.content_type,
            metadata: Some(metadata),
            order_key: None,
        },
        timestamp: at,
        expires_at: None,
        idempotency: None,
        expected_last: None,
        unique: None,
        fence: None,
        create_topic: false,
        owner: None,
        policy: LOG_POLICY,
    }
}
