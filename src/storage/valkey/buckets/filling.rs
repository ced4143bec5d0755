//! Has one of all who ask fill a key.

use std::time::Duration;

use tidemill_proto::{BucketName, KeyName};

use super::super::Shard;
use super::super::calls::Call;
use super::super::failure::Effect;
use super::super::resp::{Parts, Reply};
use super::super::scripts;
use super::replies::{Coded, coded, number, read_record};
use super::{ROUNDS_MAX, VALUE_BYTES, VALUE_BYTES_MAX, ms_of};
use crate::storage::{
    BucketSettings, FillAsked, FillToken, KeyFill, READ_KEYS_MAX, READS_HALF_LIFE, StorageError,
};

/// How long after the last read was counted in a bucket nothing is left of what was: by then all is cold.
const FORGOTTEN_AFTER: Duration = Duration::from_hours(24);

/// Returns a token as scripts have it.
pub(super) fn written(token: FillToken) -> String {
    hex::encode(token.0)
}

impl Shard {
    /// Has one of all who ask fill a key.
    pub(in crate::storage::valkey) async fn fill_key(
        &self,
        asked: &FillAsked,
    ) -> Result<KeyFill, StorageError> {
        let FillAsked { bucket, key, token, within, create_bucket } = asked;
        for _ in 0..ROUNDS_MAX {
            let keys = self.keys.bucket(bucket);
            let (token, within) = (written(*token), ms_of(Some(*within)));
            let call = Call::new(&scripts::FILL_KEY, Effect::Write, &keys, &[key.as_str(), &token, &within])
                .replied(VALUE_BYTES, VALUE_BYTES_MAX);
            let name = key.clone();
            let read = move |reply: Reply<'_>| coded(reply, |_, parts| read_fill(name, parts));
            match self.calls.call(call, read).await? {
                Coded::Well(fill) => return Ok(fill),
                Coded::Other(1) if *create_bucket => {
                    self.make_bucket(bucket, &BucketSettings::default(), true).await?;
                }
                Coded::Other(code) => return Err(self.of_code(bucket, code)),
            }
        }
        Err(StorageError::Overloaded)
    }
}

impl Shard {
    /// Adds to how often keys were read.
    pub(in crate::storage::valkey) async fn count_reads(
        &self,
        bucket: &BucketName,
        reads: &[(KeyName, u32)],
    ) -> Result<(), StorageError> {
        let [_, facts, .., kept] = self.keys.bucket(bucket);
        let bounds = [ms_of(Some(READS_HALF_LIFE)), READ_KEYS_MAX.to_string(), ms_of(Some(FORGOTTEN_AFTER))];
        let each = reads.iter().flat_map(|(key, count)| [key.to_string(), count.to_string()]);
        let arguments: Vec<String> = bounds.into_iter().chain(each).collect();
        let call = Call::new(&scripts::COUNT_READS, Effect::Write, &[&facts, &kept], &arguments);
        match self.calls.call(call, |reply| coded(reply, |_, _| Some(()))).await? {
            Coded::Well(()) => Ok(()),
            Coded::Other(code) => Err(self.of_code(bucket, code)),
        }
    }
}

fn read_fill(key: KeyName, parts: &mut Parts<'_>) -> Option<KeyFill> {
    let what = parts.next()?.integer()?;
    let over_in = Duration::from_millis(u64::try_from(parts.next()?.integer()?).ok()?);
    let (due, record) = (number(&parts.next()?), parts.next()?);
    let record = record.bytes()?;
    let there = if record.is_empty() { None } else { Some(read_record(key, due, true, record)?) };
    match what {
        0 => there.map(KeyFill::Fresh),
        1 => Some(KeyFill::Granted(there)),
        2 => Some(KeyFill::Filling { stale: there, over_in }),
        _ => None,
    }
}
