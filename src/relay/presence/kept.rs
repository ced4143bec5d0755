//! Connections that are members of rooms: their node says for them that they are there, until they close.
//!
//! One that has closed stays for the grace time: who comes back under the same name, to whichever node, never left. Where a
//! node is killed its members leave when their time is over.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::StreamExt as _;
use parking_lot::Mutex;
use tidemill_proto::presence::KeptMember;
use tidemill_proto::{BucketName, KeyName, MemberName, MessageId, RoomName};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::member::{PresenceOptions, change, key_of, read_kept, value_of};
use crate::relay::Failure;
use crate::storage::{KeyCondition, KeyEdit, KeysChanged, Storage, StorageError};

/// How often a member is put again that somebody else has put at the same moment.
const ROUNDS_MAX: usize = 8;
/// A member's time is given anew so often in it.
const RENEWED: u32 = 3;
/// Members of which that is asked at one time.
const AT_ONCE: usize = 64;

/// What a node keeps in rooms.
#[derive(Debug)]
pub(in crate::relay) struct Presences {
    options: PresenceOptions,
    open: Mutex<Open>,
    left: Notify,
}

/// A room and a member of it.
type Place = (BucketName, KeyName);
/// The name of a connection, and what is kept of it.
type Connection = (Box<str>, KeptMember);

#[derive(Debug, Default)]
struct Open {
    /// By room and member: the connections of each name, the newest last, and what is kept of each.
    members: HashMap<Place, Vec<Connection>>,
    /// Connections that have closed, and were the newest of their name.
    closed: Vec<(BucketName, KeyName, Box<str>)>,
}

impl Open {
    /// Returns what is kept of the newest connection of a name.
    fn newest(&self, bucket: &BucketName, key: &KeyName) -> Option<KeptMember> {
        let connections = self.members.get(&(bucket.clone(), key.clone()))?;
        connections.last().map(|(_, kept)| kept.clone())
    }
}

/// A member that was put.
pub(super) struct Put {
    /// What is kept of it.
    pub(super) kept: KeptMember,
    /// Whether it has just come.
    pub(super) is_new: bool,
    /// The change that it came with as it is.
    pub(super) revision: MessageId,
}

/// The room in which a session is to be, and its membership once it is open.
#[derive(Debug)]
pub(in crate::relay) struct Presence {
    pub(super) room: RoomName,
    pub(super) member: MemberName,
    pub(super) connection: String,
    pub(super) address: Option<String>,
    pub(super) present: OnceLock<Present>,
}

/// A connection's membership, until it is dropped.
#[derive(Debug)]
pub(super) struct Present {
    of: Arc<Presences>,
    bucket: BucketName,
    key: KeyName,
    connection: Box<str>,
}

impl Drop for Present {
    fn drop(&mut self) {
        let mut open = self.of.open.lock();
        let member = (self.bucket.clone(), self.key.clone());
        let Some(connections) = open.members.get_mut(&member) else { return };
        let was_newest = connections.last().is_some_and(|(newest, _)| *newest == self.connection);
        connections.retain(|(connection, _)| *connection != self.connection);
        if connections.is_empty() {
            open.members.remove(&member);
        }
        if was_newest {
            open.closed.push((member.0, member.1, self.connection.clone()));
            self.of.left.notify_one();
        }
    }
}

impl Presences {
    pub(in crate::relay) fn new(options: PresenceOptions) -> Arc<Self> {
        Arc::new(Self { options, open: Mutex::default(), left: Notify::new() })
    }

    /// Returns how many connections of this node are members.
    pub(in crate::relay) fn connections(&self) -> usize {
        self.open.lock().members.values().map(Vec::len).sum()
    }

    /// Has somebody be in a room.
    pub(super) async fn put(
        &self,
        storage: &Storage,
        room: &RoomName,
        member: &MemberName,
        kept: KeptMember,
        ttl: Duration,
    ) -> Result<Put, Failure> {
        self.put_in(storage, &BucketName::of_room(room), &key_of(member), kept, ttl).await
    }

    async fn put_in(
        &self,
        storage: &Storage,
        bucket: &BucketName,
        key: &KeyName,
        mut kept: KeptMember,
        ttl: Duration,
    ) -> Result<Put, Failure> {
        let failed = |error| Failure::read(error, None);
        for _ in 0..ROUNDS_MAX {
            // Who is there already stays since it came, and where it says nothing new nobody is told.
            let there = match storage.buckets.touch_key(bucket, key, Some(ttl), true).await {
                Ok(there) => there,
                Err(StorageError::NoBucket) => None,
                Err(error) => return Err(failed(error)),
            };
            let mut condition = KeyCondition::Absent;
            if let Some(entry) = &there {
                condition = KeyCondition::Revision(entry.revision);
                if let Some(before) = read_kept(entry) {
                    kept.since = before.since;
                }
                if entry.value.as_ref() == Some(&value_of(&kept)) {
                    return Ok(Put { kept, is_new: false, revision: entry.revision });
                }
            }
            let edit = KeyEdit::Put { value: value_of(&kept), ttl: Some(ttl), fresh: None, owner: None };
            let changes = change(storage, bucket, key.clone(), condition, edit);
            let made = storage.buckets.change_keys(changes).await.map_err(failed)?;
            if let KeysChanged::Made { changed, .. } = made
                && let Some(revision) = changed.first().and_then(|changed| changed.revision)
            {
                return Ok(Put { kept, is_new: there.is_none(), revision });
            }
        }
        Err(failed(StorageError::Overloaded))
    }

    /// Has a connection be in a room.
    pub(super) async fn enter(
        self: &Arc<Self>,
        storage: &Storage,
        presence: &Presence,
    ) -> Result<Present, Failure> {
        let Presence { room, member, connection, address, .. } = presence;
        let (bucket, key) = (BucketName::of_room(room), key_of(member));
        let node = Some(self.options.node.to_string());
        let since = storage.upkeep.now();
        let (name, address) = (Some(connection.clone()), address.clone());
        let kept = KeptMember { since, node, connection: name, address, lease: None, data: None };
        let Put { kept, .. } = self.put_in(storage, &bucket, &key, kept, self.options.ttl).await?;
        let mut open = self.open.lock();
        open.members
            .entry((bucket.clone(), key.clone()))
            .or_default()
            .push((connection.as_str().into(), kept));
        drop(open);
        Ok(Present { of: self.clone(), bucket, key, connection: connection.as_str().into() })
    }

    /// Says for the connections of this node that they are there, and has those leave that have closed, until it is
    /// dropped.
    pub(in crate::relay) async fn keep(self: Arc<Self>, storage: Storage) {
        let every = self.options.ttl / RENEWED;
        let mut next = Instant::now() + every;
        loop {
            tokio::select! {
                () = sleep_until(next) => {
                    next = Instant::now() + every;
                    self.renew(&storage).await;
                }
                () = self.left.notified() => {}
            }
            self.let_leave(&storage).await;
        }
    }

    async fn renew(&self, storage: &Storage) {
        let newest = |(of, connections): (&Place, &Vec<Connection>)| {
            connections.last().map(|(_, kept)| (of.clone(), kept.clone()))
        };
        let members: Vec<_> = self.open.lock().members.iter().filter_map(newest).collect();
        let renew = |((bucket, key), kept): (Place, KeptMember)| async move {
            match storage.buckets.touch_key(&bucket, &key, Some(self.options.ttl), false).await {
                Ok(Some(_)) => {}
                // Its time was over while the storage could not be asked, or somebody has taken it out: it is there.
                Ok(None) | Err(StorageError::NoBucket) => {
                    let _ = self.put_in(storage, &bucket, &key, kept, self.options.ttl).await;
                }
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::debug!(%bucket, %key, error, "a member is not kept in its room, tried again soon");
                }
            }
        };
        futures_util::stream::iter(members).for_each_concurrent(AT_ONCE, renew).await;
    }

    async fn let_leave(&self, storage: &Storage) {
        let closed = std::mem::take(&mut self.open.lock().closed);
        let leave = |(bucket, key, connection): (BucketName, KeyName, Box<str>)| async move {
            // Who has come back, here or elsewhere, is another connection.
            let is_it = |entry: &crate::storage::KeyEntry| {
                read_kept(entry).is_some_and(|kept| kept.connection.as_deref() == Some(&*connection))
            };
            let Ok(Some(entry)) = storage.buckets.key(&bucket, &key, true).await else { return };
            if !is_it(&entry) {
                return;
            }
            // What is not done now is over with the member's time.
            let newest = self.open.lock().newest(&bucket, &key);
            if let Some(kept) = newest {
                // Another one of its name is open.
                let _ = self.put_in(storage, &bucket, &key, kept, self.options.ttl).await;
            } else if self.options.grace.is_zero() {
                let condition = KeyCondition::Revision(entry.revision);
                let changes = change(storage, &bucket, key, condition, KeyEdit::Delete);
                let _ = storage.buckets.change_keys(changes).await;
            } else {
                let touched = storage.buckets.touch_key(&bucket, &key, Some(self.options.grace), true).await;
                if touched.is_ok_and(|touched| touched.is_some_and(|entry| !is_it(&entry))) {
                    // It has come back at this moment, and has its whole time.
                    let _ = storage.buckets.touch_key(&bucket, &key, Some(self.options.ttl), false).await;
                }
            }
        };
        futures_util::stream::iter(closed).for_each_concurrent(AT_ONCE, leave).await;
    }
}
