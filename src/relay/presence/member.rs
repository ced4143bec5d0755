//! Members of rooms, as keys of a bucket and as they are shown.

use std::time::Duration;

use tidemill_proto::presence::{KeptMember, Member};
use tidemill_proto::{BucketName, KeyName, MemberName, NodeId, Timestamp};

use crate::storage::{KeyChange, KeyChanges, KeyCondition, KeyEdit, KeyEntry, KeyValue, Storage};

/// What an operator may set about connections that are members.
#[derive(Clone, Copy, Debug)]
pub struct PresenceOptions {
    /// The node, as members tell it.
    pub node: NodeId,
    /// How long a connection stays a member whose node does not say any more that it is there.
    pub ttl: Duration,
    /// How long one stays that has closed, so that nobody leaves who comes back at once.
    pub grace: Duration,
}

impl PresenceOptions {
    /// Returns what is usual.
    #[must_use]
    pub const fn usual(node: NodeId) -> Self {
        Self { node, ttl: Duration::from_secs(15), grace: Duration::from_secs(5) }
    }
}

/// Returns a member as a key.
pub(super) fn key_of(member: &MemberName) -> KeyName {
    KeyName::parse(member.as_str()).expect("names of members and of keys have one grammar")
}

/// Returns one change of one key.
pub(super) fn change(
    storage: &Storage,
    bucket: &BucketName,
    key: KeyName,
    condition: KeyCondition,
    edit: KeyEdit,
) -> KeyChanges {
    KeyChanges {
        bucket: bucket.clone(),
        changes: vec![KeyChange { key, condition, edit }],
        idempotency: None,
        fence: None,
        create_bucket: true,
        timestamp: storage.upkeep.now(),
    }
}

pub(super) fn value_of(kept: &KeptMember) -> KeyValue {
    let bytes = serde_json::to_vec(kept).expect("times, texts and JSON can be written");
    KeyValue { bytes: bytes.into(), content_type: None }
}

pub(super) fn read_kept(entry: &KeyEntry) -> Option<KeptMember> {
    serde_json::from_slice(&entry.value.as_ref()?.bytes).ok()
}

pub(super) fn member_of(member: MemberName, expires_at: Option<Timestamp>, kept: KeptMember) -> Member {
    let KeptMember { since, node, connection, address, lease, data } = kept;
    Member { member, since, expires_at, node, connection, address, lease, data }
}

/// Returns a member as it is shown; what another program has put there is none.
pub(super) fn shown(entry: &KeyEntry) -> Option<Member> {
    let kept = read_kept(entry)?;
    let member = MemberName::parse(entry.key.as_str()).ok()?;
    Some(member_of(member, entry.expires_at, kept))
}
