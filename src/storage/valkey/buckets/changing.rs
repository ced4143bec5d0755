//! Changes of keys of a bucket, which are one script (see `scripts::buckets::changing`).

use tidemill_proto::locks::Guarded;
use tidemill_proto::{KeyName, TopicName};

use super::super::calls::{Call, Joining};
use super::super::failure::Effect;
use super::super::resp::Arguments;
use super::super::{Shard, keys, scripts};
use super::replies::{self, Coded, Step, coded, read_changed};
use super::{ROUNDS_MAX, filling, ms_of, said};
use crate::storage::{
    BucketSettings, FENCE_KEPT, KeyChange, KeyChanges, KeyCondition, KeyDigest, KeyEdit, KeysChanged,
    READS_HALF_LIFE, StorageError, changed_without_bucket,
};

/// Adds the arguments that say what is to become of a key.
fn write_change(change: &KeyChange, own: &mut Arguments) {
    own.add(change.key.as_str().as_bytes());
    match change.condition {
        KeyCondition::Anything => own.add(b"*"),
        KeyCondition::Absent => own.add(b"-"),
        KeyCondition::Present => own.add(b"+"),
        KeyCondition::Revision(revision) => own.add(revision.to_string().as_bytes()),
        KeyCondition::Filling(token) => {
            let half_life = ms_of(Some(READS_HALF_LIFE));
            own.add(format!("={} {half_life}", filling::written(token)).as_bytes())
        }
    };
    match &change.edit {
        KeyEdit::Put { value, ttl, fresh, owner } => {
            own.add(b"put").add(&value.bytes);
            let digest = replies::written(&KeyDigest::of(&value.bytes));
            let owner = said(owner.as_ref().map(KeyName::as_str));
            own.extend([said(value.content_type.as_deref()), ms_of(*ttl), owner, digest, ms_of(*fresh)]);
        }
        KeyEdit::Delete => own.add(b"del").extend([""; 6]),
        KeyEdit::Increment { by, min, max, ttl } => {
            let bound = |bound: &Option<i64>| bound.map_or_else(String::new, |bound| bound.to_string());
            own.add(b"inc").extend([by.to_string(), bound(min), bound(max), ms_of(*ttl)]);
            own.extend([""; 2]);
        }
    }
}

impl Shard {
    /// Makes changes of keys.
    pub(in super::super) async fn change_keys(
        &self,
        changes: &KeyChanges,
    ) -> Result<KeysChanged, StorageError> {
        let KeyChanges { bucket, idempotency, fence, create_bucket, timestamp, changes: all } = changes;
        let remembered =
            idempotency.as_ref().map(|once| self.keys.idempotency(&TopicName::log_of(bucket), &once.key));
        let fences = fence.as_ref().map(|fence| keys::fences(Guarded::Bucket(bucket.clone()), &fence.lock));
        let fence_kept = FENCE_KEPT.as_millis().to_string();
        for _ in 0..ROUNDS_MAX {
            let window = u64::try_from(self.limits.idempotency_window.as_millis()).unwrap_or(u64::MAX);
            let once = idempotency.as_ref().map_or_else(String::new, |once| hex::encode(once.fingerprint));
            let of_fence = fence.as_ref().map(|fence| (fence.lock.to_string(), fence.fence.to_string()));
            let (lock, shown) = of_fence.unwrap_or_default();
            let mut common = Vec::from(self.arguments_of(bucket));
            common.extend([once, window.to_string(), lock, shown, fence_kept.clone()]);
            let mut own: Arguments = [timestamp.to_string(), all.len().to_string()].iter().collect();
            for change in all {
                write_change(change, &mut own);
            }
            let mut keys = Vec::from(self.keys.bucket(bucket));
            keys.extend(remembered.iter().chain(fences.iter().flatten()).cloned());
            let is_alone = idempotency.is_some() || fence.is_some();
            let joining = if is_alone { Joining::Alone } else { Joining::Joined };
            let call = Call::several(&scripts::CHANGE_KEYS, Effect::Write, &keys, &common, own, joining)
                .replied(0, all.len() * 128);
            let count = all.len();
            match self
                .change_bucket(bucket, call, move |reply| {
                    coded(reply, |code, parts| read_changed(code, count, parts))
                })
                .await?
            {
                Coded::Well(Step::Done { changed, earliest }) => {
                    if let Some(earliest) = earliest {
                        self.note_expiring(&[(bucket, earliest)]).await;
                    }
                    return Ok(changed);
                }
                Coded::Well(Step::KeyReused) => return Err(StorageError::KeyReused),
                Coded::Well(Step::Fenced(against)) => return Err(StorageError::Fenced(against)),
                Coded::Well(Step::ExpireFirst) => {
                    if let Some(Err(error)) = self.expire_keys(std::slice::from_ref(bucket)).await.pop() {
                        return Err(error);
                    }
                }
                Coded::Other(1) if *create_bucket => {
                    // Of one whose log is gone the table is still there.
                    if let Some(answer) = changed_without_bucket(all)
                        && matches!(self.bucket(bucket).await, Err(StorageError::NoBucket))
                    {
                        return Ok(answer);
                    }
                    self.make_bucket(bucket, &BucketSettings::default(), true).await?;
                }
                Coded::Other(12) => {
                    return Err(StorageError::ForeignKey(remembered.unwrap_or_default().into()));
                }
                Coded::Other(code @ (13 | 14)) => {
                    let [held, seen] = fences.unwrap_or_default();
                    return Err(StorageError::ForeignKey((if code == 13 { held } else { seen }).into()));
                }
                Coded::Other(code) => return Err(self.of_code(bucket, code)),
            }
        }
        Err(StorageError::Overloaded)
    }
}
