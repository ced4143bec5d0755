//! Connections that are members of rooms: their node says for them that they are there, until they close.
//!
//! One that has closed stays for the grace time: who comes back under the same name, to whichever node, never left. Where a
//! node is killed its members leave when their time is over.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use parking_lot::Mutex;
use tidemill_proto::presence::KeptMember;
use tidemill_proto::{BucketName, KeyName, MemberName, RoomName};
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

#[derive(Debug, Default)]
struct Open {
    /// By room and member: the newest connection of each name, and since when it is there.
    members: HashMap<(BucketName, KeyName), (Box<str>, KeptMember)>,
    /// Connections that have closed.
    closed: Vec<(BucketName, KeyName, Box<str>)>,
}

/// A connection's membership, until it is dropped.
#[derive(Debug)]
pub struct Present {
    of: Arc<Presences>,
    bucket: BucketName,
    key: KeyName,
    connection: Box<str>,
}

impl Drop for Present {
    fn drop(&mut self) {
        let mut open = self.of.open.lock();
        let member = (self.bucket.clone(), self.key.clone());
        if open.members.get(&member).is_some_and(|(connection, _)| *connection == self.connection) {
            open.members.remove(&member);
            open.closed.push((member.0, member.1, self.connection.clone()));
            self.of.left.notify_one();
        }
    }
}

impl Presences {
    pub(in crate::relay) fn new(options: PresenceOptions) -> Arc<Self> {
        Arc::new(Self { options, open: Mutex::default(), left: Notify::new() })
    }

    /// Has somebody be in a room; returns what is kept of it, and whether it has just come.
    pub(super) async fn put(
        &self,
        storage: &Storage,
        room: &RoomName,
        member: &MemberName,
        kept: KeptMember,
        ttl: Duration,
    ) -> Result<(KeptMember, bool), Failure> {
        self.put_in(storage, &BucketName::of_room(room), &key_of(member), kept, ttl).await
    }

    async fn put_in(
        &self,
        storage: &Storage,
        bucket: &BucketName,
        key: &KeyName,
        mut kept: KeptMember,
        ttl: Duration,
    ) -> Result<(KeptMember, bool), Failure> {
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
                    return Ok((kept, false));
                }
            }
            let edit = KeyEdit::Put { value: value_of(&kept), ttl: Some(ttl), owner: None };
            let changes = change(storage, bucket, key.clone(), condition, edit);
            if let KeysChanged::Made { .. } = storage.buckets.change_keys(changes).await.map_err(failed)? {
                return Ok((kept, there.is_none()));
            }
        }
        Err(failed(StorageError::Overloaded))
    }

    /// Has a connection be in a room.
    pub(super) async fn enter(
        self: &Arc<Self>,
        storage: &Storage,
        room: &RoomName,
        member: MemberName,
        connection: &str,
        address: Option<String>,
    ) -> Result<Present, Failure> {
        let (bucket, key) = (BucketName::of_room(room), key_of(&member));
        let node = Some(self.options.node.to_string());
        let since = storage.upkeep.now();
        let kept = KeptMember { since, node, connection: Some(connection.to_owned()), address, data: None };
        let (kept, _) = self.put_in(storage, &bucket, &key, kept, self.options.ttl).await?;
        self.open.lock().members.insert((bucket.clone(), key.clone()), (connection.into(), kept));
        Ok(Present { of: self.clone(), bucket, key, connection: connection.into() })
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
        let members: Vec<_> =
            self.open.lock().members.iter().map(|(of, kept)| (of.clone(), kept.clone())).collect();
        let renew = |((bucket, key), (_, kept)): ((BucketName, KeyName), (Box<str>, KeptMember))| async move {
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
            if self.options.grace.is_zero() {
                let condition = KeyCondition::Revision(entry.revision);
                let changes = change(storage, &bucket, key, condition, KeyEdit::Delete);
                let _ = storage.buckets.change_keys(changes).await;
            } else {
                let _ = storage.buckets.touch_key(&bucket, &key, Some(self.options.grace), false).await;
            }
        };
        futures_util::stream::iter(closed).for_each_concurrent(AT_ONCE, leave).await;
    }
}
