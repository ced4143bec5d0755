//! Locks: everything about one is a script (see `scripts::locks`), called over the connection of work.

use async_trait::async_trait;
use futures_util::future::join_all;
use tidemill_proto::locks::WAITERS_MAX;
use tidemill_proto::work::ConsumerName;
use tidemill_proto::{MessageId, Timestamp};
use tokio::time::sleep;

use super::calls::Call;
use super::failure::{Effect, of_key, unexpected};
use super::resp::{Parts, Reply};
use super::scanning::REST;
use super::scripts::{self, Script};
use super::{Shard, Valkey, at, keys};
use crate::storage::{
    FENCE_KEPT, HANDED_KEPT, LINE_LOOKED_EVERY, LockAnswer, LockAsked, LockHeld, LockId, LockIds, LockKept,
    LockRenewal, LockSecret, LockSeen, LockStore, PLACE_KEPT, StorageError,
};

/// Steps of a walk in which one part of a list looks for locks: 32,000 keys, which is some tens of ms.
const STEPS_MAX: usize = 32;
/// How many are enough for a part.
const ENOUGH: usize = 100;

/// Bytes of an answer for each who waits: a name and a number.
const WAITER_BYTES: usize = 192;

/// What a script answers: what it tells behind `0`, or another number.
type Coded<T> = Result<T, i64>;

fn coded<T>(reply: Reply<'_>, read: impl FnOnce(i64, &mut Parts<'_>) -> Option<T>) -> Option<Coded<T>> {
    let Reply::Array(mut parts) = reply else { return None };
    let code = parts.next()?.integer()?;
    match read(code, &mut parts) {
        Some(read) => Some(Ok(read)),
        None if code == 0 => None,
        None => Some(Err(code)),
    }
}

fn text<'a>(parts: &mut Parts<'a>) -> Option<&'a str> {
    std::str::from_utf8(parts.next()?.bytes()?).ok()
}

fn time(parts: &mut Parts<'_>) -> Option<Timestamp> {
    text(parts)?.parse().ok().map(Timestamp::from_millis)
}

fn fence(parts: &mut Parts<'_>) -> Option<MessageId> {
    MessageId::parse(text(parts)?).ok()
}

fn holder(parts: &mut Parts<'_>) -> Option<ConsumerName> {
    ConsumerName::parse(text(parts)?).ok()
}

fn secret(parts: &mut Parts<'_>) -> Option<LockSecret> {
    read_secret(text(parts)?)
}

/// Reads a secret as scripts keep it.
pub(super) fn read_secret(text: &str) -> Option<LockSecret> {
    let mut secret = LockSecret::default();
    hex::decode_to_slice(text, &mut secret).ok()?;
    Some(secret)
}

fn held(parts: &mut Parts<'_>) -> Option<LockHeld> {
    Some(LockHeld { holder: holder(parts)?, fence: fence(parts)?, expires_at: time(parts)? })
}

fn flag(flag: bool) -> String {
    u8::from(flag).to_string()
}

/// Returns the error of an answer that is none of those that a script gives by itself.
fn of_code(keys: &[String], code: i64) -> StorageError {
    let key = usize::try_from(-code).ok().and_then(|place| keys.get(place.checked_sub(1)?));
    key.map_or_else(
        || unexpected("EVALSHA", Effect::Write),
        |key| StorageError::ForeignKey(key.as_str().into()),
    )
}

impl Shard {
    /// Returns the arguments that each script has that changes a lock.
    fn of_all_locks(&self, lock: &LockId, secret: LockSecret) -> Vec<String> {
        vec![
            hex::encode(secret),
            u8::from(lock.guards.is_some()).to_string(),
            self.doorbell.script_channel(),
            PLACE_KEPT.as_millis().to_string(),
            HANDED_KEPT.as_millis().to_string(),
            FENCE_KEPT.as_millis().to_string(),
        ]
    }

    async fn call_lock<T: Send + 'static>(
        &self,
        script: &'static Script,
        lock: &LockId,
        arguments: &[String],
        read: impl FnOnce(i64, &mut Parts<'_>) -> Option<T> + Send + 'static,
    ) -> Result<Coded<T>, StorageError> {
        let keys = keys::lock(lock);
        let call = Call::new(script, Effect::Write, &keys, arguments);
        match self.calls.call(call, |reply| coded(reply, read)).await {
            Ok(Err(code)) if code < 0 => Err(of_code(&keys, code)),
            Ok(coded) => Ok(coded),
            Err(error) => Err(of_key(error, keys[0].as_str())),
        }
    }

    async fn acquire_lock(&self, lock: &LockId, asked: &LockAsked) -> Result<LockAnswer, StorageError> {
        let LockAsked { secret: own, holder: by, ttl, waits, again, key } = asked;
        let mut arguments = self.of_all_locks(lock, *own);
        let digest = |digest: Option<[u8; 16]>| digest.map_or_else(|| "-".to_owned(), hex::encode);
        arguments.extend([
            by.to_string(),
            ttl.as_millis().to_string(),
            flag(*waits),
            flag(*again),
            digest(key.as_ref().map(|key| key.key)),
            digest(key.as_ref().map(|key| key.fingerprint)),
            WAITERS_MAX.to_string(),
            LINE_LOOKED_EVERY.as_millis().to_string(),
        ]);
        let read = |code, parts: &mut Parts<'_>| match code {
            0 => {
                let (secret, fence, expires_at) = (secret(parts)?, fence(parts)?, time(parts)?);
                let handed = parts.next()?.integer()? == 1;
                Some(LockAnswer::Granted { secret, fence, expires_at, handed })
            }
            1 => {
                let held = held(parts)?;
                let over_in = u64::try_from(parts.next()?.integer()?).unwrap_or(0);
                let place = u64::try_from(parts.next()?.integer()?).ok();
                Some(LockAnswer::Locked { held, over_in: std::time::Duration::from_millis(over_in), place })
            }
            3 => Some(LockAnswer::Crowded),
            4 => Some(LockAnswer::Replaced),
            _ => None,
        };
        match self.call_lock(&scripts::ACQUIRE_LOCK, lock, &arguments, read).await? {
            Ok(answer) => Ok(answer),
            Err(2) => Err(StorageError::KeyReused),
            Err(_) => Err(unexpected("EVALSHA", Effect::Write)),
        }
    }

    async fn renew_lock(&self, renewal: &LockRenewal) -> Result<Option<LockKept>, StorageError> {
        let LockRenewal { lock, secret, ttl } = renewal;
        let mut arguments = self.of_all_locks(lock, *secret);
        arguments.push(ttl.as_millis().to_string());
        let read = |code, parts: &mut Parts<'_>| match code {
            0 => Some(Some(LockKept { fence: fence(parts)?, expires_at: time(parts)? })),
            1 => Some(None),
            _ => None,
        };
        let kept = self.call_lock(&scripts::RENEW_LOCK, lock, &arguments, read).await?;
        kept.map_err(|_| unexpected("EVALSHA", Effect::Write))
    }

    async fn release_lock(&self, lock: &LockId, secret: LockSecret) -> Result<bool, StorageError> {
        let read = |code, parts: &mut Parts<'_>| match code {
            0 => Some(parts.next()?.integer()? == 1),
            _ => None,
        };
        let was_held =
            self.call_lock(&scripts::RELEASE_LOCK, lock, &self.of_all_locks(lock, secret), read).await?;
        was_held.map_err(|_| unexpected("EVALSHA", Effect::Write))
    }

    async fn take_lock(&self, lock: &LockId) -> Result<Option<LockHeld>, StorageError> {
        let read = |code, parts: &mut Parts<'_>| match code {
            0 => held(parts).map(Some),
            1 => Some(None),
            _ => None,
        };
        let taken = self
            .call_lock(&scripts::TAKE_LOCK, lock, &self.of_all_locks(lock, LockSecret::default()), read)
            .await?;
        taken.map_err(|_| unexpected("EVALSHA", Effect::Write))
    }

    async fn see_lock(&self, lock: &LockId, limit: usize) -> Result<LockSeen, StorageError> {
        let keys = keys::lock(lock);
        let bytes = limit * WAITER_BYTES;
        let call =
            Call::new(&scripts::SEE_LOCK, Effect::Read, &keys, &[limit.to_string()]).replied(bytes, bytes);
        let read = |code, parts: &mut Parts<'_>| {
            if code != 0 {
                return None;
            }
            let waiting = u64::try_from(parts.next()?.integer()?).ok()?;
            let [by, fence, until] = [text(parts)?, text(parts)?, text(parts)?];
            let held = match by {
                "" => None,
                by => Some(LockHeld {
                    holder: ConsumerName::parse(by).ok()?,
                    fence: MessageId::parse(fence).ok()?,
                    expires_at: Timestamp::from_millis(until.parse().ok()?),
                }),
            };
            let mut queue = Vec::new();
            while let Some(name) = parts.next() {
                let name = std::str::from_utf8(name.bytes()?).ok()?;
                let ttl = std::time::Duration::from_millis(text(parts)?.parse().ok()?);
                queue.push((ConsumerName::parse(name).ok()?, ttl));
            }
            Some(LockSeen { held, waiting, queue })
        };
        match self.calls.call(call, move |reply| coded(reply, read)).await {
            Ok(Ok(seen)) => Ok(seen),
            Ok(Err(code)) => Err(of_code(&keys, code)),
            Err(error) => Err(of_key(error, keys[0].as_str())),
        }
    }

    /// Walks on through what the server has, until there are some locks or it has taken its steps; returns them, and where
    /// to go on.
    async fn find_locks(&self, mut cursor: u64) -> Result<(Vec<LockId>, Option<u64>), StorageError> {
        let mut found = Vec::new();
        for step in 0..STEPS_MAX {
            if step > 0 {
                sleep(REST).await;
            }
            let (next, keys) = self.scan_keys(cursor, keys::HELD, "hash").await?;
            found.extend(keys.iter().filter_map(|key| keys::lock_of(key)).filter(|lock| self.has(lock)));
            cursor = next;
            if cursor == 0 {
                return Ok((found, None));
            }
            if found.len() >= ENOUGH {
                break;
            }
        }
        Ok((found, Some(cursor)))
    }
}

impl Valkey {
    /// Goes through the servers, one behind the other. Where it goes on is the place of a server among all, and what that
    /// has told.
    async fn locks_behind(&self, after: Option<&str>) -> Result<Option<LockIds>, StorageError> {
        let read = |after: &str| {
            let (server, cursor) = after.split_once('-')?;
            Some((server.parse::<u16>().ok()?, cursor.parse::<u64>().ok()?))
        };
        let (server, cursor) = match after.map(read) {
            None => (0, 0),
            Some(Some(place)) => place,
            Some(None) => return Ok(None),
        };
        // Which servers there are is known once one can be asked.
        at!(self, shard => shard.identity().await)?;
        let mut shards = self.shards();
        shards.sort_by_key(|shard| shard.options.place());
        let Some(shard) = shards.get(usize::from(server)) else { return Ok(Some(LockIds::default())) };
        let (locks, next) = shard.find_locks(cursor).await?;
        let next = match next {
            Some(cursor) => Some(format!("{server}-{cursor}")),
            None => (usize::from(server) + 1 < shards.len()).then(|| format!("{}-0", server + 1)),
        };
        Ok(Some(LockIds { locks, next }))
    }
}

#[async_trait]
impl LockStore for Valkey {
    async fn acquire_lock(&self, lock: &LockId, asked: &LockAsked) -> Result<LockAnswer, StorageError> {
        at!(self, lock, shard => shard.acquire_lock(lock, asked).await)
    }

    async fn renew_locks(&self, renewals: &[LockRenewal]) -> Vec<Result<Option<LockKept>, StorageError>> {
        let renew = renewals
            .iter()
            .map(|renewal| async move { at!(self, &renewal.lock, shard => shard.renew_lock(renewal).await) });
        join_all(renew).await
    }

    async fn release_lock(&self, lock: &LockId, secret: LockSecret) -> Result<bool, StorageError> {
        at!(self, lock, shard => shard.release_lock(lock, secret).await)
    }

    async fn take_lock(&self, lock: &LockId) -> Result<Option<LockHeld>, StorageError> {
        at!(self, lock, shard => shard.take_lock(lock).await)
    }

    async fn lock(&self, lock: &LockId, limit: usize) -> Result<LockSeen, StorageError> {
        at!(self, lock, shard => shard.see_lock(lock, limit).await)
    }

    async fn lock_ids(&self, after: Option<&str>) -> Result<Option<LockIds>, StorageError> {
        self.locks_behind(after).await
    }

    fn watch_locks(&self, watch: bool) {
        self.places.watch_locks(watch);
    }
}
