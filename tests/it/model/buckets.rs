//! Random operations on a bucket and on a model of it, compared after every step.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use tidemill::clock::Clock;
use tidemill::proto::{BucketName, KeyName, MessageId, Timestamp};
use tidemill::storage::{
    BucketSettings, KeyChange, KeyChanged, KeyChanges, KeyCondition, KeyEdit, KeyRange, KeyRefusal, KeyValue,
    KeysChanged, Logged, LoggedKind, Storage, StorageError,
};

use super::{runner, runtime};
use crate::support::ground::{Ground, read_all};
use crate::support::length;

/// A condition, told by what there was.
#[derive(Clone, Copy, Debug)]
enum Condition {
    Anything,
    Absent,
    Present,
    Current,
    Earlier,
}

#[derive(Clone, Debug)]
enum Edit {
    /// A value, seconds to live, and whose it is.
    Put(String, Option<u64>, Option<u8>),
    Delete,
    Increment(i64, Option<i64>, Option<i64>),
}

#[derive(Clone, Debug)]
enum Operation {
    Change(Vec<(u8, Condition, Edit)>),
    Touch(u8, Option<u64>),
    Revoke(u8),
    Expire,
    Set(BucketSettings),
    DeleteBucket,
    /// Turns the clock on, where it can be turned.
    Jump(u64),
}

fn edit() -> impl Strategy<Value = Edit> {
    let text = prop_oneof![3 => (-50..50_i64).prop_map(|number| number.to_string()), 1 => "\"[a-z]{0,12}\""];
    let bound = || prop::option::weighted(0.3, -60..60_i64);
    let by = prop_oneof![8 => -9..9_i64, 1 => Just(i64::MAX), 1 => Just(i64::MIN)];
    prop_oneof![
        5 => (text, prop::option::weighted(0.5, 1..40_u64), prop::option::of(0..3_u8))
            .prop_map(|(text, ttl, owner)| Edit::Put(text, ttl, owner)),
        2 => Just(Edit::Delete),
        3 => (by, bound(), bound()).prop_map(|(by, min, max)| Edit::Increment(by, min, max)),
    ]
}

fn operation() -> impl Strategy<Value = Operation> {
    let condition = prop_oneof![
        8 => Just(Condition::Anything),
        1 => Just(Condition::Absent),
        1 => Just(Condition::Present),
        2 => Just(Condition::Current),
        1 => Just(Condition::Earlier),
    ];
    let seconds = || prop::option::weighted(0.4, 1..40_u64);
    let settings = (1..4_u32, seconds(), seconds(), prop::option::of(1..8_u64), prop::option::of(1..60_u64));
    let settings = settings.prop_map(|(history, ttl, age, max_keys, max_bytes)| BucketSettings {
        history,
        ttl: ttl.map(Duration::from_secs),
        absolute_age: age.map(Duration::from_secs),
        max_keys,
        max_bytes,
        adaptive_ttl: None,
    });
    prop_oneof![
        12 => vec((0..10_u8, condition, edit()), 1..6).prop_map(|mut changes| {
            changes.sort_by_key(|(key, ..)| *key);
            changes.dedup_by_key(|(key, ..)| *key);
            Operation::Change(changes)
        }),
        3 => (0..10_u8, seconds()).prop_map(|(key, ttl)| Operation::Touch(key, ttl)),
        1 => (0..3_u8).prop_map(Operation::Revoke),
        1 => Just(Operation::Expire),
        2 => settings.prop_map(Operation::Set),
        1 => Just(Operation::DeleteBucket),
        4 => (0..20_u64).prop_map(Operation::Jump),
    ]
}

#[derive(Clone, Debug, PartialEq)]
struct Revision {
    id: MessageId,
    text: String,
    owner: Option<u8>,
}

#[derive(Clone, Debug)]
struct Key {
    created_at: Timestamp,
    end: Option<Timestamp>,
    /// The newest first.
    revisions: Vec<Revision>,
}

impl Key {
    fn weight(&self) -> usize {
        self.revisions.iter().map(|revision| revision.text.len()).sum()
    }
}

/// A bucket as it is to be, and what its log is to tell: a key, how it has changed, and its value.
#[derive(Clone, Debug, Default)]
struct Bucket {
    settings: BucketSettings,
    keys: BTreeMap<u8, Key>,
    log: Vec<(u8, LoggedKind, String)>,
}

impl Bucket {
    fn weight(&self) -> usize {
        self.keys.values().map(Key::weight).sum()
    }

    /// Has those expire whose time is over, of these keys.
    fn expire(&mut self, now: Timestamp, of: impl Fn(u8) -> bool) {
        let is_over = |key: &Key| key.end.is_some_and(|end| end <= now);
        let over = self.keys.iter().filter(|(name, key)| of(**name) && is_over(key));
        let mut over: Vec<_> = over.map(|(name, key)| (key.end, *name)).collect();
        over.sort_by_key(|(end, name)| (*end, name_of(*name)));
        for (_, name) in over {
            self.keys.remove(&name);
            self.log.push((name, LoggedKind::Expired, "null".to_owned()));
        }
    }

    fn end(&self, ttl: Option<u64>, created_at: Timestamp, now: Timestamp) -> Option<Timestamp> {
        let ttl = ttl.map(Duration::from_secs).or(self.settings.ttl);
        let end = ttl.map(|ttl| now.saturating_add(ttl));
        let age = self.settings.absolute_age.map(|age| created_at.saturating_add(age));
        end.into_iter().chain(age).min()
    }

    /// Makes one change, or says why not.
    fn change(
        &mut self,
        name: u8,
        condition: KeyCondition,
        edit: &Edit,
        now: Timestamp,
    ) -> Result<KeyChanged, KeyRefusal> {
        self.expire(now, |other| other == name);
        let found = self.keys.get(&name).cloned();
        let current = found.as_ref().map(|key| key.revisions[0].id);
        let holds = match condition {
            KeyCondition::Anything => true,
            KeyCondition::Absent => current.is_none(),
            KeyCondition::Present => current.is_some(),
            KeyCondition::Revision(revision) => current == Some(revision),
            // Nobody fills keys here.
            KeyCondition::Filling(_) => false,
        };
        if !holds {
            return Err(KeyRefusal::Condition(current));
        }
        let (text, owner, end, number) = match edit {
            Edit::Delete => {
                if self.keys.remove(&name).is_some() {
                    self.log.push((name, LoggedKind::Deleted, "null".to_owned()));
                }
                // What is not known yet is the revision.
                let revision = current.map(|_| MessageId::MIN);
                return Ok(KeyChanged { revision, is_new: false, number: None, expires_at: None });
            }
            Edit::Put(text, ttl, owner) => {
                let created_at = found.as_ref().map_or(now, |key| key.created_at);
                (text.clone(), *owner, self.end(*ttl, created_at, now), None)
            }
            Edit::Increment(by, min, max) => {
                let number: i64 = match &found {
                    None => 0,
                    Some(key) => key.revisions[0].text.parse().map_err(|_| KeyRefusal::NotANumber)?,
                };
                let sum = i128::from(number) + i128::from(*by);
                let least = min.unwrap_or(i64::MIN).into();
                let most = max.unwrap_or(i64::MAX).into();
                if sum < least || sum > most {
                    return Err(KeyRefusal::OutOfRange(number));
                }
                let (owner, end) = match &found {
                    Some(key) => (key.revisions[0].owner, key.end),
                    None => (None, self.end(None, now, now)),
                };
                (sum.to_string(), owner, end, Some(i64::try_from(sum).expect("it is in between")))
            }
        };
        let created_at = found.as_ref().map_or(now, |key| key.created_at);
        let mut revisions = found.as_ref().map_or_else(Vec::new, |key| key.revisions.clone());
        revisions.insert(0, Revision { id: MessageId::MIN, text: text.clone(), owner });
        revisions.truncate(self.settings.history as usize);
        let key = Key { created_at, end, revisions };
        let (before, after) = (found.as_ref().map_or(0, Key::weight), key.weight());
        self.keys.insert(name, key);
        if found.is_none() && self.settings.max_keys.is_some_and(|max| self.keys.len() as u64 > max) {
            return Err(KeyRefusal::TooManyKeys);
        }
        if after > before && self.settings.max_bytes.is_some_and(|max| self.weight() as u64 > max) {
            return Err(KeyRefusal::TooManyBytes);
        }
        self.log.push((name, LoggedKind::Put, text));
        let revision = Some(MessageId::MIN);
        Ok(KeyChanged { revision, is_new: found.is_none(), number, expires_at: end })
    }
}

fn name_of(number: u8) -> KeyName {
    KeyName::parse(["a", "a.b", "a:b", "ab", "b", "c-", "d", "e", "f", "g"][usize::from(number)]).unwrap()
}

fn owner_of(number: u8) -> KeyName {
    KeyName::parse(["ann", "an", "ann.b"][usize::from(number)]).unwrap()
}

struct Model<'a> {
    storage: &'a Storage,
    clock: &'a Clock,
    /// Whether the clock is that of the backend, so that times are known to the millisecond.
    is_exact: bool,
    name: BucketName,
    bucket: Option<Bucket>,
    last: MessageId,
}

impl Model<'_> {
    fn condition(&self, key: u8, condition: Condition) -> KeyCondition {
        let revisions = self.bucket.as_ref().and_then(|bucket| bucket.keys.get(&key));
        let of = |at: usize| revisions.and_then(|key| key.revisions.get(at)).map(|revision| revision.id);
        match condition {
            Condition::Anything => KeyCondition::Anything,
            Condition::Absent => KeyCondition::Absent,
            Condition::Present => KeyCondition::Present,
            Condition::Current => KeyCondition::Revision(of(0).unwrap_or(MessageId::MIN)),
            Condition::Earlier => KeyCondition::Revision(of(1).unwrap_or(MessageId::MAX)),
        }
    }

    async fn change(&mut self, changes: &[(u8, Condition, Edit)]) {
        let now = self.clock.now();
        let to_change = |(key, condition, edit): &(u8, Condition, Edit)| KeyChange {
            key: name_of(*key),
            condition: self.condition(*key, *condition),
            edit: match edit {
                Edit::Delete => KeyEdit::Delete,
                Edit::Put(text, ttl, owner) => KeyEdit::Put {
                    value: KeyValue { bytes: text.clone().into(), content_type: None },
                    ttl: ttl.map(Duration::from_secs),
                    fresh: None,
                    owner: owner.map(owner_of),
                },
                Edit::Increment(by, min, max) => {
                    KeyEdit::Increment { by: *by, min: *min, max: *max, ttl: None }
                }
            },
        };
        let asked: Vec<KeyChange> = changes.iter().map(to_change).collect();
        let all = KeyChanges {
            bucket: self.name.clone(),
            changes: asked.clone(),
            fence: None,
            idempotency: None,
            create_bucket: true,
            timestamp: now,
        };
        let answer = self.storage.buckets.change_keys(all).await.expect("it answers");
        let mut bucket = self.bucket.clone().unwrap_or_default();
        let made = |bucket: &mut Bucket| -> Result<Vec<KeyChanged>, (usize, KeyRefusal)> {
            let one = |(at, (asked, (key, _, edit))): (usize, (&KeyChange, &(u8, Condition, Edit)))| {
                bucket.change(*key, asked.condition, edit, now).map_err(|refusal| (at, refusal))
            };
            asked.iter().zip(changes).enumerate().map(one).collect()
        };
        let mut expected = made(&mut bucket);
        if let Err((_, KeyRefusal::TooManyKeys | KeyRefusal::TooManyBytes)) = expected {
            // Those whose time is over make room first, and have expired then whatever comes of it.
            let mut before = self.bucket.clone().unwrap_or_default();
            before.expire(now, |_| true);
            self.bucket = self.bucket.is_some().then(|| before.clone());
            bucket = before;
            expected = made(&mut bucket);
        }
        match (expected, answer) {
            (Err((at, refusal)), answer) => {
                assert_eq!(answer, KeysChanged::Refused { at, refusal });
            }
            (Ok(expected), KeysChanged::Made { changed, replayed: false }) => {
                for ((told, expected), (key, ..)) in changed.iter().zip(&expected).zip(changes) {
                    assert_eq!((told.is_new, told.number), (expected.is_new, expected.number));
                    assert_eq!(told.revision.is_some(), expected.revision.is_some());
                    assert_eq!(told.expires_at.is_some(), expected.expires_at.is_some());
                    assert!(!self.is_exact || told.expires_at == expected.expires_at, "{told:?}");
                    if let Some(id) = told.revision {
                        assert!(id > self.last, "{id} after {}", self.last);
                        self.last = id;
                        if let Some(key) = bucket.keys.get_mut(key) {
                            key.revisions[0].id = id;
                        }
                    }
                }
                assert_eq!(changed.len(), expected.len());
                // Where no key is made, no bucket is.
                if self.bucket.is_some() || !bucket.keys.is_empty() {
                    self.bucket = Some(bucket);
                }
            }
            (expected, answer) => panic!("{expected:?}: {answer:?}"),
        }
    }

    async fn apply(&mut self, operation: Operation) {
        let now = self.clock.now();
        let buckets = &self.storage.buckets;
        match operation {
            Operation::Change(changes) => self.change(&changes).await,
            Operation::Touch(name, ttl) => {
                let asked = ttl.map(Duration::from_secs);
                let touched = buckets.touch_key(&self.name, &name_of(name), asked, true).await.unwrap();
                let Some(bucket) = &mut self.bucket else { return assert_eq!(touched, None) };
                let found = bucket.keys.get(&name).filter(|key| key.end.is_none_or(|end| end > now));
                assert_eq!(touched.is_some(), found.is_some());
                if let Some(created_at) = found.map(|key| key.created_at) {
                    let end = bucket.end(ttl, created_at, now);
                    bucket.keys.get_mut(&name).expect("it was found").end = end;
                }
            }
            Operation::Revoke(owner) => {
                let revoked = buckets.revoke_keys(&self.name, &owner_of(owner), now).await;
                let Some(bucket) = &mut self.bucket else {
                    return assert!(matches!(revoked, Err(StorageError::NoBucket)));
                };
                let of_owner = |key: &Key| key.revisions[0].owner == Some(owner);
                let mut names: Vec<u8> =
                    bucket.keys.iter().filter(|(_, key)| of_owner(key)).map(|(name, _)| *name).collect();
                names.sort_by_key(|name| name_of(*name));
                let mut count = 0;
                for name in names {
                    bucket.expire(now, |other| other == name);
                    if bucket.keys.remove(&name).is_some() {
                        count += 1;
                        bucket.log.push((name, LoggedKind::Deleted, "null".to_owned()));
                    }
                }
                assert_eq!(revoked.unwrap(), count);
            }
            Operation::Expire => {
                let expired = buckets.expire_keys(std::slice::from_ref(&self.name)).await.pop().unwrap();
                let count = expired.map_or(0, |expired| expired.count);
                let Some(bucket) = &mut self.bucket else { return assert_eq!(count, 0) };
                let before = bucket.keys.len();
                bucket.expire(now, |_| true);
                assert_eq!(count, before - bucket.keys.len());
            }
            Operation::Set(settings) => {
                let (state, is_new) = buckets.put_bucket(&self.name, settings).await.unwrap();
                assert_eq!((state.settings, is_new), (settings, self.bucket.is_none()));
                self.bucket.get_or_insert_default().settings = settings;
            }
            Operation::DeleteBucket => {
                let deleted = buckets.delete_bucket(&self.name).await;
                assert_eq!(deleted.is_ok(), self.bucket.take().is_some());
            }
            Operation::Jump(seconds) => self.clock.set(now.saturating_add(Duration::from_secs(seconds))),
        }
    }

    /// Compares everything that can be seen.
    async fn compare(&mut self) {
        let buckets = &self.storage.buckets;
        let state = buckets.bucket(&self.name).await;
        let Some(bucket) = &self.bucket else {
            return assert!(matches!(state, Err(StorageError::NoBucket)), "{state:?}");
        };
        let (state, now) = (state.expect("it exists"), self.clock.now());
        assert_eq!((state.keys, state.bytes), (bucket.keys.len() as u64, bucket.weight() as u64));
        let range = KeyRange { prefix: "".into(), after: None, limit: 100, bytes_max: 1 << 20, values: true };
        let page = buckets.list_keys(&self.name, range).await.unwrap();
        let live: Vec<_> =
            bucket.keys.iter().filter(|(_, key)| key.end.is_none_or(|end| end > now)).collect();
        assert_eq!((page.entries.len(), page.next), (live.len(), None));
        for (name, key) in bucket.keys.iter().map(|(name, key)| (name_of(*name), key)) {
            let found = buckets.key(&self.name, &name, true).await.unwrap();
            let is_live = key.end.is_none_or(|end| end > now);
            assert_eq!(found.is_some(), is_live);
            let listed = page.entries.iter().find(|entry| entry.key == name);
            assert_eq!(listed, found.as_ref());
            let history = buckets.key_history(&self.name, &name).await.unwrap();
            let told = history.iter().map(|entry| {
                let text =
                    entry.value.as_ref().map(|value| String::from_utf8_lossy(&value.bytes).into_owned());
                (entry.revision, text.expect("a history has values"), entry.owner.clone())
            });
            let kept = key.revisions.iter().filter(|_| is_live);
            let kept = kept.map(|kept| (kept.id, kept.text.clone(), kept.owner.map(owner_of)));
            assert!(told.eq(kept), "{name}: {history:?}");
            if let Some(entry) = found {
                assert_eq!(entry.expires_at.is_some(), key.end.is_some());
                if self.is_exact {
                    assert_eq!((entry.created_at, entry.expires_at), (key.created_at, key.end));
                }
            }
        }
        let log = tidemill::proto::TopicName::log_of(&self.name);
        let told = read_all(self.storage, &log, tidemill::proto::page::Order::Asc, 1_000).await;
        if let Some(last) = told.last() {
            self.last = last.id;
        }
        let told = told.into_iter().map(|message| {
            let Logged { key, change, .. } = Logged::of(&message).expect("it tells of a change");
            (key, change, String::from_utf8_lossy(&message.body.payload).into_owned())
        });
        let expected = bucket.log.iter().map(|(key, change, text)| (name_of(*key), *change, text.clone()));
        let (told, expected): (Vec<_>, Vec<_>) = (told.collect(), expected.collect());
        assert_eq!(told, expected);
    }
}

async fn behaves(ground: &Ground, is_exact: bool, operations: Vec<Operation>) {
    let name = BucketName::parse(ground.topic().as_str()).expect("it has the grammar of topics");
    let (storage, clock) = (&ground.storage, &ground.clock);
    let mut model = Model { storage, clock, is_exact, name, bucket: None, last: MessageId::MIN };
    for operation in operations {
        model.apply(operation).await;
        model.compare().await;
    }
}

#[test]
fn buckets_in_memory_behave_like_the_model() {
    let runtime = runtime();
    let test = |operations| {
        let ground = Ground::memory_at(Clock::manual(Timestamp::from_millis(1_700_000_000_000)));
        runtime.block_on(behaves(&ground, true, operations));
        Ok(())
    };
    runner(length::pick(250, 20_000)).run(&vec(operation(), 1..50), test).unwrap();
}

#[cfg(feature = "valkey")]
fn buckets_on_a_server_behave(kind: crate::support::server::Kind) {
    const FAR: u64 = 100_000;

    let runtime = runtime();
    let Some(ground) = runtime.block_on(Ground::on(kind)) else { return };
    // The server's clock cannot be turned, so nothing may expire while a test runs.
    let far = |seconds: &mut Option<u64>| *seconds = seconds.map(|seconds| seconds * FAR);
    let operations = vec(operation(), 1..40).prop_map(move |mut operations| {
        for operation in &mut operations {
            match operation {
                Operation::Change(changes) => {
                    for (_, _, edit) in changes {
                        if let Edit::Put(_, ttl, _) = edit {
                            far(ttl);
                        }
                    }
                }
                Operation::Touch(_, ttl) => far(ttl),
                Operation::Set(settings) => {
                    for time in [&mut settings.ttl, &mut settings.absolute_age] {
                        *time = time.map(|time| time * u32::try_from(FAR).expect("it is small"));
                    }
                }
                Operation::Jump(_) => *operation = Operation::Expire,
                Operation::Revoke(_) | Operation::Expire | Operation::DeleteBucket => {}
            }
        }
        operations
    });
    let test = |operations| {
        runtime.block_on(behaves(&ground, false, operations));
        Ok(())
    };
    runner(length::pick(48, 2_000)).run(&operations, test).unwrap();
}

#[cfg(feature = "valkey")]
#[test]
fn buckets_in_valkey_behave_like_the_model() {
    buckets_on_a_server_behave(crate::support::server::Kind::Valkey);
}

#[cfg(feature = "valkey")]
#[test]
fn buckets_in_redis_behave_like_the_model() {
    buckets_on_a_server_behave(crate::support::server::Kind::Redis);
}
