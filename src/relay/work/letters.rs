//! Dead letters: what dies in a group becomes a message of another topic, and can come back from there.
//!
//! The group remembers what is dying until its letter is kept; the letter is published under an idempotency key of that
//! message, so that it is one, whichever node writes it and wherever that is interrupted.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use tidemill_proto::topics::TopicUpdate;
use tidemill_proto::work::{GroupName, MessageStateName, RedriveRequest, Redriven};
use tidemill_proto::{MessageId, Problem, TopicName};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access::Verb;
use crate::relay::{Failure, Gate, RelayOptions};
use crate::storage::{
    Appended, Body, DeadLetter, Dying, Idempotency, NewMessage, Outcome, Revived, STEP_MESSAGES_MAX,
    Settlement, Storage, StorageError, TopicPolicy,
};

/// The field of a dead letter's metadata that says where it comes from.
const ORIGIN: &str = "dead_letter";
/// How often, and after which time, it is tried again to write dead letters. They are dying until then, and whoever
/// claims has it tried again.
const WRITES_MAX: usize = 60;
const WRITE_AGAIN: Duration = Duration::from_secs(1);
/// For how long a topic of dead letters keeps them at least, where nobody has said otherwise: who is to look at them may
/// be away for longer than messages are of use.
const KEPT_FOR: Duration = Duration::from_hours(30 * 24);
/// Dead letters that are looked at in one step.
const PAGE: usize = 1_000;

/// Writes dead letters. Cloning is cheap.
#[derive(Clone, Debug)]
pub(in crate::relay) struct Letters(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    storage: Storage,
    policy: TopicPolicy,
    /// How long the topics of dead letters that are made here keep them; `None` for as long as all others.
    retention: Option<Duration>,
    /// Groups whose dead letters are being written.
    writing: Mutex<HashSet<(TopicName, GroupName)>>,
    written: AtomicU64,
    tracker: TaskTracker,
    token: CancellationToken,
    /// Tells that a group may have work.
    look: Look,
}

type OfGroup = dyn Fn(&TopicName, &GroupName) + Send + Sync;

/// What is told of a group that may have work.
pub(super) struct Look(pub(super) Box<OfGroup>);

impl fmt::Debug for Look {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Look").finish_non_exhaustive()
    }
}

impl Letters {
    pub(super) fn new(
        storage: Storage,
        options: &RelayOptions,
        tracker: &TaskTracker,
        token: &CancellationToken,
        look: Look,
    ) -> Self {
        let (tracker, token) = (tracker.clone(), token.clone());
        let policy = options.policy;
        let retention = options.retention.map(|retention| retention.max(KEPT_FOR));
        let (writing, written) = (Mutex::default(), AtomicU64::new(0));
        Self(Arc::new(Inner { storage, policy, retention, writing, written, tracker, token, look }))
    }

    /// Returns how many letters this node has written.
    pub(in crate::relay) fn written(&self) -> u64 {
        self.0.written.load(Ordering::Relaxed)
    }

    /// Has the dead letters of a group written, unless that is under way.
    pub(super) fn write_soon(&self, topic: &TopicName, group: &GroupName) {
        let of = (topic.clone(), group.clone());
        if !self.0.writing.lock().insert(of.clone()) {
            return;
        }
        let letters = self.clone();
        self.0.tracker.spawn(self.0.token.clone().run_until_cancelled_owned(async move {
            for _ in 0..WRITES_MAX {
                match letters.write(&of.0, &of.1).await {
                    Ok(()) | Err(StorageError::NoGroup | StorageError::NoTopic) => break,
                    Err(error) => {
                        let error = &error as &dyn std::error::Error;
                        tracing::warn!(topic = %of.0, group = %of.1, error, "dead letters were not written, trying again");
                    }
                }
                sleep(WRITE_AGAIN).await;
            }
            letters.0.writing.lock().remove(&of);
        }));
    }

    /// Gives deliveries back that nobody has got, whatever becomes of who says so.
    pub(super) fn give_back(&self, topic: &TopicName, group: &GroupName, settlements: Vec<Settlement>) {
        let (letters, topic, group) = (self.clone(), topic.clone(), group.clone());
        self.0.tracker.spawn(self.0.token.clone().run_until_cancelled_owned(async move {
            letters.return_all(&topic, &group, settlements).await;
        }));
    }

    /// Gives deliveries back that nobody has got, or whose consumer is lost.
    pub(super) async fn return_all(
        &self,
        topic: &TopicName,
        group: &GroupName,
        settlements: Vec<Settlement>,
    ) {
        for settlements in settlements.chunks(STEP_MESSAGES_MAX) {
            match self.0.storage.work.settle(topic, group, settlements.to_vec()).await {
                Ok(outcomes) => {
                    let dies = |outcome: &Outcome| matches!(outcome, Outcome::Settled { dying: true, .. });
                    if outcomes.iter().any(dies) {
                        self.write_soon(topic, group);
                    }
                }
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::debug!(%topic, %group, error, "deliveries that nobody has come back when their time is over");
                }
            }
        }
        self.0.look.0(topic, group);
    }

    /// Writes the letters of all that is dying.
    ///
    /// # Errors
    /// Those of appending to their topic, and of the group.
    async fn write(&self, topic: &TopicName, group: &GroupName) -> Result<(), StorageError> {
        let Inner { storage, .. } = &*self.0;
        loop {
            let dying = storage.work.dying(topic, group, STEP_MESSAGES_MAX).await?;
            if dying.is_empty() {
                return Ok(());
            }
            let settings = storage.work.group(topic, group).await?.settings;
            let letters: Vec<NewMessage> = dying
                .iter()
                .filter(|one| one.message.is_some())
                .map(|one| self.letter(topic, group, &settings.dead_letter, one))
                .collect();
            let mut kept = self.append(&settings.dead_letter, letters).await?.into_iter();
            for one in dying {
                let letter = match one.message {
                    Some(_) => match kept.next() {
                        Some(appended) => Some(appended?.id),
                        None => None,
                    },
                    None => None,
                };
                let dead = DeadLetter { id: one.id, letter };
                if storage.work.bury(topic, group, one.epoch, dead).await? {
                    self.0.written.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    /// Appends letters; makes their topic, if it is not there.
    async fn append(
        &self,
        to: &TopicName,
        letters: Vec<NewMessage>,
    ) -> Result<Vec<Result<Appended, StorageError>>, StorageError> {
        let Inner { storage, retention, .. } = &*self.0;
        let kept = storage.messages.append(letters.clone()).await;
        if !kept.iter().any(|kept| matches!(kept, Err(StorageError::NoTopic))) {
            return Ok(kept);
        }
        let update = TopicUpdate {
            retention_seconds: retention.map(|retention| retention.as_secs()),
            ..TopicUpdate::default()
        };
        match storage.topics.create(to, update, None).await {
            // Somebody else has made it at this moment.
            Ok(_) | Err(StorageError::TopicExists) => Ok(storage.messages.append(letters).await),
            Err(error) => Err(error),
        }
    }

    fn letter(&self, topic: &TopicName, group: &GroupName, to: &TopicName, dying: &Dying) -> NewMessage {
        let now = self.0.storage.upkeep.now();
        let body = dying.message.as_ref().map(|message| message.body.clone());
        let body = body.unwrap_or(Body {
            payload: Bytes::new(),
            content_type: None,
            metadata: None,
            order_key: None,
        });
        let published_at = dying.message.as_ref().map_or(now, |message| message.timestamp);
        let mut origin = json!({
            "topic": topic.as_str(),
            "group": group.as_str(),
            "message_id": dying.id.to_string(),
            "published_at": &*published_at.text(),
            "died_at": &*now.text(),
            "reason": &*dying.reason,
            "deliveries": dying.deliveries,
            "failures": dying.failures,
            "crashes": dying.crashes,
        });
        if let (Some(fields), Some(error)) = (origin.as_object_mut(), &dying.error) {
            fields.insert("error".to_owned(), json!(&**error));
        }
        let metadata = with_origin(body.metadata.as_deref(), origin);
        // Names hold no slash: no two deaths share a key.
        let key = format!("dead/{topic}/{group}/{:016x}/{}/{}", dying.epoch, dying.id, dying.deliveries);
        let fingerprint = Sha256::digest(&key);
        let key = if key.len() > 300 { format!("dead/{fingerprint:x}") } else { key };
        let mut print = [0; 16];
        print.copy_from_slice(&fingerprint[..16]);
        NewMessage {
            topic: to.clone(),
            body: Body { metadata: Some(metadata), ..body },
            timestamp: now,
            expires_at: None,
            idempotency: Some(Idempotency { key: key.into(), fingerprint: print }),
            expected_last: None,
            unique: None,
            fence: None,
            create_topic: false,
            owner: None,
            policy: self.0.policy,
        }
    }
}

/// Returns the metadata of a message with where its dead letter comes from.
fn with_origin(metadata: Option<&[u8]>, origin: Value) -> Bytes {
    let mut fields = fields_of(metadata).unwrap_or_default();
    fields.insert(ORIGIN.to_owned(), origin);
    Value::Object(fields).to_string().into()
}

/// Returns the metadata that a message had before it became a dead letter.
fn without_origin(metadata: Option<&[u8]>) -> Option<Bytes> {
    let mut fields = fields_of(metadata)?;
    fields.remove(ORIGIN);
    if fields.is_empty() { None } else { Some(Value::Object(fields).to_string().into()) }
}

fn fields_of(metadata: Option<&[u8]>) -> Option<Map<String, Value>> {
    serde_json::from_slice(metadata?).ok()
}

/// What is to be done with dead letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Do {
    Redrive,
    Purge,
}

impl Gate {
    /// Has dead letters of a group wait again, with no failures: the same messages, or copies of those that are gone
    /// from the topic. Their letters are deleted.
    ///
    /// # Errors
    /// The caller may not, neither ids nor all are asked for, there is no such group, or the storage did not answer.
    pub async fn redrive(
        &self,
        topic: &TopicName,
        group: &GroupName,
        asked: &RedriveRequest,
    ) -> Result<Redriven, Failure> {
        self.with_dead(topic, group, asked, Do::Redrive).await
    }

    /// Forgets dead letters of a group, and deletes them.
    ///
    /// # Errors
    /// As [`redrive`](Self::redrive).
    pub async fn purge(
        &self,
        topic: &TopicName,
        group: &GroupName,
        asked: &RedriveRequest,
    ) -> Result<Redriven, Failure> {
        self.with_dead(topic, group, asked, Do::Purge).await
    }

    async fn with_dead(
        &self,
        topic: &TopicName,
        group: &GroupName,
        asked: &RedriveRequest,
        what: Do,
    ) -> Result<Redriven, Failure> {
        self.check_topic(Verb::Manage, topic).await?;
        let work = &self.relay().storage.work;
        let failed = |error| Failure::work(error, topic, group);
        let settings = work.group(topic, group).await.map_err(failed)?.settings;
        if let Err(error) = self.relay().stations.letters().write(topic, group).await {
            // Their topic may take none. What is dying is none the less what was asked for.
            let error = &error as &dyn std::error::Error;
            tracing::debug!(%topic, %group, error, "dead letters cannot be written");
        }
        let mut done = Redriven::default();
        match (&asked.ids, asked.all) {
            (Some(ids), false) => {
                let mut known = Vec::new();
                for id in ids {
                    let after = id.previous();
                    let found = work.dead(topic, group, after, 1).await.map_err(failed)?;
                    match found.into_iter().find(|dead| dead.id == *id) {
                        Some(dead) => known.push(dead),
                        None if self.is_dying(topic, group, *id).await? => {
                            known.push(DeadLetter { id: *id, letter: None });
                        }
                        None => done.unknown += 1,
                    }
                }
                self.do_with(topic, group, &settings.dead_letter, known, (what, asked), &mut done).await?;
            }
            (None, true) => {
                let mut after = None;
                loop {
                    let page = work.dead(topic, group, after, PAGE).await.map_err(failed)?;
                    let Some(last) = page.last() else { break };
                    after = Some(last.id);
                    let how = (what, asked);
                    self.do_with(topic, group, &settings.dead_letter, page, how, &mut done).await?;
                }
                // With each, there are fewer; where it is only counted, there are not.
                loop {
                    let dying = work.dying(topic, group, STEP_MESSAGES_MAX).await.map_err(failed)?;
                    let page: Vec<_> =
                        dying.iter().map(|dying| DeadLetter { id: dying.id, letter: None }).collect();
                    let is_last = page.len() < STEP_MESSAGES_MAX || asked.dry_run;
                    self.do_with(topic, group, &settings.dead_letter, page, (what, asked), &mut done).await?;
                    if is_last {
                        break;
                    }
                }
            }
            _ => return Err(Problem::field("ids", "or `all` must be there, and only one of the two").into()),
        }
        if done.messages > 0 && !asked.dry_run {
            if let Some(station) = self.relay().stations.find(topic, group) {
                station.look();
            }
            let what = if what == Do::Redrive { "dead letters redriven" } else { "dead letters purged" };
            self.tell_group(what, topic, group);
        }
        Ok(done)
    }

    /// Returns whether a message is dying, and no letter of it was written.
    async fn is_dying(&self, topic: &TopicName, group: &GroupName, id: MessageId) -> Result<bool, Failure> {
        let fate = self.relay().storage.work.fate(topic, group, id).await;
        let fate = fate.map_err(|error| Failure::work(error, topic, group))?;
        Ok(fate.is_some_and(|fate| fate.state == MessageStateName::Dead))
    }

    async fn do_with(
        &self,
        topic: &TopicName,
        group: &GroupName,
        letters: &TopicName,
        dead: Vec<DeadLetter>,
        (what, asked): (Do, &RedriveRequest),
        done: &mut Redriven,
    ) -> Result<(), Failure> {
        let storage = &self.relay().storage;
        let failed = |error| Failure::work(error, topic, group);
        if asked.dry_run {
            done.messages += dead.len() as u64;
            return Ok(());
        }
        for dead in dead.chunks(STEP_MESSAGES_MAX) {
            let mut copied = HashSet::new();
            if what == Do::Redrive {
                // Before anything is forgotten: what is gone from the topic goes there again.
                for one in dead {
                    if storage.messages.get(topic, one.id).await.map_err(failed)?.is_none()
                        && let Some(is_first) = self.copy_back(topic, letters, one).await?
                    {
                        copied.insert(one.id);
                        done.copies += u64::from(is_first);
                    }
                }
            }
            // What the group does not know any more nobody would delete.
            for letter in dead.iter().filter_map(|one| one.letter) {
                // It may be gone already, and its topic as well.
                match storage.messages.remove(letters, letter).await {
                    Ok(_) | Err(StorageError::NoTopic) => {}
                    Err(error) => return Err(Failure::change(error, letters)),
                }
            }
            let delays = (done.messages..).map(|place| match asked.rate {
                Some(rate) => Duration::from_millis(place.saturating_mul(1_000) / u64::from(rate.max(1))),
                None => Duration::ZERO,
            });
            let ids: Vec<_> = dead.iter().map(|dead| dead.id).zip(delays).collect();
            let revived =
                storage.work.revive(topic, group, &ids, what == Do::Redrive).await.map_err(failed)?;
            for (one, revived) in dead.iter().zip(revived) {
                match revived {
                    // Neither the message is there, nor its letter.
                    Revived::Gone if what == Do::Redrive && !copied.contains(&one.id) => done.gone += 1,
                    Revived::Waits | Revived::Gone => done.messages += 1,
                    Revived::Unknown => done.unknown += 1,
                }
            }
        }
        Ok(())
    }

    /// Publishes a dead letter to the topic that it came from, if it is there; returns whether nobody else has done so.
    async fn copy_back(
        &self,
        topic: &TopicName,
        letters: &TopicName,
        dead: &DeadLetter,
    ) -> Result<Option<bool>, Failure> {
        let storage = &self.relay().storage;
        let Some(letter) = dead.letter else { return Ok(None) };
        let found = match storage.messages.get(letters, letter).await {
            Ok(found) => found,
            Err(StorageError::NoTopic) => None,
            Err(error) => return Err(Failure::read(error, Some(letters))),
        };
        let Some(found) = found else { return Ok(None) };
        let now = self.relay().clock.now();
        let metadata = without_origin(found.body.metadata.as_deref());
        let key = format!("redrive/{letter}/{}", dead.id);
        let mut fingerprint = [0; 16];
        fingerprint.copy_from_slice(&Sha256::digest(&key)[..16]);
        let copy = NewMessage {
            topic: topic.clone(),
            body: Body { metadata, ..found.body },
            timestamp: now,
            expires_at: None,
            idempotency: Some(Idempotency { key: key.into(), fingerprint }),
            expected_last: None,
            unique: None,
            fence: None,
            create_topic: false,
            owner: None,
            policy: self.relay().options.policy,
        };
        let kept = storage.messages.append(vec![copy]).await.into_iter().next();
        let kept = kept.expect("an append answers for each message");
        // Of several who do so at the same time, one has published it.
        Ok(Some(!kept.map_err(|error| Failure::change(error, topic))?.replayed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_says_where_it_comes_from_and_loses_that_again() {
        let origin = json!({"message_id": "1-2"});
        let told = with_origin(Some(br#"{"k":[1]}"#), origin.clone());
        let read: Value = serde_json::from_slice(&told).expect("JSON");
        assert_eq!(read["k"][0], 1);
        assert_eq!(read[ORIGIN]["message_id"], "1-2");
        assert_eq!(without_origin(Some(&told)).as_deref(), Some(&br#"{"k":[1]}"#[..]));
        assert_eq!(without_origin(Some(&with_origin(None, origin))), None);
    }
}
