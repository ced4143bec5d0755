//! Keys that are given another time where they have the revision that is expected of them.

use std::time::Duration;

use tidemill_proto::{BucketName, KeyName, MessageId};

use super::{Shard, ms_of, replies};
use crate::storage::StorageError;
use crate::storage::valkey::calls::Call;
use crate::storage::valkey::failure::{Effect, of_key};
use crate::storage::valkey::resp::Reply;
use crate::storage::valkey::scripts;

impl Shard {
    /// Has keys live for so long from now on that have these revisions.
    pub(in crate::storage::valkey) async fn touch_revisions(
        &self,
        bucket: &BucketName,
        touched: &[(KeyName, MessageId)],
        ttl: Duration,
    ) -> Result<Vec<bool>, StorageError> {
        let [_, facts, values, _, due, ..] = self.keys.bucket(bucket);
        let each = touched.iter().flat_map(|(key, revision)| [key.to_string(), revision.to_string()]);
        let arguments: Vec<_> = std::iter::once(ms_of(Some(ttl))).chain(each).collect();
        let count = touched.len();
        let call = Call::new(&scripts::TOUCH_REVISIONS, Effect::Write, &[&facts, &values, &due], &arguments)
            .replied(0, count * 8);
        let read = move |reply: Reply<'_>| {
            let Reply::Array(mut parts) = reply else { return None };
            let earliest = replies::number(&parts.next()?);
            let had: Vec<bool> = parts.map(|part| Some(part.integer()? == 1)).collect::<Option<_>>()?;
            (had.len() == count).then_some((had, earliest))
        };
        let (had, earliest) = self.calls.call(call, read).await.map_err(|error| of_key(error, values))?;
        if let Some(earliest) = earliest {
            self.note_expiring(&[(bucket, earliest)]).await;
        }
        Ok(had)
    }
}
