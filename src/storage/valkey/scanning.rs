//! Walking through all keys that a server has, in steps.
//!
//! Nobody waits for a walk, and publishes wait behind each of its questions. So these are small, and who walks rests after
//! each.

use std::time::Duration;

use bytes::Bytes;
use glide::ValkeyValue;

use super::Shard;
use super::control::bytes_of;
use super::failure::{Effect, unexpected};
use crate::storage::StorageError;

/// Keys looked at in one step, of whatever kind they are.
const SCAN_COUNT: &str = "1000";
/// The rest after a step.
pub(super) const REST: Duration = Duration::from_millis(2);

impl Shard {
    /// Returns the keys of one step of a walk, of those that match a pattern and have a type; and where the next step
    /// begins: at 0 none follows, and the first begins there.
    pub(super) async fn scan_keys(
        &self,
        cursor: u64,
        pattern: &str,
        of_type: &str,
    ) -> Result<(u64, Vec<Bytes>), StorageError> {
        let mut pipeline = glide::pipe();
        pipeline.cmd("SCAN").arg(cursor.to_string()).arg("MATCH").arg(pattern);
        pipeline.arg("COUNT").arg(SCAN_COUNT).arg("TYPE").arg(of_type);
        let ValkeyValue::Array(parts) = self.change.run_one(&pipeline, Effect::Read).await? else {
            return Err(unexpected("SCAN", Effect::Read));
        };
        let mut parts = parts.into_iter();
        let next = parts.next().and_then(bytes_of);
        let next = next.and_then(|bytes| std::str::from_utf8(&bytes).ok()?.parse().ok());
        let (Some(next), Some(ValkeyValue::Array(found))) = (next, parts.next()) else {
            return Err(unexpected("SCAN", Effect::Read));
        };
        Ok((next, found.into_iter().filter_map(bytes_of).collect()))
    }
}
