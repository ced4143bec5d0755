//! Changes of keys of a bucket, which are one script (see `scripts::buckets::changing`).

use tidemill_proto::locks::Guarded;
use tidemill_proto::{KeyName, TopicName};

use super::super::{Shard, keys, scripts};
use super::replies::{self, Coded, Step, coded, read_changed};
use super::{ROUNDS_MAX, filling, ms_of, said};
use crate::storage::{
    BucketSettings, FENCE_KEPT, KeyChange, KeyChanges, KeyCondition, KeyDigest, KeyEdit, KeysChanged,
    READS_HALF_LIFE, StorageError, changed_without_bucket,
};

/// Returns the arguments that say what is to become of a key.
fn of_change(change: &KeyChange) -> [Vec<u8>; 9] {
    let condition = match change.condition {
        KeyCondition::Anything => "*".to_owned(),
        KeyCondition::Absent => "-".to_owned(),
        KeyCondition::Present => "+".to_owned(),
        KeyCondition::Revision(revision) => revision.to_string(),
        KeyCondition::Filling(token) => {
            format!("={} {}", filling::written(token), ms_of(Some(READS_HALF_LIFE)))
        }
    };
    let [op, value, kind, ttl, owner, digest, fresh]: [Vec<u8>; 7] = match &change.edit {
        KeyEdit::Put { value, ttl, fresh, owner } => [
            "put".into(),
            value.bytes.to_vec(),
            said(value.content_type.as_deref()).into(),
            ms_of(*ttl).into(),
            said(owner.as_ref().map(KeyName::as_str)).into(),
            replies::written(&KeyDigest::of(&value.bytes)).into(),
            ms_of(*fresh).into(),
        ],
        KeyEdit::Delete => std::array::from_fn(|at| if at == 0 { "del".into() } else { Vec::new() }),
        KeyEdit::Increment { by, min, max, ttl } => {
            let bound = |bound: &Option<i64>| bound.map_or_else(String::new, |bound| bound.to_string());
            [
                "inc".into(),
                by.to_string().into(),
                bound(min).into(),
                bound(max).into(),
                ms_of(*ttl).into(),
                Vec::new(),
                Vec::new(),
            ]
        }
    };
    [change.key.as_str().into(), condition.into(), op, value, kind, ttl, owner, digest, fresh]
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
            let mut arguments: Vec<Vec<u8>> = Vec::with_capacity(5 + 9 * all.len());
            let window = u64::try_from(self.limits.idempotency_window.as_millis()).unwrap_or(u64::MAX);
            arguments.push(
                idempotency.as_ref().map_or_else(String::new, |once| hex::encode(once.fingerprint)).into(),
            );
            arguments.push(window.to_string().into());
            let of_fence = fence.as_ref().map(|fence| (fence.lock.to_string(), fence.fence.to_string()));
            let (lock, shown) = of_fence.unwrap_or_default();
            arguments.extend([lock.into(), shown.into(), fence_kept.clone().into()]);
            for change in all {
                arguments.extend(of_change(change));
            }
            let beside = remembered.iter().chain(fences.iter().flatten()).cloned();
            let call = self
                .of_bucket(bucket, &scripts::CHANGE_KEYS, beside, *timestamp, arguments)
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
