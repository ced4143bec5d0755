//! Presence: who is in which room, for as long as it says so.
//!
//! A room is a bucket of its own kind, whose keys are the members: so whoever watches is told of each who joins and leaves,
//! once and in order, and who does not say again that it is there leaves when its time is over, over any number of nodes.
//! A connection can be a member by itself (`kept`).
//!
//! It must not know how any of it is written to clients.

use std::sync::OnceLock;
use std::time::Duration;

use tidemill_proto::limits::PRESENCE_BYTES_MAX;
use tidemill_proto::presence::{KeptMember, Member, Members, Room};
use tidemill_proto::watched::WatchedKind;
use tidemill_proto::{BucketName, Code, MemberName, Problem, RoomName};

use super::live::Outlet;
use super::shown::{STEP_NAMES, Shown, shown as seen_by};
use super::{Failure, Gate, JsonText, KeyWatch, LeaseHold, Leased, WatchScope};
use crate::access::{Kind, Verb};
use crate::features::Feature;
use crate::storage::{BucketState, KeyChanges, KeyCondition, KeyEdit, KeyRange, KeysChanged, StorageError};

mod kept;
mod member;

use kept::Put;
pub(super) use kept::{Presence, Presences};
pub use member::PresenceOptions;
use member::{change, key_of, member_of, shown};

/// How long somebody is in a room at least and at most without saying so again.
const TTL: [Duration; 2] = [Duration::from_secs(1), Duration::from_hours(24)];
/// How long, where nothing is said.
const TTL_USUAL: Duration = Duration::from_secs(30);
/// Bytes of what members say of themselves after which a page ends.
const PAGE_BYTES: usize = 1024 * 1024;

/// A page of members, and behind whom the next begins.
pub type MembersPage = (Members, Option<MemberName>);
/// A page of rooms, and behind which the next begins.
pub type RoomsPage = (Vec<Room>, Option<RoomName>);

impl Gate {
    /// Checks that the caller may do this with a member of a room, or with all of them.
    ///
    /// # Errors
    /// It may not, or presence is switched off.
    pub fn check_room(
        &self,
        verb: Verb,
        room: &RoomName,
        member: Option<&MemberName>,
    ) -> Result<(), Failure> {
        if !self.relay().options.features.has(Feature::Presence) {
            let rule = "is not kept: presence is switched off on this relay (setting `TIDEMILL_FEATURES`, which does not name `presence`)";
            return Err(Problem::field("room", rule).into());
        }
        Ok(match member {
            Some(member) => {
                self.caller().check_named(verb, Kind::Presence, &[room.as_str(), member.as_str()])
            }
            None => self.caller().check_each(verb, Kind::Presence, &[room.as_str(), ""]),
        }?)
    }

    /// Has somebody be in a room for so long, or as long as a lease lasts, with what it says of itself. Returns the member, and whether it has just
    /// come. Who is there already and says the same stays longer, and nobody is told.
    ///
    /// # Errors
    /// The caller may not, the time or the data are out of bounds, or the storage refused it or did not answer.
    pub async fn join_room(
        &self,
        room: &RoomName,
        member: &MemberName,
        data: Option<JsonText>,
        ttl: Option<Duration>,
        lease: Option<&LeaseHold>,
    ) -> Result<(Member, bool), Failure> {
        self.check_room(Verb::Publish, room, Some(member))?;
        let ttl = ttl.unwrap_or(TTL_USUAL);
        if !(TTL[0]..=TTL[1]).contains(&ttl) {
            return Err(Problem::field("ttl", "must be from 1 s to 24 h").into());
        }
        let ttl = lease.map_or(ttl, LeaseHold::left);
        let data = data.map(|text| read_data(&text)).transpose()?;
        let now = self.relay().storage.upkeep.now();
        let mark = lease.map(|hold| format!("{:016x}", u64::from_be_bytes(hold.digest())));
        let kept = KeptMember { since: now, node: None, connection: None, address: None, lease: mark, data };
        let Put { kept, is_new, revision } =
            self.relay().presences.put(&self.relay().storage, room, member, kept, ttl).await?;
        let expires_at = match lease {
            None => self.relay().storage.upkeep.now().saturating_add(ttl),
            Some(hold) => {
                let bucket = BucketName::of_room(room);
                self.put_under(hold, Leased::Key { bucket, key: key_of(member), revision }, false).await?
            }
        };
        Ok((member_of(member.clone(), Some(expires_at), kept), is_new))
    }

    /// Has somebody leave a room; returns whether it was there.
    ///
    /// # Errors
    /// The caller may not, or the storage did not answer.
    pub async fn leave_room(&self, room: &RoomName, member: &MemberName) -> Result<bool, Failure> {
        self.check_room(Verb::Publish, room, Some(member))?;
        let bucket = BucketName::of_room(room);
        let changes =
            change(&self.relay().storage, &bucket, key_of(member), KeyCondition::Anything, KeyEdit::Delete);
        match self.relay().storage.buckets.change_keys(KeyChanges { create_bucket: false, ..changes }).await {
            Ok(KeysChanged::Made { changed, .. }) => {
                Ok(changed.first().is_some_and(|changed| changed.revision.is_some()))
            }
            Ok(KeysChanged::Refused { .. }) | Err(StorageError::NoBucket) => Ok(false),
            Err(error) => Err(Failure::read(error, None)),
        }
    }

    /// Returns the rooms in which somebody is, and whose members the caller may read, among up to `limit` whose names come
    /// after `after`. A page may be empty where others follow.
    ///
    /// # Errors
    /// The caller may read no room, too many that it may not read lie in between, or the storage did not answer.
    pub async fn list_rooms(&self, after: Option<&RoomName>, limit: usize) -> Result<RoomsPage, Failure> {
        self.caller().check_some_named(Verb::Read, Kind::Presence)?;
        let buckets = &self.relay().storage.buckets;
        let names =
            |after: Option<RoomName>| async move { buckets.room_names(after.as_ref(), STEP_NAMES).await };
        let is_shown = |room: &RoomName| self.check_room(Verb::Read, room, None).is_ok();
        let Shown { names, next } = seen_by("rooms", after, limit, names, is_shown).await?;
        let described = self.described(names.iter().map(BucketName::of_room)).await?;
        let there = described.into_iter().filter(|bucket| bucket.keys > 0);
        let rooms = there.filter_map(|BucketState { bucket, keys: count, .. }| {
            bucket.room().map(|room| Room { room, count })
        });
        Ok((rooms.collect(), next))
    }

    /// Returns a page of the members of a room. In a room that nobody has been in there is nobody.
    ///
    /// # Errors
    /// The caller may not, or the storage did not answer.
    pub async fn members(
        &self,
        room: &RoomName,
        after: Option<&MemberName>,
        limit: usize,
    ) -> Result<MembersPage, Failure> {
        self.check_room(Verb::Read, room, None)?;
        let (bucket, buckets) = (BucketName::of_room(room), &self.relay().storage.buckets);
        let nobody = || (Members { room: room.clone(), count: 0, members: Vec::new() }, None);
        let count = match buckets.bucket(&bucket).await {
            Ok(BucketState { keys, .. }) => keys,
            Err(StorageError::NoBucket) => return Ok(nobody()),
            Err(error) => return Err(Failure::read(error, None)),
        };
        let range = KeyRange {
            prefix: "".into(),
            after: after.map(key_of),
            limit,
            bytes_max: PAGE_BYTES,
            values: true,
        };
        match buckets.list_keys(&bucket, range).await {
            Ok(page) => {
                let members = page.entries.iter().filter_map(shown).collect();
                let next = page.next.and_then(|next| MemberName::parse(next.as_str()).ok());
                Ok((Members { room: room.clone(), count, members }, next))
            }
            Err(StorageError::NoBucket) => Ok(nobody()),
            Err(error) => Err(Failure::read(error, None)),
        }
    }

    /// Watches who joins and leaves a room.
    ///
    /// # Errors
    /// The caller may not.
    pub fn watch_room<O: Outlet>(&self, room: &RoomName) -> Result<KeyWatch<O>, Failure> {
        self.check_room(Verb::Read, room, None)?;
        let (kind, bucket) = (WatchedKind::Members, BucketName::of_room(room));
        Ok(KeyWatch::new(self, kind, &bucket, WatchScope::Prefix("".into())))
    }

    /// Returns the gate for a caller whose session is to be a member of a room as long as it is open: of this name, or of
    /// one that is made up. Whoever opens it has it [enter](Self::enter_room) once nothing else can be refused.
    ///
    /// # Errors
    /// The caller may not.
    pub fn present_in(self, room: RoomName, member: Option<MemberName>) -> Result<Self, Failure> {
        let connection = format!("{:016x}", crate::chance::random());
        let member = match member {
            Some(member) => member,
            None => MemberName::parse(&connection).map_err(|_| unnamed())?,
        };
        self.check_room(Verb::Publish, &room, Some(&member))?;
        let address = self.origin().address().map(|address| address.to_string());
        Ok(self.with_presence(Presence { room, member, connection, address, present: OnceLock::new() }))
    }

    /// Has the caller be in its room from now on, where it is to be in one, until its session is over.
    ///
    /// # Errors
    /// The storage refused it or did not answer.
    pub async fn enter_room(&self) -> Result<(), Failure> {
        let Some(presence) = self.presence() else { return Ok(()) };
        let inner = self.relay();
        let present = inner.presences.enter(&inner.storage, presence).await?;
        // Who has entered already stays as it has; the other one leaves by being dropped.
        drop(presence.present.set(present));
        Ok(())
    }
}

fn unnamed() -> Failure {
    Problem::new(Code::Internal, "a name that was made up is none").into()
}

fn read_data(text: &JsonText) -> Result<Box<serde_json::value::RawValue>, Failure> {
    let bytes = text.as_bytes();
    if bytes.len() > PRESENCE_BYTES_MAX {
        let detail = format!(
            "what a member says of itself has {} bytes; it may have {PRESENCE_BYTES_MAX}",
            bytes.len()
        );
        return Err(Problem::new(Code::TooLarge, detail).into());
    }
    serde_json::from_slice(bytes).map_err(|error| Problem::field("body", error).into())
}
