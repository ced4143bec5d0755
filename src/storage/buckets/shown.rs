//! A bucket as the wire has it.

use tidemill_proto::duration::Seconds;
use tidemill_proto::keys::{self, Bucket};

use super::{AdaptiveTtl, BucketSettings, BucketState};

impl From<BucketState> for Bucket {
    fn from(state: BucketState) -> Self {
        let BucketState { bucket, settings, created_at, keys, bytes } = state;
        let BucketSettings { history, ttl, absolute_age, max_keys, max_bytes, adaptive_ttl } = settings;
        let (ttl, absolute_age) = (ttl.map(Seconds), absolute_age.map(Seconds));
        let adaptive_ttl = adaptive_ttl
            .map(|AdaptiveTtl { min, max }| keys::AdaptiveTtl { min: Seconds(min), max: Seconds(max) });
        Self {
            bucket,
            history,
            ttl,
            absolute_age,
            max_keys,
            max_bytes,
            adaptive_ttl,
            created_at,
            keys,
            bytes,
        }
    }
}
